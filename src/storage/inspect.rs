//! A data directory as it is, for a person: every record, superseded ones too, every checkpoint, and what is wrong, as
//! data. It takes no lock, changes nothing, and may look on while a node works.

mod contents;

use std::collections::BTreeMap;

use fsd_wire::Entry;

use super::checkpoint::{CheckpointHead, CheckpointReader, list_checkpoints};
use super::checkpoints::{FoundCheckpoints, NoImage};
use super::error::Doing;
use super::hard_state::{self, HARD_STATE_NAME, Slot};
use super::segment::{
    ACTIVATION_AT, NameKind, Position, RecordHead, SegmentHeader, SegmentId, file_name, parse_name,
    read_entry,
};
use super::still::{StillDisk, StillFile};
use super::survey::{self, Leftover, SegmentFile, Survey, TornTail, Visitor};
use super::{DirectoryIdentity, StorageError};
use crate::mapping::{Disk, MappedFile};

/// A record that was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectedRecord {
    /// What its first bytes say.
    pub head: RecordHead,
    /// A later record takes the place of its entry, or of one before it.
    pub is_superseded: bool,
}

/// What a segment is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentPart {
    /// It is part of the log.
    Log,
    /// It was part of the log once, and stays for the contents in it.
    Past,
    /// A kept segment: contents that were written down once more.
    Kept,
}

/// A segment with its records.
pub struct InspectedSegment<F> {
    /// Its name in the directory.
    pub name: String,
    /// Its header.
    pub header: SegmentHeader,
    /// What it is there for.
    pub part: SegmentPart,
    /// Its whole records in the order in which they were written.
    pub records: Vec<InspectedRecord>,
    file: F,
}

/// Whether a start would use a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointUse {
    /// It makes the store.
    Newest,
    /// It stands for the newest one, should that be damaged; the log begins behind it.
    Older,
    /// It does not count, and the next start removes it; why.
    None(&'static str),
    /// It was looked at alone.
    Unknown,
}

/// A checkpoint. Of its body, only the blocks were checked.
pub struct InspectedCheckpoint {
    /// Its name in the directory.
    pub name: String,
    /// What it is of, if that can be told.
    pub head: Option<CheckpointHead>,
    /// Whether it counts.
    pub used: CheckpointUse,
    /// Nothing is wrong with its bytes.
    pub is_whole: bool,
}

/// What a directory, or some files of it, hold.
pub struct Inspection<D: Disk> {
    /// The directory as it was looked at.
    pub disk: StillDisk<D>,
    /// All of it was looked at, not some files alone.
    pub is_whole: bool,
    /// The two slots of the hard state, if there is one.
    pub hard_state: Option<[Slot; 2]>,
    /// The checkpoints, the oldest first.
    pub checkpoints: Vec<InspectedCheckpoint>,
    /// The segments that are there for the contents in them alone.
    pub contents: Vec<InspectedSegment<StillFile<D::File>>>,
    /// The segments of the log, in their order.
    pub segments: Vec<InspectedSegment<StillFile<D::File>>>,
    /// Files that hold nothing that counts; the next start removes them.
    pub leftovers: Vec<Leftover>,
    /// Where recovery would cut.
    pub torn: Vec<TornTail>,
    /// Everything that must not be, in the order of the files.
    pub problems: Vec<StorageError>,
}

impl<F: MappedFile> InspectedSegment<F> {
    /// Reads the entry of one of its records.
    ///
    /// # Errors
    /// If it cannot be read, or not any more.
    pub fn entry(&self, record: &InspectedRecord) -> Result<Entry, StorageError> {
        let offset = u64::from(record.head.position.offset());
        read_entry(&self.file, &record.head)
            .doing(|| format!("read {}", self.name))?
            .map_err(|why| StorageError::Damage { file: self.name.clone(), offset, what: why.to_string() })
    }
}

