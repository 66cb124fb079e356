//! Log compaction and snapshots (section 7): what the store holds need not stay in the log, and who lacks it gets the
//! store.
//!
//! The core knows terms and indexes; the bytes are its caller's. The entry up to which a log was compacted is its
//! **base**. It is committed, so every leader from then on has it, and a log that has it equals the leader's up to
//! there (Log Matching). From this follows all that is special about a base:
//!
//! * A follower takes whatever a leader sends of what lies up to its base for what it had there, without comparing,
//!   and never takes it back. It acknowledges at least its base.
//! * The hints at a conflict (`AppendResult::Conflict`) never name what lies before the base of who gives them, for
//!   nothing up to there conflicts. One that names what lies before the *leader's* base shows that the follower lacks
//!   that base.
//! * Such a follower is sent no entries. Heartbeats go on, with the base as the entry before: refused, they are what
//!   every refused heartbeat is, a sign of life; accepted, they show that the follower got there by other means.
//!
//! # What the caller does with snapshots
//! As leader: [`Raft::behind`] names those who need one. The caller streams the state as of an entry that is applied
//! and that its log still has or had last ([`Raft::summary_at`] is the core's part of it), in InstallSnapshot, under
//! the present term. It hands each InstallSnapshotReply to [`Raft::step`], which sees to terms, and lets replication
//! begin when the follower has the entry. A stream ends when the follower is no longer behind, or this node no longer
//! leads.
//!
//! As follower: each InstallSnapshot goes to [`Raft::step`] first; the sender is then this term's leader, or
//! [`Raft::leader_id`] is somebody else and the chunk is not looked at. Then [`Raft::wants_snapshot`] says what to
//! answer. With `HasIt`, the reply promises what a matched AppendEntries does: it leaves behind the flush. With
//! `Install`, bytes are gathered; and when all are there, perhaps many turns and terms later, it is asked once more. If
//! the answer is still `Install`, the caller replaces store and log on its disk, in one atomic step, says so with
//! [`Input::Installed`](super::Input::Installed), and only then replies `Installed`. No input may come between the
//! question and the installation.

use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, SnapshotState};
use fsd_wire::{ClusterTimeMs, EntryId, LogIndex, NodeId, Term};

use super::leader::handle_match;
use super::progress::{Mode, Progress};
use super::raft_log::RaftLog;
use super::{LogSummary, Raft, Role, SnapshotAnswer};
use crate::mutants::mutant;

