//! Which segments and timelines the repository has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::Utc;
use rusqlite::{Connection, Result, params};

use super::column::{int, uint};
use super::update::Scope;
use super::{Archived, Index, on_index};
use crate::error::one_line;
use crate::postgres::catalog::WAL_KIND;
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{LONGEST_SMALL_FILE, SegmentName, TimelineId, WalFileName};
use crate::repo::{ObjectError, reread};
use crate::storage::{ListEntry, Pages, list_all};

/// Folders in which segments are missing that are listed again, all of each.
const GAPS: usize = 64;
/// Further ones, those that were not for longest: what is gone is noticed, of a small archive at once.
const AGAIN: usize = 8;

/// A folder, as it was listed the last time.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    /// The last segment.
    listed: String,
    /// Segments are missing in it, maybe because the timeline begins there: then those may be on their way.
    gap: bool,
    /// Later ones may come.
    open: bool,
    /// When it was listed from its beginning.
    whole_at: i64,
}

/// All that a listing told, to be confirmed.
pub(super) struct Listing {
    /// Timelines that have a history file.
    pub histories: Vec<TimelineId>,
    /// How often all had been forgotten when it began.
    pub cleared: i64,
}

/// Notes what came; `None` if something is gone. Errors: the store did not answer.
pub(super) async fn list(index: &Arc<Index>, cluster: &Cluster, scope: Scope) -> anyhow::Result<Option<Listing>> {
    let cleared = on_index(index, |index| index.cleared()).await?;
    // Before the listing: others list, too, and what they note meanwhile may have come after it.
    let known = on_index(index, |index| index.folders()).await?;
    let entries = list_all(cluster.repository.storage(), &cluster.layout.wal_folder()).await?;
    let (mut folders, mut histories) = (Vec::new(), Vec::new());
    for entry in &entries {
        match entry {
            ListEntry::Folder(folder) => folders.push(folder.clone()),
            ListEntry::Object(meta) => {
                if let Some(WalFileName::History(timeline)) = cluster.wal_file(&meta.key) {
                    histories.push(timeline);
                }
            }
        }
    }
    read_histories(index, cluster, &histories).await?;
    if known.keys().any(|folder| !folders.contains(folder)) {
        return Ok(None);
    }
    let again = again(&known);
    for folder in folders {
        let after = match known.get(&folder) {
            Some(Folder { gap: false, open: false, .. }) if scope == Scope::New && !again.contains(&folder) => continue,
            Some(Folder { listed, .. }) if scope == Scope::New && !again.contains(&folder) => Some(listed.clone()),
            _ => None,
        };
        let is_known = known.contains_key(&folder);
        if !list_folder(index, cluster, folder, after, is_known).await? {
            return Ok(None);
        }
    }
    Ok(Some(Listing { histories, cleared }))
}

/// The folders that are listed again from their beginning.
fn again(known: &BTreeMap<String, Folder>) -> BTreeSet<String> {
    let gaps = known.iter().filter(|(_, folder)| folder.gap).take(GAPS);
    let mut oldest: Vec<_> = known.iter().collect();
    oldest.sort_by_key(|(_, folder)| folder.whole_at);
    gaps.chain(oldest.into_iter().take(AGAIN)).map(|(name, _)| name.clone()).collect()
}

