//! Log entries, encoded the same on the wire and on the disk: a follower appends the bytes that it received.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | index |
//! | 8 | 8 | term |
//! | 16 | 8 | stamp: cluster time in milliseconds |
//! | 24 | 1 | kind |
//! | 25 | 3 | zero |
//! | 28 | 4 | length of the payload in bytes |
//! | 32 | 4 | CRC-32 of bytes 0 to 31 and the payload |
//! | 36 | 4 | zero |
//! | 40 | | payload |

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::codec::{COUNTER_MAX, Reader, Writer};
use crate::command::Command;
use crate::error::DecodeError;
use crate::session::SessionCommand;
use crate::types::{ClusterId, ClusterTimeMs, EntryId, Incarnation, LogIndex, NodeId, Term};

/// Bytes of an entry before its payload.
pub const ENTRY_HEADER_BYTES: usize = 40;
/// The longest payload that an entry may carry: a command with the longest name and the largest contents.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024 + 64 * 1024;
/// Members that a genesis entry may name: the largest cluster, with room.
const MEMBERS_MAX: usize = 64;

const CRC_AT: usize = 32;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The no-op that a leader appends at the start of its term (the paper, section 8).
    Noop,
    /// The first entry of a cluster: its id, and the incarnations that the first leader had met.
    Genesis,
    /// From here on, this incarnation is the one that counts for its node.
    Register,
    /// Nothing but a stamp: cluster time reached it, and what is due by then is gone.
    Tick,
    /// A change to the file store.
    Command,
    /// What a client does with its session: a [`crate::SessionCommand`].
    Session,
}

impl EntryKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Noop => 1,
            Self::Genesis => 2,
            Self::Register => 3,
            Self::Tick => 4,
            Self::Command => 5,
            Self::Session => 6,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Noop,
            2 => Self::Genesis,
            3 => Self::Register,
            4 => Self::Tick,
            5 => Self::Command,
            6 => Self::Session,
            other => return Err(DecodeError::BadValue { field: "entry kind", value: u64::from(other) }),
        })
    }
}

/// An entry's bytes behind its header, in at most two pieces: what the leader wrote before the contents, and
/// the contents as they came from a socket. Two payloads are equal when their bytes are.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    head: Bytes,
    tail: Bytes,
}

impl Payload {
    /// The concatenation of `head` and `tail`.
    #[must_use]
    pub fn new(head: Bytes, tail: Bytes) -> Self {
        Self { head, tail }
    }

    /// The pieces in their order.
    #[must_use]
    pub fn parts(&self) -> [&Bytes; 2] {
        [&self.head, &self.tail]
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece, copied only if they are in two.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match (self.head.is_empty(), self.tail.is_empty()) {
            (_, true) => self.head.clone(),
            (true, false) => self.tail.clone(),
            (false, false) => [&self.head[..], &self.tail[..]].concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(head: Bytes) -> Self {
        Self { head, tail: Bytes::new() }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Payload {}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// Cluster time when the leader made it; never less than the entry before.
    pub stamp: ClusterTimeMs,
    /// What it is for.
    pub kind: EntryKind,
    /// What it carries.
    pub payload: Payload,
}

impl Entry {
    /// Term and index.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }

    /// Bytes of header and payload.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.payload.len()
    }

    /// The change to the file store that the entry carries, in a session or outside of one; the contents are
    /// shared with the entry.
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn command(&self) -> Result<Option<Command>, DecodeError> {
        match self.kind {
            EntryKind::Noop | EntryKind::Genesis | EntryKind::Register | EntryKind::Tick => Ok(None),
            EntryKind::Command => Command::decode(&self.payload).map(Some),
            EntryKind::Session => match SessionCommand::decode(&self.payload)? {
                SessionCommand::Change { command, .. } => Command::decode(&command).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// The header, with the CRC over header and payload.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`], which nobody may propose, or a number is over
    /// [`COUNTER_MAX`]: nobody could read the entry again.
    #[must_use]
    pub fn header(&self) -> [u8; ENTRY_HEADER_BYTES] {
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "payload of {} bytes", self.payload.len());
        let counters = [self.index.0, self.term.0, self.stamp.0];
        assert!(counters.iter().all(|counter| *counter <= COUNTER_MAX), "numbers of an entry: {counters:?}");
        let mut header = [0; ENTRY_HEADER_BYTES];
        LittleEndian::write_u64(&mut header[0..], self.index.0);
        LittleEndian::write_u64(&mut header[8..], self.term.0);
        LittleEndian::write_u64(&mut header[16..], self.stamp.0);
        header[24] = self.kind.to_byte();
        LittleEndian::write_u32(&mut header[28..], self.payload.len() as u32);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..CRC_AT]);
        for part in self.payload.parts() {
            crc.update(part);
        }
        LittleEndian::write_u32(&mut header[CRC_AT..], crc.finalize());
        header
    }

    /// Appends header and payload.
    pub fn encode(&self, out: &mut Writer) {
        out.raw(&self.header());
        for part in self.payload.parts() {
            out.shared(part);
        }
    }

    /// Takes one entry off the front of `reader` and checks its CRC.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let header = reader.take(ENTRY_HEADER_BYTES)?;
        let payload_bytes = payload_bytes_of(&header)?;
        let payload = reader.take(payload_bytes)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..CRC_AT]);
        crc.update(&payload);
        let index = LittleEndian::read_u64(&header[0..]);
        if LittleEndian::read_u32(&header[CRC_AT..]) != crc.finalize() {
            return Err(DecodeError::EntryCrc { index });
        }
        if header[25..28] != [0; 3] || header[36..40] != [0; 4] {
            return Err(DecodeError::BadValue { field: "entry reserved bytes", value: 1 });
        }
        let mut numbers = Reader::new(header.slice(..24));
        Ok(Self {
            index: LogIndex(numbers.counter("entry index")?),
            term: Term(numbers.counter("entry term")?),
            stamp: ClusterTimeMs(numbers.counter("entry stamp")?),
            kind: EntryKind::from_byte(header[24])?,
            payload: payload.into(),
        })
    }
}

