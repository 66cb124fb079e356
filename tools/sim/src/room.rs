//! Disks that are full, for a while or in the end, and small ones that fill up by themselves. No node ends for want of
//! room, none takes what makes files grow while it knows that there is little, and a cluster of which only a minority is
//! full serves on.

use fsd::mapping::Disk;
use fsd_wire::{Command, EntryKind, LogIndex, Operation, SessionCommand};

use crate::plan::{FaultKind, Plan};
use crate::simulation::{Checked, Simulation};

/// Of a disk that is made full, so many segments may be left.
const SEGMENTS_LEFT_MAX: u64 = 6;

/// Draws how full disks are, from a generator of its own.
#[derive(Debug)]
pub(crate) struct FullDisks {
    random: fastrand::Rng,
    /// The node whose disk stays full in the end.
    stays: Option<usize>,
}

impl FullDisks {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed.rotate_left(40)), stays: None }
    }
}

/// The bytes that a disk has in the run, all along.
pub(crate) fn capacity(plan: &Plan) -> u64 {
    plan.disk_segments
        .filter(|_| plan.faults.contains(FaultKind::FullDisk))
        .map_or(u64::MAX, |segments| segments * plan.segment_bytes)
}

/// What a node knew, and had, when its turn began.
pub(crate) struct BeforeTurn {
    is_low: bool,
    last_index: LogIndex,
}

impl Simulation {
    /// Nothing more goes on a disk, or not much more.
    pub(crate) fn fill_disk(&mut self, place: usize) {
        let draws = &mut self.full_disks.random;
        let left_bytes =
            if draws.bool() { 0 } else { draws.u64(..=SEGMENTS_LEFT_MAX * self.plan.segment_bytes) };
        let disk = &self.processes[place].disk;
        disk.set_capacity((disk.used_bytes() + left_bytes).min(capacity(&self.plan)));
    }

    /// A disk has the room that it had before; all there is once the faults are over.
    pub(crate) fn empty_disk(&mut self, place: usize) {
        if self.full_disks.stays != Some(place) {
            let bytes = if self.is_troubled { capacity(&self.plan) } else { u64::MAX };
            self.processes[place].disk.set_capacity(bytes);
        }
    }

    /// The faults are over: all disks have room, but for one, now and then, if the cluster can do without its node.
    pub(crate) fn make_room_in_the_end(&mut self) {
        (0..self.plan.nodes).for_each(|place| self.empty_disk(place));
        let missing = self
            .processes
            .iter()
            .filter(|process| process.is_unsound() || self.nemesis.stays_away(process.place));
        let may_stay = missing.count() < self.plan.minority();
        let wanted = self.plan.faults.contains(FaultKind::FullDisk) && self.full_disks.random.bool();
        let place = self.full_disks.random.usize(..self.plan.nodes);
        if may_stay && wanted {
            self.full_disks.stays = Some(place);
            self.processes[place].disk.set_capacity(0);
            self.tell(|| format!("the disk of node {} stays full", place + 1));
        }
    }

    /// Whether the disk of a node stays full in the end: nobody waits for it.
    pub(crate) fn stays_full(&self, place: usize) -> bool {
        self.full_disks.stays == Some(place)
    }

    /// Whether any does.
    pub(crate) fn one_stays_full(&self) -> bool {
        self.full_disks.stays.is_some()
    }

    /// Whether a disk may have no room for what a node needs to begin.
    pub(crate) fn may_lack_room(&self, place: usize) -> bool {
        let disk = &self.processes[place].disk;
        disk.room_bytes().is_ok_and(|bytes| bytes < 4 * self.plan.segment_bytes)
    }

    pub(crate) fn before_turn(&self, place: usize) -> Option<BeforeTurn> {
        let node = self.processes[place].node.as_ref()?;
        let last_index = node.raft().last_index();
        node.raft().is_leader().then(|| BeforeTurn { is_low: node.is_low(), last_index })
    }

    /// A leader that knew that there is little room took nothing that makes a file grow.
    pub(crate) fn check_reserve(&self, place: usize, before: Option<&BeforeTurn>) -> Checked {
        let Some(before) = before.filter(|before| before.is_low) else { return Ok(()) };
        let Some(node) = self.processes[place].node.as_ref().filter(|node| node.raft().is_leader()) else {
            return Ok(());
        };
        let mut index = before.last_index.next();
        while index <= node.log().last_index() {
            // What cannot be read ends the node.
            let Ok(entry) = node.log().entry(index) else { return Ok(()) };
            let command = match entry.kind {
                EntryKind::Command => Command::decode(&entry.payload).ok(),
                EntryKind::Session => match SessionCommand::decode(&entry.payload) {
                    Ok(SessionCommand::Change { command, .. }) => Command::decode(&command).ok(),
                    _ => None,
                },
                _ => None,
            };
            let grows = |command: &Command| {
                matches!(command.operation, Operation::Write { .. } | Operation::Cas { .. })
            };
            if command.as_ref().is_some_and(grows) {
                return Err(format!("node {} has little room and took {command:?}", place + 1));
            }
            index = index.next();
        }
        Ok(())
    }
}
