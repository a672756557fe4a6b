//! From an image to a [`Spec`]: what the image says about its program, where the caller says nothing.
//!
//! The configuration is foreign text: it is looked up and resolved inside the container's own root, like everything there.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Image, Progress, RunConfig};
use crate::error::{Error, Result};
use crate::mount::Mount;
use crate::namespace::idmap;
use crate::process::identity::Caller;
use crate::rootfs::{Overlay, Rootfs};
use crate::spec::{IdMaps, Kind, Source, Spec, User, parse_signal};
use crate::store::{ImageHold, Owners};

/// The image of a start.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) image: Image,
    /// How it is stopped.
    pub(crate) stop_signal: i32,
}

/// Replaces an image as root by its directories, and fills in what the caller left open. The hold is for the container's
/// first process: until it ends, nothing of the image is collected.
pub(crate) fn settle(spec: &mut Spec, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<ImageHold>> {
    let (image, hold) = match &spec.rootfs {
        Rootfs::Image(image) => {
            let image = image.clone();
            if spec.overlay == Overlay::None && !spec.read_only {
                return Err(Error::spec("overlay", "cannot be off for an image: it would write to the store"));
            }
            let owners = owners(spec, Caller::now()?)?;
            let hold = image.store().hold(&image, &owners, &mut Asking(interrupted))?;
            let mut lowers = image.store().lowers(&image, &owners, &mut Asking(interrupted))?;
            spec.rootfs = match (lowers.len(), lowers.pop()) {
                (1, Some(only)) => Rootfs::Path(only),
                (_, last) => Rootfs::Lowers(lowers.into_iter().chain(last).collect()),
            };
            let config = &image.config()?.config;
            let trees = match &spec.rootfs {
                Rootfs::Path(path) => std::slice::from_ref(path),
                Rootfs::Lowers(paths) => paths,
                _ => &[],
            };
            let is_lacking = lacks(config, spec, trees)?;
            if spec.read_only && is_lacking {
                // What is missing is made in memory over the image, before nobody can write there any more.
                (spec.read_only, spec.overlay, spec.sealed) = (false, Overlay::Tmpfs, true);
            }
            (image, Some(hold))
        }
        Rootfs::Layers(layers) => match layers.image()? {
            Some(image) => {
                if spec.read_only && lacks(&image.config()?.config, spec, &layers.trees()?)? {
                    // As above, but they have a place to be written to.
                    (spec.read_only, spec.sealed) = (false, true);
                }
                (image, None)
            }
            None => return no_image(spec),
        },
        _ => return no_image(spec),
    };
    let config = &image.config()?.config;
    apply(config, spec)?;
    let stop_signal = config.stop_signal.as_deref().map(signal).transpose()?.unwrap_or(libc::SIGTERM);
    spec.of_image = true;
    spec.origin = Some(Origin { image, stop_signal });
    Ok(hold)
}

/// Whether the image has a working directory or volumes, or the caller places to mount at, that are not in its trees.
/// Errors: [`Error::Image`] where something else is in the way of what the image has.
fn lacks(config: &RunConfig, spec: &Spec, trees: &[PathBuf]) -> Result<bool> {
    let mut is_lacking = false;
    let volumes = config.volumes.iter().map(|path| ("config, Volumes", path));
    let cwd = Some(("config, WorkingDir", &config.working_dir)).filter(|_| spec.cwd.is_none());
    for (what, path) in volumes.chain(cwd) {
        let path = inside(path);
        if spec.mounts.iter().any(|mount| mount.target() == path)
            || is_of_kernel(&path)
            || path.as_os_str().as_encoded_bytes().contains(&0)
        {
            continue;
        }
        let mut so_far = PathBuf::new();
        for part in path.components().skip(1) {
            so_far.push(part);
            match trees.iter().find_map(|tree| std::fs::symlink_metadata(tree.join(&so_far)).ok()) {
                Some(meta) if meta.is_dir() => {}
                // A link is followed in the container's root only; a device is a deletion.
                None => is_lacking = true,
                Some(meta) if meta.is_symlink() || !meta.is_file() => is_lacking = true,
                Some(_) => {
                    let rule = format!("{} cannot be a directory: /{} is a file", path.display(), so_far.display());
                    return Err(Error::image(what, rule));
                }
            }
            if is_lacking {
                break;
            }
        }
    }
    let is_there = |path: &Path| {
        let below = path.strip_prefix("/").unwrap_or(path);
        let found = trees.iter().find_map(|tree| std::fs::symlink_metadata(tree.join(below)).ok());
        found.is_some_and(|meta| meta.is_dir() || meta.is_file())
    };
    let mut targets = spec.mounts.iter().map(Mount::target).filter(|target| !is_of_kernel(target));
    Ok(is_lacking || targets.any(|target| !is_there(target)))
}

/// As a path of the container.
fn inside(path: &str) -> PathBuf {
    Path::new("/").join(path).components().collect()
}

/// Nothing is made where the kernel's own file systems are mounted.
fn is_of_kernel(path: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|own| path.starts_with(own))
}

