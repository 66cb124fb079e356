//! How fast a node takes more, where that is not as fast as it can.
//!
//! Two things take time that clients know nothing of: space that is to come back, and followers that are to keep up. Where
//! clients write faster than the disk takes together with both, they are slowed down before it is too late rather than
//! stopped then, the more the higher the **pressure** is. It comes of
//!
//! * checkpoints that are late: the log has grown by more than it should from one to the next, and space is scarce;
//! * the promise of how much a data directory takes: the log may grow by little without breaking it;
//! * a follower that lags: soon it will lack what the log has no more, and must be sent the store;
//! * a store that is being sent: what lies behind it in the log stays until it is there.
//!
//! A node that is pressed by its own disk takes clients' requests at a pace ([`Net::pace`](crate::net::Net::pace)). A follower
//! takes what its leader sends at that pace too, by waiting for its helper; then it lags, and its leader is pressed. Who
//! writes less than that does not wait, neither there nor here.

use super::cleaning::Space;
use super::node::Node;
use crate::allowance::Allowance;
use crate::limits;
use crate::mapping::Disk;

/// What a follower has taken of its leader's entries, and may take.
#[derive(Debug, Default)]
pub(super) struct FollowerPace {
    allowance: Allowance,
    /// Bytes of the log that are accounted for.
    appended_bytes: u64,
}

/// Pressure is counted in these parts.
const FULL_PRESSURE: i64 = 1024;

impl<D: Disk> Node<D> {
    /// How many bytes of clients' requests the node takes in each millisecond, if not as many as come.
    #[must_use]
    pub fn pace(&self, now_ms: u64) -> Option<u64> {
        // What a store that is coming takes is no client's.
        if self.catch_up.is_receiving() {
            return None;
        }
        let room_bytes = self.bytes_within_bound();
        let by_space = self.pressure_by_space(room_bytes);
        let pressure = by_space.max(self.pressure_by_followers(now_ms, room_bytes)) as u64;
        if pressure == 0 {
            return None;
        }
        let full = FULL_PRESSURE as u64;
        let is_broken = by_space > 0 && room_bytes <= 0;
        let full_ms = if is_broken { limits::PACED_WHILE_BROKEN } else { 1 } * limits::PACED_GROWTH_MS;
        let pressure = if is_broken { full } else { pressure };
        Some((self.growth_bytes() * full * full / (pressure * pressure) / full_ms).max(1))
    }

    /// How long the loop is to wait for the helper now, for what was taken of the leader: until housekeeping has got on, or so
    /// long that the leader's entries are not taken faster than clients' requests would be.
    pub(super) fn wait_for_helper_ms(&mut self, now_ms: u64) -> u64 {
        let bytes_per_ms = self.pace(now_ms).filter(|_| !self.raft.is_leader());
        let FollowerPace { allowance, appended_bytes } = &mut self.follower_pace;
        allowance.took(self.log.appended_bytes() - *appended_bytes);
        *appended_bytes = self.log.appended_bytes();
        allowance.set(now_ms, bytes_per_ms);
        // A helper without work gets on no sooner. What was taken meanwhile counts all the same.
        if allowance.left(now_ms).is_none_or(|left| left > 0) || !self.housekeeping.is_working() {
            return 0;
        }
        allowance.wait_ms().min(limits::PACED_WAIT_MS_MAX).min(self.config.heartbeat_ms / 2)
    }

    fn pressure_by_space(&self, room_bytes: i64) -> i64 {
        let growth_bytes = self.growth_bytes() as i64;
        if !self.is_to_make_space() || room_bytes >= limits::GROWTHS_AHEAD as i64 * growth_bytes {
            return 0;
        }
        let by_late = share_of(2 * (self.grown_bytes() as i64 - growth_bytes), growth_bytes);
        by_late.max(share_of(2 * growth_bytes - room_bytes, 2 * growth_bytes))
    }

