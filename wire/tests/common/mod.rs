//! One sample of every message kind and variant, and of all that a log entry carries.

// Each test binary includes this file and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use bytes::Bytes;
use fsd_wire::client::{
    self, ClientReply, ClientRequest, FileInfo, NodeRole, NodeStatus, Outcome, Refusal, StorageStatus,
};
use fsd_wire::codec::{Reader, Writer};
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Identity, Role};
use fsd_wire::peer::{
    AppendEntries, AppendEntriesReply, AppendResult, PeerMessage, ReadIndex, ReadIndexId, ReadIndexReply,
    RequestVote, RequestVoteReply, RoomState, TimeoutNow,
};
use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, SnapshotState};
use fsd_wire::*;

/// As large as any bound of the daemon.
pub const BODY_BYTES_MAX: u32 = 20 * 1024 * 1024;

/// Any message that travels in a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyMessage {
    Hello(Hello),
    HelloReply(HelloReply),
    Peer(PeerMessage),
    Request(ClientRequest),
    Reply(ClientReply),
}

impl AnyMessage {
    pub fn kind(&self) -> u16 {
        match self {
            Self::Hello(message) => message.kind(),
            Self::HelloReply(message) => message.kind(),
            Self::Peer(message) => message.kind(),
            Self::Request(message) => message.kind(),
            Self::Reply(message) => message.kind(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let pieces = match self {
            Self::Hello(message) => message.to_frame(),
            Self::HelloReply(message) => message.to_frame(),
            Self::Peer(message) => message.to_frame(),
            Self::Request(message) => message.to_frame(),
            Self::Reply(message) => message.to_frame(),
        };
        pieces.concat()
    }

    /// Reads `frame` as the kind of message that its number belongs to.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        Ok(match frame.kind {
            1 => Self::Hello(Hello::decode(frame)?),
            2 => Self::HelloReply(HelloReply::decode(frame)?),
            32..=41 | 46 | 47 => Self::Request(ClientRequest::decode(frame)?),
            48..=56 | 62 | 63 => Self::Reply(ClientReply::decode(frame)?),
            _ => Self::Peer(PeerMessage::decode(frame)?),
        })
    }
}

/// What lies in a log entry's payload, or is one.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    Entry(Entry),
    Command(Command),
    Genesis(Genesis),
    Register(Register),
    Session(SessionCommand),
}

impl Stored {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Entry(entry) => {
                let mut out = Writer::new();
                entry.encode(&mut out);
                out.into_bytes()
            }
            Self::Command(command) => command.encode().to_bytes().to_vec(),
            Self::Genesis(genesis) => genesis.encode().to_bytes().to_vec(),
            Self::Register(register) => register.encode().to_bytes().to_vec(),
            Self::Session(command) => command.encode().to_bytes().to_vec(),
        }
    }

    /// Reads `bytes` as what `self` is.
    pub fn decode_same(&self, bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes = Bytes::copy_from_slice(bytes);
        Ok(match self {
            Self::Entry(_) => {
                let mut reader = Reader::new(bytes);
                let entry = Entry::decode(&mut reader)?;
                reader.finish()?;
                Self::Entry(entry)
            }
            Self::Command(_) => Self::Command(Command::decode(&bytes.into())?),
            Self::Genesis(_) => Self::Genesis(Genesis::decode(&bytes.into())?),
            Self::Register(_) => Self::Register(Register::decode(&bytes.into())?),
            Self::Session(_) => Self::Session(SessionCommand::decode(&bytes.into())?),
        })
    }
}

/// The one frame in `bytes`, as a message.
pub fn decode_frame(bytes: &[u8]) -> Result<Option<AnyMessage>, String> {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    decoder.feed(bytes);
    let Some(frame) = decoder.next_frame().map_err(readable)? else { return Ok(None) };
    AnyMessage::decode(&frame).map(Some).map_err(readable)
}

fn readable(error: impl std::error::Error) -> String {
    format!("{error:?}: {error}")
}

/// A writing of bytes that shows well in a diff: sixteen to a line.
pub fn to_hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(|chunk| line(chunk) + "\n").collect()
}

