//! Looks at what a restored server holds.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::anyhow;
use chrono::{DateTime, Utc};

use super::asserts::Asserts;
use super::checks;
use super::command::Program;
use super::critical_table::Compared;
use super::database::{Access, Strangers};
use super::known::Known;
use super::report::DrillReport;
use super::restored::door;
use super::scratch::has_server;
use super::source_server::SourceServer;
use super::tables::ManifestTables;
use super::verdict::{Ended, Stage};
use crate::config::Settings;
use crate::error::find;
use crate::postgres::restore::server_log::ServerLog;
use crate::postgres::restore::start::Recovered;

/// A server, and what is asked of it.
pub struct Look<'a> {
    pub settings: &'a Settings,
    pub asserts: &'a Asserts,
    pub data: &'a Path,
    pub recovered: &'a Recovered,
    pub known: &'a Known,
    pub access: Access,
    /// The moment that was restored; `None`: all there is.
    pub moment: Option<DateTime<Utc>>,
    /// The only database that counts, and what its dump holds; `None`: all do.
    pub database: Option<(&'a str, &'a ManifestTables)>,
}

impl Look<'_> {
    /// All checks. `user`: who is asked for first.
    pub async fn at_all(
        &self,
        user: Option<String>,
        report: &mut DrillReport,
    ) -> Result<(), Ended> {
        let begun = Instant::now();
        let looked = self.look(user, report).await;
        // Of a server that ended its own words say more than those of lost sessions.
        if !has_server(self.data) {
            let words = last_words(&self.recovered.log);
            let error = anyhow!("the restored server ended while it was looked at: {words}");
            return Err(Ended(Stage::Server, error));
        }
        looked?;
        report.phase("checks", begun.elapsed().as_secs_f64());
        report.rto_seconds = Some(report.clock.elapsed().as_secs_f64());
        Ok(())
    }

    async fn look(&self, user: Option<String>, report: &mut DrillReport) -> Result<(), Ended> {
        let (drill, access) = (&self.settings.drill, self.access);
        let opened = door(self.recovered, user, access, drill.budget).await;
        let door = opened.map_err(|error| match find::<Strangers>(&error) {
            Some(_) => Ended(Stage::Prepare, error),
            // Whom a server in use lets in says nothing of its data.
            None if access == Access::ReadOnly => Ended(Stage::Prepare, error),
            None => Ended(Stage::Server, error),
        })?;
        let until = Instant::now() + drill.budget;
        // Before anything else makes transactions of its own there.
        self.known.look(&door, report, until).await;
        if let Some((database, tables)) = self.database {
            let compared = tables.compare(&door, database, until).await;
            report.checks.extend(compared);
        }
        let only = self.database.map(|(database, _)| database);
        let checked = checks::all(&door, access, only, until).await;
        report.checks.extend(checked);
        let compared = Compared {
            source: SourceServer(self.settings),
            moment: self.moment,
        };
        let answers = self.asserts.ask(&door, &compared, only).await;
        report.checks.extend(answers);
        let program = Program {
            line: &drill.command,
            limit: drill.command_timeout,
            access,
        };
        let database = only.unwrap_or("postgres");
        let urls = self.asserts.ask_urls();
        let own = program.run(&door, database, urls).await;
        report.checks.extend(own);
        Ok(())
    }
}

/// Why a server ended, as far as its log tells.
fn last_words(log: &Path) -> String {
    let (text, mut read) = (fs::read(log).unwrap_or_default(), ServerLog::default());
    for line in String::from_utf8_lossy(&text).lines() {
        read.read(line);
    }
    match read.fatal.is_empty() {
        true => "without a word".into(),
        false => read.fatal.join(" | "),
    }
}
