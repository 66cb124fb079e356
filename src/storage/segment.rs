//! A segment of the log as bytes. All integers are little-endian, all CRCs are CRC-32 (IEEE).
//!
//! ```text
//! 0     preparation header: the segment is made ready, nothing of it counts yet
//! 512   activation block: stored when the log rolls into the segment, flushed with its first records
//! 4096  records, one behind the other, each at a multiple of 8
//! ```
//!
//! Preparation header, 512 bytes, the rest zero:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `fsd-log\n` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | CRC of the 512 bytes, these four taken as zero |
//! | 16 | 4 | segment id, above 0 |
//! | 20 | 4 | node |
//! | 24 | 8 | salt, drawn at random |
//! | 32 | 8 | length of the file |
//! | 40 | 2 | length of the cluster's name |
//! | 42 | | cluster's name |
//!
//! Activation block, 64 bytes:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `fsd-act\n` |
//! | 8 | 4 | segment id |
//! | 12 | 4 | CRC of the salt and the 64 bytes, these four taken as zero |
//! | 16 | 8 | index of the first record |
//! | 24 | 8 | position where the previous segment ended; 0 in the first segment |
//! | 32 | 8 | index of the last entry before the roll |
//! | 40 | 8 | its term |
//! | 48 | 8 | its stamp |
//! | 56 | 8 | zero |
//!
//! Record:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | tag `fsdR` |
//! | 4 | 4 | CRC of the salt, bytes 8 to 55 and bytes 60 to 63 |
//! | 8 | 8 | durable position: when this record was written, everything before it was flushed |
//! | 16 | 8 | the record's own position |
//! | 24 | 40 | header of the entry ([`fsd_wire::entry`]), with its own CRC over header and payload |
//! | 64 | | payload, then zeros up to a multiple of 8 |
//!
//! A position is the segment's id in the upper and the offset in the lower 32 bits. Neither zeros nor bytes of
//! another segment or of a former life of this one are ever a record: the tag is not zero, the salt is new each
//! time, and a record says where it is.

use std::fmt;
use std::io;

use byteorder::{ByteOrder, LittleEndian};
use fsd_wire::codec::Reader;
use fsd_wire::entry::payload_bytes_of;
use fsd_wire::{ClusterTimeMs, ENTRY_HEADER_BYTES, Entry, EntryId, LogIndex, NodeId, Term};

use super::DirectoryIdentity;
use crate::mapping::MappedFile;

/// The format version of segments that this release writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the preparation header.
pub(super) const HEADER_BYTES: usize = 512;
/// Where the activation block is.
pub(super) const ACTIVATION_AT: u64 = 512;
/// Bytes of the activation block.
pub(super) const ACTIVATION_BYTES: usize = 64;
/// Where the records begin.
pub const RECORDS_AT: u32 = 4096;
/// Bytes of a record before its payload.
pub const RECORD_HEAD_BYTES: usize = 24 + ENTRY_HEADER_BYTES;
/// Where the entry's own CRC lies in a record.
const ENTRY_CRC_AT: usize = 24 + 32;
/// Records begin at multiples of this.
pub(super) const RECORD_ALIGNMENT: u64 = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"fsd-log\n";
const ACTIVATION_MAGIC: &[u8; 8] = b"fsd-act\n";
const RECORD_TAG: &[u8; 4] = b"fsdR";
/// As much of a segment is looked at in one piece when its rest is searched.
const SEARCH_BYTES: usize = 64 * 1024;

/// A segment's number: above 0, growing along the log, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the log's files. Places of later records are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The place at `offset` of a segment.
    #[must_use]
    pub fn new(segment: SegmentId, offset: u32) -> Self {
        Self(u64::from(segment.0) << 32 | u64::from(offset))
    }

    /// The segment.
    #[must_use]
    pub fn segment(self) -> SegmentId {
        SegmentId((self.0 >> 32) as u32)
    }

    /// The place in the segment.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

