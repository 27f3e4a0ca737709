//! `walden check`: is everything in place so that WAL is archived and backups can be taken? Each theme gathers facts,
//! then pure functions decide over them; a check that cannot be decided says because of which other one.

mod archiver;
mod aside;
mod command;
mod configuration;
mod end_to_end;
mod hook;
mod hook_target;
mod lifecycle;
mod location;
mod owner;
mod recovery;
mod server;
mod settings;
mod space;
mod store;
#[cfg(test)]
mod testing;
mod upkeep;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::Instant;

use crate::config::Settings;
use crate::error::with_hint;
use crate::owner::Owner;
use crate::postgres::archive::Fetcher;
use crate::postgres::cluster::Cluster;
use crate::postgres::command_line::archive_command_of;
use crate::postgres::layout::Layout;
use crate::postgres::replication::Connection;
use crate::postgres::restore::assignment;
use crate::repo::Repository;
use crate::storage::{Storage, until};

pub use archiver::archived_before;
pub use configuration::unreadable as unreadable_configuration;
pub use location::{ServerFolder, ServerFolders, refuse_inside};
use space::disk_use;
pub use store::refuse_unsafe;
pub use upkeep::{LookAtJobs, UpkeepReader, upkeep};
pub use verdict::{Check, CheckError, CheckStatus, Verdict, overall};

use archiver::Archiver;
use verdict::chosen;

/// What to check, and how.
pub struct CheckRequest<'a> {
    pub settings: &'a Settings,
    pub storage: Arc<dyn Storage>,
    /// Empty: all of them.
    pub checks: BTreeSet<Check>,
    /// How the scheduled jobs stand.
    pub jobs: LookAtJobs,
    /// Whether to switch WAL for [`Check::EndToEnd`].
    pub probe: bool,
    /// The longest wait for the store, for the server, and for the archiver.
    pub timeout: Duration,
}

impl CheckRequest<'_> {
    fn wants(&self, any: &[Check]) -> bool {
        self.checks.is_empty() || any.iter().any(|check| self.checks.contains(check))
    }

    fn layout(&self) -> anyhow::Result<Layout> {
        Ok(Layout::new(self.settings.cluster.name.parse()?))
    }

    fn fetcher(&self, cluster: Cluster) -> Fetcher {
        Fetcher::new(cluster, self.timeout, 1)
    }

    /// Waits no longer than `timeout`.
    async fn within<T, E: Into<anyhow::Error>>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CheckError> {
        match tokio::time::timeout(self.timeout, until(Instant::now() + self.timeout, work)).await {
            Ok(result) => result.map_err(|error| CheckError::from(&error.into())),
            Err(_) => {
                let error = anyhow!(
                    "{what} did not answer within {} s",
                    self.timeout.as_secs_f32()
                );
                Err(CheckError::from(&with_hint(
                    error,
                    "find out what it waits for, or raise --timeout",
                )))
            }
        }
    }
}

/// Checks that only the server can answer.
const SERVER: &[Check] = &[
    Check::Server,
    Check::Place,
    Check::Identity,
    Check::WalLevel,
    Check::ArchiveMode,
    Check::ArchiveCommand,
    Check::ArchiveTimeout,
    Check::FullPageWrites,
    Check::Privileges,
    Check::Replication,
    Check::Hook,
    Check::EndToEnd,
    Check::Archiver,
];

/// Runs the checks: those asked for, and those because of which they could not be decided; in the order of
/// [`Check::ALL`].
pub async fn run(request: &CheckRequest<'_>) -> Vec<Verdict> {
    let mut verdicts = vec![configuration::check(request.settings)];
    let wanted = [
        store::CHECKS,
        recovery::CHECKS,
        upkeep::CHECKS,
        &[
            Check::Lifecycle,
            Check::Space,
            Check::Identity,
            Check::EndToEnd,
            Check::Archiver,
        ],
    ]
    .concat();
    let repository = match request.wants(&wanted) {
        true => store::check(request, &mut verdicts).await,
        false => None,
    };
    check_place_of(request, repository.is_some(), &mut verdicts).await;
    let user = match request.wants(SERVER) || request.wants(&[Check::Service, Check::Owner]) {
        true => check_server(request, repository.clone(), &mut verdicts).await,
        false => None,
    };
    if request.wants(&[Check::Owner]) {
        verdicts.push(owner::check(request, user));
    }
    if request.wants(&[Check::Service]) {
        verdicts.push(hook::check_service(request, user).await);
    }
    if request.wants(&[Check::Certificate]) {
        verdicts.push(upkeep::check_certificate(request.settings));
    }
    if request.wants(upkeep::CHECKS) {
        verdicts.extend(upkeep::check(request, repository.clone()).await);
    }
    if request.wants(recovery::CHECKS) {
        // Last: what was just archived counts.
        let is_down =
            |verdict: &Verdict| verdict.check == Check::Server && verdict.status > CheckStatus::Ok;
        let asks = !verdicts.iter().any(is_down);
        verdicts.extend(recovery::check(request, repository, asks).await);
    }
    chosen(verdicts, &request.checks)
}

