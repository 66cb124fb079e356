//! What replies describe: a file, and what a node is in its cluster.

use crate::codec::{Reader, Writer};
use crate::command::NAME_BYTES_MAX;
use crate::error::DecodeError;
use crate::types::Version;

/// A file as `stat` and `list` describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The size of its contents in bytes.
    pub size_bytes: u64,
    /// Seconds until it is gone, rounded up; 0 for never.
    pub expiry_seconds: u64,
}

impl FileInfo {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64(self.version.0);
        out.u64(self.size_bytes);
        out.u64(self.expiry_seconds);
        out.text(&self.name);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            version: Version(reader.u64()?),
            size_bytes: reader.u64()?,
            expiry_seconds: reader.u64()?,
            name: reader.text("name", NAME_BYTES_MAX)?,
        })
    }
}

/// What a node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
}

impl NodeRole {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Follower => 1,
            Self::PreCandidate => 2,
            Self::Candidate => 3,
            Self::Leader => 4,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Follower,
            2 => Self::PreCandidate,
            3 => Self::Candidate,
            4 => Self::Leader,
            other => return Err(DecodeError::BadValue { field: "role", value: u64::from(other) }),
        })
    }
}

impl std::fmt::Display for NodeRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}
