//! `walden retention`: what is kept and for how long, and the one verb that deletes by it.

mod apply;
mod pins;

use clap::Subcommand;

use super::{Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: RetentionVerb,
}

#[derive(Debug, Subcommand)]
enum RetentionVerb {
    /// Delete exactly what a plan lets go. Exit code 1 when something is left, such as what object lock keeps: run it again
    /// later.
    Apply(apply::Args),
    /// Keep a backup or a dump whatever the policy says.
    Pin(pins::PinArgs),
    /// Take a pin away.
    Unpin(pins::UnpinArgs),
    /// List pins, and who reads now.
    Pins,
}

/// What the settings promise.
fn policy(_context: &Context) -> anyhow::Result<crate::retention::Policy> {
    let all = crate::retention::KindPolicy {
        tiers: Default::default(),
        minimum: 1,
    };
    Ok(crate::retention::Policy {
        zone: chrono_tz::UTC,
        window: None,
        base: all.clone(),
        dump: all.clone(),
        schema: all,
    })
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        RetentionVerb::Apply(args) => apply::run(context, &args).await,
        RetentionVerb::Pin(args) => pins::pin(context, &args).await,
        RetentionVerb::Unpin(args) => pins::unpin(context, &args).await,
        RetentionVerb::Pins => pins::list(context).await,
    }
}
