//! Storage classes: given at putting, changed in place, thawed. moto keeps classes and thaws; radosgw has one class as it
//! is shipped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use walden::error::find;
use walden::storage::classes::{
    ClassChange, ObjectIsCold, Readability, ThawOrder, ThawSpeed, ThawStarted,
};
use walden::storage::{Key, ObjectMeta, PutMode, Storage, StorageError, get_all};

use crate::harness::{Bucket, ObjectStore};

const ORDER: ThawOrder = ThawOrder {
    days: 3,
    speed: ThawSpeed::Bulk,
};

async fn stored(storage: &dyn Storage, name: &str, content: Vec<u8>) -> ObjectMeta {
    let key = Key::new(name).expect("a key");
    let _ = storage
        .put(&key, content.into(), PutMode::CreateOnly)
        .await
        .expect("put");
    storage.head(&key).await.expect("head").expect("an object")
}

async fn content(storage: &dyn Storage, key: &Key) -> Result<Vec<u8>, StorageError> {
    let found = get_all(storage, key, 64 << 20).await?;
    Ok(found.expect("an object").to_vec())
}

fn is_cold<T: std::fmt::Debug>(answer: Result<T, StorageError>) -> bool {
    let error = answer.expect_err("it is cold");
    assert!(error.lasting, "{error:?}");
    find::<ObjectIsCold>(&error.into()).is_some()
}

