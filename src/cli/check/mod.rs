//! `walden check`: arguments in, verdicts out, with the exit codes that monitoring systems expect.
//!
//! `postgres::check` gathers and decides. Here the verdicts become lines or JSON, and the worst of them the exit code.

mod render;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::context::open_storage;
use super::jobs::look;
use super::{Context, Exit, Format, print_json, print_text};
use crate::postgres::check::{self, Check, CheckRequest, CheckStatus, overall};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes are those of Nagios plugins, and mean other things here than for the other verbs: 0 all is well, 1 warning, \
                  2 critical, 3 something could not be found out (also: wrong usage). The worst wins, critical before unknown before warning."
)]
pub struct Args {
    /// Run only this check; may be repeated. What it depends on is told, too, where that fails.
    #[arg(long = "check", value_name = "NAME", value_parser = names())]
    checks: Vec<Check>,
    /// Leave out the end-to-end check, which writes a restore point, switches WAL and waits until the segment is in the
    /// repository.
    #[arg(long)]
    no_probe: bool,
    /// The longest wait: for the store, for the server, and for the segment of the end-to-end check.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// The names of checks, each with what it asks.
fn names() -> impl TypedValueParser<Value = Check> {
    let names = Check::ALL
        .iter()
        .map(|(_, name, about)| PossibleValue::new(*name).help(*about));
    PossibleValuesParser::new(names).try_map(|name: String| {
        let check = Check::ALL
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(check, ..)| *check);
        check.ok_or_else(|| format!("no check is called \"{name}\""))
    })
}

/// Runs the checks. Also settings that cannot be read are a finding, not an error.
pub fn run(file: Option<&Path>, format: Format, args: &Args) -> anyhow::Result<Exit> {
    let verdicts = match Context::load_silently(file, format) {
        Ok(context) => {
            let request = CheckRequest {
                settings: &context.settings,
                jobs: look(&context.settings),
                storage: open_storage(&context.settings)?,
                checks: args.checks.iter().copied().collect::<BTreeSet<_>>(),
                probe: !args.no_probe,
                timeout: Duration::from_secs(args.timeout),
            };
            context.block_on(async { Ok(check::run(&request).await) })?
        }
        Err(error) => vec![check::unreadable_configuration(&error)],
    };
    let status = overall(&verdicts);
    match format {
        Format::Json => print_json(&render::CheckOutput::new(status, &verdicts))?,
        Format::Table => print_text(&render::text(
            status,
            &verdicts,
            render::width_of_terminal(),
        ))?,
    }
    Ok(exit(status))
}

fn exit(status: CheckStatus) -> Exit {
    match status {
        CheckStatus::Ok | CheckStatus::Skipped => Exit::Success,
        CheckStatus::Warning => Exit::CheckWarning,
        CheckStatus::Critical => Exit::CheckCritical,
        CheckStatus::Unknown => Exit::CheckUnknown,
    }
}
