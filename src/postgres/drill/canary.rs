//! Canaries: rows of a small table of Walden's own on the source. In a restored server each can be checked, and the newest tells
//! how old the data there is. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::checks::check;
use crate::evidence::record::{Check, Verdict};
use crate::postgres::dump::digest::Hex;

/// What is written and committed a little later than it is due.
const GRACE: TimeDelta = TimeDelta::minutes(1);
/// The checks.
const WHOLE: &str = "canary";
pub const RPO_BY_CANARY: &str = "RPO by canary";

/// A row, as the texts of which its digest is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    pub id: String,
    /// When it was written, by the server's clock: RFC 3339, UTC, microseconds.
    pub at: String,
    /// Random bytes in hexadecimal digits.
    pub value: String,
    /// JSON, as the server shows it.
    pub about: String,
    pub digest: String,
}

/// What Walden writes beside the random bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct About {
    /// The version of Walden.
    pub walden: String,
    /// The digest of the row before; absent of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

impl Canary {
    /// The digest that it must have: SHA-256 of the four texts, each on a line of its own.
    pub fn digested(&self) -> String {
        let Self {
            id,
            at,
            value,
            about,
            ..
        } = self;
        let text = format!("{id}\n{at}\n{value}\n{about}");
        Hex::<32>(Sha256::digest(text).into()).to_string()
    }

    fn time(&self) -> Option<DateTime<Utc>> {
        self.at.parse().ok()
    }

    fn follows(&self, before: &Self) -> bool {
        let about = serde_json::from_str::<About>(&self.about).unwrap_or_default();
        about.previous.as_ref() == Some(&before.digest)
    }
}

/// What is known of canaries apart from a restored server.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// From when their age counts: the moment that was restored to; where that was the latest, now.
    pub reference: DateTime<Utc>,
    /// Until when what is archived is known to reach.
    pub reaches: Option<DateTime<Utc>>,
    /// The newest that is there until then is no older than this, if they are written as scheduled.
    pub pause: Option<TimeDelta>,
    pub rpo_target: Option<Duration>,
    /// An earlier drill saw one of this time.
    pub seen_before: Option<DateTime<Utc>>,
}

/// The newest one that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenCanary {
    pub database: String,
    pub id: String,
    pub at: DateTime<Utc>,
    /// How many there are.
    pub rows: usize,
    /// How much older it is than the moment that was restored to; where that was the latest, than the drill.
    pub age_seconds: f64,
}

/// What a restored server has, in the order of the ids.
pub fn judge(
    database: &str,
    rows: &[Canary],
    expected: &Expected,
) -> (Vec<Check>, Option<SeenCanary>) {
    let Some(newest) = rows.last() else {
        return (vec![absent(expected)], None);
    };
    let damaged = damage(rows);
    let Some(at) = newest.time().filter(|_| damaged.is_none()) else {
        let seen = damaged.unwrap_or_else(|| not_as_written(newest));
        return (vec![check(WHOLE, Verdict::Failed, seen)], None);
    };
    let age = (expected.reference - at).max(TimeDelta::zero());
    let found = SeenCanary {
        database: database.into(),
        id: newest.id.clone(),
        at,
        rows: rows.len(),
        age_seconds: age.as_seconds_f64(),
    };
    let seen = format!(
        "{} as written, the newest {:.1} s old: number {} of {}",
        rows.len(),
        found.age_seconds,
        found.id,
        newest.at
    );
    let mut checks = vec![check(WHOLE, Verdict::Passed, seen)];
    let target = expected.rpo_target;
    checks.extend(target.map(|target| aged(at, age, target, expected)));
    (checks, Some(found))
}

fn absent(expected: &Expected) -> Check {
    let gone = expected.seen_before.filter(|at| *at <= expected.reference);
    match gone {
        Some(at) => {
            let at = at.format("%Y-%m-%d %H:%M:%S UTC");
            let seen = format!(
                "there is none, and an earlier drill saw one of {at}: was walden.canary dropped?"
            );
            check(WHOLE, Verdict::Failed, seen)
        }
        None => {
            let seen = "none had been written by then; `walden drill canary` writes them";
            check(WHOLE, Verdict::CouldNotRun, seen.into())
        }
    }
}

/// The first row that is not as it was written, or does not follow the one before it.
fn damage(rows: &[Canary]) -> Option<String> {
    let changed = rows.iter().find(|row| row.digest != row.digested());
    let gap = || rows.windows(2).find(|pair| !pair[1].follows(&pair[0]));
    match changed {
        Some(row) => Some(not_as_written(row)),
        None => gap().map(|pair| {
            let (before, id) = (&pair[0].id, &pair[1].id);
            format!("number {id} does not follow {before}: one between them is gone")
        }),
    }
}

fn not_as_written(row: &Canary) -> String {
    format!(
        "number {} is not as it was written: its digest differs",
        row.id
    )
}

