//! Sockets: listeners, the connections of clients and peers, and the poll that they share.
//!
//! [`Net`] turns readiness into [`Event`]s and takes replies and messages back. It never sees Raft: who a peer
//! is and whether it belongs here is asked of the server by an event.
//!
//! mio is edge-triggered: a socket says once that it has bytes. A connection that used up its budget, or that
//! is held because its client does not take its replies, stays marked `readable` and is taken up again without
//! another word from the kernel.

mod admission;
mod budget;
mod connection;
mod deadlines;
mod greeting;
mod http_session;
mod links;
mod measurements;
mod notices;
mod output;
mod pacer;
mod peer_link;
#[cfg(test)]
mod tests;
pub mod text_protocol;
mod text_session;
mod traffic;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use fsd_wire::NodeId;
use fsd_wire::client::{ClientReply, ClientRequest, Outcome, Refusal};
use fsd_wire::hello::{HelloReply, Identity};
use fsd_wire::peer::PeerMessage;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Registry, Token};
use slab::Slab;

use budget::Budget;
use connection::{Connection, Phase, Session};
use deadlines::Deadlines;
pub use http_session::{HttpPage, HttpReply};
use measurements::{Measurements, Side};
use notices::Notices;
use pacer::Pacer;
use peer_link::{LinkState, PeerLink};

use crate::limits;

/// How often silent connections are looked for.
const SWEEP_MS: u64 = 500;
/// Readiness events taken in one poll.
const POLL_EVENTS_MAX: usize = 1024;

/// Tokens below stand for the few things that are not connections: a connection's generation, which is above
/// 0, is in the upper half of its token.
const LISTENER_TOKENS: usize = 16;
/// The token of whatever the caller registers to be woken by.
pub const WAKE_TOKEN: Token = Token(LISTENER_TOKENS);
/// The token of the caller's source of signals.
pub const SIGNAL_TOKEN: Token = Token(LISTENER_TOKENS + 1);
/// The token of the caller's pipe from whoever started the process.
pub const PARENT_TOKEN: Token = Token(LISTENER_TOKENS + 2);

/// A connection, never mistaken for a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    key: u32,
    generation: u32,
}

impl ConnectionId {
    /// The id of whatever stands in the place `key` for the `generation`th time.
    #[must_use]
    pub fn new(key: u32, generation: u32) -> Self {
        Self { key, generation }
    }

    /// The place in which it stands.
    #[must_use]
    pub fn key(self) -> u32 {
        self.key
    }

    fn token(self) -> Token {
        Token(((self.generation as usize) << 32) | self.key as usize)
    }

    fn from_token(token: Token) -> Self {
        Self::new(token.0 as u32, (token.0 >> 32) as u32)
    }
}

/// Which protocol a client speaks; it decides which of a leader's addresses a redirect names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientProtocol {
    /// Frames.
    Binary,
    /// Lines.
    Text,
}

/// What came from the network.
#[derive(Debug)]
pub enum Event {
    /// A client asks for something: answer it with [`Net::reply`], once.
    Request {
        /// Where the reply goes.
        connection: ConnectionId,
        /// What the client speaks.
        protocol: ClientProtocol,
        /// What it asks for.
        request: ClientRequest,
    },
    /// Somebody asks for a page: answer it with [`Net::reply_page`], once.
    Page {
        /// Where the page goes.
        connection: ConnectionId,
        /// Which page.
        page: HttpPage,
    },
    /// A peer opened a connection: answer with [`Net::answer_peer`].
    PeerHello {
        /// Where the answer goes.
        connection: ConnectionId,
        /// What the peer says of itself.
        identity: Identity,
    },
    /// A peer answered this node's hello: decide with [`Net::open_link`] or [`Net::refuse_link`].
    PeerReply {
        /// The node that was dialled.
        node: NodeId,
        /// What it said.
        reply: HelloReply,
    },
    /// A peer that was welcomed sent a message.
    Peer {
        /// Who.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// The open connection to a peer is gone, and with it what was on its way.
    PeerLost {
        /// Which peer.
        node: NodeId,
    },
}

/// A timer that [`Net`] wants; hand it back to [`Net::fire`] when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetTimer {
    /// Dial a peer again.
    Redial(NodeId),
    /// Look for silent connections.
    Sweep,
}

/// What [`Net`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// What this node says of itself in hellos.
    pub identity: Identity,
    /// Where the other nodes are dialled.
    pub dial: BTreeMap<NodeId, SocketAddr>,
    /// The largest contents of a file.
    pub max_file_bytes: u64,
    /// The text protocol's changes are passed on to the leader.
    pub forwards_changes: bool,
    /// Connections of clients, on both protocols together.
    pub max_clients: usize,
    /// Unanswered requests and unsent replies of all clients together, in bytes.
    pub max_pending_bytes: usize,
    /// Spreads the pauses between dials.
    pub seed: u64,
}

