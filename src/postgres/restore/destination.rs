//! First step: folders that are certainly nobody else's. Nothing is ever removed here: what is in the way is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::names::{MARKER, PG_CONTROL};
use super::relocation::{Relocation, is_meant};
use super::replayed_tablespaces;
use crate::error::{Hint, with_hint};
use crate::folder_place::{FolderPlace, FolderRelation};
use crate::fsync;
use crate::postgres::catalog::{BackupDescription, RecoveryPlan, TablespaceDescription};

/// Where the files go.
#[derive(Debug, Clone)]
pub struct Destination {
    pub data_directory: PathBuf,
    /// By OID.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Folders of tablespaces that replay makes.
    pub made: BTreeSet<PathBuf>,
}

impl Destination {
    fn root(&self, tablespace: Option<u32>) -> anyhow::Result<&Path> {
        match tablespace {
            None => Ok(&self.data_directory),
            Some(oid) => {
                let root = self.tablespaces.get(&oid);
                root.map(PathBuf::as_path).with_context(|| {
                    format!(
                        "the manifest has files of tablespace {oid}, which it does not describe"
                    )
                })
            }
        }
    }

    /// Where a file of the backup goes.
    pub fn path(&self, tablespace: Option<u32>, path: &str) -> anyhow::Result<PathBuf> {
        Ok(self.root(tablespace)?.join(path))
    }
}

/// Decides where everything goes. Errors: a relocation of no tablespace, or places that would lie in each other.
pub fn destination(
    to_dir: &Path,
    plan: &RecoveryPlan,
    relocations: &[Relocation],
    is_replacement: bool,
    repository: Option<&Path>,
) -> anyhow::Result<Destination> {
    let made = replayed_tablespaces::folders(&plan.made.made, relocations, is_replacement)?;
    let later: Vec<TablespaceDescription> = plan
        .made
        .made
        .iter()
        .map(replayed_tablespaces::described)
        .collect();
    let placed = place(to_dir, &plan.backup, &later, relocations, repository)?;
    let own = placed
        .tablespaces
        .values()
        .chain([&placed.data_directory])
        .collect::<Vec<_>>();
    for folder in &made {
        check_apart_from_repository(folder, repository)?;
        // One of the backup may lie there until it is dropped.
        if let Some(other) = own
            .iter()
            .find(|other| *other != &folder && !are_apart(folder, other))
        {
            bail!(
                "tablespace folder \"{}\" is not apart from \"{}\"",
                folder.display(),
                other.display()
            );
        }
    }
    Ok(Destination { made, ..placed })
}

fn are_apart(one: &Path, other: &Path) -> bool {
    !matches!(
        FolderPlace::of(one).to(&FolderPlace::of(other)),
        FolderRelation::Within | FolderRelation::Around
    )
}

/// Where the backup goes; tablespaces made `later` may be relocated, too.
fn place(
    to_dir: &Path,
    backup: &BackupDescription,
    later: &[TablespaceDescription],
    relocations: &[Relocation],
    repository: Option<&Path>,
) -> anyhow::Result<Destination> {
    let data_directory = absolute(to_dir)?;
    check_apart_from_repository(&data_directory, repository)?;
    check_known(relocations, backup, later)?;
    let mut tablespaces: BTreeMap<u32, PathBuf> = BTreeMap::new();
    for tablespace in &backup.tablespaces {
        let relocation = relocations
            .iter()
            .rev()
            .find(|relocation| is_meant(relocation, tablespace));
        let place = match relocation {
            Some(relocation) => absolute(&relocation.new)?,
            // An absolute location stays as it is; one in the data directory itself is relative to it.
            None => data_directory.join(&tablespace.location),
        };
        let is_inside = relocation.is_none() && !tablespace.location.starts_with('/');
        check_apart_from_repository(&place, repository)?;
        let others = tablespaces
            .values()
            .chain([&data_directory])
            .filter(|other| !is_inside || *other != &data_directory);
        if let Some(other) = others.into_iter().find(|other| !are_apart(&place, other)) {
            let error = anyhow!(
                "tablespace {} would lie at \"{}\", which is not apart from \"{}\"",
                tablespace.oid,
                place.display(),
                other.display()
            );
            return Err(with_hint(
                error,
                "give it a folder of its own with --tablespace OLD=NEW",
            ));
        }
        tablespaces.insert(tablespace.oid, place);
    }
    Ok(Destination {
        data_directory,
        tablespaces,
        made: BTreeSet::new(),
    })
}

/// Refuses to move a tablespace that there is not.
fn check_known(
    relocations: &[Relocation],
    backup: &BackupDescription,
    later: &[TablespaceDescription],
) -> anyhow::Result<()> {
    let is_known = |relocation: &&Relocation| {
        backup
            .tablespaces
            .iter()
            .chain(later)
            .any(|tablespace| is_meant(relocation, tablespace))
    };
    let Some(unknown) = relocations.iter().find(|relocation| !is_known(relocation)) else {
        return Ok(());
    };
    let known: Vec<String> = backup
        .tablespaces
        .iter()
        .map(|t| format!("{} at \"{}\"", t.oid, t.location))
        .collect();
    let known = if known.is_empty() {
        "none".to_string()
    } else {
        known.join(", ")
    };
    Err(anyhow!(
        "backup \"{}\" has no tablespace \"{}\"",
        backup.id,
        unknown.old
    ))
    .hint(format!("its tablespaces: {known}"))
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)
        .with_context(|| format!("cannot make \"{}\" absolute", path.display()))?;
    if path.parent().is_none()
        || path
            .components()
            .any(|part| part == std::path::Component::ParentDir)
    {
        bail!(
            "\"{}\" cannot be restored to: name a folder without \"..\" in its path",
            path.display()
        );
    }
    if path.to_str().is_none_or(|text| text.contains(['\n', '\r'])) {
        return Err(anyhow!(
            "the path \"{}\" is not UTF-8 or has a line break",
            path.display()
        ))
        .hint("choose another folder: PostgreSQL's configuration cannot name this one");
    }
    Ok(path.components().collect())
}

