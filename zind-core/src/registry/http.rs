//! Requests: one connection pool per host, redirects, answers with bounds.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use ureq::http::{HeaderMap, Method, Request, Response, Uri, header};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Body, SendBody};

use super::certificates;
use super::failure::{self, Failure};
use super::net::{Link, Names, Proxies, Tcp, Tls, is_loopback, port_of};
use super::options::RegistryOptions;
use crate::error::{Error, Result};

/// The most hops that a request makes.
const MOST_REDIRECTS: usize = 10;
/// The most bytes of an answer's header.
const MOST_HEADER: usize = 64 << 10;
/// The most bytes of a message of error.
const MOST_MESSAGE: u64 = 64 << 10;

/// What a request carries.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes.
    Stream(&'a mut dyn Read, u64),
}

/// One request.
pub(crate) struct Ask<'a, 'p> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: &'a [(&'static str, String)],
    /// Shown to this host only, never where it redirects to.
    pub(crate) authorization: Option<&'a str>,
    pub(crate) payload: Payload<'p>,
    /// Certificates are not looked at.
    pub(crate) insecure: bool,
}

/// An answer, and where it came from at last.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) uri: Uri,
    /// It came from another origin than was asked.
    pub(crate) elsewhere: bool,
}

/// Either no answer, or nothing to go on with.
pub(crate) enum Trouble {
    Failure(Failure),
    Error(Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failure(failure)
    }
}

/// All connections of one pull or push.
pub(crate) struct Http {
    pub(crate) link: Arc<Link>,
    pub(crate) options: RegistryOptions,
    proxies: Proxies,
    agents: Mutex<HashMap<(String, bool), Agent>>,
    roots: OnceLock<RootCertStore>,
}

impl Http {
    pub(crate) fn new(options: RegistryOptions) -> Http {
        let link = Arc::new(Link::new(options.timeout.max(Duration::from_millis(100))));
        Http { link, options, proxies: Proxies::from_env(), agents: Mutex::default(), roots: OnceLock::new() }
    }

    /// Sends one request, and follows redirects if it has no payload.
    pub(crate) fn send(&self, ask: Ask<'_, '_>) -> Result<Answer, Trouble> {
        let Ask { method, uri, headers, authorization, mut payload, insecure } = ask;
        let first = uri.clone();
        let mut here = uri;
        let mut at_home = true;
        let may_follow = matches!(method, Method::GET | Method::HEAD);
        for _ in 0..=MOST_REDIRECTS {
            let authorization = authorization.filter(|_| at_home);
            let response = self.exchange(&method, &here, headers, authorization, &mut payload, insecure)?;
            if !may_follow || !is_redirect(&response) {
                return Ok(Answer { response, uri: here, elsewhere: !at_home });
            }
            let next = location(&response, &here, insecure)?;
            // Once elsewhere, a way back could lead anywhere.
            at_home = at_home && origin(&next) == origin(&first);
            here = next;
        }
        Err(Failure::new("redirect", format!("more than {MOST_REDIRECTS} redirects")).into())
    }

    fn exchange(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
        payload: &mut Payload<'_>,
        insecure: bool,
    ) -> Result<Response<Body>, Trouble> {
        if self.link.stopped() {
            return Err(Trouble::Error(Error::Interrupted));
        }
        let agent = self.agent(uri, insecure).map_err(Trouble::Error)?;
        let mut request = Request::builder().method(method.clone()).uri(uri.clone());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Payload::Stream(_, length) = payload {
            request = request.header(header::CONTENT_LENGTH, *length);
        }
        let bad =
            |error: ureq::http::Error| Failure::new("protocol", format!("no request can be made of this: {error}"));
        let result = match payload {
            Payload::None => agent.run(request.body(()).map_err(bad)?),
            Payload::Bytes(bytes) => agent.run(request.body(&**bytes).map_err(bad)?),
            Payload::Stream(stream, _) => agent.run(request.body(SendBody::from_reader(stream)).map_err(bad)?),
        };
        result.map_err(|error| self.trouble(error, uri))
    }

    /// What a failed exchange means; that the caller wants an end comes before all.
    fn trouble(&self, error: ureq::Error, uri: &Uri) -> Trouble {
        if self.link.stopped() {
            return Trouble::Error(Error::Interrupted);
        }
        Trouble::Failure(Failure::of(error, &host(uri)))
    }

    /// The connections to one origin.
    fn agent(&self, uri: &Uri, insecure: bool) -> Result<Agent> {
        let key = (origin(uri), insecure);
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.connections(uri, insecure)?;
        lock(&self.agents).insert(key, agent.clone());
        Ok(agent)
    }

