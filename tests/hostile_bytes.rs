//! Bytes that keep no rule, on every port: the connection is answered or closed, the node's memory stays where
//! it is, and other clients do not notice.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::Bytes;
use fsd_wire::client::{ClientRequest, Operation};
use fsd_wire::frame::{self, HEADER_BYTES};
use fsd_wire::hello::{Hello, Identity, Role};
use fsd_wire::{Incarnation, Life, Message, NodeId, RequestId};
use support::{PATIENCE, Reply, Settings, TestCluster, wait_until};

/// What a node's own memory may grow by in one of these tests: its buffers for what other clients do, far less
/// than any of the lengths that are claimed here.
const GROWTH_KIB_MAX: u64 = 24 * 1024;
const ROUNDS_OF_RANDOM_BYTES: usize = 60;

fn frame_of(message: &impl Message) -> Vec<u8> {
    message.to_frame().concat()
}

fn hello(role: Role) -> Vec<u8> {
    hello_with("test", 1, 1, role)
}

fn hello_with(cluster: &str, protocol_min: u16, protocol_max: u16, role: Role) -> Vec<u8> {
    frame_of(&Hello { protocol_min, protocol_max, cluster: cluster.to_owned(), role })
}

fn peer(node: u32, target: u32) -> Role {
    let identity =
        Identity { node: NodeId(node), incarnation: Incarnation(7), life: Life(1), cluster_id: None };
    Role::Peer { identity, target: NodeId(target) }
}

/// A frame of any kind around any body, with CRCs that match.
fn sealed(kind: u16, body: &[u8]) -> Vec<u8> {
    frame::seal(kind, vec![Bytes::copy_from_slice(body)]).concat()
}

/// The header of a frame whose body of `len` bytes never comes, with a header CRC that matches.
fn header_alone(kind: u16, len: u32) -> Vec<u8> {
    let mut header = sealed(kind, b"")[..HEADER_BYTES].to_vec();
    header[8..12].copy_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    header
}

fn list_request() -> Vec<u8> {
    let operation = Operation::List { prefix: String::new(), after: String::new(), limit: u32::MAX };
    frame_of(&ClientRequest { id: RequestId(1), timeout_ms: u32::MAX, operation })
}

/// Streams that break the binary protocol in one way each.
fn hostile_frames() -> Vec<(String, Vec<u8>)> {
    let mut streams: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |what: &str, parts: &[&[u8]]| streams.push((what.to_owned(), parts.concat()));
    let client = hello(Role::Client);
    let node = hello(peer(2, 1));
    add("an empty line", &[b"\r\n"]);
    add("a text command", &[b"delete\r\n"]);
    add("a web browser", &[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]);
    add("zeroes", &[&[0; 4096]]);
    add("ones", &[&[0xff; 4096]]);
    for (who, hello) in [("client", &client), ("peer", &node)] {
        add(&format!("{who}: hello twice"), &[hello, hello]);
        add(&format!("{who}: garbage behind the hello"), &[hello, &[0xa5; 1000]]);
        add(&format!("{who}: a body of 4 GiB"), &[hello, &header_alone(34, u32::MAX)]);
        add(&format!("{who}: a body just over every limit"), &[hello, &header_alone(34, 21 * 1024 * 1024)]);
        for kind in [0, 1, 2, 16, 17, 18, 32, 33, 34, 35, 36, 48, 53, 999, u16::MAX] {
            add(&format!("{who}: kind {kind}, empty"), &[hello, &sealed(kind, b"")]);
            add(&format!("{who}: kind {kind}, zeroes"), &[hello, &sealed(kind, &[0; 64])]);
            add(&format!("{who}: kind {kind}, ones"), &[hello, &sealed(kind, &[0xff; 64])]);
        }
        let mut flipped = hello.clone();
        flipped[HEADER_BYTES] ^= 1;
        add(&format!("{who}: a flipped bit in the hello"), &[&flipped]);
    }
    add("another cluster", &[&hello_with("another", 1, 1, Role::Client), &list_request()]);
    add("a protocol of the future", &[&hello_with("test", 700, 800, Role::Client), &list_request()]);
    add("no hello", &[&list_request()]);
    add("a stranger", &[&hello(peer(99, 1))]);
    add("a node that is itself", &[&hello(peer(1, 1))]);
    add("a node that means another", &[&hello(peer(2, 3))]);
    add("node 0", &[&hello(peer(0, 1))]);
    add("a hello with a name of 60000 bytes", &[&hello_with(&"x".repeat(60_000), 1, 1, Role::Client)]);
    streams
}

