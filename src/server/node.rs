//! What a node does in one turn.
//!
//! The order of [`Node::turn`] is the group commit, and the safety of the whole rests on it: a term or a vote
//! is flushed before anything of that term is written; what promises nothing is sent before the flush, so that
//! the followers' disks work while this one does; what promises durability is sent after it.

use std::collections::BTreeMap;

use fsd_wire::client::{ClientReply, Outcome, Refusal};
use fsd_wire::hello::Identity;
use fsd_wire::peer::PeerMessage;
use fsd_wire::{ClusterId, EntryId, EntryKind, LogIndex, NodeId, Term};

use super::alarms::Alarms;
use super::backup::Backups;
use super::catch_up::CatchUp;
use super::forwarder::Forwarder;
use super::hellos::identity_of;
use super::housekeeping::Housekeeping;
use super::measurements::Measurements;
use super::pace::FollowerPace;
use super::pending::{Asker, Origin, Pending, RequestKey};
use super::readiness::Readiness;
use super::room::Room;
use super::{Fault, Network};
use crate::config::{Member, TextReads, TextWrites};
use crate::file_store::{Applied, ContentsAt, FileStore};
use crate::limits;
use crate::mapping::Disk;
use crate::marks::mark;
use crate::mutants::mutant;
use crate::net::{ConnectionId, Event, HttpPage, NetTimer};
use crate::raft::{self, Actions, Input, Raft};
use crate::storage::{HardStateFile, SegmentedLog, Storage};
use crate::timer_wheel::{TimerId, TimerWheel};

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster's name.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// All members, this node among them.
    pub members: Vec<Member>,
    /// How often a leader gives a sign of life.
    pub heartbeat_ms: u64,
    /// How long a follower waits for one at least.
    pub election_timeout_ms: u64,
    /// The largest contents of a file.
    pub max_file_bytes: u64,
    /// From which state the text protocol's reads are answered.
    pub text_reads: TextReads,
    /// What happens to the text protocol's changes at a node that does not lead.
    pub text_writes: TextWrites,
    /// How long a session that is opened here lives without a sign of life, in milliseconds of cluster time. It goes
    /// into the log: other nodes may have other bounds.
    pub session_idle_ms: u64,
    /// How many sessions there may be when one is opened here; it goes into the log, too.
    pub sessions_max: u32,
    /// How much is sent to a follower at a time.
    pub replication: raft::ReplicationBounds,
    /// Randomness for election timeouts.
    pub seed: u64,
    /// The cluster's id, should this node begin the cluster.
    pub new_cluster_id: ClusterId,
    /// This node's next incarnation, should its data directory turn out to be an old copy.
    pub new_incarnation: u64,
}

/// What a timer of the wheel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Raft(raft::Timer),
    Net(NetTimer),
    Request(RequestKey),
    /// Changes that were passed on may be lost.
    Forward,
    /// Whoever asked whether the node is ready has waited long enough.
    Readiness(u64),
    /// Backups may be of no use to anybody any more.
    Backups,
    /// Something in the store is due.
    Expiry,
    /// It is time to look at the room on the disk.
    Room,
    /// Stopping has taken long enough.
    Stop,
}

/// A node without sockets and clocks: given events and the time, it acts on its disk and on a [`Network`].
pub struct Node<D: Disk> {
    pub(super) config: NodeConfig,
    pub(super) raft: Raft,
    pub(super) log: SegmentedLog<D>,
    pub(super) housekeeping: Housekeeping<D>,
    pub(super) catch_up: CatchUp<D>,
    pub(super) backups: Backups<D>,
    pub(super) room: Room,
    pub(super) hard_state: HardStateFile<D>,
    pub(super) store: FileStore,
    pub(super) wheel: TimerWheel<Timer>,
    due_timers: Vec<Timer>,
    due_net_timers: Vec<NetTimer>,
    pub(super) alarms: Alarms,
    expiry_alarm: Option<TimerId>,
    pub(super) pending: Pending,
    pub(super) readiness: Readiness,
    pub(super) forwarder: Forwarder,
    pub(super) forward_alarm: Option<TimerId>,
    pub(super) follower_pace: FollowerPace,
    /// The peers to which there is an open connection, and which one that is.
    pub(super) connected: BTreeMap<NodeId, u64>,
    pub(super) connections: u64,
    /// Who waits for what is measured.
    metrics_asked: Vec<ConnectionId>,
    pub(super) measurements: Measurements,
    /// The batch to which the reads of this turn belong, and how many batches there were.
    pub(super) read_batch: u64,
    pub(super) reads_in_batch: usize,
    /// The entry after which nothing that was due when it was proposed is left.
    pub(super) expiry_barrier: Option<EntryId>,
    pub(super) identity: Identity,
    announced_leader: Option<(NodeId, Term)>,
    /// The last turn left something that the next one is to do without waiting.
    pub(super) unfinished: bool,
    stopping: Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    /// A leader hands over first.
    HandingOver,
    Now,
}

