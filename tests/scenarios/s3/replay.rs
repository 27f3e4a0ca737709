//! Replay through the faults of networks and stores: wrong content is never delivered, a fault is never the archive's end.

use std::time::Duration;

use super::workload::{Workload, recovers};
use crate::harness::{Fault, Rows, Vanished, When};

/// A workload whose WAL is archived, and its rows.
fn archived() -> Option<(Workload, Rows)> {
    let workload = Workload::new()?;
    let service = workload.primary.walden.serve();
    workload.write(12);
    let rows = workload.rows();
    workload.primary.cluster.archive_now();
    service.stop();
    Some((workload, rows))
}

#[test]
fn replay_through_failing_requests_ends_at_the_right_row() {
    let Some((workload, rows)) = archived() else {
        return;
    };
    for part in ["cannot fetch", "cannot tell"] {
        workload.primary.walden.expect_log(part);
    }
    let service = workload.primary.walden.serve();
    let all: &[&str] = &[];
    for (name, fault, kinds) in [
        ("corrupt", Fault::Corrupt, &["get"] as &[&str]),
        ("truncate", Fault::Truncate, &["get"]),
        ("cut", Fault::CutAnswer, all),
        ("lose", Fault::LoseAnswer, all),
        ("busy", Fault::Answer(503, "SlowDown"), all),
    ] {
        workload.proxy.fault(fault, kinds, When::OneIn(4));
        let replica = workload.recover(name);
        assert!(workload.proxy.heal() > 0, "{name} struck");
        assert_eq!(replica.rows(), rows, "{name}");
    }
    service.stop();
    // The hook program alone, which reads more for each file.
    workload
        .proxy
        .fault(Fault::Corrupt, &["get"], When::Next(3));
    assert_eq!(workload.recover("corrupt without a service").rows(), rows);
    workload.proxy.heal();
    workload.proxy.delay(Duration::from_millis(50));
    assert_eq!(workload.recover("far without a service").rows(), rows);
}

#[test]
fn replay_stops_and_does_not_end_while_the_store_has_wrong_content_or_is_gone() {
    let Some((workload, rows)) = archived() else {
        return;
    };
    for part in ["cannot fetch", "cannot tell"] {
        workload.primary.walden.expect_log(part);
    }
    for serving in [true, false] {
        let service = serving.then(|| workload.primary.walden.serve());
        for (name, fault) in [
            ("corrupt", Some(Fault::Corrupt)),
            ("truncated", Some(Fault::Truncate)),
            ("gone", None),
        ] {
            let mut replica = workload.primary.replica(
                &format!("{name} {serving}"),
                "recovery.signal",
                "archive_mode = off",
            );
            match fault {
                Some(fault) => workload.proxy.fault(fault, &["get"], When::Always),
                None => workload.proxy.vanish(Vanished::Refuses),
            }
            assert!(!recovers(&mut replica), "{name}: {}", replica.log());
            workload.proxy.heal();
            workload.proxy.come_back();
            assert!(recovers(&mut replica), "{name}: {}", replica.log());
            assert_eq!(replica.rows(), rows, "{name}");
        }
        drop(service);
    }
}
