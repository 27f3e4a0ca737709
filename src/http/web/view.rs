//! What the templates show.

use askama::Template;
use chrono::{DateTime, Utc};

use super::alerts::AlertsView;
use super::cards::Card;
use super::drills::DrillsView;
use super::jobs::JobsView;
use super::line::Line;
use super::query::{BY, PageQuery};
use super::signs;
use super::upkeep::DumpsView;
use super::words::{When, between, bytes, count, duration};
use crate::postgres::catalog::{
    BackupDescription, EventKind, FoundEvent, Nearest, OtherTimeline, PathStep, RecoveryPlan,
    StopAt, Transaction, Unreachable, WalPiece, WindowEdge, Windows,
};
use crate::postgres::index::FoundEvents;
use crate::postgres::types::TimelineId;

/// Everything that the page's template shows.
#[derive(Template)]
#[template(path = "page.html")]
pub struct Page {
    pub cluster: String,
    pub versions: String,
    pub system_identifier: String,
    pub version: &'static str,
    pub signed_in: bool,
    pub read_at: When,
    pub notices: Vec<String>,
    pub cards: Vec<Card>,
    /// Below them.
    pub upkeep_cards: Vec<Card>,
    pub alerts: AlertsView,
    pub line: Line,
    pub choose: Choose,
    pub outcome: Option<TargetOutcome>,
    pub events: EventsView,
    pub ranges: Vec<RecoveryRange>,
    /// Why it is not known of some timelines what can be restored.
    pub unknown_timelines: Vec<String>,
    pub backups: Vec<BackupView>,
    /// Names, and why they cannot be used.
    pub not_backups: Vec<(String, String)>,
    /// The newest of each database.
    pub dumps: DumpsView,
    pub jobs: JobsView,
    pub drills: DrillsView,
}

/// There is no page yet.
#[derive(Template)]
#[template(path = "waiting.html")]
pub struct WaitingPage {
    pub cluster: String,
    pub what: String,
}

/// Asks for a token.
#[derive(Template)]
#[template(path = "sign-in.html")]
pub struct SignIn {
    pub cluster: String,
    /// The query of the page that was asked for.
    pub query: String,
    pub refused: bool,
}

/// The form that names a target.
pub struct Choose {
    pub query: PageQuery,
    /// Word, label, whether it is chosen.
    pub by: Vec<(&'static str, &'static str, bool)>,
    pub timelines: Vec<u32>,
    pub latest: String,
}

impl Choose {
    /// As the address says.
    pub fn new(query: &PageQuery, timelines: Vec<u32>) -> Self {
        let chosen = if query.by.is_empty() {
            "time"
        } else {
            &query.by
        };
        let by = BY
            .iter()
            .map(|(word, label)| (*word, *label, *word == chosen))
            .collect();
        Self {
            query: query.clone(),
            by,
            timelines,
            latest: query.to_words("latest", "").address(),
        }
    }
}

/// What came of a target.
pub enum TargetOutcome {
    Plan(Box<PlanView>),
    Refused(RefusedView),
    /// It could not be found out, or it is no target.
    Problem {
        what: String,
        hint: String,
    },
}

