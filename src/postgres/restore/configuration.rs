//! The configuration files that came with the backup: what must go from them, and what they say of archiving.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;

use super::conf;
use super::text::{as_characters, read, write};
use crate::error::with_hint;
use crate::postgres::catalog::BackupDescription;

/// Files deeper than this PostgreSQL refuses to include (CONF_FILE_MAX_DEPTH, guc.h).
const MAX_DEPTH: usize = 10;
/// The settings that make a server archive; `archive_library` from 15 on.
const ARCHIVING: [&str; 3] = ["archive_mode", "archive_command", "archive_library"];

/// Settings whose earlier values must be gone: of two targets PostgreSQL takes none, and the rest are the source's life
/// as a standby.
pub(super) fn is_recovery_setting(name: &str) -> bool {
    name.starts_with("recovery_target")
        || matches!(
            name,
            "restore_command"
                | "recovery_end_command"
                | "archive_cleanup_command"
                | "recovery_min_apply_delay"
                | "primary_conninfo"
                | "primary_slot_name"
                | "promote_trigger_file"
        )
}

/// What only a file's own removal mends: nothing can be set in its place.
fn must_go(name: &str) -> bool {
    is_place(name) || name.starts_with("recovery_target")
}

/// Settings that would lead the restored server to the source's files.
fn is_place(name: &str) -> bool {
    matches!(
        name,
        "data_directory" | "config_file" | "hba_file" | "ident_file" | "external_pid_file"
    )
}

/// Whether the restored server archives, measured in the files that it will read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ArchivingConfig {
    pub on: bool,
    /// `archive_command`, or `archive_library` when that is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_because: Option<String>,
}

/// A configuration file with all that it includes, line by line in the order of their effect.
#[derive(Debug, Default)]
struct Lines {
    /// File and line.
    lines: Vec<(PathBuf, String)>,
    /// Included files that are not there although they have to be.
    missing: Vec<PathBuf>,
}

impl Lines {
    /// Reads `main`. Absolute paths of included files are looked for below `root`.
    fn of(main: &Path, root: &Path) -> anyhow::Result<Self> {
        let mut lines = Self::default();
        lines.add(main, root, 0)?;
        Ok(lines)
    }

    fn add(&mut self, path: &Path, root: &Path, depth: usize) -> anyhow::Result<bool> {
        let Some(text) = (if depth > MAX_DEPTH { None } else { read(path)? }) else {
            return Ok(false);
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        for line in text.lines() {
            self.lines.push((path.to_path_buf(), line.to_string()));
            let Some((directive, named)) = included(line) else {
                continue;
            };
            let named = named
                .strip_prefix("/")
                .map_or_else(|_| folder.join(&named), |inner| root.join(inner));
            match &*directive {
                "include_dir" => {
                    for file in conf_files(&named)? {
                        self.add(&file, root, depth + 1)?;
                    }
                }
                _ if self.add(&named, root, depth + 1)? || directive == "include_if_exists" => (),
                _ => self.missing.push(named),
            }
        }
        Ok(true)
    }

    /// The value that takes effect.
    fn last(&self, name: &str) -> Option<String> {
        let set = self
            .lines
            .iter()
            .rev()
            .find(|(_, line)| conf::setting_of(line).as_deref() == Some(name));
        set.and_then(|(_, line)| conf::value_of(line))
    }
}

/// What a line includes: the directive and the path as it stands there.
pub(super) fn included(line: &str) -> Option<(String, PathBuf)> {
    let directive = conf::setting_of(line)?;
    if !matches!(&*directive, "include" | "include_if_exists" | "include_dir") {
        return None;
    }
    // One character is one byte of the file.
    let bytes = conf::value_of(line)
        .unwrap_or_default()
        .chars()
        .map(|c| c as u8)
        .collect();
    Some((directive, PathBuf::from(OsString::from_vec(bytes))))
}

/// The files that include_dir reads, in its order.
pub(super) fn conf_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list \"{}\"", folder.display()))?
            .path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.ends_with(b".conf") && !name.starts_with(b".") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn main_file(folder: &Path) -> PathBuf {
    folder.join("postgresql.conf")
}

/// The configuration as it stands in a data directory.
#[derive(Debug)]
pub struct CurrentConfig {
    own: Lines,
    auto: Lines,
}

impl CurrentConfig {
    /// Reads it.
    pub fn of(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            own: own_lines(folder)?,
            auto: auto_lines(folder)?,
        })
    }

    /// The value that takes effect.
    pub fn value(&self, name: &str) -> Option<String> {
        self.auto.last(name).or_else(|| self.own.last(name))
    }
}

fn own_lines(folder: &Path) -> anyhow::Result<Lines> {
    Lines::of(&main_file(folder), Path::new("/"))
}

fn auto_lines(folder: &Path) -> anyhow::Result<Lines> {
    Lines::of(&folder.join("postgresql.auto.conf"), Path::new("/"))
}

