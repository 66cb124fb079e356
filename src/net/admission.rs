//! Who and what is let in: connections up to their number, requests and replies up to their bytes.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use fsd_wire::client::{ClientReply, ClientRequest, Outcome, Refusal};
use fsd_wire::hello::HelloStatus;
use fsd_wire::{FrameDecoder, Message};
use mio::net::TcpStream;
use rustix::net::sockopt;

use super::budget::held_by_request;
use super::connection::{Connection, InFlight, Session};
use super::http_session::HttpSession;
use super::text_session::TextSession;
use super::{ClientProtocol, ConnectionId, Event, ListenerKind, Net};
use crate::limits;

const TOO_MANY: &str = "too many connections";
/// What a reply may have beside what is counted of it.
const REPLY_HEAD_BYTES: usize = 128;

impl Net {
    pub(super) fn accept(&mut self, now_ms: u64, listener: usize) {
        let kind = self.listeners[listener].kind;
        let accepts_max = match kind {
            ListenerKind::Peer => limits::PEER_ACCEPTS_PER_TURN_MAX,
            _ => limits::ACCEPTS_PER_TURN_MAX,
        };
        for _ in 0..accepts_max {
            if !self.listeners[listener].ready || self.accept_paused {
                return;
            }
            match self.listeners[listener].socket.accept() {
                Ok((socket, address)) => {
                    self.accept_complaint = false;
                    self.welcome_socket(now_ms, kind, socket, address);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.listeners[listener].ready = false,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of file descriptors, most likely. The next sweep tries again.
                    self.accept_paused = true;
                    if !self.accept_complaint {
                        log::warn!("cannot accept connections for now: {error}");
                        self.accept_complaint = true;
                    }
                    return;
                }
            }
        }
    }

    fn welcome_socket(&mut self, now_ms: u64, kind: ListenerKind, socket: TcpStream, address: SocketAddr) {
        let session = match kind {
            ListenerKind::Peer => {
                if self.accepted_peers >= limits::PEER_CONNECTIONS_MAX {
                    self.turn_oldest_stranger_out(now_ms);
                }
                let decoder = FrameDecoder::new(limits::HELLO_FRAME_BYTES_MAX);
                Session::Accepted { decoder, node: None }
            }
            ListenerKind::Client | ListenerKind::Text if self.clients >= self.settings.max_clients => {
                self.refuse_socket(kind, socket, address);
                return;
            }
            ListenerKind::Http if self.page_readers >= limits::HTTP_CONNECTIONS_MAX => {
                self.measurements.refused(kind.into());
                log::debug!("a connection from {address} was closed: there are too many");
                return;
            }
            ListenerKind::Http => Session::Http(Box::new(HttpSession::new())),
            ListenerKind::Client => Session::Client {
                decoder: FrameDecoder::new(limits::HELLO_FRAME_BYTES_MAX),
                greeted: false,
                in_flight: InFlight::default(),
            },
            ListenerKind::Text => Session::Text(Box::new(TextSession::new(
                self.settings.max_file_bytes,
                self.settings.forwards_changes,
            ))),
        };
        let result = prepare(&socket).and_then(|()| self.add(socket, address, session));
        match result {
            Ok(id) => {
                self.measurements.accepted(kind.into());
                self.list_for_reading(id);
            }
            Err(error) => log::debug!("a connection from {address} was lost: {error}"),
        }
    }

    /// Makes room at the peers' port. Peers that were welcomed are a few, and stay; the oldest of the others had the
    /// longest time to say who it is.
    fn turn_oldest_stranger_out(&mut self, now_ms: u64) {
        let id = *self.unknown_peers.front().expect("members alone are fewer than there is room for");
        if let Some(connection) = self.get(id) {
            let address = connection.address;
            self.notices.say(format_args!(
                "the connection with {address} is closed: another one came to the peers' port, which is full, and \
                 this one has not been welcomed"
            ));
        }
        self.remove(now_ms, id);
    }

