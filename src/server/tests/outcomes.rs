//! The outcome of every request: whichever way a leader loses its place, what it tells its clients is right. Refused is
//! only what can never happen; what is not known yet is not answered, or answered as unknown.

use super::*;

/// A leader that has taken a write and a read which nobody else has heard of, and the two others.
fn with_requests_in_flight() -> (Cluster, u32, Vec<u32>) {
    let (mut cluster, leader, _) = Cluster::with_file();
    let write = cluster.write("new", 0);
    let read = cluster.read("f");
    cluster.turn(leader, vec![write, read]).unwrap();
    cluster.in_flight.clear();
    assert!(cluster.replies(leader).is_empty());
    (cluster, leader, (1..=3).filter(|node| *node != leader).collect())
}

fn has_new(cluster: &Cluster, node: u32) -> bool {
    cluster.members[&NodeId(node)].node.store.get("new").is_some()
}

/// Lets the node lead again. With one of the others away it is the only one that can: its log is longer.
fn elect_again(cluster: &mut Cluster, node: u32, others: &[u32]) {
    cluster.in_flight.clear();
    let two = [node, others[0]];
    for _ in 0..10 {
        cluster.pass_among(&two, ELECTION_TIMEOUT_MS);
        if cluster.leader_among(&two) == Some(node) {
            return cluster.pass_among(&two, HEARTBEAT_MS);
        }
    }
    panic!("node {node} is not elected");
}

/// Long enough for a leader that nobody follows to find that out.
const STEP_DOWN_MS: u64 = 3 * ELECTION_TIMEOUT_MS;

fn leads(cluster: &Cluster, node: u32) -> bool {
    cluster.members[&NodeId(node)].node.status().role == NodeRole::Leader
}

#[test]
fn step_down_refuses_reads_and_leaves_changes_open_until_their_fate_is_known() {
    let (mut cluster, old, others) = with_requests_in_flight();
    cluster.pass_among(&[old], STEP_DOWN_MS);
    assert!(!leads(&cluster, old));
    assert_eq!(cluster.replies(old), [Outcome::Refused(Refusal::NoLeader)], "the read did nothing");
    // Requests that come now were never taken.
    let late = [cluster.write("late", 0), cluster.read("f")];
    cluster.turn(old, late.into()).unwrap();
    let no_leader = Outcome::Refused(Refusal::NoLeader);
    assert_eq!(cluster.replies(old), [no_leader.clone(), no_leader]);
    elect_again(&mut cluster, old, &others);
    assert_eq!(cluster.replies(old), [Outcome::Changed { version: Version(2) }]);
    cluster.pass(2 * HEARTBEAT_MS);
    assert!(others.iter().all(|node| has_new(&cluster, *node)));
}

/// Its entry lies behind the first one of the successor's term, so that nothing is ever committed at its index if nobody
/// writes: it is answered all the same.
#[test]
fn a_partition_in_which_others_went_on_refuses_changes_for_certain() {
    for more in [0, 3] {
        let (mut cluster, old, others) = with_requests_in_flight();
        let writes: Vec<Event> = (0..more).map(|n| cluster.write(&format!("more/{n}"), 0)).collect();
        cluster.turn(old, writes).unwrap();
        cluster.in_flight.clear();
        // For the old leader no time passes meanwhile.
        while cluster.leader_among(&others).is_none() {
            cluster.pass_among(&others, 1);
        }
        cluster.pass_among(&others, 2 * HEARTBEAT_MS);
        let new = cluster.leader_among(&others).unwrap();
        assert!(cluster.replies(old).is_empty(), "it cannot know");
        cluster.pass(4 * HEARTBEAT_MS);
        let replies = cluster.replies(old);
        assert_eq!(replies.len(), 2 + more, "{replies:?}");
        for reply in replies {
            // The read was lost in its step-down, before it had heard who leads, or after.
            let is_refused = match &reply {
                Outcome::Refused(Refusal::NotLeader { leader, .. }) => leader.0 == new,
                other => *other == Outcome::Refused(Refusal::NoLeader),
            };
            assert!(is_refused, "{reply:?}");
        }
        assert!((1..=3).all(|node| !has_new(&cluster, node)));
        assert!(cluster.members[&NodeId(old)].node.pending.is_empty());
    }
}

#[test]
fn a_transfer_carries_what_was_taken_over_and_takes_nothing_more() {
    let (mut cluster, old, _) = Cluster::with_file();
    let write = cluster.write("new", 0);
    let read = cluster.read("f");
    cluster.turn(old, vec![write, read]).unwrap();
    let member = cluster.members.get_mut(&NodeId(old)).unwrap();
    member.node.raft.step(cluster.now_ms, Input::TransferLeadership { to: None });
    let late = cluster.write("late", 0);
    cluster.turn(old, vec![late]).unwrap();
    assert_eq!(cluster.replies(old), [Outcome::Refused(Refusal::Busy)], "it was not taken");
    cluster.settle();
    cluster.pass(2 * HEARTBEAT_MS);
    assert_ne!(cluster.leader(), old);
    let replies = cluster.replies(old);
    assert!(replies.contains(&Outcome::Changed { version: Version(2) }), "{replies:?}");
    // The read was confirmed before, or is lost.
    assert_eq!(replies.len(), 2, "{replies:?}");
    for node in 1..=3 {
        let store = &cluster.members[&NodeId(node)].node.store;
        assert!(store.get("new").is_some() && store.get("late").is_none());
    }
}

#[test]
fn a_stop_without_anybody_to_hand_over_to_leaves_changes_unknown() {
    let (mut cluster, leader, _) = with_requests_in_flight();
    cluster.members.get_mut(&NodeId(leader)).unwrap().node.stop(cluster.now_ms);
    cluster.pass_among(&[leader], 2 * ELECTION_TIMEOUT_MS + 1);
    assert!(cluster.members[&NodeId(leader)].node.is_stopped());
    let mut replies = cluster.replies(leader);
    replies.sort_by_key(|outcome| *outcome == Outcome::Refused(Refusal::Unknown));
    assert_eq!(replies, [Outcome::Refused(Refusal::NoLeader), Outcome::Refused(Refusal::Unknown)]);
}

/// The client's connection ends with the process, so it knows nothing; and indeed the write may happen yet.
#[test]
fn a_crash_answers_nobody_and_the_change_may_happen_later() {
    let (mut cluster, old, others) = with_requests_in_flight();
    let disk = cluster.disk(old).crash(Unflushed::Lost);
    cluster.members.insert(NodeId(old), start_on(disk, NodeId(old), 3, cluster.now_ms));
    cluster.introduce();
    elect_again(&mut cluster, old, &others);
    assert!(cluster.replies(old).is_empty());
    cluster.pass(2 * HEARTBEAT_MS);
    assert!(others.iter().all(|node| has_new(&cluster, *node)));
}

/// The time of a request ends before its fate is known: unknown, and the write happens after that.
#[test]
fn a_change_that_was_answered_as_unknown_may_still_happen() {
    let (mut cluster, old, others) = with_requests_in_flight();
    cluster.pass_among(&[old], 5001);
    let mut replies = cluster.replies(old);
    replies.sort_by_key(|outcome| *outcome == Outcome::Refused(Refusal::Unknown));
    assert_eq!(replies, [Outcome::Refused(Refusal::NoLeader), Outcome::Refused(Refusal::Unknown)]);
    elect_again(&mut cluster, old, &others);
    cluster.pass(2 * HEARTBEAT_MS);
    assert!((1..=3).all(|node| has_new(&cluster, node)));
    assert!(cluster.replies(old).is_empty(), "nobody is answered twice");
}
