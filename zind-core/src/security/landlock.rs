//! [`Landlock`]: a further wall inside of the container, by the kernel's rules for files, ports, sockets and signals.
//!
//! Source: <https://docs.kernel.org/userspace-api/landlock.html>, `landlock(7)`.
#![forbid(unsafe_code)]

mod names;
mod text;

#[cfg(any(test, fuzzing))]
pub(crate) use text::fuzz;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;

pub(crate) use names::{ABSTRACT, SIGNAL};
use names::{ALL_FS, ALL_NET, BIND_TCP, CONNECT_TCP, Class, OF_FILES, REFER};

use crate::error::{Error, Result};
use crate::sys::probe;

/// What a payload gets of Landlock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LandlockPolicy {
    /// What goes with the namespaces: with the host's network, no abstract socket that the payload has not made itself; with the
    /// host's pid namespace, no signal to others. Nothing where there is neither, without `no_new_privs`, and on kernels
    /// that have no scopes.
    #[default]
    Default,
    /// Nothing.
    None,
    /// These rules.
    Rules(Landlock),
}

/// A set of rules: whatever it handles is refused but for what a rule lets pass.
///
/// It handles all rights that the kernel knows unless [`Landlock::handle`] says less. Paths are those of the container, and have
/// to be there when it starts. The rules hold for what the payload starts, too, and for further programs in the container, each of
/// which is a domain of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landlock {
    pub(crate) paths: Vec<PathRule>,
    /// Rights of the network, and the port.
    pub(crate) ports: Vec<(u64, u16)>,
    /// `None`: all.
    pub(crate) handled: Option<Rights>,
    /// Rights of the network that are left alone.
    pub(crate) free: u64,
    /// `None`: those of [`LandlockPolicy::Default`].
    pub(crate) scopes: Option<u64>,
    /// `LANDLOCK_RESTRICT_SELF_LOG_*`
    pub(crate) log: u64,
    pub(crate) best_effort: bool,
}

/// What passes below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathRule {
    pub(crate) path: PathBuf,
    pub(crate) rights: Rights,
}

/// Rights, and which of them were asked for one by one and not as part of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) fs: u64,
    pub(crate) net: u64,
    pub(crate) exact_fs: u64,
    pub(crate) exact_net: u64,
}

impl Rights {
    fn union(self, other: Rights) -> Rights {
        Rights {
            fs: self.fs | other.fs,
            net: self.net | other.net,
            exact_fs: self.exact_fs | other.exact_fs,
            exact_net: self.exact_net | other.exact_net,
        }
    }
}

impl Landlock {
    /// Everything is refused.
    pub fn new() -> Landlock {
        Landlock::default()
    }

    /// The text that `zind run --landlock` takes: `ro=/etc,rox=/usr,rw=/work,connect=443,scope=abstract`. See the guide.
    ///
    /// Errors: [`Error::Spec`], field `landlock`, with the word that is wrong.
    pub fn parse(text: &str) -> Result<Landlock> {
        let mut rules = Landlock::new();
        rules.extend(OsStr::new(text))?;
        Ok(rules)
    }

    /// Adds what such a text says.
    pub fn extend(&mut self, text: &OsStr) -> Result<()> {
        let mut all = self.clone();
        text::parse(&mut all, text.as_bytes())?;
        *self = all;
        Ok(())
    }

    /// Lets files below a path, and lists of directories, be read.
    pub fn read(self, path: impl Into<PathBuf>) -> Landlock {
        self.sets(path, names::READ)
    }

    /// Lets them be read, and executed.
    pub fn read_execute(self, path: impl Into<PathBuf>) -> Landlock {
        self.sets(path, names::READ | names::EXECUTE)
    }

    /// Lets them be read, written, made, removed and moved.
    pub fn read_write(self, path: impl Into<PathBuf>) -> Landlock {
        self.sets(path, names::READ | names::WRITE)
    }

    /// The same, and executed.
    pub fn read_write_execute(self, path: impl Into<PathBuf>) -> Landlock {
        self.sets(path, names::READ | names::WRITE | names::EXECUTE)
    }

    fn sets(mut self, path: impl Into<PathBuf>, fs: u64) -> Landlock {
        self.paths.push(PathRule { path: path.into(), rights: Rights { fs, ..Rights::default() } });
        self
    }

