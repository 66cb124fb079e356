//! One walk over the log's files, for recovery (which stops at the first damage) and for inspection (which goes
//! on behind it). It changes nothing.
//!
//! The walk reads the headers and activation blocks of all segments first. They form a chain: each activation
//! names the position where the segment before it ended, and so proves that everything up to there was flushed.
//! Then the records are read in their order. Below what is proven to have been flushed, a place without a record
//! is damage; in the last segment, behind everything that is proven, it is where the log ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use fsd_wire::{Entry, EntryId};

use super::DirectoryIdentity;
use super::entry_table::{EntryTable, LogBase};
use super::error::{Doing, StorageError};
use super::kept::KeptBlock;
use super::segment::{
    ACTIVATION_AT, Activation, HeaderProblem, NameKind, NoRecord, Position, RECORDS_AT, RecordHead,
    SegmentHeader, SegmentId, file_name, parse_name, read_record, read_record_head, search_rest,
};
use crate::mapping::{Disk, MappedFile};
use crate::marks::mark;
use crate::mutants::mutant;

/// A segment that the log rolled into.
pub(super) struct SegmentFile<F> {
    pub(super) file: F,
    pub(super) header: SegmentHeader,
    pub(super) activation: Activation,
}

/// A segment that is there for the contents in it, and no part of the log, or not any more.
#[derive(Debug)]
pub(super) struct ContentsFile<F> {
    pub(super) file: F,
    pub(super) header: SegmentHeader,
}

/// What is known before the log is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where it ended at least, by the hard state.
    pub(super) log_end: Position,
    /// Where it begins, by the oldest checkpoint that counts.
    pub(super) base: LogBase,
    /// The segments with contents that some checkpoint refers to.
    pub(super) referred: BTreeSet<SegmentId>,
    /// Those of them that the newest checkpoint refers to: they must be there.
    pub(super) needed: BTreeSet<SegmentId>,
}

/// A file of the log that holds none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// Why it does not count.
    pub why: &'static str,
}

/// Where the last segment ends in something that is no record and was never known to be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where it begins.
    pub position: Position,
    /// What is there.
    pub what: String,
}

/// What a walk found.
pub(super) struct Survey<F> {
    pub(super) segments: Vec<SegmentFile<F>>,
    /// Segments that only hold contents.
    pub(super) contents: BTreeMap<SegmentId, ContentsFile<F>>,
    pub(super) leftovers: Vec<Leftover>,
    pub(super) table: EntryTable,
    /// Where the log ends.
    pub(super) end: Position,
    /// Where the log, and segments that do not count, hold something that was never known to be durable.
    pub(super) torn: Vec<TornTail>,
    /// Everything before this was flushed, as some record, activation or the hard state says.
    pub(super) proven: Position,
    /// The greatest id that any file has.
    pub(super) highest_id: SegmentId,
    /// Records, superseded ones included.
    pub(super) records: u64,
}

impl<F> Survey<F> {
    /// Whether the last segment of the log goes on behind the log's end with something that is no record.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.iter().any(|torn| torn.position == self.end)
    }

    /// The bytes of the log's records behind a place.
    pub(super) fn bytes_behind(&self, place: Position) -> u64 {
        let ends = self.segments.iter().skip(1).map(|next| next.activation.previous_end).chain([self.end]);
        let bytes = |(segment, end): (&SegmentFile<F>, Position)| {
            let from = place.max(Position::new(segment.header.id, RECORDS_AT));
            if end.segment() == from.segment() { end.0.saturating_sub(from.0) } else { 0 }
        };
        self.segments.iter().zip(ends).map(bytes).sum()
    }
}

/// Who is told what the walk finds.
pub(super) trait Visitor<F> {
    /// A whole record, in its place.
    fn record(&mut self, head: &RecordHead, entry: &Entry) -> Result<(), StorageError>;

    /// Something that must not be. An error ends the walk; otherwise it goes on behind.
    fn problem(&mut self, error: StorageError) -> Result<(), StorageError>;
}

/// A segment by name before it is known whether it counts.
struct Candidate<F> {
    file: F,
    header: SegmentHeader,
    activation: Option<Activation>,
    is_kept: bool,
}

