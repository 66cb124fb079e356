//! Streams whose CRCs are all right and whose fields do not go together.

use super::format::{Counted, FORMAT_VERSION, PART_HEAD_BYTES, PREAMBLE_BYTES, PartKind, preamble};
use super::*;
use crate::file_store::items::FileItem;

/// The stream of [`small`] with the payloads of some parts changed; its CRCs and its end are as they must be for those.
fn forged(mut change: impl FnMut(PartKind, u64, &mut Vec<u8>)) -> Vec<u8> {
    let mut sender = small();
    let checkpoint = sender.checkpoint();
    let stream = bytes_of(&stream_of(&sender.disk, &checkpoint, || 1000).unwrap());
    let mut rest = &stream[PREAMBLE_BYTES..];
    let (mut counted, mut forged) = (Counted::default(), preamble().to_vec());
    while !rest.is_empty() {
        let kind = [PartKind::Head, PartKind::File, PartKind::Session, PartKind::End][rest[0] as usize - 1];
        let len = u32::from_le_bytes(rest[1..5].try_into().unwrap()) as usize;
        let (payload, behind) = rest[PART_HEAD_BYTES..].split_at(len);
        rest = behind;
        let mut payload = if kind == PartKind::End { counted.end().to_vec() } else { payload.to_vec() };
        change(kind, counted.parts, &mut payload);
        let head = counted.part_head(kind, &[&payload]);
        let size_bytes = match kind {
            PartKind::File => u32::from_le_bytes(payload[10..14].try_into().unwrap()),
            _ => 0,
        };
        counted.count(&head, u64::from(size_bytes));
        forged.extend_from_slice(&head);
        forged.extend_from_slice(&payload);
    }
    forged
}

/// What is wrong with such a stream, and in which part.
fn fault(change: impl FnMut(PartKind, u64, &mut Vec<u8>)) -> (u64, StreamProblem) {
    let disk = SimulatedDisk::new();
    let mut writer = StreamWriter::begin(&disk, Some(CLUSTER));
    match feed(&mut writer, 0, &forged(change), headers()) {
        Err(TransferError::Stream(error)) => (error.part, error.what),
        other => panic!("{other:?}"),
    }
}

/// What is wrong when the item and the entry of the first file, which has an expiry, are changed like this.
fn fault_of_file(change: impl Fn(&mut Vec<u8>, &mut Entry)) -> StreamProblem {
    let (part, what) = fault(|_, part, payload| {
        if part == 1 {
            let (item, entry) = FileItem::without_place(payload).unwrap();
            let entry = Bytes::copy_from_slice(entry);
            let mut entry = Entry::decode(&mut fsd_wire::codec::Reader::new(entry)).unwrap();
            let mut item = item.bytes_without_place();
            change(&mut item, &mut entry);
            let mut out = fsd_wire::codec::Writer::new();
            out.raw(&item);
            entry.encode(&mut out);
            *payload = out.into_bytes();
        }
    });
    assert_eq!(part, 1, "{what:?}");
    what
}

#[test]
fn what_is_not_forged_is_received() {
    let disk = SimulatedDisk::new();
    let stream = forged(|_, _, _| ());
    assert!(feed(&mut StreamWriter::begin(&disk, None), 0, &stream, headers()).unwrap().is_some());
    assert_eq!(stream[8..12], FORMAT_VERSION.to_le_bytes());
}

#[test]
fn a_files_item_must_be_what_its_entry_made() {
    let change = |at: usize| fault_of_file(move |item, _| item[at] ^= 0x40);
    assert_eq!(change(10), StreamProblem::OtherEntry("size"));
    assert_eq!(change(14), StreamProblem::OtherEntry("CRC of the contents"));
    assert_eq!(change(18), StreamProblem::OtherEntry("expiry"));
    assert_eq!(change(2), StreamProblem::OtherEntry("version"));
    assert_eq!(change(26), StreamProblem::OtherEntry("name"));
}

