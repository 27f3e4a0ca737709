//! Deleting what retention lets go, on real archives: what stays is restored, what went is told for what it is.

use std::sync::Arc;
use std::time::SystemTime;

use chrono::TimeDelta;
use serde_json::{Value, json};
use walden::postgres::cluster::Cluster as Registered;
use walden::postgres::expiry::ExpiryProgress;
use walden::postgres::expiry::apply::{Applied, Chosen, Decision, apply};
use walden::repo::Repository;
use walden::retention::{Keep, KindPolicy, Policy, Tier, Tiers};
use walden::storage::{LocalStorage, Storage};

use crate::harness::{Cluster, Major, ObjectStore, Scratch, Walden};
use crate::restore::{register, restore, take_backup};

/// Everything since the newest backup, and the first one of the year.
fn policy() -> Policy {
    let mut tiers = Tiers::default();
    tiers.0[Tier::Yearly as usize] = Some(Keep::Count(1));
    Policy {
        zone: chrono_tz::UTC,
        window: Some(TimeDelta::zero()),
        base: KindPolicy { tiers, minimum: 1 },
        dump: KindPolicy::default(),
        schema: KindPolicy::default(),
    }
}

/// Applies the plan that was made just before.
fn applied(storage: Arc<dyn Storage>) -> Applied {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let work = async {
        let repository = Repository::open(storage).await?;
        let cluster = Registered::open(repository, "main".parse()?).await?;
        let printed = Decision::make(&cluster, &policy(), SystemTime::now()).await?;
        let printed = Chosen::Printed(printed.plan.deletions().digest());
        apply(&cluster, &policy(), &printed, &ExpiryProgress::default()).await
    };
    runtime.block_on(work).expect("applied")
}

fn write(cluster: &Cluster) {
    for _ in 0..3 {
        cluster.burst(2, 5);
        cluster.switch_wal();
    }
}

/// Three backups with WAL between; the one in the middle goes with all WAL between the first and the last.
fn old_wal_and_backups_go(
    major: &Major,
    scratch: &Scratch,
    walden: &Walden,
    mut cluster: Cluster,
    storage: Arc<dyn Storage>,
) {
    register(&mut cluster, walden);
    cluster.open_ledger();
    cluster.burst(2, 5);
    let first = take_backup(walden);
    let then = cluster.rows();
    write(&cluster);
    let middle = take_backup(walden);
    let lost = cluster.mark("lost").with();
    let gone = cluster.switch_wal();
    write(&cluster);
    let last = take_backup(walden);
    write(&cluster);
    cluster.archive_now();
    drop(lost);

    // A pin keeps what the policy lets go.
    walden.ok(["retention", "pin", &middle, "--reason", "audit"]);
    let pins = walden.json(["retention", "pins"]);
    assert_eq!(pins["pins"][0]["item"], json!(format!("base:{middle}")));
    let kept = applied(storage.clone());
    assert!(kept.deleted.backups.is_empty(), "{kept:?}");
    walden.ok(["retention", "unpin", &middle]);

    let done = applied(storage.clone());
    let deleted: Vec<String> = done
        .deleted
        .backups
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(deleted, std::slice::from_ref(&middle), "{done:?}");
    assert!(done.is_whole() && !done.deleted.wal.is_empty());

    // A hole that was made on purpose is neither a gap nor damage.
    let list = walden.json(["wal", "list"]);
    assert_eq!(list["gaps"], json!([]), "{list}");
    walden.ok(["repo", "verify"]);
    let windows = walden.json(["target"]);
    assert!(windows.to_string().contains(&last), "{windows}");
    assert_eq!(windows["unrestorable"], json!([]), "{windows}");
    let backups = walden.json(["backup", "list"]).to_string();
    assert!(backups.contains(&first) && backups.contains(&last) && !backups.contains(&middle));

    // It is not the end of the archive, either.
    let path = scratch.join("fetched");
    let said = walden.refused(200, ["wal", "fetch", &gone, &path.display().to_string()]);
    assert!(said.contains("was deleted by retention"), "{said}");
    walden.expect_log("was deleted by retention");

    // What stays is restored.
    let rows = cluster.rows();
    let none: [&str; 0] = [];
    let latest = restore(walden, major, scratch.join("latest"), &none);
    assert_eq!(latest.cluster.rows(), rows);
    drop(latest);
    let island = restore(
        walden,
        major,
        scratch.join("island"),
        &["--backup", &first, "--immediate"],
    );
    assert_eq!(island.cluster.rows(), then);
    drop(island);
    let folder = scratch.join("lost").display().to_string();
    let said = walden.refused(
        4,
        [
            "restore", "--to-dir", &folder, "--backup", &first, "--latest",
        ],
    );
    assert!(said.contains("deleted by retention"), "{said}");
    // Restores gave their leases back.
    let none: Value = json!([]);
    assert_eq!(
        walden.json(["retention", "pins"]),
        json!({ "pins": none, "leases": none })
    );
}

#[test]
fn what_stays_is_restored_and_what_went_is_told_for_what_it_is() {
    let (major, scratch) = (Major::newest(), Scratch::new("expiry"));
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    let storage = Arc::new(LocalStorage::new(&walden.repository));
    old_wal_and_backups_go(&major, &scratch, &walden, cluster, storage);
}

#[test]
fn the_same_holds_in_a_bucket() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let (major, scratch) = (Major::newest(), Scratch::new("s3 expiry"));
    let bucket = store.fresh_bucket();
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::on_s3(&scratch, &cluster, &bucket, "");
    let prefix = bucket.url();
    let prefix = prefix
        .trim_start_matches("s3://")
        .split_once('/')
        .map_or("", |(_, prefix)| prefix);
    let storage = bucket.storage(prefix, |_| ());
    old_wal_and_backups_go(&major, &scratch, &walden, cluster, storage);
}
