//! The files of a small log, byte by byte: what this release writes is what every release must read.
//!
//! `cargo test --lib -- --ignored write_the_golden_files` makes them anew; that is a change of format.

use fsd_wire::{
    ClusterId, Command, Genesis, Incarnation, Life, LogIndex, Operation, Register, Sequence, SessionCommand,
    SessionId, Version,
};

use super::*;
use crate::storage::CheckpointHead;
use crate::storage::hard_state::HARD_STATE_NAME;
use crate::storage::segment::{SegmentId, file_name};

const SEGMENT_1: &[u8] = include_bytes!("../../../tests/golden/log-v1/segment-0000000000000001.fsd");
const SEGMENT_2: &[u8] = include_bytes!("../../../tests/golden/log-v1/segment-0000000000000002.fsd");
/// The same format, with the entries of sessions.
const SESSIONS: &[u8] = include_bytes!("../../../tests/golden/log-v1-sessions/segment-0000000000000001.fsd");
const HARD_STATE: &[u8] = include_bytes!("../../../tests/golden/log-v1/hard-state");

const CHECKPOINT: &[u8] = include_bytes!("../../../tests/golden/checkpoint-v1/checkpoint-0000000000000007");

fn golden_entry(index: u64, term: u64, kind: EntryKind, payload: Payload) -> Entry {
    let stamp = ClusterTimeMs(1_700_000_000_000 + index);
    Entry { index: LogIndex(index), term: Term(term), stamp, kind, payload }
}

fn command(operation: Operation, contents: &[u8]) -> Payload {
    Command { operation, name: "dir/file".to_owned(), contents: Bytes::copy_from_slice(contents) }.encode()
}

/// One entry of each kind but sessions, one command of each operation, and the batches in which they are written.
fn batches() -> Vec<Vec<LogChange>> {
    let incarnations = vec![(NodeId(1), Incarnation(0x11)), (NodeId(3), Incarnation(0x33))];
    let genesis = Genesis { cluster_id: ClusterId(0xabcd), incarnations }.encode();
    let register = Register { node: NodeId(2), incarnation: Incarnation(0x22) }.encode();
    let cas = Operation::Cas { expected: Version(1), expiry_seconds: 60 };
    let delete_if = Operation::DeleteIf { expected: Version(2) };
    let write = Operation::Write { expiry_seconds: 0 };
    let append = |entry| LogChange::Append(entry);
    vec![
        vec![
            append(golden_entry(1, 1, EntryKind::Genesis, genesis)),
            append(golden_entry(2, 1, EntryKind::Register, register)),
        ],
        vec![append(golden_entry(3, 1, EntryKind::Command, command(write, b"first contents")))],
        vec![
            append(golden_entry(4, 1, EntryKind::Command, command(cas, &[7; 3637]))),
            append(golden_entry(5, 1, EntryKind::Tick, Payload::default())),
        ],
        // Entry 5 is superseded by one that rolls.
        vec![
            LogChange::TruncateFrom(LogIndex(5)),
            append(golden_entry(5, 2, EntryKind::Noop, Payload::default())),
            append(golden_entry(6, 2, EntryKind::Command, command(write, &[8; 1700]))),
        ],
        vec![
            append(golden_entry(7, 2, EntryKind::Command, command(delete_if, b""))),
            append(golden_entry(8, 2, EntryKind::Command, command(Operation::Delete, b""))),
        ],
    ]
}

/// One entry for all that a session can be.
fn session_batches() -> Vec<Vec<LogChange>> {
    let session = SessionId(2);
    let genesis =
        Genesis { cluster_id: ClusterId(0xabcd), incarnations: vec![(NodeId(3), Incarnation(0x33))] };
    let change = SessionCommand::Change {
        session,
        sequence: Sequence(2),
        acknowledged: Sequence(1),
        command: command(Operation::Write { expiry_seconds: 0 }, b"of a session"),
    };
    let commands = [
        SessionCommand::Open { idle_ms: 60_000, sessions_max: 65_536 },
        SessionCommand::KeepAlive { session, acknowledged: Sequence(1) },
        change,
        SessionCommand::Close { session },
    ];
    let mut entries = vec![golden_entry(1, 1, EntryKind::Genesis, genesis.encode())];
    entries.extend(
        (2..).zip(commands).map(|(index, of)| golden_entry(index, 1, EntryKind::Session, of.encode())),
    );
    entries.into_iter().map(|entry| vec![LogChange::Append(entry)]).collect()
}

fn expected_log(batches: Vec<Vec<LogChange>>) -> Vec<Entry> {
    let mut log: Vec<Entry> = Vec::new();
    for change in batches.into_iter().flatten() {
        match change {
            LogChange::TruncateFrom(index) => log.truncate(index.0 as usize - 1),
            LogChange::Append(entry) => log.push(entry),
        }
    }
    log
}

