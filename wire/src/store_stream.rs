//! The stream of a store, byte by byte: what a node sends to one that is too far behind, and what a backup file holds. All
//! integers are little-endian, all CRCs are CRC-32 (IEEE). [`crate::stream_check`] reads one and makes nothing of it.
//!
//! ```text
//! 0     magic `fsd-str\n` (8 bytes), format version 1 (4 bytes)
//! 12    parts, one behind the other: a head, the files, the sessions, an end; nothing behind that
//! ```
//!
//! A part:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 1 head, 2 file, 3 session, 4 end |
//! | 1 | 4 | length of the payload |
//! | 5 | 4 | CRC of kind, length, the part's number (8 bytes; the head is part 0) and the payload |
//! | 9 | | payload |
//!
//! Head, of which there is one, the first part:
//!
//! | bytes | field |
//! | --- | --- |
//! | 2 | length of the cluster's name |
//! | | cluster's name, UTF-8 |
//! | 16 | cluster id; 0 while none is known |
//! | 8 | index of the entry as of which the store is |
//! | 8 | its term |
//! | 8 | its stamp, which is the store's time |
//! | 8 | revision counter |
//! | 8 | count of the files |
//! | 8 | count of the sessions |
//! | 8 | bytes of the image that files and sessions make up, places included |
//! | 8 | bytes of all contents |
//! | 4 | count of the registrations, which follow in the order of their indexes |
//! | | registrations: index (8), node (4), incarnation (8) |
//!
//! File, one for each, in the byte order of their names: the file's item of an image without the place (26 bytes and
//! the name), then the log entry that wrote the contents, as it is in the log ([`crate::entry`]). So contents travel
//! with the CRC that the leader gave them which first had them; item and entry must agree.
//!
//! Session, one for each, in the order of the sessions: the session's item of an image.
//!
//! End, the last part:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | count of the parts before it |
//! | 8 | 8 | count of the files |
//! | 16 | 8 | count of the sessions |
//! | 24 | 8 | bytes of all contents |
//! | 32 | 4 | CRC of the CRCs of all parts before it, in their order |
//!
//! Nothing in it is a node's own: all nodes that send the store as of one entry send the same bytes. So whoever has
//! received a part of a stream can go on with what another sends.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::command::NAME_BYTES_MAX;
use crate::entry::{ENTRY_HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::error::DecodeError;
use crate::hello::CLUSTER_NAME_BYTES_MAX;
use crate::types::{ClusterId, ClusterTimeMs, EntryId, Incarnation, LogIndex, NodeId, Term, Version};

/// What every stream begins with.
pub const MAGIC: &[u8; 8] = b"fsd-str\n";
/// The format version that this release writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes before the first part.
pub const PREAMBLE_BYTES: usize = 12;
/// Bytes of a part before its payload.
pub const PART_HEAD_BYTES: usize = 9;
/// Registrations that a head may have: far more than a cluster has nodes.
pub const REGISTRATIONS_MAX: usize = 4096;
/// Bytes of a file's item, its place left out, before the name.
pub const FILE_ITEM_HEAD_BYTES: usize = 26;
/// The longest item of a session.
pub const SESSION_ITEM_BYTES_MAX: usize = 1_068_076;
/// Where in a file's item the size of the contents is.
pub(crate) const FILE_SIZE_AT: usize = 10;

const CRC_AT: usize = 5;
const REGISTRATION_BYTES: usize = 20;
const HEAD_BYTES_MAX: usize =
    2 + CLUSTER_NAME_BYTES_MAX + 16 + 8 * 8 + 4 + REGISTRATIONS_MAX * REGISTRATION_BYTES;
const END_BYTES: usize = 36;

/// What is wrong with a stream, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// The part; it was not believed yet that there is one.
    pub part: u64,
    /// The byte of the stream at which the part begins.
    pub at: u64,
    /// What is wrong with it.
    pub what: StreamProblem,
}

