//! One client on the text protocol: its commands become requests, its replies leave in the commands' order.
//!
//! Pipelined commands behave as if each were sent after the reply to the one before: changes may be in flight
//! together, since the log keeps their order, and so may reads; but a read waits for the changes before it,
//! and a change for the reads before it. Where changes are passed on to the leader, each also waits for the one
//! before it.

use std::collections::VecDeque;

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest, Operation, Outcome, Refusal};
use fsd_wire::{Operation as Change, RequestId};

use super::budget::{QUEUE_KEPT_MAX, held_by_pieces, held_by_request};
use super::text_protocol::{TextCommand, TextDecoder, TextEvent, reply};
use crate::limits;

/// How long a text command may take; then its outcome is told as far as it is known.
const TIMEOUT_MS: u32 = 10_000;

/// The session's state.
#[derive(Debug)]
pub(super) struct TextSession {
    pub(super) decoder: TextDecoder,
    /// Commands whose replies have not left yet, in their order.
    slots: VecDeque<Slot>,
    /// The number of the first slot: slots are numbered from 0, and their numbers are the request ids.
    first_slot: u64,
    /// A command that was decoded and must wait for those before it.
    held: Option<TextEvent>,
    unanswered_reads: usize,
    unanswered_changes: usize,
    /// What the unanswered requests count for, and the replies that wait for those before them.
    request_bytes: usize,
    waiting_reply_bytes: usize,
    /// A change waits for the one before it: they are passed on, and one that is lost on the way must not be overtaken
    /// by the next.
    one_change_at_a_time: bool,
    /// Nothing is read behind an error that ends the connection.
    ended: bool,
}

/// What a command is, as far as its reply and its order depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandKind {
    Read,
    Write,
    Delete,
}

#[derive(Debug)]
struct Slot {
    kind: CommandKind,
    /// What it counts for: the request, or the reply if there is one.
    bytes: usize,
    reply: Option<Vec<Bytes>>,
}

/// What a session has for the loop.
#[derive(Debug)]
pub(super) enum TextStep {
    /// A request to be answered.
    Request(ClientRequest),
    /// A reply was made without a request; ask again.
    Answered,
    /// As before, and nothing is read behind it: the command cannot be understood.
    Refused,
    /// Nothing until replies have left.
    Held,
    /// Nothing until more bytes come.
    NeedBytes,
    /// The connection ends once what was said is written.
    Ended,
}

impl TextSession {
    pub(super) fn new(max_file_bytes: u64, one_change_at_a_time: bool) -> Self {
        Self {
            decoder: TextDecoder::new(max_file_bytes),
            slots: VecDeque::new(),
            first_slot: 0,
            held: None,
            unanswered_reads: 0,
            unanswered_changes: 0,
            request_bytes: 0,
            waiting_reply_bytes: 0,
            one_change_at_a_time,
            ended: false,
        }
    }

    /// The next thing to do.
    pub(super) fn step(&mut self) -> TextStep {
        if self.ended {
            return if self.slots.is_empty() { TextStep::Ended } else { TextStep::Held };
        }
        if self.slots.len() >= limits::PIPELINED_REQUESTS_MAX {
            return TextStep::Held;
        }
        let Some(event) = self.held.take().or_else(|| self.decoder.next_event()) else {
            return TextStep::NeedBytes;
        };
        match event {
            TextEvent::Command(TextCommand::Read { .. }) if self.unanswered_changes > 0 => {
                self.held = Some(event);
                TextStep::Held
            }
            TextEvent::Command(TextCommand::Change(_))
                if self.unanswered_reads > 0 || self.one_change_at_a_time && self.unanswered_changes > 0 =>
            {
                self.held = Some(event);
                TextStep::Held
            }
            TextEvent::Command(command) => TextStep::Request(self.accept(command)),
            TextEvent::Error { error, close } => {
                self.add_reply(error.to_reply());
                self.ended = close;
                if close { TextStep::Refused } else { TextStep::Answered }
            }
        }
    }

