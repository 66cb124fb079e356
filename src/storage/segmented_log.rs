//! The log over its segments: append, flush, roll, read.
//!
//! The files only grow. A truncation is not an act of its own: the record that takes the place of an earlier
//! entry says by its index that everything from there on is superseded. So no byte of a record ever changes
//! once it is stored, readers may keep slices of the mapping, and no crash can fall into a truncation.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::io;

use fsd_wire::{Entry, EntryId, LogIndex};

use super::DirectoryIdentity;
use super::entry_table::{EntryTable, LogBase};
use super::error::{Doing, StorageError};
use super::segment::{
    ACTIVATION_AT, Activation, NoRecord, Position, RECORDS_AT, RecordHead, SegmentHeader, SegmentId,
    file_name, read_entry, read_record_head, record_bytes, store_record, temporary_name,
};
use super::survey::{ContentsFile, SegmentFile};
use crate::mapping::{Disk, MappedFile};
use crate::marks::mark;
use crate::mutants::mutant;
use crate::raft::{LogChange, LogView};

/// The smallest segment that makes sense: a page for its head and a page for records.
pub const SEGMENT_BYTES_MIN: u64 = 8192;
/// Positions have 32 bits for the place in a segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;
/// The next segment is made ready when the present one has been filled to this share of its length: late enough that the
/// one before is gone, should nothing in it be live.
const SPARE_WANTED_AT_SHARE: u64 = 2;
/// A segment that could not be made ready is tried again after this share of a segment has been appended.
const SPARE_RETRY_SHARE: u64 = 16;

/// Bytes of a segment's records behind `from`, of the log that ends at `end`.
fn used_bytes<F: MappedFile>(segment: &SegmentFile<F>, from: Position, end: Position) -> u64 {
    let id = segment.header.id;
    let limit = if id == end.segment() { u64::from(end.offset()) } else { segment.header.len_bytes };
    match id.cmp(&from.segment()) {
        Ordering::Less => 0,
        Ordering::Equal => limit.saturating_sub(u64::from(from.offset())),
        Ordering::Greater => limit.saturating_sub(u64::from(RECORDS_AT)),
    }
}

fn spare_wanted_from(segment_bytes: u64) -> u64 {
    u64::from(RECORDS_AT) + (segment_bytes - u64::from(RECORDS_AT)) / SPARE_WANTED_AT_SHARE
}

/// A log whose entries survive: see the module's head.
pub struct SegmentedLog<D: Disk> {
    pub(super) disk: D,
    identity: DirectoryIdentity,
    segment_bytes: u64,
    salts: fastrand::Rng,
    pub(super) segments: Vec<SegmentFile<D::File>>,
    /// Segments before the log's base, and kept ones: only the contents in them count.
    pub(super) contents: BTreeMap<SegmentId, ContentsFile<D::File>>,
    pub(super) table: EntryTable,
    /// Where the next record goes, if it fits.
    pub(super) end: Position,
    /// Behind `end` lies a torn tail, which is never written over: the next record needs another segment.
    pub(super) is_torn: bool,
    /// Everything before this is flushed.
    pub(super) durable: Position,
    /// Segments that were made ready, in the order of their ids, in which the log goes on in them.
    pub(super) spares: VecDeque<Spare<D::File>>,
    spare_state: SpareState,
    next_id: SegmentId,
    /// The last segment that a base was promised: a log that begins anew behind it has its first segment ready.
    pub(super) promised: SegmentId,
    /// Bytes of all records that were appended in this life, and of those that recovery found.
    appended_bytes: u64,
    has_failed: bool,
}

/// Who is to make the next segment ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpareState {
    /// Somebody, once this many bytes of the present segment are used.
    WantedFrom(u64),
    /// The one who took the request.
    Requested,
}

/// The order to make a segment ready. It can be executed on another thread.
#[derive(Clone, Debug)]
pub struct SpareRequest {
    header: SegmentHeader,
}

/// A segment that was made ready for [`SegmentedLog::install_spare`].
#[derive(Debug)]
pub struct Spare<F> {
    file: F,
    pub(super) header: SegmentHeader,
}

