//! The Raft core: a function of (state, input, time) to actions. It reads no clock, socket, file or random
//! source of its own; the daemon and the simulator run the same code.
//!
//! # A turn
//! 1. [`Raft::step`] with everything that has come, [`Raft::propose`] for what clients want.
//! 2. [`Raft::take_actions`]; store [`Actions::store_state`] and flush it; append [`Actions::store_log`].
//! 3. [`Raft::replicate`] with the log as it now is; send `take_actions().send` and what 2 gave.
//! 4. Flush the log; `step` with [`Input::LogDurable`]. No other step may come between 2 and this one.
//! 5. Send [`Actions::send_when_durable`] of all that was taken in this turn.
//! 6. Apply up to the commit index; answer [`Actions::reads_ready`] that are reached by it, and send what
//!    [`Raft::answer_peer_read`] says to followers whose reads are.
//!
//! Step 4 may set off more: a commit allows registrations to be appended, the first one also stores the
//! cluster's id, and idle followers are told of it. Go round again from 2, in this turn or at once in the
//! next, while [`Raft::has_actions`] or [`Raft::has_pending_replication`] says so.
//!
//! What the store has taken in and a checkpoint holds may leave the log: [`Raft::compact`], and `compaction` has the rest.
//!
//! Every message to a peer and every reply may be lost, repeated or late at any time. What one node's actions
//! promise holds only if they are executed in this order.
//!
//! # Beyond the paper
//! A no-op begins each term. PreVote (thesis section 9.6) keeps a node that was cut off from disturbing;
//! CheckQuorum (section 6.2) ends a leadership that nobody follows; a node that hears from a leader helps
//! nobody else to be elected (section 4.2.3). Replication is pipelined, with hints at conflicts. Reads go by
//! the read index, never by a lease; a follower asks its leader for it. `electorate` has the rules for nodes that lost their disks.
//!
//! A node that refuses a PreVote names its term, which the asking node adopts: else a node with the longest
//! log and an old term could never be elected. A PreVote itself never changes anybody's term.

mod asked_reads;
mod candidate;
mod cluster_clock;
mod compaction;
mod electorate;
mod follower;
mod interface;
pub mod invariants;
mod leader;
mod progress;
mod raft_log;
mod read_index;
mod registration;
mod room;
mod transfer;

use std::collections::BTreeMap;

use fsd_wire::client::NodeRole;
use fsd_wire::hello::{HelloStatus, Identity};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{
    ClusterId, ClusterTimeMs, Entry, EntryId, EntryKind, Incarnation, Life, LogIndex, NodeId, Payload, Term,
};

pub use interface::{
    Actions, Alarm, Config, HardState, Input, LogChange, LogSummary, LogView, PeerRead, ProposeError,
    ReadReady, ReplicationBounds, SnapshotAnswer, Timer,
};

use asked_reads::AskedReads;
use candidate::CandidateState;
use cluster_clock::ClusterClock;
use electorate::Electorate;
use follower::FollowerState;
use leader::LeaderState;
use raft_log::RaftLog;
use room::LogRoom;

use crate::marks::mark;
use crate::mutants::mutant;

/// What a node is in its term, with the state that only this role has.
#[derive(Clone, Debug)]
enum Role {
    Follower(FollowerState),
    PreCandidate(CandidateState),
    Candidate(CandidateState),
    Leader(LeaderState),
}

/// One node's part in the consensus.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
    state: HardState,
    state_changed: bool,
    log: RaftLog,
    electorate: Electorate,
    clock: ClusterClock,
    commit_index: LogIndex,
    role: Role,
    /// The incarnation that each peer showed in its last hello since this node started.
    present: BTreeMap<NodeId, Incarnation>,
    /// Reads for which this node, as a follower, waits for its leader.
    asked_reads: AskedReads,
    /// What the log can take.
    room: LogRoom,
    is_low: bool,
    random: fastrand::Rng,
    actions: Actions,
}

