//! The rules of the house that no compiler holds: which room of the code may enter which (ARCHITECTURE.md),
//! where clocks and `unsafe` may be, how long a file may get, and that what is promised to be there is there.

// It reads the sources.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a room may use of our own rooms, and of other people's crates.
struct Room {
    /// A file or a folder.
    path: &'static str,
    ours: Ours,
    /// Other crates; `None` for any.
    crates: Option<&'static [&'static str]>,
}

enum Ours {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

const ROOMS: &[Room] = &[
    Room { path: "wire/src", ours: Ours::Only(&[]), crates: Some(&["byteorder", "bytes", "crc32fast"]) },
    Room { path: "src/limits.rs", ours: Ours::Only(&[]), crates: Some(&["fsd_wire"]) },
    Room {
        path: "src/raft",
        ours: Ours::Only(&["raft", "limits", "marks", "mutants"]),
        crates: Some(&["fsd_wire", "bytes", "fastrand"]),
    },
    Room {
        path: "src/file_store",
        ours: Ours::Only(&["file_store", "limits", "marks", "mutants"]),
        crates: Some(&["fsd_wire", "bytes", "byteorder", "crc32fast"]),
    },
    // Names of branches, of which nothing is left without their feature.
    Room { path: "src/marks.rs", ours: Ours::Only(&["marks"]), crates: Some(&[]) },
    // Planted bugs, of which nothing is left without their feature.
    Room { path: "src/mutants.rs", ours: Ours::Only(&["mutants"]), crates: Some(&[]) },
    Room { path: "src/metrics", ours: Ours::Only(&["metrics"]), crates: Some(&[]) },
    Room { path: "src/allowance.rs", ours: Ours::Only(&[]), crates: Some(&[]) },
    Room { path: "src/timer_wheel.rs", ours: Ours::Only(&["limits"]), crates: Some(&["slab"]) },
    Room {
        path: "src/mapping.rs",
        ours: Ours::Only(&["limits"]),
        crates: Some(&["bytes", "libc", "memmap2", "rustix"]),
    },
    Room {
        path: "src/simulated_disk.rs",
        ours: Ours::Only(&["limits", "mapping"]),
        crates: Some(&["bytes", "fastrand"]),
    },
    Room {
        path: "src/storage",
        ours: Ours::Only(&["storage", "limits", "mapping", "raft", "marks", "mutants"]),
        crates: Some(&["fsd_wire", "bytes", "byteorder", "crc32fast", "fastrand", "log"]),
    },
    Room {
        path: "src/transfer",
        ours: Ours::Only(&["transfer", "limits", "mapping", "storage", "file_store"]),
        crates: Some(&["fsd_wire", "bytes", "byteorder", "crc32fast"]),
    },
    Room { path: "src/net", ours: Ours::AllBut(&["raft", "storage", "server"]), crates: None },
    Room { path: "src/config.rs", ours: Ours::AllBut(&["raft", "storage", "net", "server"]), crates: None },
    // It stands beside the server and runs it only as other processes: a node's insides are not its business.
    Room {
        path: "src/demo",
        ours: Ours::Only(&["demo", "config", "clock", "signals"]),
        crates: Some(&["fsd_wire", "mio", "signal_hook", "toml"]),
    },
    Room { path: "src/clock.rs", ours: Ours::Only(&[]), crates: Some(&[]) },
    Room { path: "src/signals.rs", ours: Ours::Only(&[]), crates: Some(&["mio", "signal_hook"]) },
    Room { path: "src", ours: Ours::AllBut(&["server", "demo"]), crates: None },
];

/// Who may use the server, and the demo: they stand above all the others.
const ABOVE_THE_SERVER: &[&str] = &["src/main.rs", "src/server"];

/// Rooms that are functions of what they are given: nothing of the machine below them is named there.
const PURE_ROOMS: &[&str] = &[
    "wire/src",
    "src/limits.rs",
    "src/raft",
    "src/file_store",
    "src/metrics",
    "src/timer_wheel.rs",
    "src/allowance.rs",
    "src/simulated_disk.rs",
];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "thread_local!",
];

/// Where a clock is read.
const CLOCK_ROOMS: &[&str] = &["src/clock.rs", "tools"];

