//! Messages between nodes: the RPCs of the Raft paper (figure 2), their replies, and signs of life.
//!
//! A node sends on the connection that it opened and receives on those that it accepted. Each reply carries
//! what it answers, so that a stale or repeated one changes nothing.

use crate::Message;
use crate::client::{ClientReply, ClientRequest};
use crate::codec::{Reader, Writer};
use crate::entry::{ENTRY_HEADER_BYTES, Entry};
use crate::error::DecodeError;
use crate::frame::Frame;
use crate::snapshot::{InstallSnapshot, InstallSnapshotReply};
use crate::types::{ClusterTimeMs, EntryId, Incarnation, Life, LogIndex, NodeId, Term};

const KIND_PING: u16 = 3;
const KIND_PONG: u16 = 4;
const KIND_REQUEST_VOTE: u16 = 16;
const KIND_REQUEST_VOTE_REPLY: u16 = 17;
const KIND_APPEND_ENTRIES: u16 = 18;
const KIND_APPEND_ENTRIES_REPLY: u16 = 19;
const KIND_TIMEOUT_NOW: u16 = 20;
const KIND_READ_INDEX: u16 = 21;
const KIND_READ_INDEX_REPLY: u16 = 22;
const KIND_FORWARD: u16 = 23;
const KIND_FORWARD_REPLY: u16 = 24;
const KIND_INSTALL_SNAPSHOT: u16 = 25;
const KIND_INSTALL_SNAPSHOT_REPLY: u16 = 26;
const KIND_ROOM: u16 = 27;

/// Asks for a vote (section 5.2), or whether a vote would be given (PreVote, thesis section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVote {
    /// The candidate's term; for a PreVote the term that it would stand in.
    pub term: Term,
    /// Who asks.
    pub candidate_id: NodeId,
    /// The incarnation of the candidate's data directory.
    pub incarnation: Incarnation,
    /// The candidate's own log confirms this incarnation as a voter, whatever the receiver has heard of it.
    pub registered: bool,
    /// The candidate's last log entry.
    pub last_log: EntryId,
    /// Only asks; nobody's term or vote changes.
    pub pre_vote: bool,
    /// The leader asked for this election: a leader that is alive is no reason to refuse.
    pub leadership_transfer: bool,
}

/// Answers [`RequestVote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVoteReply {
    /// The voter's current term.
    pub term: Term,
    /// The term that was asked for: which election this answers.
    pub election_term: Term,
    /// The incarnation of the voter's data directory.
    pub incarnation: Incarnation,
    /// It answers a PreVote.
    pub pre_vote: bool,
    /// Yes or no.
    pub vote_granted: bool,
}

/// Replicates entries, and is the heartbeat when it has none (section 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The leader.
    pub leader_id: NodeId,
    /// The entry before the first of `entries`.
    pub prev_log: EntryId,
    /// The leader's commit index.
    pub leader_commit: LogIndex,
    /// Counts the leader's rounds in this term; the reply carries it back, which confirms reads of that round.
    pub round: u64,
    /// The leader's cluster time when it was sent: its successor goes on from there.
    pub cluster_time: ClusterTimeMs,
    /// Entries that follow `prev_log`, each the successor of the one before.
    pub entries: Vec<Entry>,
}

/// Answers [`AppendEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendEntriesReply {
    /// The follower's current term.
    pub term: Term,
    /// The incarnation of the follower's data directory.
    pub incarnation: Incarnation,
    /// The round of the request.
    pub round: u64,
    /// The index of the request's `prev_log`.
    pub prev_log_index: LogIndex,
    /// What became of it.
    pub result: AppendResult,
}

/// What became of an AppendEntries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendResult {
    /// The follower's log equals the leader's up to here, durably.
    Matched {
        /// `prev_log` and the count of entries that came with it.
        match_index: LogIndex,
    },
    /// The request's term is over.
    StaleTerm,
    /// The follower has no entry, or another one, at `prev_log`: where to go on looking (section 5.3).
    Conflict {
        /// The term of the follower's entry at `prev_log`; 0 if its log ends before.
        conflict_term: Term,
        /// The first index of that term in the follower's log, or the index behind its last entry.
        conflict_index: LogIndex,
    },
}

