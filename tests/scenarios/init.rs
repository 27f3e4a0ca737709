//! `walden init` beginning again: it is safe to repeat, and makes nothing anew that is only away.

use std::fs;

use crate::harness::{Cluster, Major, Scratch, Walden};

#[test]
fn an_archive_that_is_away_is_not_begun_anew_unless_asked_for() {
    let scratch = Scratch::new("away");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let archived = cluster.archive_now();
    // As with a disk that is not mounted: an empty folder.
    let away = walden.repository.with_extension("away");
    fs::rename(&walden.repository, &away).expect("move the repository away");
    for is_there in [false, true] {
        if is_there {
            fs::create_dir(&walden.repository).expect("make a folder");
            scratch.give(&walden.repository);
        }
        let told = walden.refused(1, ["init"]);
        assert!(
            told.contains("the server has archived before") && told.contains(&archived),
            "{told}"
        );
        assert!(
            told.contains("HINT: is its disk mounted") && told.contains("--new-repository"),
            "{told}"
        );
        assert_eq!(walden.repository.exists(), is_there);
    }
    assert_eq!(
        fs::read_dir(&walden.repository).expect("list").count(),
        0,
        "nothing was made"
    );
    // One that is there is no question.
    fs::remove_dir(&walden.repository).expect("remove the folder");
    fs::rename(&away, &walden.repository).expect("move it back");
    assert!(walden.ok(["init"]).contains("was registered before"));
    fs::rename(&walden.repository, &away).expect("move it away");
    assert!(
        walden
            .ok(["init", "--new-repository"])
            .contains("registered: system identifier")
    );
}

#[test]
fn the_way_to_the_server_is_kept_and_another_one_is_not_passed_over() {
    let scratch = Scratch::new("way");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let repository = scratch.join("kept");
    let url = format!("file://{}", repository.display());
    let walden = Walden::by(&scratch, scratch.join("kept.toml"), repository);
    let mut command = walden.command(["init", "--repository", &url, "--cluster", "main"]);
    command
        .args(["--preset", "daily"])
        .env("PGHOST", &cluster.socket_folder)
        .env("PGPORT", cluster.port.to_string());
    command
        .env("PGUSER", "walden")
        .env("PGDATABASE", "postgres")
        .env("PGPASSWORD", "s3cret");
    let output = command.output().expect("run walden");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        told.contains("keeps how to connect: PGHOST, PGPORT, PGUSER, PGDATABASE\n"),
        "{told}"
    );
    assert!(
        told.contains("NOTE: only this environment has PGPASSWORD"),
        "{told}"
    );
    assert!(
        !fs::read_to_string(&walden.config)
            .expect("the file")
            .contains("s3cret")
    );
    // What the preset promises is in force.
    let plan = walden.json(["retention", "plan"]);
    assert_eq!(plan["deletes"], serde_json::json!(false), "{plan}");
    let policy = fs::read_to_string(&walden.config).expect("the file");
    assert!(
        policy.contains("window") && policy.contains("weekly"),
        "{policy}"
    );
    // Without that environment.
    let told = walden.ok(["init"]);
    assert!(
        told.contains("exists, unchanged") && !told.contains("environment"),
        "{told}"
    );
    let told = walden.refused(1, ["init", "--dsn", "host=/elsewhere password=s3cret"]);
    assert!(
        told.contains("has another postgresql.dsn") && told.contains("HINT: edit the file"),
        "{told}"
    );
    assert!(!told.contains("s3cret"), "{told}");
}
