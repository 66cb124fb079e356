//! How much a data directory takes under overwrites, deletes and expiries without end.

use std::collections::VecDeque;

use super::*;
use crate::mapping::{Disk, MappedFile};
use crate::server::jobs::{Done, Job};
use crate::storage::Copied;

const SEGMENT_BYTES: u64 = 512 * 1024;
/// What is counted in whole pages, however small it is, and what waits to be removed: next to nothing beside real segments.
const PAGES_BYTES: u64 = SEGMENT_BYTES / 8;

/// What a record takes beside its contents, about.
const RECORD_BYTES: i64 = 128;

/// What is done to the files.
#[derive(Clone, Copy, Debug)]
struct Mix {
    files: u32,
    contents_bytes: usize,
    /// So many of 100 changes are of one file in ten.
    hot: u32,
    /// So many of 100 changes delete.
    deletes: u32,
    /// So many of 100 writes have an expiry.
    expiring: u32,
    /// So many turns pass until the helper has done a job, at most.
    delay: usize,
}

/// A cluster of one, and a helper that takes its time.
struct Alone {
    cluster: Cluster,
    jobs: VecDeque<(Job<SimulatedDisk>, usize)>,
    random: fastrand::Rng,
    delay: usize,
    /// What the files must hold; of those that may have expired, nothing is known.
    model: BTreeMap<String, Option<Bytes>>,
    /// Files that were copied.
    copied: usize,
}

impl Alone {
    fn new(seed: u64, delay: usize) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let cluster = Cluster::new(1);
        let mut alone =
            Self { cluster, jobs: VecDeque::new(), random, delay, model: BTreeMap::new(), copied: 0 };
        alone.start_on(SimulatedDisk::new());
        alone
    }

    fn start_on(&mut self, disk: SimulatedDisk) {
        let mut random = self.random.fork();
        let (draw, mut image) = (&mut || random.u64(1..), StoreImage::default());
        let identity = super::identity_of(NodeId(1));
        let storage = storage::open_into(disk.clone(), &identity, SEGMENT_BYTES, draw, &mut image);
        let storage = storage.expect("a good directory");
        let now_ms = self.cluster.now_ms;
        let member = self.cluster.members.get_mut(&NodeId(1)).expect("the only one");
        member.network.disk = disk;
        member.node = Node::new(config_of(NodeId(1), 1), storage, image.into_store(), now_ms);
        self.jobs.clear();
        self.cluster.leader();
    }

    fn node(&mut self) -> &mut Node<SimulatedDisk> {
        &mut self.cluster.members.get_mut(&NodeId(1)).expect("the only one").node
    }

    fn turn(&mut self, events: Vec<Event>) {
        self.cluster.turn(1, events).expect("a good disk");
        let disk = self.cluster.disk(1).clone();
        while let Some((_, left)) = self.jobs.front_mut() {
            if *left > 0 {
                *left -= 1;
                break;
            }
            let (job, _) = self.jobs.pop_front().expect("it was seen");
            let done = job.run(&disk);
            if let Done::Copied(Ok(Copied::Whole(_, moved))) = &done {
                self.copied += moved.len();
            }
            self.node().job_done(done).expect("a good disk");
        }
        while let Some(job) = self.node().next_job().expect("a good disk") {
            let left = self.random.usize(..=self.delay);
            self.jobs.push_back((job, left));
        }
    }

    fn change(&mut self, mix: &Mix) -> Event {
        let hot = self.random.u32(..100) < mix.hot;
        let file = self.random.u32(..if hot { mix.files.div_ceil(10) } else { mix.files });
        let name = format!("directory/file-{file}");
        if self.random.u32(..100) < mix.deletes {
            self.model.remove(&name);
            return self.command(Change::Delete, name, Bytes::new());
        }
        let mut contents = vec![0; self.random.usize(..=2 * mix.contents_bytes)];
        self.random.fill(&mut contents);
        let contents = Bytes::from(contents);
        let expiring = self.random.u32(..100) < mix.expiring;
        let expiry_seconds = if expiring { self.random.u64(1..5) } else { 0 };
        self.model.insert(name.clone(), (!expiring).then(|| contents.clone()));
        self.command(Change::Write { expiry_seconds }, name, contents)
    }

    fn command(&mut self, operation: Change, name: String, contents: Bytes) -> Event {
        let command = Command { operation, name, contents }.encode();
        self.cluster.request(Operation::Change { command })
    }

    /// What the data directory takes.
    fn disk_bytes(&self) -> u64 {
        let disk = self.cluster.disk(1);
        let names = disk.list().expect("a good disk");
        names.iter().map(|name| disk.open(name).expect("it is there").len_bytes()).sum()
    }

    fn assert_bound(&mut self) {
        let space = self.node().space();
        let disk_bytes = self.disk_bytes();
        assert!(disk_bytes < space.bound_bytes + PAGES_BYTES, "{disk_bytes} bytes: {space:?}");
    }

    /// Each file is as it was written last, and there are no others.
    fn assert_contents(&mut self) {
        self.cluster.replies(1);
        for (name, expected) in self.model.clone() {
            let read = self.cluster.request(Operation::Read { name: name.clone() });
            match (self.cluster.ask(1, read), expected) {
                (Outcome::Read { contents, .. }, Some(expected)) => {
                    assert_eq!(contents, expected, "{name}");
                }
                (_, None) => {}
                (other, Some(_)) => panic!("{name}: {other:?}"),
            }
        }
        let known = self.model.len();
        assert!(self.node().store().len() <= known, "files of which nobody knows");
    }
}

