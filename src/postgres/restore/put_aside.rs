//! Before a restore in place: what is there is kept, under other names beside it.
//!
//! Folders of tablespaces go first, each with its link, the data directory last: so a kept cluster never leads to the files of the
//! one that takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::destination::{Destination, is_filled, server_in};
use super::names::MARKER;
use crate::error::{Hint, with_hint};
use crate::fsync::sync_folder;
use crate::postgres::command_line::for_people;

const TABLESPACES: &str = "pg_tblspc";

/// A folder that was in the way, and where it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptFolder {
    pub was: PathBuf,
    pub kept_as: PathBuf,
}

/// What is to be put aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PutAside {
    /// The data directory last.
    pub folders: Vec<KeptFolder>,
    /// Links to folders of tablespaces, and which folder that is.
    #[serde(skip)]
    links: Vec<(PathBuf, usize)>,
}

/// What lies where a restore is to go.
#[derive(Debug, Default)]
struct Found {
    /// The folder itself, where its name is a link.
    data: PathBuf,
    is_filled: bool,
    is_cluster: bool,
    server: Option<u32>,
    /// Links of the cluster there, by the folders that they lead to.
    links: BTreeMap<PathBuf, PathBuf>,
    /// Other folders of the restore that are filled.
    filled: BTreeSet<PathBuf>,
}

/// Looks, and decides what is to be put aside. Errors: a server runs there, or it is no cluster.
pub fn plan(destination: &Destination, now: DateTime<Utc>) -> anyhow::Result<PutAside> {
    let shown = &destination.data_directory;
    let found =
        look(destination).with_context(|| format!("cannot look at \"{}\"", shown.display()))?;
    decide(shown, &found, now)
}

fn look(destination: &Destination) -> io::Result<Found> {
    let data = match fs::canonicalize(&destination.data_directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::default()),
        data => data?,
    };
    let mut found = Found {
        is_filled: is_filled(&data)?,
        is_cluster: data.join("PG_VERSION").exists() || data.join(MARKER).exists(),
        server: server_in(&data),
        ..Found::default()
    };
    let links = fs::read_dir(data.join(TABLESPACES));
    for link in links.into_iter().flatten() {
        let link = link?.path();
        if let Ok(folder) = fs::canonicalize(&link) {
            found.links.insert(folder, link);
        }
    }
    for folder in destination.tablespaces.values().chain(&destination.made) {
        if let Ok(folder) = fs::canonicalize(folder)
            && is_filled(&folder)?
        {
            found.filled.insert(folder);
        }
    }
    found.data = data;
    Ok(found)
}

fn decide(shown: &Path, found: &Found, now: DateTime<Utc>) -> anyhow::Result<PutAside> {
    let shown = shown.display();
    if !found.is_filled {
        return Ok(PutAside::default());
    }
    if let Some(pid) = found.server {
        let error = anyhow!("a PostgreSQL server (process {pid}) runs in \"{shown}\"");
        let stop = for_people([
            Path::new("pg_ctl"),
            Path::new("-D"),
            &found.data,
            Path::new("stop"),
        ]);
        let hint = format!(
            "stop it and repeat this: `{stop}`; or keep it as a base backup: `walden backup take`, then stop it and move its folder away"
        );
        return Err(with_hint(error, hint));
    }
    if !found.is_cluster {
        let error = anyhow!("\"{shown}\" is filled, and holds no PostgreSQL cluster");
        return Err(with_hint(
            error,
            "name the data directory of the cluster in --to-dir",
        ));
    }
    let inside = found
        .links
        .iter()
        .find(|(folder, _)| folder.starts_with(&found.data));
    if let Some((folder, _)) = inside {
        let folder = folder.display();
        let error = anyhow!("the tablespace at \"{folder}\" lies in the data directory");
        return Err(with_hint(
            error,
            "stop the server and move the folder away by hand",
        ));
    }
    let aside = |was: &Path| KeptFolder {
        was: was.to_path_buf(),
        kept_as: beside(was, now),
    };
    let mut put = PutAside::default();
    // What is filled and not this cluster's is refused later, as ever.
    for (folder, link) in &found.links {
        if found.filled.contains(folder) {
            put.links.push((link.clone(), put.folders.len()));
            put.folders.push(aside(folder));
        }
    }
    put.folders.push(aside(&found.data));
    Ok(put)
}

fn beside(folder: &Path, now: DateTime<Utc>) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(now.format(".before-%Y%m%dT%H%M%SZ").to_string());
    folder.with_file_name(name)
}

impl PutAside {
    /// Whether a folder is among them.
    pub fn has(&self, folder: &Path) -> bool {
        let folder = fs::canonicalize(folder);
        folder.is_ok_and(|folder| self.folders.iter().any(|kept| kept.was == folder))
    }

