use std::collections::BTreeMap;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use crate::api::Dump;
use crate::error::one_line;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::{ListedDump, LoadedDump, list, read_all};
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::dump::proof;
use crate::postgres::dump::started::{self, DumpReservation, DumpStarted};
use crate::postgres::expiry::{KeptFor, kept_dumps};
use crate::postgres::layout::{DumpId, DumpKind, DumpObject};
use crate::repo::{ObjectError, is_unusable};
use crate::retention::{Policy, Tier};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only dumps of this database.
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
}

/// Whether a dump can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum DumpStatus {
    Complete,
    /// Its manifest is damaged.
    Damaged,
    /// The repository does not give its manifest.
    Unread,
    /// It is being taken, as far as is known.
    Running,
    /// Who took it is gone.
    Interrupted,
}

impl DumpStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Damaged => "DAMAGED",
            Self::Unread => "UNREAD",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A dump, for `--format json`.
#[derive(Debug, Serialize)]
struct ListedOutput {
    id: DumpId,
    database: String,
    kind: DumpKind,
    status: DumpStatus,
    /// When it began.
    time: DateTime<Utc>,
    age_hours: f64,
    /// Bytes of all its objects.
    stored_bytes: u64,
    /// When it was last proven by a restore.
    proven_at: Option<DateTime<Utc>>,
    /// The longest retention tier that keeps it.
    tier: Option<Tier>,
    /// A pin keeps it.
    pinned: bool,
    /// What its manifest says; absent where it has none that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    dump: Option<Dump>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Who takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<DumpStarted>,
}

/// Lists complete, damaged, unread and unfinished dumps.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let (kept, now) = (list(&cluster, args.database.as_deref()).await?, Utc::now());
    let mut listed = Vec::new();
    let complete = read_all(&cluster, kept.complete).await;
    let tiers = tiers(context, &cluster, &complete).await;
    for (dump, manifest) in complete {
        let found = look_at(&cluster, dump, manifest, now).await?;
        listed.extend(found.map(|dump| {
            let KeptFor { tier, pinned } = tiers.get(&dump.id).copied().unwrap_or_default();
            ListedOutput {
                tier,
                pinned,
                ..dump
            }
        }));
    }
    for dump in kept.unfinished {
        listed.push(look_at_unfinished(&cluster, dump, now).await?);
    }
    listed.sort_by(|a, b| (&a.database, a.time, &a.id).cmp(&(&b.database, b.time, &b.id)));
    match context.format {
        Format::Json => print_json(&serde_json::json!({ "dumps": listed }))?,
        Format::Table => print_text(&table(&listed))?,
    }
    let is_unusable =
        |dump: &ListedOutput| matches!(dump.status, DumpStatus::Damaged | DumpStatus::Unread);
    Ok(if listed.iter().any(is_unusable) {
        Exit::Unsound
    } else {
        Exit::Success
    })
}

/// What keeps each dump, as far as that can be known.
async fn tiers(
    context: &Context,
    cluster: &Cluster,
    complete: &[LoadedDump],
) -> BTreeMap<DumpId, KeptFor> {
    let known = complete.iter().filter_map(|(dump, manifest)| {
        let manifest = manifest.as_ref().ok()?.as_ref()?;
        Some((dump, manifest))
    });
    let kept = kept_dumps(cluster, &Policy::new(&context.settings), known).await;
    kept.unwrap_or_else(|error| {
        tracing::warn!(
            "which tiers keep the dumps is not known: {}",
            one_line(&error)
        );
        BTreeMap::new()
    })
}

async fn look_at(
    cluster: &Cluster,
    dump: ListedDump,
    manifest: Result<Option<DumpManifest>, ObjectError>,
    now: DateTime<Utc>,
) -> anyhow::Result<Option<ListedOutput>> {
    let (status, manifest, why) = match manifest {
        Ok(Some(manifest)) => (DumpStatus::Complete, Some(manifest), None),
        // It was deleted meanwhile.
        Ok(None) => return Ok(None),
        Err(error) => {
            let error = error.into();
            let status = if is_unusable(&error) {
                DumpStatus::Damaged
            } else {
                DumpStatus::Unread
            };
            (status, None, Some(one_line(&error)))
        }
    };
    let proof = match dump.has(&DumpObject::Proof) {
        true => proof::read(cluster, &dump.id).await?,
        false => None,
    };
    Ok(Some(ListedOutput {
        proven_at: proof.map(|proof| proof.proven_at),
        dump: manifest.as_ref().map(Dump::from),
        why,
        ..output(&dump, status, now)
    }))
}

async fn look_at_unfinished(
    cluster: &Cluster,
    dump: ListedDump,
    now: DateTime<Utc>,
) -> anyhow::Result<ListedOutput> {
    let abandoned =
        crate::postgres::dump::cleanup::is_abandoned(cluster, &dump, SystemTime::now()).await?;
    let status = if abandoned {
        DumpStatus::Interrupted
    } else {
        DumpStatus::Running
    };
    let started = match started::read(cluster, &dump.id).await? {
        DumpReservation::By(started) => Some(started),
        DumpReservation::None | DumpReservation::Unreadable => None,
    };
    Ok(ListedOutput {
        started,
        ..output(&dump, status, now)
    })
}

fn output(dump: &ListedDump, status: DumpStatus, now: DateTime<Utc>) -> ListedOutput {
    ListedOutput {
        id: dump.id.clone(),
        database: dump.id.database().to_string(),
        kind: dump.id.kind(),
        status,
        time: dump.id.time(),
        age_hours: (now - dump.id.time()).as_seconds_f64() / 3600.0,
        stored_bytes: dump.bytes(),
        proven_at: None,
        tier: None,
        pinned: false,
        dump: None,
        why: None,
        started: None,
    }
}

fn kept_for(dump: &ListedOutput) -> String {
    match (dump.tier, dump.pinned) {
        (Some(tier), true) => format!("{tier}, pinned"),
        (Some(tier), false) => tier.to_string(),
        (None, true) => "pinned".into(),
        (None, false) => "-".into(),
    }
}

fn table(listed: &[ListedOutput]) -> String {
    let mut table = Table::new(&[
        "ID", "KIND", "FORMAT", "STARTED", ">AGE", ">SIZE", ">TABLES", "TIER", "PROVEN", "STATUS",
    ]);
    for dump in listed {
        let of =
            |value: &dyn Fn(&Dump) -> String| dump.dump.as_ref().map(value).unwrap_or_default();
        let status = match (&dump.why, &dump.started) {
            (Some(why), _) => format!("{}: {why}", dump.status.as_str()),
            (None, Some(started)) => format!(
                "{}: process {} on \"{}\"",
                dump.status.as_str(),
                started.process.pid,
                started.process.host
            ),
            (None, None) => dump.status.as_str().into(),
        };
        table.row([
            dump.id.to_string(),
            dump.kind.as_str().into(),
            of(&|dump| dump.format.as_str().into()),
            dump.time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
            format!("{:.1} h", dump.age_hours),
            bytes(dump.stored_bytes),
            of(&|dump| dump.tables.to_string()),
            kept_for(dump),
            dump.proven_at.map_or("never".into(), |time| {
                time.format("%Y-%m-%d %H:%MZ").to_string()
            }),
            status,
        ]);
    }
    table.render()
}
