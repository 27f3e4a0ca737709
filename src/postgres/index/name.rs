//! Recorded names, and which of them held where. And timeline histories, which say what lies on one path.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Result, params};
use serde::{Deserialize, Serialize};

use super::Index;
use super::column::{from_json, int, json, uint};
use crate::postgres::catalog::Relation;
use crate::postgres::types::{Lsn, TimelineHistory, TimelineId};
use crate::postgres::wal::RelFileLocator;
use crate::storage::Key;

/// What a file or database is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedName {
    Database(String),
    Relation(Relation),
}

/// Names that were found at one place of the WAL. A database's key has tablespace 0 and number 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    pub timeline: TimelineId,
    /// Reached before the names were read.
    pub lsn: Lsn,
    pub names: Vec<(RelFileLocator, RecordedName)>,
}

/// A name, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameAt {
    timeline: TimelineId,
    lsn: Lsn,
    name: RecordedName,
}

/// The name that held at a place on the path that a history tells: the newest one found before it, else the first one after.
pub(super) fn name_at<'a>(
    recorded: &'a [NameAt],
    history: &TimelineHistory,
    at: Lsn,
) -> Option<&'a RecordedName> {
    let on_path = |one: &&NameAt| history.timeline_at(one.lsn) == one.timeline;
    let before = |one: &&NameAt| one.lsn <= at;
    let newest = recorded.iter().filter(before).rfind(on_path);
    // What another path calls it is better than nothing.
    let any = || {
        recorded
            .iter()
            .find(on_path)
            .or(recorded.iter().rfind(before))
            .or(recorded.first())
    };
    newest.or_else(any).map(|one| &one.name)
}

/// All names that were recorded of a file, by LSN.
pub(super) fn names_of(db: &Connection, file: RelFileLocator) -> Result<Vec<NameAt>> {
    let mut select = db.prepare_cached(
        "SELECT timeline, lsn, held FROM name WHERE database = ?1 AND tablespace = ?2 AND file = ?3 ORDER BY lsn, timeline",
    )?;
    let found = select.query_map(
        params![file.database, file.tablespace, file.number],
        |row| {
            let name = from_json(&row.get::<_, String>(2)?)?;
            Ok(NameAt {
                timeline: TimelineId(row.get(0)?),
                lsn: Lsn(uint(row, 1)?),
                name,
            })
        },
    )?;
    found.collect()
}

