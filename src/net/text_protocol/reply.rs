//! The replies of the text protocol, as bytes.

use bytes::Bytes;
use fsd_wire::Version;
use fsd_wire::client::Refusal;

/// The reply to `read`, in pieces for a gathering write: the contents are shared, not copied.
#[must_use]
pub fn contents(version: Version, expiry_seconds: u64, contents: &Bytes) -> [Bytes; 3] {
    let line = line(&format!("CONTENTS {version} {} {expiry_seconds}", contents.len()));
    [line, contents.clone(), Bytes::from_static(b"\r\n")]
}

/// The reply to `write` and `cas`.
#[must_use]
pub fn written(version: Version) -> Bytes {
    line(&format!("OK {version}"))
}

/// The reply to `delete`.
#[must_use]
pub fn deleted() -> Bytes {
    Bytes::from_static(b"OK\r\n")
}

/// The reply to a malformed command.
#[must_use]
pub fn malformed(reason: &str) -> Bytes {
    line(&format!("ERR_CMD_ERR {reason}"))
}

/// The reply to a command that was not done, or is not known to be done. The address in
/// [`Refusal::NotLeader`] is the leader's text address; empty if it has none.
#[must_use]
pub fn refused(refusal: &Refusal) -> Bytes {
    line(&match refusal {
        Refusal::NotFound => "ERR_FILE_NOT_FOUND".to_string(),
        Refusal::VersionMismatch { present } => format!("ERR_VERSION {present}"),
        Refusal::InvalidName { reason } => format!("ERR_CMD_ERR invalid name: {reason}"),
        Refusal::BadRequest { reason } => format!("ERR_CMD_ERR {reason}"),
        Refusal::NotLeader { leader, address, .. } if address.is_empty() => {
            format!("ERR_INTERNAL not the leader: node {leader} leads, and has no text address")
        }
        Refusal::NotLeader { address, .. } => format!("ERR_REDIRECT {address}"),
        Refusal::Conflict { with } => format!("ERR_INTERNAL conflict with {with}"),
        Refusal::TooLarge { max_bytes } => {
            format!("ERR_INTERNAL too large: a file may have {max_bytes} bytes")
        }
        Refusal::NoLeader => "ERR_INTERNAL no leader".to_string(),
        Refusal::Busy => "ERR_INTERNAL busy".to_string(),
        Refusal::Unknown => "ERR_INTERNAL outcome unknown".to_string(),
        Refusal::SessionGone => "ERR_INTERNAL session gone".to_string(),
        Refusal::DiskFull { node } => format!("ERR_INTERNAL disk full: node {node} has no room"),
    })
}

/// Ends a line. A reply is one line whatever a reason that came from elsewhere contains.
fn line(text: &str) -> Bytes {
    let mut line: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    line.push_str("\r\n");
    line.into()
}
