//! Changes through a network that loses answers, cuts connections anywhere and delivers requests late, to leaders
//! that are killed: each is made exactly once, and its client learns that it was.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fsclient::{Client, ClientError, Outcome, Refusal, Version};
use support::{PATIENCE, Proxies, Settings, TestCluster, wait_until};

/// Clients of each kind, and the changes that each of them makes.
const CLIENTS: u64 = 2;
const CHANGES: u64 = 25;
const CHANGES_IN_ALL: u64 = 2 * CLIENTS * CHANGES;
const KILLS: u64 = 3;
/// With so much time no outcome stays unknown: an election takes a second or two.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(50);
const COUNTER: &str = "counter";

#[test]
fn each_change_is_made_once_whatever_happens_to_answers_connections_and_leaders() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let proxies = Proxies::start(3, seed);
    let settings = Settings { client_addresses: proxies.addresses(), ..Settings::default() };
    let mut cluster = TestCluster::start_with(3, settings);
    proxies.lead_to(cluster.nodes.iter().map(|node| node.client.as_str()));

    let made = AtomicU64::new(0);
    let mut versions = std::thread::scope(|scope| {
        let client = || cluster.client_at(proxies.addresses()).with_timeout(REQUEST_TIMEOUT);
        let made = &made;
        let mut threads = Vec::new();
        for number in 0..CLIENTS {
            let (incrementing, writing) = (client(), client());
            threads.push(scope.spawn(move || increment(incrementing, made)));
            threads.push(scope.spawn(move || write(writing, number, made)));
        }
        kill_leaders(&mut cluster, made);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<Version>>()
    });

    // Every success took the next value of the one counter of revisions, and nothing else did.
    versions.sort_unstable();
    assert_eq!(versions, (1..=CHANGES_IN_ALL).map(Version).collect::<Vec<Version>>());
    let figures = proxies.figures();
    eprintln!("{figures:?}");
    drop(proxies);
    assert_eq!(cluster.client().read(COUNTER).unwrap().contents, (CLIENTS * CHANGES).to_string());
    for number in 0..CLIENTS {
        let file = cluster.client().read(&format!("writer/{number}")).unwrap();
        assert_eq!(file.contents, CHANGES.to_string());
    }
    cluster.compare_all_nodes();

    // The network was as bad as it should be.
    assert!(figures.answers_swallowed >= CHANGES_IN_ALL, "{figures:?}");
    assert!(figures.connections_cut > 0, "{figures:?}");
    let came_late = |what: fn(&Outcome) -> bool| figures.late.iter().any(what);
    assert!(
        came_late(|outcome| matches!(outcome, Outcome::Changed { .. })),
        "the first answer again: {figures:?}"
    );
    let too_late = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refusal::BadRequest { .. }));
    assert!(came_late(too_late), "behind the next change: {figures:?}");
}

/// Kills the leader again and again, between the first change and the last, and starts it again.
fn kill_leaders(cluster: &mut TestCluster, made: &AtomicU64) {
    for kill in 1..=KILLS {
        wait_until(PATIENCE, "changes are made", || {
            made.load(Ordering::SeqCst) >= CHANGES_IN_ALL * kill / (KILLS + 1)
        });
        let leader = cluster.wait_for_leader();
        cluster.kill_9(leader);
        cluster.restart(leader);
    }
}

/// Counts up by `cas`, together with others. Returns the versions that it made.
fn increment(mut client: Client, made: &AtomicU64) -> Vec<Version> {
    let mut versions = Vec::new();
    while versions.len() < CHANGES as usize {
        let (version, value) = match client.read(COUNTER) {
            Ok(file) => (file.version, number(&file.contents)),
            Err(ClientError::Refused(Refusal::NotFound)) => (Version(0), 0),
            Err(error) => panic!("reading: {error}"),
        };
        match client.cas(COUNTER, version, (value + 1).to_string(), 0) {
            Ok(version) => {
                versions.push(version);
                made.fetch_add(1, Ordering::SeqCst);
            }
            // Another client was faster. Had it been this one itself, with an answer that was lost, then the
            // counter would end too high.
            Err(ClientError::Refused(Refusal::VersionMismatch { .. })) => {}
            Err(error) => panic!("cas after {value}: {error}"),
        }
    }
    versions
}

fn number(contents: &[u8]) -> u64 {
    std::str::from_utf8(contents).unwrap().parse().unwrap()
}

/// Writes a file of its own again and again. Returns the versions that it made.
fn write(mut client: Client, number: u64, made: &AtomicU64) -> Vec<Version> {
    let name = format!("writer/{number}");
    let change = |n: u64| {
        let version =
            client.write(&name, n.to_string(), 0).unwrap_or_else(|error| panic!("write {n}: {error}"));
        made.fetch_add(1, Ordering::SeqCst);
        version
    };
    let versions: Vec<Version> = (1..=CHANGES).map(change).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    versions
}
