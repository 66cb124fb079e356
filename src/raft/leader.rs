//! A leader replicates its log and decides what is committed (sections 5.3 and 5.4.2).

use std::collections::{BTreeMap, VecDeque};

use fsd_wire::peer::{AppendEntries, AppendEntriesReply, AppendResult, PeerMessage};
use fsd_wire::{Entry, EntryId, EntryKind, Genesis, Incarnation, LogIndex, NodeId, Payload};

use super::progress::{Mode, Progress};
use super::raft_log::RaftLog;
use super::read_index::ReadQueue;
use super::transfer::Transfer;
use super::{Alarm, LogView, ProposeError, Raft, Role, Timer};
use crate::limits::{APPEND_ENTRIES_BYTES_MAX, LAGGING_BYTES_PER_TURN, UNCOMMITTED_BYTES_MAX};
use crate::marks::mark;
use crate::mutants::mutant;

#[derive(Clone, Debug)]
pub(super) struct LeaderState {
    /// All members but the leader.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// Where this term begins in the log: only from here on is anything committed by counting.
    pub(super) term_first_index: LogIndex,
    /// The last tick of this term; reads wait for it.
    pub(super) last_tick_index: LogIndex,
    /// Counts rounds of AppendEntries in this term.
    pub(super) round: u64,
    pub(super) reads: ReadQueue,
    pub(super) transfer: Option<Transfer>,
    pub(super) since_ms: u64,
    /// Bytes of this term's entries that are not committed yet.
    uncommitted: VecDeque<(LogIndex, usize)>,
    uncommitted_bytes: usize,
}

impl LeaderState {
    /// The peer has a connection anew, perhaps with another disk behind it.
    pub(super) fn meet(&mut self, node: NodeId, incarnation: Incarnation, log: &RaftLog) {
        self.restart_pipeline(node, log);
        if let Some(progress) = self.progress.get_mut(&node)
            && progress.incarnation != Some(incarnation)
        {
            mark!("leader-meets-other-disk", progress.incarnation.is_some());
            *progress = Progress::new(Some(incarnation), log.last_index().next());
            self.round += 1;
            progress.round_valid_from = self.round;
        }
    }

    /// What was on its way to the peer may be lost, or have come after all.
    pub(super) fn restart_pipeline(&mut self, node: NodeId, log: &RaftLog) {
        if let Some(progress) = self.progress.get_mut(&node) {
            self.round += 1;
            let next_index = match progress.mode {
                // Everything up to the match is certain.
                Mode::Replicate { .. } => {
                    mark!("leader-restarts-pipeline", !progress.is_idle());
                    progress.match_index.next()
                }
                Mode::Probe { .. } | Mode::Snapshot => progress.next_index,
            };
            // Where its next entry is gone, it is asked for the entry before those that are there.
            progress.probe(next_index.max(log.first_index()), self.round);
            progress.is_stuck = false;
            progress.heartbeat_due = true;
        }
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self, now_ms: u64) {
        let next_index = self.log.last_index().next();
        let others = self.config.members.iter().filter(|node| **node != self.config.node);
        let progress =
            others.map(|node| (*node, Progress::new(self.present.get(node).copied(), next_index))).collect();
        self.role = Role::Leader(LeaderState {
            progress,
            term_first_index: next_index,
            last_tick_index: LogIndex(0),
            round: 1,
            reads: ReadQueue::default(),
            transfer: None,
            since_ms: now_ms,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
        });
        self.clock.start(now_ms);
        self.actions.alarm(Alarm::Clear { timer: Timer::Election });
        self.actions.alarm(Alarm::Set { timer: Timer::Heartbeat, after_ms: self.config.heartbeat_ms });
        if self.log.is_empty() && next_index == LogIndex(1) {
            let payload = self.genesis().encode();
            self.append_own(now_ms, EntryKind::Genesis, payload);
        } else {
            self.append_own(now_ms, EntryKind::Noop, Payload::default());
        }
        self.adopt_asked_reads(now_ms);
        self.leader_progressed(now_ms);
    }

    /// As leader: up to where each other member is known to hold this node's log, durably. Nothing otherwise.
    pub fn follower_match_indexes(&self) -> impl Iterator<Item = (NodeId, LogIndex)> {
        let leader = match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        leader
            .into_iter()
            .flat_map(|leader| &leader.progress)
            .map(|(node, progress)| (*node, progress.match_index))
    }

