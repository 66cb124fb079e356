//! How processes end, and how they start again.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use fsd::file_store::FileStore;
use fsd::server::jobs::Lane;
use fsd::server::node::Node;
use fsd::server::{Fault, StoreImage};
use fsd::simulated_disk::{SimulatedDisk, Unflushed};
use fsd::storage::segment::file_name;
use fsd::storage::{self, Storage, StorageError};
use fsd_wire::hello::Identity;

use crate::fabric::Party;
use crate::plan::FaultKind;
use crate::process::{LogShape, State, Watermarks, node_config};
use crate::schedule::Happening;
use crate::simulation::{Checked, Simulation};
use crate::sockets::{Moment, Sockets};

/// Power that fails again does so within so many operations of the disk,
const RELAPSE_OPERATIONS: u64 = 12;
/// or within so many turns that flush something.
const SHAKY_TURNS: u32 = 24;

impl Simulation {
    /// The helper of a node does the next job.
    pub(crate) fn do_job(&mut self, place: usize, life: u64) -> Checked {
        let process = &mut self.processes[place];
        if process.life != life || self.holds_installation(place, life) {
            return Ok(());
        }
        let process = &mut self.processes[place];
        let lane = Lane::ALL[self.random.usize(..Lane::ALL.len())];
        let of_that_thread = process.jobs.iter().position(|job| job.lane() == lane);
        let Some(job) = process.jobs.remove(of_that_thread.unwrap_or(0)) else { return Ok(()) };
        let Some(node) = &mut process.node else { return Ok(()) };
        let done = job.run(&process.disk);
        if process.disk.is_off() {
            self.note_disk_fault(FaultKind::PowerLossInCall);
            self.lose_power(place);
            return Ok(());
        }
        match node.job_done(done) {
            Ok(()) => {
                self.wake(place, self.now_us);
                Ok(())
            }
            Err(fault) => self.end_of_process(place, &fault),
        }
    }

    /// A node ended by itself: there must be a reason for it.
    pub(crate) fn end_of_process(&mut self, place: usize, fault: &Fault) -> Checked {
        let process = &mut self.processes[place];
        if process.disk.is_off() {
            self.note_disk_fault(FaultKind::PowerLossInCall);
            self.lose_power(place);
            return Ok(());
        }
        // A full disk is no reason.
        let is_expected = process.fails
            || process.is_rotten() && matches!(fault, Fault::Storage(StorageError::Damage { .. }));
        if !is_expected {
            return Err(format!("node {} ended: {fault}", place + 1));
        }
        if process.fails {
            self.note_disk_fault(FaultKind::FailedCall);
        }
        let process = &mut self.processes[place];
        // The process ends, the machine lives: what was not flushed is in the page cache, unless the failed
        // flush lost it.
        if std::mem::take(&mut process.fails) && self.random.bool() {
            self.lose_power(place);
        } else {
            self.end(place, false);
        }
        Ok(())
    }

    /// An operation of a disk failed just now, as it was to.
    fn note_disk_fault(&mut self, kind: FaultKind) {
        let phase = self.phase();
        self.coverage.note(kind, phase);
    }

    /// The same, of a node that starts.
    fn note_fault_of_start(&mut self, kind: FaultKind) {
        let phase = self.phase_around_start();
        self.coverage.note(kind, phase);
    }

    /// The process is gone; what it stored is in the page cache.
    pub(crate) fn end(&mut self, place: usize, silently: bool) {
        let process = &mut self.processes[place];
        let Some(node) = process.node.take() else { return };
        let raft = node.raft();
        process.last_words = Some((
            LogShape::of(raft),
            raft.hard_state().clone(),
            process.durable.last.min(raft.durable_index()),
        ));
        process.state = State::Down;
        process.disk.fail_at(0, ErrorKind::Other);
        process.life += 1;
        process.jobs.clear();
        process.is_stopping = false;
        self.fabric.close_all(&mut self.schedule, self.now_us, Party::Node(place), silently);
        self.tell(|| format!("node {} ends", place + 1));
        let away_us =
            *self.random.choice(&[1_000, 50_000, 200_000, 200_000, 1_000_000, 4_000_000]).expect("a choice");
        let at_us = self.now_us + self.random.u64(..away_us);
        self.schedule.at(at_us, Happening::Start { node: place });
    }

    /// The machine loses power, running or not.
    pub(crate) fn lose_power(&mut self, place: usize) {
        let phase = self.phase();
        self.end(place, true);
        let fate = self.draw_lost_sector(place).unwrap_or_else(|| self.draw_fate(place, phase));
        let process = &mut self.processes[place];
        process.disk = process.disk.crash(fate);
    }

