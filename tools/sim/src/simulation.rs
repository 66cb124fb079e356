//! One run: the events of a whole cluster in simulated time, with a check of everything after each of them.

use std::collections::BTreeMap;

use fsd::net::Event;
use fsd_wire::peer::PeerMessage;
use fsd_wire::{LogIndex, NodeId, Term};

use crate::client::Client;
use crate::coverage::Coverage;
use crate::fabric::{Chunk, Fabric, Party, Side};
use crate::late_answers::Asked;
use crate::nemesis::Nemesis;
use crate::occasions::Occasions;
use crate::plan::{FaultKind, Operations, Plan};
use crate::process::Process;
use crate::reborn::Reborn;
use crate::record::Record;
use crate::room::FullDisks;
use crate::schedule::{Happening, Schedule};
use crate::script::Script;
use crate::sockets::Moment;
use crate::wire::Wire;
use crate::witness::Witness;

/// What was found wrong, in words.
pub(crate) type Checked = Result<(), String>;

/// The first moment of simulated time.
const BEGIN_US: u64 = 1_000_000;
/// So many events make a turn that may store many entries,
const BATCH_EVENTS: usize = 4;
/// and in the midst of so many operations of its disk.
const BATCH_OPERATIONS: std::ops::RangeInclusive<u64> = 4..=24;
/// Old messages that are kept for each node.
const HEARD_MAX: usize = 32;

/// A whole cluster.
pub(crate) struct Simulation {
    pub(crate) plan: Plan,
    /// The plan of clients that only read.
    reading: Plan,
    pub(crate) random: fastrand::Rng,
    pub(crate) now_us: u64,
    pub(crate) schedule: Schedule,
    pub(crate) fabric: Fabric,
    pub(crate) processes: Vec<Process>,
    pub(crate) clients: Vec<Client>,
    pub(crate) witness: Witness,
    pub(crate) nemesis: Nemesis,
    pub(crate) occasions: Occasions,
    pub(crate) full_disks: FullDisks,
    pub(crate) script: Option<Script>,
    /// Scripts and their acts so far.
    pub(crate) scripts: u64,
    pub(crate) reborn: Option<Reborn>,
    /// The acts of all of these so far.
    pub(crate) acts: u64,
    /// The next answer to a change that is passed on is to be lost.
    pub(crate) loses_next_answer: bool,
    /// Times that late answers came in this event.
    pub(crate) late_answers: u64,
    pub(crate) coverage: Coverage,
    /// Who led in each term.
    pub(crate) leaders: BTreeMap<Term, NodeId>,
    /// Digests of stores, by the entry that they had applied.
    pub(crate) digests: BTreeMap<LogIndex, u32>,
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
        let clients =
            (0..plan.clients).map(|place| Client::new(place, plan.kind_of(place), random.u64(..))).collect();
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
            occasions: Occasions::new(plan.seed),
            full_disks: FullDisks::new(plan.seed),
            script: None,
            scripts: 0,
            reborn: None,
            acts: 0,
            loses_next_answer: false,
            late_answers: 0,
            plan: plan.clone(),
            reading: Plan {
                operations: Operations { write: 0, cas: 0, delete: 0, read: 1, stat: 0, list: 0, session: 0 },
                ..plan.clone()
            },
            random,
            now_us: BEGIN_US,
            schedule,
            processes,
            clients,
            witness: Witness::new(Record::of_seed(plan.seed)),
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
        self.begin_with_occasion();
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

    pub(crate) fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    pub(crate) fn next_event(&mut self) -> Checked {
        let (time_us, happening) = self.schedule.next().expect("something always comes");
        self.now_us = self.now_us.max(time_us);
        self.happen(time_us, happening)?;
        self.note_what_was_done();
        self.take_occasion()
    }

