//! What becomes of a change, whatever happens to its attempts: against a node that answers as the tests say.

mod fake_node;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake_node::{Caller, FakeNode, error_of_untaken_write, not_leader, session_opened};
use fsclient::{
    AttemptError, Client, ClientError, Operation, Outcome, Refusal, RequestId, Sequence, SessionId, Version,
};
use fsd_wire::hello::HelloStatus;

/// Long enough that a loaded machine answers, short enough for the tests that wait for it to pass.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// What the node does about a request.
#[derive(Clone)]
enum Answer {
    Say(Outcome),
    /// Says nothing, and keeps the connection.
    Silence,
    /// Closes the connection.
    Cut,
    /// Sends what is no frame.
    Garbage,
    /// Answers a request that was not made.
    Stray,
}

/// A node that does about one change after the other as it was told, and about all further ones as about the
/// last. It opens sessions 1, 2, 3 and so on.
struct Scripted {
    node: FakeNode,
    seen: Arc<Mutex<Vec<Operation>>>,
}

/// A request for a change: session, sequence number, acknowledged.
type Numbers = (u64, u64, u64);

impl Scripted {
    fn start(answers: impl Into<Vec<Answer>>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::new(Mutex::new(Script { answers: answers.into(), sessions: 0 }));
        let record = Arc::clone(&seen);
        let node = FakeNode::start(move |mut caller| {
            caller.welcome();
            while let Some(request) = caller.any_request() {
                record.lock().unwrap().push(request.operation.clone());
                let answer = told.lock().unwrap().next(&request.operation);
                if !give(&mut caller, request.id, answer) {
                    return;
                }
            }
        });
        Self { node, seen }
    }

    fn client(&self, timeout: Duration) -> Client {
        Client::new([self.node.address.clone()]).unwrap().with_timeout(timeout)
    }

    fn seen(&self) -> Vec<Operation> {
        self.seen.lock().unwrap().clone()
    }

    fn changes(&self) -> Vec<Numbers> {
        let numbers = |operation: &Operation| match operation {
            Operation::SessionChange { session, sequence, acknowledged, .. } => {
                Some((session.0, sequence.0, acknowledged.0))
            }
            _ => None,
        };
        self.seen().iter().filter_map(numbers).collect()
    }

    fn opened(&self) -> usize {
        self.seen().iter().filter(|operation| matches!(operation, Operation::OpenSession)).count()
    }
}

struct Script {
    /// The answers to the changes that are still to come; the last is for all further ones.
    answers: Vec<Answer>,
    sessions: u64,
}

impl Script {
    fn next(&mut self, operation: &Operation) -> Answer {
        match operation {
            Operation::OpenSession => {
                self.sessions += 1;
                Answer::Say(session_opened(self.sessions))
            }
            Operation::KeepAlive { .. } | Operation::CloseSession { .. } => Answer::Say(Outcome::SessionDone),
            Operation::SessionChange { .. } if self.answers.len() > 1 => self.answers.remove(0),
            Operation::SessionChange { .. } => self.answers[0].clone(),
            other => panic!("not expected: {other:?}"),
        }
    }
}

/// Whether the connection stays.
fn give(caller: &mut Caller, id: RequestId, answer: Answer) -> bool {
    match answer {
        Answer::Say(outcome) => caller.reply(id, outcome),
        Answer::Silence => {}
        Answer::Cut => return false,
        Answer::Garbage => {
            let _ = caller.stream.write_all(&[0xff; 64]);
        }
        Answer::Stray => caller.reply(RequestId(id.0 + 7), Outcome::Changed { version: Version(999) }),
    }
    true
}

fn done(version: u64) -> Answer {
    Answer::Say(Outcome::Changed { version: Version(version) })
}

fn refuse(refusal: Refusal) -> Answer {
    Answer::Say(Outcome::Refused(refusal))
}

fn busy() -> Answer {
    refuse(Refusal::Busy)
}

/// Every way in which an attempt that has left in full can stay without an answer.
fn unanswered() -> [Answer; 5] {
    [Answer::Cut, Answer::Stray, Answer::Silence, refuse(Refusal::Unknown), done_otherwise()]
}

/// An answer to a request of another kind.
fn done_otherwise() -> Answer {
    Answer::Say(Outcome::SessionDone)
}

