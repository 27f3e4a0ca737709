//! `walden check`: a server at which all is well passes; each thing that is wrong is told by the check it belongs to.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{
    Cluster, Major, Output, Scratch, Stop, Walden, each_major, outer_majors, wait_until,
};
use crate::restore::take_backup;

/// A registered cluster that archives, so that each test spoils one thing. Taken apart in the order of its fields, it
/// goes away in the right order.
struct Ready {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
}

fn ready(major: Major) -> Ready {
    let scratch = Scratch::new("check");
    let builder = Cluster::builder(major)
        .setting("archive_timeout", "60s")
        .setting("wal_keep_size", "2GB");
    let mut cluster = builder.start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    take_backup(&walden);
    Ready {
        scratch,
        cluster,
        walden,
    }
}

/// What a run said.
struct Said(Value);

impl Said {
    /// Runs with `--format json`; the exit code must be this one.
    #[track_caller]
    fn by(walden: &Walden, code: i32, arguments: &[&str]) -> Self {
        Self::of(
            &walden.run([&["--format", "json", "check"], arguments].concat()),
            code,
        )
    }

    /// All is well, but for the one disk on which repository and cluster lie in tests.
    #[track_caller]
    fn well(walden: &Walden, arguments: &[&str]) -> Self {
        Self::by(walden, 1, arguments).all_but_one_disk()
    }

    #[track_caller]
    fn all_but_one_disk(self) -> Self {
        let told = ["warning", "unknown", "critical"].map(|status| self.names_of(status));
        assert_eq!(told, [vec!["place"], vec![], vec![]], "{:#}", self.0);
        self
    }

    /// The same as another role, or of another server.
    #[track_caller]
    fn with_dsn(walden: &Walden, code: i32, dsn: &str) -> Self {
        let mut command = walden.command(["--format", "json", "check"]);
        let output = command
            .env("WALDEN_POSTGRESQL__DSN", dsn)
            .output()
            .expect("run walden");
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        Self::of(
            &Output {
                code: output.status.code(),
                stdout: stdout.into(),
                stderr: stderr.into(),
            },
            code,
        )
    }

    #[track_caller]
    fn of(output: &Output, code: i32) -> Self {
        assert_eq!(
            output.code,
            Some(code),
            "{}\n{}",
            output.stdout,
            output.stderr
        );
        assert_eq!(output.stderr, "", "all is told in the document");
        Self(serde_json::from_str(&output.stdout).expect("a JSON document"))
    }

    fn checks(&self) -> &[Value] {
        self.0["checks"].as_array().expect("a list of checks")
    }

    fn names_of(&self, status: &str) -> Vec<&str> {
        let of_status = self
            .checks()
            .iter()
            .filter(|check| check["status"] == status);
        of_status
            .map(|check| check["name"].as_str().expect("a name"))
            .collect()
    }

    /// This check has this status and says these parts, in its message or hint.
    #[track_caller]
    fn says(&self, name: &str, status: &str, parts: &[&str]) -> &Self {
        let check = self.checks().iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check \"{name}\" in {:#}", self.0));
        assert_eq!(check["status"], status, "{check:#}");
        let text = format!("{} {}", check["message"], check["hint"]);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        self
    }

    /// This check could not be decided because of that one.
    #[track_caller]
    fn unknown_because(&self, name: &str, cause: &str) -> &Self {
        self.says(name, "unknown", &[cause]);
        let check = self.checks().iter().find(|check| check["name"] == name);
        assert_eq!(check.expect("the check")["because"], cause);
        self
    }
}

each_major!(all_is_well, healthy);

