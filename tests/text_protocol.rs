//! The text protocol at a real daemon: each row and each error rule, commands in any pieces, many clients.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::sync::Barrier;

use support::{PATIENCE, Reply, Settings, TestCluster, TextClient, wait_until};

/// Large enough for every test here, small enough to be exceeded cheaply.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A cluster of one, whose text port is all that matters here.
fn single() -> TestCluster {
    TestCluster::start_with(1, Settings { max_file_bytes: MAX_FILE_BYTES, ..Settings::default() })
}

fn contents(version: u64, contents: &[u8]) -> Reply {
    Reply::Contents { version, expiry_seconds: 0, contents: contents.to_vec() }
}

#[test]
fn each_row() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    assert!(client.read("a").is_error("ERR_FILE_NOT_FOUND"));
    let first = client.write("a", "one").version();
    assert_eq!(client.read("a"), contents(first, b"one"));
    let second = client.write("a", "two").version();
    assert!(second > first);
    assert_eq!(client.cas("a", first, "three"), Reply::Mismatch(second));
    let third = client.cas("a", second, "three").version();
    assert_eq!(client.read("a"), contents(third, b"three"));
    assert_eq!(client.cas("new", third, "x"), Reply::Mismatch(0));
    assert_eq!(client.cas("a", 0, "x"), Reply::Mismatch(third));
    let created = client.cas("new", 0, "").version();
    assert_eq!(client.read("new"), contents(created, b""));
    assert_eq!(client.delete("new"), Reply::Ok);
    assert!(client.delete("new").is_error("ERR_FILE_NOT_FOUND"));
    assert!(client.write("new", "again").version() > created, "a name never gets an old version back");
    cluster.compare_all_nodes();
}

#[test]
fn expiry_is_what_remains_and_each_write_replaces_it() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let expiry = |reply: Reply| match reply {
        Reply::Contents { expiry_seconds, .. } => expiry_seconds,
        other => panic!("{other:?}"),
    };
    client.ask("write a 1 1000\r\nx\r\n").version();
    let remaining = expiry(client.read("a"));
    assert!((990..=1000).contains(&remaining), "{remaining}");
    let version = client.ask("write a 1 0\r\nx\r\n").version();
    assert_eq!(expiry(client.read("a")), 0);
    client.ask(format!("cas a {version} 1 1\r\nx\r\n")).version();
    assert_eq!(expiry(client.read("a")), 1, "rounded up, never 0 while it is there");
    wait_until(PATIENCE, "the file expires", || client.read("a").is_error("ERR_FILE_NOT_FOUND"));
    assert!(client.delete("a").is_error("ERR_FILE_NOT_FOUND"));
    let forever = client.write("a", "x").version();
    assert!(forever > version);
    cluster.compare_all_nodes();
}

#[test]
fn after_an_error_of_which_the_end_can_be_told_the_connection_goes_on() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let long_part = "p".repeat(256);
    let skipped = [
        // A bad VERSION or EXPTIME.
        "cas a x 4\r\nread\r\n".to_owned(),
        "cas a -1 4\r\nread\r\n".to_owned(),
        "cas a 1.5 4\r\nread\r\n".to_owned(),
        "cas a 99999999999999999999 4\r\nread\r\n".to_owned(),
        "write a 4 soon\r\nread\r\n".to_owned(),
        "write a 4 -5\r\nread\r\n".to_owned(),
        "cas a 1 4 -5\r\nread\r\n".to_owned(),
        // An invalid name, with contents that look like commands.
        "write /a 9\r\ndelete b\n\r\n".to_owned(),
        "write a/ 4\r\nread\r\n".to_owned(),
        "write a//b 4\r\nread\r\n".to_owned(),
        "write ../a 4\r\nread\r\n".to_owned(),
        "write a/./b 4\r\nread\r\n".to_owned(),
        format!("write {long_part} 4\r\nread\r\n"),
        "cas a\u{1} 0 4\r\nread\r\n".to_owned(),
        "read /a\r\n".to_owned(),
        "delete a/..\r\n".to_owned(),
    ];
    for command in &skipped {
        let reply = client.ask(command);
        assert!(reply.is_error("ERR_CMD_ERR"), "{command:?}: {reply:?}");
        assert!(client.read("a").is_error("ERR_FILE_NOT_FOUND"), "behind {command:?}");
    }
    cluster.compare_all_nodes();
}

#[test]
fn contents_over_the_limit_are_skipped_however_many() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let limit = vec![b'x'; usize::try_from(MAX_FILE_BYTES).unwrap()];
    let version = client.write("a", &limit).version();
    assert_eq!(client.read("a"), contents(version, &limit));
    for more in [1, 10 * 1024 * 1024] {
        let over = vec![b'\n'; limit.len() + more];
        assert!(client.write("a", &over).is_internal("too large"));
        assert_eq!(client.read("a"), contents(version, &limit));
    }
    cluster.compare_all_nodes();
}

