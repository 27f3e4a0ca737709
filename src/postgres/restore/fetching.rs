//! How the restored server gets at its WAL.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::names::CONFIGURATION;
use super::recovery::FetchCommand;
use crate::config::{self, Origin, Settings, SettingsSource};
use crate::error::with_hint;
use crate::postgres::command_line::program;

/// The command that fetches WAL, and the content of [`CONFIGURATION`] where it needs that. Errors: a secret that
/// the server would not have.
pub fn fetch_command(settings: &Settings) -> anyhow::Result<(FetchCommand, Option<String>)> {
    let (config, configuration) = configuration(settings)?;
    let walden = std::env::current_exe().context("cannot find out where walden itself lies")?;
    let (restore_command, socket) = (program("restore-command"), settings.service.socket.clone());
    Ok((
        FetchCommand {
            walden,
            restore_command,
            config,
            socket,
        },
        configuration,
    ))
}

/// The file with which the restored server finds the repository; its content when it is to be written. The
/// environment of this process will not be the server's.
fn configuration(settings: &Settings) -> anyhow::Result<(PathBuf, Option<String>)> {
    // The hook socket stands on the command line of restore_command.
    let is_decisive = |key: &str| {
        matches!(key.split('.').next(), Some("repository" | "s3")) || key == "cluster.name"
    };
    let is_secret = |key: &str| matches!(key, "s3.access_key_id" | "s3.secret_access_key");
    let shown = config::effective(settings);
    let given: Vec<_> = shown
        .iter()
        .filter(|shown| is_decisive(&shown.key) && shown.origin != Origin::Default)
        .collect();
    let of_environment: Vec<_> = given
        .iter()
        .filter(|shown| shown.origin == Origin::Environment)
        .collect();
    if let Some(secret) = of_environment.iter().find(|shown| is_secret(&shown.key)) {
        let error = anyhow!(
            "{} is set by the environment, which the restored server will not have",
            secret.key
        );
        return Err(with_hint(
            error,
            "set it in the configuration file (mode 0600), or use the standard chain of credentials",
        ));
    }
    if let (SettingsSource::File(path), []) = (&settings.source, &of_environment[..]) {
        return Ok((path.clone(), None));
    }
    if let (Some(secret), Some(other)) = (
        given.iter().find(|shown| is_secret(&shown.key)),
        of_environment.first(),
    ) {
        let error = anyhow!(
            "{} is set by the environment and {} by a file: the restored server needs both from one file, and its data \
             directory must hold no secret",
            other.key,
            secret.key
        );
        return Err(with_hint(
            error,
            format!("set {} in the configuration file, too", other.key),
        ));
    }
    let given: Vec<(&str, &str)> = given
        .iter()
        .filter_map(|shown| Some((shown.key.as_str(), shown.value.as_deref()?)))
        .collect();
    Ok((
        PathBuf::from(CONFIGURATION),
        Some(config::render_commented(&given)?),
    ))
}
