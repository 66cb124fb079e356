//! Runs a command line and turns what became of it into an exit status.

mod arguments;
mod backup;
mod commands;
mod output;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use fsclient::{ClientError, Refusal, StreamError};

use arguments::Action;

const EXIT_OTHER: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_NOT_FOUND: u8 = 3;
const EXIT_MISMATCH: u8 = 4;
const EXIT_UNAVAILABLE: u8 = 5;
const EXIT_UNKNOWN: u8 = 6;

/// Why a command did not succeed.
#[derive(Debug)]
enum Failure {
    /// The cluster did not do it; with what was asked of it.
    Client { what: String, error: ClientError },
    /// A file or a standard stream of this machine failed; with what it was needed for.
    Io { what: String, error: io::Error },
    /// A backup is not what it must be; which, and where.
    Damaged { what: String, error: StreamError },
    /// There is a file already where one was to be made.
    Exists { path: String },
    /// No node answered `status`.
    NobodyAnswers,
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Client { error, .. } => match error {
                ClientError::Refused(refusal) => match refusal {
                    Refusal::NotFound => EXIT_NOT_FOUND,
                    Refusal::VersionMismatch { .. } | Refusal::Conflict { .. } => EXIT_MISMATCH,
                    Refusal::InvalidName { .. } => EXIT_USAGE,
                    _ => EXIT_OTHER,
                },
                ClientError::Usage(_) => EXIT_USAGE,
                ClientError::Unavailable { .. } => EXIT_UNAVAILABLE,
                ClientError::Unknown { .. } => EXIT_UNKNOWN,
                ClientError::WrongServers { .. } => EXIT_OTHER,
            },
            Self::Io { .. } | Self::Damaged { .. } | Self::Exists { .. } => EXIT_OTHER,
            Self::NobodyAnswers => EXIT_UNAVAILABLE,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client { what, error } => write!(f, "{what}: {error}"),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Damaged { what, error } => write!(f, "{what}: {error}"),
            Self::Exists { path } => write!(f, "{path} is there already: --force replaces it"),
            Self::NobodyAnswers => write!(f, "status: no node answers; check -s, -c or FSD_SERVERS"),
        }
    }
}

/// Runs the tool with these arguments, the program's name left out.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let action = words
        .map(|word| word.into_string().map_err(|word| format!("{} is not UTF-8", word.display())))
        .collect::<Result<Vec<String>, String>>()
        .and_then(|words| arguments::parse(&words, |variable| std::env::var(variable).ok()));
    let result = match action {
        Ok(Action::Run(arguments)) => commands::run(&arguments),
        Ok(Action::Print(text)) => output::print(text.as_bytes()),
        Err(reason) => {
            eprintln!("fsclient: {reason}");
            eprintln!("Usage: {}\n`fsclient -h` tells more.", arguments::USAGE);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever closes the pipe has seen enough: `fsclient list | head` is no failure.
        Err(Failure::Io { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fsclient: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}
