//! One socket and what is spoken on it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest, Outcome, Refusal};
use fsd_wire::hello::{Hello, HelloReply};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{DecodeError, Frame, FrameDecoder, Message, NodeId, RequestId};
use mio::net::TcpStream;

use super::ListenerKind;
use super::budget::QUEUE_KEPT_MAX;
use super::deadlines::{Place, Watch};
use super::http_session::{HttpPage, HttpReply, HttpSession, HttpStep};
use super::measurements::{Breach, ProtocolError};
use super::output::{Output, Progress};
use super::text_session::{TextSession, TextStep};
use crate::limits;

/// A socket, its session, and what waits to be written to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) generation: u32,
    pub(super) session: Session,
    pub(super) output: Output,
    /// The socket may have bytes: it has not said that it would block since it last said that it has some.
    pub(super) readable: bool,
    /// It stands on the list of connections to be read.
    pub(super) on_read_list: bool,
    /// It stands on the list of connections to be written.
    pub(super) on_write_list: bool,
    /// It was not read further for the sake of replies that must leave first.
    pub(super) held: bool,
    /// The other side sends no more.
    pub(super) end_of_input: bool,
    pub(super) phase: Phase,
    /// How many bytes came, went, and what whole messages there were: by these, progress is told from standing still.
    pub(super) received_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) messages: u64,
    /// What it was counted for in the budget of the clients when that was last looked at.
    pub(super) counted_bytes: usize,
    pub(super) input_watch: Watch,
    pub(super) output_watch: Watch,
    pub(super) deadline: Place,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Requests are read and answered.
    Open,
    /// No more is read; what was said is still to be written.
    Ending,
    /// All is written and the other side was told; what it still sends is thrown away, so that the last reply
    /// is not lost to a reset.
    Lingering,
    /// To be closed at the end of the turn.
    Closed,
}

/// What is spoken on a connection.
#[derive(Debug)]
pub(super) enum Session {
    /// A client of the binary protocol.
    Client { decoder: FrameDecoder, greeted: bool, in_flight: InFlight },
    /// A client of the text protocol.
    Text(Box<TextSession>),
    /// A client for which there is no room: it is told so, and never read.
    Refused(ListenerKind),
    /// A reader of the pages.
    Http(Box<HttpSession>),
    /// A connection that a peer opened; `None` until it was welcomed.
    Accepted { decoder: FrameDecoder, node: Option<NodeId> },
    /// A connection that this node opened.
    Dialled { decoder: FrameDecoder, node: NodeId, stage: DialStage },
}

/// How far a dialled connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DialStage {
    /// Not yet known to be connected.
    Connecting,
    /// The hello is sent.
    Greeted,
    /// The reply was good: messages flow.
    Open,
}

/// What a connection has for the loop.
#[derive(Debug)]
pub(super) enum Step {
    /// A client's first message.
    ClientHello(Hello),
    /// A client's request.
    Request(ClientRequest),
    /// The request for a page.
    Page(HttpPage),
    /// The first message on a connection that a peer opened.
    PeerHello(Hello),
    /// The answer to the hello that this node sent.
    PeerReply(NodeId, HelloReply),
    /// A message of a peer that was welcomed.
    Peer(NodeId, PeerMessage),
    /// Something was done; ask again.
    Again,
    /// Nothing until replies have left.
    Held,
    /// Nothing until more bytes come.
    NeedBytes,
    /// The connection ends once its output is written.
    Ended,
    /// The other side broke the rules and was told so; ask again.
    Refused(Breach),
    /// The other side broke the rules of frames: there is nothing to say to it.
    Broken(ProtocolError),
}

impl Connection {
    pub(super) fn new(socket: TcpStream, address: SocketAddr, generation: u32, session: Session) -> Self {
        Self {
            socket,
            address,
            generation,
            output: Output::default(),
            readable: true,
            on_read_list: false,
            on_write_list: false,
            held: false,
            end_of_input: false,
            phase: if matches!(session, Session::Refused(_)) { Phase::Ending } else { Phase::Open },
            received_bytes: 0,
            written_bytes: 0,
            messages: 0,
            counted_bytes: 0,
            input_watch: Watch::new(),
            output_watch: Watch::new(),
            deadline: Place::default(),
            session,
        }
    }

