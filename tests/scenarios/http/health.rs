//! What is told as good can be restored: the check, `walden status`, `walden target`, the page, the API and the metrics
//! say the same of the same archive; the page's cards are made of the API's answer.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::{Port, TOKEN, curl};
use crate::harness::{Cluster, Major, Scratch, Walden, clock_ahead, finish, wait_until};
use crate::restore::{register, take_backup};

struct Watched {
    _scratch: Scratch,
    port: Port,
    cluster: Cluster,
    walden: Walden,
}

/// A cluster that the service asks every second.
fn watched() -> Watched {
    scheduled("")
}

/// The same with settings of a schedule.
fn scheduled(schedule: &str) -> Watched {
    let scratch = Scratch::new("health");
    let port = Port::new(&scratch);
    let mut cluster = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(&scratch);
    let settings = port.settings(&scratch)
        + "catalog.names_interval = \"1s\"\nhealth.disk_used = 100\n"
        + schedule;
    let walden = Walden::with(&scratch, &cluster, &settings);
    register(&mut cluster, &walden);
    cluster.sql("create table t(a int)");
    Watched {
        _scratch: scratch,
        port,
        cluster,
        walden,
    }
}

impl Watched {
    fn api(&self) -> Value {
        self.port.json("/v1/clusters/main")
    }

