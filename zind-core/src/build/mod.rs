//! [`Builder`]: an image from another by steps, of which only those run that have to.
//!
//! Each step has a key: a digest of what the step is (for files that are copied in, of their content) and of what the steps
//! before it made. `build/` of the store has a file per key that says which layer the step made. A layer that is not there any
//! more, or a file that is none of these, is no more than a step that runs again.
#![forbid(unsafe_code)]

pub(crate) mod cache;
mod tree;
mod workspace;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use cache::collect;
use cache::{Cache, Key, Record};
use workspace::Workspace;

use crate::error::{Error, Result};
use crate::image::commit::{self, now};
use crate::image::progress::asked;
use crate::image::{
    CommitOptions, Descriptor, Digest, History, Image, ImageConfig, Progress, ProgressEvent, ProgressKind, RunConfig,
    apply,
};
use crate::mount::Mount;
use crate::process::Command;
use crate::process::identity::Caller;
use crate::security::capabilities::{self, CapSet};
use crate::spec::{IdMaps, Kind, Spec, Stdio, User};
use crate::store::Store;

/// A description of an image: what it is made from, and the steps. Nothing happens before [`Builder::commit`].
///
/// ```no_run
/// # fn main() -> Result<(), zind_core::Error> {
/// use zind_core::{Builder, CommitOptions, Store};
///
/// let store = Store::open(None)?;
/// let built = Builder::new(&store)
///     .from(&store.image("debian:12")?)
///     .run(["sh", "-c", "echo hello > /greeting"])
///     .copy("app", "/srv/app")
///     .cmd(["cat", "/greeting"])
///     .commit(&CommitOptions::new().tag("local/greeter"), &mut ())?;
/// println!("{} {:?}", built.image.id(), built.steps);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    store: Store,
    base: Option<Image>,
    id_maps: IdMaps,
    use_cache: bool,
    steps: Vec<Action>,
}

/// What [`Builder::commit`] made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Built {
    /// The image.
    pub image: Image,
    /// What became of each step.
    pub steps: Vec<BuildStep>,
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildStep {
    /// What it is: `run ["make"]`.
    pub what: String,
    /// Its result was there already.
    pub cached: bool,
    /// The layer that it made; `None` if it changed no file.
    pub diff_id: Option<Digest>,
    /// How long it took.
    pub time: Duration,
}

#[derive(Clone, Debug)]
enum Action {
    Run(Box<Spec>),
    Copy { source: PathBuf, target: PathBuf, owner: String },
    Env(String, String),
    Workdir(String),
    User(String),
    Entrypoint(Option<Vec<String>>),
    Cmd(Option<Vec<String>>),
    Label(String, String),
    Expose(String),
    Volume(String),
    StopSignal(String),
}

impl Builder {
    /// A builder of an image from nothing.
    pub fn new(store: &Store) -> Builder {
        Builder { store: store.clone(), base: None, id_maps: IdMaps::ByPrivilege, use_cache: true, steps: Vec::new() }
    }

    /// The image it is made from, which is in the same store.
    pub fn from(&mut self, base: &Image) -> &mut Builder {
        self.base = Some(base.clone());
        self
    }

    /// Ids of a user namespace for all steps that run.
    pub fn id_maps(&mut self, maps: IdMaps) -> &mut Builder {
        self.id_maps = maps;
        self
    }

    /// Whether results of earlier builds are used. They are, at first. What is built is kept in both cases.
    pub fn cache(&mut self, on: bool) -> &mut Builder {
        self.use_cache = on;
        self
    }

