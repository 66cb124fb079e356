//! A light load: small writes at a fixed pace. Each is measured from when it was due, so that a stall counts for all
//! the writes that it held up. Beside them, and measured in the same way, a file of the same disk is flushed now and then: what happens to
//! that is the disk's doing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Error;
use crate::figures::{Figures, Goal};
use crate::fill::{Client, Files};
use crate::machine::{FlushTest, median};

/// Connections that write.
const WRITERS: u64 = 4;
/// Writes of each of them in a second.
const WRITES_PER_SECOND: u64 = 125;
const FILES: u64 = 1000;
const BYTES: usize = 256;
const FLUSHES_PER_SECOND: u64 = 100;
const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

/// What the writers share with whoever looks at them.
pub(crate) struct Paced {
    dir: PathBuf,
    latencies_us: Mutex<Histogram<u64>>,
    flushes_us: Mutex<Histogram<u64>>,
    stop: AtomicBool,
}

/// What was measured in a while.
pub(crate) struct Latencies {
    writes_us: Histogram<u64>,
    flushes_us: Histogram<u64>,
}

impl Paced {
    /// A load whose plain flushes go to a file in this directory.
    pub(crate) fn new(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            dir: dir.to_owned(),
            latencies_us: Mutex::new(Histogram::new(3)?),
            flushes_us: Mutex::new(Histogram::new(3)?),
            stop: AtomicBool::new(false),
        })
    }

    /// Runs the load while `measured` runs.
    pub(crate) fn beside<T>(
        &self,
        nodes: &[SocketAddr],
        measured: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut test = FlushTest::new(&self.dir)?;
        thread::scope(|scope| {
            let mut writers: Vec<_> = (0..WRITERS).map(|writer| self.spawn(scope, nodes, writer)).collect();
            writers.push(scope.spawn(move || self.flush(&mut test).map_err(|error| error.to_string())));
            let result = measured();
            self.stop.store(true, Ordering::SeqCst);
            for writer in writers {
                writer.join().expect("no writer panics")?;
            }
            result
        })
    }

    fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        nodes: &'scope [SocketAddr],
        writer: u64,
    ) -> ScopedJoinHandle<'scope, Result<(), String>> {
        scope.spawn(move || self.write(nodes, writer).map_err(|error| format!("the light load: {error}")))
    }

    fn write(&self, nodes: &[SocketAddr], writer: u64) -> Result<(), Error> {
        let files = Files::new("paced", FILES, BYTES..=BYTES);
        let mut client = Client::new(nodes);
        let pace = Duration::from_nanos(1_000_000_000 / WRITES_PER_SECOND);
        let begin = Instant::now() + pace * writer as u32 / WRITERS as u32;
        self.keep_pace(begin, pace, &self.latencies_us, |write| {
            client.change_all(|| vec![files.write((write * WRITERS + writer) % FILES, write)])?;
            Ok(())
        })
    }

    fn flush(&self, test: &mut FlushTest) -> Result<(), Error> {
        let pace = Duration::from_nanos(1_000_000_000 / FLUSHES_PER_SECOND);
        self.keep_pace(Instant::now(), pace, &self.flushes_us, |_| test.flush())
    }

    /// Does something again and again, and measures each time from when it was due.
    fn keep_pace(
        &self,
        mut due: Instant,
        pace: Duration,
        latencies_us: &Mutex<Histogram<u64>>,
        mut work: impl FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for number in 0.. {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            work(number)?;
            let latency_us = due.elapsed().as_micros() as u64;
            latencies_us.lock().expect("no holder panics").record(latency_us)?;
            due += pace;
        }
        Ok(())
    }

    /// What was measured since the last call.
    pub(crate) fn take(&self) -> Latencies {
        let taken = |latencies_us: &Mutex<Histogram<u64>>| {
            let mut latencies_us = latencies_us.lock().expect("no holder panics");
            let taken = latencies_us.clone();
            latencies_us.reset();
            taken
        };
        Latencies { writes_us: taken(&self.latencies_us), flushes_us: taken(&self.flushes_us) }
    }
}

/// Compares quiet and busy phases: of the writes, with the goal for p99.9, and of the plain flushes.
pub(crate) fn compare(quiet: &[Latencies], busy: &[Latencies], when: &str, figures: &mut Figures) {
    let writes = format!("{} writes of {BYTES} B per second", WRITERS * WRITES_PER_SECOND);
    let flushes = format!("{FLUSHES_PER_SECOND} plain flushes per second");
    for (quantile, name) in QUANTILES {
        for (what, is_writes) in [(&writes, true), (&flushes, false)] {
            let of = |phases: &[Latencies]| {
                let each = phases.iter().map(|phase| {
                    let latencies_us = if is_writes { &phase.writes_us } else { &phase.flushes_us };
                    latencies_us.value_at_quantile(quantile) as f64
                });
                median(each.collect())
            };
            let (quiet, busy) = (of(quiet), of(busy));
            figures.put(format!("{name} of {what}, quiet"), quiet, "µs");
            figures.put(format!("{name} of {what}, {when}"), busy, "µs");
            let ratio = format!("{name} of {what}, against quiet");
            if is_writes && name == "p99.9" {
                figures.judge(ratio, busy / quiet, "", Goal::AtMost(2.0));
            } else {
                figures.put(ratio, busy / quiet, "");
            }
        }
    }
}
