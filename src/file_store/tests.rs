use bytes::Bytes;
use fsd_wire::{Payload, Term};
use proptest::prelude::*;

use super::reference_model::ReferenceModel;
use super::*;

mod image;
mod sessions;

/// Makes entries that follow each other, and applies them.
#[derive(Default)]
struct Log {
    store: FileStore,
    stamp: ClusterTimeMs,
}

impl Log {
    fn at(stamp: u64) -> Self {
        Self { store: FileStore::new(), stamp: ClusterTimeMs(stamp) }
    }

    fn apply(&mut self, kind: EntryKind, payload: Payload) -> Applied {
        let index = self.store.last_applied().next();
        let entry = Entry { index, term: Term(1), stamp: self.stamp, kind, payload };
        self.store.apply(&entry, ContentsAt(1000 + index.0))
    }

    fn tick(&mut self, stamp: u64) {
        self.stamp = ClusterTimeMs(stamp);
        assert_eq!(self.apply(EntryKind::Tick, Payload::default()), Applied::Nothing);
    }

    fn change(&mut self, operation: Operation, name: &str, contents: &'static str) -> Applied {
        let command = Command { operation, name: name.into(), contents: Bytes::from(contents) };
        self.apply(EntryKind::Command, command.encode())
    }

    fn write(&mut self, name: &str, contents: &'static str, expiry_seconds: u64) -> Applied {
        self.change(Operation::Write { expiry_seconds }, name, contents)
    }

    fn cas(&mut self, name: &str, expected: u64, contents: &'static str) -> Applied {
        self.change(Operation::Cas { expected: Version(expected), expiry_seconds: 0 }, name, contents)
    }

    fn delete(&mut self, name: &str) -> Applied {
        self.change(Operation::Delete, name, "")
    }

    fn delete_if(&mut self, name: &str, expected: u64) -> Applied {
        self.change(Operation::DeleteIf { expected: Version(expected) }, name, "")
    }

    fn names(&self) -> Vec<&str> {
        self.store.list("", "", usize::MAX).files.into_iter().map(|(name, _)| name).collect()
    }
}

fn changed(version: u64) -> Applied {
    Applied::Changed { version: Version(version) }
}

fn mismatch(present: u64) -> Applied {
    Applied::Refused(Refusal::VersionMismatch { present: Version(present) })
}

fn conflict(with: &str) -> Applied {
    Applied::Refused(Refusal::Conflict { with: with.into() })
}

fn not_found() -> Applied {
    Applied::Refused(Refusal::NotFound)
}

#[test]
fn a_written_file_is_described_by_its_last_write() {
    let mut log = Log::at(500);
    assert_eq!(log.write("a", "hello", 3), changed(1));
    let file = *log.store.get("a").unwrap();
    let due = Some(ClusterTimeMs(3500));
    let contents_crc = crc32fast::hash(b"hello");
    let contents = ContentsAt(1001);
    assert_eq!(file, File { version: Version(1), size_bytes: 5, contents_crc, due, contents });
    assert_eq!(log.write("a", "", 0), changed(2));
    let file = *log.store.get("a").unwrap();
    assert_eq!((file.version, file.size_bytes, file.due), (Version(2), 0, None));
    assert_eq!(file.contents, ContentsAt(1002));
    assert_eq!((log.store.len(), log.store.revision()), (1, Version(2)));
    assert!(log.store.get("b").is_none() && log.store.get("").is_none());
}

#[test]
fn only_successful_changes_take_a_revision() {
    let mut log = Log::default();
    assert_eq!(log.apply(EntryKind::Genesis, Payload::default()), Applied::Nothing);
    assert_eq!(log.apply(EntryKind::Noop, Payload::default()), Applied::Nothing);
    assert_eq!(log.apply(EntryKind::Register, Payload::default()), Applied::Nothing);
    assert_eq!(log.write("a", "1", 1), changed(1));
    assert_eq!(log.write("a/b", "", 0), conflict("a"));
    assert_eq!(log.cas("a", 7, ""), mismatch(1));
    assert_eq!(log.delete("x"), not_found());
    assert_eq!(log.delete_if("a", 3), mismatch(1));
    log.tick(1000);
    assert!(log.store.is_empty(), "it expired");
    assert_eq!(log.store.revision(), Version(1));
    assert_eq!(log.store.last_applied(), LogIndex(9));
    assert_eq!(log.write("b", "", 0), changed(2));
}

