//! Compressed frames in, packs and manifest lines out, both in the order of the stream.

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::cutter::FileMetadata;
use super::manifest::{Extent, FileEntry, FolderEntry, ManifestEntry, Paths, write_entry};
use crate::codec::{Digest, SealedWriter};
use crate::error::{Hint, with_hint};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, PackName};
use crate::storage::{Body, PutMode, PutOutcome};

/// Packs being stored at once: with the one being filled they are the largest part of a backup's memory.
const PUTS_IN_FLIGHT: usize = 2;
/// zstd level of the manifest.
const MANIFEST_LEVEL: i32 = 3;

/// How to compress and pack.
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// zstd level.
    pub compression_level: i32,
    /// Compressing threads, at least 1.
    pub workers: usize,
    /// Bytes of a pack.
    pub pack_size: u64,
    /// Bytes of the manifest at most.
    pub longest_manifest: u64,
}

/// Sizes of what was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub file_count: u64,
    /// Bytes of all files.
    pub plain_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    pub pack_count: u32,
}

/// Fills packs and stores them while the next one fills.
pub struct Packer {
    cluster: Cluster,
    id: BackupId,
    /// Bytes that a pack does not exceed, unless one frame does.
    pack_size: u64,
    /// Bytes of the manifest at most.
    longest_manifest: u64,
    pieces: Vec<Bytes>,
    pack_len: u64,
    puts: JoinSet<anyhow::Result<()>>,
    /// Where the frames of the current large file lie.
    extents: Vec<Extent>,
    manifest: SealedWriter,
    totals: Totals,
    paths: Paths,
}

impl Packer {
    /// Begins the backup `id` with an empty first pack.
    pub fn new(cluster: Cluster, id: BackupId, options: &PackOptions) -> std::io::Result<Self> {
        Ok(Self {
            cluster,
            id,
            pack_size: options.pack_size,
            longest_manifest: options.longest_manifest,
            pieces: Vec::new(),
            pack_len: 0,
            puts: JoinSet::new(),
            extents: Vec::new(),
            manifest: SealedWriter::new(MANIFEST_LEVEL)?,
            totals: Totals::default(),
            paths: Paths::default(),
        })
    }

    /// Notes a folder.
    pub fn folder(&mut self, folder: FolderEntry) -> anyhow::Result<()> {
        self.note(&ManifestEntry::Folder(folder))
    }

    /// Adds the next frame of the current large file.
    pub async fn frame(&mut self, frame: Bytes) -> anyhow::Result<()> {
        let length = frame.len() as u32;
        let (pack, offset) = self.place(frame).await?;
        match self.extents.last_mut() {
            Some(last) if last.pack == pack => last.frames.push(length),
            _ => self.extents.push(Extent {
                pack,
                offset,
                frames: vec![length],
                skip: 0,
            }),
        }
        Ok(())
    }

    /// Notes the large file whose frames were added, or an empty one.
    pub fn file_end(&mut self, facts: FileMetadata, digest: Digest) -> anyhow::Result<()> {
        let extents = std::mem::take(&mut self.extents);
        self.file(facts, digest, extents)
    }

    /// Adds a frame that small files share.
    pub async fn bundle(
        &mut self,
        frame: Bytes,
        files: Vec<(FileMetadata, u32, Digest)>,
    ) -> anyhow::Result<()> {
        let frames = vec![frame.len() as u32];
        let (pack, offset) = self.place(frame).await?;
        for (facts, skip, digest) in files {
            let extent = Extent {
                pack: pack.clone(),
                offset,
                frames: frames.clone(),
                skip,
            };
            self.file(facts, digest, vec![extent])?;
        }
        Ok(())
    }

