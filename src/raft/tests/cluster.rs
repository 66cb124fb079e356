//! A cluster in memory: nodes with disks, messages as bytes in a bag. After every step the invariants of the
//! node and those of the cluster (`checks`) are checked.

mod checks;
mod drive;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fsd_wire::hello::HelloStatus;
use fsd_wire::peer::PeerMessage;
use fsd_wire::{
    ClusterId, Entry, EntryId, EntryKind, FrameDecoder, Incarnation, Life, LogIndex, Message, NodeId,
    Payload, Term,
};

use super::memory_log::MemoryLog;
use super::single;
use crate::limits::PEER_FRAME_BYTES_MAX;
use crate::raft::{
    Actions, Alarm, Config, HardState, Input, LogChange, LogSummary, PeerRead, Raft, ReadReady,
    ReplicationBounds, Timer, invariants,
};

pub(super) use checks::Counts;

pub(super) const HEARTBEAT_MS: u64 = 100;
pub(super) const ELECTION_MS: u64 = 1000;

pub(super) fn fresh_state(incarnation: u64) -> HardState {
    HardState {
        incarnation: Incarnation(incarnation),
        life: Life::new(1, 0),
        term: Term(0),
        voted_for: None,
        cluster_id: None,
        met: BTreeMap::new(),
    }
}

pub(super) struct Node {
    pub(super) state: HardState,
    /// What survives a power cut.
    pub(super) disk: MemoryLog,
    /// What was stored and not flushed.
    pub(super) unflushed: Vec<LogChange>,
    pub(super) log: MemoryLog,
    pub(super) raft: Option<Raft>,
    pub(super) alarms: BTreeMap<Timer, u64>,
    was_leader: Option<Term>,
    /// What of its commits was checked in this life.
    noted: LogIndex,
    /// How far its clock is ahead of the cluster's.
    ahead_ms: u64,
    /// Confirmed reads of followers.
    peer_reads: Vec<PeerRead>,
    /// A snapshot that has come and is not installed yet.
    arrived: Option<snapshots::Arrived>,
}

#[derive(Clone)]
pub(super) struct Envelope {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) bytes: Bytes,
}

impl Envelope {
    pub(super) fn message(&self) -> PeerMessage {
        let mut decoder = FrameDecoder::new(PEER_FRAME_BYTES_MAX);
        decoder.feed(&self.bytes);
        PeerMessage::decode(&decoder.next_frame().unwrap().unwrap()).unwrap()
    }
}

/// Where a node dies within a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CrashPoint {
    BeforeState,
    AfterState,
    BeforeFlush,
    AfterFlush,
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) bag: Vec<Envelope>,
    pub(super) now_ms: u64,
    /// Directed links that lose everything.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    connected: BTreeSet<(NodeId, NodeId)>,
    pub(super) random: fastrand::Rng,
    pub(super) committed: BTreeMap<LogIndex, (Entry, Term)>,
    leaders: BTreeMap<Term, (NodeId, Incarnation)>,
    incarnations: u64,
    /// Disks that are no more, as they were in the end.
    buried: Vec<(NodeId, MemoryLog)>,
    /// Incarnations of which an old copy was restored: as long as a node has one, its disk is as good as lost.
    restored: BTreeSet<Incarnation>,
    /// Who voted for whom: node, incarnation and term to candidate.
    votes: BTreeMap<(NodeId, Incarnation, Term), NodeId>,
    pub(super) counts: Counts,
    /// What is under way to a node still comes when it has been restarted.
    pub(super) late_messages: bool,
    /// Entries in one AppendEntries.
    pub(super) batch: usize,
    pub(super) crash_next_turn: Option<CrashPoint>,
    /// Snapshots that have come wait for [`Cluster::install`], now and then.
    pub(super) slow_installs: bool,
    /// All that were ever made; messages name them by their place.
    snapshots: Vec<LogSummary>,
    pub(super) reads: BTreeMap<u64, LogIndex>,
    pub(super) reads_ready: Vec<(u64, LogIndex)>,
    pub(super) reads_lost: Vec<u64>,
    steps: u64,
    two_clusters: bool,
    pub(super) delivered: u64,
}

