//! What happened, as somebody looks for it: a table dropped, rows deleted, a restore point made.

use std::fmt;
use std::str::FromStr;

use crate::postgres::layout::ClusterName;
use crate::postgres::types::{Lsn, ParseError, TimelineId, serde_as_text};
use crate::postgres::wal::{RelFileLocator, Timestamp, Xid};

/// OIDs and file numbers below this are the system's own (transam.h, FirstNormalObjectId).
pub const FIRST_NORMAL: u32 = 16384;

/// Deletes and updates of fewer rows by one transaction in one relation are shown only to those who ask for them, and
/// known only of segments that do not have many of them.
pub const LEAST_ROWS: u64 = 10;

/// How the names of restore points begin that Walden makes itself.
pub const OWN_RESTORE_POINT: &str = "walden-check-";

/// What a kind of event happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A relation, of which a file is gone.
    File,
    /// Rows of a relation.
    Rows,
    Database,
    RestorePoint,
    Timeline,
}

/// What it does to data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Lost,
    /// Many rows are another thing than few.
    Changed,
    /// Somebody noted the moment.
    Marked,
    Nothing,
}

/// All that there is to say of a kind of event.
#[derive(Debug, Clone, Copy)]
pub struct KindRow {
    /// In output and on the command line.
    pub name: &'static str,
    /// In [`EventId`]s.
    pub letter: char,
    pub scope: Scope,
    pub effect: Effect,
    /// What it is called in a sentence.
    pub noun: &'static str,
    /// On the time line.
    pub sign: &'static str,
    /// What happened, in a word or two.
    pub words: &'static str,
}

macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident: $name:literal, $letter:literal, $scope:ident, $effect:ident, $noun:literal, $sign:literal, $words:literal;)+) => {
        /// What kind of thing happened. The index keeps their numbers: new ones come last.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind { $($(#[$about])* $kind),+ }

        impl EventKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// What there is to say of it.
            pub const fn row(self) -> KindRow {
                let (name, letter, scope, effect, noun, sign, words) = match self {
                    $(Self::$kind => ($name, $letter, Scope::$scope, Effect::$effect, $noun, $sign, $words)),+
                };
                KindRow { name, letter, scope, effect, noun, sign, words }
            }
        }
    };
}

kinds! {
    /// A relation is gone.
    Drop: "drop", 'd', File, Lost, "drop", "✕", "dropped";
    /// It was emptied by TRUNCATE.
    Truncate: "truncate", 't', File, Lost, "truncation", "∅", "truncated";
    /// Its content lies in a new file: VACUUM FULL, CLUSTER, REFRESH MATERIALIZED VIEW, REINDEX, many an ALTER TABLE.
    Rewrite: "rewrite", 'w', File, Nothing, "rewrite", "↻", "rewritten";
    /// Rows were deleted.
    Delete: "delete", 'x', Rows, Changed, "deletion", "−", "rows deleted";
    /// Rows were updated.
    Update: "update", 'u', Rows, Changed, "update", "~", "rows updated";
    RestorePoint: "restore-point", 'p', RestorePoint, Marked, "restore point", "★", "restore point";
    DatabaseDrop: "database-drop", 'k', Database, Lost, "drop", "✕", "database dropped";
    DatabaseCreate: "database-create", 'c', Database, Nothing, "creation", "+", "database created";
    /// A timeline began.
    Timeline: "timeline", 'l', Timeline, Nothing, "beginning", "⑂", "timeline began";
}

impl EventKind {
    /// Whether it happened to a relation.
    pub fn is_of_relation(self) -> bool {
        matches!(self.row().scope, Scope::File | Scope::Rows)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().name)
    }
}

impl FromStr for EventKind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let names = || {
            Self::ALL
                .iter()
                .map(|kind| kind.row().name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.row().name == text)
            .ok_or_else(|| ParseError {
                what: "kind of event",
                value: text.to_string(),
                why: format!("expected one of {}", names()),
            })
    }
}

serde_as_text!(EventKind);

/// An event's name, the same after every rebuild of the index: `<timeline>-<LSN with - for />-<letter><number>`, such
/// as `1-16-B374D848-d16384`. The number is that of the relation's file, of the database or of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub timeline: TimelineId,
    /// Where its record begins; of what a transaction did, that is its commit.
    pub lsn: Lsn,
    pub kind: EventKind,
    pub number: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (self.lsn.0 >> 32, self.lsn.0 as u32);
        write!(
            f,
            "{}-{high:X}-{low:X}-{}{}",
            self.timeline,
            self.kind.row().letter,
            self.number
        )
    }
}

impl FromStr for EventId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let mut parts = text.split('-');
            let timeline = parts
                .next()?
                .parse()
                .ok()
                .filter(|timeline| *timeline > 0)?;
            let lsn = format!("{}/{}", parts.next()?, parts.next()?)
                .parse()
                .ok()?;
            let last = parts.next().filter(|_| parts.next().is_none())?;
            let letter = last.chars().next()?;
            let kind = EventKind::ALL
                .iter()
                .copied()
                .find(|kind| kind.row().letter == letter)?;
            let number = last[letter.len_utf8()..].parse().ok()?;
            Some(Self {
                timeline: TimelineId(timeline),
                lsn,
                kind,
                number,
            })
        };
        parse().ok_or_else(|| ParseError {
            what: "event",
            value: text.to_string(),
            why: "expected a name as `walden find` shows, such as 1-16-B374D848-d16384".into(),
        })
    }
}

