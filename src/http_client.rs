//! One HTTP request on a connection of its own: what a webhook or a check needs.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use hyper::body::Body;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::config::read_private;
use crate::error::{Hint, with_hint};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub host: String,
    pub status: StatusCode,
    /// Its beginning.
    pub body: Vec<u8>,
}

/// Asks; of the body no more than so many bytes are read. Errors name the host alone: the rest of a URL may be a secret.
pub async fn ask(
    mut request: Request<String>,
    url: &str,
    ca_file: Option<&Path>,
    most: usize,
) -> anyhow::Result<Answer> {
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
    let answer = match target.is_secret {
        false => exchange(stream, request, most).await,
        true => {
            let connector = TlsConnector::from(Arc::new(trusted(ca_file)?));
            let name = ServerName::try_from(host.clone()).context("the URL's host")?;
            let stream = connector.connect(name, stream).await.with_context(what)?;
            exchange(stream, request, most).await
        }
    };
    let (status, body) = answer.with_context(what)?;
    let host = target.host;
    Ok(Answer { host, status, body })
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<String>,
    most: usize,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the set, whatever happens.
    let mut drives = JoinSet::new();
    drives.spawn(connection);
    let (head, mut body) = sender.send_request(request).await?.into_parts();
    let mut read = Vec::new();
    while read.len() < most {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else {
            break;
        };
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    read.truncate(most);
    Ok((head.status, read))
}

/// The request with a token, which a file of this user alone holds. `setting`: what names that file.
pub fn with_bearer(
    mut request: Request<String>,
    file: Option<&Path>,
    setting: &str,
) -> anyhow::Result<Request<String>> {
    if let Some(file) = file {
        let token = secret(file, setting)?;
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.with_context(|| format!("the token in {setting} cannot be sent"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// The only line of a file.
pub fn secret(file: &Path, setting: &str) -> anyhow::Result<String> {
    let text = read_private(file, setting, "put it alone into a file of mode 0600")?;
    Ok(text.trim().to_string())
}

/// Whether a URL can be asked. Errors: why not, without the URL.
pub fn check_url(url: &str) -> anyhow::Result<()> {
    Target::of(url).map(|_| ())
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
pub fn trusted(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
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
