//! Faults of the server's archiving: its settings, the hook, and an archiver that fails or hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Ready, Said, ready};
use crate::harness::{Major, Walden, outer_majors, wait_until};

#[test]
fn archiving_turned_off_is_told_with_all_that_depends_on_it() {
    let Ready {
        scratch: _scratch,
        mut cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    cluster.append_conf("archive_mode = off\n");
    cluster.restart();
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "archive-mode",
        "critical",
        &["archive_mode = off", "restart"],
    );
    for check in ["archive-command", "hook", "end-to-end", "archiver"] {
        said.unknown_because(check, "archive-mode");
    }
    assert!(
        said.0["summary"]
            .as_str()
            .expect("a summary")
            .starts_with("WALDEN CRITICAL - archive-mode: ")
    );
}

outer_majors!(
    a_command_that_stores_elsewhere_is_found_out,
    stores_elsewhere
);

fn stores_elsewhere(major: Major) {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(major);
    let _service = walden.serve();
    cluster.append_conf("archive_command = '/bin/true %p'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_command") == "/bin/true %p"
    });
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "archive-command",
        "warning",
        &["/bin/true %p", "walden init"],
    );
    said.says(
        "end-to-end",
        "critical",
        &["the server says that", "does not have it"],
    );
}

#[test]
fn a_command_of_a_library_is_told() {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    // A library and a command together are an error of the server since 16.
    cluster.append_conf("archive_command = ''\narchive_library = 'basic_archive'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_library") == "basic_archive"
    });
    let said = Said::by(&walden, 2, &["--no-probe"]);
    said.says(
        "archive-command",
        "critical",
        &["archive_library", "basic_archive"],
    );
    said.unknown_because("hook", "archive-command");
}

#[test]
fn a_hook_that_cannot_be_run_is_told_with_its_mode() {
    let Ready {
        scratch,
        cluster,
        walden,
    } = ready(Major::newest());
    let _service = walden.serve();
    let hook = scratch.join("archive-command");
    fs::copy(Walden::program("archive-command"), &hook).expect("copy the hook");
    scratch.give(&hook);
    let command = walden.archive_command();
    let command = command.replace(
        &Walden::program("archive-command").display().to_string(),
        &hook.display().to_string(),
    );
    cluster.append_conf(&format!("archive_command = '{command}'\n"));
    cluster.reload();
    wait_until("the setting counts", || {
        cluster.sql("show archive_command") == command
    });
    let mode = |mode| {
        fs::set_permissions(&hook, fs::Permissions::from_mode(mode))
            .expect("change the hook's mode")
    };
    mode(0o755);
    Said::well(&walden, &[]).says("hook", "ok", &["archive-command"]);
    mode(0o644);
    let said = Said::by(&walden, 2, &[]);
    said.says(
        "hook",
        "critical",
        &["may not run", "mode 0644", "chmod a+x"],
    )
    .unknown_because("end-to-end", "hook");
    fs::remove_file(&hook).expect("remove the hook");
    Said::by(&walden, 2, &[]).says("hook", "critical", &["not there"]);
}

outer_majors!(
    a_hook_that_fails_is_told_and_forgotten_once_it_works,
    hook_fails
);

fn hook_fails(major: Major) {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(major);
    let right = cluster.sql("show archive_command");
    let set = |command: &str| {
        cluster.append_conf(&format!("archive_command = '{command}'\n"));
        cluster.reload();
        wait_until("the setting counts", || {
            cluster.sql("show archive_command") == command
        });
    };
    // No service, and a program that fails in the place of `walden`.
    set(&right.replace(" %p", " --walden /bin/false %p"));
    let said = Said::by(&walden, 2, &[]);
    said.says("end-to-end", "critical", &["archive_command fails", "log"]);
    said.says(
        "archiver",
        "critical",
        &["cannot be archived", "0000000100000000000000", "s ago"],
    );
    said.says("service", "warning", &["walden serve"]);
    set(&right);
    let said = Said::by(&walden, 1, &[]);
    said.says("end-to-end", "ok", &[])
        .says("archiver", "ok", &[]);
    assert_eq!(said.names_of("warning"), ["place", "service"]);
}

#[test]
fn an_archiver_that_hangs_is_not_waited_for_longer_than_told() {
    let Ready {
        scratch: _scratch,
        cluster,
        walden,
    } = ready(Major::newest());
    cluster.append_conf("archive_command = '/bin/sleep 8 # %p'\n");
    cluster.reload();
    wait_until("the setting counts", || {
        cluster
            .sql("show archive_command")
            .starts_with("/bin/sleep")
    });
    let said = Said::by(&walden, 2, &["--timeout", "1", "--check", "end-to-end"]);
    said.says(
        "end-to-end",
        "critical",
        &["did not arrive within 1 s", "--timeout"],
    );
}
