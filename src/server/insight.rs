//! What a node holds, for clients who ask and for those who check whole clusters from outside: it can be looked at,
//! never changed.

use fsd_wire::client::{NodeStatus, StorageStatus};
use fsd_wire::{EntryId, LogIndex};

use super::node::Node;
use crate::file_store::FileStore;
use crate::mapping::Disk;
use crate::raft::Raft;
use crate::storage::{CheckpointHead, SegmentedLog};

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

    /// The store that came from another node and will be installed with the next turn, or as soon as the helper has
    /// done its last job for it: as of which entry it is.
    #[must_use]
    pub fn installing(&self) -> Option<EntryId> {
        self.housekeeping.installing()
    }

    /// What this node knows of itself.
    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.config.node,
            role: self.raft.role(),
            term: self.raft.term(),
            leader: self.raft.leader_id(),
            commit_index: self.raft.commit_index(),
            last_applied: self.store.last_applied(),
            first_log_index: self.log.first_index(),
            last_log_index: self.log.last_index(),
            files: self.store.len() as u64,
            revision: self.store.revision(),
            cluster: self.config.cluster.clone(),
        }
    }

    /// What the data directory takes.
    pub(super) fn storage_status(&self) -> StorageStatus {
        let checkpoints = self.housekeeping.checkpoints();
        StorageStatus {
            log_bytes: self.log.log_bytes(),
            contents_bytes: self.log.contents_bytes(),
            checkpoint_bytes: checkpoints.iter().map(CheckpointHead::file_bytes).sum(),
            live_bytes: self.space().live_bytes,
            // It is for a person, and the next operation on such a disk ends the node anyway.
            total_bytes: self.log.disk().used_bytes().unwrap_or(0),
            checkpoint_index: checkpoints.last().map_or(LogIndex(0), |head| head.entry.index),
        }
    }
}
