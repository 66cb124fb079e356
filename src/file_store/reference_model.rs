//! The file store once more, so simply that it is obviously right: what the real one and whole clusters are
//! compared with. It keeps the contents, and looks at every file and every session for everything.

use bytes::Bytes;
use fsd_wire::client::Refusal;
use fsd_wire::{
    ClusterTimeMs, Command, Entry, EntryKind, Operation, Payload, Sequence, SessionCommand, SessionId,
    Version,
};

use super::Applied;
use crate::limits;

/// A file of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// The cluster time from which on it is gone.
    pub due: Option<ClusterTimeMs>,
    /// Its contents.
    pub contents: Bytes,
}

/// A session of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSession {
    /// Its name.
    pub session: SessionId,
    /// How long it lives without a sign of life.
    pub idle_ms: u64,
    /// The cluster time at which it ends.
    pub due: ClusterTimeMs,
    /// Up to here the client needs no reply.
    pub acknowledged: Sequence,
    /// The replies behind that, in the order in which the changes were made.
    pub replies: Vec<(Sequence, Applied)>,
}

impl ModelSession {
    /// What its replies count.
    fn replies_bytes(&self) -> usize {
        let bytes = |(_, reply): &(Sequence, Applied)| match reply {
            Applied::Refused(Refusal::Conflict { with }) => limits::SESSION_REPLY_BYTES + with.len(),
            _ => limits::SESSION_REPLY_BYTES,
        };
        self.replies.iter().map(bytes).sum()
    }
}

/// The model: its files in no particular order, the revision counter, and the sessions.
#[derive(Clone, Debug)]
pub struct ReferenceModel {
    files: Vec<ModelFile>,
    revision: u64,
    /// The one that was used longest ago is the first.
    sessions: Vec<ModelSession>,
    pub(super) replies_bytes_max: usize,
}

impl Default for ReferenceModel {
    fn default() -> Self {
        let replies_bytes_max = limits::SESSION_REPLIES_BYTES_MAX;
        Self { files: Vec::new(), revision: 0, sessions: Vec::new(), replies_bytes_max }
    }
}

