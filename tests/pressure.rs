//! Real daemons whose clients take all that they can get: memory stays within what is documented, and the nodes go
//! on voting and replicating.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsclient::{Command, Connection, NodeRole, Operation, Outcome};
use fsd::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{PATIENCE, Reply, Settings, TestCluster, wait_for, wait_until};

const MIB: usize = 1024 * 1024;
/// Descriptors of the test beside those of its idle clients.
const OWN_DESCRIPTORS: u64 = 400;

/// As many descriptors as may be had, up to `wanted`.
fn raise_descriptors(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    if raised > current && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok() {
        return raised;
    }
    current
}

/// A client that sends and does not wait.
struct Flood {
    stream: TcpStream,
}

impl Flood {
    fn connect(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nonblocking(true).unwrap();
        Some(Self { stream })
    }

    /// Sends what the node takes within the patience of a test; stops when it closes the connection.
    fn send(&mut self, mut bytes: &[u8]) {
        wait_until(PATIENCE, "the node takes or refuses the flood", || {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => bytes = &[],
            }
            bytes.is_empty()
        });
    }

    fn send_some(&mut self, bytes: &[u8]) {
        let _ = self.stream.write(bytes);
    }
}

fn bytes_below(directory: &Path) -> u64 {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

#[test]
fn memory_stays_within_the_documented_bound_whatever_clients_do() {
    const FILE_BYTES: usize = 16 * MIB;
    const PENDING_MIB: u64 = 72;
    let descriptors = raise_descriptors(4000);
    let idle = usize::try_from(descriptors.saturating_sub(OWN_DESCRIPTORS)).unwrap().min(3000);
    let max_clients = idle + 200;
    let settings = Settings {
        segment_mib: 32,
        max_file_bytes: FILE_BYTES as u64,
        max_clients: Some(max_clients),
        max_pending_mib: Some(PENDING_MIB),
        ..Settings::default()
    };
    let mut cluster = TestCluster::start_with(1, settings);
    let address = cluster.nodes[0].text.clone();
    let mut client = cluster.text(0);
    client.write("large", vec![b'c'; FILE_BYTES - 1]).version();
    client.write("small", "s").version();

    let crowd: Vec<_> = (0..idle).map(|_| TcpStream::connect(&address).unwrap()).collect();
    // Most of a large command, again and again: each is more than is left for it, or comes to nothing.
    let mut command = format!("write x {}\r\n", FILE_BYTES - 1).into_bytes();
    command.resize(15 * MIB, b'c');
    let mut floods = Vec::new();
    for _ in 0..40 {
        let mut flood = Flood::connect(&address).unwrap();
        flood.send(&command);
        floods.push(flood);
    }
    // Many large replies that nobody takes.
    for _ in 0..40 {
        let mut flood = Flood::connect(&address).unwrap();
        flood.send("read large\r\n".repeat(100).as_bytes());
        floods.push(flood);
    }
    // Many small requests at once, the replies to which nobody takes either.
    for _ in 0..10 {
        let mut flood = Flood::connect(&address).unwrap();
        flood.send_some("read small\r\n".repeat(4000).as_bytes());
        floods.push(flood);
    }
    // Behind all that, the node still answers small things, or says that it is busy.
    let reply = client.read("small");
    assert!(matches!(reply, Reply::Contents { .. }) || reply.is_internal("busy"), "{reply:?}");
    drop((floods, crowd));
    wait_until(PATIENCE, "the node serves again", || matches!(client.read("small"), Reply::Contents { .. }));
    assert_eq!(client.write("large", vec![b'd'; FILE_BYTES - 1]).version(), 3);

    let node = &cluster.nodes[0];
    let (peak, now) = (node.peak_resident_kib() * 1024, node.resident_kib() * 1024);
    let bound = limits::memory_bytes_max(1, max_clients as u64, PENDING_MIB * MIB as u64);
    let mapped = bytes_below(&node.data_dir);
    eprintln!("{idle} idle clients: peak {peak}, now {now}, bound {bound}, log {mapped} bytes");
    assert!(peak <= bound + mapped, "{peak} bytes are more than {bound} and {mapped} of the log");
    assert!(node.output().contains("refused as busy"), "the attack reached the bound");
    cluster.compare_all_nodes();
}

#[test]
fn no_load_of_clients_keeps_nodes_from_voting_and_replicating() {
    const CLIENTS_MAX: usize = 24;
    let settings =
        Settings { max_clients: Some(CLIENTS_MAX), max_pending_mib: Some(5), ..Settings::default() };
    let mut cluster = TestCluster::start_with(3, settings);
    let leader = cluster.wait_for_leader();
    let deadline = Instant::now() + 4 * PATIENCE;
    // Opened before the flood, they stay.
    let mut reserved: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| Connection::open(&node.client, "", deadline).expect("a place"))
        .collect();
    let addresses: Vec<[String; 2]> =
        cluster.nodes.iter().map(|node| [node.text.clone(), node.peer.clone()]).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for [text, peer] in &addresses {
            scope.spawn(|| flood_until(&stop, text, peer, CLIENTS_MAX));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for node in &cluster.nodes {
                wait_until(PATIENCE, "no place for clients is left", || is_full(&node.text));
            }
            write(&mut reserved[leader], "before", deadline);
            cluster.kill_9(leader);
            let elected = wait_for(PATIENCE, || {
                (0..3).filter(|n| *n != leader).find(|n| leads(&mut reserved[*n], deadline))
            })
            .expect("the two others elect one");
            write(&mut reserved[elected], "under pressure", deadline);
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    let mut client = cluster.client();
    for name in ["before", "under pressure"] {
        assert_eq!(client.read(&name.replace(' ', "-")).unwrap().contents, "x");
    }
    cluster.compare_all_nodes();
}

/// Takes every place for clients, fills the bound on what is pending, and calls at the peers' port without a word.
fn flood_until(stop: &AtomicBool, text: &str, peer: &str, places: usize) {
    let mut command = b"write x 1000000\r\n".to_vec();
    command.resize(800_000, b'c');
    let mut clients: Vec<Flood> = Vec::new();
    let mut strangers: Vec<Flood> = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        clients.retain_mut(|client| !has_ended(&client.stream));
        while clients.len() < 2 * places {
            let Some(client) = Flood::connect(text) else { break };
            clients.push(client);
        }
        for client in &mut clients {
            client.send_some(&command);
        }
        strangers.extend((0..4).filter_map(|_| Flood::connect(peer)));
        let kept = strangers.len().saturating_sub(2 * limits::PEER_CONNECTIONS_MAX);
        strangers.drain(..kept);
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Whether the node closed a connection that is not read otherwise.
fn has_ended(mut stream: &TcpStream) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn is_full(text: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(text) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    said.starts_with(b"ERR_INTERNAL too many connections")
}

fn leads(connection: &mut Connection, deadline: Instant) -> bool {
    connection.submit(Operation::Status, deadline);
    connection.flush(deadline).unwrap();
    match connection.receive(deadline).unwrap().outcome {
        Outcome::Status(status) => status.role == NodeRole::Leader,
        // Busy, for a moment.
        _ => false,
    }
}

fn write(connection: &mut Connection, name: &str, deadline: Instant) {
    let done = wait_for(PATIENCE, || {
        let command = Command {
            operation: fsd_wire::Operation::Write { expiry_seconds: 0 },
            name: name.replace(' ', "-"),
            contents: Bytes::from_static(b"x"),
        };
        connection.submit(Operation::Change { command: command.encode() }, deadline);
        connection.flush(deadline).unwrap();
        matches!(connection.receive(deadline).unwrap().outcome, Outcome::Changed { .. }).then_some(())
    });
    assert!(done.is_some(), "the write goes through");
}

#[test]
fn the_document_tells_the_bound_that_the_code_has() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md")).unwrap();
    let mib = |bytes: u64| bytes.div_ceil(MIB as u64);
    let bound = |members, clients, pending_mib: u64| {
        mib(limits::memory_bytes_max(members, clients, pending_mib * MIB as u64))
    };
    let default_clients = limits::CLIENTS_MAX_DEFAULT as u64;
    for (what, members, clients, pending_mib) in [
        ("five nodes, the defaults", 5, default_clients, limits::PENDING_MIB_DEFAULT),
        ("one node, the defaults", 1, default_clients, limits::PENDING_MIB_DEFAULT),
        ("five nodes, 1000 clients, 32 MiB pending", 5, 1000, 32),
    ] {
        let row = format!("| {what} | {} MiB |", bound(members, clients, pending_mib));
        assert!(document.contains(&row), "docs/limits.md does not say `{row}`");
    }
    let bytes = limits::memory_bytes_max;
    for (term, coefficient) in
        [("members - 1", bytes(2, 0, 0) - bytes(1, 0, 0)), ("max_clients", bytes(1, 1, 0) - bytes(1, 0, 0))]
    {
        let row = format!("({term}) x {} KiB", coefficient / 1024);
        assert!(document.contains(&row), "docs/limits.md does not say `{row}`");
    }
    let row = format!("{} MiB", mib(bytes(1, 0, 0)));
    assert!(document.contains(&row), "docs/limits.md does not say `{row}`");
}
