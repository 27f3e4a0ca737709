use super::super::{Context, Exit, Format, print_json, print_text};
use super::runs_of;
use crate::health::{moment, words};
use crate::jobs::record::{RunId, RunRecord};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run, as `walden jobs list --runs` names it.
    #[arg(value_name = "RUN")]
    id: RunId,
}

/// Shows a run.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let record = runs_of(&context.settings, &cluster)
        .history
        .find(&args.id)
        .await?;
    match context.format {
        Format::Json => print_json(&record)?,
        Format::Table => print_text(&in_words(&record))?,
    }
    Ok(Exit::Success)
}

fn in_words(record: &RunRecord) -> String {
    let purpose = match record.purpose.scheduled {
        None => "somebody asked for it".into(),
        Some(time) => {
            let missed = match record.purpose.missed {
                0 => String::new(),
                missed => format!(", and {missed} missed before"),
            };
            format!(
                "the schedule: {}{missed}; attempt {}",
                moment(time),
                record.purpose.attempt
            )
        }
    };
    let mut text = format!(
        "run      {}\njob      {}\nstate    {}\nfor      {purpose}\nbegan    {}\nended    {} ({})\nrunner   pid {} on {}\n",
        record.id,
        record.job,
        record.state,
        moment(record.started_at),
        moment(record.ended_at),
        words(record.ended_at - record.started_at),
        record.pid,
        record.host,
    );
    let parts = [("why", &record.why), ("printed", &record.output)];
    for (what, said) in parts {
        let lines = said.iter().flat_map(|said| said.lines());
        for (number, line) in lines.enumerate() {
            let what = if number == 0 { what } else { "" };
            text += &format!("{what:<9}{line}\n");
        }
    }
    text
}
