use std::sync::Arc;

use chrono::DateTime;

use super::*;
use crate::postgres::archive::testing::cluster_in;
use crate::retention::{ItemDecision, KeepReason, Tier, Verdict};
use crate::storage::classes::ThawSpeed;
use crate::storage::freezing::FreezingStorage;
use crate::storage::{Key, MemoryStorage, PutMode};

const ORDER: ThawOrder = ThawOrder {
    days: 1,
    speed: ThawSpeed::Bulk,
};
const BACKUP: &str = "20260101-000000Z";

fn kept(id: ItemId, reason: KeepReason) -> ItemDecision {
    ItemDecision {
        id,
        series: String::new(),
        time: DateTime::UNIX_EPOCH,
        size: 1,
        verdict: Verdict::Keep(vec![reason]),
    }
}

fn plan(reason: &KeepReason) -> Plan {
    let dump = ItemId::new(ItemKind::Dump, "shop/shop_20260101_000000");
    Plan {
        references: Vec::new(),
        items: vec![
            kept(ItemId::new(ItemKind::Base, BACKUP), reason.clone()),
            kept(dump, reason.clone()),
        ],
        wal: Vec::new(),
        warnings: Vec::new(),
    }
}

#[tokio::test]
async fn the_bulk_of_an_item_moves_and_what_it_is_found_by_stays() {
    let storage = Arc::new(FreezingStorage::new(Arc::new(MemoryStorage::default()), 0));
    let cluster = cluster_in(storage.clone()).await;
    let bulk = [
        "main/base/20260101-000000Z/pack-000001",
        "main/dumps/shop/shop_20260101_000000.dump",
    ];
    let others = [
        "main/base/20260101-000000Z/manifest.zst",
        "main/dumps/shop/shop_20260101_000000.dump.sha256",
        "main/dumps/shop/shop_20260101_000000.manifest.zst",
        "main/dumps/shop/shop_20260102_000000.dump",
    ];
    for name in bulk.iter().chain(&others) {
        let body = vec![0; 1 << 20].into();
        let key = Key::new(*name).unwrap();
        let put = storage.put(&key, body, PutMode::CreateOnly).await;
        let _ = put.unwrap();
    }
    let class = async |name: &str| {
        let head = storage.head(&Key::new(name).unwrap()).await.unwrap();
        head.unwrap().class.unwrap()
    };
    let mut classes = Classes::default();
    classes.base.tiers[2] = Some("GLACIER".into());
    classes.dump.tiers[2] = Some("DEEP_ARCHIVE".into());
    let weekly = plan(&KeepReason::Tier { tier: Tier::Weekly });
    let run = async |plan: &Plan| promote(&cluster, plan, &classes, ORDER).await.unwrap();
    let done = run(&weekly).await;
    assert_eq!((done.objects, done.bytes), (2, 2 << 20), "{done:?}");
    assert_eq!(class(bulk[0]).await, "GLACIER");
    assert_eq!(class(bulk[1]).await, "DEEP_ARCHIVE");
    for name in others {
        assert_eq!(class(name).await, "STANDARD", "{name}");
    }
    assert_eq!(run(&weekly).await, Promoted::default());

    // The newest ones were lost: these are promised now, and come back in two steps.
    let promised = plan(&KeepReason::Minimum);
    let thawing = run(&promised).await;
    assert_eq!((thawing.objects, thawing.thawing), (0, 2), "{thawing:?}");
    for name in bulk {
        let _ = storage.readability(&Key::new(name).unwrap()).await.unwrap();
    }
    assert_eq!(run(&promised).await.objects, 2);
    assert_eq!(class(bulk[0]).await, "STANDARD");
}
