//! Deleting what retention lets go, on real archives: what stays is restored, what went is told for what it is.

use serde_json::{Value, json};

use crate::harness::{Cluster, Major, ObjectStore, Scratch, Walden};
use crate::restore::{register, restore, take_backup};

/// Everything since the newest backup, and the first one of the year.
const POLICY: &str =
    "retention.window = \"0s\"\nretention_base.yearly = 1\nretention_base.minimum = 1\n";

/// Applies the plan that was printed just before.
fn applied(walden: &Walden) -> Value {
    let plan = walden.json(["retention", "plan"]);
    let digest = plan["digest"].as_str().expect("a digest");
    walden.json(["retention", "apply", "--plan", digest])
}

/// The verbs, before anything is deleted.
fn a_plan_is_shown_and_only_that_is_carried_out(walden: &Walden, first: &str, middle: &str) {
    let text = walden.ok(["retention", "plan"]);
    let plan = walden.json(["retention", "plan"]);
    let digest = plan["digest"].as_str().expect("a digest");
    assert!(
        text.contains(&format!("walden retention apply --plan {digest}")),
        "{text}"
    );
    let line = text.lines().find(|line| line.contains(middle));
    assert!(line.is_some_and(|line| line.contains("DELETE")), "{text}");
    let said = walden.refused(1, ["retention", "apply", "--plan", &"0".repeat(32)]);
    assert!(
        said.contains("the plan is another one by now")
            && said.contains("HINT: look at it again: `walden retention plan`"),
        "{said}"
    );
    walden.expect_log("the plan is another one by now");
    let said = walden.refused(2, ["retention", "apply"]);
    assert!(said.contains("HINT: name the plan with --plan"), "{said}");
    walden.expect_log("deleting needs a confirmation");
    assert_eq!(walden.json(["retention", "plan"]), plan, "nothing is gone");
    // By the server's clock, which is this machine's.
    let now = chrono::Utc::now()
        .format("%Y-%m-%d %H:%M:%S+00")
        .to_string();
    let holds = walden.ok(["retention", "holds", "--before", &now]);
    assert!(holds.contains(first) && holds.contains("WAL"), "{holds}");
    let early = walden.json(["retention", "holds", "--before", "2001-01-01 00:00:00+00"]);
    // When the WAL before the first base backup began nobody knows.
    let mut held = early["holds"].as_array().expect("a list").iter();
    let is_wal = |held: &Value| {
        held["what"]
            .as_str()
            .is_some_and(|it| it.starts_with("WAL "))
    };
    assert!(held.all(is_wal), "{early}");
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
) -> String {
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

    a_plan_is_shown_and_only_that_is_carried_out(walden, &first, &middle);

    // A pin keeps what the policy lets go.
    walden.ok(["retention", "pin", &middle, "--reason", "audit"]);
    let pins = walden.json(["retention", "pins"]);
    assert_eq!(pins["pins"][0]["item"], json!(format!("base:{middle}")));
    let kept = applied(walden);
    assert_eq!(kept["deleted"]["backups"], json!([]), "{kept}");
    walden.ok(["retention", "unpin", &middle]);

    let done = applied(walden);
    assert_eq!(done["deleted"]["backups"], json!([middle]), "{done}");
    assert_eq!(done["complete"], json!(true), "{done}");
    assert_ne!(done["deleted"]["wal"], json!([]), "{done}");
    let again = walden.ok(["retention", "apply", "--yes"]);
    assert_eq!(again, "there was nothing to delete\n");

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
    first
}

#[test]
fn what_stays_is_restored_and_what_went_is_told_for_what_it_is() {
    let (major, scratch) = (Major::newest(), Scratch::new("expiry"));
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, POLICY);
    old_wal_and_backups_go(&major, &scratch, &walden, cluster);
}

#[test]
fn the_same_holds_in_a_bucket_and_what_only_a_tier_keeps_changes_its_class() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let (major, scratch) = (Major::newest(), Scratch::new("s3 expiry"));
    let bucket = store.fresh_bucket();
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let settings = format!("{POLICY}s3.tier_classes_base = [\"yearly=STANDARD_IA\"]\n");
    let walden = Walden::on_s3(&scratch, &cluster, &bucket, &settings);
    let first = old_wal_and_backups_go(&major, &scratch, &walden, cluster);
    let backups = walden.json(["backup", "list"]).to_string();
    for (object, class) in [("pack-000001", Some("STANDARD_IA")), ("manifest.zst", None)] {
        let headers = bucket.head(&format!("main/base/{first}/{object}"));
        let found = headers.get("x-amz-storage-class").map(String::as_str);
        assert_eq!(found, class, "{object}: {headers:?}, {backups}");
    }
}
