use super::*;
use crate::storage::lifecycle::When;

fn place() -> Place {
    Place {
        repository: "walden/store/".into(),
        cluster: "main".into(),
    }
}

fn foreign(prefix: &str) -> LifecycleRule {
    LifecycleRule {
        id: "theirs".into(),
        enabled: true,
        prefix: prefix.into(),
        ..LifecycleRule::default()
    }
}

#[test]
fn no_rule_of_ours_deletes_or_moves_a_current_version() {
    for keeps in [None, Some(1), Some(400)] {
        for rule in place().rules(keeps) {
            assert!(rule.expires.is_none() && rule.moves.is_empty());
            assert_eq!(rule.prefix, "walden/store/main/");
            assert!(place().is_ours(&rule.id));
            assert!(place().compare(&[rule], &[]).dangers.is_empty());
        }
    }
    assert_eq!(place().rules(None).len(), 1, "without an end nothing goes");
}

#[test]
fn rules_of_other_clusters_and_repositories_are_not_ours() {
    let other = |repository: &str, cluster: &str| Place {
        repository: repository.into(),
        cluster: cluster.into(),
    };
    for place in [
        other("walden/store/", "main2"),
        other("", "main"),
        other("walden/", "store"),
        other("walden/store/main/", "x"),
    ] {
        for rule in place.rules(Some(9)) {
            assert!(!self::place().is_ours(&rule.id), "{}", rule.id);
        }
    }
    assert!(!place().is_ours("theirs") && !place().is_ours("walden"));
}

#[test]
fn what_would_take_away_what_is_needed_is_found() {
    let expiring = |prefix: &str| LifecycleRule {
        expires: Some(When::Days(30)),
        ..foreign(prefix)
    };
    let right = place().rules(Some(100));
    let dangers = |rule: LifecycleRule| place().compare(&[rule], &right).dangers;
    for prefix in [
        "",
        "walden/",
        "walden/store/main/wal/",
        "walden/store/walden.json",
    ] {
        assert_eq!(dangers(expiring(prefix)).len(), 1, "{prefix}");
    }
    assert_eq!(
        dangers(expiring("walden/store/main/wal/")),
        [
            "rule \"theirs\" deletes objects below \"walden/store/main/wal/\" 30 days after they were stored"
        ]
    );
    for prefix in ["walden/store/other/", "logs/"] {
        assert!(dangers(expiring(prefix)).is_empty(), "{prefix}");
    }
    let disabled = LifecycleRule {
        enabled: false,
        ..expiring("")
    };
    let tagged = LifecycleRule {
        by_tags: true,
        ..expiring("")
    };
    assert!(dangers(disabled).is_empty() && dangers(tagged).is_empty());
    let moving = |class: &str| LifecycleRule {
        moves: vec![(When::Days(1), class.into())],
        ..foreign("")
    };
    assert!(dangers(moving("GLACIER_IR")).is_empty());
    assert_eq!(
        dangers(moving("DEEP_ARCHIVE")),
        [
            "rule \"theirs\" moves all objects of the bucket to DEEP_ARCHIVE a day after they were stored"
        ]
    );
}

#[test]
fn versions_that_go_too_early_are_told() {
    let hasty = |days, keeps| {
        let rule = LifecycleRule {
            noncurrent_expire: Some(days),
            ..foreign("")
        };
        !place()
            .compare(&[rule], &place().rules(keeps))
            .hasty
            .is_empty()
    };
    assert!(hasty(99, Some(100)) && !hasty(100, Some(100)) && hasty(9999, None));
}

#[test]
fn rules_that_are_as_they_must_be_are_neither_missing_nor_stale() {
    let right = place().rules(Some(100));
    assert_eq!(place().compare(&right, &right), Comparison::default());
    let before = place().rules(Some(50));
    let found = place().compare(&before, &right);
    assert_eq!(found.missing, ["walden walden/store/main/ old versions"]);
    assert_eq!(found.stale, found.missing);
    assert_eq!(place().compare(&[], &right).missing.len(), 2);
    assert!(place().compare(&[], &right).stale.is_empty());
}

#[test]
fn versions_are_kept_longer_than_anything_is() {
    assert_eq!(days_beyond(TimeDelta::days(7)), 37);
    assert_eq!(days_beyond(TimeDelta::hours(1)), 31);
    assert_eq!(days_beyond(TimeDelta::MAX), i32::MAX as u32);
}

#[test]
fn the_forms_say_the_same() {
    let rules = place().rules(Some(100));
    assert_eq!(
        as_json(&rules),
        json!({ "Rules": [
            { "ID": "walden walden/store/main/ incomplete uploads", "Status": "Enabled",
              "Filter": { "Prefix": "walden/store/main/" },
              "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 7 } },
            { "ID": "walden walden/store/main/ old versions", "Status": "Enabled",
              "Filter": { "Prefix": "walden/store/main/" },
              "NoncurrentVersionExpiration": { "NoncurrentDays": 100 },
              "Expiration": { "ExpiredObjectDeleteMarker": true } },
        ] })
    );
    let text = as_terraform(&rules, "odd${name}");
    for part in [
        "bucket = \"odd$${name}\"",
        "id     = \"walden walden/store/main/ old versions\"",
        "days_after_initiation = 7",
        "noncurrent_days = 100",
        "expired_object_delete_marker = true",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let depth = |c| text.matches(c).count();
    assert_eq!(depth('{') - 1, depth('}') - 1);
}

#[test]
fn versions_stay_as_long_as_the_policy_keeps_anything() {
    let kind = |at: usize, keep: Keep| {
        let mut tiers = crate::retention::Tiers::default();
        tiers.0[at] = Some(keep);
        crate::retention::KindPolicy { tiers, minimum: 1 }
    };
    let mut policy = Policy {
        zone: chrono_tz::UTC,
        window: Some(TimeDelta::days(7)),
        base: kind(1, Keep::For(TimeDelta::days(30))),
        dump: kind(5, Keep::Count(7)),
        schema: kind(0, Keep::Count(24)),
    };
    assert_eq!(longest(&policy), Some(TimeDelta::days(8 * 366)));
    policy.schema = crate::retention::KindPolicy::default();
    assert_eq!(longest(&policy), None, "all of a kind is kept");
}
