//! What there is of a cluster, as retention sees it: base backups, dumps, WAL, pins, and who reads right now.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use chrono::{DateTime, NaiveDateTime, Utc};

use crate::error::{one_line, with_hint};
use crate::postgres::backup::manifest;
use crate::postgres::catalog::{BackupDescription, Facts, IdleTimes, TimelinePath, WalRanges};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::{self, ListedDump};
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::layout::{BackupId, DumpKind, DumpObject};
use crate::postgres::load::{
    LoadedBackups, LoadedHistories, facts, load_backups, load_histories, load_wal,
};
use crate::postgres::protection::{self, Expiry, StoredLease, StoredPin, leases, pins};
use crate::postgres::types::WalFileName;
use crate::repo::is_unusable;
use crate::retention::{
    BackupWal, Condition, Holdings, Item, ItemId, ItemKind, Lease, LeasedWal, Needs, Pin, WalFacts,
    WalPlace,
};

/// What was read.
#[derive(Debug, Clone)]
pub struct Gathered {
    pub holdings: Holdings,
    /// For the planner of restores.
    pub facts: Facts,
    pub expiry: Expiry,
    /// Backups that an earlier deletion left objects of.
    pub leftovers: Vec<BackupId>,
    /// By their names.
    pub dumps: BTreeMap<String, ListedDump>,
    /// Dumps that an earlier deletion left objects of.
    pub dump_leftovers: Vec<ListedDump>,
    /// WAL files that go with the segment that they are named after.
    pub beside: Vec<WalFileName>,
}

/// Reads it. Leases count that are alive at `store_time`, by the store's clock. Errors: the store did not answer; a pin
/// cannot be understood, so what it keeps is not known.
pub async fn gather(cluster: &Cluster, store_time: SystemTime) -> anyhow::Result<Gathered> {
    let expiry = Expiry::load(cluster).await?;
    // Backups first: the WAL of one that was complete by then is in the listing that follows.
    let loaded = load_backups(cluster).await?;
    let wal = load_wal(cluster).await?;
    let histories = load_histories(cluster, &wal.histories).await?;
    let beside = wal.beside_segments();
    // What a deletion left is none any more.
    let (leftovers, unfinished): (Vec<BackupId>, Vec<BackupId>) = loaded
        .unfinished
        .iter()
        .cloned()
        .partition(|id| expiry.gone_backups.contains(id));
    let mut items = bases(cluster, &loaded, &histories, &wal.ranges).await?;
    let begun = |id| {
        let why = "it is being taken, or was interrupted".to_string();
        // A Walden that names packs of earlier backups registers that it does.
        unknown(id, why, Needs::Known(Vec::new()))
    };
    items.extend(unfinished.iter().map(begun));
    let listed = list::list(cluster, None).await?;
    let dumps = dumps(cluster, listed.complete, &mut items).await?;
    let mut dump_leftovers = listed.unfinished;
    // One that is being taken has a reservation.
    dump_leftovers.retain(|dump| {
        expiry.gone_dumps.contains(&dump.id.to_string()) && !dump.has(&DumpObject::Started)
    });
    let unread = histories.damaged.iter();
    let unread = unread.map(|(timeline, unusable)| (*timeline, unusable.why.clone()));
    let mut holdings = Holdings {
        items,
        wal: WalFacts {
            ranges: wal.ranges.clone(),
            histories: histories.known.clone(),
            unread_histories: unread.collect(),
        },
        pins: Vec::new(),
        leases: Vec::new(),
        now: Utc::now(),
    };
    protect(cluster, &mut holdings, store_time).await?;
    // The empty folder below an unmounted disk has nothing to keep, either.
    cluster.confirm().await?;
    let facts = facts(cluster, loaded, wal.ranges, histories, IdleTimes::default());
    Ok(Gathered {
        holdings,
        facts,
        expiry,
        leftovers,
        dumps,
        dump_leftovers,
        beside,
    })
}

/// Base backups with a manifest.
async fn bases(
    cluster: &Cluster,
    loaded: &LoadedBackups,
    histories: &LoadedHistories,
    ranges: &WalRanges,
) -> anyhow::Result<Vec<Item>> {
    let known = histories.known.values().cloned();
    let paths = TimelinePath::all(known, &loaded.complete, ranges);
    let mut items = Vec::new();
    for backup in loaded.complete.iter() {
        let needs = needs(cluster, backup).await?;
        items.push(item(backup, needs, &paths, ranges));
    }
    let unusable = loaded.unusable();
    items.extend(unusable.map(|(id, why)| unknown(id, why, Needs::Unknown)));
    Ok(items)
}

