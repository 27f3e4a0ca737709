//! Tells people of alerts, from the same copies in memory that answers are made of. Its own task: whatever hangs on the way
//! to a channel holds up nothing else.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::app::App;
use super::known_alerts::KnownAlerts;
use crate::alerts::state::Seen;
use crate::alerts::{Evaluator, Reach, not_judged};
use crate::service::status::waiting_files;

/// How often in a row the repository may not answer: a look comes each minute as a rule.
const FAILURES: u32 = 2;

/// How long people are told what they are being told when the service stops.
const GRACE: Duration = Duration::from_secs(5);

/// Who looks, and how often.
#[derive(Debug)]
pub struct Alerting {
    pub evaluator: Evaluator,
    pub reach: Reach,
    pub interval: Duration,
}

impl Alerting {
    /// Looks until `stopped` says so.
    pub async fn run(
        mut self,
        app: Arc<App>,
        mut stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let (mut failures, mut late) = (0, stopped.clone());
        loop {
            let next = Instant::now() + self.interval;
            // Given up in the midst of telling, it would keep others from it for a while.
            let too_late = async {
                drop(late.wait_for(|stopped| *stopped).await);
                sleep(GRACE).await;
            };
            tokio::select! {
                () = self.look(&app, &mut failures) => (),
                () = too_late => return Ok(()),
            }
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
                () = sleep_until(next) => (),
            }
        }
    }

    async fn look(&mut self, app: &App, failures: &mut u32) {
        let unread = app.known.borrow().failed.clone();
        let unread = unread.map(|why| format!("the repository cannot be read: {why}"));
        let failed = match self.evaluate(app).await {
            // Nothing is known of the repository yet, neither that it can be reached.
            Ok(false) if unread.is_none() => return,
            Ok(_) => unread,
            Err(error) => {
                let why = not_judged(&error);
                app.alerts
                    .send_modify(|known| known.failed = Some(why.clone()));
                Some(why)
            }
        };
        let Some(why) = failed else {
            *failures = 0;
            return self.reach.tell(None).await;
        };
        if *failures == 0 {
            tracing::warn!("alerts: {why}");
        }
        *failures = failures.saturating_add(1);
        if *failures >= FAILURES {
            self.reach.tell(Some(&why)).await;
        }
    }

    /// Judges what is known, if all was looked at once: before, it must not look as if all were over.
    async fn evaluate(&mut self, app: &App) -> anyhow::Result<bool> {
        let read = app.known.borrow().read.clone();
        let status = app.status.borrow().clone();
        let looked_at = app.jobs.borrow().looked_at;
        let (Some(read), Some(status), Some(_)) = (read, status, looked_at) else {
            return Ok(false);
        };
        let (now, status) = (Utc::now(), &status.status);
        let health = app.health(&read, Some(status), now);
        let knows_waiting = waiting_files(&status.archiving.backlogs).is_some();
        let seen = Seen::of(&health, &app.upkeep(), knows_waiting, now);
        let looked = self.evaluator.look(&seen).await?;
        app.alerts
            .send_replace(KnownAlerts::of(looked.state, true, Utc::now()));
        Ok(true)
    }
}