/// Reads a whole directory. What the items of the checkpoints say of files, and whether their contents are there, is for those
/// to judge who know items.
///
/// # Errors
/// If the directory or a file cannot be read. Damage is no error here.
pub fn inspect_directory<D: Disk>(disk: &D) -> Result<Inspection<D>, StorageError> {
    let disk = StillDisk::of(disk).doing(|| "read the data directory".to_owned())?;
    let mut problems = Vec::new();
    let hard_state = inspect_hard_state(&disk)?;
    let (identity, log_end) = judge_hard_state(&disk, hard_state.as_ref(), &mut problems)?;
    let found = FoundCheckpoints::find(&disk, None, &mut NoImage)?;
    let checkpoints = checkpoints_of(&disk, &found, identity.as_ref(), &mut problems)?;
    let mut collector = Collector { records: BTreeMap::new(), problems };
    let known = found.known(log_end);
    let surveyed = survey::survey(&disk, identity.as_ref(), &known, &mut collector)?;
    let mut inspection = finish(disk, surveyed, collector)?;
    for Leftover { name, .. } in &inspection.leftovers {
        // A start does without it, and so without the older checkpoint.
        if let NameKind::Segment(id) = parse_name(name)
            && known.referred.contains(&id)
        {
            let what = "no whole activation block, and a checkpoint refers to the segment".to_owned();
            let file = inspection.disk.describe(name);
            inspection.problems.push(StorageError::Damage { file, offset: ACTIVATION_AT, what });
        }
    }
    for checkpoint in &checkpoints {
        if let CheckpointUse::None(why) = checkpoint.used {
            inspection.leftovers.push(Leftover { name: checkpoint.name.clone(), why });
        }
    }
    if inspection.disk.list().is_ok_and(|names| names.iter().any(|name| name == hard_state::TEMPORARY_NAME)) {
        let name = hard_state::TEMPORARY_NAME.to_owned();
        inspection.leftovers.push(Leftover { name, why: "it was being made" });
    }
    Ok(Inspection { is_whole: true, hard_state, checkpoints, ..inspection })
}

/// Reads only these segments and checkpoints of a directory, by their names. What lies before the first segment of the
/// log is taken as it is described there.
///
/// # Errors
/// If a file cannot be read. Damage is no error here.
pub fn inspect_files<D: Disk>(disk: &D, names: &[String]) -> Result<Inspection<D>, StorageError> {
    let disk = StillDisk::of_files(disk, names).map_err(|(name, source)| StorageError::Io {
        doing: format!("open {}", disk.describe(&name)),
        source,
    })?;
    let mut collector = Collector { records: BTreeMap::new(), problems: Vec::new() };
    let mut checkpoints = Vec::new();
    for (_, name) in list_checkpoints(&disk).doing(|| "read the data directory".to_owned())?.into_iter().rev()
    {
        checkpoints.push(checkpoint_of(&disk, name, CheckpointUse::Unknown, &mut collector.problems)?);
    }
    let surveyed = survey::survey_part(&disk, names, &mut collector)?;
    Ok(Inspection { checkpoints, ..finish(disk, surveyed, collector)? })
}

/// Whether a file of this name can be looked at alone.
#[must_use]
pub fn is_inspectable(name: &str) -> bool {
    matches!(parse_name(name), NameKind::Segment(_) | NameKind::Checkpoint(_))
}

/// Reads the two slots of the hard state; nothing if there is no such file.
///
/// # Errors
/// If the file cannot be read.
pub fn inspect_hard_state<D: Disk>(disk: &D) -> Result<Option<[Slot; 2]>, StorageError> {
    let path = disk.describe(HARD_STATE_NAME);
    let file = match disk.open(HARD_STATE_NAME) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.doing(|| format!("open {path}"))?,
    };
    let mut slots = hard_state::read_slots(&file).doing(|| format!("read {path}"))?;
    if slots.iter().any(|slot| !matches!(slot, Slot::Good { .. })) {
        // While a node runs, it may just have been storing this one.
        slots = hard_state::read_slots(&file).doing(|| format!("read {path}"))?;
    }
    Ok(Some(slots))
}

