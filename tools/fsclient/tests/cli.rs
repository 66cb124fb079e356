//! The command-line tool, run as users run it: what it prints and how it ends.

mod fake_node;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use fake_node::{FakeNode, dead_address, session_opened};
use fsclient::{FileInfo, Operation, Outcome, Refusal, Sequence, SessionId, Version};
use fsd_wire::hello::HelloStatus;

/// How long a request may take to arrive on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn command(servers: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsclient"));
    command.env("FSD_SERVERS", servers).args(arguments).stdin(Stdio::null());
    command
}

fn run(servers: &str, arguments: &[&str]) -> Output {
    command(servers, arguments).output().unwrap()
}

fn run_with_input(servers: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(servers, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn info(name: &str) -> FileInfo {
    FileInfo { name: name.to_owned(), version: Version(3), size_bytes: 5, expiry_seconds: 7 }
}

/// Keeps one file, `a`, and takes every change; tells in the version how many bytes came.
fn good_node() -> FakeNode {
    FakeNode::answering(|_, operation| {
        Some(match operation {
            Operation::Read { name } if name == "a" => Outcome::Read {
                version: Version(3),
                expiry_seconds: 0,
                contents: Bytes::from_static(b"raw\0bytes"),
            },
            Operation::Stat { name } if name == "a" => Outcome::Stat(info("a")),
            Operation::SessionChange { command, .. } => {
                let command = fsclient::Command::decode(command).unwrap();
                Outcome::Changed { version: Version(100 + command.contents.len() as u64) }
            }
            Operation::List { .. } => {
                Outcome::Listed { files: vec![info("a"), info("b c"), info("d")], more: false }
            }
            _ => Outcome::Refused(Refusal::NotFound),
        })
    })
}

#[test]
fn what_is_done_is_printed_and_ends_with_0() {
    let node = good_node();
    let cases: [(&[&str], &str); 8] = [
        (&["read", "a"], "raw\0bytes"),
        (&["stat", "a"], "3 5 7 a\n"),
        (&["stat", "--json", "a"], "{\"name\":\"a\",\"size\":5,\"ttl\":7,\"version\":3}\n"),
        (&["list"], "3 5 7 a\n3 5 7 b c\n3 5 7 d\n"),
        (&["write", "a"], "100\n"),
        (&["cas", "a", "3", "-"], "100\n"),
        (&["delete", "a"], ""),
        (&["-V"], concat!("fsclient ", env!("CARGO_PKG_VERSION"), "\n")),
    ];
    for (arguments, expected) in cases {
        let output = run(&node.address, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), expected, "{arguments:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
    let help = run(&node.address, &["-h"]);
    assert_eq!(help.status.code(), Some(0));
    for word in ["read NAME", "cas NAME VERSION", "--if-version", "FSD_SERVERS", "6 outcome unknown"] {
        assert!(stdout(&help).contains(word), "{word}: {}", stdout(&help));
    }
}

#[test]
fn contents_come_from_standard_input_or_a_file() {
    let node = good_node();
    let output = run_with_input(&node.address, &["write", "a"], b"12345");
    assert_eq!(stdout(&output), "105\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, b"1234567").unwrap();
    let output = run(&node.address, &["write", "a", path.to_str().unwrap(), "--ttl", "60"]);
    assert_eq!(stdout(&output), "107\n");
    let output = run(&node.address, &["write", "a", "no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("fsclient: cannot read no/such/file: "), "{}", stderr(&output));
}

#[test]
fn read_into_a_file_replaces_it_whole_or_leaves_it() {
    let node = good_node();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, b"old").unwrap();
    let missing = run(&node.address, &["read", "b", "-o", path.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(3));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let output = run(&node.address, &["read", "a", "-o", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read(&path).unwrap(), b"raw\0bytes");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    let output = run(&node.address, &["read", "a", "-o", directory.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn refusals_have_their_exit_statuses() {
    let cases = [
        (Refusal::NotFound, 3, "no such file"),
        (Refusal::VersionMismatch { present: Version(17) }, 4, "present version 17"),
        (Refusal::VersionMismatch { present: Version(0) }, 4, "present version 0"),
        (Refusal::Conflict { with: "a".to_owned() }, 4, "\"a\" is in the way"),
        (Refusal::InvalidName { reason: "a part is \"..\"".to_owned() }, 2, "a part is"),
        (Refusal::TooLarge { max_bytes: 10 }, 1, "10 bytes"),
        (Refusal::BadRequest { reason: "nonsense".to_owned() }, 1, "nonsense"),
    ];
    for (refusal, status, text) in cases {
        let outcome = Outcome::Refused(refusal.clone());
        let node = FakeNode::answering(move |_, _| Some(outcome.clone()));
        let output = run(&node.address, &["cas", "a/b", "4"]);
        assert_eq!(output.status.code(), Some(status), "{refusal:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("fsclient: cas a/b: "), "{}", stderr(&output));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn unavailable_is_5_and_unknown_is_6() {
    let no_leader = FakeNode::answering(|_, _| Some(Outcome::Refused(Refusal::NoLeader)));
    for servers in [dead_address(), no_leader.address.clone()] {
        for arguments in [["write", "a"], ["stat", "a"]] {
            let mut attempts = (0..20).map(|_| run(&servers, &[&["-t", "0.3"][..], &arguments[..]].concat()));
            // A slow machine may not bring the last answer before the time is over: then it is unknown.
            let is_cut_off = |output: &Output| stderr(output).contains("no answer in time");
            let output = attempts.find(|output| !is_cut_off(output)).expect("the node answers");
            assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", stderr(&output));
            assert!(stderr(&output).contains(&servers), "it names the servers: {}", stderr(&output));
        }
    }
    let silent = FakeNode::answering(|_, _| None);
    let output = run(&silent.address, &["-t", "0.3", "write", "a"]);
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    let output = run(&silent.address, &["-t", "0.3", "read", "a"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let cutting = FakeNode::start(|mut caller| {
        caller.welcome();
        let _ = caller.request();
    });
    let unsure = FakeNode::answering(|_, _| Some(Outcome::Refused(Refusal::Unknown)));
    for servers in [&cutting.address, &unsure.address] {
        let output = run(servers, &["-t", "0.3", "delete", "a"]);
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
        assert!(stderr(&output).starts_with("fsclient: delete a: outcome unknown"), "{}", stderr(&output));
    }
    // Whoever cannot even open a session has done nothing.
    let closed = FakeNode::start(|mut caller| {
        caller.welcome();
        let _ = caller.any_request();
    });
    let output = run(&closed.address, &["-t", "0.3", "write", "a"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

#[test]
fn a_change_opens_a_session_and_closes_it_at_the_end_and_a_read_needs_none() {
    let (sender, requests) = mpsc::channel();
    let node = FakeNode::start(move |mut caller| {
        caller.welcome();
        while let Some(request) = caller.any_request() {
            // Nobody waits for the answer to the last request.
            match request.operation {
                Operation::OpenSession => caller.reply(request.id, session_opened(9)),
                Operation::SessionChange { .. } => {
                    caller.reply(request.id, Outcome::Changed { version: Version(1) });
                }
                Operation::Stat { .. } => caller.reply(request.id, Outcome::Stat(info("a"))),
                _ => {}
            }
            let _ = sender.send(request.operation);
        }
    });
    for arguments in [["write", "a"], ["delete", "a"]] {
        assert_eq!(run(&node.address, &arguments).status.code(), Some(0));
        let seen: Vec<Operation> = (0..3).map(|_| requests.recv_timeout(PATIENCE).unwrap()).collect();
        let session = SessionId(9);
        assert!(
            matches!(seen[..], [
                Operation::OpenSession,
                Operation::SessionChange { session: of, sequence: Sequence(1), acknowledged: Sequence(0), .. },
                Operation::CloseSession { session: closed },
            ] if (of, closed) == (session, session)),
            "{seen:?}"
        );
    }
    assert_eq!(run(&node.address, &["stat", "a"]).status.code(), Some(0));
    node.wait_until_closed(3);
    assert_eq!(requests.try_iter().count(), 1);
}

#[test]
fn another_cluster_ends_with_1() {
    let node = FakeNode::start(|mut caller| {
        caller.answer_hello(HelloStatus::OtherCluster, "this node belongs to cluster \"demo\"");
    });
    let output = run(&node.address, &["stat", "a"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("this node belongs to cluster"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_ends_with_2_and_a_hint() {
    let cases: [&[&str]; 8] = [
        &[],
        &["frobnicate"],
        &["--frobnicate", "status"],
        &["write", "a", "--ttl", "-5"],
        &["cas", "a", "minus"],
        &["-t", "soon", "status"],
        &["-s", "host", "status"],
        &["-c", "no/such.conf", "status"],
    ];
    for arguments in cases {
        let output = run("127.0.0.1:1", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("fsclient: "), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    assert!(stderr(&run("127.0.0.1:1", &["--frobnicate"])).contains("fsclient -h"));
    let output = command("127.0.0.1:1", &["stat"]).arg(OsStr::from_bytes(b"a\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn a_conf_gives_the_addresses_and_the_cluster() {
    let node = FakeNode::start(|mut caller| {
        assert_eq!(caller.welcome().cluster, "demo");
        let request = caller.request().unwrap();
        caller.reply(request.id, Outcome::Stat(info("a")));
        caller.wait_for_close();
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node1.conf");
    let member = format!("[[member]]\nnode = 1\npeer = \"127.0.0.1:1\"\nclient = \"{}\"\n", node.address);
    std::fs::write(&path, format!("cluster = \"demo\"\nnode = 1\n{member}")).unwrap();
    let output = run("127.0.0.1:1", &["-c", path.to_str().unwrap(), "stat", "a"]);
    assert_eq!(stdout(&output), "3 5 7 a\n", "{}", stderr(&output));
}

#[test]
fn status_is_0_while_anybody_answers_and_5_otherwise() {
    let dead = dead_address();
    let output = run(&dead, &["status"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stdout(&output).contains(&dead) && stdout(&output).contains("cannot connect"), "{output:?}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    // The reader is gone before the first page is printed, and the pages do not end by themselves.
    let node = FakeNode::answering(|n, _| {
        let files = (0..500).map(|k| info(&format!("{n:08}/{k:08}"))).collect();
        Some(Outcome::Listed { files, more: true })
    });
    let mut child =
        command(&node.address, &["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}
