use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

const MAX_FILE_BYTES: u64 = 1000;

/// Feeds `stream` in pieces of these lengths (the last one for ever) and takes all events after each.
fn events_in_pieces(stream: &[u8], pieces: &[usize]) -> Vec<TextEvent> {
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    let mut events = Vec::new();
    let mut rest = stream;
    let mut pieces = pieces.iter().copied();
    let mut piece = usize::MAX;
    while !rest.is_empty() {
        piece = pieces.next().unwrap_or(piece);
        let (now, later) = rest.split_at(piece.clamp(1, rest.len()));
        decoder.feed(now);
        events.extend(std::iter::from_fn(|| decoder.next_event()));
        rest = later;
    }
    events
}

/// The events of a stream, which are the same whole and in single bytes.
fn events(stream: &[u8]) -> Vec<TextEvent> {
    let whole = events_in_pieces(stream, &[]);
    assert_eq!(events_in_pieces(stream, &[1]), whole, "byte by byte");
    whole
}

fn read(name: &str) -> TextEvent {
    TextEvent::Command(TextCommand::Read { name: name.into() })
}

fn change(operation: Operation, name: &str, contents: &[u8]) -> TextEvent {
    let contents = Bytes::copy_from_slice(contents);
    TextEvent::Command(TextCommand::Change(Command { operation, name: name.into(), contents }))
}

fn write(name: &str, expiry_seconds: u64, contents: &[u8]) -> TextEvent {
    change(Operation::Write { expiry_seconds }, name, contents)
}

fn cas(name: &str, expected: u64, expiry_seconds: u64, contents: &[u8]) -> TextEvent {
    change(Operation::Cas { expected: Version(expected), expiry_seconds }, name, contents)
}

fn delete(name: &str) -> TextEvent {
    change(Operation::Delete, name, b"")
}

/// The replies to a stream that consists of errors and then `read end`, or of errors of which the last closes.
#[track_caller]
fn replies(stream: &[u8]) -> (Vec<String>, bool) {
    let mut closed = false;
    let mut replies = Vec::new();
    let mut ended = false;
    for event in events(stream) {
        assert!(!closed && !ended, "nothing follows a close or the end: {event:?}");
        match event {
            TextEvent::Error { error, close } => {
                closed = close;
                replies.push(String::from_utf8(error.to_reply().to_vec()).unwrap());
            }
            command => {
                assert_eq!(command, read("end"));
                ended = true;
            }
        }
    }
    assert!(closed || ended, "the connection goes on or closes: {replies:?}");
    (replies, closed)
}

/// One error that leaves the connection open: what follows is understood.
#[track_caller]
fn assert_goes_on(command: &[u8], reply: &str) {
    let stream = [command, b"read end\r\n"].concat();
    assert_eq!(replies(&stream), (vec![format!("{reply}\r\n")], false), "{}", command.escape_ascii());
}

/// One error that closes: what follows is not looked at.
#[track_caller]
fn assert_closes(command: &[u8], reply: &str) {
    let stream = [command, b"read end\r\n"].concat();
    assert_eq!(replies(&stream), (vec![format!("{reply}\r\n")], true), "{}", command.escape_ascii());
}

#[test]
fn each_row_of_the_table_is_a_command() {
    assert_eq!(events(b"read a/b\r\n"), [read("a/b")]);
    assert_eq!(events(b"write a 5\r\nhello\r\n"), [write("a", 0, b"hello")]);
    assert_eq!(events(b"write a 5 60\r\nhello\r\n"), [write("a", 60, b"hello")]);
    assert_eq!(events(b"cas a 7 5\r\nhello\r\n"), [cas("a", 7, 0, b"hello")]);
    assert_eq!(events(b"cas a 0 5 60\r\nhello\r\n"), [cas("a", 0, 60, b"hello")]);
    assert_eq!(events(b"delete a\r\n"), [delete("a")]);
    assert_eq!(events("read é\r\n".as_bytes()), [read("é")]);
}

#[test]
fn arguments_are_separated_by_one_or_more_spaces() {
    assert_eq!(events(b"read   a\r\n"), [read("a")]);
    assert_eq!(events(b"  cas  a  1   2    3  \r\nxy\r\n"), [cas("a", 1, 3, b"xy")]);
    assert_goes_on(b"read a\tb\r\n", "ERR_CMD_ERR invalid name: it has whitespace in it");
    assert_closes(b"read\ta\r\n", "ERR_CMD_ERR unknown command; there are read, write, cas and delete");
}

