//! Reading WAL: every object in the WAL folder is checked, and what is missing between segments is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{TaskPool, Verification, VerifyScope};
use crate::postgres::archive::verify::check;
use crate::postgres::catalog::{Gap, TimelinePath};
use crate::postgres::load::{LoadedWal, list_wal, load_histories, load_wal};
use crate::postgres::object_problem::ProblemKind;
use crate::postgres::protection::load_expired;
use crate::postgres::types::{TimelineId, WalFileName};
use crate::storage::Key;

impl Verification {
    /// Reads the archive. An object that cannot be read is noted: the others are still checked. Errors: the store does
    /// not list.
    pub(super) async fn wal(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut pool = TaskPool::new(self.options.workers);
        let mut listing = list_wal(&self.cluster);
        let mut loaded = LoadedWal::new(self.cluster.description.segment_size);
        while let Some((name, meta)) = listing.next().await? {
            loaded.add(name, &meta);
            let Some(name) = name.filter(|name| self.wants_wal(&meta.key, *name)) else {
                continue;
            };
            self.state().mark.begin(meta.key.clone());
            let own = self.clone();
            pool.add(async move { own.wal_file(&meta.key, name).await })
                .await?;
        }
        pool.finish().await?;
        loaded.ranges = loaded
            .ranges
            .with_expired(load_expired(&self.cluster).await?);
        self.conclude(loaded).await
    }

    async fn wal_file(&self, key: &Key, name: WalFileName) -> anyhow::Result<bool> {
        let checked = check(&self.cluster, name).await;
        let problem = checked.as_ref().err().map(|why| why.problem);
        let was_read = !matches!(
            problem,
            Some(ProblemKind::Unread | ProblemKind::Cold | ProblemKind::Missing)
        );
        let is_segment = matches!(name, WalFileName::Segment(_));
        let bytes = *checked.as_ref().unwrap_or(&0);
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
        {
            let found = &mut self.state().found;
            (found.wal_files, found.plain_bytes) = (found.wal_files + 1, found.plain_bytes + bytes);
            found.sampled += u64::from(self.sample().is_some() && is_segment && was_read);
        }
        if let Err(why) = checked {
            self.note(key.as_str(), why)?;
        }
        match problem {
            Some(ProblemKind::Unread) => self.state().mark.fail(key),
            _ => self.state().mark.end(key),
        }
        Ok(problem.is_none())
    }

    /// What is missing between the objects that there are.
    pub(super) async fn conclude(&self, loaded: LoadedWal) -> anyhow::Result<()> {
        let mut gaps = self.gaps_of(&loaded).await?;
        if !gaps.is_empty() {
            // Segments are stored several at a time: some that were on their way then are there now.
            let now = self.gaps_of(&load_wal(&self.cluster).await?).await?;
            gaps = now
                .into_iter()
                .filter(|gap| gaps.iter().any(|old| gap.overlaps(old)))
                .collect();
        }
        let mut missing: Vec<TimelineId> =
            loaded.ranges.iter().map(|range| range.timeline()).collect();
        missing.dedup();
        missing.retain(|timeline| timeline.0 > 1 && !loaded.histories.contains(timeline));
        let found = &mut self.state().found;
        found.segments = loaded.ranges.iter().map(|range| range.segments).sum();
        (found.gaps, found.missing_histories) = (gaps, missing);
        if matches!(self.options.scope, VerifyScope::Wal { .. }) {
            found.foreign = loaded.foreign;
            found.findings.list.sort();
        }
        Ok(())
    }

    /// What is missing within timelines and where one follows another. A history that is told as damaged tells nothing.
    async fn gaps_of(&self, loaded: &LoadedWal) -> anyhow::Result<Vec<Gap>> {
        let damaged: BTreeSet<String> = self
            .state()
            .found
            .findings
            .list
            .iter()
            .map(|finding| finding.object.clone())
            .collect();
        let key = |timeline: TimelineId| self.cluster.layout.wal(&WalFileName::History(timeline));
        let whole = loaded
            .histories
            .iter()
            .copied()
            .filter(|timeline| !damaged.contains(key(*timeline).as_str()));
        let histories = load_histories(&self.cluster, &whole.collect::<Vec<_>>()).await?;
        let paths = TimelinePath::all(histories.known.into_values(), &[], &loaded.ranges);
        Ok(TimelinePath::all_gaps(&paths, &loaded.ranges))
    }
}
