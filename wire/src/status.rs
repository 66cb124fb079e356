//! What a node tells of itself.

use crate::codec::{Reader, Writer};
use crate::error::DecodeError;
use crate::hello::CLUSTER_NAME_BYTES_MAX;
use crate::types::{LogIndex, NodeId, Term, Version};

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
    fn to_byte(self) -> u8 {
        match self {
            Self::Follower => 1,
            Self::PreCandidate => 2,
            Self::Candidate => 3,
            Self::Leader => 4,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
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

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its role.
    pub role: NodeRole,
    /// Its term.
    pub term: Term,
    /// The leader that it knows of.
    pub leader: Option<NodeId>,
    /// Up to where it knows the log to be committed.
    pub commit_index: LogIndex,
    /// Up to where it has applied the log.
    pub last_applied: LogIndex,
    /// The first entry that it keeps.
    pub first_log_index: LogIndex,
    /// The last entry that it has.
    pub last_log_index: LogIndex,
    /// Files in its store.
    pub files: u64,
    /// The store's revision counter.
    pub revision: Version,
    /// The cluster's name.
    pub cluster: String,
}

/// What a node's data directory takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// The log's segments, with one that is made ready.
    pub log_bytes: u64,
    /// Segments that are there for the contents in them alone.
    pub contents_bytes: u64,
    /// The checkpoints.
    pub checkpoint_bytes: u64,
    /// Contents of files, with names and what records take besides.
    pub live_bytes: u64,
    /// All files of the directory; 0 if the node cannot tell.
    pub total_bytes: u64,
    /// The entry as of which the newest checkpoint is; 0 if there is none.
    pub checkpoint_index: LogIndex,
}

impl NodeStatus {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u32(self.node.0);
        out.u8(self.role.to_byte());
        out.u64(self.term.0);
        out.u32(self.leader.map_or(0, |node| node.0));
        for index in [self.commit_index, self.last_applied, self.first_log_index, self.last_log_index] {
            out.u64(index.0);
        }
        out.u64(self.files);
        out.u64(self.revision.0);
        out.text(&self.cluster);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            node: NodeId(reader.u32()?),
            role: NodeRole::from_byte(reader.u8()?)?,
            term: Term(reader.u64()?),
            leader: match reader.u32()? {
                0 => None,
                node => Some(NodeId(node)),
            },
            commit_index: LogIndex(reader.u64()?),
            last_applied: LogIndex(reader.u64()?),
            first_log_index: LogIndex(reader.u64()?),
            last_log_index: LogIndex(reader.u64()?),
            files: reader.u64()?,
            revision: Version(reader.u64()?),
            cluster: reader.text("cluster", CLUSTER_NAME_BYTES_MAX)?,
        })
    }
}

impl StorageStatus {
    pub(crate) fn encode(&self, out: &mut Writer) {
        for bytes in [
            self.log_bytes,
            self.contents_bytes,
            self.checkpoint_bytes,
            self.live_bytes,
            self.total_bytes,
            self.checkpoint_index.0,
        ] {
            out.u64(bytes);
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            log_bytes: reader.u64()?,
            contents_bytes: reader.u64()?,
            checkpoint_bytes: reader.u64()?,
            live_bytes: reader.u64()?,
            total_bytes: reader.u64()?,
            checkpoint_index: LogIndex(reader.u64()?),
        })
    }
}
