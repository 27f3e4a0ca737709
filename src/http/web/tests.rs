use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::http::tests::{Answered, Door, TOKEN};

const ARCHIVED: [&str; 2] = ["000000010000000000000001", "000000010000000000000002"];

#[tokio::test]
async fn the_page_brings_all_it_needs_itself_and_allows_nothing_else() {
    let door = Door::with("", &ARCHIVED).await;
    let page = door.get("/").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (StatusCode::OK, "text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = page.text();
    assert!(
        text.contains("nothing can be restored") && text.contains("What happened"),
        "{text}"
    );
    assert!(
        !text.contains("://") && !text.contains(" style=") && !text.contains("<style"),
        "{text}"
    );
    assert_eq!(
        (
            text.matches("<script").count(),
            text.matches("<link ").count()
        ),
        (1, 2)
    );
    for (path, media_type) in [
        ("css", "text/css"),
        ("js", "text/javascript"),
        ("svg", "image/svg+xml"),
    ] {
        let path = format!("/assets/walden.{path}");
        assert!(text.contains(&path));
        let asset = door.get(&path).await;
        assert!(
            asset.header("content-type").starts_with(media_type),
            "{path}"
        );
        assert_eq!(asset.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn what_the_address_says_is_shown_and_escaped() {
    let door = Door::with("", &ARCHIVED).await;
    let hostile = "%3Cscript%3Ealert(1)%3C%2Fscript%3E%22%27%26";
    let page = door
        .get(&format!(
            "/?by=name&value={hostile}&relation={hostile}&kind=&min_rows="
        ))
        .await;
    let text = page.text();
    assert_eq!(page.status, StatusCode::OK, "{text}");
    assert!(
        text.contains("This cannot be restored") && text.contains("no complete base backup"),
        "{text}"
    );
    assert!(
        !text.contains("<script>") && text.contains("&#60;script&#62;alert(1)"),
        "{text}"
    );
    for wrong in [
        "by=time&value=yesterday",
        "by=before&value=x",
        "kind=x",
        "from=1&until=2",
        "by=lsn&by=lsn",
    ] {
        let page = door.get(&format!("/?{wrong}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert!(page.text().contains("No plan"), "{wrong}");
    }
    door.indexed().await;
    let gone = door.get("/?by=before&value=1-0-100028-d16384").await.text();
    assert!(
        gone.contains("there is no event 1-0-100028-d16384"),
        "{gone}"
    );
}

#[tokio::test]
async fn before_the_repository_was_read_the_page_waits() {
    let door = Door::unread("", &ARCHIVED).await;
    let page = door.get("/").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        page.text().contains("http-equiv=\"refresh\"") && page.text().contains("has just started")
    );
}

async fn sign_in(door: &Door, token: &str, query: &str) -> Answered {
    let request =
        Request::post("/sign-in").header("content-type", "application/x-www-form-urlencoded");
    door.send(request, &format!("token={token}&query={query}"))
        .await
}

#[tokio::test]
async fn with_a_token_the_page_asks_for_it_and_begins_a_session() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    let asked = door.get("/?kind=drop&unknown=1").await;
    assert_eq!(
        (asked.status, asked.header("www-authenticate")),
        (StatusCode::UNAUTHORIZED, "Bearer")
    );
    assert!(
        asked.text().contains("value=\"kind=drop\"") && !asked.text().contains("What happened")
    );
    let refused = sign_in(&door, "another-token-of-16", "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(
        refused.text().contains("not a token of this service")
            && !refused.text().contains("another-token")
    );
    assert!(refused.header("set-cookie").is_empty());

    let entered = sign_in(&door, TOKEN, "kind%3Ddrop").await;
    assert_eq!(
        (entered.status, entered.header("location")),
        (StatusCode::SEE_OTHER, "/?kind=drop")
    );
    let cookie = entered.header("set-cookie").to_string();
    assert!(
        !cookie.contains(TOKEN)
            && cookie.contains("; HttpOnly")
            && cookie.contains("; SameSite=Lax"),
        "{cookie}"
    );
    let session = cookie.split(';').next().unwrap().to_string();
    let with = |path: &str| Request::get(path).header("cookie", &session);
    let page = door.ask(with("/")).await;
    assert!(page.status == StatusCode::OK && page.text().contains("Sign out"));
    // A session shows the page and nothing else: not WAL, not the API.
    for path in [
        "/v1/clusters",
        "/metrics",
        "/v1/clusters/main/wal/000000010000000000000001",
    ] {
        door.ask(with(path)).await.is_problem(401, "unauthorized");
    }
    assert_eq!(
        door.get_with_token("/").await.status,
        StatusCode::OK,
        "a program's token is as good"
    );
    let left = door
        .send(Request::post("/sign-out").header("cookie", &session), "")
        .await;
    assert!(left.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(door.ask(with("/")).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn signing_in_leads_nowhere_else_and_takes_no_long_form() {
    let door = Door::with(TOKEN, &ARCHIVED).await;
    for query in [
        "%2F%2Fevil.example",
        "https%3A%2F%2Fevil.example",
        "x%0D%0ASet-Cookie%3A+a%3Db",
        "%26by%3Dtime%26by%3Dlsn",
    ] {
        assert_eq!(
            sign_in(&door, TOKEN, query).await.header("location"),
            "/",
            "{query}"
        );
    }
    door.send(Request::post("/sign-in"), &"x".repeat(5000))
        .await
        .is_problem(413, "body-not-allowed");
    door.send(Request::post("/sign-in"), "token=a&token=b")
        .await
        .is_problem(400, "wrong-value");
    door.send(
        Request::post("/sign-out").header("content-length", "1"),
        "x",
    )
    .await
    .is_problem(413, "body-not-allowed");
    let open = Door::with("", &ARCHIVED).await;
    open.ask(Request::get("/").header("host", "evil.example"))
        .await
        .is_problem(421, "foreign-host");
    assert_eq!(
        sign_in(&open, "", "").await.status,
        StatusCode::UNAUTHORIZED,
        "no token is no token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_breaks_the_page() {
    let door = Door::with("", &ARCHIVED).await;
    let names = prop::sample::select(vec![
        "from",
        "until",
        "by",
        "value",
        "exclusive",
        "timeline",
        "backup",
        "relation",
        "kind",
        "min_rows",
        "all",
        "x",
    ]);
    let known = prop::sample::select(vec![
        "",
        "time",
        "lsn",
        "xid",
        "name",
        "before",
        "after",
        "latest",
        "immediate",
        "on",
        "drop",
        "1",
        "-1",
        "FFFFFFFF/FFFFFFFF",
        "18446744073709551616",
        "2026-01-31T03:00:00Z",
        "-262143-01-01T00:00:00Z",
        "262142-12-31T23:59:59-23:59",
        "1-0-3000158-d16384",
        "4294967295-FFFFFFFF-FFFFFFFF-k4294967295",
        "%00",
        "%FF",
        "20260101-000000Z",
        "*",
    ]);
    let value = prop_oneof![3 => known.prop_map(str::to_string), 1 => "[a-z<>'/0-9]{0,30}"];
    let pairs = prop::collection::vec((names, value), 0..6);
    let handle = tokio::runtime::Handle::current();
    let check = |pairs: Vec<(&str, String)>| {
        let query: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let Ok(uri) = format!("/?{}", query.join("&")).parse::<axum::http::Uri>() else {
            return Ok(());
        };
        let answer = tokio::task::block_in_place(|| handle.block_on(door.get(&uri.to_string())));
        prop_assert!(
            matches!(answer.status.as_u16(), 200 | 400),
            "{}: {}",
            uri,
            answer.text()
        );
        prop_assert!(answer.text().trim_end().ends_with("</html>"), "{}", uri);
        Ok(())
    };
    TestRunner::new(Config::with_cases(300))
        .run(&pairs, check)
        .unwrap();
}
