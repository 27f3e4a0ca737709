//! Configuration that postgresql.conf includes from outside the data directory. It is the source's: a copy takes what the
//! backup has of it, and reads nothing outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::conf;
use super::configuration::included;
use super::recovery::{as_characters, read, write};
use crate::postgres::catalog::BackupDescription;

/// Lets what is included from outside be included from what the backup has of it, or makes comments of it.
pub fn bring_in(folder: &Path, backup: &BackupDescription, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let mut left = vec![PathBuf::from("postgresql.conf")];
    let mut seen = BTreeSet::new();
    while let Some(name) = left.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(text) = read(&folder.join(&name))? else { continue };
        let mut changed = String::with_capacity(text.len() + 64);
        for line in text.lines() {
            let Some((directive, named)) = included(line) else {
                changed.push_str(&format!("{line}\n"));
                continue;
            };
            let inside = inner(folder, &name, &named);
            let (inner, is_own) = match inside {
                Some(inner) => (Some(inner), true),
                None => (taken(&named, &directive, backup), false),
            };
            match &inner {
                _ if is_own => changed.push_str(&format!("{line}\n")),
                Some(inner) => {
                    let up = "../".repeat(name.components().count() - 1);
                    let path = as_characters(Path::new(&up).join(inner).as_os_str().as_encoded_bytes());
                    changed.push_str(&format!("# walden restore: {line}\n{}", conf::assignment(&directive, &path)));
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
            left.extend(inner.into_iter().flat_map(|inner| files(folder, inner, &directive)));
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

/// Where the backup has a file or folder from outside.
fn taken(named: &Path, directive: &str, backup: &BackupDescription) -> Option<PathBuf> {
    backup.configuration_files.iter().find_map(|file| match directive {
        "include_dir" => {
            let is_in = Path::new(&file.original).parent() == Some(named);
            is_in.then(|| Path::new(&file.path).parent().map(Path::to_path_buf)).flatten()
        }
        _ => (Path::new(&file.original) == named).then(|| PathBuf::from(&file.path)),
    })
}

fn files(folder: &Path, inner: PathBuf, directive: &str) -> Vec<PathBuf> {
    if directive != "include_dir" {
        return vec![inner];
    }
    let Ok(entries) = folder.join(&inner).read_dir() else { return Vec::new() };
    let names = entries.filter_map(|entry| Some(inner.join(entry.ok()?.file_name())));
    names.filter(|name| name.extension().is_some_and(|end| end == "conf")).collect()
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
        put("postgresql.conf", "include 'mine.conf'\ninclude_dir '/etc/pg/d'\ninclude '/etc/pg/none.conf'\nport = 1\n");
        put("mine.conf", "include_if_exists = '/etc/pg/a.conf'\n");
        put("walden-configuration/etc/pg/a.conf", "include 'b.conf'\n");
        put("walden-configuration/etc/pg/d/c.conf", "include '/etc/pg/a.conf'\nwork_mem = 1MB\n");
        let file = |original: &str| ConfigurationFile {
            original: original.into(),
            path: format!("walden-configuration{original}"),
        };
        let mut backup = testing::backup("20260101-000000Z");
        backup.configuration_files = vec![file("/etc/pg/a.conf"), file("/etc/pg/d/c.conf")];
        let mut notes = Vec::new();
        bring_in(folder.path(), &backup, &mut notes).unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            text("postgresql.conf"),
            "include 'mine.conf'\n# walden restore: include_dir '/etc/pg/d'\ninclude_dir = \
             'walden-configuration/etc/pg/d'\n# walden restore: include '/etc/pg/none.conf'\nport = 1\n"
        );
        assert!(text("mine.conf").ends_with("include_if_exists = 'walden-configuration/etc/pg/a.conf'\n"));
        assert!(text("walden-configuration/etc/pg/a.conf").starts_with("include 'b.conf'"));
        let nested = text("walden-configuration/etc/pg/d/c.conf");
        assert!(nested.contains("include = '../../../../walden-configuration/etc/pg/a.conf'\nwork_mem"), "{nested}");
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("/etc/pg/none.conf"));
    }
}
