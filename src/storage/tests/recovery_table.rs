//! The recovery table of `docs/disk-format.md`, a test per row.

use fsd_wire::{LogIndex, Payload, Term};

use super::*;
use crate::mapping::MappedFile;
use crate::simulated_disk::Unflushed;
use crate::storage::NoImage;
use crate::storage::hard_state::HARD_STATE_NAME;
use crate::storage::segment::{self, Activation, Position, SegmentHeader, SegmentId, file_name};

fn name(id: u32) -> String {
    file_name(SegmentId(id))
}

fn change(disk: &SimulatedDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read(name).unwrap_or_else(|| panic!("no file {name}"));
    change(&mut bytes);
    disk.write(name, bytes);
}

fn flip(disk: &SimulatedDisk, name: &str, offset: u64) {
    change(disk, name, |bytes| bytes[offset as usize] ^= 1);
}

/// A copy that can be spoilt.
fn copy(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.crash(Unflushed::Kept)
}

/// Appends and flushes entries of the given payload sizes, each with a flush of its own.
fn extend(storage: &mut Storage<SimulatedDisk>, sizes: &[usize]) {
    for size in sizes {
        let index = storage.log.last_index().0 + 1;
        storage.log.append(&[append(index, 1, *size)]).unwrap();
        storage.log.flush().unwrap();
    }
}

/// A disk with three segments of three entries each: 1-3, 4-6, 7-9.
fn three_segments() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[1200; 9]);
    assert_eq!(storage.log.segment_count(), 3);
    assert_eq!(storage.log.position(LogIndex(7)), Position::new(SegmentId(3), 4096));
    copy(&disk)
}

/// A disk with one segment of flushed entries, and where the log ends.
fn one_segment(sizes: &[usize]) -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, sizes);
    let end: u64 = 4096 + sizes.iter().map(|size| segment::record_bytes(*size)).sum::<u64>();
    (copy(&disk), end)
}

fn assert_damage(disk: &SimulatedDisk, expected_file: &str, expected_offset: u64) {
    let error = open_error(disk);
    let StorageError::Damage { file, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((file.as_str(), *offset), (expected_file, expected_offset), "{error}");
    let text = error.to_string();
    assert!(text.contains(expected_file) && text.contains(&expected_offset.to_string()), "{text}");
}

/// The log of `disk` has `count` entries; a second life on it goes on, and a third finds all of it.
fn assert_recovers(disk: &SimulatedDisk, count: u64) {
    let mut storage = open_ok(disk);
    assert_eq!(storage.log.last_index(), LogIndex(count), "{:?}", storage.recovered.report);
    assert_eq!(storage.recovered.log.last_index, LogIndex(count));
    for (index, found) in (1..).zip(entries(&storage)) {
        assert_eq!(found.index, LogIndex(index));
    }
    let next = Entry { stamp: ClusterTimeMs(u64::MAX / 2), ..entry(count + 1, 9, 50) };
    storage.log.append(&[LogChange::Append(next.clone())]).unwrap();
    storage.log.flush().unwrap();
    drop(storage);
    let storage = open_ok(&disk.crash(Unflushed::Lost));
    assert_eq!(storage.log.last_index(), LogIndex(count + 1), "{:?}", storage.recovered.report);
    assert_eq!(storage.log.entry(LogIndex(count + 1)).unwrap(), next);
}

fn report_names_a_torn_tail(disk: &SimulatedDisk, file: &str, offset: u64) -> bool {
    let report = super::super::check(disk, &identity(), &mut NoImage).unwrap();
    let cut = format!("torn tail, would be cut at offset {offset}:");
    report.iter().any(|line| line.contains(file) && line.contains(&cut))
}

#[test]
fn an_empty_directory_becomes_a_new_node() {
    assert_recovers(&SimulatedDisk::new(), 0);
}

#[test]
fn a_log_that_ends_in_zeros_goes_on_in_the_same_segment() {
    let (disk, _) = one_segment(&[10, 20, 30]);
    assert_recovers(&disk, 3);
    assert!(disk.read(&name(2)).is_none());
}

#[test]
fn torn_tails_are_cut_and_never_written_over() {
    type Tear = fn(&mut [u8]);
    let torn: &[(&str, Tear)] = &[
        ("a tag alone", |tail| tail[..4].copy_from_slice(b"fsdR")),
        ("a bit", |tail| tail[17] = 1),
        ("a byte far behind", |tail| tail[2000] = 1),
        ("the last byte of the file", |tail| *tail.last_mut().unwrap() = 1),
        ("ones", |tail| tail.fill(0xff)),
        ("noise", |tail| fastrand::Rng::with_seed(1).fill(tail)),
    ];
    for (what, tear) in torn {
        let (disk, end) = one_segment(&[10, 20, 30]);
        change(&disk, &name(1), |bytes| tear(&mut bytes[end as usize..]));
        assert!(report_names_a_torn_tail(&disk, &name(1), end), "{what}");
        let before = disk.read(&name(1)).unwrap();
        assert_recovers(&disk, 3);
        assert_eq!(disk.read(&name(1)).unwrap(), before, "{what}");
        assert_recovers(&disk, 4);
    }
}

#[test]
fn a_record_of_which_any_part_is_missing_is_a_torn_tail() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[100, 200]);
    let place = storage.log.position(LogIndex(2));
    drop(storage);
    let start = place.offset() as usize;
    // The payload ends with a zero byte in places: a cut there changes nothing, and is none.
    let whole = disk.read(&name(1)).unwrap();
    let length = segment::RECORD_HEAD_BYTES + 200;
    for cut in 0..length {
        let spoilt = copy(&disk);
        change(&spoilt, &name(1), |bytes| bytes[start + cut..].fill(0));
        let is_same = spoilt.read(&name(1)).unwrap() == whole;
        assert_recovers(&spoilt, if is_same { 2 } else { 1 });
        let spoilt = copy(&disk);
        change(&spoilt, &name(1), |bytes| bytes[start..=start + cut].fill(0));
        assert_recovers(&spoilt, 1);
    }
}

