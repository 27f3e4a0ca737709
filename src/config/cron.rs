//! When something is to happen: cron expressions and time zones, as settings hold them.

use std::fmt;
use std::str::FromStr;

use chrono::{NaiveDate, NaiveDateTime};
use croner::parser::{CronParser, Seconds, Year};

/// Short names, and what they stand for.
const NAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A cron expression of five fields, as every cron reads it: minute, hour, day of the month, month, day of the week. It
/// speaks of the time on the wall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
}

impl Cron {
    /// The first moment after another one, or that one itself, on the wall.
    pub fn next(&self, from: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        self.parsed.find_next_occurrence(&from, inclusive).ok()
    }

    /// Whether it has moments in every hour of a day.
    pub fn is_each_hour(&self) -> bool {
        self.hours().len() == 24
    }

    /// The minutes of an hour.
    pub fn minutes(&self) -> Vec<u32> {
        let matches = |minute: &u32| self.parsed.pattern.minute_match(*minute).unwrap_or(false);
        (0..60).filter(matches).collect()
    }

    /// The hours of a day.
    pub fn hours(&self) -> Vec<u32> {
        let matches = |hour: &u32| self.parsed.pattern.hour_match(*hour).unwrap_or(false);
        (0..24).filter(matches).collect()
    }

    /// The months, from 1.
    pub fn months(&self) -> Vec<u32> {
        let matches = |month: &u32| self.parsed.pattern.month_match(*month).unwrap_or(false);
        (1..=12).filter(matches).collect()
    }

    /// The days of a month, where not any will do.
    pub fn days_of_month(&self) -> Option<Vec<u32>> {
        let field = self.text.split(' ').nth(2).filter(|field| *field != "*")?;
        let alone: Self = format!("0 0 {field} * *").parse().ok()?;
        let of_january = |day: &u32| alone.matches_day(2024, *day);
        Some((1..=31).filter(of_january).collect())
    }

    /// The days of a week, from Sunday, which is 0, where not any will do. With [`days_of_month`](Self::days_of_month)
    /// either will do.
    pub fn days_of_week(&self) -> Option<Vec<u32>> {
        let field = self.text.split(' ').nth(4).filter(|field| *field != "*")?;
        let alone: Self = format!("0 0 * * {field}").parse().ok()?;
        // January 2023 began with a Sunday.
        let of_week = |day: &u32| alone.matches_day(2023, *day + 1);
        Some((0..7).filter(of_week).collect())
    }

    /// Whether midnight of a day of January is one of its moments.
    fn matches_day(&self, year: i32, day: u32) -> bool {
        let midnight = NaiveDate::from_ymd_opt(year, 1, day).map(NaiveDateTime::from);
        midnight.is_some_and(|midnight| self.next(midnight, true) == Some(midnight))
    }
}

impl FromStr for Cron {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let named = NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        let text = match named {
            Some((_, fields)) => (*fields).to_string(),
            None => text
                .split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .to_ascii_uppercase(),
        };
        if text.split(' ').count() != 5 || !text.split(' ').all(is_plain_field) {
            return Err("allowed is a cron expression of five fields".into());
        }
        let days: Vec<&str> = text.split(' ').skip(2).step_by(2).collect();
        if days.iter().any(|field| field.starts_with("*/")) && !days.contains(&"*") {
            // Some crons want one of the two, others both.
            return Err(
                "write the days as a list: crons do not agree on what \"*/\" means here".into(),
            );
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser
            .parse(&text)
            .map_err(|error| format!("it is no cron expression: {error}"))?;
        let cron = Self { text, parsed };
        // From here a leap day is nine years away at most.
        let from = NaiveDate::from_ymd_opt(2024, 3, 1).unwrap_or_default();
        match cron.next(from.into(), true) {
            Some(_) => Ok(cron),
            None => Err("no day of the calendar ever matches it".into()),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What every cron reads: numbers, names of three letters, `*`, lists, ranges and steps.
fn is_plain_field(field: &str) -> bool {
    field.split([',', '-', '/']).all(|part| {
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let is_name = part.len() == 3 && part.bytes().all(|b| b.is_ascii_alphabetic());
        part == "*" || is_number || is_name
    })
}

/// A time zone of the IANA database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeZone(pub chrono_tz::Tz);

impl FromStr for TimeZone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            "allowed is a name of the IANA database, such as \"UTC\" or \"Europe/Berlin\"".into()
        })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_what_every_cron_reads() {
        for (text, shown) in [
            ("0 2 * * 0", "0 2 * * 0"),
            (
                "  */15   8-18/2 1,15 jan-MAR,12 mon-fri ",
                "*/15 8-18/2 1,15 JAN-MAR,12 MON-FRI",
            ),
            ("@hourly", "0 * * * *"),
            ("@Weekly", "0 0 * * 0"),
        ] {
            assert_eq!(text.parse::<Cron>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "hourly",
            "@reboot",
            "0 2 * *",
            "0 0 2 * * 0",
            "60 * * * *",
            "0 24 * * *",
            "0 0 0 * *",
            "0 0 L * *",
            "0 0 * * 5#2",
            "0 0 15W * *",
            "0 0 ? * *",
            "0 0 +1 * 1",
            "0 0 31 2 *",
            "0 0 30 FEB *",
            "a b c d e",
            "0 0 */2 * 1",
            "0 0 1 * */2",
        ] {
            assert!(wrong.parse::<Cron>().is_err(), "{wrong:?}");
        }
        assert!("0 0 29 2 *".parse::<Cron>().is_ok(), "a leap day comes");
        assert!(
            "0 0 31 2 1".parse::<Cron>().is_ok(),
            "both days: either will do"
        );
    }

    #[test]
    fn its_parts_can_be_listed() {
        let cron: Cron = "*/30 9-17/4 1,15 JAN,jul 5-7".parse().unwrap();
        assert_eq!(
            (cron.minutes(), cron.hours()),
            (vec![0, 30], vec![9, 13, 17])
        );
        assert_eq!(cron.months(), [1, 7]);
        assert_eq!(cron.days_of_month(), Some(vec![1, 15]));
        assert_eq!(cron.days_of_week(), Some(vec![0, 5, 6]), "7 is Sunday, too");
        let any: Cron = "0 2 * * *".parse().unwrap();
        assert_eq!((any.days_of_month(), any.days_of_week()), (None, None));
    }

    #[test]
    fn only_what_runs_in_every_hour_is_hourly() {
        let each = |text: &str| text.parse::<Cron>().unwrap().is_each_hour();
        assert!(each("5 * * * *") && each("0 0-23 * * 1"));
        assert!(!each("0 2 * * *") && !each("0 */2 * * *"));
    }

    #[test]
    fn a_zone_is_one_of_the_database() {
        assert_eq!(
            "Europe/Berlin".parse::<TimeZone>().unwrap().to_string(),
            "Europe/Berlin"
        );
        for wrong in ["", "Berlin", "+02:00", "CEST", "europe/berlin"] {
            assert!(wrong.parse::<TimeZone>().is_err(), "{wrong:?}");
        }
    }
}
