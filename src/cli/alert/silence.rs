use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;

use super::store;
use crate::alerts::rule_names;
use crate::alerts::state::{LONGEST_SILENCE, Silence};
use crate::cli::evidence::who;
use crate::cli::exit::wrong_usage;
use crate::cli::{Context, Exit, print_text};
use crate::config::parse_duration;
use crate::error::with_hint;
use crate::health::moment;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The alert, such as JobFailed/dump; or the rule, for all of its alerts.
    #[arg(value_name = "ALERT")]
    alert: String,
    /// For how long, such as 4h.
    #[arg(long = "for", value_name = "SPAN", value_parser = span, required_unless_present = "end")]
    span: Option<Duration>,
    /// Why.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// End the silence.
    #[arg(long, conflicts_with = "span")]
    end: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).filter(|span| !span.is_zero() && *span <= LONGEST_SILENCE);
    span.ok_or_else(|| "a span is written as 30m or 4h, and is 30d at most".into())
}

/// Begins or ends a silence.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let rule = args.alert.split('/').next().unwrap_or_default();
    if !rule_names().any(|known| known == rule) {
        let error = anyhow!("there is no rule \"{rule}\"");
        return Err(wrong_usage(with_hint(
            error,
            "`walden alert list` names what fires",
        )));
    }
    let store = store(&context.cluster().await?);
    loop {
        let (number, mut state) = store.latest().await?;
        if let Some(sender) = &state.sender {
            let error = anyhow!("\"{}\" tells people just now", sender.host);
            return Err(with_hint(error, "try again in a minute"));
        }
        let told = match args.span {
            Some(span) => {
                let (who, until) = (who(), Utc::now() + span);
                let silence = Silence {
                    until,
                    by: format!("{}@{}", who.user, who.host),
                    reason: args.reason.clone(),
                };
                state.silences.insert(args.alert.clone(), silence);
                format!("nobody is told of {} until {}\n", args.alert, moment(until))
            }
            None => match state.silences.remove(&args.alert) {
                Some(_) => format!("people are told of {} again\n", args.alert),
                None => {
                    let error = anyhow!("there is no silence \"{}\"", args.alert);
                    return Err(with_hint(error, "`walden alert list` names them"));
                }
            },
        };
        if store.put(number + 1, &state).await? {
            print_text(&told)?;
            return Ok(Exit::Success);
        }
    }
}
