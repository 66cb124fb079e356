//! A whole store on its way to another node, or to a backup: the files with their contents and the sessions, as of one
//! entry, as one row of bytes that can be cut anywhere ([`format`]).
//!
//! [`StreamReader`] makes it out of a checkpoint and the segments that this refers to, [`StreamWriter`] makes kept
//! segments and a [`FileStore`](crate::file_store::FileStore) out of it. Both are values that a helper thread can
//! have to itself. When a stream is sent, in which messages, and at what rate, is not decided here.

pub mod format;
mod inspect;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::file_store::ImageError;
use crate::storage::StorageError;

pub use format::{StreamError, StreamHead, StreamProblem};
pub use inspect::{CheckpointItems, check_contents, check_image};
pub use reader::{Chunk, StreamReader};
pub use writer::{Progress, Received, StreamWriter};

/// Why a store cannot be moved, or not by this try.
#[derive(Debug)]
pub enum TransferError {
    /// This node's files are damaged, or its disk fails.
    Storage(StorageError),
    /// The checkpoint's body is no image of a store.
    Image(ImageError),
    /// The bytes that came are no stream, or not this one. They are at fault, and so is who sent them.
    Stream(StreamError),
    /// The bytes are not the next ones. Nothing was done; the writer can be fed with those that are.
    WrongOffset {
        /// Where the next ones begin.
        expected: u64,
        /// Where these begin.
        found: u64,
    },
    /// The stream has ended, or an earlier call failed.
    Over,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Image(error) => error.fmt(f),
            Self::Stream(error) => error.fmt(f),
            Self::WrongOffset { expected, found } => {
                write!(f, "stream of a store: bytes from {found} on where those from {expected} on are next")
            }
            Self::Over => write!(f, "stream of a store: it has ended, or an earlier step failed"),
        }
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Image(error) => Some(error),
            Self::Stream(error) => Some(error),
            Self::WrongOffset { .. } | Self::Over => None,
        }
    }
}

impl From<StorageError> for TransferError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<StreamError> for TransferError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}
