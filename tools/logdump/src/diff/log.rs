//! The logs of the two.

use std::collections::BTreeMap;
use std::io;

use fsd::mapping::Disk;
use fsd::storage::inspect::{InspectedRecord, InspectedSegment};
use fsd::storage::still::StillFile;
use fsd_wire::EntryId;

use super::{Counted, Diff, Weight, committed};
use crate::Failure;
use crate::look::Look;

/// The entries of a log that were not superseded, by their index.
type Entries<'a, D> =
    BTreeMap<u64, (&'a InspectedSegment<StillFile<<D as Disk>::File>>, &'a InspectedRecord)>;

impl Diff<'_> {
    /// Compares the entries that both have.
    pub(super) fn logs<D: Disk>(&mut self, looks: &[Look<D>; 2]) -> Result<(), Failure> {
        let logs = [entries(&looks[0]), entries(&looks[1])];
        for n in [0, 1] {
            self.only_in::<D>(n, &logs)?;
        }
        let terms = |index: &u64| [0, 1].map(|n| logs[n][index].1.head.id.term);
        let common: Vec<u64> = logs[0].keys().filter(|index| logs[1].contains_key(index)).copied().collect();
        let last_same = common.iter().rev().find(|index| terms(index)[0] == terms(index)[1]).copied();
        let committed = committed(looks).0;
        let (mut counted, mut equal, mut first) = (Counted::new(), 0, None);
        for index in &common {
            let [term, other] = terms(index);
            let difference = if term == other {
                let read = |n: usize| logs[n][index].0.entry(logs[n][index].1);
                (read(0)? != read(1)?)
                    .then(|| (Weight::MustNot, format!("of term {term} in both, with other bytes")))
            } else {
                let (weight, why) = match last_same {
                    _ if *index <= committed => {
                        (Weight::MustNot, format!("entries up to {committed} are committed, by a checkpoint"))
                    }
                    Some(last) if *index < last => (
                        Weight::MustNot,
                        format!("entry {last} behind it is the same, so those before must be"),
                    ),
                    _ => (
                        Weight::May,
                        "it may be an uncommitted tail, which one of the two will lose".to_owned(),
                    ),
                };
                Some((
                    weight,
                    format!(
                        "of term {term} in {}, of term {other} in {}; {why}",
                        self.names[0], self.names[1]
                    ),
                ))
            };
            match difference {
                None => equal += 1,
                Some((weight, what)) => {
                    first.get_or_insert(*index);
                    self.tell_some(&mut counted, weight, &format!("entry {index}"), &what)?;
                }
            }
        }
        self.tell_more(&counted, "log")?;
        let mut what = format!("{} entries in both, {equal} of them equal", common.len());
        if let Some(first) = first {
            what = format!("{what}, the first that is not is entry {first}");
        }
        self.tell(Weight::Note, "log", &what)?;
        self.committed_ids::<D>(looks, &logs)?;
        Ok(())
    }

    /// Tells which ranges only one has.
    fn only_in<D: Disk>(&mut self, n: usize, logs: &[Entries<'_, D>; 2]) -> io::Result<()> {
        let mut only = logs[n].keys().filter(|index| !logs[1 - n].contains_key(index)).copied().peekable();
        while let Some(first) = only.next() {
            let mut last = first;
            while let Some(next) = only.next_if(|index| *index == last + 1) {
                last = next;
            }
            let what = format!("entries {first} to {last} are only in {}", self.names[n]);
            self.tell(Weight::Note, "log", &what)?;
        }
        Ok(())
    }

    /// What a checkpoint of one covers last must be the same entry in the log, and in the checkpoints, of the other.
    fn committed_ids<D: Disk>(&mut self, looks: &[Look<D>; 2], logs: &[Entries<'_, D>; 2]) -> io::Result<()> {
        for n in [0, 1] {
            for head in looks[n].checkpoints() {
                let EntryId { index, term } = head.entry;
                let in_log = logs[1 - n].get(&index.0).map(|(_, record)| record.head.id.term);
                let others = looks[1 - n].checkpoints().filter(|other| other.entry.index == index);
                // Two checkpoints of one index are seen from both sides.
                let in_checkpoint = others.map(|other| other.entry.term).next().filter(|_| n == 0);
                for (found, place) in [(in_log, "log"), (in_checkpoint, "checkpoint")] {
                    if let Some(found) = found.filter(|found| *found != term) {
                        let what = format!(
                            "of term {term} by a checkpoint in {}, of term {found} by the {place} in {}",
                            self.names[n],
                            self.names[1 - n]
                        );
                        self.tell(Weight::MustNot, &format!("entry {index}"), &what)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn entries<D: Disk>(look: &Look<D>) -> Entries<'_, D> {
    let segments = look.inspection.segments.iter();
    let records = segments.flat_map(|segment| segment.records.iter().map(move |record| (segment, record)));
    records
        .filter(|(_, record)| !record.is_superseded)
        .map(|(segment, record)| (record.head.id.index.0, (segment, record)))
        .collect()
}
