//! What the server's warnings during BASE_BACKUP mean: which of the cluster's own files it leaves out, whose pages are
//! bad. Pure. The server's language does not matter: the C function that warns tells the kind, and paths are not
//! translated (docs/operations/backup.md has the list).

use crate::error::with_hint;
use crate::postgres::replication::ServerError;

/// Different warnings that are kept; the others are counted.
const MOST: usize = 100;
/// Messages on bad pages that are kept.
const MOST_PAGES: usize = 1000;
/// Folders of the data directory that are PostgreSQL's own in whole.
const OWN_FOLDERS: [&str; 6] = [
    "pg_xact",
    "pg_multixact",
    "pg_commit_ts",
    "pg_twophase",
    "pg_logical",
    "pg_tblspc",
];
/// What opens and closes a quotation in the server's languages.
const QUOTES: [(char, char); 7] = [
    ('"', '"'),
    ('«', '»'),
    ('»', '«'),
    ('„', '“'),
    ('“', '”'),
    ('‘', '’'),
    ('「', '」'),
];
/// Where a path may begin in a message.
const BEGINS: [&str; 3] = ["./", "/", "pg_tblspc/"];

/// The server leaves out what the cluster cannot be without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server leaves \"{path}\" out of the backup ({said})")]
pub struct SkippedPath {
    pub path: String,
    /// The server's words.
    pub said: String,
}

/// All that a server said beside its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    /// Each once.
    said: Vec<String>,
    more: u64,
    /// On pages of relations, or of what is not known.
    pages: Vec<String>,
    /// Whether there are some on files that are no relations.
    foreign: bool,
}

