//! What decisions are made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::probe::{ProbeQuery, ProbeResult};
use super::wal_index::WalIndex;
use super::{BackupDescription, IdleTimes, WalRanges};
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::types::{TimelineHistory, TimelineId};

/// Everything that a plan is made from, but what WAL says.
#[derive(Debug, Clone)]
pub struct Facts {
    pub cluster: ClusterName,
    /// Complete ones, oldest first.
    pub backups: Arc<Vec<BackupDescription>>,
    /// Backups whose manifest cannot be used; and why.
    pub damaged_backups: BTreeMap<BackupId, String>,
    pub unfinished_backups: Vec<BackupId>,
    pub ranges: WalRanges,
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    pub damaged_histories: BTreeMap<TimelineId, Unusable>,
    pub idle: IdleTimes,
}

/// A history file that is there and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    pub why: String,
    /// The object is whole: a server that only looks whether the file exists finds it.
    pub whole: bool,
    /// A newer Walden wrote the object: nothing is wrong with it.
    pub newer: bool,
}

/// Answers a query about the records of one segment. Errors: it could not be read.
pub type ProbeSegment<'a> = dyn Fn(&ProbeQuery) -> anyhow::Result<ProbeResult> + 'a;

/// The facts, and what WAL says: roughly by an index, exactly by probing segments.
#[derive(Clone, Copy)]
pub struct PlanInput<'a> {
    pub facts: &'a Facts,
    pub index: &'a dyn WalIndex,
    pub probe: &'a ProbeSegment<'a>,
}
