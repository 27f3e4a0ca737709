//! The bucket's lifecycle: Walden's rules among those of others, and others' rules that would delete the archive.

use crate::harness::{Bucket, Cluster, Major, ObjectStore, Scratch, Walden};
use crate::restore::register;

/// A rule of somebody else that deletes what lies below a prefix.
fn expiring(id: &str, prefix: &str) -> String {
    format!(
        "<Rule><ID>{id}</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>Enabled</Status>\
         <Expiration><Days>30</Days></Expiration></Rule>"
    )
}

fn rules(bucket: &Bucket) -> String {
    let answer = bucket.of_bucket("GET", "lifecycle", "");
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn set_rules(bucket: &Bucket, rules: &str) {
    let body = format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>");
    let answer = bucket.of_bucket("PUT", "lifecycle", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn a_lifecycle_keeps_what_is_needed(bucket: &Bucket, cluster: &mut Cluster, scratch: &Scratch) {
    let settings = "s3.create_only = \"head-then-put\"\ns3.keep_versions = \"90d\"\n";
    let walden = Walden::on_s3(scratch, cluster, bucket, settings);
    walden.expect_log("s3.create_only is head-then-put");
    walden.expect_log("only as long as no two store under one name at once");
    register(cluster, &walden);
    let check = || walden.run(["check", "--check", "lifecycle"]);
    let first = check();
    assert_eq!(first.code, Some(0), "{}", first.stdout);
    assert!(first.stdout.contains("own are not set"), "{}", first.stdout);

    set_rules(bucket, &expiring("theirs", "logs/"));
    let printed: serde_json::Value =
        serde_json::from_str(&walden.ok(["lifecycle"])).expect("a document");
    assert_eq!(
        printed["Rules"][0]["Filter"]["Prefix"],
        "walden/store/main/"
    );
    assert_eq!(
        printed["Rules"][1]["NoncurrentVersionExpiration"]["NoncurrentDays"],
        90
    );
    let terraform = walden.ok(["lifecycle", "--as", "terraform"]);
    assert!(terraform.contains("noncurrent_days = 90"), "{terraform}");
    for _ in 0..2 {
        let applied = walden.ok(["lifecycle", "--apply"]);
        assert!(
            applied.contains("set 2 rules") && applied.contains("1 rule of others"),
            "{applied}"
        );
        let there = rules(bucket);
        for part in ["<ID>theirs</ID>", "incomplete uploads", "old versions"] {
            assert_eq!(there.matches(part).count(), 1, "{part}: {there}");
        }
    }
    let second = check();
    assert_eq!(second.code, Some(0), "{}", second.stdout);
    assert!(
        second.stdout.contains("as they must be"),
        "{}",
        second.stdout
    );

    let danger = expiring("tidy up", "walden/");
    set_rules(bucket, &danger);
    let told = check();
    assert_eq!(told.code, Some(2), "{}", told.stdout);
    assert!(
        told.stdout
            .contains("rule \"tidy up\" deletes objects below \"walden/\" 30 days"),
        "{}",
        told.stdout
    );
    let applied = walden.run(["lifecycle", "--apply"]);
    assert_eq!(
        applied.code,
        Some(3),
        "{}{}",
        applied.stdout,
        applied.stderr
    );
    assert!(applied.stdout.contains("DANGER: rule \"tidy up\""));
    assert!(rules(bucket).contains("<ID>tidy up</ID>"), "it is not ours");
}

#[test]
fn a_lifecycle_keeps_what_is_needed_on_moto() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let scratch = Scratch::new("lifecycle moto");
    let mut cluster = Cluster::builder(Major::newest()).start(&scratch);
    a_lifecycle_keeps_what_is_needed(&store.fresh_bucket(), &mut cluster, &scratch);
}

#[test]
fn a_lifecycle_keeps_what_is_needed_on_radosgw() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let scratch = Scratch::new("lifecycle radosgw");
    let mut cluster = Cluster::builder(Major::newest()).start(&scratch);
    a_lifecycle_keeps_what_is_needed(&store.fresh_bucket(), &mut cluster, &scratch);
}

#[test]
fn a_folder_has_no_lifecycle() {
    let scratch = Scratch::new("lifecycle folder");
    let config = scratch.write(
        "walden.toml",
        &format!(
            "repository.url = \"file://{}\"\n",
            scratch.join("repository").display()
        ),
    );
    let walden = Walden::by(&scratch, config, scratch.join("repository"));
    let said = walden.refused(1, ["lifecycle"]);
    assert!(
        said.contains("is a folder, which has no lifecycle"),
        "{said}"
    );
}
