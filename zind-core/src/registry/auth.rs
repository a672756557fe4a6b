//! Credentials: the files of docker and of the containers tools, and the helper programs that they name.
//!
//! Source: `containers-auth.json(5)`; <https://docs.docker.com/reference/cli/docker/login/>.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use serde_json::{Map, Value};

use super::options::{Auth, RegistryOptions};
use crate::error::{At, Error, IntoErrno, Result, Step};
use crate::process::helper;

/// What a registry or its token server is shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Basic { user: String, password: String },
    Identity(String),
    Bearer(String),
}

impl Credentials {
    /// The value of an `Authorization` header with user and password.
    pub(crate) fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Basic { .. } => "Basic",
            Credentials::Identity(_) => "Identity",
            Credentials::Bearer(_) => "Bearer",
        })
    }
}

/// The outcome of a search.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) credentials: Option<Credentials>,
    /// Where was looked, or where they are from; for messages.
    pub(crate) places: Vec<String>,
}

/// The most that a file of credentials may hold.
const MOST_FILE: u64 = 4 << 20;
/// Helpers ask keyrings, which may ask people.
const HELPER_TIME: Duration = Duration::from_secs(60);

/// Credentials for `registry` (`"docker.io"`, `"host:5000"`) and a repository there. `auth` is who asks there; it is not taken from
/// the options, because those of a mirror are other ones.
pub(crate) fn find(
    registry: &str,
    repository: &str,
    auth: &Auth,
    options: &RegistryOptions,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<Found> {
    let given = |credentials| Ok(Found { credentials, places: vec!["the options of the call".into()] });
    match auth {
        Auth::Files => {}
        Auth::Anonymous => return given(None),
        Auth::Basic { user, password } => {
            return given(Some(Credentials::Basic { user: user.clone(), password: password.clone() }));
        }
        Auth::Identity(token) => return given(Some(Credentials::Identity(token.clone()))),
        Auth::Bearer(token) => return given(Some(Credentials::Bearer(token.clone()))),
    }
    let mut found = Found::default();
    for (path, demanded) in files(options, &|name| std::env::var_os(name).map(PathBuf::from)) {
        let Some(config) = read(&path, demanded)? else { continue };
        found.places.push(path.display().to_string());
        let config = Config { path: &path, config: &config };
        if let Some(credentials) = config.find(registry, repository, interrupted)? {
            return Ok(Found { credentials: Some(credentials), places: vec![path.display().to_string()] });
        }
    }
    if found.places.is_empty() {
        let all = files(options, &|name| std::env::var_os(name).map(PathBuf::from));
        found.places = all.into_iter().map(|(path, _)| format!("{} (not there)", path.display())).collect();
    }
    Ok(found)
}

/// The files, in their order, and whether each has to be there.
fn files(options: &RegistryOptions, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<(PathBuf, bool)> {
    if let Some(path) = &options.auth_file {
        return vec![(path.clone(), true)];
    }
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let home = absolute("HOME");
    let mut all = Vec::new();
    // Named by somebody, but podman and skopeo, too, write it only at the first login.
    all.extend(variable("REGISTRY_AUTH_FILE").filter(|path| !path.as_os_str().is_empty()));
    let run = || PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw()));
    all.push(absolute("XDG_RUNTIME_DIR").map_or_else(run, |dir| dir.join("containers")).join("auth.json"));
    let config = absolute("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    all.extend(config.map(|dir| dir.join("containers/auth.json")));
    let docker = absolute("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    all.extend(docker.map(|dir| dir.join("config.json")));
    all.into_iter().map(|path| (path, false)).collect()
}

/// Reads a file of credentials; `None` if there is none, or none for this user.
fn read(path: &Path, demanded: bool) -> Result<Option<Map<String, Value>>> {
    let mut text = String::new();
    let result = open(path).and_then(|file| file.take(MOST_FILE + 1).read_to_string(&mut text));
    match result {
        Ok(_) => {}
        Err(error) if !demanded => match error.into_errno() {
            Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::EPERM => return Ok(None),
            errno => return Err(Error::sys(Step::ReadAuth, "read", path, errno)),
        },
        Err(error) => return Err(error).at(Step::ReadAuth, "open", path),
    }
    parse(path, &text).map(Some)
}

fn parse(path: &Path, text: &str) -> Result<Map<String, Value>> {
    let bad = |rule: String| Error::sys(Step::ReadAuth, "", path, Errno::EINVAL).with_hint(rule);
    if text.len() as u64 > MOST_FILE {
        return Err(bad(format!("it is larger than {MOST_FILE} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(bad("it holds no JSON object".into())),
        Err(error) => Err(bad(format!("it is no JSON: {error}"))),
    }
}

/// Opens a regular file: a FIFO would wait for ever.
fn open(path: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let fd = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(Errno::EINVAL.into());
    }
    Ok(file)
}

/// What a text says about a repository, without its helpers.
#[cfg(any(test, fuzzing))]
pub(super) fn look_up(text: &str, registry: &str, repository: &str) -> Result<Option<Credentials>> {
    let path = Path::new("auth.json");
    let mut config = parse(path, text)?;
    config.remove("credHelpers");
    config.remove("credsStore");
    Config { path, config: &config }.find(registry, repository, &mut || false)
}

struct Config<'a> {
    path: &'a Path,
    config: &'a Map<String, Value>,
}

impl Config<'_> {
    fn find(
        &self,
        registry: &str,
        repository: &str,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Credentials>> {
        let helpers = self.config.get("credHelpers").and_then(Value::as_object);
        let auths = self.config.get("auths").and_then(Value::as_object);
        for key in keys(registry, repository) {
            if let Some(name) = helpers.and_then(|helpers| lookup(helpers, &key)).and_then(Value::as_str) {
                // A helper for this registry is the answer, also if it has none.
                return self.ask(name, &key, interrupted);
            }
            if let Some(entry) = auths.and_then(|auths| lookup(auths, &key))
                && let Some(credentials) = self.entry(&key, entry)?
            {
                return Ok(Some(credentials));
            }
        }
        match self.config.get("credsStore").and_then(Value::as_str) {
            Some(name) if !name.is_empty() => self.ask(name, registry, interrupted),
            _ => Ok(None),
        }
    }

    /// One value of `auths`. An empty one only says that a helper has the rest.
    fn entry(&self, key: &str, entry: &Value) -> Result<Option<Credentials>> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credentials::Identity(token.to_owned())));
        }
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credentials::Bearer(token.to_owned())));
        }
        if let Some(auth) = text("auth") {
            let bytes = STANDARD.decode(auth.trim().as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let Some((user, password)) = bytes.as_deref().and_then(|text| text.split_once(':')) else {
                let rule = format!("auths.{key}.auth is not the Base64 of USER:PASSWORD");
                return Err(Error::sys(Step::ReadAuth, "", self.path, Errno::EINVAL).with_hint(rule));
            };
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials::Basic { user: user.to_owned(), password }));
        }
        let both = text("username").zip(text("password"));
        Ok(both.map(|(user, password)| Credentials::Basic { user: user.to_owned(), password: password.to_owned() }))
    }

    /// Asks `docker-credential-NAME`.
    fn ask(&self, name: &str, key: &str, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<Credentials>> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            let rule = format!("{name:?} is no name of a credential helper");
            return Err(Error::sys(Step::ReadAuth, "", self.path, Errno::EINVAL).with_hint(rule));
        }
        let program = format!("docker-credential-{name}");
        let server = if key == "docker.io" { "https://index.docker.io/v1/" } else { key };
        let from = |error: Error| match error.errno() {
            Some(Errno::ENOENT) => error.with_hint(format!("{} names it, but it is not in PATH", self.path.display())),
            _ => error,
        };
        let answer =
            helper::ask(&[&program, "get"], &format!("{server}\n"), HELPER_TIME, Step::CredentialHelper, interrupted)
                .map_err(from)?;
        if !answer.exit.success() {
            let said = answer.text.trim();
            if said.starts_with("credentials not found") {
                return Ok(None);
            }
            let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
            let hint = format!("for {server} it ended with {}: {said:?}", answer.exit.returncode());
            return Err(Error::sys(Step::CredentialHelper, "", program, Errno::EIO).with_hint(hint));
        }
        let parsed: Option<Value> = serde_json::from_str(&answer.text).ok();
        let text = |name: &str| parsed.as_ref().and_then(|value| value.get(name)).and_then(Value::as_str);
        match (text("Username"), text("Secret")) {
            (Some("<token>"), Some(token)) => Ok(Some(Credentials::Identity(token.to_owned()))),
            (Some(user), Some(secret)) => {
                Ok(Some(Credentials::Basic { user: user.to_owned(), password: secret.to_owned() }))
            }
            _ => Err(Error::sys(Step::CredentialHelper, "", program, Errno::EBADMSG)
                .with_hint(format!("for {server} it answers no JSON with Username and Secret"))),
        }
    }
}

