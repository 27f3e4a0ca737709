//! A file system that is soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Scratch, run_as_server};

/// A disk in the place of a folder, with the folder's content.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of 24 MiB; `None`, said aloud, where that is not possible.
    pub fn mount(path: &Path, scratch: &Scratch) -> Option<Self> {
        Self::of_mib(24, path, scratch)
    }

    /// One of this size.
    pub fn of_mib(mib: u64, path: &Path, scratch: &Scratch) -> Option<Self> {
        let aside = scratch.join("aside");
        fs::rename(path, &aside).expect("move the folder aside");
        fs::create_dir(path).expect("make a mount point");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700")])
            .arg("tmpfs")
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
