//! What a cluster's state, plans, metrics and the document of the API answer.

use super::*;
use crate::postgres::dump::testing::{id, store};
use crate::postgres::layout::{DumpKind, DumpObject};
use crate::postgres::types::WalFileName;
use crate::storage::freezing::FreezingStorage;

#[tokio::test]
async fn every_answer_tells_its_age() {
    let door = Door::with("", &ARCHIVED).await;
    assert_eq!(
        door.get("/v1/clusters").await.json()["clusters"][0]["name"],
        "main"
    );
    for path in ["", "/backups", "/wal", "/timelines", "/recovery-target"] {
        let answer = door.get(&format!("/v1/clusters/main{path}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let as_of = &answer.json()["as_of"];
        assert!(
            as_of["age_seconds"]
                .as_f64()
                .is_some_and(|age| age < 3600.0),
            "{as_of}"
        );
        assert!(as_of["read_at"].is_string() && as_of["failed"].is_null());
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn a_cluster_tells_what_is_archived_and_what_is_missing() {
    let door = Door::with("", &ARCHIVED).await;
    let wal = door.get("/v1/clusters/main/wal").await.json();
    assert_eq!(wal["segment_bytes"], 1 << 20);
    assert_eq!(
        (
            wal["ranges"][0]["start_lsn"].as_str(),
            wal["ranges"][0]["segments"].as_u64()
        ),
        (Some("0/100000"), Some(2))
    );
    assert_eq!(wal["gaps"][0]["first_missing"], "000000010000000000000003");
    let state = door.get("/v1/clusters/main").await.json();
    assert_eq!(
        (state["gaps"].as_u64(), state["system_identifier"].as_str()),
        (Some(1), Some("7"))
    );
    assert_eq!(
        state["rpo"],
        serde_json::json!({"level": "warning"}),
        "on the first day a backup may be to come"
    );
    assert_eq!(state["health"]["level"], "warning", "{state}");
    let metrics = door.get("/metrics").await.text();
    let value = |name: &str| {
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.rsplit(' ').next())
            .unwrap_or("")
    };
    assert_eq!(value("walden_recovery_gaps_seconds"), "0.0", "{metrics}");
    assert!(
        state["windows"].as_array().is_some_and(Vec::is_empty) && state["last_backup"].is_null(),
        "{state}"
    );
    // Timeline 1 goes on, but has no transaction of its own: known once its WAL is indexed.
    for _ in 0..1000 {
        if door.get("/v1/clusters/main").await.json()["other_timelines"] == serde_json::json!([]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        door.get("/v1/clusters/main").await.json()["other_timelines"],
        serde_json::json!([])
    );
    let timelines = door.get("/v1/clusters/main/timelines").await.json();
    assert_eq!(timelines["timelines"][0]["history"], "none");
    assert_eq!(
        timelines["timelines"][1]["parent"]["switch_lsn"],
        "0/300000"
    );
}

#[tokio::test]
async fn a_timeline_whose_history_is_damaged_or_missing_is_told_as_not_known() {
    let mut door = Door::unread(
        "",
        &["000000010000000000000001", "000000020000000000000002"],
    )
    .await;
    let key = door
        .app
        .planner
        .cluster
        .layout
        .wal(&"00000003.history".parse::<WalFileName>().unwrap());
    let storage = door.app.planner.cluster.repository.storage();
    let _ = storage
        .put(
            &key,
            "no envelope".into(),
            crate::storage::PutMode::CreateOnly,
        )
        .await
        .unwrap();
    door.read().await;
    let state = door.get("/v1/clusters/main").await.json();
    let timelines: Vec<_> = state["unknown"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["timeline"].as_u64())
        .collect();
    assert_eq!(timelines, [Some(2), Some(3)], "{state}");
    assert!(
        state["unknown"][1]["why"]
            .as_str()
            .unwrap()
            .contains("history file of timeline 3 cannot be read"),
        "{state}"
    );
    let page = door.get("/").await.text();
    assert!(
        page.contains("the history file of timeline 2 is not archived"),
        "{page}"
    );
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_an_answer_and_no_error() {
    let door = Door::with("", &ARCHIVED).await;
    let answer = door
        .get("/v1/clusters/main/recovery-target?lsn=0/200000&exclusive=true")
        .await
        .json();
    assert_eq!(answer["kind"], "no-data");
    assert!(
        answer["unreachable"]["reason"]
            .as_str()
            .is_some_and(|why| why.contains("no complete base backup"))
    );
    assert!(answer["plan"].is_null() && answer["unreachable"]["hint"].is_string());
}

#[tokio::test]
async fn what_the_service_stores_shows_before_the_repository_is_read_again() {
    let door = Door::with("", &ARCHIVED).await;
    let read_at = door.get("/v1/clusters/main/wal").await.json()["as_of"]["read_at"].clone();
    door.pushes
        .push(door.wal.segment("000000010000000000000003", 3))
        .await
        .unwrap();
    for _ in 0..3000 {
        let wal = door.get("/v1/clusters/main/wal").await.json();
        if wal["ranges"][0]["segments"] == 4 {
            assert_eq!(
                (
                    wal["gaps"].as_array().map(Vec::len),
                    &wal["as_of"]["read_at"]
                ),
                (Some(0), &read_at)
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited half a minute in vain until the segment showed");
}

#[tokio::test]
async fn what_was_not_read_yet_is_not_told_as_empty() {
    let door = Door::unread("", &ARCHIVED).await;
    for path in [
        "/v1/clusters/main",
        "/v1/clusters/main/wal",
        "/readyz",
        "/v1/clusters/main/recovery-target",
    ] {
        door.get(path).await.is_problem(503, "not-read-yet");
    }
    assert_eq!(door.get("/healthz").await.json()["status"], "ok");
    let metrics = door.get("/metrics").await.text();
    assert!(
        !metrics.contains("walden_wal_gaps") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn metrics_tell_what_is_known() {
    let door = Door::with("", &ARCHIVED).await;
    door.get("/v1/clusters/main/nonsense").await;
    let answer = door.get("/metrics").await;
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text();
    for line in [
        "walden_wal_gaps{cluster=\"main\"} 1.0",
        "walden_wal_segments{cluster=\"main\"} 3.0",
        "walden_archive_stored_files_total{cluster=\"main\"} 0",
        "walden_phase_duration_seconds_count{cluster=\"main\",phase=\"read_repository\"} 1",
        "walden_http_requests_total{cluster=\"main\",route=\"none\",status=\"404\"} 1",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|each| each == line),
            "{line:?} is missing in\n{text}"
        );
    }
    assert!(
        !text.contains("recovery_first"),
        "nothing can be restored without a backup"
    );
    assert!(
        text.contains("walden_recovery_gaps{cluster=\"main\"} 0.0"),
        "{text}"
    );
}

#[tokio::test]
async fn the_document_describes_every_route_and_its_problems() {
    let door = Door::with(TOKEN, &[]).await;
    let document = door.get("/v1/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 16, "{:?}", paths.keys());
    let plan = &document["components"]["schemas"]["Plan"];
    assert_eq!(
        plan["properties"]["wal_end"]["$ref"], "#/components/schemas/SegmentName",
        "absent, never null: {plan}"
    );
    let required = plan["required"].as_array().unwrap();
    assert!(
        required.contains(&"segments".into()) && !required.contains(&"wal_end".into()),
        "{plan}"
    );
    for (path, item) in paths {
        let responses = &item["get"]["responses"];
        let asks_for_token = item["get"]["security"].is_array();
        assert_eq!(
            asks_for_token,
            !["/healthz", "/readyz"].contains(&path.as_str()),
            "{path}"
        );
        assert_eq!(responses["401"].is_object(), asks_for_token, "{path}");
        assert!(
            responses["503"]["content"]["application/problem+json"].is_object(),
            "{path}"
        );
        let asked = path
            .replace("{cluster}", "main")
            .replace("{name}", "000000010000000000000001");
        let answer = door.get_with_token(&asked).await;
        assert!(
            responses[answer.status.as_str()].is_object(),
            "{path} answers {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn a_plan_of_retention_is_made_when_it_is_asked_for_and_told_for_a_while() {
    let door = Door::with("", &ARCHIVED).await;
    let path = "/v1/clusters/main/retention-plan";
    let first = door.get(path).await;
    first.is_problem(503, "not-read-yet");
    let mut answer = first;
    for _ in 0..1000 {
        answer = door.get(path).await;
        if answer.status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let plan = answer.json();
    assert_eq!(
        (
            plan["deletes"].as_bool(),
            plan["wal"].as_array().map(Vec::is_empty)
        ),
        (Some(false), Some(false)),
        "{plan}"
    );
    assert_eq!(door.get(path).await.json(), plan);
}

#[tokio::test]
async fn dumps_and_a_disk_that_cannot_be_read_hide_nothing_else() {
    let storage = Arc::new(FreezingStorage::new(Arc::new(MemoryStorage::default()), 1));
    let cluster = cluster_in(storage.clone()).await;
    let dump = id("shop", "14:00:00", DumpKind::Full);
    store(&cluster, &dump).await;
    let manifest = cluster.layout.dump(&dump, &DumpObject::Manifest);
    storage.freeze(&manifest, "GLACIER");
    let nowhere = Some("/nowhere/at/all".into());
    let mut door = Door::over(cluster, nowhere, "", &ARCHIVED).await;
    door.read().await;
    let health = door.get("/v1/clusters/main").await.json()["health"].clone();
    let problems = health["problems"].as_array().unwrap().iter();
    let told: Vec<_> = problems.map(|one| one["rule"].as_str().unwrap()).collect();
    for rule in ["DumpsUnknown", "DiskUnknown", "NoBackupYet"] {
        assert!(told.contains(&rule), "{rule} {health:#}");
    }
    let page = door.get("/").await.text();
    assert!(page.contains("How the dumps stand is not known") && !page.contains("no dump."));
    let metrics = door.get("/metrics").await.text();
    assert!(metrics.contains("rule=\"DumpsUnknown\"} 3"), "{metrics}");
    assert!(metrics.contains("walden_repository_unreadable{cluster=\"main\"} 0"));
}
