//! Random schedules: whatever is lost, repeated, late, cut off, crashed or wiped, what is committed stays;
//! and when everything works again, the cluster does, too.
//!
//! A schedule is a row of phases, each with links, nodes and rates of its own. Which kinds of faults there
//! are at all is drawn once for a schedule: some bugs only show where other faults do not hide them.

mod lost_disks;

use std::collections::BTreeSet;

use fsd_wire::NodeId;
use fsd_wire::peer::PeerMessage;

use super::cluster::{Cluster, Counts, CrashPoint, ELECTION_MS, Envelope};
use super::memory_log::MemoryLog;
use crate::raft::{HardState, Input, Timer};

/// What goes wrong in a schedule, and how often in each step. What is never to happen has rate 0.
#[derive(Debug)]
struct Faults {
    lose: f64,
    repeat: f64,
    reorder: f64,
    crash: f64,
    disconnect: f64,
    transfer: f64,
    /// One node's clock runs ahead.
    clock: f64,
    /// A node stands for election, although it need not yet.
    usurp: f64,
    /// A node forgets a part of its log, or all that is committed.
    compact: f64,
    /// A node's disk has other room, or a leader hears so.
    room: f64,
    /// These are drawn for each phase.
    cut: f64,
    one_way: f64,
    down: f64,
    pause: f64,
    wipe: f64,
    copy: f64,
}

/// How often what happens anyway does, in one phase.
struct Pace {
    deliver: u32,
    time: u32,
    propose: u32,
    read: u32,
    /// The longest time that passes at once.
    time_ms: u64,
}

