//! A stream of a store passes as it is, cut anywhere, and with no byte changed, missing or too many.

use fsd_wire::store_stream::{
    Counted, FILE_ITEM_HEAD_BYTES, PREAMBLE_BYTES, PartKind, StreamError, StreamHead, StreamProblem, preamble,
};
use fsd_wire::stream_check::StreamCheck;
use fsd_wire::{ClusterId, ClusterTimeMs, EntryId, Incarnation, LogIndex, NodeId, Term, Version};

const SIZES: [u32; 3] = [0, 5, 300];

fn head() -> StreamHead {
    StreamHead {
        cluster: "demo".to_owned(),
        genesis: Some(ClusterId(77)),
        entry: EntryId { term: Term(2), index: LogIndex(40) },
        stamp: ClusterTimeMs(5000),
        revision: Version(9),
        files: SIZES.len() as u64,
        sessions: 1,
        items_bytes: 200,
        contents_bytes: SIZES.iter().map(|size| u64::from(*size)).sum(),
        registrations: vec![(LogIndex(1), NodeId(1), Incarnation(11))],
    }
}

/// A stream of three files and a session, as far as the checker looks at them.
fn stream_with(head: &StreamHead) -> Vec<u8> {
    let mut bytes = preamble().to_vec();
    let mut counted = Counted::default();
    let mut push = |kind, payload: &[u8], size: u32| {
        let part = counted.part_head(kind, &[payload]);
        counted.count(&part, u64::from(size));
        bytes.extend_from_slice(&part);
        bytes.extend_from_slice(payload);
        counted.clone()
    };
    push(PartKind::Head, &head.encode(), 0);
    for size in SIZES {
        let mut item = vec![7; FILE_ITEM_HEAD_BYTES + 4];
        item[10..14].copy_from_slice(&size.to_le_bytes());
        item.extend(vec![9; size as usize]);
        push(PartKind::File, &item, size);
    }
    let counted = push(PartKind::Session, b"a session", 0);
    let end = counted.end();
    bytes.extend_from_slice(&counted.part_head(PartKind::End, &[&end]));
    bytes.extend_from_slice(&end);
    bytes
}

fn check(bytes: &[u8], chunk: usize) -> Result<StreamHead, StreamError> {
    let mut check = StreamCheck::new();
    for chunk in bytes.chunks(chunk) {
        check.take(chunk)?;
    }
    check.finish()
}

#[test]
fn a_whole_stream_passes_however_it_is_cut() {
    let bytes = stream_with(&head());
    for chunk in [1, 2, 7, 64, bytes.len()] {
        assert_eq!(check(&bytes, chunk), Ok(head()), "chunks of {chunk}");
    }
    let mut half = StreamCheck::new();
    half.take(&bytes[..bytes.len() - 50]).unwrap();
    assert_eq!((half.counted().files, half.counted().contents_bytes), (3, 305));
    assert_eq!(half.offset(), bytes.len() as u64 - 50);
}

#[test]
fn no_byte_may_be_another_one() {
    let bytes = stream_with(&head());
    for at in 0..bytes.len() {
        for mask in [1, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            assert!(check(&changed, 50).is_err(), "byte {at}");
        }
    }
}

#[test]
fn none_may_be_missing_or_too_many() {
    let mut bytes = stream_with(&head());
    for len in 0..bytes.len() {
        let error = check(&bytes[..len], 50).unwrap_err();
        assert_eq!((error.what, error.at), (StreamProblem::CutShort, len as u64));
    }
    bytes.push(0);
    assert_eq!(check(&bytes, 50).unwrap_err().what, StreamProblem::Trailing);
}

#[test]
fn the_end_must_be_that_of_these_parts() {
    let other = StreamHead { contents_bytes: 304, ..head() };
    assert!(matches!(check(&stream_with(&other), 50).unwrap_err().what, StreamProblem::OtherEnd(_)));
    let error = check(&[0; PREAMBLE_BYTES], 50).unwrap_err();
    assert_eq!((error.part, error.at, error.what), (0, 0, StreamProblem::BadMagic));
}
