//! Tables that must not come back empty or old: rows, the newest of them, and how many the source has more.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de::Error};
use tokio_postgres::Client;

use super::checks::{check, refused, unanswered};
use super::database::{Door, words};
use super::source_server::SourceServer;
use super::table_name::{Found, find};
use crate::config::read_duration;
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::plain::{counted, lasting};
use crate::postgres::catalog::postgresql_time;
use crate::postgres::dump_restore::sql::quoted;

/// A table and what is expected of its rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableCheck {
    pub database: String,
    /// With its schema; as it is, or as SQL has it.
    #[serde(deserialize_with = "in_schema")]
    pub table: String,
    min_rows: Option<u64>,
    /// A column with a time.
    newest: Option<String>,
    #[serde(default, deserialize_with = "read_duration")]
    not_older_than: Option<Duration>,
    /// Rows that the source may have more.
    max_behind: Option<u64>,
}

fn in_schema<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    let wrong = || D::Error::custom("a table is named with its schema, such as \"public.orders\"");
    name.contains('.').then_some(name).ok_or_else(wrong)
}

/// What restored rows are compared with.
#[derive(Debug)]
pub struct Compared<'a> {
    pub source: SourceServer<'a>,
    /// The moment that was restored; `None`: all there is, so that now counts.
    pub moment: Option<DateTime<Utc>>,
}

impl TableCheck {
    /// Why it can be no check.
    pub fn wrong(&self) -> Option<&'static str> {
        match self {
            Self {
                newest: Some(_),
                not_older_than: None,
                ..
            } => Some("newest needs not_older_than, such as \"26h\""),
            Self {
                newest: None,
                not_older_than: Some(_),
                ..
            } => Some("not_older_than needs newest, a column with a time"),
            Self {
                min_rows: None,
                newest: None,
                max_behind: None,
                ..
            } => Some("it expects nothing: add min_rows, newest or max_behind"),
            _ => None,
        }
    }

    /// Of what is said about all of it.
    pub fn name(&self) -> String {
        format!("{} of \"{}\"", self.table, self.database)
    }

    /// All that is expected of it.
    pub async fn ask(&self, door: &Door, compared: &Compared<'_>) -> Vec<Check> {
        let session = match door.open(&self.database).await {
            Ok(session) => session,
            Err(error) => return vec![refused(&self.name(), one_line(&error))],
        };
        let client = &session.client;
        let found = match find(client, &self.table).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                let seen = format!("there is no table {}", self.table);
                return vec![check(&self.name(), Verdict::Failed, seen)];
            }
            Err(error) => return vec![refused(&self.name(), words(&error))],
        };
        let mut checks = self.rows(client, &found, compared).await;
        if let (Some(column), Some(limit)) = (&self.newest, self.not_older_than) {
            let at = compared.moment.unwrap_or_else(Utc::now);
            let name = format!("newest row of {}", self.name());
            checks.push(match newest(client, &found, column, at).await {
                Ok(newest) => aged(&name, newest, at, limit),
                Err(otherwise) => otherwise.named(&name),
            });
        }
        checks
    }

    async fn rows(&self, client: &Client, found: &Found, compared: &Compared<'_>) -> Vec<Check> {
        if self.min_rows.is_none() && self.max_behind.is_none() {
            return Vec::new();
        }
        let name = format!("rows of {}", self.name());
        let rows = match found.count(client).await {
            Ok(rows) => rows,
            Err(error) => return vec![unanswered(&name, &error)],
        };
        let enough = self.min_rows.map(|least| enough(&name, rows.count, least));
        let mut checks: Vec<Check> = enough.into_iter().collect();
        if let Some(most) = self.max_behind {
            let name = format!("{name} against the source");
            let told = match compared.moment {
                Some(moment) => Err(format!(
                    "not compared: what was restored is of {}",
                    postgresql_time(moment)
                )),
                None => {
                    let asked = compared.source.count(&self.database, &self.table);
                    asked.await.and_then(|source| rows.beside(&source))
                }
            };
            checks.push(match told {
                Ok(source) => behind(&name, rows.count, source, most),
                Err(why) => check(&name, Verdict::CouldNotRun, why),
            });
        }
        checks
    }
}

fn judged(name: &str, holds: bool, seen: String, expected: String) -> Check {
    match holds {
        true => check(name, Verdict::Passed, seen),
        false => check(
            name,
            Verdict::Failed,
            format!("{seen}, expected {expected}"),
        ),
    }
}

fn enough(name: &str, rows: u64, least: u64) -> Check {
    judged(
        name,
        rows >= least,
        rows.to_string(),
        format!("at least {least}"),
    )
}

