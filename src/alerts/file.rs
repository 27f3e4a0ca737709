//! The file that says who is told: channels, heartbeats, and what is different for single rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::decide::{Heartbeat, OWN_RULES, Policy, Route, RulePolicy};
use super::message::FIELDS;
use super::state::Severity;
use super::template::Template;
use crate::config::{Alerts, read_duration};
use crate::error::toml_problem;
use crate::health::Rule;

/// What a heartbeat may tell the success of.
pub const SUCCESSES: &[&str] = &[
    "archive",
    "backup",
    "dump",
    "schema-dump",
    "verify",
    "drill",
    "canary",
    "dump-drill",
    "counts",
    "expire",
    "copy",
    "alerts",
];
/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// All channels of a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsFile {
    #[serde(default)]
    pub webhook: Vec<Webhook>,
    #[serde(default)]
    pub slack: Vec<Slack>,
    #[serde(default)]
    pub pagerduty: Vec<Pagerduty>,
    #[serde(default)]
    pub mail: Vec<Mail>,
    #[serde(default)]
    pub command: Vec<Command>,
    #[serde(default)]
    pub heartbeat: Vec<Beat>,
    #[serde(default)]
    rule: Vec<RuleTable>,
}

macro_rules! channel {
    ($($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? })+) => { $(
        $(#[$about])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            pub name: String,
            /// From which severity on it is told.
            #[serde(default = "warning")]
            pub least: Severity,
            $($(#[$doc])* pub $field: $type,)*
        }
    )+ };
}

channel! {
    /// An HTTP request for each message.
    Webhook {
        #[serde(default)] url: Option<String>,
        #[serde(default)] url_file: Option<PathBuf>,
        #[serde(default)] bearer_file: Option<PathBuf>,
        #[serde(default)] ca_file: Option<PathBuf>,
        #[serde(default = "post")] method: String,
        #[serde(default)] headers: BTreeMap<String, String>,
        #[serde(default = "json")] content_type: String,
        /// A template; else all fields as JSON.
        #[serde(default)] body: Option<String>,
    }
    /// An incoming webhook of Slack.
    Slack {
        url_file: PathBuf,
        #[serde(default)] ca_file: Option<PathBuf>,
    }
    /// Events of PagerDuty, version 2.
    Pagerduty {
        /// A file of mode 0600 with the integration key.
        key_file: PathBuf,
        #[serde(default = "pagerduty")] url: String,
        #[serde(default)] ca_file: Option<PathBuf>,
    }
    /// A mail by SMTP.
    Mail {
        host: String,
        #[serde(default)] port: Option<u16>,
        #[serde(default)] tls: MailTls,
        #[serde(default)] user: Option<String>,
        #[serde(default)] password_file: Option<PathBuf>,
        #[serde(default)] ca_file: Option<PathBuf>,
        from: String,
        to: Vec<String>,
    }
    /// A program that gets the message as JSON.
    Command {
        command: Vec<String>,
    }
}

/// How a mail is kept secret on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Begins in the clear, and goes no further without TLS.
    #[default]
    Starttls,
    /// From the first byte on.
    Tls,
    None,
}

/// A URL that is asked after each success.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    pub name: String,
    /// One of [`SUCCESSES`].
    pub of: String,
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    #[serde(default)]
    pub bearer_file: Option<PathBuf>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "get")]
    pub method: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    rule: String,
    severity: Option<Severity>,
    #[serde(default, deserialize_with = "read_duration")]
    hold: Option<Duration>,
    #[serde(default, deserialize_with = "read_duration")]
    repeat: Option<Duration>,
    #[serde(default)]
    silent: bool,
    channels: Option<Vec<String>>,
}

fn warning() -> Severity {
    Severity::Warning
}
fn post() -> String {
    "POST".into()
}
fn get() -> String {
    "GET".into()
}
fn json() -> String {
    "application/json".into()
}
fn pagerduty() -> String {
    PAGERDUTY.into()
}

/// Every rule that alerts know.
pub fn rule_names() -> impl Iterator<Item = &'static str> {
    let own = OWN_RULES.iter().map(|(name, _)| *name);
    Rule::ALL.iter().map(|rule| rule.name()).chain(own)
}

