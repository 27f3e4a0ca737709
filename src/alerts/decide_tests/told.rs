//! What breaks is told to whom it is for, once it holds, and not too often.

use super::*;

#[test]
fn each_rule_fires_once_and_resolves_once() {
    let own = OWN_RULES.iter().map(|(name, _)| *name);
    for rule in crate::health::Rule::ALL
        .iter()
        .map(|rule| rule.name())
        .chain(own)
    {
        let mut story = Story::new(policy());
        let broken = [condition(rule, "", Severity::Critical)];
        let told = [format!("all +{rule}"), format!("pager +{rule}")];
        assert_eq!(story.look(0, &broken), told);
        assert_eq!(story.look(60, &broken), NOTHING);
        assert_eq!(
            story.look(120, &[]),
            told.map(|line| line.replace('+', "-"))
        );
        assert_eq!(story.look(180, &[]), NOTHING);
    }
}

#[test]
fn a_channel_hears_what_is_severe_enough_for_it() {
    let mut story = Story::new(policy());
    assert_eq!(story.look(0, &[warning("BackupOld")]), ["all +BackupOld"]);
    // One that gets critical is told at once, also to those who heard it.
    let worse = [condition("BackupOld", "", Severity::Critical)];
    assert_eq!(
        story.look(10, &worse),
        ["all +BackupOld", "pager +BackupOld"]
    );
    assert_eq!(story.look(20, &[warning("BackupOld")]), NOTHING);
    let mut story = Story::new(with_rule(
        "BackupOld",
        RulePolicy {
            channels: Some(vec!["pager".into()]),
            ..RulePolicy::default()
        },
    ));
    assert_eq!(story.look(0, &[warning("BackupOld")]), ["pager +BackupOld"]);
    let mut story = Story::new(with_rule(
        "BackupOld",
        RulePolicy {
            severity: Some(Severity::Critical),
            ..RulePolicy::default()
        },
    ));
    assert_eq!(story.look(0, &[warning("BackupOld")]).len(), 2);
}

#[test]
fn what_fires_is_told_again_after_its_interval() {
    let critical = [condition("WalGap", "", Severity::Critical)];
    let mut story = Story::new(Policy {
        routes: policy().routes[..1].to_vec(),
        ..policy()
    });
    let told: Vec<i64> = (0..40)
        .map(|look| look * 60)
        .filter(|seconds| !story.look(*seconds, &critical).is_empty())
        .collect();
    assert_eq!(told, [0, 1020, 2040]);
    let mut story = Story::new(policy());
    assert_eq!(story.look(0, &[warning("DumpOld")]).len(), 1);
    assert_eq!(story.look(9_999, &[warning("DumpOld")]), NOTHING);
    assert_eq!(story.look(10_000, &[warning("DumpOld")]).len(), 1);
    let mut story = Story::new(with_rule(
        "DumpOld",
        RulePolicy {
            repeat: Some(Duration::from_secs(50)),
            ..RulePolicy::default()
        },
    ));
    story.look(0, &[warning("DumpOld")]);
    assert_eq!(story.look(50, &[warning("DumpOld")]).len(), 1);
}

#[test]
fn what_comes_and_goes_is_told_no_more_often_than_the_throttle() {
    let mut story = Story::new(policy());
    let broken = [warning("RpoExceeded")];
    let mut told = Vec::new();
    for look in 0..30 {
        let seen: &[Condition] = if look % 2 == 0 { &broken } else { &[] };
        told.extend(story.look(look * 10, seen));
    }
    let (begun, ended) = ("all +RpoExceeded", "all -RpoExceeded");
    assert_eq!(told, [begun, ended, begun, ended, begun, ended]);
}

#[test]
fn a_rule_must_hold_and_what_is_not_known_holds_longer() {
    let holding = Policy {
        hold: Duration::from_secs(60),
        ..policy()
    };
    let mut story = Story::new(holding.clone());
    assert_eq!(story.look(0, &[warning("DumpOld")]), NOTHING);
    assert_eq!(story.look(59, &[warning("DumpOld")]), NOTHING);
    assert_eq!(story.look(60, &[warning("DumpOld")]), ["all +DumpOld"]);
    // Over before it was told: nobody hears of it, and nothing stays.
    let mut story = Story::new(holding.clone());
    story.look(0, &[warning("DumpOld")]);
    assert_eq!(story.look(10, &[]), NOTHING);
    assert_eq!(story.state, AlertState::default());
    let mut story = Story::new(holding);
    let unknown = [Condition {
        is_unknown: true,
        ..warning("JobsUnknown")
    }];
    let told: Vec<_> = (0..6)
        .map(|look| story.look(look * 60, &unknown).len())
        .collect();
    assert_eq!(told, [0, 0, 0, 0, 0, 1]);
}

