//! Files that wait to be archived, as `archive_status` shows them, in the order in which the archiver asks for them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::postgres::archive::push::wal_file_name;
use crate::postgres::types::WalFileName;

/// Names kept of one folder. When these are used up, the folder is read again.
const MOST: usize = 128;
/// In `pg_wal`: tells which files are ready.
pub const STATUS_FOLDER: &str = "archive_status";
/// How long a file is left alone after it became ready: the archiver may ask for it itself at once, and by then any
/// change of it shows in its times.
const SETTLE: Duration = Duration::from_millis(50);

/// A file's place in the archiver's order: history files first, then by name (pgarch.c, ready_file_comparator).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadyFile {
    no_history: bool,
    name: String,
}

impl ReadyFile {
    /// The file to be archived of this name; `None` for a name that is no WAL file's.
    pub fn of(name: &str) -> Option<Self> {
        let parsed = wal_file_name(Path::new(name)).ok()?;
        Some(Self {
            no_history: !matches!(parsed, WalFileName::History(_)),
            name: name.to_string(),
        })
    }

    /// The file that a `.ready` file announces.
    pub fn announced_by(status_file: &Path) -> Option<Self> {
        Self::of(status_file.file_name()?.to_str()?.strip_suffix(".ready")?)
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The folder that tells what in `pg_wal` is ready.
pub fn status_folder(pg_wal: &Path) -> PathBuf {
    pg_wal.join(STATUS_FOLDER)
}

/// Which folder a path leads to: a data directory that was made anew at its place is another one, one with two names is
/// the same. The time of its birth tells those apart that got the same number one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderIdentity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl FolderIdentity {
    /// What is at `pg_wal` now; `None` when it is not a server's. Blocking.
    pub fn of(pg_wal: &Path) -> Option<Self> {
        let meta = fs::metadata(status_folder(pg_wal)).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            born: meta.created().ok(),
        })
    }
}

/// Whether a file is still to be archived.
pub fn is_waiting(pg_wal: &Path, ready: &ReadyFile) -> bool {
    status_folder(pg_wal)
        .join(format!("{}.ready", ready.name()))
        .exists()
}

/// The first files that are ready, and whether there are more. Blocking.
pub fn scan(pg_wal: &Path) -> io::Result<(Vec<ReadyFile>, bool)> {
    let entries = match fs::read_dir(status_folder(pg_wal)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), false)),
        other => other?,
    };
    // Twice as many as are kept, sorted and cut whenever there are more: a backlog may be long.
    let mut files: Vec<ReadyFile> = Vec::new();
    let mut more = false;
    for entry in entries {
        files.extend(ReadyFile::announced_by(&entry?.path()));
        if files.len() == 2 * MOST {
            files.sort_unstable();
            files.truncate(MOST);
            more = true;
        }
    }
    files.sort_unstable();
    more |= files.len() > MOST;
    files.truncate(MOST);
    Ok((files, more))
}

/// What is known to be ready in one `pg_wal`.
#[derive(Debug, Default)]
pub struct ReadyFiles {
    /// When each may be stored ahead.
    files: BTreeMap<ReadyFile, Instant>,
    /// Names were left out.
    pub more: bool,
}

impl ReadyFiles {
    /// A file became ready.
    pub fn announce(&mut self, ready: ReadyFile, now: Instant) {
        self.put(ready, now + SETTLE);
    }

    /// A file could not be stored: not again before `at`.
    pub fn again(&mut self, ready: ReadyFile, at: Instant) {
        self.put(ready, at);
    }

    fn put(&mut self, ready: ReadyFile, at: Instant) {
        self.files.entry(ready).or_insert(at);
        if self.files.len() > MOST {
            self.files.pop_last();
            self.more = true;
        }
    }

    /// What a scan found; `is_known` are those that need nothing more.
    pub fn found(
        &mut self,
        files: Vec<ReadyFile>,
        more: bool,
        now: Instant,
        is_known: impl Fn(&ReadyFile) -> bool,
    ) {
        self.more = more;
        for ready in files.into_iter().filter(|ready| !is_known(ready)) {
            self.files.entry(ready).or_insert(now);
        }
    }

    /// The archiver has come to this file: those before it need no storing ahead any more.
    pub fn reached(&mut self, ready: &ReadyFile) {
        self.files = self.files.split_off(ready);
        self.files.remove(ready);
    }

    /// The next file that may be stored ahead now.
    pub fn take(&mut self, now: Instant) -> Option<ReadyFile> {
        let ready = self
            .files
            .iter()
            .find(|(_, from)| **from <= now)
            .map(|(ready, _)| ready.clone())?;
        self.files.remove(&ready);
        Some(ready)
    }

    /// When the next file may be stored ahead.
    pub fn next_at(&self) -> Option<Instant> {
        self.files.values().min().copied()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::PgWal;

    #[test]
    fn files_are_taken_in_the_archivers_order() {
        let wal = PgWal::new();
        let in_order = [
            "00000002.history",
            "00000003.history",
            "000000010000000000000004",
            "000000010000000000000005.partial",
            "000000020000000000000005",
            "000000020000000000000005.00000028.backup",
            "000000020000000000000006",
        ];
        for name in in_order
            .iter()
            .rev()
            .chain(&["nonsense", "000000020000000000000007.gz"])
        {
            wal.ready(name, b"");
        }
        std::fs::write(
            wal.folder()
                .join("archive_status/000000010000000000000001.done"),
            "",
        )
        .unwrap();
        let (files, more) = scan(&wal.folder()).unwrap();
        assert_eq!(
            files.iter().map(ReadyFile::name).collect::<Vec<_>>(),
            in_order
        );
        assert!(!more);
        assert_eq!(scan(Path::new("/nowhere")).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn of_a_long_backlog_the_first_are_kept() {
        let wal = PgWal::new();
        let name = |number: usize| format!("0000000100000000{number:08X}");
        for number in (0..3 * MOST).rev() {
            std::fs::write(
                wal.folder()
                    .join(format!("archive_status/{}.ready", name(number))),
                "",
            )
            .unwrap();
        }
        let (files, more) = scan(&wal.folder()).unwrap();
        assert!(more && files.len() == MOST);
        assert!(
            files
                .iter()
                .enumerate()
                .all(|(number, ready)| ready.name == name(number))
        );
    }

    #[test]
    fn what_the_archiver_has_passed_is_dropped_and_the_new_waits_a_little() {
        let ready = |name: &str| ReadyFile::of(name).unwrap();
        let now = Instant::now();
        let mut waiting = ReadyFiles::default();
        let (second, third) = (
            ready("000000010000000000000002"),
            ready("000000010000000000000003"),
        );
        waiting.found(
            vec![
                ready("000000010000000000000001"),
                second.clone(),
                third.clone(),
            ],
            false,
            now,
            |_| false,
        );
        waiting.reached(&second);
        waiting.announce(ready("00000002.history"), now);
        assert_eq!(waiting.take(now), Some(third));
        assert_eq!(waiting.take(now), None);
        assert_eq!(waiting.take(now + SETTLE), Some(ready("00000002.history")));
        assert!(waiting.is_empty());
    }
}
