//! One run: the events of a whole cluster in simulated time, with a check of everything after each of them.

use std::collections::BTreeMap;

use fsd::net::Event;
use fsd::raft::invariants;
use fsd::server::Fault;
use fsd::server::node::Node;
use fsd::storage::{self, Storage, StorageError};
use fsd_wire::hello::Identity;
use fsd_wire::peer::PeerMessage;
use fsd_wire::{LogIndex, NodeId, Term};

use crate::client::Client;
use crate::coverage::{Coverage, Phase};
use crate::fabric::{Chunk, Fabric, Party, Side};
use crate::nemesis::Nemesis;
use crate::plan::{FaultKind, Plan};
use crate::process::{LogShape, Process, State, Watermarks, node_config};
use crate::schedule::{Happening, Schedule};
use crate::sockets::{Moment, Sockets};
use crate::wire::Wire;
use crate::witness::Witness;

/// What was found wrong, in words.
pub(crate) type Checked = Result<(), String>;

/// The first moment of simulated time.
const BEGIN_US: u64 = 1_000_000;
/// Old messages that are kept for each node.
const HEARD_MAX: usize = 32;

/// A whole cluster.
pub(crate) struct Simulation {
    pub(crate) plan: Plan,
    pub(crate) random: fastrand::Rng,
    pub(crate) now_us: u64,
    pub(crate) schedule: Schedule,
    pub(crate) fabric: Fabric,
    pub(crate) processes: Vec<Process>,
    pub(crate) clients: Vec<Client>,
    pub(crate) witness: Witness,
    pub(crate) nemesis: Nemesis,
    pub(crate) coverage: Coverage,
    /// Who led in each term.
    leaders: BTreeMap<Term, NodeId>,
    /// Digests of stores, by the entry that they had applied.
    digests: BTreeMap<LogIndex, u32>,
    pub(crate) steps: u64,
    pub(crate) proofs: u64,
    hash: u64,
    /// Faults are made.
    pub(crate) is_troubled: bool,
    /// Leader and term may not change any more.
    pub(crate) order_must_last: bool,
    /// What happens is printed.
    pub(crate) tells: bool,
    /// Clients go on asking.
    pub(crate) clients_act: bool,
}

