//! `walden check`: a server at which all is well passes; each thing that is wrong is told by the check it belongs to.

mod archiving;
mod server;
mod setup;

use serde_json::Value;

use crate::harness::{Cluster, Major, Output, Scratch, Walden, each_major};
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
        [
            "create-only-large",
            "lifecycle",
            "certificate",
            "dump",
            "jobs",
            "proof"
        ],
        "a folder knows no parts, and deletes nothing by itself; nothing is scheduled"
    );
    let passed = said.names_of("ok").len();
    assert_eq!(passed + 7, said.checks().len(), "{:#}", said.0);
    said.says("end-to-end", "ok", &["came back the same"])
        .says("archiver", "ok", archived);
    let table = walden.run(["check"]).stdout;
    let first = table.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("WALDEN WARNING - place: the repository lies on one disk with"),
        "{table}"
    );
    assert!(
        first.ends_with(&format!("({passed} passed, 6 skipped)")),
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