#[test]
fn changes_are_numbered_in_one_session_and_acknowledge_those_before() {
    let node = Scripted::start([done(1), refuse(Refusal::NotFound), done(2)]);
    let mut client = node.client(LONG);
    assert_eq!(client.write("a", "x", 0).unwrap(), Version(1));
    assert!(matches!(client.delete("b", None).unwrap_err(), ClientError::Refused(Refusal::NotFound)));
    assert_eq!(client.cas("a", Version(1), "y", 0).unwrap(), Version(2));
    assert_eq!(node.changes(), [(1, 1, 0), (1, 2, 1), (1, 3, 2)]);
    assert_eq!(node.opened(), 1);
}

#[test]
fn a_change_without_an_answer_is_sent_again_under_its_number() {
    for answer in unanswered() {
        let node = Scripted::start([answer, done(5), done(6)]);
        let mut client = node.client(LONG).with_attempt_timeout(SHORT);
        assert_eq!(client.write("a", "x", 0).unwrap(), Version(5));
        assert_eq!(client.write("a", "y", 0).unwrap(), Version(6));
        assert_eq!(node.changes(), [(1, 1, 0), (1, 1, 0), (1, 2, 1)]);
        let commands: Vec<_> = node
            .seen()
            .into_iter()
            .filter_map(|operation| match operation {
                Operation::SessionChange { command, .. } => Some(command.to_bytes()),
                _ => None,
            })
            .collect();
        assert_eq!(commands[0], commands[1]);
        assert_ne!(commands[1], commands[2]);
    }
}

#[test]
fn a_change_that_nobody_ever_answers_is_unknown() {
    for answer in unanswered() {
        let node = Scripted::start([answer]);
        let error = node.client(SHORT).write("a", "x", 0).unwrap_err();
        assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
        assert!(node.changes().iter().all(|numbers| *numbers == (1, 1, 0)));
    }
}

#[test]
fn what_came_instead_of_the_answer_is_told() {
    let why_of = |answer| match Scripted::start([answer]).client(SHORT).write("a", "x", 0).unwrap_err() {
        ClientError::Unknown { why, .. } => why,
        error => panic!("{error}"),
    };
    assert!(matches!(why_of(Answer::Garbage), AttemptError::BadFrame(_)));
    assert!(matches!(why_of(Answer::Silence), AttemptError::TimedOut));
    assert!(matches!(why_of(Answer::Stray), AttemptError::StrayReply));
    assert!(matches!(why_of(refuse(Refusal::Unknown)), AttemptError::Refused(Refusal::Unknown)));
}

#[test]
fn a_refusal_to_take_the_change_does_not_close_an_earlier_attempt() {
    // The earlier one may still be in a log and be committed, whatever other nodes say of the later ones.
    for refusal in
        [Refusal::Busy, Refusal::DiskFull { node: fsd_wire::NodeId(2) }, Refusal::NoLeader, not_leading()]
    {
        let node = Scripted::start([Answer::Cut, refuse(refusal.clone())]);
        let error = node.client(SHORT).write("a", "x", 0).unwrap_err();
        assert!(matches!(&error, ClientError::Unknown { .. }), "{refusal:?}: {error}");
        assert!(node.changes().len() > 1, "it is tried until the time is over");

        // It is found out as soon as somebody knows.
        let node = Scripted::start([Answer::Cut, refuse(refusal.clone()), busy(), done(4)]);
        assert_eq!(node.client(LONG).write("a", "x", 0).unwrap(), Version(4));
        assert_eq!(node.changes(), [(1, 1, 0); 4]);
    }
}

/// Sends elsewhere, where nobody is.
fn not_leading() -> Refusal {
    let Outcome::Refused(refusal) = not_leader(&fake_node::dead_address(), 1) else { unreachable!() };
    refusal
}

#[test]
fn a_change_that_no_node_took_is_unavailable() {
    for refusal in
        [Refusal::Busy, Refusal::DiskFull { node: fsd_wire::NodeId(2) }, Refusal::NoLeader, not_leading()]
    {
        let node = Scripted::start([refuse(refusal)]);
        let error = error_of_untaken_write(&mut node.client(SHORT));
        assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    }
}

