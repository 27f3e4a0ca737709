use super::*;
use crate::postgres::archive::testing::segment;

const FIRST: &str = "000000010000000000000001";
const ARCHIVED: [&str; 5] = [
    FIRST,
    "000000010000000000000002",
    "000000010000000000000003",
    "000000010000000000000005",
    "00000002.history",
];

fn of(name: &str) -> String {
    format!("/v1/clusters/main/wal/{name}")
}

#[tokio::test]
async fn a_file_comes_whole_with_its_digest() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    for name in [FIRST, "000000010000000000000002", FIRST] {
        let answer = door.get_with_token(&of(name)).await;
        assert_eq!(
            (answer.status, answer.header("walden-wal")),
            (StatusCode::OK, format!("delivered {name}").as_str())
        );
        assert!(answer.body == segment(name, 3), "{name} differs");
        assert_eq!(answer.header("content-length"), (1 << 20).to_string());
        use base64::Engine;
        let crc = crc32c::crc32c(&answer.body).to_be_bytes();
        let digest = base64::engine::general_purpose::STANDARD.encode(crc);
        assert_eq!(answer.header("repr-digest"), format!("crc32c=:{digest}:"));
    }
    let history = door.get_with_token(&of("00000002.history")).await;
    assert!(history.text().starts_with("1\t0/300000"), "{history:?}");
}

#[tokio::test]
async fn absent_lost_and_wrong_are_three_answers() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    let absent = door.get_with_token(&of("000000010000000000000006")).await;
    absent.is_problem(404, "wal-absent");
    assert_eq!(
        absent.header("walden-wal"),
        "absent 000000010000000000000006"
    );
    let lost = door.get_with_token(&of("000000010000000000000004")).await;
    lost.is_problem(409, "wal-lost");
    assert_eq!(lost.header("walden-wal"), "");
    assert!(
        lost.json()["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("gap"))
    );
    for name in [
        "x",
        "../../walden.json",
        "000000010000000000001000",
        "00000001000000000000000a",
        "%00",
    ] {
        door.get_with_token(&of(&name.replace('/', "%2F")))
            .await
            .is_problem(400, "wrong-value");
    }
}

#[tokio::test]
async fn recovery_ends_where_it_says() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    let answer = door
        .get_with_token(&format!(
            "{}?end={}",
            of("000000010000000000000002"),
            "000000010000000000000002"
        ))
        .await;
    answer.is_problem(404, "wal-absent");
    let answer = door
        .get_with_token(&format!("{}?end={}", of(FIRST), "000000010000000000000002"))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn another_clusters_server_gets_no_answer_that_ends_its_recovery() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    let asked = |identifier| {
        format!(
            "{}?system_identifier={identifier}&session=ab",
            of("000000010000000000000006")
        )
    };
    door.get_with_token(&asked("8"))
        .await
        .is_problem(409, "wrong-cluster");
    door.get_with_token(&asked("7"))
        .await
        .is_problem(404, "wal-absent");
    for wrong in [
        "system_identifier=x",
        "session=xyz",
        "session=00112233445566778",
        "end=1",
        "more=1",
    ] {
        door.get_with_token(&format!("{}?{wrong}", of(FIRST)))
            .await
            .is_problem(400, "wrong-value");
    }
}

#[tokio::test]
async fn without_a_token_nobody_gets_wal() {
    let door = Door::with("", &ARCHIVED).await;
    door.get(&of(FIRST)).await.is_problem(403, "token-needed");
}

#[tokio::test]
async fn who_asks_for_text_gets_the_lines_that_a_hook_prints() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    let as_text = |name| {
        let request = Request::get(of(name)).header("accept", "text/plain");
        request.header("authorization", format!("Bearer {TOKEN}"))
    };
    let lost = door.ask(as_text("000000010000000000000004")).await;
    assert_eq!(lost.status, StatusCode::CONFLICT);
    assert!(
        lost.text().starts_with("ERROR: ") && lost.text().contains("\nHINT: "),
        "{}",
        lost.text()
    );
    let absent = door.ask(as_text("000000010000000000000006")).await;
    assert_eq!(
        absent.header("walden-wal"),
        "absent 000000010000000000000006"
    );
}

#[tokio::test]
async fn the_spool_holds_no_more_machines_than_it_may() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    for session in 0..8 {
        let answer = door
            .get_with_token(&format!("{}?session={session}", of(FIRST)))
            .await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    door.get_with_token(&format!("{}?session=8", of(FIRST)))
        .await
        .is_problem(503, "busy");
    assert_eq!(
        door.get_with_token(&format!("{}?session=3", of(FIRST)))
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_spool_that_cannot_be_made_is_told() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    std::fs::write(door.wal.0.path().join("http"), "in the way").unwrap();
    let answer = door.get_with_token(&of(FIRST)).await;
    answer.is_problem(503, "unknown");
    assert!(
        answer.json()["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("http.spool")),
        "{}",
        answer.text()
    );
}
