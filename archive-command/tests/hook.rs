//! `archive-command` against a service that answers, fails, vanishes, or is not there.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use common::wire::{For, HookRequest, Reply};
use common::{Scratch, after_working, code, stderr};

fn hook(scratch: &Scratch) -> Command {
    common::hook(env!("CARGO_BIN_EXE_archive-command"), scratch)
}

const SEGMENT: &str = "pg_wal/000000010000000000000001";

fn by_file(file: &std::path::Path, variables: &[&str]) -> For {
    let variables = variables
        .iter()
        .map(|variable| variable.as_bytes().to_vec())
        .collect();
    For::Configuration {
        file: file.as_os_str().as_bytes().to_vec(),
        variables,
    }
}

/// The service must know what the hook's own work would be for.
#[test]
fn a_request_says_what_the_hooks_own_work_would_read() {
    let scratch = Scratch::new();
    let asked = |command: &mut Command| {
        let service = scratch.service(Reply::Done.encode());
        assert_eq!(code(&command.arg(SEGMENT).output().unwrap()), 0);
        std::fs::remove_file(scratch.socket()).unwrap();
        let HookRequest::Push { whose, .. } = service.join().unwrap() else {
            panic!("no push")
        };
        whose
    };
    let socket = format!("--socket={}", scratch.socket().display());
    let name = "WALDEN_CLUSTER__NAME";
    assert_eq!(
        asked(hook(&scratch).args(["--config", "my x.toml", &socket])),
        by_file(&scratch.0.join("my x.toml"), &[])
    );
    let both = asked(
        hook(&scratch)
            .args(["--config=/c=d.toml", &socket])
            .env(name, "x")
            .env("WALDEN_CONFIG", "/y"),
    );
    assert_eq!(
        both,
        by_file("/c=d.toml".as_ref(), &["WALDEN_CLUSTER__NAME=x"])
    );
    let by_environment =
        |command: &mut Command| asked(command.env("WALDEN_SOCKET", scratch.socket()));
    assert_eq!(
        by_environment(hook(&scratch).env("WALDEN_CONFIG", "/y")),
        by_file("/y".as_ref(), &[])
    );
    assert_eq!(
        by_environment(hook(&scratch).env(name, "")),
        by_file("".as_ref(), &["WALDEN_CLUSTER__NAME="])
    );
    // A socket that is named alone says it all, whatever the environment is for.
    let alone = asked(
        hook(&scratch)
            .arg(&socket)
            .env("WALDEN_CONFIG", "/y")
            .env(name, "x"),
    );
    assert_eq!(alone, For::Socket);
}

#[test]
fn stored_is_0_and_the_path_is_made_absolute() {
    for path in [SEGMENT.as_bytes(), b"pg wal/\xFF\xFE"] {
        let scratch = Scratch::new();
        let service = scratch.service(after_working(Reply::Done));
        let output = hook(&scratch)
            .arg("--socket")
            .arg(scratch.socket())
            .arg(OsStr::from_bytes(path))
            .output()
            .unwrap();
        assert_eq!((code(&output), stderr(&output)), (0, String::new()));
        let absolute = [scratch.0.as_os_str().as_bytes(), b"/", path].concat();
        assert_eq!(
            service.join().unwrap(),
            HookRequest::Push {
                whose: For::Socket,
                path: absolute
            }
        );
    }
}

#[test]
fn an_absolute_path_stays_and_the_environment_names_the_socket() {
    let scratch = Scratch::new();
    let elsewhere = scratch.0.join("other.sock");
    let service = scratch.service_at(&elsewhere, Reply::Done.encode());
    let output = hook(&scratch)
        .env("WALDEN_SOCKET", &elsewhere)
        .arg("/a/b")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0);
    let whose = by_file("".as_ref(), &[]);
    assert_eq!(
        service.join().unwrap(),
        HookRequest::Push {
            whose,
            path: b"/a/b".to_vec()
        }
    );
}

#[test]
fn failed_is_1_with_the_services_words() {
    let scratch = Scratch::new();
    let service = scratch.service(after_working(Reply::Failed(
        b"ERROR: no\nHINT: do".to_vec(),
    )));
    let walden = scratch.walden(0);
    let output = hook(&scratch)
        .arg("--walden")
        .arg(walden)
        .arg("--socket")
        .arg(scratch.socket())
        .arg(SEGMENT)
        .output()
        .unwrap();
    assert_eq!(
        (code(&output), stderr(&output).as_str()),
        (1, "ERROR: no\nHINT: do\n")
    );
    assert_eq!(scratch.arguments(), None, "an answer is an answer");
    service.join().unwrap();
}

#[test]
fn without_a_service_walden_itself_does_it() {
    for exit in [0, 1, 101] {
        let scratch = Scratch::new();
        let output = hook(&scratch)
            .args(["--config", "my config.toml", "--walden"])
            .arg(scratch.walden(exit))
            .arg("--socket")
            .arg(scratch.socket())
            .arg(SEGMENT)
            .output()
            .unwrap();
        assert_eq!(code(&output), exit);
        let expected = ["--config", "my config.toml", "wal", "push", "--", SEGMENT];
        assert_eq!(scratch.arguments().unwrap(), expected);
    }
}

