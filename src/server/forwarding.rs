//! A node between its clients and the leader: it passes their changes on, and as leader takes those of others.

use fsd_wire::client::{ClientReply, ClientRequest, Operation, Outcome, Refusal};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{NodeId, Payload};

use super::Network;
use super::dispatch::Client;
use super::forwarder::{Answer, Path};
use super::node::{Node, Timer};
use super::pending::{Origin, RequestKey};
use crate::limits;
use crate::mapping::Disk;
use crate::marks::mark;

impl<D: Disk> Node<D> {
    /// Takes a client's change over, to pass it on; the answer at once if no leader would take it.
    pub(super) fn forward(&mut self, now_ms: u64, client: &mut Client, command: &Payload) -> Option<Outcome> {
        if let Err(refusal) = self.check(client, command) {
            return Some(Outcome::Refused(refusal));
        }
        let key = RequestKey::Forwarded(self.forwarder.next_ticket());
        let deadline = self.add_deadline(now_ms, client.timeout_ms, key);
        self.forwarder.add(client.asker(deadline), command);
        None
    }

    /// Sends what is to be sent to the leader, which may be this node itself.
    pub(super) fn forward_changes(&mut self, now_ms: u64, net: &mut impl Network) {
        let path = self.path_to_leader();
        for request in self.forwarder.take_requests(path) {
            let Some(Path { leader, .. }) = path else { unreachable!("nothing is sent nowhere") };
            if leader == self.config.node {
                mark!("forwarder-leads-itself");
                self.dispatch(now_ms, Origin::Forwarder, request, net);
            } else {
                net.send_peer(leader, &PeerMessage::Forward(request));
            }
        }
        if self.forward_alarm.is_none() && !self.forwarder.is_empty() {
            let alarm = self.wheel.insert(now_ms + limits::FORWARD_ROUND_MS, Timer::Forward);
            self.forward_alarm = Some(alarm);
        }
    }

    pub(super) fn end_round_of_forwarder(&mut self) {
        self.forward_alarm = None;
        self.forwarder.end_round();
    }

    /// A peer passes a request of its clients on.
    pub(super) fn take_forwarded(
        &mut self,
        now_ms: u64,
        from: NodeId,
        request: ClientRequest,
        net: &mut impl Network,
    ) {
        if matches!(request.operation, Operation::OpenSession | Operation::SessionChange { .. }) {
            self.dispatch(now_ms, Origin::Peer(from), request, net);
        } else {
            let refusal = Refusal::BadRequest { reason: "only changes in a session are passed on".into() };
            let reply = ClientReply { id: request.id, outcome: Outcome::Refused(refusal) };
            net.send_peer(from, &PeerMessage::ForwardReply(reply));
        }
    }

    /// The leader has answered what this node passed on.
    pub(super) fn finish_forwarded(&mut self, reply: ClientReply, net: &mut impl Network) {
        if let Some(answer) = self.forwarder.answer(reply.id.0, reply.outcome) {
            self.tell_client(answer, net);
        }
    }

    /// A client of this node has waited long enough.
    pub(super) fn give_forwarded_up(&mut self, ticket: u64, net: &mut impl Network) {
        if let Some(answer) = self.forwarder.give_up(ticket) {
            self.tell_client(answer, net);
        }
    }

    pub(super) fn tell_client(&mut self, (asker, outcome): Answer, net: &mut impl Network) {
        self.settle(asker, outcome, net);
    }

    /// How many changes of its clients this node has passed on, or will, that are not answered.
    #[must_use]
    pub fn changes_passed_on(&self) -> usize {
        self.forwarder.len()
    }

    fn path_to_leader(&self) -> Option<Path> {
        let leader = self.raft.leader_id()?;
        let term = self.raft.term();
        let connection = if leader == self.config.node { 0 } else { *self.connected.get(&leader)? };
        Some(Path { leader, term, connection })
    }
}
