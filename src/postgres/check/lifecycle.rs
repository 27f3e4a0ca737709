//! Whether the bucket leaves alone what a restore needs, and needs at once.

use super::{Check, CheckError, CheckRequest, Verdict};
use crate::config::{RepositoryUrl, S3};
use crate::postgres::lifecycle::{Comparison, Place, keeps_versions};
use crate::postgres::promotion::Classes;
use crate::storage::classes::is_cold;

const REMOVE: &str = "take this rule away, or give it a prefix that leaves Walden's objects alone: only Walden knows which are needed";
const APPLY: &str = "run `walden lifecycle --apply`";

/// Reads the bucket's rules and compares them.
pub(super) async fn check(request: &CheckRequest<'_>) -> Verdict {
    let settings = request.settings;
    let RepositoryUrl::S3 { prefix, .. } = &settings.repository.url else {
        return Check::Lifecycle.skipped("a folder deletes and moves nothing by itself");
    };
    if let Some(verdict) = of_classes(&settings.s3) {
        return verdict;
    }
    let place = Place {
        repository: prefix.clone(),
        cluster: settings.cluster.name.clone(),
    };
    let right = place.rules(keeps_versions(settings));
    match request
        .within("the store", request.storage.lifecycle())
        .await
    {
        Ok(Some(there)) => decide(&place.compare(&there, &right)),
        Ok(None) => Check::Lifecycle.ok("the store has no lifecycle: it deletes nothing by itself"),
        Err(error) => unknown(&error),
    }
}

/// The right to read the rules came late: many roles do not have it.
fn unknown(error: &CheckError) -> Verdict {
    Check::Lifecycle
        .skipped(format!("not known: {}", error.what))
        .hint("allow s3:GetLifecycleConfiguration: a rule can delete the archive")
}

/// What is stored last is what a restore needs first.
fn of_classes(s3: &S3) -> Option<Verdict> {
    if let Err(error) = Classes::of_settings(s3) {
        return Some(Check::Lifecycle.failed(&CheckError::from(&error)));
    }
    let set = [
        ("s3.storage_class_wal", &s3.storage_class_wal),
        ("s3.storage_class_base", &s3.storage_class_base),
        ("s3.storage_class_dump", &s3.storage_class_dump),
    ];
    let (name, class) = set
        .into_iter()
        .filter_map(|(name, class)| Some((name, class.as_deref()?)))
        .find(|(_, class)| is_cold(class))?;
    Some(
        Check::Lifecycle
            .critical(format!(
                "{name} is {class}: a restore of the newest backup waits until it is thawed"
            ))
            .hint("set another class, and colder ones for older tiers"),
    )
}

fn decide(found: &Comparison) -> Verdict {
    if let Some(danger) = found.dangers.first() {
        return Check::Lifecycle.critical(danger).hint(REMOVE);
    }
    if let Some(hasty) = found.hasty.first() {
        return Check::Lifecycle
            .warning(hasty)
            .hint("give it more days than retention keeps anything, or set `s3.keep_versions`");
    }
    if let Some(stale) = found.stale.first() {
        return Check::Lifecycle
            .warning(format!("rule \"{stale}\" is not what the settings say"))
            .hint(APPLY);
    }
    match found.missing.len() {
        0 => Check::Lifecycle.ok("the bucket's rules are as they must be"),
        _ => Check::Lifecycle
            .ok("no rule deletes what is needed; Walden's own are not set")
            .hint(APPLY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::CheckStatus;

    #[test]
    fn the_worst_that_a_rule_can_do_is_told_first() {
        let found = |dangers: &[&str], hasty: &[&str], stale: &[&str], missing: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(ToString::to_string).collect();
            decide(&Comparison {
                dangers: owned(dangers),
                hasty: owned(hasty),
                missing: owned(missing),
                stale: owned(stale),
            })
        };
        for (verdict, status, says) in [
            (
                found(&["d"], &["h"], &["s"], &["m"]),
                CheckStatus::Critical,
                "d",
            ),
            (
                found(&[], &["h"], &["s"], &["m"]),
                CheckStatus::Warning,
                "h",
            ),
            (
                found(&[], &[], &["s"], &["m"]),
                CheckStatus::Warning,
                "\"s\"",
            ),
            (found(&[], &[], &[], &["m"]), CheckStatus::Ok, "not set"),
            (
                found(&[], &[], &[], &[]),
                CheckStatus::Ok,
                "as they must be",
            ),
        ] {
            assert_eq!(verdict.status, status, "{}", verdict.message);
            assert!(verdict.message.contains(says), "{}", verdict.message);
        }
    }
}
