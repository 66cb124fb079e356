//! `fsd --demo` as its users have it: a real process with real nodes below it, and signals.
//!
//! Its ports are those of the configurations in its directory, so a test puts configurations with free ports there
//! first; those that a demo makes by itself are on the documented ports, which another cluster may hold.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: files are theirs")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use support::{Node, PATIENCE, Settings, TestCluster, daemon, wait_for, wait_until};

/// A demo that runs. Killed with its nodes when the test fails.
struct Demo {
    child: Child,
    output: PathBuf,
}

impl Demo {
    fn launch(arguments: &[&str], directory: &Path) -> Self {
        let output = directory.join("demo.log");
        let child = daemon(&["--demo"])
            .args(arguments)
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(File::create(&output).unwrap())
            .spawn()
            .unwrap();
        Self { child, output }
    }

    fn output(&self) -> String {
        String::from_utf8(fs::read(&self.output).unwrap()).unwrap()
    }

    fn says(&self, text: &str) -> bool {
        self.output().contains(text)
    }

    fn wait_until_it_says(&mut self, text: &str) {
        let said = wait_for(PATIENCE, || {
            if self.says(text) {
                return Some(true);
            }
            self.child.try_wait().unwrap().map(|_| self.says(text))
        });
        assert_eq!(said, Some(true), "`{text}` was not said:\n{}", self.output());
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        let ended = wait_for(PATIENCE, || self.child.try_wait().unwrap());
        ended.unwrap_or_else(|| panic!("it does not end:\n{}", self.output()))
    }

