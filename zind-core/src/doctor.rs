//! [`doctor`]: what works here, what not, and the cure.
//!
//! Nearly everything is read or asked for. What no reading tells is tried out: a container is started, with all options at their
//! default and a program that there is none of, and a file without a name is made where the launcher could be executed from. Nothing
//! of it is left, and nobody's program was run.
#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{Access, AtFlags, CWD, ResolveFlags};
use serde_json::{Value, json};

use crate::cgroup::{delegation, outlook};
use crate::error::{self, Step};
use crate::lowlevel;
use crate::namespace::kind::Kind;
use crate::proc::{self, Proc, Status, unescape_path};
use crate::process::launch;
use crate::spec::{Spec, Stdio};
use crate::sys::probe;

/// Capabilities that decide what a container can be given: capabilities(7).
const CAPABILITIES: &[(&str, u32)] = &[
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_KILL", 5),
    (CAP_SETGID.0, CAP_SETGID.1),
    (CAP_SETUID.0, CAP_SETUID.1),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    (CAP_SYS_RESOURCE.0, CAP_SYS_RESOURCE.1),
    ("CAP_MKNOD", 27),
    ("CAP_SETFCAP", 31),
];
const CAP_SETGID: (&str, u32) = ("CAP_SETGID", 6);
const CAP_SETUID: (&str, u32) = ("CAP_SETUID", 7);
const CAP_SYS_RESOURCE: (&str, u32) = ("CAP_SYS_RESOURCE", 24);

/// The v1 controllers, or v2 ones, that limits need most.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

const NO_PROC: &str = "unknown without /proc";
const MOUNT_PROC: &str = "mount -t proc proc /proc";

const OUTER_FILTER: &str = "a seccomp filter around this process hides the call: let the outer container allow it";

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at: `"user namespace"`, `"overlay"`. Stable.
    pub name: &'static str,
    /// Whether it is as it should be. Not every check has to be: the detail tells what a failing one is good for.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty where nothing has to be or can be done.
    pub cure: String,
}

/// What [`doctor`] found. Shown as a table, by `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// The checks, from the kernel outwards.
    pub checks: Vec<Check>,
}

impl Doctor {
    /// Whether every check is as it should be.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// The check with this name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// `{"ok": bool, "checks": [{"name", "ok", "detail", "cure"}]}`
    pub fn to_json(&self) -> Value {
        let check =
            |check: &Check| json!({"name": check.name, "ok": check.ok, "detail": check.detail, "cure": check.cure});
        json!({"ok": self.ok(), "checks": self.checks.iter().map(check).collect::<Vec<_>>()})
    }
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let mark = if check.ok { "ok" } else { "no" };
            writeln!(f, "{mark}  {:width$}  {}", check.name, check.detail)?;
            if !check.ok && !check.cure.is_empty() {
                writeln!(f, "    {:width$}  -> {}", "", check.cure)?;
            }
        }
        Ok(())
    }
}

/// Looks at the kernel, the caller's privileges and the machine's set-up. Needs no privilege, fails never, and leaves
/// nothing changed.
pub fn doctor() -> Doctor {
    let caller = Caller::look();
    let mounts = mounts();
    let mut checks = vec![kernel(), architecture(), caller.check(), procfs(), proc_visible(&mounts)];
    checks.extend(Kind::ALL.map(namespace));
    checks.push(namespace_calls());
    checks.extend(file_systems());
    checks.extend(system_calls());
    let (memory, files) = (memfd(), executable_files());
    checks.push(root(memory.ok || files.ok, &mounts));
    checks.extend([memory, files, seccomp(&caller), landlock(), no_new_privs(&caller)]);
    checks.extend(id_map_helpers(&caller));
    checks.extend(subordinate_ids(&caller));
    checks.extend([cgroup(&mounts), fuse(), fuse_overlayfs(), raise_limits(&caller)]);
    Doctor { checks }
}

