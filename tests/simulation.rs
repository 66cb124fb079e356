//! Whole clusters on a simulated network, clock and disk, a seed each: every fault, every check (docs/testing.md).
//! `fsd-sim` runs more of them, and replays one that failed.

use fsd_sim::{Plan, failed_once, run, run_all};

const SEEDS: u64 = 200;
const STEPS: u64 = 10_000;

/// Runs plans on all cores; fails with the first few that failed.
fn run_plans(plans: &[Plan]) -> fsd_sim::Summary {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = run_all(plans, threads, |_| true);
    let told: Vec<String> = summary
        .failures
        .iter()
        .take(3)
        .map(|report| {
            let what = report.failure.as_deref().unwrap_or_default();
            format!(
                "{}\n  after {} steps: {what}\n  cargo run -p fsd-sim -- replay {} --steps {}",
                report.plan, report.steps, report.plan.seed, report.plan.steps
            )
        })
        .collect();
    assert!(
        told.is_empty(),
        "{} of {} runs failed:\n{}",
        summary.failures.len(),
        plans.len(),
        told.join("\n")
    );
    summary
}

#[test]
fn seeds_that_failed_once_hold() {
    let plans = failed_once();
    assert!(!plans.is_empty());
    run_plans(&plans);
}

#[test]
fn clusters_keep_their_promises_whatever_fails() {
    let plans: Vec<Plan> = (1..=SEEDS).map(|seed| Plan::from_seed(seed, STEPS)).collect();
    let summary = run_plans(&plans);
    // The seeds are fixed, so this says something of the generator, not of luck.
    assert!(summary.runs >= SEEDS * 8 / 10, "too little happened in {} runs", summary.vacuous);
    assert!(summary.steps >= SEEDS * STEPS && summary.proofs > SEEDS, "{summary:?}");
    assert!(summary.session_changes > 100 * SEEDS && summary.repetitions > SEEDS, "{summary:?}");
    assert!(summary.recorded > 100 * SEEDS, "{summary:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=6 {
        let plan = Plan::from_seed(seed, STEPS / 2);
        let (once, again) = (run(&plan), run(&plan));
        assert_eq!(
            (once.hash, once.steps, once.committed),
            (again.hash, again.steps, again.committed),
            "{plan}"
        );
        let other = run(&Plan::from_seed(seed + 1000, STEPS / 2));
        assert_ne!(once.hash, other.hash);
    }
}
