//! Faults that are made at a moment: to links, clocks, processes, disks and directories. What is lost for good stays
//! within the promise: at most a minority of the nodes at a time lacks what it once acknowledged.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use fsd::mapping::Disk;
use fsd::simulated_disk::{SECTOR_BYTES, Unflushed};
use fsd::storage::segment::{RECORDS_AT, file_name};

use crate::clock::TRUE_RATE;
use crate::coverage::Phase;
use crate::plan::FaultKind;
use crate::process::{LogShape, OldCopy, State, small_disk};
use crate::room::capacity;
use crate::schedule::Happening;
use crate::simulation::{Checked, Simulation};

/// The file of the hard states.
const HARD_STATE_NAME: &str = "hard-state";

fn is_checkpoint(name: &str) -> bool {
    name.starts_with("checkpoint-") && !name.ends_with(".tmp")
}

/// A fault that ends after a while.
#[derive(Debug)]
enum Lasting {
    Cut(Vec<(usize, usize)>),
    /// A leader is cut off; when it is heard again, the next one is, so many times more.
    Isolated(usize, u32),
    ClientCut(usize),
    /// These clients only read.
    Readers(Vec<usize>),
    SlowLink(usize, usize),
    Drift(usize),
    SlowDisk(usize),
    FullDisk(usize),
}

/// The faults that last.
#[derive(Debug, Default)]
pub(crate) struct Nemesis {
    lasting: BTreeMap<u64, Lasting>,
    made: u64,
    away: BTreeSet<usize>,
}

/// The kinds that are made here; the others happen to what is sent, or to a disk that loses power.
const MADE: [FaultKind; 25] = [
    FaultKind::Replay,
    FaultKind::Partition,
    FaultKind::OneWay,
    FaultKind::SlowLink,
    FaultKind::ClientCut,
    FaultKind::Drift,
    FaultKind::Pause,
    FaultKind::SlowDisk,
    FaultKind::PowerLoss,
    FaultKind::PowerLossOfAll,
    FaultKind::Kill,
    FaultKind::PowerLossInCall,
    FaultKind::FailedCall,
    FaultKind::FullDisk,
    FaultKind::WriteBack,
    FaultKind::Rot,
    FaultKind::Misdirect,
    FaultKind::Wipe,
    FaultKind::OldCopy,
    FaultKind::Stop,
    FaultKind::Script,
    FaultKind::Deposed,
    FaultKind::Relapse,
    FaultKind::Unanswered,
    FaultKind::Reborn,
];

impl Nemesis {
    /// Whether the disk of a node is full.
    pub(crate) fn is_full(&self, place: usize) -> bool {
        self.lasting.values().any(|fault| matches!(fault, Lasting::FullDisk(of) if *of == place))
    }

    /// Whether a node is not to be started.
    pub(crate) fn stays_away(&self, place: usize) -> bool {
        self.away.contains(&place)
    }

    /// Whether a client is to do nothing but read.
    pub(crate) fn only_reads(&self, client: usize) -> bool {
        self.lasting.values().any(|fault| matches!(fault, Lasting::Readers(who) if who.contains(&client)))
    }

    pub(crate) fn keep_away(&mut self, place: usize) {
        self.away.insert(place);
    }
}

