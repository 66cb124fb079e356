//! The comparison at the end of each test: all nodes have the same log and the same store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use fsclient::NodeStatus;
use fsd::file_store::ContentsAt;
use fsd::server::StoreImage;
use fsd::storage::{self, DirectoryIdentity};
use fsd_wire::{LogIndex, NodeId};
use serde_json::Value;

use super::cluster::{CLUSTER_NAME, TestCluster};
use super::{PATIENCE, wait_for};

/// The size of further segments, of which the comparison makes none.
const SEGMENT_BYTES: u64 = 1024 * 1024;

/// An entry as a node's log has it: everything that the dump says of it but where it lies.
type Entries = BTreeMap<u64, Value>;

impl TestCluster {
    /// Brings all nodes up, waits until they have applied the same log, and compares their stores and, after
    /// stopping them, their logs.
    pub(crate) fn compare_all_nodes(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_stopped()) {
            node.cont();
        }
        let down: Vec<usize> = (0..self.nodes.len()).filter(|n| !self.nodes[*n].is_running()).collect();
        self.launch(&down);
        self.wait_for_leader();
        let statuses = self.wait_until_equal();
        self.compare_list(&statuses[0]);
        let commit_index = statuses[0].commit_index.0;
        self.nodes.iter_mut().for_each(super::Node::request_end);
        for node in &mut self.nodes {
            let status = node.wait_for_end();
            assert!(status.success(), "node {} ended with {status} after SIGTERM", node.id);
        }
        let logs: Vec<Entries> = self.nodes.iter().map(|node| read_log(&node.data_dir)).collect();
        for (node, log) in self.nodes.iter().zip(&logs) {
            compare_logs(node.id, log, &logs[0], commit_index);
        }
        let mut digests: BTreeMap<LogIndex, u32> = BTreeMap::new();
        for node in &self.nodes {
            let (index, digest) = store_digest(node, commit_index);
            let first = *digests.entry(index).or_insert(digest);
            assert_eq!(
                digest, first,
                "the store of node {} as of entry {index}, and of one before it",
                node.id
            );
        }
    }

    /// Apply is deterministic: at an equal applied index, stores have equal figures. That a node has applied
    /// what another one has in its log is not enough: the leader may have more, which is about to be committed.
    fn wait_until_equal(&self) -> Vec<NodeStatus> {
        let equal = wait_for(PATIENCE, || {
            let statuses: Vec<NodeStatus> = self.statuses().into_iter().map(|(_, status)| status).collect();
            let settled = |status: &NodeStatus| {
                status.last_log_index == statuses[0].last_log_index
                    && status.commit_index == status.last_log_index
                    && status.last_applied == status.last_log_index
            };
            (statuses.len() == self.nodes.len() && statuses.iter().all(settled)).then_some(statuses)
        });
        let statuses = equal.unwrap_or_else(|| panic!("the nodes do not meet: {:?}", self.statuses()));
        for status in &statuses {
            let figures = |status: &NodeStatus| (status.files, status.revision, status.last_applied);
            assert_eq!(
                figures(status),
                figures(&statuses[0]),
                "node {} and {}",
                status.node,
                statuses[0].node
            );
        }
        statuses
    }

    /// The leader's list is that of a store with these figures.
    fn compare_list(&self, status: &NodeStatus) {
        let files = self.client().list("").unwrap();
        assert_eq!(files.len() as u64, status.files, "files in the list");
        assert!(files.is_sorted_by(|a, b| a.name < b.name), "the list is in byte order, each name once");
        let mut versions: Vec<u64> = files.iter().map(|file| file.version.0).collect();
        versions.sort_unstable();
        assert!(versions.is_sorted_by(|a, b| a < b), "no two files have the same version");
        assert!(
            versions.last().is_none_or(|last| *last <= status.revision.0),
            "no version is ahead of its store"
        );
    }
}

/// The store that a node's log makes up to this entry, contents included, as a checksum. A node that became leader while the
/// others ended may have taken a checkpoint behind that: then it is as of a later entry.
fn store_digest(node: &super::Node, commit_index: u64) -> (LogIndex, u32) {
    let identity = DirectoryIdentity { cluster: CLUSTER_NAME.into(), node: NodeId(node.id) };
    let disk = storage::lock_directory(&node.data_dir, &identity).unwrap();
    let mut image = StoreImage::default();
    let log = storage::open_into(disk, &identity, SEGMENT_BYTES, &mut || 1, &mut image).unwrap().log;
    let mut store = image.into_store();
    for index in (store.last_applied().0 + 1..=commit_index).map(LogIndex) {
        store.apply(&log.entry(index).unwrap(), ContentsAt(log.position(index).0));
    }
    (store.last_applied(), store.digest())
}

/// Compares what both logs still have.
fn compare_logs(node: u32, log: &Entries, first: &Entries, commit_index: u64) {
    let begin = |log: &Entries| log.first_key_value().map_or(commit_index + 1, |(index, _)| *index);
    for index in begin(log).max(begin(first))..=commit_index {
        let entry = log.get(&index).unwrap_or_else(|| panic!("node {node} lacks entry {index}"));
        assert_eq!(Some(entry), first.get(&index), "entry {index} at node {node} and at the first");
    }
}

/// The entries in a data directory, as `logdump` shows them.
fn read_log(data_dir: &Path) -> Entries {
    let output = Command::new(logdump()).arg("--json").arg(data_dir).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "logdump {}: {}\n{}",
        data_dir.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let mut entries = Entries::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut entry: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let Some(index) = entry.get("index").and_then(Value::as_u64) else {
            continue; // a line about a segment, or a torn tail
        };
        let fields = entry.as_object_mut().expect("an entry is an object");
        for place in ["file", "segment", "offset"] {
            fields.remove(place);
        }
        // A later record takes the place of all from its index on: that is how the log truncates.
        if fields.remove("superseded") != Some(Value::Bool(true)) {
            entries.split_off(&index);
            entries.insert(index, entry);
        }
    }
    entries
}

/// The `logdump` beside the daemon under test. Cargo builds the tools of other packages only when asked.
fn logdump() -> &'static Path {
    static LOGDUMP: OnceLock<PathBuf> = OnceLock::new();
    LOGDUMP.get_or_init(|| {
        let profile_directory = Path::new(env!("CARGO_BIN_EXE_fsd")).parent().unwrap();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "-p", "logdump", "--manifest-path"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        command.arg("--target-dir").arg(profile_directory.parent().unwrap());
        if profile_directory.ends_with("release") {
            command.arg("--release");
        }
        let status = command.status().expect("cargo runs the tests, so it is there");
        assert!(status.success(), "logdump does not build");
        profile_directory.join("logdump")
    })
}
