//! A checkpoint: the store as of one entry, so that a start need not apply the log from its beginning. It is one file,
//! of a length that is known before it is begun, made under a temporary name. What the store is made of (the *body*) is
//! opaque here. All integers are little-endian, all CRCs are CRC-32 (IEEE).
//!
//! ```text
//! 0     header
//! 512   blocks of tables, then blocks of the body, one behind the other
//!       trailer
//! ```
//!
//! Header, 512 bytes, the rest zero:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `fsd-chk\n` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | CRC of the 512 bytes, these four taken as zero |
//! | 16 | 8 | salt, drawn at random |
//! | 24 | 8 | length of the file |
//! | 32 | 8 | index of the entry as of which the store was |
//! | 40 | 8 | its term |
//! | 48 | 8 | its stamp |
//! | 56 | 8 | position behind its record, where the rest of the log begins |
//! | 64 | 16 | cluster id; 0 while none is known |
//! | 80 | 8 | revision counter |
//! | 88 | 8 | count of the files |
//! | 96 | 8 | count of the sessions |
//! | 104 | 8 | bytes of the body |
//! | 112 | 4 | count of the registrations |
//! | 116 | 4 | count of the segments |
//! | 120 | 4 | node |
//! | 124 | 2 | length of the cluster's name |
//! | 126 | | cluster's name, up to 255 bytes |
//! | 384 | 1 | 1 if the log begins anew behind the entry: what is older on the same disk is of another log |
//!
//! The tables are the registrations (index, 8 bytes; node, 4; incarnation, 8), in the order of their indexes, and the
//! ids (4 bytes) of the segments in which the body's contents lie, rising.
//!
//! A block, of 65,536 bytes of payload, the last one of the tables and the last one of the body of what is left:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | tag `fsdC` |
//! | 4 | 4 | number, from 0 on |
//! | 8 | 4 | length of the payload |
//! | 12 | 4 | CRC of the salt, these 32 bytes with the four of the CRC taken as zero, and the payload |
//! | 16 | 8 | the block's own offset in the file |
//! | 24 | 4 | what it is of: 1 tables, 2 body |
//! | 28 | 4 | zero |
//! | 32 | | payload |
//!
//! Trailer, 40 bytes:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `fsd-che\n` |
//! | 8 | 4 | count of the blocks |
//! | 12 | 4 | CRC of the salt and these 40 bytes, the four of the CRC taken as zero |
//! | 16 | 8 | the trailer's own offset in the file |
//! | 24 | 8 | bytes of payload in all blocks |
//! | 32 | 4 | CRC of the header's CRC and the CRCs of all blocks, in their order |
//! | 36 | 4 | zero |

mod reader;

use std::io;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;
use fsd_wire::hello::CLUSTER_NAME_BYTES_MAX;
use fsd_wire::{ClusterId, ClusterTimeMs, EntryId, Incarnation, LogIndex, NodeId, Term};

use super::DirectoryIdentity;
use super::entry_table::LogBase;
use super::error::{Doing, StorageError};
use super::segment::{
    NameKind, Position, SegmentId, anew_checkpoint_name, checkpoint_name, checkpoint_temporary_name,
    crc_without_field, names_anew, parse_name,
};
use crate::mapping::{Disk, MappedFile, WRITE_OUT_BYTES};
use crate::mutants::mutant;

pub use reader::{CheckpointReader, list_checkpoints};

/// The format version of checkpoints that this release writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// The longest payload of a block.
pub const BLOCK_PAYLOAD_BYTES_MAX: usize = 64 * 1024;

const MAGIC: &[u8; 8] = b"fsd-chk\n";
const TRAILER_MAGIC: &[u8; 8] = b"fsd-che\n";
const BLOCK_TAG: &[u8; 4] = b"fsdC";
const HEADER_BYTES: usize = 512;
const NAME_AT: usize = 126;
const BEGINS_ANEW_AT: usize = 384;
const BLOCK_HEAD_BYTES: usize = 32;
const TRAILER_BYTES: usize = 40;
/// Where header, blocks and trailer have their CRCs.
const CRC_AT: usize = 12;
const REGISTRATION_BYTES: u64 = 20;
const SEGMENT_BYTES: u64 = 4;

