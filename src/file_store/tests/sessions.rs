//! Sessions: first replies, windows, expiry and eviction.

use fsd_wire::Sequence;

use super::*;
use crate::limits::{SESSION_REPLY_BYTES, SESSION_WINDOW};

const IDLE_MS: u64 = 1000;

impl Log {
    pub(super) fn session(&mut self, command: &SessionCommand) -> Applied {
        self.apply(EntryKind::Session, command.encode())
    }

    pub(super) fn open_among(&mut self, sessions_max: u32) -> SessionId {
        match self.session(&SessionCommand::Open { idle_ms: IDLE_MS, sessions_max }) {
            Applied::SessionOpened { session, idle_ms: IDLE_MS } => {
                assert_eq!(session.0, self.store.last_applied().0, "named after its entry");
                session
            }
            other => panic!("not opened: {other:?}"),
        }
    }

    pub(super) fn open(&mut self) -> SessionId {
        self.open_among(100)
    }

    pub(super) fn in_session(
        &mut self,
        session: SessionId,
        [sequence, acknowledged]: [u64; 2],
        operation: Operation,
        name: &str,
    ) -> Applied {
        let contents = match operation {
            Operation::Write { .. } | Operation::Cas { .. } => Bytes::from_static(b"contents"),
            Operation::Delete | Operation::DeleteIf { .. } => Bytes::new(),
        };
        let command = Command { operation, name: name.into(), contents }.encode();
        let (sequence, acknowledged) = (Sequence(sequence), Sequence(acknowledged));
        self.session(&SessionCommand::Change { session, sequence, acknowledged, command })
    }

    /// A write of the session, to a name of its own.
    pub(super) fn numbered(&mut self, session: SessionId, sequence: u64, acknowledged: u64) -> Applied {
        let write = Operation::Write { expiry_seconds: 0 };
        self.in_session(session, [sequence, acknowledged], write, &format!("f{sequence}"))
    }

    pub(super) fn keep_alive(&mut self, session: SessionId, acknowledged: u64) -> Applied {
        let acknowledged = Sequence(acknowledged);
        self.session(&SessionCommand::KeepAlive { session, acknowledged })
    }

    pub(super) fn close(&mut self, session: SessionId) -> Applied {
        self.session(&SessionCommand::Close { session })
    }
}

fn gone() -> Applied {
    Applied::Refused(Refusal::SessionGone)
}

fn is_acknowledged(applied: &Applied) -> bool {
    matches!(applied, Applied::Refused(Refusal::BadRequest { reason }) if reason.ends_with("acknowledged"))
}

#[test]
fn a_repeated_change_gets_its_first_reply_and_does_nothing() {
    let mut log = Log::default();
    let session = log.open();
    let write = Operation::Write { expiry_seconds: 0 };
    let cas = Operation::Cas { expected: Version(9), expiry_seconds: 0 };
    let changes = [
        (write, "a", changed(1)),
        (cas, "a", mismatch(1)),
        (write, "a/b", conflict("a")),
        (Operation::Delete, "x", not_found()),
        (Operation::DeleteIf { expected: Version(1) }, "a", changed(2)),
    ];
    for (at, (operation, name, reply)) in changes.iter().enumerate() {
        let sequence = at as u64 + 1;
        assert_eq!(log.in_session(session, [sequence, 0], *operation, name), *reply);
        assert_eq!(log.in_session(session, [sequence, 0], *operation, name), *reply, "at once");
    }
    // Now all of them would be answered otherwise: there is no file.
    let revision = log.store.revision();
    for (at, (operation, name, reply)) in changes.iter().enumerate().rev() {
        assert_eq!(log.in_session(session, [at as u64 + 1, 0], *operation, name), *reply, "later");
    }
    assert_eq!(log.store.revision(), revision);
    assert!(log.store.is_empty());
    // What a repetition asks for is not looked at, and another session's numbers are its own.
    assert_eq!(log.in_session(session, [1, 0], Operation::Delete, "y"), changed(1));
    let other = log.open();
    assert_eq!(log.numbered(other, 1, 0), changed(3));
}

#[test]
fn a_sessions_change_is_a_change_as_any_other() {
    let mut log = Log::at(500);
    let session = log.open();
    let write = Operation::Write { expiry_seconds: 3 };
    assert_eq!(log.in_session(session, [1, 0], write, "a"), changed(1));
    let file = *log.store.get("a").unwrap();
    assert_eq!((file.size_bytes, file.due), (8, Some(ClusterTimeMs(3500))));
    assert_eq!(file.contents, ContentsAt(1002));
    assert_eq!(log.in_session(session, [1, 0], write, "a"), changed(1));
    assert_eq!(log.store.get("a"), Some(&file), "contents stay where the first entry has them");
}

