//! Elections that are due when the node itself was held up.

use super::*;

/// Three nodes; a follower stands still for so long, while the others go on without it. Also what it missed.
fn after_standstill(ms: u64) -> (Cluster, u32, Vec<Event>) {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.pass(500);
    let follower = leader % 3 + 1;
    let mut missed = Vec::new();
    for _ in 0..ms {
        cluster.now_ms += 1;
        for node in (1..=3).filter(|node| *node != follower) {
            cluster.turn(node, Vec::new()).unwrap();
        }
        while let Some((from, to, message)) = cluster.in_flight.pop_front() {
            let event = Event::Peer { from, message };
            if to.0 == follower {
                missed.push(event);
            } else {
                cluster.turn(to.0, vec![event]).unwrap();
            }
        }
    }
    (cluster, follower, missed)
}

/// Whether the node asks for votes in this turn.
fn stands(cluster: &mut Cluster, node: u32, events: Vec<Event>) -> bool {
    cluster.in_flight.clear();
    cluster.turn(node, events).unwrap();
    cluster.in_flight.iter().any(|(_, _, message)| matches!(message, PeerMessage::RequestVote(_)))
}

#[test]
fn who_hears_its_leader_does_not_stand_though_the_election_is_due() {
    // Some of these times are just over what the follower waits.
    for ms in (ELECTION_TIMEOUT_MS..=3 * ELECTION_TIMEOUT_MS).step_by(10) {
        let (mut cluster, follower, missed) = after_standstill(ms);
        assert!(!missed.is_empty());
        assert!(!stands(&mut cluster, follower, missed), "after {ms} ms");
        // Nor a little later: it has heard its leader just now.
        cluster.now_ms += 3 * HEARTBEAT_MS;
        assert!(!stands(&mut cluster, follower, Vec::new()), "after {ms} ms");
    }
}

#[test]
fn who_was_held_up_gives_its_leader_a_moment() {
    let (mut cluster, follower, _) = after_standstill(3 * ELECTION_TIMEOUT_MS);
    assert!(!stands(&mut cluster, follower, Vec::new()));
    cluster.now_ms += HEARTBEAT_MS;
    assert!(!stands(&mut cluster, follower, Vec::new()));
    cluster.now_ms += HEARTBEAT_MS;
    assert!(stands(&mut cluster, follower, Vec::new()), "the leader is silent");
}
