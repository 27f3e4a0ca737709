//! The time line: what can be restored, what cannot, backups and events, placed on the axis. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::axis::{Span, Tick};
use super::query::PageQuery;
use super::signs::{Content, NAMES, Sign, backup_sign, name_rows, percent, signs};
use super::words::{self, When};
use crate::postgres::types::TimelineId;

/// Heights in pixels: the row of events' signs, the band, and what is below it.
const SIGNS: u32 = 30;
const BAND: u32 = 18;
const BELOW: u32 = 26;
const DRILLS: u32 = 28;

/// A range of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct LineBar {
    pub x: String,
    pub width: String,
    pub from_ms: i64,
    pub until_ms: i64,
    pub words: String,
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
    /// Marks of drills, and their middle.
    pub drills: Vec<Sign>,
    pub drills_y: u32,
    /// The present.
    pub now: Option<(String, i64)>,
    /// The chosen moment.
    pub chosen: Option<(String, i64)>,
    pub ways: Vec<Way>,
    pub is_all: bool,
}

/// The range in which there is anything to show.
pub fn all(content: &Content<'_>) -> Span {
    let backups = content.facts.backups.iter().map(|backup| backup.started_at);
    let windows = content
        .windows
        .windows
        .iter()
        .flat_map(|window| [window.from.time, window.to.time])
        .flatten();
    let stored = content
        .facts
        .ranges
        .iter()
        .flat_map(|range| [range.first_stored, range.last_stored]);
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
        let shown =
            |moment: DateTime<Utc>| (percent(span.place(moment)), moment.timestamp_millis());
        Self {
            from: When::of(span.from),
            until: When::of(span.until),
            from_ms: span.from.timestamp_millis(),
            until_ms: span.until.timestamp_millis(),
            height: top + 40,
            axis_y: top + 4,
            marks: marks.collect(),
            lanes,
            drills: Vec::new(),
            drills_y: 0,
            now: span.holds(content.now).then(|| shown(content.now)),
            chosen: content
                .chosen
                .filter(|moment| span.holds(*moment))
                .map(shown),
            ways: ways(content, span, all),
            is_all: span == all,
        }
    }
}

impl Line {
    /// With a row of drills below the lanes, where there are any.
    pub fn with_drills(mut self, drills: Vec<Sign>) -> Self {
        if !drills.is_empty() {
            self.drills_y = self.axis_y + DRILLS / 2;
            self.axis_y += DRILLS;
            self.height += DRILLS;
        }
        self.drills = drills;
        self
    }
}

fn timelines(content: &Content<'_>) -> Vec<TimelineId> {
    let of_windows = content.windows.windows.iter().map(|window| window.timeline);
    let of_backups = content.facts.backups.iter().map(|backup| backup.timeline);
    let of_wal = content.facts.ranges.iter().map(|range| range.timeline());
    let of_events = content.events.iter().map(|event| event.timeline);
    let mut all: Vec<TimelineId> = of_windows
        .chain(of_backups)
        .chain(of_wal)
        .chain(of_events)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn lane(content: &Content<'_>, span: &Span, timeline: TimelineId, top: u32) -> Lane {
    let mut events = signs(content, span, timeline);
    let rows = name_rows(&mut events, top);
    let signs_y = top + rows * NAMES + SIGNS / 2 + 4;
    let band_y = signs_y + SIGNS / 2 + 2;
    let windows = content
        .windows
        .windows
        .iter()
        .filter(|window| window.timeline == timeline);
    let bands = windows.filter_map(|window| {
        let from = window.from.time?;
        let until = window.until().unwrap_or(from);
        let words = format!(
            "can be restored: {} to {}",
            When::of(from).text(),
            When::of(until).text()
        );
        bar(span, from, until, words)
    });
    let gaps = content
        .windows
        .gaps
        .iter()
        .filter(|gap| gap.timeline == timeline);
    let gaps = gaps.filter_map(|gap| {
        let (from, until) = (gap.from.time?, gap.to.time?);
        let lasts = words::between(from, until);
        let words = format!(
            "cannot be restored: {} to {}, {lasts}",
            When::of(from).text(),
            When::of(until).text()
        );
        bar(span, from, until, words)
    });
    let backups = content
        .facts
        .backups
        .iter()
        .filter(|backup| backup.timeline == timeline);
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

fn ways(content: &Content<'_>, span: &Span, all: &Span) -> Vec<Way> {
    let to = |span: Span| content.query.at(&span).address();
    let last = |hours: i64| {
        to(Span::between(
            content.now - TimeDelta::hours(hours),
            content.now,
        ))
    };
    let everything = PageQuery {
        from: String::new(),
        until: String::new(),
        ..content.query.clone()
    };
    vec![
        Way {
            sign: "←",
            words: "Earlier",
            key: "ArrowLeft",
            href: to(span.earlier()),
        },
        Way {
            sign: "−",
            words: "Zoom out",
            key: "-",
            href: to(span.wider(all)),
        },
        Way {
            sign: "+",
            words: "Zoom in",
            key: "+",
            href: to(span.closer(content.chosen)),
        },
        Way {
            sign: "→",
            words: "Later",
            key: "ArrowRight",
            href: to(span.later()),
        },
        Way {
            sign: "1 h",
            words: "The last hour",
            key: "h",
            href: last(1),
        },
        Way {
            sign: "1 d",
            words: "The last day",
            key: "d",
            href: last(24),
        },
        Way {
            sign: "7 d",
            words: "The last week",
            key: "w",
            href: last(7 * 24),
        },
        Way {
            sign: "All",
            words: "All of it",
            key: "0",
            href: everything.address(),
        },
    ]
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
