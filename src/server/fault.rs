//! What ends a node.

use std::path::PathBuf;
use std::{fmt, io};

use crate::restore::RestoreError;
use crate::storage::StorageError;

/// Why a node cannot start or go on.
#[derive(Debug)]
pub enum Fault {
    /// The data directory: it cannot be used, is damaged, or a write or flush failed. What was promised by
    /// then is on the disk; nothing more may be promised.
    Storage(StorageError),
    /// The data directory cannot be read.
    DataDirectory(PathBuf, io::Error),
    /// A segment could not be made ready at the start.
    Spare(io::Error),
    /// A backup could not be restored.
    Restore {
        /// The backup.
        backup: String,
        /// Why.
        error: RestoreError,
    },
    /// The sockets or the poll.
    Network(io::Error),
    /// The pipe of `--exit-with-stdin` is nothing that can be waited for.
    Parent(io::Error),
}

impl Fault {
    /// Whether the configuration or the command line is at fault, not the machine: it names another node's data
    /// directory, or standard input is no pipe.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Storage(StorageError::WrongDirectory { .. }) | Self::Parent(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::DataDirectory(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Spare(error) => write!(f, "cannot make a log segment ready: {error}"),
            Self::Restore { backup, error } => write!(f, "{backup}: {error}"),
            Self::Network(error) => error.fmt(f),
            Self::Parent(error) => {
                write!(
                    f,
                    "--exit-with-stdin: standard input must be a pipe, this one cannot be waited for: {error}"
                )
            }
        }
    }
}

impl std::error::Error for Fault {}