    /// A program to run, without network, as the user and in the directory of the steps before. It must exit with 0.
    /// Run as root, it has the capabilities that Docker gives ([`CapSet::docker`]), which installing programs needs; as another
    /// user none.
    pub fn run(&mut self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> &mut Builder {
        self.run_command(&Command::from(Spec::new(argv)))
    }

    /// A program to run with options of its own: mounts, network, variables… They are part of what the step is, except its
    /// streams and its time limit. Its root and id maps are the builder's; its standard input is empty unless it is set.
    /// A step that mounts something of the host, or a volume, is carried out each time: nobody knows what is in there.
    pub fn run_command(&mut self, command: &Command) -> &mut Builder {
        self.push(Action::Run(Box::new(command.spec().clone())))
    }

    /// Files or trees of the host into the image, owned by root: [`Root::copy_in`](crate::Root::copy_in).
    pub fn copy(&mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> &mut Builder {
        self.copy_as(source, target, "0:0")
    }

    /// The same, owned by another user: `"user"`, `"user:group"`, by name or number of the image.
    pub fn copy_as(
        &mut self,
        source: impl Into<PathBuf>,
        target: impl Into<PathBuf>,
        owner: impl Into<String>,
    ) -> &mut Builder {
        self.push(Action::Copy { source: source.into(), target: target.into(), owner: owner.into() })
    }

    /// A variable, for the steps after it and for containers of the image.
    pub fn env(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Builder {
        self.push(Action::Env(name.into(), value.into()))
    }

    /// The directory in which the steps after it and containers run. A relative one is below the one before.
    pub fn workdir(&mut self, path: impl Into<String>) -> &mut Builder {
        self.push(Action::Workdir(path.into()))
    }

    /// Who the steps after it and containers run as.
    pub fn user(&mut self, user: impl Into<String>) -> &mut Builder {
        self.push(Action::User(user.into()))
    }

    /// What comes before a container's arguments. The command that the base has is not used then.
    pub fn entrypoint(&mut self, argv: impl IntoIterator<Item = impl Into<String>>) -> &mut Builder {
        self.push(Action::Entrypoint(Some(argv.into_iter().map(Into::into).collect())))
    }

    /// The arguments of a container that is given none.
    pub fn cmd(&mut self, argv: impl IntoIterator<Item = impl Into<String>>) -> &mut Builder {
        self.push(Action::Cmd(Some(argv.into_iter().map(Into::into).collect())))
    }

    /// A label.
    pub fn label(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Builder {
        self.push(Action::Label(name.into(), value.into()))
    }

    /// A port that programs of the image listen at: `"80"`, `"53/udp"`.
    pub fn expose(&mut self, port: impl Into<String>) -> &mut Builder {
        let port = port.into();
        self.push(Action::Expose(if port.contains('/') { port } else { format!("{port}/tcp") }))
    }

    /// A directory that is meant to be a volume.
    pub fn volume(&mut self, path: impl Into<String>) -> &mut Builder {
        self.push(Action::Volume(path.into()))
    }

    /// How containers are asked to stop.
    pub fn stop_signal(&mut self, signal: impl Into<String>) -> &mut Builder {
        self.push(Action::StopSignal(signal.into()))
    }

    /// One of the steps that change only the configuration, by its name as here: `"env"` and `"label"` with name and value,
    /// `"entrypoint"` and `"cmd"` with any number of values, the others with one.
    /// Errors: [`Error::Spec`] for another name or number.
    pub fn configure(&mut self, what: &str, values: Vec<String>) -> Result<&mut Builder> {
        let count = match what {
            "env" | "label" => 2,
            "workdir" | "user" | "expose" | "volume" | "stop_signal" => 1,
            "entrypoint" | "cmd" => values.len(),
            _ => return Err(Error::spec("step", format!("there is no step {what:?}"))),
        };
        if values.len() != count {
            return Err(Error::spec("step", format!("{what} takes {count} of values, not {}", values.len())));
        }
        if what == "entrypoint" {
            return Ok(self.entrypoint(values));
        }
        if what == "cmd" {
            return Ok(self.cmd(values));
        }
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or_default();
        Ok(match what {
            "env" => self.env(next(), next()),
            "label" => self.label(next(), next()),
            "workdir" => self.workdir(next()),
            "user" => self.user(next()),
            "expose" => self.expose(next()),
            "volume" => self.volume(next()),
            _ => self.stop_signal(next()),
        })
    }

    fn push(&mut self, action: Action) -> &mut Builder {
        self.steps.push(action);
        self
    }

    /// Carries out the steps whose results are not there, and makes the image. The same steps over the same content are the
    /// same image, with the same id.
    /// `options.config` replaces what the steps said; of an image that was built before, everything is from the cache, and
    /// `options.created` unset keeps its time.
    ///
    /// Errors: [`Error::Failed`] for a program that does not exit with 0; whatever starting it, copying or committing gives.
    /// Nothing is left of a build that fails, except the results of the steps before.
    pub fn commit(&self, options: &CommitOptions, progress: &mut dyn Progress) -> Result<Built> {
        asked(progress, |progress| self.commit_asked(options, progress))
    }

    fn commit_asked(&self, options: &CommitOptions, progress: &mut dyn Progress) -> Result<Built> {
        let _work = self.store.work()?;
        let mut build = Build::begin(self, options)?;
        let mut steps = Vec::new();
        for (index, action) in self.steps.iter().enumerate() {
            progress.step(&ProgressEvent::new(ProgressKind::Build).layer(index, self.steps.len()));
            if progress.interrupted() {
                return Err(Error::Interrupted);
            }
            let began = Instant::now();
            let (cached, diff_id) = build.step(action, progress)?;
            steps.push(BuildStep { what: action.to_string(), cached, diff_id, time: began.elapsed() });
        }
        build.finish().map(|image| Built { image, steps })
    }
}

/// A build that is under way.
struct Build<'a> {
    builder: &'a Builder,
    options: &'a CommitOptions,
    cache: Cache,
    config: ImageConfig,
    layers: Vec<(Descriptor, Digest)>,
    key: Key,
    /// Of the step that is carried out, counted from 1.
    number: usize,
    /// Where steps run: made when one has to.
    workspace: Option<Workspace>,
}

impl<'a> Build<'a> {
    fn begin(builder: &'a Builder, options: &'a CommitOptions) -> Result<Build<'a>> {
        let cache = Cache::open(&builder.store)?;
        let mut key = Key::new();
        let config = match &builder.base {
            Some(base) => {
                if base.store().place() != builder.store.place() {
                    return Err(Error::spec("from", format!("{base:?} is in another store: {:?}", base.store())));
                }
                base.config()?.clone()
            }
            None => ImageConfig::new(),
        };
        key.add("from", &[builder.base.as_ref().map(|base| base.digest().to_string()).unwrap_or_default()]);
        key.add("ids", &[format!("{:?}", builder.id_maps)]);
        key.add("compression", &[options.compression.name().to_owned()]);
        Ok(Build { builder, options, cache, config, layers: Vec::new(), key, number: 0, workspace: None })
    }

    /// One step; whether its result was there, and the layer it made.
    fn step(&mut self, action: &Action, progress: &mut dyn Progress) -> Result<(bool, Option<Digest>)> {
        self.number += 1;
        match action {
            Action::Run(spec) => {
                self.key.add("run", &[described(spec)]);
                self.layer(action, progress, !sees_host(spec), |build, progress| {
                    build.run(spec, progress).map(|()| true)
                })
            }
            Action::Copy { source, target, owner } => {
                let content = tree::digest(source, &mut || progress.interrupted())?;
                let target = self.inside(target);
                self.key.add("copy", &[content.to_string(), target.display().to_string(), owner.clone()]);
                self.layer(action, progress, true, |build, progress| {
                    build.copy(source, &target, owner, progress)?;
                    // Of a source that was changed meanwhile, nobody knows what was copied.
                    Ok(tree::digest(source, &mut || progress.interrupted()).is_ok_and(|after| after == content))
                })
            }
            _ => {
                self.key.add("config", &[action.to_string()]);
                configure(&mut self.config.config, action)?;
                self.remember(action, None, true);
                Ok((true, None))
            }
        }
    }

    /// A path of the image as the steps see it.
    fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(&self.config.config.working_dir).join(path)
    }

    /// A step that changes files. `work` says whether its result is that of the key.
    fn layer(
        &mut self,
        action: &Action,
        progress: &mut dyn Progress,
        may_be_cached: bool,
        work: impl FnOnce(&mut Self, &mut dyn Progress) -> Result<bool>,
    ) -> Result<(bool, Option<Digest>)> {
        // What the program sees: variables, user, directory.
        self.key.add("seen", &[seen(&self.config.config)]);
        if self.builder.use_cache
            && may_be_cached
            && let Some(record) = self.cache.find(&self.builder.store, &self.key)
        {
            // What lies in the workspace is not what this result lies on.
            self.workspace = None;
            return Ok((true, self.take(action, record)));
        }
        if self.workspace.is_none() {
            self.workspace = Some(self.make_workspace(progress)?);
        }
        let is_certain = work(self, progress)?;
        let Some(workspace) = &self.workspace else { return Err(Error::State("the workspace is gone".to_owned())) };
        let changes = workspace.changes()?;
        let (layer, diff_id, stats) =
            commit::add_layer(&self.builder.store, &changes, self.options.compression, progress)?;
        workspace.settle()?;
        let layer = (stats.entries > 0).then_some((layer, diff_id));
        let record = Record { layer, created: self.options.created.clone().unwrap_or_else(now) };
        if may_be_cached && is_certain {
            self.cache.keep(&self.key, &record)?;
        }
        Ok((false, self.take(action, record)))
    }

    /// Goes on from a result.
    fn take(&mut self, action: &Action, record: Record) -> Option<Digest> {
        let diff_id = record.layer.as_ref().map(|(_, diff_id)| *diff_id);
        self.key.add("made", &[diff_id.map(|digest| digest.to_string()).unwrap_or_default()]);
        self.remember(action, Some(record.created), record.layer.is_none());
        self.layers.extend(record.layer);
        diff_id
    }

    fn remember(&mut self, action: &Action, created: Option<String>, empty_layer: bool) {
        let created = created.or_else(|| self.config.created.clone());
        self.config.created.clone_from(&created);
        let history = History {
            created,
            created_by: Some(action.to_string()),
            author: self.options.author.clone(),
            empty_layer,
            ..History::default()
        };
        self.config.history.push(history);
    }

    fn make_workspace(&self, progress: &mut dyn Progress) -> Result<Workspace> {
        let base = match (&self.builder.base, self.layers.is_empty()) {
            (None, true) => None,
            (Some(base), true) => Some(base.clone()),
            _ => Some(self.so_far()?),
        };
        Workspace::make(&self.builder.store, base.as_ref(), &self.builder.id_maps, progress)
    }

    /// The image of the steps so far, which nobody finds by a name.
    fn so_far(&self) -> Result<Image> {
        let store = &self.builder.store;
        let mut config = self.config.clone();
        let (mut layers, mut diff_ids) = match &self.builder.base {
            Some(base) => (base.layers()?.to_vec(), base.config()?.diff_ids.clone()),
            None => (Vec::new(), Vec::new()),
        };
        layers.extend(self.layers.iter().map(|(layer, _)| layer.clone()));
        diff_ids.extend(self.layers.iter().map(|(_, diff_id)| *diff_id));
        config.diff_ids = diff_ids;
        let config = store.put_document(crate::image::media::CONFIG, &config.to_bytes())?;
        let manifest = crate::image::Manifest::new(config, layers);
        let manifest = store.put_document(crate::image::media::MANIFEST, &manifest.to_bytes())?;
        Image::of_manifest(store, &manifest)
    }

    fn run(&mut self, spec: &Spec, progress: &mut dyn Progress) -> Result<()> {
        let Some(workspace) = &self.workspace else { return Err(Error::State("the workspace is gone".to_owned())) };
        let mut spec = spec.clone();
        spec.rootfs = workspace.root();
        spec.id_maps = self.builder.id_maps.clone();
        spec.of_image = true;
        spec.entrypoint = Some(Vec::new());
        if matches!(spec.stdin, Stdio::Inherit) {
            spec.stdin = Stdio::Null;
        }
        let argv: Vec<String> = spec.argv.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        apply::apply(&self.config.config, &mut spec)?;
        if spec.capabilities.is_none() && !spec.privileged && is_root(spec.user.as_ref()) {
            spec.capabilities = Some(usual_capabilities(&spec)?);
        }
        let output = Command::run(spec, Vec::new(), &mut || progress.interrupted())?;
        if output.exit.success() {
            return Ok(());
        }
        Err(Error::Failed { what: format!("step {} of the build", self.number), argv, exit: output.exit })
    }

    fn copy(&mut self, source: &Path, target: &Path, owner: &str, progress: &mut dyn Progress) -> Result<()> {
        let Some(workspace) = &self.workspace else { return Err(Error::State("the workspace is gone".to_owned())) };
        workspace.copy(source, target, owner, &self.builder.id_maps, &mut || progress.interrupted())
    }

    /// When an image of nothing but settings was first made, so that the same steps are the same image.
    fn first_time(&mut self) -> Result<String> {
        self.key.add("created", &[]);
        if self.builder.use_cache
            && let Some(record) = self.cache.find(&self.builder.store, &self.key)
        {
            return Ok(record.created);
        }
        let record = Record { layer: None, created: now() };
        self.cache.keep(&self.key, &record)?;
        Ok(record.created)
    }

    fn finish(mut self) -> Result<Image> {
        if let Some(created) = &self.options.created {
            self.config.created = Some(created.clone());
        }
        if self.config.created.is_none() {
            self.config.created = Some(self.first_time()?);
        }
        if self.options.author.is_some() {
            self.config.author.clone_from(&self.options.author);
        }
        if let Some(config) = &self.options.config {
            self.config.config = config.clone();
        }
        if let (Some(message), Some(last)) = (&self.options.message, self.config.history.last_mut()) {
            last.comment = Some(message.clone());
        }
        let tags: Vec<&str> = self.options.tags.iter().map(String::as_str).collect();
        self.builder.store.add_layer_and_config(self.builder.base.as_ref(), &self.layers, self.config, &tags)
    }
}

/// What installing programs needs: what Docker gives, as far as the caller has it to give.
fn usual_capabilities(spec: &Spec) -> Result<CapSet> {
    let is_new =
        !Caller::now()?.admin || spec.id_maps != IdMaps::ByPrivilege || spec.namespaces.contains_key(&Kind::User);
    let available = if is_new { CapSet::all() } else { capabilities::current()?.bounding };
    Ok(CapSet::docker().intersection(available))
}

/// With capabilities, another user would have them at once, which is more than Docker gives.
fn is_root(user: Option<&User>) -> bool {
    match user {
        None => true,
        Some(User::Ids(uid, _)) => *uid == 0,
        Some(User::Name(name)) => matches!(name.split(':').next(), Some("root" | "0")),
    }
}

/// What of a request decides about its result.
fn described(spec: &Spec) -> String {
    let mut spec = spec.clone();
    (spec.stdin, spec.stdout, spec.stderr) = (Stdio::Null, Stdio::Null, Stdio::Null);
    (spec.timeout, spec.cgroup) = (None, None);
    spec.require.clear();
    format!("{spec:?}")
}

/// Whether what it does may depend on files that no key has.
fn sees_host(spec: &Spec) -> bool {
    spec.mounts.iter().any(Mount::is_of_host)
}

fn seen(config: &RunConfig) -> String {
    format!("{:?} {:?} {:?}", config.env, config.user, config.working_dir)
}

fn configure(config: &mut RunConfig, action: &Action) -> Result<()> {
    let plain = |field: &'static str, text: &str| {
        if text.contains('\0') { Err(Error::spec(field, "has a NUL byte")) } else { Ok(()) }
    };
    match action {
        Action::Env(name, value) => {
            if name.is_empty() || name.contains('=') {
                return Err(Error::spec("env", format!("{name:?} is no name of a variable")));
            }
            plain("env", name).and_then(|()| plain("env", value))?;
            let is_same = |line: &String| line.split('=').next() == Some(name);
            config.env.retain(|line| !is_same(line));
            config.env.push(format!("{name}={value}"));
        }
        Action::Workdir(path) => {
            plain("workdir", path)?;
            let path: PathBuf = Path::new("/").join(&config.working_dir).join(path).components().collect();
            config.working_dir = path.to_string_lossy().into_owned();
        }
        Action::User(user) => plain("user", user).map(|()| config.user.clone_from(user))?,
        Action::Entrypoint(argv) => {
            config.entrypoint.clone_from(argv);
            config.cmd = None;
        }
        Action::Cmd(argv) => config.cmd.clone_from(argv),
        Action::Label(name, value) => drop(config.labels.insert(name.clone(), value.clone())),
        Action::Expose(port) => add(&mut config.exposed_ports, port),
        Action::Volume(path) => add(&mut config.volumes, path),
        Action::StopSignal(signal) => {
            crate::spec::parse_signal(signal)?;
            config.stop_signal = Some(signal.clone());
        }
        Action::Run(_) | Action::Copy { .. } => {}
    }
    Ok(())
}