    /// As leader: bytes of this term's entries that are not yet committed. 0 otherwise.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.role {
            Role::Leader(leader) => leader.uncommitted_bytes,
            _ => 0,
        }
    }

    pub(super) fn genesis(&self) -> Genesis {
        let met = self.state.met.iter().map(|(node, (incarnation, _))| (*node, *incarnation));
        let mut incarnations: Vec<_> = met.chain([(self.config.node, self.state.incarnation)]).collect();
        incarnations.sort_unstable();
        Genesis { cluster_id: self.config.new_cluster_id, incarnations }
    }

    pub(super) fn propose_kind(
        &mut self,
        now_ms: u64,
        kind: EntryKind,
        payload: Payload,
    ) -> Result<EntryId, ProposeError> {
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.leader_id() });
        };
        if leader.transfer.is_some() {
            mark!("leader-hands-over-and-takes-nothing");
            return Err(ProposeError::Transferring);
        }
        let full = leader.uncommitted_bytes.saturating_add(payload.len()) > UNCOMMITTED_BYTES_MAX;
        if full && !leader.uncommitted.is_empty() {
            return Err(ProposeError::Busy);
        }
        if !self.room.fits(payload.len()) {
            mark!("leader-has-no-room");
            return Err(ProposeError::Full);
        }
        Ok(self.append_own(now_ms, kind, payload))
    }

    /// Appends an entry of this leader's making.
    pub(super) fn append_own(&mut self, now_ms: u64, kind: EntryKind, payload: Payload) -> EntryId {
        let entry = Entry {
            index: self.log.last_index().next(),
            term: self.state.term,
            stamp: self.clock.now(now_ms),
            kind,
            payload,
        };
        let (id, bytes) = (entry.id(), entry.encoded_bytes());
        self.append(entry);
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted.push_back((id.index, bytes));
            leader.uncommitted_bytes += bytes;
            if kind == EntryKind::Tick {
                leader.last_tick_index = id.index;
            }
        }
        id
    }

    pub(super) fn handle_append_entries_reply(
        &mut self,
        now_ms: u64,
        from: NodeId,
        reply: &AppendEntriesReply,
    ) {
        if reply.term > self.state.term {
            mark!("leader-deposed-by-reply", self.is_leader());
            self.become_follower(reply.term, None);
            return;
        }
        // An answer to an earlier term of this same node tells nothing about this one.
        let is_stale = reply.term < self.state.term && !mutant!("stale-reply-counts");
        if is_stale || reply.result == AppendResult::StaleTerm {
            mark!("leader-gets-reply-of-earlier-term", self.is_leader());
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let (base_index, last_index) = (self.log.base().index, self.log.last_index());
        let is_same = |progress: &Progress| {
            progress.incarnation == Some(reply.incarnation) || mutant!("reply-of-other-disk-counts")
        };
        if !leader.progress.get(&from).is_some_and(is_same) {
            // Another disk than the one all this was about: what it holds is asked anew, and what this one
            // reply claims is not believed, as it may be a late one from the disk of before.
            mark!("leader-gets-reply-of-other-disk");
            leader.meet(from, reply.incarnation, &self.log);
            return;
        }
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if reply.round > round {
            return;
        }
        progress.heard_ms = Some(now_ms);
        progress.round_answered = progress.round_answered.max(reply.round);
        progress.welcome_index.get_or_insert(last_index);
        let moved = match reply.result {
            AppendResult::StaleTerm => false,
            AppendResult::Matched { match_index } => {
                let match_index = match match_index {
                    _ if mutant!("match-is-last-sent") => progress.next_index.previous().max(match_index),
                    _ if mutant!("match-is-own-last") => last_index,
                    _ => match_index,
                };
                handle_match(progress, match_index, &self.log, round)
            }
            AppendResult::Conflict { conflict_term, conflict_index } => {
                let prev_log_index = reply.prev_log_index;
                let current = reply.round >= progress.round_valid_from
                    && prev_log_index > progress.match_index
                    && prev_log_index < progress.next_index
                    && conflict_index <= prev_log_index;
                mark!("leader-gets-late-conflict", !current);
                if current {
                    let theirs = self.log.last_index_of_term(conflict_term);
                    // The terms of equal entries are equal, so if this log has an entry of that term where
                    // the follower has some, the logs meet there; else none of the follower's can be right.
                    let meet = theirs.map(|last| last.min(prev_log_index.previous()));
                    let next = match meet.filter(|meet| *meet >= conflict_index) {
                        Some(meet) => {
                            mark!("leader-finds-term-of-conflict");
                            meet.next()
                        }
                        None => {
                            mark!("leader-passes-over-term", conflict_term != fsd_wire::Term(0));
                            conflict_index
                        }
                    };
                    let next = match next {
                        _ if mutant!("conflict-hint-off-by-one") => next.next(),
                        _ if mutant!("conflict-hint-is-last") => prev_log_index.next(),
                        _ => next,
                    };
                    // What is held is not looked for again, and what is gone is not looked for in vain.
                    let next = next.max(progress.match_index.next());
                    progress.is_stuck = progress.has_taken_nothing(next);
                    mark!("leader-is-stuck-with-follower", progress.is_stuck);
                    if next > base_index || mutant!("hint-clamped-to-base") {
                        progress.probe(next.max(base_index.next()), round + 1);
                    } else {
                        progress.snapshot(round + 1);
                    }
                }
                current
            }
        };
        if moved {
            leader.round += 1;
        }
        self.leader_progressed(now_ms);
    }

    /// What becomes possible when a follower, or this node's own disk, has got further.
    pub(super) fn leader_progressed(&mut self, now_ms: u64) {
        // A confirmation counts as soon as it is appended, so it may allow the next commit.
        loop {
            self.advance_commit_index();
            if !self.register_members(now_ms) {
                break;
            }
        }
        self.release_reads();
        self.continue_transfer();
    }

    /// The last paragraph of figure 2: an index that a majority holds is committed, if the entry there is of
    /// this term (section 5.4.2). The leader's own disk counts like any other, when it has flushed.
    fn advance_commit_index(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let own = (self.config.node, self.state.incarnation, self.log.durable_index());
        let followers = leader.progress.iter().filter_map(|(node, progress)| {
            progress.incarnation.map(|incarnation| (*node, incarnation, progress.match_index))
        });
        let Some(index) = self.electorate.held_by_quorum(followers.chain([own])) else { return };
        let is_of_this_term =
            self.log.term_at(index) == Some(self.state.term) || mutant!("commit-of-old-term");
        mark!("leader-counts-entry-of-earlier-term", index > self.commit_index && !is_of_this_term);
        if index > self.commit_index && is_of_this_term {
            self.set_commit_index(index);
            if let Role::Leader(leader) = &mut self.role {
                while leader.uncommitted.front().is_some_and(|(appended, _)| *appended <= index) {
                    leader.uncommitted_bytes -= leader.uncommitted.pop_front().map_or(0, |item| item.1);
                }
            }
        }
    }

    pub(super) fn handle_heartbeat_timeout(&mut self, now_ms: u64) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.round += 1;
        for progress in leader.progress.values_mut() {
            progress.heartbeat_due = true;
            progress.is_stuck = false;
        }
        if !self.is_followed(now_ms) && !mutant!("no-check-quorum") {
            mark!("leader-is-followed-by-nobody");
            // CheckQuorum: clients had better look for a leader that can commit.
            self.become_follower(self.state.term, None);
            return;
        }
        self.abort_late_transfer(now_ms);
        self.actions.alarm(Alarm::Set { timer: Timer::Heartbeat, after_ms: self.config.heartbeat_ms });
    }

    /// Whether a majority of those who could elect a leader has answered within an election timeout.
    fn is_followed(&self, now_ms: u64) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let timeout_ms = self.config.election_timeout_ms;
        if now_ms.saturating_sub(leader.since_ms) < timeout_ms {
            return true;
        }
        let answered = leader.progress.iter().filter(|(node, progress)| {
            progress.heard_ms.is_some_and(|heard_ms| now_ms.saturating_sub(heard_ms) < timeout_ms)
                && progress.incarnation.is_some_and(|incarnation| {
                    self.electorate.vote_counts(**node, incarnation, &self.state.met)
                })
        });
        answered.count() + 1 >= self.electorate.quorum()
    }

    /// Whether [`Self::replicate`] would send anything.
    #[must_use]
    pub fn has_pending_replication(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.reads.last_round() > leader.round
            || leader.progress.values().any(|progress| self.is_due(progress))
    }

    fn window_bytes(&self, progress: &Progress) -> Option<usize> {
        progress.window_bytes(self.config.replication.messages_max)
    }

    fn is_due(&self, progress: &Progress) -> bool {
        let entries_wait = progress.next_index <= self.log.last_index();
        progress.heartbeat_due
            || match progress.mode {
                Mode::Probe { sent } => !sent,
                Mode::Snapshot => false,
                Mode::Replicate { .. } => {
                    (entries_wait && self.window_bytes(progress).is_some())
                        || (progress.commit_sent < self.commit_index && progress.is_idle())
                }
            }
    }

    /// Fills `send` with AppendEntries for all followers, as far as their windows go; who lags behind what is committed
    /// gets one. To be called when what was in [`super::Actions::store_log`] is in the log.
    ///
    /// # Errors
    /// If the log cannot be read.
    ///
    /// # Panics
    /// If actions that change the log were not taken yet.
    pub fn replicate<L: LogView>(&mut self, now_ms: u64, log: &L) -> Result<(), L::Error> {
        assert!(self.actions.store_log.is_empty(), "the log is stored before it is replicated");
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        if leader.reads.last_round() > leader.round {
            leader.round += 1;
            leader.progress.values_mut().for_each(|progress| progress.heartbeat_due = true);
        }
        for node in leader.progress.keys().copied().collect::<Vec<_>>() {
            while let Some(request) = self.next_append(now_ms, node, log)? {
                let lags = request.entries.last().is_some_and(|last| last.index <= self.commit_index);
                self.actions.send.push((node, PeerMessage::AppendEntries(request)));
                if lags {
                    mark!("leader-spares-turn-for-lagging-follower");
                    break;
                }
            }
        }
        Ok(())
    }

    /// The next message to a follower, if one is due.
    fn next_append<L: LogView>(
        &mut self,
        now_ms: u64,
        node: NodeId,
        log: &L,
    ) -> Result<Option<AppendEntries>, L::Error> {
        let last_index = self.log.last_index();
        let Role::Leader(leader) = &self.role else { return Ok(None) };
        let Some(progress) = leader.progress.get(&node) else { return Ok(None) };
        if !self.is_due(progress) {
            return Ok(None);
        }
        // Who needs a snapshot is asked for the base: it may have got there by other means.
        let next_index = progress.next_index.max(self.log.first_index());
        // A probe is empty, but for the first one of a term: that this term's first entries fit is likely,
        // and they are small.
        let probing = matches!(progress.mode, Mode::Probe { .. });
        let worth_sending = next_index <= last_index && (!probing || next_index >= leader.term_first_index);
        let lags = next_index <= self.commit_index;
        let bytes_max = if lags { LAGGING_BYTES_PER_TURN } else { APPEND_ENTRIES_BYTES_MAX };
        let entries = match self.window_bytes(progress).filter(|_| worth_sending) {
            Some(bytes) => log.entries(
                next_index,
                last_index,
                self.config.replication.entries_max,
                bytes.min(bytes_max),
            )?,
            None => Vec::new(),
        };
        let prev_log = self.id_before(next_index);
        assert!(
            entries.first().is_none_or(|entry| entry.index == next_index && entry.term >= prev_log.term),
            "the log gave other entries than it was asked for"
        );
        let (term, leader_commit, leader_id) = (self.state.term, self.commit_index, self.config.node);
        let cluster_time = self.cluster_time(now_ms);
        let Role::Leader(leader) = &mut self.role else { return Ok(None) };
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&node) else { return Ok(None) };
        progress.heartbeat_due = false;
        progress.commit_sent = leader_commit;
        match entries.last() {
            Some(last) => progress.sent(last.index, entries.iter().map(Entry::encoded_bytes).sum()),
            None if probing => progress.sent(next_index, 0),
            None => {}
        }
        Ok(Some(AppendEntries { term, leader_id, prev_log, leader_commit, round, cluster_time, entries }))
    }

    fn id_before(&self, index: LogIndex) -> EntryId {
        let index = index.previous();
        EntryId { term: self.log.term_at(index).expect("it is the base or behind it"), index }
    }
}

/// Returns whether the follower is replicated to from now on.
pub(super) fn handle_match(
    progress: &mut Progress,
    match_index: LogIndex,
    log: &RaftLog,
    round: u64,
) -> bool {
    if match_index > log.last_index() {
        return false;
    }
    mark!("leader-gets-late-match", match_index < progress.match_index);
    let replicating = matches!(progress.mode, Mode::Replicate { .. });
    let news = match_index > progress.match_index || match_index.next() == progress.next_index;
    progress.acknowledge(match_index);
    // A late answer may tell of a match from where it can no longer be replicated to.
    let starts = !replicating && news && progress.match_index >= log.base().index;
    if starts {
        progress.replicate(round + 1);
    }
    starts
}
