//! Capabilities and what else loosens or tightens.
#![forbid(unsafe_code)]

use clap::ArgMatches;
use zind_core::{CapSet, Landlock, LandlockPolicy, Profile, Seccomp, Spec};

use crate::arguments::Given;
use crate::failure::{Failure, Result};

pub fn apply(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    spec.privileged = given.is_on("privileged");
    if spec.privileged {
        spec.no_new_privileges = false;
        spec.seccomp = Seccomp::None;
    }
    let added = sets(&given.texts("cap-add"))?;
    let dropped = sets(&given.texts("cap-drop"))?;
    if let Some(added) = added {
        spec.capabilities = Some(added.difference(dropped.unwrap_or(CapSet::EMPTY)));
    } else if let (Some(dropped), true) = (dropped, spec.privileged) {
        spec.capabilities = Some(CapSet::all().difference(dropped));
    }
    landlock(spec, given)?;
    given.texts("security-opt").into_iter().try_for_each(|text| option(spec, text))
}

/// All rules together.
fn landlock(spec: &mut Spec, given: &ArgMatches) -> Result<()> {
    let texts = given.texts("landlock");
    if texts.is_empty() {
        return Ok(());
    }
    if texts.contains(&"none") {
        if texts.len() > 1 {
            return Err(Failure::new("--landlock: none excludes rules"));
        }
        spec.landlock = LandlockPolicy::None;
        return Ok(());
    }
    let mut rules = Landlock::new();
    texts.into_iter().try_for_each(|text| rules.extend(text.as_ref()))?;
    spec.landlock = LandlockPolicy::Rules(rules);
    Ok(())
}

/// All that is named; `docker` and `podman` are what those give.
fn sets(names: &[&str]) -> Result<Option<CapSet>> {
    let words = names.iter().flat_map(|text| text.split(','));
    words.map(set).try_fold(None, |all: Option<CapSet>, set| Ok(Some(all.unwrap_or(CapSet::EMPTY).union(set?))))
}

fn set(name: &str) -> Result<CapSet> {
    match name {
        "docker" => Ok(CapSet::docker()),
        "podman" => Ok(CapSet::podman()),
        name => Ok(CapSet::from_name(name)?),
    }
}

fn option(spec: &mut Spec, text: &str) -> Result<()> {
    let mark = text.find(['=', ':']).unwrap_or(text.len());
    let (name, value) = (&text[..mark], text.get(mark + 1..).unwrap_or_default());
    match (name, value) {
        ("no-new-privileges", "" | "true") => spec.no_new_privileges = true,
        ("no-new-privileges", "false") => spec.no_new_privileges = false,
        ("seccomp", "unconfined") => spec.seccomp = Seccomp::None,
        ("seccomp", "builtin") => spec.seccomp = Seccomp::Default,
        // Nothing is what there is without.
        ("label", "disable") => (spec.selinux, spec.mount_label) = (None, None),
        ("seccomp", file) => spec.seccomp = Seccomp::Profile(Profile::from_file(file)?),
        ("apparmor", profile) if !profile.is_empty() => spec.apparmor = Some(profile.to_owned()),
        ("label", label) => spec.selinux = Some(context(text, label, "label=")?),
        ("mount-label", label) => spec.mount_label = Some(context(text, label, "mount-label=")?),
        ("systempaths", _) => return Err(refuse(text, "--privileged hides nothing")),
        _ => {
            return Err(refuse(
                text,
                "there are no-new-privileges[=false], seccomp=builtin|unconfined|FILE, apparmor=PROFILE, label=CONTEXT, mount-label=CONTEXT",
            ));
        }
    }
    Ok(())
}

/// A whole context of SELinux. Docker takes parts of one, too, and puts them into what the machine's policy says.
fn context(text: &str, label: &str, option: &str) -> Result<String> {
    let parts: Vec<&str> = label.splitn(4, ':').collect();
    if parts.len() < 3 || parts.iter().any(|part| part.is_empty()) {
        let or = if option == "label=" { ", or label=disable" } else { "" };
        return Err(refuse(text, &format!("write the whole context, {option}USER:ROLE:TYPE:LEVEL{or}")));
    }
    Ok(label.to_owned())
}

fn refuse(text: &str, why: &str) -> Failure {
    Failure::new(format!("--security-opt: zind does not have {text:?}")).hint(why)
}
