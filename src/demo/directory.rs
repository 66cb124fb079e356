//! The demo's directory: one configuration and one data directory for each node.
//!
//! The configurations are made when they are missing and kept when they are there: they say how many nodes the
//! cluster has and on which ports, so that the same directory always is the same cluster. Whoever wants other ports
//! changes them there.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use fsd_wire::NodeId;

use super::{DemoError, NODES_DEFAULT, Request};
use crate::config::{Config, Listen, Member};

/// The addresses of each node: the key, and the port of node 0.
const PORTS: &[(&str, u16)] = &[("peer", 7000), ("client", 7100), ("text", 7200), ("http", 7300)];
/// Small: a demo should begin at once and take little room, and shall still hold the largest files.
const SEGMENT_MIB: u32 = 8;
const LOCK_NAME: &str = "demo.lock";

pub(super) struct Directory {
    /// As it was given: short, for messages.
    pub(super) shown: PathBuf,
    pub(super) confs: Vec<Conf>,
    /// Whether its configurations were just made.
    pub(super) is_new: bool,
    /// Held while this lives.
    _lock: File,
}

pub(super) struct Conf {
    pub(super) node: NodeId,
    pub(super) file: PathBuf,
    pub(super) listen: Listen,
    pub(super) member: Member,
}

// The room of the demo's files: they are read and written before the first node is started.
#[allow(clippy::disallowed_methods)]
impl Directory {
    pub(super) fn prepare(request: &Request) -> Result<Self, DemoError> {
        if let Some(count) = request.nodes
            && !matches!(count, 1 | 3 | 5 | 7)
        {
            return Err(configuration(format!("--demo {count}: a cluster has 1, 3, 5 or 7 nodes")));
        }
        // The nodes' data is found from wherever the configurations are used.
        let path =
            std::path::absolute(&request.directory).map_err(|error| fault(&request.directory, &error))?;
        if path.to_str().is_none() {
            let shown = path.display();
            return Err(configuration(format!("--dir {shown}: not UTF-8, so no configuration can name it")));
        }
        fs::create_dir_all(&path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                configuration(format!("--dir {}: not a directory", request.directory.display()))
            }
            _ => fault(&request.directory, &error),
        })?;
        let lock = lock(&path)?;
        let first = conf_file(&path, 1);
        let is_new = !fs::exists(&first).map_err(|error| fault(&first, &error))?;
        if is_new {
            write_confs(&path, request.nodes.unwrap_or(NODES_DEFAULT))?;
        }
        let confs = read_confs(&path)?;
        match request.nodes {
            Some(count) if count as usize != confs.len() => Err(configuration(format!(
                "--demo {count}: {} has a cluster of {}; go on with it by --demo {}, or begin another with --dir",
                request.directory.display(),
                confs.len(),
                confs.len()
            ))),
            _ => Ok(Self { shown: request.directory.clone(), confs, is_new, _lock: lock }),
        }
    }

    /// What stands in the way of a node's address, in words.
    pub(super) fn port_in_use(&self) -> Option<String> {
        self.confs
            .iter()
            .find_map(|conf| conf.listen.addresses().find_map(|(_, address)| self.complaint(conf, address)))
    }

    fn complaint(&self, conf: &Conf, address: SocketAddr) -> Option<String> {
        let error = TcpListener::bind(address).err()?;
        let (node, directory) = (conf.node, self.shown.display());
        if error.kind() != ErrorKind::AddrInUse {
            return Some(format!("{address} of node {node} in {directory}/node{node}.conf: {error}"));
        }
        Some(format!(
            "{address} of node {node} is in use: does another cluster run on this machine? Stop it, or give this \
             one other ports in its configurations, for example with\n    \
             sed -i s/127.0.0.1:7/127.0.0.1:8/ {directory}/node*.conf\nand start it again"
        ))
    }
}

fn configuration(reason: String) -> DemoError {
    DemoError::Configuration(reason)
}

fn fault(path: &Path, error: &io::Error) -> DemoError {
    DemoError::Fault(format!("{}: {error}", path.display()))
}

fn conf_file(directory: &Path, node: u32) -> PathBuf {
    directory.join(format!("node{node}.conf"))
}

/// One demo at a time in a directory.
#[allow(clippy::disallowed_methods)]
fn lock(directory: &Path) -> Result<File, DemoError> {
    let path = directory.join(LOCK_NAME);
    let at_fault = |error: io::Error| fault(&path, &error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(at_fault)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is helps; the lock does not depend on it.
            let _ = Read::by_ref(&mut file).take(64).read_to_string(&mut holder);
            let directory = directory.display();
            return Err(DemoError::Fault(format!(
                "{directory}: another demo runs there ({}); stop it, or give another --dir",
                holder.trim()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(at_fault(error)),
    }
    file.set_len(0).map_err(at_fault)?;
    writeln!(file, "process {}", std::process::id()).map_err(at_fault)?;
    Ok(file)
}

/// Node 1's comes last: while it is missing, none of them counts.
#[allow(clippy::disallowed_methods)]
fn write_confs(directory: &Path, count: u32) -> Result<(), DemoError> {
    for node in (1..=count).rev() {
        let file = conf_file(directory, node);
        let begun = directory.join("node.conf.new");
        fs::write(&begun, conf_text(directory, node, count))
            .and_then(|()| fs::rename(&begun, &file))
            .map_err(|error| fault(&file, &error))?;
    }
    Ok(())
}

/// The configuration of a node, on the documented ports.
pub(super) fn conf_text(directory: &Path, node: u32, count: u32) -> String {
    let data_dir = directory.join(format!("node{node}"));
    // As TOML writes it: a path may have quotes and backslashes.
    let data_dir = toml::Value::from(data_dir.to_str().expect("the directory's name is UTF-8"));
    let mut text = format!(
        "# Node {node} of a demo, made by `fsd --demo` and kept as it is from then on: change what you like.\n\
         cluster = \"demo\"\nnode = {node}\ndata_dir = {data_dir}\n"
    );
    for member in 1..=count {
        let _ = writeln!(text, "\n[[member]]\nnode = {member}");
        for (key, port) in PORTS {
            let _ = writeln!(text, "{key} = \"127.0.0.1:{}\"", u32::from(*port) + member);
        }
    }
    let _ = writeln!(text, "\n[log]\nsegment_mib = {SEGMENT_MIB}");
    text
}

/// Reads the configuration of each member that node 1's names, and checks that they are of one cluster.
fn read_confs(directory: &Path) -> Result<Vec<Conf>, DemoError> {
    let load =
        |node| Config::load(&conf_file(directory, node)).map_err(|error| configuration(error.to_string()));
    let first = load(1)?;
    let mut confs = Vec::new();
    for member in &first.members {
        let file = conf_file(directory, member.node.0);
        let config = load(member.node.0)?;
        if config.node != member.node || config.members != first.members || config.cluster != first.cluster {
            return Err(configuration(format!(
                "{}: not of one cluster with {}: node, [[member]] or cluster differs",
                file.display(),
                conf_file(directory, 1).display()
            )));
        }
        confs.push(Conf { node: member.node, file, listen: config.listen, member: member.clone() });
    }
    Ok(confs)
}
