//! Bytes that nobody meant: cut short, flipped, at random, with lengths and counts that lie. They are refused
//! at once or wait for more; they never become a message that nobody sent, and nothing panics.

mod common;

use bytes::Bytes;
use common::{BODY_BYTES_MAX, decode_frame, entry, messages, stored};
use fsd_wire::client::{ClientReply, ClientRequest};
use fsd_wire::codec::{COUNTER_MAX, Reader, Writer};
use fsd_wire::hello::{Hello, HelloReply};
use fsd_wire::peer::PeerMessage;
use fsd_wire::snapshot::REFUSAL_BYTES_MAX;
use fsd_wire::*;
use proptest::prelude::*;

/// A frame as a decoder hands it out, without its way through one.
fn frame(kind: u16, body: impl FnOnce(&mut Writer)) -> Frame {
    let mut out = Writer::new();
    body(&mut out);
    Frame { kind, body: out.into_bytes().into() }
}

/// The samples whose last field reaches to the end of the frame.
const OPEN_ENDED: [&str; 9] = [
    "request-change",
    "request-session-change",
    "reply-read",
    "forward",
    "install-snapshot",
    "install-snapshot-last",
    "install-snapshot-question",
    "reply-backup-chunk",
    "reply-backup-chunk-not-yet",
];

