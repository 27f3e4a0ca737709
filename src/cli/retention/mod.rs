//! `walden retention`: what is kept and for how long, and the one verb that deletes by it.

mod apply;
mod holds;
mod pins;
mod plan;

use clap::Subcommand;

use super::{Context, Exit};
use crate::retention::Policy;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: RetentionVerb,
}

#[derive(Debug, Subcommand)]
enum RetentionVerb {
    /// Show what stays and what goes, and why. Deletes nothing. Exit code 3 when there are warnings.
    Plan,
    /// Show what still holds data from before a moment, and when it will be gone.
    Holds(holds::Args),
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
fn policy(context: &Context) -> Policy {
    Policy::new(&context.settings)
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        RetentionVerb::Plan => plan::run(context).await,
        RetentionVerb::Holds(args) => holds::run(context, &args).await,
        RetentionVerb::Apply(args) => apply::run(context, &args).await,
        RetentionVerb::Pin(args) => pins::pin(context, &args).await,
        RetentionVerb::Unpin(args) => pins::unpin(context, &args).await,
        RetentionVerb::Pins => pins::list(context).await,
    }
}
