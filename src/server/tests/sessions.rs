//! Sessions across leaders, restarts and time, at whole nodes.

use fsd_wire::{Sequence, SessionCommand, SessionId};

use super::*;
use crate::limits::{SESSION_END_STEP_MS, SESSION_IDLE_MS, SESSION_WINDOW};

/// What a client does with the number of a change: the same again, or another.
#[derive(Clone, Copy)]
struct Numbered {
    session: SessionId,
    sequence: u64,
    acknowledged: u64,
}

impl Cluster {
    fn open_session(&mut self, node: u32) -> SessionId {
        let open = self.request(Operation::OpenSession);
        match self.ask(node, open) {
            Outcome::SessionOpened { session, idle_ms: SESSION_IDLE_MS } => session,
            other => panic!("not opened: {other:?}"),
        }
    }

    /// A change that creates the file: made twice, it would be refused the second time.
    fn create(&mut self, numbered: Numbered, name: &str) -> Event {
        let Numbered { session, sequence, acknowledged } = numbered;
        let operation = Change::Cas { expected: Version(0), expiry_seconds: 0 };
        let contents = Bytes::from_static(b"contents");
        let command = Command { operation, name: name.into(), contents }.encode();
        let (sequence, acknowledged) = (Sequence(sequence), Sequence(acknowledged));
        self.request(Operation::SessionChange { session, sequence, acknowledged, command })
    }

    fn keep_alive(&mut self, session: SessionId) -> Event {
        self.request(Operation::KeepAlive { session, acknowledged: Sequence(0) })
    }

    /// The leader is lost with all that it knows. Returns its successor.
    fn lose_leader(&mut self) -> u32 {
        let leader = self.leader();
        self.members.remove(&NodeId(leader));
        self.in_flight.retain(|(_, to, _)| to.0 != leader);
        loop {
            self.now_ms += 1;
            assert!(self.now_ms < 100_000, "no successor");
            for node in self.members.keys().map(|id| id.0).collect::<Vec<_>>() {
                self.turn(node, Vec::new()).expect("good disks");
            }
            self.settle_without(leader);
            let leads = |member: &TestMember| member.node.status().role == NodeRole::Leader;
            if let Some((id, _)) = self.members.iter().find(|(_, member)| leads(member)) {
                return id.0;
            }
        }
    }

    fn digests(&self) -> Vec<(LogIndex, u32)> {
        let digest = |member: &TestMember| (member.node.store.last_applied(), member.node.store.digest());
        self.members.values().map(digest).collect()
    }

    fn sessions_at(&self, node: u32) -> usize {
        self.members[&NodeId(node)].node.store.sessions()
    }
}

fn created(version: u64) -> Outcome {
    Outcome::Changed { version: Version(version) }
}

fn gone() -> Outcome {
    Outcome::Refused(Refusal::SessionGone)
}

#[test]
fn a_repetition_at_a_new_leader_gets_the_first_reply() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let first = Numbered { session, sequence: 1, acknowledged: 0 };
    let create = cluster.create(first, "f");
    // Committed, and its reply is lost with the leader: at the others it is in the log only.
    assert_eq!(cluster.ask(leader, create), created(1));
    let new = cluster.lose_leader();
    let again = cluster.create(first, "f");
    cluster.turn(new, vec![again]).unwrap();
    cluster.settle_without(leader);
    assert_eq!(cluster.replies(new), [created(1)]);
    let status = cluster.members[&NodeId(new)].node.status();
    assert_eq!((status.revision, status.files), (Version(1), 1));
}

#[test]
fn a_repetition_after_all_nodes_lost_power_gets_the_first_reply() {
    for nodes in [1, 3] {
        let mut cluster = Cluster::new(nodes);
        cluster.pass(1);
        let leader = cluster.leader();
        let session = cluster.open_session(leader);
        let change = |sequence| Numbered { session, sequence, acknowledged: 0 };
        for (sequence, name) in [(1, "f"), (2, "f/below"), (3, "g")] {
            let create = cluster.create(change(sequence), name);
            cluster.ask(leader, create);
        }
        let delete = cluster.request(Operation::Change {
            command: Command { operation: Change::Delete, name: "f".into(), contents: Bytes::new() }.encode(),
        });
        assert_eq!(cluster.ask(leader, delete), created(3));
        cluster.restart_all();
        cluster.pass(1);
        let leader = cluster.leader();
        let replies = [created(1), Outcome::Refused(Refusal::Conflict { with: "f".into() }), created(2)];
        for (sequence, name, reply) in
            [(3, "g", &replies[2]), (2, "f/below", &replies[1]), (1, "f", &replies[0])]
        {
            let again = cluster.create(change(sequence), name);
            assert_eq!(cluster.ask(leader, again), *reply, "{nodes} nodes, change {sequence}");
        }
        assert_eq!(cluster.members[&NodeId(leader)].node.status().revision, Version(3));
    }
}