/// Asks the receiver to stand for election at once (leadership transfer, thesis section 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The leader.
    pub leader_id: NodeId,
}

/// Which reads a [`ReadIndex`] asks for: all that one run of a follower's daemon has numbered up to here. An answer
/// to an earlier run names another life or another incarnation, and an answer to earlier reads a lower number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadIndexId {
    /// The incarnation of the asking node's data directory.
    pub incarnation: Incarnation,
    /// How often its daemon was started on it.
    pub life: Life,
    /// Counts the batches of reads that it has asked for in this life.
    pub number: u64,
}

/// A follower asks its leader from which index on its store may answer the reads that it has (thesis section 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// The follower's current term, in which the receiver leads.
    pub term: Term,
    /// Which reads.
    pub id: ReadIndexId,
}

/// Answers [`ReadIndex`]: a majority has confirmed, after it came, that the sender leads. A node that cannot say
/// so does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexReply {
    /// The leader's current term.
    pub term: Term,
    /// Which reads, as asked.
    pub id: ReadIndexId,
    /// Committed, and behind the removal of all that is due at `cluster_time`: a store that has applied the log up
    /// to here may answer.
    pub read_index: LogIndex,
    /// The leader's present cluster time, for what remains of expiries.
    pub cluster_time: ClusterTimeMs,
}

/// How much room a node's disk has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomState {
    /// Enough for whatever comes.
    Enough,
    /// Little more than it needs to make room again: what makes files grow had better be refused.
    Low,
    /// None for the next entry of its leader: it takes no entries.
    Full,
}

impl RoomState {
    fn to_byte(self) -> u8 {
        match self {
            Self::Enough => 1,
            Self::Low => 2,
            Self::Full => 3,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Enough,
            2 => Self::Low,
            3 => Self::Full,
            other => return Err(DecodeError::BadValue { field: "room", value: u64::from(other) }),
        })
    }
}

/// A message between nodes after their hellos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Asks for a sign of life.
    Ping,
    /// Gives it, on the connection that asked.
    Pong,
    /// See [`RequestVote`].
    RequestVote(RequestVote),
    /// See [`RequestVoteReply`].
    RequestVoteReply(RequestVoteReply),
    /// See [`AppendEntries`].
    AppendEntries(AppendEntries),
    /// See [`AppendEntriesReply`].
    AppendEntriesReply(AppendEntriesReply),
    /// See [`TimeoutNow`].
    TimeoutNow(TimeoutNow),
    /// See [`ReadIndex`].
    ReadIndex(ReadIndex),
    /// See [`ReadIndexReply`].
    ReadIndexReply(ReadIndexReply),
    /// What a client asked of the sender, for the leader to do. The id is the sender's.
    Forward(ClientRequest),
    /// What became of it, with the id of the request.
    ForwardReply(ClientReply),
    /// See [`InstallSnapshot`].
    InstallSnapshot(InstallSnapshot),
    /// See [`InstallSnapshotReply`].
    InstallSnapshotReply(InstallSnapshotReply),
    /// What the sender knows of the room on its disk.
    Room(RoomState),
}

impl Message for PeerMessage {
    fn kind(&self) -> u16 {
        match self {
            Self::Ping => KIND_PING,
            Self::Pong => KIND_PONG,
            Self::RequestVote(_) => KIND_REQUEST_VOTE,
            Self::RequestVoteReply(_) => KIND_REQUEST_VOTE_REPLY,
            Self::AppendEntries(_) => KIND_APPEND_ENTRIES,
            Self::AppendEntriesReply(_) => KIND_APPEND_ENTRIES_REPLY,
            Self::TimeoutNow(_) => KIND_TIMEOUT_NOW,
            Self::ReadIndex(_) => KIND_READ_INDEX,
            Self::ReadIndexReply(_) => KIND_READ_INDEX_REPLY,
            Self::Forward(_) => KIND_FORWARD,
            Self::ForwardReply(_) => KIND_FORWARD_REPLY,
            Self::InstallSnapshot(_) => KIND_INSTALL_SNAPSHOT,
            Self::InstallSnapshotReply(_) => KIND_INSTALL_SNAPSHOT_REPLY,
            Self::Room(_) => KIND_ROOM,
        }
    }