/// The file from its text. Errors: why it cannot be understood.
pub fn parse(text: &str) -> Result<AlertsFile, String> {
    let file: AlertsFile = toml::from_str(text).map_err(|error| toml_problem(text, &error))?;
    file.judge()?;
    Ok(file)
}

impl AlertsFile {
    /// Channels by name, with the least severity of each.
    fn routes(&self) -> Vec<Route> {
        let route = |name: &String, least: Severity| Route {
            name: name.clone(),
            least,
            keeps_open: self.pagerduty.iter().any(|pager| pager.name == *name),
        };
        let mut routes = Vec::new();
        routes.extend(self.webhook.iter().map(|one| route(&one.name, one.least)));
        routes.extend(self.slack.iter().map(|one| route(&one.name, one.least)));
        routes.extend(self.pagerduty.iter().map(|one| route(&one.name, one.least)));
        routes.extend(self.mail.iter().map(|one| route(&one.name, one.least)));
        routes.extend(self.command.iter().map(|one| route(&one.name, one.least)));
        routes
    }

    fn judge(&self) -> Result<(), String> {
        let (routes, mut names) = (self.routes(), BTreeSet::new());
        let all = routes.iter().map(|route| &route.name);
        for name in all.chain(self.heartbeat.iter().map(|beat| &beat.name)) {
            let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(is_word) {
                return Err(format!(
                    "\"{name}\" is no name: letters, digits, \"_\", \"-\" and \".\" make one"
                ));
            }
            if !names.insert(name) {
                return Err(format!("\"{name}\" names two channels or heartbeats"));
            }
        }
        for rule in &self.rule {
            if !rule_names().any(|known| known == rule.rule) {
                return Err(format!(
                    "there is no rule \"{}\"{}",
                    rule.rule,
                    nearest(&rule.rule)
                ));
            }
            let chosen = rule.channels.iter().flatten();
            let unknown = chosen
                .into_iter()
                .find(|name| !routes.iter().any(|route| route.name == **name));
            if let Some(name) = unknown {
                return Err(format!(
                    "rule \"{}\" names channel \"{name}\", which there is not",
                    rule.rule
                ));
            }
        }
        self.judge_channels()
    }

    fn judge_channels(&self) -> Result<(), String> {
        for webhook in &self.webhook {
            one_url(&webhook.name, &webhook.url, &webhook.url_file)?;
            webhook
                .template()
                .map_err(|why| format!("webhook \"{}\": {why}", webhook.name))?;
        }
        for beat in &self.heartbeat {
            one_url(&beat.name, &beat.url, &beat.url_file)?;
            if !SUCCESSES.contains(&&*beat.of) {
                return Err(format!(
                    "heartbeat \"{}\" is of \"{}\": it can be of {}",
                    beat.name,
                    beat.of,
                    SUCCESSES.join(", ")
                ));
            }
        }
        if let Some(mail) = self.mail.iter().find(|mail| mail.to.is_empty()) {
            return Err(format!("mail \"{}\" goes to nobody", mail.name));
        }
        let in_clear = |mail: &&Mail| mail.tls == MailTls::None && mail.password_file.is_some();
        if let Some(mail) = self.mail.iter().find(in_clear) {
            return Err(format!(
                "mail \"{}\" would send a password without TLS",
                mail.name
            ));
        }
        match self.command.iter().find(|one| one.command.is_empty()) {
            Some(command) => Err(format!("command \"{}\" names no program", command.name)),
            None => Ok(()),
        }
    }

    /// When whom is told.
    pub fn policy(&self, settings: &Alerts) -> Policy {
        let rule = |table: &RuleTable| {
            let policy = RulePolicy {
                severity: table.severity,
                hold: table.hold,
                repeat: table.repeat,
                silent: table.silent,
                channels: table.channels.clone(),
            };
            (table.rule.clone(), policy)
        };
        let beat = |beat: &Beat| Heartbeat {
            name: beat.name.clone(),
            of: beat.of.clone(),
        };
        Policy {
            hold: settings.hold,
            repeat_critical: settings.repeat_critical,
            repeat_warning: settings.repeat_warning,
            throttle: settings.throttle,
            rules: self.rule.iter().map(rule).collect(),
            routes: self.routes(),
            heartbeats: self.heartbeat.iter().map(beat).collect(),
        }
    }
}

