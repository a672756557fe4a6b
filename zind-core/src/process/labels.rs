//! Labels of AppArmor and SELinux for a payload.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use zind_init::plan as wire;

use super::plan::Builder;
use crate::error::Result;
use crate::rootfs::ops::c_string;
use crate::security::labels;
use crate::spec::Spec;

impl Builder {
    /// What the launcher writes before it executes the program.
    pub(super) fn labels(&mut self, spec: &Spec) -> Result<()> {
        let all = labels::to_write(spec.apparmor.as_deref(), spec.selinux.as_deref())?;
        if all.is_empty() {
            return Ok(());
        }
        self.open_proc()?;
        let mut list = Vec::new();
        for labels::Label { path, older, text, label } in all {
            let mut put = |text: &str| c_string("apparmor", text.as_ref()).map(|text| self.writer.str(&text));
            list.push(wire::Label {
                path: put(path)?,
                older: older.map_or(Ok(wire::Str(0)), &mut put)?,
                text: put(&text)?,
                label: put(&label)?,
            });
            self.names.labels.push(PathBuf::from(label));
        }
        self.plan.labels = self.writer.list(&list);
        Ok(())
    }
}
