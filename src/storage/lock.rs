//! One process at a time on a data directory, and only the node that it belongs to.

use std::path::Path;

use fsd_wire::NodeId;

use super::error::Doing;
use super::{DirectoryIdentity, StorageError};
use crate::mapping::{FileDisk, LockError};

/// Makes the directory if it is missing, locks it for this process, and writes into the lock file whose it is.
///
/// # Errors
/// If another process has it, if it belongs to another node, or if the system refuses.
pub fn lock_directory(path: &Path, identity: &DirectoryIdentity) -> Result<FileDisk, StorageError> {
    let directory = path.display().to_string();
    let (disk, signed) = FileDisk::lock(path).map_err(|error| match error {
        LockError::Held { holder } => StorageError::Locked { directory: directory.clone(), holder },
        LockError::Io(source) => {
            StorageError::Io { doing: format!("make and lock the data directory {directory}"), source }
        }
    })?;
    // The text may be cut off by a crash; then it tells nothing, and the other files still do.
    if let Some(found) = parse(&signed)
        && found != *identity
    {
        let file = path.join("lock").display().to_string();
        return Err(StorageError::WrongDirectory { file, found, expected: identity.clone() });
    }
    let text = format!("node={} pid={} cluster={}\n", identity.node, std::process::id(), identity.cluster);
    disk.sign_lock(&text).doing(|| format!("sign the lock of {directory}"))?;
    Ok(disk)
}

fn parse(text: &str) -> Option<DirectoryIdentity> {
    let (node, rest) = text.strip_prefix("node=")?.split_once(" pid=")?;
    let (_, cluster) = rest.split_once(" cluster=")?;
    Some(DirectoryIdentity { cluster: cluster.to_owned(), node: NodeId(node.parse().ok()?) })
}