/// What a name in the data directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKind {
    /// A segment, by its id.
    Segment(SegmentId),
    /// A checkpoint, by the index of its entry.
    Checkpoint(LogIndex),
    /// A segment or checkpoint that was being made.
    Temporary,
    /// It claims to be a segment, but no segment has such a name.
    BadSegment,
    /// None of the log's.
    Other,
}

const NAME_HEAD: &str = "segment-";
const NAME_TAIL: &str = ".fsd";
const CHECKPOINT_HEAD: &str = "checkpoint-";
const ANEW_TAIL: &str = "-anew";
const TEMPORARY_TAIL: &str = ".tmp";

/// The name of a segment's file.
#[must_use]
pub fn file_name(id: SegmentId) -> String {
    format!("{NAME_HEAD}{:016x}{NAME_TAIL}", id.0)
}

/// The name of a segment's file while it is made ready.
pub(super) fn temporary_name(id: SegmentId) -> String {
    format!("{NAME_HEAD}{:016x}{TEMPORARY_TAIL}", id.0)
}

/// The name of the file of the checkpoint as of an entry.
#[must_use]
pub fn checkpoint_name(index: LogIndex) -> String {
    format!("{CHECKPOINT_HEAD}{:016x}", index.0)
}

/// The same for a checkpoint from which the log begins anew. That must be known even where the file is damaged: no older
/// checkpoint can stand for it.
#[must_use]
pub fn anew_checkpoint_name(index: LogIndex) -> String {
    checkpoint_name(index) + ANEW_TAIL
}

/// Whether a checkpoint of this name is one from which the log begins anew.
pub(super) fn names_anew(name: &str) -> bool {
    name.ends_with(ANEW_TAIL)
}

/// The name of a checkpoint's file while it is written.
pub(super) fn checkpoint_temporary_name(index: LogIndex) -> String {
    format!("{CHECKPOINT_HEAD}{:016x}{TEMPORARY_TAIL}", index.0)
}

pub(super) fn parse_name(name: &str) -> NameKind {
    if let Some(rest) = name.strip_prefix(CHECKPOINT_HEAD) {
        return parse_checkpoint_name(name, rest);
    }
    let Some(rest) = name.strip_prefix(NAME_HEAD) else { return NameKind::Other };
    if rest.ends_with(TEMPORARY_TAIL) {
        return NameKind::Temporary;
    }
    let Some(digits) = rest.strip_suffix(NAME_TAIL) else { return NameKind::Other };
    match u32::from_str_radix(digits, 16) {
        Ok(id) if id > 0 && file_name(SegmentId(id)) == name => NameKind::Segment(SegmentId(id)),
        _ => NameKind::BadSegment,
    }
}

/// A name that no checkpoint has is none of ours: nothing depends on a checkpoint's being there but the log, which
/// tells if it is missing.
fn parse_checkpoint_name(name: &str, digits: &str) -> NameKind {
    if digits.ends_with(TEMPORARY_TAIL) {
        return NameKind::Temporary;
    }
    let digits = digits.strip_suffix(ANEW_TAIL).unwrap_or(digits);
    match u64::from_str_radix(digits, 16).map(LogIndex) {
        Ok(index) if checkpoint_name(index) == name || anew_checkpoint_name(index) == name => {
            NameKind::Checkpoint(index)
        }
        _ => NameKind::Other,
    }
}

/// What is wrong with a segment's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderProblem {
    UnknownFormat(u32),
    Damage(String),
}

