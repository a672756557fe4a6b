//! The compiler: from the rules of some conventions to one BPF program.
#![forbid(unsafe_code)]

use super::{Action, Compare, Condition, Policy, Rule};
use crate::security::syscalls::{Arch, X32_BIT};

/// One instruction of a BPF program: `struct sock_filter`.
///
/// Source: <https://docs.kernel.org/networking/filter.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do: class, size and mode, or class, operation and source.
    pub code: u16,
    /// How many instructions to skip when a condition holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// The operand: an offset, a value to compare with, a distance, or what to return.
    pub k: u32,
}

impl Instruction {
    /// The eight bytes of the instruction as one number, in the byte order of the machine's memory (little-endian).
    pub const fn to_bits(self) -> u64 {
        self.code as u64 | (self.jt as u64) << 16 | (self.jf as u64) << 24 | (self.k as u64) << 32
    }
}

/// The program for the rules of some conventions; calls by any other one kill the process.
pub(super) fn assemble(parts: &[(Arch, &Policy)]) -> Vec<Instruction> {
    let mut assembler = Assembler::default();
    let kill = assembler.action(Action::KillProcess);
    let x32 = parts.iter().find(|(arch, _)| *arch == Arch::X32).map(|(_, policy)| *policy);
    let mut entries = Vec::new();
    for (arch, policy) in parts.iter().filter(|(arch, _)| *arch != Arch::X32) {
        let otherwise = assembler.action(policy.otherwise);
        let mut ranges = vec![Range { first: 0, target: otherwise }];
        if *arch == Arch::X86_64 {
            add_ranges(&mut assembler, &mut ranges, policy, 0..X32_BIT);
            match x32 {
                Some(policy) => add_ranges(&mut assembler, &mut ranges, policy, X32_BIT..u32::MAX),
                None => push_range(&mut ranges, X32_BIT, kill),
            }
            // -1 is no call of x32: it is how a tracer has a call skipped.
            push_range(&mut ranges, u32::MAX, otherwise);
        } else {
            add_ranges(&mut assembler, &mut ranges, policy, 0..u32::MAX);
        }
        let search = assembler.search(&ranges);
        assembler.load(OFFSET_NUMBER, search);
        entries.push((arch.audit(), assembler.here()));
    }
    let mut next = kill;
    for (audit, entry) in entries.into_iter().rev() {
        next = assembler.jump(libc::BPF_JEQ, audit, entry, next);
    }
    assembler.load(OFFSET_ARCH, next);
    assembler.finish()
}

/// The rules of these numbers; what has none of them gets the action for all others.
fn add_ranges(assembler: &mut Assembler, ranges: &mut Vec<Range>, policy: &Policy, numbers: std::ops::Range<u32>) {
    let otherwise = assembler.action(policy.otherwise);
    let mut next = numbers.start;
    for (&number, rule) in policy.rules.range(numbers) {
        if number != next {
            push_range(ranges, next, otherwise);
        }
        push_range(ranges, number, assembler.rule(rule));
        next = number + 1;
    }
    push_range(ranges, next, otherwise);
}

// Offsets into `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// From `first` to the next range's first number, go to `target`.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    target: Target,
}

fn push_range(ranges: &mut Vec<Range>, first: u32, target: Target) {
    match ranges.last_mut() {
        Some(last) if last.target == target => {}
        Some(last) if last.first == first => last.target = target,
        _ => ranges.push(Range { first, target }),
    }
}

/// An instruction, by its distance from the end of the program.
type Target = usize;

/// Writes a program from its end to its beginning: jumps only go forward, so every target exists before the jump.
#[derive(Default)]
struct Assembler {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where the code of a rule begins, so that equal rules share it.
    rules: Vec<(Rule, Target)>,
}

impl Assembler {
    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Target {
        self.reversed.push(Instruction { code: code as u16, jt, jf, k });
        self.here()
    }

    /// The instruction written last, which is the first one of the program so far.
    fn here(&self) -> Target {
        self.reversed.len() - 1
    }

    /// How many instructions the next one has to skip to reach `target`.
    fn distance(&self, target: Target) -> usize {
        self.reversed.len() - 1 - target
    }

    fn action(&mut self, action: Action) -> Target {
        self.rule(&Rule::Do(action))
    }

