//! What was done, over HTTP and on the page.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::{TimeDelta, Utc};
use serde_json::Value;

use super::{ARCHIVED, Answered, Door};
use crate::evidence::record::testing::evidence;
use crate::evidence::record::{Act, Verdict, Who};
use crate::postgres::archive::testing::cluster_in;
use crate::storage::MemoryStorage;

const EVIDENCE: &str = "/v1/clusters/main/evidence";
const DRILLS: &str = "/v1/clusters/main/drills";

/// A service over a repository with two drills and a restore, an hour apart; the last drill failed.
async fn door() -> Door {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    let who = Who {
        user: "postgres".into(),
        host: "db1".into(),
        token: None,
        settings: None,
    };
    let acts = [
        (Act::Drill, Verdict::Passed),
        (Act::Restore, Verdict::Passed),
        (Act::Drill, Verdict::Failed),
    ];
    for (hours, (act, verdict)) in (0..).zip(acts) {
        let mut record = evidence(act);
        record.ended = Utc::now() - TimeDelta::hours(3 - hours);
        (record.verdict, record.rto_seconds) = (verdict, Some(90.0));
        record.subject = "<script>alert(1)</script>".into();
        record.details = serde_json::json!({"long": "story"});
        cluster.journal().append(&who, record).await.unwrap();
    }
    let mut door = Door::over(cluster, None, "", &ARCHIVED).await;
    door.read().await;
    door
}

/// The answer, once the records were read.
async fn read(door: &Door, path: &str) -> Answered {
    for _ in 0..1000 {
        let answer = door.get(path).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        answer.is_problem(503, "not-read-yet");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {path}");
}

fn told(answer: &Value, list: &str) -> Vec<String> {
    let all = answer[list].as_array().unwrap().iter();
    all.map(|one| format!("{} {}", one["act"], one["verdict"]).replace('"', ""))
        .collect()
}

#[tokio::test]
async fn records_are_found_by_act_and_time_the_latest_first() {
    let door = door().await;
    let all = read(&door, EVIDENCE).await.json();
    assert_eq!(
        told(&all, "records"),
        ["drill failed", "restore passed", "drill passed"]
    );
    assert!(
        all["as_of"]["read_at"].is_string() && all["more"] == false,
        "{all}"
    );
    let first = &all["records"][0];
    assert_eq!(
        (&first["number"], &first["who"]["user"]),
        (&3.into(), &"postgres".into())
    );
    assert!(
        first.get("details").is_none() && first.get("reason").is_none(),
        "{first}"
    );
    let ask = async |query: &str| door.get(&format!("{EVIDENCE}?{query}")).await.json();
    assert_eq!(
        told(&ask("act=restore,trim").await, "records"),
        ["restore passed"]
    );
    let one = ask("limit=1").await;
    assert_eq!(
        (told(&one, "records").len(), &one["more"]),
        (1, &true.into())
    );
    let since = (Utc::now() - TimeDelta::minutes(90)).format("%Y-%m-%dT%H:%M:%SZ");
    assert_eq!(
        told(&ask(&format!("since={since}")).await, "records").len(),
        1
    );
    assert_eq!(
        told(&ask(&format!("until={since}")).await, "records").len(),
        2
    );
    for wrong in [
        "act=x",
        "limit=0",
        "limit=1001",
        "since=x",
        "verdict=passed",
    ] {
        let answer = door.get(&format!("{EVIDENCE}?{wrong}")).await;
        answer.is_problem(400, "wrong-value");
    }
}

#[tokio::test]
async fn drills_are_told_and_shown_with_their_verdicts() {
    let door = door().await;
    let drills = read(&door, DRILLS).await.json();
    assert_eq!(told(&drills, "drills"), ["drill failed", "drill passed"]);
    assert!(drills.get("rto_target_seconds").is_none(), "{drills}");
    door.get(&format!("{DRILLS}?limit=0"))
        .await
        .is_problem(400, "wrong-value");
    // All of the WAL was archived just now; a day is wide enough.
    let time = |hours| (Utc::now() + TimeDelta::hours(hours)).format("%Y-%m-%dT%H:%M:%SZ");
    let day = format!("/?from={}&until={}", time(-23), time(1));
    let page = door.get(&day).await.text();
    for part in [
        "id=\"drills\"",
        "Last drill",
        "class=\"event drill lost\"",
        "<pre id=\"drill-command\"",
        "RTO: until a restored server was checked",
        "last 2 min, at most 2 min",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
}
