//! The command lines of `pg_dump` and `pg_dumpall`: pure, but for the environment that a process starts with.

use std::path::Path;

use tokio::process::Command;

use super::manifest::DumpOptions;
use super::programs::Programs;
use crate::config::{self, DumpOutput};
use crate::postgres::layout::{DumpFormat, DumpKind};
use crate::postgres::replication::conninfo::ProgramConnection;

/// What is dumped, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpRequest {
    pub kind: DumpKind,
    pub format: DumpFormat,
    pub options: DumpOptions,
}

impl DumpRequest {
    /// All of a database, as the settings say.
    pub fn whole(settings: &config::Dump) -> Self {
        let format = match settings.format {
            DumpOutput::Custom => DumpFormat::Custom,
            DumpOutput::Directory => DumpFormat::Directory,
            DumpOutput::Plain => DumpFormat::Plain,
        };
        let request = Self {
            kind: DumpKind::Full,
            format,
            options: DumpOptions::default(),
        };
        request.by(u32::try_from(settings.jobs).unwrap_or(1))
    }

    /// By so many connections, where the format takes more than one.
    pub fn by(self, jobs: u32) -> Self {
        let jobs = match self.format {
            DumpFormat::Directory => jobs,
            DumpFormat::Custom | DumpFormat::Plain => 1,
        };
        let options = DumpOptions {
            jobs,
            ..self.options
        };
        Self { options, ..self }
    }
}

/// `pg_dump`; without `snapshot` it takes one itself.
pub fn pg_dump(
    programs: &Programs,
    connection: &ProgramConnection,
    settings: &config::Dump,
    request: &DumpRequest,
    snapshot: Option<&str>,
    folder: Option<&Path>,
) -> Command {
    let mut command = programs.connecting("pg_dump", connection);
    command
        .arg("--verbose")
        .arg(format!("--format={}", request.format.as_str()));
    match request.kind {
        DumpKind::Full => &mut command,
        DumpKind::Schema => command.arg("--schema-only"),
        DumpKind::Data => command.arg("--data-only"),
    };
    if let Some(snapshot) = snapshot {
        command.arg(format!("--snapshot={snapshot}"));
    }
    if let Some(limit) = settings.lock_timeout {
        command.arg(format!("--lock-wait-timeout={}", limit.as_millis()));
    }
    if let Some(compress) = settings
        .compress
        .as_ref()
        .filter(|_| request.format != DumpFormat::Plain)
    {
        command.arg(format!("--compress={compress}"));
    }
    for table in &request.options.tables {
        command.arg(format!("--table={table}"));
    }
    for table in &request.options.exclude_tables {
        command.arg(format!("--exclude-table={table}"));
    }
    if let Some(folder) = folder {
        // What is copied from there needs not be durable there.
        command
            .arg("--no-sync")
            .arg(format!("--jobs={}", request.options.jobs))
            .arg("--file")
            .arg(folder);
    }
    command.arg(format!("--dbname={}", connection.conninfo));
    command
}

/// `pg_dumpall` for roles and tablespaces.
pub fn globals(
    programs: &Programs,
    connection: &ProgramConnection,
    database: &str,
    passwords: bool,
) -> Command {
    let mut command = programs.connecting("pg_dumpall", connection);
    command.arg("--globals-only");
    if !is_expanded(database) {
        command.arg(format!("--database={database}"));
    }
    if !passwords {
        command.arg("--no-role-passwords");
    }
    command.arg(format!("--dbname={}", connection.conninfo));
    command
}

/// Whether libpq takes a database's name for a connection string. `pg_dumpall` then chooses "postgres" or "template1" itself.
fn is_expanded(database: &str) -> bool {
    let is_uri = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| database.starts_with(scheme));
    is_uri || database.contains('=')
}
