//! Checkpoints: whole or refused, whatever becomes of their bytes, and whole or not there, wherever the power fails.

use fsd_wire::{ClusterId, EntryId, Incarnation};

use super::*;
use crate::mapping::{FileDisk, MappedFile};
use crate::simulated_disk::Unflushed;
use crate::storage::checkpoint::BLOCK_PAYLOAD_BYTES_MAX;
use crate::storage::segment::{Position, SegmentId, checkpoint_name, checkpoint_temporary_name};
use crate::storage::{CheckpointHead, CheckpointReader, CheckpointWriter, list_checkpoints};

/// The head of a checkpoint as of `index`.
pub(super) fn head_of(index: u64, body: &[u8]) -> CheckpointHead {
    CheckpointHead {
        salt: 0x5a17_0000_0000_0000 | index,
        identity: identity(),
        entry: EntryId { index: LogIndex(index), term: Term(3) },
        stamp: ClusterTimeMs(1_700_000_000_000 + index),
        log_end: Position::new(SegmentId(4), 4096),
        genesis: Some(ClusterId(0xabcd)),
        registrations: vec![
            (LogIndex(1), NodeId(1), Incarnation(0x11)),
            (LogIndex(1), NodeId(3), Incarnation(0x33)),
            (LogIndex(5), NodeId(2), Incarnation(0x22)),
        ],
        segments: vec![SegmentId(1), SegmentId(4)],
        revision: 5,
        files: 3,
        sessions: 2,
        body_bytes: body.len() as u64,
        begins_anew: false,
    }
}

pub(super) fn some_body(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

/// Writes a checkpoint, its body in pieces of this size.
pub(super) fn write<D: Disk>(
    disk: &D,
    head: &CheckpointHead,
    body: &[u8],
    piece_bytes: usize,
) -> std::io::Result<()> {
    let mut writer = CheckpointWriter::create(disk, head)?;
    for piece in body.chunks(piece_bytes) {
        writer.append(piece)?;
    }
    writer.finish()
}

/// The whole of a checkpoint, or what is wrong with it.
pub(super) fn read<D: Disk>(disk: &D, name: &str) -> Result<(CheckpointHead, Vec<u8>), StorageError> {
    let mut reader = CheckpointReader::open(disk, name, Some(&identity()))?;
    let mut body = Vec::new();
    while let Some(block) = reader.next_block()? {
        assert!(!block.is_empty() && block.len() <= BLOCK_PAYLOAD_BYTES_MAX);
        body.extend_from_slice(&block);
    }
    assert!(reader.next_block()?.is_none(), "nothing comes behind the end");
    Ok((reader.head().clone(), body))
}

fn assert_holds<D: Disk>(disk: &D, head: &CheckpointHead, body: &[u8]) {
    let (found_head, found) = read(disk, &head.name()).unwrap();
    assert_eq!(found_head, *head);
    assert!(found == body, "another body than was written");
}

#[test]
fn what_was_written_is_read() {
    let block = BLOCK_PAYLOAD_BYTES_MAX;
    for (body_bytes, piece_bytes) in
        [(0, 1), (1, 1), (5000, 700), (block, 3000), (block + 1, block + 1), (3 * block, 9999)]
    {
        let disk = SimulatedDisk::new();
        let body = some_body(1, body_bytes);
        let head = head_of(7, &body);
        write(&disk, &head, &body, piece_bytes).unwrap();
        assert_eq!(disk.list().unwrap(), [head.name()]);
        assert_eq!(disk.read(&head.name()).unwrap().len() as u64, head.file_bytes());
        assert_holds(&disk.crash(Unflushed::Lost), &head, &body);
    }
}

#[test]
fn tables_may_take_many_blocks_or_none() {
    let disk = SimulatedDisk::new();
    let segments = (1..=40_000).map(|id| SegmentId(2 * id)).collect();
    let many = CheckpointHead { segments, ..head_of(7, &[1]) };
    write(&disk, &many, &[1], 1).unwrap();
    assert_holds(&disk, &many, &[1]);
    let none = CheckpointHead { segments: vec![], registrations: vec![], genesis: None, ..head_of(8, &[]) };
    write(&disk, &none, &[], 1).unwrap();
    assert_holds(&disk, &none, &[]);
}

#[test]
fn a_real_disk_holds_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, _) = FileDisk::lock(directory.path()).unwrap();
    // More than is flushed at once.
    let body = some_body(1, 5 * BLOCK_PAYLOAD_BYTES_MAX * 16 / 2 + 77);
    let head = head_of(7, &body);
    write(&disk, &head, &body, 100_000).unwrap();
    for disk in [disk, FileDisk::read_only(directory.path()).unwrap()] {
        assert_eq!(list_checkpoints(&disk).unwrap(), [(LogIndex(7), head.name())]);
        assert_holds(&disk, &head, &body);
    }
}

