use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::ready::ReadyFile;
use crate::postgres::archive::Fingerprint;

/// What was stored ahead, and as which file. Bounded; forgetting costs a second, harmless push.
#[derive(Debug)]
pub struct RecentPushes {
    files: HashMap<PathBuf, RecentPush>,
    /// Oldest first.
    order: VecDeque<PathBuf>,
    most: usize,
}

#[derive(Debug)]
struct RecentPush {
    /// `None` when it may have changed since without a trace.
    fingerprint: Option<Fingerprint>,
    asked: bool,
    stored: Instant,
}

impl RecentPushes {
    /// At most `most` files.
    pub fn new(most: usize) -> Self {
        Self {
            files: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// This file was stored, by a push that nobody (`asked` false) or somebody asked for.
    pub fn put(&mut self, path: PathBuf, fingerprint: Option<Fingerprint>, asked: bool) {
        if self
            .files
            .insert(
                path.clone(),
                RecentPush {
                    fingerprint,
                    asked,
                    stored: Instant::now(),
                },
            )
            .is_none()
        {
            self.order.push_back(path);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.files.remove(&oldest);
            }
        }
    }

    /// How long ago the file that is at `path` now was stored; `None` when that is not proven. It counts as asked for
    /// from now on.
    pub fn proves(&mut self, path: &Path, now: Option<Fingerprint>) -> Option<Duration> {
        let file = self.files.get_mut(path)?;
        file.asked = true;
        (now.is_some() && now == file.fingerprint).then(|| file.stored.elapsed())
    }

    /// Whether a file is known, and need not be stored ahead again.
    pub fn knows(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// All files that are known.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Another folder is at the place of this one: its files are others.
    pub fn forget(&mut self, pg_wal: &Path) {
        let elsewhere = |path: &Path| path.parent() != Some(pg_wal);
        self.files.retain(|path, _| elsewhere(path));
        self.order.retain(|path| elsewhere(path));
    }

    /// Files that were stored and not asked for yet.
    pub fn not_asked(&self) -> usize {
        self.files.values().filter(|file| !file.asked).count()
    }

    /// The archiver has come to `ready` in `pg_wal`: it will not ask for what comes before it.
    pub fn reached(&mut self, pg_wal: &Path, ready: &ReadyFile) {
        let passed = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            path.parent() == Some(pg_wal)
                && name
                    .and_then(ReadyFile::of)
                    .is_some_and(|other| other < *ready)
        };
        for (path, file) in &mut self.files {
            if passed(path) {
                file.asked = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::PgWal;

    fn fingerprint(path: &Path) -> Fingerprint {
        Fingerprint::of(&std::fs::metadata(path).unwrap())
    }

    #[test]
    fn only_the_very_file_is_proven() {
        let wal = PgWal::new();
        let path = wal.segment("000000010000000000000001", 1);
        let mut recent = RecentPushes::new(2);
        recent.put(path.clone(), Some(fingerprint(&path)), false);
        assert_eq!(recent.not_asked(), 1);
        assert!(recent.proves(&path, Some(fingerprint(&path))).is_some());
        assert_eq!(recent.not_asked(), 0);
        assert_eq!(recent.proves(&path, None), None);
        std::fs::rename(wal.segment("000000010000000000000002", 1), &path).unwrap();
        let another = Some(fingerprint(&path));
        assert_eq!(
            recent.proves(&path, another),
            None,
            "another file of the same content and size"
        );
    }

    #[test]
    fn memory_is_bounded_and_what_was_passed_by_waits_for_nobody() {
        let wal = PgWal::new();
        let paths: Vec<PathBuf> = (1..=3)
            .map(|n| wal.segment(&format!("00000001000000000000000{n}"), 1))
            .collect();
        let mut recent = RecentPushes::new(2);
        for path in &paths {
            recent.put(path.clone(), Some(fingerprint(path)), false);
        }
        assert!(!recent.knows(&paths[0]) && recent.knows(&paths[2]));
        recent.reached(
            &wal.folder(),
            &ReadyFile::of("000000010000000000000003").unwrap(),
        );
        assert_eq!(recent.not_asked(), 1);
    }
}
