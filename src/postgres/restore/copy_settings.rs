//! What keeps a copy apart from its source: settings that it gets whatever the source had. A replacement gets none of
//! them. docs/operations/restore.md has the reasons.

use std::path::Path;

use super::configuration::CurrentConfig;
use super::target_action::TargetAction;
use crate::postgres::types::MajorVersion;

/// Name and value, and the first and the last major that has it.
const APART: [(&str, &str, u32, u32); 14] = [
    ("archive_mode", "off", 13, 18),
    // Nobody would ever confirm its commits.
    ("synchronous_standby_names", "", 13, 18),
    ("synchronized_standby_slots", "", 17, 18),
    // Who asks for the source must not get the copy, and both run on one machine.
    ("listen_addresses", "", 13, 18),
    ("unix_socket_directories", ".", 13, 18),
    ("unix_socket_group", "", 13, 18),
    ("bonjour", "off", 13, 18),
    // Keys and the command for their passphrase are the source's; without TCP none are needed.
    ("ssl", "off", 13, 18),
    ("log_directory", "log", 13, 18),
    // A subscription takes over the slot at its publisher as soon as its worker runs.
    ("max_logical_replication_workers", "0", 13, 18),
    ("sync_replication_slots", "off", 17, 18),
    ("primary_conninfo", "", 13, 18),
    ("primary_slot_name", "", 13, 18),
    // Such a file is removed by the server that finds it.
    ("promote_trigger_file", "", 13, 15),
];

/// Bytes of a socket's path at most.
const MAX_SOCKET_PATH: usize = 107;

/// Libraries that start no jobs, or none that reach beyond the server.
const QUIET: [&str; 16] = [
    "auth_delay",
    "auto_explain",
    "basebackup_to_shell",
    "basic_archive",
    "decoderbufs",
    "passwordcheck",
    "pg_hint_plan",
    "pg_prewarm",
    "pg_qualstats",
    "pg_stat_kcache",
    "pg_stat_statements",
    "pg_wait_sampling",
    "pgaudit",
    "plpgsql",
    "sepgsql",
    "wal2json",
];

/// The settings of every copy.
pub fn settings(major: MajorVersion) -> impl Iterator<Item = (String, String)> {
    let has = move |(_, _, first, last): &&(&str, &str, u32, u32)| {
        (*first..=*last).contains(&major.number())
    };
    APART
        .iter()
        .filter(has)
        .map(|(name, value, ..)| (name.to_string(), value.to_string()))
}

/// Where a copy listens: in its folder, by its whole path, which clients find in `postmaster.pid`. Of a path that cannot be
/// a socket's the "." of [`APART`] stays, which the server understands from its data directory.
pub fn sockets(data_directory: &Path) -> Option<(String, String)> {
    let path = data_directory
        .to_str()
        .filter(|path| unfit_for_sockets(path, u16::MAX).is_none())?;
    data_directory
        .is_absolute()
        .then(|| ("unix_socket_directories".into(), path.into()))
}

/// Why no socket of a server can lie at a path; `None`: it can (unix(7), `sun_path`; guc.c splits the list).
pub fn unfit_for_sockets(folder: &str, port: u16) -> Option<&'static str> {
    match folder {
        _ if folder.len() + format!("/.s.PGSQL.{port}").len() > MAX_SOCKET_PATH => {
            Some("is too long for a socket's path")
        }
        _ if folder.contains([',', '"', '\'']) => Some("has a quote or a comma in it"),
        _ => None,
    }
}

