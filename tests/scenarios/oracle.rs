//! The oracle against PostgreSQL itself: an archive made with `cp`, and PostgreSQL's own recovery to random targets. Walden
//! has no part in this; what it restores is measured by the same oracle.

use std::path::Path;

use crate::harness::{
    Cluster, Major, Random, Scratch, Target, is_long, outer_majors, run_as_server, wait_until,
};

outer_majors!(the_oracle_knows_what_postgresql_recovers, recovers_as_told);

fn recovers_as_told(major: Major) {
    let scratch = Scratch::new("oracle");
    let archive = scratch.folder("archive");
    let mut random = Random::seeded("oracle");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .with_history()
        .setting("archive_mode", "on")
        .setting(
            "archive_command",
            &format!("cp %p \"{}/%f\"", archive.display()),
        )
        .start(&scratch);
    cluster.open_ledger_with_history();
    cluster.burst(3, 10);
    let backup = scratch.join("backup");
    cluster.copy_to(&backup);
    let backup_end = cluster.insert_lsn();

    cluster.burst(4, 20);
    let named = cluster.restore_point("between");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let quiet = cluster.insert_lsn();
    cluster.burst_of_commits(4, 40);
    cluster.mark("last");
    cluster.archive_now();

    let history = cluster.history();
    assert_eq!(history.rows(), cluster.rows());
    let mut targets = vec![named];
    let count = if is_long() { 20 } else { 2 };
    targets.extend((0..count).map(|_| history.random_target(backup_end, false, &mut random)));
    // Times only where nothing was rolled back.
    targets.extend((0..2 * count).map(|_| history.random_target(quiet, true, &mut random)));
    for (number, target) in targets.iter().enumerate() {
        let data = scratch.join(&format!("r{number}"));
        run_as_server("cp", [Path::new("-a"), &backup, &data]);
        let restored = recover(&major, &data, &scratch, &archive, target);
        assert_eq!(restored.rows(), history.rows_at(target), "{target:?}");
    }
}

fn recover(
    major: &Major,
    data: &Path,
    scratch: &Scratch,
    archive: &Path,
    target: &Target,
) -> Cluster {
    let mut restored = Cluster::of(
        major.clone(),
        data.to_path_buf(),
        scratch.path().to_path_buf(),
    );
    run_as_server("touch", [data.join("recovery.signal")]);
    restored.append_conf(&format!(
        "archive_mode = off\nrestore_command = 'cp \"{}/%f\" \"%p\"'\nrecovery_target_action = promote\n{}",
        archive.display(),
        target.settings()
    ));
    restored.start();
    wait_until("recovery ends", || {
        restored.sql("select pg_is_in_recovery()") == "f"
    });
    restored
}
