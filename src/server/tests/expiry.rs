//! Expiry to the letter (DESIGN section 5): at the same index everywhere, never early, late by an election and a
//! heartbeat at most, through all that can happen to nodes. Times are given; nobody waits.

use std::collections::BTreeSet;

use super::*;
use crate::limits::STAMP_INTERVAL_MS;

/// A commit and its news to followers, with messages that take no time.
const ROUND_MS: u64 = HEARTBEAT_MS + 2;

impl Cluster {
    /// Writes a file that is due so many seconds later; returns when that is.
    fn write_until(&mut self, leader: u32, name: &str, seconds: u64) -> u64 {
        let due_ms = self.now_ms + seconds * 1000;
        let write = self.write(name, seconds);
        assert!(matches!(self.ask(leader, write), Outcome::Changed { .. }));
        due_ms
    }

    fn seconds_left(&mut self, node: u32, name: &str) -> Option<u64> {
        let stat = self.stat(name);
        match self.ask(node, stat) {
            Outcome::Stat(info) => Some(info.expiry_seconds),
            Outcome::Refused(Refusal::NotFound) => None,
            other => panic!("node {node}: {other:?}"),
        }
    }

    fn has_file(&self, node: u32, name: &str) -> bool {
        self.members[&NodeId(node)].node.store.get(name).is_some()
    }

    /// Lets time pass among these nodes until one leads; returns it.
    fn elect_among(&mut self, nodes: &[u32]) -> u32 {
        for _ in 0..20 * ELECTION_TIMEOUT_MS {
            if let Some(leader) = self.leader_among(nodes) {
                return leader;
            }
            self.pass_among(nodes, 1);
        }
        panic!("no leader among {nodes:?}");
    }

    /// Lets time pass among these nodes until none has the file; returns when that was.
    fn pass_until_gone(&mut self, nodes: &[u32], name: &str) -> u64 {
        for _ in 0..100_000 {
            if !nodes.iter().any(|node| self.has_file(*node, name)) {
                return self.now_ms;
            }
            self.pass_among(nodes, 1);
        }
        panic!("{name} stays");
    }
}

#[test]
fn a_file_goes_at_the_same_index_everywhere_and_what_remains_is_exact_until_then() {
    let (mut cluster, leader, _) = Cluster::with_file();
    let due_ms = cluster.write_until(leader, "lock", 3);
    cluster.pass(ROUND_MS);
    let mut gone_at: BTreeMap<u32, LogIndex> = BTreeMap::new();
    while gone_at.len() < 3 && cluster.now_ms < due_ms + 10 * HEARTBEAT_MS {
        cluster.pass(1);
        let left_ms = due_ms.saturating_sub(cluster.now_ms);
        for node in 1..=3 {
            assert!(left_ms == 0 || cluster.has_file(node, "lock"), "node {node}, {left_ms} ms early");
            if left_ms % 97 == 1 || (1..=3).contains(&(left_ms % 1000)) {
                assert_eq!(cluster.seconds_left(node, "lock"), Some(left_ms.div_ceil(1000)), "node {node}");
            }
            if !cluster.has_file(node, "lock") {
                let applied = cluster.members[&NodeId(node)].node.status().last_applied;
                gone_at.entry(node).or_insert(applied);
            }
        }
    }
    assert_eq!(gone_at.len(), 3);
    assert_eq!(gone_at.values().collect::<BTreeSet<_>>().len(), 1, "{gone_at:?}");
    assert!(cluster.now_ms <= due_ms + ROUND_MS, "late by {}", cluster.now_ms - due_ms);
}

/// Nothing is written for long before the leader dies: its successor must have been told the time all the same.
#[test]
fn through_a_change_of_leaders_a_file_is_late_by_the_election_and_a_heartbeat_at_most() {
    for lived_ms in [0, 10, 700, 1001, 4321, 9400, 9990] {
        let (mut cluster, old, _) = Cluster::with_file();
        let due_ms = cluster.write_until(old, "lock", 10);
        cluster.pass(lived_ms);
        let others: Vec<u32> = (1..=3).filter(|node| *node != old).collect();
        cluster.in_flight.clear();
        let died_ms = cluster.now_ms;
        let new = cluster.elect_among(&others);
        let election_ms = cluster.now_ms - died_ms;
        assert!(cluster.has_file(new, "lock"), "time stood still meanwhile");
        let gone_ms = cluster.pass_until_gone(&others, "lock");
        assert!(gone_ms >= due_ms, "{lived_ms}: early by {}", due_ms - gone_ms);
        let late_ms = gone_ms - due_ms;
        assert!(
            late_ms <= election_ms + HEARTBEAT_MS + ROUND_MS,
            "{lived_ms}: late by {late_ms}, elected in {election_ms}"
        );
    }
}