/// Adds complete dumps, and gives their objects.
async fn dumps(
    cluster: &Cluster,
    listed: Vec<ListedDump>,
    items: &mut Vec<Item>,
) -> anyhow::Result<BTreeMap<String, ListedDump>> {
    let mut dumps = BTreeMap::new();
    for (dump, manifest) in list::read_all(cluster, listed).await {
        let item = match manifest.map_err(anyhow::Error::from) {
            Ok(Some(manifest)) => of_dump(&dump, &manifest),
            Ok(None) => continue,
            Err(error) if is_unusable(&error) => unknown_dump(&dump, one_line(&error)),
            Err(error) => return Err(error),
        };
        dumps.insert(item.id.name.clone(), dump);
        items.push(item);
    }
    Ok(dumps)
}

/// Reads what operators and readers keep. Errors: the store did not answer; a pin cannot be understood.
pub async fn protect(
    cluster: &Cluster,
    holdings: &mut Holdings,
    store_time: SystemTime,
) -> anyhow::Result<()> {
    holdings.pins = pins(cluster)
        .await?
        .into_iter()
        .map(pinned)
        .collect::<anyhow::Result<_>>()?;
    let live = leases(cluster).await?.into_iter();
    let live = live.filter(|lease| lease.is_live(store_time) && lease.deletion().is_none());
    holdings.leases = live.map(|stored| leased(&stored, holdings)).collect();
    Ok(())
}

/// A pin in retention's words.
pub(super) fn pinned(stored: StoredPin) -> anyhow::Result<Pin> {
    let id = stored.id.to_string();
    let pin = stored.content.map_err(|why| {
        let error =
            anyhow!("pin \"{id}\" cannot be understood, so what it keeps is not known: {why}");
        let hint =
            format!("upgrade Walden on this host, or take it away: `walden retention unpin {id}`");
        with_hint(error, hint)
    })?;
    let item = pin
        .item
        .parse()
        .with_context(|| format!("pin \"{id}\" names no item"))?;
    Ok(Pin {
        id,
        item,
        reason: pin.reason,
        expires: pin.until,
    })
}

/// A lease in retention's words. WAL of one timeline is a path that leads to it.
fn leased(stored: &StoredLease, holdings: &Holdings) -> Lease {
    let (needs, size) = (stored.needs(), holdings.wal.ranges.segment_size());
    let base = |id: &BackupId| ItemId::new(ItemKind::Base, id);
    let is_needed = |item: &&Item| match item.id.kind {
        ItemKind::Base => needs.backups.iter().any(|id| base(id) == item.id),
        ItemKind::Dump | ItemKind::Schema => needs.dumps.contains(&item.id.name),
    };
    let items = holdings.items.iter();
    let items = items.filter(|item| needs.everything || is_needed(item));
    let spans = needs.wal.iter().map(|span| LeasedWal {
        timeline: span.timeline(),
        from: span.first.start(size),
        until: Some(span.last.end(size)),
    });
    let from = needs.wal_from.iter().map(|first| LeasedWal {
        timeline: first.timeline,
        from: first.start(size),
        until: None,
    });
    let all = holdings.wal.ranges.iter().filter(|_| needs.everything);
    let all = all.map(|range| LeasedWal {
        timeline: range.timeline(),
        from: range.first.start(size),
        until: Some(range.last.end(size)),
    });
    Lease {
        id: stored.id.to_string(),
        holder: stored.holder().to_string(),
        items: items.map(|item| item.id.clone()).collect(),
        wal: spans.chain(from).chain(all).collect(),
    }
}

/// The backups whose packs a backup names.
async fn needs(cluster: &Cluster, backup: &BackupDescription) -> anyhow::Result<Needs> {
    let item = |id: &BackupId| ItemId::new(ItemKind::Base, id);
    if let Some(earlier) = &backup.earlier_backups {
        return Ok(Needs::Known(earlier.iter().map(item).collect()));
    }
    let key = cluster.layout.manifest(&backup.id);
    let read = cluster
        .repository
        .get_verified(&key, manifest::KIND, manifest::LONGEST)
        .await;
    let object = match read.map_err(anyhow::Error::from) {
        Ok(Some(object)) => object,
        Err(error) if !is_unusable(&error) => return Err(error),
        _ => return Ok(Needs::Unknown),
    };
    let scan = tokio::task::spawn_blocking(move || manifest::needed_packs(&object)).await;
    match scan.context("the thread that reads a manifest failed")? {
        Ok(packs) => {
            let mut earlier: Vec<ItemId> = packs.keys().map(|pack| item(&pack.backup)).collect();
            earlier.dedup();
            earlier.retain(|earlier| *earlier != item(&backup.id));
            Ok(Needs::Known(earlier))
        }
        Err(_) => Ok(Needs::Unknown),
    }
}

