//! The main promise: whatever the target, exactly the transactions that it promises, none missing, none more.

use super::{register, restore, take_backup};
use crate::harness::{Cluster, Major, Random, Scratch, Walden, each_major, is_long, lsn_number};

each_major!(
    a_restore_holds_exactly_what_its_target_promises,
    exactly_as_promised
);

/// Between the oldest and the newest major a few: their plans are made by the same rules.
fn exactly_as_promised(major: Major) {
    let some = if is_long() || major.is_first_or_last() {
        7
    } else {
        2
    };
    exactly_as_promised_with(major, some, Walden::beside);
}

/// With Walden as `beside` sets it up, and `some` targets of each kind.
pub fn exactly_as_promised_with(
    major: Major,
    some: usize,
    beside: impl Fn(&Scratch, &Cluster) -> Walden,
) {
    let scratch = Scratch::new("exact");
    let mut random = Random::seeded("exact");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .with_history()
        .start(&scratch);
    let walden = beside(&scratch, &cluster);
    register(&mut cluster, &walden);
    let mut service = Some(walden.serve());
    cluster.open_ledger_with_history();
    cluster.burst(3, 10);
    // Writers commit while the backup is taken.
    let backup = std::thread::scope(|scope| {
        let writers = scope.spawn(|| cluster.burst(3, 60));
        let backup = walden.json(["backup", "take"]);
        writers.join().expect("writers");
        backup
    });
    let backup_end = lsn_number(backup["stop_lsn"].as_str().expect("an LSN"));
    cluster.burst(4, 20);
    let named = cluster.restore_point("between \"it\" 100%");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let quiet = cluster.insert_lsn();
    cluster.burst_of_commits(4, 30);
    // A later backup is the better start for later targets.
    let later = take_backup(&walden);
    let after_later = cluster.insert_lsn();
    std::thread::sleep(std::time::Duration::from_millis(20));
    cluster.burst_of_commits(4, 30);
    cluster.mark("last");
    cluster.archive_now();

    let history = cluster.history();
    let mut targets = vec![named];
    targets.extend((1..some).map(|_| history.random_target(backup_end, false, &mut random)));
    // Times only where nothing was rolled back.
    targets.extend((0..some).map(|_| history.random_target(quiet, true, &mut random)));
    targets.extend((0..some).map(|_| history.random_target(after_later, true, &mut random)));
    let mut used_later = false;
    let later_end = lsn_number(
        walden.json(["backup", "show", &later])["stop_lsn"]
            .as_str()
            .expect("an LSN"),
    );
    for (number, target) in targets.iter().enumerate() {
        if number == 2 * some {
            // The rest fetches its WAL with no service running.
            drop(service.take());
        }
        let restored = restore(
            &walden,
            &major,
            scratch.join(&format!("r {number}")),
            &target.arguments(),
        );
        assert_eq!(
            restored.cluster.rows(),
            history.rows_at(target),
            "{target:?}: {}",
            restored.said
        );
        assert_eq!(restored.cluster.sql("show archive_mode"), "off");
        assert_eq!(
            restored
                .cluster
                .sql("select timeline_id from pg_control_checkpoint()"),
            "2"
        );
        assert_eq!(restored.said["recovered"]["timeline"], 2);
        used_later |= restored.said["plan"]["backup"]["id"] == *later;
        let stop = lsn_number(
            restored.said["plan"]["stop"]["lsn"]
                .as_str()
                .expect("an LSN"),
        );
        let newest = if stop >= later_end {
            &later
        } else {
            backup["id"].as_str().expect("an id")
        };
        assert_eq!(
            restored.said["plan"]["backup"]["id"], *newest,
            "the newest before {target:?}"
        );
    }
    assert!(used_later, "no target used the later backup");
    // The source is untouched and goes on archiving.
    assert_eq!(cluster.rows(), history.rows());
    cluster.commit("still here");
    cluster.archive_now();
}
