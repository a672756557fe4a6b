//! Setters: capabilities, the filter, and what else keeps the payload in.

use std::ffi::c_char;
use std::sync::Arc;

use zind_core::{CapSet, Error, Landlock, LandlockPolicy, Profile, Seccomp};

use super::{set, zind_spec};
use crate::error::{zind_error, zind_status};
use crate::guard::{Failure, Outcome};
use crate::strings::{bytes, duplicate, optional_list, optional_text, text};

/// Capabilities of the payload.
/// names: "CAP_NET_RAW", "net_raw", "ALL", an array that ends with NULL; NULL for the default, which is none, or
/// unchanged at the low level. Returns also ZIND_STATUS_UTF8 or _SPEC for a name that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_capabilities(
    spec: *mut zind_spec,
    names: *const *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let utf8 = |name: &std::ffi::OsStr| name.to_str().map(str::to_owned).ok_or(Failure::Utf8("capabilities"));
            let names = optional_list(names).map(|names| names.into_iter().map(utf8).collect::<Outcome<Vec<_>>>());
            spec.capabilities = names.transpose()?.map(CapSet::from_names).transpose()?;
            spec.cap_sets = None;
            Ok(())
        })
    }
}

/// An ambient capability. Returns also ZIND_STATUS_UTF8 or _SPEC for a name that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_ambient(
    spec: *mut zind_spec,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let one = CapSet::from_name(text(name, "name")?)?;
            match &mut spec.cap_sets {
                Some(sets) => sets.ambient = sets.ambient | one,
                None => spec.ambient = spec.ambient | one,
            }
            Ok(())
        })
    }
}

/// Keep the capabilities of a new user namespace across the execution, as ambient ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_keep_caps(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.keep_caps = on;
            Ok(())
        })
    }
}

/// All capabilities, no filter, nothing hidden.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_privileged(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.privileged = on;
            spec.cap_sets = spec.cap_sets.filter(|_| !on);
            Ok(())
        })
    }
}

/// No set-uid program and no file capability has any effect. On for containers, off for the low level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_no_new_privileges(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.no_new_privileges = on;
            Ok(())
        })
    }
}

/// The system call filter.
/// filter: "default" for zind's own, "none" for none; a profile as OCI or Docker writes it, either its JSON, which begins with
/// {, or the path of a file with it, which has a slash; or "learn": no filter, but every call is noted, for
/// zind_process_learned_json().
/// Returns also ZIND_STATUS_UTF8, _SPEC for another, and with the name of what is unknown in a profile, _SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_seccomp(
    spec: *mut zind_spec,
    filter: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.seccomp = match text(filter, "filter")? {
                "default" => Seccomp::Default,
                "none" => Seccomp::None,
                "learn" => Seccomp::Learn,
                json if json.trim_start().starts_with('{') => Seccomp::Profile(Profile::from_json(json)?),
                path if path.contains('/') => Seccomp::Profile(Profile::from_file(path)?),
                other => {
                    let rule = format!("{other:?} is neither default, none nor learn, and neither JSON nor a path");
                    return Err(Error::spec("seccomp", rule).into());
                }
            };
            Ok(())
        })
    }
}

/// Tell what the filter refuses, as it does: zind_process_violations(). Off by default. A thread of this process answers each
/// refused call then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_violations(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.violations = on;
            Ok(())
        })
    }
}

/// Landlock, as a further wall inside of the container; it holds for further programs in it, too.
/// rules: "default" for what goes with the host's namespaces, which is nothing where there are none of those; "none" for none;
/// "refuse" for a set of rules that lets nothing pass; or rules as `zind run --landlock` takes them: "rox=/usr,rw=/work,connect=443".
/// What Landlock handles is refused but for what a rule lets pass. It replaces what was set or added before.
/// Returns also ZIND_STATUS_SPEC (field "landlock") with the word that is wrong. What this kernel lacks of it, and a path that is
/// missing in the container, is told at the start: ZIND_STATUS_UNSUPPORTED, ZIND_STATUS_SYS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_landlock(
    spec: *mut zind_spec,
    rules: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.landlock = match text(rules, "rules")? {
                "default" => LandlockPolicy::Default,
                "none" => LandlockPolicy::None,
                "refuse" => LandlockPolicy::Rules(Landlock::new()),
                rules => LandlockPolicy::Rules(Landlock::parse(rules)?),
            };
            Ok(())
        })
    }
}

