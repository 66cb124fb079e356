//! Changes that this node passes on to the leader for clients that know no redirects, each made exactly once.
//!
//! The forwarder is a client with a session, as any other: it numbers the changes, sends them again whenever the
//! leader changes, a connection is lost or nothing comes back, and gives each client one true answer. It knows
//! neither sockets nor clocks: it is asked what is to be sent, and told what came back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fsd_wire::client::{ClientRequest, Operation, Outcome, Refusal};
use fsd_wire::{NodeId, Payload, RequestId, Sequence, SessionId, Term};

use super::pending::Asker;
use crate::limits;
use crate::marks::mark;
use crate::mutants::mutant;

/// The way to a leader. Whatever went another way is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) leader: NodeId,
    pub(super) term: Term,
    /// Counts the connections to it.
    pub(super) connection: u64,
}

/// A client that gets its answer.
pub(super) type Answer = (Asker, Outcome);

/// The changes that are on their way.
#[derive(Debug)]
pub(super) struct Forwarder {
    /// What the next request is called. No two lives of a daemon use the same numbers: an answer to the life before
    /// may still come.
    next_ticket: u64,
    session: Session,
    next_sequence: Sequence,
    changes: BTreeMap<u64, Change>,
    /// Those that are still to be sent, or sent again.
    unsent: BTreeSet<u64>,
    /// Bytes of those that were sent.
    sent_bytes: usize,
    path: Option<Path>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    None,
    /// This request opens one; it is late once a round has ended.
    Opening {
        ticket: u64,
        is_late: bool,
    },
    /// The last attempt came to nothing: not again in this round.
    Paused,
    Open(SessionId),
}

#[derive(Debug)]
struct Change {
    asker: Asker,
    command: Payload,
    /// Its place in the session in which it was first sent.
    numbered: Option<(SessionId, Sequence)>,
    /// Attempts that may have come through, or may yet.
    open_attempts: u32,
    /// Rounds that the last attempt is still waited for.
    waits: u32,
    /// Rounds that the next one is waited for: twice as many each time. A leader that is slow gets no more to do by
    /// that than it has time for.
    patience: u32,
}

impl Forwarder {
    /// `first_ticket` should differ from life to life.
    pub(super) fn new(first_ticket: u64) -> Self {
        Self {
            next_ticket: if mutant!("tickets-repeat") { 1 } else { first_ticket },
            session: Session::None,
            next_sequence: Sequence(1),
            changes: BTreeMap::new(),
            unsent: BTreeSet::new(),
            sent_bytes: 0,
            path: None,
        }
    }

    /// The number that the next change will have.
    pub(super) fn next_ticket(&self) -> u64 {
        self.next_ticket
    }

