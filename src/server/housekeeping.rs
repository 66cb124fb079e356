//! When a node takes a checkpoint, and what it removes once the checkpoint stands.
//!
//! A checkpoint is due when the log has grown by enough: a share of a segment, or of what is live, so that taking
//! checkpoints costs a bounded share of all writing however large the store is. The image of the store is given out
//! slice by slice, one for each piece of work that the helper has done, and so costs no turn more than one slice.
//!
//! The newest two checkpoints are kept, with the log behind the older one: should the newer one turn out to be
//! damaged, the older one and the log are as good. Everything before the older one goes, but for the segments with
//! contents that a checkpoint or the store still refers to, and what a follower is about to get. Before each
//! checkpoint, segments of which little is live are cleaned (`cleaning.rs`).
//!
//! Where the log does not grow any more but space is to come back, as behind the deletion of much, the leader puts
//! empty entries into it, for there to be something of which a checkpoint can be taken.

use std::io;

use fsd_wire::{EntryId, LogIndex};

use super::Fault;
use super::cleaning::Cleaning;
use super::jobs::{Done, Job, Unused};
use super::node::Node;
use super::room::is_full;
use crate::file_store::{FileStore, ImageHead};
use crate::limits;
use crate::mapping::Disk;
use crate::marks::mark;
use crate::mutants::mutant;
use crate::raft::LogSummary;
use crate::storage::{
    CheckpointHead, CheckpointWriter, LogBase, NamelessCheckpoint, Position, SegmentId, SegmentedLog, Spare,
    StorageError,
};
use crate::transfer::Received;

/// A store that came from another node.
pub(super) type ReceivedStore<D> = Box<Received<<D as Disk>::File>>;

/// What a node knows of its checkpoints.
pub(super) struct Housekeeping<D: Disk> {
    /// Those that count, the older one first; at most two.
    checkpoints: Vec<CheckpointHead>,
    making: Option<Making<D>>,
    pub(super) cleaning: Option<Cleaning<D>>,
    /// The next checkpoint is taken though the log has not grown by enough: for space to come back.
    is_hurried: bool,
    /// What had to be cleaned before it was.
    is_clean: bool,
    /// When the next look at the space is worth its cost.
    look_at_ms: u64,
    /// A job is out, or its result is not looked at yet.
    is_busy: bool,
    /// Bytes of the log when the newest checkpoint was begun, or given up.
    grown_from: u64,
    /// Files that nothing refers to.
    unused_names: Vec<String>,
    /// What is to be let go by the helper.
    unused: Vec<Unused>,
    /// Bytes of segments and checkpoints that are no more, but are not removed yet.
    leaving_bytes: u64,
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
    /// All of it is on the disk, under a temporary name.
    nameless: Option<NamelessCheckpoint<D>>,
    /// The store, if it is not this node's own: with this checkpoint it becomes that.
    received: Option<ReceivedStore<D>>,
}

impl<D: Disk> Housekeeping<D> {
    /// Behind a start that found these checkpoints, the older one first.
    pub(super) fn new(checkpoints: Vec<CheckpointHead>, log: &SegmentedLog<D>) -> Self {
        let covered = checkpoints.last().map_or(Position::default(), |newest| newest.log_end);
        let grown_from = log.appended_bytes() - log.bytes_behind(covered);
        Self {
            checkpoints,
            making: None,
            cleaning: None,
            is_hurried: false,
            is_clean: false,
            look_at_ms: 0,
            is_busy: false,
            grown_from,
            unused_names: Vec::new(),
            unused: Vec::new(),
            leaving_bytes: 0,
            has_complained: false,
            spare_complaint: false,
        }
    }

    /// The newest checkpoint that stands.
    pub(super) fn newest_checkpoint(&self) -> Option<&CheckpointHead> {
        self.checkpoints.last()
    }

    /// The bytes of those that stand and of the one that is being made.
    pub(super) fn checkpoints_bytes(&self) -> u64 {
        let making = self.making.iter().map(|making| &making.head);
        self.checkpoints.iter().chain(making).map(CheckpointHead::file_bytes).sum()
    }

    /// The checkpoints that stand, the older one first.
    pub(super) fn checkpoints(&self) -> &[CheckpointHead] {
        &self.checkpoints
    }

    /// Whether the helper has a job of this kind.
    pub(super) fn is_working(&self) -> bool {
        self.is_busy
    }

