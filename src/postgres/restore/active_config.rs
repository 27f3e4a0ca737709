//! Which of the restored configuration files were in force in the source. Where the server read others, those that lie
//! in the data directory are what initdb or an earlier life left there: they must not come into force by accident.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::configuration::CurrentConfig;
use super::text::{read, write, write_new};
use crate::postgres::catalog::BackupDescription;

/// The setting that names a file, and the file that is taken without it.
const FILES: [(&str, &str); 3] = [
    ("config_file", "postgresql.conf"),
    ("hba_file", "pg_hba.conf"),
    ("ident_file", "pg_ident.conf"),
];
/// Where files go that were not in force, below the data directory.
const ASIDE: &str = "walden-configuration/not-in-force";

/// Where the source had a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ConfigPlace {
    /// Where it is taken without a setting.
    Usual,
    /// Elsewhere in the data directory.
    Inside(String),
    Outside,
}

/// Puts files aside that were not in force, and writes what is missing then. Says whether postgresql.conf lay outside.
pub fn settle(
    folder: &Path,
    backup: &BackupDescription,
    notes: &mut Vec<String>,
) -> anyhow::Result<bool> {
    let mut aside = Vec::new();
    let mut lay_outside = !folder.join("postgresql.conf").exists();
    for (setting, name) in FILES {
        let place = place(
            backup,
            setting,
            name,
            CurrentConfig::of(folder)?.value(setting).is_some(),
        );
        lay_outside |= setting == "config_file" && place == ConfigPlace::Outside;
        if place == ConfigPlace::Usual {
            continue;
        }
        if folder.join(name).exists() {
            put_aside(folder, name)?;
            aside.push(name);
        }
        if let ConfigPlace::Inside(inner) = place
            && let Some(text) = read(&folder.join(&inner))?
        {
            write(&folder.join(name), &text)?;
            notes.push(format!(
                "{name} is what was in force in the source, \"{inner}\""
            ));
        }
    }
    if !aside.is_empty() {
        notes.push(format!(
            "{} lay in the data directory without being in force: moved to {ASIDE}",
            aside.join(", ")
        ));
    }
    write_missing(folder, backup, notes)?;
    Ok(lay_outside)
}

/// Where a file was in force: as the backup says. One that does not say so was taken by an older Walden: then any sign
/// that it lay elsewhere counts.
fn place(backup: &BackupDescription, setting: &str, name: &str, configured: bool) -> ConfigPlace {
    let places = &backup.configuration_places;
    if let Some((data_directory, path)) = places.get("data_directory").zip(places.get(setting)) {
        let inner = path
            .strip_prefix(data_directory.trim_end_matches('/'))
            .and_then(|rest| rest.strip_prefix('/'));
        return match inner {
            Some(inner) if inner == name => ConfigPlace::Usual,
            Some(inner) => ConfigPlace::Inside(inner.to_string()),
            None => ConfigPlace::Outside,
        };
    }
    let is_there = backup
        .configuration_files
        .iter()
        .any(|file| file.original.ends_with(&format!("/{name}")));
    if configured || is_there {
        ConfigPlace::Outside
    } else {
        ConfigPlace::Usual
    }
}

fn put_aside(folder: &Path, name: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let aside = folder.join(ASIDE);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&aside)
        .with_context(|| format!("cannot make folder \"{}\"", aside.display()))?;
    fs::rename(folder.join(name), aside.join(name))
        .with_context(|| format!("cannot move {name} to {ASIDE}"))
}

