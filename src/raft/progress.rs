//! How far the leader knows each follower's log to equal its own, and what is on its way there.
//!
//! A follower is **probed** until the leader knows where their logs meet: one AppendEntries at a time, mostly
//! empty. Then it is **replicated** to: entries are sent ahead of the replies, up to a window in bytes and in
//! messages. A conflict or a lost connection leads back to probing.
//!
//! A follower that lacks what the leader has compacted away is sent no entries, but a **snapshot**; `compaction` has
//! the rules.

use std::collections::VecDeque;

use fsd_wire::{Incarnation, LogIndex};

use crate::limits::REPLICATION_WINDOW_BYTES;

/// Entries sent and not yet answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) last_index: LogIndex,
    pub(super) bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Probe {
        /// The probe is on its way; the next heartbeat repeats it.
        sent: bool,
    },
    Replicate {
        in_flight: VecDeque<InFlight>,
        in_flight_bytes: usize,
    },
    /// What it needs next is no longer in the log. It is so exactly as long as `next_index` is not behind the base.
    Snapshot,
}

/// What the leader of a term knows of one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The incarnation of which all this is known.
    pub(super) incarnation: Option<Incarnation>,
    /// Section 5.3: known to be replicated there, durably.
    pub(super) match_index: LogIndex,
    /// Section 5.3: the next entry to send.
    pub(super) next_index: LogIndex,
    pub(super) mode: Mode,
    /// The last round that it answered in this term.
    pub(super) round_answered: u64,
    /// Replies of earlier rounds no longer say where the logs meet: the question has changed since.
    pub(super) round_valid_from: u64,
    /// When it last answered in this term.
    pub(super) heard_ms: Option<u64>,
    /// A newcomer is registered when it has caught up to here: the leader's last entry when it first
    /// answered.
    pub(super) welcome_index: Option<LogIndex>,
    /// The next AppendEntries is due even if it is empty.
    pub(super) heartbeat_due: bool,
    /// The commit index that was last sent.
    pub(super) commit_sent: LogIndex,
    /// It has said that it takes no entries.
    pub(super) is_full: bool,
    /// Where it was when it was last replicated to.
    replicated_from: LogIndex,
    /// It took nothing of what it was sent since: it is sent no entries before the next heartbeat.
    pub(super) is_stuck: bool,
}

impl Progress {
    pub(super) fn new(incarnation: Option<Incarnation>, next_index: LogIndex) -> Self {
        Self {
            incarnation,
            match_index: LogIndex(0),
            next_index,
            mode: Mode::Probe { sent: false },
            round_answered: 0,
            round_valid_from: 0,
            heard_ms: None,
            welcome_index: None,
            heartbeat_due: true,
            commit_sent: LogIndex(0),
            is_full: false,
            replicated_from: LogIndex(0),
            is_stuck: false,
        }
    }

    /// Whether it turns out to have taken nothing since it is replicated to, if it lacks the entry at `next_index`.
    pub(super) fn has_taken_nothing(&self, next_index: LogIndex) -> bool {
        matches!(self.mode, Mode::Replicate { .. }) && next_index == self.replicated_from.next()
    }

    /// Goes back to looking for the place where the logs meet; `round` is the first of the new question.
    pub(super) fn probe(&mut self, next_index: LogIndex, round: u64) {
        self.next_index = next_index.max(self.match_index.next());
        self.mode = Mode::Probe { sent: false };
        self.round_valid_from = round;
    }

    /// The logs are known to be equal up to `match_index`: entries may be sent ahead of replies from there.
    pub(super) fn replicate(&mut self, round: u64) {
        self.next_index = self.match_index.next();
        self.replicated_from = self.match_index;
        self.mode = Mode::Replicate { in_flight: VecDeque::new(), in_flight_bytes: 0 };
        self.round_valid_from = round;
    }

    /// The follower needs a snapshot; `round` is the first in which that is known.
    pub(super) fn snapshot(&mut self, round: u64) {
        self.next_index = self.match_index.next();
        self.mode = Mode::Snapshot;
        self.round_valid_from = round;
    }

