//! Logs that begin behind a checkpoint.

use fsd_wire::EntryId;

use super::*;
use crate::simulated_disk::SECTOR_BYTES;
use crate::storage::kept::{KeptWriter, kept_bytes};
use crate::storage::segment::{anew_checkpoint_name, checkpoint_name, file_name};
use crate::storage::{CheckpointHead, CheckpointWriter, LogBase, NoImage, Position, SegmentId, Spare};

const BODY: &[u8] = b"what a store is made of";

/// A log of so many entries of term 1 over several segments, all flushed.
fn log_of(disk: &SimulatedDisk, entries: u64) -> Storage<SimulatedDisk> {
    let mut storage = open_ok(disk);
    for index in 1..=entries {
        storage.log.append(&[append(index, 1, 1000)]).unwrap();
    }
    storage.log.flush().unwrap();
    storage
}

fn id(index: u64) -> EntryId {
    EntryId { term: Term(1), index: LogIndex(index) }
}

/// A checkpoint as of an entry of the log, with contents in these segments.
fn head_behind(storage: &Storage<SimulatedDisk>, index: u64, segments: &[u32]) -> CheckpointHead {
    head_with(storage.log.base_behind(id(index)).unwrap(), segments)
}

fn head_with(base: LogBase, segments: &[u32]) -> CheckpointHead {
    CheckpointHead {
        salt: base.entry.index.0 + 77,
        identity: identity(),
        entry: base.entry,
        stamp: base.stamp,
        log_end: base.end,
        genesis: None,
        registrations: Vec::new(),
        segments: segments.iter().copied().map(SegmentId).collect(),
        revision: 1,
        files: 1,
        sessions: 0,
        body_bytes: BODY.len() as u64,
        begins_anew: false,
    }
}

fn write(disk: &SimulatedDisk, head: &CheckpointHead) {
    let mut writer = CheckpointWriter::create(disk, head).unwrap();
    writer.append(BODY).unwrap();
    writer.finish().unwrap();
}

