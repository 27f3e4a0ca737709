//! Before a restore in place: the data directory that is there is kept, under another name beside it.
//!
//! Nothing else moves. A kept cluster that shares folders of tablespaces with the one that takes its place would read and write
//! its files: that is refused.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutAside {
    /// The data directory; `None`: there is nothing.
    pub kept: Option<KeptFolder>,
    /// When that was decided.
    at: DateTime<Utc>,
}

/// What lies where a restore is to go.
#[derive(Debug, Default)]
struct Found {
    /// The folder itself, where its name is a link.
    data: PathBuf,
    is_filled: bool,
    is_cluster: bool,
    is_own: bool,
    server: Option<u32>,
    /// `postmaster.pid` is there: a clean stop removes it.
    has_pid_file: bool,
    /// A restore that writes there just now.
    restore: Option<u32>,
    /// Folders of the cluster's tablespaces.
    tablespaces: BTreeSet<PathBuf>,
    /// Folders of tablespaces that the restore is to write to.
    wanted: BTreeSet<PathBuf>,
}

/// Looks, and decides what is to be put aside. Errors: a server or a restore is at work there, it is no cluster of this user's, or
/// both clusters would have the same tablespaces.
pub fn plan(destination: &Destination, at: DateTime<Utc>) -> anyhow::Result<PutAside> {
    let shown = &destination.data_directory;
    let found =
        look(destination).with_context(|| format!("cannot look at \"{}\"", shown.display()))?;
    decide(shown, &found, at)
}

fn look(destination: &Destination) -> io::Result<Found> {
    let data = match fs::canonicalize(&destination.data_directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::default()),
        data => data?,
    };
    let mut found = Found {
        is_filled: is_filled(&data)?,
        is_cluster: data.join("PG_VERSION").exists() || data.join(MARKER).exists(),
        is_own: fs::metadata(&data)?.uid() == rustix::process::geteuid().as_raw(),
        server: server_in(&data),
        has_pid_file: fs::symlink_metadata(data.join("postmaster.pid")).is_ok(),
        restore: restore_in(&data),
        ..Found::default()
    };
    let links = fs::read_dir(data.join(TABLESPACES));
    for link in links.into_iter().flatten() {
        // What is no link lies in the data directory, and goes with it.
        if let Ok(folder) = fs::read_link(link?.path()) {
            found.tablespaces.insert(itself(folder));
        }
    }
    let wanted = destination.tablespaces.values().chain(&destination.made);
    found.wanted = wanted.cloned().map(itself).collect();
    found.data = data;
    Ok(found)
}

/// A folder without links in its path; one that is not there as it is named.
fn itself(folder: PathBuf) -> PathBuf {
    fs::canonicalize(&folder).unwrap_or(folder)
}

/// The process that the marker of a restore names, if it is alive.
fn restore_in(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join(MARKER)).ok()?;
    let pid: u32 = text.trim().rsplit(' ').next()?.parse().ok()?;
    let is_other = pid != std::process::id();
    (is_other && Path::new(&format!("/proc/{pid}")).exists()).then_some(pid)
}

fn decide(shown: &Path, found: &Found, at: DateTime<Utc>) -> anyhow::Result<PutAside> {
    if !found.is_filled {
        return Ok(PutAside { kept: None, at });
    }
    if let Some((why, hint)) = refusal(found) {
        let error = anyhow!("\"{}\" is not put aside: {why}", shown.display());
        return Err(with_hint(error, hint));
    }
    let mut name = found.data.file_name().unwrap_or_default().to_os_string();
    name.push(at.format(".before-%Y%m%dT%H%M%SZ").to_string());
    let kept = KeptFolder {
        was: found.data.clone(),
        kept_as: found.data.with_file_name(name),
    };
    Ok(PutAside {
        kept: Some(kept),
        at,
    })
}

/// Why it must stay where it is, and what to do.
fn refusal(found: &Found) -> Option<(String, String)> {
    let told = |why: String, hint: &str| Some((why, hint.to_string()));
    if let Some(pid) = found.server {
        let data = &found.data;
        let stop = [
            Path::new("pg_ctl"),
            Path::new("-D"),
            data,
            Path::new("stop"),
        ];
        let hint = format!(
            "stop it and repeat this: `{}`; to keep it as a base backup: `walden backup take` before",
            for_people(stop)
        );
        return Some((
            format!("a PostgreSQL server (process {pid}) runs in it"),
            hint,
        ));
    }
    if let Some(pid) = found.restore {
        return told(
            format!("a restore (process {pid}) writes to it"),
            "wait for it, or end it",
        );
    }
    if found.has_pid_file {
        return told(
            "it has a postmaster.pid: a server runs there, perhaps on another machine, or it crashed".into(),
            "if no server runs there, remove postmaster.pid",
        );
    }
    if !found.is_cluster {
        return told(
            "it holds no PostgreSQL cluster".into(),
            "name the data directory of the cluster in --to-dir",
        );
    }
    if !found.is_own {
        return told(
            "it is another user's".into(),
            "run this as the user that PostgreSQL runs as",
        );
    }
    let inside = found.tablespaces.iter();
    if let Some(folder) = inside
        .clone()
        .find(|folder| folder.starts_with(&found.data))
    {
        return told(
            format!("the tablespace at \"{}\" lies in it", folder.display()),
            "move the folder away by hand",
        );
    }
    let shared = |folder: &&PathBuf| {
        let mut wanted = found.wanted.iter();
        wanted.any(|wanted| wanted.starts_with(folder) || folder.starts_with(wanted))
    };
    let folder = inside.clone().find(shared)?;
    told(
        format!(
            "both clusters would have the tablespace at \"{}\"",
            folder.display()
        ),
        "name a new folder for it with --tablespace OID=NEW",
    )
}