    /// The next thing that the bytes received so far mean.
    pub(super) fn step(&mut self) -> Step {
        if self.output.held_bytes() > limits::CLIENT_OUTPUT_BYTES_PAUSE && self.is_client() {
            return Step::Held;
        }
        match &mut self.session {
            Session::Client { decoder, greeted, in_flight } => {
                if in_flight.len() >= limits::PIPELINED_REQUESTS_MAX {
                    return Step::Held;
                }
                let greeted = *greeted;
                framed(decoder, |frame| {
                    if greeted {
                        ClientRequest::decode(frame).map(Step::Request)
                    } else {
                        Hello::decode(frame).map(Step::ClientHello)
                    }
                })
            }
            Session::Text(session) => {
                let step = session.step();
                self.output.push(session.take_replies());
                match step {
                    TextStep::Request(request) => Step::Request(request),
                    TextStep::Answered => Step::Again,
                    TextStep::Refused => Step::Refused(Breach::TextCommand),
                    TextStep::Held => Step::Held,
                    TextStep::NeedBytes => Step::NeedBytes,
                    TextStep::Ended => Step::Ended,
                }
            }
            Session::Refused(_) => unreachable!("it is never read"),
            // One reply at a time: what a client does not take is never more than one page.
            Session::Http(_) if !self.output.is_empty() => Step::Held,
            Session::Http(session) => match session.step() {
                HttpStep::Page(page) => Step::Page(page),
                HttpStep::Answered(reply) => {
                    self.output.push([reply]);
                    Step::Again
                }
                HttpStep::Broken { reply, reason } => {
                    log::debug!("a request for a page from {} was refused: {reason}", self.address);
                    self.output.push([reply]);
                    Step::Refused(Breach::HttpRequest)
                }
                HttpStep::Held => Step::Held,
                HttpStep::NeedBytes => Step::NeedBytes,
                HttpStep::Ended => Step::Ended,
            },
            Session::Accepted { decoder, node } => {
                let node = *node;
                framed(decoder, |frame| match node {
                    Some(node) => PeerMessage::decode(frame).map(|message| Step::Peer(node, message)),
                    None => Hello::decode(frame).map(Step::PeerHello),
                })
            }
            Session::Dialled { decoder, node, stage } => {
                let (node, stage) = (*node, *stage);
                framed(decoder, |frame| match stage {
                    DialStage::Open => PeerMessage::decode(frame).map(|message| Step::Peer(node, message)),
                    DialStage::Connecting | DialStage::Greeted => {
                        HelloReply::decode(frame).map(|reply| Step::PeerReply(node, reply))
                    }
                })
            }
        }
    }

