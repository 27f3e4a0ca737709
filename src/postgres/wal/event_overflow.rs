//! Which events a summary has room for, and how many it counts only.

use serde::{Deserialize, Serialize};

use super::event::{EVENTS, EventDetail};

/// Events that a summary does not hold, by group. Each group has room of its own: what nobody looks for takes none from
/// what somebody does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventOverflow {
    pub restore_points: u64,
    /// Commits that removed files.
    pub removals: u64,
    /// Of databases and timelines, and records lost in a crash.
    pub cluster: u64,
    pub others: u64,
}

/// What kind of room an event takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventGroup {
    RestorePoints,
    Removals,
    Cluster,
    Others,
}

impl EventGroup {
    pub const ALL: [Self; 4] = [
        Self::RestorePoints,
        Self::Removals,
        Self::Cluster,
        Self::Others,
    ];

    pub fn of(what: &EventDetail) -> Self {
        match what {
            EventDetail::RestorePoint { .. } => Self::RestorePoints,
            EventDetail::FilesRemoved { .. } => Self::Removals,
            EventDetail::DatabaseCreated { .. }
            | EventDetail::DatabaseDropped { .. }
            | EventDetail::TimelineBegan { .. }
            | EventDetail::Overwritten { .. } => Self::Cluster,
            EventDetail::DatabaseMoved { .. }
            | EventDetail::FileTruncated { .. }
            | EventDetail::TablesTruncated { .. }
            | EventDetail::Prepared { .. }
            | EventDetail::ParametersChanged(_)
            | EventDetail::FullPageWrites { .. } => Self::Others,
        }
    }

    /// Events of the group that a summary holds at most.
    fn room(self) -> usize {
        if self == Self::Others {
            EVENTS / 4
        } else {
            EVENTS
        }
    }
}

/// How many events of each group a summary has taken so far: each group has room for so many.
#[derive(Debug, Default)]
pub(super) struct EventRoom([usize; EventGroup::ALL.len()]);

impl EventRoom {
    /// Whether there is room for one more of a group: then it takes it.
    pub fn take(&mut self, group: EventGroup) -> bool {
        let taken = &mut self.0[group as usize];
        let room = *taken < group.room();
        *taken += usize::from(room);
        room
    }
}

impl EventOverflow {
    pub(super) fn add(&mut self, group: EventGroup, events: u64) {
        *match group {
            EventGroup::RestorePoints => &mut self.restore_points,
            EventGroup::Removals => &mut self.removals,
            EventGroup::Cluster => &mut self.cluster,
            EventGroup::Others => &mut self.others,
        } += events;
    }

    /// Events of all groups.
    pub fn total(&self) -> u64 {
        self.restore_points + self.removals + self.cluster + self.others
    }
}
