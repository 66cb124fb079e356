//! What an entry says, in words.

use std::fmt::Write as _;

use fsd_wire::{Command, DecodeError, Entry, EntryKind, Genesis, Operation, Register, SessionCommand};

pub(crate) fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Noop => "noop",
        EntryKind::Genesis => "genesis",
        EntryKind::Register => "register",
        EntryKind::Tick => "tick",
        EntryKind::Command => "command",
        EntryKind::Session => "session",
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What an entry's payload says, in words.
pub(crate) struct Described {
    pub(crate) operation: &'static str,
    pub(crate) name: Option<String>,
    pub(crate) details: Vec<(&'static str, String)>,
    pub(crate) contents: Option<bytes::Bytes>,
}

impl Described {
    pub(crate) fn of(entry: &Entry) -> Self {
        let described = match entry.kind {
            EntryKind::Noop | EntryKind::Tick => Ok(Self::empty("-")),
            EntryKind::Command => Command::decode(&entry.payload).map(Self::of_command),
            EntryKind::Session => SessionCommand::decode(&entry.payload).and_then(Self::of_session),
            EntryKind::Genesis => Genesis::decode(&entry.payload).map(|genesis| {
                let members = genesis.incarnations.iter();
                let members: Vec<_> =
                    members.map(|(node, incarnation)| format!("{node}:{:016x}", incarnation.0)).collect();
                let mut described = Self::empty("-");
                described.details.push(("cluster_id", format!("{:032x}", genesis.cluster_id.0)));
                described.details.push(("incarnations", members.join(",")));
                described
            }),
            EntryKind::Register => Register::decode(&entry.payload).map(|register| {
                let mut described = Self::empty("-");
                described.details.push(("node", register.node.to_string()));
                described.details.push(("incarnation", format!("{:016x}", register.incarnation.0)));
                described
            }),
        };
        described.unwrap_or_else(|error| {
            let mut described = Self::empty("unknown");
            described.details.push(("payload", error.to_string()));
            described
        })
    }

    fn empty(operation: &'static str) -> Self {
        Self { operation, name: None, details: Vec::new(), contents: None }
    }

    /// A session's operation; for a change the command's, with the session's numbers behind it.
    fn of_session(command: SessionCommand) -> Result<Self, DecodeError> {
        Ok(match command {
            SessionCommand::Open { idle_ms, sessions_max } => {
                Self::empty("open").with("idle_ms", idle_ms).with("sessions_max", sessions_max)
            }
            SessionCommand::KeepAlive { session, acknowledged } => {
                Self::empty("keep-alive").with("session", session).with("acknowledged", acknowledged)
            }
            SessionCommand::Close { session } => Self::empty("close").with("session", session),
            SessionCommand::Change { session, sequence, acknowledged, command } => {
                Self::of_command(Command::decode(&command)?)
                    .with("session", session)
                    .with("sequence", sequence)
                    .with("acknowledged", acknowledged)
            }
        })
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.details.push((key, value.to_string()));
        self
    }

    fn of_command(command: Command) -> Self {
        let (operation, expected, expiry_seconds) = match command.operation {
            Operation::Write { expiry_seconds } => ("write", None, expiry_seconds),
            Operation::Cas { expected, expiry_seconds } => ("cas", Some(expected), expiry_seconds),
            Operation::Delete => ("delete", None, 0),
            Operation::DeleteIf { expected } => ("delete-if", Some(expected), 0),
        };
        let mut described = Self::empty(operation);
        described.name = Some(command.name);
        if let Some(expected) = expected {
            described.details.push(("expected", expected.to_string()));
        }
        if expiry_seconds != 0 {
            described.details.push(("expiry_seconds", expiry_seconds.to_string()));
        }
        if matches!(operation, "write" | "cas") {
            described.contents = Some(command.contents);
        }
        described
    }
}