fn segment_names(disk: &SimulatedDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

/// The log behind its base is `index..=last`, and reads back as it was written.
fn assert_log(storage: &Storage<SimulatedDisk>, index: u64, last: u64) {
    assert_eq!((storage.log.first_index(), storage.log.last_index()), (LogIndex(index), LogIndex(last)));
    for index in index..=last {
        assert_eq!(storage.log.entry(LogIndex(index)).unwrap(), entry(index, 1, 1000));
    }
}

#[test]
fn a_log_goes_on_behind_a_checkpoint() {
    for index in 1..=20 {
        let disk = SimulatedDisk::new();
        let storage = log_of(&disk, 20);
        let head = head_behind(&storage, index, &[]);
        write(&disk, &head);
        drop(storage);
        let mut storage = open_ok(&disk);
        assert_log(&storage, index + 1, 20);
        assert_eq!(*storage.log.base(), head.base());
        let log = &storage.recovered.log;
        assert_eq!((log.base, log.committed, log.last_index), (id(index), LogIndex(index), LogIndex(20)));
        // Nothing refers to the segments before.
        assert!(segment_names(&disk).iter().all(|name| *name >= file_name(head.log_end.segment())));
        storage.log.append(&[append(21, 1, 1000)]).unwrap();
        storage.log.flush().unwrap();
        drop(storage);
        assert_log(&open_ok(&disk), index + 1, 21);
    }
}

#[test]
fn the_log_reaches_back_to_the_older_of_two_checkpoints() {
    let disk = SimulatedDisk::new();
    let storage = log_of(&disk, 20);
    for index in [3, 9, 15] {
        write(&disk, &head_behind(&storage, index, &[]));
    }
    drop(storage);
    let storage = open_ok(&disk);
    assert_log(&storage, 10, 20);
    assert_eq!(storage.recovered.log.committed, LogIndex(15));
    let indexes: Vec<u64> = storage.recovered.checkpoints.iter().map(|head| head.entry.index.0).collect();
    assert_eq!(indexes, [9, 15]);
    assert!(!disk.list().unwrap().contains(&checkpoint_name(LogIndex(3))), "it is of no use any more");
}

#[test]
fn segments_stay_for_the_contents_in_them() {
    let disk = SimulatedDisk::new();
    let storage = log_of(&disk, 20);
    let place = storage.log.position(LogIndex(2));
    assert_eq!(place.segment(), SegmentId(1));
    write(&disk, &head_behind(&storage, 15, &[1]));
    drop(storage);
    let mut storage = open_ok(&disk);
    assert_eq!(storage.log.entry_at(place).unwrap(), entry(2, 1, 1000));
    let kept: Vec<_> = storage.log.contents_segments().map(|segment| segment.id).collect();
    assert_eq!(kept, [SegmentId(1)]);
    let name = storage.log.release(SegmentId(1)).name();
    assert_eq!(name, file_name(SegmentId(1)));
    // Without it, the checkpoint is of no use.
    disk.remove(&name).unwrap();
    drop(storage);
    assert!(matches!(open_error(&disk), StorageError::MissingSegment { .. }));
}

#[test]
fn kept_segments_count_as_long_as_a_checkpoint_refers_to_them() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 20);
    let entries = [entry(4, 1, 1000), entry(2, 1, 0)];
    let header = storage.log.kept_header(kept_bytes(entries.iter().map(|entry| entry.payload.len())));
    let id = header.id;
    let mut writer = KeptWriter::create(&disk, header).unwrap();
    let places: Vec<Position> = entries.iter().map(|entry| writer.add(entry).unwrap()).collect();
    assert!(writer.fits(1000) && !writer.fits(4096));
    storage.log.install_kept(writer.finish().unwrap());
    let read = |storage: &Storage<SimulatedDisk>| {
        places.iter().map(|place| storage.log.entry_at(*place).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(read(&storage), entries);
    write(&disk, &head_behind(&storage, 15, &[id.0]));
    drop(storage);
    let storage = open_ok(&disk);
    assert_eq!(read(&storage), entries);
    assert_log(&storage, 16, 20);
    write(&disk, &head_behind(&storage, 17, &[]));
    write(&disk, &head_behind(&storage, 18, &[]));
    drop(storage);
    drop(open_ok(&disk));
    assert!(!segment_names(&disk).contains(&file_name(id)), "nothing refers to it");
}

#[test]
fn what_the_segments_take_is_told_by_what_they_are_for() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 20);
    let all = 7 * SEGMENT_BYTES;
    assert_eq!((storage.log.log_bytes(), storage.log.contents_bytes()), (all, 0));
    let spare = storage.log.wants_spare().unwrap().prepare(&disk).unwrap();
    storage.log.install_spare(spare).unwrap();
    assert_eq!(storage.log.log_bytes(), all + SEGMENT_BYTES);
    // What is left behind counts for the contents in it, until it is let go.
    let base = storage.log.base_behind(id(5)).unwrap();
    assert_eq!(base.end.segment(), SegmentId(2));
    storage.log.trim(base);
    assert_eq!((storage.log.log_bytes(), storage.log.contents_bytes()), (all, SEGMENT_BYTES));
    let header = storage.log.kept_header(kept_bytes([5000].into_iter()));
    let kept = KeptWriter::create(&disk, header).unwrap().finish().unwrap();
    storage.log.install_kept(kept);
    let kept_bytes = 3 * 4096;
    assert_eq!(storage.log.contents_bytes(), SEGMENT_BYTES + kept_bytes);
    assert_eq!(storage.log.log_bytes() + storage.log.contents_bytes() + 8192, disk.used_bytes());
    storage.log.release(SegmentId(1));
    assert_eq!(storage.log.contents_bytes(), kept_bytes);
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_older_one() {
    let disk = SimulatedDisk::new();
    let storage = log_of(&disk, 20);
    write(&disk, &head_behind(&storage, 9, &[]));
    write(&disk, &head_behind(&storage, 15, &[]));
    drop(storage);
    disk.rot(&checkpoint_name(LogIndex(15)), SECTOR_BYTES + 40, 1);
    let storage = open_ok(&disk);
    assert_log(&storage, 10, 20);
    assert_eq!(storage.recovered.log.committed, LogIndex(9));
    let report = storage.recovered.report.join("\n");
    assert!(report.contains("a checkpoint does not count: "), "{report}");
    assert!(!disk.list().unwrap().contains(&checkpoint_name(LogIndex(15))));
}

