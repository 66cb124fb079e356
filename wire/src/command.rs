//! Changes to the file store: the same bytes in a client's request and in the log entry made from it.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | operation: 1 write, 2 cas, 3 delete, 4 delete if version |
//! | 1 | 8 | expiry in seconds, 0 for none; 0 for deletes |
//! | 9 | 8 | expected version; 0 for write and delete |
//! | 17 | 2 | length of the name in bytes |
//! | 19 | | name, then the contents up to the end; no contents for deletes |

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::entry::{PAYLOAD_BYTES_MAX, Payload};
use crate::error::DecodeError;
use crate::types::Version;

/// The longest file name in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

const NAME_BYTES_AT: usize = 17;
const NAME_AT: usize = 19;

/// What a command does to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets contents and expiry, whatever is there.
    Write {
        /// Seconds until the file is gone; 0 for never.
        expiry_seconds: u64,
    },
    /// Sets contents and expiry if the present version is the expected one; 0 expects no such file.
    Cas {
        /// The version that must be there.
        expected: Version,
        /// Seconds until the file is gone; 0 for never.
        expiry_seconds: u64,
    },
    /// Removes the file.
    Delete,
    /// Removes the file if the present version is the expected one.
    DeleteIf {
        /// The version that must be there.
        expected: Version,
    },
}

/// A change to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub operation: Operation,
    /// The file's name: UTF-8 of at most [`NAME_BYTES_MAX`] bytes; the other rules are the file store's.
    pub name: String,
    /// The new contents; empty for deletes.
    pub contents: Bytes,
}

impl Command {
    /// The command's bytes; the contents are shared, not copied.
    ///
    /// # Panics
    /// If the name is longer than 65,535 bytes: names are checked before they come here.
    #[must_use]
    pub fn encode(&self) -> Payload {
        let (code, expiry_seconds, expected) = match self.operation {
            Operation::Write { expiry_seconds } => (1, expiry_seconds, Version(0)),
            Operation::Cas { expected, expiry_seconds } => (2, expiry_seconds, expected),
            Operation::Delete => (3, 0, Version(0)),
            Operation::DeleteIf { expected } => (4, 0, expected),
        };
        let mut out = Writer::new();
        out.u8(code);
        out.u64(expiry_seconds);
        out.u64(expected.0);
        out.text(&self.name);
        Payload::new(out.into_bytes().into(), self.contents.clone())
    }

    /// Reads a command; its contents are shared with `payload`. One that decodes fits into an entry.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(payload: &Payload) -> Result<Self, DecodeError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let len = payload.len();
            return Err(DecodeError::TooLong { field: "command", len, max: PAYLOAD_BYTES_MAX });
        }
        let [head, tail] = payload.parts();
        if !tail.is_empty() && !ends_behind_name(head) {
            return Self::decode(&payload.to_bytes().into());
        }
        let mut reader = Reader::new(head.clone());
        let code = reader.u8()?;
        let expiry_seconds = reader.u64()?;
        let expected = Version(reader.u64()?);
        let name = reader.text("name", NAME_BYTES_MAX)?;
        let contents = if tail.is_empty() { reader.rest() } else { tail.clone() };
        reader.finish()?;
        let operation = match code {
            1 => Operation::Write { expiry_seconds },
            2 => Operation::Cas { expected, expiry_seconds },
            3 => Operation::Delete,
            4 => Operation::DeleteIf { expected },
            other => return Err(DecodeError::BadValue { field: "operation", value: u64::from(other) }),
        };
        let command = Self { operation, name, contents };
        command.check_unused(expiry_seconds, expected)?;
        Ok(command)
    }

    /// Fields that the operation does not use must be zero: equal commands have equal bytes.
    fn check_unused(&self, expiry_seconds: u64, expected: Version) -> Result<(), DecodeError> {
        let deletes = matches!(self.operation, Operation::Delete | Operation::DeleteIf { .. });
        let expects = matches!(self.operation, Operation::Cas { .. } | Operation::DeleteIf { .. });
        if deletes && expiry_seconds != 0 {
            return Err(DecodeError::BadValue { field: "expiry of a delete", value: expiry_seconds });
        }
        if deletes && !self.contents.is_empty() {
            return Err(DecodeError::Trailing { left: self.contents.len() });
        }
        if !expects && expected != Version(0) {
            return Err(DecodeError::BadValue { field: "expected version", value: expected.0 });
        }
        Ok(())
    }
}

/// Whether `head` is all that comes before the contents, as [`Command::encode`] cuts a payload.
fn ends_behind_name(head: &[u8]) -> bool {
    head.len() >= NAME_AT
        && head.len() == NAME_AT + usize::from(LittleEndian::read_u16(&head[NAME_BYTES_AT..]))
}

#[cfg(test)]
mod tests;