/// The preparation header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment's id.
    pub id: SegmentId,
    /// Makes this segment's CRCs differ from those of every other.
    pub salt: u64,
    /// The file's length.
    pub len_bytes: u64,
    /// Whose log it is.
    pub identity: DirectoryIdentity,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        LittleEndian::write_u32(&mut bytes[8..], FORMAT_VERSION);
        LittleEndian::write_u32(&mut bytes[16..], self.id.0);
        LittleEndian::write_u32(&mut bytes[20..], self.identity.node.0);
        LittleEndian::write_u64(&mut bytes[24..], self.salt);
        LittleEndian::write_u64(&mut bytes[32..], self.len_bytes);
        let name = self.identity.cluster.as_bytes();
        LittleEndian::write_u16(&mut bytes[40..], name.len() as u16);
        bytes[42..42 + name.len()].copy_from_slice(name);
        let crc = crc_without_field(None, &bytes);
        LittleEndian::write_u32(&mut bytes[12..], crc);
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderProblem> {
        let damage = |what: &str| Err(HeaderProblem::Damage(what.to_owned()));
        if &bytes[..8] != SEGMENT_MAGIC {
            return damage("no segment header");
        }
        let version = LittleEndian::read_u32(&bytes[8..]);
        if version != FORMAT_VERSION {
            return Err(HeaderProblem::UnknownFormat(version));
        }
        if LittleEndian::read_u32(&bytes[12..]) != crc_without_field(None, bytes) {
            return damage("segment header CRC mismatch");
        }
        let name_len = usize::from(LittleEndian::read_u16(&bytes[40..]));
        let name = bytes.get(42..42 + name_len).and_then(|name| std::str::from_utf8(name).ok());
        let Some(cluster) = name else { return damage("segment header without a cluster's name") };
        Ok(Self {
            id: SegmentId(LittleEndian::read_u32(&bytes[16..])),
            salt: LittleEndian::read_u64(&bytes[24..]),
            len_bytes: LittleEndian::read_u64(&bytes[32..]),
            identity: DirectoryIdentity {
                cluster: cluster.to_owned(),
                node: NodeId(LittleEndian::read_u32(&bytes[20..])),
            },
        })
    }

    /// Reads the header of the segment in `file`, and compares it with the file's name and length.
    pub(super) fn read<F: MappedFile>(
        file: &F,
        name_id: SegmentId,
    ) -> io::Result<Result<Self, HeaderProblem>> {
        let damage = |what: String| Ok(Err(HeaderProblem::Damage(what)));
        let len_bytes = file.len_bytes();
        if len_bytes < u64::from(RECORDS_AT) || len_bytes > u64::from(u32::MAX) {
            return damage(format!("a segment of {len_bytes} bytes"));
        }
        let mut bytes = [0; HEADER_BYTES];
        file.copy_out(0, &mut bytes)?;
        let header = match Self::decode(&bytes) {
            Ok(header) => header,
            Err(problem) => return Ok(Err(problem)),
        };
        if header.len_bytes != len_bytes {
            return damage(format!("a file of {len_bytes} bytes, by its header {}", header.len_bytes));
        }
        if header.id != name_id {
            return damage(format!("segment {} by its header, {name_id} by its name", header.id));
        }
        Ok(Ok(header))
    }
}

/// The activation block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The index of the segment's first record.
    pub first_index: LogIndex,
    /// Where the previous segment ended; 0 in the first segment.
    pub previous_end: Position,
    /// The log's last entry before the roll.
    pub previous_last: EntryId,
    /// Its stamp.
    pub previous_stamp: ClusterTimeMs,
}

impl Activation {
    pub(super) fn encode(&self, header: &SegmentHeader) -> [u8; ACTIVATION_BYTES] {
        let mut bytes = [0; ACTIVATION_BYTES];
        bytes[..8].copy_from_slice(ACTIVATION_MAGIC);
        LittleEndian::write_u32(&mut bytes[8..], header.id.0);
        LittleEndian::write_u64(&mut bytes[16..], self.first_index.0);
        LittleEndian::write_u64(&mut bytes[24..], self.previous_end.0);
        LittleEndian::write_u64(&mut bytes[32..], self.previous_last.index.0);
        LittleEndian::write_u64(&mut bytes[40..], self.previous_last.term.0);
        LittleEndian::write_u64(&mut bytes[48..], self.previous_stamp.0);
        let crc = crc_without_field(Some(header.salt), &bytes);
        LittleEndian::write_u32(&mut bytes[12..], crc);
        bytes
    }

