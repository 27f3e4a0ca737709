//! Heartbeats tell each success once, and those that go on all the time are stored each hour.

use super::*;

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