/// How a moment is restored.
pub struct PlanView {
    pub target: String,
    pub command: String,
    pub stop: String,
    pub included: Option<NeighbourCommit>,
    pub excluded: Option<NeighbourCommit>,
    /// Whether transactions are known at all.
    pub knows_sides: bool,
    pub backup: String,
    pub backup_ended: When,
    pub backup_why: String,
    pub backup_size: String,
    pub path: Vec<String>,
    pub wal: String,
    pub pieces: Vec<String>,
    pub expected: Option<String>,
    pub settings: Vec<(String, String)>,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

/// A transaction on one side of where replay stops.
pub struct NeighbourCommit {
    pub xid: u32,
    pub at: When,
    pub lsn: String,
}

impl From<Transaction> for NeighbourCommit {
    fn from(transaction: Transaction) -> Self {
        let Transaction { xid, lsn, time } = transaction;
        Self {
            xid,
            at: When::exactly(time),
            lsn: lsn.to_string(),
        }
    }
}

impl From<&RecoveryPlan> for PlanView {
    fn from(plan: &RecoveryPlan) -> Self {
        let step = |step: &PathStep| {
            let to = step
                .to
                .map_or_else(|| "the target".into(), |lsn| lsn.to_string());
            format!(
                "timeline {} from {} to {to}",
                step.timeline,
                step.from.max(plan.backup.start_lsn)
            )
        };
        let piece = |piece: &WalPiece| {
            let (segments, stored) = (count(piece.segments, "segment"), bytes(piece.stored_bytes));
            format!(
                "{} to {}, {segments}, about {stored}",
                piece.first, piece.last
            )
        };
        let sides = plan.transactions.unwrap_or_default();
        Self {
            target: plan.target.clone(),
            command: plan.request.command(),
            stop: plan.stop.words(),
            included: sides.last_included.map(NeighbourCommit::from),
            excluded: sides.first_excluded.map(NeighbourCommit::from),
            knows_sides: plan.transactions.is_some() && plan.stop != StopAt::Consistent,
            backup: plan.backup.id.to_string(),
            backup_ended: When::of(plan.backup.stopped_at),
            backup_why: plan.reason.clone(),
            backup_size: bytes(plan.backup.plain_bytes),
            path: plan.path.iter().map(step).collect(),
            wal: format!(
                "{}, about {}",
                count(plan.segments, "segment"),
                bytes(plan.wal_bytes)
            ),
            pieces: plan.wal.iter().map(piece).collect(),
            expected: plan.expected_seconds.map(duration),
            settings: plan.settings.clone(),
            notes: words(&plan.other_timelines)
                .chain(plan.notes.iter().cloned())
                .collect(),
            warnings: plan.warnings.clone(),
        }
    }
}

/// Why a moment cannot be restored.
pub struct RefusedView {
    pub target: String,
    pub reason: String,
    pub hint: String,
    pub notes: Vec<String>,
    /// When, words, the address of its plan.
    pub nearest: Vec<(&'static str, String, String)>,
}

impl RefusedView {
    /// With ways to what can be restored.
    pub fn new(refused: &Unreachable, query: &PageQuery) -> Self {
        let way = |when: &'static str, nearest: &Option<Nearest>| {
            nearest.as_ref().map(|nearest| {
                (
                    when,
                    nearest.words.clone(),
                    query.to(&nearest.request).address(),
                )
            })
        };
        let nearest = [
            way("before", &refused.nearest_before),
            way("after", &refused.nearest_after),
        ];
        Self {
            target: refused.target.clone(),
            reason: refused.reason.to_string(),
            hint: refused.hint(),
            notes: words(&refused.other_timelines)
                .chain(refused.notes.iter().cloned())
                .collect(),
            nearest: nearest.into_iter().flatten().collect(),
        }
    }
}

/// The list of events.
pub struct EventsView {
    pub rows: Vec<Row>,
    pub more: bool,
    /// WAL segments with more events than are known.
    pub overfull_segments: u64,
    /// All archived WAL was searched.
    pub complete: bool,
    pub query: PageQuery,
    /// Word, label, whether it is chosen.
    pub kinds: Vec<(&'static str, &'static str, bool)>,
    pub unfiltered: Option<String>,
    /// Why they cannot be shown.
    pub problem: Option<String>,
}

/// An event.
pub struct Row {
    pub when: When,
    pub class: &'static str,
    pub sign: &'static str,
    pub kind: &'static str,
    /// It may have been something else, or nothing.
    pub guess: bool,
    pub subject: String,
    pub database: String,
    pub rows: String,
    pub xid: String,
    pub id: String,
    pub words: String,
    pub before: String,
    pub after: String,
    pub chosen: bool,
}

impl EventsView {
    /// The latest first.
    pub fn new(found: &FoundEvents, query: &PageQuery, problem: Option<String>) -> Self {
        let everything = PageQuery {
            relation: String::new(),
            kind: String::new(),
            min_rows: String::new(),
            all: String::new(),
            ..query.clone()
        };
        let kinds = EventKind::ALL
            .iter()
            .map(|kind| kind.row())
            .map(|kind| (kind.name, kind.words, kind.name == query.kind));
        Self {
            rows: found
                .events
                .iter()
                .rev()
                .filter_map(|event| row(event, query))
                .collect(),
            more: found.more,
            overfull_segments: found.overfull_segments,
            complete: found.state.is_complete(),
            kinds: kinds.collect(),
            unfiltered: query.is_filtered().then(|| everything.address()),
            query: query.clone(),
            problem,
        }
    }
}

fn row(event: &FoundEvent, query: &PageQuery) -> Option<Row> {
    let at_least = if event.exact { "" } else { "≥ " };
    let id = event.id.to_string();
    Some(Row {
        when: When::of(event.time.to_utc()?),
        class: signs::class(event.kind),
        sign: event.kind.row().sign,
        kind: event.kind.row().words,
        guess: !event.exact && event.rows.is_none(),
        subject: event.subject(),
        database: event.database.clone().unwrap_or_default(),
        rows: event
            .rows
            .map(|rows| format!("{at_least}{rows}"))
            .unwrap_or_default(),
        xid: event.xid.map(|xid| xid.to_string()).unwrap_or_default(),
        words: event.words(),
        before: query.to_words("before", &id).address(),
        after: query.to_words("after", &id).address(),
        chosen: signs::is_chosen(query, event),
        id,
    })
}

/// A range of a timeline that can be restored, or that cannot.
pub struct RecoveryRange {
    pub timeline: u32,
    pub can: bool,
    pub from: Option<When>,
    pub until: Option<When>,
    pub lasts: String,
    pub lsns: String,
}

/// Both kinds, by timeline and place.
pub fn ranges(windows: &Windows) -> Vec<RecoveryRange> {
    let range = |timeline: TimelineId, can, from: WindowEdge, until: Option<DateTime<Utc>>, end| {
        let lasts = from
            .time
            .zip(until)
            .map(|(from, until)| between(from, until));
        let range = RecoveryRange {
            timeline: timeline.0,
            can,
            from: from.time.map(When::of),
            until: until.map(When::of),
            lasts: lasts.unwrap_or_else(|| "not known".into()),
            lsns: format!("{} to {end}", from.lsn),
        };
        ((timeline, from.lsn), range)
    };
    let can = windows.windows.iter().map(|window| {
        range(
            window.timeline,
            true,
            window.from,
            window.until(),
            window.to.lsn,
        )
    });
    let cannot = windows
        .gaps
        .iter()
        .map(|gap| range(gap.timeline, false, gap.from, gap.to.time, gap.to.lsn));
    let mut all: Vec<_> = can.chain(cannot).collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, range)| range).collect()
}

