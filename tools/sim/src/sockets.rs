//! A node's side of its connections: what `fsd::net` does with sockets, here with the streams of the fabric. The
//! bytes are the production codec's in both directions; dialling, hellos, silence and superseded connections go as
//! there.

use std::collections::BTreeMap;

use fsd::limits;
use fsd::net::{ClientProtocol, ConnectionId, Event, NetTimer};
use fsd_wire::client::ClientRequest;
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Identity, Role};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{DecodeError, Frame, FrameDecoder, Message, NodeId};

use crate::fabric::{Fabric, Party, Side};
use crate::schedule::Schedule;

/// The name of every simulated cluster.
pub(crate) const CLUSTER: &str = "simulated";

const SWEEP_MS: u64 = 500;
const PING_AFTER_SWEEPS: u32 = 2;
const DEAD_AFTER_SWEEPS: u32 = 6;
const ACCEPTED_DEAD_AFTER_SWEEPS: u32 = 2 * DEAD_AFTER_SWEEPS;
const BACKOFF_MS_MIN: u64 = 20;
const BACKOFF_MS_MAX: u64 = 1000;

#[derive(Debug)]
enum Session {
    /// The text protocol's commands come as requests, too: what `net` makes of their lines is no part of this.
    Client {
        decoder: FrameDecoder,
        protocol: ClientProtocol,
        greeted: bool,
    },
    Accepted {
        decoder: FrameDecoder,
        node: Option<NodeId>,
        silent_sweeps: u32,
    },
    Dialled {
        decoder: FrameDecoder,
        node: NodeId,
        is_open: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    Waiting,
    Greeting(u32),
    Open(u32),
}

#[derive(Debug)]
struct PeerLink {
    state: LinkState,
    incoming: Option<u32>,
    silent_sweeps: u32,
    backoff_ms: u64,
}

/// The network as one node sees it, and the events that came from it.
#[derive(Debug)]
pub(crate) struct Sockets {
    place: usize,
    identity: Identity,
    links: BTreeMap<NodeId, PeerLink>,
    sessions: BTreeMap<u32, Session>,
    random: fastrand::Rng,
    pub(crate) events: Vec<Event>,
    pub(crate) timers: Vec<(u64, NetTimer)>,
    /// Connections with something to write.
    to_write: Vec<u32>,
}

/// What the sockets need of the world at one moment.
pub(crate) struct Moment<'a> {
    pub(crate) fabric: &'a mut Fabric,
    pub(crate) schedule: &'a mut Schedule,
    /// Simulated time.
    pub(crate) now_us: u64,
    /// The node's clock.
    pub(crate) now_ms: u64,
}

pub(crate) fn node_id(place: usize) -> NodeId {
    NodeId(place as u32 + 1)
}

pub(crate) fn place_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

impl Sockets {
    pub(crate) fn new(place: usize, nodes: usize, identity: Identity, seed: u64) -> Self {
        let link = || PeerLink {
            state: LinkState::Waiting,
            incoming: None,
            silent_sweeps: 0,
            backoff_ms: BACKOFF_MS_MIN,
        };
        let others = (0..nodes).filter(|other| *other != place);
        Self {
            place,
            identity,
            links: others.map(|other| (node_id(other), link())).collect(),
            sessions: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            events: Vec::new(),
            timers: Vec::new(),
            to_write: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, moment: &mut Moment<'_>) {
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            self.dial(moment, node);
        }
        self.timers.push((moment.now_ms + SWEEP_MS, NetTimer::Sweep));
    }

    pub(crate) fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    pub(crate) fn fire(&mut self, moment: &mut Moment<'_>, timer: NetTimer) {
        match timer {
            NetTimer::Redial(node) => self.dial(moment, node),
            NetTimer::Sweep => {
                self.sweep(moment);
                self.timers.push((moment.now_ms + SWEEP_MS, NetTimer::Sweep));
            }
        }
    }