#[test]
fn later_records_of_the_same_unfinished_flush_fall_with_the_first() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[100]);
    storage.log.append(&[append(2, 1, 100), append(3, 1, 100), append(4, 1, 100)]).unwrap();
    let place = storage.log.position(LogIndex(2)).offset();
    let spoilt = copy(&disk);
    flip(&spoilt, &name(1), u64::from(place));
    assert_recovers(&spoilt, 1);
    // The whole records behind the cut stay where they are, and are never taken up again.
    assert_recovers(&spoilt, 2);
}

#[test]
fn a_torn_tail_that_was_cut_is_no_damage_later() {
    let (disk, end) = one_segment(&[10, 20]);
    change(&disk, &name(1), |bytes| bytes[end as usize + 100] = 7);
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[1000; 9]);
    assert!(storage.log.segment_count() > 3);
    drop(storage);
    assert_recovers(&disk.crash(Unflushed::Lost), 11);
    assert!(!report_names_a_torn_tail(&disk, &name(1), end));
}

#[test]
fn a_former_lifes_records_are_not_read() {
    // The same entries at the same places, under another salt: what a recycled file would hold.
    let make = |seed| {
        let disk = SimulatedDisk::new();
        let mut storage = open_with(&disk, seed).unwrap();
        extend(&mut storage, &[100; 5]);
        disk
    };
    let (former, present) = (make(1), make(2));
    let old = former.read(&name(1)).unwrap();
    let end = 4096 + 2 * segment::record_bytes(100) as usize;
    change(&present, &name(1), |bytes| bytes[end..].fill(0));
    let clean = copy(&present);
    change(&present, &name(1), |bytes| bytes[end..].copy_from_slice(&old[end..]));
    assert_recovers(&present, 2);
    // Not even the whole of it behind a good header and activation.
    change(&clean, &name(1), |bytes| bytes[4096..].copy_from_slice(&old[4096..]));
    assert_recovers(&clean, 0);
}

#[test]
fn a_record_of_another_place_is_not_read() {
    let (disk, end) = one_segment(&[100, 100]);
    let len = segment::record_bytes(100) as usize;
    change(&disk, &name(1), |bytes| bytes.copy_within(4096..4096 + len, end as usize));
    assert_recovers(&disk, 2);
}

#[test]
fn damage_below_the_durable_mark_stops_the_start() {
    let disk = three_segments();
    let len = segment::record_bytes(1200);
    for id in 1..=3 {
        for record in 0..3 {
            let place = 4096 + record * len;
            // The very last record has nothing behind it that proves it: see the next test.
            if (id, record) == (3, 2) {
                continue;
            }
            for byte in [0, 4, 8, 16, 24, 32, 40, 48, 52, 56, 60, 64, 1000, 1263] {
                let spoilt = copy(&disk);
                flip(&spoilt, &name(id), place + byte);
                assert_damage(&spoilt, &name(id), place);
            }
            let spoilt = copy(&disk);
            let range = place as usize..(place + len) as usize;
            change(&spoilt, &name(id), |bytes| bytes[range].fill(0));
            assert_damage(&spoilt, &name(id), place);
        }
    }
}

