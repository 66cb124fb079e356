//! What can become of a request other than success.

use std::fmt;
use std::io;
use std::time::Duration;

use fsd_wire::client::Refusal;
use fsd_wire::hello::HelloStatus;
use fsd_wire::{DecodeError, FrameError};

/// Why a request did not succeed.
///
/// Exactly one of them, [`Unknown`](Self::Unknown), leaves open whether something happened. All the others say that
/// nothing was done, and that nothing will be.
#[derive(Debug)]
pub enum ClientError {
    /// The cluster refused the request for a reason that lies in the request. The refusals that only mean "ask
    /// again, or elsewhere" never get here: the client deals with them.
    Refused(Refusal),
    /// No node took the request inside the time limit.
    Unavailable {
        /// How long it was tried.
        time_limit: Duration,
        /// The last failure at each node that was tried: its address, and why.
        attempts: Vec<(String, AttemptError)>,
    },
    /// The change was sent, and nobody said inside the time limit what became of it: it may have been done, or may
    /// be done yet, but not more than once. [`Client`](crate::Client) says how to settle it.
    Unknown {
        /// The node that it was sent to last.
        address: String,
        /// What became of the reply.
        why: AttemptError,
    },
    /// Every node that was asked says that this client does not belong to it. Trying again would not help.
    WrongServers {
        /// What each node said.
        attempts: Vec<(String, AttemptError)>,
    },
    /// The client was set up or called in a way that cannot work. Nothing was sent.
    Usage(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write_refusal(f, refusal),
            Self::Unavailable { time_limit, attempts } => {
                write!(f, "unavailable, nothing was done: no leader took the request within {time_limit:?}")?;
                write_attempts(f, attempts)
            }
            Self::Unknown { address, why } => {
                write!(f, "outcome unknown, it may have been done: it was sent to {address}, but {why}")
            }
            Self::WrongServers { attempts } => {
                write!(f, "not the servers of this cluster, nothing was done: check the addresses")?;
                write_attempts(f, attempts)
            }
            Self::Usage(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ClientError {}

fn write_refusal(f: &mut fmt::Formatter<'_>, refusal: &Refusal) -> fmt::Result {
    match refusal {
        Refusal::NotFound => write!(f, "no such file"),
        Refusal::VersionMismatch { present } if present.0 == 0 => {
            write!(f, "version mismatch: there is no such file, present version 0")
        }
        Refusal::VersionMismatch { present } => write!(f, "version mismatch: present version {present}"),
        Refusal::Conflict { with } => {
            write!(f, "conflict: \"{with}\" is in the way, a name is a file or a directory, never both")
        }
        Refusal::InvalidName { reason } => write!(f, "invalid name: {reason}"),
        Refusal::TooLarge { max_bytes } => write!(f, "too large: the limit is {max_bytes} bytes"),
        Refusal::BadRequest { reason } => write!(f, "bad request: {reason}"),
        Refusal::NotLeader { leader, address, .. } => write!(f, "node {leader} at {address} leads"),
        Refusal::NoLeader => write!(f, "no leader"),
        Refusal::Busy => write!(f, "busy"),
        Refusal::Unknown => write!(f, "outcome unknown"),
        Refusal::SessionGone => write!(f, "the session is gone"),
        Refusal::DiskFull { node } => {
            write!(f, "the disk of node {node} is full: delete files there, or make room")
        }
    }
}

fn write_attempts(f: &mut fmt::Formatter<'_>, attempts: &[(String, AttemptError)]) -> fmt::Result {
    for (n, (address, why)) in attempts.iter().enumerate() {
        write!(f, "{} {address}: {why}", if n == 0 { ":" } else { ";" })?;
    }
    Ok(())
}

/// Why one attempt at one node did not bring an answer.
#[derive(Debug)]
pub enum AttemptError {
    /// The address is none that can be connected to.
    BadAddress(String),
    /// No connection came about.
    Connect(io::Error),
    /// The node refused the hello.
    HelloRefused {
        /// Why, as a code.
        status: HelloStatus,
        /// Why, in the node's words.
        reason: String,
    },
    /// The connection failed.
    Lost(io::Error),
    /// The node closed the connection.
    Closed,
    /// The time ran out.
    TimedOut,
    /// What came is no stream of frames.
    BadFrame(FrameError),
    /// What came is a frame, but not a message that belongs here.
    BadMessage(DecodeError),
    /// A reply came that answers none of the requests in flight.
    StrayReply,
    /// The node answered that it cannot say, or that another has to be asked.
    Refused(Refusal),
}

impl AttemptError {
    /// Whether the node said, in effect, that this client has the wrong address: waiting will not mend that.
    pub(crate) fn is_wrong_server(&self) -> bool {
        match self {
            Self::HelloRefused { status, .. } => !matches!(status, HelloStatus::Busy | HelloStatus::Welcome),
            Self::BadFrame(error) => {
                matches!(error, FrameError::BadMagic { .. } | FrameError::UnsupportedVersion { .. })
            }
            _ => false,
        }
    }

    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.kind() {
            // A blocking socket reports its time limit as either of these, depending on the system.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Lost(error),
        }
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAddress(reason) => write!(f, "unusable address: {reason}"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::HelloRefused { status, reason } if reason.is_empty() => {
                write!(f, "the node refused the connection ({status:?})")
            }
            Self::HelloRefused { reason, .. } => write!(f, "the node refused the connection: {reason}"),
            Self::Lost(error) => write!(f, "the connection failed: {error}"),
            Self::Closed => write!(f, "the node closed the connection"),
            Self::TimedOut => write!(f, "no answer in time"),
            Self::BadFrame(error) => write!(f, "not fsd's client protocol: {error}"),
            Self::BadMessage(error) => write!(f, "not a reply of fsd: {error}"),
            Self::StrayReply => write!(f, "a reply came to a request that was not made"),
            Self::Refused(refusal) => write_refusal(f, refusal),
        }
    }
}

impl std::error::Error for AttemptError {}
