//! Base backups: complete, identical to what the server has, and honest about bad pages.

use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use walden::error::{find, hints, one_line};
use walden::postgres::replication::{
    BackupEvent, BackupOptions, BackupPosition, Checkpoint, ChecksumFailures, Connection, Mode,
    ServerError, Tablespace,
};
use walden::postgres::types::TimelineId;

use super::server::Server;
use super::{block_on, connect};
use crate::harness::{Major, each_major};

fn options() -> BackupOptions {
    BackupOptions {
        label: "it's a 'test'".to_owned(),
        checkpoint: Checkpoint::Fast,
        progress: true,
        max_rate_kib: None,
        verify_checksums: true,
        tablespace_map: true,
    }
}

/// What a backup brought.
struct Taken {
    start: BackupPosition,
    end: BackupPosition,
    tablespaces: Vec<Tablespace>,
    /// Per archive the tablespace's number and the archive as a file.
    archives: Vec<(Option<u32>, PathBuf)>,
    bytes: u64,
    progress: u64,
    folder: tempfile::TempDir,
}

async fn take(connection: &mut Connection, options: &BackupOptions) -> anyhow::Result<Taken> {
    take_with(connection, options, &mut Vec::new()).await
}

/// The warnings come in any case.
async fn take_with(
    connection: &mut Connection,
    options: &BackupOptions,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Taken> {
    let major = connection.major_version()?.number();
    let folder = tempfile::tempdir()?;
    let mut backup = connection.base_backup(options).await?;
    let (mut start, mut end, mut tablespaces, mut archives) = (None, None, Vec::new(), Vec::new());
    let (mut bytes, mut progress) = (0, 0);
    let mut file: Option<std::fs::File> = None;
    while let Some(event) = backup.next().await? {
        match event {
            BackupEvent::Start(position) => start = Some(position),
            BackupEvent::Tablespaces(list) => tablespaces = list,
            BackupEvent::ArchiveStart {
                tablespace_oid,
                location,
            } => {
                assert!(file.is_none());
                assert!(
                    tablespaces
                        .iter()
                        .any(|t| t.oid == tablespace_oid && t.location == location)
                );
                let path = folder.path().join(format!("{}.tar", archives.len()));
                file = Some(std::fs::File::create(&path)?);
                archives.push((tablespace_oid, path));
            }
            BackupEvent::Data(data) => {
                bytes += data.len() as u64;
                file.as_mut()
                    .expect("data within an archive")
                    .write_all(&data)?;
            }
            BackupEvent::Progress(done) => {
                assert!(done >= progress);
                progress = done;
            }
            BackupEvent::ArchiveEnd => {
                let mut file = file.take().expect("an archive to end");
                if major < 15 {
                    file.write_all(&[0; 1024])?;
                }
            }
            BackupEvent::Warning(warning) => warnings.push(warning.message),
            BackupEvent::End(position) => end = Some(position),
        }
    }
    drop(backup);
    let (start, end) = (start.expect("a start"), end.expect("an end"));
    Ok(Taken {
        start,
        end,
        tablespaces,
        archives,
        bytes,
        progress,
        folder,
    })
}

impl Taken {
    /// Unpacks an archive with `tar` and says which members it has, in order.
    fn unpack(&self, index: usize) -> (PathBuf, Vec<String>) {
        let to = self.folder.path().join(format!("unpacked-{index}"));
        std::fs::create_dir(&to).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["-x", "-v", "--no-same-owner", "-f"])
            .arg(&self.archives[index].1)
            .arg("-C")
            .arg(&to);
        let output = tar.output().unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaints.is_empty(),
            "{complaints}"
        );
        let members = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        (to, members)
    }
}

/// A table with rows in a tablespace and one outside; their files relative to the data folder and the tablespace.
struct Tables {
    main_file: String,
    inner_file: String,
    oid: u32,
    space: PathBuf,
}

