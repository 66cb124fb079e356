//! Bytes that change on the way or on a disk, bytes that are missing, and disks that fail.

use std::io;

use super::*;

/// A stream of [`small`], and the sender with the checkpoint's name.
fn good() -> (Node, String, Vec<u8>) {
    let mut sender = small();
    let checkpoint = sender.checkpoint();
    let stream = bytes_of(&stream_of(&sender.disk, &checkpoint, || 1000).unwrap());
    (sender, checkpoint, stream)
}

/// What becomes of these bytes at a fresh disk, given in two pieces.
fn outcome(bytes: &[u8], cut_at: usize) -> Result<Option<Whole>, TransferError> {
    let disk = SimulatedDisk::new();
    let mut writer = StreamWriter::begin(&disk, Some(CLUSTER));
    let mut headers = headers();
    let (first, second) = bytes.split_at(cut_at);
    let fed = feed(&mut writer, 0, first, &mut headers);
    let fed = match fed {
        Ok(None) => feed(&mut writer, cut_at as u64, second, &mut headers),
        over => over,
    };
    if !matches!(fed, Ok(Some(_))) {
        if fed.is_ok() {
            writer.abandon().unwrap();
        }
        assert_eq!(disk.list().unwrap(), [""; 0], "something was left");
    }
    fed
}

#[test]
fn no_byte_may_change() {
    let (_, _, stream) = good();
    assert!(outcome(&stream, 100).unwrap().is_some());
    let mut refused = 0;
    for at in 0..stream.len() {
        let mut changed = stream.clone();
        changed[at] ^= 1 << (at % 8);
        match outcome(&changed, at) {
            Ok(Some(_)) => panic!("byte {at} may change"),
            // A length that grew has the receiver wait for what never comes.
            Ok(None) => {}
            Err(TransferError::Stream(error)) => {
                assert!(error.at <= at as u64, "{error} because of byte {at}");
                refused += 1;
            }
            Err(error) => panic!("{error} because of byte {at}"),
        }
    }
    assert!(refused > stream.len() * 9 / 10, "{refused} of {}", stream.len());
}

