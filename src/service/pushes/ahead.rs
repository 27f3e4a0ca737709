//! Storing ahead: what the archiver will ask for next.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::super::ready::{self, FolderIdentity, ReadyFile, ReadyFiles};
use super::{ArchiveFolder, PendingPush, PushActor, PushEvent, Rest};

/// Folders with files to archive: one a server; the one unused longest makes room.
const MOST_FOLDERS: usize = 8;
/// After a push that failed nothing is stored ahead for so long, then one file to see whether that has passed; each
/// further failure doubles it.
const FIRST_REST: Duration = Duration::from_secs(2);
/// No rest is longer: after an outage the backlog drains by itself, also while the archiver sleeps.
const LONGEST_REST: Duration = Duration::from_secs(15);

impl PushActor {
    fn may_look_ahead(&self) -> bool {
        let rested = |rest: Rest| rest.until <= Instant::now() && self.running.is_empty();
        self.rest.is_none_or(rested) && self.has_room_ahead()
    }

    /// A push failed: storing ahead rests, and comes back to this file.
    pub(super) fn rest(&mut self, path: &Path) {
        let doubled = self
            .rest
            .map_or(FIRST_REST, |rest| LONGEST_REST.min(rest.length * 2));
        let until = Instant::now() + doubled;
        self.rest = Some(Rest {
            until,
            length: doubled,
        });
        let ready = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(ReadyFile::of);
        self.reach = 1;
        let (Some(pg_wal), Some(ready)) = (path.parent(), ready) else {
            return;
        };
        // A file that nobody waits for is not tried again.
        if ready::is_waiting(pg_wal, &ready)
            && let Some(folder) = self.folders.get_mut(pg_wal).filter(|_| self.look_ahead > 0)
        {
            folder.waiting.again(ready, until);
        }
    }

    pub(super) fn has_room_ahead(&self) -> bool {
        let waiting = self
            .running
            .values()
            .filter(|running| running.asked.is_none() && running.late.is_empty());
        let ahead = waiting.count();
        !self.closed
            && self.compressing < self.workers
            && ahead < self.reach
            && ahead + self.recent.not_asked() < self.look_ahead
    }

    /// Starts what may be stored ahead now.
    pub(super) fn look_ahead(&mut self) {
        if self.news_lost.swap(false, Ordering::SeqCst) {
            let all: Vec<PathBuf> = self.folders.keys().cloned().collect();
            all.into_iter().for_each(|pg_wal| self.scan(pg_wal));
        }
        while self.may_look_ahead() {
            let now = Instant::now();
            let mut folders = self.folders.iter_mut();
            let Some(path) = folders
                .find_map(|(pg_wal, folder)| Some(pg_wal.join(folder.waiting.take(now)?.name())))
            else {
                break;
            };
            if !self.running.contains_key(&path) && !self.recent.knows(&path) {
                self.start(path, None);
            }
        }
        let used_up = |folder: &ArchiveFolder| folder.waiting.more && folder.waiting.is_empty();
        let again: Vec<PathBuf> = self
            .folders
            .iter()
            .filter(|(_, f)| used_up(f))
            .map(|(path, _)| path.clone())
            .collect();
        again.into_iter().for_each(|pg_wal| self.scan(pg_wal));
    }

    /// The archiver has come to this file. When its folder is known under another name, it is called by that.
    pub(super) fn reach(&mut self, asked: &mut PendingPush) {
        let (Some(pg_wal), Some(name)) = (asked.path.parent(), asked.path.file_name()) else {
            return;
        };
        let Some(ready) = name.to_str().and_then(ReadyFile::of) else {
            return;
        };
        let known = self
            .other_name(pg_wal, asked.folder)
            .map(|known| known.join(name));
        asked.path = known.unwrap_or_else(|| std::mem::take(&mut asked.path));
        let pg_wal = asked.path.parent().unwrap_or(Path::new("/"));
        let folder = self.folder(pg_wal, asked.folder);
        folder.used = Instant::now();
        folder.waiting.reached(&ready);
        if !folder.watched && folder.waiting.is_empty() {
            self.scan(pg_wal.to_path_buf());
        }
        self.recent.reached(pg_wal, &ready);
    }

