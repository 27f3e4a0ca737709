//! `walden retention apply`: what was printed is deleted, and nothing else. Before the first deletion it is written down
//! what goes; only then is looked for readers. An interrupted one is taken up by the next.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anyhow::anyhow;
use serde::Serialize;

use super::beside::{GoneWal, named_after};
use super::engine::{Engine, ExpiryProgress};
use super::gather::{Gathered, as_needs, gather, protect};
use super::opinion::objections;
use crate::error::with_hint;
use crate::postgres::catalog::without;
use crate::postgres::cluster::Cluster;
use crate::postgres::protection::{Deletion, ExpiryOutcome, LeftItem, Needs, StoredLease};
use crate::retention::{Deletions, Plan, PlanDigest, Policy, decide};

/// What would go, and what it follows from.
#[derive(Debug, Clone)]
pub struct Decision {
    pub gathered: Gathered,
    pub plan: Plan,
}

impl Decision {
    /// Reads what there is, and decides. Leases count that are alive at `store_time`. Errors: as of [`gather`].
    pub async fn make(
        cluster: &Cluster,
        policy: &Policy,
        store_time: SystemTime,
    ) -> anyhow::Result<Self> {
        let gathered = gather(cluster, store_time).await?;
        let (holdings, policy) = (gathered.holdings.clone(), policy.clone());
        let plan = tokio::task::spawn_blocking(move || decide(&holdings, &policy)).await?;
        Ok(Self { gathered, plan })
    }

    /// Whether nothing is to be done, nor left of an interrupted deletion.
    pub fn is_nothing(&self) -> bool {
        self.plan.deletions().is_empty()
            && self.gathered.leftovers.is_empty()
            && self.gathered.dump_leftovers.is_empty()
            && self.gathered.expiry.open.is_none()
            && !self.has_beside()
    }

    /// Whether files are left of WAL that went earlier.
    fn has_beside(&self) -> bool {
        let (wal, expiry) = (&self.gathered.holdings.wal, &self.gathered.expiry);
        let gone = GoneWal::new(&expiry.expired, &[], &wal.ranges, &wal.histories);
        let mut segments = self.gathered.beside.iter().filter_map(named_after);
        segments.any(|segment| gone.takes_along(segment, &[]))
    }
}

/// Which plan is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// Whatever is decided then.
    Any,
    /// This one, which was printed.
    Printed(PlanDigest),
}

/// The plan is another one by now.
#[derive(Debug, thiserror::Error)]
#[error("the plan is another one by now: its digest is {now}, not {asked}")]
pub struct PlanChanged {
    pub asked: PlanDigest,
    pub now: PlanDigest,
}

/// The planner of restores objects to the plan.
#[derive(Debug, thiserror::Error)]
#[error("nothing is deleted: {}", .0.join("; "))]
pub struct Objected(pub Vec<String>);

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub digest: PlanDigest,
    /// An interrupted deletion was taken up.
    pub resumed: bool,
    pub deleted: Needs,
    pub objects: u64,
    /// Somebody came to need it just now: the next run decides anew.
    pub put_off: Needs,
    /// What the repository refused to delete; and why.
    pub left: Vec<LeftItem>,
}

impl Applied {
    /// Whether all went that was to go.
    pub fn is_whole(&self) -> bool {
        self.put_off.is_empty() && self.left.is_empty()
    }
}

/// Deletes what the policy lets go. Errors: [`PlanChanged`], [`Objected`],
/// [`OtherDeletion`](crate::postgres::protection::OtherDeletion); or the store did not answer, and the next run goes on.
pub async fn apply(
    cluster: &Cluster,
    policy: &Policy,
    chosen: &Chosen,
    progress: &ExpiryProgress,
) -> anyhow::Result<Applied> {
    let mut deletion = Deletion::begin(cluster).await?;
    let prepared = deletion
        .while_held(prepare(cluster, policy, chosen, &deletion))
        .await;
    let (decision, deletes, digest) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            deletion.end(None).await?;
            return Err(error);
        }
    };
    let resumed = decision.gathered.expiry.open.is_some();
    if decision.is_nothing() {
        deletion.end(None).await?;
        return Ok(Applied {
            digest,
            resumed,
            deleted: Needs::default(),
            objects: 0,
            put_off: Needs::default(),
            left: Vec::new(),
        });
    }
    let announced = with_leftovers(deletes.clone(), &decision.gathered);
    if let Err(error) = deletion.announce(&digest.0, announced).await {
        deletion.end(None).await?;
        return Err(error);
    }
    let carried_out = deletion
        .while_held(carry_out(
            cluster, policy, &deletion, &decision, deletes, progress,
        ))
        .await;
    let (applied, ended) = match carried_out {
        Ok((applied, outcome)) => (Ok(applied), Some(outcome)),
        Err(error) => (Err(error), None),
    };
    deletion.end(ended.as_ref()).await?;
    applied.map(|applied| Applied {
        digest,
        resumed,
        ..applied
    })
}

/// Whoever brings something back sees that its rests are being deleted.
fn with_leftovers(mut deletes: Needs, gathered: &Gathered) -> Needs {
    deletes.backups.extend(gathered.leftovers.iter().cloned());
    let dumps = gathered.dump_leftovers.iter();
    deletes.dumps.extend(dumps.map(|dump| dump.id.to_string()));
    deletes
}

