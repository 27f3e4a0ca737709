//! What an operator does, on S3: register, archive, back up, verify, restore.

use crate::harness::{Cluster, Major, ObjectStore, Scratch, Walden, each_major, say_skipped};
use crate::restore::exact::exactly_as_promised_with;
use crate::restore::{register, restore, take_backup};

each_major!(a_cluster_is_archived_backed_up_and_restored, archive_back_up_and_restore);

fn archive_back_up_and_restore(major: Major) {
    let Some(store) = ObjectStore::radosgw() else { return };
    let bucket = store.fresh_bucket();
    let scratch = Scratch::new("s3");
    let mut cluster = Cluster::builder(major.clone()).segment_mib(1).start(&scratch);
    let walden = Walden::on_s3(&scratch, &cluster, &bucket, "");
    register(&mut cluster, &walden);
    let service = walden.serve();
    cluster.open_ledger();
    cluster.burst(3, 20);
    let id = take_backup(&walden);
    let write = |segments| {
        for _ in 0..segments {
            cluster.burst(2, 5);
            cluster.switch_wal();
        }
    };
    write(6);
    service.kill9();
    // Now the hook program is on its own.
    write(2);
    cluster.archive_now();
    let service = walden.serve();
    write(4);
    let rows = cluster.rows();
    cluster.archive_now();
    assert_eq!(cluster.sql("select failed_count from pg_stat_archiver"), "0", "{}", cluster.log());

    let backups = walden.json(["backup", "list"]);
    assert!(backups.to_string().contains(&id), "{backups}");
    walden.ok(["backup", "verify", &id]);
    walden.ok(["wal", "verify"]);
    assert_eq!(walden.json(["wal", "list"])["gaps"], serde_json::json!([]));
    let none: [&str; 0] = [];
    let restored = restore(&walden, &major, scratch.join("with the service"), &none);
    assert_eq!(restored.cluster.rows(), rows, "{}", restored.said);
    drop(restored);
    service.stop();
    let restored = restore(&walden, &major, scratch.join("without"), &none);
    assert_eq!(restored.cluster.rows(), rows, "{}", restored.said);
    assert!(!cluster.log().contains(&store.secret_access_key), "no secret in the server's log");
}

each_major!(a_restore_holds_exactly_what_its_target_promises, exactly_as_promised);

fn exactly_as_promised(major: Major) {
    if std::env::var_os("WALDEN_TEST_LONG").is_none() && !major.is_first_or_last() {
        say_skipped("restores to random targets on S3: skipped between the oldest and the newest major (--long)");
        return;
    }
    let Some(store) = ObjectStore::radosgw() else { return };
    let bucket = store.fresh_bucket();
    exactly_as_promised_with(major, 3, |scratch, cluster| Walden::on_s3(scratch, cluster, &bucket, ""));
}