    /// Lets something below a path pass. `rights`: `read`, `write` and `execute`, which are sets; `ioctl_dev` and all other names of
    /// the kernel (`LANDLOCK_ACCESS_FS_MAKE_DIR`, `make_dir`); joined by `+`.
    pub fn allow(mut self, path: impl Into<PathBuf>, rights: &str) -> Result<Landlock> {
        self.push(path.into(), names::rights(rights, Class::Fs)?);
        Ok(self)
    }

    pub(crate) fn push(&mut self, path: PathBuf, rights: Rights) {
        self.paths.push(PathRule { path, rights });
    }

    /// Lets TCP connections be made to a port.
    pub fn connect(mut self, port: u16) -> Landlock {
        self.ports.push((CONNECT_TCP, port));
        self
    }

    /// Lets TCP sockets be bound to a port; 0 is for whatever port the kernel chooses.
    pub fn bind(mut self, port: u16) -> Landlock {
        self.ports.push((BIND_TCP, port));
        self
    }

    /// Leaves TCP connections alone.
    pub fn connect_any(mut self) -> Landlock {
        self.free |= CONNECT_TCP;
        self
    }

    /// Leaves ports that TCP sockets are bound to alone.
    pub fn bind_any(mut self) -> Landlock {
        self.free |= BIND_TCP;
        self
    }

    /// Handles these rights and no others: names as in [`Landlock::allow`], `fs` and `net` for all of either, `bind_tcp` and
    /// `connect_tcp`. What is not handled is not refused. (Moving files between directories always takes `refer`, once any right of
    /// the file system is handled.)
    pub fn handle(mut self, rights: &str) -> Result<Landlock> {
        let rights = names::rights(rights, Class::Both)?;
        self.handled = Some(self.handled.unwrap_or_default().union(rights));
        Ok(self)
    }

    /// Cuts off from what was there before, and from other containers: `abstract` (unix sockets with abstract names), `signal`, both
    /// joined by `+`, or `none`.
    pub fn scope(mut self, names: &str) -> Result<Landlock> {
        self.scopes = Some(self.scopes.unwrap_or(0) | names::scopes(names)?);
        Ok(self)
    }

    /// Changes what the kernel's audit log tells of refusals: `same_exec_off`, `new_exec_on`, `subdomains_off`, joined by `+`.
    pub fn log(mut self, names: &str) -> Result<Landlock> {
        self.log |= names::log(names)?;
        Ok(self)
    }

    /// What this kernel lacks of what is asked for by name is no error but left out, and told in the report.
    pub fn best_effort(mut self, on: bool) -> Landlock {
        self.best_effort = on;
        self
    }

    /// The rules that need no kernel. `is_absolute`: paths have to be.
    pub(crate) fn check(&self, is_absolute: bool) -> Result<()> {
        for PathRule { path, rights } in &self.paths {
            let bad = |rule: &str| Err(Error::spec("landlock", format!("{} {rule}", path.display())));
            match path.as_os_str().as_bytes() {
                [] => return Err(Error::spec("landlock", "a path is empty")),
                bytes if bytes.contains(&0) => return bad("has a NUL byte"),
                [first, ..] if *first != b'/' && is_absolute => {
                    return bad("is not absolute: paths are the container's");
                }
                _ => {}
            }
            if let Some(handled) = self.handled
                && rights.exact_fs & !(handled.fs | REFER) != 0
            {
                let names = names::of_fs(rights.exact_fs & !(handled.fs | REFER)).join("+");
                return bad(&format!("has the right {names}, which is not handled"));
            }
        }
        for (right, port) in &self.ports {
            let handled = self.handled.map_or(ALL_NET, |handled| handled.net) & !self.free;
            if right & handled == 0 {
                let name = names::of_net(*right).join("+");
                return Err(Error::spec("landlock", format!("port {port} has the right {name}, which is not handled")));
            }
        }
        Ok(())
    }
}

/// What is to be done on this kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enforced {
    pub(crate) abi: u32,
    pub(crate) fs: u64,
    pub(crate) net: u64,
    pub(crate) scoped: u64,
    pub(crate) log: u64,
    /// What passes below a directory, and if it is a file.
    pub(crate) paths: Vec<(PathBuf, u64, u64)>,
    pub(crate) ports: Vec<(u64, u16)>,
    pub(crate) missing: Vec<String>,
}

