//! An empty server in a folder that goes away, for what a dump holds.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, anyhow};
use tokio::process::Command;

use super::restored::private_socket;
use super::scratch::Scratch;
use super::server::{configure, without_event_triggers};
use crate::config::Settings;
use crate::postgres::restore::copy_settings;
use crate::postgres::restore::start::{Recovered, ServerStart, start};
use crate::postgres::types::MajorVersion;

/// The superuser of such a server.
pub const SUPERUSER: &str = "postgres";

/// Makes and starts it with the programs of a folder. Errors: it does not start, or a program is missing.
pub async fn made(
    settings: &Settings,
    scratch: &Scratch,
    programs: &Path,
    major: MajorVersion,
) -> anyhow::Result<Recovered> {
    let data = scratch.data();
    private_socket(&data)?;
    init(programs, &data).await?;
    let apart = copy_settings::settings(major);
    let own = apart.chain(copy_settings::sockets(&data));
    let own = own.chain(without_event_triggers(major));
    configure(scratch, settings.drill.memory, &[], own)?;
    let how = ServerStart {
        programs,
        data_directory: &data,
        major,
        port: None,
        user: Some(SUPERUSER),
        only_for_recovery: Vec::new(),
        patience: settings.restore.stall_timeout,
    };
    start(how, &|_| ()).await
}

async fn init(programs: &Path, data: &Path) -> anyhow::Result<()> {
    let initdb = programs.join("initdb");
    let mut command = Command::new(&initdb);
    command.arg("--pgdata").arg(data);
    command.args(["--username", SUPERUSER, "--auth=trust", "--encoding=UTF8"]);
    command.args(["--no-locale", "--no-sync"]);
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run \"{}\"", initdb.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(anyhow!("initdb made no server: {}", said.trim()))
        }
    }
}
