//! Facts about what is kept, and the decisions over them. Pure.

mod asked;
mod beside;
mod choose;
mod drop_database;
mod estimate;
mod event_target;
mod events;
mod idle;
mod made;
mod model;
mod moment;
mod partial_read;
mod path;
mod place;
mod plan;
#[cfg(test)]
mod plan_tests;
mod probe;
mod ranges;
mod refuse;
mod removal;
mod stop;
mod target;
#[cfg(test)]
pub mod testing;
mod unreachable;
mod wal_index;
mod whole;
mod windows;

pub use asked::{NamedTarget, ParsedRequest, RequestText};
pub use beside::OtherTimeline;
pub use estimate::{PAST_RESTORES, PastRestore, expected_seconds};
pub use event_target::EventTarget;
pub use events::{EventId, EventKind, FIRST_NORMAL, Filter, FoundEvent, LEAST_ROWS, OWN_RESTORE_POINT};
pub use idle::IdleTimes;
pub use made::{MadeTablespace, MadeTablespaces};
pub use model::{
    BACKUP_KIND, BackupDescription, ClusterDescription, ConfigurationFile, MajorSince, TablespaceDescription, WAL_KIND,
    WalDescription,
};
pub use moment::parse_time;
pub use partial_read::{Before, Headers, PartialRead, ReadPlan, reading};
pub use path::{PathStep, Reach, TimelinePath, WalPiece};
pub use place::XID_REUSE;
pub use plan::{Facts, NoPlan, PlanInput, ProbeSegment, RecoveryPlan, Unusable, plan};
pub use probe::{FoundEnd, FoundRecord, Probe, ProbeQuery, ProbeResult, ProbeTarget, Tuple};
pub use ranges::{Gap, WalRange, WalRanges};
pub use removal::{Relation, Removal, RemovedRelation};
pub use stop::{Neighbours, Reachability, StopAt, Transaction};
pub use target::{RestoreRequest, Target, TimelineChoice, postgresql_time};
pub use unreachable::{Nearest, Unreachable, UnreachableReason};
pub use wal_index::{KnownPrefix, NoIndex, Point, Unknown, WalIndex};
pub use windows::{
    UnknownTimeline, Unrestorable, Unused, Usable, Window, WindowEdge, Windows, missing_wal, newest_usable,
    unused_backups, windows,
};
