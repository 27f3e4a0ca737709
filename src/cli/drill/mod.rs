//! `walden drill`: restores by themselves, with checks and a verdict.

mod canary;

use anyhow::anyhow;
use chrono::Utc;
use clap::Subcommand;

use super::checks::{asserts, lines, open};
use super::evidence::keep;
use super::exit::{print_error, wrong_usage};
use super::jobs::kinds::last_but_one;
use super::repo::asked_to_end;
use super::restore::refuse_root;
use super::restore::render::refusal;
use super::restore::target::moment;
use super::{Context, Exit, Format, bytes, planning, print_json, print_text};
use crate::error::{find, with_hint};
use crate::evidence::record::Verdict;
use crate::postgres::catalog::Unreachable;
use crate::postgres::cluster::Cluster;
use crate::postgres::drill::target::DrillTarget;
use crate::postgres::drill::{
    DrillOptions, DrillReport, DumpDrill, round_trip, run as drill, run_dump,
};
use crate::postgres::dump::command::DumpRequest;
use crate::postgres::replication::ConnInfo;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: DrillVerb,
}

#[derive(Debug, Subcommand)]
enum DrillVerb {
    /// Restore into a folder that goes away, start a server that nobody else reaches, and look at what it holds.
    #[command(
        after_help = "Exit codes: 0 passed; 3 failed; 4 the moment cannot be restored to; 1 could not run: something is missing on this machine, which is no fault of the backup."
    )]
    Run(RunArgs),
    /// Write a row into walden.canary, a small table of Walden's own in the database of `drill.canary`. A drill checks what
    /// it finds of it, and tells by it how old the restored data is.
    Canary(canary::Args),
    /// Take known data through a dump and back: make a database with them on the server, dump it, restore it elsewhere, compare every
    /// value, and remove all of it. The role of `postgresql.dsn` needs CREATEDB.
    #[command(
        after_help = "Exit codes: 0 passed; 3 failed; 4 the server is a standby or another cluster, or the role lacks CREATEDB; 1 could not run: something is missing on this machine."
    )]
    RoundTrip,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Restore a base backup and WAL; this is the default.
    #[arg(long)]
    physical: bool,
    /// Restore a dump into a server that is made for it.
    #[arg(long, conflicts_with = "physical")]
    dump: bool,
    /// The database whose dump is restored; else the one of `postgresql.dsn`.
    #[arg(long, value_name = "DATABASE", requires = "dump")]
    database: Option<String>,
    /// The moment: latest, random, counted (where `walden drill canary --counts` counted last), or a time in the form of
    /// `walden restore --time`. Of dumps: latest or random.
    #[arg(long, default_value = "latest", value_name = "WHEN")]
    at: String,
    /// Leave the restored cluster there, stopped, and say where.
    #[arg(long)]
    keep: bool,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    if !matches!(args.verb, DrillVerb::Canary(_)) {
        refuse_root()?;
    }
    let (cluster, done) = match args.verb {
        DrillVerb::Canary(args) => return canary::run(context, &args).await,
        DrillVerb::Run(args) if args.dump => of_dump(context, &args).await?,
        DrillVerb::Run(args) => physical(context, &args).await?,
        DrillVerb::RoundTrip => {
            let (settings, cluster) = (&context.settings, context.cluster().await?);
            let request = DumpRequest::whole(&settings.dump);
            let done = round_trip::run(settings, &cluster, &request, asked_to_end()).await;
            (cluster, done)
        }
    };
    let report = match done {
        Ok(report) => report,
        Err(refused) => return refusal_of(context, &refused),
    };
    let evidence = report.evidence(Utc::now());
    keep(&context.settings, &cluster, evidence).await;
    match context.format {
        Format::Json => print_json(&report)?,
        Format::Table => print_text(&in_words(&report))?,
    }
    Ok(exit(report.verdict))
}

/// How a process ends that did a drill.
pub fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Passed => Exit::Success,
        Verdict::Failed => Exit::Unsound,
        Verdict::CouldNotRun => Exit::Failed,
    }
}

/// The cluster, and how a drill of it ended.
type Drilled = (Cluster, anyhow::Result<DrillReport>);

async fn physical(context: &Context, args: &RunArgs) -> anyhow::Result<Drilled> {
    let target = match args.at.as_str() {
        "latest" => DrillTarget::Latest,
        "random" => DrillTarget::Random(getrandom::u64()?),
        "counted" => DrillTarget::Counted,
        text => DrillTarget::At(moment(text, Utc::now()).map_err(wrong_usage)?),
    };
    let options = options(context, target, args.keep)?;
    let planner = planning::open(context, true).await?;
    let done = drill(&context.settings, &planner, &options, asked_to_end()).await;
    Ok((planner.cluster(), done))
}

/// What a drill of base backups does, as the settings say.
pub fn options(context: &Context, target: DrillTarget, keep: bool) -> anyhow::Result<DrillOptions> {
    Ok(DrillOptions {
        target,
        asserts: asserts(context)?,
        canary_pause: |settings, at| last_but_one(settings, "canary", at),
        keep,
    })
}

async fn of_dump(context: &Context, args: &RunArgs) -> anyhow::Result<Drilled> {
    let random = match args.at.as_str() {
        "latest" => None,
        "random" => Some(getrandom::u64()?),
        _ => {
            let error = anyhow!("a drill of a dump takes no time");
            return Err(wrong_usage(with_hint(error, "use --at latest or random")));
        }
    };
    let of_source = || {
        let info = ConnInfo::from_process(context.settings.postgresql.dsn.expose());
        info.map(|info| info.database)
    };
    let database = args.database.clone();
    let asked = DumpDrill {
        database: database.map_or_else(of_source, Ok)?,
        random,
        asserts: asserts(context)?,
        keep: args.keep,
    };
    let cluster = context.cluster().await?;
    let done = run_dump(&context.settings, &cluster, &asked, asked_to_end()).await;
    Ok((cluster, done))
}

/// Tells why there was no drill.
pub fn refusal_of(context: &Context, refused: &anyhow::Error) -> anyhow::Result<Exit> {
    match find::<Unreachable>(refused) {
        Some(unreachable) => refusal(context.format, unreachable, &|arguments| {
            format!("walden restore {arguments}")
        }),
        None => {
            print_error(refused);
            Ok(Exit::Refused)
        }
    }
}

/// A drill for people.
pub fn in_words(report: &DrillReport) -> String {
    let open = open(&report.checks);
    let mut text = format!("drill {}{open}: {}\n", report.verdict, report.target);
    for line in report.reason.lines() {
        text += &format!("REASON: {line}\n");
    }
    text += &lines(&report.checks);
    for phase in &report.phases {
        text += &format!("  {:>9.1} s  {}\n", phase.seconds, phase.name);
    }
    if let Some(seconds) = report.rto_seconds {
        text += &format!("RTO {seconds:.1} s for {}\n", bytes(report.bytes));
    }
    if let Some(seconds) = report.rpo_seconds {
        text +=
            &format!("RPO {seconds:.1} s: how old the newest data was that could be restored\n");
    }
    if let Some(canary) = &report.canary {
        text += &format!(
            "canary {:.1} s old: the newest that came back\n",
            canary.age_seconds
        );
    }
    if let Some(folder) = &report.kept {
        text += &format!(
            "kept in \"{}\": remove it when you are done\n",
            folder.display()
        );
    }
    text
}
