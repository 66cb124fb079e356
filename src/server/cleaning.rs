//! Giving back the space of files that were overwritten, deleted, or are over.
//!
//! A segment of the log goes when nothing in it is live and no checkpoint refers to it. One of which little is live
//! is *cleaned*: what is live is copied into a kept segment, and the index of the files points there from then on. The
//! old segment is left alone, for the checkpoints still refer to it. It goes when two later ones stand.
//!
//! How much there may be is a promise: all that a data directory takes stays below twice what must be there, and two
//! segments; and what must be there are the records of the files and two checkpoints of their index. So before each
//! checkpoint those segments are cleaned of which the smallest share is live, until the rest fits; thus there is as
//! little to copy as there can be. In the long run as much is freed from one checkpoint to the next as the log grows
//! by, G. If a share u of what is cleaned is live, segments of G / (1 - u) are cleaned and K = G u / (1 - u) is copied each time. What
//! was cleaned before the last checkpoint is there until the next one stands; so what is there beforehand, but for that, may be as much as
//! the promise without G, twice K, and three checkpoints. Where two thirds are live, that is without 5 G.
//!
//! All of it is done in pieces: so many files are looked at in a turn, so many bytes are copied by the helper at a time,
//! so many files are moved in a turn. No checkpoint is begun in between, so each refers to either place of a file's
//! contents as a whole.

use std::collections::BTreeSet;

use super::Fault;
use super::housekeeping::Housekeeping;
use super::jobs::{CopiedContents, Job};
use super::node::Node;
use super::room::is_full;
use crate::file_store::{ContentsAt, FileName, record_bytes};
use crate::limits;
use crate::mapping::Disk;
use crate::marks::mark;
use crate::storage::{ContentsSegment, Copied, Copying, Moved, Position, StorageError};

/// The space that a data directory takes, and what it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The segments of the log, one that is made ready among them, and those with contents alone.
    pub segments_bytes: u64,
    /// Those of them in which nothing is live: they go with the next checkpoints.
    pub dead_bytes: u64,
    /// The checkpoints.
    pub checkpoints_bytes: u64,
    /// What must be there: the records of the files, and two checkpoints.
    pub live_bytes: u64,
    /// What is promised: the whole stays below.
    pub bound_bytes: u64,
}

/// Segments that are being cleaned.
pub(super) struct Cleaning<D: Disk> {
    victims: BTreeSet<u32>,
    /// Of what is live in them, so much is not in a kept segment yet.
    left_bytes: u64,
    /// The file that was looked at last.
    after: Option<FileName>,
    looked_at_all: bool,
    /// Files that are to be copied next.
    wanted: Vec<(Position, FileName)>,
    wanted_bytes: u64,
    /// Files that were copied and are to be moved.
    moved: Vec<Moved<FileName>>,
    /// What copies them, while no job has it, and the names of the kept segment that it makes.
    copying: Option<Box<Copying<D, FileName>>>,
    /// Copied at a time: much, where the promise is broken already.
    piece_bytes: usize,
    names: Vec<String>,
}

impl<D: Disk> Cleaning<D> {
    fn of(victims: BTreeSet<u32>, left_bytes: u64, piece_bytes: usize) -> Self {
        Self {
            victims,
            left_bytes,
            piece_bytes,
            after: None,
            looked_at_all: false,
            wanted: Vec::new(),
            wanted_bytes: 0,
            moved: Vec::new(),
            copying: None,
            names: Vec::new(),
        }
    }
}

impl<D: Disk> Node<D> {
    /// What the data directory takes.
    #[must_use]
    pub fn space(&self) -> Space {
        let segment_bytes = self.log.segment_bytes();
        let is_dead = |segment: &ContentsSegment| self.store.live(segment.id.0).files == 0;
        let live_bytes = self.live_bytes();
        Space {
            segments_bytes: self.log.log_bytes()
                + self.log.contents_bytes()
                + segment_bytes.saturating_sub(self.log.ready_segments_bytes()),
            dead_bytes: self.log.sealed_segments().filter(is_dead).map(|segment| segment.len_bytes).sum(),
            checkpoints_bytes: self.housekeeping.checkpoints_bytes(),
            live_bytes,
            bound_bytes: 2 * (live_bytes + segment_bytes),
        }
    }

    /// What must be there: the records of the files, and two checkpoints.
    pub(super) fn live_bytes(&self) -> u64 {
        self.store.live_total().bytes + 2 * self.store.image_head().items_bytes
    }

    /// By how much the log grows from one checkpoint to the next.
    pub(super) fn growth_bytes(&self) -> u64 {
        let segment_share = self.log.segment_bytes() / limits::CHECKPOINT_AT_SEGMENT_SHARE;
        segment_share.max(self.live_bytes() / limits::CHECKPOINT_AT_LIVE_SHARE)
    }

    /// Whether something is in the way of the promise, and checkpoints would help.
    pub(super) fn is_over_bound(&self) -> bool {
        let space = self.space();
        let present_bytes = space.segments_bytes + space.checkpoints_bytes;
        present_bytes + self.growth_bytes() > space.bound_bytes
            && (space.dead_bytes > 0 || !self.choose_victims().is_empty())
    }

    /// Begins to clean what must be, if anything must.
    pub(super) fn begin_cleaning(&mut self) {
        let victims = self.choose_victims();
        if !victims.is_empty() {
            mark!("cleaning-begins");
            let Space { segments_bytes, checkpoints_bytes, bound_bytes, .. } = self.space();
            let is_late = segments_bytes + checkpoints_bytes > bound_bytes;
            let piece_bytes = if is_late { limits::COPIED_BYTES_LATE } else { limits::COPIED_BYTES };
            let left_bytes = victims.iter().map(|id| self.store.live(*id).bytes).sum();
            self.housekeeping.cleaning = Some(Cleaning::of(victims, left_bytes, piece_bytes));
        }
    }

