//! The stages of a backup and the bounded queues between them:
//!
//! the caller's task cuts the stream → one thread digests → `workers` threads compress → one task fills packs, which
//! are stored while the next one fills. A stage that ends early closes its queues, so that all others end too.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use super::cutter::Captured;
use super::cutter::{Cut, Cutter, FileMetadata, FramePool};
use super::manifest::FolderEntry;
use super::packer::{PackOptions, Packer, Totals};
use crate::codec::{Digest, FrameCompressor, Hasher, SealedWriter};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;

// What is in memory at once, for W workers: 256 KiB for each cut and job, and for each piece at most that, as far as it
// does not compress; and three packs. With two workers and packs of 16 MiB that is at most 55 MiB.

/// Cuts that wait to be digested.
const CUTS_QUEUE: usize = 8;
/// Frames that wait to be compressed, for each worker.
const JOBS_PER_WORKER: usize = 2;
/// Frames and files that wait for their turn in the pack: as many, and some for each worker.
const PIECES_QUEUE: usize = 8;
const PIECES_PER_WORKER: usize = 4;

/// What came out of a stream that was stored whole.
pub struct Packed {
    /// The manifest's lines.
    pub manifest: SealedWriter,
    pub totals: Totals,
    pub captured: Captured,
}

/// A later stage ended; [`Pipeline::finish`] or [`Pipeline::abandon`] tell why.
#[derive(Debug, thiserror::Error)]
#[error("the backup cannot go on")]
pub struct Closed;

/// A running pipeline. Must be ended by [`finish`](Self::finish) or [`abandon`](Self::abandon).
pub struct Pipeline {
    cutter: Cutter,
    cuts: mpsc::Sender<Cut>,
    digester: JoinHandle<()>,
    compressors: Vec<JoinHandle<anyhow::Result<()>>>,
    packer: JoinHandle<(Packer, anyhow::Result<()>)>,
}

struct FrameJob {
    plain: Vec<u8>,
    reply: oneshot::Sender<Bytes>,
}

/// What goes into packs and manifest, in order; frames may still be under way.
enum PackInput {
    Folder(FolderEntry),
    Frame(oneshot::Receiver<Bytes>),
    Bundle(oneshot::Receiver<Bytes>, Vec<(FileMetadata, u32, Digest)>),
    FileEnd(FileMetadata, Digest),
}

impl Pipeline {
    /// Starts the stages for a backup.
    pub fn start(cluster: &Cluster, id: &BackupId, options: PackOptions) -> anyhow::Result<Self> {
        let packer = Packer::new(cluster.clone(), id.clone(), &options)?;
        let workers = options.workers.max(1);
        let pool = FramePool::default();
        let (cuts, cuts_out) = mpsc::channel(CUTS_QUEUE);
        let (jobs, jobs_out) = sync_channel(JOBS_PER_WORKER * workers);
        let (pieces, pieces_out) = mpsc::channel(PIECES_QUEUE + PIECES_PER_WORKER * workers);
        let jobs_out = Arc::new(Mutex::new(jobs_out));
        let compressors = (0..workers).map(|_| {
            let (jobs, pool) = (jobs_out.clone(), pool.clone());
            tokio::task::spawn_blocking(move || compress(&jobs, &pool, options.compression_level))
        });
        Ok(Self {
            cutter: Cutter::new(pool.clone()),
            cuts,
            compressors: compressors.collect(),
            digester: tokio::task::spawn_blocking(move || digest(cuts_out, &jobs, &pieces)),
            packer: tokio::spawn(pack(packer, pieces_out)),
        })
    }

    /// Begins an archive: a tablespace's, or the data directory's.
    pub fn begin_archive(&mut self, tablespace: Option<u32>) {
        self.cutter.begin_archive(tablespace);
    }

    /// Takes the next bytes of the archive. Errors: [`Closed`], or a stream that is none.
    pub async fn feed(&mut self, chunk: Bytes) -> anyhow::Result<()> {
        self.cutter.feed(chunk)?;
        self.pass_on().await
    }

    /// Checks that the archive is complete.
    pub fn end_archive(&mut self) -> anyhow::Result<()> {
        Ok(self.cutter.end_archive()?)
    }

    /// Adds a small file of the data directory that is not in the stream.
    pub async fn add_file(&mut self, facts: FileMetadata, content: &[u8]) -> anyhow::Result<()> {
        self.cutter.add_file(facts, content)?;
        self.pass_on().await
    }