    /// Under which other path this very folder is known, such as a link's.
    fn other_name(&self, pg_wal: &Path, identity: Option<FolderIdentity>) -> Option<PathBuf> {
        let is_it = |path: &Path, folder: &ArchiveFolder| {
            identity.is_some()
                && path != pg_wal
                && folder.identity == identity
                && FolderIdentity::of(path) == identity
        };
        self.folders
            .iter()
            .find(|(path, folder)| is_it(path, folder))
            .map(|(path, _)| path.clone())
    }

    /// What is known of the folder that is at this path now.
    pub(super) fn folder(
        &mut self,
        pg_wal: &Path,
        now: Option<FolderIdentity>,
    ) -> &mut ArchiveFolder {
        if self
            .folders
            .get(pg_wal)
            .is_some_and(|folder| folder.identity != now)
        {
            self.drop_folder(pg_wal);
            self.recent.forget(pg_wal);
        }
        if !self.folders.contains_key(pg_wal) {
            let oldest = self
                .folders
                .iter()
                .min_by_key(|(_, folder)| folder.used)
                .map(|(path, _)| path.clone());
            if let Some(oldest) = oldest.filter(|_| self.folders.len() >= MOST_FOLDERS) {
                self.drop_folder(&oldest);
            }
            // Watched first, scanned then: what becomes ready in between is seen twice, not never.
            let status = ready::status_folder(pg_wal);
            let watched = self
                .watcher
                .as_mut()
                .is_some_and(|watcher| watcher.watch(&status));
            let waiting = ReadyFiles::default();
            let folder = ArchiveFolder {
                identity: now,
                waiting,
                watched,
                scanning: false,
                used: Instant::now(),
            };
            self.folders.insert(pg_wal.to_path_buf(), folder);
            self.scan(pg_wal.to_path_buf());
        }
        self.folders.get_mut(pg_wal).expect("it was put there")
    }

    /// Watched by its inode: the watch has to go before another folder is watched at the same path.
    fn drop_folder(&mut self, pg_wal: &Path) {
        self.folders.remove(pg_wal);
        if let Some(watcher) = &mut self.watcher {
            watcher.unwatch(&ready::status_folder(pg_wal));
        }
    }

    /// A folder that was watched is no more; what comes at its place is known once it is asked for.
    pub(super) fn gone(&mut self, status_folder: &Path) {
        let folder = status_folder
            .parent()
            .and_then(|pg_wal| self.folders.get_mut(pg_wal));
        if let Some(folder) = folder {
            (folder.identity, folder.watched) = (None, false);
        }
    }

    fn scan(&mut self, pg_wal: PathBuf) {
        // Without storing ahead folders are known for the backlog that is told.
        let idle = |folder: &&mut ArchiveFolder| self.look_ahead > 0 && !folder.scanning;
        let Some(folder) = self.folders.get_mut(&pg_wal).filter(idle) else {
            return;
        };
        folder.scanning = true;
        folder.waiting.more = false;
        self.jobs.spawn(async move {
            let from = pg_wal.clone();
            let found = tokio::task::spawn_blocking(move || ready::scan(&from)).await;
            PushEvent::Scanned {
                pg_wal,
                found: found.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked))),
            }
        });
    }

    pub(super) fn scanned(
        &mut self,
        pg_wal: &Path,
        found: std::io::Result<(Vec<ReadyFile>, bool)>,
    ) {
        let Some(folder) = self.folders.get_mut(pg_wal) else {
            return;
        };
        folder.scanning = false;
        match found {
            Ok((files, more)) => {
                let (running, recent) = (&self.running, &self.recent);
                let is_known = |ready: &ReadyFile| {
                    let path = pg_wal.join(ready.name());
                    running.contains_key(&path) || recent.knows(&path)
                };
                folder.waiting.found(files, more, Instant::now(), is_known);
            }
            Err(error) => tracing::debug!(
                "cannot read \"{}\": {error}",
                ready::status_folder(pg_wal).display()
            ),
        }
    }

    /// The watcher reports a file in `archive_status`.
    pub(super) fn announced(&mut self, status_file: &Path) {
        let pg_wal = status_file.parent().and_then(Path::parent);
        let (Some(pg_wal), Some(ready)) = (pg_wal, ReadyFile::announced_by(status_file)) else {
            return;
        };
        let path = pg_wal.join(ready.name());
        let known = self.running.contains_key(&path) || self.recent.knows(&path);
        if let Some(folder) = self.folders.get_mut(pg_wal).filter(|_| !known) {
            folder.waiting.announce(ready, Instant::now());
        }
    }
}
