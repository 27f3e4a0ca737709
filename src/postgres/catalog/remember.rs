//! An index that is asked each question only once: planning asks the same again whenever a segment was looked into.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::wal_index::{Point, Told, Unknown, WalIndex};
use crate::postgres::types::TimelineId;
use crate::postgres::wal::{Commit, TablespaceMade, Timestamp, Xid};

/// The answers of an index, as they were when first given, for the planning of one restore: it asks few questions.
pub struct Remembered {
    index: Arc<dyn WalIndex + Send + Sync>,
    first_later: Answered<(Timestamp, bool), Option<u64>>,
    ending: Answered<Xid, Told<u64>>,
    restore_points: Answered<String, Told<Point>>,
    first_commit: Answered<(), Option<Commit>>,
    last_commit: Answered<(), Option<Commit>>,
    tablespaces: Answered<(), Told<TablespaceMade>>,
    seams: Answered<(), ()>,
}

/// Which segments are asked about.
type Segments = (TimelineId, u64, u64);
/// Answers of one kind, by what was asked for and of which segments.
type Answered<K, T> = Mutex<HashMap<(K, Segments), Result<T, Unknown>>>;

fn remember<K: Eq + Hash, T: Clone>(
    answers: &Answered<K, T>,
    what: K,
    segments: Segments,
    ask: impl FnOnce() -> Result<T, Unknown>,
) -> Result<T, Unknown> {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.entry((what, segments)).or_insert_with(ask).clone()
}

impl Remembered {
    /// Nothing was asked yet.
    pub fn new(index: Arc<dyn WalIndex + Send + Sync>) -> Self {
        Self {
            index,
            first_later: Answered::default(),
            ending: Answered::default(),
            restore_points: Answered::default(),
            first_commit: Answered::default(),
            last_commit: Answered::default(),
            tablespaces: Answered::default(),
            seams: Answered::default(),
        }
    }
}

impl WalIndex for Remembered {
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> Result<Option<u64>, Unknown> {
        remember(&self.first_later, (time, or_at), (timeline, from, until), || {
            self.index.first_later(timeline, from, until, time, or_at)
        })
    }

    fn ending(&self, xid: Xid, timeline: TimelineId, from: u64, until: u64) -> Result<Told<u64>, Unknown> {
        remember(&self.ending, xid, (timeline, from, until), || self.index.ending(xid, timeline, from, until))
    }

    fn restore_points(&self, name: &str, timeline: TimelineId, from: u64, until: u64) -> Result<Told<Point>, Unknown> {
        remember(&self.restore_points, name.to_string(), (timeline, from, until), || {
            self.index.restore_points(name, timeline, from, until)
        })
    }

    fn first_commit(&self, timeline: TimelineId, from: u64, until: u64) -> Result<Option<Commit>, Unknown> {
        remember(&self.first_commit, (), (timeline, from, until), || self.index.first_commit(timeline, from, until))
    }

    fn last_commit(&self, timeline: TimelineId, from: u64, until: u64) -> Result<Option<Commit>, Unknown> {
        remember(&self.last_commit, (), (timeline, from, until), || self.index.last_commit(timeline, from, until))
    }

    fn tablespaces(&self, timeline: TimelineId, from: u64, until: u64) -> Result<Told<TablespaceMade>, Unknown> {
        remember(&self.tablespaces, (), (timeline, from, until), || self.index.tablespaces(timeline, from, until))
    }

    fn check_seam(&self, timeline: TimelineId, number: u64) -> Result<(), Unknown> {
        remember(&self.seams, (), (timeline, number, number), || self.index.check_seam(timeline, number))
    }
}
