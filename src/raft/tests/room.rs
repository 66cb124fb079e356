//! Logs without room: nothing is appended that does not fit, nothing is acknowledged that was not appended, and what was
//! left behind comes when there is room.

use bytes::Bytes;
use fsd_wire::peer::{AppendEntries, AppendResult, PeerMessage};
use fsd_wire::{LogIndex, NodeId, Payload};

use super::cluster::{Cluster, HEARTBEAT_MS};
use super::single::{ELECTION_MS, Single, entries, id};
use crate::limits::RECORD_OVERHEAD_BYTES;
use crate::raft::{Alarm, Input, LogChange, ProposeError, Timer};

/// What entries with such payloads take together.
fn bytes_of(payloads: &[usize]) -> u64 {
    payloads.iter().map(|bytes| (RECORD_OVERHEAD_BYTES + fsd_wire::ENTRY_HEADER_BYTES + bytes) as u64).sum()
}

fn matched(index: u64) -> AppendResult {
    AppendResult::Matched { match_index: LogIndex(index) }
}

#[test]
fn a_follower_takes_what_fits_and_acknowledges_no_more() {
    let mut node = Single::new(3, &[1, 1]);
    let all = entries(3, &[1, 1, 2, 2, 2]);
    // Payloads of three bytes: room for one, and nearly for another.
    node.raft.set_room(bytes_of(&[3]), [bytes_of(&[3]) - 1]);
    let done = node.append(2, id(1, 2), all[2..].to_vec());
    assert_eq!((done.append_reply().result, node.raft.last_index()), (matched(3), LogIndex(3)));
    assert_eq!(node.raft.lacks_room_for(), Some(3));
    node.flush();
    // Nothing of the rest fits.
    let done = node.append(2, id(2, 3), all[3..].to_vec());
    assert_eq!((done.append_reply().result, done.changes.len()), (matched(3), 0));
    // What it has already needs no room.
    let done = node.append(2, id(1, 1), all[1..3].to_vec());
    assert_eq!(done.append_reply().result, matched(3));
    // Too little more is no news.
    node.raft.set_room(0, [bytes_of(&[3]) - 1]);
    assert_eq!(node.raft.lacks_room_for(), Some(3));
    node.raft.set_room(0, [bytes_of(&[3, 3])]);
    assert_eq!(node.raft.lacks_room_for(), None);
    let done = node.append(2, id(2, 3), all[3..].to_vec());
    assert_eq!(done.append_reply().result, matched(5));
}

#[test]
fn a_follower_without_room_for_a_leaders_entry_keeps_what_it_conflicts_with() {
    let mut node = Single::new(3, &[1, 1, 1]);
    node.raft.set_room(0, []);
    let done = node.append(2, id(1, 2), entries(3, &[1, 1, 2])[2..].to_vec());
    assert_eq!((done.append_reply().result, done.changes), (matched(2), Vec::<LogChange>::new()));
    assert_eq!(node.raft.last_id(), id(1, 3));
    // Another leader may have something else: nothing is lacking until it has sent it.
    let done = node.append(3, id(1, 3), Vec::new());
    assert_eq!((done.append_reply().result, node.raft.lacks_room_for()), (matched(3), None));
}

#[test]
fn what_waits_to_be_stored_has_its_room() {
    let mut node = Single::new(1, &[]);
    node.time_out();
    node.flush();
    node.turn();
    node.raft.set_room(bytes_of(&[1, 1]), []);
    node.propose();
    // The log is asked again before it was stored.
    node.raft.set_room(bytes_of(&[1, 1]), []);
    assert!(node.raft.has_room_for([1]) && !node.raft.has_room_for([1, 1]));
    node.propose();
    let payload = Payload::from(Bytes::from_static(b"x"));
    assert_eq!(node.raft.propose(node.now_ms, payload), Err(ProposeError::Full));
    assert_eq!(node.raft.propose_tick(node.now_ms), Err(ProposeError::Full));
}

#[test]
fn who_could_not_begin_a_term_does_not_stand() {
    let mut node = Single::new(3, &[1]);
    node.raft.set_room(bytes_of(&[0]) - 1, []);
    assert!(node.time_out().vote_requests().is_empty());
    node.raft.set_room(bytes_of(&[0]), []);
    assert_eq!(node.time_out().vote_requests().len(), 2);
    // The genesis of a new cluster takes more.
    let mut node = Single::new(3, &[]);
    node.raft.set_room(bytes_of(&[0]), []);
    assert!(node.time_out().vote_requests().is_empty());
}

