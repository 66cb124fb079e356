//! Commands cut in any place, and fields that an operation does not use.

use super::*;

fn write(contents: &'static [u8]) -> Command {
    Command {
        operation: Operation::Write { expiry_seconds: 9 },
        name: "etc/motd".into(),
        contents: Bytes::from_static(contents),
    }
}

#[test]
fn a_payload_decodes_alike_wherever_it_is_cut() {
    for contents in [&b""[..], b"x", b"some contents"] {
        let command = write(contents);
        let bytes = command.encode().to_bytes();
        for cut in 0..=bytes.len() {
            let payload = Payload::new(bytes.slice(..cut), bytes.slice(cut..));
            assert_eq!(Command::decode(&payload), Ok(command.clone()), "cut at {cut}");
        }
    }
}

#[test]
fn contents_are_shared_both_ways() {
    let contents = Bytes::from(vec![5; 10_000]);
    let command = Command { contents: contents.clone(), ..write(b"") };
    let payload = command.encode();
    assert_eq!(payload.parts()[1].as_ptr(), contents.as_ptr());
    let decoded = Command::decode(&payload).expect("our own bytes");
    assert_eq!(decoded.contents.as_ptr(), contents.as_ptr());
}

#[test]
fn every_truncation_before_the_contents_is_refused() {
    let bytes = write(b"").encode().to_bytes();
    for len in 0..bytes.len() {
        let result = Command::decode(&bytes.slice(..len).into());
        assert!(matches!(result, Err(DecodeError::Truncated { .. })), "{len}: {result:?}");
    }
}

fn decode_fields(
    code: u8,
    expiry_seconds: u64,
    expected: u64,
    contents: &[u8],
) -> Result<Command, DecodeError> {
    let mut out = Writer::new();
    out.u8(code);
    out.u64(expiry_seconds);
    out.u64(expected);
    out.text("a");
    out.raw(contents);
    Command::decode(&Payload::from(Bytes::from(out.into_bytes())))
}

#[test]
fn fields_that_an_operation_does_not_use_must_be_zero() {
    let expiry = |value| Err(DecodeError::BadValue { field: "expiry of a delete", value });
    let expected = |value| Err(DecodeError::BadValue { field: "expected version", value });
    assert!(decode_fields(1, 5, 0, b"x").is_ok());
    assert_eq!(decode_fields(1, 5, 7, b"x"), expected(7));
    assert!(decode_fields(2, 5, 7, b"x").is_ok());
    assert!(decode_fields(3, 0, 0, b"").is_ok());
    assert_eq!(decode_fields(3, 5, 0, b""), expiry(5));
    assert_eq!(decode_fields(3, 0, 7, b""), expected(7));
    assert_eq!(decode_fields(3, 0, 0, b"x"), Err(DecodeError::Trailing { left: 1 }));
    assert!(decode_fields(4, 0, 7, b"").is_ok());
    assert_eq!(decode_fields(4, 5, 7, b""), expiry(5));
    assert_eq!(decode_fields(4, 0, 7, b"xy"), Err(DecodeError::Trailing { left: 2 }));
    for code in [0, 5, 255] {
        let error = DecodeError::BadValue { field: "operation", value: u64::from(code) };
        assert_eq!(decode_fields(code, 0, 0, b""), Err(error));
    }
}

#[test]
fn a_command_that_decodes_fits_into_an_entry() {
    let head = write(b"").encode().to_bytes();
    let contents = |len: usize| Payload::new(head.clone(), Bytes::from(vec![0; len]));
    assert!(Command::decode(&contents(PAYLOAD_BYTES_MAX - head.len())).is_ok());
    let len = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(
        Command::decode(&contents(len - head.len())),
        Err(DecodeError::TooLong { field: "command", len, max: PAYLOAD_BYTES_MAX })
    );
}
