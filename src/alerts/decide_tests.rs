use super::*;
use crate::alerts::state::Silence;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn condition(rule: &str, of: &str, severity: Severity) -> Condition {
    Condition {
        rule: rule.into(),
        of: of.into(),
        about: "jobs".into(),
        severity,
        is_unknown: false,
        what: format!("{rule} of {of}"),
        next: "mend it".into(),
    }
}

fn warning(rule: &str) -> Condition {
    condition(rule, "", Severity::Warning)
}

fn policy() -> Policy {
    let route = |name: &str, least| Route {
        name: name.into(),
        least,
        keeps_open: false,
    };
    Policy {
        hold: Duration::ZERO,
        repeat_critical: Duration::from_secs(1000),
        repeat_warning: Duration::from_secs(10_000),
        throttle: Duration::from_secs(100),
        routes: vec![
            route("all", Severity::Warning),
            route("pager", Severity::Critical),
        ],
        ..Policy::default()
    }
}

fn with_rule(rule: &str, said: RulePolicy) -> Policy {
    Policy {
        rules: [(rule.to_string(), said)].into(),
        ..policy()
    }
}

/// One look after the other; whom each tells what, if all channels work.
struct Story {
    policy: Policy,
    state: AlertState,
}

impl Story {
    fn new(policy: Policy) -> Self {
        let state = AlertState::default();
        Self { policy, state }
    }

    fn look(&mut self, seconds: i64, conditions: &[Condition]) -> Vec<String> {
        self.look_with(seconds, conditions, &[])
    }

    /// `dead` channels are told nothing.
    fn look_with(&mut self, seconds: i64, conditions: &[Condition], dead: &[&str]) -> Vec<String> {
        let seen = Seen {
            conditions: conditions.to_vec(),
            ..Seen::default()
        };
        let now = at(seconds);
        self.state = decide(&self.state, &seen, &self.policy, now);
        let (deliveries, _) = due(&self.state, &seen, &self.policy, now);
        let (mut told, mut outcomes) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            let is_dead = dead.contains(&&*delivery.channel);
            let arrived: Vec<String> = match is_dead {
                true => Vec::new(),
                false => delivery.alerts.iter().map(Alert::id).collect(),
            };
            let line = |alert: &Alert| {
                let sign = if alert.fires() { '+' } else { '-' };
                format!("{} {sign}{}", delivery.channel, alert.id())
            };
            if !is_dead {
                told.extend(delivery.alerts.iter().map(line));
            }
            outcomes.push(Outcome {
                channel: delivery.channel.clone(),
                arrived,
                beat: None,
                failed: is_dead.then(|| "no answer".into()),
                refused: Vec::new(),
            });
        }
        self.state = settle(&self.state, &outcomes, now);
        told
    }
}

const NOTHING: [&str; 0] = [];

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
fn what_cannot_be_found_out_is_not_over() {
    let mut story = Story::new(policy());
    let failed = condition("JobFailed", "dump", Severity::Warning);
    story.look(0, &[failed]);
    let unknown = Condition {
        is_unknown: true,
        ..warning("JobsUnknown")
    };
    assert_eq!(
        story.look(10, std::slice::from_ref(&unknown)),
        ["all +JobsUnknown"]
    );
    let other = Condition {
        about: "dump".into(),
        ..unknown
    };
    assert_eq!(story.look(20, &[other]), ["all -JobFailed/dump"]);
    assert!(!story.state.alerts["JobFailed/dump"].fires());
}

#[test]
fn a_rule_that_nobody_can_judge_goes_on() {
    let mut story = Story::new(policy());
    story.look(0, &[warning("Backlog")]);
    let seen = Seen {
        unjudged: ["Backlog".into()].into(),
        ..Seen::default()
    };
    let state = decide(&story.state, &seen, &story.policy, at(10));
    assert!(state.alerts["Backlog"].fires());
    assert_eq!(story.look(20, &[]), ["all -Backlog"]);
}

