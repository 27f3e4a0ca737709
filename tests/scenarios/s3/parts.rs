//! Uploads in parts through faults: whole or absent, and nothing is left behind unswept.

use std::time::Duration;

use walden::storage::{Body, Key, PutMode, PutOutcome, Retry, RetryingStorage, Storage, get_all};

use crate::harness::{Fault, ObjectStore, Proxy, When};

/// Three parts, the last a short one; no two parts are alike.
fn content() -> Body {
    let pieces = (0..36u8).map(|number| vec![number; 1 << 20].into());
    Body(pieces.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_whole_after_each_fault_and_leaves_nothing_behind() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let (proxy, bucket) = (Proxy::before(store), store.fresh_bucket());
    let storage = bucket
        .through(&proxy)
        .storage("parts", |options| options.multipart_threshold = 5 << 20);
    let storage = RetryingStorage::new(
        storage,
        Retry {
            retries: 5,
            timeout: Duration::from_secs(60),
        },
    );
    let faults: [(Fault, &'static [&'static str]); 6] = [
        (Fault::Answer(503, "SlowDown"), &["multipart"]),
        (Fault::LoseAnswer, &["multipart"]),
        (Fault::CutRequest, &["part"]),
        (Fault::LoseAnswer, &["part"]),
        (Fault::Answer(500, "InternalError"), &["complete"]),
        // Carried out: the repetition finds that what is there is its own.
        (Fault::LoseAnswer, &["complete"]),
    ];
    let content = content();
    for (number, (fault, kinds)) in faults.into_iter().enumerate() {
        let key = Key::new(format!("object/{number}")).expect("a key");
        proxy.fault(fault, kinds, When::Next(1));
        let outcome = storage
            .put(&key, content.clone(), PutMode::CreateOnly)
            .await
            .expect("put");
        assert_eq!(
            (outcome, proxy.heal()),
            (PutOutcome::Stored, 1),
            "{fault:?} {kinds:?}"
        );
        assert!(
            get_all(&storage, &key, u64::MAX).await.expect("get") == Some(content.to_bytes()),
            "{fault:?} {kinds:?}"
        );
        let begun_in_vain = u64::from(fault == Fault::LoseAnswer && kinds == ["multipart"]);
        // Only an upload whose name was never learned could not be given up at once.
        assert_eq!(
            storage
                .sweep(Duration::ZERO, &|_| true)
                .await
                .expect("sweep"),
            begun_in_vain,
            "{fault:?} {kinds:?}"
        );
    }
    proxy.fault(Fault::CutRequest, &["part"], When::Always);
    proxy.fault(Fault::Answer(503, "SlowDown"), &["abort"], When::Always);
    let key = Key::new("never").expect("a key");
    assert!(
        storage
            .put(&key, content, PutMode::CreateOnly)
            .await
            .is_err()
    );
    proxy.heal();
    assert_eq!(storage.head(&key).await.expect("head"), None);
    assert_eq!(
        storage
            .sweep(Duration::from_secs(3600), &|_| true)
            .await
            .expect("sweep"),
        0,
        "they may still be under way"
    );
    assert_eq!(
        storage
            .sweep(Duration::ZERO, &|key| key.as_str() == "another")
            .await
            .expect("sweep"),
        0,
        "not ours"
    );
    assert!(
        storage
            .sweep(Duration::ZERO, &|_| true)
            .await
            .expect("sweep")
            > 0
    );
}