    /// Reads once from the socket, straight into the session's buffer. Returns the count of bytes; 0 when the
    /// socket has no more for now, or for ever (`end_of_input`).
    pub(super) fn receive(&mut self) -> io::Result<usize> {
        let socket = &mut self.socket;
        let read = |buffer: &mut [u8]| loop {
            match socket.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        };
        let result = match &mut self.session {
            Session::Client { decoder, .. }
            | Session::Accepted { decoder, .. }
            | Session::Dialled { decoder, .. } => decoder.feed_from(read),
            Session::Text(session) => session.decoder.feed_from(read),
            Session::Refused(_) => unreachable!("it is never read"),
            Session::Http(session) => session.feed_from(read),
        };
        match result {
            Ok(0) => {
                self.end_of_input = true;
                self.readable = false;
                Ok(0)
            }
            Ok(count) => {
                self.received_bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Throws away what still comes on a lingering connection; `true` once it may be closed.
    pub(super) fn drain(&mut self) -> bool {
        let mut scratch = [0; 4096];
        for _ in 0..limits::LINGER_READS_PER_TURN_MAX {
            match self.socket.read(&mut scratch) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return false;
                }
                Err(_) => return true,
            }
        }
        false
    }

    /// Puts a reply into the output, in its place. A connection that is on its way out takes none.
    pub(super) fn reply(&mut self, reply: &ClientReply) {
        match &mut self.session {
            Session::Client { in_flight, .. } => {
                in_flight.remove(reply.id);
                self.output.push(reply.to_frame());
            }
            Session::Text(session) => {
                session.answer(reply);
                self.output.push(session.take_replies());
            }
            Session::Http(_) | Session::Accepted { .. } | Session::Dialled { .. } | Session::Refused(_) => {
                unreachable!("only clients send requests")
            }
        }
    }

    /// Gives up the request that has begun to come, and answers it as busy. Whether there was one.
    pub(super) fn refuse_begun(&mut self) -> bool {
        match &mut self.session {
            Session::Client { decoder, greeted: true, .. } => {
                let Some(id) = decoder.skip_frame::<{ size_of::<u64>() }>() else { return false };
                let id = RequestId(u64::from_le_bytes(id));
                self.output.push(ClientReply { id, outcome: Outcome::Refused(Refusal::Busy) }.to_frame());
                true
            }
            Session::Text(session) => {
                let refused = session.refuse_begun();
                self.output.push(session.take_replies());
                refused
            }
            _ => false,
        }
    }

    /// Puts a page into the output.
    pub(super) fn reply_page(&mut self, reply: &HttpReply) {
        let Session::Http(session) = &mut self.session else {
            unreachable!("only readers of pages ask for them");
        };
        let reply = session.answer(reply);
        self.output.push([reply]);
    }

    /// Puts pieces at the end of the output.
    pub(super) fn send(&mut self, pieces: Vec<Bytes>) {
        self.output.push(pieces);
    }

    /// Writes what the socket takes, up to the budget.
    pub(super) fn write(&mut self, budget_bytes: usize) -> io::Result<Progress> {
        let before = self.output.bytes();
        let result = self.output.write_to(&mut self.socket, budget_bytes);
        self.written_bytes += (before - self.output.bytes()) as u64;
        let progress = result?;
        if progress == Progress::Done && self.phase == Phase::Ending {
            self.phase = if self.end_of_input || self.socket.shutdown(Shutdown::Write).is_err() {
                Phase::Closed
            } else {
                Phase::Lingering
            };
            self.readable = true;
        }
        Ok(progress)
    }

    /// Whether a client is on the other side.
    pub(super) fn is_client(&self) -> bool {
        matches!(self.session, Session::Client { .. } | Session::Text(_))
    }

    /// Whether no request waits for its reply.
    pub(super) fn is_idle(&self) -> bool {
        match &self.session {
            Session::Client { in_flight, .. } => in_flight.is_empty(),
            Session::Text(session) => session.is_idle(),
            Session::Http(session) => session.is_idle(),
            Session::Accepted { .. } | Session::Dialled { .. } | Session::Refused(_) => true,
        }
    }

    /// Whether a client's message has begun to come and is not at its end.
    pub(super) fn is_amid_message(&self) -> bool {
        match &self.session {
            Session::Client { decoder, .. } => decoder.is_amid_frame(),
            Session::Text(session) => session.decoder.is_amid_command(),
            Session::Http(_) | Session::Accepted { .. } | Session::Dialled { .. } | Session::Refused(_) => {
                false
            }
        }
    }

    /// What has come of a client's message, and the memory that it holds.
    pub(super) fn input_bytes(&self) -> usize {
        match &self.session {
            Session::Client { decoder, .. } => decoder.allocated_bytes(),
            Session::Text(session) => session.decoder.allocated_bytes(),
            Session::Http(_) | Session::Accepted { .. } | Session::Dialled { .. } | Session::Refused(_) => 0,
        }
    }

    /// Replies that the client has not taken, those included that wait for others before them.
    pub(super) fn unsent_bytes(&self) -> usize {
        match &self.session {
            Session::Text(session) => self.output.held_bytes() + session.waiting_reply_bytes(),
            _ => self.output.held_bytes(),
        }
    }

    /// What the connection counts for in the budget of the clients; peers have bounds of their own.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.session {
            Session::Client { decoder, in_flight, .. } => {
                decoder.allocated_bytes() + in_flight.bytes() + self.output.held_bytes()
            }
            Session::Text(session) => session.held_bytes() + self.output.held_bytes(),
            Session::Http(_) | Session::Accepted { .. } | Session::Dialled { .. } | Session::Refused(_) => 0,
        }
    }
}

/// The requests of a binary client that are not answered, with what each counts for. Replies come in any order, but
/// mostly in that of the requests: the search is short.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    requests: VecDeque<(RequestId, usize)>,
    bytes: usize,
}

impl InFlight {
    pub(super) fn add(&mut self, id: RequestId, bytes: usize) {
        self.requests.push_back((id, bytes));
        self.bytes += bytes;
    }

    /// Takes a request out that is answered.
    ///
    /// # Panics
    /// If there is none with this id: the daemon answers each request once.
    pub(super) fn remove(&mut self, id: RequestId) {
        let at = self.requests.iter().position(|(found, _)| *found == id).expect("a reply has its request");
        let (_, bytes) = self.requests.remove(at).expect("it was just found");
        self.bytes -= bytes;
        if self.requests.is_empty() && self.requests.capacity() > QUEUE_KEPT_MAX {
            self.requests = VecDeque::new();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn framed(decoder: &mut FrameDecoder, decode: impl FnOnce(&Frame) -> Result<Step, DecodeError>) -> Step {
    match decoder.next_frame() {
        Ok(Some(frame)) => decode(&frame).unwrap_or_else(|error| Step::Broken(ProtocolError::Message(error))),
        Ok(None) => Step::NeedBytes,
        Err(error) => Step::Broken(ProtocolError::Frame(error)),
    }
}
