//! Which devices a container may use: rules, their files on v1, their program on v2.
//!
//! Device files on v1 are `devices.allow` and `devices.deny`. Control groups v2 have none: there a program of the kernel's
//! virtual machine, attached to the group, answers each access. Both are made of the same rules by the same order: the last
//! rule that speaks of an access decides it.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;

use super::resources::{DeviceKind, DeviceRule};
use crate::error::{Error, Result, Step};
use crate::sys::bpf::{self, Instruction};

/// More rules than this are refused.
const MOST_RULES: usize = 1000;

/// One rule, as the kernel has it. The rules of a container begin with one that denies everything; its last ones allow what
/// every container has (`/dev/null` and the like, terminals, making nodes), as those of runc do.
///
/// Source: <https://docs.kernel.org/admin-guide/cgroup-v1/devices.html>,
/// <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: DeviceKind,
    major: Option<u32>,
    minor: Option<u32>,
    read: bool,
    write: bool,
    mknod: bool,
}

impl From<&DeviceRule> for Rule {
    fn from(rule: &DeviceRule) -> Rule {
        let [read, write, mknod] = ['r', 'w', 'm'].map(|letter| rule.access.contains(letter));
        Rule { allow: rule.allow, kind: rule.kind, major: rule.major, minor: rule.minor, read, write, mknod }
    }
}

impl Rule {
    /// Every access to every device.
    const fn all(allow: bool) -> Rule {
        Rule { allow, kind: DeviceKind::All, major: None, minor: None, read: true, write: true, mknod: true }
    }

    const fn allowed(kind: DeviceKind, major: u32, minor: Option<u32>) -> Rule {
        Rule { kind, major: Some(major), minor, ..Rule::all(true) }
    }

    const fn nodes(kind: DeviceKind) -> Rule {
        Rule { kind, read: false, write: false, ..Rule::all(true) }
    }

    /// The letters of what it is about: `"rwm"`.
    fn access(&self) -> String {
        [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')].iter().filter(|(is, _)| *is).map(|(_, l)| *l).collect()
    }

    /// The kernel's bits of the access: `BPF_DEVCG_ACC_*`.
    fn bits(&self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }

    fn is_about_everything(&self) -> bool {
        self.kind == DeviceKind::All && self.major.is_none() && self.minor.is_none() && self.bits() == ALL_BITS
    }

    /// `All` with numbers, or of less than every access, is one of each kind: the kernel's `a` is always about everything.
    fn split(self) -> Vec<Rule> {
        if self.kind != DeviceKind::All || self.is_about_everything() {
            return vec![self];
        }
        [DeviceKind::Char, DeviceKind::Block].map(|kind| Rule { kind, ..self }).to_vec()
    }

    /// Every device of `other` is one of this rule's.
    fn covers(&self, other: &Rule) -> bool {
        let within = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || mine == theirs;
        self.kind == other.kind && within(self.major, other.major) && within(self.minor, other.minor)
    }

    /// Some device is of both.
    fn meets(&self, other: &Rule) -> bool {
        let both = |one: Option<u32>, two: Option<u32>| one.is_none() || two.is_none() || one == two;
        self.kind == other.kind && both(self.major, other.major) && both(self.minor, other.minor)
    }

    fn with(self, bits: i32) -> Rule {
        Rule { mknod: true, read: true, write: true, ..self }.without(!bits)
    }

    fn without(self, bits: i32) -> Rule {
        let left = self.bits() & !bits;
        Rule { mknod: left & 1 != 0, read: left & 2 != 0, write: left & 4 != 0, ..self }
    }
}

const ALL_BITS: i32 = 7;

impl fmt::Display for Rule {
    /// `"deny c 1:3 rwm"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.allow { "allow" } else { "deny" }, Line(self))
    }
}

/// A rule without its verb.
struct Line<'a>(&'a Rule);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{} {}", self.0.kind.letter(), number(self.0.major), number(self.0.minor), self.0.access())
    }
}

