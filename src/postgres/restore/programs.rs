//! The server's programs of the right major version, before anything is written.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow};

use crate::error::{Hint, with_hint};
use crate::postgres::types::MajorVersion;

/// A folder with a `postgres` of the major wanted: `named`, else the first of PATH and the usual places. Errors: none, or
/// `named` holds another major.
pub fn find(major: MajorVersion, named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = named {
        let found = version(folder)
            .with_context(|| format!("cannot run \"{}\"", folder.join("postgres").display()));
        return match found
            .hint("--pg-bin names the folder that holds postgres, initdb and pg_ctl")?
        {
            found if found == major.number() => Ok(folder.to_path_buf()),
            found => Err(wrong_major(major, folder, found)),
        };
    }
    let mut others = Vec::new();
    for folder in usual_places(major) {
        match version(&folder) {
            Ok(found) if found == major.number() => return Ok(folder),
            Ok(found) => others.push((folder, found)),
            Err(_) => (),
        }
    }
    match others.first() {
        Some((folder, found)) => Err(wrong_major(major, folder, *found)),
        None => Err(anyhow!(
            "no program \"postgres\" of version {major} is found"
        ))
        .hint(format!(
            "install PostgreSQL {major}, or name its folder of programs with --pg-bin"
        )),
    }
}

fn wrong_major(major: MajorVersion, folder: &Path, found: u32) -> anyhow::Error {
    let error = anyhow!(
        "the backup is of PostgreSQL {major}, \"{}\" is of version {found}",
        folder.join("postgres").display()
    );
    with_hint(
        error,
        format!("name the folder of PostgreSQL {major}'s programs with --pg-bin"),
    )
}

fn usual_places(major: MajorVersion) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
        format!("/usr/local/pgsql-{major}/bin"),
        "/usr/local/pgsql/bin".into(),
    ];
    std::env::split_paths(&path)
        .chain(usual.into_iter().map(PathBuf::from))
        .collect()
}

/// The major of a folder's `postgres`.
fn version(folder: &Path) -> anyhow::Result<u32> {
    let output = Command::new(folder.join("postgres"))
        .arg("--version")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text)
        .with_context(|| format!("it says \"{}\" when asked for its version", text.trim()))
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; also `18beta1`.
fn parse_version(text: &str) -> Option<u32> {
    let number = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

/// The value that a setting has in a data directory, as the server itself reads its configuration.
pub fn configured(programs: &Path, data_directory: &Path, setting: &str) -> anyhow::Result<String> {
    let postgres = programs.join("postgres");
    let arguments = [
        OsStr::new("-D"),
        data_directory.as_os_str(),
        OsStr::new("-C"),
        OsStr::new(setting),
    ];
    let output = Command::new(&postgres)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run \"{}\"", postgres.display()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_string();
            Err(anyhow!(
                "PostgreSQL does not read the restored configuration: {why}"
            ))
            .hint(format!(
                "mend postgresql.conf in \"{}\" and start the server by hand",
                data_directory.display()
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_read_from_what_the_program_says() {
        for (text, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) devel", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), major);
        }
    }

    #[test]
    fn a_program_of_another_major_is_refused_by_name() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("postgres");
        std::fs::write(&program, "#!/bin/sh\necho 'postgres (PostgreSQL) 14.2'\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let major = |number| MajorVersion::new(number).unwrap();
        assert_eq!(find(major(14), Some(folder.path())).unwrap(), folder.path());
        let error = find(major(15), Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains("version 14"), "{error}");
        assert!(find(major(14), Some(&folder.path().join("none"))).is_err());
    }
}