impl Enforced {
    /// There is a domain.
    pub(crate) fn is_something(&self) -> bool {
        self.fs | self.net | self.scoped != 0
    }

    pub(crate) fn handled(&self) -> Vec<&'static str> {
        names::of_fs(self.fs).into_iter().chain(names::of_net(self.net)).collect()
    }

    pub(crate) fn scopes(&self) -> Vec<&'static str> {
        names::of_scopes(self.scoped)
    }
}

/// The version of the kernel's interface; 0 without Landlock, and why.
fn kernel() -> (u32, &'static str) {
    match probe::landlock_abi() {
        Ok(abi) => (abi, ""),
        Err(Errno::EOPNOTSUPP) => (0, "it is disabled at boot: add landlock to the kernel's lsm= parameter"),
        Err(Errno::ENOSYS) => (0, "this kernel was built without CONFIG_SECURITY_LANDLOCK, or hides it"),
        Err(_) => (0, "a filter around this process refuses it"),
    }
}

impl LandlockPolicy {
    /// What it comes to here. `usual`: the scopes of the default.
    pub(crate) fn enforced(&self, usual: u64) -> Result<Option<Enforced>> {
        let rules = match self {
            LandlockPolicy::None => return Ok(None),
            LandlockPolicy::Default if usual == 0 => return Ok(None),
            LandlockPolicy::Default => {
                let (abi, _) = kernel();
                let scoped = names::scopes_since(abi) & usual;
                return Ok(Some(Enforced { abi, scoped, ..Enforced::default() }).filter(Enforced::is_something));
            }
            LandlockPolicy::Rules(rules) => rules,
        };
        let (abi, why) = kernel();
        if abi == 0 && !rules.best_effort {
            return Err(Error::unsupported("landlock", why));
        }
        rules.on(abi, usual).map(Some)
    }
}

