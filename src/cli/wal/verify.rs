use super::super::{Context, Exit, Format, bytes, gap_lines, print_json, print_text};
use crate::plain::counted;
use crate::postgres::archive::verify::{Extent, Verified, verify};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read only every N-th segment, beginning with a random one; all other files are read, and gaps are found, anyway.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
}

/// Verifies archived WAL. Exit code 3 when anything is damaged or missing.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let extent = args.every.map_or(Extent::All, Extent::EveryNth);
    let verified = verify(&cluster, extent, context.settings.wal.workers).await?;
    match context.format {
        Format::Json => print_json(&verified)?,
        Format::Table => print_text(&in_words(&verified))?,
    }
    Ok(if verified.is_sound() { Exit::Success } else { Exit::Unsound })
}

fn in_words(verified: &Verified) -> String {
    let mut text = String::new();
    for damage in &verified.damages {
        text += &format!("{}: object \"{}\": {}\n", damage.trouble, damage.object, damage.why);
    }
    if verified.more_damages > 0 {
        text += &format!("and {} more\n", verified.more_damages);
    }
    text += &gap_lines("GAP", &verified.gaps);
    for timeline in &verified.missing_histories {
        text += &format!("MISSING: the history file of timeline {timeline}\n");
    }
    for object in &verified.foreign {
        text += &format!("foreign: object \"{object}\"\n");
    }
    let verdict = if verified.is_sound() { "sound" } else { "NOT sound" };
    let Verified { segments, read, plain_bytes, .. } = verified;
    text + &format!(
        "archive {verdict}: {} there, {} read, {}\n",
        counted(*segments, "segment"),
        counted(*read, "object"),
        bytes(*plain_bytes)
    )
}
