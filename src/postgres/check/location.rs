//! Where the repository lies: in nothing that it protects, and on another disk. Also asked by whoever makes a repository or
//! puts something into one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::{Check, CheckError, CheckRequest, Verdict};
use crate::config::{RepositoryUrl, Settings};
use crate::error::{one_line, with_hint};
use crate::folder_place::{FolderPlace, FolderRelation};
use crate::owner::Owner;
use crate::postgres::backup::ask::ask;
use crate::postgres::replication::{ConnInfo, Connection, Mode};

/// A server that does not answer within this is not asked where its folders are, by verbs that can do without it.
const PATIENCE: Duration = Duration::from_secs(10);
const ELSEWHERE: &str = "choose a folder outside, best on another disk";
const MOVE: &str =
    "copy it to another disk with `walden repo copy --to`, then set `repository.url` to that";

/// Only who may see it is told the data directory.
const QUESTION: &str = "SELECT 'data directory' AS what, setting AS place FROM pg_settings WHERE name = 'data_directory' \
    UNION ALL SELECT 'tablespace', pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''";
const HERE: &str = "SELECT coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)::int AS here";

/// A folder that the repository must lie apart from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFolder {
    /// Such as `data directory`.
    pub what: &'static str,
    pub path: PathBuf,
}

/// The folders of a server that runs on this machine; none of another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFolders(pub Vec<ServerFolder>);

impl ServerFolders {
    /// Asks the server. Errors: it does not answer.
    pub async fn ask(sql: &mut Connection, settings: &Settings) -> anyhow::Result<Self> {
        if ask(sql, HERE).await?.parse::<u8>(0, "here")? != 1 {
            return Ok(Self::default());
        }
        let answer = ask(sql, QUESTION).await?;
        let mut folders = Vec::new();
        for row in 0..answer.rows.len() {
            let what = if answer.parse::<String>(row, "what")? == "tablespace" {
                TABLESPACE
            } else {
                DATA_DIRECTORY
            };
            folders.push(ServerFolder {
                what,
                path: answer.parse::<String>(row, "place")?.into(),
            });
        }
        let known = folders.iter().any(|folder| folder.what == DATA_DIRECTORY);
        let configured = settings.cluster.data_directory.iter().filter(|_| !known);
        folders.extend(configured.map(|path| ServerFolder {
            what: DATA_DIRECTORY,
            path: path.clone(),
        }));
        let data = folders
            .iter()
            .find(|folder| folder.what == DATA_DIRECTORY)
            .map(|folder| folder.path.join("pg_wal"));
        folders.extend(data.map(|path| ServerFolder { what: WAL, path }));
        Ok(Self(folders))
    }

    /// The same by a connection of its own. A server that is down, or far away, has none that are known.
    pub async fn gather(settings: &Settings) -> Self {
        let work = async {
            let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
            let mut sql = Connection::connect(&info, Mode::Sql).await?;
            let folders = Self::ask(&mut sql, settings).await?;
            sql.close().await?;
            anyhow::Ok(folders)
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(folders)) => return folders,
            Ok(Err(error)) => tracing::info!(
                "PostgreSQL does not say where its folders are: {}",
                one_line(&error)
            ),
            Err(_) => tracing::info!(
                "PostgreSQL does not say within {} s where its folders are",
                PATIENCE.as_secs()
            ),
        }
        let configured = settings.cluster.data_directory.iter().cloned();
        Self(
            configured
                .map(|path| ServerFolder {
                    what: DATA_DIRECTORY,
                    path,
                })
                .collect(),
        )
    }

    /// The user that the server runs as: its data directory belongs to it.
    pub fn user(&self) -> Option<Owner> {
        let data = self.0.iter().find(|folder| folder.what == DATA_DIRECTORY)?;
        Owner::of(&data.path).ok()
    }

    /// `pg_wal`.
    pub fn wal(&self) -> Option<&Path> {
        self.0
            .iter()
            .find(|folder| folder.what == WAL)
            .map(|folder| folder.path.as_path())
    }

    fn knows_data_directory(&self) -> bool {
        self.0.iter().any(|folder| folder.what == DATA_DIRECTORY)
    }
}

const DATA_DIRECTORY: &str = "data directory";
const TABLESPACE: &str = "tablespace";
const WAL: &str = "folder of WAL";

/// How folders lie to a repository's; only those that do not lie apart.
fn relations<'a>(
    repository: &Path,
    folders: &'a [ServerFolder],
) -> Vec<(FolderRelation, &'a ServerFolder)> {
    let place = FolderPlace::of(repository);
    let relation = |folder: &'a ServerFolder| (place.to(&FolderPlace::of(&folder.path)), folder);
    folders
        .iter()
        .map(relation)
        .filter(|(relation, _)| *relation != FolderRelation::Apart)
        .collect()
}

/// Says how the repository does not lie apart from what must be apart from it.
fn entangled(repository: &Path, relations: &[(FolderRelation, &ServerFolder)]) -> Option<String> {
    let shown = repository.display();
    relations
        .iter()
        .find_map(|(relation, ServerFolder { what, path })| match relation {
            FolderRelation::Within => Some(format!(
                "repository \"{shown}\" lies in the {what} \"{}\"",
                path.display()
            )),
            FolderRelation::Around => Some(format!(
                "the {what} \"{}\" lies in repository \"{shown}\"",
                path.display()
            )),
            FolderRelation::OneDisk | FolderRelation::Apart => None,
        })
}

