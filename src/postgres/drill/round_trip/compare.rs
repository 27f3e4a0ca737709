//! What came back, compared with what is known.

use anyhow::Context;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::known::{Question, Rows};
use crate::evidence::record::{Check, Verdict};
use crate::plain::plain;
use crate::postgres::drill::checks::{check, refused};
use crate::postgres::drill::database::words;

/// Values as text are as the server writes them by these alone.
const SESSION: &str = "set search_path = ''; set DateStyle = 'ISO, MDY'; set IntervalStyle = 'postgres'; set TimeZone = 'UTC'; \
    set bytea_output = 'hex'; set extra_float_digits = 1";
/// So much of a value is told.
const TOLD: usize = 60;

/// Asks each question, and compares.
pub async fn ask(client: &Client, questions: &[Question]) -> anyhow::Result<Vec<Check>> {
    let set = client.batch_execute(SESSION).await;
    set.context("cannot set a session with the restored server")?;
    let mut checks = Vec::new();
    for question in questions {
        checks.push(match client.simple_query(&question.sql).await {
            Ok(answer) => compare(question, &rows(&answer)),
            Err(error) => refused(question.name, words(&error)),
        });
    }
    Ok(checks)
}

fn rows(answer: &[SimpleQueryMessage]) -> Rows {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|at| row.get(at).map(str::to_string));
            Some(values.collect())
        }
        _ => None,
    };
    answer.iter().filter_map(row).collect()
}

/// Whether all is as it was, and else the first that is not.
fn compare(question: &Question, found: &Rows) -> Check {
    let expected = &question.expected;
    let differing = expected
        .iter()
        .zip(found)
        .enumerate()
        .find_map(|(at, (expected, found))| {
            let values = expected.iter().zip(found).enumerate();
            let (column, (expected, found)) =
                values.into_iter().find(|(_, (one, other))| one != other)?;
            let (expected, found) = (told(expected.as_deref()), told(found.as_deref()));
            Some(format!(
                "row {}, column {}: {found} instead of {expected}",
                at + 1,
                column + 1
            ))
        });
    let problem = match expected.len() == found.len() {
        true => differing,
        false => Some(format!(
            "{} rows instead of {}",
            found.len(),
            expected.len()
        )),
    };
    match problem {
        Some(problem) => check(question.name, Verdict::Failed, problem),
        None => {
            let values = expected.iter().map(Vec::len).sum::<usize>();
            let seen = format!(
                "{values} in {}",
                crate::plain::counted(expected.len() as u64, "row")
            );
            check(question.name, Verdict::Passed, seen)
        }
    }
}

fn told(value: Option<&str>) -> String {
    let Some(value) = value else {
        return "NULL".into();
    };
    let short: String = value.chars().take(TOLD).collect();
    let more = if short.len() < value.len() { "…" } else { "" };
    format!("\"{}{more}\"", plain(&short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(rows: &[&[Option<&str>]]) -> Rows {
        let row =
            |row: &&[Option<&str>]| row.iter().map(|value| value.map(str::to_string)).collect();
        rows.iter().map(row).collect()
    }

    #[test]
    fn the_first_difference_is_told_and_null_is_no_text() {
        let question = Question {
            name: "values",
            sql: String::new(),
            expected: rows_of(&[&[Some("1"), None], &[Some("2"), Some("")]]),
        };
        let seen = |found: &[&[Option<&str>]]| {
            let judged = compare(&question, &rows_of(found));
            (judged.verdict, judged.seen)
        };
        assert_eq!(
            seen(&[&[Some("1"), None], &[Some("2"), Some("")]]),
            (Verdict::Passed, "4 in 2 rows".into())
        );
        assert_eq!(
            seen(&[&[Some("1"), None], &[Some("2"), None]]),
            (
                Verdict::Failed,
                "row 2, column 2: NULL instead of \"\"".into()
            )
        );
        assert_eq!(
            seen(&[&[Some("1"), Some("x")], &[Some("2"), Some("")]]),
            (
                Verdict::Failed,
                "row 1, column 2: \"x\" instead of NULL".into()
            )
        );
        assert_eq!(
            seen(&[&[Some("1"), None]]),
            (Verdict::Failed, "1 rows instead of 2".into())
        );
    }
}