/// A base backup.
pub struct BackupView {
    pub id: String,
    pub ended: When,
    pub took: String,
    pub timeline: u32,
    pub lsn: String,
    pub size: String,
    pub stored: String,
    pub server: String,
    pub damaged_pages: usize,
    /// What did not come; with any it cannot be used.
    pub lacks: Vec<String>,
    pub href: String,
    pub chosen: bool,
}

impl BackupView {
    /// With the way to the plan that restores it as it is.
    pub fn new(backup: &BackupDescription, query: &PageQuery) -> Self {
        let id = backup.id.to_string();
        Self {
            ended: When::of(backup.stopped_at),
            took: between(backup.started_at, backup.stopped_at),
            timeline: backup.timeline.0,
            lsn: backup.stop_lsn.to_string(),
            size: bytes(backup.plain_bytes),
            stored: bytes(backup.stored_bytes),
            server: backup
                .server_version
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_string(),
            damaged_pages: backup.checksum_failures.len(),
            lacks: backup.left_out.clone(),
            href: PageQuery {
                backup: id.clone(),
                ..query.to_words("immediate", "")
            }
            .address(),
            chosen: query.backup == id,
            id,
        }
    }
}
/// Timelines that go on beside the one that is followed.
fn words(others: &[OtherTimeline]) -> impl Iterator<Item = String> + '_ {
    others.iter().map(OtherTimeline::to_string)
}
