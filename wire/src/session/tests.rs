//! Session commands cut in any place, and values that nothing stands for.

use super::*;
use crate::codec::COUNTER_MAX;
use crate::command::{Command, Operation};

fn write(contents: Bytes) -> Command {
    Command { operation: Operation::Write { expiry_seconds: 9 }, name: "etc/motd".into(), contents }
}

fn change(command: Payload) -> SessionCommand {
    SessionCommand::Change {
        session: SessionId(40),
        sequence: Sequence(3),
        acknowledged: Sequence(1),
        command,
    }
}

#[test]
fn a_payload_decodes_alike_wherever_it_is_cut() {
    let commands = [
        SessionCommand::Open { idle_ms: 60_000, sessions_max: 9 },
        SessionCommand::KeepAlive { session: SessionId(40), acknowledged: Sequence(2) },
        SessionCommand::Close { session: SessionId(40) },
        change(write(Bytes::from_static(b"some contents")).encode()),
        change(Payload::default()),
    ];
    for command in commands {
        let bytes = command.encode().to_bytes();
        for cut in 0..=bytes.len() {
            let payload = Payload::new(bytes.slice(..cut), bytes.slice(cut..));
            assert_eq!(SessionCommand::decode(&payload), Ok(command.clone()), "cut at {cut}");
        }
    }
}

#[test]
fn contents_are_shared_both_ways_in_one_piece_and_in_two() {
    let contents = Bytes::from(vec![5; 10_000]);
    let in_two = write(contents).encode();
    let in_one = Payload::from(in_two.to_bytes());
    for sent in [in_two, in_one] {
        let payload = change(sent.clone()).encode();
        let Ok(SessionCommand::Change { command, .. }) = SessionCommand::decode(&payload) else {
            panic!("our own bytes");
        };
        let of = |payload: &Payload| Command::decode(payload).expect("our own bytes").contents;
        assert_eq!(of(&command).as_ptr(), of(&sent).as_ptr());
    }
    // As it comes back from the disk, or from a leader.
    let stored = change(write(Bytes::from(vec![6; 10_000])).encode()).encode().to_bytes();
    let Ok(SessionCommand::Change { command, .. }) = SessionCommand::decode(&stored.clone().into()) else {
        panic!("our own bytes");
    };
    let contents = Command::decode(&command).expect("our own bytes").contents;
    assert_eq!(contents.as_ptr(), stored[stored.len() - contents.len()..].as_ptr());
}

#[test]
fn the_head_of_a_change_has_its_length() {
    assert_eq!(change(Payload::default()).encode().len(), SESSION_CHANGE_HEAD_BYTES);
}

#[test]
fn numbers_that_nothing_stands_for_are_refused() {
    let decode = |fields: &[u64], code: u8| {
        let mut out = Writer::new();
        out.u8(code);
        fields.iter().for_each(|field| out.u64(*field));
        SessionCommand::decode(&Bytes::from(out.into_bytes()).into())
    };
    let bad = |field, value| Err(DecodeError::BadValue { field, value });
    let beyond = COUNTER_MAX + 1;
    assert!(decode(&[7, 0], 2).is_ok());
    assert_eq!(decode(&[0, 0], 2), bad("session", 0));
    assert_eq!(decode(&[beyond, 0], 2), bad("session", beyond));
    assert_eq!(decode(&[7, beyond], 2), bad("acknowledged sequence number", beyond));
    assert!(decode(&[7], 3).is_ok());
    assert_eq!(decode(&[0], 3), bad("session", 0));
    assert!(decode(&[COUNTER_MAX, COUNTER_MAX, COUNTER_MAX - 1], 4).is_ok());
    assert_eq!(decode(&[7, 3, 3], 4), bad("acknowledged sequence number", 3));
    assert_eq!(decode(&[0, 1, 0], 4), bad("session", 0));
    assert_eq!(decode(&[7, 0, 0], 4), bad("sequence number", 0));
    assert_eq!(decode(&[7, beyond, 0], 4), bad("sequence number", beyond));
    assert_eq!(decode(&[7, 1, beyond], 4), bad("acknowledged sequence number", beyond));
    for code in [0, 5, 255] {
        assert_eq!(decode(&[7, 1, 0], code), bad("session action", u64::from(code)));
    }

    let open = |idle_ms: u64, sessions_max: u32| {
        let payload = SessionCommand::Open { idle_ms, sessions_max }.encode();
        SessionCommand::decode(&payload)
    };
    assert!(open(1, 1).is_ok());
    assert_eq!(open(0, 1), bad("time without a sign of life", 0));
    assert_eq!(open(1, 0), bad("bound on sessions", 0));
}

#[test]
fn nothing_follows_a_command_that_carries_nothing() {
    let close = SessionCommand::Close { session: SessionId(40) }.encode().to_bytes();
    for padding in [1, 40] {
        let longer = [&close[..], &vec![0; padding]].concat();
        let result = SessionCommand::decode(&Bytes::from(longer.clone()).into());
        assert_eq!(result, Err(DecodeError::Trailing { left: padding }));
        let cut = Bytes::from(longer);
        let result = SessionCommand::decode(&Payload::new(cut.slice(..8), cut.slice(8..)));
        assert_eq!(result, Err(DecodeError::Trailing { left: padding }));
    }
    // Cut behind so many bytes that a change's head could be in the first piece.
    let longer = Bytes::from([&close[..], &[0; 40]].concat());
    let result = SessionCommand::decode(&Payload::new(longer.slice(..30), longer.slice(30..)));
    assert!(matches!(result, Err(DecodeError::Trailing { .. })), "{result:?}");
}

#[test]
fn a_session_command_that_decodes_fits_into_an_entry() {
    let head = change(Payload::default()).encode().to_bytes();
    let of_len = |len: usize| Payload::new(head.clone(), Bytes::from(vec![0; len - head.len()]));
    assert!(SessionCommand::decode(&of_len(PAYLOAD_BYTES_MAX)).is_ok());
    let len = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(
        SessionCommand::decode(&of_len(len)),
        Err(DecodeError::TooLong { field: "session command", len, max: PAYLOAD_BYTES_MAX })
    );
}
