//! Where each entry of the log is, in memory.

use fsd_wire::{ClusterTimeMs, EntryId, LogIndex};

use super::segment::{Position, RecordHead};

/// Positions kept in one piece. A turn never moves more than the list of these pieces, however long the log is.
const CHUNK: usize = 4096;

/// The positions of all entries, and what is known of the last one.
#[derive(Debug, Default)]
pub(super) struct EntryTable {
    /// The entry at index `n + 1` is at place `n`, counted over all chunks; all but the last chunk are full.
    chunks: Vec<Vec<Position>>,
    pub(super) last: EntryId,
    pub(super) last_stamp: ClusterTimeMs,
}

impl EntryTable {
    pub(super) fn position(&self, index: LogIndex) -> Option<Position> {
        let place = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK).copied()
    }

    /// The entry is the last one from here on, whatever was at its index and behind.
    pub(super) fn set_last(&mut self, head: &RecordHead) {
        assert!(head.id.index.0 >= 1 && head.id.index <= self.last.index.next(), "entry {:?}", head.id);
        let place = head.id.index.previous().0 as usize;
        self.chunks.truncate(place / CHUNK + 1);
        if self.chunks.len() <= place / CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = &mut self.chunks[place / CHUNK];
        chunk.truncate(place % CHUNK);
        chunk.push(head.position);
        self.last = head.id;
        self.last_stamp = head.stamp;
    }
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
        let chunk = CHUNK as u64;
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
}
