//! `walden alert`: what fires, who is told, and whether that works.

mod check;
mod list;
mod silence;
mod test;

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;

use super::evidence::who;
use super::{Context, Exit};
use crate::alerts::decide::Policy;
use crate::alerts::{AlertStore, AlertsFile, Channels, Evaluator, Origin, Reach, parse_file};
use crate::codec::Digest;
use crate::config::Settings;
use crate::error::{Hint, with_hint};
use crate::postgres::cluster::Cluster;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: AlertVerb,
}

#[derive(Debug, Subcommand)]
enum AlertVerb {
    /// Look how all stands, tell who has to be told, and remember it. For cron, where no service runs.
    #[command(
        after_help = "Exit codes, as Nagios plugins have them: 0 nothing fires, 1 warnings fire, 2 something critical fires, 3 it is not known."
    )]
    Check,
    /// List what fires, what is over, and channels that cannot be told. Looks at nothing anew.
    List(list::Args),
    /// Tell channels that this is a test, and that it is over.
    Test(test::Args),
    /// Tell nobody of a rule for some time.
    Silence(silence::Args),
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        AlertVerb::Check => check::run(context).await,
        AlertVerb::List(args) => list::run(context, &args).await,
        AlertVerb::Test(args) => test::run(context, &args).await,
        AlertVerb::Silence(args) => silence::run(context, &args).await,
    }
}

/// Who is told, as the file says; nobody without one.
fn file(settings: &Settings) -> anyhow::Result<AlertsFile> {
    let Some(file) = &settings.alerts.file else {
        return Ok(AlertsFile::default());
    };
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read \"{shown}\""))
        .hint("name a file with channels in `alerts.file`, or nothing")?;
    parse_file(&text).map_err(|why| {
        let error = anyhow!("\"{shown}\", named by alerts.file, cannot be understood: {why}");
        with_hint(error, "docs/operations/alerts.md shows the form")
    })
}

/// Who is told, and when.
fn policy_and_channels(settings: &Settings) -> anyhow::Result<(Policy, Channels)> {
    let file = file(settings)?;
    let policy = file.policy(&settings.alerts);
    let channels = Channels {
        file,
        origin: Origin {
            cluster: settings.cluster.name.clone(),
            repository: settings.repository.url.to_string(),
            host: who().host,
        },
        timeout: settings.alerts.timeout,
    };
    Ok((policy, channels))
}

fn store(cluster: &Cluster) -> AlertStore {
    AlertStore::new(
        cluster.repository.shared_storage(),
        cluster.layout.alerts_folder(),
    )
}

/// Where this host remembers what it told while the repository could not be reached.
fn memory(settings: &Settings) -> PathBuf {
    let whose = format!("{} {}", settings.repository.url, settings.cluster.name);
    let name = format!("alerts-{}.json", Digest::of(whose.as_bytes()));
    settings.catalog.cache.join(name)
}

/// What looks how all stands, for the service, and what tells when that cannot be done; `None`: nobody is to be told. Errors:
/// the file cannot be understood.
pub fn evaluator(
    settings: &Settings,
    cluster: &Cluster,
) -> anyhow::Result<Option<(Evaluator, Reach)>> {
    if settings.alerts.file.is_none() {
        return Ok(None);
    }
    let (policy, channels) = policy_and_channels(settings)?;
    let reach = Reach::new(&policy, channels.clone(), memory(settings));
    Ok(Some((
        Evaluator::new(store(cluster), policy, channels)?,
        reach,
    )))
}