    fn encode_body(&self, out: &mut Writer) {
        match self {
            Self::Ping | Self::Pong => {}
            Self::RequestVote(message) => message.encode(out),
            Self::RequestVoteReply(message) => message.encode(out),
            Self::AppendEntries(message) => message.encode(out),
            Self::AppendEntriesReply(message) => message.encode(out),
            Self::TimeoutNow(message) => {
                out.u64(message.term.0);
                out.u32(message.leader_id.0);
            }
            Self::ReadIndex(message) => {
                out.u64(message.term.0);
                message.id.encode(out);
            }
            Self::ReadIndexReply(message) => message.encode(out),
            Self::Forward(request) => encode_inner(request, out),
            Self::ForwardReply(reply) => encode_inner(reply, out),
            Self::InstallSnapshot(message) => message.encode(out),
            Self::InstallSnapshotReply(message) => message.encode(out),
            Self::Room(state) => out.u8(state.to_byte()),
        }
    }
}

impl PeerMessage {
    /// Reads the message in `frame`.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body.clone());
        let message = match frame.kind {
            KIND_PING => Self::Ping,
            KIND_PONG => Self::Pong,
            KIND_REQUEST_VOTE => Self::RequestVote(RequestVote::decode(&mut reader)?),
            KIND_REQUEST_VOTE_REPLY => Self::RequestVoteReply(RequestVoteReply::decode(&mut reader)?),
            KIND_APPEND_ENTRIES => Self::AppendEntries(AppendEntries::decode(&mut reader)?),
            KIND_APPEND_ENTRIES_REPLY => Self::AppendEntriesReply(AppendEntriesReply::decode(&mut reader)?),
            KIND_TIMEOUT_NOW => Self::TimeoutNow(TimeoutNow {
                term: Term(reader.counter("term")?),
                leader_id: NodeId(reader.u32()?),
            }),
            KIND_READ_INDEX => Self::ReadIndex(ReadIndex {
                term: Term(reader.counter("term")?),
                id: ReadIndexId::decode(&mut reader)?,
            }),
            KIND_READ_INDEX_REPLY => Self::ReadIndexReply(ReadIndexReply::decode(&mut reader)?),
            KIND_FORWARD => Self::Forward(ClientRequest::decode(&decode_inner(&mut reader)?)?),
            KIND_FORWARD_REPLY => Self::ForwardReply(ClientReply::decode(&decode_inner(&mut reader)?)?),
            KIND_INSTALL_SNAPSHOT => Self::InstallSnapshot(InstallSnapshot::decode(&mut reader)?),
            KIND_INSTALL_SNAPSHOT_REPLY => {
                Self::InstallSnapshotReply(InstallSnapshotReply::decode(&mut reader)?)
            }
            KIND_ROOM => Self::Room(RoomState::from_byte(reader.u8()?)?),
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        reader.finish()?;
        Ok(message)
    }
}

impl RequestVote {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        out.u32(self.candidate_id.0);
        out.u64(self.incarnation.0);
        out.bool(self.registered);
        encode_entry_id(self.last_log, out);
        out.bool(self.pre_vote);
        out.bool(self.leadership_transfer);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            term: Term(reader.counter("term")?),
            candidate_id: NodeId(reader.u32()?),
            incarnation: Incarnation(reader.u64()?),
            registered: reader.bool("registered")?,
            last_log: decode_entry_id(reader)?,
            pre_vote: reader.bool("pre_vote")?,
            leadership_transfer: reader.bool("leadership_transfer")?,
        })
    }
}

impl RequestVoteReply {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        out.u64(self.election_term.0);
        out.u64(self.incarnation.0);
        out.bool(self.pre_vote);
        out.bool(self.vote_granted);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            term: Term(reader.counter("term")?),
            election_term: Term(reader.counter("term")?),
            incarnation: Incarnation(reader.u64()?),
            pre_vote: reader.bool("pre_vote")?,
            vote_granted: reader.bool("vote_granted")?,
        })
    }
}