impl Simulation {
    /// Makes a fault, if any kind is to be made, and plans the next one.
    pub(crate) fn make_fault(&mut self) -> Checked {
        if !self.is_troubled {
            return Ok(());
        }
        let at_us = self.now_us + self.random.u64(1..=2 * self.plan.fault_every_us);
        self.schedule.at(at_us, Happening::Fault);
        self.refresh_soundness();
        self.repair_damaged();
        let kinds: Vec<FaultKind> =
            MADE.into_iter().filter(|kind| self.plan.faults.contains(*kind)).collect();
        let Some(kind) = self.random.choice(&kinds).copied() else { return Ok(()) };
        // All at once is rare, or nothing else would ever happen.
        if kind == FaultKind::PowerLossOfAll && self.random.u32(..8) != 0 {
            return Ok(());
        }
        let place = match self.leader() {
            Some(leader) if self.random.u32(..5) < 2 => leader,
            _ => self.random.usize(..self.plan.nodes),
        };
        let phase = self.phase();
        if self.make(kind, place)? {
            // What happens to a disk some operations later is noted then.
            if !matches!(kind, FaultKind::PowerLossInCall | FaultKind::FailedCall) {
                self.coverage.note(kind, phase);
            }
            self.tell(|| format!("fault: {kind} at node {}, {phase:?}", place + 1));
        }
        self.await_occasion()
    }

    /// Notes what happened in this event to what was sent.
    pub(crate) fn note_what_was_done(&mut self) {
        if self.fabric.done.is_empty() && self.late_answers == 0 {
            return;
        }
        let phase = self.phase();
        for _ in 0..std::mem::take(&mut self.late_answers) {
            self.coverage.note(FaultKind::LateAnswer, phase);
        }
        for kind in std::mem::take(&mut self.fabric.done) {
            self.coverage.note(kind, phase);
        }
    }

