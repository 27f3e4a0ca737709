//! What is said of an alert, in the form of each channel. Pure.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::state::{Alert, Severity};
use super::template::{Escape, Template};
use crate::plain::plain;

/// What a template may name; also the keys of the JSON that webhooks and commands get.
pub const FIELDS: &[&str] = &[
    "status",
    "severity",
    "alert",
    "rule",
    "of",
    "cluster",
    "repository",
    "host",
    "what",
    "next",
    "since",
    "resolved_at",
    "title",
];

/// Characters that PagerDuty takes for a summary.
const LONGEST_SUMMARY: usize = 1024;

/// Whose alerts they are.
#[derive(Debug, Clone)]
pub struct Origin {
    pub cluster: String,
    pub repository: String,
    /// Of whoever tells.
    pub host: String,
}

/// One alert as people are told.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// `firing` or `resolved`.
    pub status: &'static str,
    pub severity: Severity,
    /// The alert's name: the rule, and which one breaks it.
    pub alert: String,
    pub rule: String,
    pub of: String,
    pub cluster: String,
    pub repository: String,
    pub host: String,
    pub what: String,
    pub next: String,
    pub since: String,
    /// Empty while it fires.
    pub resolved_at: String,
    /// All in one line.
    pub title: String,
}

impl Message {
    /// What is said of an alert.
    pub fn new(alert: &Alert, origin: &Origin) -> Self {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let status = if alert.fires() { "firing" } else { "resolved" };
        let what = plain(&alert.what).into_owned();
        let id = alert.id();
        Self {
            status,
            severity: alert.severity,
            title: format!("{}: {status}: {id}: {what}", origin.cluster),
            alert: id,
            rule: alert.rule.clone(),
            of: alert.of.clone(),
            cluster: origin.cluster.clone(),
            repository: origin.repository.clone(),
            host: origin.host.clone(),
            what,
            next: alert.next.clone(),
            since: time(alert.since),
            resolved_at: alert.resolved_at.map(time).unwrap_or_default(),
        }
    }

    /// A field as text.
    fn field(&self, name: &str) -> String {
        let all = serde_json::to_value(self).unwrap_or_default();
        all[name].as_str().unwrap_or_default().to_string()
    }

    /// The body of a webhook.
    pub fn filled(&self, template: Option<&Template>, escape: Escape) -> String {
        match template {
            Some(template) => template.fill(escape, |field| self.field(field)),
            None => self.json(),
        }
    }

    /// All fields as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For an incoming webhook of Slack.
    pub fn slack(&self) -> Value {
        let color = match (self.status, self.severity) {
            ("resolved", _) => "good",
            (_, Severity::Warning) => "warning",
            (_, Severity::Critical) => "danger",
        };
        let mut text = escaped(&self.what);
        if self.status == "firing" {
            text += &format!("\nNext: {}", escaped(&self.next));
        }
        let head = format!("{} {}: {}", self.cluster, self.status, self.alert);
        json!({
            "text": escaped(&head),
            "attachments": [{
                "color": color,
                "fallback": escaped(&self.title),
                "text": text,
                "footer": escaped(&format!("{} · since {} · {}", self.severity.name(), self.since, self.host)),
            }],
        })
    }

    /// For version 2 of PagerDuty's events.
    pub fn pagerduty(&self, routing_key: &str) -> Value {
        let action = match self.status {
            "firing" => "trigger",
            _ => "resolve",
        };
        json!({
            "routing_key": routing_key,
            "event_action": action,
            "dedup_key": self.dedup_key(),
            "client": "Walden",
            "payload": {
                "summary": self.title.chars().take(LONGEST_SUMMARY).collect::<String>(),
                "source": self.host,
                "severity": self.severity.name(),
                "timestamp": self.since,
                "component": self.cluster,
                "group": self.repository,
                "class": self.rule,
                "custom_details": self,
            },
        })
    }

    /// The same for each message about one alert. PagerDuty takes 255 characters.
    fn dedup_key(&self) -> String {
        let key = format!("walden {} {} {}", self.repository, self.cluster, self.alert);
        match key.chars().count() {
            0..=255 => key,
            _ => crate::codec::Digest::of(key.as_bytes()).to_string(),
        }
    }

