//! Full disks under real daemons: each node's data lies on a file system of its own, small enough to be filled. Nobody ends,
//! nothing is lost, deletes go on, a node with room takes over, and all of it ends by itself.
//!
//! Needs root for mounting; elsewhere it says that it did not run.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::time::Duration;

use fsclient::{Client, ClientError, Refusal};
use support::{Image, Ledger, Mount, PATIENCE, Settings, TestCluster, http, wait_until};

const CONTENTS_BYTES: usize = 100_000;
/// Far more writes than any of these disks has room for.
const WRITES_MAX: usize = 400;

fn is_low(cluster: &TestCluster, n: usize) -> bool {
    let page = http::get(&cluster.nodes[n].http, "/metrics").body;
    let low = page.lines().find_map(|line| line.strip_prefix("fsd_disk_low "));
    low.expect("the metric is there") == "1"
}

fn contents(n: usize) -> Vec<u8> {
    [&vec![b'x'; CONTENTS_BYTES][..], n.to_string().as_bytes()].concat()
}

/// Writes files until one is not written because the disk is full, and returns how many were tried.
fn fill(cluster: &TestCluster, ledger: &mut Ledger, client: &mut Client, folder: &str) -> usize {
    let is_refused =
        |n: &usize| !ledger.write(client, &format!("{folder}/{n}"), &contents(*n)) && is_low(cluster, 0);
    (0..WRITES_MAX).find(is_refused).expect("the disk is not as large as that")
}

/// A write is refused, and the error says why and what to do.
fn assert_refused(client: &mut Client) {
    match client.write("refused", contents(0), 0) {
        Err(error @ ClientError::Unavailable { .. }) => {
            let words = error.to_string();
            assert!(words.contains("the disk of node") && words.contains("is full"), "{words}");
        }
        other => panic!("{other:?}"),
    }
}

/// Everything that a lone node does on a disk that it fills.
fn fill_and_empty(cluster: &mut TestCluster) -> Ledger {
    cluster.launch(&[0]);
    cluster.wait_for_leader();
    let mut ledger = Ledger::default();
    let mut client = cluster.client().with_timeout(Duration::from_secs(2));
    let written = fill(cluster, &mut ledger, &mut client, "first");
    assert!(written > 20, "{written} writes of 100 KB");
    assert_refused(&mut client);
    assert!(is_low(cluster, 0) && cluster.nodes[0].is_running());
    ledger.verify(&mut client);

    // A start on a full disk goes on where it was.
    cluster.kill_9(0);
    cluster.launch(&[0]);
    cluster.wait_for_leader();
    ledger.verify(&mut client);
    wait_until(PATIENCE, "the node knows that its disk is full", || is_low(cluster, 0));
    assert_refused(&mut client);

    // Deletes go on, and what they free comes back.
    for n in 0..written {
        match client.delete(&format!("first/{n}"), None) {
            Ok(_) | Err(ClientError::Refused(Refusal::NotFound)) => {}
            Err(error) => panic!("deletes go on: {error}"),
        }
    }
    wait_until(PATIENCE, "there is room again", || !is_low(cluster, 0));
    let mut ledger = Ledger::default();
    assert!(fill(cluster, &mut ledger, &mut client, "second") > 20);
    ledger.verify(&mut client);
    ledger
}

#[test]
fn a_full_disk_is_survived_and_serves_again_when_there_is_room() {
    let mut cluster = TestCluster::prepare(1, Settings::default());
    let data_dir = cluster.nodes[0].data_dir.clone();
    std::fs::create_dir(&data_dir).unwrap();
    let Some(mount) = Mount::tmpfs(&data_dir, "size=16m") else {
        eprintln!("not tested: a small file system cannot be mounted here");
        return;
    };
    let mut ledger = fill_and_empty(&mut cluster);
    mount.remount("size=64m");
    let mut client = cluster.client();
    wait_until(PATIENCE, "the node finds that it has room", || !is_low(&cluster, 0));
    assert!(ledger.write(&mut client, "after", b"goes on"));
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}

#[test]
fn a_full_disk_of_a_kind_that_people_use_is_survived() {
    let mut cluster = TestCluster::prepare(1, Settings::default());
    let data_dir = cluster.nodes[0].data_dir.clone();
    std::fs::create_dir(&data_dir).unwrap();
    let image = Image::make(&cluster.directory().join("image"), 24);
    let Some(mount) = image.as_ref().and_then(|image| image.mount(&data_dir)) else {
        eprintln!("not tested: an ext4 image cannot be made and mounted here");
        return;
    };
    fill_and_empty(&mut cluster);
    cluster.nodes[0].terminate();
    mount.unmount();
}

#[test]
fn a_leader_with_a_full_disk_hands_over_and_catches_up_when_there_is_room() {
    let mut cluster = TestCluster::prepare(3, Settings::default());
    let mut mounts = Vec::new();
    for node in &cluster.nodes {
        std::fs::create_dir(&node.data_dir).unwrap();
        mounts.extend(Mount::tmpfs(&node.data_dir, "size=200m"));
    }
    if mounts.len() < 3 {
        eprintln!("not tested: a small file system cannot be mounted here");
        return;
    }
    cluster.launch(&[0, 1, 2]);
    let full = cluster.wait_for_leader();
    let mut ledger = Ledger::default();
    let mut client = cluster.client();
    mounts[full].remount("size=12m");
    for n in 0..150 {
        // It is at most a matter of who leads: two of three have room.
        assert!(ledger.write(&mut client, &format!("f/{n}"), &contents(n)), "write {n}");
    }
    assert!(is_low(&cluster, full) && cluster.nodes[full].is_running());
    assert_ne!(cluster.wait_for_leader(), full);
    ledger.verify(&mut client);
    mounts[full].remount("size=200m");
    cluster.wait_until_caught_up(&[full]);
    assert!(!is_low(&cluster, full));
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}
