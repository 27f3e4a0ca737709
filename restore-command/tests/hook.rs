//! `restore-command` against a service that answers, fails, vanishes, or is not there.

#[path = "../../archive-command/tests/common/mod.rs"]
mod common;

use std::process::Command;

use common::wire::{For, HookRequest, Reply};
use common::{Scratch, after_working, code, stderr};

fn hook(scratch: &Scratch) -> Command {
    common::hook(env!("CARGO_BIN_EXE_restore-command"), scratch)
}

const NAME: &str = "000000010000000000000001";
const PLACE: &str = "pg_wal/RECOVERYXLOG";

#[test]
fn each_answer_has_its_exit_code() {
    let failed = Reply::Failed(b"ERROR: damaged\nHINT: repair".to_vec());
    for (reply, expected, words) in [
        (Reply::Absent, 1, ""),
        (failed, 200, "ERROR: damaged\nHINT: repair\n"),
    ] {
        let scratch = Scratch::new();
        let service = scratch.service(after_working(reply));
        let output = hook(&scratch)
            .arg("--socket")
            .arg(scratch.socket())
            .args([NAME, PLACE])
            .output()
            .unwrap();
        assert_eq!((code(&output), stderr(&output).as_str()), (expected, words));
        let destination = scratch.0.join(PLACE).into_os_string().into_encoded_bytes();
        assert_eq!(
            service.join().unwrap(),
            HookRequest::Fetch {
                whose: For::Socket,
                name: NAME.into(),
                destination,
                end: Vec::new()
            }
        );
    }
}

#[test]
fn what_was_fetched_is_renamed_into_place() {
    let scratch = Scratch::new();
    let (spooled, destination) = (scratch.0.join("spooled"), scratch.0.join("RECOVERYXLOG"));
    std::fs::write(&spooled, "new").unwrap();
    std::fs::write(&destination, "old").unwrap();
    let delivered = Reply::Delivered {
        path: spooled.clone().into_os_string().into_encoded_bytes(),
    };
    let ask = |expected| {
        let service = scratch.service(after_working(delivered.clone()));
        let output = hook(&scratch)
            .arg("--socket")
            .arg(scratch.socket())
            .args([NAME, "RECOVERYXLOG"])
            .output();
        let output = output.unwrap();
        assert_eq!(code(&output), expected, "{}", stderr(&output));
        service.join().unwrap();
        std::fs::remove_file(scratch.socket()).unwrap();
        stderr(&output)
    };
    assert_eq!(ask(0), "");
    assert!(!spooled.exists());
    assert_eq!(std::fs::read(&destination).unwrap(), b"new");
    // It is gone, and so is Walden: whether there is such a file in the archive is not known.
    assert!(ask(200).contains("HINT: "));
    assert_eq!(std::fs::read(&destination).unwrap(), b"new");
}

#[test]
fn the_end_of_recovery_is_passed_on() {
    let end = "000000010000000000000009";
    let scratch = Scratch::new();
    let service = scratch.service(Reply::Absent.encode());
    let output = hook(&scratch)
        .args(["--end", end, "--socket"])
        .arg(scratch.socket())
        .args([NAME, "/x"])
        .output();
    assert_eq!(code(&output.unwrap()), 1);
    let expected = HookRequest::Fetch {
        whose: For::Socket,
        name: NAME.into(),
        destination: b"/x".to_vec(),
        end: end.into(),
    };
    assert_eq!(service.join().unwrap(), expected);
}

#[test]
fn without_a_service_walden_itself_does_it() {
    for exit in [0, 1, 200] {
        let scratch = Scratch::new();
        let output = hook(&scratch)
            .args(["--config", "my config.toml", "--end", "E", "--walden"])
            .arg(scratch.walden(exit))
            .arg("--socket")
            .arg(scratch.socket())
            .args([NAME, PLACE])
            .output()
            .unwrap();
        assert_eq!(code(&output), exit);
        let expected = [
            "--config",
            "my config.toml",
            "wal",
            "fetch",
            "--end",
            "E",
            "--",
            NAME,
            PLACE,
        ];
        assert_eq!(scratch.arguments().unwrap(), expected);
    }
}

/// The service ends, and takes its spool along, between its answer and the rename.
#[test]
fn what_the_service_took_away_again_walden_itself_brings() {
    let scratch = Scratch::new();
    let gone = scratch
        .0
        .join("spooled")
        .into_os_string()
        .into_encoded_bytes();
    let service = scratch.service(after_working(Reply::Delivered { path: gone }));
    let output = hook(&scratch)
        .args(["--config", "c", "--walden"])
        .arg(scratch.walden(0))
        .arg("--socket")
        .arg(scratch.socket())
        .args([NAME, PLACE])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(
        scratch.arguments().unwrap(),
        ["--config", "c", "wal", "fetch", "--", NAME, PLACE]
    );
    service.join().unwrap();
}

