//! A channel that fails, refuses a message or belongs to another file loses nothing and holds nothing up.

use super::*;

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
