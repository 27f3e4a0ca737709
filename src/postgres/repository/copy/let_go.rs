//! What either side let go on purpose: a copy does not bring it back, and tells the destination why it is not there.

use chrono::Utc;

use super::proof::Snapshot;
use crate::postgres::catalog::{ExpiredWal, WalRanges, without};
use crate::postgres::cluster::Cluster;
use crate::postgres::load::load_wal;
use crate::postgres::protection::{Expiry, ExpiryOutcome, put_outcome};
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
    let size = destination.description.segment_size;
    if source.spans().is_empty() {
        return Ok(());
    }
    let ranges = load_wal(destination).await?.ranges;
    let expiry = Expiry::load(destination).await?;
    let known = [expiry.expired.spans(), &ranges.spans()].concat();
    let new = without(source.spans().to_vec(), &known, size);
    if new.is_empty() {
        return Ok(());
    }
    let spans = [expiry.expired.spans(), &new].concat();
    let outcome = ExpiryOutcome {
        ended_at: Utc::now(),
        expired: ExpiredWal::new(spans, size).spans().to_vec(),
        gone_backups: expiry.gone_backups,
        ..ExpiryOutcome::default()
    };
    // Where another one took the number the next copy tells it.
    put_outcome(destination, expiry.numbers.next(), &outcome).await?;
    Ok(())
}
