//! `fsd-sim`: simulates clusters of fsd, a seed each.

// A tool stands at the edge: it prints, and measures how long it takes.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::process::{Command, ExitCode};
use std::time::Instant;

use fsd_sim::{Plan, Report, failed_once, keep_panics_quiet, run, run_all, run_and_tell, shrink};
use getopts::Options;

const USAGE: &str = "fsd-sim [options] run       run seeds, those that once failed first
fsd-sim [options] replay SEED   run a seed and print what happens to its nodes
fsd-sim [options] shrink SEED   look for a smaller run that fails as well
fsd-sim [options] mutants       how many seeds each planted bug survives (built with --features mutants)";

struct Settings {
    first: u64,
    count: u64,
    steps: u64,
    threads: usize,
    minutes: u64,
    only: Vec<String>,
    without: Vec<String>,
    /// As rows for docs/testing.md.
    #[cfg_attr(not(feature = "mutants"), expect(dead_code))]
    markdown: bool,
    complete: bool,
}

fn main() -> ExitCode {
    let mut options = Options::new();
    options.optopt("f", "first", "the first seed (1)", "SEED");
    options.optopt("n", "count", "how many seeds (100)", "COUNT");
    options.optopt("s", "steps", "steps of each run (50000)", "STEPS");
    options.optopt("j", "threads", "runs at a time (as many as there are cores)", "THREADS");
    options.optopt("", "minutes", "no run is begun after this time (no bound)", "MINUTES");
    options.optmulti("", "only", "only this mutant", "NAME");
    options.optmulti("", "without", "without this kind of fault", "FAULT");
    options.optflag("", "markdown", "mutants as rows of the table in docs/testing.md");
    options.optflag(
        "",
        "complete",
        "fail if a mark or a cell of the table was missed (with --features marks)",
    );
    options.optflag("h", "help", "this text");
    let usage = options.usage(USAGE);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let fail = |what: String| {
        eprintln!("{what}\n{usage}");
        ExitCode::from(2)
    };
    let matches = match options.parse(&args) {
        Ok(matches) if matches.opt_present("h") => {
            println!("{usage}");
            return ExitCode::SUCCESS;
        }
        Ok(matches) => matches,
        Err(error) => return fail(error.to_string()),
    };
    let number = |name: &str, default: u64| matches.opt_get_default(name, default);
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let (Ok(first), Ok(count), Ok(steps), Ok(threads), Ok(minutes)) = (
        number("f", 1),
        number("n", 100),
        number("s", 50_000),
        number("j", cores),
        number("minutes", u64::MAX / 60),
    ) else {
        return fail("an option wants a number".to_owned());
    };
    let markdown = matches.opt_present("markdown");
    let (only, without) = (matches.opt_strs("only"), matches.opt_strs("without"));
    let complete = matches.opt_present("complete");
    if complete && !cfg!(feature = "marks") {
        return fail("built without marks, so nobody knows which were reached".to_owned());
    }
    let threads = threads as usize;
    let settings = Settings { first, count, steps, threads, minutes, only, without, complete, markdown };
    keep_panics_quiet();
    let seed = matches.free.get(1).map(|seed| seed.parse::<u64>());
    match (matches.free.first().map(String::as_str), seed) {
        (Some("run"), None) => run_seeds(&settings),
        (Some("replay"), Some(Ok(seed))) => replay(&settings, seed),
        (Some("shrink"), Some(Ok(seed))) => shrink_seed(&settings, seed),
        (Some("mutants"), None) => mutants(&settings),
        _ => fail("what is to be done?".to_owned()),
    }
}

fn plan_of(settings: &Settings, seed: u64) -> Plan {
    let mut plan = Plan::from_seed(seed, settings.steps);
    for kind in fsd_sim::FaultKind::ALL {
        if settings.without.contains(&kind.name()) {
            plan.faults.remove(kind);
        }
    }
    plan
}

