//! One HTTP request on a connection of its own: what a webhook needs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::refused::Refused;
use crate::error::{Hint, with_hint};

/// Sends a request; the answer must say that it was taken. Errors name the host alone: the rest of a URL may be a secret.
pub async fn send(
    mut request: Request<String>,
    url: &str,
    ca_file: Option<&Path>,
) -> anyhow::Result<()> {
    let target = Target::of(url)?;
    let headers = request.headers_mut();
    headers.insert(HOST, target.authority.parse().context("the URL's host")?);
    headers.insert(
        USER_AGENT,
        concat!("walden/", env!("CARGO_PKG_VERSION")).parse()?,
    );
    *request.uri_mut() = target.path.clone();
    let host = &target.host;
    let what = || format!("cannot ask \"{host}\"");
    let stream = TcpStream::connect((&**host, target.port))
        .await
        .with_context(what)?;
    let status = match target.is_secret {
        false => exchange(stream, request).await,
        true => {
            let connector = TlsConnector::from(Arc::new(tls(ca_file)?));
            let name = ServerName::try_from(host.clone()).context("the URL's host")?;
            let stream = connector.connect(name, stream).await.with_context(what)?;
            exchange(stream, request).await
        }
    };
    let status = status.with_context(what)?;
    let answer = format!("\"{host}\" answered {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        // Too many at a time: the others would be as well.
        400..=428 | 430..=499 => Err(Refused(answer).into()),
        _ => Err(anyhow!(answer)),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<String>,
) -> anyhow::Result<hyper::StatusCode> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the set, whatever happens.
    let mut drives = JoinSet::new();
    drives.spawn(connection);
    Ok(sender.send_request(request).await?.status())
}

/// A URL in its parts.
struct Target {
    is_secret: bool,
    host: String,
    port: u16,
    authority: String,
    path: Uri,
}

impl Target {
    fn of(url: &str) -> anyhow::Result<Self> {
        let wrong = |why| {
            with_hint(
                anyhow!("the URL cannot be used: {why}"),
                "write it as https://host/path",
            )
        };
        let uri: Uri = url.trim().parse().map_err(|_| wrong("it is none"))?;
        let is_secret = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!(wrong("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        ensure!(
            !authority.as_str().contains('@'),
            wrong("it has a user in it")
        );
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            is_secret,
            host: host.to_string(),
            port: authority
                .port_u16()
                .unwrap_or(if is_secret { 443 } else { 80 }),
            authority: authority.to_string(),
            path: path.parse().map_err(|_| wrong("its path"))?,
        })
    }
}

/// The system's authorities, and those of a file.
fn tls(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let what = || format!("cannot use \"{}\", named by ca_file", file.display());
        let pem = std::fs::read(file)
            .with_context(what)
            .hint("name a PEM file with certificates")?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.with_context(what)?)
                .with_context(what)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_asked_is_refused_without_being_shown() {
        for url in [
            "",
            "hook",
            "ftp://host/secret",
            "https:///secret",
            "http://user:secret@host/",
            "/secret",
        ] {
            let error = Target::of(url).err().unwrap();
            assert!(!format!("{error:#}").contains("secret"), "{error:#}");
        }
        let target = Target::of("https://[::1]:8443/a?b=c\n").unwrap();
        assert_eq!(
            (&*target.host, target.port, target.path.to_string()),
            ("::1", 8443, "/a?b=c".into())
        );
        let target = Target::of("http://host").unwrap();
        assert_eq!(
            (target.port, target.path.path(), target.is_secret),
            (80, "/", false)
        );
    }
}
