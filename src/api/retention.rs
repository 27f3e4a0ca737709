//! What is kept and what goes.

use chrono::{DateTime, Utc};

use crate::retention::{Gone, Held, Hold, ItemDecision, Plan, WalDecision, WalVerdict};

answer! {
    /// What retention keeps and deletes, and why.
    pub struct RetentionPlan {
        /// Names exactly these deletions: `walden retention apply --plan` takes it.
        pub digest: String,
        /// Whether anything would be deleted.
        pub deletes: bool,
        pub references: Vec<ReferenceTime>,
        pub items: Vec<RetainedItem>,
        pub wal: Vec<RetainedWal>,
        /// What somebody should look at.
        pub warnings: Vec<String>,
    }

    /// The time that ages count from.
    pub struct ReferenceTime {
        kind: String,
        /// The database of dumps; empty for base backups.
        series: String,
        time: DateTime<Utc>,
        /// The newest good item.
        item: String,
    }

    /// A base backup or dump.
    pub struct RetainedItem {
        pub item: String,
        series: String,
        pub time: DateTime<Utc>,
        pub bytes: u64,
        pub keep: bool,
        pub because: String,
        /// The tier whose storage class it may have; absent where a restore may want it at once.
        class_tier?: String,
    }

    /// Archived WAL.
    pub struct RetainedWal {
        pub first: String,
        pub last: String,
        pub segments: u64,
        pub bytes: u64,
        pub keep: bool,
        pub because: String,
    }

    /// Something that holds data from before a moment.
    pub struct HeldData {
        /// An item, or the first and the last segment of WAL.
        pub what: String,
        /// When reading the data began; absent for WAL.
        pub began?: DateTime<Utc>,
        pub bytes: u64,
        /// Why it stays now.
        pub because: String,
        /// When it will be gone if backups go on as they did; absent: nothing known will ever let it go.
        pub gone_by?: DateTime<Utc>,
    }
}

impl From<&Plan> for RetentionPlan {
    fn from(plan: &Plan) -> Self {
        let deletions = plan.deletions();
        let references = plan.references.iter().map(|reference| ReferenceTime {
            kind: reference.kind.to_string(),
            series: reference.series.clone(),
            time: reference.time,
            item: reference.item.to_string(),
        });
        Self {
            digest: deletions.digest().to_string(),
            deletes: !deletions.is_empty(),
            references: references.collect(),
            items: plan.items.iter().map(RetainedItem::from).collect(),
            wal: plan.wal.iter().map(RetainedWal::from).collect(),
            warnings: plan.warnings.clone(),
        }
    }
}

impl From<&ItemDecision> for RetainedItem {
    fn from(item: &ItemDecision) -> Self {
        Self {
            item: item.id.to_string(),
            series: item.series.clone(),
            time: item.time,
            bytes: item.size,
            keep: item.is_kept(),
            because: item.verdict.because(),
            class_tier: item.class_tier().map(|tier| tier.to_string()),
        }
    }
}

impl From<&WalDecision> for RetainedWal {
    fn from(wal: &WalDecision) -> Self {
        Self {
            first: wal.span.first.to_string(),
            last: wal.span.last.to_string(),
            segments: wal.segments,
            bytes: wal.stored_bytes,
            keep: wal.verdict != WalVerdict::Delete,
            because: wal.verdict.because(),
        }
    }
}

impl From<&Hold> for HeldData {
    fn from(hold: &Hold) -> Self {
        let (what, began, bytes) = match &hold.held {
            Held::Item {
                id, began, size, ..
            } => (id.to_string(), Some(*began), *size),
            Held::Wal { span, stored_bytes } => (
                format!("WAL {} to {}", span.first, span.last),
                None,
                *stored_bytes,
            ),
        };
        let gone_by = match hold.gone {
            Gone::By(time) => Some(time),
            Gone::Never => None,
        };
        Self {
            what,
            began,
            bytes,
            because: hold.because.clone(),
            gone_by,
        }
    }
}