fn run_seeds(settings: &Settings) -> ExitCode {
    let (first, last) = (settings.first, settings.first + settings.count);
    println!(
        "fsd-sim {} at {}: seeds {first} to {} of {} steps on {} threads, without {:?}",
        env!("CARGO_PKG_VERSION"),
        commit(),
        last - 1,
        settings.steps,
        settings.threads,
        settings.without
    );
    let mut plans = failed_once();
    plans.extend((first..last).map(|seed| plan_of(settings, seed)));
    let began = Instant::now();
    let summary = run_all(&plans, settings.threads, |report| {
        print_failure(report);
        began.elapsed().as_secs() < 60 * settings.minutes
    });
    let took_s = began.elapsed().as_secs_f64();
    println!("{}", summary.coverage);
    if cfg!(feature = "marks") {
        println!("{}", summary.marks);
    }
    println!(
        "{} runs, {} more in which too little happened; {} steps in {took_s:.1} s, {:.0} per second and thread; \
         {} answers checked, {} calls judged from outside, {} changes in sessions and {} repetitions of them, {} \
         promises proved, {} s simulated",
        summary.runs,
        summary.vacuous,
        summary.steps,
        summary.steps as f64 / took_s / settings.threads as f64,
        summary.answers,
        summary.recorded,
        summary.session_changes,
        summary.repetitions,
        summary.proofs,
        summary.simulated_ms / 1000
    );
    let mut gaps = summary.coverage.gaps();
    gaps.extend(summary.marks.gaps());
    gaps.retain(|_| settings.complete);
    gaps.iter().for_each(|gap| println!("INCOMPLETE: {gap}"));
    if !summary.failures.is_empty() {
        println!("{} runs FAILED", summary.failures.len());
    }
    if summary.failures.is_empty() && gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_failure(report: &Report) {
    if let Some(failure) = &report.failure {
        println!("FAILED at {} {}\n  after {} steps: {failure}", commit(), report.plan, report.steps);
    }
}

/// The commit of the sources in the present folder: a seed means the same run only there.
fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let described = described.ok().filter(|output| output.status.success());
    described.map_or_else(
        || "an unknown commit".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn replay(settings: &Settings, seed: u64) -> ExitCode {
    let plan = plan_of(settings, seed);
    println!("{plan}");
    let report = run_and_tell(&plan, true);
    print_failure(&report);
    let Report { hash, steps, committed, answers, proofs, .. } = report;
    println!("hash {hash:016x}: {steps} steps, {committed} entries, {answers} answers, {proofs} proofs");
    if report.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn shrink_seed(settings: &Settings, seed: u64) -> ExitCode {
    let plan = plan_of(settings, seed);
    let report = run(&plan);
    print_failure(&report);
    if report.failure.is_none() {
        println!("{plan}\n  does not fail");
        return ExitCode::SUCCESS;
    }
    print_failure(&run(&shrink(&plan)));
    ExitCode::FAILURE
}

#[cfg(not(feature = "mutants"))]
fn mutants(settings: &Settings) -> ExitCode {
    eprintln!("built without mutants, so none of {:?} can be run", settings.only);
    ExitCode::from(2)
}

#[cfg(feature = "mutants")]
fn mutants(settings: &Settings) -> ExitCode {
    let mut survivors = 0;
    if settings.markdown {
        println!("| mutant | bug | what it does | killed | seeds | steps |");
        println!("| --- | --- | --- | --- | --- | --- |");
    } else {
        println!("{:36} {:>4} {:>7} {:>10}  how", "mutant", "bug", "seeds", "steps");
    }
    for mutant in fsd::mutants::ALL {
        if !settings.only.is_empty() && !settings.only.iter().any(|name| name == mutant.name) {
            continue;
        }
        let (name, bug, what) = (mutant.name, mutant.bug, mutant.what);
        let (seeds, steps, failure) = hunt(settings, mutant);
        survivors += u32::from(failure.is_none());
        if settings.markdown {
            let killed = if failure.is_some() { "yes" } else { "no" };
            println!("| `{name}` | {bug} | {what} | {killed} | {} | {} |", grouped(seeds), grouped(steps));
            continue;
        }
        let how: String = match failure {
            Some(failure) => failure.lines().next().unwrap_or_default().chars().take(90).collect(),
            None => format!("SURVIVED: {what}"),
        };
        println!("{name:36} {bug:>4} {seeds:>7} {steps:>10}  {how}");
    }
    if !settings.markdown {
        println!("{survivors} survived");
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds until one fails that does not fail without this mutant. Returns how many were run, their steps, and how
/// the last one failed.
#[cfg(feature = "mutants")]
fn hunt(settings: &Settings, mutant: &fsd::mutants::Mutant) -> (u64, u64, Option<String>) {
    let (mut first, end) = (settings.first, settings.first + settings.count);
    let (mut seeds, mut steps) = (0, 0);
    while first < end {
        fsd::mutants::switch_on(mutant.name);
        let plans: Vec<Plan> = (first..end).map(|seed| plan_of(settings, seed)).collect();
        let mut ran = Vec::new();
        let summary = run_all(&plans, settings.threads, |report| {
            ran.push((report.plan.seed, report.steps));
            report.failure.is_none()
        });
        fsd::mutants::switch_off();
        // Runs that had begun go on behind the first that failed: they do not count, or the table would differ.
        let failed = summary.failures.into_iter().min_by_key(|report| report.plan.seed);
        let last = failed.as_ref().map_or(end, |report| report.plan.seed);
        let counted = ran.iter().filter(|(seed, _)| *seed <= last);
        seeds += counted.clone().count() as u64;
        steps += counted.map(|(_, steps)| steps).sum::<u64>();
        let Some(report) = failed else { break };
        if run(&report.plan).failure.is_none() {
            return (seeds, steps, report.failure);
        }
        eprintln!("{} or not, it fails: {}", mutant.name, report.plan);
        first = report.plan.seed + 1;
    }
    (seeds, steps, None)
}

/// A number with commas.
#[cfg(feature = "mutants")]
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}
