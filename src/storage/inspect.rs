//! The log's files as they are, for a person: every record, superseded ones too, and what is wrong, as data. It
//! takes no lock, changes nothing, and may look on while a node writes.

use std::collections::BTreeMap;

use fsd_wire::Entry;

use super::StorageError;
use super::checkpoint::CheckpointHead;
use super::checkpoints::{FoundCheckpoints, NoImage};
use super::error::Doing;
use super::hard_state::{self, HARD_STATE_NAME, Slot};
use super::segment::{Position, RecordHead, SegmentHeader, SegmentId, file_name, read_entry};
use super::survey::{self, ContentsFile, Leftover, SegmentFile, Survey, TornTail, Visitor};
use crate::mapping::Disk;

/// A record that was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InspectedRecord {
    /// What its first bytes say.
    pub head: RecordHead,
    /// A later record takes the place of its entry, or of one before it.
    pub is_superseded: bool,
}

/// A segment with its records.
pub struct InspectedSegment<F> {
    /// Its name in the directory.
    pub name: String,
    /// Its header.
    pub header: SegmentHeader,
    /// Its whole records in the order in which they were written.
    pub records: Vec<InspectedRecord>,
    file: F,
}

/// A segment of which only the contents in it count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedContents {
    /// Its name in the directory.
    pub name: String,
    /// The file's length.
    pub len_bytes: u64,
}

/// What a directory, or some segments of it, hold.
pub struct Inspection<F> {
    /// The checkpoints that count, the older one first.
    pub checkpoints: Vec<CheckpointHead>,
    /// The segments that are there for contents to which a checkpoint refers.
    pub contents: Vec<InspectedContents>,
    /// The segments of the log, in their order.
    pub segments: Vec<InspectedSegment<F>>,
    /// Files that hold nothing of the log.
    pub leftovers: Vec<Leftover>,
    /// Where recovery would cut.
    pub torn: Vec<TornTail>,
    /// Everything that must not be, in the order of the files.
    pub problems: Vec<StorageError>,
}

impl<F: crate::mapping::MappedFile> InspectedSegment<F> {
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

/// Reads the log of a whole directory.
///
/// # Errors
/// If the directory or a file cannot be read. Damage is no error here.
pub fn inspect_directory<D: Disk>(disk: &D) -> Result<Inspection<D::File>, StorageError> {
    let mut problems = Vec::new();
    let log_end = match inspect_hard_state(disk)? {
        None => Position::default(),
        Some(slots) => match hard_state::choose(&slots, &disk.describe(HARD_STATE_NAME)) {
            Ok((_, stored)) => stored.log_end,
            Err(error) => {
                problems.push(error);
                Position::default()
            }
        },
    };
    let checkpoints = FoundCheckpoints::find(disk, None, &mut NoImage)?;
    let known = checkpoints.known(log_end);
    problems.extend(checkpoints.damaged.into_iter().map(|(_, damaged)| damaged));
    let mut collector = Collector { records: BTreeMap::new(), problems };
    let found = survey::survey(disk, None, &known, &mut collector)?;
    Ok(finish(found, collector, checkpoints.counting))
}

/// Reads only these segments of a directory, by their names. What lies before the first of them is taken as it
/// is described there.
///
/// # Errors
/// If a file cannot be read. Damage is no error here.
pub fn inspect_segments<D: Disk>(disk: &D, names: &[String]) -> Result<Inspection<D::File>, StorageError> {
    let mut collector = Collector { records: BTreeMap::new(), problems: Vec::new() };
    let found = survey::survey_part(disk, names, &mut collector)?;
    Ok(finish(found, collector, Vec::new()))
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
    hard_state::read_slots(&file).doing(|| format!("read {path}")).map(Some)
}

fn finish<F>(found: Survey<F>, collector: Collector, checkpoints: Vec<CheckpointHead>) -> Inspection<F> {
    let Collector { mut records, problems } = collector;
    // Backwards, the lowest index so far is the first that is superseded.
    let mut lowest_behind = u64::MAX;
    for record in records.values_mut().rev().flat_map(|records| records.iter_mut().rev()) {
        let index = record.head.id.index.0;
        record.is_superseded = index >= lowest_behind;
        lowest_behind = lowest_behind.min(index);
    }
    let segments = found.segments.into_iter().map(|SegmentFile { file, header, .. }| InspectedSegment {
        name: file_name(header.id),
        records: records.remove(&header.id).unwrap_or_default(),
        header,
        file,
    });
    let contents = found.contents.into_values().map(|ContentsFile { header, .. }| InspectedContents {
        name: file_name(header.id),
        len_bytes: header.len_bytes,
    });
    Inspection {
        checkpoints,
        contents: contents.collect(),
        segments: segments.collect(),
        leftovers: found.leftovers,
        torn: found.torn,
        problems,
    }
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
