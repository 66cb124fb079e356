//! The first message in each direction of every connection: who is there, and whether they belong together.

use crate::Message;
use crate::codec::{Reader, Writer};
use crate::error::DecodeError;
use crate::frame::{Frame, PROTOCOL_VERSION};
use crate::types::{ClusterId, Incarnation, Life, NodeId};

/// The longest name of a cluster in bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 255;
/// The longest reason in a refusal, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

const KIND_HELLO: u16 = 1;
const KIND_HELLO_REPLY: u16 = 2;

/// What a node says of itself in a hello and in its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// How often it was started on that directory.
    pub life: Life,
    /// The cluster's id, once the entry that carries it is known to be committed.
    pub cluster_id: Option<ClusterId>,
}

impl Identity {
    fn encode(&self, out: &mut Writer) {
        assert_ne!(self.cluster_id, Some(ClusterId(0)), "0 stands for no cluster id");
        out.u32(self.node.0);
        out.u64(self.incarnation.0);
        out.u64(self.life.0);
        out.u128(self.cluster_id.map_or(0, |id| id.0));
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            node: NodeId(reader.u32()?),
            incarnation: Incarnation(reader.u64()?),
            life: Life(reader.u64()?),
            cluster_id: match reader.u128()? {
                0 => None,
                id => Some(ClusterId(id)),
            },
        })
    }
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another node of the cluster, on a peer address.
    Peer {
        /// What it says of itself.
        identity: Identity,
        /// The node that it means to reach.
        target: NodeId,
    },
    /// A client, on a client address.
    Client,
}

/// The first message from the side that opened the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version that the sender speaks.
    pub protocol_min: u16,
    /// The highest protocol version that the sender speaks.
    pub protocol_max: u16,
    /// The cluster's name; a client that does not know it leaves it empty.
    pub cluster: String,
    /// Who it is.
    pub role: Role,
}

impl Message for Hello {
    fn kind(&self) -> u16 {
        KIND_HELLO
    }

    fn encode_body(&self, out: &mut Writer) {
        out.u16(self.protocol_min);
        out.u16(self.protocol_max);
        out.text(&self.cluster);
        match &self.role {
            Role::Peer { identity, target } => {
                out.u8(1);
                identity.encode(out);
                out.u32(target.0);
            }
            Role::Client => out.u8(2),
        }
    }
}

impl Hello {
    /// Reads the message in `frame`.
    ///
    /// # Errors
    /// What is wrong with the bytes; also if it is another message.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let mut reader = reader_of(frame, KIND_HELLO)?;
        let hello = Self {
            protocol_min: reader.u16()?,
            protocol_max: reader.u16()?,
            cluster: reader.text("cluster", CLUSTER_NAME_BYTES_MAX)?,
            role: match reader.u8()? {
                1 => Role::Peer { identity: Identity::decode(&mut reader)?, target: NodeId(reader.u32()?) },
                2 => Role::Client,
                other => return Err(DecodeError::BadValue { field: "role", value: u64::from(other) }),
            },
        };
        reader.finish()?;
        if hello.protocol_min > hello.protocol_max {
            let value = u64::from(hello.protocol_min);
            return Err(DecodeError::BadValue { field: "lowest protocol version", value });
        }
        Ok(hello)
    }

    /// The highest protocol version that the sender and this code both speak.
    #[must_use]
    pub fn common_protocol(&self) -> Option<u16> {
        (self.protocol_min..=self.protocol_max).contains(&PROTOCOL_VERSION).then_some(PROTOCOL_VERSION)
    }
}

/// How a hello was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloStatus {
    /// They belong together; the connection is open for messages.
    Welcome,
    /// The cluster's name differs.
    OtherCluster,
    /// The cluster's id differs: two clusters of one name were begun apart.
    OtherClusterId,
    /// The sender is no member, or means to reach another node.
    WrongNode,
    /// The sender's data directory is an old copy: this node has met a later life of it.
    StaleCopy,
    /// No protocol version is spoken by both.
    NoCommonProtocol,
    /// This address is for the other role.
    WrongRole,
    /// There are too many connections.
    Busy,
}

impl HelloStatus {
    fn to_byte(self) -> u8 {
        match self {
            Self::Welcome => 0,
            Self::OtherCluster => 1,
            Self::OtherClusterId => 2,
            Self::WrongNode => 3,
            Self::StaleCopy => 4,
            Self::NoCommonProtocol => 5,
            Self::WrongRole => 6,
            Self::Busy => 7,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            0 => Self::Welcome,
            1 => Self::OtherCluster,
            2 => Self::OtherClusterId,
            3 => Self::WrongNode,
            4 => Self::StaleCopy,
            5 => Self::NoCommonProtocol,
            6 => Self::WrongRole,
            7 => Self::Busy,
            other => return Err(DecodeError::BadValue { field: "hello status", value: u64::from(other) }),
        })
    }
}

/// The answer to a hello. Unless it is a welcome, the connection is closed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// Whether the connection is open.
    pub status: HelloStatus,
    /// The protocol version that both will use; 0 if there is none.
    pub protocol: u16,
    /// The cluster's name.
    pub cluster: String,
    /// What the answering node says of itself.
    pub identity: Identity,
    /// In words, what is wrong and what to do; empty for a welcome. Cut at [`REASON_BYTES_MAX`].
    pub reason: String,
}

impl Message for HelloReply {
    fn kind(&self) -> u16 {
        KIND_HELLO_REPLY
    }

    fn encode_body(&self, out: &mut Writer) {
        out.u8(self.status.to_byte());
        out.u16(self.protocol);
        out.text(&self.cluster);
        self.identity.encode(out);
        out.reason(&self.reason, REASON_BYTES_MAX);
    }
}

impl HelloReply {
    /// Reads the message in `frame`.
    ///
    /// # Errors
    /// What is wrong with the bytes; also if it is another message.
    pub fn decode(frame: &Frame) -> Result<Self, DecodeError> {
        let mut reader = reader_of(frame, KIND_HELLO_REPLY)?;
        let reply = Self {
            status: HelloStatus::from_byte(reader.u8()?)?,
            protocol: reader.u16()?,
            cluster: reader.text("cluster", CLUSTER_NAME_BYTES_MAX)?,
            identity: Identity::decode(&mut reader)?,
            reason: reader.text("reason", REASON_BYTES_MAX)?,
        };
        reader.finish()?;
        if reply.status == HelloStatus::Welcome && reply.protocol == 0 {
            return Err(DecodeError::BadValue { field: "protocol of a welcome", value: 0 });
        }
        Ok(reply)
    }
}

/// The fields of the message in `frame`, which must be of `kind`.
pub(crate) fn reader_of(frame: &Frame, kind: u16) -> Result<Reader, DecodeError> {
    if frame.kind == kind {
        Ok(Reader::new(frame.body.clone()))
    } else {
        Err(DecodeError::UnknownKind { kind: frame.kind })
    }
}
