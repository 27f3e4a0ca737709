//! `walden init`: the configuration file, the repository's marker, the cluster's registration. Safe to repeat.

mod draft;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::builder::{PossibleValue, PossibleValuesParser};

use draft::Draft;
use report::InitOutput;

use super::context::{heir_of_cluster, open_storage};
use super::{Context, Exit, Format, print_json, print_text};
use crate::config::{self, PRESETS, Preset, Settings};
use crate::error::{Hint, with_hint};
use crate::owner::{self, Owner};
use crate::postgres::archive::store_first_history;
use crate::postgres::catalog::ClusterDescription;
use crate::postgres::check::{ServerFolders, archived_before, refuse_inside, refuse_unsafe};
use crate::postgres::cluster::{Cluster, describe_server};
use crate::postgres::command_line::{archive_command, named_file};
use crate::postgres::layout::Layout;
use crate::postgres::replication::{ConnInfo, Connection, Mode};
use crate::postgres::types::{TimelineId, WalFileName};
use crate::repo::Repository;
use crate::storage::Storage;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to keep everything, such as file:///srv/walden.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// The cluster's name in the repository.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// How to connect: a libpq connection string or URI. What it leaves out comes from PGHOST, PGUSER, PGPASSFILE … A
    /// password is better kept in a password file than here.
    #[arg(long, value_name = "DSN")]
    dsn: Option<String>,
    /// The hook socket of `walden serve`.
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Begin a new archive although this server archived before: what it archived is elsewhere, or lost.
    #[arg(long)]
    new_repository: bool,
    /// Write this policy into the configuration file: what is kept, and for how long.
    #[arg(long, value_name = "NAME", value_parser = presets())]
    preset: Option<String>,
}

/// The presets' names, each with what it is for.
fn presets() -> PossibleValuesParser {
    let value = |preset: &Preset| PossibleValue::new(preset.name).help(preset.about);
    PRESETS.iter().map(value).collect::<Vec<_>>().into()
}

impl Args {
    /// The settings given as arguments, by the names they have in the file.
    fn given(&self) -> Vec<(&'static str, &str)> {
        let arguments = [
            ("repository.url", &self.repository),
            ("cluster.name", &self.cluster),
            ("postgresql.dsn", &self.dsn),
            ("service.socket", &self.socket),
        ];
        let preset = self.preset.as_deref().and_then(Preset::of);
        arguments
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_deref()?)))
            .chain(
                preset
                    .into_iter()
                    .flat_map(|preset| preset.settings.iter().copied()),
            )
            .collect()
    }
}

/// Runs the verb. `file` is `--config`.
pub fn run(file: Option<&Path>, format: Format, args: &Args) -> anyhow::Result<Exit> {
    let target = target_file(file, args);
    let draft = target
        .as_deref()
        .filter(|path| !path.exists())
        .map(|path| Draft::write(path, args))
        .transpose()?;
    let context = match (&draft, &target) {
        (Some(draft), _) => Context::load(Some(&draft.path), format)?,
        (None, Some(path)) => {
            let context = Context::load(Some(path), format)?;
            ensure_same(&context.settings, path, args)?;
            context
        }
        (None, None) => Context::load(None, format)?,
    };
    // Who names a repository in a new file begins one.
    let is_new = args.new_repository || draft.is_some() && args.repository.is_some();
    let (report, user) = context.block_on(register(&context.settings, is_new))?;
    let configuration_written = draft.is_some();
    let mut connection_kept = Vec::new();
    if let Some(draft) = draft {
        connection_kept.clone_from(&draft.connection);
        draft.keep(user)?;
    }
    let not_kept = ConnInfo::added_by_environment(context.settings.postgresql.dsn.expose())?;
    let connection_not_kept = not_kept.iter().map(|added| added.variable).collect();
    let belong_to_root = roots(&context.settings, target.as_deref());
    let archive_command = archive_command(&named_file(target.as_deref()), &report.socket)?;
    let report = InitOutput {
        configuration: target,
        configuration_written,
        connection_kept,
        connection_not_kept,
        belong_to_root,
        archive_command,
        ..report
    };
    match format {
        Format::Json => print_json(&report)?,
        Format::Table => print_text(&report.in_words())?,
    }
    Ok(Exit::Success)
}

/// The file to write or read; none when the environment gives the repository and nobody names a file.
fn target_file(file: Option<&Path>, args: &Args) -> Option<PathBuf> {
    let named = file
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("WALDEN_CONFIG").map(PathBuf::from));
    let by_environment =
        args.given().is_empty() && std::env::var_os("WALDEN_REPOSITORY__URL").is_some();
    named.or_else(|| (!by_environment).then(|| PathBuf::from(config::DEFAULT_FILE)))
}

/// Arguments must not contradict a file that is there: it is not rewritten.
fn ensure_same(settings: &Settings, path: &Path, args: &Args) -> anyhow::Result<()> {
    let shown = config::effective(settings);
    let hint = "edit the file, or name another one with --config";
    for (key, value) in args.given() {
        if key == "postgresql.dsn" {
            // It may hold a password.
            if settings.postgresql.dsn.expose() != value {
                return Err(anyhow!(
                    "\"{}\" exists and has another {key}",
                    path.display()
                ))
                .hint(hint);
            }
            continue;
        }
        let kept = shown
            .iter()
            .find(|shown| shown.key == key)
            .and_then(|shown| shown.value.clone());
        if kept.as_deref() != Some(value) {
            let kept = kept.unwrap_or_default();
            let error = anyhow!(
                "\"{}\" exists and has {key} = \"{kept}\", not \"{value}\"",
                path.display()
            );
            return Err(with_hint(error, hint));
        }
    }
    Ok(())
}

