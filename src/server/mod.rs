//! The daemon: one thread, one loop, one owner of all state.
//!
//! [`run`] is the loop; [`node::Node`] is what a node does in one turn of it, without sockets and clocks of its
//! own; [`Network`] is what a node needs of the network.

mod alarms;
mod backup;
mod catch_up;
mod cleaning;
mod descriptors;
mod dispatch;
mod fault;
mod forwarder;
mod forwarding;
mod hellos;
mod helper;
mod housekeeping;
mod image;
mod insight;
pub mod jobs;
mod measurements;
mod metrics_page;
pub mod node;
mod pace;
mod parent;
mod pending;
mod readiness;
mod restoring;
mod room;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use fsd_wire::client::ClientReply;
use fsd_wire::hello::{HelloStatus, Identity};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{ClusterId, NodeId};
use mio::Waker;

use crate::clock::Clock;
use crate::config::{Config, Listen, TextWrites};
use crate::limits;
use crate::mapping::{self, Disk, FileDisk};
use crate::net::{Addresses, ConnectionId, HttpReply, Net, PARENT_TOKEN, SIGNAL_TOKEN, Settings, WAKE_TOKEN};
use crate::signals::{self, Signals};
use crate::storage::{self, DirectoryIdentity, Storage};
pub use fault::Fault;
use helper::Helper;
pub use image::StoreImage;
pub use measurements::Stopwatch;
use metrics_page::MetricsPage;
use node::{Node, NodeConfig};
use parent::Parent;
pub use restoring::restore_backup;

/// How long clients have to take their last replies when the node stops.
const LAST_REPLIES_MS: u64 = 1000;

/// What a node needs of the network. The daemon's is [`Net`].
pub trait Network {
    /// Answers a client's request.
    fn reply(&mut self, connection: ConnectionId, reply: &ClientReply);
    /// Sends a page to whom asked for it.
    fn reply_page(&mut self, connection: ConnectionId, reply: &HttpReply);
    /// Answers a peer's hello.
    fn answer_peer(
        &mut self,
        now_ms: u64,
        connection: ConnectionId,
        node: NodeId,
        status: HelloStatus,
        reason: String,
    );
    /// Opens the connection to a peer whose answer was good.
    fn open_link(&mut self, node: NodeId);
    /// Gives up the connection to a peer for now.
    fn refuse_link(&mut self, now_ms: u64, node: NodeId, reason: String);
    /// Sends a message to a peer, or drops it if there is no open connection.
    fn send_peer(&mut self, node: NodeId, message: &PeerMessage);
    /// Hands what was sent to peers to the kernel, now.
    fn push_peers(&mut self, now_ms: u64);
    /// Whether a client is still there.
    fn has_client(&self, connection: ConnectionId) -> bool;
    /// What this node says of itself in hellos from now on.
    fn set_identity(&mut self, identity: Identity);
}

impl Network for Net {
    fn reply(&mut self, connection: ConnectionId, reply: &ClientReply) {
        Net::reply(self, connection, reply);
    }

    fn reply_page(&mut self, connection: ConnectionId, reply: &HttpReply) {
        Net::reply_page(self, connection, reply);
    }

    fn answer_peer(
        &mut self,
        now_ms: u64,
        connection: ConnectionId,
        node: NodeId,
        status: HelloStatus,
        reason: String,
    ) {
        Net::answer_peer(self, now_ms, connection, node, status, reason);
    }

    fn open_link(&mut self, node: NodeId) {
        Net::open_link(self, node);
    }

    fn refuse_link(&mut self, now_ms: u64, node: NodeId, reason: String) {
        Net::refuse_link(self, now_ms, node, reason);
    }

    fn send_peer(&mut self, node: NodeId, message: &PeerMessage) {
        Net::send_peer(self, node, message);
    }

    fn push_peers(&mut self, now_ms: u64) {
        Net::push_peers(self, now_ms);
    }

    fn has_client(&self, connection: ConnectionId) -> bool {
        Net::has_client(self, connection)
    }

    fn set_identity(&mut self, identity: Identity) {
        Net::set_identity(self, identity);
    }
}

