//! A helper thread for work on files that takes longer than a turn may. It is handed each job whole and gives back the
//! whole result; it never sees the loop's state.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use super::jobs::{Done, Job};
use crate::mapping::Disk;

/// The loop's handle on the thread. The thread ends with it.
pub(super) struct Helper<D: Disk> {
    jobs: Sender<Job<D>>,
    results: Receiver<Done<D>>,
}

impl<D: Disk> Helper<D> {
    pub(super) fn start(disk: D, waker: Waker) -> io::Result<Self> {
        let (jobs, to_do) = mpsc::channel::<Job<D>>();
        let (done, results) = mpsc::channel();
        thread::Builder::new().name("fsd-helper".into()).spawn(move || {
            for job in to_do {
                if done.send(job.run(&disk)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, results })
    }

    /// Hands over a job. They are done one after the other.
    pub(super) fn hand_over(&mut self, job: Job<D>) {
        self.jobs.send(job).expect("the thread lives as long as its results are wanted");
    }

    /// What became of the job that was done first.
    pub(super) fn take(&mut self) -> Option<Done<D>> {
        self.results.try_recv().ok()
    }
}
