//! The alerts for Prometheus that are shipped: one for each rule of `crate::health`, and those for what no rule sees.

use std::fmt::Write;
use std::time::Duration;

use super::tests::Door;
use crate::config::testing::assert_fresh;
use crate::health::{Level, Rule};

const FILE: &str = "deploy/prometheus-rules.yml";

struct Alert {
    name: String,
    level: Level,
    expression: String,
    /// For how long it holds before somebody is told.
    hold: &'static str,
    summary: &'static str,
}

impl From<Rule> for Alert {
    fn from(rule: Rule) -> Self {
        Self {
            name: format!("Walden{}", rule.name()),
            level: rule.level(),
            expression: format!("walden_health_rule{{rule=\"{}\"}} > 0", rule.name()),
            hold: match rule.level() {
                Level::Critical => "1m",
                Level::Good | Level::Warning => "5m",
                Level::Unknown => "15m",
            },
            summary: rule.summary(),
        }
    }
}

/// Name, level, expression, hold, summary.
const BEYOND_RULES: [(&str, Level, &str, &str, &str); 3] = [
    (
        "WaldenDown",
        Level::Critical,
        "absent(walden_start_timestamp_seconds)",
        "5m",
        "No walden serve is scraped: nobody knows how it stands.",
    ),
    (
        "WaldenRepositoryUnreadable",
        Level::Critical,
        "walden_repository_unreadable > 0",
        "15m",
        "The repository cannot be read: what all other alerts judge grows old.",
    ),
    (
        "WaldenArchivingFails",
        Level::Critical,
        "increase(walden_archive_failed_files_total[10m]) > 0 unless increase(walden_archive_stored_files_total[10m]) > 0",
        "5m",
        "WAL files could not be stored, and none was, for 10 minutes.",
    ),
];

fn alerts() -> Vec<Alert> {
    let others = BEYOND_RULES.map(|(name, level, expression, hold, summary)| Alert {
        name: name.into(),
        level,
        expression: expression.into(),
        hold,
        summary,
    });
    Rule::ALL
        .iter()
        .copied()
        .map(Into::into)
        .chain(others)
        .collect()
}

fn rendered() -> String {
    let mut file =
        "# Alerts for Prometheus. Each rule of `walden check` has one: the service judges by section [health] of\n\
                    # its settings, so set limits there, not here. docs/operations/monitoring.md\n\
                    groups:\n  - name: walden\n    rules:\n"
            .to_string();
    for Alert {
        name,
        level,
        expression,
        hold,
        summary,
    } in alerts()
    {
        let severity = if level == Level::Critical {
            "critical"
        } else {
            "warning"
        };
        let _ = write!(
            file,
            "      - alert: {name}\n        expr: {expression}\n        for: {hold}\n        labels:\n          \
             severity: {severity}\n        annotations:\n          summary: \"{{{{ $labels.cluster }}}}: {summary}\"\n          \
             description: \"The next step: `walden status`, `walden check`.\"\n"
        );
    }
    file
}

#[test]
fn the_file_of_alerts_in_the_tree_is_fresh() {
    assert_fresh(FILE, &rendered());
}

#[test]
fn no_text_breaks_the_file() {
    for Alert {
        expression,
        summary,
        ..
    } in alerts()
    {
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

#[tokio::test]
async fn alerts_ask_for_metrics_and_rules_that_are_shown() {
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
    let mut metrics = unknown;
    for _ in 0..3000 {
        metrics = door.get("/metrics").await.text();
        if metrics.contains("walden_archive_backlog_files{") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let shown = |start: &str| metrics.lines().any(|line| line.starts_with(start));
    for Alert {
        name, expression, ..
    } in alerts()
    {
        let parts = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: Vec<_> = parts.filter(|part| part.starts_with("walden_")).collect();
        assert!(!asked.is_empty(), "{expression}");
        for metric in asked {
            assert!(
                shown(&format!("{metric}{{cluster=\"main\"")),
                "{name}: {metric} is not in\n{metrics}"
            );
        }
    }
    for rule in Rule::ALL {
        assert!(
            shown(&format!(
                "walden_health_rule{{cluster=\"main\",rule=\"{}\"}} ",
                rule.name()
            )),
            "{rule:?}\n{metrics}"
        );
    }
    let told = |rule: Rule| {
        shown(&format!(
            "walden_health_rule{{cluster=\"main\",rule=\"{}\"}} 1",
            rule.name()
        ))
    };
    assert!(
        told(Rule::NoBackupYet) && !told(Rule::NoBackup) && !told(Rule::WalGap),
        "{metrics}"
    );
}
