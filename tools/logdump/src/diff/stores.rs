//! The stores of the two, as checkpoints hold them.

use std::cmp::Ordering;

use fsd::file_store::items::FileItem;
use fsd::mapping::Disk;
use fsd::storage::still::StillFile;
use fsd::storage::{CheckpointHead, StorageError};
use fsd::transfer::CheckpointItems;
use fsd_wire::{ClusterTimeMs, Version};

use super::{Counted, Diff, Weight};
use crate::Failure;
use crate::look::Look;

/// A file as a checkpoint has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    name: Vec<u8>,
    version: Version,
    size: u32,
    crc: u32,
    due: Option<ClusterTimeMs>,
}

impl Stored {
    fn of(item: &FileItem<'_>) -> Self {
        Self {
            name: item.name().to_vec(),
            version: item.version(),
            size: item.size_bytes(),
            crc: item.contents_crc(),
            due: item.due(),
        }
    }

    fn about(&self) -> String {
        format!("file {}", String::from_utf8_lossy(&self.name).escape_debug())
    }

    fn described(&self) -> String {
        let due = self.due.map_or("never".to_owned(), |due| due.to_string());
        let Self { version, size, crc, .. } = self;
        format!("version {version}, {size} bytes, CRC {crc:08x}, gone at {due}")
    }
}

/// The checkpoints that are compared, and what they say of themselves.
struct Pair<'a> {
    heads: [&'a CheckpointHead; 2],
    is_same_entry: bool,
}

