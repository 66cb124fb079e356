//! Real sockets on loopback, on ports that the system picks; the test plays the clients, the peers and the
//! server. Waiting is bounded and for conditions, never for a time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};

use bytes::Bytes;
use fsd_wire::client::{Operation, Outcome, Refusal};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloStatus, Role};
use fsd_wire::peer::TimeoutNow;
use fsd_wire::{FrameDecoder, Incarnation, Life, Message, RequestId, Term, Version};

use super::*;
use crate::limits;

mod pace;
mod pages;
mod pressure;

/// What has not happened after so many turns will not: they take a minute and more if nothing happens in them.
const TURNS_MAX: usize = 20_000;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
/// A turn in which nothing happens takes this long.
const IDLE: Duration = Duration::from_millis(5);
/// After so many turns without work, none is on its way through loopback any more.
const QUIET_TURNS: usize = 10;

struct Harness {
    net: Net,
    now_ms: u64,
    events: Vec<Event>,
    timers: Vec<(u64, NetTimer)>,
}

impl Harness {
    fn new() -> Self {
        Self::with_peer(None)
    }

    fn with_peer(peer: Option<SocketAddr>) -> Self {
        Self::with_bounds(peer, 100, 256 * 1024 * 1024)
    }

    fn with_bounds(peer: Option<SocketAddr>, max_clients: usize, max_pending_bytes: usize) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings {
            cluster: "test".into(),
            identity: identity(OWN),
            dial: BTreeMap::from([(PEER, peer.unwrap_or(any))]),
            max_file_bytes: FILE_BYTES_MAX,
            max_clients,
            max_pending_bytes,
            forwards_changes: false,
            seed: 1,
        };
        let net = Net::bind(settings, Addresses { peer: any, client: any, text: Some(any), http: Some(any) })
            .unwrap();
        Self { net, now_ms: 0, events: Vec::new(), timers: Vec::new() }
    }

    fn connect(&self, kind: ListenerKind) -> Caller {
        let listener = self.net.listeners.iter().find(|listener| listener.kind == kind).unwrap();
        Caller::new(StdStream::connect(listener.socket.local_addr().unwrap()).unwrap())
    }

    /// One turn, as the loop takes it. What the server would do stands between its reading and its writing.
    fn turn_with(&mut self, serve: impl FnOnce(&mut Net, &mut Vec<Event>)) {
        self.net.poll(Some(IDLE)).unwrap();
        self.net.read(self.now_ms, &mut self.events);
        serve(&mut self.net, &mut self.events);
        self.net.write(self.now_ms);
        self.timers.extend(self.net.take_timers());
    }

    fn turn(&mut self) {
        self.turn_with(|_, _| {});
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if condition(self) {
                return;
            }
            self.turn();
        }
        panic!("in vain: {what}");
    }

    /// Turns until nothing happens any more. A loop that finds work in each turn though nothing comes never
    /// gets there.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            self.turn();
            quiet = if self.net.is_ready() { 0 } else { quiet + 1 };
            if quiet == QUIET_TURNS {
                return;
            }
        }
        panic!("there always is something to do");
    }

    /// The next request, and where its reply goes.
    fn request(&mut self) -> (ConnectionId, RequestId) {
        self.until("a request", |harness| !harness.events.is_empty());
        match self.events.remove(0) {
            Event::Request { connection, request, .. } => (connection, request.id),
            other => panic!("a request was expected, not {other:?}"),
        }
    }

    fn answer(&mut self, (connection, id): (ConnectionId, RequestId), outcome: Outcome) {
        self.net.reply(connection, &ClientReply { id, outcome });
    }

    /// Welcomes the peer whose hello comes next.
    fn welcome(&mut self, caller: &mut Caller) -> ConnectionId {
        caller.send(&hello(Role::Peer { identity: identity(PEER), target: OWN }));
        self.until("a hello", |harness| !harness.events.is_empty());
        let Event::PeerHello { connection, .. } = self.events.remove(0) else { panic!("no hello") };
        self.net.answer_peer(self.now_ms, connection, PEER, HelloStatus::Welcome, String::new());
        let reply = HelloReply::decode(&caller.frame(self)).unwrap();
        assert_eq!(reply.status, HelloStatus::Welcome);
        connection
    }

    fn fire(&mut self, wanted: NetTimer) {
        let at = self.timers.iter().position(|(_, timer)| *timer == wanted).expect("the timer was asked for");
        let (deadline_ms, timer) = self.timers.remove(at);
        self.now_ms = self.now_ms.max(deadline_ms);
        self.net.fire(self.now_ms, timer);
        self.timers.extend(self.net.take_timers());
    }
}

