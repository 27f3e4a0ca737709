//! Figures under the names that runbooks for backups have. Names without a prefix may be somebody else's: they are shown
//! where they are wanted.

use chrono::{DateTime, Utc};

use super::figures::Figures;
use super::show::{Show, seconds};
use crate::health::{ActEnd, ActKind, DumpKind, Rule};
use crate::jobs::record::RunState;
use crate::postgres::catalog::WalRange;

/// Adds them; what is not known is not shown.
pub fn show(show: &mut Show, figures: &Figures<'_>) {
    let of = |kind: &str| [("type", kind.to_string())];
    let known = successes(figures).into_iter();
    show.labelled(
        "backup_last_success_timestamp",
        "When the newest complete backup of a type was taken",
        known.filter_map(|(kind, at)| Some((of(kind), seconds(at?)))),
    );
    let known = sizes(figures).into_iter();
    show.labelled(
        "backup_size_bytes",
        "Bytes of the newest base backup, of all archived WAL, of the newest dumps of all databases",
        known.filter_map(|(kind, bytes)| Some((of(kind), bytes? as f64))),
    );
    for (name, help, is_good) in [
        (
            "backup_validation_success",
            "Whether the last verification found all as it must be: 1, else 0",
            validation(figures),
        ),
        (
            "backup_s3_sync_success",
            "Whether what is kept lies in a bucket, or the last copy succeeded: 1, else 0",
            sync(figures),
        ),
    ] {
        if let Some(is_good) = is_good {
            show.number(name, help, is_good.into());
        }
    }
}

fn ranges<'a>(figures: &'a Figures<'_>) -> impl Iterator<Item = &'a WalRange> {
    let kept = figures.kept.iter();
    kept.flat_map(|kept| kept.facts.ranges.iter())
}

fn successes(figures: &Figures<'_>) -> [(&'static str, Option<DateTime<Utc>>); 4] {
    let newest = |kind| figures.upkeep.newest(kind).map(|dump| dump.time);
    let kept = figures.kept.as_ref();
    [
        ("base", kept.and_then(|kept| kept.health.backup)),
        ("wal", ranges(figures).map(|range| range.last_stored).max()),
        ("dump", newest(DumpKind::Full)),
        ("schema", newest(DumpKind::Schema)),
    ]
}

fn sizes(figures: &Figures<'_>) -> [(&'static str, Option<u64>); 4] {
    let dumps = |kind| {
        let all = figures.upkeep.dumps.iter();
        let bytes = all.filter(|dump| dump.kind == kind).map(|dump| dump.bytes);
        bytes.reduce(|sum, bytes| sum + bytes)
    };
    let base = figures
        .kept
        .as_ref()
        .and_then(|kept| kept.facts.backups.last());
    let wal = ranges(figures).map(|range| range.stored_bytes);
    [
        ("base", base.map(|backup| backup.stored_bytes)),
        ("wal", wal.reduce(|sum, bytes| sum + bytes)),
        ("dump", dumps(DumpKind::Full)),
        ("schema", dumps(DumpKind::Schema)),
    ]
}

fn validation(figures: &Figures<'_>) -> Option<bool> {
    let acts = figures.upkeep.acts.iter();
    let verifications = acts.filter(|act| act.kind == ActKind::Verification);
    let last = verifications.max_by_key(|act| act.ended)?;
    Some(last.end == ActEnd::Passed)
}

/// The copy is the second place; without one a bucket is the only.
fn sync(figures: &Figures<'_>) -> Option<bool> {
    let copy = figures.jobs.iter().find(|job| job.job == "copy");
    let copied = copy.and_then(|job| Some(job.last.as_ref()?.state == RunState::Succeeded));
    let stored = || {
        let health = figures.kept.as_ref()?.health;
        let is_stored = !figures.is_unreadable && !health.breaks(Rule::StoringFails);
        figures.is_in_bucket.then_some(is_stored)
    };
    copied.or_else(stored)
}
