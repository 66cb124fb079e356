//! The same load twice in one run: alone, and beside clients that do nothing and clients that send a byte a second.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsd::limits;
use fsd_wire::client::{ClientRequest, Operation};
use fsd_wire::{Command, FrameDecoder, Message, Operation as Change, RequestId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cluster::Cluster;
use crate::connection::{REPLY_BYTES_MAX, hello};
use crate::load::{Load, Work};
use crate::machine::{MIB, memory_bytes};
use crate::{Error, Measured, report};

const IDLE_CLIENTS: usize = 10_000;
const SLOW_CLIENTS: usize = 1_000;
const WORKING_CLIENTS: usize = 64;
/// Descriptors of this process beside those of its clients.
const OWN_DESCRIPTORS: usize = 200;
/// What the slow clients begin: they would take hours to send it.
const SLOW_CONTENTS_BYTES: usize = 64 * 1024;

pub(crate) fn run(nodes: usize, bytes: usize, dir: &Path, window: Duration) -> Result<(), Error> {
    let wanted = IDLE_CLIENTS + SLOW_CLIENTS + WORKING_CLIENTS + OWN_DESCRIPTORS;
    let descriptors = raise_descriptors(wanted);
    let idle_clients = IDLE_CLIENTS.min(descriptors.saturating_sub(wanted - IDLE_CLIENTS));
    println!(
        "{} descriptors: {idle_clients} idle clients, {SLOW_CLIENTS} slow ones, all at the leader",
        descriptors.min(wanted)
    );
    let clients_max = idle_clients + SLOW_CLIENTS + 2 * WORKING_CLIENTS;
    let cluster = Cluster::start(nodes, dir, &format!("max_clients = {clients_max}"))?;
    let at = cluster.leader()?;
    let (leader, process_id) = (cluster.client(at), cluster.process_id(at)?);
    let memory = |when: &str| -> Result<(), Error> {
        // Anonymous memory: mapped pages of the log come and go as the system sees fit.
        let bytes = memory_bytes(process_id, "RssAnon")?;
        println!("the leader's memory {when}: {:.1} MiB", bytes as f64 / MIB);
        Ok(())
    };
    let load = Load { leader, clients: WORKING_CLIENTS, bytes, work: Work::Write };
    let quiet = load.run(window)?;
    report("quiet", &quiet);
    memory("quiet")?;
    let idle = (0..idle_clients).map(|_| greeted(leader)).collect::<Result<Vec<_>, _>>()?;
    memory("with the idle clients")?;
    let stop = AtomicBool::new(false);
    let (standing, reopened) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let pressed = std::thread::scope(|scope| {
        scope.spawn(|| trickle(leader, &stop, &standing, &reopened));
        let pressed = wait_for_all(&standing).and_then(|()| {
            memory("with the slow clients too")?;
            load.run(window)
        });
        stop.store(true, Ordering::SeqCst);
        pressed
    })?;
    report("beside idle and slow clients", &pressed);
    let still_there = idle.iter().filter(|client| is_open(client)).count();
    let ratio = median_us(&pressed) / median_us(&quiet);
    let bound =
        limits::memory_bytes_max(nodes as u64, clients_max as u64, limits::PENDING_MIB_DEFAULT * 1024 * 1024);
    println!("{still_there} of the idle clients are still connected; slow ones came back {} times", {
        reopened.load(Ordering::SeqCst)
    });
    println!("the median is {ratio:.2} times the quiet one");
    println!("the bound on memory, without the mapped log: {} MiB", bound / (1024 * 1024));
    Ok(())
}

fn median_us(measured: &Measured) -> f64 {
    measured.latencies_us.value_at_quantile(0.5) as f64
}

/// As many descriptors as may be had, up to `wanted`.
fn raise_descriptors(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.unwrap_or(u64::MAX).min(wanted as u64);
    let current = limit.current.unwrap_or(u64::MAX);
    if current < raised && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok() {
        return raised as usize;
    }
    usize::try_from(current).unwrap_or(usize::MAX)
}

/// A connection that has been welcomed.
fn greeted(node: SocketAddr) -> Result<TcpStream, Error> {
    let mut socket = TcpStream::connect(node)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(&hello())?;
    let mut decoder = FrameDecoder::new(REPLY_BYTES_MAX);
    while decoder.next_frame()?.is_none() {
        if decoder.feed_from(|room| socket.read(room))? == 0 {
            return Err("the node closed a connection".into());
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Clients that have begun a request and send a byte of it each second. Those that the node closes come back.
fn trickle(node: SocketAddr, stop: &AtomicBool, standing: &AtomicUsize, reopened: &AtomicUsize) {
    let begun = begun_request();
    let mut clients: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let next_byte = Instant::now() + Duration::from_secs(1);
        let before = clients.len();
        clients.retain(|client| is_open(client) && (&*client).write(b"c").is_ok());
        reopened.fetch_add(before - clients.len(), Ordering::SeqCst);
        while clients.len() < SLOW_CLIENTS && !stop.load(Ordering::SeqCst) {
            let Ok(client) = greeted(node) else { break };
            if (&client).write(&begun).is_ok() {
                clients.push(client);
            }
        }
        standing.store(clients.len(), Ordering::SeqCst);
        std::thread::sleep(next_byte.saturating_duration_since(Instant::now()));
    }
}

fn begun_request() -> Vec<u8> {
    let command = Command {
        operation: Change::Write { expiry_seconds: 0 },
        name: "slow".into(),
        contents: Bytes::from(vec![b'c'; SLOW_CONTENTS_BYTES]),
    };
    let operation = Operation::Change { command: command.encode() };
    let request = ClientRequest { id: RequestId(1), timeout_ms: 10_000, operation };
    let mut bytes = request.to_frame().concat();
    bytes.truncate(100);
    bytes
}

fn wait_for_all(standing: &AtomicUsize) -> Result<(), Error> {
    let end = Instant::now() + Duration::from_secs(60);
    while standing.load(Ordering::SeqCst) < SLOW_CLIENTS {
        if Instant::now() > end {
            return Err("the slow clients do not get in".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn is_open(mut client: &TcpStream) -> bool {
    matches!(client.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