/// The other end of a connection.
struct Caller {
    stream: StdStream,
    received: Vec<u8>,
    decoder: FrameDecoder,
    ended: bool,
}

impl Caller {
    fn new(stream: StdStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        let decoder = FrameDecoder::new(limits::PEER_FRAME_BYTES_MAX);
        Self { stream, received: Vec::new(), decoder, ended: false }
    }

    fn send(&mut self, message: &impl Message) {
        self.send_bytes(&message.to_frame().concat());
    }

    /// For what fits into the kernel's buffers.
    fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Takes what has come.
    fn take(&mut self) {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    return;
                }
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    self.decoder.feed(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the connection failed: {error}"),
            }
        }
    }

    fn frame(&mut self, harness: &mut Harness) -> fsd_wire::Frame {
        let mut frame = None;
        harness.until("a frame", |_| {
            self.take();
            frame = self.decoder.next_frame().unwrap();
            frame.is_some()
        });
        frame.unwrap()
    }

    fn text(&mut self, harness: &mut Harness, expected: &str) {
        harness.until(expected, |_| {
            self.take();
            self.received.len() >= expected.len()
        });
        assert_eq!(String::from_utf8_lossy(&self.received), expected);
        self.received.clear();
    }

    fn end(&mut self, harness: &mut Harness) {
        harness.until("the end of the connection", |_| {
            self.take();
            self.ended
        });
    }
}

fn identity(node: NodeId) -> Identity {
    Identity { node, incarnation: Incarnation(7), life: Life(1), cluster_id: None }
}

fn hello(role: Role) -> Hello {
    Hello { protocol_min: PROTOCOL_VERSION, protocol_max: PROTOCOL_VERSION, cluster: "test".into(), role }
}

fn peer_message(term: u64) -> PeerMessage {
    PeerMessage::TimeoutNow(TimeoutNow { term: Term(term), leader_id: PEER })
}

fn status_request(id: u64) -> ClientRequest {
    ClientRequest { id: RequestId(id), timeout_ms: 1000, operation: Operation::Status }
}

fn not_found() -> Outcome {
    Outcome::Refused(Refusal::NotFound)
}

fn written(version: u64) -> Outcome {
    Outcome::Changed { version: Version(version) }
}

#[test]
fn a_later_connection_of_a_peer_supersedes_the_one_before() {
    let mut harness = Harness::new();
    let mut old = harness.connect(ListenerKind::Peer);
    let old_id = harness.welcome(&mut old);
    old.send(&peer_message(1));
    harness.until("a message", |harness| !harness.events.is_empty());
    assert!(matches!(harness.events.remove(0), Event::Peer { from: PEER, .. }));

    let mut new = harness.connect(ListenerKind::Peer);
    let new_id = harness.welcome(&mut new);
    assert_ne!(new_id, old_id);
    old.end(&mut harness);
    assert_eq!(harness.net.links[&PEER].incoming, Some(new_id));
    assert_eq!(harness.net.accepted_peers, 1);
    new.send(&peer_message(2));
    harness.until("a message", |harness| !harness.events.is_empty());
    let Event::Peer { from, message } = harness.events.remove(0) else { panic!("no message") };
    assert_eq!((from, message), (PEER, peer_message(2)));
}

#[test]
fn what_the_superseded_connection_still_says_is_not_heard() {
    let mut harness = Harness::new();
    let mut old = harness.connect(ListenerKind::Peer);
    harness.welcome(&mut old);
    let mut new = harness.connect(ListenerKind::Peer);
    new.send(&hello(Role::Peer { identity: identity(PEER), target: OWN }));
    harness.until("a hello", |harness| !harness.events.is_empty());
    let Event::PeerHello { connection, .. } = harness.events.remove(0) else { panic!("no hello") };
    old.send(&peer_message(1));
    harness.turn_with(|net, events| {
        events.clear();
        net.answer_peer(0, connection, PEER, HelloStatus::Welcome, String::new());
    });
    old.end(&mut harness);
    harness.settle();
    assert!(harness.events.is_empty(), "{:?}", harness.events);
}