    /// Waits until everything is stored. On an error nothing is under way any more.
    pub async fn finish(mut self) -> anyhow::Result<Packed> {
        self.cutter.finish();
        let passed = self.pass_on().await;
        let captured = self.end().await;
        let (packer, captured) = match (captured, passed) {
            (Ok((packer, captured)), Ok(())) => (packer, captured),
            (Ok((packer, _)), Err(error)) => {
                packer.abandon().await;
                return Err(error);
            }
            (Err(error), _) => return Err(error),
        };
        let (manifest, totals) = packer.finish().await?;
        Ok(Packed {
            manifest,
            totals,
            captured,
        })
    }

    /// Gives the backup up and waits until nothing is under way. The reason, when a stage had failed.
    pub async fn abandon(self) -> Option<anyhow::Error> {
        match self.end().await {
            Ok((packer, _)) => {
                packer.abandon().await;
                None
            }
            Err(error) => Some(error),
        }
    }

    async fn pass_on(&mut self) -> anyhow::Result<()> {
        while let Some(cut) = self.cutter.next_cut() {
            self.cuts.send(cut).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// Ends the stages in order; the first one's error that is not the consequence of another's.
    async fn end(self) -> anyhow::Result<(Packer, Captured)> {
        drop(self.cuts);
        let digested = self.digester.await.context("the digesting thread failed");
        let mut compressed = Ok(());
        for compressor in self.compressors {
            let result = compressor
                .await
                .context("a compressing thread failed")
                .and_then(|result| result);
            compressed = compressed.and(result);
        }
        let (packer, packed) = self.packer.await.context("the packing task failed")?;
        match compressed.and(packed).and(digested) {
            Ok(()) => Ok((packer, self.cutter.into_captured())),
            Err(error) => {
                packer.abandon().await;
                Err(error)
            }
        }
    }
}

/// Digests files, and hands frames to the compressors. Ends when either neighbour does.
fn digest(
    mut cuts: mpsc::Receiver<Cut>,
    jobs: &SyncSender<FrameJob>,
    pieces: &mpsc::Sender<PackInput>,
) {
    let mut hasher = Hasher::default();
    while let Some(cut) = cuts.blocking_recv() {
        let piece = match cut {
            Cut::Folder(folder) => PackInput::Folder(folder),
            Cut::FileEnd(facts) => PackInput::FileEnd(facts, std::mem::take(&mut hasher).finish()),
            Cut::Frame { plain, files } => {
                let files: Vec<_> = files
                    .into_iter()
                    .map(|(facts, skip)| {
                        let content = &plain[skip as usize..][..facts.size as usize];
                        (facts, skip, Digest::of(content))
                    })
                    .collect();
                if files.is_empty() {
                    hasher.update(&plain);
                }
                let (reply, compressed) = oneshot::channel();
                if jobs.send(FrameJob { plain, reply }).is_err() {
                    return;
                }
                if files.is_empty() {
                    PackInput::Frame(compressed)
                } else {
                    PackInput::Bundle(compressed, files)
                }
            }
        };
        if pieces.blocking_send(piece).is_err() {
            return;
        }
    }
}

/// Compresses frames until there are no more.
fn compress(jobs: &Mutex<Receiver<FrameJob>>, pool: &FramePool, level: i32) -> anyhow::Result<()> {
    let mut compressor = FrameCompressor::new(level)?;
    loop {
        // The lock is held while waiting: one worker waits for a job, the others for the lock.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(FrameJob { plain, reply }) = job else {
            return Ok(());
        };
        let frame = compressor
            .compress(&plain)
            .context("cannot compress a frame")?;
        pool.give_back(plain);
        // A packer that ended needs no frames.
        let _ = reply.send(frame);
    }
}

/// Packs until there are no more pieces. The packer comes back in any case: it knows what is under way.
async fn pack(
    mut packer: Packer,
    mut pieces: mpsc::Receiver<PackInput>,
) -> (Packer, anyhow::Result<()>) {
    while let Some(piece) = pieces.recv().await {
        if let Err(error) = pack_one(&mut packer, piece).await {
            return (packer, Err(error));
        }
    }
    (packer, Ok(()))
}

async fn pack_one(packer: &mut Packer, piece: PackInput) -> anyhow::Result<()> {
    let lost = |_| anyhow!("a compressing thread ended before its work was done");
    match piece {
        PackInput::Folder(folder) => packer.folder(folder),
        PackInput::Frame(frame) => packer.frame(frame.await.map_err(lost)?).await,
        PackInput::Bundle(frame, files) => packer.bundle(frame.await.map_err(lost)?, files).await,
        PackInput::FileEnd(facts, digest) => packer.file_end(facts, digest),
    }
}
