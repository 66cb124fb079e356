//! Histories as text, a call in a line: `CLIENT BEGIN..END FILE OPERATION = OUTCOME`.
//!
//! `1 0..10 a write x = 5`, `2 5..8 a read = x@5` (or `none`), `1 20..30 a cas 5 y = 6` (or `!7`: version 7 was met),
//! `1 40..50 a delete if 6 = 7`; `ttl 100` behind contents is a lifetime; `= ok` does not tell the version, `= fail` had
//! no effect, `= ?` is unknown.

use fsd_history::{ClientId, History, Operation, Outcome, Tag, Version};

pub(crate) fn history(text: &str) -> History {
    let mut history = History::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        add(&mut history, line).unwrap_or_else(|| panic!("not a call: {line:?}"));
    }
    history
}

fn add(history: &mut History, line: &str) -> Option<()> {
    let (call, outcome) = line.split_once(" = ")?;
    let words: Vec<&str> = call.split_whitespace().collect();
    let [client, times, file, operation, rest @ ..] = &words[..] else { return None };
    let (begin, end) = times.split_once("..")?;
    let operation = match (*operation, rest) {
        ("read", []) => Operation::Read,
        ("write", [contents, rest @ ..]) => {
            Operation::Write { contents: tag(contents), lifetime: lifetime(rest)? }
        }
        ("cas", [expected, contents, rest @ ..]) => {
            let expected = Version(expected.parse().ok()?);
            Operation::Cas { expected, contents: tag(contents), lifetime: lifetime(rest)? }
        }
        ("delete", []) => Operation::Delete { expected: None },
        ("delete", ["if", expected]) => Operation::Delete { expected: Some(Version(expected.parse().ok()?)) },
        _ => return None,
    };
    let outcome = match (outcome, outcome.split_once('@')) {
        ("none", _) => Outcome::Missing,
        ("ok", _) => Outcome::Changed { version: None },
        ("fail", _) => Outcome::Failed,
        ("?", _) => Outcome::Unknown,
        (_, Some((contents, version))) => {
            Outcome::Found { version: Version(version.parse().ok()?), contents: tag(contents) }
        }
        (text, None) => match text.strip_prefix('!') {
            Some(present) => Outcome::Mismatch { present: Version(present.parse().ok()?) },
            None => Outcome::Changed { version: Some(Version(text.parse().ok()?)) },
        },
    };
    let id = history.invoke(ClientId(client.parse().ok()?), file, operation, begin.parse().ok()?);
    history.answer(id, outcome, end.parse().ok()?);
    Some(())
}

fn lifetime(words: &[&str]) -> Option<Option<u64>> {
    match words {
        [] => Some(None),
        ["ttl", time] => Some(Some(time.parse().ok()?)),
        _ => None,
    }
}

/// A letter, or a number.
fn tag(word: &str) -> Tag {
    Tag(word.parse().unwrap_or_else(|_| u64::from(word.as_bytes()[0])))
}