    /// As leader: how little time there is until what the followers need must go, or takes too much.
    fn pressure_by_followers(&self, now_ms: u64, room_bytes: i64) -> i64 {
        if !self.raft.is_leader() {
            return 0;
        }
        let by_stream = if self.catch_up.is_sending() {
            let growth_bytes = self.growth_bytes() as i64;
            share_of(growth_bytes - room_bytes, growth_bytes)
        } else {
            0
        };
        let (lag_bytes, kept_bytes) = (self.lag_bytes(now_ms), self.kept_for_others_bytes());
        let paced_from_bytes = kept_bytes / limits::LAG_PACED_AT_SHARE;
        let by_lag = if lag_bytes <= kept_bytes {
            share_of(lag_bytes as i64 - paced_from_bytes as i64, paced_from_bytes as i64)
        } else {
            0
        };
        by_stream.max(by_lag)
    }

    /// As leader: how many bytes of the log the slowest follower lacks that has been heard of lately.
    fn lag_bytes(&self, now_ms: u64) -> u64 {
        let since_ms = now_ms.saturating_sub(self.config.election_timeout_ms);
        match self.raft.slowest_follower_heard(since_ms) {
            Some(id) if id.index < self.log.last_index() && id.index >= self.log.base().entry.index => {
                self.log.bytes_behind(self.log.position(id.index.next()))
            }
            _ => 0,
        }
    }

    /// How much of the log is kept for others at most: behind that, the store is less to send than the log.
    pub(super) fn kept_for_others_bytes(&self) -> u64 {
        self.live_bytes().max(self.log.segment_bytes())
    }

    /// Whether the log's next segment is to be made as soon as the log would have it. Where it breaks the promise, there is time
    /// until the present one is almost full: space may come back before.
    pub(super) fn is_time_for_segment(&self) -> bool {
        self.segments_within_bound() > 0
            || self.catch_up.is_receiving()
            // Whether there is room on the disk, only a segment can tell.
            || self.room.is_low()
            || self.log.rest_bytes() <= self.late_segment_bytes()
    }

    fn late_segment_bytes(&self) -> u64 {
        self.log.segment_bytes() / limits::LATE_SEGMENT_AT_SHARE
    }

    /// How much can be appended before a segment is made that breaks the promise; less than nothing if it is broken.
    fn bytes_within_bound(&self) -> i64 {
        let (segments, segment_bytes) = (self.segments_within_bound(), self.log.segment_bytes());
        let own_bytes = self.log.rest_bytes() + self.log.ready_segments_bytes();
        own_bytes as i64 - segment_bytes as i64 / 2 + segments * segment_bytes as i64
    }

    /// How many segments may be made without breaking the promise; less than none if it is broken.
    fn segments_within_bound(&self) -> i64 {
        let Space { checkpoints_bytes, bound_bytes, .. } = self.space();
        let present_bytes = self.log.log_bytes() + self.log.contents_bytes() + checkpoints_bytes;
        let next_bytes = if self.housekeeping.is_making() { 0 } else { self.checkpoint_bytes() };
        // Each cleaning copies so much even if there is no room for it: without it, no space comes back. Two more are to come
        // before what this one cleans is gone.
        let least_bytes = self.growth_bytes().min(self.store.live_total().bytes);
        let copied_bytes = 2 * least_bytes + self.housekeeping.bytes_to_copy().unwrap_or(least_bytes);
        let soon_bytes = next_bytes + copied_bytes + self.housekeeping.leaving_bytes();
        let room_bytes = bound_bytes as i64 - (present_bytes + soon_bytes) as i64;
        room_bytes.div_euclid(self.log.segment_bytes() as i64)
    }
}

/// What share of `whole` this is, as pressure.
fn share_of(bytes: i64, whole: i64) -> i64 {
    (bytes.clamp(0, whole) * FULL_PRESSURE) / whole.max(1)
}
