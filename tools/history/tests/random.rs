//! Histories of executions that really were one after the other, told with random overlaps, and the same with a lie in
//! them; small ones are also judged by trying everything.

mod brute_force;
mod executions;

use std::time::Instant;

use brute_force::can_be_explained;
use executions::{Shape, execution, tell_a_lie};
use fsd_history::{Call, History, Violation, check};

const SMALL: Shape = Shape { operations: 7, clients: 4, files: 1, versions_untold: true, unknown_one_in: 8 };
const LARGE: Shape =
    Shape { operations: 2000, clients: 20, files: 1, versions_untold: false, unknown_one_in: 100 };
const SEEDS: u64 = 3000;

fn history_of(calls: &[Call]) -> History {
    let mut history = History::new();
    for call in calls {
        let id = history.invoke(call.client, &call.file, call.operation, call.invoked);
        history.answer(id, call.outcome, call.returned);
    }
    history
}

fn is_linearizable(calls: &[Call]) -> bool {
    match check(&history_of(calls)) {
        Ok(_) => true,
        // Whether versions are used twice is not what the other judge looks at.
        Err(Violation::Versions { .. }) => true,
        Err(Violation::NotLinearizable { .. }) => false,
        Err(violation @ Violation::Undecided { .. }) => panic!("{violation}"),
    }
}

#[test]
fn verdicts_on_small_histories_are_those_of_trying_everything() {
    let mut refused = 0;
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let shape = Shape { operations: random.usize(1..=SMALL.operations), ..SMALL };
        let mut calls = execution(&shape, &mut random);
        assert!(can_be_explained(&calls), "seed {seed}: {calls:#?}");
        assert!(is_linearizable(&calls), "seed {seed}: {calls:#?}");
        for _ in 0..random.usize(1..3) {
            tell_a_lie(&mut calls, &mut random);
        }
        let expected = can_be_explained(&calls);
        let shown: Vec<String> = calls.iter().map(ToString::to_string).collect();
        assert_eq!(is_linearizable(&calls), expected, "seed {seed}:\n{}", shown.join("\n"));
        refused += u64::from(!expected);
    }
    assert!((SEEDS / 4..SEEDS * 9 / 10).contains(&refused), "{refused} of {SEEDS} were refused");
}

#[test]
fn what_a_violation_shows_is_one_and_needs_each_of_its_reads() {
    for seed in 0..SEEDS / 20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut calls = execution(&Shape { operations: 60, ..LARGE }, &mut random);
        tell_a_lie(&mut calls, &mut random);
        let Err(Violation::NotLinearizable { calls: shown, .. }) = check(&history_of(&calls)) else {
            continue;
        };
        assert!(!is_linearizable(&shown), "seed {seed}");
        for left_out in 0..shown.len() {
            let mut rest = shown.clone();
            let call = rest.remove(left_out);
            let looks = call.operation == fsd_history::Operation::Read;
            assert!(!looks || is_linearizable(&rest), "seed {seed}: {call} is not needed");
        }
    }
}

#[test]
fn large_histories_are_accepted_and_a_single_lie_is_mostly_found() {
    const ROUNDS: u64 = 12;
    let mut found = 0;
    for seed in 0..ROUNDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut calls = execution(&LARGE, &mut random);
        let start = Instant::now();
        let summary =
            check(&history_of(&calls)).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        eprintln!("{summary:?} in {:?}", start.elapsed());
        assert!(summary.changes > 500 && summary.reads > 300 && summary.unknown > 8, "{summary:?}");
        tell_a_lie(&mut calls, &mut random);
        let start = Instant::now();
        let verdict = check(&history_of(&calls));
        eprintln!("with a lie, in {:?}: {}", start.elapsed(), verdict.is_ok());
        found += u64::from(verdict.is_err());
    }
    assert!(found >= ROUNDS / 2, "{found} of {ROUNDS}");
}
