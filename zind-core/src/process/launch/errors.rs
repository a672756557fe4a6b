//! From the numbers of a report to an error with names and a hint.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use zind_init::measured::Part;
use zind_init::report::Report;

use super::Starting;
use crate::error::{Error, Step};
use crate::process::hooks;
use crate::process::measured;
use crate::process::plan::Names;
use crate::process::watched::Above;
use crate::rootfs::ops::Op;
use crate::rootfs::stand_in;
use crate::sys::clone::StartFailure;

impl Starting {
    /// Turns the numbers of a report into an error with names.
    pub(super) fn failure(&mut self, report: &Report) -> Error {
        let Some(step) = Step::from_number(report.step) else {
            return Error::sys(Step::Report, "", "", Errno::EPROTO);
        };
        let errno = Errno::from_raw(report.value);
        let index = usize::from(report.index);
        if step == Step::Hook {
            self.wait_for_end();
            return hooks::reported(&self.prepared.names.hooks, index, report.value, &self.log);
        }
        if step == Step::ReadBack
            && let Some(part) = Part::from_number(report.index)
        {
            self.wait_for_end();
            return measured::differs(part, self.reading.take());
        }
        if step == Step::ReadMount {
            self.wait_for_end();
            let place = self.prepared.names.place(index);
            let path = if place.is_absolute() { place } else { Path::new("/proc").join(place) };
            return measured::mount_differs(path, self.reading.take());
        }
        let error = Error::sys(step, self.prepared.names.syscall(step), self.prepared.names.object(step, index), errno);
        let mut hint = self.prepared.names.hint(step, errno);
        if self.prepared.names.is_overlay_of_root(index) && stand_in::is_refusal(errno) {
            hint = "the root cannot be the lower directory of an overlay here, or overlay= not the upper one (another overlay, a network file system): read_only=True and overlay=False need none".to_owned();
        }
        if let Some(name) = self.prepared.names.asked_for(step, index) {
            hint = format!("it is {name}{}{hint}", if hint.is_empty() { "" } else { "; " });
        }
        if let Some(source) = self.prepared.names.source(step, index) {
            hint = format!("{source} was to come there{}{hint}", if hint.is_empty() { "" } else { "; " });
        }
        if step == Step::JoinCgroup {
            hint = join_hint(errno).to_owned();
        }
        if !self.log.is_empty() {
            hint = format!("the kernel says: {}{}{hint}", self.log, if hint.is_empty() { "" } else { "; " });
        }
        self.wait_for_end();
        error.with_hint(hint)
    }

    /// The launcher is gone without a word.
    pub(super) fn died_early(&mut self) -> Error {
        let was_asked = matches!(&self.waiter, Some(Above::Monitor(link)) if link.was_asked_to_end());
        self.wait_for_end();
        if was_asked {
            return Error::State("the container was killed while it was being started".to_owned());
        }
        let memory_ran_out = self.prepared.group.as_ref().is_some_and(|group| group.memory_was_short());
        let too_little = "memory ran out before the program ran: the limit in resources= is too low to start anything";
        match self.waiter.as_ref().and_then(Above::failure) {
            Some(StartFailure::Clone(errno)) => {
                let error = Error::sys(Step::Clone, self.prepared.clone_call(), "", errno);
                explain_clone(error, self.prepared.group.is_some())
            }
            Some(StartFailure::Exec(errno)) => {
                let error = Error::sys(Step::Launcher, "execveat", "", errno);
                if errno == Errno::ENOMEM && self.prepared.group.is_some() {
                    error.with_hint(too_little)
                } else {
                    error
                }
            }
            None if memory_ran_out => Error::sys(Step::Report, "", "zind-init", Errno::ENOMEM).with_hint(too_little),
            None => Error::sys(Step::Report, "", "zind-init", Errno::ECHILD)
                .with_hint("the launcher ended before the program ran: somebody killed it, memory ran out, or a filter around this process hides one of the calls that it begins with"),
        }
    }
}

