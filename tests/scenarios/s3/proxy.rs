//! The proxy's faults are what they say, seen by another client than Walden's.

use std::time::{Duration, Instant};

use crate::harness::{Bucket, Fault, ObjectStore, Proxy, Vanished, When};

const BODY: &[u8] = b"some content that is long enough to be cut in half";

fn bucket_and_proxy() -> Option<(Bucket, Proxy)> {
    let store = ObjectStore::radosgw()?;
    Some((store.fresh_bucket(), Proxy::before(store)))
}

#[test]
fn without_a_fault_everything_passes_unchanged() {
    let Some((bucket, proxy)) = bucket_and_proxy() else {
        return;
    };
    let through = bucket.through(&proxy);
    assert_eq!(through.request("PUT", "a/key", BODY).status, 200);
    let direct = bucket.request("GET", "a/key", &[]);
    let passed = through.request("GET", "a/key", &[]);
    assert_eq!((direct.status, &direct.body[..]), (200, BODY));
    assert_eq!(
        (passed.status, &passed.body, &passed.headers["etag"]),
        (200, &direct.body, &direct.headers["etag"])
    );
    assert_eq!(
        through.head("a/key")["content-length"],
        BODY.len().to_string()
    );
    through.delete("a/key");
    assert_eq!(bucket.request("GET", "a/key", &[]).status, 404);
    assert_eq!(
        [
            proxy.requests("put"),
            proxy.requests("get"),
            proxy.requests("head"),
            proxy.requests("delete")
        ],
        [1; 4]
    );
}

#[test]
fn requests_fail_on_the_side_of_the_store_that_was_asked_for() {
    let Some((bucket, proxy)) = bucket_and_proxy() else {
        return;
    };
    let through = bucket.through(&proxy);
    let is_there = |key| bucket.request("HEAD", key, &[]).status == 200;

    proxy.fault(Fault::Answer(503, "SlowDown"), &["put"], When::Next(1));
    let refused = through.request("PUT", "refused", BODY);
    assert_eq!(refused.status, 503);
    assert!(String::from_utf8_lossy(&refused.body).contains("<Code>SlowDown</Code>"));
    assert!(!is_there("refused"), "it did not reach the store");
    assert_eq!(
        through.request("PUT", "refused", BODY).status,
        200,
        "once only"
    );

    proxy.fault(Fault::CutRequest, &["put"], When::Next(1));
    assert!(through.try_request("PUT", "cut", BODY).is_err());
    assert!(!is_there("cut"), "half a body is no object");

    proxy.fault(Fault::LoseAnswer, &["put"], When::Next(1));
    assert!(through.try_request("PUT", "lost", BODY).is_err());
    assert!(is_there("lost"), "only the answer was lost");
    assert_eq!(proxy.heal(), 3);
}

#[test]
fn bodies_are_cut_shortened_and_changed() {
    let Some((bucket, proxy)) = bucket_and_proxy() else {
        return;
    };
    let through = bucket.through(&proxy);
    assert_eq!(bucket.request("PUT", "key", BODY).status, 200);
    proxy.fault(Fault::CutAnswer, &["get"], When::Next(1));
    assert!(
        through
            .try_request("GET", "key", &[])
            .unwrap_err()
            .contains("remaining")
    );
    proxy.fault(Fault::Truncate, &["get"], When::Next(1));
    assert_eq!(
        through.request("GET", "key", &[]).body,
        BODY[..BODY.len() / 2]
    );
    proxy.fault(Fault::Corrupt, &["get"], When::Next(1));
    let wrong = through.request("GET", "key", &[]).body;
    assert_eq!(
        wrong
            .iter()
            .zip(BODY)
            .filter(|(one, other)| one != other)
            .count(),
        1
    );
    assert_eq!(through.request("GET", "key", &[]).body, BODY);
}

#[test]
fn a_store_vanishes_and_returns() {
    let Some((bucket, proxy)) = bucket_and_proxy() else {
        return;
    };
    let through = bucket.through(&proxy);
    proxy.vanish(Vanished::Refuses);
    assert!(
        through
            .try_request("HEAD", "key", &[])
            .unwrap_err()
            .contains("onnect")
    );
    proxy.come_back();
    assert_eq!(through.request("HEAD", "key", &[]).status, 404);

    proxy.vanish(Vanished::Swallows);
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| through.try_request("HEAD", "key", &[]));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!asked.is_finished(), "it hangs");
        proxy.come_back();
        asked.join().expect("the client")
    });
    assert!(asked.is_err(), "what was swallowed is lost");
    assert_eq!(through.request("HEAD", "key", &[]).status, 404);

    proxy.delay(Duration::from_millis(50));
    let began = Instant::now();
    assert_eq!(through.request("HEAD", "key", &[]).status, 404);
    assert!(began.elapsed() >= Duration::from_millis(50));
}
