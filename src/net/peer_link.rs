//! The connection that this node opens to another one: dialled again with growing pauses until it stands.

use std::net::SocketAddr;

use fsd_wire::NodeId;

use super::ConnectionId;

const BACKOFF_MS_MIN: u64 = 20;
const BACKOFF_MS_MAX: u64 = 1000;

/// How far the connection to a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// None; a timer will dial.
    Waiting,
    /// Dialled; not yet both connected and welcomed.
    Greeting(ConnectionId),
    /// Open for messages.
    Open(ConnectionId),
}

/// A peer and the connections with it.
#[derive(Debug)]
pub(super) struct PeerLink {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
    pub(super) state: LinkState,
    /// The connection that the peer opened to this node. A later one supersedes it.
    pub(super) incoming: Option<ConnectionId>,
    /// Sweeps since the peer was last heard on the connection that this node opened.
    pub(super) silent_sweeps: u32,
    backoff_ms: u64,
    /// The last complaint about this peer, so that it is logged once and not at each attempt.
    complaint: String,
}

impl PeerLink {
    pub(super) fn new(node: NodeId, address: SocketAddr) -> Self {
        Self {
            node,
            address,
            state: LinkState::Waiting,
            incoming: None,
            silent_sweeps: 0,
            backoff_ms: BACKOFF_MS_MIN,
            complaint: String::new(),
        }
    }

    /// The open connection, if there is one.
    pub(super) fn open_connection(&self) -> Option<ConnectionId> {
        match self.state {
            LinkState::Open(connection) => Some(connection),
            LinkState::Waiting | LinkState::Greeting(_) => None,
        }
    }

    /// How long to wait before the next attempt: twice as long each time, and spread, so that nodes that
    /// started together do not dial together for ever.
    pub(super) fn next_backoff_ms(&mut self, random: &mut fastrand::Rng) -> u64 {
        let backoff_ms = self.backoff_ms;
        self.backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
        random.u64(backoff_ms / 2..=backoff_ms)
    }

    /// The peer is alive: the next attempt comes soon.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff_ms = BACKOFF_MS_MIN;
    }

    /// Logs what is wrong with this peer, unless that was the last thing logged about it.
    pub(super) fn complain(&mut self, level: log::Level, complaint: String) {
        if self.complaint != complaint {
            log::log!(level, "node {} at {}: {complaint}", self.node, self.address);
            self.complaint = complaint;
        }
    }

    /// Logs that the connection stands.
    pub(super) fn praise(&mut self) {
        log::info!("node {} at {}: connected", self.node, self.address);
        self.complaint.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_over_when_the_peer_is_alive() {
        let mut link = PeerLink::new(NodeId(2), "127.0.0.1:1".parse().unwrap());
        let mut random = fastrand::Rng::with_seed(1);
        let pauses: Vec<u64> = (0..10).map(|_| link.next_backoff_ms(&mut random)).collect();
        assert!(pauses[0] <= BACKOFF_MS_MIN);
        assert!(pauses.iter().all(|pause| *pause <= BACKOFF_MS_MAX));
        assert!(pauses[9] >= BACKOFF_MS_MAX / 2);
        link.reset_backoff();
        assert!(link.next_backoff_ms(&mut random) <= BACKOFF_MS_MIN);
    }
}
