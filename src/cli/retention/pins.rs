use std::time::SystemTime;

use anyhow::{anyhow, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::{Context, Exit, Format, Table, print_json, print_text};
use crate::error::{Hint, with_hint};
use crate::postgres::catalog::{parse_time, postgresql_time};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::manifest;
use crate::postgres::layout::{BackupId, DumpId, DumpKind};
use crate::postgres::load::load_backups;
use crate::postgres::protection::{
    LeaseContent, LeaseKind, Needs, Pin, StoredLease, StoredPin, leases, pins, take_lease,
    unpin as take_away,
};
use crate::retention::{ItemId, ItemKind};

#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// A backup as `walden backup list` names it, or a dump as `walden dump list` does.
    #[arg(value_name = "ITEM")]
    item: String,
    /// Why it is kept.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Until when; else until it is taken away. Such as 2027-01-31 or 'in 90 days'.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct UnpinArgs {
    /// The pin, as `walden retention pins` names it; or its item: then all its pins go. Or a lease that nobody holds any
    /// more, as after a clock was wrong.
    #[arg(value_name = "PIN")]
    which: String,
    /// Take away also a lease that still counts. You know that its holder is gone, and that no restored server needs it.
    #[arg(long)]
    force: bool,
}

/// Pins an item that is there.
pub async fn pin(context: &Context, args: &PinArgs) -> anyhow::Result<Exit> {
    if args.reason.trim().is_empty() {
        bail!("a pin needs a reason: --reason is empty");
    }
    let until = args.until.as_deref().map(until).transpose()?;
    let cluster = context.cluster().await?;
    let (item, needs) = find(&cluster, &args.item).await?;
    let made = Pin {
        item: item.to_string(),
        reason: args.reason.clone(),
        until,
        made_at: Utc::now(),
        made_by: LeaseContent::own(LeaseKind::Other, Needs::default(), Default::default()).holder,
    };
    let id = crate::postgres::protection::pin(&cluster, &made, &needs).await?;
    let stored = StoredPin {
        id,
        content: Ok(made),
    };
    let pin = PinOutput::from(&stored);
    match context.format {
        Format::Json => print_json(&pin)?,
        Format::Table => print_text(&format!("pinned {item}{}: {}\n", pin.until_words(), pin.id))?,
    }
    Ok(Exit::Success)
}

fn until(text: &str) -> anyhow::Result<DateTime<Utc>> {
    let days = text.strip_prefix("in ").and_then(|rest| {
        let days: i64 = rest.trim().strip_suffix("days")?.trim().parse().ok()?;
        Utc::now().checked_add_signed(chrono::TimeDelta::try_days(days)?)
    });
    if let Some(until) = days {
        return Ok(until);
    }
    let now = Utc::now();
    let day = format!("{text} 00:00");
    let found = parse_time(text, now).or_else(|_| parse_time(&day, now));
    match found {
        Ok((until, _)) if until > now => Ok(until),
        Ok(_) => Err(anyhow!("--until \"{text}\" is over")),
        Err(why) => Err(why).hint("write a day such as 2027-01-31, or a span such as 'in 90 days'"),
    }
}

/// The item of that name, and what keeping it means. Errors: there is none.
async fn find(cluster: &Cluster, text: &str) -> anyhow::Result<(ItemId, Needs)> {
    let name = text
        .parse()
        .map_or(text.to_string(), |item: ItemId| item.name);
    let none = || {
        let error = anyhow!("there is no backup or dump \"{text}\"");
        let hint = "`walden backup list` and `walden dump list` show all";
        with_hint(error, hint)
    };
    if let Ok(id) = name.parse::<BackupId>() {
        let loaded = load_backups(cluster).await?;
        let complete = loaded.complete.iter().map(|backup| &backup.id);
        let there = complete.chain(loaded.unusable().map(|(id, _)| id).collect::<Vec<_>>());
        if !there.into_iter().any(|other| *other == id) {
            return Err(none());
        }
        let needs = Needs {
            backups: [id.clone()].into(),
            ..Needs::default()
        };
        return Ok((ItemId::new(ItemKind::Base, &id), needs));
    }
    let id: DumpId = name.parse().map_err(|_| none())?;
    if manifest::read(cluster, &id).await?.is_none() {
        return Err(none());
    }
    let kind = match id.kind() {
        DumpKind::Schema => ItemKind::Schema,
        DumpKind::Full | DumpKind::Data => ItemKind::Dump,
    };
    Ok((ItemId::new(kind, &id), Needs::dump(&id.to_string())))
}

