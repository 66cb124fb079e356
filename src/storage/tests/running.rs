//! The log and the hard state while a node runs.

use std::io;

use fsd_wire::{ClusterId, Incarnation, Life, LogIndex, NodeId, Term};

use super::*;
use crate::mapping::FileDisk;
use crate::raft::{HardState, LogView};
use crate::simulated_disk::Unflushed;
use crate::storage::{NoImage, lock_directory, segment};

#[test]
fn what_was_appended_and_flushed_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/on/the/way");
    let appended: Vec<Entry> = (1..=40).map(|index| entry(index, 1 + index / 10, 300)).collect();
    {
        let mut storage = open_with(&lock_directory(&path, &identity()).unwrap(), 1).unwrap();
        assert_eq!(storage.recovered.state.life.count(), 1);
        for entry in &appended {
            storage.log.append(&[LogChange::Append(entry.clone())]).unwrap();
            assert!(storage.log.is_dirty());
            assert_eq!(storage.log.flush().unwrap(), entry.index);
            assert!(!storage.log.is_dirty());
        }
        assert_eq!(entries(&storage), appended);
        assert!(storage.log.segment_count() > 2);
    }
    let storage = open_with(&lock_directory(&path, &identity()).unwrap(), 2).unwrap();
    assert_eq!(entries(&storage), appended);
    assert_eq!(storage.recovered.state.life.count(), 2);
    assert_eq!(storage.recovered.log.last_index, LogIndex(40));
    let terms: Vec<_> =
        storage.recovered.log.term_starts.iter().map(|(index, term)| (index.0, term.0)).collect();
    assert_eq!(terms, [(1, 1), (10, 2), (20, 3), (30, 4), (40, 5)]);
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut storage = open_with(&lock_directory(&path, &identity()).unwrap(), 1).unwrap();
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut names = Vec::new();
    for item in path.read_dir().unwrap() {
        let item = item.unwrap();
        assert_eq!(item.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", item.path());
        names.push(item.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["hard-state", "lock", "segment-0000000000000001.fsd"]);
}

#[test]
fn a_directory_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let held = lock_directory(directory.path(), &identity()).unwrap();
    let Err(StorageError::Locked { holder, .. }) = lock_directory(directory.path(), &identity()) else {
        panic!("locked twice");
    };
    assert!(holder.contains(&format!("pid={}", std::process::id())), "{holder}");
    assert!(holder.contains("node=3") && holder.contains("cluster=demo"), "{holder}");
    // Reading does not need the lock.
    FileDisk::read_only(directory.path()).unwrap();
    drop(held);
    lock_directory(directory.path(), &identity()).unwrap();
}

#[test]
fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    drop(lock_directory(directory.path(), &identity()).unwrap());
    for other in [
        DirectoryIdentity { node: NodeId(4), ..identity() },
        DirectoryIdentity { cluster: "other".to_owned(), ..identity() },
    ] {
        let refused = lock_directory(directory.path(), &other);
        let Err(StorageError::WrongDirectory { found, .. }) = refused else { panic!("taken by {other}") };
        assert_eq!(found, identity());
    }
    // A lock file that a crash cut off says nothing, and stands in nobody's way.
    std::fs::write(directory.path().join("lock"), "node=3 pi").unwrap();
    lock_directory(directory.path(), &identity()).unwrap();
}

#[test]
fn a_read_only_directory_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop(open_with(&lock_directory(directory.path(), &identity()).unwrap(), 1).unwrap());
    let disk = FileDisk::read_only(directory.path()).unwrap();
    assert_eq!(disk.create("x", 10).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(disk.remove("lock").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(disk.rename("lock", "x").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    let report = super::super::check(&disk, &identity(), &mut NoImage).unwrap();
    assert!(report.iter().any(|line| line.contains("life 1")), "{report:?}");
}

#[test]
fn a_flush_without_anything_new_costs_nothing() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    storage.log.flush().unwrap();
    let before = disk.operations();
    assert_eq!(storage.log.flush().unwrap(), LogIndex(1));
    assert_eq!(disk.operations(), before);
}

#[test]
fn one_flush_covers_a_whole_batch() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    storage.log.flush().unwrap();
    let before = disk.flushes();
    storage.log.append(&[append(2, 1, 10), append(3, 1, 10), append(4, 1, 10)]).unwrap();
    storage.log.flush().unwrap();
    assert_eq!(disk.flushes(), before + 1);
}