#[test]
fn a_peer_that_broke_off_in_the_turn_of_its_hello_supersedes_nothing() {
    let mut harness = Harness::new();
    let mut good = harness.connect(ListenerKind::Peer);
    let good_id = harness.welcome(&mut good);
    let mut bad = harness.connect(ListenerKind::Peer);
    let mut bytes = hello(Role::Peer { identity: identity(PEER), target: OWN }).to_frame().concat();
    bytes.extend_from_slice(&[b'x'; 64]);
    bad.send_bytes(&bytes);
    let mut answered = false;
    for _ in 0..TURNS_MAX {
        if answered {
            break;
        }
        harness.turn_with(|net, events| {
            for event in events.drain(..) {
                let Event::PeerHello { connection, .. } = event else { panic!("no hello") };
                net.answer_peer(0, connection, PEER, HelloStatus::Welcome, String::new());
                answered = true;
            }
        });
    }
    assert!(answered, "its hello came");
    harness.settle();
    assert_eq!(harness.net.links[&PEER].incoming, Some(good_id));
    good.send(&peer_message(1));
    harness.until("a message", |harness| !harness.events.is_empty());
}

#[test]
fn a_reply_to_a_connection_that_is_gone_reaches_nobody_else_in_its_place() {
    let mut harness = Harness::new();
    let mut first = harness.connect(ListenerKind::Client);
    first.send(&hello(Role::Client));
    first.send(&status_request(5));
    let (old, old_request) = harness.request();
    first.send_bytes(&[b'x'; 64]);
    harness.until("the connection is closed", |harness| harness.net.connections.is_empty());

    let mut second = harness.connect(ListenerKind::Text);
    second.send_bytes(b"read a\r\n");
    let (new, new_request) = harness.request();
    assert_eq!(new.key, old.key, "the place is used again");
    assert_ne!(new, old);
    harness.answer((old, old_request), written(9));
    harness.net.list_for_reading(old);
    harness.net.list_for_writing(old);
    harness.settle();
    second.take();
    assert!(second.received.is_empty());
    harness.answer((new, new_request), not_found());
    second.text(&mut harness, "ERR_FILE_NOT_FOUND\r\n");
}

#[test]
fn a_flood_on_one_connection_neither_holds_up_another_nor_stalls() {
    const COMMANDS: usize = 5 * limits::MESSAGES_PER_TURN_MAX;
    const ANSWER: &str = "ERR_CMD_ERR usage: read NAME\r\n";
    let mut harness = Harness::new();
    let mut flood = harness.connect(ListenerKind::Text);
    let mut other = harness.connect(ListenerKind::Text);
    harness.until("both are accepted", |harness| harness.net.connections.len() == 2);
    harness.settle();
    flood.send_bytes("read\r\n".repeat(COMMANDS).as_bytes());
    other.send_bytes(b"read a\r\n");
    let mut answered_bytes = 0;
    harness.turn_with(|net, events| {
        answered_bytes = net.connections.iter().map(|(_, connection)| connection.output.bytes()).sum();
        assert_eq!(events.len(), 1, "the other client's request came in the same turn");
    });
    assert!((1..=limits::MESSAGES_PER_TURN_MAX * ANSWER.len()).contains(&answered_bytes), "{answered_bytes}");
    // The kernel has said all that it will say of the flood; the rest is taken up without another word.
    harness.until("all answers", |_| {
        flood.take();
        flood.received.len() >= COMMANDS * ANSWER.len()
    });
}

#[test]
fn the_last_words_reach_a_client_that_still_sends() {
    let mut harness = Harness::new();
    let mut client = harness.connect(ListenerKind::Text);
    client.send_bytes(b"bogus\r\n");
    // More than the kernel's buffers hold: it is taken and thrown away.
    let mut left: usize = 16 * 1024 * 1024;
    let chunk = [b'x'; 64 * 1024];
    harness.until("all is sent", |_| {
        match client.stream.write(&chunk[..left.min(chunk.len())]) {
            Ok(count) => left -= count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "the connection failed"),
        }
        left == 0
    });
    client.end(&mut harness);
    assert!(client.received.starts_with(b"ERR_CMD_ERR unknown command"));
    assert_eq!(client.received.iter().filter(|byte| **byte == b'\n').count(), 1);

    // A client that neither closes nor falls silent is not heard out for ever.
    harness.settle();
    assert_eq!(harness.net.connections.len(), 1);
    harness.net.timers.push((0, NetTimer::Sweep));
    harness.turn();
    for _ in 0..4 {
        client.send_bytes(b"x");
        harness.settle();
        harness.fire(NetTimer::Sweep);
        harness.turn();
        if harness.net.connections.is_empty() {
            return;
        }
    }
    panic!("the connection stays");
}