    /// The segments of which the least is live, as many as must go.
    fn choose_victims(&self) -> BTreeSet<u32> {
        let space = self.space();
        let growth_bytes = self.growth_bytes();
        let checkpoint_bytes = self.store.image_head().items_bytes;
        let ahead_bytes = 3 * checkpoint_bytes + limits::GROWTHS_AHEAD * growth_bytes;
        let present_bytes = (space.segments_bytes - space.dead_bytes) as i64;
        let mut excess_bytes = present_bytes - (space.bound_bytes as i64 - ahead_bytes as i64);
        let mut candidates = Vec::new();
        for ContentsSegment { id, len_bytes } in self.log.sealed_segments() {
            let live = self.store.live(id.0);
            let share = live.bytes * 1024 / len_bytes;
            if live.files > 0 && share <= limits::CLEANED_SHARE_MAX_OF_1024 {
                candidates.push((share, live.bytes, len_bytes, id.0));
            }
        }
        candidates.sort_unstable();
        // What is copied is there twice until the next checkpoint but one: it must have room meanwhile.
        let taken_bytes = space.segments_bytes + space.checkpoints_bytes + checkpoint_bytes + growth_bytes;
        let room_bytes = space.bound_bytes.saturating_sub(taken_bytes);
        let mut room_bytes = room_bytes.clamp(growth_bytes, limits::CLEANED_GROWTHS_MAX * growth_bytes);
        let mut victims = BTreeSet::new();
        for (_, live_bytes, len_bytes, id) in candidates {
            if excess_bytes <= 0 || live_bytes > room_bytes && !victims.is_empty() {
                break;
            }
            room_bytes = room_bytes.saturating_sub(live_bytes);
            excess_bytes -= len_bytes as i64 - live_bytes as i64;
            victims.insert(id);
        }
        victims
    }

    /// Goes on with the segments that are being cleaned: a piece of it now, or a job for the helper.
    pub(super) fn next_cleaning_step(&mut self) -> Option<Job<D>> {
        let cleaning = self.housekeeping.cleaning.as_mut().expect("segments are being cleaned");
        if let Some(copying) = cleaning.copying.take() {
            return Some(Job::Copy(copying, cleaning.piece_bytes));
        } else if !cleaning.moved.is_empty() {
            self.move_some();
        } else if cleaning.looked_at_all && cleaning.wanted.is_empty() {
            self.housekeeping.cleaning = None;
        } else if cleaning.looked_at_all || cleaning.wanted_bytes >= self.log.segment_bytes() / 2 {
            cleaning.wanted_bytes = 0;
            let copying = Copying::new(self.log.kept_header(0), std::mem::take(&mut cleaning.wanted));
            cleaning.names = copying.names().to_vec();
            return Some(Job::Copy(Box::new(copying), cleaning.piece_bytes));
        } else {
            self.look_at_some();
        }
        // The next turn goes on with it.
        self.unfinished = true;
        None
    }

    fn look_at_some(&mut self) {
        let cleaning = self.housekeeping.cleaning.as_mut().expect("segments are being cleaned");
        let (wanted, wanted_bytes) = (&mut cleaning.wanted, &mut cleaning.wanted_bytes);
        let last = self.store.files_in(
            &cleaning.victims,
            cleaning.after.as_ref(),
            limits::FILES_LOOKED_AT_PER_TURN,
            |name, file| {
                *wanted_bytes += record_bytes(name, file);
                wanted.push((Position(file.contents.0), name.clone()));
            },
        );
        cleaning.looked_at_all = last.is_none();
        cleaning.after = last;
    }

    /// Lets the index of some files point to where their contents were copied. What has changed since stays as it is.
    fn move_some(&mut self) {
        let cleaning = self.housekeeping.cleaning.as_mut().expect("segments are being cleaned");
        let rest = cleaning.moved.len().saturating_sub(limits::FILES_MOVED_PER_TURN);
        for Moved { what, from, to } in cleaning.moved.drain(rest..) {
            let is_same = self.store.move_contents(what.as_str(), ContentsAt(from.0), ContentsAt(to.0));
            if !is_same {
                mark!("cleaning-copied-what-is-gone");
            }
        }
    }

    /// What became of a piece of the copying.
    ///
    /// # Errors
    /// If a live file is damaged, or the disk fails.
    pub(super) fn copied(&mut self, copied: CopiedContents<D>) -> Result<(), Fault> {
        // No store is installed while a job of this kind is out.
        let cleaning = self.housekeeping.cleaning.as_mut().expect("segments are being cleaned");
        match copied {
            Ok(Copied::More(copying)) => cleaning.copying = Some(copying),
            Ok(Copied::Whole(kept, moved)) => {
                cleaning.moved = moved;
                cleaning.names.clear();
                cleaning.left_bytes = cleaning.left_bytes.saturating_sub(kept.len_bytes());
                self.log.install_kept(kept);
            }
            // It is tried again before the next checkpoint.
            Err(StorageError::Io { source, .. }) if is_full(&source) => {
                mark!("cleaning-finds-no-room");
                self.room.found_none();
                self.housekeeping.abandon_cleaning();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl<D: Disk> Housekeeping<D> {
    /// While segments are being cleaned: what is still to be copied.
    pub(super) fn bytes_to_copy(&self) -> Option<u64> {
        self.cleaning.as_ref().map(|cleaning| cleaning.left_bytes)
    }

    /// Gives up what is being cleaned, if anything is: there is no room, or the store that it was of is no more.
    pub(super) fn abandon_cleaning(&mut self) {
        if let Some(cleaning) = self.cleaning.take() {
            self.discard(cleaning.names.into_iter());
        }
    }
}
