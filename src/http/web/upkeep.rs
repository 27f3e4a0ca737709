//! What is done beside archiving, as the page shows it: dumps, jobs, the room on the disk. Pure.

use chrono::{DateTime, Utc};

use super::cards::Card;
use super::words::{When, between, bytes, count};
use crate::config;
use crate::health::{HealthReason, Level, NewestDump, Subject, Upkeep};
use crate::service::jobs::JobsSnapshot;

/// The newest dump of a database.
pub struct DumpView {
    pub id: String,
    pub database: String,
    pub kind: &'static str,
    pub taken: When,
    pub size: String,
}

impl From<&NewestDump> for DumpView {
    fn from(dump: &NewestDump) -> Self {
        Self {
            id: dump.id.clone(),
            database: dump.database.clone(),
            kind: dump.kind.as_str(),
            taken: When::of(dump.time),
            size: bytes(dump.bytes),
        }
    }
}

/// The newest dumps.
pub struct DumpsView {
    pub rows: Vec<DumpView>,
    pub left_out: u64,
    /// Why how they stand is not known.
    pub unknown: Option<String>,
}

impl From<&Upkeep> for DumpsView {
    fn from(upkeep: &Upkeep) -> Self {
        let (shown, left_out) = upkeep.shown_dumps();
        Self {
            rows: shown.into_iter().map(DumpView::from).collect(),
            left_out,
            unknown: upkeep.dumps_unknown.clone(),
        }
    }
}

/// A card for each that there is something to tell of.
pub fn cards(
    upkeep: &Upkeep,
    jobs: &JobsSnapshot,
    limits: &config::Health,
    now: DateTime<Utc>,
) -> Vec<Card> {
    let reasons = upkeep.judge(limits, now);
    let disk = upkeep.disk.map(|disk| {
        let free = format!("{} are free", bytes(disk.free_bytes));
        (format!("{} % full", disk.percent()), vec![(free, None)])
    });
    let certificate = upkeep.certificate.map(|until| {
        let value = match until > now {
            true => format!("{} left", between(now, until)),
            false => "ended".into(),
        };
        (value, vec![("until".into(), Some(When::of(until)))])
    });
    [
        card(&reasons, Subject::Dump, "Last dump", dump(upkeep, now)),
        card(&reasons, Subject::Jobs, "Jobs", standing(upkeep, jobs)),
        card(&reasons, Subject::Space, "Disk of the repository", disk),
        card(
            &reasons,
            Subject::Certificate,
            "Certificate of HTTPS",
            certificate,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A value, and what is told below it.
type Told = (String, Vec<(String, Option<When>)>);

fn card(
    reasons: &[HealthReason],
    about: Subject,
    title: &'static str,
    told: Option<Told>,
) -> Option<Card> {
    let reasons = || reasons.iter().filter(|reason| reason.about == about);
    let worst = reasons().map(|reason| reason.level).max();
    let missing = || {
        let value = match worst? {
            Level::Unknown => "not known",
            _ => "none",
        };
        Some((value.into(), Vec::new()))
    };
    let (value, mut lines) = told.or_else(missing)?;
    lines.extend(reasons().map(line));
    Some(Card {
        title,
        level: worst.unwrap_or(Level::Good),
        value,
        lines,
    })
}

fn dump(upkeep: &Upkeep, now: DateTime<Utc>) -> Option<Told> {
    let newest = upkeep.dumps.iter().max_by_key(|dump| dump.time)?;
    let what = format!("{}, {}, taken", newest.id, bytes(newest.bytes));
    let value = format!("{} ago", between(newest.time, now));
    Some((value, vec![(what, Some(When::of(newest.time)))]))
}

fn standing(upkeep: &Upkeep, jobs: &JobsSnapshot) -> Option<Told> {
    let failing = upkeep.jobs.iter().filter(|job| job.failures > 0).count();
    let value = match (failing, upkeep.jobs.len()) {
        (_, 0) => return None,
        (0, all) => format!("{} scheduled", count(all as u64, "job")),
        (failing, _) => format!("{failing} failing"),
    };
    let next = jobs.jobs.iter();
    let next = next.filter_map(|job| Some((job.next?, &job.job))).min();
    let next = next.map(|(next, job)| (format!("next is {job}"), Some(When::of(next))));
    Some((value, Vec::from_iter(next)))
}

fn line(reason: &HealthReason) -> (String, Option<When>) {
    (format!("{}: {}", reason.what, reason.next), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::health_limits;
    use crate::health::{DiskUse, ScheduledJob};
    use crate::postgres::layout::DumpKind;

    fn shown(upkeep: &Upkeep) -> Vec<(&'static str, Level, String)> {
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(3);
        let cards = cards(upkeep, &JobsSnapshot::default(), &health_limits(), now);
        let told = cards.into_iter();
        told.map(|card| (card.title, card.level, card.value))
            .collect()
    }

    #[test]
    fn what_is_not_there_has_no_card_unless_it_should_be_there() {
        assert_eq!(shown(&Upkeep::default()), []);
        let mut upkeep = Upkeep {
            jobs: vec![ScheduledJob {
                name: "dump".into(),
                failures: 0,
                why: None,
                is_running: false,
                ended_at: Some(DateTime::UNIX_EPOCH),
                succeeded_at: None,
                due_since: None,
                unattended: false,
                stale_before: Some(DateTime::UNIX_EPOCH),
            }],
            disk: Some(DiskUse {
                used_bytes: 81,
                free_bytes: 19,
            }),
            dumps_at: Some(DateTime::UNIX_EPOCH),
            ..Upkeep::default()
        };
        let jobs = ("Jobs", Level::Good, "1 job scheduled".to_string());
        let disk = (
            "Disk of the repository",
            Level::Warning,
            "81 % full".to_string(),
        );
        let none = ("Last dump", Level::Warning, "none".to_string());
        assert_eq!(shown(&upkeep), [none, jobs, disk.clone()]);
        upkeep.dumps.push(NewestDump {
            id: "shop/shop_1".into(),
            database: "shop".into(),
            kind: DumpKind::Full,
            time: DateTime::UNIX_EPOCH,
            bytes: 7,
            earlier: Vec::new(),
        });
        upkeep.jobs[0].failures = 3;
        let dump = ("Last dump", Level::Good, "3.0 h ago".to_string());
        let jobs = ("Jobs", Level::Critical, "1 failing".to_string());
        assert_eq!(shown(&upkeep), [dump, jobs, disk]);
        let unknown = Upkeep {
            disk_unknown: Some("not mounted".into()),
            ..Upkeep::default()
        };
        let disk = ("Disk of the repository", Level::Unknown, "not known".into());
        assert_eq!(shown(&unknown), [disk]);
    }
}