    /// Bytes of segments and checkpoints that are no more, but are not removed yet.
    pub(super) fn leaving_bytes(&self) -> u64 {
        self.leaving_bytes
    }

    /// Whether a checkpoint is being made.
    pub(super) fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// Files that nothing refers to are to be removed.
    pub(super) fn discard(&mut self, names: impl Iterator<Item = String>) {
        self.unused_names.extend(names);
    }

    /// Something that was mapped, or is large, is of no use any more.
    pub(super) fn let_go(&mut self, unused: impl Send + 'static) {
        self.unused.push(Box::new(unused));
    }

    /// A store that came from another node is in a checkpoint that only lacks its name.
    pub(super) fn ready_to_install(&self) -> Option<&CheckpointHead> {
        let making = self.making.as_ref()?;
        (making.received.is_some() && making.nameless.is_some()).then_some(&making.head)
    }

    /// The entry of a received store of whose checkpoint nothing is left to give out.
    pub(super) fn installing(&self) -> Option<EntryId> {
        let making = self.making.as_ref()?;
        (making.received.is_some() && !making.more).then_some(making.head.entry)
    }

    /// Gives the checkpoint its name: from now on, each start finds the received store.
    pub(super) fn finish_installation(&mut self) -> Result<(CheckpointHead, ReceivedStore<D>), Fault> {
        let making = self.making.take().expect("it is ready");
        let (nameless, received) = making.nameless.zip(making.received).expect("it is ready");
        nameless.name().map_err(|source| failed("give a checkpoint its name", source))?;
        Ok((making.head, received))
    }

    /// The received store is not needed any more.
    pub(super) fn give_installation_up(&mut self) {
        let making = self.making.take().expect("it is ready");
        self.unused_names.push(making.head.temporary_name());
        if let Some(received) = making.received {
            self.unused_names.extend(received.kept_names());
            self.let_go(received);
        }
    }

    /// A checkpoint stands from which the log begins anew: those before it are of another log.
    pub(super) fn begin_anew(&mut self, head: CheckpointHead) {
        let before = std::mem::replace(&mut self.checkpoints, vec![head]);
        self.unused_names.extend(before.iter().map(CheckpointHead::name));
        self.abandon_cleaning();
    }
}

impl<D: Disk> Node<D> {
    /// Makes the log's first segment ready: a disk without room is told of before the node says that it is ready.
    ///
    /// # Errors
    /// If the disk has no room and the log is empty, or if it fails.
    pub fn make_first_spare(&mut self, disk: &D) -> Result<(), Fault> {
        let Some(request) = self.log.wants_spare() else { return Ok(()) };
        match request.prepare(disk) {
            Ok(spare) => Ok(self.log.install_spare(spare)?),
            // A node that has something to serve does so, and may delete some of it.
            Err(error) if is_full(&error) && self.log.last_index() > LogIndex(0) => {
                self.log.spare_failed();
                self.spare_made(self.log.segment_bytes(), Some(&error));
                Ok(())
            }
            Err(error) => Err(Fault::Spare(error)),
        }
    }

    /// Work for the helper, if there is any. Of each kind, one job is out at a time.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn next_job(&mut self) -> Result<Option<Job<D>>, Fault> {
        if self.may_make_segment(self.log.segment_bytes())
            && self.is_time_for_segment()
            && let Some(request) = self.log.wants_spare()
        {
            return Ok(Some(Job::Spare(request)));
        }
        if self.room.wants_to_ask() {
            return Ok(Some(Job::AskRoom));
        }
        self.open_backups();
        if let Some(job) = self.catch_up.jobs.pop_front().or_else(|| self.backups.jobs.pop_front()) {
            return Ok(Some(job));
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
        self.take_result(done)?;
        // A store that is ready is installed in the next turn.
        self.unfinished |= self.housekeeping.ready_to_install().is_some();
        Ok(())
    }

