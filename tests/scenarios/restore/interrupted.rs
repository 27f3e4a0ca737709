//! A restore that is killed at any moment leaves a folder from which no server starts, or a whole one.

use std::process::Stdio;
use std::time::Duration;

use super::{archiving, arguments, take_backup};
use crate::harness::{Cluster, Major, Random, Scratch, is_long};

#[test]
fn killed_at_random_moments_it_leaves_nothing_that_starts_by_half() {
    let (scratch, major) = (Scratch::new("killed"), Major::newest());
    let mut random = Random::seeded("killed");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    cluster.sql("create table much as select n, repeat(md5(n::text), 10) as text from generate_series(1, 60000) as n");
    take_backup(&walden);
    let kept = cluster.mark("kept");
    cluster.archive_now();
    // As long as a whole one takes on this machine.
    let begun = std::time::Instant::now();
    walden.ok([
        "restore",
        "--latest",
        "--to-dir",
        &scratch.join("whole").display().to_string(),
    ]);
    let longest = begun.elapsed().as_millis() as usize + 1;
    let rounds = if is_long() { 100 } else { 12 };
    let (mut halves, mut wholes) = (0, 0);
    for round in 0..rounds {
        let data = scratch.join(&format!("r{round}"));
        let mut command = walden.command([
            "restore",
            "--latest",
            "--to-dir",
            &data.display().to_string(),
        ]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a restore");
        std::thread::sleep(Duration::from_millis(random.below(longest) as u64));
        child.kill().expect("kill the restore");
        child.wait().expect("wait for the restore");
        // Killed before it wrote anything: an empty folder is a fine target.
        if !data.exists()
            || std::fs::read_dir(&data)
                .expect("list the folder")
                .next()
                .is_none()
        {
            continue;
        }
        let mut restored = Cluster::of(major.clone(), data.clone(), scratch.path().to_path_buf());
        if restored.try_start().success() {
            wholes += 1;
            // Until then it lets nobody in.
            let is_open = || restored.try_sql("select pg_is_in_recovery()").stdout.trim() == "f";
            crate::harness::wait_until("recovery ends", is_open);
            assert_eq!(restored.rows(), kept.with());
            assert_eq!(
                restored.sql("select count(*), count(distinct text) from much"),
                "60000|60000"
            );
        } else {
            halves += 1;
            assert!(
                !data.join("global/pg_control").exists(),
                "{}",
                restored.log()
            );
            let told = walden.refused(
                1,
                [
                    "restore",
                    "--latest",
                    "--to-dir",
                    &data.display().to_string(),
                ],
            );
            assert!(
                told.contains("interrupted") && told.contains("rm -r"),
                "{told}"
            );
        }
    }
    eprintln!("killed {rounds} times: {halves} halves that do not start, {wholes} whole");
    assert!(halves > 0, "every restore was over before it was killed");
    // By the same name after removing it, as the message says.
    let data = scratch.join("r again");
    walden.ok(arguments(
        &major,
        &data,
        &["--latest", "--target-action", "promote"],
    ));
    let mut again = Cluster::of(major, data, scratch.path().to_path_buf());
    again.adopt(0, scratch.path());
}