#[test]
fn a_restart_of_all_nodes_costs_no_more_than_the_interval_of_stamps() {
    for lived_ms in [10, 1500, 8765] {
        let (mut cluster, leader, _) = Cluster::with_file();
        let due_ms = cluster.write_until(leader, "lock", 10);
        cluster.pass(lived_ms);
        let died_ms = cluster.now_ms;
        cluster.restart_all();
        cluster.elect_among(&[1, 2, 3]);
        let election_ms = cluster.now_ms - died_ms;
        cluster.pass(ROUND_MS);
        assert!((1..=3).all(|node| cluster.has_file(node, "lock")), "an outage makes nothing expire");
        let gone_ms = cluster.pass_until_gone(&[1, 2, 3], "lock");
        assert!(gone_ms >= due_ms, "{lived_ms}: early by {}", due_ms - gone_ms);
        let late_ms = gone_ms - due_ms;
        assert!(late_ms <= election_ms + STAMP_INTERVAL_MS + 2 * ROUND_MS, "{lived_ms}: late by {late_ms}");
    }
}

/// Its clock jumps by the minute that it was stopped for, when it goes on.
#[test]
fn a_leader_that_was_stopped_for_a_minute_makes_nothing_go_early() {
    let (mut cluster, old, _) = Cluster::with_file();
    let others: Vec<u32> = (1..=3).filter(|node| *node != old).collect();
    cluster.pass_among(&others, 1);
    let new = cluster.elect_among(&others);
    let due_ms = cluster.now_ms + 70_000;
    let write = cluster.write("lock", 70);
    cluster.turn(new, vec![write]).unwrap();
    cluster.settle_holding(|_, to, _| to == old);
    assert!(matches!(cluster.replies(new)[..], [Outcome::Changed { .. }]));
    cluster.pass_among(&others, 60_000);
    // It goes on with timers that are long overdue, and finds out that nobody follows it.
    let stat = cluster.stat("lock");
    cluster.turn(old, vec![stat]).unwrap();
    assert_eq!(cluster.replies(old), [Outcome::Refused(Refusal::NoLeader)]);
    cluster.pass(ROUND_MS);
    assert_eq!(cluster.leader(), new);
    while cluster.now_ms < due_ms {
        assert!((1..=3).all(|node| cluster.has_file(node, "lock")), "early by {}", due_ms - cluster.now_ms);
        cluster.pass(1);
    }
    assert_eq!(cluster.seconds_left(old, "lock"), None);
}

#[test]
fn a_node_that_was_stopped_or_is_slow_shows_nothing_that_was_seen_gone() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    let due_ms = cluster.write_until(leader, "lock", 2);
    cluster.pass(ROUND_MS);
    let others: Vec<u32> = (1..=3).filter(|node| *node != follower).collect();
    let rest_ms = due_ms - cluster.now_ms;
    cluster.pass_among(&others, rest_ms);
    let stat = cluster.stat("lock");
    cluster.turn(leader, vec![stat]).unwrap();
    cluster.settle_holding(|_, to, _| to == follower);
    assert_eq!(cluster.replies(leader), [Outcome::Refused(Refusal::NotFound)]);
    assert!(cluster.has_file(follower, "lock"), "it has heard nothing since");
    // What the leader said meanwhile is lost; the node goes on, and is asked first of all.
    let stat = cluster.stat("lock");
    cluster.turn(follower, vec![stat]).unwrap();
    cluster.settle();
    cluster.pass(2 * ROUND_MS);
    let replies = cluster.replies(follower);
    assert!(matches!(replies[..], [Outcome::Refused(Refusal::NotFound | Refusal::NoLeader)]), "{replies:?}");
    cluster.leader();
    cluster.pass(2 * ROUND_MS);
    assert_eq!(cluster.seconds_left(follower, "lock"), None);
}

/// Whoever leads next may be behind in time, but not in the log.
#[test]
fn a_file_seen_gone_stays_gone_though_the_leader_dies_at_that_moment() {
    for node_asked in 1..=3 {
        let (mut cluster, old, _) = Cluster::with_file();
        let due_ms = cluster.write_until(old, "lock", 2);
        let rest_ms = due_ms - cluster.now_ms - 1;
        cluster.pass(rest_ms);
        assert_eq!(cluster.seconds_left(node_asked, "lock"), Some(1), "a millisecond before");
        cluster.now_ms += 1;
        assert_eq!(cluster.seconds_left(node_asked, "lock"), None);
        let others: Vec<u32> = (1..=3).filter(|node| *node != old).collect();
        cluster.in_flight.clear();
        let new = cluster.elect_among(&others);
        for node in others.iter().chain([&new]) {
            let stat = cluster.stat("lock");
            cluster.turn(*node, vec![stat]).unwrap();
            cluster.settle_holding(|_, to, _| to == old);
            cluster.pass_among(&others, ROUND_MS);
            assert_eq!(cluster.replies(*node), [Outcome::Refused(Refusal::NotFound)], "node {node}");
        }
    }
}
