//! What comes in and goes out on connections: accepting, reading up to a budget, writing, breaking off.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use fsd_wire::peer::PeerMessage;
use fsd_wire::{FrameDecoder, Message, NodeId};
use mio::net::TcpStream;

use super::connection::{DialStage, Phase, Session, Step};
use super::http_session::HttpSession;
use super::measurements::{ProtocolError, Side};
use super::output::Progress;
use super::text_session::TextSession;
use super::{ClientProtocol, ConnectionId, Event, ListenerKind, Net};
use crate::limits;

impl Net {
    pub(super) fn accept(&mut self, listener: usize) {
        for _ in 0..limits::ACCEPTS_PER_TURN_MAX {
            if !self.listeners[listener].ready || self.accept_paused {
                return;
            }
            match self.listeners[listener].socket.accept() {
                Ok((socket, address)) => {
                    self.accept_complaint = false;
                    self.welcome_socket(self.listeners[listener].kind, socket, address);
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

    pub(super) fn welcome_socket(&mut self, kind: ListenerKind, socket: TcpStream, address: SocketAddr) {
        let full = match kind {
            ListenerKind::Peer => self.accepted_peers >= limits::PEER_CONNECTIONS_MAX,
            ListenerKind::Client | ListenerKind::Text => self.clients >= self.settings.max_clients,
            ListenerKind::Http => self.page_readers >= limits::HTTP_CONNECTIONS_MAX,
        };
        if full {
            self.measurements.refused(kind.into());
            log::debug!("a connection from {address} was closed: there are too many");
            return;
        }
        let session = match kind {
            ListenerKind::Peer => {
                Session::Accepted { decoder: FrameDecoder::new(limits::PEER_FRAME_BYTES_MAX), node: None }
            }
            ListenerKind::Client => Session::Client {
                decoder: FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX),
                greeted: false,
                in_flight: 0,
            },
            ListenerKind::Text => Session::Text(Box::new(TextSession::new(self.settings.max_file_bytes))),
            ListenerKind::Http => Session::Http(Box::new(HttpSession::new())),
        };
        let result = socket.set_nodelay(true).and_then(|()| self.add(socket, address, session));
        match result {
            Ok(id) => {
                self.measurements.accepted(kind.into());
                self.list_for_reading(id);
            }
            Err(error) => log::debug!("a connection from {address} was lost: {error}"),
        }
    }

    pub(super) fn read_connection(&mut self, now_ms: u64, id: ConnectionId, events: &mut Vec<Event>) {
        let mut budget_bytes = limits::READ_BYTES_PER_TURN_MAX;
        for _ in 0..limits::MESSAGES_PER_TURN_MAX {
            let Some(connection) = self.get(id) else { return };
            match connection.phase {
                Phase::Open => {}
                Phase::Lingering => {
                    if connection.drain() {
                        self.close(id);
                    } else if connection.readable {
                        self.list_for_reading(id);
                    }
                    return;
                }
                Phase::Ending | Phase::Closed => return,
            }
            match connection.step() {
                Step::NeedBytes => {
                    if budget_bytes == 0 {
                        break;
                    }
                    if !self.receive(now_ms, id, &mut budget_bytes) {
                        return;
                    }
                }
                Step::Held => {
                    connection.held = true;
                    // Once all is written the connection is taken up again: with nothing to write, that would
                    // be at once and again and again, until the reply comes that it waits for.
                    if !connection.output.is_empty() {
                        self.list_for_writing(id);
                    }
                    return;
                }
                Step::Again => self.list_for_writing(id),
                Step::Ended => {
                    connection.phase = Phase::Ending;
                    self.list_for_writing(id);
                    return;
                }
                Step::Broken(error) => {
                    self.break_off(now_ms, id, error);
                    return;
                }
                Step::Refused(breach) => {
                    let side = Side::of(&connection.session);
                    self.measurements.broken(side, breach);
                    self.list_for_writing(id);
                }
                step => self.deliver(id, step, events),
            }
        }
        self.list_for_reading(id);
    }

    /// Reads once; `false` when there is nothing more to do on this connection for now.
    pub(super) fn receive(&mut self, now_ms: u64, id: ConnectionId, budget_bytes: &mut usize) -> bool {
        let Some(connection) = self.get(id) else { return false };
        if connection.end_of_input {
            // Requests that came before the end are still answered.
            if connection.is_idle() {
                connection.phase = Phase::Ending;
                self.list_for_writing(id);
            }
            return false;
        }
        if !connection.readable {
            return false;
        }
        match connection.receive() {
            Ok(count) => {
                *budget_bytes = budget_bytes.saturating_sub(count);
                let heard = match connection.session {
                    Session::Dialled { node, .. } if count > 0 => Some(node),
                    _ => None,
                };
                if let Some(link) = heard.and_then(|node| self.links.get_mut(&node)) {
                    link.silent_sweeps = 0;
                }
                true
            }
            Err(error) => {
                self.connection_failed(now_ms, id, &error);
                false
            }
        }
    }

    pub(super) fn deliver(&mut self, id: ConnectionId, step: Step, events: &mut Vec<Event>) {
        match step {
            Step::ClientHello(hello) => self.answer_client(id, &hello),
            Step::Request(request) => {
                let Some(connection) = self.get(id) else { return };
                let protocol = match &mut connection.session {
                    Session::Client { in_flight, .. } => {
                        *in_flight += 1;
                        ClientProtocol::Binary
                    }
                    _ => ClientProtocol::Text,
                };
                events.push(Event::Request { connection: id, protocol, request });
            }
            Step::Page(page) => events.push(Event::Page { connection: id, page }),
            Step::PeerHello(hello) => self.judge_peer(id, &hello, events),
            Step::PeerReply(node, reply) => events.push(Event::PeerReply { node, reply }),
            Step::Peer(node, message) => self.deliver_peer(id, node, message, events),
            Step::Again | Step::Held | Step::NeedBytes | Step::Ended | Step::Refused(_) | Step::Broken(_) => {
                unreachable!("handled where steps are taken")
            }
        }
    }

    pub(super) fn deliver_peer(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        message: PeerMessage,
        events: &mut Vec<Event>,
    ) {
        match message {
            PeerMessage::Ping => {
                if let Some(connection) = self.get(id) {
                    connection.send(PeerMessage::Pong.to_frame());
                    self.list_for_writing(id);
                }
            }
            PeerMessage::Pong => {}
            message => {
                // Only the newest connection that a peer opened speaks for it.
                if self.links.get(&from).is_some_and(|link| link.incoming == Some(id)) {
                    events.push(Event::Peer { from, message });
                }
            }
        }
    }

    pub(super) fn write_connection(&mut self, now_ms: u64, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if let Session::Dialled { node, stage: DialStage::Connecting, .. } = connection.session {
            self.finish_connecting(now_ms, id, node);
        }
        let Some(connection) = self.get(id) else { return };
        if connection.phase == Phase::Closed
            || matches!(connection.session, Session::Dialled { stage: DialStage::Connecting, .. })
        {
            return;
        }
        match connection.write(limits::WRITE_BYTES_PER_TURN_MAX) {
            Ok(progress) => {
                let phase = connection.phase;
                match (phase, progress) {
                    (Phase::Closed, _) => self.to_close.push(id),
                    (_, Progress::BudgetSpent) => self.list_for_writing(id),
                    (Phase::Lingering, _) => self.list_for_reading(id),
                    (_, Progress::Done) => self.resume(id),
                    (_, Progress::Blocked) => {}
                }
            }
            Err(error) => self.connection_failed(now_ms, id, &error),
        }
    }

    pub(super) fn break_off(&mut self, now_ms: u64, id: ConnectionId, reason: ProtocolError) {
        let Some(connection) = self.get(id) else { return };
        let side = Side::of(&connection.session);
        log::info!("the connection with {} is closed: {reason}", connection.address);
        let dialled = match connection.session {
            Session::Dialled { node, .. } => Some(node),
            _ => None,
        };
        self.measurements.broken(side, reason.breach());
        if let Some(node) = dialled {
            self.lose_link(now_ms, node, log::Level::Warn, format!("it broke the protocol: {reason}"));
        }
        self.close(id);
    }

    pub(super) fn connection_failed(&mut self, now_ms: u64, id: ConnectionId, error: &io::Error) {
        let Some(connection) = self.get(id) else { return };
        let dialled = match connection.session {
            Session::Dialled { node, .. } => Some(node),
            _ => None,
        };
        if let Some(node) = dialled {
            self.lose_link(now_ms, node, log::Level::Info, error.to_string());
        }
        self.close(id);
    }
}