/// The bytes of a small checkpoint with a block of tables and two of its body.
fn small() -> (CheckpointHead, Vec<u8>) {
    let body = some_body(1, BLOCK_PAYLOAD_BYTES_MAX + 100);
    let head = head_of(7, &body);
    let disk = SimulatedDisk::new();
    write(&disk, &head, &body, 1000).unwrap();
    let bytes = disk.read(&head.name()).unwrap();
    (head, bytes)
}

fn read_bytes(name: &str, bytes: Vec<u8>) -> Result<(CheckpointHead, Vec<u8>), StorageError> {
    let disk = SimulatedDisk::new();
    disk.write(name, bytes);
    read(&disk, name)
}

#[test]
fn every_changed_byte_is_found() {
    let (head, bytes) = small();
    let disk = SimulatedDisk::new();
    disk.write(&head.name(), bytes.clone());
    let mut file = disk.open(&head.name()).unwrap();
    // All but the inside of the long block, of which every 97th will do.
    let inside = 1000..bytes.len() - 300;
    for at in (0..bytes.len()).filter(|at| !inside.contains(at) || at % 97 == 0) {
        let mask = 1 << (at % 8);
        file.store(at as u64, &[bytes[at] ^ mask]);
        match read(&disk, &head.name()) {
            Err(StorageError::Damage { file, offset, .. }) => {
                assert!(file == head.name() && offset <= at as u64, "at {at}: offset {offset}");
            }
            Err(StorageError::UnknownFormat { .. }) => assert!((8..12).contains(&at), "at {at}"),
            other => panic!("a changed byte at {at} was read as {other:?}"),
        }
        file.store(at as u64, &[bytes[at]]);
    }
    read(&disk, &head.name()).unwrap();
}

#[test]
fn every_other_length_is_found() {
    let body = some_body(1, 50);
    let head = head_of(7, &body);
    let disk = SimulatedDisk::new();
    write(&disk, &head, &body, 50).unwrap();
    let bytes = disk.read(&head.name()).unwrap();
    for len in 0..bytes.len() {
        assert!(read_bytes(&head.name(), bytes[..len].to_vec()).is_err(), "{len} bytes");
    }
    for more in [1, 100, 5000] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + more, 0);
        assert!(read_bytes(&head.name(), longer).is_err(), "{more} bytes more");
    }
    assert!(read_bytes(&head.name(), vec![0; bytes.len()]).is_err());
}

#[test]
fn blocks_of_elsewhere_are_refused() {
    let (head, bytes) = small();
    let what = |bytes: Vec<u8>| match read_bytes(&head.name(), bytes) {
        Err(StorageError::Damage { offset, what, .. }) => (offset, what),
        other => panic!("{other:?}"),
    };
    // The same checkpoint in a former life of its place on the disk: only the salt tells.
    let body = some_body(1, BLOCK_PAYLOAD_BYTES_MAX + 100);
    let former = CheckpointHead { salt: 1, ..head.clone() };
    let disk = SimulatedDisk::new();
    write(&disk, &former, &body, 1000).unwrap();
    let former = disk.read(&head.name()).unwrap();
    let first = 512 + 32 + 68;
    let second = first + 32 + BLOCK_PAYLOAD_BYTES_MAX;
    let trailer = second + 32 + 100;
    for (from, to, found) in [
        (512, first, "block CRC mismatch"),
        (first, second, "block CRC mismatch"),
        (second, trailer, "block CRC mismatch"),
        (trailer, bytes.len(), "not the trailer that belongs here"),
    ] {
        let mut mixed = bytes.clone();
        mixed[from..to].copy_from_slice(&former[from..to]);
        assert_eq!(what(mixed), (from as u64, found.to_owned()));
    }
    // A block of this very file at another place, and a place that was never written.
    let mut moved = bytes.clone();
    moved.copy_within(512..612, first);
    assert_eq!(what(moved), (first as u64, "not the block that belongs here".to_owned()));
    let mut zeros = bytes.clone();
    zeros[second..].fill(0);
    assert_eq!(what(zeros), (second as u64, "no block".to_owned()));
    let mut zeros = bytes.clone();
    zeros[trailer..].fill(0);
    assert_eq!(what(zeros), (trailer as u64, "no trailer".to_owned()));
}