#[test]
fn a_files_entry_must_be_the_one_that_wrote_it() {
    let entry_becomes = |change: fn(&mut Entry)| fault_of_file(move |_, entry| change(entry));
    let no_change = entry_becomes(|entry| entry.kind = EntryKind::Tick);
    assert_eq!(no_change, StreamProblem::OtherEntry("the entry changes no file"));
    let delete = entry_becomes(|entry| {
        let mut command = entry.command().unwrap().expect("it wrote a file");
        (command.operation, command.contents) = (Operation::Delete, Bytes::new());
        (entry.kind, entry.payload) = (EntryKind::Command, command.encode());
    });
    assert_eq!(delete, StreamProblem::OtherEntry("the entry removes a file"));
    let other_contents = entry_becomes(|entry| {
        let mut command = entry.command().unwrap().expect("it wrote a file");
        command.contents = vec![0xee; command.contents.len()].into();
        (entry.kind, entry.payload) = (EntryKind::Command, command.encode());
    });
    assert_eq!(other_contents, StreamProblem::OtherEntry("CRC of the contents"));
    let is_later = StreamProblem::OtherEntry("the entry is later than the store");
    assert_eq!(entry_becomes(|entry| entry.index = LogIndex(1000)), is_later);
    assert_eq!(entry_becomes(|entry| entry.term = Term(1000)), is_later);
    assert_eq!(entry_becomes(|entry| entry.stamp = ClusterTimeMs(1 << 40)), is_later);
    assert_eq!(
        entry_becomes(|entry| entry.stamp.0 -= 1),
        StreamProblem::OtherEntry("expiry"),
        "what has an expiry was written when it was written"
    );
}

#[test]
fn a_part_ends_with_its_last_field() {
    for kind in [PartKind::Head, PartKind::File, PartKind::Session] {
        let is_too_long = |found, _, payload: &mut Vec<u8>| {
            if found == kind {
                payload.push(0);
            }
        };
        let (_, what) = fault(is_too_long);
        assert!(matches!(what, StreamProblem::Field(_) | StreamProblem::Image { .. }), "{kind:?}: {what:?}");
    }
    let (_, what) = fault(|kind, _, payload| {
        if kind == PartKind::File {
            payload.truncate(20);
        }
    });
    assert_eq!(what, StreamProblem::OtherEntry("there is none"));
}

/// What is wrong when the 64-bit number at this place of the head is changed by this.
fn fault_of_head(field: usize, by: i64) -> StreamProblem {
    fault(|kind, _, payload| {
        if kind == PartKind::Head {
            let at = 2 + CLUSTER.len() + 16 + 8 * field;
            let number = u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
            payload[at..at + 8].copy_from_slice(&number.wrapping_add_signed(by).to_le_bytes());
        }
    })
    .1
}

#[test]
fn what_comes_must_be_what_the_head_promised() {
    let out_of_order = |found, expected| StreamProblem::OutOfOrder { found, expected };
    assert_eq!(fault_of_head(4, -1), out_of_order(PartKind::File, PartKind::Session));
    assert_eq!(fault_of_head(4, 1), out_of_order(PartKind::Session, PartKind::File));
    assert_eq!(fault_of_head(5, -1), out_of_order(PartKind::Session, PartKind::End));
    assert_eq!(fault_of_head(5, 1), out_of_order(PartKind::End, PartKind::Session));
    assert!(matches!(fault_of_head(6, 1), StreamProblem::Image { .. }));
    let contents = "contents are not as many bytes as by the head";
    assert_eq!(fault_of_head(7, 1), StreamProblem::OtherEnd(contents));
    let contents = "contents are more bytes than by the head";
    assert_eq!(fault_of_head(7, -1), StreamProblem::OtherEnd(contents));
}

#[test]
fn a_head_must_make_sense() {
    let revisions = "more revisions than entries, or more files than revisions";
    assert_eq!(fault_of_head(3, 1000), StreamProblem::Head(revisions));
    assert_eq!(fault_of_head(4, 1000), StreamProblem::Head(revisions));
    assert_eq!(fault_of_head(5, 1000), StreamProblem::Head("more sessions than entries"));
    assert!(matches!(fault_of_head(0, -1_000_000), StreamProblem::Field(_)), "an index beyond all bounds");
}
