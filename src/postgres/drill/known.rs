//! What is known of the source before it is restored, and is looked for in the restored server.

use std::time::Instant;

use chrono::{DateTime, Utc};

use super::canary::{Expected, SeenCanary};
use super::canary_table;
use super::counts::Counts;
use super::counts_table;
use super::database::Door;
use super::report::DrillReport;
use crate::evidence::Journal;
use crate::evidence::record::Act;

/// What is looked for.
#[derive(Debug, Default)]
pub struct Known {
    /// Canaries, in this database.
    pub canary: Option<(String, Expected)>,
    /// What was counted at the place that is restored to.
    pub counts: Option<Counts>,
}

impl Known {
    /// Looks for it, until then.
    pub async fn look(&self, door: &Door, report: &mut DrillReport, until: Instant) {
        if let Some(counts) = &self.counts {
            let compared = counts_table::compare(door, counts, until).await;
            report.checks.extend(compared);
        }
        if let Some((database, expected)) = &self.canary {
            let (checks, seen) = canary_table::look(door, database, expected).await;
            report.checks.extend(checks);
            report.canary = seen;
        }
    }
}

/// When a canary was written into a database, not later than `reference`, that an earlier drill saw. Errors: the store does not
/// give the records.
pub async fn seen_before(
    journal: &Journal,
    database: &str,
    reference: DateTime<Utc>,
) -> anyhow::Result<Option<DateTime<Utc>>> {
    let seen = journal.newest(1, |record| {
        let evidence = record.evidence;
        let details = (evidence.act == Act::Drill).then(|| evidence.details.get("canary").cloned());
        let seen: SeenCanary = serde_json::from_value(details??).ok()?;
        (seen.database == database && seen.at <= reference).then_some(seen.at)
    });
    Ok(seen.await?.into_iter().next())
}
