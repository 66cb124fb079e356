//! What the other side of a connection owes, and until when: a hello, the rest of a message, a request, the
//! taking of its replies.
//!
//! Time is counted in ticks, one for each sweep, and not in milliseconds: a process that stood still for a minute
//! has waited for nobody, and hears what came meanwhile before its next sweep. A connection stands in the wheel at
//! most once. Where its deadline moved away meanwhile it is looked at in vain and put back, so that traffic costs
//! no work in the wheel; a sweep costs as much as there are deadlines in it, however many connections there are.

use super::connection::{Connection, Phase, Session};
use super::{ConnectionId, Net, SWEEP_MS};
use crate::limits;
use crate::timer_wheel::{TimerId, TimerWheel};

/// What the other side owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// Nothing, or it is watched elsewhere.
    Nothing,
    /// Its first message.
    Hello,
    /// The rest of the message of this number.
    Message(u64),
    /// Anything at all, of a client that waits for nothing.
    Request,
    /// The rest of the request for a page, which is the message of this number.
    PageRequest(u64),
    /// Anything at all, of a reader of the pages.
    Page,
    /// A sign of life, of a peer.
    SignOfLife,
    /// To take its replies.
    Taking,
    /// To take the last replies of a connection that ends.
    LastTaking,
    /// To close a connection on which all is said.
    Farewell,
}

impl Owed {
    fn time_ms(self) -> u64 {
        match self {
            Self::Nothing => unreachable!("nothing has no deadline"),
            Self::Hello => limits::HELLO_MS_MAX,
            Self::Message(_) => limits::MESSAGE_MS,
            Self::Request => limits::CLIENT_IDLE_MS_MAX,
            Self::PageRequest(_) => limits::HTTP_REQUEST_MS_MAX,
            Self::Page => limits::HTTP_IDLE_MS_MAX,
            Self::SignOfLife => limits::PEER_SILENCE_MS_MAX,
            Self::Taking => limits::REPLIES_MS,
            Self::LastTaking => limits::LAST_REPLIES_MS,
            Self::Farewell => limits::LINGER_MS_MAX,
        }
    }

    /// So many bytes within the time buy the same time again.
    fn bytes_min(self) -> u64 {
        match self {
            Self::Message(_) => limits::MESSAGE_BYTES_MIN,
            Self::Taking | Self::LastTaking => limits::REPLIES_BYTES_MIN,
            Self::Nothing
            | Self::Hello
            | Self::Request
            | Self::PageRequest(_)
            | Self::Page
            | Self::SignOfLife
            | Self::Farewell => u64::MAX,
        }
    }

    /// Whether any byte is all that is owed.
    fn is_paid_by_any_byte(self) -> bool {
        matches!(self, Self::Request | Self::Page | Self::SignOfLife)
    }

    /// Why the connection is closed when the time is up.
    fn complaint(self) -> &'static str {
        match self {
            Self::Nothing => unreachable!("nothing is never late"),
            Self::Hello => "it did not say who it is in time",
            Self::Message(_) | Self::PageRequest(_) => "it sends the rest of its message too slowly",
            Self::Request | Self::Page => "it has asked for nothing for too long",
            Self::SignOfLife => "it gives no sign of life",
            Self::Taking | Self::LastTaking => "it does not take its replies",
            Self::Farewell => "it does not close, and all is said",
        }
    }
}

/// One thing that is owed, since when, and how many bytes had moved by then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    owed: Owed,
    since_tick: u64,
    bytes: u64,
}

/// What a look at a watch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// There is time until this tick.
    Wait(u64),
    Late(&'static str),
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { owed: Owed::Nothing, since_tick: 0, bytes: 0 }
    }

    /// Notes what is owed now, when so many bytes have moved. Time begins anew when it is something else.
    fn note(&mut self, owed: Owed, tick: u64, bytes: u64) {
        if owed != self.owed || (owed.is_paid_by_any_byte() && bytes > self.bytes) {
            *self = Self { owed, since_tick: tick, bytes };
        }
    }

    fn due_tick(&self) -> Option<u64> {
        // Half a sweep is none: it is waited for at least as long as is promised.
        (self.owed != Owed::Nothing).then(|| self.since_tick + self.owed.time_ms().div_ceil(SWEEP_MS) + 1)
    }

    fn judge(&mut self, tick: u64, bytes: u64) -> Option<Verdict> {
        let due_tick = self.due_tick()?;
        if tick < due_tick {
            return Some(Verdict::Wait(due_tick));
        }
        if bytes - self.bytes < self.owed.bytes_min() {
            return Some(Verdict::Late(self.owed.complaint()));
        }
        self.since_tick = tick;
        self.bytes = bytes;
        self.due_tick().map(Verdict::Wait)
    }
}

