//! One node: its process, what that says, and when it is started again.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use fsd_wire::NodeId;
use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};

use super::message::say_for;
use super::restarts::{Kind, Restarts, Verdict};

/// A longer line is cut into several: a node's lines are far shorter.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// What is read of a node's output in one turn: one that talks without end must not silence the others.
const OUTPUT_BYTES_PER_TURN: usize = 64 * 1024;

pub(super) struct Node {
    pub(super) id: NodeId,
    program: PathBuf,
    conf: PathBuf,
    token: Token,
    state: State,
    restarts: Restarts,
    started_ms: u64,
}

enum State {
    Running(Running),
    /// It was not started yet, or is started again at that time.
    Waiting {
        start_at_ms: Option<u64>,
    },
    GivenUp,
}

struct Running {
    child: Child,
    /// The node ends when this is dropped, and when this process ends.
    input: Option<ChildStdin>,
    output: Receiver,
    lines: Lines,
    more_output: bool,
}

/// How a node's process ended.
#[derive(Debug)]
pub(super) enum NodeEnd {
    NotStarted(io::Error),
    Ended(ExitStatus),
}

impl NodeEnd {
    fn kind(&self) -> Kind {
        match self {
            Self::Ended(status) => match status.code() {
                None | Some(0) => Kind::FromOutside,
                Some(2) => Kind::Configuration,
                Some(_) => Kind::Fault,
            },
            Self::NotStarted(_) => Kind::Fault,
        }
    }

    pub(super) fn is_configuration(&self) -> bool {
        self.kind() == Kind::Configuration
    }
}

impl fmt::Display for NodeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "cannot be started ({error})"),
            Self::Ended(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "ended with exit status {code}"),
                (None, Some(signal)) => write!(f, "was killed by signal {signal}"),
                (None, None) => write!(f, "ended ({status})"),
            },
        }
    }
}

impl Node {
    pub(super) fn new(id: NodeId, program: PathBuf, conf: PathBuf, token: Token) -> Self {
        let state = State::Waiting { start_at_ms: None };
        Self { id, program, conf, token, state, restarts: Restarts::default(), started_ms: 0 }
    }

    pub(super) fn start(&mut self, now_ms: u64, registry: &Registry) -> io::Result<()> {
        self.started_ms = now_ms;
        let mut child = Command::new(&self.program)
            .arg("-c")
            .arg(&self.conf)
            .arg("--exit-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C is for the demo, which then ends its nodes, and is not to be taken for
            // a node's end that needs another start.
            .process_group(0)
            .spawn()?;
        let input = child.stdin.take();
        let mut output = Receiver::from(child.stderr.take().expect("it is piped"));
        let watched = output
            .set_nonblocking(true)
            .and_then(|()| registry.register(&mut output, self.token, Interest::READABLE));
        if let Err(error) = watched {
            // A node whose lines nobody reads would stand still one day.
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        let lines = Lines::default();
        self.state = State::Running(Running { child, input, output, lines, more_output: false });
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.state, State::GivenUp)
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        match &self.state {
            State::Running(running) => Some(running.child.id()),
            _ => None,
        }
    }

    /// When it is to be started again.
    pub(super) fn start_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Waiting { start_at_ms } => start_at_ms,
            _ => None,
        }
    }

    /// Whether it said more than was read in this turn.
    pub(super) fn has_more_output(&self) -> bool {
        matches!(&self.state, State::Running(running) if running.more_output)
    }

    /// Says what the node said, line by line.
    pub(super) fn pass_on_output(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.read(self.id, OUTPUT_BYTES_PER_TURN);
        }
    }

    /// How its process ended, if it did since the last call.
    pub(super) fn take_end(&mut self) -> Option<NodeEnd> {
        let State::Running(running) = &mut self.state else { return None };
        // An error would mean that it was waited for already: it has ended either way.
        let status = running.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(0)))?;
        // Its last words come before what is said of its end; they are no more than the pipe holds.
        running.read(self.id, usize::MAX);
        running.lines.finish(|line| say_for(self.id, line));
        self.state = State::Waiting { start_at_ms: None };
        Some(NodeEnd::Ended(status))
    }

    /// What to do after an end.
    pub(super) fn judge(&mut self, now_ms: u64, end: &NodeEnd) -> Verdict {
        let verdict = self.restarts.judge(end.kind(), now_ms - self.started_ms);
        self.state = match verdict {
            Verdict::StartAfter { pause_ms } => State::Waiting { start_at_ms: Some(now_ms + pause_ms) },
            Verdict::GiveUp => State::GivenUp,
        };
        verdict
    }

    /// Asks it to end: to the node, this is what SIGTERM is.
    pub(super) fn request_end(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.input = None;
        }
    }

    pub(super) fn kill(&mut self) {
        if let State::Running(running) = &mut self.state {
            // It fails only for a process that has ended.
            let _ = running.child.kill();
        }
    }
}

impl Running {
    fn read(&mut self, id: NodeId, bytes_max: usize) {
        let mut bytes = [0; 8 * 1024];
        let mut read = 0;
        self.more_output = true;
        while read < bytes_max {
            match self.output.read(&mut bytes) {
                Ok(count @ 1..) => {
                    read += count;
                    self.lines.feed(&bytes[..count], |line| say_for(id, line));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now, or for ever.
                Ok(0) | Err(_) => {
                    self.more_output = false;
                    return;
                }
            }
        }
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    pub(super) fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        self.begun.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = self.begun[start..].iter().position(|byte| *byte == b'\n') {
            take(&self.begun[start..start + end]);
            start += end + 1;
        }
        self.begun.drain(..start);
        if self.begun.len() > LINE_BYTES_MAX {
            self.finish(take);
        }
    }

    /// Takes what has no line end.
    pub(super) fn finish(&mut self, mut take: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            take(&self.begun);
            self.begun.clear();
        }
    }
}
