use std::time::Duration;

use super::*;
use crate::config::testing::health_limits;

fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
}

fn job(name: &str) -> ScheduledJob {
    ScheduledJob {
        name: name.into(),
        failures: 0,
        why: None,
        is_running: false,
        ended_at: Some(at(0)),
        succeeded_at: None,
        due_since: None,
        unattended: false,
        stale_before: Some(at(600)),
    }
}

fn dump(database: &str, kind: DumpKind, minutes: i64) -> NewestDump {
    NewestDump {
        id: format!("{database}/{minutes}"),
        database: database.into(),
        kind,
        time: at(minutes),
        bytes: 7,
        earlier: Vec::new(),
    }
}

fn rules(upkeep: &Upkeep) -> Vec<Rule> {
    let reasons = upkeep.judge(&health_limits(), at(720));
    reasons.iter().map(|reason| reason.rule).collect()
}

#[test]
fn a_dump_is_judged_by_the_schedule_of_its_kind_alone() {
    let judged = |jobs: &[ScheduledJob], dumps: &[NewestDump]| {
        rules(&Upkeep {
            jobs: jobs.to_vec(),
            dumps: dumps.to_vec(),
            dumps_at: Some(at(0)),
            ..Upkeep::default()
        })
    };
    let (full, schema) = (DumpKind::Full, DumpKind::Schema);
    let old = [dump("shop", full, 599)];
    assert_eq!(judged(&[], &old), [], "nobody promised one");
    assert_eq!(judged(&[job("dump")], &old), [Rule::DumpOld]);
    assert_eq!(judged(&[job("dump")], &[dump("shop", full, 600)]), []);
    let beside = dump("new", full, 700);
    let [old] = old;
    let dropped = [old.clone(), beside.clone()];
    assert_eq!(judged(&[job("dump")], &dropped), [], "no longer dumped");
    let schemas = [old, dump("shop", schema, 700)];
    assert_eq!(judged(&[job("dump")], &schemas), [Rule::DumpOld]);
    assert_eq!(judged(&[job("schema-dump")], &[beside]), [Rule::NoDump]);
    let just_ended = |minutes| ScheduledJob {
        ended_at: Some(at(minutes)),
        ..job("dump")
    };
    assert_eq!(judged(&[just_ended(1)], &[]), [], "nobody looked since");
    assert_eq!(
        judged(&[just_ended(721)], &[]),
        [Rule::NoDump],
        "a wrong clock"
    );
    let fresh = ScheduledJob {
        ended_at: None,
        ..job("dump")
    };
    assert_eq!(judged(&[fresh], &[]), [], "its first run is to come");
}

#[test]
fn the_dumps_of_databases_dropped_long_ago_are_left_out_when_there_are_many() {
    let name = |minutes| format!("{:03}", 500 - minutes);
    let dumps = (0..203).map(|minutes| dump(&name(minutes), DumpKind::Full, minutes));
    let upkeep = Upkeep {
        dumps: dumps.collect(),
        ..Upkeep::default()
    };
    let (shown, left_out) = upkeep.shown_dumps();
    let databases: Vec<_> = shown.iter().map(|dump| dump.database.clone()).collect();
    let newest: Vec<_> = (3..203).rev().map(name).collect();
    assert_eq!((databases, left_out), (newest, 3));
}

#[test]
fn a_job_that_fails_is_told_at_once_and_is_critical_the_third_time() {
    let told = |failures| {
        let failing = ScheduledJob {
            failures,
            why: Some("no space\nHINT: make some".into()),
            ..job("verify")
        };
        let reasons = Upkeep {
            jobs: vec![failing],
            ..Upkeep::default()
        }
        .judge(&health_limits(), at(0));
        reasons
            .into_iter()
            .map(|reason| (reason.rule, reason.what))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(0), []);
    let once = "job verify failed: no space".to_string();
    assert_eq!(told(1), [(Rule::JobFailed, once)]);
    assert_eq!(told(2)[0].0, Rule::JobFailed);
    let often = "job verify failed 3 times in a row: no space".to_string();
    assert_eq!(told(3), [(Rule::JobFailsAgain, often)]);
}

#[test]
fn a_job_is_overdue_after_an_hour_and_beside_another_after_a_day() {
    let since = |minutes| ScheduledJob {
        due_since: Some(at(minutes)),
        ..job("verify")
    };
    let judged = |jobs: &[ScheduledJob]| {
        rules(&Upkeep {
            jobs: jobs.to_vec(),
            ..Upkeep::default()
        })
    };
    assert_eq!(judged(&[since(660)]), []);
    assert_eq!(judged(&[since(659)]), [Rule::JobOverdue]);
    let running = ScheduledJob {
        is_running: true,
        ..job("backup")
    };
    assert_eq!(judged(&[since(0), running.clone()]), []);
    let unattended = ScheduledJob {
        unattended: true,
        ..job("verify")
    };
    assert_eq!(judged(&[unattended.clone(), running.clone()]), []);
    assert_eq!(judged(&[unattended]), [Rule::JobUnattended]);
    assert_eq!(judged(&[since(-721), running]), [Rule::JobOverdue]);
}

