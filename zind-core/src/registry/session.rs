//! One repository of one registry: who asks, with what token, and how often.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Method, Response, Uri};

use super::auth::{self, Credentials, Found};
use super::challenge::Challenge;
use super::failure::Failure;
use super::http::{Answer, Ask, Http, Payload, Trouble, clean, location, lock, origin, text};
use super::net::is_loopback;
use super::options::Auth;
use crate::error::{Error, Result};

/// The longest wait that a registry can ask for.
const MOST_WAIT: Duration = Duration::from_secs(60);
/// The most bytes of a token server's answer.
const MOST_TOKEN: u64 = 1 << 20;
/// How often a request shows something new to a registry that says 401.
const MOST_CHALLENGES: u32 = 3;

/// Where a repository is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The registry by the name that credentials and messages have it under: `"docker.io"`.
    pub(crate) name: String,
    /// Where it is: `"registry-1.docker.io"`, `"localhost:5000"`.
    pub(crate) host: String,
    pub(crate) repository: String,
    /// Any certificate will do, and plain HTTP.
    pub(crate) insecure: bool,
}

impl Place {
    pub(crate) fn new(registry: &str, repository: &str, insecure: bool) -> Place {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Place { name: registry.into(), host: host.into(), repository: repository.into(), insecure }
    }

    fn may_be_plain(&self) -> bool {
        let host = match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.host,
        };
        self.insecure || is_loopback(host)
    }
}

/// A repository that is asked for or given something.
pub(crate) struct Session {
    pub(crate) http: Arc<Http>,
    pub(crate) place: Place,
    /// What a token has to be good for.
    scopes: Vec<String>,
    /// Nothing is ever shown.
    anonymous: bool,
    /// Who asks.
    auth: Auth,
    /// It stands in for a registry.
    mirror: bool,
    plain: AtomicBool,
    /// It has answered once.
    met: AtomicBool,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    /// The `Authorization` of the next request.
    authorization: Option<String>,
    found: Option<Found>,
}

/// What is asked for, on top of the address.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: &'a [(&'static str, String)],
    pub(crate) payload: &'a [u8],
    /// In messages: `"manifest of a/b:1"`.
    pub(crate) about: &'a str,
}

impl Session {
    /// A repository to pull from, or also to push to.
    pub(crate) fn new(http: Arc<Http>, place: Place, push: bool, mount_from: Option<&str>) -> Session {
        let actions = if push { "pull,push" } else { "pull" };
        let mut scopes = vec![format!("repository:{}:{actions}", place.repository)];
        scopes.extend(mount_from.map(|from| format!("repository:{from}:pull")));
        let (plain, met) = (AtomicBool::new(false), AtomicBool::new(false));
        let auth = http.options.auth.clone();
        let (anonymous, mirror) = (false, false);
        Session { http, place, scopes, anonymous, auth, mirror, plain, met, shown: Mutex::default() }
    }

    /// A mirror to pull from. What the caller gives for the registry is not for whoever stands in for it: the files may have
    /// something for the mirror by its own name. Who wants to be nobody is nobody here, too.
    pub(crate) fn mirror(http: Arc<Http>, place: Place) -> Session {
        let auth = match http.options.auth {
            Auth::Anonymous => Auth::Anonymous,
            _ => Auth::Files,
        };
        Session { auth, mirror: true, ..Session::new(http, place, false, None) }
    }

    /// A server that is shown no credentials.
    pub(crate) fn anonymous(http: Arc<Http>, place: Place) -> Session {
        Session { anonymous: true, ..Session::new(http, place, false, None) }
    }

