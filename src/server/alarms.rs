//! The core's two alarms, on the wheel.
//!
//! A loop that was held up, by its disk most likely, finds two things at once: that an alarm is due, and what came
//! meanwhile. What came is looked at first, and may have set the alarm anew. If it did not, that is no sign yet that the
//! leader is silent: its heartbeat may be a moment late for the same reason, where nodes share a disk. So an election that
//! is late itself waits a little longer.

use super::node::{Node, Timer};
use crate::mapping::Disk;
use crate::marks::mark;
use crate::raft::{self, Alarm, Input};
use crate::timer_wheel::{TimerId, TimerWheel};

/// What is on the wheel, and for when.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    election: Option<(TimerId, u64)>,
    heartbeat: Option<(TimerId, u64)>,
}

impl Alarms {
    pub(super) fn change(&mut self, wheel: &mut TimerWheel<Timer>, now_ms: u64, alarm: &Alarm) {
        let (timer, after_ms) = match alarm {
            Alarm::Set { timer, after_ms } => (*timer, Some(*after_ms)),
            Alarm::Clear { timer } => (*timer, None),
        };
        let place = self.place(timer);
        if let Some((id, _)) = place.take() {
            wheel.cancel(id);
        }
        *place = after_ms.map(|after_ms| {
            let deadline_ms = now_ms + after_ms;
            (wheel.insert(deadline_ms, Timer::Raft(timer)), deadline_ms)
        });
    }

    /// One went off: how much too late.
    fn went_off(&mut self, now_ms: u64, timer: raft::Timer) -> u64 {
        self.place(timer).take().map_or(0, |(_, deadline_ms)| now_ms.saturating_sub(deadline_ms))
    }

    fn place(&mut self, timer: raft::Timer) -> &mut Option<(TimerId, u64)> {
        match timer {
            raft::Timer::Election => &mut self.election,
            raft::Timer::Heartbeat => &mut self.heartbeat,
        }
    }
}

impl<D: Disk> Node<D> {
    /// An alarm of the core's goes off, behind all that came in this turn.
    pub(super) fn alarm_goes_off(&mut self, now_ms: u64, timer: raft::Timer) {
        let late_ms = self.alarms.went_off(now_ms, timer);
        if self.raft.sets_alarm(timer) {
            mark!("alarm-is-set-anew-when-it-goes-off");
            return;
        }
        if timer == raft::Timer::Election && late_ms > self.config.heartbeat_ms {
            mark!("election-waits-for-who-was-held-up");
            let again = Alarm::Set { timer, after_ms: 2 * self.config.heartbeat_ms };
            self.alarms.change(&mut self.wheel, now_ms, &again);
            return;
        }
        self.raft.step(now_ms, Input::Timeout(timer));
    }
}
