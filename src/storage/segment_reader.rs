//! One segment that is only read, for whoever needs contents without the log: also while the log goes on, and also
//! when the file has lost its name since.

use bytes::Bytes;
use fsd_wire::codec::Reader;
use fsd_wire::{ENTRY_HEADER_BYTES, Entry};

use super::DirectoryIdentity;
use super::error::{Doing, StorageError};
use super::segment::{
    HeaderProblem, Position, RECORD_HEAD_BYTES, SegmentHeader, SegmentId, file_name, read_record_head,
};
use crate::mapping::{Disk, MappedFile};

/// A segment of the log, or a kept one.
pub struct SegmentReader<F> {
    file: F,
    header: SegmentHeader,
    path: String,
}

impl<F: MappedFile> SegmentReader<F> {
    /// Opens a segment. `identity` is whose it must be.
    ///
    /// # Errors
    /// If there is none, its header is damaged, it is another node's, or it cannot be read.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        id: SegmentId,
        identity: Option<&DirectoryIdentity>,
    ) -> Result<Self, StorageError> {
        let path = disk.describe(&file_name(id));
        let mut file = disk.open(&file_name(id)).doing(|| format!("open {path}"))?;
        // However many segments are read: none of them takes a descriptor.
        file.seal();
        let header = match SegmentHeader::read(&file, id).doing(|| format!("read {path}"))? {
            Ok(header) => header,
            Err(HeaderProblem::UnknownFormat(version)) => {
                return Err(StorageError::UnknownFormat { file: path, version });
            }
            Err(HeaderProblem::Damage(what)) => {
                return Err(StorageError::Damage { file: path, offset: 0, what });
            }
        };
        if let Some(expected) = identity.filter(|expected| **expected != header.identity) {
            let (found, expected) = (header.identity, expected.clone());
            return Err(StorageError::WrongDirectory { file: path, found, expected });
        }
        Ok(Self { file, header, path })
    }

    /// The entry whose record is at a position of this segment, and its bytes, header and all, as they are there: with
    /// the CRC that its first leader gave it, which was checked.
    ///
    /// # Errors
    /// If there is no whole record, or it cannot be read.
    ///
    /// # Panics
    /// If the position is in another segment.
    pub fn entry_at(&self, position: Position) -> Result<(Entry, Bytes), StorageError> {
        let payload_bytes = self.payload_bytes(position)?;
        let entry_at = u64::from(position.offset()) + (RECORD_HEAD_BYTES - ENTRY_HEADER_BYTES) as u64;
        let bytes = self
            .file
            .slice(entry_at, ENTRY_HEADER_BYTES + payload_bytes)
            .doing(|| format!("read {}", self.path))?;
        match Entry::decode(&mut Reader::new(bytes.clone())) {
            Ok(entry) => Ok((entry, bytes)),
            Err(error) => Err(self.damage(position, error.to_string())),
        }
    }

    /// The bytes of the payload of the record at a position of this segment.
    ///
    /// # Errors
    /// If there is no record's head, or it cannot be read.
    ///
    /// # Panics
    /// If the position is in another segment.
    pub fn payload_bytes(&self, position: Position) -> Result<usize, StorageError> {
        assert_eq!(position.segment(), self.header.id, "the segment of a position");
        let offset = u64::from(position.offset());
        let head = read_record_head(&self.file, &self.header, offset, self.header.len_bytes)
            .doing(|| format!("read {}", self.path))?
            .map_err(|why| self.damage(position, why.to_string()))?;
        Ok(head.payload_bytes)
    }

    /// The error that says that there is not what must be there.
    #[must_use]
    pub fn damage(&self, position: Position, what: String) -> StorageError {
        StorageError::Damage { file: self.path.clone(), offset: u64::from(position.offset()), what }
    }
}