    /// Starts a node that is down.
    pub(crate) fn start(&mut self, place: usize) -> Checked {
        let process = &mut self.processes[place];
        if process.state != State::Down || self.nemesis.stays_away(place) {
            return Ok(());
        }
        self.steps += 1;
        self.wipe_a_copy_that_nobody_can_tell(place);
        let may_lack_room = self.may_lack_room(place);
        let process = &mut self.processes[place];
        if self.is_troubled
            && self.plan.faults.contains(FaultKind::PowerLossInRecovery)
            && self.random.u32(..4) == 0
        {
            process.disk.power_off_at(process.disk.operations() + self.random.u64(1..20));
        }
        if self.is_troubled && self.plan.faults.contains(FaultKind::FailedCall) && self.random.u32(..8) == 0 {
            let at = process.disk.operations() + self.random.u64(1..20);
            process.disk.fail_at(at, ErrorKind::Other);
            process.fails = true;
        }
        let mut draws = self.random.fork();
        let (disk, identity, mut image) = (process.disk.clone(), process.identity(), StoreImage::default());
        let mut draw = || draws.u64(1..);
        match storage::open_into(disk, &identity, self.plan.segment_bytes, &mut draw, &mut image) {
            Ok(storage) => self.started(place, storage, image.into_store()),
            Err(_) if process.disk.is_off() => {
                self.note_fault_of_start(FaultKind::PowerLossInRecovery);
                let again_at_us = self.now_us + self.random.u64(1..1_000_000);
                self.lose_power(place);
                self.schedule.at(again_at_us, Happening::Start { node: place });
                Ok(())
            }
            Err(StorageError::Io { source, .. })
                if source.kind() == ErrorKind::StorageFull && may_lack_room =>
            {
                let again_at_us = self.now_us + 1_000_000;
                self.schedule.at(again_at_us, Happening::Start { node: place });
                Ok(())
            }
            Err(StorageError::Io { .. }) if process.fails => {
                let again_at_us = self.now_us + 1_000_000;
                process.fails = false;
                process.disk.fail_at(0, ErrorKind::Other);
                self.note_fault_of_start(FaultKind::FailedCall);
                self.schedule.at(again_at_us, Happening::Start { node: place });
                Ok(())
            }
            Err(_) if process.is_rotten() => {
                process.state = State::Damaged;
                Ok(())
            }
            Err(error) => Err(format!("node {} refuses to start: {error}", place + 1)),
        }
    }

    fn started(&mut self, place: usize, storage: Storage<SimulatedDisk>, store: FileStore) -> Checked {
        self.tell(|| {
            format!("node {} starts: {:?} {:?}", place + 1, storage.recovered.state, storage.recovered.log)
        });
        self.check_recovered(place, &storage)?;
        let config = node_config(&self.plan, place, &mut self.random);
        let process = &mut self.processes[place];
        let now_ms = process.clock.now_ms(self.now_us);
        let state = storage.recovered.state.clone();
        process.durable = LogShape::of_summary(&storage.recovered.log);
        process.stored = Some(state.clone());
        // What recovery reads is whole; contents that only a checkpoint refers to are read when somebody asks for them.
        let read_from = file_name(storage.log.base().end.segment());
        let unread: BTreeSet<String> =
            storage.log.contents_segments().map(|segment| file_name(segment.id)).collect();
        process.rotten.retain(|name| unread.contains(name) || name.ends_with(".fsd") && *name <= read_from);
        let mut node = Node::new(config, storage, store, now_ms);
        process.last_words = None;
        if node.make_first_spare(&process.disk).is_err() {
            process.fails = false;
            process.disk.fail_at(0, ErrorKind::Other);
            let again_at_us = self.now_us + 1_000_000;
            self.schedule.at(again_at_us, Happening::Start { node: place });
            if process.disk.is_off() {
                self.note_fault_of_start(FaultKind::PowerLossInRecovery);
                self.lose_power(place);
            }
            return Ok(());
        }
        process.disk.power_off_at(u64::MAX);
        process.disk.fail_at(0, ErrorKind::Other);
        self.plan_relapse(place);
        let process = &mut self.processes[place];
        let identity = Identity {
            node: process.id(),
            incarnation: state.incarnation,
            life: state.life,
            cluster_id: state.cluster_id,
        };
        process.sockets = Sockets::new(place, self.plan.nodes, identity, self.random.u64(..));
        process.node = Some(node);
        process.state = State::Up;
        process.watermarks = Watermarks::default();
        process.acknowledged = Default::default();
        process.wake_at_us = None;
        process.busy_until_us = self.now_us;
        process.fails = false;
        let mut moment =
            Moment { fabric: &mut self.fabric, schedule: &mut self.schedule, now_us: self.now_us, now_ms };
        process.sockets.start(&mut moment);
        self.turn(place)
    }

    /// Power fails when a node stores many entries at once: it stands still for a moment, so that they gather.
    pub(crate) fn fail_in_batch(&mut self, place: usize) {
        let pause_us = self.random.u64(1000..20_000);
        let process = &mut self.processes[place];
        process.fails_in_batch = true;
        process.busy_until_us = process.busy_until_us.max(self.now_us + pause_us);
    }

    /// Where power is to fail again, the first time often leaves whole records behind what it tore: all is there but one
    /// of the first sectors.
    fn draw_lost_sector(&mut self, place: usize) -> Option<Unflushed> {
        if !self.is_troubled || !self.plan.faults.contains(FaultKind::Relapse) || self.random.bool() {
            return None;
        }
        let sectors = self.processes[place].disk.unflushed_sectors();
        (sectors > 1).then(|| Unflushed::AllBut(self.random.usize(..sectors.min(4))))
    }

    /// Power that came back may fail again soon, in the middle of what is stored then, or behind some flush.
    fn plan_relapse(&mut self, place: usize) {
        let process = &mut self.processes[place];
        process.shaky_turns = 0;
        if process.life == 0
            || !self.is_troubled
            || !self.plan.faults.contains(FaultKind::Relapse)
            || self.random.bool()
        {
            return;
        }
        if self.random.u32(..3) == 0 {
            process.disk.power_off_at(process.disk.operations() + self.random.u64(1..=RELAPSE_OPERATIONS));
        } else {
            process.shaky_turns = SHAKY_TURNS;
        }
        self.note_fault_of_start(FaultKind::Relapse);
    }

    /// Whether power fails behind a turn that flushed something.
    pub(crate) fn relapses(&mut self, place: usize) -> bool {
        let process = &mut self.processes[place];
        if process.shaky_turns == 0 || !self.is_troubled {
            return false;
        }
        process.shaky_turns -= 1;
        self.random.u32(..4) == 0
    }
}
