//! The built tool on real directories.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};

use bytes::Bytes;
use fsd::mapping::FileDisk;
use fsd::raft::LogChange;
use fsd::storage::{DirectoryIdentity, Storage, lock_directory, open};
use fsd_wire::{
    ClusterTimeMs, Command, Entry, EntryKind, LogIndex, NodeId, Operation, Payload, Term, Version,
};
use serde_json::Value;
use support::{flip, snapshot};

fn logdump(arguments: &[&str]) -> Output {
    Process::new(env!("CARGO_BIN_EXE_logdump")).args(arguments).output().expect("logdump runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn lines(arguments: &[&str]) -> Vec<String> {
    let output = logdump(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    stdout(&output).lines().map(str::to_owned).collect()
}

fn json_lines(arguments: &[&str]) -> Vec<Value> {
    lines(arguments).iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/log-v1")
}

fn start(directory: &Path) -> Storage<FileDisk> {
    let identity = DirectoryIdentity { cluster: "demo".to_owned(), node: NodeId(3) };
    let disk = lock_directory(directory, &identity).expect("the directory is free");
    let mut next = 77;
    let mut counting = || {
        next += 1;
        next
    };
    open(disk, &identity, 8192, &mut counting).expect("the directory is sound")
}

fn command(index: u64, term: u64, operation: Operation, name: &str, contents: &[u8]) -> LogChange {
    let command = Command { operation, name: name.to_owned(), contents: Bytes::copy_from_slice(contents) };
    LogChange::Append(Entry {
        index: LogIndex(index),
        term: Term(term),
        stamp: ClusterTimeMs(index),
        kind: EntryKind::Command,
        payload: command.encode(),
    })
}

fn write(index: u64, term: u64, name: &str, contents: &[u8]) -> LogChange {
    command(index, term, Operation::Write { expiry_seconds: 0 }, name, contents)
}

fn append(storage: &mut Storage<FileDisk>, changes: &[LogChange]) {
    storage.log.append(changes).expect("there is room");
    storage.log.flush().expect("the disk works");
}

/// Ten writes of a kilobyte, each flushed by itself, in several segments.
fn ten_writes(directory: &Path) -> Storage<FileDisk> {
    let mut storage = start(directory);
    for index in 1..=10 {
        append(&mut storage, &[write(index, 1, &format!("file{index}"), &[b'x'; 1000])]);
    }
    storage
}

#[test]
fn a_line_per_entry() {
    let found = lines(&[golden().to_str().unwrap()]);
    let expected = [
        "1 4096 1 1 genesis 44 - - cluster_id=0000000000000000000000000000abcd \
         incarnations=1:0000000000000011,3:0000000000000033",
        "1 4208 2 1 register 12 - - node=2 incarnation=0000000000000022",
        "1 4288 3 1 command 41 write dir/file",
        "1 4400 4 1 command 3664 cas dir/file expected=1 expiry_seconds=60",
        "1 8128 5 1 tick 0 - - superseded",
        "2 4096 5 2 noop 0 - -",
        "2 4160 6 2 command 1727 write dir/file",
        "2 5952 7 2 command 27 delete-if dir/file expected=2",
        "2 6048 8 2 command 27 delete dir/file",
    ];
    assert_eq!(found, expected);
}

#[test]
fn sessions_are_shown_with_their_numbers_and_what_they_change() {
    let directory = golden().with_file_name("log-v1-sessions");
    let path = directory.to_str().unwrap();
    let expected = [
        "1 4096 1 1 genesis 32 - - cluster_id=0000000000000000000000000000abcd incarnations=3:0000000000000033",
        "1 4192 2 1 session 13 open - idle_ms=60000 sessions_max=65536",
        "1 4272 3 1 session 17 keep-alive - session=2 acknowledged=1",
        "1 4360 4 1 session 64 write dir/file session=2 sequence=2 acknowledged=1",
        "1 4488 5 1 session 9 close - session=2",
    ];
    assert_eq!(lines(&[path]), expected);
    let found = json_lines(&["--json", "--contents", path]);
    let change = &found[3];
    assert_eq!((&change["kind"], &change["operation"]), (&"session".into(), &"write".into()));
    assert_eq!((&change["name"], &change["contents"]), (&"dir/file".into(), &"of a session".into()));
    assert_eq!(
        (&change["session"], &change["sequence"], &change["acknowledged"]),
        (&2.into(), &2.into(), &1.into())
    );
    assert_eq!((&found[1]["operation"], &found[1]["idle_ms"]), (&"open".into(), &60_000.into()));
    assert_eq!((&found[4]["operation"], &found[4]["name"]), (&"close".into(), &Value::Null));
    assert!(lines(&["--stat", path])[0].contains(" entries=5 "));
}

#[test]
fn json_has_the_same_fields() {
    let found = json_lines(&["--json", golden().to_str().unwrap()]);
    assert_eq!(found.len(), 9);
    let cas = &found[3];
    assert_eq!(cas["segment"], 1);
    assert_eq!(cas["file"], "segment-0000000000000001.fsd");
    assert_eq!(cas["offset"], 4400);
    assert_eq!((&cas["index"], &cas["term"]), (&Value::from(4), &Value::from(1)));
    assert_eq!((&cas["kind"], &cas["operation"]), (&Value::from("command"), &Value::from("cas")));
    assert_eq!((&cas["name"], &cas["size"]), (&Value::from("dir/file"), &Value::from(3664)));
    assert_eq!((&cas["expected"], &cas["expiry_seconds"]), (&Value::from(1), &Value::from(60)));
    assert_eq!(cas["contents_bytes"], 3637);
    assert_eq!(cas["contents"], Value::Null);
    assert_eq!((&found[0]["operation"], &found[0]["name"]), (&Value::Null, &Value::Null));
    assert_eq!((&found[4]["superseded"], &found[5]["superseded"]), (&Value::from(true), &Value::from(false)));
}

#[test]
fn a_range_of_indexes() {
    let golden = golden();
    let path = golden.to_str().unwrap();
    let indexes = |arguments: &[&str]| -> Vec<u64> {
        json_lines(arguments).iter().map(|line| line["index"].as_u64().unwrap()).collect()
    };
    assert_eq!(indexes(&["--json", "--from", "3", "--to", "5", path]), [3, 4, 5, 5]);
    assert_eq!(indexes(&["--json", "--from", "7", path]), [7, 8]);
    assert_eq!(indexes(&["--json", "--to", "1", path]), [1]);
    assert_eq!(indexes(&["--json", "--from", "9", path]), [0; 0]);
}

#[test]
fn contents_on_demand() {
    let directory = tempfile::tempdir().unwrap();
    let mut storage = start(directory.path());
    append(&mut storage, &[write(1, 1, "text", b"two\nlines"), write(2, 1, "binary", &[0, 255, 10])]);
    append(&mut storage, &[command(3, 1, Operation::DeleteIf { expected: Version(1) }, "text", b"")]);
    let path = directory.path().to_str().unwrap();
    let expected = [
        "1 4096 1 1 command 32 write text",
        "    \"two\\nlines\"",
        "1 4192 2 1 command 28 write binary",
        "    \"\\x00\\xff\\n\"",
        "1 4288 3 1 command 23 delete-if text expected=1",
    ];
    assert_eq!(lines(&["--contents", path]), expected);
    let found = json_lines(&["--contents", "--json", path]);
    assert_eq!(found[0]["contents"], "two\nlines");
    assert_eq!(found[1]["contents_hex"], "00ff0a");
    assert_eq!((&found[2]["contents"], &found[2]["contents_bytes"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_summary_per_segment() {
    let golden = golden();
    let path = golden.to_str().unwrap();
    let found = lines(&["--stat", path]);
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0],
        "segment-0000000000000001.fsd: segment=1 bytes=8192 used_bytes=8192 entries=5 superseded=1 \
         payload_bytes=3761 first_index=1 last_index=5 first_term=1 last_term=1"
    );
    let found = json_lines(&["--stat", "--json", path]);
    assert_eq!((&found[1]["entries"], &found[1]["first_index"]), (&Value::from(4), &Value::from(5)));
}

#[test]
fn segments_by_name() {
    let golden = golden();
    let second = golden.join("segment-0000000000000002.fsd");
    let first = golden.join("segment-0000000000000001.fsd");
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    assert_eq!(lines(&[second]).len(), 4);
    assert_eq!(lines(&[first]).len(), 5);
    // In any order, they are read in the log's.
    assert_eq!(lines(&[second, first]), lines(&[golden.to_str().unwrap()]));
}

#[test]
fn term_and_vote() {
    let golden = golden();
    let found = lines(&["--hard-state", golden.to_str().unwrap()]);
    for line in [
        "term 2",
        "voted_for 1",
        "node 3",
        "cluster demo",
        "life 1",
        "met 2 incarnation 0000000000000022 life 5",
    ] {
        assert!(found.iter().any(|found| found == line), "{line} in {found:?}");
    }
    let found = json_lines(&["--hard-state", "--json", golden.to_str().unwrap()]);
    assert_eq!((&found[0]["term"], &found[0]["voted_for"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(found[0]["met"][1]["life"], 5);

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert!(lines(&["--hard-state", path])[0].contains("no node ever ran here"));
    drop(start(directory.path()));
    let file = directory.path().join("hard-state");
    flip(&file, 4096 + 40);
    let found = lines(&["--hard-state", path]);
    assert!(found[0].contains("slot 1 is not whole") && found[1] == "term 0", "{found:?}");
    flip(&file, 40);
    let output = logdump(&["--hard-state", path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(logdump(&[path]).status.code(), Some(1));
}

#[test]
fn damage_is_shown_where_it_lies() {
    let directory = tempfile::tempdir().unwrap();
    drop(ten_writes(directory.path()));
    let path = directory.path().to_str().unwrap();
    let whole = lines(&[path]);
    assert_eq!(whole.len(), 10);
    // The second record of the first segment, in its payload.
    let offset: u64 = whole[1].split(' ').nth(1).unwrap().parse().unwrap();
    let segment = directory.path().join("segment-0000000000000001.fsd");
    flip(&segment, offset + 500);
    let output = logdump(&[path]);
    assert_eq!(output.status.code(), Some(1));
    let found: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(found.len(), 10, "{found:?}");
    assert_eq!(found[0], whole[0]);
    assert!(
        found[1].starts_with("DAMAGE ") && found[1].contains("segment-0000000000000001.fsd"),
        "{found:?}"
    );
    assert!(found[1].contains(&format!("offset {offset}: entry 2: CRC mismatch")), "{found:?}");
    assert_eq!(found[2..], whole[2..]);

    let output = logdump(&["--json", path]);
    assert_eq!(output.status.code(), Some(1));
    let damage: Value = serde_json::from_str(stdout(&output).lines().nth(1).unwrap()).unwrap();
    assert_eq!((&damage["damage"], &damage["offset"]), (&"entry 2: CRC mismatch".into(), &offset.into()));
    let output = logdump(&["--stat", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("DAMAGE"));
    let output = logdump(&[segment.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));

    // A whole segment is gone: its neighbours are still shown.
    flip(&segment, offset + 500);
    assert_eq!(lines(&[path]), whole);
    std::fs::remove_file(directory.path().join("segment-0000000000000002.fsd")).unwrap();
    let output = logdump(&[path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("segment-0000000000000002.fsd is missing"), "{output:?}");
    assert_eq!(stdout(&output).lines().filter(|line| line.contains(" write ")).count(), 7);
}

#[test]
fn a_torn_tail_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    drop(ten_writes(directory.path()));
    let path = directory.path().to_str().unwrap();
    let whole = lines(&[path]);
    let last: Vec<&str> = whole[9].split(' ').collect();
    let (segment, offset): (u64, u64) = (last[0].parse().unwrap(), last[1].parse().unwrap());
    let name = format!("segment-{segment:016x}.fsd");
    flip(&directory.path().join(&name), offset + 500);
    let found = lines(&[path]);
    assert_eq!(found[..9], whole[..9]);
    assert!(found[9].starts_with(&format!("torn tail {name}: from offset {offset} on")), "{found:?}");
    let found = json_lines(&["--json", path]);
    assert_eq!(
        (&found[9]["torn_tail"], &found[9]["offset"]),
        (&"entry 10: CRC mismatch".into(), &offset.into())
    );
    assert!(lines(&["--stat", path]).last().unwrap().starts_with("torn tail"));
}

#[test]
fn it_works_beside_a_running_node_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let storage = ten_writes(directory.path());
    let before = snapshot(directory.path());
    for arguments in [&[][..], &["--stat"], &["--json"], &["--contents"], &["--hard-state"]] {
        lines(&[arguments, &[directory.path().to_str().unwrap()]].concat());
    }
    assert_eq!(snapshot(directory.path()), before);
    drop(storage);
}

#[test]
fn it_may_look_on_while_a_node_writes() {
    let directory = tempfile::tempdir().unwrap();
    let mut storage = start(directory.path());
    let path = directory.path().to_str().unwrap().to_owned();
    let reader = std::thread::spawn(move || {
        for _ in 0..30 {
            lines(&[&path]);
        }
    });
    let mut index = 0;
    while !reader.is_finished() {
        index += 1;
        append(&mut storage, &[write(index, 1, "name", &vec![b'x'; (index as usize * 37) % 900])]);
    }
    reader.join().expect("no look found damage");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut storage = start(directory.path());
    let many: Vec<LogChange> = (1..=20_000)
        .map(|index| {
            LogChange::Append(Entry {
                index: LogIndex(index),
                term: Term(1),
                stamp: ClusterTimeMs(1),
                kind: EntryKind::Noop,
                payload: Payload::default(),
            })
        })
        .collect();
    append(&mut storage, &many);
    let mut child = Process::new(env!("CARGO_BIN_EXE_logdump"))
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "1 4096 1 1 noop 0 - -\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn usage() {
    let golden = golden();
    let path = golden.to_str().unwrap();
    for option in ["-h", "--help"] {
        let text = lines(&[option]).join("\n");
        for word in ["--stat", "--json", "--from", "--to", "--contents", "--hard-state", "DATA_DIR"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
    for option in ["-V", "--version"] {
        assert_eq!(lines(&[option]), [format!("logdump {}", env!("CARGO_PKG_VERSION"))]);
    }
    let not_a_segment = golden.join("hard-state");
    let not_a_segment = not_a_segment.to_str().unwrap();
    for wrong in [
        &[][..],
        &["--no-such-option", path],
        &["--from", "x", path],
        &["--to", "-1", path],
        &["--from"],
        &["--hard-state"],
        &["--hard-state", path, path],
        &[path, path],
        &[path, not_a_segment],
        &[not_a_segment],
    ] {
        let output = logdump(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    for missing in ["/no/such/directory", "/no/such/segment-0000000000000001.fsd"] {
        let output = logdump(&[missing]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("logdump: /"), "{output:?}");
    }
}