/// Production may go on meanwhile, and never makes a backup newer.
fn behind(name: &str, rows: u64, source: u64, most: u64) -> Check {
    let behind = source.saturating_sub(rows);
    let seen = format!(
        "{behind} behind: {}, on the source {source}",
        counted(rows, "row")
    );
    judged(name, behind <= most, seen, format!("at most {most} behind"))
}

fn aged(name: &str, newest: Option<DateTime<Utc>>, at: DateTime<Utc>, limit: Duration) -> Check {
    let wanted = format!("at most {}", lasting(limit.as_secs_f64()));
    let Some(newest) = newest else {
        return judged(name, false, "no row has a time up to then".into(), wanted);
    };
    let age = (at - newest).to_std().unwrap_or_default();
    let seen = format!(
        "{}, {} old",
        postgresql_time(newest),
        lasting(age.as_secs_f64())
    );
    judged(name, age <= limit, seen, wanted)
}

/// Why there is no newest row.
enum NoAnswer {
    Column(String),
    Server(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for NoAnswer {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl NoAnswer {
    fn named(&self, name: &str) -> Check {
        match self {
            Self::Column(why) => check(name, Verdict::Failed, why.clone()),
            Self::Server(error) => unanswered(name, error),
        }
    }
}

/// The last time in a column that is not later than `at`: what is planned for tomorrow says nothing of a backup.
async fn newest(
    client: &Client,
    table: &Found,
    column: &str,
    at: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, NoAnswer> {
    let sql = "select pg_catalog.format_type(a.atttypid, null), t.typcategory::text from pg_catalog.pg_attribute a
        join pg_catalog.pg_type t on t.oid = a.atttypid where a.attrelid = $1 and a.attname::text = $2 and a.attnum > 0 and not a.attisdropped";
    let no_time = match client.query_opt(sql, &[&table.oid, &column]).await? {
        None => Some(format!("{} has no column \"{column}\"", table.name)),
        Some(row) if row.get::<_, &str>(1) == "D" => None,
        Some(row) => {
            let kind: &str = row.get(0);
            Some(format!(
                "column \"{column}\" is of type {kind}, which is no time"
            ))
        }
    };
    if let Some(why) = no_time {
        return Err(NoAnswer::Column(why));
    }
    let (column, from) = (quoted(column), &table.sql);
    let sql = format!(
        "select extract(epoch from max({column})::timestamptz)::float8 from {from} where {column} <= pg_catalog.to_timestamp($1::float8)"
    );
    let at = at.timestamp_micros() as f64 / 1e6;
    let row = client.query_one(&sql, &[&at]).await?;
    let seconds: Option<f64> = row.get(0);
    let micros = seconds.map(|seconds| (seconds * 1e6) as i64);
    Ok(micros.and_then(DateTime::from_timestamp_micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_enough_from_the_least_on() {
        assert_eq!(enough("n", 10, 10).verdict, Verdict::Passed);
        let few = enough("n", 9, 10);
        assert_eq!(
            (few.verdict, &*few.seen),
            (Verdict::Failed, "9, expected at least 10")
        );
    }

    #[test]
    fn a_table_may_be_so_far_behind_the_source_and_no_further() {
        for (rows, source, verdict) in [
            (1000, 1000, Verdict::Passed),
            (1000, 1100, Verdict::Passed),
            (1000, 1101, Verdict::Failed),
            // Rows were deleted since.
            (1000, 3, Verdict::Passed),
        ] {
            assert_eq!(behind("n", rows, source, 100).verdict, verdict, "{source}");
        }
        let seen = behind("n", 1, 1101, 100).seen;
        assert_eq!(
            seen,
            "1100 behind: 1 row, on the source 1101, expected at most 100 behind"
        );
    }

    #[test]
    fn the_newest_row_may_be_so_old_and_no_older() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        let (now, limit) = (at(100_000), Duration::from_secs(3600));
        let verdict = |newest| aged("n", newest, now, limit).verdict;
        assert_eq!(verdict(Some(at(96_400))), Verdict::Passed);
        assert_eq!(verdict(Some(at(96_399))), Verdict::Failed);
        assert_eq!(verdict(Some(at(100_001))), Verdict::Passed);
        assert_eq!(verdict(None), Verdict::Failed);
        let old = aged("n", Some(at(0)), now, limit).seen;
        assert_eq!(
            old,
            "1970-01-01 00:00:00.000000+00, 28 h old, expected at most 60 min"
        );
    }
}
