//! Two directories held against each other.

mod support;

use std::path::Path;

use fsd::raft::LogChange;
use fsd_wire::{EntryKind, LogIndex, Payload};
use support::{Node, complaints, flip, json_lines, lines, logdump, stdout, write};

/// What two nodes of a cluster have in common.
fn fill(node: &mut Node) {
    for n in 0..5 {
        node.write(&format!("file{n}"), &[b'a' + n; 900]);
    }
    node.open_session();
}

fn pair() -> [Node; 2] {
    [1, 2].map(|id| {
        let mut node = Node::new(id);
        fill(&mut node);
        node
    })
}

fn diff(nodes: &[Node; 2]) -> Vec<String> {
    lines(&[nodes[0].path(), "--diff", nodes[1].path()])
}

fn differences(nodes: &[Node; 2]) -> Vec<String> {
    complaints(&["--diff", nodes[1].path(), nodes[0].path()])
}

#[test]
fn what_is_the_same_is_said_to_be() {
    let mut nodes = pair();
    assert_eq!(
        diff(&nodes),
        [
            "log: 7 entries in both, 7 of them equal".to_owned(),
            format!("stores: not compared, there is no checkpoint in {}", nodes[0].path()),
            format!("stores: not compared, there is no checkpoint in {}", nodes[1].path()),
        ]
    );
    nodes.iter_mut().for_each(|node| drop(node.checkpoint()));
    nodes[1].write("later", b"");
    nodes[1].checkpoint();
    // Each node keeps the contents at its own places.
    nodes[0].keep(&["file1"]);
    let [first, second] = [0, 1].map(|n| nodes[n].path().to_owned());
    let expected = [
        format!("log: entries 8 to 8 are only in {second}"),
        "log: 0 entries in both, 0 of them equal".to_owned(),
        "stores: compared as of entry 7, of which both have a checkpoint".to_owned(),
        "stores: 5 files are the same in both".to_owned(),
        "stores: 1 sessions are the same in both".to_owned(),
    ];
    assert_eq!(diff(&nodes), expected);
    let found = json_lines(&["--json", &first, "--diff", &second]);
    assert_eq!((&found[0]["about"], found.len()), (&"log".into(), 5));
    // A copy, and the directory itself, are the same too.
    let copy = tempfile::tempdir().unwrap();
    for item in Path::new(&first).read_dir().unwrap() {
        let item = item.unwrap();
        std::fs::copy(item.path(), copy.path().join(item.file_name())).unwrap();
    }
    for other in [copy.path().to_str().unwrap(), &first] {
        lines(&[&first, "--diff", other]);
    }
}

#[test]
fn an_entry_of_one_index_and_term_is_the_same_everywhere() {
    let mut nodes = pair();
    for n in [0, 1] {
        for k in 0..30 {
            let contents = if k % 2 == 0 { b'x' } else { b'a' + n as u8 };
            nodes[n].append(EntryKind::Command, write("name", &[contents], 0));
        }
    }
    let found = differences(&nodes);
    assert_eq!(found.len(), 15);
    assert_eq!(found[0], "DIFFERENCE entry 9: of term 1 in both, with other bytes");
    let arguments = [nodes[0].path(), "--diff", nodes[1].path(), "--lines", "3"];
    let output = logdump(&arguments);
    let text = stdout(&output);
    assert_eq!(text.lines().filter(|line| line.starts_with("DIFFERENCE")).count(), 3, "{text}");
    assert!(text.contains("log: 12 more differences, not shown"), "{text}");
    assert!(
        text.contains("log: 37 entries in both, 22 of them equal, the first that is not is entry 9"),
        "{text}"
    );
    let none = logdump(&["--lines", "0", nodes[0].path(), "--diff", nodes[1].path()]);
    assert_eq!(none.status.code(), Some(1));
    let json = logdump(&[&arguments[..3], &["--json"]].concat());
    let line = stdout(&json).lines().next().unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["about"], &line["must_not_be"]), (&"entry 9".into(), &true.into()));
}