#[test]
fn pipelined_commands_come_in_their_order() {
    let stream = b"write a 1\r\nx\r\nread a\r\nread ..\r\ncas a 1 0\r\n\r\ndelete a\r\nwrite b 2\r\n\r\n\r\nread b\r\n";
    let found = events(stream);
    assert_eq!(found.len(), 7);
    assert_eq!(found[..2], [write("a", 0, b"x"), read("a")]);
    assert!(matches!(found[2], TextEvent::Error { error: TextError::InvalidName(_), close: false }));
    assert_eq!(found[3..], [cas("a", 1, 0, b""), delete("a"), write("b", 0, b"\r\n"), read("b")]);
}

#[test]
fn contents_are_any_bytes() {
    let all: Vec<u8> = (0..=255).collect();
    for contents in [
        &b""[..],
        b"\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b"read end\r\n",
        b"write a 5\r\nhello\r\nread end\r\n",
        b"ERR_CMD_ERR\r\n",
        &all,
        &[0; MAX_FILE_BYTES as usize],
    ] {
        let stream =
            [format!("write a {}\r\n", contents.len()).as_bytes(), contents, b"\r\nread end\r\n"].concat();
        assert_eq!(events(&stream), [write("a", 0, contents), read("end")]);
    }
}

#[test]
fn an_incomplete_command_is_no_event() {
    let stream = b"write a 5\r\nhello\r\n";
    for end in 0..stream.len() {
        assert_eq!(events(&stream[..end]), [], "{}", stream[..end].escape_ascii());
    }
    assert_eq!(events(b"read a"), []);
    assert_eq!(events(b"read a\r"), []);
}

#[test]
fn an_unknown_command_closes() {
    let reply = "ERR_CMD_ERR unknown command; there are read, write, cas and delete";
    for line in
        ["", " ", "\r", "x", "READ a", "Read a", "readd a", "rea", "write\0 a 1", "stat a", "GET / HTTP/1.1"]
    {
        assert_closes(format!("{line}\r\n").as_bytes(), reply);
    }
    assert_closes(b"\xff\xfe\x80 a\r\n", reply);
}

#[test]
fn read_and_delete_with_wrong_arguments_go_on() {
    for command in ["read", "delete"] {
        let usage = format!("ERR_CMD_ERR usage: {command} NAME");
        assert_goes_on(format!("{command}\r\n").as_bytes(), &usage);
        assert_goes_on(format!("{command}  \r\n").as_bytes(), &usage);
        assert_goes_on(format!("{command} a b\r\n").as_bytes(), &usage);
        let bad = |name: &[u8]| [command.as_bytes(), b" ", name, b"\r\n"].concat();
        assert_goes_on(&bad(b"/a"), "ERR_CMD_ERR invalid name: it begins or ends with /");
        assert_goes_on(&bad(b"a/../b"), "ERR_CMD_ERR invalid name: a part of it is . or ..");
        assert_goes_on(&bad(b"a\rb"), "ERR_CMD_ERR invalid name: it has whitespace in it");
        assert_goes_on(&bad(b"a\0"), "ERR_CMD_ERR invalid name: it has a control character in it");
        assert_goes_on(&bad(b"a\xff"), "ERR_CMD_ERR invalid name: it is not UTF-8");
        assert_goes_on(&bad("a\u{a0}b".as_bytes()), "ERR_CMD_ERR invalid name: it has whitespace in it");
        let part = "ERR_CMD_ERR invalid name: a part of it is longer than 255 bytes";
        assert_goes_on(&bad("x".repeat(256).as_bytes()), part);
    }
}

#[test]
fn a_numbytes_that_is_no_number_closes() {
    let bad = "ERR_CMD_ERR NUMBYTES is not a number";
    for number in [
        "-5",
        "+5",
        "1e3",
        "0x10",
        "5.0",
        "five",
        "99999999999999999999999",
        "18446744073709551616",
        "5\r",
        "\u{665}",
    ] {
        assert_closes(format!("write a {number}\r\nhello\r\n").as_bytes(), bad);
        assert_closes(format!("write a {number} 60\r\nhello\r\n").as_bytes(), bad);
        assert_closes(format!("cas a 1 {number}\r\nhello\r\n").as_bytes(), bad);
        // Also where more than that is wrong: the end cannot be told.
        assert_closes(format!("write /a {number} x y z\r\nhello\r\n").as_bytes(), bad);
    }
    let usage = "ERR_CMD_ERR usage: write NAME NUMBYTES [EXPTIME]";
    assert_closes(b"write\r\n", usage);
    assert_closes(b"write a\r\n", usage);
    let usage = "ERR_CMD_ERR usage: cas NAME VERSION NUMBYTES [EXPTIME]";
    assert_closes(b"cas\r\n", usage);
    assert_closes(b"cas a\r\n", usage);
    assert_closes(b"cas a 1\r\n", usage);
    assert_eq!(events(b"write a 005\r\nhello\r\n"), [write("a", 0, b"hello")]);
}

