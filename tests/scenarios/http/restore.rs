//! Servers that restore and follow without the repository's credentials.

use std::path::Path;

use super::Port;
use crate::archive::{Primary, primary_with};
use crate::harness::{Major, Output, Stop, Walden, outer_majors, wait_until};

struct Restoring {
    primary: Primary,
    port: Port,
}

impl Restoring {
    fn new(major: Major, segment_mib: u32) -> Self {
        let mut port = None;
        let primary = primary_with(major, segment_mib, |scratch, cluster| {
            let port = port.insert(Port::new(scratch));
            // How long a gap is watched before it is called one.
            Walden::with(
                scratch,
                cluster,
                &(port.settings(scratch) + "wal.timeout = \"8s\"\n"),
            )
        });
        Self {
            primary,
            port: port.expect("a port"),
        }
    }

    /// The settings of a server that asks over HTTP.
    fn settings(&self) -> String {
        let command = Walden::restore_command_from(&self.port.url(), &self.port.token_file)
            .replace('\'', "''");
        format!("archive_mode = off\nrestore_command = '{command}'")
    }

    /// `restore-command` by hand.
    fn fetch(&self, url: &str, token_file: &Path, name: &str) -> Output {
        let folder = self.primary.scratch.folder("by hand");
        let mut command = crate::harness::command(Walden::program("restore-command"));
        command
            .arg("--url")
            .arg(url)
            .arg("--token-file")
            .arg(token_file)
            .arg(name)
            .arg(folder.join("file"));
        let output = command.output().expect("run restore-command");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

outer_majors!(
    a_server_restores_over_http_while_its_service_is_killed,
    restore_while_killed
);

fn restore_while_killed(major: Major) {
    let mut restoring = Restoring::new(major, 1);
    let service = restoring.primary.walden.serve();
    let rows = restoring.primary.write_segments(30);
    restoring.primary.cluster.stop(Stop::Fast);
    let mut replica =
        restoring
            .primary
            .replica("replica", "recovery.signal", &restoring.settings());
    // Nobody answers when recovery begins, nor in between.
    service.kill9();
    let log = replica.log_path();
    let restored = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .matches("restored log file")
            .count()
    };
    std::thread::scope(|scope| {
        let start = scope.spawn(|| {
            replica.start();
            wait_until("recovery ends", || {
                replica.sql("select pg_is_in_recovery()") == "f"
            });
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
        let service = restoring.primary.walden.serve();
        wait_until("the first segments are restored", || restored() >= 2);
        service.kill9();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let service = restoring.primary.walden.serve();
        start.join().expect("recovery");
        service.stop();
    });
    assert_eq!(replica.rows(), rows);
    let left = std::fs::read_dir(replica.data.join("pg_wal")).expect("read pg_wal");
    let left = left.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    assert!(
        !left.into_iter().any(|name| name.contains("walden")),
        "something was left in pg_wal"
    );
}

#[test]
fn a_standby_follows_over_http() {
    let restoring = Restoring::new(Major::with_clients(), 1);
    let service = restoring.primary.walden.serve();
    restoring.primary.write_segments(2);
    let settings = format!(
        "{}\nwal_retrieve_retry_interval = 100ms\nhot_standby = on",
        restoring.settings()
    );
    let mut standby = restoring
        .primary
        .replica("standby", "standby.signal", &settings);
    standby.start();
    let rows = restoring.primary.write_segments(3);
    wait_until("the standby has replayed what was archived", || {
        standby.rows() == rows
    });
    service.stop();
    let spool = restoring.primary.scratch.join("spool/main/restores");
    let files = || walk(&spool);
    assert_eq!(files(), [""; 0], "nothing stays in the spool");

    // Nobody answers any more: it goes on, and can be promoted.
    wait_until("the standby asked again and again", || {
        standby.log().matches("ERROR: cannot fetch").count() >= 3
    });
    standby.promote();
    standby.commit("on its own");
}

fn walk(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = entries.map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path.display().to_string()]
            }
        })
        .collect()
}

#[test]
fn each_answer_has_its_exit_code() {
    let restoring = Restoring::new(Major::with_clients(), 1);
    let service = restoring.primary.walden.serve();
    restoring.primary.write_segments(4);
    let (url, token) = (restoring.port.url(), restoring.port.token_file.clone());
    let scratch = &restoring.primary.scratch;
    let segments = restoring.primary.walden.json(["wal", "list"]);
    let range = &segments["ranges"][0];
    let (first, last) = (
        range["first"].as_str().expect("a name"),
        range["last"].as_str().expect("a name"),
    );

    let delivered = restoring.fetch(&url, &token, first);
    assert_eq!(delivered.code, Some(0), "{}", delivered.stderr);
    let file = std::fs::read(scratch.join("by hand/file")).expect("the file");
    assert!(
        file == std::fs::read(restoring.primary.cluster.data.join("pg_wal").join(first))
            .expect("the original")
    );
    let absent = restoring.fetch(&url, &token, "0000000100000FFF00000000");
    assert_eq!((absent.code, absent.stderr.as_str()), (Some(1), ""));

    let wrong_token = scratch.write("wrong token", "another-token-of-somebody");
    let no_cluster = format!("{url}/v1/clusters/other");
    for (url, token, name, words) in [
        (
            url.as_str(),
            &wrong_token,
            first,
            "the token is not one of this service",
        ),
        (&url, &scratch.join("none"), first, "--token-file"),
        (&url, &token, "passwd", "not valid"),
        (&no_cluster, &token, first, "expected a host and a port"),
        ("https://127.0.0.1:1", &token, first, "speaks no TLS"),
    ] {
        let output = restoring.fetch(url, token, name);
        assert_eq!(output.code, Some(200), "{}", output.stderr);
        assert!(
            output.stderr.contains(words) && output.stderr.contains("HINT: "),
            "{}",
            output.stderr
        );
    }
    // A gap is no end.
    std::fs::remove_file(restoring.primary.walden.segment_object(first)).expect("remove a segment");
    restoring
        .primary
        .walden
        .expect_log(&format!("WAL segment \"{first}\" is missing"));
    assert_ne!(first, last);
    let lost = restoring.fetch(&url, &token, first);
    assert_eq!(lost.code, Some(200), "{}", lost.stderr);
    assert!(
        lost.stderr.contains("is missing") && lost.stderr.contains("HINT: "),
        "{}",
        lost.stderr
    );
    service.stop();
}
