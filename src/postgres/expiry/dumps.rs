//! What keeps dumps, without a look at base backups and WAL.

use std::collections::BTreeMap;

use chrono::Utc;

use super::gather::{of_dump, pinned};
use crate::postgres::catalog::WalRanges;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::ListedDump;
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::layout::DumpId;
use crate::postgres::protection::pins;
use crate::retention::{Holdings, KeepReason, Policy, Tier, WalFacts, decide};

/// What keeps a dump for a time that somebody chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptFor {
    /// The longest tier of those that keep it.
    pub tier: Option<Tier>,
    pub pinned: bool,
}

impl KeptFor {
    fn of(reasons: &[KeepReason]) -> Self {
        let tiers = reasons.iter().filter_map(|reason| match reason {
            KeepReason::Tier { tier } => Some(*tier),
            _ => None,
        });
        Self {
            tier: tiers.max(),
            pinned: reasons
                .iter()
                .any(|reason| matches!(reason, KeepReason::Pin { .. })),
        }
    }
}

/// Decides of complete dumps; all of a database belong together. Errors: the store did not answer; a pin cannot be understood.
pub async fn kept_dumps<'a>(
    cluster: &Cluster,
    policy: &Policy,
    dumps: impl Iterator<Item = (&'a ListedDump, &'a DumpManifest)>,
) -> anyhow::Result<BTreeMap<DumpId, KeptFor>> {
    let ranges = WalRanges::new(cluster.description.segment_size);
    let mut ids = Vec::new();
    let items = dumps.map(|(dump, manifest)| {
        ids.push(dump.id.clone());
        of_dump(dump, manifest)
    });
    let holdings = Holdings {
        items: items.collect(),
        wal: WalFacts {
            ranges,
            histories: BTreeMap::new(),
            unread_histories: BTreeMap::new(),
        },
        pins: pins(cluster)
            .await?
            .into_iter()
            .map(pinned)
            .collect::<anyhow::Result<_>>()?,
        leases: Vec::new(),
        now: Utc::now(),
    };
    let plan = decide(&holdings, policy);
    let kept = ids.into_iter().zip(&holdings.items).map(|(id, item)| {
        let reasons = plan.item(&item.id).map(|decision| decision.reasons());
        (id, KeptFor::of(reasons.unwrap_or_default()))
    });
    Ok(kept.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::dump::list::{list, read_all};
    use crate::postgres::dump::testing::{id, store};
    use crate::postgres::layout::DumpKind;
    use crate::postgres::protection::{Needs, Pin, pin};
    use crate::retention::{Keep, KindPolicy, Tiers};
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn a_dump_is_kept_for_its_longest_tier_and_for_pins() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let times = ["13:05:00", "14:05:00", "14:45:00", "15:05:00"];
        let ids = times.map(|time| id("shop", time, DumpKind::Full));
        for id in &ids {
            store(&cluster, id).await;
        }
        let count = |count| Some(Keep::Count(count));
        let dump = KindPolicy {
            tiers: Tiers([count(2), count(1), None, None, None, None]),
            minimum: 1,
        };
        let policy = Policy {
            zone: chrono_tz::UTC,
            window: None,
            base: KindPolicy::default(),
            dump,
            schema: KindPolicy::default(),
        };
        let pinned = Pin {
            item: format!("dump:{}", ids[2]),
            reason: "audit".into(),
            until: None,
            made_at: Utc::now(),
            made_by: "test".into(),
        };
        pin(&cluster, &pinned, &Needs::default()).await.unwrap();
        let all = list(&cluster, Some("shop")).await.unwrap().complete;
        let all = read_all(&cluster, all).await;
        let all = all
            .iter()
            .map(|(dump, manifest)| (dump, manifest.as_ref().unwrap().as_ref().unwrap()));
        let kept = kept_dumps(&cluster, &policy, all).await.unwrap();
        let of = |at: usize| (kept[&ids[at]].tier, kept[&ids[at]].pinned);
        assert_eq!(of(0), (Some(Tier::Daily), false));
        assert_eq!(of(1), (Some(Tier::Hourly), false));
        assert_eq!(of(2), (None, true));
        assert_eq!(of(3), (Some(Tier::Hourly), false));
    }
}