/// Walks over the log in `disk`, of which something is known already.
pub(super) fn survey<D: Disk>(
    disk: &D,
    identity: Option<&DirectoryIdentity>,
    known: &Known,
    visitor: &mut dyn Visitor<D::File>,
) -> Result<Survey<D::File>, StorageError> {
    let names = disk.list().doing(|| "read the data directory".to_owned())?;
    let mut walk = Walk::new(disk, known, visitor);
    walk.walk(&names, identity)?;
    walk.drop_segment_without_records()?;
    walk.check_needed()?;
    walk.check_log_end()?;
    Ok(walk.found)
}

/// Walks over these segments of the directory alone. The first may follow on what is not there, and so may the
/// others: only the records themselves are checked.
pub(super) fn survey_part<D: Disk>(
    disk: &D,
    names: &[String],
    visitor: &mut dyn Visitor<D::File>,
) -> Result<Survey<D::File>, StorageError> {
    let nothing = Known::default();
    let mut walk = Walk::new(disk, &nothing, visitor);
    walk.is_partial = true;
    walk.is_broken = true;
    walk.walk(names, None)?;
    Ok(walk.found)
}

struct Walk<'a, D: Disk> {
    disk: &'a D,
    known: &'a Known,
    visitor: &'a mut dyn Visitor<D::File>,
    /// Only some segments are looked at.
    is_partial: bool,
    /// Something is missing: entries need not follow each other any more.
    is_broken: bool,
    found: Survey<D::File>,
}

impl<'a, D: Disk> Walk<'a, D> {
    fn new(disk: &'a D, known: &'a Known, visitor: &'a mut dyn Visitor<D::File>) -> Self {
        let found = Survey {
            segments: Vec::new(),
            contents: BTreeMap::new(),
            leftovers: Vec::new(),
            table: EntryTable::behind(known.base),
            end: known.base.end,
            torn: Vec::new(),
            // What a checkpoint covers was flushed before it.
            proven: known.log_end.max(known.base.end),
            highest_id: SegmentId(0),
            records: 0,
        };
        Self { disk, known, visitor, is_partial: false, is_broken: false, found }
    }

    fn walk(&mut self, names: &[String], identity: Option<&DirectoryIdentity>) -> Result<(), StorageError> {
        let candidates = self.open_all(names, identity)?;
        self.build_chain(candidates)?;
        for n in 0..self.found.segments.len() {
            self.walk_segment(n)?;
        }
        Ok(())
    }

    fn problem(&mut self, error: StorageError) -> Result<(), StorageError> {
        self.is_broken = true;
        self.visitor.problem(error)
    }

    fn damage(&mut self, id: SegmentId, offset: u64, what: String) -> Result<(), StorageError> {
        let file = self.disk.describe(&file_name(id));
        self.problem(StorageError::Damage { file, offset, what })
    }

    fn read<T>(&self, id: SegmentId, result: io::Result<T>) -> Result<T, StorageError> {
        result.doing(|| format!("read {}", self.disk.describe(&file_name(id))))
    }

    /// Opens every file that is named as a segment, in the order of their ids, and reads its first page.
    fn open_all(
        &mut self,
        names: &[String],
        identity: Option<&DirectoryIdentity>,
    ) -> Result<Vec<Candidate<D::File>>, StorageError> {
        let mut ids = Vec::new();
        for name in names {
            match parse_name(name) {
                NameKind::Segment(id) => ids.push(id),
                NameKind::Temporary => {
                    mark!("survey-finds-segment-in-the-making");
                    let why = "it was being made ready";
                    self.found.leftovers.push(Leftover { name: name.clone(), why });
                }
                NameKind::BadSegment => {
                    let file = self.disk.describe(name);
                    let what = "no segment has such a name".to_owned();
                    self.problem(StorageError::Damage { file, offset: 0, what })?;
                }
                NameKind::Checkpoint(_) | NameKind::Other => {}
            }
        }
        ids.sort_unstable();
        let mut candidates = Vec::new();
        for id in ids {
            self.found.highest_id = id;
            if let Some(candidate) = self.open_one(id, identity)? {
                candidates.push(candidate);
            }
        }
        Ok(candidates)
    }

