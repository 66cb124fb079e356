//! A checkpoint of a small store, or of bytes that never were one, in which some bytes were changed: in the body before it
//! was written, and in the file afterwards. What changed in the file is found. What is read becomes a store with this very
//! image, or is refused. Never a panic.

#![no_main]

use bytes::Bytes;
use fsd::file_store::{ContentsAt, FileStore, ImageHead};
use fsd::mapping::{Disk, MappedFile};
use fsd::simulated_disk::SimulatedDisk;
use fsd::storage::{
    CheckpointHead, CheckpointReader, CheckpointWriter, DirectoryIdentity, Position, SegmentId, StorageError,
};
use fsd_wire::{
    ClusterId, ClusterTimeMs, Command, Entry, EntryId, EntryKind, Incarnation, LogIndex, NodeId, Operation,
    Payload, Sequence, SessionCommand, SessionId, Term, Version,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "a-b", "a/c", "b", "b/a", "ab"];

fn identity() -> DirectoryIdentity {
    DirectoryIdentity { cluster: "fuzz".into(), node: NodeId(1) }
}

/// A store after a few entries.
fn store(data: &mut Unstructured) -> Result<FileStore> {
    let mut store = FileStore::new();
    let mut stamp = 0_u64;
    for index in 1..=data.int_in_range(0..=30_u64)? {
        stamp += *data.choose(&[0_u64, 0, 1, 400, 1000, 3000])?;
        let operation = Operation::Write { expiry_seconds: *data.choose(&[0, 0, 1, 5, u64::MAX])? };
        let contents = fsd_fuzz::some_bytes(data, 8)?;
        let command = Command { operation, name: (*data.choose(&NAMES)?).into(), contents }.encode();
        let session = SessionId(data.int_in_range(1..=6)?);
        let sequence = Sequence(data.int_in_range(1..=6)?);
        let (kind, payload) = match data.int_in_range(0..=4)? {
            0 => (EntryKind::Tick, Payload::default()),
            1 => {
                let open =
                    SessionCommand::Open { idle_ms: *data.choose(&[400, 5000, u64::MAX])?, sessions_max: 4 };
                (EntryKind::Session, open.encode())
            }
            2 | 3 => {
                let acknowledged = Sequence(data.int_in_range(0..=sequence.0 - 1)?);
                let change = SessionCommand::Change { session, sequence, acknowledged, command };
                (EntryKind::Session, change.encode())
            }
            _ => (EntryKind::Command, command),
        };
        let entry =
            Entry { index: LogIndex(index), term: Term(1), stamp: ClusterTimeMs(stamp), kind, payload };
        store.apply(&entry, ContentsAt(index << 32 | 4096));
    }
    Ok(store)
}

fn image_of(store: &mut FileStore) -> (ImageHead, Vec<u8>) {
    let head = store.begin_image();
    let mut items = Vec::new();
    while store.image_slice(64, &mut items) {}
    (head, items)
}

/// An image's head and items, be they of a store or not.
fn image(data: &mut Unstructured) -> Result<(ImageHead, Vec<u8>)> {
    if data.ratio(1, 4)? {
        let head = ImageHead {
            last_applied: LogIndex(data.arbitrary()?),
            cluster_time: ClusterTimeMs(data.arbitrary()?),
            revision: Version(data.arbitrary()?),
            files: data.int_in_range(0..=20)?,
            sessions: data.int_in_range(0..=5)?,
            items_bytes: 0,
        };
        let items = fsd_fuzz::some_bytes(data, 1000)?.to_vec();
        return Ok((ImageHead { items_bytes: items.len() as u64, ..head }, items));
    }
    let (head, mut items) = image_of(&mut store(data)?);
    change(data, &mut items)?;
    Ok((head, items))
}

fn change(data: &mut Unstructured, bytes: &mut [u8]) -> Result<()> {
    for _ in 0..data.int_in_range(0..=4)? {
        if !bytes.is_empty() {
            bytes[data.choose_index(bytes.len())?] = data.arbitrary()?;
        }
    }
    Ok(())
}

fn read(disk: &SimulatedDisk, name: &str) -> std::result::Result<(CheckpointHead, Vec<Bytes>), StorageError> {
    let mut reader = CheckpointReader::open(disk, name, Some(&identity()))?;
    let mut body = Vec::new();
    while let Some(block) = reader.next_block()? {
        body.push(block);
    }
    Ok((reader.head().clone(), body))
}

fn run(data: &mut Unstructured) -> Result<()> {
    let (image, items) = image(data)?;
    let head = CheckpointHead {
        salt: data.arbitrary()?,
        identity: identity(),
        entry: EntryId { index: image.last_applied, term: Term(1) },
        stamp: image.cluster_time,
        log_end: Position(data.arbitrary()?),
        genesis: data.arbitrary::<bool>()?.then_some(ClusterId(7)),
        registrations: vec![(LogIndex(0), NodeId(1), Incarnation(data.arbitrary()?))],
        segments: (1..=data.int_in_range(0..=3)?).map(SegmentId).collect(),
        revision: image.revision.0,
        files: image.files,
        sessions: image.sessions,
        body_bytes: image.items_bytes,
        begins_anew: false,
    };
    let disk = SimulatedDisk::new();
    let mut writer = CheckpointWriter::create(&disk, &head).unwrap();
    writer.append(&items).unwrap();
    writer.finish().unwrap();
    let written = disk.read(&head.name()).expect("it was finished");
    let mut bytes = written.clone();
    change(data, &mut bytes)?;
    disk.open(&head.name()).unwrap().store(0, &bytes);
    let Ok((found, body)) = read(&disk, &head.name()) else {
        assert!(bytes != written, "what was written must be read");
        return Ok(());
    };
    assert!(bytes == written && found == head && body.concat() == items, "a change was not found");
    let mut restoring = FileStore::restore(&image);
    let added = body.iter().try_for_each(|block| restoring.add(block));
    if let Ok(mut store) = added.and_then(|()| restoring.finish()) {
        assert_eq!(image_of(&mut store), (image, items));
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
