//! `fsd -c FILE`: runs the node that a configuration file describes, or makes its data directory out of a backup (`--restore`).
//! `fsd --demo`: runs a cluster of such nodes.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use fsd::config::Config;
use fsd::demo::{self, DemoError};
use fsd::restore::RestoreError;
use fsd::server;
use getopts::{Matches, Options};
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;
/// A fault at run time.
const EXIT_FAULT: u8 = 1;

/// What the command line asks for.
enum Wish {
    Help,
    Version,
    Check(PathBuf),
    Run { file: PathBuf, exit_with_stdin: bool },
    Restore { file: PathBuf, backup: PathBuf },
    Demo(demo::Request),
}

fn main() -> ExitCode {
    let options = options();
    match parse(&options) {
        Ok(Wish::Help) => say(options.usage(USAGE).trim_end()),
        Ok(Wish::Version) => say(concat!("fsd ", env!("CARGO_PKG_VERSION"))),
        Ok(Wish::Check(file)) => with_config(&file, |config| check(&file, config)),
        Ok(Wish::Run { file, exit_with_stdin }) => with_config(&file, |config| run(config, exit_with_stdin)),
        Ok(Wish::Restore { file, backup }) => with_config(&file, |config| restore(config, &backup)),
        Ok(Wish::Demo(request)) => run_demo(&request),
        Err(reason) => {
            complain(&format!("{reason}\nTry `fsd -h`."));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

const USAGE: &str = "\
Usage: fsd -c FILE [-t]
       fsd --restore BACKUP -c FILE
       fsd --demo [N] [--dir DIR]

fsd is a replicated file server. Each node of a cluster runs one fsd process with a configuration file of its
own; conf/ has examples. --demo runs a whole cluster on this machine and says what to try. SIGTERM and SIGINT stop it; so does kill -9, at any moment, without loss.";

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("c", "conf", "run the node that this file describes", "FILE");
    options.optflag("t", "test", "check the file, the data directory and the log, and start nothing");
    options.optopt(
        "",
        "restore",
        "with -c: make the node's data directory, which must be empty, out of a backup, and end",
        "BACKUP",
    );
    options.optflagopt(
        "",
        "demo",
        "run N nodes (1, 3, 5 or 7; 5 unless said) on 127.0.0.1 until Ctrl-C",
        "N",
    );
    options.optopt(
        "",
        "dir",
        "with --demo: where its configurations and data are (fsd-demo unless said)",
        "DIR",
    );
    options.optflag(
        "",
        "exit-with-stdin",
        "with -c: end also when standard input, a pipe, is closed: the node ends with the program that started it",
    );
    options.optflag("h", "help", "print this");
    options.optflag("V", "version", "print the version");
    options
}

fn parse(options: &Options) -> Result<Wish, String> {
    // The room of the command line: what it says is passed down as values.
    #[allow(clippy::disallowed_methods)]
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let matches = options.parse(arguments).map_err(|error| error.to_string())?;
    if matches.opt_present("h") {
        return Ok(Wish::Help);
    }
    if matches.opt_present("V") {
        return Ok(Wish::Version);
    }
    if matches.opt_present("demo") {
        return parse_demo(&matches);
    }
    if matches.opt_present("dir") {
        return Err("--dir goes with --demo; a node's data_dir is in its configuration".into());
    }
    if let Some(argument) = matches.free.first() {
        return Err(format!("unexpected argument `{argument}`"));
    }
    let backup = matches.opt_str("restore").map(PathBuf::from);
    for (option, shown) in [("t", "-t"), ("exit-with-stdin", "--exit-with-stdin")] {
        if backup.is_some() && matches.opt_present(option) {
            return Err(format!(
                "--restore makes a data directory and runs nothing: it goes without {shown}"
            ));
        }
    }
    match (matches.opt_str("c"), backup) {
        (None, _) => Err("-c FILE is needed".into()),
        (Some(file), Some(backup)) => Ok(Wish::Restore { file: file.into(), backup }),
        (Some(file), None) if matches.opt_present("t") => Ok(Wish::Check(file.into())),
        (Some(file), None) => {
            Ok(Wish::Run { file: file.into(), exit_with_stdin: matches.opt_present("exit-with-stdin") })
        }
    }
}

fn parse_demo(matches: &Matches) -> Result<Wish, String> {
    for (option, shown) in
        [("c", "-c"), ("t", "-t"), ("exit-with-stdin", "--exit-with-stdin"), ("restore", "--restore")]
    {
        if matches.opt_present(option) {
            return Err(format!("{shown} is for one node, --demo for a whole cluster: use one of them"));
        }
    }
    // An optional value is taken as one only behind `=`; `--demo 3` leaves it among the free arguments.
    let mut given: Vec<String> = matches.opt_str("demo").into_iter().collect();
    given.extend(matches.free.iter().cloned());
    let nodes = match given.as_slice() {
        [] => None,
        [count] => {
            let count = count.parse();
            Some(count.map_err(|_| format!("--demo {}: a cluster has 1, 3, 5 or 7 nodes", given[0]))?)
        }
        [_, argument, ..] => return Err(format!("unexpected argument `{argument}`")),
    };
    let directory = matches.opt_str("dir").unwrap_or_else(|| "fsd-demo".to_owned()).into();
    Ok(Wish::Demo(demo::Request { nodes, directory }))
}

fn with_config(file: &std::path::Path, act: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match Config::load(file) {
        Ok(config) => act(&config),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn check(file: &std::path::Path, config: &Config) -> ExitCode {
    let members = config.members.len();
    complain(&format!(
        "{}: good, node {} of {members} of cluster {}",
        file.display(),
        config.node,
        config.cluster
    ));
    match server::check(config) {
        Ok(lines) => {
            for line in lines {
                complain(&line);
            }
            ExitCode::SUCCESS
        }
        Err(fault) => end(&fault),
    }
}

fn run_demo(request: &demo::Request) -> ExitCode {
    match demo::run(request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(match error {
                DemoError::Configuration(_) => EXIT_USAGE,
                DemoError::Fault(_) => EXIT_FAULT,
            })
        }
    }
}

fn restore(config: &Config, path: &std::path::Path) -> ExitCode {
    start_logger(config);
    let name = path.display().to_string();
    // The room of the command line: what it names is passed down as values.
    #[allow(clippy::disallowed_methods)]
    let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let restored = match opened {
        Ok((len_bytes, mut file)) => server::restore_backup(config, &name, &mut file, len_bytes),
        Err(error) => Err(server::Fault::Restore { backup: name, error: RestoreError::Input(error) }),
    };
    match restored {
        Ok(_) => ExitCode::SUCCESS,
        Err(fault) => end(&fault),
    }
}

fn start_logger(config: &Config) {
    let format = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    WriteLogger::init(config.log_level, format, std::io::stderr()).expect("no other logger was set");
}

fn run(config: &Config, exit_with_stdin: bool) -> ExitCode {
    start_logger(config);
    let parent = if exit_with_stdin {
        match starter_pipe() {
            Ok(pipe) => Some(pipe),
            Err(error) => return end(&server::Fault::Parent(error)),
        }
    } else {
        None
    };
    match server::run(config, parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => end(&fault),
    }
}

/// Standard input as a pipe to wait for. Not a terminal: it would be left in a state that shells do not expect.
fn starter_pipe() -> std::io::Result<std::os::fd::OwnedFd> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(std::io::Error::other("it is a terminal"));
    }
    input.as_fd().try_clone_to_owned()
}

fn end(fault: &server::Fault) -> ExitCode {
    complain(&fault.to_string());
    ExitCode::from(if fault.is_configuration() { EXIT_USAGE } else { EXIT_FAULT })
}

/// Standard output is for what was asked for.
#[allow(clippy::print_stdout)]
fn say(text: &str) -> ExitCode {
    use std::io::Write;
    // A reader that went away has seen enough.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn complain(text: &str) {
    eprintln!("fsd: {text}");
}
