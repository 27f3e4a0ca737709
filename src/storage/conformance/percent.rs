use bytes::Bytes;
use futures_util::stream;

use super::{PART, content, key, stored, streamed};
use crate::storage::{PutMode, PutOutcome, Storage, list_all};

/// Nobody on the way takes it for the beginning of another character: neither a name nor what is listed changes.
pub(super) async fn a_percent_sign_is_a_character_like_others(storage: &dyn Storage) {
    let names = [
        "percent/a%zz",
        "percent/a%C3%A9%",
        "percent/%2F/a%20b",
        "percent/a%2520b/x",
    ];
    for name in names {
        stored(storage, name, name).await;
    }
    for name in names {
        assert_eq!(content(storage, name).await, Some(Bytes::from(name)));
    }
    let listed: Vec<String> = list_all(storage, "percent/")
        .await
        .expect("list")
        .iter()
        .map(|entry| entry.name().to_string())
        .collect();
    let expected = [
        "percent/%2F/",
        "percent/a%2520b/",
        "percent/a%C3%A9%",
        "percent/a%zz",
    ];
    assert_eq!(listed, expected);
    let below = list_all(storage, "percent/%2F/").await.expect("list");
    assert_eq!(below[0].name(), "percent/%2F/a%20b");
    let after = storage
        .list("percent/", Some("percent/a%2520b/"))
        .await
        .expect("list");
    assert_eq!(after.len(), 2, "listing goes on behind such a name");
    let long = vec![Bytes::from(vec![5; PART]), Bytes::from_static(b"end")];
    let outcome = streamed(
        storage,
        "percent/%25",
        stream::iter(long.into_iter().map(Ok)),
        PutMode::CreateOnly,
    );
    assert_eq!(outcome.await.expect("put in parts"), PutOutcome::Stored);
    assert_eq!(
        content(storage, "percent/%25").await.map(|got| got.len()),
        Some(PART + 3)
    );
    storage
        .delete(&key("percent/%2F/a%20b"))
        .await
        .expect("delete");
    assert_eq!(content(storage, "percent/%2F/a%20b").await, None);
}