const TABLES: u32 = 1;
const BODY: u32 = 2;

/// What a checkpoint is of, and all that a start from it needs besides the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointHead {
    /// Makes this file's CRCs differ from those of every other.
    pub salt: u64,
    /// Whose it is.
    pub identity: DirectoryIdentity,
    /// The last entry that the store had seen.
    pub entry: EntryId,
    /// Its stamp, which was the store's time.
    pub stamp: ClusterTimeMs,
    /// Where the log's records behind that entry begin.
    pub log_end: Position,
    /// The cluster's id in the genesis entry, if that lies before.
    pub genesis: Option<ClusterId>,
    /// Who was registered up to that entry, in the order of the log.
    pub registrations: Vec<(LogIndex, NodeId, Incarnation)>,
    /// The segments in which the contents of the body's files lie, rising.
    pub segments: Vec<SegmentId>,
    /// The store's revision counter.
    pub revision: u64,
    /// How many files are in the body.
    pub files: u64,
    /// How many sessions.
    pub sessions: u64,
    /// The bytes of the body.
    pub body_bytes: u64,
    /// The log begins anew behind the entry: an older checkpoint on the same disk, and the log behind that one, do not
    /// count any more.
    pub begins_anew: bool,
}

impl CheckpointHead {
    /// Where the log begins behind it.
    #[must_use]
    pub fn base(&self) -> LogBase {
        LogBase { entry: self.entry, stamp: self.stamp, end: self.log_end }
    }

    /// The name of the file while it is written.
    #[must_use]
    pub fn temporary_name(&self) -> String {
        checkpoint_temporary_name(self.entry.index)
    }

    /// The name of the checkpoint's file.
    #[must_use]
    pub fn name(&self) -> String {
        if self.begins_anew {
            return anew_checkpoint_name(self.entry.index);
        }
        checkpoint_name(self.entry.index)
    }