/// Runs a node until SIGTERM or SIGINT, or until `parent`, a pipe that the starter of this process holds, is closed.
///
/// # Errors
/// What makes it impossible to go on: the process is to end with exit status 1.
pub fn run(config: &Config, parent: Option<OwnedFd>) -> Result<(), Fault> {
    // The data directory is locked before an address is bound: a second daemon on it is told of that first.
    let disk = storage::lock_directory(&config.data_dir, &directory_identity(config))?;
    let mut image = StoreImage::default();
    let identity = directory_identity(config);
    let storage =
        storage::open_into(disk.clone(), &identity, config.segment_bytes, &mut random_u64, &mut image)?;
    log_recovery(&storage);
    let mut net = Net::bind(settings(config, &storage), addresses(config)).map_err(Fault::Network)?;
    let mut signals = Signals::listen(net.registry(), SIGNAL_TOKEN, signals::END).map_err(Fault::Network)?;
    let mut parent = parent
        .map(|pipe| Parent::watch(net.registry(), PARENT_TOKEN, pipe))
        .transpose()
        .map_err(Fault::Parent)?;
    let waker = Waker::new(net.registry(), WAKE_TOKEN).map_err(Fault::Network)?;
    let mut helper = Helper::start(disk.clone(), waker).map_err(Fault::Network)?;
    let clock = Clock::start();
    let mut node = Node::new(node_config(config), storage, image.into_store(), clock.now_ms());
    node.measure_by(Box::new(move || clock.now_us()));
    let mut metrics_page = MetricsPage::new(config, disk.clone());
    // The first segment is made ready before the node says that it is: a disk without room is told at once.
    node.make_first_spare(&disk)?;
    net.start(clock.now_ms());
    log_ready(config);
    let mut events = Vec::new();
    let mut end_by_ms = None;
    loop {
        let deadline_ms = [node.next_deadline_ms(), end_by_ms].into_iter().flatten().min();
        let signalled = net.poll(clock.until(deadline_ms)).map_err(Fault::Network)?;
        let turn_began_us = clock.now_us();
        net.read(turn_began_us / 1000, &mut events);
        // A process may be stopped anywhere. Were this read before, what came meanwhile would be stamped with a time
        // before it was sent, and a file would be gone before its expiry.
        let now_ms = clock.now_ms();
        for (deadline_ms, timer) in net.take_timers() {
            node.add_net_timer(deadline_ms, timer);
        }
        if signalled && signals.take() > 0 {
            node.stop(now_ms);
        }
        if parent.as_mut().is_some_and(Parent::is_gone) {
            log::info!("standard input was closed: node {} ends with its starter", config.node);
            parent = None;
            node.stop(now_ms);
        }
        node.fire_timers(now_ms);
        for timer in node.take_net_timers() {
            net.fire(now_ms, timer);
        }
        node.turn(now_ms, &mut events, &mut net)?;
        for connection in node.take_metrics_asked() {
            let page = metrics_page.write(now_ms, &node, &net);
            net.reply_page(connection, &page);
        }
        net.write(now_ms);
        for (deadline_ms, timer) in net.take_timers() {
            node.add_net_timer(deadline_ms, timer);
        }
        exchange_jobs(&clock, &mut node, &mut helper)?;
        let now_ms = clock.now_ms();
        net.pace(now_ms, node.pace(now_ms));
        metrics_page.turned(clock.now_us() - turn_began_us);
        if node.is_stopped() {
            // The last replies are written, unless their clients do not take them.
            let end_by_ms = *end_by_ms.get_or_insert(now_ms + LAST_REPLIES_MS);
            if now_ms >= end_by_ms || !net.has_client_output() {
                log::info!("node {} stops", config.node);
                return Ok(());
            }
        }
    }
}

