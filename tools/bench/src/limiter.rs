//! How a node's memory is limited, by what the system has for it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::memory_limit::succeeds;

const GROUPS: &str = "/sys/fs/cgroup";

/// The way that was found.
pub(crate) enum Limiter {
    /// A scope of the system's manager for each node.
    Scope { limit_bytes: u64 },
    /// A control group for each node, below that of this process; they end with it.
    Groups { file: &'static str, groups: Vec<PathBuf> },
    /// A limit on memory of its own: mapped files do not count.
    Rlimit { limit_bytes: u64 },
}

impl Limiter {
    /// Tries them in turn: the limit on memory of its own is the last, because the page cache is not part of it.
    pub(crate) fn find(nodes: usize, limit_bytes: u64) -> Result<Self, Error> {
        let property = format!("MemoryMax={limit_bytes}");
        if succeeds(&["systemd-run", "--scope", "--quiet", "-p", &property, "true"]) {
            return Ok(Self::Scope { limit_bytes });
        }
        if let Some(groups) = make_groups(nodes, limit_bytes) {
            return Ok(groups);
        }
        let data = format!("--data={limit_bytes}");
        if succeeds(&["prlimit", &data, "true"]) {
            return Ok(Self::Rlimit { limit_bytes });
        }
        Err("no way to limit the memory of a process was found".into())
    }

    /// What stands before the daemon on its command line.
    pub(crate) fn words(&self, node: usize) -> Vec<String> {
        let words: Vec<&str> = match self {
            Self::Scope { .. } => vec!["systemd-run", "--scope", "--quiet", "-p"],
            Self::Groups { .. } => vec!["sh", "-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""],
            Self::Rlimit { .. } => vec!["prlimit"],
        };
        let last = match self {
            Self::Scope { limit_bytes } => format!("MemoryMax={limit_bytes}"),
            Self::Groups { groups, .. } => groups[node].display().to_string(),
            Self::Rlimit { limit_bytes } => format!("--data={limit_bytes}"),
        };
        words.into_iter().map(str::to_owned).chain([last]).collect()
    }
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope { .. } => f.write_str("systemd-run --scope -p MemoryMax, mapped files included"),
            Self::Groups { file, .. } => write!(f, "a control group's {file}, mapped files included"),
            Self::Rlimit { .. } => f.write_str("RLIMIT_DATA: mapped files are not part of it"),
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        if let Self::Groups { groups, .. } = self {
            // The processes in them have ended; if one has not, its group stays.
            groups.iter().for_each(|group| drop(fs::remove_dir(group)));
        }
    }
}

/// Makes a group for each node below the one that this process is in, whose own limits so go on to hold.
fn make_groups(nodes: usize, limit_bytes: u64) -> Option<Limiter> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path_behind = |marker: &str| {
        own.lines()
            .find_map(|line| line.split_once(':')?.1.strip_prefix(marker))
            .map(|path| path.trim_start_matches('/'))
    };
    let ways = [
        (
            path_behind("memory:").map(|path| Path::new(GROUPS).join("memory").join(path)),
            "memory.limit_in_bytes",
        ),
        (path_behind(":").map(|path| Path::new(GROUPS).join(path)), "memory.max"),
    ];
    for (parent, file) in ways {
        let Some(parent) = parent else { continue };
        let groups: Vec<PathBuf> =
            (1..=nodes).map(|node| parent.join(format!("fsd-bench-{}-{node}", std::process::id()))).collect();
        let limiter = Limiter::Groups { file, groups: groups.clone() };
        let is_made = |group: &PathBuf| {
            fs::create_dir(group).and_then(|()| fs::write(group.join(file), limit_bytes.to_string())).is_ok()
        };
        if groups.iter().all(is_made) {
            return Some(limiter);
        }
    }
    None
}
