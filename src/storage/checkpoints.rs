//! Which of the checkpoints in a directory count when a node starts.

use fsd_wire::LogIndex;

use super::checkpoint::{CheckpointHead, CheckpointReader, list_checkpoints};
use super::entry_table::LogBase;
use super::error::{Doing, StorageError};
use super::segment::names_anew;
use super::survey::Known;
use super::{DirectoryIdentity, Position};
use crate::mapping::Disk;
use crate::raft::LogSummary;

/// Who makes a store of the body of a checkpoint, which is opaque here.
pub trait ImageSink {
    /// A checkpoint is about to be read. What came of an earlier one was damaged and does not count.
    fn begin(&mut self, head: &CheckpointHead);

    /// More of its body, cut anywhere.
    ///
    /// # Errors
    /// What is wrong with it.
    fn take(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// That was all.
    ///
    /// # Errors
    /// What is wrong with it.
    fn finish(&mut self) -> Result<(), String>;
}

/// Nobody wants a store: the bytes are only checked.
pub struct NoImage;

impl ImageSink for NoImage {
    fn begin(&mut self, _head: &CheckpointHead) {}

    fn take(&mut self, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The checkpoints of a directory.
#[derive(Debug, Default)]
pub(super) struct FoundCheckpoints {
    /// Those that count, the older one first: the newest that is whole, and the one before it.
    pub(super) counting: Vec<CheckpointHead>,
    /// The names of the others.
    pub(super) others: Vec<String>,
    /// Those that are newer than the newest whole one: how far a log must reach that stands for it, and what is wrong.
    pub(super) damaged: Vec<(LogIndex, StorageError)>,
}

impl FoundCheckpoints {
    /// Reads the newest checkpoint that is whole into `sink`.
    pub(super) fn find<D: Disk>(
        disk: &D,
        identity: Option<&DirectoryIdentity>,
        sink: &mut dyn ImageSink,
    ) -> Result<Self, StorageError> {
        let mut found = Self::default();
        for (index, name) in list_checkpoints(disk).doing(|| "read the data directory".to_owned())? {
            let read = match found.counting.len() {
                0 => read_whole(disk, &name, identity, sink),
                1 if !found.counting[0].begins_anew => {
                    CheckpointReader::open(disk, &name, identity).map(|reader| reader.head().clone())
                }
                _ => {
                    found.others.push(name);
                    continue;
                }
            };
            match read {
                Ok(head) => found.counting.insert(0, head),
                Err(error @ (StorageError::Damage { .. } | StorageError::UnknownFormat { .. })) => {
                    if found.counting.is_empty() {
                        // What came from another node is in no log of this one.
                        let reach = if names_anew(&name) { LogIndex(u64::MAX) } else { index };
                        found.damaged.push((reach, error));
                    }
                    found.others.push(name);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What they say of the log, which ended at `log_end` at least.
    pub(super) fn known(&self, log_end: Position) -> Known {
        let (oldest, newest) = (self.counting.first(), self.counting.last());
        Known {
            log_end: newest.map_or(log_end, |head| log_end.max(head.log_end)),
            base: oldest.map_or_else(LogBase::default, CheckpointHead::base),
            referred: self.counting.iter().flat_map(|head| &head.segments).copied().collect(),
            needed: newest.map(|head| head.segments.iter().copied().collect()).unwrap_or_default(),
        }
    }

    /// What the core needs to know of the log before its first record is read.
    pub(super) fn summary(&self) -> LogSummary {
        let Some(oldest) = self.counting.first() else { return LogSummary::default() };
        LogSummary {
            base: oldest.entry,
            committed: self.counting.last().map_or(LogIndex(0), |head| head.entry.index),
            term_starts: Vec::new(),
            last_index: oldest.entry.index,
            last_stamp: oldest.stamp,
            registrations: oldest.registrations.clone(),
            genesis: oldest.genesis,
        }
    }
}

fn read_whole<D: Disk>(
    disk: &D,
    name: &str,
    identity: Option<&DirectoryIdentity>,
    sink: &mut dyn ImageSink,
) -> Result<CheckpointHead, StorageError> {
    let mut reader = CheckpointReader::open(disk, name, identity)?;
    let damage = |what: String| StorageError::Damage { file: disk.describe(name), offset: 0, what };
    sink.begin(reader.head());
    while let Some(block) = reader.next_block()? {
        sink.take(&block).map_err(damage)?;
    }
    sink.finish().map_err(damage)?;
    Ok(reader.head().clone())
}
