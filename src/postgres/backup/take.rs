//! A base backup from its first check to its manifest.

use std::time::Duration;

use tokio::sync::watch;

use super::ask::ask;
use super::finish::{Gathered, commit, describe};
use super::packer::PackOptions;
use super::pipeline::{Closed, Packed, Pipeline};
use super::refused::{verification_trips, with_way_out};
use super::start::{After, BackupServer, start};
use super::stream::{BackupEvents, Transferred, transfer};
use super::wal::{NeededWal, WalMissing, wait_for_wal};
use super::{BackupObserver, cleanup, started};
use crate::error::{find, one_line, with_hint};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::load::load_backups;
use crate::postgres::replication::conninfo::{ConnInfo, ResolveConnInfo};
use crate::postgres::replication::{
    BackupEvent, BackupOptions, BaseBackup, Checkpoint, Connection, Mode,
};
use crate::postgres::types::WalFileName;

/// Tries to ask the server after the backup's end, and the pause between them.
const AFTER_TRIES: u32 = 5;
const AFTER_PAUSE: Duration = Duration::from_secs(1);

/// How a backup is taken.
#[derive(Debug, Clone)]
pub struct TakeOptions {
    /// The user's words for it, at most 1024 bytes without control characters.
    pub label: String,
    pub checkpoint: Checkpoint,
    /// Upper limit of the transfer in KiB per second, 32 to 1048576.
    pub max_rate_kib: Option<u32>,
    /// Whether the server verifies page checksums, where the cluster has them.
    pub verify_checksums: bool,
    pub pack: PackOptions,
    /// How long to wait for the backup's WAL after its end.
    pub wal_timeout: Duration,
}

/// Somebody asked for the end.
#[derive(Debug, thiserror::Error)]
#[error("the backup was interrupted")]
pub struct Interrupted;

/// Takes a backup. When `stop` becomes true it is given up, and what was stored is removed.
///
/// A backup whose pages failed the server's verification succeeds; its description says so.
pub async fn take(
    cluster: &Cluster,
    resolve: ResolveConnInfo<'_>,
    options: &TakeOptions,
    observer: BackupObserver<'_>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<BackupDescription> {
    // Before there is a session that would wait.
    let unfinished = or_stop(stop, async { Ok(load_backups(cluster).await?.unfinished) }).await?;
    or_stop(stop, cleanup::remove_abandoned(cluster, &unfinished)).await?;
    cleanup::sweep(cluster).await;
    let (server, physical) = or_stop(stop, start(cluster, resolve)).await?;
    tracing::info!(
        "taking a backup of PostgreSQL {} at {}",
        server.version,
        physical.server()
    );
    let taken = from_live(cluster, &server, physical, options, observer, stop).await;
    let Some(said) = taken
        .as_ref()
        .err()
        .filter(|_| options.verify_checksums)
        .and_then(verification_trips)
    else {
        return taken.map_err(with_way_out);
    };
    tracing::warn!(
        "the server cannot verify page checksums ({said}): taking the backup without. HINT: move that file \
         out of the data directory"
    );
    let physical = Connection::connect(&server.info, Mode::Physical).await?;
    let unverified = TakeOptions {
        verify_checksums: false,
        ..options.clone()
    };
    from_live(cluster, &server, physical, &unverified, observer, stop)
        .await
        .map_err(with_way_out)
}

async fn from_live(
    cluster: &Cluster,
    server: &BackupServer,
    mut physical: Connection,
    options: &TakeOptions,
    observer: BackupObserver<'_>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<BackupDescription> {
    let backup = physical.base_backup(&asked(options)).await?;
    let id = reserve(cluster).await?;
    let mut source = Live {
        backup,
        info: &server.info,
    };
    let taken = execute(cluster, &id, server, &mut source, options, observer, stop).await;
    // Else the server would go on with a backup that nobody wants while what was stored is removed.
    drop(source);
    drop(physical);
    settle(cluster, &id, taken).await
}

/// What to ask of the server.
pub fn asked(options: &TakeOptions) -> BackupOptions {
    BackupOptions {
        label: options.label.clone(),
        checkpoint: options.checkpoint,
        progress: true,
        max_rate_kib: options.max_rate_kib,
        verify_checksums: options.verify_checksums,
        tablespace_map: true,
    }
}

/// Keeps what a server sends: everything from the reservation of a name to the manifest. On an error nothing that
/// looks like a backup is left.
pub async fn keep(
    cluster: &Cluster,
    server: &BackupServer,
    source: &mut impl BackupSource,
    options: &TakeOptions,
    observer: BackupObserver<'_>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<BackupDescription> {
    let id = reserve(cluster).await?;
    let taken = execute(cluster, &id, server, source, options, observer, stop).await;
    settle(cluster, &id, taken).await
}

async fn reserve(cluster: &Cluster) -> anyhow::Result<BackupId> {
    let (id, _) = started::reserve(cluster).await?;
    tracing::info!("the backup's name is {id}");
    Ok(id)
}

async fn settle(
    cluster: &Cluster,
    id: &BackupId,
    taken: anyhow::Result<BackupDescription>,
) -> anyhow::Result<BackupDescription> {
    match taken {
        Ok(description) => Ok(description),
        Err(error) => Err(give_up(cluster, id, error).await),
    }
}

/// The server of a running backup: the stream, and what is asked beside it.
pub trait BackupSource: BackupEvents {
    /// What it says after the end.
    fn after(&mut self) -> impl Future<Output = anyhow::Result<After>>;
    /// What the server says of its archiver's last failure, where it says anything.
    fn archiver_failure(&mut self) -> impl Future<Output = Option<String>>;
}

/// A server that is connected.
struct Live<'a> {
    backup: BaseBackup<'a>,
    info: &'a ConnInfo,
}

