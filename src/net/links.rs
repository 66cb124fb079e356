//! The connections between nodes: dialled by each to each, judged by the server, watched for silence.

use std::io::ErrorKind;

use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloStatus, Role};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{FrameDecoder, Message, NodeId};
use mio::net::TcpStream;
use rustix::io::Errno;

use super::connection::{DialStage, Phase, Session};
use super::peer_link::{LinkState, PeerLink};
use super::{ConnectionId, Event, Net, NetTimer, SWEEP_MS};
use crate::limits;

/// A peer is asked for a sign of life after so many silent sweeps, and given up after twice as many.
const PING_AFTER_SWEEPS: u32 = 2;
const DEAD_AFTER_SWEEPS: u32 = 6;
/// A connection of a peer that sends nothing, not even pings, is given up later than the peer would redial.
const _: () = assert!(limits::PEER_SILENCE_MS_MAX > SWEEP_MS * DEAD_AFTER_SWEEPS as u64);

impl Net {
    /// Answers the hello of a peer; unless it is a welcome, the connection ends.
    pub fn answer_peer(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        node: NodeId,
        status: HelloStatus,
        reason: String,
    ) {
        let reply = self.hello_reply(status, reason);
        // One that broke off behind its hello must not supersede a connection that stands.
        let Some(connection) = self.get(id).filter(|connection| connection.phase == Phase::Open) else {
            return;
        };
        connection.send(reply.to_frame());
        let welcome = status == HelloStatus::Welcome;
        if welcome {
            if let Session::Accepted { decoder, node: welcomed } = &mut connection.session {
                *welcomed = Some(node);
                decoder.set_body_bytes_max(limits::PEER_FRAME_BYTES_MAX);
            }
        } else {
            connection.phase = Phase::Ending;
        }
        let address = connection.address;
        self.list_for_writing(id);
        self.list_for_reading(id);
        if welcome {
            self.unknown_peers.retain(|unknown| *unknown != id);
        }
        let Some(link) = self.links.get_mut(&node) else {
            log::warn!("a hello from {address} as node {node} was refused: {}", reply.reason);
            return;
        };
        if !welcome {
            link.complain(log::Level::Warn, format!("its hello was refused: {}", reply.reason));
            return;
        }
        // A peer that opens a connection is alive; if this node was about to wait, it need not.
        link.reset_backoff();
        let superseded = link.incoming.replace(id);
        let waiting = link.state == LinkState::Waiting;
        if let Some(old) = superseded.filter(|old| *old != id) {
            self.close(old);
        }
        if waiting {
            self.dial(now_ms, node);
        }
    }

    /// The peer that was dialled is who it should be: messages to it may flow.
    pub fn open_link(&mut self, node: NodeId) {
        let link = self.links.get_mut(&node).expect("only members are dialled");
        let LinkState::Greeting(id) = link.state else { return };
        let connection = self.connections.get_mut(id.key as usize).expect("a link's connection stands");
        let Session::Dialled { stage, .. } = &mut connection.session else {
            unreachable!("a link's connection was dialled");
        };
        // The answer may be that of an earlier call, which was lost in the same turn: this one has not even
        // said its hello.
        if *stage != DialStage::Greeted {
            return;
        }
        *stage = DialStage::Open;
        link.state = LinkState::Open(id);
        link.silent_sweeps = 0;
        link.reset_backoff();
        link.praise();
        self.list_for_reading(id);
    }

    /// The peer that was dialled is not to be spoken to: try again later.
    pub fn refuse_link(&mut self, now_ms: u64, node: NodeId, reason: String) {
        self.lose_link(now_ms, node, log::Level::Warn, reason);
    }

    /// Sends a message to a peer. It is dropped when no connection is open or too much waits on it.
    pub fn send_peer(&mut self, node: NodeId, message: &PeerMessage) {
        let Some(id) = self.links.get(&node).and_then(PeerLink::open_connection) else { return };
        let Some(connection) = self.get(id) else { return };
        if connection.output.bytes() > limits::PEER_OUTPUT_BYTES_MAX {
            return;
        }
        connection.send(message.to_frame());
        self.list_for_writing(id);
    }

