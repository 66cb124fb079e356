//! Directories are made out of backups, out of damaged ones, and while the power fails.

use fsd_wire::stream_check::StreamCheck;

use super::*;
use crate::server::StoreImage;
use crate::simulated_disk::{SimulatedDisk, Unflushed};
use crate::storage::{self, SegmentReader, Storage};

const BACKUP: &[u8] = include_bytes!("../../tests/golden/stream-v1/stream");
const SEGMENT_BYTES: u64 = 8192;

fn identity(node: u32) -> DirectoryIdentity {
    DirectoryIdentity { cluster: "anew".to_owned(), node: NodeId(node) }
}

fn members(nodes: u32) -> Vec<Member> {
    let address = |port: u32| ([127, 0, 0, 1], port as u16).into();
    let member =
        |n| Member { node: NodeId(n), peer: address(n), client: address(100 + n), text: None, http: None };
    (1..=nodes).map(member).collect()
}

fn restore_node(
    disk: &SimulatedDisk,
    node: u32,
    members: &[Member],
    backup: &[u8],
) -> Result<Restored, RestoreError> {
    let identity = identity(node);
    let recipient = Recipient { identity: &identity, members, segment_bytes: SEGMENT_BYTES };
    let mut random = fastrand::Rng::with_seed(disk.operations() + u64::from(node));
    restore(disk, &recipient, &mut || random.u64(..), &mut &backup[..], &mut |_| {})
}

fn restore_on(disk: &SimulatedDisk, backup: &[u8]) -> Result<Restored, RestoreError> {
    restore_node(disk, 2, &members(3), backup)
}

fn open(disk: &SimulatedDisk) -> Result<(Storage<SimulatedDisk>, FileStore), StorageError> {
    let mut random = fastrand::Rng::with_seed(disk.operations());
    let mut image = StoreImage::default();
    let storage =
        storage::open_into(disk.clone(), &identity(2), SEGMENT_BYTES, &mut || random.u64(1..), &mut image)?;
    Ok((storage, image.into_store()))
}

fn head() -> StreamHead {
    let mut check = StreamCheck::new();
    check.take(BACKUP).unwrap();
    check.finish().unwrap()
}

/// All that a start finds on a restored disk is that of the backup.
fn assert_restored(disk: &SimulatedDisk) {
    let (head, (storage, store)) = (head(), open(disk).expect("a restored directory"));
    assert_eq!((store.len() as u64, store.revision()), (head.files, head.revision));
    assert_eq!((store.last_applied(), store.cluster_time()), (head.entry.index, head.stamp));
    let mut contents_bytes = 0;
    for (name, file) in store.list("", "", usize::MAX).files {
        let position = Position(file.contents.0);
        let segment = SegmentReader::open(disk, position.segment(), Some(&identity(2))).unwrap();
        let (entry, _) = segment.entry_at(position).unwrap();
        let command = entry.command().unwrap().unwrap();
        assert_eq!((command.name.as_str(), command.contents.len()), (name, file.size_bytes as usize));
        contents_bytes += command.contents.len() as u64;
    }
    assert_eq!(contents_bytes, head.contents_bytes);
    let (state, log) = (&storage.recovered.state, &storage.recovered.log);
    assert_eq!((log.base, log.last_index, log.genesis), (head.entry, head.entry.index, state.cluster_id));
    assert_eq!((state.term, state.voted_for, state.life.count()), (head.entry.term, None, 1));
    let own = (LogIndex(1), NodeId(2), state.incarnation);
    assert!(log.registrations.len() == 3 && log.registrations.contains(&own), "{:?}", log.registrations);
}

#[test]
fn a_restored_directory_holds_what_the_backup_does() {
    let disk = SimulatedDisk::new();
    let restored = restore_on(&disk, BACKUP).unwrap();
    assert_eq!(restored.head, head());
    assert_restored(&disk.crash(Unflushed::Lost));
}

#[test]
fn directories_agree_exactly_if_backup_cluster_and_members_do() {
    let of = |node, members: &[Member], backup: &[u8]| {
        let disk = SimulatedDisk::new();
        restore_node(&disk, node, members, backup).unwrap();
        let checkpoint = storage::list_checkpoints(&disk).unwrap().remove(0).1;
        let reader = storage::CheckpointReader::open(&disk, &checkpoint, None).unwrap();
        (reader.head().genesis, reader.head().registrations.clone())
    };
    let first = of(1, &members(3), BACKUP);
    assert_eq!(first, of(2, &members(3), BACKUP));
    assert_eq!(first.1.iter().map(|item| item.2).collect::<std::collections::BTreeSet<_>>().len(), 3);
    let other = of(1, &members(5), BACKUP);
    assert!(first.0 != other.0 && first.1[0] != other.1[0]);
    let mut moved = members(3);
    moved[2].peer = ([127, 0, 0, 2], 3).into();
    assert_ne!(first.0, of(1, &moved, BACKUP).0);
    // This is so for ever: nodes may be restored by different releases.
    assert_eq!(first.0, Some(ClusterId(277_817_878_286_792_992_367_186_254_380_124_445_403)));
    assert_eq!(first.1[0], (LogIndex(1), NodeId(1), Incarnation(13_681_549_251_883_450_945)));
}

