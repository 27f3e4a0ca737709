//! What somebody should look at before a plan is applied.

use std::collections::BTreeSet;

use super::item::{Holdings, ItemKind};
use super::plan::KeepReason;
use super::policy::Policy;
use crate::postgres::types::TimelineId;

/// Sentences, the most important first. `kept`: why each item stays.
pub(super) fn warnings(
    holdings: &Holdings,
    policy: &Policy,
    unknown: &BTreeSet<TimelineId>,
    clock_wrong: bool,
    kept: &[BTreeSet<KeepReason>],
) -> Vec<String> {
    let mut warnings = Vec::new();
    if clock_wrong {
        warnings.push(
            "several items are later than this machine's clock: nothing goes until the clock is right, or they are \
             deleted by hand"
                .to_string(),
        );
    }
    for timeline in unknown {
        let why = match holdings.wal.unread_histories.get(timeline) {
            Some(why) => format!("its history file cannot be used: {why}"),
            None => "its history file is missing".into(),
        };
        warnings.push(format!(
            "where timeline {timeline} comes from is not known ({why}): no base backup and no WAL goes"
        ));
    }
    for (item, reasons) in holdings.items.iter().zip(kept) {
        if reasons.contains(&KeepReason::Ahead) {
            warnings.push(format!(
                "{} is later than the reference time: if its clock was wrong, delete it by hand",
                item.id
            ));
        }
        if reasons.contains(&KeepReason::ClockDoubted) {
            warnings.push(format!(
                "{} contradicts other items, which lie before or behind it in the WAL: a clock was wrong",
                item.id
            ));
        }
    }
    for kind in ItemKind::ALL
        .into_iter()
        .filter(|kind| policy.limits(*kind))
    {
        let of_kind = || holdings.items.iter().filter(|item| item.id.kind == kind);
        if of_kind().next().is_some() && !of_kind().any(|item| item.is_good()) {
            warnings.push(format!("no {kind} item is good: none of them goes"));
        }
    }
    for pin in &holdings.pins {
        if !holdings.items.iter().any(|item| item.id == pin.item) {
            warnings.push(format!(
                "pin {} names {}, which is not there",
                pin.id, pin.item
            ));
        }
    }
    warnings
}
