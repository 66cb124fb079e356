//! Hellos: who may speak on a connection that was opened to this node.

use fsd_wire::Message;
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Role};

use super::connection::{Phase, Session};
use super::{ConnectionId, Event, Net};
use crate::limits;

impl Net {
    pub(super) fn answer_client(&mut self, id: ConnectionId, hello: &Hello) {
        let verdict = match hello.role {
            Role::Client => judge_common(&self.settings.cluster, hello, true),
            Role::Peer { .. } => Err((
                HelloStatus::WrongRole,
                "this address is for clients; nodes connect to the peer address",
            )),
        };
        let (status, reason) = match verdict {
            Ok(()) => (HelloStatus::Welcome, ""),
            Err(refusal) => refusal,
        };
        let reply = self.hello_reply(status, reason.into());
        let Some(connection) = self.get(id) else { return };
        connection.send(reply.to_frame());
        if status == HelloStatus::Welcome {
            if let Session::Client { decoder, greeted, .. } = &mut connection.session {
                *greeted = true;
                decoder.set_body_bytes_max(limits::CLIENT_FRAME_BYTES_MAX);
            }
        } else {
            connection.phase = Phase::Ending;
            let address = connection.address;
            self.notices.say(format_args!("a client at {address} was refused: {reason}"));
        }
        self.list_for_writing(id);
    }

    pub(super) fn judge_peer(&mut self, id: ConnectionId, hello: &Hello, events: &mut Vec<Event>) {
        let Role::Peer { identity, target } = hello.role else {
            let reason = "this address is for nodes; clients connect to the client address";
            self.refuse_peer(id, HelloStatus::WrongRole, reason.into());
            return;
        };
        let own = self.settings.identity.node;
        if let Err((status, reason)) = judge_common(&self.settings.cluster, hello, false) {
            self.refuse_peer(id, status, reason.into());
        } else if target != own {
            self.refuse_peer(
                id,
                HelloStatus::WrongNode,
                format!("this is node {own}, not node {target}: compare the member lists"),
            );
        } else {
            // The next frames wait until the server has judged: a peer sends none before its welcome.
            events.push(Event::PeerHello { connection: id, identity });
        }
    }

    pub(super) fn refuse_peer(&mut self, id: ConnectionId, status: HelloStatus, reason: String) {
        let reply = self.hello_reply(status, reason);
        let Some(connection) = self.get(id) else { return };
        connection.send(reply.to_frame());
        connection.phase = Phase::Ending;
        let address = connection.address;
        self.notices.say(format_args!("a node at {address} was refused: {}", reply.reason));
        self.list_for_writing(id);
    }

    pub(super) fn hello_reply(&self, status: HelloStatus, reason: String) -> HelloReply {
        HelloReply {
            status,
            protocol: if status == HelloStatus::NoCommonProtocol { 0 } else { PROTOCOL_VERSION },
            cluster: self.settings.cluster.clone(),
            identity: self.settings.identity,
            reason,
        }
    }
}

/// What holds for every hello: a protocol version in common and the same cluster.
fn judge_common(
    cluster: &str,
    hello: &Hello,
    may_leave_cluster_empty: bool,
) -> Result<(), (HelloStatus, &'static str)> {
    if hello.common_protocol().is_none() {
        return Err((HelloStatus::NoCommonProtocol, "no protocol version in common: use matching releases"));
    }
    if hello.cluster != cluster && !(may_leave_cluster_empty && hello.cluster.is_empty()) {
        return Err((HelloStatus::OtherCluster, "this node belongs to another cluster: compare `cluster`"));
    }
    Ok(())
}
