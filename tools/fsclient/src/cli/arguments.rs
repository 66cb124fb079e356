//! The command line: options, command and operands, checked before anything is sent.

use std::path::PathBuf;
use std::time::Duration;

use fsclient::{ClusterConf, NodeId, Version};
use getopts::{Matches, Options};

/// The servers without `-s`, `-c` and `FSD_SERVERS`: those of `conf/node1.conf` to `node5.conf`.
const SERVERS_DEFAULT: &str = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103,127.0.0.1:7104,127.0.0.1:7105";
const SERVERS_VARIABLE: &str = "FSD_SERVERS";
const TIMEOUT_SECONDS_DEFAULT: &str = "10";

pub(crate) const USAGE: &str = "\
fsclient [-s HOST:PORT[,HOST:PORT...] | -c CONF] [-t SECONDS] COMMAND ...";

const HELP: &str = "\
Reads and writes the files of an fsd cluster. It finds the leader itself, and repeats a
request through failovers until it is answered or the time limit is over; a change is
made at most once, however often it is sent.

Commands:
    read NAME [-o FILE]                          print the contents
    write NAME [FILE or -] [--ttl SECONDS]       set the contents, print the new version
    cas NAME VERSION [FILE or -] [--ttl SECONDS] set them if VERSION is present (0: no file)
    delete NAME [--if-version V]                 remove the file
    stat NAME                                    print VERSION SIZE TTL NAME
    list [PREFIX]                                print a line per file, as stat does
    status                                       ask every node, print a table
    backup FILE [--force]                        fetch the whole store as of one moment
    backup --verify FILE                         check that a backup is whole; no node is asked

Contents come from standard input where FILE is - or absent. A name that begins with
a dash comes after --.";

const EXIT_STATUS: &str = "\
Exit status:
    0 done; 1 other failure; 2 usage; 3 not found; 4 version mismatch or conflict;
    5 unavailable, nothing was done; 6 outcome unknown, it may have been done";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Print this and end.
    Print(String),
    /// Ask the cluster.
    Run(Arguments),
}

/// A command and whom to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) servers: Vec<Server>,
    /// Empty where it is not known.
    pub(crate) cluster: String,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
    pub(crate) command: Command,
}

/// A node to ask; its number is known only from a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) node: Option<NodeId>,
    pub(crate) address: String,
}

/// Where contents come from or go to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Standard input or output.
    Standard,
    File(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read { name: String, to: Place },
    Write { name: String, from: Place, ttl: u64 },
    Cas { name: String, expected: Version, from: Place, ttl: u64 },
    Delete { name: String, expected: Option<Version> },
    Stat { name: String },
    List { prefix: String },
    Status,
    Backup { to: PathBuf, force: bool },
    VerifyBackup { file: PathBuf },
}

