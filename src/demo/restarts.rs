//! When a node that ended is started again.

/// The first pause. It doubles with each end that comes soon after a start.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 10_000;
/// A node that ran for so long before it ended is started as if for the first time.
const STEADY_MS: u64 = 10_000;
/// So many faults at run time in a row, each soon after a start, will not go away by another start.
const FAULTS_MAX: u32 = 5;

/// How a process ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody ended it: a signal, or a request that it followed.
    FromOutside,
    /// It gave up by itself, with exit status 1.
    Fault,
    /// Its configuration or data directory is not its own: exit status 2.
    Configuration,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    StartAfter { pause_ms: u64 },
    GiveUp,
}

/// What is remembered of a node's earlier ends.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    soon: u32,
    faults: u32,
}

impl Restarts {
    pub(super) fn judge(&mut self, kind: Kind, ran_ms: u64) -> Verdict {
        if ran_ms >= STEADY_MS {
            *self = Self::default();
        }
        self.faults = if kind == Kind::Fault { self.faults + 1 } else { 0 };
        if kind == Kind::Configuration || self.faults >= FAULTS_MAX {
            return Verdict::GiveUp;
        }
        let pause_ms = (PAUSE_MS_MIN << self.soon.min(16)).min(PAUSE_MS_MAX);
        self.soon += 1;
        Verdict::StartAfter { pause_ms }
    }
}