fn hostile_texts() -> Vec<(String, Vec<u8>)> {
    let lines: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"delete\r\n",
        b"write a -1\r\n",
        b"write a -9223372036854775808\r\n",
        b"write a 18446744073709551615\r\n",
        b"write a 18446744073709551616\r\n",
        b"write a 9999999999\r\nfew",
        b"cas a 1 -1\r\nx\r\n",
        b"write a 4294967295 4294967295\r\n",
        b"write \x00 1\r\nx\r\n",
        b"read \xff\xfe\xfd\r\n",
        b"fsd1\x01\x00\x20\x00",
        &[0; 4096],
    ];
    let mut streams: Vec<_> = lines
        .iter()
        .map(|line| (String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned(), line.to_vec()))
        .collect();
    streams.push(("a line without an end".to_owned(), vec![b'x'; 1024 * 1024]));
    streams.push(("a binary hello".to_owned(), hello(Role::Client)));
    streams
}

/// Sends, ends the sending side, and waits until the node has closed its side too: whatever it answered.
fn send_and_wait_for_close(address: &str, what: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The node may close as soon as it has seen enough.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{address}: {what}: the connection is not closed: {error}"),
        }
    }
}

/// A cluster with some data, and the means to see that it does not suffer.
struct Watched {
    cluster: TestCluster,
    resident_kib: Vec<u64>,
    term: u64,
}

impl Watched {
    fn start() -> Self {
        // A patient cluster: that an overloaded machine holds an election is no harm done by bytes.
        let settings = Settings { election_timeout_ms: 3000, heartbeat_ms: 100, ..Settings::default() };
        let cluster = TestCluster::start_with(3, settings);
        let mut client = cluster.client();
        client.write("a", "innocent", 0).unwrap();
        let resident_kib = cluster.nodes.iter().map(support::Node::resident_kib).collect();
        let term = cluster.statuses().iter().map(|(_, status)| status.term.0).max().unwrap();
        Self { cluster, resident_kib, term }
    }

    fn check_unharmed(mut self) {
        let mut client = self.cluster.client();
        assert_eq!(&client.read("a").unwrap().contents[..], b"innocent");
        client.write("b", "still writable", 0).unwrap();
        let files = client.list("").unwrap();
        assert!(files.iter().all(|file| file.name == "a" || file.name == "b"), "{files:?}");
        for (node, before) in self.cluster.nodes.iter().zip(&self.resident_kib) {
            let now = node.resident_kib();
            assert!(now < before + GROWTH_KIB_MAX, "node {}: {before} KiB before, {now} now", node.id);
        }
        for (_, status) in self.cluster.statuses() {
            assert_eq!(status.term.0, self.term, "node {}: nobody had reason for an election", status.node);
        }
        self.cluster.compare_all_nodes();
    }

    /// Every address of every port of the leader and of one follower, with a name.
    fn addresses(&self) -> Vec<(&'static str, String)> {
        let nodes = [self.cluster.wait_for_leader(), self.cluster.a_follower()];
        let of_node = |n: usize| {
            let node = &self.cluster.nodes[n];
            [("peer", node.peer.clone()), ("client", node.client.clone()), ("text", node.text.clone())]
        };
        nodes.into_iter().flat_map(of_node).collect()
    }
}

#[test]
fn broken_messages_close_their_connection_and_touch_nothing_else() {
    let watched = Watched::start();
    for (port, address) in watched.addresses() {
        let streams = if port == "text" { hostile_texts() } else { hostile_frames() };
        for (what, bytes) in streams {
            send_and_wait_for_close(&address, &what, &bytes);
        }
    }
    watched.check_unharmed();
}