    /// Stores what is left and waits until all packs are durable.
    pub async fn finish(mut self) -> anyhow::Result<(SealedWriter, Totals)> {
        let mut stored = if self.pieces.is_empty() {
            Ok(())
        } else {
            self.store_pack().await
        };
        // All are waited for, also after an error: no pack may appear after the backup was given up.
        while let Some(put) = self.puts.join_next().await {
            stored = stored.and(
                put.context("a task that stores packs failed")
                    .and_then(|put| put),
            );
        }
        stored.map(|()| (self.manifest, self.totals))
    }

    /// Waits for puts under way, so that no pack appears after the backup was given up.
    pub async fn abandon(mut self) {
        while self.puts.join_next().await.is_some() {}
    }

    fn file(
        &mut self,
        facts: FileMetadata,
        digest: Digest,
        extents: Vec<Extent>,
    ) -> anyhow::Result<()> {
        let FileMetadata {
            path,
            tablespace,
            mode,
            mtime,
            size,
        } = facts;
        ensure!(
            self.paths.is_new(tablespace, &path),
            "the file \"{path}\" came twice: it could not be restored"
        );
        self.totals.file_count += 1;
        self.totals.plain_bytes += size;
        self.note(&ManifestEntry::File(FileEntry {
            path,
            tablespace,
            mode,
            mtime,
            size,
            digest,
            extents,
        }))
    }

    /// Adds a line to the manifest. Errors: it becomes too long to be read again, which is better known now than once all
    /// is stored.
    fn note(&mut self, entry: &ManifestEntry) -> anyhow::Result<()> {
        write_entry(&mut self.manifest, entry)?;
        let (longest, files) = (self.longest_manifest, self.totals.file_count);
        if self.manifest.size() <= longest {
            return Ok(());
        }
        let error = anyhow!(
            "after {files} files the manifest has more than {longest} bytes, the most that can be read"
        );
        Err(with_hint(
            error,
            "the cluster is too large, or has too many files, for one base backup",
        ))
    }

    /// Puts a frame into the pack; which, and where in it.
    async fn place(&mut self, frame: Bytes) -> anyhow::Result<(PackName, u64)> {
        let length = frame.len() as u64;
        if self.pack_len > 0 && self.pack_len + length > self.pack_size {
            self.store_pack().await?;
        }
        let pack = PackName {
            backup: self.id.clone(),
            number: self.totals.pack_count + 1,
        };
        let offset = self.pack_len;
        self.pieces.push(frame);
        self.pack_len += length;
        Ok((pack, offset))
    }

    async fn store_pack(&mut self) -> anyhow::Result<()> {
        while self.puts.len() >= PUTS_IN_FLIGHT {
            if let Some(put) = self.puts.join_next().await {
                put??;
            }
        }
        self.totals.pack_count += 1;
        self.totals.stored_bytes += self.pack_len;
        let pack = PackName {
            backup: self.id.clone(),
            number: self.totals.pack_count,
        };
        let body = Body(std::mem::take(&mut self.pieces));
        self.pack_len = 0;
        let cluster = self.cluster.clone();
        self.puts
            .spawn(async move { put_pack(&cluster, &pack, body).await });
        Ok(())
    }
}

/// Stores a pack. The same pack may be there already: a put whose answer was lost and that was repeated below.
async fn put_pack(cluster: &Cluster, pack: &PackName, body: Body) -> anyhow::Result<()> {
    let (storage, key) = (cluster.repository.storage(), cluster.layout.pack(pack));
    let hint = "check that the repository has free space and can be written to";
    match storage
        .put(&key, body.clone(), PutMode::CreateOnly)
        .await
        .hint(hint)?
    {
        PutOutcome::Stored => Ok(()),
        PutOutcome::AlreadyExists => {
            let found = storage.get(&key, 0..body.len() + 1).await?;
            let found = found.with_context(|| format!("object \"{key}\" vanished"))?;
            if found != body.to_bytes() {
                bail!(
                    "object \"{key}\" is there already, with other content: two backups use one name"
                );
            }
            Ok(())
        }
    }
}
