//! Each key, each fault.

use super::*;

const SINGLE: &str = r#"
cluster = "demo"
node = 1
data_dir = "data"
[[member]]
node = 1
peer = "127.0.0.1:7001"
client = "127.0.0.1:7101"
text = "127.0.0.1:7201"
http = "127.0.0.1:7301"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("x.conf"), text)
}

fn refused(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

#[test]
fn defaults_are_those_of_the_interface() {
    let config = parse(SINGLE).unwrap();
    assert_eq!(config.heartbeat_ms, 50);
    assert_eq!(config.election_timeout_ms, 300);
    assert_eq!(config.segment_bytes, 64 * MIB);
    assert_eq!(config.max_file_bytes, MIB);
    assert_eq!(config.max_clients, 10_000);
    assert_eq!(config.max_pending_bytes, 256 * MIB);
    assert_eq!(config.log_level, LevelFilter::Info);
    assert_eq!(config.listen.text, config.members[0].text);
    assert_eq!(config.listen.http, config.members[0].http);
    assert!(config.dial.is_empty());
}

#[test]
fn reads_of_the_text_protocol_are_linearizable_unless_they_are_to_be_local() {
    assert_eq!(parse(SINGLE).unwrap().text_reads, TextReads::Linearizable);
    for (value, expected) in [("linearizable", TextReads::Linearizable), ("local", TextReads::Local)] {
        let config = parse(&format!("{SINGLE}\n[text]\nreads = \"{value}\"")).unwrap();
        assert_eq!(config.text_reads, expected);
    }
}

#[test]
fn listen_and_dial_replace_addresses() {
    let text = three().replace(
        "[[member]]\nnode = 1",
        "[listen]\npeer = \"0.0.0.0:9\"\n[dial]\n2 = \"127.0.0.1:17002\"\n[[member]]\nnode = 1",
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.listen.peer.to_string(), "0.0.0.0:9");
    assert_eq!(config.dial[&NodeId(2)].to_string(), "127.0.0.1:17002");
    assert_eq!(config.dial[&NodeId(3)].to_string(), "127.0.0.1:7003");
    assert_eq!(config.members[1].peer.to_string(), "127.0.0.1:7002");
}

fn three() -> String {
    let mut text = String::from("cluster = \"demo\"\nnode = 1\ndata_dir = \"data\"\n");
    for node in 1..=3 {
        text += &format!(
            "[[member]]\nnode = {node}\npeer = \"127.0.0.1:700{node}\"\nclient = \"127.0.0.1:710{node}\"\n"
        );
    }
    text
}

#[test]
fn each_fault_names_file_key_and_reason() {
    let with = |line: &str| format!("{line}\n{SINGLE}");
    let tail = |lines: &str| format!("{SINGLE}\n{lines}");
    let cases = [
        (with("colour = 1"), "line 1, `colour = 1`", "unknown field `colour`"),
        (SINGLE.replace("node = 1\ndata", "node = \"x\"\ndata"), "`node = \"x\"`", "invalid type"),
        (SINGLE.replace("node = 1\ndata", "node = 2\ndata"), "node", "no [[member]] has node = 2"),
        (SINGLE.replace("\"demo\"", "\"a b\""), "cluster", "blanks"),
        (SINGLE.replace("\"demo\"", "\"\""), "cluster", "1 to 255 bytes"),
        (SINGLE.replace(":7101", ":7001"), "member 1: client", "stands twice"),
        (SINGLE.replace("127.0.0.1:7101", "localhost:7101"), "member 1: client", "not IP:PORT"),
        (SINGLE.replace("127.0.0.1:7101", "0.0.0.0:7101"), "member 1: client", "use [listen]"),
        (three().replace("node = 3", "node = 2"), "member 2: node", "another member"),
        (three().replace("node = 3", "node = 0"), "member", "numbered from 1"),
        (SINGLE.replace(":7301", ":7201"), "member 1: http", "stands twice"),
        (SINGLE.replace("127.0.0.1:7301", "0.0.0.0:7301"), "member 1: http", "use [listen]"),
        (tail("[listen]\nhttp = \"127.0.0.1:7101\""), "listen", "http: 127.0.0.1:7101 is the same"),
        (three() + "[listen]\nhttp = \"127.0.0.1:7301\"", "listen.http", "no http address"),
        (tail("[raft]\nheartbeat_ms = 0"), "raft.heartbeat_ms", "between 1 and"),
        (tail("[raft]\nelection_timeout_ms = 60"), "raft.election_timeout_ms", "less than twice"),
        (tail("[log]\nsegment_mib = 0"), "log.segment_mib", "between 1 and 1024"),
        (tail("[log]\nsegment_mib = 1"), "log.segment_mib", "cannot hold a file"),
        (tail("[limits]\nmax_file_bytes = 999999999"), "limits.max_file_bytes", "between 1 and"),
        (tail("[limits]\nmax_pending_mib = 0"), "limits.max_pending_mib", "between 1 and"),
        (tail("[limits]\nmax_pending_mib = 4"), "limits.max_pending_mib", "raise it to 5"),
        (
            tail("[limits]\nmax_pending_mib = 64\nmax_file_bytes = 16777216"),
            "limits.max_pending_mib",
            "raise it to 65",
        ),
        (tail("[limits]\nmax_clients = 0"), "limits.max_clients", "between 1 and"),
        (tail("[text]\nreads = \"fast\""), "text.reads", "neither"),
        (tail("[dial]\n7 = \"127.0.0.1:1\""), "dial.7", "no other member"),
        (with("log_level = \"loud\""), "log_level", "none of error"),
        (tail("[listen]\npeer = \"127.0.0.1:7101\""), "listen", "the same"),
        (tail("[listen]\nclient = \"127.0.0.1:0\""), "listen.client", "port 0"),
        (three() + "[dial]\n2 = \"0.0.0.0:7\"", "dial.2", "cannot be connected to"),
        (SINGLE.replace("\"data\"", "\"\""), "data_dir", "is empty"),
        (SINGLE.replace("node = 1\ndata", "data"), "`node`", "this key is missing"),
        (SINGLE.replace("client = ", "text = "), "`text = ", "duplicate key"),
        (SINGLE.replace("client = \"127.0.0.1:7101\"", ""), "`[[member]]`", "missing field `client`"),
    ];
    for (text, key, reason) in cases {
        let said = refused(&text);
        assert!(said.starts_with("x.conf: "), "{said}");
        assert!(said.contains(key) && said.contains(reason), "wanted {key} and {reason}: {said}");
    }
    assert_eq!(refused(""), "x.conf: `cluster`: this key is missing");
}

#[test]
fn a_cluster_has_an_odd_number_of_members() {
    let two = &three()[..three().rfind("[[member]]").unwrap()];
    assert!(refused(two).contains("1, 3, 5 or 7"));
    parse(&three()).unwrap();
}