#[test]
fn a_damaged_checkpoint_for_which_nothing_stands_stops_the_start() {
    // The log no longer reaches back to its beginning.
    let disk = SimulatedDisk::new();
    let storage = log_of(&disk, 20);
    write(&disk, &head_behind(&storage, 15, &[]));
    drop(storage);
    drop(open_ok(&disk));
    disk.rot(&checkpoint_name(LogIndex(15)), SECTOR_BYTES + 40, 1);
    let before = disk.list().unwrap();
    assert!(
        matches!(open_error(&disk), StorageError::Damage { file, .. } if file.starts_with("checkpoint-"))
    );
    assert_eq!(disk.list().unwrap(), before, "nothing was touched");
    // There is no log at all: the checkpoint came from another node.
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    let base = storage.log.base_for(id(15), ClusterTimeMs(1000));
    write(&disk, &CheckpointHead { begins_anew: true, ..head_with(base, &[]) });
    drop(storage);
    assert_eq!(open_ok(&disk).recovered.log.last_index, LogIndex(15));
    disk.rot(&anew_checkpoint_name(LogIndex(15)), SECTOR_BYTES + 40, 1);
    assert!(
        matches!(open_error(&disk), StorageError::Damage { file, .. } if file.starts_with("checkpoint-"))
    );
}

#[test]
fn no_older_checkpoint_stands_for_one_from_which_the_log_begins_anew() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 20);
    write(&disk, &head_behind(&storage, 5, &[]));
    // The log of before reaches further, but is not that of the others.
    let base = storage.log.base_for(id(15), ClusterTimeMs(1000));
    write(&disk, &CheckpointHead { begins_anew: true, ..head_with(base, &[]) });
    drop(storage);
    disk.rot(&anew_checkpoint_name(LogIndex(15)), 3, 1);
    assert!(matches!(open_error(&disk), StorageError::Damage { file, .. } if file.ends_with("-anew")));
}

#[test]
fn a_log_that_begins_anew_has_nothing_of_the_one_before() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 20);
    write(&disk, &head_behind(&storage, 5, &[]));
    let spare = storage.log.wants_spare().expect("the last one is used").prepare(&disk).unwrap();
    let spare_name = spare.name();
    storage.log.install_spare(spare).unwrap();
    let base = storage.log.base_for(id(50), ClusterTimeMs(1000));
    assert!(storage.log.base_is_free(&base));
    write(&disk, &CheckpointHead { begins_anew: true, ..head_with(base, &[]) });
    let too_low: Vec<String> = storage.log.begin_anew(base).iter().map(Spare::name).collect();
    assert_eq!(too_low, [spare_name]);
    let go_on = |storage: &mut Storage<SimulatedDisk>, index| {
        storage.log.append(&[append(index, 1, 1000)]).unwrap();
        storage.log.flush().unwrap();
    };
    go_on(&mut storage, 51);
    assert_log(&storage, 51, 51);
    drop(storage);
    let mut storage = open_ok(&disk);
    assert_log(&storage, 51, 51);
    assert!(!disk.list().unwrap().contains(&checkpoint_name(LogIndex(5))));
    assert!(segment_names(&disk).iter().all(|name| *name > file_name(base.end.segment())));
    go_on(&mut storage, 52);
    drop(storage);
    assert_log(&open_ok(&disk), 51, 52);
}

