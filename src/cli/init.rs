//! `walden init`: the configuration file, the repository's marker, the cluster's registration. Safe to repeat.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use super::context::{heir_of_cluster, open_storage};
use super::{Context, Exit, Format, print_json, print_text};
use crate::config::{self, Settings};
use crate::error::{Hint, with_hint};
use crate::fsync;
use crate::owner::{self, Owner};
use crate::postgres::archive::store_first_history;
use crate::postgres::catalog::ClusterDescription;
use crate::postgres::check::{ServerFolders, archived_before, refuse_inside, refuse_unsafe};
use crate::postgres::cluster::{Cluster, describe_server};
use crate::postgres::command_line::{archive_command, named_file};
use crate::postgres::layout::{ClusterName, Layout};
use crate::postgres::replication::conninfo::Added;
use crate::postgres::replication::{ConnInfo, Connection, Mode};
use crate::postgres::restore::assignment;
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
        arguments.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }
}

/// What was done, for `--format json`.
#[derive(Debug, Serialize)]
struct InitOutput {
    configuration: Option<PathBuf>,
    configuration_written: bool,
    socket: PathBuf,
    repository: String,
    repository_created: bool,
    cluster: ClusterDescription,
    cluster_registered: bool,
    /// The server's timeline, where the archive that was there before does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_timeline: Option<TimelineId>,
    /// Variables of the environment that the configuration now says, and those that it does not.
    connection_kept: Vec<&'static str>,
    connection_not_kept: Vec<&'static str>,
    /// What the server's user cannot use, which root made for nobody it knows.
    belong_to_root: Vec<PathBuf>,
    /// Other clusters of the repository with the same system identifier.
    same_system: Vec<ClusterName>,
    /// The value to set.
    archive_command: String,
}

/// Runs the verb. `file` is `--config`.
pub fn run(file: Option<&Path>, format: Format, args: &Args) -> anyhow::Result<Exit> {
    let target = target_file(file, args);
    let draft = target.as_deref().filter(|path| !path.exists()).map(|path| Draft::write(path, args)).transpose()?;
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
        Format::Table => print_text(&in_words(&report))?,
    }
    Ok(Exit::Success)
}

/// The file to write or read; none when the environment gives the repository and nobody names a file.
fn target_file(file: Option<&Path>, args: &Args) -> Option<PathBuf> {
    let named = file.map(Path::to_path_buf).or_else(|| std::env::var_os("WALDEN_CONFIG").map(PathBuf::from));
    let by_environment = args.given().is_empty() && std::env::var_os("WALDEN_REPOSITORY__URL").is_some();
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
                return Err(anyhow!("\"{}\" exists and has another {key}", path.display())).hint(hint);
            }
            continue;
        }
        let kept = shown.iter().find(|shown| shown.key == key).and_then(|shown| shown.value.clone());
        if kept.as_deref() != Some(value) {
            let kept = kept.unwrap_or_default();
            let error = anyhow!("\"{}\" exists and has {key} = \"{kept}\", not \"{value}\"", path.display());
            return Err(with_hint(error, hint));
        }
    }
    Ok(())
}

/// A configuration file that only appears in its place when everything else succeeded.
struct Draft {
    file: fs::File,
    path: PathBuf,
    target: PathBuf,
    /// Variables of the environment by which it says how to connect.
    connection: Vec<&'static str>,
}

impl Draft {
    fn write(target: &Path, args: &Args) -> anyhow::Result<Self> {
        let hint = "write it elsewhere with --config FILE (and set WALDEN_CONFIG), or run this as a user who may";
        // `walden serve` has another environment than this process.
        let added = if args.dsn.is_none() { ConnInfo::added_by_environment("")? } else { Vec::new() };
        let connection = added.iter().filter(|added| added.pair().is_some()).map(|added| added.variable).collect();
        let dsn = added.iter().filter_map(Added::pair).collect::<Vec<_>>().join(" ");
        let of_environment = (!dsn.is_empty()).then_some(("postgresql.dsn", dsn.as_str()));
        let given: Vec<_> = args.given().into_iter().chain(of_environment).collect();
        let text = config::render_commented(&given)?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cannot = || format!("cannot write \"{}\"", target.display());
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(cannot).hint(hint)?;
        let path = folder.join(format!(".walden-init-{}.toml", std::process::id()));
        let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = created.with_context(cannot).hint(hint)?;
        let draft = Self { file, path, target: target.to_path_buf(), connection };
        (&draft.file).write_all(text.as_bytes()).and_then(|()| draft.file.sync_all()).with_context(cannot)?;
        Ok(draft)
    }