impl Raft {
    /// A node as it was found on its disk. It asks for its first election alarm.
    ///
    /// # Panics
    /// If the node is not a member, or if what was recovered contradicts itself.
    #[must_use]
    pub fn new(config: Config, state: HardState, log: LogSummary, _now_ms: u64) -> Self {
        assert!(config.members.is_sorted_by(|a, b| a < b), "members in rising order");
        assert!(config.members.contains(&config.node), "this node is a member");
        assert!(config.heartbeat_ms < config.election_timeout_ms, "heartbeats are more frequent");
        let ReplicationBounds { entries_max, messages_max } = config.replication;
        assert!(entries_max > 0 && messages_max > 0, "something can be sent");
        let clock = ClusterClock::new(log.last_stamp);
        let commit_index = log.base.index.max(log.committed);
        let log = RaftLog::new(log);
        assert!(commit_index <= log.last_index(), "committed up to {commit_index}, which is not there");
        assert!(log.last_id().term <= state.term, "an entry of a term that was never stored");
        let random = fastrand::Rng::with_seed(config.seed);
        let mut raft = Self {
            electorate: Electorate::new(&config.members, log.registrations()),
            config,
            state,
            state_changed: false,
            log,
            clock,
            commit_index: if mutant!("commit-begins-at-zero") { LogIndex(0) } else { commit_index },
            role: Role::Follower(FollowerState::default()),
            present: BTreeMap::new(),
            asked_reads: AskedReads::default(),
            room: LogRoom::default(),
            is_low: false,
            random,
            actions: Actions::default(),
        };
        raft.note_cluster_id();
        raft.set_election_alarm();
        raft
    }

    /// Takes in what happened. `now_ms` is a monotonic clock's, from any beginning.
    pub fn step(&mut self, now_ms: u64, input: Input) {
        match input {
            Input::Timeout(Timer::Election) => self.handle_election_timeout(now_ms),
            Input::Timeout(Timer::Heartbeat) => self.handle_heartbeat_timeout(now_ms),
            Input::Receive { from, message } => self.handle_message(now_ms, from, message),
            // Nobody waits for it: who is not the leader has nothing to say about time.
            Input::Tick => drop(self.propose_tick(now_ms)),
            Input::Read { id } => self.handle_read(now_ms, id),
            Input::Met { node, incarnation, life, cluster_id } => {
                self.handle_met(node, incarnation, life, cluster_id);
            }
            Input::PeerLost { node } => self.handle_peer_lost(node),
            Input::TransferLeadership { to } => self.handle_transfer_leadership(now_ms, to),
            Input::LogDurable { last_index } => {
                self.log.set_durable(last_index);
                self.leader_progressed(now_ms);
            }
            Input::Installed { summary } => self.handle_installed(summary),
        }
    }

    fn handle_message(&mut self, now_ms: u64, from: NodeId, message: PeerMessage) {
        if from == self.config.node || !self.electorate.contains(from) {
            return;
        }
        match message {
            PeerMessage::RequestVote(request) => self.handle_request_vote(now_ms, from, &request),
            PeerMessage::RequestVoteReply(reply) => self.handle_request_vote_reply(now_ms, from, &reply),
            PeerMessage::AppendEntries(request) => self.handle_append_entries(now_ms, from, request),
            PeerMessage::AppendEntriesReply(reply) => self.handle_append_entries_reply(now_ms, from, &reply),
            PeerMessage::TimeoutNow(request) => self.handle_timeout_now(from, &request, now_ms),
            PeerMessage::ReadIndex(request) => self.handle_read_index(from, &request),
            PeerMessage::ReadIndexReply(reply) => self.handle_read_index_reply(from, &reply),
            PeerMessage::InstallSnapshot(request) => self.handle_install_snapshot(now_ms, from, &request),
            PeerMessage::InstallSnapshotReply(reply) => {
                self.handle_install_snapshot_reply(now_ms, from, &reply);
            }
            PeerMessage::Ping
            | PeerMessage::Pong
            | PeerMessage::Forward(_)
            | PeerMessage::ForwardReply(_)
            | PeerMessage::Room(_) => {}
        }
    }

    /// What is to be done since the last call.
    #[must_use]
    pub fn take_actions(&mut self) -> Actions {
        let mut actions = std::mem::take(&mut self.actions);
        if std::mem::take(&mut self.state_changed) {
            actions.store_state = Some(self.state.clone());
        }
        actions
    }

    /// Whether the present term, vote and what else is in the hard state are still to be stored.
    #[must_use]
    pub fn has_state_to_store(&self) -> bool {
        self.state_changed
    }

