//! What a log entry does to a client's session.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | session action: 1 open, 2 keep alive, 3 close, 4 change |
//! | 1 | 8 | open: how long the session lives without a sign of life, in milliseconds; else the session |
//! | 9 | 4 | open: how many sessions there may be, the new one among them |
//! | 9 | 8 | keep alive: up to which sequence number the client has its replies |
//! | 9 | 8 | change: its sequence number |
//! | 17 | 8 | change: up to which sequence number the client has its replies, less than its own |
//! | 25 | | change: a [`crate::Command`], to the end |

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::entry::{PAYLOAD_BYTES_MAX, Payload};
use crate::error::DecodeError;
use crate::types::{Sequence, SessionId};

/// Bytes of a session's change before its command.
pub const SESSION_CHANGE_HEAD_BYTES: usize = 25;

const OPEN: u8 = 1;
const KEEP_ALIVE: u8 = 2;
const CLOSE: u8 = 3;
const CHANGE: u8 = 4;

const ACKNOWLEDGED: &str = "acknowledged sequence number";

/// The payload of an entry of kind [`crate::EntryKind::Session`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionCommand {
    /// Opens a session, which is named after the index of this entry. The bounds are in the entry, so that
    /// every node, of whatever release, ends the same sessions at the same place of the log.
    Open {
        /// How long the session lives without a sign of life, in milliseconds of cluster time; above 0.
        idle_ms: u64,
        /// How many sessions there may be, the new one among them; above 0.
        sessions_max: u32,
    },
    /// A sign of life.
    KeepAlive {
        /// The session.
        session: SessionId,
        /// The client has all replies up to this one.
        acknowledged: Sequence,
    },
    /// Ends the session.
    Close {
        /// The session.
        session: SessionId,
    },
    /// A change to the file store that takes effect at most once, however often its entry is repeated.
    Change {
        /// The session.
        session: SessionId,
        /// Which of the session's changes; above 0.
        sequence: Sequence,
        /// The client has all replies up to this one.
        acknowledged: Sequence,
        /// The bytes of a [`crate::Command`].
        command: Payload,
    },
}

impl SessionCommand {
    /// The payload's bytes; the contents of a change are shared, not copied.
    ///
    /// # Panics
    /// If a change is acknowledged before it is made: nobody could read it again, and in the log it would end every node.
    #[must_use]
    pub fn encode(&self) -> Payload {
        let mut out = Writer::new();
        let [mut head, mut tail] = [Bytes::new(), Bytes::new()];
        match self {
            Self::Open { idle_ms, sessions_max } => {
                out.u8(OPEN);
                out.u64(*idle_ms);
                out.u32(*sessions_max);
            }
            Self::KeepAlive { session, acknowledged } => {
                out.u8(KEEP_ALIVE);
                out.u64(session.0);
                out.u64(acknowledged.0);
            }
            Self::Close { session } => {
                out.u8(CLOSE);
                out.u64(session.0);
            }
            Self::Change { session, sequence, acknowledged, command } => {
                assert!(acknowledged < sequence, "change {sequence} acknowledges {acknowledged}");
                out.u8(CHANGE);
                encode_change(&mut out, *session, *sequence, *acknowledged);
                [head, tail] = command.parts().map(Bytes::clone);
            }
        }
        // A command that came over a socket is in one piece, with its contents: that piece stays whole.
        if !tail.is_empty() {
            out.raw(&std::mem::take(&mut head));
        } else {
            tail = head;
        }
        Payload::new(out.into_bytes().into(), tail)
    }

    /// The session that it is about; none yet for one that opens it.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Open { .. } => None,
            Self::KeepAlive { session, .. } | Self::Close { session } | Self::Change { session, .. } => {
                Some(*session)
            }
        }
    }

    /// Reads the payload of an entry of kind [`crate::EntryKind::Session`]; a change's contents are shared with
    /// it. The bytes of its command are checked by [`crate::Command::decode`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(payload: &Payload) -> Result<Self, DecodeError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let len = payload.len();
            return Err(DecodeError::TooLong { field: "session command", len, max: PAYLOAD_BYTES_MAX });
        }
        let [head, tail] = payload.parts();
        if !tail.is_empty() && head.len() < SESSION_CHANGE_HEAD_BYTES {
            return Self::decode(&payload.to_bytes().into());
        }
        let mut reader = Reader::new(head.clone());
        let command = match reader.u8()? {
            OPEN => Self::Open {
                idle_ms: above_zero("time without a sign of life", reader.u64()?)?,
                sessions_max: above_zero("bound on sessions", u64::from(reader.u32()?))? as u32,
            },
            KEEP_ALIVE => Self::KeepAlive {
                session: decode_session(&mut reader)?,
                acknowledged: decode_acknowledged(&mut reader)?,
            },
            CLOSE => Self::Close { session: decode_session(&mut reader)? },
            CHANGE => {
                let (session, sequence, acknowledged) = decode_change(&mut reader)?;
                let rest = reader.rest();
                let command =
                    if rest.is_empty() { tail.clone().into() } else { Payload::new(rest, tail.clone()) };
                return Ok(Self::Change { session, sequence, acknowledged, command });
            }
            other => {
                return Err(DecodeError::BadValue { field: "session action", value: u64::from(other) });
            }
        };
        reader.finish()?;
        if tail.is_empty() { Ok(command) } else { Err(DecodeError::Trailing { left: tail.len() }) }
    }
}

/// Appends what comes before the command of a session's change, in a request as in an entry.
pub(crate) fn encode_change(
    out: &mut Writer,
    session: SessionId,
    sequence: Sequence,
    acknowledged: Sequence,
) {
    out.u64(session.0);
    out.u64(sequence.0);
    out.u64(acknowledged.0);
}

/// Reads what [`encode_change`] wrote. A change that acknowledges its own reply has not been thought through.
pub(crate) fn decode_change(reader: &mut Reader) -> Result<(SessionId, Sequence, Sequence), DecodeError> {
    let session = decode_session(reader)?;
    let sequence = Sequence(above_zero("sequence number", reader.counter("sequence number")?)?);
    let acknowledged = decode_acknowledged(reader)?;
    if acknowledged >= sequence {
        return Err(DecodeError::BadValue { field: ACKNOWLEDGED, value: acknowledged.0 });
    }
    Ok((session, sequence, acknowledged))
}

/// The id of a session, which is the index of an entry and never 0.
pub(crate) fn decode_session(reader: &mut Reader) -> Result<SessionId, DecodeError> {
    Ok(SessionId(above_zero("session", reader.counter("session")?)?))
}

/// Up to which change a client has its replies; 0 for none.
pub(crate) fn decode_acknowledged(reader: &mut Reader) -> Result<Sequence, DecodeError> {
    Ok(Sequence(reader.counter(ACKNOWLEDGED)?))
}

fn above_zero(field: &'static str, value: u64) -> Result<u64, DecodeError> {
    if value == 0 { Err(DecodeError::BadValue { field, value }) } else { Ok(value) }
}

#[cfg(test)]
mod tests;