#[test]
fn what_was_there_at_the_last_start_is_durable() {
    // Nothing behind the last record proves it, but the hard state of the second life does.
    let disk = three_segments();
    let place = 4096 + 2 * segment::record_bytes(1200);
    let spoilt = copy(&disk);
    flip(&spoilt, &name(3), place + 70);
    assert_recovers(&spoilt, 8);
    drop(open_ok(&disk));
    flip(&disk, &name(3), place + 70);
    assert_damage(&disk, &name(3), place);
}

#[test]
fn a_damaged_segment_head_stops_the_start() {
    let disk = three_segments();
    for id in 1..=3 {
        for byte in (0..512).filter(|byte| !(8..12).contains(byte)) {
            let spoilt = copy(&disk);
            flip(&spoilt, &name(id), byte);
            assert_damage(&spoilt, &name(id), 0);
        }
        for byte in 512..576 {
            let spoilt = copy(&disk);
            flip(&spoilt, &name(id), byte);
            assert_damage(&spoilt, &name(id), 512);
        }
        // What no field uses harms nothing.
        let spoilt = copy(&disk);
        flip(&spoilt, &name(id), 3000);
        assert_recovers(&spoilt, 9);
    }
}

#[test]
fn half_a_header_stops_the_start_unless_it_has_no_name_yet() {
    let disk = three_segments();
    let header = disk.read(&name(3)).unwrap();
    for len in [0, 1, 8, 100, 511, 512, 4095, 4096, 8191] {
        let spoilt = copy(&disk);
        spoilt.write(&name(3), header[..len].to_vec());
        assert_damage(&spoilt, &name(3), 0);
        let harmless = copy(&disk);
        harmless.write("segment-0000000000000004.tmp", header[..len].to_vec());
        assert_recovers(&harmless, 9);
        assert!(harmless.read("segment-0000000000000004.tmp").is_none());
    }
    let spoilt = copy(&disk);
    spoilt.write(&name(3), vec![0; 8192]);
    assert_damage(&spoilt, &name(3), 0);
}

#[test]
fn a_missing_segment_stops_the_start() {
    let disk = three_segments();
    drop(open_ok(&disk));
    for id in 1..=3 {
        let spoilt = copy(&disk);
        spoilt.lose(&name(id));
        let error = open_error(&spoilt);
        let StorageError::MissingSegment { file, .. } = &error else { panic!("{error}") };
        assert_eq!(*file, name(id));
    }
    for id in 1..=3 {
        disk.lose(&name(id));
    }
    assert!(matches!(open_error(&disk), StorageError::MissingSegment { .. }));
}

#[test]
fn a_missing_hard_state_stops_the_start_if_there_is_a_log() {
    let disk = three_segments();
    disk.lose(HARD_STATE_NAME);
    let error = open_error(&disk);
    assert!(matches!(error, StorageError::MissingHardState { .. }), "{error}");
}

#[test]
fn name_and_header_must_agree() {
    let disk = three_segments();
    let spoilt = copy(&disk);
    spoilt.write(&name(9), disk.read(&name(3)).unwrap());
    assert_damage(&spoilt, &name(9), 0);
    let spoilt = copy(&disk);
    spoilt.write(&name(1), disk.read(&name(2)).unwrap());
    assert_damage(&spoilt, &name(1), 0);
    for bad in
        ["segment-1.fsd", "segment-0000000000000000.fsd", "segment-00000000000000AB.fsd", "segment-.fsd"]
    {
        let spoilt = copy(&disk);
        spoilt.write(bad, disk.read(&name(3)).unwrap());
        assert_damage(&spoilt, bad, 0);
    }
    let harmless = copy(&disk);
    harmless.write("lost+found", vec![1]);
    assert_recovers(&harmless, 9);
    assert!(harmless.read("lost+found").is_some());
}

