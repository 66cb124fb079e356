//! A dataset that is larger than the memory that its nodes may use: nothing of it may need to be in memory but the index.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fsd_wire::client::Outcome;

use crate::Error;
use crate::cluster::{Cluster, wait_until};
use crate::connection::Connection;
use crate::figures::{Figures, Goal};
use crate::fill::{Client, Files, mixed};
use crate::limiter::Limiter;
use crate::machine::{MIB, memory_bytes};

const PATIENCE: Duration = Duration::from_secs(1800);
const SIZES: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024;
/// Reads and writes that are asked for together.
const BATCH: u64 = 8;

pub(crate) struct MemoryLimit {
    pub(crate) nodes: usize,
    pub(crate) limit_bytes: u64,
    pub(crate) dataset_bytes: u64,
    /// How long reads and writes are measured, each.
    pub(crate) window: Duration,
}

impl MemoryLimit {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Error> {
        let limiter = Limiter::find(self.nodes, self.limit_bytes)?;
        println!("each node is limited to {:.0} MiB by {limiter}", self.limit_bytes as f64 / MIB);
        let mut figures = Figures::of("memory-limit");
        let files = Files::of_bytes("set", self.dataset_bytes, SIZES);
        let bytes = files.total_bytes() as f64;
        let mut cluster = Cluster::start_under(self.nodes, dir, "", |node| limiter.words(node))?;
        cluster.leader()?;
        let nodes = cluster.clients();
        figures.put("dataset against the limit of memory", bytes / self.limit_bytes as f64, "");

        let begin = Instant::now();
        files.fill(&nodes, 0)?;
        figures.put("filled at", bytes / MIB / begin.elapsed().as_secs_f64(), "MiB/s");
        for node in 0..self.nodes {
            cluster.wait_for_apply(node, PATIENCE)?;
        }
        figures.put("random reads", self.read_at_random(&cluster, &files)? / MIB, "MiB/s");
        figures.put("random overwrites", self.write_at_random(&cluster, &files)? / MIB, "MiB/s");

        let follower = cluster.follower()?;
        cluster.kill(follower)?;
        let begin = Instant::now();
        cluster.launch(follower)?;
        wait_until(PATIENCE, "the node does not answer in time", || cluster.status(follower).ok())?;
        figures.put("a node that was killed answers after", begin.elapsed().as_secs_f64(), "s");
        cluster.wait_for_apply(follower, PATIENCE)?;
        cluster.kill(follower)?;
        cluster.wipe(follower)?;
        let begin = Instant::now();
        cluster.launch(follower)?;
        cluster.wait_for_apply(follower, PATIENCE)?;
        figures.put(
            "a node that was wiped has all again at",
            bytes / MIB / begin.elapsed().as_secs_f64(),
            "MiB/s",
        );
        self.check_all(&cluster, follower, &files)?;

        let mut anonymous: u64 = 0;
        for node in 0..self.nodes {
            anonymous = anonymous.max(memory_bytes(cluster.process_id(node)?, "RssAnon")?);
        }
        figures.put("memory of a node beside mapped files, at the end", anonymous as f64 / MIB, "MiB");
        let ended = cluster.ended()?.len();
        figures.judge("nodes that ended by themselves, or were killed", ended as f64, "", Goal::AtMost(0.0));
        figures.print();
        Ok(())
    }

    /// Bytes per second that the leader reads out.
    fn read_at_random(&self, cluster: &Cluster, files: &Files) -> Result<f64, Error> {
        let mut connection = Connection::open(cluster.client(cluster.leader()?))?;
        let begin = Instant::now();
        let (mut bytes, mut drawn) = (0, 0);
        while begin.elapsed() < self.window {
            let reads = (drawn..drawn + BATCH).map(|at| files.read(mixed(at) % files.count)).collect();
            drawn += BATCH;
            for outcome in connection.ask(reads)? {
                let Outcome::Read { contents, .. } = outcome else {
                    return Err(format!("a file was not read: {outcome:?}").into());
                };
                bytes += contents.len();
            }
        }
        Ok(bytes as f64 / begin.elapsed().as_secs_f64())
    }

    /// Bytes per second that are written over what there is.
    fn write_at_random(&self, cluster: &Cluster, files: &Files) -> Result<f64, Error> {
        let nodes = cluster.clients();
        let mut client = Client::new(&nodes);
        let begin = Instant::now();
        let (mut bytes, mut drawn) = (0, 0);
        while begin.elapsed() < self.window {
            let numbers: Vec<u64> = (drawn..drawn + BATCH).map(|at| mixed(!at) % files.count).collect();
            drawn += BATCH;
            client.change_all(|| numbers.iter().map(|number| files.write(*number, 0)).collect())?;
            bytes += numbers.iter().map(|number| files.size(*number)).sum::<usize>();
        }
        Ok(bytes as f64 / begin.elapsed().as_secs_f64())
    }

    /// Reads all files at a node.
    fn check_all(&self, cluster: &Cluster, node: usize, files: &Files) -> Result<(), Error> {
        let mut connection = Connection::open(cluster.client(node))?;
        for begin in (0..files.count).step_by(BATCH as usize) {
            let numbers = begin..(begin + BATCH).min(files.count);
            let outcomes = connection.ask(numbers.clone().map(|number| files.read(number)).collect())?;
            for (number, outcome) in numbers.zip(outcomes) {
                // Each round writes the same bytes.
                if !matches!(&outcome, Outcome::Read { contents, .. } if *contents == files.contents(number, 0))
                {
                    return Err(format!("file {number} is not what was written").into());
                }
            }
        }
        Ok(())
    }
}

/// Whether a command can be run and succeeds.
pub(crate) fn succeeds(words: &[&str]) -> bool {
    let [program, arguments @ ..] = words else { return false };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
