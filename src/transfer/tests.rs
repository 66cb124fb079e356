//! Whole stores are sent from one simulated disk to another, and what can happen to them on the way happens.

// They put files where a person or another process might.
#![allow(clippy::disallowed_methods)]

mod faults;
mod forged;
mod golden;

use bytes::Bytes;
use fsd_wire::{
    ClusterId, ClusterTimeMs, Command, Entry, EntryId, EntryKind, Genesis, Incarnation, LogIndex, NodeId,
    Operation, Payload, Sequence, SessionCommand, SessionId, Term,
};
use proptest::prelude::*;

use super::*;
use crate::file_store::{Applied, ContentsAt, File, FileStore};
use crate::mapping::{Disk, FileDisk};
use crate::raft::LogChange;
use crate::simulated_disk::{SimulatedDisk, Unflushed};
use crate::storage::kept::{KeptWriter, kept_bytes};
use crate::storage::segment::SegmentHeader;
use crate::storage::{
    self, CheckpointHead, CheckpointWriter, DirectoryIdentity, Position, SegmentId, SegmentReader, Storage,
};

/// Small, so that a few records fill one.
const SEGMENT_BYTES: u64 = 8192;
const CLUSTER: &str = "demo";
/// Some are directories of others, so that writes are refused; some differ from a directory in one letter.
const NAMES: [&str; 10] = ["a", "a/b", "a-b", "a/b/c", "b", "b/ä", "c", "c0", "dir/file", "z"];

fn identity(node: u32) -> DirectoryIdentity {
    DirectoryIdentity { cluster: CLUSTER.to_owned(), node: NodeId(node) }
}

/// A node as far as it matters here: its disk, its log, its store.
struct Node {
    disk: SimulatedDisk,
    storage: Storage<SimulatedDisk>,
    store: FileStore,
    stamp: ClusterTimeMs,
}

impl Node {
    /// Node `id` with nothing but a genesis entry.
    fn new(id: u32) -> Self {
        let disk = SimulatedDisk::new();
        let storage = open(&disk, id);
        let mut node = Self { disk, storage, store: FileStore::new(), stamp: ClusterTimeMs(1000) };
        let genesis = Genesis { cluster_id: ClusterId(77), incarnations: vec![(NodeId(1), Incarnation(11))] };
        node.apply(EntryKind::Genesis, genesis.encode());
        node
    }

    fn apply(&mut self, kind: EntryKind, payload: Payload) -> Applied {
        let index = self.store.last_applied().next();
        let entry = Entry { index, term: Term(1 + index.0 / 16), stamp: self.stamp, kind, payload };
        self.storage.log.append(&[LogChange::Append(entry.clone())]).unwrap();
        self.storage.log.flush().unwrap();
        self.store.apply(&entry, ContentsAt(self.storage.log.position(index).0))
    }

    fn write(&mut self, name: &str, contents: Vec<u8>, expiry_seconds: u64) -> Applied {
        self.apply(EntryKind::Command, write(name, contents, expiry_seconds))
    }

    /// Copies the contents of the files that this picks into a kept segment, as a cleaner would.
    fn keep(&mut self, picks: impl Fn(usize) -> bool) {
        let files = self.store.list("", "", usize::MAX).files.into_iter().enumerate();
        let picked: Vec<(String, ContentsAt)> = files
            .filter(|(n, _)| picks(*n))
            .map(|(_, (name, file))| (name.to_owned(), file.contents))
            .collect();
        if picked.is_empty() {
            return;
        }
        let entries: Vec<Entry> =
            picked.iter().map(|(_, from)| self.storage.log.entry_at(Position(from.0)).unwrap()).collect();
        let len_bytes = kept_bytes(entries.iter().map(|entry| entry.payload.len()));
        let header = self.storage.log.kept_header(len_bytes);
        let mut writer = KeptWriter::create(&self.disk, header).unwrap();
        for ((name, from), entry) in picked.into_iter().zip(entries) {
            let to = writer.add(&entry).unwrap();
            assert!(self.store.move_contents(&name, from, ContentsAt(to.0)));
        }
        self.storage.log.install_kept(writer.finish().unwrap());
    }

