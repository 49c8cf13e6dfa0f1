//! What the runtime keeps in the record for its later commands.
//!
//! `exec` takes from here what holds for every process of the container, the filter first: whoever can write to the
//! bundle after the container was made changes nothing about the processes in it.

use bale_fault::{Fault, Kind, Result};
use bale_record::Record;
use bale_spec::runtime::{Hook, MemoryPolicy, Process, RuntimeConfig, Seccomp};
use bale_sys::seccomp::{Flags, Instruction, MAX_INSTRUCTIONS};
use serde::{Deserialize, Serialize};

use crate::init::Filter;
use crate::shared_mounts::HostMount;

/// What the record has of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// Version of the specification that the config names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub oci_version: String,
    /// argv[0], for `start`'s words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// `CLONE_NEW…` of the namespaces that differ from the host's.
    #[serde(skip_serializing_if = "is_zero")]
    pub namespaces: u64,
    /// Hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
    /// Init was made without a pid namespace: its end does not end the others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared_pids: bool,
    /// The mount namespace is not the container's own: its root is init's root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared_mounts: bool,
    /// The root's mount, when it was made on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<HostMount>,
    /// The config's process, as JSON: what an `exec` without a process of its own begins with. A string, as it is
    /// only read then.
    #[serde(skip_serializing_if = "String::is_empty")]
    process: String,
    /// Processes get no session keyring.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_new_keyring: bool,
    /// Execution domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<u64>,
    /// NUMA policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Group of Intel RDT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdt: Option<crate::rdt::Group>,
    /// Filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<KeptFilter>,
    /// Where a notifying filter's listener goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

/// A compiled filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptFilter {
    /// Instructions, sixteen hexadecimal digits each: code, jt, jf, k.
    program: String,
    /// `SECCOMP_FILTER_FLAG_…`.
    flags: u32,
}

/// Who gets the listener of a notifying filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    /// A stream socket.
    pub path: String,
    /// Opaque words for its reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Listener {
    /// Reads it from a profile.
    pub fn of(profile: Option<&Seccomp>) -> Option<Self> {
        let profile = profile?;
        let path = profile.listener_path.clone()?;
        Some(Self { path, metadata: profile.listener_metadata.clone().unwrap_or_default() })
    }
}

impl Kept {
    /// Reads it from a record; what is missing there is as if there were none.
    pub fn of(record: &Record) -> Self {
        Self::deserialize(&record.runtime).unwrap_or_default()
    }

    /// Reads the group of Intel RDT alone.
    pub fn rdt_of(record: &Record) -> Option<crate::rdt::Group> {
        record.runtime.get("rdt").and_then(|rdt| crate::rdt::Group::deserialize(rdt).ok())
    }

    /// Makes what a config and its plan say.
    pub fn new(config: &RuntimeConfig, plan: &crate::plan::Plan) -> Self {
        let hooks = config.hooks.clone().unwrap_or_default();
        let linux = config.linux.as_ref();
        let process = config.process.as_ref();
        let kinds = linux.iter().flat_map(|l| &l.namespaces);
        Self {
            oci_version: config.oci_version.clone(),
            program: process.and_then(|p| p.args.first().cloned()).unwrap_or_default(),
            namespaces: kinds.fold(0, |flags, n| flags | crate::plan::kind_flag(n.kind)),
            poststart: hooks.poststart,
            poststop: hooks.poststop,
            shared_pids: plan.clone_flags & bale_sys::namespace::NEWPID == 0,
            shared_mounts: plan.clone_flags & bale_sys::namespace::NEWNS == 0,
            root_mount: None,
            // Plain data with string keys: it cannot fail.
            process: process.and_then(|p| serde_json::to_string(p).ok()).unwrap_or_default(),
            no_new_keyring: false,
            personality: plan.personality,
            memory_policy: linux.and_then(|l| l.memory_policy.clone()),
            rdt: plan.rdt.as_ref().map(crate::rdt::Group::of),
            filter: KeptFilter::of(&plan.filter),
            listener: Listener::of(linux.and_then(|l| l.seccomp.as_ref())),
        }
    }

