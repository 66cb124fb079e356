//! The power fails before each single operation on the disk, stores included, and again while the directory is
//! recovered. What is found then must be what the model allows.

use fsd_wire::{Incarnation, Life, LogIndex};

use super::*;
use crate::simulated_disk::Unflushed;

/// What one life does between its start and the power failure.
enum Step {
    Append(Vec<LogChange>),
    Flush,
    Store(u64),
    Spare,
}

/// Creates, appends, rolls with and without a spare, supersedes within a segment, behind a roll and through one,
/// stores hard states.
fn script() -> Vec<Step> {
    let truncate = |index| LogChange::TruncateFrom(LogIndex(index));
    vec![
        Step::Append(vec![append(1, 1, 700), append(2, 1, 10)]),
        Step::Flush,
        Step::Store(2),
        Step::Append(vec![append(3, 2, 1100)]),
        Step::Spare,
        Step::Append(vec![append(4, 2, 900), append(5, 2, 1300), append(6, 2, 1000)]),
        Step::Flush,
        Step::Append(vec![truncate(5), append(5, 3, 600), append(6, 3, 100)]),
        Step::Append(vec![truncate(6), append(6, 4, 900), append(7, 4, 3000)]),
        Step::Flush,
        Step::Store(5),
        Step::Append(vec![append(8, 5, 2000), truncate(7), append(7, 6, 500)]),
        Step::Spare,
        Step::Append(vec![append(8, 6, 2500), append(9, 6, 2500), append(10, 6, 100)]),
        Step::Flush,
        Step::Append(vec![append(11, 6, 700), append(12, 6, 700)]),
    ]
}

/// Opens the directory and runs a script until it ends or the power fails.
fn live(disk: &SimulatedDisk, seed: u64, steps: &[Step], model: &mut Model) -> Result<(), StorageError> {
    let mut storage = open_with(disk, seed)?;
    model.recovered(&storage);
    let mut state = storage.recovered.state.clone();
    for step in steps {
        match step {
            Step::Append(changes) => {
                model.will_append(changes);
                storage.log.append(changes)?;
            }
            Step::Flush => {
                storage.log.flush()?;
                model.flushed();
            }
            Step::Store(term) => {
                state.term = Term(*term);
                // So many nodes that a slot takes several sectors, any of which may be lost.
                state.met = (1..=60).map(|node| (NodeId(node), (Incarnation(*term), Life(*term)))).collect();
                model.will_store(&state);
                storage.hard_state.store(&state)?;
                model.stored();
            }
            Step::Spare => {
                if let Some(request) = storage.log.wants_spare() {
                    match request.prepare(disk) {
                        Ok(spare) => storage.log.install_spare(spare)?,
                        Err(_) => storage.log.spare_failed(),
                    }
                }
            }
        }
    }
    Ok(())
}

/// What may become of what was not flushed: all of it, none of it, each single sector lost, each single one kept,
/// and some mixtures.
fn fates(disk: &SimulatedDisk) -> impl Iterator<Item = Unflushed> {
    let sectors = disk.unflushed_sectors();
    [Unflushed::Kept, Unflushed::Lost]
        .into_iter()
        .chain((0..sectors).flat_map(|sector| [Unflushed::AllBut(sector), Unflushed::Only(sector)]))
        .chain((1..=6).map(Unflushed::Drawn))
}

/// Recovery of `disk` gives what the model allows, and what it gave once it gives again.
fn assert_sound(disk: &SimulatedDisk, model: &Model) {
    let mut model = model.clone();
    let storage = open_with(disk, 2).unwrap_or_else(|error| panic!("it must open: {error}"));
    model.recovered(&storage);
    drop(storage);
    let storage =
        open_with(&disk.crash(Unflushed::Lost), 3).unwrap_or_else(|error| panic!("nor again: {error}"));
    model.recovered(&storage);
}

/// The power fails before each operation of a recovery, and each time again in the next one, `depth` times.
fn crash_in_recovery(disk: &SimulatedDisk, model: &Model, depth: u32, fates: &[Unflushed]) {
    for operation in 1.. {
        let trial = disk.crash(Unflushed::Kept);
        trial.power_off_at(operation);
        if open_with(&trial, 10 + u64::from(depth)).is_ok() {
            return;
        }
        for fate in fates {
            let found = trial.crash(*fate);
            assert_sound(&found.crash(Unflushed::Kept), model);
            if depth > 1 {
                crash_in_recovery(&found, model, depth - 1, fates);
            }
        }
    }
}

#[test]
fn the_power_may_fail_before_any_operation() {
    let mut single_losses = 0;
    for operation in 1.. {
        let disk = SimulatedDisk::new();
        disk.power_off_at(operation);
        let mut model = Model::new();
        let ended = live(&disk, 1, &script(), &mut model).is_ok() && disk.operations() < operation;
        // A directory that was being made may hold the new hard state already.
        let made = model.possible_states == [None];
        for fate in fates(&disk) {
            single_losses += usize::from(matches!(fate, Unflushed::AllBut(_)));
            let found = disk.crash(fate);
            let mut model = model.clone();
            if made && found.read("hard-state").is_some() {
                model.possible_states = vec![Some(open_ok(&found.crash(Unflushed::Kept)).recovered.state)];
            }
            assert_sound(&found.crash(Unflushed::Kept), &model);
        }
        if ended {
            assert!(operation > 60, "the script has only {operation} operations");
            assert!(single_losses > 200, "only {single_losses} single losses of a sector");
            return;
        }
    }
}

#[test]
fn the_power_may_fail_again_during_recovery() {
    for operation in (1..).step_by(3) {
        let disk = SimulatedDisk::new();
        disk.power_off_at(operation);
        let mut model = Model::new();
        let ended = live(&disk, 1, &script(), &mut model).is_ok() && disk.operations() < operation;
        if model.possible_states != [None] {
            for fate in [Unflushed::Kept, Unflushed::Drawn(operation)] {
                crash_in_recovery(
                    &disk.crash(fate),
                    &model,
                    2,
                    &[Unflushed::Kept, Unflushed::Drawn(operation + 1)],
                );
            }
        }
        if ended {
            return;
        }
    }
}

#[test]
fn nothing_is_handed_over_before_it_is_durable() {
    // The process is killed with records in memory only; its successor finds them, and then the power fails.
    let disk = SimulatedDisk::new();
    let mut storage = open_ok(&disk);
    storage.log.append(&[append(1, 1, 100), append(2, 1, 100)]).unwrap();
    drop(storage);
    let storage = open_ok(&disk);
    assert_eq!(storage.recovered.log.last_index, LogIndex(2));
    let storage = open_ok(&disk.crash(Unflushed::Lost));
    assert_eq!(storage.recovered.log.last_index, LogIndex(2));
}
