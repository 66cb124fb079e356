//! The hard state's file with arbitrary bytes, and a good one with some of its bytes changed: a node starts with
//! a state that was once stored, or refuses; it never begins anew.

#![no_main]

use fsd::mapping::{Disk, MappedFile};
use fsd::simulated_disk::SimulatedDisk;
use fsd::storage::{self, DirectoryIdentity};
use fsd_wire::{NodeId, Term};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const NAME: &str = "hard-state";
const SEGMENT_BYTES: u64 = 64 * 1024;

fn identity() -> DirectoryIdentity {
    DirectoryIdentity { cluster: "fuzz".into(), node: NodeId(1) }
}

/// A directory in which the terms 1 to `terms` were stored.
fn directory(terms: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let mut storage = storage::open(disk.clone(), &identity(), SEGMENT_BYTES, &mut || 7).unwrap();
    let mut state = storage.recovered.state.clone();
    for term in 1..=terms {
        state.term = Term(term);
        storage.hard_state.store(&state).unwrap();
    }
    disk
}

fn run(data: &mut Unstructured) -> Result<()> {
    let terms = data.int_in_range(1..=3)?;
    let disk = directory(terms);
    let mut bytes = disk.read(NAME).expect("it was made");
    for _ in 0..data.int_in_range(1..=8)? {
        let at = data.choose_index(bytes.len())?;
        bytes[at] = data.arbitrary()?;
    }
    let mut file = disk.open(NAME).unwrap();
    file.store(0, &bytes);
    file.flush().unwrap();
    if let Ok(storage) = storage::open(disk, &identity(), SEGMENT_BYTES, &mut || 8) {
        let term = storage.recovered.state.term.0;
        assert!(term == terms || term + 1 == terms, "term {term} of {terms}");
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});