impl Simulation {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let processes = (0..plan.nodes).map(|place| Process::new(place, plan, random.u64(..1 << 32)));
        let processes = processes.collect();
        let clients = (0..plan.clients).map(|place| Client::new(place, random.u64(..))).collect();
        let mut schedule = Schedule::default();
        for node in 0..plan.nodes {
            schedule.at(BEGIN_US + random.u64(..100_000), Happening::Start { node });
        }
        for client in 0..plan.clients {
            schedule.at(BEGIN_US + random.u64(..200_000), Happening::Client { client });
        }
        schedule.at(BEGIN_US + random.u64(..2_000_000), Happening::Fault);
        Self {
            fabric: Fabric::new(plan, random.fork()),
            nemesis: Nemesis::default(),
            plan: plan.clone(),
            random,
            now_us: BEGIN_US,
            schedule,
            processes,
            clients,
            witness: Witness::default(),
            coverage: Coverage::default(),
            leaders: BTreeMap::new(),
            digests: BTreeMap::new(),
            steps: 0,
            proofs: 0,
            hash: 0,
            is_troubled: true,
            order_must_last: false,
            tells: false,
            clients_act: true,
        }
    }

    /// Lets events happen until so many were delivered to nodes.
    pub(crate) fn run_steps(&mut self) -> Checked {
        while self.steps < self.plan.steps {
            self.next_event()?;
        }
        Ok(())
    }

    /// What all events so far amount to: equal runs have equal hashes.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Says what happens, if anybody wants to know.
    #[allow(clippy::print_stdout)]
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>12} {:>8}  {}", self.now_us, self.steps, what());
        }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    pub(crate) fn next_event(&mut self) -> Checked {
        let (time_us, happening) = self.schedule.next().expect("something always comes");
        self.now_us = self.now_us.max(time_us);
        match happening {
            Happening::Arrive { connection, to, chunk } => self.arrive(connection, to, chunk),
            Happening::Wake { node, life } => {
                let process = &mut self.processes[node];
                if process.life != life || process.wake_at_us != Some(time_us) {
                    return Ok(());
                }
                process.wake_at_us = None;
                self.turn(node)
            }
            Happening::Spare { node, life } => self.make_spare(node, life),
            Happening::Start { node } => self.start(node),
            Happening::Client { client } => {
                let committed = self.witness.committed();
                let pause_us = self.clients[client].act(
                    &self.plan,
                    &mut self.fabric,
                    &mut self.schedule,
                    self.now_us,
                    committed,
                );
                if self.clients_act {
                    self.schedule.at(self.now_us + pause_us, Happening::Client { client });
                }
                Ok(())
            }
            Happening::Fault => self.make_fault(),
            Happening::Heal { number } => {
                self.heal(number);
                Ok(())
            }
        }
    }

    fn arrive(&mut self, key: u32, to: Side, chunk: Chunk) -> Checked {
        let Some(connection) = self.fabric.get(key) else { return Ok(()) };
        match connection.party(to) {
            Party::Client(client) => {
                if !self.fabric.is_open(key, to) {
                    return Ok(());
                }
                let (fabric, schedule) = (&mut self.fabric, &mut self.schedule);
                match chunk {
                    Chunk::Opened => Ok(()),
                    Chunk::Closed => {
                        self.clients[client].closed(fabric, schedule, self.now_us, key);
                        Ok(())
                    }
                    Chunk::Bytes(bytes) => {
                        let witness = &mut self.witness;
                        self.clients[client].received(fabric, schedule, self.now_us, key, &bytes, witness)
                    }
                }
            }
            Party::Node(node) => self.arrive_at_node(node, key, to, chunk),
        }
    }

    fn arrive_at_node(&mut self, place: usize, key: u32, to: Side, chunk: Chunk) -> Checked {
        let process = &mut self.processes[place];
        if process.node.is_none() {
            // A machine that is up says that nobody listens; one that is down says nothing.
            if !matches!(chunk, Chunk::Closed) && self.random.bool() {
                self.fabric.reset(&mut self.schedule, self.now_us, key, to);
            }
            return Ok(());
        }
        let is_opening = matches!(chunk, Chunk::Opened);
        if !is_opening && !self.fabric.is_open(key, to) {
            if matches!(chunk, Chunk::Bytes(_)) {
                self.fabric.reset(&mut self.schedule, self.now_us, key, to);
            }
            return Ok(());
        }
        let now_ms = process.clock.now_ms(self.now_us);
        let mut moment =
            Moment { fabric: &mut self.fabric, schedule: &mut self.schedule, now_us: self.now_us, now_ms };
        match chunk {
            Chunk::Opened => process.sockets.opened(moment.fabric, key),
            Chunk::Closed => process.sockets.closed(&mut moment, key),
            Chunk::Bytes(bytes) => {
                let crc = crc32fast::hash(&bytes);
                process.sockets.received(&mut moment, key, &bytes);
                process.sockets.depart(&mut moment);
                self.mix(u64::from(crc) << 32 | u64::from(key));
            }
        }
        self.steps += 1;
        self.turn_when_free(place)
    }

    fn turn_when_free(&mut self, place: usize) -> Checked {
        let free_at_us = self.processes[place].busy_until_us;
        if free_at_us <= self.now_us {
            return self.turn(place);
        }
        self.wake(place, free_at_us);
        Ok(())
    }

    /// Sees to it that a node has a turn at this time at the latest.
    pub(crate) fn wake(&mut self, place: usize, at_us: u64) {
        let process = &mut self.processes[place];
        let at_us = at_us.max(process.busy_until_us);
        if process.wake_at_us.is_none_or(|planned_us| planned_us > at_us) {
            process.wake_at_us = Some(at_us);
            self.schedule.at(at_us, Happening::Wake { node: place, life: process.life });
        }
    }

    /// One turn of a node, and the checks behind it.
    fn turn(&mut self, place: usize) -> Checked {
        let process = &mut self.processes[place];
        let Some(node) = &mut process.node else { return Ok(()) };
        if process.busy_until_us > self.now_us {
            let at_us = process.busy_until_us;
            self.wake(place, at_us);
            return Ok(());
        }
        self.steps += 1;
        let now_ms = process.clock.now_ms(self.now_us);
        let before = (self.random.u32(..32) == 0).then(|| node.raft().clone());
        if self.plan.faults.contains(FaultKind::Replay) {
            keep_some(&process.sockets.events, &mut process.heard, &mut self.random);
            if self.is_troubled
                && self.random.u32(..32) == 0
                && let Some((from, message)) = self.random.choice(&process.heard).cloned()
            {
                process.sockets.events.push(Event::Peer { from, message });
            }
        }
        let flushes = process.disk.flushes();
        let mut wire = Wire {
            node: NodeId(place as u32 + 1),
            moment: Moment {
                fabric: &mut self.fabric,
                schedule: &mut self.schedule,
                now_us: self.now_us,
                now_ms,
            },
            disk: &process.disk,
            segment_bytes: self.plan.segment_bytes,
            began_us: self.now_us,
            flushes,
            flush_us: process.flush_us,
            log_last: node.raft().last_index(),
            is_rotten: process.is_rotten,
            random: &mut self.random,
            failure: None,
            proofs: 0,
            sockets: &mut process.sockets,
        };
        for (deadline_ms, timer) in wire.sockets.timers.drain(..) {
            node.add_net_timer(deadline_ms, timer);
        }
        node.fire_timers(now_ms);
        for timer in node.take_net_timers() {
            wire.sockets.fire(&mut wire.moment, timer);
        }
        let mut events = std::mem::take(&mut wire.sockets.events);
        let result = node.turn(now_ms, &mut events, &mut wire);
        wire.depart();
        let (failure, proofs) = (wire.failure, wire.proofs);
        for (deadline_ms, timer) in process.sockets.timers.drain(..) {
            node.add_net_timer(deadline_ms, timer);
        }
        // Events that arose while the turn was under way come with the next.
        events.append(&mut process.sockets.events);
        process.sockets.events = events;
        let flushed = process.disk.flushes() - flushes;
        process.busy_until_us = self.now_us + flushed * process.flush_us;
        self.proofs += proofs;
        if let Some(failure) = failure {
            return Err(failure);
        }
        process.has_failed = result.is_err();
        self.note_durable(place, result.is_err());
        self.observe(place, before.as_ref())?;
        match result {
            Err(fault) => self.end_of_process(place, &fault),
            Ok(()) => self.plan_next_turn(place),
        }
    }

    fn plan_next_turn(&mut self, place: usize) -> Checked {
        let process = &mut self.processes[place];
        let node = process.node.as_mut().expect("it had a turn");
        if process.is_stopping && node.is_stopped() {
            self.end(place, false);
            return Ok(());
        }
        if process.spare_request.is_none()
            && let Some(request) = node.wants_spare()
        {
            process.spare_request = Some(request);
            let at_us = self.now_us + self.random.u64(..20_000);
            self.schedule.at(at_us, Happening::Spare { node: place, life: process.life });
        }
        let mut next_us = None;
        if let Some(deadline_ms) = node.next_deadline_ms() {
            next_us = Some(process.clock.when_us(self.now_us, deadline_ms).max(self.now_us + 1));
        }
        if !process.sockets.events.is_empty() {
            next_us = Some(self.now_us + 1);
        }
        if let Some(next_us) = next_us {
            self.wake(place, next_us);
        }
        Ok(())
    }

    /// Keeps up what the disk of a node is known to hold.
    fn note_durable(&mut self, place: usize, has_failed: bool) {
        let process = &mut self.processes[place];
        let Some(raft) = process.node.as_ref().map(Node::raft) else { return };
        let durable = raft.durable_index();
        if has_failed && durable < raft.last_index() {
            return;
        }
        let last_start = |starts: &[(LogIndex, Term)]| (starts.len(), starts.last().copied());
        if durable > process.durable.last {
            process.proven = process.durable.last;
        } else {
            process.proven = process.proven.min(durable);
        }
        let known = &mut process.durable;
        if last_start(&known.starts) != last_start(raft.term_starts()) || durable < known.last {
            *known = LogShape::of(raft).cut(durable);
        } else {
            known.last = durable;
        }
        if !has_failed && process.stored.as_ref() != Some(raft.hard_state()) {
            process.stored = Some(raft.hard_state().clone());
        }
    }

    /// What must hold of a node after each turn.
    fn observe(&mut self, place: usize, before: Option<&fsd::raft::Raft>) -> Checked {
        let process = &mut self.processes[place];
        let node = process.node.as_ref().expect("it had a turn");
        let (raft, id) = (node.raft(), node.raft().identity().node);
        let now = Watermarks {
            term: raft.term(),
            commit: raft.commit_index(),
            applied: node.store().last_applied(),
            cluster_time: node.store().cluster_time(),
            revision: node.store().revision(),
        };
        let was = std::mem::replace(&mut process.watermarks, now);
        if now.term < was.term
            || now.commit < was.commit
            || now.applied < was.applied
            || now.cluster_time < was.cluster_time
            || now.revision < was.revision
        {
            return Err(format!("node {id}: {now:?} after {was:?}"));
        }
        if now.applied > now.commit || now.commit > raft.last_index() {
            return Err(format!("node {id}: {now:?}, last {}", raft.last_index()));
        }
        if let Some(before) = before {
            invariants::check_step(before, raft).map_err(|what| format!("node {id}: {what}"))?;
            invariants::check(raft).map_err(|what| format!("node {id}: {what}"))?;
        }
        if raft.is_leader() {
            let leader = *self.leaders.entry(now.term).or_insert(id);
            if leader != id {
                return Err(format!("term {} has two leaders, {leader} and {id}", now.term));
            }
            let committed = self.witness.committed();
            if now.term != was.term
                && raft.term_at(committed) != self.witness.id_at(committed).map(|e| e.term)
            {
                return Err(format!("leader {id} of term {} lacks committed entry {committed}", now.term));
            }
        }
        if self.tells {
            let role = raft.role();
            let now = (role, now.term, raft.leader_id());
            let text = format!(
                "node {id}: {role:?} term {} leader {:?} last {:?} commit {} durable {}",
                now.1,
                now.2.map(|n| n.0),
                raft.last_id(),
                raft.commit_index(),
                raft.durable_index()
            );
            if process.told != Some(now) {
                process.told = Some(now);
                self.tell(|| text);
            }
        }
        let now = self.processes[place].watermarks;
        if now.commit > was.commit {
            self.observe_commit(place, was.commit)?;
        }
        if now.applied > was.applied {
            self.observe_applied(place)?;
        }
        let state = now.term.0 << 40 ^ now.commit.0 << 20 ^ now.applied.0 ^ (place as u64) << 60;
        self.mix(state ^ self.now_us.rotate_left(17));
        Ok(())
    }

    fn observe_commit(&mut self, place: usize, from: LogIndex) -> Checked {
        let known = self.witness.committed();
        let node = self.processes[place].node.as_ref().expect("it had a turn");
        let raft = node.raft();
        // A node that failed may know of entries that it has not stored.
        let commit = raft.commit_index().min(raft.durable_index());
        let last_known = commit.min(known);
        if raft.term_at(last_known) != self.witness.id_at(last_known).map(|entry| entry.term) {
            return Err(format!("node {}: committed entry {last_known} is of another term", place + 1));
        }
        if last_known > from {
            let sample = LogIndex(self.random.u64(from.0 + 1..=last_known.0));
            if let Ok(entry) = node.log().entry(sample) {
                self.witness.check_again(&entry)?;
            }
        }
        let mut index = known.next();
        while index <= commit {
            // What cannot be read ends the node; somebody else has it.
            let Ok(entry) = node.log().entry(index) else { return Ok(()) };
            self.witness.commit(&entry)?;
            index = index.next();
        }
        if commit > known {
            let term = raft.term_at(commit);
            let holds = |process: &&Process| {
                process.durable.term_at(commit) == term
                    || !process.counts && process.lost_log.term_at(commit) == term
            };
            let holding = self.processes.iter().filter(holds).count();
            if holding <= self.plan.nodes / 2 {
                return Err(format!("entry {commit} is committed and on {holding} disks"));
            }
        }
        Ok(())
    }

    fn observe_applied(&mut self, place: usize) -> Checked {
        let store = self.processes[place].node.as_ref().expect("it had a turn").store();
        let applied = store.last_applied();
        if applied.0 % 8 == 0 || store.len() < 4 {
            let digest = store.digest();
            let other = *self.digests.entry(applied).or_insert(digest);
            if other != digest {
                return Err(format!("node {}: another store as of entry {applied}", place + 1));
            }
        }
        if applied == self.witness.committed() {
            let model = self.witness.files_and_revision();
            if model != (store.len(), store.revision()) {
                let found = (store.len(), store.revision());
                return Err(format!(
                    "as of {applied}: {found:?} files and revision, the model has {model:?}"
                ));
            }
        }
        Ok(())
    }

    fn make_spare(&mut self, place: usize, life: u64) -> Checked {
        let process = &mut self.processes[place];
        if process.life != life {
            return Ok(());
        }
        let Some(request) = process.spare_request.take() else { return Ok(()) };
        let Some(node) = &mut process.node else { return Ok(()) };
        match request.prepare(&process.disk) {
            Ok(spare) => match node.install_spare(spare) {
                Ok(()) => Ok(()),
                Err(fault) => self.end_of_process(place, &fault),
            },
            Err(_) if process.disk.is_off() => {
                self.lose_power(place);
                Ok(())
            }
            Err(error) => {
                node.spare_failed(&error);
                Ok(())
            }
        }
    }

    /// A node ended by itself: there must be a reason for it.
    fn end_of_process(&mut self, place: usize, fault: &Fault) -> Checked {
        let process = &mut self.processes[place];
        if process.disk.is_off() {
            self.lose_power(place);
            return Ok(());
        }
        let is_full = matches!(fault, Fault::Storage(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull);
        let is_expected = process.fails
            || is_full && self.nemesis.is_full(place)
            || process.is_rotten && matches!(fault, Fault::Storage(StorageError::Damage { .. }));
        if !is_expected {
            return Err(format!("node {} ended: {fault}", place + 1));
        }
        // The process ends, the machine lives: what was not flushed is in the page cache, unless the failed
        // flush lost it.
        if std::mem::take(&mut process.fails) && self.random.bool() {
            self.lose_power(place);
        } else {
            self.end(place, false);
        }
        Ok(())
    }

    /// The process is gone; what it stored is in the page cache.
    pub(crate) fn end(&mut self, place: usize, silently: bool) {
        let process = &mut self.processes[place];
        let Some(node) = process.node.take() else { return };
        let raft = node.raft();
        process.last_words = Some((
            LogShape::of(raft),
            raft.hard_state().clone(),
            process.durable.last.min(raft.durable_index()),
        ));
        process.state = State::Down;
        process.disk.fail_at(0, std::io::ErrorKind::Other);
        process.life += 1;
        process.spare_request = None;
        process.is_stopping = false;
        self.fabric.close_all(&mut self.schedule, self.now_us, Party::Node(place), silently);
        self.tell(|| format!("node {} ends", place + 1));
        let away_us =
            *self.random.choice(&[1_000, 50_000, 200_000, 200_000, 1_000_000, 4_000_000]).expect("a choice");
        let at_us = self.now_us + self.random.u64(..away_us);
        self.schedule.at(at_us, Happening::Start { node: place });
    }

    /// The machine loses power, running or not.
    pub(crate) fn lose_power(&mut self, place: usize) {
        self.end(place, true);
        let fate = self.draw_fate();
        let process = &mut self.processes[place];
        process.disk = process.disk.crash(fate);
    }

    /// Starts a node that is down.
    fn start(&mut self, place: usize) -> Checked {
        let process = &mut self.processes[place];
        if process.state != State::Down || self.nemesis.stays_away(place) {
            return Ok(());
        }
        self.steps += 1;
        self.wipe_a_copy_that_nobody_can_tell(place);
        let process = &mut self.processes[place];
        if self.is_troubled
            && self.plan.faults.contains(FaultKind::PowerLossInRecovery)
            && self.random.u32(..4) == 0
        {
            process.disk.power_off_at(process.disk.operations() + self.random.u64(1..20));
            self.coverage.note(FaultKind::PowerLossInRecovery, Phase::Recovery);
        }
        if self.is_troubled && self.plan.faults.contains(FaultKind::FailedCall) && self.random.u32(..8) == 0 {
            let at = process.disk.operations() + self.random.u64(1..20);
            process.disk.fail_at(at, std::io::ErrorKind::Other);
            process.fails = true;
            self.coverage.note(FaultKind::FailedCall, Phase::Recovery);
        }
        let mut draws = self.random.fork();
        let opened =
            storage::open(process.disk.clone(), &process.identity(), self.plan.segment_bytes, &mut || {
                draws.u64(1..)
            });
        match opened {
            Ok(storage) => self.started(place, storage),
            Err(_) if process.disk.is_off() => {
                let again_at_us = self.now_us + self.random.u64(1..1_000_000);
                self.lose_power(place);
                self.schedule.at(again_at_us, Happening::Start { node: place });
                Ok(())
            }
            Err(StorageError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull && self.nemesis.is_full(place) =>
            {
                let again_at_us = self.now_us + 1_000_000;
                self.schedule.at(again_at_us, Happening::Start { node: place });
                Ok(())
            }
            Err(StorageError::Io { .. }) if process.fails => {
                let again_at_us = self.now_us + 1_000_000;
                process.fails = false;
                process.disk.fail_at(0, std::io::ErrorKind::Other);
                self.schedule.at(again_at_us, Happening::Start { node: place });
                Ok(())
            }
            Err(_) if process.is_rotten => {
                process.state = State::Damaged;
                Ok(())
            }
            Err(error) => Err(format!("node {} refuses to start: {error}", place + 1)),
        }
    }

    fn started(&mut self, place: usize, storage: Storage<fsd::simulated_disk::SimulatedDisk>) -> Checked {
        self.tell(|| {
            format!("node {} starts: {:?} {:?}", place + 1, storage.recovered.state, storage.recovered.log)
        });
        self.check_recovered(place, &storage)?;
        let config = node_config(&self.plan, place, &mut self.random);
        let process = &mut self.processes[place];
        let now_ms = process.clock.now_ms(self.now_us);
        let state = storage.recovered.state.clone();
        process.durable = LogShape::of_summary(&storage.recovered.log);
        process.stored = Some(state.clone());
        process.is_rotten = false;
        let mut node = Node::new(config, storage, now_ms);
        process.last_words = None;
        if let Some(request) = node.wants_spare() {
            match request.prepare(&process.disk) {
                Ok(spare) => node.install_spare(spare).map_err(|fault| fault.to_string())?,
                Err(_) => {
                    process.fails = false;
                    process.disk.fail_at(0, std::io::ErrorKind::Other);
                    let again_at_us = self.now_us + 1_000_000;
                    self.schedule.at(again_at_us, Happening::Start { node: place });
                    if process.disk.is_off() {
                        self.lose_power(place);
                    }
                    return Ok(());
                }
            }
        }
        process.disk.power_off_at(u64::MAX);
        process.disk.fail_at(0, std::io::ErrorKind::Other);
        let identity = Identity {
            node: process.id(),
            incarnation: state.incarnation,
            life: state.life,
            cluster_id: state.cluster_id,
        };
        process.sockets = Sockets::new(place, self.plan.nodes, identity, self.random.u64(..));
        process.node = Some(node);
        process.state = State::Up;
        process.watermarks = Watermarks::default();
        process.wake_at_us = None;
        process.busy_until_us = self.now_us;
        process.fails = false;
        let mut moment =
            Moment { fabric: &mut self.fabric, schedule: &mut self.schedule, now_us: self.now_us, now_ms };
        process.sockets.start(&mut moment);
        self.turn(place)
    }

    /// What recovery finds is what the process had: all that was flushed, and of the rest a first part.
    fn check_recovered(
        &self,
        place: usize,
        storage: &Storage<fsd::simulated_disk::SimulatedDisk>,
    ) -> Checked {
        let process = &self.processes[place];
        let found = LogShape::of_summary(&storage.recovered.log);
        let (memory, state, untouched) = match &process.last_words {
            Some((memory, state, untouched)) => (memory, Some(state), *untouched),
            None => (&process.durable, process.stored.as_ref(), process.durable.last),
        };
        let fault = |what: &str| {
            Err(format!(
                "node {}: recovery found {found:?}, {what}; flushed {:?}, in memory {memory:?}",
                place + 1,
                process.durable
            ))
        };
        if found.last < untouched || !found.agrees(&process.durable, untouched) {
            return fault("less than was flushed");
        }
        // A turn that failed may have appended as a leader what it then truncated as a follower.
        let has_truncated = !memory.agrees(&process.durable, process.durable.last);
        let is_known = process.has_failed
            || has_truncated
            || found.agrees(&process.durable, found.last.min(process.durable.last))
            || found.agrees(memory, found.last.min(memory.last));
        if !is_known
            || !process.has_failed && !has_truncated && found.last > process.durable.last.max(memory.last)
        {
            return fault("what was never there");
        }
        let same = |known: Option<&fsd::raft::HardState>| {
            known.is_none_or(|known| {
                let mut known = known.clone();
                known.life = storage.recovered.state.life;
                known == storage.recovered.state
            })
        };
        // A turn that failed may have stored more than one state.
        let is_between = |stored: &fsd::raft::HardState, memory: &fsd::raft::HardState| {
            let terms = stored.term..=memory.term;
            process.has_failed && terms.contains(&storage.recovered.state.term)
        };
        let is_between =
            process.stored.as_ref().zip(state).is_some_and(|(stored, memory)| is_between(stored, memory));
        if !is_between && !same(state) && !same(process.stored.as_ref()) {
            let recovered = &storage.recovered.state;
            return Err(format!(
                "node {}: recovery found {recovered:?}, stored was {:?}",
                place + 1,
                process.stored
            ));
        }
        Ok(())
    }

    /// The node that leads in the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leaders = self.processes.iter().filter(|process| process.is_leader());
        leaders.max_by_key(|process| process.raft().map(fsd::raft::Raft::term)).map(|process| process.place)
    }

    /// What the cluster is about at present.
    pub(crate) fn phase(&self) -> Phase {
        if self.processes.iter().any(|process| process.is_stopping) {
            return Phase::Transfer;
        }
        let Some(leader) = self.leader() else { return Phase::Election };
        if self.processes.iter().any(|process| process.node.is_none()) {
            return Phase::Recovery;
        }
        let last = self.processes[leader].raft().expect("it leads").last_index();
        let lags = |process: &Process| process.raft().is_some_and(|raft| raft.last_index().0 + 8 < last.0);
        if self.processes.iter().any(lags) { Phase::CatchUp } else { Phase::Steady }
    }

    /// Whether a node holds what it once promised again.
    pub(crate) fn refresh_soundness(&mut self) {
        for process in &mut self.processes {
            let Some(raft) = process.node.as_ref().map(Node::raft) else { continue };
            if process.lost != Some(raft.hard_state().incarnation)
                && let Some(index) = self.witness.confirmed_at(process.id(), raft.hard_state().incarnation)
                && process.durable.last >= index
                && raft.commit_index() >= index
            {
                process.counts = true;
            }
        }
    }
}

/// Keeps some of the messages that came: the rare kinds, and a few of the others.
fn keep_some(events: &[Event], heard: &mut Vec<(NodeId, PeerMessage)>, random: &mut fastrand::Rng) {
    for event in events {
        let Event::Peer { from, message } = event else { continue };
        let is_common = matches!(message, PeerMessage::AppendEntries(_) | PeerMessage::AppendEntriesReply(_));
        if random.u32(..if is_common { 16 } else { 2 }) == 0 {
            if heard.len() == HEARD_MAX {
                heard.swap_remove(random.usize(..HEARD_MAX));
            }
            heard.push((*from, message.clone()));
        }
    }
}
