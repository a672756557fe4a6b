//! [`Layout`]: which hierarchies this machine has, and where the caller is in them.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{At, Result, Step};
use crate::proc::unescape_path;
use crate::sys::descriptors::openat;

/// The control group hierarchies that this process can see.
///
/// Source: <https://man7.org/linux/man-pages/man7/cgroups.7.html>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// Version 2: the only one, or beside others of version 1 (hybrid).
    pub v2: Option<Hierarchy>,
    /// Those of version 1.
    pub v1: Vec<Hierarchy>,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The directory of the caller's own group; `None` where it lies outside of what is mounted.
    pub own: Option<PathBuf>,
    /// Its controllers: of v1 as mounted (or `name=...`), of v2 those of the caller's own group.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// True if it has the controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// A mount of a hierarchy, as `/proc/self/mountinfo` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    is_v2: bool,
    root: PathBuf,
    point: PathBuf,
    device: (u32, u32),
    options: String,
}

/// One line of `/proc/self/cgroup`.
struct Member {
    controllers: Vec<String>,
    path: PathBuf,
}

/// What was found last, and what shows that it still holds.
struct Known {
    members: Vec<u8>,
    mounts: Vec<(PathBuf, u64, u64)>,
    /// When they were all seen last.
    seen: Instant,
    layout: Layout,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// `/proc/self/cgroup` on a machine of version 2 alone, where each start looks at it: open, that is one call. It is about the
/// process that has opened it, whose pid is beside it.
static MEMBERS: Mutex<Option<(u32, OwnedFd)>> = Mutex::new(None);

/// How long what was found may be taken to be there still, by whom an error tells that it is not.
pub(super) const HOLDS: Duration = Duration::from_secs(1);

impl Layout {
    /// What `/proc/self/mountinfo` and `/proc/self/cgroup` say. The mounts are looked up again only when one of those that
    /// were found is no longer there.
    pub fn read() -> Result<Layout> {
        Layout::read_again(false)
    }

    /// The same; `may_be_old`: mounts that were there a moment ago are not looked at again.
    pub(super) fn read_again(may_be_old: bool) -> Result<Layout> {
        let members = members()?;
        let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = known.as_mut().filter(|known| known.members == members) {
            if may_be_old && known.seen.elapsed() < HOLDS {
                return Ok(known.layout.clone());
            }
            if known.mounts.iter().all(|(path, device, inode)| identity(path) == Some((*device, *inode))) {
                known.seen = Instant::now();
                return Ok(known.layout.clone());
            }
        }
        let mounts = std::fs::read("/proc/self/mountinfo").at(Step::CgroupLayout, "open", "/proc/self/mountinfo")?;
        let visible: Vec<Mounted> =
            mounts.split(|&byte| byte == b'\n').filter_map(mounted).filter(is_visible).collect();
        let mut layout = put_together(&members, &visible);
        if let Some(v2) = &mut layout.v2 {
            let file = v2.own.as_ref().unwrap_or(&v2.mount).join("cgroup.controllers");
            let text = std::fs::read_to_string(&file).at(Step::CgroupLayout, "open", &file)?;
            v2.controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
        }
        let shown = layout.v2.iter().chain(&layout.v1).map(|hierarchy| &hierarchy.mount);
        let mounts: Vec<_> =
            shown.filter_map(|path| identity(path).map(|(device, inode)| (path.clone(), device, inode))).collect();
        if !mounts.is_empty() {
            *known = Some(Known { members, mounts, seen: Instant::now(), layout: layout.clone() });
        }
        Ok(layout)
    }

    /// `"v2"`, `"v1"`, `"hybrid"` or `"none"`.
    pub fn kind(&self) -> &'static str {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => "v2",
            (Some(_), false) => "hybrid",
            (None, false) => "v1",
            (None, true) => "none",
        }
    }

    /// The version 1 hierarchy with this controller.
    pub fn v1_with(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.has(controller))
    }
}

