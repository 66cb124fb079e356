//! What happens next: events in the order of simulated time, and of their making where that is equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use slab::Slab;

use crate::fabric::{Chunk, Side};

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Something sent on a connection arrives at one of its ends.
    Arrive { connection: u32, to: Side, chunk: Chunk },
    /// A node has a timer that is due, or is no longer busy.
    Wake { node: usize, life: u64 },
    /// The segment that a node wanted is to be made ready.
    Job { node: usize, life: u64 },
    /// A node that is down is started.
    Start { node: usize },
    /// A client does its next thing.
    Client { client: usize },
    /// A fault is made.
    Fault,
    /// The next act of a script is played, if this is still its number.
    Act { number: u64 },
    /// The next act of a rebirth is played, if this is still its number.
    Rebirth { number: u64 },
    /// What the leader has for a node is lost on its way.
    LoseAnswer { node: usize },
    /// A node is told to stop, if this is still its life.
    Stop { node: usize, life: u64 },
    /// A fault of this number ends.
    Heal { number: u64 },
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    happenings: Slab<Happening>,
    sequence: u64,
}

impl Schedule {
    /// Lets something happen at a time; what is put in for the same time happens in this order.
    pub(crate) fn at(&mut self, time_us: u64, happening: Happening) {
        self.sequence += 1;
        let key = self.happenings.insert(happening);
        self.heap.push(Reverse((time_us, self.sequence, key)));
    }

    /// The next event, with its time.
    pub(crate) fn next(&mut self) -> Option<(u64, Happening)> {
        let Reverse((time_us, _, key)) = self.heap.pop()?;
        Some((time_us, self.happenings.remove(key)))
    }

    /// When the next event is.
    pub(crate) fn next_time_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((time_us, _, _))| *time_us)
    }
}
