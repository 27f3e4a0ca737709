//! Dumps of a drill's server: no load on the source, and the same act proves base backup and WAL.
//!
//! They are taken before anything else looks at the server, since checks may change what it has; and they exist only once the checks have
//! passed.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::canary::RPO_BY_CANARY;
use super::database::Access;
use super::physical::{DrillOptions, Shown, drill};
use super::report::{DrillKind, DrillReport};
use super::restored::{door, private_info};
use super::run::Frame;
use super::scratch::Scratch;
use super::verdict::{At, Ended, Stage};
use crate::config::{self, Secret, Settings};
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::cleanup::remove_leftovers;
use crate::postgres::dump::command::DumpRequest;
use crate::postgres::dump::list::list;
use crate::postgres::dump::manifest::DrilledServer;
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::take::{Databases, Drilled, DumpOutcome, PreparedDump, Taking};
use crate::postgres::planning::FreshPlanner;
use crate::postgres::replication::ConnInfo;

/// What is dumped.
#[derive(Debug)]
pub struct DumpOrder<'a> {
    pub databases: &'a Databases,
    pub request: &'a DumpRequest,
    pub progress: &'a Arc<DumpProgress>,
}

/// How both ended.
#[derive(Debug)]
pub struct DumpedDrill {
    pub report: DrillReport,
    /// `None`: none was begun.
    pub dumps: Option<anyhow::Result<Vec<DumpOutcome>>>,
}

/// Dumps that do not exist yet.
type Prepared = Vec<(String, anyhow::Result<PreparedDump>)>;

/// A drill with dumps of its server. Errors: as [`run`](super::run) has them; then there is no dump.
pub async fn run(
    settings: &Settings,
    planner: &FreshPlanner,
    options: &DrillOptions,
    order: &DumpOrder<'_>,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<DumpedDrill> {
    let cluster = planner.cluster();
    let frame = Frame {
        settings,
        cluster: &cluster,
        kind: DrillKind::Physical,
        keep: options.keep,
    };
    let mut dumps = None;
    let work = async |scratch: &Scratch, report: &mut DrillReport| {
        let mut prepared = None;
        let first = async |shown: Shown<'_>, report: &mut DrillReport| {
            dumps = Some(Err(anyhow!("the dumps were interrupted")));
            let begun = Instant::now();
            let source = DrillSource::of(settings, &cluster, &shown).await?;
            prepared = Some((source.prepare(order).await, source));
            report.phase("dumps", begun.elapsed().as_secs_f64());
            // Nobody who restores waits for them.
            report.clock += begun.elapsed();
            Ok(())
        };
        let drilled = drill(settings, planner, options, scratch, report, first).await;
        if let Some((prepared, source)) = prepared {
            let why = why_not(drilled.as_ref().err(), &report.checks);
            dumps = Some(source.end(order, prepared, why).await);
        }
        drilled
    };
    let report = frame.run(stop, work).await?;
    if report.verdict == Verdict::CouldNotRun && dumps.is_some() {
        clean_up(&cluster).await;
    }
    Ok(DumpedDrill { report, dumps })
}

/// What a dump that was broken off has stored.
async fn clean_up(cluster: &Cluster) {
    let removed = async {
        let kept = list(cluster, None).await?;
        remove_leftovers(cluster, &kept).await
    };
    if let Err(error) = removed.await {
        let why = one_line(&error);
        tracing::warn!("what is left of a dump is removed by a later one: {why}");
    }
}

/// Why there is to be no dump of a server: it is not proven. That a time was too long says nothing of what it holds.
fn why_not(ended: Option<&Ended>, checks: &[Check]) -> Option<String> {
    if let Some(Ended(_, error)) = ended {
        return Some(one_line(error));
    }
    let is_age = |check: &Check| ["RPO", RPO_BY_CANARY].contains(&check.name.as_str());
    let is_wrong = |check: &&Check| check.verdict == Verdict::Failed && !is_age(check);
    let wrong = checks.iter().find(is_wrong)?;
    Some(format!("{}: {}", wrong.name, wrong.seen))
}

/// A drill's server as the source of dumps.
struct DrillSource<'a> {
    cluster: &'a Cluster,
    dump: config::Dump,
    info: ConnInfo,
    drilled: Drilled,
}

