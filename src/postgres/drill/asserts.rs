//! One's own checks: SQL with what it must answer, URLs, and tables that must not come back empty or old. They come from a
//! file.

use std::ops::Range;

use futures_util::future::join_all;
use serde::Deserialize;
use tokio_postgres::SimpleQueryMessage;
use toml::Spanned;

use super::checks::{check, refused};
use super::critical_table::{Compared, TableCheck};
use super::database::{Door, words};
use super::http::HttpCheck;
use crate::error::{one_line, toml_line, toml_problem};
use crate::evidence::record::{Check, Verdict};

/// A question and what is expected of its answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assert {
    name: String,
    database: String,
    sql: String,
    #[serde(flatten)]
    expected: Expected,
}

/// All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Expected {
    /// The first column of the first row, as text.
    value: Option<String>,
    /// It is a number, and not less.
    min: Option<f64>,
    /// It is a number, and not more.
    max: Option<f64>,
    /// So many rows.
    rows: Option<u64>,
}

/// All checks of a file.
#[derive(Debug, Clone, Default)]
pub struct Asserts {
    sql: Vec<Assert>,
    http: Vec<HttpCheck>,
    tables: Vec<TableCheck>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    assert: Vec<Spanned<Assert>>,
    #[serde(default)]
    http: Vec<HttpCheck>,
    #[serde(default)]
    table: Vec<Spanned<TableCheck>>,
}

/// Checks from the text of a file. Errors: why it cannot be understood, with the line.
pub fn parse(text: &str) -> Result<Asserts, String> {
    let file: File = toml::from_str(text).map_err(|error| toml_problem(text, &error))?;
    let line = |span: Range<usize>| toml_line(text, span.start);
    for assert in &file.assert {
        if assert.get_ref().expected == Expected::default() {
            let (line, name) = (line(assert.span()), &assert.get_ref().name);
            return Err(format!(
                "{line}assert \"{name}\" expects nothing: add value, min, max or rows"
            ));
        }
    }
    for table in &file.table {
        if let Some(why) = table.get_ref().wrong() {
            let (line, name) = (line(table.span()), &table.get_ref().table);
            return Err(format!("{line}table \"{name}\": {why}"));
        }
    }
    Ok(Asserts {
        sql: file.assert.into_iter().map(Spanned::into_inner).collect(),
        http: file.http,
        tables: file.table.into_iter().map(Spanned::into_inner).collect(),
    })
}

impl Asserts {
    /// Asks all of a restored server, and of one with a single database only those of this. URLs are asked apart.
    pub async fn ask(
        &self,
        door: &Door,
        compared: &Compared<'_>,
        only: Option<&str>,
    ) -> Vec<Check> {
        let elsewhere = |name: &str, database: &str| {
            let is_other = only.is_some_and(|only| database != only);
            let seen = || format!("it is about database \"{database}\"");
            is_other.then(|| check(name, Verdict::CouldNotRun, seen()))
        };
        let mut checks = Vec::new();
        for assert in &self.sql {
            checks.push(match elsewhere(&assert.name, &assert.database) {
                Some(unasked) => unasked,
                None => ask_one(door, assert).await,
            });
        }
        for table in &self.tables {
            match elsewhere(&table.name(), &table.database) {
                Some(unasked) => checks.push(unasked),
                None => checks.extend(table.ask(door, compared).await),
            }
        }
        checks
    }

    /// Asks all URLs, side by side.
    pub async fn ask_urls(&self) -> Vec<Check> {
        join_all(self.http.iter().map(HttpCheck::ask)).await
    }
}

impl Expected {
    /// What is seen, and whether it is as expected.
    fn judge(&self, rows: &[Option<String>]) -> (bool, String) {
        let first = rows.first().cloned().flatten();
        let number = first
            .as_deref()
            .and_then(|text| text.trim().parse::<f64>().ok());
        let holds = self
            .value
            .as_ref()
            .is_none_or(|value| first.as_ref() == Some(value))
            && self
                .min
                .is_none_or(|min| number.is_some_and(|number| number >= min))
            && self
                .max
                .is_none_or(|max| number.is_some_and(|number| number <= max))
            && self.rows.is_none_or(|wanted| rows.len() as u64 == wanted);
        let mut seen = match (&first, rows.len()) {
            (_, 0) => "no rows".into(),
            (None, count) => format!("null in the first of {count} rows"),
            (Some(first), 1) => first.chars().take(200).collect(),
            (Some(first), count) => format!(
                "{} in the first of {count} rows",
                first.chars().take(200).collect::<String>()
            ),
        };
        if !holds {
            seen += &format!(", expected {}", self.words());
        }
        (holds, seen)
    }

    fn words(&self) -> String {
        let parts = [
            self.value.as_ref().map(|value| format!("\"{value}\"")),
            self.min.map(|min| format!("at least {min}")),
            self.max.map(|max| format!("at most {max}")),
            self.rows.map(|rows| format!("{rows} rows")),
        ];
        parts
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" and ")
    }
}

