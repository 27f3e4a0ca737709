//! The folder of a drill. It goes away with the drill; what one that was killed left is removed by the next.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::error::Hint;
use crate::fsync;
use crate::postgres::protection::ProcessIdentity;

const PREFIX: &str = "walden-drill-";
/// In a drill's folder: whose it is. Without it nothing is removed.
const MARK: &str = "walden-drill.json";
/// How long a server may take to end before it is killed.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What is being given up may still write for a moment.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// A folder that this drill made.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes a folder in `parent`, which it makes, too.
    pub fn make(parent: &Path) -> anyhow::Result<Self> {
        let hint = "name a folder of this user in `drill.folder`, with room for the whole cluster";
        fsync::create_folders(parent)
            .with_context(|| format!("cannot make \"{}\"", parent.display()))
            .hint(hint)?;
        let folder = parent.join(format!("{PREFIX}{:08x}", getrandom::u32()?));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make \"{}\"", folder.display()))
            .hint(hint)?;
        let scratch = Self { folder };
        let own = serde_json::to_vec(&ProcessIdentity::own())?;
        fs::write(scratch.folder.join(MARK), own).context("cannot mark the folder of the drill")?;
        Ok(scratch)
    }

    /// The new data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where something else of the drill is put.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Leaves it as it is; where it is.
    pub fn keep(&self) -> anyhow::Result<&Path> {
        fs::remove_file(self.folder.join(MARK)).context("cannot keep the folder of the drill")?;
        Ok(&self.folder)
    }

    /// Ends its server and removes it.
    pub async fn remove(&self) -> anyhow::Result<()> {
        remove(&self.folder).await
    }
}

/// Removes what drills left that are gone; how many folders. Errors: one could not be removed.
pub async fn remove_leftovers(parent: &Path) -> anyhow::Result<u64> {
    remove_of(parent, |owner| owner.is_gone() || is_before_boot(owner)).await
}

/// Removes what this process made, when it gives a drill up.
pub async fn remove_own(parent: &Path) -> anyhow::Result<u64> {
    let own = ProcessIdentity::own();
    remove_of(parent, |owner| *owner == own).await
}

async fn remove_of(parent: &Path, goes: impl Fn(&ProcessIdentity) -> bool) -> anyhow::Result<u64> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Ok(0);
    };
    let mut removed = 0;
    for folder in entries.flatten().map(|entry| entry.path()) {
        let is_named = |folder: &Path| {
            let name = folder.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(PREFIX)
        };
        // What another user put there says nothing.
        let is_own = |path: &Path| {
            let own = rustix::process::geteuid().as_raw();
            fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == own && !meta.is_symlink())
        };
        if !is_own(&folder) || !is_own(&folder.join(MARK)) {
            continue;
        }
        let mark = fs::read(folder.join(MARK)).unwrap_or_default();
        let owner: Option<ProcessIdentity> = serde_json::from_slice(&mark).ok();
        if is_named(&folder) && owner.as_ref().is_some_and(&goes) {
            remove(&folder).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Of this host before its last start: no process of then is left.
fn is_before_boot(owner: &ProcessIdentity) -> bool {
    let own = ProcessIdentity::own();
    owner.host == own.host
        && owner.pid_namespace == own.pid_namespace
        && !own.boot_id.is_empty()
        && owner.boot_id != own.boot_id
}

async fn remove(folder: &Path) -> anyhow::Result<()> {
    stop_server(&folder.join("data")).await?;
    // The mark goes last: what stays after an interruption is removed by the next drill.
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read \"{}\"", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name == MARK) {
            continue;
        }
        let mut tries = TRIES;
        loop {
            let removed = match path.is_dir() && !path.is_symlink() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            tries -= 1;
            match removed {
                Err(_) if tries > 0 => tokio::time::sleep(BETWEEN_TRIES).await,
                removed => {
                    let what = || format!("cannot remove \"{}\"", path.display());
                    break removed.with_context(what)?;
                }
            }
        }
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove \"{}\"", folder.display()))
}

/// Ends the server of a data directory, if one runs there.
pub async fn stop_server(data: &Path) -> anyhow::Result<()> {
    if data.is_symlink() {
        return Ok(());
    }
    let Some(pid) = server_of(data) else {
        return Ok(());
    };
    let begun = Instant::now();
    // Nothing of it is needed any more.
    let mut signal = Signal::QUIT;
    loop {
        let _ = kill_process(pid, signal);
        for _ in 0..20 {
            // Where it is a child of this process its end must be taken note of.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            if server_of(data) != Some(pid) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if begun.elapsed() > SHUTDOWN / 2 {
            signal = Signal::KILL;
        }
        ensure!(
            begun.elapsed() < SHUTDOWN,
            "the server of the drill, process {}, does not end",
            pid.as_raw_nonzero()
        );
    }
}

/// The process that serves a data directory: it works in it (`postmaster.pid`, its first line; proc(5), `cwd`).
fn server_of(data: &Path) -> Option<Pid> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    let works_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let is_of_it = works_in == fs::canonicalize(data).ok()?;
    Pid::from_raw(pid).filter(|_| is_of_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_drill_left_that_is_gone_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::make(parent.path()).unwrap();
        let dead = Scratch::make(parent.path()).unwrap();
        fs::create_dir_all(dead.data().join("base")).unwrap();
        let gone = ProcessIdentity {
            pid_start: "1".into(),
            ..ProcessIdentity::own()
        };
        fs::write(dead.folder.join(MARK), serde_json::to_vec(&gone).unwrap()).unwrap();
        let kept = Scratch::make(parent.path()).unwrap();
        kept.keep().unwrap();
        let foreign = parent.path().join("walden-drill-mine");
        fs::create_dir(&foreign).unwrap();
        assert_eq!(remove_leftovers(parent.path()).await.unwrap(), 1);
        assert!(!dead.folder.exists());
        assert!(living.folder.exists() && kept.folder.exists() && foreign.exists());
        living.remove().await.unwrap();
        assert!(!living.folder.exists());
        assert_eq!(remove_leftovers(Path::new("/nowhere")).await.unwrap(), 0);
    }
}
