//! What is kept and what goes.

use chrono::{DateTime, Utc};

use crate::retention::{Gone, Held, Hold, ItemDecision, Plan, WalDecision, WalVerdict};

/// Items and ranges of WAL of an answer over HTTP.
const LONGEST: usize = 1000;

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
        /// Items and ranges of WAL that are left out of a long answer; what goes comes first. Absent: none.
        left_out?: u64,
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
            left_out: None,
        }
    }
}

impl RetentionPlan {
    /// With what goes first, and no more than a reader can take.
    pub fn shortened(mut self) -> Self {
        let all = self.items.len() + self.wal.len();
        self.items.sort_by_key(|item| item.keep);
        self.wal.sort_by_key(|wal| wal.keep);
        self.items.truncate(LONGEST);
        self.wal.truncate(LONGEST);
        self.warnings.truncate(LONGEST);
        self.references.truncate(LONGEST);
        let left_out = all - self.items.len() - self.wal.len();
        self.left_out = (left_out > 0).then_some(left_out as u64);
        self
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_plan_tells_what_goes_first_and_how_much_is_left_out() {
        let item = |number: u32, keep| RetainedItem {
            item: number.to_string(),
            series: String::new(),
            time: DateTime::UNIX_EPOCH,
            bytes: 0,
            keep,
            because: String::new(),
            class_tier: None,
        };
        let plan = |items| RetentionPlan {
            digest: String::new(),
            deletes: true,
            references: Vec::new(),
            items,
            wal: Vec::new(),
            warnings: Vec::new(),
            left_out: None,
        };
        let items = (0..1500).map(|number| item(number, number != 1400));
        let long = plan(items.collect()).shortened();
        assert_eq!((long.items.len(), long.left_out), (1000, Some(500)));
        assert_eq!((&*long.items[0].item, &*long.items[1].item), ("1400", "0"));
        assert_eq!(plan(vec![item(1, true)]).shortened().left_out, None);
    }
}
