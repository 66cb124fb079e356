//! `docs/wire-format.md` is true: its dumps decode, its tables add up and name what the code knows.

// It reads files, as a test may.
#![allow(clippy::disallowed_methods)]

mod common;

use std::collections::BTreeMap;

use common::{
    AnyMessage, HELLO_STATUSES, Stored, decode_frame, from_hex, messages, refusal_variants, stored,
};
use fsd_wire::client::{ADDRESS_BYTES_MAX, ClientReply, Outcome};
use fsd_wire::hello::{CLUSTER_NAME_BYTES_MAX, HelloReply, Identity, REASON_BYTES_MAX};
use fsd_wire::peer::PeerMessage;
use fsd_wire::snapshot::REFUSAL_BYTES_MAX;
use fsd_wire::*;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire-format.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of a table's row; `None` for other lines.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// A table of the document: the heading above it, its column names and its rows.
struct Table<'a> {
    heading: &'a str,
    columns: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

fn tables(document: &str) -> Vec<Table<'_>> {
    let mut tables: Vec<Table> = Vec::new();
    let (mut heading, mut inside) = ("", false);
    for line in document.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim();
        }
        match (cells(line), inside) {
            (None, _) => inside = false,
            (Some(columns), false) => {
                inside = true;
                tables.push(Table { heading, columns, rows: Vec::new() });
            }
            (Some(row), true) if row.iter().all(|cell| *cell == "---") => {}
            (Some(row), true) => tables.last_mut().expect("a table has begun").rows.push(row),
        }
    }
    tables
}

fn with_column<'a, 'b>(tables: &'a [Table<'b>], column: &str) -> &'a Table<'b> {
    let mut found = tables.iter().filter(|table| table.columns[0] == column);
    let table = found.next().unwrap_or_else(|| panic!("no table of `{column}`"));
    assert!(found.next().is_none(), "two tables of `{column}`");
    table
}

/// The first two columns of the table whose first column is `column`.
fn codes(tables: &[Table], column: &str) -> Vec<(u16, String)> {
    let number = |cell: &str| cell.parse().unwrap_or_else(|_| panic!("{column}: `{cell}`"));
    with_column(tables, column).rows.iter().map(|row| (number(row[0]), row[1].to_owned())).collect()
}

/// `no-leader` as the document and the code write it: `NoLeader`.
fn variant_name(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

#[test]
fn the_dumps_are_the_golden_frames() {
    let document = document();
    let samples: BTreeMap<String, AnyMessage> = messages().into_iter().collect();
    let mut dumps = 0;
    for block in document.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a fence ends its line");
        let bytes = from_hex(rest.split("```").next().expect("a block"));
        let message = samples.get(name).unwrap_or_else(|| panic!("no sample `{name}`"));
        assert_eq!(decode_frame(&bytes).as_ref(), Ok(&Some(message.clone())), "{name}");
        assert_eq!(message.encode(), bytes, "{name}");
        dumps += 1;
    }
    assert_eq!(dumps, 2, "a hello and a write request are shown");
}

#[test]
fn the_kinds_are_those_of_the_code() {
    let documented: BTreeMap<u16, String> = codes(&tables(&document()), "kind").into_iter().collect();
    let known: BTreeMap<u16, String> =
        messages().iter().map(|(_, message)| (message.kind(), name_of(message))).collect();
    assert_eq!(documented, known);
}

fn name_of(message: &AnyMessage) -> String {
    let debug = match message {
        AnyMessage::Hello(_) => "Hello".into(),
        AnyMessage::HelloReply(_) => "HelloReply".into(),
        AnyMessage::Peer(message) => format!("{message:?}"),
        AnyMessage::Request(request) => format!("{:?}", request.operation),
        AnyMessage::Reply(ClientReply { outcome, .. }) => match outcome {
            Outcome::Changed { .. } => "ChangeReply".into(),
            Outcome::Listed { .. } => "ListReply".into(),
            Outcome::Refused(_) => "Refusal".into(),
            Outcome::Read { .. } => "ReadReply".into(),
            Outcome::Stat(_) => "StatReply".into(),
            Outcome::Status(_) => "StatusReply".into(),
            Outcome::StorageStatus(_) => "StorageStatusReply".into(),
            Outcome::SessionOpened { .. } | Outcome::SessionDone | Outcome::BackupBegun { .. } => {
                format!("{outcome:?}")
            }
            Outcome::BackupChunk { .. } => "BackupChunkReply".into(),
        },
    };
    debug.chars().take_while(char::is_ascii_alphanumeric).collect()
}

#[test]
fn the_status_codes_are_those_of_the_code() {
    let document = document();
    let tables = tables(&document);
    let hello_statuses: Vec<_> = HELLO_STATUSES
        .iter()
        .map(|(name, status)| {
            let identity = Identity::default();
            let (cluster, reason) = (String::new(), String::new());
            let reply = HelloReply { status: *status, protocol: 1, cluster, identity, reason };
            let frame = AnyMessage::HelloReply(reply).encode();
            (u16::from(frame[frame::HEADER_BYTES]), variant_name(name))
        })
        .collect();
    assert_eq!(codes(&tables, "hello status"), hello_statuses);

    let refusals: Vec<_> = refusal_variants()
        .into_iter()
        .map(|(name, refusal)| {
            let reply = ClientReply { id: RequestId(1), outcome: Outcome::Refused(refusal) };
            let frame = AnyMessage::Reply(reply).encode();
            let at = frame::HEADER_BYTES + 8;
            (u16::from_le_bytes([frame[at], frame[at + 1]]), variant_name(name))
        })
        .collect();
    assert_eq!(codes(&tables, "refusal status"), refusals);

    let mut snapshot_states = BTreeMap::new();
    for (_, message) in messages() {
        let AnyMessage::Peer(PeerMessage::InstallSnapshotReply(reply)) = &message else { continue };
        let name = format!("{:?}", reply.state).chars().take_while(char::is_ascii_alphabetic).collect();
        snapshot_states.insert(u16::from(message.encode()[frame::HEADER_BYTES + 40]), name);
    }
    assert_eq!(
        codes(&tables, "snapshot state").into_iter().collect::<BTreeMap<_, String>>(),
        snapshot_states
    );

    let mut room_states = BTreeMap::new();
    for (_, message) in messages() {
        let AnyMessage::Peer(PeerMessage::Room(state)) = &message else { continue };
        room_states.insert(u16::from(message.encode()[frame::HEADER_BYTES]), format!("{state:?}"));
    }
    assert_eq!(codes(&tables, "room").into_iter().collect::<BTreeMap<_, _>>(), room_states);
}