#[test]
fn superseded_entries_are_gone_and_their_records_stay() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(&[append(1, 1, 10), append(2, 1, 20), append(3, 1, 30)]).unwrap();
    let old = storage.log.position(LogIndex(2));
    storage.log.append(&[LogChange::TruncateFrom(LogIndex(2)), append(2, 2, 40)]).unwrap();
    storage.log.flush().unwrap();
    assert_eq!(entries(&storage), [entry(1, 1, 10), entry(2, 2, 40)]);
    assert_eq!(storage.log.entry_at(old).unwrap(), entry(2, 1, 20));
    drop(storage);
    let storage = open_ok(&disk);
    assert_eq!(entries(&storage), [entry(1, 1, 10), entry(2, 2, 40)]);
    let terms: Vec<_> =
        storage.recovered.log.term_starts.iter().map(|(index, term)| (index.0, term.0)).collect();
    assert_eq!(terms, [(1, 1), (2, 2)]);
}

#[test]
fn the_first_entry_can_be_superseded_with_all_it_said() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let genesis = |term: u64, cluster_id: u128| Entry {
        kind: EntryKind::Genesis,
        payload: fsd_wire::Genesis {
            cluster_id: ClusterId(cluster_id),
            incarnations: vec![(NodeId(1), Incarnation(10 + term)), (NodeId(3), Incarnation(30))],
        }
        .encode(),
        ..entry(1, term, 0)
    };
    let register = |index: u64, term: u64| Entry {
        kind: EntryKind::Register,
        payload: fsd_wire::Register { node: NodeId(2), incarnation: Incarnation(index) }.encode(),
        ..entry(index, term, 0)
    };
    let all = [genesis(1, 5), register(2, 1), register(3, 1)].map(LogChange::Append);
    storage.log.append(&all).unwrap();
    storage.log.flush().unwrap();
    drop(storage);
    let mut storage = open_ok(&disk);
    assert_eq!(storage.recovered.log.genesis, Some(ClusterId(5)));
    assert_eq!(storage.recovered.log.registrations.len(), 4);
    let changes = [
        LogChange::TruncateFrom(LogIndex(1)),
        LogChange::Append(genesis(2, 6)),
        LogChange::Append(register(2, 2)),
    ];
    storage.log.append(&changes).unwrap();
    storage.log.flush().unwrap();
    drop(storage);
    let summary = open_ok(&disk).recovered.log;
    assert_eq!(summary.genesis, Some(ClusterId(6)));
    let expected = [(1, 1, 12), (1, 3, 30), (2, 2, 2)];
    let expected = expected.map(|(index, node, inc)| (LogIndex(index), NodeId(node), Incarnation(inc)));
    assert_eq!(summary.registrations, expected);
    assert_eq!(summary.last_stamp, ClusterTimeMs(2000));
}

#[test]
fn batches_for_followers_are_bounded_but_never_empty() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let all: Vec<LogChange> = (1..=20).map(|index| append(index, 1, 60)).collect();
    storage.log.append(&all).unwrap();
    let count = |first, last, count_max, bytes_max| {
        let found = storage.log.entries(LogIndex(first), LogIndex(last), count_max, bytes_max).unwrap();
        assert!(found.iter().zip(first..).all(|(entry, index)| entry.index.0 == index));
        found.len()
    };
    assert_eq!(count(1, 20, 100, 1_000_000), 20);
    assert_eq!(count(5, 9, 100, 1_000_000), 5);
    assert_eq!(count(5, 20, 3, 1_000_000), 3);
    assert_eq!(count(5, 20, 100, 250), 2);
    assert_eq!(count(5, 20, 100, 200), 2);
    assert_eq!(count(5, 20, 100, 199), 1);
    assert_eq!(count(5, 20, 100, 0), 1);
    assert_eq!(count(5, 20, 0, 0), 1);
    assert_eq!(count(6, 5, 100, 1_000_000), 0);
}

