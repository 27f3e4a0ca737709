//! Prometheus, its rules and a pushgateway, as others watch Walden with them; and what becomes of a push that fails.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Port, TOKEN, curl};
use crate::harness::{
    Answers, Cluster, Major, Receiver, Scratch, Walden, finish, say_skipped, wait_until,
};
use crate::restore::{register, take_backup};

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// A program; `None`, said aloud, where it was not brought.
fn tool(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/http/prometheus");
    let tool = folder.join(name);
    if !tool.exists() {
        say_skipped("metrics for others: skipped (tests/http-tools brings Prometheus)");
        return None;
    }
    Some(tool)
}

/// A program that serves HTTP on loopback until this goes away.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(mut command: Command, log: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        drop(listener);
        let log = fs::File::create(log).expect("make a log");
        let child = command
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let server = Self {
            child: child.expect("start a server"),
            address,
        };
        wait_until("the server answers", || {
            TcpStream::connect(&server.address).is_ok() && server.get("/-/ready").0 == 200
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn get(&self, path: &str) -> (u16, String) {
        curl(&self.url(), path, None, &[])
    }

    /// What an expression finds now. Errors: it is none.
    fn query(&self, expression: &str) -> Vec<Value> {
        let escaped: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let (status, text) = self.get(&format!("/api/v1/query?query={escaped}"));
        assert_eq!(status, 200, "{expression}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("a JSON document");
        answer["data"]["result"]
            .as_array()
            .expect("a result")
            .clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the panels of the dashboard ask, as Prometheus knows it.
fn dashboard() -> Vec<String> {
    let text = fs::read_to_string(shipped("grafana/walden.json")).expect("read the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("a JSON document");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let filled = |target: &Value| {
        let expression = target["expr"].as_str().expect("an expression");
        expression
            .replace("$__rate_interval", "1m")
            .replace("$cluster", "main")
    };
    targets.map(filled).collect()
}

#[test]
fn promtool_takes_the_rules_their_tests_and_the_dashboard() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    let scratch = Scratch::new("promtool");
    let records: String = dashboard()
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            format!("      - {{record: 'panel{number}', expr: '{expression}'}}\n")
        })
        .collect();
    let panels = scratch.write(
        "panels.yml",
        &format!("groups:\n  - name: panels\n    rules:\n{records}"),
    );
    for (verb, file) in [
        ("check", shipped("prometheus/walden.rules.yml")),
        ("test", shipped("prometheus/walden.rules.test.yml")),
        ("check", panels),
    ] {
        let output = Command::new(&promtool)
            .args([verb, "rules"])
            .arg(&file)
            .output()
            .expect("run promtool");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success() && said.contains("SUCCESS"),
            "{verb} {}: {said}",
            file.display()
        );
    }
}

/// A cluster with a base backup, a dump and what is told of them.
fn watched(scratch: &Scratch) -> (Port, Cluster, Walden) {
    let port = Port::new(scratch);
    let mut cluster = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(scratch);
    let channels = scratch.write(
        "alerts.toml",
        "[[command]]\nname = \"note\"\ncommand = [\"cat\"]\n",
    );
    let settings = format!(
        "{}metrics.runbook_names = true\nhealth.backup_age = \"1s\"\nhealth.disk_used = 100\n\
         schedule.dump = \"0 * * * *\"\nschedule.in_service = false\ncatalog.names_interval = \"1s\"\n\
         alerts.file = \"{}\"\nalerts.interval = \"1s\"\n",
        port.settings(scratch),
        channels.display()
    );
    let walden = Walden::with(scratch, &cluster, &settings);
    register(&mut cluster, &walden);
    take_backup(&walden);
    walden.ok(["jobs", "run", "dump"]);
    walden.ok(["repo", "verify"]);
    cluster.sql("create table t(a int)");
    cluster.archive_now();
    (port, cluster, walden)
}

fn prometheus(scratch: &Scratch, port: &Port, gateway: &Server) -> Option<Server> {
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n\
         \x20 - job_name: walden\n\
         \x20   authorization: {{credentials_file: '{}'}}\n\
         \x20   static_configs: [{{targets: ['127.0.0.1:{}']}}]\n\
         \x20 - job_name: pushgateway\n\
         \x20   honor_labels: true\n\
         \x20   static_configs: [{{targets: ['{}']}}]\n",
        shipped("prometheus/walden.rules.yml").display(),
        port.token_file.display(),
        port.number,
        gateway.address
    );
    let config = scratch.write("prometheus.yml", &config);
    let mut command = Command::new(tool("prometheus")?);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            scratch.join("tsdb").display()
        ));
    Some(Server::start(command, &scratch.join("prometheus.log")))
}

