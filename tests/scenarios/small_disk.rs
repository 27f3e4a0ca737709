//! A file system that is soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Scratch, run_as_server};

/// A disk of 24 MiB in the place of a folder, with the folder's content.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said aloud, where that is not possible.
    pub fn mount(path: &Path, scratch: &Scratch) -> Option<Self> {
        let aside = scratch.join("aside");
        fs::rename(path, &aside).expect("move the folder aside");
        fs::create_dir(path).expect("make a mount point");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"])
            .arg(path)
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            eprintln!("full disk: skipped (a tmpfs cannot be mounted; root can)");
            return None;
        }
        scratch.give(path);
        let disk = Self(path.to_path_buf());
        run_as_server(
            "cp",
            ["-a".as_ref(), aside.join(".").as_os_str(), path.as_os_str()],
        );
        Some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
