//! A store that is gone for a while.

use std::time::Duration;

use super::workload::Workload;
use crate::harness::{Vanished, is_long};

fn returns(how: Vanished) {
    let Some(workload) = Workload::new() else {
        return;
    };
    workload.primary.walden.expect_log("no answer");
    workload.primary.walden.expect_log("did not answer");
    let service = workload.primary.walden.serve();
    workload.write(3);
    workload.proxy.vanish(how);
    workload.write(20);
    workload.wait_for_failures(2);
    if is_long() {
        std::thread::sleep(Duration::from_secs(180));
        workload.write(100);
    }
    assert!(
        workload.primary.cluster.log().contains("HINT: "),
        "{}",
        workload.primary.cluster.log()
    );
    workload.proxy.come_back();
    workload.write(2);
    workload.ends_well(&service);
}

#[test]
fn what_waited_while_connections_were_refused_is_archived_when_the_store_is_back() {
    returns(Vanished::Refuses);
}

#[test]
fn what_waited_while_connections_hung_is_archived_when_the_store_is_back() {
    returns(Vanished::Swallows);
}