fn check(name: &'static str, ok: bool, detail: impl Into<String>, cure: impl Into<String>) -> Check {
    let cure = if ok { String::new() } else { cure.into() };
    Check { name, ok, detail: detail.into(), cure }
}

/// Who asks.
struct Caller {
    uid: u32,
    name: Option<String>,
    effective: u64,
    status: Option<Status>,
    in_user_namespace: bool,
}

impl Caller {
    fn look() -> Caller {
        let status = Status::of_this_thread();
        let uid = rustix::process::geteuid().as_raw();
        let maps = Proc::current().and_then(|own| own.id_maps()).ok();
        Caller {
            uid,
            name: std::fs::read_to_string("/etc/passwd").ok().and_then(|text| user_name(&text, uid)),
            effective: lowlevel::effective_capabilities(),
            status,
            in_user_namespace: maps.is_some_and(
                |maps| !matches!(maps.uid[..], [line] if (line.container, line.host, line.size) == (0, 0, u32::MAX)),
            ),
        }
    }

    fn has(&self, capability: (&str, u32)) -> bool {
        self.effective & (1 << capability.1) != 0
    }

    fn check(&self) -> Check {
        let who = match (self.uid, &self.name) {
            (0, _) => "root".to_owned(),
            (uid, Some(name)) => format!("uid {uid} ({name})"),
            (uid, None) => format!("uid {uid}"),
        };
        let place = if self.in_user_namespace { " in a user namespace" } else { "" };
        let names = |set: &dyn Fn(u32) -> bool| {
            let found: Vec<&str> = CAPABILITIES.iter().filter(|(_, bit)| set(*bit)).map(|(name, _)| *name).collect();
            found.join(" ")
        };
        let missing = names(&|bit| self.effective & (1 << bit) == 0);
        let capabilities = match (self.effective, missing.is_empty()) {
            (0, _) => "no capabilities: containers get their rights from a user namespace".to_owned(),
            (_, true) => "every capability that containers draw on".to_owned(),
            _ if missing.split(' ').count() <= 4 => format!("capabilities, but not {missing}"),
            _ => format!("some capabilities: {}", names(&|bit| self.effective & (1 << bit) != 0)),
        };
        check("caller", true, format!("{who}{place}, {capabilities}"), "")
    }
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let ok = release_at_least(&release, (5, 14));
    check("kernel", ok, format!("Linux {release}"), "zind needs Linux 5.14 or newer")
}

fn release_at_least(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= least
}

fn architecture() -> Check {
    let uname = rustix::system::uname();
    let machine = uname.machine().to_string_lossy();
    let ok = machine == std::env::consts::ARCH;
    let detail = format!("{machine}, library built for {}", std::env::consts::ARCH);
    check("architecture", ok, detail, "use the library built for this machine")
}

fn procfs() -> Check {
    let ok = proc::is_procfs("/proc");
    let detail = if ok { "mounted" } else { "not a procfs; much of what follows is unknown" };
    check("/proc", ok, detail, MOUNT_PROC)
}

/// A line of mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct MountLine {
    id: u64,
    parent: u64,
    root: PathBuf,
    point: PathBuf,
    fstype: String,
    super_options: String,
}

fn mounts() -> Vec<MountLine> {
    let text = std::fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(mount_line).collect()
}

fn mount_line(line: &[u8]) -> Option<MountLine> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    // The optional fields end in a single `-`.
    let dash = 6 + words.get(6..)?.iter().position(|word| *word == b"-")?;
    Some(MountLine {
        id: number(words[0])?,
        parent: number(words[1])?,
        root: unescape_path(words[3]),
        point: unescape_path(words[4]),
        fstype: text(words.get(dash + 1)?),
        super_options: text(words.get(dash + 3)?),
    })
}