    /// The URL of a path below the repository: `"manifests/latest"`.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri> {
        let scheme = if self.plain.load(Ordering::Relaxed) { "http" } else { "https" };
        let Place { host, repository, .. } = &self.place;
        let text = format!("{scheme}://{host}/v2/{repository}/{path}");
        text.parse().map_err(|_| Error::spec("reference", format!("{text} is no URL")))
    }

    /// Asks for a path below the repository until there is an answer that is neither a passing failure nor a challenge.
    pub(crate) fn get(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        about: &str,
    ) -> Result<Answer> {
        let uri = self.uri(path)?;
        self.call(&Call { method, uri, headers, payload: &[], about })
    }

    /// The same with a payload, and for any URL.
    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Answer> {
        let mut failures = 0;
        let mut challenges = 0;
        loop {
            let shown = lock(&self.shown).authorization.clone();
            let uri = self.adapted(&call.uri);
            let ask = Ask {
                method: call.method.clone(),
                authorization: self.for_origin(&uri, shown.as_deref()),
                uri,
                headers: call.headers,
                payload: payload(&call.method, call.payload),
                insecure: self.place.insecure,
            };
            match self.http.send(ask) {
                Ok(answer) => {
                    self.met.store(true, Ordering::Relaxed);
                    let status = answer.response.status().as_u16();
                    if status == 401 && !answer.elsewhere && !self.anonymous && challenges < MOST_CHALLENGES {
                        challenges += 1;
                        self.renew(answer, shown.as_deref(), call.about)?;
                    } else if is_passing(status) && failures < self.http.options.retries {
                        failures += 1;
                        self.pause(failures, retry_after(&answer.response))?;
                    } else if status == 401 {
                        return Err(self.unauthorized(answer, call.about));
                    } else {
                        return Ok(answer);
                    }
                }
                Err(trouble) => self.again(trouble, &mut failures)?,
            }
        }
    }

    /// One attempt with a payload that cannot be sent twice; with what the last call found to be right.
    pub(crate) fn stream(
        &self,
        method: Method,
        uri: Uri,
        headers: &[(&'static str, String)],
        payload: Payload<'_>,
    ) -> Result<Answer, Trouble> {
        let shown = lock(&self.shown).authorization.clone();
        let authorization = self.for_origin(&uri, shown.as_deref());
        self.http.send(Ask { method, authorization, uri, headers, payload, insecure: self.place.insecure })
    }

    /// The error that an answer stands for.
    pub(crate) fn refusal(&self, answer: Answer, about: &str) -> Error {
        self.http.refusal(answer, &self.place.name, about)
    }

    /// Where the `Location` of an answer leads, if one may go there.
    pub(crate) fn location(&self, answer: &Answer) -> Result<Uri, Failure> {
        location(&answer.response, &answer.uri, self.place.insecure)
    }

    /// The error for what is not as it was promised.
    pub(crate) fn content(&self, detail: impl Into<String>) -> Error {
        Trouble::Failure(Failure::new("content", detail)).error(&self.place.name)
    }

    /// The body of an answer that has to be short.
    pub(crate) fn read(&self, answer: &mut Answer, limit: u64) -> Result<Vec<u8>, Trouble> {
        self.http.read(answer, limit)
    }

    /// Decides whether a failure is worth another attempt, and waits for it.
    pub(crate) fn again(&self, trouble: Trouble, failures: &mut u32) -> Result<()> {
        let failure = match trouble {
            Trouble::Error(error) => return Err(error),
            Trouble::Failure(failure) => failure,
        };
        if failure.no_tls && self.place.may_be_plain() {
            let known = self.plain.swap(true, Ordering::Relaxed);
            // Another thread has found it out meanwhile; or it is not the registry, but where it redirects to.
            if !known || *failures < self.http.options.retries {
                *failures += u32::from(known);
                return Ok(());
            }
        }
        // Who has never been reached is most likely not there.
        let hopeless = failure.unreached && !self.met.load(Ordering::Relaxed) && *failures > 0;
        if !failure.transient || hopeless || *failures >= self.http.options.retries {
            return Err(Trouble::Failure(failure).error(&self.place.name));
        }
        *failures += 1;
        self.pause(*failures, None)
    }

    /// Waits before another attempt: as long as the server says, else longer and longer.
    pub(crate) fn pause(&self, failures: u32, wanted: Option<Duration>) -> Result<()> {
        let usual = Duration::from_millis(200 << failures.min(6));
        let time = wanted.map_or(usual, |wanted| wanted.min(MOST_WAIT));
        if self.http.link.sleep(time) { Ok(()) } else { Err(Error::Interrupted) }
    }

    /// The URL with the scheme that was found to work.
    fn adapted(&self, uri: &Uri) -> Uri {
        let text = uri.to_string();
        let own = text.strip_prefix("https://").filter(|rest| rest.starts_with(&format!("{}/", self.place.host)));
        match own {
            Some(rest) if self.plain.load(Ordering::Relaxed) => {
                format!("http://{rest}").parse().unwrap_or_else(|_| uri.clone())
            }
            _ => uri.clone(),
        }
    }

    /// What is shown to the registry is shown to nobody else.
    fn for_origin<'a>(&self, uri: &Uri, authorization: Option<&'a str>) -> Option<&'a str> {
        let own = self.uri("").ok().is_some_and(|own| origin(&own) == origin(uri));
        authorization.filter(|_| own)
    }

    /// Finds something new to show after a 401.
    fn renew(&self, answer: Answer, used: Option<&str>, about: &str) -> Result<()> {
        let mut shown = lock(&self.shown);
        if shown.authorization.as_deref() != used {
            // Somebody else has just done it.
            return Ok(());
        }
        if shown.found.is_none() {
            let mut stopped = || self.http.link.stopped();
            let Place { name, repository, .. } = &self.place;
            shown.found = Some(auth::find(name, repository, &self.auth, &self.http.options, &mut stopped)?);
        }
        let credentials = shown.found.as_ref().and_then(|found| found.credentials.clone());
        let challenges = challenges(answer.response.headers());
        let bearer = challenges.iter().find(|one| one.scheme == "bearer" && one.get("realm").is_some());
        let basic = challenges.iter().any(|one| one.scheme == "basic");
        let next = match (bearer, &credentials) {
            (_, Some(Credentials::Bearer(token))) => Some(format!("Bearer {token}")),
            (Some(challenge), _) => {
                drop(answer);
                Some(format!("Bearer {}", self.token(challenge, credentials.as_ref())?))
            }
            (None, Some(Credentials::Basic { user, password })) if basic => Some(Credentials::basic(user, password)),
            _ => None,
        };
        match next {
            // The same once more would lead to the same.
            Some(next) if shown.authorization.as_deref() != Some(&next) => {
                shown.authorization = Some(next);
                Ok(())
            }
            _ => {
                let places = shown.found.as_ref().map(|found| found.places.clone()).unwrap_or_default();
                drop(shown);
                Err(self.refused(credentials.is_some(), &places, about))
            }
        }
    }

    fn unauthorized(&self, answer: Answer, about: &str) -> Error {
        drop(answer);
        let shown = lock(&self.shown);
        let found = shown.found.as_ref();
        let places = found.map(|found| found.places.clone()).unwrap_or_default();
        let some = found.is_some_and(|found| found.credentials.is_some());
        drop(shown);
        self.refused(some, &places, about)
    }

    /// 401 to the end: because of the credentials, or because there are none.
    fn refused(&self, some: bool, places: &[String], about: &str) -> Error {
        let name = &self.place.name;
        let places = places.join(", ");
        let (detail, hint) = if some {
            let hint = format!("the credentials of {places} are wrong, or not enough for this repository");
            (format!("{about}: the credentials are not accepted"), hint)
        } else {
            let hint = format!("{}; the name may be wrong, too", self.log_in());
            (format!("{about}: no credentials for {name} in {places}"), hint)
        };
        Error::Registry { registry: name.clone(), status: Some(401), code: "UNAUTHORIZED".into(), detail, hint }
    }

    /// What gives credentials to this place.
    fn log_in(&self) -> String {
        let name = &self.place.name;
        // What is given with the call is for the registry.
        let or = if self.mirror { "" } else { ", or give auth" };
        format!("log in with `skopeo login {name}` or `docker login {name}`{or}")
    }

    /// A token of access from the server that a challenge names.
    fn token(&self, challenge: &Challenge, credentials: Option<&Credentials>) -> Result<String> {
        let realm = self.realm(challenge)?;
        let mut scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        scopes.extend(challenge.get("scope").filter(|scope| !covered(&self.scopes, scope)));
        let service = challenge.get("service");
        let (method, uri, form, authorization);
        match credentials {
            Some(Credentials::Identity(token)) => {
                let mut pairs = vec![("grant_type", "refresh_token"), ("client_id", "zind"), ("refresh_token", token)];
                pairs.extend(service.map(|service| ("service", service)));
                let all = scopes.join(" ");
                pairs.push(("scope", &all));
                (method, uri, form, authorization) = (Method::POST, realm.clone(), encode(&pairs), None);
            }
            other => {
                let mut pairs: Vec<_> = service.map(|service| ("service", service)).into_iter().collect();
                pairs.extend(scopes.iter().map(|scope| ("scope", *scope)));
                let basic = match other {
                    Some(Credentials::Basic { user, password }) => {
                        pairs.push(("account", user));
                        Some(Credentials::basic(user, password))
                    }
                    _ => None,
                };
                let joint = if realm.query().is_some() { '&' } else { '?' };
                let text = format!("{realm}{joint}{}", encode(&pairs));
                let asked = text.parse().map_err(|_| self.content(format!("the token server {realm} is no URL")))?;
                (method, uri, form, authorization) = (Method::GET, asked, String::new(), basic);
            }
        }
        self.ask_token(method, &uri, form.as_bytes(), authorization.as_deref(), credentials.is_some())
    }

    /// The token server of a challenge, if it can be shown credentials.
    fn realm(&self, challenge: &Challenge) -> Result<Uri> {
        let text = challenge.get("realm").unwrap_or_default();
        let bad = |why: &str| self.content(format!("the token server {:?} {why}", clean(text, 200)));
        let realm: Uri = text.parse().map_err(|_| bad("is no URL"))?;
        let host = realm.host().unwrap_or_default();
        match realm.scheme_str() {
            _ if host.is_empty() || text.contains('@') => Err(bad("is no URL of a server")),
            Some("https") => Ok(realm),
            // What goes there in plain text must have been in plain text before.
            Some("http") if is_loopback(host) || self.place.insecure => Ok(realm),
            Some("http") => Err(bad("would get credentials by plain HTTP")),
            _ => Err(bad("is not http or https")),
        }
    }

    fn ask_token(&self, method: Method, uri: &Uri, form: &[u8], basic: Option<&str>, some: bool) -> Result<String> {
        let host = uri.host().unwrap_or_default();
        let headers = [("content-type", "application/x-www-form-urlencoded".to_owned())];
        let headers = if method == Method::POST { &headers[..] } else { &[] };
        let mut failures = 0;
        loop {
            let ask = Ask {
                method: method.clone(),
                uri: uri.clone(),
                headers,
                authorization: basic,
                payload: payload(&method, form),
                insecure: self.place.insecure,
            };
            let mut answer = match self.http.send(ask) {
                Ok(answer) => answer,
                Err(trouble) => {
                    self.again(trouble, &mut failures)?;
                    continue;
                }
            };
            let status = answer.response.status().as_u16();
            if is_passing(status) && failures < self.http.options.retries {
                failures += 1;
                self.pause(failures, retry_after(&answer.response))?;
                continue;
            }
            if status != 200 {
                let about =
                    if some { "the credentials are not accepted" } else { "it gives no token without credentials" };
                let about = format!("token server {host}: {about}");
                let hint =
                    if some { format!("check user and password for {}", self.place.name) } else { self.log_in() };
                return Err(self.refusal(answer, &about).with_hint(hint));
            }
            let body = match self.read(&mut answer, MOST_TOKEN) {
                Ok(body) => body,
                Err(trouble) => {
                    self.again(trouble, &mut failures)?;
                    continue;
                }
            };
            let value: Option<Value> = serde_json::from_slice(&body).ok();
            let get = |name: &str| value.as_ref().and_then(|value| value.get(name)).and_then(Value::as_str);
            let token = get("token").filter(|token| !token.is_empty()).or_else(|| get("access_token"));
            return match token {
                // What is no header would be an error of another place.
                Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Ok(token.to_owned())
                }
                _ => Err(self.content(format!("the token server {host} answers without a token"))),
            };
        }
    }
}

