//! What follows when the recovered table is there: how its rows and the present ones differ, and putting back.

use anyhow::{Context, anyhow};

use super::columns::{self, TableColumns, rows_of};
use super::compare::{Pair, equals};
use super::load::{self, Loaded};
use super::options::{Clock, RecoverOptions};
use super::put_back::{insert_missing, revert_changed, take_name};
use super::rename::{NamedKind, Rename};
use super::report::{Comparison, LeftOut, Made, Outcome, PutBack};
use super::sessions::{Said, words};
use super::source::{ForeignKey, SourceTable};
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::quoted;
use crate::postgres::replication::SqlClient;

/// What follows when the table is there.
pub struct After<'a> {
    pub source: &'a SourceTable,
    pub renames: &'a [Rename],
    pub loaded: Loaded,
    pub new: QualifiedName,
    pub options: &'a RecoverOptions,
}

impl After<'_> {
    /// Compares, and puts back what is to be put back.
    pub async fn outcome(
        self,
        to: &mut SqlClient,
        clock: &mut Clock<'_>,
    ) -> anyhow::Result<Outcome> {
        let recovered = columns::read(&to.client, &self.new).await?;
        let recovered = recovered.with_context(|| format!("\"{}\" is gone again", self.new))?;
        let present = columns::read(&to.client, &self.source.name).await?;
        let left_out = self.left_out(&recovered, present.is_some(), to).await?;
        let (comparison, put_back) = match &present {
            Some(present) => {
                let (comparison, put_back) = self.compare(&recovered, present, to).await?;
                (Some(comparison), put_back)
            }
            None => (None, self.take_its_name()),
        };
        clock.end("compare");
        let mut outcome = Outcome {
            rows: self.loaded.rows,
            made: self.made(),
            also_made: self.loaded.also_made,
            recovered: self.new,
            left_out,
            comparison,
            put_back,
        };
        if self.options.put_back {
            let missing = outcome.comparison.as_ref().map_or(0, |found| found.missing);
            let rows = load::run(&mut to.client, &outcome.put_back.sql, missing).await?;
            outcome.put_back.is_done = true;
            outcome.put_back.rows = outcome.comparison.as_ref().map(|_| rows);
            if outcome.comparison.is_none() {
                outcome.recovered = self.source.name.clone();
            }
            clock.end("put back");
        }
        Ok(outcome)
    }

    async fn left_out(
        &self,
        recovered: &TableColumns,
        is_present: bool,
        to: &SqlClient,
    ) -> anyhow::Result<Vec<LeftOut>> {
        let mut left_out = self.source.left_out.clone();
        for key in &self.source.foreign_keys {
            let why = self.broken(key, recovered, to).await?;
            let is_it = |left: &&mut LeftOut| left.what == "foreign key" && left.name == key.name;
            if let Some(left) = left_out.iter_mut().find(is_it) {
                left.why = why;
            }
        }
        if is_present {
            // The present table has its own.
            left_out.iter_mut().for_each(|left| left.sql = None);
        }
        left_out.extend(self.loaded.left_out.iter().cloned());
        Ok(left_out)
    }

    fn made(&self) -> Made {
        let count = |kind| {
            self.renames
                .iter()
                .filter(|rename| rename.kind == kind)
                .count()
        };
        let parts = usize::from(!self.options.rows_only);
        Made {
            partitions: count(NamedKind::Table).saturating_sub(1),
            indexes: parts * count(NamedKind::Index),
            sequences: parts * count(NamedKind::Sequence),
        }
    }

    fn take_its_name(&self) -> PutBack {
        PutBack {
            sql: take_name(self.renames, self.options.rows_only),
            changed_sql: None,
            is_done: false,
            rows: None,
        }
    }

    async fn compare(
        &self,
        recovered: &TableColumns,
        present: &TableColumns,
        to: &SqlClient,
    ) -> anyhow::Result<(Comparison, PutBack)> {
        let pair = Pair {
            recovered: (&self.new, recovered),
            present: (&self.source.name, present),
            condition: self.options.condition.as_deref(),
        };
        if pair.common().is_empty() {
            return Err(anyhow!(
                "the present table has none of the recovered columns"
            ));
        }
        let what = "the recovered rows and the present ones cannot be compared";
        let [missing, added, changed, same] = load::counts(&to.client, &pair.count(), what).await?;
        let count = |count: Option<i64>| count.unwrap_or_default().unsigned_abs();
        let mut sequences = load::sequences_of(&to.client, &self.source.name).await?;
        for served in &mut sequences {
            served.stood = self.loaded.stood.get(&served.column).copied();
        }
        let key = pair.key();
        let comparison = Comparison {
            key: key.iter().map(|(column, _)| column.name.clone()).collect(),
            missing: count(missing),
            changed: changed.map(i64::unsigned_abs),
            same: count(same),
            added: count(added),
            notes: pair.notes(),
        };
        let has_changed = comparison.changed.is_some_and(|changed| changed > 0);
        let put_back = PutBack {
            sql: insert_missing(&pair, &sequences),
            changed_sql: revert_changed(&pair).filter(|_| has_changed),
            is_done: false,
            rows: None,
        };
        Ok((comparison, put_back))
    }

    /// Why a foreign key would not hold now; empty: it would.
    async fn broken(
        &self,
        key: &ForeignKey,
        recovered: &TableColumns,
        to: &SqlClient,
    ) -> anyhow::Result<String> {
        let references = &key.references;
        if *references == self.source.name {
            return Ok(String::new());
        }
        let Some(referenced) = columns::read(&to.client, references).await? else {
            return Ok(format!("there is no \"{references}\" now"));
        };
        let pairs = key.columns.iter().zip(&key.referenced);
        let pairs =
            pairs.map(|(own, other)| Some((recovered.column(own)?, referenced.column(other)?)));
        let Some(pairs) = pairs.collect::<Option<Vec<_>>>() else {
            return Ok(format!("\"{references}\" has other columns now"));
        };
        let column = |of: &str, name: &str| format!("{of}.{}", quoted(name));
        let not_null = pairs
            .iter()
            .map(|pair| format!("{} IS NOT NULL", column("r", &pair.0.name)));
        let same = pairs
            .iter()
            .map(|pair| equals(pair, &column("r", &pair.0.name), &column("p", &pair.1.name)));
        let sql = format!(
            "SELECT count(*) FROM {} r WHERE {} AND NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
            rows_of(&self.new, recovered.is_partitioned),
            not_null.collect::<Vec<_>>().join(" AND "),
            rows_of(references, referenced.is_partitioned),
            same.collect::<Vec<_>>().join(" AND ")
        );
        Ok(match to.client.query_one(&sql, &[]).await {
            Ok(row) => match row.get::<_, i64>(0) {
                0 => String::new(),
                count => format!("{count} rows refer to rows of \"{references}\" that are gone"),
            },
            Err(error) if error.as_db_error().is_some() => {
                format!("whether it holds is not known: {}", words(&error))
            }
            Err(error) => return Err(error).said("the server is gone"),
        })
    }
}
