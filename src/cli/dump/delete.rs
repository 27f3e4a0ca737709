use std::io::{IsTerminal, Write};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::evidence::{Told, recorded};
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use super::chosen;
use crate::error::{Hint, with_hint};
use crate::evidence::record::Act;
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::delete::delete;
use crate::postgres::dump::list::{ListedDump, list};
use crate::postgres::layout::DumpId;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dumps, as `walden dump list` names them.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Delete also the last complete dump of a database.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct DeleteOutput {
    id: DumpId,
    objects: u64,
    stored_bytes: u64,
}

/// Deletes dumps after showing what goes.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let mut dumps: Vec<ListedDump> = Vec::new();
    for id in &args.ids {
        let dump = chosen::complete(&cluster, id).await?;
        if !dumps.contains(&dump) {
            dumps.push(dump);
        }
    }
    let output = |dump: &ListedDump| DeleteOutput {
        id: dump.id.clone(),
        objects: dump.objects.len() as u64,
        stored_bytes: dump.bytes(),
    };
    let going: Vec<DeleteOutput> = dumps.iter().map(output).collect();
    match context.format {
        Format::Json => print_json(&going)?,
        Format::Table => print_text(&in_words(&going))?,
    }
    if !args.force {
        refuse_last(&cluster, &dumps).await?;
    }
    if !args.yes && !confirmed()? {
        print_text("nothing was deleted\n")?;
        return Ok(Exit::Failed);
    }
    let work = async |told: &mut Told| {
        let ids: Vec<String> = dumps.iter().map(|dump| dump.id.to_string()).collect();
        told.subject = format!("dumps {}, by hand", ids.join(", "));
        let deleted = delete(&cluster, &dumps).await;
        told.details = match &deleted {
            Ok(()) => json!({ "deleted": going }),
            Err(_) => what_is_left(&cluster, &dumps).await,
        };
        deleted.hint("run the same again: what is gone already is passed over")?;
        if context.format == Format::Table {
            print_text(&format!(
                "deleted {}\n",
                counted(dumps.len() as u64, "dump")
            ))?;
        }
        Ok(Exit::Success)
    };
    recorded(&context.settings, &cluster, Act::Deletion, work).await
}

/// Which dumps a deletion that did not come to its end took away, as far as the repository says.
async fn what_is_left(cluster: &Cluster, dumps: &[ListedDump]) -> Value {
    let Ok(kept) = list(cluster, None).await else {
        return json!({ "deleted": "not known: the repository does not answer" });
    };
    let is_there = |dump: &&ListedDump| kept.complete.iter().any(|kept| kept.id == dump.id);
    let (left, deleted): (Vec<_>, Vec<_>) = dumps.iter().partition(is_there);
    let ids = |dumps: Vec<&ListedDump>| -> Vec<String> {
        dumps.iter().map(|dump| dump.id.to_string()).collect()
    };
    json!({ "deleted": ids(deleted), "left": ids(left) })
}

/// Each database that has a complete dump keeps one of each kind.
async fn refuse_last(cluster: &Cluster, going: &[ListedDump]) -> anyhow::Result<()> {
    let mut kept = list(cluster, None).await?;
    kept.complete
        .retain(|dump| going.iter().all(|one| one.id != dump.id));
    match going
        .iter()
        .filter(|dump| !dump.id.name().is_partial())
        .find(|dump| kept.latest(dump.id.database(), dump.id.kind()).is_none())
    {
        None => Ok(()),
        Some(last) => Err(with_hint(
            anyhow!(
                "dump \"{}\" is the last one of its kind of database \"{}\"",
                last.id,
                last.id.database()
            ),
            "take another one first, or use --force",
        )),
    }
}

fn in_words(going: &[DeleteOutput]) -> String {
    let line = |dump: &DeleteOutput| {
        format!(
            "dump {}: {}, {} would be deleted\n",
            dump.id,
            counted(dump.objects, "object"),
            bytes(dump.stored_bytes)
        )
    };
    going.iter().map(line).collect()
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow!(
            "deleting needs a confirmation, and there is no terminal to ask on"
        ))
        .hint("repeat it with --yes");
    }
    eprint!("Type yes to delete: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}
