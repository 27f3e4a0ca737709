//! Asking by curl.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Port, TOKEN, curl, registered};
use crate::harness::{Cluster, Major, Scratch, Walden, wait_until};
use crate::restore::{register, take_backup};

#[test]
fn a_clusters_state_can_be_asked_for() {
    let scratch = Scratch::new("http");
    let (port, cluster, walden) = registered(&scratch);
    let service = walden.serve();
    cluster.open_ledger();
    cluster.burst(2, 10);
    let id = take_backup(&walden);
    cluster.burst(2, 10);
    cluster.archive_now();
    let of = |path: &str| port.json(&format!("/v1/clusters/main{path}"));
    wait_until("the service has read the backup", || {
        of("/backups")["backups"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    });
    let backup = of("/backups")["backups"][0].clone();
    assert_eq!(
        (backup["id"].as_str(), backup["timeline"].as_u64()),
        (Some(id.as_str()), Some(1))
    );
    wait_until("and the newest WAL", || {
        let (state, wal) = (of(""), of("/wal"));
        state["windows"][0]["to_lsn"] == wal["ranges"][0]["end_lsn"]
            && state["last_backup"]["id"] == id.as_str()
    });
    wait_until("and what was stored", || {
        of("")["archiving"]["stored_files"]
            .as_u64()
            .is_some_and(|count| count > 0)
    });
    let state = of("");
    assert_eq!(state["windows"][0]["from_lsn"], backup["stop_lsn"]);

    // What it says is what the command says.
    let lsn = state["windows"][0]["to_lsn"].as_str().expect("an LSN");
    let answer = of(&format!("/recovery-target?lsn={lsn}&exclusive=true"));
    assert_eq!(answer["kind"], "present", "{answer}");
    let plan = walden.json(["restore", "--dry-run", "--lsn", lsn, "--exclusive"]);
    assert_eq!(
        answer["plan"]["segments"], plan["plan"]["segments"],
        "{plan}"
    );
    assert_eq!(answer["plan"]["backup"], plan["plan"]["backup"]);
    assert_eq!(
        of("/recovery-target?time=2000-01-01T00:00:00Z")["kind"],
        "past"
    );
    assert_eq!(
        of("/recovery-target?time=2100-01-01T00:00:00Z")["kind"],
        "future"
    );

    cluster.sql("create table orders as select generate_series(1, 100) id");
    cluster.sql("drop table orders");
    cluster.archive_now();
    wait_until("the drop is found", || {
        let events = of("/events?kind=drop")["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        events
            .iter()
            .any(|event| event["lsn"].is_string() && event["time"].is_string())
    });
    let drop = of("/events?kind=drop")["events"][0]["id"]
        .as_str()
        .expect("its id")
        .to_string();
    let before = format!("/recovery-target?before={drop}");
    wait_until("a plan leads to just before it", || {
        of(&before)["kind"] == "present"
    });
    let plan = walden.json(["target", "--before", &drop]);
    wait_until("both tell the same", || {
        let answer = of(&before);
        ["kind", "target", "plan"]
            .iter()
            .all(|part| answer[*part] == plan[*part])
    });

    let (status, metrics) = curl(&port.url(), "/metrics", Some(TOKEN), &[]);
    assert_eq!(status, 200);
    for name in [
        "walden_recovery_first_timestamp_seconds",
        "walden_recovery_last_timestamp_seconds",
        "walden_wal_gaps",
        "push_store",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    assert_eq!(curl(&port.url(), "/metrics", None, &[]).0, 401);
    assert_eq!(curl(&port.url(), "/healthz", None, &[]).0, 200);
    service.stop();
}

#[test]
fn a_backup_whose_manifest_was_deleted_is_not_complete_to_a_service_that_knew_it() {
    let scratch = Scratch::new("deleted");
    let (port, cluster, walden) = registered(&scratch);
    let service = walden.serve();
    cluster.open_ledger();
    let (first, second) = (take_backup(&walden), take_backup(&walden));
    cluster.archive_now();
    let of = |path: &str| port.json(&format!("/v1/clusters/main{path}"));
    let ids = |all: &Value| -> Vec<String> {
        let id = |one: &Value| {
            one.get("id")
                .unwrap_or(one)
                .as_str()
                .expect("an id")
                .to_string()
        };
        all.as_array().expect("a list").iter().map(id).collect()
    };
    // What of them is there: to the service, and to the command.
    let told = |complete: &[&String], unfinished: &[&String]| {
        wait_until(
            &format!("the service tells {complete:?} and {unfinished:?}"),
            || {
                let told = of("/backups");
                ids(&told["backups"]).iter().eq(complete.iter().copied())
                    && ids(&told["unfinished"])
                        .iter()
                        .eq(unfinished.iter().copied())
            },
        );
        let listed = walden.json(["backup", "list"]);
        assert!(
            ids(&listed["backups"]).iter().eq(complete.iter().copied()),
            "{listed}"
        );
        assert!(
            ids(&listed["unfinished"])
                .iter()
                .eq(unfinished.iter().copied()),
            "{listed}"
        );
    };
    told(&[&first, &second], &[]);
    let lsn = cluster.sql("select pg_current_wal_lsn()");
    // As a deletion does that ends after its first step: the packs are left.
    let folder = |id: &str| walden.repository.join("main/base").join(id);
    let lose =
        |id: &str| std::fs::remove_file(folder(id).join("manifest.zst")).expect("lose a manifest");
    lose(&second);
    told(&[&first], &[&second]);
    let state = of("");
    assert_eq!(
        (
            &state["last_backup"]["id"],
            state["windows"].as_array().map(Vec::len)
        ),
        (&first.clone().into(), Some(1))
    );
    let planned = of("/recovery-target?latest=true");
    assert_eq!(planned["plan"]["backup"]["id"], *first, "{planned}");
    lose(&first);
    told(&[], &[&first, &second]);
    let state = of("");
    assert!(
        state["last_backup"].is_null() && state["windows"].as_array().is_some_and(Vec::is_empty),
        "{state}"
    );
    assert_eq!(
        of(&format!("/recovery-target?lsn={lsn}"))["kind"],
        "no-data"
    );
    assert!(
        walden
            .refused(4, ["target", "--latest"])
            .contains("there is no complete base backup")
    );
    assert!(
        folder(&first).join("pack-000001").exists() && folder(&second).join("pack-000001").exists()
    );
    service.stop();
}

fn openssl(folder: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(folder)
        .output()
        .expect("run openssl");
    assert!(
        output.status.success(),
        "openssl {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn over_tls_the_certificate_is_the_one_that_was_set() {
    let scratch = Scratch::new("tls");
    let port = Port::new(&scratch);
    let mut cluster = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(&scratch);
    let folder = scratch.path();
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.crt",
    );
    scratch.give(&folder.join("tls.key"));
    scratch.give(&folder.join("tls.crt"));
    let tls = format!(
        "{}http.tls_certificate = \"{}\"\nhttp.tls_key = \"{}\"\n",
        port.settings(&scratch),
        folder.join("tls.crt").display(),
        folder.join("tls.key").display()
    );
    let walden = Walden::with(&scratch, &cluster, &tls);
    register(&mut cluster, &walden);
    let service = walden.serve();
    let url = port.url().replace("http://", "https://");
    let trust = [Path::new("--cacert"), &folder.join("tls.crt")];
    let (status, body) = curl(&url, "/v1/clusters", Some(TOKEN), &trust);
    assert!(
        status == 200 && body.contains("\"main\""),
        "{status} {body}"
    );
    assert_eq!(curl(&url, "/v1/clusters", None, &trust).0, 401);
    let plain = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "20",
            &format!("{}/healthz", port.url()),
        ])
        .output();
    assert!(
        !plain.expect("run curl").status.success(),
        "HTTP is not answered where HTTPS is spoken"
    );
    service.stop();
}

#[test]
fn an_address_that_others_reach_is_refused_without_a_token() {
    let scratch = Scratch::new("open");
    let cluster = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "http.listen = \"0.0.0.0:0\"");
    walden.ok(["init"]);
    let said = walden.refused(1, ["serve"]);
    assert!(
        said.contains("there is no token") && said.contains("HINT: set http.token_file"),
        "{said}"
    );
    let walden = Walden::named(&scratch, &cluster, "second", "http.listen = \"127.0.0.1\"");
    let said = walden.refused(1, ["serve"]);
    assert!(said.contains("http.listen"), "{said}");
}

