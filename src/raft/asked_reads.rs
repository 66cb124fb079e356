//! Reads at a follower: it asks its leader for a read index, waits until its own store has come that far, and
//! answers from there.
//!
//! Messages and replies may be lost, repeated or late, and either side may be restarted at any time, so each
//! question has a number, none is used twice, and the answer repeats it together with this run's incarnation and
//! life. An answer is made after its question came, so it is good for the reads that had come when the
//! question left, and for no others: those with the same or a lower number. An answer to an earlier life of this
//! node, whose numbers began anew, is for none.
//!
//! Nobody is asked by a timer. Whoever leads gives signs of life, and each of them is an occasion to ask again,
//! once per heartbeat, or at once if another node or term leads now. Reads that outlive a leader wait for the
//! next one through one election timeout, not longer: a node that is cut off must say so.

use std::collections::VecDeque;

use fsd_wire::peer::{PeerMessage, ReadIndex, ReadIndexId, ReadIndexReply};
use fsd_wire::{NodeId, Term};

use super::{Raft, ReadReady};
use crate::limits::{READS_WAITING_MAX, REQUEST_TIMEOUT_MS_MAX};
use crate::marks::mark;
use crate::mutants::mutant;

#[derive(Clone, Debug, PartialEq, Eq)]
struct AskedRead {
    id: u64,
    /// The first question that left after it came.
    number: u64,
    since_ms: u64,
}

/// Reads that wait for an answer of the leader, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AskedReads {
    waiting: VecDeque<AskedRead>,
    /// Of the last question.
    number: u64,
    /// Who was asked last, in which term, and when.
    asked: Option<(NodeId, Term, u64)>,
}

impl AskedReads {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the reads stand in the order of their questions, all of which were asked.
    pub(super) fn is_in_order(&self) -> bool {
        self.waiting.iter().is_sorted_by_key(|read| read.number)
            && self.waiting.back().is_none_or(|read| read.number <= self.number)
    }

    pub(super) fn take_ids(&mut self) -> impl Iterator<Item = u64> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|read| read.id)
    }
}

impl Raft {
    /// A read came to a node that does not lead.
    pub(super) fn ask_for_read(&mut self, now_ms: u64, id: u64) {
        let room = self.asked_reads.len() < READS_WAITING_MAX;
        let Some(leader) = self.leader_id().filter(|_| room) else {
            mark!("asked-read-finds-no-leader");
            self.actions.reads_lost.push(id);
            return;
        };
        // A question that has not left yet is asked for this read, too.
        let number = self.asked_reads.number;
        let unsent = self.actions.send.iter().any(|(to, message)| {
            *to == leader && matches!(message, PeerMessage::ReadIndex(asked) if asked.id.number == number)
        });
        mark!("asked-read-joins-question", unsent);
        if !unsent {
            self.send_read_index(now_ms, leader);
        }
        let number = self.asked_reads.number;
        self.asked_reads.waiting.push_back(AskedRead { id, number, since_ms: now_ms });
    }

    /// The leader gave a sign of life: whatever still waits may have been lost on its way.
    pub(super) fn ask_again(&mut self, now_ms: u64, leader: NodeId) {
        // No request waits longer than this, so nobody is left who would want to know.
        let too_old = |read: &AskedRead| now_ms.saturating_sub(read.since_ms) >= REQUEST_TIMEOUT_MS_MAX;
        while self.asked_reads.waiting.front().is_some_and(too_old) {
            mark!("asked-read-is-too-old");
            let read = self.asked_reads.waiting.pop_front();
            self.actions.reads_lost.extend(read.map(|read| read.id));
        }
        let asked_just_now = self.asked_reads.asked.is_some_and(|(of, term, at_ms)| {
            (of, term) == (leader, self.state.term) && now_ms.saturating_sub(at_ms) < self.config.heartbeat_ms
        });
        if self.asked_reads.len() > 0 && !asked_just_now {
            mark!("asked-read-is-asked-again");
            self.send_read_index(now_ms, leader);
        }
    }

    /// A question for all reads that wait, under a number of its own: were one used twice, the answer to the
    /// first would be taken for one to reads that came after it was given.
    fn send_read_index(&mut self, now_ms: u64, leader: NodeId) {
        let (term, incarnation, life) = (self.state.term, self.state.incarnation, self.state.life);
        self.asked_reads.number += 1;
        self.asked_reads.asked = Some((leader, term, now_ms));
        let id = ReadIndexId { incarnation, life, number: self.asked_reads.number };
        self.actions.send.push((leader, PeerMessage::ReadIndex(ReadIndex { term, id })));
    }

    pub(super) fn handle_read_index_reply(&mut self, from: NodeId, reply: &ReadIndexReply) {
        let of_this_run = (reply.id.incarnation, reply.id.life) == (self.state.incarnation, self.state.life)
            || mutant!("answer-to-earlier-life");
        mark!("asked-read-answered-to-earlier-life", !of_this_run);
        mark!("asked-read-answered-in-other-term", of_this_run && reply.term != self.state.term);
        let asked = of_this_run && reply.id.number <= self.asked_reads.number;
        // Another leader's answer would do as well, but is not needed: the present one is asked again.
        if !asked || self.is_leader() || self.leader_id() != Some(from) || reply.term != self.state.term {
            return;
        }
        let waiting = &mut self.asked_reads.waiting;
        let is_answered = |read: &AskedRead| read.number <= reply.id.number || mutant!("late-read-index");
        let count = waiting.partition_point(is_answered);
        self.actions.reads_ready.extend(waiting.drain(..count).map(|read| ReadReady {
            id: read.id,
            index: reply.read_index,
            cluster_time: Some(reply.cluster_time),
        }));
    }

    /// No leader was found in time: the reads that wait for one are told so.
    pub(super) fn lose_asked_reads(&mut self) {
        mark!("asked-reads-are-lost", self.asked_reads.len() > 0);
        self.actions.reads_lost.extend(self.asked_reads.take_ids());
    }

    /// This node leads now: it answers for itself.
    pub(super) fn adopt_asked_reads(&mut self, now_ms: u64) {
        for id in self.asked_reads.take_ids() {
            mark!("asked-reads-are-adopted");
            self.handle_read(now_ms, id);
        }
    }
}
