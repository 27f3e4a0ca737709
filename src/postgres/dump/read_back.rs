//! Reading a stored dump: every byte against its digest, and by `pg_restore --list`.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::task::JoinSet;

use super::digest::Digests;
use super::manifest::{DumpManifest, StoredObject};
use super::messages;
use super::programs::{Programs, Running};
use super::progress::DumpProgress;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpFormat, DumpId, DumpMember, DumpObject};
use crate::storage::{Key, Storage, StorageError};

/// Bytes fetched at a time.
const FETCH: u64 = 4 << 20;

/// An object of a dump that is not what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DumpFault {
    /// Beside the manifest.
    pub path: String,
    pub why: String,
}

/// What was stored just now is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsound(String);

/// Reads everything of a dump. `None` for the programs: what `pg_restore` says is left out. Errors: the store did not answer.
pub async fn check(
    cluster: &Cluster,
    manifest: &DumpManifest,
    programs: Option<&Programs>,
    progress: &DumpProgress,
) -> anyhow::Result<Vec<DumpFault>> {
    let mut faults = Vec::new();
    let globals = manifest.globals.iter().map(|globals| &globals.object);
    for object in manifest.objects.iter().chain(globals) {
        let listed = match manifest.format {
            DumpFormat::Custom if object.path.ends_with(DumpFormat::Custom.extension()) => programs,
            _ => None,
        };
        if let Some(why) = check_object(cluster, &manifest.id, object, listed, progress).await? {
            faults.push(DumpFault {
                path: object.path.clone(),
                why,
            });
        }
    }
    if let Some(programs) = programs.filter(|programs| {
        manifest.format == DumpFormat::Directory && faults.is_empty() && !programs.are_elsewhere()
    }) {
        faults.extend(check_contents(cluster, &manifest.id, programs).await?);
    }
    Ok(faults)
}

/// The key of an object that a manifest names.
pub fn key_of(cluster: &Cluster, id: &DumpId, object: &StoredObject) -> anyhow::Result<Key> {
    let found = object.object(id).with_context(|| {
        format!(
            "the manifest of {id} names \"{}\", which is none of its objects",
            object.path
        )
    })?;
    Ok(cluster.layout.dump(id, &found))
}

/// An object's bytes as they come, and what they ought to be.
#[derive(Debug)]
pub struct Pieces<'a> {
    storage: &'a dyn Storage,
    key: Key,
    object: &'a StoredObject,
    digests: Digests,
    at: u64,
}

impl<'a> Pieces<'a> {
    /// Nothing read yet. Errors: the manifest names no object of its dump.
    pub fn of(cluster: &'a Cluster, id: &DumpId, object: &'a StoredObject) -> anyhow::Result<Self> {
        Ok(Self {
            storage: cluster.repository.storage(),
            key: key_of(cluster, id, object)?,
            object,
            digests: Digests::new(object.md5.is_some()),
            at: 0,
        })
    }

    /// The next ones; `None`: no more are there.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let until = self.object.size.min(self.at + FETCH);
        if self.at == until {
            return Ok(None);
        }
        let piece = self.storage.get(&self.key, self.at..until).await?;
        let piece = piece.filter(|piece| !piece.is_empty());
        if let Some(piece) = &piece {
            self.at += piece.len() as u64;
            self.digests.update(piece);
        }
        Ok(piece)
    }

    /// What is wrong with them, once all came.
    pub async fn fault(self) -> Result<Option<String>, StorageError> {
        let object = self.object;
        let size = match self.storage.head(&self.key).await? {
            Some(meta) => meta.size,
            None => return Ok(Some("it is absent".into())),
        };
        if size != object.size {
            return Ok(Some(format!(
                "it has {size} bytes, the manifest says {}",
                object.size
            )));
        }
        let (_, sha256, md5) = self.digests.finish();
        let same = sha256 == object.sha256 && (object.md5.is_none() || md5 == object.md5);
        Ok((!same).then(|| {
            format!(
                "its SHA-256 is {sha256}, the manifest says {}",
                object.sha256
            )
        }))
    }
}

