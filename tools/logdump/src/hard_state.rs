//! The hard state, as text or as JSON lines.

use std::io::{self, Write};

use fsd::mapping::Disk;
use fsd::storage::hard_state::{HARD_STATE_NAME, Slot, StoredState};
use fsd::storage::inspect::inspect_hard_state;
use serde_json::{Value, json};

use crate::Failure;
use crate::show::Show;

impl Show {
    /// Shows the hard state. Tells whether there is a good one, or none yet.
    pub(crate) fn hard_state<D: Disk>(&self, disk: &D, out: &mut dyn Write) -> Result<bool, Failure> {
        let Some(slots) = inspect_hard_state(disk)? else {
            let text = format!("{}: not there: no node ever ran here", disk.describe(HARD_STATE_NAME));
            if self.json {
                writeln!(out, "{}", json!({ "hard_state": Value::Null }))?;
            } else {
                writeln!(out, "{text}")?;
            }
            return Ok(true);
        };
        let good = |slot: &Slot| match slot {
            Slot::Good { sequence, stored } => Some((*sequence, stored.clone())),
            _ => None,
        };
        let present = slots.iter().filter_map(good).max_by_key(|(sequence, _)| *sequence);
        self.bad_slots(&slots, out)?;
        if let Some((sequence, stored)) = &present {
            self.stored_state(*sequence, stored, out)?;
        } else {
            writeln!(io::stderr(), "logdump: neither slot of {} is whole", disk.describe(HARD_STATE_NAME))?;
        }
        Ok(present.is_some())
    }

    /// Shows which slots are not whole. One that is not, beside a good one, is what a crash leaves: the next start mends
    /// it.
    pub(crate) fn bad_slots(&self, slots: &[Slot; 2], out: &mut dyn Write) -> io::Result<()> {
        let has_good = slots.iter().any(|slot| matches!(slot, Slot::Good { .. }));
        for (n, slot) in slots.iter().enumerate() {
            let what = match slot {
                Slot::Good { .. } => continue,
                Slot::UnknownFormat(version) => format!("format version {version} is not known"),
                Slot::Bad(what) => (*what).to_owned(),
            };
            if self.json {
                writeln!(out, "{}", json!({ "bad_slot": n, "what": what }))?;
                continue;
            }
            let mended = if has_good { "; the other counts, and the next start writes both" } else { "" };
            writeln!(out, "hard state: slot {n} is not whole: {what}{mended}")?;
        }
        Ok(())
    }

    fn stored_state(&self, sequence: u64, stored: &StoredState, out: &mut dyn Write) -> io::Result<()> {
        let StoredState { identity, state, log_end } = stored;
        let voted_for = state.voted_for.map(|node| node.0);
        let cluster_id = state.cluster_id.map(|id| format!("{:032x}", id.0));
        let incarnation = format!("{:016x}", state.incarnation.0);
        let log_end = log_end.to_string();
        if self.json {
            let met = state.met.iter().map(|(node, (incarnation, life))| {
                json!({ "node": node.0, "incarnation": format!("{:016x}", incarnation.0), "life": life.count() })
            });
            let object = json!({
                "term": state.term.0,
                "voted_for": voted_for,
                "node": identity.node.0,
                "cluster": identity.cluster,
                "cluster_id": cluster_id,
                "incarnation": incarnation,
                "life": state.life.count(),
                "log_end_at_start": log_end,
                "sequence": sequence,
                "met": met.collect::<Vec<_>>(),
            });
            return writeln!(out, "{object}");
        }
        writeln!(out, "term {}", state.term)?;
        writeln!(out, "voted_for {}", voted_for.map_or("-".to_owned(), |node| node.to_string()))?;
        writeln!(out, "node {}", identity.node)?;
        writeln!(out, "cluster {}", identity.cluster)?;
        writeln!(out, "cluster_id {}", cluster_id.as_deref().unwrap_or("-"))?;
        writeln!(out, "incarnation {incarnation}")?;
        writeln!(out, "life {}", state.life.count())?;
        writeln!(out, "log_end_at_start {log_end}")?;
        writeln!(out, "sequence {sequence}")?;
        for (node, (incarnation, life)) in &state.met {
            writeln!(out, "met {node} incarnation {:016x} life {}", incarnation.0, life.count())?;
        }
        Ok(())
    }
}
