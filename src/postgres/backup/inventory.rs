//! Did all come that a cluster cannot be without? What the server says of its own stream does not count here: a folder
//! whose disk is not mounted, and a tablespace whose folder is gone, are left out without a word.

use std::collections::BTreeSet;

use super::ask::ask;
use crate::postgres::replication::Connection;

/// pg_default and pg_global lie in the data directory.
const DEFAULT_TABLESPACE: u32 = 1663;
/// Files without which no server starts.
const FILES: [&str; 3] = ["PG_VERSION", "global/pg_control", "global/pg_filenode.map"];
/// Folders that hold at least one file in every cluster.
const FILLED: [&str; 3] = ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"];
/// Folders that may be empty.
const FOLDERS: [&str; 6] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_tblspc",
    "pg_twophase",
];
/// What each database's folder holds beside relations.
const OF_DATABASE: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// The databases and tablespaces that a server has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Homes {
    /// OIDs of databases with those of their tablespaces.
    databases: BTreeSet<(u32, u32)>,
    tablespaces: BTreeSet<u32>,
}

impl Homes {
    /// What the server has now. A database that is being dropped does not count (its `datconnlimit` is -2).
    pub async fn read(sql: &mut Connection) -> anyhow::Result<Self> {
        let question = "SELECT oid AS database, dattablespace AS tablespace FROM pg_database WHERE datconnlimit <> -2 \
             UNION ALL SELECT 0, oid FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')";
        let answer = ask(sql, question).await?;
        let mut homes = Self::default();
        for row in 0..answer.rows.len() {
            let home: (u32, u32) = (
                answer.parse(row, "database")?,
                answer.parse(row, "tablespace")?,
            );
            match home {
                (0, tablespace) => drop(homes.tablespaces.insert(tablespace)),
                home => drop(homes.databases.insert(home)),
            }
        }
        Ok(homes)
    }

    /// What was there before and after, in the same place: the rest was made, dropped or moved meanwhile, and comes from
    /// the WAL.
    pub fn throughout(&self, after: &Self) -> Self {
        Self {
            databases: self
                .databases
                .intersection(&after.databases)
                .copied()
                .collect(),
            tablespaces: self
                .tablespaces
                .intersection(&after.tablespaces)
                .copied()
                .collect(),
        }
    }
}

/// What came, as far as it says something: bounded by the number of databases, not of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    seen: BTreeSet<String>,
}

impl Inventory {
    /// Notes a file of the data directory, or of a tablespace.
    pub fn file(&mut self, tablespace: Option<u32>, path: &str) {
        let path = of_cluster(tablespace, path);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if FILLED.contains(&folder) {
            self.seen.insert(folder.to_string());
        } else if FILES.contains(&path.as_str())
            || OF_DATABASE.contains(&name) && is_database(folder)
        {
            self.seen.insert(path);
        }
    }

    /// Notes a folder.
    pub fn folder(&mut self, tablespace: Option<u32>, path: &str) {
        let path = of_cluster(tablespace, path);
        let is_tablespace = tablespace.is_some() && path.matches('/').count() == 1;
        if is_tablespace || FOLDERS.contains(&path.as_str()) {
            self.seen.insert(path);
        }
    }

    /// What did not come and must be there, as paths from the data directory.
    pub fn missing(&self, homes: &Homes) -> Vec<String> {
        let fixed = FILES
            .iter()
            .chain(&FILLED)
            .chain(&FOLDERS)
            .map(ToString::to_string);
        let tablespaces = homes
            .tablespaces
            .iter()
            .map(|oid| format!("pg_tblspc/{oid}"));
        let databases = homes.databases.iter().flat_map(|(database, tablespace)| {
            let folder = match *tablespace {
                DEFAULT_TABLESPACE => format!("base/{database}"),
                other => format!("pg_tblspc/{other}/{database}"),
            };
            OF_DATABASE.map(|name| format!("{folder}/{name}"))
        });
        let needed = fixed.chain(tablespaces).chain(databases);
        needed.filter(|path| !self.seen.contains(path)).collect()
    }
}

/// A path from the data directory; in tablespaces without the version's folder (`PG_15_202209061`).
fn of_cluster(tablespace: Option<u32>, path: &str) -> String {
    let Some(oid) = tablespace else {
        return path.to_string();
    };
    match path.split_once('/') {
        Some((_, inner)) => format!("pg_tblspc/{oid}/{inner}"),
        None => format!("pg_tblspc/{oid}"),
    }
}

fn is_database(folder: &str) -> bool {
    let (place, oid) = folder.rsplit_once('/').unwrap_or_default();
    (place == "base" || place.starts_with("pg_tblspc/"))
        && oid.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole cluster with databases 1 and 5, and 6 in tablespace 70.
    fn whole() -> (Inventory, Homes) {
        let mut came = Inventory::default();
        for folder in FOLDERS {
            came.folder(None, folder);
        }
        for file in FILES {
            came.file(None, file);
        }
        for file in [
            "pg_xact/0000",
            "pg_multixact/offsets/0000",
            "pg_multixact/members/0000",
            "base/5/1259",
        ] {
            came.file(None, file);
        }
        came.folder(Some(70), "PG_15_202209061");
        for name in OF_DATABASE {
            came.file(None, &format!("base/1/{name}"));
            came.file(None, &format!("base/5/{name}"));
            came.file(Some(70), &format!("PG_15_202209061/6/{name}"));
        }
        let databases = [(1, DEFAULT_TABLESPACE), (5, DEFAULT_TABLESPACE), (6, 70)].into();
        (
            came,
            Homes {
                databases,
                tablespaces: [70].into(),
            },
        )
    }

    #[test]
    fn a_whole_cluster_lacks_nothing_and_each_part_is_missed() {
        let (came, homes) = whole();
        assert!(
            came.missing(&homes).is_empty(),
            "{:?}",
            came.missing(&homes)
        );
        for part in &came.seen {
            let mut less = came.clone();
            less.seen.remove(part);
            assert_eq!(less.missing(&homes), [part.as_str()]);
        }
        assert_eq!(
            came.seen.len(),
            3 + 3 + 6 + 1 + 6,
            "files and relations are not remembered"
        );
    }

    #[test]
    fn what_was_made_dropped_or_moved_meanwhile_is_not_missed() {
        let (came, before) = whole();
        let mut after = before.clone();
        after.databases = [(1, DEFAULT_TABLESPACE), (5, 70), (9, DEFAULT_TABLESPACE)].into();
        after.tablespaces = [70, 71].into();
        assert!(came.missing(&before.throughout(&after)).is_empty());
        assert_eq!(came.missing(&after).len(), 5);
    }
}
