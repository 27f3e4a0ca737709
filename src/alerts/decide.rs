//! What people are told, and when. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::state::{Alert, AlertState, ChannelTrouble, Condition, Seen, Severity};

/// The rule that a channel breaks which cannot be reached.
pub const CHANNEL_FAILS: &str = "ChannelFails";
/// The rule that is broken while the repository, and with it this state, cannot be reached.
pub const UNREACHABLE: &str = "RepositoryUnreachable";
/// The rules that only alerts know.
pub const OWN_RULES: [(&str, &str); 2] = [
    (
        CHANNEL_FAILS,
        "Messages to a channel, or to a heartbeat, do not arrive.",
    ),
    (
        UNREACHABLE,
        "The repository cannot be reached: how all else stands is not known.",
    ),
];

/// Failures in a row from which on the other channels are told.
const CHANNEL_FAILURES: u32 = 2;
/// After the first failure; doubled by each.
const FIRST_REST: TimeDelta = TimeDelta::seconds(30);
const LONGEST_REST: TimeDelta = TimeDelta::minutes(30);
/// What could not be told in so long a time is not told any more.
const GIVE_UP: TimeDelta = TimeDelta::days(1);
/// What is over is shown for so long.
const SHOWN: TimeDelta = TimeDelta::days(7);
/// Messages to a channel at a time, at most: more come with the next look.
const AT_A_TIME: usize = 10;
/// What is not known must hold so many times as long as what is.
const UNKNOWN_HOLDS: u32 = 5;

/// What is said of a rule in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulePolicy {
    pub severity: Option<Severity>,
    pub hold: Option<Duration>,
    pub repeat: Option<Duration>,
    /// Nobody is told.
    pub silent: bool,
    /// Else all.
    pub channels: Option<Vec<String>>,
}

/// A channel, and from which severity on it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub name: String,
    pub least: Severity,
}

/// What is told after each success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub name: String,
    /// Of what.
    pub of: String,
}

/// When whom is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a rule must be broken.
    pub hold: Duration,
    /// Again while it is critical.
    pub repeat_critical: Duration,
    pub repeat_warning: Duration,
    /// What comes again and again is told no more often.
    pub throttle: Duration,
    pub rules: BTreeMap<String, RulePolicy>,
    pub routes: Vec<Route>,
    pub heartbeats: Vec<Heartbeat>,
}

impl Policy {
    fn rule(&self, rule: &str) -> RulePolicy {
        self.rules.get(rule).cloned().unwrap_or_default()
    }

    /// Who is told of an alert. A channel is not told of itself.
    fn channels(&self, alert: &Alert) -> BTreeSet<String> {
        let chosen = self.rule(&alert.rule).channels;
        let is_meant = |route: &&Route| {
            chosen
                .as_ref()
                .map_or(alert.severity >= route.least, |chosen| {
                    chosen.contains(&route.name)
                })
                && !(alert.rule == CHANNEL_FAILS && alert.of == route.name)
        };
        let meant = self.routes.iter().filter(is_meant);
        meant.map(|route| route.name.clone()).collect()
    }

    fn repeat(&self, alert: &Alert) -> Duration {
        let usual = match alert.severity {
            Severity::Critical => self.repeat_critical,
            Severity::Warning => self.repeat_warning,
        };
        self.rule(&alert.rule).repeat.unwrap_or(usual)
    }

    fn hold(&self, condition: &Condition) -> Duration {
        let usual = match condition.is_unknown {
            true => self.hold * UNKNOWN_HOLDS,
            false => self.hold,
        };
        self.rule(&condition.rule).hold.unwrap_or(usual)
    }
}

/// Why nothing else is known.
pub fn unreachable(why: &str) -> Condition {
    Condition {
        rule: UNREACHABLE.into(),
        of: String::new(),
        about: "repository".into(),
        severity: Severity::Critical,
        is_unknown: false,
        what: format!("the repository cannot be reached: {why}"),
        next: "look at the store, then `walden check`".into(),
    }
}