#[test]
fn both_attempts_are_answered_when_the_second_comes_while_the_first_is_in_flight() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let first = Numbered { session, sequence: 1, acknowledged: 0 };
    let attempts = vec![cluster.create(first, "f"), cluster.create(first, "f")];
    cluster.turn(leader, attempts).unwrap();
    let third = cluster.create(first, "f");
    cluster.turn(leader, vec![third]).unwrap();
    cluster.settle();
    assert_eq!(cluster.replies(leader), [created(1), created(1), created(1)]);
    assert_eq!(cluster.members[&NodeId(leader)].node.status().revision, Version(1));
}

#[test]
fn a_client_whose_time_was_up_learns_the_outcome_by_asking_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let first = Numbered { session, sequence: 1, acknowledged: 0 };
    let create = cluster.create(first, "f");
    cluster.turn(leader, vec![create]).unwrap();
    let held = std::mem::take(&mut cluster.in_flight);
    for _ in 0..5001 {
        cluster.now_ms += 1;
        cluster.in_flight.clear();
        cluster.turn(leader, Vec::new()).unwrap();
    }
    assert_eq!(cluster.replies(leader), [Outcome::Refused(Refusal::Unknown)]);
    // What had left before gets through after all.
    cluster.in_flight = held;
    cluster.settle();
    cluster.pass(1000);
    let leader = cluster.leader();
    let again = cluster.create(first, "f");
    assert_eq!(cluster.ask(leader, again), created(1));
}

#[test]
fn changes_in_flight_together_are_made_once_each_in_any_order() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let change = |sequence, acknowledged| Numbered { session, sequence, acknowledged };
    let order = [3, 1, 2, 5, 1, 4, 3];
    let events = order.map(|sequence| cluster.create(change(sequence, 0), &format!("f{sequence}")));
    cluster.turn(leader, events.into()).unwrap();
    cluster.settle();
    // The versions are those of the order in which each came first.
    assert_eq!(cluster.replies(leader), [1, 2, 3, 4, 2, 5, 1].map(created));
    let beyond = cluster.create(change(SESSION_WINDOW + 1, 0), "beyond");
    assert_eq!(cluster.ask(leader, beyond), Outcome::Refused(Refusal::Busy));
    let within = cluster.create(change(SESSION_WINDOW + 1, 5), "beyond");
    assert_eq!(cluster.ask(leader, within), created(6));
    let late = cluster.create(change(5, 4), "f5");
    assert!(matches!(cluster.ask(leader, late), Outcome::Refused(Refusal::BadRequest { .. })));
}

#[test]
fn other_nodes_redirect_what_is_asked_of_a_session_and_pass_no_judgement() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let follower = 1 + leader % 3;
    let operations = [
        Operation::OpenSession,
        Operation::KeepAlive { session, acknowledged: Sequence(0) },
        Operation::CloseSession { session },
        // This one does not know yet that it was opened.
        Operation::KeepAlive { session: SessionId(session.0 + 1000), acknowledged: Sequence(0) },
    ];
    for operation in operations {
        let request = cluster.request(operation);
        let outcome = cluster.ask(follower, request);
        assert!(
            matches!(outcome, Outcome::Refused(Refusal::NotLeader { leader: named, .. }) if named.0 == leader),
            "{outcome:?}"
        );
    }
}

#[test]
fn what_the_store_would_refuse_in_any_case_does_not_enter_the_log() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let first = Numbered { session, sequence: 1, acknowledged: 0 };
    let last_index = |cluster: &Cluster| cluster.members[&NodeId(leader)].node.status().last_log_index;
    let before = last_index(&cluster);
    let invalid = cluster.create(first, "../f");
    assert!(matches!(cluster.ask(leader, invalid), Outcome::Refused(Refusal::InvalidName { .. })));
    let broken = cluster.request(Operation::SessionChange {
        session,
        sequence: Sequence(1),
        acknowledged: Sequence(0),
        command: Bytes::from_static(b"no command").into(),
    });
    assert!(matches!(cluster.ask(leader, broken), Outcome::Refused(Refusal::BadRequest { .. })));
    let close = cluster.request(Operation::CloseSession { session });
    assert_eq!(last_index(&cluster), before);
    assert_eq!(cluster.ask(leader, close), Outcome::SessionDone);
    let closed = last_index(&cluster);
    assert_eq!(closed, before.next());
    let late = cluster.create(first, "f");
    assert_eq!(cluster.ask(leader, late), gone());
    assert_eq!(last_index(&cluster), closed);
}