/// What a warning is about.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// A file is left out: its path as the server knows it.
    Skipped(&'a str),
    /// A link in pg_tblspc cannot be followed: a whole tablespace is left out.
    Tablespace(&'a str),
    /// A page is bad, or cannot be checked; the path is absent in summaries.
    Page(Option<&'a str>),
}

impl Warnings {
    /// Takes a warning. Errors: [`SkippedPath`], with a hint.
    pub fn note(&mut self, warning: &ServerError) -> anyhow::Result<()> {
        if warning.routine.as_deref() == Some("do_pg_abort_backup") {
            // An error comes with it that says more.
            tracing::debug!(code = warning.code, "PostgreSQL: {}", warning.message);
            return Ok(());
        }
        if matches!(meaning(warning), Meaning::Skipped(path) if is_own_socket(path)) {
            // Where a server runs with its socket in the data directory, as a restored copy does.
            tracing::debug!(code = warning.code, "PostgreSQL: {}", warning.message);
            return Ok(());
        }
        let said = warning.to_string();
        if !self.said.contains(&said) {
            tracing::warn!(code = warning.code, "PostgreSQL: {}", warning.message);
            match self.said.len() < MOST {
                true => self.said.push(said),
                false => self.more += 1,
            }
        }
        let left_out = |path: &str| SkippedPath {
            path: path.to_string(),
            said: warning.message.clone(),
        };
        match meaning(warning) {
            Meaning::Skipped(path) if is_own(path) => Err(with_hint(
                left_out(path.trim_start_matches("./")).into(),
                "put it back in the place of the link: PostgreSQL follows links for pg_wal and tablespaces only",
            )),
            Meaning::Skipped(_) => Ok(()),
            Meaning::Tablespace(link) => Err(with_hint(
                left_out(link).into(),
                "fix that link, or remove it if the tablespace is gone",
            )),
            Meaning::Page(Some(path)) if !is_relation(path) => {
                self.foreign = true;
                Ok(())
            }
            Meaning::Page(Some(_)) if self.pages.len() < MOST_PAGES => {
                self.pages.push(warning.message.clone());
                Ok(())
            }
            Meaning::Page(_) => Ok(()),
        }
    }

    /// The messages on bad pages, after the server said that there are some: not those on files that are no relations,
    /// whose bytes mean nothing to the server. Empty when there are no others.
    pub fn bad_pages(&self, otherwise: String) -> Vec<String> {
        match self.pages.is_empty() && !self.foreign {
            true => vec![otherwise],
            false => self.pages.clone(),
        }
    }

    /// For the backup's description.
    pub fn into_lines(self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more warnings", self.more));
        self.said.into_iter().chain(more).collect()
    }
}

fn meaning(warning: &ServerError) -> Meaning<'_> {
    let message = warning.message.as_str();
    let path = quoted_path(message);
    let guessed = || path.or_else(|| bare_path(message)).unwrap_or(message);
    match warning.routine.as_deref() {
        Some("sendDir") => Meaning::Skipped(guessed()),
        Some("do_pg_start_backup" | "do_pg_backup_start") => Meaning::Tablespace(guessed()),
        _ => Meaning::Page(path),
    }
}

/// The quoted path in a message, which begins with `./` or `/`, or lies in `pg_tblspc`. `None`: what is quoted is not
/// known for sure.
fn quoted_path(message: &str) -> Option<&str> {
    let start = BEGINS
        .iter()
        .filter_map(|begin| message.find(begin))
        .min()?;
    let (before, rest) = message.split_at(start);
    let opening = before.trim_end().chars().next_back()?;
    let (_, closing) = QUOTES.iter().find(|(open, _)| *open == opening)?;
    Some(rest[..rest.rfind(*closing)?].trim_end())
}

/// The first word that looks like a path: enough to know the cluster's own files, which have no blanks.
fn bare_path(message: &str) -> Option<&str> {
    let start = BEGINS
        .iter()
        .filter_map(|begin| message.find(begin))
        .min()?;
    message[start..]
        .split(|c: char| c.is_whitespace() || "\"'»«“”’」".contains(c))
        .next()
}

/// Whether it is what a server listens on, in the data directory: `./.s.PGSQL.5432`.
fn is_own_socket(path: &str) -> bool {
    path.strip_prefix("./.s.PGSQL.").is_some_and(is_number)
}

/// Whether a path that the server names is one of the cluster's own files: all others are foreign, such as sockets,
/// pipes, logs and links that an administrator or an extension made.
fn is_own(path: &str) -> bool {
    match path.strip_prefix("./") {
        Some(inner) => is_own_inside(inner),
        // A tablespace's: `<location>/PG_15_202209061/<database>/<file>`.
        None => version_folder(path).is_some_and(is_own_database),
    }
}

fn is_own_inside(path: &str) -> bool {
    let (first, rest) = path
        .split_once('/')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (first, rest) {
        ("base" | "global" | "PG_VERSION" | "pg_stat", None) => true,
        ("base", Some(rest)) => is_own_database(rest),
        ("global", Some(file)) => is_own_file(file),
        (folder, _) => OWN_FOLDERS.contains(&folder),
    }
}

/// What follows a tablespace's version folder in a path.
fn version_folder(path: &str) -> Option<&str> {
    let parts = path
        .match_indices("/PG_")
        .filter_map(|(at, _)| path[at + 1..].split_once('/'));
    let is_version = |name: &str| {
        name[3..]
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    parts
        .filter(|(name, _)| is_version(name))
        .map(|(_, rest)| rest)
        .last()
}

fn is_own_database(path: &str) -> bool {
    match path.split_once('/') {
        None => is_number(path),
        Some((database, file)) => is_number(database) && is_own_file(file),
    }
}

fn is_own_file(name: &str) -> bool {
    matches!(name, "PG_VERSION" | "pg_filenode.map" | "pg_control") || is_relation(name)
}

/// Whether the last part of a path is the name of a relation's file: `16384`, `16384.1`, `16384_vm`, `16384_fsm.2`.
fn is_relation(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (name, segment) = name
        .split_once('.')
        .map_or((name, None), |(name, segment)| (name, Some(segment)));
    let (number, fork) = name
        .split_once('_')
        .map_or((name, None), |(number, fork)| (number, Some(fork)));
    is_number(number)
        && segment.is_none_or(is_number)
        && matches!(fork, None | Some("fsm" | "vm" | "init"))
}

/// Digits that PostgreSQL would write: no leading zero.
fn is_number(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{find, hints};

    fn warning(routine: &str, message: &str) -> ServerError {
        let (severity, code) = ("WARNING".to_string(), "01000".to_string());
        let routine = Some(routine.to_string());
        ServerError {
            severity,
            code,
            message: message.into(),
            routine,
            ..ServerError::default()
        }
    }

    fn left_out(routine: &str, message: &str) -> Option<String> {
        let error = Warnings::default().note(&warning(routine, message)).err()?;
        assert_eq!(hints(&error).len(), 1);
        Some(find::<SkippedPath>(&error).expect("a LeftOut").path.clone())
    }

    #[test]
    fn the_clusters_own_files_are_told_from_strangers_by_their_names() {
        for own in [
            "./base",
            "./base/16384",
            "./base/5/16390",
            "./base/5/16390_vm",
            "./base/5/16390_fsm.1",
            "./base/5/PG_VERSION",
            "./global",
            "./global/pg_filenode.map",
            "./global/1262",
            "./pg_xact",
            "./pg_xact/0000",
            "./pg_multixact/members",
            "./pg_tblspc",
            "./PG_VERSION",
            "/srv/ts/PG_15_202209061/5",
            "/srv/PG_13_1/odd/PG_15_202209061/5/16390.1",
        ] {
            assert!(is_own(own), "{own}");
        }
        for stranger in [
            "./log",
            "./pg_hba.conf",
            "./server.key",
            "./.s.PGSQL.5432",
            "./base_old",
            "./base/5/cache.sock",
            "./base/5/16390.bak",
            "./base/5/16390.0",
            "./base/5/016390",
            "./base/old_5",
            "./global/x.sock",
            "./pg_stat/extension.pipe",
            "/srv/ts/PG_15_202209061/5/pipe",
            "/srv/ts/PG_x/5",
        ] {
            assert!(!is_own(stranger), "{stranger}");
        }
    }

    #[test]
    fn a_file_that_is_left_out_is_found_in_each_language() {
        for message in [
            "skipping special file \"./pg_xact\"",
            "überspringe besondere Datei »./pg_xact«",
            "ignore le fichier spécial « ./pg_xact »",
            "пропускается специальный файл \"./pg_xact\"",
            "スペシャルファイル\"./pg_xact\"をスキップしています",
            "pomijanie pliku specjalnego „./pg_xact”",
            "skipping './pg_xact'",
        ] {
            assert_eq!(
                left_out("sendDir", message).as_deref(),
                Some("pg_xact"),
                "{message}"
            );
        }
        assert_eq!(
            left_out("sendDir", "skipping special file \"./two words\""),
            None
        );
        assert_eq!(
            left_out("sendDir", "skipping special file \"./base/5 \"quoted\"\""),
            None
        );
    }

    #[test]
    fn a_tablespace_whose_link_cannot_be_read_is_left_out_in_whole() {
        let message = "could not read symbolic link \"pg_tblspc/16384\": Permission denied";
        for routine in ["do_pg_start_backup", "do_pg_backup_start"] {
            assert_eq!(
                left_out(routine, message).as_deref(),
                Some("pg_tblspc/16384")
            );
        }
    }

    #[test]
    fn pages_of_files_that_are_no_relations_are_not_bad() {
        let failed = |path: &str| {
            format!("checksum verification failed in file \"{path}\", block 0: calculated 1")
        };
        let noted = |paths: &[&str]| {
            let mut warnings = Warnings::default();
            for path in paths {
                warnings.note(&warning("sendFile", &failed(path))).unwrap();
            }
            warnings
                .note(&warning(
                    "perform_base_backup",
                    "1 total checksum verification failures",
                ))
                .unwrap();
            warnings.bad_pages("bad".into())
        };
        assert!(noted(&["./base/5/junk", "/srv/ts/PG_15_1/5/16390_old"]).is_empty());
        assert_eq!(
            noted(&["./base/5/junk", "./base/5/16390.1"]),
            [failed("./base/5/16390.1")]
        );
        assert_eq!(noted(&[]), ["bad"], "the server's word counts");
    }

    #[test]
    fn a_servers_own_socket_is_nothing_to_be_told() {
        let mut warnings = Warnings::default();
        for path in [
            "./.s.PGSQL.5432",
            "./.s.PGSQL.5432.sock",
            "./log/.s.PGSQL.5432",
            "./.s.PGSQL.x",
        ] {
            warnings
                .note(&warning(
                    "sendDir",
                    &format!("skipping special file \"{path}\""),
                ))
                .unwrap();
        }
        let lines = warnings.into_lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            !lines
                .iter()
                .any(|line| line.ends_with(".5432\"") && !line.contains("log")),
            "{lines:?}"
        );
    }

    #[test]
    fn each_warning_is_kept_once_and_their_number_is_bounded() {
        let mut warnings = Warnings::default();
        for number in (0..MOST + 5).chain(0..3) {
            warnings
                .note(&warning(
                    "sendDir",
                    &format!("skipping special file \"./s{number}\""),
                ))
                .unwrap();
        }
        let lines = warnings.into_lines();
        assert_eq!(lines.len(), MOST + 1);
        assert!(
            lines[0].contains("./s0") && lines[MOST] == "and 5 more warnings",
            "{lines:?}"
        );
    }
}
