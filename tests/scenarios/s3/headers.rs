//! Encryption at rest and storage classes, which moto reports back as Amazon does.

use crate::harness::{Bucket, Cluster, Major, ObjectStore, Scratch, Walden};
use crate::restore::{register, restore, take_backup};

/// A key of one backup object of cluster `main`.
fn a_pack(bucket: &Bucket, id: &str) -> String {
    (1..9)
        .map(|number| format!("main/base/{id}/pack-{number:06}"))
        .find(|key| bucket.request("HEAD", key, &[]).status == 200)
        .expect("a pack of the backup")
}

#[test]
fn wal_and_backups_carry_encryption_and_their_storage_classes() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    for (encryption, key) in [("AES256", None), ("aws:kms", Some("alias/walden"))] {
        let bucket = store.fresh_bucket();
        let scratch = Scratch::new("s3 headers");
        let mut cluster = Cluster::builder(Major::newest()).start(&scratch);
        // On a busy machine two puts at once pass moto's If-None-Match.
        let mut settings = format!(
            "s3.create_only = \"head-then-put\"\ns3.encryption = \"{encryption}\"\ns3.storage_class_wal = \"STANDARD_IA\"\n\
             s3.storage_class_base = \"ONEZONE_IA\"\ns3.multipart_threshold = \"5MiB\"\n"
        );
        if let Some(key) = key {
            settings += &format!("s3.kms_key = \"{key}\"\n");
        }
        let walden = Walden::on_s3(&scratch, &cluster, &bucket, &settings);
        walden.expect_log("s3.create_only is head-then-put");
        walden.expect_log("only as long as no two store under one name at once");
        register(&mut cluster, &walden);
        let service = walden.serve();
        cluster.open_ledger();
        let id = take_backup(&walden);
        // What does not compress is stored in parts.
        cluster.switch_wal();
        cluster.sql("create table noise(bytes bytea)");
        let large = cluster.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
        cluster.sql(
            "insert into noise select (select string_agg(uuid_send(gen_random_uuid()), '') \
             from generate_series(1, 100) where n > 0) from generate_series(1, 12000) n",
        );
        let rows = cluster.rows();
        cluster.archive_now();

        let segment = Bucket::segment_key(&large);
        let found = bucket.head(&segment);
        assert!(found["etag"].contains('-'), "{large} is small: {found:?}");
        for (object, class) in [
            (segment, "STANDARD_IA"),
            (a_pack(&bucket, &id), "ONEZONE_IA"),
        ] {
            let headers = bucket.head(&object);
            assert_eq!(
                headers["x-amz-server-side-encryption"], encryption,
                "{object}"
            );
            assert_eq!(headers["x-amz-storage-class"], class, "{object}");
            let kms = headers.get("x-amz-server-side-encryption-aws-kms-key-id");
            assert_eq!(
                kms.is_some_and(|id| id.contains("walden")),
                key.is_some(),
                "{object}: {headers:?}"
            );
        }
        let marker = bucket.head("walden.json");
        assert_eq!(marker["x-amz-server-side-encryption"], encryption);
        assert_eq!(marker.get("x-amz-storage-class"), None);
        let restored = restore(
            &walden,
            &cluster.major,
            scratch.join("restored"),
            &[] as &[&str],
        );
        assert_eq!(restored.cluster.rows(), rows);
        service.stop();
    }
}
