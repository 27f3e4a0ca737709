use super::*;

fn answer(status: u16, code: &str) -> ErrorResponse {
    ErrorResponse {
        status,
        code: code.into(),
        ..ErrorResponse::default()
    }
}

#[test]
fn each_error_is_told_apart_with_a_hint_of_its_own() {
    let cases = [
        (
            403,
            "InvalidAccessKeyId",
            ErrorKind::Credentials,
            "secret_access_key",
        ),
        (
            403,
            "SignatureDoesNotMatch",
            ErrorKind::Credentials,
            "secret_access_key",
        ),
        (400, "ExpiredToken", ErrorKind::Expired, "expired"),
        (403, "RequestTimeTooSkewed", ErrorKind::ClockSkew, "clock"),
        (301, "PermanentRedirect", ErrorKind::Region, "s3.region"),
        (404, "NoSuchBucket", ErrorKind::NoBucket, "make bucket"),
        (403, "AccessDenied", ErrorKind::Denied, "s3:PutObject"),
        (403, "", ErrorKind::Denied, "s3:PutObject"),
        (503, "SlowDown", ErrorKind::Busy, "overloaded"),
        (500, "", ErrorKind::Busy, "overloaded"),
        (
            409,
            "ConditionalRequestConflict",
            ErrorKind::Busy,
            "overloaded",
        ),
        (400, "BadDigest", ErrorKind::Busy, "overloaded"),
        (
            400,
            "KMS.DisabledException",
            ErrorKind::Encryption,
            "kms_key",
        ),
        (
            400,
            "InvalidStorageClass",
            ErrorKind::StorageClass,
            "storage_class",
        ),
        (403, "InvalidObjectState", ErrorKind::NotReadable, "--thaw"),
        (501, "NotImplemented", ErrorKind::Unsupported, "create_only"),
        (400, "Strange", ErrorKind::Other, "walden check"),
    ];
    for (status, code, kind, hint) in cases {
        let answer = answer(status, code);
        assert_eq!(answer.kind(), kind, "{status} {code}");
        assert!(
            answer.hint("PutObject", "b").contains(hint),
            "{status} {code}"
        );
    }
}

#[test]
fn a_missing_bucket_is_not_a_missing_object() {
    let error = |code| S3Error {
        api: "GetObject",
        bucket: "b".into(),
        path: "k".into(),
        endpoint: None,
        what: Cause::Answer(answer(404, code).into()),
    };
    assert!(error("NoSuchKey").says_absent());
    assert!(!error("NoSuchBucket").says_absent() && error("NoSuchBucket").is_lasting());
    assert!(
        !error("").says_absent() && !error("").is_lasting(),
        "what is missing was not said"
    );
}

#[test]
fn an_answer_without_a_code_may_be_about_credentials() {
    let is_about_credentials = |status, code| {
        let what = Cause::Answer(answer(status, code).into());
        let error = S3Error {
            api: "HeadObject",
            bucket: "b".into(),
            path: "k".into(),
            endpoint: None,
            what,
        };
        error.is_about_credentials()
    };
    assert!(
        is_about_credentials(403, "")
            && is_about_credentials(400, "")
            && is_about_credentials(400, "ExpiredToken")
    );
    assert!(!is_about_credentials(403, "AccessDenied") && !is_about_credentials(404, ""));
}

#[test]
fn an_error_says_what_where_and_which_request() {
    let answer = ErrorResponse {
        message: "Slow".into(),
        request_id: "tx1".into(),
        ..answer(503, "SlowDown")
    };
    let what = Cause::Answer(answer.into());
    let error = S3Error {
        api: "PutObject",
        bucket: "b".into(),
        path: "p/k".into(),
        endpoint: None,
        what,
    };
    assert_eq!(
        error.to_string(),
        "PutObject of \"p/k\" in bucket \"b\": HTTP 503 SlowDown Slow (request id tx1)"
    );
    assert!(!error.is_lasting());
}