impl Cluster {
    /// Nodes 1 to `count` with empty disks, all started and connected.
    pub(super) fn new(count: u32, seed: u64) -> Self {
        let mut cluster = Self::stopped(count, seed);
        for node in cluster.ids() {
            cluster.start(node);
        }
        cluster.connect_all();
        cluster
    }

    /// The same, not yet started.
    pub(super) fn stopped(count: u32, seed: u64) -> Self {
        let nodes = (1..=count).map(|node| (NodeId(node), Node::fresh(u64::from(node) * 1000))).collect();
        Self {
            nodes,
            bag: Vec::new(),
            now_ms: 1_000_000,
            cut: BTreeSet::new(),
            connected: BTreeSet::new(),
            random: fastrand::Rng::with_seed(seed),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            incarnations: 0,
            buried: Vec::new(),
            restored: BTreeSet::new(),
            votes: BTreeMap::new(),
            counts: Counts::default(),
            late_messages: false,
            batch: 8,
            crash_next_turn: None,
            slow_installs: false,
            snapshots: Vec::new(),
            reads: BTreeMap::new(),
            reads_ready: Vec::new(),
            reads_lost: Vec::new(),
            steps: 0,
            two_clusters: false,
            delivered: 0,
        }
    }

    /// Nodes that have been a cluster, have forgotten all up to `base`, and have these terms in their logs behind it;
    /// started and connected.
    pub(super) fn with_logs(base: u64, logs: &[Vec<u64>], seed: u64) -> Self {
        let count = logs.len() as u32;
        let mut cluster = Self::stopped(count, seed);
        let state_of = |node: u32| fresh_state(u64::from(node) * 1000);
        for (node, terms) in (1..).zip(logs) {
            let mut entries = single::entries(count, terms);
            let mut start = LogSummary::default();
            if base > 0 {
                let (term, index) = (Term(1), LogIndex(base));
                start.base = EntryId { term, index };
                (start.committed, start.last_index, start.genesis) = (index, index, Some(ClusterId(1)));
                let members = (1..=count).map(|of| (LogIndex(1), NodeId(of), state_of(of).incarnation));
                start.registrations = members.collect();
                for (entry, at) in entries.iter_mut().zip(1..) {
                    (entry.index, entry.kind) = (LogIndex(base + at), EntryKind::Command);
                }
            }
            let id = NodeId(node);
            let this = cluster.nodes.get_mut(&id).unwrap();
            this.disk = MemoryLog { entries, ..MemoryLog::beginning_at(start) };
            this.state = state_of(node);
            this.state.term = Term(terms.last().copied().unwrap_or(0));
            this.state.cluster_id = Some(ClusterId(1));
        }
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster.connect_all();
        cluster
    }

