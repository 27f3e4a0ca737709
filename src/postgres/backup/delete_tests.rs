use std::sync::Arc;

use super::*;
use crate::codec::seal;
use crate::postgres::backup::finish;
use crate::postgres::catalog::testing;
use crate::postgres::cluster::testing::{cluster_in, put, sealed};
use crate::storage::MemoryStorage;

const FIRST: &str = "20260101-000000Z";
const SECOND: &str = "20260102-000000Z";

async fn cluster() -> Cluster {
    cluster_in(Arc::new(MemoryStorage::default())).await
}

async fn put_manifest(cluster: &Cluster, backup: &BackupDescription) {
    let key = cluster.layout.manifest(&backup.id);
    put(cluster, &key, sealed(manifest::KIND, backup, "")).await;
}

#[tokio::test]
async fn a_backup_whose_wal_is_missing_is_no_replacement() {
    let cluster = cluster().await;
    put(
        &cluster,
        &cluster
            .layout
            .wal(&"000000010000000000000002".parse().unwrap()),
        b"x".to_vec(),
    )
    .await;
    let later = BackupDescription {
        start_lsn: Lsn(3 * testing::SEGMENT + 0x28),
        stop_lsn: Lsn(4 * testing::SEGMENT + 0x100),
        ..testing::backup(SECOND)
    };
    put_manifest(&cluster, &testing::backup(FIRST)).await;
    put_manifest(&cluster, &later).await;
    let only_usable = async || {
        plan_delete(&cluster, &FIRST.parse().unwrap())
            .await
            .unwrap()
            .only_usable
    };
    for (segment, expected) in [
        ("000000010000000000000003", true),
        ("000000010000000000000004", false),
    ] {
        assert!(
            only_usable().await,
            "not all of the second one's WAL is there"
        );
        put(
            &cluster,
            &cluster.layout.wal(&segment.parse().unwrap()),
            b"x".to_vec(),
        )
        .await;
        assert_eq!(only_usable().await, expected, "with {segment}");
    }
}

#[tokio::test]
async fn the_manifest_of_a_later_backup_is_read_only_if_its_description_does_not_tell() {
    let cluster = cluster().await;
    put_manifest(&cluster, &testing::backup(FIRST)).await;
    let first: BackupId = FIRST.parse().unwrap();
    for (id, earlier, needed, unknown) in [
        ("20260102-000000Z", Some(vec![]), false, false),
        ("20260103-000000Z", Some(vec![first.clone()]), true, false),
        ("20260104-000000Z", None, false, true),
    ] {
        // Its lines cannot be read.
        let backup = BackupDescription {
            earlier_backups: earlier,
            ..testing::backup(id)
        };
        let sealed = seal(manifest::KIND, &backup, &mut &b"x"[..], 1, 1).unwrap();
        let mut body = sealed.body.to_vec();
        body.iter_mut().for_each(|byte| *byte ^= 0x5A);
        put(
            &cluster,
            &cluster.layout.manifest(&backup.id),
            [&sealed.envelope[..], &body[..]].concat(),
        )
        .await;
        let plan = plan_delete(&cluster, &first).await.unwrap();
        let is_in = |list: &[BackupId]| list.contains(&backup.id);
        assert_eq!(
            (is_in(&plan.needed_by), is_in(&plan.unknown)),
            (needed, unknown),
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_backup_that_lacks_something_is_no_replacement() {
    let cluster = cluster().await;
    put(
        &cluster,
        &cluster
            .layout
            .wal(&"000000010000000000000002".parse().unwrap()),
        b"x".to_vec(),
    )
    .await;
    put_manifest(&cluster, &testing::backup(FIRST)).await;
    put_manifest(
        &cluster,
        &BackupDescription {
            left_out: vec!["pg_xact".into()],
            ..testing::backup(SECOND)
        },
    )
    .await;
    assert!(
        plan_delete(&cluster, &FIRST.parse().unwrap())
            .await
            .unwrap()
            .only_usable
    );
}

#[tokio::test]
async fn what_is_lost_is_not_known_where_the_backup_or_a_history_is_damaged() {
    let cluster = cluster().await;
    let unknown = async |id: &str| {
        plan_delete(&cluster, &id.parse().unwrap())
            .await
            .unwrap()
            .lost_unknown
    };
    put_manifest(&cluster, &testing::backup(FIRST)).await;
    assert!(unknown(FIRST).await.is_empty());
    put(
        &cluster,
        &cluster.layout.manifest(&SECOND.parse().unwrap()),
        b"cut".to_vec(),
    )
    .await;
    assert!(
        unknown(FIRST).await.is_empty(),
        "what another one restores is no loss"
    );
    assert!(
        unknown(SECOND).await[0].starts_with("the manifest of the backup cannot be used: object ")
    );
    put(
        &cluster,
        &cluster.layout.wal(&"00000002.history".parse().unwrap()),
        b"cut".to_vec(),
    )
    .await;
    assert!(unknown(FIRST).await[0].starts_with("\"00000002.history\" cannot be used: object "));
    assert_eq!(unknown(SECOND).await.len(), 2);
    let unfinished = "20260103-000000Z";
    put(
        &cluster,
        &cluster.layout.started(&unfinished.parse().unwrap()),
        b"{}".to_vec(),
    )
    .await;
    assert!(unknown(unfinished).await.is_empty());
}

#[tokio::test]
async fn of_an_unfinished_backup_nothing_goes_when_it_is_completed_meanwhile() {
    let cluster = cluster().await;
    let backup = testing::backup(FIRST);
    let pack: Key = Key::new(format!("main/base/{FIRST}/pack-000001")).unwrap();
    put(
        &cluster,
        &cluster.layout.started(&backup.id),
        b"{}".to_vec(),
    )
    .await;
    put(&cluster, &pack, b"x".to_vec()).await;
    let plan = plan_delete(&cluster, &backup.id).await.unwrap();
    put_manifest(&cluster, &backup).await;
    assert!(one_line(&delete(&cluster, &plan).await.unwrap_err()).contains("completed"));
    assert!(
        cluster
            .repository
            .storage()
            .head(&pack)
            .await
            .unwrap()
            .is_some()
    );
    let whole = plan_delete(&cluster, &backup.id).await.unwrap();
    assert_eq!(whole.keys[0], cluster.layout.manifest(&backup.id));
    delete(&cluster, &whole).await.unwrap();
    assert!(cluster.objects_of(&backup.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn who_still_takes_a_deleted_backup_cannot_complete_it() {
    let cluster = cluster().await;
    let backup = testing::backup(FIRST);
    put(
        &cluster,
        &cluster.layout.started(&backup.id),
        b"{}".to_vec(),
    )
    .await;
    delete(&cluster, &plan_delete(&cluster, &backup.id).await.unwrap())
        .await
        .unwrap();
    let manifest = crate::codec::SealedWriter::new(1).unwrap();
    assert!(finish::commit(&cluster, &backup, manifest).await.is_err());
    assert!(
        cluster
            .repository
            .storage()
            .head(&cluster.layout.manifest(&backup.id))
            .await
            .unwrap()
            .is_none()
    );
}