/// A function that stops work, as a [`Progress`].
pub(crate) struct Asking<'a>(pub(crate) &'a mut dyn FnMut() -> bool);

impl Progress for Asking<'_> {
    fn interrupted(&mut self) -> bool {
        (self.0)()
    }
}

fn no_image(spec: &Spec) -> Result<Option<ImageHold>> {
    match spec.entrypoint {
        Some(_) => Err(Error::spec("entrypoint", "replaces that of an image, and the root is none")),
        None => Ok(None),
    }
}

/// In which form the container needs the files of an image.
pub(crate) fn owners(spec: &Spec, caller: Caller) -> Result<Owners> {
    let is_new = match spec.namespaces.get(&Kind::User) {
        None => !caller.admin || spec.id_maps != IdMaps::ByPrivilege,
        Some(source) => matches!(source, Source::New),
    };
    if !is_new {
        return Ok(if caller.admin { Owners::Kept } else { Owners::Xattr });
    }
    owners_of_maps(&spec.id_maps, caller)
}

/// The same for the id maps of a new user namespace.
pub(crate) fn owners_of_maps(id_maps: &IdMaps, caller: Caller) -> Result<Owners> {
    // Whose the only id is does not matter: with it, nobody can be told apart.
    let maps = idmap::resolve(id_maps, None, (0, 0), caller.admin)?;
    let count = |maps: &[crate::spec::IdMap]| maps.iter().map(|map| u64::from(map.size)).sum::<u64>();
    Ok(if count(&maps.uid) <= 1 { Owners::Xattr } else { Owners::Mapped { uid: maps.uid, gid: maps.gid } })
}

/// The caller's options win.
pub(crate) fn apply(config: &RunConfig, spec: &mut Spec) -> Result<()> {
    check(config)?;
    program(config, spec);
    if spec.argv.is_empty() {
        return Err(Error::spec("argv", "is empty, and the image names no program"));
    }
    if !spec.clear_env {
        let pairs = config.env.iter().filter_map(|line| line.split_once('=')).filter(|(name, _)| !name.is_empty());
        let pairs = pairs.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        spec.env = pairs.chain(spec.env.drain(..)).collect();
    }
    if spec.user.is_none() && !config.user.is_empty() {
        spec.user = Some(User::Name(config.user.clone()));
    }
    if spec.cwd.is_none() && !config.working_dir.is_empty() {
        let cwd = inside(&config.working_dir);
        if !is_of_kernel(&cwd) {
            spec.make_dirs.push(cwd.clone());
        }
        spec.cwd = Some(cwd);
    }
    for volume in config.volumes.iter().map(|path| inside(path)) {
        if volume.as_path() == Path::new("/") || is_of_kernel(&volume) {
            continue;
        }
        if spec.mounts.iter().any(|mount| mount.target() == volume) {
            continue;
        }
        if spec.sealed {
            spec.make_dirs.push(volume.clone());
        }
        if spec.read_only || spec.sealed {
            // What is meant to be written to can be, with what the image has there.
            spec.mounts.insert(0, Mount::new("tmpfs", None, volume, ["tmpcopyup", "nosuid", "nodev"])?);
        } else {
            spec.make_dirs.push(volume);
        }
    }
    Ok(())
}

