//! Faults in phases that chance alone hardly ever meets. What is to happen in which phase is drawn beforehand, from
//! what the run has not had yet, and the fault is made in the middle of that phase, if it comes.

use crate::coverage::{Phase, is_impossible};
use crate::plan::FaultKind;
use crate::process::State;
use crate::simulation::{Checked, Simulation};

/// Behind one fault of so many, another one is put off to a phase of its own.
const OCCASION_OF: u32 = 3;
/// An event in the right phase is taken with this chance, so that not all faults are made at its first moment.
const TAKEN_OF: u32 = 3;
/// A phase that does not come for so long is not waited for any more.
const PATIENCE_US: u64 = 3_000_000;
/// A disk fails at one of its next operations, so that the phase is still the same.
const OPERATIONS: u64 = 6;

/// Draws occasions, from a generator of their own.
#[derive(Debug)]
pub(crate) struct Occasions {
    random: fastrand::Rng,
    awaited: Option<Occasion>,
}

#[derive(Clone, Copy, Debug)]
struct Occasion {
    kind: FaultKind,
    phase: Phase,
    until_us: u64,
}

impl Occasions {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed.rotate_left(24)), awaited: None }
    }
}

impl Simulation {
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
        self.occasions.awaited = Some(Occasion { kind, phase, until_us: self.now_us + PATIENCE_US });
        if phase == Phase::Transfer
            && let Some(leader) = self.leader()
            && (kind != FaultKind::PowerLossInRecovery || self.draw_down().is_some())
        {
            let before = self.phase();
            if self.stop(leader)? {
                self.coverage.note(FaultKind::Stop, before);
            }
        }
        Ok(())
    }

    /// Makes the fault that was put off, if this is its phase.
    pub(crate) fn take_occasion(&mut self) -> Checked {
        let Some(Occasion { kind, phase, until_us }) = self.occasions.awaited else { return Ok(()) };
        if !self.is_troubled || self.now_us > until_us {
            self.occasions.awaited = None;
            return Ok(());
        }
        let is_start = kind == FaultKind::PowerLossInRecovery;
        let present = if is_start { self.phase_around_start() } else { self.phase() };
        if present != phase || self.occasions.random.u32(..TAKEN_OF) != 0 {
            return Ok(());
        }
        self.refresh_soundness();
        let place = self.draw_place(phase);
        if self.make_now(kind, place)? {
            self.occasions.awaited = None;
            self.tell(|| format!("fault in its phase: {kind} at node {}, {phase:?}", place + 1));
        }
        Ok(())
    }

    fn draw_place(&mut self, phase: Phase) -> usize {
        let random = &mut self.occasions.random;
        let stopping = self.processes.iter().position(|process| process.is_stopping);
        match (stopping, phase) {
            (Some(stopping), Phase::Transfer) if random.bool() => stopping,
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
