//! One server in recovery, as the owner of fetching sees it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::request::PendingFetch;
use super::spool::Spool;
use crate::postgres::archive::absence::is_beyond;
use crate::postgres::archive::recovery_order::next_segment;
use crate::postgres::types::{SegmentName, SegmentSize, TimelineHistory, WalFileName};

/// A spool that nobody asked of for so long is dropped.
pub const IDLE: Duration = Duration::from_secs(60);
/// Between two proofs that the same file is absent, and not lost: each takes several requests, and a standby polls.
const PROOF: Duration = Duration::from_secs(1);
/// Absent files remembered of one server: it polls for a segment and a history file.
const MOST_ABSENT: usize = 8;

/// A file on its way.
pub enum SessionFile {
    /// Being fetched: for somebody, or ahead.
    Coming {
        waiting: Vec<PendingFetch>,
        ahead: bool,
    },
    /// In the spool, whole, at this place. Who asked for it, and left before it came at this time, asks again.
    Here {
        place: PathBuf,
        ahead: bool,
        missed: Option<Instant>,
    },
}

/// One server in recovery: what it was given, and what lies ready for it.
pub struct RecoverySession {
    pub spool: Spool,
    pub entries: BTreeMap<WalFileName, SessionFile>,
    /// Files handed out, oldest first: renamed away by now, or left by a hook that was killed.
    handed: VecDeque<(Instant, PathBuf)>,
    /// The newest timeline history that it was given.
    pub history: Option<TimelineHistory>,
    /// The last segment that it was given.
    pub last: Option<SegmentName>,
    pub end: Option<SegmentName>,
    /// Files proven absent just now, oldest first, and when their proof began.
    absent: VecDeque<(Instant, WalFileName)>,
    /// Files fetched ahead at once: few where the archive's end may be near, more with each that was there.
    pub reach: usize,
    /// Fetching ahead met the archive's end or an error: it waits for the next delivery.
    pub halted: bool,
    pub used: Instant,
}

impl RecoverySession {
    /// A server that asks for the first time.
    pub fn new(spool: Spool) -> Self {
        Self {
            spool,
            entries: BTreeMap::new(),
            handed: VecDeque::new(),
            history: None,
            last: None,
            end: None,
            absent: VecDeque::new(),
            reach: 1,
            halted: false,
            used: Instant::now(),
        }
    }

    /// Files on their way.
    pub fn coming(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| matches!(entry, SessionFile::Coming { .. }))
            .count()
    }

    /// When the next proof for a file that was proven absent just now may begin; `None` for any other.
    pub fn next_proof_at(&self, name: &WalFileName) -> Option<Instant> {
        let (began, _) = self
            .absent
            .iter()
            .find(|(began, absent)| absent == name && began.elapsed() < PROOF)?;
        Some(*began + PROOF)
    }

    /// The file was proven absent by a proof that began then.
    pub fn note_absent(&mut self, name: WalFileName, began: Instant) {
        self.absent
            .retain(|(at, absent)| *absent != name && at.elapsed() < PROOF);
        self.absent.push_back((began, name));
        if self.absent.len() > MOST_ABSENT {
            self.absent.pop_front();
        }
    }

    /// Notes that a file was handed out; those that were handed out long ago, which nobody will rename any more.
    pub fn hand_out(&mut self, place: PathBuf) -> Vec<PathBuf> {
        let now = Instant::now();
        self.handed.push_back((now, place));
        let old = self
            .handed
            .iter()
            .take_while(|(at, _)| *at + IDLE <= now)
            .count();
        self.handed.drain(..old).map(|(_, place)| place).collect()
    }

    /// What recovery will ask for next.
    pub fn wanted(&self, prefetch: usize, size: SegmentSize) -> Vec<SegmentName> {
        let following = std::iter::successors(self.last, |last| {
            Some(next_segment(*last, self.history.as_ref(), size))
        });
        following
            .skip(1)
            .take(prefetch)
            .take_while(|segment| !is_beyond(self.end, *segment, size))
            .collect()
    }

    /// Forgets files in the spool that will not be asked for; their places.
    pub fn drop_unwanted(&mut self, wanted: &[SegmentName]) -> Vec<PathBuf> {
        let is_wanted = |name: &WalFileName| matches!(name, WalFileName::Segment(segment) if wanted.contains(segment));
        let mut unwanted = Vec::new();
        let is_missed = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < IDLE);
        self.entries.retain(|name, entry| match entry {
            SessionFile::Here { place, missed, .. } if !is_wanted(name) && !is_missed(missed) => {
                unwanted.push(std::mem::take(place));
                false
            }
            _ => true,
        });
        unwanted
    }
}