/// The bucket's rules, or the room in the folder. `is_there`: the repository can be reached.
async fn check_place_of(request: &CheckRequest<'_>, is_there: bool, verdicts: &mut Vec<Verdict>) {
    if request.wants(&[Check::Lifecycle]) {
        verdicts.push(match is_there {
            true => lifecycle::check(request).await,
            false => Check::Lifecycle.because(Check::Repository),
        });
    }
    if request.wants(&[Check::Space]) {
        verdicts.push(match is_there {
            true => space::check(request).await,
            false => Check::Space.because(Check::Repository),
        });
    }
}

/// What is decided anew once the checks have shown what the settings really do.
struct Doubtful<'a> {
    request: &'a CheckRequest<'a>,
    server: &'a server::ServerFacts,
    user: Option<Owner>,
    /// The setting that `walden init` prints.
    line: &'a str,
    /// An `archive_command` that is right by itself may work for another cluster.
    whose: Option<Verdict>,
}

impl Doubtful<'_> {
    fn settings(&self, proven: bool) -> Vec<Verdict> {
        let known = settings::SettingsFacts {
            standby: self.server.standby,
            line: self.line,
            proven,
        };
        let mut verdicts = settings::decide(&self.server.settings, &known);
        let good = verdicts
            .iter_mut()
            .find(|one| one.check == Check::ArchiveCommand && one.status == CheckStatus::Ok);
        if let (Some(verdict), Some(whose)) = (good, &self.whose) {
            verdict.clone_from(whose);
        }
        verdicts
    }

    fn hook(&self, proven: bool) -> Verdict {
        hook::check_hook(self.request, self.server, self.user, self.line, proven)
    }
}

/// The server's part; the server's user, if that can be seen.
async fn check_server(
    request: &CheckRequest<'_>,
    repository: Option<Repository>,
    verdicts: &mut Vec<Verdict>,
) -> Option<Owner> {
    let gathered = server::gather(request).await.map_err(|error| {
        verdicts.push(Check::Server.failed(&error));
        verdicts.extend(
            SERVER
                .iter()
                .skip(1)
                .map(|check| check.because(Check::Server)),
        );
    });
    let (mut sql, server) = gathered.ok()?;
    verdicts.push(server::decide_server(&server));
    let cluster = match repository {
        Some(repository) => Some(
            request
                .within("the repository", open_cluster(request, repository))
                .await,
        ),
        None => None,
    };
    let user = hook::server_user(request, &server);
    verdicts.extend(check_running(request, &mut sql, &server, user, cluster).await);
    user
}

/// What a server that answers is checked for.
async fn check_running(
    request: &CheckRequest<'_>,
    sql: &mut Connection,
    server: &server::ServerFacts,
    user: Option<Owner>,
    cluster: Option<Result<Cluster, CheckError>>,
) -> Vec<Verdict> {
    let identity = match &cluster {
        Some(cluster) => server::decide_identity(server, cluster),
        None => Check::Identity.because(Check::Repository),
    };
    let line = assignment("archive_command", &archive_command_of(request.settings));
    let line = line.trim_end();
    let doubtful = Doubtful {
        request,
        server,
        user,
        line,
        whose: hook::check_whose(request, server, user, line),
    };
    let mut verdicts = vec![server::decide_privileges(
        &server.role,
        request.probe && !server.standby,
    )];
    if request.wants(&[Check::Place]) {
        verdicts.push(location::check(request, sql).await);
    }
    if request.wants(&[Check::Replication]) {
        verdicts.push(server::check_replication(request, server).await);
    }
    let (mut settings, mut hook) = (doubtful.settings(false), doubtful.hook(false));
    if request.wants(&[Check::EndToEnd]) {
        let causes: Vec<&Verdict> = [&identity]
            .into_iter()
            .chain(&settings)
            .chain([&hook])
            .collect();
        let hindrance = end_to_end::hindrance(request.probe, server, &causes);
        let verdict = check_end_to_end(request, sql, server, cluster.as_ref(), hindrance).await;
        if verdict.status == CheckStatus::Ok {
            (settings, hook) = (doubtful.settings(true), doubtful.hook(true));
        }
        verdicts.push(verdict);
    }
    verdicts.extend(settings.into_iter().chain([identity, hook]));
    // Last: what was just archived counts.
    verdicts.push(check_archiver(request, sql, server, cluster.as_ref()).await);
    verdicts
}

async fn check_end_to_end(
    request: &CheckRequest<'_>,
    sql: &mut Connection,
    server: &server::ServerFacts,
    cluster: Option<&Result<Cluster, CheckError>>,
    hindrance: Option<Verdict>,
) -> Verdict {
    match (hindrance, cluster) {
        (Some(verdict), _) => verdict,
        (None, Some(Ok(cluster))) => end_to_end::check(request, sql, server, cluster).await,
        (None, _) => Check::EndToEnd.because(Check::Identity),
    }
}

async fn check_archiver(
    request: &CheckRequest<'_>,
    sql: &mut Connection,
    server: &server::ServerFacts,
    cluster: Option<&Result<Cluster, CheckError>>,
) -> Verdict {
    let archiver = request.within("PostgreSQL", Archiver::ask(sql)).await;
    let verdict = archiver::decide(&archiver, server, &request.settings.health);
    match cluster {
        Some(Ok(cluster)) if request.wants(&[Check::Archiver]) => {
            aside::add(request, cluster, verdict).await
        }
        _ => verdict,
    }
}

async fn open_cluster(
    request: &CheckRequest<'_>,
    repository: Repository,
) -> anyhow::Result<Cluster> {
    Cluster::open(repository, request.settings.cluster.name.parse()?).await
}
