//! How all stands, for verbs that tell it: by what the service says, if one answers, and by what the repository keeps.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use chrono::Utc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Context;
use super::jobs::look;
use crate::error::{one_line, with_hint};
use crate::health::{Health, Upkeep};
use crate::postgres::catalog::WalRanges;
use crate::postgres::check::upkeep;
use crate::postgres::cluster::Cluster;
use crate::postgres::overview::Overview;
use crate::service::status::{ServiceStatus, waiting_files};
use crate::wire::{HookRequest, Reply};

/// The service answers at once, or is in trouble.
const PATIENCE: Duration = Duration::from_secs(10);

/// How it stands, and what that was judged by.
pub struct Standing {
    pub cluster: Cluster,
    pub kept: Overview,
    pub upkeep: Upkeep,
    pub health: Health,
}

/// How it stands, with what the service knows, if one answers; and whether what waits to be archived is known. Errors: it
/// could not be found out.
pub async fn standing(context: &Context) -> anyhow::Result<(Health, Upkeep, bool)> {
    let status = service(context).await.ok();
    let found = find_out(context, status.as_ref()).await;
    let Standing { health, upkeep, .. } = found.map_err(anyhow::Error::msg)?;
    let backlogs = status.map(|status| status.archiving.backlogs);
    let knows_waiting = backlogs.is_some_and(|backlogs| waiting_files(&backlogs).is_some());
    Ok((health, upkeep, knows_waiting))
}

/// What the service says.
pub async fn service(context: &Context) -> anyhow::Result<ServiceStatus> {
    let socket = &context.settings.service.socket;
    let asked = tokio::time::timeout(PATIENCE, ask(socket)).await;
    let asked = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match asked.map_err(|error| unanswered(socket, error))? {
        Reply::Status(text) => {
            serde_json::from_slice(&text).context("the service's answer cannot be read")
        }
        Reply::Failed(text) => bail!(
            "{}",
            String::from_utf8_lossy(&text)
                .trim_start_matches("ERROR: ")
                .trim_end()
        ),
        other => {
            let error = anyhow!(
                "the service gave an answer that does not belong to the question: {other:?}"
            );
            Err(with_hint(
                error,
                "install walden of one version, and restart `walden serve`",
            ))
        }
    }
}

/// How it stands; or why that could not be found out.
pub async fn find_out(
    context: &Context,
    status: Option<&ServiceStatus>,
) -> Result<Standing, String> {
    let read = async {
        let prove = async |_: &WalRanges| status.and_then(|status| status.indexing.proven);
        let (cluster, settings) = (context.cluster().await?, &context.settings);
        let kept = Overview::read(&cluster, &settings.catalog.cache, prove).await?;
        anyhow::Ok((cluster, kept))
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    let slow = |_| {
        let seconds = PATIENCE.as_secs();
        Err(anyhow!("the repository did not answer within {seconds} s"))
    };
    let read = read.unwrap_or_else(slow).map_err(|error| one_line(&error));
    let (cluster, kept) = read?;
    let (settings, limits) = (&context.settings, &context.settings.health);
    let upkeep = upkeep(settings, &cluster, &look(settings), PATIENCE).await;
    let upkeep = match status.and_then(|status| status.http.as_ref()?.certificate_until) {
        // What it shows may not be what the file has by now.
        Some(until) => Upkeep {
            certificate: Some(until),
            certificate_unknown: None,
            ..upkeep
        },
        None => upkeep,
    };
    let now = Utc::now();
    let archiving = status.map_or(now.into(), |status| status.archiving.at(now));
    let health = kept.health(limits, archiving);
    Ok(Standing {
        health: health.with(&upkeep, limits, now),
        cluster,
        kept,
        upkeep,
    })
}

/// Nobody there, not let in, or there and silent.
fn unanswered(socket: &Path, error: io::Error) -> anyhow::Error {
    let (what, hint) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => (
            "no service answers on",
            "start `walden serve`, as the user that PostgreSQL runs as; `service.socket` names its socket",
        ),
        ErrorKind::PermissionDenied => (
            "this user may not ask the service on",
            "run this as the user that PostgreSQL runs as, or as root",
        ),
        _ => (
            "the service is there and does not say what it does, on",
            "look at its log; a pg_wal on slow storage, or another version of it, can be why",
        ),
    };
    with_hint(
        anyhow::Error::new(error).context(format!("{what} \"{}\"", socket.display())),
        hint,
    )
}

async fn ask(socket: &Path) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = HookRequest::Status
        .encode()
        .map_err(|error| io::Error::other(error.text()))?;
    stream.write_all(&request).await?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await?;
    let mut rest = reply.as_slice();
    loop {
        match Reply::read_from(&mut rest)? {
            Reply::Working => (),
            answer => return Ok(answer),
        }
    }
}