    /// Takes a change over. It is copied: the buffer in which it came may be many times as large, and is not to be kept
    /// for as long as this may take.
    pub(super) fn add(&mut self, asker: Asker, command: &Payload) {
        let command = Payload::from(Bytes::from(command.parts().map(|part| &part[..]).concat()));
        let ticket = self.draw_ticket();
        self.changes.insert(
            ticket,
            Change { asker, command, numbered: None, open_attempts: 0, waits: 0, patience: 1 },
        );
        self.unsent.insert(ticket);
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes are on their way.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// What is to be sent now, in this order, on the way that there is.
    pub(super) fn take_requests(&mut self, path: Option<Path>) -> Vec<ClientRequest> {
        if path != self.path {
            mark!("forwarder-goes-another-way", !self.changes.is_empty() && path.is_some());
            mark!("forwarder-loses-its-way", !self.changes.is_empty() && path.is_none());
            self.path = path;
            self.begin_anew();
        }
        if path.is_none() || self.unsent.is_empty() {
            return Vec::new();
        }
        match self.session {
            Session::Opening { .. } | Session::Paused => Vec::new(),
            Session::None => {
                let ticket = self.draw_ticket();
                self.session = Session::Opening { ticket, is_late: false };
                vec![request(ticket, Operation::OpenSession)]
            }
            Session::Open(session) => self.take_changes(session),
        }
    }

    /// Ends a round, of which each takes as long as an answer may: what nothing came back for is to be sent again.
    pub(super) fn end_round(&mut self) {
        for (ticket, change) in &mut self.changes {
            if change.waits > 0 {
                change.waits -= 1;
            } else if self.unsent.insert(*ticket) {
                mark!("forwarder-hears-nothing");
                self.sent_bytes -= change.command.len();
            }
        }
        match &mut self.session {
            Session::Opening { is_late, .. } if !*is_late => *is_late = true,
            Session::Opening { .. } | Session::Paused => self.session = Session::None,
            Session::None | Session::Open(_) => {}
        }
    }

    /// Takes in an answer of a leader. Returns what a client is to be told, if that is known now.
    pub(super) fn answer(&mut self, ticket: u64, outcome: Outcome) -> Option<Answer> {
        if matches!(self.session, Session::Opening { ticket: opening, .. } if opening == ticket) {
            self.session = match outcome {
                Outcome::SessionOpened { session, .. } => {
                    self.next_sequence = Sequence(1);
                    Session::Open(session)
                }
                _ => {
                    mark!("forwarder-gets-no-session");
                    Session::Paused
                }
            };
            return None;
        }
        mark!("forwarder-gets-late-answer", !self.changes.contains_key(&ticket));
        let change = self.changes.get_mut(&ticket)?;
        let refusal = match &outcome {
            Outcome::Changed { .. } => return self.finish(ticket, outcome),
            Outcome::Refused(refusal) => refusal,
            _ => return None,
        };
        match refusal {
            // Nobody can know yet. It is sent again.
            Refusal::Unknown => {
                mark!("forwarder-learns-nothing");
                change.waits = 0;
                None
            }
            // This attempt did nothing; the others are as open as before.
            Refusal::NotLeader { .. } | Refusal::NoLeader => {
                mark!("forwarder-asks-who-does-not-lead", change.open_attempts <= 1);
                mark!("forwarder-asks-who-does-not-lead-again", change.open_attempts > 1);
                change.open_attempts = change.open_attempts.saturating_sub(1);
                change.waits = 0;
                if mutant!("not-leader-is-the-whole") {
                    return self.finish(ticket, Outcome::Refused(Refusal::NoLeader));
                }
                None
            }
            Refusal::Busy | Refusal::DiskFull { .. } => {
                change.open_attempts = change.open_attempts.saturating_sub(1);
                mark!("forwarder-is-refused-as-busy", change.open_attempts == 0);
                mark!("forwarder-is-refused-as-busy-once", change.open_attempts > 0);
                if change.open_attempts == 0 || mutant!("busy-is-the-whole") {
                    self.finish(ticket, outcome)
                } else {
                    change.waits = 0;
                    None
                }
            }
            Refusal::SessionGone => self.lose_session(ticket),
            Refusal::NotFound
            | Refusal::VersionMismatch { .. }
            | Refusal::Conflict { .. }
            | Refusal::InvalidName { .. }
            | Refusal::TooLarge { .. }
            | Refusal::BadRequest { .. } => self.finish(ticket, outcome),
        }
    }

    /// A client has waited long enough. Returns what is known by then.
    pub(super) fn give_up(&mut self, ticket: u64) -> Option<Answer> {
        let change = self.changes.get(&ticket)?;
        mark!("forwarder-gives-up-what-nobody-took", change.open_attempts == 0);
        mark!("forwarder-gives-up-what-is-open", change.open_attempts > 0);
        let refusal = if change.open_attempts == 0 || mutant!("forwarded-unknown-is-refused") {
            Refusal::NoLeader
        } else {
            Refusal::Unknown
        };
        self.finish(ticket, Outcome::Refused(refusal))
    }

    /// Gives everything up: the process is about to end.
    pub(super) fn give_all_up(&mut self) -> Vec<Answer> {
        let tickets: Vec<u64> = self.changes.keys().copied().collect();
        tickets.into_iter().filter_map(|ticket| self.give_up(ticket)).collect()
    }

    /// There is another way, on which nothing has been sent yet.
    fn begin_anew(&mut self) {
        self.unsent.extend(self.changes.keys());
        self.sent_bytes = 0;
        self.changes.values_mut().for_each(|change| change.patience = 1);
        if matches!(self.session, Session::Opening { .. } | Session::Paused) {
            self.session = Session::None;
        }
    }

    fn draw_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        ticket
    }

