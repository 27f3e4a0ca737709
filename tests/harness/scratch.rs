//! A folder of the server's user that goes away with a test that passed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::process;

/// Room that scratch folders in memory must leave: all that are in use at a time take less than half of it.
const ROOM: u64 = 6 << 30;

/// Where scratch folders lie: in memory while it has room, unless TMPDIR names a place or soaks fill gigabytes. Each
/// cluster is a thousand files, and where many were deleted lately ext4 searches long for inodes of new ones
/// (`recently_deleted` in fs/ext4/ialloc.c): that took half of the processor's time.
fn root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let is_chosen = |name| std::env::var_os(name).is_some();
    if is_chosen("TMPDIR") || super::is_long() || !has_room(memory) {
        return std::env::temp_dir();
    }
    memory.to_path_buf()
}

/// Whether it may grow by [`ROOM`], also as memory, and programs in it can be run.
fn has_room(folder: &Path) -> bool {
    let Ok(found) = rustix::fs::statvfs(folder) else {
        return false;
    };
    let said = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = said.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?
            .trim()
            .strip_suffix(" kB")
    });
    let available = available
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        << 10;
    let runs_programs = !found.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC);
    runs_programs && available.min(found.f_bavail * found.f_frsize) >= ROOM
}

/// Short, because socket paths have at most 107 bytes; with a space, because paths have them.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Self {
        let number = getrandom::u64().expect("randomness") as u32;
        let path = root().join(format!("w {name} {number:08x}"));
        let scratch = Self { path };
        scratch.make(&scratch.path);
        scratch
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a folder below it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        self.make(&path);
        path
    }

    fn make(&self, path: &Path) {
        fs::create_dir_all(path).expect("make a scratch folder");
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .expect("close the scratch folder");
        self.give(path);
    }

    /// Makes a file the server's user's.
    pub fn give(&self, path: &Path) {
        if let Some(user) = process::server_user() {
            chown(path, Some(user.uid), Some(user.gid)).expect("give a file to the server's user");
        }
    }

    /// Writes a file that belongs to the server's user, mode 0600.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, content).expect("write a scratch file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .expect("close the scratch file");
        self.give(&path);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("WALDEN_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
