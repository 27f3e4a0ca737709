//! Small dumps in memory.

use chrono::{DateTime, Utc};

use super::digest::Digests;
use super::manifest::{
    DatabaseFacts, DumpManifest, DumpOptions, Globals, Snapshot, StoredObject, TableEntry,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpFormat, DumpId, DumpKind, DumpName, DumpObject};
use crate::postgres::types::Lsn;
use crate::storage::{Key, PutMode, PutOutcome};

const CONTENT: &str = "what pg_dump wrote, long enough to be damaged";

pub fn id(database: &str, time: &str, kind: DumpKind) -> DumpId {
    let time = format!("2026-01-31T{time}Z").parse().unwrap();
    let name = DumpName::new("{database}_{time}", database, time, kind).unwrap();
    DumpId::new(database, name).unwrap()
}

pub fn manifest_of(cluster: &Cluster, id: &DumpId) -> DumpManifest {
    let stored = |path: String| {
        let mut digests = Digests::new(false);
        digests.update(CONTENT.as_bytes());
        let (size, sha256, md5) = digests.finish();
        StoredObject {
            path,
            size,
            sha256,
            md5,
        }
    };
    let object = stored(id.name().file(DumpFormat::Custom));
    let globals = Globals {
        object: stored(DumpObject::Globals.path(id.name())),
        passwords: false,
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
        drill: None,
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
        globals: Some(globals),
        tables: 1,
    }
}

pub fn table() -> TableEntry {
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

pub async fn put(cluster: &Cluster, key: &Key) {
    let outcome = cluster
        .repository
        .storage()
        .put(key, CONTENT.into(), PutMode::CreateOnly)
        .await
        .unwrap();
    assert_eq!(outcome, PutOutcome::Stored);
}

/// Stores all of a dump, the manifest last.
pub async fn store(cluster: &Cluster, id: &DumpId) -> DumpManifest {
    store_at(cluster, id, id.time()).await
}

/// The same with a snapshot of another time.
pub async fn store_at(cluster: &Cluster, id: &DumpId, shows: DateTime<Utc>) -> DumpManifest {
    let mut manifest = manifest_of(cluster, id);
    manifest.snapshot.time = shows;
    for object in [
        DumpObject::Whole(DumpFormat::Custom),
        DumpObject::Sha256(DumpFormat::Custom),
        DumpObject::Globals,
    ] {
        put(cluster, &cluster.layout.dump(id, &object)).await;
    }
    let key = cluster.layout.dump(id, &DumpObject::Manifest);
    let sealed = manifest.seal(&[table()]).unwrap();
    let _ = cluster.repository.put_sealed(&key, &sealed).await.unwrap();
    manifest
}