#[test]
fn a_service_that_vanishes_is_anothers_or_speaks_otherwise_is_none() {
    let mut other_version = Reply::Done.encode();
    other_version[3] = 9;
    // What a service of version 1 says to a request of another version.
    let version_1 = b"WHK\x01\x03\0\x05\0ERROR".to_vec();
    let absent = Vec::new();
    let half = Reply::Done.encode()[..3].to_vec();
    let not_mine = Reply::NotMine(b"the service serves another".to_vec()).encode();
    let http = b"HTTP/1.1 400 Bad Request\r\n".to_vec();
    for answer in [
        absent,
        half,
        other_version,
        version_1,
        http,
        Reply::Working.encode(),
        not_mine,
    ] {
        let scratch = Scratch::new();
        let service = scratch.service(answer);
        let mut command = hook(&scratch);
        command
            .args(["--config", "c", "--walden"])
            .arg(scratch.walden(0));
        let output = command
            .arg("--socket")
            .arg(scratch.socket())
            .arg(SEGMENT)
            .output()
            .unwrap();
        assert_eq!((code(&output), stderr(&output)), (0, String::new()));
        assert_eq!(
            scratch.arguments().unwrap(),
            ["--config", "c", "wal", "push", "--", SEGMENT]
        );
        service.join().unwrap();
    }
}

#[test]
fn nothing_ever_exits_above_125() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut nobody = hook(&scratch);
    nobody
        .args(["--config", "c", "--walden", "/nowhere/walden", "--socket"])
        .arg(&socket)
        .arg(SEGMENT);
    let nobody = nobody.output().unwrap();
    assert_eq!(code(&nobody), 1);
    assert!(
        stderr(&nobody).contains("/nowhere/walden") && stderr(&nobody).contains("HINT: "),
        "{}",
        stderr(&nobody)
    );
    for arguments in [
        &[][..],
        &["a", "b"],
        &["--nonsense", "a"],
        &["--nonsense=x", "a"],
        &["--socket"],
        &["--end", "x", "a"],
        &[""],
    ] {
        let output = hook(&scratch).args(arguments).output().unwrap();
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).contains("Usage"), "{arguments:?}");
    }
}

/// Else who stops PostgreSQL waits for the store behind the service, and kills it in the end.
#[test]
fn a_server_that_is_stopping_does_not_wait_for_long() {
    let scratch =
        Scratch::new().data_directory(&[("postmaster.pid", b"1\n/d\n3\n4\n5\n6\n7\nstopping\n")]);
    let service = scratch.service_that_works_on(Reply::Working, 60, Reply::Done);
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
    std::fs::File::open(scratch.0.join("postmaster.pid"))
        .unwrap()
        .set_modified(before)
        .unwrap();
    let mut command = hook(&scratch);
    command
        .args(["--config", "c", "--walden"])
        .arg(scratch.walden(0))
        .arg("--socket")
        .arg(scratch.socket());
    let output = command.arg(SEGMENT).output().unwrap();
    assert_eq!(
        (code(&output), scratch.arguments()),
        (1, None),
        "the service is at it"
    );
    assert!(
        stderr(&output).contains("PostgreSQL is stopping") && stderr(&output).contains("HINT: ")
    );
    service.join().unwrap();
}

/// A default configuration may be another cluster's: its repository would take the file, and it would be missing here.
#[test]
fn a_socket_that_is_named_alone_has_nothing_to_fall_back_to() {
    let scratch = Scratch::new();
    let mut command = hook(&scratch);
    command
        .env("WALDEN_CONFIG", "/other.toml")
        .arg("--walden")
        .arg(scratch.walden(0));
    let output = command
        .arg("--socket")
        .arg(scratch.socket())
        .arg(SEGMENT)
        .output()
        .unwrap();
    assert_eq!((code(&output), scratch.arguments()), (1, None));
    assert!(
        stderr(&output).contains("hook.sock") && stderr(&output).contains("--config FILE"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_service_that_hangs_is_gone_around() {
    let scratch = Scratch::new();
    let _silent = std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap();
    let mut command = hook(&scratch);
    command
        .args(["--config", "c", "--walden"])
        .arg(scratch.walden(0))
        .arg("--socket")
        .arg(scratch.socket());
    let began = std::time::Instant::now();
    let output = command.arg(SEGMENT).output().unwrap();
    assert!(
        (5..15).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(code(&output), 0);
    assert_eq!(
        scratch.arguments().unwrap(),
        ["--config", "c", "wal", "push", "--", SEGMENT]
    );
    assert!(
        stderr(&output).contains("does not answer") && stderr(&output).contains("HINT: "),
        "{}",
        stderr(&output)
    );
}