/// Takes out of the restored configuration, with the files it includes, what would contradict the plan or lead to the
/// source. Errors: such a setting stands in a file outside the data directory, which is not this restore's to change.
pub fn clean(folder: &Path, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let is_meant = |name: &str| is_place(name) || is_recovery_setting(name);
    let real = folder
        .canonicalize()
        .with_context(|| format!("cannot find \"{}\"", folder.display()))?;
    let lines = own_lines(folder)?;
    let files: BTreeSet<&PathBuf> = lines.lines.iter().map(|(file, _)| file).collect();
    for file in files {
        let text = read(file)?.unwrap_or_default();
        let (changed, found) = conf::commented_out(&text, is_meant);
        if found.is_empty() {
            continue;
        }
        let place = file
            .canonicalize()
            .with_context(|| format!("cannot find \"{}\"", file.display()))?;
        if !place.starts_with(&real) {
            let found: Vec<String> = found.into_iter().filter(|name| must_go(name)).collect();
            if found.is_empty() {
                continue;
            }
            let error = anyhow!(
                "the restored postgresql.conf includes \"{}\", which sets {}: the server would not go to the target, or \
                 use its source's files",
                place.display(),
                found.join(", ")
            );
            return Err(with_hint(
                error,
                "make comments of these lines in that file, then restore anew",
            ));
        }
        write(file, &changed)?;
        let name = place.strip_prefix(&real).unwrap_or(&place).display();
        notes.push(format!("made comments in {name}: {}", found.join(", ")));
    }
    for file in lines.missing {
        let file = file.display();
        notes
            .push(format!("postgresql.conf includes \"{file}\", which is not here: the server does not start without"));
    }
    Ok(())
}

/// The settings of archiving that the source had in a postgresql.conf outside its data directory.
pub fn outside_archiving(
    folder: &Path,
    backup: &BackupDescription,
) -> anyhow::Result<Vec<(String, String)>> {
    let Some(file) = backup
        .configuration_files
        .iter()
        .find(|file| file.original.ends_with("/postgresql.conf"))
    else {
        return Ok(Vec::new());
    };
    // They lie in the backup below a folder as they lay below the root.
    let main = folder.join(&file.path);
    let below = Path::new(&file.original).components().count() - 1;
    let root = main.ancestors().nth(below).unwrap_or(folder);
    let (lines, auto) = (Lines::of(&main, root)?, auto_lines(folder)?);
    let found = ARCHIVING.iter().filter(|name| auto.last(name).is_none());
    Ok(found
        .filter_map(|name| Some((name.to_string(), lines.last(name)?)))
        .collect())
}

/// What the files as they are now make the server do.
pub fn archiving(folder: &Path) -> anyhow::Result<ArchivingConfig> {
    let standing = CurrentConfig::of(folder)?;
    let value = |name: &str| standing.value(name).unwrap_or_default();
    let mode = value("archive_mode").to_ascii_lowercase();
    let command = [value("archive_library"), value("archive_command")]
        .into_iter()
        .find(|text| !text.trim().is_empty());
    let off_because = match (&*mode, &command) {
        ("on" | "always" | "true" | "yes" | "1", Some(_)) => None,
        ("on" | "always" | "true" | "yes" | "1", None) => {
            Some("neither archive_command nor archive_library is set".into())
        }
        ("", _) => Some("archive_mode is not set".into()),
        (mode, _) => Some(format!("archive_mode is {mode}")),
    };
    let by = command.filter(|_| off_because.is_none());
    Ok(ArchivingConfig {
        on: off_because.is_none(),
        by,
        off_because,
    })
}

/// Keeps a higher value that the restored configuration already has: WAL after the backup may need it.
pub fn raise(
    folder: &Path,
    backup: &BackupDescription,
    settings: &mut [(String, String)],
) -> anyhow::Result<()> {
    let files = [own_lines(folder)?, auto_lines(folder)?];
    let raised: BTreeMap<&str, i32> = backup
        .recovery_settings
        .named()
        .into_iter()
        .map(|(name, least)| {
            let configured = files
                .iter()
                .filter_map(|lines| lines.last(name)?.parse::<i32>().ok());
            (name, configured.max().unwrap_or(least).max(least))
        })
        .collect();
    for (name, value) in settings {
        if let Some(least) = raised.get(name.as_str()) {
            *value = least.to_string();
        }
    }
    Ok(())
}

