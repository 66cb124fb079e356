//! Linearizable reads without the log (thesis section 6.4): a read may be answered from a state that includes
//! everything committed when the read came, once a majority has confirmed, **after** it came, that this node
//! still leads. One round of heartbeats confirms all reads that wait for it. No clock is trusted: there is no
//! lease that a pause or a transfer could outlive.
//!
//! A follower's reads wait here like the leader's own, a batch of them as one; `asked_reads` is the other end.

use std::collections::VecDeque;

use fsd_wire::peer::{PeerMessage, ReadIndex, ReadIndexId, ReadIndexReply};
use fsd_wire::{LogIndex, NodeId};

use super::{PeerRead, Raft, ReadReady, Role};
use crate::limits::READS_WAITING_MAX;
use crate::marks::mark;
use crate::mutants::mutant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// This node's own read, by its caller's name for it.
    Own(u64),
    Peer(NodeId, ReadIndexId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WaitingRead {
    asker: Asker,
    /// The first round that begins after the read came.
    round: u64,
    /// What must be applied before it is answered.
    index: LogIndex,
}

/// Reads that wait for their round, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadQueue {
    waiting: VecDeque<WaitingRead>,
}

impl ReadQueue {
    pub(super) fn last_round(&self) -> u64 {
        self.waiting.back().map_or(0, |read| read.round)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a read; returns whether there was room. What one follower asks for the same round twice is one
    /// question: the later one stands for both.
    fn add(&mut self, read: WaitingRead) -> bool {
        let of_this_round = self.waiting.iter_mut().rev().take_while(|other| other.round == read.round);
        for earlier in of_this_round {
            if let (Asker::Peer(node, id), Asker::Peer(other_node, other_id)) =
                (read.asker, &mut earlier.asker)
                && node == *other_node
                && (id.incarnation, id.life) == (other_id.incarnation, other_id.life)
            {
                mark!("read-index-asked-twice");
                other_id.number = other_id.number.max(id.number);
                earlier.index = earlier.index.max(read.index);
                return true;
            }
        }
        let room = self.waiting.len() < READS_WAITING_MAX;
        if room {
            self.waiting.push_back(read);
        }
        room
    }

    /// Takes the reads out whose round is confirmed.
    fn confirmed(&mut self, round: u64) -> impl Iterator<Item = WaitingRead> {
        let count = self.waiting.partition_point(|read| read.round <= round);
        self.waiting.drain(..count)
    }

    /// The reads of this node's own. Followers ask the next leader by themselves.
    pub(super) fn into_own_ids(self) -> impl Iterator<Item = u64> {
        self.waiting.into_iter().filter_map(|read| match read.asker {
            Asker::Own(id) => Some(id),
            Asker::Peer(..) => None,
        })
    }
}

impl Raft {
    /// A read came: a leader confirms it, a follower asks its leader.
    pub(super) fn handle_read(&mut self, now_ms: u64, id: u64) {
        if !self.is_leader() {
            self.ask_for_read(now_ms, id);
        } else if !self.add_to_next_round(Asker::Own(id)) {
            self.actions.reads_lost.push(id);
        }
    }

    /// A follower has reads. Who does not lead in its term stays silent: whoever does will be heard by it, and
    /// then it asks again.
    pub(super) fn handle_read_index(&mut self, from: NodeId, request: &ReadIndex) {
        mark!("read-index-asked-in-other-term", request.term != self.state.term);
        mark!("read-index-asked-of-deposed", request.term == self.state.term && !self.is_leader());
        if request.term == self.state.term {
            self.add_to_next_round(Asker::Peer(from, request.id));
        }
    }

    /// A read waits for the next round, never for one that is already under way, because a follower may have
    /// answered that one before it helped to elect someone else.
    fn add_to_next_round(&mut self, asker: Asker) -> bool {
        let commit_index = self.commit_index;
        let Role::Leader(leader) = &mut self.role else { return false };
        // Until this term's first entry is committed, the leader does not know what its predecessors have
        // committed; it all lies before that entry (section 8). What is due by now was proposed before the
        // read came, so the last tick is waited for, too.
        let mut index = commit_index.max(leader.term_first_index).max(leader.last_tick_index);
        if mutant!("read-before-noop") {
            index = commit_index;
        }
        let round = leader.round + u64::from(!mutant!("read-of-old-round"));
        let added = leader.reads.add(WaitingRead { asker, round, index });
        self.release_reads();
        added
    }

    /// Hands out the reads whose round a majority has answered, unless it is too early in the term.
    pub(super) fn release_reads(&mut self) {
        let (own_incarnation, term) = (self.state.incarnation, self.state.term);
        let Role::Leader(leader) = &mut self.role else { return };
        let is_early = self.commit_index < leader.term_first_index && !mutant!("read-before-noop");
        mark!("read-waits-for-beginning-of-term", is_early && leader.reads.len() > 0);
        if is_early || leader.reads.len() == 0 {
            return;
        }
        let own = (self.config.node, own_incarnation, u64::MAX);
        let followers = leader.progress.iter().filter_map(|(node, progress)| {
            progress.incarnation.map(|incarnation| (*node, incarnation, progress.round_answered))
        });
        let Some(round) = self.electorate.held_by_quorum(followers.chain([own])) else { return };
        let round = if mutant!("read-without-round") { u64::MAX } else { round };
        for WaitingRead { asker, index, .. } in leader.reads.confirmed(round) {
            match asker {
                Asker::Own(id) => {
                    self.actions.reads_ready.push(ReadReady { id, index, cluster_time: None });
                }
                Asker::Peer(node, id) => {
                    self.actions.peer_reads_ready.push(PeerRead { node, id, index, term });
                }
            }
        }
    }

    /// The answer to a follower's confirmed read. To be called when this node's store has applied at least the
    /// read's index, up to `last_applied`, and nothing in it is due at the present cluster time: all of that is in
    /// the answer, so that the follower shows no file that was seen gone here. `None` if this node no longer
    /// leads: its time then stands still, and the follower asks the next leader.
    ///
    /// # Panics
    /// If the store has not come that far.
    #[must_use]
    pub fn answer_peer_read(
        &self,
        now_ms: u64,
        read: &PeerRead,
        last_applied: LogIndex,
    ) -> Option<PeerMessage> {
        assert!(last_applied >= read.index && last_applied <= self.commit_index, "applied {last_applied}");
        mark!("read-confirmed-and-then-deposed", !self.is_leader() || self.state.term != read.term);
        (self.is_leader() && self.state.term == read.term).then(|| {
            PeerMessage::ReadIndexReply(ReadIndexReply {
                term: read.term,
                id: read.id,
                read_index: last_applied,
                cluster_time: self.cluster_time(now_ms),
            })
        })
    }
}