/// Refuses a repository that lies in one of the folders, or around it. One that is no folder lies in none.
pub fn refuse_inside(url: &RepositoryUrl, folders: &[ServerFolder]) -> anyhow::Result<()> {
    let Some(path) = url.folder() else {
        return Ok(());
    };
    match entangled(path, &relations(path, folders)) {
        Some(what) => Err(with_hint(
            anyhow!("{what}: both would be lost together, and each copy holds the last"),
            ELSEWHERE,
        )),
        None => Ok(()),
    }
}

/// Checks where the repository lies, and what the service keeps.
pub(super) async fn check(request: &CheckRequest<'_>, sql: &mut Connection) -> Verdict {
    let Some(path) = request.settings.repository.url.folder() else {
        return Check::Place.ok("the repository is no folder: it lies in none of the server");
    };
    let folders = match request
        .within("PostgreSQL", ServerFolders::ask(sql, request.settings))
        .await
    {
        Ok(folders) => folders,
        Err(error) => return unknown(&error),
    };
    let Settings {
        catalog,
        service,
        http,
        ..
    } = request.settings;
    let of = |what, path: &Path| ServerFolder {
        what,
        path: path.to_path_buf(),
    };
    let ours = [
        ("catalog.cache", &catalog.cache),
        ("service.socket", &service.socket),
        ("http.spool", &http.spool),
    ];
    let ours = ours.map(|(what, path)| of(what, path));
    decide(
        path,
        &folders,
        &relations(path, &folders.0),
        &relations(path, &ours),
    )
}

fn unknown(error: &CheckError) -> Verdict {
    Check::Place.unknown(error.what.clone())
}

fn decide(
    repository: &Path,
    folders: &ServerFolders,
    relations: &[(FolderRelation, &ServerFolder)],
    ours: &[(FolderRelation, &ServerFolder)],
) -> Verdict {
    if let Some(what) = entangled(repository, relations) {
        let why = "each backup holds all before it, and both are lost together";
        return Check::Place.critical(format!("{what}: {why}")).hint(MOVE);
    }
    // Around: the setting's folder lies in the repository.
    if let Some((_, ServerFolder { what, path })) = ours
        .iter()
        .find(|(relation, _)| *relation == FolderRelation::Around)
    {
        return Check::Place
            .warning(format!(
                "`{what}` \"{}\" lies in the repository, where only objects belong",
                path.display()
            ))
            .hint(format!("set `{what}` to a path outside"));
    }
    if let Some((_, ServerFolder { what, path })) = relations.first() {
        return Check::Place
            .warning(format!(
                "the repository lies on one disk with the {what} \"{}\": one failure takes both",
                path.display()
            ))
            .hint("keep a second copy elsewhere with `walden repo copy`, or move the repository");
    }
    match folders.knows_data_directory() {
        true => Check::Place.ok("apart from the server's folders, as far as this machine shows"),
        false => Check::Place.skipped(
            "the server is on another machine, or does not tell where its data directory is",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::CheckStatus;

    fn folder(what: &'static str, path: &Path) -> ServerFolder {
        ServerFolder {
            what,
            path: path.to_path_buf(),
        }
    }

    #[test]
    fn a_repository_in_the_servers_folders_or_around_them_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        let folders = [
            folder(DATA_DIRECTORY, &path("data")),
            folder(TABLESPACE, &path("fast")),
        ];
        let refused = |name: &str| refuse_inside(&RepositoryUrl::File(path(name)), &folders);
        for inside in ["data/backups", "data", "fast/x/y", ""] {
            let error = refused(inside).unwrap_err();
            assert!(one_line(&error).contains(" lies in "), "{inside}: {error}");
        }
        refused("repository").unwrap();
        refuse_inside(&RepositoryUrl::parse("s3://bucket/data").unwrap(), &folders).unwrap();
    }

    #[test]
    fn within_is_critical_and_one_disk_a_warning() {
        let (data, cache) = (
            folder(DATA_DIRECTORY, Path::new("/data")),
            folder("catalog.cache", Path::new("/r/cache")),
        );
        let known = ServerFolders(vec![data.clone()]);
        let decide = |relation, own| {
            decide(
                Path::new("/r"),
                &known,
                &[(relation, &data)],
                &[(own, &cache)],
            )
        };
        assert_eq!(
            decide(FolderRelation::Within, FolderRelation::OneDisk).status,
            CheckStatus::Critical
        );
        assert_eq!(
            decide(FolderRelation::Around, FolderRelation::OneDisk).status,
            CheckStatus::Critical
        );
        assert!(
            decide(FolderRelation::OneDisk, FolderRelation::Around)
                .message
                .contains("`catalog.cache`")
        );
        let one_disk = decide(FolderRelation::OneDisk, FolderRelation::OneDisk);
        assert_eq!(one_disk.status, CheckStatus::Warning);
        assert!(one_disk.hint.unwrap().contains("repo copy"));
        let apart = |folders| super::decide(Path::new("/r"), folders, &[], &[]).status;
        assert_eq!(apart(&known), CheckStatus::Ok);
        assert_eq!(apart(&ServerFolders::default()), CheckStatus::Skipped);
    }
}
