//! Faults of Walden's own set-up: its repository, its service and its settings.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{Ready, Said, ready};
use crate::harness::Major;

#[test]
fn a_repository_that_is_gone_is_told() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    fs::rename(&walden.repository, walden.repository.with_extension("gone"))
        .expect("move the repository away");
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "repository",
        "critical",
        &["not a Walden repository", "repo sitory", "walden init"],
    );
    for check in [
        "writable",
        "create-only",
        "clock",
        "encryption",
        "identity",
        "end-to-end",
    ] {
        said.unknown_because(check, "repository");
    }
    said.says("server", "ok", &[]);
}

#[test]
fn a_repository_that_cannot_be_written_is_told() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let main = walden.repository.join("main");
    let close = |mode| {
        fs::set_permissions(&main, fs::Permissions::from_mode(mode))
            .expect("change the folder's mode")
    };
    close(0o500);
    let said = Said::by(
        &walden,
        2,
        &[
            "--check",
            "writable",
            "--check",
            "clock",
            "--check",
            "create-only",
        ],
    );
    close(0o700);
    said.says("writable", "critical", &["Permission denied", "may write"]);
    said.says("create-only", "critical", &["Permission denied"])
        .unknown_because("clock", "writable");
}

#[test]
fn a_service_that_is_down_is_a_warning_because_the_hooks_do_without() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let said = Said::by(&walden, 1, &[]);
    assert_eq!(said.names_of("warning"), ["place", "service"]);
    said.says("service", "warning", &["main.sock", "walden serve"])
        .says("end-to-end", "ok", &["came back the same"]);
}

#[test]
fn settings_that_cannot_be_read_and_wrong_usage_end_as_monitoring_expects() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    let mut command = walden.command(["--format", "json", "check"]);
    let output = command
        .env("WALDEN_LOG__LEVEL", "loud")
        .output()
        .expect("run walden");
    let said: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(
        (output.status.code(), said["checks"][0]["status"].as_str()),
        (Some(2), Some("critical")),
        "{said:#}"
    );
    assert!(
        said["summary"]
            .as_str()
            .is_some_and(|summary| summary.contains("\"loud\"")),
        "{said:#}"
    );
    let told = walden.refused(3, ["check", "--check", "nonsense"]);
    assert!(told.contains("end-to-end"), "the names are told: {told}");
}

#[test]
fn a_file_that_others_can_change_is_a_warning() {
    let Ready {
        scratch: _scratch,
        cluster: _cluster,
        walden,
    } = ready(Major::newest());
    fs::set_permissions(&walden.config, fs::Permissions::from_mode(0o622)).expect("open the file");
    let said = Said::by(&walden, 1, &["--check", "configuration"]);
    said.says("configuration", "warning", &["0622", "chmod"]);
    assert_eq!(said.checks().len(), 1);
}