/// Writes the settings to postgresql.auto.conf in place of those that must not stay.
pub fn write_settings(
    folder: &Path,
    settings: &[(String, String)],
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let path = folder.join("postgresql.auto.conf");
    let before = read(&path)?.unwrap_or_default();
    let places: Vec<String> = before
        .lines()
        .filter_map(conf::setting_of)
        .filter(|name| is_place(name))
        .collect();
    if !places.is_empty() {
        notes.push(format!(
            "removed from postgresql.auto.conf: {}",
            places.join(", ")
        ));
    }
    let goes = |name: &str| {
        is_place(name) || is_recovery_setting(name) || settings.iter().any(|(each, _)| each == name)
    };
    let mut text = conf::without(&before, goes);
    text.push_str("# Written by walden restore.\n");
    text.extend(
        settings
            .iter()
            .map(|(name, value)| as_characters(conf::assignment(name, value).as_bytes())),
    );
    write(&path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::{ConfigurationFile, testing};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn targets_in_included_files_become_comments_too() {
        let data = folder(&[
            (
                "postgresql.conf",
                "include 'a.conf'\ninclude_if_exists = 'none.conf'\ninclude_dir 'conf.d'\n",
            ),
            ("a.conf", "recovery_target_xid = 7\nport = 1\n"),
            (
                "conf.d/b.conf",
                "Recovery_Target_Time '2001-01-01'\nexternal_pid_file = '/run/x'\n",
            ),
            ("conf.d/b.off", "recovery_target_xid = 8\n"),
        ]);
        let mut notes = Vec::new();
        clean(data.path(), &mut notes).unwrap();
        let text = |name: &str| fs::read_to_string(data.path().join(name)).unwrap();
        assert_eq!(
            text("a.conf"),
            "# walden restore: recovery_target_xid = 7\nport = 1\n"
        );
        assert!(
            text("conf.d/b.conf")
                .lines()
                .all(|line| line.starts_with('#')),
            "{}",
            text("conf.d/b.conf")
        );
        assert_eq!(text("conf.d/b.off"), "recovery_target_xid = 8\n");
        assert_eq!(notes.len(), 2, "{notes:?}");
    }

    #[test]
    fn a_target_in_a_file_outside_is_refused_and_left_alone() {
        let outside = folder(&[("x.conf", "recovery_target_xid = 7\n")]);
        let file = outside.path().join("x.conf");
        let data = folder(&[(
            "postgresql.conf",
            &format!("include '{}'\n", file.display()),
        )]);
        let error = clean(data.path(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("recovery_target_xid"), "{error}");
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            "recovery_target_xid = 7\n"
        );
        let mut notes = Vec::new();
        let absent = folder(&[("postgresql.conf", "include '/nowhere/x.conf'\n")]);
        clean(absent.path(), &mut notes).unwrap();
        assert!(notes[0].contains("/nowhere/x.conf"), "{notes:?}");
        // A file that includes itself is PostgreSQL's to refuse.
        clean(
            folder(&[("postgresql.conf", "include 'postgresql.conf'\n")]).path(),
            &mut Vec::new(),
        )
        .unwrap();
    }

    #[test]
    fn places_go_from_the_settings_made_by_sql() {
        let data = folder(&[(
            "postgresql.auto.conf",
            "external_pid_file = '/run/x'\nhba_file = 'x'\nport = 1\n",
        )]);
        let mut notes = Vec::new();
        write_settings(data.path(), &[("a".into(), "b".into())], &mut notes).unwrap();
        let text = fs::read_to_string(data.path().join("postgresql.auto.conf")).unwrap();
        assert_eq!(text, "port = 1\n# Written by walden restore.\na = 'b'\n");
        assert_eq!(
            notes,
            ["removed from postgresql.auto.conf: external_pid_file, hba_file"]
        );
    }

    #[test]
    fn archiving_is_found_in_the_configuration_from_outside() {
        let data = folder(&[
            (
                "walden-configuration/etc/pg/postgresql.conf",
                "archive_mode = on\ninclude_dir '/etc/pg/conf.d'\n",
            ),
            (
                "walden-configuration/etc/pg/conf.d/a.conf",
                "archive_command = 'push %p'\n",
            ),
            ("postgresql.conf", "\n"),
        ]);
        let path = "walden-configuration/etc/pg/postgresql.conf".to_string();
        let mut backup = testing::backup("20260101-000000Z");
        backup.configuration_files.push(ConfigurationFile {
            original: "/etc/pg/postgresql.conf".into(),
            path,
        });
        assert_eq!(
            archiving(data.path()).unwrap().off_because.as_deref(),
            Some("archive_mode is not set")
        );
        let found = outside_archiving(data.path(), &backup).unwrap();
        write_settings(data.path(), &found, &mut Vec::new()).unwrap();
        let measured = archiving(data.path()).unwrap();
        assert_eq!(
            (measured.on, measured.by.as_deref()),
            (true, Some("push %p"))
        );
        fs::write(
            data.path().join("postgresql.auto.conf"),
            "archive_mode = off\n",
        )
        .unwrap();
        assert_eq!(
            archiving(data.path()).unwrap().off_because.as_deref(),
            Some("archive_mode is off")
        );
    }
}
