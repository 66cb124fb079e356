//! Messages that bring a node up to date whose leader no longer has the entries that it needs (section 7): the state
//! as of one entry, as a stream of bytes in chunks.
//!
//! What the bytes are is not the wire's business. The receiver says which byte it wants next, so a chunk that is lost or
//! comes twice does no harm, and a stream that was broken off goes on where it was.

use crate::codec::{COUNTER_MAX, Reader, Writer};
use crate::entry::Payload;
use crate::error::DecodeError;
use crate::peer::{decode_entry_id, encode_entry_id};
use crate::types::{EntryId, Incarnation, LogIndex, NodeId, Term};

/// Longest explanation of a snapshot that is refused.
pub const REFUSAL_BYTES_MAX: usize = 1024;

/// A piece of the state as of one entry (the paper, figure 13). Like AppendEntries a sign of life of the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// The leader.
    pub leader_id: NodeId,
    /// The last entry that the state includes. It is committed.
    pub entry: EntryId,
    /// Where in the stream `bytes` lie.
    pub offset: u64,
    /// The stream ends behind them.
    pub is_last: bool,
    /// Perhaps none: then it only asks how far the receiver is.
    pub bytes: Payload,
}

/// Answers [`InstallSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallSnapshotReply {
    /// The follower's current term.
    pub term: Term,
    /// The incarnation of the follower's data directory.
    pub incarnation: Incarnation,
    /// The entry that the request names.
    pub entry: EntryId,
    /// The follower has the stream up to here.
    pub next_offset: u64,
    /// How it stands.
    pub state: SnapshotState,
}

/// How it stands with a snapshot at the node that is to install it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// It wants the bytes from `next_offset` on.
    Receiving,
    /// It has installed the whole, durably.
    Installed,
    /// It has the entry, durably, and needs no snapshot.
    HasIt,
    /// The request's term is over.
    StaleTerm,
    /// It cannot install this.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

impl InstallSnapshot {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        out.u32(self.leader_id.0);
        encode_entry_id(self.entry, out);
        out.u64(self.offset);
        out.bool(self.is_last);
        for part in self.bytes.parts() {
            out.shared(part);
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let term = Term(reader.counter("term")?);
        let message = Self {
            term,
            leader_id: NodeId(reader.u32()?),
            entry: decode_last_included(reader, term)?,
            offset: reader.counter("offset")?,
            is_last: reader.bool("is_last")?,
            bytes: reader.rest().into(),
        };
        // So that nobody has to mind an overflow who counts on from here.
        let end = message.offset.saturating_add(message.bytes.len() as u64);
        if end > COUNTER_MAX {
            return Err(DecodeError::BadValue { field: "offset", value: message.offset });
        }
        Ok(message)
    }
}

impl InstallSnapshotReply {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        out.u64(self.incarnation.0);
        encode_entry_id(self.entry, out);
        out.u64(self.next_offset);
        match &self.state {
            SnapshotState::Receiving => out.u8(1),
            SnapshotState::Installed => out.u8(2),
            SnapshotState::HasIt => out.u8(3),
            SnapshotState::StaleTerm => out.u8(4),
            SnapshotState::Refused { reason } => {
                out.u8(5);
                out.reason(reason, REFUSAL_BYTES_MAX);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            term: Term(reader.counter("term")?),
            incarnation: Incarnation(reader.u64()?),
            entry: decode_last_included(reader, Term(COUNTER_MAX))?,
            next_offset: reader.counter("offset")?,
            state: match reader.u8()? {
                1 => SnapshotState::Receiving,
                2 => SnapshotState::Installed,
                3 => SnapshotState::HasIt,
                4 => SnapshotState::StaleTerm,
                5 => SnapshotState::Refused { reason: reader.text("reason", REFUSAL_BYTES_MAX)? },
                other => {
                    return Err(DecodeError::BadValue { field: "snapshot state", value: u64::from(other) });
                }
            },
        })
    }
}

/// A snapshot is of some entry, and none of a term that its sender has not reached.
fn decode_last_included(reader: &mut Reader, term_max: Term) -> Result<EntryId, DecodeError> {
    let entry = decode_entry_id(reader)?;
    if entry.index == LogIndex(0) || entry.term > term_max {
        return Err(DecodeError::BadValue { field: "last entry of a snapshot", value: entry.term.0 });
    }
    Ok(entry)
}
