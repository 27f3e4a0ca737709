//! Failures of the local copy itself: a full disk, a damaged file, another process that holds it for long. Nothing is lost
//! by it, and what it says can be read from the repository again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::Utc;
use rusqlite::config::DbConfig;
use tokio::task::spawn_blocking;

use super::{Index, create, is_damage};
use crate::error::{find, one_line, with_hint};

/// The index could not be read or written; the repository has nothing to do with it.
#[derive(Debug, thiserror::Error)]
#[error("the index {place} cannot be used")]
pub struct IndexFailed {
    place: String,
}

/// Runs work that blocks. Errors: also [`IndexFailed`], with the next step.
pub async fn on_index<T: Send + 'static>(
    index: &Arc<Index>,
    work: impl FnOnce(&Index) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let index = index.clone();
    spawn_blocking(move || work(&index).map_err(|error| index.explain(error))).await?
}

impl Index {
    /// An error, with the file and the next step if it is the index's own. One that is damaged is made anew.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(cause) = find::<rusqlite::Error>(&error) else {
            return error;
        };
        self.mend(cause);
        let hint = match &self.path {
            Some(path) => {
                format!(
                    "free disk space, or delete \"{}\": it is a cache and will be rebuilt",
                    path.display()
                )
            }
            None => "it lies in the folder for temporary files: make room there".into(),
        };
        with_hint(
            error.context(IndexFailed {
                place: self.place(),
            }),
            hint,
        )
    }

    /// Its file in quotes.
    pub(super) fn place(&self) -> String {
        self.path
            .as_ref()
            .map_or("in a temporary file".into(), |path| {
                format!("\"{}\"", path.display())
            })
    }

    /// Makes a damaged index anew, empty.
    pub(super) fn mend(&self, cause: &rusqlite::Error) {
        if !is_damage(cause) {
            return;
        }
        match self.make_anew() {
            Ok(()) => tracing::warn!(
                "the index {} was damaged and is made anew: {cause}",
                self.place()
            ),
            Err(error) => tracing::info!(
                "the index {} cannot be made anew: {}",
                self.place(),
                one_line(&error.into())
            ),
        }
    }

    /// In the same file: others have it open, too, and go on with what is in it then.
    fn make_anew(&self) -> rusqlite::Result<()> {
        let mut db = self.connection();
        db.flush_prepared_statement_cache();
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, true)?;
        let emptied = db.execute_batch("VACUUM");
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_RESET_DATABASE, false)?;
        emptied?;
        let transaction = db.transaction()?;
        create(&transaction, &self.identity)?;
        // Who lists just now began before.
        transaction.execute(
            "UPDATE listing SET cleared = ?1",
            [Utc::now().timestamp_micros()],
        )?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::super::testing::{MadeUp, assert_same, cluster, seed, store};
    use super::super::update::{ListScope, complete};
    use super::*;
    use crate::error::hints;
    use crate::postgres::catalog::{Filter, Unknown, WalIndex};
    use crate::postgres::types::TimelineId;
    use crate::postgres::wal::Timestamp;

    /// Overwrites where all tables begin but those that are read when an index is opened.
    fn damage(index: &Index) {
        let (db, path) = (index.connection(), index.path().unwrap());
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let size: u32 = db
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE rootpage > 0 AND name <> 'identity'";
        let mut roots = db.prepare(sql).unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        for root in roots.query_map([], |row| row.get::<_, u32>(0)).unwrap() {
            file.write_all_at(
                &vec![0x5a; size as usize],
                u64::from((root.unwrap() - 1) * size),
            )
            .unwrap();
        }
    }

    #[tokio::test]
    async fn a_damaged_index_says_what_to_do_and_is_made_anew_for_all_who_have_it_open() {
        let (cluster, _) = cluster().await;
        for (name, bytes, summary) in &MadeUp::new(seed("damaged"), 6).segments() {
            store(&cluster, *name, bytes, Some(summary)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = || Arc::new(Index::open(folder.path(), &cluster).unwrap());
        let index = open();
        complete(&index, &cluster, ListScope::All, &|_| ())
            .await
            .unwrap();
        let expected = index.dump();
        let path = index.path().unwrap().to_path_buf();
        for by_planning in [false, true] {
            damage(&index);
            let reader = open();
            if by_planning {
                let never = Timestamp(i64::MAX - 1);
                let unknown = reader
                    .first_later(TimelineId(1), 5, 9, never, false)
                    .unwrap_err();
                let Unknown::Failed(why) = &unknown else {
                    panic!("{unknown}")
                };
                assert!(
                    why.contains("malformed") && why.contains(&path.display().to_string()),
                    "{why}"
                );
            } else {
                let error = on_index(&reader, |index| index.events(&Filter::default()))
                    .await
                    .unwrap_err();
                assert!(find::<IndexFailed>(&error).is_some(), "{error:#}");
                let text = one_line(&error);
                assert!(
                    text.contains("malformed") && text.contains(&path.display().to_string()),
                    "{text}"
                );
                assert!(hints(&error)[0].contains("delete"), "{error:#}");
            }
            assert!(
                !index.state().unwrap().whole
                    && index.events(&Filter::default()).unwrap().events.is_empty()
            );
            complete(&index, &cluster, ListScope::New, &|_| ())
                .await
                .unwrap();
            assert_same(&expected, &reader.dump());
            assert_same(&expected, &open().dump());
        }
    }

    #[tokio::test]
    async fn a_full_disk_leaves_the_index_as_it_is() {
        let (cluster, _) = cluster().await;
        let folder = tempfile::tempdir().unwrap();
        let index = Arc::new(Index::open(folder.path(), &cluster).unwrap());
        let pages: i64 = index
            .connection()
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        index
            .connection()
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
        let long = "x".repeat(10_000);
        let error = on_index(&index, move |index| index.add_history(TimelineId(2), &long))
            .await
            .unwrap_err();
        assert!(
            one_line(&error).contains("full") && hints(&error)[0].contains("free disk space"),
            "{error:#}"
        );
        assert!(index.state().is_ok());
    }
}
