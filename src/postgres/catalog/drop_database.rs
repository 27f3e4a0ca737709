//! Where DROP DATABASE began: its files are removed long after it marked the database as invalid.

use super::probe::{ProbeResult, ProbeTarget};
use super::refuse::Refusal;
use super::refuse::Searched;
use super::stop_point::{Search, StopPoint};
use super::unreachable::UnreachableReason;
use crate::postgres::types::Lsn;
use crate::postgres::wal::Xid;

/// How many segments before its own the beginning of DROP DATABASE is looked for in: a checkpoint lies between.
const DROP_DATABASE_SEGMENTS: u64 = 256;

impl Search<'_> {
    /// The change in place of the row that is changed then, in that segment or the one before. It belongs to no transaction
    /// yet, unless there were others before.
    fn changed_in_place(
        &self,
        lowest: u64,
        number: u64,
        begin: &ProbeResult,
    ) -> Searched<Option<(u64, ProbeResult)>> {
        let changed = begin
            .found
            .and_then(|found| Some((found.tuple?, found.lsn)));
        let Some((row, before)) = changed else {
            return Ok(None);
        };
        for earlier in (lowest.max(number.saturating_sub(1))..=number).rev() {
            let from = Lsn(earlier.saturating_sub(1) * self.size().bytes());
            let marked = self.probe(earlier, from, ProbeTarget::InPlace { row, before })?;
            if marked.found.is_some() {
                return Ok(Some((earlier, marked)));
            }
        }
        Ok(None)
    }

    /// DROP DATABASE marks the database as invalid by a change of its row in place, which nothing undoes (dropdb; since
    /// 16, 15.4, 14.9 and 13.12), deletes the row, and writes that the files are gone only after a checkpoint. It is the
    /// only statement of its transaction.
    pub(super) fn begin_of_drop(
        &self,
        id: String,
        dropped: u64,
        lsn: Lsn,
        xid: Xid,
        result: ProbeResult,
    ) -> Searched<StopPoint> {
        let lowest = self
            .coverage
            .pieces
            .first()
            .map_or(dropped, |piece| piece.first.number(self.size()));
        let mut begin: Option<(u64, ProbeResult)> = None;
        for number in (lowest.max(dropped.saturating_sub(DROP_DATABASE_SEGMENTS))..=dropped).rev() {
            let from = Lsn(number.saturating_sub(1) * self.size().bytes());
            let changed = self.probe(number, from, ProbeTarget::Change(xid))?;
            match changed.found.filter(|found| found.lsn < lsn) {
                Some(_) => begin = Some((number, changed)),
                // What it changes first lies together; the checkpoint comes after it.
                None if begin.is_some() => break,
                None => (),
            }
        }
        let (mut number, mut begin) = begin.unwrap_or((dropped, result));
        let mut may_be_invalid = false;
        if let Some(marked) = self.changed_in_place(lowest, number, &begin)? {
            // The last backup's server may be too old to mark it, and have been brought up to date since.
            match self.marks_invalid(lsn) {
                true => (number, begin) = marked,
                false => may_be_invalid = true,
            }
        }
        let mut place = StopPoint::before(number, begin)
            .ok_or(Refusal::from(UnreachableReason::EventNotFound { id, lsn }))?;
        let unsure = match (begin == result, may_be_invalid) {
            (true, _) => Some("where DROP DATABASE began was not found"),
            (false, true) => Some("DROP DATABASE changed the database's row before"),
            (false, false) => None,
        };
        place.notes.extend(
            unsure.map(|why| format!("{why}: the database may be there but marked as invalid")),
        );
        Ok(place)
    }

    /// Whether the server that wrote this place does so, as the last backup before tells. In older ones such a change
    /// could only be another's.
    fn marks_invalid(&self, lsn: Lsn) -> bool {
        let before = self
            .known
            .facts
            .backups
            .iter()
            .filter(|backup| backup.stop_lsn <= lsn);
        before
            .max_by_key(|backup| backup.stop_lsn)
            .is_none_or(|backup| marks_invalid(&backup.server_version))
    }
}

/// Whether DROP DATABASE marks the database first; the version as in `15.18 (Debian 15.18-0+deb12u1)`.
fn marks_invalid(server_version: &str) -> bool {
    let mut numbers = server_version
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|digits| digits.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(13), Some(minor)) => minor >= 12,
        (Some(14), Some(minor)) => minor >= 9,
        (Some(15), Some(minor)) => minor >= 4,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::marks_invalid;

    #[test]
    fn which_servers_mark_a_database_before_they_drop_it() {
        for version in [
            "15.18 (Debian 15.18-0+deb12u1)",
            "13.12",
            "14.9",
            "16.0",
            "18beta1",
            "18.4",
        ] {
            assert!(marks_invalid(version), "{version}");
        }
        assert!(
            ["13.11", "14.8", "15.3 (Debian 15.3-1)", "15.0"]
                .iter()
                .all(|version| !marks_invalid(version))
        );
    }
}