/// The length of the payload that an entry's header names, checked against its bound. The header's CRC also
/// covers the payload, so the length must be believed before it can be proven.
///
/// # Panics
/// If `header` is shorter than [`ENTRY_HEADER_BYTES`].
///
/// # Errors
/// If the length is over [`PAYLOAD_BYTES_MAX`].
pub fn payload_bytes_of(header: &[u8]) -> Result<usize, DecodeError> {
    let len = LittleEndian::read_u32(&header[28..ENTRY_HEADER_BYTES]) as usize;
    if len > PAYLOAD_BYTES_MAX {
        return Err(DecodeError::TooLong { field: "entry payload", len, max: PAYLOAD_BYTES_MAX });
    }
    Ok(len)
}

/// The payload of the first entry of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Drawn at random by the first leader.
    pub cluster_id: ClusterId,
    /// The incarnations that the first leader had met, its own among them, in the order of the nodes.
    pub incarnations: Vec<(NodeId, Incarnation)>,
}

impl Genesis {
    /// The payload's bytes.
    ///
    /// # Panics
    /// If the cluster id is 0, which stands for none, or the nodes are too many or not in their order.
    #[must_use]
    pub fn encode(&self) -> Payload {
        assert!(self.cluster_id != ClusterId(0), "0 stands for no cluster id");
        assert!(self.incarnations.len() <= MEMBERS_MAX, "{} members", self.incarnations.len());
        assert!(in_order(&self.incarnations), "{:?}", self.incarnations);
        let mut out = Writer::new();
        out.u128(self.cluster_id.0);
        out.count(self.incarnations.len());
        for (node, incarnation) in &self.incarnations {
            out.u32(node.0);
            out.u64(incarnation.0);
        }
        Payload::from(Bytes::from(out.into_bytes()))
    }

    /// Reads the payload of an entry of kind [`EntryKind::Genesis`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(payload: &Payload) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload.to_bytes());
        let cluster_id = ClusterId(reader.u128()?);
        let count = reader.count("genesis members", 12)?;
        if count > MEMBERS_MAX {
            return Err(DecodeError::TooLong { field: "genesis members", len: count, max: MEMBERS_MAX });
        }
        let mut incarnations = Vec::with_capacity(count);
        for _ in 0..count {
            incarnations.push((NodeId(reader.u32()?), Incarnation(reader.u64()?)));
        }
        reader.finish()?;
        if cluster_id == ClusterId(0) {
            return Err(DecodeError::BadValue { field: "cluster id", value: 0 });
        }
        if !in_order(&incarnations) {
            return Err(DecodeError::BadValue { field: "order of genesis members", value: count as u64 });
        }
        Ok(Self { cluster_id, incarnations })
    }
}

/// Each node once, in ascending order: equal entries have equal bytes.
fn in_order(incarnations: &[(NodeId, Incarnation)]) -> bool {
    incarnations.is_sorted_by(|(one, _), (next, _)| one < next)
}

/// The payload that makes an incarnation the one that counts for its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The node.
    pub node: NodeId,
    /// Its incarnation from here on.
    pub incarnation: Incarnation,
}

impl Register {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Payload {
        let mut out = Writer::new();
        out.u32(self.node.0);
        out.u64(self.incarnation.0);
        Payload::from(Bytes::from(out.into_bytes()))
    }

    /// Reads the payload of an entry of kind [`EntryKind::Register`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(payload: &Payload) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload.to_bytes());
        let register = Self { node: NodeId(reader.u32()?), incarnation: Incarnation(reader.u64()?) };
        reader.finish()?;
        Ok(register)
    }
}