    fn metric(&self, name: &str) -> String {
        let metrics = curl(&self.port.url(), "/metrics", Some(TOKEN), &[]).1;
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_string);
        line.unwrap_or_default()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_string()
    }

    /// The checks of what is archived, by name, and the exit code.
    fn check(&self) -> (Value, Option<i32>) {
        self.checked(&["backup", "recovery", "rpo"], [])
    }

    fn checked(
        &self,
        names: &[&str],
        variables: impl IntoIterator<Item = (&'static str, String)>,
    ) -> (Value, Option<i32>) {
        let names = names.iter().flat_map(|name| ["--check", name]);
        let line: Vec<&str> = ["--format", "json", "check"]
            .into_iter()
            .chain(names)
            .collect();
        let output = finish(self.walden.command(line).envs(variables));
        let said: Value = serde_json::from_str(&output.stdout).expect("a document");
        let checks = said["checks"].as_array().expect("checks").iter();
        (
            checks
                .map(|check| {
                    (
                        check["name"].as_str().expect("a name").to_string(),
                        check.clone(),
                    )
                })
                .collect(),
            output.code,
        )
    }

    /// The service is asked anew, and with everybody else tells of these broken rules alone.
    #[track_caller]
    fn all_tell(&self, rules: &[&str]) {
        let service = self.walden.serve();
        wait_until("the service has looked at the jobs", || {
            let metrics = curl(&self.port.url(), "/metrics", Some(TOKEN), &[]).1;
            metrics.contains("walden_job_failures_in_a_row{")
                && metrics.contains("walden_health_rule{")
        });
        let (api, status) = (self.api(), self.walden.json(["status"]));
        let checks = self.checked(&["dump", "jobs"], []).0.to_string();
        for problems in [&api["health"]["problems"], &status["health"]["problems"]] {
            let problems = problems.as_array().expect("problems").iter();
            let about = problems.filter(|problem| {
                ["dump", "jobs"]
                    .iter()
                    .any(|about| problem["about"] == *about)
            });
            let mut told: Vec<&str> = about
                .map(|one| {
                    let (what, next) = (one["what"].to_string(), one["next"].to_string());
                    assert!(checks.contains(what.trim_matches('"')), "{what} {checks}");
                    assert!(next.contains("walden jobs"), "{next}");
                    one["rule"].as_str().expect("a rule")
                })
                .collect();
            told.sort_unstable();
            assert_eq!(told, rules, "{api:#}");
        }
        for rule in [
            "DumpOld",
            "JobFailed",
            "JobFailsAgain",
            "JobOverdue",
            "NoDump",
        ] {
            let shown = self.metric(&format!(
                "walden_health_rule{{cluster=\"main\",rule=\"{rule}\"}}"
            ));
            assert_eq!(shown != "0", rules.contains(&rule), "{rule} {shown}");
        }
        service.stop();
    }

    /// Everybody says this, and names the part in their reasons.
    #[track_caller]
    fn all_say(&self, rpo: &str, recovery: &str, part: &str) {
        let words = |level: &str| match level {
            "good" => ("ok", "0"),
            "critical" => ("critical", "2"),
            other => panic!("{other}"),
        };
        wait_until("the service has seen it", || {
            self.api()["rpo"]["level"] == rpo
        });
        let (api, (checks, code)) = (self.api(), self.check());
        for (check, level) in [("rpo", rpo), ("recovery", recovery)] {
            assert_eq!(checks[check]["status"], words(level).0, "{checks:#}");
            let metrics = curl(&self.port.url(), "/metrics", Some(TOKEN), &[]).1;
            let line = metrics.lines().find(|line| {
                line.starts_with("walden_health_status{")
                    && line.contains(&format!("check=\"{check}\""))
            });
            assert!(
                line.is_some_and(|line| line.ends_with(words(level).1)),
                "{check} {line:?}"
            );
        }
        let worst = if [rpo, recovery].contains(&"critical") {
            "critical"
        } else {
            "good"
        };
        assert_eq!(
            code,
            Some(if worst == "critical" { 2 } else { 0 }),
            "{checks:#}"
        );
        assert_eq!(api["health"]["level"], worst, "{api:#}");
        let status = self.walden.json(["status"]);
        assert_eq!(status["health"]["status"], worst, "{status:#}");
        assert_eq!(status["health"]["timeline"], api["windows"][0]["timeline"]);
        let (table, target) = (self.walden.ok(["target"]), self.walden.json(["target"]));
        let shown = self.walden.ok(["status"]);
        for text in [
            target["problems"].to_string(),
            status["health"].to_string(),
            table,
            shown,
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}

#[test]
fn a_hole_behind_the_last_backup_is_told_everywhere_until_there_is_a_new_backup() {
    let watched = watched();
    let Watched {
        cluster, walden, ..
    } = &watched;
    let service = walden.serve();
    take_backup(walden);
    cluster.archive_now();
    watched.all_say("good", "good", "");
    cluster.append_conf("archive_command = '/bin/true %p'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_command") == "/bin/true %p"
    });
    // It would store them ahead of being asked.
    service.stop();
    let before = cluster.sql(
        "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')",
    );
    for row in 0..3 {
        cluster.sql(&format!("insert into t values({row})"));
        cluster.archive_now();
    }
    cluster.append_conf(&format!(
        "archive_command = '{}'\n",
        walden.archive_command()
    ));
    cluster.reload();
    wait_until("the setting counts", || {
        cluster
            .sql("show archive_command")
            .contains("archive-command")
    });
    let service = walden.serve();
    cluster.sql("insert into t values(9)");
    cluster.archive_now();
    // A later segment could be stored first: for ten seconds this may be no hole.
    watched.all_say("critical", "critical", "cannot be restored");
    let (api, checks) = (watched.api(), watched.check().0);
    assert!(
        api["rpo"]["protected_until"].as_str().expect("a time") < before.as_str(),
        "{before} {api:#}"
    );
    let told = checks["recovery"].to_string();
    assert!(
        told.contains("are missing (3 segments)") && told.contains("walden backup take"),
        "{told}"
    );
    assert_eq!(
        watched.metric("walden_recovery_unrestorable_segments"),
        "1.0"
    );
    let rule = |name: &str| {
        watched.metric(&format!(
            "walden_health_rule{{cluster=\"main\",rule=\"{name}\"}}"
        ))
    };
    assert_eq!(
        [
            rule("WalGap"),
            rule("WalUnrestorable"),
            rule("WalWaits"),
            rule("NoBackup")
        ],
        ["2", "2", "0", "0"]
    );
    assert_eq!(api["health"]["problems"][0]["rule"], "WalGap", "{api:#}");
    let strict = walden
        .command(["check", "--check", "backup"])
        .env("WALDEN_HEALTH__BACKUP_AGE", "1s")
        .output();
    let strict = strict.expect("run walden");
    let said = String::from_utf8_lossy(&strict.stdout);
    assert!(
        strict.status.code() == Some(1)
            && said.contains("the newest base backup that can be used is"),
        "{said}"
    );
    take_backup(walden);
    cluster.archive_now();
    wait_until("the service has seen the new backup", || {
        watched.api()["rpo"]["level"] == "good"
    });
    assert_eq!(
        watched.check().0["recovery"]["status"],
        "warning",
        "a gap between two backups stays"
    );
    service.stop();
}

#[test]
fn an_idle_server_loses_nothing_until_it_commits() {
    let watched = watched();
    let service = watched.walden.serve();
    take_backup(&watched.walden);
    watched.cluster.sql("insert into t values(1)");
    watched.cluster.archive_now();
    let seconds = |watched: &Watched| watched.api()["rpo"]["seconds"].as_f64().unwrap_or(f64::MAX);
    wait_until("it is proven that nothing followed", || {
        watched.api()["rpo"]["evidence"] == "idle"
    });
    for _ in 0..4 {
        sleep(Duration::from_secs(2));
        assert!(seconds(&watched) < 6.0, "{:#}", watched.api());
    }
    watched.all_say("good", "good", "");
    let until = watched.api()["rpo"]["protected_until"].clone();
    watched.cluster.sql("insert into t values(2)");
    sleep(Duration::from_secs(3));
    let late = watched.api()["rpo"]["protected_until"].clone();
    sleep(Duration::from_secs(2));
    assert_eq!(
        watched.api()["rpo"]["protected_until"],
        late,
        "what is not archived would be lost"
    );
    assert!(late.as_str() >= until.as_str());
    service.stop();
}

