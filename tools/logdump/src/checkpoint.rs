//! The checkpoints, as text or as JSON lines.

use std::io::{self, Write};

use fsd::file_store::items::FileItem;
use fsd::mapping::Disk;
use fsd::storage::inspect::{CheckpointUse, InspectedCheckpoint};
use fsd::storage::{CheckpointHead, Position, StorageError};
use fsd::transfer::CheckpointItems;
use serde_json::{Value, json};

use crate::Failure;
use crate::show::Show;

impl Show {
    /// Shows what a checkpoint is of, and its files if they are asked for.
    pub(crate) fn checkpoint<D: Disk>(
        &self,
        disk: &D,
        checkpoint: &InspectedCheckpoint,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        self.checkpoint_head(checkpoint, out)?;
        if !self.files || checkpoint.head.is_none() {
            return Ok(());
        }
        match self.files_of(disk, &checkpoint.name, out) {
            // Where it is damaged is shown with what is wrong.
            Err(Failure::Storage(StorageError::Damage { .. })) => Ok(()),
            shown => shown,
        }
    }

    fn checkpoint_head(&self, checkpoint: &InspectedCheckpoint, out: &mut dyn Write) -> io::Result<()> {
        let name = &checkpoint.name;
        let used = used_name(checkpoint.used);
        let Some(head) = &checkpoint.head else {
            if self.json {
                return writeln!(
                    out,
                    "{}",
                    json!({ "checkpoint": name, "used": used, "entry": Value::Null })
                );
            }
            return writeln!(out, "checkpoint {name}: {used}, and what it is of cannot be told");
        };
        let segments: Vec<u32> = head.segments.iter().map(|segment| segment.0).collect();
        let CheckpointHead { entry, stamp, files, sessions, revision, body_bytes, begins_anew, .. } = head;
        let (log_end, bytes) = (head.log_end.to_string(), head.file_bytes());
        if self.json {
            let object = json!({
                "checkpoint": name, "used": used, "entry": entry.index.0, "term": entry.term.0, "stamp_ms": stamp.0,
                "files": files, "sessions": sessions, "revision": revision, "segments": segments,
                "body_bytes": body_bytes, "bytes": bytes, "log_goes_on_at": log_end, "begins_anew": begins_anew,
            });
            return writeln!(out, "{object}");
        }
        let segments: Vec<String> = segments.iter().map(u32::to_string).collect();
        let segments = if segments.is_empty() { "-".to_owned() } else { segments.join(",") };
        write!(
            out,
            "checkpoint {name}: {used} entry={} term={} stamp_ms={stamp} files={files} sessions={sessions} \
             revision={revision} segments={segments} body_bytes={body_bytes} bytes={bytes} log_goes_on_at={log_end}",
            entry.index, entry.term
        )?;
        writeln!(out, "{}", if *begins_anew { " begins_anew" } else { "" })
    }

    fn files_of<D: Disk>(&self, disk: &D, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
        let mut items = CheckpointItems::open(disk, name)?;
        while let Some((file, place)) = items.next_file()? {
            self.file(name, &file, place, out)?;
        }
        Ok(())
    }

    fn file(
        &self,
        checkpoint: &str,
        file: &FileItem<'_>,
        place: Position,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let name = String::from_utf8_lossy(file.name());
        let (version, size) = (file.version().0, file.size_bytes());
        let crc = format!("{:08x}", file.contents_crc());
        let due = file.due().map(|due| due.0);
        if self.json {
            let object = json!({
                "of_checkpoint": checkpoint, "file_name": name, "version": version, "size": size,
                "expires_at_ms": due, "contents_crc": crc, "contents_at": place.to_string(),
                "segment": place.segment().0, "offset": place.offset(),
            });
            return writeln!(out, "{object}");
        }
        let due = due.map_or("-".to_owned(), |due| due.to_string());
        let name = name.escape_debug();
        writeln!(
            out,
            "    file {name} version={version} size={size} expires_at_ms={due} crc={crc} contents_at={place}"
        )
    }
}

fn used_name(used: CheckpointUse) -> &'static str {
    match used {
        CheckpointUse::Newest => "newest",
        CheckpointUse::Older => "older",
        CheckpointUse::None(_) => "unused",
        CheckpointUse::Unknown => "alone",
    }
}