/// Gives an object's bytes to `sink`, piece by piece, and says what is wrong with them once all came: `None` for what is as it should be.
pub async fn read(
    cluster: &Cluster,
    id: &DumpId,
    object: &StoredObject,
    progress: &DumpProgress,
    sink: &mut impl Sink,
) -> anyhow::Result<Option<String>> {
    let mut pieces = Pieces::of(cluster, id, object)?;
    while let Some(piece) = pieces.next().await? {
        progress.add_bytes(piece.len());
        sink.take_in(piece).await?;
    }
    Ok(pieces.fault().await?)
}

/// Takes an object's bytes as they come.
pub trait Sink: Send {
    fn take_in(&mut self, piece: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Nobody wants them.
#[derive(Debug)]
pub struct Nowhere;

impl Sink for Nowhere {
    async fn take_in(&mut self, _: Bytes) -> anyhow::Result<()> {
        Ok(())
    }
}

async fn check_object(
    cluster: &Cluster,
    id: &DumpId,
    object: &StoredObject,
    programs: Option<&Programs>,
    progress: &DumpProgress,
) -> anyhow::Result<Option<String>> {
    let Some(programs) = programs else {
        return read(cluster, id, object, progress, &mut Nowhere).await;
    };
    let mut listing = Listing::start(programs, None)?;
    let fault = read(cluster, id, object, progress, &mut listing).await?;
    let listed = listing.end().await?;
    Ok(fault.or(listed))
}

/// The table of contents of a dump in directory format is enough for `pg_restore --list`.
async fn check_contents(
    cluster: &Cluster,
    id: &DumpId,
    programs: &Programs,
) -> anyhow::Result<Option<DumpFault>> {
    let member = DumpObject::Member(DumpMember::TOC.parse()?);
    let key = cluster.layout.dump(id, &member);
    let absent = || DumpFault {
        path: member.path(id.name()),
        why: "it is absent".into(),
    };
    let Some(toc) = cluster.repository.storage().get(&key, 0..u64::MAX).await? else {
        return Ok(Some(absent()));
    };
    let folder = super::spool::Spool::make(None)?;
    tokio::fs::write(folder.path().join(DumpMember::TOC), toc).await?;
    let why = Listing::start(programs, Some(folder.path()))?.end().await?;
    Ok(why.map(|why| DumpFault { why, ..absent() }))
}

/// `pg_restore --list`, which reads the beginning of an archive.
struct Listing {
    running: Running,
    /// Gone once it has read enough.
    input: Option<ChildStdin>,
    messages: JoinSet<Vec<String>>,
    name: String,
}

impl Listing {
    fn start(programs: &Programs, folder: Option<&std::path::Path>) -> anyhow::Result<Self> {
        let mut command = programs.command("pg_restore");
        command
            .arg("--list")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match folder {
            Some(folder) => command.arg(folder).stdin(Stdio::null()),
            None => command.stdin(Stdio::piped()),
        };
        let name = programs.name("pg_restore");
        let mut running = Running::start(command).with_context(|| format!("cannot run {name}"))?;
        let mut messages = JoinSet::new();
        if let Some(stderr) = running.child.stderr.take() {
            messages.spawn(messages::read(stderr, Arc::default()));
        }
        let input = running.child.stdin.take();
        Ok(Self {
            running,
            input,
            messages,
            name,
        })
    }

    /// Waits for its end, and says why it failed.
    async fn end(mut self) -> anyhow::Result<Option<String>> {
        self.input = None;
        let status = self.running.wait().await?;
        let lines = self
            .messages
            .join_next()
            .await
            .transpose()?
            .unwrap_or_default();
        Ok((!status.success()).then(|| {
            format!(
                "{} --list does not read it ({status}): {}",
                self.name,
                lines.join(": ")
            )
        }))
    }
}

impl Sink for Listing {
    async fn take_in(&mut self, piece: Bytes) -> anyhow::Result<()> {
        if let Some(input) = &mut self.input
            && input.write_all(&piece).await.is_err()
        {
            self.input = None;
        }
        Ok(())
    }
}

/// The faults as one error.
pub fn error(id: &DumpId, faults: &[DumpFault]) -> Option<anyhow::Error> {
    let all: Vec<String> = faults
        .iter()
        .map(|fault| format!("\"{}\": {}", fault.path, fault.why))
        .collect();
    (!all.is_empty())
        .then(|| Unsound(format!("dump {id} does not read back: {}", all.join("; "))).into())
}