#[test]
fn a_session_ends_at_one_entry_everywhere_not_early_and_by_itself() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [idle, busy] = [(); 2].map(|()| cluster.open_session(leader));
    cluster.pass(HEARTBEAT_MS);
    assert_eq!(cluster.sessions_at(leader), 2);
    let opened_ms = cluster.now_ms - HEARTBEAT_MS;
    while cluster.now_ms < opened_ms + SESSION_IDLE_MS - 1 {
        let rest = opened_ms + SESSION_IDLE_MS - 1 - cluster.now_ms;
        cluster.step_by(rest.min(HEARTBEAT_MS));
        let alive = cluster.keep_alive(busy);
        assert_eq!(cluster.ask(leader, alive), Outcome::SessionDone);
    }
    for node in 1..=3 {
        assert_eq!(cluster.sessions_at(node), 2, "early at node {node}");
    }
    // Nothing is asked of it any more.
    for _ in 0..(SESSION_END_STEP_MS + 2 * HEARTBEAT_MS) / HEARTBEAT_MS {
        cluster.step_by(HEARTBEAT_MS);
    }
    for node in 1..=3 {
        assert_eq!(cluster.sessions_at(node), 1, "node {node}");
    }
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let late = cluster.create(Numbered { session: idle, sequence: 1, acknowledged: 0 }, "f");
    assert_eq!(cluster.ask(leader, late), gone());
    let alive = cluster.create(Numbered { session: busy, sequence: 1, acknowledged: 0 }, "f");
    assert_eq!(cluster.ask(leader, alive), created(1));
}

#[test]
fn no_session_ends_because_of_an_outage() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    cluster.pass(HEARTBEAT_MS);
    // Much later all nodes start again: cluster time stood still meanwhile.
    cluster.now_ms += 10 * SESSION_IDLE_MS;
    cluster.restart_all();
    let leader = cluster.leader();
    let alive = cluster.keep_alive(session);
    assert_eq!(cluster.ask(leader, alive), Outcome::SessionDone);
}

#[test]
fn a_session_that_has_to_give_way_is_gone_at_every_node() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let [first, second] = [(); 2].map(|()| cluster.open_session(leader));
    let first_change = |session| Numbered { session, sequence: 1, acknowledged: 0 };
    let create = cluster.create(first_change(first), "f");
    assert_eq!(cluster.ask(leader, create), created(1));
    // The bound is the entry's, so an entry with a low one does what a full table would.
    let open = SessionCommand::Open { idle_ms: SESSION_IDLE_MS, sessions_max: 2 }.encode();
    let now_ms = cluster.now_ms;
    cluster.members.get_mut(&NodeId(leader)).unwrap().node.raft.propose_session(now_ms, open).unwrap();
    cluster.turn(leader, Vec::new()).unwrap();
    cluster.settle();
    cluster.pass(2 * HEARTBEAT_MS);
    let change = cluster.create(first_change(second), "g");
    assert_eq!(cluster.ask(leader, change), gone(), "it was used longest ago");
    let again = cluster.create(first_change(first), "f");
    assert_eq!(cluster.ask(leader, again), created(1));
    cluster.pass(2 * HEARTBEAT_MS);
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn contents_that_a_session_wrote_are_read_at_every_node_and_after_a_restart() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let session = cluster.open_session(leader);
    let create = cluster.create(Numbered { session, sequence: 1, acknowledged: 0 }, "f");
    assert_eq!(cluster.ask(leader, create), created(1));
    for restarted in [false, true] {
        if restarted {
            cluster.restart_all();
            cluster.leader();
        }
        cluster.pass(2 * HEARTBEAT_MS);
        for node in 1..=3 {
            let read = cluster.request(Operation::Read { name: "f".into() });
            let outcome = cluster.ask(node, read);
            assert!(
                matches!(&outcome, Outcome::Read { contents, .. } if contents == "contents"),
                "{outcome:?} at node {node}"
            );
        }
    }
}

impl Cluster {
    /// Time goes on by that much at once.
    fn step_by(&mut self, ms: u64) {
        self.now_ms += ms;
        self.turn_all();
        self.settle();
    }
}