    /// Subject and text of a mail.
    pub fn mail(&self) -> (String, String) {
        let subject = format!(
            "[walden {}] {} {}: {}",
            self.cluster,
            self.status,
            self.severity.name(),
            self.alert
        );
        let mut text = format!("{}\n", self.what);
        if self.status == "firing" {
            text += &format!("\nNext: {}\n", self.next);
        }
        text += &format!(
            "\ncluster    {}\nrepository {}\nhost       {}\n",
            self.cluster, self.repository, self.host
        );
        text += &format!("since      {}\n", self.since);
        if !self.resolved_at.is_empty() {
            text += &format!("resolved   {}\n", self.resolved_at);
        }
        (subject, text)
    }
}

/// What Slack takes for markup is shown as it is.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// An alert that fires.
    pub fn alert(rule: &str, of: &str) -> Alert {
        Alert {
            rule: rule.into(),
            of: of.into(),
            about: "jobs".into(),
            severity: Severity::Critical,
            what: "job \"<dump>\" failed".into(),
            next: "look".into(),
            since: DateTime::UNIX_EPOCH,
            resolved_at: None,
            told_at: None,
            is_told: false,
            owed: BTreeSet::new(),
            heard: BTreeSet::new(),
        }
    }

    pub fn origin() -> Origin {
        Origin {
            cluster: "main".into(),
            repository: "file:///srv/walden".into(),
            host: "db1".into(),
        }
    }

    #[test]
    fn a_message_has_all_fields_and_no_others() {
        let message = Message::new(&alert("JobFailed", "dump"), &origin());
        let value: Value = serde_json::from_str(&message.json()).unwrap();
        let keys: BTreeSet<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(keys, FIELDS.iter().copied().collect());
        assert_eq!(value["alert"], "JobFailed/dump");
        let all = FIELDS
            .iter()
            .map(|field| format!("{{{{{field}}}}}\n"))
            .collect::<String>();
        let template = Template::parse(&all, FIELDS).unwrap();
        let filled = message.filled(Some(&template), Escape::None);
        assert!(
            filled.starts_with("firing\ncritical\nJobFailed/dump\n"),
            "{filled}"
        );
    }

    #[test]
    fn slack_takes_no_markup_from_data() {
        let slack = Message::new(&alert("JobFailed", "dump"), &origin()).slack();
        let text = slack["attachments"][0]["text"].as_str().unwrap();
        assert_eq!(text, "job \"&lt;dump&gt;\" failed\nNext: look");
        assert_eq!(slack["attachments"][0]["color"], "danger");
    }

    #[test]
    fn pagerduty_knows_an_incident_again_when_it_is_over() {
        let mut over = alert("JobFailed", &"x".repeat(300));
        let begun = Message::new(&over, &origin()).pagerduty("key");
        over.resolved_at = Some(DateTime::UNIX_EPOCH);
        let ended = Message::new(&over, &origin()).pagerduty("key");
        assert_eq!(
            (&begun["event_action"], &ended["event_action"]),
            (&json!("trigger"), &json!("resolve"))
        );
        assert_eq!(begun["dedup_key"], ended["dedup_key"]);
        assert!(begun["dedup_key"].as_str().unwrap().len() <= 255);
        assert_eq!(begun["payload"]["severity"], "critical");
    }

    #[test]
    fn a_mail_says_what_to_do_next_as_long_as_it_fires() {
        let mut alert = alert("DiskFull", "");
        let (subject, text) = Message::new(&alert, &origin()).mail();
        assert_eq!(subject, "[walden main] firing critical: DiskFull");
        assert!(
            text.contains("Next: look") && !text.contains("resolved"),
            "{text}"
        );
        alert.resolved_at = Some(DateTime::UNIX_EPOCH);
        let (subject, text) = Message::new(&alert, &origin()).mail();
        assert!(
            subject.contains("resolved") && !text.contains("Next:"),
            "{text}"
        );
    }
}
