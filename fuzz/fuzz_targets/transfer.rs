//! The stream of a small store, as it is sent, or with parts changed, left out, moved and repeated under CRCs that are right
//! again, or with bytes changed; or bytes that never were one. In whatever pieces it comes, it becomes a store with
//! all its contents, which can be sent again as the same stream, or is refused. Never a panic.

#![no_main]

use bytes::Bytes;
use fsd::file_store::{ContentsAt, FileStore};
use fsd::mapping::Disk;
use fsd::raft::LogChange;
use fsd::simulated_disk::SimulatedDisk;
use fsd::storage::segment::SegmentHeader;
use fsd::storage::{self, CheckpointHead, CheckpointWriter, DirectoryIdentity, Position, SegmentId};
use fsd::transfer::format::{PART_HEAD_BYTES, PREAMBLE_BYTES, image_head, preamble};
use fsd::transfer::{Progress, Received, StreamReader, StreamWriter, TransferError};
use fsd_wire::{
    ClusterTimeMs, Command, Entry, EntryId, EntryKind, Incarnation, LogIndex, NodeId, Operation, Payload,
    Sequence, SessionCommand, SessionId, Term,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "a-b", "a/c", "b", "b/a", "ab"];
const SEGMENT_BYTES: u64 = 8192;
const END: u8 = 4;

type Whole = Received<<SimulatedDisk as Disk>::File>;

fn identity() -> DirectoryIdentity {
    DirectoryIdentity { cluster: "fuzz".into(), node: NodeId(1) }
}

/// The stream of a store after a few entries.
fn stream(data: &mut Unstructured) -> Result<Vec<u8>> {
    let disk = SimulatedDisk::new();
    let mut log = storage::open(disk.clone(), &identity(), SEGMENT_BYTES, &mut || 7).unwrap().log;
    let mut store = FileStore::new();
    let mut stamp = 0_u64;
    for index in 1..=data.int_in_range(0..=12_u64)? {
        stamp += *data.choose(&[0_u64, 0, 1, 1000])?;
        let operation = Operation::Write { expiry_seconds: *data.choose(&[0, 0, 1, 5, u64::MAX])? };
        let contents = Bytes::from(vec![index as u8; *data.choose(&[0, 1, 3, 700, 9000])?]);
        let command = Command { operation, name: (*data.choose(&NAMES)?).into(), contents }.encode();
        let (kind, payload) = match data.int_in_range(0..=4)? {
            0 => (EntryKind::Tick, Payload::default()),
            1 => {
                let open = SessionCommand::Open { idle_ms: *data.choose(&[400, 5000])?, sessions_max: 4 };
                (EntryKind::Session, open.encode())
            }
            2 => {
                let session = SessionId(data.int_in_range(1..=4)?);
                let (sequence, acknowledged) = (Sequence(index), Sequence(0));
                let change = SessionCommand::Change { session, sequence, acknowledged, command };
                (EntryKind::Session, change.encode())
            }
            _ => (EntryKind::Command, command),
        };
        let entry =
            Entry { index: LogIndex(index), term: Term(1), stamp: ClusterTimeMs(stamp), kind, payload };
        log.append(&[LogChange::Append(entry.clone())]).unwrap();
        store.apply(&entry, ContentsAt(log.position(entry.index).0));
    }
    let entry = EntryId { index: store.last_applied(), term: Term(1) };
    Ok(sent(&disk, &mut store, entry, vec![(LogIndex(0), NodeId(1), Incarnation(5))]))
}

/// Makes a checkpoint of a store, and a stream of that.
fn sent(
    disk: &SimulatedDisk,
    store: &mut FileStore,
    entry: EntryId,
    registrations: Vec<(LogIndex, NodeId, Incarnation)>,
) -> Vec<u8> {
    let segments = store.live_segments().map(|(id, _)| SegmentId(id)).collect();
    let image = store.begin_image();
    let head = CheckpointHead {
        salt: 1,
        identity: identity(),
        entry,
        stamp: image.cluster_time,
        log_end: Position::default(),
        begins_anew: false,
        genesis: None,
        registrations,
        segments,
        revision: image.revision.0,
        files: image.files,
        sessions: image.sessions,
        body_bytes: image.items_bytes,
    };
    let mut items = Vec::new();
    while store.image_slice(1000, &mut items) {}
    let mut writer = CheckpointWriter::create(disk, &head).unwrap();
    writer.append(&items).unwrap();
    writer.finish().unwrap();
    let mut reader = StreamReader::open(disk, &head.name(), Some(&identity())).unwrap();
    reader.next_chunk(1 << 24).unwrap().bytes.to_vec()
}