#[test]
fn changes_may_come_in_any_order_within_the_window() {
    let mut log = Log::default();
    let session = log.open();
    assert_eq!(log.numbered(session, 3, 0), changed(1));
    assert_eq!(log.numbered(session, 1, 0), changed(2));
    assert_eq!(log.numbered(session, SESSION_WINDOW, 0), changed(3));
    assert_eq!(log.numbered(session, SESSION_WINDOW + 1, 0), Applied::Refused(Refusal::Busy));
    assert_eq!(log.numbered(session, u64::MAX / 2, 0), Applied::Refused(Refusal::Busy));
    assert_eq!(log.numbered(session, 2, 0), changed(4));
    assert_eq!(log.numbered(session, 3, 0), changed(1));
    // The refusal was not kept: with something acknowledged the number is within.
    assert_eq!(log.numbered(session, SESSION_WINDOW + 1, 1), changed(5));
}

#[test]
fn what_is_acknowledged_is_forgotten_and_never_made() {
    let mut log = Log::default();
    let session = log.open();
    for sequence in 1..=4 {
        log.numbered(session, sequence, 0);
    }
    assert_eq!(log.numbered(session, 5, 2), changed(5));
    assert!(is_acknowledged(&log.numbered(session, 2, 0)));
    assert_eq!(log.numbered(session, 3, 0), changed(3), "an older acknowledgement takes nothing back");
    assert!(is_acknowledged(&log.numbered(session, 1, 0)));
    // 6 was given up by its client before it ever came here.
    assert_eq!(log.keep_alive(session, 6), Applied::SessionDone);
    assert!(is_acknowledged(&log.numbered(session, 6, 5)));
    assert_eq!(log.store.revision(), Version(5));
    assert_eq!(log.store.sessions.replies_bytes, 0);
}

#[test]
fn a_session_ends_at_the_stamp_at_which_it_is_due() {
    type Sign = fn(&mut Log, SessionId) -> Applied;
    let signs: [(&str, Sign); 5] = [
        ("keep alive", |log, session| log.keep_alive(session, 0)),
        ("change", |log, session| log.numbered(session, 2, 0)),
        ("repetition", |log, session| log.numbered(session, 1, 0)),
        ("out of the window", |log, session| log.numbered(session, 5000, 0)),
        ("refused by the store", |log, session| log.in_session(session, [2, 0], Operation::Delete, "x")),
    ];
    for (what, sign) in signs {
        let mut log = Log::at(10);
        let session = log.open();
        assert_eq!(log.numbered(session, 1, 0), changed(1));
        assert_eq!(log.store.next_due(), Some(ClusterTimeMs(10 + IDLE_MS)));
        log.tick(9 + IDLE_MS);
        assert_ne!(sign(&mut log, session), gone(), "{what}");
        assert_eq!(log.store.next_session_due(), Some(ClusterTimeMs(9 + 2 * IDLE_MS)), "{what}");
        log.tick(8 + 2 * IDLE_MS);
        assert_eq!(log.store.sessions(), 1, "{what}");
        log.tick(9 + 2 * IDLE_MS);
        assert_eq!((log.store.sessions(), log.store.next_due()), (0, None), "{what}");
        assert!(log.store.session_is_gone(session));
        assert_eq!(sign(&mut log, session), gone(), "{what}");
    }
}

#[test]
fn a_session_that_is_due_does_not_see_its_own_sign_of_life() {
    let mut log = Log::default();
    let session = log.open();
    log.stamp = ClusterTimeMs(IDLE_MS);
    assert_eq!(log.numbered(session, 1, 0), gone());
    assert!(log.store.is_empty(), "it was not made");
}

#[test]
fn a_closed_session_is_gone_and_one_that_never_was_is_too() {
    let mut log = Log::default();
    let session = log.open();
    assert_eq!(log.numbered(session, 1, 0), changed(1));
    let to_come = SessionId(session.0 + 100);
    assert!(!log.store.session_is_gone(session) && !log.store.session_is_gone(to_come));
    assert_eq!(log.close(session), Applied::SessionDone);
    assert_eq!(log.close(session), gone());
    assert_eq!(log.numbered(session, 1, 0), gone(), "its replies went with it");
    assert_eq!(log.numbered(session, 2, 0), gone());
    assert_eq!(log.keep_alive(to_come, 0), gone());
    assert_eq!((log.store.sessions(), log.store.next_due()), (0, None));
    assert_eq!(log.store.sessions.replies_bytes, 0);
}

