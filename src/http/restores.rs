//! WAL for machines that restore without the repository's credentials. The owner of fetching does the work, one of its
//! own beside the hooks', so that fetching ahead, proofs of absence and their pace are the same as on the socket.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::problem::{Problem, ProblemType};
use crate::postgres::types::{SegmentName, WalFileName};
use crate::service::fetches;
use crate::service::request::{FetchFailure, FetchFailureKind, FetchReply, FetchRequest};

/// Says `delivered NAME` or `absent NAME`: an answer that lacks it is somebody else's, such as a proxy's.
pub const ANSWER_HEADER: &str = "walden-wal";
/// Files on their way to restoring machines at once; each lies in the spool until it is sent.
const MOST_DOWNLOADS: usize = 16;
/// Restoring machines that have files fetched ahead at once.
const MOST_SESSIONS: usize = 8;
/// A machine that asks for nothing for so long makes room: its files are gone then.
const IDLE: Duration = Duration::from_secs(60);
/// The folder within the spool: it is the service's alone, and emptied when it starts.
const FOLDER: &str = "restores";

/// Who restores: the peer's address, and a number that its `restore-command` makes of where it restores to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Restorer {
    pub address: IpAddr,
    pub session: u64,
}

/// The door to the owner of fetching.
pub struct Restores {
    fetches: fetches::FetchHandle,
    folder: PathBuf,
    sessions: Mutex<HashMap<Restorer, Instant>>,
    downloads: Arc<Semaphore>,
}

/// A file that was fetched, verified, and has no name any more.
pub struct SpooledFile {
    pub file: tokio::fs::File,
    pub bytes: u64,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// Held until it is sent.
    pub place: OwnedSemaphorePermit,
}

impl Restores {
    /// Files wait in a folder of this cluster within `spool`.
    pub fn new(fetches: fetches::FetchHandle, spool: &Path, cluster: &str) -> Self {
        let folder = spool.join(cluster).join(FOLDER);
        Self {
            fetches,
            folder,
            sessions: Mutex::default(),
            downloads: Arc::new(Semaphore::new(MOST_DOWNLOADS)),
        }
    }

    /// Removes what a killed service left. Blocking.
    pub fn tidy(&self) {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!("cannot empty \"{}\": {error}", self.folder.display());
            }
            _ => (),
        }
    }

    /// Gets a file; `None` when the repository proves that there is none. Segments from `end` on are absent without
    /// looking.
    pub async fn fetch(
        &self,
        name: WalFileName,
        end: Option<SegmentName>,
        restorer: Restorer,
    ) -> Result<Option<SpooledFile>, Problem> {
        let place = self.downloads.clone().acquire_owned().await;
        let place = place.map_err(|error| Problem::new(ProblemType::Unknown, error.to_string()))?;
        self.admit(restorer)?;
        let folder = self
            .folder
            .join(format!("{}-{:016x}", restorer.address, restorer.session));
        let made = folder.clone();
        blocking(move || {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(made)
        })
        .await
        .map_err(|error| unusable(&folder, &error))?;
        // Only the folder counts: files wait beside the destination, and this program takes them from there.
        let request = FetchRequest {
            name,
            destination: folder.join("destination"),
            end,
        };
        let path = match self.fetches.fetch(request).await.map_err(problem)? {
            FetchReply::Ready(path) => path,
            FetchReply::Absent => return Ok(None),
        };
        let (file, bytes, crc32c) = blocking(move || take(&path))
            .await
            .map_err(|error| unusable(&folder, &error))?;
        Ok(Some(SpooledFile {
            file: tokio::fs::File::from_std(file),
            bytes,
            crc32c,
            place,
        }))
    }

    fn admit(&self, restorer: Restorer) -> Result<(), Problem> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, used| used.elapsed() < IDLE);
        if sessions.len() >= MOST_SESSIONS && !sessions.contains_key(&restorer) {
            let detail =
                format!("{MOST_SESSIONS} machines restore from this service at once already");
            return Err(
                Problem::new(ProblemType::Busy, detail).hint("ask again when one of them is done")
            );
        }
        sessions.insert(restorer, Instant::now());
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// Opens the file, takes its name away, and reads it for its CRC. Whatever happens to the asker then, nothing is left.
fn take(path: &Path) -> io::Result<(File, u64, u32)> {
    let mut file = File::open(path)?;
    std::fs::remove_file(path)?;
    let (mut bytes, mut crc) = (0, 0);
    let mut piece = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        crc = crc32c::crc32c_append(crc, &piece[..read]);
    }
    file.rewind()?;
    Ok((file, bytes, crc))
}

fn unusable(folder: &Path, error: &io::Error) -> Problem {
    let detail = format!(
        "WAL cannot be kept in \"{}\" on its way: {error}",
        folder.display()
    );
    tracing::warn!("{detail}");
    let hint = "let the user who runs `walden serve` write to http.spool, with room for the segments fetched ahead";
    Problem::new(ProblemType::Unknown, detail).hint(hint)
}

fn problem(failure: FetchFailure) -> Problem {
    tracing::warn!("{}", failure.text().trim_end().replace('\n', " "));
    let kind = match failure.kind {
        FetchFailureKind::Lost => ProblemType::WalLost,
        FetchFailureKind::Damaged => ProblemType::WalDamaged,
        FetchFailureKind::Other => ProblemType::Unknown,
    };
    Problem::new(kind, failure.what).hint(failure.hints.join("; "))
}
