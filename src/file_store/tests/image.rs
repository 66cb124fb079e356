//! Images of the store: as it was, whatever happens meanwhile; and what is no image is refused.

use std::collections::BTreeMap;

use fsd_wire::{ENTRY_HEADER_BYTES, Sequence};

use super::sessions::{Action, action, entry_of};
use super::*;

/// All items of an image, in slices of this size.
fn image_of(store: &mut FileStore, slice_bytes: usize) -> (ImageHead, Vec<u8>) {
    let head = store.begin_image();
    let mut items = Vec::new();
    while store.image_slice(slice_bytes, &mut items) {}
    (head, items)
}

fn restored(head: &ImageHead, items: &[u8]) -> Result<FileStore, ImageError> {
    let mut restoring = FileStore::restore(head);
    restoring.add(items)?;
    restoring.finish()
}

/// What each segment must have of the store's files.
fn recounted(store: &FileStore) -> (Live, Vec<(u32, Live)>) {
    let mut segments: BTreeMap<u32, Live> = BTreeMap::new();
    let mut total = Live::default();
    for (name, file) in store.list("", "", usize::MAX).files {
        let bytes = u64::from(file.size_bytes) + name.len() as u64 + RECORD_OVERHEAD_BYTES;
        let bytes = bytes.next_multiple_of(8);
        for live in [&mut total, segments.entry((file.contents.0 >> 32) as u32).or_default()] {
            live.files += 1;
            live.bytes += bytes;
        }
    }
    (total, segments.into_iter().collect())
}

fn assert_live_as_recounted(store: &FileStore) {
    let (total, segments) = recounted(store);
    assert_eq!(store.live_total(), total);
    assert_eq!(store.live_segments().collect::<Vec<_>>(), segments);
    for (segment, live) in segments {
        assert_eq!(store.live(segment), live);
    }
    assert_eq!(store.live(u32::MAX), Live::default());
}

/// Equal in all that a store has, where its contents lie included.
fn assert_equal(found: &FileStore, expected: &FileStore) {
    assert_eq!(found.list("", "", usize::MAX), expected.list("", "", usize::MAX));
    assert_eq!(found.digest(), expected.digest());
    assert_eq!((&found.due, found.next_due()), (&expected.due, expected.next_due()));
    assert_eq!(found.sessions.replies_bytes, expected.sessions.replies_bytes);
    assert_eq!(found.image_head(), expected.image_head());
    assert_live_as_recounted(found);
}

/// What happens to the image in a step of a generated log.
#[derive(Clone, Debug)]
enum Imaging {
    Slice { bytes_max: usize },
    Drop,
    Nothing,
}

fn imaging() -> impl Strategy<Value = Imaging> {
    prop_oneof![
        8 => (1usize..150).prop_map(|bytes_max| Imaging::Slice { bytes_max }),
        1 => Just(Imaging::Drop),
        6 => Just(Imaging::Nothing),
    ]
}

/// An image that is being taken, and what it must become.
struct Taken {
    head: ImageHead,
    items: Vec<u8>,
    as_of: FileStore,
    entries_since: Vec<(Entry, ContentsAt)>,
}

impl Taken {
    /// The image has ended: it is the store as it was, and the log leads from there to what there is now.
    fn check(self) {
        assert_eq!(self.items.len() as u64, self.head.items_bytes);
        let mut found = restored(&self.head, &self.items).unwrap();
        assert_equal(&found, &self.as_of);
        let mut expected = self.as_of;
        for (entry, at) in &self.entries_since {
            assert_eq!(found.apply(entry, *at), expected.apply(entry, *at));
        }
        assert_equal(&found, &expected);
    }
}