/// Where this process is, as cgroups(7) has it.
fn members() -> Result<Vec<u8>> {
    const PATH: &str = "/proc/self/cgroup";
    let pid = std::process::id();
    let mut kept = MEMBERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, file)) = kept.as_ref().filter(|(of, _)| *of == pid) {
        // A hierarchy of version 1 may have come meanwhile.
        if let Some(text) = read_once(file).filter(|text| are_memberships(text)) {
            return Ok(text);
        }
        // Somebody has closed all descriptors, and the number is another file's now, which is not ours to close.
        std::mem::forget(kept.take());
    }
    let file = openat(CWD, PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = file.at(Step::CgroupLayout, "open", PATH)?;
    if let Some(text) = read_once(&file) {
        if is_v2_alone(&text) {
            *kept = Some((pid, file));
        }
        return Ok(text);
    }
    super::files::read_bytes(CWD, PATH).at(Step::CgroupLayout, "open", PATH)
}

/// A text of a usual length.
fn read_once(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut text = [0; 2048];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut text, 0)).ok()?;
    text.get(..length).filter(|_| length < text.len()).map(<[u8]>::to_vec)
}

/// True for the one line of where only version 2 is mounted.
fn is_v2_alone(text: &[u8]) -> bool {
    text.starts_with(b"0::/") && text.iter().position(|byte| *byte == b'\n') == text.len().checked_sub(1)
}

/// True for lines of numbers, controllers and paths, and nothing else.
fn are_memberships(text: &[u8]) -> bool {
    let is_one = |line: &[u8]| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let number = parts.next().unwrap_or(b"");
        !number.is_empty()
            && number.iter().all(u8::is_ascii_digit)
            && parts.nth(1).is_some_and(|path| path.starts_with(b"/"))
    };
    text.strip_suffix(b"\n").is_some_and(|lines| lines.split(|byte| *byte == b'\n').all(is_one))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// False for a mount with another one over it.
fn is_visible(mount: &Mounted) -> bool {
    let device = rustix::fs::makedev(mount.device.0, mount.device.1);
    rustix::fs::stat(&mount.point).is_ok_and(|stat| stat.st_dev == device)
}

/// What two texts say, without a look at what is there.
#[cfg(any(test, fuzzing))]
pub(super) fn of_texts(members: &[u8], mounts: &[u8]) -> Layout {
    let mounts: Vec<Mounted> = mounts.split(|&byte| byte == b'\n').filter_map(mounted).collect();
    put_together(members, &mounts)
}

fn put_together(members: &[u8], mounts: &[Mounted]) -> Layout {
    let mut layout = Layout::default();
    for member in members.split(|&byte| byte == b'\n').filter_map(member) {
        let is_v2 = member.controllers.is_empty();
        let fits = |mount: &&Mounted| {
            mount.is_v2 == is_v2
                && member.controllers.iter().all(|name| mount.options.split(',').any(|option| option == name))
        };
        // A mount that shows the caller's own group says more than one that does not.
        let candidates = || mounts.iter().filter(fits).map(|mount| (mount, own_dir(mount, &member.path)));
        let Some((mount, own)) = candidates().find(|(_, own)| own.is_some()).or_else(|| candidates().next()) else {
            continue;
        };
        let hierarchy = Hierarchy { mount: mount.point.clone(), own, controllers: member.controllers };
        if is_v2 {
            layout.v2 = Some(hierarchy);
        } else {
            layout.v1.push(hierarchy);
        }
    }
    layout
}

/// Where a group is, if it is below what is mounted.
fn own_dir(mount: &Mounted, group: &Path) -> Option<PathBuf> {
    let rest = group.strip_prefix(&mount.root).ok()?;
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    let rooted = mount.root.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    let deleted = group.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    (plain && rooted && !deleted)
        .then(|| if rest == Path::new("") { mount.point.clone() } else { mount.point.join(rest) })
}

