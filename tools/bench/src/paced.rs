//! A light load: small writes at a fixed pace. Each is measured from when it was due, so that a stall counts for all
//! the writes that it held up.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Error;
use crate::fill::{Client, Files};

/// Connections that write.
const WRITERS: u64 = 4;
/// Writes of each of them in a second.
const WRITES_PER_SECOND: u64 = 125;
const FILES: u64 = 1000;
const BYTES: usize = 256;

/// What the writers share with whoever looks at them.
pub(crate) struct Paced {
    latencies_us: Mutex<Histogram<u64>>,
    stop: AtomicBool,
    written: AtomicU64,
}

impl Paced {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            latencies_us: Mutex::new(Histogram::new(3)?),
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
        })
    }

    /// The load in words.
    pub(crate) fn describe() -> String {
        format!("{} writes of {BYTES} B per second", WRITERS * WRITES_PER_SECOND)
    }

    /// Runs the load while `measured` runs.
    pub(crate) fn beside<T>(
        &self,
        nodes: &[SocketAddr],
        measured: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|writer| self.spawn(scope, nodes, writer)).collect();
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
        let mut due = Instant::now() + pace * writer as u32 / WRITERS as u32;
        for write in 0.. {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            client.change_all(|| vec![files.write((write * WRITERS + writer) % FILES, write)])?;
            let latency_us = due.elapsed().as_micros() as u64;
            self.latencies_us.lock().expect("no holder panics").record(latency_us)?;
            self.written.fetch_add(1, Ordering::SeqCst);
            due += pace;
        }
        Ok(())
    }

    /// What was measured since the last call.
    pub(crate) fn take(&self) -> Histogram<u64> {
        let mut latencies_us = self.latencies_us.lock().expect("no holder panics");
        let taken = latencies_us.clone();
        latencies_us.reset();
        taken
    }
}