#[test]
fn another_nodes_directory_is_left_alone() {
    let disk = three_segments();
    let others = [
        DirectoryIdentity { node: NodeId(4), ..identity() },
        DirectoryIdentity { cluster: "other".to_owned(), ..identity() },
    ];
    for other in &others {
        let before = disk.operations();
        let refused = super::super::open(disk.clone(), other, SEGMENT_BYTES, &mut || 1);
        assert!(matches!(refused, Err(StorageError::WrongDirectory { .. })));
        assert_eq!(disk.operations(), before);
        // A segment of theirs among ours.
        let theirs = SimulatedDisk::new();
        let mut storage = super::super::open(theirs.clone(), other, SEGMENT_BYTES, &mut || 1).unwrap();
        storage.log.append(&[append(1, 1, 10)]).unwrap();
        let spoilt = copy(&disk);
        spoilt.write(&name(1), theirs.read(&name(1)).unwrap());
        let error = open_error(&spoilt);
        let StorageError::WrongDirectory { file, found, expected } = &error else { panic!("{error}") };
        assert_eq!((file, found, expected), (&name(1), other, &identity()));
    }
}

#[test]
fn an_unknown_format_version_is_not_touched() {
    let disk = three_segments();
    let spoilt = copy(&disk);
    change(&spoilt, &name(2), |bytes| bytes[8] = 2);
    let error = open_error(&spoilt);
    assert!(
        matches!(&error, StorageError::UnknownFormat { file, version: 2 } if *file == name(2)),
        "{error}"
    );
    let spoilt = copy(&disk);
    change(&spoilt, HARD_STATE_NAME, |bytes| (bytes[8], bytes[4096 + 8]) = (2, 2));
    let error = open_error(&spoilt);
    assert!(matches!(&error, StorageError::UnknownFormat { version: 2, .. }), "{error}");
    assert_eq!(spoilt.operations(), 0);
}

#[test]
fn a_segment_that_was_rolled_into_but_never_flushed_is_removed() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[1200; 3]);
    storage.log.append(&[append(4, 1, 1200), append(5, 1, 1200)]).unwrap();
    let with_second = copy(&disk);
    // The activation block alone.
    let spoilt = copy(&with_second);
    change(&spoilt, &name(2), |bytes| bytes[4096..].fill(0));
    assert_recovers(&spoilt, 3);
    // Records alone, whole ones even.
    let spoilt = copy(&with_second);
    change(&spoilt, &name(2), |bytes| bytes[512..4096].fill(0));
    assert_recovers(&spoilt, 3);
    // The activation block, and a second record without the first.
    let spoilt = copy(&with_second);
    change(&spoilt, &name(2), |bytes| bytes[4096..4200].fill(0));
    assert_recovers(&spoilt, 3);
    // All of it: then it counts.
    assert_recovers(&with_second, 5);
}

#[test]
fn a_segment_without_records_still_proves_the_one_before_it() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[1200; 3]);
    storage.log.append(&[append(4, 1, 1200)]).unwrap();
    change(&disk, &name(2), |bytes| bytes[4096..].fill(0));
    let last = 4096 + 2 * segment::record_bytes(1200);
    flip(&disk, &name(1), last + 100);
    assert_damage(&disk, &name(1), last);
}

#[test]
fn a_spare_is_removed() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[1200; 2]);
    let request = storage.log.wants_spare().unwrap();
    request.prepare(&disk).unwrap();
    drop(storage);
    assert!(disk.read(&name(2)).is_some());
    let crashed = disk.crash(Unflushed::Lost);
    assert!(crashed.read(&name(2)).is_some());
    let mut random = fastrand::Rng::with_seed(8);
    drop(open(crashed.clone(), &identity(), SEGMENT_BYTES, &mut || random.u64(..)).unwrap());
    assert!(crashed.read(&name(2)).is_none());
    assert!(crashed.crash(Unflushed::Lost).read(&name(2)).is_none(), "the removal is durable");
    assert_recovers(&disk, 2);
}

#[test]
fn temporary_files_are_removed() {
    let (disk, _) = one_segment(&[10]);
    disk.write("hard-state.tmp", vec![1, 2, 3]);
    disk.write("segment-0000000000000001.tmp", vec![0; 8192]);
    disk.write("segment-0000000000000002.tmp", Vec::new());
    assert_recovers(&disk, 1);
    let names = disk.list().unwrap();
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
}

#[test]
fn superseding_records_take_the_places_of_earlier_ones() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[1000; 8]);
    storage
        .log
        .append(&[LogChange::TruncateFrom(LogIndex(2)), append(2, 2, 1000), append(3, 2, 1000)])
        .unwrap();
    storage.log.append(&[LogChange::TruncateFrom(LogIndex(3)), append(3, 3, 1000)]).unwrap();
    storage.log.flush().unwrap();
    drop(storage);
    let storage = open_ok(&disk);
    assert_eq!(entries(&storage), [entry(1, 1, 1000), entry(2, 2, 1000), entry(3, 3, 1000)]);
    assert!(storage.recovered.report[0].contains("8 superseded"), "{:?}", storage.recovered.report);
    drop(storage);
    assert_recovers(&disk, 3);
}

