//! The command line: one file a verb. Arguments and settings in, a table or JSON and an exit code out.
//!
//! A verb gathers, lets the layers below decide and act, and shows the result. Results go to standard output, errors with
//! their `HINT:` to standard error. `exit` alone turns outcomes into codes.

mod alert;
mod backup;
mod check;
mod checks;
mod config;
mod context;
#[cfg(test)]
mod documents;
mod drill;
mod dump;
mod evidence;
mod exit;
mod find;
mod init;
mod jobs;
mod lifecycle;
mod nagios;
mod output;
mod planning;
mod progress;
mod push;
mod recover;
mod repo;
mod restore;
mod retention;
mod schedule;
mod serve;
mod standing;
mod status;
mod target;
mod wal;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::data_directory::goes_on;
use crate::error::with_hint;
use crate::jobs::permit;
use crate::postgres::layout::DumpFormat;

pub use context::Context;
pub use exit::Exit;
pub use output::{Format, Table, bytes, gap_lines, print_json, print_text};

/// Continuous WAL archiving and point-in-time recovery for PostgreSQL 13 to 18.
#[derive(Debug, Parser)]
#[command(
    name = "walden",
    version,
    propagate_version = true,
    max_term_width = 110
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found damage or gaps, 4 refused: the target cannot be reached exactly. `walden check` and `walden jobs run` have their own."
)]
struct Cli {
    /// Configuration file; else WALDEN_CONFIG, else /etc/walden/walden.toml. Every setting can also be given by the
    /// environment, such as WALDEN_REPOSITORY__URL.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print results: table (else) or json.
    #[arg(long, global = true, value_enum, action = clap::ArgAction::Append)]
    format: Vec<AnyFormat>,
    /// This is a job's child: standard input says until when it may write.
    #[arg(long, global = true, hide = true)]
    leased: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// What `--format` takes: for results, and of `dump take` also for the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AnyFormat {
    Table,
    Json,
    #[value(hide = true)]
    Custom,
    #[value(hide = true)]
    Directory,
    #[value(hide = true)]
    Plain,
    #[value(hide = true)]
    Csv,
    #[value(hide = true)]
    Html,
}

/// What `--format` says beside how results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnFormat {
    None,
    Dump(DumpFormat),
    Report(evidence::ReportFormat),
}

impl OwnFormat {
    fn of_dump(self) -> Option<DumpFormat> {
        match self {
            Self::Dump(format) => Some(format),
            _ => None,
        }
    }
}

