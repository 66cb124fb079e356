//! `fsd-sim`: simulates clusters, a seed each.

#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::time::Instant;

use fsd_sim::{Coverage, Plan, run_and_tell};

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (first, count, steps) = (args[0], args[1], args[2]);
    let began = Instant::now();
    let (mut total, mut vacuous, mut failed) = (0, 0, 0);
    let mut coverage = Coverage::default();
    for seed in first..first + count {
        let plan = Plan::from_seed(seed, steps);
        let at = Instant::now();
        let report = run_and_tell(&plan, count == 1);
        total += report.steps;
        coverage.add(&report.coverage);
        if report.is_vacuous() {
            vacuous += 1;
        }
        if count < 20 {
            println!("{plan}\n  {} steps {} committed {} answers {} ms {} proofs {} took {:?}", report.steps, report.hash, report.committed, report.answers, report.simulated_ms, report.proofs, at.elapsed());
        }
        if let Some(failure) = report.failure {
            failed += 1;
            println!("FAILED {plan}\n  after {} steps: {failure}", report.steps);
        }
    }
    println!("{coverage}");
    let took = began.elapsed();
    println!("{total} steps in {took:?}: {:.0}/s, {vacuous} vacuous, {failed} failed", total as f64 / took.as_secs_f64());
}