    /// Writes a checkpoint of the store as it is, and gives its name.
    fn checkpoint(&mut self) -> String {
        let index = self.store.last_applied();
        let entry = EntryId { index, term: self.storage.log.entry(index).unwrap().term };
        checkpoint(&self.disk, &mut self.store, &identity(1), entry)
    }
}

/// Writes a checkpoint of a store, and gives its name.
fn checkpoint<D: Disk>(
    disk: &D,
    store: &mut FileStore,
    identity: &DirectoryIdentity,
    entry: EntryId,
) -> String {
    let segments = store.live_segments().map(|(id, _)| SegmentId(id)).collect();
    let image = store.begin_image();
    let head = CheckpointHead {
        salt: 7,
        identity: identity.clone(),
        entry,
        stamp: image.cluster_time,
        log_end: Position::default(),
        begins_anew: false,
        genesis: Some(ClusterId(77)),
        registrations: vec![(LogIndex(1), NodeId(1), Incarnation(11))],
        segments,
        revision: image.revision.0,
        files: image.files,
        sessions: image.sessions,
        body_bytes: image.items_bytes,
    };
    let mut writer = CheckpointWriter::create(disk, &head).unwrap();
    loop {
        let mut slice = Vec::new();
        let has_more = store.image_slice(500, &mut slice);
        writer.append(&slice).unwrap();
        if !has_more {
            break;
        }
    }
    writer.finish().unwrap();
    head.name()
}

fn open(disk: &SimulatedDisk, node: u32) -> Storage<SimulatedDisk> {
    let mut random = fastrand::Rng::with_seed(disk.operations() + u64::from(node));
    storage::open(disk.clone(), &identity(node), SEGMENT_BYTES, &mut || random.u64(..)).expect("it must open")
}

fn write(name: &str, contents: Vec<u8>, expiry_seconds: u64) -> Payload {
    let operation = Operation::Write { expiry_seconds };
    Command { operation, name: name.to_owned(), contents: Bytes::from(contents) }.encode()
}

fn some_bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (seed * 31 + n * n / 7) as u8).collect()
}

/// The whole stream of a checkpoint, in chunks of the sizes that this gives.
fn stream_of<D: Disk>(
    disk: &D,
    checkpoint: &str,
    mut chunk_bytes: impl FnMut() -> usize,
) -> Result<Vec<Chunk>, TransferError> {
    let mut reader = StreamReader::open(disk, checkpoint, None)?;
    let mut chunks = Vec::new();
    loop {
        let (offset, bytes_max) = (chunks.last().map_or(0, end_of), chunk_bytes());
        let chunk = reader.next_chunk(bytes_max)?;
        assert_eq!(chunk.offset, offset);
        assert!(chunk.bytes.len() == bytes_max || chunk.is_last && chunk.bytes.len() < bytes_max);
        chunks.push(chunk);
        if chunks.last().is_some_and(|chunk| chunk.is_last) {
            let behind = reader.next_chunk(1).unwrap();
            let offset = chunks.last().map_or(0, end_of);
            assert_eq!(behind, Chunk { offset, bytes: Bytes::new(), is_last: true });
            return Ok(chunks);
        }
    }
}

fn end_of(chunk: &Chunk) -> u64 {
    chunk.offset + chunk.bytes.len() as u64
}

fn bytes_of(chunks: &[Chunk]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect()
}

type Whole<D = SimulatedDisk> = Received<<D as Disk>::File>;