    fn ends_with(&mut self, name: &str) {
        let nodes = nodes_below(self.child.id());
        assert!(!nodes.is_empty());
        self.signal(name);
        assert_eq!(self.wait_for_end().code(), Some(0), "{}", self.output());
        let left: Vec<_> = nodes.into_iter().filter(|id| is_alive(*id)).collect();
        assert!(left.is_empty(), "{left:?} are left");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: u32, name: &str) {
    let mut kill = std::process::Command::new("kill");
    let status = kill.args([&format!("-{name}"), &process.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {process}");
}

/// The state and the parent of a process, while there is one.
fn state_and_parent(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // They follow the program's name, which is in parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// An orphan that has ended and that nobody waited for does nothing any more.
fn is_alive(process: u32) -> bool {
    state_and_parent(process).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

fn nodes_below(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    let mut found: Vec<u32> = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|process| state_and_parent(*process).is_some_and(|(_, found)| found == parent))
        .collect();
    found.sort_unstable();
    found
}

/// The node that most nodes of the running demo follow.
fn leader(cluster: &TestCluster) -> &Node {
    let followed = wait_for(PATIENCE, || {
        let reports = cluster.client().status();
        let leaders: Vec<_> =
            reports.iter().filter_map(|report| report.status.as_ref().ok()?.leader).collect();
        let first = *leaders.first()?;
        (leaders.iter().all(|leader| *leader == first)).then_some(first)
    });
    let followed = followed.expect("a leader");
    cluster.nodes.iter().find(|node| node.id == followed.0).expect("it is a member")
}

/// A demo on free ports that serves.
fn ready(count: u32) -> (TestCluster, Demo) {
    let cluster = TestCluster::prepare(count, Settings::default());
    let demo = Demo::launch(&[], cluster.directory());
    let ready = wait_for(PATIENCE, || demo.says("Ctrl-C ends all").then_some(()));
    assert!(ready.is_some(), "not ready:\n{}", demo.output());
    (cluster, demo)
}

/// Runs it to its end: exit status and what it said.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = daemon(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn it_serves_says_what_to_try_and_goes_on_with_the_same_data() {
    let (cluster, mut demo) = ready(5);
    let said = demo.output();
    let line = said.lines().find(|line| line.starts_with("demo   | ready after ")).expect("it says how long");
    assert!(line.contains(" s: node ") && line.contains("leads 5 nodes"), "{line}");
    for node in &cluster.nodes {
        let own = format!("node {} | ", node.id);
        assert!(
            said.lines().any(|line| line.starts_with(&own) && line.contains("is ready")),
            "{own}\n{said}"
        );
        assert!(said.contains(&node.client), "a command names every node");
    }
    let prefixed = said.split("\nTry").next().unwrap().lines();
    for line in prefixed.filter(|line| !line.is_empty()) {
        assert!(line.starts_with("demo   | ") || line.starts_with("node "), "whose line is it? {line}");
    }
    // The commands are to be copied: they are run as they stand.
    let command = |part: &str| {
        let line = said.lines().find(|line| line.starts_with("    ") && line.contains(part));
        line.unwrap_or_else(|| panic!("no command with `{part}`:\n{said}")).trim().to_owned()
    };
    let (_, servers) =
        command(" write greeting").split_once(" -s ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let servers: Vec<&str> = servers.split(' ').next().unwrap().split(',').collect();
    assert_eq!(servers.len(), 5);
    let leader = leader(&cluster);
    let port = leader.text.rsplit_once(':').unwrap().1;
    assert!(command("nc -q1").ends_with(&format!(" 127.0.0.1 {port}")), "the leader answers text clients");
    let metrics = command("curl http://");
    assert!(metrics.starts_with(&format!("curl http://{}/metrics ", cluster.nodes[0].http)), "{metrics}");
    assert!(metrics.ends_with(&cluster.nodes[4].http), "it says where the other pages are: {metrics}");
    assert!(command("kill -9 ").contains(&format!("# node {}", leader.id)));

    let version = cluster.client().write("greeting", &b"hello"[..], 0).unwrap();
    demo.ends_with("INT");
    assert!(demo.says("all nodes end"));

    // No number: the directory says how many there are.
    let mut again = Demo::launch(&[], cluster.directory());
    again.wait_until_it_says("demo   | ready after ");
    assert!(again.says("leads 5 nodes"));
    let file = cluster.client().read("greeting").unwrap();
    assert_eq!((file.version, &file.contents[..]), (version, &b"hello"[..]));
    again.ends_with("TERM");
}

#[test]
fn a_node_that_is_killed_is_started_again() {
    let (cluster, mut demo) = ready(3);
    let mut client = cluster.client();
    client.write("before", &b"x"[..], 0).unwrap();
    let nodes = nodes_below(demo.child.id());
    assert_eq!(nodes.len(), 3);
    let leader = leader(&cluster).id;
    let said = demo.output();
    // The process that the ready message offers.
    let offered = said.split("kill -9 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(nodes.contains(&offered));
    signal(offered, "KILL");
    demo.wait_until_it_says(&format!(
        "demo   | node {leader} was killed by signal 9; it is started again in 0.1 s"
    ));
    demo.wait_until_it_says(&format!("demo   | node {leader} was started again as process "));
    wait_until(PATIENCE, "all nodes answer", || client.status().iter().all(|report| report.status.is_ok()));
    client.write("after", &b"y"[..], 0).unwrap();

    // Killed again and again, it is waited for longer and longer.
    let fresh =
        nodes_below(demo.child.id()).into_iter().find(|id| !nodes.contains(id)).expect("a new process");
    signal(fresh, "KILL");
    demo.wait_until_it_says(&format!("node {leader} was killed by signal 9; it is started again in 0.2 s"));
    demo.ends_with("TERM");
}

#[test]
fn no_node_outlives_a_demo_that_is_killed() {
    let (cluster, mut demo) = ready(3);
    let nodes = nodes_below(demo.child.id());
    assert_eq!(nodes.len(), 3);
    demo.signal("KILL");
    demo.wait_for_end();
    wait_until(PATIENCE, "the nodes end", || !nodes.iter().any(|id| is_alive(*id)));
    // At once: whatever was left of the killed one does not stand in the way.
    let mut again = Demo::launch(&["3"], cluster.directory());
    again.wait_until_it_says("demo   | ready after ");
    again.ends_with("INT");
}

#[test]
fn a_node_that_stands_still_is_killed_in_the_end() {
    let (_cluster, mut demo) = ready(3);
    signal(nodes_below(demo.child.id())[1], "STOP");
    demo.ends_with("TERM");
    assert!(demo.says("does not end and is killed"));
}

#[test]
fn a_node_with_a_wrong_data_directory_is_reported_and_not_started_again() {
    let (cluster, mut demo) = ready(3);
    demo.ends_with("TERM");
    // The file says whose the directory is.
    let take_for_node_1 = |n: usize| {
        let [own, other] = [0, n].map(|n| cluster.nodes[n].data_dir.join("lock"));
        fs::copy(own, other).unwrap();
    };
    take_for_node_1(1);
    let mut again = Demo::launch(&[], cluster.directory());
    again.wait_until_it_says("demo   | node 2 ended with exit status 2; it is not started again");
    again.wait_until_it_says("demo   | ready after ");
    assert_eq!(again.output().matches("demo   | node 2 ").count(), 1);
    again.ends_with("TERM");

    // Without a majority there is nothing to run.
    take_for_node_1(2);
    let mut last = Demo::launch(&[], cluster.directory());
    assert_eq!(last.wait_for_end().code(), Some(2), "{}", last.output());
    assert!(last.says("2 of 3 nodes cannot run: no majority is left"));
}

#[test]
fn two_demos_do_not_share_a_directory() {
    let (cluster, mut demo) = ready(1);
    let directory = cluster.directory().to_str().unwrap();
    let (code, said) = refused(&["--demo", "--dir", directory]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("another demo runs there (process {})", demo.child.id())), "{said}");
    demo.ends_with("INT");
}

#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fresh");
    // Whether it is ours or another cluster's, the port is in use.
    let _held = TcpListener::bind("127.0.0.1:7001");
    let (code, said) = refused(&["--demo", "3", "--dir", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("127.0.0.1:7001 of node 1 is in use"), "{said}");
    // Its configurations are there, for other ports to be put in.
    for node in 1..=3 {
        assert!(
            fs::read_to_string(path.join(format!("node{node}.conf"))).unwrap().contains("127.0.0.1:7203")
        );
    }
    let (code, said) = refused(&["--demo=5", "--dir", path.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("has a cluster of 3"), "{said}");
}

#[test]
fn wrong_usage_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let below_file = format!("{file}/below");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--demo", "4"], 2, "--demo 4: a cluster has 1, 3, 5 or 7 nodes"),
        (&["--demo=0"], 2, "1, 3, 5 or 7"),
        (&["--demo", "many"], 2, "--demo many: a cluster has 1, 3, 5 or 7 nodes"),
        (&["--demo", "3", "5"], 2, "unexpected argument `5`"),
        (&["--demo", "-c", "conf/single.conf"], 2, "use one of them"),
        (&["--demo", "-t"], 2, "use one of them"),
        (&["--demo", "--exit-with-stdin"], 2, "use one of them"),
        (&["--dir", "x", "-c", "conf/single.conf"], 2, "--dir goes with --demo"),
        (&["--demo", "--dir", file], 2, "not a directory"),
        (&["--demo", "--dir", &below_file], 2, "not a directory"),
        // Nobody can make a directory there, not even root.
        (&["--demo", "--dir", "/proc/fsd-demo"], 1, "/proc/fsd-demo: "),
    ];
    for (arguments, code, reason) in cases {
        let (found, said) = refused(arguments);
        assert_eq!(found, Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn a_daemon_ends_with_its_standard_input_only_if_told_to() {
    let cluster = TestCluster::prepare(1, Settings::default());
    let conf = cluster.nodes[0].conf.to_str().unwrap();
    let (code, said) = refused(&["-c", conf, "--exit-with-stdin"]);
    assert_eq!(code, Some(2), "standard input is no pipe there: {said}");
    assert!(said.contains("--exit-with-stdin: standard input must be a pipe"), "{said}");

    let mut child = daemon(&["-c", conf, "--exit-with-stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut client = cluster.client();
    wait_until(PATIENCE, "it serves", || client.status()[0].status.is_ok());
    // What is written there means nothing.
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"quit\n").unwrap();
    client.write("a", &b"b"[..], 0).unwrap();
    drop(input);
    let status = wait_for(PATIENCE, || child.try_wait().unwrap()).expect("it ends");
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("ends with its starter"), "{said}");

    // An ordinary daemon's standard input may be closed at any time.
    let mut child = daemon(&["-c", conf]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdin.take());
    wait_until(PATIENCE, "it serves", || client.status()[0].status.is_ok());
    client.write("a", &b"c"[..], 0).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