impl<F> Spare<F> {
    /// The name of its file.
    #[must_use]
    pub fn name(&self) -> String {
        file_name(self.header.id)
    }
}

impl SpareRequest {
    /// Makes the segment: zeros, header, flush, its name, flush of the directory.
    ///
    /// # Errors
    /// If the disk has no space, or fails. Nothing is left behind that the next start does not remove.
    pub fn prepare<D: Disk>(&self, disk: &D) -> io::Result<Spare<D::File>> {
        let temporary = temporary_name(self.header.id);
        let mut file = disk.create(&temporary, self.header.len_bytes)?;
        file.store(0, &self.header.encode());
        file.expect_stores()?;
        file.flush()?;
        disk.rename(&temporary, &file_name(self.header.id))?;
        if !mutant!("directory-not-flushed") {
            disk.sync_directory()?;
        }
        Ok(Spare { file, header: self.header.clone() })
    }
}

impl<D: Disk> SegmentedLog<D> {
    #[expect(clippy::too_many_arguments, reason = "the parts of one recovery, handed over once")]
    pub(super) fn new(
        disk: D,
        identity: &DirectoryIdentity,
        segment_bytes: u64,
        segments: Vec<SegmentFile<D::File>>,
        contents: BTreeMap<SegmentId, ContentsFile<D::File>>,
        table: EntryTable,
        end: Position,
        is_torn: bool,
        highest_id: SegmentId,
        seed: u64,
    ) -> Self {
        let range = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        assert!(range.contains(&segment_bytes), "segments of {segment_bytes} bytes");
        let appended_bytes =
            segments.iter().map(|segment| used_bytes(segment, Position::default(), end)).sum();
        Self {
            disk,
            identity: identity.clone(),
            segment_bytes: segment_bytes.next_multiple_of(u64::from(RECORDS_AT)),
            salts: fastrand::Rng::with_seed(seed),
            segments,
            contents,
            table,
            end,
            is_torn: is_torn && !mutant!("torn-tail-written-over"),
            durable: end,
            spares: VecDeque::new(),
            spare_state: SpareState::WantedFrom(spare_wanted_from(segment_bytes)),
            // No file may get the number of a segment that the base only names.
            next_id: SegmentId(highest_id.max(end.segment()).0 + 1),
            promised: SegmentId(0),
            appended_bytes,
            has_failed: false,
        }
    }

    /// Stores the changes, in their order. They are durable after the next [`SegmentedLog::flush`], and may be
    /// at any time before, each only with those before it.
    ///
    /// # Errors
    /// If a new segment is needed and cannot be had; after that every append and flush fails.
    ///
    /// # Panics
    /// If the entries do not follow those that are there, or a truncation is not followed by an append.
    pub fn append(&mut self, changes: &[LogChange]) -> Result<(), StorageError> {
        self.refuse_if_failed()?;
        let appended = self.append_all(changes);
        mark!("log-append-fails", appended.is_err());
        self.has_failed |= appended.is_err();
        appended
    }

    fn append_all(&mut self, changes: &[LogChange]) -> Result<(), StorageError> {
        let mut truncate_from = None;
        for change in changes {
            match change {
                LogChange::TruncateFrom(index) => {
                    assert!(truncate_from.is_none(), "two truncations without an append between");
                    let inside = self.first_index()..=self.table.last.index;
                    assert!(inside.contains(index), "truncation from {index}");
                    truncate_from = Some(*index);
                }
                LogChange::Append(entry) => {
                    self.append_entry(truncate_from.take(), entry)?;
                }
            }
        }
        assert!(truncate_from.is_none(), "a truncation without an append");
        Ok(())
    }

