//! What a restore is asked for: a recovery target, and the choices around it.

use std::fmt;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::Serialize;

use super::event_target::EventTarget;
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, ParseError, TimelineId};
use crate::postgres::wal::Xid;

/// Where replay stops; each as PostgreSQL understands it (xlogrecovery.c, recoveryStopsBefore and -After).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "lowercase")]
pub enum Target {
    /// Before the first commit or abort later than this; exclusive: not earlier than this.
    Time(DateTime<Utc>),
    /// After the first record that begins at or after this; exclusive: before it.
    Lsn(Lsn),
    /// After this transaction's commit or abort; exclusive: before it. Without the epoch, which WAL does not have.
    Xid(Xid),
    /// After the first restore point of this name.
    Name(String),
    /// After something that happened; exclusive: just before it.
    Event(EventTarget),
    /// As soon as the cluster is consistent: at the backup's end.
    Immediate,
    /// After all WAL that is archived.
    Latest,
}

/// PostgreSQL keeps 63 bytes of a restore point's name (MAXFNAMELEN).
const LONGEST_NAME: usize = 63;
/// Smaller ones are not given to transactions (transam.h, FirstNormalTransactionId).
const FIRST_XID: Xid = 3;

impl Target {
    /// The end of the transaction with an id as text. Errors: WAL has no such id.
    pub fn xid(text: &str) -> Result<Self, ParseError> {
        match text.parse::<u64>() {
            Ok(xid) if xid > Xid::MAX.into() => {
                // The same low bits come again with each epoch, and which of them is meant WAL does not tell.
                let why = format!("it has an epoch, and WAL has only the low 32 bits, {}", xid as Xid);
                Err(wrong("transaction id", text, &why))
            }
            Ok(xid) if xid >= FIRST_XID.into() => Ok(Self::Xid(xid as Xid)),
            _ => Err(wrong("transaction id", text, &format!("expected a number from {FIRST_XID}"))),
        }
    }

    /// The restore point of a name. Errors: PostgreSQL makes none of that name.
    pub fn restore_point(name: &str) -> Result<Self, ParseError> {
        match name.len() {
            1..=LONGEST_NAME if !name.contains('\0') => Ok(Self::Name(name.into())),
            _ => Err(wrong("name of a restore point", name, &format!("expected 1 to {LONGEST_NAME} bytes"))),
        }
    }

    /// Whether it makes a difference if what lies exactly there is replayed.
    pub fn can_be_exclusive(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Lsn(_) | Self::Xid(_))
    }
}

/// Which path of timelines to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TimelineChoice {
    /// The one with the highest number in the repository.
    Latest,
    /// The backup's own.
    Current,
    Number(TimelineId),
}

/// Everything that decides what is restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    pub target: Target,
    /// Whether what lies exactly at the target is replayed too; without effect on name, immediate and latest.
    pub inclusive: bool,
    pub timeline: TimelineChoice,
    /// Restore this backup; else the plan chooses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
}

impl Request {
    /// The target on the latest timeline, inclusive, from the backup that fits best.
    pub fn new(target: Target) -> Self {
        Self { target, inclusive: true, timeline: TimelineChoice::Latest, backup: None }
    }

    /// The arguments of `walden restore` that ask for this.
    pub fn arguments(&self) -> String {
        let mut text = match &self.target {
            Target::Event(event) if self.inclusive => format!("--after {}", event.id),
            Target::Event(event) => format!("--before {}", event.id),
            Target::Time(time) => format!("--time '{}'", postgresql_time(*time)),
            Target::Lsn(lsn) => format!("--lsn {lsn}"),
            Target::Xid(xid) => format!("--xid {xid}"),
            Target::Name(name) => format!("--name '{}'", name.replace('\'', "'\\''")),
            Target::Immediate => "--immediate".into(),
            Target::Latest => "--latest".into(),
        };
        if !self.inclusive && !matches!(self.target, Target::Event(_)) {
            text.push_str(" --exclusive");
        }
        match self.timeline {
            TimelineChoice::Latest => (),
            choice => text.push_str(&format!(" --timeline {choice}")),
        }
        if let Some(backup) = &self.backup {
            text.push_str(&format!(" --backup {backup}"));
        }
        text
    }

    /// The command that asks for this.
    pub fn command(&self) -> String {
        format!("walden restore {} --to-dir DIR", self.arguments())
    }

    /// The target in words.
    pub fn words(&self) -> String {
        match (&self.target, self.inclusive) {
            (Target::Time(time), true) => {
                format!("all transactions that ended at or before {}", postgresql_time(*time))
            }
            (Target::Time(time), false) => format!("all transactions that ended before {}", postgresql_time(*time)),
            (Target::Lsn(lsn), true) => {
                format!("up to and including the first WAL record that begins at or after {lsn}")
            }
            (Target::Lsn(lsn), false) => format!("all WAL records that begin before {lsn}"),
            (Target::Xid(xid), true) => format!("up to and including the end of transaction {xid}"),
            (Target::Xid(xid), false) => format!("up to just before the end of transaction {xid}"),
            (Target::Name(name), _) => format!("up to the first restore point \"{name}\""),
            (Target::Event(event), true) => format!("up to and including {}", event.words),
            (Target::Event(event), false) => format!("up to just before {}", event.words),
            (Target::Immediate, _) => "as soon as the cluster is consistent: the end of the backup".into(),
            (Target::Latest, _) => "everything that is archived".into(),
        }
    }
}

