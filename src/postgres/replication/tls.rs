//! TLS with libpq's `sslmode` semantics (fe-secure-openssl.c), on rustls.
//!
//! Not as in libpq: a server's certificate of X.509 version 1 is not verified but refused, its common name does not count
//! as a host name (only its subjectAltName does), and revocation lists are not used.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::conninfo::{
    ClientCertificate, FileStat, LibpqEnv, ProcessEnv, SslMode, TlsSettings, TrustedRoots,
};
use super::tls_failure::TlsFailure;

/// Starts TLS on a connection whose server agreed to it. `host` is the name that a certificate must carry, if known.
pub(super) async fn start(
    socket: TcpStream,
    settings: &TlsSettings,
    host: Option<&str>,
) -> Result<TlsStream<TcpStream>, TlsFailure> {
    let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    if settings.mode == SslMode::VerifyFull && name.is_none() {
        return Err(
            "sslmode=verify-full needs the server's host name, and \"host\" has none"
                .to_owned()
                .into(),
        );
    }
    let mut config = config(settings)?;
    config.enable_sni = settings.server_name_indication && name.is_some();
    // Without a name nothing is compared with it nor sent; rustls needs one all the same.
    let name = name.unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, socket).await.map_err(|error| {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(why) => why.into(),
            None => error.to_string().into(),
        }
    })
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(settings, &provider)?;
    let signing = provider.clone();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let own = |files| client_certificate(files, &signing);
    match settings.client.as_ref().map(own).transpose()?.flatten() {
        Some(own) => Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The client's certificate, if its file exists.
fn client_certificate(
    files: &ClientCertificate,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, String> {
    let Some(certificate) = read(&files.certificate)?.filter(|facts| facts.regular) else {
        return Ok(None);
    };
    let chain = certificates(&certificate.content, &files.certificate)?;
    let shown = files.key.display();
    let Some(key) = read(&files.key)? else {
        return Err(format!(
            "there is a client certificate but no private key file \"{shown}\""
        ));
    };
    // As libpq: a key that root owns may be readable for a group, such as Debian's ssl-cert.
    let allowed_to_group = if key.owner == 0 { 0o040 } else { 0 };
    if key.mode & 0o077 & !allowed_to_group != 0 {
        return Err(format!(
            "the private key file \"{shown}\" is open to others (mode {:04o}): chmod 0600",
            key.mode
        ));
    }
    let unusable = |why: String| format!("cannot use the private key file \"{shown}\": {why}");
    let key =
        PrivateKeyDer::from_pem_slice(&key.content).map_err(|error| unusable(error.to_string()))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| unusable(error.to_string()))?;
    let own = CertifiedKey::new(chain, key);
    // Of X.509 version 1, which rustls does not read, the server must judge.
    match own.keys_match() {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(format!(
            "the client certificate \"{}\" does not fit its key",
            files.certificate.display()
        )),
        _ => Ok(Some(own)),
    }
}

fn read(path: &Path) -> Result<Option<FileStat>, String> {
    ProcessEnv
        .file(path)
        .map_err(|error| format!("cannot read \"{}\": {error}", path.display()))
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| {
        format!(
            "cannot read certificates in \"{}\": {error}",
            path.display()
        )
    })?;
    match all.is_empty() {
        true => Err(format!("there is no certificate in \"{}\"", path.display())),
        false => Ok(all),
    }
}

/// Checks a server's certificate as far as the mode asks.
#[derive(Debug)]
struct Verifier {
    /// `None`: whatever certificate comes is taken.
    trusted: Option<Trusted>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Trusted {
    roots: RootCertStore,
    /// The same certificates: a server's own certificate may be listed as trusted although it is no authority's.
    certificates: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Self, String> {
        let certificates = match &settings.roots {
            Some(TrustedRoots::System) => Some(system_roots()?),
            Some(TrustedRoots::File(path)) => match read(path)? {
                Some(facts) => Some(certificates(&facts.content, path)?),
                None if settings.mode >= SslMode::VerifyCa => {
                    return Err(format!(
                        "sslmode={} needs trusted authorities, and the file \"{}\" does not exist; \
                         sslrootcert=system takes the operating system's",
                        settings.mode,
                        path.display()
                    ));
                }
                None => None,
            },
            None if settings.mode >= SslMode::VerifyCa => {
                return Err(format!(
                    "sslmode={} needs trusted authorities: set sslrootcert",
                    settings.mode
                ));
            }
            None => None,
        };
        let trusted = certificates.map(|certificates| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.iter().cloned());
            Trusted {
                roots,
                certificates,
                check_name: settings.mode == SslMode::VerifyFull,
            }
        });
        Ok(Self {
            trusted,
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.is_empty() {
        true => Err(format!(
            "the operating system has no trusted certificate authorities: {:?}",
            found.errors
        )),
        false => Ok(found.certs),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(certificate)?;
        // The usual self-signed server certificate calls itself an authority; as a leaf it would be refused.
        if !trusted
            .certificates
            .iter()
            .any(|known| known.as_ref() == certificate.as_ref())
        {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &trusted.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        if trusted.check_name {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.trusted {
            Some(_) => verify_tls12_signature(message, certificate, signed, &self.algorithms),
            // Proves nothing about a certificate that anybody may have made, and fails on X.509 v1 ones.
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.trusted {
            Some(_) => verify_tls13_signature(message, certificate, signed, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
