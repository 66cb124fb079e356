//! Which faults were made in which phase of a cluster's life.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::FaultKind;

/// What a cluster is about when a fault is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody leads.
    Election,
    /// All run, and all are up to date.
    Steady,
    /// A node that runs lacks entries.
    CatchUp,
    /// A node is down.
    Recovery,
    /// A node is about to stop, and hands over if it leads.
    Transfer,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Election, Self::Steady, Self::CatchUp, Self::Recovery, Self::Transfer];
}

/// Counts of faults, by kind and phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(FaultKind, Phase), u64>,
}

impl Coverage {
    /// A fault was made.
    pub fn note(&mut self, kind: FaultKind, phase: Phase) {
        *self.counts.entry((kind, phase)).or_default() += 1;
    }

    /// Adds what another run made.
    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.counts {
            *self.counts.entry(*cell).or_default() += count;
        }
    }

    /// How often faults of a kind were made.
    #[must_use]
    pub fn of(&self, kind: FaultKind) -> u64 {
        self.counts.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum()
    }

    /// Faults in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:20}", "fault")?;
        for phase in Phase::ALL {
            write!(f, "{:>12}", format!("{phase:?}"))?;
        }
        for kind in FaultKind::ALL {
            write!(f, "\n{:20}", kind.name())?;
            for phase in Phase::ALL {
                write!(f, "{:>12}", self.counts.get(&(kind, phase)).copied().unwrap_or(0))?;
            }
        }
        Ok(())
    }
}