/// Noise: a store must not tell the parts apart by chance.
fn noise(size: usize) -> Vec<u8> {
    (0..size as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(size)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_changes_its_class_in_place_and_nothing_else() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let bucket = store.fresh_bucket();
    let storage = bucket.storage("walden/store", |options| {
        options.multipart_threshold = 5 << 20;
        options.classes = vec![("base", "ONEZONE_IA".into())];
        options.kind_of = |key| key.contains("pack").then_some("base");
        options.encryption = Some("aws:kms".into());
        options.kms_key = Some("alias/walden".into());
    });
    // A short one by one request, a long one in parts.
    for (name, size) in [("main/base/pack", 1000), ("main/base/pack-long", 12 << 20)] {
        let bytes = noise(size);
        let object = stored(&*storage, name, bytes.clone()).await;
        assert_eq!(object.class.as_deref(), Some("ONEZONE_IA"));
        for (class, change) in [
            ("ONEZONE_IA", ClassChange::AlreadyThere),
            ("STANDARD_IA", ClassChange::Moved),
            ("STANDARD_IA", ClassChange::AlreadyThere),
            ("STANDARD", ClassChange::Moved),
            ("GLACIER_IR", ClassChange::Moved),
        ] {
            assert_eq!(
                storage.set_class(&object, class).await.expect("move"),
                change,
                "{name} to {class}"
            );
            let moved = storage.head(&object.key).await.expect("head");
            let moved = moved.expect("an object");
            assert_eq!(moved.class.as_deref(), Some(class));
            assert_eq!(
                (moved.size, &moved.encryption),
                (object.size, &object.encryption)
            );
            let headers = bucket.head(name);
            let kms = headers.get("x-amz-server-side-encryption-aws-kms-key-id");
            assert!(kms.is_some_and(|id| id.contains("walden")), "{headers:?}");
            assert!(content(&*storage, &object.key).await.expect("get") == bytes);
            assert_eq!(
                storage.readability(&object.key).await.expect("readability"),
                Some(Readability::Now)
            );
        }
        assert_eq!(
            storage
                .put(&object.key, "other".into(), PutMode::CreateOnly)
                .await
                .expect("put"),
            walden::storage::PutOutcome::AlreadyExists
        );
    }
    let gone = ObjectMeta {
        key: Key::new("main/base/none").expect("a key"),
        size: 1,
        modified: SystemTime::now(),
        class: None,
        encryption: None,
    };
    assert_eq!(
        storage.set_class(&gone, "STANDARD_IA").await.expect("move"),
        ClassChange::Absent
    );
    let object = stored(&*storage, "main/other", noise(10)).await;
    assert_eq!(object.class.as_deref(), Some("STANDARD"));
    let error = storage
        .set_class(&object, "NONE_SUCH")
        .await
        .expect_err("an unknown class");
    assert!(
        error.lasting && format!("{:#}", error.source).contains("class"),
        "{error:?}"
    );
}

/// Has moto thaw slowly: an object is thawed after some looks at it.
fn thaw_slowly(bucket: &Bucket) {
    let order =
        r#"{"model_name":"s3::keyrestore","transition":{"progression":"manual","times":5}}"#;
    let url = format!(
        "{}/moto-api/state-manager/set-transition",
        bucket.store.endpoint
    );
    let status = std::process::Command::new("curl")
        .args(["-sSf", "--noproxy", "*", "-X", "POST", "-d", order, &url])
        .status();
    assert!(status.expect("run curl").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_object_is_told_and_thawed() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let bucket = store.fresh_bucket();
    let storage = bucket.storage("walden/store", |_| {});
    let warm = stored(&*storage, "main/warm", noise(10)).await;
    let cold = stored(&*storage, "main/cold", noise(1000)).await;
    for class in ["STANDARD_IA", "GLACIER"] {
        let moved = storage.set_class(&cold, class).await.expect("move");
        assert_eq!(moved, ClassChange::Moved);
    }
    let key = &cold.key;
    let state = async || storage.readability(key).await.expect("readability");
    assert_eq!(state().await, Some(Readability::Cold));
    assert!(is_cold(content(&*storage, key).await));
    assert!(is_cold(storage.set_class(&cold, "STANDARD").await));
    assert_eq!(
        storage.head(key).await.expect("head").expect("it").size,
        1000
    );
    assert_eq!(
        storage.thaw(&warm.key, ORDER).await.expect("thaw"),
        ThawStarted::NotCold
    );
    let none = Key::new("main/none").expect("a key");
    assert_eq!(
        storage.thaw(&none, ORDER).await.expect("thaw"),
        ThawStarted::Absent
    );
    assert_eq!(storage.readability(&none).await.expect("readability"), None);

    thaw_slowly(&bucket);
    for _ in 0..2 {
        assert_eq!(
            storage.thaw(key, ORDER).await.expect("thaw"),
            ThawStarted::Ordered
        );
    }
    let mut seen = Vec::new();
    let until = loop {
        match state().await.expect("an object") {
            Readability::Until(until) => break until,
            other => seen.push(other),
        }
        assert!(seen.len() < 20, "{seen:?}");
    };
    assert!(seen.contains(&Readability::Thawing), "{seen:?}");
    assert!(until > SystemTime::now() + Duration::from_secs(86_400));
    assert!(content(&*storage, key).await.expect("get") == noise(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_classes_says_so() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let storage: Arc<dyn Storage> = store.fresh_bucket().storage("walden/store", |_| {});
    let object = stored(&*storage, "main/base/pack", noise(1000)).await;
    assert_eq!(object.class.as_deref(), Some("STANDARD"));
    assert_eq!(
        storage.set_class(&object, "STANDARD").await.expect("move"),
        ClassChange::AlreadyThere
    );
    let error = storage
        .set_class(&object, "GLACIER")
        .await
        .expect_err("no such class");
    assert!(error.lasting, "{error:?}");
    let hints = walden::error::hints(&error.source).join(" ");
    assert!(hints.contains("no such storage class"), "{error:?}");
    assert_eq!(
        storage.readability(&object.key).await.expect("state"),
        Some(Readability::Now)
    );
    let error = storage
        .thaw(&object.key, ORDER)
        .await
        .expect_err("it thaws nothing");
    let hints = walden::error::hints(&error.source).join(" ");
    assert!(
        error.lasting && hints.contains("thaws nothing"),
        "{error:?}"
    );
    assert!(content(&*storage, &object.key).await.expect("get") == noise(1000));
}
