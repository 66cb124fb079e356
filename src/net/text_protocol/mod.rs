//! The text protocol, for telnet, netcat and clients of the origin systems: bytes to commands, outcomes to
//! bytes. No socket is touched here. `docs/text-protocol.md` describes it for its users.

pub mod reply;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use fsd_wire::client::Refusal;
use fsd_wire::{Command, Operation, ReceiveBuffer, Version};

use crate::file_store::{FileName, NameError};
use crate::limits::TEXT_LINE_BYTES_MAX;

/// What the decoder found next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextEvent {
    /// A whole command.
    Command(TextCommand),
    /// A command that breaks the rules. It is answered in its turn, as every command.
    Error {
        /// What is wrong; [`TextError::to_reply`] is the answer.
        error: TextError,
        /// The end of the command cannot be told: after the answer the connection is closed. No event
        /// follows.
        close: bool,
    },
}

/// A command that keeps the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextCommand {
    /// `read NAME`.
    Read {
        /// The file's name.
        name: String,
    },
    /// `write`, `cas` or `delete`. The contents are shared with the receive buffer.
    Change(Command),
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextError {
    /// The command is malformed.
    Malformed {
        /// Which rule is broken; one line.
        reason: &'static str,
    },
    /// The name breaks the rules for names.
    InvalidName(NameError),
    /// The contents are over the limit.
    TooLarge {
        /// The limit in bytes.
        max_bytes: u64,
    },
}

impl TextError {
    /// The line that answers the command.
    #[must_use]
    pub fn to_reply(self) -> Bytes {
        match self {
            Self::Malformed { .. } | Self::InvalidName(_) => reply::malformed(&self.to_string()),
            Self::TooLarge { max_bytes } => reply::refused(&Refusal::TooLarge { max_bytes }),
        }
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { reason } => f.write_str(reason),
            Self::InvalidName(error) => error.fmt(f),
            Self::TooLarge { max_bytes } => write!(f, "contents over the limit of {max_bytes} bytes"),
        }
    }
}

impl std::error::Error for TextError {}

/// Cuts a stream of bytes, fed in any pieces, into commands and errors, in their order.
#[derive(Debug)]
pub struct TextDecoder {
    buffer: ReceiveBuffer,
    max_file_bytes: u64,
    state: State,
}

/// What the next bytes of the stream are.
#[derive(Debug)]
enum State {
    /// The first line of a command.
    Line,
    /// The contents of a good command, and the line end behind them.
    Contents(Head),
    /// The contents of a command that was answered with an error, and the line end behind them.
    Skipped { contents_bytes_left: u64 },
    /// Nothing that can be understood.
    Closed,
}

/// A good first line that announces contents.
#[derive(Debug)]
struct Head {
    operation: Operation,
    name: FileName,
    contents_bytes: usize,
}

/// What a first line amounts to.
enum Line {
    /// A whole command.
    Command(TextCommand),
    /// Contents follow.
    Head(Head),
    /// An error; so many bytes of contents follow, and the connection goes on behind them.
    Skip { error: TextError, contents_bytes: u64 },
    /// An error; no contents follow, the connection goes on.
    Error(TextError),
    /// An error behind which nothing can be understood.
    Close(&'static str),
}

impl TextDecoder {
    /// A decoder that refuses contents of more than `max_file_bytes` bytes.
    #[must_use]
    pub fn new(max_file_bytes: u64) -> Self {
        Self { buffer: ReceiveBuffer::new(), max_file_bytes, state: State::Line }
    }

    /// Appends received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.feed(bytes);
    }