#[test]
fn while_there_is_silence_nobody_is_told_and_behind_it_what_still_fires_is() {
    let silence = |until| Silence {
        until: at(until),
        by: "postgres@db1".into(),
        reason: "upgrade".into(),
    };
    for name in ["JobFailed", "JobFailed/dump"] {
        let mut story = Story::new(policy());
        story.state.silences.insert(name.into(), silence(50));
        let failed = [condition("JobFailed", "dump", Severity::Warning)];
        assert_eq!(story.look(0, &failed), NOTHING);
        assert_eq!(story.look(49, &failed), NOTHING);
        assert_eq!(story.look(50, &failed), ["all +JobFailed/dump"]);
        assert!(story.state.silences.is_empty());
        story.state.silences.insert(name.into(), silence(90));
        assert_eq!(story.look(60, &[]), NOTHING);
    }
    let mut story = Story::new(with_rule(
        "DumpOld",
        RulePolicy {
            silent: true,
            ..RulePolicy::default()
        },
    ));
    assert_eq!(story.look(0, &[warning("DumpOld")]), NOTHING);
    assert!(story.state.alerts["DumpOld"].fires());
}

#[test]
fn many_at_once_come_in_portions_the_worst_first() {
    let mut story = Story::new(policy());
    let mut many: Vec<_> = (0..25)
        .map(|number| condition("JobFailed", &number.to_string(), Severity::Warning))
        .collect();
    many.push(condition("WalGap", "", Severity::Critical));
    let told = [0, 1, 2, 3].map(|look| {
        let told = story.look(look, &many);
        (
            told.iter().filter(|line| line.starts_with("all")).count(),
            told[..1.min(told.len())].concat(),
        )
    });
    assert_eq!(told[0], (10, "all +WalGap".into()));
    assert_eq!(told.map(|(count, _)| count), [10, 10, 6, 0]);
}

#[test]
fn a_growing_age_is_no_news() {
    let mut story = Story::new(policy());
    let aged = |what: &str| {
        [Condition {
            what: what.into(),
            ..warning("BackupOld")
        }]
    };
    story.look(0, &aged("9 days old"));
    let before = story.state.clone();
    story.look(60, &aged("10 days old"));
    assert_eq!(story.state, before);
    story.look(10_000, &aged("11 days old"));
    assert_eq!(story.state.alerts["BackupOld"].what, "11 days old");
}

#[test]
fn what_nobody_was_told_is_not_marked_as_told() {
    let all = policy();
    for file in [
        Policy {
            routes: Vec::new(),
            ..all.clone()
        },
        Policy {
            routes: all.routes[1..].to_vec(),
            ..all.clone()
        },
    ] {
        let mut story = Story::new(file);
        let old = |days: &str| {
            [Condition {
                what: format!("{days} days old"),
                ..warning("BackupOld")
            }]
        };
        assert_eq!(story.look(0, &old("9.9")), NOTHING);
        let before = story.state.clone();
        assert_eq!(story.look(60, &old("10.0")), NOTHING);
        assert_eq!(story.state, before, "an age is no news worth an object");
        story.policy = all.clone();
        assert_eq!(story.look(120, &old("11.0")), ["all +BackupOld"]);
        assert_eq!(story.state.alerts["BackupOld"].what, "11.0 days old");
    }
}

#[test]
fn a_clock_that_was_ahead_silences_nothing() {
    let ahead = 10 * 365 * 86_400;
    let broken = [warning("DumpOld"), warning("Backlog")];
    let mut story = Story::new(Policy {
        hold: Duration::from_secs(60),
        heartbeats: vec![Heartbeat {
            name: "hc".into(),
            of: "backup".into(),
        }],
        ..policy()
    });
    story.look(ahead, &broken[..1]);
    story.look_with(ahead + 60, &broken[..1], &["all"]);
    story.look(ahead + 70, &broken);
    story.state.heartbeats.insert("hc".into(), at(ahead));
    story.state.silences.insert(
        "DumpOld".into(),
        Silence {
            until: at(ahead),
            by: "postgres@db1".into(),
            reason: String::new(),
        },
    );
    assert_eq!(story.look(0, &broken), NOTHING);
    assert!(story.state.heartbeats.is_empty());
    assert_eq!(story.look(1800, &broken), ["all +Backlog"]);
    let month = 30 * 86_400;
    assert_eq!(story.look(month, &broken).len(), 2, "{:?}", story.state);
    let silent = Story::new(policy());
    let seen = Seen {
        successes: [("backup".to_string(), at(ahead))].into(),
        ..Seen::default()
    };
    assert_eq!(due(&silent.state, &seen, &story.policy, at(0)).1, []);
}
