//! What is over, and only that, is told to be over; what gets worse is not.

use super::*;

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