impl<D: Disk> Node<D> {
    /// A node that has recovered its data directory, and the store as of the newest checkpoint in it.
    pub fn new(config: NodeConfig, storage: Storage<D>, store: FileStore, now_ms: u64) -> Self {
        let Storage { log, hard_state, recovered } = storage;
        let raft_config = raft::Config {
            node: config.node,
            members: config.members.iter().map(|member| member.node).collect(),
            heartbeat_ms: config.heartbeat_ms,
            election_timeout_ms: config.election_timeout_ms,
            replication: config.replication,
            seed: config.seed,
            new_cluster_id: config.new_cluster_id,
        };
        // What is drawn for each start is in the lower half of its life.
        let first_ticket = recovered.state.life.0 << 32;
        let housekeeping = Housekeeping::new(recovered.checkpoints, &log);
        let raft = Raft::new(raft_config, recovered.state, recovered.log, now_ms);
        let identity = identity_of(&raft, config.node);
        let mut wheel = TimerWheel::new(now_ms);
        wheel.insert(now_ms + limits::ROOM_STEP_MS, Timer::Room);
        Self {
            config,
            raft,
            log,
            housekeeping,
            catch_up: CatchUp::default(),
            backups: Backups::default(),
            room: Room::default(),
            hard_state,
            store,
            wheel,
            due_timers: Vec::new(),
            due_net_timers: Vec::new(),
            alarms: Alarms::default(),
            expiry_alarm: None,
            pending: Pending::default(),
            readiness: Readiness::default(),
            forwarder: Forwarder::new(first_ticket),
            follower_pace: FollowerPace::default(),
            forward_alarm: None,
            connected: BTreeMap::new(),
            connections: 0,
            metrics_asked: Vec::new(),
            measurements: Measurements::new(),
            read_batch: 0,
            reads_in_batch: 0,
            expiry_barrier: None,
            identity,
            announced_leader: None,
            unfinished: false,
            stopping: Stopping::No,
        }
    }

