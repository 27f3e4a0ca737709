//! How it stands, at a glance: the RPO now, archiving, the last backup, what can be restored. Pure.

use chrono::{DateTime, Utc};

use super::words::{When, between, bytes, count};
use crate::health::{Evidence, Health, Level, Protected, Rule, Subject};
use crate::postgres::catalog::{Facts, Window, Windows};
use crate::postgres::index::IndexState;
use crate::service::status::{Archiving, ServiceStatus, waiting_files, waiting_since};

/// One thing at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub title: &'static str,
    pub level: Level,
    pub value: String,
    /// Words, and a moment behind them.
    pub lines: Vec<(String, Option<When>)>,
}

impl Card {
    /// The class of its colour.
    pub fn class(&self) -> &'static str {
        match self.level {
            Level::Good => "good",
            Level::Warning => "warn",
            Level::Critical => "bad",
            Level::Unknown => "unknown",
        }
    }

    /// For who does not see colours.
    pub fn level_words(&self) -> &'static str {
        match self.level {
            Level::Good => "good",
            Level::Warning => "needs attention",
            Level::Critical => "bad",
            Level::Unknown => "not known",
        }
    }
}

/// The cards above the time line, in their order.
pub fn cards(
    facts: &Facts,
    windows: &Windows,
    health: &Health,
    status: Option<&ServiceStatus>,
    now: DateTime<Utc>,
) -> Vec<Card> {
    let archiving = status.map(|status| &status.archiving);
    vec![
        rpo(health),
        archived(archiving, health),
        backup(facts, health, now),
        restorable(windows, health),
    ]
}

/// What is not good, and what to do.
fn told(health: &Health, about: Subject) -> impl Iterator<Item = (String, Option<When>)> {
    health
        .about(about)
        .map(|reason| (format!("{}: {}", reason.what, reason.next), None))
}

fn rpo(health: &Health) -> Card {
    let mut lines = Vec::new();
    if let Some(Protected {
        until, evidence, ..
    }) = health.protected
    {
        let words = match evidence {
            Evidence::Commit => "what was committed since",
            Evidence::Idle => "the server committed nothing until",
            Evidence::Backup => "what was committed since the base backup of",
        };
        lines.push((words.to_string(), Some(When::of(until))));
    }
    lines.extend(told(health, Subject::Rpo));
    let level = health.level_of(Subject::Rpo);
    Card {
        title: "Would be lost now",
        level,
        value: health.loss.to_string(),
        lines,
    }
}

fn archived(archiving: Option<&Archiving>, health: &Health) -> Card {
    let title = "Archiving";
    let Some(archiving) = archiving else {
        return Card {
            title,
            level: Level::Unknown,
            value: "not known yet".into(),
            lines: Vec::new(),
        };
    };
    let (failed, stored) = (&archiving.failed, &archiving.stored);
    let fails = failed
        .count
        .last_at
        .is_some_and(|at| stored.last_at.is_none_or(|stored| stored < at));
    let waiting = waiting_files(&archiving.backlogs);
    let waits_long = health.breaks(Rule::WalWaits);
    let (level, value) = match (fails, waiting) {
        (true, _) => (Level::Critical, "failing".into()),
        (_, None) => (Level::Unknown, "not known".into()),
        (_, Some(0)) => (Level::Good, "up to date".into()),
        (_, Some(waiting)) if waits_long => (
            Level::Critical,
            format!("{} behind", count(waiting, "file")),
        ),
        (_, Some(waiting)) => (Level::Good, format!("storing {}", count(waiting, "file"))),
    };
    Card {
        title,
        level,
        value,
        lines: of_archiving(archiving, fails, waiting),
    }
}

fn of_archiving(
    archiving: &Archiving,
    fails: bool,
    waiting: Option<u64>,
) -> Vec<(String, Option<When>)> {
    let (failed, stored) = (&archiving.failed, &archiving.stored);
    let mut lines = Vec::new();
    if fails {
        lines.push((
            failed.why.clone().unwrap_or_default(),
            failed.count.last_at.map(When::of),
        ));
    }
    let since = || waiting_since(&archiving.backlogs).map(When::of);
    match waiting {
        None => lines.push((not_known(archiving), None)),
        Some(0) => (),
        Some(waiting) => lines.push((format!("{} waiting since", count(waiting, "file")), since())),
    }
    match &stored.last {
        Some(last) => lines.push((format!("last stored {last}"), stored.last_at.map(When::of))),
        None => lines.push(("nothing stored since the service started".into(), None)),
    }
    lines
}