    fn open_one(
        &mut self,
        id: SegmentId,
        identity: Option<&DirectoryIdentity>,
    ) -> Result<Option<Candidate<D::File>>, StorageError> {
        let name = file_name(id);
        let path = self.disk.describe(&name);
        let file = match self.disk.open(&name) {
            // A node that runs may have removed it since the names were read.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && identity.is_none() && !self.is_partial =>
            {
                return Ok(None);
            }
            opened => opened.doing(|| format!("open {path}"))?,
        };
        let header = match self.read(id, SegmentHeader::read(&file, id))? {
            Ok(header) => header,
            Err(problem) => {
                mark!("survey-finds-damaged-header");
                self.problem(match problem {
                    HeaderProblem::UnknownFormat(version) => {
                        StorageError::UnknownFormat { file: path, version }
                    }
                    HeaderProblem::Damage(what) => StorageError::Damage { file: path, offset: 0, what },
                })?;
                return Ok(None);
            }
        };
        if let Some(expected) = identity
            && header.identity != *expected
        {
            let (found, expected) = (header.identity.clone(), expected.clone());
            self.problem(StorageError::WrongDirectory { file: path, found, expected })?;
        }
        let activation = self.read(id, Activation::read(&file, &header))?;
        let is_kept = activation.is_none() && self.read(id, KeptBlock::read(&file, &header))?.is_some();
        Ok(Some(Candidate { file, header, activation, is_kept }))
    }

    /// Sorts the segments that the log rolled into from the others, and checks that none is missing.
    fn build_chain(&mut self, candidates: Vec<Candidate<D::File>>) -> Result<(), StorageError> {
        for mut candidate in candidates {
            let id = candidate.header.id;
            let limit = candidate.header.len_bytes;
            if candidate.is_kept || id < self.known.base.end.segment() {
                self.set_aside(candidate);
                continue;
            }
            if candidate.activation.is_none() {
                let rest = search_rest(&candidate.file, &candidate.header, u64::from(RECORDS_AT), limit);
                let rest = self.read(id, rest)?;
                let is_proven = rest.durable.segment() == id || self.found.proven.segment() == id;
                if is_proven || self.known.needed.contains(&id) {
                    // While a node runs, it may have rolled since its first page was read.
                    let again = Activation::read(&candidate.file, &candidate.header);
                    candidate.activation = self.read(id, again)?;
                    if candidate.activation.is_none() {
                        mark!("survey-finds-damaged-activation");
                        self.damage(id, ACTIVATION_AT, "no whole activation block".to_owned())?;
                        continue;
                    }
                } else {
                    mark!("survey-finds-unused-segment", !rest.is_used);
                    mark!("survey-finds-torn-activation", rest.is_used);
                    let why =
                        if rest.is_used { "nothing in it was ever flushed" } else { "it was not used yet" };
                    if rest.is_used {
                        let position = Position::new(id, ACTIVATION_AT as u32);
                        self.found
                            .torn
                            .push(TornTail { position, what: "no whole activation block".to_owned() });
                    }
                    self.found.leftovers.push(Leftover { name: file_name(id), why });
                    continue;
                }
            }
            let Candidate { file, header, activation: Some(activation), .. } = candidate else { continue };
            self.check_link(&header, &activation)?;
            self.found.proven = self.found.proven.max(activation.previous_end);
            self.found.segments.push(SegmentFile { file, header, activation });
        }
        let last = self.last_of_chain();
        if self.found.proven.segment() > last && !self.is_broken {
            let file = self.disk.describe(&file_name(self.found.proven.segment()));
            let named_by = "the hard state".to_owned();
            self.problem(StorageError::MissingSegment { file, named_by })?;
        }
        Ok(())
    }

    /// The last segment of the chain so far; the one in which the base is, should that be gone.
    fn last_of_chain(&self) -> SegmentId {
        let before = self.known.base.end.segment();
        self.found.segments.last().map_or(before, |segment| segment.header.id)
    }

    /// A segment that is no part of the log counts if some checkpoint refers to its contents, and if it is looked at
    /// alone.
    fn set_aside(&mut self, candidate: Candidate<D::File>) {
        let Candidate { mut file, header, is_kept, .. } = candidate;
        let id = header.id;
        if self.known.referred.contains(&id) || self.is_partial {
            file.seal();
            self.found.contents.insert(id, ContentsFile { file, header });
        } else {
            let why =
                if is_kept { "nothing refers to the contents in it" } else { "a checkpoint stands for it" };
            self.found.leftovers.push(Leftover { name: file_name(id), why });
        }
    }

    /// What the newest checkpoint refers to must be there.
    fn check_needed(&mut self) -> Result<(), StorageError> {
        for id in &self.known.needed {
            let is_in_log = self.found.segments.iter().any(|segment| segment.header.id == *id);
            if !is_in_log && !self.found.contents.contains_key(id) && !self.is_broken {
                let file = self.disk.describe(&file_name(*id));
                let named_by = "the newest checkpoint".to_owned();
                self.problem(StorageError::MissingSegment { file, named_by })?;
            }
        }
        Ok(())
    }

