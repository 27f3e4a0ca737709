//! Facts about what is kept, and the decisions over them. Pure, but for `load`.

mod events;
pub mod load;
mod model;
mod moments;
mod path;
mod plan;
#[cfg(test)]
mod plan_tests;
mod ranges;
mod removal;
mod target;
#[cfg(test)]
pub mod testing;
mod unreachable;

pub use events::{EventId, EventKind, FIRST_NORMAL, Filter, FoundEvent};
pub use model::{
    BackupDescription, ClusterDescription, ConfigurationFile, MajorSince, TablespaceDescription, WAL_KIND,
    WalDescription,
};
pub use moments::{Around, Moments, Unknown};
pub use path::{PathStep, Reach, TimelinePath, WalPiece};
pub use plan::{Facts, RecoveryPlan, plan};
pub use ranges::{Gap, WalRange, WalRanges};
pub use removal::{Relation, Removal, Removed};
pub use target::{Request, Target, TimelineChoice, parse_time, postgresql_time};
pub use unreachable::{Nearest, Reason, Unreachable};
