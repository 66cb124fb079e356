//! The network: connections between nodes, and from clients to nodes, as two streams of bytes each. What is sent
//! arrives in its order or not at all, as TCP has it; it may be late, cut into pieces anywhere, be held back while a
//! link is cut and arrive long after, be damaged, or vanish behind a point while its sender believes that it left.

use std::collections::{BTreeMap, VecDeque};

use fsd::net::ClientProtocol;

use crate::plan::{FaultKind, Plan};
use crate::schedule::{Happening, Schedule};

/// Who stands at an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A node, by its place.
    Node(usize),
    /// A client, by its place.
    Client(usize),
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who opened it.
    Opener,
    /// The node that it was opened to.
    Acceptor,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    /// The connection is there.
    Opened,
    /// Bytes of the stream.
    Bytes(Vec<u8>),
    /// The other end is gone.
    Closed,
}

/// What is on its way to one end.
#[derive(Debug, Default)]
struct Stream {
    /// Not yet given to the network: all that is sent in one go to one end travels together.
    outbox: Vec<u8>,
    last_arrival_us: u64,
    /// Sent while the link was cut.
    held: VecDeque<Chunk>,
    /// Nothing more will arrive, and the sender is not told.
    is_dead: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) opener: Party,
    pub(crate) acceptor: usize,
    /// Whether the opener and the acceptor still hold their ends.
    open: [bool; 2],
    /// What is on its way to the opener and to the acceptor.
    streams: [Stream; 2],
}

impl Connection {
    pub(crate) fn party(&self, side: Side) -> Party {
        match side {
            Side::Opener => self.opener,
            Side::Acceptor => Party::Node(self.acceptor),
        }
    }
}

/// One direction between two parties.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// How many faults cut it at present.
    cuts: u32,
    delay_us_min: u64,
    delay_us_max: u64,
    /// Microseconds that a kilobyte takes.
    us_per_kib: u64,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Fabric {
    nodes: usize,
    /// The first party that speaks as on the text protocol; those behind it do, too.
    first_text: usize,
    parties: usize,
    links: Vec<Link>,
    connections: BTreeMap<u32, Connection>,
    next: u32,
    random: fastrand::Rng,
    loss: f64,
    half_open: f64,
    cutting: f64,
    flips: f64,
    spikes: f64,
    spike_us_max: u64,
    /// This is done next, whatever chance says.
    awaited: Option<FaultKind>,
    /// What was done in this event.
    pub(crate) done: Vec<FaultKind>,
}

impl Fabric {
    pub(crate) fn new(plan: &Plan, random: fastrand::Rng) -> Self {
        let parties = plan.nodes + plan.clients;
        let link =
            Link { cuts: 0, delay_us_min: plan.delay_us_min, delay_us_max: plan.delay_us_max, us_per_kib: 0 };
        let rate = |kind, rate| if plan.faults.contains(kind) { rate } else { 0.0 };
        Self {
            nodes: plan.nodes,
            first_text: parties - plan.text_clients,
            parties,
            links: vec![link; parties * parties],
            connections: BTreeMap::new(),
            next: 1,
            random,
            loss: rate(FaultKind::Loss, plan.network_rate),
            half_open: rate(FaultKind::HalfOpen, plan.network_rate / 4.0),
            cutting: rate(FaultKind::Cut, 0.2),
            flips: rate(FaultKind::Flip, plan.network_rate / 2.0),
            spikes: rate(FaultKind::Delay, plan.network_rate * 4.0),
            spike_us_max: 2 * plan.election_timeout_ms * 1000,
            awaited: None,
            done: Vec::new(),
        }
    }

    /// No fault is made any more, and all that were are healed.
    pub(crate) fn heal_all(&mut self, schedule: &mut Schedule, now_us: u64) {
        (self.loss, self.half_open, self.flips, self.spikes, self.cutting) = (0.0, 0.0, 0.0, 0.0, 0.0);
        self.awaited = None;
        for link in &mut self.links {
            (link.cuts, link.us_per_kib) = (0, 0);
            link.delay_us_min = link.delay_us_min.min(1000);
            link.delay_us_max = link.delay_us_max.min(5000);
        }
        self.release(schedule, now_us);
    }

    /// Has a fault of this kind happen to the next of what is sent that it can happen to.
    pub(crate) fn await_fault(&mut self, kind: FaultKind) {
        self.awaited = Some(kind);
    }

    /// Cuts, or heals, the direction from one node to another.
    pub(crate) fn cut(&mut self, from: usize, to: usize, is_cut: bool) {
        let link = &mut self.links[from * self.parties + to];
        link.cuts = if is_cut { link.cuts + 1 } else { link.cuts.saturating_sub(1) };
    }

