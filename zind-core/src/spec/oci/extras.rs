//! The annotations: what OCI has no word for.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::node::{Bytes, Fields, Node, Texts, bytes, wrong};
use super::typed::Typed;
use crate::error::{Error, Result};
use crate::image::json as strict;
use crate::spec::Spec;

/// What the names of zind's own begin with.
const OWN: &str = "org.zind.";
/// The version of their meaning.
const VERSION: &str = "1";

/// What is written beside OCI's fields.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) texts: Texts,
    extras: BTreeMap<&'static str, Value>,
}

impl Out {
    pub(super) fn extra(&mut self, name: &'static str, value: Value) {
        self.extras.insert(name, value);
    }

    pub(super) fn typed<T: Typed>(&mut self, name: &'static str, value: &T) {
        self.extra(name, value.write());
    }

    /// All annotations, the caller's too.
    pub(super) fn annotations(mut self, others: &BTreeMap<String, String>) -> Result<Value> {
        if !self.texts.0.is_empty() {
            self.extra("bytes", json!(self.texts.0));
        }
        let mut all = Map::new();
        for (name, text) in others {
            if name.starts_with(OWN) {
                return Err(Error::spec("annotations", format!("{name:?} is a name of zind's own")));
            }
            all.insert(name.clone(), json!(text));
        }
        all.insert(format!("{OWN}version"), json!(VERSION));
        for (name, value) in self.extras {
            all.insert(format!("{OWN}{name}"), json!(value.to_string()));
        }
        Ok(Value::Object(all))
    }
}

/// What is read beside OCI's fields.
#[derive(Debug)]
pub(super) struct In {
    pub(super) bytes: Bytes,
    extras: Fields,
}

impl In {
    /// Takes the annotations apart: zind's own, and others.
    pub(super) fn of(annotations: Fields, others: &mut BTreeMap<String, String>) -> Result<In> {
        let mut extras = Map::new();
        let mut version = None;
        for (name, node) in annotations.rest() {
            let path = node.path.clone();
            let text = node.text()?;
            match name.strip_prefix(OWN) {
                None => drop(others.insert(name, text)),
                Some("version") => version = Some(text),
                Some(own) => {
                    let value = strict::strict(&text).map_err(|error| wrong(&path, format!("is no JSON: {error}")))?;
                    extras.insert(own.to_owned(), value);
                }
            }
        }
        let path = format!("annotations.{OWN}version");
        match version.as_deref() {
            Some(VERSION) => {}
            None if extras.is_empty() => {}
            Some(other) => return Err(wrong(&path, format!("{other:?} is unknown; this knows {VERSION}"))),
            None => return Err(wrong(&path, format!("is missing; add it with {VERSION:?}"))),
        }
        let own = format!("annotations.{}", OWN.trim_end_matches('.'));
        let mut extras = Node { path: own, value: Value::Object(extras) }.fields()?;
        let bytes = extras.take("bytes").map(bytes).transpose()?.unwrap_or_default();
        Ok(In { bytes, extras })
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        self.extras.take_any(name)
    }

    pub(super) fn typed<T: Typed>(&mut self, name: &str) -> Result<Option<T>> {
        self.take(name).map(T::read).transpose()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        if let Some(path) = self.bytes.0.keys().next() {
            return Err(wrong("annotations", format!("org.zind.bytes: there is no text at {path:?}")));
        }
        self.extras.end()
    }
}

macro_rules! fields {
    ($($field:ident),* $(,)?) => {
        /// Writes what differs from what a document without annotations means.
        pub(super) fn write(spec: &Spec, out: &mut Out) {
            let usual = Spec::of_oci();
            $({
                let value = spec.$field.write();
                if value != usual.$field.write() {
                    out.extra(stringify!($field), value);
                }
            })*
        }

        pub(super) fn read(spec: &mut Spec, from: &mut In) -> Result<()> {
            $(if let Some(node) = from.take(stringify!($field)) {
                spec.$field = Typed::read(node)?;
            })*
            Ok(())
        }

        /// Each field of a [`Spec`] has its place, here or in a field of OCI: one that is new does not build without.
        #[allow(dead_code)]
        fn every_field_has_a_place(spec: Spec) {
            let Spec {
                $($field: _,)*
                // Refused, if they hold a descriptor.
                pass_fds: _, cgroup: _,
                // process.rs
                argv: _, env: _, cwd: _, user: _, groups: _, umask: _, rlimits: _, oom_score_adj: _, nice: _, scheduler: _,
                capabilities: _, ambient: _, cap_sets: _, no_new_privileges: _, apparmor: _, selinux: _, terminal: _, console_size: _,
                // mod.rs
                rootfs: _, read_only: _, hostname: _, domainname: _, hooks: _, annotations: _,
                // mounts.rs
                mounts: _, system_mounts: _,
                // linux.rs
                devices: _, namespaces: _, time_offsets: _, id_maps: _, personality: _, resources: _, cgroup_parent: _, sysctl: _, mount_label: _,
            } = spec;
        }
    };
}

fields! {
    argv0, clear_env, inherit_env, keep_env, entrypoint, of_image, origin, make_dirs, sealed, overlay, tmpfs_size, console,
    mount_proc, binfmt, chroot, directories, propagation, pins, setgroups, owner, stdin, stdout, stderr, session, pdeathsig,
    ptrace, keep_caps, privileged, seccomp, violations, landlock, keyring, init, die_with_owner, forward_signals, timeout, require,
}