impl fmt::Display for TimelineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Current => f.write_str("current"),
            // Eight digits are read as a file name's.
            Self::Number(number) if (10_000_000..100_000_000).contains(&number.0) => write!(f, "{:08X}", number.0),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl std::str::FromStr for TimelineChoice {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "latest" => Ok(Self::Latest),
            "current" => Ok(Self::Current),
            // As in names of files; decimal numbers are shorter.
            name if name.len() == 8 => match u32::from_str_radix(name, 16) {
                Ok(number) if number > 0 && !name.starts_with('+') => Ok(Self::Number(TimelineId(number))),
                _ => Err(wrong("timeline", text, "expected eight hexadecimal digits that are not all 0")),
            },
            number => match number.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Self::Number(TimelineId(number))),
                _ => Err(wrong(
                    "timeline",
                    text,
                    "expected latest, current, a number from 1, or eight hexadecimal digits as in 0000000A.history",
                )),
            },
        }
    }
}

fn wrong(what: &'static str, value: &str, why: &str) -> ParseError {
    ParseError { what, value: value.into(), why: why.into() }
}

/// An instant as PostgreSQL reads it whatever its time zone is.
pub fn postgresql_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// Reads a moment: RFC 3339, or `YYYY-MM-DD HH:MM:SS[.ffffff][±HH[:MM]]`. The flag says whether an offset was given;
/// without one the time is taken as UTC.
pub fn parse_time(text: &str) -> Result<(DateTime<Utc>, bool), ParseError> {
    let form = "expected YYYY-MM-DD HH:MM:SS[.ffffff][offset], such as '2026-01-31 03:00:00+01', or RFC 3339";
    let refuse = |why: &str| wrong("time", text, why);
    let trimmed = text.trim();
    let (date, rest) = trimmed.split_at_checked(11).ok_or_else(|| refuse(form))?;
    let at = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(at);
    if clock.split_once('.').is_some_and(|(_, fraction)| fraction.len() > 6) {
        return Err(refuse("PostgreSQL counts microseconds: at most six digits of a second"));
    }
    let date = date.strip_suffix(['T', 't', ' ']).ok_or_else(|| refuse(form))?;
    let local = NaiveDateTime::parse_from_str(&format!("{date} {clock}"), "%Y-%m-%d %H:%M:%S%.f");
    let local = local.map_err(|_| refuse(form))?;
    let zone = zone.trim();
    let offset = offset_seconds(zone).ok_or_else(|| refuse("its offset from UTC is none such as Z, +01 or -05:30"))?;
    let utc = local.checked_sub_signed(TimeDelta::seconds(offset)).ok_or_else(|| refuse("it is out of range"))?;
    Ok((utc.and_utc(), !zone.is_empty()))
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
    let minutes = if digits.len() == 4 { number(&digits[2..], 60)? } else { 0 };
    Some(sign * (number(&digits[..2], 16)? * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_in_both_forms_and_is_written_with_its_offset() {
        for (text, expected, zoned) in [
            ("2026-01-31 03:00:00", "2026-01-31 03:00:00.000000+00", false),
            ("2026-01-31 03:00:00.25+01", "2026-01-31 02:00:00.250000+00", true),
            ("2026-01-31T03:00:00.123456-05:30", "2026-01-31 08:30:00.123456+00", true),
            ("2026-01-31T03:00:00Z", "2026-01-31 03:00:00.000000+00", true),
            ("2026-01-31 03:00:00 +0100", "2026-01-31 02:00:00.000000+00", true),
            ("2026-01-31 03:00:00 UTC", "2026-01-31 03:00:00.000000+00", true),
        ] {
            let (time, had_offset) = parse_time(text).unwrap();
            assert_eq!((postgresql_time(time).as_str(), had_offset), (expected, zoned), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "now",
            "yesterday",
            "2026-01-31",
            "2026-02-30 00:00:00",
            "2026-01-31 03:00",
            "2026-01-31 03:00:00 CET",
            "2026-01-31 03:00:00.1234567",
            "2026-01-31 03:00:00+1",
            "2026-01-31 03:00:00+01:99",
            "ä026-01-31 03:00:00",
        ] {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_timeline_is_a_number_or_eight_digits_of_a_file_name() {
        for (text, number) in [
            ("1", 1),
            ("10", 10),
            ("0000000A", 10),
            ("0000000a", 10),
            ("00000010", 16),
            ("00989680", 10_000_000),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(text.parse(), Ok(TimelineChoice::Number(TimelineId(number))), "{text}");
            let shown = TimelineChoice::Number(TimelineId(number)).to_string();
            assert_eq!(shown.parse(), Ok(TimelineChoice::Number(TimelineId(number))), "{shown}");
        }
        for text in ["0", "00000000", "A", "0x0000000A", "0000000G", "+000000A", "4294967296", ""] {
            assert!(text.parse::<TimelineChoice>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_transaction_is_named_by_the_low_bits_of_its_id_alone() {
        assert_eq!(Target::xid("745"), Ok(Target::Xid(745)));
        for (text, why) in [("2", "from 3"), ("", "from 3"), ("-7", "from 3"), ("4294968041", "low 32 bits, 745")] {
            let told = Target::xid(text).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_restore_point_has_a_name_that_postgresql_keeps_whole() {
        let longest = "x".repeat(63);
        assert_eq!(Target::restore_point(&longest), Ok(Target::Name(longest.clone())));
        for name in [String::new(), longest + "x", "a\0b".into()] {
            assert!(Target::restore_point(&name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_request_shows_as_the_arguments_that_make_it() {
        let request = Request {
            target: Target::Name("before it's gone".into()),
            inclusive: false,
            timeline: TimelineChoice::Number(TimelineId(3)),
            backup: Some("20260101-000000Z".parse().unwrap()),
        };
        let expected = r"--name 'before it'\''s gone' --exclusive --timeline 3 --backup 20260101-000000Z";
        assert_eq!(request.arguments(), expected);
    }
}
