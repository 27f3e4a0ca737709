//! Figures as they are pushed, and under the names of runbooks.

use chrono::{DateTime, TimeDelta, Utc};

use crate::alerts::state::{AlertState, ChannelTrouble};
use crate::config::testing::health_limits;
use crate::health::{ActEnd, ActKind, DiskUse, DumpKind, Health, NewestDump, SeenAct, Upkeep};
use crate::http::{Figures, Kept, pushed};
use crate::jobs::record::RunState;
use crate::jobs::record::testing::record;
use crate::jobs::status::JobStatus;
use crate::postgres::catalog::testing::facts;
use crate::postgres::catalog::{Window, WindowEdge, Windows};
use crate::postgres::types::{Lsn, TimelineId};

fn at(hours: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
}

fn dump(database: &str, kind: DumpKind, bytes: u64) -> NewestDump {
    NewestDump {
        id: format!("{database}/1"),
        database: database.into(),
        kind,
        time: at(3),
        bytes,
        earlier: Vec::new(),
    }
}

fn job(name: &str, state: RunState) -> JobStatus {
    JobStatus {
        job: name.into(),
        cron: Some("0 * * * *".into()),
        time_zone: Some("UTC".into()),
        next: Some(at(5)),
        due_since: None,
        unattended: false,
        stale_before: None,
        running: None,
        last: Some((&record(state, None, 1)).into()),
        last_success: Some((&record(RunState::Succeeded, None, 1)).into()),
        failures_in_a_row: 0,
    }
}

fn windows() -> Windows {
    let edge = |lsn, hours| WindowEdge {
        lsn: Lsn(lsn),
        time: Some(at(hours)),
    };
    let window = Window {
        timeline: TimelineId(1),
        from: edge(2 << 24, 1),
        to: edge(3 << 24, 2),
        idle_until: None,
        backup: "20260101-000000Z".parse().unwrap(),
    };
    Windows {
        windows: vec![window],
        ..Windows::default()
    }
}

fn upkeep() -> Upkeep {
    let act = |end, hours| SeenAct {
        kind: ActKind::Verification,
        ended: at(hours),
        end,
        why: String::new(),
        took: TimeDelta::seconds(1),
    };
    Upkeep {
        dumps: vec![
            dump("shop", DumpKind::Full, 70),
            dump("wiki", DumpKind::Full, 7),
        ],
        dumps_at: Some(at(4)),
        acts: vec![act(ActEnd::Failed, 1), act(ActEnd::Passed, 2)],
        knows_acts: true,
        disk: Some(DiskUse {
            used_bytes: 8,
            free_bytes: 2,
        }),
        ..Upkeep::default()
    }
}

/// What is pushed of these jobs, with all else known.
fn pushed_of(upkeep: &Upkeep, jobs: &[JobStatus], is_in_bucket: bool) -> String {
    let facts = facts(&["000000010000000000000002"]);
    let windows = windows();
    let health = Health::of(&facts, &windows, &[], &health_limits(), at(4));
    let mut state = AlertState::default();
    let trouble = ChannelTrouble {
        failures: 3,
        since: at(1),
        next_try: at(2),
        why: "no answer".into(),
        refused: Default::default(),
    };
    state.channels.insert("ops".into(), trouble);
    let figures = Figures {
        cluster: "main",
        status: None,
        kept: Some(Kept {
            facts: &facts,
            windows: &windows,
            gaps: &[],
            read_at: at(4),
            health: &health,
        }),
        is_unreadable: false,
        upkeep,
        jobs,
        alerts: Some(&state),
        has_runbook_names: true,
        is_in_bucket,
    };
    pushed(&figures, at(4)).unwrap()
}

/// Every figure that can be pushed.
pub fn pushed_with_all() -> String {
    pushed_of(&upkeep(), &[job("copy", RunState::Failed)], true)
}

#[track_caller]
fn tells(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|one| one == *line), "{line}: {text}");
    }
}

#[test]
fn what_is_pushed_takes_no_label_of_who_pushes() {
    let text = pushed_with_all();
    tells(
        &text,
        &[
            "walden_pushed_timestamp_seconds{cluster=\"main\"} 14400.0",
            "walden_job_failures_in_a_row{cluster=\"main\",exported_job=\"copy\"} 0.0",
            "walden_repository_unreadable{cluster=\"main\"} 0.0",
            "# EOF",
        ],
    );
    assert!(!text.contains(",job=") && !text.contains("{job="), "{text}");
    assert!(
        !text.contains("_total"),
        "what counts in one process is scraped: {text}"
    );
}

#[test]
fn runbooks_find_their_names_and_nothing_that_is_not_known() {
    let text = pushed_with_all();
    tells(
        &text,
        &[
            "backup_last_success_timestamp{cluster=\"main\",type=\"base\"} 1767225601.0",
            "backup_last_success_timestamp{cluster=\"main\",type=\"dump\"} 10800.0",
            "backup_last_success_timestamp{cluster=\"main\",type=\"wal\"} 0.0",
            "backup_size_bytes{cluster=\"main\",type=\"dump\"} 77.0",
            "backup_size_bytes{cluster=\"main\",type=\"wal\"} 10.0",
            "backup_validation_success{cluster=\"main\"} 1.0",
            "backup_s3_sync_success{cluster=\"main\"} 0.0",
        ],
    );
    assert!(!text.contains("type=\"schema\""), "{text}");
    let copied = pushed_of(&upkeep(), &[job("copy", RunState::Succeeded)], false);
    tells(&copied, &["backup_s3_sync_success{cluster=\"main\"} 1.0"]);
    let in_bucket = pushed_of(&Upkeep::default(), &[job("dump", RunState::Failed)], true);
    tells(
        &in_bucket,
        &["backup_s3_sync_success{cluster=\"main\"} 1.0"],
    );
    let in_folder = pushed_of(&Upkeep::default(), &[], false);
    for unknown in ["backup_s3_sync", "backup_validation", "type=\"dump\""] {
        assert!(!in_folder.contains(unknown), "{unknown}: {in_folder}");
    }
}