/// What every container has, whatever the rules say: null, zero, full, random, urandom, tty, ptmx, terminals; and nodes of
/// any device can be made, which is another thing than to open them.
const ALWAYS: [Rule; 10] = [
    Rule::nodes(DeviceKind::Char),
    Rule::nodes(DeviceKind::Block),
    Rule::allowed(DeviceKind::Char, 1, Some(3)),
    Rule::allowed(DeviceKind::Char, 1, Some(5)),
    Rule::allowed(DeviceKind::Char, 1, Some(7)),
    Rule::allowed(DeviceKind::Char, 1, Some(8)),
    Rule::allowed(DeviceKind::Char, 1, Some(9)),
    Rule::allowed(DeviceKind::Char, 5, Some(0)),
    Rule::allowed(DeviceKind::Char, 5, Some(2)),
    Rule::allowed(DeviceKind::Char, 136, None),
];

/// Everything that is in force with the caller's rules: nothing but what they, and every container's devices, allow.
fn effective(rules: &[DeviceRule]) -> Result<Vec<Rule>> {
    if rules.len() > MOST_RULES {
        return Err(Error::spec("resources", format!("devices: {} rules are more than {MOST_RULES}", rules.len())));
    }
    let all = std::iter::once(Rule::all(false)).chain(rules.iter().map(Rule::from)).chain(ALWAYS);
    Ok(all.flat_map(Rule::split).collect())
}