    fn rule(&mut self, rule: &Rule) -> Target {
        if let Some((_, target)) = self.rules.iter().find(|(known, _)| known == rule) {
            return *target;
        }
        let target = match rule {
            Rule::Do(action) => self.push(libc::BPF_RET | libc::BPF_K, 0, 0, action.code()),
            Rule::Match { argument, mask, arms, otherwise } => self.argument(*argument, *mask, arms, otherwise),
            Rule::First(choices, otherwise) => {
                let mut next = self.action(*otherwise);
                for (conditions, action) in choices.iter().rev() {
                    let mut then = self.action(*action);
                    for condition in conditions.iter().rev() {
                        then = self.condition(condition, then, next);
                    }
                    next = then;
                }
                next
            }
        };
        self.rules.push((rule.clone(), target));
        target
    }

    fn argument(&mut self, argument: u8, mask: u32, arms: &[(u32, Rule)], otherwise: &Rule) -> Target {
        let mut next = self.rule(otherwise);
        let targets: Vec<Target> = arms.iter().map(|(_, rule)| self.rule(rule)).collect();
        if let ([(0, _)], [zero]) = (arms, &targets[..]) {
            next = self.jump(libc::BPF_JSET, mask, next, *zero);
        } else {
            for ((value, _), target) in arms.iter().zip(targets).rev() {
                next = self.jump(libc::BPF_JEQ, *value, target, next);
            }
            next = self.masked(mask, next);
        }
        self.load(OFFSET_ARGUMENTS + 8 * u32::from(argument), next)
    }

    /// Compares all 64 bits of an argument, in halves: the upper ones first.
    fn condition(&mut self, condition: &Condition, then: Target, otherwise: Target) -> Target {
        let Condition { argument, compare, value, mask } = *condition;
        let half = |number: u64, shift: u32| (number >> shift) as u32;
        let place = OFFSET_ARGUMENTS + 8 * u32::from(argument);
        let (comparison, when_true, when_false) = match compare {
            Compare::Equal => (libc::BPF_JEQ, then, otherwise),
            Compare::NotEqual => (libc::BPF_JEQ, otherwise, then),
            Compare::Greater => (libc::BPF_JGT, then, otherwise),
            Compare::LessOrEqual => (libc::BPF_JGT, otherwise, then),
            Compare::GreaterOrEqual => (libc::BPF_JGE, then, otherwise),
            Compare::Less => (libc::BPF_JGE, otherwise, then),
        };
        let lower = self.jump(comparison, half(value, 0), when_true, when_false);
        let lower = self.masked(half(mask, 0), lower);
        let lower = self.load(place, lower);
        // What is above needs no look at the lower half.
        let mut next = self.jump(libc::BPF_JEQ, half(value, 32), lower, when_false);
        if comparison != libc::BPF_JEQ {
            next = self.jump(libc::BPF_JGT, half(value, 32), when_true, next);
        }
        let next = self.masked(half(mask, 32), next);
        self.load(place + 4, next)
    }

