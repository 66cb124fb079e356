//! Clusters of real daemons on loopback: nodes are killed, stopped, cut off from their data, and nothing that
//! was acknowledged is ever lost. Each test ends by comparing all nodes' logs and stores.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fsclient::{Client, ClientError, Connection, Operation, Outcome, Refusal, Version};
use support::{Ledger, PATIENCE, Reply, Settings, TestCluster, wait_until};

/// How long a request is tried where no answer is expected.
const HOPELESS: Duration = Duration::from_secs(3);

#[test]
fn clusters_of_1_3_and_7_nodes_serve() {
    for count in [1, 3, 7] {
        let mut cluster = TestCluster::start(count);
        let mut client = cluster.client();
        let version = client.write("a", "x", 0).unwrap();
        assert_eq!(client.read("a").unwrap().version, version, "{count} nodes");
        cluster.compare_all_nodes();
    }
}

#[test]
fn five_nodes_started_in_random_order_serve_both_protocols() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut order: Vec<usize> = (0..5).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let mut cluster = TestCluster::start_in_order(5, Settings::default(), &order);

    let mut client = cluster.client();
    let mut text = cluster.text(cluster.wait_for_leader());

    // What one protocol writes, the other reads, and versions grow over both.
    let first = client.write("dir/a", "by binary", 0).unwrap();
    let Reply::Contents { version, expiry_seconds: 0, contents } = text.read("dir/a") else {
        panic!("not readable by text");
    };
    assert_eq!((version, &contents[..]), (first.0, &b"by binary"[..]));
    let second = text.cas("dir/a", first.0, "by text").version();
    assert!(second > first.0);
    let file = client.read("dir/a").unwrap();
    assert_eq!((file.version, &file.contents[..]), (Version(second), &b"by text"[..]));
    let error = client.cas("dir/a", first, "late", 0).unwrap_err();
    let present = Version(second);
    assert!(matches!(error, ClientError::Refused(Refusal::VersionMismatch { present: p }) if p == present));
    assert_eq!(text.cas("dir/a", first.0, "late"), Reply::Mismatch(second));

    // cas with version 0 creates, and only that.
    let third = text.cas("dir/b", 0, "new").version();
    assert_eq!(text.cas("dir/b", 0, "again"), Reply::Mismatch(third));
    assert_eq!(text.cas("missing", 7, "x"), Reply::Mismatch(0));

    // A name is a file or a directory.
    let error = client.write("dir", "x", 0).unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::Conflict { .. })), "{error}");
    assert!(text.write("dir/a/b", "x").is_internal("conflict"));

    let names = |client: &mut Client, prefix: &str| -> Vec<String> {
        client.list(prefix).unwrap().into_iter().map(|file| file.name).collect()
    };
    client.write("dir-", "", 0).unwrap();
    assert_eq!(names(&mut client, ""), ["dir-", "dir/a", "dir/b"]);
    assert_eq!(names(&mut client, "dir/"), ["dir/a", "dir/b"]);
    let info = client.stat("dir/b").unwrap();
    assert_eq!((info.version.0, info.size_bytes, info.expiry_seconds), (third, 3, 0));

    let error = client.delete("dir/b", Some(Version(second))).unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::VersionMismatch { .. })), "{error}");
    assert!(client.delete("dir/b", Some(Version(third))).unwrap() > Version(third));
    assert_eq!(text.delete("dir/a"), Reply::Ok);
    assert!(text.delete("dir/a").is_error("ERR_FILE_NOT_FOUND"));
    assert!(matches!(client.read("dir/a").unwrap_err(), ClientError::Refused(Refusal::NotFound)));
    assert_eq!(names(&mut client, ""), ["dir-"]);
    // The directory went with its last file: its name is free.
    let fourth = client.write("dir", "now a file", 0).unwrap();
    assert!(fourth > Version(third));
    cluster.compare_all_nodes();
}

#[test]
fn a_list_longer_than_a_page_is_whole_and_in_order() {
    let mut cluster = TestCluster::start(3);
    let names: Vec<String> = (0..2500).map(|n| format!("d{}/{n:05}", n % 7)).collect();
    let leader = cluster.wait_for_leader();
    let deadline = Instant::now() + PATIENCE;
    let mut connection = Connection::open(&cluster.nodes[leader].client, "", deadline).unwrap();
    for some in names.chunks(100) {
        for name in some {
            let command = fsclient::Command {
                operation: fsd_wire::Operation::Write { expiry_seconds: 0 },
                name: name.clone(),
                contents: bytes::Bytes::new(),
            };
            connection.submit(Operation::Change { command: command.encode() }, deadline);
        }
        connection.flush(deadline).unwrap();
        for _ in some {
            let reply = connection.receive(deadline).unwrap();
            assert!(matches!(reply.outcome, Outcome::Changed { .. }), "{reply:?}");
        }
    }
    let mut expected = names;
    expected.sort();
    let listed: Vec<String> = cluster.client().list("").unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(listed, expected);
    cluster.compare_all_nodes();
}

