//! Answers to what a node asked in an earlier election, term or life, which come once more at the worst of moments:
//! when it has just asked for something that they could be taken for an answer to.

use std::collections::{BTreeMap, VecDeque};

use fsd::net::Event;
use fsd_wire::NodeId;
use fsd_wire::Term;
use fsd_wire::peer::{AppendResult, PeerMessage};

/// Answers to questions for votes and reads that are kept for each node.
const KEPT_MAX: usize = 64;
/// Of the first rounds of a term one answer each is kept.
const ROUNDS_KEPT: u64 = 4096;
/// A late answer may be to one of so many rounds.
const ROUNDS_LATE: u64 = 4;

/// What a node asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// For votes.
    Votes(Term),
    /// For a read index, with this question.
    ReadIndex(u64),
    /// Followers to append entries, in this round of a term.
    Round(Term, u64),
}

impl Asked {
    /// What this message asks for, if its answers are kept.
    pub(crate) fn by(message: &PeerMessage) -> Option<Self> {
        match message {
            PeerMessage::RequestVote(request) if !request.pre_vote => Some(Self::Votes(request.term)),
            PeerMessage::ReadIndex(request) => Some(Self::ReadIndex(request.id.number)),
            PeerMessage::AppendEntries(request) => Some(Self::Round(request.term, request.round)),
            _ => None,
        }
    }
}

/// The answers that a node got, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct LateAnswers {
    votes: VecDeque<(NodeId, PeerMessage)>,
    reads: VecDeque<(NodeId, PeerMessage)>,
    appended: BTreeMap<u64, (NodeId, PeerMessage)>,
}

impl LateAnswers {
    /// Keeps the answers among these events, not all where there are many.
    pub(crate) fn keep(&mut self, events: &[Event], random: &mut fastrand::Rng) {
        for event in events {
            let Event::Peer { from, message } = event else { continue };
            let kept = match message {
                PeerMessage::RequestVoteReply(reply) if reply.vote_granted && !reply.pre_vote => {
                    &mut self.votes
                }
                PeerMessage::ReadIndexReply(_) => &mut self.reads,
                PeerMessage::AppendEntriesReply(reply)
                    if reply.round < ROUNDS_KEPT
                        && matches!(reply.result, AppendResult::Matched { .. })
                        && random.u32(..4) == 0 =>
                {
                    self.appended.insert(reply.round, (*from, message.clone()));
                    continue;
                }
                _ => continue,
            };
            if kept.len() == KEPT_MAX {
                kept.remove(random.usize(..KEPT_MAX));
            }
            kept.push_back((*from, message.clone()));
        }
    }

    /// Old answers that could be taken for one to what was asked just now.
    pub(crate) fn like(&self, asked: Asked) -> Vec<Event> {
        let is_like = |message: &PeerMessage| match (asked, message) {
            (Asked::Votes(term), PeerMessage::RequestVoteReply(reply)) => reply.election_term < term,
            (Asked::ReadIndex(number), PeerMessage::ReadIndexReply(reply)) => reply.id.number == number,
            (Asked::Round(term, round), PeerMessage::AppendEntriesReply(reply)) => {
                reply.term < term && reply.round <= round
            }
            _ => false,
        };
        let event = |(from, message): &(NodeId, PeerMessage)| {
            is_like(message).then(|| Event::Peer { from: *from, message: message.clone() })
        };
        match asked {
            Asked::Votes(_) => self.votes.iter().filter_map(event).collect(),
            Asked::ReadIndex(_) => self.reads.iter().filter_map(event).collect(),
            Asked::Round(_, round) => {
                let rounds = round.saturating_sub(ROUNDS_LATE)..=round;
                self.appended.range(rounds).map(|(_, kept)| kept).filter_map(event).collect()
            }
        }
    }
}
