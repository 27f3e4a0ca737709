//! One restore, from its plan to a server that was compared with it: everything but asking and telling. What can be
//! refused is refused before anything is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::sync::Mutex;

use super::destination::{self, Destination};
use super::fetching::fetch_command;
use super::files::RestoreProgress;
use super::put_aside::PutAside;
use super::recovery::{self, Choices};
use super::relocation::Relocation;
use super::start::{self, Recovered, ServerStart, Watch};
use super::target_action::TargetAction;
use super::{Restored, check, cold, programs, put_aside, restore, restore_history};
use crate::config::Settings;
use crate::error::{one_line, with_hint};
use crate::postgres::catalog::{PastRestore, RecoveryPlan};
use crate::postgres::cluster::Cluster;
use crate::postgres::protection::{Lease, LeaseContent, LeaseKind, Needs, register};
use crate::postgres::replication::ConnInfo;
use crate::repo::cold::{ColdObjects, ThawProgress};

/// How long a restore that was killed keeps what it needed from deletion.
const LEASE: Duration = Duration::from_secs(3600);

/// What is asked for beside the target.
#[derive(Debug, Clone)]
pub struct Order {
    /// The new data directory; `None` where the restore is only planned.
    pub to_dir: Option<PathBuf>,
    pub relocations: Vec<Relocation>,
    pub action: TargetAction,
    /// The restored cluster replaces its source and goes on archiving.
    pub keep_archiving: bool,
    /// Refuse what does not fit.
    pub check_space: bool,
    /// Keep what is there under other names, instead of refusing.
    pub put_aside: bool,
    /// Have thawed what must be thawed, instead of refusing.
    pub thaw: bool,
    /// Start the server, and how.
    pub start: Option<StartOptions>,
}

/// How the restored server is started.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The folder of its programs; else it is looked for.
    pub programs: Option<PathBuf>,
    /// Another port than the configured one.
    pub port: Option<u16>,
}

/// A restore that was decided.
pub struct RestoreJob<'a> {
    settings: &'a Settings,
    cluster: Cluster,
    pub plan: RecoveryPlan,
    choices: Choices,
    pub destination: Option<Destination>,
    /// What is kept of what is there.
    pub aside: PutAside,
    /// The folder of the server's programs, and its port, where it is started.
    server: Option<(PathBuf, Option<u16>)>,
    /// What it keeps from deletion, where the repository takes that.
    lease: Mutex<Option<Lease>>,
}

impl<'a> RestoreJob<'a> {
    /// Decides how a plan is carried out. Errors: what is asked for does not go together, or with the plan.
    pub fn new(
        settings: &'a Settings,
        cluster: Cluster,
        plan: RecoveryPlan,
        order: Order,
    ) -> anyhow::Result<Self> {
        let Order {
            to_dir,
            relocations,
            action,
            keep_archiving,
            check_space,
            put_aside,
            thaw,
            start,
        } = order;
        check_action(&plan, action)?;
        let (fetch, configuration) = fetch_command(settings)?;
        let choices = Choices {
            action,
            keep_archiving,
            check_space,
            thaw,
            fetch,
            configuration,
        };
        let repository = settings.repository.url.folder();
        let place = |to_dir: &PathBuf| {
            destination::destination(to_dir, &plan, &relocations, keep_archiving, repository)
        };
        let destination = to_dir.as_ref().map(place).transpose()?;
        let aside = match &destination {
            Some(destination) if put_aside => put_aside::plan(destination, chrono::Utc::now())?,
            _ => PutAside::default(),
        };
        let server = |StartOptions { programs, port }: StartOptions| {
            anyhow::Ok((
                programs::find(plan.backup.major, programs.as_deref())?,
                port,
            ))
        };
        let server = start.map(server).transpose()?;
        Ok(Self {
            settings,
            cluster,
            plan,
            choices,
            destination,
            aside,
            server,
            lease: Mutex::default(),
        })
    }

    fn destination(&self) -> anyhow::Result<&Destination> {
        self.destination.as_ref().context("--to-dir is needed")
    }

    /// The new data directory.
    pub fn data_directory(&self) -> anyhow::Result<&Path> {
        Ok(&self.destination()?.data_directory)
    }

    /// All settings that the server would get. Errors: what the restore itself would refuse. Touches nothing.
    pub async fn rehearse(&self) -> anyhow::Result<Vec<(String, String)>> {
        if let Some(destination) = &self.destination {
            self.check(destination, &self.aside).await?;
        }
        recovery::settings(&self.plan, &self.choices)
    }

    async fn check(&self, destination: &Destination, aside: &PutAside) -> anyhow::Result<()> {
        check(&self.cluster, &self.plan, destination, &self.choices, aside).await
    }

    /// Puts aside what is there, once everything else that can be refused was not. After an error all is where it was.
    pub async fn put_aside(&self) -> anyhow::Result<()> {
        if self.aside.kept.is_none() {
            return Ok(());
        }
        self.rehearse().await?;
        self.aside.carry_out(self.destination()?)
    }

    /// What must be thawed before the plan can be carried out.
    pub async fn cold(&self) -> anyhow::Result<ColdObjects> {
        cold::survey(&self.cluster, &self.plan).await
    }