serde_as_text!(EventId);

/// Something that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundEvent {
    pub id: EventId,
    pub kind: EventKind,
    pub cluster: ClusterName,
    pub timeline: TimelineId,
    /// Where the record begins that made it so: a restore that stops before it undoes it. Of what a transaction did, that
    /// is its commit; a dropped database is gone before that.
    pub lsn: Lsn,
    /// Where the record after that begins; `None` when only the segment itself could tell.
    pub end_lsn: Option<Lsn>,
    /// The commit of the transaction; `None` without one, or when only the segment itself could tell.
    pub commit_lsn: Option<Lsn>,
    pub xid: Option<Xid>,
    /// By the server's clock. Of a database or timeline, whose records have none, that of a commit near by.
    pub time: Timestamp,
    /// The database's name, if it was recorded.
    pub database: Option<String>,
    pub database_oid: Option<u32>,
    /// `schema.name`, if it was recorded.
    pub relation: Option<String>,
    /// `pg_class.relkind`, if it was recorded.
    pub relkind: Option<char>,
    /// The relation's OID, if it was recorded.
    pub oid: Option<u32>,
    /// The file that was removed, or whose rows changed.
    pub file: Option<RelFileLocator>,
    /// Rows deleted or updated.
    pub rows: Option<u64>,
    /// The name of a restore point.
    pub name: Option<String>,
    /// False when the kind was guessed, rows may be more than counted, or it is not known whether its transaction committed.
    pub exact: bool,
    /// Shown only when all is asked for: of the system, of Walden's own, of an index or TOAST table by itself, or nothing that
    /// is lost.
    pub minor: bool,
}

impl FoundEvent {
    /// Whether data was lost by it that a restore to just before it brings back.
    pub fn lost_data(&self) -> bool {
        let lost = match self.kind.row().effect {
            Effect::Lost => true,
            Effect::Changed => self.rows.is_some_and(|rows| rows >= LEAST_ROWS),
            Effect::Marked | Effect::Nothing => false,
        };
        lost && !self.minor
    }
}

/// What to find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `name` or `schema.name`; `*` and `?` as in a shell.
    pub relation: Option<String>,
    /// Empty: all.
    pub kinds: Vec<EventKind>,
    /// Of deletes and updates those of at least so many rows; `None`: [`LEAST_ROWS`], with `all` any.
    pub min_rows: Option<u64>,
    /// Inclusive.
    pub since: Option<Timestamp>,
    /// Inclusive.
    pub until: Option<Timestamp>,
    /// Also what is [`FoundEvent::minor`].
    pub all: bool,
    /// At most so many, the latest; `None`: no bound.
    pub latest: Option<usize>,
}

impl Filter {
    /// Rows that a delete or update has at least.
    pub fn least_rows(&self) -> u64 {
        self.min_rows
            .unwrap_or(if self.all { 0 } else { LEAST_ROWS })
    }

    /// Whether an event is wanted; time and number are not looked at.
    pub fn wants(&self, event: &FoundEvent) -> bool {
        let named = |pattern: &String| {
            let Some(relation) = &event.relation else {
                return false;
            };
            let bare = relation
                .split_once('.')
                .map_or(relation.as_str(), |(_, name)| name);
            matches(pattern, relation) || matches(pattern, bare)
        };
        (self.all
            || !event.minor
            || self.kinds.contains(&event.kind) && event.kind == EventKind::Rewrite)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && event.rows.is_none_or(|rows| rows >= self.least_rows())
            && self.relation.as_ref().is_none_or(named)
    }
}

/// Whether a text is as a pattern with `*` and `?` says.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut place) = (0, 0);
    // The last `*` and how far it reaches: on a mismatch it takes one more.
    let mut star: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, place));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[place] => {
                (at, place) = (at + 1, place + 1)
            }
            _ => match star {
                Some((star_at, reached)) => {
                    star = Some((star_at, reached + 1));
                    (at, place) = (star_at + 1, reached + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_keeps_the_numbers_of_kinds() {
        let letters: String = EventKind::ALL
            .iter()
            .map(|kind| kind.row().letter)
            .collect();
        assert_eq!(letters, "dtwxupkcl", "new kinds come last");
    }

    #[test]
    fn an_event_has_a_name_that_reads_back() {
        let id = EventId {
            timeline: TimelineId(3),
            lsn: "16/B374D848".parse().unwrap(),
            kind: EventKind::Truncate,
            number: 16384,
        };
        assert_eq!(id.to_string(), "3-16-B374D848-t16384");
        for &kind in EventKind::ALL {
            let id = EventId { kind, ..id };
            assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
            assert_eq!(kind.to_string().parse::<EventKind>().unwrap(), kind);
        }
        for text in [
            "",
            "1",
            "1-0-1",
            "0-0-1-d1",
            "1-0-1-z1",
            "1-0-1-d",
            "1-0-1-d1-1",
            "1-0-G-d1",
            "1-0-1-é1",
        ] {
            assert!(text.parse::<EventId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_is_as_in_a_shell() {
        for (pattern, text) in [
            ("orders", "orders"),
            ("*", ""),
            ("o*s", "orders"),
            ("*r*r*", "orders"),
            ("?rders", "orders"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("order", "orders"),
            ("orders?", "orders"),
            ("", "x"),
            ("*x", "orders"),
            ("o*e", "orders"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