    /// The length of the checkpoint's file.
    ///
    /// # Panics
    /// If the body is longer than any file can be.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let tables_bytes = tables_bytes(self.registrations.len() as u64, self.segments.len() as u64);
        file_bytes(tables_bytes, self.body_bytes).expect("a body that a file has room for")
    }

    /// Where a byte of the body lies in the file.
    #[must_use]
    pub fn body_offset(&self, at: u64) -> u64 {
        let tables_bytes = tables_bytes(self.registrations.len() as u64, self.segments.len() as u64);
        let before = HEADER_BYTES as u64 + blocks_bytes(tables_bytes).unwrap_or(0);
        let blocks = at / BLOCK_PAYLOAD_BYTES_MAX as u64 + 1;
        before + at + blocks * BLOCK_HEAD_BYTES as u64
    }

    fn tables(&self) -> Vec<u8> {
        let mut tables = Vec::new();
        for (index, node, incarnation) in &self.registrations {
            tables.extend_from_slice(&index.0.to_le_bytes());
            tables.extend_from_slice(&node.0.to_le_bytes());
            tables.extend_from_slice(&incarnation.0.to_le_bytes());
        }
        for segment in &self.segments {
            tables.extend_from_slice(&segment.0.to_le_bytes());
        }
        tables
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        LittleEndian::write_u32(&mut bytes[8..], FORMAT_VERSION);
        LittleEndian::write_u64(&mut bytes[16..], self.salt);
        LittleEndian::write_u64(&mut bytes[24..], self.file_bytes());
        LittleEndian::write_u64(&mut bytes[32..], self.entry.index.0);
        LittleEndian::write_u64(&mut bytes[40..], self.entry.term.0);
        LittleEndian::write_u64(&mut bytes[48..], self.stamp.0);
        LittleEndian::write_u64(&mut bytes[56..], self.log_end.0);
        LittleEndian::write_u128(&mut bytes[64..], self.genesis.map_or(0, |id| id.0));
        LittleEndian::write_u64(&mut bytes[80..], self.revision);
        LittleEndian::write_u64(&mut bytes[88..], self.files);
        LittleEndian::write_u64(&mut bytes[96..], self.sessions);
        LittleEndian::write_u64(&mut bytes[104..], self.body_bytes);
        LittleEndian::write_u32(&mut bytes[112..], self.registrations.len() as u32);
        LittleEndian::write_u32(&mut bytes[116..], self.segments.len() as u32);
        LittleEndian::write_u32(&mut bytes[120..], self.identity.node.0);
        let name = self.identity.cluster.as_bytes();
        LittleEndian::write_u16(&mut bytes[124..], name.len() as u16);
        bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        bytes[BEGINS_ANEW_AT] = u8::from(self.begins_anew);
        let crc = crc_without_field(None, &bytes);
        LittleEndian::write_u32(&mut bytes[CRC_AT..], crc);
        bytes
    }

    /// Reads all but the tables; gives how many items these have, too.
    fn decode(bytes: &[u8; HEADER_BYTES], file: &str) -> Result<(Self, [u32; 2]), StorageError> {
        let damage =
            |what: &str| StorageError::Damage { file: file.to_owned(), offset: 0, what: what.to_owned() };
        if &bytes[..8] != MAGIC {
            return Err(damage("no checkpoint header"));
        }
        let version = LittleEndian::read_u32(&bytes[8..]);
        if version != FORMAT_VERSION {
            return Err(StorageError::UnknownFormat { file: file.to_owned(), version });
        }
        if LittleEndian::read_u32(&bytes[CRC_AT..]) != crc_without_field(None, bytes) {
            return Err(damage("checkpoint header CRC mismatch"));
        }
        let name_len = usize::from(LittleEndian::read_u16(&bytes[124..]));
        let name = bytes.get(NAME_AT..NAME_AT + name_len).and_then(|name| std::str::from_utf8(name).ok());
        let cluster = name.ok_or_else(|| damage("checkpoint header without a cluster's name"))?.to_owned();
        let genesis = LittleEndian::read_u128(&bytes[64..]);
        let head = Self {
            salt: LittleEndian::read_u64(&bytes[16..]),
            identity: DirectoryIdentity { cluster, node: NodeId(LittleEndian::read_u32(&bytes[120..])) },
            entry: EntryId {
                index: LogIndex(LittleEndian::read_u64(&bytes[32..])),
                term: Term(LittleEndian::read_u64(&bytes[40..])),
            },
            stamp: ClusterTimeMs(LittleEndian::read_u64(&bytes[48..])),
            log_end: Position(LittleEndian::read_u64(&bytes[56..])),
            genesis: (genesis != 0).then_some(ClusterId(genesis)),
            registrations: Vec::new(),
            segments: Vec::new(),
            revision: LittleEndian::read_u64(&bytes[80..]),
            files: LittleEndian::read_u64(&bytes[88..]),
            sessions: LittleEndian::read_u64(&bytes[96..]),
            body_bytes: LittleEndian::read_u64(&bytes[104..]),
            begins_anew: bytes[BEGINS_ANEW_AT] == 1,
        };
        Ok((head, [LittleEndian::read_u32(&bytes[112..]), LittleEndian::read_u32(&bytes[116..])]))
    }

    /// Takes the tables up; the caller made sure of their length. What they are not, if they are none.
    fn take_tables(&mut self, registrations: u32, tables: &[u8]) -> Result<(), &'static str> {
        let (of_registrations, of_segments) =
            tables.split_at(registrations as usize * REGISTRATION_BYTES as usize);
        self.registrations = of_registrations
            .chunks_exact(REGISTRATION_BYTES as usize)
            .map(|bytes| {
                (
                    LogIndex(LittleEndian::read_u64(bytes)),
                    NodeId(LittleEndian::read_u32(&bytes[8..])),
                    Incarnation(LittleEndian::read_u64(&bytes[12..])),
                )
            })
            .collect();
        self.segments = of_segments
            .chunks_exact(SEGMENT_BYTES as usize)
            .map(|bytes| SegmentId(LittleEndian::read_u32(bytes)))
            .collect();
        let last = self.registrations.last().map_or(LogIndex(0), |(index, _, _)| *index);
        if !self.registrations.is_sorted_by_key(|(index, _, _)| *index) || last > self.entry.index {
            return Err("registrations out of their order");
        }
        if !self.segments.is_sorted_by(|a, b| a < b) || self.segments.first() == Some(&SegmentId(0)) {
            return Err("segments out of their order");
        }
        Ok(())
    }
}