#[test]
fn connections_that_fail_after_an_attempt_was_sent_leave_it_unknown() {
    let node = FakeNode::start(|mut caller| {
        if caller.number == 0 {
            caller.welcome();
            let _ = caller.request();
        }
    });
    let mut client = Client::new([node.address.clone()]).unwrap().with_timeout(SHORT);
    let error = client.write("a", "x", 0).unwrap_err();
    assert!(matches!(&error, ClientError::Unknown { why: AttemptError::Closed, .. }), "{error}");
    assert!(node.connections() > 2);
    // And if all that is left says that it is another cluster's, that does not undo what was sent.
    let node = FakeNode::start(|mut caller| {
        if caller.number == 0 {
            caller.welcome();
            let _ = caller.request();
        } else {
            caller.answer_hello(HelloStatus::OtherCluster, "this is cluster \"demo\"");
        }
    });
    let mut client = Client::new([node.address.clone()]).unwrap().with_timeout(LONG);
    let error = client.write("a", "x", 0).unwrap_err();
    assert!(matches!(&error, ClientError::Unknown { why: AttemptError::Closed, .. }), "{error}");
}

#[test]
fn what_the_store_says_decides_also_after_attempts_without_an_answer() {
    let refusals = [
        Refusal::NotFound,
        Refusal::VersionMismatch { present: Version(7) },
        Refusal::Conflict { with: "a/b".to_owned() },
    ];
    for refusal in refusals {
        let node = Scripted::start([Answer::Cut, refuse(refusal.clone())]);
        let error = node.client(LONG).cas("a", Version(6), "x", 0).unwrap_err();
        assert!(matches!(&error, ClientError::Refused(found) if *found == refusal), "{error}");
    }
}

#[test]
fn what_one_node_says_of_a_request_decides_nothing_for_an_earlier_attempt_elsewhere() {
    // Another node may accept larger files: its entry may be committed yet.
    let refusals = [
        Refusal::TooLarge { max_bytes: 1 },
        Refusal::InvalidName { reason: "no".to_owned() },
        Refusal::BadRequest { reason: "already acknowledged".to_owned() },
    ];
    for refusal in refusals {
        let node = Scripted::start([Answer::Cut, refuse(refusal.clone())]);
        let error = node.client(LONG).write("a", "x", 0).unwrap_err();
        assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
        // As the first word it decides.
        let node = Scripted::start([busy(), refuse(refusal.clone())]);
        let error = node.client(LONG).write("a", "x", 0).unwrap_err();
        assert!(matches!(&error, ClientError::Refused(found) if *found == refusal), "{error}");
    }
}

#[test]
fn a_session_found_gone_at_once_is_replaced() {
    // Nothing happened: no attempt left before, or those before were not taken up.
    for before in [vec![], vec![busy()], vec![refuse(Refusal::NoLeader), busy()]] {
        let refused = before.len();
        let node = Scripted::start([before, vec![refuse(Refusal::SessionGone), done(3)]].concat());
        assert_eq!(node.client(LONG).write("a", "x", 0).unwrap(), Version(3));
        let mut expected = vec![(1, 1, 0); refused + 1];
        expected.push((2, 1, 0));
        assert_eq!(node.changes(), expected);
    }
}

#[test]
fn a_session_found_gone_after_an_attempt_without_an_answer_is_unknown() {
    for answer in unanswered() {
        let node = Scripted::start([answer, refuse(Refusal::SessionGone), done(3)]);
        let mut client = node.client(LONG).with_attempt_timeout(SHORT);
        let error = client.write("a", "x", 0).unwrap_err();
        assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
        assert_eq!(client.write("a", "y", 0).unwrap(), Version(3));
        assert_eq!(node.changes(), [(1, 1, 0), (1, 1, 0), (2, 1, 0)]);
    }
}

#[test]
fn sessions_that_are_always_gone_end_with_the_time_limit() {
    let node = Scripted::start([refuse(Refusal::SessionGone)]);
    // It may be over while an attempt waits for its answer.
    let error = node.client(SHORT).write("a", "x", 0).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. } | ClientError::Unknown { .. }), "{error}");
}

