//! Archiving goes on through the faults of networks and stores: nothing acknowledged is lost, nothing is a conflict that
//! is none.

use std::time::Duration;

use super::workload::Workload;
use crate::harness::{Fault, When};
use crate::restore::{restore, take_backup};

/// Writes while requests fail, and checks everything afterwards. `declared`: parts of log lines that belong to it.
fn archives_through(faults: &[(Fault, &'static [&'static str], When)], declared: &[&str]) {
    let Some(workload) = Workload::new() else {
        return;
    };
    declared
        .iter()
        .for_each(|part| workload.primary.walden.expect_log(part));
    let service = workload.primary.walden.serve();
    for (fault, kinds, when) in faults {
        workload.proxy.fault(*fault, kinds, *when);
        while workload.proxy.strikes() < 5 {
            workload.write(3);
        }
        workload.proxy.heal();
    }
    workload.ends_well(&service);
}

#[test]
fn a_store_that_is_busy_or_in_trouble_is_asked_again() {
    let answers = [
        (Fault::Answer(503, "SlowDown"), When::OneIn(3)),
        (Fault::Answer(500, "InternalError"), When::OneIn(3)),
        (Fault::Answer(429, "TooManyRequests"), When::OneIn(3)),
        // More in a row than repetitions: hook calls fail.
        (Fault::Answer(503, "ServiceUnavailable"), When::Next(20)),
    ];
    let faults = answers.map(|(fault, when)| (fault, &[] as &[&str], when));
    archives_through(
        &faults,
        &[
            "SlowDown",
            "InternalError",
            "TooManyRequests",
            "ServiceUnavailable",
        ],
    );
}

#[test]
fn a_put_that_is_cut_stores_nothing_and_one_whose_answer_is_lost_is_no_conflict() {
    let faults = [Fault::CutRequest, Fault::LoseAnswer]
        .map(|fault| (fault, &["put"] as &[&str], When::OneIn(2)));
    archives_through(&faults, &["no answer"]);
}

#[test]
fn connections_that_break_anywhere_lose_nothing() {
    let faults =
        [Fault::CutAnswer, Fault::LoseAnswer].map(|fault| (fault, &[] as &[&str], When::OneIn(3)));
    archives_through(&faults, &["no answer"]);
}

#[test]
fn a_store_half_a_second_away_is_kept_up_with() {
    let Some(workload) = Workload::new() else {
        return;
    };
    let service = workload.primary.walden.serve();
    for latency in [50, 500] {
        workload.proxy.delay(Duration::from_millis(latency));
        workload.write(8);
        workload.primary.cluster.archive_now();
    }
    workload.proxy.delay(Duration::from_millis(50));
    workload.ends_well(&service);
}

#[test]
fn refused_credentials_are_told_to_the_server_and_archiving_goes_on_when_they_are_right() {
    let Some(workload) = Workload::new() else {
        return;
    };
    let service = workload.primary.walden.serve();
    for (status, code, hint) in [
        (
            400,
            "ExpiredToken",
            "HINT: renew the credentials: they have expired",
        ),
        (403, "RequestTimeTooSkewed", "HINT: this machine's clock"),
        (403, "AccessDenied", "HINT: allow this user s3:PutObject"),
        (403, "InvalidAccessKeyId", "HINT: check `s3.access_key_id`"),
    ] {
        workload.primary.walden.expect_log(code);
        workload
            .proxy
            .fault(Fault::Answer(status, code), &[], When::Always);
        workload.write(2);
        workload.wait_for_failures(1);
        let log = workload.primary.cluster.log();
        assert!(log.contains(code) && log.contains(hint), "{log}");
        workload.proxy.heal();
        workload.primary.cluster.archive_now();
    }
    workload.ends_well(&service);
}

#[test]
fn a_backup_is_taken_verified_and_restored_through_failing_requests() {
    let Some(workload) = Workload::new() else {
        return;
    };
    let (walden, proxy) = (&workload.primary.walden, &workload.proxy);
    let service = walden.serve();
    let all: &[&str] = &[];
    for (fault, kinds) in [
        (Fault::Answer(503, "SlowDown"), all),
        (Fault::CutAnswer, all),
        (Fault::LoseAnswer, all),
        (Fault::CutRequest, &["put"]),
    ] {
        proxy.fault(fault, kinds, When::OneIn(20));
    }
    workload.write(2);
    let id = take_backup(walden);
    workload.write(2);
    let rows = workload.rows();
    workload.primary.cluster.archive_now();
    walden.ok(["backup", "verify", &id]);
    let data = workload.primary.scratch.join("restored");
    let restored = restore(
        walden,
        &workload.primary.cluster.major,
        data,
        &[] as &[&str],
    );
    assert_eq!(restored.cluster.rows(), rows, "{}", restored.said);
    assert!(proxy.heal() > 0, "no request failed");
    workload.ends_well(&service);
}
