//! What the log can take without asking the disk for room, and more of it before it is needed: a record for which there
//! is none must not be promised a place.

use fsd_wire::ENTRY_HEADER_BYTES;

use super::error::StorageError;
use super::segment::{RECORD_HEAD_BYTES, RECORDS_AT};
use super::segmented_log::SegmentedLog;
use crate::limits::RECORD_OVERHEAD_BYTES;
use crate::mapping::Disk;

const _: () =
    assert!(RECORD_HEAD_BYTES + 7 <= RECORD_OVERHEAD_BYTES + ENTRY_HEADER_BYTES, "with its padding");

impl<D: Disk> SegmentedLog<D> {
    /// Bytes for records in what is left of the last segment.
    #[must_use]
    pub fn rest_bytes(&self) -> u64 {
        match self.segments.last() {
            Some(last) if !self.is_torn => last.header.len_bytes.saturating_sub(u64::from(self.end.offset())),
            _ => 0,
        }
    }

    /// The same for each of the segments that are ready, in the order in which the log fills them.
    pub fn ready_bytes(&self) -> impl Iterator<Item = u64> {
        self.spares.iter().map(|spare| spare.header.len_bytes - u64::from(RECORDS_AT))
    }

    /// The length of all segments that are ready.
    #[must_use]
    pub fn ready_segments_bytes(&self) -> u64 {
        self.spares.iter().map(|spare| spare.header.len_bytes).sum()
    }

    /// The length of a segment that has room for a record with such a payload, by the core's reckoning, too.
    #[must_use]
    pub fn segment_bytes_for(&self, payload_bytes: usize) -> u64 {
        let page = u64::from(RECORDS_AT);
        let record_bytes_max = (RECORD_OVERHEAD_BYTES + ENTRY_HEADER_BYTES + payload_bytes) as u64;
        self.segment_bytes().max((page + record_bytes_max).next_multiple_of(page))
    }

    /// Makes a segment ready at once that has room for a record with such a payload, behind those that are.
    ///
    /// # Errors
    /// If the disk has no room for it, or fails; the log is as it was.
    pub fn make_room(&mut self, payload_bytes: usize) -> Result<(), StorageError> {
        let spare = self.make_spare(self.segment_bytes_for(payload_bytes))?;
        self.spares.push_back(spare);
        Ok(())
    }
}
