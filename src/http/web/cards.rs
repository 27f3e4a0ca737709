//! How it stands, at a glance: the RPO now, archiving, the last backup, what can be restored. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::super::dto::{waiting_files, waiting_since};
use super::words::{self, When, between, bytes, count};
use crate::postgres::catalog::{Facts, Window, Windows, unused_backups};
use crate::postgres::index::State;
use crate::service::status::{Archiving, Status};

/// A finished segment that waits longer than this is no matter of course.
const LONG_WAIT: TimeDelta = TimeDelta::minutes(10);
/// A base backup that is older makes restores long, where one is taken each week.
const OLD_BACKUP: TimeDelta = TimeDelta::days(8);

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Good,
    Warn,
    Bad,
    Unknown,
}

impl Level {
    /// The class of its colour.
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
        }
    }

    /// For who does not see colours.
    pub fn words(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "needs attention",
            Self::Bad => "bad",
            Self::Unknown => "not known",
        }
    }
}

/// One thing at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub title: &'static str,
    pub level: Level,
    pub value: String,
    /// Words, and a moment behind them.
    pub lines: Vec<(String, Option<When>)>,
}

/// All of them.
pub fn cards(facts: &Facts, windows: &Windows, status: Option<&Status>, now: DateTime<Utc>) -> Vec<Card> {
    let archiving = status.map(|status| &status.archiving);
    vec![rpo(facts, archiving, now), archived(archiving, now), backup(facts, now), restorable(facts, windows)]
}

fn rpo(facts: &Facts, archiving: Option<&Archiving>, now: DateTime<Utc>) -> Card {
    let title = "Would be lost now";
    let stored = facts.ranges.iter().map(|range| range.last_stored).max();
    let Some(stored) = stored.max(archiving.and_then(|archiving| archiving.stored.last_at)) else {
        let lines = vec![("no WAL is archived: set archive_command".into(), None)];
        return Card { title, level: Level::Bad, value: "everything".into(), lines };
    };
    let waits =
        archiving.and_then(|archiving| waiting_since(&archiving.backlogs)).is_some_and(|since| now - since > LONG_WAIT);
    let level = if waits { Level::Bad } else { Level::Good };
    let lines = vec![
        ("at most what was committed since".into(), Some(When::of(stored))),
        ("the RPO now; less when the server was idle".into(), None),
    ];
    Card { title, level, value: between(stored, now), lines }
}

fn archived(archiving: Option<&Archiving>, now: DateTime<Utc>) -> Card {
    let title = "Archiving";
    let Some(archiving) = archiving else {
        return Card { title, level: Level::Unknown, value: "not known yet".into(), lines: Vec::new() };
    };
    let (failed, stored) = (&archiving.failed, &archiving.stored);
    let fails = failed.count.last_at.is_some_and(|at| stored.last_at.is_none_or(|stored| stored < at));
    let (waiting, since) = (waiting_files(&archiving.backlogs), waiting_since(&archiving.backlogs));
    let mut lines = Vec::new();
    if fails {
        lines.push((failed.why.clone().unwrap_or_default(), failed.count.last_at.map(When::of)));
    }
    match waiting {
        None => lines.push((not_known(archiving), None)),
        Some(0) => (),
        Some(waiting) => lines.push((format!("{} waiting since", count(waiting, "file")), since.map(When::of))),
    }
    match &stored.last {
        Some(last) => lines.push((format!("last stored {last}"), stored.last_at.map(When::of))),
        None => lines.push(("nothing stored since the service started".into(), None)),
    }
    let waits_long = since.is_some_and(|since| now - since > LONG_WAIT);
    let (level, value) = match (fails, waiting) {
        (true, _) => (Level::Bad, "failing".into()),
        (_, None) => (Level::Unknown, "not known".into()),
        (_, Some(0)) => (Level::Good, "up to date".into()),
        (_, Some(waiting)) if waits_long => (Level::Bad, format!("{} behind", count(waiting, "file"))),
        (_, Some(waiting)) => (Level::Good, format!("storing {}", count(waiting, "file"))),
    };
    Card { title, level, value, lines }
}

/// Why nobody knows what waits.
fn not_known(archiving: &Archiving) -> String {
    match archiving.backlogs.iter().find_map(|backlog| Some((&backlog.pg_wal, backlog.failed.as_ref()?))) {
        Some((pg_wal, why)) => format!("what waits in {} cannot be read: {why}", pg_wal.display()),
        None => "where files wait is known with the first one, or with cluster.data_directory".into(),
    }
}