    /// A connection was opened to this node.
    pub(crate) fn opened(&mut self, fabric: &mut Fabric, key: u32) {
        let Some(connection) = fabric.get(key) else { return };
        let session = match connection.opener {
            Party::Node(_) => Session::Accepted {
                decoder: FrameDecoder::new(limits::PEER_FRAME_BYTES_MAX),
                node: None,
                silent_sweeps: 0,
            },
            Party::Client(client) => Session::Client {
                decoder: FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX),
                protocol: fabric.protocol_of(client),
                greeted: false,
            },
        };
        fabric.accept(key);
        self.sessions.insert(key, session);
    }

    /// Bytes came on a connection.
    pub(crate) fn received(&mut self, moment: &mut Moment<'_>, key: u32, bytes: &[u8]) {
        match self.sessions.get_mut(&key) {
            None => return,
            Some(Session::Client { decoder, .. }) => decoder.feed(bytes),
            Some(Session::Accepted { decoder, silent_sweeps, .. }) => {
                *silent_sweeps = 0;
                decoder.feed(bytes);
            }
            Some(Session::Dialled { decoder, node, .. }) => {
                decoder.feed(bytes);
                self.links.get_mut(node).expect("only members are dialled").silent_sweeps = 0;
            }
        }
        // A session may end while its frames are gone through.
        while let Some(session) = self.sessions.get_mut(&key) {
            let (Session::Client { decoder, .. }
            | Session::Accepted { decoder, .. }
            | Session::Dialled { decoder, .. }) = session;
            let taken = match decoder.next_frame() {
                Ok(Some(frame)) => self.take_frame(moment, key, &frame).is_ok(),
                Ok(None) => return,
                Err(_) => false,
            };
            if !taken {
                self.end(moment, key);
            }
        }
    }

    /// The other end of a connection is gone.
    pub(crate) fn closed(&mut self, moment: &mut Moment<'_>, key: u32) {
        self.end(moment, key);
    }

    fn take_frame(&mut self, moment: &mut Moment<'_>, key: u32, frame: &Frame) -> Result<(), DecodeError> {
        match self.sessions.get_mut(&key).expect("the caller has it") {
            Session::Client { greeted: true, protocol, .. } => {
                let request = ClientRequest::decode(frame)?;
                let (connection, protocol) = (ConnectionId::new(key, 1), *protocol);
                self.events.push(Event::Request { connection, protocol, request });
            }
            Session::Client { greeted, .. } => {
                let hello = Hello::decode(frame)?;
                *greeted = hello.common_protocol().is_some() && hello.role == Role::Client;
                let status = if *greeted { HelloStatus::Welcome } else { HelloStatus::WrongRole };
                self.say(moment.fabric, key, &self.hello_reply(status, String::new()));
            }
            Session::Accepted { node: Some(from), .. } => {
                let from = *from;
                match PeerMessage::decode(frame)? {
                    PeerMessage::Ping => self.say(moment.fabric, key, &PeerMessage::Pong),
                    PeerMessage::Pong => {}
                    message => {
                        if self.links.get(&from).is_some_and(|link| link.incoming == Some(key)) {
                            self.events.push(Event::Peer { from, message });
                        }
                    }
                }
            }
            Session::Accepted { node: None, .. } => {
                let hello = Hello::decode(frame)?;
                let Role::Peer { identity, target } = hello.role else {
                    return Err(DecodeError::UnknownKind { kind: frame.kind });
                };
                assert!(hello.cluster == CLUSTER && target == node_id(self.place), "a hello gone astray");
                self.events.push(Event::PeerHello { connection: ConnectionId::new(key, 1), identity });
            }
            Session::Dialled { node, is_open: false, .. } => {
                let node = *node;
                let reply = HelloReply::decode(frame)?;
                self.events.push(Event::PeerReply { node, reply });
            }
            // On a connection that this node opened, a peer only says Pong.
            Session::Dialled { is_open: true, .. } => drop(PeerMessage::decode(frame)?),
        }
        Ok(())
    }

    fn hello_reply(&self, status: HelloStatus, reason: String) -> HelloReply {
        HelloReply {
            status,
            protocol: PROTOCOL_VERSION,
            cluster: CLUSTER.into(),
            identity: self.identity,
            reason,
        }
    }

    pub(crate) fn answer_peer(
        &mut self,
        moment: &mut Moment<'_>,
        connection: ConnectionId,
        node: NodeId,
        status: HelloStatus,
        reason: String,
    ) {
        let key = connection.key();
        if !self.sessions.contains_key(&key) {
            return;
        }
        self.say(moment.fabric, key, &self.hello_reply(status, reason));
        if status != HelloStatus::Welcome {
            self.depart(moment);
            self.end(moment, key);
            return;
        }
        if let Some(Session::Accepted { node: welcomed, .. }) = self.sessions.get_mut(&key) {
            *welcomed = Some(node);
        }
        let Some(link) = self.links.get_mut(&node) else { return };
        link.backoff_ms = BACKOFF_MS_MIN;
        let superseded = link.incoming.replace(key).filter(|old| *old != key);
        let waiting = link.state == LinkState::Waiting;
        if let Some(old) = superseded {
            self.end(moment, old);
        }
        if waiting {
            self.dial(moment, node);
        }
    }

    pub(crate) fn open_link(&mut self, node: NodeId) {
        let link = self.links.get_mut(&node).expect("only members are dialled");
        let LinkState::Greeting(key) = link.state else { return };
        if let Some(Session::Dialled { is_open, .. }) = self.sessions.get_mut(&key) {
            *is_open = true;
            link.state = LinkState::Open(key);
            link.silent_sweeps = 0;
            link.backoff_ms = BACKOFF_MS_MIN;
        }
    }

    pub(crate) fn refuse_link(&mut self, moment: &mut Moment<'_>, node: NodeId) {
        self.lose_link(moment, node);
    }

    /// Whether a connection is still held.
    pub(crate) fn holds(&self, key: u32) -> bool {
        self.sessions.contains_key(&key)
    }

    /// The connection on which messages to a peer leave, if there is one.
    pub(crate) fn connection_to(&self, node: NodeId) -> Option<u32> {
        match self.links.get(&node)?.state {
            LinkState::Open(key) => Some(key),
            LinkState::Waiting | LinkState::Greeting(_) => None,
        }
    }

    /// Writes a message on a connection; it leaves with [`Self::depart`].
    pub(crate) fn say(&mut self, fabric: &mut Fabric, key: u32, message: &impl Message) {
        let side = self.side_of(key);
        fabric.write(key, side, &message.to_frame());
        self.to_write.push(key);
    }

    /// What was written leaves.
    pub(crate) fn depart(&mut self, moment: &mut Moment<'_>) {
        let mut to_write = std::mem::take(&mut self.to_write);
        for key in to_write.drain(..) {
            let side = self.side_of(key);
            moment.fabric.depart(moment.schedule, moment.now_us, key, side);
        }
        self.to_write = to_write;
    }

    fn side_of(&self, key: u32) -> Side {
        match self.sessions.get(&key) {
            Some(Session::Dialled { .. }) => Side::Opener,
            _ => Side::Acceptor,
        }
    }

    fn dial(&mut self, moment: &mut Moment<'_>, node: NodeId) {
        let link = self.links.get_mut(&node).expect("only members are dialled");
        if link.state != LinkState::Waiting {
            return;
        }
        let opener = Party::Node(self.place);
        let key = moment.fabric.open(moment.schedule, moment.now_us, opener, place_of(node));
        link.state = LinkState::Greeting(key);
        link.silent_sweeps = 0;
        let decoder = FrameDecoder::new(limits::PEER_FRAME_BYTES_MAX);
        self.sessions.insert(key, Session::Dialled { decoder, node, is_open: false });
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            cluster: CLUSTER.into(),
            role: Role::Peer { identity: self.identity, target: node },
        };
        self.say(moment.fabric, key, &hello);
        self.depart(moment);
    }

    fn lose_link(&mut self, moment: &mut Moment<'_>, node: NodeId) {
        let link = self.links.get_mut(&node).expect("only members are dialled");
        let key = match link.state {
            LinkState::Waiting => None,
            LinkState::Greeting(key) => Some(key),
            LinkState::Open(key) => {
                self.events.push(Event::PeerLost { node });
                Some(key)
            }
        };
        link.state = LinkState::Waiting;
        // An answer that is not judged yet must not be taken for that of the next call.
        self.events.retain(|event| !matches!(event, Event::PeerReply { node: of, .. } if *of == node));
        let backoff_ms = link.backoff_ms;
        link.backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
        let wait_ms = self.random.u64(backoff_ms / 2..=backoff_ms);
        self.timers.push((moment.now_ms + wait_ms, NetTimer::Redial(node)));
        if let Some(key) = key {
            self.sessions.remove(&key);
            moment.fabric.close(moment.schedule, moment.now_us, key, Side::Opener, false);
        }
    }

    /// Ends a connection from this side, whatever it was.
    fn end(&mut self, moment: &mut Moment<'_>, key: u32) {
        match self.sessions.get(&key) {
            None => {}
            Some(Session::Dialled { node, .. }) => {
                let node = *node;
                self.lose_link(moment, node);
            }
            Some(Session::Client { .. } | Session::Accepted { .. }) => {
                if let Some(Session::Accepted { node: Some(node), .. }) = self.sessions.remove(&key)
                    && let Some(link) = self.links.get_mut(&node)
                    && link.incoming == Some(key)
                {
                    link.incoming = None;
                }
                moment.fabric.close(moment.schedule, moment.now_us, key, Side::Acceptor, false);
            }
        }
    }

    fn sweep(&mut self, moment: &mut Moment<'_>) {
        for node in self.links.keys().copied().collect::<Vec<_>>() {
            let link = self.links.get_mut(&node).expect("its key was just taken");
            link.silent_sweeps += 1;
            match link.state {
                LinkState::Waiting => {}
                _ if link.silent_sweeps >= DEAD_AFTER_SWEEPS => self.lose_link(moment, node),
                LinkState::Open(key) if link.silent_sweeps >= PING_AFTER_SWEEPS => {
                    self.say(moment.fabric, key, &PeerMessage::Ping);
                }
                LinkState::Greeting(_) | LinkState::Open(_) => {}
            }
        }
        let mut gone = Vec::new();
        for (key, session) in &mut self.sessions {
            if let Session::Accepted { silent_sweeps, .. } = session {
                *silent_sweeps += 1;
                if *silent_sweeps > ACCEPTED_DEAD_AFTER_SWEEPS {
                    gone.push(*key);
                }
            }
        }
        gone.into_iter().for_each(|key| self.end(moment, key));
    }
}