    fn take_result(&mut self, done: Done<D>) -> Result<(), Fault> {
        match done {
            Done::Spare(spare) => return self.spare_done(spare),
            Done::Room(told) => {
                self.room_told(told);
                return Ok(());
            }
            Done::Read(node, number, read) => {
                // What was read leaves with the next turn.
                self.unfinished = true;
                return self.chunk_read(node, number, read);
            }
            Done::Written(number, written, offset, bytes) => {
                self.unfinished = true;
                return self.chunk_written(number, written, offset, bytes);
            }
            Done::BackupRead(number, read) => {
                self.unfinished = true;
                return self.backup_read(number, read);
            }
            Done::Checkpoint(Ok(writer)) => {
                let making = self.housekeeping.making.as_mut().expect("a checkpoint is being made");
                making.writer = Some(writer);
            }
            Done::Checkpoint(Err(error)) => self.give_checkpoint_up(error)?,
            Done::CheckpointCompleted(completed) => {
                let nameless = completed.map_err(|source| failed("flush a checkpoint", source))?;
                let making = self.housekeeping.making.as_mut().expect("a checkpoint is being made");
                making.nameless = Some(nameless);
            }
            Done::CheckpointFinished(finished) => {
                finished.map_err(|source| failed("give a checkpoint its name", source))?;
                self.checkpoint_stands()?;
            }
            Done::Copied(copied) => self.copied(copied)?,
            Done::Removed(removed) => {
                removed.map_err(|source| failed("remove files that are of no use", source))?;
                // What was released since goes with the next job of this kind, which is the next one.
                self.housekeeping.leaving_bytes = 0;
            }
        }
        self.housekeeping.is_busy = false;
        self.room.ask();
        Ok(())
    }

    /// The segment that the log asked for. Without it, nothing is lost yet: the log goes on in its present one, and asks
    /// again later.
    fn spare_done(&mut self, spare: io::Result<Spare<D::File>>) -> Result<(), Fault> {
        let is_news = !std::mem::replace(&mut self.housekeeping.spare_complaint, spare.is_err());
        let segment_bytes = self.log.segment_bytes();
        let error = match spare {
            Ok(spare) => {
                self.log.install_spare(spare)?;
                self.spare_made(segment_bytes, None);
                return Ok(());
            }
            Err(error) => error,
        };
        if is_news {
            log::warn!("cannot make the next log segment ready, and will try again: {error}");
        }
        self.log.spare_failed();
        self.spare_made(segment_bytes, Some(&error));
        Ok(())
    }

    fn next_housekeeping_job(&mut self) -> Result<Option<Job<D>>, Fault> {
        if self.housekeeping.making.is_some() {
            return Ok(self.next_slice());
        }
        let Housekeeping { unused, unused_names, .. } = &mut self.housekeeping;
        if !unused.is_empty() || !unused_names.is_empty() {
            return Ok(Some(Job::Remove(std::mem::take(unused), std::mem::take(unused_names))));
        }
        if let Some(received) = self.catch_up.take_received() {
            return Ok(Some(self.begin_installation(received)));
        }
        let is_due = self.checkpoint_is_due() || self.backup_needs_checkpoint();
        if self.housekeeping.cleaning.is_none() && is_due && !self.housekeeping.is_clean {
            self.housekeeping.is_clean = true;
            self.begin_cleaning();
        }
        if self.housekeeping.cleaning.is_some() {
            return Ok(self.next_cleaning_step());
        }
        if is_due { self.begin_checkpoint().map(Some) } else { Ok(None) }
    }

    /// Goes on with the checkpoint that is being made.
    fn next_slice(&mut self) -> Option<Job<D>> {
        let making = self.housekeeping.making.as_mut().expect("a checkpoint is being made");
        if !making.more {
            // One of a received store gets its name between two turns.
            let end = if making.received.is_some() { Job::CompleteCheckpoint } else { Job::FinishCheckpoint };
            return making.writer.take().map(end);
        }
        let store = making.received.as_mut().map_or(&mut self.store, |received| &mut received.store);
        let mut slice = Vec::with_capacity(2 * limits::IMAGE_SLICE_BYTES);
        making.more = store.image_slice(limits::IMAGE_SLICE_BYTES, &mut slice);
        making.writer.take().map(|writer| Job::AppendToCheckpoint(writer, slice))
    }

    /// Whether space is to come back: a checkpoint is due or being made, segments are being cleaned, or files removed.
    pub(super) fn is_to_make_space(&self) -> bool {
        let Housekeeping { is_busy, making, cleaning, unused_names, .. } = &self.housekeeping;
        *is_busy
            || making.is_some()
            || cleaning.is_some()
            || !unused_names.is_empty()
            || self.checkpoint_is_due()
    }

