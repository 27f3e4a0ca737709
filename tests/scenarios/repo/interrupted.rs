//! Verifications and copies that a signal ends.

use std::fs;
use std::process::Stdio;

use super::{archiving, copy_to, other, take};
use crate::harness::{Major, Scratch, wait_until};

#[test]
fn work_that_is_interrupted_ends_at_once_and_says_so() {
    let (scratch, major) = (Scratch::new("signal"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    take(&walden);
    // Reading a pipe that nobody writes to never ends.
    let pipe = walden.segment_object(&cluster.archive_now());
    fs::remove_file(&pipe).expect("remove a segment");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("make a pipe");
    scratch.give(&pipe);
    let copy = other(&scratch, &cluster, "copy");
    for arguments in [
        vec!["repo".to_string(), "verify".to_string()],
        copy_to(&copy, &[]),
    ] {
        let mut command = walden.command(&arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run walden");
        let status = format!("/proc/{}/status", child.id());
        wait_until("walden waits for signals", || {
            let status = fs::read_to_string(&status).expect("the status of walden");
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .expect("SigCgt");
            u64::from_str_radix(caught.trim(), 16).expect("a mask") & (1 << 1) != 0
        });
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::INT,
        )
        .expect("signal walden");
        let output = child.wait_with_output().expect("wait for walden");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("ERROR: interrupted"), "{told}");
    }
}