/// Lists a folder of segments after an entry; false if a segment is gone. `is_known`: it had some.
async fn list_folder(
    index: &Arc<Index>,
    cluster: &Cluster,
    folder: String,
    after: Option<String>,
    is_known: bool,
) -> anyhow::Result<bool> {
    let (whole, mut found, mut listed) = (after.is_none(), Vec::new(), None);
    let mut pages = Pages::new(folder.clone(), after);
    while let Some(page) = pages.next(cluster.repository.storage()).await? {
        for entry in page {
            let ListEntry::Object(meta) = entry else { continue };
            if let Some(WalFileName::Segment(name)) = cluster.wal_file(&meta.key) {
                // Not a stranger's: its name may sort behind all segments that are to come.
                listed = Some(meta.key.to_string());
                found.push(Archived { name, bytes: meta.size, stored_at: meta.modified.into() });
            }
        }
    }
    if whole && is_known && found.is_empty() {
        return Ok(false);
    }
    let others = on_index(index, move |index| {
        index.list(&found)?;
        if let (Some(first), Some(listed)) = (found.first(), listed) {
            index.note_folder(&folder, &listed, first.name, whole)?;
        }
        if whole { index.others(&found) } else { Ok(Vec::new()) }
    });
    for name in others.await? {
        // It may have come while the folder was listed.
        let key = cluster.layout.wal(&WalFileName::Segment(name));
        if cluster.repository.storage().head(&key).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads history files that are new. One that cannot be read is passed over: planning tells of it.
async fn read_histories(index: &Arc<Index>, cluster: &Cluster, timelines: &[TimelineId]) -> anyhow::Result<()> {
    let known = on_index(index, |index| index.histories()).await?;
    for timeline in timelines.iter().filter(|timeline| !known.contains_key(timeline)).copied() {
        let key = cluster.layout.wal(&WalFileName::History(timeline));
        let read = || cluster.repository.read_small(&key, WAL_KIND, LONGEST_SMALL_FILE);
        match reread(ObjectError::is_damage, read).await {
            Ok(Some((_, content))) => {
                let content = String::from_utf8_lossy(&content).into_owned();
                on_index(index, move |index| index.add_history(timeline, &content)).await?;
            }
            Ok(None) => (),
            Err(error) if error.is_damage() => {
                tracing::info!("a history file is passed over: {}", one_line(&error.into()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether everything was listed since all was forgotten.
pub(super) fn is_whole(db: &Connection) -> Result<bool> {
    db.query_row("SELECT whole FROM listing", [], |row| row.get(0))
}

impl Index {
    /// How often all was forgotten.
    fn cleared(&self) -> anyhow::Result<i64> {
        Ok(self.connection().query_row("SELECT cleared FROM listing", [], |row| row.get(0))?)
    }

    /// Whether it knows of no segment.
    pub(super) fn is_empty(&self) -> anyhow::Result<bool> {
        Ok(!self.connection().prepare_cached("SELECT 1 FROM block")?.exists([])?)
    }

    /// Whether everything was listed since then.
    pub(super) fn is_whole(&self) -> anyhow::Result<bool> {
        Ok(is_whole(&self.connection())?)
    }

    /// Notes that everything was listed since then, unless it was forgotten meanwhile.
    pub(super) fn listed_since(&self, cleared: i64) -> anyhow::Result<()> {
        let sql = "UPDATE listing SET whole = 1 WHERE cleared = ?1 AND whole = 0";
        Ok(self.connection().execute(sql, [cleared]).map(drop)?)
    }

    /// The folders that were listed.
    fn folders(&self) -> anyhow::Result<BTreeMap<String, Folder>> {
        let db = self.connection();
        let mut select = db.prepare_cached("SELECT name, listed, gap, open, whole_at FROM folder")?;
        let folders = select.query_map([], |row| {
            let (listed, gap, open, whole_at) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, Folder { listed, gap, open, whole_at }))
        })?;
        Ok(folders.collect::<Result<_>>()?)
    }

    /// Notes up to where a folder was listed, with `inside`, one of its segments; `whole`: from its beginning.
    fn note_folder(&self, folder: &str, listed: &str, inside: SegmentName, whole: bool) -> anyhow::Result<()> {
        let per_log = self.size.per_log();
        let begin = inside.number(self.size) / per_log * per_log;
        let (timeline, end) = (inside.timeline.0, begin + per_log);
        self.change(|db| {
            let within = "SELECT count(*), min(number), max(number) FROM segment \
                          WHERE timeline = ?1 AND number >= ?2 AND number < ?3";
            let (count, first, last) =
                db.prepare_cached(within)?.query_row(params![timeline, int(begin), int(end)], |row| {
                    Ok((uint(row, 0)?, uint(row, 1)?, uint(row, 2)?))
                })?;
            let gap = count != last - first + 1 || first != begin;
            let sql = "INSERT INTO folder VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET \
                       listed = excluded.listed, gap = excluded.gap, open = excluded.open, \
                       whole_at = iif(?6, excluded.whole_at, whole_at)";
            let now = Utc::now().timestamp_micros();
            db.prepare_cached(sql)?.execute(params![folder, listed, gap, last + 1 != end, now, whole])?;
            Ok(())
        })
    }

    /// The segments that the index has in a folder beside these, which were listed.
    fn others(&self, found: &[Archived]) -> anyhow::Result<Vec<SegmentName>> {
        let Some(first) = found.first().map(|archived| archived.name) else { return Ok(Vec::new()) };
        let per_log = self.size.per_log();
        let begin = first.number(self.size) / per_log * per_log;
        let names: BTreeSet<SegmentName> = found.iter().map(|archived| archived.name).collect();
        let db = self.connection();
        let mut select =
            db.prepare_cached("SELECT number FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3")?;
        let bounds = params![first.timeline.0, int(begin), int(begin + per_log)];
        let known = select.query_map(bounds, |row| Ok(self.name(first.timeline, uint(row, 0)?)))?;
        let known = known.collect::<Result<Vec<SegmentName>>>()?;
        Ok(known.into_iter().filter(|name| !names.contains(name)).collect())
    }
}
