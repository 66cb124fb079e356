//! Real directories of nodes, made by hand, and the built tool.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};

use bytes::Bytes;
use fsd::file_store::{ContentsAt, FileStore};
use fsd::mapping::FileDisk;
use fsd::raft::LogChange;
use fsd::storage::kept::{KeptWriter, kept_bytes};
use fsd::storage::{
    CheckpointHead, CheckpointWriter, DirectoryIdentity, Position, SegmentId, Storage, lock_directory, open,
    segment,
};
use fsd_wire::{
    ClusterId, ClusterTimeMs, Command, Entry, EntryId, EntryKind, Genesis, Incarnation, LogIndex, NodeId,
    Operation, Payload, SessionCommand, Term,
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SEGMENT_BYTES: u64 = 8192;

pub(crate) fn logdump(arguments: &[&str]) -> Output {
    Process::new(env!("CARGO_BIN_EXE_logdump")).args(arguments).output().expect("logdump runs")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The lines, of a call that must find all sound.
pub(crate) fn lines(arguments: &[&str]) -> Vec<String> {
    let output = logdump(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    stdout(&output).lines().map(str::to_owned).collect()
}

pub(crate) fn json_lines(arguments: &[&str]) -> Vec<Value> {
    lines(arguments).iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What is said of a directory in which something must not be.
pub(crate) fn complaints(arguments: &[&str]) -> Vec<String> {
    let output = logdump(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let lines = stdout(&output);
    let wrong = |line: &&str| line.starts_with("DAMAGE ") || line.starts_with("DIFFERENCE ");
    lines.lines().filter(wrong).map(str::to_owned).collect()
}

/// Names, contents and times of everything in a directory.
pub(crate) fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let items = directory.read_dir().expect("a directory");
    let path_of = |item: std::io::Result<std::fs::DirEntry>| item.expect("an item").path();
    items
        .map(path_of)
        .map(|path| {
            let modified = path.metadata().and_then(|metadata| metadata.modified()).expect("a time");
            let bytes = std::fs::read(&path).expect("a file");
            (path, (bytes, modified))
        })
        .collect()
}

pub(crate) fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("the offset is inside");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("it can be written");
}

/// A node as far as it matters here: its directory, its log, its store.
pub(crate) struct Node {
    pub(crate) directory: TempDir,
    pub(crate) storage: Storage<FileDisk>,
    pub(crate) store: FileStore,
    pub(crate) term: u64,
    id: u32,
}

pub(crate) fn write(name: &str, contents: &[u8], expiry_seconds: u64) -> Payload {
    let operation = Operation::Write { expiry_seconds };
    Command { operation, name: name.to_owned(), contents: Bytes::copy_from_slice(contents) }.encode()
}

impl Node {
    /// Node `id` with nothing but a genesis entry.
    pub(crate) fn new(id: u32) -> Self {
        Self::of_cluster(id, "demo", 77)
    }

    pub(crate) fn of_cluster(id: u32, cluster: &str, cluster_id: u128) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = DirectoryIdentity { cluster: cluster.to_owned(), node: NodeId(id) };
        let disk = lock_directory(directory.path(), &identity).unwrap();
        let mut next = u64::from(id) << 32;
        let mut counting = || {
            next += 1;
            next
        };
        let storage = open(disk, &identity, SEGMENT_BYTES, &mut counting).unwrap();
        let mut node = Self { directory, storage, store: FileStore::new(), term: 1, id };
        let incarnations = vec![(NodeId(1), Incarnation(11))];
        node.apply(EntryKind::Genesis, Genesis { cluster_id: ClusterId(cluster_id), incarnations }.encode());
        node
    }

    pub(crate) fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Appends an entry that is not applied.
    pub(crate) fn append(&mut self, kind: EntryKind, payload: Payload) -> Entry {
        let index = self.storage.log.last_index().next();
        let entry =
            Entry { index, term: Term(self.term), stamp: ClusterTimeMs(1000 + index.0), kind, payload };
        self.append_entry(entry)
    }

    pub(crate) fn append_entry(&mut self, entry: Entry) -> Entry {
        self.storage.log.append(&[LogChange::Append(entry.clone())]).unwrap();
        self.storage.log.flush().unwrap();
        entry
    }

    pub(crate) fn apply(&mut self, kind: EntryKind, payload: Payload) {
        let entry = self.append(kind, payload);
        let at = self.storage.log.position(entry.index);
        self.store.apply(&entry, ContentsAt(at.0));
    }

    pub(crate) fn write(&mut self, name: &str, contents: &[u8]) {
        self.apply(EntryKind::Command, write(name, contents, 0));
    }

    pub(crate) fn open_session(&mut self) {
        let open = SessionCommand::Open { idle_ms: 60_000, sessions_max: 100 };
        self.apply(EntryKind::Session, open.encode());
    }

    /// Copies the contents of these files into a kept segment, and gives its name.
    pub(crate) fn keep(&mut self, names: &[&str]) -> String {
        let from: Vec<ContentsAt> = names.iter().map(|name| self.store.get(name).unwrap().contents).collect();
        let log = &mut self.storage.log;
        let entries: Vec<Entry> = from.iter().map(|at| log.entry_at(Position(at.0)).unwrap()).collect();
        let header = log.kept_header(kept_bytes(entries.iter().map(|entry| entry.payload.len())));
        let mut writer = KeptWriter::create(log.disk(), header).unwrap();
        for ((name, from), entry) in names.iter().zip(from).zip(entries) {
            let to = writer.add(&entry).unwrap();
            assert!(self.store.move_contents(name, from, ContentsAt(to.0)));
        }
        let kept = writer.finish().unwrap();
        let name = kept.name();
        self.storage.log.install_kept(kept);
        name
    }

    /// The head that a checkpoint of the store would have now, and its body.
    pub(crate) fn image(&mut self) -> (CheckpointHead, Vec<u8>) {
        let index = self.store.last_applied();
        let term = self.storage.log.entry(index).unwrap().term;
        let base = self.storage.log.base_behind(EntryId { term, index }).unwrap();
        let segments = self.store.live_segments().map(|(id, _)| SegmentId(id)).collect();
        let image = self.store.begin_image();
        let mut body = Vec::new();
        while self.store.image_slice(500, &mut body) {}
        let head = CheckpointHead {
            salt: 7 + index.0,
            identity: self.storage.log.identity().clone(),
            entry: base.entry,
            stamp: image.cluster_time,
            log_end: base.end,
            genesis: Some(ClusterId(77)),
            registrations: vec![(LogIndex(1), NodeId(1), Incarnation(11))],
            segments,
            revision: image.revision.0,
            files: image.files,
            sessions: image.sessions,
            body_bytes: image.items_bytes,
            begins_anew: false,
        };
        (head, body)
    }

    /// Writes a checkpoint of the store as it is, and gives its name.
    pub(crate) fn checkpoint(&mut self) -> String {
        let (head, body) = self.image();
        self.write_checkpoint(&head, &body)
    }

    pub(crate) fn write_checkpoint(&self, head: &CheckpointHead, body: &[u8]) -> String {
        let mut writer = CheckpointWriter::create(self.storage.log.disk(), head).unwrap();
        writer.append(body).unwrap();
        writer.finish().unwrap();
        head.name()
    }

    /// Removes a file as another process might.
    pub(crate) fn lose(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    /// The file in which the contents of a file lie, and the offset of their record.
    pub(crate) fn place(&self, name: &str) -> (String, u64) {
        let position = Position(self.store.get(name).unwrap().contents.0);
        (segment::file_name(position.segment()), u64::from(position.offset()))
    }
}