#[test]
fn versions_grow_across_delete_and_making_again() {
    let mut log = Log::default();
    assert_eq!(log.write("a", "", 0), changed(1));
    assert_eq!(log.write("b", "", 0), changed(2));
    assert_eq!(log.delete("a"), changed(3));
    assert_eq!(log.write("a", "", 0), changed(4));
    assert_eq!(log.cas("a", 1, ""), mismatch(4));
    assert_eq!(log.cas("a", 4, ""), changed(5));
}

#[test]
fn cas_with_version_0_creates_and_only_creates() {
    let mut log = Log::default();
    assert_eq!(log.cas("a", 0, "1"), changed(1));
    assert_eq!(log.cas("a", 0, "2"), mismatch(1));
    assert_eq!(log.store.get("a").unwrap().size_bytes, 1);
    assert_eq!(log.cas("a/b", 0, ""), conflict("a"));
}

#[test]
fn cas_with_another_version_on_a_missing_name_is_a_mismatch_with_0() {
    let mut log = Log::default();
    assert_eq!(log.cas("lock", 3, ""), mismatch(0));
    assert_eq!(log.write("lock", "mine", 2), changed(1));
    log.stamp = ClusterTimeMs(2000);
    assert_eq!(log.cas("lock", 1, "still mine"), mismatch(0), "the lock has expired");
    // The version is judged before the name: what would be a conflict is told once the version is right.
    assert_eq!(log.write("d/x", "", 0), changed(2));
    assert_eq!(log.cas("d", 9, ""), mismatch(0));
    assert_eq!(log.cas("d", 0, ""), conflict("d/x"));
}

#[test]
fn delete_if_deletes_this_version_only() {
    let mut log = Log::default();
    assert_eq!(log.delete_if("a", 0), not_found());
    assert_eq!(log.delete_if("a", 1), not_found());
    assert_eq!(log.write("a", "", 5), changed(1));
    assert_eq!(log.delete_if("a", 0), mismatch(1));
    assert_eq!(log.delete_if("a", 1), changed(2));
    assert_eq!(log.delete_if("a", 1), not_found());
    assert_eq!(log.store.next_due(), None);
}

#[test]
fn a_name_is_a_file_or_a_directory() {
    let mut log = Log::default();
    assert_eq!(log.write("a/b/c", "", 0), changed(1));
    assert_eq!(log.write("a", "", 0), conflict("a/b/c"));
    assert_eq!(log.write("a/b", "", 0), conflict("a/b/c"));
    assert_eq!(log.write("a/b/c/d/e", "", 0), conflict("a/b/c"));
    assert_eq!(log.write("a/b/c", "again", 0), changed(2));
    // Names that only look alike; `-` sorts before the slash and `0` behind it.
    for (name, version) in [("a-", 3), ("a0", 4), ("a/b-", 5), ("a/b0", 6), ("a/bc", 7), ("aa/b", 8)] {
        assert_eq!(log.write(name, "", 0), changed(version), "{name}");
    }
    assert_eq!(log.write("a/b", "", 0), conflict("a/b/c"), "with a/b- between the two");
    assert_eq!(log.delete("a/b/c"), changed(9));
    assert_eq!(log.write("a/b", "", 0), changed(10), "the directory is gone with its last file");
    assert_eq!(log.names(), ["a-", "a/b", "a/b-", "a/b0", "a/bc", "a0", "aa/b"]);
}

#[test]
fn an_expired_file_is_in_nobodys_way() {
    let mut log = Log::default();
    assert_eq!(log.write("a", "", 1), changed(1));
    log.stamp = ClusterTimeMs(999);
    assert_eq!(log.write("a/b", "", 0), conflict("a"));
    log.stamp = ClusterTimeMs(1000);
    assert_eq!(log.write("a/b", "", 0), changed(2));
    assert_eq!(log.names(), ["a/b"]);
}

#[test]
fn files_go_at_the_stamp_at_which_they_are_due() {
    let mut log = Log::at(10);
    log.write("b", "", 1);
    log.write("a", "", 1);
    log.write("c", "", 2);
    log.write("d", "", 0);
    assert_eq!(log.store.next_due(), Some(ClusterTimeMs(1010)));
    log.tick(1009);
    assert_eq!(log.names(), ["a", "b", "c", "d"]);
    log.tick(1010);
    assert_eq!(log.names(), ["c", "d"]);
    assert_eq!(log.store.next_due(), Some(ClusterTimeMs(2010)));
    log.tick(50_000);
    assert_eq!(log.names(), ["d"]);
    assert_eq!(log.store.next_due(), None);
}

