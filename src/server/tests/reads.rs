//! Reads at nodes that do not lead, and reads of a node's own state.

use super::*;

const LATER_MS: u64 = 400;

impl Cluster {
    /// Three nodes of which one leads, with the file `f` on all of them. Returns the leader and a follower.
    pub(super) fn with_file() -> (Self, u32, u32) {
        let mut cluster = Self::new(3);
        let leader = cluster.leader();
        let write = cluster.write("f", 0);
        assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
        cluster.pass(2 * HEARTBEAT_MS);
        (cluster, leader, 1 + leader % 3)
    }

    pub(super) fn read(&mut self, name: &str) -> Event {
        self.request(Operation::Read { name: name.into() })
    }

    pub(super) fn stat(&mut self, name: &str) -> Event {
        self.request(Operation::Stat { name: name.into() })
    }

    /// As [`Self::settle`], with messages that are held back; they are returned.
    pub(super) fn settle_holding(
        &mut self,
        hold: impl Fn(u32, u32, &PeerMessage) -> bool,
    ) -> VecDeque<(NodeId, NodeId, PeerMessage)> {
        let mut held = VecDeque::new();
        for _ in 0..10_000 {
            match self.in_flight.pop_front() {
                Some((from, to, message)) if hold(from.0, to.0, &message) => {
                    held.push_back((from, to, message));
                }
                Some((from, to, message)) => {
                    self.turn(to.0, vec![Event::Peer { from, message }]).expect("good disks");
                }
                None => return held,
            }
        }
        panic!("messages without end");
    }

    /// Lets time pass for some nodes; messages to the others are lost.
    pub(super) fn pass_among(&mut self, nodes: &[u32], ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            for node in nodes {
                self.turn(*node, Vec::new()).expect("good disks");
            }
            self.settle_holding(|_, to, _| !nodes.contains(&to));
        }
    }

    pub(super) fn leader_among(&self, nodes: &[u32]) -> Option<u32> {
        let leads = |node: &&u32| self.members[&NodeId(**node)].node.status().role == NodeRole::Leader;
        nodes.iter().find(leads).copied()
    }
}

fn is_read_index(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::ReadIndex(_) | PeerMessage::ReadIndexReply(_))
}

fn version_read(outcome: &Outcome) -> Version {
    match outcome {
        Outcome::Read { version, .. } => *version,
        other => panic!("no contents: {other:?}"),
    }
}

#[test]
fn every_node_answers_every_kind_of_read_with_one_question_a_turn() {
    let (mut cluster, leader, _) = Cluster::with_file();
    for node in (1..=3).filter(|node| *node != leader) {
        let operations = [
            cluster.read("f"),
            cluster.stat("f"),
            cluster.request(Operation::List { prefix: String::new(), after: String::new(), limit: 10 }),
            cluster.read("missing"),
        ];
        cluster.turn(node, operations.into()).unwrap();
        let questions = cluster.in_flight.iter().filter(|(_, _, message)| is_read_index(message)).count();
        assert_eq!(questions, 1);
        cluster.settle();
        let mut replies = cluster.replies(node);
        assert_eq!(replies.len(), 4);
        assert_eq!(replies.pop(), Some(Outcome::Refused(Refusal::NotFound)));
        assert!(matches!(replies.pop(), Some(Outcome::Listed { files, more: false }) if files.len() == 1));
        assert!(matches!(replies.pop(), Some(Outcome::Stat(info)) if info.version == Version(1)));
        assert_eq!(version_read(&replies[0]), Version(1));
    }
}

#[test]
fn a_followers_read_waits_until_its_store_has_what_was_acknowledged() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    // The write is acknowledged by the other follower's help; this one has not heard of it.
    let write = cluster.write("f", 0);
    cluster.turn(leader, vec![write]).unwrap();
    let appends = |to: u32, message: &PeerMessage| {
        to == follower
            && matches!(message, PeerMessage::AppendEntries(request) if !request.entries.is_empty())
    };
    let held = cluster.settle_holding(|_, to, message| appends(to, message));
    assert_eq!(cluster.replies(leader), [Outcome::Changed { version: Version(2) }]);
    let read = cluster.read("f");
    cluster.turn(follower, vec![read]).unwrap();
    let held_later = cluster.settle_holding(|_, to, message| appends(to, message));
    assert!(cluster.replies(follower).is_empty(), "its own store is in the past");
    cluster.in_flight.extend(held.into_iter().chain(held_later));
    cluster.settle();
    cluster.pass(HEARTBEAT_MS);
    assert_eq!(version_read(&cluster.replies(follower)[0]), Version(2));
}

