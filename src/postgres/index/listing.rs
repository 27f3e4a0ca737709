//! Which segments and timelines the repository has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use rusqlite::{Connection, Result, params};

use super::column::{SegmentKey, int, uint};
use super::{Archived, Index, derive, on_index};
use crate::error::one_line;
use crate::postgres::catalog::WAL_KIND;
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{LONGEST_SMALL_FILE, SegmentName, TimelineId, WalFileName};
use crate::repo::ObjectError;
use crate::storage::{FolderStamp, Key, ListEntry, Pages};

/// Folders in which segments are missing that are listed again, all of each.
const GAPS: usize = 64;
/// Further ones, those that were not for longest: what is gone is noticed, of a small archive at once.
const AGAIN: usize = 8;
/// Timelines of which new folders are expected, besides newer ones.
const NEWEST_TIMELINES: usize = 3;

/// How much of the repository is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListScope {
    /// What came since the last time, also where something was missing.
    New,
    /// Every folder, whatever was listed before.
    All,
}

/// A folder, as it was listed the last time.
#[derive(Debug, Clone)]
pub(super) struct ListedFolder {
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
    /// All that lies beside the folders was looked at.
    pub whole: bool,
    /// Segments that were listed once and are not there any more.
    pub gone: Vec<Gone>,
    /// How often all had been forgotten when it began.
    pub cleared: i64,
}

/// What is gone from one folder.
pub(super) struct Gone {
    pub folder: String,
    pub segments: Vec<SegmentName>,
}

/// Notes what came. Errors: the store did not answer.
pub(super) async fn list(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
) -> anyhow::Result<Listing> {
    let cleared = on_index(index, |index| index.cleared()).await?;
    // Before the listing: others list, too, and what they note meanwhile may have come after it.
    let known = on_index(index, |index| index.folders()).await?;
    let (names, whole) = poll(index, cluster, scope).await?;
    let histories = histories(cluster, &names);
    read_histories(index, cluster, &histories).await?;
    let there: BTreeSet<&String> = names.iter().filter(|name| name.ends_with('/')).collect();
    let (again, mut gone) = (again(&known), Vec::new());
    // One that is not there, as far as that was looked at, is listed to make sure.
    let folders: BTreeSet<&String> = there.iter().copied().chain(known.keys()).collect();
    for folder in folders {
        let is_again = scope == ListScope::All || again.contains(folder) || !there.contains(folder);
        let after = match known.get(folder).filter(|_| !is_again) {
            Some(ListedFolder {
                gap: false,
                open: false,
                ..
            }) => continue,
            Some(ListedFolder { listed, .. }) => Some(listed.clone()),
            None => None,
        };
        let is_known = known.contains_key(folder);
        let stamp = cluster.repository.storage().stamp(folder).await?;
        if scope == ListScope::New
            && is_known
            && there.contains(folder)
            && index.rests(folder, stamp)
        {
            let folder = folder.clone();
            on_index(index, move |index| index.touch(&folder)).await?;
            continue;
        }
        let segments = list_folder(index, cluster, folder, after, is_known).await?;
        if segments.is_empty() {
            index.note_stamp(folder, stamp);
        } else {
            gone.push(Gone {
                folder: folder.clone(),
                segments,
            });
        }
    }
    Ok(Listing {
        histories,
        whole,
        gone,
        cleared,
    })
}

/// The folders of WAL and the history files, and whether all that lies beside them was looked at, too: new folders are
/// expected behind the last ones of the newest timelines.
async fn poll(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
) -> anyhow::Result<(BTreeSet<String>, bool)> {
    let mut top = index.top.lock().await;
    let behind = newest_folders(cluster, top.names());
    let whole = top
        .poll(
            cluster.repository.storage(),
            &behind,
            scope == ListScope::All,
        )
        .await?;
    // Of backups there are as many history files.
    let wanted = top
        .names()
        .iter()
        .filter(|name| name.ends_with('/') || name.contains(".history"));
    Ok((wanted.cloned().collect(), whole))
}

/// The last folder of each of the newest timelines.
fn newest_folders(cluster: &Cluster, names: &BTreeSet<String>) -> Vec<String> {
    let mut last: Vec<(TimelineId, String)> = Vec::new();
    for name in names.iter().rev() {
        let Some((timeline, _)) = cluster.layout.parse_wal_group(name) else {
            continue;
        };
        if last.last().is_none_or(|(found, _)| *found != timeline) {
            last.push((timeline, name.clone()));
        }
        if last.len() > NEWEST_TIMELINES {
            last.pop();
            break;
        }
    }
    last.into_iter().rev().map(|(_, folder)| folder).collect()
}

