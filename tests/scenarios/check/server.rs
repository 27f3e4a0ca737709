//! The server that is asked: what its role lacks, which cluster it is, a standby, one that is down, one over TCP.

use super::{Ready, Said, ready};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, each_major};

each_major!(a_role_is_told_what_it_lacks, role_lacks);

fn role_lacks(major: Major) {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(major);
    let _service = walden.serve();
    cluster.sql("create role plain login");
    let dsn = cluster.dsn().replace("user=walden", "user=plain");
    let said = Said::with_dsn(&walden, 2, &dsn);
    said.says(
        "privileges",
        "critical",
        &["lacks REPLICATION", "ALTER ROLE"],
    );
    said.says("replication", "critical", &["plain", "REPLICATION"]);
    cluster.sql("alter role plain replication");
    let said = Said::with_dsn(&walden, 1, &dsn);
    said.says(
        "privileges",
        "warning",
        &["pg_switch_wal()", "pg_read_all_settings"],
    )
    .says("replication", "ok", &[]);
    said.says("end-to-end", "skipped", &["privileges"])
        .says("identity", "ok", &[]);
    // What the hint says is enough.
    cluster
        .sql("grant execute on function pg_create_restore_point(text), pg_switch_wal() to plain");
    cluster.sql("grant pg_read_all_settings to plain");
    Said::with_dsn(&walden, 1, &dsn).all_but_one_disk().says(
        "end-to-end",
        "ok",
        &["came back the same"],
    );
}

#[test]
fn another_cluster_than_the_registered_one_is_told_and_not_touched() {
    let Ready {
        scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    let stranger = Cluster::builder(Major::newest())
        .setting("archive_mode", "on")
        .start(&scratch);
    stranger.append_conf(&format!(
        "archive_command = '{}'\n",
        walden.archive_command()
    ));
    stranger.reload();
    let before = stranger.sql("select pg_current_wal_lsn()");
    let said = Said::with_dsn(&walden, 2, &stranger.dsn());
    said.says(
        "identity",
        "critical",
        &["system identifier", "cluster.name"],
    )
    .unknown_because("end-to-end", "identity");
    assert_eq!(stranger.sql("select pg_current_wal_lsn()"), before);
}

each_major!(a_standby_is_not_asked_to_switch, on_standby);

fn on_standby(major: Major) {
    let Ready {
        scratch,
        cluster,
        walden,
    } = ready(major);
    let _service = walden.serve();
    let standby = cluster.standby(&scratch);
    let said = Said::with_dsn(&walden, 1, &standby.dsn()).all_but_one_disk();
    said.says("server", "ok", &["standby"])
        .says("end-to-end", "skipped", &["standby"]);
    said.says("archiver", "skipped", &["promoted"])
        .says("identity", "ok", &[]);
}

#[test]
fn a_server_that_is_down_is_told_once() {
    let Ready {
        scratch: _scratch,
        mut cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    cluster.stop(Stop::Fast);
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "server",
        "critical",
        &["cannot connect", &cluster.port.to_string()],
    );
    assert_eq!(said.names_of("critical"), ["server"]);
    for check in [
        "identity",
        "archive-mode",
        "privileges",
        "hook",
        "end-to-end",
        "archiver",
    ] {
        said.unknown_because(check, "server");
    }
    said.says("service", "ok", &[])
        .says("create-only", "ok", &[]);
    // Only what is asked for, and why it is not known.
    let said = Said::by(&walden, 2, &["--check", "archiver"]);
    assert_eq!(
        (said.names_of("critical"), said.names_of("unknown")),
        (vec!["server"], vec!["archiver"])
    );
    let said = Said::by(&walden, 0, &["--check", "repository", "--check", "clock"]);
    assert_eq!(said.names_of("ok"), ["repository", "clock"]);
}

#[test]
fn a_server_on_loopback_is_known_to_be_here() {
    let scratch = Scratch::new("check");
    let mut cluster = Cluster::builder(Major::newest())
        .on_loopback()
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let dsn = format!(
        "host=127.0.0.1 port={} user=walden dbname=postgres",
        cluster.port
    );
    let said = Said::with_dsn(&walden, 1, &dsn);
    said.says("server", "ok", &["127.0.0.1"])
        .says("hook", "ok", &["server's user"]);
    said.says("end-to-end", "ok", &["came back the same"]).says(
        "archive-timeout",
        "ok",
        &["archive_timeout = 60s"],
    );
}