/// Writes until `stop`, under names of its own: most of them new, one again and again.
fn write_until(mut client: Client, stop: &AtomicBool, acknowledged: &AtomicU64, writer: usize) -> Ledger {
    let mut ledger = Ledger::default();
    for n in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = if n % 4 == 0 { format!("same/{writer}") } else { format!("new/{writer}/{n}") };
        if ledger.write(&mut client, &name, format!("{writer} wrote {n}").as_bytes()) {
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }
    ledger
}

/// Runs `disturb` while clients write, and returns what they were told. `disturb` gets the count of
/// acknowledged writes, to see that the cluster goes on.
fn under_continuous_writes(
    cluster: &mut TestCluster,
    writers: usize,
    disturb: impl FnOnce(&mut TestCluster, &AtomicU64),
) -> Ledger {
    let stop = AtomicBool::new(false);
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // A failed disturbance must not leave the writers running for ever.
        let stop_writers = StopOnDrop(&stop);
        let (stop, acknowledged) = (&stop, &acknowledged);
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let client = cluster.client();
                scope.spawn(move || write_until(client, stop, acknowledged, writer))
            })
            .collect();
        disturb(cluster, acknowledged);
        drop(stop_writers);
        let mut ledger = Ledger::default();
        for thread in threads {
            ledger.merge(thread.join().unwrap());
        }
        ledger
    })
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until so many more writes are acknowledged.
fn wait_for_progress(acknowledged: &AtomicU64, more: u64) {
    let goal = acknowledged.load(Ordering::SeqCst) + more;
    wait_until(PATIENCE, &format!("{more} more writes are acknowledged"), || {
        acknowledged.load(Ordering::SeqCst) >= goal
    });
}

#[test]
fn kill_9_of_the_leader_again_and_again_loses_nothing() {
    let mut cluster = TestCluster::start(5);
    let ledger = under_continuous_writes(&mut cluster, 4, |cluster, acknowledged| {
        for _ in 0..6 {
            wait_for_progress(acknowledged, 50);
            let leader = cluster.wait_for_leader();
            cluster.kill_9(leader);
            wait_for_progress(acknowledged, 50);
            cluster.restart(leader);
        }
    });
    assert!(ledger.acknowledged() > 300);
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
}

#[test]
fn kill_9_of_any_two_nodes_again_and_again_loses_nothing() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = TestCluster::start(5);
    let ledger = under_continuous_writes(&mut cluster, 3, |cluster, acknowledged| {
        for _ in 0..5 {
            let mut victims: Vec<usize> = (0..5).collect();
            random.shuffle(&mut victims);
            victims.truncate(2);
            wait_for_progress(acknowledged, 30);
            victims.iter().for_each(|n| cluster.kill_9(*n));
            wait_for_progress(acknowledged, 30);
            cluster.launch(&victims);
        }
    });
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
}

#[test]
fn with_two_nodes_down_all_works_and_with_three_nothing_is_pretended() {
    let mut cluster = TestCluster::start(5);
    let mut ledger = Ledger::default();
    let mut client = cluster.client();
    assert!(ledger.write(&mut client, "before", b"five"));

    let leader = cluster.wait_for_leader();
    let follower = cluster.a_follower();
    cluster.kill_9(leader);
    cluster.kill_9(follower);
    assert!(ledger.write(&mut client, "two-down", b"three left"));
    let created = client.cas("cas", Version(0), "x", 0).unwrap();
    client.delete("cas", Some(created)).unwrap();
    assert_eq!(client.list("").unwrap().len(), 2);

    let third = cluster.wait_for_leader();
    cluster.kill_9(third);
    let left: Vec<usize> = (0..5).filter(|n| cluster.nodes[*n].is_running()).collect();
    let mut hopeless = cluster.client().with_timeout(HOPELESS);
    assert!(!ledger.write(&mut hopeless, "three-down", b"two left"), "no majority, no acknowledgement");
    for error in [hopeless.read("before").unwrap_err(), hopeless.list("").unwrap_err()] {
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    }
    for n in &left {
        assert!(cluster.text(*n).read("before").is_internal("no leader"), "by text, at node {n}");
    }
    // They still tell how they are.
    let statuses = cluster.statuses();
    assert_eq!(statuses.len(), 2);
    assert!(statuses.iter().all(|(_, status)| status.role != fsclient::NodeRole::Leader), "{statuses:?}");

    cluster.launch(&[leader, follower, third]);
    cluster.wait_for_leader();
    assert!(ledger.write(&mut client, "after", b"five again"));
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}

