//! What the cluster has promised: the committed log, in the order in which any node first called its entries
//! committed, replayed through the reference model. Every answer that a client got is held against it.
//!
//! A definite answer to a change names the version that the change took, and so the one entry that made it: that
//! entry must be the client's own, and must have been committed between the request and the reply. A read must show
//! a state that the files had at some moment between its request and its reply. What was refused may never turn up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fsd::file_store::Applied;
use fsd::file_store::reference_model::ReferenceModel;
use fsd_history::CallId;
use fsd_wire::client::{FileInfo, Outcome, Refusal};
use fsd_wire::{
    ClusterTimeMs, Command, Entry, EntryId, EntryKind, Genesis, Incarnation, LogIndex, NodeId, Register,
    Sequence, SessionCommand, SessionId, Version,
};

use crate::record::Record;
use crate::session_log::{SessionLog, SessionQuestion};
use crate::simulation::Checked;

/// What a file was from an entry on: its version and contents, or nothing.
type FileState = Option<(Version, Bytes)>;

/// A request as its client remembers it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// What was asked for.
    pub(crate) what: Question,
    /// Entries that were committed by then.
    pub(crate) committed: LogIndex,
    /// Where it is recorded.
    pub(crate) call: Option<CallId>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Change(Command),
    Read(String),
    Stat(String),
    List,
    Session(SessionQuestion),
}

/// The committed log and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    entries: Vec<(EntryId, u32)>,
    model: ReferenceModel,
    results: Vec<Applied>,
    /// The entry that took each version, from version 1.
    by_version: Vec<LogIndex>,
    /// The states of each file, with the entries that brought them about.
    files: BTreeMap<String, Vec<(LogIndex, FileState)>>,
    due: BTreeMap<String, ClusterTimeMs>,
    commands: BTreeMap<LogIndex, Command>,
    /// Tags of the changes that were committed, and of those that were refused.
    committed_tags: BTreeSet<Bytes>,
    refused_tags: BTreeSet<Bytes>,
    registered: BTreeMap<NodeId, (Incarnation, LogIndex, bool)>,
    stamp: ClusterTimeMs,
    pub(crate) sessions: SessionLog,
    /// What was seen from outside.
    pub(crate) record: Record,
    /// Definite answers that were checked.
    pub(crate) answers: u64,
}

/// The first bytes of contents are a tag that no other change has.
pub(crate) const TAG_BYTES: usize = 8;

/// The tag of a change, if it has contents.
fn tag_of(command: &Command) -> Option<Bytes> {
    (command.contents.len() >= TAG_BYTES).then(|| command.contents.slice(..TAG_BYTES))
}

/// What must be equal where an entry is.
pub(crate) fn fingerprint(entry: &Entry) -> u32 {
    crc32fast::hash(&entry.header())
}

impl Witness {
    pub(crate) fn new(record: Record) -> Self {
        Self { record, ..Self::default() }
    }

    /// The last entry that is known to be committed.
    pub(crate) fn committed(&self) -> LogIndex {
        LogIndex(self.entries.len() as u64)
    }

    /// The committed entry at an index.
    pub(crate) fn id_at(&self, index: LogIndex) -> Option<EntryId> {
        if index == LogIndex(0) {
            return Some(EntryId::default());
        }
        self.entries.get(index.previous().0 as usize).map(|(id, _)| *id)
    }

    /// A node calls this entry committed, and others did before.
    pub(crate) fn check_again(&self, entry: &Entry) -> Result<(), String> {
        let (id, print) = self.entries[entry.index.previous().0 as usize];
        if (id, print) != (entry.id(), fingerprint(entry)) {
            return Err(format!("entry {:?} is committed where {id:?} is", entry.id()));
        }
        Ok(())
    }

