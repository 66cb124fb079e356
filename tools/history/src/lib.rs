//! Judges what clients were told: a [`History`] of their calls is correct if some order of the operations, each
//! between its call and its answer, explains every answer (linearizability, Herlihy and Wing 1990).
//!
//! Nothing here knows sockets or clocks: times are plain numbers of any one unit, so that tests with real nodes and
//! simulated ones are judged alike.
//!
//! - [`History`] is what happened; a call that was never answered is as good as one answered "unknown".
//! - [`check`] judges it: each file by itself (`search`), then the versions over all files (`versions`).
//! - [`Violation`] says what is wrong with as few calls as show it (`shrink`).
//!
//! # What is held against a history
//! * A read finds the contents and version of the last change before it, or nothing.
//! * A change that was refused because of the file's state saw that state.
//! * A change that failed has no effect, ever. One whose outcome is unknown has its effect once, at any later time, or
//!   never.
//! * A file with a lifetime may go by itself, at any time from its end on; it does not come back.
//! * Versions grow from change to change, on one file by the order of its changes, over all files by real time,
//!   and none is used twice.

mod history;
mod search;
mod shrink;
mod versions;

use std::collections::BTreeMap;
use std::fmt;

pub use history::{Call, CallId, ClientId, History, Operation, Outcome, Tag, Version};

use search::Verdict;

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that the history is about.
    pub files: usize,
    /// All calls.
    pub calls: usize,
    /// Reads that found something, or nothing.
    pub reads: usize,
    /// Changes that were done.
    pub changes: usize,
    /// Refusals that told the state of a file.
    pub refusals: usize,
    /// Calls that failed without effect.
    pub failed: usize,
    /// Calls whose outcome is unknown.
    pub unknown: usize,
}

/// Why a history is not correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No order of the operations on this file explains all answers.
    NotLinearizable {
        /// The file.
        file: String,
        /// Calls that show it: without any one of them the rest may be explained.
        calls: Vec<Call>,
    },
    /// Two calls tell different things of one version, or versions go back in time.
    Versions {
        /// What is wrong.
        what: &'static str,
        /// The calls that contradict each other.
        calls: Box<[Call; 2]>,
    },
    /// The search was given up: too many calls of unknown outcome on this file.
    Undecided {
        /// The file.
        file: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = match self {
            Self::NotLinearizable { file, calls } => {
                writeln!(
                    f,
                    "file {file}: no order of these {} operations explains their answers",
                    calls.len()
                )?;
                &calls[..]
            }
            Self::Versions { what, calls } => {
                writeln!(f, "{what}:")?;
                &calls[..]
            }
            Self::Undecided { file } => return write!(f, "file {file}: the search was given up"),
        };
        calls.iter().try_for_each(|call| writeln!(f, "  {call}"))
    }
}

impl std::error::Error for Violation {}

/// Judges a history, and tells what it consisted of.
///
/// # Errors
/// The first violation that is found, in as few calls as show it.
///
/// # Panics
/// If two changes of one file have the same contents tag: a read could not tell which of them it saw.
pub fn check(history: &History) -> Result<Summary, Violation> {
    let mut files: BTreeMap<&str, Vec<Call>> = BTreeMap::new();
    for call in history.calls() {
        files.entry(&call.file).or_default().push(call.clone());
    }
    for (file, calls) in &files {
        assert_tags_are_unique(calls);
        match search::judge(calls) {
            Verdict::Linearizable => {}
            Verdict::Undecided => return Err(Violation::Undecided { file: (*file).to_owned() }),
            Verdict::NotLinearizable => {
                let calls = shrink::shrink(calls);
                return Err(Violation::NotLinearizable { file: (*file).to_owned(), calls });
            }
        }
    }
    versions::check(history.calls())?;
    Ok(summary(files.len(), history.calls()))
}

fn assert_tags_are_unique(calls: &[Call]) {
    let mut tags: Vec<Tag> = calls.iter().filter_map(|call| call.operation.contents()).collect();
    tags.sort_unstable();
    let twice = tags.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(twice.is_none(), "two changes have the contents tag {:?}", twice.map(|pair| pair[0]));
}

fn summary(files: usize, calls: &[Call]) -> Summary {
    let mut summary = Summary { files, calls: calls.len(), ..Summary::default() };
    for call in calls {
        let is_read = call.operation == Operation::Read;
        match call.outcome {
            Outcome::Found { .. } => summary.reads += 1,
            Outcome::Missing if is_read => summary.reads += 1,
            Outcome::Missing | Outcome::Mismatch { .. } => summary.refusals += 1,
            Outcome::Changed { .. } => summary.changes += 1,
            Outcome::Failed => summary.failed += 1,
            Outcome::Unknown => summary.unknown += 1,
        }
    }
    summary
}
