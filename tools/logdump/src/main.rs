//! `logdump` shows what a node's log holds. It takes no lock and changes nothing, and so works while the node
//! runs.

mod show;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fsd::mapping::{FileDisk, FileOfDisk};
use fsd::storage::inspect::{self, Inspection};
use fsd::storage::{SegmentId, StorageError, segment};
use getopts::{Matches, Options};

use show::Show;

/// Something is damaged, or could not be read.
const EXIT_DAMAGE: u8 = 1;
/// Wrong usage.
const EXIT_USAGE: u8 = 2;

fn options() -> Options {
    let mut options = Options::new();
    options.optflag("", "stat", "a summary per segment instead of the entries");
    options.optflag("", "json", "JSON, one object per line");
    options.optopt("", "from", "only entries from this index on", "INDEX");
    options.optopt("", "to", "only entries up to this index", "INDEX");
    options.optflag("", "contents", "also what was written into the files");
    options.optflag("", "hard-state", "term and vote instead of the entries (of a DATA_DIR)");
    options.optflag("h", "help", "this text");
    options.optflag("V", "version", "the version");
    options
}

/// Why there is nothing, or nothing more, to show.
enum Failure {
    Usage(String),
    Output(io::Error),
    Storage(StorageError),
    Open(String, io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let result = run(&arguments, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match result {
        Ok(code) => code,
        // The reader has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = out.flush();
            let (code, text) = match failure {
                Failure::Usage(text) => (EXIT_USAGE, format!("{text}\nlogdump -h shows the usage")),
                Failure::Output(error) => (EXIT_DAMAGE, format!("standard output: {error}")),
                Failure::Storage(error) => (EXIT_DAMAGE, error.to_string()),
                Failure::Open(path, error) => (EXIT_DAMAGE, format!("{path}: {error}")),
            };
            // There is nobody left to tell if this fails too.
            let _ = writeln!(io::stderr(), "logdump: {text}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &[String], out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let options = options();
    let matches = options.parse(arguments).map_err(|error| Failure::Usage(error.to_string()))?;
    if matches.opt_present("h") {
        let brief =
            "Usage: logdump [options] DATA_DIR or SEGMENT...\n\nShows a node's log, and changes nothing.";
        write!(out, "{}", options.usage(brief))?;
        return Ok(ExitCode::SUCCESS);
    }
    if matches.opt_present("V") {
        writeln!(out, "logdump {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let show = Show {
        json: matches.opt_present("json"),
        contents: matches.opt_present("contents"),
        from: index_option(&matches, "from")?.unwrap_or(0),
        to: index_option(&matches, "to")?.unwrap_or(u64::MAX),
    };
    let paths: Vec<PathBuf> = matches.free.iter().map(PathBuf::from).collect();
    let is_sound = if matches.opt_present("hard-state") {
        let [directory] = &paths[..] else {
            return Err(Failure::Usage("--hard-state wants one DATA_DIR".to_owned()));
        };
        show.hard_state(&open(directory)?, out)?
    } else {
        let mut is_sound = true;
        for inspection in inspections(&paths)? {
            is_sound &= inspection.problems.is_empty();
            if matches.opt_present("stat") {
                show.statistics(&inspection, out)?;
            } else {
                is_sound &= show.entries(&inspection, out)?;
            }
        }
        is_sound
    };
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

fn index_option(matches: &Matches, name: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = matches.opt_str(name) else { return Ok(None) };
    let index = text.parse().map_err(|_| Failure::Usage(format!("--{name}: {text:?} is not an index")))?;
    Ok(Some(index))
}

fn open(directory: &Path) -> Result<FileDisk, Failure> {
    FileDisk::read_only(directory).map_err(|error| Failure::Open(directory.display().to_string(), error))
}

/// Reads the one directory, or the segments, that the arguments name.
fn inspections(paths: &[PathBuf]) -> Result<Vec<Inspection<FileOfDisk>>, Failure> {
    // Any other file is told, below, what a segment is called.
    if let [path] = paths
        && !is_segment(path)
        && !path.is_file()
    {
        return Ok(vec![inspect::inspect_directory(&open(path)?)?]);
    }
    if paths.is_empty() {
        return Err(Failure::Usage("a DATA_DIR or SEGMENTs are missing".to_owned()));
    }
    // The segments of one directory belong to one log.
    let mut groups: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for path in paths {
        if !is_segment(path) {
            let example = segment::file_name(SegmentId(1));
            let text = format!("{}: no segment; their names are as {example}", path.display());
            return Err(Failure::Usage(text));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).to_owned();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match groups.iter_mut().find(|(path, _)| *path == directory) {
            Some((_, names)) => names.push(name),
            None => groups.push((directory, vec![name])),
        }
    }
    let mut inspections = Vec::new();
    for (directory, mut names) in groups {
        names.sort();
        names.dedup();
        inspections.push(inspect::inspect_segments(&open(&directory)?, &names)?);
    }
    Ok(inspections)
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    segment::is_file_name(&name)
}
