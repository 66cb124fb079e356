//! What the tests with real daemons share: clusters of processes on loopback, a bad network before them, a text
//! client, a ledger of what was acknowledged.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unused_imports, reason = "each test file uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod cluster;
mod compare;
pub(crate) mod http;
mod ledger;
mod mount;
mod ports;
mod processes;
mod proxy;
mod text;

pub(crate) use cluster::{Settings, TestCluster};
pub(crate) use ledger::Ledger;
pub(crate) use mount::{Image, Mount};
pub(crate) use processes::{Node, daemon};
pub(crate) use proxy::Proxies;
pub(crate) use text::{Reply, TextClient};

use std::time::{Duration, Instant};

/// How long a test waits for what must happen: generous, because a loaded machine is slow and a test that
/// fails for that teaches nothing. What must not take long is measured by its own bound.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds. The only pause in these tests: nothing else waits for time to pass.
///
/// # Panics
/// If it does not hold within `limit`.
pub(crate) fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let got = wait_for(limit, || condition().then_some(()));
    assert!(got.is_some(), "not within {limit:?}: {what}");
}

/// Waits until `get` brings something; `None` if it does not within `limit`.
pub(crate) fn wait_for<T>(limit: Duration, mut get: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(got) = get() {
            return Some(got);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
}
