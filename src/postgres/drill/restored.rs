//! A restore into a folder that goes away, up to a server that replayed to where its plan ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::database::{Access, Door};
use super::scratch::Scratch;
use super::server::{configure, not_loaded, split, without_event_triggers};
use super::verdict::{At, Stage};
use crate::config::Settings;
use crate::error::{one_line, with_hint};
use crate::evidence::record::Phase;
use crate::owner::Owner;
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::cluster::Cluster;
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::job::{Order, RestoreJob, StartOptions};
use crate::postgres::restore::relocation::Relocation;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::target_action::TargetAction;
use crate::postgres::restore::{Restored, copy_settings, programs};

pub use super::verdict::Ended;

/// A server in such a folder, and what it does without.
#[derive(Debug)]
pub struct RestoredServer {
    pub recovered: Recovered,
    /// Libraries of `shared_preload_libraries` that it could not load.
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

    let begun = Instant::now();
    let server = start(settings, &job, &done, (scratch, &programs)).await;
    phase("start and replay", begun.elapsed().as_secs_f64());
    server.at(Stage::Server)
}

/// Starts the server, without libraries that it does not find or cannot load.
async fn start(
    settings: &Settings,
    job: &RestoreJob<'_>,
    restored: &Restored,
    (scratch, programs): (&Scratch, &Path),
) -> anyhow::Result<RestoredServer> {
    let configured = programs::configured(programs, &scratch.data(), "shared_preload_libraries")?;
    let (mut libraries, mut missing_libraries) = (split(&configured), Vec::new());
    let started = loop {
        configure(
            scratch,
            settings.drill.memory,
            &libraries,
            without_event_triggers(job.plan.backup.major).into_iter(),
        )?;
        let started = job.start(restored, &|_| ()).await;
        let missing = match &started {
            Err(error) => not_loaded(&one_line(error), &libraries),
            Ok(_) => None,
        };
        match missing {
            Some(at) => missing_libraries.push(libraries.remove(at)),
            None => break started,
        }
    };
    Ok(RestoredServer {
        recovered: started?.context("the restored server was not started")?,
        missing_libraries,
    })
}

impl RestoredServer {
    /// The way in, as a superuser. `limit`: how long one question may take.
    pub async fn door(&self, settings: &Settings, limit: Duration) -> anyhow::Result<Door> {
        let user = ConnInfo::from_process(settings.postgresql.dsn.expose()).map(|info| info.user);
        door(&self.recovered, user.ok(), Access::Private, limit).await
    }
}

/// The way into a server as a superuser; `first`: the role that is tried first. Errors: also that it knows none of those tried.
pub async fn door(
    recovered: &Recovered,
    first: Option<String>,
    access: Access,
    limit: Duration,
) -> anyhow::Result<Door> {
    let users = [first, Some(Owner::own().name()), Some("postgres".into())];
    let users: Vec<String> = users.into_iter().flatten().collect();
    let door = Door {
        socket: recovered.socket_directory.clone(),
        port: recovered.port,
        user: String::new(),
        database: String::new(),
        options: String::new(),
    };
    door.of_superuser(&users, access, limit).await
}

/// The same way for PostgreSQL's programs and for sessions of another kind. What a database sets for its sessions ends none.
pub fn private_info(recovered: &Recovered, user: &str, database: &str) -> anyhow::Result<ConnInfo> {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let socket = recovered.socket_directory.display().to_string();
    let (host, user, database) = (quoted(&socket), quoted(user), quoted(database));
    let port = recovered.port;
    let dsn = format!(
        "host={host} port={port} user={user} dbname={database} sslmode=disable options='-c statement_timeout=0'"
    );
    ConnInfo::alone(&dsn)
}

/// The server lets everybody in who reaches its socket: it must lie where only this user can go.
pub fn private_socket(data: &Path) -> anyhow::Result<()> {
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
        put_aside: false,
        thaw: false,
        start: Some(StartOptions {
            programs: Some(programs.to_path_buf()),
            port: None,
        }),
    }
}