#[test]
fn a_bad_version_expiry_name_or_extra_argument_skips_the_contents() {
    // Contents that would close the connection, were they taken for a command.
    let contents = b"\nbad\r\n\r\nread\r\n";
    let skips = |line: &str, reply: &str| {
        let line = line.replace("LEN", &contents.len().to_string());
        assert_goes_on(&[line.as_bytes(), b"\r\n", contents, b"\r\n"].concat(), reply);
    };
    for number in ["-1", "+1", "x", "1.5", "1e3", "18446744073709551616"] {
        skips(&format!("cas a {number} LEN"), "ERR_CMD_ERR VERSION is not a number");
        skips(&format!("cas a {number} LEN 60"), "ERR_CMD_ERR VERSION is not a number");
        skips(&format!("cas a 1 LEN {number}"), "ERR_CMD_ERR EXPTIME is not a number");
        skips(&format!("write a LEN {number}"), "ERR_CMD_ERR EXPTIME is not a number");
    }
    skips("write a LEN 1 2", "ERR_CMD_ERR usage: write NAME NUMBYTES [EXPTIME]");
    skips("cas a 1 LEN 1 2", "ERR_CMD_ERR usage: cas NAME VERSION NUMBYTES [EXPTIME]");
    skips("write a/ LEN", "ERR_CMD_ERR invalid name: it begins or ends with /");
    skips("cas . 1 LEN", "ERR_CMD_ERR invalid name: a part of it is . or ..");
    assert_goes_on(b"write a\xff 3\r\nabc\r\n", "ERR_CMD_ERR invalid name: it is not UTF-8");
    assert_goes_on(b"write a\xc3\x28 0\r\n\r\n", "ERR_CMD_ERR invalid name: it is not UTF-8");
    let most = u64::MAX;
    assert_eq!(events(format!("cas a {most} 1 {most}\r\nx\r\n").as_bytes()), [cas("a", most, most, b"x")]);
}

#[test]
fn contents_over_the_limit_are_skipped() {
    let stream = [b"write a 1001\r\n", &[b'x'; 1001][..], b"\r\n"].concat();
    assert_goes_on(&stream, "ERR_INTERNAL too large: a file may have 1000 bytes");
    let stream = [b"cas a 1 1001 60\r\n", &[b'\n'; 1001][..], b"\r\n"].concat();
    assert_goes_on(&stream, "ERR_INTERNAL too large: a file may have 1000 bytes");
    // What is malformed as well is told as that.
    let stream = [b"write a 1001 x\r\n", &[b'x'; 1001][..], b"\r\n"].concat();
    assert_goes_on(&stream, "ERR_CMD_ERR EXPTIME is not a number");
}

#[test]
fn the_error_of_a_skipped_command_does_not_wait_for_the_contents() {
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    decoder.feed(b"write a 1000000000000000\r\n");
    let error = TextError::TooLarge { max_bytes: MAX_FILE_BYTES };
    assert_eq!(decoder.next_event(), Some(TextEvent::Error { error, close: false }));
    assert_eq!(decoder.next_event(), None);
}

#[test]
fn skipping_holds_no_memory() {
    for count in [1_000_000_000_000_000, u64::MAX] {
        let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
        decoder.feed(format!("write /bad {count}\r\n").as_bytes());
        assert!(decoder.next_event().is_some());
        for _ in 0..100 {
            decoder
                .feed_from(|room| {
                    room.fill(b'\n');
                    Ok::<_, Infallible>(room.len())
                })
                .unwrap();
            assert_eq!(decoder.next_event(), None);
            assert_eq!(decoder.buffered_bytes(), 0);
        }
    }
}