/// Kind and payload of each part of a good stream.
fn parts(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut rest = &stream[PREAMBLE_BYTES..];
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
        parts.push((rest[0], rest[PART_HEAD_BYTES..PART_HEAD_BYTES + len].to_vec()));
        rest = &rest[PART_HEAD_BYTES + len..];
    }
    parts
}

/// A stream of these parts, with CRCs that are right, and, if wanted, with the chain that ends it.
fn stream_of(parts: &[(u8, Vec<u8>)], with_chain: bool) -> Vec<u8> {
    let mut stream = preamble().to_vec();
    let mut chain = crc32fast::Hasher::new();
    for (number, (kind, payload)) in (0_u64..).zip(parts) {
        let mut payload = payload.clone();
        if with_chain && *kind == END && payload.len() == 36 {
            payload[..8].copy_from_slice(&number.to_le_bytes());
            payload[32..].copy_from_slice(&chain.clone().finalize().to_le_bytes());
        }
        let mut head = vec![*kind];
        head.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        for piece in [&head[..], &number.to_le_bytes(), &payload] {
            crc.update(piece);
        }
        let crc = crc.finalize().to_le_bytes();
        chain.update(&crc);
        for piece in [&head[..], &crc, &payload] {
            stream.extend_from_slice(piece);
        }
    }
    stream
}

/// Changes, leaves out, moves or repeats some parts.
fn change(data: &mut Unstructured, parts: &mut Vec<(u8, Vec<u8>)>) -> Result<()> {
    for _ in 0..data.int_in_range(1..=3)? {
        let n = data.choose_index(parts.len())?;
        let other = data.choose_index(parts.len())?;
        match data.int_in_range(0..=9)? {
            0 if parts.len() > 1 => drop(parts.remove(n)),
            1 => parts.swap(n, other),
            2 => parts.insert(other, parts[n].clone()),
            3 => parts[n].0 = data.int_in_range(0..=5)?,
            4 => {
                let len = data.int_in_range(0..=parts[n].1.len())?;
                parts[n].1.truncate(len);
            }
            5 => parts[n].1.extend_from_slice(&fsd_fuzz::some_bytes(data, 50)?),
            _ if parts[n].1.is_empty() => {}
            _ => {
                // Most of what matters comes first, contents last.
                let at = data.choose_index(parts[n].1.len().min(200))?;
                parts[n].1[at] = data.arbitrary()?;
            }
        }
    }
    Ok(())
}

/// Feeds a stream in pieces of these sizes, and in one when they are used up.
fn receive(
    disk: &SimulatedDisk,
    stream: &[u8],
    piece_bytes: &[u8],
) -> std::result::Result<Option<Whole>, TransferError> {
    let mut writer = StreamWriter::begin(disk, Some("fuzz"));
    let mut sizes = piece_bytes.iter().map(|size| usize::from(*size)).filter(|size| *size > 0);
    let (mut at, mut fresh, mut id) = (0, None, 0);
    let received = loop {
        let end = stream.len().min(at + sizes.next().unwrap_or(stream.len()));
        fresh.get_or_insert_with(|| {
            id += 1;
            SegmentHeader { id: SegmentId(id), salt: 3, len_bytes: SEGMENT_BYTES, identity: identity() }
        });
        match writer.feed(at as u64, &stream[at..end], &mut fresh) {
            Ok(Progress::Whole(received)) => break Ok(Some(*received)),
            Ok(Progress::More { next_offset }) => at = next_offset as usize,
            Err(error) => break Err(error),
        }
        if at == stream.len() {
            break Ok(None);
        }
    };
    if !matches!(received, Ok(Some(_))) {
        writer.abandon().unwrap();
        assert!(disk.list().unwrap().is_empty(), "something was left");
    }
    received
}

fn run(data: &mut Unstructured) -> Result<()> {
    let good = stream(data)?;
    let stream = match data.int_in_range(0..=5)? {
        0 => good.clone(),
        1 => fsd_fuzz::some_bytes(data, 2000)?.to_vec(),
        2 => {
            let mut stream = good.clone();
            let at = data.choose_index(stream.len())?;
            stream[at] = data.arbitrary()?;
            stream
        }
        _ => {
            let mut parts = parts(&good);
            change(data, &mut parts)?;
            stream_of(&parts, data.ratio(7, 8)?)
        }
    };
    let disk = SimulatedDisk::new();
    match receive(&disk, &stream, &fsd_fuzz::some_bytes(data, 64)?) {
        Ok(Some(Received { head, mut store, .. })) => {
            assert_eq!(store.image_head(), image_head(&head));
            if head.genesis.is_none() {
                let again = sent(&disk, &mut store, head.entry, head.registrations);
                assert!(again == stream, "another stream than was received");
            }
        }
        _ => assert!(stream != good, "what was sent must be received"),
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
