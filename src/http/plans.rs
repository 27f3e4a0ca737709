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
/// So long it is told why none could be made: it is as dear as one.
const FAILED: Duration = Duration::from_secs(60);

/// A plan, and when it was made.
#[derive(Debug, Clone)]
pub struct MadePlan {
    pub made_at: DateTime<Utc>,
    pub plan: Arc<Plan>,
}

/// What came of making one, or why nothing did; and until when that is told.
type Made = Option<(Result<MadePlan, String>, Instant)>;

/// Asks for plans.
#[derive(Debug, Clone)]
pub struct PlansHandle {
    asks: mpsc::Sender<()>,
    made: watch::Receiver<Made>,
}

/// Makes them.
#[derive(Debug)]
pub struct PlansOwner {
    cluster: Cluster,
    policy: Policy,
    asked: mpsc::Receiver<()>,
    made: watch::Sender<Made>,
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
        let is_due = made
            .as_ref()
            .is_none_or(|(_, until)| *until <= Instant::now());
        if is_due {
            // Full: somebody asked already.
            let _ = self.asks.try_send(());
        }
        let detail = match made {
            Some((Ok(made), _)) if !is_due => return Ok(made),
            Some((Err(why), _)) => format!("the plan could not be made the last time: {why}"),
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
                let told = if made.is_ok() { FRESH } else { FAILED };
                self.made.send_replace(Some((made, Instant::now() + told)));
                // Who asked meanwhile has it now.
                while self.asked.try_recv().is_ok() {}
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
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::testing::defaults;
    use crate::postgres::archive::testing::cluster_in;
    use crate::postgres::index::testing::Waiting;
    use crate::repo::Repository;
    use crate::storage::counting::CountingStorage;
    use crate::storage::faulty::{CrashPoint, FaultyStorage};
    use crate::storage::{MemoryStorage, Storage};

    /// Who asks, and somebody who makes plans until the test ends.
    fn maker(cluster: Cluster) -> (PlansHandle, JoinSet<anyhow::Result<()>>) {
        let (handle, owner) = new(cluster, Policy::new(&defaults()));
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let ended = owner.run(stopped).await;
            drop(stopping);
            ended
        });
        (handle, tasks)
    }

    #[tokio::test]
    async fn a_plan_is_made_once_for_all_who_ask_meanwhile() {
        let waiting = Arc::new(Waiting::default());
        let cluster = cluster_in(waiting.clone()).await;
        let wait = || *waiting.folder.lock().unwrap() = Some(cluster.layout.base_folder());
        wait();
        let (handle, _tasks) = maker(cluster.clone());
        assert!(handle.get().is_err());
        waiting.listed.notified().await;
        assert!(handle.get().is_err());
        wait();
        waiting.go_on.notify_one();
        while handle.get().is_err() {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.folder.lock().unwrap().is_some(), "made again");
    }

    #[tokio::test]
    async fn a_plan_that_cannot_be_made_is_not_tried_again_at_once() {
        let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let mut cluster = cluster_in(memory.clone()).await;
        let opening = Arc::new(CountingStorage::new(memory.clone()));
        Repository::open(opening.clone()).await.unwrap();
        let stop_at = opening.calls().len() as u64;
        let faulty = FaultyStorage::new(memory, stop_at, CrashPoint::Before);
        let counting = Arc::new(CountingStorage::new(Arc::new(faulty)));
        cluster.repository = Repository::open(counting.clone()).await.unwrap();
        let (handle, _tasks) = maker(cluster);
        let ask = async || {
            counting.forget();
            for _ in 0..100 {
                assert!(handle.get().is_err());
                tokio::task::yield_now().await;
            }
            let told = handle.get().err().unwrap();
            (told.detail().contains("stopped"), counting.calls().len())
        };
        let (is_told, calls) = ask().await;
        assert!(is_told && calls > 0);
        assert_eq!(ask().await, (true, 0));
    }
}
