//! How replies describe a file.

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
