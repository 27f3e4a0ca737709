//! Settings: one TOML file and the environment in, validated [`Settings`] out.
//!
//! Every setting is one row of the table in `settings`. Its typed field, validation, the names of the environment
//! variables, the commented example file and the reference table all come from that row, so none of them can say
//! something the others do not.
//!
//! The environment is an argument of [`load`] and nothing here logs: the caller decides what both mean.

mod choices;
mod cron;
mod identity;
mod keep;
mod keys;
mod presets;
mod private;
mod raw;
mod render;
mod secret;
mod settings;
mod table;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod units;
mod url;
mod value;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::error::{Hint, with_hint};

pub use choices::{
    Checkpoint, CreateOnly, DumpFrom, DumpOutput, Encryption, LogFormat, LogLevel, ThawSpeed,
};
pub use cron::{Cron, TimeZone};
pub use identity::ClusterIdentity;
pub use keep::Keep;
pub use keys::{Fallback, SettingKey, SettingType};
pub use presets::{PRESETS, Preset};
pub use private::read_private;
pub use render::{DisplayedSetting, effective, example, render_commented, render_reference, show};
pub use secret::Secret;
pub use settings::{
    Alerts, Backup, Catalog, Cluster, Dump, Health, Http, KEYS, Log, Postgresql, Repository,
    Restore, Retention, RetentionBase, RetentionDump, RetentionSchema, S3, Schedule, Service,
    Settings, Wal,
};
pub use units::{parse_duration, read_duration};
pub use url::RepositoryUrl;

/// The file that is read when neither `--config` nor `WALDEN_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/walden/walden.toml";

/// Where hooks look for the service when nothing else is said; the hook programs carry the same path.
pub const DEFAULT_SOCKET: &str = crate::wire::DEFAULT_SOCKET;

/// The folder of what can be made anew.
pub const DEFAULT_CACHE: &str = "/var/lib/walden/cache";

/// Bytes of a configuration file, at most.
const LONGEST_FILE: u64 = 1 << 20;

/// Where the settings came from, for messages and for commands that must find the same settings again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsSource {
    /// This file (an absolute path); the environment may have overridden some of it.
    File(PathBuf),
    /// No file was read.
    Environment,
}

impl std::fmt::Display for SettingsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SettingsSource::File(path) => write!(f, "{}", path.display()),
            SettingsSource::Environment => f.write_str("environment"),
        }
    }
}

/// What decided one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    Environment,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
        })
    }
}

/// Reads and validates the settings.
///
/// The file is `explicit` (from `--config`), else `WALDEN_CONFIG` of `env`, else [`DEFAULT_FILE`] if that exists; then
/// variables `WALDEN_SECTION__KEY` of `env` override it. Pass [`std::env::vars_os`], which, unlike `vars`, does not
/// panic on a variable that is not UTF-8.
///
/// # Errors
/// A file that was named but is absent; a file that cannot be read; an unknown key or variable; a value of the wrong
/// type or out of range, in the file even where the environment overrides it; no `repository.url`.
pub fn load<K, V>(
    explicit: Option<&Path>,
    env: impl IntoIterator<Item = (K, V)>,
) -> anyhow::Result<Settings>
where
    K: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    load_with_default(explicit, env, Path::new(DEFAULT_FILE))
}

fn load_with_default<K, V>(
    explicit: Option<&Path>,
    env: impl IntoIterator<Item = (K, V)>,
    default_file: &Path,
) -> anyhow::Result<Settings>
where
    K: AsRef<OsStr>,
    V: AsRef<OsStr>,
{
    let environment = raw::Environment::collect(env)?;
    let named = explicit.or(environment.config_file.as_deref());
    let file = match named {
        Some(path) => Some(read(path)?.ok_or_else(|| absent(path, explicit.is_some()))?),
        None => read(default_file)?,
    };
    let mut warnings = Vec::new();
    let mut entries = raw::Entries::default();
    if let Some(file) = &file {
        entries.add_file(&file.path, &file.text)?;
        warnings.extend(exposed_password(file, &entries));
    }
    entries.add_environment(environment)?;
    let source = file.map_or(SettingsSource::Environment, |file| {
        SettingsSource::File(file.path)
    });
    settings::build(|path| entries.take(path), source, warnings)
}

/// A configuration file as it was read.
struct ConfigFile {
    path: PathBuf,
    text: String,
    /// Permission bits.
    mode: u32,
}

/// The file at `path`; `None` if there is none. A file that is there but cannot be read is an error. Neither waits nor
/// reads without end, whatever is there: a request names what the service reads.
fn read(path: &Path) -> anyhow::Result<Option<ConfigFile>> {
    use std::io::{ErrorKind, Read};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};

    let shown = path.display();
    let opened = match std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot open configuration file \"{shown}\""))
                .hint("let the user who runs Walden read the file and enter its folders");
        }
    };
    let meta = opened
        .metadata()
        .with_context(|| format!("cannot inspect \"{shown}\""))?;
    // Whoever wants no file names /dev/null.
    let is_null = meta.file_type().is_char_device() && meta.rdev() == rustix::fs::makedev(1, 3);
    if !(meta.is_file() || is_null) || meta.len() > LONGEST_FILE {
        let error = anyhow!(
            "cannot read configuration file \"{shown}\": it is no regular file of at most {LONGEST_FILE} bytes"
        );
        return Err(with_hint(error, "name the file that `walden init` wrote"));
    }
    let (mode, mut text) = (meta.permissions().mode(), String::new());
    let read = opened.take(LONGEST_FILE).read_to_string(&mut text);
    read.with_context(|| format!("cannot read configuration file \"{shown}\""))?;
    let path =
        std::path::absolute(path).with_context(|| format!("cannot make \"{shown}\" absolute"))?;
    Ok(Some(ConfigFile { path, text, mode }))
}

fn absent(path: &Path, from_argument: bool) -> anyhow::Error {
    let named_by = if from_argument {
        "--config"
    } else {
        "WALDEN_CONFIG"
    };
    with_hint(
        anyhow!(
            "configuration file \"{}\", named by {named_by}, does not exist",
            path.display()
        ),
        "`walden init` writes a commented one",
    )
}

/// A warning if every user of the machine can read a password in the file.
fn exposed_password(file: &ConfigFile, entries: &raw::Entries) -> Option<String> {
    let in_dsn = entries
        .secret("postgresql.dsn")
        .is_some_and(|dsn| secret::holds_password(dsn.expose()));
    let key = entries
        .secret("s3.secret_access_key")
        .is_some_and(|key| !key.is_empty());
    let token = entries
        .secret("http.token")
        .is_some_and(|token| !token.is_empty());
    let (what, elsewhere) = match (in_dsn, key, token) {
        (true, ..) => (
            "a password in \"postgresql.dsn\"",
            "move the password to a PGPASSFILE",
        ),
        (_, true, _) => (
            "\"s3.secret_access_key\"",
            "use the standard chain of credentials",
        ),
        (.., true) => ("\"http.token\"", "use `http.token_file`"),
        _ => return None,
    };
    (file.mode & 0o004 != 0).then(|| {
        format!(
            "configuration file \"{}\" holds {what} and every user can read it (mode {:04o}): run `chmod o-rwx` on it, \
             or {elsewhere}",
            file.path.display(),
            file.mode & 0o7777,
        )
    })
}
