//! The certificates that a service shows, and until when they are valid.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use crate::error::Hint;

/// Reads a chain of certificates. Errors: the file cannot be read, or has none.
pub fn read_chain(file: &Path, setting: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = file.display();
    let pem = std::fs::read(file)
        .with_context(|| format!("cannot read \"{shown}\", named by {setting}"))
        .hint("let the user who runs `walden serve` read the file")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.with_context(|| format!("cannot use \"{shown}\", named by {setting}"))?;
    ensure!(
        !chain.is_empty(),
        "there is no certificate in \"{shown}\", named by {setting}"
    );
    Ok(chain)
}

/// When the first of them ends; `None`: they do not say so.
pub fn valid_until(chain: &[CertificateDer<'_>]) -> Option<DateTime<Utc>> {
    let ends: Option<Vec<_>> = chain.iter().map(not_after).collect();
    ends?.into_iter().min()
}

/// What judges certificates for clients says, asked at the end of all time, when this one ended.
fn not_after(certificate: &CertificateDer<'_>) -> Option<DateTime<Utc>> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let never = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let roots = RootCertStore::empty();
    let judged = verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], never, &[]);
    match judged {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            let seconds = i64::try_from(not_after.as_secs()).ok()?;
            DateTime::from_timestamp(seconds, 0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use chrono::TimeDelta;

    use super::*;
    use crate::error::one_line;

    /// A chain of a server's certificate and its authority's, of so many days.
    fn chain(server: &str, authority: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days {authority} -subj /CN=ca \
               -keyout ca.key -out ca.crt && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout server.key \
               -out server.csr && \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days {server} -out server.crt \
               -extfile /dev/stdin <<<'subjectAltName = DNS:localhost' && cat server.crt ca.crt >chain.pem"
        );
        let made = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        let path = folder.path().join("chain.pem");
        (folder, path)
    }

    #[test]
    fn a_chain_ends_with_the_first_of_its_certificates() {
        for (server, authority, days) in [("30", "400", 30), ("400", "7", 7)] {
            let (_folder, path) = chain(server, authority);
            let read = read_chain(&path, "http.tls_certificate").unwrap();
            assert_eq!(read.len(), 2);
            let left = valid_until(&read).unwrap() - Utc::now();
            let expected = TimeDelta::days(days);
            assert!(
                left <= expected && left > expected - TimeDelta::minutes(5),
                "{left}"
            );
        }
        assert_eq!(valid_until(&[CertificateDer::from(vec![1, 2, 3])]), None);
    }

    #[test]
    fn a_file_without_a_certificate_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.pem");
        let error = read_chain(&path, "http.tls_certificate").unwrap_err();
        assert!(one_line(&error).contains("cannot read"), "{error:#}");
        std::fs::write(&path, "nothing").unwrap();
        let error = read_chain(&path, "http.tls_certificate").unwrap_err();
        assert!(
            one_line(&error).contains("there is no certificate"),
            "{error:#}"
        );
    }
}