/// What to do about a group that takes nobody in.
fn join_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => {
            "this user may not move processes there: who moves one has to own it, and on v2 may write to cgroup.procs of the group above both"
        }
        Errno::ENOSPC => "the cpuset has no CPUs or memory nodes",
        Errno::EINVAL => "a process with a real-time policy needs cpu_rt_runtime_us in its group",
        Errno::EBUSY => "a group that hands controllers down takes no processes",
        Errno::EOPNOTSUPP => "the group is a threaded one, or below one",
        Errno::ESRCH | Errno::ECHILD => "the launcher, or who was to move it, ended meanwhile",
        _ => "",
    }
}

pub(super) fn explain_clone(error: Error, has_group: bool) -> Error {
    let hint = match error.errno() {
        Some(errno @ (Errno::EACCES | Errno::EBUSY | Errno::EOPNOTSUPP)) if has_group => join_hint(errno),
        Some(Errno::EPERM) => {
            "the kernel or a security module does not let this user make namespaces; zind.doctor() tells which setting"
        }
        Some(Errno::ENOSPC | Errno::EUSERS) => {
            "a limit of namespaces is reached: /proc/sys/user/max_*_namespaces, or 32 levels of nesting"
        }
        Some(Errno::EAGAIN) => {
            "a limit of processes is reached: RLIMIT_NPROC, pids.max of the control group, or kernel.pid_max"
        }
        Some(Errno::EINVAL) => "this kernel lacks one of the namespaces that were asked for",
        _ => "",
    };
    error.with_hint(hint)
}

/// The call behind a step, where it is a single one.
fn syscall_of(step: Step) -> &'static str {
    match step {
        Step::Setns => "setns",
        Step::Unshare => "unshare",
        Step::CloseFds => "close_range",
        Step::Fork => "clone",
        Step::Wait => "wait4",
        Step::Signals => "rt_sigprocmask",
        Step::OldRoot => "statx",
        Step::Hostname => "sethostname",
        Step::Domainname => "setdomainname",
        Step::Mkdir => "mkdirat",
        Step::Symlink => "symlinkat",
        Step::Mknod => "mknodat",
        Step::Mount => "fsconfig",
        Step::Bind => "move_mount",
        Step::MountSetattr | Step::Propagation => "mount_setattr",
        Step::PivotRoot => "pivot_root",
        Step::Chroot => "chroot",
        Step::MountTarget | Step::Chdir => "openat2",
        Step::Setsid => "setsid",
        Step::Setpgid => "setpgid",
        Step::ControllingTerminal | Step::Foreground | Step::Loopback => "ioctl",
        Step::Terminal => "openat2",
        Step::ArrangeFds => "dup3",
        Step::JoinCgroup => "write",
        Step::Rlimit => "prlimit",
        Step::Nice => "setpriority",
        Step::Scheduler => "sched_setattr",
        Step::Keyring => "keyctl",
        Step::Personality => "personality",
        Step::Setgroups => "setgroups",
        Step::Setgid => "setresgid",
        Step::Setuid => "setresuid",
        Step::Capabilities => "capset",
        Step::BoundingSet | Step::Ambient | Step::NoNewPrivileges | Step::ParentDeath | Step::Securebits => "prctl",
        Step::Ptrace => "ptrace",
        Step::Seccomp => "seccomp",
        Step::Landlock => "landlock_restrict_self",
        Step::LandlockPath => "openat2",
        Step::LandlockRule | Step::LandlockPort => "landlock_add_rule",
        Step::Exec | Step::Interpreter => "execve",
        Step::LabelCheck => "pread64",
        Step::Label | Step::OomScoreAdj | Step::TimeOffsets | Step::WriteFile | Step::Sysctl => "write",
        _ => "",
    }
}

impl Names {
    pub(super) fn is_overlay_of_root(&self, index: usize) -> bool {
        self.fs.get(index).is_some_and(Op::is_overlay_of_root)
    }

