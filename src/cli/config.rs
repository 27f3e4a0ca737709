//! `walden config`: what is in force, and what could be.

use clap::Subcommand;

use super::{Context, Exit, Format, print_json, print_text};
use crate::config;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Every setting with its value and where it comes from; secrets are hidden.
    Show,
    /// A commented configuration file with every setting at its default.
    Example,
}

/// `load` reads the settings, which an example does not need.
pub fn run(args: Args, load: impl FnOnce() -> anyhow::Result<Context>) -> anyhow::Result<Exit> {
    match args.verb {
        ConfigVerb::Example => example(),
        ConfigVerb::Show => show(&load()?),
    }
}

fn example() -> anyhow::Result<Exit> {
    print_text(&config::example())?;
    Ok(Exit::Success)
}

fn show(context: &Context) -> anyhow::Result<Exit> {
    match context.format {
        Format::Table => print_text(&config::show(&context.settings))?,
        Format::Json => print_json(&config::effective(&context.settings))?,
    }
    Ok(Exit::Success)
}
