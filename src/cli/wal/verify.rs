use serde::Serialize;

use super::super::evidence::{Told, recorded};
use super::super::{Context, Exit, Format, bytes, gap_lines, print_json, print_text};
use crate::evidence::record::{Act, Scope, Verdict};
use crate::plain::counted;
use crate::postgres::catalog::Gap;
use crate::postgres::cluster::Cluster;
use crate::postgres::repository::verify::{ColdFound, Damage, VerifyResult, VerifyScope, verify};
use crate::postgres::types::TimelineId;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read only every N-th segment, beginning with a random one; all other files are read, and gaps are found, anyway.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
}

/// What was found, as JSON names it.
#[derive(Debug, Serialize)]
struct WalVerifyOutput<'a> {
    segments: u64,
    read: u64,
    plain_bytes: u64,
    damages: Vec<Damage<'a>>,
    more_damages: u64,
    gaps: &'a [Gap],
    foreign: &'a [String],
    missing_histories: &'a [TimelineId],
    /// Not read, and no damage.
    cold: &'a ColdFound,
}

/// Verifies archived WAL. Exit code 3 when anything is damaged or missing.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let scope = VerifyScope::Wal {
        every: args.every.unwrap_or(1),
    };
    let work = async |told: &mut Told| run_recorded(context, &cluster, scope, told).await;
    recorded(&context.settings, &cluster, Act::Verification, work).await
}

async fn run_recorded(
    context: &Context,
    cluster: &Cluster,
    scope: VerifyScope,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    told.subject = match scope {
        VerifyScope::Wal { every: 2.. } => "a sample of the archived WAL".into(),
        _ => "the archived WAL".into(),
    };
    told.scope = Some(Scope::Part);
    let found = verify(cluster, scope, context.settings.wal.workers).await?;
    let verified = WalVerifyOutput {
        segments: found.segments,
        read: found.wal_files,
        plain_bytes: found.plain_bytes,
        damages: found.findings.damages().collect(),
        more_damages: found.findings.more_damages,
        gaps: &found.gaps,
        foreign: &found.foreign,
        missing_histories: &found.missing_histories,
        cold: &found.cold,
    };
    told.details = serde_json::to_value(&verified)?;
    if found.is_open() {
        told.verdict = Some(Verdict::CouldNotRun);
        told.reason = "the repository did not give all archived WAL".into();
    }
    match context.format {
        Format::Json => print_json(&verified)?,
        Format::Table => print_text(&in_words(&found, &verified))?,
    }
    Ok(if found.is_sound() {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

fn in_words(found: &VerifyResult, verified: &WalVerifyOutput) -> String {
    let mut text = String::new();
    for damage in &verified.damages {
        text += &format!(
            "{}: object \"{}\": {}\n",
            damage.problem, damage.object, damage.why
        );
    }
    if verified.more_damages > 0 {
        text += &format!("and {} more\n", verified.more_damages);
    }
    text += &gap_lines("GAP", verified.gaps);
    for timeline in verified.missing_histories {
        text += &format!("MISSING: the history file of timeline {timeline}\n");
    }
    if !verified.cold.is_empty() {
        text += &format!(
            "cold, not read: {}: no recovery reads WAL that must be thawed first\n",
            verified.cold
        );
    }
    for object in verified.foreign {
        text += &format!("foreign: object \"{object}\"\n");
    }
    let verdict = if found.is_sound() {
        "sound"
    } else {
        "NOT sound"
    };
    let WalVerifyOutput {
        segments,
        read,
        plain_bytes,
        ..
    } = verified;
    text + &format!(
        "archive {verdict}: {} there, {} read, {}\n",
        counted(*segments, "segment"),
        counted(*read, "object"),
        bytes(*plain_bytes)
    )
}
