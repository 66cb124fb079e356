//! Faults of the machine and of its operator: a daemon ends or refuses, says why, and what was acknowledged is
//! still there.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Ledger, Mount, Node, Settings, TestCluster, daemon, wait_for};

/// A fault at run time.
const EXIT_FAULT: i32 = 1;
/// Wrong usage or configuration.
const EXIT_USAGE: i32 = 2;

/// Launches a node that must end by itself with this exit status, and returns what it said.
fn end_of(node: &mut Node, expected: i32) -> String {
    node.launch();
    let status = node.wait_for_end();
    let output = node.output();
    assert_eq!(status.code(), Some(expected), "{output}");
    output
}

fn fill(ledger: &mut Ledger, cluster: &TestCluster, count: u32) {
    let mut client = cluster.client();
    for n in 0..count {
        assert!(ledger.write(&mut client, &format!("f/{n}"), format!("contents number {n}.").as_bytes()));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = TestCluster::prepare(1, Settings::default());
    let node = &cluster.nodes[0];
    for address in [node.peer.clone(), node.client.clone(), node.text.clone()] {
        let node = &mut cluster.nodes[0];
        let holder = TcpListener::bind(&address).unwrap();
        let output = end_of(node, EXIT_FAULT);
        assert!(output.contains(&address) && output.contains("in use"), "{output}");
        drop(holder);
        std::fs::remove_file(&node.output).unwrap();
    }
    cluster.launch(&[0]);
    cluster.wait_for_leader();
}

#[test]
fn clients_never_take_the_descriptors_that_the_peers_need() {
    let mut cluster = TestCluster::prepare(3, Settings::default());
    cluster.nodes[0].launch_under("sh", &["-c", "ulimit -n 160 && exec \"$0\" \"$@\""]);
    let address = cluster.nodes[0].text.clone();
    let first = wait_for(support::PATIENCE, || TcpStream::connect(&address).ok());
    // More than there are descriptors; whoever finds no place is sent away.
    let crowd: Vec<_> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    cluster.nodes[1].launch();
    let client = cluster.client_of(&[1]);
    let leader = wait_for(support::PATIENCE, || client.status().remove(0).status.ok()?.leader);
    assert!(leader.is_some(), "with the third node down, these two must find each other");
    assert!(cluster.nodes[0].output().contains("max_clients"), "the node says that it takes fewer clients");
    drop((first, crowd));
}

#[test]
fn two_daemons_on_one_directory_are_one_too_many() {
    let mut cluster = TestCluster::start(1);
    let mut ledger = Ledger::default();
    fill(&mut ledger, &cluster, 10);
    // The same node and directory, on other ports.
    let mut second = TestCluster::prepare(1, Settings::default());
    point_to(&mut second.nodes[0], &cluster.nodes[0].data_dir);
    let output = end_of(&mut second.nodes[0], EXIT_FAULT);
    assert!(output.contains(&cluster.nodes[0].process_id().to_string()), "it names the holder: {output}");
    fill(&mut ledger, &cluster, 20);
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
}

/// Has a node use another's data directory.
fn point_to(node: &mut Node, data_dir: &Path) {
    let conf = std::fs::read_to_string(&node.conf).unwrap();
    let own = node.data_dir.to_str().unwrap();
    assert!(conf.contains(own));
    node.write_conf(&conf.replace(own, data_dir.to_str().unwrap()));
}

#[test]
fn the_directory_of_another_node_is_refused_and_left_as_it_was() {
    let mut cluster = TestCluster::start(3);
    let mut ledger = Ledger::default();
    fill(&mut ledger, &cluster, 10);
    cluster.kill_9(0);
    cluster.kill_9(1);
    let other = cluster.nodes[1].data_dir.clone();
    let own_conf = std::fs::read_to_string(&cluster.nodes[0].conf).unwrap();
    point_to(&mut cluster.nodes[0], &other);
    let output = end_of(&mut cluster.nodes[0], EXIT_USAGE);
    assert!(output.contains("node 2") && output.contains("node 1"), "it names both: {output}");
    cluster.nodes[0].write_conf(&own_conf);
    cluster.launch(&[0, 1]);
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let mut cluster = TestCluster::prepare(1, Settings::default());
    let data_dir = cluster.nodes[0].data_dir.clone();
    // A file in its place, and a directory that cannot be made, are refused for every user.
    std::fs::write(&data_dir, b"not a directory").unwrap();
    let output = end_of(&mut cluster.nodes[0], EXIT_FAULT);
    assert!(output.contains(&format!("{}: not a directory", data_dir.display())), "{output}");
    std::fs::remove_file(&data_dir).unwrap();

    std::fs::create_dir(&data_dir).unwrap();
    let Some(mount) = Mount::tmpfs(&data_dir, "ro") else {
        eprintln!("not tested: a read-only file system cannot be mounted here");
        return;
    };
    let output = end_of(&mut cluster.nodes[0], EXIT_FAULT);
    assert!(output.contains(data_dir.to_str().unwrap()) && output.contains("ead-only"), "{output}");
    drop(mount);
}

#[test]
fn a_failed_flush_ends_the_node_at_once_and_loses_nothing() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("not tested: strace, which makes flushes fail, is not there");
        return;
    }
    let mut cluster = TestCluster::start(3);
    let mut ledger = Ledger::default();
    for victim in [cluster.a_follower(), cluster.wait_for_leader()] {
        cluster.nodes[victim].terminate();
        // Detached, so that the child is the daemon. The flush fails once: a retry would succeed, and must not
        // be made.
        let inject = "inject=fdatasync,msync,fsync:error=EIO:when=60";
        let arguments =
            ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,msync,fsync", "-e", inject];
        cluster.nodes[victim].launch_under("strace", &arguments);
        let mut client = cluster.client();
        let ended = (0..2000).find_map(|n| {
            ledger.write(&mut client, &format!("v{victim}/{n}"), format!("{victim} {n}").as_bytes());
            cluster.nodes[victim].take_exit()
        });
        let status = ended.expect("the flush fails and the node ends");
        let output = cluster.nodes[victim].output();
        assert_eq!(status.code(), Some(EXIT_FAULT), "{output}");
        assert!(output.contains("Input/output error"), "{output}");
        cluster.restart(victim);
        cluster.wait_until_caught_up(&[victim]);
    }
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
}

