//! The configuration that a restored cluster comes with, and what it must not do to the restore.

use std::path::PathBuf;

use crate::harness::{Cluster, Major, Scratch, Walden, each_major};

/// A registered, archiving cluster with a ledger; and where to restore to.
struct Ready {
    walden: Walden,
    cluster: Cluster,
    scratch: Scratch,
    major: Major,
}

fn ready(name: &str, major: Major) -> Ready {
    let scratch = Scratch::new(name);
    let mut cluster = Cluster::builder(major.clone()).start(&scratch);
    cluster.open_ledger();
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    Ready { walden, cluster, scratch, major }
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
        all.extend(["--start".into(), "--pg-bin".into(), self.major.bin().to_string_lossy().into_owned()]);
        all
    }

    fn restore_only(&self, more: &[&str]) -> Vec<String> {
        let mut all = vec!["restore".to_string(), "--to-dir".into(), self.to().to_string_lossy().into_owned()];
        all.extend(more.iter().map(|word| word.to_string()));
        all
    }

    /// Restores, starts, and takes the server over.
    fn restored(&self, more: &[&str]) -> (Cluster, serde_json::Value) {
        let told = self.walden.json(self.restore(more));
        let mut restored = Cluster::of(self.major.clone(), self.to(), self.scratch.path().to_path_buf());
        let folder = told["recovered"]["socket_directory"].as_str().expect("a folder");
        restored.adopt(told["recovered"]["port"].as_u64().expect("a port") as u32, folder.as_ref());
        (restored, told)
    }

    /// The restored cluster, not started yet.
    fn dormant(&self) -> Cluster {
        Cluster::of(self.major.clone(), self.to(), self.scratch.path().to_path_buf())
    }

    fn auto_conf(&self) -> String {
        std::fs::read_to_string(self.to().join("postgresql.auto.conf")).expect("read postgresql.auto.conf")
    }
}

each_major!(a_setting_raised_after_the_backup_does_not_end_replay_early, raised_setting);

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
    let paused = ready.walden.refused(1, ready.restore(&["--lsn", &lsn, "--exclusive", "--target-action", "pause"]));
    assert!(paused.contains("max_connections = 60"), "{number}: {paused}");
    assert!(!ready.to().join("postmaster.pid").exists(), "a server that failed is left running");
    std::fs::remove_dir_all(ready.to()).expect("remove the first try");
    let (restored, _) = ready.restored(&["--latest"]);
    assert_eq!(restored.rows(), ready.cluster.rows());
}

#[test]
fn a_transaction_id_with_an_epoch_is_refused() {
    let ready = ready("epoch", Major::with_clients());
    ready.back_up();
    let told = ready.walden.refused(1, ready.restore_only(&["--xid", "30064771817"]));
    assert!(told.contains("epoch") && told.contains("HINT: ") && told.contains("--xid 745"), "{told}");
    assert!(!ready.to().exists(), "nothing is written");
}

#[test]
fn the_nearest_moment_is_a_command_that_can_be_run() {
    let ready = ready("nearest", Major::with_clients());
    ready.back_up();
    let told = ready.walden.refused(4, ready.restore_only(&["--time", "2001-01-01 00:00:00"]));
    let command = format!("--to-dir '{}'", ready.to().display());
    assert!(told.contains(&command), "{told}");
}
