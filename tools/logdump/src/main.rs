//! `logdump` shows what a node's data directory holds, verifies it, and compares it with another. It takes no lock and
//! changes nothing, and so works while the node runs.

mod checkpoint;
mod describe;
mod diff;
mod hard_state;
mod look;
mod show;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fsd::mapping::{self, FileDisk};
use fsd::storage::inspect::is_inspectable;
use fsd::storage::{SegmentId, StorageError, segment};
use getopts::{Matches, Options};

use diff::Diff;
use look::Look;
use show::Show;

/// Something is damaged, or could not be read.
const EXIT_DAMAGE: u8 = 1;
/// Wrong usage.
const EXIT_USAGE: u8 = 2;
/// So many differences of a kind are shown unless another number is asked for.
const LINES_DEFAULT: u64 = 20;

fn options() -> Options {
    let mut options = Options::new();
    options.optflag("", "stat", "a summary per checkpoint and segment instead of the entries");
    options.optflag("", "json", "JSON, one object per line");
    options.optopt("", "from", "only entries from this index on", "INDEX");
    options.optopt("", "to", "only entries up to this index", "INDEX");
    options.optflag("", "contents", "also what was written into the files");
    options.optflag("", "files", "also the files that the checkpoints hold");
    options.optopt("", "diff", "compare the DATA_DIR with this one, of another node or a copy", "DIR");
    options.optopt("", "lines", "with --diff: so many differences of a kind at most (20 unless said)", "N");
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
        let brief = "Usage: logdump [options] DATA_DIR
       logdump [options] SEGMENT or CHECKPOINT...
       logdump [--lines N] [--json] DATA_DIR --diff DIR

Shows checkpoints and log of a node, verifies all that is in its data directory, or compares
it with another, and changes nothing. It may run beside the node.

Exit status: 0 all is well, or what is not is mended by the next start; 1 something is damaged
or could not be read, or differs that must not; 2 wrong usage.";
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
        files: matches.opt_present("files"),
        from: index_option(&matches, "from")?.unwrap_or(0),
        to: index_option(&matches, "to")?.unwrap_or(u64::MAX),
    };
    mapping::allow_many_files();
    let paths: Vec<PathBuf> = matches.free.iter().map(PathBuf::from).collect();
    let is_sound = if let Some(other) = matches.opt_str("diff") {
        run_diff(&matches, &show, &paths, Path::new(&other), out)?
    } else if matches.opt_present("lines") {
        return Err(Failure::Usage("--lines goes with --diff".to_owned()));
    } else if matches.opt_present("hard-state") {
        let [directory] = &paths[..] else {
            return Err(Failure::Usage("--hard-state wants one DATA_DIR".to_owned()));
        };
        show.hard_state(&open(directory)?, out)?
    } else {
        let mut is_sound = true;
        for look in looks(&paths)? {
            is_sound &= look.problems.is_empty();
            if matches.opt_present("stat") {
                show.statistics(&look.inspection, &look.problems, out)?;
            } else {
                is_sound &= show.entries(&look.inspection, &look.problems, out)?;
            }
        }
        is_sound
    };
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

/// Compares the one directory with the other.
fn run_diff(
    matches: &Matches,
    show: &Show,
    paths: &[PathBuf],
    other: &Path,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let [directory] = paths else {
        return Err(Failure::Usage("--diff compares one DATA_DIR with another".to_owned()));
    };
    for option in ["stat", "files", "contents", "hard-state", "from", "to"] {
        if matches.opt_present(option) {
            return Err(Failure::Usage(format!("--diff and --{option} exclude each other")));
        }
    }
    for path in [directory, other] {
        if path.is_file() {
            return Err(Failure::Usage(format!("{}: --diff compares directories", path.display())));
        }
    }
    let lines_max = index_option(matches, "lines")?.unwrap_or(LINES_DEFAULT);
    let disks = [open(directory)?, open(other)?];
    let looks = [Look::at_directory(&disks[0])?, Look::at_directory(&disks[1])?];
    let names = [directory, other].map(|path| path.display().to_string());
    Diff::new(show, names, lines_max, out).run(&looks)
}

fn index_option(matches: &Matches, name: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = matches.opt_str(name) else { return Ok(None) };
    let what = if name == "lines" { "a number" } else { "an index" };
    let index = text.parse().map_err(|_| Failure::Usage(format!("--{name}: {text:?} is not {what}")))?;
    Ok(Some(index))
}

fn open(directory: &Path) -> Result<FileDisk, Failure> {
    FileDisk::read_only(directory).map_err(|error| Failure::Open(directory.display().to_string(), error))
}

/// Reads the one directory, or the files, that the arguments name.
fn looks(paths: &[PathBuf]) -> Result<Vec<Look<FileDisk>>, Failure> {
    // Any other file is told, below, what those are called that it could be.
    if let [path] = paths
        && !is_one_of_ours(path)
        && !path.is_file()
    {
        return Ok(vec![Look::at_directory(&open(path)?)?]);
    }
    if paths.is_empty() {
        return Err(Failure::Usage("a DATA_DIR, SEGMENTs or CHECKPOINTs are missing".to_owned()));
    }
    // The files of one directory belong together.
    let mut groups: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for path in paths {
        if !is_one_of_ours(path) {
            let segment = segment::file_name(SegmentId(1));
            let checkpoint = segment::checkpoint_name(fsd_wire::LogIndex(1));
            let text = format!(
                "{}: no segment and no checkpoint; their names are as {segment} and {checkpoint}",
                path.display()
            );
            return Err(Failure::Usage(text));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).to_owned();
        let name = file_name(path);
        match groups.iter_mut().find(|(path, _)| *path == directory) {
            Some((_, names)) => names.push(name),
            None => groups.push((directory, vec![name])),
        }
    }
    let mut looks = Vec::new();
    for (directory, mut names) in groups {
        names.sort();
        names.dedup();
        looks.push(Look::at_files(&open(&directory)?, &names)?);
    }
    Ok(looks)
}

fn is_one_of_ours(path: &Path) -> bool {
    is_inspectable(&file_name(path))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
