//! What can be wrong with bytes that came from outside.

use std::fmt;

/// Why a message or an entry could not be read. The connection, or the record, that it came from is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A field reaches past the end of the message.
    Truncated {
        /// Bytes that the field needs.
        wanted: usize,
        /// Bytes that there are.
        left: usize,
    },
    /// Bytes follow the last field.
    Trailing {
        /// How many.
        left: usize,
    },
    /// A length or a count is over its bound.
    TooLong {
        /// Which field.
        field: &'static str,
        /// The length that was claimed.
        len: usize,
        /// The longest that is accepted here.
        max: usize,
    },
    /// A text is not UTF-8.
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// A field has a value that nothing stands for.
    BadValue {
        /// Which field.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// No message has this number.
    UnknownKind {
        /// The number.
        kind: u16,
    },
    /// An entry's CRC does not match its bytes.
    EntryCrc {
        /// The index that the entry claims.
        index: u64,
    },
    /// The entries of one message do not follow each other.
    EntrySequence {
        /// The index of the entry that is out of place.
        index: u64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { wanted, left } => write!(f, "a field of {wanted} bytes where {left} are left"),
            Self::Trailing { left } => write!(f, "{left} bytes after the last field"),
            Self::TooLong { field, len, max } => write!(f, "{field}: {len} is over the bound {max}"),
            Self::NotUtf8 { field } => write!(f, "{field}: not UTF-8"),
            Self::BadValue { field, value } => write!(f, "{field}: {value} has no meaning"),
            Self::UnknownKind { kind } => write!(f, "unknown message kind {kind}"),
            Self::EntryCrc { index } => write!(f, "entry {index}: CRC mismatch"),
            Self::EntrySequence { index } => write!(f, "entry {index} is out of sequence"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Why a stream of frames cannot go on. Sticky: after it, nothing on that connection can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The stream does not carry fsd frames.
    BadMagic {
        /// What was found in place of the magic, read as a little-endian number; zero where nothing has come
        /// yet.
        found: u32,
    },
    /// The sender's frame format is another one.
    UnsupportedVersion {
        /// The version that the frame names.
        version: u16,
    },
    /// The header's own CRC does not match: the length cannot be trusted.
    HeaderCrc,
    /// The body would be longer than this connection accepts.
    BodyTooLong {
        /// The length that the header names.
        len: u32,
        /// The longest that is accepted here.
        max: u32,
    },
    /// The CRC over header and body does not match.
    BodyCrc,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic { found } => {
                write!(f, "no fsd frame: it begins with \"{}\"", found.to_le_bytes().escape_ascii())
            }
            Self::UnsupportedVersion { version } => write!(f, "unsupported protocol version {version}"),
            Self::HeaderCrc => write!(f, "frame header CRC mismatch"),
            Self::BodyTooLong { len, max } => write!(f, "frame body of {len} bytes is over the bound {max}"),
            Self::BodyCrc => write!(f, "frame CRC mismatch"),
        }
    }
}

impl std::error::Error for FrameError {}
