//! Why a request got no answer: in words, as a code, and whether it may be otherwise in a moment.
#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::io;

use super::net::{HandshakeBroken, LookupError};
use crate::error::Error;

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) hint: String,
    /// Another attempt has a chance.
    pub(crate) transient: bool,
    /// Nothing was there that could have been spoken to.
    pub(crate) unreached: bool,
    /// TLS was spoken to somebody who does not know it.
    pub(crate) no_tls: bool,
}

impl Failure {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Failure {
        Failure { code, detail: detail.into(), hint: String::new(), transient: false, unreached: false, no_tls: false }
    }

    fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: hint.into(), ..self }
    }

    pub(crate) fn transient(self) -> Failure {
        Failure { transient: true, ..self }
    }

    /// What ureq says about a request to `host`.
    pub(crate) fn of(error: ureq::Error, host: &str) -> Failure {
        match error {
            ureq::Error::Io(error) => Failure::of_io(error, host),
            ureq::Error::Other(error) => match error.downcast_ref::<LookupError>() {
                Some(lookup) => {
                    let failure = Failure::new("dns", format!("the name of {host} has no address: {error}"));
                    let hint = "check the registry's name, this machine's network and /etc/resolv.conf";
                    Failure { transient: lookup.temporary, unreached: true, ..failure.hint(hint) }
                }
                None => Failure::new("protocol", error.to_string()),
            },
            ureq::Error::HostNotFound => Failure::new("dns", format!("the name of {host} has no address")),
            ureq::Error::Timeout(what) => silence(&format!("time is over: {what}")),
            ureq::Error::ConnectProxyFailed(words) => Failure::new("proxy", format!("the proxy refuses: {words}"))
                .hint("HTTPS_PROXY, HTTP_PROXY and NO_PROXY say which proxy is used for what"),
            ureq::Error::Tls(words) => Failure::new("tls", words),
            ureq::Error::LargeResponseHeader(..) => Failure::new("protocol", "the answer's header is without end"),
            error => Failure::new("protocol", format!("the answer is no HTTP: {error}")),
        }
    }

    /// What the system, or TLS, says.
    pub(crate) fn of_io(error: io::Error, host: &str) -> Failure {
        if let Some(tls) = find::<rustls::Error>(&error) {
            return of_tls(tls, host);
        }
        if find::<HandshakeBroken>(&error).is_some() {
            let failure = Failure::new("tls", format!("{host} hangs up before the connection is safe")).transient();
            return Failure { no_tls: true, ..failure }.hint("it may speak no TLS: tls_verify=False allows plain HTTP");
        }
        let error = if error.get_ref().is_some_and(|inner| inner.is::<ureq::Error>()) {
            match ureq::Error::from(error) {
                ureq::Error::Io(error) => error,
                inner => return Failure::of(inner, host),
            }
        } else {
            error
        };
        let unreached = |words: &str| {
            let failure = Failure::new("connect", format!("{host} {words}")).transient();
            Failure { unreached: true, ..failure }.hint("check host, port and network")
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused => unreached("refuses the connection"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
                unreached("cannot be reached")
            }
            io::ErrorKind::TimedOut => silence(&format!("{host} is silent for too long")),
            _ => Failure::new("connect", format!("the connection to {host} broke off")).transient(),
        }
    }
}

/// An error of a certain kind, at whatever depth.
fn find<T: StdError + 'static>(error: &io::Error) -> Option<&T> {
    let mut current: &(dyn StdError + 'static) = error.get_ref()?;
    for _ in 0..8 {
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        current = match current.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref()?,
            None => current.source()?,
        };
    }
    None
}

fn silence(detail: &str) -> Failure {
    Failure::new("timeout", detail).hint("the server or the network is too slow, or gone").transient()
}

fn of_tls(error: &rustls::Error, host: &str) -> Failure {
    use rustls::{CertificateError, InvalidMessage};
    let failure = Failure::new("tls", format!("no safe connection to {host}: {error}"));
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let failure = Failure::new("tls", format!("{host} does not speak TLS"));
            Failure { no_tls: true, ..failure.hint("tls_verify=False allows plain HTTP, which everybody on the way can read") }
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => failure.hint(format!(
            "if its authority is your own, put the authority's certificate into /etc/containers/certs.d/{host}/ca.crt or a \
             directory of your choice (cert_dir); tls_verify=False takes any certificate"
        )),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => failure.hint("check this machine's clock; else the registry needs a new certificate"),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => failure.hint("use a name that the certificate is for"),
        rustls::Error::AlertReceived(_) => {
            failure.hint("it may want a client certificate: *.cert and *.key in the directory of its certificates (cert_dir)")
        }
        _ => failure.hint("tls_verify=False takes any certificate"),
    }
}

/// The error of the whole call.
pub(crate) fn error(registry: &str, failure: Failure) -> Error {
    Error::Registry {
        registry: registry.to_owned(),
        status: None,
        code: failure.code.to_owned(),
        detail: failure.detail,
        hint: failure.hint,
    }
}
