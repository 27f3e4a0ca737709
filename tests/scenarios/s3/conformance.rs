//! The suite that every storage passes, on real servers.

use std::sync::Arc;
use std::time::Duration;

use walden::storage::conformance::{check, check_without_races};
use walden::storage::s3::CreateOnly;
use walden::storage::{Key, PutMode, PutOutcome, Retry, RetryingStorage};

use crate::harness::{Fault, ObjectStore, Proxy, When};

#[tokio::test(flavor = "multi_thread")]
async fn radosgw_conforms() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    check(store.fresh_bucket().storage("a/prefix", |_| {})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn radosgw_conforms_50_ms_away() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let proxy = Proxy::before(store);
    proxy.delay(Duration::from_millis(50));
    check(store.fresh_bucket().through(&proxy).storage("far", |_| {})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn radosgw_conforms_in_parts_but_for_races() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    // It ignores the condition when an upload in parts completes.
    check_without_races(
        store
            .fresh_bucket()
            .storage("parts", |options| options.multipart_threshold = 1),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_conforms() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    // It answers 500 when requests race.
    let storage = store.fresh_bucket().storage("emulated", |_| {});
    check(Arc::new(RetryingStorage::new(
        storage,
        Retry {
            retries: 5,
            timeout: Duration::from_secs(60),
        },
    )))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_if_none_match_needs_a_look_before_each_put() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let proxy = Proxy::before(store);
    proxy.ignore_if_none_match();
    let bucket = store.fresh_bucket().through(&proxy);
    let trusting = bucket.storage("trusting", |_| {});
    let key = Key::new("name").expect("a key");
    for content in ["first", "second"] {
        let outcome = trusting
            .put(&key, content.into(), PutMode::CreateOnly)
            .await
            .expect("put");
        assert_eq!(
            outcome,
            PutOutcome::Stored,
            "such a store overwrites and says nothing"
        );
    }
    check_without_races(bucket.storage("looking", |options| {
        options.create_only = CreateOnly::HeadThenPut
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_appears_between_two_requests_is_found() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let proxy = Proxy::before(store);
    let storage = store
        .fresh_bucket()
        .through(&proxy)
        .storage("appears", |_| {});
    let key = Key::new("name").expect("a key");
    assert_eq!(
        storage
            .put(&key, "x".into(), PutMode::CreateOnly)
            .await
            .expect("put"),
        PutOutcome::Stored
    );
    // An answer to HEAD does not say what is missing, so a second request asks for the bucket.
    proxy.fault(Fault::Answer(404, "NoSuchKey"), &["head"], When::Next(1));
    assert!(storage.head(&key).await.expect("head").is_some());
    // One that is there for GET and not for HEAD is neither present nor absent.
    proxy.fault(Fault::Answer(404, "NoSuchKey"), &["head"], When::Next(2));
    assert!(storage.head(&key).await.is_err());
}