    /// Tells a client that it is one too many, as far as that can be done without waiting for it.
    fn refuse_socket(&mut self, kind: ListenerKind, mut socket: TcpStream, address: SocketAddr) {
        self.measurements.refused(kind.into());
        self.notices.say(format_args!("a connection from {address} was refused: {TOO_MANY}"));
        let words = match kind {
            ListenerKind::Text => vec![format!("ERR_INTERNAL {TOO_MANY}\r\n").into()],
            _ => self.hello_reply(HelloStatus::Busy, TOO_MANY.into()).to_frame(),
        };
        if self.refused >= limits::REFUSED_CONNECTIONS_MAX {
            // What it has sent already may cost it these words: closed unread, they are lost with it.
            let _ = socket.write(&words.concat());
            return;
        }
        match self.add(socket, address, Session::Refused(kind)) {
            Ok(id) => {
                self.connections[id.key as usize].send(words);
                self.list_for_writing(id);
                self.settle_accounts(id);
            }
            Err(error) => log::debug!("a connection from {address} was lost: {error}"),
        }
    }

    /// Takes a request, unless what all clients hold is over its bound already: then it is answered at once.
    pub(super) fn admit_request(
        &mut self,
        id: ConnectionId,
        request: ClientRequest,
        events: &mut Vec<Event>,
    ) {
        let bytes = held_by_request(&request);
        let Some(connection) = self.get(id) else { return };
        let protocol = match &mut connection.session {
            Session::Client { in_flight, .. } => {
                in_flight.add(request.id, bytes);
                ClientProtocol::Binary
            }
            _ => ClientProtocol::Text,
        };
        self.settle_accounts(id);
        if self.budget.is_over(bytes) {
            self.say_busy(id, "a request");
            self.reply(id, &ClientReply { id: request.id, outcome: Outcome::Refused(Refusal::Busy) });
        } else {
            self.request_bytes_in_turn += bytes;
            events.push(Event::Request { connection: id, protocol, request });
        }
    }

    /// If what all clients hold is over its bound, a request that has begun to come is given up.
    pub(super) fn refuse_begun_if_over(&mut self, id: ConnectionId) {
        let Some(input_bytes) = self.get(id).map(|connection| connection.input_bytes()) else { return };
        if input_bytes == 0 || !self.budget.is_over(input_bytes) {
            return;
        }
        if self.get(id).is_some_and(Connection::refuse_begun) {
            self.say_busy(id, "a request that had begun");
            self.list_for_writing(id);
            self.settle_accounts(id);
        }
    }

    /// Whether a reply would take its connection or all clients over their bounds, and may be left out: a request that
    /// only looks can be made again.
    pub(super) fn is_too_much(&mut self, id: ConnectionId, outcome: &Outcome) -> bool {
        let bytes = match outcome {
            Outcome::Read { contents, .. } => contents.len() + REPLY_HEAD_BYTES,
            Outcome::Listed { files, .. } => {
                files.iter().map(|file| file.name.len() + REPLY_HEAD_BYTES).sum::<usize>() + REPLY_HEAD_BYTES
            }
            Outcome::BackupChunk { bytes, .. } => bytes.len() + REPLY_HEAD_BYTES,
            _ => return false,
        };
        let output_bytes_max = self.budget.output_bytes_max(self.settings.max_file_bytes);
        let Some(held_bytes) = self.get(id).map(|connection| connection.unsent_bytes()) else {
            return false;
        };
        // A single reply is never too much for its connection: `output_bytes_max` holds the largest.
        let too_much =
            (held_bytes > 0 && held_bytes + bytes > output_bytes_max) || !self.budget.has_room(bytes);
        if too_much {
            self.say_busy(id, "a reply");
        }
        too_much
    }

    fn say_busy(&mut self, id: ConnectionId, what: &str) {
        let Some(address) = self.get(id).map(|connection| connection.address) else { return };
        let held_bytes = self.budget.held_bytes();
        self.notices.say(format_args!(
            "{what} of {address} was refused as busy: {held_bytes} bytes are pending for all clients"
        ));
    }
}

/// Replies leave at once, and the system looks after clients of which nothing is heard.
fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    use std::time::Duration;

    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(limits::KEEPALIVE_IDLE_SECONDS))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(limits::KEEPALIVE_INTERVAL_SECONDS))?;
    sockopt::set_tcp_keepcnt(socket, limits::KEEPALIVE_PROBES)?;
    Ok(())
}