    /// The activation of a segment, if there is a whole one.
    pub(super) fn read<F: MappedFile>(file: &F, header: &SegmentHeader) -> io::Result<Option<Self>> {
        let mut bytes = [0; ACTIVATION_BYTES];
        file.copy_out(ACTIVATION_AT, &mut bytes)?;
        let whole = &bytes[..8] == ACTIVATION_MAGIC
            && LittleEndian::read_u32(&bytes[8..]) == header.id.0
            && LittleEndian::read_u32(&bytes[12..]) == crc_without_field(Some(header.salt), &bytes);
        Ok(whole.then(|| Self {
            first_index: LogIndex(LittleEndian::read_u64(&bytes[16..])),
            previous_end: Position(LittleEndian::read_u64(&bytes[24..])),
            previous_last: EntryId {
                index: LogIndex(LittleEndian::read_u64(&bytes[32..])),
                term: Term(LittleEndian::read_u64(&bytes[40..])),
            },
            previous_stamp: ClusterTimeMs(LittleEndian::read_u64(&bytes[48..])),
        }))
    }
}

/// The CRC of headers, activation blocks and trailers: over the salt, if it counts, and all bytes, those of the CRC
/// itself (12 to 15 in all of them) taken as zero.
pub(super) fn crc_without_field(salt: Option<u64>, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if let Some(salt) = salt {
        crc.update(&salt.to_le_bytes());
    }
    crc.update(&bytes[..12]);
    crc.update(&[0; 4]);
    crc.update(&bytes[16..]);
    crc.finalize()
}

/// Leaves out the entry's own CRC: a CRC over bytes and their CRC is the same number whatever the bytes are, so it
/// would not tie an entry without a payload to its record.
fn record_crc(salt: u64, head: &[u8; RECORD_HEAD_BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&head[8..ENTRY_CRC_AT]);
    crc.update(&head[ENTRY_CRC_AT + 4..]);
    crc.finalize()
}

/// Bytes that a record takes in its segment.
pub(super) fn record_bytes(payload_bytes: usize) -> u64 {
    ((RECORD_HEAD_BYTES + payload_bytes) as u64).next_multiple_of(RECORD_ALIGNMENT)
}

/// Stores a record at its position; the caller made sure that it fits.
pub(super) fn store_record<F: MappedFile>(
    file: &mut F,
    salt: u64,
    durable: Position,
    position: Position,
    entry: &Entry,
) {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[..4].copy_from_slice(RECORD_TAG);
    LittleEndian::write_u64(&mut head[8..], durable.0);
    LittleEndian::write_u64(&mut head[16..], position.0);
    head[24..].copy_from_slice(&entry.header());
    let crc = record_crc(salt, &head);
    LittleEndian::write_u32(&mut head[4..], crc);
    let mut offset = u64::from(position.offset());
    file.store(offset, &head);
    offset += RECORD_HEAD_BYTES as u64;
    for part in entry.payload.parts() {
        file.store(offset, part);
        offset += part.len() as u64;
    }
}

/// A record as its first 64 bytes describe it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHead {
    /// Where it is.
    pub position: Position,
    /// What was flushed when it was written: everything before this place.
    pub durable: Position,
    /// Term and index of its entry.
    pub id: EntryId,
    /// The stamp of its entry.
    pub stamp: ClusterTimeMs,
    /// Bytes of its payload.
    pub payload_bytes: usize,
}

impl RecordHead {
    /// Where the next record begins.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        u64::from(self.position.offset()) + record_bytes(self.payload_bytes)
    }
}

/// Why there is no record at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// Nothing was ever stored there.
    Zeros,
    /// Something else is there.
    Invalid(String),
}

impl fmt::Display for NoRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("zeros where a record must be"),
            Self::Invalid(what) => f.write_str(what),
        }
    }
}

