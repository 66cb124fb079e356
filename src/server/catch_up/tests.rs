// A range in brackets is one of several, not the numbers in it.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;

use fsd_wire::{LogIndex, Term};

use super::*;
use crate::simulated_disk::SimulatedDisk;

const HEARTBEAT_MS: u64 = 50;
const RESEND_MS: u64 = 1000;

fn sending() -> Sending<SimulatedDisk> {
    let entry = EntryId { term: Term(1), index: LogIndex(7) };
    let chunk_bytes = limits::CHUNK_BYTES_MIN;
    Sending {
        number: 1,
        entry,
        reader: None,
        chunks: VecDeque::new(),
        chunk_bytes,
        skip_to: 0,
        is_repeated: false,
    }
}

/// A chunk was read.
fn read(sending: &mut Sending<SimulatedDisk>, range: Range<u64>, is_last: bool) {
    let bytes = Bytes::from(vec![7; (range.end - range.start) as usize]);
    sending
        .chunks
        .push_back(ReadChunk { chunk: Chunk { offset: range.start, bytes, is_last }, sent_ms: None });
    sending.skip();
}

/// What may be under way is sent.
fn send(sending: &mut Sending<SimulatedDisk>, now_ms: u64) -> Vec<Range<u64>> {
    sending.take_overdue_back(now_ms, RESEND_MS);
    let mut sent = Vec::new();
    for read in sending.chunks.iter_mut().take(limits::CHUNKS_UNDER_WAY) {
        if read.sent_ms.is_none() {
            read.sent_ms = Some(now_ms);
            sent.push(read.chunk.offset..read.chunk.end());
        }
    }
    sent
}

fn ranges(sending: &Sending<SimulatedDisk>) -> Vec<Range<u64>> {
    sending.chunks.iter().map(|read| read.chunk.offset..read.chunk.end()).collect()
}

#[test]
fn chunks_grow_while_answers_are_quick_and_shrink_when_they_are_not() {
    let mut sending = sending();
    let mut offset = 0;
    let mut lengths = Vec::new();
    for took_ms in [1, 1, 25, 26, 500, 500, 500, 1] {
        let end = offset + sending.chunk_bytes as u64;
        read(&mut sending, offset..end, false);
        send(&mut sending, 100);
        offset = end;
        assert!(!sending.acknowledge(100 + took_ms, offset, HEARTBEAT_MS));
        assert_eq!(ranges(&sending), []);
        lengths.push(sending.chunk_bytes / limits::CHUNK_BYTES_MIN);
    }
    assert_eq!(lengths, [2, 4, 8, 4, 2, 1, 1, 2]);
}

#[test]
fn no_length_is_passed_over_because_several_chunks_of_one_were_read() {
    let mut sending = sending();
    let shortest = limits::CHUNK_BYTES_MIN as u64;
    for at in 0..4 {
        read(&mut sending, at * shortest..(at + 1) * shortest, false);
    }
    for at in 0..4 {
        send(&mut sending, 100);
        assert!(!sending.acknowledge(101, (at + 1) * shortest, HEARTBEAT_MS));
        assert_eq!(sending.chunk_bytes as u64, 2 * shortest);
    }
    let next = 4 * shortest;
    read(&mut sending, next..next + 2 * shortest, false);
    read(&mut sending, next + 2 * shortest..next + 4 * shortest, false);
    send(&mut sending, 100);
    for at in 1..=2 {
        assert!(!sending.acknowledge(200, next + at * 2 * shortest, HEARTBEAT_MS));
        assert_eq!(sending.chunk_bytes as u64, shortest, "both say that this length is too much");
    }
}

#[test]
fn a_few_chunks_are_under_way_and_a_few_are_read_ahead() {
    let mut sending = sending();
    let mut end = 0;
    while sending.wants_chunk() {
        read(&mut sending, end..end + 10, false);
        end += 10;
    }
    assert_eq!(end, 40);
    assert_eq!(send(&mut sending, 100), [0..10, 10..20]);
    assert!(!sending.acknowledge(101, 10, HEARTBEAT_MS));
    assert!(sending.wants_chunk());
    assert_eq!(send(&mut sending, 101), [20..30]);
    // One answer may stand for several, the others being lost.
    assert!(!sending.acknowledge(102, 30, HEARTBEAT_MS));
    assert_eq!(send(&mut sending, 102), [30..40]);
    read(&mut sending, 40..50, true);
    assert!(!sending.wants_chunk(), "the stream ends there");
}

#[test]
fn what_is_not_acknowledged_in_time_is_sent_again_with_all_behind_it() {
    let mut sending = sending();
    for begin in [0, 10, 20] {
        read(&mut sending, begin..begin + 10, false);
    }
    assert_eq!(send(&mut sending, 100), [0..10, 10..20]);
    assert!(!sending.acknowledge(600, 10, HEARTBEAT_MS));
    assert_eq!(send(&mut sending, 600), [20..30]);
    assert_eq!(send(&mut sending, 1099), []);
    assert!(!sending.acknowledge(1099, 10, HEARTBEAT_MS), "a late answer changes nothing");
    assert_eq!(send(&mut sending, 1100), [10..20, 20..30]);
}

#[test]
fn what_another_stream_brought_is_passed_over() {
    let mut sending = sending();
    read(&mut sending, 0..8, false);
    send(&mut sending, 100);
    assert!(!sending.acknowledge(101, 20, HEARTBEAT_MS));
    assert_eq!(ranges(&sending), []);
    read(&mut sending, 8..16, false);
    assert_eq!(ranges(&sending), []);
    read(&mut sending, 16..24, false);
    assert_eq!(send(&mut sending, 102), [20..24]);
    // In the middle of what is under way: the rest of it is sent at once.
    assert!(!sending.acknowledge(103, 22, HEARTBEAT_MS));
    assert_eq!(send(&mut sending, 104), [22..24]);
    // The end is told, even if there are no bytes left before it.
    read(&mut sending, 24..32, true);
    assert!(!sending.acknowledge(105, 24, HEARTBEAT_MS));
    assert_eq!(ranges(&sending), [24..32]);
    assert!(!sending.acknowledge(106, 32, HEARTBEAT_MS));
    assert_eq!(send(&mut sending, 107), [32..32]);
}

#[test]
fn a_node_that_was_started_anew_is_sent_all_of_it() {
    let mut sending = sending();
    read(&mut sending, 0..8, false);
    send(&mut sending, 100);
    assert!(!sending.acknowledge(101, 0, HEARTBEAT_MS), "it is at the beginning as it should be");
    assert!(!sending.acknowledge(101, 8, HEARTBEAT_MS));
    read(&mut sending, 8..16, false);
    assert!(sending.acknowledge(101, 0, HEARTBEAT_MS));
}

#[test]
fn what_was_passed_over_by_mistake_is_sent_after_all() {
    let mut sending = sending();
    read(&mut sending, 0..8, false);
    send(&mut sending, 100);
    assert!(!sending.acknowledge(101, 8, HEARTBEAT_MS));
    read(&mut sending, 8..16, false);
    read(&mut sending, 16..32, false);
    send(&mut sending, 102);
    // This was said before the node was started anew; now it has eight bytes.
    assert!(!sending.acknowledge(103, 24, HEARTBEAT_MS));
    assert!(!sending.acknowledge(104, 8, HEARTBEAT_MS), "it may be a late answer");
    assert_eq!(send(&mut sending, 104), [24..32]);
    assert_eq!(send(&mut sending, 1104), [24..32]);
    assert!(sending.acknowledge(1105, 8, HEARTBEAT_MS));
}