#[test]
fn damage_below_the_durable_mark_is_refused_with_file_and_offset() {
    let mut cluster = TestCluster::start(3);
    let mut ledger = Ledger::default();
    fill(&mut ledger, &cluster, 100);
    let damaged = cluster.a_follower();
    cluster.wait_until_caught_up(&[damaged]);
    cluster.kill_9(damaged);
    let (segment, at) = find(&cluster.nodes[damaged].data_dir, b"contents number 10.");
    let original = flip_bit(&segment, at);

    let output = end_of(&mut cluster.nodes[damaged], EXIT_FAULT);
    let file = segment.file_name().unwrap().to_str().unwrap();
    assert!(output.contains(file) && output.contains("offset"), "{output}");
    // The check alone says it too, and starts nothing.
    let conf = cluster.nodes[damaged].conf.to_str().unwrap().to_owned();
    let check = daemon(&["-t", "-c", &conf]).output().unwrap();
    assert_eq!(check.status.code(), Some(EXIT_FAULT));
    assert!(String::from_utf8_lossy(&check.stderr).contains(file));

    // The others go on, and the node too once its disk is mended.
    let mut client = cluster.client();
    assert!(ledger.write(&mut client, "meanwhile", b"two of three"));
    std::fs::write(&segment, original).unwrap();
    cluster.restart(damaged);
    ledger.verify(&mut client);
    cluster.compare_all_nodes();
}

/// The file in `directory` that contains `bytes`, and where.
fn find(directory: &Path, bytes: &[u8]) -> (PathBuf, usize) {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let place = |path: PathBuf| {
        let at = std::fs::read(&path).unwrap().windows(bytes.len()).position(|window| window == bytes)?;
        Some((path, at))
    };
    files.into_iter().find_map(place).expect("what was written is in the log")
}

/// Flips a bit of a file, and returns its former bytes.
fn flip_bit(path: &Path, at: usize) -> Vec<u8> {
    let original = std::fs::read(path).unwrap();
    let mut bytes = original.clone();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    original
}