    fn connections(&self, uri: &Uri, insecure: bool) -> Result<Agent> {
        let host = host(uri);
        let proxy = match self.options.proxy.as_ref().filter(|_| !is_loopback(uri.host().unwrap_or_default())) {
            Some(proxy) => Some(proxy.clone()),
            None => self.proxies.for_url(uri),
        };
        let proxy = proxy.map(|proxy| proxy_of(&proxy)).transpose()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MOST_HEADER)
            .accept_encoding("identity")
            .user_agent(concat!("zind/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.link.connect + self.link.idle))
            .timeout_recv_response(Some(self.link.idle * 2))
            .proxy(proxy)
            .build();
        let roots = if insecure || uri.scheme_str() != Some("https") {
            RootCertStore::empty()
        } else {
            self.roots.get_or_init(certificates::system).clone()
        };
        let mirrors = self.options.mirrors.values().flatten().filter_map(|mirror| mirror.location.split('/').next());
        let is_mirror = mirrors.into_iter().any(|mirror| mirror.eq_ignore_ascii_case(&host));
        let given = self.options.cert_dir.as_deref().and_then(|path| certificates::given(path, &host, is_mirror));
        let tls = certificates::client(roots, given.as_deref(), &host, !insecure)?;
        // First the way through a proxy, which makes its own connection; without one, the connection itself; TLS over either.
        let connector = ().chain(ConnectProxyConnector::default()).chain(Tcp(self.link.clone())).chain(Tls(tls));
        Ok(Agent::with_parts(config, connector, Names))
    }

    /// Reads an answer that has to be short: at most `limit` bytes, in the time for a document.
    pub(crate) fn read(&self, answer: &mut Answer, limit: u64) -> Result<Vec<u8>, Trouble> {
        let until = Instant::now() + self.link.idle * 2;
        let mut all = Vec::new();
        let mut reader = answer.response.body_mut().as_reader();
        let mut buffer = [0; 16 << 10];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(all),
                Ok(read) => all.extend_from_slice(&buffer[..read]),
                Err(_) if self.link.stopped() => return Err(Trouble::Error(Error::Interrupted)),
                Err(error) => return Err(Failure::of_io(error, &host(&answer.uri)).into()),
            }
            if all.len() as u64 > limit {
                return Err(Failure::new("content", format!("the answer is larger than {limit} bytes")).into());
            }
            if Instant::now() > until {
                return Err(Failure::new("timeout", "the answer takes too long").transient().into());
            }
        }
    }

    /// The error that an answer without success stands for.
    pub(crate) fn refusal(&self, mut answer: Answer, registry: &str, about: &str) -> Error {
        let status = answer.response.status().as_u16();
        let body = self.read(&mut answer, MOST_MESSAGE).unwrap_or_default();
        let (code, message) = message(&body);
        let code = code.unwrap_or_else(|| usual_code(status).to_owned());
        let detail = match message {
            Some(message) => format!("{about}: {message}"),
            None => about.to_owned(),
        };
        let hint = usual_cure(status, &code).to_owned();
        Error::Registry { registry: registry.to_owned(), status: Some(status), code, detail, hint }
    }
}

impl Trouble {
    /// The error of the whole call.
    pub(crate) fn error(self, registry: &str) -> Error {
        match self {
            Trouble::Error(error) => error,
            Trouble::Failure(failure) => failure::error(registry, failure),
        }
    }
}

/// A proxy of the environment or the options.
fn proxy_of(text: &str) -> Result<ureq::Proxy> {
    let proxy = ureq::Proxy::new(text).map_err(|_| Error::spec("proxy", "is no http://[USER:PASSWORD@]HOST:PORT"))?;
    if !matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https) {
        return Err(Error::unsupported("a SOCKS proxy", "an HTTP proxy: http://HOST:PORT"));
    }
    Ok(proxy)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `host:port` as it is written in the URL.
pub(crate) fn host(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Scheme, host and port: who gets to see what is meant for one.
pub(crate) fn origin(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    format!("{}://{host}:{}", uri.scheme_str().unwrap_or_default(), port_of(uri))
}

fn is_redirect(response: &Response<Body>) -> bool {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Where the `Location` of an answer leads: to the web, and not from https to http unless anything goes (`insecure`).
pub(crate) fn location<B>(response: &Response<B>, from: &Uri, insecure: bool) -> Result<Uri, Failure> {
    let bad = |why: &str| Failure::new("redirect", format!("{} redirects {why}", host(from)));
    let text = text(response.headers(), "location").ok_or_else(|| bad("to nowhere"))?;
    let uri = join(from, text).ok_or_else(|| bad("to what is no URL"))?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    if !web || uri.host().is_none_or(str::is_empty) {
        return Err(bad("to what is not http or https"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad("to a URL with credentials in it"));
    }
    // A server behind one that does the TLS for it does not know better.
    let unaware =
        from.scheme_str() == Some("https") && uri.scheme_str() == Some("http") && from.authority() == uri.authority();
    if unaware {
        let safe = uri.to_string().replacen("http:", "https:", 1);
        return safe.parse().map_err(|_| bad("to what is no URL"));
    }
    if !insecure && from.scheme_str() == Some("https") && uri.scheme_str() == Some("http") {
        return Err(bad("from https to http"));
    }
    Ok(uri)
}

/// A reference relative to a URL: RFC 3986, section 5.2, without dot segments, which servers resolve themselves.
fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let has_scheme = reference.split(['/', '?']).next().is_some_and(|head| head.contains(':'));
    let text = if has_scheme {
        reference.to_owned()
    } else if let Some(rest) = reference.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') {
        format!("{scheme}://{authority}{}{reference}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{reference}")
    };
    text.parse().ok()
}

/// Code and message of the distribution-spec's list of errors, or what else the server says for people.
pub(crate) fn message(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        let plain = std::str::from_utf8(body).ok().map(str::trim);
        let plain = plain.filter(|text| !text.is_empty() && text.len() < 500 && !text.starts_with('<'));
        return (None, plain.map(|text| clean(text, 200)));
    };
    let first = value.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&value);
    let get = |name: &str| first.get(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let code = get("code").map(|code| clean(code, 64));
    let words = get("message").or_else(|| get("details")).or_else(|| get("error_description")).or_else(|| get("error"));
    (code, words.map(|text| clean(text, 300)))
}