    fn append_entry(&mut self, truncate_from: Option<LogIndex>, entry: &Entry) -> Result<(), StorageError> {
        mark!(
            "log-truncates-across-segments",
            truncate_from.is_some_and(|from| self.position(from).segment() < self.end.segment())
        );
        let expected = truncate_from.unwrap_or(self.table.last.index.next());
        assert_eq!(entry.index, expected, "the entry's place in the log");
        self.assert_order(entry)?;
        let bytes = record_bytes(entry.payload.len());
        let capacity = self.segments.last().map_or(0, |segment| segment.header.len_bytes);
        if self.is_torn || u64::from(self.end.offset()) + bytes > capacity {
            mark!("log-rolls-at-torn-tail", self.is_torn);
            mark!("log-rolls-to-truncate", truncate_from.is_some());
            self.roll(entry.index, bytes)?;
        }
        let segment = self.segments.last_mut().expect("the log rolled into one");
        let durable = if mutant!("durable-mark-ahead") { self.end } else { self.durable };
        store_record(&mut segment.file, segment.header.salt, durable, self.end, entry);
        self.table.set_last(&RecordHead {
            position: self.end,
            durable: self.durable,
            id: entry.id(),
            stamp: entry.stamp,
            payload_bytes: entry.payload.len(),
        });
        self.end = Position(self.end.0 + bytes);
        self.appended_bytes += bytes;
        Ok(())
    }

    /// Terms and stamps never fall along the log; recovery relies on it.
    fn assert_order(&self, entry: &Entry) -> Result<(), StorageError> {
        let (before, stamp) = if entry.index == self.table.last.index.next() {
            (self.table.last, self.table.last_stamp)
        } else if entry.index == self.first_index() {
            (self.base().entry, self.base().stamp)
        } else {
            let head = self.head(self.position(entry.index.previous()))?;
            (head.id, head.stamp)
        };
        assert!(entry.term >= before.term, "entry {:?} behind {before:?}", entry.id());
        assert!(entry.stamp >= stamp, "entry {:?} is stamped before {before:?}", entry.id());
        Ok(())
    }

    /// Goes on in a new segment. The old one is flushed completely before the first byte of the new one is
    /// stored: the new one's activation block says so.
    fn roll(&mut self, first_index: LogIndex, record_bytes: u64) -> Result<(), StorageError> {
        if !mutant!("roll-without-flush") {
            self.flush_last()?;
        }
        let Spare { mut file, header } = self.take_spare(record_bytes)?;
        let activation = Activation {
            first_index,
            previous_end: self.end,
            previous_last: self.table.last,
            previous_stamp: self.table.last_stamp,
        };
        file.store(ACTIVATION_AT, &activation.encode(&header));
        if let Some(previous) = self.segments.last_mut() {
            previous.file.seal();
        }
        self.end = Position::new(header.id, RECORDS_AT);
        self.is_torn = false;
        self.segments.push(SegmentFile { file, header, activation });
        Ok(())
    }

    /// The segment that was made ready, or one that is made now.
    fn take_spare(&mut self, record_bytes: u64) -> Result<Spare<D::File>, StorageError> {
        let len_bytes_min = (u64::from(RECORDS_AT) + record_bytes).next_multiple_of(u64::from(RECORDS_AT));
        if self.spare_state != SpareState::Requested {
            self.spare_state = SpareState::WantedFrom(spare_wanted_from(self.segment_bytes));
        }
        while let Some(spare) = self.spares.pop_front() {
            if spare.header.len_bytes >= len_bytes_min {
                return Ok(spare);
            }
            mark!("spare-is-too-short");
            self.remove_unused(&spare)?;
        }
        self.make_spare(len_bytes_min)
    }

    /// Makes a segment ready at once, for whoever cannot wait for it.
    pub(super) fn make_spare(&mut self, len_bytes_min: u64) -> Result<Spare<D::File>, StorageError> {
        let request = self.request(self.segment_bytes.max(len_bytes_min));
        let path = self.disk.describe(&file_name(request.header.id));
        request.prepare(&self.disk).doing(|| format!("make {path} ready"))
    }

    fn request(&mut self, len_bytes: u64) -> SpareRequest {
        SpareRequest { header: self.next_header(len_bytes) }
    }

    /// A number that no file has had.
    pub(super) fn take_id(&mut self) -> SegmentId {
        let id = self.next_id;
        self.next_id = SegmentId(id.0 + 1);
        id
    }

    pub(super) fn next_header(&mut self, len_bytes: u64) -> SegmentHeader {
        let (id, salt) = (self.take_id(), self.salts.u64(..));
        SegmentHeader { id, salt, len_bytes, identity: self.identity.clone() }
    }