    /// As many of the unsent changes as may be under way together, in the order in which they came.
    fn take_changes(&mut self, session: SessionId) -> Vec<ClientRequest> {
        let mut requests = Vec::new();
        while let Some(ticket) = self.unsent.first().copied() {
            let under_way = self.changes.len() - self.unsent.len();
            let bytes = self.changes[&ticket].command.len();
            let is_full = under_way >= limits::FORWARDED_CHANGES_MAX
                || under_way > 0 && self.sent_bytes + bytes > limits::FORWARDED_BYTES_MAX;
            if is_full {
                break;
            }
            self.unsent.remove(&ticket);
            self.sent_bytes += bytes;
            requests.push(self.attempt(ticket, session));
        }
        requests
    }

    fn attempt(&mut self, ticket: u64, present: SessionId) -> ClientRequest {
        let change = self.changes.get_mut(&ticket).expect("what is unsent is there");
        if mutant!("retry-takes-a-new-number") {
            change.numbered = None;
        }
        let (session, sequence) = *change.numbered.get_or_insert_with(|| {
            let sequence = self.next_sequence;
            self.next_sequence = Sequence(sequence.0 + 1);
            (present, sequence)
        });
        change.open_attempts += 1;
        change.waits = change.patience;
        change.patience = change.patience.saturating_mul(2);
        let command = change.command.clone();
        let acknowledged = Sequence(self.first_sequence_of(session).0 - 1);
        request(ticket, Operation::SessionChange { session, sequence, acknowledged, command })
    }

    /// The lowest number in a session that still waits for its answer. Numbers need not follow the order of the changes: one
    /// that comes from a session that is gone is numbered anew, behind others that came after it.
    fn first_sequence_of(&self, wanted: SessionId) -> Sequence {
        let numbered = self.changes.values().filter_map(|change| change.numbered);
        let of_session = numbered.filter(|(session, _)| *session == wanted);
        of_session.map(|(_, sequence)| sequence).min().expect("one was just numbered")
    }

    /// The session in which a change was sent is no more. If this was its only attempt, nothing happened: it goes
    /// into a new session. Else nobody can find out any more.
    fn lose_session(&mut self, ticket: u64) -> Option<Answer> {
        let change = self.changes.get_mut(&ticket).expect("the caller has looked it up");
        if let Some((session, _)) = change.numbered
            && self.session == Session::Open(session)
        {
            self.session = Session::None;
        }
        mark!("forwarder-loses-session-of-only-attempt", change.open_attempts <= 1);
        mark!("forwarder-loses-session-with-open-attempts", change.open_attempts > 1);
        if change.open_attempts > 1 && !mutant!("session-gone-is-the-whole") {
            return self.finish(ticket, Outcome::Refused(Refusal::Unknown));
        }
        change.numbered = None;
        change.open_attempts = 0;
        if self.unsent.insert(ticket) {
            self.sent_bytes -= change.command.len();
        }
        None
    }

    fn finish(&mut self, ticket: u64, outcome: Outcome) -> Option<Answer> {
        let change = self.changes.remove(&ticket)?;
        if !self.unsent.remove(&ticket) {
            self.sent_bytes -= change.command.len();
        }
        Some((change.asker, outcome))
    }
}

fn request(ticket: u64, operation: Operation) -> ClientRequest {
    ClientRequest { id: RequestId(ticket), timeout_ms: limits::REQUEST_TIMEOUT_MS_MAX as u32, operation }
}

#[cfg(test)]
mod tests;
