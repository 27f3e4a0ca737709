//! Pins: an operator's word that something is kept, with a reason and perhaps an end.

use anyhow::{anyhow, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::content::{get, list, put};
use super::lease::leases;
use super::needs::Needs;
use super::record::find_intent;
use crate::error::{Hint, with_hint};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{ObjectKind, TimedId};
use crate::storage::{PutMode, StorageError};

/// What a pin says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// A backup or a dump, as their lists name them.
    pub item: String,
    pub reason: String,
    /// Until when; absent: until it is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    pub made_at: DateTime<Utc>,
    /// Host and process, for people.
    pub made_by: String,
}

/// A pin as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPin {
    pub id: TimedId,
    /// Why it cannot be understood; it keeps everything then.
    pub content: Result<Pin, String>,
}

/// All pins. Errors: the store did not answer.
pub async fn pins(cluster: &Cluster) -> Result<Vec<StoredPin>, StorageError> {
    let mut all = Vec::new();
    for meta in list(cluster, cluster.layout.pins_folder()).await? {
        let Some(ObjectKind::Pin(id)) = cluster.object_kind(&meta.key) else {
            continue;
        };
        if let Some(content) = get(cluster, &meta.key).await? {
            all.push(StoredPin { id, content });
        }
    }
    Ok(all)
}

/// Whoever pinned a backup or a dump said why it stays: it is refused to delete it by hand. A pin that cannot be understood
/// keeps everything. `name`: as their lists name them.
pub async fn refuse_pinned(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let now = Utc::now();
    for pin in pins(cluster).await? {
        let why = match &pin.content {
            Ok(pin) if pin.until.is_some_and(|until| until < now) => continue,
            Ok(pin)
                if pin
                    .item
                    .split_once(':')
                    .is_none_or(|(_, item)| item != name) =>
            {
                continue;
            }
            Ok(pin) => format!("\"{name}\" is pinned: {:?}", pin.reason),
            Err(why) => format!("pin \"{}\" cannot be understood: {why}", pin.id),
        };
        let hint = format!("take the pin away: `walden retention unpin {}`", pin.id);
        return Err(with_hint(anyhow!(why), hint));
    }
    Ok(())
}

/// Stores a pin of what `needs` tells. Errors: it is being deleted, or the store's.
pub async fn pin(cluster: &Cluster, pin: &Pin, needs: &Needs) -> anyhow::Result<TimedId> {
    let id = TimedId::new(pin.made_at, getrandom::u32()?);
    let key = cluster.layout.pin(&id);
    let taken = !put(cluster, &key, pin, PutMode::CreateOnly).await?;
    anyhow::ensure!(!taken, "object \"{key}\" is there already");
    // Whoever begins to delete later sees the pin.
    let now = super::content::stored_at(cluster, &key).await?;
    for other in leases(cluster).await? {
        let is_live = now.is_none_or(|now| other.is_live(now));
        let Some(number) = other.deletion().filter(|_| is_live) else {
            continue;
        };
        let hit = match find_intent(cluster, number).await? {
            Some(Ok(intent)) => intent.deletes.common(needs).is_some(),
            Some(Err(_)) => true,
            None => false,
        };
        if hit {
            cluster.repository.storage().delete(&key).await?;
            let deleting = format!("\"{}\" is being deleted by {}", pin.item, other.holder());
            return Err(anyhow::anyhow!(deleting)).hint("too late: nothing was pinned");
        }
    }
    Ok(id)
}

/// Takes away the pin of that name, or all of an item; which they were. Errors: there is none, or the store's.
pub async fn unpin(cluster: &Cluster, which: &str) -> anyhow::Result<Vec<StoredPin>> {
    let is_meant = |pin: &StoredPin| {
        let of_item = |content: &Pin| content.item == which;
        pin.id.to_string() == which || pin.content.as_ref().is_ok_and(of_item)
    };
    let mut found = pins(cluster).await?;
    found.retain(is_meant);
    if found.is_empty() {
        bail!("there is no pin \"{which}\", and none of an item of that name");
    }
    for pin in &found {
        cluster
            .repository
            .storage()
            .delete(&cluster.layout.pin(&pin.id))
            .await?;
    }
    Ok(found)
}
