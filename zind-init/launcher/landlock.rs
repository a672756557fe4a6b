//! Landlock: a domain of the payload's own, in which only what its rules name can be reached.

use core::sync::atomic::{AtomicI32, Ordering};

use crate::plan::{LANDLOCK, LandlockPath};
use crate::planfile::PlanFile;
use crate::step::Step;
use crate::sys::{self, AT_FDCWD};
use crate::{At, Done};

/// The set of rules, between [`make`] and [`restrict`]: in two processes, one forked from the other.
static RULESET: AtomicI32 = AtomicI32::new(-1);

/// Makes the set of rules, while we may look everywhere. In the payload's root: the same paths as the payload will see.
pub fn make(plan: &PlanFile) -> Done {
    if !plan.has(LANDLOCK) {
        return Ok(());
    }
    let rules = &plan.landlock;
    let set = sys::landlock_create_ruleset(&[rules.fs, rules.net, rules.scoped]).at(Step::Landlock)?;
    for (index, rule) in plan.list(rules.paths).iter().enumerate() {
        // Never through `/proc/self/fd` and its like, which could lead out of the root (CVE-2024-21626).
        let place = sys::openat2(AT_FDCWD, plan.str(rule.path), sys::O_PATH, sys::RESOLVE_NO_MAGICLINKS)
            .at_index(Step::LandlockPath, index)?;
        let added = add(set, place, rule);
        sys::close(place);
        added.at_index(Step::LandlockRule, index)?;
    }
    for (index, rule) in plan.list(rules.ports).iter().enumerate() {
        sys::landlock_add_port(set, rule.access, rule.port).at_index(Step::LandlockPort, index)?;
    }
    RULESET.store(set, Ordering::Relaxed);
    Ok(())
}

fn add(set: i32, place: i32, rule: &LandlockPath) -> sys::Result<()> {
    let access = if sys::fstat(place)?.is_dir() { rule.access } else { rule.file_access };
    if access == 0 {
        // Nothing of it means anything here, but the path is there.
        return Ok(());
    }
    sys::landlock_add_path(set, access, place).map(drop)
}

/// Enters the domain. Without `no_new_privs` that takes CAP_SYS_ADMIN.
pub fn restrict(plan: &PlanFile) -> Done {
    if !plan.has(LANDLOCK) {
        return Ok(());
    }
    let set = RULESET.load(Ordering::Relaxed);
    sys::landlock_restrict_self(set, plan.landlock.flags).at(Step::Landlock)?;
    sys::close(set);
    Ok(())
}