fn check_apart_from_repository(place: &Path, repository: Option<&Path>) -> anyhow::Result<()> {
    let Some(repository) = repository else {
        return Ok(());
    };
    let relation = FolderPlace::of(place).to(&FolderPlace::of(repository));
    if matches!(relation, FolderRelation::Within | FolderRelation::Around) {
        let (place, repository) = (place.display(), repository.display());
        return Err(anyhow!(
            "folder \"{place}\" is not apart from the repository \"{repository}\""
        ))
        .hint("choose another folder: a cluster and its archive must not lie in each other");
    }
    Ok(())
}

/// Refuses folders that are in use or not empty, unless they go before. Touches nothing.
pub fn check_free(destination: &Destination, goes: &dyn Fn(&Path) -> bool) -> anyhow::Result<()> {
    let check = |place: &Path| match goes(place) {
        true => Ok(()),
        false => check_folder(place),
    };
    check(&destination.data_directory)?;
    for (oid, place) in &destination.tablespaces {
        check(place)
            .with_context(|| format!("tablespace {oid} cannot be restored to \"{}\"", place.display()))
            .hint(format!("choose another folder with --tablespace {oid}=NEW; this one may hold the source's files"))?;
    }
    for place in &destination.made {
        check(place)
            .with_context(|| format!("replay cannot make a tablespace at \"{}\"", place.display()))
            .hint("empty the folder, or restore to before the tablespace was made")?;
        if let Some(cluster) = place
            .ancestors()
            .find(|folder| folder.join("PG_VERSION").exists())
        {
            let (place, cluster) = (place.display(), cluster.display());
            return Err(anyhow!(
                "replay would make a tablespace at \"{place}\", inside the cluster \"{cluster}\""
            ))
            .hint("restore to before the tablespace was made");
        }
    }
    Ok(())
}

fn check_folder(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let meta = match fs::metadata(path) {
        Err(error)
            if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(path).is_err() =>
        {
            return Ok(());
        }
        other => other.with_context(|| format!("cannot look at \"{shown}\""))?,
    };
    if !meta.is_dir() {
        bail!("\"{shown}\" is not a folder");
    }
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(anyhow!(
            "folder \"{shown}\" belongs to user {}, this is user {user}",
            meta.uid()
        ))
        .hint("restore as the user that will run the server");
    }
    let mut entries = fs::read_dir(path).with_context(|| format!("cannot list \"{shown}\""))?;
    match entries
        .next()
        .transpose()
        .with_context(|| format!("cannot list \"{shown}\""))?
    {
        None => Ok(()),
        Some(entry) => Err(in_the_way(path, &entry.file_name().to_string_lossy())),
    }
}

/// Says what a folder that is not empty is.
fn in_the_way(path: &Path, example: &str) -> anyhow::Error {
    let shown = path.display();
    if let Some(pid) = server_in(path) {
        let error = anyhow!("a PostgreSQL server (process {pid}) runs in \"{shown}\"");
        return with_hint(
            error,
            "restore into another folder with --to-dir, or stop the server and move its folder away",
        );
    }
    if let Ok(text) = fs::read_to_string(path.join(MARKER)) {
        let error = anyhow!(
            "\"{shown}\" holds a restore that is under way or was interrupted: {}",
            text.trim()
        );
        let next = match path.join(PG_CONTROL).exists() {
            true => {
                "its files are complete; to restore anew choose another folder or remove this one"
                    .to_string()
            }
            false => {
                format!(
                    "no server starts from it; if no restore runs, remove it (rm -r '{shown}') and restore again"
                )
            }
        };
        return with_hint(error, next);
    }
    let what = match path.join("PG_VERSION").exists() {
        true => "holds a PostgreSQL cluster".to_string(),
        false => format!("is not empty (it has \"{example}\")"),
    };
    let error = anyhow!("folder \"{shown}\" {what}");
    match example {
        "lost+found" => with_hint(
            error,
            "restore into a folder below it: a disk is mounted here",
        ),
        _ => with_hint(
            error,
            "name a new or empty folder, or keep what is there with --snapshot-first: nothing is ever overwritten",
        ),
    }
}

/// Whether there is anything in a folder.
pub fn is_filled(folder: &Path) -> std::io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().transpose()?.is_some())
}

/// The process that `postmaster.pid` names, if it is alive.
pub fn server_in(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

/// Makes the folders, and marks the data directory as being written.
pub fn prepare(destination: &Destination, backup: &BackupDescription) -> anyhow::Result<()> {
    let others = destination.tablespaces.values().chain(&destination.made);
    for path in [&destination.data_directory].into_iter().chain(others) {
        let shown = path.display();
        fsync::create_folders(path)
            .with_context(|| format!("cannot make folder \"{shown}\""))
            .hint("check the permissions of the folder above it")?;
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .with_context(|| format!("cannot set the permissions of \"{shown}\" to 0700"))?;
    }
    let marker = destination.data_directory.join(MARKER);
    let text = format!("backup {} by process {}\n", backup.id, std::process::id());
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&marker)
        .with_context(|| format!("cannot make \"{}\"", marker.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("cannot write \"{}\"", marker.display()))
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;
