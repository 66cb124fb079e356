//! Faults in phases that chance alone hardly ever meets. What is to happen in which phase is drawn beforehand, from
//! what the run has not had yet, and the fault is made in the middle of that phase, if it comes.

use fsd::server::node::Node;
use fsd_wire::EntryId;

use crate::coverage::{Phase, is_impossible};
use crate::late_answers::Asked;
use crate::plan::FaultKind;
use crate::process::State;
use crate::schedule::Happening;
use crate::simulation::{Checked, Simulation};

/// Behind one fault of so many, another one is put off to a phase of its own.
const OCCASION_OF: u32 = 3;
/// One run of so many, where there are scripts, begins with one.
const BEGINS_OF: u32 = 4;
/// An event in the right phase is taken with this chance, so that not all faults are made at its first moment.
const TAKEN_OF: u32 = 3;
/// A node that asks its leader for a read index stands still behind one question of so many, once in a run.
const PAUSED_READERS_OF: u32 = 200;
/// For so long: no request waits for longer than the first of these.
const PAUSED_US: std::ops::Range<u64> = 10_000_000..14_000_000;
/// Leaders that are told to hand over just before a file falls due, in a run, and how long before.
const STOPS_BEFORE_EXPIRY: u32 = 4;
const BEFORE_EXPIRY_MS: u64 = 3;
/// A phase that does not come for so long is not waited for any more.
const PATIENCE_US: u64 = 3_000_000;
/// A disk fails at one of its next operations, so that the phase is still the same.
const OPERATIONS: u64 = 6;
/// A helper stands still for so many election timeouts at most.
const HELD_ELECTION_TIMEOUTS: u64 = 40;

/// Draws occasions, from a generator of their own.
#[derive(Debug)]
pub(crate) struct Occasions {
    random: fastrand::Rng,
    awaited: Option<Occasion>,
    has_paused_reader: bool,
    stops_before_expiry: u32,
    held: Option<Held>,
}

/// A node that is about to install a store, and whose helper stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    place: usize,
    life: u64,
    entry: EntryId,
    until_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Occasion {
    kind: FaultKind,
    phase: Phase,
    until_us: u64,
    /// A leader was told to hand over, for this.
    has_stopped: bool,
}

impl Occasions {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed.rotate_left(24)),
            awaited: None,
            has_paused_reader: false,
            stops_before_expiry: 0,
            held: None,
        }
    }
}

impl Simulation {
    /// What can happen only once, at the beginning.
    pub(crate) fn begin_with_occasion(&mut self) {
        let is_able = self.plan.faults.contains(FaultKind::Script) && self.plan.nodes > 2;
        if is_able && self.occasions.random.u32(..BEGINS_OF) == 0 {
            self.begin_script_of_first_leaders();
        }
    }

    /// A node had a turn, and asked for something: perhaps it comes to nothing for a long time now.
    pub(crate) fn pause_reader(&mut self, place: usize, asked: Option<Asked>) {
        let is_reader =
            matches!(asked, Some(Asked::ReadIndex(_))) && self.plan.faults.contains(FaultKind::Pause);
        let occasions = &mut self.occasions;
        if is_reader
            && self.is_troubled
            && !occasions.has_paused_reader
            && occasions.random.u32(..PAUSED_READERS_OF) == 0
        {
            occasions.has_paused_reader = true;
            self.processes[place].busy_until_us = self.now_us + occasions.random.u64(PAUSED_US);
            let phase = self.phase();
            self.coverage.note(FaultKind::Pause, phase);
        }
    }

    /// A node had a turn. If it leads, and a file falls due in a moment, it is told to stop now and then: while it hands
    /// over, nothing can be removed.
    pub(crate) fn stop_before_expiry(&mut self, place: usize) -> Checked {
        let process = &self.processes[place];
        let Some(node) = process.node.as_ref().filter(|_| self.is_troubled && !process.is_stopping) else {
            return Ok(());
        };
        if !self.plan.faults.contains(FaultKind::Stop) || self.plan.nodes == 1 || !node.raft().is_leader() {
            return Ok(());
        }
        let Some(due) = node.store().next_file_due() else { return Ok(()) };
        let now = node.raft().cluster_time(process.clock.now_ms(self.now_us));
        let is_close = due > now && due.0 - now.0 <= BEFORE_EXPIRY_MS;
        let occasions = &mut self.occasions;
        if !is_close || occasions.stops_before_expiry == STOPS_BEFORE_EXPIRY || occasions.random.u32(..4) != 0
        {
            return Ok(());
        }
        occasions.stops_before_expiry += 1;
        let before = self.phase();
        if self.stop(place)? {
            self.coverage.note(FaultKind::Stop, before);
        }
        Ok(())
    }

