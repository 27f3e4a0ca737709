use anyhow::anyhow;
use futures_util::future::join_all;
use serde::Serialize;

use super::{policy_and_channels, store};
use crate::alerts::AlertStore;
use crate::cli::exit::wrong_usage;
use crate::cli::{Context, Exit, Format, print_json, print_text};
use crate::error::{hints, one_line, with_hint};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The channel; else all of them.
    #[arg(value_name = "CHANNEL")]
    channel: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tested<'a> {
    channel: &'a str,
    /// Why it was not told; `null`: it was.
    failed: Option<String>,
    #[serde(skip)]
    hint: Option<String>,
}

/// Tells channels that this is a test.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let (_, channels) = policy_and_channels(&context.settings)?;
    let names = channels.names();
    let chosen: Vec<&str> = match &args.channel {
        None => names.clone(),
        Some(name) => names
            .iter()
            .copied()
            .filter(|known| known == name)
            .collect(),
    };
    if chosen.is_empty() {
        let (error, hint) = match &args.channel {
            None => (
                anyhow!("there is no channel"),
                "name a file with channels in `alerts.file`".into(),
            ),
            Some(name) => (
                anyhow!("there is no channel \"{name}\""),
                format!("name one of {}", names.join(", ")),
            ),
        };
        return Err(wrong_usage(with_hint(error, hint)));
    }
    let tests = chosen.into_iter().map(|channel| async {
        let error = channels.test(channel).await.err();
        Tested {
            channel,
            hint: error
                .as_ref()
                .and_then(|error| hints(error).first().map(ToString::to_string)),
            failed: error.map(|error| one_line(&error)),
        }
    });
    let tested = join_all(tests).await;
    let works = tested.iter().filter(|one| one.failed.is_none());
    let works: Vec<&str> = works.map(|one| one.channel).collect();
    if !works.is_empty() {
        forget_trouble(&store(&context.cluster().await?), &works).await?;
    }
    match context.format {
        Format::Json => print_json(&tested)?,
        Format::Table => print_text(&tested.iter().map(line).collect::<String>())?,
    }
    Ok(match works.len() == tested.len() {
        true => Exit::Success,
        false => Exit::Failed,
    })
}

/// A channel that works again is tried at once.
async fn forget_trouble(store: &AlertStore, channels: &[&str]) -> anyhow::Result<()> {
    loop {
        let (number, mut state) = store.latest().await?;
        let before = state.channels.len();
        state
            .channels
            .retain(|name, _| !channels.contains(&&**name));
        // Whoever tells people just now finds it out.
        let is_done = state.channels.len() == before || state.sender.is_some();
        if is_done || store.put(number + 1, &state).await? {
            return Ok(());
        }
    }
}

fn line(tested: &Tested<'_>) -> String {
    let name = tested.channel;
    let hint = tested.hint.as_ref().map(|hint| format!("HINT: {hint}\n"));
    match &tested.failed {
        None => format!("told     {name}\n"),
        Some(why) => format!("FAILED   {name}: {why}\n{}", hint.unwrap_or_default()),
    }
}
