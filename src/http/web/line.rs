//! The time line: what can be restored, what cannot, backups and events, placed on the axis. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::axis::{Span, Tick};
use super::query::PageQuery;
use super::words::{self, When};
use crate::postgres::catalog::{BackupDescription, EventKind, Facts, FoundEvent, Windows};
use crate::postgres::types::TimelineId;

/// Heights in pixels: a row of events' names, the row of their signs, the band, and what is below it.
const NAMES: u32 = 17;
const SIGNS: u32 = 30;
const BAND: u32 = 18;
const BELOW: u32 = 26;
/// Rows of names.
const ROWS: usize = 3;
/// Signs nearer to each other than this, in hundredths of the width, become one.
const NEAR: f64 = 1.6;
/// The width of a letter and of what stands before a name, in hundredths of the width of a usual window.
const LETTER: f64 = 0.66;
const BEFORE_NAME: f64 = 1.3;
/// Letters of a name that are shown.
const LONGEST: usize = 28;

/// A range of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct LineBar {
    pub x: String,
    pub width: String,
    pub from_ms: i64,
    pub until_ms: i64,
    pub words: String,
}

/// A sign at a moment: an event, several of them, or a backup. It leads to its plan, or closer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sign {
    pub x: String,
    pub ms: i64,
    pub href: String,
    /// What it is, for who cannot see it.
    pub words: String,
    /// The class of its colour.
    pub class: &'static str,
    /// What it shows inside: a letter or a number of events.
    pub inside: String,
    pub chosen: bool,
    pub name: Option<Name>,
}

/// A name that stands beside its sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub y: u32,
    /// It stands before its sign, for it would not fit behind it.
    pub is_before: bool,
}

/// A timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    pub timeline: u32,
    pub top: u32,
    /// The middle of the events' signs.
    pub signs_y: u32,
    pub band_y: u32,
    pub label_y: u32,
    pub bands: Vec<LineBar>,
    pub gaps: Vec<LineBar>,
    pub backups: Vec<Sign>,
    pub events: Vec<Sign>,
}

/// A mark on the axis, placed.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub x: String,
    pub ms: i64,
    pub tick: Tick,
    /// One of those that are left out where there is little room.
    pub is_minor: bool,
    /// The class that keeps its label within the picture.
    pub side: &'static str,
}

/// Where a link of the time line leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    pub sign: &'static str,
    pub words: &'static str,
    /// The key that follows it while the time line has the focus.
    pub key: &'static str,
    pub href: String,
}

/// The whole time line, ready to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub from: When,
    pub until: When,
    pub from_ms: i64,
    pub until_ms: i64,
    pub height: u32,
    pub axis_y: u32,
    pub marks: Vec<Mark>,
    pub lanes: Vec<Lane>,
    /// The present.
    pub now: Option<(String, i64)>,
    /// The chosen moment.
    pub chosen: Option<(String, i64)>,
    pub ways: Vec<Way>,
    pub is_all: bool,
}

/// What the time line is made of.
pub struct Content<'a> {
    pub facts: &'a Facts,
    pub windows: &'a Windows,
    pub events: &'a [FoundEvent],
    pub query: &'a PageQuery,
    pub chosen: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
}

/// The range in which there is anything to show.
pub fn all(content: &Content<'_>) -> Span {
    let backups = content.facts.backups.iter().map(|backup| backup.started_at);
    let windows = content.windows.windows.iter().flat_map(|window| [window.from.time, window.to.time]).flatten();
    let stored = content.facts.ranges.iter().flat_map(|range| [range.first_stored, range.last_stored]);
    let moments: Vec<DateTime<Utc>> = backups.chain(windows).chain(stored).collect();
    Span::around(moments.into_iter(), content.now)
}

impl Line {
    /// Places all that there is on the axis of `span`.
    pub fn draw(content: &Content<'_>, span: &Span, all: &Span) -> Self {
        let mut lanes = Vec::new();
        let mut top = 0;
        for timeline in timelines(content) {
            let lane = lane(content, span, timeline, top);
            top = lane.label_y + 10;
            lanes.push(lane);
        }
        let ticks = span.ticks();
        let minor = |index: usize| ticks.len() > 4 && index % 2 == 1;
        let marks = ticks.iter().enumerate().map(|(index, tick)| Mark {
            x: percent(span.place(tick.at)),
            ms: tick.at.timestamp_millis(),
            tick: tick.clone(),
            is_minor: minor(index),
            side: match span.place(tick.at) {
                ..5.0 => "first",
                95.0.. => "last",
                _ => "",
            },
        });
        let shown = |moment: DateTime<Utc>| (percent(span.place(moment)), moment.timestamp_millis());
        Self {
            from: When::of(span.from),
            until: When::of(span.until),
            from_ms: span.from.timestamp_millis(),
            until_ms: span.until.timestamp_millis(),
            height: top + 40,
            axis_y: top + 4,
            marks: marks.collect(),
            lanes,
            now: span.holds(content.now).then(|| shown(content.now)),
            chosen: content.chosen.filter(|moment| span.holds(*moment)).map(shown),
            ways: ways(content, span, all),
            is_all: span == all,
        }
    }
}