#[test]
fn contents_not_followed_by_a_line_end_close() {
    let reply = "ERR_CMD_ERR the contents are not followed by \\r\\n";
    for end in ["x", "\n", "xx\r\n", " \r\n", "\rx", "\r\r\n", "\n\r"] {
        assert_closes(format!("write a 5\r\nhello{end}").as_bytes(), reply);
        assert_closes(format!("cas a 1 5\r\nhello{end}").as_bytes(), reply);
        assert_closes(format!("write a 0\r\n{end}").as_bytes(), reply);
    }
    // The first byte that is wrong tells it.
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    decoder.feed(b"write a 5\r\nhello!");
    assert!(matches!(decoder.next_event(), Some(TextEvent::Error { close: true, .. })));
}

#[test]
fn skipped_contents_not_followed_by_a_line_end_close() {
    for end in ["x", "\n", "\rx", "\r\r\n"] {
        for (line, reply) in [
            ("write a/ 5", "ERR_CMD_ERR invalid name: it begins or ends with /\r\n"),
            ("cas a x 5", "ERR_CMD_ERR VERSION is not a number\r\n"),
        ] {
            let stream = format!("{line}\r\nhello{end}read end\r\n");
            let close = "ERR_CMD_ERR the contents are not followed by \\r\\n\r\n";
            assert_eq!(replies(stream.as_bytes()), (vec![reply.into(), close.into()], true));
        }
    }
}

#[test]
fn a_bare_newline_in_a_line_closes() {
    let reply = "ERR_CMD_ERR lines end in \\r\\n, not in \\n alone";
    for stream in
        ["\n", "read a\n", "write a 5\nhello\r\n", "read\na\r\n", "\r \n", &format!("{}\n", "x".repeat(500))]
    {
        assert_closes(stream.as_bytes(), reply);
    }
    // It is told at once, not when the line ends.
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    decoder.feed(b"read a\n");
    assert!(matches!(decoder.next_event(), Some(TextEvent::Error { close: true, .. })));
}

#[test]
fn a_line_has_at_most_500_bytes() {
    let reply = "ERR_CMD_ERR the line is longer than 500 bytes";
    let line = |bytes: usize| format!("read a{}", " ".repeat(bytes - 6)).into_bytes();
    assert_eq!(events(&[&line(500)[..], b"\r\n"].concat()), [read("a")]);
    assert_eq!(events(&[&line(499)[..], b"\r\n"].concat()), [read("a")]);
    assert_closes(&[&line(501)[..], b"\r\n"].concat(), reply);
    assert_closes(&[&line(500)[..], b"\rx"].concat(), reply);
    assert_closes(&[&line(500)[..], b"\r\r\n"].concat(), reply);
    assert_closes(&line(5000), reply);
    // 500 bytes and a carriage return may still be a line; 501 others may not.
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    decoder.feed(&line(500));
    decoder.feed(b"\r");
    assert_eq!(decoder.next_event(), None);
    decoder.feed(b"\n");
    assert_eq!(decoder.next_event(), Some(read("a")));
    decoder.feed(&line(500));
    assert_eq!(decoder.next_event(), None);
    decoder.feed(b" ");
    assert!(matches!(decoder.next_event(), Some(TextEvent::Error { close: true, .. })));
}

#[test]
fn nothing_is_understood_or_kept_behind_a_close() {
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    decoder.feed(b"what\r\nread a\r\n");
    assert!(matches!(decoder.next_event(), Some(TextEvent::Error { close: true, .. })));
    for _ in 0..3 {
        assert_eq!(decoder.next_event(), None);
        assert_eq!(decoder.buffered_bytes(), 0);
        decoder.feed(b"read a\r\n");
    }
}

