//! A client with a session: it repeats a change with its number until it is decided, and concludes from each refusal
//! what `docs/wire-format.md` says that may be concluded, no more and no less.

use std::collections::BTreeMap;

use fsd_history::CallId;
use fsd_wire::client::{Operation as Request, Outcome, Refusal};
use fsd_wire::{Command, Sequence, SessionId};

use crate::session_log::SessionQuestion;
use crate::simulation::Checked;
use crate::witness::{Question, Witness};

/// Attempts that are kept, to arrive once more long after.
const OLD_ATTEMPTS_MAX: usize = 8;
/// Changes that are under way together at most, those among them that wait for another attempt.
const CHANGES_MAX: usize = 64;

/// A change that is not decided.
#[derive(Debug)]
struct Tried {
    command: Command,
    call: Option<CallId>,
    /// Attempts that may have come through, or may yet.
    open_attempts: u32,
    /// An attempt is under way on the present connection.
    is_under_way: bool,
}

/// What a client knows of its session.
#[derive(Debug)]
pub(crate) struct SessionClient {
    session: Option<SessionId>,
    is_opening: bool,
    next_sequence: Sequence,
    changes: BTreeMap<(SessionId, Sequence), Tried>,
    /// Attempts for changes that are over.
    old: Vec<(Request, SessionQuestion)>,
    idle_until_us: u64,
    random: fastrand::Rng,
}

/// What came of a change.
#[derive(Debug)]
pub(crate) enum Fate {
    Open,
    Decided(Command),
}

impl SessionClient {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            session: None,
            is_opening: false,
            next_sequence: Sequence(1),
            changes: BTreeMap::new(),
            old: Vec::new(),
            idle_until_us: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Whether it lets its session lie for a while.
    pub(crate) fn is_idle(&self, now_us: u64) -> bool {
        now_us < self.idle_until_us
    }

    /// It has to do with its session now, whatever it wanted.
    pub(crate) fn wake(&mut self) {
        self.idle_until_us = 0;
    }

    /// What comes before anything new: a session, and now and then another attempt.
    pub(crate) fn next_attempt(
        &mut self,
        witness: &mut Witness,
        now_us: u64,
    ) -> Result<Option<(Request, Question)>, String> {
        if self.session.is_none() && !self.is_opening {
            self.is_opening = true;
            return Ok(Some((Request::OpenSession, Question::Session(SessionQuestion::Open))));
        }
        let waiting: Vec<(SessionId, Sequence)> =
            self.changes.iter().filter(|(_, tried)| !tried.is_under_way).map(|(key, _)| *key).collect();
        let Some(key) = self.random.choice(&waiting).copied() else { return Ok(None) };
        if self.random.u32(..32) == 0 {
            self.give_up(key, witness, now_us)?;
            return Ok(None);
        }
        Ok((self.random.u32(..4) != 0).then(|| self.attempt(key)))
    }

    /// Begins a change, if it may; else it is given back.
    pub(crate) fn begin(&mut self, command: Command, call: Option<CallId>) -> Option<(Request, Question)> {
        let session = self.session?;
        let key = (session, self.next_sequence);
        self.next_sequence = Sequence(self.next_sequence.0 + 1);
        self.changes.insert(key, Tried { command, call, open_attempts: 0, is_under_way: false });
        Some(self.attempt(key))
    }

    /// Whether it can begin a change now.
    pub(crate) fn can_begin(&self) -> bool {
        self.session.is_some() && self.changes.len() < CHANGES_MAX
    }

    /// Something else than changes: a sign of life, the end, something old once more, or nothing for long.
    pub(crate) fn manage(&mut self, now_us: u64, idle_ms: u64) -> Option<(Request, Question)> {
        let session = self.session?;
        let (request, question) = match self.random.u32(..16) {
            0 => (Request::CloseSession { session }, SessionQuestion::Close(session)),
            1 => {
                self.idle_until_us = now_us + self.random.u64(..2 * 1000 * idle_ms).min(10_000_000);
                return None;
            }
            2..8 => {
                let acknowledged = self.acknowledged(session);
                (Request::KeepAlive { session, acknowledged }, SessionQuestion::KeepAlive(session))
            }
            _ => self.random.choice(&self.old)?.clone(),
        };
        Some((request, Question::Session(question)))
    }

    /// No answer will come to what was asked on this connection.
    pub(crate) fn forget_request(&mut self, question: &SessionQuestion) {
        match question {
            SessionQuestion::Open => self.is_opening = false,
            SessionQuestion::Change(session, sequence, _) => {
                if let Some(tried) = self.changes.get_mut(&(*session, *sequence)) {
                    tried.is_under_way = false;
                }
            }
            SessionQuestion::KeepAlive(_) | SessionQuestion::Close(_) => {}
        }
    }