/// The ticks, and the connections by the tick in which they are to be looked at.
#[derive(Debug)]
pub(super) struct Deadlines {
    tick: u64,
    wheel: TimerWheel<ConnectionId>,
}

/// A connection's place among the deadlines.
#[derive(Debug, Default)]
pub(super) struct Place(Option<(u64, TimerId)>);

impl Deadlines {
    pub(super) fn new() -> Self {
        Self { tick: 0, wheel: TimerWheel::new(0) }
    }

    fn advance(&mut self) -> Vec<ConnectionId> {
        self.tick += 1;
        let mut due = Vec::new();
        self.wheel.advance(self.tick, &mut due);
        due
    }

    /// Has a connection looked at by this tick at the latest.
    fn look_at(&mut self, place: &mut Place, id: ConnectionId, due_tick: u64) {
        if place.0.is_some_and(|(tick, _)| tick <= due_tick) {
            return;
        }
        self.forget(place);
        place.0 = Some((due_tick, self.wheel.insert(due_tick, id)));
    }

    /// Takes a connection out that is gone.
    pub(super) fn forget(&mut self, place: &mut Place) {
        if let Some((_, timer)) = place.0.take() {
            self.wheel.cancel(timer);
        }
    }

    /// When the wheel has work again.
    #[cfg(test)]
    pub(super) fn next_tick(&self) -> u64 {
        self.wheel.next_deadline().expect("something is watched")
    }

    /// How many connections stand in the wheel.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }
}

impl Connection {
    /// Notes what the other side owes now, and returns by when it is to be looked at again.
    fn note_debts(&mut self, tick: u64) -> Option<u64> {
        let (input, output) = (self.owed_input(), self.owed_output());
        self.input_watch.note(input, tick, self.received_bytes);
        self.output_watch.note(output, tick, self.written_bytes);
        [self.input_watch.due_tick(), self.output_watch.due_tick()].into_iter().flatten().min()
    }

    fn judge_debts(&mut self, tick: u64) -> Option<Verdict> {
        let input = self.input_watch.judge(tick, self.received_bytes);
        let output = self.output_watch.judge(tick, self.written_bytes);
        match (input, output) {
            // It may have sent what this node has not come to read yet.
            (Some(Verdict::Late(_)), None) if self.readable && self.phase == Phase::Open => {
                Some(Verdict::Wait(tick + 1))
            }
            (Some(late @ Verdict::Late(_)), _) | (_, Some(late @ Verdict::Late(_))) => Some(late),
            (Some(Verdict::Wait(input)), Some(Verdict::Wait(output))) => {
                Some(Verdict::Wait(input.min(output)))
            }
            (wait, None) | (None, wait) => wait,
        }
    }

    pub(super) fn owed_input(&self) -> Owed {
        match self.phase {
            Phase::Ending | Phase::Closed => return Owed::Nothing,
            Phase::Lingering => return Owed::Farewell,
            Phase::Open => {}
        }
        match &self.session {
            Session::Client { greeted: false, .. } | Session::Accepted { node: None, .. } => Owed::Hello,
            Session::Accepted { .. } => Owed::SignOfLife,
            Session::Http(session) if session.is_amid_request() => Owed::PageRequest(self.messages),
            Session::Http(_) => Owed::Page,
            // A link watches for silence itself.
            Session::Dialled { .. } | Session::Refused(_) => Owed::Nothing,
            // It is not read: nothing can be expected of it.
            Session::Client { .. } | Session::Text(_) if self.held || self.end_of_input => Owed::Nothing,
            Session::Client { .. } | Session::Text(_) => {
                if self.is_amid_message() {
                    Owed::Message(self.messages)
                } else if self.is_idle() && self.output.is_empty() {
                    Owed::Request
                } else {
                    Owed::Nothing
                }
            }
        }
    }