#[test]
fn the_name_is_only_a_hint() {
    let (head, bytes) = small();
    let other = checkpoint_name(LogIndex(8));
    let error = read_bytes(&other, bytes.clone()).unwrap_err().to_string();
    assert_eq!(error, format!("{other}: damaged at offset 0: entry 7 by its header, 8 by its name"));
    assert!(read_bytes("checkpoint-7", bytes.clone()).is_err());
    let disk = SimulatedDisk::new();
    disk.write(&head.name(), bytes);
    let stranger = DirectoryIdentity { cluster: "other".to_owned(), node: NodeId(3) };
    assert!(matches!(
        CheckpointReader::open(&disk, &head.name(), Some(&stranger)),
        Err(StorageError::WrongDirectory { .. })
    ));
    assert!(CheckpointReader::open(&disk, &head.name(), None).is_ok());
}

#[test]
fn checkpoints_are_listed_newest_first() {
    let disk = SimulatedDisk::new();
    for index in [9, 0x10, 0xff, u64::MAX] {
        disk.write(&checkpoint_name(LogIndex(index)), vec![]);
    }
    for other in [
        "checkpoint-",
        "checkpoint-9",
        "checkpoint-00000000000000FF",
        "checkpoint-0000000000000009.tmp",
        "segment-0000000000000001.fsd",
    ] {
        disk.write(other, vec![]);
    }
    let listed: Vec<_> = list_checkpoints(&disk).unwrap().into_iter().map(|(index, _)| index.0).collect();
    assert_eq!(listed, [u64::MAX, 0xff, 0x10, 9]);
}

#[test]
fn a_checkpoint_that_was_being_written_is_removed_at_the_next_start() {
    let disk = SimulatedDisk::new();
    drop(open_ok(&disk));
    let body = some_body(1, 100);
    let mut writer = CheckpointWriter::create(&disk, &head_of(9, &body)).unwrap();
    writer.append(&body[..50]).unwrap();
    drop(writer);
    assert!(disk.list().unwrap().contains(&checkpoint_temporary_name(LogIndex(9))));
    drop(open_ok(&disk));
    assert_eq!(disk.list().unwrap(), ["hard-state"]);
    // Who gives one up does it at once.
    CheckpointWriter::create(&disk, &head_of(9, &body)).unwrap().abandon().unwrap();
    assert_eq!(disk.list().unwrap(), ["hard-state"]);
}

#[test]
fn a_full_disk_is_known_before_anything_is_written() {
    let disk = SimulatedDisk::new();
    let body = some_body(1, 10_000);
    let head = head_of(7, &body);
    disk.set_capacity(head.file_bytes() - 1);
    let error = CheckpointWriter::create(&disk, &head).err().expect("there is no room");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(disk.list().unwrap().is_empty());
    disk.set_capacity(head.file_bytes());
    write(&disk, &head, &body, 1000).unwrap();
}

#[test]
#[should_panic(expected = "1 bytes are missing")]
fn a_body_that_is_too_short_is_no_checkpoint() {
    let head = head_of(7, &[1, 2]);
    write(&SimulatedDisk::new(), &head, &[1], 1).unwrap();
}

#[test]
#[should_panic(expected = "no more than the head says")]
fn a_body_that_is_too_long_is_no_checkpoint() {
    let head = head_of(7, &[1]);
    write(&SimulatedDisk::new(), &head, &[1, 2], 2).unwrap();
}