    /// Does it. After an error everything is where it was.
    pub fn carry_out(&self) -> anyhow::Result<()> {
        for at in 0..self.folders.len() {
            if let Err(error) = self.put(at) {
                for at in (0..at).rev() {
                    if let Err(error) = self.put_back(at) {
                        let was = self.folders[at].was.display();
                        tracing::error!("\"{was}\" is not put back: {error}. {}", self.way_back());
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn put(&self, at: usize) -> anyhow::Result<()> {
        let KeptFolder { was, kept_as } = &self.folders[at];
        let what = || {
            format!(
                "cannot keep \"{}\" as \"{}\"",
                was.display(),
                kept_as.display()
            )
        };
        let hint = "it must lie on the disk of the folder above, which this user may write to: move it away by hand";
        if fs::symlink_metadata(kept_as).is_ok() {
            return Err(anyhow!("there is something already").context(what()));
        }
        fs::rename(was, kept_as).with_context(what).hint(hint)?;
        let rest = || -> io::Result<()> {
            for (link, _) in self.links.iter().filter(|(_, folder)| *folder == at) {
                relink(link, kept_as)?;
            }
            // The same place for what comes, also where its name is a link.
            fs::DirBuilder::new().mode(0o700).create(was)?;
            was.parent().map_or(Ok(()), sync_folder)
        };
        rest().with_context(what).inspect_err(|_| {
            if let Err(error) = self.put_back(at) {
                tracing::error!("\"{}\" is not put back: {error}", was.display());
            }
        })
    }

    fn put_back(&self, at: usize) -> io::Result<()> {
        let KeptFolder { was, kept_as } = &self.folders[at];
        match fs::remove_dir(was) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::rename(kept_as, was)?,
        }
        for (link, _) in self.links.iter().filter(|(_, folder)| *folder == at) {
            relink(link, was)?;
        }
        Ok(())
    }

    /// How to have again what was there.
    pub fn way_back(&self) -> String {
        let Some(KeptFolder { was, kept_as }) = self.folders.last() else {
            return String::new();
        };
        let mv = for_people([Path::new("mv"), kept_as, was]);
        let new: Vec<String> = self
            .folders
            .iter()
            .map(|kept| format!("\"{}\"", kept.was.display()))
            .collect();
        format!(
            "to go back: stop the server there, remove or rename what is new ({}), then `{mv}`; tablespaces stay where they are kept",
            new.join(", ")
        )
    }
}

/// Has a link lead elsewhere; there is always one.
fn relink(link: &Path, to: &Path) -> io::Result<()> {
    let new = link.with_extension("walden");
    let _ = fs::remove_file(&new);
    symlink(to, &new)?;
    fs::rename(&new, link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hints;

    fn now() -> DateTime<Utc> {
        "2026-11-30T10:15:00Z".parse().unwrap()
    }

    fn found() -> Found {
        Found {
            data: "/pg/data".into(),
            is_filled: true,
            is_cluster: true,
            ..Found::default()
        }
    }

    #[test]
    fn a_running_server_and_what_is_no_cluster_are_refused() {
        let shown = Path::new("/pg/data");
        let nothing = Found {
            is_filled: false,
            ..found()
        };
        assert_eq!(decide(shown, &nothing, now()).unwrap(), PutAside::default());
        let running = Found {
            server: Some(7),
            ..found()
        };
        let error = decide(shown, &running, now()).unwrap_err();
        let hint = hints(&error)[0];
        assert!(
            hint.contains("pg_ctl -D /pg/data stop") && hint.contains("walden backup take"),
            "{hint}"
        );
        let other = Found {
            is_cluster: false,
            ..found()
        };
        assert!(decide(shown, &other, now()).is_err());
        let inside = Found {
            links: BTreeMap::from([("/pg/data/fast".into(), "/pg/data/pg_tblspc/7".into())]),
            ..found()
        };
        assert!(decide(shown, &inside, now()).is_err());
    }

    #[test]
    fn only_what_is_in_the_way_goes_and_the_data_directory_last() {
        let link = |oid: u32| PathBuf::from(format!("/pg/data/pg_tblspc/{oid}"));
        let tablespaces = Found {
            links: BTreeMap::from([("/fast/a".into(), link(1)), ("/fast/b".into(), link(2))]),
            filled: BTreeSet::from(["/fast/b".into(), "/fast/foreign".into()]),
            ..found()
        };
        let put = decide(Path::new("/pg/data"), &tablespaces, now()).unwrap();
        let names: Vec<String> = put
            .folders
            .iter()
            .map(|kept| kept.kept_as.display().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "/fast/b.before-20261130T101500Z",
                "/pg/data.before-20261130T101500Z"
            ]
        );
        assert_eq!(put.links, [(link(2), 0)]);
        assert!(
            put.way_back()
                .contains("mv /pg/data.before-20261130T101500Z /pg/data")
        );
    }

    #[test]
    fn what_cannot_be_put_aside_whole_is_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (data, fast) = (root.join("data"), root.join("fast"));
        let link = data.join("pg_tblspc/16384");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        fs::create_dir(&fast).unwrap();
        for file in [data.join("PG_VERSION"), fast.join("PG_18")] {
            fs::write(file, "18").unwrap();
        }
        symlink(&fast, &link).unwrap();
        let destination = Destination {
            data_directory: data.clone(),
            tablespaces: BTreeMap::from([(16384, fast.clone())]),
            made: BTreeSet::new(),
        };
        let put = plan(&destination, now()).unwrap();
        assert!(put.has(&data) && put.has(&fast) && !put.has(&root));
        // The last step does not come about.
        let kept = put.folders[1].kept_as.clone();
        fs::write(&kept, "mine").unwrap();
        assert!(put.carry_out().is_err());
        assert!(fast.join("PG_18").exists() && data.join("PG_VERSION").exists());
        assert_eq!(fs::read_link(&link).unwrap(), fast);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
        fs::remove_file(&kept).unwrap();
        put.carry_out().unwrap();
        assert_eq!(
            fs::read_dir(&data).unwrap().count() + fs::read_dir(&fast).unwrap().count(),
            0
        );
        // What is kept leads to what is kept.
        let link = kept.join("pg_tblspc/16384");
        assert_eq!(fs::read_link(&link).unwrap(), put.folders[0].kept_as);
        assert!(link.join("PG_18").exists());
    }
}
