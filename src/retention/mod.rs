//! What is kept and what may go: a pure function over items, policy and reference time.
//!
//! A source hands in [`Holdings`]: what there is, what WAL there is, what is pinned or in use. [`Policy`] says what is
//! promised. The answer is a [`Plan`] in which every item has its reasons; its [`Deletions`] have a digest, so that what
//! is deleted is what was printed. Whatever is not known is kept, and so is whatever it might need.

mod clock;
mod decide;
mod explain;
mod holds;
mod item;
#[cfg(test)]
mod model;
mod paths;
mod plan;
mod policy;
mod series;
mod simulate;
mod wal;
mod warnings;

pub use crate::postgres::catalog::WalSpan;
pub use decide::decide;
pub use holds::{Gone, Held, Hold, holds};
pub use item::{
    BackupWal, Condition, Holdings, Item, ItemId, ItemKind, Lease, LeasedWal, Needs, Pin, WalFacts,
    WalPlace,
};
pub use plan::{
    DeleteReason, Deletions, ItemDecision, KeepReason, Missed, Plan, PlanDigest, Reference,
    Verdict, WalDecision, WalReason, WalVerdict,
};
pub use policy::{Keep, KindPolicy, Policy, Tier, Tiers};
pub use simulate::{SeriesKey, Simulation, habits};