/// What a copy needs because of the configuration that it came with; and what the operator must know.
pub fn because_of(
    standing: &CurrentConfig,
    action: TargetAction,
    notes: &mut Vec<String>,
) -> Vec<(String, String)> {
    let value = |name: &str| standing.value(name).unwrap_or_default();
    let mut settings = Vec::new();
    let mut set = |name: &str, value: &str| settings.push((name.to_string(), value.to_string()));
    if ["syslog", "eventlog"].iter().any(|shared| {
        value("log_destination")
            .to_ascii_lowercase()
            .contains(shared)
    }) {
        set("log_destination", "stderr");
    }
    if value("log_filename").contains('/') {
        set("log_filename", "postgresql-%Y-%m-%d_%H%M%S.log");
    }
    let libraries = with_jobs(&value("shared_preload_libraries"));
    if !libraries.is_empty() {
        let libraries = libraries.join(", ");
        // Queries during recovery need as many workers as the source had.
        if action == TargetAction::Pause {
            notes.push(format!(
                "shared_preload_libraries has {libraries}: jobs of these run once the copy is open for writing; set \
                 max_worker_processes = 0 and restart it first to have none"
            ));
        } else {
            set("max_worker_processes", "0");
            notes.push(format!(
                "shared_preload_libraries has {libraries}: so that jobs of these do not run, background workers are off \
                 (max_worker_processes = 0)"
            ));
        }
    }
    settings
}

/// Those of the libraries that may run jobs, as `shared_preload_libraries` names them.
fn with_jobs(list: &str) -> Vec<String> {
    let names = list
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty());
    let is_quiet = |name: &&str| {
        let file = name.rsplit('/').next().unwrap_or(name);
        QUIET.contains(
            &file
                .strip_suffix(".so")
                .unwrap_or(file)
                .to_ascii_lowercase()
                .as_str(),
        )
    };
    names
        .filter(|name| !is_quiet(name))
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(text: &str) -> (tempfile::TempDir, CurrentConfig) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("postgresql.conf"), text).unwrap();
        let standing = CurrentConfig::of(folder.path()).unwrap();
        (folder, standing)
    }

    #[test]
    fn each_major_gets_only_settings_that_it_has() {
        let names = |major| {
            let major = MajorVersion::new(major).unwrap();
            settings(major).map(|(name, _)| name).collect::<Vec<_>>()
        };
        let has = |major, name: &str| names(major).iter().any(|each| each == name);
        assert!(has(13, "promote_trigger_file") && !has(16, "promote_trigger_file"));
        assert!(!has(16, "sync_replication_slots") && has(17, "sync_replication_slots"));
        assert!((13..=18).all(|major| has(major, "max_logical_replication_workers")));
    }

    #[test]
    fn a_copy_listens_in_its_folder_by_the_whole_path_where_that_can_be() {
        let at = |folder: &str| sockets(Path::new(folder)).map(|(_, value)| value);
        assert_eq!(at("/srv/copy of main"), Some("/srv/copy of main".into()));
        for unfit in [
            "relative",
            "/srv/it's",
            "/srv/a,b",
            &format!("/{}", "x".repeat(95)),
        ] {
            assert_eq!(at(unfit), None, "{unfit}");
        }
    }

    #[test]
    fn logs_that_would_go_elsewhere_stay_inside() {
        let (_folder, source) =
            standing("log_destination = 'csvlog, SysLog'\nlog_filename = '../x.log'\n");
        let found = because_of(&source, TargetAction::Promote, &mut Vec::new());
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["log_destination", "log_filename"]);
        let (_folder, harmless) = standing("log_destination = 'jsonlog'\nlog_filename = 'x.log'\n");
        assert_eq!(
            because_of(&harmless, TargetAction::Promote, &mut Vec::new()),
            []
        );
    }

    #[test]
    fn libraries_that_may_run_jobs_get_no_workers_and_are_told() {
        let (_folder, source) =
            standing("shared_preload_libraries = 'pg_stat_statements, \"$libdir/pg_cron\"'\n");
        let mut notes = Vec::new();
        let found = because_of(&source, TargetAction::Promote, &mut notes);
        assert_eq!(
            found,
            [("max_worker_processes".to_string(), "0".to_string())]
        );
        assert!(
            notes[0].contains("$libdir/pg_cron") && !notes[0].contains("statements"),
            "{notes:?}"
        );
        let mut notes = Vec::new();
        assert_eq!(because_of(&source, TargetAction::Pause, &mut notes), []);
        assert!(notes[0].contains("max_worker_processes = 0"), "{notes:?}");
        assert_eq!(
            with_jobs("auto_explain , pgaudit.so, /usr/lib/PG_Prewarm"),
            Vec::<String>::new()
        );
    }
}
