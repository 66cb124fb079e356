//! Versions over all files: the store counts its changes with one counter.

use std::collections::BTreeMap;

use crate::Violation;
use crate::history::{Call, Operation, Outcome, Tag, Version};

/// What a version is known to be: of which file, and with which contents; a delete has none.
#[derive(Clone, Copy)]
struct Known<'a> {
    call: &'a Call,
    /// `None` if the call did not tell.
    contents: Option<Option<Tag>>,
    is_change: bool,
}

pub(crate) fn check(calls: &[Call]) -> Result<(), Violation> {
    let known = one_change_each(calls)?;
    grow_with_time(calls, &known)
}

/// No version is of two changes, of two files, or of two contents.
fn one_change_each(calls: &[Call]) -> Result<BTreeMap<Version, Vec<Known<'_>>>, Violation> {
    let mut known: BTreeMap<Version, Vec<Known<'_>>> = BTreeMap::new();
    for call in calls {
        let Some(version) = call.version_told() else { continue };
        let (contents, is_change) = match call.outcome {
            Outcome::Found { contents, .. } => (Some(Some(contents)), false),
            Outcome::Changed { .. } => (Some(call.operation.contents()), true),
            _ => (None, false),
        };
        let new = Known { call, contents, is_change };
        let others = known.entry(version).or_default();
        for other in &*others {
            let same_contents = other.contents.is_none() || contents.is_none() || other.contents == contents;
            // A read or a refusal met a version that a delete took.
            let met_a_delete = contents.xor(other.contents) == Some(None);
            let what = match () {
                () if other.is_change && is_change => "two changes have the same version",
                () if other.call.file != call.file => "two files have the same version",
                () if !same_contents || met_a_delete => "one version stands for two things",
                () => continue,
            };
            return Err(Violation::Versions { what, calls: Box::new([other.call.clone(), call.clone()]) });
        }
        // What agrees with what is known adds nothing, unless it knows more.
        if others.is_empty() || is_change || others.iter().all(|other| other.contents.is_none()) {
            others.push(new);
        }
    }
    Ok(known)
}

/// A change that was called after a version had been told has a later one.
fn grow_with_time(calls: &[Call], known: &BTreeMap<Version, Vec<Known<'_>>>) -> Result<(), Violation> {
    let version_of: BTreeMap<(&str, Tag), Version> = known
        .iter()
        .flat_map(|(version, all)| all.iter().map(move |known| (*version, known)))
        .filter_map(|(version, known)| Some(((known.call.file.as_str(), known.contents??), version)))
        .collect();
    let version_made = |call: &Call| match (call.outcome, call.operation) {
        (Outcome::Changed { version: Some(version) }, _) => Some(version),
        // A read told what the change itself did not.
        (
            Outcome::Changed { .. } | Outcome::Unknown,
            Operation::Write { contents, .. } | Operation::Cas { contents, .. },
        ) => version_of.get(&(call.file.as_str(), contents)).copied(),
        _ => None,
    };
    let mut told: Vec<(u64, Version, &Call)> =
        calls.iter().filter_map(|call| Some((call.end()?, call.version_told()?, call))).collect();
    told.sort_by_key(|(end, ..)| *end);
    let mut made: Vec<(&Call, Version)> =
        calls.iter().filter_map(|call| Some((call, version_made(call)?))).collect();
    made.sort_by_key(|(call, _)| call.invoked);
    let mut told = told.into_iter().peekable();
    let mut last: Option<(Version, &Call)> = None;
    for (change, version) in made {
        while let Some((_, version, call)) = told.next_if(|(end, ..)| *end < change.invoked) {
            if last.is_none_or(|(last, _)| version > last) {
                last = Some((version, call));
            }
        }
        if let Some((_, earlier)) = last.filter(|(last, _)| *last >= version) {
            let what = "a change has a version that is not above one that was told before it was called";
            return Err(Violation::Versions { what, calls: Box::new([earlier.clone(), change.clone()]) });
        }
    }
    Ok(())
}