/// Feeds bytes that begin at `offset`, with as many headers as are needed; the store if it is whole by then.
fn feed<D: Disk>(
    writer: &mut StreamWriter<D>,
    offset: u64,
    bytes: &[u8],
    mut header: impl FnMut() -> SegmentHeader,
) -> Result<Option<Whole<D>>, TransferError> {
    let mut at = offset;
    let mut fresh = None;
    loop {
        fresh.get_or_insert_with(&mut header);
        let rest = &bytes[(at - offset) as usize..];
        match writer.feed(at, rest, &mut fresh)? {
            Progress::Whole(received) => return Ok(Some(*received)),
            Progress::More { next_offset } => {
                assert_eq!(next_offset, writer.next_offset());
                at = next_offset;
                if at == offset + bytes.len() as u64 {
                    return Ok(None);
                }
                assert!(fresh.is_none(), "bytes are left while there is a header");
            }
        }
    }
}

/// Headers for kept segments of node 2, without a log.
fn headers() -> impl FnMut() -> SegmentHeader {
    let mut id = 100;
    move || {
        id += 1;
        SegmentHeader { id: SegmentId(id), salt: 5, len_bytes: SEGMENT_BYTES, identity: identity(2) }
    }
}

/// Receives a whole stream at a node.
fn receive(node: &mut Node, chunks: &[Chunk]) -> Whole {
    let mut writer = StreamWriter::begin(&node.disk, Some(CLUSTER));
    for chunk in chunks {
        let log = &mut node.storage.log;
        let fed = feed(&mut writer, chunk.offset, &chunk.bytes, || log.kept_header(SEGMENT_BYTES));
        match fed.expect("a good stream") {
            Some(received) => {
                assert!(chunk.is_last, "whole before the end");
                assert_eq!(writer.kept_names().count(), 0, "they are the receiver's now");
                assert!(matches!(writer.feed(0, &[], &mut None), Err(TransferError::Over)));
                return received;
            }
            None => assert!(!chunk.is_last, "not whole at the end"),
        }
    }
    panic!("a stream without an end")
}

/// The entry that holds a file's contents, read from a segment by its name.
fn contents_of(disk: &SimulatedDisk, node: u32, file: &File) -> Entry {
    let position = Position(file.contents.0);
    let segment = SegmentReader::open(disk, position.segment(), Some(&identity(node))).unwrap();
    segment.entry_at(position).unwrap().0
}

/// The store that was received at node 2 is the one that was sent by node 1, with all contents.
fn assert_received(sender: &mut Node, disk: &SimulatedDisk, received: Whole, stream: &[u8]) {
    let Received { head, mut store, kept } = received;
    assert_eq!(store.digest(), sender.store.digest());
    assert_eq!(format::image_head(&head), sender.store.image_head());
    assert_eq!(store.image_head(), sender.store.image_head());
    let sent = sender.store.list("", "", usize::MAX).files;
    let found = store.list("", "", usize::MAX).files;
    assert_eq!(found.len(), sent.len());
    let mut contents_bytes = 0;
    for ((name, file), (sent_name, sent_file)) in found.into_iter().zip(sent) {
        assert_eq!((name, File { contents: sent_file.contents, ..*file }), (sent_name, *sent_file));
        assert_eq!(contents_of(disk, 2, file), contents_of(&sender.disk, 1, sent_file), "{name}");
        contents_bytes += u64::from(file.size_bytes);
        assert!(kept.iter().any(|kept| kept.id().0 == file.contents.segment()), "{name} is elsewhere");
    }
    assert_eq!(head.contents_bytes, contents_bytes);
    // It can be sent again, and that is the same stream.
    let name = checkpoint(disk, &mut store, &identity(2), head.entry);
    assert!(bytes_of(&stream_of(disk, &name, || 1000).unwrap()) == stream, "another stream");
}

