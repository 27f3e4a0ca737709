//! Names and marks of databases that Walden makes or keeps: of a restore the new one while it is built, the old one while it is
//! kept; of a round trip the one with known data. A mark is the last line of the database's comment: a name alone proves nothing. Pure.

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// PostgreSQL cuts names off here (`NAMEDATALEN`).
pub const LONGEST_NAME: usize = 63;
/// What the name of a database that is being built begins with.
pub const BUILDING: &str = "walden_restoring_";
/// What the name of a round trip's database begins with.
pub const ROUND_TRIP: &str = "walden_round_trip_";
/// How such a name carries its time, UTC.
const TIME: &str = "%Y%m%d_%H%M%S";
const BEGINS: &str = "[walden ";
const ENDS: char = ']';

/// What Walden keeps a database for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    #[serde(rename = "as")]
    pub role: MarkRole,
    /// The name that it had when it was marked: one that was renamed since is somebody's.
    pub name: String,
    /// The database whose place it takes, or had.
    pub of: String,
    pub since: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkRole {
    /// It is being built.
    Building,
    /// A restore took its place.
    Replaced,
    /// It has known data for a round trip.
    RoundTrip,
}

impl Mark {
    /// A comment with the mark behind what it says already.
    pub fn beside(&self, comment: Option<&str>) -> String {
        let json = serde_json::to_string(self).expect("a mark is JSON");
        let before = comment
            .map(|comment| format!("{comment}\n"))
            .unwrap_or_default();
        format!("{before}{BEGINS}{json}{ENDS}")
    }

    /// The mark in the comment of a database of this name; `None`: it has none, or another name since.
    pub fn of(database: &str, comment: &str) -> Option<Self> {
        let line = comment.lines().next_back()?;
        let json = line.strip_prefix(BEGINS)?.strip_suffix(ENDS)?;
        serde_json::from_str(json)
            .ok()
            .filter(|mark: &Self| mark.name == database)
    }
}

/// A comment without any mark, as its owner wrote it.
pub fn without_mark(comment: &str) -> Option<&str> {
    let begins = comment.rfind(BEGINS).filter(|at| {
        let json = comment[*at..]
            .strip_prefix(BEGINS)
            .and_then(|rest| rest.strip_suffix(ENDS));
        let is_line = *at == 0 || comment[..*at].ends_with('\n');
        is_line && json.is_some_and(|json| serde_json::from_str::<Mark>(json).is_ok())
    });
    let own = match begins {
        Some(at) => comment[..at].strip_suffix('\n').unwrap_or_default(),
        None => comment,
    };
    (!own.is_empty()).then_some(own)
}

/// A name for a database that is being built.
pub fn building_name(random: u64) -> String {
    format!("{BUILDING}{random:016x}")
}

/// A name for the database of a round trip.
pub fn round_trip_name(now: DateTime<Utc>, random: u32) -> String {
    format!("{ROUND_TRIP}{}_{random:08x}", now.format(TIME))
}

/// When the round trip began whose database has this name; `None`: it is none.
pub fn round_trip_begun(name: &str) -> Option<DateTime<Utc>> {
    let (time, _) = name.strip_prefix(ROUND_TRIP)?.rsplit_once('_')?;
    let time = NaiveDateTime::parse_from_str(time, TIME).ok()?.and_utc();
    let (_, random) = name.rsplit_once('_')?;
    let random = u32::from_str_radix(random, 16).ok()?;
    (round_trip_name(time, random) == name).then_some(time)
}

/// The name under which the old database is kept: `<database>_before_<time>`, cut and numbered so that it is a name and new.
pub fn kept_name(database: &str, now: DateTime<Utc>, is_taken: impl Fn(&str) -> bool) -> String {
    let time = now.format(TIME);
    let mut number = 1;
    loop {
        let suffix = match number {
            1 => format!("_before_{time}"),
            _ => format!("_before_{time}_{number}"),
        };
        let name = format!("{}{suffix}", cut(database, LONGEST_NAME - suffix.len()));
        if !is_taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// At most so many bytes of a text, whole characters.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// A time for people, in whole seconds.
pub fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str) -> Mark {
        Mark {
            role: MarkRole::Replaced,
            name: name.into(),
            of: "shop".into(),
            since: "2026-11-30T10:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_mark_counts_only_under_the_name_that_it_was_made_for() {
        for comment in [None, Some("Orders\nand [walden {}]")] {
            let marked = mark("shop_before").beside(comment);
            assert_eq!(Mark::of("shop_before", &marked), Some(mark("shop_before")));
            assert_eq!(Mark::of("shop", &marked), None, "it was renamed back");
            assert_eq!(without_mark(&marked), comment);
        }
        for comment in ["", "Orders", "[walden {}]", "[walden"] {
            assert_eq!(Mark::of("shop_before", comment), None);
            assert_eq!(without_mark(comment).unwrap_or_default(), comment);
        }
        let more = format!("{}\nmine now", mark("shop_before").beside(None));
        assert_eq!(Mark::of("shop_before", &more), None);
    }

    #[test]
    fn the_kept_name_is_a_name_of_postgresql_and_new() {
        let now = "2026-11-30T10:15:00Z".parse().unwrap();
        assert_eq!(
            kept_name("shop", now, |_| false),
            "shop_before_20261130_101500"
        );
        let is_taken = |name: &str| !name.ends_with("_3");
        assert_eq!(
            kept_name("shop", now, is_taken),
            "shop_before_20261130_101500_3"
        );
        for database in ["x".repeat(63), "ü".repeat(31), "日".repeat(21)] {
            let name = kept_name(&database, now, |_| false);
            assert!(
                name.len() <= LONGEST_NAME && name.len() > LONGEST_NAME - 4,
                "{name}"
            );
            assert!(name.ends_with("_before_20261130_101500"));
        }
        assert_eq!(building_name(7).len(), 33);
    }

    #[test]
    fn the_name_of_a_round_trip_tells_when_it_began() {
        let now = "2026-11-30T10:15:00Z".parse().unwrap();
        let name = round_trip_name(now, 0x2a);
        assert_eq!(name, "walden_round_trip_20261130_101500_0000002a");
        assert_eq!(round_trip_begun(&name), Some(now));
        for other in [
            "shop",
            "walden_round_trip_",
            "walden_round_trip_20261130_101500",
            "walden_round_trip_20261130_101500_2a",
            "walden_round_trip_20261131_101500_0000002a",
        ] {
            assert_eq!(round_trip_begun(other), None, "{other}");
        }
    }
}
