//! Configuration files that lie outside the data directory (Debian keeps them in `/etc`), read by SQL when the role
//! may.

use std::collections::BTreeMap;

use super::ask::ask;
use super::cutter::FileMetadata;
use super::manifest::{OUTSIDE_CONFIGURATION, check_path};
use crate::error::{find, one_line};
use crate::postgres::catalog::ConfigurationFile;
use crate::postgres::replication::{Connection, ServerError};
use crate::postgres::types::MajorVersion;

/// A configuration file that is larger is not taken: it is none.
const MAX_FILE: u64 = 4 << 20;
/// insufficient_privilege
const FORBIDDEN: &str = "42501";
/// Files taken at most.
const MAX_FILES: usize = 200;

/// The configuration files that lie outside the data directory, and where the server has its own.
#[derive(Debug, Default)]
pub struct Outside {
    pub files: Vec<OutsideFile>,
    /// As the backup's description has them.
    pub places: BTreeMap<String, String>,
}

/// A file and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideFile {
    pub description: ConfigurationFile,
    pub content: Vec<u8>,
    /// Unix time in seconds.
    pub mtime: i64,
}

impl OutsideFile {
    /// What the manifest says of it.
    pub fn facts(&self) -> FileMetadata {
        FileMetadata {
            path: self.description.path.clone(),
            tablespace: None,
            mode: 0o600,
            mtime: self.mtime,
            size: self.content.len() as u64,
        }
    }
}

/// Reads all configuration files outside the data directory. Those that the role may not read are logged; they are
/// no reason to have no backup. Errors: the connection broke.
pub async fn outside_files(sql: &mut Connection, major: MajorVersion) -> anyhow::Result<Outside> {
    let names = "('data_directory', 'config_file', 'hba_file', 'ident_file')";
    let settings = ask(
        sql,
        &format!("SELECT name, setting FROM pg_settings WHERE name IN {names}"),
    )
    .await?;
    let place = |row| {
        Ok((
            settings.parse(row, "name")?,
            settings.parse(row, "setting")?,
        ))
    };
    let places = (0..settings.rows.len())
        .map(place)
        .collect::<anyhow::Result<BTreeMap<String, String>>>()?;
    let Some(data_directory) = places.get("data_directory").filter(|_| places.len() == 4) else {
        let role: String = ask(sql, "SELECT current_user AS role")
            .await?
            .parse(0, "role")?;
        tracing::warn!(
            "the role may not see where configuration files lie: those outside the data directory are not in the backup\n\
             HINT: as a superuser run {} if there are some",
            grants(&role, true)
        );
        return Ok(Outside::default());
    };
    let (mut files, mut refused) = (Vec::new(), Vec::new());
    for path in paths(sql, major).await {
        if is_inside(&path, data_directory) || files.len() == MAX_FILES {
            continue;
        }
        match read(sql, &path).await {
            Ok(file) => files.push(file),
            Err(error) => refused.push((path, error)),
        }
    }
    if !refused.is_empty() {
        let role: String = ask(sql, "SELECT current_user AS role")
            .await?
            .parse(0, "role")?;
        tracing::warn!("{}", unread(&refused, &role));
    }
    Ok(Outside { files, places })
}

/// What a role needs to read configuration files outside the data directory; `unseen`: it does not even know of them.
pub fn grants(role: &str, unseen: bool) -> String {
    let role = role.replace('"', "\"\"");
    let seeing = if unseen { "pg_read_all_settings, " } else { "" };
    format!(
        "GRANT {seeing}pg_read_server_files TO \"{role}\"; \
         GRANT EXECUTE ON FUNCTION pg_stat_file(text), pg_read_binary_file(text) TO \"{role}\""
    )
}

/// A line on the files that are left out, and what to do where the role is why.
fn unread(refused: &[(String, anyhow::Error)], role: &str) -> String {
    let names: Vec<String> = refused
        .iter()
        .map(|(path, _)| format!("\"{path}\""))
        .collect();
    let why = refused
        .first()
        .map(|(_, error)| one_line(error))
        .unwrap_or_default();
    let told = format!(
        "not in the backup: the configuration files {}: {why}",
        names.join(", ")
    );
    let forbidden = |(_, error): &(String, anyhow::Error)| {
        find::<ServerError>(error).is_some_and(|e| e.code == FORBIDDEN)
    };
    match refused.iter().any(forbidden) {
        true => format!("{told}\nHINT: as a superuser run {}", grants(role, false)),
        false => told,
    }
}