fn proc_visible(mounts: &[MountLine]) -> Check {
    if mounts.is_empty() {
        return check("/proc visible", false, NO_PROC, MOUNT_PROC);
    }
    let covers = covered(mounts, &PROC);
    let detail = match &covers {
        None => "a container in a user namespace can mount its own /proc".to_owned(),
        Some(covers) if covers.is_empty() => "no whole procfs is mounted here".to_owned(),
        Some(covers) => {
            let shown: Vec<String> = covers.iter().take(3).map(|path| proc::printable(path.as_os_str())).collect();
            format!(
                "mounts cover parts of /proc ({}{}): the kernel refuses a new procfs in a user namespace",
                shown.join(" "),
                if covers.len() > shown.len() { " ..." } else { "" }
            )
        }
    };
    let cure = "this process seems to be in a container: start that one with unmasked paths (docker run --security-opt \
        systempaths=unconfined), or bind its /proc into the inner container";
    check("/proc visible", covers.is_none(), detail, cure)
}

/// A file system of which a user namespace gets a new one only where an old one can be seen as a whole: mount_too_revealing() in the
/// kernel's fs/namespace.c.
struct Revealing {
    kind: &'static str,
    point: &'static str,
    /// Its directories that are made to be mounted on, and so hide nothing.
    empty: &'static [&'static str],
}

const PROC: Revealing =
    Revealing { kind: "proc", point: "/proc", empty: &["sys/fs/binfmt_misc", "fs/nfsd", "fs/rpc_pipefs"] };
const SYS: Revealing = Revealing {
    kind: "sysfs",
    point: "/sys",
    empty: &[
        "firmware/efi/efivars",
        "fs/bpf",
        "fs/cgroup",
        "fs/fuse/connections",
        "fs/pstore",
        "fs/selinux",
        "fs/smackfs",
        "kernel/config",
        "kernel/debug",
        "kernel/security",
        "kernel/tracing",
    ],
};

/// `None` if some file system of this kind is visible as a whole; else what covers the one on its usual place.
fn covered<'a>(mounts: &'a [MountLine], of: &Revealing) -> Option<Vec<&'a Path>> {
    let covers = |whole: &MountLine| -> Vec<&Path> {
        let below = mounts.iter().filter(|mount| mount.parent == whole.id && mount.id != whole.id);
        let harmless = |mount: &&MountLine| {
            mount
                .point
                .strip_prefix(&whole.point)
                .is_ok_and(|rest| of.empty.iter().any(|empty| rest == Path::new(empty)))
        };
        below.filter(|mount| !harmless(mount)).map(|mount| mount.point.as_path()).collect()
    };
    let whole = || mounts.iter().filter(|mount| mount.fstype == of.kind && mount.root == Path::new("/"));
    if whole().any(|mount| covers(mount).is_empty()) {
        return None;
    }
    let main = whole().find(|mount| mount.point == Path::new(of.point)).or_else(|| whole().next());
    Some(main.map(covers).unwrap_or_default())
}

fn namespace(kind: Kind) -> Check {
    let name = match kind {
        Kind::User => "user namespace",
        Kind::Mount => "mnt namespace",
        Kind::Pid => "pid namespace",
        Kind::Net => "net namespace",
        Kind::Uts => "uts namespace",
        Kind::Ipc => "ipc namespace",
        Kind::Cgroup => "cgroup namespace",
        Kind::Time => "time namespace",
    };
    if !proc::is_procfs("/proc") {
        return check(name, false, NO_PROC, MOUNT_PROC);
    }
    if !Path::new("/proc/self/ns").join(kind.name()).exists() {
        return check(name, false, "not in this kernel", "use a kernel that was built with it");
    }
    let sysctl = format!("user.max_{kind}_namespaces");
    let limit = proc::sysctl(&sysctl);
    let detail = match &limit {
        Some(limit) => format!("at most {limit} for each user"),
        None => "limit not readable".into(),
    };
    let obstacles = if kind == Kind::User { lowlevel::user_namespace_obstacles() } else { Vec::new() };
    if let Some((_, cure)) = obstacles.first() {
        let what: Vec<&str> = obstacles.iter().map(|(what, _)| what.as_str()).collect();
        return check(name, false, what.join(", "), cure.as_str());
    }
    check(name, limit.as_deref() != Some("0"), detail, format!("as root: sysctl -w {sysctl}=15000"))
}