    /// The helper of a node has a job. If it is the last one before a store is installed, it stands still now and then,
    /// and all other machines lose power: who leads next may not know what was committed, and send this node the
    /// entries that the store holds. Whether it stands still.
    pub(crate) fn holds_installation(&mut self, place: usize, life: u64) -> bool {
        let Some(entry) = self.processes[place].node.as_ref().and_then(Node::installing) else {
            return false;
        };
        let known =
            self.occasions.held.filter(|held| (held.place, held.life, held.entry) == (place, life, entry));
        let until_us = match known {
            Some(held) => held.until_us,
            None => self.begin_to_hold(place, life, entry),
        };
        if !self.is_troubled || self.now_us >= until_us || self.has_uncommitted(place, entry) {
            return false;
        }
        let again_us = self.now_us + self.plan.election_timeout_ms * 1000;
        self.schedule.at(again_us.min(until_us), Happening::Job { node: place, life });
        true
    }

    /// Until when it stands still.
    fn begin_to_hold(&mut self, place: usize, life: u64, entry: EntryId) -> u64 {
        let is_able =
            self.is_troubled && self.plan.faults.contains(FaultKind::PowerLossOfAll) && self.plan.nodes > 2;
        let mut until_us = self.now_us;
        if is_able && self.occasions.random.bool() {
            until_us += HELD_ELECTION_TIMEOUTS * self.plan.election_timeout_ms * 1000;
            for other in (0..self.plan.nodes).filter(|other| *other != place) {
                self.lose_power(other);
            }
            self.tell(|| format!("node {} is held before it installs {entry:?}", place + 1));
        }
        self.occasions.held = Some(Held { place, life, entry, until_us });
        until_us
    }

    /// A node had a turn. If its helper stands still for it to have the entries of a store that it is to install, and now it
    /// has them, the helper goes on.
    pub(crate) fn follow_held(&mut self, place: usize) {
        let Some(held) = self.occasions.held.filter(|held| held.place == place) else { return };
        let process = &self.processes[place];
        if process.life == held.life && held.until_us > self.now_us && self.has_uncommitted(place, held.entry)
        {
            for n in 0..process.jobs.len() as u64 {
                self.schedule.at(self.now_us + 1 + n, Happening::Job { node: place, life: held.life });
            }
        }
    }

    fn has_uncommitted(&self, place: usize, entry: EntryId) -> bool {
        self.processes[place].raft().is_some_and(|raft| {
            raft.commit_index() < entry.index && raft.term_at(entry.index) == Some(entry.term)
        })
    }

    /// Now and then, a fault is put off until the cluster is in some phase.
    pub(crate) fn await_occasion(&mut self) -> Checked {
        if self.occasions.awaited.is_some() || self.occasions.random.u32(..OCCASION_OF) != 0 {
            return Ok(());
        }
        // What happens to disks that lose power comes with them, and late answers come often.
        let kinds = self
            .plan
            .faults
            .iter()
            .filter(|kind| !matches!(kind, FaultKind::TornGarbage | FaultKind::LateAnswer));
        let cells = kinds.flat_map(|kind| Phase::ALL.into_iter().map(move |phase| (kind, phase)));
        let can_be_handed_over = self.plan.faults.contains(FaultKind::Stop);
        let cells: Vec<(FaultKind, Phase)> = cells
            .filter(|(kind, phase)| {
                self.coverage.in_cell(*kind, *phase) == 0
                    && !is_impossible(*kind, *phase)
                    && (*phase != Phase::Transfer || can_be_handed_over)
            })
            .collect();
        let Some((kind, phase)) = self.occasions.random.choice(&cells).copied() else { return Ok(()) };
        let until_us = self.now_us + PATIENCE_US;
        self.occasions.awaited = Some(Occasion { kind, phase, until_us, has_stopped: false });
        Ok(())
    }