/// The next state: what fires, what is over, and who has to be told.
pub fn decide(state: &AlertState, seen: &Seen, policy: &Policy, now: DateTime<Utc>) -> AlertState {
    let mut next = state.clone();
    next.sender = None;
    next.silences.retain(|_, silence| silence.until > now);
    let is_channel = |name: &String| policy.routes.iter().any(|route| route.name == *name);
    let is_heartbeat = |name: &String| policy.heartbeats.iter().any(|beat| beat.name == *name);
    next.channels
        .retain(|name, _| is_channel(name) || is_heartbeat(name));
    next.heartbeats.retain(|name, _| is_heartbeat(name));
    let mut conditions: Vec<Condition> = seen.conditions.clone();
    conditions.extend(channels_that_fail(&next));
    for condition in &mut conditions {
        let severity = policy.rule(&condition.rule).severity;
        condition.severity = severity.unwrap_or(condition.severity);
    }
    resolve(&mut next, (&conditions, &seen.unjudged), policy, now);
    for condition in &conditions {
        fire(&mut next, condition, policy, now);
    }
    for alert in next.alerts.values_mut() {
        alert.owed.retain(is_channel);
        let told_last = alert.resolved_at.max(alert.told_at);
        if told_last.is_some_and(|told| now - told > GIVE_UP) {
            alert.owed.clear();
        }
    }
    next.alerts.retain(|_, alert| {
        let over = alert.resolved_at;
        over.is_none_or(|over| alert.told_at.is_some() && now - over <= SHOWN)
    });
    next
}

fn channels_that_fail(state: &AlertState) -> impl Iterator<Item = Condition> {
    let troubles = state.channels.iter();
    let failing = troubles.filter(|(_, trouble)| trouble.failures >= CHANNEL_FAILURES);
    failing.map(|(name, trouble)| Condition {
        rule: CHANNEL_FAILS.into(),
        of: name.clone(),
        about: "channels".into(),
        severity: Severity::Warning,
        is_unknown: false,
        what: format!("messages to \"{name}\" do not arrive: {}", trouble.why),
        next: format!("mend it, then `walden alert test {name}`"),
    })
}

/// Ends what is not seen any more, unless it cannot be seen.
fn resolve(
    next: &mut AlertState,
    (seen, unjudged): (&[Condition], &BTreeSet<String>),
    policy: &Policy,
    now: DateTime<Utc>,
) {
    let known: BTreeSet<String> = seen.iter().map(Condition::id).collect();
    let is_hidden = |alert: &Alert| {
        if unjudged.contains(&alert.rule) {
            return true;
        }
        let mut about = seen.iter().filter(|one| one.about == alert.about);
        about.any(|one| one.is_unknown)
    };
    // What got worse is not over.
    let got_worse = |alert: &Alert, before: &AlertState| {
        seen.iter().any(|one| {
            let is_new = before
                .alerts
                .get(&one.id())
                .is_none_or(|known| !known.fires());
            is_new
                && (&one.about, &one.of) == (&alert.about, &alert.of)
                && one.severity >= alert.severity
        })
    };
    let before = next.clone();
    for (id, alert) in &mut next.alerts {
        if !alert.fires() || known.contains(id) || is_hidden(alert) {
            continue;
        }
        alert.resolved_at = Some(now);
        let is_silent = policy.rule(&alert.rule).silent || before.silence(alert, now).is_some();
        let tells = alert.is_told && !is_silent && !got_worse(alert, &before);
        alert.owed = match tells {
            true => policy.channels(alert),
            false => BTreeSet::new(),
        };
    }
}

/// Begins what is new, and says what is to be said of it.
fn fire(next: &mut AlertState, condition: &Condition, policy: &Policy, now: DateTime<Utc>) {
    let known = next.alerts.remove(&condition.id());
    let before = known.as_ref().filter(|known| known.fires());
    let mut alert = Alert {
        rule: condition.rule.clone(),
        of: condition.of.clone(),
        about: condition.about.clone(),
        severity: condition.severity,
        what: condition.what.clone(),
        next: condition.next.clone(),
        since: before.map_or(now, |before| before.since),
        resolved_at: None,
        told_at: known.as_ref().and_then(|known| known.told_at),
        is_told: before.is_some_and(|before| before.is_told),
        owed: before.map(|before| before.owed.clone()).unwrap_or_default(),
    };
    let got_critical = before.is_some_and(|before| before.severity < alert.severity);
    let hold = policy.hold(condition);
    if policy.rule(&alert.rule).silent || next.silence(&alert, now).is_some() {
        // Once the silence ends it is told, if it still fires.
        (alert.is_told, alert.owed) = (false, BTreeSet::new());
    } else if is_due(&alert, got_critical, hold, policy, now) {
        alert.owed = policy.channels(&alert);
        (alert.is_told, alert.told_at) = (true, Some(now));
    } else if let Some(before) = before.filter(|before| before.is_told) {
        // As it was told: an age in it grows all the time, which is no news worth an object.
        (alert.what, alert.next) = (before.what.clone(), before.next.clone());
    }
    next.alerts.insert(condition.id(), alert);
}