#[test]
fn all_five_killed_at_once_and_started_again_lose_nothing() {
    let mut cluster = TestCluster::start(5);
    let mut ledgers = Vec::new();
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let acknowledged = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let stop_writers = StopOnDrop(&stop);
            // With nobody up, a writer's patience would be the length of the test.
            let client = cluster.client().with_timeout(HOPELESS);
            let (stop, acknowledged) = (&stop, &acknowledged);
            let writer = scope.spawn(move || write_until(client, stop, acknowledged, round));
            wait_for_progress(acknowledged, 100);
            cluster.kill_all();
            drop(stop_writers);
            ledgers.push(writer.join().unwrap());
        });
        cluster.launch(&[3, 1, 4, 0, 2]);
        cluster.wait_for_leader();
        for ledger in &ledgers {
            ledger.verify(&mut cluster.client());
        }
    }
    cluster.compare_all_nodes();
}

#[test]
fn a_node_that_was_away_catches_up() {
    let mut cluster = TestCluster::start(5);
    let away = cluster.a_follower();
    cluster.kill_9(away);
    let mut client = cluster.client();
    let mut ledger = Ledger::default();
    // More than one message and more than one segment.
    let contents = vec![b'x'; 100_000];
    for n in 0..60 {
        assert!(ledger.write(&mut client, &format!("large/{n}"), &[&contents[..], &[n]].concat()));
    }
    cluster.restart(away);
    cluster.wait_until_caught_up(&[away]);
    // It really has them: with two others gone, it is needed for the majority.
    let others: Vec<usize> = (0..5).filter(|n| *n != away).collect();
    cluster.kill_9(others[0]);
    cluster.kill_9(others[1]);
    assert!(ledger.write(&mut client, "after", b"with the node that was away"));
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}

#[test]
fn a_node_whose_data_was_deleted_comes_back_by_itself() {
    let mut cluster = TestCluster::start(5);
    let mut client = cluster.client();
    let mut ledger = Ledger::default();
    for n in 0..50 {
        assert!(ledger.write(&mut client, &format!("f/{n}"), format!("contents {n}").as_bytes()));
    }
    // First a follower, then whoever leads.
    for wiped in [cluster.a_follower(), cluster.wait_for_leader()] {
        cluster.kill_9(wiped);
        cluster.nodes[wiped].wipe();
        cluster.restart(wiped);
        cluster.wait_until_caught_up(&[wiped]);
        assert!(ledger.write(&mut client, &format!("after/{wiped}"), b"goes on"));
    }
    // In the end both count again: with two others gone, no majority is without one of them.
    let statuses = cluster.statuses();
    assert_eq!(statuses.len(), 5, "{statuses:?}");
    for _ in 0..2 {
        let leader = cluster.wait_for_leader();
        cluster.kill_9(leader);
    }
    assert!(ledger.write(&mut client, "end", b"three of five"));
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}

/// One node lags, one is wiped, one is down: the two that are up are a majority of three, and between them they
/// know nothing of what was acknowledged. They must not elect a leader; with the third they must.
#[test]
fn a_wiped_node_does_not_help_a_lagging_one_to_lead() {
    let mut cluster = TestCluster::start(3);
    let mut client = cluster.client();
    let mut ledger = Ledger::default();
    assert!(ledger.write(&mut client, "early", b"all three have it"));
    let everybody = [0, 1, 2];
    cluster.wait_until_caught_up(&everybody);
    let down = cluster.wait_for_leader();
    let [lagging, wiped] = cluster.followers()[..] else { panic!("two followers") };
    cluster.kill_9(lagging);
    for n in 0..20 {
        assert!(ledger.write(&mut client, &format!("late/{n}"), b"the lagging node lacks it"));
    }
    cluster.kill_all();
    cluster.nodes[wiped].wipe();

    cluster.launch(&[lagging, wiped]);
    assert_no_leader_emerges(&mut cluster, &mut ledger);

    cluster.restart(down);
    cluster.wait_for_leader();
    ledger.verify(&mut client);
    assert!(ledger.write(&mut client, "end", b"all is well"));
    cluster.wait_until_caught_up(&everybody);
    cluster.compare_all_nodes();
}