#[test]
fn lost_questions_and_lost_answers_are_made_good() {
    let (mut cluster, _, follower) = Cluster::with_file();
    for lost in 1..=4 {
        let read = cluster.read("f");
        cluster.turn(follower, vec![read]).unwrap();
        for _ in 0..lost {
            // Question or answer, whichever comes first.
            let held = cluster.settle_holding(|_, _, message| {
                is_read_index(message) && (lost % 2 == 0 || matches!(message, PeerMessage::ReadIndex(_)))
            });
            assert!(!held.is_empty(), "it was asked again");
            assert!(cluster.replies(follower).is_empty());
            for _ in 0..HEARTBEAT_MS + 10 {
                cluster.now_ms += 1;
                cluster.turn_all();
            }
        }
        cluster.settle();
        assert_eq!(version_read(&cluster.replies(follower)[0]), Version(1), "{lost} lost");
    }
}

#[test]
fn a_read_outlives_the_leader_that_was_asked() {
    let mut readers_that_succeeded = Vec::new();
    for step in [0, 1] {
        let (mut cluster, leader, _) = Cluster::with_file();
        let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
        let reader = others[step];
        let read = cluster.read("f");
        cluster.turn(reader, vec![read]).unwrap();
        cluster.in_flight.clear();
        cluster.members.remove(&NodeId(leader));
        while cluster.leader_among(&others).is_none() {
            cluster.pass_among(&others, 1);
        }
        cluster.pass_among(&others, HEARTBEAT_MS);
        let replies = cluster.replies(reader);
        assert_eq!(replies.len(), 1);
        assert_eq!(version_read(&replies[0]), Version(1));
        readers_that_succeeded.push(cluster.leader_among(&others) == Some(reader));
    }
    readers_that_succeeded.sort_unstable();
    assert_eq!(
        readers_that_succeeded,
        [false, true],
        "both: it asks the next leader, and it is the next leader"
    );
}

/// A leader and one follower are cut off, and do not know yet: all that they have is in the past.
#[test]
fn nothing_is_answered_from_the_past_and_a_node_without_a_leader_says_so() {
    let mut cluster = Cluster::new(5);
    let old = cluster.leader();
    let write = cluster.write("f", 0);
    cluster.ask(old, write);
    cluster.pass(2 * HEARTBEAT_MS);
    let with_old = 1 + old % 5;
    let others: Vec<u32> = (1..=5).filter(|node| ![old, with_old].contains(node)).collect();
    // For the two no time passes meanwhile, as for stopped processes.
    let cut_off_ms = cluster.now_ms;
    while cluster.leader_among(&others).is_none() {
        cluster.pass_among(&others, 1);
        assert!(cluster.now_ms < cut_off_ms + 10_000);
    }
    let new = cluster.leader_among(&others).unwrap();
    let write = cluster.write("f", 0);
    cluster.turn(new, vec![write]).unwrap();
    cluster.settle_holding(|_, to, _| !others.contains(&to));
    assert_eq!(cluster.replies(new), [Outcome::Changed { version: Version(2) }]);

    let resumed_ms = cluster.now_ms;
    cluster.now_ms = cut_off_ms;
    let reads = [old, with_old].map(|node| (node, cluster.read("f")));
    for (node, read) in reads {
        cluster.turn(node, vec![read]).unwrap();
    }
    cluster.settle_holding(|_, to, _| others.contains(&to));
    assert!(cluster.leader_among(&[old]).is_some(), "it was not told");
    assert!(cluster.replies(old).is_empty() && cluster.replies(with_old).is_empty());
    // Long before the request's 5 seconds are over, both know that they know nothing.
    cluster.pass_among(&[old, with_old], 1800);
    for node in [old, with_old] {
        assert_eq!(cluster.replies(node), [Outcome::Refused(Refusal::NoLeader)], "node {node}");
        let read = cluster.read("f");
        cluster.turn(node, vec![read]).unwrap();
        assert_eq!(cluster.replies(node), [Outcome::Refused(Refusal::NoLeader)], "at once at node {node}");
    }
    cluster.in_flight.clear();
    // With the others back, the same node has the new contents.
    cluster.now_ms = cluster.now_ms.max(resumed_ms);
    cluster.pass(3 * LATER_MS);
    cluster.leader();
    cluster.pass(2 * HEARTBEAT_MS);
    let read = cluster.read("f");
    assert_eq!(version_read(&cluster.ask(with_old, read)), Version(2));
}

