//! Who is asked: one machine has several clusters, repositories and services, and each hook means one of them.

use std::fs;

use crate::harness::{Cluster, Major, Scratch, Walden, wait_until};
use crate::restore::restore;

/// The same cluster in a second repository, by a configuration that names the same socket.
fn second(scratch: &Scratch, cluster: &Cluster, first: &Walden) -> Walden {
    let folder = scratch.join("second");
    let text = format!(
        "repository.url = \"file://{}\"\npostgresql.dsn = \"{}\"\nservice.socket = \"{}\"\ncatalog.cache = \"{}\"\nhttp.listen = \"\"\n",
        folder.display(),
        cluster.dsn(),
        first.socket.display(),
        scratch.join("second cache").display()
    );
    Walden::by(scratch, scratch.write("second.toml", &text), folder)
}

#[test]
fn each_hook_is_answered_for_the_cluster_and_the_repository_that_it_means() {
    let (scratch, major) = (Scratch::new("whose"), Major::newest());
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let service = walden.serve();
    walden.expect_log("a hook does its work itself");
    cluster.sql("create table t(i int)");
    walden.ok(["backup", "take"]);
    cluster.sql("insert into t select generate_series(1, 1000)");
    let last = cluster.archive_now();
    let second = second(&scratch, &cluster, &walden);
    walden.ok([
        "repo",
        "copy",
        "--to-config",
        second.config.to_str().expect("UTF-8"),
    ]);
    // The first repository ends earlier than the copy, and its service still answers on the socket that both name.
    fs::remove_file(walden.segment_object(&last)).expect("lose a segment");
    let mut restored = restore(&second, &major, scratch.join("restored"), &["--latest"]).cluster;
    assert_eq!(restored.sql("select count(*) from t"), "1000");

    // The copy is told from the original by its timeline when somebody registers it under that name.
    let told = walden
        .command(["init"])
        .env("WALDEN_POSTGRESQL__DSN", restored.dsn())
        .output()
        .expect("run walden");
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.contains("NOTE: the server is on timeline 2, which this archive does not have"),
        "{told}"
    );

    // The copy, registered under its own name, archives into its own archive by the line that init prints.
    let copy = Walden::named(&scratch, &restored, "copy", "");
    let said = copy.json(["init"]);
    assert_eq!(said["same_system"], serde_json::json!(["main"]));
    let line = said["archive_command"].as_str().expect("a line");
    assert!(
        line.contains("--config ") && line.contains("/copy.sock"),
        "{line}"
    );
    let told = copy.ok(["init"]);
    assert!(
        told.contains("same system identifier as \"main\"") && told.contains("archive_command = '"),
        "{told}"
    );
    let line = line.replace("/copy.sock", "/main.sock").replace('\'', "''");
    restored.append_conf(&format!("archive_mode = on\narchive_command = '{line}'\n"));
    restored.sql("alter system reset archive_mode");
    restored.restart();
    restored.archive_now();
    let timelines = |cluster: &str| {
        let entries = fs::read_dir(walden.repository.join(cluster).join("wal")).expect("list");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy()[..8].to_string())
            .collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(timelines("main"), ["00000001"]);
    assert_eq!(timelines("copy"), ["00000002"]);
    // PostgreSQL has handed the history of that timeline over before the copy was registered.
    // Its socket lies in its data directory, and is nothing to be warned of.
    copy.ok(["backup", "take"]);
    copy.ok(["restore", "--latest", "--dry-run"]);
    service.stop();
}

#[test]
fn a_hook_that_means_another_cluster_is_told_before_an_accident() {
    let scratch = Scratch::new("whose-check");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .setting("archive_timeout", "60s")
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let _service = walden.serve();
    let other = Walden::named(&scratch, &cluster, "other", "");
    let line = walden.archive_command();
    let config = |walden: &Walden| walden.config.display().to_string();
    let of_other = line.replace(&config(&walden), &config(&other));
    let socket_alone = line.replace(&format!("--config \"{}\" ", config(&walden)), "");
    let check = |command: &str| {
        cluster.sql(&format!("alter system set archive_command = '{command}'"));
        cluster.reload();
        wait_until("the setting counts", || {
            cluster.sql("show archive_command") == command
        });
        let output = walden.run(["check", "--check", "hook", "--check", "archive-command"]);
        (output.code, output.stdout)
    };
    for wrapped in [
        format!("timeout 600 {line}"),
        format!("test -f %p && {line}"),
        format!("env A=b {line}"),
    ] {
        assert_eq!(check(&wrapped).0, Some(0), "{wrapped}");
    }
    let (code, said) = check(&of_other);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("cluster \"other\"") && said.contains("cluster \"main\""),
        "{said}"
    );
    let alone = walden.run(["check", "--check", "archive-command"]);
    assert!(
        alone.code == Some(2) && alone.stdout.contains("cluster \"other\""),
        "{}",
        alone.stdout
    );
    let (code, said) = check(&socket_alone);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("no --config") && said.contains("HINT: set archive_command = '"),
        "{said}"
    );
    let (code, said) = check(&line.replace(".toml", ".none"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("does not exist"), "{said}");
}
