use std::sync::Arc;

use chrono::DateTime;

use super::*;
use crate::postgres::catalog::testing;
use crate::postgres::dump::digest::Hex;
use crate::postgres::dump::manifest::{
    DatabaseFacts, DumpOptions, Snapshot, StoredObject, TableEntry, read_tables,
};
use crate::postgres::dump::newest::NewestDumps;
use crate::postgres::layout::{DumpFormat, DumpName};
use crate::postgres::types::Lsn;
use crate::repo::Repository;
use crate::storage::{Key, MemoryStorage, PutMode, PutOutcome};

async fn cluster() -> Cluster {
    let storage = Arc::new(MemoryStorage::default());
    let repository = Repository::init(storage, DateTime::UNIX_EPOCH)
        .await
        .unwrap()
        .0;
    Cluster::register(repository, testing::cluster_description())
        .await
        .unwrap()
        .0
}

pub fn id(database: &str, time: &str, kind: DumpKind) -> DumpId {
    let time = format!("2026-01-31T{time}Z").parse().unwrap();
    let name = DumpName::new("{database}_{time}", database, time, kind).unwrap();
    DumpId::new(database, name).unwrap()
}

fn manifest_of(cluster: &Cluster, id: &DumpId) -> DumpManifest {
    let object = StoredObject {
        path: id.name().file(DumpFormat::Custom),
        size: 7,
        sha256: Hex([7; 32]),
        md5: Some(Hex([9; 16])),
    };
    DumpManifest {
        id: id.clone(),
        system_identifier: cluster.description.system_identifier,
        kind: id.kind(),
        format: DumpFormat::Custom,
        started_at: id.time(),
        finished_at: id.time(),
        snapshot: Snapshot {
            lsn: Lsn(0x300_0158),
            time: id.time(),
            name: "00000003-0000001B-1".into(),
            on_standby: false,
        },
        server_version: "15.20".into(),
        server_version_num: 150_020,
        pg_dump_version: "15.20".into(),
        database: DatabaseFacts {
            oid: 16384,
            owner: "shop".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            provider: "libc".into(),
            locale: None,
            icu_rules: None,
            collation_version: None,
            tablespace: "pg_default".into(),
            connection_limit: -1,
            size: 8 << 20,
            comment: Some("the \"shop\"".into()),
            acl: None,
            settings: Vec::new(),
        },
        roles: vec!["shop".into()],
        tablespaces: Vec::new(),
        extensions: Vec::new(),
        options: DumpOptions::default(),
        objects: vec![object],
        globals: None,
        tables: 1,
    }
}

fn table() -> TableEntry {
    TableEntry {
        oid: 16390,
        schema: "public".into(),
        name: "an \"odd\"\nname".into(),
        relkind: 'r',
        rows: Some(12.0),
        size: None,
        has_rows: true,
    }
}

async fn put(cluster: &Cluster, key: &Key) {
    let outcome = cluster
        .repository
        .storage()
        .put(key, "content".into(), PutMode::CreateOnly)
        .await
        .unwrap();
    assert_eq!(outcome, PutOutcome::Stored);
}

pub async fn complete(cluster: &Cluster, id: &DumpId) -> DumpManifest {
    let manifest = manifest_of(cluster, id);
    let whole = DumpObject::Whole(DumpFormat::Custom);
    put(cluster, &cluster.layout.dump(id, &whole)).await;
    let key = cluster.layout.dump(id, &DumpObject::Manifest);
    let _ = cluster
        .repository
        .put_sealed(&key, &manifest.seal(&[table()]).unwrap())
        .await
        .unwrap();
    manifest
}

#[tokio::test]
async fn a_dump_exists_when_its_manifest_does() {
    let cluster = cluster().await;
    let shop = id("shop", "14:05:00", DumpKind::Full);
    let manifest = complete(&cluster, &shop).await;
    let odd = id("a/b", "14:05:00", DumpKind::Full);
    complete(&cluster, &odd).await;
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
    let cluster = cluster().await;
    for (time, kind) in [
        ("14:00:00", DumpKind::Full),
        ("16:00:00", DumpKind::Schema),
        ("15:00:00", DumpKind::Full),
    ] {
        complete(&cluster, &id("shop", time, kind)).await;
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
    let cluster = cluster().await;
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
    let cluster = cluster().await;
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
    complete(&cluster, &odd).await;
    complete(&cluster, &first).await;
    let of_shop = told(&[&odd, &first]).await.pop().unwrap();
    let facts = (
        &*of_shop.database,
        of_shop.kind,
        of_shop.time,
        of_shop.bytes,
    );
    assert_eq!(facts, ("shop", DumpKind::Full, first.time(), 7));
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
    complete(&cluster, &second).await;
    complete(&cluster, &schema).await;
    told(&[&odd, &second, &schema]).await;
    let gone = cluster.layout.dump(&second, &DumpObject::Manifest);
    let storage = cluster.repository.storage();
    storage.delete(&gone).await.unwrap();
    told(&[&odd, &first, &schema]).await;
}