#[test]
fn a_full_file_system_is_told_before_it_is_full() {
    for (used, free, rule) in [
        (80, 20, None),
        (81, 19, Some(Rule::DiskUsed)),
        (95, 5, Some(Rule::DiskUsed)),
        (951, 49, Some(Rule::DiskFull)),
        (0, 0, None),
        (u64::MAX, 1, Some(Rule::DiskFull)),
    ] {
        let disk = DiskUse {
            used_bytes: used,
            free_bytes: free,
        };
        let told = disk.judge(&health_limits()).map(|reason| reason.rule);
        assert_eq!(told, rule, "{used} {free}");
        let limits = Limits {
            disk_used: 100,
            ..health_limits()
        };
        assert_eq!(disk.judge(&limits), None, "turned off");
    }
}

#[test]
fn what_is_not_known_is_told_and_the_worst_comes_first() {
    let unknown = Upkeep {
        dumps_unknown: Some("denied".into()),
        jobs_unknown: Some("no answer".into()),
        jobs: vec![
            ScheduledJob {
                failures: 3,
                ..job("copy")
            },
            job("dump"),
        ],
        disk_unknown: Some("not mounted".into()),
        ..Upkeep::default()
    };
    let health = Health {
        protected: None,
        loss: super::super::Loss::Unknown,
        backup: None,
        beyond: 0,
        reasons: Vec::new(),
    };
    let health = health.with(&unknown, &health_limits(), at(0));
    let order: Vec<Rule> = health.reasons.iter().map(|reason| reason.rule).collect();
    let unknown = [Rule::DumpsUnknown, Rule::JobsUnknown, Rule::DiskUnknown];
    assert_eq!(order[0], Rule::JobFailsAgain);
    assert_eq!(order[1..], unknown, "and not that there is no dump");
}

#[test]
fn few_good_runs_are_told_from_twenty_on() {
    let judged = |succeeded, failed, success_rate| {
        let limits = Limits {
            success_rate,
            ..health_limits()
        };
        let upkeep = Upkeep {
            runs: RunCount { succeeded, failed },
            ..Upkeep::default()
        };
        let reasons = upkeep.judge(&limits, at(0));
        reasons.iter().map(|one| one.rule).collect::<Vec<_>>()
    };
    let low = [Rule::SuccessRateLow];
    assert_eq!(judged(99, 1, 99), [], "exactly as many as must");
    assert_eq!(judged(98, 1, 99), low);
    assert_eq!((judged(18, 1, 99), judged(19, 1, 99)), (vec![], low.into()));
    assert_eq!(judged(0, 20, 0), [], "turned off");
    assert_eq!(judged(0, 0, 99), [], "nothing ran");
}

#[test]
fn an_age_that_a_dump_may_have_counts_whatever_is_scheduled() {
    let judged = |dumps: &[NewestDump], dumps_at, change: fn(&mut Limits)| {
        let mut limits = health_limits();
        change(&mut limits);
        let upkeep = Upkeep {
            dumps: dumps.to_vec(),
            dumps_at,
            ..Upkeep::default()
        };
        let reasons = upkeep.judge(&limits, at(720));
        let told = reasons.iter().map(|one| (one.rule, one.of.clone()));
        told.collect::<Vec<_>>()
    };
    let full: fn(&mut Limits) = |limits| limits.dump_age = Some(Duration::from_secs(7200));
    let schema: fn(&mut Limits) = |limits| limits.schema_dump_age = Some(Duration::from_secs(7200));
    let of = |minutes| dump("shop", DumpKind::Full, minutes);
    // Two hours before it is looked at.
    let limit = 600;
    let seen = Some(at(0));
    let told = |rule, of: &str| vec![(rule, of.to_string())];
    assert_eq!(judged(&[of(limit)], seen, full), []);
    assert_eq!(
        judged(&[of(limit - 1)], seen, full),
        told(Rule::DumpOld, "dump")
    );
    assert_eq!(judged(&[of(0)], seen, |_| ()), [], "nobody set an age");
    assert_eq!(judged(&[], seen, full), told(Rule::NoDump, "dump"));
    assert_eq!(
        judged(&[of(700)], seen, schema),
        told(Rule::NoDump, "schema-dump"),
        "of its kind alone"
    );
    assert_eq!(judged(&[], None, full), [], "not looked at yet");
}

#[test]
fn a_certificate_is_to_be_renewed_before_it_ends() {
    let judged = |certificate: Option<DateTime<Utc>>, unknown: Option<&str>| {
        let limits = Limits {
            certificate: Duration::from_secs(3600),
            ..health_limits()
        };
        let upkeep = Upkeep {
            certificate,
            certificate_unknown: unknown.map(str::to_string),
            ..Upkeep::default()
        };
        let reasons = upkeep.judge(&limits, at(720));
        reasons.iter().map(|one| one.rule).collect::<Vec<_>>()
    };
    assert_eq!(judged(None, None), [], "none is shown");
    assert_eq!(judged(Some(at(781)), None), []);
    assert_eq!(judged(Some(at(780)), None), [Rule::CertificateExpires]);
    assert_eq!(judged(Some(at(720)), None), [Rule::CertificateExpires]);
    assert_eq!(judged(Some(at(719)), None), [Rule::CertificateExpired]);
    assert_eq!(
        judged(None, Some("access denied")),
        [Rule::CertificateUnknown]
    );
}
