//! A server that recovers is waited for as long as it works, and given up once it stands still.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{archiving, arguments, take_backup};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, wait_until};

/// A folder whose `postgres` is the real one, with another restore_command.
fn programs(scratch: &Scratch, major: &Major, name: &str, restore_command: &str) -> PathBuf {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let postgres = quoted(&major.program("postgres").display().to_string());
    let setting = quoted(&format!("restore_command={restore_command}"));
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) exec {postgres} --version ;; esac\nexec {postgres} \"$@\" -c {setting}\n"
    );
    let folder = scratch.folder(name);
    let program = scratch.write(&format!("{name}/postgres"), &script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it executable");
    folder
}

/// A restore to the end of all WAL by these programs, which is given up after this time without work.
fn restoring(
    walden: &Walden,
    major: &Major,
    to: PathBuf,
    programs: &Path,
    patience: &str,
) -> Command {
    let mut all = arguments(major, &to, &["--latest"]);
    let at = all
        .iter()
        .position(|word| word == "--pg-bin")
        .expect("an option")
        + 1;
    all[at] = programs.display().to_string();
    let mut command = walden.command(all);
    command.env("WALDEN_RESTORE__STALL_TIMEOUT", patience);
    command
}

#[test]
fn a_recovery_that_stands_still_is_given_up_and_one_that_is_slow_is_not() {
    let major = Major::newest();
    let scratch = Scratch::new("stalled");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    for number in 0..7 {
        cluster.commit(&format!("in segment {number}"));
        cluster.archive_now();
    }
    // Replay itself is stopped, so that a fast shutdown does not come about either.
    let still = programs(&scratch, &major, "still", "kill -STOP $PPID; sleep 100");
    let to = scratch.join("given up");
    let output = restoring(&walden, &major, to.clone(), &still, "2s")
        .output()
        .expect("run walden");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in [
        "did not reach the target",
        "it did nothing for 2s and was stopped",
        "HINT: find out what it waits for",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(
        !to.join("postmaster.pid").exists(),
        "the server is left running"
    );
    // As the hint says.
    let mut again = Cluster::of(major.clone(), to, scratch.path().to_path_buf());
    again.start();
    wait_until("it is open for writing", || {
        again.try_sql("select pg_is_in_recovery()").stdout.trim() == "f"
    });
    assert_eq!(again.rows(), cluster.rows());
    again.stop(Stop::Fast);
    // All of it takes longer than one may stand still, each piece does not.
    let slow = programs(
        &scratch,
        &major,
        "slow",
        &format!("sleep 1; {}", walden.restore_command()),
    );
    let to = scratch.join("slow copy");
    let begun = std::time::Instant::now();
    let output = restoring(&walden, &major, to.clone(), &slow, "5s")
        .output()
        .expect("run walden");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(begun.elapsed().as_secs() > 6, "it was not slow");
    let mut copy = Cluster::of(major, to.clone(), to);
    copy.adopt(again.port, &again.socket_folder);
    copy.restart();
    assert_eq!(copy.rows(), cluster.rows());
}
