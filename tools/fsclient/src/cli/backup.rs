//! `backup`: a file that is whole or not there, and a bar for who watches.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fsclient::{AttemptError, BackupError, BackupProgress, BackupSink, BackupSummary, Client, verify_backup};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Failure, output};

/// A file counts for so much beside its bytes: many small ones move the bar, too.
const ITEM_WEIGHT: u64 = 256;

/// Fetches a backup into a file.
pub(crate) fn fetch(client: &mut Client, to: &Path, force: bool, json: bool) -> Result<(), Failure> {
    let failed = |error| Failure::Io { what: format!("cannot write {}", to.display()), error };
    let exists = || Failure::Exists { path: to.display().to_string() };
    let Some(name) = to.file_name() else {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    };
    if !force && to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let mut part_name = name.to_owned();
    part_name.push(format!(".{}.part", std::process::id()));
    let mut sink = PartFile { path: to.with_file_name(part_name), file: None, bar: bar() };
    let fetched = client.backup(&mut sink);
    sink.bar.finish_and_clear();
    let summary = fetched.map_err(|error| match error {
        BackupError::Client(error) => Failure::Client { what: "backup".to_owned(), error },
        BackupError::Io(error) => failed(error),
        BackupError::Damaged(error) => Failure::Damaged { what: "backup".to_owned(), error },
    })?;
    // It may have been made meanwhile.
    if !force && to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    sink.finish(to).map_err(failed)?;
    tell(&summary, json)
}

/// Checks that a file is a whole backup.
pub(crate) fn verify(path: &Path, json: bool) -> Result<(), Failure> {
    let what = path.display().to_string();
    let failed = |error| Failure::Io { what: format!("cannot read {what}"), error };
    let mut file = File::open(path).map_err(failed)?;
    let bar = bar();
    let verified = verify_backup(&mut file, |progress| show(&bar, progress));
    bar.finish_and_clear();
    match verified {
        Ok(summary) => tell(&summary, json),
        Err(BackupError::Io(error)) => Err(failed(error)),
        Err(BackupError::Damaged(error)) => Err(Failure::Damaged { what, error }),
        Err(BackupError::Client(error)) => Err(Failure::Client { what, error }),
    }
}

fn tell(summary: &BackupSummary, json: bool) -> Result<(), Failure> {
    output::print(output::backup_line(summary, json).as_bytes())
}

/// The file beside the one that is wanted, until it is whole.
struct PartFile {
    path: PathBuf,
    file: Option<File>,
    bar: ProgressBar,
}

impl PartFile {
    /// Gives it its name.
    fn finish(mut self, to: &Path) -> io::Result<()> {
        let file = self.file.take().expect("a backup that is whole has begun");
        let finished = file.sync_all().and_then(|()| std::fs::rename(&self.path, to));
        if finished.is_err() {
            self.file = Some(file);
            return finished;
        }
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What is left of it is of no use to anybody; the first error is the one to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl BackupSink for PartFile {
    fn begin(&mut self, lost: Option<&AttemptError>) -> io::Result<()> {
        if let Some(why) = lost {
            self.bar.suspend(|| eprintln!("fsclient: backup: {why}; it begins again, from its first byte"));
            self.bar.reset();
        }
        // It holds all that the cluster does.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        self.file = Some(file);
        self.bar.set_message("waiting for the node's checkpoint");
        self.bar.tick();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], progress: &BackupProgress<'_>) -> io::Result<()> {
        show(&self.bar, progress);
        self.file.as_mut().expect("it has begun").write_all(bytes)
    }
}

/// A bar on standard error, if somebody can see it there.
fn bar() -> ProgressBar {
    let is_seen = io::stderr().is_terminal();
    let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {msg}  {eta} left");
    ProgressBar::with_draw_target(Some(1), target).with_style(style.expect("a good template"))
}

fn show(bar: &ProgressBar, progress: &BackupProgress<'_>) {
    let Some(head) = progress.head else { return };
    bar.set_length(weight(head.files, head.contents_bytes).max(1));
    bar.set_position(weight(progress.files, progress.contents_bytes));
    bar.set_message(format!("{} of {} files, {} bytes", progress.files, head.files, progress.bytes));
}

/// What so many files and bytes of their contents count on the bar.
fn weight(files: u64, contents_bytes: u64) -> u64 {
    contents_bytes.saturating_add(files.saturating_mul(ITEM_WEIGHT))
}
