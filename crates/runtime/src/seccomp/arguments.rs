//! Conditions on arguments as nodes of the graph.
//!
//! Neighbouring rules that each compare one and the same argument become ranges of its value, so `personality` with
//! five allowed values, or `socket` with two forbidden ones, is a few comparisons.

use super::graph::{Graph, Id, Test};
use super::rules::{Compare, Condition};

/// How wide arguments are: on i386 only the lower word is looked at, as libseccomp does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// i386.
    Word,
    /// x86_64 and x32.
    Double,
}

/// A rule of one call: all conditions must hold for the answer.
pub type Conditional = (Vec<Condition>, u32);

/// Builds the decision of a call: the first rule whose conditions hold, else `default`.
pub fn decide(graph: &mut Graph, rules: &[Conditional], default: Id, width: Width) -> Id {
    let mut rest = rules;
    let mut below = default;
    while let Some((last, before)) = rest.split_last() {
        let run = rest
            .iter()
            .rev()
            .take_while(|rule| simple(rule).is_some() && simple(rule) == simple(last))
            .count();
        if run == 0 {
            let yes = graph.ret(last.1);
            below = all(graph, &last.0, yes, below, width);
            rest = before;
            continue;
        }
        let (earlier, group) = rest.split_at(rest.len() - run);
        let mut painted = Painted::new(below);
        // Later rules first, so that earlier ones are on top.
        for (conditions, answer) in group.iter().rev() {
            let decision = graph.ret(*answer);
            painted.paint(&conditions[0], decision, width);
        }
        below = painted.build(graph, group[0].0[0].index, width);
        rest = earlier;
    }
    below
}

/// The argument of a rule that has one condition which is a range.
fn simple(rule: &Conditional) -> Option<u32> {
    match rule.0.as_slice() {
        [condition] if !matches!(condition.compare, Compare::Masked(_)) => Some(condition.index),
        _ => None,
    }
}

fn all(graph: &mut Graph, conditions: &[Condition], yes: Id, no: Id, width: Width) -> Id {
    conditions.iter().rev().fold(yes, |yes, condition| match condition.compare {
        Compare::Masked(mask) => masked(graph, condition, mask, (yes, no), width),
        _ => {
            let mut painted = Painted::new(no);
            painted.paint(condition, yes, width);
            painted.build(graph, condition.index, width)
        }
    })
}

fn masked(graph: &mut Graph, condition: &Condition, mask: u64, (yes, no): (Id, Id), width: Width) -> Id {
    let (low, high) = offsets(condition.index);
    let below = masked_word(graph, low, mask as u32, condition.value as u32, (yes, no));
    match width {
        Width::Word => below,
        Width::Double => {
            let words = ((mask >> 32) as u32, (condition.value >> 32) as u32);
            masked_word(graph, high, words.0, words.1, (below, no))
        }
    }
}

fn masked_word(graph: &mut Graph, offset: u32, mask: u32, value: u32, (yes, no): (Id, Id)) -> Id {
    let test = match (mask, value) {
        (0, _) => return yes,
        (_, 0) => graph.branch(Test::AnyBit, mask, no, yes),
        _ => {
            let equal = graph.branch(Test::Equal, value, yes, no);
            graph.and(mask, equal)
        }
    };
    graph.load(offset, test)
}

/// Offsets of the lower and the upper word of an argument in `struct seccomp_data`.
const fn offsets(index: u32) -> (u32, u32) {
    (16 + 8 * index, 20 + 8 * index)
}

/// The decision by value of one argument: (first value, decision), ascending, from 0.
struct Painted(Vec<(u64, Id)>);

impl Painted {
    fn new(decision: Id) -> Self {
        Self(vec![(0, decision)])
    }

    fn paint(&mut self, condition: &Condition, decision: Id, width: Width) {
        let (most, value) = match width {
            Width::Word => (u64::from(u32::MAX), condition.value & u64::from(u32::MAX)),
            Width::Double => (u64::MAX, condition.value),
        };
        match condition.compare {
            Compare::Equal => self.range(value, value, decision),
            Compare::AtLeast => self.range(value, most, decision),
            Compare::AtMost => self.range(0, value, decision),
            Compare::Less if value > 0 => self.range(0, value - 1, decision),
            Compare::Greater if value < most => self.range(value + 1, most, decision),
            Compare::NotEqual => {
                if value > 0 {
                    self.range(0, value - 1, decision);
                }
                if value < most {
                    self.range(value + 1, most, decision);
                }
            }
            Compare::Less | Compare::Greater | Compare::Masked(_) => {}
        }
    }

    fn range(&mut self, first: u64, last: u64, decision: Id) {
        if let Some(after) = last.checked_add(1) {
            self.cut(after);
        }
        let from = self.cut(first);
        let to = self.0.partition_point(|&(start, _)| start <= last);
        self.0.splice(from..to, [(first, decision)]);
    }

    /// Makes a range start at `value` and returns its index.
    fn cut(&mut self, value: u64) -> usize {
        let at = self.0.partition_point(|&(start, _)| start < value);
        if self.0.get(at).is_none_or(|&(start, _)| start != value) {
            let decision = self.0[at - 1].1;
            self.0.insert(at, (value, decision));
        }
        at
    }

    fn build(&self, graph: &mut Graph, index: u32, width: Width) -> Id {
        let (low, high) = offsets(index);
        if width == Width::Word {
            return self.low_word(graph, low, 0);
        }
        let mut starts: Vec<u32> = Vec::with_capacity(2 * self.0.len());
        for &(start, _) in &self.0 {
            let word = (start >> 32) as u32;
            starts.push(word);
            if start as u32 != 0 && word != u32::MAX {
                starts.push(word + 1);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let words: Vec<(u32, Id)> =
            starts.iter().map(|&word| (word, self.low_word(graph, low, word))).collect();
        let decision = graph.ranges(&words);
        let one = words.iter().all(|&(_, id)| id == words[0].1);
        if one { decision } else { graph.load(high, decision) }
    }

    /// Decides by the lower word, for values whose upper word is `word`.
    fn low_word(&self, graph: &mut Graph, offset: u32, word: u32) -> Id {
        let base = u64::from(word) << 32;
        let from = self.0.partition_point(|&(start, _)| start <= base) - 1;
        let to = self.0.partition_point(|&(start, _)| start <= base | u64::from(u32::MAX));
        let within = |&(start, id): &(u64, Id)| (if start <= base { 0 } else { start as u32 }, id);
        let ranges: Vec<(u32, Id)> = self.0[from..to].iter().map(within).collect();
        let decision = graph.ranges(&ranges);
        let one = ranges.iter().all(|&(_, id)| id == ranges[0].1);
        if one { decision } else { graph.load(offset, decision) }
    }
}
