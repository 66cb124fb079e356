//! Compaction, and snapshots that travel whole: what the core's callers do with checkpoints and streams.

use bytes::Bytes;
use fsd_wire::peer::PeerMessage;
use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, SnapshotState};
use fsd_wire::{EntryId, LogIndex, NodeId, Term};

use super::{Cluster, MemoryLog};
use crate::raft::{Input, SnapshotAnswer, invariants};

/// A snapshot that lies ready at a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    from: NodeId,
    term: Term,
    entry: EntryId,
    /// Its place among all that were made.
    number: usize,
}

impl Cluster {
    /// Takes a checkpoint as of `checkpoint`, as far as it is committed, and forgets the log up to `to`.
    pub(in super::super) fn compact(&mut self, id: NodeId, checkpoint: u64, to: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &mut node.raft else { return };
        let checkpoint = LogIndex(checkpoint).min(raft.commit_index());
        let to = LogIndex(to).min(checkpoint).max(raft.base().index);
        for log in [&mut node.disk, &mut node.log] {
            log.start.committed = log.start.committed.max(checkpoint);
            log.compact(to);
        }
        let before = raft.clone();
        raft.compact(to);
        invariants::check(raft).and_then(|()| invariants::check_step(&before, raft)).unwrap();
        self.counts.compactions += u64::from(raft.base() != before.base());
        self.finish_turn(id);
    }

    /// Forgets all that is committed.
    pub(in super::super) fn compact_fully(&mut self, id: u32) {
        let commit_index = self.raft(id).commit_index().0;
        self.compact(NodeId(id), commit_index, commit_index);
    }

    /// A leader sends a snapshot to each follower that needs one.
    pub(in super::super) fn stream(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let Some(raft) = &node.raft else { return };
        let (term, from, to) = (raft.term(), raft.base().index.0, raft.commit_index().0);
        let mut messages = Vec::new();
        for follower in raft.behind() {
            let index = LogIndex(self.random.u64(from..=to));
            let summary = raft.summary_at(index, node.log.stamp_at(index));
            let number = Bytes::copy_from_slice(&self.snapshots.len().to_le_bytes());
            let message = InstallSnapshot {
                term,
                leader_id: id,
                entry: summary.base,
                offset: 0,
                is_last: true,
                bytes: number.into(),
            };
            self.snapshots.push(summary);
            messages.push((follower, PeerMessage::InstallSnapshot(message)));
        }
        self.counts.snapshots += messages.len() as u64;
        self.post(id, messages);
    }

    /// What a node does with a snapshot behind the core's own part of it.
    pub(super) fn snapshot_arrives(&mut self, id: NodeId, from: NodeId, chunk: &InstallSnapshot) {
        let Some(raft) = &self.nodes[&id].raft else { return };
        if chunk.term == raft.term() && raft.leader_id() != Some(from) {
            return;
        }
        let number = usize::from_le_bytes(chunk.bytes.to_bytes()[..].try_into().unwrap());
        let arrived = Arrived { from, term: chunk.term, entry: chunk.entry, number };
        self.nodes.get_mut(&id).unwrap().arrived = Some(arrived);
        let wanted = raft_wants(self, id, &arrived) == Some(SnapshotAnswer::Install);
        if !self.slow_installs || !wanted {
            self.install(id);
        }
    }

    /// Installs what has come, if it is still wanted, and answers.
    pub(in super::super) fn install(&mut self, id: NodeId) {
        let Some(arrived) = self.nodes.get_mut(&id).unwrap().arrived.take() else { return };
        let state = match raft_wants(self, id, &arrived) {
            None => return,
            Some(SnapshotAnswer::StaleTerm) => SnapshotState::StaleTerm,
            Some(SnapshotAnswer::HasIt) => SnapshotState::HasIt,
            Some(SnapshotAnswer::Install) => {
                let summary = self.snapshots[arrived.number].clone();
                self.check_install(id, &summary);
                let node = self.nodes.get_mut(&id).unwrap();
                let batch = node.log.batch;
                node.disk = MemoryLog { batch, ..MemoryLog::beginning_at(summary.clone()) };
                node.log = node.disk.clone();
                self.counts.installs += 1;
                // The turn may be its last: then the disk has it, and nobody was told.
                self.input(id, Input::Installed { summary });
                SnapshotState::Installed
            }
        };
        let Some(raft) = &self.nodes[&id].raft else { return };
        let (term, incarnation) = (raft.term(), raft.identity().incarnation);
        let reply = InstallSnapshotReply { term, incarnation, entry: arrived.entry, next_offset: 0, state };
        self.post(id, vec![(arrived.from, PeerMessage::InstallSnapshotReply(reply))]);
    }
}

fn raft_wants(cluster: &Cluster, id: NodeId, arrived: &Arrived) -> Option<SnapshotAnswer> {
    let raft = cluster.nodes[&id].raft.as_ref()?;
    Some(raft.wants_snapshot(arrived.term, arrived.entry))
}
