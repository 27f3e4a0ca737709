//! A drill of the way of a dump: known data go into a database of their own, by a dump into the repository, and come back in a
//! server that is made for them.

mod compare;
mod database;
pub mod dumps;
mod known;

use std::time::Instant;

use chrono::Utc;

use self::database::Guard;
use super::checks::{self, check};
use super::database::Access;
use super::filled::{Fill, details};
use super::made::SUPERUSER;
use super::report::{DrillKind, DrillReport};
use super::restored::{door, private_socket};
use super::run::Frame;
use super::scratch::Scratch;
use super::verdict::{At, Ended, Stage};
use crate::config::{self, Settings};
use crate::error::{find, one_line};
use crate::evidence::record::Verdict;
use crate::postgres::catalog::marks::round_trip_name;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::command::DumpRequest;
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::dump::messages::ProgramFailed;
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back;
use crate::postgres::dump::take::Taking;
use crate::repo::ObjectError;
use crate::storage::StorageError;

/// Makes, dumps, restores and compares known data, and removes all of it; interrupted when `stop` completes. Whatever goes wrong
/// is a verdict. Errors: the server or the role does not do, and nothing was made.
pub async fn run(
    settings: &Settings,
    cluster: &Cluster,
    request: &DumpRequest,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<DrillReport> {
    let frame = Frame {
        settings,
        cluster,
        kind: DrillKind::RoundTrip,
        keep: false,
    };
    let name = round_trip_name(Utc::now(), getrandom::u32()?);
    let trip = Trip {
        settings,
        cluster: &dumps::apart(cluster),
        request,
        name: &name,
    };
    let mut made = None;
    let work = async |scratch: &Scratch, report: &mut DrillReport| {
        report.target = format!("round trip of database \"{name}\"");
        private_socket(&scratch.data()).at(Stage::Prepare)?;
        let info = database::info(settings.postgresql.dsn.expose()).at(Stage::Refused)?;
        let guard = Guard::connect(&info, &name).await.at(Stage::Prepare)?;
        if let Some(refused) = guard.refusal(cluster).await.at(Stage::Prepare)? {
            return Err(Ended(Stage::Refused, refused));
        }
        let guard = made.insert(guard);
        trip.run(guard, scratch, report).await
    };
    let mut report = frame.run(stop, work).await?;
    if let Some(guard) = made {
        trip.remove(&guard, &mut report).await;
    }
    Ok(report)
}

/// One round trip.
struct Trip<'a> {
    settings: &'a Settings,
    /// With the keys of round trips.
    cluster: &'a Cluster,
    request: &'a DumpRequest,
    /// Of the database.
    name: &'a str,
}

