//! What either side let go on purpose: a copy does not bring it back, and tells the destination why it is not there.

use super::proof::Snapshot;
use crate::error::find;
use crate::postgres::catalog::{ExpiredWal, WalRanges, without};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::ListedDump;
use crate::postgres::load::{load_backups, load_wal};
use crate::postgres::protection::{Deletion, Expiry, ExpiryOutcome, OtherDeletion};
use crate::postgres::types::WalFileName;

/// What the destination's own retention deleted and that is not there again.
#[derive(Debug, Default)]
pub struct LetGo(Option<(Expiry, WalRanges)>);

impl LetGo {
    /// Reads it. Errors: the store did not answer.
    pub async fn load(destination: &Cluster) -> anyhow::Result<Self> {
        let expiry = Expiry::load(destination).await?;
        if expiry == Expiry::default() {
            return Ok(Self::default());
        }
        Ok(Self(Some((expiry, load_wal(destination).await?.ranges))))
    }

    /// Whether a WAL file, or the segment that it is named after, is of that.
    pub fn has(&self, name: &WalFileName) -> bool {
        let segment = match name {
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::Backup { segment, .. }
            | WalFileName::Aside { segment, .. } => *segment,
            WalFileName::History(_) => return false,
        };
        self.0.as_ref().is_some_and(|(expiry, there)| {
            expiry.expired.contains(segment) && !there.contains(segment)
        })
    }

    /// The dumps that it did not delete.
    pub fn others(&self, mut dumps: Vec<ListedDump>) -> Vec<ListedDump> {
        if let Some((expiry, _)) = &self.0 {
            dumps.retain(|dump| !expiry.gone_dumps.contains(&dump.id.to_string()));
        }
        dumps
    }

    /// Takes it out of what is to be copied.
    pub fn forget_in(&self, before: &mut Snapshot) {
        let Some((expiry, there)) = &self.0 else {
            return;
        };
        before
            .backups
            .retain(|backup| !expiry.gone_backups.contains(&backup.id));
        let wal = &mut before.wal;
        let size = wal.ranges.segment_size();
        let spans = without(expiry.expired.spans().to_vec(), &there.spans(), size);
        wal.ranges = wal.ranges.without(&spans);
        wal.partials
            .retain(|segment| !self.has(&WalFileName::Partial(*segment)));
        wal.backup_files.retain(|(segment, offset)| {
            let (segment, offset) = (*segment, *offset);
            !self.has(&WalFileName::Backup { segment, offset })
        });
        wal.aside.retain(|name| !self.has(name));
    }
}

/// Notes at the destination what the source let go and the destination does not have either. Errors: the store did not
/// answer.
pub async fn note(destination: &Cluster, source: &ExpiredWal) -> anyhow::Result<()> {
    if source.spans().is_empty() || to_note(destination, source).await?.is_none() {
        return Ok(());
    }
    let deletion = match Deletion::begin(destination).await {
        Ok(deletion) => deletion,
        // The next copy tells it.
        Err(error) if find::<OtherDeletion>(&error).is_some() => return Ok(()),
        Err(error) => return Err(error),
    };
    // Nobody else writes records now.
    match deletion.while_held(to_note(destination, source)).await {
        Ok(Some(outcome)) => deletion.tell(&outcome).await,
        Ok(None) => deletion.end(None).await,
        Err(error) => deletion.end(None).await.and(Err(error)),
    }
}

async fn to_note(
    destination: &Cluster,
    source: &ExpiredWal,
) -> anyhow::Result<Option<ExpiryOutcome>> {
    let ranges = load_wal(destination).await?.ranges;
    let mut expiry = Expiry::load(destination).await?;
    let size = ranges.segment_size();
    let known = [expiry.expired.spans(), &ranges.spans()].concat();
    let new = without(source.spans().to_vec(), &known, size);
    if new.is_empty() {
        return Ok(None);
    }
    expiry.expired = ExpiredWal::new([expiry.expired.spans(), &new].concat(), size);
    let backups = load_backups(destination).await?.complete;
    let there = backups.iter().map(|backup| &backup.id);
    Ok(Some(expiry.outcome(Default::default(), &ranges, there)))
}
