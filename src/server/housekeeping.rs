//! When a node takes a checkpoint, and what it removes once the checkpoint stands.
//!
//! A checkpoint is due when the log has grown by enough: half a segment, or a share of what is live, so that taking
//! checkpoints costs a bounded share of all writing however large the store is. The image of the store is given out
//! slice by slice, one for each piece of work that the helper has done, and so costs no turn more than one slice.
//!
//! The newest two checkpoints are kept, with the log behind the older one: should the newer one turn out to be
//! damaged, the older one and the log are as good. Everything before the older one goes, but for the segments with
//! contents that a checkpoint or the store still refers to.

use std::io;

use fsd_wire::{EntryId, LogIndex};

use super::Fault;
use super::node::Node;
use crate::file_store::ImageHead;
use crate::limits;
use crate::mapping::Disk;
use crate::raft::LogSummary;
use crate::storage::{
    CheckpointHead, CheckpointWriter, Done, Job, SegmentId, SegmentedLog, Spare, StorageError,
};

/// What a node knows of its checkpoints.
pub(super) struct Housekeeping<D: Disk> {
    /// Those that count, the older one first; at most two.
    checkpoints: Vec<CheckpointHead>,
    making: Option<Making<D>>,
    /// A job is out, or its result is not looked at yet.
    is_busy: bool,
    /// Bytes of the log when the newest checkpoint was begun, or given up.
    grown_from: u64,
    /// Files that nothing refers to.
    unused: Vec<String>,
    has_complained: bool,
    spare_complaint: bool,
}

/// A checkpoint that is being made.
struct Making<D: Disk> {
    head: CheckpointHead,
    /// While no job has it.
    writer: Option<CheckpointWriter<D>>,
    /// The image has more to give.
    more: bool,
}

impl<D: Disk> Housekeeping<D> {
    /// Behind a start that found these checkpoints, the older one first.
    pub(super) fn new(checkpoints: Vec<CheckpointHead>, log: &SegmentedLog<D>) -> Self {
        // The log behind the older one was read: at worst the next one is taken a little early.
        let grown_from = if checkpoints.is_empty() { 0 } else { log.appended_bytes() };
        Self {
            checkpoints,
            making: None,
            is_busy: false,
            grown_from,
            unused: Vec::new(),
            has_complained: false,
            spare_complaint: false,
        }
    }
}

impl<D: Disk> Node<D> {
    /// Makes the log's first segment ready: a disk without room is told of before the node says that it is ready.
    ///
    /// # Errors
    /// If the disk has no room, or fails.
    pub fn make_first_spare(&mut self, disk: &D) -> Result<(), Fault> {
        match self.log.wants_spare() {
            Some(request) => Ok(self.log.install_spare(request.prepare(disk).map_err(Fault::Spare)?)?),
            None => Ok(()),
        }
    }

