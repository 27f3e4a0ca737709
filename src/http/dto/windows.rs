//! What can be restored, and what cannot.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::postgres::catalog;

/// A range of a timeline of which every moment can be restored. Times are of the server's clock; one that is not known
/// is absent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Window {
    timeline: u32,
    /// The end of the first backup, or where the timeline begins.
    #[schema(example = "0/3000100")]
    from_lsn: String,
    /// The first LSN that is not archived.
    #[schema(example = "0/B000000")]
    to_lsn: String,
    /// When the first backup ended, or the last commit before the timeline began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    from_time: Option<DateTime<Utc>>,
    /// The last commit in it; without one the end of the first backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to_time: Option<DateTime<Utc>>,
    /// Until when the server proved that no other transaction ended; only where the window ends with the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    idle_until: Option<DateTime<Utc>>,
    /// The oldest backup that leads into it.
    #[schema(example = "20260131-030000Z")]
    backup: String,
}

impl From<&catalog::Window> for Window {
    fn from(window: &catalog::Window) -> Self {
        Self {
            timeline: window.timeline.0,
            from_lsn: window.from.lsn.to_string(),
            to_lsn: window.to.lsn.to_string(),
            from_time: window.from.time,
            to_time: window.to.time,
            idle_until: window.idle_until,
            backup: window.backup.to_string(),
        }
    }
}

/// A timeline of which it is not known what can be restored, because its history file is damaged or missing.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnknownTimeline {
    timeline: u32,
    why: String,
}

impl From<&catalog::UnknownTimeline> for UnknownTimeline {
    fn from(unknown: &catalog::UnknownTimeline) -> Self {
        Self { timeline: unknown.timeline.0, why: unknown.why.clone() }
    }
}

/// A timeline with archived WAL that goes on beside the one that is followed.
#[derive(Debug, Serialize, ToSchema)]
pub struct OtherTimeline {
    timeline: u32,
    /// Where it and the path that is followed part.
    #[schema(example = "0/A000100")]
    left_at: String,
    /// The first LSN that is not archived.
    #[schema(example = "0/B000000")]
    to_lsn: String,
    /// The last commit in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to_time: Option<DateTime<Utc>>,
}

impl From<&catalog::OtherTimeline> for OtherTimeline {
    fn from(other: &catalog::OtherTimeline) -> Self {
        Self {
            timeline: other.timeline.0,
            left_at: other.left_at.to_string(),
            to_lsn: other.to.lsn.to_string(),
            to_time: other.to.time,
        }
    }
}

/// A range between two windows of a timeline, of which no moment can be restored: WAL is missing in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Unrestorable {
    timeline: u32,
    /// The first LSN that is not archived.
    #[schema(example = "0/B000000")]
    from_lsn: String,
    /// The end of the first backup behind it.
    #[schema(example = "0/D000100")]
    to_lsn: String,
    /// The last commit before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    from_time: Option<DateTime<Utc>>,
    /// When that backup ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to_time: Option<DateTime<Utc>>,
    /// How long it lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seconds: Option<f64>,
}

impl From<&catalog::Unrestorable> for Unrestorable {
    fn from(gap: &catalog::Unrestorable) -> Self {
        Self {
            timeline: gap.timeline.0,
            from_lsn: gap.from.lsn.to_string(),
            to_lsn: gap.to.lsn.to_string(),
            from_time: gap.from.time,
            to_time: gap.to.time,
            seconds: gap.seconds,
        }
    }
}