/// What can be wrong with a part of a stream, or with what comes before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamProblem {
    /// The bytes are not a stream's.
    BadMagic,
    /// A stream of another release.
    UnknownFormat(u32),
    /// No part is of this kind.
    UnknownKind(u8),
    /// A part of another kind must be here.
    OutOfOrder {
        /// The kind that is here.
        found: PartKind,
        /// The kind that must be.
        expected: PartKind,
    },
    /// A part of this kind cannot be so long.
    TooLong {
        /// The length that it claims.
        len: usize,
        /// The longest.
        max: usize,
    },
    /// The part's CRC does not match.
    Crc,
    /// A field, or the entry that is in the part.
    Field(DecodeError),
    /// The head's fields do not go together.
    Head(&'static str),
    /// The store is another cluster's.
    OtherCluster(String),
    /// The entry is not the one that wrote the file.
    OtherEntry(&'static str),
    /// The items make up no store.
    Image {
        /// Where the item begins, counted from the first item.
        at: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Counts or the chain of CRCs are not what came.
    OtherEnd(&'static str),
    /// Bytes behind the end.
    Trailing,
    /// The bytes end before the end.
    CutShort,
}

impl StreamProblem {
    /// With the part that has it, and the byte of the stream at which that begins.
    #[must_use]
    pub fn of(self, part: u64, at: u64) -> StreamError {
        StreamError { part, at, what: self }
    }
}

impl From<DecodeError> for StreamProblem {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream of a store: part {} at byte {}: {}", self.part, self.at, self.what)
    }
}

impl fmt::Display for StreamProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic => write!(f, "no stream of a store"),
            Self::UnknownFormat(version) => {
                write!(f, "format version {version} is not known to this release")
            }
            Self::UnknownKind(kind) => write!(f, "no part is of kind {kind}"),
            Self::OutOfOrder { found, expected } => write!(f, "{found:?} where {expected:?} must be"),
            Self::TooLong { len, max } => write!(f, "{len} bytes where {max} are the bound"),
            Self::Crc => write!(f, "CRC mismatch"),
            Self::Field(error) => error.fmt(f),
            Self::Head(what) | Self::OtherEnd(what) => f.write_str(what),
            Self::OtherCluster(cluster) => write!(f, "a store of cluster {cluster:?}"),
            Self::OtherEntry(what) => write!(f, "file and entry do not go together: {what}"),
            Self::Image { at, what } => write!(f, "image of a store: at byte {at}: {what}"),
            Self::Trailing => write!(f, "bytes behind the end"),
            Self::CutShort => write!(f, "cut short: the bytes end before the end"),
        }
    }
}

impl std::error::Error for StreamError {}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// What the store is as of.
    Head,
    /// A file.
    File,
    /// A session.
    Session,
    /// What proves that all came.
    End,
}

impl PartKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::File => 2,
            Self::Session => 3,
            Self::End => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Head, Self::File, Self::Session, Self::End].into_iter().find(|kind| kind.to_byte() == byte)
    }

    fn payload_bytes_max(self) -> usize {
        match self {
            Self::Head => HEAD_BYTES_MAX,
            Self::File => FILE_ITEM_HEAD_BYTES + NAME_BYTES_MAX + ENTRY_HEADER_BYTES + PAYLOAD_BYTES_MAX,
            Self::Session => SESSION_ITEM_BYTES_MAX,
            Self::End => END_BYTES,
        }
    }
}

/// The bytes before the first part.
#[must_use]
pub fn preamble() -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    LittleEndian::write_u32(&mut bytes[8..], FORMAT_VERSION);
    bytes
}

/// Checks the bytes before the first part.
///
/// # Errors
/// If they are not those of a stream, or of another release's.
///
/// # Panics
/// If they are fewer than [`PREAMBLE_BYTES`].
pub fn check_preamble(bytes: &[u8]) -> Result<(), StreamProblem> {
    if bytes[..8] != *MAGIC {
        return Err(StreamProblem::BadMagic);
    }
    match LittleEndian::read_u32(&bytes[8..]) {
        FORMAT_VERSION => Ok(()),
        version => Err(StreamProblem::UnknownFormat(version)),
    }
}

/// Kind and length of a part, as its first bytes claim: believed once the CRC was checked.
///
/// # Errors
/// If it is of another kind than `expected`, or longer than any.
///
/// # Panics
/// If `head` has fewer bytes than [`PART_HEAD_BYTES`].
pub fn claimed(head: &[u8], expected: PartKind) -> Result<usize, StreamProblem> {
    let found = PartKind::from_byte(head[0]).ok_or(StreamProblem::UnknownKind(head[0]))?;
    if found != expected {
        return Err(StreamProblem::OutOfOrder { found, expected });
    }
    let (len, max) = (LittleEndian::read_u32(&head[1..]) as usize, found.payload_bytes_max());
    if len > max {
        return Err(StreamProblem::TooLong { len, max });
    }
    Ok(len)
}

/// Counts parts and what is in them, and chains their CRCs: the same for who writes a stream and who reads it.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// How many parts there were: the next one's number.
    pub parts: u64,
    /// How many of them were files.
    pub files: u64,
    /// And how many sessions.
    pub sessions: u64,
    /// Bytes of the files' contents.
    pub contents_bytes: u64,
    chain: crc32fast::Hasher,
}