impl<'a> DrillSource<'a> {
    async fn of(
        settings: &Settings,
        cluster: &'a Cluster,
        shown: &Shown<'_>,
    ) -> Result<Self, Ended> {
        let own = ConnInfo::from_process(settings.postgresql.dsn.expose());
        let own = own.at(Stage::Prepare)?;
        let limit = settings.drill.budget;
        let door = door(
            shown.recovered,
            Some(own.user.clone()),
            Access::Private,
            limit,
        )
        .await;
        let door = door.at(Stage::Server)?;
        let session = door.open(&door.database).await.at(Stage::Server)?;
        let sql = "select pg_last_wal_replay_lsn()::text, extract(epoch from pg_last_xact_replay_timestamp())::float8";
        let row = session.client.query_one(sql, &[]).await;
        let row = row
            .context("cannot ask until where it replayed")
            .at(Stage::Server)?;
        let lsn: Option<String> = row.get(0);
        let lsn = lsn.and_then(|lsn| lsn.parse().ok());
        let lsn = lsn.context("the server does not tell until where it replayed");
        let seconds: Option<f64> = row.get(1);
        let last = seconds
            .and_then(|seconds| DateTime::from_timestamp_micros((seconds * 1e6).round() as i64));
        let info = private_info(shown.recovered, &door.user, &own.database);
        Ok(Self {
            cluster,
            dump: config::Dump {
                command_prefix: Vec::new(),
                dsn: Secret::default(),
                ..settings.dump.clone()
            },
            info: info.at(Stage::Prepare)?,
            drilled: Drilled {
                server: DrilledServer {
                    backup: shown.backup.clone(),
                    timeline: shown.timeline,
                    last_transaction: last,
                },
                lsn: lsn.at(Stage::Server)?,
                until: until(last, shown.protected, shown.stopped_at),
            },
        })
    }

    fn taking<'b>(
        &'b self,
        order: &'b DumpOrder<'_>,
        resolve: &'b (dyn Fn() -> anyhow::Result<ConnInfo> + Sync),
    ) -> Taking<'b> {
        Taking {
            cluster: self.cluster,
            resolve,
            settings: &self.dump,
            request: order.request,
            progress: order.progress,
            drilled: Some(&self.drilled),
        }
    }

    async fn prepare(&self, order: &DumpOrder<'_>) -> anyhow::Result<Prepared> {
        let resolve = || Ok(self.info.clone());
        // Who gives the drill up ends the programs, too.
        let (_never, mut stop) = watch::channel(false);
        let taking = self.taking(order, &resolve);
        taking.prepare_databases(order.databases, &mut stop).await
    }

    /// Makes them exist, unless there is a reason against it.
    async fn end(
        &self,
        order: &DumpOrder<'_>,
        prepared: anyhow::Result<Prepared>,
        why_not: Option<String>,
    ) -> anyhow::Result<Vec<DumpOutcome>> {
        let resolve = || Ok(self.info.clone());
        let taking = self.taking(order, &resolve);
        let mut outcomes = Vec::new();
        for (database, prepared) in prepared? {
            let result = match (prepared, &why_not) {
                (Err(error), _) => Err(error),
                (Ok(prepared), None) => taking.commit(prepared).await,
                (Ok(prepared), Some(why)) => {
                    let error = anyhow!("the drill of its server did not pass: {why}");
                    let error = taking.give_up(prepared, error).await;
                    Err(error.context(format!("database \"{database}\" is not dumped")))
                }
            };
            outcomes.push(DumpOutcome { database, result });
        }
        Ok(outcomes)
    }
}

/// Until when the dump shows everything. Behind the last transaction that was replayed it may be known that none followed.
fn until(
    last: Option<DateTime<Utc>>,
    protected: Option<DateTime<Utc>>,
    stopped_at: DateTime<Utc>,
) -> DateTime<Utc> {
    last.max(protected).unwrap_or(stopped_at).max(stopped_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::drill::checks::check;

    #[test]
    fn what_is_not_proven_gives_no_dump_and_a_missed_time_does_not_matter() {
        let of = |checks: &[(&str, Verdict)]| {
            let checks = checks
                .iter()
                .map(|(name, verdict)| check(name, *verdict, "x".into()));
            why_not(None, &checks.collect::<Vec<_>>())
        };
        assert_eq!(
            of(&[
                ("indexes", Verdict::Passed),
                ("tables", Verdict::CouldNotRun)
            ]),
            None
        );
        assert_eq!(of(&[("RPO", Verdict::Failed)]), None);
        let failed = [("RPO", Verdict::Failed), ("indexes", Verdict::Failed)];
        assert_eq!(of(&failed).as_deref(), Some("indexes: x"));
        let ended = Ended(Stage::Server, anyhow!("it ended"));
        assert_eq!(why_not(Some(&ended), &[]).as_deref(), Some("it ended"));
    }

    #[test]
    fn a_dump_shows_everything_until_the_last_transaction_or_the_proof_that_none_followed() {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        assert_eq!(until(Some(at(5)), None, at(1)), at(5));
        assert_eq!(until(Some(at(5)), Some(at(9)), at(1)), at(9));
        assert_eq!(until(None, None, at(1)), at(1));
        assert_eq!(until(Some(at(5)), Some(at(3)), at(7)), at(7));
    }
}