fn healthy(major: Major) {
    // Before 15 statistics come up to half a second late: what was archived just now may not show.
    let archived: &[&str] = if major.number >= 15 {
        &["none waits"]
    } else {
        &[]
    };
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(major);
    let service = walden.serve();
    let said = Said::well(&walden, &[]);
    assert_eq!(
        said.names_of("skipped"),
        ["create-only-large", "lifecycle", "dump", "jobs", "proof"],
        "a folder knows no parts, and deletes nothing by itself; nothing is scheduled"
    );
    let passed = said.names_of("ok").len();
    assert_eq!(passed + 6, said.checks().len(), "{:#}", said.0);
    said.says("end-to-end", "ok", &["came back the same"])
        .says("archiver", "ok", archived);
    let table = walden.run(["check"]).stdout;
    let first = table.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("WALDEN WARNING - place: the repository lies on one disk with"),
        "{table}"
    );
    assert!(
        first.ends_with(&format!("({passed} passed, 5 skipped)")),
        "{table}"
    );
    assert!(
        !walden.repository.join("main/probe").exists(),
        "probes stay behind"
    );
    let before = cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    let said = Said::well(&walden, &["--no-probe"]);
    said.says("end-to-end", "skipped", &["--no-probe"]);
    assert_eq!(
        cluster.sql("select pg_walfile_name(pg_current_wal_lsn())"),
        before,
        "nothing was switched"
    );
    service.stop();
}

#[test]
fn archiving_turned_off_is_told_with_all_that_depends_on_it() {
    let Ready {
        scratch: _scratch,
        mut cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    cluster.append_conf("archive_mode = off\n");
    cluster.restart();
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "archive-mode",
        "critical",
        &["archive_mode = off", "restart"],
    );
    for check in ["archive-command", "hook", "end-to-end", "archiver"] {
        said.unknown_because(check, "archive-mode");
    }
    assert!(
        said.0["summary"]
            .as_str()
            .expect("a summary")
            .starts_with("WALDEN CRITICAL - archive-mode: ")
    );
}

outer_majors!(
    a_command_that_stores_elsewhere_is_found_out,
    stores_elsewhere
);

fn stores_elsewhere(major: Major) {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(major);
    let _service = walden.serve();
    cluster.append_conf("archive_command = '/bin/true %p'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_command") == "/bin/true %p"
    });
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "archive-command",
        "warning",
        &["/bin/true %p", "walden init"],
    );
    said.says(
        "end-to-end",
        "critical",
        &["the server says that", "does not have it"],
    );
}

#[test]
fn a_command_of_a_library_is_told() {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    // A library and a command together are an error of the server since 16.
    cluster.append_conf("archive_command = ''\narchive_library = 'basic_archive'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_library") == "basic_archive"
    });
    let said = Said::by(&walden, 2, &["--no-probe"]);
    said.says(
        "archive-command",
        "critical",
        &["archive_library", "basic_archive"],
    );
    said.unknown_because("hook", "archive-command");
}

#[test]
fn a_hook_that_cannot_be_run_is_told_with_its_mode() {
    let Ready {
        scratch,
        cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    let hook = scratch.join("archive-command");
    fs::copy(Walden::program("archive-command"), &hook).expect("copy the hook");
    scratch.give(&hook);
    let command = walden.archive_command();
    let command = command.replace(
        &Walden::program("archive-command").display().to_string(),
        &hook.display().to_string(),
    );
    cluster.append_conf(&format!("archive_command = '{command}'\n"));
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_command") == command
    });
    let mode = |mode| {
        fs::set_permissions(&hook, fs::Permissions::from_mode(mode))
            .expect("change the hook's mode")
    };
    mode(0o755);
    Said::well(&walden, &[]).says("hook", "ok", &["archive-command"]);
    mode(0o644);
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "hook",
        "critical",
        &["may not run", "mode 0644", "chmod a+x"],
    )
    .unknown_because("end-to-end", "hook");
    fs::remove_file(&hook).expect("remove the hook");
    Said::by(&walden, 2, &[]).says("hook", "critical", &["not there"]);
}

outer_majors!(
    a_hook_that_fails_is_told_and_forgotten_once_it_works,
    hook_fails
);

