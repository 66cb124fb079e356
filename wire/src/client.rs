//! Requests of clients and their replies. Requests may be pipelined; replies come in any order and carry the
//! request's id.

use bytes::Bytes;

use crate::Message;
use crate::codec::{Reader, Writer};
use crate::command::NAME_BYTES_MAX;
use crate::entry::Payload;
use crate::error::DecodeError;
use crate::frame::Frame;
use crate::hello::REASON_BYTES_MAX;
use crate::session::{decode_acknowledged, decode_change, decode_session, encode_change};
use crate::types::{NodeId, RequestId, Sequence, SessionId, Term, Version};

pub use crate::description::FileInfo;
pub use crate::status::{NodeRole, NodeStatus, StorageStatus};

/// The longest address in a redirect, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

const KIND_READ: u16 = 32;
const KIND_STAT: u16 = 33;
const KIND_CHANGE: u16 = 34;
const KIND_LIST: u16 = 35;
const KIND_STATUS: u16 = 36;
const KIND_OPEN_SESSION: u16 = 37;
const KIND_SESSION_CHANGE: u16 = 38;
const KIND_KEEP_ALIVE: u16 = 39;
const KIND_CLOSE_SESSION: u16 = 40;
const KIND_STORAGE_STATUS: u16 = 41;
const KIND_BACKUP_BEGIN: u16 = 46;
const KIND_BACKUP_CHUNK: u16 = 47;
const KIND_READ_REPLY: u16 = 48;
const KIND_STAT_REPLY: u16 = 49;
const KIND_CHANGE_REPLY: u16 = 50;
const KIND_LIST_REPLY: u16 = 51;
const KIND_STATUS_REPLY: u16 = 52;
const KIND_REFUSAL: u16 = 53;
const KIND_SESSION_OPENED: u16 = 54;
const KIND_SESSION_DONE: u16 = 55;
const KIND_STORAGE_STATUS_REPLY: u16 = 56;
const KIND_BACKUP_BEGUN: u16 = 62;
const KIND_BACKUP_CHUNK_REPLY: u16 = 63;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Contents, version and remaining expiry of a file.
    Read {
        /// The file's name.
        name: String,
    },
    /// Version, size and remaining expiry of a file.
    Stat {
        /// The file's name.
        name: String,
    },
    /// A change to a file.
    Change {
        /// The bytes of a [`crate::Command`]: they become the log entry's payload as they are.
        command: Payload,
    },
    /// The files whose names begin with a prefix, in byte order.
    List {
        /// What the names begin with; empty for all.
        prefix: String,
        /// Only names behind this one; empty for the first page.
        after: String,
        /// At most so many files; the node may return fewer.
        limit: u32,
    },
    /// What the node knows of itself. Answered by any node, leader or not.
    Status,
    /// Begins a session.
    OpenSession,
    /// A change to a file that is made once, however often it is asked for.
    SessionChange {
        /// The session.
        session: SessionId,
        /// Which of its changes: a number that no other change of the session has.
        sequence: Sequence,
        /// The client needs no reply up to this one any more, and sends none of those changes again.
        acknowledged: Sequence,
        /// The bytes of a [`crate::Command`].
        command: Payload,
    },
    /// A sign of life, for a session that would end without one.
    KeepAlive {
        /// The session.
        session: SessionId,
        /// As in a change.
        acknowledged: Sequence,
    },
    /// Ends a session.
    CloseSession {
        /// The session.
        session: SessionId,
    },
    /// What the node's data directory takes. Answered by any node, leader or not.
    StorageStatus,
    /// Begins a backup: the node keeps the store as it is now, or a little later, for this connection to fetch.
    BackupBegin,
    /// The bytes of a backup from `offset` on: those that follow what was fetched last, or that again.
    BackupChunk {
        /// The backup, as [`Outcome::BackupBegun`] names it.
        backup: u64,
        /// Where in the stream of the store ([`crate::store_stream`]) the bytes begin.
        offset: u64,
    },
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    /// Chosen by the client, unique among its requests in flight on this connection.
    pub id: RequestId,
    /// How long the client will wait, in milliseconds; a node gives up by then, with the honest outcome.
    pub timeout_ms: u32,
    /// What it asks for.
    pub operation: Operation,
}