/// Foreign text, fit for a message: no control characters, and short.
pub(crate) fn clean(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}

/// The spec's code for a status, where the server gives none.
fn usual_code(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "NOT_FOUND",
        405 | 501 => "UNSUPPORTED",
        429 => "TOOMANYREQUESTS",
        500.. => "UNAVAILABLE",
        _ => "UNKNOWN",
    }
}

fn usual_cure(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (_, "MANIFEST_UNKNOWN" | "NAME_UNKNOWN") => "check repository, tag and digest",
        (_, "UNSUPPORTED") => "the registry does not have this function",
        (401, _) => "check user and password",
        (403, _) => "this user may not do it",
        (404, _) => "check repository, tag and digest",
        (429, _) => "the registry limits how much one may ask; wait, log in, or use a mirror",
        (500.., _) => "the registry has trouble of its own; try again later",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_joined() {
        let base: Uri = "https://r.test:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (reference, wanted) in [
            ("https://cdn.test/blob?sig=a/b:c", "https://cdn.test/blob?sig=a/b:c"),
            ("//cdn.test/blob", "https://cdn.test/blob"),
            ("/v2/up/1?state=a:b", "https://r.test:5000/v2/up/1?state=a:b"),
            ("?state=1", "https://r.test:5000/v2/a/blobs/uploads/?state=1"),
            ("1234#part", "https://r.test:5000/v2/a/blobs/uploads/1234"),
        ] {
            assert_eq!(join(&base, reference).unwrap().to_string(), wanted, "{reference}");
        }
        assert!(join(&base, "http://").is_none());
    }

    #[test]
    fn locations_do_not_lead_from_https_to_http() {
        let of = |from: &str, to: &str, insecure: bool| {
            let response = Response::builder().header("location", to).body(()).unwrap();
            let found = location(&response, &from.parse().unwrap(), insecure);
            found.map(|uri| uri.to_string()).map_err(|failure| failure.code)
        };
        let own = "https://r.test:5000/v2/a/blobs/uploads/";
        assert_eq!(of(own, "http://other.test/up", false), Err("redirect"));
        assert_eq!(of(own, "http://r.test:5001/up", false), Err("redirect"));
        assert_eq!(of(own, "http://other.test/up", true), Ok("http://other.test/up".into()));
        assert_eq!(of(own, "https://other.test/up", false), Ok("https://other.test/up".into()));
        assert_eq!(of(own, "/up?x=1", false), Ok("https://r.test:5000/up?x=1".into()));
        // The same place, which only does not know that it is spoken to by TLS.
        assert_eq!(of(own, "http://r.test:5000/up", false), Ok("https://r.test:5000/up".into()));
        assert_eq!(of("http://127.0.0.1:1/v2/", "http://127.0.0.1:2/up", false), Ok("http://127.0.0.1:2/up".into()));
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let of = |url: &str| origin(&url.parse().unwrap());
        assert_eq!(of("https://R.test/v2/"), of("https://r.test:443/x"));
        assert_ne!(of("https://r.test/"), of("http://r.test:443/"));
        assert_ne!(of("https://r.test/"), of("https://r.test:444/"));
        assert_ne!(of("https://r.test/"), of("https://r.test.evil/"));
    }

    #[test]
    fn messages_are_taken_from_the_list_of_errors() {
        let spec = br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest\nunknown", "detail": {}}]}"#;
        assert_eq!(message(spec), (Some("MANIFEST_UNKNOWN".into()), Some("manifest unknown".into())));
        assert_eq!(message(br#"{"details": "incorrect username"}"#).1.as_deref(), Some("incorrect username"));
        assert_eq!(message(b"<html>busy</html>"), (None, None));
        assert_eq!(message(b"try later\n").1.as_deref(), Some("try later"));
        assert_eq!(message(&[b'['; 60_000]), (None, None));
        assert_eq!(message(b"\xff\xfe"), (None, None));
    }
}
