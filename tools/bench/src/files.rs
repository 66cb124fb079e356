//! Many small files: the memory that each of them takes, and how soon a node that was killed has all of them again.

use std::path::Path;
use std::time::{Duration, Instant};

use fsd_wire::client::Outcome;

use crate::Error;
use crate::cluster::{Cluster, wait_until};
use crate::connection::Connection;
use crate::figures::{Figures, Goal};
use crate::fill::Files;
use crate::machine::{median, memory_bytes, settle};

const PATIENCE: Duration = Duration::from_secs(600);
/// What the kernel says of memory: what a process has of its own, and that with the mapped pages of the log.
const KEYS: [&str; 2] = ["RssAnon", "VmRSS"];

pub(crate) struct ManyFiles {
    pub(crate) nodes: usize,
    pub(crate) count: u64,
    pub(crate) bytes: usize,
    pub(crate) rounds: usize,
}

impl ManyFiles {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Error> {
        let mut figures = Figures::of("files");
        let files = Files::new("f", self.count, self.bytes..=self.bytes);
        let mut cluster = Cluster::start(self.nodes, dir, "")?;
        let leader = cluster.leader()?;
        // Of an empty one: what a start costs that has nothing to read.
        let empty_start = self.restart(&mut cluster, leader, &files)?;
        let empty = self.memory(&cluster)?;
        let begin = Instant::now();
        files.fill(&cluster.clients(), 0)?;
        figures.put(
            format!("{} files of {} B, {} nodes: filled at", self.count, self.bytes, self.nodes),
            self.count as f64 / begin.elapsed().as_secs_f64(),
            "files/s",
        );
        for node in 0..self.nodes {
            cluster.wait_for_apply(node, PATIENCE)?;
        }
        settle();
        self.judge_memory(&cluster, empty, &files, "as they were written", &mut figures)?;

        let mut starts = Vec::new();
        let victim = cluster.leader()?;
        for _ in 0..self.rounds {
            starts.push(self.restart(&mut cluster, victim, &files)?);
        }
        let (recovered, ready): (Vec<f64>, Vec<f64>) = starts.into_iter().unzip();
        let ready = median(ready);
        figures.put("start after kill -9: until it answers", median(recovered), "s");
        figures.judge("start after kill -9: until it is ready", ready, "s", Goal::AtMost(3.0));
        figures.put("the same, without files", empty_start.1, "s");
        figures.put("with files against without", ready / empty_start.1, "");
        if self.nodes == 1 {
            self.judge_memory(&cluster, empty, &files, "after the start", &mut figures)?;
        }
        figures.print();
        Ok(())
    }

    /// The most that a node has, by each of the keys.
    fn memory(&self, cluster: &Cluster) -> Result<[u64; 2], Error> {
        let mut most = [0; 2];
        for node in 0..self.nodes {
            for (most, key) in most.iter_mut().zip(KEYS) {
                *most = memory_bytes(cluster.process_id(node)?, key)?.max(*most);
            }
        }
        Ok(most)
    }

    fn judge_memory(
        &self,
        cluster: &Cluster,
        empty: [u64; 2],
        files: &Files,
        when: &str,
        figures: &mut Figures,
    ) -> Result<(), Error> {
        let full = self.memory(cluster)?;
        let per_file = |at: usize| {
            full[at].saturating_sub(empty[at]) as f64 / self.count as f64 - files.name_bytes() as f64
        };
        let what = format!("memory per file beside its name of {} B, {when}", files.name_bytes());
        figures.judge(what, per_file(0), "B", Goal::AtMost(200.0));
        figures.put("the same with mapped pages of the log", per_file(1), "B");
        Ok(())
    }

    /// Kills a node and starts it; seconds until it answers, and until it reads a file as of now.
    fn restart(&self, cluster: &mut Cluster, at: usize, files: &Files) -> Result<(f64, f64), Error> {
        cluster.kill(at)?;
        // The others elect a leader meanwhile: that is not what is measured.
        if self.nodes > 1 {
            wait_until(PATIENCE, "no leader was found in time", || {
                (0..self.nodes).find(|node| *node != at && cluster.leads(*node))
            })?;
        }
        let begin = Instant::now();
        cluster.launch(at)?;
        wait_until(PATIENCE, "the node does not answer in time", || cluster.status(at).ok())?;
        let recovered = begin.elapsed().as_secs_f64();
        let reads = || -> Result<bool, Error> {
            let outcome = Connection::open(cluster.client(at))?.ask_one(files.read(0))?;
            Ok(match outcome {
                Outcome::Read { .. } => true,
                Outcome::Refused(refusal) => refusal == fsd_wire::client::Refusal::NotFound,
                _ => false,
            })
        };
        wait_until(PATIENCE, "the node is not ready in time", || reads().ok().filter(|done| *done))?;
        Ok((recovered, begin.elapsed().as_secs_f64()))
    }
}