    /// An answer, which the witness has found true.
    pub(crate) fn answered(
        &mut self,
        question: &SessionQuestion,
        outcome: &Outcome,
        witness: &mut Witness,
        now_us: u64,
    ) -> Result<Fate, String> {
        self.forget_request(question);
        if let Outcome::SessionOpened { session, .. } = outcome {
            (self.session, self.next_sequence) = (Some(*session), Sequence(1));
        }
        let of = match question {
            SessionQuestion::Open => None,
            SessionQuestion::Close(session)
            | SessionQuestion::KeepAlive(session)
            | SessionQuestion::Change(session, ..) => Some(*session),
        };
        let is_closed =
            matches!(question, SessionQuestion::Close(_)) && matches!(outcome, Outcome::SessionDone);
        if (is_closed || *outcome == Outcome::Refused(Refusal::SessionGone)) && self.session == of {
            self.session = None;
        }
        let SessionQuestion::Change(session, sequence, _) = question else { return Ok(Fate::Open) };
        let key = (*session, *sequence);
        // An old attempt, repeated: it is over, whatever the answer.
        let Some(tried) = self.changes.get_mut(&key) else { return Ok(Fate::Open) };
        match outcome {
            Outcome::Changed { .. }
            | Outcome::Refused(
                Refusal::NotFound | Refusal::VersionMismatch { .. } | Refusal::Conflict { .. },
            ) => {
                let call = tried.call;
                witness.record.answer(call, outcome, now_us);
                let command = tried.command.clone();
                self.remember(key);
                self.changes.remove(&key);
                Ok(Fate::Decided(command))
            }
            Outcome::Refused(Refusal::Unknown) => Ok(Fate::Open),
            Outcome::Refused(
                Refusal::NotLeader { .. } | Refusal::NoLeader | Refusal::Busy | Refusal::DiskFull { .. },
            ) => {
                tried.open_attempts -= 1;
                Ok(Fate::Open)
            }
            Outcome::Refused(Refusal::SessionGone) => {
                tried.open_attempts -= 1;
                self.lose(key, witness, now_us)?;
                Ok(Fate::Open)
            }
            _ => Err(format!("{question:?} was answered {outcome:?}, though its number is not acknowledged")),
        }
    }

    /// The session is gone: if no attempt may have come through, the change is as new.
    fn lose(&mut self, key: (SessionId, Sequence), witness: &mut Witness, now_us: u64) -> Checked {
        let tried = self.changes.remove(&key).expect("the caller has looked it up");
        if tried.open_attempts > 0 {
            return Ok(());
        }
        witness.refuse(key.0, key.1)?;
        match self.session {
            Some(session) if session != key.0 => {
                let key = (session, self.next_sequence);
                self.next_sequence = Sequence(self.next_sequence.0 + 1);
                self.changes.insert(key, tried);
            }
            _ => witness.record.answer(tried.call, &Outcome::Refused(Refusal::SessionGone), now_us),
        }
        Ok(())
    }

    /// Has no more patience with a change.
    fn give_up(&mut self, key: (SessionId, Sequence), witness: &mut Witness, now_us: u64) -> Checked {
        if self.changes[&key].open_attempts > 0 {
            self.remember(key);
        } else {
            witness.refuse(key.0, key.1)?;
            witness.record.answer(self.changes[&key].call, &Outcome::Refused(Refusal::NoLeader), now_us);
        }
        self.changes.remove(&key);
        Ok(())
    }

    fn attempt(&mut self, key: (SessionId, Sequence)) -> (Request, Question) {
        let tried = self.changes.get_mut(&key).expect("it is not decided");
        tried.open_attempts += 1;
        tried.is_under_way = true;
        let (request, question) = self.request(key);
        (request, Question::Session(question))
    }

    fn request(&mut self, (session, sequence): (SessionId, Sequence)) -> (Request, SessionQuestion) {
        let command = self.changes[&(session, sequence)].command.clone();
        // Acknowledging is never a duty.
        let acknowledged = if self.random.u32(..4) == 0 { Sequence(0) } else { self.acknowledged(session) };
        let payload = command.encode();
        let request = Request::SessionChange { session, sequence, acknowledged, command: payload };
        (request, SessionQuestion::Change(session, sequence, command))
    }

    fn remember(&mut self, key: (SessionId, Sequence)) {
        let attempt = self.request(key);
        if self.old.len() == OLD_ATTEMPTS_MAX {
            self.old.swap_remove(self.random.usize(..OLD_ATTEMPTS_MAX));
        }
        self.old.push(attempt);
    }

    /// All below the first change that is still of interest.
    fn acknowledged(&self, session: SessionId) -> Sequence {
        let of_session = (session, Sequence(0))..=(session, Sequence(u64::MAX));
        let first = self.changes.range(of_session).next().map(|((_, sequence), _)| *sequence);
        Sequence(first.unwrap_or(self.next_sequence).0 - 1)
    }
}
