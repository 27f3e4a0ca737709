//! Signs on the time line: events and backups, those that lie near to each other as one, with names where there is room.

use chrono::{DateTime, TimeDelta, Utc};

use super::axis::Span;
use super::query::PageQuery;
use super::words::When;
use crate::postgres::catalog::{BackupDescription, Effect, EventKind, Facts, FoundEvent, Windows};
use crate::postgres::types::TimelineId;

/// The height of a row of events' names, in pixels.
pub const NAMES: u32 = 17;
/// Rows of names.
const ROWS: usize = 3;
/// Signs nearer to each other than this, in hundredths of the width, become one.
pub const NEAR: f64 = 1.6;
/// The width of a letter and of what stands before a name, in hundredths of the width of a usual window.
const LETTER: f64 = 0.66;
const BEFORE_NAME: f64 = 1.3;
/// Letters of a name that are shown.
pub const LONGEST: usize = 28;

/// What the time line is made of.
pub struct Content<'a> {
    pub facts: &'a Facts,
    pub windows: &'a Windows,
    pub events: &'a [FoundEvent],
    pub query: &'a PageQuery,
    pub chosen: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
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

/// The sign of a backup, where it ended.
pub fn backup_sign(content: &Content<'_>, span: &Span, backup: &BackupDescription) -> Sign {
    let id = backup.id.to_string();
    let query = PageQuery {
        backup: id.clone(),
        ..content.query.to_words("immediate", "")
    };
    Sign {
        x: percent(span.place(backup.stopped_at)),
        ms: backup.stopped_at.timestamp_millis(),
        href: format!("{}#plan", query.address()),
        words: format!(
            "base backup {id}, ended {}",
            When::of(backup.stopped_at).text()
        ),
        class: if backup.is_sound() {
            "backup"
        } else {
            "backup damaged"
        },
        inside: String::new(),
        chosen: content.query.backup == id,
        name: None,
    }
}

/// The signs of a timeline's events; those that lie near to each other are one, which leads closer.
pub fn signs(content: &Content<'_>, span: &Span, timeline: TimelineId) -> Vec<Sign> {
    let placed = content
        .events
        .iter()
        .filter(|event| event.timeline == timeline);
    let placed = placed.filter_map(|event| Some((event, event.time.to_utc()?)));
    let mut groups: Vec<Vec<(&FoundEvent, DateTime<Utc>)>> = Vec::new();
    for (event, at) in placed.filter(|(_, at)| span.holds(*at)) {
        let near = |group: &&mut Vec<(&FoundEvent, DateTime<Utc>)>| {
            group
                .first()
                .is_some_and(|(_, first)| span.place(at) - span.place(*first) < NEAR)
        };
        match groups.last_mut().filter(near) {
            Some(group) => group.push((event, at)),
            None => groups.push(vec![(event, at)]),
        }
    }
    groups
        .iter()
        .filter_map(|group| sign(content, span, group))
        .collect()
}

fn sign(
    content: &Content<'_>,
    span: &Span,
    group: &[(&FoundEvent, DateTime<Utc>)],
) -> Option<Sign> {
    let ((first, from), (_, until)) = (group.first()?, group.last()?);
    let chosen = group
        .iter()
        .any(|(event, _)| is_chosen(content.query, event));
    let (x, ms) = (percent(span.place(*from)), from.timestamp_millis());
    if let [(event, at)] = group {
        return Some(Sign {
            x,
            ms,
            href: format!(
                "{}#plan",
                content
                    .query
                    .to_words("before", &event.id.to_string())
                    .address()
            ),
            words: format!("{}, {}", event.words(), When::of(*at).text()),
            class: class(event.kind),
            inside: event.kind.row().sign.into(),
            chosen,
            name: Some(Name {
                text: shortened(&event.subject()),
                y: 0,
                is_before: span.place(*at) > 80.0,
            }),
        });
    }
    let room = ((*until - *from) / 8).max(TimeDelta::milliseconds(500));
    let closer = Span::between(*from - room, *until + room);
    let worst = group
        .iter()
        .map(|(event, _)| event.kind)
        .min()
        .unwrap_or(first.kind);
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
        inside: if group.len() > 99 {
            "99+".into()
        } else {
            group.len().to_string()
        },
        chosen,
        name: None,
    })
}

/// Whether the address has an event for its target.
pub fn is_chosen(query: &PageQuery, event: &FoundEvent) -> bool {
    matches!(query.by.as_str(), "before" | "after") && query.value == event.id.to_string()
}

/// Finds a row for each name, the nearest first, and takes away those for which there is none; how many rows there are.
pub fn name_rows(signs: &mut [Sign], top: u32) -> u32 {
    let mut ends = [f64::MIN; ROWS];
    let mut used = 0;
    for sign in signs.iter_mut() {
        let Some(name) = &mut sign.name else { continue };
        let at: f64 = sign.x.trim_end_matches('%').parse().unwrap_or(0.0);
        let width = BEFORE_NAME + name.text.chars().count() as f64 * LETTER;
        let (from, until) = if name.is_before {
            (at - width, at + 1.0)
        } else {
            (at - 1.0, at + width)
        };
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
    match kind.row().effect {
        Effect::Lost => "lost",
        Effect::Changed => "changed",
        Effect::Marked => "point",
        Effect::Nothing => "other",
    }
}

/// A place on the axis, for CSS.
pub fn percent(place: f64) -> String {
    format!("{place:.3}%")
}
