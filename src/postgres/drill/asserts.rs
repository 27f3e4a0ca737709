//! One's own checks: SQL with what it must answer. They come from a file.

use serde::Deserialize;
use tokio_postgres::SimpleQueryMessage;

use super::checks::{check, refused};
use super::database::{Door, words};
use crate::error::{one_line, toml_problem};
use crate::evidence::record::{Check, Verdict};

/// A question and what is expected of its answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    pub name: String,
    pub database: String,
    pub sql: String,
    #[serde(flatten)]
    pub expected: Expected,
}

/// All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Expected {
    /// The first column of the first row, as text.
    pub value: Option<String>,
    /// It is a number, and not less.
    pub min: Option<f64>,
    /// It is a number, and not more.
    pub max: Option<f64>,
    /// So many rows.
    pub rows: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    assert: Vec<Assert>,
}

/// Asserts from the text of a file. Errors: why it cannot be understood, with the line.
pub fn parse(text: &str) -> Result<Vec<Assert>, String> {
    let file: File = toml::from_str(text).map_err(|error| toml_problem(text, &error))?;
    match file
        .assert
        .iter()
        .find(|assert| assert.expected == Expected::default())
    {
        Some(assert) => Err(format!(
            "assert \"{}\" expects nothing: add value, min, max or rows",
            assert.name
        )),
        None => Ok(file.assert),
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

/// Asks all of a restored server; of one with a single database only those of this.
pub async fn ask(door: &Door, asserts: &[Assert], only: Option<&str>) -> Vec<Check> {
    let mut checks = Vec::new();
    for assert in asserts {
        checks.push(match only {
            Some(only) if assert.database != only => {
                let seen = format!("it is about database \"{}\"", assert.database);
                check(&assert.name, Verdict::CouldNotRun, seen)
            }
            _ => ask_one(door, assert).await,
        });
    }
    checks
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
    fn a_file_is_read_and_an_assert_that_expects_nothing_is_refused() {
        let asserts = parse(FILE).unwrap();
        assert_eq!(asserts[0].expected.max, Some(20.0));
        assert!(parse("").unwrap().is_empty());
        let nothing = FILE.replace("min = 10\nmax = 20\n", "");
        assert!(
            parse(&nothing)
                .unwrap_err()
                .contains("\"orders\" expects nothing")
        );
        assert!(parse(&FILE.replace("sql", "slq")).is_err());
    }

    #[test]
    fn what_is_seen_is_compared_with_all_that_is_expected() {
        let rows = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Some(text.to_string()))
                .collect::<Vec<_>>()
        };
        let between = &parse(FILE).unwrap()[0].expected;
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
