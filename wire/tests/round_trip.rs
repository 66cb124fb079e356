//! Whatever can be said survives its way through bytes.

mod common;

use bytes::Bytes;
use common::{AnyMessage, Stored, decode_frame};
use fsd_wire::client::{
    self, ClientReply, ClientRequest, FileInfo, NodeRole, NodeStatus, Outcome, Refusal, StorageStatus,
};
use fsd_wire::codec::COUNTER_MAX;
use fsd_wire::hello::{self, Hello, HelloReply, HelloStatus, Identity, Role};
use fsd_wire::peer::{
    AppendEntries, AppendEntriesReply, AppendResult, PeerMessage, ReadIndex, ReadIndexId, ReadIndexReply,
    RequestVote, RequestVoteReply, RoomState, TimeoutNow,
};
use fsd_wire::snapshot::{InstallSnapshot, InstallSnapshotReply, REFUSAL_BYTES_MAX, SnapshotState};
use fsd_wire::*;
use proptest::option;
use proptest::prelude::*;

/// Small, large and any numbers: most mistakes sit at the ends.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, (COUNTER_MAX - 3)..=COUNTER_MAX, 0..=COUNTER_MAX]
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![1u32..10, Just(u32::MAX)].prop_map(NodeId)
}

fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    let full = "é".repeat(bytes_max / 2) + if bytes_max % 2 == 1 { "x" } else { "" };
    prop_oneof![8 => ".{0,20}", 1 => Just(full)]
        .prop_filter("within the bound", move |text| text.len() <= bytes_max)
}

fn contents() -> impl Strategy<Value = Bytes> {
    // Around the size from which contents are shared instead of copied.
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from),
        1 => (any::<u8>(), 4090usize..4100).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
        1 => (any::<u8>(), 0usize..100_000).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn entry_id() -> impl Strategy<Value = EntryId> {
    let id = |(term, index)| EntryId { term: Term(term), index: LogIndex(index) };
    prop_oneof![Just(EntryId::default()), (1..=COUNTER_MAX, 1..=COUNTER_MAX).prop_map(id)]
}