fn expected_state() -> HardState {
    HardState {
        incarnation: Incarnation(0x1000),
        life: Life::new(1, 0x1001),
        term: Term(2),
        voted_for: Some(NodeId(1)),
        cluster_id: Some(ClusterId(0xabcd)),
        met: [
            (NodeId(1), (Incarnation(0x11), Life::new(4, 0x44))),
            (NodeId(2), (Incarnation(0x22), Life::new(5, 0x55))),
        ]
        .into(),
    }
}

fn write(batches: Vec<Vec<LogChange>>) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut next = 0x0fff;
    let mut counting = || {
        next += 1;
        next
    };
    let mut storage = open(disk.clone(), &identity(), SEGMENT_BYTES, &mut counting).unwrap();
    for batch in batches {
        storage.log.append(&batch).unwrap();
        storage.log.flush().unwrap();
    }
    storage.hard_state.store(&expected_state()).unwrap();
    disk
}

#[test]
fn the_files_are_written_as_ever() {
    let (disk, sessions) = (write(batches()), write(session_batches()));
    for (disk, name, golden) in [
        (&disk, file_name(SegmentId(1)), SEGMENT_1),
        (&disk, file_name(SegmentId(2)), SEGMENT_2),
        (&disk, HARD_STATE_NAME.to_owned(), HARD_STATE),
        (&sessions, file_name(SegmentId(1)), SESSIONS),
        (&sessions, HARD_STATE_NAME.to_owned(), HARD_STATE),
    ] {
        let written = disk.read(&name).unwrap();
        let differs = written.iter().zip(golden).position(|(written, golden)| written != golden);
        assert_eq!(differs, None, "{name} differs at this offset");
        assert_eq!(written.len(), golden.len(), "{name}");
    }
}

#[test]
fn the_files_are_read_as_ever() {
    let disk = SimulatedDisk::new();
    disk.write(&file_name(SegmentId(1)), SEGMENT_1.to_vec());
    disk.write(&file_name(SegmentId(2)), SEGMENT_2.to_vec());
    disk.write(HARD_STATE_NAME, HARD_STATE.to_vec());
    let storage = open_ok(&disk);
    assert_eq!(entries(&storage), expected_log(batches()));
    let state = storage.recovered.state.clone();
    assert_eq!(state.life.count(), 2);
    assert_eq!(state, HardState { life: state.life, ..expected_state() });
    let summary = &storage.recovered.log;
    assert_eq!(summary.genesis, Some(ClusterId(0xabcd)));
    let registered: Vec<_> = summary.registrations.iter().map(|(index, node, _)| (index.0, node.0)).collect();
    assert_eq!(registered, [(1, 1), (1, 3), (2, 2)]);
    assert_eq!(summary.last_stamp, ClusterTimeMs(1_700_000_000_008));

    let disk = SimulatedDisk::new();
    disk.write(&file_name(SegmentId(1)), SESSIONS.to_vec());
    // The same node wrote it, in the same life.
    disk.write(HARD_STATE_NAME, HARD_STATE.to_vec());
    assert_eq!(entries(&open_ok(&disk)), expected_log(session_batches()));
}

/// A checkpoint with a block of tables and one of a body.
fn checkpoint() -> (CheckpointHead, Vec<u8>) {
    let body = b"what a store is made of".repeat(9);
    (checkpoint::head_of(7, &body), body)
}

fn write_checkpoint() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (head, body) = checkpoint();
    checkpoint::write(&disk, &head, &body, 100).unwrap();
    disk
}

#[test]
fn a_checkpoint_is_written_and_read_as_ever() {
    let (head, body) = checkpoint();
    let written = write_checkpoint().read(&head.name()).unwrap();
    let differs = written.iter().zip(CHECKPOINT).position(|(written, golden)| written != golden);
    assert_eq!((differs, written.len()), (None, CHECKPOINT.len()));
    let disk = SimulatedDisk::new();
    disk.write("checkpoint-0000000000000007", CHECKPOINT.to_vec());
    assert_eq!(checkpoint::read(&disk, "checkpoint-0000000000000007").unwrap(), (head, body));
}