    pub(super) fn terms(&self, node: u32) -> Vec<u64> {
        self.nodes[&NodeId(node)].log.entries.iter().map(|entry| entry.term.0).collect()
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn raft(&self, node: u32) -> &Raft {
        self.nodes[&NodeId(node)].raft.as_ref().expect("the node runs")
    }

    pub(super) fn raft_mut(&mut self, node: NodeId) -> &mut Raft {
        self.nodes.get_mut(&node).and_then(|node| node.raft.as_mut()).expect("the node runs")
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.nodes[&node].raft.is_some()
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let members = self.ids();
        let seed = self.random.u64(..);
        let new_cluster_id = ClusterId(self.random.u128(1..));
        let node = self.nodes.get_mut(&id).unwrap();
        let now_ms = self.now_ms + node.ahead_ms;
        assert!(node.raft.is_none(), "started twice");
        node.log = node.disk.clone();
        node.log.batch = self.batch;
        let config = Config {
            node: id,
            members,
            heartbeat_ms: HEARTBEAT_MS,
            election_timeout_ms: ELECTION_MS,
            replication: ReplicationBounds::default(),
            seed,
            new_cluster_id,
        };
        node.raft = Some(Raft::new(config, node.state.clone(), node.log.summary(), now_ms));
        self.finish_turn(id);
    }

    /// Stops a node and cuts its power: of what was not flushed, a part chosen at random survives.
    pub(super) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.raft.take().is_none() {
            return;
        }
        self.counts.crashes += 1;
        let kept = self.random.usize(..=node.unflushed.len());
        for change in node.unflushed.drain(..).take(kept) {
            node.disk.change(&change);
        }
        node.alarms.clear();
        node.was_leader = None;
        node.noted = LogIndex(0);
        node.peer_reads.clear();
        node.arrived = None;
        node.state.life = node.state.life.next(0);
        if !self.late_messages {
            self.bag.retain(|envelope| envelope.to != id);
        }
        let pairs: Vec<_> =
            self.connected.iter().filter(|pair| pair.0 == id || pair.1 == id).copied().collect();
        for pair in pairs {
            self.connected.remove(&pair);
            let other = if pair.0 == id { pair.1 } else { pair.0 };
            self.input(other, Input::PeerLost { node: id });
        }
    }

    pub(super) fn restart(&mut self, id: NodeId) {
        self.crash(id);
        self.start(id);
        self.connect_all();
    }

    /// Deletes the data directory of a node that does not run.
    pub(super) fn wipe(&mut self, id: NodeId) {
        self.incarnations += 1;
        self.counts.wipes += 1;
        let node = Node::fresh(u64::from(id.0) * 1000 + self.incarnations);
        self.replace(id, node.state, node.disk);
    }

    /// Puts an earlier copy of a data directory in the place of what a node that does not run has.
    pub(super) fn restore(&mut self, id: NodeId, state: HardState, disk: MemoryLog) {
        self.counts.copies += 1;
        self.restored.insert(state.incarnation);
        let life = state.life.next(self.restored.len() as u32);
        self.replace(id, HardState { life, ..state }, disk);
    }

    fn replace(&mut self, id: NodeId, state: HardState, disk: MemoryLog) {
        assert!(!self.is_up(id));
        self.bag.retain(|envelope| envelope.to != id);
        let node = self.nodes.get_mut(&id).unwrap();
        self.buried.push((id, std::mem::replace(&mut node.disk, disk)));
        node.state = state;
        node.log = node.disk.clone();
    }