#[test]
fn random_bytes_close_their_connection_and_touch_nothing_else() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let watched = Watched::start();
    let good = [hello(Role::Client), list_request(), hello(peer(2, 1)), b"write a 5\r\nhello".to_vec()];
    for (port, address) in watched.addresses() {
        for n in 0..ROUNDS_OF_RANDOM_BYTES {
            let mut bytes: Vec<u8> = (0..random.usize(1..4096)).map(|_| random.u8(..)).collect();
            // Half of them begin well, so that the deeper layers get their share.
            if n % 2 == 0 && port != "text" {
                bytes = [&good[random.usize(..3)][..], &bytes].concat();
            }
            send_and_wait_for_close(&address, &format!("random stream {n}"), &bytes);
        }
    }
    watched.check_unharmed();
}

#[test]
fn messages_cut_at_every_byte_close_their_connection() {
    let watched = Watched::start();
    let client_stream = [hello(Role::Client), list_request()].concat();
    let peer_stream = hello(peer(2, 1));
    let text_stream = b"write b 5\r\nhell";
    for (port, address) in watched.addresses() {
        let stream: &[u8] = match port {
            "peer" => &peer_stream,
            "client" => &client_stream,
            _ => text_stream,
        };
        for len in 0..stream.len() {
            send_and_wait_for_close(&address, &format!("the first {len} bytes"), &stream[..len]);
        }
    }
    watched.check_unharmed();
}

#[test]
fn lengths_that_are_only_claimed_take_no_memory() {
    const CONNECTIONS: usize = 100;
    let watched = Watched::start();
    // 1.6 GiB if the node believed them, on each port. They stay open until all is measured.
    let large = 16 * 1024 * 1024;
    let mut open = Vec::new();
    for (port, address) in watched.addresses() {
        let bytes = match port {
            "peer" => [hello(peer(2, 1)), header_alone(18, large), vec![0; 1000]].concat(),
            "client" => [hello(Role::Client), header_alone(34, large), vec![0; 1000]].concat(),
            _ => b"write b 1048576\r\nfew".to_vec(),
        };
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(&address).unwrap();
            let _ = stream.write_all(&bytes);
            open.push(stream);
        }
    }
    // Connections are accepted in their order: the node has taken these in once it answers a later one.
    for (port, address) in watched.addresses() {
        match port {
            "peer" => send_and_wait_for_close(&address, "a stranger", &hello(peer(99, 1))),
            "client" => send_and_wait_for_close(&address, "a client", &hello(Role::Client)),
            _ => {
                let mut text = support::TextClient::connect(&address);
                assert!(matches!(text.read("a"), Reply::Contents { .. } | Reply::Redirect(_)));
            }
        }
    }
    let before = watched.resident_kib.clone();
    for (node, before) in watched.cluster.nodes.iter().zip(before) {
        let now = node.resident_kib();
        assert!(now < before + GROWTH_KIB_MAX, "node {}: {before} KiB before, {now} now", node.id);
    }
    drop(open);
    watched.check_unharmed();
}

#[test]
fn a_client_that_takes_no_replies_is_not_fed_for_ever() {
    let watched = Watched::start();
    let leader = watched.cluster.wait_for_leader();
    let mut client = watched.cluster.client();
    client.write("a", "innocent", 0).unwrap();
    let address = watched.cluster.nodes[leader].text.clone();
    // Each reply is far larger than its command: the node would hold gigabytes.
    client.write("b", vec![7; 512 * 1024], 0).unwrap();
    let mut greedy = TcpStream::connect(&address).unwrap();
    greedy.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let commands = b"read b\r\n".repeat(512);
    let mut sent = 0;
    while sent < 64 * commands.len() {
        match greedy.write(&commands) {
            Ok(count) => sent += count,
            Err(_) => break, // the node has stopped reading, or has closed: both are right
        }
    }
    let mut other = watched.cluster.text(leader);
    wait_until(PATIENCE, "another client is served", || matches!(other.read("a"), Reply::Contents { .. }));
    let (now, before) = (watched.cluster.nodes[leader].resident_kib(), watched.resident_kib[leader]);
    assert!(now < before + GROWTH_KIB_MAX, "{before} KiB before, {now} now");
    drop(greedy);
    watched.check_unharmed();
}