/// Decides, and has it checked. The digest is that of the plan that is carried out, or of which this is the rest.
async fn prepare(
    cluster: &Cluster,
    policy: &Policy,
    chosen: &Chosen,
    deletion: &Deletion,
) -> anyhow::Result<(Decision, Needs, PlanDigest)> {
    let decision = Decision::make(cluster, policy, deletion.now().await?).await?;
    let deletions = decision.plan.deletions();
    let (mut deletes, now) = (as_needs(&deletions), deletions.digest());
    let mut digest = now.clone();
    if let Chosen::Printed(asked) = chosen {
        let open = decision.gathered.expiry.open.as_ref();
        match open.filter(|open| open.digest == asked.0) {
            _ if now == *asked => (),
            // A part of it is gone: the rest of it goes, as far as it is still to go.
            Some(open) => {
                deletes = common(&deletes, &open.deletes, cluster);
                digest = asked.clone();
            }
            None => {
                let error = PlanChanged {
                    asked: asked.clone(),
                    now,
                };
                return Err(with_hint(
                    error.into(),
                    "look at it again: `walden retention plan`",
                ));
            }
        }
    }
    let (facts, window, checked) = (
        decision.gathered.facts.clone(),
        policy.window,
        deletes.clone(),
    );
    let objections =
        tokio::task::spawn_blocking(move || objections(&facts, &checked, window)).await?;
    match objections.is_empty() {
        true => Ok((decision, deletes, digest)),
        false => Err(with_hint(
            Objected(objections).into(),
            "this is a fault of Walden: report it with the output of `walden retention plan --format json`",
        )),
    }
}

/// What is in both.
fn common(some: &Needs, others: &Needs, cluster: &Cluster) -> Needs {
    let size = cluster.description.segment_size;
    let not_others = without(some.wal.clone(), &others.wal, size);
    Needs {
        backups: &some.backups & &others.backups,
        dumps: &some.dumps & &others.dumps,
        wal: without(some.wal.clone(), &not_others, size),
        ..Needs::default()
    }
}

/// Looks for those who came to need something of it, then deletes the rest.
async fn carry_out(
    cluster: &Cluster,
    policy: &Policy,
    deletion: &Deletion,
    decision: &Decision,
    deletes: Needs,
    progress: &ExpiryProgress,
) -> anyhow::Result<(Applied, ExpiryOutcome)> {
    let gathered = &decision.gathered;
    let put_off = protected(cluster, policy, deletion, gathered, &deletes).await?;
    let size = cluster.description.segment_size;
    let deletes = Needs {
        backups: &deletes.backups - &put_off.backups,
        dumps: &deletes.dumps - &put_off.dumps,
        wal: without(deletes.wal, &put_off.wal, size),
        ..Needs::default()
    };
    progress
        .total
        .store(stored_bytes(decision), Ordering::Relaxed);
    let used = deletion.readers().await?;
    let used = used.iter().map(StoredLease::needs).collect();
    let mut engine = Engine::new(cluster, deletion, progress, used);
    let ran = engine.run(&deletes, gathered).await;
    progress.tell(&engine.deleted);
    ran?;
    let backups = gathered.facts.backups.iter().map(|backup| &backup.id);
    let told = &gathered.expiry;
    let outcome = ExpiryOutcome {
        left: engine.left.clone(),
        gone_dumps: told.gone_dumps(&engine.deleted.dumps, &engine.dump_leftovers, |name| {
            gathered.dumps.contains_key(name)
        }),
        open: None,
        ..told.outcome(
            engine.deleted.clone(),
            &gathered.holdings.wal.ranges,
            backups,
        )
    };
    let (deleted, objects, left) = (engine.deleted, engine.objects, engine.left);
    let applied = Applied {
        digest: decision.plan.deletions().digest(),
        resumed: false,
        deleted,
        objects,
        put_off,
        left,
    };
    Ok((applied, outcome))
}

/// What pins and leases keep that were not there when it was decided.
async fn protected(
    cluster: &Cluster,
    policy: &Policy,
    deletion: &Deletion,
    gathered: &Gathered,
    deletes: &Needs,
) -> anyhow::Result<Needs> {
    let mut holdings = gathered.holdings.clone();
    protect(cluster, &mut holdings, deletion.now().await?).await?;
    if (&holdings.pins, &holdings.leases) == (&gathered.holdings.pins, &gathered.holdings.leases) {
        return Ok(Needs::default());
    }
    let policy = policy.clone();
    let plan: Plan = tokio::task::spawn_blocking(move || decide(&holdings, &policy)).await?;
    let newer: Deletions = plan.deletions();
    let newer = as_needs(&newer);
    let size = cluster.description.segment_size;
    Ok(Needs {
        backups: &deletes.backups - &newer.backups,
        dumps: &deletes.dumps - &newer.dumps,
        wal: without(deletes.wal.clone(), &newer.wal, size),
        ..Needs::default()
    })
}

fn stored_bytes(decision: &Decision) -> u64 {
    let items = decision.plan.items.iter().filter(|item| !item.is_kept());
    let wal = decision.plan.wal.iter();
    let wal = wal.filter(|wal| wal.verdict == crate::retention::WalVerdict::Delete);
    items.map(|item| item.size).sum::<u64>() + wal.map(|wal| wal.stored_bytes).sum::<u64>()
}

/// Refuses a plan digest that is none.
pub fn digest(text: &str) -> anyhow::Result<PlanDigest> {
    match text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(PlanDigest(text.to_ascii_lowercase())),
        false => Err(anyhow!(
            "\"{text}\" is no digest of a plan: it has 32 hexadecimal digits"
        )),
    }
}
