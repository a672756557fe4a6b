//! The label of SELinux that all files of a mount have: OCI `linux.mountLabel`, the mount option `context`.
//!
//! Only what is new in the container gets it: what a bind shows has its labels already. Source: `mount(8)`,
//! `selinux_set_mnt_opts()` in the kernel's security/selinux/hooks.c.
#![forbid(unsafe_code)]

use std::ffi::CString;

use zind_init::plan::FsKind;

use super::ops::Op;
use crate::error::{Error, Result};
use crate::security::labels;

/// The policy says of each of their files what it is, or (`mqueue`) the kernel has mounted them already, without.
const LABELLED_BY_POLICY: [&[u8]; 6] = [b"proc", b"sysfs", b"mqueue", b"cgroup", b"cgroup2", b"binfmt_misc"];

/// The only ones to which the kernel gives it in a user namespace.
const IN_USER_NAMESPACES: [&[u8]; 4] = [b"tmpfs", b"ramfs", b"devpts", b"overlay"];

/// A caller's mount that has one of these is labelled as that says.
const OPTIONS: [&[u8]; 4] = [b"context", b"fscontext", b"defcontext", b"rootcontext"];

/// Options of an older interface are one page.
const PAGE: usize = 4096;

/// The rules that need no kernel.
pub(crate) fn check(label: Option<&str>) -> Result<()> {
    labels::check("mount_label", label)?;
    match label {
        // It stands in quotes among options, for its commas; contexts have neither.
        Some(label) if label.contains(['"', '\\']) => {
            Err(Error::spec("mount_label", format!("{label:?} has a quote or a backslash")))
        }
        _ => Ok(()),
    }
}

/// Gives it to the mounts that are new. Errors: [`Error::Unsupported`] on a machine without SELinux.
pub(crate) fn put(ops: &mut [Op], label: &str, user_namespace: bool) -> Result<()> {
    if !labels::has_selinux() {
        return Err(labels::no_selinux("mount_label", label));
    }
    give(ops, label, user_namespace);
    Ok(())
}

fn give(ops: &mut [Op], label: &str, user_namespace: bool) {
    for op in ops.iter_mut().filter(|op| may_have(op, user_namespace) && !has_one(op)) {
        op.data.extend([b"context\0", label.as_bytes(), b"\0"].concat());
        op.text = op.text.take().and_then(|text| with_label(&text, label));
    }
}

fn may_have(op: &Op, user_namespace: bool) -> bool {
    let file_system = match op.kind {
        FsKind::Stage => b"tmpfs",
        FsKind::Mount => op.source.as_deref().unwrap_or_default().to_bytes(),
        _ => return false,
    };
    if user_namespace { IN_USER_NAMESPACES.contains(&file_system) } else { !LABELLED_BY_POLICY.contains(&file_system) }
}

fn has_one(op: &Op) -> bool {
    op.data.split(|byte| *byte == 0).step_by(2).any(|name| OPTIONS.contains(&name))
}

