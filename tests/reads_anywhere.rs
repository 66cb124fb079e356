//! Reads at every node of clusters of real daemons: they see each acknowledged write at once, through failovers, and
//! local reads go on without a leader.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::time::{Duration, Instant};

use fsclient::{ClientError, Connection, Operation, Outcome, Refusal};
use support::{PATIENCE, Reply, Settings, TestCluster, TextClient, wait_until};

/// Writes, each followed by a read at every node.
const WRITES: u32 = 240;
/// How often the leader is killed, and how long it stays away, in writes.
const KILL_EVERY: u32 = 60;
const AWAY: u32 = 25;

#[test]
fn a_follower_answers_both_protocols_and_leads_writers_to_the_leader() {
    let mut cluster = TestCluster::start(3);
    let mut client = cluster.client();
    let version = client.write("a", "contents", 0).unwrap();
    for follower in cluster.followers() {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::open(&cluster.nodes[follower].client, "", deadline).unwrap();
        let mut ask = |operation| {
            connection.submit(operation, deadline);
            connection.flush(deadline).unwrap();
            connection.receive(deadline).unwrap().outcome
        };
        let name = || "a".to_owned();
        match ask(Operation::Read { name: name() }) {
            Outcome::Read { version: found, contents, .. } => {
                assert_eq!((found, &contents[..]), (version, &b"contents"[..]));
            }
            other => panic!("{other:?}"),
        }
        assert!(
            matches!(ask(Operation::Stat { name: name() }), Outcome::Stat(info) if info.version == version)
        );
        let list = Operation::List { prefix: String::new(), after: String::new(), limit: 10 };
        assert!(matches!(ask(list), Outcome::Listed { files, more: false } if files.len() == 1));
        let missing = ask(Operation::Read { name: "missing".to_owned() });
        assert_eq!(missing, Outcome::Refused(Refusal::NotFound));

        let mut text = cluster.text(follower);
        assert_eq!(text.read("a").version(), version.0);
        assert!(text.read("missing").is_error("ERR_FILE_NOT_FOUND"));
        assert!(matches!(text.write("a", "x"), Reply::Redirect(_)));

        // Reads in a pipeline, all of one turn or few.
        text.send("read a\r\n".repeat(500));
        for _ in 0..500 {
            assert_eq!(text.reply().version(), version.0);
        }
    }
    cluster.compare_all_nodes();
}

#[test]
fn reads_at_every_node_see_each_acknowledged_write_at_once() {
    let mut cluster = TestCluster::start(5);
    let mut client = cluster.client();
    let mut readers: Vec<Option<TextClient>> = (0..5).map(|n| Some(cluster.text(n))).collect();
    let (mut acknowledged, mut answered, mut away) = (0, [0; 5], None);
    for n in 0..WRITES {
        match n % KILL_EVERY {
            0 if n > 0 => {
                let leader = cluster.wait_for_leader();
                cluster.kill_9(leader);
                readers[leader] = None;
                away = Some(leader);
            }
            AWAY => {
                if let Some(node) = away.take() {
                    cluster.restart(node);
                    readers[node] = Some(cluster.text(node));
                }
            }
            _ => {}
        }
        match client.write("f", format!("{n}"), 0) {
            Ok(version) => acknowledged = version.0,
            Err(ClientError::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        // All nodes at once, right after the acknowledgement.
        readers.iter_mut().flatten().for_each(|reader| reader.send("read f\r\n"));
        for (node, reader) in readers.iter_mut().enumerate() {
            let Some(reader) = reader else { continue };
            match reader.reply() {
                Reply::Contents { version, .. } => {
                    assert!(version >= acknowledged, "node {node} has {version} of {acknowledged}");
                    answered[node] += 1;
                }
                // Around a failover a node may not know a leader; it must say so.
                reply => assert!(reply.is_internal("no leader") || matches!(reply, Reply::Redirect(_))),
            }
        }
    }
    eprintln!("answered of {WRITES}: {answered:?}");
    // Failovers are short: by far the most reads are answered, at every node.
    assert!(answered.iter().all(|count| *count > WRITES / 2), "{answered:?}");
    // With a leader that all follow, every node answers.
    cluster.wait_for_leader();
    cluster.wait_until_caught_up(&[0, 1, 2, 3, 4]);
    for n in 0..5 {
        assert!(cluster.text(n).read("f").version() >= acknowledged);
    }
    cluster.compare_all_nodes();
}

#[test]
fn a_file_seen_gone_at_one_node_is_gone_at_all() {
    let mut cluster = TestCluster::start(3);
    let mut client = cluster.client();
    let mut readers: Vec<TextClient> = (0..3).map(|n| cluster.text(n)).collect();
    for round in 0..3 {
        let name = format!("lock/{round}");
        client.write(&name, "x", 1).unwrap();
        let first = round % 3;
        let mut last_left = 1;
        wait_until(PATIENCE, "the file expires", || match readers[first].read(&name) {
            Reply::Contents { expiry_seconds, .. } => {
                assert!((1..=last_left).contains(&expiry_seconds));
                last_left = expiry_seconds;
                false
            }
            reply => {
                assert!(reply.is_error("ERR_FILE_NOT_FOUND"), "{reply:?}");
                true
            }
        });
        for reader in &mut readers {
            assert!(reader.read(&name).is_error("ERR_FILE_NOT_FOUND"));
        }
    }
    cluster.compare_all_nodes();
}

#[test]
fn local_reads_go_on_without_a_leader() {
    let settings = Settings { local_text_reads: true, ..Settings::default() };
    let mut cluster = TestCluster::start_with(3, settings);
    let version = cluster.client().write("f", "contents", 0).unwrap();
    cluster.wait_until_caught_up(&[0, 1, 2]);
    let left = cluster.a_follower();
    let others: Vec<usize> = (0..3).filter(|n| *n != left).collect();
    others.iter().for_each(|n| cluster.kill_9(*n));
    let mut text = cluster.text(left);
    assert_eq!(text.read("f").version(), version.0);
    let mut linearizable = cluster.client_of(&[left]).with_timeout(Duration::from_secs(3));
    let error = linearizable.read("f").unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert_eq!(text.read("f").version(), version.0);
    assert!(text.read("missing").is_error("ERR_FILE_NOT_FOUND"));
    assert!(text.write("f", "x").is_internal("no leader"));
    cluster.launch(&others);
    cluster.wait_for_leader();
    cluster.compare_all_nodes();
}
