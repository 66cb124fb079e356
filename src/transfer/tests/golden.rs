//! The bytes of a stream: what this release writes is what every release must read.
//!
//! `cargo test --lib -- --ignored write_the_golden_stream` makes it anew; that is a change of format.

use super::*;

const STREAM: &[u8] = include_bytes!("../../../tests/golden/stream-v1/stream");

fn stream() -> Vec<u8> {
    let mut sender = small();
    let checkpoint = sender.checkpoint();
    bytes_of(&stream_of(&sender.disk, &checkpoint, || 1000).unwrap())
}

#[test]
fn a_stream_is_written_as_ever() {
    assert!(stream() == STREAM, "the format changed");
}

#[test]
fn a_stream_of_any_release_is_read() {
    let mut sender = small();
    let mut receiver = Node::new(2);
    let whole = Chunk { offset: 0, bytes: Bytes::from_static(STREAM), is_last: true };
    let received = receive(&mut receiver, &[whole]);
    assert_received(&mut sender, &receiver.disk.clone(), received, STREAM);
}

#[test]
#[ignore = "it writes into the repository"]
fn write_the_golden_stream() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/stream-v1");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(format!("{folder}/stream"), stream()).unwrap();
}