#[test]
fn after_an_error_of_which_the_end_cannot_be_told_the_connection_is_closed() {
    let mut cluster = single();
    let long_line = format!("read {}\r\n", "a".repeat(496));
    let endless_line = "x".repeat(100_000);
    let closing: [&[u8]; 16] = [
        b"frobnicate a\r\n",
        b"READ a\r\n",
        b"\r\n",
        b"write a x\r\nread\r\n",
        b"write a -1\r\n",
        b"write a 99999999999999999999\r\n",
        b"write a 1.0\r\nx\r\n",
        b"cas a 1 four\r\nread\r\n",
        b"cas a 0 -1\r\n",
        b"write a 3\r\nabcdef\r\n",
        b"write a 3\r\nabc\n\n",
        b"write a\r\n",
        b"cas a 1\r\n",
        b"\x00\xff\xfe\r\n",
        long_line.as_bytes(),
        endless_line.as_bytes(),
    ];
    for command in closing {
        let shown = String::from_utf8_lossy(&command[..command.len().min(60)]).into_owned();
        let mut client = cluster.text(0);
        // What follows must not be taken for a command any more. The node may have closed before it came.
        client.try_send(command);
        client.try_send("write never 1\r\nx\r\n");
        let reply = client.reply();
        assert!(reply.is_error("ERR_CMD_ERR"), "{shown:?}: {reply:?}");
        assert!(client.is_closed(), "behind {shown:?}");
    }
    let mut client = cluster.text(0);
    assert!(client.read("never").is_error("ERR_FILE_NOT_FOUND"));
    assert!(client.read("a").is_error("ERR_FILE_NOT_FOUND"));
    cluster.compare_all_nodes();
}

#[test]
fn commands_without_their_operands_are_errors_and_nothing_more() {
    let mut cluster = single();
    for command in ["delete\r\n", "read\r\n", "delete a b\r\n", "read a b\r\n", "delete \r\n"] {
        let mut client = cluster.text(0);
        let reply = client.ask(command);
        assert!(reply.is_error("ERR_CMD_ERR"), "{command:?}: {reply:?}");
    }
    assert!(cluster.text(0).write("a", "x").version() > 0);
    cluster.compare_all_nodes();
}

#[test]
fn the_longest_first_line_is_500_bytes() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    // Parts of at most 255 bytes; "read " and the name are 500 bytes.
    let name = format!("{}/{}", "a".repeat(255), "b".repeat(239));
    assert!(client.read(&name).is_error("ERR_FILE_NOT_FOUND"));
    let mut client = cluster.text(0);
    assert!(client.read(&format!("{name}b")).is_error("ERR_CMD_ERR"));
    assert!(client.is_closed());
    cluster.compare_all_nodes();
}

#[test]
fn conflicts_are_told() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let file = client.write("a", "x").version();
    let below = client.write("d/b", "x").version();
    assert!(client.write("a/b", "x").is_internal("conflict"));
    assert!(client.cas("a/b/c", 0, "x").is_internal("conflict"));
    assert!(client.write("d", "x").is_internal("conflict"));
    assert_eq!(client.read("a"), contents(file, b"x"));
    assert_eq!(client.read("d/b"), contents(below, b"x"));
    assert!(client.read("d").is_error("ERR_FILE_NOT_FOUND"), "a directory is no file");
    assert_eq!(client.delete("a"), Reply::Ok);
    assert!(client.write("a/b", "x").version() > below, "the name is free now");
    cluster.compare_all_nodes();
}

#[test]
fn any_bytes_are_contents() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let all_bytes: Vec<u8> = (0..=255).collect();
    let samples: [&[u8]; 7] = [
        b"read a\r\n",
        b"\r\n",
        b"\r\ndelete a\r\n",
        b"write a 5\r\nhello\r\n",
        b"",
        &all_bytes,
        &[0; 10_000],
    ];
    for sample in samples {
        let version = client.write("a", sample).version();
        assert_eq!(client.read("a"), contents(version, sample));
    }
    cluster.compare_all_nodes();
}

/// A conversation of many kinds of commands, and what its replies are.
fn conversation() -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let commands: [&[u8]; 10] = [
        b"write a 5\r\nhello\r\n",
        b"read a\r\n",
        b"read missing\r\n",
        b"cas a 0 1\r\nx\r\n",
        b"write b 8 100\r\n\r\nread\r\n\r\n",
        b"read b\r\n",
        b"write /bad 6\r\nread a\r\n",
        b"delete a\r\n",
        b"delete a\r\n",
        b"read a\r\n",
    ];
    commands.iter().for_each(|command| bytes.extend_from_slice(command));
    (bytes, commands.len())
}

fn check_conversation(client: &mut TextClient, count: usize) {
    let replies: Vec<Reply> = (0..count).map(|_| client.reply()).collect();
    let version = replies[0].version();
    assert_eq!(replies[1], contents(version, b"hello"));
    assert!(replies[2].is_error("ERR_FILE_NOT_FOUND"));
    assert_eq!(replies[3], Reply::Mismatch(version));
    assert!(replies[4].version() > version);
    assert!(matches!(&replies[5], Reply::Contents { contents, .. } if contents == b"\r\nread\r\n"));
    assert!(replies[6].is_error("ERR_CMD_ERR"));
    assert_eq!(replies[7], Reply::Ok);
    assert!(replies[8].is_error("ERR_FILE_NOT_FOUND"));
    assert!(replies[9].is_error("ERR_FILE_NOT_FOUND"));
}