#[test]
fn contents_are_shared_with_the_receive_buffer() {
    let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
    let contents = vec![b'x'; 1000];
    let stream = [b"write a 1000\r\n", &contents[..], b"\r\nread b\r\n"].concat();
    let mut place = None;
    decoder
        .feed_from(|room| {
            room[..stream.len()].copy_from_slice(&stream);
            place = Some(room[14..].as_ptr());
            Ok::<_, Infallible>(stream.len())
        })
        .unwrap();
    match decoder.next_event() {
        Some(TextEvent::Command(TextCommand::Change(command))) => {
            assert_eq!(command.contents, contents);
            assert_eq!(Some(command.contents.as_ptr()), place);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(decoder.next_event(), Some(read("b")));
}

#[test]
fn replies_are_worded_as_the_protocol_says() {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let contents = Bytes::from_static(b"a\r\nb");
    let pieces = reply::contents(Version(7), 60, &contents);
    assert_eq!(text(&pieces.concat()), "CONTENTS 7 4 60\r\na\r\nb\r\n");
    assert_eq!(pieces[1].as_ptr(), contents.as_ptr(), "shared, not copied");
    assert_eq!(text(&reply::contents(Version(1), 0, &Bytes::new()).concat()), "CONTENTS 1 0 0\r\n\r\n");
    assert_eq!(text(&reply::written(Version(12))), "OK 12\r\n");
    assert_eq!(text(&reply::deleted()), "OK\r\n");
    assert_eq!(text(&reply::malformed("why")), "ERR_CMD_ERR why\r\n");
}

#[test]
fn refusals_begin_with_the_words_of_the_protocol() {
    let not_leader = |address: &str| Refusal::NotLeader {
        leader: fsd_wire::NodeId(2),
        address: address.into(),
        term: fsd_wire::Term(3),
    };
    let rows = [
        (Refusal::NotFound, "ERR_FILE_NOT_FOUND"),
        (Refusal::VersionMismatch { present: Version(0) }, "ERR_VERSION 0"),
        (Refusal::VersionMismatch { present: Version(9) }, "ERR_VERSION 9"),
        (Refusal::Conflict { with: "a/b".into() }, "ERR_INTERNAL conflict with a/b"),
        (Refusal::InvalidName { reason: "it is empty".into() }, "ERR_CMD_ERR invalid name: it is empty"),
        (Refusal::TooLarge { max_bytes: 5 }, "ERR_INTERNAL too large: a file may have 5 bytes"),
        (Refusal::BadRequest { reason: "odd".into() }, "ERR_CMD_ERR odd"),
        (not_leader("10.0.0.2:7202"), "ERR_REDIRECT 10.0.0.2:7202"),
        (not_leader("[::1]:7202"), "ERR_REDIRECT [::1]:7202"),
        (not_leader(""), "ERR_INTERNAL not the leader: node 2 leads, and has no text address"),
        (Refusal::NoLeader, "ERR_INTERNAL no leader"),
        (Refusal::Busy, "ERR_INTERNAL busy"),
        (Refusal::Unknown, "ERR_INTERNAL outcome unknown"),
        (Refusal::DiskFull { node: fsd_wire::NodeId(2) }, "ERR_INTERNAL disk full: node 2 has no room"),
        (Refusal::BadRequest { reason: "two\r\nlines\0".into() }, "ERR_CMD_ERR two??lines?"),
    ];
    for (refusal, reply) in rows {
        assert_eq!(reply::refused(&refusal), format!("{reply}\r\n"), "{refusal:?}");
    }
}

/// A stretch of a stream: good commands, broken ones, and noise made of what commands are made of.
fn stretch() -> impl Strategy<Value = Vec<u8>> {
    let name = || prop::sample::select(vec!["a", "a/b", "é", "..", "a/", "\0"]);
    let number = || {
        prop::sample::select(vec!["0", "1", "5", "60", "007", "1001", "-5", "x", "", "18446744073709551615"])
    };
    let contents = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::sample::select(vec![&b""[..], b"\r\n", b"\r", b"read a\r\n", b"write a 1\r\n"])
                .prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 995..1005),
        ]
    };
    let token = prop::sample::select(vec![
        &b"\r\n"[..],
        b"\r",
        b"\n",
        b" ",
        b"read",
        b"write",
        b"cas",
        b"delete",
        b"a",
        b"1",
        b"\xff",
    ]);
    prop_oneof![
        2 => (prop::sample::select(vec!["read", "delete"]), name())
            .prop_map(|(command, name)| format!("{command} {name}\r\n").into_bytes()),
        6 => (name(), number(), number(), contents(), any::<bool>()).prop_map(
            |(name, version, expiry, contents, cas)| {
                let len = contents.len();
                let line = if cas {
                    format!("cas {name} {version} {len} {expiry}\r\n")
                } else {
                    format!("write {name} {len} {expiry}\r\n")
                };
                [line.as_bytes(), &contents, b"\r\n"].concat()
            }
        ),
        1 => (490usize..505).prop_map(|count| [&vec![b' '; count][..], b"read a\r\n"].concat()),
        1 => (name(), number(), number()).prop_map(|(name, a, b)| format!("write {name} {a} {b}\r\n").into_bytes()),
        1 => prop::collection::vec(token, 1..8).prop_map(|tokens| tokens.concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn pieces_make_no_difference(
        stream in prop::collection::vec(stretch(), 1..8).prop_map(|stretches| stretches.concat()),
        pieces in prop::collection::vec(1usize..60, 1..40),
    ) {
        let whole = events(&stream);
        prop_assert_eq!(events_in_pieces(&stream, &pieces), whole);
    }

    /// What a client says well is understood as it was meant.
    #[test]
    fn good_commands_arrive_as_they_were_meant(
        commands in prop::collection::vec(
            (0u8..4, "[a-z]{1,5}(/[a-z]{1,5}){0,2}", any::<u64>(), any::<u64>(),
             prop::collection::vec(any::<u8>(), 0..200)),
            1..8,
        ),
        pieces in prop::collection::vec(1usize..300, 1..20),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (kind, name, version, expiry, contents) in &commands {
            let len = contents.len();
            let (line, event) = match kind {
                0 => (format!("read {name}\r\n"), read(name)),
                1 => (format!("delete {name}\r\n"), delete(name)),
                2 => (format!("write {name} {len} {expiry}\r\n"), write(name, *expiry, contents)),
                _ => (format!("cas {name} {version} {len} {expiry}\r\n"), cas(name, *version, *expiry, contents)),
            };
            stream.extend_from_slice(line.as_bytes());
            if *kind > 1 {
                stream.extend_from_slice(contents);
                stream.extend_from_slice(b"\r\n");
            }
            expected.push(event);
        }
        prop_assert_eq!(events_in_pieces(&stream, &pieces), expected);
    }

    #[test]
    fn random_bytes_are_answered_and_memory_stays_bounded(
        stream in prop::collection::vec(any::<u8>(), 0..4000),
        beginning in prop::sample::select(vec!["", "write a 900\r\n", "cas a 1 1001\r\n", "read a\r\nwrite "]),
    ) {
        let stream = [beginning.as_bytes(), &stream].concat();
        let mut decoder = TextDecoder::new(MAX_FILE_BYTES);
        for piece in stream.chunks(100) {
            decoder.feed(piece);
            while let Some(event) = decoder.next_event() {
                if let TextEvent::Error { error, .. } = event {
                    let reply = error.to_reply();
                    prop_assert!(reply.ends_with(b"\r\n"));
                    prop_assert!(!reply[..reply.len() - 2].iter().any(|byte| byte.is_ascii_control()));
                }
            }
            prop_assert!(decoder.buffered_bytes() <= MAX_FILE_BYTES as usize + 2);
        }
        prop_assert_eq!(events_in_pieces(&stream, &[7]), events_in_pieces(&stream, &[]));
    }
}

/// The example in the documentation, played against a store.
#[test]
fn the_documented_example_is_what_happens() {
    let document = include_str!("../../../docs/text-protocol.md");
    let example = document.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let lines = |mark: &str| -> String {
        example.lines().filter_map(|line| line.strip_prefix(mark)).flat_map(|line| [line, "\r\n"]).collect()
    };
    let mut store = crate::file_store::FileStore::new();
    let mut contents = Vec::new();
    let mut answers = Vec::new();
    for event in events(lines("> ").as_bytes()) {
        let answer = match event {
            TextEvent::Error { error, .. } => vec![error.to_reply()],
            TextEvent::Command(TextCommand::Read { name }) => match store.get(&name) {
                None => vec![reply::refused(&Refusal::NotFound)],
                Some(file) => {
                    let left = file.expiry_seconds_left(store.cluster_time());
                    reply::contents(file.version, left, &contents[file.contents.0 as usize]).to_vec()
                }
            },
            TextEvent::Command(TextCommand::Change(command)) => {
                vec![apply(&mut store, &mut contents, command)]
            }
        };
        answers.extend(answer);
    }
    assert_eq!(String::from_utf8(answers.concat()).unwrap(), lines("< "));
}

fn apply(store: &mut crate::file_store::FileStore, contents: &mut Vec<Bytes>, command: Command) -> Bytes {
    use crate::file_store::{Applied, ContentsAt};
    let entry = fsd_wire::Entry {
        index: store.last_applied().next(),
        term: fsd_wire::Term(1),
        stamp: fsd_wire::ClusterTimeMs(0),
        kind: fsd_wire::EntryKind::Command,
        payload: command.encode(),
    };
    let at = ContentsAt(contents.len() as u64);
    let is_delete = command.operation == Operation::Delete;
    contents.push(command.contents);
    match store.apply(&entry, at) {
        Applied::Changed { .. } if is_delete => reply::deleted(),
        Applied::Changed { version } => reply::written(version),
        Applied::Refused(refusal) => reply::refused(&refusal),
        other => panic!("a command does something else than {other:?}"),
    }
}
