//! The file store, sessions among it, against its model, entry by entry.

#![no_main]

use bytes::Bytes;
use fsd::file_store::reference_model::ReferenceModel;
use fsd::file_store::{ContentsAt, FileStore};
use fsd_wire::{
    ClusterTimeMs, Command, Entry, EntryKind, LogIndex, Operation, Payload, Sequence, SessionCommand,
    SessionId, Term, Version,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Names that meet and are in each other's way.
const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "a-b", "a/c", "b", "b/a", "ab"];

fn payload(data: &mut Unstructured, revision: u64) -> Result<Payload> {
    let expected = Version(data.int_in_range(0..=revision + 1)?);
    let expiry_seconds = *data.choose(&[0, 0, 1, 2, 5, u64::MAX])?;
    let operation = match data.int_in_range(0..=3)? {
        0 => Operation::Write { expiry_seconds },
        1 => Operation::Cas { expected, expiry_seconds },
        2 => Operation::Delete,
        _ => Operation::DeleteIf { expected },
    };
    let deletes = matches!(operation, Operation::Delete | Operation::DeleteIf { .. });
    let contents = if deletes { Bytes::new() } else { fsd_fuzz::some_bytes(data, 8)? };
    Ok(Command { operation, name: (*data.choose(&NAMES)?).into(), contents }.encode())
}

/// What one of the first few entries' sessions, or none, is asked for. Their bounds are low, so that some end.
fn session_payload(data: &mut Unstructured, revision: u64) -> Result<Payload> {
    let session = SessionId(data.int_in_range(1..=12)?);
    let sequence = *data.choose(&[1_u64, 2, 3, 4, 5, 1024, 1025, 1026])?;
    let acknowledged = Sequence(data.int_in_range(0..=sequence - 1)?);
    Ok(match data.int_in_range(0..=9)? {
        0 | 1 => SessionCommand::Open {
            idle_ms: *data.choose(&[400, 1000, 5000, u64::MAX])?,
            sessions_max: data.int_in_range(1..=4)?,
        },
        2 => SessionCommand::KeepAlive { session, acknowledged },
        3 => SessionCommand::Close { session },
        _ => {
            let command = payload(data, revision)?;
            SessionCommand::Change { session, sequence: Sequence(sequence), acknowledged, command }
        }
    }
    .encode())
}

fn run(data: &mut Unstructured) -> Result<()> {
    let (mut store, mut model) = (FileStore::new(), ReferenceModel::new());
    let mut stamp = 0_u64;
    for index in 1..=200 {
        if data.is_empty() {
            break;
        }
        stamp += *data.choose(&[0_u64, 0, 1, 400, 1000, 3000])?;
        let (kind, payload) = match data.int_in_range(0..=5)? {
            0 => (EntryKind::Tick, Payload::default()),
            1 | 2 => (EntryKind::Session, session_payload(data, store.revision().0)?),
            _ => (EntryKind::Command, payload(data, store.revision().0)?),
        };
        let (index, stamp) = (LogIndex(index), ClusterTimeMs(stamp));
        let entry = Entry { index, term: Term(1), stamp, kind, payload };
        assert_eq!(store.apply(&entry, ContentsAt(index.0)), model.apply(&entry));
        assert_eq!(store.revision(), model.revision());
        assert_eq!(store.next_due(), model.next_due());
        assert_eq!(store.sessions(), model.sessions().len());
        let files = store.list("", "", usize::MAX).files;
        let expected = model.files();
        assert_eq!(files.len(), expected.len());
        for ((name, file), model) in files.into_iter().zip(expected) {
            assert_eq!((name, file.version, file.due), (&*model.name, model.version, model.due));
            assert_eq!(file.size_bytes as usize, model.contents.len());
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