/// Checks what [`run`] would find, and starts nothing. Returns what was found, in lines.
///
/// # Errors
/// What would keep a node from starting.
pub fn check(config: &Config) -> Result<Vec<String>, Fault> {
    let disk = match FileDisk::read_only(&config.data_dir) {
        Ok(disk) => disk,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(vec![format!(
                "{} does not exist yet: the node begins empty",
                config.data_dir.display()
            )]);
        }
        Err(error) => return Err(Fault::DataDirectory(config.data_dir.clone(), error)),
    };
    mapping::allow_many_files();
    let mut lines = storage::check(&disk, &directory_identity(config), &mut StoreImage::default())?;
    if let Ok(room) = disk.room() {
        let used = disk.used_bytes().unwrap_or(0);
        lines.push(format!(
            "disk: the data directory takes {used} bytes; {} of {} bytes are free, a segment takes {}",
            room.free_bytes, room.size_bytes, config.segment_bytes
        ));
    }
    Ok(lines)
}

/// Takes what became of jobs, and hands over new ones; again and again for a while, if the node is to wait for them.
fn exchange_jobs(
    clock: &Clock,
    node: &mut Node<FileDisk>,
    helper: &mut Helper<FileDisk>,
) -> Result<(), Fault> {
    let began_ms = clock.now_ms();
    let wait_until_ms = began_ms + node.wait_for_helper_ms(began_ms);
    loop {
        while let Some(done) = helper.take() {
            node.job_done(done)?;
        }
        while let Some(job) = node.next_job()? {
            helper.hand_over(job);
        }
        let now_ms = clock.now_ms();
        if now_ms >= wait_until_ms || node.wait_for_helper_ms(now_ms) == 0 {
            return Ok(());
        }
        if let Some(done) = helper.wait(wait_until_ms - now_ms) {
            node.job_done(done)?;
        }
    }
}

fn directory_identity(config: &Config) -> DirectoryIdentity {
    DirectoryIdentity { cluster: config.cluster.clone(), node: config.node }
}

fn node_config(config: &Config) -> NodeConfig {
    NodeConfig {
        cluster: config.cluster.clone(),
        node: config.node,
        members: config.members.clone(),
        heartbeat_ms: config.heartbeat_ms,
        election_timeout_ms: config.election_timeout_ms,
        max_file_bytes: config.max_file_bytes,
        text_reads: config.text_reads,
        text_writes: config.text_writes,
        session_idle_ms: limits::SESSION_IDLE_MS,
        sessions_max: limits::SESSIONS_MAX,
        replication: crate::raft::ReplicationBounds::default(),
        seed: random_u64(),
        new_cluster_id: ClusterId((u128::from(random_u64()) << 64 | u128::from(random_u64())).max(1)),
        new_incarnation: random_u64().max(1),
    }
}

fn settings(config: &Config, storage: &Storage<FileDisk>) -> Settings {
    let state = &storage.recovered.state;
    Settings {
        cluster: config.cluster.clone(),
        identity: Identity {
            node: config.node,
            incarnation: state.incarnation,
            life: state.life,
            cluster_id: state.cluster_id,
        },
        dial: config.dial.clone(),
        max_file_bytes: config.max_file_bytes,
        forwards_changes: config.text_writes == TextWrites::Forward,
        max_clients: descriptors::room_for_clients(config.max_clients),
        max_pending_bytes: usize::try_from(config.max_pending_bytes).unwrap_or(usize::MAX),
        seed: random_u64(),
    }
}

fn addresses(config: &Config) -> Addresses {
    let Listen { peer, client, text, http } = config.listen;
    Addresses { peer, client, text, http }
}

/// Randomness for seeds and identities, from the operating system.
// The room of randomness: what it draws is passed down as a value.
#[allow(clippy::disallowed_methods)]
fn random_u64() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

fn log_recovery(storage: &Storage<FileDisk>) {
    for line in &storage.recovered.report {
        log::info!("{line}");
    }
}

fn log_ready(config: &Config) {
    let named = |what: &str, address: Option<_>| match address {
        Some(address) => format!(", {what} on {address}"),
        None => String::new(),
    };
    let text = named("text clients", config.listen.text);
    let http = named("HTTP pages", config.listen.http);
    log::info!(
        "node {} of cluster {} is ready: peers on {}, clients on {}{text}{http}, data in {}",
        config.node,
        config.cluster,
        config.listen.peer,
        config.listen.client,
        config.data_dir.display()
    );
}

impl From<storage::StorageError> for Fault {
    fn from(error: storage::StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Network(error)
    }
}
