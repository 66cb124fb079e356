//! File systems of a test's own. Only root may mount them; where this user may not, the tests say that they did
//! not run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted file system; gone when dropped.
pub(crate) struct Mount {
    directory: PathBuf,
}

impl Mount {
    /// A file system in memory. `None` where this user may not mount.
    pub(crate) fn tmpfs(directory: &Path, options: &str) -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs"], directory)
    }

    fn new(arguments: &[&str], directory: &Path) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(arguments).arg(directory);
        succeeds(&mut command).then(|| Self { directory: directory.to_owned() })
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.directory).status().unwrap();
        assert!(status.success(), "mount -o {options}");
    }

    /// Takes the file system away and returns once its image is no longer in use.
    pub(crate) fn unmount(self) {
        let status = Command::new("umount").arg(&self.directory).status().unwrap();
        assert!(status.success(), "umount {}", self.directory.display());
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon of a failed test may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
    }
}

/// A file that holds an ext4 file system.
pub(crate) struct Image {
    path: PathBuf,
}

impl Image {
    /// Makes one of this size at `path`. `None` where the tools for it are missing.
    pub(crate) fn make(path: &Path, mib: u32) -> Option<Self> {
        let file = std::fs::File::create(path).unwrap();
        file.set_len(u64::from(mib) * 1024 * 1024).unwrap();
        let mut command = Command::new("mkfs.ext4");
        command.args(["-q", "-F"]).arg(path);
        succeeds(&mut command).then(|| Self { path: path.to_owned() })
    }

    /// `None` where this user may not mount, or there are no loop devices.
    pub(crate) fn mount(&self, directory: &Path) -> Option<Mount> {
        Mount::new(&["-t", "ext4", "-o", "loop", self.path.to_str().unwrap()], directory)
    }

    /// Copies what has reached the image by now. What the file system above still holds in memory is missing, as
    /// after a power cut.
    pub(crate) fn copy(&self, path: &Path) -> Self {
        let status = Command::new("cp").arg("--sparse=always").arg(&self.path).arg(path).status().unwrap();
        assert!(status.success(), "cp {} {}", self.path.display(), path.display());
        Self { path: path.to_owned() }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
