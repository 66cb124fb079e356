//! Backups of real clusters, and real clusters out of backups.

// Tests stand outside the daemon: files and threads are theirs.
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use fsclient::{
    AttemptError, BackupProgress, BackupSink, BackupSummary, Client, FileContents, verify_backup,
};
use fsd_wire::store_stream::{FILE_ITEM_HEAD_BYTES, PART_HEAD_BYTES, PREAMBLE_BYTES};

use support::{PATIENCE, Settings, TestCluster, daemon, wait_until};

/// Takes a backup into memory; `at_first` is called once, when the first bytes have come.
struct Taken<F: FnMut()> {
    bytes: Vec<u8>,
    begun: u32,
    at_first: Option<F>,
}

impl<F: FnMut()> BackupSink for Taken<F> {
    fn begin(&mut self, lost: Option<&AttemptError>) -> io::Result<()> {
        assert_eq!(lost.is_some(), self.begun > 0);
        self.bytes.clear();
        self.begun += 1;
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], _progress: &BackupProgress<'_>) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if let Some(mut at_first) = self.at_first.take() {
            at_first();
        }
        Ok(())
    }
}

fn take_backup(client: &mut Client) -> (Vec<u8>, BackupSummary) {
    let mut taken = Taken { bytes: Vec::new(), begun: 0, at_first: None::<fn()> };
    let summary = client.backup(&mut taken).unwrap();
    assert_eq!(verify_backup(&mut &taken.bytes[..], |_| {}).unwrap(), summary);
    (taken.bytes, summary)
}

/// The names of the files in a backup.
fn names_in(backup: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = &backup[PREAMBLE_BYTES..];
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[1..5].try_into().unwrap()) as usize;
        let (part, behind) = rest.split_at(PART_HEAD_BYTES + len);
        if part[0] == 2 {
            let item = &part[PART_HEAD_BYTES..];
            let name_len = usize::from(u16::from_le_bytes(item[..2].try_into().unwrap()));
            let name = &item[FILE_ITEM_HEAD_BYTES..FILE_ITEM_HEAD_BYTES + name_len];
            names.push(String::from_utf8(name.to_vec()).unwrap());
        }
        rest = behind;
    }
    names
}

fn restore(backup: &Path, conf: &Path) -> Output {
    daemon(&["--restore", backup.to_str().unwrap(), "-c", conf.to_str().unwrap()]).output().unwrap()
}

fn assert_restored(backup: &Path, conf: &Path) {
    let output = restore(backup, conf);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// It ends with this status, and says this.
fn assert_ends(output: &Output, status: i32, says: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(says), "{text}");
}

/// Everything in a cluster, by its names.
fn all_files(client: &mut Client) -> BTreeMap<String, FileContents> {
    let names: Vec<String> = client.list("").unwrap().into_iter().map(|info| info.name).collect();
    names.into_iter().map(|name| (name.clone(), client.read(&name).unwrap())).collect()
}

fn assert_same_files(found: &BTreeMap<String, FileContents>, expected: &BTreeMap<String, FileContents>) {
    assert!(found.keys().eq(expected.keys()));
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.version, expected.version, "{name}");
        assert!(found.contents == expected.contents, "{name}");
        let expires = (found.expiry_seconds > 0, expected.expiry_seconds > 0);
        assert_eq!(expires.0, expires.1, "{name}");
        assert!(found.expiry_seconds <= expected.expiry_seconds, "{name}");
        assert!(found.expiry_seconds + 60 >= expected.expiry_seconds, "{name}");
    }
}

fn contents(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|n| (seed * 37 + n * n / 11) as u8).collect()
}

/// Files of several sizes, some with an expiry, some overwritten, some gone again.
fn fill(client: &mut Client) {
    for (n, size) in [0, 1, 700, 5000, 70_000, 1_000_000, 300_000, 40].into_iter().enumerate() {
        let ttl = if n % 3 == 1 { 3600 } else { 0 };
        client.write(&format!("files/{n}"), contents(n, size), ttl).unwrap();
        client.write(&format!("again/{n}"), contents(n, 1000), 0).unwrap();
        client.write(&format!("again/{n}"), contents(n + 1, size), 0).unwrap();
        client.write(&format!("gone/{n}"), contents(n, size), ttl).unwrap();
    }
    for n in 0..8 {
        client.delete(&format!("gone/{n}"), None).unwrap();
    }
}

fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        fs::copy(item.path(), to.join(item.file_name())).unwrap();
    }
}

#[test]
fn a_backup_under_load_is_of_one_moment_at_any_node() {
    let cluster = TestCluster::start(3);
    fill(&mut cluster.client());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = cluster.client();
            for n in 0.. {
                for half in ["first", "second"] {
                    client.write(&format!("{half}/{n}"), contents(n, 100), 0).unwrap();
                }
                client.delete(&format!("first/{}", n / 2), None).ok();
                client.delete(&format!("second/{}", n / 2), None).ok();
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut writer = cluster.client();
        for round in 0..6 {
            let version = writer.write("before", contents(round, 10), 0).unwrap();
            let node = round % 3;
            let (backup, summary) = take_backup(&mut cluster.client_of(&[node]));
            assert!(summary.head.revision >= version, "node {node} was behind the request");
            assert_one_moment(&names_in(&backup));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// The second half of a pair is written behind the first, and deleted behind it.
fn assert_one_moment(names: &[String]) {
    let of = |half: &str| -> Vec<u32> {
        names.iter().filter_map(|name| name.strip_prefix(half)?.parse().ok()).collect()
    };
    let (first, second) = (of("first/"), of("second/"));
    // One pair may be half written, and one half deleted; so each side has one at most that the other lacks.
    let only_first: Vec<_> = first.iter().filter(|n| !second.contains(n)).collect();
    let only_second: Vec<_> = second.iter().filter(|n| !first.contains(n)).collect();
    assert!(only_first.len() <= 1 && only_second.len() <= 1, "{only_first:?} {only_second:?}");
    assert!(only_first.is_empty() || only_second.is_empty(), "{only_first:?} {only_second:?}");
    assert!(only_first.iter().all(|n| Some(*n) == first.iter().max()), "{only_first:?} of {first:?}");
    assert!(
        only_second.iter().all(|n| second.iter().max() != Some(*n) || second.len() == 1),
        "{only_second:?}"
    );
}

#[test]
fn a_backup_goes_on_elsewhere_when_its_node_is_killed() {
    let mut cluster = TestCluster::start(3);
    let mut client = cluster.client();
    for n in 0..6 {
        client.write(&format!("f{n}"), contents(n, 1_000_000), 0).unwrap();
    }
    let leader = cluster.wait_for_leader();
    let mut taken = Taken { bytes: Vec::new(), begun: 0, at_first: Some(|| cluster.kill_9(leader)) };
    let summary = client.backup(&mut taken).unwrap();
    assert_eq!((taken.begun, summary.head.files), (2, 6));
    assert_eq!(verify_backup(&mut &taken.bytes[..], |_| {}).unwrap(), summary);
}

#[test]
fn a_cluster_out_of_a_backup_has_every_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let old_data = directory.path().join("old");
    let (backup, expected, revision) = {
        let mut cluster = TestCluster::start(3);
        fill(&mut cluster.client());
        let node = cluster.a_follower();
        let (backup, summary) = take_backup(&mut cluster.client_of(&[node]));
        let expected = all_files(&mut cluster.client());
        cluster.kill_all();
        copy_directory(&cluster.nodes[2].data_dir, &old_data);
        (backup, expected, summary.head.revision)
    };
    let file = write_file(directory.path(), "backup", &backup);
    let mut cluster = TestCluster::prepare(3, Settings::default());
    let confs: Vec<PathBuf> = cluster.nodes.iter().map(|node| node.conf.clone()).collect();
    let conf = |n: usize| confs[n].clone();

    let missing = directory.path().join("missing");
    assert_ends(&restore(&missing, &conf(0)), 1, "cannot read the backup");
    assert_ends(&restore(&file, &missing), 2, "missing");
    let short = write_file(directory.path(), "short", &backup[..backup.len() - 1]);
    assert_ends(&restore(&short, &conf(0)), 1, "cut short");
    let mut damaged = backup.clone();
    damaged[backup.len() / 2] ^= 4;
    let damaged = write_file(directory.path(), "damaged", &damaged);
    assert_ends(&restore(&damaged, &conf(0)), 1, "not a whole backup: part ");
    assert_ends(&restore(&conf(0), &conf(0)), 1, "no stream of a store");

    assert_restored(&file, &conf(0));
    assert_restored(&file, &conf(1));
    assert_ends(&restore(&file, &conf(1)), 1, "the data directory is not empty");
    // The third one begins empty.
    cluster.launch(&[0, 1, 2]);
    cluster.wait_for_leader();
    assert_ends(&restore(&file, &conf(1)), 1, "in use by another process");
    cluster.wait_until_caught_up(&[0, 1, 2]);
    for n in 0..3 {
        assert_same_files(&all_files(&mut cluster.client_of(&[n])), &expected);
    }
    let mut client = cluster.client();
    let version = client.write("files/0", b"new".to_vec(), 0).unwrap();
    assert_eq!(version.0, revision.0 + 1);
    // A node of the old cluster, of the same name and at the same address, has no part in it.
    cluster.kill_9(2);
    cluster.nodes[2].wipe();
    copy_directory(&old_data, &cluster.nodes[2].data_dir);
    cluster.launch(&[2]);
    wait_until(PATIENCE, "it is told that it does not belong here", || {
        cluster.nodes[2].output().contains("it belongs to another cluster of the same name")
    });
    assert_eq!(client.read("files/0").unwrap().version, version);
    // Nor has it taken anything of it.
    let status = cluster.client_of(&[2]).status().remove(0).status.unwrap();
    assert!(status.revision.0 <= revision.0 && status.leader.is_none(), "{status:?}");
}

#[test]
fn a_cluster_of_one_out_of_a_larger_one() {
    let directory = tempfile::tempdir().unwrap();
    let (backup, expected) = {
        let cluster = TestCluster::start(3);
        fill(&mut cluster.client());
        (take_backup(&mut cluster.client()).0, all_files(&mut cluster.client()))
    };
    let file = write_file(directory.path(), "backup", &backup);
    let mut cluster = TestCluster::prepare(1, Settings::default());
    assert_restored(&file, &cluster.nodes[0].conf);
    let checked = daemon(&["-t", "-c", cluster.nodes[0].conf.to_str().unwrap()]).output().unwrap();
    assert_ends(&checked, 0, "of 16 files and 0 sessions as of entry");
    for _ in 0..2 {
        cluster.launch(&[0]);
        cluster.wait_for_leader();
        assert_same_files(&all_files(&mut cluster.client()), &expected);
        cluster.kill_9(0);
    }
    cluster.launch(&[0]);
    // A backup of it is of the new cluster.
    let (_, summary) = take_backup(&mut cluster.client());
    assert_eq!(summary.head.files, expected.len() as u64);
}

#[test]
fn a_restoration_that_was_killed_is_no_node_and_can_be_done_again() {
    let directory = tempfile::tempdir().unwrap();
    let backup = {
        let cluster = TestCluster::start(1);
        fill(&mut cluster.client());
        take_backup(&mut cluster.client()).0
    };
    let mut cluster = TestCluster::prepare(1, Settings::default());
    let (conf, data) = (cluster.nodes[0].conf.clone(), cluster.nodes[0].data_dir.clone());
    // A pipe gives out half of it and no more.
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut restoring = daemon(&["--restore", pipe.to_str().unwrap(), "-c", conf.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut half = OpenOptions::new().write(true).open(&pipe).unwrap();
    half.write_all(&backup[..backup.len() / 2]).unwrap();
    wait_until(PATIENCE, "contents are written", || {
        let names = fs::read_dir(&data).map(|items| items.count()).unwrap_or(0);
        names > 2
    });
    restoring.kill().unwrap();
    restoring.wait().unwrap();

    for arguments in [&["-c"][..], &["-t", "-c"]] {
        let output = daemon(&[arguments, &[conf.to_str().unwrap()]].concat()).output().unwrap();
        assert_ends(&output, 1, "a backup was being restored, and that came to no end");
    }
    let file = write_file(directory.path(), "backup", &backup);
    assert_restored(&file, &conf);
    cluster.launch(&[0]);
    cluster.wait_for_leader();
    assert_eq!(all_files(&mut cluster.client()).len(), 16);
}
