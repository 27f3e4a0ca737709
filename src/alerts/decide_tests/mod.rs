//! What people are told, look after look, over channels that work or do not.

mod channels;
mod heartbeats;
mod over;
mod told;

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