    /// The request to make the next segment ready, when it is time; once, until it was answered by
    /// [`SegmentedLog::install_spare`] or [`SegmentedLog::spare_failed`].
    pub fn wants_spare(&mut self) -> Option<SpareRequest> {
        let SpareState::WantedFrom(offset) = self.spare_state else { return None };
        let begins_anew = self.promised > self.end.segment();
        let is_time =
            self.segments.is_empty() || self.is_torn || begins_anew || u64::from(self.end.offset()) >= offset;
        if self.has_spare_behind(self.promised) || self.has_failed || !is_time {
            return None;
        }
        self.spare_state = SpareState::Requested;
        Some(self.request(self.segment_bytes))
    }

    pub(super) fn is_spare_requested(&self) -> bool {
        self.spare_state == SpareState::Requested
    }

    pub(super) fn has_spare_behind(&self, id: SegmentId) -> bool {
        self.spares.back().is_some_and(|spare| spare.header.id > id)
    }

    /// Takes the segment that a request asked for.
    ///
    /// # Errors
    /// If the log went on without it and its file cannot be removed.
    pub fn install_spare(&mut self, spare: Spare<D::File>) -> Result<(), StorageError> {
        self.spare_state = SpareState::WantedFrom(spare_wanted_from(self.segment_bytes));
        if spare.header.id > self.end.segment() {
            let place = self.spares.partition_point(|other| other.header.id < spare.header.id);
            self.spares.insert(place, spare);
            return Ok(());
        }
        mark!("spare-comes-too-late");
        // Ids grow along the log, so this one came too late.
        self.remove_unused(&spare)
    }

    /// Removes a segment that the log never rolled into. Should it come back, the next start removes it.
    fn remove_unused(&self, spare: &Spare<D::File>) -> Result<(), StorageError> {
        let name = spare.name();
        self.disk.remove(&name).doing(|| format!("remove {}", self.disk.describe(&name)))
    }

    /// The segment that a request asked for could not be made. The log goes on in its present one and asks again
    /// later.
    pub fn spare_failed(&mut self) {
        mark!("spare-cannot-be-made");
        let retry_at = u64::from(self.end.offset()) + self.segment_bytes / SPARE_RETRY_SHARE;
        self.spare_state = SpareState::WantedFrom(retry_at);
    }

    /// There may be room for the next segment by now: it is asked for without waiting for the log to grow.
    pub fn want_spare_again(&mut self) {
        if let SpareState::WantedFrom(_) = self.spare_state {
            self.spare_state = SpareState::WantedFrom(0);
        }
    }

    /// Makes everything that was appended durable, and gives the last index that is. Does nothing when nothing
    /// was appended since the last flush.
    ///
    /// # Errors
    /// If the flush failed; after that every append and flush fails.
    pub fn flush(&mut self) -> Result<LogIndex, StorageError> {
        self.refuse_if_failed()?;
        self.flush_last()?;
        Ok(self.table.last.index)
    }

    fn flush_last(&mut self) -> Result<(), StorageError> {
        if !self.is_dirty() {
            return Ok(());
        }
        let segment = self.segments.last_mut().expect("a log that is dirty has a segment");
        if let Err(source) = segment.file.flush()
            && !mutant!("failed-flush-ignored")
        {
            mark!("log-flush-fails");
            self.has_failed = true;
            let doing = format!("flush {}", self.disk.describe(&file_name(segment.header.id)));
            return Err(StorageError::Io { doing, source });
        }
        self.durable = self.end;
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<(), StorageError> {
        if self.has_failed { Err(StorageError::Failed) } else { Ok(()) }
    }

    /// Whether anything was appended since the last flush.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.durable != self.end
    }

