//! A filter as a graph of decisions, and its way into BPF instructions.
//!
//! Equal nodes are one node, so rules with the same outcome share their code. Only instructions that the kernel's
//! bitmap of always-allowed calls understands are used on the way to a decision that needs no argument
//! (`seccomp_is_const_allow`: loads of number and architecture, AND, comparisons with constants, returns).

use std::collections::HashMap;

use bale_sys::seccomp::{Instruction, MAX_INSTRUCTIONS};

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// How a test compares the accumulator with its constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// Equal.
    Equal,
    /// Greater or equal, unsigned.
    AtLeast,
    /// Some bit of the constant is set.
    AnyBit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    Return(u32),
    Load { offset: u32, next: Id },
    And { mask: u32, next: Id },
    Branch { test: Test, k: u32, yes: Id, no: Id },
}

/// The filter needs more instructions than the kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The decisions of a filter.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    known: HashMap<Node, Id>,
}

impl Graph {
    fn add(&mut self, node: Node) -> Id {
        let next = Id(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        let id = *self.known.entry(node).or_insert(next);
        if id == next {
            self.nodes.push(node);
        }
        id
    }

    /// Ends with the kernel's answer `SECCOMP_RET_…`.
    pub fn ret(&mut self, answer: u32) -> Id {
        self.add(Node::Return(answer))
    }

    /// Loads the word at `offset` of `struct seccomp_data`.
    pub fn load(&mut self, offset: u32, next: Id) -> Id {
        // What ends at once needs no word.
        if matches!(self.nodes[next.0 as usize], Node::Return(_) | Node::Load { .. }) {
            return next;
        }
        self.add(Node::Load { offset, next })
    }

    /// Masks the accumulator.
    pub fn and(&mut self, mask: u32, next: Id) -> Id {
        if mask == u32::MAX { next } else { self.add(Node::And { mask, next }) }
    }

    /// Compares the accumulator with `k`.
    pub fn branch(&mut self, test: Test, k: u32, yes: Id, no: Id) -> Id {
        if yes == no { yes } else { self.add(Node::Branch { test, k, yes, no }) }
    }

    /// Decides by the range the accumulator is in: `ranges` are (first value, decision), ascending, from 0.
    pub fn ranges(&mut self, ranges: &[(u32, Id)]) -> Id {
        let items = items(ranges);
        self.halve(&items)
    }

    fn halve(&mut self, items: &[Item]) -> Id {
        if let [item] = items {
            let base = item.decision;
            return item
                .points
                .iter()
                .rev()
                .fold(base, |rest, &(k, id)| self.branch(Test::Equal, k, id, rest));
        }
        let (low, high) = items.split_at(items.len() / 2);
        let start = high[0].start;
        let no = self.halve(low);
        let yes = self.halve(high);
        self.branch(Test::AtLeast, start, yes, no)
    }

    /// Writes the instructions of what is reachable from `root`.
    ///
    /// # Errors
    /// More than [`MAX_INSTRUCTIONS`].
    pub fn assemble(&self, root: Id) -> Result<Vec<Instruction>, TooLarge> {
        // Every node but a return makes at least one instruction; this also bounds the recursion below.
        if self.nodes.len() > 2 * MAX_INSTRUCTIONS {
            return Err(TooLarge);
        }
        let mut writer = Writer { graph: self, reversed: Vec::new(), placed: HashMap::new() };
        writer.place(root);
        writer.reversed.reverse();
        if writer.reversed.len() > MAX_INSTRUCTIONS { Err(TooLarge) } else { Ok(writer.reversed) }
    }
}

/// A range whose single exceptions are tested one by one: one comparison each instead of two.
struct Item {
    start: u32,
    decision: Id,
    points: Vec<(u32, Id)>,
}

/// More exceptions than this make the way to the last one longer than two more comparisons would.
const MOST_POINTS: usize = 3;

fn items(ranges: &[(u32, Id)]) -> Vec<Item> {
    let mut merged: Vec<(u32, Id)> = Vec::with_capacity(ranges.len());
    for &(start, id) in ranges {
        if merged.last().is_none_or(|&(_, last)| last != id) {
            merged.push((start, id));
        }
    }
    let mut items: Vec<Item> = Vec::new();
    let mut rest = merged.as_slice();
    while let [(start, decision), tail @ ..] = rest {
        let mut item = Item { start: *start, decision: *decision, points: Vec::new() };
        let mut after = tail;
        while let [(point, id), (next, again), ..] = after {
            if *again != item.decision || *next != point + 1 || item.points.len() == MOST_POINTS {
                break;
            }
            item.points.push((*point, *id));
            after = &after[2..];
        }
        items.push(item);
        rest = after;
    }
    items
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Jumps go forward only, so the program is written from its end: whatever is jumped to is placed already.
struct Writer<'a> {
    graph: &'a Graph,
    reversed: Vec<Instruction>,
    /// Index in `reversed` of a node's first instruction.
    placed: HashMap<Id, usize>,
}

/// The largest distance of a conditional jump that is taken for granted: 255, less what may still come between.
const NEAR: usize = 250;

impl Writer<'_> {
    fn place(&mut self, id: Id) {
        if self.placed.contains_key(&id) {
            return;
        }
        match self.graph.nodes[id.0 as usize] {
            Node::Return(answer) => self.push(RETURN, answer),
            Node::Load { offset, next } => {
                self.place_directly_before(next);
                self.push(LOAD, offset);
            }
            Node::And { mask, next } => {
                self.place_directly_before(next);
                self.push(AND, mask);
            }
            Node::Branch { test, k, yes, no } => {
                self.place(no);
                self.place(yes);
                self.bring_near(no);
                self.bring_near(yes);
                let code = match test {
                    Test::Equal => EQUAL,
                    Test::AtLeast => AT_LEAST,
                    Test::AnyBit => ANY_BIT,
                };
                let (jt, jf) = (self.distance(yes), self.distance(no));
                // `bring_near` made both fit.
                let near = |d: usize| u8::try_from(d).unwrap_or(u8::MAX);
                self.reversed.push(Instruction { code, jt: near(jt), jf: near(jf), k });
            }
        }
        self.placed.insert(id, self.reversed.len() - 1);
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(Instruction { code, jt: 0, jf: 0, k });
    }

    /// Instructions to skip from the one that is pushed next to the node.
    fn distance(&self, id: Id) -> usize {
        self.reversed.len() - 1 - self.placed[&id]
    }

    fn place_directly_before(&mut self, next: Id) {
        self.place(next);
        if self.distance(next) > 0 {
            self.repeat(next);
        }
    }

    fn bring_near(&mut self, id: Id) {
        if self.distance(id) > NEAR {
            self.repeat(id);
        }
    }

    /// Puts a copy of a return, or a long jump to the node, here.
    fn repeat(&mut self, id: Id) {
        match self.graph.nodes[id.0 as usize] {
            Node::Return(answer) => self.push(RETURN, answer),
            _ => {
                let far = u32::try_from(self.distance(id)).unwrap_or(u32::MAX);
                self.push(JUMP, far);
            }
        }
        self.placed.insert(id, self.reversed.len() - 1);
    }
}