/// Whether the data is as new as wanted. The newest canary is an upper bound of its age; a lower one is when the next should
/// have been written.
fn aged(
    at: DateTime<Utc>,
    age: TimeDelta,
    target: Duration,
    Expected { reaches, pause, .. }: &Expected,
) -> Check {
    let target = TimeDelta::from_std(target).unwrap_or(TimeDelta::MAX);
    let seconds = |span: TimeDelta| format!("{:.0} s", span.as_seconds_f64());
    let measured = format!("{}, at most {} wanted", seconds(age), seconds(target));
    if age <= target {
        return check(RPO_BY_CANARY, Verdict::Passed, measured);
    }
    let (verdict, why) = match (pause, reaches) {
        (None, _) => (
            Verdict::CouldNotRun,
            "without `schedule.canary` it is not known when another was to come".into(),
        ),
        (Some(pause), Some(reaches)) if *reaches - at > *pause + GRACE => {
            let reaches = reaches.format("%Y-%m-%d %H:%M:%S UTC");
            let why = format!(
                "none was written since, and the WAL reaches {reaches}: does the job canary run?"
            );
            (Verdict::CouldNotRun, why)
        }
        (Some(pause), _) if age - *pause <= target => {
            let why = format!("one each {} is too rare to tell", seconds(*pause));
            (Verdict::CouldNotRun, why)
        }
        _ => (Verdict::Failed, "what was written since is missing".into()),
    };
    check(RPO_BY_CANARY, verdict, format!("{measured}; {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    /// Rows that were written in these seconds, one after the other.
    fn rows(seconds: &[i64]) -> Vec<Canary> {
        let mut rows: Vec<Canary> = Vec::new();
        for (number, at) in seconds.iter().enumerate() {
            let about = About {
                walden: "1".into(),
                previous: rows.last().map(|row| row.digest.clone()),
            };
            let mut row = Canary {
                id: (number + 1).to_string(),
                at: second(*at).format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
                value: "ab".into(),
                about: serde_json::to_string(&about).unwrap(),
                digest: String::new(),
            };
            row.digest = row.digested();
            rows.push(row);
        }
        rows
    }

    fn verdicts(rows: &[Canary], expected: &Expected) -> Vec<Verdict> {
        let (checks, _) = judge("shop", rows, expected);
        checks.iter().map(|check| check.verdict).collect()
    }

    #[test]
    fn the_digest_is_what_anybody_computes() {
        let [row] = &rows(&[0])[..] else { panic!() };
        assert_eq!(row.at, "2027-01-15T08:00:00.000000Z");
        // printf '1\n2027-01-15T08:00:00.000000Z\nab\n{"walden":"1"}' | sha256sum
        let expected = "e07e6a734b223f8d61a33343f87dc8ab622de5e9eef56b8720a56e8c5293f3f2";
        assert_eq!(row.digest, expected);
    }

    #[test]
    fn each_row_is_as_it_was_written_and_none_between_two_is_gone() {
        let whole = rows(&[0, 60, 120]);
        let expected = Expected {
            reference: second(130),
            ..Expected::default()
        };
        let (checks, seen) = judge("shop", &whole, &expected);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Passed));
        let seen = seen.unwrap();
        assert_eq!(
            (seen.id.as_str(), seen.rows, seen.age_seconds),
            ("3", 3, 10.0)
        );
        // The oldest are removed by Walden itself.
        assert_eq!(verdicts(&whole[1..], &expected), [Verdict::Passed]);
        let gone = [whole[0].clone(), whole[2].clone()];
        assert_eq!(verdicts(&gone, &expected), [Verdict::Failed]);
        let changes: [fn(&mut Canary); 5] = [
            |row| row.id = "9".into(),
            |row| row.at = row.at.replace("08", "09"),
            |row| row.value = "ac".into(),
            |row| row.about = row.about.replace('1', "2"),
            |row| row.digest = "0".repeat(64),
        ];
        for change in changes {
            let mut changed = rows(&[0, 60, 120]);
            change(&mut changed[1]);
            assert_eq!(verdicts(&changed, &expected), [Verdict::Failed]);
        }
    }

    #[test]
    fn that_there_is_none_is_a_failure_only_if_there_was_one_before() {
        let mut expected = Expected {
            reference: second(0),
            ..Expected::default()
        };
        assert_eq!(verdicts(&[], &expected), [Verdict::CouldNotRun]);
        expected.seen_before = Some(second(60));
        assert_eq!(verdicts(&[], &expected), [Verdict::CouldNotRun]);
        expected.seen_before = Some(second(-60));
        assert_eq!(verdicts(&[], &expected), [Verdict::Failed]);
    }

    #[test]
    fn an_old_canary_fails_only_where_a_newer_one_was_written_and_is_missing() {
        let of = |reference, reaches, pause: Option<i64>| Expected {
            reference: second(reference),
            reaches: Some(second(reaches)),
            pause: pause.map(TimeDelta::seconds),
            rpo_target: Some(Duration::from_secs(300)),
            seen_before: None,
        };
        let verdict = |expected: &Expected| verdicts(&rows(&[0]), expected)[1];
        for (reference, reaches, pause, expected) in [
            (299, 250, Some(120), Verdict::Passed),
            (299, 250, None, Verdict::Passed),
            // Archiving stopped.
            (4000, 100, Some(120), Verdict::Failed),
            // The job stopped: data of later is there.
            (4000, 3990, Some(120), Verdict::CouldNotRun),
            // One each hour.
            (4000, 3500, Some(4200), Verdict::CouldNotRun),
            (9000, 3500, Some(4200), Verdict::Failed),
            (4000, 100, None, Verdict::CouldNotRun),
        ] {
            let told = verdict(&of(reference, reaches, pause));
            assert_eq!(told, expected, "{reference} {reaches} {pause:?}");
        }
    }
}
