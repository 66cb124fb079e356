//! Runs plans and says what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::simulation::Simulation;

/// Definite answers that a run must have brought to count.
const ANSWERS_MIN: u64 = 30;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub plan: Plan,
    /// The first thing that was wrong, if any.
    pub failure: Option<String>,
    /// Stands for all events: equal runs have equal hashes.
    pub hash: u64,
    /// Events that were delivered to nodes.
    pub steps: u64,
    /// Entries that were committed.
    pub committed: u64,
    /// Definite answers to clients, all of which were checked.
    pub answers: u64,
    /// Copies of disks that were recovered to prove a promise.
    pub proofs: u64,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Faults that were made.
    pub coverage: Coverage,
}

impl Report {
    /// Whether too little happened for the run to say anything.
    #[must_use]
    pub fn is_vacuous(&self) -> bool {
        self.failure.is_none()
            && (self.answers < ANSWERS_MIN
                || self.coverage.total() == 0 && self.plan.faults.iter().next().is_some())
    }
}

/// Runs a plan. An assertion of the code under test that fails counts as a failure of the run, where panics unwind.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    run_and_tell(plan, false)
}

/// Runs a plan; prints what happens to the nodes if `tells`.
#[must_use]
pub fn run_and_tell(plan: &Plan, tells: bool) -> Report {
    let mut simulation = Simulation::new(plan);
    simulation.tells = tells;
    let result = catch_unwind(AssertUnwindSafe(|| {
        simulation.run_steps()?;
        simulation.check_liveness()
    }));
    let failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => Some(words_of(panic.as_ref())),
    };
    Report {
        plan: plan.clone(),
        failure,
        hash: simulation.hash(),
        steps: simulation.steps,
        committed: simulation.witness.committed().0,
        answers: simulation.witness.answers,
        proofs: simulation.proofs,
        simulated_ms: simulation.now_us / 1000,
        coverage: simulation.coverage.clone(),
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", words.unwrap_or("without words"))
}