fn namespace_calls() -> Check {
    // Both change nothing: no flags to unshare, and a descriptor that cannot be.
    let unshare = nix::sched::unshare(nix::sched::CloneFlags::empty()).err();
    let setns = probe::setns();
    let setns = (setns != Errno::EBADF).then_some(setns);
    let refused: Vec<String> = [("unshare", unshare), ("setns", setns)]
        .into_iter()
        .filter_map(|(name, errno)| errno.map(|errno| format!("{name} is refused: {}", errno.desc())))
        .collect();
    let detail = if refused.is_empty() { "unshare and setns are allowed".into() } else { refused.join(", ") };
    check("namespace calls", refused.is_empty(), detail, OUTER_FILTER)
}

fn file_systems() -> Vec<Check> {
    let text = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known: Vec<&str> = text.lines().filter_map(|line| line.split_ascii_whitespace().last()).collect();
    ["overlay", "tmpfs", "proc", "devpts", "mqueue"]
        .into_iter()
        .map(|name| match (known.contains(&name), known.is_empty()) {
            (true, _) => check(name, true, "in /proc/filesystems", ""),
            (_, true) => check(name, false, NO_PROC, MOUNT_PROC),
            _ => check(
                name,
                false,
                "not in /proc/filesystems",
                format!("as root: modprobe {name}, or use a kernel that was built with it"),
            ),
        })
        .collect()
}

fn system_calls() -> Vec<Check> {
    let judge = |name, errno: Errno, expected: Errno| {
        let detail = match errno {
            errno if errno == expected => "there".to_owned(),
            Errno::ENOSYS => "missing: Function not implemented (ENOSYS)".to_owned(),
            errno => format!("refused: {}", errno.desc()),
        };
        check(name, errno == expected, detail, OUTER_FILTER)
    };
    let errno = |error: Option<rustix::io::Errno>| Errno::from_raw(error.map_or(0, |error| error.raw_os_error()));
    // None of these opens anything: unknown flags, an empty path, and a number that no process can have. (A file system
    // that does not exist would make the kernel run modprobe.)
    let unknown = rustix::mount::FsOpenFlags::from_bits_retain(1 << 31);
    let fsopen = rustix::mount::fsopen("tmpfs", unknown).err();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let openat2 = rustix::fs::openat2(CWD, "", flags, rustix::fs::Mode::empty(), ResolveFlags::BENEATH).err();
    let pid = rustix::process::Pid::from_raw(i32::MAX);
    let pidfd_open = pid.and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).err());
    // Without CAP_SYS_ADMIN fsopen refuses before it looks at the flags.
    let fsopen_expects = if lowlevel::has_capability(21) { Errno::EINVAL } else { Errno::EPERM };
    vec![
        judge("new mount API", errno(fsopen), fsopen_expects),
        judge("mount_setattr", probe::mount_setattr(), Errno::EINVAL),
        judge("openat2", errno(openat2), Errno::ENOENT),
        judge("clone3", probe::clone3(), Errno::EINVAL),
        judge("pidfd_open", errno(pidfd_open), Errno::ESRCH),
        judge("pidfd_send_signal", probe::pidfd_send_signal(), Errno::EBADF),
        judge("close_range", probe::close_range(), Errno::EINVAL),
        judge("statx", probe::statx(), Errno::EINVAL),
    ]
}

fn memfd() -> Check {
    let (ok, detail) = match proc::sysctl("vm.memfd_noexec").as_deref() {
        Some("2") => (false, "vm.memfd_noexec is 2: memory files may not be executed, a file on disk is used instead"),
        Some("1") => (true, "memory files may be executed when asked for (vm.memfd_noexec is 1)"),
        Some(_) => (true, "memory files may be executed"),
        None => (true, "no vm.memfd_noexec to be seen: memory files may be executed"),
    };
    check("memfd executable", ok, detail, "as root: sysctl -w vm.memfd_noexec=1")
}