/// Whether a backup can be restored.
fn condition(backup: &BackupDescription, paths: &[TimelinePath], ranges: &WalRanges) -> Condition {
    let mut carrying = paths.iter().filter(|path| path.carries(backup)).peekable();
    match (backup.left_out.first(), backup.checksum_failures.len()) {
        (Some(part), _) => Condition::Bad(format!("lacks \"{part}\"")),
        (None, 1..) => Condition::Bad("has page checksum failures".into()),
        _ if carrying.peek().is_none() => {
            Condition::Unknown("where its timeline comes from is not known".into())
        }
        _ if carrying.all(|path| path.moments(ranges, backup).is_none()) => {
            Condition::Bad("lacks WAL without which it does not become consistent".into())
        }
        _ => Condition::Good,
    }
}

fn item(
    backup: &BackupDescription,
    needs: Needs,
    paths: &[TimelinePath],
    ranges: &WalRanges,
) -> Item {
    let condition = condition(backup, paths, ranges);
    let place = |timeline, lsn| WalPlace { timeline, lsn };
    Item {
        id: ItemId::new(ItemKind::Base, &backup.id),
        series: String::new(),
        began: backup.started_at,
        time: backup.stopped_at,
        size: backup.stored_bytes,
        condition,
        wal: Some(BackupWal {
            start: place(backup.timeline, backup.start_lsn),
            stop: place(backup.stop_timeline, backup.stop_lsn),
        }),
        snapshot: None,
        needs,
    }
}

/// A dump as an item.
pub(super) fn of_dump(dump: &ListedDump, manifest: &DumpManifest) -> Item {
    let mut series = dump.id.database().to_string();
    if manifest.kind == DumpKind::Data {
        series += " (data)";
    }
    if manifest.options.is_partial() {
        let (tables, left_out) = (&manifest.options.tables, &manifest.options.exclude_tables);
        series += &format!(" (tables {tables:?} without {left_out:?})");
    }
    Item {
        series,
        began: manifest.started_at,
        time: manifest.snapshot.time,
        condition: Condition::Good,
        ..unknown_dump(dump, String::new())
    }
}

/// A dump of which little is known but its name, which holds a time.
fn unknown_dump(dump: &ListedDump, why: String) -> Item {
    let kind = match dump.id.kind() {
        DumpKind::Schema => ItemKind::Schema,
        DumpKind::Full | DumpKind::Data => ItemKind::Dump,
    };
    Item {
        id: ItemId::new(kind, &dump.id),
        series: dump.id.database().to_string(),
        began: dump.id.time(),
        time: dump.id.time(),
        size: dump.bytes(),
        condition: Condition::Unknown(why),
        wal: None,
        snapshot: None,
        needs: Needs::Known(Vec::new()),
    }
}

/// A backup of which little is known but its name, which is a time.
fn unknown(id: &BackupId, why: String, needs: Needs) -> Item {
    let name = id.to_string();
    let began = NaiveDateTime::parse_from_str(&name, "%Y%m%d-%H%M%SZ");
    let began = began.map_or(DateTime::UNIX_EPOCH, |time| time.and_utc());
    Item {
        id: ItemId::new(ItemKind::Base, name),
        series: String::new(),
        began,
        time: began,
        size: 0,
        condition: Condition::Unknown(why),
        wal: None,
        snapshot: None,
        needs,
    }
}

/// The needs of a lease or a record that name these items and this WAL.
pub fn as_needs(deletions: &crate::retention::Deletions) -> protection::Needs {
    let mut needs = protection::Needs {
        wal: deletions.wal.clone(),
        ..protection::Needs::default()
    };
    for item in &deletions.items {
        match (item.kind, item.name.parse()) {
            (ItemKind::Base, Ok(id)) => drop(needs.backups.insert(id)),
            (ItemKind::Base, Err(_)) => (),
            (ItemKind::Dump | ItemKind::Schema, _) => drop(needs.dumps.insert(item.name.clone())),
        }
    }
    needs
}