impl Cli {
    /// How results are printed, and the format that is the verb's own. Errors: it has none such.
    fn formats(&self) -> anyhow::Result<(Format, OwnFormat)> {
        use evidence::ReportFormat;
        let (mut format, mut own) = (Format::Table, OwnFormat::None);
        for given in &self.format {
            match given {
                AnyFormat::Table => format = Format::Table,
                AnyFormat::Json => format = Format::Json,
                AnyFormat::Custom => own = OwnFormat::Dump(DumpFormat::Custom),
                AnyFormat::Directory => own = OwnFormat::Dump(DumpFormat::Directory),
                AnyFormat::Plain => own = OwnFormat::Dump(DumpFormat::Plain),
                AnyFormat::Csv => own = OwnFormat::Report(ReportFormat::Csv),
                AnyFormat::Html => own = OwnFormat::Report(ReportFormat::Html),
            }
        }
        let is_wrong = match (&own, &self.verb) {
            (OwnFormat::None, _) => false,
            (OwnFormat::Dump(_), Verb::Dump(args)) => !args.takes_dump_format(),
            (OwnFormat::Report(_), Verb::Evidence(args)) => !args.exports(),
            _ => true,
        };
        match is_wrong {
            true => Err(exit::wrong_usage(with_hint(
                anyhow::anyhow!("this verb has no such --format"),
                "results are printed as table or json; custom, directory and plain are for `walden dump take`, csv and html for `walden evidence export`",
            ))),
            false => Ok((format, own)),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a configuration file, make the repository and register the server. Safe to repeat.
    Init(init::Args),
    /// Check that everything is in place: repository, server, hooks, and the whole way of a WAL file.
    Check(check::Args),
    /// Take, list, show, verify and delete base backups.
    Backup(backup::Args),
    /// Take, list, show, verify, export, restore and delete logical dumps.
    Dump(dump::Args),
    /// Restore by itself, check what came back, and keep the verdict as evidence.
    Drill(drill::Args),
    /// Run the service: it answers archive-command and restore-command.
    Serve,
    /// Show what the running service is doing: what waits to be archived, what was stored and delivered.
    Status(status::Args),
    /// List and verify archived WAL; store or fetch one file.
    Wal(wal::Args),
    /// Copy, verify and measure everything that is kept of the cluster.
    Repo(repo::Args),
    /// Print or set the rules by which the bucket may clean up by itself. None of them deletes what retention keeps.
    Lifecycle(lifecycle::Args),
    /// Find what happened: tables dropped or truncated, rows deleted, restore points; and how to restore to just before.
    Find(find::Args),
    /// Show the plan for a target, without doing anything; without a target, the time ranges that can be restored.
    Target(target::Args),
    /// Restore a cluster to a moment, beside the original.
    Restore(restore::Args),
    /// Bring one table back as it was, beside the present one; show how rows differ, and put back what is missing.
    Recover(recover::Args),
    /// Keep what the policy says, and delete the rest safely.
    Retention(retention::Args),
    /// List, show, run and cancel jobs: what runs by itself.
    Jobs(jobs::Args),
    /// Tell people when something is late or wrong, and when it is over: check, list, test, silence.
    Alert(alert::Args),
    /// List, verify and export the records of what was done: drills, restores, verifications, deletions.
    Evidence(evidence::Args),
    /// Show when jobs run by themselves, and write what makes cron or systemd run them.
    Schedule(schedule::Args),
    /// Show the settings in force, or a commented example file.
    Config(config::Args),
}

/// Runs the process: parses arguments, dispatches, prints the error if there is one.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (fetches, checks) = (asks_to_fetch(&arguments), asks_to_check(&arguments));
    let destination = arguments.last().cloned();
    let exit = std::panic::catch_unwind(|| run(arguments)).unwrap_or(Exit::Failed);
    match exit {
        // PostgreSQL takes every code up to 125 for "there is no such file" and opens the cluster; but not a standby.
        Exit::Failed | Exit::Usage | Exit::Unsound | Exit::Refused if fetches => {
            match goes_on(destination.as_deref().map(Path::new)) {
                true => Exit::UnknownGoesOn.into(),
                false => Exit::Unknown.into(),
            }
        }
        // What watches takes the usual codes for warning and critical.
        Exit::Failed | Exit::Usage if checks => Exit::CheckUnknown.into(),
        exit => exit.into(),
    }
}

/// Whether this process is a `restore_command`: then whatever goes wrong, also in the arguments, must not look like an
/// answer.
fn asks_to_fetch(arguments: &[OsString]) -> bool {
    let mut verbs = arguments
        .iter()
        .skip_while(|argument| *argument != "wal")
        .skip(1);
    verbs.any(|argument| argument == "fetch")
}

/// Whether the verb is `check`, `alert check` or `status --nagios`: its exit codes are those of Nagios plugins, also when the arguments are wrong.
fn asks_to_check(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--config" | "--format") => drop(words.next()),
            Some(option) if option.starts_with('-') => (),
            Some("alert") => (),
            Some("status") => return words.any(|word| word == "--nagios"),
            verb => return verb == Some("check"),
        }
    }
    false
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Success
            };
        }
    };
    dispatch(cli).unwrap_or_else(|error| exit::report(&error))
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    if cli.leased {
        permit::depend_on_runner()?;
    }
    let (format, own) = cli.formats()?;
    let file = cli.config.as_deref();
    let context = || Context::load(file, format);
    match cli.verb {
        Verb::Init(args) => init::run(file, format, &args),
        Verb::Check(args) => check::run(file, format, &args),
        Verb::Config(args) => config::run(args, context),
        Verb::Serve => serve::run(&context()?),
        Verb::Wal(args) => wal::run(&context()?, args),
        Verb::Schedule(args) => schedule::run(&context()?, &args),
        verb => wait_for(&context()?, verb, own),
    }
}