    fn syscall(&self, step: Step) -> &'static str {
        match step {
            Step::Mount | Step::Bind | Step::MountSetattr if self.older_mounts => "mount",
            _ => syscall_of(step),
        }
    }

    /// Which of the caller's mounts or devices it was.
    fn asked_for(&self, step: Step, index: usize) -> Option<String> {
        let op = self.fs.get(index).filter(|_| self.object(step, index) != Path::new(""))?;
        let mount = op.mount.map(|number| format!("mounts[{number}]"));
        mount.or_else(|| op.of_device.map(|number| format!("devices[{number}]")))
    }

    /// What a mount that failed was to be.
    fn source(&self, step: Step, index: usize) -> Option<String> {
        let is_mount = matches!(step, Step::Mount | Step::Bind | Step::MountTarget);
        self.fs.get(index).filter(|_| is_mount).map(Op::source_text).filter(|source| !source.is_empty())
    }

    fn object(&self, step: Step, index: usize) -> PathBuf {
        let list = |names: &[PathBuf]| names.get(index).cloned().unwrap_or_default();
        match step {
            Step::Setns | Step::Unshare => list(&self.enter),
            Step::Exec | Step::Interpreter if self.programs.len() > 1 => {
                // Looked for in several places: what the caller wrote says more than the last of them.
                self.programs[0].file_name().map(PathBuf::from).unwrap_or_default()
            }
            Step::Exec | Step::Interpreter => list(&self.programs),
            Step::JoinCgroup => list(&self.groups),
            Step::Sysctl => list(&self.sysctls),
            Step::LandlockPath | Step::LandlockRule => list(&self.landlock),
            Step::Label | Step::LabelCheck => list(&self.labels),
            Step::LandlockPort => self.ports.get(index).map(|port| port.to_string().into()).unwrap_or_default(),
            Step::Rlimit => self.rlimits.get(index).map(PathBuf::from).unwrap_or_default(),
            Step::Chdir => self.cwd.clone(),
            Step::Setuid | Step::Setgid => self.user.clone(),
            Step::ArrangeFds => self.fds.get(index).map(|fd| PathBuf::from(fd.to_string())).unwrap_or_default(),
            Step::BoundingSet | Step::Ambient => PathBuf::from(format!("capability {index}")),
            Step::Mkdir
            | Step::Symlink
            | Step::WriteFile
            | Step::Mknod
            | Step::Mount
            | Step::Bind
            | Step::MountSetattr
            | Step::OpenRoot
            | Step::PivotRoot
            | Step::OldRoot
            | Step::Chroot
            | Step::Mask
            | Step::ReadonlyPath
            | Step::Umount
            | Step::MountTarget
            | Step::Fuse
            | Step::Staging => self.place(index),
            Step::Terminal => PathBuf::from("/dev/pts/ptmx"),
            _ => PathBuf::new(),
        }
    }

    /// What an operation was about. What is put together in the staging area is told by where it was to come.
    fn place(&self, index: usize) -> PathBuf {
        let Some(op) = self.fs.get(index) else { return PathBuf::new() };
        let is_its_place = |other: &&Op| other.mount.is_some() && other.mount == op.mount && other.is_in_root();
        let place = self.fs.iter().skip(index).find(is_its_place).filter(|_| !op.is_in_root());
        place.unwrap_or(op).object()
    }

    fn hint(&self, step: Step, errno: Errno) -> String {
        let text = match (step, errno) {
            (Step::Exec, Errno::ENOENT) if self.programs.len() > 1 => {
                let places: Vec<_> = self
                    .programs
                    .iter()
                    .filter_map(|path| path.parent())
                    .map(|dir| dir.display().to_string())
                    .collect();
                return format!("the program is in none of {} of the container", places.join(":"));
            }
            (Step::Exec, Errno::ENOENT) => "there is no such program in the container",
            (Step::Exec, Errno::EACCES) if self.has_landlock => {
                "landlock has to let the program, its interpreter and its dynamic loader be read and executed (rox=/usr); or the file is not executable for this user"
            }
            (Step::Label, Errno::ENOENT) => "no such profile is loaded: apparmor_parser(8), aa-status(8)",
            (Step::Label, Errno::EINVAL) => "the policy that is loaded has no such label, or its name is none",
            (Step::Label, Errno::EACCES | Errno::EPERM) => "the caller's own label does not let it change to this one",
            (Step::Label, Errno::EXDEV) => "something is mounted over a part of /proc/self/attr here",
            (Step::LabelCheck, _) => "the kernel has taken another label than was asked for",
            (Step::Exec, Errno::EACCES | Errno::EPERM) if !self.labels.is_empty() => {
                "the file is not executable for this user, or the policy does not let the program change to the label"
            }
            (Step::Landlock, Errno::EPERM) => "without no_new_privileges this takes CAP_SYS_ADMIN",
            (Step::Landlock, Errno::E2BIG) => "the kernel takes no more than 16 domains one in another",
            (Step::LandlockPath, Errno::ENOENT | Errno::ENOTDIR) => {
                "a rule is for what is there when the container starts, at a path of its root"
            }
            (Step::LandlockPath, Errno::ELOOP) => "links like /proc/self/fd are not followed",
            (Step::LandlockRule, Errno::EINVAL) => {
                "a right for directories was asked for by its name (make_dir), and this is none; read and write fit both"
            }
            (Step::LandlockRule, Errno::EBADFD) => "files of the kernel's own, as pipes and sockets are, take no rules",
            (Step::Exec, Errno::EACCES) => "the file is not executable for this user, or lies on a mount with noexec",
            (Step::Exec, Errno::ENOEXEC) => "the file is neither a program for this machine nor does it begin with #!",
            (Step::Exec, Errno::E2BIG) => {
                "arguments and environment are too large: together a quarter of the stack limit, each at most 128 KiB"
            }
            (Step::Interpreter, _) => {
                "the program is there, but the interpreter of its first line, or its dynamic loader, is not"
            }
            (Step::Chdir, Errno::ENOENT) => "there is no such directory in the container; cwd is a path inside of it",
            (Step::Chdir, Errno::ELOOP) => "links like /proc/self/fd are not followed",
            (Step::Rlimit, Errno::EPERM) => {
                "the hard limit of the caller is lower, and raising it needs CAP_SYS_RESOURCE"
            }
            (Step::Rlimit, Errno::EINVAL) => "the soft limit is above the hard one",
            (Step::Sysctl, Errno::ENOENT) => "this kernel has no such parameter in a namespace",
            (Step::Sysctl, Errno::EACCES | Errno::EPERM) => {
                "the parameter cannot be changed in a namespace of this user's"
            }
            (Step::Sysctl, Errno::EINVAL | Errno::ERANGE) => "the kernel does not take this value",
            (Step::Sysctl, Errno::EXDEV | Errno::EROFS | Errno::ELOOP) => {
                "something is mounted over /proc/sys here, as in a container of Docker's"
            }
            (Step::OomScoreAdj, Errno::EACCES) => "lowering oom_score_adj needs CAP_SYS_RESOURCE",
            (Step::Nice, Errno::EACCES | Errno::EPERM) => {
                "a lower nice value needs CAP_SYS_NICE or a higher RLIMIT_NICE"
            }
            (Step::Scheduler, Errno::EPERM) => {
                "real-time policies need CAP_SYS_NICE or RLIMIT_RTPRIO, and cpu.rt_runtime_us on control groups v1"
            }
            (Step::Setuid | Step::Setgid, Errno::EINVAL) => "the id is not mapped in the user namespace",
            (Step::Setgroups, Errno::EPERM) => {
                "setgroups is denied in this user namespace: a single id is mapped; use uid_map=\"auto\""
            }
            (Step::Setns, Errno::EUSERS) => {
                "a time namespace takes CAP_SYS_ADMIN over the caller's own user namespace: run as root"
            }
            (Step::Terminal, Errno::ENOENT | Errno::ENODEV | Errno::ELOOP) => {
                "the container has no /dev/pts of its own any more; a terminal of the host's can be passed by its descriptors"
            }
            (Step::Terminal, Errno::ENOSPC) => "the limit of terminals is reached: kernel.pty.max",
            (Step::Setns, Errno::EPERM) => "joining needs CAP_SYS_ADMIN over that namespace and over the caller's own",
            (Step::Setns, Errno::EINVAL) => {
                "a process cannot join the user namespace it is in already, nor a pid namespace above its own"
            }
            (Step::Mount, Errno::EINVAL) if self.older_mounts => {
                "mount(2) does not say what it dislikes, as the newer interface would, which is hidden here; the kernel's log may"
            }
            (_, Errno::ENOTCONN | Errno::ECONNABORTED) => "fuse-overlayfs(1), which serves the root, has ended",
            (Step::Mount, Errno::ENODEV) => "this kernel has no such file system",
            (Step::Mount, Errno::ELOOP) => "the directories of an overlay must not lie in each other",
            (Step::Mount | Step::Bind, Errno::EPERM) => "this user may not mount that here",
            (Step::MountSetattr, Errno::EPERM) => {
                "a user namespace may protect what it got from outside but take no protection away, nor change how access times are kept: mount_namespaces(7)"
            }
            (Step::Bind, Errno::EINVAL) => {
                "of a directory with mounts in it an ordinary user takes all (recursive), since what they cover would come into sight; an unbindable mount is not taken at all"
            }
            (Step::Bind, Errno::ENOTDIR) => "a directory was to be mounted over a file",
            (Step::Bind, Errno::EISDIR) => "a file was to be mounted over a directory",
            (Step::MountTarget, Errno::ENOSYS | Errno::EPERM) => {
                "a filter around this process hides the call, and nothing else keeps a path inside of a root: let the outer container allow it"
            }
            (Step::MountTarget, Errno::EROFS) => {
                "the mount point is missing and the root is read-only; make it there, or use an overlay"
            }
            (Step::MountTarget, Errno::EEXIST) => "there is something else already, which is no empty file",
            (Step::Bind, Errno::ESTALE) => "what is at the path of the source was replaced meanwhile",
            (Step::MountTarget | Step::Mask | Step::ReadonlyPath, Errno::ELOOP) => {
                "a part of the path is a symbolic link, which a mount point must not be"
            }
            (Step::Mount | Step::Bind | Step::Umount | Step::PivotRoot, Errno::ENOSPC) => {
                "the limit of mounts is reached: fs.mount-max"
            }
            (Step::Ambient, Errno::EPERM) => "an ambient capability must be permitted and inheritable",
            (Step::Foreground, Errno::ENOTTY) => "the descriptor is no terminal, or not the controlling one",
            (Step::ControllingTerminal, _) => "the descriptor must be a terminal that no other session controls",
            (Step::Seccomp, Errno::EBUSY) => {
                "a filter with a listener is in force already: there is one listener at most"
            }
            (Step::Exec, Errno::EPERM | Errno::ENOSYS) if self.has_profile => {
                "the seccomp profile does not let execve pass, without which no program begins"
            }
            (Step::Seccomp, Errno::EACCES) => "a filter needs no_new_privileges or CAP_SYS_ADMIN",
            (Step::CloseFds, Errno::ENOSYS | Errno::EPERM) => {
                "a filter around this process hides the call, and no procfs on /proc tells what is open: let the outer container allow it, or mount /proc"
            }
            (Step::ArrangeFds, Errno::EBADF) => "the descriptor is not open in this process",
            _ => "",
        };
        text.to_owned()
    }
}