/// Whose directory it is, and where its log ended at least.
fn judge_hard_state<D: Disk>(
    disk: &D,
    slots: Option<&[Slot; 2]>,
    problems: &mut Vec<StorageError>,
) -> Result<(Option<DirectoryIdentity>, Position), StorageError> {
    let file = disk.describe(HARD_STATE_NAME);
    let Some(slots) = slots else {
        let names = disk.list().doing(|| "read the data directory".to_owned())?;
        let is_later =
            |name: &&String| matches!(parse_name(name), NameKind::Segment(_) | NameKind::Checkpoint(_));
        let beside = names.iter().find(is_later).map(|name| disk.describe(name));
        problems.extend(beside.map(|beside| StorageError::MissingHardState { file, beside }));
        return Ok((None, Position::default()));
    };
    Ok(match hard_state::choose(slots, &file) {
        Ok((_, stored)) => (Some(stored.identity), stored.log_end),
        Err(error) => {
            problems.push(error);
            (None, Position::default())
        }
    })
}

fn checkpoints_of<D: Disk>(
    disk: &D,
    found: &FoundCheckpoints,
    identity: Option<&DirectoryIdentity>,
    problems: &mut Vec<StorageError>,
) -> Result<Vec<InspectedCheckpoint>, StorageError> {
    let newest = found.counting.last().map(CheckpointHead::name);
    let mut checkpoints = Vec::new();
    for (_, name) in list_checkpoints(disk).doing(|| "read the data directory".to_owned())?.into_iter().rev()
    {
        let counts = found.counting.iter().any(|head| head.name() == name);
        let used = match () {
            () if newest.as_deref() == Some(&*name) => CheckpointUse::Newest,
            () if counts => CheckpointUse::Older,
            () if newest.as_ref().is_none_or(|newest| name > *newest) => CheckpointUse::None("it is damaged"),
            () => CheckpointUse::None("newer ones count"),
        };
        let checkpoint = checkpoint_of(disk, name, used, problems)?;
        if let (Some(head), Some(expected)) = (&checkpoint.head, identity)
            && head.identity != *expected
        {
            let (file, found) = (disk.describe(&checkpoint.name), head.identity.clone());
            problems.push(StorageError::WrongDirectory { file, found, expected: expected.clone() });
        }
        checkpoints.push(checkpoint);
    }
    Ok(checkpoints)
}

fn checkpoint_of<D: Disk>(
    disk: &D,
    name: String,
    used: CheckpointUse,
    problems: &mut Vec<StorageError>,
) -> Result<InspectedCheckpoint, StorageError> {
    let (head, found) = CheckpointReader::verify(disk, &name)?;
    let is_whole = found.is_empty();
    problems.extend(found);
    Ok(InspectedCheckpoint { name, head, used, is_whole })
}

fn finish<D: Disk>(
    disk: StillDisk<D>,
    found: Survey<StillFile<D::File>>,
    collector: Collector,
) -> Result<Inspection<D>, StorageError> {
    let Collector { mut records, mut problems } = collector;
    // Backwards, the lowest index so far is the first that is superseded.
    let mut lowest_behind = u64::MAX;
    for record in records.values_mut().rev().flat_map(|records| records.iter_mut().rev()) {
        let index = record.head.id.index.0;
        record.is_superseded = index >= lowest_behind;
        lowest_behind = lowest_behind.min(index);
    }
    let ends = found.segments.iter().map(|segment| segment.activation.previous_end).collect();
    let contents = contents::inspect(&disk, found.contents, ends, &mut problems)?;
    let segments = found.segments.into_iter().map(|SegmentFile { file, header, .. }| InspectedSegment {
        name: file_name(header.id),
        part: SegmentPart::Log,
        records: records.remove(&header.id).unwrap_or_default(),
        header,
        file,
    });
    Ok(Inspection {
        disk,
        is_whole: false,
        hard_state: None,
        checkpoints: Vec::new(),
        contents,
        segments: segments.collect(),
        leftovers: found.leftovers,
        torn: found.torn,
        problems,
    })
}

struct Collector {
    records: BTreeMap<SegmentId, Vec<InspectedRecord>>,
    problems: Vec<StorageError>,
}

impl<F> Visitor<F> for Collector {
    fn record(&mut self, head: &RecordHead, _entry: &Entry) -> Result<(), StorageError> {
        let record = InspectedRecord { head: *head, is_superseded: false };
        self.records.entry(head.position.segment()).or_default().push(record);
        Ok(())
    }

    fn problem(&mut self, error: StorageError) -> Result<(), StorageError> {
        self.problems.push(error);
        Ok(())
    }
}
