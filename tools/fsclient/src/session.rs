//! A client's side of a session: what its changes are numbered with.

use std::time::{Duration, Instant};

use fsd_wire::client::Operation;
use fsd_wire::{Payload, Sequence, SessionId};

/// An open session, as far as this client knows.
///
/// One change is under way at a time, so all those before it are acknowledged with it: the store need not keep
/// their replies any more, and refuses a copy of one of them that arrives late. That holds also for a change
/// that was given up with its outcome unknown.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    /// The cluster ends the session after so much time without a sign of life.
    idle: Duration,
    /// When the last request was sent that was answered as one to an open session: the session was there later
    /// than that.
    renewed: Instant,
    /// The number of the last change.
    last: Sequence,
}

impl Session {
    /// A session that was asked for at `sent`.
    pub(crate) fn new(id: SessionId, idle_ms: u64, sent: Instant) -> Self {
        Self { id, idle: Duration::from_millis(idle_ms), renewed: sent, last: Sequence(0) }
    }

    /// Whether so much of its time is over that a change had better not rely on it: found gone after a first
    /// attempt without an answer, it would leave the outcome unknown.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.renewed.elapsed() >= self.idle / 2
    }

    /// The request for the next change, to be sent as often as needed.
    pub(crate) fn next_change(&mut self, command: Payload) -> Operation {
        let acknowledged = self.last;
        self.last = Sequence(acknowledged.0 + 1);
        Operation::SessionChange { session: self.id, sequence: self.last, acknowledged, command }
    }

    /// A sign of life; it acknowledges all changes, so none may be under way.
    pub(crate) fn keep_alive(&self) -> Operation {
        Operation::KeepAlive { session: self.id, acknowledged: self.last }
    }

    /// The end of the session.
    pub(crate) fn close(&self) -> Operation {
        Operation::CloseSession { session: self.id }
    }

    /// A request that was first sent at `sent` was answered as one to an open session.
    pub(crate) fn renew(&mut self, sent: Instant) {
        self.renewed = sent;
    }
}
