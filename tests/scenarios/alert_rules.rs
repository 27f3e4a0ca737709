//! What only a real store, server or channel shows: refusals of channels, a repository that goes away and comes back, WAL that
//! cannot be stored or is another server's, a certificate that ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::alerts::{MailServer, certificate, says, secret, unprotected, walden_with};
use crate::harness::{
    Answers, Cluster, Major, Receiver, Scratch, command, finish, say_skipped, wait_until,
};
use crate::http::Port;
use crate::restore::{register, take_backup};

#[test]
fn a_channel_that_refuses_holds_nothing_up_and_hears_it_once_it_takes_messages() {
    let scratch = Scratch::new("alert-refused");
    let (live, gone, broken) = (
        Receiver::start(Answers::With(200)),
        Receiver::start(Answers::With(404)),
        Receiver::start(Answers::With(500)),
    );
    let (certificate, key) = certificate(&scratch);
    let Some(mails) = MailServer::start(&scratch, &certificate, &key) else {
        return say_skipped("refused mails: skipped (tests/http-tools brings aiosmtpd)");
    };
    let hook = |name: &str, receiver: &Receiver| {
        let url = receiver.url("/hook");
        format!("[[webhook]]\nname = \"{name}\"\nurl = \"{url}\"\n")
    };
    let password = secret(&scratch, "password", "mail-password\n");
    let mail = |name: &str, to: &str| {
        format!(
            "[[mail]]\nname = \"{name}\"\nhost = \"localhost\"\nport = {}\nuser = \"walden\"\n\
             password_file = \"{password}\"\nca_file = \"{}\"\nfrom = \"walden@db1.example\"\nto = [\"{to}\"]\n",
            mails.port,
            certificate.display()
        )
    };
    let channels = [
        hook("live", &live),
        hook("gone", &gone),
        hook("broken", &broken),
        mail("nobody", "550@db1.example"),
        mail("later", "451@db1.example"),
    ]
    .concat();
    let (_cluster, walden) = unprotected(&scratch, &channels);
    walden.expect_log("cannot be told");
    assert!(says(&live.bodies("/hook"), "firing", "NoBackup"));
    let told = walden.json(["alert", "list"]);
    let firing = told["alerts"].as_array().expect("alerts").len();
    assert!(firing > 1, "{told:#}");
    let channels = &told["channels"];
    assert!(channels["live"].is_null(), "{told:#}");
    for (name, why, is_refused) in [
        ("gone", "answered 404", true),
        ("broken", "answered 500", false),
        ("nobody", "550", true),
        ("later", "451", false),
    ] {
        let channel = &channels[name];
        let said = channel["why"].as_str().unwrap_or_default();
        assert!(said.contains(why), "{name}: {told:#}");
        // What is refused holds up no other message; what does not answer is not asked for the next.
        let refused = channel["refused"].as_array().map_or(0, Vec::len);
        assert_eq!(refused > 1, is_refused, "{name}: {told:#}");
    }
    let failed = walden.run(["alert", "test", "gone"]);
    assert!(
        failed.code == Some(1) && failed.stdout.contains("answered 404"),
        "{failed:?}"
    );
    for receiver in [&gone, &broken] {
        receiver.answer_with(Answers::With(200));
    }
    walden.ok(["alert", "test", "gone"]);
    walden.ok(["alert", "test", "broken"]);
    walden.run(["alert", "check"]);
    for receiver in [&gone, &broken] {
        assert!(says(&receiver.bodies("/hook"), "firing", "NoBackup"));
    }
}

#[test]
fn cron_tells_once_that_the_repository_went_away_and_that_it_is_back() {
    let scratch = Scratch::new("alert-away");
    let receiver = Receiver::start(Answers::With(200));
    let channels = format!(
        "[[webhook]]\nname = \"hook\"\nurl = \"{}\"\n",
        receiver.url("/hook")
    );
    let (_cluster, walden) = unprotected(&scratch, &channels);
    let told = |status: &str| {
        let bodies = receiver.bodies("/hook");
        let is_meant =
            |body: &&Value| body["status"] == status && body["alert"] == "RepositoryUnreachable";
        bodies.iter().filter(is_meant).count()
    };
    let aside = walden.repository.with_extension("aside");
    fs::rename(&walden.repository, &aside).expect("take the repository away");
    for _ in 0..2 {
        let check = walden.run(["alert", "check"]);
        assert_eq!(check.code, Some(3), "{check:?}");
    }
    fs::rename(&aside, &walden.repository).expect("put it back");
    assert_eq!((told("firing"), told("resolved")), (1, 0));
    for _ in 0..2 {
        assert_eq!(walden.run(["alert", "check"]).code, Some(2));
    }
    assert_eq!((told("firing"), told("resolved")), (1, 1));
}

/// One file of a server, handed to the hook as PostgreSQL does.
fn archive(line: &str, data: &Path, segment: &str) -> bool {
    let line = line.replace("%p", &format!("pg_wal/{segment}"));
    let mut hook = command("sh");
    finish(hook.args(["-c", &line]).current_dir(data)).success()
}

#[test]
fn what_keeps_wal_out_and_a_certificate_that_ends_are_told() {
    let scratch = Scratch::new("alert-wal");
    let receiver = Receiver::start(Answers::With(200));
    let channels = format!(
        "[[webhook]]\nname = \"hook\"\nurl = \"{}\"\n",
        receiver.url("/hook")
    );
    let told = |status: &str, alert: &str| says(&receiver.bodies("/hook"), status, alert);
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let (certificate, key) = certificate(&scratch);
    scratch.give(&key);
    let port = Port::new(&scratch);
    let tls = format!(
        "{}http.tls_certificate = \"{}\"\nhttp.tls_key = \"{}\"\nwal.timeout = \"2s\"\n",
        port.settings(&scratch)
            .replace("http.refresh_interval = \"1s\"\n", ""),
        certificate.display(),
        key.display()
    );
    let walden = walden_with(&scratch, &cluster, &channels, &tls);
    register(&mut cluster, &walden);
    take_backup(&walden);
    let service = walden.serve();
    wait_until("the certificate is told to end within two days", || {
        told("firing", "CertificateExpires")
    });
    let check = walden.run(["check", "--check", "certificate"]);
    assert!(
        check.code == Some(1) && check.stdout.contains("the HTTPS certificate expires in"),
        "{check:?}"
    );
    let status = walden.json(["status"]);
    assert!(status["http"]["certificate_until"].is_string(), "{status}");

    let elsewhere = Scratch::new("alert-other");
    // Clusters of one major are copies of one.
    let other = Cluster::builder(Major::with_clients())
        .segment_mib(1)
        .start(&elsewhere);
    let line = walden.archive_command();
    walden.expect_log("belongs to the cluster with system identifier");
    assert!(!archive(&line, &other.data, &other.switch_wal()));
    wait_until("another server's WAL is told", || {
        told("firing", "IdentityConflict")
    });
    let said = walden.ok(["status"]);
    assert!(said.contains("1 of another server, refused"), "{said}");
    assert!(!told("firing", "StoringFails"));

    let folder = walden.repository.join("main/wal/0000000100000000");
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode));
    mode(0o500).expect("close the folder");
    walden.expect_log("cannot archive");
    cluster.sql("create table t(a int)");
    let segment = cluster.switch_wal();
    wait_until("that WAL cannot be stored is told", || {
        told("firing", "StoringFails")
    });
    mode(0o700).expect("open the folder");
    wait_until("that it is stored again is told", || {
        told("resolved", "StoringFails")
    });
    assert!(walden.segment_object(&segment).exists());
    service.stop();
}
