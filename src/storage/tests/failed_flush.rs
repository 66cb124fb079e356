//! A process ends because a flush failed, and is started again while the machine lives. It still sees what was
//! stored, but the kernel takes that for written: unless it is stored again, the next power failure takes it away
//! from a log that was reported whole. Both were found by simulated clusters.

use std::io;

use fsd_wire::{LogIndex, Term};

use super::*;
use crate::simulated_disk::Unflushed;

/// A directory in whose last flush the entries from `first` on were to become durable, and did not.
fn with_failed_flush(flushed: &[LogChange], unflushed: &[LogChange]) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(flushed).unwrap();
    storage.log.flush().unwrap();
    storage.log.append(unflushed).unwrap();
    disk.fail_at(disk.operations() + 1, io::ErrorKind::Other);
    storage.log.flush().unwrap_err();
    disk
}

#[test]
fn what_is_reported_as_the_log_is_on_the_disk() {
    // Behind flushed records, at the very beginning, and as the first of a segment.
    for (flushed, unflushed) in [
        (vec![append(1, 1, 10)], vec![append(2, 1, 10), append(3, 1, 700)]),
        (Vec::new(), vec![append(1, 1, 10)]),
        (vec![append(1, 1, 3000)], vec![append(2, 1, 3000)]),
        (
            vec![append(1, 1, 10), append(2, 1, 10)],
            vec![LogChange::TruncateFrom(LogIndex(1)), append(1, 2, 10)],
        ),
    ] {
        let disk = with_failed_flush(&flushed, &unflushed);
        let reported = entries(&open_ok(&disk));
        let found = entries(&open_ok(&disk.crash(Unflushed::Lost)));
        assert_eq!(ids(&found), ids(&reported));
        assert_eq!(found.last(), reported.last());
    }
}

#[test]
fn no_single_power_failure_tears_both_hard_states() {
    for operation in 1..20 {
        for seed in 0..20 {
            let disk = SimulatedDisk::new();
            let mut storage = open_ok(&disk);
            let mut state = storage.recovered.state;
            state.term = Term(5);
            disk.fail_at(disk.operations() + 2, io::ErrorKind::Other);
            storage.hard_state.store(&state).unwrap_err();
            disk.power_off_at(disk.operations() + operation);
            let ended = open_with(&disk, 7);
            let found = open_ok(&disk.crash(Unflushed::Drawn(seed))).recovered.state;
            // What a start has told of counts from then on.
            let told = ended.map_or(Term(0), |storage| storage.recovered.state.term);
            assert!(found.term == Term(5) || found.term == Term(0) && told == Term(0), "{found:?}");
        }
    }
}