    /// Lets `read` put bytes straight behind those already received. Returns what `read` returned: the count
    /// of bytes, 0 at the end of the stream. What is held stays bounded if all events are taken between two
    /// calls: a command's line and contents at most, and what one read brought.
    pub fn feed_from<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        self.buffer.feed_from(read)
    }

    /// How many received bytes wait to become events.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// How much memory these bytes hold.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.buffer.allocated_bytes()
    }

    /// Whether a command has begun and is not at its end.
    #[must_use]
    pub fn is_amid_command(&self) -> bool {
        match self.state {
            State::Line => !self.buffer.is_empty(),
            State::Contents(_) | State::Skipped { .. } => true,
            State::Closed => false,
        }
    }

    /// Gives up the command whose contents have begun to come, for a receiver that has no room for them: they are
    /// skipped. Whether there was one; then the caller owes it an answer.
    pub fn skip_contents(&mut self) -> bool {
        let State::Contents(head) = &self.state else { return false };
        self.state = State::Skipped { contents_bytes_left: head.contents_bytes as u64 };
        let event = self.next_event();
        assert!(event.is_none(), "a command that was not whole has no event, but {event:?}");
        true
    }

    /// The next event, or `None` until more bytes come; for ever after an error that closes.
    pub fn next_event(&mut self) -> Option<TextEvent> {
        loop {
            // A step that is not at its end puts its state back.
            let step = match std::mem::replace(&mut self.state, State::Closed) {
                State::Line => self.step_line(),
                State::Contents(head) => self.step_contents(head),
                State::Skipped { contents_bytes_left } => self.step_skipped(contents_bytes_left),
                State::Closed => {
                    self.buffer.clear();
                    Step::Wait
                }
            };
            match step {
                Step::Event(event) => return Some(event),
                Step::Wait => return None,
                Step::GoOn => {}
            }
        }
    }

    fn step_line(&mut self) -> Step {
        self.state = State::Line;
        let Some(line) = self.take_line() else { return Step::Wait };
        match line {
            Line::Command(command) => Step::Event(TextEvent::Command(command)),
            Line::Head(head) => {
                self.state = State::Contents(head);
                Step::GoOn
            }
            Line::Skip { error, contents_bytes } => {
                self.state = State::Skipped { contents_bytes_left: contents_bytes };
                Step::Event(TextEvent::Error { error, close: false })
            }
            Line::Error(error) => Step::Event(TextEvent::Error { error, close: false }),
            Line::Close(reason) => self.close(reason),
        }
    }

    fn step_contents(&mut self, head: Head) -> Step {
        match self.line_end_at(head.contents_bytes) {
            LineEnd::Incomplete => {
                self.state = State::Contents(head);
                Step::Wait
            }
            LineEnd::Missing => self.close(CONTENTS_NOT_ENDED),
            LineEnd::Found => {
                let contents = match head.contents_bytes {
                    // An empty slice would keep the receive buffer alive for nothing.
                    0 => Bytes::new(),
                    count => self.buffer.split_to(count),
                };
                self.buffer.advance(LINE_END.len());
                self.state = State::Line;
                let name = head.name.as_str().to_string();
                let command = Command { operation: head.operation, name, contents };
                Step::Event(TextEvent::Command(TextCommand::Change(command)))
            }
        }
    }

    fn step_skipped(&mut self, contents_bytes_left: u64) -> Step {
        let skipped = usize::try_from(contents_bytes_left).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.advance(skipped);
        let contents_bytes_left = contents_bytes_left - skipped as u64;
        let line_end = if contents_bytes_left == 0 { self.line_end_at(0) } else { LineEnd::Incomplete };
        match line_end {
            LineEnd::Incomplete => {
                self.state = State::Skipped { contents_bytes_left };
                Step::Wait
            }
            LineEnd::Missing => self.close(CONTENTS_NOT_ENDED),
            LineEnd::Found => {
                self.buffer.advance(LINE_END.len());
                self.state = State::Line;
                Step::GoOn
            }
        }
    }

    fn close(&mut self, reason: &'static str) -> Step {
        self.state = State::Closed;
        self.buffer.clear();
        Step::Event(TextEvent::Error { error: malformed(reason), close: true })
    }

    /// Takes a first line off the buffer. Its bytes are judged in their order, so that it makes no difference
    /// in which pieces they came.
    fn take_line(&mut self) -> Option<Line> {
        let bytes = &self.buffer[..];
        let begin = &bytes[..bytes.len().min(TEXT_LINE_BYTES_MAX + 1)];
        let line_bytes = match begin.iter().position(|byte| *byte == b'\n') {
            Some(0) => return Some(Line::Close(BARE_NEWLINE)),
            Some(at) if bytes[at - 1] != b'\r' => return Some(Line::Close(BARE_NEWLINE)),
            Some(at) => at - 1,
            None if begin.len() <= TEXT_LINE_BYTES_MAX => return None,
            // The line is over, or it is too long.
            None if begin[TEXT_LINE_BYTES_MAX] != b'\r' => return Some(Line::Close(LINE_TOO_LONG)),
            None => match bytes.get(TEXT_LINE_BYTES_MAX + 1) {
                None => return None,
                Some(b'\n') => TEXT_LINE_BYTES_MAX,
                Some(_) => return Some(Line::Close(LINE_TOO_LONG)),
            },
        };
        let line = self.buffer.split_to(line_bytes + LINE_END.len());
        Some(parse_line(&line[..line_bytes], self.max_file_bytes))
    }

    /// Whether a line end lies at `at` in the buffer; told by the first byte already if it does not.
    fn line_end_at(&self, at: usize) -> LineEnd {
        let found = self.buffer.get(at..).unwrap_or_default();
        if found.starts_with(LINE_END) {
            LineEnd::Found
        } else if LINE_END.starts_with(found) {
            LineEnd::Incomplete
        } else {
            LineEnd::Missing
        }
    }
}

