//! Answers to what a node asked in an earlier election, term or life, or of an earlier disk, which come once more at the
//! worst of moments: when it has just asked for something that they could be taken for an answer to.

use std::collections::{BTreeMap, VecDeque};

use fsd::net::Event;
use fsd_wire::peer::{AppendEntriesReply, AppendResult, PeerMessage};
use fsd_wire::{Incarnation, LogIndex, NodeId, Term};

/// Answers to questions for votes, reads and changes that are kept for each node.
const KEPT_MAX: usize = 64;
/// Of the first rounds of a term one answer each is kept, whatever term it is.
const ROUNDS_KEPT: u64 = 4096;
/// A late answer that confirms a round is to one of the last few.
const ROUNDS_LATE: u64 = 4;
/// Answers that say what a node holds are kept of each node in each term.
const HELD_KEPT_MAX: usize = 32;
/// So many terms back they are kept.
const TERMS_KEPT_MAX: usize = 6;
/// Requests are numbered within a life by the lower half of their names; a late answer is to one of about this number.
const TICKETS_LATE: u32 = 4;

/// What a node asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// For votes.
    Votes(Term),
    /// For a read index, with this question.
    ReadIndex(u64),
    /// For a change of one of its clients, under this number.
    Change(u64),
    /// Followers to append entries, in this round of a term.
    Round(Term, u64),
}

impl Asked {
    /// What this message asks for, if its answers are kept.
    pub(crate) fn by(message: &PeerMessage) -> Option<Self> {
        match message {
            PeerMessage::RequestVote(request) if !request.pre_vote => Some(Self::Votes(request.term)),
            PeerMessage::ReadIndex(request) => Some(Self::ReadIndex(request.id.number)),
            PeerMessage::Forward(request) => Some(Self::Change(request.id.0)),
            PeerMessage::AppendEntries(request) => Some(Self::Round(request.term, request.round)),
            _ => None,
        }
    }
}

/// What a follower said that it holds.
#[derive(Clone, Debug)]
struct Held {
    match_index: LogIndex,
    reply: AppendEntriesReply,
}

/// The answers that a node got, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct LateAnswers {
    votes: VecDeque<(NodeId, PeerMessage)>,
    reads: VecDeque<(NodeId, PeerMessage)>,
    /// With the life of this node in which they came.
    changes: VecDeque<(u64, NodeId, PeerMessage)>,
    /// By round: what could confirm one.
    rounds: BTreeMap<u64, (NodeId, PeerMessage)>,
    /// By term and node, each in the order of their rounds: what could commit something.
    held: BTreeMap<(Term, NodeId), BTreeMap<u64, Held>>,
    /// The disk that each node had last.
    disks: BTreeMap<NodeId, Incarnation>,
}

impl LateAnswers {
    /// Keeps the answers among these events, which came in this life, not all where there are many.
    pub(crate) fn keep(&mut self, life: u64, events: &[Event], random: &mut fastrand::Rng) {
        for event in events {
            let Event::Peer { from, message } = event else { continue };
            match message {
                PeerMessage::RequestVoteReply(reply) if reply.vote_granted && !reply.pre_vote => {
                    keep_one(&mut self.votes, (*from, message.clone()), random);
                }
                PeerMessage::ReadIndexReply(_) => keep_one(&mut self.reads, (*from, message.clone()), random),
                PeerMessage::ForwardReply(_) => {
                    keep_one(&mut self.changes, (life, *from, message.clone()), random);
                }
                PeerMessage::AppendEntriesReply(reply) => self.keep_held(*from, message, reply, random),
                _ => {}
            }
        }
    }