struct Schedule {
    cluster: Cluster,
    random: fastrand::Rng,
    faults: Faults,
    pace: Pace,
    /// Nodes that stay down in this phase.
    down: BTreeSet<NodeId>,
    /// Nodes that do nothing in this phase.
    paused: BTreeSet<NodeId>,
    /// Copies of data directories, to be restored by mistake.
    copies: Vec<(NodeId, HardState, MemoryLog)>,
    rooms: fastrand::Rng,
    reads: u64,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.choice([1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 5, 5]).unwrap();
        let mut cluster = Cluster::stopped(count, random.u64(..));
        cluster.late_messages = random.bool();
        cluster.batch = random.choice([1, 1, 2, 3, 8]).unwrap();
        cluster.slow_installs = random.bool();
        // From a generator of its own: the other draws of all schedules stay as they are.
        let mut rooms = fastrand::Rng::with_seed(seed.rotate_left(32));
        let usurp = random.choice([0.0, 0.02, 0.04, 0.08]).unwrap();
        let mut rate = |highest: f64| if random.bool() { random.f64() * highest } else { 0.0 };
        let faults = Faults {
            lose: rate(0.3),
            repeat: rate(0.3),
            reorder: rate(0.8),
            crash: rate(0.03),
            disconnect: rate(0.03),
            transfer: rate(0.02),
            clock: rate(0.05),
            usurp,
            compact: rate(0.1),
            room: if rooms.bool() { rooms.f64() * 0.1 } else { 0.0 },
            cut: rate(1.0),
            one_way: rate(0.6),
            down: rate(0.8),
            pause: rate(0.6),
            wipe: rate(1.0),
            copy: rate(0.6),
        };
        let pace = Pace { deliver: 70, time: 10, propose: 10, read: 4, time_ms: 60 };
        let (down, paused) = (BTreeSet::new(), BTreeSet::new());
        Self { cluster, random, faults, pace, down, paused, copies: Vec::new(), rooms, reads: 0 }
    }

    fn run(&mut self, steps: usize) {
        // In some clusters a member comes late, and is not in the genesis entry.
        let late = if self.random.u32(..3) == 0 { self.some_nodes(self.minority()) } else { Vec::new() };
        for id in self.cluster.ids() {
            if late.contains(&id) {
                self.down.insert(id);
            } else {
                self.cluster.start(id);
            }
        }
        self.cluster.connect_all();
        let mut left = self.random.usize(20..120);
        for _ in 0..steps {
            if left == 0 {
                left = self.random.usize(10..120);
                self.begin_phase();
            }
            left -= 1;
            self.step();
        }
    }

    fn recover(&mut self) {
        self.paused.clear();
        self.cluster.assert_recovers();
    }

    fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.random.f64() < rate
    }

    fn minority(&self) -> usize {
        (self.cluster.nodes.len() - 1) / 2
    }

    /// At most `count` nodes, and often fewer.
    fn some_nodes(&mut self, count: usize) -> Vec<NodeId> {
        let mut ids = self.cluster.ids();
        self.random.shuffle(&mut ids);
        ids.truncate(self.random.usize(..=count));
        ids
    }

    fn any(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        self.random.choice(ids).unwrap()
    }

    /// A node that believes to lead, if there is one: clients mostly find it.
    fn any_leader(&mut self) -> NodeId {
        let leads = |id: &NodeId| self.cluster.is_up(*id) && self.cluster.raft(id.0).is_leader();
        let leaders: Vec<NodeId> = self.cluster.ids().into_iter().filter(leads).collect();
        if self.random.u32(..8) == 0 { self.any() } else { self.random.choice(leaders).unwrap_or(NodeId(1)) }
    }

    fn begin_phase(&mut self) {
        let (slow, fast) = (self.random.u32(1..6), self.random.u32(6..25));
        self.pace = Pace {
            deliver: self.random.u32(30..90),
            time: if self.random.bool() { slow } else { fast },
            propose: self.random.choice([0, 3, 10, 25]).unwrap(),
            read: self.random.choice([0, 3, 10]).unwrap(),
            time_ms: self.random.choice([20, 60, 60, 300, 1500]).unwrap(),
        };
        self.paused.clear();
        let quiet = self.random.u32(..4) == 0;
        if quiet || self.random.u32(..3) > 0 {
            self.cluster.cut.clear();
        }
        let down = std::mem::take(&mut self.down);
        for id in down {
            if quiet || self.random.bool() {
                self.start(id);
            } else {
                self.down.insert(id);
            }
        }
        if !quiet {
            self.break_something();
        }
        self.cluster.connect_all();
    }

    fn break_something(&mut self) {
        if self.happens(self.faults.cut) {
            self.cut();
        }
        if self.happens(self.faults.one_way) {
            for _ in 0..self.random.u32(1..4) {
                let (from, to) = (self.any(), self.any());
                self.cluster.cut.insert((from, to));
            }
        }
        if self.happens(self.faults.wipe) {
            if self.random.bool() { self.wipe_some() } else { self.wipe_those_who_know() }
        } else if self.happens(self.faults.copy) {
            self.copy();
        }
        if self.happens(self.faults.down) {
            // Now and then all of them.
            let count = if self.random.u32(..6) == 0 { self.cluster.nodes.len() } else { self.minority() };
            for id in self.some_nodes(count) {
                self.cluster.crash(id);
                if self.random.bool() {
                    self.down.insert(id);
                } else {
                    self.start(id);
                }
            }
        }
        if self.happens(self.faults.pause) {
            self.paused = self.some_nodes(self.minority().max(1)).into_iter().collect();
            if self.random.bool() {
                let leader = self.any_leader();
                self.paused.insert(leader);
            }
        }
    }

    fn cut(&mut self) {
        let (a, b) = (self.any(), self.any());
        match self.random.u32(..5) {
            0 => {
                let leader = self.any_leader();
                self.cluster.isolate(leader.0);
            }
            1 => self.cluster.isolate(a.0),
            2 => self.cluster.cut_both(a.0, b.0),
            // Two parts; or two parts that one node, `b`, reaches both.
            kind => {
                let part: BTreeSet<NodeId> =
                    self.some_nodes(self.cluster.nodes.len() - 1).into_iter().collect();
                for id in self.cluster.ids() {
                    for other in &part {
                        if !part.contains(&id) && (kind == 3 || (id != b && *other != b)) {
                            self.cluster.cut_both(id.0, other.0);
                        }
                    }
                }
            }
        }
    }

    fn start(&mut self, id: NodeId) {
        if !self.cluster.is_up(id) {
            self.cluster.start(id);
            self.cluster.connect_all();
        }
    }

    fn step(&mut self) {
        if self.happens(self.faults.crash) {
            self.crash();
        }
        if self.happens(self.faults.disconnect) {
            let (a, b) = (self.any(), self.any());
            self.cluster.disconnect(a, b);
        }
        if self.happens(self.faults.transfer) {
            let (leader, to) = (self.any_leader(), self.any());
            let to = self.random.bool().then_some(to);
            self.cluster.input(leader, Input::TransferLeadership { to });
        }
        if self.happens(self.faults.compact) {
            self.compact();
        }
        if self.faults.room > 0.0 && self.rooms.f64() < self.faults.room {
            self.change_room();
        }
        if self.happens(self.faults.clock) {
            let (id, by_ms) = (self.any(), self.random.u64(..2 * ELECTION_MS));
            self.cluster.hurry(id, by_ms);
        }
        if self.happens(self.faults.usurp) {
            if self.faults.cut > 0.0 && self.random.u32(..4) == 0 { self.coup() } else { self.usurp() }
        }
        let Pace { deliver, time, propose, read, .. } = self.pace;
        let at = self.random.u32(..deliver + time + propose + read + 12);
        if at < deliver {
            for _ in 0..self.random.u32(1..8) {
                self.deliver();
            }
        } else if at < deliver + time {
            self.pass_time();
        } else if at < deliver + time + propose {
            let leader = self.any_leader();
            if !self.paused.contains(&leader) {
                for _ in 0..self.random.choice([1, 1, 1, 2, 5, 12]).unwrap() {
                    self.cluster.propose(leader);
                }
            }
        } else if at < deliver + time + propose + read {
            self.reads += 1;
            let leader = self.any_leader();
            if !self.paused.contains(&leader) {
                self.cluster.read(leader, self.reads);
            }
        } else {
            match at - deliver - time - propose - read {
                0 => {
                    let leader = self.any_leader();
                    self.cluster.input(leader, Input::Tick);
                }
                1 => self.cluster.connect_all(),
                2 | 3 => {
                    let (leader, id) = (self.any_leader(), self.any());
                    self.cluster.stream(leader);
                    if !self.paused.contains(&id) {
                        self.cluster.install(id);
                    }
                }
                _ => {
                    let mut ids = self.cluster.ids();
                    ids.retain(|id| !self.cluster.is_up(*id) && !self.down.contains(id));
                    if let Some(id) = self.random.choice(ids) {
                        self.start(id);
                    }
                }
            }
        }
    }

    fn change_room(&mut self) {
        let ids = self.cluster.ids();
        let (id, other) = (self.rooms.choice(&ids).unwrap(), self.rooms.choice(&ids).unwrap());
        if !self.cluster.is_up(*id) {
            return;
        }
        let raft = self.cluster.raft_mut(*id);
        match self.rooms.u32(..4) {
            0 => raft.set_room(u64::MAX, []),
            1 => raft.set_peer_full(*other, self.rooms.bool()),
            2 => raft.set_low(self.rooms.bool()),
            _ => {
                let ready: Vec<u64> = (0..self.rooms.usize(..3)).map(|_| self.rooms.u64(..400)).collect();
                raft.set_room(self.rooms.u64(..400), ready);
            }
        }
    }

    fn compact(&mut self) {
        let id = if self.random.bool() { self.any_leader() } else { self.any() };
        let Some(raft) = &self.cluster.nodes[&id].raft else { return };
        let (base, commit) = (raft.base().index.0, raft.commit_index().0);
        let checkpoint = if self.random.bool() { commit } else { self.random.u64(base..=commit) };
        let to = if self.random.bool() { checkpoint } else { self.random.u64(base..=checkpoint) };
        self.cluster.compact(id, checkpoint, to);
    }

    fn crash(&mut self) {
        let points = [
            CrashPoint::BeforeState,
            CrashPoint::AfterState,
            CrashPoint::BeforeFlush,
            CrashPoint::AfterFlush,
        ];
        if self.random.u32(..5) == 0 {
            let id = self.any();
            self.cluster.crash(id);
        } else {
            self.cluster.crash_next_turn = self.random.choice(points);
        }
    }

    /// A node and most of the others have not heard of a leader for long, by their own clocks.
    fn usurp(&mut self) {
        let leader = self.any_leader();
        let mut candidate = self.any();
        if candidate == leader {
            candidate = self.any();
        }
        for id in self.cluster.ids() {
            let often = if id == leader { 1 } else { 7 };
            if id == candidate || self.random.u32(..8) < often {
                self.cluster.hurry(id, ELECTION_MS);
            }
        }
        if !self.cluster.is_up(candidate) || self.paused.contains(&candidate) {
            return;
        }
        self.cluster.fire(candidate, Timer::Election);
        if self.random.u32(..4) == 0 {
            return;
        }
        // Its messages overtake those of the leader, who would only be heard again.
        for _ in 0..4 * self.cluster.nodes.len() {
            let is_vote = |envelope: &Envelope| {
                matches!(envelope.message(), PeerMessage::RequestVote(_) | PeerMessage::RequestVoteReply(_))
            };
            let ready = |at: &usize| {
                let envelope = &self.cluster.bag[*at];
                is_vote(envelope) && !self.paused.contains(&envelope.to)
            };
            let Some(at) = (0..self.cluster.bag.len()).rev().find(ready) else { return };
            self.deliver_at(at);
        }
    }

    /// A leader is cut off, proposes on, and does not notice that another one takes over; clients of either
    /// read. Then, perhaps, a node that helped the new one loses its disk and meets the old one again.
    fn coup(&mut self) {
        let old = self.any_leader();
        self.cluster.cut.clear();
        self.cluster.connect_all();
        self.express(|_| true);
        self.cluster.isolate(old.0);
        for _ in 0..self.random.u32(..12) {
            self.cluster.propose(old);
        }
        let new = self.any();
        if new == old || !self.cluster.is_up(new) {
            return;
        }
        for id in self.cluster.ids() {
            if id != old {
                self.cluster.hurry(id, ELECTION_MS);
            }
        }
        self.cluster.fire(new, Timer::Election);
        self.express(|_| true);
        self.cluster.propose(new);
        self.express(|_| true);
        for leader in [old, new] {
            self.reads += 1;
            self.cluster.read(leader, self.reads);
        }
        if self.faults.wipe == 0.0 || self.random.bool() {
            return;
        }
        let mut others = self.cluster.ids();
        others.retain(|id| *id != old && *id != new);
        self.random.shuffle(&mut others);
        others.truncate(self.cluster.nodes.len() / 2);
        let Some(victim) = others.first().copied() else { return };
        if self.wipe(victim) {
            others.push(old);
            self.cluster.cut.clear();
            for id in self.cluster.ids() {
                for other in &others {
                    if !others.contains(&id) {
                        self.cluster.cut_both(id.0, other.0);
                    }
                }
            }
            self.start(victim);
            self.cluster.connect_all();
            let of_old = |envelope: &Envelope| envelope.to == victim || envelope.from == victim;
            self.express(of_old);
            self.cluster.propose(old);
            self.express(of_old);
        }
    }

    /// Delivers what is wanted, the oldest first, until there is no more of it or that was much.
    fn express(&mut self, wanted: impl Fn(&Envelope) -> bool) {
        for _ in 0..self.random.usize(10..60) {
            let ready = |at: &usize| {
                let envelope = &self.cluster.bag[*at];
                wanted(envelope) && !self.paused.contains(&envelope.to)
            };
            let Some(at) = (0..self.cluster.bag.len()).find(ready) else { return };
            self.deliver_at(at);
        }
    }

    fn deliver(&mut self) {
        let paused = &self.paused;
        let ready: Vec<usize> =
            (0..self.cluster.bag.len()).filter(|at| !paused.contains(&self.cluster.bag[*at].to)).collect();
        let Some(first) = ready.first().copied() else { return };
        let at = if self.happens(self.faults.reorder) { self.random.choice(ready).unwrap() } else { first };
        self.cluster.counts.out_of_order += u64::from(at != first);
        self.deliver_at(at);
        // A bag that only grows would never come to what is new.
        if self.cluster.bag.len() > 300 {
            self.cluster.counts.lost += 150;
            self.cluster.bag.drain(..150);
        }
    }

    fn deliver_at(&mut self, at: usize) {
        if self.happens(self.faults.lose) {
            self.cluster.counts.lost += 1;
            self.cluster.bag.remove(at);
        } else if self.happens(self.faults.repeat) {
            self.cluster.counts.repeated += 1;
            let envelope = self.cluster.bag[at].clone();
            self.cluster.deliver_envelope(&envelope);
        } else {
            self.cluster.deliver(at);
        }
    }

    fn pass_time(&mut self) {
        // Now and then so much that leaders are forgotten, and several nodes stand at once.
        let longest_ms = if self.random.u32(..12) == 0 { 5 * ELECTION_MS / 2 } else { self.pace.time_ms };
        self.cluster.now_ms += self.random.u64(..longest_ms);
        let now_ms = self.cluster.now_ms;
        let alarms = |(id, node): (&NodeId, &super::cluster::Node)| {
            node.alarms.iter().map(|(timer, at_ms)| (*id, *timer, *at_ms)).collect::<Vec<_>>()
        };
        let mut due: Vec<(NodeId, Timer, u64)> = self.cluster.nodes.iter().flat_map(alarms).collect();
        due.retain(|(id, _, at_ms)| *at_ms <= now_ms && !self.paused.contains(id));
        self.random.shuffle(&mut due);
        // The rest fires late.
        due.truncate(self.random.usize(1..=3));
        for (id, timer, _) in due {
            if self.cluster.nodes[&id].alarms.get(&timer).is_some_and(|at_ms| *at_ms <= now_ms) {
                self.cluster.fire(id, timer);
            }
        }
    }
}

