//! A cluster of real daemons on loopback.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use fsclient::{Client, NodeReport, NodeRole, NodeStatus};
use tempfile::TempDir;

use super::ports::ReservedPort;
use super::processes::Node;
use super::text::TextClient;
use super::{PATIENCE, wait_for, wait_until};

/// Clusters that run at the same time in one test binary: each is up to seven processes, and machines are small.
const CLUSTERS_MAX: usize = 2;
/// Lines of each node's output shown when a test fails.
const OUTPUT_LINES_SHOWN: usize = 60;
/// A client's time for a request, and for one node.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);
const CLIENT_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);

/// What a test's configuration says beyond addresses.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) segment_mib: u64,
    pub(crate) max_file_bytes: u64,
    pub(crate) heartbeat_ms: u64,
    pub(crate) election_timeout_ms: u64,
    /// The text protocol answers reads from each node's own state.
    pub(crate) local_text_reads: bool,
    /// Every node takes the changes of text clients.
    pub(crate) forward_text_writes: bool,
    /// Bounds on clients; the daemon's own unless given.
    pub(crate) max_clients: Option<usize>,
    pub(crate) max_pending_mib: Option<u64>,
    /// The addresses that clients know the nodes by, if those are not the nodes' own.
    pub(crate) client_addresses: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Small, so that tests roll over segments and make little work.
            segment_mib: 2,
            max_file_bytes: 1024 * 1024,
            heartbeat_ms: 50,
            // More than the default: with five daemons and their clients on two cores, a turn may wait long
            // for its processor, and elections for that reason are not what is tested.
            election_timeout_ms: 400,
            local_text_reads: false,
            forward_text_writes: false,
            max_clients: None,
            max_pending_mib: None,
            client_addresses: Vec::new(),
        }
    }
}

/// The cluster. Its processes end with it, also when the test fails; then their output is shown.
#[derive(Debug)]
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) settings: Settings,
    directory: TempDir,
    _ports: Vec<ReservedPort>,
    _permit: Permit,
}

impl TestCluster {
    /// Starts a cluster of `count` nodes and waits until it has a leader.
    pub(crate) fn start(count: u32) -> Self {
        Self::start_with(count, Settings::default())
    }

    pub(crate) fn start_with(count: u32, settings: Settings) -> Self {
        let order: Vec<usize> = (0..count as usize).collect();
        Self::start_in_order(count, settings, &order)
    }

    /// Starts the nodes one after the other, as `order` says.
    pub(crate) fn start_in_order(count: u32, settings: Settings, order: &[usize]) -> Self {
        let mut cluster = Self::prepare(count, settings);
        cluster.launch(order);
        cluster.wait_for_leader();
        cluster
    }

    /// Writes the configurations and starts nothing.
    pub(crate) fn prepare(count: u32, settings: Settings) -> Self {
        let permit = Permit::take();
        let directory = tempfile::Builder::new().prefix("fsd-test-").tempdir().unwrap();
        let ports: Vec<ReservedPort> = (0..count * 4).map(|_| ReservedPort::pick()).collect();
        let nodes: Vec<Node> =
            ports.chunks(4).zip(1..).map(|(ports, id)| Node::new(id, directory.path(), ports)).collect();
        for node in &nodes {
            node.write_conf(&conf(&nodes, node, &settings));
        }
        Self { nodes, settings, directory, _ports: ports, _permit: permit }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A client that knows all nodes.
    pub(crate) fn client(&self) -> Client {
        self.client_of(&(0..self.nodes.len()).collect::<Vec<_>>())
    }

    /// A client that knows these nodes only; a redirect leads it to others all the same.
    pub(crate) fn client_of(&self, nodes: &[usize]) -> Client {
        self.client_at(nodes.iter().map(|n| self.nodes[*n].client.clone()).collect())
    }

    /// A client that knows these addresses.
    pub(crate) fn client_at(&self, addresses: Vec<String>) -> Client {
        Client::new(addresses)
            .and_then(|client| client.with_cluster(CLUSTER_NAME))
            .unwrap()
            .with_timeout(CLIENT_TIMEOUT)
            .with_attempt_timeout(CLIENT_ATTEMPT_TIMEOUT)
    }

    /// A connection to a node's text port.
    pub(crate) fn text(&self, n: usize) -> TextClient {
        TextClient::connect(&self.nodes[n].text)
    }

    /// What the running nodes say of themselves, by their place in the cluster.
    pub(crate) fn statuses(&self) -> Vec<(usize, NodeStatus)> {
        let asked: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].is_running() && !self.nodes[*n].is_stopped())
            .collect();
        if asked.is_empty() {
            return Vec::new();
        }
        let reports = self.client_of(&asked).status();
        asked
            .into_iter()
            .zip(reports)
            .filter_map(|(n, NodeReport { status, .. })| status.ok().map(|status| (n, status)))
            .collect()
    }

    /// The node that leads, if a majority of all nodes agrees with it.
    pub(crate) fn leader(&self) -> Option<usize> {
        let statuses = self.statuses();
        let (leader, own) = statuses.iter().find(|(_, status)| {
            let agree = |other: &NodeStatus| other.term == status.term && other.leader == Some(status.node);
            status.role == NodeRole::Leader
                && statuses.iter().filter(|(_, other)| agree(other)).count() > self.nodes.len() / 2
        })?;
        // Only once something of its own term is committed does it know what is.
        (own.commit_index.0 > 0).then_some(*leader)
    }

    pub(crate) fn wait_for_leader(&self) -> usize {
        wait_for(PATIENCE, || self.leader()).unwrap_or_else(|| panic!("no leader: {:?}", self.statuses()))
    }

    /// Some node that does not lead, and whose process runs.
    pub(crate) fn a_follower(&self) -> usize {
        let leader = self.wait_for_leader();
        (0..self.nodes.len()).find(|n| *n != leader && self.nodes[*n].is_running()).expect("there are others")
    }

    /// The nodes that do not lead.
    pub(crate) fn followers(&self) -> Vec<usize> {
        let leader = self.wait_for_leader();
        (0..self.nodes.len()).filter(|n| *n != leader).collect()
    }

    pub(crate) fn kill_9(&mut self, n: usize) {
        self.nodes[n].kill_9();
    }

    /// Kills whatever runs. The nodes are gone before the first of them could notice.
    pub(crate) fn kill_all(&mut self) {
        let running = |node: &&mut Node| node.is_running();
        // Stopped first, they all end in one moment as far as they can tell.
        self.nodes.iter_mut().filter(running).for_each(Node::stop);
        self.nodes.iter_mut().filter(running).for_each(Node::kill_9);
    }

    /// Starts a node that is down, and waits until it answers.
    pub(crate) fn restart(&mut self, n: usize) {
        self.launch(&[n]);
    }

    /// Starts nodes that are down, all at once, and waits until they answer.
    pub(crate) fn launch(&mut self, nodes: &[usize]) {
        for n in nodes {
            self.nodes[*n].launch();
        }
        for n in nodes {
            let client = self.client_of(&[*n]);
            let node = &mut self.nodes[*n];
            wait_until(PATIENCE, &format!("node {} answers", node.id), || {
                if let Some(status) = node.take_exit() {
                    panic!("node {} ended with {status}:\n{}", node.id, node.output());
                }
                client.status()[0].status.is_ok()
            });
        }
    }

    /// Waits until these nodes have applied all that is committed.
    pub(crate) fn wait_until_caught_up(&self, nodes: &[usize]) {
        wait_until(PATIENCE, &format!("{nodes:?} have caught up"), || {
            let statuses = self.statuses();
            let commit_index = statuses.iter().map(|(_, status)| status.commit_index).max();
            nodes.iter().all(|n| {
                let status = statuses.iter().find(|(place, _)| place == n);
                status.is_some_and(|(_, status)| Some(status.last_applied) == commit_index)
            })
        });
    }

    /// What the nodes said last, for a failed test.
    fn show_output(&self) {
        for node in &self.nodes {
            let output = node.output();
            let lines: Vec<&str> = output.lines().collect();
            let shown = &lines[lines.len().saturating_sub(OUTPUT_LINES_SHOWN)..];
            eprintln!("--- node {} (client {}):\n{}", node.id, node.client, shown.join("\n"));
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_output();
        }
    }
}