/// Runs a generated log; images begin whenever none is being taken.
fn run(steps: Vec<(Step, Action, Imaging, Option<&'static str>)>) {
    let (mut store, mut model) = (FileStore::new(), ReferenceModel::new());
    let (mut opened, mut stamp) = (Vec::new(), 0);
    let mut taken: Option<Taken> = None;
    for (at, (step, action, imaging, moved)) in steps.into_iter().enumerate() {
        stamp += step.advance_ms;
        let (index, stamp) = (LogIndex(at as u64 + 1), ClusterTimeMs(stamp));
        let (kind, payload) = entry_of(&action, &opened, &model, index.0);
        let entry = Entry { index, term: Term(1), stamp, kind, payload };
        let contents = ContentsAt((index.0 / 7) << 32 | index.0);
        let applied = store.apply(&entry, contents);
        assert_eq!(applied, model.apply(&entry));
        if let Applied::SessionOpened { session, .. } = applied {
            opened.push(session);
        }
        if let Some(taken) = &mut taken {
            taken.entries_since.push((entry, contents));
        }
        if let Some(file) = moved.and_then(|name| store.get(name)).copied() {
            let name = moved.expect("it is there");
            let to = ContentsAt(1000 << 32 | index.0);
            assert!(!store.move_contents(name, to, file.contents), "they are not there");
            assert!(store.move_contents(name, file.contents, to));
            assert_eq!(store.get(name), Some(&File { contents: to, ..file }));
        }
        assert_same(&store, &model);
        assert_live_as_recounted(&store);
        match (imaging, &mut taken) {
            (Imaging::Nothing, _) | (Imaging::Drop, None) => {}
            (Imaging::Drop, Some(_)) => {
                store.drop_image();
                taken = None;
            }
            (Imaging::Slice { .. }, None) => {
                let as_of = store.clone();
                let head = store.begin_image();
                taken = Some(Taken { head, items: Vec::new(), as_of, entries_since: Vec::new() });
            }
            (Imaging::Slice { bytes_max }, Some(image)) => {
                if !store.image_slice(bytes_max, &mut image.items) {
                    taken.take().expect("it is there").check();
                }
            }
        }
        assert_eq!(store.is_taking_image(), taken.is_some());
    }
}

fn some_steps() -> impl Strategy<Value = Vec<(Step, Action, Imaging, Option<&'static str>)>> {
    let moved = prop::option::weighted(0.3, prop::sample::select(&NAMES[..]));
    prop::collection::vec((step(), action(), imaging(), moved), 1..160)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_image_is_the_store_as_it_was_when_it_was_begun(steps in some_steps()) {
        run(steps);
    }

    #[test]
    fn what_is_changed_in_an_image_is_refused_or_another_image(
        steps in prop::collection::vec((step(), action()), 1..60),
        cut_at in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut store = store_of(steps);
        let (head, items) = image_of(&mut store, 100);
        let mut whole = FileStore::restore(&head);
        let cut_at = cut_at.index(items.len() + 1);
        whole.add(&items[..cut_at]).unwrap();
        whole.add(&items[cut_at..]).unwrap();
        assert_equal(&whole.finish().unwrap(), &store);
        if cut_at < items.len() {
            prop_assert!(restored(&head, &items[..cut_at]).is_err());
        }
        let mut changed = items.clone();
        for (at, byte) in changes {
            if let Some(there) = changed.get_mut(at.index(items.len().max(1))) {
                *there = byte;
            }
        }
        if let Ok(mut found) = restored(&head, &changed) {
            prop_assert_eq!(image_of(&mut found, 100), (head, changed));
            assert_live_as_recounted(&found);
        }
    }
}

fn store_of(steps: Vec<(Step, Action)>) -> FileStore {
    let (mut store, mut model) = (FileStore::new(), ReferenceModel::new());
    let (mut opened, mut stamp) = (Vec::new(), 0);
    for (at, (step, action)) in steps.into_iter().enumerate() {
        stamp += step.advance_ms;
        let (index, stamp) = (LogIndex(at as u64 + 1), ClusterTimeMs(stamp));
        let (kind, payload) = entry_of(&action, &opened, &model, index.0);
        let entry = Entry { index, term: Term(1), stamp, kind, payload };
        model.apply(&entry);
        if let Applied::SessionOpened { session, .. } = store.apply(&entry, ContentsAt(index.0)) {
            opened.push(session);
        }
    }
    store
}

/// A store in which the names are in each other's way only nearly, and a head that fits changes of it.
fn log_with(names: &[&str]) -> Log {
    let mut log = Log::at(100);
    for name in names {
        assert!(matches!(log.write(name, "contents", 7), Applied::Changed { .. }), "{name}");
    }
    log
}

#[test]
fn changes_ahead_of_the_image_are_not_in_it() {
    let mut log = log_with(&["a", "b", "c", "d"]);
    let as_of = log.store.clone();
    let head = log.store.begin_image();
    let mut items = Vec::new();
    assert!(log.store.image_slice(1, &mut items), "a, and no more");
    log.write("a", "behind the image", 0);
    log.write("b", "once", 0);
    log.write("b", "twice", 0);
    log.delete("c");
    log.write("cc", "new, and gone before the image comes there", 0);
    log.delete("cc");
    log.write("e", "new", 0);
    log.tick(90_000);
    assert_eq!(log.names(), ["a", "b", "e"], "d is gone by its expiry");
    while log.store.image_slice(1, &mut items) {}
    assert_equal(&restored(&head, &items).unwrap(), &as_of);
    // The next one is as of its own beginning.
    let now = log.store.clone();
    let (head, items) = image_of(&mut log.store, 1);
    assert_equal(&restored(&head, &items).unwrap(), &now);
}

#[test]
fn an_image_of_nothing_is_one() {
    let mut store = FileStore::new();
    let (head, items) = image_of(&mut store, 1);
    assert!(items.is_empty());
    assert_equal(&restored(&head, &items).unwrap(), &store);
}

#[test]
#[should_panic(expected = "an image is being taken already")]
fn there_is_one_image_at_a_time() {
    let mut store = FileStore::new();
    store.begin_image();
    store.begin_image();
}

#[test]
fn what_is_ahead_and_new_ends_a_slice_too() {
    let mut log = log_with(&["z"]);
    log.store.begin_image();
    let names: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
    for name in &names {
        log.write(name, "", 0);
    }
    let mut items = Vec::new();
    let mut slices = 1;
    while log.store.image_slice(320, &mut items) {
        slices += 1;
    }
    assert_eq!(slices, 11, "ten names a slice, then the file");
}

/// Byte tables, by hand.
#[test]
fn the_items_are_as_the_tables_say() {
    let mut log = Log::at(500);
    log.write("a", "hello", 3);
    let session = log.open();
    log.numbered(session, 3, 1);
    let conflict = log.in_session(session, [4, 1], Operation::Write { expiry_seconds: 0 }, "a/b");
    assert_eq!(conflict, super::conflict("a"));
    let (head, items) = image_of(&mut log.store, 10_000);
    let (last_applied, cluster_time, revision) = (LogIndex(4), ClusterTimeMs(500), Version(2));
    let items_bytes = items.len() as u64;
    assert_eq!(head, ImageHead { last_applied, cluster_time, revision, files: 2, sessions: 1, items_bytes });
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let mut expected = vec![1, 0];
    expected.extend(numbers(&[1]));
    expected.extend(5u32.to_le_bytes());
    expected.extend(crc32fast::hash(b"hello").to_le_bytes());
    expected.extend(numbers(&[3500, 1001]));
    expected.extend(b"a");
    expected.extend([2, 0]);
    expected.extend(numbers(&[2]));
    expected.extend(8u32.to_le_bytes());
    expected.extend(crc32fast::hash(b"contents").to_le_bytes());
    expected.extend(numbers(&[0, 1003]));
    expected.extend(b"f3");
    expected.extend(numbers(&[2, 1000, 1500, 4, 1]));
    expected.extend(2u32.to_le_bytes());
    expected.extend(numbers(&[3]));
    expected.push(1);
    expected.extend(numbers(&[2]));
    expected.extend([0, 0]);
    expected.extend(numbers(&[4]));
    expected.push(4);
    expected.extend(numbers(&[0]));
    expected.extend(*b"\x01\0a");
    assert_eq!(items, expected);
}

/// The items of files of these names, whether a store could have them or not.
fn files_of(names: &[&str]) -> Result<FileStore, ImageError> {
    let mut items = Vec::new();
    for name in names {
        items.extend((name.len() as u16).to_le_bytes());
        items.extend(1u64.to_le_bytes());
        items.extend([0; 24]);
        items.extend(name.as_bytes());
    }
    let head = ImageHead {
        last_applied: LogIndex(1),
        cluster_time: ClusterTimeMs(0),
        revision: Version(1),
        files: names.len() as u64,
        sessions: 0,
        items_bytes: items.len() as u64,
    };
    restored(&head, &items)
}

#[test]
fn names_out_of_order_and_in_each_others_way_are_refused() {
    let refusal = |names: &[&str]| files_of(names).expect_err("refused").what;
    let good = ["a", "a-", "a-b/c", "a-b/d", "a0", "aa/b/c", "aa/bb", "aa0", "b-/c/d", "b/a", "b/a-/c", "b0"];
    assert_eq!(files_of(&good).unwrap().len(), good.len());
    assert_eq!(refusal(&["a", "a"]), "a out of its order");
    assert_eq!(refusal(&["a", "b", "a/b"]), "a/b out of its order");
    assert_eq!(refusal(&["ab", "a"]), "a out of its order");
    assert_eq!(refusal(&["a", "a/b"]), "a/b below a file, a");
    assert_eq!(refusal(&["a", "a-", "a-b", "a.", "a/b"]), "a/b below a file, a");
    assert_eq!(refusal(&["a/b", "a/b-/c", "a/b/c/d"]), "a/b/c/d below a file, a/b");
    assert!(refusal(&["", "a"]).ends_with("out of its order"));
    assert_eq!(refusal(&["a//b"]), "invalid name: it has an empty part");
}

#[test]
fn a_head_that_tells_otherwise_is_refused() {
    let mut log = log_with(&["a", "b"]);
    log.open();
    let (head, items) = image_of(&mut log.store, 1000);
    let is_refused = |change: &dyn Fn(&mut ImageHead)| {
        let mut head = head;
        change(&mut head);
        restored(&head, &items).is_err()
    };
    assert!(!is_refused(&|_| {}));
    assert!(is_refused(&|head| head.files = 1));
    assert!(is_refused(&|head| head.files = u64::MAX));
    assert!(is_refused(&|head| head.sessions = 0));
    assert!(is_refused(&|head| head.items_bytes += 1));
    assert!(is_refused(&|head| head.revision = Version(1)));
    assert!(is_refused(&|head| head.revision = Version(4)), "more than entries");
    assert!(is_refused(&|head| head.last_applied = LogIndex(2)), "before a session was opened");
    assert!(is_refused(&|head| head.cluster_time = ClusterTimeMs(7101)), "when files were due");
}

#[test]
fn the_overhead_of_a_record_is_what_the_formats_say() {
    let operation = Operation::Write { expiry_seconds: 0 };
    let command = Command { operation, name: "name".into(), contents: Bytes::from_static(b"contents") };
    let (session, sequence) = (SessionId(1), Sequence(1));
    let change =
        SessionCommand::Change { session, sequence, acknowledged: Sequence(0), command: command.encode() };
    let record_bytes = 24 + ENTRY_HEADER_BYTES + change.encode().len();
    assert_eq!(record_bytes as u64, RECORD_OVERHEAD_BYTES + 4 + 8);
}