/// The keys that stand for a repository, the longest first: `host/a/b`, `host/a`, `host`.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let full = format!("{registry}/{repository}");
    let mut rest = full.trim_end_matches('/');
    let mut keys = vec![rest.to_owned()];
    while let Some((head, _)) = rest.rsplit_once('/') {
        keys.push(head.to_owned());
        rest = head;
    }
    keys
}

/// The value of a key, by its letters or by what older programs wrote for it: `https://host/v1/`.
fn lookup<'a>(table: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    if let Some(value) = table.get(key) {
        return Some(value);
    }
    // Only registries have other spellings.
    if key.contains('/') {
        return None;
    }
    table.iter().find(|(name, _)| host_of(name) == key).map(|(_, value)| value)
}

/// The registry that an old key stands for; for a key of a repository, what is no registry.
fn host_of(key: &str) -> &str {
    let host = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2"),
    };
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    fn search(json: &str, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        let config = config(json);
        Config { path: Path::new("/x/auth.json"), config: &config }.find(registry, repository, &mut || false)
    }

    fn user(json: &str, registry: &str, repository: &str) -> String {
        match search(json, registry, repository).unwrap() {
            Some(Credentials::Basic { user, password }) => format!("{user}:{password}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_longest_key_wins() {
        let auth = |text: &str| STANDARD.encode(text);
        let json = format!(
            r#"{{"auths": {{"r:5000": {{"auth": "{}"}}, "r:5000/a": {{"auth": "{}"}}, "r:5000/a/b": {{"auth": "{}"}}}}}}"#,
            auth("one:1"),
            auth("two:2:2"),
            auth("three:3")
        );
        assert_eq!(user(&json, "r:5000", "x"), "one:1");
        assert_eq!(user(&json, "r:5000", "a/c"), "two:2:2");
        assert_eq!(user(&json, "r:5000", "a/b"), "three:3");
        assert_eq!(user(&json, "r:5000", "ab"), "one:1");
        assert_eq!(user(&json, "r", "a/b"), "None");
    }

    #[test]
    fn old_spellings_of_registries_are_found() {
        let auth = STANDARD.encode("u:p");
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "http://registry-1.docker.io"] {
            let json = format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}}}"#);
            assert_eq!(user(&json, "docker.io", "library/debian"), "u:p", "{key}");
        }
        let json = format!(r#"{{"auths": {{"https://quay.test/v2/": {{"auth": "{auth}"}}}}}}"#);
        assert_eq!(user(&json, "quay.test", "a"), "u:p");
        assert_eq!(user(&json, "uay.test", "a"), "None");
    }

    #[test]
    fn tokens_and_empty_entries() {
        let json = r#"{"auths": {"a": {"identitytoken": "I", "auth": "dTo="}, "b": {"registrytoken": "R"}, "c": {}}}"#;
        assert_eq!(search(json, "a", "x").unwrap(), Some(Credentials::Identity("I".into())));
        assert_eq!(search(json, "b", "x").unwrap(), Some(Credentials::Bearer("R".into())));
        assert_eq!(search(json, "c", "x").unwrap(), None);
        assert_eq!(search("{}", "c", "x").unwrap(), None);
    }

    #[test]
    fn a_broken_entry_is_an_error_that_names_file_and_key() {
        let error = search(r#"{"auths": {"a": {"auth": "%%%"}}}"#, "a", "x").unwrap_err().to_string();
        assert!(error.contains("/x/auth.json") && error.contains("auths.a.auth"), "{error}");
        assert!(search(r#"{"credsStore": "../evil"}"#, "a", "x").is_err());
        let error = search(r#"{"credHelpers": {"a": "no-such-helper-xyz"}}"#, "a", "x").unwrap_err();
        assert_eq!((error.step(), error.errno()), (Some(Step::CredentialHelper), Some(Errno::ENOENT)));
    }

    #[test]
    fn files_are_searched_in_order() {
        let variable = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/h")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/run/u")),
            "REGISTRY_AUTH_FILE" => Some(PathBuf::from("/first")),
            _ => None,
        };
        let paths: Vec<_> = files(&RegistryOptions::default(), &variable).into_iter().map(|(path, _)| path).collect();
        let wanted =
            ["/first", "/run/u/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"];
        assert_eq!(paths, wanted.map(PathBuf::from));
        let own = RegistryOptions { auth_file: Some("/own".into()), ..RegistryOptions::default() };
        assert_eq!(files(&own, &variable), [(PathBuf::from("/own"), true)]);
    }

    #[test]
    fn a_file_that_is_none_is_an_error_and_a_missing_one_only_if_named() {
        let dir = std::env::temp_dir().join(format!("zind-test-auth-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("auth.json");
        assert!(read(&path, false).unwrap().is_none());
        assert_eq!(read(&path, true).unwrap_err().errno(), Some(Errno::ENOENT));
        for bad in ["[1]", "{", &"[".repeat(100_000)] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&path, false).unwrap_err().step(), Some(Step::ReadAuth), "{bad:.10}");
        }
        std::fs::write(&path, " \n").unwrap();
        assert!(read(&path, true).unwrap().unwrap().is_empty());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Helpers are found by PATH, which a test must not change for others: the program is called by its path.
    fn helper(script: &str) -> (PathBuf, PathBuf) {
        let number = std::ptr::from_ref(script).addr();
        let dir = std::env::temp_dir().join(format!("zind-test-helper-{}-{number:x}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("docker-credential-test");
        let mut file = File::create(&path).unwrap();
        write!(file, "#!/bin/sh\n{script}\n").unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    fn ask(path: &Path, timeout: Duration) -> Result<helper::Answer> {
        let program = path.to_str().unwrap();
        helper::ask(&[program, "get"], "host:5000\n", timeout, Step::CredentialHelper, &mut || false)
    }

    #[test]
    fn a_helper_reads_the_server_and_answers() {
        let (dir, path) = helper(r#"read server; echo "{\"ServerURL\": \"$server\", \"arg\": \"$1\"}""#);
        let answer = ask(&path, Duration::from_secs(20)).unwrap();
        assert!(answer.exit.success());
        assert_eq!(answer.text.trim(), r#"{"ServerURL": "host:5000", "arg": "get"}"#);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_helper_without_end_is_ended() {
        let (dir, path) = helper("exec sleep 1000");
        let answer = ask(&path, Duration::from_millis(300)).unwrap();
        assert_eq!(answer.exit.kind, crate::ExitKind::Timeout);
        std::fs::remove_dir_all(dir).unwrap();
        let (dir, path) = helper("exec yes");
        assert_eq!(ask(&path, Duration::from_secs(60)).unwrap_err_or_errno(), Some(Errno::EMSGSIZE));
        std::fs::remove_dir_all(dir).unwrap();
    }

    trait ErrorOf {
        fn unwrap_err_or_errno(self) -> Option<Errno>;
    }

    impl ErrorOf for Result<helper::Answer> {
        fn unwrap_err_or_errno(self) -> Option<Errno> {
            self.err().and_then(|error| error.errno())
        }
    }
}
