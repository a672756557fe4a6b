//! Images: the verbs around the store.

pub mod archive;
pub mod list;
pub mod look;
pub mod names;
pub mod transfer;

use zind_core::{Auth, Error, Image, Platform, PullOptions, PullPolicy, Reference, RegistryOptions, Store};

use crate::arguments::Given;
use crate::failure::{Failure, Result};

/// The image in the store that somebody means: by name, as they write it or in full, or by id.
pub fn find(store: &Store, name: &str) -> Result<Image> {
    let mut here = PullOptions::default();
    here.policy = PullPolicy::Never;
    store.get(name, &here, &mut ()).map_err(|error| match error {
        Error::NotFound { what, .. } => Error::NotFound { what, name: name.escape_debug().to_string() }.into(),
        error => error.into(),
    })
}

/// A name in full, as the store keeps it.
pub fn full_name(name: &str) -> Result<String> {
    let reference = Reference::parse(name)?;
    if reference.digest().is_some() {
        return Err(Failure::new(format!("{name}: a name with a digest cannot be given")).hint("write NAME:TAG"));
    }
    Ok(reference.to_string())
}

/// Repository and tag as they are shown: what stands for the usual registry is left away.
pub fn shown(tag: &str) -> (String, String) {
    let short = tag.strip_prefix("docker.io/").unwrap_or(tag);
    let short = short.strip_prefix("library/").unwrap_or(short);
    match short.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (short.to_owned(), "<none>".to_owned()),
    }
}

/// Twelve digits of an id.
pub fn short_id(image: &Image) -> String {
    image.id().hex().chars().take(12).collect()
}

/// `--creds`, `--authfile`, `--cert-dir`, `--tls-verify`.
pub fn registry_options(given: &impl Given) -> Result<RegistryOptions> {
    let mut options = RegistryOptions::default();
    if let Some(text) = given.text("creds") {
        let (user, password) = text.split_once(':').ok_or_else(|| Failure::new("--creds is not USER:PASSWORD"))?;
        options.auth = Auth::Basic { user: user.to_owned(), password: password.to_owned() };
    }
    options.auth_file = given.file("authfile");
    options.cert_dir = given.file("cert-dir");
    options.tls_verify = given.switched("tls-verify").unwrap_or(true);
    Ok(options)
}

/// What a pull is told, but for the policy.
pub fn pull_options(given: &impl Given) -> Result<PullOptions> {
    let mut options = PullOptions::default();
    options.platform = platform(given)?;
    options.registry = registry_options(given)?;
    Ok(options)
}

/// `--platform`.
pub fn platform(given: &impl Given) -> Result<Option<Platform>> {
    Ok(given.text("platform").map(Platform::parse).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_registry_is_not_shown() {
        let pair = |tag| shown(tag);
        assert_eq!(pair("docker.io/library/debian:12"), ("debian".to_owned(), "12".to_owned()));
        assert_eq!(pair("docker.io/a/b:1"), ("a/b".to_owned(), "1".to_owned()));
        assert_eq!(pair("r:5000/a/b:1"), ("r:5000/a/b".to_owned(), "1".to_owned()));
        assert_eq!(pair("r:5000/a"), ("r:5000/a".to_owned(), "<none>".to_owned()));
    }
}