    /// A node is the first to call this entry committed.
    pub(crate) fn commit(&mut self, entry: &Entry) -> Result<(), String> {
        let index = entry.index;
        assert_eq!(index, self.committed().next(), "entries are committed in their order");
        let before = self.entries.last().map_or(EntryId::default(), |(id, _)| *id);
        if entry.term < before.term || entry.stamp < self.stamp {
            return Err(format!("entry {:?}, stamp {} behind {before:?}", entry.id(), entry.stamp));
        }
        self.stamp = entry.stamp;
        self.entries.push((entry.id(), fingerprint(entry)));
        self.expire(index, entry.stamp);
        let applied = self.model.apply(entry);
        match entry.kind {
            EntryKind::Command => {
                let command = Command::decode(&entry.payload).map_err(|error| error.to_string())?;
                self.note_command(index, command, &applied)?;
            }
            EntryKind::Genesis => {
                let genesis = Genesis::decode(&entry.payload).map_err(|error| error.to_string())?;
                let members = genesis.incarnations.into_iter();
                self.registered.extend(members.map(|(node, inc)| (node, (inc, index, true))));
            }
            EntryKind::Register => {
                let Register { node, incarnation } =
                    Register::decode(&entry.payload).map_err(|error| error.to_string())?;
                let known = self.registered.get(&node).is_some_and(|(known, ..)| *known == incarnation);
                self.registered.insert(node, (incarnation, index, known));
            }
            EntryKind::Session => {
                let command = SessionCommand::decode(&entry.payload).map_err(|error| error.to_string())?;
                if let Some(made) = self.sessions.commit(index, command, &applied)? {
                    self.note_command(index, made, &applied)?;
                }
            }
            EntryKind::Noop | EntryKind::Tick => {}
        }
        self.results.push(applied);
        Ok(())
    }

    fn expire(&mut self, index: LogIndex, stamp: ClusterTimeMs) {
        if self.due.values().any(|due| *due <= stamp) {
            let gone: Vec<String> =
                self.due.iter().filter(|(_, due)| **due <= stamp).map(|(name, _)| name.clone()).collect();
            for name in gone {
                self.due.remove(&name);
                self.files.entry(name).or_default().push((index, None));
            }
        }
    }

    fn note_command(&mut self, index: LogIndex, command: Command, applied: &Applied) -> Result<(), String> {
        if let Some(tag) = tag_of(&command) {
            if self.refused_tags.contains(&tag) {
                return Err(format!("{command:?} was refused, and is committed as entry {index}"));
            }
            if !self.committed_tags.insert(tag) {
                return Err(format!("{command:?} is committed twice, the second time as entry {index}"));
            }
        }
        if let Applied::Changed { version } = applied {
            self.by_version.push(index);
            assert_eq!(version.0, self.by_version.len() as u64, "the model counts versions");
            let file = self.model.get(&command.name);
            let state = file.map(|file| (file.version, file.contents.clone()));
            match file.and_then(|file| file.due) {
                Some(due) => drop(self.due.insert(command.name.clone(), due)),
                None => drop(self.due.remove(&command.name)),
            }
            self.files.entry(command.name.clone()).or_default().push((index, state));
        }
        self.commands.insert(index, command);
        Ok(())
    }

    /// The entry that took a version.
    pub(crate) fn index_of(&self, version: Version) -> Option<LogIndex> {
        self.by_version.get(usize::try_from(version.0.checked_sub(1)?).ok()?).copied()
    }

    /// Where the committed log confirms an incarnation as its node's.
    pub(crate) fn confirmed_at(&self, node: NodeId, incarnation: Incarnation) -> Option<LogIndex> {
        let (known, index, confirmed) = self.registered.get(&node)?;
        (*known == incarnation && *confirmed).then_some(*index)
    }

    /// How many files and sessions there are, and the last version.
    pub(crate) fn totals(&self) -> (usize, usize, Version) {
        (self.model.files().len(), self.model.sessions().len(), self.model.revision())
    }

    /// All attempts of a change in a session were refused, and its client makes no more of them.
    pub(crate) fn refuse(&mut self, session: SessionId, sequence: Sequence) -> Checked {
        self.sessions.refuse(session, sequence)
    }

    /// A client was told this.
    pub(crate) fn check_answer(&mut self, asked: &Asked, outcome: &Outcome) -> Result<(), String> {
        let checked = match (&asked.what, outcome) {
            (
                _,
                Outcome::Refused(
                    Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Busy | Refusal::DiskFull { .. },
                ),
            ) => {
                if let Question::Change(command) = &asked.what
                    && let Some(tag) = tag_of(command)
                {
                    if self.committed_tags.contains(&tag) {
                        return Err(format!("{command:?} was refused and is committed"));
                    }
                    self.refused_tags.insert(tag);
                }
                return Ok(());
            }
            (_, Outcome::Refused(Refusal::Unknown)) => return Ok(()),
            (Question::Session(question), outcome) => self.check_session(asked, question, outcome),
            (Question::Change(command), outcome) => self.check_change(asked, command, outcome),
            (Question::Read(name), Outcome::Read { version, contents, .. }) => {
                self.check_file(asked, name, Some(*version), Some(contents))
            }
            (Question::Stat(name), Outcome::Stat(info)) if info.name == *name => {
                self.check_file(asked, name, Some(info.version), None)
            }
            (Question::Read(name) | Question::Stat(name), Outcome::Refused(Refusal::NotFound)) => {
                self.check_file(asked, name, None, None)
            }
            (Question::List, Outcome::Listed { files, more: false }) => self.check_list(asked, files),
            _ => Err("no such answer to it".to_owned()),
        };
        self.answers += 1;
        checked.map_err(|what| format!("{asked:?} was answered {outcome:?}: {what}"))
    }