/// Adds a rule of Landlock's about a path of the container, which may have any bytes in it. Without rules before, everything else is
/// refused from here on.
/// rights: "read", "write" and "execute", which are sets, "ioctl_dev" and the kernel's other names ("make_dir",
/// "LANDLOCK_ACCESS_FS_MAKE_DIR"), joined by +. path: absolute; it has to be there when the container starts.
/// Returns also ZIND_STATUS_UTF8 or _SPEC for a right that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_add_landlock_path(
    spec: *mut zind_spec,
    rights: *const c_char,
    path: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let before = match &spec.landlock {
                LandlockPolicy::Rules(rules) => rules.clone(),
                _ => Landlock::new(),
            };
            spec.landlock = LandlockPolicy::Rules(before.allow(bytes(path, "path")?, text(rights, "rights")?)?);
            Ok(())
        })
    }
}

/// The profile of AppArmor that confines the payload, and further programs in the container.
/// profile: the name of one that is loaded; "unconfined" for none, which is fine without AppArmor; NULL for whatever the caller's
/// own says. The start fails with ZIND_STATUS_UNSUPPORTED on a machine without AppArmor. Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_apparmor(
    spec: *mut zind_spec,
    profile: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.apparmor = optional_text(profile, "profile")?.map(str::to_owned);
            Ok(())
        })
    }
}

/// The context of SELinux that the payload runs in, and further programs in the container.
/// context: "user:role:type:level"; NULL for what the policy says. The start fails with ZIND_STATUS_UNSUPPORTED on a machine
/// without SELinux. Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_selinux(
    spec: *mut zind_spec,
    context: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.selinux = optional_text(context, "context")?.map(str::to_owned);
            Ok(())
        })
    }
}

/// The context of SELinux that all files have of what is mounted new for the container: the overlay of its root, /dev, a tmpfs.
/// context: "user:role:type:level"; NULL for what the policy says. The start fails with ZIND_STATUS_UNSUPPORTED on a machine
/// without SELinux. Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_mount_label(
    spec: *mut zind_spec,
    context: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.mount_label = optional_text(context, "context")?.map(str::to_owned);
            Ok(())
        })
    }
}

/// A session keyring of its own. On for containers, off for the low level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_keyring(
    spec: *mut zind_spec,
    on: bool,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.keyring = on;
            Ok(())
        })
    }
}

/// A kernel parameter of the container's own namespaces, set before the payload is there.
/// name: as in sysctl(8), "net.ipv4.ip_forward": net.*, fs.mqueue.*, kernel.msg*, kernel.sem*, kernel.shm*, kernel.domainname, and
/// user.max_* of a new user namespace. value: one line; NULL forgets the parameter. What belongs to the whole machine, or to a
/// namespace of the caller's, is refused at the start (ZIND_STATUS_SPEC, field "sysctl"). Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_sysctl(
    spec: *mut zind_spec,
    name: *const c_char,
    value: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            let name = text(name, "name")?;
            match optional_text(value, "value")? {
                Some(value) => drop(spec.sysctl.insert(name.into(), value.into())),
                None => drop(spec.sysctl.remove(name)),
            }
            Ok(())
        })
    }
}

/// Put the payload into this control group (v2) as it is born.
/// fd: an open directory below /sys/fs/cgroup, borrowed; the spec keeps a duplicate. -1 for the caller's group.
/// Returns also ZIND_STATUS_SYS (EBADF).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_set_cgroup_fd(
    spec: *mut zind_spec,
    fd: i32,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.cgroup = if fd == -1 { None } else { Some(Arc::new(duplicate(fd)?)) };
            Ok(())
        })
    }
}

/// The start fails with ZIND_STATUS_UNSUPPORTED unless this part of the isolation is in force.
/// name: a namespace's kind, "seccomp", "capabilities", "no_new_privileges", "network", "read_only" and the others that
/// zind_process_isolation_json() lists as "in_force". Returns also ZIND_STATUS_UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn zind_spec_require(
    spec: *mut zind_spec,
    name: *const c_char,
    err: *mut *mut zind_error,
) -> zind_status {
    // SAFETY: the header's demand.
    unsafe {
        set(spec, err, |spec| {
            spec.require.push(text(name, "name")?.into());
            Ok(())
        })
    }
}
