//! What the committed log did in the sessions of clients, and what a client with a session may be told.
//!
//! The reference model says how a session command ends; here is kept what it must not depend on: the first reply to
//! each change for ever, whatever became of its session, so that a second application shows whoever forgot the first.

use std::collections::{BTreeMap, BTreeSet};

use fsd::file_store::Applied;
use fsd_wire::client::{Outcome, Refusal};
use fsd_wire::{Command, LogIndex, Sequence, SessionCommand, SessionId};

use crate::simulation::Checked;

/// What a client asks of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionQuestion {
    Open,
    KeepAlive(SessionId),
    Close(SessionId),
    Change(SessionId, Sequence, Command),
}

/// The same, as an entry does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    KeepAlive,
    Close,
    Change(Sequence),
}

/// All sessions that there ever were.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    /// The entries of each session, and how they ended.
    entries: BTreeMap<SessionId, Vec<(LogIndex, Step, Applied)>>,
    first_replies: BTreeMap<(SessionId, Sequence), (LogIndex, Applied)>,
    /// Changes of which a client had to conclude that nothing happened.
    refused: BTreeSet<(SessionId, Sequence)>,
    /// Sessions that a client was told of.
    told: BTreeSet<SessionId>,
    /// Entries that repeated a change and were answered with its first reply.
    pub(crate) repetitions: u64,
}

impl SessionLog {
    /// A session command is committed, and the model ends it so. Returns the change that it made, if it is the first
    /// entry of its number that was let in.
    pub(crate) fn commit(
        &mut self,
        index: LogIndex,
        command: SessionCommand,
        applied: &Applied,
    ) -> Result<Option<Command>, String> {
        let session = command.session().unwrap_or(SessionId(index.0));
        let (step, change) = match command {
            SessionCommand::Open { .. } => (Step::Open, None),
            SessionCommand::KeepAlive { .. } => (Step::KeepAlive, None),
            SessionCommand::Close { .. } => (Step::Close, None),
            SessionCommand::Change { sequence, command, .. } => {
                let command = Command::decode(&command).map_err(|error| error.to_string())?;
                (Step::Change(sequence), Some((sequence, command)))
            }
        };
        self.entries.entry(session).or_default().push((index, step, applied.clone()));
        let Some((sequence, command)) = change else { return Ok(None) };
        if !is_reply(applied) {
            return Ok(None);
        }
        if let Some((first, reply)) = self.first_replies.get(&(session, sequence)) {
            if reply != applied {
                return Err(format!(
                    "change {sequence} of session {session} came to {reply:?} as entry {first} and to {applied:?} as \
                     entry {index}"
                ));
            }
            self.repetitions += 1;
            return Ok(None);
        }
        if self.refused.contains(&(session, sequence)) {
            return Err(format!(
                "change {sequence} of session {session} was refused, and is committed as entry {index}"
            ));
        }
        self.first_replies.insert((session, sequence), (index, applied.clone()));
        Ok(Some(command))
    }

    /// Changes that were decided.
    pub(crate) fn changes(&self) -> u64 {
        self.first_replies.len() as u64
    }

    /// A client knows that nothing happened and never will: every attempt was refused.
    pub(crate) fn refuse(&mut self, session: SessionId, sequence: Sequence) -> Checked {
        if let Some((index, _)) = self.first_replies.get(&(session, sequence)) {
            return Err(format!(
                "all attempts of change {sequence} of session {session} were refused, and it is entry {index}"
            ));
        }
        self.refused.insert((session, sequence));
        Ok(())
    }

    /// A client asked this when so many entries were committed, and was told that. Returns the entry that made its
    /// change, if it was one and is decided. `lives` says whether the log has not ended a session.
    pub(crate) fn check(
        &mut self,
        asked: &SessionQuestion,
        committed: LogIndex,
        outcome: &Outcome,
        lives: impl Fn(SessionId) -> bool,
    ) -> Result<Option<LogIndex>, String> {
        let (session, step) = match (asked, outcome) {
            (SessionQuestion::Open, Outcome::SessionOpened { session, .. }) => {
                if !self.told.insert(*session) {
                    return Err(format!("session {session} was given to two"));
                }
                (*session, Step::Open)
            }
            (SessionQuestion::Open, _) => return Err("no such answer to it".to_owned()),
            (SessionQuestion::KeepAlive(session), _) => (*session, Step::KeepAlive),
            (SessionQuestion::Close(session), _) => (*session, Step::Close),
            (SessionQuestion::Change(session, sequence, _), _) => (*session, Step::Change(*sequence)),
        };
        if *outcome == Outcome::Refused(Refusal::SessionGone) {
            // Any node that has seen its end may say so, without an entry.
            return if lives(session) { Err("the log has not ended it".to_owned()) } else { Ok(None) };
        }
        let applied = match outcome {
            Outcome::Changed { version } => Applied::Changed { version: *version },
            Outcome::SessionOpened { session, idle_ms } => {
                Applied::SessionOpened { session: *session, idle_ms: *idle_ms }
            }
            Outcome::SessionDone => Applied::SessionDone,
            Outcome::Refused(refusal) => Applied::Refused(refusal.clone()),
            _ => return Err("no such answer to it".to_owned()),
        };
        let entries = self.entries.get(&session).map_or(&[][..], |entries| &entries[..]);
        let behind = entries.partition_point(|(index, ..)| *index <= committed);
        if !entries[behind..].iter().any(|(_, is, came_to)| (*is, came_to) == (step, &applied)) {
            return Err(format!("no entry behind {committed} came to that"));
        }
        match step {
            Step::Change(sequence) if is_reply(&applied) => {
                let (first, reply) = &self.first_replies[&(session, sequence)];
                if *reply == applied {
                    Ok(Some(*first))
                } else {
                    Err(format!("the first reply, of entry {first}, was {reply:?}"))
                }
            }
            _ => Ok(None),
        }
    }
}

/// Whether this is how a change of a session itself ended, not what one attempt came to.
fn is_reply(applied: &Applied) -> bool {
    match applied {
        Applied::Changed { .. } => true,
        Applied::Refused(refusal) => {
            matches!(refusal, Refusal::NotFound | Refusal::VersionMismatch { .. } | Refusal::Conflict { .. })
        }
        Applied::Nothing | Applied::SessionOpened { .. } | Applied::SessionDone => false,
    }
}