/// Two checkpoints, one behind the other, and the second once more: the body of each, in the order in which they are
/// finished.
fn script(body_bytes: usize) -> [(CheckpointHead, Vec<u8>); 3] {
    let body = |seed| some_body(seed, body_bytes + seed as usize);
    let [first, second, third] = [body(1), body(2), body(3)];
    let again = CheckpointHead { salt: 77, ..head_of(9, &third) };
    [(head_of(7, &first), first), (head_of(9, &second), second), (again, third)]
}

/// Every checkpoint that has its name is whole and one of those that may be there; those that were finished are, or
/// what took their place.
fn assert_sound(found: &SimulatedDisk, script: &[(CheckpointHead, Vec<u8>)], finished: usize) {
    let listed = list_checkpoints(found).unwrap();
    for (index, name) in &listed {
        let is = read(found, name).unwrap_or_else(|error| panic!("{finished} were finished: {error}"));
        let at = script.iter().rposition(|written| *written == is).expect("one that was written");
        let superseded =
            script[at + 1..finished.max(at + 1)].iter().any(|(head, _)| head.entry.index == *index);
        assert!(!superseded, "an older one came back");
    }
    for (head, _) in &script[..finished] {
        assert!(listed.iter().any(|(index, _)| *index == head.entry.index), "{} is gone", head.name());
    }
}

/// Cuts the power before each operation of the script; calls `check` with the disk and how many were finished. How
/// many operations there are.
fn for_each_power_failure(
    script: &[(CheckpointHead, Vec<u8>)],
    piece_bytes: usize,
    mut check: impl FnMut(&SimulatedDisk, usize),
) -> u64 {
    for operation in 1.. {
        let disk = SimulatedDisk::new();
        disk.power_off_at(operation);
        let finished =
            script.iter().take_while(|(head, body)| write(&disk, head, body, piece_bytes).is_ok()).count();
        check(&disk, finished);
        if !disk.is_off() {
            return operation - 1;
        }
    }
    unreachable!("the script ends")
}

#[test]
fn the_power_may_fail_before_any_operation() {
    let script = script(1500);
    let operations = for_each_power_failure(&script, 700, |disk, finished| {
        let sectors = disk.unflushed_sectors();
        let fates = [Unflushed::Kept, Unflushed::Lost]
            .into_iter()
            .chain((0..sectors).flat_map(|sector| [Unflushed::AllBut(sector), Unflushed::Only(sector)]))
            .chain((1..=20).flat_map(|seed| [Unflushed::Drawn(seed), Unflushed::Garbled(seed)]));
        for fate in fates {
            assert_sound(&disk.crash(fate), &script, finished);
        }
    });
    assert!(operations >= 30, "only {operations} operations");
}

#[test]
fn the_power_may_fail_while_a_long_one_is_written_out_in_parts() {
    let script = script(36 * BLOCK_PAYLOAD_BYTES_MAX);
    for_each_power_failure(&script[..2], BLOCK_PAYLOAD_BYTES_MAX, |disk, finished| {
        for fate in [Unflushed::Lost, Unflushed::Drawn(1), Unflushed::Garbled(2)] {
            assert_sound(&disk.crash(fate), &script, finished);
        }
    });
}

#[test]
fn an_operation_that_fails_leaves_no_checkpoint_or_a_whole_one() {
    let script = script(20 * BLOCK_PAYLOAD_BYTES_MAX);
    let mut failed = 0;
    for operation in 1.. {
        let disk = SimulatedDisk::new();
        disk.fail_at(operation, std::io::ErrorKind::Other);
        let result = write(&disk, &script[0].0, &script[0].1, BLOCK_PAYLOAD_BYTES_MAX);
        failed += u32::from(result.is_err());
        for fate in [Unflushed::Kept, Unflushed::Lost, Unflushed::Drawn(1)] {
            assert_sound(&disk.crash(fate), &script, usize::from(result.is_ok()));
        }
        if disk.operations() < operation {
            break;
        }
    }
    assert_eq!(failed, 9, "making the file, writing it out five times, the flush, the name, the directory");
}
