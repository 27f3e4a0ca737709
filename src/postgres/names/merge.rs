//! Many recordings become one for each day that is over: a server whose tables come and go makes one a minute. What was
//! merged says the same as its parts, is read back before these are removed, and lies between their names.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};

use super::store::MOST;
use crate::error::{find, one_line};
use crate::postgres::backup::cleanup::delete_all;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::recordings::{load, store};
use crate::postgres::index::{Index, Recording, on_index};
use crate::postgres::layout::{NamesId, ObjectKind};
use crate::repo::is_unusable;
use crate::storage::{Key, ListEntry, Pages, StorageError};

/// How far merging is.
#[derive(Debug, Clone, Default)]
pub struct Merging {
    /// All days up to this one are done, as `YYYYMMDD`.
    done: Option<String>,
    /// The last recording of the days that are done.
    after: Option<Key>,
    /// Recordings cannot be removed here.
    off: bool,
}

/// Recordings of one day.
type Day = Vec<(Key, NamesId)>;

/// Merges the recordings of the first day that has several and has been over for an hour, by the clock `now`; false:
/// there is none until the day changes. Errors: the store did not answer.
pub async fn merge_a_day(
    cluster: &Cluster,
    index: &Arc<Index>,
    merging: &mut Merging,
    now: DateTime<Utc>,
) -> anyhow::Result<bool> {
    // Other hosts' clocks may be late.
    let last = (now - Duration::hours(25)).format("%Y%m%d").to_string();
    if merging.off || merging.done.as_ref() == Some(&last) {
        return Ok(false);
    }
    let Some(day) = next_day(cluster, merging, &last).await? else {
        merging.done = Some(last);
        return Ok(false);
    };
    let end = day.last().map(|(key, _)| key.clone());
    match merge(cluster, index, day, now).await {
        // An archive that may only be added to keeps its parts.
        Err(error) if find::<StorageError>(&error).is_some_and(|error| error.lasting) => {
            tracing::info!("recordings of names are not merged: {}", one_line(&error));
            merging.off = true;
            Ok(false)
        }
        Ok(()) => {
            merging.after = end;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

async fn merge(
    cluster: &Cluster,
    index: &Arc<Index>,
    day: Day,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    // Whether anything can be removed is asked before anything is stored.
    let nobody = cluster.layout.names(&NamesId::new(now, getrandom::u32()?));
    cluster.repository.storage().delete(&nobody).await?;
    let mut together = Together::default();
    for (key, id) in day {
        let Some(recordings) = readable(cluster, &key).await? else {
            continue;
        };
        let lines: usize = recordings
            .iter()
            .map(|recording| recording.names.len() + 1)
            .sum();
        if together.lines + lines > MOST {
            std::mem::take(&mut together).merge(cluster, index).await?;
        }
        together.lines += lines;
        together.recordings.extend(recordings);
        together.parts.push((key, id));
    }
    together.merge(cluster, index).await
}

/// The first day behind what is done and not behind `last` with more than one recording.
async fn next_day(
    cluster: &Cluster,
    merging: &mut Merging,
    last: &str,
) -> anyhow::Result<Option<Day>> {
    let after = merging.after.as_ref().map(|key| key.as_str().to_string());
    let mut pages = Pages::new(cluster.layout.names_folder(), after);
    let mut day = Day::new();
    while let Some(page) = pages.next(cluster.repository.storage()).await? {
        for entry in page {
            let ListEntry::Object(meta) = entry else {
                continue;
            };
            let Some(ObjectKind::Names(id)) = cluster.object_kind(&meta.key) else {
                continue;
            };
            if day
                .first()
                .is_some_and(|(_, first)| first.day() != id.day())
            {
                if day.len() > 1 {
                    return Ok(Some(day));
                }
                merging.after = day.pop().map(|(key, _)| key);
            }
            if id.day() > last {
                return Ok(None);
            }
            day.push((meta.key, id));
        }
    }
    Ok(Some(day).filter(|day| day.len() > 1))
}

/// A recording's content; `None` for one that is gone or damaged, which stays as it is.
async fn readable(cluster: &Cluster, key: &Key) -> anyhow::Result<Option<Vec<Recording>>> {
    match load(cluster, key).await {
        Err(error) if is_unusable(&error) => {
            tracing::info!("names are left as they are: {}", one_line(&error));
            Ok(None)
        }
        read => read,
    }
}

/// Recordings that become one object.
#[derive(Default)]
struct Together {
    parts: Day,
    recordings: Vec<Recording>,
    lines: usize,
}

impl Together {
    async fn merge(self, cluster: &Cluster, index: &Arc<Index>) -> anyhow::Result<()> {
        let Some((_, last)) = self.parts.last().filter(|_| self.parts.len() > 1) else {
            return Ok(());
        };
        let id = last.beside(getrandom::u32()?);
        let key = store(cluster, &self.recordings, id, Utc::now()).await?;
        let there = load(cluster, &key).await?;
        anyhow::ensure!(
            there.as_ref() == Some(&self.recordings),
            "object \"{key}\" reads back as something else"
        );
        delete_all(cluster, self.parts.iter().map(|(key, _)| key)).await?;
        tracing::debug!(
            "{} recordings of names are merged into \"{key}\"",
            self.parts.len()
        );
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|(key, _)| key.as_str().to_string())
            .collect();
        on_index(index, move |index| {
            index.replace_recordings(&parts, key.as_str())
        })
        .await
    }
}