/// Where the launcher is executed from if memory files may not be.
fn executable_files() -> Check {
    let memory_is_enough = memfd().ok;
    let mut is_there = false;
    let mut told = Vec::new();
    for (place, found) in launch::places_to_execute() {
        let place = place.display().to_string();
        told.push(match found {
            Ok(()) => place,
            Err(error) if error.errno() == Some(Errno::EACCES) && has_noexec(&place) => format!("not {place} (noexec)"),
            Err(error) => {
                format!("not {place} ({})", error.errno().map_or_else(|| "refused".to_owned(), error::describe))
            }
        });
        is_there |= !told[told.len() - 1].starts_with("not ");
    }
    let what = if memory_is_enough { "not needed: memory files may be executed; else from" } else { "executed from" };
    check(
        "executable files",
        memory_is_enough || is_there,
        format!("{what} {}", told.join(", ")),
        "as root: mount -o remount,exec /tmp, or sysctl -w vm.memfd_noexec=1; or name a directory of this user's own in XDG_RUNTIME_DIR",
    )
}

fn has_noexec(place: &str) -> bool {
    let flags = rustix::fs::statvfs(place).map(|fs| fs.f_flag);
    flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// A start of which every option is at its default comes as far as its program, which does not exist.
fn root(can_execute: bool, mounts: &[MountLine]) -> Check {
    const NAME: &str = "root of a container";
    if !can_execute {
        return check(
            NAME,
            false,
            "not tried: the launcher cannot be executed",
            "see memfd executable and executable files",
        );
    }
    let nobody = Spec { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null, ..Spec::new(["/dev/null/none"]) };
    let error = match launch::spawn(nobody) {
        Err(error) if (error.step(), error.errno()) == (Some(Step::Exec), Some(Errno::ENOENT)) => {
            let detail = "made on trial, with overlays, network, /proc and /sys, up to a program that there is none of";
            return check(NAME, true, detail, "");
        }
        Err(error) => error,
        Ok(_) => return check(NAME, true, "made on trial", ""),
    };
    let is_refused = |step: Step, path: &str| {
        error.step() == Some(step)
            && error.path() == Some(Path::new(path))
            && matches!(error.errno(), Some(Errno::EPERM | Errno::EBUSY))
    };
    let cure = if is_refused(Step::Mount, SYS.point) {
        let covers = covered(mounts, &SYS).unwrap_or_default();
        let what = match &covers[..] {
            [] => {
                "no whole sysfs is mounted here, or this user namespace does not own its network namespace".to_owned()
            }
            [first, ..] => {
                format!("mounts cover parts of /sys ({})", proc::printable(first.as_os_str()))
            }
        };
        return check(
            NAME,
            false,
            format!("refused: {error}; {what}"),
            "this process seems to be in a container: start that one with unmasked paths (docker run --security-opt \
             systempaths=unconfined); network=\"host\" from a user namespace needs no /sys",
        );
    } else if is_refused(Step::Mount, PROC.point) {
        "see /proc visible"
    } else if matches!(error.step(), Some(Step::Mount | Step::Template)) {
        "overlays are refused here: read_only=True and overlay=False need none; fuse-overlayfs(1) stands in for \
         directories and images where it is installed"
    } else {
        "see what else is told here; zind.run([\"true\"]) fails in the same way"
    };
    check(NAME, false, format!("refused: {error}"), cure)
}

fn seccomp(caller: &Caller) -> Check {
    let actions = proc::sysctl("kernel.seccomp.actions_avail");
    let own = match caller.status.as_ref().and_then(Status::seccomp) {
        Some(2) => "; this process is under a filter of its own, which its containers inherit",
        _ => "",
    };
    match actions {
        Some(actions) => check("seccomp filter", true, format!("actions: {actions}{own}"), ""),
        None if !proc::is_procfs("/proc") => check("seccomp filter", false, NO_PROC, MOUNT_PROC),
        None => check("seccomp filter", false, "not in this kernel", "use a kernel built with CONFIG_SECCOMP_FILTER"),
    }
}

fn landlock() -> Check {
    match probe::landlock_abi() {
        Ok(version) => check("landlock", true, format!("ABI {version}"), ""),
        Err(Errno::EOPNOTSUPP) => {
            check("landlock", false, "disabled at boot", "add landlock to the kernel's lsm= boot parameter")
        }
        Err(Errno::ENOSYS) => {
            check("landlock", false, "not in this kernel", "use a kernel built with CONFIG_SECURITY_LANDLOCK")
        }
        Err(errno) => check("landlock", false, format!("refused: {}", errno.desc()), OUTER_FILTER),
    }
}

fn no_new_privs(caller: &Caller) -> Check {
    match rustix::thread::no_new_privs() {
        Ok(false) => check("no_new_privs", true, "supported; not set on this process", ""),
        Ok(true) if caller.has(CAP_SETUID) => check("no_new_privs", true, "set on this process", ""),
        Ok(true) => check(
            "no_new_privs",
            false,
            "set on this process: newuidmap, newgidmap and fusermount3 gain no rights",
            "map a single id (uid_map=\"single\"), or start from a process without no_new_privs",
        ),
        Err(_) => check("no_new_privs", false, "not known to this kernel, or refused", OUTER_FILTER),
    }
}

fn id_map_helpers(caller: &Caller) -> Vec<Check> {
    [("newuidmap", CAP_SETUID), ("newgidmap", CAP_SETGID)]
        .into_iter()
        .map(|(name, capability)| {
            if caller.has(capability) {
                return check(name, true, format!("not needed: this process has {}", capability.0), "");
            }
            let Some(path) = find_program(name) else {
                let cure = "install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora); without it only one \
                    id can be mapped";
                return check(name, false, "not found on PATH", cure);
            };
            let (file, set) = (path.display(), capability.0.to_lowercase());
            let cure = format!("as root: chmod u+s {file}, or setcap {set}=ep {file}");
            match gains_rights(&path) {
                Ok(how) => check(name, true, format!("{} ({how})", path.display()), ""),
                Err(why) => check(name, false, format!("{} {why}", path.display()), cure),
            }
        })
        .collect()
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok())
}

