//! The page of all that is measured: what the process, the node and the network know, one behind the other.

use super::node::Node;
use crate::config::Config;
use crate::mapping::FileDisk;
use crate::metrics::{Histogram, Page, definitions};
use crate::net::{HttpReply, Net};

/// What the loop itself measures, and what is asked of the system when the page is wanted.
pub(super) struct MetricsPage {
    cluster: String,
    node: String,
    disk: FileDisk,
    turn_us: Histogram,
}

impl MetricsPage {
    pub(super) fn new(config: &Config, disk: FileDisk) -> Self {
        Self {
            cluster: config.cluster.clone(),
            node: config.node.to_string(),
            disk,
            turn_us: Histogram::new(&definitions::TURN_DURATION),
        }
    }

    /// Notes the time of a turn.
    pub(super) fn turned(&mut self, took_us: u64) {
        self.turn_us.record(took_us);
    }

    pub(super) fn write(&self, now_ms: u64, node: &Node<FileDisk>, net: &Net) -> HttpReply {
        let mut page = Page::default();
        page.family(&definitions::NODE_INFO);
        let version = env!("CARGO_PKG_VERSION");
        page.sample(&[("cluster", &self.cluster), ("node", &self.node), ("version", version)], 1);
        page.value(&definitions::UPTIME, now_ms / 1000);
        page.histogram(&definitions::TURN_DURATION, &self.turn_us);
        let room = self.disk.room().ok();
        page.family(&definitions::DISK_FREE);
        if let Some(room) = room {
            page.sample(&[], room.free_bytes);
        }
        page.family(&definitions::DISK_SIZE);
        if let Some(room) = room {
            page.sample(&[], room.size_bytes);
        }
        node.write_metrics(&mut page);
        net.write_metrics(&mut page);
        HttpReply { is_ok: true, content_type: Page::CONTENT_TYPE, body: page.into_text() }
    }
}
