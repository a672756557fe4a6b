//! [`Reference`]: how images are named: `registry:port/repository:tag@digest`, and the short forms of it.
//!
//! Source: <https://github.com/distribution/reference>, whose grammar docker, podman and containerd have in common.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use crate::error::{Error, Result};

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names without tag and digest.
const DEFAULT_TAG: &str = "latest";
/// The most bytes of registry and repository together.
const MOST_NAME: usize = 255;
/// The most bytes of a tag.
const MOST_TAG: usize = 128;

/// The name of an image in a registry, in full.
///
/// ```
/// use zind_core::Reference;
///
/// let short = Reference::parse("debian:12").unwrap();
/// assert_eq!(short.to_string(), "docker.io/library/debian:12");
/// let own = Reference::parse("localhost:5000/team/app").unwrap();
/// assert_eq!((own.registry(), own.repository(), own.tag()), ("localhost:5000", "team/app", Some("latest")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name. What is before the first `/` is a registry if it has a dot or a colon or is `localhost`; else the
    /// registry is `docker.io`, and a single word a repository of `library/` there. The tag is `latest` without tag and digest.
    /// Errors: [`Error::Spec`] with the rule that is broken.
    pub fn parse(text: &str) -> Result<Reference> {
        Reference::split(text).map_err(|rule| {
            let shown: String = text.chars().take(300).collect();
            Error::spec("reference", format!("{shown:?} {rule}"))
        })
    }

    fn split(text: &str) -> Result<Reference, String> {
        if text.len() > MOST_NAME + MOST_TAG + 200 {
            return Err("is too long for the name of an image".into());
        }
        if text.contains("://") {
            return Err("has a scheme; a name begins with the registry".into());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|error| format!("has a bad digest: {error}"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path.to_owned()),
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
            registry => registry,
        };
        check_registry(registry)?;
        let repository =
            if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("library/{path}") } else { path };
        check_repository(&repository)?;
        if registry.len() + 1 + repository.len() > MOST_NAME {
            return Err(format!("is too long: registry and repository have at most {MOST_NAME} bytes"));
        }
        let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// Host and perhaps port: `"docker.io"`, `"localhost:5000"`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry: `"library/debian"`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. With a digest it is not looked at by registries.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the manifest is asked for by: the digest if there is one, else the tag.
    pub(crate) fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }
}

/// In full: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse(text)
    }
}

/// What before the first slash is no part of a repository.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A name or an address, and perhaps a port.
pub(crate) fn check_registry(registry: &str) -> Result<(), String> {
    let bad = || Err(format!("has {registry:?} for a registry, which is no host or host:port"));
    let (host, port) = if registry.starts_with('[') {
        match registry.split_once(']') {
            Some((address, rest)) => (&registry[..=address.len()], rest),
            None => return bad(),
        }
    } else {
        registry.find(':').map_or((registry, ""), |at| registry.split_at(at))
    };
    let good_port = match port.strip_prefix(':') {
        Some(port) => port.len() <= 5 && port.parse::<u16>().is_ok_and(|number| number > 0) && !port.starts_with('+'),
        None => port.is_empty(),
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let good_host = match host.strip_prefix('[') {
        Some(rest) => rest.trim_end_matches(']').parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    if good_port && good_host { Ok(()) } else { bad() }
}

/// Words of small letters and digits, joined by `.`, `_`, `__` or hyphens, in parts joined by `/`.
pub(crate) fn check_repository(repository: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    for part in repository.split('/') {
        if part.is_empty() {
            return Err("has an empty part in its repository".into());
        }
        if part.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("has capital letters in its repository".into());
        }
        let joints = part.split(|c: char| c.is_ascii() && plain(c as u8)).filter(|joint| !joint.is_empty());
        let good =
            |joint: &str| joint == "." || joint == "_" || joint == "__" || joint.bytes().all(|byte| byte == b'-');
        let ends = [part.bytes().next(), part.bytes().last()];
        if !joints.clone().all(good) || !ends.into_iter().flatten().all(plain) {
            return Err(format!(
                "has {part:?} in its repository: only small letters and digits, joined by . _ __ or -"
            ));
        }
    }
    Ok(())
}

/// Letters, digits, `_`, `.` and `-`, not one of the last two first.
fn check_tag(tag: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = tag.bytes().next().is_some_and(word);
    if !first || tag.len() > MOST_TAG || !tag.bytes().all(|byte| word(byte) || b".-".contains(&byte)) {
        let shown: String = tag.chars().take(40).collect();
        return Err(format!(
            "has {shown:?} for a tag: 1 to {MOST_TAG} letters, digits, _ . and -, not beginning with . or -"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn short_names_become_full() {
        assert_eq!(full("debian"), "docker.io/library/debian:latest");
        assert_eq!(full("debian:12"), "docker.io/library/debian:12");
        assert_eq!(full("team/app"), "docker.io/team/app:latest");
        assert_eq!(full("docker.io/debian"), "docker.io/library/debian:latest");
        assert_eq!(full("index.docker.io/library/debian:1"), "docker.io/library/debian:1");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("localhost:5000/app"), "localhost:5000/app:latest");
        assert_eq!(full("localhost:5000"), "docker.io/library/localhost:5000");
        assert_eq!(full("quay.test/a/b-c/d__e.f:V1.2-x"), "quay.test/a/b-c/d__e.f:V1.2-x");
        assert_eq!(full("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(full("127.0.0.1:5000/a:1"), "127.0.0.1:5000/a:1");
        assert_eq!(full("HOST/a"), "HOST/a:latest");
        assert_eq!(full("a---b"), "docker.io/library/a---b:latest");
    }

    #[test]
    fn digests_stand_beside_tags_or_alone() {
        let alone = Reference::parse(&format!("r.test/a@{DIGEST}")).unwrap();
        assert_eq!((alone.tag(), alone.target()), (None, DIGEST.to_owned()));
        let both = Reference::parse(&format!("r.test/a:1@{DIGEST}")).unwrap();
        assert_eq!((both.tag(), both.target()), (Some("1"), DIGEST.to_owned()));
        assert_eq!(both.to_string(), format!("r.test/a:1@{DIGEST}"));
        assert_eq!(both, both.to_string().parse().unwrap());
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_rule() {
        let long = "a".repeat(260);
        let tag = format!("a:{}", "t".repeat(129));
        let huge = "a/".repeat(1 << 20);
        for bad in [
            "",
            ":",
            "@",
            "/",
            "a:",
            ":1",
            "a@",
            "a@sha256:12",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "..",
            "../a",
            "a/..",
            "a/../b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            ".a",
            "a b",
            "a\n",
            "a:..",
            "a:-1",
            "a:b/c:d:",
            "http://r.test/a",
            "r.test:0/a",
            "r.test:99999/a",
            "r.test:+1/a",
            "r.test:x/a",
            "-r.test/a",
            "r..test/a",
            "[::1/a",
            "[x]/a",
            "u:p@r.test/a",
            "é",
            "a:é",
            "r.test/a?x=1",
            "r.test/a#x",
            "r.test/%2e%2e/a",
            "\0",
            &long,
            &tag,
            &huge,
        ] {
            let error = Reference::parse(bad).expect_err(&bad.chars().take(40).collect::<String>());
            assert_eq!(error.field(), Some("reference"));
            assert!(error.to_string().len() < 700);
        }
    }
}
