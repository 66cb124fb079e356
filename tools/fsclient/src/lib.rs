//! The client of `fsd`: finds the leader by itself, follows redirects, rides through failovers inside a time
//! limit, and always tells which of three became of a change: done, refused, or unknown.
//!
//! - [`Client`] is what programs use: one request at a time, repeated until it is answered. Its changes are made
//!   in a session, so that one that is repeated is never applied twice.
//! - [`Connection`] is one connection to one node, with pipelining by request ids and no retries: for
//!   benchmarks and tests.
//!
//! Sockets are blocking, every wait has a deadline, and no thread is left behind.
//!
//! ```no_run
//! use fsclient::{Client, ClientError, Refusal, Version};
//!
//! /// Takes a lock that is free again after 30 seconds. `None` if somebody else holds it.
//! fn take_lock(client: &mut Client, owner: &str) -> Result<Option<Version>, ClientError> {
//!     // Version 0: only where no such file exists.
//!     match client.cas("locks/report", Version(0), owner.to_owned(), 30) {
//!         // Done, exactly once, however often it had to be sent.
//!         Ok(version) => Ok(Some(version)),
//!         // Refused: nothing happened, the lock is another's.
//!         Err(ClientError::Refused(Refusal::VersionMismatch { .. })) => Ok(None),
//!         // Unknown: it may have been done, or may be yet. Once `keep_alive` has succeeded it is one or the other,
//!         // and a read tells which.
//!         Err(unknown @ ClientError::Unknown { .. }) => {
//!             if client.keep_alive().is_err() {
//!                 return Err(unknown);
//!             }
//!             match client.read("locks/report") {
//!                 Ok(file) => Ok((file.contents == owner).then_some(file.version)),
//!                 Err(ClientError::Refused(Refusal::NotFound)) => Ok(None),
//!                 Err(_) => Err(unknown),
//!             }
//!         }
//!         // Unavailable and the like: nothing was done.
//!         Err(error) => Err(error),
//!     }
//! }
//!
//! # fn main() -> Result<(), ClientError> {
//! let mut client = Client::new(["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"])?;
//! if let Some(version) = take_lock(&mut client, "host-a/4711")? {
//!     println!("locked with version {version}");
//!     // Whoever still holds it gives it back; an expired lock is nobody's to delete.
//!     client.delete("locks/report", Some(version))?;
//! }
//! # Ok(())
//! # }
//! ```

mod backup;
mod client;
mod conf;
mod connection;
mod error;
mod finder;
mod session;

pub use backup::{BackupError, BackupProgress, BackupSink, BackupSummary, verify_backup};
pub use client::{Client, FileContents, NodeReport, Page};
pub use conf::{ClusterConf, ConfError};
pub use connection::Connection;
pub use error::{AttemptError, ClientError};

pub use fsd_wire::client::{FileInfo, NodeRole, NodeStatus, Operation, Outcome, Refusal, StorageStatus};
pub use fsd_wire::store_stream::{StreamError, StreamHead};
pub use fsd_wire::{Command, NodeId, RequestId, Sequence, SessionId, Term, Version};

/// The largest contents that any configuration of `fsd` accepts; a node may be set to less.
pub const CONTENTS_BYTES_MAX: usize = 16 * 1024 * 1024;

const _: () = assert!(CONTENTS_BYTES_MAX + fsd_wire::NAME_BYTES_MAX < fsd_wire::PAYLOAD_BYTES_MAX);
