//! Kernel parameters of the namespaces that we are in.

use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys;
use crate::{At, Done};

/// Through the machine's procfs, which no root directory or mount of a container's can stand in for (CVE-2025-52881): whose
/// parameters its files are is told by the namespaces of who opens them.
pub fn write(plan: &PlanFile) -> Done {
    for (index, parameter) in plan.list(plan.sysctls).iter().enumerate() {
        set(plan, plan.str(parameter.path), plan.text(parameter.value)).at_index(Step::Sysctl, index)?;
    }
    Ok(())
}

fn set(plan: &PlanFile, path: sys::CStr, value: &[u8]) -> sys::Result<()> {
    let within = sys::RESOLVE_BENEATH | sys::RESOLVE_NO_SYMLINKS | sys::RESOLVE_NO_XDEV;
    let file = sys::openat2(plan.proc, path, sys::O_WRONLY, within)?;
    let result = sys::write_all(file, value);
    sys::close(file);
    result
}
