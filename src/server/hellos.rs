//! Which nodes belong together: a peer's hello is judged, and so is the answer to this node's own.

use fsd_wire::hello::{HelloReply, HelloStatus, Identity};
use fsd_wire::{Incarnation, NodeId};

use super::Network;
use super::node::Node;
use crate::mapping::Disk;
use crate::marks::mark;
use crate::net::ConnectionId;
use crate::raft::{Input, Raft};

impl<D: Disk> Node<D> {
    pub(super) fn judge_hello(
        &mut self,
        now_ms: u64,
        connection: ConnectionId,
        identity: Identity,
        net: &mut impl Network,
    ) {
        let status = self.raft.judge_hello(&identity);
        if status == HelloStatus::Welcome {
            self.meet(now_ms, identity);
        }
        net.answer_peer(now_ms, connection, identity.node, status, refusal_words(status).to_owned());
    }

    pub(super) fn judge_reply(
        &mut self,
        now_ms: u64,
        node: NodeId,
        reply: &HelloReply,
        net: &mut impl Network,
    ) {
        if reply.status == HelloStatus::StaleCopy {
            self.adopt_new_incarnation(node, net);
        }
        if reply.status != HelloStatus::Welcome {
            net.refuse_link(now_ms, node, format!("it refused this node: {}", reply.reason));
            return;
        }
        let status = if reply.identity.node == node {
            self.raft.judge_hello(&reply.identity)
        } else {
            HelloStatus::WrongNode
        };
        if status == HelloStatus::Welcome {
            self.meet(now_ms, reply.identity);
            self.connections += 1;
            self.connected.insert(node, self.connections);
            self.room.meet(node);
            net.open_link(node);
        } else {
            net.refuse_link(now_ms, node, refusal_words(status).to_owned());
        }
    }

    fn meet(&mut self, now_ms: u64, identity: Identity) {
        let Identity { node, incarnation, life, cluster_id } = identity;
        self.raft.step(now_ms, Input::Met { node, incarnation, life, cluster_id });
    }

    /// A peer has met a later life of this data directory: it is an old copy, and what it once promised may be
    /// missing from it. As another incarnation it takes part again once a leader has brought it up to date.
    fn adopt_new_incarnation(&mut self, told_by: NodeId, net: &mut impl Network) {
        let incarnation = Incarnation(self.config.new_incarnation);
        if self.identity.incarnation == incarnation {
            mark!("hello-tells-old-copy-twice");
            return;
        }
        log::warn!(
            "node {told_by} has met a later life of this data directory: it is an old copy, and counts again \
             once the leader has brought it up to date"
        );
        self.raft.adopt_incarnation(incarnation);
        net.set_identity(identity_of(&self.raft, self.config.node));
    }
}

/// What a node says of itself.
pub(super) fn identity_of(raft: &Raft, node: NodeId) -> Identity {
    let state = raft.hard_state();
    Identity { node, incarnation: state.incarnation, life: state.life, cluster_id: state.cluster_id }
}

/// What a refused node is told, and what to do about it.
fn refusal_words(status: HelloStatus) -> &'static str {
    match status {
        HelloStatus::Welcome => "",
        HelloStatus::OtherCluster => "it belongs to another cluster: compare `cluster`",
        HelloStatus::OtherClusterId => {
            "it belongs to another cluster of the same name, begun apart from this one: its data directory is \
             not of this cluster"
        }
        HelloStatus::WrongNode => "it is not the member that it should be: compare the member lists",
        HelloStatus::StaleCopy => {
            "its data directory is an old copy: it must take part as a new incarnation, which it does by itself"
        }
        HelloStatus::NoCommonProtocol => "no protocol version in common: use matching releases",
        HelloStatus::WrongRole => "this address is for the other role",
        HelloStatus::Busy => "there are too many connections",
    }
}
