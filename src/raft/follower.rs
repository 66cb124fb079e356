//! A follower answers leaders and candidates (sections 5.2 to 5.4). Every role comes through here when it
//! hears from a leader, or is asked for its vote.

use fsd_wire::peer::{
    AppendEntries, AppendEntriesReply, AppendResult, PeerMessage, RequestVote, RequestVoteReply, TimeoutNow,
};
use fsd_wire::{Entry, EntryKind, Genesis, LogIndex, NodeId, Term};

use super::raft_log::entry_is_sound;
use super::{Actions, Raft, Role};
use crate::marks::mark;
use crate::mutants::mutant;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FollowerState {
    /// The leader of this term, once it was heard.
    pub(super) leader_id: Option<NodeId>,
    /// When it was heard last.
    pub(super) heard_ms: Option<u64>,
}

impl Raft {
    pub(super) fn handle_append_entries(&mut self, now_ms: u64, from: NodeId, request: AppendEntries) {
        if request.leader_id != from {
            return;
        }
        if request.term < self.state.term {
            mark!("follower-refuses-leader-of-earlier-term");
            self.reply_to_append(from, &request, AppendResult::StaleTerm);
            return;
        }
        if !self.can_come_from_a_leader(&request) || !self.follow(now_ms, request.term, from) {
            return;
        }
        // Should this node lead next, time goes on from here, though nothing was written meanwhile.
        self.clock.note(request.cluster_time);
        let result = self.append_entries(&request);
        self.reply_to_append(from, &request, result);
        self.ask_again(now_ms, from);
    }

    /// What no leader of this cluster sends is not answered: it is another cluster's, or broken.
    fn can_come_from_a_leader(&self, request: &AppendEntries) -> bool {
        let same_cluster = |entry: &Entry| match (entry.kind, self.state.cluster_id) {
            (EntryKind::Genesis, Some(known)) => {
                Genesis::decode(&entry.payload).is_ok_and(|genesis| genesis.cluster_id == known)
            }
            _ => true,
        };
        let mut previous = request.prev_log;
        request.entries.iter().all(|entry| {
            // The decoder checks the sequence; here it is what the log's assertions rely on.
            let follows = previous.index.0.checked_add(1) == Some(entry.index.0)
                && entry.term >= previous.term
                && entry.term <= request.term;
            previous = entry.id();
            follows && entry_is_sound(entry) && same_cluster(entry)
        })
    }

    /// Follows the sender for its term. There is one leader in a term; should a second one appear, which
    /// takes a voter that lost its disk in the cluster's first election, the first one is kept to.
    pub(super) fn follow(&mut self, now_ms: u64, term: Term, leader: NodeId) -> bool {
        let leader_id = Some(leader);
        if term > self.state.term {
            self.become_follower(term, leader_id);
        }
        match &self.role {
            Role::Leader(_) => return false,
            Role::PreCandidate(_) | Role::Candidate(_) => {
                mark!("follower-gives-candidacy-up");
                self.become_follower(term, leader_id);
            }
            Role::Follower(follower) => {
                if follower.leader_id.is_some() && follower.leader_id != leader_id {
                    return false;
                }
            }
        }
        self.role = Role::Follower(FollowerState { leader_id, heard_ms: Some(now_ms) });
        if !mutant!("heartbeat-resets-no-timer") {
            self.set_election_alarm();
        }
        true
    }

    /// Section 5.3, the receiver's steps 2 to 5.
    fn append_entries(&mut self, request: &AppendEntries) -> AppendResult {
        let (prev, base) = (request.prev_log, self.log.base());
        // What this log no longer has was committed, so it equals what the leader has there.
        if prev.index >= base.index || mutant!("base-is-a-conflict") {
            match self.log.term_at(prev.index) {
                Some(term) if term == prev.term || mutant!("prev-not-checked") => {}
                Some(term) => {
                    assert!(prev.index > self.commit_index, "{prev:?} is committed as one of term {term}");
                    let first = self.log.first_index_of_term_at(prev.index);
                    let conflict_index = first.expect("an entry of that term is there");
                    mark!("follower-has-other-term");
                    mark!("follower-has-other-term-at-its-beginning", conflict_index == prev.index);
                    return AppendResult::Conflict { conflict_term: term, conflict_index };
                }
                None => {
                    mark!("follower-log-ends-before");
                    let (conflict_term, conflict_index) = (Term(0), self.log.last_index().next());
                    return AppendResult::Conflict { conflict_term, conflict_index };
                }
            }
        } else {
            mark!("follower-is-sent-what-it-trimmed");
        }
        let mut left_at = None;
        for entry in &request.entries {
            if entry.index < base.index {
                continue;
            }
            let is_there = self.log.term_at(entry.index) == Some(entry.term);
            if !is_there && !self.room.fits(entry.payload.len()) {
                mark!("follower-takes-part-of-message", entry.index > prev.index.next());
                mark!("follower-takes-nothing", entry.index == prev.index.next());
                self.room.lack(entry.payload.len());
                left_at = Some(entry.index);
                break;
            }
            match self.log.term_at(entry.index) {
                // Only a real conflict removes anything: a short message that comes after a long one must
                // not take back what was acknowledged.
                Some(term) if term == entry.term && !mutant!("truncate-always") => {
                    mark!("follower-has-entry-already");
                }
                Some(_) if mutant!("truncate-never") => {}
                Some(_) => {
                    mark!("follower-truncates");
                    self.truncate_from(entry.index);
                    self.append(entry.clone());
                }
                None => self.append(entry.clone()),
            }
        }
        // What lies behind the last entry of this message may still be another leader's.
        let sent = request.entries.last().map_or(prev.index, |entry| entry.index);
        let taken = left_at.filter(|_| !mutant!("full-follower-acknowledges")).map(LogIndex::previous);
        let match_index = taken.unwrap_or(sent).max(base.index);
        let verified = if mutant!("commit-beyond-match") { self.log.last_index() } else { match_index };
        mark!("follower-has-more-than-message", match_index < self.log.last_index());
        mark!("follower-commits-less-than-leader", verified < request.leader_commit);
        let commit_index = request.leader_commit.min(verified);
        if commit_index > self.commit_index && commit_index <= self.log.last_index() {
            self.set_commit_index(commit_index);
        }
        AppendResult::Matched { match_index }
    }

