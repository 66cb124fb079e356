//! Recovery of a good log in which some bytes were changed: it gives entries that were once written, in their
//! order and from the first on, and all that were known to be durable; or it refuses. Never a panic, never an
//! entry that nobody wrote, never fewer than what a later record says was durable.

#![no_main]

use bytes::Bytes;
use fsd::mapping::{Disk, MappedFile};
use fsd::raft::LogChange;
use fsd::simulated_disk::SimulatedDisk;
use fsd::storage::{self, DirectoryIdentity};
use fsd_wire::{ClusterTimeMs, Entry, EntryKind, LogIndex, NodeId, Payload, Term};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const SEGMENT_BYTES: u64 = 32 * 1024;

fn identity() -> DirectoryIdentity {
    DirectoryIdentity { cluster: "fuzz".into(), node: NodeId(1) }
}

fn entry(index: u64, term: u64, payload: Bytes) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        stamp: ClusterTimeMs(index),
        kind: EntryKind::Command,
        payload: Payload::from(payload),
    }
}

fn run(data: &mut Unstructured) -> Result<()> {
    let disk = SimulatedDisk::new();
    let mut storage = storage::open(disk.clone(), &identity(), SEGMENT_BYTES, &mut || 7).unwrap();
    let mut state = storage.recovered.state.clone();
    state.term = Term(100);
    storage.hard_state.store(&state).unwrap();
    let mut written: Vec<Entry> = Vec::new();
    let mut ever: Vec<Entry> = Vec::new();
    let mut term = 1;
    for _ in 0..data.int_in_range(1..=12)? {
        let mut changes = Vec::new();
        if !written.is_empty() && data.ratio(1, 4)? {
            term += 1;
            let from = data.int_in_range(1..=written.len())?;
            written.truncate(from - 1);
            changes.push(LogChange::TruncateFrom(LogIndex(from as u64)));
        }
        for _ in 0..data.int_in_range(1..=3)? {
            let len = data.int_in_range(0..=9000)?;
            let next = entry(written.len() as u64 + 1, term, Bytes::from(vec![term as u8; len]));
            written.push(next.clone());
            ever.push(next.clone());
            changes.push(LogChange::Append(next));
        }
        storage.log.append(&changes).unwrap();
        if data.arbitrary()? {
            storage.log.flush().unwrap();
        }
    }
    drop(storage);
    for _ in 0..data.int_in_range(0..=4)? {
        let segments: Vec<String> =
            disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log")).collect();
        let Some(name) = segments.get(data.int_in_range(0..=segments.len())?) else { continue };
        let mut bytes = disk.read(name).expect("it is listed");
        let at = data.choose_index(bytes.len())?;
        bytes[at] = data.arbitrary()?;
        let mut file = disk.open(name).unwrap();
        file.store(at as u64, &bytes[at..=at]);
        file.flush().unwrap();
    }
    if let Ok(storage) = storage::open(disk, &identity(), SEGMENT_BYTES, &mut || 8) {
        for index in 1..=storage.recovered.log.last_index.0 {
            let found = storage.log.entry(LogIndex(index)).unwrap();
            assert!(ever.contains(&found), "entry {index} was never written");
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