#[test]
fn a_half_closed_client_gets_all_its_replies_and_then_the_end() {
    let mut harness = Harness::new();
    let mut client = harness.connect(ListenerKind::Text);
    client.send_bytes(b"read a\r\nread b\r\nwrite c 1\r\nx\r\nread c\r\nread unfinished");
    client.stream.shutdown(Shutdown::Write).unwrap();
    let reads = [harness.request(), harness.request()];
    harness.settle();
    assert!(harness.events.is_empty(), "the write waits for the reads");
    harness.answer(reads[1], not_found());
    harness.settle();
    harness.answer(reads[0], not_found());
    let write = harness.request();
    harness.settle();
    harness.answer(write, written(3));
    let read = harness.request();
    harness.settle();
    assert!(!client.ended);
    harness.answer(read, not_found());
    client.text(&mut harness, "ERR_FILE_NOT_FOUND\r\nERR_FILE_NOT_FOUND\r\nOK 3\r\nERR_FILE_NOT_FOUND\r\n");
    client.end(&mut harness);
    harness.until("the connection is gone", |harness| harness.net.connections.is_empty());
}

#[test]
fn a_command_that_waits_for_those_before_it_keeps_nobody_busy() {
    let mut harness = Harness::new();
    let mut client = harness.connect(ListenerKind::Text);
    client.send_bytes(b"write a 1\r\nx\r\nread a\r\n");
    let write = harness.request();
    harness.settle();
    assert!(harness.events.is_empty(), "the read waits");
    harness.answer(write, written(1));
    let read = harness.request();
    harness.answer(read, not_found());
    client.text(&mut harness, "OK 1\r\nERR_FILE_NOT_FOUND\r\n");
}

#[test]
fn a_client_with_too_many_requests_in_flight_waits_and_goes_on() {
    let mut harness = Harness::new();
    let mut client = harness.connect(ListenerKind::Client);
    client.send(&hello(Role::Client));
    let count = limits::PIPELINED_REQUESTS_MAX as u64 + 1;
    let requests: Vec<_> = (0..count).flat_map(|id| status_request(id).to_frame().concat()).collect();
    client.send_bytes(&requests);
    harness.settle();
    assert_eq!(harness.events.len(), limits::PIPELINED_REQUESTS_MAX);
    for _ in 0..count {
        let request = harness.request();
        harness.answer(request, not_found());
    }
    let hello_reply = HelloReply::decode(&client.frame(&mut harness)).unwrap();
    assert_eq!(hello_reply.status, HelloStatus::Welcome);
    for id in 0..count {
        let reply = ClientReply::decode(&client.frame(&mut harness)).unwrap();
        assert_eq!(reply.id, RequestId(id));
    }
}

#[test]
fn a_client_that_takes_no_replies_is_not_read_until_it_does() {
    const COMMANDS: usize = 3 * limits::PIPELINED_REQUESTS_MAX;
    let contents = Bytes::from(vec![b'c'; 16 * 1024]);
    let reply_bytes = "CONTENTS 1 16384 0\r\n".len() + contents.len() + 2;
    let mut harness = Harness::new();
    let mut client = harness.connect(ListenerKind::Text);
    client.send_bytes("read a\r\n".repeat(COMMANDS).as_bytes());
    let mut answered = 0;
    let mut serve = |harness: &mut Harness| {
        harness.settle();
        let before = answered;
        while !harness.events.is_empty() {
            let request = harness.request();
            let contents = contents.clone();
            harness.answer(request, Outcome::Read { version: Version(1), expiry_seconds: 0, contents });
            answered += 1;
        }
        (before, answered)
    };
    serve(&mut harness);
    let (_, while_it_took_none) = serve(&mut harness);
    assert_eq!(serve(&mut harness), (while_it_took_none, while_it_took_none), "it is not read further");
    assert!(while_it_took_none < COMMANDS, "it was held");
    for _ in 0..TURNS_MAX {
        if client.received.len() >= COMMANDS * reply_bytes {
            break;
        }
        client.take();
        harness.turn();
        let requests = std::mem::take(&mut harness.events);
        for event in requests {
            let Event::Request { connection, request, .. } = event else { panic!("no request") };
            let contents = contents.clone();
            harness.answer(
                (connection, request.id),
                Outcome::Read { version: Version(1), expiry_seconds: 0, contents },
            );
        }
    }
    assert_eq!(client.received.len(), COMMANDS * reply_bytes);
}

