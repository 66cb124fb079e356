//! What clients did, and what they were told.

use std::fmt;

/// A client. One that goes on after an unknown outcome may keep its number: the old call is open for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u32);

/// A version of a file, or the revision of a delete. 0 stands for "no such file".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// What stands for the contents of a file: each change of a file has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The file's version and contents.
    Read,
    /// Make or overwrite the file.
    Write {
        /// Its new contents.
        contents: Tag,
        /// How long after the call it exists at least; `None` for ever.
        lifetime: Option<u64>,
    },
    /// As `Write`, if the version is the expected one; 0 if there is no such file.
    Cas {
        /// The expected version.
        expected: Version,
        /// Its new contents.
        contents: Tag,
        /// How long after the call it exists at least; `None` for ever.
        lifetime: Option<u64>,
    },
    /// Remove the file, if the version is the expected one.
    Delete {
        /// The expected version; `None` for any.
        expected: Option<Version>,
    },
}

impl Operation {
    /// The contents that it gives the file.
    #[must_use]
    pub fn contents(&self) -> Option<Tag> {
        match self {
            Self::Write { contents, .. } | Self::Cas { contents, .. } => Some(*contents),
            Self::Read | Self::Delete { .. } => None,
        }
    }

    pub(crate) fn lifetime(&self) -> Option<u64> {
        match self {
            Self::Write { lifetime, .. } | Self::Cas { lifetime, .. } => *lifetime,
            Self::Read | Self::Delete { .. } => None,
        }
    }

    /// The version that it was told to expect.
    pub(crate) fn expected(&self) -> Option<Version> {
        match self {
            Self::Cas { expected, .. } => Some(*expected),
            Self::Delete { expected } => *expected,
            Self::Read | Self::Write { .. } => None,
        }
    }
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read found this.
    Found {
        /// The file's version.
        version: Version,
        /// Its contents.
        contents: Tag,
    },
    /// A read or a delete found no such file.
    Missing,
    /// The change was done.
    Changed {
        /// The new version, or the revision of the delete, if it was told.
        version: Option<Version>,
    },
    /// Nothing was done: the file's version was this one, 0 if there was no such file.
    Mismatch {
        /// The version at that moment.
        present: Version,
    },
    /// Nothing was done, and nothing ever will be; it says nothing of the file.
    Failed,
    /// A change may have been done, or may be yet. A read tells nothing.
    Unknown,
}

impl Outcome {
    /// Whether such an operation can have such an outcome.
    fn fits(&self, operation: &Operation) -> bool {
        match self {
            Self::Found { .. } => matches!(operation, Operation::Read),
            Self::Missing => matches!(operation, Operation::Read | Operation::Delete { .. }),
            Self::Changed { .. } => !matches!(operation, Operation::Read),
            Self::Mismatch { .. } => operation.expected().is_some(),
            Self::Failed | Self::Unknown => true,
        }
    }
}

/// One operation of one client, from the call to its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who called.
    pub client: ClientId,
    /// The file's name.
    pub file: String,
    /// What was asked for.
    pub operation: Operation,
    /// A time not after the request left.
    pub invoked: u64,
    /// A time not before the answer came. Of no meaning if the outcome is unknown.
    pub returned: u64,
    /// The answer.
    pub outcome: Outcome,
}

impl Call {
    /// When it was over: never, if its outcome is unknown.
    pub(crate) fn end(&self) -> Option<u64> {
        (self.outcome != Outcome::Unknown).then_some(self.returned)
    }

    /// The version that this call tells to exist or to have existed.
    pub(crate) fn version_told(&self) -> Option<Version> {
        match self.outcome {
            Outcome::Found { version, .. } => Some(version),
            Outcome::Changed { version } => version,
            Outcome::Mismatch { present } => Some(present).filter(|present| present.0 > 0),
            Outcome::Missing | Outcome::Failed | Outcome::Unknown => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.end().map_or_else(|| "?".to_owned(), |end| end.to_string());
        let operation = match self.operation {
            Operation::Read => "read".to_owned(),
            Operation::Write { contents, .. } => format!("write {}", contents.0),
            Operation::Cas { expected, contents, .. } => format!("cas {} {}", expected.0, contents.0),
            Operation::Delete { expected: None } => "delete".to_owned(),
            Operation::Delete { expected: Some(expected) } => format!("delete if {}", expected.0),
        };
        let lifetime = self.operation.lifetime().map_or(String::new(), |time| format!(" for {time}"));
        let answer = match self.outcome {
            Outcome::Found { version, contents } => format!("{} at version {}", contents.0, version.0),
            Outcome::Missing => "no such file".to_owned(),
            Outcome::Changed { version: Some(version) } => format!("version {}", version.0),
            Outcome::Changed { version: None } => "done".to_owned(),
            Outcome::Mismatch { present } => format!("refused, present version {}", present.0),
            Outcome::Failed => "failed".to_owned(),
            Outcome::Unknown => "unknown".to_owned(),
        };
        let (file, client, invoked) = (&self.file, self.client.0, self.invoked);
        write!(f, "{invoked:>10} .. {end:<10} client {client:<3} {file}: {operation}{lifetime} -> {answer}")
    }
}

/// A call within its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(usize);

/// All calls of all clients.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: Vec<Call>,
}

impl History {
    /// A history in which nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client calls. Until it is answered, the outcome is unknown.
    pub fn invoke(&mut self, client: ClientId, file: &str, operation: Operation, now: u64) -> CallId {
        let (file, outcome) = (file.to_owned(), Outcome::Unknown);
        self.calls.push(Call { client, file, operation, invoked: now, returned: now, outcome });
        CallId(self.calls.len() - 1)
    }

    /// The client is answered.
    ///
    /// # Panics
    /// If the outcome is none that such an operation can have, or the answer comes before the call.
    pub fn answer(&mut self, id: CallId, outcome: Outcome, now: u64) {
        let call = &mut self.calls[id.0];
        assert!(outcome.fits(&call.operation), "{outcome:?} to {:?}", call.operation);
        assert!(now >= call.invoked, "answered at {now}, called at {}", call.invoked);
        (call.outcome, call.returned) = (outcome, now);
    }

    /// Adds what another recorder has seen.
    pub fn merge(&mut self, other: Self) {
        self.calls.extend(other.calls);
    }

    /// The calls, in no particular order.
    #[must_use]
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }
}
