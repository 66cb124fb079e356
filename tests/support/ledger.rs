//! What a client was told about its writes, and whether the cluster keeps to it.

use std::collections::BTreeMap;

use fsclient::{Client, ClientError, Refusal, Version};

/// The writes of clients that share no names, each with contents of its own.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    files: BTreeMap<String, History>,
}

/// What is known of one name, which one client writes.
#[derive(Debug, Default)]
struct History {
    /// The last write that was acknowledged.
    acknowledged: Option<(Version, Vec<u8>)>,
    /// Writes of which the outcome is unknown: each may have happened, or not.
    unknown: Vec<Vec<u8>>,
}

impl Ledger {
    /// Writes, and notes the outcome. True if it was acknowledged.
    pub(crate) fn write(&mut self, client: &mut Client, name: &str, contents: &[u8]) -> bool {
        let history = self.files.entry(name.to_owned()).or_default();
        match client.write(name, contents.to_vec(), 0) {
            Ok(version) => {
                let before = history.acknowledged.replace((version, contents.to_vec()));
                if let Some((before, _)) = before {
                    assert!(version > before, "{name}: version {version} after {before}");
                }
                true
            }
            Err(ClientError::Unknown { .. }) => {
                history.unknown.push(contents.to_vec());
                false
            }
            // Nothing happened: then nobody may ever see it, and `verify` knows no such contents.
            Err(ClientError::Unavailable { .. }) => false,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    /// How many names have an acknowledged write.
    pub(crate) fn acknowledged(&self) -> usize {
        self.files.values().filter(|history| history.acknowledged.is_some()).count()
    }

    /// Takes over what another client noted, under other names.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, history) in other.files {
            let before = self.files.insert(name, history);
            assert!(before.is_none(), "each name has one writer");
        }
    }

    /// Reads everything back: what was acknowledged is there with its version and contents, or was replaced
    /// later by a write of which the outcome was unknown; what was refused is not there.
    pub(crate) fn verify(&self, client: &mut Client) {
        for (name, history) in &self.files {
            let found = match client.read(name) {
                Ok(file) => Some((file.version, file.contents)),
                Err(ClientError::Refused(Refusal::NotFound)) => None,
                Err(error) => panic!("{name}: {error}"),
            };
            match (&history.acknowledged, found) {
                (None, None) => {}
                (Some((version, contents)), Some((found, bytes))) if *contents == bytes[..] => {
                    assert_eq!(found, *version, "{name}: the acknowledged contents with another version");
                }
                (acknowledged, Some((found, bytes))) => {
                    let is_known = history.unknown.iter().any(|contents| *contents == bytes[..]);
                    assert!(is_known, "{name}: contents that nobody may have written: version {found}");
                    if let Some((version, _)) = acknowledged {
                        assert!(
                            found > *version,
                            "{name}: version {version} was acknowledged, {found} is there"
                        );
                    }
                }
                (Some((version, _)), None) => panic!("{name}: lost, version {version} was acknowledged"),
            }
        }
    }
}