/// Mixes of all kinds: one file to thousands, of nothing to half a kilobyte.
fn mix(random: &mut fastrand::Rng) -> Mix {
    let mut one_of = |choices: &[u32]| choices[random.usize(..choices.len())];
    Mix {
        files: 1 << one_of(&[0, 4, 6, 8, 10, 12, 13]),
        contents_bytes: one_of(&[0, 8, 64, 256]) as usize,
        hot: one_of(&[0, 50, 90]),
        deletes: one_of(&[0, 10, 50]),
        expiring: one_of(&[0, 0, 10, 50]),
        delay: one_of(&[0, 1, 3]) as usize,
    }
}

#[test]
fn a_data_directory_takes_twice_what_must_be_there_and_two_segments() {
    let mut copied = 0;
    for seed in 0..12 {
        let mix = mix(&mut fastrand::Rng::with_seed(seed));
        let mut alone = Alone::new(seed, mix.delay);
        for turn in 0..8_000 {
            let events = (0..4).map(|_| alone.change(&mix)).collect();
            alone.cluster.now_ms += 1;
            alone.turn(events);
            if turn % 16 == 0 {
                alone.assert_bound();
            }
            if turn == 5_000 {
                alone.assert_contents();
                let crashed = alone.cluster.disk(1).crash(Unflushed::Lost);
                alone.start_on(crashed);
            }
        }
        alone.assert_contents();
        copied += alone.copied;
    }
    assert!(copied > 10_000, "{copied} files were copied");
}

#[test]
fn the_space_of_deleted_files_comes_back_though_nothing_more_is_written() {
    let mut alone = Alone::new(1, 1);
    for n in 0..4_000 {
        let write = alone.command(Change::Write { expiry_seconds: 0 }, format!("f{n}"), vec![7; 1000].into());
        alone.turn(vec![write]);
    }
    let full_bytes = alone.disk_bytes();
    assert!(full_bytes > 4_000_000);
    let deletes = (0..4_000).map(|n| alone.command(Change::Delete, format!("f{n}"), Bytes::new())).collect();
    alone.turn(deletes);
    // So many are not applied in one turn.
    alone.turn(Vec::new());
    assert!(alone.node().store().is_empty());
    for _ in 0..20_000 {
        alone.cluster.now_ms += 1;
        alone.turn(Vec::new());
    }
    alone.assert_bound();
}

#[test]
fn clients_that_are_faster_than_the_helper_are_slowed_down_in_time() {
    let mix = Mix { files: 1 << 10, contents_bytes: 512, hot: 0, deletes: 0, expiring: 0, delay: 3 };
    let mut alone = Alone::new(5, mix.delay);
    let (mut written_bytes, mut paced_turns, mut credit_bytes) = (0, 0, 0);
    for _ in 0..20_000 {
        // A turn is a millisecond; without a pace, a tenth of a segment is written in it.
        let now_ms = alone.cluster.now_ms;
        let pace = alone.node().pace(now_ms);
        paced_turns += u32::from(pace.is_some());
        let may_take_bytes = SEGMENT_BYTES / 10;
        credit_bytes = match pace {
            Some(bytes_per_ms) => (credit_bytes + bytes_per_ms as i64).min(may_take_bytes as i64),
            None => may_take_bytes as i64,
        };
        let mut events = Vec::new();
        while credit_bytes > 0 {
            events.push(alone.change(&mix));
            credit_bytes -= mix.contents_bytes as i64 + RECORD_BYTES;
            written_bytes += mix.contents_bytes as u64;
        }
        alone.cluster.now_ms += 1;
        alone.turn(events);
        alone.assert_bound();
    }
    assert!(paced_turns > 1000, "{paced_turns} turns were paced");
    assert!(written_bytes > 50 * SEGMENT_BYTES, "{written_bytes} bytes were written");
    alone.assert_contents();
}