#[test]
fn a_service_that_vanishes_or_is_anothers_is_none() {
    for answer in [Reply::Working, Reply::NotMine(b"another".to_vec())] {
        let scratch = Scratch::new();
        let service = scratch.service(answer.encode());
        let output = hook(&scratch)
            .args(["--config", "c", "--walden"])
            .arg(scratch.walden(1))
            .arg("--socket")
            .arg(scratch.socket())
            .args([NAME, PLACE])
            .output()
            .unwrap();
        assert_eq!(code(&output), 1);
        assert_eq!(
            scratch.arguments().unwrap(),
            ["--config", "c", "wal", "fetch", "--", NAME, PLACE]
        );
        service.join().unwrap();
    }
}

#[test]
fn what_cannot_be_asked_is_unknown_never_absent() {
    let scratch = Scratch::new();
    let socket = scratch.socket();
    let mut alone = hook(&scratch);
    alone
        .env("WALDEN_CONFIG", "/other.toml")
        .arg("--walden")
        .arg(scratch.walden(1))
        .arg("--socket")
        .arg(&socket);
    let alone = alone.args([NAME, PLACE]).output().unwrap();
    assert_eq!(
        (code(&alone), scratch.arguments()),
        (200, None),
        "another repository's \"absent\" is no answer"
    );
    assert!(
        stderr(&alone).contains("--config FILE"),
        "{}",
        stderr(&alone)
    );
    let mut nobody = hook(&scratch);
    nobody
        .args(["--config", "c", "--walden", "/nowhere/walden", "--socket"])
        .arg(&socket)
        .args([NAME, PLACE]);
    let nobody = nobody.output().unwrap();
    assert_eq!(code(&nobody), 200);
    assert!(stderr(&nobody).contains("HINT: "));
    for arguments in [
        &[][..],
        &[NAME],
        &[NAME, PLACE, "more"],
        &["--nonsense", NAME, PLACE],
        &["--end"],
        &[NAME, ""],
    ] {
        let output = hook(&scratch).args(arguments).output().unwrap();
        assert_eq!(code(&output), 200, "{arguments:?}");
        assert!(stderr(&output).contains("Usage"), "{arguments:?}");
    }
}

/// A standby streams and asks again; above 125 it would stop.
#[test]
fn what_a_standby_does_not_get_to_know_is_75() {
    let scratch =
        Scratch::new().data_directory(&[("standby.signal", b""), ("recovery.signal", b"")]);
    let ask = |arguments: &[&str]| {
        let mut command = hook(&scratch);
        command
            .args(["--walden", "/nowhere/walden", "--socket"])
            .arg(scratch.socket())
            .args(arguments);
        command.output().unwrap()
    };
    let nobody = ask(&[NAME, PLACE]);
    assert_eq!(code(&nobody), 75);
    assert!(stderr(&nobody).contains("HINT: "));
    assert_eq!(code(&ask(&["--nonsense", NAME, PLACE])), 75);
    let failed = Reply::Failed(b"ERROR: damaged\nHINT: repair".to_vec());
    for (reply, expected) in [(failed, 75), (Reply::Absent, 1)] {
        let service = scratch.service(after_working(reply));
        assert_eq!(code(&ask(&[NAME, PLACE])), expected);
        service.join().unwrap();
        std::fs::remove_file(scratch.socket()).unwrap();
    }
    // It would stream meanwhile.
    let service = scratch.service_that_works_on(Reply::Working, 60, Reply::Absent);
    let long = ask(&[NAME, PLACE]);
    assert_eq!(code(&long), 75);
    assert!(
        stderr(&long).contains("goes on") && stderr(&long).contains("HINT: "),
        "{}",
        stderr(&long)
    );
    assert!(
        stderr(&long).contains("a promotion now would end before"),
        "{}",
        stderr(&long)
    );
    service.join().unwrap();
}

#[test]
fn a_service_that_hangs_is_gone_around() {
    let scratch = Scratch::new();
    let _silent = std::os::unix::net::UnixListener::bind(scratch.socket()).unwrap();
    let mut command = hook(&scratch);
    command
        .args(["--config", "c", "--walden"])
        .arg(scratch.walden(1))
        .arg("--socket")
        .arg(scratch.socket());
    let output = command.args([NAME, PLACE]).output().unwrap();
    assert_eq!(code(&output), 1);
    assert_eq!(
        scratch.arguments().unwrap(),
        ["--config", "c", "wal", "fetch", "--", NAME, PLACE]
    );
    assert!(
        stderr(&output).contains("does not answer"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_standby_waits_while_bytes_come_and_when_it_is_promoted() {
    for (sign, files) in [
        (Reply::Coming, &[("standby.signal", &b""[..])][..]),
        (Reply::Working, &[("standby.signal", b""), ("promote", b"")]),
    ] {
        let scratch = Scratch::new().data_directory(files);
        let service = scratch.service_that_works_on(sign, 7, Reply::Absent);
        let output = hook(&scratch)
            .arg("--socket")
            .arg(scratch.socket())
            .args([NAME, PLACE])
            .output()
            .unwrap();
        assert_eq!(
            (code(&output), stderr(&output).as_str()),
            (1, ""),
            "{files:?}"
        );
        service.join().unwrap();
    }
}
