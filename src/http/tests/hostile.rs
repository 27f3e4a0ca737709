use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Pieces that paths and queries are made of, true ones and others.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "v1",
        "clusters",
        "main",
        "wal",
        "recovery-target",
        "backups",
        "metrics",
        "..",
        ".",
        "",
        "%2e%2e",
        "%00",
        "%",
        "000000010000000000000001",
        "FFFFFFFFFFFFFFFFFFFFFFFF",
        "00000001.history",
        "*",
        "\u{e4}",
        "%C3%28",
    ]);
    prop_oneof![4 => known.prop_map(str::to_string), 1 => "[ -~]{0,20}"]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "time",
        "lsn",
        "xid",
        "name",
        "immediate",
        "latest",
        "exclusive",
        "timeline",
        "backup",
        "end",
        "session",
        "system_identifier",
        "x",
    ]);
    let value = prop::sample::select(vec![
        "",
        "true",
        "0",
        "-1",
        "18446744073709551616",
        "FFFFFFFF/FFFFFFFF",
        "2026-01-31T03:00:00Z",
        "-262143-01-01T00:00:00Z",
        "262142-12-31T23:59:59-23:59",
        "latest",
        "4294967295",
        "%00",
        "%FF",
        "20260101-000000Z",
    ]);
    let pair = (
        name,
        prop_oneof![3 => value.prop_map(str::to_string), 1 => "[ -~]{0,30}"],
    );
    prop::collection::vec(pair, 0..4).prop_map(|pairs| {
        pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("&")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_asked_breaks_an_answer() {
    let door = Door::with(TOKEN, &["000000010000000000000001"]).await;
    let handle = tokio::runtime::Handle::current();
    let check = |(pieces, query): (Vec<String>, String)| {
        let uri = format!("/{}?{query}", pieces.join("/")).replace(' ', "%20");
        let Ok(uri) = uri.parse::<axum::http::Uri>() else {
            return Ok(());
        };
        let answer =
            tokio::task::block_in_place(|| handle.block_on(door.get_with_token(&uri.to_string())));
        let status = answer.status.as_u16();
        prop_assert!(
            matches!(status, 200 | 400 | 404 | 409),
            "{uri}: {status} {}",
            answer.text()
        );
        if status != 200 && uri.path() != "/" {
            prop_assert_eq!(answer.json()["status"].as_u64(), Some(u64::from(status)));
        }
        Ok(())
    };
    let strategy = (prop::collection::vec(piece(), 0..6), query());
    TestRunner::new(Config::with_cases(400))
        .run(&strategy, check)
        .unwrap();
    let targets = query().prop_map(|query| {
        (
            vec![
                "v1".into(),
                "clusters".into(),
                "main".into(),
                "recovery-target".into(),
            ],
            query,
        )
    });
    TestRunner::new(Config::with_cases(400))
        .run(&targets, check)
        .unwrap();
}
