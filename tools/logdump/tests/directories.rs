//! Whole directories with checkpoints and kept segments: shown, and verified to the last byte.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fsd::file_store::ContentsAt;
use fsd::storage::segment::{self, SegmentId};
use fsd::storage::{CheckpointHead, LogBase};
use fsd_wire::EntryKind;
use serde_json::Value;
use support::{Node, complaints, flip, json_lines, lines, logdump, snapshot, stdout, write};

/// A node with files in a segment that the log has left, in a kept one and in the log, two checkpoints, and a log that
/// begins behind the older one. Each write of a kilobyte; seven to a segment.
fn node() -> Node {
    let mut node = Node::new(3);
    for n in 0..10 {
        node.write(&format!("old{n}"), &[b'a' + n; 900]);
    }
    node.open_session();
    node.apply(EntryKind::Command, write("dir/soon", b"gone some day", 3600));
    for n in 0..8 {
        node.write(&format!("old{n}"), &[b'A' + n; 900]);
    }
    node.keep(&["old8", "dir/soon"]);
    node.checkpoint();
    node.write("new", b"new contents");
    node.checkpoint();
    node.write("newest", b"newest contents");
    node
}

/// The names of the node's files of a kind.
fn names(node: &Node, head: &str) -> Vec<String> {
    let items = node.directory.path().read_dir().unwrap();
    let names = items.map(|item| item.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(head)).collect();
    names.sort();
    names
}

fn heads(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with("checkpoint ")).collect()
}