#[test]
fn the_last_write_decides_on_the_expiry() {
    let mut log = Log::default();
    log.write("longer", "", 1);
    log.write("shorter", "", 9);
    log.write("none", "", 1);
    log.write("some", "", 0);
    log.stamp = ClusterTimeMs(500);
    log.write("longer", "", 1);
    log.write("shorter", "", 1);
    assert_eq!(log.cas("none", 3, ""), changed(7));
    assert_eq!(
        log.change(Operation::Cas { expected: Version(4), expiry_seconds: 1 }, "some", ""),
        changed(8)
    );
    log.tick(1499);
    assert_eq!(log.names(), ["longer", "none", "shorter", "some"]);
    log.tick(1500);
    assert_eq!(log.names(), ["none"]);
    assert_eq!(log.store.next_due(), None);
}

#[test]
fn a_refused_write_leaves_the_expiry_alone() {
    let mut log = Log::default();
    log.write("a", "", 1);
    assert_eq!(log.cas("a", 9, ""), mismatch(1));
    assert_eq!(log.store.next_due(), Some(ClusterTimeMs(1000)));
}

#[test]
fn an_expiry_beyond_the_end_of_time_is_at_its_end() {
    let mut log = Log::at(5);
    log.write("a", "", u64::MAX);
    log.write("b", "", u64::MAX / 1000);
    log.write("c", "", u64::MAX / 1000 - 1);
    let due = |log: &Log, name: &str| log.store.get(name).unwrap().due.unwrap().0;
    assert_eq!(due(&log, "a"), u64::MAX);
    assert_eq!(due(&log, "b"), (u64::MAX / 1000 * 1000).saturating_add(5));
    assert_eq!(due(&log, "c"), (u64::MAX / 1000 - 1) * 1000 + 5);
    log.tick(u64::MAX - 1);
    assert_eq!(log.names(), ["a"]);
}

#[test]
fn the_remaining_seconds_are_rounded_up() {
    let file = |due: Option<u64>| File {
        version: Version(1),
        size_bytes: 0,
        contents_crc: 0,
        due: due.map(ClusterTimeMs),
        contents: ContentsAt(0),
    };
    let left = |due, now| file(due).expiry_seconds_left(ClusterTimeMs(now));
    assert_eq!(left(None, 7), 0);
    assert_eq!(left(Some(5000), 0), 5);
    assert_eq!(left(Some(5000), 1), 5);
    assert_eq!(left(Some(5000), 999), 5);
    assert_eq!(left(Some(5000), 1000), 4);
    assert_eq!(left(Some(5000), 4999), 1);
    assert_eq!(left(Some(5000), 5000), 1, "0 would say that it stays");
    assert_eq!(left(Some(5000), 9000), 1);
    assert_eq!(left(Some(u64::MAX), 0), u64::MAX / 1000 + 1);
}

