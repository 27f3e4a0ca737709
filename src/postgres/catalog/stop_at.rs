//! Where replay stops, as PostgreSQL is told, and what that means in transactions.

use chrono::{DateTime, Utc};

use crate::postgres::types::Lsn;
use crate::postgres::wal::{Commit, Xid};

/// Where replay stops. PostgreSQL compares a target LSN with where records begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAt {
    /// Before the record that begins here.
    Before { lsn: Lsn },
    /// After the record that begins at `lsn`. Not told as "before `end`": no record may follow.
    After { lsn: Lsn, end: Lsn },
    /// As soon as the cluster is consistent.
    Consistent,
    /// Where the WAL ends that fetching delivers.
    End,
}

impl StopAt {
    /// The settings that make PostgreSQL stop there. One setting of a target at most: two are a fatal error.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let (lsn, inclusive) = match self {
            Self::Before { lsn } => (lsn, "off"),
            Self::After { lsn, .. } => (lsn, "on"),
            Self::Consistent => return vec![("recovery_target", "immediate".into())],
            Self::End => return Vec::new(),
        };
        vec![
            ("recovery_target_lsn", lsn.to_string()),
            ("recovery_target_inclusive", inclusive.into()),
        ]
    }

    /// The place as plans and logs print it.
    pub fn words(&self) -> String {
        match self {
            Self::Before { lsn } => format!("before the WAL record at {lsn}"),
            Self::After { lsn, .. } => format!("after the WAL record at {lsn}"),
            Self::Consistent => "as soon as the cluster is consistent".into(),
            Self::End => "where the WAL ends".into(),
        }
    }
}

/// How a target lies to what can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// It can be restored.
    Present,
    /// Behind the end of what is archived.
    Future,
    /// Before the end of the oldest usable base backup.
    Past,
    /// What would be needed is missing.
    NoData,
}

/// A transaction that committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Without its epoch.
    pub xid: Xid,
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// When it committed, by the server's clock; not in the order of LSNs.
    pub time: DateTime<Utc>,
}

impl From<Commit> for Transaction {
    fn from(commit: Commit) -> Self {
        let time = commit.time.to_utc().unwrap_or(DateTime::<Utc>::MAX_UTC);
        Self {
            xid: commit.xid,
            lsn: commit.lsn,
            time,
        }
    }
}

/// The transactions on both sides of where replay stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// The last one, in the order of the WAL, that the restored cluster holds; none since the backup began if absent.
    pub last_included: Option<Transaction>,
    /// The first one that it does not hold; none that is archived if absent.
    pub first_excluded: Option<Transaction>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_target_is_set_and_what_stops_after_a_record_needs_none_behind_it() {
        let (lsn, end) = (Lsn(0x1000028), Lsn(0x1000060));
        for (stop, expected) in [
            (
                StopAt::Before { lsn },
                "recovery_target_lsn=0/1000028 recovery_target_inclusive=off",
            ),
            (
                StopAt::After { lsn, end },
                "recovery_target_lsn=0/1000028 recovery_target_inclusive=on",
            ),
            (StopAt::Consistent, "recovery_target=immediate"),
            (StopAt::End, ""),
        ] {
            let shown: Vec<String> = stop
                .settings()
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            assert_eq!(shown.join(" "), expected);
        }
    }
}