    fn owed_output(&self) -> Owed {
        match self.phase {
            _ if self.output.is_empty() => Owed::Nothing,
            Phase::Closed => Owed::Nothing,
            Phase::Ending | Phase::Lingering => Owed::LastTaking,
            Phase::Open if self.is_client() => Owed::Taking,
            // Between nodes it is bounded, and silence ends it.
            Phase::Open => Owed::Nothing,
        }
    }
}

impl Net {
    /// To be called when anything has happened on a connection: counts again what it holds, and what it owes.
    pub(super) fn settle_accounts(&mut self, id: ConnectionId) {
        let Some(connection) =
            self.connections.get_mut(id.key as usize).filter(|found| found.generation == id.generation)
        else {
            return;
        };
        let held_bytes = connection.held_bytes();
        let before = std::mem::replace(&mut connection.counted_bytes, held_bytes);
        self.budget.recount(before, held_bytes);
        if let Some(due_tick) = connection.note_debts(self.deadlines.tick) {
            self.deadlines.look_at(&mut connection.deadline, id, due_tick);
        }
    }

    /// A tick has passed: closes the connections that owed too long.
    pub(super) fn enforce_deadlines(&mut self, now_ms: u64) {
        for id in self.deadlines.advance() {
            let Some(connection) = self.get(id) else { continue };
            connection.deadline = Place::default();
            // The system says that a socket may be written when a third of its buffer is free: a slow client may
            // have taken less, and still has taken something.
            if !connection.output.is_empty() {
                self.write_connection(now_ms, id);
            }
            self.settle_accounts(id);
            let tick = self.deadlines.tick;
            let Some(connection) = self.get(id) else { continue };
            match connection.judge_debts(tick) {
                None => {}
                Some(Verdict::Wait(due_tick)) => {
                    let connection = &mut self.connections[id.key as usize];
                    self.deadlines.look_at(&mut connection.deadline, id, due_tick);
                }
                Some(Verdict::Late(complaint)) => {
                    let address = connection.address;
                    self.notices.say(format_args!("the connection with {address} is closed: {complaint}"));
                    self.close(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(ms: u64) -> u64 {
        ms.div_ceil(SWEEP_MS) + 1
    }

    #[test]
    fn enough_bytes_buy_the_time_again_and_too_few_do_not() {
        let mut watch = Watch::new();
        assert_eq!(watch.judge(9, 0), None);
        watch.note(Owed::Message(1), 10, 1000);
        let window = ticks(limits::MESSAGE_MS);
        assert_eq!(watch.judge(11, 1000), Some(Verdict::Wait(10 + window)));
        let bytes = 1000 + limits::MESSAGE_BYTES_MIN;
        assert_eq!(watch.judge(10 + window, bytes), Some(Verdict::Wait(10 + 2 * window)));
        let late = Verdict::Late(Owed::Message(1).complaint());
        assert_eq!(watch.judge(10 + 2 * window, bytes + limits::MESSAGE_BYTES_MIN - 1), Some(late));
    }

    #[test]
    fn the_next_message_has_its_own_time_and_a_hello_cannot_be_drawn_out() {
        let mut watch = Watch::new();
        watch.note(Owed::Message(1), 0, 0);
        watch.note(Owed::Message(2), 7, 10);
        watch.note(Owed::Message(2), 9, 20);
        assert_eq!(watch.due_tick(), Some(7 + ticks(limits::MESSAGE_MS)));
        watch.note(Owed::Hello, 10, 0);
        let due_tick = watch.due_tick().unwrap();
        assert_eq!(watch.judge(due_tick, 1 << 40), Some(Verdict::Late(Owed::Hello.complaint())));
    }

    #[test]
    fn a_connection_stands_in_the_wheel_once_and_comes_out_at_the_earliest_of_its_ticks() {
        let mut deadlines = Deadlines::new();
        let mut place = Place::default();
        let id = ConnectionId::new(1, 1);
        for due_tick in [9, 12, 3, 5] {
            deadlines.look_at(&mut place, id, due_tick);
            assert_eq!(deadlines.len(), 1);
        }
        let due: Vec<_> = (1..=12).filter(|_| deadlines.advance() == [id]).collect();
        assert_eq!(due, [3]);
        place = Place::default();
        deadlines.look_at(&mut place, id, 20);
        deadlines.forget(&mut place);
        assert_eq!(deadlines.len(), 0);
    }
}