#[test]
fn the_check_tells_which_checkpoint_a_start_would_use_and_how_much_it_would_replay() {
    let settings = Settings { segment_mib: 1, max_file_bytes: 200_000, ..Settings::default() };
    let mut cluster = TestCluster::start_with(1, settings);
    let mut client = cluster.client();
    let data_dir = cluster.nodes[0].data_dir.clone();
    let checkpoints = || {
        let names = std::fs::read_dir(&data_dir).unwrap().map(|item| item.unwrap().path());
        let is_one = |path: &PathBuf| {
            path.extension().is_none()
                && path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-")
        };
        let mut found: Vec<PathBuf> = names.filter(is_one).collect();
        found.sort();
        found
    };
    let mut n = 0;
    while checkpoints().len() < 2 {
        client.write(&format!("f{}", n % 5), vec![n; 100_000], 0).unwrap();
        n = n.wrapping_add(1);
    }
    drop(client);
    cluster.kill_9(0);
    let conf = cluster.nodes[0].conf.to_str().unwrap().to_owned();
    let said = || {
        let check = daemon(&["-t", "-c", &conf]).output().unwrap();
        let said = String::from_utf8(check.stderr).unwrap();
        assert_eq!(check.status.code(), Some(0), "{said}");
        said
    };
    let [.., older, newest] = &checkpoints()[..] else { panic!("two checkpoints") };
    let whole = said();
    assert!(whole.contains(&format!("checkpoint: a start uses {}, of ", newest.display())), "{whole}");
    assert!(whole.contains(&format!("checkpoint: {} stands for it", older.display())), "{whole}");
    assert!(whole.contains(" entries would be applied again, "), "{whole}");
    assert!(
        whole.contains("disk: the data directory takes ") && whole.contains(" bytes are free"),
        "{whole}"
    );

    // The newest one is not whole: the check says so, and changes nothing; a start does as it says.
    flip_bit(newest, 600);
    let told = said();
    assert!(told.contains(&format!("checkpoint: a start uses {}, of ", older.display())), "{told}");
    let why = format!("checkpoint: a newer one does not count: {}: damaged at offset ", newest.display());
    assert!(told.contains(&why), "{told}");
    // How much is free on the disk is everybody's doing.
    let without_room = |said: &str| -> Vec<String> {
        said.lines().filter(|line| !line.contains(" bytes are free")).map(str::to_owned).collect()
    };
    assert!(newest.exists());
    assert_eq!(without_room(&said()), without_room(&told));
    cluster.launch(&[0]);
    let mut client = cluster.client();
    assert_eq!(client.read("f4").unwrap().contents.len(), 100_000);
}

#[test]
fn the_check_of_a_good_node_says_what_is_there_and_starts_nothing() {
    let mut cluster = TestCluster::start(1);
    let mut ledger = Ledger::default();
    fill(&mut ledger, &cluster, 10);
    assert!(cluster.nodes[0].terminate().success());
    let conf = cluster.nodes[0].conf.to_str().unwrap().to_owned();
    let check = daemon(&["-t", "-c", &conf]).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(said.contains("good, node 1 of 1") && said.contains("segment"), "it says what was found: {said}");
    cluster.launch(&[0]);
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
}

#[test]
fn wrong_usage_and_configuration_end_with_2() {
    let cluster = TestCluster::prepare(3, Settings::default());
    let conf = |change: &dyn Fn(&str) -> String| {
        let good = std::fs::read_to_string(&cluster.nodes[0].conf).unwrap();
        let path = cluster.directory().join("bad.conf");
        std::fs::write(&path, change(&good)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let check = |arguments: &[&str], word: &str| {
        let mut child = daemon(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = wait_for(support::PATIENCE, || child.try_wait().unwrap());
        if ended.is_none() {
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(EXIT_USAGE), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    };
    check(&[], "-c");
    check(&["--frobnicate"], "frobnicate");
    check(&["-c", "no/such.conf"], "no/such.conf");
    check(&["-c", &conf(&|good| format!("frobnicate = 1\n{good}"))], "frobnicate");
    check(&["-c", &conf(&|good| good.replacen("node = 1", "node = \"one\"", 1))], "node");
    check(&["-c", &conf(&|good| good.replacen("node = 1\n", "node = 9\n", 1))], "node");
    check(&["-c", &conf(&|good| good.replace(&cluster.nodes[1].client, &cluster.nodes[0].client))], "client");
    check(&["-c", &conf(&|good| good.replace("segment_mib = 2", "segment_mib = 0"))], "segment_mib");
    check(&["-c", &conf(&|good| good.replace("\"redirect\"", "\"sideways\""))], "writes");
}