async fn make_tables(server: &Server) -> Tables {
    let space = server.folder("a table space");
    let mut sql = server.sql().await;
    sql.simple_query(&format!(
        "CREATE TABLESPACE apart LOCATION '{}'",
        space.display()
    ))
    .await
    .unwrap();
    let rows = "AS SELECT n, repeat('x', 100) AS filler FROM generate_series(1, 20000) AS n";
    sql.simple_query(&format!(
        "CREATE TABLE public.inside {rows}; CREATE TABLE public.outside TABLESPACE apart {rows}"
    ))
    .await
    .unwrap();
    // No hint bits or visibility changes between checkpoint and backup.
    sql.simple_query("VACUUM FREEZE public.inside")
        .await
        .unwrap();
    sql.simple_query("VACUUM FREEZE public.outside")
        .await
        .unwrap();
    sql.simple_query("CHECKPOINT").await.unwrap();
    let result = sql
        .simple_query(
            "SELECT pg_relation_filepath('public.inside') AS main, pg_relation_filepath('public.outside') AS apart,
                    (SELECT oid FROM pg_tablespace WHERE spcname = 'apart') AS oid",
        )
        .await
        .unwrap();
    let apart: String = result[0].parse(0, "apart").unwrap();
    let inner_file = apart.splitn(3, '/').nth(2).unwrap().to_owned();
    Tables {
        main_file: result[0].parse(0, "main").unwrap(),
        inner_file,
        oid: result[0].parse(0, "oid").unwrap(),
        space,
    }
}

fn files_below(folder: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => walk(root, &entry.path(), found),
                kind if kind.is_file() => {
                    found.insert(
                        entry
                            .path()
                            .strip_prefix(root)
                            .unwrap()
                            .to_str()
                            .unwrap()
                            .to_owned(),
                    );
                }
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, folder, &mut found);
    found
}

each_major!(
    archives_unpack_to_what_the_server_has_on_every_major,
    archives_unpack_to_what_the_server_has_on_every_major_on
);

fn archives_unpack_to_what_the_server_has_on_every_major_on(major: Major) {
    block_on(async {
        let server = Server::start(&major, "", "");
        let tables = make_tables(&server).await;
        let mut connection = connect(&server.dsn(), Mode::Physical).await;
        let taken = take(&mut connection, &options()).await.unwrap();
        assert!(taken.start.lsn < taken.end.lsn && taken.start.timeline == TimelineId(1));
        let listed: Vec<Option<u32>> = taken.tablespaces.iter().map(|space| space.oid).collect();
        let came: Vec<Option<u32>> = taken.archives.iter().map(|(oid, _)| *oid).collect();
        assert_eq!(
            (listed, came),
            (vec![Some(tables.oid), None], vec![Some(tables.oid), None])
        );
        assert_eq!(
            taken.tablespaces[0].location.as_deref(),
            tables.space.to_str()
        );
        assert!(
            taken
                .tablespaces
                .iter()
                .all(|space| space.size_kib.unwrap() > 2000)
        );
        assert!(
            taken.progress > 0 && taken.progress <= taken.bytes,
            "{} of {}",
            taken.progress,
            taken.bytes
        );

        let (apart, _) = taken.unpack(0);
        let (main, members) = taken.unpack(1);
        let same = |file: &str, copy: &Path, source: &Path| {
            let (copy, source) = (
                std::fs::read(copy.join(file)).unwrap(),
                std::fs::read(source.join(file)).unwrap(),
            );
            assert!(copy == source && copy.len() > 2_000_000, "{file}");
        };
        same(&tables.main_file, &main, server.data());
        same(&tables.inner_file, &apart, &tables.space);
        let missing: Vec<String> = files_below(&server.data().join("base"))
            .difference(&files_below(&main.join("base")))
            .filter(|name| !name.ends_with("pg_internal.init"))
            .cloned()
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        let label = std::fs::read_to_string(main.join("backup_label")).unwrap();
        assert!(
            label.contains("LABEL: it's a 'test'\n")
                && label.contains(&taken.start.lsn.to_string()),
            "{label}"
        );
        let map = std::fs::read_to_string(main.join("tablespace_map")).unwrap();
        assert_eq!(map, format!("{} {}\n", tables.oid, tables.space.display()));
        assert_eq!(members.last().unwrap(), "global/pg_control");
        assert!(!members.iter().any(|member| member.starts_with("pg_wal/0")));
        connection.identify_system().await.unwrap();
        connection.close().await.unwrap();
    });
}

/// Overwrites a few bytes in the middle of the third page.
fn corrupt(file: &Path) {
    let mut file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(2 * 8192 + 4000)).unwrap();
    file.write_all(b"what was never written").unwrap();
    file.sync_all().unwrap();
}

each_major!(
    a_bad_page_is_told_apart_from_every_other_failure_on_every_major,
    a_bad_page_is_told_apart_from_every_other_failure_on_every_major_on
);

