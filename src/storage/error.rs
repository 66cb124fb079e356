//! What can go wrong between the daemon and its data directory.

use std::fmt;
use std::io;

use super::DirectoryIdentity;

/// Why the data directory cannot be used, or not any longer.
#[derive(Debug)]
pub enum StorageError {
    /// The system refused an operation.
    Io {
        /// What was being done, to which file.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that must be there are not, or are others.
    Damage {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A segment of the log is not there, though others say that it was.
    MissingSegment {
        /// The segment's name.
        file: String,
        /// Who says that it was there.
        named_by: String,
    },
    /// There are segments, but no hard state: the directory is not whole.
    MissingHardState {
        /// The hard state's name.
        file: String,
        /// A segment that is there.
        beside: String,
    },
    /// A backup was being restored into the directory, and that came to no end.
    UnfinishedRestoration {
        /// The file that says so.
        file: String,
    },
    /// A directory that must be empty is not.
    NotEmpty {
        /// The first file that is there.
        file: String,
        /// How many there are.
        files: usize,
    },
    /// A file of another release.
    UnknownFormat {
        /// The file.
        file: String,
        /// The format version that it names.
        version: u32,
    },
    /// The directory belongs to another node, or to a node of another cluster.
    WrongDirectory {
        /// The file that says so.
        file: String,
        /// Whose it is.
        found: DirectoryIdentity,
        /// Who wanted it.
        expected: DirectoryIdentity,
    },
    /// Another process uses the directory.
    Locked {
        /// The directory.
        directory: String,
        /// What the other process says of itself.
        holder: String,
    },
    /// An earlier operation failed: what the files hold is not known any more, and nothing is tried again.
    Failed,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Damage { file, offset, what } => write!(f, "{file}: damaged at offset {offset}: {what}"),
            Self::MissingSegment { file, named_by } => {
                write!(f, "{file} is missing: {named_by} says that it was there")
            }
            Self::MissingHardState { file, beside } => {
                write!(f, "{file} is missing, though there is {beside}")
            }
            Self::UnfinishedRestoration { file } => {
                write!(
                    f,
                    "{file} is there: a backup was being restored, and that came to no end; do it again, or remove the \
                     directory for an empty node"
                )
            }
            Self::NotEmpty { file, files } => {
                write!(
                    f,
                    "the data directory is not empty: there is {file}, one of {files} files; a backup is restored into an \
                     empty directory: name another one, or move this one away if what it holds is not needed"
                )
            }
            Self::UnknownFormat { file, version } => {
                write!(f, "{file}: format version {version} is not known to this release")
            }
            Self::WrongDirectory { file, found, expected } => {
                write!(f, "{file} belongs to {found}, not to {expected}")
            }
            Self::Locked { directory, holder } => {
                write!(f, "{directory} is in use by another process ({holder})")
            }
            Self::Failed => write!(f, "an earlier write or flush failed"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Says what was being done when the system refused.
pub(super) trait Doing<T> {
    /// Turns the error into a [`StorageError`].
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, StorageError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { doing: what(), source })
    }
}