impl Raft {
    /// The entry before the first one that the log still has; zeros if it has all.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.log.base()
    }

    /// Forgets the entries up to `to`: a checkpoint holds what they did. Nothing happens if they are forgotten already.
    /// To be called at the end of a turn; as leader, what comes of it waits for [`Raft::replicate`].
    ///
    /// # Panics
    /// If they are not committed, or not flushed.
    pub fn compact(&mut self, to: LogIndex) {
        assert!(to <= self.commit_index, "compaction to {to}, committed is {}", self.commit_index);
        if to <= self.log.base().index {
            return;
        }
        self.log.compact(to);
        let first_index = self.log.first_index();
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in leader.progress.values_mut().filter(|progress| progress.next_index < first_index) {
            // The question has changed: answers to earlier rounds say nothing about the new one.
            leader.round += 1;
            match progress.mode {
                // What it holds is not known, and the base is as good a place to ask for as any.
                Mode::Probe { .. } => progress.probe(first_index, leader.round),
                Mode::Replicate { .. } | Mode::Snapshot => progress.snapshot(leader.round),
            }
        }
    }

    /// What a snapshot as of the entry at `index` must tell the core of who installs it. `last_stamp` is that entry's.
    ///
    /// # Panics
    /// If the entry is not committed, or lies before the base.
    #[must_use]
    pub fn summary_at(&self, index: LogIndex, last_stamp: ClusterTimeMs) -> LogSummary {
        assert!(index <= self.commit_index, "a snapshot as of {index}, committed is {}", self.commit_index);
        self.log.summary_at(index, last_stamp).expect("the entry is the base or behind it")
    }

    /// As leader: those who lack what was compacted away, and need a snapshot. Nobody otherwise.
    pub fn behind(&self) -> impl Iterator<Item = NodeId> {
        let leader = match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        // The classic bug waits for an entry to send.
        let silent = mutant!("compacted-leader-is-silent") && self.commit_index == self.log.last_index();
        leader
            .into_iter()
            .flat_map(|leader| &leader.progress)
            .filter(move |(_, progress)| {
                progress.mode == Mode::Snapshot && progress.incarnation.is_some() && !silent
            })
            .map(|(node, _)| *node)
    }

    /// As leader: the last entry that the slowest of those holds who are replicated to. None if nobody is.
    #[must_use]
    pub fn slowest_follower(&self) -> Option<EntryId> {
        self.slowest_of(|_| true)
    }

    /// The same of those that have answered since.
    #[must_use]
    pub fn slowest_follower_heard(&self, since_ms: u64) -> Option<EntryId> {
        self.slowest_of(|progress| progress.heard_ms.is_some_and(|heard_ms| heard_ms >= since_ms))
    }

    fn slowest_of(&self, counts: impl Fn(&Progress) -> bool) -> Option<EntryId> {
        let Role::Leader(leader) = &self.role else { return None };
        let replicated = leader
            .progress
            .values()
            .filter(|known| matches!(known.mode, Mode::Replicate { .. }) && counts(known));
        let index = replicated.map(|progress| progress.match_index).min()?;
        self.log.term_at(index).map(|term| EntryId { term, index })
    }

    /// Whether a leader of `term` may give this node the state as of `entry`.
    #[must_use]
    pub fn wants_snapshot(&self, term: Term, entry: EntryId) -> SnapshotAnswer {
        let follows = matches!(self.role, Role::Follower(_) | Role::PreCandidate(_));
        let is_past = entry.index <= self.commit_index && !mutant!("install-goes-backwards");
        let is_there = self.log.term_at(entry.index) == Some(entry.term)
            && !mutant!("log-discarded-though-it-has-the-entry");
        if term < self.state.term || !follows {
            SnapshotAnswer::StaleTerm
        } else if is_past || is_there {
            SnapshotAnswer::HasIt
        } else {
            SnapshotAnswer::Install
        }
    }

    /// Term, leader and alarm as with AppendEntries; what the chunk is for is the caller's business.
    pub(super) fn handle_install_snapshot(&mut self, now_ms: u64, from: NodeId, request: &InstallSnapshot) {
        if request.leader_id == from && request.term >= self.state.term {
            self.follow(now_ms, request.term, from);
        }
    }

    /// Log and store are those of the snapshot from now on; what was in the log conflicted, or came before.
    pub(super) fn handle_installed(&mut self, summary: LogSummary) {
        let base = summary.base;
        assert!(self.actions.store_log.is_empty(), "the log is stored before it is replaced");
        assert!(!matches!(self.role, Role::Leader(_) | Role::Candidate(_)), "only a follower installs");
        assert!(summary.last_index == base.index && summary.term_starts.is_empty(), "nothing lies behind it");
        assert!(base.term <= self.state.term, "a snapshot of a term that was never stored");
        assert!(
            base.index > self.commit_index,
            "a snapshot as of {base:?}, committed is {}",
            self.commit_index
        );
        assert!(
            self.log.term_at(base.index) != Some(base.term)
                || mutant!("log-discarded-though-it-has-the-entry"),
            "the log has {base:?} already"
        );
        // A PreVote under way asked for the log of before.
        if matches!(self.role, Role::PreCandidate(_)) {
            self.become_follower(self.state.term, None);
        }
        self.clock.note(summary.last_stamp);
        self.room.forget_what_it_lacked();
        if mutant!("tail-survives-install") && self.log.last_index() > base.index {
            self.log.compact(base.index);
        } else {
            self.log = RaftLog::new(summary);
        }
        self.electorate.recount(self.log.registrations());
        self.set_commit_index(base.index);
    }

    pub(super) fn handle_install_snapshot_reply(
        &mut self,
        now_ms: u64,
        from: NodeId,
        reply: &InstallSnapshotReply,
    ) {
        if reply.term > self.state.term {
            self.become_follower(reply.term, None);
            return;
        }
        if reply.term < self.state.term || reply.state == SnapshotState::StaleTerm {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.progress.get(&from).is_none_or(|known| known.incarnation != Some(reply.incarnation)) {
            leader.meet(from, reply.incarnation, &self.log);
            return;
        }
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.heard_ms = Some(now_ms);
        progress.welcome_index.get_or_insert(self.log.last_index());
        let holds_it = matches!(reply.state, SnapshotState::Installed | SnapshotState::HasIt);
        // What lies before the base was committed, like the entry of every snapshot: they are the same.
        let agrees = reply.entry.index < self.log.base().index
            || self.log.term_at(reply.entry.index) == Some(reply.entry.term);
        if holds_it && agrees && handle_match(progress, reply.entry.index, &self.log, round) {
            leader.round += 1;
        }
        self.leader_progressed(now_ms);
    }
}