#[test]
fn with_too_many_the_session_that_was_used_longest_ago_ends() {
    let mut log = Log::default();
    let [first, second, third] = [(); 3].map(|()| log.open_among(3));
    log.keep_alive(first, 0);
    let fourth = log.open_among(3);
    assert_eq!(log.keep_alive(second, 0), gone());
    for (session, version) in [(third, 1), (first, 2), (fourth, 3)] {
        assert_eq!(log.numbered(session, 1, 0), changed(version));
    }
    // The bound is the entry's: a later leader may have a lower one.
    let fifth = log.open_among(2);
    assert_eq!(log.store.sessions(), 2);
    assert_eq!(log.keep_alive(first, 0), gone());
    assert_eq!(log.keep_alive(fourth, 0), Applied::SessionDone);
    let last = log.open_among(1);
    assert_eq!(log.keep_alive(fifth, 0), gone());
    assert_eq!(log.keep_alive(last, 0), Applied::SessionDone);
}

#[test]
fn with_too_many_replies_the_session_that_was_used_longest_ago_ends() {
    let mut log = Log::default();
    log.store.sessions.replies_bytes_max = 4 * SESSION_REPLY_BYTES;
    let [first, second] = [(); 2].map(|()| log.open());
    log.numbered(first, 1, 0);
    log.numbered(second, 1, 0);
    log.numbered(first, 2, 0);
    log.numbered(first, 3, 0);
    assert_eq!(log.store.sessions(), 2, "just within");
    assert_eq!(log.numbered(first, 3, 0), changed(4), "a repetition keeps no more than there is");
    // The name of what is in the way counts too.
    let write = Operation::Write { expiry_seconds: 0 };
    assert_eq!(log.in_session(first, [4, 1], write, "f1/below"), conflict("f1"));
    assert_eq!(log.keep_alive(second, 0), gone());
    assert_eq!(log.numbered(first, 2, 0), changed(3));
    assert_eq!(log.store.sessions.replies_bytes, 3 * SESSION_REPLY_BYTES + "f1".len());
}

#[test]
#[should_panic(expected = "the session command of entry 1: a field of 8 bytes where 2 are left")]
fn a_session_command_cut_short_is_no_log_of_ours() {
    Log::default().apply(EntryKind::Session, Bytes::from_static(b"\x03ab").into());
}

#[test]
fn the_digest_tells_any_difference_of_sessions() {
    let digest = |steps: &dyn Fn(&mut Log, SessionId)| {
        let mut log = Log::at(100);
        let session = log.open();
        // Eight entries in all, whatever they are: the digest must not tell them by their number.
        steps(&mut log, session);
        while log.store.last_applied() < LogIndex(8) {
            log.tick(100);
        }
        log.store.digest()
    };
    let delete = |log: &mut Log, session, sequence, name| {
        log.in_session(session, [sequence, 0], Operation::Delete, name);
    };
    let write = Operation::Write { expiry_seconds: 0 };
    let cas = Operation::Cas { expected: Version(9), expiry_seconds: 0 };
    let digests = [
        digest(&|_, _| {}),
        digest(&|log, session| drop(log.close(session))),
        digest(&|log, session| drop(log.keep_alive(session, 0))),
        digest(&|log, session| drop((log.tick(100), log.keep_alive(session, 0)))),
        digest(&|log, session| drop(log.keep_alive(session, 1))),
        digest(&|log, session| {
            log.session(&SessionCommand::Open { idle_ms: IDLE_MS, sessions_max: 1 });
            log.keep_alive(session, 0);
        }),
        digest(&|log, session| {
            log.session(&SessionCommand::Open { idle_ms: IDLE_MS + 1, sessions_max: 1 });
            log.keep_alive(session, 0);
        }),
        digest(&|log, _| {
            log.open();
        }),
        digest(&|log, session| delete(log, session, 1, "x")),
        digest(&|log, session| delete(log, session, 2, "x")),
        digest(&|log, session| drop(log.in_session(session, [1, 0], cas, "x"))),
        digest(&|log, session| drop(log.in_session(session, [1, 0], write, "x"))),
        digest(&|log, session| drop((log.write("x", "contents", 0), log.keep_alive(session, 0)))),
        digest(&|log, session| {
            log.write("a", "", 0);
            log.write("b", "", 0);
            log.in_session(session, [1, 0], write, "a/x");
        }),
        digest(&|log, session| {
            log.write("a", "", 0);
            log.write("b", "", 0);
            log.in_session(session, [1, 0], write, "b/x");
        }),
    ];
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{at} equals an earlier one: {digests:?}");
    }
}

