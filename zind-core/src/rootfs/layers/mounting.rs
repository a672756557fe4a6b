//! What a mount of the layers takes, and what a container on them holds.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use super::edit::Edit;
use super::files::{self, Lock};
use super::state::Marks;
use super::{Layers, WORK};
use crate::error::{At, Error, Result, Step};
use crate::namespace::idmap::{self, ReadyMaps};

impl Layers {
    /// The directories of all layers, topmost first.
    pub(crate) fn trees(&self) -> Result<Vec<PathBuf>> {
        let Parts { binds, lower, .. } = self.parts()?;
        let place = |name: &String| {
            let (bind, below) = name.split_once('/').unwrap_or((name, ""));
            binds.iter().find(|(_, known)| known == bind).map(|(path, _)| path.join(below))
        };
        Ok(lower.iter().filter_map(place).collect())
    }

    /// What a mount of the layers takes.
    pub(crate) fn parts(&self) -> Result<Parts> {
        let state = self.state()?;
        let mut binds = vec![(self.dir.clone(), "o".to_owned())];
        let mut lower: Vec<String> = state.chain(state.top).iter().map(|number| format!("o/{number}")).collect();
        for path in &state.shared {
            let (dir, number) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
            let known = binds.iter().find(|(other, _)| other == dir).map(|(_, name)| name.clone());
            let name = known.unwrap_or_else(|| {
                let name = format!("s{}", binds.len());
                binds.push((dir.to_owned(), name.clone()));
                name
            });
            lower.push(format!("{name}/{}", number.to_string_lossy()));
        }
        for (index, path) in state.base.iter().enumerate() {
            binds.push((path.clone(), format!("b{index}")));
            lower.push(format!("b{index}"));
        }
        Ok(Parts { binds, lower, work: format!("o/{WORK}"), volatile: state.volatile })
    }
}

/// Directories of a mount, by short names of zind's own: whatever a path has in it, no option has to quote it.
pub(crate) struct Parts {
    /// What is bound, and under which name.
    pub(crate) binds: Vec<(PathBuf, String)>,
    /// All layers, topmost first; the first is the one that is written to.
    pub(crate) lower: Vec<String>,
    pub(crate) work: String,
    pub(crate) volatile: bool,
}

impl Parts {
    /// The options of the overlay, as names and values.
    pub(crate) fn options(&self, read_only: bool, user: bool) -> Vec<(&'static str, String)> {
        let lower = if read_only { &self.lower[..] } else { &self.lower[1..] };
        let mut options: Vec<_> = lower.iter().map(|name| ("lowerdir+", name.clone())).collect();
        if !read_only {
            options.push(("upperdir", self.lower[0].clone()));
            options.push(("workdir", self.work.clone()));
        }
        // Layers stay plain trees, which can be compared, copied and stacked anew.
        for (name, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "off")] {
            options.push((name, value.to_owned()));
        }
        for (name, is_on) in [("userxattr", user), ("volatile", self.volatile && !read_only)] {
            if is_on {
                options.push((name, String::new()));
            }
        }
        options
    }

    /// The same for mount(2), which takes one page of text; none if it is more. Of the kernels before 6.8, which know
    /// nothing else, this is what the largest number of layers depends on.
    pub(crate) fn text(&self, options: &[(&str, String)]) -> Option<CString> {
        const PAGE: usize = 4096;
        let is_lower = |option: &&(&str, String)| option.0 == "lowerdir+";
        let lower: Vec<&str> = options.iter().filter(is_lower).map(|(_, value)| value.as_str()).collect();
        let others = options.iter().filter(|option| !is_lower(option));
        let words =
            others.map(|(name, value)| if value.is_empty() { (*name).to_owned() } else { format!("{name}={value}") });
        let text = [format!("lowerdir={}", lower.join(":"))].into_iter().chain(words).collect::<Vec<_>>().join(",");
        CString::new(text).ok().filter(|text| text.as_bytes().len() < PAGE)
    }
}

/// The right to run a container on layers.
pub(crate) struct Tenancy(Edit);

impl Tenancy {
    /// Takes the lock.
    pub(crate) fn begin(layers: &Layers) -> Result<Tenancy> {
        Edit::begin(layers).map(Tenancy)
    }

    /// From here on the container alone keeps others away.
    pub(crate) fn into_lock(self) -> Option<Lock> {
        self.0.lock
    }

    /// The directory that is written to.
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.layers.layer(self.0.state.top)
    }

    /// Makes the layers ready for one container with these ids.
    pub(crate) fn furnish(&mut self, user_namespace: bool, maps: Option<&ReadyMaps>) -> Result<()> {
        let Edit { layers, state, .. } = &mut self.0;
        let marks = if user_namespace { Marks::User } else { Marks::Trusted };
        if state.marks.is_some_and(|settled| settled != marks) {
            let (was, is) = if user_namespace { ("without", "with") } else { ("with", "without") };
            return Err(Error::State(format!(
                "the layers in {} were made by containers {was} a user namespace, and this one is {is}: deletions would come undone",
                layers.dir.display()
            )));
        }
        let (uid, gid) = maps.map(|maps| (maps.uid.clone(), maps.gid.clone())).unwrap_or_default();
        if state.marks.is_none() || (&state.uid_map, &state.gid_map) != (&uid, &gid) {
            (state.marks, state.uid_map, state.gid_map) = (Some(marks), uid, gid);
            self.0.commit()?;
        }
        let work = self.0.layers.dir.join(WORK);
        // What an earlier container has left in it is of no use, and in the way of a volatile mount.
        files::remove_tree(&work)?;
        std::fs::DirBuilder::new().mode(0o700).create(&work).at(Step::Layers, "mkdir", &work)?;
        maps.map_or(Ok(()), |maps| let_in(&[&self.0.layers.dir, &work], maps))
    }
}

/// Makes the root of a user namespace the owner of what it has to go through. For an ordinary user it is the same id.
fn let_in(directories: &[&PathBuf], maps: &ReadyMaps) -> Result<()> {
    let (Some(uid), Some(gid)) = (idmap::to_host(&maps.uid, 0), idmap::to_host(&maps.gid, 0)) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    directories.iter().try_for_each(|path| chown(path, Some(uid), Some(gid)).at(Step::Layers, "chown", path))
}

/// Makes the places for changes in a directory of the caller's, for a container with these ids: what cannot write there would
/// get an overlay that cannot be written to.
pub(crate) fn let_into(dir: &Path, maps: &ReadyMaps) -> Result<()> {
    let places = ["upper", WORK].map(|name| dir.join(name));
    places.iter().try_for_each(|path| std::fs::create_dir_all(path).at(Step::Mkdir, "mkdir", path))?;
    let_in(&places.each_ref(), maps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_layers_fit_into_a_page() {
        let lower = (500..1000).map(|number| format!("o/{number}")).collect();
        let parts = Parts { binds: Vec::new(), lower, work: "o/work".to_owned(), volatile: true };
        let options = parts.options(false, true);
        assert!(parts.text(&options).is_some());
        assert_eq!(options.iter().filter(|(name, _)| *name == "lowerdir+").count(), 499);
    }
}