#[test]
fn lists_come_in_byte_order_with_prefix_and_pages() {
    let mut log = Log::default();
    for name in ["b", "a/2", "a/10", "a-", "é", "a/1", "Z"] {
        log.write(name, "", 0);
    }
    let page = |prefix: &str, after: &str, limit| {
        let page = log.store.list(prefix, after, limit);
        (page.files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page("", "", 100), (vec!["Z", "a-", "a/1", "a/10", "a/2", "b", "é"], false));
    assert!(!page("", "", 7).1);
    assert!(page("", "", 6).1);
    assert_eq!(page("a/", "", 2), (vec!["a/1", "a/10"], true));
    assert_eq!(page("a/", "a/10", 2), (vec!["a/2"], false));
    assert_eq!(page("a/1", "", 9), (vec!["a/1", "a/10"], false), "a prefix need not end at a slash");
    assert_eq!(page("a/", "a/11", 9), (vec!["a/2"], false), "the name to go on behind may be gone");
    assert_eq!(page("a/", "Z", 9), (vec!["a/1", "a/10", "a/2"], false));
    assert_eq!(page("a/", "b", 9), (vec![], false));
    assert_eq!(page("a/", "", 0), (vec![], true));
    assert_eq!(page("x", "", 0), (vec![], false));
}

#[test]
fn validate_refuses_what_apply_relies_on() {
    let command = |name: &str, bytes: usize| Command {
        operation: Operation::Write { expiry_seconds: 0 },
        name: name.into(),
        contents: vec![b'x'; bytes].into(),
    };
    assert_eq!(validate(&command("a", 10), 10), Ok(()));
    assert_eq!(validate(&command("a", 11), 10), Err(Refusal::TooLarge { max_bytes: 10 }));
    assert_eq!(
        validate(&command("a//b", 0), 10),
        Err(Refusal::InvalidName { reason: "it has an empty part".into() })
    );
    let delete = Command { operation: Operation::Delete, name: String::new(), contents: Bytes::new() };
    assert!(matches!(validate(&delete, 10), Err(Refusal::InvalidName { .. })));
}

/// What a broken log must meet: apply ends the process (here: the test) rather than differ between nodes.
mod broken_logs {
    use super::*;

    fn entry(index: u64, stamp: u64, payload: Payload) -> Entry {
        Entry {
            index: LogIndex(index),
            term: Term(1),
            stamp: ClusterTimeMs(stamp),
            kind: EntryKind::Command,
            payload,
        }
    }

    fn write(name: &str) -> Payload {
        let operation = Operation::Write { expiry_seconds: 0 };
        Command { operation, name: name.into(), contents: Bytes::new() }.encode()
    }

    #[test]
    #[should_panic(expected = "entry 2 applied after 0")]
    fn a_gap() {
        FileStore::new().apply(&entry(2, 0, write("a")), ContentsAt(0));
    }

    #[test]
    #[should_panic(expected = "entry 1 applied after 1")]
    fn an_entry_applied_twice() {
        let mut store = FileStore::new();
        store.apply(&entry(1, 0, write("a")), ContentsAt(0));
        store.apply(&entry(1, 0, write("a")), ContentsAt(0));
    }

    #[test]
    #[should_panic(expected = "the stamp of entry 2 goes back from 9 to 8")]
    fn a_stamp_that_goes_back() {
        let mut store = FileStore::new();
        store.apply(&entry(1, 9, write("a")), ContentsAt(0));
        store.apply(&entry(2, 8, write("a")), ContentsAt(0));
    }

    #[test]
    #[should_panic(expected = "the command of entry 1: invalid name: it begins or ends with /")]
    fn an_invalid_name() {
        FileStore::new().apply(&entry(1, 0, write("/etc")), ContentsAt(0));
    }

    #[test]
    #[should_panic(expected = "the command of entry 1: a field of 8 bytes where 2 are left")]
    fn a_command_cut_short() {
        FileStore::new().apply(&entry(1, 0, Bytes::from_static(b"abc").into()), ContentsAt(0));
    }
}

/// A step of a generated log: how far time moves, and what happens then.
#[derive(Clone, Debug)]
struct Step {
    advance_ms: u64,
    change: Option<(u8, &'static str, u64, u64, u8)>,
}

/// Few names, all in each other's way or nearly so.
const NAMES: [&str; 9] = ["a", "a-", "a/a", "a/a/a", "a/b", "a0", "b", "b/a", "b/a/b/a"];

fn step() -> impl Strategy<Value = Step> {
    // Times in quarters and halves of seconds meet expiries in whole seconds exactly, and just miss them.
    let advance = prop_oneof![
        4 => Just(0u64),
        2 => Just(500),
        1 => Just(499),
        1 => Just(501),
        1 => Just(1000),
        1 => Just(2999),
    ];
    let expiry = prop_oneof![
        3 => Just(0u64),
        6 => 1u64..4,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX / 1000),
    ];
    let name = prop::sample::select(&NAMES[..]);
    // The version that a cas expects: the present one, 0, the one before, or any.
    let change = (0u8..8, name, expiry, 0u64..20, 0u8..4);
    (advance, prop::option::weighted(0.9, change))
        .prop_map(|(advance_ms, change)| Step { advance_ms, change })
}

fn command_of(model: &ReferenceModel, change: (u8, &'static str, u64, u64, u8), index: u64) -> Command {
    let (operation, name, expiry_seconds, any, choice) = change;
    let present = model.get(name).map_or(0, |file| file.version.0);
    let expected = Version([present, 0, present.saturating_sub(1), any][usize::from(choice)]);
    let (operation, contents) = match operation {
        0..4 => (Operation::Write { expiry_seconds }, Bytes::from(index.to_string())),
        4 | 5 => (Operation::Cas { expected, expiry_seconds }, Bytes::from(vec![b'x'; any as usize])),
        6 => (Operation::Delete, Bytes::new()),
        _ => (Operation::DeleteIf { expected }, Bytes::new()),
    };
    Command { operation, name: name.into(), contents }
}

fn assert_same(store: &FileStore, model: &ReferenceModel) {
    let page = store.list("", "", usize::MAX);
    assert!(!page.more);
    assert_eq!(page.files.len(), model.files().len());
    for ((name, file), expected) in page.files.into_iter().zip(model.files()) {
        assert_eq!(name, expected.name);
        assert_eq!((file.version, file.due), (expected.version, expected.due), "{name}");
        assert_eq!(file.size_bytes as usize, expected.contents.len(), "{name}");
        assert_eq!(file.contents_crc, crc32fast::hash(&expected.contents), "{name}");
        assert_eq!(store.get(name), Some(file));
    }
    assert_eq!(store.len(), model.files().len());
    assert_eq!(store.next_due(), model.next_due());
    assert_eq!(store.revision(), model.revision());
    // The two maps tell the same: nothing that is gone is still due.
    assert_eq!(store.due.len(), model.files().iter().filter(|file| file.due.is_some()).count());
    assert_eq!(store.sessions(), model.sessions().len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut store = FileStore::new();
        let mut twin = FileStore::new();
        let mut model = ReferenceModel::new();
        let mut stamp = 0;
        let mut highest = 0;
        for (at, step) in steps.into_iter().enumerate() {
            stamp += step.advance_ms;
            let index = at as u64 + 1;
            let mut entry = Entry {
                index: LogIndex(index),
                term: Term(1),
                stamp: ClusterTimeMs(stamp),
                kind: EntryKind::Tick,
                payload: Payload::default(),
            };
            if let Some(change) = step.change {
                entry.kind = EntryKind::Command;
                entry.payload = command_of(&model, change, index).encode();
            }
            let expected = model.apply(&entry);
            let applied = store.apply(&entry, ContentsAt(index));
            prop_assert_eq!(&applied, &expected);
            if let Applied::Changed { version } = applied {
                prop_assert!(version.0 > highest, "versions are unique and grow");
                highest = version.0;
            }
            assert_same(&store, &model);
            // Where the contents lie, and in how many pieces the entry came, is each node's own affair.
            entry.payload = entry.payload.to_bytes().into();
            prop_assert_eq!(&twin.apply(&entry, ContentsAt(7 * index)), &expected);
            prop_assert_eq!(twin.digest(), store.digest());
        }
    }

    #[test]
    fn pages_resume_where_they_ended(
        names in prop::collection::btree_set("[ab]{1,4}", 0..30),
        prefix in "[ab]{0,2}",
        limit in 1usize..5,
    ) {
        let mut log = Log::default();
        for name in &names {
            log.write(name, "", 0);
        }
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().cloned().unwrap_or_default();
            let page = log.store.list(&prefix, &after, limit);
            prop_assert!(page.files.len() <= limit);
            prop_assert!(page.files.len() == limit || !page.more);
            found.extend(page.files.iter().map(|(name, _)| (*name).to_string()));
            if !page.more {
                break;
            }
            prop_assert!(found.len() < names.len(), "a page goes on behind the last one");
        }
        let expected: Vec<_> = names.iter().filter(|name| name.starts_with(&prefix)).cloned().collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn the_digest_tells_any_difference() {
    let digest = |steps: &dyn Fn(&mut Log)| {
        let mut log = Log::at(100);
        steps(&mut log);
        log.store.digest()
    };
    let digests = [
        digest(&|_| {}),
        digest(&|log| log.tick(100)),
        digest(&|log| log.tick(101)),
        digest(&|log| drop(log.write("a", "1", 0))),
        digest(&|log| drop(log.write("b", "1", 0))),
        digest(&|log| drop(log.write("a", "2", 0))),
        digest(&|log| drop(log.write("a", "", 0))),
        digest(&|log| drop(log.write("a", "1", 1))),
        digest(&|log| drop(log.write("a", "1", 2))),
        digest(&|log| drop((log.write("a", "1", 0), log.tick(100)))),
        digest(&|log| drop((log.write("a", "1", 0), log.write("a", "1", 0)))),
        digest(&|log| drop((log.write("a", "1", 0), log.delete("a")))),
        digest(&|log| drop((log.write("a", "1", 0), log.write("b", "1", 0)))),
        digest(&|log| drop((log.write("b", "1", 0), log.write("a", "1", 0)))),
    ];
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "{at} equals an earlier one: {digests:?}");
    }
}
