//! Logical dumps: whether all their objects have the digests that their manifests say.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::Verification;
use crate::postgres::dump::list::{ListedDump, list};
use crate::postgres::dump::manifest::{self, DumpManifest, StoredObject};
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back::{Nowhere, read};
use crate::postgres::layout::{DumpId, DumpObject};
use crate::postgres::object_problem::ObjectProblem;
use crate::storage::Key;

impl Verification {
    /// Reads all complete dumps, or a sample of their objects.
    pub(super) async fn dumps(&self) -> anyhow::Result<()> {
        for dump in list(&self.cluster, None).await?.complete {
            let key = self.cluster.layout.dump(&dump.id, &DumpObject::Manifest);
            if self.is_done(&key) {
                continue;
            }
            let unread = self.state().unread;
            self.state().mark.begin(key.clone());
            if let Err(error) = self.dump(&dump).await {
                self.note_error(&key, error)?;
            }
            self.over(&key, unread);
            self.state().found.dumps += 1;
        }
        Ok(())
    }

    async fn dump(&self, dump: &ListedDump) -> anyhow::Result<()> {
        let layout = &self.cluster.layout;
        let key = layout.dump(&dump.id, &DumpObject::Manifest);
        let Some(manifest) = self.manifest_of(dump, &key).await? else {
            return Ok(());
        };
        let sizes = dump
            .objects
            .iter()
            .map(|(object, meta)| (object, meta.size));
        let sizes: BTreeMap<&DumpObject, u64> = sizes.collect();
        let globals = manifest.globals.iter().map(|globals| &globals.object);
        for stored in manifest.objects.iter().chain(globals) {
            match stored.object(&dump.id) {
                Some(object) => {
                    self.object_of(&dump.id, stored, (&object, sizes.get(&object).copied()))
                        .await?
                }
                None => {
                    let why = format!("it names \"{}\", which is none of its objects", stored.path);
                    self.note(key.as_str(), ObjectProblem::damaged(why))?;
                }
            }
        }
        Ok(())
    }

    /// A manifest that was read whole; `None` after noting what is wrong with it, or when it was deleted meanwhile.
    async fn manifest_of(
        &self,
        dump: &ListedDump,
        key: &Key,
    ) -> anyhow::Result<Option<DumpManifest>> {
        let repository = &self.cluster.repository;
        let whole = repository
            .get_verified(key, manifest::KIND, manifest::LONGEST)
            .await;
        let why = match whole {
            Ok(None) => return Ok(None),
            Err(error) => error.into(),
            Ok(Some(sealed)) => match sealed.header().about.read::<DumpManifest>() {
                Ok(manifest) if manifest.id == dump.id => return Ok(Some(manifest)),
                _ => ObjectProblem::damaged("it is not the manifest of this dump"),
            },
        };
        self.note(key.as_str(), why).map(|()| None)
    }

    async fn object_of(
        &self,
        id: &DumpId,
        stored: &StoredObject,
        (object, size): (&DumpObject, Option<u64>),
    ) -> anyhow::Result<()> {
        let key = self.cluster.layout.dump(id, object);
        let why = match size {
            None => ObjectProblem::missing("the dump needs it, and there is no such object"),
            Some(size) if size != stored.size => ObjectProblem::damaged(format!(
                "it has {size} bytes, the manifest says {}",
                stored.size
            )),
            Some(_) if !self.wants_dump(object, &key) => return Ok(()),
            Some(size) => {
                let progress = DumpProgress::default();
                let read = read(&self.cluster, id, stored, &progress, &mut Nowhere).await;
                let fault = match read {
                    Err(error) => return self.note_error(&key, error),
                    Ok(fault) => fault,
                };
                self.dump_was_read(object, size);
                match fault {
                    None => return Ok(()),
                    Some(why) => ObjectProblem::damaged(why),
                }
            }
        };
        self.note(key.as_str(), why)
    }

    /// Whether an object of a dump is read. All but the content is small.
    fn wants_dump(&self, object: &DumpObject, key: &Key) -> bool {
        !object.is_content() || self.sample().is_none_or(|sample| sample.holds(key))
    }

    fn dump_was_read(&self, object: &DumpObject, size: u64) {
        self.progress.done.fetch_add(size, Ordering::Relaxed);
        let mut state = self.state();
        state.found.plain_bytes += size;
        state.found.sampled += u64::from(self.sample().is_some() && object.is_content());
    }
}