/// `hierarchy:controllers:path` of cgroups(7).
fn member(line: &[u8]) -> Option<Member> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let controllers = std::str::from_utf8(controllers).ok()?;
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    Some(Member {
        controllers: controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        path,
    })
}

/// One line of mountinfo, if it is a control group hierarchy: proc_pid_mountinfo(5).
fn mounted(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (root, point) = (fields.next()?, fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let is_v2 = match rest.next()? {
        b"cgroup2" => true,
        b"cgroup" => false,
        _ => return None,
    };
    let options = std::str::from_utf8(rest.nth(1)?).ok()?.to_owned();
    let (major, minor) = device.split_once(':')?;
    Some(Mounted {
        is_v2,
        root: unescape_path(root),
        point: unescape_path(point),
        device: (major.parse().ok()?, minor.parse().ok()?),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "23 1 254:0 / / rw - ext4 /dev/vda rw\n\
        32 31 0:29 / /cg/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /box /cg/mem\\040ory rw shared:3 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate";

    fn of(members: &str, mounts: &str) -> Layout {
        of_texts(members.as_bytes(), mounts.as_bytes())
    }

    #[test]
    fn hierarchies_are_found_by_their_controllers() {
        let layout = of("9:name=systemd:/\n4:memory:/box/a b\n1:cpu,cpuacct:/x\n0::/u:v\n", HYBRID);
        assert_eq!(layout.kind(), "hybrid");
        assert_eq!(layout.v2.as_ref().and_then(|v2| v2.own.clone()), Some("/cg/unified/u:v".into()));
        assert_eq!(layout.v1_with("cpuacct").and_then(|cpu| cpu.own.clone()), Some("/cg/cpu/x".into()));
        assert_eq!(layout.v1_with("memory").and_then(|memory| memory.own.clone()), Some("/cg/mem ory/a b".into()));
        assert!(layout.v1_with("pids").is_none() && layout.v1.len() == 2, "what is not mounted is not there");
    }

    #[test]
    fn one_line_of_version_2_is_told_apart() {
        assert!(is_v2_alone(b"0::/\n") && is_v2_alone(b"0::/a/b.scope\n"));
        assert!(are_memberships(b"0::/a\n") && are_memberships(b"5:net_cls,net_prio:/a:b\n1:name=systemd:/\n0::/\n"));
        for other in ["", "0::/", "\n", "root:x:0:0::/root:/bin/sh\n", "0::/\nx\n", "1:2\n"] {
            assert!(!are_memberships(other.as_bytes()), "{other:?}");
        }
        for text in ["", "0::/", "0::/\n0::/\n", "0::/\n\n", "1:cpu:/\n0::/\n", "4:memory:/\n", "rubbish\n"] {
            assert!(!is_v2_alone(text.as_bytes()), "{text:?}");
        }
        let alone = members().unwrap();
        assert_eq!(members().unwrap(), alone);
        assert_eq!(MEMBERS.lock().unwrap().is_some(), is_v2_alone(&alone));
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_has_no_directory() {
        for group in ["/other", "/box/../x", "/box/gone (deleted)"] {
            let layout = of(&format!("4:memory:{group}\n"), HYBRID);
            assert_eq!(layout.v1_with("memory").map(|memory| memory.own.clone()), Some(None), "{group}");
        }
    }

    #[test]
    fn strange_lines_are_passed_over() {
        for line in ["", "x", "1 2 3", "1 2 a:b / / rw - cgroup2 x rw", "1 2 0:1 / /x rw - cgroup2"] {
            assert_eq!(mounted(line.as_bytes()), None, "{line}");
        }
        assert_eq!(of("0::", HYBRID).v2.and_then(|v2| v2.own), None);
        assert_eq!(unescape_path(b"a\\040b\\134\\9\\"), Path::new("a b\\\\9\\"));
    }
}