    /// The index of the first entry that is kept.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.base().entry.index.next()
    }

    /// Where the log begins.
    #[must_use]
    pub fn base(&self) -> &LogBase {
        self.table.base()
    }

    /// The index of the last entry; 0 when there is none.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.table.last.index
    }

    /// Term and index of the last entry; zeros when there is none.
    #[must_use]
    pub fn last_id(&self) -> EntryId {
        self.table.last
    }

    /// Where an entry is.
    ///
    /// # Panics
    /// If the log has no such entry.
    #[must_use]
    pub fn position(&self, index: LogIndex) -> Position {
        match self.table.position(index) {
            Some(position) => position,
            None => panic!("entry {index} of a log that ends with {}", self.table.last.index),
        }
    }

    /// The entry at an index; its CRC was checked.
    ///
    /// # Errors
    /// If the record is damaged.
    ///
    /// # Panics
    /// If the log has no such entry.
    pub fn entry(&self, index: LogIndex) -> Result<Entry, StorageError> {
        let position = self.position(index);
        let entry = self.entry_at(position)?;
        if entry.index != index {
            return Err(self.damage(position, format!("entry {} where {index} was stored", entry.index)));
        }
        Ok(entry)
    }

    /// The entry whose record is at a position, also when it was superseded since; its CRC was checked.
    ///
    /// # Errors
    /// If the record is damaged.
    ///
    /// # Panics
    /// If the log has no such segment.
    pub fn entry_at(&self, position: Position) -> Result<Entry, StorageError> {
        let head = self.head(position)?;
        let (file, _, path) = self.segment(position);
        read_entry(file, &head)
            .doing(|| format!("read {}", path()))?
            .map_err(|why| self.damage(position, why.to_string()))
    }

    pub(super) fn head(&self, position: Position) -> Result<RecordHead, StorageError> {
        let (file, header, path) = self.segment(position);
        let limit = header.len_bytes;
        read_record_head(file, header, u64::from(position.offset()), limit)
            .doing(|| format!("read {}", path()))?
            .map_err(|why: NoRecord| self.damage(position, why.to_string()))
    }

    fn segment(&self, position: Position) -> (&D::File, &SegmentHeader, impl Fn() -> String) {
        let id = position.segment();
        let path = move || self.disk.describe(&file_name(id));
        if let Some(ContentsFile { file, header }) = self.contents.get(&id) {
            return (file, header, path);
        }
        match self.segments.binary_search_by_key(&id, |segment| segment.header.id) {
            Ok(n) => (&self.segments[n].file, &self.segments[n].header, path),
            Err(_) => panic!("position {position} in a segment that is not there"),
        }
    }

    fn damage(&self, position: Position, what: String) -> StorageError {
        mark!("log-reads-damage");
        let file = self.disk.describe(&file_name(position.segment()));
        StorageError::Damage { file, offset: u64::from(position.offset()), what }
    }

    /// Counts the bytes of all records that are appended, on from those that recovery found.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// The bytes of the records behind a place.
    #[must_use]
    pub fn bytes_behind(&self, place: Position) -> u64 {
        self.segments.iter().map(|segment| used_bytes(segment, place, self.end)).sum()
    }

    /// Bytes of a segment, but for one that a single large record needs.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whose log it is.
    #[must_use]
    pub fn identity(&self) -> &DirectoryIdentity {
        &self.identity
    }

    /// A salt for another file of this directory.
    pub fn draw_salt(&mut self) -> u64 {
        self.salts.u64(..)
    }

    /// Bytes of the log's segments on the disk, with one that is made ready.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.header.len_bytes).sum::<u64>()
            + self.ready_segments_bytes()
    }

    /// Bytes of the segments that are there for the contents in them alone.
    #[must_use]
    pub fn contents_bytes(&self) -> u64 {
        self.contents.values().map(|segment| segment.header.len_bytes).sum()
    }

    /// Bytes of the last segment that are used, its head included; 0 when there is none.
    #[must_use]
    pub fn last_segment_used_bytes(&self) -> u64 {
        if self.segments.is_empty() { 0 } else { u64::from(self.end.offset()) }
    }

    /// How many segments the log has, without one that is made ready.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }
}

impl<D: Disk> LogView for SegmentedLog<D> {
    type Error = StorageError;

    fn entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut index = first;
        while index <= last && (entries.is_empty() || entries.len() < count_max) {
            let entry = self.entry(index)?;
            bytes += entry.encoded_bytes();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry);
            index = index.next();
        }
        Ok(entries)
    }
}