/// All histories that can be read.
pub(super) fn histories(db: &Connection) -> Result<BTreeMap<TimelineId, TimelineHistory>> {
    let mut select = db.prepare_cached("SELECT timeline, content FROM history")?;
    let rows = select.query_map([], |row| {
        Ok((TimelineId(row.get(0)?), row.get::<_, String>(1)?))
    })?;
    let parsed = rows.map(|row| {
        row.map(|(timeline, text)| Some((timeline, TimelineHistory::parse(timeline, &text).ok()?)))
    });
    Ok(parsed
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

impl Index {
    /// Puts in names that the repository has under the key `object`.
    pub fn add_names(&self, object: &str, recordings: &[Recording]) -> anyhow::Result<()> {
        self.change(|db| {
            let mut put =
                db.prepare_cached("INSERT OR REPLACE INTO name VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for recording in recordings {
                let (lsn, timeline) = (int(recording.lsn.0), recording.timeline.0);
                for (file, name) in &recording.names {
                    let key = (file.database, file.tablespace, file.number);
                    put.execute(params![key.0, key.1, key.2, lsn, timeline, json(name)?])?;
                }
            }
            db.prepare_cached("INSERT OR REPLACE INTO recording VALUES (?1, 1)")?
                .execute([object])?;
            Ok(())
        })
    }

    /// Notes that the repository has names under another key now, which are in already.
    pub fn replace_recordings(&self, parts: &[String], object: &str) -> anyhow::Result<()> {
        self.change(|db| {
            let mut delete = db.prepare_cached("DELETE FROM recording WHERE object = ?1")?;
            parts
                .iter()
                .try_for_each(|part| delete.execute([part]).map(drop))?;
            db.prepare_cached("INSERT OR REPLACE INTO recording VALUES (?1, 1)")?
                .execute([object])?;
            Ok(())
        })
    }

    /// Leaves of a recording what differs from the names that would hold there without it.
    pub fn keep_new_names(&self, recording: &mut Recording) -> anyhow::Result<()> {
        let db = self.connection();
        let history = histories(&db)?.remove(&recording.timeline);
        let history = history.unwrap_or_else(|| TimelineHistory::root(recording.timeline));
        let mut new = Vec::new();
        for (file, name) in std::mem::take(&mut recording.names) {
            let known = names_of(&db, file)?;
            let before: Vec<NameAt> = known
                .into_iter()
                .filter(|one| one.lsn <= recording.lsn)
                .collect();
            if name_at(&before, &history, recording.lsn) != Some(&name) {
                new.push((file, name));
            }
        }
        recording.names = new;
        Ok(())
    }

    /// The key of the object before the last so many whose names are in.
    pub(super) fn recording_before(&self, last: u32) -> anyhow::Result<Option<String>> {
        let sql =
            "SELECT object FROM recording WHERE read = 1 ORDER BY object DESC LIMIT 1 OFFSET ?1";
        Ok(self
            .connection()
            .prepare_cached(sql)?
            .query_row([last], |row| row.get(0))
            .optional()?)
    }

    /// Those of these keys whose objects were not read.
    pub(super) fn not_recorded(&self, keys: Vec<Key>) -> anyhow::Result<Vec<Key>> {
        let db = self.connection();
        let mut select = db.prepare_cached("SELECT 1 FROM recording WHERE object = ?1")?;
        let mut new = Vec::new();
        for key in keys {
            if !select.exists([key.as_str()])? {
                new.push(key);
            }
        }
        Ok(new)
    }

    /// Keys of the objects that are damaged, in another order each time.
    pub(crate) fn passed_over(&self) -> anyhow::Result<Vec<String>> {
        let db = self.connection();
        let mut select =
            db.prepare_cached("SELECT object FROM recording WHERE read = 0 ORDER BY random()")?;
        let objects = select.query_map([], |row| row.get(0))?;
        Ok(objects.collect::<Result<_>>()?)
    }

    /// Notes that an object is damaged.
    pub(crate) fn pass_over(&self, object: &str) -> anyhow::Result<()> {
        let sql = "INSERT OR IGNORE INTO recording VALUES (?1, 0)";
        self.change(|db| Ok(db.prepare_cached(sql)?.execute([object]).map(drop)?))
    }

    /// An object that was passed over is gone.
    pub(super) fn forget_recording(&self, object: &str) -> anyhow::Result<()> {
        let sql = "DELETE FROM recording WHERE object = ?1";
        self.change(|db| Ok(db.prepare_cached(sql)?.execute([object]).map(drop)?))
    }

    /// Puts in the content of a history file.
    pub(super) fn add_history(&self, timeline: TimelineId, content: &str) -> anyhow::Result<()> {
        let sql = "INSERT OR REPLACE INTO history VALUES (?1, ?2)";
        self.change(|db| {
            Ok(db
                .prepare_cached(sql)?
                .execute(params![timeline.0, content])
                .map(drop)?)
        })
    }

    /// Forgets the histories of all other timelines.
    pub(super) fn keep_histories(&self, timelines: &[TimelineId]) -> anyhow::Result<()> {
        let gone: Vec<TimelineId> = self
            .histories()?
            .into_keys()
            .filter(|timeline| !timelines.contains(timeline))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.change(|db| {
            let mut delete = db.prepare_cached("DELETE FROM history WHERE timeline = ?1")?;
            gone.iter()
                .try_for_each(|timeline| delete.execute([timeline.0]).map(drop))?;
            Ok(())
        })
    }

    /// The timelines whose history is in.
    pub(super) fn histories(&self) -> anyhow::Result<BTreeMap<TimelineId, TimelineHistory>> {
        Ok(histories(&self.connection())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(timeline: u32, lsn: u64, name: &str) -> NameAt {
        NameAt {
            timeline: TimelineId(timeline),
            lsn: Lsn(lsn),
            name: RecordedName::Database(name.into()),
        }
    }

    fn shown_at(names: &[NameAt], history: &TimelineHistory, at: u64) -> Option<String> {
        name_at(names, history, Lsn(at)).map(|name| match name {
            RecordedName::Database(name) => name.clone(),
            RecordedName::Relation(relation) => relation.qualified(),
        })
    }

    #[test]
    fn a_name_holds_from_where_it_was_found() {
        let names = [named(1, 100, "old"), named(1, 200, "new")];
        let history = TimelineHistory::root(TimelineId(1));
        assert_eq!(shown_at(&names, &history, 150).as_deref(), Some("old"));
        assert_eq!(shown_at(&names, &history, 200).as_deref(), Some("new"));
        assert_eq!(
            shown_at(&names, &history, 50).as_deref(),
            Some("old"),
            "found after"
        );
        assert_eq!(shown_at(&[], &history, 50), None);
    }

    #[test]
    fn a_name_of_another_path_does_not_hold() {
        let names = [
            named(1, 100, "both"),
            named(1, 200, "renamed on the old path"),
        ];
        let history = TimelineHistory::parse(TimelineId(2), "1\t0/96\tpromoted\n").unwrap();
        assert_eq!(shown_at(&names, &history, 250).as_deref(), Some("both"));
    }
}