/// The addresses that a node binds.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For other nodes.
    pub peer: SocketAddr,
    /// For the binary protocol.
    pub client: SocketAddr,
    /// For the text protocol.
    pub text: Option<SocketAddr>,
    /// For the pages.
    pub http: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenerKind {
    Peer,
    Client,
    Text,
    Http,
}

struct Listener {
    socket: TcpListener,
    kind: ListenerKind,
    ready: bool,
}

/// All sockets of a node.
pub struct Net {
    poll: Poll,
    poll_events: mio::Events,
    settings: Settings,
    random: fastrand::Rng,
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    generation: u32,
    clients: usize,
    /// Clients that are told that there is no room for them.
    refused: usize,
    accepted_peers: usize,
    /// Those of them that have not been welcomed, in the order in which they came.
    unknown_peers: VecDeque<ConnectionId>,
    /// What all clients together make this node hold.
    budget: Budget,
    /// Bytes of clients' requests taken in this turn.
    request_bytes_in_turn: usize,
    /// And how many are, at most.
    request_bytes_max: usize,
    pacer: Pacer,
    deadlines: Deadlines,
    notices: Notices,
    page_readers: usize,
    links: BTreeMap<NodeId, PeerLink>,
    to_read: VecDeque<ConnectionId>,
    to_write: Vec<ConnectionId>,
    to_close: Vec<ConnectionId>,
    /// Events that arose outside reading; they are given with the next ones.
    pending_events: Vec<Event>,
    timers: Vec<(u64, NetTimer)>,
    /// Nothing is accepted until the next sweep: the process has no room for more.
    accept_paused: bool,
    /// That was said, and none was accepted since.
    accept_complaint: bool,
    measurements: Measurements,
}