/// A segment made by hand, with records of any index, term and stamp.
fn forge(records: &[(u64, u64, u64)]) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    drop(open_ok(&disk));
    let header = SegmentHeader { id: SegmentId(1), salt: 77, len_bytes: SEGMENT_BYTES, identity: identity() };
    let mut file = disk.create(&name(1), SEGMENT_BYTES).unwrap();
    let activation = Activation {
        first_index: LogIndex(records[0].0),
        previous_end: Position::default(),
        previous_last: Default::default(),
        previous_stamp: ClusterTimeMs(0),
    };
    file.store(0, &header.encode());
    file.store(512, &activation.encode(&header));
    let mut offset = 4096;
    for (index, term, stamp) in records {
        let forged = Entry {
            index: LogIndex(*index),
            term: Term(*term),
            stamp: ClusterTimeMs(*stamp),
            payload: Payload::default(),
            ..entry(1, 1, 0)
        };
        segment::store_record(
            &mut file,
            77,
            Position::default(),
            Position::new(SegmentId(1), offset),
            &forged,
        );
        offset += 64;
    }
    disk
}

#[test]
fn entries_that_do_not_follow_each_other_stop_the_start() {
    assert_eq!(open_ok(&forge(&[(1, 1, 1), (2, 1, 1), (2, 2, 5)])).log.last_index(), LogIndex(2));
    assert_damage(&forge(&[(1, 1, 1), (3, 1, 1)]), &name(1), 4096 + 64);
    assert_damage(&forge(&[(2, 1, 1)]), &name(1), 4096);
    assert_damage(&forge(&[(0, 1, 1)]), &name(1), 4096);
    // Terms, then stamps, that fall: behind the last entry, and behind the one that a record takes up again.
    assert_damage(&forge(&[(1, 2, 1), (2, 1, 1)]), &name(1), 4096 + 64);
    assert_damage(&forge(&[(1, 2, 1), (2, 2, 1), (2, 1, 1)]), &name(1), 4096 + 128);
    assert_damage(&forge(&[(1, 2, 5), (2, 2, 4)]), &name(1), 4096 + 64);
    assert_damage(&forge(&[(1, 2, 5), (2, 2, 6), (2, 2, 4)]), &name(1), 4096 + 128);
    // A record that calls what comes behind it durable.
    let disk = forge(&[(1, 1, 1), (2, 1, 1)]);
    let mut file = disk.open(&name(1)).unwrap();
    let place = |offset| Position::new(SegmentId(1), offset);
    segment::store_record(&mut file, 77, place(4096 + 128), place(4096 + 64), &entry(2, 1, 0));
    assert_damage(&disk, &name(1), 4096 + 64);
}

#[test]
fn the_log_before_a_segment_must_be_as_its_activation_says() {
    let disk = three_segments();
    let file = disk.open(&name(2)).unwrap();
    let header = SegmentHeader::read(&file, SegmentId(2)).unwrap().unwrap();
    let activation = Activation::read(&file, &header).unwrap().unwrap();
    let end = activation.previous_end;
    let rewrite = |activation: Activation| {
        let spoilt = copy(&disk);
        let block = activation.encode(&header);
        change(&spoilt, &name(2), |bytes| bytes[512..512 + block.len()].copy_from_slice(&block));
        spoilt
    };
    assert_recovers(&rewrite(activation), 9);
    let mut other = activation;
    other.previous_last.index = LogIndex(2);
    assert_damage(&rewrite(other), &name(2), 512);
    let mut other = activation;
    other.previous_last.term = Term(2);
    assert_damage(&rewrite(other), &name(2), 512);
    assert_damage(&rewrite(Activation { previous_stamp: ClusterTimeMs(1), ..activation }), &name(2), 512);
    assert_damage(&rewrite(Activation { first_index: LogIndex(3), ..activation }), &name(2), 4096);
    // Another end of the segment before: in the middle of its last record, behind it, and outside the file.
    let at = |offset| Position::new(SegmentId(1), offset);
    let last = end.offset() - segment::record_bytes(1200) as u32;
    let middle = rewrite(Activation { previous_end: at(end.offset() - 8), ..activation });
    assert_damage(&middle, &name(1), u64::from(last));
    let behind = rewrite(Activation { previous_end: at(end.offset() + 8), ..activation });
    assert_damage(&behind, &name(1), u64::from(end.offset()));
    let outside = rewrite(Activation { previous_end: at(u32::MAX), ..activation });
    assert_damage(&outside, &name(1), u64::from(end.offset()));
    // Another segment than the one before.
    let itself = Activation { previous_end: Position::new(SegmentId(2), 4096), ..activation };
    assert_damage(&rewrite(itself), &name(2), 512);
    let later = Activation { previous_end: Position::new(SegmentId(7), 4096), ..activation };
    assert_damage(&rewrite(later), &name(2), 512);
    let none = Activation { previous_end: Position::default(), ..activation };
    assert_damage(&rewrite(none), &name(2), 512);
}

