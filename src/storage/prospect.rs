//! What a start would find in a data directory, and what it would do: recovery without its changes.

use super::checkpoint::{CheckpointHead, CheckpointReader, list_checkpoints};
use super::checkpoints::{FoundCheckpoints, ImageSink};
use super::error::{Doing, StorageError};
use super::hard_state::{self, StoredState};
use super::recovery::{read_hard_state, read_log};
use super::segment::file_name;
use super::still::StillDisk;
use super::survey::Survey;
use super::{DirectoryIdentity, Position};
use crate::mapping::Disk;

/// See [`super::check`].
pub(super) fn check<D: Disk>(
    disk: &D,
    identity: &DirectoryIdentity,
    sink: &mut dyn ImageSink,
) -> Result<Vec<String>, StorageError> {
    // A node may be at work in it.
    let disk = &StillDisk::of(disk).doing(|| "read the data directory".to_owned())?;
    let stored = read_hard_state(disk, identity)?;
    let mut checkpoints = FoundCheckpoints::find(disk, Some(identity), sink)?;
    let (found, _) = read_log(disk, identity, stored.as_ref(), &mut checkpoints)?;
    let mut lines = of_checkpoints(disk, &checkpoints)?;
    lines.extend(of_log(disk, &found, checkpoints.counting.last()));
    let names = disk.list().doing(|| "read the data directory".to_owned())?;
    let temporary = names.into_iter().filter(|name| name == hard_state::TEMPORARY_NAME);
    let leftovers = found.leftovers.iter().map(|leftover| (leftover.name.clone(), leftover.why));
    for (name, why) in leftovers.chain(temporary.map(|name| (name, "it was being made"))) {
        lines.push(format!("{}: would be removed: {why}", disk.describe(&name)));
    }
    lines.push(match &stored {
        None => "no hard state yet: the node has never run here".to_owned(),
        Some(StoredState { state, .. }) => {
            format!(
                "incarnation {:016x}, life {}, term {}",
                state.incarnation.0,
                state.life.count(),
                state.term
            )
        }
    });
    Ok(lines)
}

fn of_checkpoints<D: Disk>(disk: &D, found: &FoundCheckpoints) -> Result<Vec<String>, StorageError> {
    let mut lines = Vec::new();
    match found.counting.last() {
        Some(newest) => lines.push(format!(
            "checkpoint: a start uses {}, of {} files and {} sessions as of entry {} of term {}, {} bytes",
            disk.describe(&newest.name()),
            newest.files,
            newest.sessions,
            newest.entry.index,
            newest.entry.term,
            newest.file_bytes()
        )),
        None => lines.push("checkpoint: none, a start applies the whole log".to_owned()),
    }
    if let [older, _] = &found.counting[..] {
        lines.push(format!(
            "checkpoint: {} stands for it, as of entry {}, should it be damaged",
            disk.describe(&older.name()),
            older.entry.index
        ));
    }
    for (_, damaged) in &found.damaged {
        lines.push(format!("checkpoint: a newer one does not count: {damaged}"));
    }
    for (_, name) in list_checkpoints(disk).doing(|| "read the data directory".to_owned())? {
        if !found.others.contains(&name) {
            continue;
        }
        let why = match CheckpointReader::open(disk, &name, None) {
            Err(error) => format!("it is damaged ({error})"),
            Ok(_) if found.counting.last().is_some_and(|newest| newest.name() > name) => {
                "newer ones count".to_owned()
            }
            Ok(_) => "it is damaged".to_owned(),
        };
        lines.push(format!("{}: would be removed: {why}", disk.describe(&name)));
    }
    Ok(lines)
}

fn of_log<D: Disk>(disk: &D, found: &Survey<D::File>, newest: Option<&CheckpointHead>) -> Vec<String> {
    let (base, last) = (found.table.base().entry, &found.table.last);
    let superseded = found.records - (last.index.0 - base.index.0);
    let (covered, from) =
        newest.map_or((base.index, Position::default()), |head| (head.entry.index, head.log_end));
    let entries = match last.index == base.index {
        true => format!("no entries behind entry {}", base.index),
        false => format!("entries {} to {}, the last of term {}", base.index.next(), last.index, last.term),
    };
    let mut lines = vec![
        format!("log: {} segments, {entries}, {superseded} superseded records", found.segments.len()),
        format!(
            "log: {} entries would be applied again, {} bytes of records from entry {} on",
            last.index.0.saturating_sub(covered.0),
            found.bytes_behind(from),
            covered.next()
        ),
    ];
    if !found.contents.is_empty() {
        let bytes: u64 = found.contents.values().map(|segment| segment.header.len_bytes).sum();
        lines.push(format!(
            "contents: {} segments besides the log, {bytes} bytes, to which a checkpoint refers",
            found.contents.len()
        ));
    }
    for torn in &found.torn {
        let file = disk.describe(&file_name(torn.position.segment()));
        let offset = torn.position.offset();
        lines.push(format!("{file}: torn tail, would be cut at offset {offset}: {}", torn.what));
    }
    lines
}