impl Counted {
    /// The first bytes of the next part, which has this payload.
    ///
    /// # Panics
    /// If the payload is longer than one of this kind can be.
    #[must_use]
    pub fn part_head(&self, kind: PartKind, payload: &[&[u8]]) -> [u8; PART_HEAD_BYTES] {
        let len: usize = payload.iter().map(|piece| piece.len()).sum();
        assert!(len <= kind.payload_bytes_max(), "a part {kind:?} of {len} bytes");
        let mut head = [0; PART_HEAD_BYTES];
        head[0] = kind.to_byte();
        LittleEndian::write_u32(&mut head[1..], len as u32);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[..CRC_AT]);
        crc.update(&self.parts.to_le_bytes());
        for piece in payload {
            crc.update(piece);
        }
        LittleEndian::write_u32(&mut head[CRC_AT..], crc.finalize());
        head
    }

    /// Counts a part with this head, and what is in it.
    pub fn count(&mut self, head: &[u8; PART_HEAD_BYTES], contents_bytes: u64) {
        self.parts += 1;
        self.files += u64::from(head[0] == PartKind::File.to_byte());
        self.sessions += u64::from(head[0] == PartKind::Session.to_byte());
        self.contents_bytes += contents_bytes;
        self.chain.update(&head[CRC_AT..]);
    }

    /// The kind that the next part must have.
    #[must_use]
    pub fn next_kind(&self, head: Option<&StreamHead>) -> PartKind {
        match head {
            None => PartKind::Head,
            Some(head) if self.files < head.files => PartKind::File,
            Some(head) if self.sessions < head.sessions => PartKind::Session,
            Some(_) => PartKind::End,
        }
    }

    /// The payload of an end behind all that was counted.
    #[must_use]
    pub fn end(&self) -> [u8; END_BYTES] {
        let mut end = [0; END_BYTES];
        for (n, count) in [self.parts, self.files, self.sessions, self.contents_bytes].into_iter().enumerate()
        {
            LittleEndian::write_u64(&mut end[8 * n..], count);
        }
        LittleEndian::write_u32(&mut end[32..], self.chain.clone().finalize());
        end
    }

    /// Checks the payload of an end, and that all came that the head promised.
    ///
    /// # Errors
    /// What is not as it must be.
    pub fn check_end(&self, head: &StreamHead, end: &[u8]) -> Result<(), StreamProblem> {
        if end != self.end() {
            return Err(StreamProblem::OtherEnd("the end is not that of these parts"));
        }
        if self.contents_bytes != head.contents_bytes {
            return Err(StreamProblem::OtherEnd("contents are not as many bytes as by the head"));
        }
        Ok(())
    }
}

/// What a store is as of, and how much it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// The cluster's name.
    pub cluster: String,
    /// Its id in the genesis entry, if that was applied.
    pub genesis: Option<ClusterId>,
    /// The last entry that the store has seen.
    pub entry: EntryId,
    /// Its stamp.
    pub stamp: ClusterTimeMs,
    /// The revision counter.
    pub revision: Version,
    /// How many files there are.
    pub files: u64,
    /// How many sessions.
    pub sessions: u64,
    /// The bytes of the image that they make up.
    pub items_bytes: u64,
    /// The bytes of all contents.
    pub contents_bytes: u64,
    /// Who was registered up to that entry, in the order of the log.
    pub registrations: Vec<(LogIndex, NodeId, Incarnation)>,
}

impl StreamHead {
    /// The payload of the head.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text(&self.cluster);
        out.u128(self.genesis.map_or(0, |id| id.0));
        for number in [
            self.entry.index.0,
            self.entry.term.0,
            self.stamp.0,
            self.revision.0,
            self.files,
            self.sessions,
            self.items_bytes,
            self.contents_bytes,
        ] {
            out.u64(number);
        }
        out.count(self.registrations.len());
        for (index, node, incarnation) in &self.registrations {
            out.u64(index.0);
            out.u32(node.0);
            out.u64(incarnation.0);
        }
        out.into_bytes()
    }

    /// Reads the payload of a head.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(payload: Bytes) -> Result<Self, StreamProblem> {
        let mut reader = Reader::new(payload);
        let cluster = reader.text("cluster's name", CLUSTER_NAME_BYTES_MAX)?;
        let genesis = reader.u128()?;
        let mut head = Self {
            cluster,
            genesis: (genesis > 0).then_some(ClusterId(genesis)),
            entry: EntryId {
                index: LogIndex(reader.counter("entry index")?),
                term: Term(reader.counter("entry term")?),
            },
            stamp: ClusterTimeMs(reader.counter("entry stamp")?),
            revision: Version(reader.counter("revision")?),
            files: reader.u64()?,
            sessions: reader.u64()?,
            items_bytes: reader.u64()?,
            contents_bytes: reader.u64()?,
            registrations: Vec::new(),
        };
        for _ in 0..reader.count("registrations", REGISTRATION_BYTES)? {
            let index = LogIndex(reader.u64()?);
            head.registrations.push((index, NodeId(reader.u32()?), Incarnation(reader.u64()?)));
        }
        reader.finish()?;
        head.check().map_err(StreamProblem::Head)?;
        Ok(head)
    }

    /// Whether the fields go together.
    ///
    /// # Errors
    /// What is wrong if not.
    pub fn check(&self) -> Result<(), &'static str> {
        let indexes = || self.registrations.iter().map(|(index, _, _)| *index);
        if !indexes().is_sorted() || indexes().next_back().is_some_and(|last| last > self.entry.index) {
            return Err("registrations out of their order");
        }
        if self.registrations.len() > REGISTRATIONS_MAX {
            return Err("more registrations than a stream has");
        }
        // Each file and each change takes an entry.
        if self.revision.0 > self.entry.index.0 || self.files > self.revision.0 {
            return Err("more revisions than entries, or more files than revisions");
        }
        if self.sessions > self.entry.index.0 {
            return Err("more sessions than entries");
        }
        Ok(())
    }
}
