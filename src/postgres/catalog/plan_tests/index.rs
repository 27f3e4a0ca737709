//! What an index tells of the WAL of the model.

use super::super::testing::SEGMENT;
use super::super::*;
use super::world::{Rec, Says, World, name};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::{Commit, TablespaceMade, Timestamp};

/// How an index tells that replay does not get into a segment.
fn unjoined(timeline: u32, number: u64) -> Unknown {
    Unknown::Broken {
        segment: name(timeline, number),
        lsn: Lsn(number * SEGMENT + 0x28),
    }
}

/// The tablespace that a record makes.
fn made(record: &Rec) -> Option<TablespaceMade> {
    let Says::Tablespace(oid) = record.says else {
        return None;
    };
    Some(TablespaceMade {
        lsn: Lsn(record.lsn),
        oid,
        location: format!("/space/{oid}"),
    })
}

impl World {
    /// Segments that are known for sure, and why no more of them are: one that is not in the index, or broken WAL, of
    /// which what lies before the break still counts.
    fn known(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> (Vec<(u64, Vec<Rec>)>, Option<Unknown>) {
        let mut known = Vec::new();
        for number in from..until {
            if number > from && self.unjoined == Some((timeline.0, number)) {
                return (known, Some(unjoined(timeline.0, number)));
            }
            match self.indexed(timeline.0, number) {
                Ok(records) => known.push((number, records)),
                Err(unknown) => return (known, Some(unknown)),
            }
            if let Err(broken) = self.check_broken(timeline.0, number) {
                return (known, Some(broken));
            }
        }
        (known, None)
    }

    /// What the index knows of a segment.
    fn indexed(&self, timeline: u32, number: u64) -> Result<Vec<Rec>, Unknown> {
        if self.unknown.contains(&(timeline, number))
            || !self.segments.contains_key(&(timeline, number))
        {
            return Err(Unknown::Segment(name(timeline, number)));
        }
        let mut records = self.ending_in(timeline, number);
        let broken = self
            .broken
            .filter(|(t, n, _)| (*t, *n) == (timeline, number));
        records.retain(|record| broken.is_none_or(|(_, _, lsn)| record.lsn < lsn));
        Ok(records)
    }

    fn check_broken(&self, timeline: u32, number: u64) -> Result<(), Unknown> {
        match self.broken {
            Some((t, n, lsn)) if (t, n) == (timeline, number) => Err(Unknown::Broken {
                segment: name(t, n),
                lsn: Lsn(lsn),
            }),
            _ => Ok(()),
        }
    }
}

impl WalIndex for World {
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> Result<Option<u64>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        let hit = known
            .iter()
            .find(|(_, records)| records.iter().any(|record| record.is_later(time, or_at)));
        match (hit, more) {
            (Some((number, _)), _) => Ok(Some(*number)),
            (None, Some(unknown)) => Err(unknown),
            (None, None) => Ok(None),
        }
    }

    fn ending(
        &self,
        xid: u32,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<u64>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        let ends = |records: &[Rec]| {
            records
                .iter()
                .any(|record| record.is_wanted(&ProbeTarget::End(xid)))
        };
        // An index may name more segments than have it.
        let candidate = |(number, records): &(u64, Vec<Rec>)| {
            (ends(records) || (number + u64::from(xid)).is_multiple_of(3)).then_some(*number)
        };
        Ok(KnownPrefix {
            found: known.iter().filter_map(candidate).collect(),
            more,
        })
    }

    fn restore_points(
        &self,
        name: &str,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<Point>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        let mut found = Vec::new();
        for (segment, records) in known {
            let made = records
                .iter()
                .filter(|record| record.says == Says::Point(name.to_string()));
            match self.unnamed.contains(&(timeline.0, segment)) {
                true => found.push(Point::Unnamed { segment }),
                false => found.extend(made.map(|record| Point::Named {
                    segment,
                    lsn: Lsn(record.lsn),
                    time: Timestamp(0),
                })),
            }
        }
        Ok(KnownPrefix { found, more })
    }

    fn first_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        match (
            known
                .iter()
                .find_map(|(_, records)| records.iter().find_map(Rec::commit)),
            more,
        ) {
            (None, Some(unknown)) => Err(unknown),
            (found, _) => Ok(found),
        }
    }

    fn last_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown> {
        for number in (from..until).rev() {
            let records = self.indexed(timeline.0, number)?;
            if number + 1 < until {
                self.check_broken(timeline.0, number)?;
            }
            if let Some(commit) = records.iter().filter_map(Rec::commit).next_back() {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    fn tablespaces(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<TablespaceMade>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        Ok(KnownPrefix {
            found: known
                .iter()
                .flat_map(|(_, records)| records.iter().filter_map(made))
                .collect(),
            more,
        })
    }

    fn check_boundary(&self, timeline: TimelineId, number: u64) -> Result<(), Unknown> {
        match self.torn_off(timeline.0, 0) == Some(number)
            || self.unjoined == Some((timeline.0, number))
        {
            true => Err(unjoined(timeline.0, number)),
            false => Ok(()),
        }
    }
}
