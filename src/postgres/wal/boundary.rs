//! The boundary between two segments that follow each other.

use super::join::{Head, Joined, Tail};
use super::record::FirstRecord;
use super::stop::{StopReason, WalStop};
use super::summary::Summary;
use crate::postgres::types::Lsn;

/// What a boundary holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boundary {
    /// No record crosses, or the one that began was given up after a crash.
    Clean,
    /// The record that crosses, summarised. If it is a switch, the later segment is empty behind it.
    Crossed(Box<Summary>),
    /// The record goes on beyond the later segment: use this tail in place of its own.
    GoesOn(Tail),
}

/// Joins a segment with the next one: does the chain of records hold, and what does the record say that crosses?
/// `tail` is the earlier one's, or what an earlier join left.
///
/// # Errors
/// The first position at which the chain breaks: at the end of the earlier segment, unless that one was broken before.
pub fn join(earlier: &Summary, tail: Option<&Tail>, later: &Summary) -> Result<Boundary, WalStop> {
    if let Some(stop) = &earlier.stop {
        return Err(stop.clone());
    }
    let unknown = || WalStop {
        lsn: later.first.map_or(Lsn(0), |first| first.lsn),
        why: StopReason::LongHeader,
    };
    let major = later
        .major
        .ok_or_else(|| later.stop.clone().unwrap_or_else(unknown))?;
    let Some(tail) = tail else {
        if let Some(Head { remaining, .. }) = later.head {
            let lsn = earlier.end.unwrap_or_default();
            return Err(WalStop {
                lsn,
                why: StopReason::Continuation {
                    missing: 0,
                    found: remaining,
                },
            });
        }
        return follows(earlier.last, later.first).map(|()| Boundary::Clean);
    };
    if later.overwrites() == Some(tail.lsn) {
        return follows(earlier.last, later.first).map(|()| Boundary::Clean);
    }
    match tail.join(later.head.as_ref(), major)? {
        Joined::GoesOn(tail) => Ok(Boundary::GoesOn(tail)),
        Joined::Whole(joined) => {
            let summary = Summary::of(&joined)?;
            if let Some(last) = earlier.last {
                follows(Some(last), summary.first)?;
            }
            follows(Some(tail.lsn), later.first)?;
            Ok(Boundary::Crossed(Box::new(summary)))
        }
    }
}

fn follows(last: Option<Lsn>, first: Option<FirstRecord>) -> Result<(), WalStop> {
    match (last, first) {
        (Some(last), Some(first)) if first.prev != last => {
            let why = StopReason::Previous {
                expected: Some(last),
                found: first.prev,
            };
            Err(WalStop {
                lsn: first.lsn,
                why,
            })
        }
        _ => Ok(()),
    }
}