    /// Writes what waits for peers, now: their disks can work while this node's does.
    pub fn push_peers(&mut self, now_ms: u64) {
        for link in self.links.values().filter_map(PeerLink::open_connection).collect::<Vec<_>>() {
            self.write_connection(now_ms, link);
        }
    }

    pub(super) fn dial(&mut self, now_ms: u64, node: NodeId) {
        let link = &self.links[&node];
        if link.state != LinkState::Waiting {
            return;
        }
        let address = link.address;
        let session = Session::Dialled {
            decoder: FrameDecoder::new(limits::PEER_FRAME_BYTES_MAX),
            node,
            stage: DialStage::Connecting,
        };
        match TcpStream::connect(address).and_then(|socket| self.add(socket, address, session)) {
            Ok(id) => {
                let link = self.links.get_mut(&node).expect("it was just seen");
                link.state = LinkState::Greeting(id);
                link.silent_sweeps = 0;
            }
            Err(error) => self.lose_link(now_ms, node, log::Level::Info, error.to_string()),
        }
    }

    /// A dialled socket became writable: it is connected, or it failed.
    pub(super) fn finish_connecting(&mut self, now_ms: u64, id: ConnectionId, node: NodeId) {
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            cluster: self.settings.cluster.clone(),
            role: Role::Peer { identity: self.settings.identity, target: node },
        };
        let Some(connection) = self.get(id) else { return };
        if let Ok(Some(error)) | Err(error) = connection.socket.take_error() {
            self.connection_failed(now_ms, id, &error);
            return;
        }
        match connection.socket.peer_addr() {
            // mio's documentation names both as "not yet".
            Err(error)
                if error.kind() == ErrorKind::NotConnected
                    || error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => self.connection_failed(now_ms, id, &error),
            Ok(_) => {
                if let Err(error) = connection.socket.set_nodelay(true) {
                    self.connection_failed(now_ms, id, &error);
                    return;
                }
                connection.send(hello.to_frame());
                if let Session::Dialled { stage, .. } = &mut connection.session {
                    *stage = DialStage::Greeted;
                }
            }
        }
    }

    pub(super) fn lose_link(&mut self, now_ms: u64, node: NodeId, level: log::Level, complaint: String) {
        let link = self.links.get_mut(&node).expect("only members are dialled");
        let connection = match link.state {
            LinkState::Waiting => None,
            LinkState::Greeting(id) => Some(id),
            LinkState::Open(id) => {
                self.pending_events.push(Event::PeerLost { node });
                Some(id)
            }
        };
        link.state = LinkState::Waiting;
        link.complain(level, complaint);
        let deadline_ms = now_ms + link.next_backoff_ms(&mut self.random);
        self.timers.push((deadline_ms, NetTimer::Redial(node)));
        if let Some(id) = connection {
            self.close(id);
        }
    }

    /// Looks for silence: of the peers that this node dialled, which are pinged and then given up, and of whoever else
    /// owes something.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.accept_paused = false;
        self.notices.tick();
        self.enforce_deadlines(now_ms);
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            let link = self.links.get_mut(&node).expect("its key was just taken");
            link.silent_sweeps += 1;
            let silent_sweeps = link.silent_sweeps;
            match link.state {
                LinkState::Waiting => {}
                _ if silent_sweeps >= DEAD_AFTER_SWEEPS => {
                    let silent_ms = SWEEP_MS * u64::from(DEAD_AFTER_SWEEPS);
                    let complaint = format!("no sign of life for {silent_ms} ms");
                    self.lose_link(now_ms, node, log::Level::Info, complaint);
                }
                LinkState::Open(_) if silent_sweeps >= PING_AFTER_SWEEPS => {
                    self.send_peer(node, &PeerMessage::Ping);
                }
                LinkState::Greeting(_) | LinkState::Open(_) => {}
            }
        }
    }
}