/// Why nobody knows what waits.
fn not_known(archiving: &Archiving) -> String {
    match archiving
        .backlogs
        .iter()
        .find_map(|backlog| Some((&backlog.pg_wal, backlog.failed.as_ref()?)))
    {
        Some((pg_wal, why)) => format!("what waits in {} cannot be read: {why}", pg_wal.display()),
        None => {
            "where files wait is known with the first one, or with cluster.data_directory".into()
        }
    }
}

fn backup(facts: &Facts, health: &Health, now: DateTime<Utc>) -> Card {
    let mut lines = Vec::new();
    if let Some(last) = facts.backups.last() {
        lines.push((
            format!("{}, ended", last.id),
            Some(When::of(last.stopped_at)),
        ));
        lines.push((
            format!(
                "{}, stored as {}",
                bytes(last.plain_bytes),
                bytes(last.stored_bytes)
            ),
            None,
        ));
    }
    lines.extend(told(health, Subject::Backup));
    let value = match (health.backup, facts.backups.last()) {
        (Some(ended), _) => format!("{} ago", between(ended, now)),
        (None, Some(_)) => "none that can be used".into(),
        (None, None) => "none".into(),
    };
    Card {
        title: "Last base backup",
        level: health.level_of(Subject::Backup),
        value,
        lines,
    }
}

fn restorable(windows: &Windows, health: &Health) -> Card {
    let title = "Can be restored";
    let first = windows
        .windows
        .iter()
        .filter_map(|window| window.from.time)
        .min();
    let last = windows.windows.iter().filter_map(Window::until).max();
    let level = health.level_of(Subject::Recovery);
    let Some((first, last)) = first.zip(last) else {
        let mut lines = vec![(
            "there is no usable base backup with its WAL".to_string(),
            None,
        )];
        lines.extend(told(health, Subject::Recovery));
        return Card {
            title,
            level: level.max(health.level_of(Subject::Rpo)),
            value: "nothing".into(),
            lines,
        };
    };
    let but = if windows.gaps.is_empty() {
        "every moment from"
    } else {
        "moments, but for gaps, from"
    };
    let mut lines = vec![
        (but.to_string(), Some(When::of(first))),
        ("to".into(), Some(When::of(last))),
    ];
    lines.extend(
        windows
            .other_timelines
            .iter()
            .map(|other| (other.to_string(), None)),
    );
    lines.extend(told(health, Subject::Recovery));
    Card {
        title,
        level,
        value: between(first, last),
        lines,
    }
}

