//! Alerts, as the page shows them. Pure.

use chrono::{DateTime, Utc};

use super::super::known_alerts::KnownAlerts;
use super::words::{When, count};
use crate::alerts::state::{Alert, AlertState, Severity};
use crate::plain::plain;

/// What fires, and what is to be known of it.
pub struct AlertsView {
    /// The worst first.
    pub rows: Vec<AlertView>,
    pub channels: Vec<ChannelView>,
    /// Why there is no row.
    pub nothing: &'static str,
    /// Why what fires is not known any more.
    pub failed: Option<String>,
}

/// A rule that is broken.
pub struct AlertView {
    pub rule: String,
    /// Which one breaks it, where there are several.
    pub of: String,
    pub severity: &'static str,
    /// Of its colour.
    pub class: &'static str,
    pub since: When,
    pub what: String,
    pub next: String,
    /// When people were told last; `None`: they do not know.
    pub told: Option<When>,
    pub silent_until: Option<When>,
    /// Channels that have yet to be told.
    pub waiting: Vec<String>,
}

/// Messages to it do not arrive.
pub struct ChannelView {
    pub name: String,
    pub failures: String,
    pub since: When,
    pub why: String,
}

impl AlertsView {
    /// Of what is known.
    pub fn new(known: &KnownAlerts, now: DateTime<Utc>) -> Self {
        let (state, channels) = (&*known.state, known.state.channels.iter());
        Self {
            rows: state
                .firing()
                .iter()
                .map(|alert| AlertView::new(alert, state, now))
                .collect(),
            channels: channels
                .map(|(name, trouble)| ChannelView {
                    name: name.clone(),
                    failures: count(trouble.failures.into(), "failure"),
                    since: When::of(trouble.since),
                    why: plain(&trouble.why).into(),
                })
                .collect(),
            nothing: match (known.read_at, known.is_watched) {
                (None, _) => "It is not known yet what fires.",
                (Some(_), true) => "Nothing fires.",
                (Some(_), false) => {
                    "Nobody is told when something is wrong: name channels in alerts.file."
                }
            },
            failed: known.failed.clone(),
        }
    }

    /// Something is to be done: it stands above the rest.
    pub fn is_loud(&self) -> bool {
        !self.rows.is_empty() || !self.channels.is_empty() || self.failed.is_some()
    }
}

impl AlertView {
    fn new(alert: &Alert, state: &AlertState, now: DateTime<Utc>) -> Self {
        let silence = state.silence(alert, now);
        Self {
            rule: plain(&alert.rule).into(),
            of: plain(&alert.of).into(),
            severity: alert.severity.name(),
            class: match alert.severity {
                Severity::Critical => "lost",
                Severity::Warning => "changed",
            },
            since: When::of(alert.since),
            what: plain(&alert.what).into(),
            next: plain(&alert.next).into(),
            told: alert.told_at.filter(|_| alert.is_told).map(When::of),
            silent_until: silence.map(|silence| When::of(silence.until)),
            waiting: alert.owed.iter().cloned().collect(),
        }
    }
}