#[test]
fn other_terms_are_a_tail_that_one_will_lose_unless_something_is_known_to_be_committed() {
    let mut nodes = pair();
    nodes[1].term = 2;
    for node in &mut nodes {
        node.append(EntryKind::Noop, Payload::default());
        node.append(EntryKind::Noop, Payload::default());
    }
    let found = diff(&nodes);
    assert!(found[0].starts_with("difference entry 8: of term 1 in "), "{found:?}");
    assert!(found[0].contains("it may be an uncommitted tail"), "{found:?}");
    assert!(found[2].contains("7 of them equal, the first that is not is entry 8"), "{found:?}");
    // The same entry behind them says that they were committed, or cannot be.
    for node in &mut nodes {
        node.term = 3;
        node.append(EntryKind::Noop, Payload::default());
    }
    let found = differences(&nodes);
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("entry 10 behind it is the same"), "{found:?}");

    // So does a checkpoint.
    let mut nodes = pair();
    nodes[1].term = 2;
    nodes[0].write("a", b"");
    nodes[1].apply(EntryKind::Noop, Payload::default());
    lines(&[nodes[0].path(), "--diff", nodes[1].path()]);
    nodes[0].write("b", b"");
    nodes[1].append(EntryKind::Noop, Payload::default());
    nodes[1].checkpoint();
    let found = differences(&nodes);
    assert!(found[0].contains("entry 8: of term 2 by a checkpoint in "), "{found:?}");
    assert_eq!(found.len(), 1, "{found:?}");

    // Also of the entries of a log that begins before it.
    let mut nodes = pair();
    nodes[1].term = 2;
    for node in &mut nodes {
        node.checkpoint();
        node.write("a", b"");
    }
    diff(&nodes);
    nodes[1].checkpoint();
    let found = differences(&nodes);
    assert!(found[0].contains("entries up to 8 are committed, by a checkpoint"), "{found:?}");
}

#[test]
fn superseded_entries_do_not_count() {
    let mut nodes = pair();
    nodes[0].append(EntryKind::Command, write("lost", b"", 0));
    nodes[0].append(EntryKind::Command, write("lost too", b"", 0));
    nodes[0].term = 2;
    let [first, second] = &mut nodes;
    second.term = 2;
    let entry = second.append(EntryKind::Noop, Payload::default());
    let log = &mut first.storage.log;
    log.append(&[LogChange::TruncateFrom(LogIndex(8)), LogChange::Append(entry)]).unwrap();
    log.flush().unwrap();
    assert_eq!(diff(&nodes)[0], "log: 8 entries in both, 8 of them equal");
}

#[test]
fn stores_of_one_entry_are_the_same() {
    let mut nodes = pair();
    nodes[0].checkpoint();
    let (mut head, mut body) = nodes[1].image();
    // The version of the first file, in a checkpoint that is whole.
    assert_eq!(body[2], 1);
    body[2] = 9;
    head.revision = 9;
    nodes[1].write_checkpoint(&head, &body);
    let found = differences(&nodes);
    assert!(found.iter().any(|line| line.starts_with("DIFFERENCE stores: revision: 5 in ")), "{found:?}");
    assert!(
        found.iter().any(|line| line.starts_with("DIFFERENCE file file0: version 1, 900 bytes")),
        "{found:?}"
    );
    // A file that only one has, and a session.
    let mut nodes = pair();
    nodes[0].checkpoint();
    let entry = nodes[1].append(EntryKind::Noop, Payload::default());
    assert_eq!(entry.index, LogIndex(8));
    let mut other = Node::new(2);
    for n in 0..4 {
        other.write(&format!("file{n}"), &[b'a' + n; 900]);
    }
    other.write("other", &[b'e'; 900]);
    other.apply(EntryKind::Tick, Payload::default());
    other.checkpoint();
    let found = differences(&[nodes.into_iter().next().unwrap(), other]);
    for what in [
        "file file4: ",
        "file other: none in ",
        "stores: count of sessions: 1 in ",
        "sessions: session 7 in ",
    ] {
        assert!(found.iter().any(|line| line.contains(what)), "{what} in {found:?}");
    }
}