#[test]
fn what_got_worse_is_not_told_to_be_over() {
    let mut story = Story::new(policy());
    story.look(0, &[condition("JobFailed", "dump", Severity::Warning)]);
    let again = [condition("JobFailsAgain", "dump", Severity::Critical)];
    let told = ["all +JobFailsAgain/dump", "pager +JobFailsAgain/dump"];
    assert_eq!(story.look(10, &again), told);
    // Another job's failure says nothing of this one.
    let mut story = Story::new(policy());
    story.look(0, &[condition("JobFailed", "dump", Severity::Warning)]);
    let other = [condition("JobFailed", "copy", Severity::Warning)];
    assert_eq!(
        story.look(10, &other),
        ["all +JobFailed/copy", "all -JobFailed/dump"]
    );
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
fn a_dead_channel_is_tried_again_with_growing_pauses_and_told_on_the_others() {
    let mut story = Story::new(policy());
    let gap = [condition("WalGap", "", Severity::Critical)];
    assert_eq!(story.look_with(0, &gap, &["pager"]), ["all +WalGap"]);
    assert_eq!(story.state.channels["pager"].failures, 1);
    assert_eq!(story.look_with(29, &gap, &["pager"]), NOTHING);
    assert_eq!(story.state.channels["pager"].failures, 1, "it rests");
    assert_eq!(story.look_with(30, &gap, &["pager"]), NOTHING);
    assert_eq!(story.state.channels["pager"].failures, 2);
    let told = story.look_with(40, &gap, &["pager"]);
    assert_eq!(told, ["all +ChannelFails/pager"], "and not on itself");
    assert_eq!(story.look_with(90, &gap, &[]), ["pager +WalGap"]);
    assert_eq!(story.look(100, &gap), ["all -ChannelFails/pager"]);
    assert!(story.state.channels.is_empty());
}

#[test]
fn what_a_dead_channel_missed_it_is_told_in_its_newest_form_within_a_day() {
    let mut story = Story::new(policy());
    story.look_with(0, &[warning("DumpOld")], &["all"]);
    assert_eq!(story.look_with(10, &[], &["all"]), NOTHING);
    assert_eq!(story.look(600, &[]), ["all -DumpOld"]);
    let mut story = Story::new(policy());
    story.look_with(0, &[warning("DumpOld")], &["all"]);
    story.look_with(10, &[], &["all"]);
    assert_eq!(story.look(86_500, &[]), NOTHING);
}

#[test]
fn what_is_over_is_shown_for_a_week() {
    let mut story = Story::new(policy());
    story.look(0, &[warning("DumpOld")]);
    story.look(10, &[]);
    story.look(7 * 86_400, &[]);
    assert!(!story.state.alerts.is_empty());
    story.look(7 * 86_400 + 11, &[]);
    assert_eq!(story.state, AlertState::default());
}

#[test]
fn what_belongs_to_channels_of_another_file_is_kept_for_a_day() {
    let mut story = Story::new(policy());
    story.look_with(
        0,
        &[condition("WalGap", "", Severity::Critical)],
        &["pager"],
    );
    story.state.heartbeats.insert("hc".into(), at(0));
    let pager = story.policy.routes.pop().unwrap();
    let told = story.look(60, &[]);
    assert_eq!(told, ["all -WalGap"]);
    assert_eq!(story.state.heartbeats["hc"], at(0));
    let mut other = Story {
        policy: story.policy.clone(),
        state: story.state.clone(),
    };
    other.policy.routes.push(pager);
    assert_eq!(other.look(70, &[]), ["pager -WalGap"]);
    story.look(86_500, &[]);
    assert!(story.state.channels.is_empty() && story.state.alerts["WalGap"].owed.is_empty());
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
fn a_heartbeat_tells_each_success_once() {
    let beat = Heartbeat {
        name: "hc".into(),
        of: "backup".into(),
    };
    let policy = Policy {
        heartbeats: vec![beat],
        ..policy()
    };
    let mut state = AlertState::default();
    let mut look = |seconds: i64, success: Option<i64>, works: bool| {
        let success = success.map(|success| ("backup".to_string(), at(success)));
        let seen = Seen {
            successes: success.into_iter().collect(),
            ..Seen::default()
        };
        state = decide(&state, &seen, &policy, at(seconds));
        let (_, beats) = due(&state, &seen, &policy, at(seconds));
        let outcomes: Vec<_> = beats
            .iter()
            .map(|beat| Outcome {
                channel: beat.name.clone(),
                arrived: Vec::new(),
                beat: Some(beat.at),
                failed: (!works).then(|| "dead".into()),
                refused: Vec::new(),
            })
            .collect();
        state = settle(&state, &outcomes, at(seconds));
        beats.len()
    };
    assert_eq!(look(0, None, true), 0);
    assert_eq!(look(10, Some(5), true), 1);
    assert_eq!(look(20, Some(5), true), 0);
    assert_eq!(look(30, Some(25), false), 1);
    assert_eq!(look(40, Some(25), true), 0, "it rests");
    assert_eq!(look(60, Some(25), true), 1);
    assert_eq!(look(70, Some(25), true), 0);
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
fn a_channel_of_another_file_that_fails_goes_on_failing_until_it_works() {
    let mut story = Story::new(policy());
    let gap = [condition("WalGap", "", Severity::Critical)];
    for seconds in [0, 30, 40] {
        story.look_with(seconds, &gap, &["pager"]);
    }
    let pager = story.policy.routes.pop().unwrap();
    assert_eq!(story.look(50, &gap), NOTHING);
    assert!(story.state.alerts["ChannelFails/pager"].fires());
    story.policy.routes.push(pager);
    assert_eq!(story.look(90, &gap), ["pager +WalGap"]);
    assert_eq!(story.look(91, &gap), ["all -ChannelFails/pager"]);
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

#[test]
fn what_people_know_and_gets_worse_is_told_without_a_hold() {
    let mut story = Story::new(Policy {
        hold: Duration::from_secs(60),
        ..policy()
    });
    let used = [warning("DiskUsed")];
    let full = [condition("DiskFull", "", Severity::Critical)];
    story.look(0, &used);
    assert_eq!(story.look(60, &used), ["all +DiskUsed"]);
    assert_eq!(story.look(70, &full), ["all +DiskFull", "pager +DiskFull"]);
    assert_eq!(story.look(80, &[]), ["all -DiskFull", "pager -DiskFull"]);
    for (milder, worse) in WORSE {
        let all = crate::health::Rule::ALL;
        assert!(
            [milder, worse]
                .iter()
                .all(|name| all.iter().any(|rule| rule.name() == *name))
        );
    }
    // What nobody knows yet must hold.
    let mut story = Story::new(story.policy);
    story.look(0, &used);
    assert_eq!(story.look(10, &full), NOTHING);
}

#[test]
fn the_end_of_what_got_worse_is_told_to_whoever_does_not_hear_the_worse() {
    let failed = [condition("JobFailed", "dump", Severity::Warning)];
    let again = [condition("JobFailsAgain", "dump", Severity::Critical)];
    let said = |hold: Option<u64>, silent, channels: Option<&str>| RulePolicy {
        hold: hold.map(Duration::from_secs),
        silent,
        channels: channels.map(|channel| vec![channel.to_string()]),
        ..RulePolicy::default()
    };
    let over = "all -JobFailed/dump";
    for (rule, told) in [
        (said(Some(60), false, None), vec![over]),
        (said(None, true, None), vec![over]),
        (
            said(None, false, Some("pager")),
            vec![over, "pager +JobFailsAgain/dump"],
        ),
    ] {
        let mut story = Story::new(with_rule("JobFailsAgain", rule));
        story.look(0, &failed);
        assert_eq!(story.look(10, &again), told);
        let ended = story.look(20, &[]);
        assert!(!ended.iter().any(|line| line.starts_with("all")));
    }
    // Something else about the same says nothing of it.
    let mut story = Story::new(policy());
    story.look(0, &[warning("DumpOld")]);
    let other = [warning("NoDump")];
    assert_eq!(story.look(10, &other), ["all +NoDump", "all -DumpOld"]);
}

#[test]
fn what_stays_open_in_a_channel_is_always_ended_there() {
    let mut policy = policy();
    policy.routes[1].keeps_open = true;
    let critical = |rule: &str| [condition(rule, "", Severity::Critical)];
    let mut policy_of_used = policy.clone();
    let severe = RulePolicy {
        severity: Some(Severity::Critical),
        ..RulePolicy::default()
    };
    policy_of_used.rules.insert("DiskUsed".into(), severe);
    let mut story = Story::new(policy_of_used);
    story.look(0, &[warning("DiskUsed")]);
    let told = story.look(10, &critical("DiskFull"));
    assert_eq!(
        told,
        ["all +DiskFull", "pager +DiskFull", "pager -DiskUsed"]
    );
    // Also what meanwhile is too mild for it, and what is silent.
    let mut story = Story::new(policy.clone());
    story.look(0, &critical("BackupOld"));
    story.look(10, &[warning("BackupOld")]);
    assert_eq!(story.look(20, &[]), ["all -BackupOld", "pager -BackupOld"]);
    let mut story = Story::new(policy);
    story.look(0, &critical("WalGap"));
    let silence = Silence {
        until: at(1000),
        by: "postgres@db1".into(),
        reason: String::new(),
    };
    story.state.silences.insert("WalGap".into(), silence);
    story.look(10, &critical("WalGap"));
    assert_eq!(story.look(20, &[]), ["pager -WalGap"]);
}

#[test]
fn a_message_that_is_always_refused_holds_no_other_up() {
    let mut state = AlertState::default();
    let mut policy = policy();
    policy.routes.truncate(1);
    let mut look = |seconds: i64, conditions: &[Condition], refuses: &[&str]| {
        let seen = Seen {
            conditions: conditions.to_vec(),
            ..Seen::default()
        };
        state = decide(&state, &seen, &policy, at(seconds));
        let (deliveries, _) = due(&state, &seen, &policy, at(seconds));
        let delivery = deliveries.into_iter().next();
        let tried = delivery.map_or(Vec::new(), |delivery| delivery.alerts);
        let tried: Vec<String> = tried.iter().map(Alert::id).collect();
        let is_refused = |id: &String| refuses.contains(&&**id);
        let (refused, arrived): (Vec<_>, Vec<_>) = tried.iter().cloned().partition(is_refused);
        if !tried.is_empty() {
            let outcome = Outcome {
                channel: "all".into(),
                arrived,
                beat: None,
                failed: (!refused.is_empty()).then(|| "400".into()),
                refused,
            };
            state = settle(&state, &[outcome], at(seconds));
        }
        tried
    };
    let gap = condition("WalGap", "", Severity::Critical);
    let refuses = ["WalGap"];
    let one = [gap.clone(), warning("DumpOld")];
    assert_eq!(look(0, &one, &refuses), ["WalGap", "DumpOld"]);
    // What is new does not rest with it.
    let two = [gap, warning("DumpOld"), warning("Backlog")];
    assert_eq!(look(10, &two, &refuses), ["Backlog"]);
    assert_eq!(look(20, &two, &refuses), NOTHING);
    assert_eq!(look(30, &two, &refuses), ["WalGap"]);
    assert_eq!(look(90, &two, &[]), ["WalGap"]);
    assert!(state.channels.is_empty(), "{state:?}");
}

#[test]
fn what_goes_on_all_the_time_is_stored_each_hour() {
    let policy = Policy {
        heartbeats: [("alive", "alerts"), ("nightly", "backup")]
            .map(|(name, of)| Heartbeat {
                name: name.into(),
                of: of.into(),
            })
            .into(),
        ..policy()
    };
    let beats = |alive: i64, nightly: i64| AlertState {
        heartbeats: [
            ("alive".to_string(), at(alive)),
            ("nightly".to_string(), at(nightly)),
        ]
        .into(),
        ..AlertState::default()
    };
    let stored = beats(0, 0);
    assert!(is_news(&AlertState::default(), &stored, &policy));
    assert!(!is_news(&stored, &beats(3599, 0), &policy));
    assert!(is_news(&stored, &beats(3600, 0), &policy));
    assert!(is_news(&stored, &beats(300, 1), &policy));
}