#[test]
fn a_frame_cut_short_waits_and_is_no_error() {
    for (name, message) in messages() {
        let bytes = message.encode();
        for len in 0..bytes.len() {
            assert_eq!(decode_frame(&bytes[..len]), Ok(None), "{name}, {len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_body_cut_short_is_refused() {
    // Sealed anew, so that the CRCs are right and the fields alone decide.
    for (name, message) in messages() {
        let bytes = message.encode();
        let body = Bytes::from(bytes).slice(frame::HEADER_BYTES..);
        for len in 0..body.len() {
            let sealed = frame::seal(message.kind(), vec![body.slice(..len)]).concat();
            let result = decode_frame(&sealed);
            // Contents reach to the end of their frame: cut there, it is another good message.
            let open_ended = OPEN_ENDED.contains(&name.as_str()) && result.is_ok();
            assert!(result.is_err() || open_ended, "{name}, {len} of {}: {result:?}", body.len());
            assert_ne!(result, Ok(Some(message.clone())), "{name}, {len} of {}", body.len());
        }
    }
}

#[test]
fn a_byte_behind_the_last_field_is_refused() {
    for (name, message) in messages() {
        if OPEN_ENDED.contains(&name.as_str()) {
            continue;
        }
        let body = Bytes::from(message.encode()).slice(frame::HEADER_BYTES..);
        let sealed = frame::seal(message.kind(), vec![body, Bytes::from_static(&[0])]).concat();
        let error = decode_frame(&sealed).expect_err(&name);
        assert!(error.contains("Trailing"), "{name}: {error}");
    }
}

#[test]
fn every_flipped_bit_is_refused_at_once() {
    for (name, message) in messages() {
        let bytes = message.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
            decoder.feed(&flipped);
            // `Ok(None)` would be a stall: the whole frame has come, and nothing more will.
            let error = decoder.next_frame().expect_err(&format!("{name}, bit {bit}"));
            let expected = match bit / 8 {
                0..4 => matches!(error, FrameError::BadMagic { .. }),
                4..16 => error == FrameError::HeaderCrc,
                _ => error == FrameError::BodyCrc,
            };
            assert!(expected, "{name}, bit {bit}: {error:?}");
            decoder.feed(&bytes);
            assert_eq!(decoder.next_frame(), Err(error), "{name}, bit {bit}: the error is final");
        }
    }
}

#[test]
fn every_flipped_bit_of_an_entry_is_refused() {
    for (name, stored) in stored() {
        if !matches!(stored, common::Stored::Entry(_)) {
            continue;
        }
        let bytes = stored.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(stored.decode_same(&flipped).is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn every_truncation_of_what_is_stored_is_refused_or_differs() {
    for (name, stored) in stored() {
        let bytes = stored.encode();
        for len in 0..bytes.len() {
            let result = stored.decode_same(&bytes[..len]);
            let shorter_contents = ["command-write", "command-cas", "session-change"].contains(&name);
            assert!(result.is_err() || shorter_contents, "{name}, {len}: {result:?}");
            assert_ne!(result, Ok(stored.clone()), "{name}, {len}");
        }
    }
}

#[test]
fn a_length_over_the_bound_is_refused_before_its_body_comes() {
    for len in [1025, 1 << 20, u32::MAX] {
        let mut header = Vec::new();
        header.extend_from_slice(b"fsd1");
        header.extend_from_slice(&frame::PROTOCOL_VERSION.to_le_bytes());
        header.extend_from_slice(&3u16.to_le_bytes());
        header.extend_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        let mut decoder = FrameDecoder::new(1024);
        decoder.feed(&header);
        assert_eq!(decoder.next_frame(), Err(FrameError::BodyTooLong { len, max: 1024 }));
    }
    let longest = frame::seal(3, vec![vec![0; 1024].into()]).concat();
    let mut decoder = FrameDecoder::new(1024);
    decoder.feed(&longest);
    assert!(decoder.next_frame().expect("just within").is_some());
}

#[test]
fn another_version_is_named_and_refused() {
    let mut bytes = PeerMessage::Ping.to_frame().concat();
    bytes[4] = 2;
    let mut decoder = FrameDecoder::new(1024);
    decoder.feed(&bytes);
    // Damage, as its CRC shows: nobody claims to speak version 2.
    assert_eq!(decoder.next_frame(), Err(FrameError::HeaderCrc));

    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut decoder = FrameDecoder::new(1024);
    decoder.feed(&bytes[..16]);
    assert_eq!(decoder.next_frame(), Err(FrameError::UnsupportedVersion { version: 2 }));
}

#[test]
fn foreign_bytes_are_refused_at_the_first_one_that_differs() {
    for (bytes, found) in [(&b"\r"[..], *b"\r\0\0\0"), (b"delete", *b"dele"), (b"fsx", *b"fsx\0")] {
        let mut decoder = FrameDecoder::new(1024);
        decoder.feed(bytes);
        let found = u32::from_le_bytes(found);
        assert_eq!(decoder.next_frame(), Err(FrameError::BadMagic { found }));
    }
}

fn append_entries(count: u32, entries: &[Entry]) -> Frame {
    frame(18, |out| {
        out.u64(5); // term
        out.u32(1); // leader
        out.u64(4); // term and index before the entries
        out.u64(6);
        out.u64(6); // commit index
        out.u64(1); // round
        out.u64(0); // cluster time
        out.u32(count);
        entries.iter().for_each(|entry| entry.encode(out));
    })
}

#[test]
fn a_count_that_lies_allocates_nothing() {
    let too_long = |field, max| DecodeError::TooLong { field, len: u32::MAX as usize, max };
    assert_eq!(PeerMessage::decode(&append_entries(u32::MAX, &[])), Err(too_long("entries", 0)));

    let one = [entry(7, EntryKind::Noop, Payload::default())];
    assert_eq!(PeerMessage::decode(&append_entries(u32::MAX, &one)), Err(too_long("entries", 1)));
    assert!(PeerMessage::decode(&append_entries(1, &one)).is_ok());

    let list = frame(51, |out| {
        out.u64(1);
        out.bool(false);
        out.u32(u32::MAX);
    });
    assert_eq!(ClientReply::decode(&list), Err(too_long("files", 0)));

    let mut out = Writer::new();
    out.u128(7);
    out.u32(u32::MAX);
    let genesis = Payload::from(Bytes::from(out.into_bytes()));
    assert_eq!(Genesis::decode(&genesis), Err(too_long("genesis members", 0)));
}

#[test]
fn entries_out_of_sequence_are_refused() {
    let good =
        || [entry(7, EntryKind::Noop, Payload::default()), entry(8, EntryKind::Tick, Payload::default())];
    let refused_at = |entries: &[Entry], index| {
        let result = PeerMessage::decode(&append_entries(entries.len() as u32, entries));
        assert_eq!(result, Err(DecodeError::EntrySequence { index }), "{entries:?}");
    };
    assert!(PeerMessage::decode(&append_entries(2, &good())).is_ok());
    let [first, second] = good();
    refused_at(std::slice::from_ref(&second), 8); // a gap behind prev_log
    refused_at(&[first.clone(), first.clone()], 7); // the same again
    refused_at(&[first.clone(), Entry { term: Term(6), ..second.clone() }], 8); // after the leader's term
    refused_at(&[first.clone(), Entry { term: Term(4), ..second.clone() }], 8); // terms fall
    refused_at(&[Entry { term: Term(3), ..first.clone() }], 7); // terms fall below prev_log's
    refused_at(&[first.clone(), Entry { stamp: ClusterTimeMs(0), ..second.clone() }], 8); // stamps fall

    let from_the_start = |term| {
        let first = Entry { index: LogIndex(1), term: Term(term), ..first.clone() };
        PeerMessage::decode(&frame(18, |out| {
            out.u64(5);
            out.u32(1);
            [0u64; 5].into_iter().for_each(|value| out.u64(value));
            out.count(1);
            first.encode(out);
        }))
    };
    assert!(from_the_start(1).is_ok());
    assert_eq!(from_the_start(0), Err(DecodeError::EntrySequence { index: 1 }));

    let last = frame(18, |out| {
        out.u64(5);
        out.u32(1);
        out.u64(4);
        out.u64(COUNTER_MAX);
        out.u64(6);
        out.u64(1);
        out.u64(0);
        out.count(1);
        Entry { index: LogIndex(0), ..first.clone() }.encode(out);
    });
    assert_eq!(PeerMessage::decode(&last), Err(DecodeError::EntrySequence { index: 0 }));
}

#[test]
fn snapshots_of_nothing_or_of_what_is_to_come_are_refused() {
    let chunk = |(entry_term, index), offset, bytes: &[u8]| {
        PeerMessage::decode(&frame(25, |out| {
            out.u64(5); // term
            out.u32(1); // leader
            out.u64(entry_term);
            out.u64(index);
            out.u64(offset);
            out.bool(true);
            out.raw(bytes);
        }))
    };
    let refused = |field, value| Err(DecodeError::BadValue { field, value });
    assert!(chunk((5, 9), COUNTER_MAX - 3, b"end").is_ok());
    assert_eq!(chunk((5, 9), COUNTER_MAX - 2, b"end"), refused("offset", COUNTER_MAX - 2));
    assert_eq!(chunk((5, 9), u64::MAX, b""), refused("offset", u64::MAX));
    assert_eq!(chunk((0, 0), 0, b""), refused("last entry of a snapshot", 0));
    assert_eq!(chunk((6, 9), 0, b""), refused("last entry of a snapshot", 6));
    assert_eq!(chunk((5, 0), 0, b""), refused("term of an entry id", 5));

    let reply = |index, offset, state: u8, reason: &str| {
        PeerMessage::decode(&frame(26, |out| {
            [5, 1, 5, index, offset].into_iter().for_each(|value| out.u64(value));
            out.u8(state);
            if !reason.is_empty() {
                out.text(reason);
            }
        }))
    };
    assert!((1..=4).all(|state| reply(9, 7, state, "").is_ok()) && reply(9, 7, 5, "why").is_ok());
    assert_eq!(reply(9, 7, 0, ""), refused("snapshot state", 0));
    assert_eq!(reply(9, 7, 6, ""), refused("snapshot state", 6));
    assert_eq!(reply(0, 7, 1, ""), refused("term of an entry id", 5));
    assert_eq!(reply(9, COUNTER_MAX + 1, 1, ""), refused("offset", COUNTER_MAX + 1));
    assert_eq!(reply(9, 7, 1, "why"), Err(DecodeError::Trailing { left: 5 }));
    let long = "x".repeat(REFUSAL_BYTES_MAX + 1);
    let (len, max) = (long.len(), REFUSAL_BYTES_MAX);
    assert_eq!(reply(9, 7, 5, &long), Err(DecodeError::TooLong { field: "reason", len, max }));
}

fn entry_header(index: LogIndex, term: Term, stamp: ClusterTimeMs) -> Vec<u8> {
    Entry { index, term, stamp, kind: EntryKind::Noop, payload: Payload::default() }.header().to_vec()
}

#[test]
fn numbers_from_which_nobody_could_count_on_are_refused() {
    let beyond = COUNTER_MAX + 1;
    for value in [beyond, u64::MAX] {
        let timeout_now = frame(20, |out| {
            out.u64(value);
            out.u32(1);
        });
        assert_eq!(PeerMessage::decode(&timeout_now), Err(DecodeError::BadValue { field: "term", value }));
        let ask = frame(21, |out| [value, 1, 1, 1].into_iter().for_each(|value| out.u64(value)));
        assert_eq!(PeerMessage::decode(&ask), Err(DecodeError::BadValue { field: "term", value }));
        let answer = |term, index, time| {
            PeerMessage::decode(&frame(22, |out| {
                [term, 1, 1, 1, index, time].into_iter().for_each(|value| out.u64(value));
            }))
        };
        assert!(answer(COUNTER_MAX, COUNTER_MAX, COUNTER_MAX).is_ok());
        assert_eq!(answer(value, 1, 1), Err(DecodeError::BadValue { field: "term", value }));
        assert_eq!(answer(1, value, 1), Err(DecodeError::BadValue { field: "index", value }));
        assert_eq!(answer(1, 1, value), Err(DecodeError::BadValue { field: "cluster time", value }));
        let entry = |index, term, stamp| {
            let (index, term, stamp) = (LogIndex(index), Term(term), ClusterTimeMs(stamp));
            // The encoder would refuse to write such a number.
            let mut bytes = entry_header(LogIndex(1), Term(1), ClusterTimeMs(1));
            for (at, number) in [(0, index.0), (8, term.0), (16, stamp.0)] {
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            let crc = crc32fast::hash(&bytes[..32]);
            bytes[32..36].copy_from_slice(&crc.to_le_bytes());
            Entry::decode(&mut Reader::new(bytes.into()))
        };
        assert!(entry(COUNTER_MAX, COUNTER_MAX, COUNTER_MAX).is_ok());
        assert_eq!(entry(value, 1, 1), Err(DecodeError::BadValue { field: "entry index", value }));
        assert_eq!(entry(1, value, 1), Err(DecodeError::BadValue { field: "entry term", value }));
        assert_eq!(entry(1, 1, value), Err(DecodeError::BadValue { field: "entry stamp", value }));
    }
}

#[test]
fn an_entry_id_is_whole_or_nothing() {
    for (term, index) in [(0, 6), (4, 0)] {
        let vote = frame(16, |out| {
            out.u64(5);
            out.u32(2);
            out.u64(1);
            out.bool(true);
            out.u64(term);
            out.u64(index);
            out.bool(false);
            out.bool(false);
        });
        let error = DecodeError::BadValue { field: "term of an entry id", value: term };
        assert_eq!(PeerMessage::decode(&vote), Err(error));
    }
}

#[test]
fn values_without_a_meaning_are_refused() {
    let bad = |field, value| DecodeError::BadValue { field, value };
    let hello = |min: u16, max: u16, role: u8| {
        Hello::decode(&frame(1, |out| {
            out.u16(min);
            out.u16(max);
            out.text("demo");
            out.u8(role);
        }))
    };
    assert!(hello(1, 1, 2).is_ok());
    assert_eq!(hello(1, 1, 3), Err(bad("role", 3)));
    assert_eq!(hello(2, 1, 2), Err(bad("lowest protocol version", 2)));

    let hello_reply = |status: u8, protocol: u16| {
        HelloReply::decode(&frame(2, |out| {
            out.u8(status);
            out.u16(protocol);
            out.text("demo");
            out.raw(&[0; 36]);
            out.text("");
        }))
    };
    assert!(hello_reply(0, 1).is_ok());
    assert_eq!(hello_reply(0, 0), Err(bad("protocol of a welcome", 0)));
    assert!(hello_reply(7, 0).is_ok());
    assert_eq!(hello_reply(8, 0), Err(bad("hello status", 8)));

    let append_result = |code: u8, term: u64, index: u64| {
        PeerMessage::decode(&frame(19, |out| {
            [5u64, 1, 1, 6].into_iter().for_each(|value| out.u64(value));
            out.u8(code);
            out.u64(term);
            out.u64(index);
        }))
    };
    for (code, term, index, good) in [
        (1, 0, 9, true),
        (1, 1, 9, false),
        (2, 0, 0, true),
        (2, 1, 0, false),
        (2, 0, 1, false),
        (3, 3, 2, true),
        (3, 0, 1, true),
        (3, 3, 0, false),
        (0, 0, 0, false),
        (4, 0, 0, false),
    ] {
        assert_eq!(append_result(code, term, index).is_ok(), good, "{code} {term} {index}");
    }

    let vote_reply = |pre_vote: u8, granted: u8| {
        PeerMessage::decode(&frame(17, |out| {
            [5u64, 5, 1].into_iter().for_each(|value| out.u64(value));
            out.u8(pre_vote);
            out.u8(granted);
        }))
    };
    assert!(vote_reply(1, 0).is_ok());
    assert_eq!(vote_reply(2, 0), Err(bad("pre_vote", 2)));
    assert_eq!(vote_reply(0, 255), Err(bad("vote_granted", 255)));

    let refusal = |status: u16| {
        ClientReply::decode(&frame(53, |out| {
            out.u64(1);
            out.u16(status);
        }))
    };
    assert!(refusal(8).is_ok());
    assert_eq!(refusal(0), Err(bad("status", 0)));
    assert_eq!(refusal(13), Err(bad("status", 13)));

    let node_role = |role: u8| {
        ClientReply::decode(&frame(52, |out| {
            out.u64(1);
            out.u32(1);
            out.u8(role);
            out.raw(&[0; 60]);
            out.text("");
        }))
    };
    assert!(node_role(4).is_ok());
    assert_eq!(node_role(0), Err(bad("role", 0)));
    assert_eq!(node_role(5), Err(bad("role", 5)));
}

#[test]
fn sessions_and_their_changes_have_numbers_that_something_stands_for() {
    let bad = |field, value| Err(DecodeError::BadValue { field, value });
    let request = |kind: u16, fields: &[u64]| {
        ClientRequest::decode(&frame(kind, |out| {
            out.u64(1);
            out.u32(1000);
            fields.iter().for_each(|field| out.u64(*field));
        }))
    };
    let beyond = COUNTER_MAX + 1;
    let acknowledged = "acknowledged sequence number";
    assert!(request(38, &[7, 3, 2]).is_ok());
    assert_eq!(request(38, &[0, 3, 2]), bad("session", 0));
    assert_eq!(request(38, &[beyond, 3, 2]), bad("session", beyond));
    assert_eq!(request(38, &[7, 0, 0]), bad("sequence number", 0));
    assert_eq!(request(38, &[7, beyond, 2]), bad("sequence number", beyond));
    assert_eq!(request(38, &[7, 3, 3]), bad(acknowledged, 3));
    assert_eq!(request(38, &[7, 3, beyond]), bad(acknowledged, beyond));
    assert!(request(39, &[7, 0]).is_ok());
    assert_eq!(request(39, &[0, 0]), bad("session", 0));
    assert_eq!(request(39, &[7, beyond]), bad(acknowledged, beyond));
    assert!(request(40, &[7]).is_ok());
    assert_eq!(request(40, &[0]), bad("session", 0));

    let opened = |session: u64| {
        let fields = [1, session, 60_000];
        ClientReply::decode(&frame(54, |out| fields.into_iter().for_each(|value: u64| out.u64(value))))
    };
    assert!(opened(7).is_ok());
    assert_eq!(opened(0), Err(DecodeError::BadValue { field: "session", value: 0 }));
}

#[test]
fn texts_are_bounded_and_utf8() {
    let read = |len: usize, byte: u8| {
        ClientRequest::decode(&frame(32, |out| {
            out.u64(1);
            out.u32(1000);
            out.u16(len as u16);
            out.raw(&vec![byte; len]);
        }))
    };
    assert!(read(NAME_BYTES_MAX, b'a').is_ok());
    let len = NAME_BYTES_MAX + 1;
    assert_eq!(read(len, b'a'), Err(DecodeError::TooLong { field: "name", len, max: NAME_BYTES_MAX }));
    assert_eq!(read(1, 0xff), Err(DecodeError::NotUtf8 { field: "name" }));
}

#[test]
fn a_reason_is_cut_rather_than_refused() {
    let reason = "ä".repeat(hello::REASON_BYTES_MAX);
    let outcome = client::Outcome::Refused(client::Refusal::InvalidName { reason: reason.clone() });
    let sent = ClientReply { id: RequestId(1), outcome };
    let bytes = sent.to_frame().concat();
    let Ok(Some(common::AnyMessage::Reply(got))) = decode_frame(&bytes) else { panic!("unreadable") };
    let cut = reason[..hello::REASON_BYTES_MAX].to_owned();
    assert_eq!(got.outcome, client::Outcome::Refused(client::Refusal::InvalidName { reason: cut }));
}

#[test]
fn a_genesis_names_its_cluster_and_each_node_once_in_order() {
    let genesis = |cluster_id: u128, nodes: &[u32]| {
        let mut out = Writer::new();
        out.u128(cluster_id);
        out.count(nodes.len());
        for node in nodes {
            out.u32(*node);
            out.u64(1);
        }
        Genesis::decode(&Bytes::from(out.into_bytes()).into())
    };
    assert!(genesis(7, &[1, 2, 9]).is_ok());
    assert_eq!(genesis(0, &[1]), Err(DecodeError::BadValue { field: "cluster id", value: 0 }));
    for nodes in [&[2, 1][..], &[1, 1]] {
        let error = DecodeError::BadValue { field: "order of genesis members", value: 2 };
        assert_eq!(genesis(7, nodes), Err(error));
    }
    let many: Vec<u32> = (1..=65).collect();
    assert!(genesis(7, &many[..64]).is_ok());
    assert_eq!(genesis(7, &many), Err(DecodeError::TooLong { field: "genesis members", len: 65, max: 64 }));
}

#[test]
fn an_entry_payload_is_bounded_before_it_is_taken() {
    let mut header = entry(7, EntryKind::Tick, Payload::default()).header();
    let len = PAYLOAD_BYTES_MAX + 1;
    header[28..32].copy_from_slice(&(len as u32).to_le_bytes());
    let error = DecodeError::TooLong { field: "entry payload", len, max: PAYLOAD_BYTES_MAX };
    assert_eq!(entry::payload_bytes_of(&header), Err(error));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
        decoder.feed(&bytes);
        prop_assert!(!matches!(decoder.next_frame(), Ok(Some(_))));
    }

    #[test]
    fn random_bodies_never_panic_and_mean_one_thing(
        kind in prop_oneof![0u16..64, any::<u16>()],
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..300),
    ) {
        let sealed = frame::seal(kind, vec![body.into()]).concat();
        // What decodes encodes to the same bytes again: there is one way to say each thing.
        if let Ok(Some(message)) = decode_frame(&sealed) {
            prop_assert_eq!(message.encode(), sealed);
        }
    }

    #[test]
    fn random_payloads_never_panic_and_mean_one_thing(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..100),
    ) {
        for (name, stored) in stored() {
            if let Ok(decoded) = stored.decode_same(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes.clone(), "{}", name);
            }
        }
    }

    #[test]
    fn a_message_with_one_byte_changed_means_one_thing(
        sample in 0usize..100, at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let all = messages();
        let (_, message) = &all[sample % all.len()];
        let mut body = message.encode().split_off(frame::HEADER_BYTES);
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let sealed = frame::seal(message.kind(), vec![body.into()]).concat();
        if let Ok(Some(message)) = decode_frame(&sealed) {
            prop_assert_eq!(message.encode(), sealed);
        }
    }
}