impl BackupEvents for Live<'_> {
    async fn next(&mut self) -> anyhow::Result<Option<BackupEvent>> {
        self.backup.next().await
    }
}

impl BackupSource for Live<'_> {
    async fn after(&mut self) -> anyhow::Result<After> {
        let read = async || {
            // A new connection: one that was idle during a long backup may be gone.
            let mut sql = Connection::connect(self.info, Mode::Sql).await?;
            After::read(&mut sql).await
        };
        let mut tries = 1;
        loop {
            match read().await {
                Err(error) if tries < AFTER_TRIES => {
                    tracing::warn!(
                        "cannot ask the server after the backup's end: {}",
                        one_line(&error)
                    )
                }
                result => return result,
            }
            tries += 1;
            tokio::time::sleep(AFTER_PAUSE).await;
        }
    }

    async fn archiver_failure(&mut self) -> Option<String> {
        let question = "SELECT format('%s failed last at %s, %s failures', last_failed_wal, last_failed_time, failed_count) \
             AS said FROM pg_stat_archiver WHERE last_failed_wal IS NOT NULL";
        let mut sql = Connection::connect(self.info, Mode::Sql).await.ok()?;
        ask(&mut sql, question).await.ok()?.parse(0, "said").ok()
    }
}

/// Everything after the reservation. On an error nothing is under way any more, and what was stored is still there.
async fn execute(
    cluster: &Cluster,
    id: &BackupId,
    server: &BackupServer,
    source: &mut impl BackupSource,
    options: &TakeOptions,
    observer: BackupObserver<'_>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<BackupDescription> {
    let (transferred, packed) = store(cluster, id, server, source, options, observer, stop).await?;
    let Packed {
        manifest,
        totals,
        captured,
    } = packed;
    let after = or_stop(stop, source.after()).await?;
    tracing::info!(
        "the backup ends at {}; its {} packs are stored",
        transferred.end.lsn,
        totals.pack_count
    );
    let needed = NeededWal {
        timeline: transferred.start.timeline,
        start: transferred.start.lsn,
        stop: transferred.end.lsn,
    };
    let label = options.label.as_str();
    let checksums_verified = options.verify_checksums;
    let gathered = Gathered {
        id,
        label,
        server,
        transferred,
        captured,
        totals,
        after,
        checksums_verified,
    };
    let description = describe(cluster, gathered)?;
    let waited = or_stop(
        stop,
        wait_for_wal(cluster, &needed, options.wal_timeout, observer),
    )
    .await;
    if let Err(error) = waited {
        return Err(explain(error, server, source).await);
    }
    commit(cluster, &description, manifest).await?;
    Ok(description)
}

async fn store(
    cluster: &Cluster,
    id: &BackupId,
    server: &BackupServer,
    source: &mut impl BackupSource,
    options: &TakeOptions,
    observer: BackupObserver<'_>,
    stop: &mut watch::Receiver<bool>,
) -> anyhow::Result<(Transferred, Packed)> {
    let mut pipeline = Pipeline::start(cluster, id, options.pack)?;
    match or_stop(
        stop,
        transfer(source, &mut pipeline, &server.outside.files, observer),
    )
    .await
    {
        Ok(transferred) => Ok((transferred, pipeline.finish().await?)),
        Err(error) => {
            let cause = pipeline.abandon().await;
            // That a queue was closed is only the consequence.
            Err(cause
                .filter(|_| find::<Closed>(&error).is_some())
                .unwrap_or(error))
        }
    }
}

/// Adds what helps to the error that WAL is missing.
async fn explain(
    error: anyhow::Error,
    server: &BackupServer,
    source: &mut impl BackupSource,
) -> anyhow::Error {
    let Some(missing) = find::<WalMissing>(&error).map(|error| error.missing) else {
        return error;
    };
    let error = match missing {
        WalFileName::History(_) => with_hint(
            error,
            format!(
                "store it with `walden wal push <data directory>/pg_wal/{missing}`, and take the backup again"
            ),
        ),
        _ => error,
    };
    if server.standby {
        let hint = "run SELECT pg_switch_wal() on the primary, check its archive_command, or raise \
             backup.wal_timeout";
        return with_hint(error, hint);
    }
    let failure = source.archiver_failure().await;
    let failure = failure
        .map(|said| format!(" (pg_stat_archiver: {said})"))
        .unwrap_or_default();
    with_hint(
        error,
        format!(
            "does archive_command fail{failure}? See the server's log, or raise backup.wal_timeout"
        ),
    )
}

/// Removes what a failed backup has stored, as far as possible.
async fn give_up(cluster: &Cluster, id: &BackupId, error: anyhow::Error) -> anyhow::Error {
    match cleanup::discard(cluster, id).await {
        Ok(true) => error.context(format!("backup {id} failed; nothing of it is kept")),
        Ok(false) => error.context(format!("backup {id} was stored, yet ended with an error")),
        Err(second) => {
            tracing::warn!(
                "what backup {id} stored is left for the next backup to remove: {}",
                one_line(&second)
            );
            error.context(format!("backup {id} failed"))
        }
    }
}

/// Does the work unless somebody asks for the end.
async fn or_stop<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let stopped = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped => Err(Interrupted.into()),
        result = work => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service takes backups in tasks: this compiles only while that is possible.
    #[test]
    fn a_backup_can_be_taken_in_a_task() {
        fn is_send<T: Send>(
            _: impl FnOnce(
                &'static Cluster,
                &'static TakeOptions,
                &'static mut watch::Receiver<bool>,
            ) -> T,
        ) {
        }
        is_send(|cluster, options, stop| {
            take(
                cluster,
                &|| ConnInfo::from_process(""),
                options,
                &|_| {},
                stop,
            )
        });
    }
}
