//! What people are told, and when. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::state::{
    Alert, AlertState, ChannelTrouble, Condition, LONGEST_REST, SKEW, Seen, Severity, WORSE, id,
};

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
        "The repository cannot be reached, or the alerts in it cannot be judged.",
    ),
];

/// Failures in a row from which on the other channels are told.
const CHANNEL_FAILURES: u32 = 2;
/// After the first failure; doubled by each.
const FIRST_REST: TimeDelta = TimeDelta::seconds(30);
/// What could not be told in so long a time is not told any more.
const GIVE_UP: TimeDelta = TimeDelta::days(1);
/// What is over is shown for so long.
const SHOWN: TimeDelta = TimeDelta::days(7);
/// Messages to a channel at a time, at most: more come with the next look.
const AT_A_TIME: usize = 10;
/// What is not known must hold so many times as long as what is.
const UNKNOWN_HOLDS: u32 = 5;
/// Successes that go on all the time, and how often these are stored.
const GOING_ON: [&str; 2] = ["archive", "alerts"];
const BEAT_STORED: TimeDelta = TimeDelta::hours(1);

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
    /// What begins there stays open until its end is told.
    pub keeps_open: bool,
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

    /// Nothing is to be told, whatever happens.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.heartbeats.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.routes.iter().any(|route| route.name == name)
            || self.heartbeats.iter().any(|beat| beat.name == name)
    }

    fn keeps_open(&self, name: &str) -> bool {
        let mut named = self.routes.iter().filter(|route| route.name == name);
        named.any(|route| route.keeps_open)
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
pub fn unreachable(what: &str) -> Condition {
    Condition {
        rule: UNREACHABLE.into(),
        of: String::new(),
        about: "repository".into(),
        severity: Severity::Critical,
        is_unknown: false,
        what: what.to_string(),
        next: "look at the store, then `walden check`".into(),
    }
}

/// The next state: what fires, what is over, and who has to be told. What belongs to channels that this policy lacks stays:
/// whoever has them goes on with it.
pub fn decide(state: &AlertState, seen: &Seen, policy: &Policy, now: DateTime<Utc>) -> AlertState {
    let mut next = state.not_ahead(now);
    next.sender = None;
    next.silences.retain(|_, silence| silence.until > now);
    next.channels
        .retain(|name, trouble| policy.has(name) || now - trouble.next_try <= GIVE_UP);
    let mut conditions: Vec<Condition> = seen.conditions.clone();
    conditions.extend(channels_that_fail(&next).filter(|one| policy.has(&one.of)));
    for condition in &mut conditions {
        let severity = policy.rule(&condition.rule).severity;
        condition.severity = severity.unwrap_or(condition.severity);
    }
    for condition in &conditions {
        fire(&mut next, condition, policy, now);
    }
    resolve(&mut next, (&conditions, &seen.unjudged), policy, now);
    for alert in next.alerts.values_mut() {
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
    let before = next.clone();
    let is_hidden = |alert: &Alert| {
        // Of a channel that this policy lacks.
        let fails_elsewhere =
            alert.rule == CHANNEL_FAILS && before.channels.contains_key(&alert.of);
        if unjudged.contains(&alert.rule) || fails_elsewhere {
            return true;
        }
        let mut about = seen.iter().filter(|one| one.about == alert.about);
        about.any(|one| one.is_unknown)
    };
    // What got worse is not over for those who hear of that now.
    let hears_worse = |alert: &Alert, name: &String| {
        let mut worse = WORSE.iter().filter(|(milder, _)| *milder == alert.rule);
        worse.any(|(_, worse)| {
            let worse = before.alerts.get(&id(worse, &alert.of));
            worse.is_some_and(|worse| {
                worse.fires() && worse.told_at == Some(now) && worse.owed.contains(name)
            })
        })
    };
    for (id, alert) in &mut next.alerts {
        if !alert.fires() || known.contains(id) || is_hidden(alert) {
            continue;
        }
        alert.resolved_at = Some(now);
        let is_quiet = !alert.is_told
            || policy.rule(&alert.rule).silent
            || before.silence(alert, now).is_some();
        let is_told =
            |name: &&String| policy.keeps_open(name) || !(is_quiet || hears_worse(alert, name));
        alert.owed = alert.heard.iter().filter(is_told).cloned().collect();
    }
}

/// Begins what is new, and says what is to be said of it.
fn fire(next: &mut AlertState, condition: &Condition, policy: &Policy, now: DateTime<Utc>) {
    let known = next.alerts.remove(&condition.id());
    let before = known.as_ref().filter(|known| known.fires());
    let growth = growth(before, next, condition, policy);
    let mut alert = condition.alert(known.as_ref(), now);
    let is_quiet = policy.rule(&alert.rule).silent || next.silence(&alert, now).is_some();
    let hold = policy.hold(condition);
    let told = match !is_quiet && is_due(&alert, growth, hold, policy, now) {
        true => policy.channels(&alert),
        false => BTreeSet::new(),
    };
    if is_quiet {
        // Once the silence ends it is told, if it still fires.
        (alert.is_told, alert.owed) = (false, BTreeSet::new());
    }
    if !told.is_empty() {
        alert.owed.extend(told.iter().cloned());
        alert.heard.extend(told);
        (alert.is_told, alert.told_at) = (true, Some(now));
    } else if let Some(before) = before.filter(|before| {
        before.is_told || without_numbers(&before.what).eq(without_numbers(&alert.what))
    }) {
        // As it was: an age in it grows all the time, which is no news worth an object.
        (alert.what, alert.next) = (before.what.clone(), before.next.clone());
    }
    next.alerts.insert(condition.id(), alert);
}

fn without_numbers(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_ascii_digit() && *c != '.')
}

/// Whether it is what people know already, got worse. A hold of its own is waited for.
fn follows_what_was_told(state: &AlertState, condition: &Condition, policy: &Policy) -> bool {
    let mut milder = WORSE.iter().filter(|(_, worse)| *worse == condition.rule);
    let is_told = |milder: &str| {
        let milder = state.alerts.get(&id(milder, &condition.of));
        milder.is_some_and(|milder| milder.fires() && milder.is_told)
    };
    policy.rule(&condition.rule).hold.is_none() && milder.any(|(milder, _)| is_told(milder))
}

/// Whether something got worse since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    None,
    /// People do not know of it yet.
    Untold,
    Told,
}