fn a_bad_page_is_told_apart_from_every_other_failure_on_every_major_on(major: Major) {
    block_on(async {
        let server = Server::start(&major, "", "");
        let tables = make_tables(&server).await;
        corrupt(&server.data().join(&tables.main_file));
        let mut connection = connect(&server.dsn(), Mode::Physical).await;
        let mut warnings = Vec::new();
        let error = take_with(&mut connection, &options(), &mut warnings)
            .await
            .err()
            .expect("a failure");
        let bad: &ChecksumFailures = find(&error).unwrap_or_else(|| panic!("{}", one_line(&error)));
        assert!(
            warnings
                .iter()
                .any(|message| message.contains(&tables.main_file)),
            "{warnings:?}"
        );
        assert!(bad.end.lsn.0 > 0 && bad.end.timeline == TimelineId(1));
        assert!(!hints(&error).is_empty());
        connection.identify_system().await.unwrap();

        let unverified = BackupOptions {
            verify_checksums: false,
            ..options()
        };
        take(&mut connection, &unverified).await.unwrap();
        // Once turned off, 13 and 14 would not verify again in this session, silently.
        let again = take(&mut connection, &options())
            .await
            .err()
            .expect("a failure");
        match server.major {
            13 | 14 => assert!(
                hints(&again)[0].contains("new connection"),
                "{}",
                one_line(&again)
            ),
            _ => assert!(
                find::<ChecksumFailures>(&again).is_some(),
                "{}",
                one_line(&again)
            ),
        }
    });
}

each_major!(
    a_refused_backup_leaves_the_session_usable,
    a_refused_backup_leaves_the_session_usable_on
);

fn a_refused_backup_leaves_the_session_usable_on(major: Major) {
    block_on(async {
        let server = Server::start(&major, "", "");
        let mut connection = connect(&server.dsn(), Mode::Physical).await;
        let error = connection.simple_query("SELECT 1").await.unwrap_err();
        assert!(find::<ServerError>(&error).is_some());
        let error = connection
            .simple_query("BASE_BACKUP NONSENSE")
            .await
            .unwrap_err();
        assert_eq!(find::<ServerError>(&error).unwrap().code, "42601");
        assert!(
            connection
                .timeline_history(TimelineId(1))
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(connection.show("wal_segment_size").await.unwrap(), "16MB");
        let error = connection.show("no_such_setting").await.unwrap_err();
        assert_eq!(find::<ServerError>(&error).unwrap().code, "42704");
        assert!(connection.show("a; b").await.is_err());
        let whole = take(
            &mut connection,
            &BackupOptions {
                progress: false,
                ..options()
            },
        )
        .await
        .unwrap();
        assert!(
            whole
                .tablespaces
                .iter()
                .all(|space| space.size_kib.is_none())
        );
    });
}

each_major!(
    a_server_that_stops_during_a_backup_is_an_error_never_an_end,
    a_server_that_stops_during_a_backup_is_an_error_never_an_end_on
);

fn a_server_that_stops_during_a_backup_is_an_error_never_an_end_on(major: Major) {
    block_on(async {
        let server = Server::start(&major, "", "");
        let mut connection = connect(&server.dsn(), Mode::Physical).await;
        let slow = BackupOptions {
            max_rate_kib: Some(1024),
            ..options()
        };
        let mut backup = connection.base_backup(&slow).await.unwrap();
        let mut asked = false;
        let error = loop {
            match backup.next().await {
                Ok(Some(BackupEvent::Data(_))) if !asked => {
                    server.ask_to_stop(rustix::process::Signal::INT);
                    asked = true;
                }
                Ok(Some(event)) => assert!(!matches!(event, BackupEvent::End(_))),
                Ok(None) => panic!("the backup ended well"),
                Err(error) => break error,
            }
        };
        let known = find::<ServerError>(&error).map(|error| error.code.clone());
        assert!(
            known.is_none_or(|code| code == "57P01"),
            "{}",
            one_line(&error)
        );
        drop(backup);
        assert!(connection.identify_system().await.is_err());
    });
}

#[tokio::test]
async fn an_abandoned_backup_leaves_no_session_to_misread() {
    let major = Major::newest();
    let server = Server::start(&major, "", "");
    let mut connection = connect(&server.dsn(), Mode::Physical).await;
    let mut backup = connection.base_backup(&options()).await.unwrap();
    while !matches!(backup.next().await.unwrap(), Some(BackupEvent::Data(_))) {}
    drop(backup);
    assert!(
        one_line(&connection.identify_system().await.unwrap_err()).contains("was not finished")
    );
    connection.close().await.unwrap();
    let mut sql = connect(&server.dsn(), Mode::Sql).await;
    assert!(sql.base_backup(&options()).await.is_err());
}