/// The same with five: two lag, one is wiped, two are down. The three that are up are a majority.
#[test]
fn a_wiped_node_does_not_help_two_lagging_ones_to_lead() {
    let mut cluster = TestCluster::start(5);
    let mut client = cluster.client();
    let mut ledger = Ledger::default();
    assert!(ledger.write(&mut client, "early", b"all five have it"));
    cluster.wait_until_caught_up(&[0, 1, 2, 3, 4]);
    let leader = cluster.wait_for_leader();
    let [lagging, also_lagging, wiped, down] = cluster.followers()[..] else { panic!("four followers") };
    cluster.kill_9(lagging);
    cluster.kill_9(also_lagging);
    for n in 0..20 {
        assert!(ledger.write(&mut client, &format!("late/{n}"), b"the lagging nodes lack it"));
    }
    cluster.kill_all();
    cluster.nodes[wiped].wipe();

    cluster.launch(&[lagging, also_lagging, wiped]);
    assert_no_leader_emerges(&mut cluster, &mut ledger);

    // One node that has everything is enough: with the lagging two it is an intact majority.
    cluster.restart(down);
    cluster.wait_for_leader();
    ledger.verify(&mut client);
    cluster.restart(leader);
    assert!(ledger.write(&mut client, "end", b"all is well"));
    cluster.compare_all_nodes();
}

/// Watches for many election timeouts, with a client that tries all the time.
fn assert_no_leader_emerges(cluster: &mut TestCluster, ledger: &mut Ledger) {
    let mut hopeless = cluster.client().with_timeout(HOPELESS);
    assert!(!ledger.write(&mut hopeless, "too-early", b"must not be acknowledged"));
    assert_eq!(cluster.leader(), None);
    let error = hopeless.read("early").unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert_eq!(cluster.leader(), None);
}

#[test]
fn a_stopped_leader_is_replaced_and_never_answers_with_the_past() {
    let mut cluster = TestCluster::start(5);
    for round in 0..3 {
        cluster.client().write("f", format!("old {round}"), 0).unwrap();
        let old_leader = cluster.wait_for_leader();
        let mut reader = cluster.text(old_leader);
        assert!(matches!(reader.read("f"), Reply::Contents { .. }), "the connection is taken by its leader");
        let mut writer = cluster.text(old_leader);
        assert!(writer.write("g", "before").version() > 0);
        cluster.nodes[old_leader].stop();
        // Both lie in the stopped node's sockets until it goes on.
        reader.send("read f\r\n");
        writer.send("write g 5\r\nstale\r\n");
        let new_leader = cluster.wait_for_leader();
        assert_ne!(new_leader, old_leader);
        // Not the client from before: its connection leads to the stopped node, which would keep it waiting.
        let mut client = cluster.client_of(&[new_leader]);
        let version = client.write("f", format!("new {round}"), 0).unwrap();
        let other = client.write("g", "after", 0).unwrap();
        cluster.nodes[old_leader].cont();
        match reader.reply() {
            Reply::Contents { version: found, contents, .. } => {
                assert_eq!((found, contents), (version.0, format!("new {round}").into_bytes()));
            }
            Reply::Redirect(_) => {}
            reply => assert!(reply.is_internal(""), "{reply:?}"),
        }
        // The old leader may find the write before it finds out that it leads no more. Whatever it answers
        // must be true.
        let reply = writer.reply();
        let file = client.read("g").unwrap();
        match reply {
            Reply::Written(version) => {
                assert_eq!((file.version.0, &file.contents[..]), (version, &b"stale"[..]))
            }
            Reply::Redirect(_) => assert_eq!((file.version, &file.contents[..]), (other, &b"after"[..])),
            reply => assert!(reply.is_internal(""), "{reply:?}"),
        }
        cluster.wait_until_caught_up(&[old_leader]);
    }
    cluster.compare_all_nodes();
}