    fn keep_held(
        &mut self,
        from: NodeId,
        message: &PeerMessage,
        reply: &AppendEntriesReply,
        random: &mut fastrand::Rng,
    ) {
        let AppendResult::Matched { match_index } = reply.result else { return };
        if reply.round < ROUNDS_KEPT && random.u32(..4) == 0 {
            self.rounds.insert(reply.round, (from, message.clone()));
        }
        self.disks.insert(from, reply.incarnation);
        let is_first = !self.held.contains_key(&(reply.term, from));
        let of_term = self.held.entry((reply.term, from)).or_default();
        // The first rounds of a term are worth most: they are good for a late answer in every later term.
        if of_term.len() >= HELD_KEPT_MAX / 2 && random.u32(..4) != 0 {
            return;
        }
        if of_term.len() == HELD_KEPT_MAX {
            let place = random.usize(..HELD_KEPT_MAX);
            let round = of_term.keys().nth(place).copied();
            round.and_then(|round| of_term.remove(&round));
        }
        of_term.insert(reply.round, Held { match_index, reply: *reply });
        if is_first {
            let mut terms: Vec<Term> = self.held.keys().map(|(term, _)| *term).collect();
            terms.dedup();
            if terms.len() > TERMS_KEPT_MAX {
                self.held.retain(|(term, _), _| *term != terms[0]);
            }
        }
    }

    /// Old answers that could be taken for one to what was asked just now, in this life.
    pub(crate) fn like(&self, life: u64, asked: Asked) -> Vec<Event> {
        let event = |(from, message): (NodeId, PeerMessage)| Event::Peer { from, message };
        match asked {
            Asked::Votes(term) => {
                let is_like = |message: &PeerMessage| matches!(message, PeerMessage::RequestVoteReply(reply) if reply.election_term < term);
                self.votes.iter().filter(|(_, message)| is_like(message)).cloned().map(event).collect()
            }
            Asked::ReadIndex(number) => {
                let is_like = |message: &PeerMessage| matches!(message, PeerMessage::ReadIndexReply(reply) if reply.id.number == number);
                self.reads.iter().filter(|(_, message)| is_like(message)).cloned().map(event).collect()
            }
            Asked::Change(ticket) => {
                // Within one life no connection answers anything twice.
                let is_like = |message: &PeerMessage| {
                    matches!(message, PeerMessage::ForwardReply(reply)
                        if (reply.id.0 as u32).abs_diff(ticket as u32) <= TICKETS_LATE)
                };
                let of_before =
                    self.changes.iter().filter(|(then, _, message)| *then < life && is_like(message));
                of_before.map(|(_, from, message)| event((*from, message.clone()))).collect()
            }
            Asked::Round(term, round) => {
                let last = self.rounds.range(round.saturating_sub(ROUNDS_LATE)..=round).map(|(_, kept)| kept);
                let is_late = |message: &PeerMessage| matches!(message, PeerMessage::AppendEntriesReply(reply) if reply.term < term);
                let confirming = last.filter(|(_, message)| is_late(message)).cloned();
                confirming.chain(self.held_before(term, round)).map(event).collect()
            }
        }
    }

    /// The most that each node ever said that it holds, in a round up to this one of an earlier term, or with another
    /// disk than it has now.
    fn held_before(&self, term: Term, round: u64) -> impl Iterator<Item = (NodeId, PeerMessage)> {
        let mut most: BTreeMap<NodeId, &Held> = BTreeMap::new();
        for ((of, from), rounds) in &self.held {
            let is_late = |held: &&Held| *of < term || self.disks.get(from) != Some(&held.reply.incarnation);
            for held in rounds.range(..=round).map(|(_, held)| held).filter(is_late) {
                if most.get(from).is_none_or(|known| known.match_index < held.match_index) {
                    most.insert(*from, held);
                }
            }
        }
        most.into_iter().map(|(from, held)| (from, PeerMessage::AppendEntriesReply(held.reply)))
    }
}

fn keep_one<T>(kept: &mut VecDeque<T>, one: T, random: &mut fastrand::Rng) {
    if kept.len() == KEPT_MAX {
        kept.remove(random.usize(..KEPT_MAX));
    }
    kept.push_back(one);
}
