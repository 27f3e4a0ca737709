//! Which events a summary keeps, and how many it does not.

use serde::{Deserialize, Serialize};

use super::summary::{EVENTS, What};

/// Events that a summary does not hold, by group. Each group has room of its own: what nobody looks for takes none from
/// what somebody does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub restore_points: u64,
    /// Commits that removed files.
    pub removals: u64,
    /// Of databases and timelines, and records lost in a crash.
    pub cluster: u64,
    pub others: u64,
}

/// What kind of room an event takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    RestorePoints,
    Removals,
    Cluster,
    Others,
}

impl Group {
    pub const ALL: [Self; 4] = [Self::RestorePoints, Self::Removals, Self::Cluster, Self::Others];

    pub fn of(what: &What) -> Self {
        match what {
            What::RestorePoint { .. } => Self::RestorePoints,
            What::FilesRemoved { .. } => Self::Removals,
            What::DatabaseCreated { .. }
            | What::DatabaseDropped { .. }
            | What::TimelineBegan { .. }
            | What::Overwritten { .. } => Self::Cluster,
            What::DatabaseMoved { .. }
            | What::FileTruncated { .. }
            | What::TablesTruncated { .. }
            | What::Prepared { .. }
            | What::ParametersChanged(_)
            | What::FullPageWrites { .. } => Self::Others,
        }
    }

    /// Events of the group that a summary holds at most.
    fn room(self) -> usize {
        if self == Self::Others { EVENTS / 4 } else { EVENTS }
    }
}

/// How many events of each group a summary has taken so far: each group has room for so many.
#[derive(Debug, Default)]
pub(super) struct EventRoom([usize; Group::ALL.len()]);

impl EventRoom {
    /// Whether there is room for one more of a group: then it takes it.
    pub fn take(&mut self, group: Group) -> bool {
        let taken = &mut self.0[group as usize];
        let room = *taken < group.room();
        *taken += usize::from(room);
        room
    }
}

impl LeftOut {
    pub(super) fn add(&mut self, group: Group, events: u64) {
        *match group {
            Group::RestorePoints => &mut self.restore_points,
            Group::Removals => &mut self.removals,
            Group::Cluster => &mut self.cluster,
            Group::Others => &mut self.others,
        } += events;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.restore_points + self.removals + self.cluster + self.others
    }
}