/// The byte tables of `checkpoint.rs`, by hand.
#[test]
fn the_fields_of_a_checkpoint_are_where_the_tables_say() {
    let u32_at = |at: usize| u32::from_le_bytes(CHECKPOINT[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(CHECKPOINT[at..at + 8].try_into().unwrap());
    assert_eq!((&CHECKPOINT[..8], u32_at(8)), (&b"fsd-chk\n"[..], 1));
    assert_eq!((u64_at(16), u64_at(24)), (0x5a17_0000_0000_0007, CHECKPOINT.len() as u64));
    assert_eq!([32, 40, 48].map(u64_at), [7, 3, 1_700_000_000_007]);
    assert_eq!([56, 64, 72].map(u64_at), [4 << 32 | 4096, 0xabcd, 0]);
    assert_eq!([80, 88, 96, 104].map(u64_at), [5, 3, 2, 23 * 9]);
    assert_eq!([112, 116, 120].map(u32_at), [3, 2, 3]);
    assert_eq!((&CHECKPOINT[124..130], &CHECKPOINT[130..512]), (&b"\x04\x00demo"[..], &[0; 382][..]));
    let block = |at: usize| {
        (&CHECKPOINT[at..at + 4], u32_at(at + 4), u32_at(at + 8), u64_at(at + 16), u64_at(at + 24))
    };
    assert_eq!(block(512), (&b"fsdC"[..], 0, 68, 512, 1));
    assert_eq!((u64_at(544), u32_at(552), u64_at(556)), (1, 1, 0x11));
    assert_eq!((u64_at(584), u32_at(592), u64_at(596), u32_at(604), u32_at(608)), (5, 2, 0x22, 1, 4));
    assert_eq!(block(612), (&b"fsdC"[..], 1, 207, 612, 2));
    assert!(CHECKPOINT[644..].starts_with(b"what a store is made of"));
    let trailer = 644 + 207;
    assert_eq!((&CHECKPOINT[trailer..trailer + 8], u32_at(trailer + 8)), (&b"fsd-che\n"[..], 2));
    assert_eq!((u64_at(trailer + 16), u64_at(trailer + 24)), (trailer as u64, 68 + 207));
    let chained: Vec<u8> =
        [12, 512 + 12, 612 + 12].iter().flat_map(|at| &CHECKPOINT[*at..*at + 4]).copied().collect();
    assert_eq!((u32_at(trailer + 32), u32_at(trailer + 36)), (crc32fast::hash(&chained), 0));
    assert_eq!(CHECKPOINT.len(), trailer + 40);
}

/// The byte tables of `segment.rs` and `hard_state.rs`, by hand.
#[test]
fn the_fields_are_where_the_tables_say() {
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&SEGMENT_2[..8], b"fsd-log\n");
    assert_eq!((u32_at(SEGMENT_2, 8), u32_at(SEGMENT_2, 16), u32_at(SEGMENT_2, 20)), (1, 2, 3));
    assert_eq!(u64_at(SEGMENT_2, 32), 8192);
    assert_eq!((&SEGMENT_2[40..46], &SEGMENT_2[46..512]), (&b"\x04\x00demo"[..], &[0; 466][..]));
    assert_ne!(u64_at(SEGMENT_1, 24), u64_at(SEGMENT_2, 24));
    assert_eq!((&SEGMENT_2[512..520], u32_at(SEGMENT_2, 520)), (&b"fsd-act\n"[..], 2));
    let first_record = u64_at(SEGMENT_2, 512 + 16);
    let previous_end = u64_at(SEGMENT_2, 512 + 24);
    assert_eq!(previous_end >> 32, 1);
    assert_eq!(&SEGMENT_2[4096..4100], b"fsdR");
    // The first record was written when all of the segment before was flushed, and says where it is itself.
    assert_eq!(u64_at(SEGMENT_2, 4096 + 8), previous_end);
    assert_eq!(u64_at(SEGMENT_2, 4096 + 16), 2 << 32 | 4096);
    assert_eq!(u64_at(SEGMENT_2, 4096 + 24), first_record);
    assert_eq!((&HARD_STATE[..8], u32_at(HARD_STATE, 8)), (&b"fsd-hs1\n"[..], 1));
    let sequences = (u64_at(HARD_STATE, 16), u64_at(HARD_STATE, 4096 + 16));
    assert_eq!(sequences, (3, 4));
    assert_eq!(
        (u64_at(HARD_STATE, 24), u64_at(HARD_STATE, 32), u64_at(HARD_STATE, 40)),
        (0x1000, 1 << 32 | 0x1001, 2)
    );
    assert_eq!((u32_at(HARD_STATE, 48), u32_at(HARD_STATE, 52)), (1, 3));
    assert_eq!((u64_at(HARD_STATE, 56), u64_at(HARD_STATE, 72)), (0xabcd, 0));
    assert_eq!(&HARD_STATE[80..86], b"\x04\x00demo");
    assert_eq!((u32_at(HARD_STATE, 340), u32_at(HARD_STATE, 344), u64_at(HARD_STATE, 348)), (2, 1, 0x11));
    assert_eq!(u64_at(HARD_STATE, 356), 4 << 32 | 0x44);
}

#[test]
#[ignore = "makes the golden files anew"]
fn write_the_golden_files() {
    let disks = [
        ("log-v1", write(batches())),
        ("log-v1-sessions", write(session_batches())),
        ("checkpoint-v1", write_checkpoint()),
    ];
    for (directory, disk) in disks {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(directory);
        for name in disk.list().unwrap() {
            std::fs::write(directory.join(&name), disk.read(&name).unwrap()).unwrap();
        }
    }
}
