use std::sync::Arc;

use super::*;
use crate::postgres::cluster::testing::cluster_in;
use crate::postgres::dump::manifest::read_tables;
use crate::postgres::dump::newest::NewestDumps;
use crate::postgres::dump::testing::{id, manifest_of, put, store, table};
use crate::postgres::index::testing::Waiting;
use crate::storage::counting::CountingStorage;
use crate::storage::freezing::FreezingStorage;
use crate::storage::{Key, MemoryStorage};

#[tokio::test]
async fn a_dump_exists_when_its_manifest_does() {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    let shop = id("shop", "14:05:00", DumpKind::Full);
    let manifest = store(&cluster, &shop).await;
    let odd = id("a/b", "14:05:00", DumpKind::Full);
    store(&cluster, &odd).await;
    let begun = id("shop", "15:05:00", DumpKind::Full);
    put(&cluster, &cluster.layout.dump(&begun, &DumpObject::Started)).await;
    put(
        &cluster,
        &cluster.layout.latest_dump("shop", DumpKind::Full),
    )
    .await;
    put(&cluster, &Key::new("main/dumps/shop/notes.txt").unwrap()).await;

    let all = list(&cluster, None).await.unwrap();
    let ids = |dumps: &[ListedDump]| dumps.iter().map(|dump| dump.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&all.complete), [odd.clone(), shop.clone()]);
    assert_eq!(ids(&all.unfinished), [begun]);
    let one = list(&cluster, Some("a/b")).await.unwrap();
    assert_eq!(ids(&one.complete), [odd]);

    assert_eq!(
        manifest::read(&cluster, &shop).await.unwrap(),
        Some(manifest)
    );
    assert_eq!(
        read_tables(&cluster, &shop).await.unwrap(),
        Some(vec![table()])
    );
    let absent = id("shop", "16:05:00", DumpKind::Full);
    assert_eq!(manifest::read(&cluster, &absent).await.unwrap(), None);
}

#[tokio::test]
async fn the_latest_is_the_newest_complete_one_of_its_kind() {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    for (time, kind) in [
        ("14:00:00", DumpKind::Full),
        ("16:00:00", DumpKind::Schema),
        ("15:00:00", DumpKind::Full),
    ] {
        store(&cluster, &id("shop", time, kind)).await;
    }
    let begun = id("shop", "17:00:00", DumpKind::Full);
    put(&cluster, &cluster.layout.dump(&begun, &DumpObject::Globals)).await;
    let all = list(&cluster, None).await.unwrap();
    let latest = |kind| all.latest("shop", kind).map(|dump| dump.id.clone());
    assert_eq!(
        latest(DumpKind::Full),
        Some(id("shop", "15:00:00", DumpKind::Full))
    );
    assert_eq!(
        latest(DumpKind::Schema),
        Some(id("shop", "16:00:00", DumpKind::Schema))
    );
    assert_eq!(latest(DumpKind::Data), None);
}

#[tokio::test]
async fn the_manifest_of_another_dump_is_damaged() {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    let (one, other) = (
        id("shop", "14:00:00", DumpKind::Full),
        id("shop", "15:00:00", DumpKind::Full),
    );
    let sealed = manifest_of(&cluster, &one).seal(&[]).unwrap();
    let key = cluster.layout.dump(&other, &DumpObject::Manifest);
    let _ = cluster.repository.put_sealed(&key, &sealed).await.unwrap();
    let error = manifest::read(&cluster, &other).await.unwrap_err();
    assert!(matches!(error, ObjectError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn the_newest_of_each_database_is_known_as_soon_as_it_is_complete_and_can_be_read() {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    let mut newest = NewestDumps::new(&cluster);
    let mut told = async |expected: &[&DumpId]| {
        let told = newest.refresh(&cluster).await.unwrap();
        let ids: Vec<_> = told.iter().map(|dump| dump.id.clone()).collect();
        let expected: Vec<_> = expected.iter().map(|id| id.to_string()).collect();
        assert_eq!(ids, expected);
        told
    };
    told(&[]).await;
    let (odd, first) = (
        id("a/b", "14:00:00", DumpKind::Full),
        id("shop", "14:00:00", DumpKind::Full),
    );
    store(&cluster, &odd).await;
    store(&cluster, &first).await;
    let of_shop = told(&[&odd, &first]).await.pop().unwrap();
    let facts = (
        &*of_shop.database,
        of_shop.kind,
        of_shop.time,
        of_shop.bytes,
    );
    let bytes = manifest_of(&cluster, &first).size();
    assert_eq!(facts, ("shop", DumpKind::Full, first.time(), bytes));
    let begun = id("shop", "14:30:00", DumpKind::Full);
    put(&cluster, &cluster.layout.dump(&begun, &DumpObject::Started)).await;
    let damaged = id("shop", "14:40:00", DumpKind::Full);
    let manifest = cluster.layout.dump(&damaged, &DumpObject::Manifest);
    put(&cluster, &manifest).await;
    told(&[&odd, &first]).await;
    let (second, schema) = (
        id("shop", "15:00:00", DumpKind::Full),
        id("shop", "15:00:00", DumpKind::Schema),
    );
    store(&cluster, &second).await;
    store(&cluster, &schema).await;
    told(&[&odd, &second, &schema]).await;
    let gone = cluster.layout.dump(&second, &DumpObject::Manifest);
    let storage = cluster.repository.storage();
    storage.delete(&gone).await.unwrap();
    told(&[&odd, &first, &schema]).await;
}

#[tokio::test]
async fn a_dump_that_must_be_thawed_first_hides_no_other() {
    let storage = Arc::new(FreezingStorage::new(Arc::new(MemoryStorage::default()), 1));
    let cluster = cluster_in(storage.clone()).await;
    let (first, second) = (
        id("shop", "14:00:00", DumpKind::Full),
        id("shop", "15:00:00", DumpKind::Full),
    );
    let freeze = |id| storage.freeze(&cluster.layout.dump(id, &DumpObject::Manifest), "GLACIER");
    store(&cluster, &first).await;
    store(&cluster, &second).await;
    freeze(&second);
    let told = NewestDumps::new(&cluster).refresh(&cluster).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].id, first.to_string());
    freeze(&first);
    let unknown = NewestDumps::new(&cluster).refresh(&cluster).await;
    assert!(unknown.is_err(), "there are some");
}

#[tokio::test]
async fn databases_do_not_wait_for_each_other() {
    let waiting = Arc::new(Waiting::default());
    let counting = Arc::new(CountingStorage::new(waiting.clone()));
    let cluster = cluster_in(counting.clone()).await;
    for database in ["a", "z"] {
        store(&cluster, &id(database, "14:00:00", DumpKind::Full)).await;
    }
    *waiting.folder.lock().unwrap() = Some(format!("{}a/", cluster.layout.dumps_folder()));
    counting.forget();
    let mut newest = NewestDumps::new(&cluster);
    let (told, ()) = tokio::join!(newest.refresh(&cluster), async {
        waiting.listed.notified().await;
        assert_eq!(counting.calls(), ["list"; 3]);
        waiting.go_on.notify_one();
    });
    assert_eq!(told.unwrap().len(), 2);
}
