//! Who is trusted: the authorities of the system, those of a directory for one registry, and the client's own certificate.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{At, Error, Result, Step};

/// Where the systems of the field keep their authorities in one file.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The most that one file of certificates may hold.
const MOST_FILE: u64 = 16 << 20;

/// The authorities of the system; none where it has none.
pub(crate) fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let paths = own.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
    if let Some(text) = paths.map(|path| read(&path)).find_map(|text| text.ok()) {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(|item| item.ok()));
    }
    roots
}

/// The directories that may hold certificates for `host` (`"host:5000"`).
fn directories(host: &str) -> Vec<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let own = config.filter(|path| path.is_absolute()).map(|path| path.join("containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    own.into_iter().chain(system).map(|path| path.join(host)).collect()
}

/// Of the caller's directory what is meant for `host`: what it has under that name, else all of it. A mirror is somebody else,
/// who is not shown a certificate that was meant for the registry, nor believed for its authority.
pub(crate) fn given(directory: &Path, host: &str, is_mirror: bool) -> Option<PathBuf> {
    let named = directory.join(host);
    // Whom a registry sends us to may have any name.
    let is_name = host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[') && !host.contains('/');
    if is_name && named.is_dir() {
        return Some(named);
    }
    (!is_mirror).then(|| directory.to_owned())
}

/// The TLS of connections to one host. `roots`: the authorities of the system. `own`: the only directory of certificates;
/// without one, the first counts that is there for this user. What is in it must be certificates.
pub(crate) fn client(roots: RootCertStore, own: Option<&Path>, host: &str, verify: bool) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::State(format!("TLS cannot be set up: {error}")))?;
    let usable = |path: &PathBuf| fs::read_dir(path).is_ok();
    let extra = match own.map(Path::to_owned).or_else(|| directories(host).into_iter().find(usable)) {
        Some(path) => Extra::read(&path)?,
        None => Extra::default(),
    };
    let builder = if verify {
        let mut roots = roots;
        for (path, certificate) in &extra.authorities {
            let bad = |error: rustls::Error| bad(path, &format!("it is no authority's certificate: {error}"));
            roots.add(certificate.clone()).map_err(bad)?;
        }
        let own = extra.authorities.into_iter().map(|(_, certificate)| certificate).collect();
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Checked::new(roots, own, provider)?))
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
    };
    let config = match extra.own {
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| bad(&path, &format!("it does not go with its key: {error}")))?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn bad(path: &Path, rule: &str) -> Error {
    Error::sys(Step::ReadCertificates, "", path, Errno::EINVAL).with_hint(rule)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let at = |result: std::io::Result<fs::File>| result.at(Step::ReadCertificates, "open", path);
    let mut text = Vec::new();
    let file = at(fs::File::open(path))?;
    file.take(MOST_FILE).read_to_end(&mut text).at(Step::ReadCertificates, "read", path)?;
    Ok(text)
}

/// What a directory of certificates holds.
#[derive(Default)]
struct Extra {
    authorities: Vec<(PathBuf, CertificateDer<'static>)>,
    own: Option<(PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Extra {
    fn read(dir: &Path) -> Result<Extra> {
        let list = fs::read_dir(dir).at(Step::ReadCertificates, "open", dir)?;
        let mut paths: Vec<PathBuf> = list.take(1000).filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let mut extra = Extra::default();
        for path in paths {
            let kind = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            match kind {
                "crt" => extra.authorities.extend(chain(&path)?.into_iter().map(|one| (path.clone(), one))),
                "cert" if extra.own.is_none() => {
                    let key = path.with_extension("key");
                    let key = PrivateKeyDer::from_pem_slice(&read(&key)?)
                        .map_err(|error| bad(&key, &format!("it is no private key: {error}")))?;
                    extra.own = Some((path.clone(), chain(&path)?, key));
                }
                _ => {}
            }
        }
        Ok(extra)
    }
}

/// All certificates of a file.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(bad(path, "it holds no certificate in PEM")),
        Err(error) => Err(bad(path, &format!("it holds no certificate in PEM: {error}"))),
    }
}

/// Checks as everywhere, except that a server may show an authority's certificate that the user has put into the directory:
/// the one certificate that `openssl req -x509` makes for both ends.
///
/// Nobody is let in by that who was not before: that authority could have signed another certificate.
#[derive(Debug)]
struct Checked {
    inner: Option<Arc<WebPkiServerVerifier>>,
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Checked {
    fn new(roots: RootCertStore, own: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Checked> {
        // Without any authority there is no verifier, and nobody is trusted.
        let inner = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| Error::State(format!("TLS cannot be set up: {error}")))?,
            ),
        };
        Ok(Checked { inner, own, provider })
    }

    /// The one thing that is wrong with a certificate is that it is an authority's. Its time was looked at before that.
    fn is_authority(error: &rustls::Error) -> bool {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.to_string().contains("CaUsedAsEndEntity")
            }
            _ => false,
        }
    }
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else {
            return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if Checked::is_authority(&error) && self.own.iter().any(|own| own == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(error) if Checked::is_authority(&error) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Any certificate will do; but who shows it must hold its key, or the handshake means nothing.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A certificate for `r.test` that is its own authority, from now on for two days.
    fn own(dir: &Path) -> CertificateDer<'static> {
        let (key, certificate) = (dir.join("own.key"), dir.join("own.crt"));
        let status = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
            .args(["-addext", "subjectAltName=DNS:r.test", "-keyout"])
            .args([&key, Path::new("-out"), &certificate])
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.expect("openssl is there; see `make setup`").success());
        chain(&certificate).unwrap().remove(0)
    }

    fn verify(trusted: &[CertificateDer<'static>], shown: &CertificateDer<'static>, name: &str, later: u64) -> bool {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = system();
        trusted.iter().for_each(|one| roots.add(one.clone()).unwrap());
        let checked = Checked::new(roots, trusted.to_vec(), provider).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 1 + later * 86_400));
        checked.verify_server_cert(shown, &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], now).is_ok()
    }

    #[test]
    fn each_host_has_its_own_part_of_a_directory() {
        let dir = std::env::temp_dir().join(format!("zind-test-certs-{}", std::process::id()));
        fs::create_dir_all(dir.join("a.test:5000")).unwrap();
        for is_mirror in [false, true] {
            assert_eq!(given(&dir, "a.test:5000", is_mirror), Some(dir.join("a.test:5000")));
            let rest = (!is_mirror).then(|| dir.clone());
            for other in ["b.test", "..", ".", "a.test:5000/.."] {
                assert_eq!(given(&dir, other, is_mirror), rest, "{other}");
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_trusted_where_the_user_says_so() {
        let dir = std::env::temp_dir().join(format!("zind-test-own-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (mine, other) = (own(&dir), own(&dir));
        let trusted = [mine.clone()];
        assert!(verify(&trusted, &mine, "r.test", 0));
        assert!(!verify(&trusted, &mine, "other.test", 0));
        assert!(!verify(&trusted, &mine, "r.test", 3));
        assert!(!verify(&trusted, &other, "r.test", 0));
        assert!(!verify(&[], &mine, "r.test", 0));
        fs::remove_dir_all(&dir).unwrap();
    }
}
