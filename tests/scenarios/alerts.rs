//! Alerts over real channels: whom they reach, in which form, once, and that a dead channel holds nothing up.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{
    Answers, Cluster, Major, Receiver, Scratch, Walden, run_as_server, say_skipped, wait_until,
};
use crate::restore::{register, take_backup};

/// Nothing can be restored from the first WAL on; nobody waits.
const SETTINGS: &str = "health.first_backup = \"1s\"\nalerts.interval = \"1s\"\nalerts.hold = \"0s\"\nalerts.timeout = \"2s\"\nhttp.refresh_interval = \"1s\"";

/// A file that only the server's user reads.
pub fn secret(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("close the file");
    path.display().to_string()
}

pub fn walden_with(scratch: &Scratch, cluster: &Cluster, channels: &str, further: &str) -> Walden {
    let file = scratch.write("alerts.toml", channels);
    let settings = format!(
        "{SETTINGS}\nalerts.file = \"{}\"\n{further}",
        file.display()
    );
    Walden::with(scratch, cluster, &settings)
}

/// A server whose WAL is archived, without a base backup for longer than is good.
pub fn unprotected(scratch: &Scratch, channels: &str) -> (Cluster, Walden) {
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(scratch);
    let walden = walden_with(scratch, &cluster, channels, "");
    register(&mut cluster, &walden);
    cluster.archive_now();
    wait_until("a base backup is overdue", || {
        let health = walden.run(["alert", "check"]);
        health.stdout.contains("NoBackup ") || health.stderr.contains("NoBackup ")
    });
    (cluster, walden)
}

/// A mail server that wants STARTTLS and a login.
pub struct MailServer {
    child: Child,
    pub port: String,
    folder: PathBuf,
}

impl MailServer {
    /// `None` without aiosmtpd.
    pub fn start(scratch: &Scratch, certificate: &Path, key: &Path) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tool = root.join("target/http/aiosmtpd");
        if !tool.exists() {
            return None;
        }
        let folder = scratch.folder("mails");
        let mut child = Command::new("python3")
            .env("PYTHONPATH", &tool)
            .arg(root.join("tests/smtp-server"))
            .args([&*folder, certificate, key])
            .args(["walden", "mail-password"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the mail server");
        let mut port = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut port).expect("its port");
        let port = port.trim().to_string();
        Some(Self {
            child,
            port,
            folder,
        })
    }

