//! A node that hears no leader first asks whether it would be elected (PreVote, thesis section 9.6), then
//! stands for election (section 5.2).

use std::collections::BTreeSet;

use fsd_wire::NodeId;
use fsd_wire::peer::{PeerMessage, RequestVote, RequestVoteReply};

use super::{Raft, Role};
use crate::marks::mark;
use crate::mutants::mutant;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CandidateState {
    /// Those whose votes count, this node among them.
    pub(super) granted: BTreeSet<NodeId>,
}

impl Raft {
    pub(super) fn handle_election_timeout(&mut self, now_ms: u64) {
        if self.is_leader() {
            return;
        }
        // For the second time in a row: this node is cut off, or there is no majority.
        if self.leader_id().is_none() {
            mark!("candidate-elects-nobody", matches!(self.role, Role::Candidate(_)));
            self.lose_asked_reads();
        }
        if self.may_stand() {
            self.start_pre_vote(now_ms);
        } else {
            mark!("candidate-may-not-stand");
            // Whom it followed is silent; it waits for the next one to be heard.
            self.become_follower(self.state.term, None);
            self.set_election_alarm();
        }
    }

    /// Whether this node could count its own vote, and has a log that can be a cluster's.
    pub(super) fn may_stand(&self) -> bool {
        let counts_itself =
            self.electorate.vote_counts(self.config.node, self.state.incarnation, &self.state.met);
        // A cluster that this log is not of has begun elsewhere: the log is empty, or a genesis that lost.
        let of_its_cluster = self.state.cluster_id.is_none_or(|known| {
            !self.log.is_empty() && self.log.genesis().is_none_or(|genesis| genesis == known)
        });
        // A leader's first entry.
        let has_room = self.room.fits(if self.log.is_empty() { self.genesis().encode().len() } else { 0 });
        mark!("candidate-has-no-room", !has_room);
        counts_itself && of_its_cluster && has_room
    }

    fn start_pre_vote(&mut self, now_ms: u64) {
        // The leader of before is forgotten here: a node that keeps believing in it refuses all others.
        self.become_follower(self.state.term, None);
        self.role = Role::PreCandidate(CandidateState::default());
        self.ask_for_votes(false);
        self.count_vote(now_ms, self.config.node);
    }

    pub(super) fn start_election(&mut self, now_ms: u64, leadership_transfer: bool) {
        self.state.term = self.state.term.next();
        self.state.voted_for = Some(self.config.node);
        self.state_changed |= !mutant!("own-vote-not-stored");
        self.role = Role::Candidate(CandidateState::default());
        self.ask_for_votes(leadership_transfer);
        self.count_vote(now_ms, self.config.node);
    }

    fn ask_for_votes(&mut self, leadership_transfer: bool) {
        self.set_election_alarm();
        let pre_vote = matches!(self.role, Role::PreCandidate(_));
        let request = RequestVote {
            term: if pre_vote { self.state.term.next() } else { self.state.term },
            candidate_id: self.config.node,
            incarnation: self.state.incarnation,
            registered: self.is_registered(),
            last_log: self.log.last_id(),
            pre_vote,
            leadership_transfer,
        };
        for node in &self.config.members {
            if *node != self.config.node {
                self.actions.send.push((*node, PeerMessage::RequestVote(request)));
            }
        }
    }

    pub(super) fn handle_request_vote_reply(&mut self, now_ms: u64, from: NodeId, reply: &RequestVoteReply) {
        let is_ignored = reply.pre_vote && (reply.vote_granted || mutant!("prevote-term-ignored"));
        if reply.term > self.state.term && !is_ignored {
            mark!("candidate-learns-term", matches!(self.role, Role::PreCandidate(_)));
            self.become_follower(reply.term, None);
            return;
        }
        let asked = match &self.role {
            Role::PreCandidate(_) => reply.pre_vote && reply.election_term == self.state.term.next(),
            Role::Candidate(_) => {
                (!reply.pre_vote || mutant!("prevote-counts-as-vote"))
                    && (reply.election_term == self.state.term || mutant!("late-vote-counts"))
            }
            Role::Follower(_) | Role::Leader(_) => false,
        };
        let vote_counts = self.electorate.vote_counts(from, reply.incarnation, &self.state.met);
        mark!("candidate-gets-late-vote", reply.vote_granted && !asked);
        mark!("candidate-gets-vote-that-does-not-count", reply.vote_granted && asked && !vote_counts);
        if asked && reply.vote_granted && vote_counts {
            self.present.insert(from, reply.incarnation);
            self.count_vote(now_ms, from);
        }
    }

    fn count_vote(&mut self, now_ms: u64, voter: NodeId) {
        let (Role::PreCandidate(candidate) | Role::Candidate(candidate)) = &mut self.role else { return };
        candidate.granted.insert(voter);
        if !self.electorate.elects(&candidate.granted, self.log.is_empty()) {
            return;
        }
        match self.role {
            Role::PreCandidate(_) => self.start_election(now_ms, false),
            Role::Candidate(_) => self.become_leader(now_ms),
            Role::Follower(_) | Role::Leader(_) => {}
        }
    }
}