/// What about the page is not as it should be; `searched` is how far the index was in which events were found.
pub fn notices(
    facts_failed: Option<&str>,
    read_at: DateTime<Utc>,
    searched: Option<&IndexState>,
) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(why) = facts_failed {
        let at = When::of(read_at).text();
        notices.push(format!(
            "The repository cannot be read: {why}. The page shows it as it was at {at}."
        ));
    }
    let Some(state) = searched else {
        return notices;
    };
    if !state.whole {
        notices.push(
            "The archived WAL is still being listed: events are missing until that is done.".into(),
        );
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
        let why = first
            .map(|first| format!(" The first is {}: {}.", first.segment, first.why))
            .unwrap_or_default();
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
    use crate::config::testing::health_limits;
    use crate::postgres::catalog::WindowEdge;
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

    fn archived(archiving: Option<&Archiving>, now: DateTime<Utc>) -> Card {
        let (facts, at) = (
            crate::postgres::catalog::testing::facts(&[]),
            archiving.map_or(now.into(), |archiving| archiving.at(now)),
        );
        super::archived(
            archiving,
            &Health::of(&facts, &Windows::default(), &[], &health_limits(), at),
        )
    }

    fn backlog(since: &str) -> Backlog {
        let oldest_since = Some(at(since));
        Backlog {
            pg_wal: "/pg_wal".into(),
            files: 3,
            stored: 1,
            oldest_since,
            eta_seconds: None,
            failed: None,
        }
    }

    #[test]
    fn archiving_is_bad_when_it_fails_or_stands_still() {
        let now = at("2026-01-01T10:01:00Z");
        let told = |archiving: &Archiving| {
            let card = archived(Some(archiving), now);
            (card.level, card.value)
        };
        assert_eq!(
            told(&archiving(|_| ())),
            (Level::Unknown, "not known".into()),
            "no folder"
        );
        let none = || Backlog {
            files: 1,
            ..backlog("2026-01-01T09:00:00Z")
        };
        assert_eq!(
            told(&archiving(|archiving| archiving.backlogs = vec![none()])),
            (Level::Good, "up to date".into())
        );
        let unread = archiving(|archiving| {
            archiving.backlogs = vec![
                none(),
                Backlog {
                    failed: Some("permission denied".into()),
                    ..none()
                },
            ];
        });
        assert_eq!(told(&unread), (Level::Unknown, "not known".into()));
        assert!(
            archived(Some(&unread), now).lines[0]
                .0
                .ends_with("cannot be read: permission denied")
        );
        let waits =
            archiving(|archiving| archiving.backlogs = vec![backlog("2026-01-01T10:00:30Z")]);
        assert_eq!(told(&waits), (Level::Good, "storing 2 files".into()));
        let stands =
            archiving(|archiving| archiving.backlogs = vec![backlog("2026-01-01T09:00:00Z")]);
        assert_eq!(told(&stands), (Level::Critical, "2 files behind".into()));
        let fails = archiving(|archiving| {
            archiving
                .failed
                .note("000000010000000000000008", "no space");
            archiving.failed.count.last_at = Some(at("2026-01-01T10:00:10Z"));
        });
        assert_eq!(told(&fails), (Level::Critical, "failing".into()));
        assert_eq!(archived(Some(&fails), now).lines[0].0, "no space");
        let mended = archiving(|archiving| {
            archiving
                .failed
                .note("000000010000000000000007", "no space");
            archiving.failed.count.last_at = Some(at("2026-01-01T09:00:10Z"));
            archiving.backlogs = vec![none()];
        });
        assert_eq!(told(&mended), (Level::Good, "up to date".into()));
        assert_eq!(archived(None, now).level, Level::Unknown);
    }

    #[test]
    fn cards_say_what_the_judgement_says() {
        let now = at("2026-01-01T10:01:00Z");
        let segment = "000000010000000000000002";
        let facts = crate::postgres::catalog::testing::facts(&[segment]);
        let edge = |lsn, time| WindowEdge {
            lsn: Lsn(lsn),
            time: Some(at(time)),
        };
        let (from, to) = (
            edge(2 << 24, "2026-01-01T00:00:01Z"),
            edge(3 << 24, "2026-01-01T10:00:00Z"),
        );
        let backup = facts.backups[0].id.clone();
        let window = Window {
            timeline: TimelineId(1),
            from,
            to,
            idle_until: None,
            backup,
        };
        let mut windows = Windows {
            windows: vec![window],
            ..Windows::default()
        };
        let shown = |windows: &Windows| {
            let health = Health::of(&facts, windows, &[], &health_limits(), now);
            let cards = cards(&facts, windows, &health, None, now);
            cards
                .into_iter()
                .map(|card| (card.level, card.value))
                .collect::<Vec<_>>()
        };
        let good = |value: &str| (Level::Good, value.to_string());
        let archiving = (Level::Unknown, "not known yet".to_string());
        let expected = [
            good("at most 60 s"),
            archiving.clone(),
            good("10 h ago"),
            good("10 h"),
        ];
        assert_eq!(shown(&windows), expected);
        let segments = [
            segment,
            "000000010000000000000003",
            "000000020000000000000002",
        ];
        let mut both = crate::postgres::catalog::testing::facts(&segments);
        let history = TimelineHistory::parse(TimelineId(2), "1\t0/280000\tpromoted\n").unwrap();
        both.histories.insert(TimelineId(2), history);
        windows.other_timelines =
            crate::postgres::catalog::windows(&both, &crate::postgres::catalog::NoIndex)
                .other_timelines;
        let card = restorable(
            &windows,
            &Health::of(&facts, &windows, &[], &health_limits(), now),
        );
        assert!(
            card.lines[2].0.ends_with("ask for it with --timeline 1"),
            "{card:?}"
        );
        windows.other_timelines.clear();
        windows.windows.clear();
        let told = shown(&windows);
        assert_eq!(
            (told[0].clone(), told[3].clone()),
            (
                (Level::Critical, "everything".into()),
                (Level::Critical, "nothing".into())
            )
        );
    }
}