impl Diff<'_> {
    /// Compares the stores: as of the newest entry of which both have a checkpoint, else as of the newest of each.
    pub(super) fn stores<D: Disk>(&mut self, looks: &[Look<D>; 2]) -> Result<(), Failure> {
        let pair = |first: &CheckpointHead| looks[1].checkpoints().find(|second| second.entry == first.entry);
        let same = looks[0].checkpoints().find_map(|first| pair(first).map(|second| [first, second]));
        let newest = || Some([looks[0].checkpoints().next()?, looks[1].checkpoints().next()?]);
        let is_same_entry = same.is_some();
        let Some(heads) = same.or_else(newest) else {
            for n in [0, 1] {
                if looks[n].checkpoints().next().is_none() {
                    let what = format!("not compared, there is no checkpoint in {}", self.names[n]);
                    self.tell(Weight::Note, "stores", &what)?;
                }
            }
            return Ok(());
        };
        let pair = Pair { heads, is_same_entry };
        self.say_what_is_compared(&pair)?;
        if pair.is_same_entry {
            self.heads(&pair)?;
        }
        let open = |n: usize| CheckpointItems::open(&looks[n].inspection.disk, &heads[n].name());
        let mut items = [open(0)?, open(1)?];
        match self.items(&pair, &mut items) {
            // It was told with the damage.
            Err(Failure::Storage(StorageError::Damage { .. })) => {
                Ok(self.tell(Weight::Note, "stores", "compared up to what is damaged")?)
            }
            compared => compared,
        }
    }

    fn say_what_is_compared(&mut self, pair: &Pair<'_>) -> std::io::Result<()> {
        let entries = pair.heads.map(|head| head.entry.index);
        let what = if pair.is_same_entry {
            format!("compared as of entry {}, of which both have a checkpoint", entries[0])
        } else {
            format!(
                "the checkpoints are of different entries, {} in {} and {} in {}: only what is in both is compared",
                entries[0], self.names[0], entries[1], self.names[1]
            )
        };
        self.tell(Weight::Note, "stores", &what)
    }

    /// What the heads of two checkpoints of one entry say of the store must be the same.
    fn heads(&mut self, pair: &Pair<'_>) -> std::io::Result<()> {
        let of = |head: &CheckpointHead| {
            [
                ("time", head.stamp.to_string()),
                ("revision", head.revision.to_string()),
                ("count of files", head.files.to_string()),
                ("count of sessions", head.sessions.to_string()),
                ("cluster id", format!("{:032x}", head.genesis.map_or(0, |id| id.0))),
                ("registrations", format!("{:?}", head.registrations)),
            ]
        };
        for ((what, first), (_, second)) in of(pair.heads[0]).into_iter().zip(of(pair.heads[1])) {
            if first != second {
                let what = format!("{what}: {first} in {}, {second} in {}", self.names[0], self.names[1]);
                self.tell(Weight::MustNot, "stores", &what)?;
            }
        }
        Ok(())
    }

    fn items<F: fsd::mapping::MappedFile>(
        &mut self,
        pair: &Pair<'_>,
        items: &mut [CheckpointItems<StillFile<F>>; 2],
    ) -> Result<(), Failure> {
        let (mut counted, mut same, mut others) = (Counted::new(), 0_u64, 0_u64);
        let mut next = [next_file(&mut items[0])?, next_file(&mut items[1])?];
        loop {
            let order = match &next {
                [None, None] => break,
                [Some(_), None] => Ordering::Less,
                [None, Some(_)] => Ordering::Greater,
                [Some(first), Some(second)] => first.name.cmp(&second.name),
            };
            let mut found = [None, None];
            for n in [0, 1] {
                if order != [Ordering::Greater, Ordering::Less][n] {
                    found[n] = next[n].take();
                    next[n] = next_file(&mut items[n])?;
                }
            }
            if found[0] == found[1] {
                same += 1;
                continue;
            }
            match self.judge_file(pair, &found) {
                Some((about, what)) => self.tell_some(&mut counted, Weight::MustNot, &about, &what)?,
                None => others += 1,
            }
        }
        self.tell_more(&counted, "stores")?;
        let mut what = format!("{same} files are the same in both");
        if !pair.is_same_entry {
            what = format!("{what}, {others} have changed between the two entries");
        }
        self.tell(Weight::Note, "stores", &what)?;
        if pair.is_same_entry { self.sessions(items) } else { Ok(()) }
    }

    /// What two stores have of one name, if it must not be.
    fn judge_file(&self, pair: &Pair<'_>, found: &[Option<Stored>; 2]) -> Option<(String, String)> {
        let file = found.iter().flatten().next().expect("one of the two has it");
        let shown = |n: usize| match &found[n] {
            Some(file) => format!("{} in {}", file.described(), self.names[n]),
            None => format!("none in {}", self.names[n]),
        };
        let (first, second) = (shown(0), shown(1));
        let (older, newer) =
            if pair.heads[0].entry.index <= pair.heads[1].entry.index { (0, 1) } else { (1, 0) };
        let version = |n: usize| found[n].as_ref().map(|file| file.version);
        let why = match (version(older), version(newer)) {
            _ if pair.is_same_entry => "",
            (Some(before), Some(after)) if before == after => "; a version is taken once",
            (Some(before), Some(after)) if after < before => "; versions never go back",
            (before, Some(after)) if after.0 <= pair.heads[older].revision && before != Some(after) => {
                "; the older store has taken that version, and not the file"
            }
            _ => return None,
        };
        Some((file.about(), format!("{first}, {second}{why}")))
    }

    fn sessions<F: fsd::mapping::MappedFile>(
        &mut self,
        items: &mut [CheckpointItems<StillFile<F>>; 2],
    ) -> Result<(), Failure> {
        let (mut counted, mut same) = (Counted::new(), 0_u64);
        let [first, second] = items;
        loop {
            match (first.next_session()?, second.next_session()?) {
                (None, None) => break,
                (first, second) if first == second => same += 1,
                (first, second) => {
                    let id = |item: Option<&[u8]>| {
                        let bytes = item.and_then(|item| item.first_chunk::<8>());
                        bytes.map_or("none".to_owned(), |bytes| u64::from_le_bytes(*bytes).to_string())
                    };
                    let what = format!(
                        "session {} in {}, {} in {}, or what they know of their changes",
                        id(first),
                        self.names[0],
                        id(second),
                        self.names[1]
                    );
                    self.tell_some(&mut counted, Weight::MustNot, "sessions", &what)?;
                }
            }
        }
        self.tell_more(&counted, "sessions")?;
        Ok(self.tell(Weight::Note, "stores", &format!("{same} sessions are the same in both"))?)
    }
}

fn next_file<F: fsd::mapping::MappedFile>(
    items: &mut CheckpointItems<F>,
) -> Result<Option<Stored>, StorageError> {
    Ok(items.next_file()?.map(|(item, _)| Stored::of(&item)))
}