/// Reads what [`to_hex`] wrote; from `#` to the end of a line is comment.
pub fn from_hex(text: &str) -> Vec<u8> {
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("`{byte}` is no byte")))
        .collect()
}

pub fn identity() -> Identity {
    Identity {
        node: NodeId(3),
        incarnation: Incarnation(0x1122_3344_5566_7788),
        life: Life(9),
        cluster_id: Some(ClusterId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100)),
    }
}

pub fn command(name: &str, contents: &'static [u8]) -> Command {
    Command {
        operation: Operation::Write { expiry_seconds: 60 },
        name: name.into(),
        contents: Bytes::from_static(contents),
    }
}

pub fn entry(index: u64, kind: EntryKind, payload: Payload) -> Entry {
    Entry { index: LogIndex(index), term: Term(5), stamp: ClusterTimeMs(1_000_000 + index), kind, payload }
}

fn genesis() -> Genesis {
    Genesis {
        cluster_id: ClusterId(0xabcd_ef01_2345_6789_abcd_ef01_2345_6789),
        incarnations: vec![(NodeId(1), Incarnation(11)), (NodeId(2), Incarnation(u64::MAX))],
    }
}

fn register() -> Register {
    Register { node: NodeId(2), incarnation: Incarnation(0x2222_2222_0000_0001) }
}

