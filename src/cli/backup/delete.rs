use std::io::{IsTerminal, Write};

use anyhow::{Context as _, anyhow};

use super::super::evidence::{Told, recorded};
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use crate::error::{Hint, with_hint};
use crate::evidence::record::Act;
use crate::plain::counted;
use crate::postgres::backup::delete::{DeletePlan, delete, plan_delete};
use crate::postgres::backup::started::{self, Reservation};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup, as `walden backup list` names it.
    #[arg(value_name = "ID")]
    id: BackupId,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Delete it even if it is the only one that can be used, if what is lost with it is not known, or if it may still
    /// be being taken.
    #[arg(long)]
    force: bool,
}

/// Deletes a backup after showing what that means.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let plan = plan_delete(&cluster, &args.id).await?;
    match context.format {
        Format::Json => print_json(&plan)?,
        Format::Table => print_text(&in_words(&plan))?,
    }
    check(&cluster, &plan, args.force).await?;
    if !args.yes && !confirmed(&plan)? {
        print_text("nothing was deleted\n")?;
        return Ok(Exit::Failed);
    }
    let work = async |told: &mut Told| {
        told.subject = format!("backup {}, by hand", plan.id);
        told.details = serde_json::to_value(&plan)?;
        delete(&cluster, &plan)
            .await
            .hint("run the same again: what is gone already is passed over")?;
        if context.format == Format::Table {
            print_text(&format!("deleted backup {}\n", plan.id))?;
        }
        Ok(Exit::Success)
    };
    recorded(&context.settings, &cluster, Act::Deletion, work).await
}

fn in_words(plan: &DeletePlan) -> String {
    let DeletePlan {
        id,
        objects,
        stored_bytes,
        lost,
        lost_unknown,
        ..
    } = plan;
    let mut text = format!(
        "backup {id}: {}, {} would be deleted\n",
        counted(*objects, "object"),
        bytes(*stored_bytes)
    );
    for why in lost_unknown {
        text += &format!("what can no longer be restored is not known: {why}\n");
    }
    if lost.is_empty() && lost_unknown.is_empty() {
        text += "nothing can be restored with it that another backup cannot restore\n";
    }
    for moments in lost {
        text += &format!(
            "no longer restorable: timeline {} from {} to before {}\n",
            moments.timeline, moments.from, moments.to
        );
    }
    text
}

async fn check(cluster: &Cluster, plan: &DeletePlan, force: bool) -> anyhow::Result<()> {
    let list = |ids: &[BackupId]| {
        ids.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !plan.needed_by.is_empty() {
        let error = anyhow!(
            "backup \"{}\" cannot be deleted: {} hold frames in it",
            plan.id,
            list(&plan.needed_by)
        );
        return Err(with_hint(error, "delete those first"));
    }
    if force {
        return Ok(());
    }
    if !plan.unknown.is_empty() {
        let error = anyhow!(
            "whether {} hold frames in backup \"{}\" is not known",
            list(&plan.unknown),
            plan.id
        );
        return Err(with_hint(
            error,
            "their manifests are damaged: delete them first, or use --force",
        ));
    }
    if !plan.lost_unknown.is_empty() {
        let error = anyhow!("what is lost with backup \"{}\" is not known", plan.id);
        return Err(with_hint(
            error,
            "repair what is damaged from a copy of the repository, or use --force",
        ));
    }
    if plan.only_usable {
        let error = anyhow!("backup \"{}\" is the only one that can be used", plan.id);
        return Err(with_hint(error, "take another one first, or use --force"));
    }
    if let Some(Reservation::By(started)) = started::read(cluster, &plan.id).await?
        && !started.process.is_gone()
        && cluster
            .repository
            .storage()
            .head(&cluster.layout.manifest(&plan.id))
            .await?
            .is_none()
    {
        let process = &started.process;
        let error = anyhow!("backup \"{}\" may still be being taken", plan.id);
        let hint = format!(
            "see whether process {} on \"{}\" runs; if not, use --force",
            process.pid, process.host
        );
        return Err(with_hint(error, hint));
    }
    Ok(())
}

fn confirmed(plan: &DeletePlan) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let error = anyhow!("deleting backup \"{}\" needs a confirmation", plan.id);
        return Err(with_hint(error, "add --yes"));
    }
    print_text(&format!("Delete backup {}? Type yes: ", plan.id))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::archive::testing::cluster_in;
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn that_nothing_is_lost_is_said_only_when_that_is_known() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let id = "20260101-000000Z".parse().unwrap();
        let (keys, lost, needed_by, unknown) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let lost_unknown = Vec::new();
        let (objects, stored_bytes, only_usable) = (1, 1, false);
        let mut plan = DeletePlan {
            id,
            keys,
            objects,
            stored_bytes,
            lost,
            lost_unknown,
            only_usable,
            needed_by,
            unknown,
        };
        assert!(in_words(&plan).contains("nothing can be restored with it"));
        check(&cluster, &plan, false).await.unwrap();
        plan.lost_unknown
            .push("\"00000002.history\" cannot be used: cut".into());
        let text = in_words(&plan);
        assert!(
            text.contains("not known: \"00000002.history\"") && !text.contains("nothing"),
            "{text}"
        );
        assert!(
            check(&cluster, &plan, false)
                .await
                .unwrap_err()
                .to_string()
                .contains("not known")
        );
        check(&cluster, &plan, true).await.unwrap();
    }
}
