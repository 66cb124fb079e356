//! Overwrites without end of files that stay the same in number and size: the disk must not grow with what was written,
//! but stay below twice what is live, and two segments.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::cluster::Cluster;
use crate::figures::{Figures, Goal};
use crate::fill::{Client, Files, mixed};
use crate::machine::{MIB, directory_bytes};
use crate::plot::{Line, plot};

const SIZES: std::ops::RangeInclusive<usize> = 1024..=256 * 1024;
const WRITERS: u64 = 4;
/// Overwrites that are asked for together.
const BATCH: u64 = 16;
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// A record has this around contents and name.
const RECORD_BYTES: u64 = 96;
const SAMPLE: Duration = Duration::from_secs(1);

pub(crate) struct Overwrite {
    pub(crate) nodes: usize,
    pub(crate) time: Duration,
    pub(crate) working_set_bytes: u64,
    /// Where the figures of each second and their plot go.
    pub(crate) output: PathBuf,
}

/// What the data directories had at some time.
struct Sample {
    seconds: f64,
    directories: Vec<u64>,
    written_bytes: u64,
}

impl Overwrite {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Error> {
        let files = Files::of_bytes("set", self.working_set_bytes, SIZES);
        let cluster = Cluster::start(self.nodes, dir, "")?;
        cluster.leader()?;
        let nodes = cluster.clients();
        files.fill(&nodes, 0)?;
        let live_bytes = files.total_bytes() + files.count * (RECORD_BYTES + files.name_bytes() as u64);
        let bound_bytes = 2 * live_bytes + 2 * SEGMENT_BYTES;
        let (stop, written_bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        let samples = thread::scope(|scope| {
            let (stop, written_bytes, nodes, files) = (&stop, &written_bytes, &nodes, &files);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || {
                        overwrite(files, nodes, writer, stop, written_bytes)
                            .map_err(|error| error.to_string())
                    })
                })
                .collect();
            let samples = self.sample(&cluster, written_bytes);
            stop.store(true, Ordering::SeqCst);
            writers.into_iter().try_for_each(|writer| writer.join().expect("no writer panics"))?;
            samples
        })?;
        self.write_csv(&samples, live_bytes, bound_bytes)?;
        self.write_plot(&samples, live_bytes, bound_bytes)?;
        self.report(&samples, live_bytes, bound_bytes);
        Ok(())
    }

    fn sample(&self, cluster: &Cluster, written_bytes: &AtomicU64) -> Result<Vec<Sample>, Error> {
        let begin = Instant::now();
        let mut samples = Vec::new();
        let mut due = begin;
        while begin.elapsed() < self.time {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let directories =
                (0..self.nodes).map(|at| directory_bytes(cluster.data_dir(at))).collect::<Result<_, _>>()?;
            samples.push(Sample {
                seconds: begin.elapsed().as_secs_f64(),
                directories,
                written_bytes: written_bytes.load(Ordering::SeqCst),
            });
            due += SAMPLE;
        }
        Ok(samples)
    }

    fn write_csv(&self, samples: &[Sample], live_bytes: u64, bound_bytes: u64) -> Result<(), Error> {
        let mut csv = String::from("seconds,written_bytes,live_bytes,bound_bytes");
        for node in 1..=self.nodes {
            write!(csv, ",node{node}_bytes")?;
        }
        csv.push('\n');
        for Sample { seconds, directories, written_bytes } in samples {
            write!(csv, "{seconds:.1},{written_bytes},{live_bytes},{bound_bytes}")?;
            for bytes in directories {
                write!(csv, ",{bytes}")?;
            }
            csv.push('\n');
        }
        Ok(std::fs::write(self.output.join("overwrite.csv"), csv)?)
    }

    fn write_plot(&self, samples: &[Sample], live_bytes: u64, bound_bytes: u64) -> Result<(), Error> {
        let mib = |bytes: u64| bytes as f64 / MIB;
        let flat = |name: &str, colour, bytes| Line {
            name: name.into(),
            colour,
            points: samples.iter().map(|sample| (sample.seconds, mib(bytes))).collect(),
        };
        let colours = ["#1b6ca8", "#2a9d8f", "#8a5fbf", "#c77d22", "#557a3a", "#a84f6b", "#444444"];
        let mut lines = vec![
            flat("twice that and two segments", "#c0392b", bound_bytes),
            flat("live", "#888888", live_bytes),
        ];
        lines.extend((0..self.nodes).zip(colours).map(|(node, colour)| Line {
            name: format!("data directory of node {}", node + 1),
            colour,
            points: samples.iter().map(|sample| (sample.seconds, mib(sample.directories[node]))).collect(),
        }));
        let title = format!(
            "Overwrites of {:.0} MiB of files without end: the disk",
            self.working_set_bytes as f64 / MIB
        );
        Ok(std::fs::write(self.output.join("overwrite.svg"), plot(&title, "seconds", "MiB", &lines))?)
    }

    fn report(&self, samples: &[Sample], live_bytes: u64, bound_bytes: u64) {
        let mut figures = Figures::of("overwrite");
        let most = samples.iter().flat_map(|sample| &sample.directories).max().copied().unwrap_or(0);
        let last = samples.last().map_or(0, |sample| sample.directories.iter().max().copied().unwrap_or(0));
        let written = samples.last().map_or(0, |sample| sample.written_bytes);
        figures.put("overwrites for", self.time.as_secs_f64(), "s");
        figures.put("live", live_bytes as f64 / MIB, "MiB");
        figures.put("written over it", written as f64 / MIB, "MiB");
        figures.put("written against live", written as f64 / live_bytes as f64, "");
        figures.put("the largest data directory at the end", last as f64 / MIB, "MiB");
        figures.put("the largest ever", most as f64 / MIB, "MiB");
        let share = most as f64 / bound_bytes as f64;
        figures.judge("that against 2 x live + 2 segments", share, "", Goal::AtMost(1.0));
        figures.print();
    }
}

fn overwrite(
    files: &Files,
    nodes: &[SocketAddr],
    writer: u64,
    stop: &AtomicBool,
    written_bytes: &AtomicU64,
) -> Result<(), Error> {
    let mut client = Client::new(nodes);
    for batch in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let number = |at: u64| mixed(mixed(batch * BATCH + at) ^ writer) % files.count;
        client.change_all(|| (0..BATCH).map(|at| files.write(number(at), batch)).collect())?;
        let bytes: usize = (0..BATCH).map(|at| files.size(number(at))).sum();
        written_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
    Ok(())
}