/// How an executable gives more rights to who starts it, or why it does not.
fn gains_rights(path: &Path) -> Result<&'static str, &'static str> {
    let flags = rustix::fs::statvfs(path).map(|fs| fs.f_flag);
    if flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOSUID)) {
        return Err("is on a nosuid mount, where it gains no rights");
    }
    let meta = path.metadata().map_err(|_| "cannot be looked at")?;
    if meta.mode() & 0o4000 != 0 && meta.uid() == 0 {
        return Ok("set-user-ID root");
    }
    match rustix::fs::getxattr(path, "security.capability", &mut [0_u8; 64][..]) {
        Ok(_) => Ok("file capabilities"),
        Err(_) => Err("is neither set-user-ID root nor has file capabilities"),
    }
}

fn subordinate_ids(caller: &Caller) -> Vec<Check> {
    [("/etc/subuid", CAP_SETUID, "--add-subuids"), ("/etc/subgid", CAP_SETGID, "--add-subgids")]
        .into_iter()
        .map(|(file, capability, option)| {
            let text = std::fs::read_to_string(file);
            let ranges = subordinate_ranges(text.as_deref().unwrap_or(""), caller.uid, caller.name.as_deref());
            let shown: Vec<String> = ranges.iter().map(|(first, count)| format!("{count} ids from {first}")).collect();
            let user = caller.name.clone().unwrap_or_else(|| caller.uid.to_string());
            let cure = format!("as root: usermod {option} 100000-165535 {user} (a range that nobody else has)");
            match (shown.is_empty(), text) {
                (false, _) => check(file, true, shown.join(", "), ""),
                (true, _) if caller.has(capability) => {
                    check(file, true, format!("no range for {user}; not needed with {}", capability.0), "")
                }
                (true, Ok(_)) => check(file, false, format!("no range for {user}: only one id can be mapped"), cure),
                (true, Err(error)) => check(file, false, format!("not readable: {error}"), cure),
            }
        })
        .collect()
}

