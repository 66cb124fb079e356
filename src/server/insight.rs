//! What a node holds, for those who check whole clusters from outside: it can be looked at, never changed.

use super::node::Node;
use crate::file_store::FileStore;
use crate::mapping::Disk;
use crate::raft::Raft;
use crate::storage::SegmentedLog;

impl<D: Disk> Node<D> {
    /// The consensus core, for those who check it from outside.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The log on the disk, for those who compare it with others.
    #[must_use]
    pub fn log(&self) -> &SegmentedLog<D> {
        &self.log
    }

    /// The index of the files.
    #[must_use]
    pub fn store(&self) -> &FileStore {
        &self.store
    }
}