#[test]
fn the_hooks_are_served_while_somebody_else_has_the_port() {
    let scratch = Scratch::new("port");
    let mut cluster = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(&scratch);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let spool = scratch.join("spool");
    let settings = format!(
        "http.listen = \"{address}\"\nhttp.spool = \"{}\"\n",
        spool.display()
    );
    let walden = Walden::with(&scratch, &cluster, &settings);
    walden.expect_log(&format!("cannot listen on {address}"));
    register(&mut cluster, &walden);
    let service = walden.serve();
    cluster.open_ledger();
    cluster.burst(2, 5);
    cluster.archive_now();
    let status = walden.json(["status"]);
    assert!(
        status["archiving"]["stored"]["count"]
            .as_u64()
            .is_some_and(|count| count > 0),
        "{status}"
    );
    assert!(
        status["http"]["failed"]
            .as_str()
            .is_some_and(|why| why.contains("in use")),
        "{status}"
    );
    let told = walden.ok(["status"]);
    assert!(
        told.contains(&format!("not answered on http://{address}")),
        "{told}"
    );
    let log = service.log();
    assert!(
        log.contains("HINT: ") && !log.contains("answering on"),
        "{log}"
    );
    drop(taken);
    wait_until("the service has the port", || {
        walden.json(["status"])["http"]["failed"].is_null()
    });
    let url = format!("http://{address}");
    assert_eq!(curl(&url, "/healthz", None, &[]).0, 200);
    wait_until("the repository was read", || {
        curl(&url, "/readyz", None, &[]).0 == 200
    });
    assert!(
        service.log().contains(&format!("answering on {url}")),
        "{}",
        service.log()
    );
    assert_eq!(
        service.log().matches("cannot listen on").count(),
        1,
        "it is told once"
    );
    assert!(
        walden
            .ok(["status"])
            .contains(&format!("answered on {url}"))
    );
    service.stop();
}