    /// Notes that the follower holds everything up to `match_index`.
    pub(super) fn acknowledge(&mut self, match_index: LogIndex) {
        self.match_index = self.match_index.max(match_index);
        if let Mode::Replicate { in_flight, in_flight_bytes } = &mut self.mode {
            while in_flight.front().is_some_and(|sent| sent.last_index <= match_index) {
                *in_flight_bytes -= in_flight.pop_front().map_or(0, |sent| sent.bytes);
            }
        }
        self.next_index = self.next_index.max(self.match_index.next());
    }

    /// Bytes of entries that may be sent now; nothing while the window of bytes, or of `messages_max`, is full, or the
    /// follower's disk is, or seems to be.
    pub(super) fn window_bytes(&self, messages_max: usize) -> Option<usize> {
        if self.is_full || self.is_stuck {
            return None;
        }
        match &self.mode {
            Mode::Probe { sent } => (!sent).then_some(REPLICATION_WINDOW_BYTES),
            Mode::Replicate { in_flight, in_flight_bytes } => (in_flight.len() < messages_max
                && *in_flight_bytes < REPLICATION_WINDOW_BYTES)
                .then(|| REPLICATION_WINDOW_BYTES - in_flight_bytes),
            Mode::Snapshot => None,
        }
    }

    /// Notes that entries up to `last_index` were sent.
    pub(super) fn sent(&mut self, last_index: LogIndex, bytes: usize) {
        match &mut self.mode {
            Mode::Probe { sent } => *sent = true,
            Mode::Replicate { in_flight, in_flight_bytes } => {
                in_flight.push_back(InFlight { last_index, bytes });
                *in_flight_bytes += bytes;
                self.next_index = last_index.next();
            }
            Mode::Snapshot => unreachable!("no entries are sent to who needs a snapshot"),
        }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        match &self.mode {
            Mode::Probe { sent } => !sent,
            Mode::Replicate { in_flight, .. } => in_flight.is_empty(),
            Mode::Snapshot => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REPLICATION_WINDOW_MESSAGES;

    fn replicating() -> Progress {
        let mut progress = Progress::new(None, LogIndex(11));
        progress.acknowledge(LogIndex(10));
        progress.replicate(1);
        progress
    }

    #[test]
    fn the_window_is_bounded_in_bytes() {
        let mut progress = replicating();
        assert_eq!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES), Some(REPLICATION_WINDOW_BYTES));
        progress.sent(LogIndex(12), REPLICATION_WINDOW_BYTES - 1);
        assert_eq!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES), Some(1));
        // A single entry may be larger than what is left.
        progress.sent(LogIndex(13), 1000);
        assert_eq!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES), None);
        progress.acknowledge(LogIndex(11));
        assert_eq!(
            progress.window_bytes(REPLICATION_WINDOW_MESSAGES),
            None,
            "half of the first message is not answered"
        );
        progress.acknowledge(LogIndex(12));
        assert_eq!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES), Some(REPLICATION_WINDOW_BYTES - 1000));
        assert_eq!(progress.next_index, LogIndex(14));
    }

    #[test]
    fn the_window_is_bounded_in_messages() {
        let mut progress = replicating();
        for index in 0..REPLICATION_WINDOW_MESSAGES as u64 {
            assert!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES).is_some());
            progress.sent(LogIndex(11 + index), 1);
        }
        assert_eq!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES), None);
        progress.acknowledge(LogIndex(11));
        assert!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES).is_some());
    }

    #[test]
    fn one_probe_is_under_way_at_a_time() {
        let mut progress = Progress::new(None, LogIndex(11));
        assert!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES).is_some() && progress.is_idle());
        progress.sent(LogIndex(11), 0);
        assert!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES).is_none() && !progress.is_idle());
        assert_eq!(progress.next_index, LogIndex(11), "a probe assumes nothing");
        progress.probe(LogIndex(5), 3);
        assert!(progress.window_bytes(REPLICATION_WINDOW_MESSAGES).is_some());
    }

    #[test]
    fn what_is_known_is_not_looked_for_again() {
        let mut progress = replicating();
        progress.probe(LogIndex(3), 2);
        assert_eq!(progress.next_index, LogIndex(11));
        progress.acknowledge(LogIndex(4));
        assert_eq!(progress.match_index, LogIndex(10));
    }
}