impl Landlock {
    /// What it comes to on a kernel.
    pub(crate) fn on(&self, abi: u32, usual: u64) -> Result<Enforced> {
        let mut missing: Vec<String> = Vec::new();
        let (known_fs, known_net) = (names::fs_since(abi), names::net_since(abi));
        let (known_scopes, known_log) = (names::scopes_since(abi), names::log_since(abi));
        let mut miss = |names: Vec<(&'static str, u32)>| -> Result<()> {
            for (name, needs) in names {
                if !self.best_effort {
                    let linux = names::linux_of(needs);
                    return Err(Error::unsupported(
                        format!("landlock: {name}"),
                        format!(
                            "it takes Landlock ABI {needs} (Linux {linux}), and this kernel has ABI {abi}; best_effort \
                             leaves out what is missing, and tells"
                        ),
                    ));
                }
                if !missing.iter().any(|other| other == name) {
                    missing.push(name.to_owned());
                }
            }
            Ok(())
        };
        let wanted = self.handled.unwrap_or(Rights { fs: ALL_FS, net: ALL_NET, exact_fs: 0, exact_net: 0 });
        miss(names::with_abi_fs(wanted.exact_fs & !known_fs))?;
        miss(names::with_abi_net(wanted.exact_net & !known_net))?;
        let mut fs = wanted.fs & known_fs;
        let net = wanted.net & known_net & !self.free;
        if fs != 0 {
            // It is refused in any case, so that it has to be handled to be let pass.
            fs |= REFER & known_fs;
        }
        let mut paths = Vec::new();
        for PathRule { path, rights } in &self.paths {
            miss(names::with_abi_fs(rights.exact_fs & !known_fs))?;
            let exact = rights.exact_fs & fs;
            let access = rights.fs & fs;
            // Of a set, what means nothing for a file falls away; what was named is told by the kernel to be wrong.
            paths.push((path.clone(), access, access & OF_FILES | exact));
        }
        let mut ports: Vec<(u64, u16)> = Vec::new();
        for (right, port) in &self.ports {
            miss(names::with_abi_net(right & !known_net))?;
            match ports.iter_mut().find(|(_, other)| other == port) {
                Some((rights, _)) => *rights |= right & net,
                None if right & net != 0 => ports.push((right & net, *port)),
                None => {}
            }
        }
        miss(names::with_abi_scopes(self.scopes.unwrap_or(0) & !known_scopes))?;
        miss(names::with_abi_log(self.log & !known_log))?;
        let scoped = self.scopes.unwrap_or(usual) & known_scopes;
        if fs == 0 {
            paths.clear();
        }
        Ok(Enforced { abi, fs, net, scoped, log: self.log & known_log, paths, ports, missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_handles_what_it_knows() {
        let rules = Landlock::new().read_write("/w");
        let count = |abi| {
            let on = rules.on(abi, 0).unwrap();
            (on.handled().len(), on.paths[0].1.count_ones())
        };
        // Thirteen rights of the first ABI, then refer, truncate, two of TCP, ioctl_dev; resolve_unix.
        let all: Vec<_> = [1, 2, 3, 4, 5, 6, 7, 8, 9, 99].map(count).to_vec();
        let counts =
            [(13, 12), (14, 13), (15, 14), (17, 14), (18, 14), (18, 14), (18, 14), (18, 14), (19, 14), (19, 14)];
        assert_eq!(all, counts);
        let none = Landlock::new().best_effort(true).on(0, ABSTRACT).unwrap();
        assert!(!none.is_something() && none.missing.is_empty());
    }

    #[test]
    fn what_is_named_and_missing_is_an_error_unless_best_effort() {
        let name = |rules: &Landlock, abi| match rules.on(abi, 0) {
            Err(Error::Unsupported { feature, needs }) => format!("{feature}: {}", &needs[..needs.find(',').unwrap()]),
            other => panic!("{other:?}"),
        };
        let truncate = Landlock::new().allow("/x", "truncate").unwrap();
        assert_eq!(name(&truncate, 2), "landlock: truncate: it takes Landlock ABI 3 (Linux 6.2)");
        assert!(truncate.on(3, 0).is_ok());
        let connect = Landlock::new().connect(443);
        assert_eq!(name(&connect, 3), "landlock: connect_tcp: it takes Landlock ABI 4 (Linux 6.7)");
        let signal = Landlock::new().scope("signal").unwrap();
        assert_eq!(name(&signal, 5), "landlock: signal: it takes Landlock ABI 6 (Linux 6.12)");
        let log = Landlock::new().log("new_exec_on").unwrap();
        assert_eq!(name(&log, 6), "landlock: new_exec_on: it takes Landlock ABI 7 (Linux 6.15)");
        let handled = Landlock::new().handle("read+ioctl_dev").unwrap();
        assert_eq!(name(&handled, 4), "landlock: ioctl_dev: it takes Landlock ABI 5 (Linux 6.10)");
        let all = Landlock { log: log.log, scopes: signal.scopes, ..truncate.connect(1).best_effort(true) };
        let on = all.on(1, 0).unwrap();
        assert_eq!(on.missing, ["truncate", "connect_tcp", "signal", "new_exec_on"]);
        assert_eq!((on.ports.len(), on.scoped, on.log, on.paths[0].1), (0, 0, 0, 0));
    }

    #[test]
    fn sets_fit_files_and_names_do_not() {
        let rules = Landlock::new().read_write("/a").allow("/b", "make_dir+read_file").unwrap();
        let on = rules.on(7, 0).unwrap();
        assert_eq!(names::of_fs(on.paths[0].2), ["write_file", "read_file", "truncate"]);
        assert_eq!(names::of_fs(on.paths[1].2), ["read_file", "make_dir"]);
    }

    #[test]
    fn scopes_are_the_usual_ones_unless_named() {
        let scoped = |rules: Landlock| rules.on(7, ABSTRACT).unwrap().scopes();
        assert_eq!(scoped(Landlock::new()), ["abstract"]);
        assert_eq!(scoped(Landlock::new().scope("signal").unwrap()), ["signal"]);
        assert!(scoped(Landlock::new().scope("none").unwrap()).is_empty());
    }

    #[test]
    fn a_rule_has_to_be_handled() {
        let field = |rules: Landlock| rules.check(true).unwrap_err().to_string();
        let only_read = || Landlock::new().handle("read").unwrap();
        assert!(field(only_read().allow("/x", "make_dir").unwrap()).contains("make_dir, which is not handled"));
        assert!(field(only_read().connect(1)).contains("connect_tcp, which is not handled"));
        assert!(field(Landlock::new().connect_any().connect(1)).contains("port 1"));
        assert!(field(Landlock::new().read("x")).contains("x is not absolute"));
        assert!(Landlock::new().read("x").check(false).is_ok());
        assert!(only_read().read_write("/x").check(true).is_ok(), "of a set, what is handled counts");
    }
}