/// Whether people are told now, or again.
fn is_due(
    alert: &Alert,
    got_critical: bool,
    hold: Duration,
    policy: &Policy,
    now: DateTime<Utc>,
) -> bool {
    let passed = |span: Duration, since: DateTime<Utc>| {
        (now - since).to_std().is_ok_and(|passed| passed >= span)
    };
    match (alert.is_told, alert.told_at) {
        _ if got_critical => alert.is_told || passed(hold, alert.since),
        (true, told) => told.is_none_or(|told| passed(policy.repeat(alert), told)),
        (false, told) => {
            passed(hold, alert.since) && told.is_none_or(|told| passed(policy.throttle, told))
        }
    }
}

/// What one channel is told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub channel: String,
    /// In this order.
    pub alerts: Vec<Alert>,
}

/// A success that a heartbeat tells now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    pub name: String,
    pub at: DateTime<Utc>,
}

/// What is to be told now.
pub fn due(
    state: &AlertState,
    seen: &Seen,
    policy: &Policy,
    now: DateTime<Utc>,
) -> (Vec<Delivery>, Vec<Beat>) {
    let rests = |name: &str| {
        let trouble = state.channels.get(name);
        trouble.is_some_and(|trouble| trouble.next_try > now)
    };
    let routes = policy.routes.iter().filter(|route| !rests(&route.name));
    let deliveries = routes.filter_map(|route| {
        let all = state.alerts.values();
        let mut alerts: Vec<Alert> = all
            .filter(|alert| alert.owed.contains(&route.name))
            .cloned()
            .collect();
        alerts.sort_by_key(|alert| (!alert.fires(), Reverse(alert.severity), alert.since));
        alerts.truncate(AT_A_TIME);
        let channel = route.name.clone();
        (!alerts.is_empty()).then_some(Delivery { channel, alerts })
    });
    let beats = policy.heartbeats.iter().filter(|beat| !rests(&beat.name));
    let beats = beats.filter_map(|beat| {
        let at = *seen.successes.get(&beat.of)?;
        let told = state.heartbeats.get(&beat.name);
        let name = beat.name.clone();
        told.is_none_or(|told| *told < at)
            .then_some(Beat { name, at })
    });
    (deliveries.collect(), beats.collect())
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub channel: String,
    /// The alerts that arrived, by name.
    pub arrived: Vec<String>,
    /// The success that a heartbeat told.
    pub beat: Option<DateTime<Utc>>,
    /// Why not all did.
    pub failed: Option<String>,
}

/// The state after messages were sent.
pub fn settle(state: &AlertState, outcomes: &[Outcome], now: DateTime<Utc>) -> AlertState {
    let mut next = state.clone();
    next.sender = None;
    for outcome in outcomes {
        for id in &outcome.arrived {
            if let Some(alert) = next.alerts.get_mut(id) {
                alert.owed.remove(&outcome.channel);
            }
        }
        if let (Some(at), None) = (outcome.beat, &outcome.failed) {
            next.heartbeats.insert(outcome.channel.clone(), at);
        }
        let before = next.channels.remove(&outcome.channel);
        if let Some(why) = &outcome.failed {
            let trouble = trouble(before, why, now);
            next.channels.insert(outcome.channel.clone(), trouble);
        }
    }
    next
}

fn trouble(before: Option<ChannelTrouble>, why: &str, now: DateTime<Utc>) -> ChannelTrouble {
    let failures = before
        .as_ref()
        .map_or(1, |before| before.failures.saturating_add(1));
    let rest = FIRST_REST * 2_i32.pow((failures - 1).min(10));
    ChannelTrouble {
        failures,
        since: before.map_or(now, |before| before.since),
        next_try: now + rest.min(LONGEST_REST),
        why: why.to_string(),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