    /// Whether there is anything to take. What [`Input::LogDurable`] set off may be: go round again then.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        let Actions {
            store_log,
            send,
            send_when_durable,
            alarms,
            commit_index,
            reads_ready,
            reads_lost,
            peer_reads_ready,
            ..
        } = &self.actions;
        self.state_changed
            || commit_index.is_some()
            || !(store_log.is_empty() && send.is_empty() && send_when_durable.is_empty())
            || !(alarms.is_empty() && reads_ready.is_empty() && reads_lost.is_empty())
            || !peer_reads_ready.is_empty()
    }

    /// Whether what is to be taken sets an alarm anew, or clears it: if it goes off now, that is the one of before.
    #[must_use]
    pub fn sets_alarm(&self, timer: Timer) -> bool {
        self.actions.alarms.iter().any(|alarm| alarm.timer() == timer)
    }

    /// The paper's `currentTerm`.
    #[must_use]
    pub fn term(&self) -> Term {
        self.state.term
    }

    /// What this node is at present.
    #[must_use]
    pub fn role(&self) -> NodeRole {
        match self.role {
            Role::Follower(_) => NodeRole::Follower,
            Role::PreCandidate(_) => NodeRole::PreCandidate,
            Role::Candidate(_) => NodeRole::Candidate,
            Role::Leader(_) => NodeRole::Leader,
        }
    }

    /// Whether this node leads. Another may have been elected since: only a confirmed read index is proof.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The leader of this term, if this node has heard from it.
    #[must_use]
    pub fn leader_id(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader_id,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.config.node),
        }
    }

    /// The paper's `commitIndex`.
    #[must_use]
    pub fn commit_index(&self) -> LogIndex {
        self.commit_index
    }

    /// The index of the last entry.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.log.last_index()
    }

    /// Term and index of the last entry.
    #[must_use]
    pub fn last_id(&self) -> EntryId {
        self.log.last_id()
    }

    /// Everything up to here is flushed, as far as the core was told.
    #[must_use]
    pub fn durable_index(&self) -> LogIndex {
        self.log.durable_index()
    }

    /// The first index of each run of equal terms behind the base.
    #[must_use]
    pub fn term_starts(&self) -> &[(LogIndex, Term)] {
        self.log.runs()
    }

    /// The term of the entry at `index`, where the log has one, and of the base, which is 0 at index 0 as long as
    /// nothing was compacted.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Cluster time: a leader's runs, another node's stands at the last that it was told.
    #[must_use]
    pub fn cluster_time(&self, now_ms: u64) -> ClusterTimeMs {
        self.clock.now(now_ms)
    }

    /// The last stamp that this node has seen; a leader's is that of its last entry.
    #[must_use]
    pub fn last_stamp(&self) -> ClusterTimeMs {
        self.clock.last()
    }

    /// The hard state as it is now, stored or not.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.state
    }

    /// What this node says of itself in a hello.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            node: self.config.node,
            incarnation: self.state.incarnation,
            life: self.state.life,
            cluster_id: self.state.cluster_id,
        }
    }

    /// Whether this node's log confirms its data directory as a voter's; a node that lost its disk does not
    /// count until it does.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.electorate.counts(self.config.node, self.state.incarnation)
    }

    /// Whether whoever says this of itself belongs to this node's cluster. The cluster's name and the
    /// protocol are the caller's to compare.
    #[must_use]
    pub fn judge_hello(&self, identity: &Identity) -> HelloStatus {
        if identity.node == self.config.node || !self.electorate.contains(identity.node) {
            return HelloStatus::WrongNode;
        }
        match (self.state.cluster_id, identity.cluster_id) {
            (Some(ours), Some(theirs)) if ours != theirs => return HelloStatus::OtherClusterId,
            _ => {}
        }
        match self.state.met.get(&identity.node) {
            Some((incarnation, known))
                if *incarnation == identity.incarnation
                    && identity.life.is_of_an_older_copy_than(*known)
                    && !mutant!("old-copy-is-welcome") =>
            {
                mark!("raft-recognises-old-copy");
                HelloStatus::StaleCopy
            }
            _ => HelloStatus::Welcome,
        }
    }

    /// This node was told that its data directory is an old copy: it goes on as a new incarnation, which has
    /// promised nothing yet, and counts again when a leader has brought it up to date.
    pub fn adopt_incarnation(&mut self, incarnation: Incarnation) {
        mark!("raft-takes-part-as-other-incarnation");
        self.become_follower(self.state.term, None);
        self.state.incarnation = incarnation;
        self.state.life = Life::new(1, self.random.u32(..));
        self.state_changed = true;
    }

    /// Puts a command into the log of a leader. The entry is lost if another entry is committed at its index.
    ///
    /// # Errors
    /// Why it was not put there; nothing has happened then.
    pub fn propose(&mut self, now_ms: u64, payload: Payload) -> Result<EntryId, ProposeError> {
        self.propose_kind(now_ms, EntryKind::Command, payload)
    }

    /// As [`Self::propose`], with what becomes of a client's session.
    ///
    /// # Errors
    /// Why it was not put there; nothing has happened then.
    pub fn propose_session(&mut self, now_ms: u64, payload: Payload) -> Result<EntryId, ProposeError> {
        self.propose_kind(now_ms, EntryKind::Session, payload)
    }

    /// Puts an empty entry into the log of a leader, so that what is due by cluster time falls due.
    ///
    /// # Errors
    /// Why it was not put there; nothing has happened then.
    pub fn propose_tick(&mut self, now_ms: u64) -> Result<EntryId, ProposeError> {
        self.propose_kind(now_ms, EntryKind::Tick, Payload::default())
    }

    fn handle_met(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        life: Life,
        cluster_id: Option<ClusterId>,
    ) {
        if node == self.config.node || !self.electorate.contains(node) {
            return;
        }
        if self.state.cluster_id.is_none() && cluster_id.is_some() {
            mark!("raft-hears-of-its-cluster");
            self.state.cluster_id = cluster_id;
            self.state_changed = true;
        }
        // A hello never replaces an incarnation, or a wiped node would be believed to be what it was. But
        // when the log has replaced it, the new one's lives are worth knowing.
        let confirmed = self.electorate.counts(node, incarnation);
        match self.state.met.get_mut(&node) {
            Some((first, known)) if *first == incarnation => {
                if life > *known {
                    *known = life;
                    self.state_changed = true;
                }
            }
            Some(first) if confirmed => {
                mark!("raft-meets-confirmed-newcomer");
                *first = (incarnation, life);
                self.state_changed = true;
            }
            Some(_) => {
                mark!("raft-meets-newcomer-that-does-not-count");
            }
            None => {
                self.state.met.insert(node, (incarnation, life));
                self.state_changed = true;
            }
        }
        self.present.insert(node, incarnation);
        if let Role::Leader(leader) = &mut self.role {
            leader.meet(node, incarnation, &self.log);
        }
    }

    fn handle_peer_lost(&mut self, node: NodeId) {
        if let Role::Leader(leader) = &mut self.role {
            leader.restart_pipeline(node, &self.log);
        }
    }

    /// Follows, in `term`, the leader that it knows of. Never goes back to an earlier term.
    fn become_follower(&mut self, term: Term, leader_id: Option<NodeId>) {
        assert!(term >= self.state.term, "term {} after {}", term, self.state.term);
        if term > self.state.term {
            self.state.term = term;
            self.state.voted_for = self.state.voted_for.filter(|_| mutant!("vote-kept-in-new-term"));
            self.state_changed = true;
            self.room.forget_what_it_lacked();
        }
        let role = Role::Follower(FollowerState { leader_id, heard_ms: None });
        match std::mem::replace(&mut self.role, role) {
            // A higher term alone is no sign of a leader: it must not put this node's own election off.
            Role::Follower(_) => {}
            Role::PreCandidate(_) | Role::Candidate(_) => self.set_election_alarm(),
            Role::Leader(leader) => {
                mark!("raft-deposed-with-reads", leader.reads.len() > 0);
                mark!("raft-deposed-while-handing-over", leader.transfer.is_some());
                self.actions.reads_lost.extend(leader.reads.into_own_ids());
                self.actions.alarm(Alarm::Clear { timer: Timer::Heartbeat });
                self.clock.stop();
                self.set_election_alarm();
            }
        }
    }

    /// A random part keeps nodes from standing at the same moment, again and again (section 5.2).
    fn set_election_alarm(&mut self) {
        let timeout_ms = self.config.election_timeout_ms;
        let first_chance_of_others_ms = if self.is_low { timeout_ms } else { 0 };
        let after_ms = timeout_ms + self.random.u64(..timeout_ms) + first_chance_of_others_ms;
        self.actions.alarm(Alarm::Set { timer: Timer::Election, after_ms });
    }

    /// Appends to the log in memory, and asks for the same on the disk.
    fn append(&mut self, entry: Entry) {
        self.clock.note(entry.stamp);
        self.room.take(entry.payload.len());
        if self.log.append(&entry) {
            self.electorate.recount(self.log.registrations());
        }
        self.actions.store_log.push(LogChange::Append(entry));
    }

    /// Takes back what a real conflict showed to be another leader's.
    fn truncate_from(&mut self, index: LogIndex) {
        assert!(index > self.commit_index, "entry {index} is committed and conflicts with the leader's");
        self.log.truncate_from(index);
        self.electorate.recount(self.log.registrations());
        self.actions.store_log.push(LogChange::TruncateFrom(index));
    }

    fn set_commit_index(&mut self, index: LogIndex) {
        assert!(index > self.commit_index && index <= self.log.last_index(), "commit of {index}");
        self.commit_index = index;
        self.actions.commit_index = Some(index);
        self.note_cluster_id();
    }

    /// The cluster's id is known for good when the genesis is committed.
    fn note_cluster_id(&mut self) {
        let is_committed = self.commit_index > LogIndex(0);
        if is_committed && self.state.cluster_id.is_none() && self.log.genesis().is_some() {
            self.state.cluster_id = self.log.genesis();
            self.state_changed = true;
        }
    }
}

#[cfg(test)]
mod tests;