#[test]
fn a_record_longer_than_a_segment_gets_a_longer_segment() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let request = storage.log.wants_spare().unwrap();
    storage.log.install_spare(request.prepare(&disk).unwrap()).unwrap();
    storage.log.append(&[append(1, 1, 100_000), append(2, 1, 10)]).unwrap();
    storage.log.flush().unwrap();
    assert_eq!(disk.list().unwrap(), ["hard-state", &segment::file_name(segment::SegmentId(2))]);
    drop(storage);
    assert_eq!(entries(&open_ok(&disk)), [entry(1, 1, 100_000), entry(2, 1, 10)]);
}

#[test]
fn a_segment_made_ready_is_used_at_the_roll() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let request = storage.log.wants_spare().expect("an empty log needs a segment");
    assert!(storage.log.wants_spare().is_none(), "one request at a time");
    storage.log.install_spare(request.prepare(&disk).unwrap()).unwrap();
    assert!(storage.log.wants_spare().is_none(), "one spare is enough");
    let before = disk.flushes();
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    assert_eq!(disk.flushes(), before, "rolling into a spare makes no segment");
    assert!(storage.log.wants_spare().is_none(), "the present segment is still empty enough");
    storage.log.append(&[append(2, 1, 2000)]).unwrap();
    assert!(storage.log.wants_spare().is_some());
    storage.log.flush().unwrap();
    drop(storage);
    assert_eq!(entries(&open_ok(&disk)), [entry(1, 1, 10), entry(2, 1, 2000)]);
}

#[test]
fn a_segment_that_is_ready_too_late_is_removed() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let request = storage.log.wants_spare().unwrap();
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    storage.log.install_spare(request.prepare(&disk).unwrap()).unwrap();
    assert_eq!(disk.list().unwrap(), ["hard-state", &segment::file_name(segment::SegmentId(2))]);
    storage.log.append(&[append(2, 1, 3900)]).unwrap();
    storage.log.append(&[append(3, 1, 3900)]).unwrap();
    storage.log.flush().unwrap();
    drop(storage);
    assert_eq!(open_ok(&disk).log.last_index(), LogIndex(3));
}

#[test]
fn a_full_disk_stops_the_log_only_when_it_must_roll() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    disk.set_capacity(8192 + 8192 + 100);
    storage.log.append(&[append(2, 1, 2000)]).unwrap();
    let request = storage.log.wants_spare().unwrap();
    assert_eq!(request.prepare(&disk).unwrap_err().kind(), io::ErrorKind::StorageFull);
    storage.log.spare_failed();
    assert!(storage.log.wants_spare().is_none(), "not again at once");
    storage.log.append(&[append(3, 1, 1500)]).unwrap();
    storage.log.flush().unwrap();
    assert!(storage.log.wants_spare().is_some(), "again when more was written");
    let refused = storage.log.append(&[append(4, 1, 3000)]);
    assert!(matches!(refused, Err(StorageError::Io { .. })), "{refused:?}");
    // What comes after a failure is not tried.
    assert!(matches!(storage.log.append(&[append(4, 1, 1)]), Err(StorageError::Failed)));
    assert!(matches!(storage.log.flush(), Err(StorageError::Failed)));
    drop(storage);
    assert_eq!(entries(&open_ok(&disk)), [entry(1, 1, 10), entry(2, 1, 2000), entry(3, 1, 1500)]);
}

