//! Helper threads for work on files that takes longer than a turn may, one for each [`Lane`]. They are handed each job whole
//! and give back the whole result; they never see the loop's state.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use mio::Waker;

use super::jobs::{Done, Job, Lane};
use crate::mapping::Disk;

/// How much the thread for streams leaves the processor to the loops, of this node and of others on the machine.
const STREAM_NICENESS: i32 = 5;

/// The loop's handle on the threads. They end with it.
pub(super) struct Helper<D: Disk> {
    segments: Sender<Job<D>>,
    streams: Sender<Job<D>>,
    housekeeping: Sender<Job<D>>,
    results: Receiver<Done<D>>,
}

impl<D: Disk> Helper<D> {
    pub(super) fn start(disk: D, waker: Waker) -> io::Result<Self> {
        let waker = Arc::new(waker);
        let (done, results) = mpsc::channel();
        let start =
            |name, niceness| start_thread(name, niceness, disk.clone(), done.clone(), Arc::clone(&waker));
        Ok(Self {
            segments: start("fsd-segments", 0)?,
            streams: start("fsd-streams", STREAM_NICENESS)?,
            housekeeping: start("fsd-helper", 0)?,
            results,
        })
    }

    /// Hands over a job.
    pub(super) fn hand_over(&mut self, job: Job<D>) {
        let jobs = match job.lane() {
            Lane::Segments => &self.segments,
            Lane::Streams => &self.streams,
            Lane::Housekeeping => &self.housekeeping,
        };
        jobs.send(job).expect("the threads live as long as their results are wanted");
    }

    /// What becomes of the next job, if it is done within this time.
    pub(super) fn wait(&mut self, ms: u64) -> Option<Done<D>> {
        self.results.recv_timeout(Duration::from_millis(ms)).ok()
    }

    /// What became of the job that was done first.
    pub(super) fn take(&mut self) -> Option<Done<D>> {
        self.results.try_recv().ok()
    }
}

fn start_thread<D: Disk>(
    name: &str,
    niceness: i32,
    disk: D,
    done: Sender<Done<D>>,
    waker: Arc<Waker>,
) -> io::Result<Sender<Job<D>>> {
    let (jobs, to_do) = mpsc::channel::<Job<D>>();
    thread::Builder::new().name(name.into()).spawn(move || {
        // Only speed depends on it. On Linux, each thread has a niceness of its own.
        let _ = rustix::process::nice(niceness);
        for job in to_do {
            if done.send(job.run(&disk)).is_err() || waker.wake().is_err() {
                return;
            }
        }
    })?;
    Ok(jobs)
}