    /// Takes away what does not count of the accumulator, and goes on at `next`.
    fn masked(&mut self, mask: u32, next: Target) -> Target {
        if mask == u32::MAX {
            return next;
        }
        self.fall_through(next);
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask)
    }

    /// Finds the range of the number in the accumulator.
    fn search(&mut self, ranges: &[Range]) -> Target {
        match ranges {
            [only] => only.target,
            // One number that differs from its neighbours.
            [before, one, after] if before.target == after.target && after.first == one.first + 1 => {
                self.jump(libc::BPF_JEQ, one.first, one.target, before.target)
            }
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let border = upper[0].first;
                let upper = self.search(upper);
                let lower = self.search(lower);
                self.jump(libc::BPF_JGE, border, upper, lower)
            }
        }
    }

    /// Compares the accumulator with `k`.
    fn jump(&mut self, comparison: u32, k: u32, when_true: Target, when_false: Target) -> Target {
        // Room for one more instruction, which reaching the other target may put in between.
        let when_true = self.within_reach(when_true, 1);
        let when_false = self.within_reach(when_false, 0);
        let (jt, jf) = (self.distance(when_true) as u8, self.distance(when_false) as u8);
        self.push(libc::BPF_JMP | comparison | libc::BPF_K, jt, jf, k)
    }

    /// A place from which `target` goes on, near enough for the eight bits of a conditional jump.
    fn within_reach(&mut self, target: Target, room: usize) -> Target {
        match self.distance(target) + room {
            0..=255 => target,
            _ => self.jump_always(target),
        }
    }

    fn jump_always(&mut self, target: Target) -> Target {
        let distance = self.distance(target) as u32;
        self.push(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance)
    }

    /// Loads a word of `struct seccomp_data` and goes on at `next`.
    fn load(&mut self, offset: u32, next: Target) -> Target {
        self.fall_through(next);
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
    }

    /// Makes `target` come next.
    fn fall_through(&mut self, target: Target) {
        if self.distance(target) != 0 {
            self.jump_always(target);
        }
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ENOSYS, EPERM, KILL, answer, assert_valid, expected};
    use super::*;

    #[test]
    fn far_targets_are_reached() {
        // A different answer for each number, and as many blocks of arguments, so that nothing can be shared.
        let mut policy = Policy::new(Action::ENOSYS);
        for number in 0..700 {
            let by_argument = Rule::one_of(
                (number % 6) as u8,
                0xff00 | number,
                &[0x100, number],
                Rule::Do(Action::Errno(number as u16 + 200)),
                Rule::Do(Action::Errno(number as u16 + 1000)),
            );
            policy.set(number, if number % 3 == 0 { by_argument } else { Rule::Do(Action::Errno(number as u16)) });
        }
        let program = policy.compile();
        assert_valid(&program);
        assert!(program.iter().any(|instruction| instruction.code == 0x05));
        for number in 0..700 {
            for value in [0, 0x100, u64::from(number), 0xff00 | u64::from(number)] {
                let arguments = [value; 6];
                let rule = policy.rule(number).unwrap();
                assert_eq!(answer(&program, number, &arguments), expected(rule, &arguments), "{number} {value:#x}");
            }
        }
        assert_eq!(answer(&program, 700, &[]), ENOSYS);
    }

    #[test]
    fn targets_at_the_edge_of_reach_are_reached() {
        let (near, far) = (Rule::Do(Action::ENOSYS), Rule::Do(Action::KillProcess));
        for count in 230..270 {
            for (then, otherwise) in [(&near, &far), (&far, &near), (&far, &far)] {
                let mut policy = Policy::new(Action::ENOSYS);
                for number in 0..count {
                    policy.set(number, Rule::Do(Action::Errno(number as u16 + 200)));
                }
                policy.set(count, Rule::one_of(0, 0xff, &[5], then.clone(), otherwise.clone()));
                let program = policy.compile();
                assert_valid(&program);
                for value in [5, 6] {
                    let rule = policy.rule(count).unwrap();
                    assert_eq!(answer(&program, count, &[value]), expected(rule, &[value; 6]), "{count} {value}");
                }
            }
        }
    }

    #[test]
    fn policies_without_ranges_or_arms_compile() {
        for action in [Action::Allow, Action::ENOSYS, Action::KillProcess] {
            let mut policy = Policy::new(action);
            assert_valid(&policy.compile());
            assert_eq!(answer(&policy.compile(), 39, &[]), action.code());
            policy.set(38, Rule::EPERM);
            policy.set(39, Rule::one_of(0, 7, &[], Rule::ALLOW, Rule::Do(action)));
            policy.set(41, Rule::one_of(0, 7, &[], Rule::ALLOW, Rule::EPERM));
            policy.set(X32_BIT + 1, Rule::ALLOW);
            let program = policy.compile();
            assert_valid(&program);
            assert_eq!(answer(&program, 38, &[]), EPERM);
            assert_eq!(answer(&program, 39, &[]), action.code());
            assert_eq!(answer(&program, 40, &[]), action.code());
            assert_eq!(answer(&program, 41, &[]), EPERM);
            assert_eq!(answer(&program, X32_BIT + 1, &[]), KILL);
        }
    }

    #[test]
    fn instructions_have_the_layout_of_the_kernel() {
        assert_eq!(size_of::<Instruction>(), size_of::<libc::sock_filter>());
        let instruction = Instruction { code: 0x0102, jt: 3, jf: 4, k: 0x0506_0708 };
        assert_eq!(instruction.to_bits().to_ne_bytes(), [2, 1, 3, 4, 8, 7, 6, 5]);
    }
}
