//! Live contents that are copied into a kept segment.

use fsd_wire::EntryId;

use super::checkpoint::{head_of, read, write};
use super::*;
use crate::mapping::MappedFile;
use crate::simulated_disk::Unflushed;
use crate::storage::segment::{file_name, record_bytes};
use crate::storage::{CheckpointHead, Copied, Copying, Moved, SegmentId};

const BODY: &[u8] = b"what a store is made of";
/// Entries of the log whose contents are live, in the order in which an index has them.
const LIVE: [u64; 5] = [7, 2, 11, 3, 5];

fn log_of(disk: &SimulatedDisk, entries: u64) -> Storage<SimulatedDisk> {
    let mut storage = open_ok(disk);
    for index in 1..=entries {
        storage.log.append(&[append(index, 1, 100 * index as usize)]).unwrap();
    }
    storage.log.flush().unwrap();
    storage
}

fn copying(storage: &mut Storage<SimulatedDisk>) -> Box<Copying<SimulatedDisk, u64>> {
    let wanted = LIVE.map(|index| (storage.log.position(LogIndex(index)), index)).to_vec();
    Box::new(Copying::new(storage.log.kept_header(0), wanted))
}

/// Copies all, in pieces of this size; counts them.
fn copy(
    disk: &SimulatedDisk,
    storage: &mut Storage<SimulatedDisk>,
    bytes_max: usize,
) -> Result<(SegmentId, Vec<Moved<u64>>, usize), StorageError> {
    let mut copying = copying(storage);
    for pieces in 1.. {
        match copying.step(disk, bytes_max)? {
            Copied::More(more) => copying = more,
            Copied::Whole(kept, moved) => {
                let id = kept.id();
                storage.log.install_kept(kept);
                return Ok((id, moved, pieces));
            }
        }
    }
    unreachable!("it ends")
}

fn assert_moved(storage: &Storage<SimulatedDisk>, moved: &[Moved<u64>]) {
    assert_eq!(moved.len(), LIVE.len());
    for Moved { what, to, .. } in moved {
        assert_eq!(storage.log.entry_at(*to).unwrap(), entry(*what, 1, 100 * *what as usize));
    }
}

#[test]
fn what_is_copied_is_what_was_there() {
    for bytes_max in [1, 1000, 1 << 20] {
        let disk = SimulatedDisk::new();
        let mut storage = log_of(&disk, 12);
        let (id, moved, pieces) = copy(&disk, &mut storage, bytes_max).unwrap();
        assert_eq!(pieces == 1, bytes_max == 1 << 20, "{pieces} pieces");
        assert_moved(&storage, &moved);
        for Moved { what, from, to } in &moved {
            assert_eq!((*from, to.segment()), (storage.log.position(LogIndex(*what)), id));
        }
        let records: u64 = LIVE.iter().map(|index| record_bytes(100 * *index as usize)).sum();
        let len_bytes = disk.open(&file_name(id)).unwrap().len_bytes();
        assert_eq!(len_bytes, (4096 + records).next_multiple_of(4096), "no longer than it must be");
    }
}

#[test]
fn what_is_damaged_is_not_copied() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 12);
    let place = storage.log.position(LogIndex(7));
    disk.rot(&file_name(place.segment()), place.offset() as usize + 300, 1);
    match copy(&disk, &mut storage, 1 << 20) {
        Err(StorageError::Damage { offset, .. }) => assert_eq!(offset, u64::from(place.offset())),
        other => panic!("not noticed: {:?}", other.map(|(id, ..)| id)),
    }
    assert!(!disk.list().unwrap().iter().any(|name| name.ends_with("0b.fsd")));
}

#[test]
fn without_room_nothing_is_left_behind_a_start() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 12);
    disk.set_capacity(1);
    match copy(&disk, &mut storage, 1 << 20) {
        Err(StorageError::Io { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::StorageFull),
        other => panic!("there was room: {:?}", other.map(|(id, ..)| id)),
    }
    disk.set_capacity(u64::MAX);
    drop(storage);
    drop(open_ok(&disk));
    assert!(!disk.list().unwrap().iter().any(|name| name.ends_with(".tmp")));
}

/// A checkpoint as of the log's end whose contents are in the copies, and nowhere else.
fn checkpoint_of_copies(storage: &Storage<SimulatedDisk>, id: SegmentId) -> CheckpointHead {
    let last = EntryId { term: Term(1), index: storage.log.last_index() };
    let base = storage.log.base_behind(last).unwrap();
    let head = head_of(last.index.0, BODY);
    CheckpointHead {
        entry: last,
        stamp: base.stamp,
        log_end: base.end,
        segments: vec![id],
        genesis: None,
        registrations: Vec::new(),
        ..head
    }
}

/// Copies, takes a checkpoint of it, and removes what that does not need, until the power fails before an operation.
/// How many operations there are.
fn for_each_power_failure(check: impl Fn(&SimulatedDisk, &[Moved<u64>])) -> u64 {
    for operation in 1..1000 {
        let disk = SimulatedDisk::new();
        let mut storage = log_of(&disk, 12);
        let first = storage.log.position(LogIndex(1)).segment();
        disk.power_off_at(disk.operations() + operation);
        let mut known = Vec::new();
        if let Ok((id, moved, _)) = copy(&disk, &mut storage, 700) {
            known = moved;
            let head = checkpoint_of_copies(&storage, id);
            if write(&disk, &head, BODY, 700).is_ok() {
                let _ = disk.remove(&file_name(first));
            }
        }
        check(&disk, &known);
        if !disk.is_off() {
            return operation - 1;
        }
    }
    unreachable!("the work ends")
}

#[test]
fn the_power_may_fail_before_any_operation_of_a_cleaning() {
    let operations = for_each_power_failure(|disk, moved| {
        let sectors = disk.unflushed_sectors();
        let fates = [Unflushed::Kept, Unflushed::Lost]
            .into_iter()
            .chain((0..sectors).flat_map(|sector| [Unflushed::AllBut(sector), Unflushed::Only(sector)]))
            .chain((1..=10).flat_map(|seed| [Unflushed::Drawn(seed), Unflushed::Garbled(seed)]));
        for fate in fates {
            let disk = disk.crash(fate);
            let storage = open_ok(&disk);
            match storage.recovered.checkpoints.last() {
                // The checkpoint stands, and so do the copies that it refers to.
                Some(head) => {
                    assert_moved(&storage, moved);
                    assert_eq!(read(&disk, &head.name()).unwrap().1, BODY);
                }
                // Everything is where it was.
                None => {
                    let all: Vec<Entry> =
                        (1..=12).map(|index| entry(index, 1, 100 * index as usize)).collect();
                    assert_eq!(entries(&storage), all);
                    assert_eq!(storage.log.contents_segments().count(), 0);
                }
            }
        }
    });
    assert!(operations >= 20, "only {operations} operations");
}
