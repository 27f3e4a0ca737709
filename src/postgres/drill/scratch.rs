//! The folder of a drill. It goes away with the drill; what one that was killed left is removed by the next.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::error::Hint;
use crate::fsync;

const PREFIX: &str = "walden-drill-";
/// In a drill's folder, locked as long as the drill lives. Without it nothing is removed that has anything in it.
const MARK: &str = "walden-drill.lock";
/// How long a server may take to end before it is killed.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// What is being given up may still write for a moment.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// A folder that this drill made.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// Numbers of processes mean something in their own namespace only; the kernel knows of each lock whether its holder lives.
    _lock: File,
}

impl Scratch {
    /// Makes a folder in `parent`, which it makes, too.
    pub fn make(parent: &Path) -> anyhow::Result<Self> {
        let hint = "name a folder of this user in `drill.folder`, with room for the whole cluster";
        fsync::create_folders(parent)
            .with_context(|| format!("cannot make \"{}\"", parent.display()))
            .hint(hint)?;
        for _ in 0..TRIES {
            let folder = parent.join(format!("{PREFIX}{:08x}", getrandom::u32()?));
            let what = || format!("cannot make \"{}\"", folder.display());
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .with_context(what)
                .hint(hint)?;
            // Another drill may take it for a leftover until it is locked, and removes it.
            if let Some(lock) = mark(&folder).with_context(what).hint(hint)? {
                let _lock = lock;
                return Ok(Self { folder, _lock });
            }
        }
        Err(anyhow::anyhow!(
            "others remove what is made in \"{}\"",
            parent.display()
        ))
        .hint(hint)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.folder
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

/// The lock of a folder that was just made; `None`: another drill removed it, or is about to.
fn mark(folder: &Path) -> io::Result<Option<File>> {
    let lock = match File::create_new(folder.join(MARK)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        made => made?,
    };
    take(lock)
}

/// The lock, if nobody has it and the mark is still there.
fn take(lock: File) -> io::Result<Option<File>> {
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((lock.metadata()?.nlink() > 0).then_some(lock)),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes what drills left that are gone; how many folders. Errors: one could not be removed.
pub async fn remove_leftovers(parent: &Path) -> anyhow::Result<u64> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Ok(0);
    };
    let mut removed = 0;
    for folder in entries.flatten().map(|entry| entry.path()) {
        let name = folder.file_name().unwrap_or_default();
        // What another user put there says nothing.
        if !name.to_string_lossy().starts_with(PREFIX) || !is_own(&folder) {
            continue;
        }
        let mark = folder.join(MARK);
        if is_own(&mark) {
            // It may go meanwhile: then another drill removes the rest.
            if let Ok(Some(_lock)) = File::open(&mark).and_then(take) {
                remove(&folder).await?;
                removed += 1;
            }
        } else if fs::remove_dir(&folder).is_ok() {
            // Killed before it was marked: only an empty one goes like that.
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_own(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == own && !meta.is_symlink())
}

async fn remove(folder: &Path) -> anyhow::Result<()> {
    stop_server(&folder.join("data"), Signal::QUIT).await?;
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

/// Ends the server of a data directory, if one runs there. `signal`: INT has it write everything, QUIT nothing.
pub async fn stop_server(data: &Path, mut signal: Signal) -> anyhow::Result<()> {
    if data.is_symlink() {
        return Ok(());
    }
    let Some(pid) = server_of(data) else {
        return Ok(());
    };
    let begun = Instant::now();
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

/// Whether a server runs in a data directory.
pub fn has_server(data: &Path) -> bool {
    server_of(data).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_a_drill_left_that_is_gone_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::make(parent.path()).unwrap();
        let dead = Scratch::make(parent.path()).unwrap();
        let gone = dead.folder.clone();
        fs::create_dir_all(dead.data().join("base")).unwrap();
        drop(dead);
        let kept = Scratch::make(parent.path()).unwrap();
        fs::create_dir(kept.data()).unwrap();
        kept.keep().unwrap();
        let [unmarked, foreign] = ["walden-drill-1", "walden-drill-mine"].map(|name| {
            let folder = parent.path().join(name);
            fs::create_dir(&folder).unwrap();
            folder
        });
        fs::write(foreign.join("notes"), "mine").unwrap();
        assert_eq!(remove_leftovers(parent.path()).await.unwrap(), 2);
        assert!(!gone.exists() && !unmarked.exists());
        assert!(living.folder.exists() && kept.folder.exists() && foreign.exists());
        living.remove().await.unwrap();
        assert!(!living.folder.exists());
        assert_eq!(remove_leftovers(Path::new("/nowhere")).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_folder_that_another_takes_for_a_leftover_before_it_is_locked_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("walden-drill-1");
        fs::create_dir(&folder).unwrap();
        remove_leftovers(parent.path()).await.unwrap();
        assert!(mark(&folder).unwrap().is_none());
        fs::create_dir(&folder).unwrap();
        let lock = mark(&folder).unwrap();
        assert!(lock.is_some());
        assert_eq!(remove_leftovers(parent.path()).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn drills_that_begin_at_once_leave_each_other_alone() {
        let parent = tempfile::tempdir().unwrap();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let parent = parent.path().to_path_buf();
            all.spawn(async move {
                for _ in 0..20 {
                    remove_leftovers(&parent).await.unwrap();
                    let scratch = Scratch::make(&parent).unwrap();
                    tokio::task::yield_now().await;
                    assert!(scratch.folder.join(MARK).exists());
                    scratch.remove().await.unwrap();
                }
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
