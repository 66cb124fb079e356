//! Executions that really happened one after the other on files in memory, and what their clients saw of it.

use std::collections::BTreeMap;

use fsd_history::{Call, ClientId, Operation, Outcome, Tag, Version};

pub(crate) struct Shape {
    pub(crate) operations: usize,
    /// How many calls are open at a time, about.
    pub(crate) clients: usize,
    pub(crate) files: usize,
    /// Some changes do not tell their versions.
    pub(crate) versions_untold: bool,
    /// Of so many outcomes one is unknown, about.
    pub(crate) unknown_one_in: u32,
}

#[derive(Clone, Copy)]
struct File {
    version: Version,
    contents: Tag,
    due: Option<u64>,
}

/// Time between two operations.
const STEP: u64 = 10;

pub(crate) fn execution(shape: &Shape, random: &mut fastrand::Rng) -> Vec<Call> {
    let mut files: BTreeMap<usize, File> = BTreeMap::new();
    let mut versions: Vec<Version> = vec![Version(0)];
    let mut revision = 0;
    let mut calls = Vec::new();
    for number in 0..shape.operations {
        let now = (number as u64 + 100) * STEP;
        let name = random.usize(..shape.files);
        // A file that is due goes now or later.
        files.retain(|_, file| !(file.due.is_some_and(|due| due <= now) && random.bool()));
        let operation = operation(number, &versions, files.get(&name), random);
        let overlap = |random: &mut fastrand::Rng| random.u64(..=STEP * shape.clients as u64 / 2);
        let (invoked, returned) = (now - overlap(random), now + overlap(random));
        let has_no_effect = random.u32(..12) == 0;
        let mut outcome = if has_no_effect {
            Outcome::Failed
        } else {
            let due = lifetime(&operation).map(|lifetime| now + lifetime);
            apply(&operation, due, name, &mut files, &mut revision)
        };
        if let Outcome::Changed { version: Some(version) } = outcome {
            versions.push(version);
            if shape.versions_untold && random.u32(..6) == 0 {
                outcome = Outcome::Changed { version: None };
            }
        }
        if random.u32(..shape.unknown_one_in) == 0 {
            outcome = Outcome::Unknown;
        }
        let client = ClientId((number % shape.clients) as u32);
        calls.push(Call { client, file: format!("f{name}"), operation, invoked, returned, outcome });
    }
    calls
}

fn operation(
    number: usize,
    versions: &[Version],
    file: Option<&File>,
    random: &mut fastrand::Rng,
) -> Operation {
    let contents = Tag(number as u64);
    let lifetime = (random.u32(..5) == 0).then(|| random.u64(1..6 * STEP));
    let mut expected = || match random.u32(..3) {
        0 => versions[versions.len().saturating_sub(random.usize(1..8)).min(versions.len() - 1)],
        _ => file.map_or(Version(0), |file| file.version),
    };
    match number % 3 {
        0 => Operation::Read,
        _ => {
            let expected = expected();
            match random.u32(..8) {
                0..3 => Operation::Write { contents, lifetime },
                3..6 => Operation::Cas { expected, contents, lifetime },
                6 => Operation::Delete { expected: Some(expected).filter(|expected| expected.0 > 0) },
                _ => Operation::Read,
            }
        }
    }
}

fn lifetime(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Write { lifetime, .. } | Operation::Cas { lifetime, .. } => *lifetime,
        _ => None,
    }
}

fn apply(
    operation: &Operation,
    due: Option<u64>,
    name: usize,
    files: &mut BTreeMap<usize, File>,
    revision: &mut u64,
) -> Outcome {
    let present = files.get(&name).map_or(Version(0), |file| file.version);
    let mut change = |contents: Option<Tag>| {
        *revision += 1;
        let version = Version(*revision);
        match contents {
            Some(contents) => files.insert(name, File { version, contents, due }),
            None => files.remove(&name),
        };
        Outcome::Changed { version: Some(version) }
    };
    match *operation {
        Operation::Read => match files.get(&name) {
            Some(file) => Outcome::Found { version: file.version, contents: file.contents },
            None => Outcome::Missing,
        },
        Operation::Write { contents, .. } => change(Some(contents)),
        Operation::Cas { expected, .. } if expected != present => Outcome::Mismatch { present },
        Operation::Cas { contents, .. } => change(Some(contents)),
        Operation::Delete { .. } if present == Version(0) => Outcome::Missing,
        Operation::Delete { expected: Some(expected) } if expected != present => {
            Outcome::Mismatch { present }
        }
        Operation::Delete { .. } => change(None),
    }
}

/// Makes one of the answers another one.
pub(crate) fn tell_a_lie(calls: &mut [Call], random: &mut fastrand::Rng) {
    let lying: Vec<usize> = (0..calls.len()).filter(|n| calls[*n].outcome != Outcome::Unknown).collect();
    let Some(number) = random.choice(lying) else { return };
    let near = |number: u64, random: &mut fastrand::Rng| match random.bool() {
        true => number + random.u64(1..4),
        false => number.saturating_sub(random.u64(1..4)).max(1),
    };
    let is_read = calls[number].operation == Operation::Read;
    let is_conditional =
        matches!(calls[number].operation, Operation::Cas { .. } | Operation::Delete { expected: Some(_) });
    let other = random.choice(&*calls).map(|call| call.outcome);
    calls[number].outcome = match (calls[number].outcome, random.u32(..3)) {
        (Outcome::Found { version, contents }, 0) => {
            Outcome::Found { version: Version(near(version.0, random)), contents }
        }
        (Outcome::Found { .. }, 1) => Outcome::Missing,
        // What another read saw, earlier or later.
        (Outcome::Found { .. } | Outcome::Missing, _) if is_read => match other {
            Some(Outcome::Found { version, contents }) => Outcome::Found { version, contents },
            _ => Outcome::Missing,
        },
        (Outcome::Changed { version: Some(version) }, 0) => {
            Outcome::Changed { version: Some(Version(near(version.0, random))) }
        }
        (Outcome::Changed { version: Some(version) }, 1) if is_conditional => {
            Outcome::Mismatch { present: version }
        }
        (Outcome::Changed { .. }, _) => Outcome::Failed,
        (Outcome::Mismatch { present }, 0) => Outcome::Mismatch { present: Version(near(present.0, random)) },
        (Outcome::Failed, _) if !is_read => Outcome::Changed { version: None },
        (_, _) if !is_read => Outcome::Changed { version: None },
        (outcome, _) => outcome,
    };
}
