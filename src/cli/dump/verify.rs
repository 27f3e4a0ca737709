use anyhow::anyhow;
use serde::Serialize;

use super::super::evidence::{Told, recorded};
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use super::{chosen, progress};
use crate::error::{find, one_line, with_hint};
use crate::evidence::record::{Act, Scope, Verdict};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::list;
use crate::postgres::dump::manifest::{self, DumpManifest};
use crate::postgres::dump::programs::Programs;
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back::{DumpFault, check};
use crate::postgres::layout::{DumpFormat, DumpId};
use crate::postgres::types::MajorVersion;
use crate::repo::is_unusable;
use crate::storage::classes::ObjectIsCold;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dumps, as `walden dump list` names them, or `all`.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

#[derive(Debug, Serialize)]
struct VerifyOutput {
    id: DumpId,
    sound: bool,
    bytes: u64,
    /// pg_restore --list read it, too.
    listed: bool,
    /// Not read, and no damage: it must be thawed first.
    cold: bool,
    faults: Vec<DumpFault>,
}

/// Verifies dumps. Exit code 3 when anything is wrong.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let ids = chosen_ids(&cluster, args).await?;
    let work = async |told: &mut Told| run_recorded(context, &cluster, ids, told).await;
    recorded(&context.settings, &cluster, Act::Verification, work).await
}

async fn run_recorded(
    context: &Context,
    cluster: &Cluster,
    ids: Vec<DumpId>,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    told.subject = format!("dumps {}", names.join(", "));
    told.scope = Some(Scope::Part);
    let mut all = Vec::new();
    for id in ids {
        let progress = DumpProgress::new();
        let found = match manifest::read(cluster, &id).await {
            Ok(Some(manifest)) => {
                let programs = programs(context, &manifest).await;
                let listed = programs.is_some();
                progress.now(format!("verifying {id}"));
                let work = check(cluster, &manifest, programs.as_ref(), &progress);
                let (faults, cold) = match progress::show(work, &progress).await {
                    Err(error) if find::<ObjectIsCold>(&error).is_some() => (Vec::new(), true),
                    checked => (checked?, false),
                };
                VerifyOutput {
                    id,
                    sound: faults.is_empty(),
                    bytes: manifest.size(),
                    listed: listed && !cold,
                    cold,
                    faults,
                }
            }
            // It was deleted meanwhile.
            Ok(None) => continue,
            Err(error) => damaged(id, error.into())?,
        };
        if context.format == Format::Table {
            print_text(&in_words(&found))?;
        }
        all.push(found);
    }
    told.details = serde_json::to_value(&all)?;
    if all.iter().all(|found| found.cold) {
        told.verdict = Some(Verdict::CouldNotRun);
        told.reason = "nothing was read: it must be thawed first".into();
    }
    if context.format == Format::Json {
        print_json(&all)?;
    }
    Ok(if all.iter().all(|found| found.sound) {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

async fn chosen_ids(cluster: &Cluster, args: &Args) -> anyhow::Result<Vec<DumpId>> {
    let mut ids = Vec::new();
    if args.ids.iter().any(|id| id == "all") {
        let complete = list(cluster, None).await?.complete;
        ids.extend(complete.into_iter().map(|dump| dump.id));
        if ids.is_empty() {
            let error = anyhow!("cluster \"{}\" has no dumps", cluster.layout.cluster());
            return Err(with_hint(error, "take one with `walden dump take`"));
        }
    } else {
        for id in &args.ids {
            ids.push(chosen::complete(cluster, id).await?.id);
        }
    }
    Ok(ids)
}

fn damaged(id: DumpId, error: anyhow::Error) -> anyhow::Result<VerifyOutput> {
    if !is_unusable(&error) {
        return Err(error);
    }
    let path = format!("{}.manifest.zst", id.name());
    let faults = vec![DumpFault {
        path,
        why: one_line(&error),
    }];
    Ok(VerifyOutput {
        id,
        sound: false,
        bytes: 0,
        listed: false,
        cold: false,
        faults,
    })
}

/// Programs that understand the dump; `None` where there are none, or nothing for them to read.
async fn programs(context: &Context, manifest: &DumpManifest) -> Option<Programs> {
    if manifest.format == DumpFormat::Plain {
        return None;
    }
    let digits: String = manifest
        .pg_dump_version
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let newest = *MajorVersion::SUPPORTED.end();
    let major = MajorVersion::new(digits.parse().unwrap_or(newest).min(newest)).ok()?;
    let found = Programs::find(&context.settings.dump, major).await;
    found
        .inspect_err(|error| tracing::warn!("only digests are checked: {}", one_line(error)))
        .ok()
}

fn in_words(found: &VerifyOutput) -> String {
    if found.cold {
        return format!(
            "dump {}: cold, not read: to read it, thaw it first\n",
            found.id
        );
    }
    if found.sound {
        let listed = if found.listed {
            ", and pg_restore lists it"
        } else {
            ""
        };
        return format!(
            "dump {}: sound, {} have their digests{listed}\n",
            found.id,
            bytes(found.bytes)
        );
    }
    let faults = found
        .faults
        .iter()
        .map(|fault| format!("DAMAGED {}: {}\n", fault.path, fault.why));
    format!("dump {}:\n{}", found.id, faults.collect::<String>())
}
