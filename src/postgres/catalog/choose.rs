//! Which base backup on a path of timelines.

use chrono::{DateTime, Utc};

use super::facts::{Facts, PlanInput};
use super::follow::ends_before;
use super::path::{Coverage, TimelinePath};
use super::refuse::{NoPlan, Refusal, Searched, end_of, end_words};
use super::stop_at::StopAt;
use super::stop_point::{Search, StopPoint};
use super::target::{RestoreRequest, Target, postgresql_time};
use super::unreachable::UnreachableReason;
use super::{BackupDescription, Unknown};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, SegmentName};

/// Backups that were passed over; and why.
pub(super) type Notes = Vec<(BackupId, String)>;

pub(super) fn note_damaged(facts: &Facts, notes: &mut Notes) {
    notes.extend(
        facts
            .damaged_backups
            .iter()
            .map(|(id, why)| (id.clone(), format!("cannot be used: {why}"))),
    );
}

/// The backup that is asked for by name.
pub(super) fn named_backup<'a>(facts: &'a Facts, id: &BackupId) -> Searched<&'a BackupDescription> {
    let unusable = |why: String| UnreachableReason::BackupUnusable {
        id: id.clone(),
        why,
    };
    if let Some(why) = facts.damaged_backups.get(id) {
        return Err(unusable(format!("cannot be used: {why}")).into());
    }
    if facts.unfinished_backups.contains(id) {
        return Err(
            unusable("is not complete: it is being taken, or was interrupted".into()).into(),
        );
    }
    let found = facts.backups.iter().find(|backup| backup.id == *id);
    found.ok_or_else(|| unusable("does not exist".into()).into())
}

/// The WAL that replay may read from a backup on, and where it stops.
pub(super) struct Choice<'a> {
    pub backup: &'a BackupDescription,
    /// Why this backup.
    pub why: &'static str,
    pub coverage: Coverage,
    pub place: StopPoint,
}

pub(super) struct Chooser<'a> {
    pub known: &'a PlanInput<'a>,
    pub request: &'a RestoreRequest,
    pub path: TimelinePath,
}

impl<'a> Chooser<'a> {
    /// Number of the first segment that a backup needs.
    pub fn start(&self, backup: &BackupDescription) -> u64 {
        backup.start_lsn.0 / self.known.facts.ranges.segment_size().bytes()
    }

    /// Number of the first segment after those that a backup needs to become consistent.
    fn stop(&self, backup: &BackupDescription) -> u64 {
        let size = self.known.facts.ranges.segment_size();
        SegmentName::ending_at(backup.stop_timeline, backup.stop_lsn, size).number(size) + 1
    }

    /// How far WAL goes from a backup on.
    fn coverage(&self, backup: &BackupDescription) -> Coverage {
        self.path
            .coverage(&self.known.facts.ranges, self.start(backup), u64::MAX)
    }

    fn search<'s>(&'s self, from: Lsn, coverage: &'s Coverage) -> Search<'s> {
        Search {
            known: self.known,
            path: &self.path,
            coverage,
            from,
        }
    }

    /// Why a backup cannot be used for any target on the path; `None` when it can.
    fn unusable(&self, backup: &BackupDescription, named: bool) -> Option<String> {
        if !self.path.carries(backup) {
            return Some(format!(
                "is on timeline {} from {} to {}, which does not lead to timeline {}",
                backup.timeline,
                backup.start_lsn,
                backup.stop_lsn,
                self.path.timeline()
            ));
        }
        if let Some(part) = backup.left_out.first() {
            let more = match backup.left_out.len() {
                1 => String::new(),
                parts => format!(" and {} more parts of the cluster", parts - 1),
            };
            return Some(format!(
                "lacks \"{part}\"{more}, which the server did not send"
            ));
        }
        if !named && !backup.checksum_failures.is_empty() {
            let count = backup.checksum_failures.len();
            return Some(format!(
                "has {count} page checksum failures: it is only restored when named with --backup"
            ));
        }
        let coverage = self.path.coverage(
            &self.known.facts.ranges,
            self.start(backup),
            self.stop(backup),
        );
        let missing = coverage.first_missing;
        (missing.number(self.known.facts.ranges.segment_size()) < self.stop(backup)).then(|| {
            format!("lacks WAL segment {missing}, without which it does not become consistent")
        })
    }