/// It still believes that it leads, and has all it needs to answer but the certainty.
#[test]
fn a_leader_that_reaches_nobody_answers_no_read_and_acknowledges_no_write() {
    let mut cluster = TestCluster::start(3);
    let leader = cluster.wait_for_leader();
    let followers = cluster.followers();
    let mut reader = cluster.text(leader);
    let mut writer = cluster.text(leader);
    let version = writer.write("f", "contents").version();
    assert_eq!(reader.read("f").version(), version);
    followers.iter().for_each(|n| cluster.nodes[*n].stop());
    reader.send("read f\r\n");
    writer.send("write f 5\r\nagain\r\n");
    let reply = reader.reply();
    assert!(reply.is_internal("no leader"), "{reply:?}");
    let reply = writer.reply();
    assert!(reply.is_internal("outcome unknown"), "{reply:?}");
    cluster.compare_all_nodes();
}

#[test]
fn a_stopped_follower_does_not_hold_the_others_up() {
    let mut cluster = TestCluster::start(3);
    let stopped = cluster.a_follower();
    cluster.nodes[stopped].stop();
    let mut client = cluster.client();
    let mut ledger = Ledger::default();
    // More than the sockets to the stopped node can hold.
    let contents = vec![b'x'; 200_000];
    for n in 0..60 {
        assert!(ledger.write(&mut client, &format!("f/{n}"), &[&contents[..], &[n]].concat()));
    }
    cluster.nodes[stopped].cont();
    cluster.wait_until_caught_up(&[stopped]);
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}

#[test]
fn a_followers_redirect_leads_to_the_leader() {
    let mut cluster = TestCluster::start(3);
    let leader = cluster.wait_for_leader();
    for follower in cluster.followers() {
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection::open(&cluster.nodes[follower].client, "", deadline).unwrap();
        let command = fsclient::Command {
            operation: fsd_wire::Operation::Delete,
            name: "a".to_owned(),
            contents: bytes::Bytes::new(),
        };
        connection.submit(Operation::Change { command: command.encode() }, deadline);
        connection.flush(deadline).unwrap();
        let reply = connection.receive(deadline).unwrap();
        let Outcome::Refused(Refusal::NotLeader { leader: node, address, term }) = reply.outcome else {
            panic!("no redirect: {reply:?}");
        };
        assert_eq!((node.0, &address), (cluster.nodes[leader].id, &cluster.nodes[leader].client));
        assert!(term.0 > 0);

        let mut text = cluster.text(follower);
        let Reply::Redirect(address) = text.write("a", "x") else { panic!("no redirect by text") };
        assert_eq!(address, cluster.nodes[leader].text);
        let version = support::TextClient::connect(&address).write("a", "x").version();
        // A read needs no other node.
        assert_eq!(text.read("a").version(), version);
        assert_eq!(text.delete("a"), Reply::Redirect(address));

        // The library goes there by itself.
        cluster.client_of(&[follower]).write("b", "y", 0).unwrap();
    }
    cluster.compare_all_nodes();
}

#[test]
fn a_file_is_gone_from_its_expiry_on_also_through_a_failover() {
    let mut cluster = TestCluster::start(3);
    let mut client = cluster.client();
    let version = client.write("lock", "mine", 2).unwrap();
    client.write("kept", "replaced expiry", 1).unwrap();
    client.write("kept", "for ever", 0).unwrap();
    let left = client.stat("lock").unwrap().expiry_seconds;
    assert!((1..=2).contains(&left), "{left}");
    let leader = cluster.wait_for_leader();
    cluster.kill_9(leader);
    wait_until(PATIENCE, "the file expires", || {
        matches!(client.stat("lock"), Err(ClientError::Refused(Refusal::NotFound)))
    });
    // Seen gone, it stays gone, and its old holder cannot take it back.
    let error = client.cas("lock", version, "still mine", 0).unwrap_err();
    let gone = Version(0);
    assert!(matches!(error, ClientError::Refused(Refusal::VersionMismatch { present }) if present == gone));
    cluster.restart(leader);
    let next = cluster.wait_for_leader();
    cluster.kill_9(next);
    assert!(matches!(client.read("lock").unwrap_err(), ClientError::Refused(Refusal::NotFound)));
    assert_eq!(&client.read("kept").unwrap().contents[..], b"for ever");
    assert!(client.cas("lock", Version(0), "yours", 0).unwrap() > version);
    cluster.compare_all_nodes();
}

#[test]
fn a_client_of_another_cluster_is_refused() {
    let mut cluster = TestCluster::start(1);
    let mut stranger = cluster.client().with_cluster("another").unwrap();
    let error = stranger.write("a", "x", 0).unwrap_err();
    assert!(matches!(error, ClientError::WrongServers { .. }), "{error}");
    assert!(matches!(cluster.client().stat("a").unwrap_err(), ClientError::Refused(Refusal::NotFound)));
    cluster.compare_all_nodes();
}
