//! Configuration that postgresql.conf includes from outside the data directory. It is the source's: a copy takes what the
//! backup has of it, and reads nothing outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::conf;
use super::configuration::{conf_files, included};
use super::text::{as_characters, read, write};
use crate::postgres::catalog::BackupDescription;

/// What is included from outside: where it is now, and whether the line stays as it is.
fn elsewhere(
    named: &Path,
    directive: &str,
    backup: &BackupDescription,
    is_copy: bool,
) -> (Option<PathBuf>, bool) {
    match moved(named, backup) {
        None if is_copy => (taken(named, directive, backup), false),
        None => (None, true),
        moved => (moved, false),
    }
}

/// The files of a folder that is included, from the data directory.
fn files_of(data_directory: &Path, inner: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = conf_files(&data_directory.join(inner))?;
    Ok(files
        .iter()
        .filter_map(|file| Some(inner.join(file.file_name()?)))
        .collect())
}

/// Lets what is included by its place in the source's data directory be included from here. In a copy, what is included
/// from outside is included from what the backup has of it, or becomes a comment.
pub fn bring_in(
    folder: &Path,
    backup: &BackupDescription,
    is_copy: bool,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut left = vec![PathBuf::from("postgresql.conf")];
    let mut seen = BTreeSet::new();
    while let Some(name) = left.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(text) = read(&folder.join(&name))? else {
            continue;
        };
        let mut changed = String::with_capacity(text.len() + 64);
        for line in text.lines() {
            let Some((directive, named)) = included(line) else {
                changed.push_str(&format!("{line}\n"));
                continue;
            };
            let (inner, is_own) = match inner(folder, &name, &named) {
                Some(inner) => (Some(inner), true),
                None => elsewhere(&named, &directive, backup, is_copy),
            };
            match &inner {
                _ if is_own => changed.push_str(&format!("{line}\n")),
                Some(inner) => {
                    let up = "../".repeat(name.components().count() - 1);
                    let path =
                        as_characters(Path::new(&up).join(inner).as_os_str().as_encoded_bytes());
                    changed.push_str(&format!(
                        "# walden restore: {line}\n{}",
                        conf::assignment(&directive, &path)
                    ));
                }
                None => {
                    changed.push_str(&format!("# walden restore: {line}\n"));
                    notes.push(format!(
                        "{} includes \"{}\", which the backup does not have",
                        name.display(),
                        named.display()
                    ));
                }
            }
            match inner {
                Some(inner) if directive == "include_dir" => left.extend(files_of(folder, &inner)?),
                inner => left.extend(inner),
            }
        }
        if changed != text {
            write(&folder.join(&name), &changed)?;
        }
    }
    Ok(())
}

/// Where an included file lies below the data directory, if it does.
fn inner(folder: &Path, including: &Path, named: &Path) -> Option<PathBuf> {
    let path = including.parent().unwrap_or(Path::new("")).join(named);
    let mut inner = PathBuf::new();
    for part in path.strip_prefix(folder).unwrap_or(&path).components() {
        match part {
            std::path::Component::Normal(part) => inner.push(part),
            std::path::Component::CurDir => (),
            std::path::Component::ParentDir if inner.pop() => (),
            _ => return None,
        }
    }
    Some(inner)
}

/// Where it lay below the source's data directory, if it did.
fn moved(named: &Path, backup: &BackupDescription) -> Option<PathBuf> {
    let source = Path::new(backup.configuration_places.get("data_directory")?);
    named
        .starts_with(source)
        .then(|| inner(source, Path::new(""), named))?
}

/// Where the backup has a file or folder from outside.
fn taken(named: &Path, directive: &str, backup: &BackupDescription) -> Option<PathBuf> {
    backup
        .configuration_files
        .iter()
        .find_map(|file| match directive {
            "include_dir" => {
                let is_in = Path::new(&file.original).parent() == Some(named);
                is_in
                    .then(|| Path::new(&file.path).parent().map(Path::to_path_buf))
                    .flatten()
            }
            _ => (Path::new(&file.original) == named).then(|| PathBuf::from(&file.path)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::{ConfigurationFile, testing};

    #[test]
    fn what_lies_outside_is_taken_from_the_backup_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "postgresql.conf",
            "include 'mine.conf'\ninclude_dir '/etc/pg/d'\ninclude '/etc/pg/none.conf'\nport = 1\n",
        );
        put("mine.conf", "include_if_exists = '/etc/pg/a.conf'\n");
        put("walden-configuration/etc/pg/a.conf", "include 'b.conf'\n");
        put(
            "walden-configuration/etc/pg/d/c.conf",
            "include '/etc/pg/a.conf'\nwork_mem = 1MB\n",
        );
        let file = |original: &str| ConfigurationFile {
            original: original.into(),
            path: format!("walden-configuration{original}"),
        };
        let mut backup = testing::backup("20260101-000000Z");
        backup.configuration_files = vec![file("/etc/pg/a.conf"), file("/etc/pg/d/c.conf")];
        let mut notes = Vec::new();
        bring_in(folder.path(), &backup, true, &mut notes).unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            text("postgresql.conf"),
            "include 'mine.conf'\n# walden restore: include_dir '/etc/pg/d'\ninclude_dir = \
             'walden-configuration/etc/pg/d'\n# walden restore: include '/etc/pg/none.conf'\nport = 1\n"
        );
        assert!(
            text("mine.conf")
                .ends_with("include_if_exists = 'walden-configuration/etc/pg/a.conf'\n")
        );
        assert!(text("walden-configuration/etc/pg/a.conf").starts_with("include 'b.conf'"));
        let nested = text("walden-configuration/etc/pg/d/c.conf");
        assert!(
            nested.contains("include = '../../../../walden-configuration/etc/pg/a.conf'\nwork_mem"),
            "{nested}"
        );
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("/etc/pg/none.conf"));
    }

    #[test]
    fn what_lay_in_the_source_s_data_directory_is_included_from_here() {
        for is_copy in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("conf.d")).unwrap();
            let main = "include '/source/data/conf.d/x.conf'\ninclude_dir '/source/data/conf.d'\ninclude '/source/data2/y'\n";
            std::fs::write(folder.path().join("postgresql.conf"), main).unwrap();
            std::fs::write(
                folder.path().join("conf.d/x.conf"),
                "include '/source/data/conf.d/z'\n",
            )
            .unwrap();
            let mut backup = testing::backup("20260101-000000Z");
            backup
                .configuration_places
                .insert("data_directory".into(), "/source/data".into());
            let mut notes = Vec::new();
            bring_in(folder.path(), &backup, is_copy, &mut notes).unwrap();
            let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
            let own = text("postgresql.conf");
            assert!(
                own.contains("\ninclude = 'conf.d/x.conf'\n")
                    && own.contains("\ninclude_dir = 'conf.d'\n"),
                "{own}"
            );
            assert!(text("conf.d/x.conf").ends_with("\ninclude = '../conf.d/z'\n"));
            // What lies outside is a replacement's, too.
            assert_eq!(
                (own.contains("\ninclude '/source/data2/y'"), notes.len()),
                (!is_copy, usize::from(is_copy))
            );
        }
    }
}