/// Takes pins away.
pub async fn unpin(context: &Context, args: &UnpinArgs) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let mut which = args.which.clone();
    // Lists name items without their kind.
    if which.parse::<BackupId>().is_ok() {
        which = ItemId::new(ItemKind::Base, which).to_string();
    } else if let Ok(id) = which.parse::<DumpId>() {
        let kind = match id.kind() {
            DumpKind::Schema => ItemKind::Schema,
            DumpKind::Full | DumpKind::Data => ItemKind::Dump,
        };
        which = ItemId::new(kind, which).to_string();
    }
    if let Some(lease) = take_lease(&cluster, &which, args.force).await? {
        match context.format {
            Format::Json => print_json(&[LeaseOutput::from(&lease)])?,
            Format::Table => print_text(&format!("took away lease {which}\n"))?,
        }
        return Ok(Exit::Success);
    }
    let gone = take_away(&cluster, &which)
        .await
        .hint("`walden retention pins` lists all")?;
    let gone: Vec<PinOutput> = gone.iter().map(PinOutput::from).collect();
    match context.format {
        Format::Json => print_json(&gone)?,
        Format::Table => {
            let line =
                |pin: &PinOutput| format!("unpinned {}\n", pin.item.as_deref().unwrap_or(&pin.id));
            print_text(&gone.iter().map(line).collect::<String>())?;
        }
    }
    Ok(Exit::Success)
}

/// A pin, as JSON names it.
#[derive(Debug, Serialize)]
struct PinOutput {
    id: String,
    item: Option<String>,
    reason: Option<String>,
    until: Option<DateTime<Utc>>,
    made_at: Option<DateTime<Utc>>,
    made_by: Option<String>,
    /// Why it cannot be understood: nothing is deleted then.
    problem: Option<String>,
}

impl From<&StoredPin> for PinOutput {
    fn from(stored: &StoredPin) -> Self {
        let pin = stored.content.as_ref().ok();
        Self {
            id: stored.id.to_string(),
            item: pin.map(|pin| pin.item.clone()),
            reason: pin.map(|pin| pin.reason.clone()),
            until: pin.and_then(|pin| pin.until),
            made_at: pin.map(|pin| pin.made_at),
            made_by: pin.map(|pin| pin.made_by.clone()),
            problem: stored.content.as_ref().err().cloned(),
        }
    }
}

impl PinOutput {
    fn until_words(&self) -> String {
        let words = |until| format!(" until {}", postgresql_time(until));
        self.until.map(words).unwrap_or_default()
    }
}

/// A lease, as JSON names it.
#[derive(Debug, Serialize)]
struct LeaseOutput {
    id: String,
    holder: String,
    kind: Option<LeaseKind>,
    /// Unless it is renewed, by the store's clock.
    until: DateTime<Utc>,
    /// A restored server needs it, and nobody renews it.
    left: bool,
    needs: Needs,
}

impl From<&StoredLease> for LeaseOutput {
    fn from(stored: &StoredLease) -> Self {
        Self {
            id: stored.id.to_string(),
            holder: stored.holder().to_string(),
            kind: stored.content.as_ref().ok().map(|content| content.kind),
            until: stored.ends().into(),
            left: stored.is_left(),
            needs: stored.needs(),
        }
    }
}

#[derive(Debug, Serialize)]
struct PinsOutput {
    pins: Vec<PinOutput>,
    leases: Vec<LeaseOutput>,
}

/// Lists what is kept by hand, and by whoever reads now.
pub async fn list(context: &Context) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let pins = pins(&cluster).await?;
    let mut leases = leases(&cluster).await?;
    leases.retain(|lease| lease.is_live(SystemTime::now()));
    let output = PinsOutput {
        pins: pins.iter().map(PinOutput::from).collect(),
        leases: leases.iter().map(LeaseOutput::from).collect(),
    };
    match context.format {
        Format::Json => print_json(&output)?,
        Format::Table => print_text(&in_words(&output))?,
    }
    Ok(Exit::Success)
}

fn in_words(output: &PinsOutput) -> String {
    let mut text = String::new();
    if output.pins.is_empty() {
        text += "nothing is pinned\n";
    } else {
        let mut table = Table::new(&["PIN", "ITEM", "UNTIL", "REASON"]);
        for pin in &output.pins {
            let until = pin.until.map_or("unpinned".into(), postgresql_time);
            let reason = pin.reason.clone().or(pin.problem.clone());
            let item = pin.item.clone().unwrap_or("not understood".into());
            table.row([pin.id.clone(), item, until, reason.unwrap_or_default()]);
        }
        text += &table.render();
    }
    for lease in &output.leases {
        let until = postgresql_time(lease.until);
        let (id, holder) = (&lease.id, &lease.holder);
        text += &match lease.left {
            true => format!("lease {id}: needed by a restored server until {until}\n"),
            false => format!("lease {id}: in use by {holder}, unless renewed until {until}\n"),
        };
    }
    text
}