fn growth(
    before: Option<&Alert>,
    state: &AlertState,
    condition: &Condition,
    policy: &Policy,
) -> Growth {
    match before {
        Some(before) if before.severity >= condition.severity => Growth::None,
        Some(before) if before.is_told => Growth::Told,
        Some(_) => Growth::Untold,
        None if follows_what_was_told(state, condition, policy) => Growth::Told,
        None => Growth::None,
    }
}

/// Whether people are told now, or again.
fn is_due(
    alert: &Alert,
    growth: Growth,
    hold: Duration,
    policy: &Policy,
    now: DateTime<Utc>,
) -> bool {
    let passed = |span: Duration, since: DateTime<Utc>| {
        (now - since).to_std().is_ok_and(|passed| passed >= span)
    };
    match (growth, alert.is_told, alert.told_at) {
        (Growth::Told, ..) => true,
        (Growth::Untold, ..) => passed(hold, alert.since),
        (_, true, told) => told.is_none_or(|told| passed(policy.repeat(alert), told)),
        (_, false, told) => {
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

/// What a channel is told now, in this order.
fn owed(state: &AlertState, channel: &str, now: DateTime<Utc>) -> Vec<Alert> {
    let trouble = state.channels.get(channel);
    let rests = trouble.is_some_and(|trouble| trouble.next_try > now);
    let refused = trouble.map(|trouble| &trouble.refused);
    let is_refused = |alert: &Alert| refused.is_some_and(|all| all.contains(&alert.id()));
    // Where single messages were refused, the others do not wait.
    let takes_others = refused.is_some_and(|all| !all.is_empty());
    let waits = |alert: &Alert| rests && (!takes_others || is_refused(alert));
    let all = state.alerts.values();
    let mut alerts: Vec<Alert> = all
        .filter(|alert| alert.owed.contains(channel) && !waits(alert))
        .cloned()
        .collect();
    alerts.sort_by_key(|alert| {
        let severity = Reverse(alert.severity);
        (is_refused(alert), !alert.fires(), severity, alert.since)
    });
    alerts.truncate(AT_A_TIME);
    alerts
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
    let deliveries = policy.routes.iter().filter_map(|route| {
        let alerts = owed(state, &route.name, now);
        let channel = route.name.clone();
        (!alerts.is_empty()).then_some(Delivery { channel, alerts })
    });
    let beats = policy.heartbeats.iter().filter(|beat| !rests(&beat.name));
    let beats = beats.filter_map(|beat| {
        // One that a clock ahead gave is known to be so when its time has come.
        let at = *seen.successes.get(&beat.of)?;
        let told = state.heartbeats.get(&beat.name);
        let name = beat.name.clone();
        (at <= now + SKEW && told.is_none_or(|told| *told < at)).then_some(Beat { name, at })
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
    /// The alerts that it refused to take, where it answered to all.
    pub refused: Vec<String>,
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
        let refused_before = before.as_ref().map(|before| before.refused.clone());
        let mut refused = refused_before.unwrap_or_default();
        refused.extend(outcome.refused.iter().cloned());
        refused.retain(|id| {
            let alert = next.alerts.get(id);
            alert.is_some_and(|alert| alert.owed.contains(&outcome.channel))
        });
        let after = match &outcome.failed {
            Some(why) => Some(trouble(before, why, now)),
            None => before.filter(|_| !refused.is_empty()),
        };
        if let Some(mut trouble) = after {
            if outcome.failed.is_some() && outcome.refused.is_empty() {
                refused.clear();
            }
            trouble.refused = refused;
            next.channels.insert(outcome.channel.clone(), trouble);
        }
    }
    next
}

/// Whether what was sent is to be stored. What goes on all the time is told every few minutes, and stored each hour.
pub fn is_news(stored: &AlertState, next: &AlertState, policy: &Policy) -> bool {
    let mut quiet = next.clone();
    for beat in &policy.heartbeats {
        let told = stored.heartbeats.get(&beat.name);
        if let (true, Some(told)) = (GOING_ON.contains(&&*beat.of), told) {
            let at = quiet.heartbeats.get_mut(&beat.name);
            if let Some(at) = at.filter(|at| **at - *told < BEAT_STORED) {
                *at = *told;
            }
        }
    }
    quiet != *stored
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
        refused: BTreeSet::new(),
    }
}

#[cfg(test)]
#[path = "decide_tests/mod.rs"]
mod tests;
