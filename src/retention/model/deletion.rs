//! What deletions leave of the world, also those that a crash cuts short, and why each item went.

use super::super::{Deletions, Item, ItemId, Needs, Plan};
use super::world::{World, Written, size};
use crate::postgres::catalog::WalRanges;

impl World {
    /// What was decided about an item.
    pub fn history_of(&self, id: &ItemId) -> String {
        let lines = self
            .told
            .iter()
            .filter(|line| line.contains(&id.to_string()));
        lines.cloned().collect::<Vec<_>>().join("\n")
    }

    /// Deletes, WAL last; `crash`: not all of it.
    pub fn delete(&mut self, plan: &Plan, deletions: &Deletions, crash: bool) {
        for id in &deletions.items {
            let decision = plan.item(id);
            self.told.push(format!(
                "{}: {id} of {:?}: {decision:?}",
                self.now, plan.references
            ));
        }
        let mut items: Vec<&ItemId> = deletions.items.iter().rev().collect();
        if crash {
            let done = self.order.below(2 * items.len() as u64 + 1) as usize;
            items.truncate(done);
        }
        for id in &items {
            // What another one that is there needs goes in a later run.
            let needs =
                |item: &Item| matches!(&item.needs, Needs::Known(needs) if needs.contains(id));
            if !self.left.items.iter().any(needs) {
                self.left.items.retain(|item| item.id != **id);
            }
        }
        let whole = self
            .left
            .items
            .iter()
            .all(|item| !deletions.items.contains(&item.id));
        let mut spans = deletions.wal.clone();
        if crash {
            let done = self.order.below(2 * spans.len() as u64 + 1) as usize;
            spans.truncate(done);
        }
        if !whole {
            return;
        }
        let mut ranges = WalRanges::new(size());
        let mut kept: Vec<Written> = self
            .written
            .iter()
            .filter(|written| {
                let there = self.left.wal.ranges.contains(written.name);
                there && !spans.iter().any(|span| span.contains(written.name))
            })
            .copied()
            .collect();
        kept.sort_by_key(|written| written.name);
        kept.iter()
            .for_each(|written| ranges.add(written.name, 10, written.at));
        self.left.wal.ranges = ranges;
    }
}
