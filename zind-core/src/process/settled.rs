//! What of a further program in a container can be done before it is asked for.
#![forbid(unsafe_code)]

use zind_init::plan::{self as wire, Capabilities, List, Plan, Str};

use super::plan::Builder;
use crate::spec::{Seccomp, Spec};

/// How a program is let into a container, but for its arguments, environment and descriptors. Where two are equal, the one's joiner
/// will do for the other.
#[derive(PartialEq)]
pub(super) struct Settled {
    flags: u64,
    umask: u32,
    gid: u32,
    uid: u32,
    capabilities: Capabilities,
    securebits: i32,
    seccomp_flags: u64,
    /// Namespaces, limits, groups and the filter as the plan has them.
    lists: [Vec<u8>; 4],
}

/// The plan has no list or text that the launcher would have to act on.
const NOTHING_ELSE: u64 = wire::SETSID
    | wire::UMASK
    | wire::KEYRING
    | wire::GROUPS
    | wire::GID
    | wire::UID
    | wire::CAPABILITIES
    | wire::NO_NEW_PRIVILEGES
    | wire::SECCOMP
    | wire::MARKED;

impl Settled {
    /// `None` for a program with anything that has to be looked up or made in the moment that it is started, and for one with a
    /// filter of the caller's: what a joiner calls that waits under it has to pass.
    pub(super) fn of(builder: &Builder, spec: &Spec) -> Option<Settled> {
        let is_our_filter = spec.seccomp == Seccomp::Default && spec.no_new_privileges;
        if builder.plan.flags & wire::SECCOMP != 0 && !is_our_filter {
            return None;
        }
        // Each field is here: one that is new has to be thought of.
        let Plan {
            magic: _,
            version: _,
            size: _,
            flags,
            topology: _,
            // Of each program its own, or the launcher's.
            socket: _,
            owner: _,
            container: _,
            control: _,
            ready: _,
            keep: _,
            programs: _,
            argv: _,
            envp: _,
            fds: _,
            // The same container.
            enter,
            // To be none.
            proc,
            network,
            network_ready,
            groups_ready,
            memory_events,
            memory_news,
            root,
            group,
            terminal,
            terminal_size,
            handover,
            group_files,
            holds,
            fork_flags,
            time_offsets,
            hostname,
            domainname,
            fs,
            sysctls,
            cwd,
            labels,
            landlock,
            monitor,
            hooks,
            // Of what the flags ask for.
            owner_uid: _,
            owner_gid: _,
            setup_uid: _,
            setup_gid: _,
            pgid: _,
            ctty: _,
            oom_score_adj: _,
            nice: _,
            scheduler: _,
            personality: _,
            pdeathsig: _,
            hook_states: _,
            // To be the same.
            umask,
            rlimits,
            groups,
            gid,
            uid,
            capabilities,
            securebits,
            seccomp,
            seccomp_flags,
        } = builder.plan;
        let numbers =
            [proc, network, network_ready, groups_ready, memory_events, memory_news, root, group, terminal, handover];
        let texts = [time_offsets, hostname, domainname, cwd];
        let lists = [
            group_files.len,
            holds.len,
            fs.len,
            sysctls.len,
            labels.len,
            landlock.paths.len,
            landlock.ports.len,
            monitor.len,
            hooks.len,
        ];
        let is_plain = flags & !NOTHING_ELSE == 0
            && numbers.iter().all(|number| *number < 0)
            && texts.iter().all(|text| *text == Str(0))
            && lists.iter().all(|len| *len == 0)
            && (terminal_size, fork_flags, enter.len) == (0, 0, 1);
        if !is_plain || !has_room(spec) {
            return None;
        }
        // The number of the descriptor is another one each time.
        let entered: List<u64> = List { offset: enter.offset, len: enter.len, of: std::marker::PhantomData };
        let entered = builder.writer.bytes_of(entered)?.get(4..)?.to_vec();
        let writer = &builder.writer;
        let [limits, groups, filter] = [writer.bytes_of(rlimits)?, writer.bytes_of(groups)?, writer.bytes_of(seccomp)?];
        let lists = [entered, limits.to_vec(), groups.to_vec(), filter.to_vec()];
        Some(Settled { flags, umask, gid, uid, capabilities, securebits, seccomp_flags, lists })
    }
}

/// A joiner that waits under these limits can still do its work.
fn has_room(spec: &Spec) -> bool {
    const OPEN_FILES: u64 = 2 * wire::AGAIN_NUMBERS as u64;
    spec.rlimits.iter().all(|limit| match limit.resource {
        libc::RLIMIT_CORE | libc::RLIMIT_MEMLOCK | libc::RLIMIT_MSGQUEUE | libc::RLIMIT_SIGPENDING => true,
        libc::RLIMIT_NICE | libc::RLIMIT_RTPRIO | libc::RLIMIT_STACK => true,
        libc::RLIMIT_NOFILE => limit.soft.is_none_or(|soft| soft >= OPEN_FILES),
        // Of memory and time, and of processes, which it would be one more of.
        _ => false,
    })
}