fn timelines(content: &Content<'_>) -> Vec<TimelineId> {
    let of_windows = content.windows.windows.iter().map(|window| window.timeline);
    let of_backups = content.facts.backups.iter().map(|backup| backup.timeline);
    let of_wal = content.facts.ranges.iter().map(|range| range.timeline());
    let of_events = content.events.iter().map(|event| event.timeline);
    let mut all: Vec<TimelineId> = of_windows.chain(of_backups).chain(of_wal).chain(of_events).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn backup_sign(content: &Content<'_>, span: &Span, backup: &BackupDescription) -> Sign {
    let id = backup.id.to_string();
    let query = PageQuery { backup: id.clone(), ..content.query.to_words("immediate", "") };
    Sign {
        x: percent(span.place(backup.stopped_at)),
        ms: backup.stopped_at.timestamp_millis(),
        href: format!("{}#plan", query.address()),
        words: format!("base backup {id}, ended {}", When::of(backup.stopped_at).text()),
        class: if backup.is_sound() { "backup" } else { "backup damaged" },
        inside: String::new(),
        chosen: content.query.backup == id,
        name: None,
    }
}

fn lane(content: &Content<'_>, span: &Span, timeline: TimelineId, top: u32) -> Lane {
    let mut events = signs(content, span, timeline);
    let rows = name_rows(&mut events, top);
    let signs_y = top + rows * NAMES + SIGNS / 2 + 4;
    let band_y = signs_y + SIGNS / 2 + 2;
    let windows = content.windows.windows.iter().filter(|window| window.timeline == timeline);
    let bands = windows.filter_map(|window| {
        let from = window.from.time?;
        let until = window.until().unwrap_or(from);
        let words = format!("can be restored: {} to {}", When::of(from).text(), When::of(until).text());
        bar(span, from, until, words)
    });
    let gaps = content.windows.gaps.iter().filter(|gap| gap.timeline == timeline);
    let gaps = gaps.filter_map(|gap| {
        let (from, until) = (gap.from.time?, gap.to.time?);
        let lasts = words::between(from, until);
        let words = format!("cannot be restored: {} to {}, {lasts}", When::of(from).text(), When::of(until).text());
        bar(span, from, until, words)
    });
    let backups = content.facts.backups.iter().filter(|backup| backup.timeline == timeline);
    let backups = backups.filter(|backup| span.holds(backup.stopped_at));
    let backups = backups.map(|backup| backup_sign(content, span, backup));
    Lane {
        timeline: timeline.0,
        top,
        signs_y,
        band_y,
        label_y: band_y + BAND + BELOW - 8,
        bands: bands.collect(),
        gaps: gaps.collect(),
        backups: backups.collect(),
        events,
    }
}

fn bar(span: &Span, from: DateTime<Utc>, until: DateTime<Utc>, words: String) -> Option<LineBar> {
    if until < span.from || from > span.until {
        return None;
    }
    let (first, last) = (span.place(from).max(-2.0), span.place(until).min(102.0));
    Some(LineBar {
        x: percent(first),
        width: percent((last - first).max(0.1)),
        from_ms: from.timestamp_millis(),
        until_ms: until.timestamp_millis(),
        words,
    })
}

/// The signs of a timeline's events; those that lie near to each other are one, which leads closer.
fn signs(content: &Content<'_>, span: &Span, timeline: TimelineId) -> Vec<Sign> {
    let placed = content.events.iter().filter(|event| event.timeline == timeline);
    let placed = placed.filter_map(|event| Some((event, event.time.to_utc()?)));
    let mut groups: Vec<Vec<(&FoundEvent, DateTime<Utc>)>> = Vec::new();
    for (event, at) in placed.filter(|(_, at)| span.holds(*at)) {
        let near = |group: &&mut Vec<(&FoundEvent, DateTime<Utc>)>| {
            group.first().is_some_and(|(_, first)| span.place(at) - span.place(*first) < NEAR)
        };
        match groups.last_mut().filter(near) {
            Some(group) => group.push((event, at)),
            None => groups.push(vec![(event, at)]),
        }
    }
    groups.iter().filter_map(|group| sign(content, span, group)).collect()
}

fn sign(content: &Content<'_>, span: &Span, group: &[(&FoundEvent, DateTime<Utc>)]) -> Option<Sign> {
    let ((first, from), (_, until)) = (group.first()?, group.last()?);
    let chosen = group.iter().any(|(event, _)| is_chosen(content.query, event));
    let (x, ms) = (percent(span.place(*from)), from.timestamp_millis());
    if let [(event, at)] = group {
        return Some(Sign {
            x,
            ms,
            href: format!("{}#plan", content.query.to_words("before", &event.id.to_string()).address()),
            words: format!("{}, {}", event.words(), When::of(*at).text()),
            class: class(event.kind),
            inside: letter(event.kind).into(),
            chosen,
            name: Some(Name { text: shortened(&event.subject()), y: 0, is_before: span.place(*at) > 80.0 }),
        });
    }
    let room = ((*until - *from) / 8).max(TimeDelta::milliseconds(500));
    let closer = Span::between(*from - room, *until + room);
    let worst = group.iter().map(|(event, _)| event.kind).min().unwrap_or(first.kind);
    Some(Sign {
        x,
        ms,
        href: content.query.at(&closer).address(),
        words: format!(
            "{} events from {} to {}: show them closer",
            group.len(),
            When::of(*from).text(),
            When::of(*until).text()
        ),
        class: class(worst),
        inside: if group.len() > 99 { "99+".into() } else { group.len().to_string() },
        chosen,
        name: None,
    })
}

/// Whether the address has an event for its target.
pub fn is_chosen(query: &PageQuery, event: &FoundEvent) -> bool {
    matches!(query.by.as_str(), "before" | "after") && query.value == event.id.to_string()
}

/// Finds a row for each name, the nearest first, and takes away those for which there is none; how many rows there are.
fn name_rows(signs: &mut [Sign], top: u32) -> u32 {
    let mut ends = [f64::MIN; ROWS];
    let mut used = 0;
    for sign in signs.iter_mut() {
        let Some(name) = &mut sign.name else { continue };
        let at: f64 = sign.x.trim_end_matches('%').parse().unwrap_or(0.0);
        let width = BEFORE_NAME + name.text.chars().count() as f64 * LETTER;
        let (from, until) = if name.is_before { (at - width, at + 1.0) } else { (at - 1.0, at + width) };
        match ends.iter().position(|end| *end <= from) {
            Some(row) => {
                (ends[row], name.y) = (until, row as u32);
                used = used.max(row as u32 + 1);
            }
            None => sign.name = None,
        }
    }
    for name in signs.iter_mut().filter_map(|sign| sign.name.as_mut()) {
        name.y = top + (used - name.y) * NAMES - 3;
    }
    used
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    }
}