/// The ranges (first, count) of a user, given by name or number: subuid(5).
fn subordinate_ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.trim_end().parse().ok()?);
        let ours = Some(owner) == name || owner.parse() == Ok(uid);
        (ours && range.1 > 0).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

fn cgroup(mounts: &[MountLine]) -> Check {
    if mounts.is_empty() {
        return check("cgroup", false, NO_PROC, MOUNT_PROC);
    }
    let outlook = outlook::look().unwrap_or_default();
    let layout = match outlook.kind {
        "hybrid" => "hybrid (v1 and v2)",
        "none" | "" => {
            let cure = "as root: mount -t cgroup2 none /sys/fs/cgroup";
            return check(
                "cgroup",
                false,
                "no hierarchy is mounted: limits on memory, cpu and pids cannot be set",
                cure,
            );
        }
        kind => kind,
    };
    let (can, cannot) = (outlook.can.join(" "), outlook.cannot.join(" "));
    let places = outlook.places.join("; ");
    let detail = match (can.is_empty(), cannot.is_empty()) {
        (true, _) => format!("{layout}; no groups can be made: memory, cpu and pids stay unlimited"),
        (false, true) => format!("{layout}; limits of {can}: {places}"),
        (false, false) => format!("{layout}; limits of {can}: {places}; none of {cannot}"),
    };
    let cure = match layout {
        "v2" if can.is_empty() => delegation::CURE,
        "v2" => {
            "the groups above do not hand the others down: as root, Delegate=cpu cpuset io memory pids in a drop-in of \
             user@.service"
        }
        _ => {
            "run as root, or let root make a group in each hierarchy, give it to this user (chown) and move this \
             process there"
        }
    };
    // What most limits need; the others are told, and are mostly root's.
    let ok = CONTROLLERS.iter().all(|name| outlook.can.contains(name));
    check("cgroup", ok, detail, cure)
}

fn fuse() -> Check {
    let path = Path::new("/dev/fuse");
    match path.metadata() {
        Ok(meta) if !meta.file_type().is_char_device() => {
            check("/dev/fuse", false, "not a device", "mount a devtmpfs on /dev")
        }
        Err(_) => check("/dev/fuse", false, "missing: fuse-overlayfs cannot be used", "as root: modprobe fuse"),
        Ok(_) => {
            let access = Access::READ_OK | Access::WRITE_OK;
            let ok = rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok();
            let detail = if ok { "may be opened" } else { "may not be opened by this user" };
            check("/dev/fuse", ok, detail, "as root: chmod 666 /dev/fuse")
        }
    }
}

fn fuse_overlayfs() -> Check {
    match find_program("fuse-overlayfs") {
        Some(path) => check("fuse-overlayfs", true, path.display().to_string(), ""),
        None => check(
            "fuse-overlayfs",
            false,
            "not found on PATH; needed only where the kernel's overlay cannot be used",
            "install the package fuse-overlayfs",
        ),
    }
}

