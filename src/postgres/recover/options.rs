//! What is asked for, and how long its parts take.

use std::time::Instant;

use crate::evidence::record::Phase;

/// What is asked for beside the moment.
#[derive(Debug, Clone, Default)]
pub struct RecoverOptions {
    /// The table, with or without its schema.
    pub table: String,
    /// The database that it was in; else that of `postgresql.dsn`.
    pub database: Option<String>,
    /// A database of the same server, or a connection string; else the database itself.
    pub into: Option<String>,
    pub new_name: Option<String>,
    /// SQL: only rows for which it holds.
    pub condition: Option<String>,
    pub rows_only: bool,
    pub put_back: bool,
}

/// Measures the parts of a recovery.
pub struct Clock<'a> {
    pub phases: &'a mut Vec<Phase>,
    pub begun: Instant,
}

impl Clock<'_> {
    pub fn end(&mut self, name: &str) {
        let (name, seconds) = (name.into(), self.begun.elapsed().as_secs_f64());
        self.phases.push(Phase { name, seconds });
        self.begun = Instant::now();
    }
}
