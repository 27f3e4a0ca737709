//! What fires, and who was told.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};

use crate::alerts::state::{Alert, AlertState, ChannelTrouble, Severity, Silence};

answer! {
    /// What fires, who was told, and who cannot be.
    pub struct FiringAlerts {
        /// Whether anybody judges and tells people. While nobody does nothing fires, whatever happens.
        watched: bool,
        /// What fires, the worst and oldest first.
        firing: Vec<FiringAlert>,
        /// What is over since seven days at most, the latest first.
        over: Vec<FiringAlert>,
        /// Channels and heartbeats whose last messages did not arrive.
        failing_channels: Vec<FailingChannel>,
        silences: Vec<SilencedAlert>,
    }

    /// A rule that is broken, or was.
    pub struct FiringAlert {
        /// The rule, and which one breaks it.
        #[schema(example = "JobFailed/dump")]
        name: String,
        #[schema(example = "JobFailed")]
        rule: String,
        /// Which one breaks it, where there are several.
        of?: String,
        /// What is judged.
        about: String,
        severity: Severity,
        what: String,
        /// The next step.
        next: String,
        /// Since when the rule is broken.
        since: DateTime<Utc>,
        /// When it was not broken any more.
        resolved_at?: DateTime<Utc>,
        /// Whether people were told since it is broken.
        told: bool,
        /// When they were told last that it is broken.
        last_told_at?: DateTime<Utc>,
        /// Channels that have yet to be told.
        waiting_channels: Vec<String>,
        /// Until then nobody is told.
        silenced_until?: DateTime<Utc>,
    }

    /// Messages to it do not arrive.
    pub struct FailingChannel {
        channel: String,
        /// In a row.
        failures: u32,
        since: DateTime<Utc>,
        /// Not before this it is tried again.
        next_try: DateTime<Utc>,
        why: String,
    }

    /// Somebody does not want to be told.
    pub struct SilencedAlert {
        /// The alert, or the rule for all of its alerts.
        alert: String,
        until: DateTime<Utc>,
        by: String,
        reason?: String,
    }
}

impl FiringAlerts {
    /// Of what is stored. `watched`: somebody judges.
    pub fn new(state: &AlertState, watched: bool, now: DateTime<Utc>) -> Self {
        let entry = |alert: &Alert| FiringAlert::new(alert, state.silence(alert, now));
        let mut over: Vec<&Alert> = state
            .alerts
            .values()
            .filter(|alert| !alert.fires())
            .collect();
        over.sort_by_key(|alert| Reverse(alert.resolved_at));
        let silences = state.silences.iter();
        Self {
            watched,
            firing: state.firing().into_iter().map(entry).collect(),
            over: over.into_iter().map(entry).collect(),
            failing_channels: state.channels.iter().map(FailingChannel::from).collect(),
            silences: silences
                .filter(|(_, silence)| silence.until > now)
                .map(SilencedAlert::from)
                .collect(),
        }
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

impl FiringAlert {
    fn new(alert: &Alert, silence: Option<&Silence>) -> Self {
        Self {
            name: alert.id(),
            rule: alert.rule.clone(),
            of: given(&alert.of),
            about: alert.about.clone(),
            severity: alert.severity,
            what: alert.what.clone(),
            next: alert.next.clone(),
            since: alert.since,
            resolved_at: alert.resolved_at,
            told: alert.is_told,
            last_told_at: alert.told_at,
            waiting_channels: alert.owed.iter().cloned().collect(),
            silenced_until: silence.map(|silence| silence.until),
        }
    }
}

impl From<(&String, &ChannelTrouble)> for FailingChannel {
    fn from((channel, trouble): (&String, &ChannelTrouble)) -> Self {
        Self {
            channel: channel.clone(),
            failures: trouble.failures,
            since: trouble.since,
            next_try: trouble.next_try,
            why: trouble.why.clone(),
        }
    }
}

impl From<(&String, &Silence)> for SilencedAlert {
    fn from((alert, silence): (&String, &Silence)) -> Self {
        Self {
            alert: alert.clone(),
            until: silence.until,
            by: silence.by.clone(),
            reason: given(&silence.reason),
        }
    }
}
