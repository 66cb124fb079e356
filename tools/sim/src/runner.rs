//! Runs plans, one or many at a time, and says what came of them.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::coverage::Coverage;
use crate::marks::Marks;
use crate::plan::{FaultKind, Plan};
use crate::simulation::Simulation;

/// Definite answers that a run must have brought to count.
const ANSWERS_MIN: u64 = 30;
/// Seeds that failed once, the steps that they took, and why; they are run before all others.
const FAILED_ONCE: &str = include_str!("../failing-seeds.txt");

thread_local! {
    /// What this thread runs, and where it panicked last.
    static RUNNING: RefCell<(String, String)> = const { RefCell::new((String::new(), String::new())) };
}

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
    /// Changes in sessions that were decided, those among them that nodes passed on.
    pub session_changes: u64,
    /// Entries that repeated one and were answered with its first reply.
    pub repetitions: u64,
    /// Calls that were judged from outside.
    pub recorded: u64,
    /// Copies of disks that were recovered to prove a promise.
    pub proofs: u64,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Faults that were made.
    pub coverage: Coverage,
    /// Rare branches that were reached.
    pub marks: Marks,
}

impl Report {
    /// Whether too little happened for the run to say anything.
    #[must_use]
    pub fn is_vacuous(&self) -> bool {
        let faults_wanted = self.plan.faults.iter().next().is_some();
        let too_little = self.answers < ANSWERS_MIN || faults_wanted && self.coverage.total() == 0;
        self.failure.is_none() && too_little
    }
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that count.
    pub runs: u64,
    /// Runs in which too little happened.
    pub vacuous: u64,
    /// See [`Report`].
    pub steps: u64,
    /// See [`Report`].
    pub answers: u64,
    /// See [`Report`].
    pub session_changes: u64,
    /// See [`Report`].
    pub repetitions: u64,
    /// See [`Report`].
    pub recorded: u64,
    /// See [`Report`].
    pub proofs: u64,
    /// See [`Report`].
    pub simulated_ms: u64,
    /// See [`Report`].
    pub coverage: Coverage,
    /// See [`Report`].
    pub marks: Marks,
    /// Runs that failed.
    pub failures: Vec<Report>,
}

impl Summary {
    fn add(&mut self, report: Report) {
        self.runs += u64::from(!report.is_vacuous());
        self.vacuous += u64::from(report.is_vacuous());
        self.steps += report.steps;
        self.answers += report.answers;
        self.session_changes += report.session_changes;
        self.repetitions += report.repetitions;
        self.recorded += report.recorded;
        self.proofs += report.proofs;
        self.simulated_ms += report.simulated_ms;
        self.coverage.add(&report.coverage);
        self.marks.add(&report.marks);
        if report.failure.is_some() {
            self.failures.push(report);
        }
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
    RUNNING.with_borrow_mut(|running| running.0 = plan.to_string());
    // What was reached outside of runs is of no interest.
    drop(Marks::take());
    let mut simulation = Simulation::new(plan);
    simulation.tells = tells;
    let result = catch_unwind(AssertUnwindSafe(|| {
        simulation.run_steps()?;
        simulation.check_liveness()?;
        simulation.witness.record.judge()
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
        session_changes: simulation.witness.sessions.changes(),
        repetitions: simulation.witness.sessions.repetitions,
        recorded: simulation.witness.record.calls(),
        proofs: simulation.proofs,
        simulated_ms: simulation.now_us / 1000,
        coverage: simulation.coverage.clone(),
        marks: Marks::take(),
    }
}

/// Runs plans on so many threads and hands each report to `done`, which says whether to go on.
pub fn run_all(plans: &[Plan], threads: usize, mut done: impl FnMut(&Report) -> bool) -> Summary {
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, reports) = mpsc::channel();
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, ended) = (sender.clone(), &next, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed)
                    && let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if sender.send(run(plan)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            if !done(&report) {
                ended.store(true, Ordering::Relaxed);
            }
            summary.add(report);
        }
    });
    summary
}

/// The plans of the seeds that failed once.
///
/// # Panics
/// If their list is not as it should be.
#[must_use]
pub fn failed_once() -> Vec<Plan> {
    let lines = FAILED_ONCE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let plan_of = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>());
        match (fields.next(), fields.next()) {
            (Some(Ok(seed)), Some(Ok(steps))) => Plan::from_seed(seed, steps),
            _ => panic!("neither a seed nor its steps: {line}"),
        }
    };
    lines.map(plan_of).collect()
}

/// A smaller plan that fails, too: without the kinds of faults that do not matter, and with fewer steps.
#[must_use]
pub fn shrink(plan: &Plan) -> Plan {
    let fails = |plan: &Plan| run(plan).failure.is_some();
    let mut smallest = plan.clone();
    for kind in FaultKind::ALL {
        let mut without = smallest.clone();
        without.faults.remove(kind);
        if without.faults != smallest.faults && fails(&without) {
            smallest = without;
        }
    }
    for clients in 1..smallest.clients {
        let fewer = Plan { clients, ..smallest.clone() };
        if fails(&fewer) {
            smallest = fewer;
            break;
        }
    }
    let (mut holds, mut breaks) = (0, smallest.steps);
    while holds + 1 < breaks {
        let steps = holds.midpoint(breaks);
        if fails(&Plan { steps, ..smallest.clone() }) { breaks = steps } else { holds = steps }
    }
    Plan { steps: breaks, ..smallest }
}

/// From now on a panic says nothing by itself, where it unwinds: it is in the report of its run. Where it does not,
/// it says which run it ends.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or(String::new(), ToString::to_string);
        RUNNING.with_borrow_mut(|running| running.1 = place);
        if cfg!(panic = "abort") {
            let run = RUNNING.with_borrow(|running| running.0.clone());
            eprintln!("{info}\nin {run}");
        }
    }));
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    let place = RUNNING.with_borrow(|running| running.1.clone());
    format!("a panic at {place}: {}", words.unwrap_or("without words"))
}
