use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Body, IsOwnKey, Key, LIST_PAGE, ListEntry, ObjectMeta, Part, PutMode, PutOutcome, Sent,
    Storage, StorageError, Upload,
};

/// Objects in memory: the reference that the conformance suite is checked against, for tests.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    objects: Mutex<BTreeMap<Key, (Bytes, SystemTime)>>,
    /// Its clock is ahead of the machine's by so much.
    ahead: Mutex<Duration>,
}

impl MemoryStorage {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, (Bytes, SystemTime)>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets its clock, by which objects are stored from now on.
    pub fn set_ahead(&self, ahead: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    fn describe(&self) -> String {
        "memory:".into()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        let mut objects = self.objects();
        if mode == PutMode::CreateOnly && objects.contains_key(key) {
            return Ok(PutOutcome::AlreadyExists);
        }
        objects.insert(key.clone(), (body.to_bytes(), self.now()));
        Ok(PutOutcome::Stored)
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        if mode == PutMode::CreateOnly && self.objects().contains_key(key) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryUpload {
            storage: self,
            key: key.clone(),
            mode,
            parts: Mutex::default(),
        })))
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        Ok(self.objects().get(key).map(|(bytes, _)| {
            let end = range.end.min(bytes.len() as u64) as usize;
            bytes.slice((range.start as usize).min(end)..end)
        }))
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        Ok(self
            .objects()
            .get(key)
            .map(|(bytes, modified)| meta(key, bytes, *modified)))
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        let mut page: Vec<ListEntry> = Vec::new();
        for (key, (bytes, modified)) in self.objects().iter() {
            let Some(rest) = key.as_str().strip_prefix(folder) else {
                continue;
            };
            let entry = match rest.split_once('/') {
                Some((child, _)) => ListEntry::Folder(format!("{folder}{child}/")),
                None => ListEntry::Object(meta(key, bytes, *modified)),
            };
            if after.is_none_or(|after| entry.name() > after)
                && page.last().map(ListEntry::name) != Some(entry.name())
            {
                page.push(entry);
            }
            if page.len() == LIST_PAGE {
                break;
            }
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.objects().remove(key);
        Ok(())
    }

    async fn sweep(&self, _age: Duration, _ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        Ok(0)
    }
}

#[derive(Debug)]
struct MemoryUpload<'a> {
    storage: &'a MemoryStorage,
    key: Key,
    mode: PutMode,
    parts: Mutex<BTreeMap<u32, Body>>,
}

impl MemoryUpload<'_> {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<u32, Body>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Upload for MemoryUpload<'_> {
    async fn send(&self, part: Part) -> Result<Sent, StorageError> {
        let sent = Sent::new(&part, None);
        self.parts().insert(part.number, part.body);
        Ok(sent)
    }

    async fn complete(&self, _parts: &[Sent]) -> Result<PutOutcome, StorageError> {
        let body = Body(
            self.parts()
                .values()
                .flat_map(|part| part.0.clone())
                .collect(),
        );
        self.storage.put(&self.key, body, self.mode).await
    }

    async fn abort(&self) -> Result<(), StorageError> {
        self.parts().clear();
        Ok(())
    }
}

fn meta(key: &Key, bytes: &Bytes, modified: SystemTime) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size: bytes.len() as u64,
        modified,
        class: None,
        encryption: None,
    }
}