#[test]
fn prometheus_scrapes_and_a_pushgateway_takes_what_walden_tells() {
    let Some(program) = tool("prometheus-pushgateway") else {
        return;
    };
    let scratch = Scratch::new("prometheus");
    let gateway = Server::start(Command::new(program), &scratch.join("gateway.log"));
    let (port, cluster, walden) = watched(&scratch);
    let service = walden.serve();
    wait_until("the service has read the repository", || {
        curl(&port.url(), "/readyz", Some(TOKEN), &[]).0 == 200
    });
    // By this it knows what waits.
    cluster.archive_now();
    let old =
        "walden_health_rule{cluster=\"main\",instance=\"\",job=\"walden\",rule=\"BackupOld\"} 1";
    wait_until("what is pushed tells of the backup", || {
        walden.ok(["status", "--push-metrics", &gateway.url()]);
        gateway.get("/metrics").1.contains(old)
    });
    let Some(prometheus) = prometheus(&scratch, &port, &gateway) else {
        return;
    };
    let scraped = format!("instance=\"127.0.0.1:{}\"", port.number);
    let pushed = "instance=\"\",job=\"walden\",cluster=\"main\"";
    for from in [&*scraped, pushed] {
        for found in [
            format!("walden_wal_segments{{{from}}} > 0"),
            format!("walden_health_rule{{{from},rule=\"BackupOld\"}} == 1"),
            format!("walden_job_failures_in_a_row{{{from},exported_job=\"dump\"}} == 0"),
            format!("walden_dump_last_bytes{{{from},database=\"postgres\"}} > 0"),
            format!("time() - backup_last_success_timestamp{{{from},type=\"base\"}} < 900"),
            format!("backup_size_bytes{{{from},type=\"dump\"}} > 0"),
            format!("backup_validation_success{{{from}}} == 1"),
        ] {
            wait_until(&format!("Prometheus has {found}"), || {
                !prometheus.query(&found).is_empty()
            });
        }
    }
    wait_until("the rules see what is not good", || {
        let alerts = prometheus.get("/api/v1/alerts").1;
        alerts.contains("\"WaldenBackupOld\"")
    });
    let alerts = prometheus.get("/api/v1/alerts").1;
    assert!(!alerts.contains("WaldenDown"), "{alerts}");
    the_dashboard_shows(&prometheus);
    drop(prometheus);
    service.stop();
    without_a_service(&walden, &gateway);
}

/// All of it, but for what did not happen.
fn the_dashboard_shows(prometheus: &Server) {
    let absent = ["oldest_timestamp", "kind=\"schema\"", "channel_failures"];
    for expression in dashboard() {
        let expression = expression.replace("[1m]", "[5s]");
        let may_be_empty = absent.iter().any(|part| expression.contains(part));
        wait_until(&format!("the dashboard shows {expression}"), || {
            !prometheus.query(&expression).is_empty() || may_be_empty
        });
    }
}

/// From cron, where none runs: figures of before do not stay as if they were still true.
fn without_a_service(walden: &Walden, gateway: &Server) {
    let shown = walden.ok(["status", "--push-metrics", &gateway.url()]);
    assert!(
        shown.starts_with("service    none answers\n") && shown.contains("lost now"),
        "{shown}"
    );
    let unreadable = |value: &str| {
        let figures = gateway.get("/metrics").1;
        let line = figures
            .lines()
            .find(|line| line.starts_with("walden_repository_unreadable{"));
        assert!(
            line.is_some_and(|line| line.ends_with(value)),
            "{line:?} {figures}"
        );
        figures
    };
    assert!(unreadable(" 0").contains("walden_wal_segments{"));
    let aside = walden.repository.with_extension("aside");
    fs::rename(&walden.repository, &aside).expect("take the repository away");
    let lost = walden.run(["status", "--push-metrics", &gateway.url()]);
    fs::rename(&aside, &walden.repository).expect("put it back");
    assert_eq!(lost.code, Some(1), "{lost:?}");
    assert!(lost.stdout.contains("lost now   not known: "), "{lost:?}");
    assert!(!unreadable(" 1").contains("walden_wal_segments{"));
}

#[test]
fn a_push_that_fails_is_told_and_hides_nothing() {
    let scratch = Scratch::new("push-fails");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "");
    register(&mut cluster, &walden);
    let (refusing, silent) = (
        Receiver::start(Answers::With(400)),
        Receiver::start(Answers::Never),
    );
    let push = |url: &str| walden.command(["status", "--push-metrics", url]);
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("http://{}", listener.local_addr().expect("its address"))
    };
    for (url, said) in [
        (refusing.url(""), "answered 400"),
        (dead, "Connection refused"),
        ("http://user:secret@127.0.0.1:1".into(), "has a user in it"),
        ("pushgateway".into(), "the URL cannot be used"),
        (silent.url(""), "no answer came within 10 s"),
    ] {
        let output = finish(&mut push(&url));
        assert_eq!(output.code, Some(9), "{url}: {output:?}");
        assert!(
            output.stdout.contains("lost now") && output.stderr.contains(said),
            "{url}: {output:?}"
        );
        assert!(
            output
                .stderr
                .starts_with("ERROR: the metrics cannot be pushed: ")
                && output.stderr.contains("\nHINT: ")
                && !output.stderr.contains("secret"),
            "{url}: {output:?}"
        );
    }
    refusing.answer_with(Answers::With(202));
    assert_eq!(finish(&mut push(&refusing.url("/behind/"))).code, Some(0));
    let taken = refusing.requests("/behind/metrics/job/walden/cluster/main");
    assert!(taken[0].start.starts_with("PUT "), "{}", taken[0].start);
    assert_eq!(taken[0].header("authorization"), None);
    let token = scratch.write("push.token", "push-token\n");
    let with_token = ("WALDEN_METRICS__PUSH_TOKEN_FILE", token.as_os_str());
    for (mode, code) in [(0o644, 9), (0o600, 0)] {
        fs::set_permissions(&token, fs::Permissions::from_mode(mode)).expect("set the mode");
        let output = finish(push(&refusing.url("")).envs([with_token]));
        assert_eq!(output.code, Some(code), "{mode:o} {output:?}");
    }
    let taken = refusing.requests("/metrics/job/walden/cluster/main");
    assert_eq!(taken[0].header("authorization"), Some("Bearer push-token"));
    // As Nagios has it.
    walden.refused(3, ["status", "--nagios", "--push-metrics", "http://x"]);
}