fn backup(facts: &Facts, now: DateTime<Utc>) -> Card {
    let title = "Last base backup";
    let Some(last) = facts.backups.last() else {
        let lines = vec![("nothing can be restored: take one with walden backup take".into(), None)];
        return Card { title, level: Level::Bad, value: "none".into(), lines };
    };
    let mut lines = vec![
        (format!("{}, ended", last.id), Some(When::of(last.stopped_at))),
        (format!("{}, stored as {}", bytes(last.plain_bytes), bytes(last.stored_bytes)), None),
    ];
    let mut level = if now - last.stopped_at > OLD_BACKUP { Level::Warn } else { Level::Good };
    if let Some(part) = last.left_out.first() {
        level = Level::Bad;
        lines.push((format!("it cannot be used: it lacks {part}"), None));
    }
    if !last.checksum_failures.is_empty() {
        level = Level::Bad;
        lines.push(("it has damaged pages: restored only when it is named".into(), None));
    }
    if !facts.damaged_backups.is_empty() {
        level = Level::Bad;
        lines.push((format!("{} cannot be used", count(facts.damaged_backups.len() as u64, "backup")), None));
    }
    Card { title, level, value: format!("{} ago", between(last.stopped_at, now)), lines }
}

fn restorable(facts: &Facts, windows: &Windows) -> Card {
    let title = "Can be restored";
    let first = windows.windows.iter().filter_map(|window| window.from.time).min();
    let last = windows.windows.iter().filter_map(Window::until).max();
    let Some((first, last)) = first.zip(last) else {
        let nothing = "there is no usable base backup with its WAL".to_string();
        let unknown = windows.unknown.iter().map(|unknown| unknown.why.clone());
        let lines =
            std::iter::once(nothing).chain(unknown).chain(unused_backups(facts)).map(|line| (line, None)).collect();
        return Card { title, level: Level::Bad, value: "nothing".into(), lines };
    };
    let mut lines = vec![("every moment from".into(), Some(When::of(first))), ("to".into(), Some(When::of(last)))];
    let mut level = Level::Good;
    if !windows.gaps.is_empty() {
        level = Level::Warn;
        let seconds: f64 = windows.gaps.iter().filter_map(|gap| gap.seconds).sum();
        let gaps = count(windows.gaps.len() as u64, "gap");
        lines.push((format!("but {gaps}, {} in all", words::duration(seconds)), None));
    }
    lines.extend(windows.other_timelines.iter().map(|other| (other.to_string(), None)));
    for unknown in &windows.unknown {
        level = Level::Warn;
        lines.push((format!("but on timeline {} it is not known: {}", unknown.timeline, unknown.why), None));
    }
    Card { title, level, value: between(first, last), lines }
}