/// Where a call that clippy.toml bans is allowed: clock, randomness and files, each in its room.
const ROOMS_OF_BANNED_CALLS: &[&str] = &[
    "src/mapping.rs",
    "src/config.rs",
    "src/main.rs",
    "src/clock.rs",
    // The configurations that it makes, before any node is started.
    "src/demo/directory.rs",
    "src/server/mod.rs",
    "tools",
];

const UNSAFE_ROOM: &str = "src/mapping.rs";

/// Lines of a file without its tests: what is longer is more than one topic.
const LINES_MAX: usize = 600;

/// What README.md and the issues promise to be there.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs/wire-format.md",
    "docs/disk-format.md",
    "docs/text-protocol.md",
    "docs/limits.md",
    "docs/backup.md",
    "docs/metrics.md",
    "docs/testing.md",
    "docs/benchmarks.md",
    "conf/single.conf",
    "conf/node1.conf",
    "conf/node2.conf",
    "conf/node3.conf",
    "conf/node4.conf",
    "conf/node5.conf",
];

struct Source {
    path: String,
    /// Its lines without comments and the contents of strings.
    code: Vec<String>,
    /// Where the unit tests begin and end within it.
    without_tests: Vec<String>,
    lines_without_tests: usize,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                files_below(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// Every Rust file below `folders`, in the order of their paths.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        files_below(&root().join(folder), "rs", &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let relative = path.strip_prefix(root()).expect("below the root").to_str().expect("plain names");
    let source = parse(relative, &text);
    assert!(!source.code.is_empty(), "{relative} is empty");
    source
}

fn parse(path: &str, text: &str) -> Source {
    let lines: Vec<&str> = text.lines().collect();
    let all_tests = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/");
    let kept = if all_tests { Vec::new() } else { outside_of_tests(&lines) };
    Source {
        path: path.to_owned(),
        code: lines.iter().map(|line| code_of(line)).collect(),
        without_tests: kept.iter().map(|line| code_of(line)).collect(),
        lines_without_tests: kept.len(),
    }
}

/// The lines that are not part of an item behind `#[cfg(test)]`. Relies on rustfmt: the item ends with the first
/// line of the same indentation that closes it.
fn outside_of_tests<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(*line);
            continue;
        }
        let indentation = &line[..line.len() - line.trim_start().len()];
        let is_end = |line: &str| {
            line.strip_prefix(indentation).is_some_and(|line| {
                line.starts_with(['}', ')']) || (!line.starts_with([' ', '#']) && line.ends_with([';', '}']))
            })
        };
        for line in lines.by_ref() {
            if is_end(line) {
                break;
            }
        }
    }
    kept
}

/// A line without its comment and without what its strings say.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_string => drop(characters.next()),
            '\'' if !in_string && characters.peek() == Some(&'"') => drop(characters.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => code.push(character),
        }
    }
    code
}

/// Whether `word` stands in `code` with no letter, digit or underscore beside it.
fn names(code: &str, word: &str) -> bool {
    let inside = |character: char| character.is_ascii_alphanumeric() || character == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(inside) && !code[at + word.len()..].starts_with(inside))
}

fn is_in(path: &str, room: &str) -> bool {
    path == room
        || path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'))
        // `timer_wheel/tests.rs` and its like belong to `timer_wheel.rs`.
        || room.strip_suffix(".rs").is_some_and(|folder| is_in(path, folder))
}

fn is_in_any(path: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| is_in(path, room))
}

/// The first parts of all paths that begin with `prefix` in `code`: `prefix::part` and `prefix::{part, part}`.
fn parts_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at]
            .ends_with(|character: char| character.is_ascii_alphanumeric() || "_:".contains(character))
        {
            continue;
        }
        let rest = code[at + prefix.len()..].trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut first = String::new();
            let mut collected = Vec::new();
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => collected.push(std::mem::take(&mut first)),
                    _ if depth == 0 => first.push(character),
                    _ => {}
                }
            }
            collected.push(first);
            parts.extend(collected.iter().map(|part| identifier(part)));
        } else {
            parts.insert(identifier(rest));
        }
    }
    parts.remove("");
    parts
}

fn identifier(text: &str) -> String {
    text.trim()
        .chars()
        .take_while(|character| character.is_ascii_alphanumeric() || *character == '_')
        .collect()
}

