//! What a restore is asked for: a recovery target, and the choices around it.

use std::fmt;

use chrono::{DateTime, Utc};

use super::event_target::EventTarget;
use crate::plain::{plain, shell_quoted};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, ParseError, TimelineId};
use crate::postgres::wal::Xid;

/// Where replay stops; each as PostgreSQL understands it (xlogrecovery.c, recoveryStopsBefore and -After).
#[derive(Debug, Clone, PartialEq, Eq)]
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
                let why = format!(
                    "it has an epoch, and WAL has only the low 32 bits, {}",
                    xid as Xid
                );
                Err(wrong("transaction id", text, &why))
            }
            Ok(xid) if xid >= FIRST_XID.into() => Ok(Self::Xid(xid as Xid)),
            _ => Err(wrong(
                "transaction id",
                text,
                &format!("expected a number from {FIRST_XID}"),
            )),
        }
    }

    /// The restore point of a name. Errors: PostgreSQL makes none of that name.
    pub fn restore_point(name: &str) -> Result<Self, ParseError> {
        match name.len() {
            1..=LONGEST_NAME if !name.contains('\0') => Ok(Self::Name(name.into())),
            _ => Err(wrong(
                "name of a restore point",
                name,
                &format!("expected 1 to {LONGEST_NAME} bytes"),
            )),
        }
    }

    /// Whether it makes a difference if what lies exactly there is replayed.
    pub fn can_be_exclusive(&self) -> bool {
        matches!(self, Self::Time(_) | Self::Lsn(_) | Self::Xid(_))
    }
}

/// Which path of timelines to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimelineChoice {
    /// The one with the highest number in the repository.
    Latest,
    /// The backup's own.
    Current,
    Number(TimelineId),
}

/// Everything that decides what is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    pub target: Target,
    /// Whether what lies exactly at the target is replayed too; without effect on name, immediate and latest.
    pub inclusive: bool,
    pub timeline: TimelineChoice,
    /// Restore this backup; else the plan chooses one.
    pub backup: Option<BackupId>,
}

impl RestoreRequest {
    /// The target on the latest timeline, inclusive, from the backup that fits best.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            inclusive: true,
            timeline: TimelineChoice::Latest,
            backup: None,
        }
    }

    /// The arguments of `walden restore` that ask for this.
    pub fn arguments(&self) -> String {
        let mut text = match &self.target {
            Target::Event(event) if self.inclusive => format!("--after {}", event.id),
            Target::Event(event) => format!("--before {}", event.id),
            Target::Time(time) => format!("--time '{}'", postgresql_time(*time)),
            Target::Lsn(lsn) => format!("--lsn {lsn}"),
            Target::Xid(xid) => format!("--xid {xid}"),
            Target::Name(name) => format!("--name {}", shell_quoted(name)),
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

    /// The target as plans and logs print it.
    pub fn words(&self) -> String {
        match (&self.target, self.inclusive) {
            (Target::Time(time), true) => {
                format!(
                    "all transactions that ended at or before {}",
                    postgresql_time(*time)
                )
            }
            (Target::Time(time), false) => format!(
                "all transactions that ended before {}",
                postgresql_time(*time)
            ),
            (Target::Lsn(lsn), true) => {
                format!("up to and including the first WAL record that begins at or after {lsn}")
            }
            (Target::Lsn(lsn), false) => format!("all WAL records that begin before {lsn}"),
            (Target::Xid(xid), true) => format!("up to and including the end of transaction {xid}"),
            (Target::Xid(xid), false) => format!("up to just before the end of transaction {xid}"),
            (Target::Name(name), _) => format!("up to the first restore point \"{}\"", plain(name)),
            (Target::Event(event), true) => format!("up to and including {}", event.words),
            (Target::Event(event), false) => format!("up to just before {}", event.words),
            (Target::Immediate, _) => {
                "as soon as the cluster is consistent: the end of the backup".into()
            }
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
            Self::Number(number) if (10_000_000..100_000_000).contains(&number.0) => {
                write!(f, "{:08X}", number.0)
            }
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
                Ok(number) if number > 0 && !name.starts_with('+') => {
                    Ok(Self::Number(TimelineId(number)))
                }
                _ => Err(wrong(
                    "timeline",
                    text,
                    "expected eight hexadecimal digits that are not all 0",
                )),
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
    ParseError {
        what,
        value: value.into(),
        why: why.into(),
    }
}

/// An instant as PostgreSQL reads it whatever its time zone is.
pub fn postgresql_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(
                text.parse(),
                Ok(TimelineChoice::Number(TimelineId(number))),
                "{text}"
            );
            let shown = TimelineChoice::Number(TimelineId(number)).to_string();
            assert_eq!(
                shown.parse(),
                Ok(TimelineChoice::Number(TimelineId(number))),
                "{shown}"
            );
        }
        for text in [
            "0",
            "00000000",
            "A",
            "0x0000000A",
            "0000000G",
            "+000000A",
            "4294967296",
            "",
        ] {
            assert!(text.parse::<TimelineChoice>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_transaction_is_named_by_the_low_bits_of_its_id_alone() {
        assert_eq!(Target::xid("745"), Ok(Target::Xid(745)));
        for (text, why) in [
            ("2", "from 3"),
            ("", "from 3"),
            ("-7", "from 3"),
            ("4294968041", "low 32 bits, 745"),
        ] {
            let told = Target::xid(text).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_restore_point_has_a_name_that_postgresql_keeps_whole() {
        let longest = "x".repeat(63);
        assert_eq!(
            Target::restore_point(&longest),
            Ok(Target::Name(longest.clone()))
        );
        for name in [String::new(), longest + "x", "a\0b".into()] {
            assert!(Target::restore_point(&name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_request_shows_as_the_arguments_that_make_it() {
        let request = RestoreRequest {
            target: Target::Name("before it's gone".into()),
            inclusive: false,
            timeline: TimelineChoice::Number(TimelineId(3)),
            backup: Some("20260101-000000Z".parse().unwrap()),
        };
        let expected =
            r"--name 'before it'\''s gone' --exclusive --timeline 3 --backup 20260101-000000Z";
        assert_eq!(request.arguments(), expected);
    }
}