    /// Whether commands wait for their replies.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts a reply into its place.
    ///
    /// # Panics
    /// If no unanswered command has the reply's id: the daemon answers each request once.
    pub(super) fn answer(&mut self, reply: &ClientReply) {
        let place = reply.id.0.checked_sub(self.first_slot).and_then(|place| usize::try_from(place).ok());
        let slot = place.and_then(|place| self.slots.get_mut(place)).expect("a reply has its command");
        assert!(slot.reply.is_none(), "a command is answered once");
        let pieces = format_reply(slot.kind, &reply.outcome);
        let bytes = held_by_pieces(&pieces);
        self.request_bytes -= std::mem::replace(&mut slot.bytes, bytes);
        self.waiting_reply_bytes += bytes;
        slot.reply = Some(pieces);
        match slot.kind {
            CommandKind::Read => self.unanswered_reads -= 1,
            CommandKind::Write | CommandKind::Delete => self.unanswered_changes -= 1,
        }
    }

    /// The replies that may leave now.
    pub(super) fn take_replies(&mut self) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        while let Some(Slot { reply: Some(_), .. }) = self.slots.front() {
            let slot = self.slots.pop_front().expect("it was just seen");
            self.waiting_reply_bytes -= slot.bytes;
            pieces.extend(slot.reply.expect("it was just seen"));
            self.first_slot += 1;
        }
        if self.slots.is_empty() && self.slots.capacity() > QUEUE_KEPT_MAX {
            self.slots = VecDeque::new();
        }
        pieces
    }

    /// The memory that the session holds: what has come of a command, commands that are not answered, and
    /// replies that wait for those before them.
    pub(super) fn held_bytes(&self) -> usize {
        let held = match &self.held {
            Some(TextEvent::Command(TextCommand::Change(command))) => {
                limits::REQUEST_OVERHEAD_BYTES + command.name.len() + command.contents.len()
            }
            Some(_) => limits::REQUEST_OVERHEAD_BYTES,
            None => 0,
        };
        self.decoder.allocated_bytes() + self.request_bytes + self.waiting_reply_bytes + held
    }

    /// Replies that wait for those before them.
    pub(super) fn waiting_reply_bytes(&self) -> usize {
        self.waiting_reply_bytes
    }

    /// Gives up the command of which the contents have begun to come: it is answered as busy, in its turn.
    /// Whether there was one.
    pub(super) fn refuse_begun(&mut self) -> bool {
        // While another command is held back, the decoder is not read further.
        let refused = self.held.is_none() && self.decoder.skip_contents();
        if refused {
            self.add_reply(reply::refused(&Refusal::Busy));
        }
        refused
    }

    /// The answer to a command that never became a request.
    fn add_reply(&mut self, line: Bytes) {
        let pieces = vec![line];
        let bytes = held_by_pieces(&pieces);
        self.waiting_reply_bytes += bytes;
        self.slots.push_back(Slot { kind: CommandKind::Read, bytes, reply: Some(pieces) });
    }

    fn accept(&mut self, command: TextCommand) -> ClientRequest {
        let id = RequestId(self.first_slot + self.slots.len() as u64);
        let (kind, operation) = match command {
            TextCommand::Read { name } => (CommandKind::Read, Operation::Read { name }),
            TextCommand::Change(command) => {
                let kind = match command.operation {
                    Change::Write { .. } | Change::Cas { .. } => CommandKind::Write,
                    Change::Delete | Change::DeleteIf { .. } => CommandKind::Delete,
                };
                (kind, Operation::Change { command: command.encode() })
            }
        };
        match kind {
            CommandKind::Read => self.unanswered_reads += 1,
            CommandKind::Write | CommandKind::Delete => self.unanswered_changes += 1,
        }
        let request = ClientRequest { id, timeout_ms: TIMEOUT_MS, operation };
        let bytes = held_by_request(&request);
        self.request_bytes += bytes;
        self.slots.push_back(Slot { kind, bytes, reply: None });
        request
    }
}

fn format_reply(kind: CommandKind, outcome: &Outcome) -> Vec<Bytes> {
    match (kind, outcome) {
        (_, Outcome::Refused(refusal)) => vec![reply::refused(refusal)],
        (CommandKind::Read, Outcome::Read { version, expiry_seconds, contents }) => {
            reply::contents(*version, *expiry_seconds, contents).into()
        }
        (CommandKind::Write, Outcome::Changed { version }) => vec![reply::written(*version)],
        (CommandKind::Delete, Outcome::Changed { .. }) => vec![reply::deleted()],
        (kind, outcome) => panic!("{outcome:?} does not answer a {kind:?}"),
    }
}

