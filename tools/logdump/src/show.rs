//! What was found, as text or as JSON lines.

use std::io::{self, Write};

use fsd::mapping::{Disk, MappedFile};
use fsd::storage::inspect::{InspectedRecord, InspectedSegment, Inspection, SegmentPart};
use fsd::storage::{Leftover, StorageError, TornTail, segment};
use fsd_wire::Entry;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::describe::{Described, hex, kind_name};

/// Details that are numbers in JSON as well; the others are text, because not every reader of JSON can hold them.
const NUMBERS: [&str; 8] =
    ["acknowledged", "expected", "expiry_seconds", "idle_ms", "node", "sequence", "session", "sessions_max"];

/// How to show it.
pub(crate) struct Show {
    pub(crate) json: bool,
    pub(crate) contents: bool,
    pub(crate) files: bool,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Show {
    /// Shows the checkpoints and the records, and what is wrong where it lies. Tells whether all that it read was sound.
    pub(crate) fn entries<D: Disk>(
        &self,
        inspection: &Inspection<D>,
        problems: &[StorageError],
        out: &mut dyn Write,
    ) -> Result<bool, Failure> {
        let mut is_sound = true;
        let mut problems: Vec<Option<&StorageError>> = problems.iter().map(Some).collect();
        for checkpoint in &inspection.checkpoints {
            self.checkpoint(&inspection.disk, checkpoint, out)?;
            self.problems_in(&checkpoint.name, u64::MAX, &mut problems, out)?;
        }
        for segment in inspection.contents.iter().chain(&inspection.segments) {
            self.contents_segment(segment, out)?;
            for record in &segment.records {
                let before = u64::from(record.head.position.offset());
                self.problems_in(&segment.name, before, &mut problems, out)?;
                if (self.from..=self.to).contains(&record.head.id.index.0) {
                    is_sound &= self.record(segment, record, out)?;
                }
            }
            self.problems_in(&segment.name, u64::MAX, &mut problems, out)?;
        }
        for problem in problems.into_iter().flatten() {
            self.problem(problem, out)?;
        }
        self.torn(&inspection.torn, out)?;
        self.what_a_start_mends(inspection, out)?;
        Ok(is_sound)
    }

    /// Shows a segment that is there for the contents in it.
    fn contents_segment<F>(&self, segment: &InspectedSegment<F>, out: &mut dyn Write) -> io::Result<()> {
        let Some(part) = part_name(segment.part) else { return Ok(()) };
        let (name, bytes, records) = (&segment.name, segment.header.len_bytes, segment.records.len());
        if self.json {
            let object = json!({ "contents": name, "part": part, "bytes": bytes, "records": records });
            return writeln!(out, "{object}");
        }
        let why = match segment.part {
            SegmentPart::Kept => "a kept segment, no part of the log",
            _ => "no part of the log any more",
        };
        writeln!(out, "contents {name}: {bytes} bytes, {records} records, {why}")
    }

    /// Shows the problems of a file that lie at or before an offset, and takes them off the list.
    fn problems_in(
        &self,
        name: &str,
        offset_max: u64,
        problems: &mut [Option<&StorageError>],
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        for problem in problems {
            if let Some(StorageError::Damage { file, offset, .. }) = problem
                && *offset <= offset_max
                && file.ends_with(name)
                && let Some(problem) = problem.take()
            {
                self.problem(problem, out)?;
            }
        }
        Ok(())
    }

    pub(crate) fn problem(&self, problem: &StorageError, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.json {
            writeln!(out, "DAMAGE {problem}")?;
            return Ok(());
        }
        let mut object = json!({ "damage": problem.to_string() });
        if let StorageError::Damage { file, offset, what } = problem {
            object = json!({ "damage": what, "file": file, "offset": offset });
        }
        writeln!(out, "{object}")?;
        Ok(())
    }

    /// Shows what is no damage, besides torn tails, and is not there any more after the next start.
    fn what_a_start_mends<D: Disk>(
        &self,
        inspection: &Inspection<D>,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        for Leftover { name, why } in &inspection.leftovers {
            if self.json {
                writeln!(out, "{}", json!({ "file": name, "unused": why }))?;
            } else if inspection.is_whole {
                writeln!(out, "leftover {name}: {why}; the next start removes it")?;
            } else {
                writeln!(out, "leftover {name}: {why}")?;
            }
        }
        if let Some(slots) = &inspection.hard_state {
            self.bad_slots(slots, out)?;
        }
        Ok(())
    }

    fn torn(&self, torn: &[TornTail], out: &mut dyn Write) -> Result<(), Failure> {
        for TornTail { position, what } in torn {
            let (name, offset) = (segment::file_name(position.segment()), position.offset());
            if self.json {
                writeln!(out, "{}", json!({ "torn_tail": what, "file": name, "offset": offset }))?;
            } else {
                writeln!(out, "torn tail {name}: from offset {offset} on, recovery would cut it: {what}")?;
            }
        }
        Ok(())
    }

    fn record<F: MappedFile>(
        &self,
        segment: &InspectedSegment<F>,
        record: &InspectedRecord,
        out: &mut dyn Write,
    ) -> Result<bool, Failure> {
        match segment.entry(record) {
            Ok(entry) if self.json => writeln!(out, "{}", self.json_of(segment, record, &entry))?,
            Ok(entry) => self.write_line(segment.part, record, &entry, out)?,
            Err(error) => {
                self.problem(&error, out)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_line(
        &self,
        part: SegmentPart,
        record: &InspectedRecord,
        entry: &Entry,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        // Whoever reads the log's lines takes none of these for one.
        if let Some(part) = part_name(part) {
            write!(out, "{part} ")?;
        }
        let (segment, offset) = (record.head.position.segment(), record.head.position.offset());
        let (kind, size) = (kind_name(entry.kind), entry.payload.len());
        let described = Described::of(entry);
        let operation = described.operation;
        let name = described.name.as_deref().map_or("-".to_owned(), |name| name.escape_debug().to_string());
        write!(out, "{segment} {offset} {} {} {kind} {size} {operation} {name}", entry.index, entry.term)?;
        for (key, value) in &described.details {
            write!(out, " {key}={value}")?;
        }
        if record.is_superseded {
            write!(out, " superseded")?;
        }
        writeln!(out)?;
        if self.contents
            && let Some(contents) = &described.contents
        {
            writeln!(out, "    \"{}\"", contents.escape_ascii())?;
        }
        Ok(())
    }

    fn json_of<F>(&self, segment: &InspectedSegment<F>, record: &InspectedRecord, entry: &Entry) -> Value {
        let described = Described::of(entry);
        let mut object = json!({
            "segment": segment.header.id.0,
            "file": segment.name,
            "offset": record.head.position.offset(),
            "term": entry.term.0,
            "stamp_ms": entry.stamp.0,
            "kind": kind_name(entry.kind),
            "size": entry.payload.len(),
            "operation": Value::Null,
            "name": described.name,
        });
        match part_name(segment.part) {
            None => {
                object["index"] = entry.index.0.into();
                object["superseded"] = record.is_superseded.into();
            }
            // What has an index is an entry of the log.
            Some(part) => {
                object["part"] = part.into();
                object["entry"] = entry.index.0.into();
            }
        }
        if described.operation != "-" {
            object["operation"] = described.operation.into();
        }
        for (key, value) in described.details {
            let is_number = NUMBERS.contains(&key);
            let number = is_number.then(|| value.parse::<u64>().ok()).flatten();
            object[key] = number.map_or(Value::String(value), Value::from);
        }
        if let Some(contents) = described.contents {
            object["contents_bytes"] = contents.len().into();
            if self.contents {
                match std::str::from_utf8(&contents) {
                    Ok(text) => object["contents"] = text.into(),
                    Err(_) => object["contents_hex"] = hex(&contents).into(),
                }
            }
        }
        object
    }

    /// Shows a summary of each checkpoint and each segment, and what is wrong.
    pub(crate) fn statistics<D: Disk>(
        &self,
        inspection: &Inspection<D>,
        problems: &[StorageError],
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        for checkpoint in &inspection.checkpoints {
            self.checkpoint(&inspection.disk, checkpoint, out)?;
        }
        for segment in inspection.contents.iter().chain(&inspection.segments) {
            self.statistics_of(segment, out)?;
        }
        self.what_a_start_mends(inspection, out)?;
        for problem in problems {
            self.problem(problem, out)?;
        }
        self.torn(&inspection.torn, out)
    }

    fn statistics_of<F>(&self, segment: &InspectedSegment<F>, out: &mut dyn Write) -> io::Result<()> {
        let records = &segment.records;
        let indexes = || records.iter().map(|record| record.head.id.index.0);
        let terms = || records.iter().map(|record| record.head.id.term.0);
        let numbers = [
            ("segment", u64::from(segment.header.id.0)),
            ("bytes", segment.header.len_bytes),
            ("used_bytes", records.last().map_or(u64::from(segment::RECORDS_AT), |r| r.head.end_offset())),
            ("entries", records.len() as u64),
            ("superseded", records.iter().filter(|record| record.is_superseded).count() as u64),
            ("payload_bytes", records.iter().map(|record| record.head.payload_bytes as u64).sum()),
            ("first_index", indexes().min().unwrap_or(0)),
            ("last_index", indexes().max().unwrap_or(0)),
            ("first_term", terms().min().unwrap_or(0)),
            ("last_term", terms().max().unwrap_or(0)),
        ];
        let part = part_name(segment.part);
        if self.json {
            let mut object = Map::new();
            object.insert("file".to_owned(), segment.name.as_str().into());
            object.extend(part.map(|part| ("part".to_owned(), part.into())));
            object.extend(numbers.map(|(key, number)| (key.to_owned(), number.into())));
            return writeln!(out, "{}", Value::Object(object));
        }
        if let Some(part) = part {
            write!(out, "{part} ")?;
        }
        write!(out, "{}:", segment.name)?;
        for (key, number) in numbers {
            write!(out, " {key}={number}")?;
        }
        writeln!(out)
    }
}

/// What a segment's lines begin with that is no part of the log.
fn part_name(part: SegmentPart) -> Option<&'static str> {
    match part {
        SegmentPart::Log => None,
        SegmentPart::Past => Some("past"),
        SegmentPart::Kept => Some("kept"),
    }
}
