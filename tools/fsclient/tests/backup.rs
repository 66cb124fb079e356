//! `fsclient backup`, run as users run it, against nodes that do as they are told.

mod fake_node;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use fake_node::{Caller, FakeNode};
use fsclient::{Operation, Outcome, Refusal};

/// A whole backup, of 4 files.
const BACKUP: &[u8] = include_bytes!("../../../tests/golden/stream-v1/stream");
const PIECE: usize = 700;
const LINE: &str = "cluster demo: 4 files, 1804 bytes, revision 6, as of entry 10 of term 1\n";

fn run(server: &str, directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fsclient"))
        .env("FSD_SERVERS", server)
        .current_dir(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn assert_ends(output: &Output, status: i32, stdout: &str, stderr: &str) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*out), (Some(status), stdout), "{err}");
    assert!(err.contains(stderr) && err.is_empty() == stderr.is_empty(), "{err}");
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn refused(reason: &str) -> Outcome {
    Outcome::Refused(Refusal::BadRequest { reason: reason.to_owned() })
}

/// The piece of `backup` at an offset.
fn piece(backup: &[u8], offset: u64) -> Outcome {
    let end = backup.len().min(offset as usize + PIECE);
    let bytes = Bytes::copy_from_slice(&backup[offset as usize..end]);
    Outcome::BackupChunk { is_last: end == backup.len(), bytes }
}

/// A node that gives these bytes out; `instead` may have another answer to the nth wish for a piece on a connection, or
/// cut it off.
fn giving(
    backup: Vec<u8>,
    instead: impl Fn(&Caller, usize) -> Option<Option<Outcome>> + Send + Sync + 'static,
) -> FakeNode {
    FakeNode::start(move |mut caller| {
        caller.welcome();
        let mut asked = 0;
        while let Some(request) = caller.request() {
            let outcome = match request.operation {
                Operation::BackupBegin => Outcome::BackupBegun { backup: 9 },
                Operation::BackupChunk { backup: 9, offset } => {
                    asked += 1;
                    match instead(&caller, asked) {
                        Some(None) => return,
                        Some(Some(outcome)) => outcome,
                        None => piece(&backup, offset),
                    }
                }
                _ => refused("not expected"),
            };
            caller.reply(request.id, outcome);
        }
    })
}

#[test]
fn a_backup_is_written_whole_and_replaces_nothing_unless_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let node = giving(BACKUP.to_vec(), |_, _| None);
    let run = |arguments: &[&str]| run(&node.address, directory.path(), arguments);
    assert_ends(&run(&["backup", "b"]), 0, LINE, "");
    assert!(fs::read(directory.path().join("b")).unwrap() == BACKUP);
    fs::write(directory.path().join("b"), "something else").unwrap();
    assert_ends(&run(&["backup", "b"]), 1, "", "b is there already: --force replaces it");
    assert_eq!(fs::read(directory.path().join("b")).unwrap(), b"something else");
    assert_ends(&run(&["backup", "--force", "b"]), 0, LINE, "");
    assert!(fs::read(directory.path().join("b")).unwrap() == BACKUP);
    let json = "{\"bytes\":1804,\"cluster\":\"demo\",\"contents\":1050,\"files\":4,\"index\":10,\"revision\":6,\
                \"term\":1}\n";
    assert_ends(&run(&["backup", "--json", "c"]), 0, json, "");
    assert_eq!(names(directory.path()), ["b", "c"]);
    assert_ends(&run(&["backup", "missing/d"]), 1, "", "cannot write missing/d");
    assert_ends(&run(&["backup", "-"]), 2, "", "it needs a FILE");
}

#[test]
fn a_backup_that_is_lost_begins_again_from_its_first_byte() {
    let directory = tempfile::tempdir().unwrap();
    // The first connection is for `status`; then one is cut, one is told that it must begin anew.
    let node = giving(BACKUP.to_vec(), |caller, asked| match (caller.number, asked) {
        (1, 2) => Some(None),
        (3, 3) => Some(Some(refused("no such backup"))),
        _ => None,
    });
    let output = run(&node.address, directory.path(), &["backup", "b"]);
    assert_ends(&output, 0, LINE, "the node closed the connection; it begins again, from its first byte");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such backup; it begins again"));
    assert!(fs::read(directory.path().join("b")).unwrap() == BACKUP);
    assert_eq!(names(directory.path()), ["b"]);
}

#[test]
fn a_backup_that_is_lost_every_time_is_unavailable_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = giving(BACKUP.to_vec(), |_, asked| (asked == 2).then_some(None));
    let output = run(&node.address, directory.path(), &["backup", "b"]);
    assert_ends(&output, 5, "", "unavailable");
    assert_eq!(node.connections(), 10, "five tries, and each time the leader is looked for");
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn a_node_that_is_not_ready_or_busy_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let node = giving(BACKUP.to_vec(), |_, asked| match asked {
        1 | 2 => Some(Some(Outcome::BackupChunk { is_last: false, bytes: Bytes::new() })),
        4 => Some(Some(Outcome::Refused(Refusal::Busy))),
        _ => None,
    });
    assert_ends(&run(&node.address, directory.path(), &["backup", "b"]), 0, LINE, "");
    assert!(fs::read(directory.path().join("b")).unwrap() == BACKUP);
}

#[test]
fn what_is_not_whole_is_never_called_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let mut flipped = BACKUP.to_vec();
    flipped[900] ^= 1;
    let node = giving(flipped, |_, _| None);
    let output = run(&node.address, directory.path(), &["backup", "b"]);
    assert_ends(&output, 1, "", "CRC mismatch");
    let node = giving(BACKUP[..1500].to_vec(), |_, _| None);
    assert_ends(&run(&node.address, directory.path(), &["backup", "b"]), 1, "", "cut short");
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn a_file_is_verified_without_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let mut flipped = BACKUP.to_vec();
    flipped[900] ^= 1;
    let files: [(&str, &[u8]); 3] = [("good", BACKUP), ("flipped", &flipped), ("short", &BACKUP[..1803])];
    for (name, bytes) in files {
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    let verify = |name| run("127.0.0.1:1", directory.path(), &["backup", "--verify", name]);
    assert_ends(&verify("good"), 0, LINE, "");
    assert_ends(&verify("flipped"), 1, "", "flipped: stream of a store: part ");
    assert_ends(&verify("short"), 1, "", "cut short");
    assert_ends(&verify("missing"), 1, "", "cannot read missing");
}
