//! Asks a node what it knows of the cluster, as any client can, without ever waiting for it.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use fsd_wire::client::{ClientReply, ClientRequest, NodeStatus, Operation, Outcome};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, Role};
use fsd_wire::{FrameDecoder, Message, NodeId, RequestId, Term};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// How often a node is asked.
const INTERVAL_MS: u64 = 20;
/// How long it has to answer.
const TIMEOUT_MS: u32 = 500;
/// A status is far shorter.
const REPLY_BYTES_MAX: u32 = 64 * 1024;

pub(super) struct Probe {
    address: SocketAddr,
    token: Token,
    question: Option<Question>,
    status: Option<NodeStatus>,
    /// When the next question is due, or the present one is given up.
    next_ms: u64,
}

/// A connection for one question.
struct Question {
    stream: TcpStream,
    unsent: Vec<u8>,
    decoder: FrameDecoder,
}

/// How far a question is.
enum Progress {
    Waiting,
    Answered(Box<NodeStatus>),
    Failed,
}

impl Probe {
    pub(super) fn new(address: SocketAddr, token: Token) -> Self {
        Self { address, token, question: None, status: None, next_ms: 0 }
    }

    /// When [`Probe::turn`] has something to do, whatever the node does.
    pub(super) fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// The leader that the node knows, and its term; once the node has committed something of its log, as a
    /// client's request needs it to.
    pub(super) fn leader(&self) -> Option<(Term, NodeId)> {
        let status = self.status.as_ref().filter(|status| status.commit_index.0 > 0)?;
        Some((status.term, status.leader?))
    }

    /// What it said is of no worth any more.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.question = None;
        self.status = None;
        self.next_ms = now_ms + INTERVAL_MS;
    }

    pub(super) fn turn(&mut self, now_ms: u64, registry: &Registry) {
        if let Some(question) = &mut self.question {
            match question.go_on() {
                Progress::Waiting if now_ms < self.next_ms => return,
                Progress::Answered(status) => {
                    self.question = None;
                    self.status = Some(*status);
                    self.next_ms = now_ms + INTERVAL_MS;
                }
                Progress::Waiting | Progress::Failed => self.forget(now_ms),
            }
        }
        if now_ms >= self.next_ms {
            self.question = Question::ask(self.address, self.token, registry);
            self.next_ms = now_ms + if self.question.is_some() { u64::from(TIMEOUT_MS) } else { INTERVAL_MS };
        }
    }
}

impl Question {
    fn ask(address: SocketAddr, token: Token, registry: &Registry) -> Option<Self> {
        let mut stream = TcpStream::connect(address).ok()?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).ok()?;
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            cluster: String::new(),
            role: Role::Client,
        };
        let request =
            ClientRequest { id: RequestId(1), timeout_ms: TIMEOUT_MS, operation: Operation::Status };
        let unsent = [hello.to_frame().concat(), request.to_frame().concat()].concat();
        Some(Self { stream, unsent, decoder: FrameDecoder::new(REPLY_BYTES_MAX) })
    }

    fn go_on(&mut self) -> Progress {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if may_go_on(error.kind()) => return Progress::Waiting,
                Err(_) => return Progress::Failed,
            }
        }
        loop {
            match self.decoder.feed_from(|room| self.stream.read(room)) {
                Ok(0) => return Progress::Failed,
                Ok(_) => {}
                Err(error) if may_go_on(error.kind()) => return Progress::Waiting,
                Err(_) => return Progress::Failed,
            }
            loop {
                match self.decoder.next_frame() {
                    Ok(None) => break,
                    Err(_) => return Progress::Failed,
                    // The first frame answers the hello.
                    Ok(Some(frame)) => {
                        if let Ok(ClientReply { outcome: Outcome::Status(status), .. }) =
                            ClientReply::decode(&frame)
                        {
                            return Progress::Answered(Box::new(status));
                        }
                    }
                }
            }
        }
    }
}

/// The connection is not made yet, or the node has not answered yet.
fn may_go_on(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