fn identity() -> impl Strategy<Value = Identity> {
    (any::<u32>(), number(), number(), option::of(1..=u128::MAX)).prop_map(|(node, incarnation, life, id)| {
        Identity {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            life: Life(life),
            cluster_id: id.map(ClusterId),
        }
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let role = prop_oneof![
        Just(Role::Client),
        (identity(), any::<u32>())
            .prop_map(|(identity, target)| Role::Peer { identity, target: NodeId(target) }),
    ];
    (any::<u16>(), any::<u16>(), text(hello::CLUSTER_NAME_BYTES_MAX), role).prop_map(
        |(one, other, cluster, role)| Hello {
            protocol_min: one.min(other),
            protocol_max: one.max(other),
            cluster,
            role,
        },
    )
}

fn hello_reply() -> impl Strategy<Value = HelloReply> {
    let status = prop::sample::select(common::HELLO_STATUSES.map(|(_, status)| status).to_vec());
    let cluster = text(hello::CLUSTER_NAME_BYTES_MAX);
    (status, any::<u16>(), cluster, identity(), text(hello::REASON_BYTES_MAX)).prop_map(
        |(status, protocol, cluster, identity, reason)| {
            let protocol = if status == HelloStatus::Welcome { protocol.max(1) } else { protocol };
            HelloReply { status, protocol, cluster, identity, reason }
        },
    )
}

fn operation() -> impl Strategy<Value = (Operation, bool)> {
    prop_oneof![
        number().prop_map(|expiry_seconds| (Operation::Write { expiry_seconds }, true)),
        (number(), number()).prop_map(|(expected, expiry_seconds)| {
            (Operation::Cas { expected: Version(expected), expiry_seconds }, true)
        }),
        Just((Operation::Delete, false)),
        number().prop_map(|expected| (Operation::DeleteIf { expected: Version(expected) }, false)),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    (operation(), text(NAME_BYTES_MAX), contents()).prop_map(|((operation, carries), name, contents)| {
        Command { operation, name, contents: if carries { contents } else { Bytes::new() } }
    })
}

fn genesis() -> impl Strategy<Value = Genesis> {
    let incarnations = prop::collection::btree_map(any::<u32>(), number(), 0..64);
    (1..=u128::MAX, incarnations).prop_map(|(cluster_id, incarnations)| Genesis {
        cluster_id: ClusterId(cluster_id),
        incarnations: incarnations
            .into_iter()
            .map(|(node, incarnation)| (NodeId(node), Incarnation(incarnation)))
            .collect(),
    })
}

fn register() -> impl Strategy<Value = Register> {
    (any::<u32>(), number()).prop_map(|(node, incarnation)| Register {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
    })
}

fn session() -> impl Strategy<Value = SessionId> {
    prop_oneof![1u64..5, 1..=COUNTER_MAX].prop_map(SessionId)
}

/// The number of a change, and what is acknowledged with it.
fn sequence() -> impl Strategy<Value = (Sequence, Sequence)> {
    (prop_oneof![1u64..4, 1..=COUNTER_MAX], number())
        .prop_map(|(sequence, other)| (Sequence(sequence), Sequence(other % sequence)))
}

fn session_command() -> impl Strategy<Value = SessionCommand> {
    prop_oneof![
        (1..=u64::MAX, 1..=u32::MAX)
            .prop_map(|(idle_ms, sessions_max)| SessionCommand::Open { idle_ms, sessions_max }),
        (session(), number()).prop_map(|(session, acknowledged)| SessionCommand::KeepAlive {
            session,
            acknowledged: Sequence(acknowledged)
        }),
        session().prop_map(|session| SessionCommand::Close { session }),
        (session(), sequence(), command()).prop_map(|(session, (sequence, acknowledged), command)| {
            SessionCommand::Change { session, sequence, acknowledged, command: command.encode() }
        }),
    ]
}

fn kind_and_payload() -> impl Strategy<Value = (EntryKind, Payload)> {
    prop_oneof![
        Just((EntryKind::Noop, Payload::default())),
        Just((EntryKind::Tick, Payload::default())),
        genesis().prop_map(|genesis| (EntryKind::Genesis, genesis.encode())),
        register().prop_map(|register| (EntryKind::Register, register.encode())),
        command().prop_map(|command| (EntryKind::Command, command.encode())),
        session_command().prop_map(|command| (EntryKind::Session, command.encode())),
    ]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (number(), number(), number(), kind_and_payload()).prop_map(|(index, term, stamp, (kind, payload))| {
        Entry { index: LogIndex(index), term: Term(term), stamp: ClusterTimeMs(stamp), kind, payload }
    })
}

/// Entries behind a common one, with terms and stamps that grow by small steps or not at all.
fn append_entries() -> impl Strategy<Value = AppendEntries> {
    let steps = prop::collection::vec((0u64..3, 0u64..1000, kind_and_payload()), 0..6);
    let prev_log = prop_oneof![
        Just(EntryId::default()),
        (1..u64::MAX / 2, 1..COUNTER_MAX - 10)
            .prop_map(|(term, index)| EntryId { term: Term(term), index: LogIndex(index) }),
    ];
    (prev_log, steps, number(), number(), node(), 0u64..5).prop_map(
        |(prev_log, steps, leader_commit, round, leader_id, later)| {
            let (mut term, mut stamp) = (prev_log.term.0.max(1), 0);
            let mut entries: Vec<Entry> = Vec::new();
            for (term_step, stamp_step, (kind, payload)) in steps {
                term += term_step;
                stamp += stamp_step;
                let index = LogIndex(prev_log.index.0 + 1 + entries.len() as u64);
                let (term, stamp) = (Term(term), ClusterTimeMs(stamp));
                entries.push(Entry { index, term, stamp, kind, payload });
            }
            AppendEntries {
                term: Term(term + later),
                leader_id,
                prev_log,
                leader_commit: LogIndex(leader_commit),
                round,
                cluster_time: ClusterTimeMs(stamp),
                entries,
            }
        },
    )
}

fn request_vote() -> impl Strategy<Value = RequestVote> {
    (number(), node(), number(), entry_id(), prop::array::uniform3(any::<bool>())).prop_map(
        |(term, candidate_id, incarnation, last_log, [registered, pre_vote, leadership_transfer])| {
            RequestVote {
                term: Term(term),
                candidate_id,
                incarnation: Incarnation(incarnation),
                registered,
                last_log,
                pre_vote,
                leadership_transfer,
            }
        },
    )
}

fn request_vote_reply() -> impl Strategy<Value = RequestVoteReply> {
    (number(), number(), number(), any::<bool>(), any::<bool>()).prop_map(
        |(term, election_term, incarnation, pre_vote, vote_granted)| RequestVoteReply {
            term: Term(term),
            election_term: Term(election_term),
            incarnation: Incarnation(incarnation),
            pre_vote,
            vote_granted,
        },
    )
}

fn append_entries_reply() -> impl Strategy<Value = AppendEntriesReply> {
    let result = prop_oneof![
        number().prop_map(|index| AppendResult::Matched { match_index: LogIndex(index) }),
        Just(AppendResult::StaleTerm),
        (number(), 1..=COUNTER_MAX).prop_map(|(term, index)| AppendResult::Conflict {
            conflict_term: Term(term),
            conflict_index: LogIndex(index),
        }),
    ];
    (number(), number(), number(), number(), result).prop_map(
        |(term, incarnation, round, prev_log_index, result)| AppendEntriesReply {
            term: Term(term),
            incarnation: Incarnation(incarnation),
            round,
            prev_log_index: LogIndex(prev_log_index),
            result,
        },
    )
}

fn read_index() -> impl Strategy<Value = ReadIndex> {
    (number(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, incarnation, life, number)| {
        let id = ReadIndexId { incarnation: Incarnation(incarnation), life: Life(life), number };
        ReadIndex { term: Term(term), id }
    })
}

fn read_index_reply() -> impl Strategy<Value = ReadIndexReply> {
    (read_index(), number(), number()).prop_map(|(ReadIndex { term, id }, read_index, cluster_time)| {
        let (read_index, cluster_time) = (LogIndex(read_index), ClusterTimeMs(cluster_time));
        ReadIndexReply { term, id, read_index, cluster_time }
    })
}

fn install_snapshot() -> impl Strategy<Value = InstallSnapshot> {
    let offset = prop_oneof![number(), 0..=COUNTER_MAX].prop_map(|offset| offset.min(COUNTER_MAX - 100_000));
    let numbers = (0..=COUNTER_MAX, 1..=COUNTER_MAX, 1..=COUNTER_MAX);
    (numbers, node(), offset, any::<bool>(), contents()).prop_map(
        |((later, term, index), leader_id, offset, is_last, bytes)| InstallSnapshot {
            term: Term(term.max(later)),
            leader_id,
            entry: EntryId { term: Term(term), index: LogIndex(index) },
            offset,
            is_last,
            bytes: bytes.into(),
        },
    )
}

fn install_snapshot_reply() -> impl Strategy<Value = InstallSnapshotReply> {
    let state = prop_oneof![
        Just(SnapshotState::Receiving),
        Just(SnapshotState::Installed),
        Just(SnapshotState::HasIt),
        Just(SnapshotState::StaleTerm),
        text(REFUSAL_BYTES_MAX).prop_map(|reason| SnapshotState::Refused { reason }),
    ];
    let entry = (1..=COUNTER_MAX, 1..=COUNTER_MAX);
    (number(), any::<u64>(), entry, number(), state).prop_map(
        |(term, incarnation, (entry_term, index), next_offset, state)| InstallSnapshotReply {
            term: Term(term),
            incarnation: Incarnation(incarnation),
            entry: EntryId { term: Term(entry_term), index: LogIndex(index) },
            next_offset,
            state,
        },
    )
}

fn peer_message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        Just(PeerMessage::Ping),
        Just(PeerMessage::Pong),
        request_vote().prop_map(PeerMessage::RequestVote),
        request_vote_reply().prop_map(PeerMessage::RequestVoteReply),
        append_entries().prop_map(PeerMessage::AppendEntries),
        append_entries_reply().prop_map(PeerMessage::AppendEntriesReply),
        (number(), node()).prop_map(|(term, leader_id)| PeerMessage::TimeoutNow(TimeoutNow {
            term: Term(term),
            leader_id
        })),
        read_index().prop_map(PeerMessage::ReadIndex),
        read_index_reply().prop_map(PeerMessage::ReadIndexReply),
        request().prop_map(PeerMessage::Forward),
        reply().prop_map(PeerMessage::ForwardReply),
        install_snapshot().prop_map(PeerMessage::InstallSnapshot),
        install_snapshot_reply().prop_map(PeerMessage::InstallSnapshotReply),
        prop_oneof![Just(RoomState::Enough), Just(RoomState::Low), Just(RoomState::Full)]
            .prop_map(PeerMessage::Room),
    ]
}

fn request() -> impl Strategy<Value = ClientRequest> {
    use client::Operation as Request;
    let operation = prop_oneof![
        text(NAME_BYTES_MAX).prop_map(|name| Request::Read { name }),
        text(NAME_BYTES_MAX).prop_map(|name| Request::Stat { name }),
        command().prop_map(|command| Request::Change { command: command.encode() }),
        (text(NAME_BYTES_MAX), text(NAME_BYTES_MAX), any::<u32>())
            .prop_map(|(prefix, after, limit)| Request::List { prefix, after, limit }),
        Just(Request::Status),
        Just(Request::StorageStatus),
        Just(Request::OpenSession),
        (session(), sequence(), command()).prop_map(|(session, (sequence, acknowledged), command)| {
            Request::SessionChange { session, sequence, acknowledged, command: command.encode() }
        }),
        (session(), number()).prop_map(|(session, acknowledged)| Request::KeepAlive {
            session,
            acknowledged: Sequence(acknowledged)
        }),
        session().prop_map(|session| Request::CloseSession { session }),
        Just(Request::BackupBegin),
        (any::<u64>(), any::<u64>()).prop_map(|(backup, offset)| Request::BackupChunk { backup, offset }),
    ];
    (number(), any::<u32>(), operation).prop_map(|(id, timeout_ms, operation)| ClientRequest {
        id: RequestId(id),
        timeout_ms,
        operation,
    })
}

fn file_info() -> impl Strategy<Value = FileInfo> {
    (text(NAME_BYTES_MAX), number(), number(), number()).prop_map(
        |(name, version, size_bytes, expiry_seconds)| FileInfo {
            name,
            version: Version(version),
            size_bytes,
            expiry_seconds,
        },
    )
}

fn node_status() -> impl Strategy<Value = NodeStatus> {
    let roles = [NodeRole::Follower, NodeRole::PreCandidate, NodeRole::Candidate, NodeRole::Leader];
    let numbers = prop::array::uniform7(number());
    let cluster = text(hello::CLUSTER_NAME_BYTES_MAX);
    (node(), prop::sample::select(roles.to_vec()), option::of(node()), numbers, cluster).prop_map(
        |(node, role, leader, [term, commit, applied, first, last, files, revision], cluster)| NodeStatus {
            node,
            role,
            term: Term(term),
            leader,
            commit_index: LogIndex(commit),
            last_applied: LogIndex(applied),
            first_log_index: LogIndex(first),
            last_log_index: LogIndex(last),
            files,
            revision: Version(revision),
            cluster,
        },
    )
}

fn storage_status([log, contents, checkpoint, live, total, index]: [u64; 6]) -> Outcome {
    Outcome::StorageStatus(StorageStatus {
        log_bytes: log,
        contents_bytes: contents,
        checkpoint_bytes: checkpoint,
        live_bytes: live,
        total_bytes: total,
        checkpoint_index: LogIndex(index),
    })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let reason = || text(hello::REASON_BYTES_MAX);
    prop_oneof![
        Just(Refusal::NotFound),
        number().prop_map(|present| Refusal::VersionMismatch { present: Version(present) }),
        text(NAME_BYTES_MAX).prop_map(|with| Refusal::Conflict { with }),
        reason().prop_map(|reason| Refusal::InvalidName { reason }),
        number().prop_map(|max_bytes| Refusal::TooLarge { max_bytes }),
        reason().prop_map(|reason| Refusal::BadRequest { reason }),
        (node(), text(client::ADDRESS_BYTES_MAX), number())
            .prop_map(|(leader, address, term)| { Refusal::NotLeader { leader, address, term: Term(term) } }),
        Just(Refusal::NoLeader),
        Just(Refusal::Busy),
        Just(Refusal::Unknown),
        Just(Refusal::SessionGone),
        node().prop_map(|node| Refusal::DiskFull { node }),
    ]
}

fn reply() -> impl Strategy<Value = ClientReply> {
    let outcome = prop_oneof![
        (number(), number(), contents()).prop_map(|(version, expiry_seconds, contents)| Outcome::Read {
            version: Version(version),
            expiry_seconds,
            contents,
        }),
        file_info().prop_map(Outcome::Stat),
        number().prop_map(|version| Outcome::Changed { version: Version(version) }),
        (prop::collection::vec(file_info(), 0..20), any::<bool>())
            .prop_map(|(files, more)| Outcome::Listed { files, more }),
        node_status().prop_map(Outcome::Status),
        prop::array::uniform6(number()).prop_map(storage_status),
        (session(), any::<u64>()).prop_map(|(session, idle_ms)| Outcome::SessionOpened { session, idle_ms }),
        Just(Outcome::SessionDone),
        any::<u64>().prop_map(|backup| Outcome::BackupBegun { backup }),
        (any::<bool>(), contents()).prop_map(|(is_last, bytes)| Outcome::BackupChunk { is_last, bytes }),
        refusal().prop_map(Outcome::Refused),
    ];
    (number(), outcome).prop_map(|(id, outcome)| ClientReply { id: RequestId(id), outcome })
}

fn check_message(message: AnyMessage) -> Result<(), TestCaseError> {
    prop_assert_eq!(decode_frame(&message.encode()), Ok(Some(message)));
    Ok(())
}

fn check_stored(stored: Stored) -> Result<(), TestCaseError> {
    prop_assert_eq!(stored.decode_same(&stored.encode()), Ok(stored));
    Ok(())
}

proptest! {
    #[test]
    fn hellos(message in hello()) {
        let speaks = message.protocol_min <= 1 && 1 <= message.protocol_max;
        prop_assert_eq!(message.common_protocol(), speaks.then_some(1));
        check_message(AnyMessage::Hello(message))?;
    }

    #[test]
    fn hello_replies(message in hello_reply()) {
        check_message(AnyMessage::HelloReply(message))?;
    }

    #[test]
    fn peer_messages(message in peer_message()) {
        check_message(AnyMessage::Peer(message))?;
    }

    #[test]
    fn requests(message in request()) {
        check_message(AnyMessage::Request(message))?;
    }

    #[test]
    fn replies(message in reply()) {
        check_message(AnyMessage::Reply(message))?;
    }

    #[test]
    fn entries(entry in any_entry()) {
        prop_assert_eq!(Stored::Entry(entry.clone()).encode().len(), entry.encoded_bytes());
        check_stored(Stored::Entry(entry))?;
    }

    #[test]
    fn commands(command in command()) {
        check_stored(Stored::Command(command))?;
    }

    #[test]
    fn session_commands(command in session_command()) {
        check_stored(Stored::Session(command))?;
    }

    #[test]
    fn genesis_and_register(genesis in genesis(), register in register()) {
        check_stored(Stored::Genesis(genesis))?;
        check_stored(Stored::Register(register))?;
    }

    /// A leader makes an entry of the bytes that a client sent, and a follower appends the bytes that the
    /// leader sent: the command is the same at each stop.
    #[test]
    fn a_command_stays_the_same_from_client_to_follower(command in command()) {
        let operation = client::Operation::Change { command: command.encode() };
        let request = ClientRequest { id: RequestId(1), timeout_ms: 1, operation };
        let received = decode_frame(&request.to_frame().concat());
        let Ok(Some(AnyMessage::Request(ClientRequest {
            operation: client::Operation::Change { command: payload }, ..
        }))) = received else {
            return Err(TestCaseError::fail(format!("{received:?}")));
        };
        prop_assert_eq!(Command::decode(&payload), Ok(command.clone()));
        let entry = common::entry(7, EntryKind::Command, payload);
        let decoded = Stored::Entry(entry.clone()).decode_same(&Stored::Entry(entry).encode());
        let Ok(Stored::Entry(entry)) = decoded else {
            return Err(TestCaseError::fail(format!("{decoded:?}")));
        };
        prop_assert_eq!(Command::decode(&entry.payload), Ok(command));
    }
}
