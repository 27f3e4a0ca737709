//! A repository that holds so much, made quickly.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::codec::{Compressed, Sealed, SizedDigest, seal};
use crate::postgres::archive::testing::{SEGMENT, back_up_as};
use crate::postgres::catalog::{WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::recordings::{self, NamesDescription};
use crate::postgres::layout::{BackupId, NamesId};
use crate::postgres::types::{Lsn, MajorVersion, SegmentName, TimelineId, WalFileName};
use crate::postgres::wal::Summary;
use crate::storage::{Key, PutMode};

/// What a repository holds.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub backups: usize,
    pub names: usize,
    /// Which these name, different ones.
    pub relations: usize,
    pub segments: usize,
}

pub async fn put(
    cluster: &Cluster,
    key: &Key,
    kind: &str,
    about: &impl serde::Serialize,
    body: &str,
) {
    store(
        cluster,
        key,
        seal(kind, about, &mut body.as_bytes(), body.len() as u64, 1).unwrap(),
    )
    .await;
}

async fn store(cluster: &Cluster, key: &Key, sealed: Sealed) {
    let object = [sealed.envelope, sealed.body].concat();
    let _ = cluster
        .repository
        .storage()
        .put(key, object.into(), PutMode::CreateOnly)
        .await
        .unwrap();
}

pub fn name(cluster: &Cluster, number: usize) -> SegmentName {
    SegmentName::from_number(
        TimelineId(1),
        1 + number as u64,
        cluster.description.segment_size,
    )
}

/// Of WAL in which nothing happens.
pub fn summary() -> Summary {
    Summary {
        major: Some(MajorVersion::new(15).unwrap()),
        ..Summary::default()
    }
}

pub async fn archive(cluster: &Cluster, number: usize) {
    let name = WalFileName::Segment(name(cluster, number));
    let about = WalDescription {
        name,
        system_identifier: cluster.description.system_identifier,
        timeline: TimelineId(1),
        major: None,
        archived_at: DateTime::UNIX_EPOCH,
        frames: Vec::new(),
        summary: Some(Box::new(summary())),
    };
    // Only the header is read.
    let plain = SizedDigest {
        size: SEGMENT as u64,
        ..SizedDigest::of(b"")
    };
    let sealed = Compressed::new(plain, Bytes::from_static(b"a segment")).seal(WAL_KIND, &about);
    store(cluster, &cluster.layout.wal(&name), sealed).await;
}

pub async fn make(cluster: &Cluster, kept: Kept) {
    let (now, system_identifier) = (Utc::now(), cluster.description.system_identifier);
    for number in 0..kept.segments {
        archive(cluster, number).await;
    }
    for number in 0..kept.backups {
        let id = BackupId::at(now - TimeDelta::hours(number as i64));
        back_up_as(cluster.repository.storage(), cluster, &id.to_string()).await;
        let file = WalFileName::Backup {
            segment: name(cluster, number * kept.segments / kept.backups),
            offset: 0x28 + 8 * number as u32,
        };
        put(
            cluster,
            &cluster.layout.wal(&file),
            WAL_KIND,
            &serde_json::json!({}),
            "",
        )
        .await;
    }
    for number in 0..kept.names {
        let time = now - TimeDelta::minutes(number as i64);
        let about = NamesDescription {
            system_identifier,
            timeline: TimelineId(1),
            lsn: Lsn(number as u64),
            recorded_at: time,
        };
        let file = 16384 + number % kept.relations;
        let line = format!(
            r#"{{"file":[1663,5,{file}],"relation":{{"oid":{file},"relkind":"r","schema":"public","name":"table_{file}"}}}}"#
        );
        put(
            cluster,
            &cluster.layout.names(&NamesId::new(time, 0)),
            recordings::KIND,
            &about,
            &line,
        )
        .await;
    }
}