/// The leader is alive and heard, but nothing reaches it: the read ends with its time, and nothing is left of it.
#[test]
fn a_read_that_is_never_confirmed_ends_with_its_time() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    let read = cluster.read("f");
    cluster.turn(follower, vec![read]).unwrap();
    for _ in 0..5001 {
        cluster.now_ms += 1;
        cluster.turn_all();
        cluster.settle_holding(|from, to, _| (from, to) == (follower, leader));
    }
    assert_eq!(cluster.replies(follower), [Outcome::Refused(Refusal::NoLeader)]);
    assert!(cluster.members[&NodeId(follower)].node.pending.is_empty());
    // The confirmation that comes after all is nobody's.
    cluster.pass(2 * HEARTBEAT_MS);
    assert!(cluster.replies(follower).is_empty());
    let read = cluster.read("f");
    assert_eq!(version_read(&cluster.ask(follower, read)), Version(1));
}

#[test]
fn what_is_seen_gone_at_the_leader_is_gone_at_its_followers() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    let write = cluster.write("lock", 2);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    cluster.pass(HEARTBEAT_MS);
    let written_ms = cluster.now_ms - HEARTBEAT_MS;
    let left = |cluster: &mut Cluster, node| {
        let stat = cluster.stat("lock");
        match cluster.ask(node, stat) {
            Outcome::Stat(info) => Some(info.expiry_seconds),
            Outcome::Refused(Refusal::NotFound) => None,
            other => panic!("{other:?}"),
        }
    };
    // The store's own time stands still: nothing is written. The answer counts by the leader's.
    for (at_ms, expected) in [(60, 2), (999, 2), (1000, 1), (1999, 1)] {
        cluster.pass(written_ms + at_ms - cluster.now_ms);
        assert_eq!(left(&mut cluster, follower), Some(expected), "{at_ms} ms after");
        assert_eq!(left(&mut cluster, leader), Some(expected), "{at_ms} ms after");
    }
    // The moment comes while nothing else happens; whoever is asked first, it is gone.
    cluster.now_ms = written_ms + 2000;
    assert_eq!(left(&mut cluster, follower), None);
    assert_eq!(left(&mut cluster, leader), None);
    assert_eq!(left(&mut cluster, follower), None);
}

/// A removal is on its way when the next file falls due: its entry is too early to remove that one, too.
#[test]
fn an_answer_waits_for_the_removal_of_all_that_is_due_when_it_is_given() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    for name in ["first", "second"] {
        let write = cluster.write(name, 1);
        assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
        cluster.now_ms += 1;
    }
    let first_due_ms = cluster.now_ms - 2 + 1000;
    cluster.pass(first_due_ms - 1 - cluster.now_ms);
    // The leader proposes the removal of the first; it stays on its way.
    cluster.now_ms = first_due_ms;
    cluster.turn(leader, Vec::new()).unwrap();
    let removal = cluster.settle_holding(|from, _, _| from == leader);
    assert!(!removal.is_empty());
    cluster.now_ms += 1;
    let stat = cluster.stat("second");
    cluster.turn(follower, vec![stat]).unwrap();
    cluster.in_flight.extend(removal);
    cluster.settle();
    assert_eq!(cluster.replies(follower), [Outcome::Refused(Refusal::NotFound)]);
}