/// What happens in a generated log.
#[derive(Clone, Debug)]
enum Step {
    Write { name: usize, len: usize, expiry_seconds: u64 },
    WriteInSession { session: usize, name: usize, len: usize },
    Delete { name: usize },
    OpenSession,
    Time { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![Just(0_usize), 1..200_usize, 1000..5000_usize, Just(30_000)];
    let expiry = prop_oneof![3 => Just(0_u64), 1 => 1..5_u64, 1 => Just(u64::MAX)];
    prop_oneof![
        6 => (0..NAMES.len(), len(), expiry)
            .prop_map(|(name, len, expiry_seconds)| Step::Write { name, len, expiry_seconds }),
        4 => (0..3_usize, 0..NAMES.len(), len())
            .prop_map(|(session, name, len)| Step::WriteInSession { session, name, len }),
        2 => (0..NAMES.len()).prop_map(|name| Step::Delete { name }),
        2 => Just(Step::OpenSession),
        1 => (1..3000_u64).prop_map(|ms| Step::Time { ms }),
    ]
}

/// A node behind these steps; some contents are in a kept segment, some in the log.
fn node_behind(steps: &[Step], keep: u64) -> Node {
    let mut node = Node::new(1);
    let mut sessions: Vec<SessionId> = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let sequence = n as u64 + 1;
        match *step {
            Step::Write { name, len, expiry_seconds } => {
                node.write(NAMES[name], some_bytes(sequence, len), expiry_seconds);
            }
            Step::WriteInSession { session, name, len } => {
                let Some(session) = sessions.get(session).copied() else { continue };
                let command = write(NAMES[name], some_bytes(sequence, len), 0);
                let (sequence, acknowledged) = (Sequence(sequence), Sequence(0));
                let change = SessionCommand::Change { session, sequence, acknowledged, command };
                node.apply(EntryKind::Session, change.encode());
            }
            Step::Delete { name } => {
                let command = Command {
                    operation: Operation::Delete,
                    name: NAMES[name].into(),
                    contents: Bytes::new(),
                };
                node.apply(EntryKind::Command, command.encode());
            }
            Step::OpenSession => {
                let open = SessionCommand::Open { idle_ms: 5000, sessions_max: 2 };
                if let Applied::SessionOpened { session, .. } = node.apply(EntryKind::Session, open.encode())
                {
                    sessions.insert(0, session);
                }
            }
            Step::Time { ms } => {
                node.stamp = ClusterTimeMs(node.stamp.0 + ms);
                node.apply(EntryKind::Tick, Payload::default());
            }
        }
        if n == steps.len() / 2 {
            node.keep(|n| keep >> n & 1 == 1);
        }
    }
    node
}

/// Some of everything, in a few kilobytes.
fn small() -> Node {
    let steps = [
        Step::OpenSession,
        Step::Write { name: 1, len: 0, expiry_seconds: 0 },
        Step::Write { name: 2, len: 300, expiry_seconds: 9 },
        Step::WriteInSession { session: 0, name: 4, len: 50 },
        Step::WriteInSession { session: 0, name: 0, len: 5 },
        Step::Write { name: 6, len: 1, expiry_seconds: 0 },
        Step::OpenSession,
        Step::Write { name: 8, len: 700, expiry_seconds: 0 },
        Step::Delete { name: 6 },
    ];
    let node = node_behind(&steps, 0b101);
    assert_eq!((node.store.len(), node.store.sessions()), (4, 2));
    assert!(node.store.live_segments().count() > 1, "some contents are in a kept segment");
    node
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_received_is_what_was_sent(
        steps in prop::collection::vec(step(), 0..40),
        keep in any::<u64>(),
        chunk_bytes_max in prop_oneof![1..40_usize, 100..3000_usize, Just(1_000_000)],
        seed in any::<u64>(),
    ) {
        let mut sender = node_behind(&steps, keep);
        let checkpoint = sender.checkpoint();
        let mut random = fastrand::Rng::with_seed(seed);
        let chunks = stream_of(&sender.disk, &checkpoint, || random.usize(1..=chunk_bytes_max)).unwrap();
        let mut receiver = Node::new(2);
        let received = receive(&mut receiver, &chunks);
        let disk = receiver.disk.clone();
        assert_received(&mut sender, &disk, received, &bytes_of(&chunks));
    }
}

