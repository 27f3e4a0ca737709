//! What a copy brings, and what it leaves alone: from one small cluster in memory into another repository.

mod damaged;
mod dumps;
mod interrupted;
mod retention;
mod whole;

use std::sync::Arc;

use chrono::DateTime;

use super::*;
use crate::postgres::dump::list::read_all;
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back::check;
use crate::postgres::dump::testing::{id, store};
use crate::postgres::layout::DumpKind;
use crate::postgres::protection::leases;
use crate::postgres::repository::testing::{FIRST, SECOND, content, damage, example};
use crate::postgres::repository::verify::{VerifyScope, verify};
use crate::storage::{Key, MemoryStorage, PutMode};

const PACK: &str = "main/base/20260101-000000Z/pack-000002";
const SEGMENT_5: &str = "main/wal/0000000100000000/000000010000000000000005.zst";

fn options() -> CopyOptions {
    // Less than two packs: they go one by one.
    CopyOptions {
        backup: None,
        workers: 3,
        memory: 1 << 16,
    }
}

async fn copied(
    source: &Cluster,
    to: Arc<dyn Storage>,
    options: &CopyOptions,
) -> anyhow::Result<Copied> {
    let destination = open_destination(source, to, DateTime::UNIX_EPOCH).await?.0;
    copy(source, &destination, options, Arc::default()).await
}

async fn open_again(storage: &Arc<MemoryStorage>) -> Cluster {
    let repository = Repository::open(storage.clone()).await.unwrap();
    Cluster::open(repository, "main".parse().unwrap())
        .await
        .unwrap()
}

/// What makes a backup that is there one that can be restored.
async fn assert_backups_whole(storage: Arc<dyn Storage>) {
    let Ok(repository) = Repository::open(storage.clone()).await else {
        return;
    };
    let Ok(cluster) = Cluster::open(repository, "main".parse().unwrap()).await else {
        return;
    };
    for backup in load_backups(&cluster).await.unwrap().complete.iter() {
        let verified = verify(&cluster, VerifyScope::Backup(backup.id.clone()), 1)
            .await
            .unwrap();
        assert!(verified.is_sound(), "{verified:?}");
    }
    for (dump, manifest) in read_all(&cluster, list(&cluster, None).await.unwrap().complete).await {
        let (manifest, progress) = (manifest.unwrap().unwrap(), DumpProgress::default());
        let faults = check(&cluster, &manifest, None, &progress).await.unwrap();
        assert!(faults.is_empty(), "{}: {faults:?}", dump.id);
    }
}

fn problems(copied: &Copied) -> Vec<(CopySide, ProblemKind, &str)> {
    copied
        .failures
        .iter()
        .map(|failure| (failure.at, failure.problem, failure.object.as_str()))
        .collect()
}