/// What a start would do, which changes nothing.
fn prospect(disk: &SimulatedDisk) -> Vec<String> {
    let before = (disk.operations(), disk.list().unwrap());
    let report = crate::storage::check(disk, &identity(), &mut NoImage).unwrap();
    assert_eq!((disk.operations(), disk.list().unwrap()), before);
    report
}

#[test]
fn a_check_tells_what_a_start_would_do() {
    let disk = SimulatedDisk::new();
    let storage = log_of(&disk, 20);
    let heads = [3, 9, 15].map(|index| head_behind(&storage, index, &[1]));
    let behind = storage.log.bytes_behind(heads[2].log_end);
    heads.iter().for_each(|head| write(&disk, head));
    drop(storage);
    disk.write("checkpoint-00000000000000ff.tmp", vec![1]);
    let names = heads.each_ref().map(CheckpointHead::name);
    let bytes = heads[2].file_bytes();
    let newest = format!(
        "checkpoint: a start uses {}, of 1 files and 0 sessions as of entry 15 of term 1, {bytes} bytes",
        names[2]
    );
    let expected = [
        newest.as_str(),
        &format!("checkpoint: {} stands for it, as of entry 9, should it be damaged", names[1]),
        &format!("{}: would be removed: newer ones count", names[0]),
        "log: 5 segments, entries 10 to 20, the last of term 1, 0 superseded records",
        &format!("log: 5 entries would be applied again, {} bytes of records from entry 16 on", 5 * 1064),
        "contents: 1 segments besides the log, 8192 bytes, to which a checkpoint refers",
        "segment-0000000000000002.fsd: would be removed: a checkpoint stands for it",
        "checkpoint-00000000000000ff.tmp: would be removed: it was being made ready",
    ];
    let told = prospect(&disk);
    for line in expected {
        assert!(told.iter().any(|found| found == line), "{line} in {told:#?}");
    }
    assert_eq!(told.len(), expected.len() + 1);
    assert!(behind >= 5 * 1064);

    // A newer one that is damaged is named, with what is wrong; the next one is used.
    disk.rot(&names[2], SECTOR_BYTES + 40, 1);
    let told = prospect(&disk);
    assert!(told[0].contains(&format!("a start uses {}", names[1])), "{told:#?}");
    let why = format!("checkpoint: a newer one does not count: {}: damaged at offset 548: ", names[2]);
    assert!(told.iter().any(|line| line.starts_with(&why)), "{told:#?}");
    assert!(
        told.contains(
            &"log: 11 entries would be applied again, 11704 bytes of records from entry 10 on".to_owned()
        ),
        "{told:#?}"
    );
    let removed = format!("{}: would be removed: it is damaged", names[2]);
    assert!(told.iter().any(|line| line.starts_with(&removed)), "{told:#?}");
    // And a start does just that.
    drop(open_ok(&disk));
    let left = disk.list().unwrap();
    assert!(left.contains(&names[1]) && left.contains(&names[0]) && !left.contains(&names[2]), "{left:?}");
}

#[test]
fn a_kept_segment_without_its_block_is_damaged_and_not_missing() {
    let disk = SimulatedDisk::new();
    let mut storage = log_of(&disk, 20);
    let header = storage.log.kept_header(kept_bytes([1000].into_iter()));
    let mut writer = KeptWriter::create(&disk, header).unwrap();
    writer.add(&entry(4, 1, 1000)).unwrap();
    let kept = writer.finish().unwrap();
    write(&disk, &head_behind(&storage, 15, &[kept.id().0]));
    drop(storage);
    disk.rot(&kept.name(), 512 + 20, 1);
    let StorageError::Damage { file, offset, .. } = open_error(&disk) else { panic!("it is damage") };
    assert_eq!((file, offset), (kept.name(), 512));
}
