//! What a caller can ask of a pull or push.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::image::Platform;
use crate::store::Owners;

/// Who asks.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// The user's files, first found first taken: the file of [`RegistryOptions::auth_file`] alone, if there is one; else
    /// `$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json` (`/run/containers/UID/auth.json`),
    /// `$XDG_CONFIG_HOME/containers/auth.json`, `$DOCKER_CONFIG/config.json` (`~/.docker/config.json`), with the credential
    /// helpers that they name. Where they have nothing: nobody.
    #[default]
    Files,
    /// Nobody.
    Anonymous,
    /// A user with a password.
    Basic {
        /// Name of the user.
        user: String,
        /// Password, or access token in its place.
        password: String,
    },
    /// An identity token: what the token server gives tokens of access for.
    Identity(String),
    /// A token of access, sent as it is.
    Bearer(String),
}

/// Secrets are not shown.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::Files => f.write_str("Files"),
            Auth::Anonymous => f.write_str("Anonymous"),
            Auth::Basic { user, .. } => write!(f, "Basic {{ user: {user:?} }}"),
            Auth::Identity(_) => f.write_str("Identity"),
            Auth::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// A place that has the same as a registry, and is asked before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Host and port, and perhaps a path before the repository's: `"mirror:5000/hub"`. No scheme, no user.
    pub location: String,
    /// Spoken to without checking of certificates, by plain HTTP if it has no TLS.
    pub insecure: bool,
}

/// How registries are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// Who asks the registry. Mirrors are not shown what is given here: they have credentials of the files, by their own names, and
    /// none with [`Auth::Anonymous`].
    pub auth: Auth,
    /// The only file to look for credentials in.
    pub auth_file: Option<PathBuf>,
    /// Check certificates. Off: any certificate will do, and a registry without TLS is spoken to by plain HTTP. On (the default),
    /// only a registry at a loopback address is.
    pub tls_verify: bool,
    /// A directory with `*.crt` (authorities, besides those of the system), `*.cert` and `*.key` (the client's own), as in
    /// `/etc/docker/certs.d/HOST:PORT`; or one with directories of such names, as `/etc/docker/certs.d`. Mirrors have only what is
    /// in a directory of their own name. `None`, and for mirrors: those of `~/.config/containers/certs.d`, `/etc/containers/certs.d` and
    /// `/etc/docker/certs.d` for this host.
    pub cert_dir: Option<PathBuf>,
    /// Mirrors by registry: `"docker.io"`; tried in order, and last the registry itself. Only for pulls.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// A proxy as `http://[USER:PASSWORD@]HOST:PORT`. `None`: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the environment.
    pub proxy: Option<String>,
    /// The longest silence of a server, and the longest time for a document.
    pub timeout: Duration,
    /// How often something is tried again that failed for a reason that may pass (5 by default). Data that arrives starts
    /// the count anew.
    pub retries: u32,
    /// The number of layers on their way at the same time: 1 to 16, by default 3.
    pub parallel: usize,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            auth: Auth::Files,
            auth_file: None,
            tls_verify: true,
            cert_dir: None,
            mirrors: BTreeMap::new(),
            proxy: None,
            timeout: Duration::from_secs(30),
            retries: 5,
            parallel: 3,
        }
    }
}

/// When a pull asks the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullPolicy {
    /// If the store has no image of that name.
    Missing,
    /// Always: what the name stands for now. Layers that are there are not fetched again.
    #[default]
    Always,
    /// Never: the image is there, or it is an error.
    Never,
}

impl PullPolicy {
    /// `"missing"`, `"always"`, `"never"`.
    pub const fn name(self) -> &'static str {
        match self {
            PullPolicy::Missing => "missing",
            PullPolicy::Always => "always",
            PullPolicy::Never => "never",
        }
    }

    /// The policy of that name.
    pub fn from_name(name: &str) -> Option<PullPolicy> {
        [PullPolicy::Missing, PullPolicy::Always, PullPolicy::Never].into_iter().find(|policy| policy.name() == name)
    }
}

/// What a pull is told besides the name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PullOptions {
    /// When the registry is asked: by default always, as who says "pull" wants it.
    pub policy: PullPolicy,
    /// The platform to choose from an index, and to demand of the image. `None`: this machine's.
    pub platform: Option<Platform>,
    /// Fetch layers that a registry does not have from the URLs in their descriptors. Off: they are an error.
    pub foreign_layers: bool,
    /// Unpack the layers while they come. Off: at the first start of a container.
    pub unpack: bool,
    /// For whom they are unpacked. `None`: for this process, [`Owners::of_caller`].
    pub owners: Option<Owners>,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            policy: PullPolicy::Always,
            platform: None,
            foreign_layers: false,
            unpack: true,
            owners: None,
            registry: RegistryOptions::default(),
        }
    }
}

/// What a push is told besides image and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PushOptions {
    /// Send blobs in pieces of so many bytes; what was sent is not sent again when the connection breaks. `None`: in one.
    pub chunk_size: Option<u64>,
    /// A repository of the same registry that may have the blobs already: they are mounted from there. `None`: one that the
    /// image has a name in.
    pub mount_from: Option<String>,
    /// More tags for the same image in the same repository.
    pub extra_tags: Vec<String>,
    /// How registries are reached.
    pub registry: RegistryOptions,
}