fn raise_limits(caller: &Caller) -> Check {
    let ok = caller.has(CAP_SYS_RESOURCE) && !caller.in_user_namespace;
    let detail = match ok {
        true => "hard limits can be raised, oom_score_adj lowered",
        false => "hard limits cannot be raised, oom_score_adj not lowered",
    };
    let cure = match rustix::thread::capability_is_in_bounding_set(rustix::thread::CapabilitySet::SYS_RESOURCE) {
        Ok(false) => {
            "not in the bounding set: ask for less, or start the process around this one with CAP_SYS_RESOURCE"
        }
        _ => "run as root outside of user namespaces, or ask for limits up to the hard ones (ulimit -H -a)",
    };
    check(CAP_SYS_RESOURCE.0, ok, detail, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<MountLine> {
        text.lines().map(|line| mount_line(line.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn every_check_has_its_own_name_and_a_cure_when_it_fails() {
        let doctor = doctor();
        for (index, check) in doctor.checks.iter().enumerate() {
            assert!(doctor.checks[..index].iter().all(|other| other.name != check.name), "{} twice", check.name);
            assert!(!check.detail.is_empty() && check.ok == check.cure.is_empty(), "{check:?}");
        }
        assert!(doctor.check("kernel").unwrap().ok);
        assert_eq!(doctor.to_json()["checks"].as_array().unwrap().len(), doctor.checks.len());
    }

    #[test]
    fn table_is_aligned_and_shows_cures_of_failures_only() {
        let doctor = Doctor {
            checks: vec![check("a", true, "fine", "unused"), check("longer", false, "missing", "install it")],
        };
        assert_eq!(doctor.to_string(), "ok  a       fine\nno  longer  missing\n            -> install it\n");
        assert!(!doctor.ok());
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert!(release_at_least("5.14.0-70.el9", (5, 14)) && release_at_least("6.1", (5, 14)));
        assert!(release_at_least("10.0-rc1", (5, 14)));
        assert!(!release_at_least("5.9.99", (5, 14)) && !release_at_least("", (5, 14)));
    }

    #[test]
    fn subordinate_ranges_belong_to_a_name_or_a_number() {
        let text = "ann:100000:65536\n1000:300000:10\nbob:165536:65536\nann:400000:0\njunk\nann:x:1\n";
        assert_eq!(subordinate_ranges(text, 1000, Some("ann")), [(100000, 65536), (300000, 10)]);
        assert_eq!(subordinate_ranges(text, 1001, None), []);
    }

    #[test]
    fn users_are_found_by_number() {
        assert_eq!(user_name("root:x:0:0::/:\nann:x:1000:1000::/:\n", 1000).as_deref(), Some("ann"));
        assert_eq!(user_name("broken\n:::\n", 1000), None);
    }

    #[test]
    fn mountinfo_is_unescaped_and_optional_fields_are_skipped() {
        let line =
            mount_line(br"36 35 98:0 /a\040b /c\134d rw,noatime master:1 shared:7 - ext4 /dev/root rw,x").unwrap();
        assert_eq!((line.id, line.parent), (36, 35));
        assert_eq!((line.root, line.point), ("/a b".into(), r"/c\d".into()));
        assert_eq!((line.fstype, line.super_options), ("ext4".into(), "rw,x".into()));
        for bad in ["", "1", "1 2 3 4 5 6", "1 2 3 4 5 6 - ext4", "x 2 0:1 / / rw - a b c"] {
            assert_eq!(mount_line(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_covered_proc_is_seen() {
        let free = "22 27 0:21 / /proc rw - proc proc rw\n30 22 0:30 / /proc/sys/fs/binfmt_misc rw - binfmt_misc b rw";
        assert_eq!(covered(&lines(free), &PROC), None);
        let masked = "22 27 0:21 / /proc rw - proc proc rw\n23 22 0:5 /null /proc/kcore rw - devtmpfs d rw";
        assert_eq!(covered(&lines(masked), &PROC), Some(vec![Path::new("/proc/kcore")]));
        let second = format!("{masked}\n40 27 0:44 / /mnt/proc rw - proc proc rw");
        assert_eq!(covered(&lines(&second), &PROC), None);
        let part = "22 27 0:21 /sys /proc/sys ro - proc proc rw";
        assert_eq!(covered(&lines(part), &PROC), Some(vec![]));
    }
}