impl Net {
    /// Binds the addresses. Nothing is dialled before [`Net::start`].
    ///
    /// # Errors
    /// Which address cannot be bound, and why.
    pub fn bind(settings: Settings, addresses: Addresses) -> io::Result<Self> {
        let poll = Poll::new()?;
        let wanted = [
            (ListenerKind::Peer, "peer", Some(addresses.peer)),
            (ListenerKind::Client, "client", Some(addresses.client)),
            (ListenerKind::Text, "text", addresses.text),
            (ListenerKind::Http, "HTTP", addresses.http),
        ];
        let mut listeners = Vec::new();
        for (kind, what, address) in wanted {
            let Some(address) = address else { continue };
            let mut socket = TcpListener::bind(address).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot listen for {what} connections on {address}: {error}"),
                )
            })?;
            poll.registry().register(&mut socket, Token(listeners.len()), Interest::READABLE)?;
            listeners.push(Listener { socket, kind, ready: true });
        }
        assert!(listeners.len() <= LISTENER_TOKENS);
        let links =
            settings.dial.iter().map(|(node, address)| (*node, PeerLink::new(*node, *address))).collect();
        let budget = Budget::new(settings.max_pending_bytes);
        Ok(Self {
            poll,
            poll_events: mio::Events::with_capacity(POLL_EVENTS_MAX),
            random: fastrand::Rng::with_seed(settings.seed),
            settings,
            listeners,
            connections: Slab::new(),
            generation: 0,
            clients: 0,
            refused: 0,
            accepted_peers: 0,
            unknown_peers: VecDeque::new(),
            budget,
            request_bytes_in_turn: 0,
            request_bytes_max: limits::REQUEST_BYTES_PER_TURN_MAX,
            pacer: Pacer::default(),
            deadlines: Deadlines::new(),
            notices: Notices::default(),
            page_readers: 0,
            links,
            to_read: VecDeque::new(),
            to_write: Vec::new(),
            to_close: Vec::new(),
            pending_events: Vec::new(),
            timers: Vec::new(),
            accept_paused: false,
            accept_complaint: false,
            measurements: Measurements::default(),
        })
    }

    /// Dials all peers and begins to look for silent connections.
    pub fn start(&mut self, now_ms: u64) {
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            self.dial(now_ms, node);
        }
        self.timers.push((now_ms + SWEEP_MS, NetTimer::Sweep));
    }

    /// Where to register further sources, under [`WAKE_TOKEN`], [`SIGNAL_TOKEN`] and [`PARENT_TOKEN`].
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// What this node says of itself from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.settings.identity = identity;
    }

    /// Waits for readiness, at most for `timeout`; not at all when something is still ready from before.
    /// Returns whether [`SIGNAL_TOKEN`] was ready.
    ///
    /// # Errors
    /// If the kernel's poll fails, which leaves nothing to go on with.
    pub fn poll(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let held = self.pacer.wait_ms().map(Duration::from_millis);
        let timeout =
            if self.is_ready() { Some(Duration::ZERO) } else { timeout.into_iter().chain(held).min() };
        match self.poll.poll(&mut self.poll_events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            result => result?,
        }
        let mut signalled = false;
        for event in &self.poll_events {
            let token = event.token();
            if token == SIGNAL_TOKEN {
                signalled = true;
            } else if token.0 < LISTENER_TOKENS {
                self.listeners[token.0].ready = true;
            } else if token != WAKE_TOKEN && token != PARENT_TOKEN {
                let id = ConnectionId::from_token(token);
                let Some(connection) = self.connections.get_mut(id.key as usize) else { continue };
                if connection.generation != id.generation {
                    continue;
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    connection.readable = true;
                    list_once(&mut connection.on_read_list, &mut self.to_read, id);
                }
                if (event.is_writable() || event.is_write_closed()) && !connection.on_write_list {
                    connection.on_write_list = true;
                    self.to_write.push(id);
                }
            }
        }
        Ok(signalled)
    }

    /// Accepts connections and reads sockets, each up to its budget.
    pub fn read(&mut self, now_ms: u64, events: &mut Vec<Event>) {
        events.append(&mut self.pending_events);
        for listener in 0..self.listeners.len() {
            self.accept(now_ms, listener);
        }
        self.request_bytes_in_turn = 0;
        self.request_bytes_max = self.pacer.begin_turn(now_ms);
        // Whoever had no turn comes before those who had one.
        let mut listed = std::mem::take(&mut self.pacer.held);
        listed.append(&mut self.to_read);
        let mut put_off = VecDeque::new();
        for id in listed {
            let turn_is_full = self.request_bytes_in_turn >= self.request_bytes_max;
            let Some(connection) = self.get(id) else { continue };
            if turn_is_full && connection.is_client() {
                put_off.push_back(id);
                continue;
            }
            connection.on_read_list = false;
            self.read_connection(now_ms, id, events);
            self.settle_accounts(id);
        }
        self.pacer.took(self.request_bytes_in_turn);
        if self.request_bytes_max < limits::REQUEST_BYTES_PER_TURN_MAX {
            self.pacer.hold(put_off);
        } else {
            put_off.append(&mut self.to_read);
            self.to_read = put_off;
        }
    }

    /// Takes so many bytes of clients' requests in each millisecond from now on, or all.
    pub fn pace(&mut self, now_ms: u64, bytes_per_ms: Option<u64>) {
        self.pacer.set(now_ms, bytes_per_ms);
        if bytes_per_ms.is_none() && !self.pacer.held.is_empty() {
            self.pacer.held.append(&mut self.to_read);
            std::mem::swap(&mut self.pacer.held, &mut self.to_read);
        }
    }

    /// Timers that were asked for since the last call, with their deadlines.
    pub fn take_timers(&mut self) -> Vec<(u64, NetTimer)> {
        std::mem::take(&mut self.timers)
    }

    /// A timer is due.
    pub fn fire(&mut self, now_ms: u64, timer: NetTimer) {
        match timer {
            NetTimer::Redial(node) => self.dial(now_ms, node),
            NetTimer::Sweep => {
                self.sweep(now_ms);
                self.timers.push((now_ms + SWEEP_MS, NetTimer::Sweep));
            }
        }
    }

    /// Answers a request. If its client is gone, so is the reply. For one that shows something and is too much for
    /// its connection, or for all clients together, the answer is that the node is busy: nothing was done.
    pub fn reply(&mut self, id: ConnectionId, reply: &ClientReply) {
        let refusal;
        let reply = if self.is_too_much(id, &reply.outcome) {
            refusal = ClientReply { id: reply.id, outcome: Outcome::Refused(Refusal::Busy) };
            &refusal
        } else {
            reply
        };
        let Some(connection) = self.get(id) else { return };
        if connection.phase == Phase::Closed {
            return;
        }
        connection.reply(reply);
        self.list_for_writing(id);
        self.resume(id);
        self.settle_accounts(id);
    }

    /// Sends a page to whom asked for it, if that one is still there.
    pub fn reply_page(&mut self, id: ConnectionId, reply: &HttpReply) {
        let Some(connection) = self.get(id) else { return };
        if connection.phase == Phase::Closed {
            return;
        }
        connection.reply_page(reply);
        self.list_for_writing(id);
        self.resume(id);
        self.settle_accounts(id);
    }

    /// Writes what waits for anybody, each up to its budget, and closes what is to be closed.
    pub fn write(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.to_write) {
            if let Some(connection) = self.get(id) {
                connection.on_write_list = false;
                self.write_connection(now_ms, id);
                self.settle_accounts(id);
            }
        }
        for id in std::mem::take(&mut self.to_close) {
            self.remove(now_ms, id);
        }
    }

    /// Whether a client is still there: its connection stands, and it has not said that it will ask for nothing more.
    #[must_use]
    pub fn has_client(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.key as usize);
        connection.is_some_and(|found| found.generation == id.generation && found.phase == Phase::Open)
    }

    /// Whether replies still wait to be written to clients, or pages to their readers.
    #[must_use]
    pub fn has_client_output(&self) -> bool {
        let asks = |side| matches!(side, Side::Client | Side::Text | Side::Http);
        self.connections
            .iter()
            .any(|(_, connection)| asks(Side::of(&connection.session)) && !connection.output.is_empty())
    }

    /// Whether something can be done without another word from the kernel.
    fn is_ready(&self) -> bool {
        !self.to_read.is_empty()
            || !self.to_write.is_empty()
            || !self.pending_events.is_empty()
            || self.listeners.iter().any(|listener| listener.ready && !self.accept_paused)
    }

    fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.key as usize).filter(|connection| connection.generation == id.generation)
    }

    fn list_for_reading(&mut self, id: ConnectionId) {
        if let Some(connection) =
            self.connections.get_mut(id.key as usize).filter(|found| found.generation == id.generation)
        {
            list_once(&mut connection.on_read_list, &mut self.to_read, id);
        }
    }

    /// A connection that was held for the sake of its replies may go on.
    fn resume(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if std::mem::take(&mut connection.held) || connection.end_of_input {
            self.list_for_reading(id);
        }
    }

    fn list_for_writing(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if !connection.on_write_list {
            connection.on_write_list = true;
            self.to_write.push(id);
        }
    }

    fn add(&mut self, socket: TcpStream, address: SocketAddr, session: Session) -> io::Result<ConnectionId> {
        self.generation = self.generation.wrapping_add(1).max(1);
        let connection = Connection::new(socket, address, self.generation, session);
        let client = connection.is_client();
        let refused = matches!(connection.session, Session::Refused(_));
        let side = Side::of(&connection.session);
        let key = self.connections.insert(connection);
        let id = ConnectionId::new(key as u32, self.generation);
        let socket = &mut self.connections[key].socket;
        if let Err(error) =
            self.poll.registry().register(socket, id.token(), Interest::READABLE | Interest::WRITABLE)
        {
            self.connections.remove(key);
            return Err(error);
        }
        self.clients += usize::from(client);
        self.refused += usize::from(refused);
        if side == Side::Peer {
            self.accepted_peers += 1;
            self.unknown_peers.push_back(id);
        }
        self.page_readers += usize::from(side == Side::Http);
        self.settle_accounts(id);
        Ok(id)
    }

    /// Marks a connection to be closed at the end of the turn.
    fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if connection.phase != Phase::Closed {
            connection.phase = Phase::Closed;
            self.to_close.push(id);
        }
    }

    fn remove(&mut self, now_ms: u64, id: ConnectionId) {
        if self.get(id).is_none() {
            return;
        }
        let mut connection = self.connections.remove(id.key as usize);
        // Closing the socket takes it out of the poll as well; there is nobody to tell of a failure.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        if !matches!(connection.session, Session::Refused(_)) {
            self.measurements.closed(Side::of(&connection.session));
        }
        self.clients -= usize::from(connection.is_client());
        self.budget.recount(connection.counted_bytes, 0);
        self.deadlines.forget(&mut connection.deadline);
        match connection.session {
            Session::Client { .. } | Session::Text(_) => {}
            Session::Refused(_) => self.refused -= 1,
            Session::Http(_) => self.page_readers -= 1,
            Session::Accepted { node, .. } => {
                self.accepted_peers -= 1;
                self.unknown_peers.retain(|unknown| *unknown != id);
                if let Some(link) = node.and_then(|node| self.links.get_mut(&node))
                    && link.incoming == Some(id)
                {
                    link.incoming = None;
                }
            }
            Session::Dialled { node, .. } => {
                let link = &self.links[&node];
                if link.state == LinkState::Greeting(id) || link.state == LinkState::Open(id) {
                    self.lose_link(now_ms, node, log::Level::Info, "the connection was closed".into());
                }
            }
        }
    }
}

fn list_once(listed: &mut bool, list: &mut VecDeque<ConnectionId>, id: ConnectionId) {
    if !*listed {
        *listed = true;
        list.push_back(id);
    }
}
