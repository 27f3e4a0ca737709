//! Moments as people write them: dates with and without seconds, clocks, and how long ago.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::postgres::types::ParseError;

const FORM: &str = "expected YYYY-MM-DD HH:MM[:SS[.ffffff]][offset], such as '2026-01-31 03:00:00+01', RFC 3339, \
                    'today 14:05', 'yesterday 23:10', '14:05' or '20 min ago'";

/// Reads a moment: RFC 3339, `YYYY-MM-DD HH:MM[:SS[.ffffff]][±HH[:MM]]`, the same with `today` or `yesterday` or without a
/// date, or `20 min ago`. The flag says whether it was said in full; else days and clocks are those of UTC.
pub fn parse_time(text: &str, now: DateTime<Utc>) -> Result<(DateTime<Utc>, bool), ParseError> {
    let refuse = |why: &str| ParseError {
        what: "time",
        value: text.into(),
        why: why.into(),
    };
    let trimmed = text.trim();
    if let Some(spans) = trimmed.strip_suffix("ago") {
        let ago = ago(spans).ok_or_else(|| {
            refuse("expected numbers with s, min, h, days or weeks, such as '20 min ago'")
        })?;
        let time = now
            .checked_sub_signed(ago)
            .ok_or_else(|| refuse("it is out of range"))?;
        return Ok((time, false));
    }
    let (day, rest, dated) = day(trimmed, now).ok_or_else(|| refuse(FORM))?;
    let at = rest
        .find(['Z', 'z', 'U', '+', '-', ' '])
        .unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(at);
    if clock
        .split_once('.')
        .is_some_and(|(_, fraction)| fraction.len() > 6)
    {
        return Err(refuse(
            "PostgreSQL counts microseconds: at most six digits of a second",
        ));
    }
    let (clock, leap) = of_day(clock).ok_or_else(|| refuse(FORM))?;
    let zone = zone.trim();
    let offset = offset_seconds(zone)
        .ok_or_else(|| refuse("its offset from UTC is none such as Z, +01 or -05:30"))?;
    let utc = day
        .and_time(clock)
        .checked_add_signed(leap - TimeDelta::seconds(offset));
    let utc = utc.ok_or_else(|| refuse("it is out of range"))?.and_utc();
    if !dated && utc > now {
        return Err(refuse(
            "it is still to come today, by UTC: say which day, such as 'yesterday 23:10'",
        ));
    }
    Ok((utc, dated && !zone.is_empty()))
}

/// The day, the clock with its zone, and whether it was said which day.
fn day(text: &str, now: DateTime<Utc>) -> Option<(NaiveDate, &str, bool)> {
    let today = now.date_naive();
    if let Some(rest) = text.strip_prefix("today ") {
        return Some((today, rest.trim_start(), true));
    }
    if let Some(rest) = text.strip_prefix("yesterday ") {
        return Some((today.pred_opt()?, rest.trim_start(), true));
    }
    if text.as_bytes().get(2) == Some(&b':') {
        return Some((today, text, false));
    }
    let (date, rest) = text.split_at_checked(11)?;
    let date = date.strip_suffix(['T', 't', ' '])?;
    Some((
        NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?,
        rest,
        true,
    ))
}

/// A clock, and what to add: PostgreSQL takes second 60 for the next minute.
fn of_day(clock: &str) -> Option<(NaiveTime, TimeDelta)> {
    let form = |clock: &str| {
        let is_short = clock.matches(':').count() == 1;
        NaiveTime::parse_from_str(clock, if is_short { "%H:%M" } else { "%H:%M:%S%.f" }).ok()
    };
    match clock.split_at_checked(6) {
        Some((minute, second)) if second.starts_with("60") => {
            let time = form(&format!("{minute}59{}", &second[2..]))?;
            Some((time, TimeDelta::seconds(1)))
        }
        _ => Some((form(clock)?, TimeDelta::zero())),
    }
}

