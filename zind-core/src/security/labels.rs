//! Labels of AppArmor and SELinux: what a program is confined by where the machine has such a module.
//!
//! Source: <https://docs.kernel.org/admin-guide/LSM/index.html>, `proc_pid_attr(5)`.
#![forbid(unsafe_code)]

use std::fs;

use crate::error::{Error, Result};

/// The profile that confines nothing.
pub(crate) const UNCONFINED: &str = "unconfined";

/// A label, where to write it below `/proc`, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) path: &'static str,
    /// Where it is on kernels that do not have `path`.
    pub(crate) older: Option<&'static str>,
    pub(crate) text: String,
    pub(crate) label: String,
}

/// The longest: the launcher reads so much of it again.
const LONGEST: usize = 400;

/// The rules that need no kernel.
pub(crate) fn check(field: &'static str, label: Option<&str>) -> Result<()> {
    match label {
        Some("") => Err(Error::spec(field, "is empty")),
        Some(label) if label.len() > LONGEST => Err(Error::spec(field, format!("is longer than {LONGEST} bytes"))),
        Some(label) if label.contains(char::is_control) => {
            Err(Error::spec(field, format!("{label:?} has a control character")))
        }
        _ => Ok(()),
    }
}

/// Does the kernel confine by profiles of AppArmor?
fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Does the kernel confine by contexts of SELinux? It registers its file system only then.
pub(crate) fn has_selinux() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.split_whitespace().any(|word| word == "selinuxfs"))
}

/// That there is none, for a label that was asked for.
pub(crate) fn no_selinux(option: &'static str, label: &str) -> Error {
    let needs =
        format!("the label {label} takes a kernel with SELinux that is on (lsm=, selinux=1 at boot), and /proc");
    Error::unsupported(option, needs)
}

/// What has to be written for a program with these labels.
///
/// Errors: [`Error::Unsupported`] by the name of the module that the machine does not have.
pub(crate) fn to_write(apparmor: Option<&str>, selinux: Option<&str>) -> Result<Vec<Label>> {
    let mut all = Vec::new();
    // Where nothing is confined, nothing is what was asked for.
    if let Some(profile) = apparmor.filter(|profile| *profile != UNCONFINED || has_apparmor()) {
        if !has_apparmor() {
            let needs = format!(
                "the profile {profile} takes a kernel with AppArmor that is on (lsm=, apparmor=1 at boot), and /sys to be seen"
            );
            return Err(Error::unsupported("apparmor", needs));
        }
        all.push(Label {
            path: "self/attr/apparmor/exec",
            older: Some("self/attr/exec"),
            text: format!("exec {profile}"),
            label: profile.to_owned(),
        });
    }
    if let Some(context) = selinux {
        if !has_selinux() {
            return Err(no_selinux("selinux", context));
        }
        let (text, label) = (context.to_owned(), context.to_owned());
        all.push(Label { path: "self/attr/exec", older: None, text, label });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_its_module_is_an_error_by_its_name() {
        let feature = |result: Result<Vec<Label>>| match result {
            Err(Error::Unsupported { feature, needs }) => format!("{feature}: {needs}"),
            other => format!("{other:?}"),
        };
        if !has_apparmor() {
            assert!(feature(to_write(Some("acme"), None)).starts_with("apparmor: the profile acme takes"));
            assert_eq!(to_write(Some(UNCONFINED), None).unwrap(), []);
        }
        if !has_selinux() {
            assert!(feature(to_write(None, Some("u:r:t:s0"))).starts_with("selinux: the label u:r:t:s0 takes"));
        }
        assert_eq!(to_write(None, None).unwrap(), []);
    }

    #[test]
    fn labels_are_one_line() {
        assert!(check("apparmor", Some("docker-default//&x")).is_ok() && check("apparmor", None).is_ok());
        for wrong in ["", "a\nb", "a\0", &"x".repeat(401)] {
            assert_eq!(check("selinux", Some(wrong)).unwrap_err().field(), Some("selinux"));
        }
    }
}
