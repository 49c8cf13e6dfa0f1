//! TLS: whose certificates are believed, per registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bale_fault::{Context, Fault, Kind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// The largest file of certificates that is read, in bytes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// Where distributions keep their certificates; the first that has any is used.
pub(crate) const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Makes TLS configurations.
pub(crate) struct Tls {
    pub bundles: Vec<PathBuf>,
    pub ca_files: Vec<PathBuf>,
    pub certs_dirs: Vec<PathBuf>,
    common: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) const fn new(bundles: Vec<PathBuf>, ca_files: Vec<PathBuf>, certs_dirs: Vec<PathBuf>) -> Self {
        Self { bundles, ca_files, certs_dirs, common: OnceLock::new() }
    }

    /// Returns the configuration for `authority` (`host[:port]`); most registries share one, and its sessions.
    pub(crate) fn config(&self, authority: &str, is_insecure: bool) -> Result<Arc<ClientConfig>> {
        let own_dir = self.certs_dirs.iter().map(|dir| dir.join(authority)).find(|dir| dir.is_dir());
        match own_dir {
            Some(dir) => self.build(Some(&dir), is_insecure),
            None if is_insecure => self.build(None, true),
            None => match self.common.get() {
                Some(config) => Ok(config.clone()),
                None => {
                    let config = self.build(None, false)?;
                    Ok(self.common.get_or_init(|| config).clone())
                }
            },
        }
    }

    fn build(&self, dir: Option<&Path>, is_insecure: bool) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| Fault::new(Kind::Internal, "set up TLS").caused_by(e))?;
        let builder = if is_insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(self.roots(dir)?)
        };
        let mut config = match dir.map(client_certificate).transpose()?.flatten() {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| Fault::new(Kind::InvalidInput, "use the client certificate").caused_by(e))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self, dir: Option<&Path>) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for bundle in &self.bundles {
            // What the system calls a root may include some that rustls cannot read; those are left out.
            roots.add_parsable_certificates(certificates(bundle).unwrap_or_default());
            if !roots.is_empty() {
                break;
            }
        }
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for file in self.ca_files.iter().cloned().chain(files_ending(dir, "crt")) {
            for certificate in certificates(&file)? {
                roots.add(certificate).map_err(|e| unreadable(&file).caused_by(e))?;
            }
        }
        Ok(roots)
    }
}

fn unreadable(file: &Path) -> Fault {
    Fault::new(Kind::InvalidInput, format!("read the certificate {}", file.display()))
}

fn files_ending(dir: Option<&Path>, extension: &str) -> Vec<PathBuf> {
    let entries = dir.and_then(|d| fs::read_dir(d).ok()).into_iter().flatten().flatten().map(|e| e.path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// Finds `x.cert` with `x.key` beside it, as docker does.
fn client_certificate(dir: &Path) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let Some(cert) = files_ending(Some(dir), "cert").into_iter().next() else { return Ok(None) };
    let key = cert.with_extension("key");
    let key = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|e| unreadable(&key).caused_by(e))?;
    Ok(Some((certificates(&cert)?, key)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(file)?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|e| unreadable(file).caused_by(e))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let open = fs::File::open(file).and_then(|f| f.take(FILE_LIMIT_BYTES).read_to_end(&mut text));
    open.within(|| format!("read {}", file.display()))?;
    Ok(text)
}

/// Believes every certificate: what the user asked for with `insecure`.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
