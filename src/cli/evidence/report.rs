//! The report as one page that needs nothing else: to read, to print, to keep.

use std::collections::BTreeMap;

use askama::Template;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::id;
use crate::evidence::chain::Fault;
use crate::evidence::chart::Chart;
use crate::evidence::controls::ControlStanding;
use crate::evidence::record::{Head, Record, Verdict};
use crate::health::moment;

/// All that a report says.
#[derive(Debug, Serialize)]
pub struct Report {
    pub cluster: String,
    pub repository: String,
    pub made_at: DateTime<Utc>,
    /// As it was asked for; else that of the first record.
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub controls: Vec<ControlStanding>,
    /// By when they ended.
    pub records: Vec<Record>,
    /// What was removed or changed, of all records.
    pub faults: Vec<Fault>,
    /// The newest record of each writer.
    pub heads: BTreeMap<String, Head>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    charts: Vec<Chart>,
}

/// The page as HTML.
pub fn page(report: &Report) -> anyhow::Result<String> {
    let measured = |value: fn(&Record) -> Option<f64>| -> Vec<(DateTime<Utc>, f64)> {
        let records = report.records.iter();
        records
            .filter_map(|record| Some((record.evidence.ended, value(record)?)))
            .collect()
    };
    let charts = [
        Chart::new(
            "RTO: from the order to a cluster that was checked",
            &measured(|record| record.evidence.rto_seconds),
            None,
        ),
        Chart::new(
            "RPO: age of the newest data that came back",
            &measured(|record| record.evidence.rpo_seconds),
            None,
        ),
    ];
    let charts = charts.into_iter().flatten().collect();
    Ok(Page { report, charts }.render()?)
}

/// A moment, as templates hand it over.
fn at(time: &DateTime<Utc>) -> String {
    moment(*time)
}

/// The class of a verdict in the style sheet.
fn class(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::CouldNotRun => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::evidence::controls::{DEFAULT, parse, standings};
    use crate::evidence::record::Act;
    use crate::evidence::record::testing::{evidence, record};

    #[test]
    fn a_page_shows_what_was_measured_and_takes_no_markup_from_data() {
        let records: Vec<_> = (0..3)
            .map(|day| {
                let mut evidence = evidence(Act::Drill);
                evidence.ended += TimeDelta::days(day);
                evidence.subject = "<script>alert(1)</script>".into();
                (evidence.rto_seconds, evidence.rpo_seconds) = (Some(day as f64 * 10.0), Some(1.0));
                record(evidence)
            })
            .collect();
        let end = DateTime::UNIX_EPOCH + TimeDelta::days(3);
        let report = Report {
            cluster: "main".into(),
            repository: "file:///srv/walden".into(),
            made_at: end,
            since: DateTime::UNIX_EPOCH,
            until: end,
            controls: standings(&parse(DEFAULT).unwrap(), &records, &records, end),
            faults: Vec::new(),
            heads: BTreeMap::new(),
            records,
        };
        let page = page(&report).unwrap();
        assert!(
            !page.contains("<script") && page.contains("SOC 2 CC9.1") && page.contains("last 20 s")
        );
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "it needs nothing else"
        );
    }
}