    fn check_session(&mut self, asked: &Asked, question: &SessionQuestion, outcome: &Outcome) -> Checked {
        let model = &self.model;
        let lives = |id| model.sessions().iter().any(|session| session.session == id);
        let made_by = self.sessions.check(question, asked.committed, outcome, lives)?;
        match (question, made_by) {
            (SessionQuestion::Change(.., command), Some(index))
                if self.commands.get(&index) != Some(command) =>
            {
                Err(format!("entry {index} is {:?}", self.commands.get(&index)))
            }
            _ => Ok(()),
        }
    }

    fn check_change(&self, asked: &Asked, command: &Command, outcome: &Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Changed { version } => {
                let index = self.index_of(*version).ok_or("no committed entry took that version")?;
                if index <= asked.committed {
                    return Err(format!("entry {index} is older than the request"));
                }
                if self.commands.get(&index) != Some(command) {
                    return Err(format!("entry {index} is {:?}", self.commands.get(&index)));
                }
                Ok(())
            }
            Outcome::Refused(refusal) => {
                let expected = Applied::Refused(refusal.clone());
                let found = self
                    .commands
                    .range(asked.committed.next()..)
                    .any(|(index, other)| other == command && self.results[index.0 as usize - 1] == expected);
                if found { Ok(()) } else { Err("no committed entry was refused so".to_owned()) }
            }
            _ => Err("no such answer to it".to_owned()),
        }
    }

    fn check_file(
        &self,
        asked: &Asked,
        name: &str,
        version: Option<Version>,
        contents: Option<&Bytes>,
    ) -> Result<(), String> {
        let fits = |state: &FileState| match (state, version) {
            (None, None) => true,
            (Some((is, bytes)), Some(seen)) => {
                *is == seen && contents.is_none_or(|contents| contents == bytes)
            }
            _ => false,
        };
        if self.states_since(name, asked.committed).any(|(_, state)| fits(state)) {
            return Ok(());
        }
        let states: Vec<_> = self
            .states_since(name, asked.committed)
            .map(|(index, state)| (index, state.as_ref().map(|s| s.0)))
            .collect();
        Err(format!("since entry {} it was {states:?}", asked.committed))
    }

    /// The state of a file as of an entry, and all that came after.
    fn states_since(
        &self,
        name: &str,
        index: LogIndex,
    ) -> impl Iterator<Item = (LogIndex, &FileState)> + use<'_> {
        const NONE: &FileState = &None;
        let states = self.files.get(name).map_or(&[][..], |states| &states[..]);
        let behind = states.partition_point(|(at, _)| *at <= index);
        let first =
            behind.checked_sub(1).map_or((LogIndex(0), NONE), |last| (states[last].0, &states[last].1));
        std::iter::once(first).chain(states[behind..].iter().map(|(at, state)| (*at, state)))
    }

    fn check_list(&self, asked: &Asked, files: &[FileInfo]) -> Result<(), String> {
        let listed: Vec<(&str, Version)> =
            files.iter().map(|info| (info.name.as_str(), info.version)).collect();
        let mut index = asked.committed;
        loop {
            let there = self.files.keys().filter_map(|name| {
                let states = &self.files[name];
                let behind = states.partition_point(|(at, _)| *at <= index);
                let (_, state) = states.get(behind.checked_sub(1)?)?;
                state.as_ref().map(|(version, _)| (name.as_str(), *version))
            });
            if there.eq(listed.iter().copied()) {
                return Ok(());
            }
            if index == self.committed() {
                return Err("the files were never so meanwhile".to_owned());
            }
            index = index.next();
        }
    }
}