#[test]
fn checkpoints_are_shown_with_what_they_are_of() {
    let node = node();
    let [older, newer] = &names(&node, "checkpoint-")[..] else { panic!("two checkpoints") };
    let found = lines(&[node.path()]);
    let [first, second] = &heads(&found)[..] else { panic!("{found:?}") };
    let expected = "older entry=21 term=1 stamp_ms=1021 files=11 sessions=1 revision=19 segments=";
    assert!(first.starts_with(&format!("checkpoint {older}: {expected}")), "{first}");
    let expected = "newest entry=22 term=1 stamp_ms=1022 files=12 sessions=1 revision=20 segments=";
    assert!(second.starts_with(&format!("checkpoint {newer}: {expected}")), "{second}");
    let bytes = std::fs::metadata(node.file(newer)).unwrap().len();
    assert!(second.contains(&format!(" bytes={bytes} log_goes_on_at=")), "{second}");
    assert_eq!(heads(&lines(&["--stat", node.path()])), [*first, *second]);

    let found = json_lines(&["--json", node.path()]);
    let head = found.iter().rfind(|line| line["checkpoint"].is_string()).unwrap();
    assert_eq!((&head["checkpoint"], &head["used"]), (&newer.as_str().into(), &"newest".into()));
    let of = ["entry", "term", "stamp_ms", "files", "sessions", "revision", "bytes"];
    let expected = [22, 1, 1022, 12, 1, 20, bytes].map(Value::from);
    assert_eq!(of.map(|key| head[key].clone()), expected);
    let segments: Vec<u64> =
        head["segments"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let listed = node.store.live_segments().map(|(id, _)| u64::from(id)).collect::<Vec<_>>();
    assert_eq!(segments, listed);
}

#[test]
fn files_of_checkpoints_are_shown_when_asked_for() {
    let node = node();
    let (kept, offset) = node.place("dir/soon");
    let place = format!("{}:{offset}", u64::from_str_radix(&kept[8..24], 16).unwrap());
    let newer = node.file(&names(&node, "checkpoint-")[1]);
    // A single checkpoint is shown as those of a directory are.
    for arguments in [vec!["--files", node.path()], vec!["--files", newer.to_str().unwrap()]] {
        let found = lines(&arguments);
        let at = found.iter().rposition(|line| line.starts_with("checkpoint ")).unwrap();
        assert!(found[at + 1].starts_with("    file dir/soon version="), "{found:?}");
        let soon = &found[at + 1];
        assert!(soon.contains(" size=13 expires_at_ms=3601013 crc="), "{soon}");
        assert!(soon.ends_with(&format!(" contents_at={place}")), "{soon}");
        assert!(found[at + 2].starts_with("    file new version=20 size=12 expires_at_ms=- "), "{found:?}");
        assert_eq!(found[at..].iter().filter(|line| line.starts_with("    file ")).count(), 12);
    }
    let found = json_lines(&["--files", "--json", newer.to_str().unwrap()]);
    assert_eq!(found.len(), 13);
    assert_eq!((&found[0]["used"], &found[0]["files"]), (&"alone".into(), &12.into()));
    let crc = format!("{:08x}", node.store.get("dir/soon").unwrap().contents_crc);
    assert_eq!((&found[1]["file_name"], &found[1]["contents_crc"]), (&"dir/soon".into(), &crc.into()));
    assert_eq!((&found[1]["contents_at"], &found[1]["expires_at_ms"]), (&place.into(), &3_601_013.into()));
    assert!(
        lines(&[newer.to_str().unwrap()]).len() == 1
            && lines(&["--stat", newer.to_str().unwrap()]).len() == 1
    );
}

#[test]
fn records_besides_the_log_are_shown_as_what_they_are() {
    let node = node();
    let (kept, offset) = node.place("old8");
    let (past, _) = node.place("old9");
    let id = |name: &str| u64::from_str_radix(&name[8..24], 16).unwrap();
    let found = lines(&[node.path()]);
    let bytes = std::fs::metadata(node.file(&kept)).unwrap().len();
    let head = format!("contents {kept}: {bytes} bytes, 2 records, a kept segment, no part of the log");
    let at = found.iter().position(|line| *line == head).unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(found[at + 1], format!("kept {} {offset} 10 1 command 923 write old8", id(&kept)));
    assert!(found[at + 2].starts_with(&format!("kept {} ", id(&kept))), "{found:?}");
    assert!(found[at + 2].ends_with(" 13 1 command 40 write dir/soon expiry_seconds=3600"), "{found:?}");
    let past_head = format!("contents {past}: 8192 bytes, ");
    let at = found.iter().position(|line| line.starts_with(&past_head)).unwrap();
    assert!(
        found[at].ends_with(" records, no part of the log any more") && found[at + 1].starts_with("past ")
    );
    // Lines that begin with a number, and objects with an index, are the log's entries, as ever.
    let of_log: Vec<&String> =
        found.iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(of_log.len(), 2, "{of_log:?}");
    assert!(of_log[0].ends_with(" 22 1 command 34 write new"), "{of_log:?}");

    let found = json_lines(&["--json", "--contents", node.path()]);
    assert_eq!(found.iter().filter(|line| line["index"].is_u64()).count(), 2);
    let soon = found.iter().find(|line| line["name"] == "dir/soon" && line["part"] == "kept").unwrap();
    assert_eq!((&soon["entry"], &soon["contents"]), (&13.into(), &"gone some day".into()));
    let contents: Vec<&Value> =
        found.iter().filter(|line| line["contents"].is_string() && line["part"].is_string()).collect();
    assert!(contents.iter().any(|line| line["records"] == 2 && line["part"] == "kept"), "{contents:?}");

    let found = lines(&["--stat", node.path()]);
    let line = found.iter().find(|line| line.starts_with(&format!("kept {kept}: "))).unwrap();
    assert!(
        line.contains(" entries=2 superseded=0 ") && line.contains(" first_index=10 last_index=13 "),
        "{line}"
    );
    assert!(found.iter().any(|line| line.starts_with(&format!("past {past}: "))), "{found:?}");

    // Alone, a kept segment is shown the same; a segment of the log shows all that is in it.
    let alone = lines(&[node.file(&kept).to_str().unwrap()]);
    assert!(alone.len() == 3 && alone[0] == head && alone[1].ends_with(" write old8"), "{alone:?}");
    let alone = lines(&[node.file(&past).to_str().unwrap()]);
    assert!(alone[0].starts_with(|c: char| c.is_ascii_digit()), "{alone:?}");
    let both = [node.file(&kept), node.file(&names(&node, "checkpoint-")[0])];
    assert_eq!(lines(&[both[0].to_str().unwrap(), both[1].to_str().unwrap()]).len(), 4);
    assert_eq!(lines(&["--from", "13", "--to", "13", node.file(&kept).to_str().unwrap()]).len(), 2);
}

#[test]
fn nothing_is_changed() {
    let node = node();
    let before = snapshot(node.directory.path());
    for arguments in [&[][..], &["--stat"], &["--json"], &["--files"], &["--diff", node.path()]] {
        lines(&[arguments, &[node.path()]].concat());
    }
    assert_eq!(snapshot(node.directory.path()), before);
}

/// Every byte of a checkpoint counts, and in a kept segment its head, its block and its records.
#[test]
fn each_byte_that_counts_is_checked() {
    let node = node();
    lines(&[node.path()]);
    let (kept, offset) = node.place("old8");
    let mut places = Vec::new();
    for name in names(&node, "checkpoint-") {
        let len = std::fs::metadata(node.file(&name)).unwrap().len();
        places.extend((0..len).step_by(37).chain([len - 1]).map(|at| (name.clone(), at)));
    }
    places.extend([0, 12, 20, 100, 511, 512, 530, 575].map(|at| (kept.clone(), at)));
    places.extend((offset..offset + 64 + 923).step_by(101).map(|at| (kept.clone(), at)));
    for (name, at) in places {
        flip(&node.file(&name), at);
        let found = complaints(&[node.path()]);
        assert!(
            found.iter().any(|line| line.contains(&name) && line.contains("offset")),
            "{name} {at}: {found:?}"
        );
        if name != kept || at >= 4096 {
            let alone = complaints(&[node.file(&name).to_str().unwrap()]);
            assert!(!alone.is_empty(), "{name} {at}");
            let place = format!("damaged at offset {offset}: ");
            assert!(name != kept || alone[0].contains(&place), "{alone:?}");
        }
        let stat = logdump(&["--stat", node.path()]);
        assert!(stat.status.code() == Some(1) && stdout(&stat).contains("DAMAGE "), "{name} {at}");
        flip(&node.file(&name), at);
    }
    lines(&[node.path()]);
}

/// A start would do without such a segment, and so without the older checkpoint.
#[test]
fn a_kept_segment_that_only_the_older_checkpoint_needs_is_checked_too() {
    let mut node = Node::new(3);
    node.write("a", &[b'a'; 900]);
    let first = node.keep(&["a"]);
    node.checkpoint();
    node.keep(&["a"]);
    node.write("b", b"");
    node.checkpoint();
    for at in [520, 4096 + 100] {
        flip(&node.file(&first), at);
        let found = complaints(&[node.path()]);
        assert!(!found.is_empty() && found.iter().all(|line| line.contains(&first)), "{found:?}");
        flip(&node.file(&first), at);
    }
    lines(&[node.path()]);
    node.lose(&first);
    let found = complaints(&[node.path()]);
    assert!(found.len() == 1 && found[0].contains(&format!("{first} is missing")), "{found:?}");
}

#[test]
fn each_damaged_block_of_a_checkpoint_is_named() {
    let mut node = Node::new(3);
    for n in 0..2000 {
        node.write(&format!("{n:0100}"), b"");
    }
    let name = node.checkpoint();
    let block = 64 * 1024 + 32;
    for at in [700 + 100, 700 + 2 * block] {
        flip(&node.file(&name), at);
    }
    let found = complaints(&["--files", node.path()]);
    let damaged: Vec<&String> = found.iter().filter(|line| line.contains(": block CRC mismatch")).collect();
    assert_eq!(damaged.len(), 2, "{found:?}");
    // Nothing stands for it, as the segments that it covers show: the log is whole from its beginning.
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn contents_that_are_not_where_a_checkpoint_says_are_damage() {
    let node = node();
    // In a segment that the log has left, in a kept one, and in the log itself.
    for name in ["old9", "old8", "new"] {
        let (file, offset) = node.place(name);
        flip(&node.file(&file), offset + 64 + 25);
        let found = complaints(&[node.path()]);
        let place = format!("{file}: damaged at offset {offset}:");
        let named = found.iter().filter(|line| line.contains(&place)).count();
        assert_eq!(named, 1, "{found:?}");
        flip(&node.file(&file), offset + 64 + 25);
    }
    // A segment that is gone is missed once, whichever of the two checkpoints refers to it.
    for name in ["old9", "old8"] {
        let file = node.file(&node.place(name).0);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let found = complaints(&[node.path()]);
        let missed = found.iter().filter(|line| line.contains(&format!("{} is missing", file.display())));
        assert!(missed.count() == 1 && found.len() == 1, "{found:?}");
        std::fs::write(&file, bytes).unwrap();
    }
    lines(&[node.path()]);
}

#[test]
fn a_checkpoint_that_says_other_things_of_files_than_their_records_is_damage() {
    let mut node = Node::new(3);
    node.write("a", b"first");
    node.write("b", b"other");
    let [a, b] = ["a", "b"].map(|name| node.store.get(name).unwrap().contents);
    assert!(node.store.move_contents("b", b, a));
    node.checkpoint();
    let found = complaints(&[node.path()]);
    assert!(found.len() == 1 && found[0].contains("file and entry do not go together: name"), "{found:?}");
    assert!(
        found[0].contains("segment-0000000000000001.fsd") && found[0].contains("contents of \"b\""),
        "{found:?}"
    );
    // At no record at all.
    assert!(node.store.move_contents("b", a, ContentsAt(a.0 + 8)));
    node.write("c", b"");
    node.checkpoint();
    let found = complaints(&[node.path()]);
    assert!(found.iter().any(|line| line.contains("no record: the contents of \"b\"")), "{found:?}");
    // In a segment that was never there.
    assert!(node.store.move_contents("b", ContentsAt(a.0 + 8), ContentsAt(9 << 32 | 4096)));
    node.write("c", b"");
    node.checkpoint();
    let found = complaints(&[node.path()]);
    assert!(found.iter().any(|line| line.contains("segment-0000000000000009.fsd is missing")), "{found:?}");
}

#[test]
fn a_checkpoint_of_which_no_store_can_be_made_is_damage() {
    let mut node = Node::new(3);
    node.write("a", b"first");
    node.write("b", b"other");
    let (head, mut body) = node.image();
    // The second name comes before the first, and whole blocks say so.
    let last = body.len() - 1;
    body[last] = b'A';
    let name = node.write_checkpoint(&head, &body);
    for path in [node.path(), node.file(&name).to_str().unwrap()] {
        let found = complaints(&[path]);
        assert!(found[0].contains(&name) && found[0].contains("out of its order"), "{found:?}");
    }
}

#[test]
fn what_the_next_start_mends_is_named_and_is_no_damage() {
    let mut node = node();
    node.write("third", b"");
    node.checkpoint();
    let spare = node.storage.log.wants_spare().expect("it is time");
    let spare = spare.prepare(node.storage.log.disk()).unwrap();
    node.storage.log.install_spare(spare).unwrap();
    let kept = node.keep(&["third"]);
    for name in ["segment-00000000000000ff.tmp", "checkpoint-00000000000000ff.tmp", "hard-state.tmp"] {
        std::fs::write(node.file(name), b"half").unwrap();
    }
    flip(&node.file("hard-state"), 40);
    let found = lines(&[node.path()]);
    let older = &names(&node, "checkpoint-")[0];
    for (name, why) in [
        (older.as_str(), "newer ones count"),
        (&*kept, "nothing refers to the contents in it"),
        ("segment-00000000000000ff.tmp", "it was being made ready"),
        ("checkpoint-00000000000000ff.tmp", "it was being made ready"),
        ("hard-state.tmp", "it was being made"),
    ] {
        let line = format!("leftover {name}: {why}; the next start removes it");
        assert!(found.contains(&line), "{line} in {found:?}");
    }
    assert!(
        found.iter().any(|line| line.ends_with(": it was not used yet; the next start removes it")),
        "{found:?}"
    );
    let slot =
        "hard state: slot 0 is not whole: CRC mismatch; the other counts, and the next start writes both";
    assert!(found.iter().any(|line| line == slot), "{found:?}");
    let found = lines(&["--stat", node.path()]);
    assert!(found.iter().any(|line| line == slot) && found.iter().any(|line| line.starts_with("leftover ")));
    let found = json_lines(&["--json", node.path()]);
    assert!(found.iter().any(|line| line["file"] == "hard-state.tmp" && line["unused"].is_string()));
    assert!(found.iter().any(|line| line["bad_slot"] == 0));

    // It is damage when the other slot is not whole either, when there is none at all, or when it is another node's.
    flip(&node.file("hard-state"), 4096 + 40);
    assert!(complaints(&[node.path()])[0].contains("neither of the two hard states is whole"));
    node.lose("hard-state");
    assert!(complaints(&[node.path()])[0].contains("hard-state is missing, though there is "));
    let other = Node::new(2);
    std::fs::copy(other.file("hard-state"), node.file("hard-state")).unwrap();
    let found = complaints(&[node.path()]);
    assert!(found.iter().any(|line| line.contains("belongs to node 3 of cluster")), "{found:?}");
    assert!(
        found.iter().any(|line| line.contains(older.as_str()) && line.contains("belongs to")),
        "{found:?}"
    );
}

#[test]
fn a_damaged_checkpoint_is_named_also_if_another_stands_for_it() {
    for n in [0, 1] {
        let node = node();
        let name = &names(&node, "checkpoint-")[n];
        flip(&node.file(name), 700);
        let found = complaints(&[node.path()]);
        assert!(found.iter().all(|line| line.contains(name)), "{found:?}");
        let output = stdout(&logdump(&[node.path()]));
        // Of the older one a start reads only what the log needs of it.
        let line = format!("leftover {name}: it is damaged; the next start removes it");
        assert_eq!(output.contains(&line), n == 1, "{output}");
    }
}

#[test]
fn it_may_look_on_while_a_node_takes_checkpoints_and_removes_what_they_replace() {
    let mut node = Node::new(3);
    let path = node.path().to_owned();
    let (rounds, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let reader = std::thread::spawn({
        let (rounds, is_over) = (Arc::clone(&rounds), Arc::clone(&is_over));
        move || {
            while !is_over.load(Ordering::SeqCst) {
                let options: [&[&str]; 4] = [&["--files"], &["--diff", &path], &[], &["--stat"]];
                let round = rounds.fetch_add(1, Ordering::SeqCst);
                let output = logdump(&[options[round % 4], &[&path]].concat());
                assert_eq!(output.status.code(), Some(0), "{output:?}");
            }
        }
    });
    let mut checkpoints: Vec<(CheckpointHead, LogBase)> = Vec::new();
    for n in 1_u32.. {
        node.write(&format!("file{}", n % 5), &vec![b'x'; (n as usize * 37) % 900]);
        if n.is_multiple_of(11) {
            node.keep(&["file1", "file3"]);
        }
        if n.is_multiple_of(7) {
            let (head, body) = node.image();
            node.write_checkpoint(&head, &body);
            checkpoints.push((head.clone(), head.base()));
            // As a node does: first the checkpoint goes that is replaced, then what only it needed.
            if checkpoints.len() > 2 {
                node.lose(&checkpoints.remove(0).0.name());
                release(&mut node, &checkpoints);
            }
        }
        let is_enough = n >= 150 && rounds.load(Ordering::SeqCst) >= 20;
        if is_enough || reader.is_finished() {
            break;
        }
    }
    is_over.store(true, Ordering::SeqCst);
    reader.join().expect("no look found damage");
    assert_ne!(names(&node, "segment-")[0], segment::file_name(SegmentId(1)), "segments were removed");
}

/// Lets the log begin behind the older checkpoint, and removes the segments that nothing refers to.
fn release(node: &mut Node, checkpoints: &[(CheckpointHead, LogBase)]) {
    node.storage.log.trim(checkpoints[0].1);
    let unused: Vec<SegmentId> = node.storage.log.contents_segments().map(|segment| segment.id).collect();
    for id in unused {
        let is_referred = checkpoints.iter().any(|(head, _)| head.segments.contains(&id));
        if node.store.live(id.0).files == 0 && !is_referred {
            let name = node.storage.log.release(id).name();
            node.lose(&name);
        }
    }
}
