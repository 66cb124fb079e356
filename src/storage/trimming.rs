//! How the log loses what it no longer needs: its first entries, when a checkpoint stands for them, and files in
//! which nothing is left that anybody refers to.

use fsd_wire::{ClusterTimeMs, EntryId};

use super::entry_table::{EntryTable, LogBase};
use super::error::StorageError;
use super::kept::Kept;
use super::segment::{Position, RECORDS_AT, SegmentHeader, SegmentId};
use super::segmented_log::{SegmentedLog, Spare};
use super::survey::{ContentsFile, SegmentFile};
use crate::mapping::{Disk, MappedFile};

/// A segment of which only the contents count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentsSegment {
    /// Its id.
    pub id: SegmentId,
    /// The file's length.
    pub len_bytes: u64,
}

impl<D: Disk> SegmentedLog<D> {
    /// The base that the log would have behind one of its entries.
    ///
    /// # Errors
    /// If the record cannot be read.
    ///
    /// # Panics
    /// If the log has no such entry.
    pub fn base_behind(&self, entry: EntryId) -> Result<LogBase, StorageError> {
        if entry == self.base().entry {
            return Ok(*self.base());
        }
        let position = self.position(entry.index);
        let head = self.head(position)?;
        assert!(head.id == entry, "{entry:?} where {:?} is", head.id);
        let end = Position::new(position.segment(), head.end_offset() as u32);
        Ok(LogBase { entry, stamp: head.stamp, end })
    }

    /// Lets the log begin behind a later entry. Segments that are no longer part of it stay for the contents in them.
    ///
    /// # Panics
    /// If the entry is not one of the log's.
    pub fn trim(&mut self, base: LogBase) {
        self.table.trim(base);
        let behind = self.segments.partition_point(|segment| segment.header.id < base.end.segment());
        for SegmentFile { file, header, .. } in self.segments.drain(..behind) {
            self.contents.insert(header.id, ContentsFile { file, header });
        }
    }

    /// The base of a log that goes on behind an entry which it does not have, in segments that are still to be made.
    pub fn base_for(&mut self, entry: EntryId, stamp: ClusterTimeMs) -> LogBase {
        self.promised = self.take_id();
        LogBase { entry, stamp, end: Position::new(self.promised, RECORDS_AT) }
    }

    /// Whether the first segment of a log that begins anew behind this base is being made ready.
    #[must_use]
    pub fn waits_for_segment_behind(&self, base: &LogBase) -> bool {
        self.is_spare_requested() && !self.has_spare_behind(base.end.segment())
    }

    /// Whether the log has not gone on behind the place that a base of [`Self::base_for`] names.
    #[must_use]
    pub fn base_is_free(&self, base: &LogBase) -> bool {
        self.end.segment() < base.end.segment()
    }

    /// The disk that it lies on.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Begins the log anew behind a base of [`Self::base_for`]; all that it had is no longer part of it. Returns segments that
    /// were made ready and whose numbers are too low by now, for their files to be removed; should one stay, the next start
    /// removes it.
    pub fn begin_anew(&mut self, base: LogBase) -> Vec<Spare<D::File>> {
        for SegmentFile { mut file, header, .. } in self.segments.drain(..) {
            file.seal();
            self.contents.insert(header.id, ContentsFile { file, header });
        }
        self.table = EntryTable::behind(base);
        (self.end, self.durable, self.is_torn) = (base.end, base.end, false);
        let behind = self.spares.partition_point(|spare| spare.header.id <= base.end.segment());
        self.spares.drain(..behind).collect()
    }

    /// The header of a kept segment that is to be made.
    pub fn kept_header(&mut self, len_bytes: u64) -> SegmentHeader {
        self.next_header(len_bytes)
    }

    /// Takes a kept segment that was made.
    pub fn install_kept(&mut self, kept: Kept<D::File>) {
        let Kept { file, header } = kept;
        self.contents.insert(header.id, ContentsFile { file, header });
    }

    /// The segments that are no part of the log, or not any more, in the order of their ids.
    pub fn contents_segments(&self) -> impl Iterator<Item = ContentsSegment> {
        self.contents
            .values()
            .map(|ContentsFile { header, .. }| ContentsSegment { id: header.id, len_bytes: header.len_bytes })
    }

    /// Those, and the segments of the log that it has left: nothing is appended to any of them.
    pub fn sealed_segments(&self) -> impl Iterator<Item = ContentsSegment> {
        let of_log = self.segments.iter().map(|segment| &segment.header);
        let left = of_log.filter(|header| header.id < self.end.segment());
        self.contents_segments()
            .chain(left.map(|header| ContentsSegment { id: header.id, len_bytes: header.len_bytes }))
    }

    /// Forgets one that is no part of the log and to which nothing refers, and gives its file, for it to be removed.
    ///
    /// # Panics
    /// If there is no such segment.
    pub fn release(&mut self, id: SegmentId) -> Kept<D::File> {
        match self.contents.remove(&id) {
            Some(ContentsFile { file, header }) => Kept { file, header },
            None => panic!("segment {id} is none with contents alone"),
        }
    }
}