    fn reply_to_append(&mut self, to: NodeId, request: &AppendEntries, result: AppendResult) {
        let reply = AppendEntriesReply {
            term: self.state.term,
            incarnation: self.state.incarnation,
            round: request.round,
            prev_log_index: request.prev_log.index,
            result,
        };
        let Actions { send, send_when_durable, .. } = &mut self.actions;
        let outbox = if mutant!("ack-before-flush") { send } else { send_when_durable };
        outbox.push((to, PeerMessage::AppendEntriesReply(reply)));
    }

    pub(super) fn handle_request_vote(&mut self, now_ms: u64, from: NodeId, request: &RequestVote) {
        if request.candidate_id != from {
            return;
        }
        // Who hears from a leader neither votes nor takes up the candidate's term (thesis section 4.2.3): a
        // node that cannot hear the leader must not depose it.
        let leader_lives = !request.leadership_transfer && self.leader_is_alive(now_ms);
        mark!("voter-hears-leader", leader_lives && !request.pre_vote);
        mark!("voter-hears-leader-at-prevote", leader_lives && request.pre_vote);
        mark!("voter-helps-successor", request.leadership_transfer && self.leader_is_alive(now_ms));
        if !request.pre_vote && !leader_lives && request.term > self.state.term {
            self.become_follower(request.term, None);
        }
        let vote_granted = !leader_lives && self.may_vote_for(request);
        if vote_granted && !request.pre_vote {
            mark!("voter-votes-again", self.state.voted_for == Some(from));
            if self.state.voted_for.is_none() {
                self.state.voted_for = Some(from);
                self.state_changed |= !mutant!("granted-vote-not-stored");
            }
            self.set_election_alarm();
        }
        let reply = RequestVoteReply {
            term: self.state.term,
            election_term: request.term,
            incarnation: self.state.incarnation,
            pre_vote: request.pre_vote,
            vote_granted,
        };
        let outbox = if vote_granted { &mut self.actions.send_when_durable } else { &mut self.actions.send };
        outbox.push((from, PeerMessage::RequestVoteReply(reply)));
    }

    /// Sections 5.2 and 5.4.1, and the rules of `electorate`.
    fn may_vote_for(&self, request: &RequestVote) -> bool {
        let free = self.state.voted_for.is_none_or(|node| node == request.candidate_id)
            || mutant!("second-vote-in-term");
        let in_time = if request.pre_vote && request.term > self.state.term {
            true
        } else {
            request.term == self.state.term && free && !matches!(self.role, Role::Leader(_))
        };
        let (theirs, ours) = (request.last_log, self.log.last_id());
        let up_to_date = theirs >= ours
            || mutant!("log-never-compared")
            || mutant!("log-compared-by-index-alone") && theirs.index >= ours.index
            || mutant!("log-compared-by-term-alone") && theirs.term >= ours.term;
        let as_expected = request.registered
            || self.electorate.may_grant(request.candidate_id, request.incarnation, &self.state.met);
        let waits_for_its_cluster =
            self.log.is_empty() && self.state.cluster_id.is_some() && request.last_log.index == LogIndex(0);
        mark!("voter-is-in-later-term", request.term < self.state.term);
        mark!("voter-has-voted-otherwise", !free && request.term == self.state.term);
        mark!("voter-has-later-term-in-log", in_time && theirs.term < ours.term);
        mark!("voter-has-longer-log", in_time && theirs.term == ours.term && theirs.index < ours.index);
        mark!("voter-expects-other-incarnation", in_time && up_to_date && !as_expected);
        mark!("voter-waits-for-its-cluster", in_time && as_expected && waits_for_its_cluster);
        in_time && up_to_date && as_expected && !waits_for_its_cluster
    }

    fn leader_is_alive(&self, now_ms: u64) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => follower
                .heard_ms
                .is_some_and(|heard_ms| now_ms.saturating_sub(heard_ms) < self.config.election_timeout_ms),
            Role::PreCandidate(_) | Role::Candidate(_) => mutant!("prevote-keeps-leader"),
        }
    }

    /// The leader wants this node to take over (thesis section 3.10).
    pub(super) fn handle_timeout_now(&mut self, from: NodeId, request: &TimeoutNow, now_ms: u64) {
        mark!("successor-is-told-late", request.term < self.state.term);
        let Role::Follower(follower) = &self.role else { return };
        if request.term == self.state.term
            && request.leader_id == from
            && follower.leader_id == Some(from)
            && self.may_stand()
        {
            mark!("successor-stands");
            self.start_election(now_ms, true);
        }
    }
}