impl PutAside {
    /// Whether a folder is what goes.
    pub fn has(&self, folder: &Path) -> bool {
        let folder = fs::canonicalize(folder);
        folder.is_ok_and(|folder| self.kept.as_ref().is_some_and(|kept| kept.was == folder))
    }

    /// Looks once more, and does it. After an error everything is where it was.
    pub fn carry_out(&self, destination: &Destination) -> anyhow::Result<()> {
        let Some(KeptFolder { was, kept_as }) = &self.kept else {
            return Ok(());
        };
        let now = plan(destination, self.at)?;
        ensure!(
            now == *self,
            "what lies in \"{}\" has changed meanwhile",
            was.display()
        );
        let what = || {
            let (was, kept_as) = (was.display(), kept_as.display());
            format!("cannot keep \"{was}\" as \"{kept_as}\"")
        };
        if fs::symlink_metadata(kept_as).is_ok() {
            return Err(anyhow!("it exists already").context(what()));
        }
        let hint =
            "move it away by hand: is it a disk of its own, or is the folder above another user's?";
        fs::rename(was, kept_as).with_context(what).hint(hint)?;
        // The same place for what comes, also where its name is a link.
        let made = fs::DirBuilder::new().mode(0o700).create(was);
        let synced = made.and_then(|()| was.parent().map_or(Ok(()), sync_folder));
        synced.with_context(what).inspect_err(|_| {
            let _ = fs::remove_dir(was);
            if let Err(error) = fs::rename(kept_as, was) {
                tracing::error!("\"{}\" is not put back: {error}", was.display());
            }
        })
    }

    /// How to have again what was there.
    pub fn way_back(&self) -> String {
        let Some(KeptFolder { was, kept_as }) = &self.kept else {
            return String::new();
        };
        let mv = for_people([Path::new("mv"), kept_as, was]);
        let was = was.display();
        format!("to go back: stop the server, remove what is new (\"{was}\"), then run `{mv}`")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

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
            is_own: true,
            tablespaces: BTreeSet::from(["/fast/a".into()]),
            ..Found::default()
        }
    }

    #[test]
    fn what_is_at_work_or_no_cluster_of_ones_own_stays_where_it_is() {
        let shown = Path::new("/pg/data");
        let nothing = Found {
            is_filled: false,
            ..found()
        };
        assert_eq!(decide(shown, &nothing, now()).unwrap().kept, None);
        type Change = fn(&mut Found);
        let changes: [(Change, &str); 6] = [
            (|found| found.server = Some(7), "pg_ctl -D /pg/data stop"),
            (|found| found.restore = Some(7), "wait for it"),
            (|found| found.has_pid_file = true, "remove postmaster.pid"),
            (|found| found.is_cluster = false, "--to-dir"),
            (|found| found.is_own = false, "as the user"),
            (
                |found| found.tablespaces.extend([PathBuf::from("/pg/data/fast")]),
                "by hand",
            ),
        ];
        for (change, expected) in changes {
            let mut found = found();
            change(&mut found);
            let error = decide(shown, &found, now()).unwrap_err();
            assert!(hints(&error)[0].contains(expected), "{error:#}");
        }
    }

    #[test]
    fn no_two_clusters_have_the_same_tablespace() {
        let shown = Path::new("/pg/data");
        for (wanted, is_shared) in [
            ("/fast/a", true),
            ("/fast", true),
            ("/fast/a/new", true),
            ("/fast/b", false),
        ] {
            let found = Found {
                wanted: BTreeSet::from([wanted.into()]),
                ..found()
            };
            assert_eq!(decide(shown, &found, now()).is_err(), is_shared, "{wanted}");
        }
        let kept = decide(shown, &found(), now()).unwrap();
        let mv = "mv /pg/data.before-20261130T101500Z /pg/data";
        assert!(kept.way_back().contains(mv), "{}", kept.way_back());
    }

    #[test]
    fn what_cannot_be_put_aside_is_where_it_was_and_what_came_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let (data, fast) = (root.join("data"), root.join("fast"));
        fs::create_dir_all(data.join(TABLESPACES)).unwrap();
        fs::write(data.join("PG_VERSION"), "18").unwrap();
        // A disk that is not mounted: the folder is not there.
        symlink(&fast, data.join(TABLESPACES).join("16384")).unwrap();
        let mut destination = Destination {
            data_directory: data.clone(),
            tablespaces: BTreeMap::from([(16384, fast.clone())]),
            made: BTreeSet::new(),
        };
        let shared = plan(&destination, now()).unwrap_err();
        assert!(shared.to_string().contains("both clusters"), "{shared}");
        destination.tablespaces.insert(16384, root.join("new"));
        let put = plan(&destination, now()).unwrap();
        assert!(put.has(&data) && !put.has(&root));
        let kept = put.kept.clone().unwrap().kept_as;
        fs::write(&kept, "mine").unwrap();
        assert!(put.carry_out(&destination).is_err());
        assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
        fs::remove_file(&kept).unwrap();
        // A server that starts after the plan, and one that crashed.
        for pid in [std::process::id(), u32::MAX] {
            fs::write(data.join("postmaster.pid"), format!("{pid}\n")).unwrap();
            assert!(put.carry_out(&destination).is_err());
        }
        fs::remove_file(data.join("postmaster.pid")).unwrap();
        assert!(data.join("PG_VERSION").exists());
        put.carry_out(&destination).unwrap();
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        assert_eq!(fs::read_link(kept.join("pg_tblspc/16384")).unwrap(), fast);
    }
}
