//! The retention plan, made when somebody asks for one. It takes a listing of everything, so one is made at a time, and
//! told to all for a while; no request waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::problem::{Problem, ProblemType};
use crate::error::one_line;
use crate::postgres::cluster::Cluster;
use crate::postgres::expiry::apply::Decision;
use crate::retention::{Plan, Policy};

/// So long a plan is told.
const FRESH: Duration = Duration::from_secs(600);

/// A plan, and when it was made.
#[derive(Debug, Clone)]
pub struct MadePlan {
    pub made_at: DateTime<Utc>,
    pub plan: Arc<Plan>,
    until: Instant,
}

/// Asks for plans.
#[derive(Debug, Clone)]
pub struct PlansHandle {
    asks: mpsc::Sender<()>,
    made: watch::Receiver<Option<Result<MadePlan, String>>>,
}

/// Makes them.
#[derive(Debug)]
pub struct PlansOwner {
    cluster: Cluster,
    policy: Policy,
    asked: mpsc::Receiver<()>,
    made: watch::Sender<Option<Result<MadePlan, String>>>,
}

/// Who asks, and who makes plans.
pub fn new(cluster: Cluster, policy: Policy) -> (PlansHandle, PlansOwner) {
    let ((asks, asked), (told, made)) = (mpsc::channel(1), watch::channel(None));
    let owner = PlansOwner {
        cluster,
        policy,
        asked,
        made: told,
    };
    (PlansHandle { asks, made }, owner)
}

impl PlansHandle {
    /// A fresh plan. Errors: it is being made, or could not be.
    pub fn get(&self) -> Result<MadePlan, Problem> {
        let made = self.made.borrow().clone();
        if let Some(Ok(made)) = &made
            && Instant::now() < made.until
        {
            return Ok(made.clone());
        }
        // Full: somebody asked already.
        let _ = self.asks.try_send(());
        let detail = match made {
            Some(Err(why)) => format!("the plan could not be made the last time: {why}"),
            _ => "the plan is being made".into(),
        };
        Err(Problem::new(ProblemType::NotReadYet, detail).hint("ask again in a moment"))
    }
}

impl PlansOwner {
    /// Works until `stopped` says so.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            let work = async {
                let asked = self.asked.recv().await;
                let made = match asked {
                    Some(()) => self.make().await,
                    None => return false,
                };
                self.made.send_replace(Some(made));
                true
            };
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
                goes_on = work => if !goes_on { return Ok(()) },
            }
        }
    }

    async fn make(&self) -> Result<MadePlan, String> {
        let decided = Decision::make(&self.cluster, &self.policy, SystemTime::now()).await;
        let plan = decided.map_err(|error| one_line(&error))?.plan;
        Ok(MadePlan {
            made_at: Utc::now(),
            plan: Arc::new(plan),
            until: Instant::now() + FRESH,
        })
    }
}