/// What about the page is not as it should be; `searched` is how far the index was in which events were found.
pub fn notices(facts_failed: Option<&str>, read_at: DateTime<Utc>, searched: Option<&State>) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(why) = facts_failed {
        let at = When::of(read_at).text();
        notices.push(format!("The repository cannot be read: {why}. The page shows it as it was at {at}."));
    }
    let Some(state) = searched else { return notices };
    if !state.whole {
        notices.push("The archived WAL is still being listed: events are missing until that is done.".into());
    }
    let unread = state.not_indexed.saturating_sub(state.unreadable);
    if unread > 0 {
        notices.push(format!(
            "{} of WAL still to be read: events in what is not read yet are not shown.",
            count(unread, "segment")
        ));
    }
    if state.unreadable > 0 {
        let first = state.first_unreadable.as_ref();
        let why = first.map(|first| format!(" The first is {}: {}.", first.segment, first.why)).unwrap_or_default();
        notices.push(format!(
            "{} of WAL cannot be read: events in them are not shown.{why}",
            count(state.unreadable, "segment")
        ));
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::{UnknownTimeline, Unrestorable, Window, WindowEdge};
    use crate::postgres::types::{Lsn, TimelineHistory, TimelineId};
    use crate::service::status::Backlog;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn archiving(change: impl FnOnce(&mut Archiving)) -> Archiving {
        let mut archiving = Archiving::default();
        archiving.stored.note("000000010000000000000007");
        archiving.stored.last_at = Some(at("2026-01-01T10:00:00Z"));
        change(&mut archiving);
        archiving
    }

    fn backlog(since: &str) -> Backlog {
        let oldest_since = Some(at(since));
        Backlog { pg_wal: "/pg_wal".into(), files: 3, stored: 1, oldest_since, eta_seconds: None, failed: None }
    }

    #[test]
    fn archiving_is_bad_when_it_fails_or_stands_still() {
        let now = at("2026-01-01T10:01:00Z");
        let told = |archiving: &Archiving| {
            let card = archived(Some(archiving), now);
            (card.level, card.value)
        };
        assert_eq!(told(&archiving(|_| ())), (Level::Unknown, "not known".into()), "no folder");
        let none = || Backlog { files: 1, ..backlog("2026-01-01T09:00:00Z") };
        assert_eq!(told(&archiving(|archiving| archiving.backlogs = vec![none()])), (Level::Good, "up to date".into()));
        let unread = archiving(|archiving| {
            archiving.backlogs = vec![none(), Backlog { failed: Some("permission denied".into()), ..none() }];
        });
        assert_eq!(told(&unread), (Level::Unknown, "not known".into()));
        assert!(archived(Some(&unread), now).lines[0].0.ends_with("cannot be read: permission denied"));
        let waits = archiving(|archiving| archiving.backlogs = vec![backlog("2026-01-01T10:00:30Z")]);
        assert_eq!(told(&waits), (Level::Good, "storing 2 files".into()));
        let stands = archiving(|archiving| archiving.backlogs = vec![backlog("2026-01-01T09:00:00Z")]);
        assert_eq!(told(&stands), (Level::Bad, "2 files behind".into()));
        let fails = archiving(|archiving| {
            archiving.failed.note("000000010000000000000008", "no space");
            archiving.failed.count.last_at = Some(at("2026-01-01T10:00:10Z"));
        });
        assert_eq!(told(&fails), (Level::Bad, "failing".into()));
        assert_eq!(archived(Some(&fails), now).lines[0].0, "no space");
        let mended = archiving(|archiving| {
            archiving.failed.note("000000010000000000000007", "no space");
            archiving.failed.count.last_at = Some(at("2026-01-01T09:00:10Z"));
            archiving.backlogs = vec![none()];
        });
        assert_eq!(told(&mended), (Level::Good, "up to date".into()));
        assert_eq!(archived(None, now).level, Level::Unknown);
    }

    #[test]
    fn nothing_archived_is_everything_lost_and_a_gap_needs_attention() {
        let now = at("2026-01-01T10:01:00Z");
        let facts = crate::http::tests::facts(&[]);
        assert_eq!(rpo(&facts, None, now).value, "everything");
        assert_eq!(rpo(&facts, Some(&archiving(|_| ())), now).value, "60 s");
        let edge = |lsn, time| WindowEdge { lsn: Lsn(lsn), time: Some(at(time)) };
        let (from, to) = (edge(1 << 24, "2026-01-01T00:00:00Z"), edge(2 << 24, "2026-01-01T06:00:00Z"));
        let timeline = TimelineId(1);
        let backup = facts.backups[0].id.clone();
        let mut facts = facts;
        let window = Window { timeline, from, to, quiet_until: None, backup };
        let mut windows = Windows { windows: vec![window], ..Windows::default() };
        let card = restorable(&facts, &windows);
        assert_eq!((card.level, card.value.as_str()), (Level::Good, "6.0 h"));
        windows.gaps.push(Unrestorable { timeline, from, to, seconds: Some(60.0) });
        assert_eq!(restorable(&facts, &windows).level, Level::Warn);
        windows.gaps.clear();
        windows.unknown = vec![UnknownTimeline { timeline: TimelineId(2), why: "its history is damaged".into() }];
        let card = restorable(&facts, &windows);
        assert_eq!((card.level, card.lines.len()), (Level::Warn, 3));
        assert!(card.lines[2].0.contains("timeline 2 it is not known: its history is damaged"), "{card:?}");
        let segments = ["000000010000000000000002", "000000010000000000000003", "000000020000000000000002"];
        let mut both = crate::http::tests::facts(&segments);
        let history = TimelineHistory::parse(TimelineId(2), "1\t0/280000\tpromoted\n").unwrap();
        both.histories.insert(TimelineId(2), history);
        windows.other_timelines =
            crate::postgres::catalog::windows(&both, &crate::postgres::catalog::NoIndex).other_timelines;
        let card = restorable(&facts, &windows);
        assert!(card.lines[2].0.ends_with("ask for it with --timeline 1"), "{card:?}");
        windows.other_timelines.clear();
        windows.windows.clear();
        facts.damaged_backups.insert("20260102-000000Z".parse().unwrap(), "it is cut off".into());
        let card = restorable(&facts, &windows);
        assert_eq!((card.level, card.lines.len()), (Level::Bad, 3), "{card:?}");
        assert_eq!(restorable(&facts, &Windows::default()).value, "nothing");
    }
}
