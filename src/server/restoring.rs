//! `fsd --restore`: a node's data directory out of a backup file. What that means is in [`crate::restore`].

use std::io::Read;

use super::{Fault, directory_identity, random_u64};
use crate::config::Config;
use crate::restore::{Recipient, Restored, restore};
use crate::storage;

/// Restores the backup with this name, of so many bytes, and says how far it is each time that a tenth of it is done.
///
/// # Errors
/// If the directory is not empty, the backup is not whole, or the disk fails.
pub fn restore_backup(
    config: &Config,
    name: &str,
    backup: &mut impl Read,
    len_bytes: u64,
) -> Result<Restored, Fault> {
    let identity = directory_identity(config);
    let disk = storage::lock_directory(&config.data_dir, &identity)?;
    let recipient =
        Recipient { identity: &identity, members: &config.members, segment_bytes: config.segment_bytes };
    let mut tenths = 0;
    let mut watch = |bytes: u64| {
        let now = tenths_done(bytes, len_bytes);
        if now > tenths {
            tenths = now;
            log::info!("{name}: {tenths}0 % of {len_bytes} bytes");
        }
    };
    let restored = restore(&disk, &recipient, &mut random_u64, backup, &mut watch);
    let restored = restored.map_err(|error| Fault::Restore { backup: name.to_owned(), error })?;
    let head = &restored.head;
    log::info!(
        "{} is node {} of cluster {}, restored from cluster {} as of entry {} of term {}: {} files, revision {}",
        config.data_dir.display(),
        config.node,
        config.cluster,
        head.cluster,
        head.entry.index,
        head.entry.term,
        head.files,
        head.revision
    );
    let members = config.members.len();
    if members > 1 {
        log::info!(
            "start the nodes when a majority of the {members} members is restored from the same backup; the others \
             begin empty"
        );
    }
    Ok(restored)
}

fn tenths_done(bytes: u64, len_bytes: u64) -> u64 {
    (u128::from(bytes) * 10 / u128::from(len_bytes.max(1))).min(10) as u64
}
