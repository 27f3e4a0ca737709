//! Which moments can be restored.

use chrono::{DateTime, Utc};

use crate::postgres::catalog;
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, TimelineId};

answer! {
    /// What can be restored, and what cannot.
    pub struct Restorable {
        /// What can be restored, by the timeline that is followed.
        windows: Vec<Window>,
        /// What lies between the windows of a timeline.
        unrestorable: Vec<Unrestorable>,
        /// Timelines that are in neither: where they come from cannot be read.
        unknown: Vec<UnknownTimeline>,
        /// Timelines that go on beside the newest, which is followed where none is named.
        other_timelines: Vec<OtherTimeline>,
    }
}

impl From<&catalog::Windows> for Restorable {
    fn from(windows: &catalog::Windows) -> Self {
        Self {
            windows: windows.windows.iter().map(Into::into).collect(),
            unrestorable: windows.gaps.iter().map(Into::into).collect(),
            unknown: windows.unknown.iter().map(Into::into).collect(),
            other_timelines: windows.other_timelines.iter().map(Into::into).collect(),
        }
    }
}

answer! {
    /// A range of a timeline of which every moment can be restored. Times are of the server's clock; one that is not known
    /// is absent.
    pub struct Window {
        timeline: TimelineId,
        /// The end of the first backup, or where the timeline begins.
        from_lsn: Lsn,
        /// The first LSN that is not archived.
        to_lsn: Lsn,
        /// When the first backup ended, or the last commit before the timeline began.
        from_time?: DateTime<Utc>,
        /// The last commit in it; without one the end of the first backup.
        to_time?: DateTime<Utc>,
        /// Until when the server proved that no other transaction ended; only where the window ends with the archive.
        idle_until?: DateTime<Utc>,
        /// The oldest backup that leads into it.
        backup: BackupId,
    }
}

impl From<&catalog::Window> for Window {
    fn from(window: &catalog::Window) -> Self {
        Self {
            timeline: window.timeline,
            from_lsn: window.from.lsn,
            to_lsn: window.to.lsn,
            from_time: window.from.time,
            to_time: window.to.time,
            idle_until: window.idle_until,
            backup: window.backup.clone(),
        }
    }
}

answer! {
    /// A timeline of which it is not known what can be restored, because its history file is damaged or missing.
    pub struct UnknownTimeline {
        timeline: TimelineId,
        why: String,
    }
}

impl From<&catalog::UnknownTimeline> for UnknownTimeline {
    fn from(unknown: &catalog::UnknownTimeline) -> Self {
        Self {
            timeline: unknown.timeline,
            why: unknown.why.clone(),
        }
    }
}

answer! {
    /// A timeline with archived WAL that goes on beside the one that is followed.
    pub struct OtherTimeline {
        timeline: TimelineId,
        /// Where it and the path that is followed part.
        left_at: Lsn,
        /// The first LSN that is not archived.
        to_lsn: Lsn,
        /// The last commit in it.
        to_time?: DateTime<Utc>,
    }
}

impl From<&catalog::OtherTimeline> for OtherTimeline {
    fn from(other: &catalog::OtherTimeline) -> Self {
        Self {
            timeline: other.timeline,
            left_at: other.left_at,
            to_lsn: other.to.lsn,
            to_time: other.to.time,
        }
    }
}

answer! {
    /// A range between two windows of a timeline, of which no moment can be restored: WAL is missing in it.
    pub struct Unrestorable {
        timeline: TimelineId,
        /// The first LSN that is not archived.
        from_lsn: Lsn,
        /// The end of the first backup behind it.
        to_lsn: Lsn,
        /// The last commit before it.
        from_time?: DateTime<Utc>,
        /// When that backup ended.
        to_time?: DateTime<Utc>,
        /// How long it lasted.
        seconds?: f64,
    }
}

impl From<&catalog::Unrestorable> for Unrestorable {
    fn from(gap: &catalog::Unrestorable) -> Self {
        Self {
            timeline: gap.timeline,
            from_lsn: gap.from.lsn,
            to_lsn: gap.to.lsn,
            from_time: gap.from.time,
            to_time: gap.to.time,
            seconds: gap.seconds,
        }
    }
}