#[test]
fn an_expiry_is_never_longer_than_it_was_set_though_the_store_is_ahead_of_the_answer() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    let stat = cluster.stat("lock");
    cluster.turn(follower, vec![stat]).unwrap();
    let answer = cluster.settle_holding(|_, _, message| matches!(message, PeerMessage::ReadIndexReply(_)));
    assert_eq!(answer.len(), 1);
    // The file is written after the answer was made, and is there before it comes.
    cluster.pass(20);
    let write = cluster.write("lock", 1);
    assert!(matches!(cluster.ask(leader, write), Outcome::Changed { .. }));
    cluster.in_flight.extend(answer);
    cluster.settle();
    let replies = cluster.replies(follower);
    assert!(matches!(&replies[..], [Outcome::Stat(info)] if info.expiry_seconds == 1), "{replies:?}");
}

fn text(event: Event) -> Event {
    match event {
        Event::Request { connection, request, .. } => {
            Event::Request { connection, protocol: ClientProtocol::Text, request }
        }
        other => other,
    }
}

#[test]
fn local_text_reads_are_answered_at_once_without_a_leader_and_perhaps_from_the_past() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    for member in cluster.members.values_mut() {
        member.node.config.text_reads = TextReads::Local;
    }
    for node in 1..=3 {
        let read = text(cluster.read("f"));
        cluster.turn(node, vec![read]).unwrap();
        assert_eq!(version_read(&cluster.replies(node)[0]), Version(1), "in the same turn at node {node}");
    }
    cluster.settle();
    // Cut off, the follower goes on with what it has; the others go on as well.
    let others: Vec<u32> = (1..=3).filter(|node| *node != follower).collect();
    let write = cluster.write("f", 0);
    cluster.turn(leader, vec![write]).unwrap();
    cluster.settle_holding(|from, to, _| from == follower || to == follower);
    assert_eq!(cluster.replies(leader), [Outcome::Changed { version: Version(2) }]);
    cluster.pass_among(&[follower], 5 * LATER_MS);
    assert_eq!(cluster.members[&NodeId(follower)].node.status().leader, None);
    let read = text(cluster.read("f"));
    cluster.turn(follower, vec![read]).unwrap();
    assert_eq!(version_read(&cluster.replies(follower)[0]), Version(1), "the past, as it was asked for");
    // The binary protocol promises more, and says that it cannot keep it.
    let read = cluster.read("f");
    cluster.turn(follower, vec![read]).unwrap();
    assert_eq!(cluster.replies(follower), [Outcome::Refused(Refusal::NoLeader)]);
    // Writes are nobody's but the leader's.
    let write = text(cluster.write("f", 0));
    cluster.turn(follower, vec![write]).unwrap();
    assert_eq!(cluster.replies(follower), [Outcome::Refused(Refusal::NoLeader)]);
    assert_eq!(others.len(), 2);
}

#[test]
fn a_local_read_counts_an_expiry_by_the_time_that_its_node_was_told() {
    let (mut cluster, leader, follower) = Cluster::with_file();
    for member in cluster.members.values_mut() {
        member.node.config.text_reads = TextReads::Local;
    }
    let write = cluster.write("lock", 10);
    cluster.ask(leader, write);
    cluster.pass(3500);
    for (node, expected) in [(leader, 7), (follower, 7)] {
        let read = text(cluster.read("lock"));
        cluster.turn(node, vec![read]).unwrap();
        let replies = cluster.replies(node);
        assert!(matches!(replies[0], Outcome::Read { expiry_seconds, .. } if expiry_seconds == expected));
    }
    // An entry tells the follower the time.
    let write = cluster.write("f", 0);
    cluster.ask(leader, write);
    cluster.pass(2 * HEARTBEAT_MS);
    let read = text(cluster.read("lock"));
    cluster.turn(follower, vec![read]).unwrap();
    assert!(matches!(cluster.replies(follower)[0], Outcome::Read { expiry_seconds: 7, .. }));
}
