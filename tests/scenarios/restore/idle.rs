//! Times behind the last archived transaction: restored when the server proved that none followed, else refused.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::{arguments, register, restore, take_backup};
use crate::events::names_are_recorded;
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, outer_majors, wait_until};

/// The server is asked every second.
fn asking(scratch: &Scratch, cluster: &mut Cluster) -> Walden {
    let walden = Walden::with(scratch, cluster, "catalog.names_interval = \"1s\"");
    register(cluster, &walden);
    walden
}

/// A moment that nothing is near, by the server's clock.
fn moment(cluster: &Cluster) -> String {
    // Marks know whole seconds.
    sleep(Duration::from_millis(1100));
    let moment = cluster.sql("select clock_timestamp()");
    sleep(Duration::from_millis(1100));
    moment
}

fn is_restorable(walden: &Walden, time: &str) -> bool {
    walden.run(["target", "--time", time]).code == Some(0)
}

fn refused(walden: &Walden, time: &str) -> String {
    let told = walden.refused(4, ["target", "--time", time]);
    assert!(
        told.contains("after the end of the archived WAL") && told.contains("--latest"),
        "{told}"
    );
    told
}

outer_majors!(
    an_idle_database_is_restored_to_times_behind_its_last_transaction,
    idle
);

fn idle(major: Major) {
    let scratch = Scratch::new("idle");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = asking(&scratch, &mut cluster);
    let service = walden.serve();
    cluster.open_ledger();
    take_backup(&walden);
    let last = cluster.mark("last");
    let idle = moment(&cluster);
    refused(&walden, &idle);
    cluster.archive_now();
    wait_until("the server proved that nothing followed", || {
        is_restorable(&walden, &idle)
    });

    // What is committed now may not be archived for long.
    let late = cluster.mark("not archived");
    for time in [&late.commit_time, &moment(&cluster)] {
        let data = scratch.join("refused");
        let told = walden.refused(4, arguments(&major, &data, &["--time", time]));
        assert!(
            told.contains("it is proven until") && told.contains("--latest"),
            "{told}"
        );
        assert!(!data.exists());
    }

    // Neither the server nor anything that this machine knows is needed.
    service.stop();
    cluster.stop(Stop::Immediate);
    fs::remove_dir_all(scratch.join("cache")).expect("lose the cache");
    let restored = restore(
        &walden,
        &major,
        scratch.join("restored"),
        &["--time", &idle],
    );
    assert_eq!(restored.cluster.rows(), last.with());
    let plan = &restored.said["plan"];
    assert_eq!(restored.said["kind"], "present", "{plan}");
    assert_eq!(plan["warnings"].as_array().map(Vec::len), Some(0), "{plan}");
    assert!(
        plan["notes"]
            .to_string()
            .contains("the server proved that no other transaction ended"),
        "{plan}"
    );
    assert!(walden.ok(["repo", "verify"]).contains("is sound"));
}

#[test]
fn nothing_is_proven_while_a_transaction_is_open_or_prepared() {
    let scratch = Scratch::new("open");
    let builder = Cluster::builder(Major::with_clients()).segment_mib(1);
    let mut cluster = builder
        .setting("max_prepared_transactions", "2")
        .start(&scratch);
    let walden = asking(&scratch, &mut cluster);
    let service = walden.serve();
    cluster.open_ledger();
    take_backup(&walden);
    let writes = "insert into ledger(note) values ('open')";
    let open = std::thread::scope(|scope| {
        let open = scope.spawn(|| cluster.try_sql(&format!("{writes}; select pg_sleep(600)")));
        let backend = "from pg_stat_activity where backend_xid is not null";
        wait_until("it has an id", || {
            cluster.sql(&format!("select count(*) {backend}")) == "1"
        });
        let time = moment(&cluster);
        cluster.archive_now();
        names_are_recorded(&walden);
        refused(&walden, &time);
        cluster.sql(&format!("select pg_terminate_backend(pid) {backend}"));
        open.join().expect("the writer")
    });
    assert!(!open.success(), "it was open all the time");

    cluster.sql(&format!("begin; {writes}; prepare transaction 'prepared'"));
    let time = moment(&cluster);
    cluster.archive_now();
    names_are_recorded(&walden);
    refused(&walden, &time);
    cluster.sql("rollback prepared 'prepared'");
    let time = moment(&cluster);
    cluster.archive_now();
    wait_until("the server proved that nothing followed", || {
        is_restorable(&walden, &time)
    });
    service.stop();
}