/// Reads the command line; `environment` looks a variable up.
///
/// # Errors
/// What is wrong with it, for the user.
pub(crate) fn parse(
    arguments: &[String],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Action, String> {
    let options = options();
    let matches = options.parse(arguments).map_err(|e| e.to_string())?;
    if matches.opt_present("h") {
        return Ok(Action::Print(help(&options)));
    }
    if matches.opt_present("V") {
        return Ok(Action::Print(format!("fsclient {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let command = command(&matches)?;
    let (cluster, servers) = servers(&matches, environment)?;
    Ok(Action::Run(Arguments {
        servers,
        cluster,
        timeout: timeout(&matches)?,
        json: matches.opt_present("json"),
        command,
    }))
}

fn options() -> Options {
    let mut options = Options::new();
    options
        .optopt("s", "servers", "client addresses of the nodes, with commas between them", "HOST:PORT,...")
        .optopt("c", "conf", "take cluster and addresses from a daemon's configuration file", "CONF")
        .optopt("t", "timeout", "time limit of each request, fractions allowed (default 10)", "SECONDS")
        .optopt("o", "output", "read: put the contents into this file, whole or not at all", "FILE")
        .optopt("", "ttl", "write, cas: the file is gone after so many seconds (0: never)", "SECONDS")
        .optopt("", "if-version", "delete: only if this version is present", "V")
        .optflag("", "force", "backup: replace a file that is there")
        .optflag("", "verify", "backup: check the file, and ask no node")
        .optflag("", "json", "stat, list, status, backup: print JSON lines")
        .optflag("h", "help", "print this help")
        .optflag("V", "version", "print the version");
    options
}

fn help(options: &Options) -> String {
    let brief = format!("Usage: {USAGE}\n\n{HELP}");
    format!(
        "{}\nWithout -s and -c the servers are those in {SERVERS_VARIABLE}, else 127.0.0.1:7101 to 7105.\n\n{EXIT_STATUS}\n",
        options.usage(&brief)
    )
}

fn command(matches: &Matches) -> Result<Command, String> {
    let mut operands = Operands { rest: matches.free.iter() };
    let Some(word) = operands.rest.next() else {
        return Err("no command is given".to_owned());
    };
    let (command, allowed): (Command, &[&str]) = match word.as_str() {
        "read" => {
            let to = matches.opt_str("o").map_or(Place::Standard, |path| place(&path));
            (Command::Read { name: operands.name()?, to }, &["o"])
        }
        "write" => {
            let name = operands.name()?;
            (Command::Write { name, from: operands.contents(), ttl: ttl(matches)? }, &["ttl"])
        }
        "cas" => {
            let name = operands.name()?;
            let expected = version(operands.required("VERSION")?)?;
            (Command::Cas { name, expected, from: operands.contents(), ttl: ttl(matches)? }, &["ttl"])
        }
        "delete" => {
            let expected = matches.opt_str("if-version").map(|text| version(&text)).transpose()?;
            (Command::Delete { name: operands.name()?, expected }, &["if-version"])
        }
        "stat" => (Command::Stat { name: operands.name()? }, &["json"]),
        "list" => {
            let prefix = operands.rest.next().cloned().unwrap_or_default();
            (Command::List { prefix }, &["json"])
        }
        "status" => (Command::Status, &["json"]),
        "backup" => backup(matches, operands.required("FILE")?)?,
        other => return Err(format!("unknown command \"{other}\"")),
    };
    if let Some(extra) = operands.rest.next() {
        return Err(format!("{word}: \"{extra}\" is one operand too many"));
    }
    for (option, shown) in [
        ("o", "-o"),
        ("ttl", "--ttl"),
        ("if-version", "--if-version"),
        ("force", "--force"),
        ("verify", "--verify"),
        ("json", "--json"),
    ] {
        if matches.opt_present(option) && !allowed.contains(&option) {
            return Err(format!("{word} has no option {shown}"));
        }
    }
    Ok(command)
}

fn backup(matches: &Matches, file: &str) -> Result<(Command, &'static [&'static str]), String> {
    if file == "-" {
        return Err("backup: it needs a FILE, as one that is lost on the way begins again".to_owned());
    }
    let file = PathBuf::from(file);
    Ok(if matches.opt_present("verify") {
        (Command::VerifyBackup { file }, &["verify", "json"])
    } else {
        (Command::Backup { to: file, force: matches.opt_present("force") }, &["force", "json"])
    })
}

/// What follows the command.
struct Operands<'a> {
    rest: std::slice::Iter<'a, String>,
}

impl<'a> Operands<'a> {
    fn required(&mut self, what: &str) -> Result<&'a String, String> {
        self.rest.next().ok_or_else(|| format!("{what} is missing"))
    }

    fn name(&mut self) -> Result<String, String> {
        self.required("NAME").cloned()
    }

    fn contents(&mut self) -> Place {
        self.rest.next().map_or(Place::Standard, |path| place(path))
    }
}

fn place(path: &str) -> Place {
    if path == "-" { Place::Standard } else { Place::File(PathBuf::from(path)) }
}

fn version(text: &str) -> Result<Version, String> {
    text.parse().map(Version).map_err(|_| format!("\"{text}\" is not a version: a whole number, 0 or more"))
}

fn ttl(matches: &Matches) -> Result<u64, String> {
    matches.opt_str("ttl").map_or(Ok(0), |text| {
        text.parse().map_err(|_| format!("--ttl \"{text}\": not a whole number of seconds, 0 or more"))
    })
}

fn timeout(matches: &Matches) -> Result<Duration, String> {
    let text = matches.opt_str("t").unwrap_or_else(|| TIMEOUT_SECONDS_DEFAULT.to_owned());
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("-t \"{text}\": not a number of seconds above 0"))
}

fn servers(
    matches: &Matches,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(String, Vec<Server>), String> {
    if matches.opt_present("s") && matches.opt_present("c") {
        return Err("-s and -c exclude each other".to_owned());
    }
    if let Some(path) = matches.opt_str("c") {
        let conf = ClusterConf::load(&PathBuf::from(path)).map_err(|e| e.to_string())?;
        let member = |(node, address)| Server { node: Some(node), address };
        return Ok((conf.cluster, conf.members.into_iter().map(member).collect()));
    }
    let list = matches.opt_str("s").or_else(|| environment(SERVERS_VARIABLE).filter(|list| !list.is_empty()));
    let list = list.as_deref().unwrap_or(SERVERS_DEFAULT);
    let server = |address: &str| Server { node: None, address: address.trim().to_owned() };
    Ok((String::new(), list.split(',').map(server).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&words, |_| None)? {
            Action::Run(arguments) => Ok(arguments),
            Action::Print(text) => panic!("it printed {text}"),
        }
    }

    #[test]
    fn each_command_with_its_options() {
        let name = || "n".to_owned();
        let file = || Place::File(PathBuf::from("f"));
        let cases = [
            ("read n", Command::Read { name: name(), to: Place::Standard }),
            ("read n -o f", Command::Read { name: name(), to: file() }),
            ("write n", Command::Write { name: name(), from: Place::Standard, ttl: 0 }),
            ("write n - --ttl 5", Command::Write { name: name(), from: Place::Standard, ttl: 5 }),
            ("write --ttl=5 n f", Command::Write { name: name(), from: file(), ttl: 5 }),
            ("cas n 7 f", Command::Cas { name: name(), expected: Version(7), from: file(), ttl: 0 }),
            ("delete n", Command::Delete { name: name(), expected: None }),
            ("delete n --if-version 3", Command::Delete { name: name(), expected: Some(Version(3)) }),
            ("stat -- -n", Command::Stat { name: "-n".to_owned() }),
            ("list", Command::List { prefix: String::new() }),
            ("list n", Command::List { prefix: name() }),
            ("status", Command::Status),
            ("backup f", Command::Backup { to: PathBuf::from("f"), force: false }),
            ("backup --force f", Command::Backup { to: PathBuf::from("f"), force: true }),
            ("backup --verify f --json", Command::VerifyBackup { file: PathBuf::from("f") }),
        ];
        for (line, command) in cases {
            assert_eq!(run(line).unwrap().command, command, "{line}");
        }
    }

    #[test]
    fn servers_come_from_the_option_else_the_environment_else_the_default() {
        let addresses = |arguments: Arguments| -> Vec<String> {
            arguments.servers.into_iter().map(|server| server.address).collect()
        };
        assert_eq!(addresses(run("-s a:1,b:2 status").unwrap()), ["a:1", "b:2"]);
        assert_eq!(addresses(run("status").unwrap()).len(), 5);
        let words = ["status".to_owned()];
        let Action::Run(arguments) = parse(&words, |_| Some("c:3".to_owned())).unwrap() else {
            panic!("nothing to print");
        };
        assert_eq!(addresses(arguments), ["c:3"]);
    }

    #[test]
    fn fractions_of_a_second_are_a_time_limit() {
        assert_eq!(run("-t 0.25 status").unwrap().timeout, Duration::from_millis(250));
        assert_eq!(run("status").unwrap().timeout, Duration::from_secs(10));
    }

    #[test]
    fn wrong_usage_is_refused_with_its_reason() {
        let cases = [
            ("", "no command"),
            ("fetch n", "unknown command"),
            ("read", "NAME is missing"),
            ("cas n", "VERSION is missing"),
            ("cas n x", "not a version"),
            ("cas n -1", "1"),
            ("write n --ttl -5", "ttl"),
            ("write n --ttl=-5", "--ttl"),
            ("write n --ttl 1.5", "--ttl"),
            ("stat n m", "too many"),
            ("status x", "too many"),
            ("stat n --ttl 5", "no option --ttl"),
            ("write n -o f", "no option -o"),
            ("read n --json", "no option --json"),
            ("backup", "FILE is missing"),
            ("backup -", "needs a FILE"),
            ("backup f g", "too many"),
            ("backup --verify f --force", "no option --force"),
            ("read n --force", "no option --force"),
            ("read n --if-version 2", "no option --if-version"),
            ("-t 0 status", "-t"),
            ("-t -1 status", ""),
            ("-t nan status", "-t"),
            ("-t inf status", "-t"),
            ("-s a:1 -c f status", "exclude"),
            ("-c no/such.conf status", "no/such.conf"),
            ("--frobnicate status", "frobnicate"),
        ];
        for (line, reason) in cases {
            let error = run(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