/// The files of v1 and what is written to each, in order.
///
/// Errors: [`Error::Unsupported`] where a rule takes something out of a wider one before it: v1 only knows a list.
pub(crate) fn v1_lines(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>> {
    let rules = effective(rules)?;
    // What came before a rule about everything does not count any more.
    let base_at = rules.iter().rposition(Rule::is_about_everything).unwrap_or(0);
    let allows = rules[base_at].allow;
    let mut exceptions: Vec<Rule> = Vec::new();
    for rule in &rules[base_at + 1..] {
        if rule.allow != allows {
            match exceptions.iter_mut().find(|old| old.covers(rule) && rule.covers(old)) {
                Some(old) => {
                    let bits = old.bits() | rule.bits();
                    *old = rule.with(bits);
                }
                None => exceptions.push(*rule),
            }
            continue;
        }
        for old in exceptions.iter_mut().filter(|old| old.meets(rule) && old.bits() & rule.bits() != 0) {
            if !rule.covers(old) {
                return Err(Error::unsupported(
                    format!("the device rule {rule} after {old}"),
                    "control groups v2: those of v1 take no device out of a wider rule before it",
                ));
            }
            *old = old.without(rule.bits());
        }
    }
    let (base, file) = if allows { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    let lines = exceptions.iter().filter(|rule| rule.bits() != 0).map(|rule| (file, Line(rule).to_string()));
    Ok(std::iter::once((base, "a".to_owned())).chain(lines).collect())
}

/// The program for v2: the last rule that speaks of an access decides it, for each of read, write and mknod.
///
/// Source: `BPF_PROG_TYPE_CGROUP_DEVICE`, `struct bpf_cgroup_dev_ctx` in
/// <https://github.com/torvalds/linux/blob/master/include/uapi/linux/bpf.h>
fn program(rules: &[Rule]) -> Vec<Instruction> {
    use bpf::{Register as R, and, answer, copy, is_equal, is_not_equal, load_word, shift_right};
    const CONTEXT: R = R(1);
    const KIND: R = R(2);
    const ACCESS: R = R(3);
    const MAJOR: R = R(4);
    const MINOR: R = R(5);
    const SCRATCH: R = R(0);
    let mut code = vec![
        // access_type: the kind in the lower half, the access in the upper.
        load_word(KIND, CONTEXT, 0),
        copy(ACCESS, KIND),
        and(KIND, 0xffff),
        shift_right(ACCESS, 16),
        load_word(MAJOR, CONTEXT, 4),
        load_word(MINOR, CONTEXT, 8),
    ];
    for rule in rules.iter().rev() {
        let mut tail = Vec::new();
        if rule.allow && rule.bits() != ALL_BITS {
            // What is allowed is asked for no longer; with nothing left, all of it is.
            tail.push(and(ACCESS, ALL_BITS & !rule.bits()));
            tail.push(is_not_equal(ACCESS, 0, 2));
        } else if rule.bits() != ALL_BITS {
            tail.push(copy(SCRATCH, ACCESS));
            tail.push(and(SCRATCH, rule.bits()));
            tail.push(is_equal(SCRATCH, 0, 2));
        }
        tail.extend(answer(i32::from(rule.allow)));
        let kind = match rule.kind {
            DeviceKind::All => None,
            DeviceKind::Block => Some(1),
            DeviceKind::Char => Some(2),
        };
        let tests: Vec<_> = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
            .into_iter()
            .filter_map(|(register, number)| Some((register, i32::try_from(number?).ok()?)))
            .collect();
        for (at, (register, number)) in tests.iter().enumerate() {
            code.push(is_not_equal(*register, *number, (tests.len() - at - 1 + tail.len()) as i16));
        }
        code.extend(tail);
        if rule.is_about_everything() {
            // Nothing gets past it, and the kernel refuses code that is never reached.
            return code;
        }
    }
    code.extend(answer(0));
    code
}

/// Puts the rules in force for a group of v2, by its directory; a program of an earlier call is replaced.
///
/// Errors: [`Error::Unsupported`] for callers without `CAP_BPF` and `CAP_NET_ADMIN` (or `CAP_SYS_ADMIN`), and where the kernel
/// lacks `CONFIG_CGROUP_BPF`; [`Error::Sys`] at [`Step::DeviceProgram`].
pub(crate) fn attach_v2(group: BorrowedFd<'_>, path: &Path, rules: &[DeviceRule]) -> Result<()> {
    let code = program(&effective(rules)?);
    let refused = |call: &'static str| {
        move |errno: Errno| match errno {
            Errno::EPERM => Error::unsupported(
                "device rules",
                "root outside of user namespaces: on control groups v2 they are a program (CAP_BPF and CAP_NET_ADMIN)",
            ),
            Errno::ENOSYS | Errno::EINVAL if call == "BPF_PROG_LOAD" => {
                Error::unsupported("device rules", "a kernel with CONFIG_CGROUP_BPF, and bpf(2) not hidden by a filter")
            }
            _ => Error::sys(Step::DeviceProgram, call, path, errno),
        }
    };
    let new = bpf::load_device_program(&code).map_err(refused("BPF_PROG_LOAD"))?;
    let old = bpf::device_programs(group).map_err(refused("BPF_PROG_QUERY"))?;
    // Between the two calls both are asked, and what either refuses is refused.
    bpf::attach_device_program(group, &new).map_err(refused("BPF_PROG_ATTACH"))?;
    for id in old {
        bpf::detach_device_program(group, id).map_err(refused("BPF_PROG_DETACH"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGroup;
    use super::*;

    fn rules(texts: &[&str]) -> Vec<DeviceRule> {
        let rule = |text: &&str| match text.strip_prefix("deny ") {
            Some(text) => DeviceRule::parse(text, false).unwrap(),
            None => DeviceRule::parse(text, true).unwrap(),
        };
        texts.iter().map(rule).collect()
    }

    /// What the kernel's machine would do; it has only what [`program`] uses.
    fn run(code: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [kind | access << 16, major, minor];
        let mut registers = [0i64; 11];
        let mut at = 0;
        loop {
            let Instruction { code: op, registers: pair, offset, number } = code[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let jump = offset as usize;
            match op {
                0x61 => registers[to] = i64::from(context[jump / 4]),
                0xbf => registers[to] = registers[from],
                0x57 => registers[to] &= i64::from(number),
                0x77 => registers[to] >>= number,
                0xb7 => registers[to] = i64::from(number),
                0x15 if registers[to] == i64::from(number) => at += jump,
                0x55 if registers[to] != i64::from(number) => at += jump,
                0x15 | 0x55 => {}
                0x95 => return registers[0] != 0,
                _ => panic!("{op:#x}"),
            }
            at += 1;
        }
    }

    const READ: i32 = 2;
    const WRITE: i32 = 4;
    const BLOCK: i32 = 1;
    const CHAR: i32 = 2;

    #[test]
    fn nothing_but_the_default_devices_is_allowed_without_a_rule_for_it() {
        let code = program(&effective(&[]).unwrap());
        assert!(run(&code, CHAR, READ | WRITE, 1, 3));
        assert!(run(&code, CHAR, READ | WRITE, 136, 4));
        assert!(run(&code, BLOCK, 1, 8, 0), "nodes can be made");
        assert!(!run(&code, BLOCK, READ, 8, 0));
        assert!(!run(&code, CHAR, READ, 1, 1));
        assert!(!run(&code, BLOCK, READ, 1, 3), "a block device of the same numbers");
    }

    #[test]
    fn the_last_rule_that_speaks_of_an_access_decides_it() {
        let code = program(&effective(&rules(&["b 8:* rw", "deny b 8:1 w"])).unwrap());
        assert!(run(&code, BLOCK, READ | WRITE, 8, 0));
        assert!(run(&code, BLOCK, READ, 8, 1));
        assert!(!run(&code, BLOCK, WRITE, 8, 1));
        assert!(!run(&code, BLOCK, READ | WRITE, 8, 1));
        let parts = program(&effective(&rules(&["c 10:200 r", "c 10:200 w"])).unwrap());
        assert!(run(&parts, CHAR, READ | WRITE, 10, 200), "allowed in two rules");
        assert!(!run(&parts, CHAR, READ, 10, 201));
    }

    #[test]
    fn a_rule_about_everything_ends_the_program() {
        let code = program(&effective(&rules(&["c 1:1 r", "deny a", "c 10:229 rwm"])).unwrap());
        assert!(!run(&code, CHAR, READ, 1, 1));
        assert!(run(&code, CHAR, READ, 10, 229));
        let open = program(&effective(&rules(&["a", "deny b *:* rw"])).unwrap());
        assert!(run(&open, CHAR, READ, 1, 1));
        assert!(!run(&open, BLOCK, READ, 8, 0));
    }

    #[test]
    fn v1_has_a_list_without_what_later_rules_take_back() {
        let lines = v1_lines(&rules(&["c 1:1 rw", "c 10:200 rwm", "deny c 1:* w"])).unwrap();
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        assert!(lines.contains(&("devices.allow", "c 1:1 r".to_owned())), "{lines:?}");
        assert!(lines.contains(&("devices.allow", "c 10:200 rwm".to_owned())));
        assert!(lines.contains(&("devices.allow", "c 1:3 rwm".to_owned())));
        let open = v1_lines(&rules(&["a", "deny b 8:0 w"])).unwrap();
        assert_eq!(open, [("devices.allow", "a".to_owned()), ("devices.deny", "b 8:0 w".to_owned())]);
    }

    #[test]
    fn v1_says_what_it_cannot_express() {
        let error = v1_lines(&rules(&["c *:* rwm", "deny c 10:200 w"])).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }

    #[test]
    fn the_kernel_keeps_the_rules_of_a_group_and_takes_new_ones() {
        if !rustix::process::geteuid().is_root() {
            return; // programs are root's; the refusal is tested from Python
        }
        let Some(group) = TestGroup::v2("devices") else { return };
        let dir = std::fs::File::open(&group.dir).unwrap();
        let attach = |texts: &[&str]| attach_v2(std::os::fd::AsFd::as_fd(&dir), &group.dir, &rules(texts)).unwrap();
        let script = "cat </dev/null && echo null; (exec 3</dev/fuse) 2>/dev/null && echo read; \
                      (exec 3>/dev/fuse) 2>/dev/null && echo write; true";
        attach(&[]);
        assert_eq!(group.run(script), "null\n");
        attach(&["c 10:229 r"]);
        assert_eq!(group.run(script), "null\nread\n");
        attach(&["c 10:* rw", "deny c 10:229 r"]);
        assert_eq!(group.run(script), "null\nwrite\n");
        attach(&["a"]);
        assert_eq!(group.run(script), "null\nread\nwrite\n");
        let ids = bpf::device_programs(std::os::fd::AsFd::as_fd(&dir)).unwrap();
        assert_eq!(ids.len(), 1, "the older ones are detached");
    }
}
