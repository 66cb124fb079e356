//! Where each entry of the log is, in memory, and where the log begins.

use std::collections::VecDeque;

use fsd_wire::{ClusterTimeMs, EntryId, LogIndex};

use super::segment::{Position, RecordHead};

/// Positions kept in one piece. A turn never moves more than the list of these pieces, however long the log is.
const CHUNK: u64 = 4096;

/// Where a log begins that has lost its first entries to a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBase {
    /// The entry before the first one that the log still has; zeros for a log that has all.
    pub entry: EntryId,
    /// Its stamp.
    pub stamp: ClusterTimeMs,
    /// Right behind its record: records before this place are no longer the log's.
    pub end: Position,
}

/// The positions of all entries behind the base, and what is known of the last one.
#[derive(Debug, Default)]
pub(super) struct EntryTable {
    base: LogBase,
    /// The entry of index `n + 1` is at place `n - first`, counted over all chunks; all but the last chunk are full.
    chunks: VecDeque<Vec<Position>>,
    /// Places before the first chunk; a multiple of the chunks' length.
    first: u64,
    pub(super) last: EntryId,
    pub(super) last_stamp: ClusterTimeMs,
}

impl EntryTable {
    /// No entries behind a base.
    pub(super) fn behind(base: LogBase) -> Self {
        let first = base.entry.index.0 / CHUNK * CHUNK;
        let before = (base.entry.index.0 - first) as usize;
        // The entries of the first chunk up to the base are not asked for.
        let chunks = if before == 0 { VecDeque::new() } else { [filled(before)].into() };
        Self { base, chunks, first, last: base.entry, last_stamp: base.stamp }
    }

    pub(super) fn base(&self) -> &LogBase {
        &self.base
    }

    pub(super) fn position(&self, index: LogIndex) -> Option<Position> {
        if index <= self.base.entry.index {
            return None;
        }
        let place = index.previous().0 - self.first;
        self.chunks.get((place / CHUNK) as usize)?.get((place % CHUNK) as usize).copied()
    }

    /// The entry is the last one from here on, whatever was at its index and behind.
    pub(super) fn set_last(&mut self, head: &RecordHead) {
        let index = head.id.index;
        assert!(index > self.base.entry.index && index <= self.last.index.next(), "entry {:?}", head.id);
        let place = index.previous().0 - self.first;
        let (chunk, place) = ((place / CHUNK) as usize, (place % CHUNK) as usize);
        self.chunks.truncate(chunk + 1);
        if self.chunks.len() <= chunk {
            self.chunks.push_back(Vec::with_capacity(CHUNK as usize));
        }
        let chunk = &mut self.chunks[chunk];
        chunk.truncate(place);
        chunk.push(head.position);
        self.last = head.id;
        self.last_stamp = head.stamp;
    }

    /// Forgets the entries up to a new base.
    pub(super) fn trim(&mut self, base: LogBase) {
        assert!(base.entry.index >= self.base.entry.index && base.entry.index <= self.last.index, "{base:?}");
        self.base = base;
        while self.chunks.len() > 1 && self.first + CHUNK <= base.entry.index.0 {
            self.chunks.pop_front();
            self.first += CHUNK;
        }
    }
}

fn filled(len: usize) -> Vec<Position> {
    let mut chunk = Vec::with_capacity(CHUNK as usize);
    chunk.resize(len, Position::default());
    chunk
}

#[cfg(test)]
mod tests {
    use fsd_wire::Term;

    use super::*;

    fn set(table: &mut EntryTable, model: &mut Vec<u64>, index: u64, position: u64) {
        let id = EntryId { term: Term(1), index: LogIndex(index) };
        table.set_last(&RecordHead {
            id,
            stamp: ClusterTimeMs(index),
            position: Position(position),
            ..RecordHead::default()
        });
        model.truncate(index as usize - 1);
        model.push(position);
    }

    #[test]
    fn it_is_a_list_that_is_cut_and_grows_across_its_pieces() {
        let (mut table, mut model) = (EntryTable::default(), Vec::new());
        let chunk = CHUNK;
        for index in 1..=3 * chunk + 5 {
            set(&mut table, &mut model, index, 8 * index);
        }
        let mut position = 1_000_000;
        for index in [3 * chunk + 3, 3 * chunk + 1, 3 * chunk, 3 * chunk + 1, 2 * chunk - 1, chunk + 1, 2, 1]
        {
            position += 8;
            set(&mut table, &mut model, index, position);
            assert_eq!(table.last.index.0, model.len() as u64);
            for index in 0..=model.len() as u64 + chunk {
                let expected = index.checked_sub(1).and_then(|place| model.get(place as usize));
                assert_eq!(table.position(LogIndex(index)), expected.map(|position| Position(*position)));
            }
        }
    }

    #[test]
    fn what_is_before_the_base_is_forgotten_and_the_rest_stays() {
        for base in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5] {
            let (mut table, mut model) = (EntryTable::default(), Vec::new());
            for index in 1..=3 * CHUNK + 5 {
                set(&mut table, &mut model, index, 8 * index);
            }
            let entry = EntryId { term: Term(1), index: LogIndex(base) };
            let log_base = LogBase { entry, stamp: ClusterTimeMs(base), end: Position(8 * base + 8) };
            table.trim(log_base);
            let mut behind = EntryTable::behind(log_base);
            assert_eq!((behind.last, behind.last_stamp), (entry, ClusterTimeMs(base)));
            let mut same = model[..base as usize].to_vec();
            for index in base + 1..=3 * CHUNK + 5 {
                set(&mut behind, &mut same, index, 8 * index);
            }
            for table in [&table, &behind] {
                assert_eq!(table.last.index, LogIndex(3 * CHUNK + 5));
                assert_eq!(table.position(LogIndex(base)), None);
                for index in base + 1..=3 * CHUNK + 5 {
                    assert_eq!(table.position(LogIndex(index)), Some(Position(8 * index)));
                }
            }
            set(&mut table, &mut model, 3 * CHUNK + 6, 1);
            assert_eq!(table.position(LogIndex(3 * CHUNK + 6)), Some(Position(1)));
        }
    }
}
