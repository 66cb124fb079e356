//! A cluster of `fsd` processes on loopback, on ports that the system picks.

use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fsd_wire::client::{ClientReply, ClientRequest, NodeRole, Operation, Outcome};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, Role};
use fsd_wire::{FrameDecoder, Message, RequestId};

use crate::Error;

/// Frames that a node sends to a client are at most this long.
pub(crate) const REPLY_BYTES_MAX: u32 = 20 * 1024 * 1024;

/// The processes; they end with it.
pub(crate) struct Cluster {
    children: Vec<Child>,
    clients: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts the nodes; `limits` are lines below `[limits]` in their configurations.
    pub(crate) fn start(nodes: usize, dir: &Path, limits: &str) -> Result<Self, Error> {
        let fsd = std::env::current_exe()?.with_file_name("fsd");
        if !fsd.exists() {
            return Err(format!("{} is missing: cargo build --release first", fsd.display()).into());
        }
        // All are held until the last one is known, so that none is given twice.
        let listeners: Vec<_> =
            (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let addresses: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        drop(listeners);
        let (peers, clients) = addresses.split_at(nodes);
        let mut members = String::new();
        for (at, (peer, client)) in peers.iter().zip(clients).enumerate() {
            writeln!(members, "[[member]]\nnode = {}\npeer = \"{peer}\"\nclient = \"{client}\"", at + 1)?;
        }
        let mut cluster = Self { children: Vec::new(), clients: clients.to_vec() };
        for node in 1..=nodes {
            let conf = dir.join(format!("node{node}.conf"));
            let data = dir.join(format!("node{node}"));
            let text = format!(
                "cluster = \"bench\"\nnode = {node}\ndata_dir = {:?}\n{members}\n[limits]\n{limits}\n",
                data.display().to_string()
            );
            std::fs::write(&conf, text)?;
            let log = File::create(dir.join(format!("node{node}.log")))?;
            let child = Command::new(&fsd).arg("-c").arg(&conf).stdin(Stdio::null()).stderr(log).spawn()?;
            cluster.children.push(child);
        }
        Ok(cluster)
    }

    /// The process of the node with this client address.
    pub(crate) fn process_id(&self, client: SocketAddr) -> Option<u32> {
        let at = self.clients.iter().position(|address| *address == client)?;
        Some(self.children[at].id())
    }

    /// The leader's client address.
    pub(crate) fn wait_for_leader(&self, patience: Duration) -> Result<SocketAddr, Error> {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            for client in &self.clients {
                if is_leader(*client).unwrap_or(false) {
                    return Ok(*client);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("no leader was found in time".into())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself; either way it is waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The bytes of a client's first message.
pub(crate) fn hello() -> Vec<u8> {
    let hello = Hello {
        protocol_min: PROTOCOL_VERSION,
        protocol_max: PROTOCOL_VERSION,
        cluster: String::new(),
        role: Role::Client,
    };
    hello.to_frame().concat()
}

fn is_leader(node: SocketAddr) -> Result<bool, Error> {
    let mut socket = TcpStream::connect_timeout(&node, Duration::from_secs(1))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let request = ClientRequest { id: RequestId(1), timeout_ms: 1000, operation: Operation::Status };
    socket.write_all(&[hello(), request.to_frame().concat()].concat())?;
    let mut decoder = FrameDecoder::new(REPLY_BYTES_MAX);
    let mut frames = Vec::new();
    while frames.len() < 2 {
        if decoder.feed_from(|room| socket.read(room))? == 0 {
            return Err("the node closed the connection".into());
        }
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    match ClientReply::decode(&frames[1])?.outcome {
        Outcome::Status(status) => Ok(status.role == NodeRole::Leader),
        other => Err(format!("{other:?} does not answer a status request").into()),
    }
}