    /// Checks that the segment before this one is the one that its activation names.
    fn check_link(&mut self, header: &SegmentHeader, activation: &Activation) -> Result<(), StorageError> {
        let named = activation.previous_end.segment();
        let previous = self.last_of_chain();
        // The segment in which the base is needs none before it.
        let is_first = self.found.segments.is_empty() && header.id == previous;
        if is_first || named == previous || self.is_partial {
            return Ok(());
        }
        let is_there = self.found.leftovers.iter().any(|leftover| leftover.name == file_name(named));
        if is_there {
            return self.damage(named, ACTIVATION_AT, "no whole activation block".to_owned());
        }
        if named < header.id && named > previous {
            let named_by = format!("the activation of segment {}", header.id);
            let file = self.disk.describe(&file_name(named));
            return self.problem(StorageError::MissingSegment { file, named_by });
        }
        let what = format!("the segment before it is {previous}, by its activation block {named}");
        self.damage(header.id, ACTIVATION_AT, what)
    }

    fn walk_segment(&mut self, n: usize) -> Result<(), StorageError> {
        self.check_chain_state(n)?;
        let header = self.found.segments[n].header.clone();
        let sealed_end = self.found.segments.get(n + 1).map(|next| next.activation.previous_end);
        let sealed_end =
            sealed_end.filter(|end| end.segment() == header.id).map(|end| u64::from(end.offset()));
        let limit = sealed_end.unwrap_or(header.len_bytes).min(header.len_bytes);
        let base = self.known.base.end;
        let is_cut = base.segment() == header.id;
        let mut offset = u64::from(if is_cut { base.offset() } else { RECORDS_AT });
        while sealed_end.is_none() || offset < limit {
            let read = read_record(&self.found.segments[n].file, &header, offset, limit);
            match self.read(header.id, read)? {
                Ok((head, entry)) => {
                    self.accept(n, &head, &entry)?;
                    offset = head.end_offset();
                }
                Err(why) => match self.judge(n, offset, limit, sealed_end.is_some(), why)? {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        if sealed_end.is_some_and(|end| end != offset) && !self.is_broken {
            self.damage(
                header.id,
                offset,
                "the next segment begins behind another end of this one".to_owned(),
            )?;
        }
        self.found.end = Position::new(header.id, offset.min(limit) as u32);
        Ok(())
    }

    /// There is no record at `offset`: is that where the log ends, or damage? Gives where to go on, if anywhere.
    fn judge(
        &mut self,
        n: usize,
        offset: u64,
        limit: u64,
        is_sealed: bool,
        why: NoRecord,
    ) -> Result<Option<u64>, StorageError> {
        let SegmentFile { file, header, .. } = &self.found.segments[n];
        let header = header.clone();
        let place = Position::new(header.id, offset as u32);
        let rest = search_rest(file, &header, offset, limit);
        let rest = self.read(header.id, rest)?;
        let is_proven = self.found.proven.segment() == header.id && self.found.proven > place;
        let was_flushed = is_sealed || is_proven || rest.durable > place;
        if was_flushed && !mutant!("damage-is-torn-tail") {
            // While a node runs, the record may have been completed since.
            let again = read_record(&self.found.segments[n].file, &header, offset, limit);
            if self.read(header.id, again)?.is_ok() {
                return Ok(Some(offset));
            }
            mark!("survey-finds-damage-in-sealed-segment", is_sealed);
            mark!("survey-finds-damage-in-last-segment", !is_sealed);
            self.damage(header.id, offset, why.to_string())?;
            let behind = search_rest(&self.found.segments[n].file, &header, offset + 8, limit);
            return Ok(self.read(header.id, behind)?.next_record);
        }
        if rest.is_used {
            mark!("survey-finds-torn-tail");
            mark!("survey-finds-record-behind-torn-tail", rest.next_record.is_some());
            self.found.torn.push(TornTail { position: place, what: why.to_string() });
        }
        Ok(None)
    }

    /// The log before a segment must be as its activation says.
    fn check_chain_state(&mut self, n: usize) -> Result<(), StorageError> {
        let SegmentFile { header, activation, .. } = &self.found.segments[n];
        let table = &self.found.table;
        let is_same = activation.previous_last == table.last && activation.previous_stamp == table.last_stamp;
        let is_cut = header.id == self.known.base.end.segment();
        if is_same || is_cut || self.is_broken {
            return Ok(());
        }
        let what = format!(
            "the log before it ends with entry {} of term {}, by its activation block with entry {} of term {}",
            table.last.index, table.last.term, activation.previous_last.index, activation.previous_last.term
        );
        let id = header.id;
        self.damage(id, ACTIVATION_AT, what)
    }

    /// Takes a whole record into the table, if it may follow what is there.
    fn accept(&mut self, n: usize, head: &RecordHead, entry: &Entry) -> Result<(), StorageError> {
        if let Some(what) = self.check_sequence(n, head)?
            && !self.is_broken
        {
            let (id, offset) = (head.position.segment(), u64::from(head.position.offset()));
            self.damage(id, offset, what)?;
        }
        if !self.is_broken {
            self.found.table.set_last(head);
            self.found.proven = self.found.proven.max(head.durable);
        }
        self.found.records += 1;
        self.visitor.record(head, entry)
    }

    fn check_sequence(&self, n: usize, head: &RecordHead) -> Result<Option<String>, StorageError> {
        let table = &self.found.table;
        let segment = &self.found.segments[n];
        let EntryId { index, term } = head.id;
        if head.durable > head.position {
            return Ok(Some(format!("a record that calls {} durable", head.durable)));
        }
        let base = &table.base().entry;
        if index <= base.index || index > table.last.index.next() {
            return Ok(Some(format!("entry {index} behind entry {}", table.last.index)));
        }
        let is_first = head.position.offset() == RECORDS_AT;
        if is_first && index != segment.activation.first_index {
            let named = segment.activation.first_index;
            return Ok(Some(format!("entry {index} where the activation block names entry {named}")));
        }
        let (last_term, last_stamp) = if index == table.last.index.next() {
            (table.last.term, table.last_stamp)
        } else if index.previous() == base.index {
            (base.term, table.base().stamp)
        } else {
            let place = table.position(index.previous()).expect("the index is inside the table");
            match self.head_at(place)? {
                Some(before) => (before.id.term, before.stamp),
                None => return Ok(None),
            }
        };
        if term < last_term || head.stamp < last_stamp {
            return Ok(Some(format!(
                "entry {index} of term {term} behind an entry of term {last_term}, or its stamp is before that one's"
            )));
        }
        Ok(None)
    }

    fn head_at(&self, place: Position) -> Result<Option<RecordHead>, StorageError> {
        let id = place.segment();
        let Ok(n) = self.found.segments.binary_search_by_key(&id, |segment| segment.header.id) else {
            return Ok(None);
        };
        let segment = &self.found.segments[n];
        let limit = segment.header.len_bytes;
        let head = read_record_head(&segment.file, &segment.header, u64::from(place.offset()), limit);
        Ok(self.read(id, head)?.ok())
    }

    /// The log rolled into the last segment, but none of its records is whole: the first flush never ended, and
    /// the log ends where the segment before it does.
    fn drop_segment_without_records(&mut self) -> Result<(), StorageError> {
        let Some(last) = self.found.segments.last() else { return Ok(()) };
        let id = last.header.id;
        if self.is_broken || self.found.end != Position::new(id, RECORDS_AT) {
            return Ok(());
        }
        let end = last.activation.previous_end;
        if self.found.proven.segment() == id {
            return self.damage(id, u64::from(RECORDS_AT), "the segment holds no record".to_owned());
        }
        mark!("survey-drops-segment-without-records");
        self.found.segments.pop();
        if self.found.torn.is_empty() {
            let (position, what) = (Position::new(id, RECORDS_AT), "it holds no record".to_owned());
            self.found.torn.push(TornTail { position, what });
        }
        self.found.end = end;
        self.found.leftovers.push(Leftover { name: file_name(id), why: "nothing in it was ever flushed" });
        let Some(last) = self.found.segments.last() else { return Ok(()) };
        let (header, offset) = (&last.header, u64::from(end.offset()));
        let rest = self.read(header.id, search_rest(&last.file, header, offset, header.len_bytes))?;
        if rest.is_used {
            mark!("survey-finds-earlier-torn-tail");
            self.found.torn.push(TornTail { position: end, what: "an earlier torn tail".to_owned() });
        }
        Ok(())
    }

    fn check_log_end(&mut self) -> Result<(), StorageError> {
        let log_end = self.known.log_end;
        if self.is_broken || self.found.end >= log_end {
            return Ok(());
        }
        let (id, offset) = (self.found.end.segment(), u64::from(self.found.end.offset()));
        self.damage(id, offset, format!("the log ends before {log_end}, which was flushed"))
    }
}
