//! What the clients of a short run saw, from outside: judged file by file, without a look at any log, beside what the
//! witness knows.

use fsd_history::{CallId, ClientId, History, Operation as Call, Outcome as Told, Tag, Violation, check};
use fsd_wire::client::{Outcome, Refusal};
use fsd_wire::{Command, Operation};

use crate::simulation::Checked;
use crate::witness::{Question, TAG_BYTES};

/// One run of so many is recorded.
const RECORDED_OF: u64 = 4;
/// Behind so many calls nothing more is taken down: a search takes its time.
const CALLS_MAX: usize = 2_000;

/// The calls of all clients, if this run is recorded.
#[derive(Debug, Default)]
pub(crate) struct Record {
    history: Option<History>,
}

impl Record {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self { history: seed.is_multiple_of(RECORDED_OF).then(History::new) }
    }

    /// A client begins to ask; attempts to come are part of it.
    pub(crate) fn invoke(&mut self, client: usize, what: &Question, now_us: u64) -> Option<CallId> {
        let history = self.history.as_mut().filter(|history| history.calls().len() < CALLS_MAX)?;
        let (name, call) = match what {
            Question::Read(name) => (name, Call::Read),
            Question::Change(command) => (&command.name, call_of(command)),
            Question::Stat(_) | Question::List | Question::Session(_) => return None,
        };
        Some(history.invoke(ClientId(client as u32), name, call, now_us))
    }

    /// It was told this in the end.
    pub(crate) fn answer(&mut self, call: Option<CallId>, outcome: &Outcome, now_us: u64) {
        let (Some(history), Some(call)) = (&mut self.history, call) else { return };
        // What was asked after the end is not known, so no answer from then on can be explained.
        if history.calls().len() >= CALLS_MAX {
            return;
        }
        let told = match outcome {
            Outcome::Read { version, contents, .. } => {
                Told::Found { version: version_of(*version), contents: tag_of(contents) }
            }
            Outcome::Changed { version } => Told::Changed { version: Some(version_of(*version)) },
            Outcome::Refused(Refusal::NotFound) => Told::Missing,
            Outcome::Refused(Refusal::VersionMismatch { present }) => {
                Told::Mismatch { present: version_of(*present) }
            }
            Outcome::Refused(Refusal::Unknown) => return,
            _ => Told::Failed,
        };
        history.answer(call, told, now_us);
    }

    /// Calls that were taken down.
    pub(crate) fn calls(&self) -> u64 {
        self.history.as_ref().map_or(0, |history| history.calls().len() as u64)
    }

    /// Whether there is an order of the calls that explains all answers.
    pub(crate) fn judge(&self) -> Checked {
        let Some(history) = &self.history else { return Ok(()) };
        match check(history) {
            // Too many calls without an answer: nothing is known.
            Ok(_) | Err(Violation::Undecided { .. }) => Ok(()),
            Err(violation) => Err(violation.to_string()),
        }
    }
}

fn call_of(command: &Command) -> Call {
    // Cluster time may pass faster than any client's: such a file may go as soon as it is there.
    let lifetime = |seconds: u64| (seconds > 0).then_some(0);
    match command.operation {
        Operation::Write { expiry_seconds } => {
            Call::Write { contents: tag_of(&command.contents), lifetime: lifetime(expiry_seconds) }
        }
        Operation::Cas { expected, expiry_seconds } => Call::Cas {
            expected: version_of(expected),
            contents: tag_of(&command.contents),
            lifetime: lifetime(expiry_seconds),
        },
        Operation::Delete => Call::Delete { expected: None },
        Operation::DeleteIf { expected } => Call::Delete { expected: Some(version_of(expected)) },
    }
}

fn version_of(version: fsd_wire::Version) -> fsd_history::Version {
    fsd_history::Version(version.0)
}

/// Contents begin with a number that no others have.
fn tag_of(contents: &[u8]) -> Tag {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&contents[..TAG_BYTES]);
    Tag(u64::from_le_bytes(tag))
}