#[cfg(test)]
mod tests {
    use fsd_wire::Version;

    use super::*;

    fn session(commands: &str) -> TextSession {
        let mut session = TextSession::new(1024, false);
        session.decoder.feed(commands.as_bytes());
        session
    }

    fn request(session: &mut TextSession) -> ClientRequest {
        match session.step() {
            TextStep::Request(request) => request,
            other => panic!("a request was expected, not {other:?}"),
        }
    }

    fn changed(request: &ClientRequest, version: u64) -> ClientReply {
        ClientReply { id: request.id, outcome: Outcome::Changed { version: Version(version) } }
    }

    fn not_found(request: &ClientRequest) -> ClientReply {
        ClientReply { id: request.id, outcome: Outcome::Refused(Refusal::NotFound) }
    }

    fn replies(session: &mut TextSession) -> String {
        String::from_utf8(session.take_replies().concat()).unwrap()
    }

    #[test]
    fn replies_leave_in_the_order_of_the_commands() {
        let mut session = session("write a 0\r\n\r\nwrite b 0\r\n\r\ndelete a\r\n");
        let requests: Vec<_> = (0..3).map(|_| request(&mut session)).collect();
        session.answer(&changed(&requests[2], 9));
        session.answer(&changed(&requests[1], 8));
        assert_eq!(replies(&mut session), "");
        session.answer(&changed(&requests[0], 7));
        assert_eq!(replies(&mut session), "OK 7\r\nOK 8\r\nOK\r\n");
        assert!(session.is_idle());
    }

    #[test]
    fn a_read_waits_for_the_changes_before_it_and_a_change_for_the_reads() {
        let mut session = session("write a 0\r\n\r\nread a\r\nread b\r\nwrite a 0\r\n\r\n");
        let write = request(&mut session);
        assert!(matches!(session.step(), TextStep::Held));
        session.answer(&changed(&write, 1));
        // The write is answered, though its reply has not left yet: the reads may go.
        let reads = [request(&mut session), request(&mut session)];
        assert!(matches!(session.step(), TextStep::Held));
        session.answer(&not_found(&reads[1]));
        assert!(matches!(session.step(), TextStep::Held));
        session.answer(&not_found(&reads[0]));
        let write = request(&mut session);
        session.answer(&changed(&write, 2));
        assert_eq!(replies(&mut session), "OK 1\r\nERR_FILE_NOT_FOUND\r\nERR_FILE_NOT_FOUND\r\nOK 2\r\n");
    }

    #[test]
    fn an_error_takes_its_turn_and_a_closing_one_ends_the_session_behind_the_replies_before_it() {
        let mut session = session("read a\r\nread ../a\r\nbogus\r\nread b\r\n");
        let read = request(&mut session);
        assert!(matches!(session.step(), TextStep::Answered));
        assert!(matches!(session.step(), TextStep::Refused));
        assert!(matches!(session.step(), TextStep::Held));
        assert_eq!(replies(&mut session), "");
        session.answer(&not_found(&read));
        let said = replies(&mut session);
        assert!(said.starts_with("ERR_FILE_NOT_FOUND\r\nERR_CMD_ERR invalid name"), "{said}");
        assert_eq!(said.matches("ERR_CMD_ERR").count(), 2, "{said}");
        assert!(matches!(session.step(), TextStep::Ended));
    }

    #[test]
    fn a_client_that_does_not_wait_is_held_at_the_bound() {
        let commands = "read a\r\n".repeat(limits::PIPELINED_REQUESTS_MAX + 1);
        let mut session = session(&commands);
        let requests: Vec<_> = (0..limits::PIPELINED_REQUESTS_MAX).map(|_| request(&mut session)).collect();
        assert!(matches!(session.step(), TextStep::Held));
        session.answer(&not_found(&requests[0]));
        replies(&mut session);
        request(&mut session);
    }
}
