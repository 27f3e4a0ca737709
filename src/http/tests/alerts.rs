//! What fires, over HTTP, on the page and in the metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

use super::{ARCHIVED, Answered, Door};
use crate::alerts::AlertStore;
use crate::alerts::state::{AlertState, ChannelTrouble, Condition, Severity, Silence};
use crate::postgres::archive::testing::cluster_in;
use crate::storage::MemoryStorage;

const ALERTS: &str = "/v1/clusters/main/alerts";

fn condition(rule: &str, of: &str, severity: Severity) -> Condition {
    Condition {
        rule: rule.into(),
        of: of.into(),
        about: "jobs".into(),
        severity,
        is_unknown: false,
        what: "job failed: <script>alert(1)</script>\u{202e}".into(),
        next: "look & mend it".into(),
    }
}

/// One alert was told, one is silent, one is over, and a channel fails.
fn state(now: DateTime<Utc>) -> AlertState {
    let mut state = AlertState::default();
    let conditions = [
        condition("JobFailed", "dump", Severity::Warning),
        condition("NoBackup", "", Severity::Critical),
        condition("DiskUsed", "", Severity::Warning),
    ];
    for condition in conditions {
        let alert = condition.alert(None, now - TimeDelta::hours(2));
        state.alerts.insert(condition.id(), alert);
    }
    let told = state.alerts.get_mut("NoBackup").unwrap();
    (told.is_told, told.told_at) = (true, Some(now - TimeDelta::hours(1)));
    told.owed.insert("ops".into());
    let over = state.alerts.get_mut("DiskUsed").unwrap();
    over.resolved_at = Some(now - TimeDelta::minutes(5));
    let silence = Silence {
        until: now + TimeDelta::hours(3),
        by: "ann@db1".into(),
        reason: "moving the disks".into(),
    };
    state.silences.insert("JobFailed".into(), silence);
    let trouble = ChannelTrouble {
        failures: 3,
        since: now - TimeDelta::minutes(30),
        next_try: now + TimeDelta::minutes(2),
        why: "\"ops.example\" answered 503".into(),
        refused: Default::default(),
    };
    state.channels.insert("ops".into(), trouble);
    state
}

async fn door(state: Option<&AlertState>) -> Door {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    if let Some(state) = state {
        let folder = cluster.layout.alerts_folder();
        let store = AlertStore::new(cluster.repository.shared_storage(), folder);
        assert!(store.put(1, state).await.unwrap());
    }
    let mut door = Door::over(cluster, None, "", &ARCHIVED).await;
    door.read().await;
    door
}

/// The answer, once the alerts were read.
async fn read(door: &Door) -> Answered {
    for _ in 0..1000 {
        let answer = door.get(ALERTS).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        answer.is_problem(503, "not-read-yet");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for the alerts");
}

#[tokio::test]
async fn what_fires_is_told_with_who_knows_and_who_does_not() {
    let now = Utc::now().trunc_subsecs(0);
    let door = door(Some(&state(now))).await;
    let answer = read(&door).await.json();
    let time = |ahead: TimeDelta| serde_json::to_value(now + ahead).unwrap();
    let (first, second) = (&answer["firing"][0], &answer["firing"][1]);
    assert_eq!(
        (&first["name"], &first["severity"], &first["told"]),
        (&"NoBackup".into(), &"critical".into(), &true.into()),
        "the worst first: {answer:#}"
    );
    assert_eq!(first["since"], time(TimeDelta::hours(-2)));
    assert_eq!(first["last_told_at"], time(TimeDelta::hours(-1)));
    assert_eq!(first["waiting_channels"], serde_json::json!(["ops"]));
    assert!(
        first.get("of").is_none() && first.get("silenced_until").is_none(),
        "{first}"
    );
    assert_eq!(
        (&second["name"], &second["of"], &second["told"]),
        (&"JobFailed/dump".into(), &"dump".into(), &false.into())
    );
    assert_eq!(second["silenced_until"], time(TimeDelta::hours(3)));
    assert!(second.get("last_told_at").is_none(), "{second}");
    assert_eq!(answer["firing"].as_array().unwrap().len(), 2);
    assert_eq!(
        answer["over"][0]["resolved_at"],
        time(TimeDelta::minutes(-5))
    );
    let channel = &answer["failing_channels"][0];
    assert_eq!(
        (&channel["channel"], &channel["failures"]),
        (&"ops".into(), &3.into())
    );
    assert_eq!(answer["silences"][0]["reason"], "moving the disks");
    assert_eq!(answer["watched"], true);
    assert!(answer["as_of"]["read_at"].is_string(), "{answer}");
}

#[tokio::test]
async fn the_page_and_the_metrics_tell_what_fires() {
    let door = door(Some(&state(Utc::now()))).await;
    read(&door).await;
    let page = door.get("/").await.text();
    for part in [
        "job failed: &#60;script&#62;alert(1)&#60;/script&#62;\\u{202e}",
        "look &#38; mend it",
        "<span class=\"kind lost\">critical</span>",
        "silent until <time",
        "not yet ops",
        "Messages to ops do not arrive: 3 failures since <time",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
    let place = |part: &str| page.find(part).unwrap_or_else(|| panic!("{part}: {page}"));
    assert!(place("id=\"alerts\"") < place("id=\"line\""));
    let metrics = door.get("/metrics").await.text();
    for line in [
        "walden_alerts_firing{cluster=\"main\",severity=\"critical\"} 1.0",
        "walden_alerts_firing{cluster=\"main\",severity=\"warning\"} 1.0",
        "walden_alert_channel_failures{cluster=\"main\",channel=\"ops\"} 3.0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn that_nobody_looks_is_not_told_as_nothing_fires() {
    let unwatched = door(None).await;
    let answer = read(&unwatched).await.json();
    assert_eq!(
        (&answer["watched"], &answer["firing"]),
        (&false.into(), &serde_json::json!([]))
    );
    let page = unwatched.get("/").await.text();
    assert!(page.contains("Nobody is told") && !page.contains("Nothing fires"));
    let metrics = unwatched.get("/metrics").await.text();
    assert!(!metrics.contains("walden_alerts_firing"), "{metrics}");
    let watched = door(Some(&AlertState::default())).await;
    assert_eq!(read(&watched).await.json()["watched"], true);
    let page = watched.get("/").await.text();
    assert!(page.contains("Nothing fires."), "{page}");
}