    /// Makes a fault of this kind; whether it could be made.
    pub(crate) fn make(&mut self, kind: FaultKind, place: usize) -> Result<bool, String> {
        let is_up = self.processes[place].node.is_some();
        match kind {
            FaultKind::Replay => return self.replay(place),
            FaultKind::Partition => self.partition(),
            FaultKind::OneWay => return Ok(self.cut_one_way(place)),
            FaultKind::SlowLink => return Ok(self.slow_link(place)),
            FaultKind::ClientCut => {
                self.fabric.cut_clients(place, true);
                self.last(Lasting::ClientCut(place));
            }
            FaultKind::Drift => {
                let rate = *self.random.choice(&[500, 900, 999, 1001, 1100, 2000]).expect("a choice");
                self.processes[place].clock.set_rate(self.now_us, rate);
                self.last(Lasting::Drift(place));
            }
            FaultKind::Pause if is_up => {
                let pause_us = 1000 * *self.random.choice(&[10, 100, 1000, 10_000]).expect("a choice");
                self.processes[place].busy_until_us = self.now_us + self.random.u64(..pause_us);
            }
            FaultKind::SlowDisk => {
                self.processes[place].flush_us = 1000 * *self.random.choice(&[5, 50, 500]).expect("a choice");
                self.last(Lasting::SlowDisk(place));
            }
            FaultKind::PowerLoss if is_up => self.lose_power(place),
            FaultKind::PowerLossOfAll => {
                (0..self.plan.nodes).for_each(|place| self.lose_power(place));
            }
            FaultKind::Kill if is_up => self.end(place, false),
            FaultKind::PowerLossInCall if is_up => {
                let disk = &self.processes[place].disk;
                disk.power_off_at(disk.operations() + self.random.u64(1..30));
            }
            FaultKind::FailedCall if is_up => {
                let process = &mut self.processes[place];
                process
                    .disk
                    .fail_at(process.disk.operations() + self.random.u64(1..20), std::io::ErrorKind::Other);
                process.fails = true;
            }
            FaultKind::FullDisk => {
                self.fill_disk(place);
                self.last(Lasting::FullDisk(place));
            }
            FaultKind::WriteBack => {
                let share = self.random.f64();
                self.processes[place].disk.write_back(share, &mut self.random);
            }
            FaultKind::Script => return Ok(self.begin_script()),
            FaultKind::Deposed => return Ok(self.depose()),
            FaultKind::Relapse if is_up => self.fail_in_batch(place),
            FaultKind::Unanswered => return Ok(self.await_change_passed_on()),
            FaultKind::Reborn => return Ok(self.begin_reborn()),
            FaultKind::Rot | FaultKind::Misdirect => return Ok(self.damage(kind, place)),
            FaultKind::Wipe => return Ok(self.wipe(place)),
            FaultKind::OldCopy => return Ok(self.copy_or_put_back(place)),
            FaultKind::Stop if is_up => return self.stop(place),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Lets a fault last for a while.
    fn last(&mut self, fault: Lasting) {
        let lasts_us = *self.random.choice(&[50_000, 500_000, 5_000_000]).expect("a choice");
        self.last_for(fault, lasts_us);
    }

    fn last_for(&mut self, fault: Lasting, lasts_us_max: u64) {
        self.nemesis.made += 1;
        let number = self.nemesis.made;
        self.nemesis.lasting.insert(number, fault);
        let at_us = self.now_us + self.random.u64(1..lasts_us_max);
        self.schedule.at(at_us, Happening::Heal { number });
    }

    /// Cuts these directions for a while.
    pub(crate) fn cut_for(&mut self, links: Vec<(usize, usize)>, lasts_us_max: u64) {
        links.iter().for_each(|(from, to)| self.fabric.cut(*from, *to, true));
        self.last_for(Lasting::Cut(links), lasts_us_max);
    }

    /// Cuts a node off from all others, or lets it be heard again.
    pub(crate) fn isolate(&mut self, place: usize, is_cut: bool) {
        for other in (0..self.plan.nodes).filter(|other| *other != place) {
            self.fabric.cut(place, other, is_cut);
            self.fabric.cut(other, place, is_cut);
        }
    }

    /// A fault ends.
    pub(crate) fn heal(&mut self, number: u64) {
        let Some(fault) = self.nemesis.lasting.remove(&number) else { return };
        match fault {
            Lasting::Cut(links) => {
                links.into_iter().for_each(|(from, to)| self.fabric.cut(from, to, false));
            }
            Lasting::Isolated(place, more) => {
                self.isolate(place, false);
                if let Some(leader) = self.leader().filter(|_| more > 0 && self.is_troubled) {
                    self.isolate(leader, true);
                    self.last_for(Lasting::Isolated(leader, more - 1), self.plan.election_timeout_ms * 4000);
                }
            }
            Lasting::ClientCut(place) => self.fabric.cut_clients(place, false),
            Lasting::Readers(_) => {}
            Lasting::SlowLink(from, to) => self.fabric.set_us_per_kib(from, to, 0),
            Lasting::Drift(place) => {
                self.processes[place].clock.set_rate(self.now_us, TRUE_RATE);
                self.wake(place, self.now_us + 1);
            }
            Lasting::SlowDisk(place) => self.processes[place].flush_us = self.plan.flush_us_max,
            Lasting::FullDisk(place) => {
                if !self.nemesis.is_full(place) {
                    self.empty_disk(place);
                }
            }
        }
        self.fabric.release(&mut self.schedule, self.now_us);
    }

    /// All faults end.
    pub(crate) fn heal_all(&mut self) {
        for number in self.nemesis.lasting.keys().copied().collect::<Vec<_>>() {
            self.heal(number);
        }
        self.end_script();
        self.end_reborn();
        self.fabric.heal_all(&mut self.schedule, self.now_us);
        for place in 0..self.plan.nodes {
            let process = &mut self.processes[place];
            process.disk.power_off_at(u64::MAX);
            process.disk.fail_at(0, std::io::ErrorKind::Other);
            process.flush_us = process.flush_us.min(1000);
            process.busy_until_us = process.busy_until_us.min(self.now_us);
            if process.node.is_some() {
                self.wake(place, self.now_us + 1);
            }
        }
    }

    /// A message that came once comes again.
    fn replay(&mut self, place: usize) -> Result<bool, String> {
        let process = &mut self.processes[place];
        if process.node.is_none() || process.heard.is_empty() {
            return Ok(false);
        }
        for _ in 0..self.random.usize(1..4) {
            let (from, message) = self.random.choice(&process.heard).cloned().expect("it heard some");
            process.sockets.events.push(fsd::net::Event::Peer { from, message });
        }
        self.wake(place, self.now_us);
        Ok(true)
    }

    fn partition(&mut self) {
        let mut side: Vec<bool> = (0..self.plan.nodes).map(|_| self.random.bool()).collect();
        if let Some(leader) = self.leader().filter(|_| self.random.bool()) {
            // Clients still reach the leader of before.
            if self.random.bool() {
                self.isolate(leader, true);
                let more = self.random.u32(..6);
                self.last_for(Lasting::Isolated(leader, more), self.plan.election_timeout_ms * 4000);
                return;
            }
            side = (0..self.plan.nodes).map(|place| place == leader).collect();
            if self.random.bool() && self.plan.faults.contains(FaultKind::Drift) {
                // It is the last to know.
                self.processes[leader].clock.set_rate(self.now_us, 200);
                self.last(Lasting::Drift(leader));
            }
        }
        let pairs = (0..self.plan.nodes).flat_map(|a| (0..self.plan.nodes).map(move |b| (a, b)));
        let links: Vec<(usize, usize)> = pairs.filter(|(a, b)| side[*a] != side[*b]).collect();
        links.iter().for_each(|(from, to)| self.fabric.cut(*from, *to, true));
        self.last(Lasting::Cut(links));
    }

    /// Cuts the leader off together with some of its clients, who can reach nobody else, while the others cannot
    /// reach it any more; by its clock it has long to live. Its clients only read: a change would keep them waiting.
    fn depose(&mut self) -> bool {
        let Some(leader) = self.leader().filter(|_| self.plan.nodes > 2) else { return false };
        let nodes = self.plan.nodes;
        let (mut links, mut readers) = (Vec::new(), Vec::new());
        for other in (0..nodes).filter(|other| *other != leader) {
            links.extend([(leader, other), (other, leader)]);
        }
        for client in 0..self.plan.clients {
            let stays = self.fabric.is_connected(client, leader) && self.random.u32(..4) != 0;
            for node in (0..nodes).filter(|node| (*node == leader) != stays) {
                links.extend([(nodes + client, node), (node, nodes + client)]);
            }
            if stays {
                readers.push(client);
            } else {
                self.clients[client].begin_anew(&mut self.fabric, &mut self.schedule, self.now_us);
            }
        }
        links.iter().for_each(|(from, to)| self.fabric.cut(*from, *to, true));
        // So slow that the others elect another before its next heartbeat is due, or before it misses answers.
        let rate = if self.random.bool() { 20 } else { 200 };
        self.processes[leader].clock.set_rate(self.now_us, rate);
        self.last_for(Lasting::Drift(leader), self.plan.election_timeout_ms * 10_000);
        self.last_for(Lasting::Cut(links), self.plan.election_timeout_ms * 10_000);
        self.last_for(Lasting::Readers(readers), self.plan.election_timeout_ms * 10_000);
        true
    }

    fn cut_one_way(&mut self, from: usize) -> bool {
        let to = self.random.usize(..self.plan.nodes);
        if from == to {
            return false;
        }
        self.fabric.cut(from, to, true);
        self.last(Lasting::Cut(vec![(from, to)]));
        true
    }

    fn slow_link(&mut self, from: usize) -> bool {
        let to = self.random.usize(..self.plan.nodes);
        if from == to {
            return false;
        }
        let us_per_kib = *self.random.choice(&[1_000, 20_000, 200_000]).expect("a choice");
        self.fabric.set_us_per_kib(from, to, us_per_kib);
        self.last(Lasting::SlowLink(from, to));
        true
    }

    pub(crate) fn stop(&mut self, place: usize) -> Result<bool, String> {
        let process = &mut self.processes[place];
        let Some(node) = &mut process.node else { return Ok(false) };
        node.stop(process.clock.now_ms(self.now_us));
        process.is_stopping = true;
        self.wake(place, self.now_us);
        Ok(true)
    }

    /// Whether the promise holds although this node loses what it acknowledged: a majority keeps it, and knows
    /// whom it has met.
    pub(crate) fn may_lose(&self, place: usize) -> bool {
        let unsound =
            self.processes.iter().filter(|process| process.place != place && process.is_unsound()).count();
        let all_have_met = self.processes.iter().filter(|process| process.place != place).all(|process| {
            process.stored.as_ref().is_some_and(|stored| stored.met.len() + 1 == self.plan.nodes)
        });
        unsound < self.plan.minority() && all_have_met && self.witness.committed().0 > 0
    }

    /// Deletes a data directory.
    pub(crate) fn wipe(&mut self, place: usize) -> bool {
        if !self.may_lose(place) {
            return false;
        }
        self.lose_power(place);
        let process = &mut self.processes[place];
        process.lost = process.lost.max(process.stored.as_ref().map(|stored| stored.incarnation));
        process.disk = small_disk(&self.plan);
        process.old_copy = None;
        process.forget(LogShape::default(), None);
        if process.state == State::Damaged {
            process.state = State::Down;
            self.schedule.at(self.now_us + 1000, Happening::Start { node: place });
        }
        true
    }

    /// Nodes that refused to start lose their directories, as far as the promise allows.
    pub(crate) fn repair_damaged(&mut self) {
        for place in 0..self.plan.nodes {
            if self.processes[place].state == State::Damaged {
                self.wipe(place);
            }
        }
    }

    /// Puts a copy of a directory aside, or puts one back that was made in an earlier life.
    fn copy_or_put_back(&mut self, place: usize) -> bool {
        let process = &self.processes[place];
        let Some(copy) = &process.old_copy else {
            let Some(state) = process.stored.clone().filter(|_| process.node.is_some()) else { return false };
            if process.is_unsound() {
                return false;
            }
            let (disk, shape) = (process.disk.crash(Unflushed::Lost), process.durable.clone());
            self.processes[place].old_copy = Some(OldCopy { disk, shape, state });
            // Nothing has happened to it yet.
            return false;
        };
        if !self.is_known_as_old(place, copy) || !self.may_lose(place) {
            return false;
        }
        self.lose_power(place);
        let process = &mut self.processes[place];
        let OldCopy { disk, shape, state } = process.old_copy.take().expect("it was just seen");
        disk.set_capacity(capacity(&self.plan));
        process.disk = disk;
        process.lost = Some(state.incarnation);
        process.forget(shape, Some(state));
        true
    }

    /// Whether a directory can be put back from an old copy.
    pub(crate) fn may_put_back(&self, place: usize) -> bool {
        let copy = self.processes[place].old_copy.as_ref();
        copy.is_some_and(|copy| self.is_known_as_old(place, copy)) && self.may_lose(place)
    }

    /// Only peers that have met a later life can tell a copy from a restart.
    fn is_known_as_old(&self, place: usize, copy: &OldCopy) -> bool {
        let (id, incarnation, life) = (self.processes[place].id(), copy.state.incarnation, copy.state.life);
        self.processes.iter().filter(|other| other.place != place).all(|other| {
            let met = other.stored.as_ref().and_then(|stored| stored.met.get(&id));
            met.is_some_and(|(met, later)| *met == incarnation && later.count() > life.count())
        })
    }

    /// A directory from an old copy that was started, without reaching anybody, as often as its node was since the
    /// copy, looks like a restart to the others (`raft::electorate` says so): that is outside the promise.
    pub(crate) fn wipe_a_copy_that_nobody_can_tell(&mut self, place: usize) {
        let process = &self.processes[place];
        let (Some(lost), Some(stored)) = (process.lost, &process.stored) else { return };
        if lost != stored.incarnation {
            return;
        }
        let next = stored.life.count() + 1;
        let is_told = self.processes.iter().filter(|other| other.place != place).all(|other| {
            let met = other.stored.as_ref().and_then(|stored| stored.met.get(&process.id()));
            met.is_some_and(|(met, known)| *met != lost || known.count() >= next)
        });
        if !is_told {
            let process = &mut self.processes[place];
            process.disk = small_disk(&self.plan);
            process.forget(LogShape::default(), None);
        }
    }

    /// Lets a byte rot that recovery can find, or a write go astray.
    fn damage(&mut self, kind: FaultKind, place: usize) -> bool {
        if !self.may_lose(place) {
            return false;
        }
        let Some((name, end)) = self.draw_flushed(place) else { return false };
        if kind == FaultKind::Rot {
            let mask = 1 << self.random.u32(..8);
            self.processes[place].disk.rot(&name, self.random.usize(..end), mask);
            self.processes[place].rotten.insert(name);
        } else {
            let Some((other, other_end)) = self.draw_flushed(place) else { return false };
            let sector = |random: &mut fastrand::Rng, end| random.usize(..end) / SECTOR_BYTES * SECTOR_BYTES;
            let from = (&*name, sector(&mut self.random, end));
            let to = (&*other, sector(&mut self.random, other_end));
            // Two hard states must not be hit at once: nobody writes both without a flush between.
            let is_whole = from.1 + SECTOR_BYTES <= end && to.1 + SECTOR_BYTES <= other_end;
            if name == HARD_STATE_NAME || from == to || !is_whole {
                return false;
            }
            let kept_bytes = self.random.usize(..SECTOR_BYTES);
            self.processes[place].disk.misdirect(from, to, kept_bytes);
            self.processes[place].rotten.extend([name, other]);
        }
        true
    }

    /// A file, and how far it holds what is proven to have been flushed: a sealed segment, the log's last one, or the
    /// hard states.
    fn draw_flushed(&mut self, place: usize) -> Option<(String, usize)> {
        let process = &self.processes[place];
        let node = process.node.as_ref()?;
        let names = process.disk.list().unwrap_or_default();
        let is_whole = |name: &&String| name.ends_with(".fsd") || is_checkpoint(name);
        let segments: Vec<&String> = names.iter().filter(is_whole).collect();
        let name = if self.random.u32(..4) == 0 {
            names.iter().find(|name| *name == HARD_STATE_NAME)?
        } else {
            *self.random.choice(&segments)?
        };
        let len = process.disk.read(name).map_or(0, |bytes| bytes.len());
        if name == HARD_STATE_NAME || is_checkpoint(name) {
            return Some((name.clone(), len));
        }
        let inside = node.log().first_index()..node.log().last_index();
        if !inside.contains(&process.proven) {
            return None;
        }
        let proven = node.log().position(process.proven.next());
        let segment = file_name(proven.segment());
        match name.cmp(&segment) {
            Ordering::Less => Some((name.clone(), len)),
            // Before its first record is proven, nothing in a segment is.
            Ordering::Equal if proven.offset() == RECORDS_AT => None,
            Ordering::Equal => Some((name.clone(), proven.offset() as usize)),
            Ordering::Greater => None,
        }
    }

    /// What a power failure in this phase leaves of what a node did not flush.
    pub(crate) fn draw_fate(&mut self, place: usize, phase: Phase) -> Unflushed {
        let garbled = self.is_troubled && self.plan.faults.contains(FaultKind::TornGarbage);
        match self.random.u32(..4) {
            0 => Unflushed::Lost,
            1 => Unflushed::Kept,
            _ if garbled => {
                if self.processes[place].disk.unflushed_sectors() > 0 {
                    self.coverage.note(FaultKind::TornGarbage, phase);
                }
                Unflushed::Garbled(self.random.u64(..))
            }
            _ => Unflushed::Drawn(self.random.u64(..)),
        }
    }
}