async fn ask_one(door: &Door, assert: &Assert) -> Check {
    let session = match door.open(&assert.database).await {
        Ok(session) => session,
        Err(error) => return refused(&assert.name, one_line(&error)),
    };
    match session.client.simple_query(&assert.sql).await {
        Err(error) => refused(&assert.name, words(&error)),
        Ok(messages) => {
            let first = |message: SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    Some(row.try_get(0).ok().flatten().map(str::to_string))
                }
                _ => None,
            };
            let rows: Vec<Option<String>> = messages.into_iter().filter_map(first).collect();
            let (holds, seen) = assert.expected.judge(&rows);
            let verdict = if holds {
                Verdict::Passed
            } else {
                Verdict::Failed
            };
            check(&assert.name, verdict, seen)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[assert]]\nname = \"orders\"\ndatabase = \"shop\"\nsql = \"select count(*) from orders\"\nmin = 10\nmax = 20\n";

    #[test]
    fn a_file_is_read_and_what_cannot_be_meant_is_refused_with_its_line() {
        let more = "[[http]]\nname = \"api\"\nurl = \"https://127.0.0.1/health\"\n\
                    [[table]]\ndatabase = \"shop\"\ntable = \"public.orders\"\nmin_rows = 1\nnewest = \"at\"\nnot_older_than = \"26h\"\n";
        let asserts = parse(&format!("{FILE}{more}")).unwrap();
        assert_eq!(asserts.sql[0].expected.max, Some(20.0));
        assert_eq!((asserts.http.len(), asserts.tables.len()), (1, 1));
        assert!(parse("").unwrap().sql.is_empty());
        let table = "\n[[table]]\ndatabase = \"d\"\ntable = \"s.t\"\n";
        for (text, told) in [
            (
                FILE.replace("min = 10\nmax = 20\n", ""),
                "line 1: assert \"orders\" expects nothing",
            ),
            (FILE.replace("sql", "slq"), "line 1: "),
            (FILE.replace("max", "mx"), "unknown field `mx`"),
            (
                format!("{more}headers = 1"),
                "line 10: unknown field `headers`, expected one of `database`",
            ),
            (
                more.replace("/health", "/health\"\nhdr = \"s3cret"),
                "line 4: unknown field `hdr`",
            ),
            (
                more.replace("https", "ftp"),
                "line 3: the URL cannot be used: it begins with neither",
            ),
            (
                more.replace("127.0.0.1", "u:s3cret@h"),
                "line 3: the URL cannot be used: it has a user in it",
            ),
            (
                format!("{}method = \"get it\"", &more[..more.find("[[t").unwrap()]),
                "line 4: a method is a word such as \"GET\"",
            ),
            (
                format!("{}status = 99", &more[..more.find("[[t").unwrap()]),
                "line 4: a status is a number from 100 to 599",
            ),
            (
                format!("{}timeout = \"soon\"", &more[..more.find("[[t").unwrap()]),
                "line 4: \"soon\" is no span",
            ),
            (
                more.replace("public.orders", "orders"),
                "line 6: a table is named with its schema",
            ),
            (
                table.into(),
                "line 2: table \"s.t\": it expects nothing: add min_rows, newest or max_behind",
            ),
            (
                format!("{table}newest = \"at\""),
                "line 2: table \"s.t\": newest needs not_older_than",
            ),
            (
                format!("{table}min_rows = 1\nnot_older_than = \"1h\""),
                "line 2: table \"s.t\": not_older_than needs newest",
            ),
            (format!("{table}max_behind = -1"), "line 5: "),
            (
                "[[tables]]".into(),
                "unknown field `tables`, expected one of `assert`, `http`, `table`",
            ),
        ] {
            let said = parse(&text).unwrap_err();
            assert!(
                said.contains(told) && !said.contains("s3cret"),
                "{said}, not {told}"
            );
        }
    }

    #[test]
    fn what_is_seen_is_compared_with_all_that_is_expected() {
        let rows = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Some(text.to_string()))
                .collect::<Vec<_>>()
        };
        let between = &parse(FILE).unwrap().sql[0].expected;
        assert_eq!(between.judge(&rows(&["15"])), (true, "15".into()));
        assert_eq!(
            between.judge(&rows(&["9"])),
            (false, "9, expected at least 10 and at most 20".into())
        );
        assert!(
            !between.judge(&rows(&["many"])).0
                && !between.judge(&[]).0
                && !between.judge(&[None]).0
        );
        let value = Expected {
            value: Some("t".into()),
            rows: Some(2),
            ..Expected::default()
        };
        assert!(value.judge(&rows(&["t", "f"])).0 && !value.judge(&rows(&["t"])).0);
    }
}
