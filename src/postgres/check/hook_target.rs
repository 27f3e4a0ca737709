//! Which cluster of which repository the hooks of a server serve without the service, as far as their command lines and
//! the server's environment tell.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::WaldenCommand;
use crate::config::{self, ClusterIdentity};
use crate::error::one_line;
use crate::wire::{CONFIG_VARIABLE, IDENTITY_VARIABLES};

/// What a hook's own work would be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HookTarget {
    /// What this configuration says.
    Same,
    Other(String),
    /// For nobody: the hook is told a socket and nothing else.
    Nobody,
    /// The configuration cannot be read.
    Unreadable(String),
    /// It depends on the server's environment, which cannot be seen.
    Unseen,
}

/// Whom it serves, compared with `wanted`. The server runs its commands in its data directory.
pub(super) fn hook_target(
    ours: &WaldenCommand,
    data_directory: Option<&Path>,
    wanted: &ClusterIdentity,
) -> HookTarget {
    if ours.is_hook && ours.socket.is_some() && ours.config.is_none() {
        return HookTarget::Nobody;
    }
    let environment = data_directory.and_then(environment);
    if environment.is_none() && ours.config.is_none() {
        return HookTarget::Unseen;
    }
    let told = ours
        .variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let all: Vec<(OsString, OsString)> = told.chain(environment.unwrap_or_default()).collect();
    let value = |name: &str| {
        all.iter()
            .find(|(each, _)| each == name)
            .map(|(_, value)| value.clone())
    };
    let named = ours.config.clone().or_else(|| {
        value(CONFIG_VARIABLE)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    });
    let file = named.map(|file| data_directory.map_or(file.clone(), |folder| folder.join(&file)));
    let variables = IDENTITY_VARIABLES
        .iter()
        .filter_map(|name| Some((*name, value(name)?)));
    match config::load(file.as_deref(), variables) {
        Ok(settings) => match ClusterIdentity::of(&settings, value) {
            meant if meant.is(wanted) => HookTarget::Same,
            meant => HookTarget::Other(meant.to_string()),
        },
        Err(error) => HookTarget::Unreadable(one_line(&error)),
    }
}

/// The environment of the server in this data directory; `None` when it cannot be seen.
fn environment(data_directory: &Path) -> Option<Vec<(OsString, OsString)>> {
    let pid_file = fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
    let pid: u32 = pid_file.lines().next()?.trim().parse().ok()?;
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        Some((
            OsStr::from_bytes(&variable[..at]).to_os_string(),
            OsStr::from_bytes(&variable[at + 1..]).to_os_string(),
        ))
    });
    Some(variables.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::command::{Program, program};

    #[test]
    fn a_hook_is_for_whom_its_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, cluster: &str| {
            let text =
                format!("repository.url = \"file:///srv/x\"\ncluster.name = \"{cluster}\"\n");
            fs::write(folder.path().join(name), text).unwrap();
        };
        file("main.toml", "main");
        file("copy.toml", "copy");
        let settings = config::load(Some(&folder.path().join("main.toml")), [("", ""); 0]).unwrap();
        let wanted = ClusterIdentity::of(&settings, |_| None);
        let asked = |line: &str| {
            let Program::Ours(ours) = program(line) else {
                panic!("{line}")
            };
            hook_target(&ours, Some(folder.path()), &wanted)
        };
        assert_eq!(
            asked("archive-command --config main.toml --socket /s %p"),
            HookTarget::Same
        );
        assert_eq!(
            asked("walden --config main.toml wal push %p"),
            HookTarget::Same
        );
        let HookTarget::Other(other) = asked("archive-command --config=copy.toml %p") else {
            panic!("no other")
        };
        assert!(other.contains("\"copy\""), "{other}");
        assert!(matches!(
            asked("env WALDEN_CLUSTER__NAME=b archive-command --config main.toml %p"),
            HookTarget::Other(_)
        ));
        assert_eq!(
            asked("WALDEN_CLUSTER__NAME=main archive-command --config copy.toml %p"),
            HookTarget::Same
        );
        assert_eq!(asked("archive-command --socket /s %p"), HookTarget::Nobody);
        assert!(matches!(
            asked("archive-command --config none.toml --socket /s %p"),
            HookTarget::Unreadable(_)
        ));
        assert_eq!(
            asked("archive-command %p"),
            HookTarget::Unseen,
            "no server runs in that data directory"
        );
    }
}