/// Writes minimal files: the folder must start, and let nobody in who was not.
fn write_missing(
    folder: &Path,
    backup: &BackupDescription,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let content = |name: &str| match name {
        "postgresql.conf" => "listen_addresses = 'localhost'\n",
        // `all` is no replication connection, by which backups are taken.
        "pg_hba.conf" => {
            "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n\
             local replication all peer\nhost replication all 127.0.0.1/32 scram-sha-256\n\
             host replication all ::1/128 scram-sha-256\n"
        }
        _ => "",
    };
    let mut written = Vec::new();
    for (_, name) in FILES {
        let path = folder.join(name);
        if !path.exists() {
            let head = "# Written by walden restore: the source kept this file outside its data directory.\n";
            write_new(&path, &format!("{head}{}", content(name)))?;
            written.push(name);
        }
    }
    if !written.is_empty() {
        let originals: Vec<&str> = backup
            .configuration_files
            .iter()
            .map(|file| file.path.as_str())
            .collect();
        let originals = match originals.is_empty() {
            true => "the backup does not have the source's own".to_string(),
            false => format!("the source's own are beside: {}", originals.join(", ")),
        };
        notes.push(format!(
            "{} lay outside the source's data directory: minimal ones were written; {originals}",
            written.join(", ")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::postgres::catalog::{ConfigurationFile, testing};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files
            .iter()
            .for_each(|(name, content)| fs::write(folder.path().join(name), content).unwrap());
        folder
    }

    fn backup(places: &[(&str, &str)]) -> BackupDescription {
        let places = places
            .iter()
            .map(|(name, path)| (name.to_string(), path.to_string()));
        BackupDescription {
            configuration_places: places.collect::<BTreeMap<_, _>>(),
            ..testing::backup("20260101-000000Z")
        }
    }

    const TRUST: &[(&str, &str)] = &[
        ("postgresql.conf", "port = 1\n"),
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", "\n"),
    ];

    fn settled(
        files: &[(&str, &str)],
        backup: &BackupDescription,
    ) -> (tempfile::TempDir, bool, Vec<String>) {
        let folder = folder(files);
        let mut notes = Vec::new();
        let outside = settle(folder.path(), backup, &mut notes).unwrap();
        (folder, outside, notes)
    }

    #[test]
    fn files_that_were_not_in_force_do_not_come_into_force() {
        let told = backup(&[
            ("data_directory", "/data/"),
            ("config_file", "/etc/pg/main.conf"),
            ("hba_file", "/etc/pg/hba"),
            ("ident_file", "/data/pg_ident.conf"),
        ]);
        let (folder, outside, notes) = settled(TRUST, &told);
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(
            outside && !text("pg_hba.conf").contains("trust"),
            "{}",
            text("pg_hba.conf")
        );
        assert!(
            text("pg_hba.conf").contains("\nlocal replication all peer\n"),
            "a backup of it can be taken"
        );
        assert!(!text("postgresql.conf").contains("port"));
        assert_eq!(
            text("walden-configuration/not-in-force/pg_hba.conf"),
            "local all all trust\n"
        );
        assert_eq!(text("pg_ident.conf"), "\n", "this one was in force");
        assert!(
            notes[0].starts_with("postgresql.conf, pg_hba.conf lay in the data directory"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_file_of_another_name_inside_takes_the_usual_place() {
        let mut files = TRUST.to_vec();
        files.push(("hba.mine", "local all all reject\n"));
        let usual = ("config_file", "/data/postgresql.conf");
        let told = backup(&[
            ("data_directory", "/data"),
            usual,
            ("hba_file", "/data/hba.mine"),
            ("ident_file", "/data/pg_ident.conf"),
        ]);
        let (folder, outside, _) = settled(&files, &told);
        assert_eq!(
            fs::read_to_string(folder.path().join("pg_hba.conf")).unwrap(),
            "local all all reject\n"
        );
        assert!(!outside);
    }

    #[test]
    fn an_older_backup_tells_by_its_configuration_and_its_files_from_outside() {
        let (folder, ..) = settled(
            &[
                ("postgresql.conf", "hba_file = '/etc/pg/x'\n"),
                TRUST[1],
                TRUST[2],
            ],
            &backup(&[]),
        );
        assert!(
            !fs::read_to_string(folder.path().join("pg_hba.conf"))
                .unwrap()
                .contains("trust")
        );
        let original = "/etc/pg/pg_hba.conf".to_string();
        let path = "walden-configuration/etc/pg/pg_hba.conf".to_string();
        let taken = BackupDescription {
            configuration_files: vec![ConfigurationFile { original, path }],
            ..backup(&[])
        };
        let (folder, ..) = settled(TRUST, &taken);
        assert!(
            !fs::read_to_string(folder.path().join("pg_hba.conf"))
                .unwrap()
                .contains("trust")
        );
        let (folder, outside, notes) = settled(TRUST, &backup(&[]));
        assert!(
            fs::read_to_string(folder.path().join("pg_hba.conf"))
                .unwrap()
                .contains("trust")
        );
        assert!(!outside && notes.is_empty(), "{notes:?}");
    }
}