/// The class of an event's colour.
pub fn class(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Drop | EventKind::Truncate | EventKind::DatabaseDrop => "lost",
        EventKind::Delete | EventKind::Update => "changed",
        EventKind::RestorePoint => "point",
        EventKind::Rewrite | EventKind::DatabaseCreate | EventKind::Timeline => "other",
    }
}

/// What stands in an event's sign.
pub fn letter(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Drop | EventKind::DatabaseDrop => "✕",
        EventKind::Truncate => "∅",
        EventKind::Delete => "−",
        EventKind::Update => "~",
        EventKind::RestorePoint => "★",
        EventKind::Rewrite => "↻",
        EventKind::DatabaseCreate => "+",
        EventKind::Timeline => "⑂",
    }
}

fn ways(content: &Content<'_>, span: &Span, all: &Span) -> Vec<Way> {
    let to = |span: Span| content.query.at(&span).address();
    let last = |hours: i64| to(Span::between(content.now - TimeDelta::hours(hours), content.now));
    let everything = PageQuery { from: String::new(), until: String::new(), ..content.query.clone() };
    vec![
        Way { sign: "←", words: "Earlier", key: "ArrowLeft", href: to(span.earlier()) },
        Way { sign: "−", words: "Zoom out", key: "-", href: to(span.wider(all)) },
        Way { sign: "+", words: "Zoom in", key: "+", href: to(span.closer(content.chosen)) },
        Way { sign: "→", words: "Later", key: "ArrowRight", href: to(span.later()) },
        Way { sign: "1 h", words: "The last hour", key: "h", href: last(1) },
        Way { sign: "1 d", words: "The last day", key: "d", href: last(24) },
        Way { sign: "7 d", words: "The last week", key: "w", href: last(7 * 24) },
        Way { sign: "All", words: "All of it", key: "0", href: everything.address() },
    ]
}

fn percent(place: f64) -> String {
    format!("{place:.3}%")
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