fn hook_fails(major: Major) {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(major);
    let right = cluster.sql("show archive_command");
    let set = |command: &str| {
        cluster.append_conf(&format!("archive_command = '{command}'\n"));
        cluster.reload();
        wait_until("the setting counts", || {
            cluster.sql("show archive_command") == command
        });
    };
    // No service, and a program that fails in the place of `walden`.
    set(&right.replace(" %p", " --walden /bin/false %p"));
    let said = Said::by(&walden, 2, &[]);
    said.says("end-to-end", "critical", &["archive_command fails", "log"]);
    said.says(
        "archiver",
        "critical",
        &["cannot be archived", "0000000100000000000000", "s ago"],
    );
    said.says("service", "warning", &["walden serve"]);
    set(&right);
    let said = Said::by(&walden, 1, &[]);
    said.says("end-to-end", "ok", &[])
        .says("archiver", "ok", &[]);
    assert_eq!(said.names_of("warning"), ["place", "service"]);
}

#[test]
fn a_repository_that_is_gone_is_told() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    fs::rename(&walden.repository, walden.repository.with_extension("gone"))
        .expect("move the repository away");
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "repository",
        "critical",
        &["not a Walden repository", "repo sitory", "walden init"],
    );
    for check in [
        "writable",
        "create-only",
        "clock",
        "encryption",
        "identity",
        "end-to-end",
    ] {
        said.unknown_because(check, "repository");
    }
    said.says("server", "ok", &[]);
}

#[test]
fn a_repository_that_cannot_be_written_is_told() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let main = walden.repository.join("main");
    let close = |mode| {
        fs::set_permissions(&main, fs::Permissions::from_mode(mode))
            .expect("change the folder's mode")
    };
    close(0o500);
    let said = Said::by(
        &walden,
        2,
        &[
            "--check",
            "writable",
            "--check",
            "clock",
            "--check",
            "create-only",
        ],
    );
    close(0o700);
    said.says("writable", "critical", &["Permission denied", "may write"]);
    said.says("create-only", "critical", &["Permission denied"])
        .unknown_because("clock", "writable");
}

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
fn a_service_that_is_down_is_a_warning_because_the_hooks_do_without() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let said = Said::by(&walden, 1, &[]);
    assert_eq!(said.names_of("warning"), ["place", "service"]);
    said.says("service", "warning", &["main.sock", "walden serve"])
        .says("end-to-end", "ok", &["came back the same"]);
}

#[test]
fn an_archiver_that_hangs_is_not_waited_for_longer_than_told() {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(Major::newest());
    cluster.append_conf("archive_command = '/bin/sleep 8 # %p'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster
            .sql("show archive_command")
            .starts_with("/bin/sleep")
    });
    let said = Said::by(&walden, 2, &["--timeout", "1", "--check", "end-to-end"]);
    said.says(
        "end-to-end",
        "critical",
        &["did not arrive within 1 s", "--timeout"],
    );
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

#[test]
fn settings_that_cannot_be_read_and_wrong_usage_end_as_monitoring_expects() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let mut command = walden.command(["--format", "json", "check"]);
    let output = command
        .env("WALDEN_LOG__LEVEL", "loud")
        .output()
        .expect("run walden");
    let said: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(
        (output.status.code(), said["checks"][0]["status"].as_str()),
        (Some(2), Some("critical")),
        "{said:#}"
    );
    assert!(
        said["summary"]
            .as_str()
            .is_some_and(|summary| summary.contains("\"loud\"")),
        "{said:#}"
    );
    let told = walden.refused(3, ["check", "--check", "nonsense"]);
    assert!(told.contains("end-to-end"), "the names are told: {told}");
}

#[test]
fn a_file_that_others_can_change_is_a_warning() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    fs::set_permissions(&walden.config, fs::Permissions::from_mode(0o622)).expect("open the file");
    let said = Said::by(&walden, 1, &["--check", "configuration"]);
    said.says("configuration", "warning", &["0622", "chmod"]);
    assert_eq!(said.checks().len(), 1);
}
