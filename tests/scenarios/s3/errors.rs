//! What is wrong with a bucket or its settings tells itself apart, with the next step.

use crate::harness::{
    Bucket, Cluster, Fault, Major, ObjectStore, Proxy, Scratch, Vanished, Walden, When,
};

const FAILED: i32 = 1;

struct Setup {
    scratch: Scratch,
    cluster: Cluster,
    bucket: Bucket,
}

fn setup() -> Option<Setup> {
    let store = ObjectStore::radosgw()?;
    let scratch = Scratch::new("s3 errors");
    let cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    Some(Setup {
        scratch,
        cluster,
        bucket: store.fresh_bucket(),
    })
}

impl Setup {
    /// `walden init` with other settings must fail and say all of this.
    fn refuses(&self, bucket: &Bucket, change: impl Fn(&str) -> String, says: &[&str]) {
        let walden = Walden::on_s3(
            &self.scratch,
            &self.cluster,
            bucket,
            "repository.retries = 0\n",
        );
        let settings = std::fs::read_to_string(&walden.config).expect("read the configuration");
        let changed = change(&settings);
        self.scratch.write("main.toml", &changed);
        let said = walden.refused(FAILED, ["init"]);
        for part in says {
            assert!(said.contains(part), "\"{part}\" is missing in: {said}");
        }
        assert!(said.contains("HINT: "), "{said}");
        assert!(
            !said.contains(&bucket.store.secret_access_key),
            "no secret in errors: {said}"
        );
    }
}

#[test]
fn a_missing_bucket_a_wrong_key_and_a_wrong_secret_tell_themselves_apart() {
    let Some(setup) = setup() else { return };
    let Setup { bucket, .. } = &setup;
    let name = bucket.name.clone();
    let missing = |settings: &str| settings.replace(&name, "no-such-bucket-here");
    setup.refuses(
        bucket,
        missing,
        &[
            "NoSuchBucket",
            "HTTP 404",
            "make bucket \"no-such-bucket-here\"",
            "request id",
        ],
    );
    let key = bucket.store.access_key_id.clone();
    let wrong_key = |settings: &str| settings.replace(&key, "NOSUCHKEY00000000000");
    setup.refuses(
        bucket,
        wrong_key,
        &["InvalidAccessKeyId", "HTTP 403", &name, "s3.access_key_id"],
    );
    let secret = bucket.store.secret_access_key.clone();
    let wrong_secret = |settings: &str| settings.replace(&secret, "wrong");
    setup.refuses(
        bucket,
        wrong_secret,
        &["SignatureDoesNotMatch", "HTTP 403", &name, "secret"],
    );
    let no_secret = |settings: &str| settings.replace(&secret, "");
    setup.refuses(bucket, no_secret, &["s3.secret_access_key", "set both"]);
    // Nothing was written by any of these.
    assert_eq!(bucket.request("HEAD", "walden.json", &[]).status, 404);
}

#[test]
fn a_wrong_region_clock_or_permission_and_expired_credentials_tell_themselves_apart() {
    let Some(setup) = setup() else { return };
    let proxy = Proxy::before(setup.bucket.store);
    let through = setup.bucket.through(&proxy);
    // radosgw takes any region: these are Amazon's answers.
    for (status, code, hint) in [
        (301, "PermanentRedirect", "s3.region"),
        (400, "AuthorizationHeaderMalformed", "s3.region"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "ExpiredToken", "expired"),
        (403, "AccessDenied", "allow this user"),
        (503, "SlowDown", "overloaded"),
    ] {
        proxy.fault(Fault::Answer(status, code), &[], When::Always);
        setup.refuses(
            &through,
            str::to_string,
            &[&format!("HTTP {status}"), code, hint, &setup.bucket.name],
        );
        proxy.heal();
    }
}

#[test]
fn a_store_that_cannot_be_reached_is_named() {
    let Some(setup) = setup() else { return };
    let proxy = Proxy::before(setup.bucket.store);
    let through = setup.bucket.through(&proxy);
    proxy.vanish(Vanished::Refuses);
    setup.refuses(
        &through,
        str::to_string,
        &["no answer", &proxy.endpoint(), "s3.endpoint"],
    );
    proxy.vanish(Vanished::Swallows);
    let impatient = |settings: &str| format!("{settings}s3.response_timeout = \"1s\"\n");
    setup.refuses(&through, impatient, &["no answer", &proxy.endpoint()]);
}
