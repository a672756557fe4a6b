//! Kernel parameters of the container's own namespaces: `sysctl(8)`, `linux.sysctl` of OCI.
//!
//! Only what belongs to a namespace is taken: everything else would be the whole machine's. The list is that of the kernel's
//! documentation (`Documentation/admin-guide/sysctl`), which is what Docker and runc allow, too.
#![forbid(unsafe_code)]

use super::{Kind, Spec};
use crate::error::{Error, Result};

/// Parameters of an ipc namespace besides those of message queues: `ipc_namespaces(7)`.
const IPC: [&str; 11] = [
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// Set by `setdomainname(2)`: its file can be written to by root only, the namespace's own name by whoever owns that.
pub(crate) const DOMAINNAME: &str = "kernel/domainname";

/// No value is longer, and the kernel takes no more than a page.
const LONGEST: usize = 4095;

/// The file of a parameter below `/proc/sys`.
///
/// As `sysctl(8)` has it: parts are separated by dots or by slashes, whichever comes first; the other one stands for itself, so
/// `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` are the same.
pub(crate) fn path_of(name: &str) -> Result<String> {
    let bad = |rule: &str| Error::spec("sysctl", format!("{name:?} {rule}"));
    if name.len() > 255 || name.contains(|letter: char| letter.is_control() || letter.is_whitespace()) {
        return Err(bad("is no name of a kernel parameter"));
    }
    let path: String = match name.find(['.', '/']) {
        None => return Err(bad("has no parts: a name is like net.ipv4.ip_forward")),
        Some(first) if name.as_bytes()[first] == b'/' => name.to_owned(),
        Some(_) => name
            .chars()
            .map(|letter| {
                if letter == '.' {
                    '/'
                } else if letter == '/' {
                    '.'
                } else {
                    letter
                }
            })
            .collect(),
    };
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad("has an empty part, \".\" or \"..\" in it"));
    }
    Ok(path)
}

/// The kind of namespace that a parameter belongs to, by its path below `/proc/sys`.
fn kind_of(path: &str) -> Option<Kind> {
    let below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    if below("net") {
        Some(Kind::Net)
    } else if IPC.contains(&path) || below("fs/mqueue") {
        Some(Kind::Ipc)
    } else if path == DOMAINNAME {
        Some(Kind::Uts)
    } else if path.starts_with("user/max_") {
        Some(Kind::User)
    } else {
        None
    }
}

const NEEDS_USER: &str = "needs a new user namespace";

/// The rule about what belongs to a user namespace, once it is known that there is no new one.
pub(crate) fn check_no_user_namespace(spec: &Spec) -> Result<()> {
    let is_its = |name: &&String| path_of(name).is_ok_and(|path| kind_of(&path) == Some(Kind::User));
    match spec.sysctl.keys().find(is_its) {
        Some(name) => Err(Error::spec("sysctl", format!("{name}: {NEEDS_USER}"))),
        None => Ok(()),
    }
}

/// Checks names, values and that the namespaces are the container's.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let mut paths = std::collections::BTreeSet::new();
    for (name, value) in &spec.sysctl {
        let bad = |rule: &str| Err(Error::spec("sysctl", format!("{name}: {rule}")));
        let path = path_of(name)?;
        if value.is_empty() || value.len() > LONGEST || value.contains(['\0', '\n']) {
            return bad("the value must be one line of 1 to 4095 bytes");
        }
        if path == "kernel/hostname" {
            return bad("is what hostname sets");
        }
        let Some(kind) = kind_of(&path) else {
            return bad(
                "belongs to no namespace, so it would change the whole machine; taken are net.*, fs.mqueue.*, user.max_*, \
                 kernel.domainname and System V IPC (kernel.msg*, kernel.sem*, kernel.shm*)",
            );
        };
        if kind == Kind::Uts && spec.domainname.is_some() {
            return bad("is what domainname sets");
        }
        if kind == Kind::Uts && value.len() > 64 {
            return bad("the value must have at most 64 bytes: setdomainname(2)");
        }
        // Whether an ordinary user gets a user namespace is settled later: `check_no_user_namespace`.
        let is_unsaid = kind == Kind::User && !spec.namespaces.contains_key(&kind);
        if !spec.is_new(kind) && !spec.is_joined(kind) && !is_unsaid {
            return bad(&format!("needs a {kind} namespace of the container's own, else it would change the caller's"));
        }
        if kind == Kind::User && spec.is_joined(kind) {
            return bad(NEEDS_USER);
        }
        if !paths.insert(path) {
            return bad("is there twice");
        }
    }
    Ok(())
}

/// The NIS domain name, if it is given as a parameter.
pub(crate) fn domainname(spec: &Spec) -> Option<&String> {
    spec.sysctl.iter().find(|(name, _)| path_of(name).is_ok_and(|path| path == DOMAINNAME)).map(|(_, value)| value)
}

/// The kinds of namespaces that are joined and would be changed.
pub(crate) fn joined(spec: &Spec) -> std::collections::BTreeSet<Kind> {
    let kinds = spec.sysctl.keys().filter_map(|name| kind_of(&path_of(name).ok()?));
    kinds.filter(|kind| spec.is_joined(*kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Source;

    fn refused(spec: &Spec) -> String {
        check(spec).expect_err("this was taken").to_string()
    }

    fn with(name: &str, value: &str) -> Spec {
        let mut spec = Spec::new(["true"]);
        spec.sysctl.insert(name.into(), value.into());
        spec
    }

    #[test]
    fn names_are_those_of_sysctl() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(path_of(name).unwrap(), path);
        }
        for name in
            ["", "net", ".", "/", "net..x", "/net/x", "net/../kernel/x", "net.//.kernel", "net/x/", "net. x", "net.x\0"]
        {
            assert!(path_of(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn only_what_a_namespace_has_is_taken() {
        for name in ["net.core.somaxconn", "kernel.shmmax", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"] {
            check(&with(name, "1")).unwrap_or_else(|error| panic!("{error}"));
        }
        for name in
            ["kernel.core_pattern", "vm.overcommit_memory", "fs.file-max", "fs.mqueue", "kernel.shm", "kernel.pid_max"]
        {
            let text = refused(&with(name, "1"));
            assert!(text.contains(name) && text.contains("whole machine"), "{text}");
        }
        assert!(refused(&with("kernel.hostname", "x")).contains("hostname sets"));
        let limit = with("user.max_user_namespaces", "0");
        check(&limit).unwrap();
        assert!(check_no_user_namespace(&limit).is_err());
        assert!(
            refused(&Spec { namespaces: [(Kind::User, Source::Pid(1))].into(), ..limit }).contains("user namespace")
        );
        for value in ["", "1\n2", "a\0"] {
            assert!(refused(&with("net.core.somaxconn", value)).contains("one line"));
        }
        let mut twice = with("net.core.somaxconn", "1");
        twice.sysctl.insert("net/core/somaxconn".into(), "2".into());
        assert!(refused(&twice).contains("twice"));
        let mut shared = with("net.core.somaxconn", "1");
        shared.namespaces.insert(Kind::Net, Source::Host);
        assert!(refused(&shared).contains("caller's"));
        shared.namespaces.insert(Kind::Net, Source::Pid(1));
        check(&shared).unwrap();
        assert_eq!(joined(&shared).into_iter().collect::<Vec<_>>(), [Kind::Net]);
    }
}