    /// Makes the fault that was put off, if this is its phase.
    pub(crate) fn take_occasion(&mut self) -> Checked {
        let Some(Occasion { kind, phase, until_us, has_stopped }) = self.occasions.awaited else {
            return Ok(());
        };
        if !self.is_troubled || self.now_us > until_us {
            self.occasions.awaited = None;
            return Ok(());
        }
        if phase == Phase::Transfer && !has_stopped {
            return self.stop_leader_for(kind);
        }
        let is_start = kind == FaultKind::PowerLossInRecovery;
        let present = if is_start { self.phase_around_start() } else { self.phase() };
        if present != phase || self.occasions.random.u32(..TAKEN_OF) != 0 {
            return Ok(());
        }
        self.refresh_soundness();
        let place = self.draw_place(kind, phase);
        if self.make_now(kind, place)? {
            self.occasions.awaited = None;
            self.tell(|| format!("fault in its phase: {kind} at node {}, {phase:?}", place + 1));
        }
        Ok(())
    }

    /// Once a fault of this kind could be made, a leader is to hand over, so that it can be made meanwhile.
    fn stop_leader_for(&mut self, kind: FaultKind) -> Checked {
        let is_ready = match kind {
            FaultKind::PowerLossInRecovery => self.draw_down().is_some(),
            FaultKind::OldCopy => (0..self.plan.nodes).any(|place| self.may_put_back(place)),
            FaultKind::Wipe | FaultKind::Rot => (0..self.plan.nodes).any(|place| self.may_lose(place)),
            _ => true,
        };
        let Some(leader) = self.leader().filter(|_| is_ready) else { return Ok(()) };
        let before = self.phase();
        if self.stop(leader)? {
            self.coverage.note(FaultKind::Stop, before);
            self.occasions.awaited.iter_mut().for_each(|occasion| occasion.has_stopped = true);
        }
        Ok(())
    }

    fn draw_place(&mut self, kind: FaultKind, phase: Phase) -> usize {
        let places = 0..self.plan.nodes;
        let copied: Vec<usize> = match kind {
            FaultKind::OldCopy => places.filter(|place| self.may_put_back(*place)).collect(),
            _ => Vec::new(),
        };
        let stopping = self.processes.iter().position(|process| process.is_stopping);
        let random = &mut self.occasions.random;
        match (random.choice(&copied), stopping) {
            (Some(copied), _) => *copied,
            (None, Some(stopping)) if phase == Phase::Transfer && random.bool() => stopping,
            _ => random.usize(..self.plan.nodes),
        }
    }

    /// A node that could be started.
    fn draw_down(&mut self) -> Option<usize> {
        let down =
            |place: &usize| self.processes[*place].state == State::Down && !self.nemesis.stays_away(*place);
        let down: Vec<usize> = (0..self.plan.nodes).filter(down).collect();
        self.occasions.random.choice(&down).copied()
    }

    /// Makes a fault of this kind, or has it happen next; whether it could be.
    fn make_now(&mut self, kind: FaultKind, place: usize) -> Result<bool, String> {
        let is_up = self.processes[place].node.is_some();
        let operations = self.processes[place].disk.operations() + self.occasions.random.u64(1..=OPERATIONS);
        match kind {
            FaultKind::Loss | FaultKind::Delay | FaultKind::Cut | FaultKind::Flip | FaultKind::HalfOpen => {
                self.fabric.await_fault(kind);
            }
            FaultKind::PowerLossInRecovery => {
                let Some(place) = self.draw_down() else { return Ok(false) };
                let disk = &self.processes[place].disk;
                disk.power_off_at(disk.operations() + self.occasions.random.u64(1..=OPERATIONS));
                let cell = (kind, self.phase_around_start());
                let before = self.coverage.in_cell(cell.0, cell.1);
                self.start(place)?;
                return Ok(self.coverage.in_cell(cell.0, cell.1) > before);
            }
            FaultKind::PowerLossInCall if is_up => {
                self.processes[place].disk.power_off_at(operations);
            }
            FaultKind::FailedCall if is_up => {
                self.processes[place].disk.fail_at(operations, std::io::ErrorKind::Other);
                self.processes[place].fails = true;
            }
            FaultKind::PowerLossInCall | FaultKind::FailedCall => return Ok(false),
            kind => {
                let phase = self.phase();
                let is_made = self.make(kind, place)?;
                if is_made {
                    self.coverage.note(kind, phase);
                }
                return Ok(is_made);
            }
        }
        Ok(true)
    }
}
