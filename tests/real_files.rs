//! Real input: thousands of files as they lie on this machine go into a cluster that loses its leader half way,
//! and come back as they were.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use fsclient::{Client, ClientError, Refusal};
use support::{Settings, TestCluster, wait_until};

const FILES_MIN: usize = 2000;
const FILES_MAX: usize = 4000;
const BYTES_MAX: u64 = 48 * 1024 * 1024;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const WRITERS: usize = 8;

/// A file on this machine, and its name in the cluster.
struct Source {
    path: PathBuf,
    name: String,
}

#[test]
fn the_sources_of_the_dependencies_come_back_as_they_were() {
    let sources = sources();
    let settings = Settings { segment_mib: 8, max_file_bytes: FILE_BYTES_MAX, ..Settings::default() };
    let mut cluster = TestCluster::start_with(5, settings);

    let next = AtomicUsize::new(0);
    let clients: Vec<Client> = (0..WRITERS).map(|_| cluster.client()).collect();
    std::thread::scope(|scope| {
        for client in clients {
            let (sources, next) = (&sources, &next);
            scope.spawn(move || write_all(client, sources, next));
        }
        wait_until(support::PATIENCE * 4, "half of the files are taken up", || {
            next.load(Ordering::SeqCst) >= sources.len() / 2
        });
        let leader = cluster.wait_for_leader();
        cluster.kill_9(leader);
    });

    let mut client = cluster.client();
    for source in &sources {
        let original = std::fs::read(&source.path).unwrap();
        let file = client.read(&source.name).unwrap_or_else(|e| panic!("{}: {e}", source.name));
        assert!(file.contents == original, "{}: not as it was", source.name);
    }
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    names.sort_unstable();
    let listed = client.list("").unwrap();
    assert!(listed.iter().map(|file| file.name.as_str()).eq(names), "the list names each file once");
    cluster.compare_all_nodes();
}

/// Writes files until none is left. An unknown outcome is no trouble here: the same write again does no harm.
fn write_all(mut client: Client, sources: &[Source], next: &AtomicUsize) {
    while let Some(source) = sources.get(next.fetch_add(1, Ordering::SeqCst)) {
        let contents = std::fs::read(&source.path).unwrap();
        loop {
            match client.write(&source.name, contents.clone(), 0) {
                Ok(_) => break,
                Err(ClientError::Unknown { .. }) => {}
                Err(ClientError::Refused(Refusal::TooLarge { .. })) => {
                    panic!("{}: {} bytes are not over the limit", source.name, contents.len());
                }
                Err(error) => panic!("{}: {error}", source.name),
            }
        }
    }
}

/// The files of the packages that this project is built from, as cargo has unpacked them.
fn sources() -> Vec<Source> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).unwrap();
    let root = cargo_home.join("registry").join("src");
    let mut sources = Vec::new();
    let mut bytes_left = BYTES_MAX;
    collect(&root, &root, &mut sources, &mut bytes_left);
    assert!(
        sources.len() >= FILES_MIN,
        "only {} usable files below {}: build the project once, so that cargo unpacks its dependencies",
        sources.len(),
        root.display()
    );
    sources
}

/// Adds the files below `directory` in the order of their names, so that each run has the same.
fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>, bytes_left: &mut u64) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut entries: Vec<std::fs::DirEntry> = entries.map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            collect(root, &path, sources, bytes_left);
        } else if kind.is_file() && sources.len() < FILES_MAX {
            let size = entry.metadata().unwrap().len();
            let name = path.strip_prefix(root).unwrap().to_str().map(str::to_owned);
            let usable = |name: &String| name.len() <= 1024 && !name.contains(char::is_whitespace);
            if let Some(name) = name.filter(usable)
                && size <= FILE_BYTES_MAX.min(*bytes_left)
            {
                *bytes_left -= size;
                sources.push(Source { path, name });
            }
        }
    }
}