/// What a look at the next bytes came to.
enum Step {
    Event(TextEvent),
    /// The state is another one: look again.
    GoOn,
    /// More bytes are needed.
    Wait,
}

enum LineEnd {
    Found,
    Missing,
    Incomplete,
}

/// Reads a first line, which comes without its line end.
fn parse_line(line: &[u8], max_file_bytes: u64) -> Line {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let command = words.next().unwrap_or_default();
    let arguments: Vec<&[u8]> = words.collect();
    match (command, &arguments[..]) {
        (b"read", [name]) => match parse_name(name) {
            Ok(name) => Line::Command(TextCommand::Read { name: name.as_str().to_string() }),
            Err(error) => Line::Error(error),
        },
        (b"read", _) => Line::Error(malformed("usage: read NAME")),
        (b"delete", [name]) => match parse_name(name) {
            Ok(name) => {
                let name = name.as_str().to_string();
                let contents = Bytes::new();
                Line::Command(TextCommand::Change(Command { operation: Operation::Delete, name, contents }))
            }
            Err(error) => Line::Error(error),
        },
        (b"delete", _) => Line::Error(malformed("usage: delete NAME")),
        (b"write", [name, contents_bytes, rest @ ..]) => match parse_number(contents_bytes) {
            Some(contents_bytes) => {
                let parsed = parse_write(name, None, rest, "usage: write NAME NUMBYTES [EXPTIME]");
                head(parsed, contents_bytes, max_file_bytes)
            }
            None => Line::Close(BAD_NUMBYTES),
        },
        (b"write", _) => Line::Close("usage: write NAME NUMBYTES [EXPTIME]"),
        (b"cas", [name, version, contents_bytes, rest @ ..]) => match parse_number(contents_bytes) {
            Some(contents_bytes) => {
                let parsed =
                    parse_write(name, Some(version), rest, "usage: cas NAME VERSION NUMBYTES [EXPTIME]");
                head(parsed, contents_bytes, max_file_bytes)
            }
            None => Line::Close(BAD_NUMBYTES),
        },
        (b"cas", _) => Line::Close("usage: cas NAME VERSION NUMBYTES [EXPTIME]"),
        _ => Line::Close("unknown command; there are read, write, cas and delete"),
    }
}

/// What `write` and `cas` are to do, with all that stands in their line but NUMBYTES.
fn parse_write(
    name: &[u8],
    version: Option<&[u8]>,
    rest: &[&[u8]],
    usage: &'static str,
) -> Result<(Operation, FileName), TextError> {
    let name = parse_name(name)?;
    let expected = version.map(|word| parse_number(word).ok_or(malformed(BAD_VERSION))).transpose()?;
    let expiry_seconds = match rest {
        [] => 0,
        [word] => parse_number(word).ok_or(malformed(BAD_EXPTIME))?,
        _ => return Err(malformed(usage)),
    };
    let operation = match expected {
        Some(expected) => Operation::Cas { expected: Version(expected), expiry_seconds },
        None => Operation::Write { expiry_seconds },
    };
    Ok((operation, name))
}

fn head(parsed: Result<(Operation, FileName), TextError>, contents_bytes: u64, max_file_bytes: u64) -> Line {
    let (operation, name) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return Line::Skip { error, contents_bytes },
    };
    match usize::try_from(contents_bytes) {
        Ok(contents_bytes) if contents_bytes as u64 <= max_file_bytes => {
            Line::Head(Head { operation, name, contents_bytes })
        }
        _ => Line::Skip { error: TextError::TooLarge { max_bytes: max_file_bytes }, contents_bytes },
    }
}

fn parse_name(word: &[u8]) -> Result<FileName, TextError> {
    std::str::from_utf8(word)
        .map_err(|_| NameError { reason: "it is not UTF-8" })
        .and_then(FileName::parse)
        .map_err(TextError::InvalidName)
}

/// A number of plain decimal digits that fits 64 bits: no sign, no exponent.
fn parse_number(word: &[u8]) -> Option<u64> {
    if !word.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn malformed(reason: &'static str) -> TextError {
    TextError::Malformed { reason }
}

const LINE_END: &[u8] = b"\r\n";
const BARE_NEWLINE: &str = "lines end in \\r\\n, not in \\n alone";
const LINE_TOO_LONG: &str = "the line is longer than 500 bytes";
const BAD_NUMBYTES: &str = "NUMBYTES is not a number";
const BAD_VERSION: &str = "VERSION is not a number";
const BAD_EXPTIME: &str = "EXPTIME is not a number";
const CONTENTS_NOT_ENDED: &str = "the contents are not followed by \\r\\n";

const _: () = assert!(TEXT_LINE_BYTES_MAX == 500, "the reason above names it");