    /// Has that thawed, and waits for it; retention leaves it meanwhile.
    pub async fn thaw(&self, cold: &ColdObjects, progress: &ThawProgress) -> anyhow::Result<()> {
        let mut held = self.lease.lock().await;
        *held = self.hold().await?;
        let work = cold::thaw(&self.cluster, cold, &self.settings.restore, progress);
        let thawed = match &*held {
            Some(lease) => lease.while_held(work).await,
            None => work.await,
        };
        if thawed.is_err()
            && let Some(lease) = held.take()
        {
            lease.release().await;
        }
        thawed
    }

    /// Says what the restore needs, where it may.
    async fn hold(&self) -> anyhow::Result<Option<Lease>> {
        let needs = Needs::of_plan(&self.plan);
        let content = LeaseContent::own(LeaseKind::Restore, needs, LEASE);
        Ok(match register(&self.cluster, content).await? {
            Ok(lease) => Some(lease),
            // Who restores needs no right to write there.
            Err(error) => {
                tracing::info!("{}", one_line(&error.into()));
                None
            }
        })
    }

    /// Restores the files; `progress` tells how far that is. Errors: also
    /// [`BeingDeleted`](crate::postgres::protection::BeingDeleted).
    pub async fn restore(&self, progress: Arc<RestoreProgress>) -> anyhow::Result<Restored> {
        let destination = self.destination()?;
        self.check(destination, &PutAside::default()).await?;
        let mut held = self.lease.lock().await;
        if held.is_none() {
            *held = self.hold().await?;
        }
        let workers = self.settings.restore.workers;
        let work = restore(
            &self.cluster,
            &self.plan,
            destination,
            &self.choices,
            workers,
            progress,
        );
        let restored = match &*held {
            Some(lease) => lease.while_held(work).await,
            None => work.await,
        };
        self.keep_wal(&mut held, restored.is_ok()).await;
        restored
    }

    /// Restored files need no more than the WAL, until they were recovered.
    async fn keep_wal(&self, held: &mut Option<Lease>, is_restored: bool) {
        let (needs, life) = (
            Needs::wal_of_plan(&self.plan),
            self.settings.restore.wal_lease,
        );
        match held.take() {
            Some(mut lease) if is_restored => {
                if let Err(error) = lease.outlive(needs, life).await {
                    tracing::info!("the WAL to replay is not registered: {}", one_line(&error));
                }
                *held = Some(lease);
            }
            Some(lease) => lease.release().await,
            None => (),
        }
    }

    /// A replacement that does not archive must not go into use unnoticed.
    pub fn check_archiving(&self, restored: &Restored) -> anyhow::Result<()> {
        let why = restored
            .archiving
            .off_because
            .as_ref()
            .filter(|_| self.choices.keep_archiving);
        let Some(why) = why else { return Ok(()) };
        let error = anyhow!(
            "the files are restored, but with their configuration the server would not archive: {why}"
        );
        let file = self.data_directory()?.join("postgresql.auto.conf");
        Err(with_hint(
            error,
            format!(
                "set archive_mode = on and archive_command in \"{}\", then start the server",
                file.display()
            ),
        ))
    }

    /// Starts the server, compares where it stopped with the plan, and notes what it took; `None`: that is not asked for.
    pub async fn start(
        &self,
        restored: &Restored,
        watch: Watch<'_>,
    ) -> anyhow::Result<Option<Recovered>> {
        let Some((programs, port)) = &self.server else {
            return Ok(None);
        };
        let begun = Instant::now();
        // The role that reaches the source reaches the restored server, too.
        let user = ConnInfo::from_process(self.settings.postgresql.dsn.expose())
            .ok()
            .map(|info| info.user);
        let how = ServerStart {
            programs,
            data_directory: self.data_directory()?,
            major: self.plan.backup.major,
            port: *port,
            user: user.as_deref(),
            only_for_recovery: recovery::only_for_recovery(&restored.settings),
            patience: self.settings.restore.stall_timeout,
        };
        let mut held = self.lease.lock().await;
        let work = start::start(how, watch);
        let mut recovered = match &*held {
            Some(lease) => lease.while_held(work).await,
            None => work.await,
        }?;
        // A server that is where it should be asks for no more.
        if let Some(lease) = held.take() {
            lease.release().await;
        }
        recovered.check(&self.plan);
        let took = PastRestore {
            at: chrono::Utc::now(),
            plain_bytes: self.plan.backup.plain_bytes,
            seconds_for_files: restored.seconds_for_files + restored.seconds_for_fsync,
            segments: self.plan.segments,
            seconds_for_replay: begun.elapsed().as_secs_f64(),
        };
        // Only an estimate depends on it.
        if let Err(error) = restore_history::add(&self.settings.catalog.cache, took) {
            tracing::debug!("{error:#}");
        }
        Ok(Some(recovered))
    }
}

fn check_action(plan: &RecoveryPlan, action: TargetAction) -> anyhow::Result<()> {
    if action != TargetAction::Promote && !plan.has_target() {
        let error = anyhow!(
            "--target-action other than promote needs a target: at the end of all WAL PostgreSQL promotes"
        );
        return Err(with_hint(
            error,
            "name a target, such as --time, or leave out --target-action",
        ));
    }
    Ok(())
}
