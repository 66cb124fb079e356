//! What checkpoints, cleaning and the catch-up of a wiped follower cost those who write meanwhile: the same light load in
//! quiet and busy phases, in turn.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::cluster::Cluster;
use crate::figures::Figures;
use crate::fill::{Client, Files, mixed};
use crate::machine::settle;
use crate::paced::{Paced, compare};

const PATIENCE: Duration = Duration::from_secs(120);
/// Small segments: all of it happens several times in each phase.
const CONFIGURATION: &str = "[log]\nsegment_mib = 16";
const SMALL_FILES: u64 = 200_000;
const SMALL_BYTES: usize = 256;
const LARGE_FILES: u64 = 2000;
const LARGE_BYTES: usize = 64 * 1024;
/// Large files that are overwritten in a second of a busy phase, so that there is something to check and to clean.
const OVERWRITES_PER_SECOND: u64 = 64;

pub(crate) struct Housekeeping {
    pub(crate) nodes: usize,
    pub(crate) rounds: usize,
    pub(crate) phase: Duration,
}

/// What happened in busy phases.
#[derive(Default)]
struct Happened {
    catch_ups: u64,
    checkpoints: BTreeSet<String>,
    segments: BTreeSet<String>,
    removed: usize,
}

impl Housekeeping {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Error> {
        let mut figures = Figures::of("housekeeping");
        let small = Files::new("small", SMALL_FILES, SMALL_BYTES..=SMALL_BYTES);
        let large = Files::new("large", LARGE_FILES, LARGE_BYTES..=LARGE_BYTES);
        let mut cluster = Cluster::start(self.nodes, dir, CONFIGURATION)?;
        cluster.leader()?;
        small.fill(&cluster.clients(), 0)?;
        large.fill(&cluster.clients(), 0)?;
        for node in 0..self.nodes {
            cluster.wait_for_apply(node, PATIENCE)?;
        }
        settle();

        let paced = Paced::new(dir)?;
        let nodes = cluster.clients();
        let (mut quiet, mut busy) = (Vec::new(), Vec::new());
        let mut happened = Happened::default();
        paced.beside(&nodes, || {
            for _ in 0..self.rounds {
                settle();
                paced.take();
                thread::sleep(self.phase);
                quiet.push(paced.take());
                self.busy_phase(&mut cluster, &large, &mut happened)?;
                busy.push(paced.take());
            }
            Ok(())
        })?;
        figures.put(
            format!("{} rounds of quiet and busy seconds each", self.rounds),
            self.phase.as_secs_f64(),
            "s",
        );
        figures.put("catch-ups of a wiped follower", happened.catch_ups as f64, "");
        figures.put("checkpoints at the leader", happened.checkpoints.len() as f64, "");
        figures.put("segments that went", happened.removed as f64, "");
        compare(&quiet, &busy, "busy", &mut figures);
        figures.print();
        Ok(())
    }

    /// Large files are overwritten, and a follower is wiped again and again.
    fn busy_phase(&self, cluster: &mut Cluster, large: &Files, happened: &mut Happened) -> Result<(), Error> {
        let nodes = cluster.clients();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut client = Client::new(&nodes);
                let mut due = Instant::now();
                for write in 0.. {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let changed = client.change_all(|| vec![large.write(mixed(write) % large.count, write)]);
                    changed.map_err(|error| error.to_string())?;
                    due += Duration::from_nanos(1_000_000_000 / OVERWRITES_PER_SECOND);
                }
                Ok::<(), String>(())
            });
            let end = Instant::now() + self.phase;
            let done = (|| -> Result<(), Error> {
                while Instant::now() < end {
                    let leader = cluster.leader()?;
                    let follower = (leader + 1) % self.nodes;
                    if follower != leader {
                        cluster.kill(follower)?;
                        cluster.wipe(follower)?;
                        cluster.launch(follower)?;
                        cluster.wait_for_apply(follower, PATIENCE)?;
                        happened.catch_ups += 1;
                    }
                    happened.look(cluster.data_dir(leader))?;
                    thread::sleep(Duration::from_millis(200));
                }
                Ok(())
            })();
            stop.store(true, Ordering::SeqCst);
            writer.join().expect("the writer does not panic")?;
            done
        })
    }
}

impl Happened {
    /// Looks at what there is in a data directory, and what is no more.
    fn look(&mut self, data_dir: &Path) -> Result<(), Error> {
        let mut segments = BTreeSet::new();
        for item in std::fs::read_dir(data_dir)? {
            let name = item?.file_name().to_string_lossy().into_owned();
            if name.starts_with("checkpoint-") && !name.ends_with(".tmp") {
                self.checkpoints.insert(name);
            } else if name.ends_with(".fsd") {
                segments.insert(name);
            }
        }
        self.removed += self.segments.difference(&segments).count();
        self.segments = segments;
        Ok(())
    }
}
