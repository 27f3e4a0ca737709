//! Why not, with the moments that can be had instead.

use super::BackupDescription;
use super::path::{Coverage, TimelinePath};
use super::target::{RestoreRequest, Target, TimelineChoice, postgresql_time};
use super::unreachable::{Nearest, Unreachable, UnreachableReason};
use super::wal_index::Unknown;
use crate::postgres::types::{Lsn, SegmentName, TimelineId};
use crate::postgres::wal::Commit;

/// Why there is no plan.
#[derive(Debug)]
pub enum NoPlan<R = Unreachable> {
    /// A segment that decides could not be probed.
    Unread(anyhow::Error),
    /// The index cannot tell.
    Unknown(Unknown),
    /// The target cannot be reached exactly.
    Refused(Box<R>),
}

pub(super) type Searched<T> = Result<T, NoPlan<Refusal>>;

impl From<Refusal> for NoPlan<Refusal> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<UnreachableReason> for NoPlan<Refusal> {
    fn from(reason: UnreachableReason) -> Self {
        Refusal::from(reason).into()
    }
}

/// The same, with the refusal made into something else.
pub(super) fn map_refusal<R, S>(stuck: NoPlan<R>, map: impl FnOnce(R) -> S) -> NoPlan<S> {
    match stuck {
        NoPlan::Unread(error) => NoPlan::Unread(error),
        NoPlan::Unknown(unknown) => NoPlan::Unknown(unknown),
        NoPlan::Refused(refused) => NoPlan::Refused(Box::new(map(*refused))),
    }
}

/// A reason with the moments that it suggests; whether they can be had is not proven yet.
#[derive(Debug)]
pub struct Refusal {
    pub reason: UnreachableReason,
    pub before: Option<Nearest>,
    pub after: Option<Nearest>,
}

impl From<UnreachableReason> for Refusal {
    fn from(reason: UnreachableReason) -> Self {
        Self {
            reason,
            before: None,
            after: None,
        }
    }
}

impl Refusal {
    /// With a moment before.
    pub fn before(self, before: Option<Nearest>) -> Self {
        Self { before, ..self }
    }

    /// With a moment after.
    pub fn after(self, after: Option<Nearest>) -> Self {
        Self { after, ..self }
    }

    /// Replay ends at a place in the midst of the WAL.
    pub fn broken(
        segment: SegmentName,
        lsn: Lsn,
        timeline: TimelineId,
        last: Option<Commit>,
    ) -> Self {
        let before = last.map(|last| {
            let words = format!(
                "everything up to the last transaction before that, committed at {}",
                last.time
            );
            let timeline = TimelineChoice::Number(timeline);
            Nearest::new(
                words,
                RestoreRequest {
                    timeline,
                    ..RestoreRequest::new(Target::Lsn(last.lsn))
                },
            )
        });
        Self::from(UnreachableReason::Broken { segment, lsn }).before(before)
    }

    /// The target lies beyond what the WAL reaches.
    pub fn end(path: &TimelinePath, coverage: &Coverage, reason: UnreachableReason) -> Self {
        let (timeline, end) = (path.timeline(), path.start(coverage.first_missing));
        let before = match coverage.is_end() {
            false => before_lsn(
                format!("everything before the gap, up to {end}"),
                end,
                timeline,
            ),
            true => {
                let request = RestoreRequest {
                    timeline: TimelineChoice::Number(timeline),
                    ..RestoreRequest::new(Target::Latest)
                };
                Nearest::new(format!("everything that is archived, up to {end}"), request)
            }
        };
        Self::from(reason).before(Some(before))
    }
}

fn before_lsn(words: String, lsn: Lsn, timeline: TimelineId) -> Nearest {
    let timeline = TimelineChoice::Number(timeline);
    Nearest::new(
        words,
        RestoreRequest {
            timeline,
            inclusive: false,
            ..RestoreRequest::new(Target::Lsn(lsn))
        },
    )
}

/// The end of a backup as a moment to restore to.
pub fn end_of(backup: &BackupDescription, timeline: TimelineId) -> Nearest {
    let request = RestoreRequest {
        timeline: TimelineChoice::Number(timeline),
        backup: Some(backup.id.clone()),
        ..RestoreRequest::new(Target::Immediate)
    };
    Nearest::new(
        format!("the end of backup \"{}\", {}", backup.id, end_words(backup)),
        request,
    )
}

/// When and where a backup ended.
pub fn end_words(backup: &BackupDescription) -> String {
    format!(
        "{} ({})",
        postgresql_time(backup.stopped_at),
        backup.stop_lsn
    )
}
