//! Segments that are there for the contents in them alone: kept ones, which are known to the last byte, and those that
//! the log has left behind.

use std::collections::BTreeMap;

use super::{InspectedRecord, InspectedSegment, SegmentPart};
use crate::mapping::{Disk, MappedFile};
use crate::storage::StorageError;
use crate::storage::error::Doing;
use crate::storage::kept::KeptBlock;
use crate::storage::segment::{
    ACTIVATION_AT, Activation, Position, RECORD_ALIGNMENT, RECORDS_AT, SegmentHeader, SegmentId, file_name,
    read_record, search_rest,
};
use crate::storage::survey::ContentsFile;

/// Reads all records of these segments, of which `ends` tells where some were sealed.
pub(super) fn inspect<D: Disk>(
    disk: &D,
    contents: BTreeMap<SegmentId, ContentsFile<D::File>>,
    mut ends: Vec<Position>,
    problems: &mut Vec<StorageError>,
) -> Result<Vec<InspectedSegment<D::File>>, StorageError> {
    for (id, ContentsFile { file, header }) in &contents {
        let activation =
            Activation::read(file, header).doing(|| format!("read {}", disk.describe(&file_name(*id))))?;
        ends.extend(activation.map(|activation| activation.previous_end));
    }
    let mut inspected = Vec::new();
    for (id, ContentsFile { file, header }) in contents {
        let name = file_name(id);
        let end = ends.iter().find(|end| end.segment() == id).map(|end| u64::from(end.offset()));
        let mut walk =
            Walk { path: disk.describe(&name), file: &file, header: &header, records: Vec::new(), problems };
        let part = walk.walk(end)?;
        let records = walk.records;
        inspected.push(InspectedSegment { name, part, records, header, file });
    }
    Ok(inspected)
}

struct Walk<'a, F> {
    path: String,
    file: &'a F,
    header: &'a SegmentHeader,
    records: Vec<InspectedRecord>,
    problems: &'a mut Vec<StorageError>,
}

impl<F: MappedFile> Walk<'_, F> {
    /// Reads the segment, which ended at `end` when the log left it, if that is known.
    fn walk(&mut self, end: Option<u64>) -> Result<SegmentPart, StorageError> {
        let reading = || format!("read {}", self.path);
        if let Some(block) = KeptBlock::read(self.file, self.header).doing(reading)? {
            self.walk_kept(&block)?;
            return Ok(SegmentPart::Kept);
        }
        if Activation::read(self.file, self.header).doing(reading)?.is_none() {
            let what = "neither an activation block nor that of a kept segment is whole".to_owned();
            self.damage(ACTIVATION_AT, what);
        }
        self.walk_past(end)?;
        Ok(SegmentPart::Past)
    }

    fn walk_kept(&mut self, block: &KeptBlock) -> Result<(), StorageError> {
        if block.end > self.header.len_bytes || block.end < u64::from(RECORDS_AT) {
            self.damage(ACTIVATION_AT, format!("its records end at {}, by its block", block.end));
            return Ok(());
        }
        let mut offset = u64::from(RECORDS_AT);
        let before = self.problems.len();
        while offset < block.end {
            offset = match self.record(offset, block.end)? {
                Ok(next) => next,
                Err(what) => {
                    self.damage(offset, what);
                    match self.next_record(offset, block.end)? {
                        Some(next) => next,
                        None => break,
                    }
                }
            };
        }
        let found = self.records.len() as u64;
        if self.problems.len() == before && found != block.records {
            self.damage(ACTIVATION_AT, format!("{found} records, by its block {}", block.records));
        }
        Ok(())
    }

    /// Whatever lies behind the last record of a segment that the log has left is a torn tail that was cut, unless
    /// something says that it was flushed.
    fn walk_past(&mut self, end: Option<u64>) -> Result<(), StorageError> {
        let limit = end.unwrap_or(self.header.len_bytes).min(self.header.len_bytes);
        let mut offset = u64::from(RECORDS_AT);
        while offset < limit {
            offset = match self.record(offset, limit)? {
                Ok(next) => next,
                Err(what) => {
                    let rest = search_rest(self.file, self.header, offset, limit);
                    let rest = rest.doing(|| format!("read {}", self.path))?;
                    let place = Position::new(self.header.id, offset as u32);
                    if end.is_none() && rest.durable <= place {
                        return Ok(());
                    }
                    self.damage(offset, what);
                    match self.next_record(offset, limit)? {
                        Some(next) => next,
                        None => return Ok(()),
                    }
                }
            };
        }
        Ok(())
    }

    /// Takes the record at a place; gives where the next one is, or why there is none here.
    fn record(&mut self, offset: u64, limit: u64) -> Result<Result<u64, String>, StorageError> {
        let read =
            read_record(self.file, self.header, offset, limit).doing(|| format!("read {}", self.path))?;
        Ok(match read {
            Ok((head, _)) => {
                self.records.push(InspectedRecord { head, is_superseded: false });
                Ok(head.end_offset())
            }
            Err(why) => Err(why.to_string()),
        })
    }

    fn next_record(&self, offset: u64, limit: u64) -> Result<Option<u64>, StorageError> {
        let rest = search_rest(self.file, self.header, offset + RECORD_ALIGNMENT, limit);
        Ok(rest.doing(|| format!("read {}", self.path))?.next_record)
    }

    fn damage(&mut self, offset: u64, what: String) {
        self.problems.push(StorageError::Damage { file: self.path.clone(), offset, what });
    }
}
