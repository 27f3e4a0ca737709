use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use serde_json::json;

use super::super::evidence::{Told, recorded};
use super::super::progress::{ProgressStep, show};
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use super::policy;
use crate::cli::exit::wrong_usage;
use crate::error::{Hint, with_hint};
use crate::evidence::record::Act;
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::expiry::ExpiryProgress;
use crate::postgres::expiry::apply::{Applied, Chosen, Decision, apply, digest};
use crate::postgres::promotion::{Classes, Promoted, promote};
use crate::postgres::restore::thaw_order;
use crate::retention::{PlanDigest, Policy, WalVerdict};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Delete exactly what `walden retention plan` printed with this digest, or nothing.
    #[arg(long, value_name = "DIGEST", conflicts_with = "yes", value_parser = parse_digest)]
    plan: Option<PlanDigest>,
    /// Do not ask: delete what the policy lets go now.
    #[arg(long)]
    yes: bool,
}

fn parse_digest(text: &str) -> Result<PlanDigest, String> {
    digest(text).map_err(|error| error.to_string())
}

/// Deletes. Exit code 1 when something is left that was to go.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let policy = policy(context);
    let cluster = context.cluster().await?;
    let chosen = match (&args.plan, args.yes) {
        (Some(digest), _) => Chosen::Printed(digest.clone()),
        (None, true) => Chosen::Any,
        (None, false) if !std::io::stdin().is_terminal() => {
            let error = anyhow!("deleting needs a confirmation");
            let hint = "name the plan with --plan DIGEST, as `walden retention plan` prints it, or add --yes";
            return Err(wrong_usage(with_hint(error, hint)));
        }
        (None, false) => {
            let decision = Decision::make(&cluster, &policy, SystemTime::now()).await?;
            // What stays may still change its storage class.
            if !decision.is_nothing() && !confirmed(&decision)? {
                print_text("nothing was deleted\n")?;
                return Ok(Exit::Failed);
            }
            Chosen::Printed(decision.plan.deletions().digest())
        }
    };
    recorded(&context.settings, &cluster, Act::Deletion, async |told| {
        carry_out(context, &cluster, &policy, &chosen, told).await
    })
    .await
}

async fn carry_out(
    context: &Context,
    cluster: &Cluster,
    policy: &Policy,
    chosen: &Chosen,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    told.subject = "what retention keeps no longer".into();
    let progress = ExpiryProgress::default();
    let step = || ProgressStep {
        done: progress.done.load(Ordering::Relaxed),
        total: progress.total.load(Ordering::Relaxed),
        phase: String::new(),
    };
    let work = apply(cluster, policy, chosen, &progress);
    let applied = match show(work, "deleted", step).await {
        Ok(applied) => applied,
        Err(error) => {
            told.details = json!({ "complete": false, "deleted": progress.deleted() });
            return Err(error).hint("run it again when that is mended: it goes on where it ended");
        }
    };
    let output = ApplyOutput {
        complete: applied.is_whole(),
        applied: &applied,
    };
    told.is_nothing = applied.deleted.is_empty() && applied.is_whole();
    told.details = serde_json::to_value(&output)?;
    match context.format {
        Format::Json => print_json(&output)?,
        Format::Table => print_text(&in_words(&applied))?,
    }
    let promoted = promote_kept(context, cluster, policy).await?;
    Ok(match applied.is_whole() && promoted {
        true => Exit::Success,
        false => Exit::Failed,
    })
}

/// Moves what is kept to the storage classes of its tiers; whether nothing failed.
async fn promote_kept(
    context: &Context,
    cluster: &Cluster,
    policy: &Policy,
) -> anyhow::Result<bool> {
    let settings = &context.settings;
    let classes = Classes::of_settings(&settings.s3)?;
    if classes.is_empty() {
        return Ok(true);
    }
    let decision = Decision::make(cluster, policy, SystemTime::now()).await?;
    let order = thaw_order(&settings.restore);
    let Promoted {
        objects,
        bytes: moved,
        thawing,
        failed,
        more_failed,
    } = promote(cluster, &decision.plan, &classes, order).await?;
    if objects + thawing > 0 {
        tracing::info!(
            "{} ({}) moved to the storage classes of their tiers, {thawing} to be thawed first",
            counted(objects, "object"),
            bytes(moved)
        );
    }
    for (key, why) in &failed {
        tracing::warn!("object \"{key}\" stays in its storage class: {why}");
    }
    if more_failed > 0 {
        tracing::warn!(
            "{} more stay in their storage classes",
            counted(more_failed, "object")
        );
    }
    Ok(failed.is_empty())
}

#[derive(Debug, Serialize)]
struct ApplyOutput<'a> {
    /// All that was to go is gone.
    complete: bool,
    #[serde(flatten)]
    applied: &'a Applied,
}

/// What a plan deletes, in short.
fn summary(decision: &Decision) -> String {
    let items: Vec<_> = decision
        .plan
        .items
        .iter()
        .filter(|item| !item.is_kept())
        .collect();
    let wal: Vec<_> = decision
        .plan
        .wal
        .iter()
        .filter(|wal| wal.verdict == WalVerdict::Delete)
        .collect();
    let stored = items.iter().map(|item| item.size).sum::<u64>()
        + wal.iter().map(|wal| wal.stored_bytes).sum::<u64>();
    let segments: u64 = wal.iter().map(|wal| wal.segments).sum();
    let mut text: String = items
        .iter()
        .map(|item| format!("  {}\n", item.id))
        .collect();
    for wal in wal {
        let (first, last) = (wal.span.first, wal.span.last);
        text += &format!("  WAL {first} to {last}\n");
    }
    text + &format!(
        "{}, {} of WAL, some {} would be deleted; plan {}\n",
        counted(items.len() as u64, "backup or dump")
            .replace("backup or dumps", "backups and dumps"),
        counted(segments, "segment"),
        bytes(stored),
        decision.plan.deletions().digest()
    )
}

fn confirmed(decision: &Decision) -> anyhow::Result<bool> {
    print_text(&summary(decision))?;
    print_text("Delete this? Type yes: ")?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

fn in_words(applied: &Applied) -> String {
    let mut text = String::new();
    if applied.resumed {
        text += "an interrupted deletion was taken up\n";
    }
    for id in &applied.deleted.backups {
        text += &format!("deleted backup {id}\n");
    }
    for id in &applied.deleted.dumps {
        text += &format!("deleted dump {id}\n");
    }
    for span in &applied.deleted.wal {
        text += &format!("deleted WAL {} to {}\n", span.first, span.last);
    }
    let put_off = &applied.put_off;
    let backups = put_off.backups.iter().map(|id| format!("backup {id}"));
    let dumps = put_off.dumps.iter().map(|id| format!("dump {id}"));
    let wal = put_off.wal.iter();
    let wal = wal.map(|span| format!("WAL {} to {}", span.first, span.last));
    for item in backups.chain(dumps).chain(wal) {
        text += &format!("put off: {item} is in use or pinned since just now\n");
    }
    for left in &applied.left {
        text += &format!("NOT DELETED: {}: {}\n", left.item, left.why);
    }
    text += &match applied.objects {
        0 if applied.is_whole() => "there was nothing to delete\n".to_string(),
        objects => format!("{} deleted\n", counted(objects, "object")),
    };
    if !applied.is_whole() {
        text += "HINT: run it again later: what is left is tried again\n";
    }
    text
}