/// What belongs to root, whom PostgreSQL never runs as.
fn roots(settings: &Settings, file: Option<&Path>) -> Vec<PathBuf> {
    if !owner::is_root() {
        return Vec::new();
    }
    let of_root = |_: &&Path| heir_of_cluster(settings).is_ok_and(|user| user.is_none());
    let file = file.filter(|file| Owner::of(file).is_ok_and(|owner| owner.uid == 0));
    file.into_iter()
        .chain(settings.repository.url.folder().filter(of_root))
        .map(Path::to_path_buf)
        .collect()
}

/// As root, makes the repository's folder for the server's user. Errors: it is root's and has something in it.
fn make_folder(folder: &Path, user: Owner) -> anyhow::Result<()> {
    let shown = folder.display();
    owner::make_for(folder, user)
        .with_context(|| format!("cannot make folder \"{shown}\" for {user}"))?;
    let owner = Owner::of(folder).with_context(|| format!("cannot look at folder \"{shown}\""))?;
    match owner.uid == 0 && owner::heir(folder, folder)?.is_none() && !folder.join("walden.json").exists() {
        true => {
            Err(anyhow!("folder \"{shown}\" belongs to root and is not empty, or is a link; PostgreSQL runs as {user}"))
                .hint(format!("name a folder below it, or run: chown {} '{shown}'", user.name()))
        }
        false => Ok(()),
    }
}

/// Refuses to begin an archive where the server has one already, which is only away: such as on a disk that is not mounted.
async fn refuse_second(
    settings: &Settings,
    storage: &dyn Storage,
    folders: &ServerFolders,
) -> anyhow::Result<()> {
    if Repository::is_there(storage).await? {
        return Ok(());
    }
    let hint = "is its disk mounted, and is `repository.url` right? To begin a new archive use --new-repository";
    let shown = storage.describe();
    let asked = archived_before(settings, folders).await;
    let unknown =
        || format!("\"{shown}\" is no repository, and whether the server has one is not known");
    match asked.with_context(unknown).hint(hint)? {
        Some(file) => {
            let told = format!(
                "\"{shown}\" is no repository, but the server has archived before, such as \"{file}\""
            );
            Err(anyhow!("{told}: a new archive would leave a gap")).hint(hint)
        }
        None => Ok(()),
    }
}

/// The server's timeline, if the archive lacks its history: then the server may be a copy of the one that archives.
async fn unknown_timeline(
    cluster: &Cluster,
    timeline: TimelineId,
) -> anyhow::Result<Option<TimelineId>> {
    let key = cluster.layout.wal(&WalFileName::History(timeline));
    let is_known = timeline.0 == 1 || cluster.repository.storage().head(&key).await?.is_some();
    Ok((!is_known).then_some(timeline))
}

/// Opens the repository, or makes it where that is safe; says whether it was made.
async fn make_repository(
    settings: &Settings,
    is_new: bool,
    folders: &ServerFolders,
    user: Option<Owner>,
    layout: &Layout,
) -> anyhow::Result<(Repository, bool)> {
    let storage = open_storage(settings)?;
    if !is_new {
        refuse_second(settings, &*storage, folders).await?;
    }
    if let (Some(folder), Some(user)) = (settings.repository.url.folder(), user) {
        make_folder(folder, user)?;
    }
    refuse_unsafe(&storage, &layout.folder()).await?;
    Repository::init(storage, chrono::Utc::now()).await
}

/// What the server says of itself: also its timeline, and that one's history if it has one.
async fn ask_server(
    settings: &Settings,
) -> anyhow::Result<(ClusterDescription, TimelineId, Option<Bytes>)> {
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let mut connection = Connection::connect(&info, Mode::Physical).await?;
    let identity = connection.identify_system().await?;
    let segment_size = connection.segment_size().await?;
    let major = connection.major_version()?;
    let history = match identity.timeline.0 {
        1 => None,
        _ => connection
            .timeline_history(identity.timeline)
            .await?
            .map(|(_, content)| content),
    };
    connection.close().await?;
    let (name, now) = (settings.cluster.name.parse()?, chrono::Utc::now());
    let found = describe_server(name, identity.system_identifier, segment_size, major, now);
    Ok((found, identity.timeline, history))
}

/// Registers the server; also the user it runs as, if root works for it. `is_new`: whoever asks means a new repository, if
/// there is none.
async fn register(
    settings: &Settings,
    is_new: bool,
) -> anyhow::Result<(InitOutput, Option<Owner>)> {
    let (found, timeline, history) = ask_server(settings).await?;
    let url = &settings.repository.url;
    let folders = ServerFolders::gather(settings).await;
    refuse_inside(url, &folders.0)?;
    let user = folders
        .user()
        .filter(|user| owner::is_root() && user.uid != 0);
    let layout = Layout::new(found.name.clone());
    let (repository, repository_created) =
        make_repository(settings, is_new, &folders, user, &layout).await?;
    let (cluster, cluster_registered) = Cluster::register(repository, found).await?;
    if let Some(content) = history.filter(|_| cluster_registered) {
        store_first_history(&cluster, timeline, &content, chrono::Utc::now()).await?;
    }
    let same_system = cluster.same_system().await?;
    let unknown_timeline = unknown_timeline(&cluster, timeline).await?;
    let report = InitOutput {
        configuration: None,
        configuration_written: false,
        socket: settings.service.socket.clone(),
        repository: url.to_string(),
        repository_created,
        cluster: cluster.description,
        cluster_registered,
        unknown_timeline,
        connection_kept: Vec::new(),
        connection_not_kept: Vec::new(),
        belong_to_root: Vec::new(),
        same_system,
        archive_command: String::new(),
    };
    Ok((report, user))
}