    /// Puts it into a record.
    ///
    /// # Errors
    /// `Internal`; it is plain data.
    pub fn keep(self, record: &mut Record) -> Result<()> {
        let value = serde_json::to_value(self);
        record.runtime = value.map_err(|e| Fault::new(Kind::Internal, "write the record").caused_by(e))?;
        Ok(())
    }

    /// Returns the config's process.
    ///
    /// # Errors
    /// `Corrupt` when the record is damaged.
    pub fn process(&self) -> Result<Process> {
        serde_json::from_str(&self.process).map_err(|e| damaged("process").caused_by(e))
    }

    /// Returns the container's filter.
    ///
    /// # Errors
    /// `Corrupt` when the record is damaged: a process without its filter is not started.
    pub fn filter(&self) -> Result<Option<Filter>> {
        self.filter.as_ref().map(KeptFilter::read).transpose()
    }
}

fn damaged(what: &str) -> Fault {
    Fault::new(Kind::Corrupt, format!("the record's {what} is damaged"))
        .hint("the container was made by another version of bale, or its record was changed: make it anew")
}

impl KeptFilter {
    fn of(filter: &Filter) -> Option<Self> {
        use std::fmt::Write;
        if filter.instructions.is_empty() {
            return None;
        }
        let mut program = String::with_capacity(filter.instructions.len() * 16);
        for i in &filter.instructions {
            // Writing to a string cannot fail.
            let _ = write!(program, "{:04x}{:02x}{:02x}{:08x}", i.code, i.jt, i.jf, i.k);
        }
        Some(Self { program, flags: filter.flags.bits() })
    }

    fn read(&self) -> Result<Filter> {
        let bytes = self.program.as_bytes();
        let count = bytes.len() / 16;
        if count == 0 || count > MAX_INSTRUCTIONS || !bytes.len().is_multiple_of(16) {
            return Err(damaged("filter"));
        }
        let instructions: Option<Vec<_>> = bytes.chunks_exact(16).map(instruction).collect();
        Ok(Filter {
            instructions: instructions.ok_or_else(|| damaged("filter"))?,
            flags: Flags::from_bits(self.flags).ok_or_else(|| damaged("filter"))?,
        })
    }
}

fn instruction(digits: &[u8]) -> Option<Instruction> {
    let number = |range: std::ops::Range<usize>| {
        let digits = digits.get(range)?;
        digits.iter().try_fold(0_u32, |n, &d| Some(n << 4 | char::from(d).to_digit(16)?))
    };
    Some(Instruction {
        code: u16::try_from(number(0..4)?).ok()?,
        jt: u8::try_from(number(4..6)?).ok()?,
        jf: u8::try_from(number(6..8)?).ok()?,
        k: number(8..16)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_back_and_a_damaged_one_is_none() {
        let instructions =
            vec![Instruction { code: 0x15, jt: 3, jf: 255, k: 0xc000_003e }, Instruction::default()];
        let filter = Filter { instructions, flags: Flags::LOG.union(Flags::NEW_LISTENER) };
        let kept = Kept { filter: KeptFilter::of(&filter), ..Kept::default() };
        let read = kept.filter().unwrap().unwrap();
        assert_eq!((read.instructions, read.flags), (filter.instructions, filter.flags));
        for (program, flags) in [("", 0), ("0015", 0), ("00000000000000zz", 0), ("0000000000000000", 1 << 31)]
        {
            let filter = Some(KeptFilter { program: program.to_owned(), flags });
            assert!(Kept { filter, ..Kept::default() }.filter().is_err(), "{program:?} {flags}");
        }
        assert!(Kept::default().filter().unwrap().is_none());
    }
}
