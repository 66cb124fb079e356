//! Clients that know no redirects, each at a node of its own choice: their changes are passed on to the leader and made
//! exactly once, also while leaders are killed.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use support::{PATIENCE, Reply, Settings, TestCluster, TextClient, wait_until};

const INCREMENTS: u64 = 40;

fn that_forwards(nodes: u32) -> TestCluster {
    TestCluster::start_with(nodes, Settings { forward_text_writes: true, ..Settings::default() })
}

#[test]
fn every_node_takes_every_command_and_keeps_the_order_of_a_pipeline() {
    let mut cluster = that_forwards(3);
    for n in 0..3 {
        let mut client = cluster.text(n);
        let name = format!("f{n}");
        let first = client.cas(&name, 0, "one").version();
        assert_eq!(client.cas(&name, 0, "again"), Reply::Mismatch(first));
        assert!(client.write(&format!("{name}/below"), "x").is_internal("conflict"));
        assert!(client.write(&name, vec![b'x'; 2 * 1024 * 1024]).is_internal("too large"));
        let large = client.write("large", vec![b'x'; 1024 * 1024]).version();
        assert!(large > first);

        // Each command sees what those before it did.
        let mut pipeline = String::new();
        for round in 0..50 {
            pipeline +=
                &format!("write {name} 2\r\n{round:02}\r\nread {name}\r\ndelete {name}\r\nread {name}\r\n");
        }
        client.send(pipeline);
        let mut last = large;
        for round in 0..50 {
            let version = client.reply().version();
            assert!(version > last, "{version} after {last}");
            last = version;
            let Reply::Contents { version: found, contents, .. } = client.reply() else {
                panic!("no contents")
            };
            assert_eq!((found, contents), (version, format!("{round:02}").into_bytes()));
            assert_eq!(client.reply(), Reply::Ok);
            assert!(client.reply().is_error("ERR_FILE_NOT_FOUND"));
        }
    }
    cluster.compare_all_nodes();
}

/// Adds 1, again and again, until `INCREMENTS` were acknowledged. Returns the versions that were given out.
fn count_up(client: &mut TextClient, done: &AtomicUsize) -> Vec<u64> {
    let mut versions = Vec::new();
    while (versions.len() as u64) < INCREMENTS {
        let (version, count) = match client.read("counter") {
            Reply::Contents { version, contents, .. } => {
                (version, String::from_utf8(contents).unwrap().parse::<u64>().unwrap())
            }
            // Around a failover a read may find no leader; nothing happened.
            reply => {
                assert!(reply.is_internal("no leader"), "{reply:?}");
                continue;
            }
        };
        match client.cas("counter", version, (count + 1).to_string()) {
            Reply::Written(version) => {
                versions.push(version);
                done.fetch_add(1, Ordering::SeqCst);
            }
            Reply::Mismatch(_) => {}
            reply => panic!("no redirect, no doubt: {reply:?}"),
        }
    }
    versions
}

#[test]
fn increments_at_all_nodes_are_made_exactly_once_while_leaders_are_killed() {
    let mut cluster = that_forwards(5);
    cluster.text(0).write("counter", "0").version();
    // Clients of two nodes that stay up; the others are killed when they lead.
    let stay = [0, 1];
    let done = AtomicUsize::new(0);
    let versions: Vec<u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = stay
            .iter()
            .cycle()
            .take(4)
            .map(|n| {
                let mut client = cluster.text(*n);
                let done = &done;
                scope.spawn(move || count_up(&mut client, done))
            })
            .collect();
        for kill in 1..=2 {
            wait_until(PATIENCE, "increments", || done.load(Ordering::SeqCst) >= kill * 30);
            let leader = cluster.wait_for_leader();
            if stay.contains(&leader) {
                // It cannot be killed with its clients; it loses its place all the same.
                cluster.nodes[leader].stop();
                wait_until(PATIENCE, "another leads", || {
                    cluster.leader().is_some_and(|other| other != leader)
                });
                cluster.nodes[leader].cont();
            } else {
                cluster.kill_9(leader);
                cluster.restart(leader);
            }
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(versions.len() as u64, 4 * INCREMENTS);
    let mut client = cluster.text(0);
    let Reply::Contents { version, contents, .. } = client.read("counter") else { panic!("no counter") };
    assert_eq!(String::from_utf8(contents).unwrap(), (4 * INCREMENTS).to_string());
    // Nobody else changed anything: every revision but the first is an increment that was acknowledged.
    assert_eq!(version, 4 * INCREMENTS + 1);
    let mut sorted = versions;
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(2..=4 * INCREMENTS + 1));
    cluster.compare_all_nodes();
}

#[test]
fn without_a_majority_a_change_is_told_apart_from_one_that_nobody_saw() {
    let mut cluster = that_forwards(3);
    let left = cluster.a_follower();
    let mut client = cluster.text(left);
    client.write("f", "before").version();
    let others: Vec<usize> = (0..3).filter(|n| *n != left).collect();
    others.iter().for_each(|n| cluster.kill_9(*n));
    wait_until(PATIENCE, "the follower knows no leader", || client.read("f").is_internal("no leader"));
    let reply = client.write("f", "nobody saw it");
    assert!(reply.is_internal("no leader"), "{reply:?}");
    client.send("write f 4\r\nwait\r\n");
    cluster.launch(&others);
    let written = client.reply().version();
    assert_eq!(client.read("f").version(), written, "it waited for a leader");
    cluster.compare_all_nodes();
}