fn tables_bytes(registrations: u64, segments: u64) -> u64 {
    registrations * REGISTRATION_BYTES + segments * SEGMENT_BYTES
}

/// What so many bytes take in blocks.
fn blocks_bytes(payload_bytes: u64) -> Option<u64> {
    let blocks = payload_bytes.div_ceil(BLOCK_PAYLOAD_BYTES_MAX as u64);
    // A block's number must have room.
    u32::try_from(blocks).ok()?;
    payload_bytes.checked_add(blocks * BLOCK_HEAD_BYTES as u64)
}

fn file_bytes(tables_bytes: u64, body_bytes: u64) -> Option<u64> {
    blocks_bytes(tables_bytes)?
        .checked_add(blocks_bytes(body_bytes)?)?
        .checked_add((HEADER_BYTES + TRAILER_BYTES) as u64)
}

/// The length of a checkpoint of so many segments and bytes of items, with some members more than a cluster has.
#[must_use]
pub fn file_bytes_about(segments: u64, body_bytes: u64) -> u64 {
    file_bytes(tables_bytes(32, segments), body_bytes).unwrap_or(u64::MAX)
}

fn block_head(number: u32, section: u32, offset: u64, payload_bytes: usize) -> [u8; BLOCK_HEAD_BYTES] {
    let mut head = [0; BLOCK_HEAD_BYTES];
    head[..4].copy_from_slice(BLOCK_TAG);
    LittleEndian::write_u32(&mut head[4..], number);
    LittleEndian::write_u32(&mut head[8..], payload_bytes as u32);
    LittleEndian::write_u64(&mut head[16..], offset);
    LittleEndian::write_u32(&mut head[24..], section);
    head
}

/// The CRC of a block whose head has none yet.
fn block_crc(salt: u64, head: &[u8; BLOCK_HEAD_BYTES], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(head);
    crc.update(payload);
    crc.finalize()
}

/// Counts blocks, and chains their CRCs: the same for who writes them and who reads them.
struct Blocks {
    salt: u64,
    /// Where the next block begins.
    offset: u64,
    count: u32,
    payload_bytes: u64,
    chain: crc32fast::Hasher,
}

impl Blocks {
    fn behind(header: &[u8; HEADER_BYTES], salt: u64) -> Self {
        let mut chain = crc32fast::Hasher::new();
        chain.update(&header[CRC_AT..CRC_AT + 4]);
        Self { salt, offset: HEADER_BYTES as u64, count: 0, payload_bytes: 0, chain }
    }

    /// Counts the next block, and gives its head.
    fn next(&mut self, section: u32, payload: &[u8]) -> [u8; BLOCK_HEAD_BYTES] {
        let mut head = block_head(self.count, section, self.offset, payload.len());
        let crc = block_crc(self.salt, &head, payload);
        LittleEndian::write_u32(&mut head[CRC_AT..], crc);
        self.chain.update(&crc.to_le_bytes());
        self.offset += (BLOCK_HEAD_BYTES + payload.len()) as u64;
        self.count += 1;
        self.payload_bytes += payload.len() as u64;
        head
    }

    fn trailer(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..8].copy_from_slice(TRAILER_MAGIC);
        LittleEndian::write_u32(&mut bytes[8..], self.count);
        LittleEndian::write_u64(&mut bytes[16..], self.offset);
        LittleEndian::write_u64(&mut bytes[24..], self.payload_bytes);
        LittleEndian::write_u32(&mut bytes[32..], self.chain.clone().finalize());
        let crc = crc_without_field(Some(self.salt), &bytes);
        LittleEndian::write_u32(&mut bytes[CRC_AT..], crc);
        bytes
    }
}

/// A checkpoint that is being written. Whoever has it needs nothing else: a helper thread can go on with it in small
/// steps. Let go of early, it leaves a temporary file, which the next start removes.
pub struct CheckpointWriter<D: Disk> {
    disk: D,
    file: D::File,
    index: LogIndex,
    name: String,
    blocks: Blocks,
    /// The beginning of the next block.
    pending: Vec<u8>,
    body_bytes_left: u64,
    /// All before this is written out.
    written_out: u64,
}

