//! What comes in and goes out on connections: reading up to a budget, writing, breaking off.

use std::io;

use fsd_wire::peer::PeerMessage;
use fsd_wire::{Message, NodeId};

use super::connection::{DialStage, Phase, Session, Step};
use super::measurements::{ProtocolError, Side};
use super::output::Progress;
use super::{ConnectionId, Event, Net};
use crate::limits;

impl Net {
    pub(super) fn read_connection(&mut self, now_ms: u64, id: ConnectionId, events: &mut Vec<Event>) {
        let mut budget_bytes = self.pacer.connection_bytes();
        for _ in 0..limits::MESSAGES_PER_TURN_MAX {
            let Some(connection) = self.get(id) else { return };
            match connection.phase {
                Phase::Open => {}
                Phase::Lingering => {
                    if connection.drain() {
                        self.close(id);
                    } else if connection.readable {
                        self.list_for_reading(id);
                    }
                    return;
                }
                Phase::Ending | Phase::Closed => return,
            }
            match connection.step() {
                Step::NeedBytes => {
                    self.refuse_begun_if_over(id);
                    if budget_bytes == 0 {
                        break;
                    }
                    if !self.receive(now_ms, id, &mut budget_bytes) {
                        return;
                    }
                }
                Step::Held => {
                    connection.held = true;
                    // Once all is written the connection is taken up again: with nothing to write, that would
                    // be at once and again and again, until the reply comes that it waits for.
                    if !connection.output.is_empty() {
                        self.list_for_writing(id);
                    }
                    return;
                }
                Step::Again => {
                    connection.messages += 1;
                    self.list_for_writing(id);
                }
                Step::Ended => {
                    connection.phase = Phase::Ending;
                    self.list_for_writing(id);
                    return;
                }
                Step::Broken(error) => {
                    self.break_off(now_ms, id, error);
                    return;
                }
                Step::Refused(breach) => {
                    connection.messages += 1;
                    let side = Side::of(&connection.session);
                    self.measurements.broken(side, breach);
                    self.list_for_writing(id);
                }
                step => {
                    connection.messages += 1;
                    self.deliver(id, step, events);
                    if self.request_bytes_in_turn >= self.request_bytes_max {
                        break;
                    }
                }
            }
        }
        self.list_for_reading(id);
    }

    /// Reads once; `false` when there is nothing more to do on this connection for now.
    pub(super) fn receive(&mut self, now_ms: u64, id: ConnectionId, budget_bytes: &mut usize) -> bool {
        let Some(connection) = self.get(id) else { return false };
        if connection.end_of_input {
            // Requests that came before the end are still answered.
            if connection.is_idle() {
                connection.phase = Phase::Ending;
                self.list_for_writing(id);
            }
            return false;
        }
        if !connection.readable {
            return false;
        }
        match connection.receive() {
            Ok(count) => {
                *budget_bytes = budget_bytes.saturating_sub(count);
                let client = connection.is_client();
                let heard = match connection.session {
                    Session::Dialled { node, .. } if count > 0 => Some(node),
                    _ => None,
                };
                if let Some(link) = heard.and_then(|node| self.links.get_mut(&node)) {
                    link.silent_sweeps = 0;
                }
                if client {
                    self.settle_accounts(id);
                }
                true
            }
            Err(error) => {
                self.connection_failed(now_ms, id, &error);
                false
            }
        }
    }

    pub(super) fn deliver(&mut self, id: ConnectionId, step: Step, events: &mut Vec<Event>) {
        match step {
            Step::ClientHello(hello) => self.answer_client(id, &hello),
            Step::Request(request) => self.admit_request(id, request, events),
            Step::Page(page) => events.push(Event::Page { connection: id, page }),
            Step::PeerHello(hello) => self.judge_peer(id, &hello, events),
            Step::PeerReply(node, reply) => events.push(Event::PeerReply { node, reply }),
            Step::Peer(node, message) => self.deliver_peer(id, node, message, events),
            Step::Again | Step::Held | Step::NeedBytes | Step::Ended | Step::Refused(_) | Step::Broken(_) => {
                unreachable!("handled where steps are taken")
            }
        }
    }

    pub(super) fn deliver_peer(
        &mut self,
        id: ConnectionId,
        from: NodeId,
        message: PeerMessage,
        events: &mut Vec<Event>,
    ) {
        match message {
            PeerMessage::Ping => {
                if let Some(connection) = self.get(id) {
                    connection.send(PeerMessage::Pong.to_frame());
                    self.list_for_writing(id);
                }
            }
            PeerMessage::Pong => {}
            message => {
                // Only the newest connection that a peer opened speaks for it.
                if self.links.get(&from).is_some_and(|link| link.incoming == Some(id)) {
                    events.push(Event::Peer { from, message });
                }
            }
        }
    }

    pub(super) fn write_connection(&mut self, now_ms: u64, id: ConnectionId) {
        let Some(connection) = self.get(id) else { return };
        if let Session::Dialled { node, stage: DialStage::Connecting, .. } = connection.session {
            self.finish_connecting(now_ms, id, node);
        }
        let Some(connection) = self.get(id) else { return };
        if connection.phase == Phase::Closed
            || matches!(connection.session, Session::Dialled { stage: DialStage::Connecting, .. })
        {
            return;
        }
        match connection.write(limits::WRITE_BYTES_PER_TURN_MAX) {
            Ok(progress) => {
                let phase = connection.phase;
                match (phase, progress) {
                    (Phase::Closed, _) => self.to_close.push(id),
                    (_, Progress::BudgetSpent) => self.list_for_writing(id),
                    (Phase::Lingering, _) => self.list_for_reading(id),
                    (_, Progress::Done) => self.resume(id),
                    (_, Progress::Blocked) => {}
                }
            }
            Err(error) => self.connection_failed(now_ms, id, &error),
        }
    }

    pub(super) fn break_off(&mut self, now_ms: u64, id: ConnectionId, reason: ProtocolError) {
        let Some(connection) = self.get(id) else { return };
        let (address, side) = (connection.address, Side::of(&connection.session));
        let dialled = match connection.session {
            Session::Dialled { node, .. } => Some(node),
            _ => None,
        };
        self.notices.say(format_args!("the connection with {address} is closed: {reason}"));
        self.measurements.broken(side, reason.breach());
        if let Some(node) = dialled {
            self.lose_link(now_ms, node, log::Level::Warn, format!("it broke the protocol: {reason}"));
        }
        self.close(id);
    }

    pub(super) fn connection_failed(&mut self, now_ms: u64, id: ConnectionId, error: &io::Error) {
        let Some(connection) = self.get(id) else { return };
        let dialled = match connection.session {
            Session::Dialled { node, .. } => Some(node),
            _ => None,
        };
        if let Some(node) = dialled {
            self.lose_link(now_ms, node, log::Level::Info, error.to_string());
        }
        self.close(id);
    }
}