    /// Takes a connection down; what was under way on it is lost, or late.
    pub(super) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        if self.connected.remove(&(a.min(b), a.max(b))) {
            self.input(a, Input::PeerLost { node: b });
            self.input(b, Input::PeerLost { node: a });
        }
    }

    /// Lets time pass for one node alone: its clock runs, or the others are slow.
    pub(super) fn hurry(&mut self, id: NodeId, by_ms: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.ahead_ms += by_ms;
        node.alarms.values_mut().for_each(|at_ms| *at_ms = at_ms.saturating_sub(by_ms));
    }

    /// Connects all running nodes that can talk both ways.
    pub(super) fn connect_all(&mut self) {
        let ids = self.ids();
        for (at, a) in ids.iter().enumerate() {
            for b in &ids[at + 1..] {
                self.connect(*a, *b);
            }
        }
    }

    pub(super) fn connect(&mut self, a: NodeId, b: NodeId) {
        let cut = self.cut.contains(&(a, b)) || self.cut.contains(&(b, a));
        if cut || !self.is_up(a) || !self.is_up(b) || self.connected.contains(&(a, b)) {
            return;
        }
        let (of_a, of_b) = (self.raft(a.0).identity(), self.raft(b.0).identity());
        match (self.raft(b.0).judge_hello(&of_a), self.raft(a.0).judge_hello(&of_b)) {
            (HelloStatus::Welcome, HelloStatus::Welcome) => {}
            (HelloStatus::StaleCopy, _) => return self.renew(a),
            (_, HelloStatus::StaleCopy) => return self.renew(b),
            _ => return,
        }
        self.connected.insert((a, b));
        for (node, other) in [(a, of_b), (b, of_a)] {
            let (life, cluster_id) = (other.life, other.cluster_id);
            let met = Input::Met { node: other.node, incarnation: other.incarnation, life, cluster_id };
            self.input(node, met);
        }
    }

    /// Tells a node that its directory is an old copy.
    fn renew(&mut self, id: NodeId) {
        self.incarnations += 1;
        let incarnation = Incarnation(u64::from(id.0) * 1000 + self.incarnations);
        if let Some(raft) = &mut self.nodes.get_mut(&id).unwrap().raft {
            raft.adopt_incarnation(incarnation);
        }
        self.finish_turn(id);
    }

    /// One input, and the rest of the turn.
    pub(super) fn input(&mut self, id: NodeId, input: Input) {
        let node = self.nodes.get_mut(&id).unwrap();
        let now_ms = self.now_ms + node.ahead_ms;
        let Some(raft) = &mut node.raft else { return };
        let before = raft.clone();
        raft.step(now_ms, input.clone());
        let checked = invariants::check(raft).and_then(|()| invariants::check_step(&before, raft));
        if let Err(what) = checked {
            panic!("node {id} after {input:?}: {what}\nbefore: {before:?}\nafter: {raft:?}");
        }
        // Before its turn is over, as it may be the last one.
        self.check_leadership(id);
        self.finish_turn(id);
    }

    pub(super) fn propose(&mut self, id: NodeId) -> Option<EntryId> {
        let payload = Payload::from(Bytes::from(format!("{id} at step {}", self.steps)));
        let node = self.nodes.get_mut(&id).unwrap();
        let now_ms = self.now_ms + node.ahead_ms;
        let raft = node.raft.as_mut()?;
        let proposed = raft.propose(now_ms, payload).ok();
        self.finish_turn(id);
        proposed
    }

    pub(super) fn read(&mut self, id: NodeId, read: u64) {
        let latest = self.committed.keys().next_back().copied().unwrap_or_default();
        self.reads.insert(read, latest.max(self.last_tick(id)));
        self.input(id, Input::Read { id: read });
    }

    /// Does what the core asks for, in the order that the core's documentation gives.
    fn finish_turn(&mut self, id: NodeId) {
        self.steps += 1;
        let crash = self.crash_next_turn.take();
        loop {
            let node = self.nodes.get_mut(&id).unwrap();
            let now_ms = self.now_ms + node.ahead_ms;
            let Some(raft) = &mut node.raft else { return };
            let mut actions = raft.take_actions();
            if crash == Some(CrashPoint::BeforeState) {
                return self.crash(id);
            }
            if let Some(state) = actions.store_state.take() {
                node.state = state;
            }
            if crash == Some(CrashPoint::AfterState) {
                return self.crash(id);
            }
            for change in actions.store_log.drain(..) {
                self.check_change(id, &change);
                let node = self.nodes.get_mut(&id).unwrap();
                node.log.change(&change);
                node.unflushed.push(change);
            }
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(raft) = &mut node.raft else { return };
            let Ok(()) = raft.replicate(now_ms, &node.log);
            let more = raft.take_actions();
            assert!(more.store_state.is_none() && more.store_log.is_empty(), "replicate only sends");
            let promises = std::mem::take(&mut actions.send_when_durable);
            let flush = crash != Some(CrashPoint::BeforeFlush);
            self.execute(id, actions);
            self.execute(id, more);
            if !flush {
                return self.crash(id);
            }
            let node = self.nodes.get_mut(&id).unwrap();
            for change in node.unflushed.drain(..) {
                node.disk.change(&change);
            }
            if crash == Some(CrashPoint::AfterFlush) {
                return self.crash(id);
            }
            let last_index = node.log.last_index();
            let Some(raft) = &mut node.raft else { return };
            let before = raft.clone();
            raft.step(now_ms, Input::LogDurable { last_index });
            invariants::check(raft).unwrap();
            invariants::check_step(&before, raft).unwrap();
            let pending = raft.has_pending_replication();
            self.post(id, promises);
            let raft = self.nodes.get_mut(&id).unwrap().raft.as_mut().unwrap();
            if !pending && !raft.has_actions() {
                break;
            }
        }
        self.answer_peer_reads(id);
        self.check_cluster(id);
    }

    /// Answers followers' reads as a store would that applies what is committed at once.
    fn answer_peer_reads(&mut self, id: NodeId) {
        let now_ms = self.now_ms;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(raft) = &node.raft else { return };
        let commit_index = raft.commit_index();
        let ready: Vec<_> = node.peer_reads.extract_if(.., |read| read.index <= commit_index).collect();
        let answers = ready
            .iter()
            .filter_map(|read| Some((read.node, raft.answer_peer_read(now_ms, read, commit_index)?)));
        let answers = answers.collect();
        self.post(id, answers);
    }

    fn execute(&mut self, id: NodeId, actions: Actions) {
        for alarm in actions.alarms {
            let alarms = &mut self.nodes.get_mut(&id).unwrap().alarms;
            match alarm {
                Alarm::Set { timer, after_ms } => drop(alarms.insert(timer, self.now_ms + after_ms)),
                Alarm::Clear { timer } => drop(alarms.remove(&timer)),
            }
        }
        self.post(id, actions.send);
        if let Some(index) = actions.commit_index {
            self.note_commit(id, index);
        }
        self.nodes.get_mut(&id).unwrap().peer_reads.extend(actions.peer_reads_ready);
        for ReadReady { id: read, index, .. } in actions.reads_ready {
            let needed = self.reads[&read];
            assert!(index >= needed, "read {read} at {index}, but {needed} was committed when it came");
            self.counts.reads += 1;
            self.reads_ready.push((read, index));
        }
        self.reads_lost.extend(actions.reads_lost);
    }

    pub(super) fn post(&mut self, from: NodeId, messages: Vec<(NodeId, PeerMessage)>) {
        for (to, message) in messages {
            self.check_promise(from, to, &message);
            if matches!(message, PeerMessage::TimeoutNow(_)) {
                self.counts.transfers += 1;
            }
            if self.connected.contains(&(from.min(to), from.max(to))) {
                let envelope = Envelope { from, to, bytes: message.to_frame().concat().into() };
                assert_eq!(envelope.message(), message, "the message survives its encoding");
                self.bag.push(envelope);
            }
        }
    }

    /// Takes the message at `at` out of the bag to its receiver.
    pub(super) fn deliver(&mut self, at: usize) {
        let envelope = self.bag.remove(at);
        self.deliver_envelope(&envelope);
    }

    pub(super) fn deliver_envelope(&mut self, envelope: &Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        if !self.cut.contains(&(from, to)) {
            self.delivered += 1;
            let message = envelope.message();
            self.input(to, Input::Receive { from, message: message.clone() });
            if let PeerMessage::InstallSnapshot(chunk) = message {
                self.snapshot_arrives(to, from, &chunk);
            }
        }
    }
}

impl Node {
    fn fresh(incarnation: u64) -> Self {
        Self {
            state: fresh_state(incarnation),
            disk: MemoryLog::default(),
            unflushed: Vec::new(),
            log: MemoryLog::default(),
            raft: None,
            alarms: BTreeMap::new(),
            was_leader: None,
            noted: LogIndex(0),
            ahead_ms: 0,
            peer_reads: Vec::new(),
            arrived: None,
        }
    }
}
