//! Labels that security modules give a program as it is executed: profiles of AppArmor, contexts of SELinux.

use crate::plan::Label;
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys;
use crate::{At, Done};

/// Asks for the labels, for whatever this process and its children execute next.
pub fn set(plan: &PlanFile) -> Done {
    for (index, label) in plan.list(plan.labels).iter().enumerate() {
        let file = open(plan, label).at_index(Step::Label, index)?;
        let taken = sys::write_all(file, plan.text(label.text)).at_index(Step::Label, index).and_then(|()| {
            let mut found = [0u8; 512];
            let length = sys::pread(file, &mut found, 0).at_index(Step::LabelCheck, index)?;
            let is_it = is_label(found.get(..length).unwrap_or(&[]), plan.text(label.label));
            if is_it { Ok(()) } else { Err(sys::EPROTO).at_index(Step::LabelCheck, index) }
        });
        sys::close(file);
        taken?;
    }
    Ok(())
}

/// Through the machine's procfs, beneath it, over no mount (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881): what a root or a mount
/// of the container's has at `/proc` is nothing to it.
fn open(plan: &PlanFile, label: &Label) -> sys::Result<i32> {
    let within = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_MAGICLINKS | sys::RESOLVE_NO_XDEV;
    let one = |path| sys::openat2(plan.proc, plan.str(path), sys::O_RDWR, within);
    match one(label.path) {
        Err(sys::ENOENT) if label.older.0 != 0 => one(label.older),
        other => other,
    }
}

/// What the kernel tells begins with the label; AppArmor adds the mode, SELinux a NUL.
fn is_label(found: &[u8], label: &[u8]) -> bool {
    found.starts_with(label) && matches!(found.get(label.len()), None | Some(0 | b' ' | b'\n'))
}