fn histories(cluster: &Cluster, names: &BTreeSet<String>) -> Vec<TimelineId> {
    let history = |name: &String| match cluster.wal_file(&Key::new(name.as_str()).ok()?)? {
        WalFileName::History(timeline) => Some(timeline),
        _ => None,
    };
    names
        .iter()
        .filter(|name| name.contains(".history"))
        .filter_map(history)
        .collect()
}

/// The folders that are listed again from their beginning.
fn again(known: &BTreeMap<String, ListedFolder>) -> BTreeSet<String> {
    let gaps = known.iter().filter(|(_, folder)| folder.gap).take(GAPS);
    let mut oldest: Vec<_> = known.iter().collect();
    oldest.sort_by_key(|(_, folder)| folder.whole_at);
    gaps.chain(oldest.into_iter().take(AGAIN))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Lists a folder of segments after an entry; those that are gone from it. `is_known`: it had some.
async fn list_folder(
    index: &Arc<Index>,
    cluster: &Cluster,
    folder: &str,
    after: Option<String>,
    is_known: bool,
) -> anyhow::Result<Vec<SegmentName>> {
    let Some((timeline, log)) = cluster.layout.parse_wal_group(folder) else {
        return Ok(Vec::new());
    };
    let whole = after.is_none();
    let found = segments_in(cluster, folder.to_string(), after).await?;
    // Not a foreign object: its name may sort behind all segments that are to come.
    let last = found.last().map(|last| {
        cluster
            .layout
            .wal(&WalFileName::Segment(last.name))
            .to_string()
    });
    let name = folder.to_string();
    let others = on_index(index, move |index| {
        let segments = index.segments_of(log);
        index.list(&found)?;
        if let Some(last) = last {
            index.note_folder(&name, &last, (timeline, segments.clone()), whole)?;
        }
        if whole && is_known {
            index.others(timeline, segments, &found)
        } else {
            Ok(Vec::new())
        }
    });
    let mut gone = others.await?;
    if !gone.is_empty() {
        // Some may have come while the folder was listed.
        let listed = segments_in(cluster, folder.to_string(), None).await?;
        let there: BTreeSet<SegmentName> = listed.iter().map(|archived| archived.name).collect();
        gone.retain(|name| !there.contains(name));
    }
    Ok(gone)
}

/// The segments in a folder after an entry.
async fn segments_in(
    cluster: &Cluster,
    folder: String,
    after: Option<String>,
) -> anyhow::Result<Vec<Archived>> {
    let (mut pages, mut found) = (Pages::new(folder, after), Vec::new());
    while let Some(page) = pages.next(cluster.repository.storage()).await? {
        for entry in page {
            let ListEntry::Object(meta) = entry else {
                continue;
            };
            if let Some(WalFileName::Segment(name)) = cluster.wal_file(&meta.key) {
                found.push(Archived {
                    name,
                    bytes: meta.size,
                    stored_at: meta.modified.into(),
                });
            }
        }
    }
    Ok(found)
}

/// Reads history files that are new. One that cannot be read is passed over: planning tells of it.
async fn read_histories(
    index: &Arc<Index>,
    cluster: &Cluster,
    timelines: &[TimelineId],
) -> anyhow::Result<()> {
    let known = on_index(index, |index| index.histories()).await?;
    for timeline in timelines
        .iter()
        .filter(|timeline| !known.contains_key(timeline))
        .copied()
    {
        let key = cluster.layout.wal(&WalFileName::History(timeline));
        match cluster
            .repository
            .read_small(&key, WAL_KIND, LONGEST_SMALL_FILE)
            .await
        {
            Ok(Some((_, content))) => {
                let content = String::from_utf8_lossy(&content).into_owned();
                on_index(index, move |index| index.add_history(timeline, &content)).await?;
            }
            Ok(None) => (),
            Err(ObjectError::Storage(error)) => return Err(error.into()),
            Err(error) => {
                tracing::info!("a history file is passed over: {}", one_line(&error.into()))
            }
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
        Ok(self
            .connection()
            .query_row("SELECT cleared FROM listing", [], |row| row.get(0))?)
    }

    /// Whether it knows of no segment.
    pub(super) fn is_empty(&self) -> anyhow::Result<bool> {
        Ok(!self
            .connection()
            .prepare_cached("SELECT 1 FROM block")?
            .exists([])?)
    }

    /// Whether nothing came into a folder or went from it since this process listed it.
    pub(super) fn rests(&self, folder: &str, stamp: Option<FolderStamp>) -> bool {
        let stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        stamp.is_some_and(|stamp| stamp.is_unchanged_since(stamps.get(folder)))
    }

    pub(super) fn note_stamp(&self, folder: &str, stamp: Option<FolderStamp>) {
        let Some(stamp) = stamp else { return };
        self.stamps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(folder.to_string(), stamp);
    }

    /// Notes that a folder is as it was when it was listed.
    fn touch(&self, folder: &str) -> anyhow::Result<()> {
        let sql = "UPDATE folder SET whole_at = ?2 WHERE name = ?1";
        let now = Utc::now().timestamp_micros();
        self.change_untold(|db| {
            Ok(db
                .prepare_cached(sql)?
                .execute(params![folder, now])
                .map(drop)?)
        })
    }

    /// Notes that this process has listed the repository.
    pub(super) fn note_listed(&self) {
        *self
            .listed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether this process listed the repository so short ago.
    pub fn was_listed_within(&self, time: Duration) -> bool {
        self.listed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|at| at.elapsed() < time)
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
    fn folders(&self) -> anyhow::Result<BTreeMap<String, ListedFolder>> {
        let db = self.connection();
        let mut select =
            db.prepare_cached("SELECT name, listed, gap, open, whole_at FROM folder")?;
        let folders = select.query_map([], |row| {
            let (listed, gap, open, whole_at) =
                (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((
                row.get(0)?,
                ListedFolder {
                    listed,
                    gap,
                    open,
                    whole_at,
                },
            ))
        })?;
        Ok(folders.collect::<Result<_>>()?)
    }

    /// The numbers of the segments that belong into a folder.
    fn segments_of(&self, log: u32) -> Range<u64> {
        let per_log = self.size.per_log();
        let begin = u64::from(log) * per_log;
        begin..begin + per_log
    }

    /// Notes up to where a folder was listed, which segments belong there; `whole`: from its beginning.
    fn note_folder(
        &self,
        folder: &str,
        listed: &str,
        (timeline, segments): (TimelineId, Range<u64>),
        whole: bool,
    ) -> anyhow::Result<()> {
        let (timeline, begin, end) = (timeline.0, segments.start, segments.end);
        self.change_untold(|db| {
            let within = "SELECT count(*), min(number), max(number) FROM segment \
                          WHERE timeline = ?1 AND number >= ?2 AND number < ?3";
            let (count, first, last) = db
                .prepare_cached(within)?
                .query_row(params![timeline, int(begin), int(end)], |row| {
                    Ok((uint(row, 0)?, uint(row, 1)?, uint(row, 2)?))
                })?;
            let gap = count != last - first + 1 || first != begin;
            let sql = "INSERT INTO folder VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET \
                       listed = excluded.listed, gap = excluded.gap, open = excluded.open, \
                       whole_at = iif(?6, excluded.whole_at, whole_at)";
            let now = Utc::now().timestamp_micros();
            db.prepare_cached(sql)?.execute(params![
                folder,
                listed,
                gap,
                last + 1 != end,
                now,
                whole
            ])?;
            Ok(())
        })
    }

    /// The segments of a folder that the index has beside these, which were listed.
    fn others(
        &self,
        timeline: TimelineId,
        segments: Range<u64>,
        found: &[Archived],
    ) -> anyhow::Result<Vec<SegmentName>> {
        let names: BTreeSet<SegmentName> = found.iter().map(|archived| archived.name).collect();
        let db = self.connection();
        let mut select = db.prepare_cached(
            "SELECT number FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3",
        )?;
        let bounds = params![timeline.0, int(segments.start), int(segments.end)];
        let known = select.query_map(bounds, |row| Ok(self.name(timeline, uint(row, 0)?)))?;
        let known = known.collect::<Result<Vec<SegmentName>>>()?;
        Ok(known
            .into_iter()
            .filter(|name| !names.contains(name))
            .collect())
    }

    /// Forgets segments that are gone, with all that was concluded from them. What follows them is to be read again.
    pub(super) fn remove(&self, gone: &[Gone]) -> anyhow::Result<()> {
        self.change(|db| {
            for Gone { folder, segments } in gone {
                let keys: Vec<SegmentKey> = segments.iter().map(|name| self.key(*name)).collect();
                derive::remove(self, db, &keys)?;
                // Where nothing is left, nothing has to be looked for again.
                let Some(SegmentKey { timeline, number }) = keys.first().copied() else {
                    continue;
                };
                let log = (number / self.size.per_log()) as u32;
                let Range { start, end } = self.segments_of(log);
                let left =
                    "SELECT 1 FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3";
                let sql = match db.prepare_cached(left)?.exists(params![
                    timeline.0,
                    int(start),
                    int(end)
                ])? {
                    true => "UPDATE folder SET gap = 1 WHERE name = ?1",
                    false => "DELETE FROM folder WHERE name = ?1",
                };
                db.prepare_cached(sql)?.execute([folder])?;
            }
            Ok(())
        })
    }
}
