//! The harness itself: what other scenarios stand on.

use crate::harness::{Cluster, Major, Scratch, outer_majors};

outer_majors!(
    a_cluster_commits_and_its_standby_takes_over,
    standby_takes_over
);

fn standby_takes_over(major: Major) {
    let scratch = Scratch::new("base");
    let mut cluster = Cluster::builder(major).checksums(true).start(&scratch);
    cluster.open_ledger();
    let burst = cluster.burst(3, 8);
    let marker = cluster.mark("one");
    assert_eq!(marker.before, burst.with());
    assert_eq!(cluster.rows(), marker.with());
    assert!(marker.quiet_time < marker.commit_time);
    let standby = cluster.standby(&scratch);
    cluster.restart();
    let after = cluster.commit("two");
    standby.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    standby.promote();
    let mut expected = marker.with();
    expected.insert(after);
    assert_eq!(standby.rows(), expected);
}
