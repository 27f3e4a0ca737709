//! What went wrong with TLS, in words, and what to do: rustls itself tells much of it in names of its own code. Pure.

use chrono::{DateTime, Utc};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// Why TLS could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct TlsFailure {
    said: String,
    /// The next step.
    pub hint: &'static str,
}

const SETTINGS: &str =
    "check sslmode, sslrootcert, sslcert and sslkey, and the server's certificate";
const ANEW: &str = "make the server's certificate anew with the extension subjectAltName=DNS:<host>, such as by openssl \
                    x509 -req -extfile";
const ISSUER: &str =
    "put the certificate of the authority that signed the server's into sslrootcert";
const CLOCKS: &str = "renew the server's certificate, or set the clock of this machine right";
const PURPOSE: &str = "make the server's certificate anew with extendedKeyUsage=serverAuth, or without that extension";
const LEAF: &str =
    "put that certificate itself into sslrootcert, or make one with basicConstraints=CA:FALSE";
const STRONGER: &str =
    "make the server's certificate anew with SHA-256 and a key of RSA 2048 or P-256";
const CLIENT: &str = "set sslcert and sslkey to a certificate that the server's ssl_ca_file trusts";
const VERSIONS: &str =
    "let the server offer TLS 1.2 or 1.3 (ssl_max_protocol_version, ssl_ciphers)";

impl From<String> for TlsFailure {
    fn from(said: String) -> Self {
        Self {
            said,
            hint: SETTINGS,
        }
    }
}

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(why) => certificate(why),
            Error::AlertReceived(alert) => received(*alert),
            Error::PeerIncompatible(_) => Self {
                said: "the server and Walden have no version or cipher in common".into(),
                hint: VERSIONS,
            },
            other => other.to_string().into(),
        }
    }
}

fn received(alert: AlertDescription) -> TlsFailure {
    use AlertDescription as Alert;
    let hint = match alert {
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => VERSIONS,
        Alert::CertificateRequired
        | Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnknownCA => CLIENT,
        _ => SETTINGS,
    };
    TlsFailure {
        said: format!("the server ends it with the alert \"{alert:?}\""),
        hint,
    }
}

/// What is wrong with a server's certificate.
#[allow(deprecated)] // Older variants of rustls are still made by it.
fn certificate(why: &CertificateError) -> TlsFailure {
    use CertificateError as Why;
    let (what, hint) = match why {
        Why::UnknownIssuer => (
            "is not signed by an authority in sslrootcert".to_string(),
            ISSUER,
        ),
        Why::BadSignature => (
            "is not signed by the authority that it names".to_string(),
            ISSUER,
        ),
        Why::NotValidForNameContext {
            expected,
            presented,
        } if presented.is_empty() => {
            let host = expected.to_str();
            (
                format!(
                    "has no subjectAltName for \"{host}\": its common name alone does not count"
                ),
                ANEW,
            )
        }
        Why::NotValidForNameContext {
            expected,
            presented,
        } => {
            let (host, names) = (expected.to_str(), presented.join(", "));
            (
                format!("is for another host than \"{host}\": its subjectAltName has {names}"),
                ANEW,
            )
        }
        Why::NotValidForName => ("is for another host".to_string(), ANEW),
        Why::Expired => ("is expired".to_string(), CLOCKS),
        Why::ExpiredContext { not_after, .. } => {
            (format!("expired at {}", shown(*not_after)), CLOCKS)
        }
        Why::NotValidYet => ("is not valid yet".to_string(), CLOCKS),
        Why::NotValidYetContext { not_before, .. } => (
            format!("is not valid before {}", shown(*not_before)),
            CLOCKS,
        ),
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => {
            ("is not made for a server".to_string(), PURPOSE)
        }
        Why::UnsupportedSignatureAlgorithm
        | Why::UnsupportedSignatureAlgorithmContext { .. }
        | Why::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            "is signed in a way that is too old or not known".to_string(),
            STRONGER,
        ),
        Why::BadEncoding => ("cannot be read".to_string(), ANEW),
        Why::UnhandledCriticalExtension => (
            "has a critical extension that is not known".to_string(),
            ANEW,
        ),
        Why::Revoked => ("is revoked".to_string(), CLOCKS),
        Why::Other(other) => broken_rule(&other.to_string()),
        other => (format!("is not acceptable: {other}"), ANEW),
    };
    TlsFailure {
        said: format!("the server's certificate {what}"),
        hint,
    }
}

/// What webpki says is one word for each rule of X.509.
fn broken_rule(word: &str) -> (String, &'static str) {
    match word {
        "UnsupportedCertVersion" => (
            "is of X.509 version 1, which has no extensions".to_string(),
            ANEW,
        ),
        "CaUsedAsEndEntity" => ("is an authority's own".to_string(), LEAF),
        rule => (format!("breaks a rule of X.509 (\"{rule}\")"), ANEW),
    }
}

fn shown(time: UnixTime) -> String {
    let time =
        DateTime::<Utc>::from_timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX), 0);
    time.map(|time| time.format("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::{OtherError, PeerIncompatible};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Rule(&'static str);

    fn other(rule: &'static str) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Rule(rule)))))
    }

    #[test]
    #[allow(deprecated)]
    fn no_failure_is_told_as_code() {
        use CertificateError as Why;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));
        let bad = Error::InvalidCertificate;
        for (error, word, hint) in [
            (other("UnsupportedCertVersion"), "version 1", ANEW),
            (other("CaUsedAsEndEntity"), "authority's own", LEAF),
            (other("NameConstraintViolation"), "rule of X.509", ANEW),
            (bad(Why::NotValidForName), "another host", ANEW),
            (
                bad(Why::ExpiredContext {
                    time,
                    not_after: time,
                }),
                "expired at 2026-01-01 00:00:00Z",
                CLOCKS,
            ),
            (
                bad(Why::NotValidYetContext {
                    time,
                    not_before: time,
                }),
                "before 2026-01-01",
                CLOCKS,
            ),
            (bad(Why::UnsupportedSignatureAlgorithm), "too old", STRONGER),
            (bad(Why::BadEncoding), "cannot be read", ANEW),
            (bad(Why::InvalidPurpose), "for a server", PURPOSE),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "alert",
                CLIENT,
            ),
            (
                Error::AlertReceived(AlertDescription::ProtocolVersion),
                "alert",
                VERSIONS,
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
                "in common",
                VERSIONS,
            ),
        ] {
            let failure = TlsFailure::from(&error);
            assert!(
                failure.said.contains(word) && failure.hint == hint,
                "{error:?}: {failure:?}"
            );
            assert!(
                !failure.said.contains("Other(") && !failure.said.contains("{"),
                "{failure}"
            );
        }
    }
}
