//! Entries for one call that overlap: which of them counts, as libseccomp has it, and so runc and crun.
//!
//! libseccomp makes a tree of comparisons of 32 bits out of all entries with `args`, whatever their order in the profile, and
//! asks the last argument first; of one argument the upper half first, equality before `<` before `>`, the narrower range
//! first. An entry that begins with all that another one asks for is never reached after it, and refused before it unless both
//! have the same action. Where `!=` or ranges are among several `args`, where ranges of both directions meet, and for what has
//! other upper 32 bits than the bounds of ranges that meet, its tree is no order any more: 2.5.4 forgets entries there, and may not
//! end. The order here is the same for those.
//!
//! Source: seccomp_rule_add(3), and by comparison with libseccomp 2.5.4 (`agrees_with_libseccomp`)
#![forbid(unsafe_code)]

use std::cmp::Ordering;

use super::{Action, Compare, Condition};

/// What an entry asks for, and what becomes of a call for which it holds.
pub(super) type Choice = (Vec<Condition>, Action);

/// Two entries that are no filter together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

/// The entries in the order in which they are asked, and whether one is left out since it is never reached.
pub(super) fn ordered(choices: Vec<Choice>) -> Result<(Vec<Choice>, bool), Conflict> {
    let is_plain = choices.windows(2).all(|two| two[0].1 == two[1].1);
    // So many are no program that the kernel takes.
    if is_plain || choices.len() > super::filter::LONGEST {
        return Ok((choices, false));
    }
    let mut level = Vec::new();
    let mut is_hidden = false;
    for (index, (conditions, _)) in choices.iter().enumerate() {
        let mut conditions = conditions.clone();
        conditions.sort_by_key(|condition| condition.argument);
        let words: Vec<Word> = conditions.iter().flat_map(words).collect();
        is_hidden |= add(&mut level, &words, index, &choices)?;
    }
    let mut order = Vec::new();
    walk(&level, &mut order);
    let mut choices: Vec<Option<Choice>> = choices.into_iter().map(Some).collect();
    Ok((order.into_iter().filter_map(|index| choices[index].take()).collect(), is_hidden))
}

/// One comparison of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    argument: u8,
    is_upper: bool,
    /// Greater ones are asked first.
    kind: u8,
    /// Likewise.
    value: i64,
    mask: u32,
    /// `>` and `<=` are not the same comparison as `>=` and `<`.
    is_strict: bool,
    /// Which way an entry goes on: where the comparison holds, or where it does not.
    holds: bool,
}

impl Word {
    fn place(&self) -> (u8, bool, u8, i64) {
        (self.argument, self.is_upper, self.kind, self.value)
    }

    fn is_same(&self, other: &Word) -> bool {
        self.place() == other.place() && (self.mask, self.is_strict) == (other.mask, other.is_strict)
    }
}

fn words(condition: &Condition) -> [Word; 2] {
    let (kind, sign, is_strict, holds) = match condition.compare {
        Compare::Equal => (3, 1, false, true),
        Compare::NotEqual => (3, 1, false, false),
        Compare::Less => (2, -1, false, false),
        Compare::LessOrEqual => (2, -1, true, false),
        Compare::GreaterOrEqual => (1, 1, false, true),
        Compare::Greater => (1, 1, true, true),
    };
    let word = |is_upper: bool| {
        let half = |number: u64| if is_upper { (number >> 32) as u32 } else { number as u32 };
        Word {
            argument: condition.argument,
            is_upper,
            kind,
            value: sign * i64::from(half(condition.value)),
            mask: half(condition.mask),
            is_strict: is_strict && !is_upper,
            holds: holds || is_upper,
        }
    };
    [word(true), word(false)]
}

struct Node {
    word: Word,
    /// Where it holds, and where it does not.
    branches: [Branch; 2],
}

#[derive(Default)]
struct Branch {
    /// The entry that ends here.
    end: Option<usize>,
    next: Vec<Node>,
}

/// Adds an entry; true if it is never reached.
fn add(level: &mut Vec<Node>, words: &[Word], index: usize, choices: &[Choice]) -> Result<bool, Conflict> {
    let Some((word, rest)) = words.split_first() else { return Ok(false) };
    let place =
        level.iter().position(|node| node.word.is_same(word) || node.word.place().cmp(&word.place()) == Ordering::Less);
    let place = place.unwrap_or(level.len());
    if !level.get(place).is_some_and(|node| node.word.is_same(word)) {
        level.insert(place, Node { word: *word, branches: Default::default() });
    }
    let branch = &mut level[place].branches[usize::from(!word.holds)];
    let differs = |other: usize| choices[other].1 != choices[index].1;
    if !rest.is_empty() {
        return match branch.end {
            Some(end) => Ok(differs(end)),
            None => add(&mut branch.next, rest, index, choices),
        };
    }
    let mut below = Vec::new();
    walk(&branch.next, &mut below);
    if branch.end.into_iter().chain(below).any(differs) {
        return Err(Conflict);
    }
    // What was below asks for more, for the same.
    branch.next.clear();
    branch.end.get_or_insert(index);
    Ok(false)
}

fn walk(level: &[Node], order: &mut Vec<usize>) {
    for branch in level.iter().flat_map(|node| &node.branches) {
        order.extend(branch.end);
        walk(&branch.next, order);
    }
}
