//! Backups that lie in a class which must be thawed: told before anything is done, never taken for damage, and thawed on
//! request.

use walden::storage::classes::ClassChange;
use walden::storage::{ListEntry, list_all};

use crate::harness::{Bucket, Cluster, Major, ObjectStore, Scratch, Walden};
use crate::restore::{register, restore, take_backup};

/// Moves all packs of a backup to a class, as a rule of the bucket would; how many there are.
fn move_packs(bucket: &Bucket, id: &str, class: &str) -> usize {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let storage = bucket.storage("walden/store", |_| {});
        let folder = format!("main/base/{id}/");
        let mut moved = 0;
        for entry in list_all(&*storage, &folder).await.expect("list") {
            let ListEntry::Object(object) = entry else {
                continue;
            };
            if object.key.file_name().starts_with("pack-") {
                let change = storage.set_class(&object, class).await.expect("move");
                assert_eq!(change, ClassChange::Moved);
                moved += 1;
            }
        }
        moved
    })
}

#[test]
fn a_cold_backup_is_told_and_restored_once_it_is_thawed() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let bucket = store.fresh_bucket();
    let scratch = Scratch::new("s3 cold");
    let mut cluster = Cluster::builder(Major::newest()).start(&scratch);
    // On a busy machine two puts at once pass moto's If-None-Match.
    let settings = "s3.create_only = \"head-then-put\"\n";
    let walden = Walden::on_s3(&scratch, &cluster, &bucket, settings);
    walden.expect_log("s3.create_only is head-then-put");
    walden.expect_log("only as long as no two store under one name at once");
    register(&mut cluster, &walden);
    let service = walden.serve();
    cluster.open_ledger();
    let id = take_backup(&walden);
    let rows = cluster.rows();
    cluster.archive_now();
    let packs = move_packs(&bucket, &id, "DEEP_ARCHIVE");

    let told = walden.ok(["backup", "verify", &id]);
    assert!(
        told.contains("cold, not read") && told.contains(&format!("{packs} object")),
        "{told}"
    );
    let report = walden.json(["repo", "verify"]);
    assert_eq!(report["sound"], true, "{report}");
    assert_eq!(
        report["cold"]["objects"].as_array().map(Vec::len),
        Some(packs)
    );
    let copy = scratch.join("copy").display().to_string();
    let to = format!("file://{copy}");
    let copied = walden.run(["repo", "copy", "--to", &to]);
    assert_eq!(copied.code, Some(3), "{}", copied.stdout);
    assert!(copied.stdout.contains("COLD"), "{}", copied.stdout);
    assert!(!copied.stdout.contains("DAMAGED"), "{}", copied.stdout);

    let folder = scratch.join("restored");
    let to_dir = folder.to_str().expect("a path");
    let refused = walden.refused(1, ["restore", "--to-dir", to_dir]);
    assert!(
        refused.contains("DEEP_ARCHIVE and must be thawed first") && refused.contains("--thaw"),
        "{refused}"
    );
    assert!(!folder.exists(), "nothing was written");
    let planned = walden.ok(["restore", "--to-dir", to_dir, "--thaw", "--dry-run"]);
    assert!(planned.contains("must be thawed first"), "{planned}");
    walden.refused(1, ["restore", "--to-dir", to_dir]);

    let restored = restore(&walden, &cluster.major, folder, &["--thaw"]);
    assert_eq!(restored.cluster.rows(), rows);
    // What is thawed is read by everybody.
    let told = walden.ok(["backup", "verify", &id]);
    assert!(told.contains("sound") && !told.contains("cold"), "{told}");
    service.stop();
}
