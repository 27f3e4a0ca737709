//! What is shipped for Prometheus and Grafana: an alert for each rule of `crate::health`, those for what no rule sees, what
//! tests them, and a dashboard. All ask for figures that there are.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::tests::Door;
use super::tests::figures::pushed_with_all;
use crate::config::testing::assert_fresh;
use crate::health::{Level, Rule};

const RULES: &str = "deploy/prometheus/walden.rules.yml";
const RULES_TEST: &str = "deploy/prometheus/walden.rules.test.yml";
const DASHBOARD: &str = include_str!("../../deploy/grafana/walden.json");

struct Alert {
    name: String,
    level: Level,
    expression: String,
    /// Minutes that it holds before somebody is told.
    hold: u32,
    summary: &'static str,
    /// Of its test: what is seen, without the label `cluster`, and its values.
    seen: Vec<(String, String)>,
    /// From this minute of its test on.
    from: u32,
    /// Labels that it has beside its severity.
    labels: Vec<(&'static str, String)>,
}

impl From<Rule> for Alert {
    fn from(rule: Rule) -> Self {
        let (name, level) = (rule.name().to_string(), rule.level());
        let series = format!("walden_health_rule{{rule=\"{name}\"}}");
        let (value, hold) = match level {
            Level::Good | Level::Warning => (1, 5),
            Level::Critical => (2, 1),
            Level::Unknown => (3, 15),
        };
        Self {
            expression: format!("{series} > 0"),
            seen: vec![(series, format!("0 0 {value}x30"))],
            labels: vec![("cluster", "main".into()), ("rule", name.clone())],
            name: format!("Walden{name}"),
            level,
            hold,
            summary: rule.summary(),
            from: 2,
        }
    }
}

/// What no rule of ours can see.
struct Beyond {
    name: &'static str,
    level: Level,
    expression: &'static str,
    hold: u32,
    summary: &'static str,
    seen: &'static [(&'static str, &'static str)],
    from: u32,
    labels: &'static [(&'static str, &'static str)],
}

const BEYOND_RULES: [Beyond; 5] = [
    Beyond {
        name: "WaldenDown",
        level: Level::Critical,
        expression: "absent(walden_start_timestamp_seconds or walden_pushed_timestamp_seconds)",
        hold: 5,
        summary: "No walden serve is scraped, and no figures are pushed: nobody knows how it stands.",
        seen: &[],
        from: 0,
        labels: &[],
    },
    Beyond {
        name: "WaldenPushOld",
        level: Level::Warning,
        expression: "time() - walden_pushed_timestamp_seconds > 7200",
        hold: 5,
        summary: "The figures that were pushed are older than two hours: all other alerts judge old data.",
        seen: &[("walden_pushed_timestamp_seconds", "0x150")],
        from: 121,
        labels: &[("cluster", "main")],
    },
    Beyond {
        name: "WaldenRepositoryUnreadable",
        level: Level::Critical,
        expression: "walden_repository_unreadable > 0",
        hold: 15,
        summary: "The repository cannot be read: what all other alerts judge grows old.",
        seen: &[("walden_repository_unreadable", "0 0 1x30")],
        from: 2,
        labels: &[("cluster", "main")],
    },
    Beyond {
        name: "WaldenArchivingFails",
        level: Level::Critical,
        expression: "increase(walden_archive_failed_files_total[10m]) > 0 unless increase(walden_archive_stored_files_total[10m]) > 0",
        hold: 5,
        summary: "WAL files could not be stored, and none was, for 10 minutes.",
        seen: &[
            ("walden_archive_failed_files_total", "0+1x30"),
            ("walden_archive_stored_files_total", "7x30"),
        ],
        from: 1,
        labels: &[("cluster", "main")],
    },
    Beyond {
        name: "WaldenChannelFails",
        level: Level::Warning,
        expression: "walden_alert_channel_failures > 1",
        hold: 5,
        summary: "Walden's own messages to a channel do not arrive.",
        seen: &[(
            "walden_alert_channel_failures{channel=\"ops\"}",
            "0 1 2+1x30",
        )],
        from: 2,
        labels: &[("channel", "ops"), ("cluster", "main")],
    },
];

impl From<&Beyond> for Alert {
    fn from(beyond: &Beyond) -> Self {
        let seen = beyond.seen.iter();
        let labels = beyond.labels.iter();
        Self {
            name: beyond.name.into(),
            level: beyond.level,
            expression: beyond.expression.into(),
            hold: beyond.hold,
            summary: beyond.summary,
            seen: seen
                .map(|(series, values)| ((*series).into(), (*values).into()))
                .collect(),
            from: beyond.from,
            labels: labels
                .map(|(name, value)| (*name, (*value).into()))
                .collect(),
        }
    }
}

fn alerts() -> Vec<Alert> {
    let rules = Rule::ALL.iter().copied().map(Alert::from);
    rules.chain(BEYOND_RULES.iter().map(Alert::from)).collect()
}

const DESCRIPTION: &str = "The next step: `walden status`, `walden check`.";

impl Alert {
    fn severity(&self) -> &'static str {
        match self.level {
            Level::Critical => "critical",
            Level::Good | Level::Warning | Level::Unknown => "warning",
        }
    }

    /// Where nothing is there, nobody knows whose it is.
    fn names_cluster(&self) -> bool {
        self.labels.iter().any(|(name, _)| *name == "cluster")
    }

    fn rule(&self) -> String {
        let whose = match self.names_cluster() {
            true => "{{ $labels.cluster }}: ",
            false => "",
        };
        let (name, hold, severity) = (&self.name, self.hold, self.severity());
        let (expression, summary) = (&self.expression, self.summary);
        format!(
            "      - alert: {name}\n        expr: {expression}\n        for: {hold}m\n        labels:\n          \
             severity: {severity}\n        annotations:\n          summary: \"{whose}{summary}\"\n          \
             description: \"{DESCRIPTION}\"\n"
        )
    }