    /// Whether the log has grown by enough since the newest checkpoint.
    fn checkpoint_is_due(&self) -> bool {
        let grown_bytes = self.grown_bytes();
        let (growth_bytes, is_low) = (self.growth_bytes(), self.room.is_low());
        let growth_bytes =
            if is_low { growth_bytes / limits::CHECKPOINT_WHILE_LOW_SHARE } else { growth_bytes };
        let is_due = self.housekeeping.is_hurried
            || grown_bytes >= growth_bytes
            || is_low && self.checkpoint_would_make_room();
        is_due && self.store.last_applied() > self.newest_index() && self.may_make_checkpoint()
    }

    /// What was appended since the newest checkpoint was begun.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.log.appended_bytes() - self.housekeeping.grown_from
    }

    /// The entry as of which the newest checkpoint is.
    fn newest_index(&self) -> LogIndex {
        self.housekeeping.newest_checkpoint().map_or(LogIndex(0), |head| head.entry.index)
    }

    /// Sees to it that space comes back where the log does not grow.
    pub(super) fn look_at_space(&mut self, now_ms: u64) {
        let image_bytes = self.store.image_head().items_bytes;
        let housekeeping = &mut self.housekeeping;
        if now_ms < housekeeping.look_at_ms {
            return;
        }
        housekeeping.look_at_ms =
            now_ms + limits::ROOM_STEP_MS * (1 + image_bytes / limits::SPACE_LOOK_BYTES);
        if housekeeping.making.is_some() || housekeeping.cleaning.is_some() || !self.is_over_bound() {
            return;
        }
        self.housekeeping.is_hurried = true;
        if self.raft.is_leader() && self.store.last_applied() == self.newest_index() {
            mark!("space-comes-back-to-idle-log");
            // Refused, it is tried again.
            let _ = self.raft.propose_tick(now_ms);
        }
    }

    /// Whether a backup waits for a checkpoint that is newer than all that stand.
    fn backup_needs_checkpoint(&self) -> bool {
        self.backups.want_checkpoint_behind(self.newest_index())
    }

    fn begin_checkpoint(&mut self) -> Result<Job<D>, Fault> {
        let index = self.store.last_applied();
        let term = self.raft.term_at(index).expect("what was applied is in the log");
        let base = self.log.base_behind(EntryId { term, index })?;
        let LogSummary { registrations, genesis, .. } = self.raft.summary_at(index, base.stamp);
        self.housekeeping.grown_from = self.log.appended_bytes();
        (self.housekeeping.is_hurried, self.housekeeping.is_clean) = (false, false);
        self.measurements.checkpoint_begins();
        let (salt, identity) = (self.log.draw_salt(), self.log.identity().clone());
        let (image, segments) = begin_image(&mut self.store);
        let head = CheckpointHead {
            salt,
            identity,
            entry: base.entry,
            stamp: base.stamp,
            log_end: base.end,
            genesis,
            registrations,
            segments,
            revision: image.revision.0,
            files: image.files,
            sessions: image.sessions,
            body_bytes: image.items_bytes,
            begins_anew: false,
        };
        Ok(self.begin_making(head, None))
    }

    /// A store came whole from another node: a checkpoint of it is written.
    fn begin_installation(&mut self, mut received: ReceivedStore<D>) -> Job<D> {
        let (image, segments) = begin_image(&mut received.store);
        let base = self.log.base_for(received.head.entry, image.cluster_time);
        let head = CheckpointHead {
            salt: self.log.draw_salt(),
            identity: self.log.identity().clone(),
            entry: base.entry,
            stamp: base.stamp,
            log_end: base.end,
            genesis: received.head.genesis,
            registrations: received.head.registrations.clone(),
            segments,
            revision: image.revision.0,
            files: image.files,
            sessions: image.sessions,
            body_bytes: image.items_bytes,
            begins_anew: true,
        };
        self.begin_making(head, Some(received))
    }

    fn begin_making(&mut self, head: CheckpointHead, received: Option<ReceivedStore<D>>) -> Job<D> {
        let more = head.files + head.sessions > 0;
        self.housekeeping.making =
            Some(Making { head: head.clone(), writer: None, more, nameless: None, received });
        Job::BeginCheckpoint(head)
    }

    /// There is no room for a checkpoint, which is tried again later, or the disk fails.
    fn give_checkpoint_up(&mut self, error: io::Error) -> Result<(), Fault> {
        if !is_full(&error) {
            return Err(failed("write a checkpoint", error));
        }
        self.room.found_none();
        if !self.housekeeping.has_complained {
            log::warn!("cannot take a checkpoint, and will try again: {error}");
            self.housekeeping.has_complained = true;
        }
        let making = self.housekeeping.making.take().expect("a checkpoint is being made");
        self.backups.checkpoint_failed();
        self.housekeeping.unused_names.push(making.head.temporary_name());
        match making.received {
            Some(received) => {
                self.housekeeping.discard(received.kept_names());
                self.housekeeping.let_go(received);
                self.abandon_receiving();
            }
            None if making.more => self.store.drop_image(),
            None => {}
        }
        Ok(())
    }

    /// A checkpoint is on the disk for good: what only an earlier one needed can go.
    fn checkpoint_stands(&mut self) -> Result<(), Fault> {
        let making = self.housekeeping.making.take().expect("a checkpoint is being made");
        self.measurements.checkpoint_stands();
        let housekeeping = &mut self.housekeeping;
        housekeeping.has_complained = false;
        housekeeping.checkpoints.push(making.head);
        while housekeeping.checkpoints.len() > limits::CHECKPOINTS_KEPT {
            let oldest = housekeeping.checkpoints.remove(0);
            housekeeping.unused_names.push(oldest.name());
            housekeeping.leaving_bytes += oldest.file_bytes();
        }
        if housekeeping.checkpoints.len() == limits::CHECKPOINTS_KEPT {
            self.forget_log()?;
        }
        self.release_segments();
        Ok(())
    }

    /// Forgets the entries that no checkpoint needs, and no follower that is about to get them.
    fn forget_log(&mut self) -> Result<(), Fault> {
        let oldest = self.housekeeping.checkpoints[0].base();
        // What is behind a store that is on its way is needed when it is there, or it would have to be sent again; meanwhile
        // clients are paced.
        let sent = self.catch_up.earliest_entry().filter(|id| id.index < oldest.entry.index);
        let held = self.raft.slowest_follower().filter(|id| self.is_worth_keeping_behind(*id, &oldest));
        mark!("log-stays-for-a-stream", sent.is_some());
        mark!("log-stays-for-a-follower", held.is_some());
        let base = match sent.into_iter().chain(held).min_by_key(|id| id.index) {
            Some(id) => self.log.base_behind(id)?,
            None => oldest,
        };
        self.raft.compact(base.entry.index);
        self.log.trim(base);
        Ok(())
    }

    /// Whether the log is to stay behind an entry though nobody but a follower that lags needs it before `base`.
    fn is_worth_keeping_behind(&self, id: EntryId, base: &LogBase) -> bool {
        let is_there = (self.log.base().entry.index..base.entry.index).contains(&id.index);
        is_there && {
            let behind_bytes = self.log.bytes_behind(self.log.position(id.index.next()));
            behind_bytes - self.log.bytes_behind(base.end) <= self.kept_for_others_bytes()
        }
    }

    /// Lets segments go that neither the store nor a checkpoint refers to.
    pub(super) fn release_segments(&mut self) {
        let is_referred = |checkpoints: &[CheckpointHead], id| {
            checkpoints.iter().any(|head| head.segments.binary_search(&id).is_ok())
        };
        let segments: Vec<SegmentId> = self.log.contents_segments().map(|segment| segment.id).collect();
        for id in segments {
            let is_referred = is_referred(&self.housekeeping.checkpoints, id);
            if self.store.live(id.0).files == 0
                && (!is_referred || mutant!("segment-goes-before-its-checkpoints"))
            {
                let released = self.log.release(id);
                self.housekeeping.unused_names.push(released.name());
                self.housekeeping.leaving_bytes += released.len_bytes();
                self.housekeeping.let_go(released);
            }
        }
    }
}

/// Begins the image of a store, and says in which segments its contents lie.
fn begin_image(store: &mut FileStore) -> (ImageHead, Vec<SegmentId>) {
    let segments = store.live_segments().map(|(segment, _)| SegmentId(segment)).collect();
    let image = store.begin_image();
    if image.files + image.sessions == 0 {
        store.drop_image();
    }
    (image, segments)
}

fn failed(doing: &str, source: io::Error) -> Fault {
    StorageError::Io { doing: doing.to_owned(), source }.into()
}
