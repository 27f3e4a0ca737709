//! A dump as files on disk, as `pg_restore`, `psql` and `sha256sum` take them. What is there under its name is right.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::manifest::{DumpManifest, StoredObject};
use super::progress::DumpProgress;
use super::read_back::{Sink, read};
use crate::error::{Hint, with_hint};
use crate::fsync;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::DumpObject;
use crate::storage::{FEW_LINES, get_all};

/// Longest file of checksums: a line a table.
const LONGEST_SUMS: u64 = 1024 * FEW_LINES;

/// Writes the dump, its globals and its checksums into a folder, and gives what was written. Nothing is replaced. Errors: also
/// that an object is damaged.
pub async fn to_folder(
    cluster: &Cluster,
    manifest: &DumpManifest,
    folder: &Path,
    progress: &DumpProgress,
) -> anyhow::Result<Vec<PathBuf>> {
    let globals = manifest.globals.iter().map(|globals| &globals.object);
    let mut written = Vec::new();
    for object in manifest.objects.iter().chain(globals) {
        let path = folder.join(&object.path);
        let mut file = NewFile::create(&path).await?;
        let fault = read(
            cluster,
            &manifest.id,
            object,
            progress,
            &mut Writing(&mut file.file),
        )
        .await?;
        refuse(manifest, object, fault)?;
        file.finish(&path).await?;
        written.push(path);
    }
    for sums in [
        DumpObject::Sha256(manifest.format),
        DumpObject::Md5(manifest.format),
    ] {
        let key = cluster.layout.dump(&manifest.id, &sums);
        if let Some(content) = get_all(cluster.repository.storage(), &key, LONGEST_SUMS).await? {
            let path = folder.join(sums.path(manifest.id.name()));
            let mut file = NewFile::create(&path).await?;
            file.file.write_all(&content).await?;
            file.finish(&path).await?;
            written.push(path);
        }
    }
    Ok(written)
}

/// Writes the content of a dump in one object. Errors: also that it is damaged, which shows at its end.
pub async fn to_writer(
    cluster: &Cluster,
    manifest: &DumpManifest,
    sink: &mut (impl AsyncWrite + Unpin + Send),
    progress: &DumpProgress,
) -> anyhow::Result<()> {
    let [object] = &manifest.objects[..] else {
        return Err(anyhow!("dump {} is a folder of files", manifest.id))
            .hint("export it into a folder");
    };
    let fault = read(cluster, &manifest.id, object, progress, &mut Writing(sink)).await?;
    sink.flush().await?;
    refuse(manifest, object, fault)
}

fn refuse(
    manifest: &DumpManifest,
    object: &StoredObject,
    fault: Option<String>,
) -> anyhow::Result<()> {
    fault.map_or(Ok(()), |why| {
        let error = anyhow!(
            "\"{}\" of dump {} is damaged: {why}",
            object.path,
            manifest.id
        );
        Err(with_hint(
            error,
            "take another dump, or copy this one from another copy of the repository",
        ))
    })
}

struct Writing<'a, W>(&'a mut W);

impl<W: AsyncWrite + Unpin + Send> Sink for Writing<'_, W> {
    async fn take_in(&mut self, piece: Bytes) -> anyhow::Result<()> {
        Ok(self.0.write_all(&piece).await?)
    }
}

/// A file that gets its name once it is whole.
struct NewFile {
    file: File,
    temporary: PathBuf,
}

impl NewFile {
    async fn create(path: &Path) -> anyhow::Result<Self> {
        if fs::try_exists(path).await? {
            return Err(anyhow!("file \"{}\" is there already", path.display()))
                .hint("name another folder");
        }
        let parent = path.parent().context("a file needs a folder")?;
        fs::create_dir_all(parent)
            .await
            .with_context(|| format!("cannot make the folder \"{}\"", parent.display()))?;
        let temporary = parent.join(format!(".walden-tmp-{:016x}", getrandom::u64()?));
        let mut options = OpenOptions::new();
        let opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .await;
        let file = opened.with_context(|| format!("cannot write to \"{}\"", parent.display()))?;
        Ok(Self { file, temporary })
    }

    async fn finish(mut self, path: &Path) -> anyhow::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        fsync::rename_new(&self.temporary, path)
            .with_context(|| format!("cannot make \"{}\"", path.display()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone where it got its name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