/// One of each.
pub fn session_commands() -> [(&'static str, SessionCommand); 4] {
    let (session, acknowledged) = (SessionId(0x0102_0304), Sequence(40));
    let command = command("etc/motd", b"hello\r\n").encode();
    [
        ("session-open", SessionCommand::Open { idle_ms: 60_000, sessions_max: 65_536 }),
        ("session-keep-alive", SessionCommand::KeepAlive { session, acknowledged }),
        ("session-close", SessionCommand::Close { session }),
        ("session-change", SessionCommand::Change { session, sequence: Sequence(42), acknowledged, command }),
    ]
}

/// A sample of everything that is stored, by the name of its golden file.
pub fn stored() -> Vec<(&'static str, Stored)> {
    let with = |operation, contents| Command { operation, ..command("locks/db", contents) };
    let cas = Operation::Cas { expected: Version(41), expiry_seconds: 30 };
    let payload_of = |register: Register| register.encode();
    let sessions = session_commands().map(|(name, command)| (name, Stored::Session(command)));
    let [(_, open), ..] = session_commands();
    let mut all = vec![
        ("command-write", Stored::Command(command("etc/motd", b"hello\r\n"))),
        ("command-write-empty", Stored::Command(command("a", b""))),
        ("command-cas", Stored::Command(with(cas, b"owner=3"))),
        ("command-delete", Stored::Command(with(Operation::Delete, b""))),
        ("command-delete-if", Stored::Command(with(Operation::DeleteIf { expected: Version(42) }, b""))),
        ("genesis", Stored::Genesis(genesis())),
        ("register", Stored::Register(register())),
        ("entry-noop", Stored::Entry(entry(7, EntryKind::Noop, Payload::default()))),
        ("entry-genesis", Stored::Entry(entry(1, EntryKind::Genesis, genesis().encode()))),
        ("entry-register", Stored::Entry(entry(8, EntryKind::Register, payload_of(register())))),
        ("entry-tick", Stored::Entry(entry(9, EntryKind::Tick, Payload::default()))),
        ("entry-command", Stored::Entry(entry(10, EntryKind::Command, command("n", b"c").encode()))),
        ("entry-session", Stored::Entry(entry(11, EntryKind::Session, open.encode()))),
    ];
    all.extend(sessions);
    all
}

/// A sample of every message kind and variant, by the name of its golden file.
pub fn messages() -> Vec<(String, AnyMessage)> {
    let mut all = hellos();
    all.extend(peer_messages().into_iter().map(|(name, message)| (name.into(), AnyMessage::Peer(message))));
    all.extend(requests());
    all.extend(replies());
    all.extend(refusals());
    all
}

fn hellos() -> Vec<(String, AnyMessage)> {
    let hello = |cluster: &str, role| {
        AnyMessage::Hello(Hello { protocol_min: 1, protocol_max: 1, cluster: cluster.into(), role })
    };
    let peer = |identity| Role::Peer { identity, target: NodeId(1) };
    let mut all = vec![
        ("hello-peer".into(), hello("demo", peer(identity()))),
        ("hello-peer-new".into(), hello("demo", peer(Identity { cluster_id: None, ..identity() }))),
        ("hello-client".into(), hello("demo", Role::Client)),
        ("hello-client-nameless".into(), hello("", Role::Client)),
    ];
    for (name, status) in HELLO_STATUSES {
        let welcome = status == HelloStatus::Welcome;
        let reply = HelloReply {
            status,
            protocol: if status == HelloStatus::NoCommonProtocol { 0 } else { 1 },
            cluster: "demo".into(),
            identity: identity(),
            reason: if welcome { String::new() } else { format!("refused: {name}") },
        };
        all.push((format!("hello-reply-{name}"), AnyMessage::HelloReply(reply)));
    }
    all
}

pub const HELLO_STATUSES: [(&str, HelloStatus); 8] = [
    ("welcome", HelloStatus::Welcome),
    ("other-cluster", HelloStatus::OtherCluster),
    ("other-cluster-id", HelloStatus::OtherClusterId),
    ("wrong-node", HelloStatus::WrongNode),
    ("stale-copy", HelloStatus::StaleCopy),
    ("no-common-protocol", HelloStatus::NoCommonProtocol),
    ("wrong-role", HelloStatus::WrongRole),
    ("busy", HelloStatus::Busy),
];

fn peer_messages() -> Vec<(&'static str, PeerMessage)> {
    let last_log = EntryId { term: Term(4), index: LogIndex(6) };
    let request_vote = RequestVote {
        term: Term(5),
        candidate_id: NodeId(2),
        incarnation: Incarnation(0xaa),
        registered: true,
        last_log,
        pre_vote: false,
        leadership_transfer: false,
    };
    let vote_reply = RequestVoteReply {
        term: Term(5),
        election_term: Term(6),
        incarnation: Incarnation(0xbb),
        pre_vote: false,
        vote_granted: true,
    };
    let append = |entries| AppendEntries {
        term: Term(5),
        leader_id: NodeId(1),
        prev_log: last_log,
        leader_commit: LogIndex(6),
        round: 77,
        cluster_time: ClusterTimeMs(0x0a0b_0c0d),
        entries,
    };
    let appended = |result| {
        PeerMessage::AppendEntriesReply(AppendEntriesReply {
            term: Term(5),
            incarnation: Incarnation(0xcc),
            round: 77,
            prev_log_index: LogIndex(6),
            result,
        })
    };
    let read_index_id = ReadIndexId { incarnation: Incarnation(0xdd), life: Life(9), number: 0x0102_0304 };
    let forwarded = ClientRequest {
        id: RequestId(0x0102_0304_0506_0708),
        timeout_ms: 10_000,
        operation: client::Operation::SessionChange {
            session: SessionId(0x0102_0304),
            sequence: Sequence(42),
            acknowledged: Sequence(40),
            command: command("etc/motd", b"hello\r\n").encode(),
        },
    };
    let conflict = AppendResult::Conflict { conflict_term: Term(3), conflict_index: LogIndex(2) };
    let mut all = vec![
        ("ping", PeerMessage::Ping),
        ("pong", PeerMessage::Pong),
        ("room-enough", PeerMessage::Room(RoomState::Enough)),
        ("room-low", PeerMessage::Room(RoomState::Low)),
        ("room-full", PeerMessage::Room(RoomState::Full)),
        ("request-vote", PeerMessage::RequestVote(request_vote)),
        ("request-vote-pre-vote", PeerMessage::RequestVote(RequestVote { pre_vote: true, ..request_vote })),
        (
            "request-vote-transfer",
            PeerMessage::RequestVote(RequestVote {
                registered: false,
                last_log: EntryId::default(),
                leadership_transfer: true,
                ..request_vote
            }),
        ),
        ("request-vote-reply-granted", PeerMessage::RequestVoteReply(vote_reply)),
        (
            "request-vote-reply-refused",
            PeerMessage::RequestVoteReply(RequestVoteReply {
                pre_vote: true,
                vote_granted: false,
                ..vote_reply
            }),
        ),
        ("append-entries-heartbeat", PeerMessage::AppendEntries(append(Vec::new()))),
        (
            "append-entries",
            PeerMessage::AppendEntries(append(vec![
                entry(7, EntryKind::Noop, Payload::default()),
                entry(8, EntryKind::Command, command("a/b", b"contents").encode()),
                entry(9, EntryKind::Tick, Payload::default()),
            ])),
        ),
        ("append-entries-reply-matched", appended(AppendResult::Matched { match_index: LogIndex(9) })),
        ("append-entries-reply-stale-term", appended(AppendResult::StaleTerm)),
        ("append-entries-reply-conflict", appended(conflict)),
        ("timeout-now", PeerMessage::TimeoutNow(TimeoutNow { term: Term(5), leader_id: NodeId(1) })),
        ("read-index", PeerMessage::ReadIndex(ReadIndex { term: Term(5), id: read_index_id })),
        (
            "read-index-reply",
            PeerMessage::ReadIndexReply(ReadIndexReply {
                term: Term(5),
                id: read_index_id,
                read_index: LogIndex(9),
                cluster_time: ClusterTimeMs(1_000_009),
            }),
        ),
        ("forward", PeerMessage::Forward(forwarded)),
        (
            "forward-reply",
            PeerMessage::ForwardReply(ClientReply {
                id: RequestId(0x0102_0304_0506_0708),
                outcome: Outcome::Changed { version: Version(44) },
            }),
        ),
    ];
    all.extend(snapshots());
    all
}

fn snapshots() -> Vec<(&'static str, PeerMessage)> {
    let entry = EntryId { term: Term(4), index: LogIndex(600) };
    let chunk = |offset, is_last, bytes: &'static [u8]| {
        PeerMessage::InstallSnapshot(InstallSnapshot {
            term: Term(5),
            leader_id: NodeId(1),
            entry,
            offset,
            is_last,
            bytes: Bytes::from_static(bytes).into(),
        })
    };
    let reply = |next_offset, state| {
        PeerMessage::InstallSnapshotReply(InstallSnapshotReply {
            term: Term(5),
            incarnation: Incarnation(0xcc),
            entry,
            next_offset,
            state,
        })
    };
    let refused = SnapshotState::Refused { reason: "the disk is full".into() };
    vec![
        ("install-snapshot", chunk(0x0001_0000, false, b"a piece of a state")),
        ("install-snapshot-last", chunk(0x0001_0012, true, b"its end")),
        ("install-snapshot-question", chunk(0, false, b"")),
        ("install-snapshot-reply-receiving", reply(0x0001_0012, SnapshotState::Receiving)),
        ("install-snapshot-reply-installed", reply(0x0001_0019, SnapshotState::Installed)),
        ("install-snapshot-reply-has-it", reply(0, SnapshotState::HasIt)),
        ("install-snapshot-reply-stale-term", reply(0, SnapshotState::StaleTerm)),
        ("install-snapshot-reply-refused", reply(0, refused)),
    ]
}

