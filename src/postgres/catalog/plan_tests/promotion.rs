//! How a recovery ends in the model.

use super::world::World;

impl World {
    pub fn has_history(&self, timeline: u32) -> bool {
        timeline == 1
            || self
                .forks
                .get(timeline as usize - 2)
                .is_some_and(|fork| fork.2)
    }

    /// Whether a server can end recovery on a timeline: all newer ones that there is anything of have histories, up to one
    /// that there is nothing of.
    pub fn can_promote(&self, timeline: u32) -> bool {
        let next = (timeline + 1..)
            .find(|next| !self.has_history(*next))
            .unwrap();
        let of_wal = self.segments.keys().any(|(timeline, _)| *timeline == next);
        let of_backups = self.backups.iter().any(|backup| backup.timeline.0 == next);
        let child = |child: u32| {
            self.has_history(child) && self.history(child).path().any(|each| each.0 == next)
        };
        !of_wal && !of_backups && !(next + 1..self.forks.len() as u32 + 2).any(child)
    }
}