    /// When the next turn is due if nothing happens before: at once while something is left to do.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if self.unfinished || self.raft.commit_index() > self.store.last_applied() {
            return Some(0);
        }
        self.wheel.next_deadline()
    }

    /// Asks for a timer of the network's.
    pub fn add_net_timer(&mut self, deadline_ms: u64, timer: NetTimer) {
        self.wheel.insert(deadline_ms, Timer::Net(timer));
    }

    /// Moves the wheel to the present; what is due is acted on in [`Self::turn`].
    pub fn fire_timers(&mut self, now_ms: u64) {
        self.wheel.advance(now_ms, &mut self.due_timers);
        for timer in &self.due_timers {
            if let Timer::Net(timer) = timer {
                self.due_net_timers.push(*timer);
            }
        }
    }

    /// The network's timers that are due.
    pub fn take_net_timers(&mut self) -> Vec<NetTimer> {
        std::mem::take(&mut self.due_net_timers)
    }

    /// One turn: everything that came is given to Raft, what Raft answers is done in its order, and whoever
    /// waited for it is answered.
    ///
    /// # Errors
    /// A fault of the disk: the process must end, and nothing more may leave it.
    pub fn turn(
        &mut self,
        now_ms: u64,
        events: &mut Vec<Event>,
        net: &mut impl Network,
    ) -> Result<(), Fault> {
        self.measurements.begin_turn(now_ms);
        self.begin_room();
        for event in events.drain(..) {
            self.handle(now_ms, event, net);
        }
        for timer in std::mem::take(&mut self.due_timers) {
            self.fire(now_ms, timer, net);
        }
        self.forward_changes(now_ms, net);
        self.begin_read_round(now_ms);

        let mut actions = self.raft.take_actions();
        self.store_state(&mut actions, net)?;
        self.append(&actions)?;
        self.raft.replicate(now_ms, &self.log)?;
        let more = self.raft.take_actions();
        assert!(more.store_state.is_none() && more.store_log.is_empty(), "replication only sends");
        for (node, message) in actions.send.iter().chain(&more.send) {
            net.send_peer(*node, message);
        }
        net.push_peers(now_ms);
        let last_index = if mutant!("no-flush") { self.log.last_index() } else { self.flush_log()? };
        self.raft.step(now_ms, Input::LogDurable { last_index });
        for (node, message) in &actions.send_when_durable {
            net.send_peer(*node, message);
        }
        self.set_alarms(now_ms, &actions);
        self.finish_reads(&actions, net);
        self.after_flush(now_ms, net)?;
        self.install_received(now_ms, net)?;
        self.send_chunk_answers(net);
        self.advance_streams(now_ms, net);
        self.apply(net)?;
        self.serve_reads(now_ms, net)?;
        self.answer_backups(net);
        self.answer_readiness(net);
        self.set_expiry_alarm(now_ms);
        self.announce_leader();
        self.finish_room(now_ms, net);
        self.advance_stop(net);
        self.unfinished =
            self.log.is_dirty() || self.raft.has_actions() || self.raft.has_pending_replication();
        Ok(())
    }

    /// The order to stop: a leader hands over first. A second one does not wait for that.
    pub fn stop(&mut self, now_ms: u64) {
        self.unfinished = true;
        if self.stopping != Stopping::No {
            mark!("node-is-told-to-stop-twice");
            self.stopping = Stopping::Now;
            return;
        }
        self.stopping = Stopping::HandingOver;
        if self.raft.is_leader() && self.config.members.len() > 1 {
            log::info!("node {} hands leadership over before it stops", self.config.node);
            self.raft.step(now_ms, Input::TransferLeadership { to: None });
            self.wheel.insert(now_ms + 2 * self.config.election_timeout_ms, Timer::Stop);
        } else {
            self.stopping = Stopping::Now;
        }
    }

    /// Whether the process may end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopping == Stopping::Now && self.pending.is_empty() && self.forwarder.is_empty()
    }

    /// Whether it was told to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    /// Who asked for what is measured since the last call: to be sent what [`Self::write_metrics`] and others
    /// write.
    pub fn take_metrics_asked(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.metrics_asked)
    }

    fn handle(&mut self, now_ms: u64, event: Event, net: &mut impl Network) {
        match event {
            Event::Request { connection, protocol, request } => {
                self.dispatch(now_ms, Origin::Client { connection, protocol }, request, net);
            }
            Event::Page { connection, page: HttpPage::Readiness } => {
                self.ask_readiness(now_ms, connection, net);
            }
            Event::Page { connection, page: HttpPage::Metrics } => self.metrics_asked.push(connection),
            Event::Peer { from, message: PeerMessage::Forward(request) } => {
                self.take_forwarded(now_ms, from, request, net);
            }
            Event::Peer { from, message: PeerMessage::InstallSnapshot(request) } => {
                self.take_chunk(now_ms, from, request);
            }
            Event::Peer { from, message: PeerMessage::InstallSnapshotReply(reply) } => {
                self.take_chunk_answer(now_ms, from, reply);
            }
            Event::Peer { message: PeerMessage::ForwardReply(reply), .. } => {
                self.finish_forwarded(reply, net)
            }
            Event::Peer { from, message } => self.receive(now_ms, from, message),
            Event::PeerHello { connection, identity } => self.judge_hello(now_ms, connection, identity, net),
            Event::PeerReply { node, reply } => self.judge_reply(now_ms, node, &reply, net),
            Event::PeerLost { node } => {
                self.connected.remove(&node);
                self.raft.step(now_ms, Input::PeerLost { node });
            }
        }
    }

    fn fire(&mut self, now_ms: u64, timer: Timer, net: &mut impl Network) {
        match timer {
            Timer::Raft(timer) => self.alarm_goes_off(now_ms, timer),
            // Handed to the network by `take_net_timers`.
            Timer::Net(_) => {}
            Timer::Request(RequestKey::Forwarded(ticket)) => self.give_forwarded_up(ticket, net),
            Timer::Request(RequestKey::Backup(number)) => self.put_backup_off(number, net),
            Timer::Request(key) => self.give_up(key, net),
            Timer::Forward => self.end_round_of_forwarder(),
            Timer::Readiness(number) => self.give_up_readiness(number, net),
            Timer::Backups => self.watch_over_backups(now_ms, net),
            Timer::Expiry => {
                self.expiry_alarm = None;
                self.propose_removal(now_ms, self.store.next_due());
                self.propose_stamp(now_ms);
            }
            Timer::Room => self.step_room(now_ms),
            Timer::Stop => {
                mark!("node-hands-over-for-too-long", self.raft.is_leader());
                self.stopping = Stopping::Now;
            }
        }
    }

    /// A request's time is up. A read did nothing; of a change nobody knows yet.
    fn give_up(&mut self, key: RequestKey, net: &mut impl Network) {
        let Some(asker) = self.pending.take(key) else { return };
        let refusal = match key {
            RequestKey::Change(_) if !mutant!("unknown-is-refused") => Refusal::Unknown,
            RequestKey::Change(_)
            | RequestKey::Read(_)
            | RequestKey::Forwarded(_)
            | RequestKey::Backup(_) => Refusal::NoLeader,
        };
        self.refuse(asker, refusal, net);
    }

    fn store_state(&mut self, actions: &mut Actions, net: &mut impl Network) -> Result<(), Fault> {
        let Some(state) = actions.store_state.take() else { return Ok(()) };
        self.store_hard_state(&state)?;
        let identity = identity_of(&self.raft, self.config.node);
        if identity != self.identity {
            self.identity = identity;
            net.set_identity(identity);
        }
        Ok(())
    }

    fn append(&mut self, actions: &Actions) -> Result<(), Fault> {
        self.take_fault_of_room()?;
        self.measurements.appended(&actions.store_log);
        self.log.append(&actions.store_log)?;
        self.refresh_room();
        Ok(())
    }

    /// What became possible by the flush itself: in a cluster of one, entries are committed by it.
    fn after_flush(&mut self, now_ms: u64, net: &mut impl Network) -> Result<(), Fault> {
        let mut actions = self.raft.take_actions();
        self.store_state(&mut actions, net)?;
        // An entry that follows from the flush, such as a registration, is flushed by the next turn.
        self.append(&actions)?;
        for (node, message) in actions.send.iter().chain(&actions.send_when_durable) {
            net.send_peer(*node, message);
        }
        self.set_alarms(now_ms, &actions);
        self.finish_reads(&actions, net);
        Ok(())
    }

    fn set_alarms(&mut self, now_ms: u64, actions: &Actions) {
        for alarm in &actions.alarms {
            self.alarms.change(&mut self.wheel, now_ms, alarm);
        }
    }

    fn finish_reads(&mut self, actions: &Actions, net: &mut impl Network) {
        for read in &actions.reads_ready {
            self.pending.confirm_reads(read);
            self.readiness.confirm(read);
        }
        for read in &actions.peer_reads_ready {
            self.pending.add_peer_read(*read);
        }
        for batch in &actions.reads_lost {
            self.lose_readiness(*batch, net);
            for asker in self.pending.take_lost_reads(*batch) {
                let refusal = self.not_leader(asker.origin);
                self.settle(asker, refusal, net);
            }
        }
    }

    /// Applies what is committed, up to the budget of a turn, and answers those who waited for it.
    fn apply(&mut self, net: &mut impl Network) -> Result<(), Fault> {
        for _ in 0..limits::APPLY_ENTRIES_PER_TURN_MAX {
            let index = self.store.last_applied().next();
            let is_stored = index <= self.log.last_index();
            if index > self.raft.commit_index() && !(mutant!("apply-uncommitted") && is_stored) {
                break;
            }
            let entry = self.log.entry(index)?;
            let applied = self.store.apply(&entry, ContentsAt(self.log.position(index).0));
            if self.expiry_barrier.is_some_and(|barrier| barrier.index <= index) {
                self.expiry_barrier = None;
            }
            self.answer_changes(index, entry.term, &applied, net);
            if matches!(entry.kind, EntryKind::Noop) {
                self.answer_lost_changes(entry.term, net);
            }
        }
        Ok(())
    }

    /// An entry is committed at `index`: whoever proposed it gets its result, and whoever proposed another one
    /// there knows now that it never will be.
    fn answer_changes(&mut self, index: LogIndex, term: Term, applied: &Applied, net: &mut impl Network) {
        for (proposed, asker) in self.pending.take_changes_at(index) {
            let outcome = if proposed == (EntryId { term, index }) || mutant!("other-entry-is-done") {
                match applied {
                    Applied::Changed { version } => Outcome::Changed { version: *version },
                    Applied::Refused(refusal) => Outcome::Refused(refusal.clone()),
                    Applied::SessionOpened { session, idle_ms } => {
                        Outcome::SessionOpened { session: *session, idle_ms: *idle_ms }
                    }
                    Applied::SessionDone => Outcome::SessionDone,
                    Applied::Nothing => unreachable!("nobody waits for an entry without a command"),
                }
            } else {
                mark!("node-applies-another-entry-instead");
                self.not_leader(asker.origin)
            };
            self.settle(asker, outcome, net);
        }
    }

    /// A term has begun for good: what was proposed in an earlier one and is not applied by now never will be,
    /// because no log that has this entry has one of an earlier term behind it.
    fn answer_lost_changes(&mut self, term: Term, net: &mut impl Network) {
        for asker in self.pending.take_changes_before(term) {
            let outcome = self.not_leader(asker.origin);
            self.settle(asker, outcome, net);
        }
    }

    /// Answers a request that waited.
    pub(super) fn settle(&mut self, asker: Asker, outcome: Outcome, net: &mut impl Network) {
        self.wheel.cancel(asker.deadline);
        self.measurements.answered(asker.asked, &outcome);
        self.send_reply(asker.origin, ClientReply { id: asker.request, outcome }, net);
    }

    pub(super) fn send_reply(&mut self, origin: Origin, reply: ClientReply, net: &mut impl Network) {
        match origin {
            Origin::Client { connection, .. } => net.reply(connection, &reply),
            Origin::Peer(node) => net.send_peer(node, &PeerMessage::ForwardReply(reply)),
            Origin::Forwarder => self.finish_forwarded(reply, net),
        }
    }

    fn refuse(&mut self, asker: Asker, refusal: Refusal, net: &mut impl Network) {
        self.settle(asker, Outcome::Refused(refusal), net);
    }

    /// Starts the deadline of a request.
    pub(super) fn add_deadline(&mut self, now_ms: u64, timeout_ms: u32, key: RequestKey) -> TimerId {
        let timeout_ms = u64::from(timeout_ms).min(limits::REQUEST_TIMEOUT_MS_MAX);
        self.wheel.insert(now_ms + timeout_ms, Timer::Request(key))
    }

    /// As leader, sees to it that the next file that is due goes when it is, the next session not long after, and that
    /// the log knows the time until then.
    fn set_expiry_alarm(&mut self, now_ms: u64) {
        if let Some(id) = self.expiry_alarm.take() {
            self.wheel.cancel(id);
        }
        if !self.raft.is_leader() || self.expiry_barrier.is_some() {
            return;
        }
        let due = [self.store.next_file_due(), self.next_session_step(), self.next_stamp_due()];
        if let Some(due) = due.into_iter().flatten().min() {
            // What is due already was refused just now: it is tried again, but not at once.
            let wait_ms = due.0.saturating_sub(self.raft.cluster_time(now_ms).0).max(1);
            self.expiry_alarm = Some(self.wheel.insert(now_ms.saturating_add(wait_ms), Timer::Expiry));
        }
    }

    fn announce_leader(&mut self) {
        let Some(leader) = self.raft.leader_id() else { return };
        let now = (leader, self.raft.term());
        if self.announced_leader != Some(now) {
            self.announced_leader = Some(now);
            self.measurements.leader_changes += 1;
            log::info!("node {leader} leads in term {}", now.1);
        }
    }

    /// Goes on with stopping: once this node no longer leads, or has waited long enough, whoever still waits
    /// is told what is known.
    fn advance_stop(&mut self, net: &mut impl Network) {
        // Changes that were in flight are decided by the successor's first entry: worth waiting for.
        let handed_over = !self.raft.is_leader() && self.raft.leader_id().is_some();
        let nobody_waits = self.pending.is_empty() && self.forwarder.is_empty();
        if self.stopping == Stopping::HandingOver && handed_over && nobody_waits {
            self.stopping = Stopping::Now;
        }
        if self.stopping != Stopping::Now {
            return;
        }
        self.end_backups(net);
        let (changes, reads) = self.pending.take_all();
        mark!("node-stops-with-changes", !changes.is_empty());
        mark!("node-stops-with-changes-passed-on", !self.forwarder.is_empty());
        for asker in changes {
            self.refuse(asker, Refusal::Unknown, net);
        }
        for asker in reads {
            let outcome = self.not_leader(asker.origin);
            self.settle(asker, outcome, net);
        }
        for answer in self.forwarder.give_all_up() {
            self.tell_client(answer, net);
        }
    }
}
