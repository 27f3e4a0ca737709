//! A dump in directory format: `pg_dump` writes files, each becomes an object, the table of contents last.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::archive;
use super::contained::Contained;
use super::digest::Digests;
use super::manifest::StoredObject;
use super::messages::{self, ProgramFailed};
use super::programs::Running;
use super::progress::DumpProgress;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpMember, DumpObject};
use crate::storage::{PutMode, PutOutcome, put_stream};

/// Files stored at once.
const AT_ONCE: usize = 4;
/// Bytes read at a time.
const PIECE: usize = 256 << 10;

/// Runs `pg_dump`, which writes into a folder. Errors: also [`ProgramFailed`].
pub async fn write(
    program: String,
    mut command: Command,
    progress: &Arc<DumpProgress>,
) -> anyhow::Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running::start(command).with_context(|| format!("cannot run {program}"))?;
    let mut messages = JoinSet::new();
    if let Some(stderr) = running.child.stderr.take() {
        messages.spawn(messages::read(stderr, progress.clone()));
    }
    let status = running.wait().await?;
    let lines = messages.join_next().await.transpose()?.unwrap_or_default();
    match status.success() {
        true => Ok(()),
        false => Err(ProgramFailed {
            program,
            status,
            lines,
        }
        .into()),
    }
}

/// Stores the files of a folder, and says what is in them.
pub async fn store(
    cluster: &Cluster,
    id: &DumpId,
    folder: &Path,
    md5: bool,
    progress: &Arc<DumpProgress>,
) -> anyhow::Result<(Vec<StoredObject>, Option<Contained>)> {
    let toc = folder.join(DumpMember::TOC);
    let examine = move || archive::check(std::io::BufReader::new(std::fs::File::open(toc)?));
    let contained = match tokio::task::spawn_blocking(examine).await? {
        Ok(contained) => Some(contained),
        Err(archive::NotWhole::Unknown(..)) => None,
        Err(error) => {
            return Err(error).context("pg_dump succeeded, but its table of contents is not whole");
        }
    };
    let mut members = Vec::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| anyhow!("pg_dump made a file {name:?}"))?;
        members.push(name.parse::<DumpMember>()?);
    }
    members.sort();
    let (last, others): (Vec<_>, Vec<_>) = members
        .into_iter()
        .partition(|member| member.to_string() == DumpMember::TOC);
    let one = |member: DumpMember| store_file(cluster, id, folder, member, md5, progress);
    let reads: Vec<_> = others.into_iter().map(one).collect();
    let mut objects: Vec<StoredObject> =
        stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
    for member in last {
        objects.push(one(member).await?);
    }
    Ok((objects, contained))
}

async fn store_file(
    cluster: &Cluster,
    id: &DumpId,
    folder: &Path,
    member: DumpMember,
    md5: bool,
    progress: &Arc<DumpProgress>,
) -> anyhow::Result<StoredObject> {
    let path = folder.join(member.to_string());
    let object = DumpObject::Member(member);
    let mut file = File::open(&path)
        .await
        .with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let mut digests = Digests::new(md5);
    let content = stream::try_unfold((&mut file, &mut digests), |(file, digests)| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        if file.read_buf(&mut piece).await? == 0 {
            return Ok::<_, anyhow::Error>(None);
        }
        digests.update(&piece);
        progress.add_bytes(piece.len());
        Ok(Some((Bytes::from(piece), (file, digests))))
    });
    let key = cluster.layout.dump(id, &object);
    let outcome = put_stream(
        cluster.repository.storage(),
        &key,
        content,
        PutMode::CreateOnly,
    )
    .await?;
    anyhow::ensure!(
        outcome == PutOutcome::Stored,
        "object \"{key}\" is there already"
    );
    let (size, sha256, md5) = digests.finish();
    Ok(StoredObject {
        path: object.path(id.name()),
        size,
        sha256,
        md5,
    })
}
