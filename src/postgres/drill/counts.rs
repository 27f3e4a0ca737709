//! Rows that were counted on the source in one snapshot, at a known place in the WAL. A server that is restored to there has the same. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::checks::{check, refused};
use crate::evidence::record::{Act, Check, Evidence, Record, Verdict};
use crate::plain::counted;
use crate::postgres::catalog::{RestoreRequest, Target, TimelineChoice};
use crate::postgres::types::{Lsn, TimelineId};

/// What the name of each comparison begins with.
pub const COUNTS_OF: &str = "counts of";

/// Counts of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub database: String,
    /// No record lies between the snapshot and here: what it shows is what all records show that begin before.
    pub lsn: Lsn,
    pub timeline: TimelineId,
    /// By the server's clock.
    pub at: DateTime<Utc>,
    /// The transactions that it shows (`pg_snapshot`). Of one that it does not show the commit may be in the WAL already.
    pub snapshot: String,
    pub tables: Vec<TableCounts>,
}

/// Of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCounts {
    pub schema: String,
    pub name: String,
    #[serde(flatten)]
    pub content: Content,
}

/// How many rows, and what is in them in whatever order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub rows: u64,
    /// The sum of hashes of the rows' texts: too large for other numbers.
    pub sum: String,
}

/// What a restored server has of a table.
#[derive(Debug)]
pub enum Found {
    Absent,
    Content(Content),
    /// In the server's words.
    Refused(String),
    /// The time was over.
    Late,
}

impl Counts {
    /// What a record says of them.
    pub fn of_record(record: Record) -> Option<Self> {
        let evidence = record.evidence;
        let is_count = evidence.act == Act::Count;
        let counts = evidence.details.get("counts").filter(|_| is_count);
        serde_json::from_value(counts?.clone()).ok()
    }

    /// The record of them.
    pub fn evidence(&self, began: DateTime<Utc>, ended: DateTime<Utc>) -> Evidence {
        let tables = counted(self.tables.len() as u64, "table");
        Evidence {
            act: Act::Count,
            subject: format!("{tables} of database \"{}\" at {}", self.database, self.lsn),
            scope: None,
            began,
            ended,
            verdict: Verdict::Passed,
            reason: String::new(),
            phases: Vec::new(),
            checks: Vec::new(),
            rto_seconds: None,
            rpo_seconds: None,
            details: serde_json::json!({ "counts": self }),
        }
    }

    /// What restores to them: every record that begins before their place, and none that begins there.
    pub fn request(&self) -> RestoreRequest {
        RestoreRequest {
            target: Target::Lsn(self.lsn),
            inclusive: false,
            timeline: TimelineChoice::Number(self.timeline),
            backup: None,
        }
    }

    /// Compares. `unseen`: transactions that the snapshot does not show, although they are committed at its place in the WAL.
    pub fn judge(&self, found: &[Found], unseen: i64) -> Vec<Check> {
        let tables = self.tables.iter().zip(found);
        tables
            .map(|(table, found)| self.judge_one(table, found, unseen))
            .collect()
    }

    fn judge_one(&self, table: &TableCounts, found: &Found, unseen: i64) -> Check {
        let name = format!(
            "{COUNTS_OF} \"{}\": {}.{}",
            self.database, table.schema, table.name
        );
        let expected = &table.content;
        let mut seen = match found {
            Found::Content(content) if content == expected => {
                let seen = format!("{} as at {}", counted(content.rows, "row"), self.lsn);
                return check(&name, Verdict::Passed, seen);
            }
            Found::Late => {
                let seen = "not counted in the time there was".into();
                return check(&name, Verdict::CouldNotRun, seen);
            }
            Found::Refused(words) => return refused(&name, words.clone()),
            Found::Absent => "the table is not there".to_string(),
            Found::Content(content) if content.rows == expected.rows => {
                format!("{}, and not the same ones", counted(content.rows, "row"))
            }
            Found::Content(content) => {
                format!(
                    "{} instead of {}",
                    counted(content.rows, "row"),
                    expected.rows
                )
            }
        };
        if unseen == 0 {
            return check(&name, Verdict::Failed, seen);
        }
        let unseen = counted(unseen as u64, "transaction");
        seen += &format!("; {unseen} committed just when it was counted: count again");
        check(&name, Verdict::CouldNotRun, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::record::testing::record;

    fn content(rows: u64, sum: &str) -> Content {
        let sum = sum.into();
        Content { rows, sum }
    }

    fn counts() -> Counts {
        Counts {
            database: "shop".into(),
            lsn: Lsn(0x3000158),
            timeline: TimelineId(2),
            at: DateTime::UNIX_EPOCH,
            snapshot: "7:9:7".into(),
            tables: vec![TableCounts {
                schema: "public".into(),
                name: "orders".into(),
                content: content(3, "-9223372036854775809"),
            }],
        }
    }

    #[test]
    fn a_record_gives_the_counts_back() {
        let evidence = counts().evidence(DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH);
        assert_eq!(
            evidence.subject,
            "1 table of database \"shop\" at 0/3000158"
        );
        let text = serde_json::to_string(&record(evidence)).unwrap();
        let read: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(Counts::of_record(read.clone()), Some(counts()));
        let mut other = read;
        other.evidence.act = Act::Drill;
        assert_eq!(Counts::of_record(other), None);
        let arguments = counts().request().arguments();
        assert_eq!(arguments, "--lsn 0/3000158 --exclusive --timeline 2");
    }

    #[test]
    fn what_differs_fails_unless_a_commit_lay_between_its_record_and_its_effect() {
        let verdict = |found, unseen| counts().judge(&[found], unseen)[0].verdict;
        let (same, sum) = (content(3, "-9223372036854775809"), "-9223372036854775809");
        for unseen in [0, 2] {
            assert_eq!(
                verdict(Found::Content(same.clone()), unseen),
                Verdict::Passed
            );
        }
        let differ = || {
            [
                Found::Content(content(2, sum)),
                Found::Content(content(3, "0")),
                Found::Absent,
            ]
        };
        for found in differ() {
            assert_eq!(verdict(found, 0), Verdict::Failed);
        }
        for found in differ() {
            assert_eq!(verdict(found, 1), Verdict::CouldNotRun);
        }
        let refused = |words: &str| verdict(Found::Refused(words.into()), 0);
        assert_eq!(
            refused("ERROR: could not access file \"$libdir/x\""),
            Verdict::CouldNotRun
        );
        assert_eq!(refused("ERROR: invalid page in block 7"), Verdict::Failed);
        assert_eq!(verdict(Found::Late, 0), Verdict::CouldNotRun);
    }
}