/// Opens the link to a peer that is played by what `listener` accepts.
fn open_link(harness: &mut Harness, listener: &StdListener) -> Caller {
    let mut peer = accept(harness, listener);
    let greeting = Hello::decode(&peer.frame(harness)).unwrap();
    assert_eq!(greeting.role, Role::Peer { identity: identity(OWN), target: PEER });
    peer.send(&HelloReply {
        status: HelloStatus::Welcome,
        protocol: PROTOCOL_VERSION,
        cluster: "test".into(),
        identity: identity(PEER),
        reason: String::new(),
    });
    harness.until("the peer's answer", |harness| !harness.events.is_empty());
    let Event::PeerReply { node, reply } = harness.events.remove(0) else { panic!("no answer") };
    assert_eq!((node, reply.status), (PEER, HelloStatus::Welcome));
    harness.net.open_link(PEER);
    peer
}

fn accept(harness: &mut Harness, listener: &StdListener) -> Caller {
    let mut peer = None;
    harness.until("a call", |_| {
        peer = listener.accept().ok().map(|(stream, _)| Caller::new(stream));
        peer.is_some()
    });
    peer.unwrap()
}

fn listen() -> (StdListener, SocketAddr) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_silent_peer_is_asked_then_lost_then_called_again() {
    let (listener, address) = listen();
    let mut harness = Harness::with_peer(Some(address));
    harness.net.start(0);
    let mut peer = open_link(&mut harness, &listener);
    harness.turn();
    let mut sweeps = 0;
    while harness.events.is_empty() {
        harness.fire(NetTimer::Sweep);
        sweeps += 1;
        assert!(sweeps <= 6, "its silence is noticed within 3 s");
        harness.turn();
    }
    assert!(sweeps > 2, "it had time to answer");
    assert!(matches!(harness.events[..], [Event::PeerLost { node: PEER }]), "{:?}", harness.events);
    assert_eq!(PeerMessage::decode(&peer.frame(&mut harness)).unwrap(), PeerMessage::Ping);
    peer.end(&mut harness);
    harness.events.clear();
    harness.fire(NetTimer::Redial(PEER));
    open_link(&mut harness, &listener);
    assert!(matches!(harness.net.links[&PEER].state, LinkState::Open(_)));
}

#[test]
fn a_peer_that_answers_is_not_lost() {
    let (listener, address) = listen();
    let mut harness = Harness::with_peer(Some(address));
    harness.net.start(0);
    let mut peer = open_link(&mut harness, &listener);
    harness.turn();
    for _ in 0..10 {
        harness.fire(NetTimer::Sweep);
        harness.fire(NetTimer::Sweep);
        assert_eq!(PeerMessage::decode(&peer.frame(&mut harness)).unwrap(), PeerMessage::Ping);
        peer.send(&PeerMessage::Pong);
        harness.until("the answer is heard", |harness| harness.net.links[&PEER].silent_sweeps == 0);
    }
    assert!(harness.events.is_empty(), "{:?}", harness.events);
}

#[test]
fn a_peer_that_is_down_is_called_with_growing_pauses() {
    // The system gives this port to nobody who asks for any, and no service has it. One that was bound and closed again
    // would soon be another test's.
    let mut harness = Harness::with_peer(Some(SocketAddr::from(([127, 0, 0, 1], 1))));
    harness.net.start(0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        harness.until("the call failed", |harness| {
            harness.timers.iter().any(|(_, timer)| *timer == NetTimer::Redial(PEER))
        });
        let (deadline_ms, _) =
            harness.timers.iter().find(|(_, timer)| *timer == NetTimer::Redial(PEER)).copied().unwrap();
        pauses.push(deadline_ms - harness.now_ms);
        harness.settle();
        harness.fire(NetTimer::Redial(PEER));
    }
    assert!(pauses[0] <= 20, "{pauses:?}");
    assert!(pauses[7] >= 500 && pauses.iter().all(|pause| *pause <= 1000), "{pauses:?}");
    assert!(harness.events.is_empty(), "a link that never stood is not lost");
    assert!(harness.net.connections.len() <= 1);
}

#[test]
fn an_answer_that_belongs_to_an_earlier_call_opens_nothing() {
    let (listener, address) = listen();
    let mut harness = Harness::with_peer(Some(address));
    harness.net.start(0);
    let first = accept(&mut harness, &listener);
    drop(first);
    harness.until("the call failed", |harness| {
        harness.timers.iter().any(|(_, timer)| *timer == NetTimer::Redial(PEER))
    });
    harness.fire(NetTimer::Redial(PEER));
    harness.net.open_link(PEER);
    let mut second = open_link(&mut harness, &listener);
    harness.net.send_peer(PEER, &peer_message(4));
    assert_eq!(PeerMessage::decode(&second.frame(&mut harness)).unwrap(), peer_message(4));
}