impl Webhook {
    /// What the body is made of. Errors: a field that there is not.
    pub fn template(&self) -> Result<Option<Template>, String> {
        self.body
            .as_ref()
            .map(|body| Template::parse(body, FIELDS))
            .transpose()
    }
}

fn one_url(name: &str, url: &Option<String>, file: &Option<PathBuf>) -> Result<(), String> {
    match (url, file) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err(format!("\"{name}\" needs one of url and url_file")),
    }
}

fn nearest(name: &str) -> String {
    let near = rule_names().max_by(|a, b| {
        let [a, b] = [a, b].map(|known| strsim::jaro_winkler(known, name));
        a.total_cmp(&b)
    });
    near.map(|near| format!(": do you mean {near}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::defaults;

    const FILE: &str = r#"
        [[webhook]]
        name = "ops"
        url = "https://ops.example/hook"
        headers = { "X-Team" = "db" }
        body = '{"text": "{{title}}"}'
        [[slack]]
        name = "slack"
        url_file = "/etc/walden/slack.url"
        least = "critical"
        [[heartbeat]]
        name = "nightly"
        of = "backup"
        url = "https://hc.example/1"
        [[rule]]
        rule = "DumpOld"
        severity = "critical"
        repeat = "30m"
        channels = ["slack"]
    "#;

    #[test]
    fn a_file_says_who_is_told_and_when() {
        let policy = parse(FILE).unwrap().policy(&defaults().alerts);
        let routes: Vec<_> = policy
            .routes
            .iter()
            .map(|route| (&*route.name, route.least))
            .collect();
        assert_eq!(
            routes,
            [("ops", Severity::Warning), ("slack", Severity::Critical)]
        );
        let dump = &policy.rules["DumpOld"];
        assert_eq!(dump.repeat, Some(Duration::from_secs(1800)));
        assert_eq!(policy.repeat_critical, Duration::from_secs(4 * 3600));
        assert_eq!(policy.heartbeats[0].of, "backup");
        assert!(
            parse("")
                .unwrap()
                .policy(&defaults().alerts)
                .routes
                .is_empty()
        );
    }

    #[test]
    fn the_file_that_is_shipped_is_understood() {
        let policy = parse(include_str!("../../deploy/alerts.toml")).unwrap();
        let policy = policy.policy(&defaults().alerts);
        assert_eq!((policy.routes.len(), policy.heartbeats.len()), (5, 2));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let hook = "[[webhook]]\nname = \"a\"\nurl = \"http://x\"\n";
        let mail = "[[mail]]\nname = \"m\"\nhost = \"h\"\nfrom = \"a@b\"\n";
        for (text, why) in [
            (format!("{hook}nmae = \"b\""), "unknown field"),
            (format!("{hook}url_file = \"/x\""), "needs one of url"),
            (
                format!("{hook}body = \"{{{{whta}}}}\""),
                "no field \"whta\"",
            ),
            (format!("{hook}{hook}"), "names two channels"),
            (
                "[[webhook]]\nname = \"a b\"\nurl = \"http://x\"".into(),
                "is no name",
            ),
            (
                "[[rule]]\nrule = \"DumpOdl\"".into(),
                "do you mean DumpOld?",
            ),
            (
                "[[rule]]\nrule = \"DumpOld\"\nchannels = [\"x\"]".into(),
                "which there is not",
            ),
            (
                "[[rule]]\nrule = \"DumpOld\"\nrepeat = \"often\"".into(),
                "is no span",
            ),
            (format!("{mail}to = []"), "goes to nobody"),
            (
                format!("{mail}to = [\"a@b\"]\ntls = \"none\"\npassword_file = \"/x\""),
                "without TLS",
            ),
            (
                "[[command]]\nname = \"c\"\ncommand = []".into(),
                "names no program",
            ),
            (
                "[[heartbeat]]\nname = \"h\"\nof = \"bakcup\"\nurl = \"http://x\"".into(),
                "it can be of",
            ),
        ] {
            let told = parse(&text).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
