//! The registry's part of [`crate::fuzzing`].
#![allow(clippy::unwrap_used)]

use ureq::http::{Response, Uri};

use super::challenge::Challenge;
use super::{auth, http};

/// A header, and after a line break the body of an answer.
pub(crate) fn answer(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, body) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    if let Ok(text) = std::str::from_utf8(header) {
        let all = Challenge::parse(text);
        assert!(all.len() < 100);
        all.iter().for_each(|one| assert!(one.get("realm").is_none_or(|realm| realm.len() <= text.len())));
    }
    let (code, words) = http::message(body);
    for said in [code, words].into_iter().flatten() {
        assert!(said.chars().count() <= 300 && !said.contains(char::is_control), "{said:?}");
    }
    for from in ["https://r.test:5000/v2/a/blobs/x?y", "http://127.0.0.1:5000/v2/"].map(Uri::from_static) {
        let Ok(response) = Response::builder().header("Location", header).body(()) else { continue };
        if let Ok(uri) = http::location(&response, &from, false) {
            assert!(matches!(uri.scheme_str(), Some("http" | "https")) && !uri.host().unwrap().is_empty());
            assert!(from.scheme_str() == Some("http") || uri.scheme_str() == Some("https"), "{uri}");
            assert!(!uri.authority().unwrap().as_str().contains('@'), "{uri}");
        }
    }
}

/// A file of credentials. Helpers are not run.
pub(crate) fn credentials(text: &str) {
    for (registry, repository) in [("docker.io", "library/a"), ("r:5000", "a/b"), ("a", "")] {
        let _ = auth::look_up(text, registry, repository);
    }
}
