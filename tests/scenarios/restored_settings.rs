//! The configuration that a restored cluster comes with, and what it must not do to the restore.

use std::path::PathBuf;

use crate::harness::{Cluster, Major, Scratch, Walden, each_major, wait_until};

/// A registered, archiving cluster with a ledger; and where to restore to.
struct Ready {
    walden: Walden,
    cluster: Cluster,
    scratch: Scratch,
    major: Major,
}

fn ready(name: &str, major: Major) -> Ready {
    let scratch = Scratch::new(name);
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    cluster.open_ledger();
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    Ready {
        walden,
        cluster,
        scratch,
        major,
    }
}

impl Ready {
    fn back_up(&self) {
        self.walden.ok(["backup", "take"]);
    }

    fn to(&self) -> PathBuf {
        self.scratch.join("restored")
    }

    /// The arguments of a restore to [`Self::to`] that starts the server.
    fn restore(&self, more: &[&str]) -> Vec<String> {
        let mut all = self.restore_only(more);
        all.extend([
            "--start".into(),
            "--pg-bin".into(),
            self.major.bin().to_string_lossy().into_owned(),
        ]);
        all
    }

    fn restore_only(&self, more: &[&str]) -> Vec<String> {
        let mut all = vec![
            "restore".to_string(),
            "--to-dir".into(),
            self.to().to_string_lossy().into_owned(),
        ];
        all.extend(more.iter().map(|word| word.to_string()));
        all
    }

    /// Restores, starts, and takes the server over.
    fn restored(&self, more: &[&str]) -> (Cluster, serde_json::Value) {
        let told = self.walden.json(self.restore(more));
        let mut restored = Cluster::of(
            self.major.clone(),
            self.to(),
            self.scratch.path().to_path_buf(),
        );
        let folder = told["recovered"]["socket_directory"]
            .as_str()
            .expect("a folder");
        restored.adopt(
            told["recovered"]["port"].as_u64().expect("a port") as u32,
            folder.as_ref(),
        );
        (restored, told)
    }

    /// The restored cluster, not started yet.
    fn dormant(&self) -> Cluster {
        Cluster::of(
            self.major.clone(),
            self.to(),
            self.scratch.path().to_path_buf(),
        )
    }

    fn auto_conf(&self) -> String {
        std::fs::read_to_string(self.to().join("postgresql.auto.conf"))
            .expect("read postgresql.auto.conf")
    }
}

each_major!(
    a_setting_raised_after_the_backup_does_not_end_replay_early,
    raised_setting
);

fn raised_setting(major: Major) {
    let number = major.number;
    let mut ready = ready("raised", major);
    ready.back_up();
    ready.cluster.sql("alter system set max_connections = 60");
    ready.cluster.restart();
    ready.cluster.commit("with the raised setting");
    let lsn = ready.cluster.sql("select pg_current_wal_lsn()");
    ready.cluster.commit("behind the target");
    ready.cluster.archive_now();
    let paused = ready.walden.refused(
        1,
        ready.restore(&["--lsn", &lsn, "--exclusive", "--target-action", "pause"]),
    );
    assert!(
        paused.contains("max_connections = 60"),
        "{number}: {paused}"
    );
    assert!(
        !ready.to().join("postmaster.pid").exists(),
        "a server that failed is left running"
    );
    std::fs::remove_dir_all(ready.to()).expect("remove the first try");
    let (restored, _) = ready.restored(&["--latest"]);
    assert_eq!(restored.rows(), ready.cluster.rows());
}

#[test]
fn a_transaction_id_with_an_epoch_is_refused() {
    let ready = ready("epoch", Major::with_clients());
    ready.back_up();
    for wrong in [
        &["--time", "soon"][..],
        &["--xid", "x"],
        &["--lsn", "x"],
        &["--exclusive"],
    ] {
        ready.walden.refused(2, ready.restore_only(wrong));
    }
    ready.walden.refused(2, ["find", "--since", "soon"]);
    let told = ready
        .walden
        .refused(2, ready.restore_only(&["--xid", "30064771817"]));
    assert!(
        told.contains("epoch") && told.contains("HINT: ") && told.contains("low 32 bits, 745"),
        "{told}"
    );
    assert!(!ready.to().exists(), "nothing is written");
}

#[test]
fn the_nearest_moment_is_a_command_that_can_be_run() {
    let ready = ready("nearest", Major::with_clients());
    ready.back_up();
    let told = ready
        .walden
        .refused(4, ready.restore_only(&["--time", "2001-01-01 00:00:00"]));
    let command = format!("--to-dir '{}'", ready.to().display());
    assert!(told.contains(&command), "{told}");
}

