use fsd_wire::Version;

use super::*;
use crate::net::{ClientProtocol, ConnectionId};
use crate::server::measurements::RequestKind;
use crate::server::pending::{Asked, Origin};
use crate::timer_wheel::TimerWheel;

const FIRST_TICKET: u64 = 1000;

struct Test {
    forwarder: Forwarder,
    asked: u64,
}

fn path(leader: u32, connection: u64) -> Option<Path> {
    Some(Path { leader: NodeId(leader), term: Term(1), connection })
}

fn opened(session: u64) -> Outcome {
    Outcome::SessionOpened { session: SessionId(session), idle_ms: 60_000 }
}

fn changed(version: u64) -> Outcome {
    Outcome::Changed { version: Version(version) }
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

fn not_leader() -> Outcome {
    refused(Refusal::NotLeader { leader: NodeId(3), address: String::new(), term: Term(2) })
}

impl Test {
    fn new() -> Self {
        Self { forwarder: Forwarder::new(FIRST_TICKET), asked: 0 }
    }

    /// With a session of this id, on the way to node 2.
    fn with_session(session: u64) -> Self {
        let mut test = Self::new();
        let first = test.add(1);
        let open = test.take(path(2, 1));
        test.forwarder.answer(open[0].id.0, opened(session));
        let sent = test.take(path(2, 1));
        assert_eq!(sent[0].id.0, first);
        assert!(test.forwarder.answer(first, changed(1)).is_some());
        test
    }

    /// A client's change of so many bytes; returns its ticket.
    fn add(&mut self, bytes: usize) -> u64 {
        self.asked += 1;
        let ticket = self.forwarder.next_ticket();
        let connection = ConnectionId::new(self.asked as u32, 1);
        let asker = Asker {
            origin: Origin::Client { connection, protocol: ClientProtocol::Text },
            request: RequestId(ticket),
            deadline: TimerWheel::new(0).insert(1, ()),
            asked: Asked { kind: RequestKind::Write, at_us: 0 },
        };
        self.forwarder.add(asker, &Payload::from(Bytes::from(vec![0; bytes])));
        ticket
    }

    fn take(&mut self, path: Option<Path>) -> Vec<ClientRequest> {
        self.forwarder.take_requests(path)
    }

    /// The numbers of what is to be sent: ticket, session, sequence, acknowledged.
    fn numbers(&mut self, path: Option<Path>) -> Vec<[u64; 4]> {
        let numbers = |request: ClientRequest| match request.operation {
            Operation::SessionChange { session, sequence, acknowledged, .. } => {
                [request.id.0, session.0, sequence.0, acknowledged.0]
            }
            other => panic!("{other:?}"),
        };
        self.take(path).into_iter().map(numbers).collect()
    }

    /// What the client of this change is told because of this answer.
    fn told(&mut self, ticket: u64, outcome: Outcome) -> Option<Outcome> {
        let (asker, outcome) = self.forwarder.answer(ticket, outcome)?;
        assert_eq!(asker.request, RequestId(ticket), "the right client");
        Some(outcome)
    }
}

#[test]
fn a_session_is_opened_when_it_is_needed_and_changes_are_numbered_in_it() {
    let mut test = Test::new();
    assert!(test.take(path(2, 1)).is_empty(), "nobody wants anything");
    let [a, b] = [test.add(1), test.add(1)];
    assert!(test.take(None).is_empty(), "there is no leader");
    let requests = test.take(path(2, 1));
    assert!(matches!(&requests[..], [ClientRequest { operation: Operation::OpenSession, .. }]));
    assert!(test.take(path(2, 1)).is_empty(), "one at a time");
    assert_eq!(test.told(requests[0].id.0, opened(7)), None);
    assert_eq!(test.numbers(path(2, 1)), [[a, 7, 1, 0], [b, 7, 2, 0]]);
    assert!(test.take(path(2, 1)).is_empty(), "once is enough");
    assert_eq!(test.told(b, changed(5)), Some(changed(5)));
    let c = test.add(1);
    assert_eq!(test.numbers(path(2, 1)), [[c, 7, 3, 0]]);
    assert_eq!(test.told(a, refused(Refusal::NotFound)), Some(refused(Refusal::NotFound)));
    let d = test.add(1);
    assert_eq!(test.numbers(path(2, 1)), [[d, 7, 4, 2]], "both before c are acknowledged");
    assert_eq!(test.told(a, changed(9)), None, "nobody waits for it any more");
}

#[test]
fn what_may_be_lost_is_sent_again_with_its_number() {
    let mut test = Test::with_session(7);
    let [a, b] = [test.add(1), test.add(1)];
    let sent = test.numbers(path(2, 1));
    assert_eq!(sent, [[a, 7, 2, 1], [b, 7, 3, 1]]);
    assert!(test.take(None).is_empty());
    assert_eq!(test.numbers(path(2, 2)), sent, "another connection");
    assert_eq!(test.numbers(path(3, 2)), sent, "another leader");
    assert_eq!(test.told(b, refused(Refusal::Unknown)), None);
    assert_eq!(test.told(a, changed(2)), Some(changed(2)));
    assert!(test.take(path(3, 2)).is_empty(), "not at once");
    test.forwarder.end_round();
    assert_eq!(test.numbers(path(3, 2)), [[b, 7, 3, 2]]);
}

#[test]
fn what_is_not_answered_is_sent_again_after_ever_more_rounds() {
    let mut test = Test::with_session(7);
    let [a, b] = [test.add(1), test.add(limits::FORWARDED_BYTES_MAX - 2)];
    assert_eq!(test.take(path(2, 1)).len(), 2);
    let mut sent_after = Vec::new();
    for round in 1..=16 {
        test.forwarder.end_round();
        match &test.numbers(path(2, 1))[..] {
            [] => {}
            [[first, ..], [second, ..]] if [*first, *second] == [a, b] => sent_after.push(round),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent_after, [2, 5, 10], "one whole round, two, four");
    // What is under way is counted once, however often it was sent.
    let c = test.add(1);
    assert_eq!(test.numbers(path(2, 1))[0][0], c);
    let d = test.add(1);
    assert!(test.take(path(2, 1)).is_empty(), "a byte too many");
    // Another way knows nothing of the waits on this one.
    assert_eq!(test.take(path(2, 2)).len(), 3);
    test.forwarder.end_round();
    assert!(test.told(a, changed(2)).is_some());
    assert_eq!(test.numbers(path(2, 2))[0][0], d);
    test.forwarder.end_round();
    assert_eq!(test.numbers(path(2, 2)).iter().map(|[ticket, ..]| *ticket).collect::<Vec<_>>(), [b, c]);
}

#[test]
fn a_refused_attempt_says_nothing_of_the_others() {
    let mut test = Test::with_session(7);
    let a = test.add(1);
    test.take(path(2, 1));
    assert_eq!(test.told(a, refused(Refusal::Busy)), Some(refused(Refusal::Busy)), "the only attempt");

    let b = test.add(1);
    test.take(path(2, 1));
    test.take(path(3, 2));
    assert_eq!(test.told(b, refused(Refusal::Busy)), None, "the other may come through");
    assert_eq!(test.told(b, not_leader()), None, "now none may, but the client can wait");
    let (_, outcome) = test.forwarder.give_up(b).unwrap();
    assert_eq!(outcome, refused(Refusal::NoLeader), "nothing happened");

    let c = test.add(1);
    test.take(path(3, 2));
    let (_, outcome) = test.forwarder.give_up(c).unwrap();
    assert_eq!(outcome, refused(Refusal::Unknown));
    assert!(test.forwarder.is_empty());
    let d = test.add(1);
    let [_, _, sequence, acknowledged] = test.numbers(path(3, 2))[0];
    assert_eq!(acknowledged, sequence - 1, "what was given up can not come true behind d");
    assert!(test.told(d, changed(3)).is_some());
}

#[test]
fn a_change_that_no_leader_saw_is_refused_for_certain() {
    let mut test = Test::new();
    let a = test.add(1);
    test.take(path(2, 1));
    let (_, outcome) = test.forwarder.give_up(a).unwrap();
    assert_eq!(outcome, refused(Refusal::NoLeader), "only the session was asked for");
    assert!(test.forwarder.give_up(a).is_none());
}

#[test]
fn when_the_session_is_gone_a_first_attempt_goes_into_the_next_one() {
    let mut test = Test::with_session(7);
    let [old, new] = [test.add(1), test.add(1)];
    test.take(path(2, 1));
    test.take(path(3, 2));
    let late = test.add(1);
    test.take(path(3, 2));
    let gone = || refused(Refusal::SessionGone);
    assert_eq!(test.told(old, gone()), Some(refused(Refusal::Unknown)), "it was sent twice");
    assert_eq!(test.told(late, gone()), None, "it was sent once");
    let open = test.take(path(3, 2));
    assert!(matches!(open[..], [ClientRequest { operation: Operation::OpenSession, .. }]));
    assert_eq!(test.told(open[0].id.0, opened(20)), None);
    assert_eq!(test.numbers(path(3, 2)), [[late, 20, 1, 0]]);
    // Sent twice in the old session, it stays there; what it learns does not end the new one.
    (0..3).for_each(|_| test.forwarder.end_round());
    let [of_old, of_new] = test.numbers(path(3, 2))[..] else { panic!("two") };
    assert_eq!((of_old[..3].to_vec(), of_new), (vec![new, 7, 3], [late, 20, 1, 0]));
    assert_eq!(test.told(new, gone()), Some(refused(Refusal::Unknown)));
    assert_eq!(test.told(late, changed(3)), Some(changed(3)));
    let next = test.add(1);
    assert_eq!(test.numbers(path(3, 2)), [[next, 20, 2, 1]]);
}

#[test]
fn nothing_that_still_waits_is_ever_acknowledged() {
    let mut test = Test::with_session(7);
    let early = test.add(1);
    test.take(path(2, 1));
    let gone = || refused(Refusal::SessionGone);
    let late = test.add(1);
    test.take(path(2, 1));
    // The later one hears of it first, and is the first in the new session.
    assert_eq!(test.told(late, gone()), None);
    let open = test.take(path(2, 1));
    assert_eq!(test.told(open[0].id.0, opened(20)), None);
    assert_eq!(test.numbers(path(2, 1)), [[late, 20, 1, 0]]);
    assert_eq!(test.told(early, gone()), None);
    assert_eq!(test.numbers(path(2, 1)), [[early, 20, 2, 0]]);
    assert_eq!(test.numbers(path(3, 2)), [[early, 20, 2, 0], [late, 20, 1, 0]], "neither is answered");
}

#[test]
fn a_session_that_cannot_be_opened_is_tried_again_later() {
    let mut test = Test::new();
    test.add(1);
    let open = test.take(path(2, 1));
    assert_eq!(test.told(open[0].id.0, refused(Refusal::Busy)), None);
    assert!(test.take(path(2, 1)).is_empty(), "not at once");
    test.forwarder.end_round();
    let again = test.take(path(2, 1));
    assert_ne!(again[0].id, open[0].id);
    // What comes late opens nothing: that session ends by itself.
    assert_eq!(test.told(open[0].id.0, opened(7)), None);
    assert!(test.take(path(2, 1)).is_empty());
    assert_eq!(test.told(again[0].id.0, opened(8)), None);
    assert_eq!(test.take(path(2, 1)).len(), 1);
}

#[test]
fn so_many_are_under_way_and_the_rest_waits_in_order() {
    let mut test = Test::with_session(7);
    let tickets: Vec<u64> = (0..limits::FORWARDED_CHANGES_MAX + 2).map(|_| test.add(1)).collect();
    assert_eq!(test.take(path(2, 1)).len(), limits::FORWARDED_CHANGES_MAX);
    assert!(test.told(tickets[0], changed(1)).is_some());
    assert_eq!(test.numbers(path(2, 1))[0][0], tickets[limits::FORWARDED_CHANGES_MAX]);
    assert_eq!(test.take(path(2, 2)).len(), limits::FORWARDED_CHANGES_MAX, "again, and not more");

    let mut test = Test::with_session(7);
    let [a, b, c] = [10, limits::FORWARDED_BYTES_MAX, 10].map(|bytes| test.add(bytes));
    assert_eq!(test.take(path(2, 1)).len(), 1);
    assert!(test.told(a, changed(1)).is_some());
    assert_eq!(test.numbers(path(2, 1))[0][0], b, "a large one goes alone");
    assert!(test.take(path(2, 1)).is_empty());
    assert!(test.told(b, changed(2)).is_some());
    assert_eq!(test.numbers(path(2, 1))[0][0], c);
    assert!(test.told(c, changed(3)).is_some());
    assert_eq!(test.forwarder.sent_bytes, 0);
}