#[test]
fn the_change_after_one_that_was_given_up_acknowledges_it() {
    // So a copy of it that is still on its way can never be applied behind this one.
    let node = Scripted::start([Answer::Silence]);
    let mut client = node.client(SHORT);
    assert!(matches!(client.write("a", "x", 0).unwrap_err(), ClientError::Unknown { .. }));
    assert!(matches!(client.write("a", "y", 0).unwrap_err(), ClientError::Unknown { .. }));
    client.keep_alive().unwrap();
    assert_eq!(node.changes(), [(1, 1, 0), (1, 2, 1)]);
    let session = SessionId(1);
    assert_eq!(node.seen().last(), Some(&Operation::KeepAlive { session, acknowledged: Sequence(2) }));
}

#[test]
fn a_change_whose_session_cannot_be_opened_is_unavailable() {
    let node = FakeNode::start(|mut caller| {
        caller.welcome();
        let request = caller.any_request().unwrap();
        assert_eq!(request.operation, Operation::OpenSession);
    });
    let mut client = Client::new([node.address.clone()]).unwrap().with_timeout(SHORT);
    let error = client.write("a", "x", 0).unwrap_err();
    assert!(matches!(error, ClientError::Unavailable { .. }), "{error}");
    assert!(node.connections() > 1);
}

#[test]
fn reading_and_keeping_alive_open_no_session() {
    let node = FakeNode::answering(|_, operation| match operation {
        Operation::Read { .. } => Some(Outcome::Refused(Refusal::NotFound)),
        other => panic!("not expected: {other:?}"),
    });
    let mut client = Client::new([node.address.clone()]).unwrap().with_timeout(LONG);
    assert!(matches!(client.read("a").unwrap_err(), ClientError::Refused(Refusal::NotFound)));
    client.keep_alive().unwrap();
    assert_eq!(node.requests(), 1);
}

/// Opens sessions that are due at once, and tells in the version of each change how many requests came before it.
fn node_of_short_sessions(kept_alive: Outcome) -> (FakeNode, Arc<Mutex<Vec<Operation>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let node = FakeNode::start(move |mut caller| {
        caller.welcome();
        while let Some(request) = caller.any_request() {
            let outcome = match &request.operation {
                Operation::OpenSession => Outcome::SessionOpened { session: SessionId(1), idle_ms: 0 },
                Operation::SessionChange { .. } => Outcome::Changed { version: Version(1) },
                _ => kept_alive.clone(),
            };
            record.lock().unwrap().push(request.operation);
            caller.reply(request.id, outcome);
        }
    });
    (node, seen)
}

#[test]
fn a_session_that_may_be_over_is_asked_for_before_a_change_relies_on_it() {
    for (kept_alive, is_gone) in
        [(Outcome::SessionDone, false), (Outcome::Refused(Refusal::SessionGone), true)]
    {
        let (node, seen) = node_of_short_sessions(kept_alive);
        let mut client = Client::new([node.address.clone()]).unwrap().with_timeout(LONG);
        client.write("a", "x", 0).unwrap();
        client.write("a", "y", 0).unwrap();
        let seen = seen.lock().unwrap();
        assert!(
            matches!(
                seen[..3],
                [
                    Operation::OpenSession,
                    Operation::SessionChange { .. },
                    Operation::KeepAlive { session: SessionId(1), acknowledged: Sequence(1) },
                ]
            ),
            "{seen:?}"
        );
        assert_eq!(matches!(seen[3], Operation::OpenSession), is_gone, "{seen:?}");
    }
}

#[test]
fn a_client_that_is_dropped_closes_its_session_and_waits_for_nothing() {
    let (sender, requests) = std::sync::mpsc::channel();
    let node = FakeNode::start(move |mut caller| {
        caller.welcome();
        while let Some(request) = caller.any_request() {
            match request.operation {
                Operation::OpenSession => caller.reply(request.id, session_opened(8)),
                Operation::SessionChange { .. } => {
                    caller.reply(request.id, Outcome::Changed { version: Version(1) });
                }
                // It is not answered.
                operation => sender.send(operation).unwrap(),
            }
        }
    });
    let mut client = Client::new([node.address.clone()]).unwrap().with_timeout(LONG);
    client.write("a", "x", 0).unwrap();
    drop(client);
    let last = requests.recv_timeout(LONG).unwrap();
    assert_eq!(last, Operation::CloseSession { session: SessionId(8) });
    node.wait_until_closed(1);
}