impl Message for ClientRequest {
    fn kind(&self) -> u16 {
        match self.operation {
            Operation::Read { .. } => KIND_READ,
            Operation::Stat { .. } => KIND_STAT,
            Operation::Change { .. } => KIND_CHANGE,
            Operation::List { .. } => KIND_LIST,
            Operation::Status => KIND_STATUS,
            Operation::OpenSession => KIND_OPEN_SESSION,
            Operation::SessionChange { .. } => KIND_SESSION_CHANGE,
            Operation::KeepAlive { .. } => KIND_KEEP_ALIVE,
            Operation::CloseSession { .. } => KIND_CLOSE_SESSION,
            Operation::StorageStatus => KIND_STORAGE_STATUS,
            Operation::BackupBegin => KIND_BACKUP_BEGIN,
            Operation::BackupChunk { .. } => KIND_BACKUP_CHUNK,
        }
    }

    fn encode_body(&self, out: &mut Writer) {
        out.u64(self.id.0);
        out.u32(self.timeout_ms);
        match &self.operation {
            Operation::Read { name } | Operation::Stat { name } => out.text(name),
            Operation::Change { command } => {
                for part in command.parts() {
                    out.shared(part);
                }
            }
            Operation::List { prefix, after, limit } => {
                out.text(prefix);
                out.text(after);
                out.u32(*limit);
            }
            Operation::Status
            | Operation::OpenSession
            | Operation::StorageStatus
            | Operation::BackupBegin => {}
            Operation::SessionChange { session, sequence, acknowledged, command } => {
                encode_change(out, *session, *sequence, *acknowledged);
                for part in command.parts() {
                    out.shared(part);
                }
            }
            Operation::KeepAlive { session, acknowledged } => {
                out.u64(session.0);
                out.u64(acknowledged.0);
            }
            Operation::CloseSession { session } => out.u64(session.0),
            Operation::BackupChunk { backup, offset } => {
                out.u64(*backup);
                out.u64(*offset);
            }
        }
    }
}

impl ClientRequest {
    /// Reads the message in `frame`. The bytes of a change are checked by [`crate::Command::decode`].
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body.clone());
        let id = RequestId(reader.u64()?);
        let timeout_ms = reader.u32()?;
        let operation = match frame.kind {
            KIND_READ => Operation::Read { name: reader.text("name", NAME_BYTES_MAX)? },
            KIND_STAT => Operation::Stat { name: reader.text("name", NAME_BYTES_MAX)? },
            KIND_CHANGE => Operation::Change { command: reader.rest().into() },
            KIND_LIST => Operation::List {
                prefix: reader.text("prefix", NAME_BYTES_MAX)?,
                after: reader.text("after", NAME_BYTES_MAX)?,
                limit: reader.u32()?,
            },
            KIND_STATUS => Operation::Status,
            KIND_OPEN_SESSION => Operation::OpenSession,
            KIND_SESSION_CHANGE => {
                let (session, sequence, acknowledged) = decode_change(&mut reader)?;
                let command = reader.rest().into();
                Operation::SessionChange { session, sequence, acknowledged, command }
            }
            KIND_KEEP_ALIVE => Operation::KeepAlive {
                session: decode_session(&mut reader)?,
                acknowledged: decode_acknowledged(&mut reader)?,
            },
            KIND_CLOSE_SESSION => Operation::CloseSession { session: decode_session(&mut reader)? },
            KIND_STORAGE_STATUS => Operation::StorageStatus,
            KIND_BACKUP_BEGIN => Operation::BackupBegin,
            KIND_BACKUP_CHUNK => Operation::BackupChunk { backup: reader.u64()?, offset: reader.u64()? },
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        reader.finish()?;
        Ok(Self { id, timeout_ms, operation })
    }
}