#[test]
fn backups_that_cannot_be_used_are_told_and_without_any_nothing_is_good() {
    let watched = watched();
    let service = watched.walden.serve();
    let said = watched.check();
    assert_eq!(
        (said.0["backup"]["status"].as_str(), said.1),
        (Some("warning"), Some(1)),
        "{said:?}"
    );
    let id = take_backup(&watched.walden);
    watched.cluster.archive_now();
    watched.all_say("good", "good", "");
    let manifest = watched
        .walden
        .repository
        .join("main/base")
        .join(&id)
        .join("manifest.zst");
    fs::write(&manifest, "no manifest").expect("damage the manifest");
    let (checks, code) = watched.check();
    assert_eq!(
        (checks["backup"]["status"].as_str(), code),
        (Some("critical"), Some(2)),
        "{checks:#}"
    );
    assert!(
        checks["backup"]["message"]
            .as_str()
            .expect("a message")
            .contains(&id),
        "{checks:#}"
    );
    // A complete manifest never changes: the service reads each once.
    service.stop();
    let service = watched.walden.serve();
    wait_until("the service has read it", || {
        curl(&watched.port.url(), "/readyz", Some(TOKEN), &[]).0 == 200
    });
    let api = watched.api();
    assert_eq!(api["rpo"]["level"], "critical", "{api:#}");
    assert!(api["rpo"]["protected_until"].is_null(), "{api:#}");
    service.stop();
}

#[test]
fn dumps_jobs_and_the_disk_are_told_everywhere() {
    // Others are to run them.
    let watched = scheduled("schedule.dump = \"0 * * * *\"\nschedule.in_service = false\n");
    let (walden, port) = (&watched.walden, &watched.port);
    let no_server = ("WALDEN_POSTGRESQL__DSN", "host=/nowhere");
    let failing = finish(walden.command(["jobs", "run", "dump"]).envs([no_server]));
    assert_eq!(failing.code, Some(1), "{failing:?}");
    watched.all_tell(&["JobFailed", "NoDump"]);
    walden.ok(["jobs", "run", "dump"]);
    watched.all_tell(&[]);

    let service = walden.serve();
    wait_until("the service has looked at the jobs", || {
        let jobs = port.json("/v1/clusters/main/jobs")["jobs"].clone();
        let jobs = jobs.as_array().expect("jobs");
        jobs.iter()
            .any(|job| job["job"] == "dump" && job["last_success"].is_object())
    });
    let api = watched.api();
    let dump = api["dumps"].as_array().expect("dumps").iter();
    let dump = dump.clone().find(|dump| dump["database"] == "postgres");
    let dump = dump.unwrap_or_else(|| panic!("{api:#}"));
    let size = dump["bytes"].as_f64().expect("a size");
    let listed = walden.json(["dump", "list"]).to_string();
    assert!(
        size > 0.0 && listed.contains(dump["id"].as_str().expect("an id")),
        "{listed}"
    );
    let of = |name: &str, labels: &str| {
        watched.metric(&format!("walden_{name}{{cluster=\"main\"{labels}}}"))
    };
    let labels = ",database=\"postgres\",kind=\"full\"";
    assert_eq!(of("dump_last_bytes", labels).parse(), Ok(size));
    for name in ["job_next_run", "job_last_run", "job_last_success"] {
        let seconds = of(&format!("{name}_timestamp_seconds"), ",job=\"dump\"");
        assert!(
            seconds.parse::<f64>().is_ok_and(|seconds| seconds > 1e9),
            "{name} {seconds}"
        );
    }
    let disk = &api["disk"];
    assert!(
        disk["percent"]
            .as_u64()
            .is_some_and(|percent| percent <= 100),
        "{disk}"
    );
    let free: f64 = of("repository_disk_free_bytes", "")
        .parse()
        .expect("a number");
    assert!(
        free > 0.0 && free < 2.0 * disk["free_bytes"].as_f64().expect("a number"),
        "{disk}"
    );
    let full = [("WALDEN_HEALTH__DISK_USED", "1".to_string())];
    let (checks, code) = watched.checked(&["space"], full);
    let is_told = disk["percent"].as_u64() > Some(1);
    assert_eq!(code != Some(0), is_told, "{checks:#}");

    // Four hours later nobody has run the job.
    let late = watched.checked(&["dump", "jobs"], clock_ahead(4 * 3600)).0;
    for (check, part) in [
        ("dump", "the newest dump of job dump is 4 h old"),
        ("jobs", "job dump is due since"),
    ] {
        assert_eq!(late[check]["status"], "warning", "{late:#}");
        let message = late[check]["message"].as_str().expect("a message");
        assert!(message.starts_with(part), "{message}");
    }
    service.stop();
}
