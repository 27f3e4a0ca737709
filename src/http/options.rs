//! What the settings say about HTTP, checked before anything listens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::tokens::Tokens;
use crate::certificate::{read_chain, valid_until};
use crate::config::{self, read_private};
use crate::error::{Hint, with_hint};
use crate::retention::Policy;

/// How HTTP is served; all bounds of it.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// `None`: nowhere. What HTTP tells is known all the same.
    pub listen: Option<SocketAddr>,
    pub tokens: Tokens,
    /// HTTPS instead of HTTP.
    pub tls: Option<Tls>,
    /// Connections served at once.
    pub max_connections: usize,
    /// Between two readings of the repository.
    pub refresh_interval: Duration,
    /// Where WAL lies that was fetched for restoring machines.
    pub spool: PathBuf,
    /// Bytes of compressed WAL held for them.
    pub wal_memory: u64,
    /// From where on something is not good.
    pub limits: config::Health,
    /// Where the repository lies, unless it is a bucket.
    pub folder: Option<PathBuf>,
    /// What is kept.
    pub retention: Policy,
    pub drill_targets: DrillTargets,
    /// Metrics have the names of runbooks, too.
    pub runbook_names: bool,
    /// The repository lies in a bucket.
    pub is_in_bucket: bool,
}

/// How HTTPS is spoken.
#[derive(Debug, Clone)]
pub struct Tls {
    pub config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends; a renewed file counts with the next start.
    pub until: Option<DateTime<Utc>>,
}

/// What drills are measured by.
#[derive(Debug, Clone, Copy, Default)]
pub struct DrillTargets {
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
}

impl HttpOptions {
    /// As the settings say. Errors: an address that others reach without a token, files that cannot be used. Where nothing
    /// listens none of them counts: archiving does not wait for a certificate that nobody uses.
    pub fn of(all: &config::Settings) -> anyhow::Result<Self> {
        let settings = &all.http;
        let (tokens, tls) = match settings.listen {
            Some(listen) => protection(settings, listen)?,
            None => (Tokens::default(), None),
        };
        Ok(Self {
            listen: settings.listen,
            tokens,
            tls,
            max_connections: settings.max_connections,
            refresh_interval: settings.refresh_interval,
            spool: settings.spool.clone(),
            wal_memory: settings.wal_memory,
            limits: all.health.clone(),
            folder: all.repository.url.folder().map(Path::to_path_buf),
            retention: Policy::new(all),
            drill_targets: DrillTargets {
                rto: all.drill.rto_target,
                rpo: all.drill.rpo_target,
            },
            runbook_names: all.metrics.runbook_names,
            is_in_bucket: all.repository.url.folder().is_none(),
        })
    }
}

/// Who is let in, and whether what they say is encrypted.
fn protection(
    settings: &config::Http,
    listen: SocketAddr,
) -> anyhow::Result<(Tokens, Option<Tls>)> {
    let tokens = Tokens::load(settings.token_file.as_deref(), &settings.token)?;
    let tls = match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => Some(tls(certificate, key)?),
        (None, None) => None,
        _ => {
            let error =
                anyhow!("one of http.tls_certificate and http.tls_key is set, the other is not");
            bail!(with_hint(error, "set both for HTTPS, or neither for HTTP"));
        }
    };
    if !listen.ip().is_loopback() {
        if tokens.is_empty() {
            let error = anyhow!(
                "http.listen is {listen}, which other machines reach, and there is no token"
            );
            let hint = "set http.token_file, or listen on 127.0.0.1";
            bail!(with_hint(error, hint));
        }
        if tls.is_none() {
            tracing::warn!(
                "http.listen is {listen} without TLS: tokens and WAL cross the network in the clear"
            );
        }
    }
    Ok((tokens, tls))
}

fn tls(certificate: &Path, key: &Path) -> anyhow::Result<Tls> {
    let shown = certificate.display();
    let chain = read_chain(certificate, "http.tls_certificate")?;
    let until = valid_until(&chain);
    let text = read_private(
        key,
        "http.tls_key",
        "let the user who runs `walden serve` read the file",
    )?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .with_context(|| format!("cannot use \"{}\", named by http.tls_key", key.display()))
        .hint("name a private key in PEM form")?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .with_context(|| format!("the certificate in \"{shown}\" and the key do not fit"))
            .hint(
                "name the server's own certificate, followed by those that lead to its authority",
            )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    Ok(Tls { config, until })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, Settings};
    use crate::error::{hints, one_line};

    fn settings(change: impl FnOnce(&mut config::Http)) -> Settings {
        let env = [("WALDEN_REPOSITORY__URL", "file:///srv/archive")];
        let mut settings: Settings = config::load(None, env).unwrap();
        change(&mut settings.http);
        settings
    }

    fn options(settings: &Settings) -> anyhow::Result<HttpOptions> {
        HttpOptions::of(settings)
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        for address in ["0.0.0.0:8432", "[::]:8432", "192.0.2.1:8432"] {
            let mut open = settings(|http| http.listen = address.parse().ok());
            let error = options(&open).unwrap_err();
            assert!(
                one_line(&error).contains(address) && hints(&error)[0].contains("http.token_file"),
                "{error:#}"
            );
            open.http.token = Secret::new("0123456789abcdef");
            options(&open).unwrap();
        }
        for address in ["127.0.0.1:8432", "127.9.9.9:1", "[::1]:8432"] {
            let local = settings(|http| http.listen = address.parse().ok());
            assert!(options(&local).unwrap().tokens.is_empty(), "{address}");
        }
        let off = settings(|http| {
            (http.listen, http.tls_key) = (None, Some("/nowhere/key".into()));
            http.token_file = Some("/nowhere/token".into());
        });
        assert_eq!(options(&off).unwrap().listen, None);
    }

    #[test]
    fn tls_needs_a_certificate_and_its_key() {
        let error =
            options(&settings(|http| http.tls_key = Some("/nowhere/key".into()))).unwrap_err();
        assert!(one_line(&error).contains("the other is not"), "{error:#}");
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        for (certificate, expected) in [
            ("/nowhere/crt".into(), "cannot read"),
            (empty.clone(), "there is no certificate"),
        ] {
            let both = settings(|http| {
                (http.tls_certificate, http.tls_key) = (Some(certificate), Some(empty.clone()))
            });
            let error = options(&both).unwrap_err();
            assert!(one_line(&error).contains(expected), "{error:#}");
        }
    }
}