/// Reads the head of the record at `offset`, which must end at or before `limit`.
pub(super) fn read_record_head<F: MappedFile>(
    file: &F,
    header: &SegmentHeader,
    offset: u64,
    limit: u64,
) -> io::Result<Result<RecordHead, NoRecord>> {
    let invalid = |what: &str| Ok(Err(NoRecord::Invalid(what.to_owned())));
    if offset + RECORD_HEAD_BYTES as u64 > limit {
        return invalid("the segment ends before the record does");
    }
    let mut head = [0; RECORD_HEAD_BYTES];
    file.copy_out(offset, &mut head)?;
    if head == [0; RECORD_HEAD_BYTES] {
        return Ok(Err(NoRecord::Zeros));
    }
    if &head[..4] != RECORD_TAG {
        return invalid("no record");
    }
    if LittleEndian::read_u32(&head[4..]) != record_crc(header.salt, &head) {
        return invalid("record header CRC mismatch");
    }
    let position = Position::new(header.id, offset as u32);
    let claimed = Position(LittleEndian::read_u64(&head[16..]));
    if claimed != position {
        return Ok(Err(NoRecord::Invalid(format!("a record of position {claimed}"))));
    }
    let entry_header = &head[24..];
    let payload_bytes = match payload_bytes_of(entry_header) {
        Ok(payload_bytes) => payload_bytes,
        Err(error) => return Ok(Err(NoRecord::Invalid(error.to_string()))),
    };
    if offset + record_bytes(payload_bytes) > limit {
        return invalid("the segment ends before the record does");
    }
    Ok(Ok(RecordHead {
        position,
        durable: Position(LittleEndian::read_u64(&head[8..])),
        id: EntryId {
            index: LogIndex(LittleEndian::read_u64(entry_header)),
            term: Term(LittleEndian::read_u64(&entry_header[8..])),
        },
        stamp: ClusterTimeMs(LittleEndian::read_u64(&entry_header[16..])),
        payload_bytes,
    }))
}

/// Reads the entry of a record and checks its CRC; the payload is shared with the file's mapping.
pub(super) fn read_entry<F: MappedFile>(file: &F, head: &RecordHead) -> io::Result<Result<Entry, NoRecord>> {
    let offset = u64::from(head.position.offset()) + (RECORD_HEAD_BYTES - ENTRY_HEADER_BYTES) as u64;
    let bytes = file.slice(offset, ENTRY_HEADER_BYTES + head.payload_bytes)?;
    Ok(Entry::decode(&mut Reader::new(bytes)).map_err(|error| NoRecord::Invalid(error.to_string())))
}

/// Reads the whole record at `offset`.
pub(super) fn read_record<F: MappedFile>(
    file: &F,
    header: &SegmentHeader,
    offset: u64,
    limit: u64,
) -> io::Result<Result<(RecordHead, Entry), NoRecord>> {
    let head = match read_record_head(file, header, offset, limit)? {
        Ok(head) => head,
        Err(why) => return Ok(Err(why)),
    };
    Ok(read_entry(file, &head)?.map(|entry| (head, entry)))
}

/// What lies behind the place where the records end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// Any byte but zero.
    pub(super) is_used: bool,
    /// The greatest durable position that a whole record head names.
    pub(super) durable: Position,
    /// Where the first whole record head is.
    pub(super) next_record: Option<u64>,
}

/// Searches a segment from `offset` to `limit` for record heads, at every place where one could begin.
pub(super) fn search_rest<F: MappedFile>(
    file: &F,
    header: &SegmentHeader,
    offset: u64,
    limit: u64,
) -> io::Result<Rest> {
    let mut rest = Rest::default();
    let mut chunk = vec![0; SEARCH_BYTES];
    let zeros = vec![0; SEARCH_BYTES];
    let mut at = offset;
    while at < limit {
        let len = (limit - at).min(SEARCH_BYTES as u64) as usize;
        file.copy_out(at, &mut chunk[..len])?;
        if chunk[..len] != zeros[..len] {
            rest.is_used = true;
            for (n, bytes) in chunk[..len].chunks_exact(RECORD_ALIGNMENT as usize).enumerate() {
                let place = at + n as u64 * RECORD_ALIGNMENT;
                if &bytes[..4] == RECORD_TAG
                    && let Ok(head) = read_record_head(file, header, place, limit)?
                {
                    rest.durable = rest.durable.max(head.durable);
                    rest.next_record.get_or_insert(place);
                }
            }
        }
        at += len as u64;
    }
    Ok(rest)
}
