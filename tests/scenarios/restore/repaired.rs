//! What was damaged in the repository is told as what it is, and reached again once it is repaired there.

use std::fs;

use super::{archiving, take_backup};
use crate::harness::{Cluster, Major, Marker, Scratch};

#[test]
fn what_is_repaired_in_the_repository_is_found_and_reached_again() {
    let scratch = Scratch::new("repaired");
    let cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let mark = |number: u32| {
        (
            cluster.mark(&format!("mark {number}")),
            cluster.archive_now(),
        )
    };
    let (marks, segments): (Vec<Marker>, Vec<String>) = (0..5).map(mark).unzip();
    let (unreadable, broken) = (
        walden.segment_object(&segments[1]),
        walden.segment_object(&segments[2]),
    );
    let target = |number: usize| ["target", "--xid", marks[number].xid.as_str()];

    // One object is no longer what was stored; of another segment only a salvaged copy is there.
    let whole = fs::read(&unreadable).expect("read an object");
    fs::write(&unreadable, "not what was stored").expect("damage an object");
    let (file, aside) = (scratch.join(&segments[2]), scratch.join("aside"));
    walden.ok([
        "wal".as_ref(),
        "fetch".as_ref(),
        segments[2].as_ref(),
        file.as_os_str(),
    ]);
    let mut salvaged = fs::read(&file).expect("read a segment");
    salvaged[200..].fill(0);
    fs::write(&file, &salvaged).expect("break a segment");
    fs::rename(&broken, &aside).expect("put an object aside");
    walden.expect_log("break off");
    walden.ok(["wal".as_ref(), "push".as_ref(), file.as_os_str()]);

    let told = walden.run(target(3));
    assert!(
        !told.success() && told.stderr.contains(&segments[1]),
        "{}",
        told.stderr
    );
    walden.ok(target(0));
    walden.expect_log("1 of ");
    let found = walden.json(["find", "--kind", "restore-point"]);
    assert_eq!(
        (
            &found["indexed"]["not_indexed"],
            &found["indexed"]["unreadable"]
        ),
        (&1.into(), &1.into()),
        "{found}"
    );
    assert_eq!(
        found["indexed"]["first_unreadable"]["segment"], segments[1],
        "{found}"
    );
    let none = walden.run(["find", "--kind", "drop"]);
    assert!(
        none.stdout
            .contains("no matching event in what was searched, "),
        "{}",
        none.stdout
    );
    assert!(
        none.stderr.contains(&segments[1]) && none.stderr.contains("damaged"),
        "{}",
        none.stderr
    );

    fs::write(&unreadable, whole).expect("repair an object");
    let told = walden.refused(4, target(3));
    assert!(told.contains(&segments[2]), "{told}");
    assert_eq!(walden.json(["find"])["indexed"]["complete"], true);
    fs::rename(&aside, &broken).expect("put the whole segment in its place");
    let plan = walden.json(target(3));
    assert_eq!(
        plan["plan"]["last_included"]["xid"].to_string(),
        marks[3].xid,
        "{plan}"
    );
}