#[test]
fn a_full_segment_cannot_go_on_behind_its_file() {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    extend(&mut storage, &[8192 - 4096 - 64, 10]);
    drop(storage);
    let file = disk.open(&name(2)).unwrap();
    let header = SegmentHeader::read(&file, SegmentId(2)).unwrap().unwrap();
    let activation = Activation::read(&file, &header).unwrap().unwrap();
    assert_eq!(activation.previous_end, Position::new(SegmentId(1), 8192));
    let previous_end = Position::new(SegmentId(1), 8200);
    let block = Activation { previous_end, ..activation }.encode(&header);
    change(&disk, &name(2), |bytes| bytes[512..512 + block.len()].copy_from_slice(&block));
    assert_damage(&disk, &name(1), 8192);
}

#[test]
fn one_bad_hard_state_of_two_harms_nothing() {
    let (disk, _) = one_segment(&[10]);
    let mut storage = open_ok(&disk);
    let mut state = storage.recovered.state.clone();
    state.term = Term(5);
    state.voted_for = Some(NodeId(2));
    storage.hard_state.store(&state).unwrap();
    drop(storage);
    for slot in 0..2 {
        for byte in (0..400).chain([4000, 4095]) {
            let spoilt = copy(&disk);
            flip(&spoilt, HARD_STATE_NAME, slot * 4096 + byte);
            let found = open_ok(&spoilt).recovered.state;
            assert_eq!(
                (found.term, found.voted_for, found.life.count()),
                (Term(5), Some(NodeId(2)), state.life.count() + 1)
            );
            // The store of the new life has made both slots good again.
            flip(&spoilt, HARD_STATE_NAME, (1 - slot) * 4096 + byte);
            assert_eq!(open_ok(&spoilt).recovered.state.term, Term(5));
        }
    }
}

#[test]
fn two_bad_hard_states_stop_the_start() {
    let (disk, _) = one_segment(&[10]);
    for byte in (0..4096).filter(|byte| !(8..12).contains(byte)) {
        let spoilt = copy(&disk);
        flip(&spoilt, HARD_STATE_NAME, byte);
        flip(&spoilt, HARD_STATE_NAME, 4096 + byte);
        assert_damage(&spoilt, HARD_STATE_NAME, 0);
    }
    for len in [0, 1, 4095] {
        let spoilt = copy(&disk);
        change(&spoilt, HARD_STATE_NAME, |bytes| bytes.truncate(len));
        assert_damage(&spoilt, HARD_STATE_NAME, 0);
    }
}

#[test]
fn a_check_finds_the_same_and_changes_nothing() {
    let (disk, end) = one_segment(&[10, 20]);
    change(&disk, &name(1), |bytes| bytes[end as usize + 9] = 1);
    disk.write("hard-state.tmp", vec![1]);
    let before = disk.operations();
    let report = super::super::check(&disk, &identity(), &mut NoImage).unwrap();
    assert_eq!(disk.operations(), before);
    let expected = [
        "checkpoint: none, a start applies the whole log".to_owned(),
        "log: 1 segments, entries 1 to 2, the last of term 1, 0 superseded records".to_owned(),
        format!("log: 2 entries would be applied again, {} bytes of records from entry 1 on", end - 4096),
        format!("{}: torn tail, would be cut at offset {end}: no record", name(1)),
        "hard-state.tmp: would be removed: it was being made".to_owned(),
    ];
    assert_eq!(report[..5], expected);
    assert!(report.len() == 6 && report[5].contains(", life 1, term 0"), "{report:?}");
    flip(&disk, &name(1), 4100);
    let damaged = super::super::check(&disk, &identity(), &mut NoImage);
    assert!(matches!(damaged, Err(StorageError::Damage { .. })));
}