#[test]
fn no_byte_may_be_missing_or_too_many() {
    let (_, _, stream) = good();
    for end in 0..stream.len() {
        assert!(outcome(&stream[..end], end / 2).unwrap().is_none(), "whole after {end} bytes");
    }
    let more = [&stream[..], &[0]].concat();
    match outcome(&more, 100) {
        Err(TransferError::Stream(StreamError { what: StreamProblem::Trailing, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_may_not_change_places_or_be_left_out() {
    let (_, _, stream) = good();
    let mut bounds = vec![format::PREAMBLE_BYTES];
    while bounds[bounds.len() - 1] < stream.len() {
        let at = bounds[bounds.len() - 1];
        let len = u32::from_le_bytes(stream[at + 1..at + 5].try_into().unwrap()) as usize;
        bounds.push(at + format::PART_HEAD_BYTES + len);
    }
    let part = |n: usize| &stream[bounds[n]..bounds[n + 1]];
    let parts = bounds.len() - 1;
    assert_eq!(parts, 1 + 4 + 2 + 1, "head, files, sessions, end");
    for n in 0..parts - 1 {
        let rest: Vec<&[u8]> = (n + 2..parts).map(part).collect();
        let swapped = [&stream[..bounds[n]], part(n + 1), part(n), &rest.concat()].concat();
        assert!(outcome(&swapped, 100).is_err(), "parts {n} and {} swapped", n + 1);
        let without = [&stream[..bounds[n]], part(n + 1), &rest.concat()].concat();
        assert!(outcome(&without, 100).is_err(), "without part {n}");
        let twice = [&stream[..bounds[n + 1]], &stream[bounds[n]..]].concat();
        assert!(outcome(&twice, 100).is_err(), "part {n} twice");
    }
}

#[test]
fn only_the_next_bytes_are_taken() {
    let (_, _, stream) = good();
    let disk = SimulatedDisk::new();
    let mut writer = StreamWriter::begin(&disk, Some(CLUSTER));
    let mut headers = headers();
    assert!(feed(&mut writer, 0, &stream[..500], &mut headers).unwrap().is_none());
    for wrong in [0, 499, 501, u64::MAX] {
        match writer.feed(wrong, &stream[..10], &mut Some(headers())) {
            Err(TransferError::WrongOffset { expected: 500, found }) if found == wrong => {}
            other => panic!("{other:?}"),
        }
    }
    // It goes on as if nothing had come.
    assert!(feed(&mut writer, 500, &stream[500..], &mut headers).unwrap().is_some());
}

#[test]
fn another_clusters_store_is_refused() {
    let (_, _, stream) = good();
    let disk = SimulatedDisk::new();
    let mut writer = StreamWriter::begin(&disk, Some("other"));
    match feed(&mut writer, 0, &stream, headers()) {
        Err(TransferError::Stream(StreamError {
            part: 0,
            at: 12,
            what: StreamProblem::OtherCluster(found),
        })) => {
            assert_eq!(found, CLUSTER);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(writer.feed(0, &stream, &mut None), Err(TransferError::Over)));
    assert!(feed(&mut StreamWriter::begin(&disk, None), 0, &stream, headers()).unwrap().is_some());
}

#[test]
fn another_releases_stream_is_refused() {
    let (_, _, mut stream) = good();
    stream[8] = 2;
    let error = outcome(&stream, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream of a store: part 0 at byte 0: format version 2 is not known to this release"
    );
}

/// What rots at the sender is never given out: an error, behind bytes that are all good.
#[test]
fn damage_at_the_sender_is_not_sent() {
    let (sender, checkpoint, stream) = good();
    let names: Vec<String> = sender.disk.list().unwrap();
    let mut errors = 0;
    for name in names.iter().filter(|name| name.starts_with("segment-") || **name == checkpoint) {
        let len = sender.disk.read(name).unwrap().len();
        for at in (0..len).step_by(3) {
            let disk = sender.disk.crash(Unflushed::Kept);
            disk.rot(name, at, 0x10);
            errors += usize::from(!is_sent_well(&disk, &checkpoint, &stream));
        }
    }
    assert!(errors > 500, "only {errors}");
}

/// Whether the whole stream came; if not, there was an error behind a beginning of it.
fn is_sent_well(disk: &SimulatedDisk, checkpoint: &str, stream: &[u8]) -> bool {
    let Ok(mut reader) = StreamReader::open(disk, checkpoint, None) else { return false };
    let mut sent = Vec::new();
    loop {
        match reader.next_chunk(100) {
            Ok(chunk) => {
                sent.extend_from_slice(&chunk.bytes);
                assert!(stream.starts_with(&sent), "what is damaged was sent");
                if chunk.is_last {
                    assert!(sent == stream, "a part was sent for the whole");
                    return true;
                }
            }
            Err(TransferError::Storage(_)) => {
                assert!(matches!(reader.next_chunk(100), Err(TransferError::Over)));
                return false;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_segment_that_is_missing_is_noticed_at_once() {
    let (sender, checkpoint, _) = good();
    let (segment, _) = sender.store.live_segments().next().unwrap();
    sender.disk.lose(&storage::segment::file_name(SegmentId(segment)));
    match StreamReader::open(&sender.disk, &checkpoint, None) {
        Err(TransferError::Storage(StorageError::Io { source, .. })) => {
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
        }
        other => panic!("{:?}", other.err()),
    }
}

/// Receives a stream until it is whole or the disk fails.
fn try_to_receive(
    node: &mut Node,
    stream: &[u8],
) -> (StreamWriter<SimulatedDisk>, Result<Option<Whole>, TransferError>) {
    let mut writer = StreamWriter::begin(&node.disk, Some(CLUSTER));
    let mut received = Ok(None);
    for (n, bytes) in stream.chunks(300).enumerate() {
        let log = &mut node.storage.log;
        received = feed(&mut writer, 300 * n as u64, bytes, || log.kept_header(SEGMENT_BYTES));
        if !matches!(received, Ok(None)) {
            break;
        }
    }
    (writer, received)
}

/// A stream that takes several segments, one of them for a single file.
fn large() -> Vec<u8> {
    let mut sender = small();
    for (n, len) in [2500, 2500, 12_000, 3000].into_iter().enumerate() {
        sender.write(&format!("large{n}"), some_bytes(n as u64, len), 0);
    }
    let checkpoint = sender.checkpoint();
    bytes_of(&stream_of(&sender.disk, &checkpoint, || 1000).unwrap())
}

#[test]
fn the_power_may_fail_before_any_operation() {
    let stream = large();
    for n in 1.. {
        let mut receiver = Node::new(2);
        let names = receiver.disk.list().unwrap();
        receiver.disk.power_off_at(receiver.disk.operations() + n);
        let (writer, received) = try_to_receive(&mut receiver, &stream);
        if let Ok(received) = received {
            assert!(n > 20 && received.expect("all was given").kept.len() > 2);
            return;
        }
        assert!(writer.abandon().is_err());
        for fate in [Unflushed::Kept, Unflushed::Lost].into_iter().chain((1..=4).map(Unflushed::Garbled)) {
            let disk = receiver.disk.crash(fate);
            let found = open(&disk, 2);
            assert_eq!(found.log.last_index(), receiver.storage.log.last_index(), "{fate:?} before {n}");
            assert_eq!(found.log.contents_segments().count(), 0, "{fate:?} before {n}");
            assert_eq!(disk.list().unwrap(), names, "{fate:?} before {n}");
        }
    }
}

#[test]
fn a_disk_that_fails_or_is_full_gets_its_room_back() {
    let stream = large();
    for n in 1.. {
        let mut receiver = Node::new(2);
        let names = receiver.disk.list().unwrap();
        let failing = receiver.disk.operations() + n;
        receiver.disk.fail_at(failing, io::ErrorKind::StorageFull);
        let (writer, received) = try_to_receive(&mut receiver, &stream);
        match received {
            Ok(Some(_)) if receiver.disk.operations() < failing => {
                assert!(n > 20);
                return;
            }
            // A store into memory does not fail.
            Ok(Some(_)) => {}
            Err(TransferError::Storage(_)) => {
                assert_eq!(receiver.disk.list().unwrap(), names);
                assert_eq!(writer.kept_names().count(), 0);
            }
            other => panic!("{other:?}"),
        }
    }
}
