use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::S3Options;

/// The region of servers that have none, and of buckets when nobody says.
const DEFAULT_REGION: &str = "us-east-1";
/// A body that stands still for so long is given up.
const STALLED: Duration = Duration::from_secs(20);
/// Bytes a second that a slow way to the store carries at least, for all requests under way together.
const SLOWEST: u64 = 64 << 10;
/// A connection that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// What makes connections. Errors: the file of certificates cannot be read.
pub async fn http(options: &S3Options) -> Result<SharedHttpClient, String> {
    let mut trusted = TrustStore::default();
    if let Some(file) = &options.ca_file {
        let pem = tokio::fs::read(file)
            .await
            .map_err(|error| format!("cannot read \"{}\": {error}", file.display()))?;
        trusted = trusted.with_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context.map_err(|error| format!("cannot set up TLS: {error}"))?;
    Ok(Builder::new()
        .pool_idle_timeout(IDLE)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// For a request that sends `bytes`: the client's own timeout counts sending as waiting for the answer. One that stands
/// still is given up earlier.
pub fn patience(options: &S3Options, bytes: u64) -> aws_sdk_s3::config::Builder {
    let read = options.response_timeout + Duration::from_secs(bytes / SLOWEST);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(read)
        .build();
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
}

/// A client with its credentials and region found.
pub async fn connect(options: &S3Options, http: SharedHttpClient) -> Client {
    let named = options.region.clone().map(Region::new);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.response_timeout)
        .build();
    let region = match &options.endpoint {
        // A server of one's own has no region that the instance could know.
        Some(_) => RegionProviderChain::first_try(named)
            .or_else(aws_config::environment::EnvironmentVariableRegionProvider::new())
            .or_else(DEFAULT_REGION),
        None => RegionProviderChain::first_try(named)
            .or_default_provider()
            .or_else(DEFAULT_REGION),
    };
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .region(region)
        .timeout_config(timeouts)
        // Repeated by storage::RetryingStorage, and nowhere else.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled()
                .grace_period(STALLED)
                .build(),
        );
    if let Some(credentials) = &options.credentials {
        loader = loader.credentials_provider(credentials.clone());
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = aws_sdk_s3::config::Builder::from(&loader.load().await)
        .force_path_style(options.path_style)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        // Whatever is read is verified by digests of our own.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}