fn requests() -> Vec<(String, AnyMessage)> {
    use client::Operation as Request;
    let name = || "etc/motd".to_owned();
    let list = Request::List { prefix: "etc/".into(), after: "etc/hosts".into(), limit: 100 };
    [
        ("read", Request::Read { name: name() }),
        ("stat", Request::Stat { name: name() }),
        ("change", Request::Change { command: command("etc/motd", b"hello\r\n").encode() }),
        ("list", list),
        ("status", Request::Status),
        ("open-session", Request::OpenSession),
        (
            "session-change",
            Request::SessionChange {
                session: SessionId(0x0102_0304),
                sequence: Sequence(42),
                acknowledged: Sequence(40),
                command: command("etc/motd", b"hello\r\n").encode(),
            },
        ),
        ("keep-alive", Request::KeepAlive { session: SessionId(0x0102_0304), acknowledged: Sequence(40) }),
        ("close-session", Request::CloseSession { session: SessionId(0x0102_0304) }),
        ("storage-status", Request::StorageStatus),
        ("backup-begin", Request::BackupBegin),
        ("backup-chunk", Request::BackupChunk { backup: 0x0506_0708, offset: 0x0010_0000 }),
    ]
    .map(|(name, operation)| {
        let request = ClientRequest { id: RequestId(0x0102_0304_0506_0708), timeout_ms: 10_000, operation };
        (format!("request-{name}"), AnyMessage::Request(request))
    })
    .into()
}