impl AppendEntries {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        out.u32(self.leader_id.0);
        encode_entry_id(self.prev_log, out);
        out.u64(self.leader_commit.0);
        out.u64(self.round);
        out.u64(self.cluster_time.0);
        out.count(self.entries.len());
        for entry in &self.entries {
            entry.encode(out);
        }
    }

    /// Also checks what every receiver relies on: the entries follow `prev_log` without a gap, with terms
    /// and stamps that never fall, none of them from after the leader's term.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut message = Self {
            term: Term(reader.counter("term")?),
            leader_id: NodeId(reader.u32()?),
            prev_log: decode_entry_id(reader)?,
            leader_commit: LogIndex(reader.counter("index")?),
            round: reader.u64()?,
            cluster_time: ClusterTimeMs(reader.counter("cluster time")?),
            entries: Vec::new(),
        };
        let count = reader.count("entries", ENTRY_HEADER_BYTES)?;
        message.entries.reserve_exact(count);
        let mut previous = message.prev_log;
        let mut stamp = None;
        for _ in 0..count {
            let entry = Entry::decode(reader)?;
            let follows = previous.index.0.checked_add(1) == Some(entry.index.0)
                && entry.term >= previous.term
                && entry.term > Term(0)
                && entry.term <= message.term
                && stamp.is_none_or(|stamp| entry.stamp >= stamp);
            if !follows {
                return Err(DecodeError::EntrySequence { index: entry.index.0 });
            }
            previous = entry.id();
            stamp = Some(entry.stamp);
            message.entries.push(entry);
        }
        Ok(message)
    }
}

impl AppendEntriesReply {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        out.u64(self.incarnation.0);
        out.u64(self.round);
        out.u64(self.prev_log_index.0);
        let (code, term, index) = match self.result {
            AppendResult::Matched { match_index } => (1, Term(0), match_index),
            AppendResult::StaleTerm => (2, Term(0), LogIndex(0)),
            AppendResult::Conflict { conflict_term, conflict_index } => (3, conflict_term, conflict_index),
        };
        out.u8(code);
        out.u64(term.0);
        out.u64(index.0);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            term: Term(reader.counter("term")?),
            incarnation: Incarnation(reader.u64()?),
            round: reader.u64()?,
            prev_log_index: LogIndex(reader.counter("index")?),
            result: {
                let (code, term, index) =
                    (reader.u8()?, Term(reader.counter("term")?), LogIndex(reader.counter("index")?));
                match (code, term.0, index.0) {
                    (1, 0, _) => AppendResult::Matched { match_index: index },
                    (2, 0, 0) => AppendResult::StaleTerm,
                    (3, _, 1..) => AppendResult::Conflict { conflict_term: term, conflict_index: index },
                    _ => {
                        return Err(DecodeError::BadValue { field: "append result", value: u64::from(code) });
                    }
                }
            },
        })
    }
}

impl ReadIndexId {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.incarnation.0);
        out.u64(self.life.0);
        out.u64(self.number);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { incarnation: Incarnation(reader.u64()?), life: Life(reader.u64()?), number: reader.u64()? })
    }
}

impl ReadIndexReply {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        self.id.encode(out);
        out.u64(self.read_index.0);
        out.u64(self.cluster_time.0);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            term: Term(reader.counter("term")?),
            id: ReadIndexId::decode(reader)?,
            read_index: LogIndex(reader.counter("index")?),
            cluster_time: ClusterTimeMs(reader.counter("cluster time")?),
        })
    }
}

/// A message of the client protocol within one between nodes: its kind, then its body.
fn encode_inner(message: &impl Message, out: &mut Writer) {
    out.u16(message.kind());
    message.encode_body(out);
}

fn decode_inner(reader: &mut Reader) -> Result<Frame, DecodeError> {
    Ok(Frame { kind: reader.u16()?, body: reader.rest() })
}

pub(crate) fn encode_entry_id(id: EntryId, out: &mut Writer) {
    out.u64(id.term.0);
    out.u64(id.index.0);
}

/// An entry has a term and an index above 0; both are 0 before the first.
pub(crate) fn decode_entry_id(reader: &mut Reader) -> Result<EntryId, DecodeError> {
    let id = EntryId { term: Term(reader.counter("term")?), index: LogIndex(reader.counter("index")?) };
    if (id.term == Term(0)) != (id.index == LogIndex(0)) {
        return Err(DecodeError::BadValue { field: "term of an entry id", value: id.term.0 });
    }
    Ok(id)
}