    fn happen(&mut self, time_us: u64, happening: Happening) -> Checked {
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
            Happening::Job { node, life } => self.do_job(node, life),
            Happening::Start { node } => self.start(node),
            Happening::Client { client } => {
                let plan = if self.nemesis.only_reads(client) { &self.reading } else { &self.plan };
                let pause_us = self.clients[client].act(
                    plan,
                    &mut self.fabric,
                    &mut self.schedule,
                    self.now_us,
                    &mut self.witness,
                )?;
                if self.clients_act {
                    self.schedule.at(self.now_us + pause_us, Happening::Client { client });
                }
                Ok(())
            }
            Happening::Fault => self.make_fault(),
            Happening::Act { number } => {
                self.play_act(number);
                Ok(())
            }
            Happening::Rebirth { number } => {
                self.play_rebirth(number);
                Ok(())
            }
            Happening::LoseAnswer { node } => {
                self.lose_answer(node);
                Ok(())
            }
            Happening::Stop { node, life } => {
                self.stop_in_life(node, life);
                Ok(())
            }
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
    pub(crate) fn turn(&mut self, place: usize) -> Checked {
        let process = &mut self.processes[place];
        if process.node.is_none() {
            return Ok(());
        }
        if process.busy_until_us > self.now_us {
            let at_us = process.busy_until_us;
            self.wake(place, at_us);
            return Ok(());
        }
        self.steps += 1;
        let before_turn = self.before_turn(place);
        let process = &mut self.processes[place];
        let Some(node) = &mut process.node else { return Ok(()) };
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
        if self.plan.faults.contains(FaultKind::LateAnswer) {
            process.late_answers.keep(process.life, &process.sockets.events, &mut self.random);
        }
        if process.fails_in_batch && self.is_troubled && process.sockets.events.len() >= BATCH_EVENTS {
            process.fails_in_batch = false;
            process.disk.power_off_at(process.disk.operations() + self.random.u64(BATCH_OPERATIONS));
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
            is_rotten: !process.rotten.is_empty(),
            random: &mut self.random,
            asked: None,
            acknowledged: process.acknowledged,
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
        let (failure, proofs, asked) = (wire.failure, wire.proofs, wire.asked);
        process.acknowledged = wire.acknowledged;
        for (deadline_ms, timer) in process.sockets.timers.drain(..) {
            node.add_net_timer(deadline_ms, timer);
        }
        // Events that arose while the turn was under way come with the next.
        events.append(&mut process.sockets.events);
        process.sockets.events = events;
        if self.is_troubled
            && self.plan.faults.contains(FaultKind::LateAnswer)
            && let Some(asked) = asked
            && self.random.u32(..if matches!(asked, Asked::Round(..)) { 8 } else { 4 }) == 0
        {
            process.sockets.events.extend(process.late_answers.like(process.life, asked));
            self.late_answers += 1;
        }
        let flushed = process.disk.flushes() - flushes;
        process.busy_until_us = self.now_us + flushed * process.flush_us;
        self.proofs += proofs;
        if let Some(failure) = failure {
            return Err(failure);
        }
        process.has_failed = result.is_err();
        self.pause_reader(place, asked);
        self.note_durable(place, result.is_err());
        self.observe(place, before.as_ref())?;
        self.check_reserve(place, before_turn.as_ref())?;
        self.follow_script(place);
        self.follow_reborn(place);
        self.follow_held(place);
        if let Some(Asked::Change(_)) = asked {
            self.follow_change(place);
        }
        self.stop_before_expiry(place)?;
        match result {
            Err(fault) => self.end_of_process(place, &fault),
            Ok(()) if flushed > 0 && self.relapses(place) => {
                self.lose_power(place);
                Ok(())
            }
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
        loop {
            match node.next_job() {
                Ok(None) => break,
                Ok(Some(job)) => process.jobs.push_back(job),
                Err(fault) => return self.end_of_process(place, &fault),
            }
            let at_us = self.now_us + self.random.u64(..20_000);
            self.schedule.at(at_us, Happening::Job { node: place, life: process.life });
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
}

/// Keeps some of the messages that came: the rare kinds, and a few of the others.
fn keep_some(events: &[Event], heard: &mut Vec<(NodeId, PeerMessage)>, random: &mut fastrand::Rng) {
    for event in events {
        let Event::Peer { from, message } = event else { continue };
        // A change that is passed on knows how many of its attempts were answered: no connection answers one twice.
        if matches!(message, PeerMessage::Forward(_) | PeerMessage::ForwardReply(_)) {
            continue;
        }
        let is_common = matches!(message, PeerMessage::AppendEntries(_) | PeerMessage::AppendEntriesReply(_));
        if random.u32(..if is_common { 16 } else { 2 }) == 0 {
            if heard.len() == HEARD_MAX {
                heard.swap_remove(random.usize(..HEARD_MAX));
            }
            heard.push((*from, message.clone()));
        }
    }
}
