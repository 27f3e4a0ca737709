//! Where the dump of a round trip lies: below a folder of its own, so that nobody takes it for a dump of a database. It goes
//! with the round trip; what one that was killed left a later one or another drill removes.

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};

use crate::error::one_line;
use crate::postgres::backup::cleanup::{delete_all, sweep};
use crate::postgres::catalog::marks::round_trip_begun;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::layout::{DumpKind, DumpObject};
use crate::storage::{FEW_LINES, Key, Walk, get_all, list_all};

/// Nobody who is alive takes so long.
const OLD: TimeDelta = TimeDelta::days(1);

/// The cluster with the keys of round trips.
pub fn apart(cluster: &Cluster) -> Cluster {
    Cluster {
        layout: cluster.layout.of_round_trips(),
        ..cluster.clone()
    }
}

/// The databases of which something lies there.
pub async fn databases(apart: &Cluster) -> anyhow::Result<Vec<String>> {
    let folder = apart.layout.dumps_folder();
    let entries = list_all(apart.repository.storage(), &folder).await?;
    let names = entries.iter().map(|entry| entry.name());
    let names = names.filter_map(|name| apart.layout.parse_database_folder(name));
    // What Walden did not put there stays.
    Ok(names
        .filter(|name| round_trip_begun(name).is_some())
        .collect())
}

/// Removes all of a round trip.
pub async fn remove(apart: &Cluster, database: &str) -> anyhow::Result<()> {
    let storage = apart.repository.storage();
    for kind in DumpKind::ALL {
        let latest = apart.layout.latest_dump(database, kind);
        if storage.linked(&latest).await?.is_some() {
            storage.delete(&latest).await?;
        }
    }
    let mut walk = Walk::new(apart.layout.database_dumps_folder(database));
    let mut keys: Vec<Key> = Vec::new();
    while let Some(meta) = walk.next(storage).await? {
        keys.push(meta.key);
    }
    delete_all(apart, keys.iter()).await?;
    Ok(())
}

/// Removes what is so old that nobody works with it any more. That it cannot be is no reason to do nothing else.
pub async fn remove_old(cluster: &Cluster, now: DateTime<Utc>) {
    let apart = apart(cluster);
    sweep(&apart).await;
    let removed = async {
        for database in databases(&apart).await? {
            if is_old(&database, now) {
                remove(&apart, &database).await?;
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = removed.await {
        let why = one_line(&error);
        tracing::debug!("what a round trip left in the repository is not removed: {why}");
    }
}

fn is_old(database: &str, now: DateTime<Utc>) -> bool {
    round_trip_begun(database).is_some_and(|begun| now - begun > OLD)
}

/// Whether the file for `sha256sum -c` says what the manifest does. Errors: the store did not answer.
pub async fn has_checksums(apart: &Cluster, manifest: &DumpManifest) -> anyhow::Result<bool> {
    let object = DumpObject::Sha256(manifest.format);
    let key = apart.layout.dump(&manifest.id, &object);
    let text = get_all(apart.repository.storage(), &key, FEW_LINES).await;
    let text = text.with_context(|| format!("cannot read \"{key}\""))?;
    let objects = manifest.objects.iter();
    let lines = objects.map(|object| format!("{}  {}\n", object.sha256, object.path));
    Ok(text.is_some_and(|text| *text == *lines.collect::<String>().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::catalog::marks::round_trip_name;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::dump::list::list;
    use crate::postgres::dump::testing::{id, store};
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn a_round_trip_has_no_dump_of_the_operators_and_goes_alone() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let apart = apart(&cluster);
        let now = Utc::now();
        let (old, new) = (
            round_trip_name(now - TimeDelta::days(2), 1),
            round_trip_name(now, 2),
        );
        store(&cluster, &id("shop", "14:05:00", DumpKind::Full)).await;
        let found = list(&cluster, None).await.unwrap();
        for database in [&old, &new, &"mine".to_string()] {
            store(&apart, &id(database, "14:05:00", DumpKind::Full)).await;
        }
        assert_eq!(list(&cluster, None).await.unwrap(), found);
        assert_eq!(databases(&apart).await.unwrap(), [old, new.clone()]);
        remove_old(&cluster, now).await;
        assert_eq!(databases(&apart).await.unwrap(), [new.as_str()]);
        remove(&apart, &new).await.unwrap();
        let left = list(&apart, None).await.unwrap().complete;
        assert_eq!(left.len(), 1, "what Walden did not put there stays");
        assert_eq!(list(&cluster, None).await.unwrap(), found);
    }
}