    /// Puts it in its place; one that root wrote belongs to `user` then.
    fn keep(self, user: Option<Owner>) -> anyhow::Result<()> {
        let cannot = || format!("cannot write \"{}\"", self.target.display());
        let (written, found) = (self.file.metadata()?, fs::symlink_metadata(&self.path).with_context(cannot)?);
        if (written.dev(), written.ino()) != (found.dev(), found.ino()) {
            return Err(anyhow!("\"{}\" is not the file any more that was just made", self.path.display()))
                .with_context(cannot);
        }
        user.map_or(Ok(()), |user| user.give(&self.file)).with_context(cannot)?;
        fsync::rename_new(&self.path, &self.target).with_context(cannot)?;
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fsync::sync_folder(folder).with_context(cannot)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `keep` there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// What belongs to root, whom PostgreSQL never runs as.
fn roots(settings: &Settings, file: Option<&Path>) -> Vec<PathBuf> {
    if !owner::is_root() {
        return Vec::new();
    }
    let of_root = |_: &&Path| heir_of_cluster(settings).is_ok_and(|user| user.is_none());
    let file = file.filter(|file| Owner::of(file).is_ok_and(|owner| owner.uid == 0));
    file.into_iter().chain(settings.repository.url.folder().filter(of_root)).map(Path::to_path_buf).collect()
}

/// As root, makes the repository's folder for the server's user. Errors: it is root's and has something in it.
fn make_folder(folder: &Path, user: Owner) -> anyhow::Result<()> {
    let shown = folder.display();
    owner::make_for(folder, user).with_context(|| format!("cannot make folder \"{shown}\" for {user}"))?;
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
async fn refuse_second(settings: &Settings, storage: &dyn Storage, folders: &ServerFolders) -> anyhow::Result<()> {
    if Repository::is_there(storage).await? {
        return Ok(());
    }
    let hint = "is its disk mounted, and is `repository.url` right? To begin a new archive use --new-repository";
    let shown = storage.describe();
    let asked = archived_before(settings, folders).await;
    let unknown = || format!("\"{shown}\" is no repository, and whether the server has one is not known");
    match asked.with_context(unknown).hint(hint)? {
        Some(file) => {
            let told = format!("\"{shown}\" is no repository, but the server has archived before, such as \"{file}\"");
            Err(anyhow!("{told}: a new archive would leave a gap")).hint(hint)
        }
        None => Ok(()),
    }
}

/// The server's timeline, if the archive lacks its history: then the server may be a copy of the one that archives.
async fn unknown_timeline(cluster: &Cluster, timeline: TimelineId) -> anyhow::Result<Option<TimelineId>> {
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

/// Registers the server; also the user it runs as, if root works for it. `is_new`: whoever asks means a new repository, if
/// there is none.
async fn register(settings: &Settings, is_new: bool) -> anyhow::Result<(InitOutput, Option<Owner>)> {
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let mut connection = Connection::connect(&info, Mode::Physical).await?;
    let identity = connection.identify_system().await?;
    let segment_size = connection.segment_size().await?;
    let major = connection.major_version()?;
    let history = match identity.timeline.0 {
        1 => None,
        _ => connection.timeline_history(identity.timeline).await?,
    };
    connection.close().await?;
    let now = chrono::Utc::now();
    let name = settings.cluster.name.parse()?;
    let found = describe_server(name, identity.system_identifier, segment_size, major, now);
    let url = &settings.repository.url;
    let folders = ServerFolders::gather(settings).await;
    refuse_inside(url, &folders.0)?;
    let user = folders.user().filter(|user| owner::is_root() && user.uid != 0);
    let layout = Layout::new(found.name.clone());
    let (repository, repository_created) = make_repository(settings, is_new, &folders, user, &layout).await?;
    let (cluster, cluster_registered) = Cluster::register(repository, found).await?;
    if let Some((_, content)) = history.filter(|_| cluster_registered) {
        store_first_history(&cluster, identity.timeline, &content, now).await?;
    }
    let same_system = cluster.same_system().await?;
    let unknown_timeline = unknown_timeline(&cluster, identity.timeline).await?;
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

fn in_words(report: &InitOutput) -> String {
    let cluster = &report.cluster;
    let majors: Vec<String> = cluster.versions.iter().map(|version| version.major.to_string()).collect();
    let mut text = String::new();
    if let Some(path) = &report.configuration {
        let done = if report.configuration_written { "written" } else { "exists, unchanged" };
        text += &format!("configuration  {}  {done}\n", path.display());
    }
    let done = if report.repository_created { "created" } else { "exists" };
    text += &format!("repository     {}  {done}\n", report.repository);
    let done = if report.cluster_registered { "registered" } else { "was registered before" };
    text += &format!(
        "cluster        {}  {done}: system identifier {}, PostgreSQL {}, segments of {} MiB\n",
        cluster.name,
        cluster.system_identifier,
        majors.join(", "),
        cluster.segment_size.bytes() >> 20,
    );
    text += &same_system(&report.same_system, &cluster.name);
    if let Some(timeline) = report.unknown_timeline {
        text += &format!(
            "\nNOTE: the server is on timeline {timeline}, which this archive does not have: is it a copy, such as a \
             restored one?\nA copy needs a name of its own, by a configuration of its own: its WAL would spoil the \
             original's archive.\n"
        );
    }
    text += &connection(report);
    let set = assignment("archive_command", &report.archive_command);
    if report.configuration.is_none() {
        text += "\nThe environment alone tells the settings: give the server the WALDEN_ variables of this process.\n";
    }
    if !report.belong_to_root.is_empty() {
        let paths: Vec<String> = report.belong_to_root.iter().map(|path| format!("'{}'", path.display())).collect();
        text += &format!(
            "\nRoot owns what PostgreSQL's user must use. Give it to that user, such as postgres:\n  chown -R postgres {}\n",
            paths.join(" ")
        );
    }
    text += &match report.cluster_registered {
        true => format!(
            "\nNext: keep `walden serve` running, and set in postgresql.conf\n  archive_mode = on\n  {set}then restart \
             PostgreSQL and run `walden check` and `walden backup take`.\n"
        ),
        false => format!("\nThe line for postgresql.conf is\n  {set}"),
    };
    text
}

/// Where else the connection comes from than from the file.
fn connection(report: &InitOutput) -> String {
    let mut text = String::new();
    if !report.connection_kept.is_empty() {
        text += &format!("\nThe file keeps how to connect: {}\n", report.connection_kept.join(", "));
    }
    if !report.connection_not_kept.is_empty() {
        let names = report.connection_not_kept.join(", ");
        text += &format!(
            "\nNOTE: only this environment has {names}: `walden serve` needs it, too. Give it these variables, put them \
             into `postgresql.dsn`, and a password into a password file.\n"
        );
    }
    text
}

/// What it means that clusters have one system identifier.
fn same_system(others: &[ClusterName], name: &ClusterName) -> String {
    if others.is_empty() {
        return String::new();
    }
    let others: Vec<String> = others.iter().map(|other| format!("\"{other}\"")).collect();
    let others = others.join(", ");
    format!(
        "\nNOTE: the repository has the same system identifier as {others}: one is a copy of the other, such as a restored one.\n\
         Each server must archive under one name alone, by the --config of its own line: WAL of the copy would spoil the \
         original's archive.\n\
         If this server takes the place of {others} for good, use that name instead of \"{name}\".\n"
    )
}
