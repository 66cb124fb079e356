//! The index of the files, and the sessions of clients: what the committed log amounts to.
//!
//! The store is a function of the entries that were applied to it, and reads no clock: an entry carries its
//! cluster time as a stamp. Applying an entry first removes every file and session that is due at the stamp,
//! then does the entry's command; so all nodes lose the same at the same index. Contents stay in the log; the
//! store knows where.

pub mod image;
mod imaged_map;
pub mod items;
mod live;
pub mod names;
pub mod reference_model;
mod restoring;
mod sessions;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;

use fsd_wire::client::Refusal;
use fsd_wire::{
    ClusterTimeMs, Command, Entry, EntryKind, LogIndex, Operation, Payload, SessionCommand, SessionId,
    Version,
};

pub use image::ImageHead;
use imaged_map::ImagedMap;
use live::LiveContents;
pub use live::{Live, RECORD_OVERHEAD_BYTES, record_bytes};
pub use names::{FileName, NameError};
pub use restoring::{ImageError, Restoring};
use sessions::{Admission, Sessions};

use crate::marks::mark;
use crate::mutants::mutant;

/// Where the contents of a file lie: a position in the log of this node, which the store only keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentsAt(pub u64);

/// A file, without its name and its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// The value that the revision counter took when the file was written.
    pub version: Version,
    /// The size of the contents.
    pub size_bytes: u32,
    /// The CRC-32 of the contents.
    pub contents_crc: u32,
    /// The cluster time from which on the file is gone.
    pub due: Option<ClusterTimeMs>,
    /// The entry that wrote the file, as this node's log has it.
    pub contents: ContentsAt,
}

impl File {
    /// Seconds until the file is gone, rounded up; 0 for never. A file that is due but not yet removed has a
    /// second left, because 0 would say that it stays.
    #[must_use]
    pub fn expiry_seconds_left(&self, now: ClusterTimeMs) -> u64 {
        match self.due {
            None => 0,
            Some(due) => due.0.saturating_sub(now.0).div_ceil(1000).max(1),
        }
    }
}

/// What an entry did to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The entry carries no command.
    Nothing,
    /// The command was done, by this entry or, in a session, by an earlier one.
    Changed {
        /// The new version; for a delete, the revision of the delete.
        version: Version,
    },
    /// A session was opened.
    SessionOpened {
        /// Its name.
        session: SessionId,
        /// How long it lives without a sign of life, in milliseconds of cluster time.
        idle_ms: u64,
    },
    /// A session was kept alive or closed.
    SessionDone,
    /// The command was refused and changed nothing, except that a session was seen alive.
    Refused(Refusal),
}

/// A page of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<'a> {
    /// The files, in byte order of their names.
    pub files: Vec<(&'a str, &'a File)>,
    /// There are more behind the last one.
    pub more: bool,
}

/// All files as of one index of the log.
#[derive(Clone, Debug, Default)]
pub struct FileStore {
    files: ImagedMap<FileName, File>,
    /// The bytes of all their names.
    names_bytes: u64,
    /// The files that have an expiry, in the order in which they go.
    due: BTreeSet<(ClusterTimeMs, FileName)>,
    live: LiveContents,
    sessions: Sessions,
    revision: Version,
    last_applied: LogIndex,
    cluster_time: ClusterTimeMs,
    /// What the image that is being taken has come to.
    image: Option<image::Stage>,
}

impl FileStore {
    /// The store before the first entry of the log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the next committed entry, which lies at `at` in the log.
    ///
    /// # Panics
    /// If the entry is not the next one, its stamp goes back, or its command breaks the rules that
    /// [`validate`] holds before a proposal: the log is then not one that fsd wrote.
    pub fn apply(&mut self, entry: &Entry, at: ContentsAt) -> Applied {
        assert!(
            entry.index == self.last_applied.next(),
            "entry {} applied after {}",
            entry.index,
            self.last_applied
        );
        assert!(
            entry.stamp >= self.cluster_time,
            "the stamp of entry {} goes back from {} to {}",
            entry.index,
            self.cluster_time,
            entry.stamp
        );
        self.last_applied = entry.index;
        self.cluster_time = entry.stamp;
        self.expire();
        match entry.kind {
            EntryKind::Noop | EntryKind::Genesis | EntryKind::Register | EntryKind::Tick => Applied::Nothing,
            EntryKind::Command => self.apply_command(entry.index, &entry.payload, at),
            EntryKind::Session => self.apply_session(entry, at),
        }
    }

