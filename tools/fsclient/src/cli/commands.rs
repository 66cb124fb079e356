//! The commands.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use fsclient::{CONTENTS_BYTES_MAX, Client, ClientError, NodeId, Refusal};

use super::Failure;
use super::arguments::{Arguments, Command, Place};
use super::{backup, output};

/// Does what the command line asks for.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |error| Failure::Client { what: describe(&arguments.command), error };
    let mut client = client(arguments).map_err(failed)?;
    match &arguments.command {
        Command::Read { name, to } => {
            let file = client.read(name).map_err(failed)?;
            match to {
                Place::Standard => output::print(&file.contents),
                Place::File(path) => write_file(path, &file.contents),
            }
        }
        Command::Write { name, from, ttl } => {
            let contents = contents_of(from, name)?;
            let version = client.write(name, contents, *ttl).map_err(failed)?;
            output::print(format!("{version}\n").as_bytes())
        }
        Command::Cas { name, expected, from, ttl } => {
            let contents = contents_of(from, name)?;
            let version = client.cas(name, *expected, contents, *ttl).map_err(failed)?;
            output::print(format!("{version}\n").as_bytes())
        }
        Command::Delete { name, expected } => client.delete(name, *expected).map(drop).map_err(failed),
        Command::Stat { name } => {
            let info = client.stat(name).map_err(failed)?;
            output::print(output::file_line(&info, arguments.json).as_bytes())
        }
        Command::List { prefix } => list(&mut client, prefix, arguments.json),
        Command::Status => status(&client, arguments),
        Command::Backup { to, force } => backup::fetch(&mut client, to, *force, arguments.json),
        Command::VerifyBackup { file } => backup::verify(file, arguments.json),
    }
}

fn client(arguments: &Arguments) -> Result<Client, ClientError> {
    let addresses = arguments.servers.iter().map(|server| server.address.clone());
    Ok(Client::new(addresses)?.with_cluster(&arguments.cluster)?.with_timeout(arguments.timeout))
}

fn describe(command: &Command) -> String {
    match command {
        Command::Read { name, .. } => format!("read {name}"),
        Command::Write { name, .. } => format!("write {name}"),
        Command::Cas { name, .. } => format!("cas {name}"),
        Command::Delete { name, .. } => format!("delete {name}"),
        Command::Stat { name } => format!("stat {name}"),
        Command::List { prefix } => format!("list \"{prefix}\""),
        Command::Status => "status".to_owned(),
        Command::Backup { .. } | Command::VerifyBackup { .. } => "backup".to_owned(),
    }
}

/// Prints page by page, so that a long list needs no memory here.
fn list(client: &mut Client, prefix: &str, json: bool) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let page = client
            .list_page(prefix, &after)
            .map_err(|error| Failure::Client { what: format!("list \"{prefix}\""), error })?;
        let lines: String = page.files.iter().map(|info| output::file_line(info, json)).collect();
        output::print(lines.as_bytes())?;
        match page.files.into_iter().next_back() {
            Some(last) if page.more => after = last.name,
            _ => return Ok(()),
        }
    }
}

fn status(client: &Client, arguments: &Arguments) -> Result<(), Failure> {
    let reports = client.status();
    let nodes: Vec<Option<NodeId>> = arguments.servers.iter().map(|server| server.node).collect();
    let text = if arguments.json {
        output::status_lines(&reports, &nodes)
    } else {
        output::status_table(&reports, &nodes)
    };
    output::print(text.as_bytes())?;
    if reports.iter().any(|report| report.status.is_ok()) { Ok(()) } else { Err(Failure::NobodyAnswers) }
}

/// Takes the contents in, but not more than any node would accept: standard input may be endless.
fn contents_of(place: &Place, name: &str) -> Result<Vec<u8>, Failure> {
    let bound = CONTENTS_BYTES_MAX as u64 + 1;
    let mut contents = Vec::new();
    let (source, result) = match place {
        Place::Standard => {
            ("standard input".to_owned(), io::stdin().lock().take(bound).read_to_end(&mut contents))
        }
        Place::File(path) => {
            let result = File::open(path).and_then(|file| file.take(bound).read_to_end(&mut contents));
            (path.display().to_string(), result)
        }
    };
    match result {
        Ok(count) if count <= CONTENTS_BYTES_MAX => Ok(contents),
        Ok(_) => {
            let error = ClientError::Refused(Refusal::TooLarge { max_bytes: CONTENTS_BYTES_MAX as u64 });
            Err(Failure::Client { what: format!("{name}: {source}"), error })
        }
        Err(error) => Err(Failure::Io { what: format!("cannot read {source}"), error }),
    }
}

/// Writes next to the file first, so that it is the old one or the new one at any moment, never a part.
fn write_file(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::Io { what: format!("cannot write {}", path.display()), error };
    let Some(name) = path.file_name() else {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    };
    let mut temporary_name = name.to_owned();
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary_name);
    let result = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    result.map_err(|error| {
        // What is left of it is of no use to anybody; the first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}