fn add(list: &mut Vec<String>, item: &str) {
    if !list.iter().any(|other| other == item) {
        list.push(item.to_owned());
        list.sort();
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::Run(spec) => write!(f, "run {:?}", spec.argv),
            Action::Copy { source, target, owner } if owner == "0:0" => {
                write!(f, "copy {} {}", source.display(), target.display())
            }
            Action::Copy { source, target, owner } => {
                write!(f, "copy {} {} owner={owner}", source.display(), target.display())
            }
            Action::Env(name, value) => write!(f, "env {name}={value}"),
            Action::Workdir(path) => write!(f, "workdir {path}"),
            Action::User(user) => write!(f, "user {user}"),
            Action::Entrypoint(argv) => write!(f, "entrypoint {:?}", argv.as_deref().unwrap_or_default()),
            Action::Cmd(argv) => write!(f, "cmd {:?}", argv.as_deref().unwrap_or_default()),
            Action::Label(name, value) => write!(f, "label {name}={value}"),
            Action::Expose(port) => write!(f, "expose {port}"),
            Action::Volume(path) => write!(f, "volume {path}"),
            Action::StopSignal(signal) => write!(f, "stop_signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_change_the_configuration_as_they_say() {
        let env = vec!["A=1".into(), "AB=2".into()];
        let mut config = RunConfig { env, cmd: Some(vec!["old".into()]), ..RunConfig::default() };
        for action in [
            Action::Env("A".into(), "3".into()),
            Action::Workdir("srv".into()),
            Action::Workdir("app".into()),
            Action::Entrypoint(Some(vec!["e".into()])),
            Action::Expose("80/tcp".into()),
            Action::Expose("80/tcp".into()),
            Action::StopSignal("SIGINT".into()),
        ] {
            configure(&mut config, &action).unwrap();
        }
        assert_eq!(config.env, ["AB=2", "A=3"]);
        assert_eq!(config.working_dir, "/srv/app");
        assert_eq!((config.cmd, config.exposed_ports.len()), (None, 1));
        for bad in [
            Action::Env("=".into(), String::new()),
            Action::Env("A".into(), "\0".into()),
            Action::StopSignal("SIGNOT".into()),
        ] {
            assert!(configure(&mut RunConfig::default(), &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn streams_and_time_do_not_decide_about_a_step() {
        let one = Spec::new(["make"]);
        let mut two = one.clone();
        (two.stdout, two.timeout) = (Stdio::Pipe, Some(Duration::from_secs(1)));
        assert_eq!(described(&one), described(&two));
        two.env.push(("A".into(), "1".into()));
        assert_ne!(described(&one), described(&two));
    }
}