/// The verbs that wait for the repository or a server.
fn wait_for(context: &Context, verb: Verb, own: OwnFormat) -> anyhow::Result<Exit> {
    macro_rules! waits {
        ($on:ident, $verb:ident::run($($given:expr),*)) => {
            context.$on($verb::run(context, $($given),*))
        };
    }
    match verb {
        Verb::Backup(args) => waits!(block_on_one_thread, backup::run(args)),
        Verb::Dump(args) => waits!(block_on, dump::run(args, own.of_dump())),
        Verb::Drill(args) => waits!(block_on, drill::run(args)),
        Verb::Status(args) if args.nagios => waits!(block_on, nagios::run()),
        Verb::Status(args) => waits!(block_on_one_thread, status::run(&args)),
        Verb::Repo(args) => waits!(block_on, repo::run(args)),
        Verb::Lifecycle(args) => waits!(block_on_one_thread, lifecycle::run(&args)),
        Verb::Find(args) => waits!(block_on, find::run(&args)),
        Verb::Target(args) => waits!(block_on, target::run(&args)),
        Verb::Restore(args) => waits!(block_on, restore::run(args)),
        Verb::Recover(args) => waits!(block_on, recover::run(args)),
        Verb::Retention(args) => waits!(block_on, retention::run(args)),
        Verb::Jobs(args) => waits!(block_on, jobs::run(args)),
        Verb::Evidence(args) => waits!(block_on, evidence::run(&args, own)),
        Verb::Alert(args) => waits!(block_on, alert::run(args)),
        Verb::Init(_)
        | Verb::Check(_)
        | Verb::Config(_)
        | Verb::Serve
        | Verb::Wal(_)
        | Verb::Schedule(_) => unreachable!("dispatched before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_command_is_known_before_its_arguments_are_understood() {
        let asks =
            |line: &str| asks_to_fetch(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(asks("walden --config x wal fetch"));
        assert!(asks("walden wal --nonsense fetch -- f p"));
        assert!(!asks("walden wal push fetch.wal") && !asks("walden serve"));
    }

    #[test]
    fn a_check_is_known_before_its_arguments_are_understood() {
        let asks =
            |line: &str| asks_to_check(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(asks("walden status --nagios") && !asks("walden status"));
        assert!(asks("walden alert check") && !asks("walden alert list"));
        assert!(asks("walden check") && asks("walden --config x --format=json check --nonsense"));
        assert!(
            !asks("walden --config check backup take")
                && !asks("walden backup take --label check")
                && !asks("walden")
        );
    }

    #[test]
    fn a_format_that_one_verb_has_is_for_it_alone() {
        let formats = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().formats();
        let both = formats("walden --format table dump take --format plain --format json");
        let plain = OwnFormat::Dump(DumpFormat::Plain);
        assert_eq!(both.unwrap(), (Format::Json, plain));
        let none = OwnFormat::None;
        let json = formats("walden --format json dump list");
        assert_eq!(json.unwrap(), (Format::Json, none));
        assert_eq!(
            formats("walden backup list").unwrap(),
            (Format::Table, none)
        );
        let report = formats("walden evidence export --format html");
        assert_eq!(
            report.unwrap().1,
            OwnFormat::Report(evidence::ReportFormat::Html)
        );
        for wrong in [
            "backup list --format custom",
            "dump take --format csv",
            "evidence list --format html",
        ] {
            assert!(formats(&format!("walden {wrong}")).is_err(), "{wrong}");
        }
        assert!(Cli::try_parse_from(["walden", "backup", "list", "--format", "x"]).is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
