//! Facts about the archive, and the decisions over them. Pure.
//!
//! Facts are values: backups, WAL ranges, histories, names. [`plan`] turns a target into a plan, or into the reasons and
//! the nearest moments. Two traits ask for more: [`WalIndex`] narrows the WAL to a segment, and a probe reads that one.
//! What they do not know is `Unknown`, never "not there".

mod choose;
mod continuity;
mod drop_database;
mod estimate;
mod event_target;
mod events;
mod expired;
mod facts;
mod follow;
mod idle;
pub mod marks;
mod model;
mod moment;
mod neighbours;
mod other_timelines;
mod partial_read;
mod path;
mod plan;
#[cfg(test)]
mod plan_tests;
mod probe;
mod ranges;
mod refuse;
mod removal;
mod replayed_tablespaces;
mod request;
mod stop_at;
mod stop_point;
mod target;
#[cfg(test)]
pub mod testing;
mod unreachable;
mod usable;
mod wal_index;
mod windows;

pub use estimate::{PAST_RESTORES, PastRestore, expected_seconds};
pub use event_target::EventTarget;
pub use events::{
    Effect, EventId, EventKind, FIRST_NORMAL, Filter, FoundEvent, LEAST_ROWS, OWN_RESTORE_POINT,
    Scope,
};
pub use expired::{ExpiredWal, WalSpan, without};
pub use facts::{Facts, PlanInput, ProbeSegment, Unusable};
pub use follow::missing_wal;
pub use idle::IdleTimes;
pub use model::{
    BACKUP_KIND, BackupDescription, ClusterDescription, ConfigurationFile, MajorSince,
    TablespaceDescription, WAL_KIND, WalDescription,
};
pub use moment::parse_time;
pub use other_timelines::{OtherTimeline, WindowEdge};
pub use partial_read::{Before, Headers, PartialRead, ReadPlan, reading};
pub use path::{Coverage, PathStep, TimelinePath, WalPiece};
pub use plan::{RecoveryPlan, plan};
pub use probe::{FoundEnd, FoundRecord, Probe, ProbeQuery, ProbeResult, ProbeTarget, Tuple};
pub use ranges::{Gap, WalRange, WalRanges};
pub use refuse::NoPlan;
pub use removal::{Relation, Removal, RemovedRelation};
pub use replayed_tablespaces::{ReplayedTablespace, ReplayedTablespaces};
pub use request::{NamedTarget, ParsedRequest, RequestText};
pub use stop_at::{Neighbours, Reachability, StopAt, Transaction};
pub use stop_point::XID_REUSE;
pub use target::{RestoreRequest, Target, TimelineChoice, postgresql_time};
pub use unreachable::{Nearest, Unreachable, UnreachableReason};
pub use usable::{Unused, Usable, newest_usable, unused_backups};
pub use wal_index::{KnownPrefix, NoIndex, Point, Unknown, WalIndex};
pub use windows::{UnknownTimeline, Unrestorable, Window, Windows, windows};
