//! Deadlines of many instances: idle connections, waiting requests, peers to dial again.
//!
//! A hierarchical wheel: level 0 has a slot for each of 64 milliseconds, each further level slots 64 times as
//! wide, and eleven levels span all of `u64`. A timer lies in the lowest level at which its deadline and the
//! wheel's time differ, so inserting and cancelling take constant time, and a timer moves down at most ten
//! times before it fires. As the deadlines of a level all come after those of the levels below, the next slot
//! is found with two bit scans, however far away it is: time may jump by hours at no cost.

use slab::Slab;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(SLOT_BITS) as usize;

/// Names a timer until it fires or is cancelled; from then on it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    at: usize,
    /// Counts insertions: a place in the slab is used again, a sequence number never.
    sequence: u64,
}

/// Keys with deadlines. Time is in milliseconds from any point the caller likes; the wheel reads no clock.
#[derive(Debug)]
pub struct TimerWheel<K> {
    now_ms: u64,
    sequence: u64,
    timers: Slab<Timer<K>>,
    levels: [Level; LEVELS],
}

#[derive(Debug)]
struct Timer<K> {
    key: K,
    deadline_ms: u64,
    sequence: u64,
    place: Place,
    previous: Option<usize>,
    next: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: usize,
    slot: usize,
}

/// 64 lists of timers, linked through the slab.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// A bit for each slot that is not empty.
    occupied: u64,
    slots: [List; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: Option<usize>,
    last: Option<usize>,
}

impl<K> TimerWheel<K> {
    /// An empty wheel whose time is `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        let level = Level { occupied: 0, slots: [List::default(); SLOTS] };
        Self { now_ms, sequence: 0, timers: Slab::new(), levels: [level; LEVELS] }
    }

    /// Makes `key` come out of the first [`Self::advance`] to `deadline_ms` or later. A deadline that the
    /// wheel's time has passed counts as that time: the key comes out of the next `advance`, whatever its time.
    pub fn insert(&mut self, deadline_ms: u64, key: K) -> TimerId {
        self.sequence += 1;
        let sequence = self.sequence;
        let deadline_ms = deadline_ms.max(self.now_ms);
        let place = self.place_of(deadline_ms);
        let at = self.timers.insert(Timer { key, deadline_ms, sequence, place, previous: None, next: None });
        self.link(at);
        TimerId { at, sequence }
    }

    /// Takes a timer out before it fires. `None` if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        if self.timers.get(id.at)?.sequence != id.sequence {
            return None;
        }
        self.unlink(id.at);
        Some(self.timers.remove(id.at).key)
    }

    /// When to call [`Self::advance`] next. Never after the earliest deadline; before it where that is more
    /// than 64 ms away, at a time when far timers must move to finer slots: nothing may be due then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_slot().map(|(_, begin_ms)| begin_ms)
    }

    /// Moves the wheel's time to `now_ms` and appends the keys that are due to `due`: in the order of their
    /// deadlines, and of their insertion where these are equal. A time before the wheel's counts as the
    /// wheel's.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<K>) {
        let now_ms = now_ms.max(self.now_ms);
        while let Some((place, begin_ms)) = self.next_slot() {
            if begin_ms > now_ms {
                break;
            }
            self.now_ms = begin_ms;
            self.empty_slot(place, due);
        }
        self.now_ms = now_ms;
    }

    /// How many timers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether no timer waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// The slot with the earliest deadlines, and the time at which it begins: the lowest level that is not
    /// empty comes first as a whole, because its deadlines differ from the wheel's time only in lower bits.
    fn next_slot(&self) -> Option<(Place, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        let shift = level as u32 * SLOT_BITS;
        // The top level's slots are the highest bits of all: above them there is nothing to keep.
        let above = u64::MAX.checked_shl(shift + SLOT_BITS).unwrap_or(0);
        let begin_ms = (self.now_ms & above) | ((slot as u64) << shift);
        Some((Place { level, slot }, begin_ms))
    }

    /// The wheel's time has come to the beginning of this slot: its timers fire, or move to a lower level.
    fn empty_slot(&mut self, place: Place, due: &mut Vec<K>) {
        let list = std::mem::take(&mut self.levels[place.level].slots[place.slot]);
        self.levels[place.level].occupied &= !(1 << place.slot);
        let mut next = list.first;
        while let Some(at) = next {
            next = self.timers[at].next;
            if place.level == 0 {
                due.push(self.timers.remove(at).key);
            } else {
                let lower = self.place_of(self.timers[at].deadline_ms);
                assert!(lower.level < place.level, "a timer moves down until it fires");
                self.timers[at].place = lower;
                self.link(at);
            }
        }
    }

    /// Where a deadline that is not before the wheel's time belongs: the level of the highest bit in which
    /// the two differ.
    fn place_of(&self, deadline_ms: u64) -> Place {
        let differing = deadline_ms ^ self.now_ms;
        let level = differing.checked_ilog2().unwrap_or(0) / SLOT_BITS;
        let slot = (deadline_ms >> (level * SLOT_BITS)) as usize % SLOTS;
        Place { level: level as usize, slot }
    }

    /// Puts a timer at the end of its slot's list.
    fn link(&mut self, at: usize) {
        let Place { level, slot } = self.timers[at].place;
        let level = &mut self.levels[level];
        level.occupied |= 1 << slot;
        let last = level.slots[slot].last.replace(at);
        self.timers[at].previous = last;
        self.timers[at].next = None;
        match last {
            Some(last) => self.timers[last].next = Some(at),
            None => level.slots[slot].first = Some(at),
        }
    }

    fn unlink(&mut self, at: usize) {
        let Timer { place: Place { level, slot }, previous, next, .. } = self.timers[at];
        let level = &mut self.levels[level];
        match previous {
            Some(previous) => self.timers[previous].next = next,
            None => level.slots[slot].first = next,
        }
        match next {
            Some(next) => self.timers[next].previous = previous,
            None => level.slots[slot].last = previous,
        }
        if level.slots[slot].first.is_none() {
            level.occupied &= !(1 << slot);
        }
    }
}

const _: () = assert!(SLOTS == u64::BITS as usize, "a level's slots are the bits of one word");

#[cfg(test)]
mod tests;