/// Why a request was not done, or is not known to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such file.
    NotFound,
    /// The file's version is another one.
    VersionMismatch {
        /// The present version; 0 if there is no such file.
        present: Version,
    },
    /// A file and a directory would have the same name.
    Conflict {
        /// The name that is in the way.
        with: String,
    },
    /// The name breaks the rules.
    InvalidName {
        /// Which rule.
        reason: String,
    },
    /// The contents are over the limit.
    TooLarge {
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// The request makes no sense.
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// This node does not lead. Nothing was done.
    NotLeader {
        /// Who leads.
        leader: NodeId,
        /// The leader's address for clients of this protocol.
        address: String,
        /// The term in which it leads: of two hints, the later term counts.
        term: Term,
    },
    /// This node knows of no leader. Nothing was done.
    NoLeader,
    /// There is too much to do at present. Nothing was done.
    Busy,
    /// The outcome is not known: it may have been done, or may yet be.
    Unknown,
    /// There is no such session any more. This attempt did nothing; an earlier one of the same change, whose reply
    /// was lost, may have.
    SessionGone,
    /// There is no room for it on a disk that is needed. Nothing was done. Deletes are still taken.
    DiskFull {
        /// A node whose disk is full.
        node: NodeId,
    },
}

impl Refusal {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::NotFound => out.u16(1),
            Self::VersionMismatch { present } => {
                out.u16(2);
                out.u64(present.0);
            }
            Self::Conflict { with } => {
                out.u16(3);
                out.text(with);
            }
            Self::InvalidName { reason } => {
                out.u16(4);
                out.reason(reason, REASON_BYTES_MAX);
            }
            Self::TooLarge { max_bytes } => {
                out.u16(5);
                out.u64(*max_bytes);
            }
            Self::BadRequest { reason } => {
                out.u16(6);
                out.reason(reason, REASON_BYTES_MAX);
            }
            Self::NotLeader { leader, address, term } => {
                out.u16(7);
                out.u32(leader.0);
                out.text(address);
                out.u64(term.0);
            }
            Self::NoLeader => out.u16(8),
            Self::Busy => out.u16(9),
            Self::Unknown => out.u16(10),
            Self::SessionGone => out.u16(11),
            Self::DiskFull { node } => {
                out.u16(12);
                out.u32(node.0);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u16()? {
            1 => Self::NotFound,
            2 => Self::VersionMismatch { present: Version(reader.u64()?) },
            3 => Self::Conflict { with: reader.text("name", NAME_BYTES_MAX)? },
            4 => Self::InvalidName { reason: reader.text("reason", REASON_BYTES_MAX)? },
            5 => Self::TooLarge { max_bytes: reader.u64()? },
            6 => Self::BadRequest { reason: reader.text("reason", REASON_BYTES_MAX)? },
            7 => Self::NotLeader {
                leader: NodeId(reader.u32()?),
                address: reader.text("address", ADDRESS_BYTES_MAX)?,
                term: Term(reader.u64()?),
            },
            8 => Self::NoLeader,
            9 => Self::Busy,
            10 => Self::Unknown,
            11 => Self::SessionGone,
            12 => Self::DiskFull { node: NodeId(reader.u32()?) },
            other => return Err(DecodeError::BadValue { field: "status", value: u64::from(other) }),
        })
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A file's contents.
    Read {
        /// Its version.
        version: Version,
        /// Seconds until it is gone, rounded up; 0 for never.
        expiry_seconds: u64,
        /// Its contents.
        contents: Bytes,
    },
    /// A file's description.
    Stat(FileInfo),
    /// A change was made.
    Changed {
        /// The new version; for a delete, the revision of the delete.
        version: Version,
    },
    /// A page of files.
    Listed {
        /// The files, in byte order of their names.
        files: Vec<FileInfo>,
        /// There are more behind the last one.
        more: bool,
    },
    /// What the node knows of itself.
    Status(NodeStatus),
    /// A session has begun.
    SessionOpened {
        /// Its id.
        session: SessionId,
        /// Cluster time without a sign of life after which it ends, in milliseconds.
        idle_ms: u64,
    },
    /// A session was kept alive, or closed.
    SessionDone,
    /// What the node's data directory takes.
    StorageStatus(StorageStatus),
    /// A backup has begun.
    BackupBegun {
        /// What the node calls it. It is known on this connection alone.
        backup: u64,
    },
    /// A piece of a backup.
    BackupChunk {
        /// The stream ends behind them.
        is_last: bool,
        /// The bytes that were asked for; none if they are not there yet: to be asked for again.
        bytes: Bytes,
    },
    /// Not done, or not known to be done.
    Refused(Refusal),
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientReply {
    /// The request's id.
    pub id: RequestId,
    /// What became of it.
    pub outcome: Outcome,
}

impl Message for ClientReply {
    fn kind(&self) -> u16 {
        match self.outcome {
            Outcome::Read { .. } => KIND_READ_REPLY,
            Outcome::Stat(_) => KIND_STAT_REPLY,
            Outcome::Changed { .. } => KIND_CHANGE_REPLY,
            Outcome::Listed { .. } => KIND_LIST_REPLY,
            Outcome::Status(_) => KIND_STATUS_REPLY,
            Outcome::SessionOpened { .. } => KIND_SESSION_OPENED,
            Outcome::SessionDone => KIND_SESSION_DONE,
            Outcome::StorageStatus(_) => KIND_STORAGE_STATUS_REPLY,
            Outcome::BackupBegun { .. } => KIND_BACKUP_BEGUN,
            Outcome::BackupChunk { .. } => KIND_BACKUP_CHUNK_REPLY,
            Outcome::Refused(_) => KIND_REFUSAL,
        }
    }

