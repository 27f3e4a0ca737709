//! One dump into the other repository: its objects, compared with their digests on the way, then its manifest.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream;

use super::transfer::{AGAIN, Came, Copier, CopyGroup, CopySide};
use crate::error::{Hint, find};
use crate::postgres::dump::latest;
use crate::postgres::dump::list::ListedDump;
use crate::postgres::dump::manifest::{self, DumpManifest, StoredObject};
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back::{Nowhere, Pieces, key_of, read};
use crate::postgres::layout::{DumpId, DumpObject};
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::storage::{Key, PutMode, PutOutcome, StorageError, put_stream};

/// The source's object is not what its manifest says, or was not given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SourceFault(ObjectProblem);

impl Copier {
    /// Copies dumps that are complete at the source, and has the newest ones named as such: also where an earlier copy died before.
    pub async fn dumps(&self, dumps: &[ListedDump]) -> anyhow::Result<()> {
        let mut there = BTreeSet::new();
        for dump in dumps {
            self.progress.set_phase(format!("dump {}", dump.id));
            if self.dump(dump).await? {
                there.insert((dump.id.database(), dump.id.kind()));
            }
        }
        for (database, kind) in there {
            latest::update(&self.destination, database, kind, &[])
                .await
                .hint(AGAIN)?;
        }
        Ok(())
    }

    /// Copies a dump; whether it is there then. When it was proven by a restore, it was the source's.
    async fn dump(&self, dump: &ListedDump) -> anyhow::Result<bool> {
        let key = self.source.layout.dump(&dump.id, &DumpObject::Manifest);
        let repository = &self.source.repository;
        let read = repository
            .get_verified(&key, manifest::KIND, manifest::LONGEST)
            .await;
        let Some(sealed) = self.given(&key, read.map_err(ObjectProblem::from))? else {
            return Ok(false);
        };
        match self.has_manifest(&key, manifest::KIND, &sealed).await? {
            None => return Ok(false),
            Some(true) => {
                self.count(CopyGroup::Dumps, 0, Came::NotRead);
                return Ok(true);
            }
            Some(false) => (),
        }
        let manifest = match sealed.header().about.read::<DumpManifest>() {
            Ok(manifest) if manifest.id == dump.id => manifest,
            _ => {
                let why = "it is not the manifest of this dump".to_string();
                return self.failed(CopySide::Source, &key, ProblemKind::Damaged, why);
            }
        };
        let globals = manifest.globals.iter().map(|globals| &globals.object);
        for object in manifest.objects.iter().chain(globals) {
            if !self.object_of(&dump.id, object).await? {
                return Ok(false);
            }
        }
        for (object, meta) in &dump.objects {
            if let DumpObject::Sha256(_) | DumpObject::Md5(_) = object
                && !self.as_it_is(&meta.key).await?
            {
                return Ok(false);
            }
        }
        match self.put(&key, sealed.into_bytes()).await? {
            PutOutcome::Stored => self.tally(CopyGroup::Dumps, manifest.size(), Came::Copied),
            PutOutcome::AlreadyExists => self.tally(CopyGroup::Dumps, 0, Came::NotRead),
        }
        Ok(true)
    }

    /// Copies an object of a dump, unless it is there; whether it is at the destination as the manifest says.
    async fn object_of(&self, id: &DumpId, object: &StoredObject) -> anyhow::Result<bool> {
        let key = match key_of(&self.source, id, object) {
            Ok(key) => key,
            Err(error) => {
                let manifest = self.source.layout.dump(id, &DumpObject::Manifest);
                let (at, why) = (CopySide::Source, error.to_string());
                return self.failed(at, &manifest, ProblemKind::Damaged, why);
            }
        };
        let storage = self.destination.repository.storage();
        if storage.head(&key).await.hint(AGAIN)?.is_none() {
            let pieces = Pieces::of(&self.source, id, object)?;
            let content = stream::try_unfold(pieces, |pieces| self.piece(pieces));
            match put_stream(storage, &key, content, PutMode::CreateOnly).await {
                Ok(PutOutcome::Stored) => return Ok(true),
                Ok(PutOutcome::AlreadyExists) => (),
                Err(error) => {
                    let Some(SourceFault(ObjectProblem { problem, why })) = find(&error) else {
                        return Err(error).hint(AGAIN);
                    };
                    return self.failed(CopySide::Source, &key, *problem, why.clone());
                }
            }
        }
        // Of an earlier copy that was interrupted.
        let progress = DumpProgress::default();
        let fault = read(&self.destination, id, object, &progress, &mut Nowhere).await;
        match fault.hint(AGAIN)? {
            None => Ok(true),
            Some(why) => self.failed(CopySide::Destination, &key, ProblemKind::Conflict, why),
        }
    }

    /// The next piece. Errors: [`SourceFault`], before anything is stored.
    async fn piece<'a>(
        &self,
        mut pieces: Pieces<'a>,
    ) -> anyhow::Result<Option<(Bytes, Pieces<'a>)>> {
        let fault = |problem| anyhow::Error::from(SourceFault(problem));
        let unread = |error: StorageError| fault(ObjectProblem::unread(&error.into()));
        if let Some(piece) = pieces.next().await.map_err(unread)? {
            self.progress
                .done
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            return Ok(Some((piece, pieces)));
        }
        match pieces.fault().await.map_err(unread)? {
            None => Ok(None),
            Some(why) => Err(fault(ObjectProblem::damaged(why))),
        }
    }

    /// Copies a small object that nothing says the content of, unless there is one.
    async fn as_it_is(&self, key: &Key) -> anyhow::Result<bool> {
        let read = self.source.repository.storage().get(key, 0..u64::MAX).await;
        let read = read.map_err(|error| ObjectProblem::unread(&error.into()));
        let Some(content) = self.given(key, read)? else {
            return Ok(false);
        };
        self.put(key, content).await.map(|_| true)
    }
}
