//! What an operator does, on S3: register, archive, back up, verify, restore.

use std::fs;

use crate::harness::{Cluster, Major, ObjectStore, Scratch, Walden, outer_majors};
use crate::restore::exact::exactly_as_promised_with;
use crate::restore::{arguments, register, restore, take_backup};

outer_majors!(
    a_cluster_is_archived_backed_up_and_restored,
    archive_back_up_and_restore
);

fn archive_back_up_and_restore(major: Major) {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let bucket = store.fresh_bucket();
    let scratch = Scratch::new("s3");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
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
    assert_eq!(
        cluster.sql("select failed_count from pg_stat_archiver"),
        "0",
        "{}",
        cluster.log()
    );

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
    assert!(
        !cluster.log().contains(&store.secret_access_key),
        "no secret in the server's log"
    );
}

#[test]
fn what_the_environment_says_of_the_bucket_is_refused_where_the_restored_server_would_lack_it() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let (bucket, major, scratch) = (
        store.fresh_bucket(),
        Major::newest(),
        Scratch::new("s3 env"),
    );
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::on_s3(&scratch, &cluster, &bucket, "");
    register(&mut cluster, &walden);
    cluster.open_ledger();
    take_backup(&walden);
    cluster.burst(2, 5);
    let rows = cluster.rows();
    cluster.archive_now();
    let text = fs::read_to_string(&walden.config).expect("the configuration");
    let without = |key: &str| -> String {
        text.lines()
            .filter(|line| !line.contains(key))
            .map(|l| l.to_owned() + "\n")
            .collect()
    };
    let run = |file: String, key: &str, value: &str, to: &str| {
        scratch.write("main.toml", &file);
        let mut command = walden.command(arguments(
            &major,
            &scratch.join(to),
            &["--latest", "--format", "json"],
        ));
        command.env(key, value).output().expect("run walden")
    };
    let refused = run(
        without("secret"),
        "WALDEN_S3__SECRET_ACCESS_KEY",
        &store.secret_access_key,
        "refused",
    );
    let refusal = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refusal.contains("s3.secret_access_key is set by the environment"),
        "{refusal}"
    );
    assert!(!scratch.join("refused").exists(), "nothing was written");
    // Nor is the secret taken from the file into the data directory, for what the environment adds.
    let refused = run(
        without("endpoint"),
        "WALDEN_S3__ENDPOINT",
        &store.endpoint,
        "refused",
    );
    let refusal = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refusal.contains("s3.endpoint is set by the environment") && refusal.contains("HINT: "),
        "{refusal}"
    );
    assert!(!scratch.join("refused").exists(), "nothing was written");
    let done = run(text.clone(), "TZ", "UTC", "restored");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).expect("a JSON document");
    let mut restored = Cluster::of(
        major.clone(),
        scratch.join("restored"),
        scratch.path().to_path_buf(),
    );
    let socket = said["recovered"]["socket_directory"]
        .as_str()
        .expect("a folder");
    restored.adopt(
        said["recovered"]["port"].as_u64().expect("a port") as u32,
        socket.as_ref(),
    );
    assert_eq!(restored.rows(), rows);
}

#[test]
fn a_restore_holds_exactly_what_its_target_promises() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let bucket = store.fresh_bucket();
    exactly_as_promised_with(Major::newest(), 2, |scratch, cluster| {
        Walden::on_s3(scratch, cluster, &bucket, "")
    });
}