/// The options in one text, where a comma of the label's is no end.
fn with_label(text: &CString, label: &str) -> Option<CString> {
    let comma: &[u8] = if text.is_empty() { b"" } else { b"," };
    let text = [text.to_bytes(), comma, b"context=\"", label.as_bytes(), b"\""].concat();
    CString::new(text).ok().filter(|text| text.as_bytes().len() < PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::dev;

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    /// The data and the text of an operation with the label.
    fn given(op: Op, user_namespace: bool) -> (Vec<u8>, Option<String>) {
        let mut ops = [op];
        give(&mut ops, LABEL, user_namespace);
        let [op] = ops;
        (op.data, op.text.map(|text| text.into_string().unwrap()))
    }

    fn mount(file_system: &std::ffi::CStr, options: &[(&str, &str)]) -> Op {
        Op::mount(file_system, c"/x", options, 0)
    }

    #[test]
    fn the_option_stands_behind_the_others_for_both_interfaces() {
        let pair = format!("context\0{LABEL}\0");
        let (data, text) = given(mount(c"tmpfs", &[("mode", "0755"), ("size", "64k")]), false);
        assert_eq!(data, format!("mode\x000755\0size\x0064k\0{pair}").into_bytes());
        assert_eq!(text.unwrap(), format!("mode=0755,size=64k,context=\"{LABEL}\""));
        let (data, text) = given(mount(c"tmpfs", &[]), true);
        assert_eq!((data, text.unwrap()), (pair.clone().into_bytes(), format!("context=\"{LABEL}\"")));
        // Options that cannot be told in a text are told by none.
        let (data, text) = given(mount(c"overlay", &[("lowerdir", "a,b")]), false);
        assert_eq!((data, text), (format!("lowerdir\0a,b\0{pair}").into_bytes(), None));
        let stage = Op { data: b"mode\x000755\0".to_vec(), ..Op::new(FsKind::Stage, c"/") };
        assert_eq!(given(stage, false).0, format!("mode\x000755\0{pair}").into_bytes());
        let full = "x".repeat(PAGE - LABEL.len());
        assert_eq!(given(mount(c"overlay", &[("lowerdir", &full)]), false).1, None);
    }

    #[test]
    fn what_the_kernel_or_the_policy_labels_stays_without() {
        let is_given = |op: Op, user_namespace| given(op, user_namespace).0.ends_with(b"s0:c1,c2\0");
        for (file_system, outside, inside) in [
            (c"tmpfs", true, true),
            (c"ramfs", true, true),
            (c"devpts", true, true),
            (c"overlay", true, true),
            (c"hugetlbfs", true, false),
            (c"ext4", true, false),
            (c"proc", false, false),
            (c"sysfs", false, false),
            (c"mqueue", false, false),
            (c"cgroup", false, false),
            (c"cgroup2", false, false),
        ] {
            let told = [false, true].map(|user_namespace| is_given(mount(file_system, &[]), user_namespace));
            assert_eq!(told, [outside, inside], "{file_system:?}");
        }
        assert!(!is_given(Op::bind(c"tmpfs", c"/x"), false) && !is_given(Op::mkdir(c"tmpfs", 0o755), false));
        for name in ["context", "rootcontext"] {
            let own = [("size", "1m"), (name, "u:r:t:s0")];
            assert_eq!(given(mount(c"tmpfs", &own), false).0, mount(c"tmpfs", &own).data);
        }
        // A value is no name.
        assert!(is_given(mount(c"tmpfs", &[("x", "context")]), false));
    }

    #[test]
    fn a_dev_of_its_own_gets_it_once() {
        let mut ops = dev::with_nodes("d", true);
        give(&mut ops, LABEL, false);
        let has_it = |op: &&Op| op.data.windows(7).any(|bytes| bytes == b"context");
        let labelled: Vec<_> = ops.iter().filter(has_it).map(|op| op.path.clone()).collect();
        assert_eq!(labelled, [c"d/".to_owned()]);
        let before = ops.iter().map(|op| op.data.clone()).collect::<Vec<_>>();
        give(&mut ops, "u:r:t:s0", false);
        assert_eq!(ops.iter().map(|op| op.data.clone()).collect::<Vec<_>>(), before);
    }

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        assert!(check(Some(LABEL)).is_ok() && check(None).is_ok());
        for wrong in ["", "a\0", "a\nb", "a\",size=1", "a\\", &"x".repeat(401)] {
            assert_eq!(check(Some(wrong)).unwrap_err().field(), Some("mount_label"), "{wrong:?}");
        }
    }

    #[test]
    fn without_selinux_it_is_refused_by_its_name() {
        if labels::has_selinux() {
            return eprintln!("skipped: SELinux is on");
        }
        let mut ops = vec![mount(c"tmpfs", &[])];
        let Err(Error::Unsupported { feature, needs }) = put(&mut ops, LABEL, false) else { panic!("it was given") };
        assert_eq!(feature, "mount_label");
        assert!(needs.starts_with(&format!("the label {LABEL} takes")), "{needs}");
        assert!(ops[0].data.is_empty());
    }
}
