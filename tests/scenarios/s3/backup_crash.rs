//! Backups into a bucket that stop at a call to the store.

use std::sync::Arc;

use walden::storage::faulty::CrashPoint;

use crate::backup_crash::{crash_at, record};
use crate::harness::{ObjectStore, Random, Scratch, is_long};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_stops_at_a_call_to_the_bucket_is_absent_or_whole() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let bucket = store.fresh_bucket();
    let scratch = Scratch::new("s3 crash");
    let recording = Arc::new(record(&scratch).await);
    // Each call with --long; else some, others each time.
    let step = if is_long() { 1 } else { 6 };
    let first = Random::seeded("s3 crash").below(step);
    let mut crashes = tokio::task::JoinSet::new();
    for stop_at in (first as u64..60).step_by(step) {
        for point in [CrashPoint::Before, CrashPoint::After] {
            let (recording, store) = (
                recording.clone(),
                bucket.storage(&format!("{stop_at}-{point:?}"), |_| {}),
            );
            crashes.spawn(async move { crash_at(&recording, store, stop_at, point).await });
        }
    }
    let reached = crashes
        .join_all()
        .await
        .into_iter()
        .filter(|stopped| *stopped)
        .count();
    assert!(reached >= 20 / step, "crash points: {reached}");
}
