//! Measures writes per second of a cluster of `fsd` processes on this machine, next to the machine's own flush
//! time; with `--pressure`, what other clients that do nothing or too little cost those that work. Each client has one request in flight; all clients share one thread and one poll, as the daemon does.
//!
//! The figures of one run belong together; those of two runs on a shared machine do not.

#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types)]

mod cluster;
mod load;
mod pressure;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use getopts::{Matches, Options};
use hdrhistogram::Histogram;

use cluster::Cluster;
use load::{Load, Work};

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

    println!("{:<42} {:>10} {:>9} {:>9} {:>9}", "", "per second", "p50 µs", "p99 µs", "max µs");
    report("4 KiB write + fdatasync, one file", &measure_flush(&dir, window.min(Duration::from_secs(2)))?);
    if matches.opt_present("pressure") {
        return pressure::run(nodes, bytes, &dir, window);
    }
    let cluster = Cluster::start(nodes, &dir, "")?;
    let leader = cluster.wait_for_leader(Duration::from_secs(30))?;
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

fn measure_flush(dir: &Path, window: Duration) -> Result<Measured, Error> {
    const PAGE: [u8; 4096] = [7; 4096];
    const PAGES: u64 = 4096;
    let path = dir.join("flush-test");
    let mut file = File::create(&path)?;
    for _ in 0..PAGES {
        file.write_all(&[0; 4096])?;
    }
    file.sync_all()?;
    let mut latencies_us = Histogram::new(3)?;
    let begin = Instant::now();
    let mut page = 0;
    while begin.elapsed() < window {
        let start = Instant::now();
        file.seek(SeekFrom::Start(page % PAGES * 4096))?;
        file.write_all(&PAGE)?;
        file.sync_data()?;
        latencies_us.record(start.elapsed().as_micros() as u64)?;
        page += 1;
    }
    let elapsed = begin.elapsed();
    std::fs::remove_file(&path)?;
    Ok(Measured { latencies_us, elapsed })
}