/// As `docker run`: arguments replace the image's, and an entrypoint of the caller's replaces both.
fn program(config: &RunConfig, spec: &mut Spec) {
    let texts = |list: &Option<Vec<String>>| -> Vec<OsString> { list.iter().flatten().map(OsString::from).collect() };
    let entrypoint = spec.entrypoint.take();
    if spec.argv.is_empty() && entrypoint.is_none() {
        spec.argv = texts(&config.cmd);
    }
    let entrypoint = entrypoint.unwrap_or_else(|| texts(&config.entrypoint));
    spec.argv.splice(0..0, entrypoint);
}

/// What no program could have been given.
fn check(config: &RunConfig) -> Result<()> {
    let lists = [Some(&config.env), config.entrypoint.as_ref(), config.cmd.as_ref(), Some(&config.volumes)];
    let mut texts = lists.into_iter().flatten().flatten().chain([&config.user, &config.working_dir]);
    match texts.find(|text| text.contains('\0')) {
        Some(text) => Err(Error::image("config", format!("has a NUL byte in {text:?}"))),
        None => Ok(()),
    }
}

fn signal(text: &str) -> Result<i32> {
    parse_signal(text).map_err(|_| Error::image("config, StopSignal", format!("{text:?} is no signal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RunConfig {
        RunConfig {
            user: "web".into(),
            env: vec!["A=1".into(), "B=image".into(), "nonsense".into(), "=x".into()],
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["serve".into()]),
            working_dir: "srv//app/".into(),
            volumes: vec!["/data".into(), "/cache".into()],
            ..RunConfig::default()
        }
    }

    fn argv(spec: &Spec) -> Vec<&str> {
        spec.argv.iter().filter_map(|arg| arg.to_str()).collect()
    }

    #[test]
    fn the_image_fills_in_what_is_open() {
        let mut spec = Spec::new(Vec::<OsString>::new());
        apply(&config(), &mut spec).unwrap();
        assert_eq!(argv(&spec), ["/entry", "serve"]);
        assert_eq!(spec.user, Some(User::Name("web".into())));
        assert_eq!(spec.cwd.as_deref(), Some(Path::new("/srv/app")));
        let expected: Vec<(OsString, OsString)> = vec![("A".into(), "1".into()), ("B".into(), "image".into())];
        assert_eq!(spec.env, expected);
        assert_eq!(spec.make_dirs, [Path::new("/srv/app"), Path::new("/data"), Path::new("/cache")]);
    }

    #[test]
    fn the_callers_options_win() {
        let mut spec = Spec::new(["run"]);
        spec.env = vec![("B".into(), "mine".into())];
        spec.user = Some(User::Ids(5, None));
        spec.cwd = Some("/".into());
        apply(&config(), &mut spec).unwrap();
        assert_eq!(argv(&spec), ["/entry", "run"]);
        assert_eq!(spec.env.last().unwrap().1, "mine");
        assert_eq!((spec.user, spec.cwd), (Some(User::Ids(5, None)), Some("/".into())));
        for (own, given, expected) in [(vec!["/own"], vec![], vec!["/own"]), (vec![], vec!["sh"], vec!["sh"])] {
            let mut spec = Spec::new(given);
            spec.entrypoint = Some(own.into_iter().map(OsString::from).collect());
            apply(&config(), &mut spec).unwrap();
            assert_eq!(argv(&spec), expected);
        }
        let mut spec = Spec::new(["x"]);
        (spec.clear_env, spec.read_only) = (true, true);
        spec.mounts.push(Mount::tmpfs("/data"));
        apply(&config(), &mut spec).unwrap();
        assert!(spec.env.is_empty());
        let targets: Vec<_> = spec.mounts.iter().map(|mount| mount.target().to_owned()).collect();
        assert_eq!(targets, [Path::new("/cache"), Path::new("/data")]);
    }

    #[test]
    fn what_cannot_be_is_an_error_of_the_image() {
        let mut bad = config();
        bad.env.push("X=\0".into());
        assert!(matches!(apply(&bad, &mut Spec::new(["x"])), Err(Error::Image { .. })));
        assert!(matches!(signal("SIGNOT"), Err(Error::Image { .. })));
        let nothing = apply(&RunConfig::default(), &mut Spec::new(Vec::<OsString>::new()));
        assert_eq!(nothing.unwrap_err().field(), Some("argv"));
    }
}