/// All configuration files that the role may know of, included ones too.
async fn paths(sql: &mut Connection, major: MajorVersion) -> Vec<String> {
    let mut questions = vec![
        "SELECT setting AS path FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file')",
        "SELECT sourcefile AS path FROM pg_settings WHERE sourcefile IS NOT NULL",
        "SELECT sourcefile AS path FROM pg_file_settings",
    ];
    if major.number() >= 16 {
        questions.push("SELECT file_name AS path FROM pg_hba_file_rules");
        questions.push("SELECT file_name AS path FROM pg_ident_file_mappings");
    }
    let mut paths = Vec::new();
    for question in questions {
        match ask(sql, question).await {
            Ok(answer) => paths
                .extend((0..answer.rows.len()).filter_map(|row| answer.parse(row, "path").ok())),
            // Some views are for superusers only.
            Err(error) => tracing::debug!(
                "included configuration files are not known: {}",
                one_line(&error)
            ),
        }
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn is_inside(path: &str, data_directory: &str) -> bool {
    let folder = data_directory.trim_end_matches('/');
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

async fn read(sql: &mut Connection, path: &str) -> anyhow::Result<OutsideFile> {
    let inner = format!("{OUTSIDE_CONFIGURATION}/{}", path.trim_start_matches('/'));
    check_path(&inner)?;
    let name = literal(path);
    let question = format!(
        "SELECT size, extract(epoch FROM modification)::bigint AS mtime FROM pg_stat_file({name}) WHERE NOT isdir"
    );
    let facts = ask(sql, &question).await?;
    let (size, mtime): (u64, i64) = (facts.parse(0, "size")?, facts.parse(0, "mtime")?);
    anyhow::ensure!(size <= MAX_FILE, "it has {size} bytes");
    let answer = ask(
        sql,
        &format!("SELECT encode(pg_read_binary_file({name}), 'hex') AS content"),
    )
    .await?;
    let hex: String = answer.parse(0, "content")?;
    let description = ConfigurationFile {
        original: path.to_string(),
        path: inner,
    };
    Ok(OutsideFile {
        description,
        content: from_hex(&hex)?,
        mtime,
    })
}

/// A text as an SQL literal, whatever standard_conforming_strings is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let pairs = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).map_err(anyhow::Error::from));
    pairs
        .map(|pair| Ok(u8::from_str_radix(pair?, 16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_one_literal() {
        assert_eq!(literal(r"/a 'b\c"), r"E'/a ''b\\c'");
    }

    #[test]
    fn only_what_lies_below_the_data_directory_is_inside() {
        assert!(is_inside("/data/postgresql.conf", "/data/"));
        assert!(is_inside("/data/conf.d/x.conf", "/data"));
        assert!(!is_inside("/data2/postgresql.conf", "/data"));
        assert!(!is_inside("/etc/postgresql.conf", "/data"));
    }

    #[test]
    fn files_that_the_role_may_not_read_are_one_line_with_the_grants() {
        let refused = |code: &str| {
            let error = ServerError {
                code: code.into(),
                message: "no".into(),
                ..ServerError::default()
            };
            ["/etc/a", "/etc/b"].map(|path| (path.to_string(), anyhow::Error::from(error.clone())))
        };
        let told = unread(&refused(FORBIDDEN), "a\"b");
        assert_eq!(told.lines().count(), 2, "{told}");
        assert!(
            told.contains("\"/etc/a\", \"/etc/b\"")
                && told.contains("pg_read_server_files TO \"a\"\"b\""),
            "{told}"
        );
        assert!(
            !unread(&refused("58P01"), "a").contains("HINT"),
            "a file that is gone"
        );
    }

    #[test]
    fn hexadecimal_content_is_read() {
        assert_eq!(from_hex("00ff41").unwrap(), [0, 255, 65]);
        assert!(from_hex("0x").is_err());
    }
}