    /// Work for the helper, if there is any. Of each kind, one job is out at a time.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn next_job(&mut self) -> Result<Option<Job<D>>, Fault> {
        if let Some(request) = self.log.wants_spare() {
            return Ok(Some(Job::Spare(request)));
        }
        if self.housekeeping.is_busy {
            return Ok(None);
        }
        let job = self.next_housekeeping_job()?;
        self.housekeeping.is_busy = job.is_some();
        Ok(job)
    }

    /// What became of a job.
    ///
    /// # Errors
    /// If the disk fails: the process must end.
    pub fn job_done(&mut self, done: Done<D>) -> Result<(), Fault> {
        match done {
            Done::Spare(spare) => return self.spare_done(spare),
            Done::Checkpoint(Ok(writer)) => {
                let making = self.housekeeping.making.as_mut().expect("a checkpoint is being made");
                making.writer = Some(writer);
            }
            Done::Checkpoint(Err(error)) => self.give_checkpoint_up(error)?,
            Done::CheckpointFinished(finished) => {
                finished.map_err(|source| failed("give a checkpoint its name", source))?;
                self.checkpoint_stands();
            }
            Done::Removed(removed) => {
                removed.map_err(|source| failed("remove files that are of no use", source))?;
            }
        }
        self.housekeeping.is_busy = false;
        Ok(())
    }

    /// The segment that the log asked for. Without it, nothing is lost yet: the log goes on in its present one, and asks
    /// again later.
    fn spare_done(&mut self, spare: io::Result<Spare<D::File>>) -> Result<(), Fault> {
        let is_news = !std::mem::replace(&mut self.housekeeping.spare_complaint, spare.is_err());
        match spare {
            Ok(spare) => return Ok(self.log.install_spare(spare)?),
            Err(error) if is_news => {
                log::warn!("cannot make the next log segment ready, and will try again: {error}");
            }
            Err(_) => {}
        }
        self.log.spare_failed();
        Ok(())
    }

    fn next_housekeeping_job(&mut self) -> Result<Option<Job<D>>, Fault> {
        if let Some(making) = &mut self.housekeeping.making {
            let writer = making.writer.take().expect("no job has it");
            if !making.more {
                return Ok(Some(Job::FinishCheckpoint(writer)));
            }
            let mut slice = Vec::with_capacity(2 * limits::IMAGE_SLICE_BYTES);
            making.more = self.store.image_slice(limits::IMAGE_SLICE_BYTES, &mut slice);
            return Ok(Some(Job::AppendToCheckpoint(writer, slice)));
        }
        if !self.housekeeping.unused.is_empty() {
            return Ok(Some(Job::Remove(std::mem::take(&mut self.housekeeping.unused))));
        }
        if self.checkpoint_is_due() { self.begin_checkpoint().map(Some) } else { Ok(None) }
    }

    /// Whether the log has grown by enough since the newest checkpoint.
    fn checkpoint_is_due(&self) -> bool {
        let grown_bytes = self.log.appended_bytes() - self.housekeeping.grown_from;
        let live_bytes = self.store.live_total().bytes;
        let due_bytes = (self.log.segment_bytes() / 2).max(live_bytes / limits::CHECKPOINT_AT_LIVE_SHARE);
        grown_bytes >= due_bytes && self.store.last_applied() > self.newest_checkpoint()
    }

    fn newest_checkpoint(&self) -> LogIndex {
        self.housekeeping.checkpoints.last().map_or(LogIndex(0), |head| head.entry.index)
    }

    fn begin_checkpoint(&mut self) -> Result<Job<D>, Fault> {
        let index = self.store.last_applied();
        let term = self.raft.term_at(index).expect("what was applied is in the log");
        let base = self.log.base_behind(EntryId { term, index })?;
        let segments = self.store.live_segments().map(|(segment, _)| SegmentId(segment)).collect();
        let image = self.store.begin_image();
        let LogSummary { registrations, genesis, .. } = self.raft.summary_at(index, base.stamp);
        let ImageHead { revision, files, sessions, items_bytes, .. } = image;
        let head = CheckpointHead {
            salt: self.log.draw_salt(),
            identity: self.log.identity().clone(),
            entry: base.entry,
            stamp: base.stamp,
            log_end: base.end,
            genesis,
            registrations,
            segments,
            revision: revision.0,
            files,
            sessions,
            body_bytes: items_bytes,
            begins_anew: false,
        };
        self.housekeeping.grown_from = self.log.appended_bytes();
        let making = Making { head: head.clone(), writer: None, more: files + sessions > 0 };
        self.housekeeping.making = Some(making);
        Ok(Job::BeginCheckpoint(head))
    }

    /// There is no room for a checkpoint, which is tried again later, or the disk fails.
    fn give_checkpoint_up(&mut self, error: io::Error) -> Result<(), Fault> {
        if error.kind() != io::ErrorKind::StorageFull {
            return Err(failed("write a checkpoint", error));
        }
        if !self.housekeeping.has_complained {
            log::warn!("cannot take a checkpoint, and will try again: {error}");
            self.housekeeping.has_complained = true;
        }
        let making = self.housekeeping.making.take().expect("a checkpoint is being made");
        self.housekeeping.unused.push(making.head.temporary_name());
        if making.more {
            self.store.drop_image();
        }
        Ok(())
    }

    /// A checkpoint is on the disk for good: what only an earlier one needed can go.
    fn checkpoint_stands(&mut self) {
        let making = self.housekeeping.making.take().expect("a checkpoint is being made");
        let housekeeping = &mut self.housekeeping;
        housekeeping.has_complained = false;
        housekeeping.checkpoints.push(making.head);
        while housekeeping.checkpoints.len() > limits::CHECKPOINTS_KEPT {
            housekeeping.unused.push(housekeeping.checkpoints.remove(0).name());
        }
        if housekeeping.checkpoints.len() == limits::CHECKPOINTS_KEPT {
            let base = housekeeping.checkpoints[0].base();
            self.raft.compact(base.entry.index);
            self.log.trim(base);
        }
        self.release_segments();
    }

    /// Lets segments go that neither the store nor a checkpoint refers to.
    fn release_segments(&mut self) {
        let is_referred = |checkpoints: &[CheckpointHead], id| {
            checkpoints.iter().any(|head| head.segments.binary_search(&id).is_ok())
        };
        let segments: Vec<SegmentId> = self.log.contents_segments().map(|segment| segment.id).collect();
        for id in segments {
            if self.store.live(id.0).files == 0 && !is_referred(&self.housekeeping.checkpoints, id) {
                self.housekeeping.unused.push(self.log.release(id));
            }
        }
    }
}

fn failed(doing: &str, source: io::Error) -> Fault {
    StorageError::Io { doing: doing.to_owned(), source }.into()
}
