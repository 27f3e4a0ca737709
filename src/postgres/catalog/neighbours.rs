//! The commits around a place.

use super::stop_at::{Neighbours, StopAt};
use super::stop_point::{Search, StopPoint};
use super::wal_index::Unknown;
use crate::postgres::types::SegmentName;
use crate::postgres::wal::Commit;

impl Search<'_> {
    /// The commits on both sides of a place.
    pub fn neighbours(&self, place: &StopPoint) -> Result<Neighbours, Unknown> {
        let StopPoint { result, until, .. } = place;
        let this = result.found.and_then(|found| found.commit());
        let (inside_before, inside_after) = match place.stop {
            StopAt::After { .. } => (this.or(result.before), result.after),
            StopAt::Before { .. } | StopAt::Consistent => (result.before, this.or(result.after)),
            StopAt::End => (None, None),
        };
        let probed = if place.stop == StopAt::End {
            *until
        } else {
            until - 1
        };
        let last_included = match inside_before {
            Some(commit) => Some(commit),
            None => self.commit_before(probed)?,
        };
        let first_excluded = match inside_after {
            Some(commit) => Some(commit),
            None if place.stop == StopAt::End => None,
            None => self.commit_from(*until)?,
        };
        Ok(Neighbours {
            last_included: last_included.map(Into::into),
            first_excluded: first_excluded.map(Into::into),
        })
    }

    /// The last commit of the segments before a number; also of those before the backup that are archived without a gap,
    /// on its timeline.
    pub fn commit_before(&self, number: u64) -> Result<Option<Commit>, Unknown> {
        let mut segment_ranges: Vec<_> = self.segment_ranges(0).collect();
        if let Some((timeline, first, _)) = segment_ranges.first_mut() {
            let name = SegmentName::from_number(*timeline, *first, self.size());
            let archived = self
                .known
                .facts
                .ranges
                .holding(name)
                .map_or(*first, |range| range.first.number(self.size()));
            *first = archived.max(self.path.first_number(*timeline));
        }
        for (timeline, first, until) in segment_ranges.into_iter().rev() {
            let until = until.min(number);
            if first < until
                && let Some(commit) = self.known.index.last_commit(timeline, first, until)?
            {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// The first commit of the segments from a number on. Replay gets to none behind broken WAL.
    fn commit_from(&self, number: u64) -> Result<Option<Commit>, Unknown> {
        for (timeline, first, until) in self.segment_ranges(number) {
            if first == self.path.first_number(timeline)
                && self.torn_fork(timeline, first).is_some()
            {
                return Ok(None);
            }
            match self.known.index.first_commit(timeline, first, until) {
                Ok(None) => (),
                Err(Unknown::Broken { .. }) => return Ok(None),
                answer => return answer,
            }
        }
        Ok(None)
    }
}
