//! What a node keeps on its disk: the log in segments, the hard state, and what recovery makes of them.
//! `docs/disk-format.md` describes the files to the byte.

pub mod checkpoint;
mod checkpoints;
mod copying;
mod entry_table;
mod error;
pub mod hard_state;
pub mod inspect;
pub mod kept;
mod lock;
mod log_room;
mod prospect;
mod recovery;
mod restoring;
pub mod segment;
mod segment_reader;
pub mod segmented_log;
pub mod still;
mod survey;
#[cfg(test)]
mod tests;
mod trimming;

use std::fmt;

use fsd_wire::NodeId;

use crate::mapping::Disk;
use crate::raft::{HardState, LogSummary};

pub use checkpoint::{
    CheckpointHead, CheckpointReader, CheckpointWriter, NamelessCheckpoint, list_checkpoints,
};
pub use checkpoints::{ImageSink, NoImage};
pub use copying::{Copied, Copying, Moved};
pub use entry_table::LogBase;
pub use error::StorageError;
pub use hard_state::HardStateFile;
pub use lock::lock_directory;
pub use restoring::Restoration;
pub use segment::{Position, SegmentId};
pub use segment_reader::SegmentReader;
pub use segmented_log::{SegmentedLog, Spare, SpareRequest};
pub use survey::{Leftover, TornTail};
pub use trimming::ContentsSegment;

/// Whose a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// The cluster's name.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
}

impl fmt::Display for DirectoryIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {:?}", self.node, self.cluster)
    }
}

/// An open data directory.
pub struct Storage<D: Disk> {
    /// The log.
    pub log: SegmentedLog<D>,
    /// The hard state.
    pub hard_state: HardStateFile<D>,
    /// What was found.
    pub recovered: Recovered,
}

/// What recovery found.
#[derive(Debug)]
pub struct Recovered {
    /// The hard state; the new life is already durable.
    pub state: HardState,
    /// The log, all of which is durable.
    pub log: LogSummary,
    /// The checkpoints that count, the older one first.
    pub checkpoints: Vec<CheckpointHead>,
    /// What there is to tell a person, a line each.
    pub report: Vec<String>,
}

/// Recovers what is in the directory and begins a new life on it. A directory that is empty becomes this node's,
/// as a new incarnation. `random` is drawn from for what must be unlike anything before. The newest whole checkpoint is
/// read into `sink`: what that makes of it is the store as of [`LogSummary::committed`].
///
/// # Errors
/// If anything that was once durable is missing or damaged, if the directory is another node's, or if the disk
/// fails. The directory is then as it was, but for files that never counted.
///
/// # Panics
/// If `segment_bytes` is out of its range.
pub fn open_into<D: Disk>(
    disk: D,
    identity: &DirectoryIdentity,
    segment_bytes: u64,
    random: &mut dyn FnMut() -> u64,
    sink: &mut dyn ImageSink,
) -> Result<Storage<D>, StorageError> {
    recovery::open(disk, identity, segment_bytes, random, sink)
}

/// The same for whoever needs no store.
///
/// # Errors
/// As [`open_into`].
///
/// # Panics
/// As [`open_into`].
pub fn open<D: Disk>(
    disk: D,
    identity: &DirectoryIdentity,
    segment_bytes: u64,
    random: &mut dyn FnMut() -> u64,
) -> Result<Storage<D>, StorageError> {
    open_into(disk, identity, segment_bytes, random, &mut NoImage)
}

/// Says what [`open_into`] would find and do, a line each, and changes nothing.
///
/// # Errors
/// As [`open_into`].
pub fn check<D: Disk>(
    disk: &D,
    identity: &DirectoryIdentity,
    sink: &mut dyn ImageSink,
) -> Result<Vec<String>, StorageError> {
    prospect::check(disk, identity, sink)
}
