//! What answers look like as JSON, over HTTP and with `--format json`. Apart from the core's own types, so that a change
//! there is no silent change of the API; the words of `crate::health` are the answers' own.

/// Parts of answers. A member of the form `name?: T` is absent when it has no value, never null.
macro_rules! answer {
    ($($(#[$about:meta])* $vis:vis struct $name:ident { $($members:tt)* })*) => {
        $($crate::api::answer! { @ [$(#[$about])* $vis struct $name] [] $($members)* })*
    };
    (@ [$($head:tt)*] [$($done:tt)*] $(#[$about:meta])* $vis:vis $name:ident?: $type:ty, $($rest:tt)*) => {
        $crate::api::answer! {
            @ [$($head)*] [
                $($done)*
                $(#[$about])*
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schema(nullable = false)]
                $vis $name: Option<$type>,
            ] $($rest)*
        }
    };
    (@ [$($head:tt)*] [$($done:tt)*] $(#[$about:meta])* $vis:vis $name:ident: $type:ty, $($rest:tt)*) => {
        $crate::api::answer! { @ [$($head)*] [$($done)* $(#[$about])* $vis $name: $type,] $($rest)* }
    };
    (@ [$($head:tt)*] [$($done:tt)*]) => {
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        $($head)* { $($done)* }
    };
}
pub(crate) use answer;

mod alerts;
mod backups;
mod dumps;
mod events;
mod evidence;
mod health;
mod plan;
mod retention;
mod wal;
mod windows;

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

pub use alerts::FiringAlerts;
pub use backups::{Backup, UnusableBackup};
pub use dumps::Dump;
pub use events::Events;
pub use evidence::EvidenceRecord;
pub use health::{Rpo, Standing};
pub use plan::{RecoveryTarget, Setting};
pub use retention::{HeldData, RetentionPlan};
pub use wal::{History, Timeline, Timelines, Wal};
pub use windows::Restorable;

use crate::postgres::catalog::{EventId, EventKind};
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::types::{Lsn, SegmentName, SystemIdentifier, TimelineId};

/// Values that are told as text.
macro_rules! texts {
    ($($type:ty: $example:literal,)*) => {$(
        impl ToSchema for $type {}

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).examples([$example]).into()
            }
        }
    )*};
}

texts! {
    BackupId: "20260131-030000Z",
    ClusterName: "main",
    EventId: "1-16-B374D848-d16384",
    EventKind: "drop",
    Lsn: "16/B374D848",
    SegmentName: "000000010000000000000007",
    SystemIdentifier: "7301234567890123456",
}

impl ToSchema for TimelineId {}

impl PartialSchema for TimelineId {
    fn schema() -> RefOr<Schema> {
        u32::schema()
    }
}
