//! The configuration file: the one place that knows key names, defaults and bounds.
//!
//! A file is parsed once, at start, into [`Config`]; whatever is wrong with it is told with file, key and reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use fsd_wire::NodeId;
use fsd_wire::hello::CLUSTER_NAME_BYTES_MAX;
use log::LevelFilter;
use serde::Deserialize;

use crate::limits;

const SEGMENT_MIB_DEFAULT: u64 = 64;
const SEGMENT_MIB_MAX: u64 = 1024;
const HEARTBEAT_MS_DEFAULT: u64 = 50;
const ELECTION_TIMEOUT_MS_DEFAULT: u64 = 300;
const TIMEOUT_MS_MAX: u64 = 60_000;
const MIB: u64 = 1024 * 1024;

/// What a node needs to know, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// Where its log and its hard state are.
    pub data_dir: PathBuf,
    /// What it says on standard error.
    pub log_level: LevelFilter,
    /// All members, this node among them, in the order of their ids.
    pub members: Vec<Member>,
    /// Where this node's own sockets are bound.
    pub listen: Listen,
    /// Where this node reaches the others.
    pub dial: BTreeMap<NodeId, SocketAddr>,
    /// How often a leader gives a sign of life.
    pub heartbeat_ms: u64,
    /// How long a follower waits for one at least.
    pub election_timeout_ms: u64,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// The largest contents of a file.
    pub max_file_bytes: u64,
    /// Connections of clients, on both protocols together.
    pub max_clients: usize,
    /// Unanswered requests and unsent replies of all clients together.
    pub max_pending_bytes: u64,
    /// From which state the text protocol's reads are answered.
    pub text_reads: TextReads,
    /// What happens to the text protocol's changes at a node that does not lead.
    pub text_writes: TextWrites,
}

/// From which state the text protocol's reads are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextReads {
    /// One that has everything that was acknowledged before the read came.
    #[default]
    Linearizable,
    /// This node's own as it is, perhaps stale, also without a leader.
    Local,
}

/// What happens to the text protocol's changes at a node that does not lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextWrites {
    /// The client is told where the leader is.
    #[default]
    Redirect,
    /// The node passes them on to the leader, each exactly once.
    Forward,
}

/// A member of the cluster, as all nodes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Where other nodes connect.
    pub peer: SocketAddr,
    /// Where clients connect with the binary protocol.
    pub client: SocketAddr,
    /// Where clients connect with the text protocol.
    pub text: Option<SocketAddr>,
    /// Where its pages are: health and metrics.
    pub http: Option<SocketAddr>,
}

/// The addresses that this node binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For other nodes.
    pub peer: SocketAddr,
    /// For the binary protocol.
    pub client: SocketAddr,
    /// For the text protocol.
    pub text: Option<SocketAddr>,
    /// For the pages.
    pub http: Option<SocketAddr>,
}

impl Listen {
    /// All of them, each with its key.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let all = [
            ("peer", Some(self.peer)),
            ("client", Some(self.client)),
            ("text", self.text),
            ("http", self.http),
        ];
        all.into_iter().filter_map(|(key, address)| Some((key, address?)))
    }
}