#[test]
fn of_stores_of_different_entries_what_is_in_both_is_compared() {
    let mut nodes = pair();
    nodes[0].checkpoint();
    nodes[1].write("file1", b"changed");
    nodes[1].write("new", b"");
    nodes[1].checkpoint();
    let found = diff(&nodes);
    let of = |n: usize| nodes[n].path();
    let what = format!(
        "stores: the checkpoints are of different entries, 7 in {} and 9 in {}: only what is in both is compared",
        of(0),
        of(1)
    );
    assert!(found.contains(&what), "{found:?}");
    let what = "stores: 4 files are the same in both, 2 have changed between the two entries";
    assert!(found.iter().any(|line| line == what), "{found:?}");

    // One version, two contents.
    let (head, mut body) = nodes[1].image();
    let head = fsd::storage::CheckpointHead { entry: head.entry, ..head };
    body[14] ^= 1;
    nodes[1].lose(&head.name());
    nodes[1].write_checkpoint(&head, &body);
    let found = differences(&nodes);
    assert!(
        found.iter().any(|line| line.contains("file file0: version 1,") && line.contains("taken once")),
        "{found:?}"
    );
    // A version that the older store has passed, and a version that goes back.
    for (version, why) in [(6_u8, None), (3, Some("versions never go back")), (4, Some("and not the file"))] {
        let (head, mut body) = nodes[1].image();
        let name = if version == 3 { "file4" } else { "new" };
        let at = body.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() - 34;
        body[at + 2] = version;
        nodes[1].lose(&head.name());
        nodes[1].write_checkpoint(&head, &body);
        let output = stdout(&logdump(&[nodes[0].path(), "--diff", nodes[1].path()]));
        let told = output.lines().find(|line| line.starts_with(&format!("DIFFERENCE file {name}: ")));
        assert_eq!(told.is_some(), why.is_some(), "{output}");
        assert!(why.is_none_or(|why| told.unwrap().contains(why)), "{output}");
    }
}

#[test]
fn damage_in_either_is_told_and_what_can_be_is_compared() {
    let mut nodes = pair();
    nodes.iter_mut().for_each(|node| drop(node.checkpoint()));
    let (file, offset) = nodes[1].place("file2");
    flip(&nodes[1].file(&file), offset + 64 + 30);
    let output = logdump(&[nodes[0].path(), "--diff", nodes[1].path()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("DAMAGE ") && text.contains(&format!("{file}: damaged at offset {offset}")),
        "{text}"
    );
    assert!(text.contains("stores: 5 files are the same in both"), "{text}");
}

#[test]
fn other_clusters_have_nothing_in_common() {
    let [node, _] = pair();
    let other = Node::of_cluster(2, "other", 77);
    let found = complaints(&[node.path(), "--diff", other.path()]);
    assert!(
        found.len() == 1 && found[0].starts_with("DIFFERENCE cluster: ") && found[0].contains("\"other\"")
    );
    // Nobody ran there yet: nothing to compare, nothing wrong.
    let empty = tempfile::tempdir().unwrap();
    let found = lines(&[node.path(), "--diff", empty.path().to_str().unwrap()]);
    assert!(found[0].starts_with("log: entries 1 to 7 are only in "), "{found:?}");
}

#[test]
fn usage() {
    let nodes = pair();
    let [first, second] = [0, 1].map(|n| nodes[n].path());
    let segment = nodes[1].file("segment-0000000000000001.fsd");
    for wrong in [
        &["--diff", first][..],
        &["--diff", first, second, second],
        &["--diff", first, second, "--stat"],
        &["--diff", first, second, "--files"],
        &["--diff", first, second, "--hard-state"],
        &["--diff", first, second, "--from", "1"],
        &["--diff", first, second, "--lines", "many"],
        &["--diff", segment.to_str().unwrap(), second],
        &["--diff", first, segment.to_str().unwrap()],
        &["--lines", "3", first],
        &[first, "--diff"],
    ] {
        let output = logdump(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{wrong:?}");
    }
    let output = logdump(&[first, "--diff", "/no/such/directory"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/directory"));
}