#[test]
fn a_failed_flush_is_final() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(&[append(1, 1, 10)]).unwrap();
    storage.log.flush().unwrap();
    storage.log.append(&[append(2, 1, 10)]).unwrap();
    disk.fail_at(disk.operations() + 1, io::ErrorKind::Other);
    let failed = storage.log.flush();
    assert!(matches!(failed, Err(StorageError::Io { .. })), "{failed:?}");
    assert!(matches!(storage.log.flush(), Err(StorageError::Failed)));
    assert!(storage.log.wants_spare().is_none());

    let mut state = storage.recovered.state;
    disk.fail_at(disk.operations() + 2, io::ErrorKind::Other);
    state.term = Term(2);
    assert!(matches!(storage.hard_state.store(&state), Err(StorageError::Io { .. })));
    assert!(matches!(storage.hard_state.store(&state), Err(StorageError::Failed)));
}

#[test]
fn damage_found_while_running_names_file_and_offset() {
    let directory = tempfile::tempdir().unwrap();
    let disk = lock_directory(directory.path(), &identity()).unwrap();
    let mut storage = open_with(&disk, 1).unwrap();
    storage.log.append(&[append(1, 1, 100), append(2, 1, 100), append(3, 1, 100)]).unwrap();
    storage.log.flush().unwrap();
    let position = storage.log.position(LogIndex(2));
    let name = segment::file_name(position.segment());
    // Another hand changes one bit below the running log: in the payload, then in the head.
    for at in [position.offset() + 70, position.offset() + 30] {
        flip(&directory.path().join(&name), u64::from(at));
        for error in [
            storage.log.entry(LogIndex(2)).unwrap_err(),
            storage.log.entry_at(position).unwrap_err(),
            storage.log.entries(LogIndex(1), LogIndex(3), 10, 10_000).unwrap_err(),
        ] {
            let StorageError::Damage { file, offset, .. } = &error else { panic!("{error}") };
            assert!(file.ends_with(&name), "{error}");
            assert_eq!(*offset, u64::from(position.offset()));
        }
        flip(&directory.path().join(&name), u64::from(at));
        assert_eq!(storage.log.entry(LogIndex(2)).unwrap(), entry(2, 1, 100));
    }
    assert_eq!(storage.log.entry(LogIndex(1)).unwrap(), entry(1, 1, 100));
}

fn flip(path: &std::path::Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn the_hard_state_comes_back_as_it_was_stored() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let first = storage.recovered.state.clone();
    assert_eq!((first.life.count(), first.term, first.voted_for, first.cluster_id), (1, Term(0), None, None));
    assert_ne!(first.incarnation, Incarnation(0));
    let state = HardState {
        term: Term(u64::MAX),
        voted_for: Some(NodeId(u32::MAX)),
        cluster_id: Some(ClusterId(u128::MAX)),
        met: (1..=7).map(|n| (NodeId(n), (Incarnation(u64::MAX - 5), Life(u64::from(n))))).collect(),
        ..first
    };
    storage.hard_state.store(&state).unwrap();
    let found = open_ok(&disk.crash(Unflushed::Lost)).recovered.state;
    assert_eq!(found.life.count(), 2);
    assert_eq!(found, HardState { life: found.life, ..state });
}

#[test]
fn each_new_directory_is_another_incarnation() {
    let of_seed = |seed| open_with(&SimulatedDisk::new(), seed).unwrap().recovered.state.incarnation;
    assert_eq!(of_seed(1), of_seed(1));
    assert_ne!(of_seed(1), of_seed(2));
}

#[test]
#[should_panic(expected = "the entry's place in the log")]
fn a_gap_is_a_bug_of_the_caller() {
    let mut storage = open_ok(&SimulatedDisk::new());
    let _ = storage.log.append(&[append(2, 1, 10)]);
}

#[test]
#[should_panic(expected = "behind")]
fn a_falling_term_is_a_bug_of_the_caller() {
    let mut storage = open_ok(&SimulatedDisk::new());
    let _ = storage.log.append(&[append(1, 2, 10), append(2, 1, 10)]);
}

#[test]
#[should_panic(expected = "a truncation without an append")]
fn a_truncation_alone_is_a_bug_of_the_caller() {
    let mut storage = open_ok(&SimulatedDisk::new());
    let _ = storage.log.append(&[append(1, 2, 10), LogChange::TruncateFrom(LogIndex(1))]);
}
