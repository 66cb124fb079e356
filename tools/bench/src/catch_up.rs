//! How soon a follower that lost everything has it again, against what the disk can do.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Error;
use crate::cluster::Cluster;
use crate::figures::{Figures, Goal};
use crate::fill::Files;
use crate::machine::{MIB, median, sequential_write, settle};
use crate::paced::{Paced, compare};

const PATIENCE: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_secs(10);
const GIB: u64 = 1024 * 1024 * 1024;

pub(crate) struct CatchUp {
    pub(crate) nodes: usize,
    pub(crate) bytes: u64,
    pub(crate) rounds: usize,
}

impl CatchUp {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Error> {
        let mut figures = Figures::of("catch-up");
        let large = Files::of_bytes("large", self.bytes, 64 * 1024..=1024 * 1024);
        self.measure(dir, &large, "files of 64 KiB to 1 MiB", &mut figures)?;
        let small = Files::new("small", 1_000_000 * self.bytes.div_ceil(GIB), 256..=256);
        self.measure(dir, &small, "files of 256 B", &mut figures)?;
        figures.print();
        Ok(())
    }

    fn measure(&self, dir: &Path, files: &Files, what: &str, figures: &mut Figures) -> Result<(), Error> {
        let dir = tempfile::tempdir_in(dir)?;
        let mut cluster = Cluster::start(self.nodes, dir.path(), "")?;
        cluster.leader()?;
        let begin = Instant::now();
        files.fill(&cluster.clients(), 0)?;
        let bytes = files.total_bytes();
        figures.put(
            format!("{} {what}: filled at", files.count),
            bytes as f64 / MIB / begin.elapsed().as_secs_f64(),
            "MiB/s",
        );
        let follower = cluster.follower()?;
        cluster.wait_for_apply(follower, PATIENCE)?;
        settle();

        let (mut rates, mut disks, mut quiet, mut busy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let term = cluster.status(cluster.leader()?)?.term;
        let paced = Paced::new(dir.path())?;
        let nodes = cluster.clients();
        paced.beside(&nodes, || {
            for _ in 0..self.rounds {
                paced.take();
                std::thread::sleep(QUIET);
                quiet.push(paced.take());
                // A follower that is killed is missed by nobody but the leader.
                let follower = cluster.follower()?;
                cluster.kill(follower)?;
                cluster.wipe(follower)?;
                paced.take();
                let begin = Instant::now();
                cluster.launch(follower)?;
                cluster.wait_for_apply(follower, PATIENCE)?;
                rates.push(bytes as f64 / begin.elapsed().as_secs_f64());
                busy.push(paced.take());
                disks.push(sequential_write(dir.path(), bytes)?);
                settle();
            }
            Ok(())
        })?;
        let elections = cluster.status(cluster.leader()?)?.term.0 - term.0;
        let (rate, disk) = (median(rates), median(disks));
        figures.put(format!("{what}: seconds until a wiped follower has them"), bytes as f64 / rate, "s");
        figures.put(format!("{what}: that is"), rate / MIB, "MiB/s");
        figures.put("the disk, written from beginning to end", disk / MIB, "MiB/s");
        figures.judge(format!("{what}: share of the disk's speed"), rate / disk, "", Goal::AtLeast(0.5));
        compare(&quiet, &busy, "during the catch-up", figures);
        figures.judge(format!("{what}: elections meanwhile"), elections as f64, "", Goal::AtMost(0.0));
        Ok(())
    }
}
