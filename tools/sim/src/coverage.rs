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
    pub(crate) const ALL: [Self; 5] =
        [Self::Election, Self::Steady, Self::CatchUp, Self::Recovery, Self::Transfer];
}

/// Cells that stay empty by what their kind and their phase are, and why.
const IMPOSSIBLE: [(FaultKind, Phase, &str); 5] = [
    (FaultKind::Script, Phase::Election, "it begins with a leader that is cut off"),
    (FaultKind::Deposed, Phase::Election, "it is done to a leader"),
    (FaultKind::Unanswered, Phase::Election, "it is a leader's answer that is lost"),
    (FaultKind::Reborn, Phase::Election, "it begins with a leader that is deposed"),
    (FaultKind::PowerLossInRecovery, Phase::Steady, "a node that recovers does not run"),
];

/// Whether no fault of this kind can be made in this phase.
pub(crate) fn is_impossible(kind: FaultKind, phase: Phase) -> bool {
    IMPOSSIBLE.iter().any(|(of, in_phase, _)| (*of, *in_phase) == (kind, phase))
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

    /// How often faults of a kind were made in a phase.
    #[must_use]
    pub fn in_cell(&self, kind: FaultKind, phase: Phase) -> u64 {
        self.counts.get(&(kind, phase)).copied().unwrap_or(0)
    }

    /// The cells that are empty, and those that should be and are not, in words.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let cells = FaultKind::ALL.into_iter().flat_map(|kind| Phase::ALL.map(|phase| (kind, phase)));
        let empty = cells
            .filter(|(kind, phase)| self.in_cell(*kind, *phase) == 0 && !is_impossible(*kind, *phase))
            .map(|(kind, phase)| format!("no {kind} was made in {phase:?}"));
        let wrong = IMPOSSIBLE.iter().filter(|(kind, phase, _)| self.in_cell(*kind, *phase) > 0);
        let wrong = wrong.map(|(kind, phase, why)| format!("{kind} was made in {phase:?}, although {why}"));
        empty.chain(wrong).collect()
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
                match self.in_cell(kind, phase) {
                    0 if is_impossible(kind, phase) => write!(f, "{:>12}", "-")?,
                    count => write!(f, "{count:>12}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Coverage {
        let mut coverage = Coverage::default();
        for kind in FaultKind::ALL {
            for phase in Phase::ALL.into_iter().filter(|phase| !is_impossible(kind, *phase)) {
                coverage.note(kind, phase);
            }
        }
        coverage
    }

    #[test]
    fn a_full_table_has_no_gaps() {
        assert_eq!(full().gaps(), Vec::<String>::new());
        let lines: Vec<String> = full().to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), FaultKind::ALL.len() + 1);
        assert_eq!(
            lines.iter().flat_map(|line| line.split(' ')).filter(|word| *word == "-").count(),
            IMPOSSIBLE.len()
        );
    }

    #[test]
    fn an_empty_cell_is_reported() {
        let mut coverage = full();
        coverage.counts.remove(&(FaultKind::Rot, Phase::Transfer));
        assert_eq!(coverage.gaps(), ["no Rot was made in Transfer"]);
    }

    #[test]
    fn what_cannot_be_and_was_is_reported() {
        let mut coverage = full();
        coverage.note(FaultKind::Deposed, Phase::Election);
        assert_eq!(coverage.gaps(), ["Deposed was made in Election, although it is done to a leader"]);
    }
}