fn reply(outcome: Outcome) -> AnyMessage {
    AnyMessage::Reply(ClientReply { id: RequestId(0x0102_0304_0506_0708), outcome })
}

fn replies() -> Vec<(String, AnyMessage)> {
    let file =
        |name: &str| FileInfo { name: name.into(), version: Version(43), size_bytes: 7, expiry_seconds: 59 };
    let read = Outcome::Read {
        version: Version(43),
        expiry_seconds: 59,
        contents: Bytes::from_static(b"hello\r\n"),
    };
    let status = NodeStatus {
        node: NodeId(2),
        role: NodeRole::Leader,
        term: Term(5),
        leader: Some(NodeId(2)),
        commit_index: LogIndex(9),
        last_applied: LogIndex(8),
        first_log_index: LogIndex(1),
        last_log_index: LogIndex(10),
        files: 3,
        revision: Version(43),
        cluster: "demo".into(),
    };
    let storage = StorageStatus {
        log_bytes: 0x0102_0304_0506,
        contents_bytes: 8192,
        checkpoint_bytes: 1703,
        live_bytes: 0x0102_0304,
        total_bytes: 0x0102_0304_ffff,
        checkpoint_index: LogIndex(7),
    };
    let of_role = |role, leader| Outcome::Status(NodeStatus { role, leader, ..status.clone() });
    [
        ("read", read),
        ("stat", Outcome::Stat(file("etc/motd"))),
        ("change", Outcome::Changed { version: Version(44) }),
        ("list", Outcome::Listed { files: vec![file("etc/motd"), file("etc/passwd")], more: true }),
        ("list-empty", Outcome::Listed { files: Vec::new(), more: false }),
        ("session-opened", Outcome::SessionOpened { session: SessionId(0x0102_0304), idle_ms: 60_000 }),
        ("session-done", Outcome::SessionDone),
        ("backup-begun", Outcome::BackupBegun { backup: 0x0506_0708 }),
        ("backup-chunk", Outcome::BackupChunk { is_last: true, bytes: Bytes::from_static(b"its end") }),
        ("backup-chunk-not-yet", Outcome::BackupChunk { is_last: false, bytes: Bytes::new() }),
        ("status-leader", Outcome::Status(status.clone())),
        ("status-follower", of_role(NodeRole::Follower, Some(NodeId(1)))),
        ("status-pre-candidate", of_role(NodeRole::PreCandidate, None)),
        ("status-candidate", of_role(NodeRole::Candidate, None)),
        ("storage-status", Outcome::StorageStatus(storage)),
    ]
    .map(|(name, outcome)| (format!("reply-{name}"), reply(outcome)))
    .into()
}

pub fn refusal_variants() -> [(&'static str, Refusal); 12] {
    let redirect = Refusal::NotLeader { leader: NodeId(1), address: "127.0.0.1:7101".into(), term: Term(5) };
    [
        ("not-found", Refusal::NotFound),
        ("version-mismatch", Refusal::VersionMismatch { present: Version(43) }),
        ("conflict", Refusal::Conflict { with: "etc".into() }),
        ("invalid-name", Refusal::InvalidName { reason: "a part is `..`".into() }),
        ("too-large", Refusal::TooLarge { max_bytes: 1_048_576 }),
        ("bad-request", Refusal::BadRequest { reason: "limit: 0 has no meaning".into() }),
        ("not-leader", redirect),
        ("no-leader", Refusal::NoLeader),
        ("busy", Refusal::Busy),
        ("unknown", Refusal::Unknown),
        ("session-gone", Refusal::SessionGone),
        ("disk-full", Refusal::DiskFull { node: NodeId(2) }),
    ]
}

fn refusals() -> Vec<(String, AnyMessage)> {
    refusal_variants()
        .map(|(name, refusal)| (format!("refusal-{name}"), reply(Outcome::Refused(refusal))))
        .into()
}
