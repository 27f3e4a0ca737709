use std::sync::Arc;

use super::*;
use crate::error::{hints, one_line};
use crate::storage::classes::ThawSpeed;
use crate::storage::freezing::FreezingStorage;
use crate::storage::{MemoryStorage, PutMode};

const ORDER: ThawOrder = ThawOrder {
    days: 1,
    speed: ThawSpeed::Standard,
};

fn wait(most: u64) -> ThawWait {
    ThawWait {
        most: Duration::from_millis(most),
        pause: Duration::from_millis(1),
    }
}

/// `count` objects of two bytes, every second of which is cold, readable after so many looks.
async fn half_cold(count: u64, looks: u32) -> (FreezingStorage, Vec<ObjectMeta>) {
    let storage = FreezingStorage::new(Arc::new(MemoryStorage::default()), looks);
    let mut objects = Vec::new();
    for number in 0..count {
        let key = Key::new(format!("a/{number:04}")).unwrap();
        let put = storage.put(&key, "xx".into(), PutMode::CreateOnly).await;
        let _ = put.unwrap();
        if number % 2 == 1 {
            let class = ["GLACIER", "DEEP_ARCHIVE"][usize::from(number % 4 == 3)];
            storage.freeze(&key, class);
        }
        objects.push(storage.head(&key).await.unwrap().unwrap());
    }
    (storage, objects)
}

#[tokio::test]
async fn what_is_cold_is_told_and_the_rest_is_not_asked_about() {
    let (storage, objects) = half_cold(100, 3).await;
    let cold = survey(&storage, objects.clone()).await.unwrap();
    assert_eq!(
        (cold.objects.len(), cold.bytes(), cold.thawing),
        (50, 100, 0)
    );
    assert_eq!(
        cold.to_string(),
        "50 objects of 100 bytes lie in class DEEP_ARCHIVE, GLACIER and must be thawed first"
    );
    for (key, _) in &cold.objects[..2] {
        let _ = storage.thaw(key, ORDER).await.unwrap();
    }
    let cold = survey(&storage, objects.clone()).await.unwrap();
    assert!(cold.to_string().ends_with("under way for 2"), "{cold}");
    let warm = objects.into_iter().step_by(2);
    assert!(survey(&storage, warm).await.unwrap().is_empty());
}

#[tokio::test]
async fn thawing_waits_until_all_can_be_read() {
    let (storage, objects) = half_cold(100, 3).await;
    let cold = survey(&storage, objects.clone()).await.unwrap();
    let progress = ThawProgress::default();
    let thawed = thaw(&storage, &cold, ORDER, wait(60_000), &progress).await;
    thawed.unwrap();
    assert_eq!(progress.done.load(Ordering::Relaxed), 100);
    assert_eq!(progress.waiting.load(Ordering::Relaxed), 0);
    for object in &objects {
        assert!(storage.get(&object.key, 0..2).await.unwrap().is_some());
    }
    assert!(survey(&storage, objects).await.unwrap().is_empty());
}

#[tokio::test]
async fn thawing_that_takes_too_long_ends_and_goes_on_at_the_store() {
    let (storage, objects) = half_cold(4, 1000).await;
    let cold = survey(&storage, objects.clone()).await.unwrap();
    let progress = ThawProgress::default();
    let thawed = thaw(&storage, &cold, ORDER, wait(20), &progress).await;
    let error = thawed.unwrap_err();
    assert_eq!(one_line(&error), "2 of 2 objects are not thawed after 0 s");
    assert!(hints(&error)[0].contains("goes on thawing"));
    let cold = survey(&storage, objects).await.unwrap();
    assert!(cold.to_string().ends_with("that is under way"), "{cold}");
}

#[tokio::test]
async fn an_object_that_vanishes_is_told() {
    let (storage, objects) = half_cold(4, 0).await;
    let cold = survey(&storage, objects).await.unwrap();
    storage.delete(&cold.objects[0].0).await.unwrap();
    let progress = ThawProgress::default();
    let thawed = thaw(&storage, &cold, ORDER, wait(0), &progress).await;
    assert!(one_line(&thawed.unwrap_err()).contains("vanished"));
}