    fn encode_body(&self, out: &mut Writer) {
        out.u64(self.id.0);
        match &self.outcome {
            Outcome::Read { version, expiry_seconds, contents } => {
                out.u64(version.0);
                out.u64(*expiry_seconds);
                out.shared(contents);
            }
            Outcome::Stat(info) => info.encode(out),
            Outcome::Changed { version } => out.u64(version.0),
            Outcome::Listed { files, more } => {
                out.bool(*more);
                out.count(files.len());
                for file in files {
                    file.encode(out);
                }
            }
            Outcome::Status(status) => status.encode(out),
            Outcome::SessionOpened { session, idle_ms } => {
                out.u64(session.0);
                out.u64(*idle_ms);
            }
            Outcome::SessionDone => {}
            Outcome::StorageStatus(status) => status.encode(out),
            Outcome::BackupBegun { backup } => out.u64(*backup),
            Outcome::BackupChunk { is_last, bytes } => {
                out.bool(*is_last);
                out.shared(bytes);
            }
            Outcome::Refused(refusal) => refusal.encode(out),
        }
    }
}

impl ClientReply {
    /// Reads the message in `frame`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body.clone());
        let id = RequestId(reader.u64()?);
        let outcome = match frame.kind {
            KIND_READ_REPLY => Outcome::Read {
                version: Version(reader.u64()?),
                expiry_seconds: reader.u64()?,
                contents: reader.rest(),
            },
            KIND_STAT_REPLY => Outcome::Stat(FileInfo::decode(&mut reader)?),
            KIND_CHANGE_REPLY => Outcome::Changed { version: Version(reader.u64()?) },
            KIND_LIST_REPLY => decode_list(&mut reader)?,
            KIND_STATUS_REPLY => Outcome::Status(NodeStatus::decode(&mut reader)?),
            KIND_SESSION_OPENED => {
                Outcome::SessionOpened { session: decode_session(&mut reader)?, idle_ms: reader.u64()? }
            }
            KIND_SESSION_DONE => Outcome::SessionDone,
            KIND_STORAGE_STATUS_REPLY => Outcome::StorageStatus(StorageStatus::decode(&mut reader)?),
            KIND_BACKUP_BEGUN => Outcome::BackupBegun { backup: reader.u64()? },
            KIND_BACKUP_CHUNK_REPLY => {
                Outcome::BackupChunk { is_last: reader.bool("last chunk")?, bytes: reader.rest() }
            }
            KIND_REFUSAL => Outcome::Refused(Refusal::decode(&mut reader)?),
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        reader.finish()?;
        Ok(Self { id, outcome })
    }
}

fn decode_list(reader: &mut Reader) -> Result<Outcome, DecodeError> {
    let more = reader.bool("more")?;
    let count = reader.count("files", 26)?;
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        files.push(FileInfo::decode(reader)?);
    }
    Ok(Outcome::Listed { files, more })
}