/// What is wrong with a configuration, in the words that a person needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The key, or the line, that is at fault; empty if it is the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first fault found.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        // The configuration is read once, before the loop runs and before anything can be promised.
        #[allow(clippy::disallowed_methods)]
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            key: String::new(),
            reason: format!("cannot be read: {error}"),
        })?;
        Self::parse(file, &text)
    }

    /// Checks the text of `file`.
    ///
    /// # Errors
    /// The first fault found.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| syntax_error(file, text, &error))?;
        check(raw).map_err(|(key, reason)| ConfigError { file: file.to_owned(), key, reason })
    }

    /// The entry of a member; `None` for a number that no member has.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    cluster: String,
    node: u32,
    data_dir: PathBuf,
    log_level: Option<String>,
    #[serde(default)]
    member: Vec<RawMember>,
    #[serde(default)]
    listen: RawListen,
    #[serde(default)]
    dial: BTreeMap<String, String>,
    #[serde(default)]
    raft: RawRaft,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    text: RawText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    node: u32,
    peer: String,
    client: String,
    text: Option<String>,
    http: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    peer: Option<String>,
    client: Option<String>,
    text: Option<String>,
    http: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRaft {
    heartbeat_ms: Option<u64>,
    election_timeout_ms: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    segment_mib: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    max_file_bytes: Option<u64>,
    max_clients: Option<usize>,
    max_pending_mib: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawText {
    reads: Option<String>,
    writes: Option<String>,
}

/// A key and what is wrong with it.
type Fault = (String, String);

fn fault<T>(key: impl Into<String>, reason: impl Into<String>) -> Result<T, Fault> {
    Err((key.into(), reason.into()))
}

fn check(raw: RawConfig) -> Result<Config, Fault> {
    check_cluster_name(&raw.cluster)?;
    if raw.data_dir.as_os_str().is_empty() {
        return fault("data_dir", "it is empty: name the directory of this node's log");
    }
    let members = check_members(&raw.member)?;
    let node = NodeId(raw.node);
    let Some(own) = members.iter().find(|member| member.node == node) else {
        return fault("node", format!("no [[member]] has node = {node}: the cluster must contain this node"));
    };
    let listen = check_listen(&raw.listen, own)?;
    let dial = check_dial(&raw.dial, &members, node)?;
    let heartbeat_ms = bounded(
        "raft.heartbeat_ms",
        raw.raft.heartbeat_ms.unwrap_or(HEARTBEAT_MS_DEFAULT),
        1,
        TIMEOUT_MS_MAX,
    )?;
    let election_timeout_ms = bounded(
        "raft.election_timeout_ms",
        raw.raft.election_timeout_ms.unwrap_or(ELECTION_TIMEOUT_MS_DEFAULT),
        1,
        TIMEOUT_MS_MAX,
    )?;
    if election_timeout_ms < 2 * heartbeat_ms {
        return fault(
            "raft.election_timeout_ms",
            format!(
                "{election_timeout_ms} is less than twice raft.heartbeat_ms = {heartbeat_ms}: one late heartbeat \
                 would start an election"
            ),
        );
    }
    let segment_mib =
        bounded("log.segment_mib", raw.log.segment_mib.unwrap_or(SEGMENT_MIB_DEFAULT), 1, SEGMENT_MIB_MAX)?;
    let max_file_bytes = bounded(
        "limits.max_file_bytes",
        raw.limits.max_file_bytes.unwrap_or(limits::FILE_BYTES_MAX_DEFAULT),
        1,
        limits::FILE_BYTES_MAX_LIMIT,
    )?;
    if segment_mib * MIB < max_file_bytes + limits::SEGMENT_OVERHEAD_BYTES {
        return fault(
            "log.segment_mib",
            format!(
                "a segment of {segment_mib} MiB cannot hold a file of limits.max_file_bytes = {max_file_bytes} with \
                 its record: raise one or lower the other"
            ),
        );
    }
    let max_clients = raw.limits.max_clients.unwrap_or(limits::CLIENTS_MAX_DEFAULT);
    bounded("limits.max_clients", max_clients as u64, 1, limits::CLIENTS_MAX_LIMIT as u64)?;
    let max_pending_bytes = check_max_pending(raw.limits.max_pending_mib, max_file_bytes)?;
    Ok(Config {
        cluster: raw.cluster,
        node,
        data_dir: raw.data_dir,
        log_level: check_log_level(raw.log_level.as_deref())?,
        listen,
        dial,
        members,
        heartbeat_ms,
        election_timeout_ms,
        segment_bytes: segment_mib * MIB,
        max_file_bytes,
        max_clients,
        max_pending_bytes,
        text_reads: check_text_reads(raw.text.reads.as_deref())?,
        text_writes: check_text_writes(raw.text.writes.as_deref())?,
    })
}

fn check_max_pending(mib: Option<u64>, max_file_bytes: u64) -> Result<u64, Fault> {
    let key = "limits.max_pending_mib";
    let mib = bounded(key, mib.unwrap_or(limits::PENDING_MIB_DEFAULT), 1, limits::PENDING_MIB_LIMIT)?;
    let least_mib = limits::pending_bytes_min(max_file_bytes).div_ceil(MIB);
    if mib < least_mib {
        return fault(
            key,
            format!(
                "{mib} is not enough for a file of limits.max_file_bytes = {max_file_bytes} on its way: raise it to {least_mib}, or lower the other"
            ),
        );
    }
    Ok(mib * MIB)
}

fn check_cluster_name(name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > CLUSTER_NAME_BYTES_MAX {
        return fault("cluster", format!("a name of 1 to {CLUSTER_NAME_BYTES_MAX} bytes is needed"));
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return fault("cluster", "the name may not contain blanks or control characters");
    }
    Ok(())
}

fn check_members(raw: &[RawMember]) -> Result<Vec<Member>, Fault> {
    if !matches!(raw.len(), 1 | 3 | 5 | limits::MEMBERS_MAX) {
        return fault("member", format!("{} members: a cluster has 1, 3, 5 or 7", raw.len()));
    }
    let mut nodes = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    let mut members = Vec::with_capacity(raw.len());
    for entry in raw {
        let key = |field: &str| format!("member {}: {field}", entry.node);
        if entry.node == 0 {
            return fault("member", "node = 0: nodes are numbered from 1");
        }
        if !nodes.insert(entry.node) {
            return fault(key("node"), "there is another member with this number");
        }
        let mut address = |field: &str, text: &str| {
            let address = parse_address(&key(field), text)?;
            if !can_be_dialled(address) {
                return fault(
                    key(field),
                    format!("{text} cannot be connected to; to bind another address use [listen]"),
                );
            }
            if !addresses.insert(address) {
                return fault(key(field), format!("{text} stands twice among the members"));
            }
            Ok(address)
        };
        members.push(Member {
            node: NodeId(entry.node),
            peer: address("peer", &entry.peer)?,
            client: address("client", &entry.client)?,
            text: entry.text.as_deref().map(|text| address("text", text)).transpose()?,
            http: entry.http.as_deref().map(|text| address("http", text)).transpose()?,
        });
    }
    members.sort_by_key(|member| member.node);
    Ok(members)
}

fn check_listen(raw: &RawListen, own: &Member) -> Result<Listen, Fault> {
    let or = |key: &str, text: &Option<String>, default: SocketAddr| {
        let Some(text) = text else { return Ok(default) };
        let address = parse_address(key, text)?;
        if address.port() == 0 {
            return fault(key, format!("{text} has port 0: nobody would know where to connect"));
        }
        Ok(address)
    };
    // A member has these two or has them not.
    let optional = |key: &str, text: &Option<String>, own: Option<SocketAddr>| match own {
        Some(own) => or(&format!("listen.{key}"), text, own).map(Some),
        None if text.is_some() => fault(
            format!("listen.{key}"),
            format!("this node's member entry has no {key} address to go with it"),
        ),
        None => Ok(None),
    };
    let listen = Listen {
        peer: or("listen.peer", &raw.peer, own.peer)?,
        client: or("listen.client", &raw.client, own.client)?,
        text: optional("text", &raw.text, own.text)?,
        http: optional("http", &raw.http, own.http)?,
    };
    let mut addresses = BTreeSet::new();
    if let Some((key, address)) = listen.addresses().find(|(_, address)| !addresses.insert(*address)) {
        return fault("listen", format!("{key}: {address} is the same as another one of the addresses"));
    }
    Ok(listen)
}

fn check_dial(
    raw: &BTreeMap<String, String>,
    members: &[Member],
    own: NodeId,
) -> Result<BTreeMap<NodeId, SocketAddr>, Fault> {
    let mut dial: BTreeMap<_, _> =
        members.iter().filter(|member| member.node != own).map(|member| (member.node, member.peer)).collect();
    for (node, address) in raw {
        let key = format!("dial.{node}");
        let Some(entry) = node.parse().ok().and_then(|node| dial.get_mut(&NodeId(node))) else {
            return fault(key, "no other member has this number");
        };
        *entry = parse_address(&key, address)?;
        if !can_be_dialled(*entry) {
            return fault(key, format!("{address} cannot be connected to"));
        }
    }
    Ok(dial)
}

fn can_be_dialled(address: SocketAddr) -> bool {
    !address.ip().is_unspecified() && address.port() != 0
}

fn check_text_reads(text: Option<&str>) -> Result<TextReads, Fault> {
    match text {
        None | Some("linearizable") => Ok(TextReads::Linearizable),
        Some("local") => Ok(TextReads::Local),
        Some(other) => fault("text.reads", format!("\"{other}\" is neither \"linearizable\" nor \"local\"")),
    }
}

fn check_text_writes(text: Option<&str>) -> Result<TextWrites, Fault> {
    match text {
        None | Some("redirect") => Ok(TextWrites::Redirect),
        Some("forward") => Ok(TextWrites::Forward),
        Some(other) => fault("text.writes", format!("\"{other}\" is neither \"redirect\" nor \"forward\"")),
    }
}

fn check_log_level(text: Option<&str>) -> Result<LevelFilter, Fault> {
    Ok(match text {
        None | Some("info") => LevelFilter::Info,
        Some("error") => LevelFilter::Error,
        Some("warn") => LevelFilter::Warn,
        Some("debug") => LevelFilter::Debug,
        Some("trace") => LevelFilter::Trace,
        Some(other) => {
            return fault("log_level", format!("\"{other}\" is none of error, warn, info, debug, trace"));
        }
    })
}

fn parse_address(key: &str, text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        (key.to_owned(), format!("\"{text}\" is not IP:PORT, like 127.0.0.1:7001 (names are not looked up)"))
    })
}

fn bounded(key: &str, value: u64, min: u64, max: u64) -> Result<u64, Fault> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        fault(key, format!("{value} is not between {min} and {max}"))
    }
}

fn syntax_error(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    // What is missing in the file as a whole is missing in no line of it.
    if error.span().is_none_or(|span| span.start == 0)
        && let Some(key) = error.message().strip_prefix("missing field ")
    {
        let reason = "this key is missing".into();
        return ConfigError { file: file.to_owned(), key: key.trim().into(), reason };
    }
    let key = match error.span() {
        Some(span) => {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let content = text.lines().nth(line - 1).unwrap_or_default().trim();
            if content.is_empty() { format!("line {line}") } else { format!("line {line}, `{content}`") }
        }
        None => String::new(),
    };
    ConfigError { file: file.to_owned(), key, reason: error.message().trim().replace('\n', " ") }
}

#[cfg(test)]
mod tests;
