use std::path::Path;

use super::directory::conf_text;
use super::node::Lines;
use super::restarts::{Kind, Restarts, Verdict};
use crate::config::Config;

#[test]
fn confs_are_on_the_documented_ports() {
    // A name that TOML must escape.
    let directory = Path::new("/tmp/a \"b\\c");
    for count in [1, 3, 5, 7] {
        for node in 1..=count {
            let text = conf_text(directory, node, count);
            let config = Config::parse(Path::new("x.conf"), &text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.node.0, node);
            assert_eq!(config.data_dir, directory.join(format!("node{node}")));
            assert_eq!(config.members.len(), count as usize);
            assert_eq!(config.listen.peer.to_string(), format!("127.0.0.1:700{node}"));
            assert_eq!(config.listen.client.to_string(), format!("127.0.0.1:710{node}"));
            assert_eq!(config.listen.text.unwrap().to_string(), format!("127.0.0.1:720{node}"));
            assert_eq!(config.listen.http.unwrap().to_string(), format!("127.0.0.1:730{node}"));
        }
    }
}

#[test]
fn pauses_grow_while_a_node_keeps_dying_and_are_forgotten_when_it_runs() {
    let mut restarts = Restarts::default();
    let mut pause = |ran_ms| match restarts.judge(Kind::FromOutside, ran_ms) {
        Verdict::StartAfter { pause_ms } => pause_ms,
        Verdict::GiveUp => panic!("somebody kills it: it is never given up"),
    };
    assert_eq!([1, 1, 1, 1].map(&mut pause), [100, 200, 400, 800]);
    assert_eq!((0..20).map(|_| pause(1)).max(), Some(10_000));
    assert_eq!(pause(10_000), 100);
    assert_eq!(pause(9_999), 200);
}

#[test]
fn faults_in_a_row_and_a_wrong_configuration_are_given_up() {
    let mut restarts = Restarts::default();
    assert_eq!(restarts.judge(Kind::Configuration, 60_000), Verdict::GiveUp);
    let mut restarts = Restarts::default();
    for _ in 0..4 {
        assert_ne!(restarts.judge(Kind::Fault, 5), Verdict::GiveUp);
    }
    assert_ne!(restarts.judge(Kind::FromOutside, 5), Verdict::GiveUp, "another kind of end breaks the row");
    for _ in 0..4 {
        assert_ne!(restarts.judge(Kind::Fault, 5), Verdict::GiveUp);
    }
    assert_eq!(restarts.judge(Kind::Fault, 5), Verdict::GiveUp);
}

#[test]
fn lines_are_cut_wherever_the_pieces_end() {
    let text = b"one\n\ntwo words\nthe rest";
    for size in 1..text.len() {
        let mut lines = Lines::default();
        let mut taken: Vec<Vec<u8>> = Vec::new();
        for piece in text.chunks(size) {
            lines.feed(piece, |line| taken.push(line.to_vec()));
        }
        lines.finish(|line| taken.push(line.to_vec()));
        assert_eq!(taken, [&b"one"[..], b"", b"two words", b"the rest"], "pieces of {size}");
    }
}

#[test]
fn a_line_without_end_does_not_grow_for_ever() {
    let mut lines = Lines::default();
    let mut taken = 0;
    for _ in 0..100 {
        lines.feed(&[b'x'; 1000], |line| taken += line.len());
    }
    assert!(taken > 80_000, "{taken}");
}
