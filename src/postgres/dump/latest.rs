//! `<database>_latest`: names the newest complete dump, for whoever looks without Walden.

use super::list::{ListedDump, list};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpFormat, DumpId, DumpKind, DumpObject};

/// Dumps that may come while it is set, until it is left to those.
const TRIES: u32 = 5;

/// Makes it name the newest complete dump but those in `going`; removes it when there is none. Who sets it looks again behind
/// its own change, so the last one of several has seen the dumps of all others.
pub async fn update(
    cluster: &Cluster,
    database: &str,
    kind: DumpKind,
    going: &[DumpId],
) -> anyhow::Result<()> {
    let (storage, key) = (
        cluster.repository.storage(),
        cluster.layout.latest_dump(database, kind),
    );
    let mut named = storage.linked(&key).await?;
    for _ in 0..TRIES {
        let mut kept = list(cluster, Some(database)).await?;
        kept.complete.retain(|dump| !going.contains(&dump.id));
        let wanted = kept.latest(database, kind).and_then(content);
        if wanted == named {
            return Ok(());
        }
        match &wanted {
            Some(beside) => storage.link(&key, beside).await?,
            None => storage.delete(&key).await?,
        }
        named = wanted;
    }
    Ok(())
}

/// The file or folder with a dump's content.
fn content(dump: &ListedDump) -> Option<String> {
    let format = dump.objects.iter().find_map(|(object, _)| match object {
        DumpObject::Whole(format) => Some(*format),
        DumpObject::Member(_) => Some(DumpFormat::Directory),
        _ => None,
    })?;
    Some(dump.id.name().file(format))
}