/// A checkpoint that is whole on the disk, and counts as soon as it has its name.
pub struct NamelessCheckpoint<D: Disk> {
    disk: D,
    index: LogIndex,
    name: String,
}

impl<D: Disk> NamelessCheckpoint<D> {
    /// Makes it a checkpoint: from now on, it is there for every start.
    ///
    /// # Errors
    /// If the change of the name or the flush of the directory failed.
    pub fn name(self) -> io::Result<()> {
        self.disk.rename(&checkpoint_temporary_name(self.index), &self.name)?;
        self.disk.sync_directory()
    }
}

impl<D: Disk> CheckpointWriter<D> {
    /// Begins a checkpoint: the file has its whole length from now on.
    ///
    /// # Errors
    /// If there is no room for it, or the disk fails. Then there may be a temporary file.
    ///
    /// # Panics
    /// If the head's lists are not in their order, or its cluster's name is too long.
    pub fn create(disk: &D, head: &CheckpointHead) -> io::Result<Self> {
        assert!(head.identity.cluster.len() <= CLUSTER_NAME_BYTES_MAX, "{}", head.identity);
        let tables = head.tables();
        let checked = head.clone().take_tables(head.registrations.len() as u32, &tables);
        checked.unwrap_or_else(|what| panic!("{what}: {head:?}"));
        let mut file =
            disk.create_unfilled(&checkpoint_temporary_name(head.entry.index), head.file_bytes())?;
        let header = head.encode();
        file.store(0, &header);
        let mut writer = Self {
            disk: disk.clone(),
            file,
            index: head.entry.index,
            name: head.name(),
            blocks: Blocks::behind(&header, head.salt),
            pending: Vec::new(),
            body_bytes_left: head.body_bytes,
            written_out: 0,
        };
        for payload in tables.chunks(BLOCK_PAYLOAD_BYTES_MAX) {
            writer.store_block(TABLES, payload)?;
        }
        Ok(writer)
    }

    /// Appends to the body.
    ///
    /// # Errors
    /// If the disk fails.
    ///
    /// # Panics
    /// If the body gets longer than its head says.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let left = self.body_bytes_left.checked_sub(bytes.len() as u64);
        self.body_bytes_left = left.expect("no more than the head says");
        while !bytes.is_empty() {
            let room = BLOCK_PAYLOAD_BYTES_MAX - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            let is_last = bytes.is_empty() && self.body_bytes_left == 0;
            if self.pending.len() == BLOCK_PAYLOAD_BYTES_MAX || is_last {
                let payload = std::mem::take(&mut self.pending);
                self.store_block(BODY, &payload)?;
                self.pending = payload;
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// Ends it, and makes it a checkpoint.
    ///
    /// # Errors
    /// If a flush or the change of the name failed.
    ///
    /// # Panics
    /// If the body is shorter than its head says.
    pub fn finish(self) -> io::Result<()> {
        self.complete()?.name()
    }

    /// Ends and flushes it; it lacks but its name.
    ///
    /// # Errors
    /// If the flush failed.
    ///
    /// # Panics
    /// If the body is shorter than its head says.
    pub fn complete(mut self) -> io::Result<NamelessCheckpoint<D>> {
        assert!(self.body_bytes_left == 0, "{} bytes are missing", self.body_bytes_left);
        self.file.store(self.blocks.offset, &self.blocks.trailer());
        if !mutant!("checkpoint-is-not-flushed") {
            self.file.flush()?;
        }
        Ok(NamelessCheckpoint { disk: self.disk, index: self.index, name: self.name })
    }

    /// Gives it up, and its room back.
    ///
    /// # Errors
    /// If the directory cannot be changed.
    pub fn abandon(self) -> io::Result<()> {
        self.disk.remove(&checkpoint_temporary_name(self.index))
    }

    fn store_block(&mut self, section: u32, payload: &[u8]) -> io::Result<()> {
        let offset = self.blocks.offset;
        let head = self.blocks.next(section, payload);
        self.file.store(offset, &head);
        self.file.store(offset + BLOCK_HEAD_BYTES as u64, payload);
        let stored = self.blocks.offset - self.written_out;
        if stored >= WRITE_OUT_BYTES {
            self.file.write_out(self.written_out, stored)?;
            self.written_out = self.blocks.offset;
        }
        Ok(())
    }
}