#[test]
fn all_of_it_is_on_the_disk_when_it_is_whole() {
    let mut sender = small();
    let checkpoint = sender.checkpoint();
    let chunks = stream_of(&sender.disk, &checkpoint, || 100).unwrap();
    let mut receiver = Node::new(2);
    let received = receive(&mut receiver, &chunks);
    let disk = receiver.disk.crash(Unflushed::Lost);
    assert_received(&mut sender, &disk, received, &bytes_of(&chunks));
}

#[test]
fn segments_are_no_longer_than_what_is_to_come() {
    let mut sender = small();
    let checkpoint = sender.checkpoint();
    let chunks = stream_of(&sender.disk, &checkpoint, || 5000).unwrap();
    let receiver = Node::new(2);
    let mut log = receiver.storage.log;
    let mut writer = StreamWriter::begin(&receiver.disk, None);
    let before: u64 = sizes(&receiver.disk);
    let received = feed(&mut writer, 0, &bytes_of(&chunks), || log.kept_header(1 << 30));
    assert_eq!(received.unwrap().expect("all was given").kept.len(), 1);
    assert!(sizes(&receiver.disk) - before < 20_000);
}

fn sizes(disk: &SimulatedDisk) -> u64 {
    disk.list().unwrap().iter().map(|name| disk.read(name).map_or(0, |bytes| bytes.len() as u64)).sum()
}

#[test]
fn files_may_go_while_they_are_sent() {
    let mut sender = small();
    let checkpoint = sender.checkpoint();
    let good = bytes_of(&stream_of(&sender.disk, &checkpoint, || 1000).unwrap());
    let mut reader = StreamReader::open(&sender.disk, &checkpoint, Some(&identity(1))).unwrap();
    for name in sender.disk.list().unwrap() {
        sender.disk.remove(&name).unwrap();
    }
    let chunk = reader.next_chunk(1 << 20).unwrap();
    assert!(chunk.is_last && chunk.bytes == good);
}

#[test]
fn real_disks_send_and_receive_as_simulated_ones() {
    let mut sender = small();
    let checkpoint_name = sender.checkpoint();
    let good = bytes_of(&stream_of(&sender.disk, &checkpoint_name, || 1000).unwrap());
    for is_read_only in [false, true] {
        let [from, to] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for name in sender.disk.list().unwrap() {
            std::fs::write(from.path().join(&name), sender.disk.read(&name).unwrap()).unwrap();
        }
        let disk = match is_read_only {
            false => FileDisk::lock(from.path()).unwrap().0,
            true => FileDisk::read_only(from.path()).unwrap(),
        };
        let mut reader = StreamReader::open(&disk, &checkpoint_name, Some(&identity(1))).unwrap();
        from.close().unwrap();
        let chunk = reader.next_chunk(1 << 20).unwrap();
        assert!(chunk.is_last && chunk.bytes == good);
        let (disk, _) = FileDisk::lock(to.path()).unwrap();
        let mut writer = StreamWriter::begin(&disk, Some(CLUSTER));
        let received = feed(&mut writer, 0, &chunk.bytes, headers()).unwrap().expect("all was given");
        let (head, mut store) = (received.head, received.store);
        let name = checkpoint(&disk, &mut store, &identity(2), head.entry);
        assert!(bytes_of(&stream_of(&disk, &name, || 1000).unwrap()) == good);
    }
}

#[test]
fn a_reader_can_be_given_to_another_thread() {
    fn assert_send<T: Send + 'static>() {}
    assert_send::<StreamReader<FileDisk>>();
    assert_send::<StreamWriter<FileDisk>>();
    assert_send::<Whole>();
}
