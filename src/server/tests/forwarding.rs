//! Changes that nodes pass on to the leader for their text clients: each takes effect once, whatever is lost on the way.

use super::*;
use crate::limits;

impl Cluster {
    /// Three nodes that forward, of which one leads, with the file `f` in version 1. Returns the leader and a follower.
    fn that_forwards() -> (Self, u32, u32) {
        let (mut cluster, leader, follower) = Self::with_file();
        for (id, member) in &mut cluster.members {
            member.node.config.text_writes = TextWrites::Forward;
            // As hellos would have it.
            member.node.connected =
                (1..=3).map(NodeId).filter(|node| node != id).map(|node| (node, 1)).collect();
        }
        (cluster, leader, follower)
    }

    /// A text client's write that only succeeds once: it makes the file.
    fn text_create(&mut self, name: &str) -> Event {
        let operation = Change::Cas { expected: Version(0), expiry_seconds: 0 };
        let command = Command { operation, name: name.into(), contents: Bytes::from_static(b"x") };
        let event = self.request(Operation::Change { command: command.encode() });
        let Event::Request { connection, request, .. } = event else { unreachable!() };
        Event::Request { connection, protocol: ClientProtocol::Text, request }
    }

    fn revision(&self, node: u32) -> Version {
        self.members[&NodeId(node)].node.store.revision()
    }
}

fn version(version: u64) -> Outcome {
    Outcome::Changed { version: Version(version) }
}

#[test]
fn any_node_takes_a_text_change_and_a_binary_one_is_redirected() {
    let (mut cluster, leader, follower) = Cluster::that_forwards();
    for (n, node) in [follower, leader, follower].into_iter().enumerate() {
        let create = cluster.text_create(&format!("{n}"));
        cluster.turn(node, vec![create]).unwrap();
        cluster.settle();
        assert_eq!(cluster.replies(node), [version(n as u64 + 2)]);
    }
    assert!(cluster.members[&NodeId(follower)].node.forwarder.is_empty());
    let again = cluster.text_create("0");
    cluster.turn(follower, vec![again]).unwrap();
    cluster.settle();
    let present = Refusal::VersionMismatch { present: Version(2) };
    assert_eq!(cluster.replies(follower), [Outcome::Refused(present)]);

    let write = cluster.write("b", 0);
    cluster.turn(follower, vec![write]).unwrap();
    let redirect = cluster.replies(follower);
    assert!(
        matches!(redirect[..], [Outcome::Refused(Refusal::NotLeader { leader: l, .. })] if l.0 == leader)
    );
}

#[test]
fn what_is_lost_on_the_way_is_sent_again_and_takes_effect_once() {
    for lost in ["requests", "replies"] {
        let (mut cluster, leader, follower) = Cluster::that_forwards();
        let first = cluster.text_create("first");
        cluster.turn(follower, vec![first]).unwrap();
        cluster.settle();
        assert_eq!(cluster.replies(follower), [version(2)]);

        let create = cluster.text_create("a");
        cluster.turn(follower, vec![create]).unwrap();
        let held = cluster.settle_holding(|_, _, message| match message {
            PeerMessage::Forward(_) => lost == "requests",
            PeerMessage::ForwardReply(_) => lost == "replies",
            _ => false,
        });
        assert_eq!(held.len(), 1);
        cluster.pass(2 * HEARTBEAT_MS);
        assert_eq!(cluster.revision(leader).0, if lost == "replies" { 3 } else { 2 });
        assert!(cluster.replies(follower).is_empty(), "nobody knows");
        cluster.pass(2 * limits::FORWARD_ROUND_MS);
        assert_eq!(cluster.replies(follower), [version(3)], "{lost} were lost");
        // What was lost comes after all.
        cluster.in_flight = held;
        cluster.settle();
        cluster.pass(2 * HEARTBEAT_MS);
        assert!(cluster.replies(follower).is_empty());
        assert!((1..=3).all(|node| cluster.revision(node) == Version(3)));
    }
}

#[test]
fn a_change_that_the_old_leader_made_is_not_made_again_by_the_new_one() {
    let (mut cluster, old, follower) = Cluster::that_forwards();
    let others = [follower, 6 - old - follower];
    let create = cluster.text_create("a");
    cluster.turn(follower, vec![create]).unwrap();
    // Committed, known to be by the others, and never answered.
    cluster.settle_holding(|_, to, message| {
        to == follower && matches!(message, PeerMessage::ForwardReply(reply) if reply.outcome == version(2))
    });
    assert_eq!(cluster.revision(old), Version(2));
    while cluster.leader_among(&others).is_none() {
        cluster.pass_among(&others, 1);
    }
    cluster.pass_among(&others, 2 * limits::FORWARD_ROUND_MS);
    assert_eq!(cluster.replies(follower), [version(2)]);
    assert!(others.iter().all(|node| cluster.revision(*node) == Version(2)));
}

#[test]
fn a_change_that_a_leader_lost_with_its_place_is_made_by_the_next_one() {
    let (mut cluster, old, _) = Cluster::that_forwards();
    let others: Vec<u32> = (1..=3).filter(|node| *node != old).collect();
    // The session first: it is opened without trouble.
    let first = cluster.text_create("first");
    cluster.turn(old, vec![first]).unwrap();
    cluster.settle();
    assert_eq!(cluster.replies(old), [version(2)]);
    let create = cluster.text_create("a");
    cluster.turn(old, vec![create]).unwrap();
    cluster.in_flight.clear();
    while cluster.leader_among(&others).is_none() {
        cluster.pass_among(&others, 1);
    }
    assert!(cluster.replies(old).is_empty());
    cluster.pass(2 * limits::FORWARD_ROUND_MS);
    assert_eq!(cluster.replies(old), [version(3)], "no redirect, no doubt");
    cluster.pass(2 * HEARTBEAT_MS);
    assert!((1..=3).all(|node| cluster.revision(node) == Version(3)));
}

#[test]
fn without_a_leader_a_change_waits_and_is_then_refused_for_certain() {
    let (mut cluster, _, follower) = Cluster::that_forwards();
    cluster.pass_among(&[follower], 3 * ELECTION_TIMEOUT_MS);
    let create = cluster.text_create("a");
    cluster.turn(follower, vec![create]).unwrap();
    cluster.pass_among(&[follower], 4000);
    assert!(cluster.replies(follower).is_empty());
    cluster.pass_among(&[follower], 1000);
    assert_eq!(cluster.replies(follower), [Outcome::Refused(Refusal::NoLeader)]);

    let create = cluster.text_create("b");
    cluster.turn(follower, vec![create]).unwrap();
    cluster.pass(4000);
    assert_eq!(cluster.replies(follower), [version(2)], "there was a leader in time");
    assert!(cluster.members.values().all(|member| member.node.store.get("a").is_none()));
}
