//! Which domain of Landlock a payload gets.
#![forbid(unsafe_code)]

use zind_init::plan::{self as wire, LandlockPath, LandlockPort};

use super::plan::Builder;
use crate::error::Result;
use crate::isolation::LandlockReport;
use crate::rootfs::ops::c_path;
use crate::security::landlock::{ABSTRACT, LandlockPolicy, SIGNAL};
use crate::spec::{Kind, Source, Spec};

/// What goes with the namespaces that are the host's.
fn usual_scopes(spec: &Spec) -> u64 {
    if spec.privileged || spec.is_low_level() || !spec.no_new_privileges {
        return 0;
    }
    let is_host = |kind| matches!(spec.namespaces.get(&kind), None | Some(Source::Host));
    let scope = |kind, scope| if is_host(kind) { scope } else { 0 };
    scope(Kind::Net, ABSTRACT) | scope(Kind::Pid, SIGNAL)
}

impl Builder {
    /// The domain, and what is told of it.
    pub(super) fn landlock(&mut self, spec: &Spec) -> Result<Option<LandlockReport>> {
        let Some(on) = spec.landlock.enforced(usual_scopes(spec))? else { return Ok(None) };
        let mut paths = Vec::new();
        for (path, access, file_access) in &on.paths {
            let path = self.writer.str(&c_path("landlock", path)?);
            paths.push(LandlockPath { path, pad: 0, access: *access, file_access: *file_access });
        }
        let port = |(access, port): &(u64, u16)| LandlockPort { access: *access, port: u64::from(*port) };
        let ports: Vec<LandlockPort> = on.ports.iter().map(port).collect();
        if on.is_something() {
            self.plan.flags |= wire::LANDLOCK;
        }
        self.plan.landlock = wire::Landlock {
            fs: on.fs,
            net: on.net,
            scoped: on.scoped,
            flags: on.log,
            paths: self.writer.list(&paths),
            ports: self.writer.list(&ports),
        };
        self.names.landlock = on.paths.iter().map(|(path, ..)| path.clone()).collect();
        self.names.has_landlock = on.fs != 0;
        self.names.ports = on.ports.iter().map(|(_, port)| *port).collect();
        Ok(Some(LandlockReport {
            abi: on.abi,
            handled: on.handled(),
            scopes: on.scopes(),
            rules: paths.len() + ports.len(),
            missing: on.missing.clone(),
            is_default: spec.landlock == LandlockPolicy::Default,
        }))
    }
}
