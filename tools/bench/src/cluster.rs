//! A cluster of `fsd` processes on loopback, on ports that the system picks.

use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fsd::mapping::{Disk, FileDisk};
use fsd_wire::client::{NodeRole, NodeStatus};

use crate::Error;
use crate::connection::status_of;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LEADER_PATIENCE: Duration = Duration::from_secs(60);

/// The processes; they end with it.
pub(crate) struct Cluster {
    fsd: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    conf: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    client: SocketAddr,
    /// What stands before the daemon on its command line, and becomes it.
    under: Vec<String>,
    child: Option<Child>,
}

impl Cluster {
    /// Starts the nodes; `limits` are lines below `[limits]` in their configurations.
    pub(crate) fn start(nodes: usize, dir: &Path, limits: &str) -> Result<Self, Error> {
        Self::start_under(nodes, dir, limits, |_| Vec::new())
    }

    /// The same, each node started by another program, which must become the daemon.
    pub(crate) fn start_under(
        nodes: usize,
        dir: &Path,
        limits: &str,
        under: impl Fn(usize) -> Vec<String>,
    ) -> Result<Self, Error> {
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
        let mut cluster = Self { fsd, nodes: Vec::new() };
        for (at, client) in clients.iter().enumerate() {
            let node = at + 1;
            let data_dir = dir.join(format!("node{node}"));
            let conf = dir.join(format!("node{node}.conf"));
            let text = format!(
                "cluster = \"bench\"\nnode = {node}\ndata_dir = {:?}\n{members}\n[limits]\n{limits}\n",
                data_dir.display().to_string()
            );
            std::fs::write(&conf, text)?;
            let log = dir.join(format!("node{node}.log"));
            File::create(&log)?;
            cluster.nodes.push(Node { conf, data_dir, log, client: *client, under: under(at), child: None });
            cluster.launch(at)?;
        }
        Ok(cluster)
    }

    /// Starts a node that does not run.
    pub(crate) fn launch(&mut self, at: usize) -> Result<(), Error> {
        let node = &mut self.nodes[at];
        let log = OpenOptions::new().append(true).open(&node.log)?;
        let mut words = node.under.iter().map(AsRef::as_ref).chain([self.fsd.as_os_str()]);
        let mut command = Command::new(words.next().expect("the daemon at least"));
        let child = command.args(words).arg("-c").arg(&node.conf).stdin(Stdio::null()).stderr(log).spawn()?;
        node.child = Some(child);
        Ok(())
    }

    /// Ends a node at once (SIGKILL).
    pub(crate) fn kill(&mut self, at: usize) -> Result<(), Error> {
        let mut child = self.nodes[at].child.take().ok_or("the node does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Deletes what a node that does not run has stored, as fsd deletes files: a new machine has an empty disk, and is not
    /// to hold up the flushes of the others by how the old one's is emptied.
    pub(crate) fn wipe(&self, at: usize) -> Result<(), Error> {
        let data_dir = &self.nodes[at].data_dir;
        let (disk, _) = FileDisk::lock(data_dir).map_err(|error| format!("{error:?}"))?;
        disk.list()?.iter().try_for_each(|name| disk.remove(name))?;
        drop(disk);
        Ok(std::fs::remove_dir_all(data_dir)?)
    }

    /// Where clients reach a node.
    pub(crate) fn client(&self, at: usize) -> SocketAddr {
        self.nodes[at].client
    }

    /// Where all of them are reached.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    pub(crate) fn data_dir(&self, at: usize) -> &Path {
        &self.nodes[at].data_dir
    }

    pub(crate) fn process_id(&self, at: usize) -> Result<u32, Error> {
        Ok(self.nodes[at].child.as_ref().ok_or("the node does not run")?.id())
    }

    /// Nodes that have ended by themselves.
    pub(crate) fn ended(&mut self) -> Result<Vec<usize>, Error> {
        let mut ended = Vec::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Some(child) = &mut node.child
                && child.try_wait()?.is_some()
            {
                ended.push(at);
            }
        }
        Ok(ended)
    }

    /// What a node says of itself.
    pub(crate) fn status(&self, at: usize) -> Result<NodeStatus, Error> {
        status_of(self.nodes[at].client)
    }

    /// Which node leads, once one does.
    pub(crate) fn leader(&self) -> Result<usize, Error> {
        wait_until(LEADER_PATIENCE, "no leader was found in time", || {
            (0..self.nodes.len()).find(|at| self.leads(*at))
        })
    }

    /// Whether a node says that it leads.
    pub(crate) fn leads(&self, at: usize) -> bool {
        self.status(at).is_ok_and(|status| status.role == NodeRole::Leader)
    }

    /// A node that does not lead.
    pub(crate) fn follower(&self) -> Result<usize, Error> {
        Ok((self.leader()? + 1) % self.nodes.len())
    }

    /// Waits until a node has applied all that its leader had committed when this was called; how long that took.
    pub(crate) fn wait_for_apply(&self, at: usize, patience: Duration) -> Result<Duration, Error> {
        let begin = Instant::now();
        let target = self.status(self.leader()?)?.commit_index;
        wait_until(patience, "the node does not catch up in time", || {
            self.status(at).ok().filter(|status| status.last_applied >= target)
        })?;
        Ok(begin.elapsed())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // It may have ended by itself; either way it is waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks again and again until there is something.
pub(crate) fn wait_until<T>(
    patience: Duration,
    complaint: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Error> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(complaint.into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
