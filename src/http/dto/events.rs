//! What happened.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::postgres::catalog::FoundEvent;
use crate::postgres::index::{self, IndexState};

/// Events by time.
#[derive(Debug, Serialize, ToSchema)]
pub struct Events {
    pub indexed: Indexed,
    pub events: Vec<Event>,
    /// There are older ones than `limit` let through.
    pub more: bool,
    /// WAL segments of that time with more events than their summaries have room for: more may have happened.
    pub overfull_segments: u64,
}

/// How far the index was that the events were found in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Indexed {
    /// False: events may be missing, for it is not known yet, or cannot be read, what all archived WAL holds.
    complete: bool,
    /// False: the repository was not listed whole yet, so there may be more segments.
    listed: bool,
    /// When it was compared with the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    looked_at: Option<DateTime<Utc>>,
    segments: u64,
    /// Of these, what they hold is not known yet.
    not_indexed: u64,
    /// Of these, what they hold cannot be read.
    unreadable: u64,
    /// The first of those.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    first_unreadable: Option<Unreadable>,
}

/// A segment that cannot be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct Unreadable {
    #[schema(example = "000000010000000000000007")]
    segment: String,
    why: String,
}

impl Indexed {
    /// As it was when it was searched, and when it was compared with the repository.
    pub fn of(state: &IndexState, looked_at: Option<DateTime<Utc>>) -> Self {
        let unreadable = |first: &index::UnreadableSegment| Unreadable {
            segment: first.segment.to_string(),
            why: first.why.clone(),
        };
        Self {
            complete: state.is_complete(),
            listed: state.whole,
            looked_at,
            segments: state.segments,
            not_indexed: state.not_indexed,
            unreadable: state.unreadable,
            first_unreadable: state.first_unreadable.as_ref().map(unreadable),
        }
    }
}

/// Something that happened. What is not known is absent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// Its name, for `walden restore --before` and `--after`.
    #[schema(example = "1-16-B374D848-d16384")]
    id: String,
    /// drop, truncate, rewrite, delete, update, restore-point, database-drop, database-create or timeline.
    #[schema(example = "drop")]
    kind: String,
    timeline: u64,
    /// A restore that stops before this record undoes it.
    #[schema(example = "16/B374D848")]
    lsn: String,
    /// By the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    xid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "public.orders")]
    relation: Option<String>,
    /// `pg_class.relkind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "r")]
    relkind: Option<String>,
    /// Rows deleted or updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rows: Option<u64>,
    /// The name of a restore point.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
    /// False when the kind was guessed, rows may be more than counted, or it is not known whether its transaction committed.
    exact: bool,
}

impl From<&FoundEvent> for Event {
    fn from(event: &FoundEvent) -> Self {
        Self {
            id: event.id.to_string(),
            kind: event.kind.to_string(),
            timeline: u64::from(event.timeline.0),
            lsn: event.lsn.to_string(),
            time: event.time.to_utc(),
            xid: event.xid.map(u64::from),
            database: event.database.clone(),
            relation: event.relation.clone(),
            relkind: event.relkind.map(String::from),
            rows: event.rows,
            name: event.name.clone(),
            exact: event.exact,
        }
    }
}
