//! Random lives of a directory against a model: appends of every size, superseding records, rolls, spares,
//! flushes, hard states, kills, power failures.

use fsd_wire::LogIndex;

use super::*;
use crate::simulated_disk::Unflushed;

/// A payload size that often ends a record near, at, or just over the end of a segment.
fn draw_size(random: &mut fastrand::Rng, left: u64) -> usize {
    match random.u8(..10) {
        0..5 => random.usize(..300),
        5..7 => random.usize(..3000),
        7 => random.usize(..6000),
        _ => {
            let near = (left as i64) - 64 + i64::from(random.i8(-20..20));
            near.clamp(0, 8000) as usize
        }
    }
}

fn draw_changes(random: &mut fastrand::Rng, model: &Model, term: u64, left: u64) -> Vec<LogChange> {
    let mut changes = Vec::new();
    let mut next = model.log.len() as u64 + 1;
    if next > 1 && random.u8(..5) == 0 {
        next = random.u64(next.saturating_sub(6).max(1)..next);
        changes.push(LogChange::TruncateFrom(LogIndex(next)));
    }
    for _ in 0..random.u8(1..5) {
        changes.push(append(next, term, draw_size(random, left)));
        next += 1;
    }
    changes
}

fn one_life(disk: &SimulatedDisk, random: &mut fastrand::Rng, model: &mut Model) -> Result<(), StorageError> {
    let mut storage = open_with(disk, random.u64(..))?;
    model.recovered(&storage);
    let mut state = storage.recovered.state.clone();
    for _ in 0..random.u8(..20) {
        match random.u8(..10) {
            0 => {
                state.term = state.term.next();
                model.will_store(&state);
                storage.hard_state.store(&state)?;
                model.stored();
            }
            1 => {
                if let Some(request) = storage.log.wants_spare() {
                    match request.prepare(disk) {
                        Ok(spare) => storage.log.install_spare(spare)?,
                        Err(_) => storage.log.spare_failed(),
                    }
                }
            }
            2..5 => {
                storage.log.flush()?;
                model.flushed();
            }
            _ => {
                // A life is a leader's term here: terms in the log grow from life to life.
                let last = storage.log.last_index();
                let used = if last.0 == 0 { 0 } else { u64::from(storage.log.position(last).offset()) };
                let left = SEGMENT_BYTES.saturating_sub(used + 64);
                let changes = draw_changes(random, model, u64::from(state.life.count()), left);
                model.will_append(&changes);
                storage.log.append(&changes)?;
                if disk.is_off() {
                    return Ok(());
                }
                assert_eq!(entries(&storage), model.log);
            }
        }
    }
    Ok(())
}

#[test]
fn random_lives_agree_with_the_model() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut disk = SimulatedDisk::new();
        let mut model = Model::new();
        // A first start that ends.
        model.recovered(&open_with(&disk, seed).unwrap());
        for life in 0..8 {
            if random.bool() {
                disk.power_off_at(disk.operations() + random.u64(1..60));
            }
            if let Err(error) = one_life(&disk, &mut random, &mut model) {
                let is_power = matches!(&error, StorageError::Io { .. } | StorageError::Failed);
                assert!(is_power, "seed {seed} life {life}: {error}");
            }
            let fate = match random.u8(..4) {
                0 => Unflushed::Kept,
                1 => Unflushed::Lost,
                _ => Unflushed::Drawn(random.u64(..)),
            };
            disk = disk.crash(fate);
        }
        let storage = open_with(&disk, 1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.recovered(&storage);
    }
}

#[test]
fn every_size_near_the_end_of_a_segment_is_read_as_it_was_written() {
    for left in 0..400 {
        let disk = SimulatedDisk::new();
        let mut storage = open_ok(&disk);
        let first = (SEGMENT_BYTES - 4096) as usize - 64 - left;
        let changes = [append(1, 1, first), append(2, 1, 100), append(3, 1, 0)];
        let expected = [entry(1, 1, first), entry(2, 1, 100), entry(3, 1, 0)];
        storage.log.append(&changes).unwrap();
        storage.log.flush().unwrap();
        assert_eq!(entries(&storage), expected);
        // 100 bytes need 168 with their head and padding; 0 bytes need 64.
        let is_in_first = |index| storage.log.position(LogIndex(index)).segment().0 == 1;
        let padded_left = left / 8 * 8;
        assert_eq!(is_in_first(2), padded_left >= 168, "left {left}");
        assert_eq!(is_in_first(3), padded_left >= 168 + 64, "left {left}");
        drop(storage);
        assert_eq!(entries(&open_ok(&disk)), expected, "left {left}");
    }
}
