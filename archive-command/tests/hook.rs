//! `archive-command` against a service that answers, fails, vanishes, or is not there.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use common::wire::{Reply, Request};
use common::{Scratch, after_working, code, stderr};

fn hook(scratch: &Scratch) -> Command {
    common::hook(env!("CARGO_BIN_EXE_archive-command"), scratch)
}

const SEGMENT: &str = "pg_wal/000000010000000000000001";

#[test]
fn stored_is_0_and_the_path_is_made_absolute() {
    for path in [SEGMENT.as_bytes(), b"pg wal/\xFF\xFE"] {
        let scratch = Scratch::new();
        let service = scratch.service(after_working(Reply::Done));
        let output =
            hook(&scratch).arg("--socket").arg(scratch.socket()).arg(OsStr::from_bytes(path)).output().unwrap();
        assert_eq!((code(&output), stderr(&output)), (0, String::new()));
        let absolute = [scratch.0.as_os_str().as_bytes(), b"/", path].concat();
        assert_eq!(service.join().unwrap(), Request::Push { path: absolute });
    }
}

#[test]
fn an_absolute_path_stays_and_the_environment_names_the_socket() {
    let scratch = Scratch::new();
    let elsewhere = scratch.0.join("other.sock");
    let service = scratch.service_at(&elsewhere, Reply::Done.encode());
    let output = hook(&scratch).env("WALDEN_SOCKET", &elsewhere).arg("/a/b").output().unwrap();
    assert_eq!(code(&output), 0);
    assert_eq!(service.join().unwrap(), Request::Push { path: b"/a/b".to_vec() });
}

#[test]
fn failed_is_1_with_the_services_words() {
    let scratch = Scratch::new();
    let service = scratch.service(after_working(Reply::Failed(b"ERROR: no\nHINT: do".to_vec())));
    let walden = scratch.walden(0);
    let output =
        hook(&scratch).arg("--walden").arg(walden).arg("--socket").arg(scratch.socket()).arg(SEGMENT).output().unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (1, "ERROR: no\nHINT: do\n"));
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
fn a_service_that_vanishes_or_speaks_otherwise_is_none() {
    let mut other_version = Reply::Done.encode();
    other_version[3] = 9;
    let absent = Vec::new();
    let half = Reply::Done.encode()[..3].to_vec();
    for answer in [absent, half, other_version, b"HTTP/1.1 400 Bad Request\r\n".to_vec(), Reply::Working.encode()] {
        let scratch = Scratch::new();
        let service = scratch.service(answer);
        let mut command = hook(&scratch);
        command.arg("--walden").arg(scratch.walden(0)).arg("--socket").arg(scratch.socket()).arg(SEGMENT);
        assert_eq!(code(&command.output().unwrap()), 0);
        assert_eq!(scratch.arguments().unwrap(), ["wal", "push", "--", SEGMENT]);
        service.join().unwrap();
    }
}

#[test]
fn nothing_ever_exits_above_125() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let nobody = hook(&scratch).args(["--walden", "/nowhere/walden", "--socket"]).arg(&socket).arg(SEGMENT).output();
    let nobody = nobody.unwrap();
    assert_eq!(code(&nobody), 1);
    assert!(stderr(&nobody).contains("/nowhere/walden") && stderr(&nobody).contains("HINT: "), "{}", stderr(&nobody));
    for arguments in [&[][..], &["a", "b"], &["--nonsense", "a"], &["--socket"], &["--end", "x", "a"], &[""]] {
        let output = hook(&scratch).args(arguments).output().unwrap();
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(stderr(&output).contains("Usage"), "{arguments:?}");
    }
}

#[test]
fn a_service_that_hangs_is_1_after_a_while() {
    if std::env::var_os("WALDEN_TEST_LONG").is_none() {
        return eprintln!("skipped: takes half a minute; WALDEN_TEST_LONG=1 runs it");
    }
    let scratch = Scratch::new();
    let _silent = std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap();
    let output = hook(&scratch).arg("--socket").arg(scratch.socket()).arg(SEGMENT).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("does not answer") && stderr(&output).contains("HINT: "));
}
