//! Kept segments: contents that were copied out of segments of which little was live, so that those can go.
//!
//! A kept segment is a file as a segment of the log is: the same preparation header, the same records at the same
//! places of the file. In place of the activation block it has this one, of 64 bytes:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `fsd-kpt\n` |
//! | 8 | 4 | segment id |
//! | 12 | 4 | CRC of the salt and the 64 bytes, these four taken as zero |
//! | 16 | 8 | count of its records |
//! | 24 | 8 | where the last of them ends |
//! | 32 | 32 | zero |
//!
//! It is made whole, flushed, and only then given its name: no crash leaves half of one. Its records are in no
//! order, and none of them is part of the log: what they are for is that the index of the files refers to them.

use std::io;

use byteorder::{ByteOrder, LittleEndian};
use fsd_wire::Entry;

use super::segment::{
    ACTIVATION_AT, ACTIVATION_BYTES, Position, RECORDS_AT, SegmentHeader, SegmentId, crc_without_field,
    file_name, record_bytes, store_record, temporary_name,
};
use crate::mapping::{Disk, MappedFile, WRITE_OUT_BYTES};
use crate::mutants::mutant;

const KEPT_MAGIC: &[u8; 8] = b"fsd-kpt\n";

/// The block that makes a segment a kept one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptBlock {
    /// How many records it has.
    pub records: u64,
    /// Where the last of them ends.
    pub end: u64,
}

impl KeptBlock {
    fn encode(&self, header: &SegmentHeader) -> [u8; ACTIVATION_BYTES] {
        let mut bytes = [0; ACTIVATION_BYTES];
        bytes[..8].copy_from_slice(KEPT_MAGIC);
        LittleEndian::write_u32(&mut bytes[8..], header.id.0);
        LittleEndian::write_u64(&mut bytes[16..], self.records);
        LittleEndian::write_u64(&mut bytes[24..], self.end);
        let crc = crc_without_field(Some(header.salt), &bytes);
        LittleEndian::write_u32(&mut bytes[12..], crc);
        bytes
    }

    /// The block of a segment, if it is a kept one.
    pub(super) fn read<F: MappedFile>(file: &F, header: &SegmentHeader) -> io::Result<Option<Self>> {
        let mut bytes = [0; ACTIVATION_BYTES];
        file.copy_out(ACTIVATION_AT, &mut bytes)?;
        let whole = &bytes[..8] == KEPT_MAGIC
            && LittleEndian::read_u32(&bytes[8..]) == header.id.0
            && LittleEndian::read_u32(&bytes[12..]) == crc_without_field(Some(header.salt), &bytes);
        Ok(whole.then(|| Self {
            records: LittleEndian::read_u64(&bytes[16..]),
            end: LittleEndian::read_u64(&bytes[24..]),
        }))
    }
}

/// A kept segment that is being made.
pub struct KeptWriter<D: Disk> {
    disk: D,
    file: D::File,
    header: SegmentHeader,
    block: KeptBlock,
    /// All before this is written out.
    written_out: u64,
}

/// A kept segment that is whole and has its name.
#[derive(Debug)]
pub struct Kept<F> {
    pub(super) file: F,
    pub(super) header: SegmentHeader,
}

impl<F> Kept<F> {
    /// The name of its file.
    #[must_use]
    pub fn name(&self) -> String {
        file_name(self.header.id)
    }

    /// The file's length.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.header.len_bytes
    }
}

/// Bytes of a kept segment with records of these payloads.
#[must_use]
pub fn kept_bytes(payloads: impl Iterator<Item = usize>) -> u64 {
    let records: u64 = payloads.map(record_bytes).sum();
    (u64::from(RECORDS_AT) + records).next_multiple_of(u64::from(RECORDS_AT))
}

/// The names that a kept segment's file has: while it is made, and then.
#[must_use]
pub fn kept_names(id: SegmentId) -> [String; 2] {
    [temporary_name(id), file_name(id)]
}

impl<F> Kept<F> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        self.header.id
    }
}

impl<D: Disk> KeptWriter<D> {
    /// Begins one of the length that its header says.
    ///
    /// # Errors
    /// If the disk has no space, or fails. Nothing is left behind that the next start does not remove.
    pub fn create(disk: &D, header: SegmentHeader) -> io::Result<Self> {
        let mut file = disk.create_unfilled(&temporary_name(header.id), header.len_bytes)?;
        file.store(0, &header.encode());
        let block = KeptBlock { records: 0, end: u64::from(RECORDS_AT) };
        Ok(Self { disk: disk.clone(), file, header, block, written_out: 0 })
    }

    /// Whether a record with such a payload still fits.
    #[must_use]
    pub fn fits(&self, payload_bytes: usize) -> bool {
        self.block.end + record_bytes(payload_bytes) <= self.header.len_bytes
    }

    /// Adds an entry, and gives its position.
    ///
    /// # Errors
    /// If the disk fails.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn add(&mut self, entry: &Entry) -> io::Result<Position> {
        assert!(self.fits(entry.payload.len()), "a record behind the end of a kept segment");
        let position = Position::new(self.header.id, self.block.end as u32);
        store_record(&mut self.file, self.header.salt, Position::default(), position, entry);
        self.block.end += record_bytes(entry.payload.len());
        self.block.records += 1;
        let stored = self.block.end - self.written_out;
        if stored >= WRITE_OUT_BYTES {
            self.file.write_out(self.written_out, stored)?;
            self.written_out = self.block.end;
        }
        Ok(position)
    }

    /// Flushes it and gives it its name.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(mut self) -> io::Result<Kept<D::File>> {
        self.file.store(ACTIVATION_AT, &self.block.encode(&self.header));
        if !mutant!("kept-segment-is-not-flushed") {
            self.file.flush()?;
        }
        self.file.seal();
        self.disk.rename(&temporary_name(self.header.id), &file_name(self.header.id))?;
        self.disk.sync_directory()?;
        Ok(Kept { file: self.file, header: self.header })
    }
}
