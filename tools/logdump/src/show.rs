//! What was found, as text or as JSON lines.

use std::fmt::Write as _;
use std::io::{self, Write};

use fsd::mapping::{Disk, MappedFile};
use fsd::storage::hard_state::{HARD_STATE_NAME, Slot, StoredState};
use fsd::storage::inspect::{InspectedRecord, InspectedSegment, Inspection, inspect_hard_state};
use fsd::storage::{StorageError, TornTail, segment};
use fsd_wire::{Command, DecodeError, Entry, EntryKind, Genesis, Operation, Register, SessionCommand};
use serde_json::{Map, Value, json};

use crate::Failure;

/// Details that are numbers in JSON as well; the others are text, because not every reader of JSON can hold them.
const NUMBERS: [&str; 8] =
    ["acknowledged", "expected", "expiry_seconds", "idle_ms", "node", "sequence", "session", "sessions_max"];

/// How to show it.
pub(crate) struct Show {
    pub(crate) json: bool,
    pub(crate) contents: bool,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Show {
    /// Shows the entries, and what is wrong where it lies. Tells whether all that it read was sound.
    pub(crate) fn entries<F: MappedFile>(
        &self,
        inspection: &Inspection<F>,
        out: &mut dyn Write,
    ) -> Result<bool, Failure> {
        let mut is_sound = true;
        self.checkpoints(inspection, out)?;
        let mut problems: Vec<Option<&StorageError>> = inspection.problems.iter().map(Some).collect();
        for segment in &inspection.segments {
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
        Ok(is_sound)
    }

    /// Shows what stands for the beginning of the log.
    fn checkpoints<F>(&self, inspection: &Inspection<F>, out: &mut dyn Write) -> Result<(), Failure> {
        for head in &inspection.checkpoints {
            let (name, entry) = (head.name(), head.entry);
            if self.json {
                let object = json!({
                    "checkpoint": name, "entry": entry.index.0, "term": entry.term.0, "files": head.files,
                    "sessions": head.sessions, "revision": head.revision, "log_goes_on_at": head.log_end.to_string(),
                });
                writeln!(out, "{object}")?;
            } else {
                writeln!(
                    out,
                    "checkpoint {name}: {} files and {} sessions as of entry {} of term {}; the log goes on at {}",
                    head.files, head.sessions, entry.index, entry.term, head.log_end
                )?;
            }
        }
        for segment in &inspection.contents {
            if self.json {
                writeln!(out, "{}", json!({ "contents": segment.name, "bytes": segment.len_bytes }))?;
            } else {
                writeln!(out, "contents {}: {} bytes, no part of the log", segment.name, segment.len_bytes)?;
            }
        }
        Ok(())
    }

    /// Shows the problems of a segment that lie at or before an offset, and takes them off the list.
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

    fn problem(&self, problem: &StorageError, out: &mut dyn Write) -> Result<(), Failure> {
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
            Ok(entry) => self.write_line(record, &entry, out)?,
            Err(error) => {
                self.problem(&error, out)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_line(&self, record: &InspectedRecord, entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
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
            "index": entry.index.0,
            "term": entry.term.0,
            "stamp_ms": entry.stamp.0,
            "kind": kind_name(entry.kind),
            "size": entry.payload.len(),
            "operation": Value::Null,
            "name": described.name,
            "superseded": record.is_superseded,
        });
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

    /// Shows a summary of each segment, and what is wrong.
    pub(crate) fn statistics<F: MappedFile>(
        &self,
        inspection: &Inspection<F>,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        for segment in &inspection.segments {
            self.statistics_of(segment, out)?;
        }
        for leftover in &inspection.leftovers {
            if self.json {
                writeln!(out, "{}", json!({ "file": leftover.name, "unused": leftover.why }))?;
            } else {
                writeln!(out, "{}: not part of the log: {}", leftover.name, leftover.why)?;
            }
        }
        for problem in &inspection.problems {
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
        if self.json {
            let mut object = Map::new();
            object.insert("file".to_owned(), segment.name.as_str().into());
            object.extend(numbers.map(|(key, number)| (key.to_owned(), number.into())));
            return writeln!(out, "{}", Value::Object(object));
        }
        write!(out, "{}:", segment.name)?;
        for (key, number) in numbers {
            write!(out, " {key}={number}")?;
        }
        writeln!(out)
    }

    /// Shows the hard state. Tells whether there is a good one, or none yet.
    pub(crate) fn hard_state<D: Disk>(&self, disk: &D, out: &mut dyn Write) -> Result<bool, Failure> {
        let Some(slots) = inspect_hard_state(disk)? else {
            let text = format!("{}: not there: no node ever ran here", disk.describe(HARD_STATE_NAME));
            if self.json {
                writeln!(out, "{}", json!({ "hard_state": Value::Null }))?;
            } else {
                writeln!(out, "{text}")?;
            }
            return Ok(true);
        };
        let good = |slot: &Slot| match slot {
            Slot::Good { sequence, stored } => Some((*sequence, stored.clone())),
            _ => None,
        };
        let present = slots.iter().filter_map(good).max_by_key(|(sequence, _)| *sequence);
        for (n, slot) in slots.iter().enumerate() {
            let what = match slot {
                Slot::Good { .. } => continue,
                Slot::UnknownFormat(version) => format!("format version {version} is not known"),
                Slot::Bad(what) => (*what).to_owned(),
            };
            if self.json {
                writeln!(out, "{}", json!({ "bad_slot": n, "what": what }))?;
            } else {
                writeln!(out, "slot {n} is not whole: {what}")?;
            }
        }
        if let Some((sequence, stored)) = &present {
            self.stored_state(*sequence, stored, out)?;
        } else {
            writeln!(io::stderr(), "logdump: neither slot of {} is whole", disk.describe(HARD_STATE_NAME))?;
        }
        Ok(present.is_some())
    }

    fn stored_state(&self, sequence: u64, stored: &StoredState, out: &mut dyn Write) -> io::Result<()> {
        let StoredState { identity, state, log_end } = stored;
        let voted_for = state.voted_for.map(|node| node.0);
        let cluster_id = state.cluster_id.map(|id| format!("{:032x}", id.0));
        let incarnation = format!("{:016x}", state.incarnation.0);
        let log_end = log_end.to_string();
        if self.json {
            let met = state.met.iter().map(|(node, (incarnation, life))| {
                json!({ "node": node.0, "incarnation": format!("{:016x}", incarnation.0), "life": life.count() })
            });
            let object = json!({
                "term": state.term.0,
                "voted_for": voted_for,
                "node": identity.node.0,
                "cluster": identity.cluster,
                "cluster_id": cluster_id,
                "incarnation": incarnation,
                "life": state.life.count(),
                "log_end_at_start": log_end,
                "sequence": sequence,
                "met": met.collect::<Vec<_>>(),
            });
            return writeln!(out, "{object}");
        }
        writeln!(out, "term {}", state.term)?;
        writeln!(out, "voted_for {}", voted_for.map_or("-".to_owned(), |node| node.to_string()))?;
        writeln!(out, "node {}", identity.node)?;
        writeln!(out, "cluster {}", identity.cluster)?;
        writeln!(out, "cluster_id {}", cluster_id.as_deref().unwrap_or("-"))?;
        writeln!(out, "incarnation {incarnation}")?;
        writeln!(out, "life {}", state.life.count())?;
        writeln!(out, "log_end_at_start {log_end}")?;
        writeln!(out, "sequence {sequence}")?;
        for (node, (incarnation, life)) in &state.met {
            writeln!(out, "met {node} incarnation {:016x} life {}", incarnation.0, life.count())?;
        }
        Ok(())
    }
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Noop => "noop",
        EntryKind::Genesis => "genesis",
        EntryKind::Register => "register",
        EntryKind::Tick => "tick",
        EntryKind::Command => "command",
        EntryKind::Session => "session",
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What an entry's payload says, in words.
struct Described {
    operation: &'static str,
    name: Option<String>,
    details: Vec<(&'static str, String)>,
    contents: Option<bytes::Bytes>,
}

impl Described {
    fn of(entry: &Entry) -> Self {
        let described = match entry.kind {
            EntryKind::Noop | EntryKind::Tick => Ok(Self::empty("-")),
            EntryKind::Command => Command::decode(&entry.payload).map(Self::of_command),
            EntryKind::Session => SessionCommand::decode(&entry.payload).and_then(Self::of_session),
            EntryKind::Genesis => Genesis::decode(&entry.payload).map(|genesis| {
                let members = genesis.incarnations.iter();
                let members: Vec<_> =
                    members.map(|(node, incarnation)| format!("{node}:{:016x}", incarnation.0)).collect();
                let mut described = Self::empty("-");
                described.details.push(("cluster_id", format!("{:032x}", genesis.cluster_id.0)));
                described.details.push(("incarnations", members.join(",")));
                described
            }),
            EntryKind::Register => Register::decode(&entry.payload).map(|register| {
                let mut described = Self::empty("-");
                described.details.push(("node", register.node.to_string()));
                described.details.push(("incarnation", format!("{:016x}", register.incarnation.0)));
                described
            }),
        };
        described.unwrap_or_else(|error| {
            let mut described = Self::empty("unknown");
            described.details.push(("payload", error.to_string()));
            described
        })
    }

    fn empty(operation: &'static str) -> Self {
        Self { operation, name: None, details: Vec::new(), contents: None }
    }

    /// A session's operation; for a change the command's, with the session's numbers behind it.
    fn of_session(command: SessionCommand) -> Result<Self, DecodeError> {
        Ok(match command {
            SessionCommand::Open { idle_ms, sessions_max } => {
                Self::empty("open").with("idle_ms", idle_ms).with("sessions_max", sessions_max)
            }
            SessionCommand::KeepAlive { session, acknowledged } => {
                Self::empty("keep-alive").with("session", session).with("acknowledged", acknowledged)
            }
            SessionCommand::Close { session } => Self::empty("close").with("session", session),
            SessionCommand::Change { session, sequence, acknowledged, command } => {
                Self::of_command(Command::decode(&command)?)
                    .with("session", session)
                    .with("sequence", sequence)
                    .with("acknowledged", acknowledged)
            }
        })
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.details.push((key, value.to_string()));
        self
    }

    fn of_command(command: Command) -> Self {
        let (operation, expected, expiry_seconds) = match command.operation {
            Operation::Write { expiry_seconds } => ("write", None, expiry_seconds),
            Operation::Cas { expected, expiry_seconds } => ("cas", Some(expected), expiry_seconds),
            Operation::Delete => ("delete", None, 0),
            Operation::DeleteIf { expected } => ("delete-if", Some(expected), 0),
        };
        let mut described = Self::empty(operation);
        described.name = Some(command.name);
        if let Some(expected) = expected {
            described.details.push(("expected", expected.to_string()));
        }
        if expiry_seconds != 0 {
            described.details.push(("expiry_seconds", expiry_seconds.to_string()));
        }
        if matches!(operation, "write" | "cas") {
            described.contents = Some(command.contents);
        }
        described
    }
}