#[test]
fn the_codes_of_entries_and_commands_are_those_of_the_code() {
    let document = document();
    let tables = tables(&document);
    let (mut entry_kinds, mut operations, mut actions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (_, stored) in stored() {
        match &stored {
            Stored::Entry(entry) => {
                entry_kinds.insert(u16::from(stored.encode()[24]), format!("{:?}", entry.kind));
            }
            Stored::Command(command) => {
                let name = match command.operation {
                    Operation::Write { .. } => "write",
                    Operation::Cas { .. } => "cas",
                    Operation::Delete => "delete",
                    Operation::DeleteIf { .. } => "delete if",
                };
                operations.insert(u16::from(stored.encode()[0]), name.to_owned());
            }
            Stored::Session(command) => {
                let name = match command {
                    SessionCommand::Open { .. } => "open",
                    SessionCommand::KeepAlive { .. } => "keep alive",
                    SessionCommand::Close { .. } => "close",
                    SessionCommand::Change { .. } => "change",
                };
                actions.insert(u16::from(stored.encode()[0]), name.to_owned());
            }
            Stored::Genesis(_) | Stored::Register(_) => {}
        }
    }
    assert_eq!(codes(&tables, "entry kind").into_iter().collect::<BTreeMap<_, _>>(), entry_kinds);
    assert_eq!(codes(&tables, "operation").into_iter().collect::<BTreeMap<_, _>>(), operations);
    assert_eq!(codes(&tables, "session action").into_iter().collect::<BTreeMap<_, _>>(), actions);
}

/// The value of `6 + N`, with all letters 0; `None` if it is another word.
fn sum(cell: &str) -> Option<usize> {
    cell.split('+')
        .map(|part| match part.trim() {
            "N" | "M" => Some(0),
            number => number.parse().ok(),
        })
        .sum()
}

#[test]
fn the_offsets_of_each_table_add_up() {
    let document = document();
    let mut sections = BTreeMap::new();
    for table in tables(&document).iter().filter(|table| table.columns == ["offset", "bytes", "field"]) {
        let mut end = Some(0);
        let mut names = String::new();
        for row in &table.rows {
            let place = format!("{}: {row:?}", table.heading);
            assert_eq!(sum(row[0]), end, "{place}");
            let letters: String = row[0].chars().filter(char::is_ascii_alphabetic).collect();
            assert_eq!(letters, names, "{place}");
            names.extend(row[1].chars().filter(|letter| matches!(letter, 'N' | 'M')));
            end = sum(row[1]).map(|bytes| end.expect("nothing follows a field of open length") + bytes);
        }
        // The first table below a message's heading is that of its body.
        if names.is_empty() {
            sections.entry(table.heading.to_owned()).or_insert(end);
        } else {
            sections.entry(table.heading.to_owned()).or_insert(None);
        }
    }
    let mut of_fixed_size = 0;
    for (name, message) in messages() {
        let heading = format!("{} {}", message.kind(), name_of(&message));
        assert!(document.contains(&format!("\n### {heading}\n")), "no section `{heading}`");
        let body_bytes = message.encode().len() - frame::HEADER_BYTES;
        let documented = sections.get(&heading).copied().unwrap_or(Some(0));
        if let Some(documented) = documented {
            assert_eq!(documented, body_bytes, "{name}");
            of_fixed_size += 1;
        }
    }
    assert!(of_fixed_size >= 12, "only {of_fixed_size} samples have a size that the document gives");
}

#[test]
fn the_bounds_are_those_of_the_code() {
    let document = document();
    for (sentence, bound) in [
        ("name, at most {} bytes; a client", CLUSTER_NAME_BYTES_MAX),
        ("what to do, at most {} bytes", REASON_BYTES_MAX),
        ("which rule, at most {} bytes", REASON_BYTES_MAX),
        ("what is wrong, at most {} bytes |", REASON_BYTES_MAX),
        ("why, at most {} bytes", REFUSAL_BYTES_MAX),
        ("its address for clients, at most {} bytes", ADDRESS_BYTES_MAX),
        ("A name is a text of at most {} bytes", NAME_BYTES_MAX),
        ("length of the payload in bytes, at most {}", PAYLOAD_BYTES_MAX),
        ("A command is at most {} bytes", PAYLOAD_BYTES_MAX),
        ("protocol version, {}", usize::from(frame::PROTOCOL_VERSION)),
        ("At present the only version is {}.", usize::from(frame::PROTOCOL_VERSION)),
        ("| {} | length | payload |", ENTRY_HEADER_BYTES),
        ("| {} | length | body |", frame::HEADER_BYTES),
    ] {
        let sentence = sentence.replace("{}", &bound.to_string());
        assert!(document.contains(&sentence), "the document does not say `{sentence}`");
    }
    assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926, "the CRC is the one that the document names");
}