#[test]
fn a_socket_elsewhere_and_a_server_that_does_not_let_the_role_in_are_told() {
    let ready = ready("told", Major::newest());
    ready.back_up();
    ready.cluster.archive_now();
    let (to, bin) = (ready.scratch.join("it's here"), ready.major.bin());
    let mut command = ready.walden.command([
        "--format", "json", "restore", "--latest", "--start", "--to-dir",
    ]);
    command.arg(&to).arg("--pg-bin").arg(bin);
    let dsn = ready.cluster.dsn().replace("user=walden", "user=stranger");
    let output = command
        .env("WALDEN_POSTGRESQL__DSN", dsn)
        .output()
        .expect("run walden");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
    let recovered = &told["recovered"];
    let mut restored = Cluster::of(ready.major.clone(), to, ready.scratch.path().to_path_buf());
    restored.adopt(
        recovered["port"].as_u64().expect("a port") as u32,
        "/tmp".as_ref(),
    );
    assert_eq!(recovered["socket_directory"], "/tmp");
    let notes: Vec<&str> = recovered["notes"]
        .as_array()
        .expect("notes")
        .iter()
        .filter_map(|note| note.as_str())
        .collect();
    assert!(notes[0].contains("it's here\" has a quote"), "{notes:?}");
    assert!(
        notes[1].contains("role \"stranger\" does not exist"),
        "{notes:?}"
    );
    assert!(
        recovered["left_settings"]
            .to_string()
            .contains("restore_command"),
        "{told}"
    );
}

#[test]
fn the_source_s_places_and_targets_do_not_come_along() {
    let ready = ready("places", Major::with_clients());
    let pid_file = ready.scratch.join("source.pid");
    ready.cluster.sql(&format!(
        "alter system set external_pid_file = '{}'",
        pid_file.display()
    ));
    ready.cluster.append_conf("include_dir 'conf.d'\n");
    std::fs::create_dir(ready.cluster.data.join("conf.d")).expect("make conf.d");
    ready.scratch.give(&ready.cluster.data.join("conf.d"));
    let included = ready.cluster.data.join("conf.d/old.conf");
    std::fs::write(&included, "recovery_target_xid = '3'\n").expect("write a file");
    ready.scratch.give(&included);
    ready.back_up();
    ready.cluster.commit("after the backup");
    ready.cluster.archive_now();
    std::fs::write(&pid_file, "the source's").expect("write the source's file");
    ready.scratch.give(&pid_file);
    let (restored, _) = ready.restored(&["--latest"]);
    assert_eq!(restored.rows(), ready.cluster.rows());
    assert_eq!(
        std::fs::read_to_string(&pid_file).expect("read the source's file"),
        "the source's"
    );
}

#[test]
fn a_replacement_that_would_not_archive_is_not_started() {
    let ready = ready("noarch", Major::with_clients());
    // Counts from the next start on, which is the restored server's.
    ready.cluster.sql("alter system set archive_mode = off");
    ready.back_up();
    ready.cluster.archive_now();
    let told = ready
        .walden
        .refused(1, ready.restore(&["--latest", "--keep-archiving"]));
    assert!(
        told.contains("archive_mode is off") && told.contains("HINT: "),
        "{told}"
    );
    assert!(!ready.to().join("postmaster.pid").exists(), "it is started");
}

each_major!(a_promoted_cluster_keeps_no_setting_of_its_recovery, resets);

fn resets(major: Major) {
    let ready = ready("resets", major);
    ready.back_up();
    let lsn = ready.cluster.sql("select pg_current_wal_lsn()");
    ready.cluster.commit("behind the target");
    ready.cluster.archive_now();
    let (restored, told) = ready.restored(&["--lsn", &lsn, "--exclusive"]);
    let conf = ready.auto_conf();
    let left = conf
        .lines()
        .find(|line| line.contains("recovery") || line.contains("restore_command ="));
    assert_eq!(left, None, "{told}");
    assert!(!conf.contains("hot_standby"), "{conf}");
    assert!(conf.contains("archive_mode = 'off'"), "{conf}");
    drop(restored);
}

#[test]
fn a_cluster_that_shut_down_at_its_target_is_opened_as_told() {
    let ready = ready("shut", Major::with_clients());
    ready.back_up();
    let kept = ready.cluster.commit("before the target");
    let lsn = ready.cluster.sql("select pg_current_wal_lsn()");
    let left_out = ready.cluster.commit("behind the target");
    ready.cluster.archive_now();
    let told = ready.walden.ok(ready.restore(&[
        "--lsn",
        &lsn,
        "--exclusive",
        "--target-action",
        "shutdown",
    ]));
    assert!(
        told.contains("recovery_target_action = 'promote'"),
        "{told}"
    );
    let conf = ready.auto_conf();
    let changed = conf.replace(
        "recovery_target_action = 'shutdown'",
        "recovery_target_action = 'promote'",
    );
    assert_ne!(conf, changed);
    std::fs::write(ready.to().join("postgresql.auto.conf"), changed)
        .expect("write postgresql.auto.conf");
    let mut restored = ready.dormant();
    restored.start();
    wait_until("it is open for writing", || {
        restored.try_sql("select pg_is_in_recovery()").stdout.trim() == "f"
    });
    let rows = restored.rows();
    assert!(
        rows.contains(&kept) && !rows.contains(&left_out),
        "{rows:?}"
    );
}