    /// The backups that can be used, by their ends; at least one.
    fn usable(&self, notes: &mut Notes) -> Searched<Vec<&'a BackupDescription>> {
        let facts = self.known.facts;
        if let Some(id) = &self.request.backup {
            let backup = named_backup(facts, id)?;
            let refuse = |why: String, after| {
                Refusal::from(UnreachableReason::BackupUnusable {
                    id: id.clone(),
                    why,
                })
                .after(Some(end_of(backup, after)))
            };
            if let Some(why) = self.unusable(backup, true) {
                return Err(refuse(why, backup.stop_timeline).into());
            }
            if !ends_before(backup, self.request) {
                let why = format!("ends after the target, at {}", end_words(backup));
                return Err(refuse(why, self.path.timeline()).into());
            }
            return Ok(vec![backup]);
        }
        let mut usable: Vec<&BackupDescription> = Vec::new();
        for backup in facts.backups.iter() {
            match self.unusable(backup, false) {
                None => usable.push(backup),
                Some(why) => notes.push((backup.id.clone(), why)),
            }
        }
        note_damaged(facts, notes);
        usable.sort_by_key(|backup| (backup.stop_lsn, backup.stopped_at));
        if usable.is_empty() {
            let timeline = self.path.timeline();
            let newest = facts
                .backups
                .iter()
                .rev()
                .find(|backup| backup.stop_timeline != timeline);
            let before = newest.map(|backup| end_of(backup, backup.stop_timeline));
            return Err(
                Refusal::from(UnreachableReason::NoBackupOnPath { timeline })
                    .before(before)
                    .into(),
            );
        }
        Ok(usable)
    }

    /// Where replay stops, and the newest backup that ends before.
    pub fn choose(&self, notes: &mut Notes) -> Searched<Choice<'a>> {
        let usable = self.usable(notes)?;
        let (coverage, mut place) = self.search_from(self.anchors(&usable)?)?;
        let fits = |backup: &&&BackupDescription| {
            place.lsn().is_none_or(|lsn| backup.stop_lsn <= lsn)
                && self.coverage(backup).first_missing == coverage.first_missing
        };
        let backup = *usable
            .iter()
            .rev()
            .find(fits)
            .ok_or_else(|| self.too_early(&usable))?;
        let whole = self
            .search(backup.stop_lsn, &coverage)
            .check_whole(backup.start_lsn, &mut place);
        whole.map_err(|stuck| self.with_what_follows(stuck, &coverage))?;
        let why = match (&self.request.backup, place.stop) {
            (Some(_), _) => "named with --backup",
            (None, StopAt::Consistent | StopAt::End) => "the newest usable backup",
            (None, _) => "the newest usable backup that ends before the target",
        };
        Ok(Choice {
            backup,
            why,
            coverage,
            place,
        })
    }

    /// The backups behind whose ends the target is looked for, in their order. Mostly the newest one that surely ends
    /// before it. Where a transaction or restore point lies is not known before: then all.
    fn anchors<'u>(
        &self,
        usable: &'u [&'a BackupDescription],
    ) -> Searched<&'u [&'a BackupDescription]> {
        if matches!(self.request.target, Target::Xid(_) | Target::Name(_)) {
            return Ok(usable);
        }
        let newest = usable
            .iter()
            .rposition(|backup| ends_before(backup, self.request));
        let newest = newest.ok_or_else(|| self.too_early(usable))?;
        Ok(&usable[newest..=newest])
    }

    /// The place of the target behind the first of the backups that it is found behind: the oldest one of each unbroken
    /// range of WAL is tried, as no backup can be rolled forward over a gap or broken WAL.
    fn search_from(&self, anchors: &[&BackupDescription]) -> Searched<(Coverage, StopPoint)> {
        let (mut searched_before, mut anchors) = (Vec::new(), anchors);
        let (mut broken, mut refused) = (None, NoPlan::from(UnreachableReason::NoBackup));
        while let [anchor, later @ ..] = anchors {
            let coverage = self.coverage(anchor);
            refused = match self.place(anchor, &coverage) {
                Ok(place) => return Ok((coverage, place)),
                Err(stuck) => self.with_what_follows(stuck, &coverage),
            };
            let NoPlan::Refused(refusal) = &mut refused else {
                return Err(refused);
            };
            let next = match &mut refusal.reason {
                UnreachableReason::NotFound { searched, .. } => {
                    searched_before.append(searched);
                    searched.clone_from(&searched_before);
                    later.iter().position(|backup| {
                        self.coverage(backup).first_missing != coverage.first_missing
                    })
                }
                UnreachableReason::Broken { segment, lsn } => {
                    searched_before.push((anchor.stop_lsn, *lsn));
                    let number = segment.number(self.known.facts.ranges.segment_size());
                    broken = broken.or(Some(refused));
                    refused = NoPlan::from(UnreachableReason::NoBackup);
                    later.iter().position(|backup| self.start(backup) >= number)
                }
                _ => return Err(refused),
            };
            anchors = &later[next.unwrap_or(later.len())..];
        }
        // It may be where nothing can be searched.
        Err(broken.unwrap_or(refused))
    }

    fn too_early(&self, usable: &[&BackupDescription]) -> NoPlan<Refusal> {
        let oldest = usable[0];
        let (id, stopped_at, stop_lsn) = (oldest.id.clone(), oldest.stopped_at, oldest.stop_lsn);
        let reason = match &self.request.backup {
            None => UnreachableReason::BeforeOldestBackup {
                id,
                stopped_at,
                stop_lsn,
            },
            Some(_) => UnreachableReason::BackupUnusable {
                id,
                why: format!("ends after the target, at {}", end_words(oldest)),
            },
        };
        Refusal::from(reason)
            .after(Some(end_of(oldest, self.path.timeline())))
            .into()
    }

    /// The place of a target that is behind the end of `backup`.
    fn place(&self, backup: &BackupDescription, coverage: &Coverage) -> Searched<StopPoint> {
        let search = self.search(backup.stop_lsn, coverage);
        let end = self.path.start(coverage.first_missing);
        let inclusive = self.request.inclusive;
        let (timeline, searched) = (self.path.timeline(), vec![(backup.stop_lsn, end)]);
        let not_found = |what: String| {
            NoPlan::from(UnreachableReason::NotFound {
                what,
                timeline,
                searched,
            })
        };
        match &self.request.target {
            Target::Immediate => search.consistent(self.stop(backup)),
            Target::Latest if coverage.is_end() => Ok(search.wal_end()),
            Target::Latest => Err(self.refuse_end(coverage)),
            Target::Time(time) => match search.time(*time, !inclusive)? {
                Some(place) => Ok(place),
                None => self.behind_all(&search, *time),
            },
            Target::Lsn(lsn) if *lsn > end || inclusive && *lsn == end => {
                Err(self.refuse_end(coverage))
            }
            Target::Lsn(lsn) => match search.lsn(*lsn, inclusive)? {
                Some(place) => Ok(place),
                // Everything before it is there, also when a gap follows.
                None if !inclusive => Ok(search.wal_end()),
                None => Err(self.refuse_end(coverage)),
            },
            Target::Event(event) => {
                let lsn = if inclusive { event.after } else { event.before };
                if lsn >= end {
                    return Err(self.refuse_end(coverage));
                }
                search.event(event, inclusive)
            }
            Target::Xid(xid) => search
                .xid(*xid, inclusive)?
                .ok_or_else(|| not_found(format!("no transaction {xid} ended"))),
            Target::Name(name) => search
                .restore_point(name)?
                .ok_or_else(|| not_found(format!("no restore point \"{name}\" was made"))),
        }
    }

    /// The place of a time that nothing archived is later than: the end of it all, if no transaction that is not archived
    /// can have ended by then.
    fn behind_all(&self, search: &Search<'_>, time: DateTime<Utc>) -> Searched<StopPoint> {
        let idle_until = if search.coverage.is_end() {
            search.idle_until()?
        } else {
            None
        };
        let Some(until) = idle_until.filter(|until| time <= *until) else {
            return Err(self.refuse_behind(search.coverage, idle_until));
        };
        let mut place = search.wal_end();
        let (end, until) = (
            self.path.start(search.coverage.first_missing),
            postgresql_time(until),
        );
        place.notes.push(format!(
            "everything archived is replayed, up to {end}: the server proved that no other transaction ended until {until}"
        ));
        Ok(place)
    }

    fn refuse_end(&self, coverage: &Coverage) -> NoPlan<Refusal> {
        self.refuse_behind(coverage, None)
    }

    fn refuse_behind(
        &self,
        coverage: &Coverage,
        idle_until: Option<DateTime<Utc>>,
    ) -> NoPlan<Refusal> {
        let (end, last) = (
            self.path.start(coverage.first_missing),
            coverage.pieces.last(),
        );
        let last_stored = last
            .and_then(|piece| self.known.facts.ranges.holding(piece.last))
            .map(|it| it.last_stored);
        let reason = match coverage.resumes {
            _ if coverage.expired => UnreachableReason::Expired {
                first_missing: coverage.first_missing,
                end,
            },
            Some(resumes) => UnreachableReason::Gap {
                first_missing: coverage.first_missing,
                resumes,
            },
            None => {
                let timeline =
                    last.map_or(coverage.first_missing.timeline, |piece| piece.last.timeline);
                UnreachableReason::BeyondArchive {
                    end,
                    timeline,
                    last_stored,
                    idle_until,
                }
            }
        };
        Refusal::end(&self.path, coverage, reason).into()
    }

    /// A refusal suggests the backup that was asked for, and behind a gap the first moment there.
    fn with_what_follows(&self, stuck: NoPlan<Refusal>, coverage: &Coverage) -> NoPlan<Refusal> {
        let NoPlan::Refused(mut refusal) = stuck else {
            return stuck;
        };
        if let (Some(before), Some(id)) = (&refusal.before, &self.request.backup) {
            let request = RestoreRequest {
                backup: Some(id.clone()),
                ..before.request.clone()
            };
            refusal.before = Some(super::Nearest::new(before.words.clone(), request));
        }
        if !coverage.is_end() && refusal.after.is_none() {
            let first_missing = coverage
                .first_missing
                .number(self.known.facts.ranges.segment_size());
            let behind = |backup: &&BackupDescription| {
                self.start(backup) > first_missing && self.unusable(backup, false).is_none()
            };
            let after = self
                .known
                .facts
                .backups
                .iter()
                .filter(behind)
                .min_by_key(|backup| backup.stop_lsn);
            refusal.after = after.map(|backup| end_of(backup, self.path.timeline()));
        }
        NoPlan::Refused(refusal)
    }

    /// The commits around the place. Errors: the index does not know them.
    pub fn neighbours(&self, choice: &Choice<'_>) -> Result<super::Neighbours, Unknown> {
        self.search(choice.backup.stop_lsn, &choice.coverage)
            .neighbours(&choice.place)
    }
}