#[test]
fn what_can_be_restored_is_the_same_over_http_and_on_the_command_line() {
    let scratch = Scratch::new("windows");
    let (port, cluster, walden) = registered(&scratch);
    let service = walden.serve();
    cluster.open_ledger();
    take_backup(&walden);
    cluster.burst(2, 5);
    cluster.archive_now();
    cluster.burst(2, 5);
    let lost = cluster.archive_now();
    cluster.burst(2, 5);
    cluster.archive_now();
    std::fs::remove_file(walden.segment_object(&lost)).expect("lose a segment");
    walden.expect_log("is missing");
    take_backup(&walden);
    cluster.burst(2, 5);
    cluster.archive_now();
    let told = walden.json(["target"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let flat = |one: &Value| {
        ["from", "to"].map(|edge| {
            (
                one[format!("{edge}_lsn")].clone(),
                one[format!("{edge}_time")].clone(),
                one["seconds"].clone(),
            )
        })
    };
    let expected: Vec<_> = list(&told["windows"])
        .iter()
        .chain(&list(&told["unrestorable"]))
        .map(flat)
        .collect();
    assert!(
        expected.len() == 3
            && expected[2][0]
                .2
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
        "{told}"
    );
    let mut answered = Value::Null;
    wait_until("HTTP tells the same", || {
        answered = port.json("/v1/clusters/main");
        let both = list(&answered["windows"])
            .into_iter()
            .chain(list(&answered["unrestorable"]));
        both.map(|one| flat(&one)).collect::<Vec<_>>() == expected
    });
    assert_eq!(
        (&answered["gaps"], &answered["windows"][1]["timeline"]),
        (&Value::from(1), &Value::from(1))
    );
    let (_, metrics) = curl(&port.url(), "/metrics", Some(TOKEN), &[]);
    for line in [
        "walden_recovery_gaps{cluster=\"main\"} 1.0",
        "walden_wal_gaps{cluster=\"main\"} 1.0",
    ] {
        assert!(
            metrics.lines().any(|each| each == line),
            "{line} is missing in\n{metrics}"
        );
    }
    assert!(
        metrics.contains("walden_recovery_gaps_seconds"),
        "{metrics}"
    );
    service.stop();
}