fn payload<'a>(method: &Method, bytes: &'a [u8]) -> Payload<'a> {
    let with = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if with { Payload::Bytes(bytes) } else { Payload::None }
}

/// All challenges of an answer.
fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers.get_all("www-authenticate").iter().take(8).filter_map(|value| value.to_str().ok());
    texts.flat_map(Challenge::parse).collect()
}

/// A scope that is among those that are asked for anyway: the same object, with actions that are all there.
fn covered(scopes: &[String], wanted: &str) -> bool {
    let Some((object, actions)) = wanted.rsplit_once(':') else { return false };
    scopes
        .iter()
        .filter_map(|scope| scope.rsplit_once(':'))
        .any(|(own, given)| own == object && actions.split(',').all(|action| given.split(',').any(|one| one == action)))
}

/// `application/x-www-form-urlencoded`.
fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:/,*".contains(&byte);
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    pairs.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

/// Statuses that may be another in a moment.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The wait that a server asks for, in seconds; one until a date is not looked at.
pub(crate) fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    text(response.headers(), "retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_are_there_are_not_asked_for_twice() {
        let own = ["repository:a/b:pull,push".to_owned()];
        assert!(covered(&own, "repository:a/b:push,pull"));
        assert!(covered(&own, "repository:a/b:pull"));
        assert!(!covered(&own, "repository:a/b:delete"));
        assert!(!covered(&own, "repository:a:pull"));
        assert!(!covered(&own, ""));
    }

    #[test]
    fn forms_are_escaped() {
        let text = encode(&[("scope", "repository:a/b:pull,push x"), ("account", "ü&=+")]);
        assert_eq!(text, "scope=repository:a/b:pull,push%20x&account=%C3%BC%26%3D%2B");
    }

    #[test]
    fn plain_http_is_for_loopback_or_on_request() {
        for (host, insecure, wanted) in [
            ("localhost:5000", false, true),
            ("127.0.0.1:5000", false, true),
            ("[::1]:5000", false, true),
            ("127.1.2.3", false, true),
            ("r.test:5000", false, false),
            ("localhost.evil.test", false, false),
            ("r.test", true, true),
            ("10.0.0.1:1", false, false),
        ] {
            assert_eq!(Place::new(host, "a", insecure).may_be_plain(), wanted, "{host}");
        }
    }
}