/// Which rooms of the package `fsd` a file names.
fn rooms_named(source: &Source) -> BTreeSet<String> {
    let code = source.without_tests.join("\n");
    let mut rooms = parts_behind(&code, "fsd::");
    if is_in(&source.path, "wire/src") {
        // There `crate` and `super` are the wire itself.
        return rooms;
    }
    rooms.extend(parts_behind(&code, "crate::"));
    // What lies directly in src/ or is the face of a folder there has the crate's root as its parent.
    let below_src = source.path.strip_prefix("src/").unwrap_or("a/b/c");
    if !below_src.contains('/') || (below_src.matches('/').count() == 1 && below_src.ends_with("/mod.rs")) {
        rooms.extend(parts_behind(&code, "super::"));
    }
    rooms
}

fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    section(&manifest, "[workspace.dependencies]")
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().replace('-', "_")))
        .filter(|name| !name.starts_with('#'))
        .collect()
}

fn section<'a>(manifest: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    manifest.lines().skip_while(move |line| *line != header).skip(1).take_while(|line| !line.starts_with('['))
}

fn fail_if_any(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn rooms_enter_only_what_they_may() {
    let mut faults = Vec::new();
    let crates = dependencies();
    for source in sources(&["src", "wire/src"]) {
        let named = rooms_named(&source);
        let code = source.without_tests.join("\n");
        for room in ROOMS.iter().filter(|room| is_in(&source.path, room.path)) {
            for name in &named {
                let allowed = match &room.ours {
                    Ours::Only(allowed) => allowed.contains(&name.as_str()),
                    Ours::AllBut(banned) => {
                        !banned.contains(&name.as_str())
                            || is_in(&source.path, &format!("src/{name}"))
                            || is_in_any(&source.path, ABOVE_THE_SERVER)
                    }
                };
                if !allowed {
                    faults.push(format!("{} uses `{name}`", source.path));
                }
            }
            for name in crates
                .iter()
                .filter(|name| names(&code, name) && !parts_behind(&code, &format!("{name}::")).is_empty())
            {
                if room.crates.is_some_and(|allowed| !allowed.contains(&name.as_str())) {
                    faults.push(format!("{} uses the crate `{name}`", source.path));
                }
            }
            if code.contains("super::super") {
                faults.push(format!("{} reaches over its parent: say `crate::`", source.path));
            }
        }
    }
    fail_if_any("a room enters another that it may not (DESIGN section 2, ARCHITECTURE.md)", &faults);
}

#[test]
fn the_wire_crate_depends_on_nobody_of_us() {
    let manifest = fs::read_to_string(root().join("wire/Cargo.toml")).expect("the manifest is there");
    let ours: Vec<String> = section(&manifest, "[dependencies]")
        .filter(|line| line.starts_with("fsd") || line.contains("path"))
        .map(str::to_owned)
        .collect();
    fail_if_any("wire/Cargo.toml depends on our own crates", &ours);
}

#[test]
fn pure_rooms_name_nothing_of_the_machine() {
    let mut faults = Vec::new();
    for source in sources(&["src", "wire/src"]).iter().filter(|source| is_in_any(&source.path, PURE_ROOMS)) {
        for (number, line) in source.without_tests.iter().enumerate() {
            for word in IMPURE.iter().filter(|word| names(line, word)) {
                faults.push(format!("{}, line {} without tests: {word}", source.path, number + 1));
            }
        }
    }
    fail_if_any("a room that is a function of its inputs reads something else", &faults);
}

#[test]
fn clocks_are_read_in_their_room() {
    let mut faults = Vec::new();
    for source in sources(&["src", "wire/src", "tools"]) {
        if is_in_any(&source.path, CLOCK_ROOMS) {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            if ["Instant::now", "SystemTime::now", "UNIX_EPOCH"].iter().any(|call| names(line, call)) {
                faults.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    fail_if_any("a clock is read outside of its room", &faults);
}

#[test]
fn banned_calls_are_allowed_in_their_rooms_alone() {
    let mut faults = Vec::new();
    for source in sources(&["src", "wire/src"]) {
        if is_in_any(&source.path, ROOMS_OF_BANNED_CALLS) {
            continue;
        }
        for line in source.without_tests.iter().filter(|line| line.contains("clippy::disallowed_")) {
            faults.push(format!("{}: {}", source.path, line.trim()));
        }
    }
    fail_if_any("clippy.toml's bans are lifted outside of the rooms that exist for it", &faults);
}

#[test]
fn unsafe_is_in_one_file() {
    let mut faults = Vec::new();
    for source in sources(&["src", "wire", "tools", "tests"]) {
        if source.path == UNSAFE_ROOM {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            if names(line, "unsafe") || names(line, "unsafe_code") {
                faults.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    fail_if_any("`unsafe` outside of src/mapping.rs", &faults);
}

#[test]
fn files_are_about_one_thing() {
    let faults: Vec<String> = sources(&["src", "wire/src", "tools"])
        .iter()
        .filter(|source| source.lines_without_tests > LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path, source.lines_without_tests))
        .collect();
    fail_if_any(&format!("more than {LINES_MAX} lines without tests"), &faults);
}

#[test]
fn each_dependency_has_a_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
    let mut faults = Vec::new();
    let mut reason = false;
    for line in section(&manifest, "[workspace.dependencies]") {
        let explained = std::mem::replace(&mut reason, line.starts_with('#'));
        if line.contains('=') && !line.starts_with('#') && !line.contains("path =") && !explained {
            faults.push(line.to_owned());
        }
    }
    // The packages take all from there: a version of their own would have no reason beside it.
    for manifest_path in [
        "Cargo.toml",
        "wire/Cargo.toml",
        "tools/fsclient/Cargo.toml",
        "tools/logdump/Cargo.toml",
        "tools/sim/Cargo.toml",
    ] {
        let manifest = fs::read_to_string(root().join(manifest_path)).expect("the manifest is there");
        for header in ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"] {
            for line in section(&manifest, header).filter(|line| line.contains('=') && !line.starts_with('#'))
            {
                if !line.contains("workspace = true") && !line.contains("path =") {
                    faults.push(format!("{manifest_path}: {line}"));
                }
            }
        }
    }
    fail_if_any("a dependency without a line of reason above it in the root's Cargo.toml", &faults);
}

#[test]
fn the_documents_are_there() {
    let missing: Vec<String> = DOCUMENTS
        .iter()
        .filter(|document| fs::metadata(root().join(document)).map_or(0, |found| found.len()) == 0)
        .map(|document| (*document).to_owned())
        .collect();
    fail_if_any("missing or empty", &missing);
}

#[test]
fn documents_that_are_named_are_there() {
    let mut paths = Vec::new();
    for folder in ["src", "wire", "tools", "docs", "conf"] {
        ["rs", "md", "conf"]
            .iter()
            .for_each(|extension| files_below(&root().join(folder), extension, &mut paths));
    }
    paths.extend(
        ["README.md", "ARCHITECTURE.md"]
            .map(|name| root().join(name))
            .into_iter()
            .filter(|path| path.exists()),
    );
    let mut missing = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let in_path = |character: char| character.is_ascii_alphanumeric() || "-_/.".contains(character);
        for word in text.split(|character| !in_path(character)) {
            let word = word.trim_end_matches('.');
            if word.starts_with("docs/") && word.ends_with(".md") && !root().join(word).exists() {
                missing.insert(format!(
                    "{word}, named in {}",
                    path.strip_prefix(root()).expect("below").display()
                ));
            }
        }
    }
    fail_if_any("a document that others send their readers to is not there", &Vec::from_iter(missing));
}

#[test]
fn the_wire_format_names_the_bounds_of_frames() {
    let limits = fs::read_to_string(root().join("src/limits.rs")).expect("the bounds are there");
    let document = fs::read_to_string(root().join("docs/wire-format.md")).expect("the document is there");
    let mib = |name: &str| {
        let (_, behind) =
            limits.split_once(&format!("{name}: u32 = ")).unwrap_or_else(|| panic!("no {name}"));
        behind.split_once(" * 1024 * 1024;").map(|(mib, _)| mib).unwrap_or_else(|| panic!("{name} is no MiB"))
    };
    let (peer, client) = (mib("PEER_FRAME_BYTES_MAX"), mib("CLIENT_FRAME_BYTES_MAX"));
    let sentence = format!("{peer} MiB for a body between nodes and {client} MiB for one from a client");
    assert!(document.contains(&sentence), "the document does not say `{sentence}`");
}

#[test]
fn the_wire_format_names_the_bounds_of_sessions() {
    use fsd::limits::{SESSION_REPLIES_BYTES_MAX, SESSION_REPLY_BYTES, SESSION_WINDOW};
    let document = fs::read_to_string(root().join("docs/wire-format.md")).expect("the document is there");
    for sentence in [
        format!("A kept reply counts {SESSION_REPLY_BYTES} bytes"),
        format!("count more than {SESSION_REPLIES_BYTES_MAX} bytes"),
        format!("like the {SESSION_WINDOW} sequence numbers ahead"),
        format!("up to {SESSION_WINDOW} numbers ahead of what is acknowledged"),
    ] {
        assert!(document.contains(&sentence), "the document does not say `{sentence}`");
    }
}

#[test]
fn each_mark_is_listed_and_stands_at_one_place() {
    const LIST: &str = "src/marks.rs";
    let list = fs::read_to_string(root().join(LIST)).expect("the list is there");
    let mut listed: Vec<String> = marks_listed(&list);
    let mut paths = Vec::new();
    files_below(&root().join("src"), "rs", &mut paths);
    let text_of = |path: &PathBuf| fs::read_to_string(path).expect("a readable file");
    let mut standing: Vec<String> =
        paths.iter().filter(|path| !path.ends_with(LIST)).flat_map(|path| marks_in(&text_of(path))).collect();
    listed.sort();
    standing.sort();
    assert!(listed.len() > 100, "only {} marks are listed", listed.len());
    let mut faults = Vec::new();
    for (names, others, what) in
        [(&listed, &standing, "is listed and stands nowhere"), (&standing, &listed, "is not listed")]
    {
        faults
            .extend(names.iter().filter(|name| !others.contains(name)).map(|name| format!("{name} {what}")));
        let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
        faults.extend(twice.map(|pair| format!("{} is there twice", pair[0])));
    }
    fail_if_any("the list of marks and the marks differ", &faults);
}

/// The names of the marks that a file sets.
fn marks_in(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.map(|line| format!("{}\n", line.trim())).collect();
    code.split("mark!(").skip(1).filter_map(|rest| quoted(rest.trim_start())).collect()
}

/// The names in the list, each before what it means.
fn marks_listed(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| line.starts_with('"') && line.ends_with("\";")).filter_map(quoted).collect()
}

/// What stands in the quotation marks with which a text begins.
fn quoted(text: &str) -> Option<String> {
    text.strip_prefix('"')?.split_once('"').map(|(quoted, _)| quoted.to_owned())
}

#[test]
fn the_rooms_of_these_rules_exist() {
    let rooms = ROOMS.iter().map(|room| room.path);
    let all = rooms.chain(ABOVE_THE_SERVER.iter().copied()).chain([UNSAFE_ROOM]);
    let missing: Vec<String> = all
        .filter(|room| *room != "src/simulated_disk.rs" && !root().join(room).exists())
        .map(str::to_owned)
        .collect();
    fail_if_any("a rule about a room that is not there holds nothing", &missing);
}

#[test]
fn these_checks_see_what_they_look_for() {
    let text = "use crate::{limits, storage::Disk};\n// use crate::net;\nlet a = \"crate::server\"; fsd::raft::x();\n\
                #[cfg(test)]\nmod tests {\n    use crate::server;\n}\nfn after() { super::mapping::go() }\n\
                #[cfg(test)]\nmod more_tests;\nconst LAST: u8 = 1;\n";
    let source = parse("src/x.rs", text);
    let expected = ["limits", "mapping", "raft", "storage"].map(str::to_owned);
    assert_eq!(rooms_named(&source), BTreeSet::from(expected));
    assert_eq!(source.lines_without_tests, 5);
    assert!(source.without_tests.iter().any(|line| line.contains("LAST")));
    assert_eq!(code_of(r#"let quote = '"'; say("a \" b // c") // d"#), "let quote = '; say() ");
    assert!(names("let x = unsafe { 1 };", "unsafe") && !names("unsafe_code", "unsafe"));
    assert!(is_in("src/raft/log.rs", "src/raft") && !is_in("src/raft_log.rs", "src/raft"));
    assert!(is_in("src/timer_wheel/tests.rs", "src/timer_wheel.rs"));
    let text = "// mark!(\"no\");\nmark!(\"a\");\n    mark!(\n        \"b\", x);\nmark!($name)\n";
    assert_eq!(marks_in(text), ["a", "b"]);
    assert_eq!(marks_listed("    \"a\" \"what it is\";\n    let x = \"b\";\n"), ["a"]);
    assert!(parse("src/raft/tests.rs", "use crate::net;").without_tests.is_empty());
}
