//! The records of runs: each is written once, by whoever first knows how the run ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};

use super::format::parse;
use super::keys::JobKeys;
use super::record::{RunId, RunRecord, RunState};
use crate::error::{one_line, with_hint};
use crate::storage::{FEW_LINES, ListEntry, Pages, PutMode, PutOutcome, Storage, get_all};

/// Records that are read at once.
const READERS: usize = 16;

/// The records of a cluster's jobs.
#[derive(Debug, Clone)]
pub struct History {
    pub storage: Arc<dyn Storage>,
    pub keys: JobKeys,
}

impl History {
    /// Keeps a record unless there is one of that run; what is kept.
    pub async fn keep(&self, record: RunRecord) -> anyhow::Result<RunRecord> {
        let key = self.keys.record(&record.job, &record.id);
        let body = serde_json::to_vec(&record)?.into();
        match self.storage.put(&key, body, PutMode::CreateOnly).await? {
            PutOutcome::Stored => Ok(record),
            PutOutcome::AlreadyExists => self
                .read(&record.job, &record.id)
                .await?
                .context("the record of a run went while it was read"),
        }
    }

    /// The record of a run; `None`: there is none, or none yet.
    pub async fn read(&self, job: &str, id: &RunId) -> anyhow::Result<Option<RunRecord>> {
        let key = self.keys.record(job, id);
        let bytes = get_all(&*self.storage, &key, FEW_LINES).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        parse(&key, &bytes, "a record of a run").map(Some)
    }

    /// The runs since a name, by their names, and their jobs.
    pub async fn runs(&self, since: Option<String>) -> anyhow::Result<BTreeMap<RunId, String>> {
        let folder = self.keys.history_folder();
        let after = since.map(|name| format!("{folder}{name}"));
        let (mut pages, mut runs) = (Pages::new(folder, after), BTreeMap::new());
        while let Some(page) = pages.next(&*self.storage).await? {
            runs.extend(page.iter().filter_map(|entry| match entry {
                ListEntry::Object(meta) => self.keys.parse_record(&meta.key),
                ListEntry::Folder(_) => None,
            }));
        }
        Ok(runs)
    }

    /// The record of a run whose job is not known. Errors: there is none.
    pub async fn find(&self, id: &RunId) -> anyhow::Result<RunRecord> {
        let before = RunId::from(id.time());
        let record = match self.runs(Some(before)).await?.get(id) {
            Some(job) => self.read(job, id).await?,
            None => None,
        };
        record.ok_or_else(|| {
            let error = anyhow!("there is no record of run {id}");
            with_hint(error, "`walden jobs list --runs` shows the runs")
        })
    }

    /// The last runs, the newest first. What goes or cannot be read meanwhile is left out.
    pub async fn newest(&self, most: usize) -> anyhow::Result<Vec<RunRecord>> {
        let mut records = Vec::new();
        for (id, job) in self.runs(None).await?.iter().rev().take(most) {
            match self.read(job, id).await {
                Ok(record) => records.extend(record),
                Err(error) => tracing::warn!("{}", one_line(&error)),
            }
        }
        Ok(records)
    }

    /// How the runs since a moment ended. `known` is what was read before. One that cannot be read is left out.
    pub async fn ends(
        &self,
        known: &mut BTreeMap<RunId, Option<RunState>>,
        since: DateTime<Utc>,
    ) -> anyhow::Result<()> {
        let since = RunId::from(since);
        let runs = self.runs(Some(since.to_string())).await?;
        known.retain(|id, _| runs.contains_key(id));
        let new = runs.iter().filter(|(id, _)| !known.contains_key(*id));
        let reads: Vec<_> = new
            .map(|(id, job)| async move {
                let record = self.read(job, id).await.ok().flatten();
                (id.clone(), record.map(|record| record.state))
            })
            .collect();
        let read: Vec<_> = stream::iter(reads).buffered(READERS).collect().await;
        known.extend(read);
        Ok(())
    }

    /// Removes what is older than `age` before a record, by the store's clock.
    pub async fn trim(&self, newest: &RunRecord, age: Duration) -> anyhow::Result<()> {
        let key = self.keys.record(&newest.job, &newest.id);
        let stored = self.storage.head(&key).await?;
        let Some(oldest) = stored.and_then(|meta| meta.modified.checked_sub(age)) else {
            return Ok(());
        };
        // The oldest come first: what is to go stands on the first page, or will the next time.
        let page = self.storage.list(&self.keys.history_folder(), None).await?;
        for entry in page {
            if let ListEntry::Object(meta) = entry
                && meta.modified < oldest
                && self.keys.parse_record(&meta.key).is_some()
            {
                self.storage.delete(&meta.key).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::RunState;
    use super::super::record::testing::record;
    use super::*;
    use crate::storage::MemoryStorage;

    fn history() -> History {
        History {
            storage: Arc::new(MemoryStorage::default()),
            keys: JobKeys::new("main/jobs/".into()),
        }
    }

    #[tokio::test]
    async fn the_first_who_knows_how_a_run_ended_is_right() {
        let history = history();
        let first = record(RunState::Interrupted, None, 1);
        assert_eq!(history.keep(first.clone()).await.unwrap(), first);
        let late = record(RunState::Succeeded, None, 1);
        assert_eq!(history.keep(late.clone()).await.unwrap(), first);
        assert_eq!(history.find(&late.id).await.unwrap(), first);
        assert_eq!(history.newest(5).await.unwrap(), [first]);
        let unknown = "20260131T020000Z-1a2b3c4d".parse().unwrap();
        assert!(history.find(&unknown).await.is_err());
    }

    #[tokio::test]
    async fn what_is_old_goes_and_foreign_objects_stay() {
        let history = history();
        let foreign = crate::storage::Key::new("main/jobs/history/notes.txt").unwrap();
        let put = history
            .storage
            .put(&foreign, "x".into(), PutMode::CreateOnly)
            .await;
        assert_eq!(put.unwrap(), PutOutcome::Stored);
        let old = history
            .keep(record(RunState::Failed, None, 1))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let new = history
            .keep(record(RunState::Succeeded, None, 2))
            .await
            .unwrap();
        history.trim(&new, Duration::from_secs(60)).await.unwrap();
        assert_eq!(history.runs(None).await.unwrap().len(), 2);
        history.trim(&new, Duration::from_millis(10)).await.unwrap();
        let runs = history.runs(None).await.unwrap();
        assert!(!runs.contains_key(&old.id) && runs.contains_key(&new.id));
        assert_eq!(
            history.runs(Some(new.id.to_string())).await.unwrap().len(),
            1
        );
        assert!(history.storage.head(&foreign).await.unwrap().is_some());
    }
}
