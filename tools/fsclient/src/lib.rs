//! The client of `fsd`: finds the leader by itself, follows redirects, rides through failovers inside a time
//! limit, and always tells which of three became of a request: done, refused, or unknown.
//!
//! - [`Client`] is what programs use: one request at a time, retried where that is safe.
//! - [`Connection`] is one connection to one node, with pipelining by request ids and no retries: for
//!   benchmarks and tests.
//!
//! Sockets are blocking, every wait has a deadline, and no thread is left behind.
//!
//! ```no_run
//! use fsclient::{Client, ClientError, Refusal, Version};
//!
//! fn take_lock(client: &mut Client) -> Result<Option<Version>, ClientError> {
//!     // Version 0: only where no such file exists. After 30 seconds the lock is free again.
//!     match client.cas("locks/report", Version(0), "host-a", 30) {
//!         Ok(version) => Ok(Some(version)),
//!         Err(ClientError::Refused(Refusal::VersionMismatch { .. })) => Ok(None),
//!         Err(error) => Err(error),
//!     }
//! }
//!
//! # fn main() -> Result<(), ClientError> {
//! let mut client = Client::new(["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"])?;
//! if let Some(version) = take_lock(&mut client)? {
//!     println!("locked with version {version}");
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod conf;
mod connection;
mod error;

pub use client::{Client, FileContents, NodeReport, Page};
pub use conf::{ClusterConf, ConfError};
pub use connection::Connection;
pub use error::{AttemptError, ClientError};

pub use fsd_wire::client::{FileInfo, NodeRole, NodeStatus, Operation, Outcome, Refusal};
pub use fsd_wire::{Command, NodeId, RequestId, Term, Version};

/// The largest contents that any configuration of `fsd` accepts; a node may be set to less.
pub const CONTENTS_BYTES_MAX: usize = 16 * 1024 * 1024;

const _: () = assert!(CONTENTS_BYTES_MAX + fsd_wire::NAME_BYTES_MAX < fsd_wire::PAYLOAD_BYTES_MAX);
