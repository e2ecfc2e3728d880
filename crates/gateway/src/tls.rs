//! TLS on the listener: certificate and key are read from files at the start and at each reload, and checked together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// HTTP/2 where the client can, else HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Files of `[server.tls]`, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and after it those that vouch for it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of those whose clients are let in; `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// What the files hold, fit for a listener. Prints nothing of it.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    /// When the certificate ends, Unix seconds.
    pub expires_at_seconds: i64,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("expires_at_seconds", &self.expires_at_seconds)
            .finish_non_exhaustive()
    }
}

/// Which of the files something is wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// [`TlsFiles::cert`].
    Cert,
    /// [`TlsFiles::key`].
    Key,
    /// [`TlsFiles::client_ca`].
    ClientCa,
}

/// Why the files can't be used. The text holds nothing of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    /// The file.
    pub file: TlsFile,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

impl Tls {
    /// Reads the files and checks that they belong together.
    ///
    /// # Errors
    /// A file can't be read, holds something else, or the key is not the certificate's.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let chain = certificates(TlsFile::Cert, &files.cert)?;
        let expires_at_seconds = expiry(&chain, &files.cert)?;
        let key = private_key(&files.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError {
                file: TlsFile::Cert,
                message: format!("TLS can't be set up: {error}"),
                help: "this is a defect of the build",
            })?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let bad = |message: String| TlsError {
                    file: TlsFile::ClientCa,
                    message,
                    help: "name a file with the certificates of those who sign your clients' certificates",
                };
                let mut roots = RootCertStore::empty();
                for root in certificates(TlsFile::ClientCa, path)? {
                    roots.add(root).map_err(|error| {
                        bad(format!(
                            "{} has a certificate that can't be used: {error}",
                            path.display()
                        ))
                    })?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| bad(format!("{}: {error}", path.display())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => TlsError {
                    file: TlsFile::Key,
                    message: format!(
                        "the key in {} does not belong to the certificate in {}",
                        files.key.display(),
                        files.cert.display()
                    ),
                    help: "name the key that the certificate was made for; the certificate itself must be the first in its file",
                },
                error => TlsError {
                    file: TlsFile::Cert,
                    message: format!("certificate and key can't be used: {error}"),
                    help: "use an RSA, ECDSA or Ed25519 key and its certificate",
                },
            })?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Tls {
            server: Arc::new(server),
            expires_at_seconds,
        })
    }
}

/// What a listener shows to clients from the next connection on.
#[derive(Clone)]
pub struct Certificates(Arc<ArcSwap<Tls>>);

impl Certificates {
    /// Begins with these.
    pub fn new(tls: Tls) -> Self {
        Certificates(Arc::new(ArcSwap::from_pointee(tls)))
    }

    /// Takes others. Connections that are open keep theirs.
    pub fn replace(&self, tls: Tls) {
        self.0.store(Arc::new(tls));
    }

    /// For one connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.load().server))
    }
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
    let bad = |message: String| TlsError {
        file,
        message,
        help: "relative paths start at the folder of the configuration file",
    };
    let length = std::fs::metadata(path)
        .map_err(|error| bad(format!("{} can't be read: {error}", path.display())))?
        .len();
    if length > FILE_BYTES_MAX {
        return Err(bad(format!(
            "{} is larger than any file of this kind",
            path.display()
        )));
    }
    std::fs::read(path).map_err(|error| bad(format!("{} can't be read: {error}", path.display())))
}

/// At least one. What the parser says is left out: it may quote a line of the file.
fn certificates(file: TlsFile, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError {
            file,
            message: format!("{} has no certificate in PEM", path.display()),
            help: "such a file begins with `-----BEGIN CERTIFICATE-----`",
        }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(TlsFile::Key, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError {
        file: TlsFile::Key,
        message: format!("{} has no private key in PEM", path.display()),
        help: "such a file begins with `-----BEGIN PRIVATE KEY-----`; a key with a passphrase can't be used",
    })
}

/// When the first certificate ends, Unix seconds.
fn expiry(chain: &[CertificateDer<'_>], path: &Path) -> Result<i64, TlsError> {
    let first = chain.first().map(|first| X509Certificate::from_der(first));
    match first {
        Some(Ok((_, certificate))) => Ok(certificate.validity().not_after.timestamp()),
        _ => Err(TlsError {
            file: TlsFile::Cert,
            message: format!("the certificate in {} is malformed", path.display()),
            help: "make it again",
        }),
    }
}