/// What happens in a step of a generated log. Sessions are named by where they stand among all that were opened,
/// sequence numbers by how far they are from what is acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Tick,
    Plain(Change),
    Open { idle_ms: u64, sessions_max: u32 },
    KeepAlive { which: usize, ahead: u64 },
    Close { which: usize },
    Change { which: usize, ahead: u64, back: u64, change: Change },
}

pub(super) type Change = (u8, &'static str, u64, u64, u8);

pub(super) fn action() -> impl Strategy<Value = Action> {
    let which = 0usize..6;
    // 0 and below what is acknowledged, the next few, and both sides of the window's end.
    let ahead = prop_oneof![1 => Just(0u64), 12 => 1u64..6, 1 => SESSION_WINDOW..SESSION_WINDOW + 2];
    let change = || step().prop_filter_map("a change", |step| step.change);
    prop_oneof![
        1 => Just(Action::Tick),
        2 => change().prop_map(Action::Plain),
        2 => (prop::sample::select(vec![500, 1000, 3000, u64::MAX]), 1u32..5)
            .prop_map(|(idle_ms, sessions_max)| Action::Open { idle_ms, sessions_max }),
        1 => (which.clone(), 0u64..4).prop_map(|(which, ahead)| Action::KeepAlive { which, ahead }),
        1 => which.clone().prop_map(|which| Action::Close { which }),
        10 => (which, ahead, 1u64..6, change())
            .prop_map(|(which, ahead, back, change)| Action::Change { which, ahead, back, change }),
    ]
}

/// The payload of the action's entry. The newest sessions come first; behind them is one that never was.
pub(super) fn entry_of(
    action: &Action,
    opened: &[SessionId],
    model: &ReferenceModel,
    index: u64,
) -> (EntryKind, Payload) {
    let session = |which: usize| opened.iter().rev().nth(which).copied().unwrap_or(SessionId(u64::MAX / 2));
    let acknowledged = |session: SessionId| {
        let known = model.sessions().iter().find(|known| known.session == session);
        known.map_or(0, |known| known.acknowledged.0)
    };
    let command = match action {
        Action::Tick => return (EntryKind::Tick, Payload::default()),
        Action::Plain(change) => {
            return (EntryKind::Command, command_of(model, *change, index).encode());
        }
        Action::Open { idle_ms, sessions_max } => {
            SessionCommand::Open { idle_ms: *idle_ms, sessions_max: *sessions_max }
        }
        Action::KeepAlive { which, ahead } => {
            let session = session(*which);
            SessionCommand::KeepAlive { session, acknowledged: Sequence(acknowledged(session) + ahead) }
        }
        Action::Close { which } => SessionCommand::Close { session: session(*which) },
        Action::Change { which, ahead, back, change } => {
            let session = session(*which);
            let sequence = (acknowledged(session) + ahead).max(1);
            let acknowledged = Sequence(sequence.saturating_sub(*back));
            let command = command_of(model, *change, index).encode();
            SessionCommand::Change { session, sequence: Sequence(sequence), acknowledged, command }
        }
    };
    (EntryKind::Session, command.encode())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn sessions_do_what_the_models_do(
        steps in prop::collection::vec((step(), action()), 1..120),
        replies_max in 3usize..12,
    ) {
        let (mut store, mut twin, mut model) = (FileStore::new(), FileStore::new(), ReferenceModel::new());
        let replies_bytes_max = replies_max * SESSION_REPLY_BYTES;
        store.sessions.replies_bytes_max = replies_bytes_max;
        twin.sessions.replies_bytes_max = replies_bytes_max;
        model.replies_bytes_max = replies_bytes_max;
        let mut opened = Vec::new();
        let mut stamp = 0;
        for (at, (step, action)) in steps.into_iter().enumerate() {
            stamp += step.advance_ms;
            let (index, stamp) = (LogIndex(at as u64 + 1), ClusterTimeMs(stamp));
            let (kind, payload) = entry_of(&action, &opened, &model, index.0);
            let mut entry = Entry { index, term: Term(1), stamp, kind, payload };
            let expected = model.apply(&entry);
            prop_assert_eq!(&store.apply(&entry, ContentsAt(index.0)), &expected);
            if let Applied::SessionOpened { session, .. } = expected {
                opened.push(session);
            }
            assert_same(&store, &model);
            for session in &opened {
                let lives = model.sessions().iter().any(|known| known.session == *session);
                prop_assert_eq!(store.session_is_gone(*session), !lives);
            }
            entry.payload = entry.payload.to_bytes().into();
            prop_assert_eq!(&twin.apply(&entry, ContentsAt(7 * index.0)), &expected);
            prop_assert_eq!(twin.digest(), store.digest());
        }
    }
}
