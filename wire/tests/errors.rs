//! What the errors say to a person.

use fsd_wire::{DecodeError, FrameError};

#[test]
fn decode_errors_say_what_is_wrong() {
    use DecodeError::*;
    for (error, text) in [
        (Truncated { wanted: 8, left: 3 }, "a field of 8 bytes where 3 are left"),
        (Trailing { left: 2 }, "2 bytes after the last field"),
        (TooLong { field: "name", len: 1025, max: 1024 }, "name: 1025 is over the bound 1024"),
        (NotUtf8 { field: "cluster" }, "cluster: not UTF-8"),
        (BadValue { field: "role", value: 3 }, "role: 3 has no meaning"),
        (UnknownKind { kind: 99 }, "unknown message kind 99"),
        (EntryCrc { index: 12 }, "entry 12: CRC mismatch"),
        (EntrySequence { index: 12 }, "entry 12 is out of sequence"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn frame_errors_say_what_is_wrong() {
    use FrameError::*;
    let found = u32::from_le_bytes;
    for (error, text) in [
        (BadMagic { found: found(*b"GET ") }, "no fsd frame: it begins with \"GET \""),
        (BadMagic { found: found(*b"\r\n\0\xff") }, "no fsd frame: it begins with \"\\r\\n\\x00\\xff\""),
        (UnsupportedVersion { version: 2 }, "unsupported protocol version 2"),
        (HeaderCrc, "frame header CRC mismatch"),
        (BodyTooLong { len: 2048, max: 1024 }, "frame body of 2048 bytes is over the bound 1024"),
        (BodyCrc, "frame CRC mismatch"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