impl ReferenceModel {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an entry.
    ///
    /// # Panics
    /// If the entry's command, or session command, does not decode.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        self.files.retain(|file| file.due.is_none_or(|due| due > entry.stamp));
        self.sessions.retain(|session| session.due > entry.stamp);
        match entry.kind {
            EntryKind::Command => {
                let command = Command::decode(&entry.payload).expect("the model is fed good commands");
                self.change(entry, command)
            }
            EntryKind::Session => {
                let command = SessionCommand::decode(&entry.payload).expect("the model is fed good commands");
                self.in_session(entry, command)
            }
            _ => Applied::Nothing,
        }
    }

    fn in_session(&mut self, entry: &Entry, command: SessionCommand) -> Applied {
        if let SessionCommand::Open { idle_ms, sessions_max } = command {
            let surplus = (self.sessions.len() + 1).saturating_sub(sessions_max as usize);
            self.sessions.drain(..surplus.min(self.sessions.len()));
            let session = SessionId(entry.index.0);
            let due = ClusterTimeMs(entry.stamp.0.saturating_add(idle_ms));
            let (acknowledged, replies) = (Sequence(0), Vec::new());
            self.sessions.push(ModelSession { session, idle_ms, due, acknowledged, replies });
            return Applied::SessionOpened { session, idle_ms };
        }
        let same = |session: &ModelSession| Some(session.session) == command.session();
        let Some(at) = self.sessions.iter().position(same) else {
            return Applied::Refused(Refusal::SessionGone);
        };
        let mut session = self.sessions.remove(at);
        session.due = ClusterTimeMs(entry.stamp.0.saturating_add(session.idle_ms));
        let (applied, kept) = match command {
            SessionCommand::Open { .. } => unreachable!("it was done above"),
            SessionCommand::Close { .. } => return Applied::SessionDone,
            SessionCommand::KeepAlive { acknowledged, .. } => {
                session.acknowledged = session.acknowledged.max(acknowledged);
                (Applied::SessionDone, None)
            }
            SessionCommand::Change { sequence, acknowledged, command, .. } => {
                session.acknowledged = session.acknowledged.max(acknowledged);
                self.session_change(entry, &session, sequence, &command)
            }
        };
        session.replies.extend(kept);
        session.replies.retain(|(sequence, _)| *sequence > session.acknowledged);
        self.sessions.push(session);
        while self.sessions.iter().map(ModelSession::replies_bytes).sum::<usize>() > self.replies_bytes_max {
            self.sessions.remove(0);
        }
        applied
    }

    /// A session's change: what answers it, and what is to be kept of it.
    fn session_change(
        &mut self,
        entry: &Entry,
        session: &ModelSession,
        sequence: Sequence,
        command: &Payload,
    ) -> (Applied, Option<(Sequence, Applied)>) {
        if sequence <= session.acknowledged {
            let reason = format!("change {sequence} of session {} is already acknowledged", session.session);
            return (Applied::Refused(Refusal::BadRequest { reason }), None);
        }
        if let Some((_, first)) = session.replies.iter().find(|(known, _)| *known == sequence) {
            return (first.clone(), None);
        }
        if sequence.0 > session.acknowledged.0 + limits::SESSION_WINDOW {
            return (Applied::Refused(Refusal::Busy), None);
        }
        let applied = self.change(entry, Command::decode(command).expect("the model is fed good commands"));
        (applied.clone(), Some((sequence, applied)))
    }

    fn change(&mut self, entry: &Entry, command: Command) -> Applied {
        if let Some(refusal) = self.refusal(&command) {
            return Applied::Refused(refusal);
        }
        self.revision += 1;
        self.files.retain(|file| file.name != command.name);
        if let Operation::Write { expiry_seconds } | Operation::Cas { expiry_seconds, .. } = command.operation
        {
            // 128 bits cannot overflow here; a time that is beyond 64 bits becomes the last one.
            let due = u128::from(entry.stamp.0) + 1000 * u128::from(expiry_seconds);
            let due = ClusterTimeMs(u64::try_from(due).unwrap_or(u64::MAX));
            self.files.push(ModelFile {
                name: command.name,
                version: self.revision(),
                due: (expiry_seconds > 0).then_some(due),
                contents: command.contents,
            });
        }
        Applied::Changed { version: self.revision() }
    }

    /// The file of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ModelFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// All files, in byte order of their names.
    #[must_use]
    pub fn files(&self) -> Vec<&ModelFile> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        files
    }

    /// All sessions; the one that was used longest ago is the first.
    #[must_use]
    pub fn sessions(&self) -> &[ModelSession] {
        &self.sessions
    }

    /// When the next file or session is due.
    #[must_use]
    pub fn next_due(&self) -> Option<ClusterTimeMs> {
        let sessions = self.sessions.iter().map(|session| session.due);
        self.files.iter().filter_map(|file| file.due).chain(sessions).min()
    }

    /// The version of the last successful change.
    #[must_use]
    pub fn revision(&self) -> Version {
        Version(self.revision)
    }

    fn refusal(&self, command: &Command) -> Option<Refusal> {
        let present = self.get(&command.name).map_or(Version(0), |file| file.version);
        let exists = present > Version(0);
        match command.operation {
            Operation::Delete | Operation::DeleteIf { .. } if !exists => return Some(Refusal::NotFound),
            Operation::Cas { expected, .. } | Operation::DeleteIf { expected } if expected != present => {
                return Some(Refusal::VersionMismatch { present });
            }
            Operation::Delete | Operation::DeleteIf { .. } => return None,
            Operation::Write { .. } | Operation::Cas { .. } => {}
        }
        let is_below = |below: &str, above: &str| below.starts_with(&format!("{above}/"));
        self.files()
            .into_iter()
            .find(|file| is_below(&file.name, &command.name) || is_below(&command.name, &file.name))
            .map(|file| Refusal::Conflict { with: file.name.clone() })
    }
}
