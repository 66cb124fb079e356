//! A helper thread that makes segments ready ahead of need: filling one with zeros takes longer than a turn
//! may. It is handed the whole job and gives back the whole result; it never sees the loop's state.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use crate::mapping::Disk;
use crate::storage::{Spare, SpareRequest};

/// The loop's handle on the thread. The thread ends with it.
pub(super) struct SpareMaker<D: Disk> {
    requests: Sender<SpareRequest>,
    spares: Receiver<io::Result<Spare<D::File>>>,
    busy: bool,
}

impl<D: Disk> SpareMaker<D> {
    pub(super) fn start(disk: D, waker: Waker) -> io::Result<Self> {
        let (requests, jobs) = mpsc::channel::<SpareRequest>();
        let (results, spares) = mpsc::channel();
        thread::Builder::new().name("fsd-spare".into()).spawn(move || {
            for job in jobs {
                if results.send(job.prepare(&disk)).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, spares, busy: false })
    }

    /// Whether a segment is being made.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Hands over a job.
    pub(super) fn request(&mut self, request: SpareRequest) {
        self.busy = true;
        self.requests.send(request).expect("the thread lives as long as its requests are wanted");
    }

    /// The segment, once it is made.
    pub(super) fn take(&mut self) -> Option<io::Result<Spare<D::File>>> {
        let spare = self.spares.try_recv().ok()?;
        self.busy = false;
        Some(spare)
    }
}
