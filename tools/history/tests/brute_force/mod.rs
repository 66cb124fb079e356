//! The other judge: tries every order, every set of unknown changes, every end of a lifetime and every version, on a
//! file that is nothing but a file.

use fsd_history::{Call, Operation, Outcome, Tag, Version};

#[derive(Clone, Copy)]
struct File {
    version: u64,
    contents: Tag,
}

#[derive(Clone, Copy, Default)]
struct Store {
    file: Option<File>,
    last_version: u64,
}

/// Something that happens at one moment: an operation, or the end of the lifetime that one gave.
#[derive(Clone, Copy)]
enum Happening<'a> {
    Operation(&'a Call),
    End { contents: Tag, from: u64 },
}

pub(crate) fn can_be_explained(calls: &[Call]) -> bool {
    let mut left = Vec::new();
    for call in calls {
        left.push(Happening::Operation(call));
        if let Operation::Write { contents, lifetime: Some(lifetime) }
        | Operation::Cas { contents, lifetime: Some(lifetime), .. } = call.operation
        {
            left.push(Happening::End { contents, from: call.invoked + lifetime });
        }
    }
    let versions_max = calls.iter().flat_map(versions_named).max().unwrap_or(0) + calls.len() as u64 + 1;
    goes_on(&left, Store::default(), versions_max)
}

fn versions_named(call: &Call) -> Vec<u64> {
    let mut versions = Vec::new();
    match call.outcome {
        Outcome::Found { version, .. } | Outcome::Mismatch { present: version } => versions.push(version.0),
        Outcome::Changed { version } => versions.extend(version.map(|version| version.0)),
        _ => {}
    }
    if let Operation::Cas { expected, .. } | Operation::Delete { expected: Some(expected) } = call.operation {
        versions.push(expected.0);
    }
    versions
}

/// Whether an answer came that must be explained.
fn is_answered(call: &Call) -> bool {
    !matches!(call.outcome, Outcome::Unknown | Outcome::Failed)
}

fn goes_on(left: &[Happening<'_>], store: Store, versions_max: u64) -> bool {
    let ends = || {
        left.iter().filter_map(|happening| match happening {
            Happening::Operation(call) if is_answered(call) => Some(call.returned),
            _ => None,
        })
    };
    let Some(first_end) = ends().min() else { return true };
    (0..left.len()).any(|next| {
        let mut rest = left.to_vec();
        match rest.swap_remove(next) {
            Happening::End { contents, from } => {
                let is_there = store.file.is_some_and(|file| file.contents == contents);
                from <= first_end && is_there && goes_on(&rest, Store { file: None, ..store }, versions_max)
            }
            Happening::Operation(call) => {
                call.invoked <= first_end
                    && call.outcome != Outcome::Failed
                    && (store.last_version + 1..=versions_max).any(|version| {
                        let (outcome, after) = run(&call.operation, store, version);
                        let has_changed = after.last_version != store.last_version;
                        // Without a change the version is of no meaning: one try is enough.
                        let is_try = has_changed || version == store.last_version + 1;
                        is_try && fits(&outcome, &call.outcome) && goes_on(&rest, after, versions_max)
                    })
            }
        }
    })
}

/// What a file does; `version` is the one that a change takes.
fn run(operation: &Operation, store: Store, version: u64) -> (Outcome, Store) {
    let present = store.file.map_or(0, |file| file.version);
    let mismatch = (Outcome::Mismatch { present: Version(present) }, store);
    let changed = Outcome::Changed { version: Some(Version(version)) };
    let put = |contents| (changed, Store { file: Some(File { version, contents }), last_version: version });
    match (*operation, store.file) {
        (Operation::Read, Some(File { version, contents })) => {
            (Outcome::Found { version: Version(version), contents }, store)
        }
        (Operation::Read | Operation::Delete { .. }, None) => (Outcome::Missing, store),
        (Operation::Write { contents, .. }, _) => put(contents),
        (Operation::Cas { expected, .. }, _) if expected.0 != present => mismatch,
        (Operation::Cas { contents, .. }, _) => put(contents),
        (Operation::Delete { expected: Some(expected) }, _) if expected.0 != present => mismatch,
        (Operation::Delete { .. }, _) => (changed, Store { file: None, last_version: version }),
    }
}

fn fits(outcome: &Outcome, told: &Outcome) -> bool {
    match (outcome, told) {
        (_, Outcome::Unknown) | (Outcome::Changed { .. }, Outcome::Changed { version: None }) => true,
        _ => outcome == told,
    }
}