    /// Cuts, or heals, all that a node and clients say to each other.
    pub(crate) fn cut_clients(&mut self, node: usize, is_cut: bool) {
        for client in self.nodes..self.parties {
            self.cut(node, client, is_cut);
            self.cut(client, node, is_cut);
        }
    }

    /// Makes the direction from one node to another slow; 0 for as fast as ever.
    pub(crate) fn set_us_per_kib(&mut self, from: usize, to: usize, us_per_kib: u64) {
        self.links[from * self.parties + to].us_per_kib = us_per_kib;
    }

    /// Lets what was held back on links that are whole again go on its way.
    pub(crate) fn release(&mut self, schedule: &mut Schedule, now_us: u64) {
        let keys: Vec<u32> = self.connections.keys().copied().collect();
        for key in keys {
            for to in [Side::Opener, Side::Acceptor] {
                let Some(connection) = self.connections.get(&key) else { continue };
                if self.links[self.link_of(connection, to)].cuts > 0 {
                    continue;
                }
                let connection = self.connections.get_mut(&key).expect("it was just seen");
                let held = std::mem::take(&mut connection.streams[to as usize].held);
                for chunk in held {
                    self.launch(schedule, now_us, key, to, chunk);
                }
            }
        }
    }

    /// Opens a connection; the other end learns of it when that arrives.
    pub(crate) fn open(
        &mut self,
        schedule: &mut Schedule,
        now_us: u64,
        opener: Party,
        acceptor: usize,
    ) -> u32 {
        let key = self.next;
        self.next += 1;
        let streams = [Stream::default(), Stream::default()];
        self.connections.insert(key, Connection { opener, acceptor, open: [true, false], streams });
        self.put(schedule, now_us, key, Side::Acceptor, Chunk::Opened);
        key
    }

    /// The connection of this number, if one of its ends is still held.
    pub(crate) fn get(&self, key: u32) -> Option<&Connection> {
        self.connections.get(&key)
    }

    /// Whether a client has a connection to a node.
    pub(crate) fn is_connected(&self, client: usize, node: usize) -> bool {
        let is_it = |connection: &Connection| {
            connection.opener == Party::Client(client) && connection.acceptor == node && connection.open[0]
        };
        self.connections.values().any(is_it)
    }

    /// Whether this end is held.
    pub(crate) fn is_open(&self, key: u32, side: Side) -> bool {
        self.connections.get(&key).is_some_and(|connection| connection.open[side as usize])
    }

    /// What a client speaks.
    pub(crate) fn protocol_of(&self, client: usize) -> ClientProtocol {
        let is_text = self.nodes + client >= self.first_text;
        if is_text { ClientProtocol::Text } else { ClientProtocol::Binary }
    }

