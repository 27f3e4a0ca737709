//! A restore into a folder that goes away, up to a server that replayed to where its plan ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::database::Door;
use super::scratch::Scratch;
use super::server::configure;
use super::verdict::Stage;
use crate::config::Settings;
use crate::error::with_hint;
use crate::evidence::record::Phase;
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::cluster::Cluster;
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::job::{Order, RestoreJob, StartOptions};
use crate::postgres::restore::relocation::Relocation;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::target_action::TargetAction;
use crate::postgres::restore::{copy_settings, programs};

/// Why a restore into such a folder ended.
#[derive(Debug)]
pub struct Ended(pub Stage, pub anyhow::Error);

/// Errors of a stage.
pub(super) trait At<T> {
    fn at(self, stage: Stage) -> Result<T, Ended>;
}

impl<T> At<T> for anyhow::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Ended> {
        self.map_err(|error| Ended(stage, error))
    }
}

/// A server in such a folder, and what it does without.
#[derive(Debug)]
pub struct RestoredServer {
    pub recovered: Recovered,
    /// Libraries of `shared_preload_libraries` that are not installed here.
    pub missing_libraries: Vec<String>,
}

/// Restores by a plan and starts the server; it replayed, and was promoted. `phases`: how long each took.
pub async fn restored(
    settings: &Settings,
    cluster: Cluster,
    plan: RecoveryPlan,
    scratch: &Scratch,
    phases: &mut Vec<Phase>,
) -> Result<RestoredServer, Ended> {
    private_socket(&scratch.data()).at(Stage::Prepare)?;
    let mut phase = |name: &str, seconds: f64| {
        let name = name.into();
        phases.push(Phase { name, seconds });
    };
    let named = settings.drill.programs.as_deref();
    let programs = programs::find(plan.backup.major, named).at(Stage::Prepare)?;
    let order = order(&plan, scratch, &programs);
    let job = RestoreJob::new(settings, cluster, plan, order).at(Stage::Prepare)?;
    job.rehearse().await.at(Stage::Prepare)?;
    let done = job.restore(Arc::default()).await.at(Stage::Files)?;
    phase("files", done.seconds_for_files + done.seconds_for_fsync);

    let libraries = programs::configured(&programs, &scratch.data(), "shared_preload_libraries");
    let libraries = libraries.at(Stage::Start)?;
    let missing_libraries =
        configure(scratch, &programs, settings.drill.memory, &libraries).at(Stage::Start)?;
    let begun = Instant::now();
    let recovered = job.start(&done, &|_| ()).await.at(Stage::Start)?;
    phase("start and replay", begun.elapsed().as_secs_f64());
    let recovered = recovered.context("the restored server was not started");
    Ok(RestoredServer {
        recovered: recovered.at(Stage::Start)?,
        missing_libraries,
    })
}

impl RestoredServer {
    /// The way in, as a superuser. `limit`: how long one question may take.
    pub async fn door(&self, settings: &Settings, limit: Duration) -> anyhow::Result<Door> {
        let user = ConnInfo::from_process(settings.postgresql.dsn.expose())?.user;
        let door = Door {
            socket: self.recovered.socket_directory.clone(),
            port: self.recovered.port,
            user,
            options: String::new(),
        };
        door.of_superuser("template1", limit).await
    }
}

/// The server lets everybody in who reaches its socket: it must lie where only this user can go.
fn private_socket(data: &Path) -> anyhow::Result<()> {
    let unfit = data.to_str().map_or(Some("is no text"), |path| {
        copy_settings::unfit_for_sockets(path, u16::MAX)
    });
    match unfit {
        None => Ok(()),
        Some(why) => {
            let error = anyhow!(
                "no socket can lie in \"{}\": the path {why}",
                data.display()
            );
            Err(with_hint(
                error,
                "name a folder with a short and plain path in `drill.folder`",
            ))
        }
    }
}

/// Beside everything, with tablespaces in the same folder, promoted so that checks can make what they need.
fn order(plan: &RecoveryPlan, scratch: &Scratch, programs: &Path) -> Order {
    let made = plan.backup.tablespaces.iter().map(|tablespace| Relocation {
        old: tablespace.oid.to_string(),
        new: scratch.join(&format!("tablespace-{}", tablespace.oid)),
    });
    Order {
        to_dir: Some(scratch.data()),
        relocations: made.collect(),
        action: TargetAction::Promote,
        keep_archiving: false,
        check_space: true,
        thaw: false,
        start: Some(StartOptions {
            programs: Some(programs.to_path_buf()),
            port: None,
        }),
    }
}