    /// The file of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&File> {
        self.files.get(name)
    }

    /// The first `limit` files whose names begin with `prefix` and lie behind `after`, in byte order. With
    /// the last name of one page as `after`, the next page goes on behind it, whatever changed meanwhile.
    #[must_use]
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> ListPage<'_> {
        let begin = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let mut found = self
            .files
            .range::<str, _>((begin, Bound::Unbounded))
            .map(|(name, file)| (name.as_str(), file))
            .take_while(|(name, _)| name.starts_with(prefix));
        let files = found.by_ref().take(limit).collect();
        ListPage { files, more: found.next().is_some() }
    }

    /// The cluster time at which the next file is due.
    #[must_use]
    pub fn next_file_due(&self) -> Option<ClusterTimeMs> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The cluster time at which the next session is due.
    #[must_use]
    pub fn next_session_due(&self) -> Option<ClusterTimeMs> {
        self.sessions.next_due()
    }

    /// The cluster time at which the next file or session is due.
    #[must_use]
    pub fn next_due(&self) -> Option<ClusterTimeMs> {
        self.next_file_due().into_iter().chain(self.next_session_due()).min()
    }

    /// Whether a session has ended, as far as this store can tell: one that has will never exist again.
    #[must_use]
    pub fn session_is_gone(&self, session: SessionId) -> bool {
        (session.0 <= self.last_applied.0 || mutant!("unknown-session-is-gone"))
            && !self.sessions.contains(session)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is live of a segment of the log.
    #[must_use]
    pub fn live(&self, segment: u32) -> Live {
        self.live.of(segment)
    }

    /// What is live of all segments.
    #[must_use]
    pub fn live_total(&self) -> Live {
        self.live.total()
    }

    /// The segments of which something is live, in the order of their ids.
    pub fn live_segments(&self) -> impl Iterator<Item = (u32, Live)> {
        self.live.segments()
    }

    /// The contents of a file were copied elsewhere: from now on they are there, if the file still has those. An image
    /// that is being taken keeps the place that they had when it was begun.
    pub fn move_contents(&mut self, name: &str, from: ContentsAt, to: ContentsAt) -> bool {
        let is_same = |file: &File| file.contents == from || mutant!("move-takes-newer-contents-back");
        let Some((name, file)) = self.files.get_key_value(name).filter(|(_, file)| is_same(file)) else {
            return false;
        };
        let (name, moved) = (name.clone(), File { contents: to, ..*file });
        self.live.remove(&name, file);
        self.live.add(&name, &moved);
        self.files.insert(name, moved);
        true
    }

    /// The revision counter: the version that the last successful change took.
    #[must_use]
    pub fn revision(&self) -> Version {
        self.revision
    }

    /// The entry as of which the store is.
    #[must_use]
    pub fn last_applied(&self) -> LogIndex {
        self.last_applied
    }

    /// The stamp of that entry: the store's own time.
    #[must_use]
    pub fn cluster_time(&self) -> ClusterTimeMs {
        self.cluster_time
    }

    /// A CRC-32 over everything that must be equal on all nodes that applied the same entries; where the
    /// contents lie need not be. Walks all files: not for use within a turn.
    #[must_use]
    pub fn digest(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        for number in [self.last_applied.0, self.cluster_time.0, self.revision.0] {
            crc.update(&number.to_le_bytes());
        }
        crc.update(&(self.files.len() as u64).to_le_bytes());
        for (name, file) in self.files.iter() {
            crc.update(name.as_str().as_bytes());
            // No name contains it, so a name's end cannot be taken for a version's beginning.
            crc.update(&[0, u8::from(file.due.is_some())]);
            for number in [file.version.0, file.due.map_or(0, |due| due.0)] {
                crc.update(&number.to_le_bytes());
            }
            for number in [file.size_bytes, file.contents_crc] {
                crc.update(&number.to_le_bytes());
            }
        }
        self.sessions.update_digest(&mut crc);
        crc.finalize()
    }

    /// Removes what is due. Expiries take no revision: no client's change is behind them.
    fn expire(&mut self) {
        while let Some((due, _)) = self.due.first()
            && (*due < self.cluster_time || *due == self.cluster_time && !mutant!("due-stays-at-its-moment"))
        {
            mark!("store-file-expires");
            mark!("store-file-expires-at-its-moment", *due == self.cluster_time);
            let (due, name) = self.due.pop_first().expect("one was there");
            let (_, file) = self.take(&name).expect("what is due exists");
            assert!(file.due == Some(due), "{name} is due at {due} and at {:?}", file.due);
        }
        if !mutant!("sessions-outlive-their-time") {
            self.sessions.expire(self.cluster_time);
        }
    }

    fn apply_session(&mut self, entry: &Entry, at: ContentsAt) -> Applied {
        let command = SessionCommand::decode(&entry.payload)
            .unwrap_or_else(|error| panic!("the session command of entry {}: {error}", entry.index));
        let (now, index) = (self.cluster_time, entry.index);
        let existed = match command {
            SessionCommand::Open { idle_ms, sessions_max } => {
                self.sessions.open(now, index, idle_ms, sessions_max);
                return Applied::SessionOpened { session: SessionId(index.0), idle_ms };
            }
            SessionCommand::Change { session, sequence, acknowledged, command } => {
                return match self.sessions.admit(now, index, session, sequence, acknowledged) {
                    Admission::Answered(applied) => applied,
                    Admission::New => {
                        let applied = self.apply_command(index, &command, at);
                        self.sessions.keep(session, sequence, &applied);
                        applied
                    }
                };
            }
            SessionCommand::KeepAlive { session, acknowledged } => {
                self.sessions.keep_alive(now, index, session, acknowledged)
            }
            SessionCommand::Close { session } => self.sessions.close(session),
        };
        if existed { Applied::SessionDone } else { Applied::Refused(Refusal::SessionGone) }
    }

    fn apply_command(&mut self, index: LogIndex, command: &Payload, at: ContentsAt) -> Applied {
        let command =
            Command::decode(command).unwrap_or_else(|error| panic!("the command of entry {index}: {error}"));
        let name = FileName::parse(&command.name)
            .unwrap_or_else(|error| panic!("the command of entry {index}: {error}"));
        match self.change(name, &command, at) {
            Ok(version) => Applied::Changed { version },
            Err(refusal) => Applied::Refused(refusal),
        }
    }

    fn change(&mut self, name: FileName, command: &Command, at: ContentsAt) -> Result<Version, Refusal> {
        let present = self.version_of(&name);
        match command.operation {
            Operation::Write { expiry_seconds } => self.put(name, &command.contents, expiry_seconds, at),
            Operation::Cas { expected, .. } if expected != present => {
                Err(Refusal::VersionMismatch { present })
            }
            Operation::Cas { expiry_seconds, .. } => self.put(name, &command.contents, expiry_seconds, at),
            Operation::Delete | Operation::DeleteIf { .. } if present == Version(0) => Err(Refusal::NotFound),
            Operation::DeleteIf { expected } if expected != present => {
                Err(Refusal::VersionMismatch { present })
            }
            Operation::Delete | Operation::DeleteIf { .. } => {
                self.remove(&name);
                if mutant!("delete-takes-no-version") {
                    return Ok(self.revision);
                }
                Ok(self.next_revision())
            }
        }
    }

    /// The version of the file of this name, 0 if there is none.
    fn version_of(&self, name: &FileName) -> Version {
        self.files.get(name).map_or(Version(0), |file| file.version)
    }

    /// Makes or overwrites the file, its expiry included.
    fn put(
        &mut self,
        name: FileName,
        contents: &[u8],
        expiry_seconds: u64,
        at: ContentsAt,
    ) -> Result<Version, Refusal> {
        if let Some(with) = self.conflict(&name) {
            return Err(Refusal::Conflict { with: with.to_string() });
        }
        self.remove(&name);
        let due = match expiry_seconds {
            0 => None,
            _ => Some(ClusterTimeMs(self.cluster_time.0.saturating_add(expiry_seconds.saturating_mul(1000)))),
        };
        if let Some(due) = due {
            self.due.insert((due, name.clone()));
        }
        let version = self.next_revision();
        let size_bytes = u32::try_from(contents.len()).expect("a payload is bounded far below");
        let contents_crc = crc32fast::hash(contents);
        let file = File { version, size_bytes, contents_crc, due, contents: at };
        self.live.add(&name, &file);
        self.names_bytes += name.as_str().len() as u64;
        self.files.insert(name, file);
        Ok(version)
    }

    /// The file that is in the way of `name`: one that would have to be a directory, or one below it. There
    /// is none if the file exists already: no conflict was let in. Costs a lookup for each directory.
    fn conflict(&self, name: &FileName) -> Option<&FileName> {
        if self.files.contains_key(name) {
            return None;
        }
        if let Some(above) = name.directories().find_map(|directory| self.files.get_key_value(directory)) {
            mark!("store-file-is-in-the-way-above");
            return Some(above.0);
        }
        // `a-b` sorts between `a` and `a/b`: the search begins behind the slash.
        let directory = format!("{name}/");
        let (below, _) =
            self.files.range::<str, _>((Bound::Included(&*directory), Bound::Unbounded)).next()?;
        mark!("store-file-is-in-the-way-below", below.as_str().starts_with(&directory));
        below.as_str().starts_with(&directory).then_some(below)
    }

    fn remove(&mut self, name: &FileName) {
        if let Some((name, file)) = self.take(name)
            && let Some(due) = file.due
        {
            mark!("store-file-goes-before-it-is-due");
            let was_there = self.due.remove(&(due, name));
            assert!(was_there, "a file with an expiry is among those that are due");
        }
    }

    /// Takes the file out of all but the files that are due.
    fn take(&mut self, name: &FileName) -> Option<(FileName, File)> {
        let (name, file) = self.files.remove_entry(name)?;
        self.live.remove(&name, &file);
        self.names_bytes -= name.as_str().len() as u64;
        Some((name, file))
    }

    fn next_revision(&mut self) -> Version {
        self.revision.0 += 1;
        self.revision
    }
}

/// Whether a command may be proposed: what [`FileStore::apply`] relies on, and the limit for contents.
///
/// # Errors
/// The refusal for the client.
pub fn validate(command: &Command, max_file_bytes: u64) -> Result<(), Refusal> {
    FileName::parse(&command.name)
        .map_err(|error| Refusal::InvalidName { reason: error.reason.to_string() })?;
    if command.contents.len() as u64 > max_file_bytes {
        return Err(Refusal::TooLarge { max_bytes: max_file_bytes });
    }
    Ok(())
}