    /// That it is told once it holds, and not a minute before.
    fn test(&self) -> String {
        let mut text = format!("  - name: {}\n    interval: 1m\n", self.name);
        if !self.seen.is_empty() {
            text += "    input_series:\n";
        }
        for (series, values) in &self.seen {
            let series = match series.split_once('{') {
                Some((name, labels)) => format!("{name}{{cluster=\"main\",{labels}"),
                None => format!("{series}{{cluster=\"main\"}}"),
            };
            let _ = writeln!(text, "      - {{series: '{series}', values: '{values}'}}");
        }
        let told = self.from + self.hold;
        let whose = if self.names_cluster() { "main: " } else { "" };
        let labels = self.labels.iter();
        let labels: String = labels
            .map(|(name, value)| format!(", {name}: {value}"))
            .collect();
        let (name, severity, summary) = (&self.name, self.severity(), self.summary);
        let _ = write!(
            text,
            "    alert_rule_test:\n      - {{eval_time: {}m, alertname: {name}}}\n      - eval_time: {told}m\n        \
             alertname: {name}\n        exp_alerts:\n          - exp_labels: {{severity: {severity}{labels}}}\n            \
             exp_annotations: {{summary: \"{whose}{summary}\", description: \"{DESCRIPTION}\"}}\n",
            told - 1
        );
        text
    }
}

#[test]
fn the_file_of_alerts_in_the_tree_is_fresh() {
    let rules: String = alerts().iter().map(Alert::rule).collect();
    let head = "# Alerts for Prometheus. Each rule of `walden check` has one: the service judges by section [health] of\n\
                # its settings, so set limits there, not here. docs/operations/monitoring.md\n\
                groups:\n  - name: walden\n    rules:\n";
    assert_fresh(RULES, &format!("{head}{rules}"));
}

#[test]
fn the_tests_of_the_alerts_in_the_tree_is_fresh() {
    let tests: String = alerts().iter().map(Alert::test).collect();
    let head = "# Tests of walden.rules.yml: `promtool test rules walden.rules.test.yml`.\n\
                rule_files: [walden.rules.yml]\nevaluation_interval: 1m\ntests:\n";
    assert_fresh(RULES_TEST, &format!("{head}{tests}"));
}

#[test]
fn no_text_breaks_the_file() {
    for alert in alerts() {
        let (summary, expression) = (alert.summary, alert.expression);
        assert!(
            !summary.contains(['"', '\\', '\n']) && summary.ends_with('.'),
            "{summary}"
        );
        assert!(
            !expression.contains([':', '#', '\n']) && expression.starts_with(char::is_alphabetic),
            "{expression}"
        );
    }
}

/// What a service tells at first, once it knows what waits to be archived, and what can be told at all.
async fn told() -> (String, BTreeSet<String>) {
    let door = Door::with("", &["000000010000000000000001"]).await;
    let unknown = door.get("/metrics").await.text();
    assert!(
        unknown.contains("WalGap") && !unknown.contains("WalWaits"),
        "nobody knows yet where WAL waits\n{unknown}"
    );
    door.pushes
        .push(door.wal.segment("000000010000000000000002", 3))
        .await
        .unwrap();
    for _ in 0..3000 {
        let metrics = door.get("/metrics").await.text();
        if metrics.contains("walden_archive_backlog_files{") {
            let all = format!("{metrics}{}", pushed_with_all());
            let lines = all.lines().filter(|line| !line.starts_with('#'));
            let names = lines.filter_map(|line| line.split(['{', ' ']).next());
            return (metrics.clone(), names.map(str::to_string).collect());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited half a minute in vain for what waits to be archived");
}

/// The figures that an expression asks for.
fn asked(expression: &str) -> Vec<&str> {
    let parts = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    parts.filter(|part| part.starts_with("walden_")).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_figures_and_rules_that_are_shown() {
    let (metrics, names) = told().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let alerts = alerts();
    let alerts = alerts.iter().map(|alert| alert.expression.clone());
    let panels = expressions(&dashboard);
    assert!(panels.len() > 20, "{panels:?}");
    for expression in alerts.chain(panels) {
        let asked = asked(&expression);
        assert!(!asked.is_empty(), "{expression}");
        for name in asked {
            assert!(names.contains(name), "{name} of {expression}: {names:?}");
        }
    }
    let shown = |rule: Rule, level: &str| {
        let rule = rule.name();
        let line = format!("walden_health_rule{{cluster=\"main\",rule=\"{rule}\"}} {level}");
        metrics.lines().any(|one| one.starts_with(&line))
    };
    for rule in Rule::ALL {
        assert!(shown(*rule, ""), "{rule:?}\n{metrics}");
    }
    assert!(
        shown(Rule::NoBackupYet, "1") && !shown(Rule::NoBackup, "1") && !shown(Rule::WalGap, "1"),
        "{metrics}"
    );
}

/// Of panels, and of what the variables are made of.
fn expressions(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(expressions).collect(),
        Value::Object(members) => {
            let own = ["expr", "definition"].iter();
            let own = own.filter_map(|name| members.get(*name)?.as_str());
            let own: Vec<String> = own.map(str::to_string).collect();
            own.into_iter()
                .chain(members.values().flat_map(expressions))
                .collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn panels_of_the_dashboard_lie_beside_each_other_and_have_names_of_their_own() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y) = (place("x"), place("y"));
        assert!(x + place("w") <= 24, "{panel}");
        for x in x..x + place("w") {
            for y in y..y + place("h") {
                assert!(taken.insert((x, y)), "two panels lie on {x},{y}: {panel}");
            }
        }
    }
}
