//! Sessions in clusters of real daemons: a repeated change gets its first reply, whatever happened to the leader, the
//! reply, or all nodes meanwhile.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::time::{Duration, Instant};

use fsclient::{Connection, Operation, Outcome, Refusal};
use fsd_wire::{Command, Operation as Change, Sequence, SessionId, Version};
use support::{PATIENCE, TestCluster, wait_for};

/// How long one attempt waits for its reply.
const ATTEMPT: Duration = Duration::from_secs(3);

/// A client that says everything itself: no retries but those of the test.
struct RawSession {
    session: SessionId,
}

impl RawSession {
    fn open(cluster: &TestCluster) -> Self {
        match ask(cluster, &Operation::OpenSession) {
            Outcome::SessionOpened { session, .. } => Self { session },
            other => panic!("not opened: {other:?}"),
        }
    }

    /// A change that creates the file: made twice, it would be refused the second time.
    fn create(&self, sequence: u64, acknowledged: u64, name: &str) -> Operation {
        let operation = Change::Cas { expected: Version(0), expiry_seconds: 0 };
        let command = Command { operation, name: name.to_owned(), contents: "contents".into() };
        Operation::SessionChange {
            session: self.session,
            sequence: Sequence(sequence),
            acknowledged: Sequence(acknowledged),
            command: command.encode(),
        }
    }
}

/// The outcome of one attempt at a node; `None` if there is none.
fn attempt(cluster: &TestCluster, node: usize, operation: &Operation) -> Option<Outcome> {
    let deadline = Instant::now() + ATTEMPT;
    let mut connection = Connection::open(&cluster.nodes[node].client, "", deadline).ok()?;
    connection.submit(operation.clone(), deadline);
    connection.flush(deadline).ok()?;
    Some(connection.receive(deadline).ok()?.outcome)
}

/// Asks the leader, whoever it is, until there is an answer that decides.
fn ask(cluster: &TestCluster, operation: &Operation) -> Outcome {
    let decided = wait_for(PATIENCE, || {
        let outcome = attempt(cluster, cluster.leader()?, operation)?;
        let again = matches!(
            outcome,
            Outcome::Refused(
                Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Busy | Refusal::Unknown
            )
        );
        (!again).then_some(outcome)
    });
    decided.unwrap_or_else(|| panic!("no answer to {operation:?}: {:?}", cluster.statuses()))
}

/// The revision counter, once all nodes have applied all that is committed.
fn revision(cluster: &TestCluster) -> Version {
    cluster.wait_for_leader();
    cluster.wait_until_caught_up(&(0..cluster.nodes.len()).collect::<Vec<_>>());
    let revisions: Vec<Version> = cluster.statuses().into_iter().map(|(_, status)| status.revision).collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    revisions[0]
}

#[test]
fn after_kill_9_of_the_leader_a_repetition_gets_the_first_reply() {
    let mut cluster = TestCluster::start(3);
    let session = RawSession::open(&cluster);
    for round in 1..=3 {
        let create = session.create(round, round - 1, &format!("f{round}"));
        let first = ask(&cluster, &create);
        assert_eq!(first, Outcome::Changed { version: Version(round) });
        let leader = cluster.wait_for_leader();
        cluster.kill_9(leader);
        assert_eq!(ask(&cluster, &create), first, "at the successor");
        cluster.restart(leader);
        assert_eq!(ask(&cluster, &create), first, "with the old leader back");
        assert_eq!(revision(&cluster), Version(round));
    }
    cluster.compare_all_nodes();
}

#[test]
fn a_change_whose_reply_was_lost_with_the_leader_is_made_once() {
    let mut cluster = TestCluster::start(3);
    let session = RawSession::open(&cluster);
    for round in 1..=4 {
        let create = session.create(round, round - 1, &format!("f{round}"));
        let leader = cluster.wait_for_leader();
        let deadline = Instant::now() + ATTEMPT;
        let mut connection = Connection::open(&cluster.nodes[leader].client, "", deadline).unwrap();
        connection.submit(create.clone(), deadline);
        connection.flush(deadline).unwrap();
        // The request has left; whether it is in a log, and in whose, is not known to anybody here.
        cluster.kill_9(leader);
        let changed = Outcome::Changed { version: Version(round) };
        assert_eq!(ask(&cluster, &create), changed);
        cluster.restart(leader);
        assert_eq!(ask(&cluster, &create), changed, "again, with the old leader back");
        assert_eq!(revision(&cluster), Version(round));
    }
    cluster.compare_all_nodes();
}

#[test]
fn after_all_nodes_were_stopped_and_started_a_repetition_gets_the_first_reply() {
    let mut cluster = TestCluster::start(3);
    let session = RawSession::open(&cluster);
    let create = session.create(1, 0, "f");
    let first = ask(&cluster, &create);
    assert_eq!(first, Outcome::Changed { version: Version(1) });
    for killed in [false, true] {
        if killed {
            cluster.kill_all();
        } else {
            for node in &mut cluster.nodes {
                assert!(node.terminate().success(), "{}", node.output());
            }
        }
        cluster.launch(&[0, 1, 2]);
        assert_eq!(ask(&cluster, &create), first, "killed: {killed}");
    }
    let conflict = session.create(2, 0, "f/below");
    assert_eq!(ask(&cluster, &conflict), Outcome::Refused(Refusal::Conflict { with: "f".into() }));
    assert_eq!(ask(&cluster, &Operation::CloseSession { session: session.session }), Outcome::SessionDone);
    assert_eq!(ask(&cluster, &create), Outcome::Refused(Refusal::SessionGone));
    assert_eq!(revision(&cluster), Version(1));
    cluster.compare_all_nodes();
}

#[test]
fn the_changes_of_a_session_are_in_flight_together() {
    const CHANGES: u64 = 300;
    let mut cluster = TestCluster::start(3);
    let session = RawSession::open(&cluster);
    let leader = cluster.wait_for_leader();
    let deadline = Instant::now() + PATIENCE;
    let mut connection = Connection::open(&cluster.nodes[leader].client, "", deadline).unwrap();
    // Each twice, the first time in falling order.
    let order = (1..=CHANGES).rev().chain(1..=CHANGES);
    for sequence in order.clone() {
        connection.submit(session.create(sequence, 0, &format!("f{sequence}")), deadline);
    }
    connection.flush(deadline).unwrap();
    for _ in order {
        match connection.receive(deadline).unwrap().outcome {
            Outcome::Changed { version } => assert!((1..=CHANGES).contains(&version.0)),
            // The leader may have changed all the same, on a loaded machine.
            Outcome::Refused(
                Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Busy | Refusal::Unknown,
            ) => {}
            other => panic!("{other:?}"),
        }
    }
    for sequence in 1..=CHANGES {
        let again = ask(&cluster, &session.create(sequence, 0, &format!("f{sequence}")));
        assert!(matches!(again, Outcome::Changed { .. }), "{sequence}: {again:?}");
    }
    assert_eq!(revision(&cluster), Version(CHANGES));
    cluster.compare_all_nodes();
}