#[test]
fn commands_may_come_in_single_bytes_or_all_at_once() {
    let mut cluster = single();
    let (bytes, count) = conversation();
    for piece_bytes in [1, 2, 3, 7, bytes.len()] {
        let mut client = cluster.text(0);
        for piece in bytes.chunks(piece_bytes) {
            client.send(piece);
        }
        check_conversation(&mut client, count);
    }
    cluster.compare_all_nodes();
}

#[test]
fn pipelined_commands_are_answered_in_their_order() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let count = 2000;
    let mut bytes = Vec::new();
    for n in 0..count {
        let text = format!("contents {n}");
        bytes.extend_from_slice(format!("write a {}\r\n{text}\r\nread a\r\n", text.len()).as_bytes());
    }
    client.send(&bytes);
    for n in 0..count {
        let version = client.reply().version();
        assert_eq!(client.reply(), contents(version, format!("contents {n}").as_bytes()));
    }
    cluster.compare_all_nodes();
}

#[test]
fn the_end_of_the_stream_within_a_command_does_nothing() {
    let mut cluster = single();
    for part in ["write a 10\r\nhello", "write a 5\r\nhello", "write a 5\r\nhello\r", "rea", "write a"] {
        let mut client = cluster.text(0);
        client.send(part);
        client.finish_sending();
        assert!(client.try_reply().is_none_or(|reply| reply.is_error("ERR_CMD_ERR")), "{part:?}");
    }
    assert!(cluster.text(0).read("a").is_error("ERR_FILE_NOT_FOUND"));
    cluster.compare_all_nodes();
}

#[test]
fn what_was_asked_before_the_end_of_the_stream_is_answered() {
    let mut cluster = single();
    let mut client = cluster.text(0);
    let (bytes, count) = conversation();
    client.send(&bytes);
    client.finish_sending();
    check_conversation(&mut client, count);
    assert!(client.is_closed());
    cluster.compare_all_nodes();
}

#[test]
fn five_hundred_clients_write_one_file_at_once() {
    const CLIENTS: usize = 500;
    let mut cluster = TestCluster::start(3);
    let leader = cluster.wait_for_leader();
    let address = cluster.nodes[leader].text.clone();
    let barrier = Barrier::new(CLIENTS);
    let mut written: Vec<(u64, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (barrier, address) = (&barrier, &address);
                scope.spawn(move || {
                    let mut client = TextClient::connect(address);
                    barrier.wait();
                    (client.write("one", format!("client {n}")).version(), n)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    written.sort_unstable();
    assert!(written.is_sorted_by(|a, b| a.0 < b.0), "each write has a version of its own");
    let (version, last) = written[CLIENTS - 1];
    assert_eq!(cluster.text(leader).read("one"), contents(version, format!("client {last}").as_bytes()));
    cluster.compare_all_nodes();
}

#[test]
fn a_hundred_clients_count_by_cas() {
    const CLIENTS: usize = 100;
    const INCREMENTS: usize = 5;
    let mut cluster = TestCluster::start(3);
    let leader = cluster.wait_for_leader();
    let address = cluster.nodes[leader].text.clone();
    TextClient::connect(&address).write("counter", "0").version();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = TextClient::connect(&address);
                for _ in 0..INCREMENTS {
                    increment(&mut client);
                }
            });
        }
    });
    let Reply::Contents { contents, .. } = cluster.text(leader).read("counter") else { panic!("no counter") };
    assert_eq!(String::from_utf8(contents).unwrap(), (CLIENTS * INCREMENTS).to_string());
    cluster.compare_all_nodes();
}

fn increment(client: &mut TextClient) {
    loop {
        let Reply::Contents { version, contents, .. } = client.read("counter") else { panic!("no counter") };
        let count: u64 = String::from_utf8(contents).unwrap().parse().unwrap();
        match client.cas("counter", version, (count + 1).to_string()) {
            Reply::Written(new) => return assert!(new > version),
            Reply::Mismatch(present) => assert!(present > version, "a mismatch names a later version"),
            reply => panic!("{reply:?}"),
        }
    }
}

#[test]
fn without_a_quorum_a_write_is_unknown_or_refused_within_its_time_and_a_read_refused() {
    let mut cluster = TestCluster::start(3);
    let leader = cluster.wait_for_leader();
    let mut client = cluster.text(leader);
    client.write("a", "x").version();
    for n in cluster.followers() {
        cluster.kill_9(n);
    }
    // The leader does not know yet: the write waits, and is not acknowledged.
    let reply = client.write("a", "never acknowledged");
    assert!(reply.is_internal("outcome unknown") || reply.is_internal("no leader"), "{reply:?}");
    assert!(client.read("a").is_internal("no leader"));
    assert!(client.write("a", "refused at once").is_internal("no leader"));
    cluster.compare_all_nodes();
}
