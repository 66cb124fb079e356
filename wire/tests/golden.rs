//! The bytes of every message, entry and payload are pinned by the files in `tests/golden/`.
//!
//! A change of these files is a change of the protocol or of the disk format: nodes and data directories of
//! the version before can no longer be read. Where that is meant, say so in CHANGELOG.md and rewrite them:
//!
//! ```text
//! FSD_REGENERATE_GOLDEN=1 cargo test -p fsd-wire --test golden
//! ```

// It reads files, as a test may.
#![allow(clippy::disallowed_methods)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Once;

use common::{AnyMessage, decode_frame, from_hex, messages, stored, to_hex};
use fsd_wire::DecodeError;

/// Where the golden files are; rewritten, if that is asked for, before any test looks at them.
fn folder() -> PathBuf {
    static REWRITE: Once = Once::new();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    REWRITE.call_once(|| {
        if std::env::var_os("FSD_REGENERATE_GOLDEN").is_some() {
            for (name, bytes) in encoded() {
                fs::write(folder.join(format!("{name}.hex")), to_hex(&bytes))
                    .expect("the folder is writable");
            }
        }
    });
    folder
}

fn encoded() -> BTreeMap<String, Vec<u8>> {
    let frames = messages().into_iter().map(|(name, message)| (name, message.encode()));
    let others = stored().into_iter().map(|(name, stored)| (name.to_owned(), stored.encode()));
    frames.chain(others).collect()
}

fn golden(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    from_hex(&text)
}

#[test]
fn everything_encodes_to_its_golden_bytes() {
    for (name, bytes) in encoded() {
        let expected = golden(&name);
        assert!(expected == bytes, "{name}: expected\n{}got\n{}", to_hex(&expected), to_hex(&bytes));
    }
}

#[test]
fn golden_bytes_decode_to_what_they_were_made_from() {
    for (name, message) in messages() {
        assert_eq!(decode_frame(&golden(&name)), Ok(Some(message)), "{name}");
    }
    for (name, stored) in stored() {
        assert_eq!(stored.decode_same(&golden(name)), Ok(stored), "{name}");
    }
}

#[test]
fn each_golden_file_belongs_to_a_sample() {
    let found: BTreeSet<String> = fs::read_dir(folder())
        .expect("the golden files are there")
        .map(|file| file.expect("readable").file_name().into_string().expect("plain names"))
        .collect();
    let expected = encoded().into_keys().map(|name| format!("{name}.hex")).collect();
    assert_eq!(found, expected);
    assert_eq!(expected.len(), messages().len() + stored().len(), "two samples have one name");
}

#[test]
fn there_is_a_sample_of_every_kind() {
    let sampled: BTreeSet<u16> = messages().iter().map(|(_, message)| message.kind()).collect();
    for kind in 0..=u16::MAX {
        let frame = fsd_wire::Frame { kind, body: bytes::Bytes::new() };
        // A client's messages name their id before their kind is looked at: give them one.
        let with_id = fsd_wire::Frame { kind, body: vec![0; 12].into() };
        let unknown = Err(DecodeError::UnknownKind { kind });
        let known = AnyMessage::decode(&frame) != unknown
            || fsd_wire::client::ClientRequest::decode(&with_id) != Err(DecodeError::UnknownKind { kind })
            || fsd_wire::client::ClientReply::decode(&with_id) != Err(DecodeError::UnknownKind { kind });
        assert_eq!(known, sampled.contains(&kind), "kind {kind}");
    }
}