#[test]
fn a_directory_with_anything_in_it_is_left_alone() {
    let lived_in = SimulatedDisk::new();
    drop(open(&lived_in).unwrap());
    let restored = SimulatedDisk::new();
    restore_on(&restored, BACKUP).unwrap();
    let strange = SimulatedDisk::new();
    strange.write("notes.txt", b"mine".to_vec());
    let tidied = SimulatedDisk::new();
    tidied.write("hard-state.restoring", vec![0; 8192]);
    tidied.write("notes.txt", b"mine".to_vec());
    for disk in [lived_in, restored, strange, tidied] {
        let before: Vec<_> = disk.list().unwrap().iter().map(|name| disk.read(name)).collect();
        let error = restore_on(&disk, BACKUP).unwrap_err();
        assert!(matches!(error, RestoreError::Storage(StorageError::NotEmpty { .. })), "{error}");
        let after: Vec<_> = disk.list().unwrap().iter().map(|name| disk.read(name)).collect();
        assert!(before == after);
    }
    let locked = SimulatedDisk::new();
    locked.write("lock", b"".to_vec());
    restore_on(&locked, BACKUP).unwrap();
}

/// It is refused, and the directory is as empty as before.
fn assert_refused(backup: &[u8], what: &str) -> RestoreError {
    let disk = SimulatedDisk::new();
    let error = restore_on(&disk, backup).expect_err(what);
    assert!(matches!(error, RestoreError::Transfer(TransferError::Stream(_))), "{what}: {error}");
    assert_eq!(disk.list().unwrap(), [""; 0], "{what}");
    error
}

#[test]
fn no_byte_of_a_backup_may_be_another_one() {
    for at in 0..BACKUP.len() {
        for mask in [1, 0xff] {
            let mut backup = BACKUP.to_vec();
            backup[at] ^= mask;
            assert_refused(&backup, &format!("byte {at}"));
        }
    }
}

#[test]
fn none_may_be_missing_or_too_many() {
    for len in 0..BACKUP.len() {
        let error = assert_refused(&BACKUP[..len], &format!("{len} bytes"));
        assert_eq!(
            error.to_string(),
            format!("not a whole backup: cut short: the bytes end before the end, at byte {len}")
        );
    }
    let long = [BACKUP, &[0]].concat();
    assert!(assert_refused(&long, "a byte too many").to_string().contains("bytes behind the end"));
    // Also if the byte comes with another read.
    let disk = SimulatedDisk::new();
    let identity = identity(2);
    let (members, segment_bytes) = (members(3), SEGMENT_BYTES);
    let recipient = Recipient { identity: &identity, members: &members, segment_bytes };
    let mut long = io::Read::chain(BACKUP, &b"x"[..]);
    let error = restore(&disk, &recipient, &mut || 7, &mut long, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("bytes behind the end"), "{error}");
}

#[test]
fn the_power_may_fail_before_any_operation() {
    let (mut not_begun, mut unfinished) = (0, 0);
    for operation in 1.. {
        let disk = SimulatedDisk::new();
        disk.power_off_at(operation);
        let ended = restore_on(&disk, BACKUP).is_ok();
        let fates = [Unflushed::Kept, Unflushed::Lost]
            .into_iter()
            .chain((1..=8).flat_map(|seed| [Unflushed::Drawn(seed), Unflushed::Garbled(seed)]));
        for fate in fates {
            let found = disk.crash(fate);
            let names = found.list().unwrap();
            let place = format!("operation {operation}, {fate:?}: {names:?}");
            match open(&found.crash(Unflushed::Kept)) {
                // Nothing was begun.
                Ok(_) if names.is_empty() => not_begun += 1,
                Ok(_) => assert_restored(&found),
                Err(StorageError::UnfinishedRestoration { .. }) => {
                    unfinished += 1;
                    assert!(!ended, "{place}");
                    restore_again(&found);
                }
                Err(error) => panic!("{place}: {error}"),
            }
        }
        if ended {
            assert!(
                operation > 10 && not_begun > 10 && unfinished > 100,
                "{operation} {not_begun} {unfinished}"
            );
            return;
        }
    }
}

/// A restoration that finds an earlier one without its end finishes, or is cut off in turn and leaves the same.
fn restore_again(found: &SimulatedDisk) {
    for operation in 1.. {
        let disk = found.crash(Unflushed::Kept);
        disk.power_off_at(operation);
        let ended = restore_on(&disk, BACKUP).is_ok();
        for fate in [Unflushed::Kept, Unflushed::Lost, Unflushed::Drawn(operation)] {
            let found = disk.crash(fate);
            match open(&found.crash(Unflushed::Kept)) {
                Ok(_) => assert_restored(&found),
                Err(StorageError::UnfinishedRestoration { .. }) => {
                    assert!(!ended);
                    restore_on(&found, BACKUP).unwrap();
                    assert_restored(&found.crash(Unflushed::Lost));
                }
                Err(error) => panic!("operation {operation}, {fate:?}: {error}"),
            }
        }
        if ended {
            return;
        }
    }
}

#[test]
fn a_full_disk_leaves_an_empty_directory() {
    for capacity in [1, 8192, 9000] {
        let disk = SimulatedDisk::new();
        disk.set_capacity(capacity);
        let error = restore_on(&disk, BACKUP).unwrap_err();
        assert!(!matches!(error, RestoreError::Transfer(TransferError::Stream(_))), "{error}");
        assert_eq!(disk.list().unwrap(), [""; 0]);
        disk.set_capacity(u64::MAX);
        restore_on(&disk, BACKUP).unwrap();
        assert_restored(&disk);
    }
}
