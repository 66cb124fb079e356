//! Measures clusters of `fsd` processes on this machine: requests per second, next to the machine's own flush time,
//! and in modes of their own what docs/benchmarks.md has figures of. All clients of a load share one thread and one poll, as the daemon does.
//!
//! The figures of one run belong together; those of two runs on a shared machine do not.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types)]

mod catch_up;
mod cluster;
mod connection;
mod copies;
mod figures;
mod files;
mod fill;
mod housekeeping;
mod limiter;
mod load;
mod machine;
mod memory_limit;
mod overwrite;
mod paced;
mod plot;
mod pressure;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use getopts::{Matches, Options};
use hdrhistogram::Histogram;

use catch_up::CatchUp;
use cluster::Cluster;
use copies::Copies;
use files::ManyFiles;
use housekeeping::Housekeeping;
use load::{Load, Work};
use machine::measure_flush;
use memory_limit::MemoryLimit;
use overwrite::Overwrite;

const MIB: u64 = 1024 * 1024;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut options = Options::new();
    options.optopt("n", "nodes", "nodes of the cluster (default 3)", "N");
    options.optopt("k", "clients", "numbers of clients to try (default 1,64,256)", "N,N,…");
    options.optopt("b", "bytes", "size of the contents (default 256)", "BYTES");
    options.optopt("s", "seconds", "length of each measurement (default 5)", "SECONDS");
    options.optopt("d", "dir", "where the data goes (default: a temporary directory)", "DIR");
    options.optflag("r", "reads", "measure reads too");
    options.optflag("p", "pressure", "measure beside 10,000 idle and 1,000 slow clients instead");
    options.optflag("", "sessions", "measure writes that are numbered in sessions too");
    options.optopt("", "files", "the memory that so many files take, and a start with them", "N");
    options.optflag(
        "",
        "housekeeping",
        "writes beside checkpoints, cleaning and catch-up against quiet ones",
    );
    options.optopt("", "catch-up", "how soon a wiped follower has so much again", "GIB");
    options.optopt("", "overwrite", "the disk under overwrites for so long", "SECONDS");
    options.optopt("", "working-set", "what is overwritten (default 256)", "MIB");
    options.optopt("", "output", "where a table and a plot of it go (default: the present directory)", "DIR");
    options.optopt("", "memory-limit", "nodes that may use so much memory and serve more", "MIB");
    options.optopt("", "dataset", "what they serve (default 4)", "GIB");
    options.optflag("", "copies", "how often contents are copied on their way to a client");
    options.optopt("", "rounds", "how often what is compared is measured in turn (default 3)", "N");
    options.optflag("h", "help", "print this");
    let matches = match options.parse(std::env::args().skip(1)) {
        Ok(matches) => matches,
        Err(error) => {
            eprintln!("fsd-bench: {error}");
            return ExitCode::from(2);
        }
    };
    if matches.opt_present("h") {
        println!("{}", options.usage("Usage: fsd-bench [options]"));
        return ExitCode::SUCCESS;
    }
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fsd-bench: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(matches: &Matches) -> Result<(), Error> {
    let nodes: usize = matches.opt_get_default("nodes", 3)?;
    let bytes: usize = matches.opt_get_default("bytes", 256)?;
    let seconds: u64 = matches.opt_get_default("seconds", 5)?;
    let clients: Vec<usize> = matches
        .opt_str("clients")
        .unwrap_or_else(|| "1,64,256".into())
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let temporary = tempfile::tempdir()?;
    let dir = matches.opt_str("dir").map_or(temporary.path().to_owned(), Into::into);
    std::fs::create_dir_all(&dir)?;
    let window = Duration::from_secs(seconds);

    if let Some(done) = run_mode(matches, nodes, &dir) {
        return done;
    }
    println!("{:<42} {:>10} {:>9} {:>9} {:>9}", "", "per second", "p50 µs", "p99 µs", "max µs");
    report("4 KiB write + fdatasync, one file", &measure_flush(&dir, window.min(Duration::from_secs(2)))?);
    if matches.opt_present("pressure") {
        return pressure::run(nodes, bytes, &dir, window);
    }
    let cluster = Cluster::start(nodes, &dir, "")?;
    let leader = cluster.client(cluster.leader()?);
    let works = [
        (Work::Write, true),
        (Work::SessionWrite, matches.opt_present("sessions")),
        (Work::Read, matches.opt_present("reads")),
    ];
    for (work, _) in works.iter().filter(|(_, wanted)| *wanted) {
        for count in &clients {
            let measured = Load { leader, clients: *count, bytes, work: *work }.run(window)?;
            report(&format!("{work} {bytes} B, {count} clients, {nodes} nodes"), &measured);
        }
    }
    Ok(())
}

/// What has a mode of its own, if it was asked for.
fn run_mode(matches: &Matches, nodes: usize, dir: &Path) -> Option<Result<(), Error>> {
    let of = |name: &str| matches.opt_get::<f64>(name).map_err(Error::from);
    let mode = || -> Result<bool, Error> {
        let rounds = matches.opt_get_default("rounds", 3)?;
        let phase = Duration::from_secs(matches.opt_get_default("seconds", 15)?);
        if let Some(count) = matches.opt_get("files")? {
            let bytes = matches.opt_get_default("bytes", 256)?;
            ManyFiles { nodes, count, bytes, rounds }.run(dir)?;
        } else if matches.opt_present("housekeeping") {
            Housekeeping { nodes, rounds, phase }.run(dir)?;
        } else if let Some(gib) = of("catch-up")? {
            CatchUp { nodes, bytes: (gib * GIB) as u64, rounds }.run(dir)?;
        } else if let Some(seconds) = of("overwrite")? {
            let working_set_bytes = matches.opt_get_default("working-set", 256)? * MIB;
            let output = matches.opt_get_default("output", ".".into())?;
            Overwrite { nodes, time: Duration::from_secs_f64(seconds), working_set_bytes, output }
                .run(dir)?;
        } else if let Some(limit_mib) = matches.opt_get::<u64>("memory-limit")? {
            let dataset_bytes = (matches.opt_get_default("dataset", 4.0)? * GIB) as u64;
            MemoryLimit { nodes, limit_bytes: limit_mib * MIB, dataset_bytes, window: phase }.run(dir)?;
        } else if matches.opt_present("copies") {
            Copies { rounds, window: phase }.run(dir)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    };
    mode().map(|was_one| was_one.then_some(())).transpose()
}

/// Latencies in microseconds, and the time that all took.
struct Measured {
    latencies_us: Histogram<u64>,
    elapsed: Duration,
}

fn report(what: &str, measured: &Measured) {
    let latencies = &measured.latencies_us;
    println!(
        "{what:<42} {:>10.0} {:>9} {:>9} {:>9}",
        latencies.len() as f64 / measured.elapsed.as_secs_f64(),
        latencies.value_at_quantile(0.5),
        latencies.value_at_quantile(0.99),
        latencies.max()
    );
}