pub(crate) const CLUSTER_NAME: &str = "test";

fn conf(nodes: &[Node], node: &Node, settings: &Settings) -> String {
    let Settings {
        segment_mib,
        max_file_bytes,
        heartbeat_ms,
        election_timeout_ms,
        local_text_reads,
        forward_text_writes,
        max_clients,
        max_pending_mib,
        client_addresses,
    } = settings;
    let data_dir = node.data_dir.display();
    let mut text = format!(
        "cluster = \"{CLUSTER_NAME}\"\nnode = {}\ndata_dir = \"{data_dir}\"\nlog_level = \"debug\"\n\n",
        node.id
    );
    for (n, Node { id, peer, client, text: text_address, http, .. }) in nodes.iter().enumerate() {
        let client = client_addresses.get(n).unwrap_or(client);
        let _ = writeln!(
            text,
            "[[member]]\nnode = {id}\npeer = \"{peer}\"\nclient = \"{client}\"\ntext = \"{text_address}\"\n\
             http = \"{http}\"\n"
        );
    }
    let _ = writeln!(
        text,
        "[raft]\nheartbeat_ms = {heartbeat_ms}\nelection_timeout_ms = {election_timeout_ms}\n\n\
         [log]\nsegment_mib = {segment_mib}\n\n[limits]\nmax_file_bytes = {max_file_bytes}"
    );
    if let Some(max_clients) = max_clients {
        let _ = writeln!(text, "max_clients = {max_clients}");
    }
    if let Some(max_pending_mib) = max_pending_mib {
        let _ = writeln!(text, "max_pending_mib = {max_pending_mib}");
    }
    if !client_addresses.is_empty() {
        let _ = writeln!(text, "\n[listen]\nclient = \"{}\"", node.client);
    }
    let reads = if *local_text_reads { "local" } else { "linearizable" };
    let writes = if *forward_text_writes { "forward" } else { "redirect" };
    let _ = writeln!(text, "\n[text]\nreads = \"{reads}\"\nwrites = \"{writes}\"");
    text
}

/// The right to run a cluster; given back when dropped.
#[derive(Debug)]
struct Permit;

static CLUSTERS_RUNNING: Mutex<usize> = Mutex::new(0);
static CLUSTER_ENDED: Condvar = Condvar::new();

impl Permit {
    fn take() -> Self {
        let running = |count: &mut usize| *count >= CLUSTERS_MAX;
        let mut count = CLUSTER_ENDED.wait_while(clusters_running(), running).unwrap();
        *count += 1;
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *clusters_running() -= 1;
        CLUSTER_ENDED.notify_one();
    }
}

fn clusters_running() -> MutexGuard<'static, usize> {
    CLUSTERS_RUNNING.lock().unwrap()
}