impl Trip<'_> {
    async fn run(
        &self,
        guard: &Guard,
        scratch: &Scratch,
        report: &mut DrillReport,
    ) -> Result<(), Ended> {
        let begun = Instant::now();
        let leftovers = guard.drop_leftovers().await.at(Stage::Prepare)?;
        let (dropped, notes) = leftovers;
        let could_not = |seen| check("leftovers", Verdict::CouldNotRun, seen);
        report.checks.extend(notes.into_iter().map(could_not));
        for database in dropped {
            let removed = dumps::remove(self.cluster, &database).await;
            removed.at(Stage::Prepare)?;
        }
        guard.make(Utc::now()).await.at(Stage::Prepare)?;
        report.phase("database", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let manifest = self.dump(guard).await?;
        report.phase("dump", begun.elapsed().as_secs_f64());
        report.bytes = manifest.database.size;
        report.details = details(&manifest);
        let begun = Instant::now();
        self.check_digests(&manifest, report).await?;
        report.phase("checksums", begun.elapsed().as_secs_f64());
        self.restore(&manifest, scratch, report).await
    }

    /// As `walden dump take` does, to another place.
    async fn dump(&self, guard: &Guard) -> Result<DumpManifest, Ended> {
        let dump = config::Dump {
            // They are the cluster's, and nothing of this.
            globals: false,
            ..self.settings.dump.clone()
        };
        let taking = Taking {
            cluster: self.cluster,
            resolve: &|| Ok(guard.info().clone()),
            settings: &dump,
            request: self.request,
            progress: &DumpProgress::new(),
            drilled: None,
        };
        // Who gives the drill up ends the programs, too.
        let (_never, mut stop) = tokio::sync::watch::channel(false);
        let taken = taking.database(self.name, &mut stop).await;
        taken.map_err(|error| Ended(stage_of(&error), error))
    }

    async fn check_digests(
        &self,
        manifest: &DumpManifest,
        report: &mut DrillReport,
    ) -> Result<(), Ended> {
        let progress = DumpProgress::default();
        let faults = read_back::check(self.cluster, manifest, None, &progress).await;
        let faults = faults.at(Stage::Files)?;
        let has_file = dumps::has_checksums(self.cluster, manifest).await;
        let mut wrong: Vec<String> = faults
            .iter()
            .map(|fault| format!("\"{}\": {}", fault.path, fault.why))
            .collect();
        if !has_file.at(Stage::Files)? {
            wrong.push("the file of checksums is not what was stored".into());
        }
        let (verdict, seen) = match wrong.is_empty() {
            true => (Verdict::Passed, format!("{} bytes", manifest.size())),
            false => (Verdict::Failed, wrong.join("; ")),
        };
        report.checks.push(check("checksums", verdict, seen));
        Ok(())
    }

    /// Into a server that is made for it.
    async fn restore(
        &self,
        manifest: &DumpManifest,
        scratch: &Scratch,
        report: &mut DrillReport,
    ) -> Result<(), Ended> {
        // From here on it is a restore.
        report.clock = Instant::now();
        let fill = Fill {
            settings: self.settings,
            cluster: self.cluster,
            scratch,
            database: self.name,
        };
        let begun = Instant::now();
        let (source, _fetched) = fill.read(manifest).await?;
        report.phase("read", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let server = fill.serve(manifest, &source).await?;
        report.phase("server", begun.elapsed().as_secs_f64());
        fill.fill(manifest, &source, &server, report).await?;
        let begun = Instant::now();
        let budget = self.settings.drill.budget;
        let door = door(
            &server.recovered,
            Some(SUPERUSER.into()),
            Access::Private,
            budget,
        )
        .await;
        let door = door.at(Stage::Server)?;
        let session = door.open(self.name).await.at(Stage::Server)?;
        let compared = compare::ask(&session.client, &known::questions()).await;
        report.checks.extend(compared.at(Stage::Server)?);
        let until = Instant::now() + budget;
        let looked = checks::all(&door, Access::Private, Some(self.name), until).await;
        report.checks.extend(looked);
        report.phase("comparison", begun.elapsed().as_secs_f64());
        report.rto_seconds = Some(report.clock.elapsed().as_secs_f64());
        Ok(())
    }

    /// Removes all that it made, whatever came of it.
    async fn remove(&self, guard: &Guard, report: &mut DrillReport) {
        let dump = dumps::remove(self.cluster, self.name).await;
        let database = guard.drop_own().await;
        for error in [dump.err(), database.err()].into_iter().flatten() {
            let seen = format!("{}; the next round trip removes it", one_line(&error));
            let left = check("cleaning up", Verdict::CouldNotRun, seen);
            report.checks.push(left);
        }
    }
}

/// What an error while the dump was taken is about: a program that fails, or what is read back, is a fault of this way.
fn stage_of(error: &anyhow::Error) -> Stage {
    let is_stores = find::<StorageError>(error).is_some() || find::<ObjectError>(error).is_some();
    let is_fault = match find::<ProgramFailed>(error) {
        Some(failed) => !failed.lines.iter().any(|line| is_lost(line)),
        None => find::<read_back::Unsound>(error).is_some(),
    };
    match (is_fault, is_stores) {
        (true, _) => Stage::Server,
        (false, true) => Stage::Files,
        (false, false) => Stage::Prepare,
    }
}

/// Whether a program says that the server was not there for it: that is no fault of what it dumps.
fn is_lost(line: &str) -> bool {
    const WORDS: [&str; 6] = [
        "connection to server",
        "terminating connection",
        "server closed the connection",
        "too many clients",
        "remaining connection slots",
        "lock timeout",
    ];
    WORDS.iter().any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::error::with_hint;
    use crate::postgres::dump::read_back::{DumpFault, error};

    #[test]
    fn what_does_not_read_back_is_a_fault_and_a_missing_program_is_none() {
        let fault = DumpFault {
            path: "x.dump".into(),
            why: "its digest differs".into(),
        };
        let id = crate::postgres::dump::testing::id(
            "x",
            "14:05:00",
            crate::postgres::layout::DumpKind::Full,
        );
        let unsound = with_hint(error(&id, &[fault]).unwrap(), "look").context("no dump");
        assert_eq!(stage_of(&unsound), Stage::Server);
        let missing = anyhow!("no program \"pg_dump\" of version 18 or newer is found");
        assert_eq!(stage_of(&missing), Stage::Prepare);
    }
}