    /// The acceptor took the connection.
    pub(crate) fn accept(&mut self, key: u32) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.open[Side::Acceptor as usize] = true;
        }
    }

    /// Bytes for the other end; they leave with [`Self::depart`].
    pub(crate) fn write(&mut self, key: u32, from: Side, bytes: &[bytes::Bytes]) {
        if let Some(connection) = self.connections.get_mut(&key)
            && connection.open[from as usize]
        {
            let outbox = &mut connection.streams[from.other() as usize].outbox;
            bytes.iter().for_each(|piece| outbox.extend_from_slice(piece));
        }
    }

    /// What was written at this end leaves.
    pub(crate) fn depart(&mut self, schedule: &mut Schedule, now_us: u64, key: u32, from: Side) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let bytes = std::mem::take(&mut connection.streams[from.other() as usize].outbox);
        if !bytes.is_empty() {
            self.put(schedule, now_us, key, from.other(), Chunk::Bytes(bytes));
        }
    }

    /// This end is given up. If `silently`, the other is not told: its machine lost power.
    pub(crate) fn close(
        &mut self,
        schedule: &mut Schedule,
        now_us: u64,
        key: u32,
        side: Side,
        silently: bool,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let was_open = std::mem::replace(&mut connection.open[side as usize], false);
        if was_open && !silently {
            self.depart(schedule, now_us, key, side);
            self.put(schedule, now_us, key, side.other(), Chunk::Closed);
        }
        self.forget_if_closed(key);
    }

    /// Tells the sender that nobody is there.
    pub(crate) fn reset(&mut self, schedule: &mut Schedule, now_us: u64, key: u32, from: Side) {
        self.put(schedule, now_us, key, from.other(), Chunk::Closed);
    }

    /// The connections between two nodes break at the end of the first: what is on its way to it is lost.
    pub(crate) fn break_at(&mut self, schedule: &mut Schedule, now_us: u64, place: usize, other: usize) {
        for (key, connection) in &self.connections {
            let (opener, acceptor) = (connection.opener, Party::Node(connection.acceptor));
            let to = match (opener, acceptor) {
                (Party::Node(from), Party::Node(to)) if (from, to) == (place, other) => Side::Opener,
                (Party::Node(from), Party::Node(to)) if (from, to) == (other, place) => Side::Acceptor,
                _ => continue,
            };
            schedule.at(now_us, Happening::Arrive { connection: *key, to, chunk: Chunk::Closed });
        }
    }

    /// Gives up all ends that a party holds.
    pub(crate) fn close_all(&mut self, schedule: &mut Schedule, now_us: u64, party: Party, silently: bool) {
        let keys: Vec<u32> = self.connections.keys().copied().collect();
        for key in keys {
            for side in [Side::Opener, Side::Acceptor] {
                if self.connections.get(&key).is_some_and(|connection| connection.party(side) == party) {
                    self.close(schedule, now_us, key, side, silently);
                }
            }
        }
    }

    fn forget_if_closed(&mut self, key: u32) {
        // An opener that gave up before its connection arrived leaves nothing behind either.
        if self.connections.get(&key).is_some_and(|connection| connection.open == [false, false]) {
            self.connections.remove(&key);
        }
    }

    fn link_of(&self, connection: &Connection, to: Side) -> usize {
        let place = |party| match party {
            Party::Node(node) => node,
            Party::Client(client) => self.nodes + client,
        };
        place(connection.party(to.other())) * self.parties + place(connection.party(to))
    }

    /// Gives something to the network: it may break the connection there and then.
    fn put(&mut self, schedule: &mut Schedule, now_us: u64, key: u32, to: Side, chunk: Chunk) {
        let Some(connection) = self.connections.get(&key) else { return };
        if connection.streams[to as usize].is_dead {
            return;
        }
        let link = self.link_of(connection, to);
        if self.links[link].cuts > 0 {
            let connection = self.connections.get_mut(&key).expect("it was just seen");
            connection.streams[to as usize].held.push_back(chunk);
            return;
        }
        if self.strikes(FaultKind::Loss, self.loss) {
            self.launch(schedule, now_us, key, to, Chunk::Closed);
            self.launch(schedule, now_us, key, to.other(), Chunk::Closed);
            return;
        }
        if self.strikes(FaultKind::HalfOpen, self.half_open) {
            self.connections.get_mut(&key).expect("it was just seen").streams[to as usize].is_dead = true;
            return;
        }
        match chunk {
            Chunk::Bytes(mut bytes) => {
                if self.strikes(FaultKind::Flip, self.flips) {
                    let at = self.random.usize(..bytes.len());
                    bytes[at] ^= 1 << self.random.u32(..8);
                }
                if bytes.len() > 1 && self.strikes(FaultKind::Cut, self.cutting) {
                    let rest = bytes.split_off(self.random.usize(1..bytes.len()));
                    self.launch(schedule, now_us, key, to, Chunk::Bytes(bytes));
                    bytes = rest;
                }
                self.launch(schedule, now_us, key, to, Chunk::Bytes(bytes));
            }
            chunk => self.launch(schedule, now_us, key, to, chunk),
        }
    }

    fn launch(&mut self, schedule: &mut Schedule, now_us: u64, key: u32, to: Side, chunk: Chunk) {
        let Some(connection) = self.connections.get(&key) else { return };
        let Link { delay_us_min, delay_us_max, us_per_kib, .. } = self.links[self.link_of(connection, to)];
        let mut delay_us = self.random.u64(delay_us_min..=delay_us_max);
        if self.strikes(FaultKind::Delay, self.spikes) {
            delay_us += self.random.u64(..self.spike_us_max);
        }
        if let Chunk::Bytes(bytes) = &chunk {
            delay_us += bytes.len() as u64 * us_per_kib / 1024;
        }
        let connection = self.connections.get_mut(&key).expect("it was just seen");
        let stream = &mut connection.streams[to as usize];
        let at_us = (now_us + delay_us).max(stream.last_arrival_us);
        stream.last_arrival_us = at_us;
        schedule.at(at_us, Happening::Arrive { connection: key, to, chunk });
    }

    /// Whether a fault of this kind happens now.
    fn strikes(&mut self, kind: FaultKind, rate: f64) -> bool {
        let strikes = if self.awaited == Some(kind) {
            self.awaited = None;
            true
        } else {
            rate > 0.0 && self.random.f64() < rate
        };
        if strikes {
            self.done.push(kind);
        }
        strikes
    }
}