/// One schedule from beginning to end. Returns what happened in it before everything was healed.
fn run(seed: u64, steps: usize) -> Counts {
    let outcome = std::panic::catch_unwind(|| {
        let mut schedule = Schedule::new(seed);
        schedule.run(steps);
        let counts = schedule.cluster.counts;
        schedule.recover();
        counts
    });
    outcome.unwrap_or_else(|_| panic!("seed {seed} with {steps} steps fails, see above"))
}

/// Runs many schedules and says how much they tried. One without elections or faults shows nothing.
fn run_all(seeds: std::ops::Range<u64>, steps: usize) {
    let (mut sum, mut vain, count) = (Counts::default(), 0, seeds.end - seeds.start);
    for seed in seeds {
        let counts = run(seed, steps);
        vain += u64::from(counts.leaders < 2 || counts.faults() == 0 || counts.commits == 0);
        sum += counts;
    }
    eprintln!("{count} schedules, {vain} of them in vain: {sum}");
    assert!(vain * 4 < count, "{vain} of {count} schedules were in vain");
}

#[test]
fn random_schedules() {
    run_all(0..180, 500);
}

/// Many more: `FSD_SEEDS=first..last cargo test --release --lib many_random_schedules -- --ignored`.
#[test]
#[ignore = "takes as long as it is told to"]
// Which seeds to run is told from outside: a test that had to be built anew for it would not be run.
#[allow(clippy::disallowed_methods)]
fn many_random_schedules() {
    let range = std::env::var("FSD_SEEDS").unwrap_or_else(|_| "1000..3000".to_owned());
    let (first, last) = range.split_once("..").expect("FSD_SEEDS=first..last");
    run_all(first.parse().unwrap()..last.parse().unwrap(), 1500);
}
