//! Searches for events, and what the index does not know yet.

use super::*;
use crate::postgres::catalog::testing::facts;
use crate::postgres::catalog::{self, Target};
use crate::postgres::index::update::{ListScope, list};
use crate::postgres::types::WalFileName;

#[tokio::test]
async fn events_are_found_by_what_is_asked() {
    let door = Door::with("", &ARCHIVED).await;
    let query =
        "kind=drop,truncate&min_rows=1&since=2026-01-01T00:00:00Z&relation=o*&all=true&limit=7";
    let answer = door
        .get(&format!("/v1/clusters/main/events?{query}"))
        .await
        .json();
    assert_eq!(
        (
            answer["events"].as_array().map(Vec::len),
            answer["more"].as_bool()
        ),
        (Some(0), Some(false))
    );
    for query in [
        "kind=drops",
        "kind=",
        "limit=0",
        "limit=1001",
        "since=now",
        "min_rows=-1",
        "all=7",
    ] {
        door.get(&format!("/v1/clusters/main/events?{query}"))
            .await
            .is_problem(400, "wrong-value");
    }
}

#[tokio::test]
async fn searches_for_events_hold_nothing_else_up() {
    let door = &Door::with("", &ARCHIVED).await;
    let search = || door.get("/v1/clusters/main/events");
    // As by one that takes long, while more wait than are computed at once.
    let busy = door.app.search_index.hold();
    let others = async move {
        let plan = door
            .get("/v1/clusters/main/recovery-target?lsn=0/200000")
            .await;
        let before = door
            .get("/v1/clusters/main/recovery-target?before=1-0-80B728-d16384")
            .await;
        drop(busy);
        (plan.status, before.status)
    };
    let answers = tokio::join!(search(), search(), search(), search(), search(), others);
    assert_eq!(
        answers.5,
        (StatusCode::OK, StatusCode::BAD_REQUEST),
        "there is no such event"
    );
    for answer in [answers.0, answers.1, answers.2, answers.3, answers.4] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
}

#[tokio::test]
async fn what_is_archived_and_not_in_the_index_is_unknown_and_not_empty() {
    let door = Door::with("", &[]).await;
    // As another host stored them since the index was compared with the repository.
    let facts = facts(&["000000010000000000000002", "000000010000000000000003"]);
    let target = Target::Time(facts.backups[0].stopped_at + chrono::TimeDelta::hours(1));
    let facts = Arc::new(facts);
    let problem = door
        .app
        .decide(&facts, &catalog::RestoreRequest::new(target))
        .await
        .unwrap_err();
    assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        problem.detail().contains("not known yet") && problem.next().contains("try again"),
        "{problem:?}"
    );
    // What needs no index is planned nevertheless, as far as that.
    let latest = door
        .app
        .decide(&facts, &catalog::RestoreRequest::new(Target::Latest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((latest.segments, latest.transactions), (2, None));
}

#[tokio::test]
async fn no_event_is_told_apart_from_none_that_is_known() {
    let door = Door::with("", &ARCHIVED).await;
    door.indexed().await;
    let ask = async |segment: u64| {
        let before = format!("before=1-0-{:X}-d16384", (segment << 20) + 0x728);
        (
            door.get(&format!("/v1/clusters/main/recovery-target?{before}"))
                .await,
            format!("/?by=before&value={}", &before[7..]),
        )
    };
    ask(2).await.0.is_problem(400, "wrong-value");
    ask(3).await.0.is_problem(400, "wrong-value");
    assert!(
        door.get(&ask(2).await.1)
            .await
            .text()
            .contains("there is no event")
    );
    // As another host stored it since, and it came damaged.
    let name: WalFileName = "000000010000000000000005".parse().unwrap();
    let key = door.app.planner.cluster.layout.wal(&name);
    let storage = door.app.planner.cluster.repository.storage();
    let _ = storage
        .put(&key, "no WAL".into(), crate::storage::PutMode::CreateOnly)
        .await
        .unwrap();
    list(door.index(), &door.app.planner.cluster, ListScope::New)
        .await
        .unwrap();
    let (answer, page) = ask(5).await;
    answer.is_problem(503, "unknown");
    let detail = answer.json()["detail"].as_str().unwrap().to_string();
    assert!(
        detail.contains("what WAL segment 000000010000000000000005 holds is not known yet"),
        "{detail}"
    );
    let page = door.get(&page).await.text();
    assert!(
        page.contains("is not known yet") && !page.contains("there is no event"),
        "{page}"
    );
    assert!(
        page.contains("1 segment of WAL still to be read")
            && page.contains("WAL that was searched so far"),
        "{page}"
    );
    let events = door.get("/v1/clusters/main/events").await.json();
    assert_eq!(
        (&events["indexed"]["complete"], &events["indexed"]["listed"]),
        (&false.into(), &true.into()),
        "{events}"
    );
    door.index().clear().unwrap();
    ask(2).await.0.is_problem(503, "unknown");
    let events = door.get("/v1/clusters/main/events").await.json();
    assert_eq!(
        (&events["indexed"]["complete"], &events["indexed"]["listed"]),
        (&false.into(), &false.into()),
        "{events}"
    );
    assert!(door.get("/").await.text().contains("still being listed"));
}