#[test]
fn who_has_little_room_gives_others_the_first_chance() {
    let mut node = Single::new(3, &[1]);
    let mut alarm_ms = |is_low| {
        node.raft.set_low(is_low);
        let request = node.append_request(1, id(1, 1), Vec::new());
        node.step(Input::Receive { from: NodeId(2), message: PeerMessage::AppendEntries(request) });
        let alarms = node.raft.take_actions().alarms;
        match alarms[..] {
            [Alarm::Set { timer: Timer::Election, after_ms }] => after_ms,
            _ => panic!("{alarms:?}"),
        }
    };
    for _ in 0..20 {
        assert!((ELECTION_MS..2 * ELECTION_MS).contains(&alarm_ms(false)));
        assert!((2 * ELECTION_MS..3 * ELECTION_MS).contains(&alarm_ms(true)));
    }
}

#[test]
fn who_says_that_it_is_full_is_sent_signs_of_life_alone() {
    let mut leader = Single::new(3, &[1]);
    leader.lead();
    leader.flush();
    leader.matched(2, 2);
    leader.raft.set_peer_full(NodeId(2), true);
    leader.propose();
    leader.propose();
    let sent_to = |appends: Vec<AppendEntries>| appends.iter().map(|it| it.entries.len()).collect::<Vec<_>>();
    assert_eq!(sent_to(leader.turn().appends_to(2)), Vec::<usize>::new());
    leader.flush();
    for _ in 0..3 {
        leader.now_ms += HEARTBEAT_MS;
        let appends = leader.input(Input::Timeout(Timer::Heartbeat)).appends_to(2);
        let prev = appends[0].clone();
        assert_eq!(sent_to(appends), [0]);
        assert_eq!(sent_to(leader.reply(2, &prev, matched(2)).appends_to(2)), Vec::<usize>::new());
    }
    leader.raft.set_peer_full(NodeId(2), false);
    assert!(leader.raft.has_pending_replication());
    assert_eq!(leader.turn().appends_to(2).iter().map(|it| it.entries.len()).sum::<usize>(), 2);
}

#[test]
fn a_follower_catches_up_once_it_has_room_told_of_or_not() {
    for is_told in [true, false] {
        let mut cluster = Cluster::new(3, 1);
        let leader = cluster.elect();
        let follower = NodeId(1 + leader.0 % 3);
        cluster.raft_mut(follower).set_room(bytes_of(&[100]), []);
        for _ in 0..20 {
            cluster.propose(leader).expect("the leader has room");
        }
        cluster.settle();
        cluster.raft_mut(leader).set_peer_full(follower, is_told);
        let held = cluster.raft(follower.0).last_index();
        cluster.run_ms(10 * HEARTBEAT_MS);
        assert_eq!(cluster.raft(follower.0).last_index(), held);
        assert_eq!(cluster.leader(), Some(leader), "it is as good a follower as any");
        let last_index = cluster.raft(leader.0).last_index();
        assert!(held < last_index && cluster.raft(leader.0).commit_index() == last_index);
        cluster.raft_mut(follower).set_room(u64::MAX, []);
        cluster.raft_mut(leader).set_peer_full(follower, false);
        cluster.run_ms(3 * HEARTBEAT_MS);
        assert_eq!(cluster.raft(follower.0).last_index(), last_index, "told: {is_told}");
    }
}

#[test]
fn a_full_follower_is_not_sent_the_same_again_and_again() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.elect();
    let follower = NodeId(1 + leader.0 % 3);
    cluster.raft_mut(follower).set_room(0, []);
    for _ in 0..100 {
        cluster.propose(leader).expect("the leader has room");
    }
    cluster.settle();
    cluster.raft_mut(leader).set_peer_full(follower, true);
    cluster.run_ms(2 * HEARTBEAT_MS);
    let before = cluster.delivered;
    cluster.run_ms(20 * HEARTBEAT_MS);
    // To each of the two a heartbeat, and its answer, with a question or two where the logs meet.
    assert!(cluster.delivered - before <= 20 * 4 + 8, "{} messages", cluster.delivered - before);
}
