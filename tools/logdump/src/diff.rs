//! Two data directories, of two nodes of a cluster or of a node and its copy: what may differ, and what must not.
//!
//! Entries of the same index and term are the same entry at every node, and so are all before them. What a checkpoint
//! covers is committed, and the same everywhere. A version is taken once: whoever has it has the same contents under
//! it. All else, such as where a log begins and ends, is each node's own affair.

mod log;
mod stores;

use std::io::{self, Write};

use fsd::mapping::Disk;
use fsd::storage::hard_state::{Slot, StoredState};
use fsd_wire::LogIndex;
use serde_json::json;

use crate::Failure;
use crate::look::Look;
use crate::show::Show;

/// How bad a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// It says what was compared, or what only one side has.
    Note,
    /// It may be.
    May,
    /// It must not be.
    MustNot,
}

/// A comparison that is under way.
pub(crate) struct Diff<'a> {
    show: &'a Show,
    names: [String; 2],
    lines_max: u64,
    out: &'a mut dyn Write,
    is_sound: bool,
}

/// The differences of one kind, of which only so many are shown.
struct Counted {
    shown: u64,
    more: u64,
}

impl<'a> Diff<'a> {
    pub(crate) fn new(show: &'a Show, names: [String; 2], lines_max: u64, out: &'a mut dyn Write) -> Self {
        Self { show, names, lines_max, out, is_sound: true }
    }

    /// Compares. Tells whether there is no difference that must not be, and no damage.
    pub(crate) fn run<D: Disk>(mut self, looks: &[Look<D>; 2]) -> Result<bool, Failure> {
        for problem in looks.iter().flat_map(|look| &look.problems) {
            self.is_sound = false;
            self.show.problem(problem, self.out)?;
        }
        if self.same_cluster(looks)? {
            self.logs(looks)?;
            self.stores(looks)?;
        }
        Ok(self.is_sound)
    }

    /// Directories of different clusters have nothing in common.
    fn same_cluster<D: Disk>(&mut self, looks: &[Look<D>; 2]) -> io::Result<bool> {
        let states = [0, 1].map(|n| stored_state(&looks[n]));
        let [Some(first), Some(second)] = states else { return Ok(true) };
        let of = |stored: &StoredState| {
            let id = stored.state.cluster_id.map(|id| format!("{:032x}", id.0));
            (stored.identity.cluster.clone(), id)
        };
        let ((first_name, first_id), (second_name, second_id)) = (of(first), of(second));
        let is_same =
            first_name == second_name && (first_id.is_none() || second_id.is_none() || first_id == second_id);
        if !is_same {
            let shown = |name: &str, id: Option<String>| format!("{name:?} ({})", id.unwrap_or_default());
            let what = format!(
                "{} is of cluster {}, {} of {}",
                self.names[0],
                shown(&first_name, first_id),
                self.names[1],
                shown(&second_name, second_id)
            );
            self.tell(Weight::MustNot, "cluster", &what)?;
        }
        Ok(is_same)
    }

    /// Writes a line.
    fn tell(&mut self, weight: Weight, about: &str, what: &str) -> io::Result<()> {
        self.is_sound &= weight != Weight::MustNot;
        if self.show.json {
            let object = match weight {
                Weight::Note => json!({ "about": about, "note": what }),
                _ => json!({ "about": about, "difference": what, "must_not_be": weight == Weight::MustNot }),
            };
            return writeln!(self.out, "{object}");
        }
        match weight {
            Weight::Note => writeln!(self.out, "{about}: {what}"),
            Weight::May => writeln!(self.out, "difference {about}: {what}"),
            Weight::MustNot => writeln!(self.out, "DIFFERENCE {about}: {what}"),
        }
    }

    /// Writes a line, unless there were many like it.
    fn tell_some(
        &mut self,
        counted: &mut Counted,
        weight: Weight,
        about: &str,
        what: &str,
    ) -> io::Result<()> {
        self.is_sound &= weight != Weight::MustNot;
        if counted.shown == self.lines_max {
            counted.more += 1;
            return Ok(());
        }
        counted.shown += 1;
        self.tell(weight, about, what)
    }

    /// Says how many lines were left out.
    fn tell_more(&mut self, counted: &Counted, about: &str) -> io::Result<()> {
        match counted.more {
            0 => Ok(()),
            more => self.tell(Weight::Note, about, &format!("{more} more differences, not shown")),
        }
    }
}

impl Counted {
    fn new() -> Self {
        Self { shown: 0, more: 0 }
    }
}

fn stored_state<D: Disk>(look: &Look<D>) -> Option<&StoredState> {
    let slots = look.inspection.hard_state.as_ref()?;
    let good = slots.iter().filter_map(|slot| match slot {
        Slot::Good { sequence, stored } => Some((*sequence, &**stored)),
        _ => None,
    });
    good.max_by_key(|(sequence, _)| *sequence).map(|(_, stored)| stored)
}

/// Up to where the two know the log to be committed.
fn committed<D: Disk>(looks: &[Look<D>; 2]) -> LogIndex {
    let newest = looks.iter().filter_map(|look| look.checkpoints().next());
    newest.map(|head| head.entry.index).max().unwrap_or_default()
}
