//! The jobs, as the page shows them.

use super::words::{When, count, duration};
use crate::jobs::record::RunState;
use crate::jobs::status::JobStatus;
use crate::service::jobs::JobsSnapshot;

/// A job's row.
pub struct JobView {
    pub job: String,
    pub cron: Option<String>,
    pub next: Option<When>,
    pub last: Option<When>,
    pub took: String,
    /// How the last run ended, and whether that is good.
    pub state: (String, bool),
    /// What is not good: why the last run failed.
    pub why: Vec<String>,
}

/// The rows, and what could not be found out.
pub struct JobsView {
    pub jobs: Vec<JobView>,
    pub failed: Option<String>,
}

impl From<&JobsSnapshot> for JobsView {
    fn from(known: &JobsSnapshot) -> Self {
        // What never ran and never will by itself is no news.
        let told = known
            .jobs
            .iter()
            .filter(|job| job.cron.is_some() || job.last.is_some() || job.running.is_some());
        Self {
            jobs: told.map(JobView::from).collect(),
            failed: known.failed.clone(),
        }
    }
}

impl From<&JobStatus> for JobView {
    fn from(job: &JobStatus) -> Self {
        let last = job.last.as_ref();
        let state = match (&job.running, last) {
            (Some(running), _) => (format!("running on {}", running.host), true),
            (None, Some(last)) => (last.state.to_string(), is_good(last.state)),
            (None, None) => ("not yet".into(), true),
        };
        let failed = last.filter(|last| !is_good(last.state));
        let in_a_row = (job.failures_in_a_row > 1).then(|| {
            format!(
                "{} in a row",
                count(u64::from(job.failures_in_a_row), "failure")
            )
        });
        let why = failed.and_then(|last| last.why.clone());
        Self {
            job: job.job.clone(),
            cron: job
                .cron
                .as_ref()
                .map(|cron| format!("{cron} {}", job.time_zone.as_deref().unwrap_or_default())),
            next: job.next.map(When::of),
            last: match &job.running {
                Some(running) => Some(When::of(running.started_at)),
                None => last.map(|last| When::of(last.started_at)),
            },
            took: match last
                .filter(|last| job.running.is_none() && last.state != RunState::Interrupted)
            {
                Some(last) => duration((last.ended_at - last.started_at).as_seconds_f64()),
                None => String::new(),
            },
            state,
            why: in_a_row
                .into_iter()
                .chain(why.iter().flat_map(|why| why.lines().map(str::to_string)))
                .collect(),
        }
    }
}

/// Whether nothing is to be mended.
fn is_good(state: RunState) -> bool {
    matches!(
        state,
        RunState::Succeeded | RunState::Cancelled | RunState::Stopped
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::record::testing::record;

    #[test]
    fn a_failure_is_told_with_its_reason_and_how_often_it_came() {
        let mut failed = record(RunState::Failed, None, 1);
        failed.why = Some("cannot connect\nHINT: is it there?".into());
        let status = JobStatus {
            job: "backup".into(),
            cron: Some("0 2 * * 0".into()),
            time_zone: Some("UTC".into()),
            next: None,
            due_since: None,
            unattended: false,
            stale_before: None,
            running: None,
            last: Some((&failed).into()),
            last_success: None,
            failures_in_a_row: 3,
        };
        let view = JobView::from(&status);
        assert_eq!(view.state, ("failed".into(), false));
        assert_eq!(
            view.why,
            [
                "3 failures in a row",
                "cannot connect",
                "HINT: is it there?"
            ]
        );
        assert_eq!(
            (view.took.as_str(), view.cron.as_deref()),
            ("60 s", Some("0 2 * * 0 UTC"))
        );
        let unused = JobStatus {
            cron: None,
            last: None,
            ..status.clone()
        };
        let known = JobsSnapshot {
            jobs: [status, unused].into(),
            ..JobsSnapshot::default()
        };
        assert_eq!(JobsView::from(&known).jobs.len(), 1);
    }
}