    fn mails(&self) -> Vec<Value> {
        let entries = fs::read_dir(&self.folder).expect("list mails").flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        paths.sort();
        let read = |path: &PathBuf| {
            serde_json::from_slice(&fs::read(path).expect("read a mail")).expect("a mail")
        };
        paths.iter().map(read).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

pub fn certificate(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let (certificate, key) = (scratch.join("mail.crt"), scratch.join("mail.key"));
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("run openssl");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    scratch.give(&certificate);
    (certificate, key)
}

/// Whether one of these bodies says so of an alert.
pub fn says(bodies: &[Value], status: &str, alert: &str) -> bool {
    bodies
        .iter()
        .any(|body| body["status"] == status && body["alert"] == alert)
}

/// One channel of each kind.
fn all_channels(
    scratch: &Scratch,
    receiver: &Receiver,
    (mails, certificate): (&MailServer, &Path),
    noted: &Path,
) -> String {
    format!(
        r#"
        [[webhook]]
        name = "hook"
        url = "{hook}"
        bearer_file = "{bearer}"
        headers = {{ "X-Team" = "databases" }}
        method = "PUT"
        body = '{{"status": "{{{{status}}}}", "alert": "{{{{alert}}}}", "mine": "{{{{what}}}}"}}'
        [[slack]]
        name = "slack"
        url_file = "{slack}"
        [[pagerduty]]
        name = "pager"
        key_file = "{pager}"
        url = "{pager_url}"
        least = "critical"
        [[mail]]
        name = "mail"
        host = "localhost"
        port = {port}
        user = "walden"
        password_file = "{password}"
        ca_file = "{certificate}"
        from = "Walden <walden@db1.example>"
        to = ["ops@db1.example", "dba@db1.example"]
        [[command]]
        name = "note"
        command = ["sh", "-c", "cat >>'{noted}'; echo >>'{noted}'"]
        [[heartbeat]]
        name = "backups"
        of = "backup"
        url = "{beat}"
        [[rule]]
        rule = "NothingYet"
        silent = true
        "#,
        hook = receiver.url("/hook?a=b"),
        bearer = secret(scratch, "bearer", "bearer-token\n"),
        slack = secret(scratch, "slack", &receiver.url("/services/slack-secret")),
        pager = secret(scratch, "pager", "pager-key"),
        pager_url = receiver.url("/v2/enqueue"),
        port = mails.port,
        password = secret(scratch, "password", "mail-password\n"),
        certificate = certificate.display(),
        noted = noted.display(),
        beat = receiver.url("/beat"),
    )
}

fn slack_and_pagerduty_have_their_forms(receiver: &Receiver) {
    let slack = receiver.bodies("/services/slack-secret");
    let told = |text: &str| slack.iter().any(|body| body["text"] == text);
    assert!(
        told("main firing: NoBackup") && told("main resolved: NoBackup"),
        "{slack:?}"
    );
    let events = receiver.bodies("/v2/enqueue");
    let of = |action: &str| {
        let found = events.iter().find(|event| {
            event["event_action"] == action && event["payload"]["class"] == "NoBackup"
        });
        found
            .unwrap_or_else(|| panic!("no {action} in {events:?}"))
            .clone()
    };
    let (trigger, resolve) = (of("trigger"), of("resolve"));
    assert_eq!(
        (&trigger["routing_key"], &trigger["payload"]["severity"]),
        (&"pager-key".into(), &"critical".into())
    );
    assert_eq!(trigger["dedup_key"], resolve["dedup_key"]);
}

fn mails_are_encrypted_and_sent_by_a_user(mails: &MailServer) {
    let mailed = mails.mails();
    let mail = mailed.iter().find(|mail| {
        mail["text"]
            .as_str()
            .unwrap()
            .contains("Subject: [walden main] firing critical: NoBackup")
    });
    let mail = mail.unwrap_or_else(|| panic!("{mailed:?}"));
    assert_eq!(
        (&mail["tls"], &mail["user"]),
        (&true.into(), &"walden".into())
    );
    assert_eq!(mail["to"].as_array().unwrap().len(), 2);
}

#[test]
fn every_kind_of_channel_is_told_once_and_when_it_is_over() {
    let scratch = Scratch::new("alert-channels");
    let receiver = Receiver::start(Answers::With(204));
    let (certificate, key) = certificate(&scratch);
    let Some(mails) = MailServer::start(&scratch, &certificate, &key) else {
        return say_skipped("alerts by mail: skipped (tests/http-tools brings aiosmtpd)");
    };
    let noted = scratch.folder("noted").join("note");
    let channels = all_channels(&scratch, &receiver, (&mails, &certificate), &noted);
    let (_cluster, walden) = unprotected(&scratch, &channels);
    // Told by one of the checks before; none repeats it.
    assert_eq!(walden.run(["alert", "check"]).code, Some(2));
    let hooks = receiver.bodies("/hook?a=b");
    let told = |alert: &str| hooks.iter().filter(|body| body["alert"] == alert).count();
    assert_eq!(told("NoBackup"), 1, "{hooks:?}");
    let request = &receiver.requests("/hook?a=b")[0];
    assert!(request.start.starts_with("PUT "), "{}", request.start);
    assert_eq!(request.header("authorization"), Some("Bearer bearer-token"));
    assert_eq!(request.header("x-team"), Some("databases"));
    assert!(receiver.requests("/beat").is_empty(), "there is no backup");

    take_backup(&walden);
    let check = walden.run(["alert", "check"]);
    assert!(!check.stdout.contains("NoBackup "), "{check:?}");
    let hooks = receiver.bodies("/hook?a=b");
    assert!(says(&hooks, "resolved", "NoBackup"), "{hooks:?}");
    assert_eq!(receiver.requests("/beat").len(), 1);
    slack_and_pagerduty_have_their_forms(&receiver);
    mails_are_encrypted_and_sent_by_a_user(&mails);
    let noted = fs::read_to_string(&noted).expect("what the command noted");
    let noted: Vec<Value> = noted
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        says(&noted, "firing", "NoBackup") && says(&noted, "resolved", "NoBackup"),
        "{noted:?}"
    );

    let tested = walden.ok(["alert", "test"]);
    assert_eq!(tested.matches("told ").count(), 5, "{tested}");
    assert!(says(&receiver.bodies("/hook?a=b"), "firing", "Test"));
    let list = walden.json(["alert", "list", "--all"]);
    let over = list["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|alert| alert["rule"] == "NoBackup");
    assert!(over.unwrap()["resolved_at"].is_string(), "{list}");
    let state = fs::read_dir(walden.repository.join("main/alerts/state")).unwrap();
    for object in state {
        let text = fs::read_to_string(object.unwrap().path()).unwrap();
        for secret in ["slack-secret", "pager-key", "bearer-token", "mail-password"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_used_keeps_no_wal_from_being_archived() {
    let scratch = Scratch::new("alert-broken");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = walden_with(
        &scratch,
        &cluster,
        "[[webhook]]\npassword = \"hunter2\"\n",
        "",
    );
    walden.expect_log("nobody is told of alerts until the service is started again");
    register(&mut cluster, &walden);
    let service = walden.serve();
    cluster.archive_now();
    service.stop();
    let refused = walden.run(["alert", "check"]);
    assert!(
        refused.stderr.contains("line 2") && !refused.stderr.contains("hunter2"),
        "{refused:?}"
    );
}

#[test]
fn a_dead_channel_holds_nothing_up_and_is_told_on_the_others() {
    let scratch = Scratch::new("alert-dead");
    let (live, dead) = (
        Receiver::start(Answers::With(200)),
        Receiver::start(Answers::Never),
    );
    let channels = format!(
        "[[webhook]]\nname = \"live\"\nurl = \"{}\"\n[[webhook]]\nname = \"dead\"\nurl = \"{}\"\n",
        live.url("/live"),
        dead.url("/secret-path")
    );
    let (cluster, walden) = unprotected(&scratch, &channels);
    walden.expect_log("\"dead\" cannot be told: no answer came within 2 s");
    let service = walden.serve();
    wait_until("the other channel is told of the dead one", || {
        cluster.archive_now();
        says(&live.bodies("/live"), "firing", "ChannelFails/dead")
    });
    let told = live.bodies("/live");
    assert!(says(&told, "firing", "NoBackup"));
    let failing = told
        .iter()
        .find(|body| body["rule"] == "ChannelFails")
        .unwrap();
    assert!(!failing.to_string().contains("secret-path"), "{failing}");
    let list = walden.ok(["alert", "list"]);
    assert!(
        list.contains("channel dead: ") && list.contains("ChannelFails/dead"),
        "{list}"
    );
    let failed = walden.run(["alert", "test", "dead"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed.stdout.starts_with("FAILED   dead: no answer"),
        "{failed:?}"
    );

    dead.answer_with(Answers::With(200));
    walden.ok(["alert", "test", "dead"]);
    wait_until("the channel hears what it missed", || {
        says(&dead.bodies("/secret-path"), "firing", "NoBackup")
    });
    wait_until("that it works again is told", || {
        says(&live.bodies("/live"), "resolved", "ChannelFails/dead")
    });
    service.stop();
}

#[test]
fn a_restart_repeats_nothing_and_two_services_tell_once() {
    let scratch = Scratch::new("alert-restart");
    let receiver = Receiver::start(Answers::With(200));
    let channels = format!(
        "[[webhook]]\nname = \"hook\"\nurl = \"{}\"\n",
        receiver.url("/hook")
    );
    let (_cluster, walden) = unprotected(&scratch, &channels);
    let told = |status: &str| {
        let bodies = receiver.bodies("/hook");
        let is_meant = |body: &&Value| body["status"] == status && body["alert"] == "NoBackup";
        bodies.iter().filter(is_meant).count()
    };
    let number = || {
        let state = fs::read_dir(walden.repository.join("main/alerts/state")).unwrap();
        state.flatten().map(|entry| entry.file_name()).max()
    };
    assert_eq!(told("firing"), 1);
    let text = fs::read_to_string(&walden.config).expect("read the configuration");
    let (own, other) = (
        walden.socket.display().to_string(),
        scratch.join("other.sock"),
    );
    let text = text
        .replace(&own, &other.display().to_string())
        .replace("/cache\"", "/cache-2\"");
    let second = Walden::by(
        &scratch,
        scratch.write("second.toml", &text),
        walden.repository.clone(),
    );
    walden.serve().stop();
    let (one, two) = (walden.serve(), second.serve());
    run_as_server("sleep", ["3"]);
    assert_eq!(told("firing"), 1, "{:?}", receiver.bodies("/hook"));
    assert!(number().is_some());
    take_backup(&walden);
    wait_until("it is told to be over", || told("resolved") > 0);
    run_as_server("sleep", ["3"]);
    assert_eq!((told("firing"), told("resolved")), (1, 1));
    one.stop();
    two.stop();
    assert!(
        walden
            .ok(["alert", "silence", "JobFailed/dump", "--for", "2h"])
            .contains("JobFailed/dump until")
    );
    assert!(
        walden
            .ok(["alert", "list"])
            .contains("silence JobFailed/dump")
    );
    walden.ok(["alert", "silence", "JobFailed/dump", "--end"]);
    walden.refused(2, ["alert", "silence", "JobFialed", "--for", "2h"]);
}

#[test]
fn sizes_and_what_was_proven_are_judged_and_told() {
    let scratch = Scratch::new("alert-rules");
    let noted = scratch.folder("noted").join("note");
    let note = noted.display();
    let channels = format!(
        "[[command]]\nname = \"note\"\ncommand = [\"sh\", \"-c\", \"cat >>'{note}'; echo >>'{note}'\"]\n"
    );
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = walden_with(&scratch, &cluster, &channels, "");
    register(&mut cluster, &walden);
    let told = |status: &str, alert: &str| {
        let text = fs::read_to_string(&noted).unwrap_or_default();
        let bodies: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        says(&bodies, status, alert)
    };
    for _ in 0..3 {
        take_backup(&walden);
    }
    walden.ok(["repo", "verify"]);
    walden.run(["alert", "check"]);
    assert!(!told("firing", "BackupSize") && !told("firing", "VerificationFailed"));
    let nagios = walden.run(["status", "--nagios"]);
    assert!(
        nagios.stdout.starts_with("WALDEN ") && nagios.stdout.contains("| rpo="),
        "{nagios:?}"
    );

    cluster.sql("create table much as select repeat('x', 900) from generate_series(1, 20000)");
    take_backup(&walden);
    let object = walden.segment_object(&cluster.archive_now());
    let whole = fs::read(&object).expect("a segment");
    let mut damaged = whole.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    fs::write(&object, damaged).expect("damage it");
    assert_eq!(walden.run(["repo", "verify"]).code, Some(3));
    assert_eq!(walden.run(["alert", "check"]).code, Some(2));
    assert!(told("firing", "BackupSize") && told("firing", "VerificationFailed"));

    fs::write(&object, whole).expect("mend it");
    walden.ok(["repo", "verify"]);
    cluster.sql("drop table much");
    cluster.sql("checkpoint");
    take_backup(&walden);
    walden.run(["alert", "check"]);
    assert!(told("resolved", "VerificationFailed") && told("resolved", "BackupSize"));
}
