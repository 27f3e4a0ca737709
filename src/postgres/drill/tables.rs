//! The tables of a restored dump, compared with its manifest.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Context;

use super::checks::{check, refused};
use super::database::{Door, words};
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::manifest::{TableEntry, read_tables};
use crate::postgres::layout::DumpId;

/// So many are named.
const NAMED: usize = 5;

/// What a manifest says of the tables.
#[derive(Debug)]
pub struct ManifestTables(Vec<TableEntry>);

impl ManifestTables {
    /// Of a dump. Errors: also that it is gone.
    pub async fn read(cluster: &Cluster, id: &DumpId) -> anyhow::Result<Self> {
        let tables = read_tables(cluster, id).await?;
        let mut tables = tables.with_context(|| format!("dump \"{id}\" was deleted meanwhile"))?;
        // The more are counted in the time there is.
        tables.sort_by_key(|table| table.size.unwrap_or_default());
        Ok(Self(tables))
    }

    /// Compares: absent tables are a failure, rows are counted as long as there is time.
    pub async fn compare(&self, door: &Door, database: &str, until: Instant) -> Vec<Check> {
        let session = match door.open(database).await {
            Ok(session) => session,
            Err(error) => return vec![refused("tables of the dump", one_line(&error))],
        };
        let sql = "select n.nspname, c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'm', 'f')";
        let there: BTreeSet<(String, String)> = match session.client.query(sql, &[]).await {
            Ok(rows) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
            Err(error) => return vec![refused("tables of the dump", words(&error))],
        };
        let mut counted = Counted::default();
        for table in self.0.iter().filter(|table| table.has_rows) {
            let name = (table.schema.clone(), table.name.clone());
            if Instant::now() >= until || !there.contains(&name) {
                continue;
            }
            let only = if table.relkind == 'r' { "only " } else { "" };
            let [schema, name] = [&table.schema, &table.name].map(|name| name.replace('"', "\"\""));
            let sql = format!("select count(*) from {only}\"{schema}\".\"{name}\"");
            match session.client.query_one(&sql, &[]).await {
                Ok(row) => counted.add(table, row.get(0)),
                Err(error) => {
                    let seen = format!("{schema}.{name}: {}", words(&error));
                    return vec![self.presence(&there), refused("rows of the dump", seen)];
                }
            }
        }
        vec![
            self.presence(&there),
            counted.check(self.0.iter().filter(|table| table.has_rows).count()),
        ]
    }

    /// Whether all tables are there.
    fn presence(&self, there: &BTreeSet<(String, String)>) -> Check {
        let is_absent =
            |table: &&TableEntry| !there.contains(&(table.schema.clone(), table.name.clone()));
        let absent: Vec<String> = self
            .0
            .iter()
            .filter(is_absent)
            .map(|table| format!("{}.{}", table.schema, table.name))
            .collect();
        let all = self.0.len();
        let (verdict, seen) = match absent.len() {
            0 => (Verdict::Passed, all.to_string()),
            count => (
                Verdict::Failed,
                format!("{count} of {all} are absent: {}", first(&absent)),
            ),
        };
        check("tables of the dump", verdict, seen)
    }
}

/// What was counted. The source had only estimates: they fail nothing.
#[derive(Debug, Default)]
struct Counted {
    tables: usize,
    rows: i64,
    estimated: f64,
    empty: Vec<String>,
}

impl Counted {
    fn add(&mut self, table: &TableEntry, rows: i64) {
        let estimated = table.rows.unwrap_or_default();
        self.tables += 1;
        self.rows += rows;
        self.estimated += estimated;
        if rows == 0 && estimated >= 1.0 {
            let words = format!("{}.{} ({estimated:.0})", table.schema, table.name);
            self.empty.push(words);
        }
    }

    fn check(self, all: usize) -> Check {
        let Self {
            tables,
            rows,
            estimated,
            empty,
        } = self;
        let mut seen = format!(
            "{rows} in {tables} of {all} tables, where the source estimated {estimated:.0}"
        );
        if !empty.is_empty() {
            seen += &format!("; empty, against an estimate: {}", first(&empty));
        }
        let verdict = match tables == 0 && all > 0 {
            true => Verdict::CouldNotRun,
            false => Verdict::Passed,
        };
        check("rows of the dump", verdict, seen)
    }
}

fn first(names: &[String]) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    names[..names.len().min(NAMED)].join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: f64) -> TableEntry {
        TableEntry {
            oid: 1,
            schema: "public".into(),
            name: name.into(),
            relkind: 'r',
            rows: Some(rows),
            size: None,
            has_rows: true,
        }
    }

    #[test]
    fn an_absent_table_fails_and_an_estimate_never_does() {
        let expected = ManifestTables(["a", "b"].map(|name| table(name, 10.0)).to_vec());
        let there = |names: &[&str]| {
            let names = names.iter();
            names
                .map(|name| ("public".to_string(), name.to_string()))
                .collect()
        };
        assert_eq!(
            expected.presence(&there(&["a", "b", "c"])).verdict,
            Verdict::Passed
        );
        let absent = expected.presence(&there(&["a"]));
        assert_eq!(absent.verdict, Verdict::Failed);
        assert_eq!(absent.seen, "1 of 2 are absent: public.b");
        let mut counted = Counted::default();
        counted.add(&table("a", 10.0), 7);
        counted.add(&table("b", 10.0), 0);
        let seen = counted.check(2);
        assert_eq!(seen.verdict, Verdict::Passed);
        assert_eq!(
            seen.seen,
            "7 in 2 of 2 tables, where the source estimated 20; empty, against an estimate: public.b (10)"
        );
        assert_eq!(Counted::default().check(2).verdict, Verdict::CouldNotRun);
    }
}