/// The sum of spans, such as `1 h 20 min`.
fn ago(spans: &str) -> Option<TimeDelta> {
    let (mut rest, mut sum) = (spans.trim(), TimeDelta::zero());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        // Minutes or months: what an "m" is nobody knows.
        let unit = match &rest[..letters] {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(&TimeDelta::try_seconds(number.checked_mul(unit)?)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(sum)
}

/// Seconds east of UTC.
fn offset_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next() {
        None => return Some(0),
        Some('Z' | 'z') => return (zone.len() == 1).then_some(0),
        Some('U') => return (zone == "UTC").then_some(0),
        Some('+') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    let digits = zone[1..].replace(':', "");
    let number = |text: &str, below: i64| text.parse::<i64>().ok().filter(|n| *n < below);
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let minutes = if digits.len() == 4 {
        number(&digits[2..], 60)?
    } else {
        0
    };
    Some(sign * (number(&digits[..2], 16)? * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::super::postgresql_time;
    use super::*;

    fn parse(text: &str) -> Result<(String, bool), ParseError> {
        let now = "2026-03-01T15:00:00Z".parse().unwrap();
        parse_time(text, now).map(|(time, in_full)| (postgresql_time(time), in_full))
    }

    #[test]
    fn a_moment_reads_in_all_forms_and_is_written_with_its_offset() {
        for (text, expected, in_full) in [
            (
                "2026-01-31 03:00:00",
                "2026-01-31 03:00:00.000000+00",
                false,
            ),
            ("2026-01-31 03:00", "2026-01-31 03:00:00.000000+00", false),
            ("2026-01-31T03:00+01", "2026-01-31 02:00:00.000000+00", true),
            (
                "2026-01-31 03:00:00.25+01",
                "2026-01-31 02:00:00.250000+00",
                true,
            ),
            (
                "2026-01-31T03:00:00.123456-05:30",
                "2026-01-31 08:30:00.123456+00",
                true,
            ),
            (
                "2026-01-31T03:00:00Z",
                "2026-01-31 03:00:00.000000+00",
                true,
            ),
            (
                "2026-01-31 03:00:00 +0100",
                "2026-01-31 02:00:00.000000+00",
                true,
            ),
            (
                "2026-01-31 03:00:00 UTC",
                "2026-01-31 03:00:00.000000+00",
                true,
            ),
            (
                "2026-01-31 23:59:60",
                "2026-02-01 00:00:00.000000+00",
                false,
            ),
            (
                "2026-01-31 23:59:60.25Z",
                "2026-02-01 00:00:00.250000+00",
                true,
            ),
            ("today 14:05", "2026-03-01 14:05:00.000000+00", false),
            ("today 14:05:07+01", "2026-03-01 13:05:07.000000+00", true),
            ("yesterday 23:10", "2026-02-28 23:10:00.000000+00", false),
            ("14:05", "2026-03-01 14:05:00.000000+00", false),
            ("20 min ago", "2026-03-01 14:40:00.000000+00", false),
            ("20 minutes ago", "2026-03-01 14:40:00.000000+00", false),
            ("2h ago", "2026-03-01 13:00:00.000000+00", false),
            ("1 h 20 min ago", "2026-03-01 13:40:00.000000+00", false),
            ("1 day ago", "2026-02-28 15:00:00.000000+00", false),
            ("2 weeks ago", "2026-02-15 15:00:00.000000+00", false),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                (expected.to_string(), in_full),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "yesterday",
            "today",
            "infinity",
            "ago",
            "20 ago",
            "20 m ago",
            "min ago",
            "9223372036854775807 weeks ago",
            "2026-01-31",
            "2026-02-30 00:00:00",
            "2026-01-31T25:00:00",
            "2026-13-01 00:00:00",
            "2026-01-31 03:00:61",
            "2026-01-31 03:00:00 CET",
            "2026-01-31 03:00:00.1234567",
            "2026-01-31 03:00:00+1",
            "2026-01-31 03:00:00+01:99",
            "ä026-01-31 03:00:00",
            "today",
            "15:01",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
