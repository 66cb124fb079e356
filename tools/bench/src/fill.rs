//! Files that a benchmark makes: which they are, and how they get into a cluster.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fsd_wire::client::{NodeRole, Operation, Outcome, Refusal};
use fsd_wire::{Command, Operation as Change};

use crate::Error;
use crate::connection::{Connection, status_of};

/// Connections that fill a cluster, each of which asks for so many writes at a time,
const CONNECTIONS: usize = 4;
const BATCH_FILES: u64 = 256;
/// or for so many bytes, or for one write.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Contents are pieces of so many random bytes.
const MATERIAL_BYTES: usize = 4 * 1024 * 1024;
/// A batch is tried so often, with a pause, before the cluster is taken to be broken.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Files that are all determined by their numbers.
#[derive(Clone)]
pub(crate) struct Files {
    prefix: &'static str,
    pub(crate) count: u64,
    sizes: RangeInclusive<usize>,
    material: Bytes,
}

impl Files {
    pub(crate) fn new(prefix: &'static str, count: u64, sizes: RangeInclusive<usize>) -> Self {
        let mut material = Vec::with_capacity(MATERIAL_BYTES);
        for at in 0..MATERIAL_BYTES as u64 / 8 {
            material.extend_from_slice(&mixed(at).to_le_bytes());
        }
        Self { prefix, count, sizes, material: material.into() }
    }

    /// As many files of such sizes as make so many bytes.
    pub(crate) fn of_bytes(prefix: &'static str, bytes: u64, sizes: RangeInclusive<usize>) -> Self {
        let middle = (sizes.start() + sizes.end()) as u64 / 2;
        Self::new(prefix, bytes.div_ceil(middle).max(1), sizes)
    }

    /// In no order: as a name that somebody else thought of.
    pub(crate) fn name(&self, number: u64) -> String {
        format!("{}/{:016x}", self.prefix, mixed(number))
    }

    /// Bytes of each name.
    pub(crate) fn name_bytes(&self) -> usize {
        self.name(0).len()
    }

    pub(crate) fn size(&self, number: u64) -> usize {
        let span = (self.sizes.end() - self.sizes.start() + 1) as u64;
        self.sizes.start() + (mixed(!number) % span) as usize
    }

    /// Of all of them.
    pub(crate) fn total_bytes(&self) -> u64 {
        (0..self.count).map(|number| self.size(number) as u64).sum()
    }

    /// The contents of a file when it is written for the `round`th time.
    pub(crate) fn contents(&self, number: u64, round: u64) -> Bytes {
        let size = self.size(number);
        let at = mixed(number ^ round.rotate_left(32)) as usize % (MATERIAL_BYTES - size);
        self.material.slice(at..at + size)
    }

    pub(crate) fn write(&self, number: u64, round: u64) -> Operation {
        let contents = self.contents(number, round);
        let command =
            Command { operation: Change::Write { expiry_seconds: 0 }, name: self.name(number), contents };
        Operation::Change { command: command.encode() }
    }

    pub(crate) fn read(&self, number: u64) -> Operation {
        Operation::Read { name: self.name(number) }
    }

    /// Where the batch ends that begins with this file.
    fn batch_end(&self, begin: u64) -> u64 {
        let mut bytes = 0;
        let fitting = (begin..(begin + BATCH_FILES).min(self.count)).take_while(|number| {
            bytes += self.size(*number);
            bytes <= BATCH_BYTES
        });
        begin + (fitting.count() as u64).max(1)
    }

    /// Writes all of them to a cluster.
    pub(crate) fn fill(&self, nodes: &[SocketAddr], round: u64) -> Result<(), Error> {
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let fillers: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    scope.spawn(|| self.fill_some(nodes, round, &next).map_err(|error| error.to_string()))
                })
                .collect();
            fillers.into_iter().try_for_each(|filler| Ok(filler.join().expect("no filler panics")?))
        })
    }

    fn fill_some(&self, nodes: &[SocketAddr], round: u64, next: &AtomicU64) -> Result<(), Error> {
        let mut client = Client::new(nodes);
        loop {
            let taken = next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |begin| {
                (begin < self.count).then(|| self.batch_end(begin))
            });
            let Ok(begin) = taken else { return Ok(()) };
            client.change_all(|| {
                (begin..self.batch_end(begin)).map(|number| self.write(number, round)).collect()
            })?;
        }
    }
}

/// Changes files at whichever node leads. A change may be made twice.
pub(crate) struct Client<'a> {
    nodes: &'a [SocketAddr],
    connection: Option<Connection>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(nodes: &'a [SocketAddr]) -> Self {
        Self { nodes, connection: None }
    }

    /// Makes changes until all are made.
    pub(crate) fn change_all(&mut self, changes: impl Fn() -> Vec<Operation>) -> Result<(), Error> {
        let mut complaint = String::new();
        for _ in 0..ATTEMPTS {
            match self.try_changes(changes()) {
                Ok(()) => return Ok(()),
                Err(error) => complaint = error.to_string(),
            }
            self.connection = None;
            thread::sleep(PAUSE);
        }
        Err(complaint.into())
    }

    fn try_changes(&mut self, changes: Vec<Operation>) -> Result<(), Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(leader_among(self.nodes)?)?),
        };
        for outcome in connection.ask(changes)? {
            match outcome {
                Outcome::Changed { .. } | Outcome::Refused(Refusal::NotFound) => {}
                other => return Err(format!("a change was not made: {other:?}").into()),
            }
        }
        Ok(())
    }
}

fn leader_among(nodes: &[SocketAddr]) -> Result<SocketAddr, Error> {
    let leads = |node: &&SocketAddr| status_of(**node).is_ok_and(|status| status.role == NodeRole::Leader);
    Ok(*nodes.iter().find(leads).ok_or("no node leads")?)
}

/// A number that looks as if drawn at random (the finalizer of splitmix64).
pub(crate) fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
