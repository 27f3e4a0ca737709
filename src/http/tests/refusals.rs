//! What is wrong, and who is not served: problem documents.

use super::*;

#[tokio::test]
async fn whatever_is_wrong_is_a_problem_document() {
    let door = Door::with("", &ARCHIVED).await;
    door.get("/assets/nonsense")
        .await
        .is_problem(404, "no-such-path");
    door.get("/v1/clusters/main/nonsense")
        .await
        .is_problem(404, "no-such-path");
    door.get("/v1/clusters/other/wal")
        .await
        .is_problem(404, "unknown-cluster");
    door.get("/v1/clusters/Main/wal")
        .await
        .is_problem(400, "wrong-value");
    door.get("/v1/clusters/..%2F..%2Fetc/wal")
        .await
        .is_problem(400, "wrong-value");
    door.get("/v1/clusters/%FF/wal")
        .await
        .is_problem(400, "wrong-value");
    for query in [
        "time=yesterday",
        "time=2026-01-31%2003:00:00+01",
        "lsn=1",
        "lsn=1/2&lsn=3/4",
        "lsn=1/2&xid=7",
        "xid=2",
        "xid=-1",
        "name=",
        "exclusive=true",
        "exclusive=maybe&lsn=1/2",
        "latest=true&immediate=true",
        "timeline=0",
        "backup=../x",
        "unknown=1",
        "%FF=1",
    ] {
        let answer = door
            .get(&format!("/v1/clusters/main/recovery-target?{query}"))
            .await;
        answer.is_problem(400, "wrong-value");
    }
    let post = door.ask(Request::post("/v1/clusters")).await;
    post.is_problem(405, "method-not-allowed");
    assert_eq!(post.header("allow"), "GET,HEAD");
    door.ask(Request::get("/v1/clusters").header("content-length", "7"))
        .await
        .is_problem(413, "body-not-allowed");
    door.ask(Request::get("/v1/clusters").header("transfer-encoding", "chunked"))
        .await
        .is_problem(413, "body-not-allowed");
}

#[tokio::test]
async fn without_the_token_nothing_is_told_but_that_the_service_lives() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    for path in [
        "/v1/clusters",
        "/v1/clusters/main",
        "/metrics",
        "/nonsense",
        "/v1/clusters/main/wal/x",
    ] {
        let answer = door.get(path).await;
        answer.is_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let wrong = Request::get(path).header("authorization", "Bearer another-token-of-16");
        door.ask(wrong).await.is_problem(401, "unauthorized");
        let other_scheme = Request::get(path).header("authorization", format!("Basic {TOKEN}"));
        door.ask(other_scheme).await.is_problem(401, "unauthorized");
    }
    for path in ["/healthz", "/readyz", "/v1/openapi.json"] {
        assert_eq!(door.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(
        door.get_with_token("/v1/clusters/main").await.status,
        StatusCode::OK
    );
    door.get_with_token("/nonsense")
        .await
        .is_problem(404, "no-such-path");
}

#[tokio::test]
async fn without_a_token_only_this_machine_is_served() {
    let door = Door::with("", &ARCHIVED).await;
    let host = |host: &str| Request::get("/v1/clusters").header("host", host);
    door.ask(host("evil.example:8432"))
        .await
        .is_problem(421, "foreign-host");
    assert_eq!(
        door.ask(host("localhost:8432")).await.status,
        StatusCode::OK
    );
    let door = Door::with(TOKEN, &ARCHIVED).await;
    let with_token = host("walden.example").header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(door.ask(with_token).await.status, StatusCode::OK);
}
