//! Service files (fe-connect.c, parseServiceInfo) and password files (passwordFromFile).

use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

use super::LibpqEnv;
use super::keywords::{self, Values};
use super::secret::Password;
use crate::error::Hint;

/// Where distributions compile libpq to look for `pg_service.conf` when `PGSYSCONFDIR` is not set.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/// Sets what is not given yet from the service that the connection string or `PGSERVICE` names, if any.
pub(super) fn apply_service(values: &mut Values, around: &dyn LibpqEnv) -> Result<()> {
    let Some(service) = values
        .get("service")
        .cloned()
        .or_else(|| around.variable("PGSERVICE"))
    else {
        return Ok(());
    };
    let named = values
        .get("servicefile")
        .cloned()
        .or_else(|| around.variable("PGSERVICEFILE"))
        .map(PathBuf::from);
    let own = around.home().map(|home| home.join(".pg_service.conf"));
    let system: Vec<PathBuf> = match around.variable("PGSYSCONFDIR") {
        Some(folder) => vec![folder.into()],
        None => SYSTEM_FOLDERS.iter().map(PathBuf::from).collect(),
    };
    let first = named.as_ref().or(own.as_ref()).cloned();
    let places: Vec<PathBuf> = first
        .into_iter()
        .chain(system.iter().map(|folder| folder.join("pg_service.conf")))
        .collect();
    for path in &places {
        let facts = around
            .file(path)
            .with_context(|| format!("cannot read the service file \"{}\"", path.display()))?;
        match facts {
            None if named.as_ref() == Some(path) => {
                bail!("the service file \"{}\" does not exist", path.display())
            }
            None => continue,
            Some(facts) => {
                let text = String::from_utf8_lossy(&facts.content);
                if from_service_file(&text, &service, path, values)? {
                    return Ok(());
                }
            }
        }
    }
    let places: Vec<String> = places
        .iter()
        .map(|path| format!("\"{}\"", path.display()))
        .collect();
    Err(anyhow!("the service \"{service}\" is not defined")).hint(format!(
        "add a section [{service}] to one of {}",
        places.join(", ")
    ))
}

/// Takes the settings of `[service]`; says whether the section is there.
fn from_service_file(text: &str, service: &str, path: &Path, values: &mut Values) -> Result<bool> {
    let mut found = false;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found {
                return Ok(true);
            }
            found = section.strip_suffix(']') == Some(service);
            continue;
        }
        if !found {
            continue;
        }
        let at = || {
            format!(
                "in line {number} of the service file \"{}\"",
                path.display()
            )
        };
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| anyhow!("missing \"=\""))
            .with_context(at)?;
        let Some(keyword) = keywords::known(name) else {
            return keywords::unknown(name).with_context(at);
        };
        if matches!(keyword, "service" | "servicefile") {
            bail!("a service cannot name another service, {}", at());
        }
        values.entry(keyword).or_insert_with(|| value.to_owned());
    }
    Ok(found)
}

/// The entries of a password file, in its order.
#[derive(Clone, Debug, Default)]
pub(super) struct PasswordFile(Vec<PasswordEntry>);

#[derive(Clone, Debug)]
struct PasswordEntry {
    /// Host, port, database, user; `None` matches anything.
    fields: [Option<String>; 4],
    password: Password,
}

impl PasswordFile {
    /// Reads the file. As libpq does, it ignores a file that is missing, no plain file, or open to others; the two
    /// latter are told in `warnings`.
    pub(super) fn read(path: &Path, around: &dyn LibpqEnv, warnings: &mut Vec<String>) -> Self {
        let facts = match around.file(path) {
            Ok(Some(facts)) => facts,
            Ok(None) => return Self::default(),
            Err(error) => {
                warnings.push(format!(
                    "the password file \"{}\" cannot be read: {error}",
                    path.display()
                ));
                return Self::default();
            }
        };
        if !facts.regular {
            warnings.push(format!(
                "the password file \"{}\" is not a plain file; it is ignored",
                path.display()
            ));
            return Self::default();
        }
        if facts.mode & 0o077 != 0 {
            warnings.push(format!(
                "the password file \"{}\" is open to group or others (mode {:04o}); it is ignored until its mode is 0600",
                path.display(),
                facts.mode & 0o7777
            ));
            return Self::default();
        }
        Self::parse(&String::from_utf8_lossy(&facts.content))
    }

    fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(PasswordEntry::parse)
                .collect(),
        )
    }

    /// The password of the first line that matches.
    pub(super) fn password(
        &self,
        host: &str,
        port: u16,
        database: &str,
        user: &str,
    ) -> Option<&str> {
        let port = port.to_string();
        let wanted = [host, &port, database, user];
        let matches = |entry: &&PasswordEntry| {
            entry
                .fields
                .iter()
                .zip(wanted)
                .all(|(field, wanted)| field.as_ref().is_none_or(|field| field == wanted))
        };
        self.0
            .iter()
            .find(matches)
            .map(|entry| entry.password.reveal())
    }
}

impl PasswordEntry {
    /// `host:port:database:user:password`, with `\:` and `\\` for a colon and a backslash.
    fn parse(line: &str) -> Option<Self> {
        let mut rest = line;
        let mut fields = [const { None }; 4];
        for field in &mut fields {
            let end = unescaped_colon(rest)?;
            *field = (&rest[..end] != "*").then(|| unescaped(&rest[..end]));
            rest = &rest[end + 1..];
        }
        Some(Self {
            fields,
            password: Password::new(unescaped(rest)),
        })
    }
}

fn unescaped_colon(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let found = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        found
    })
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().unwrap_or('\\')),
            c => plain.push(c),
        }
    }
    plain
}
