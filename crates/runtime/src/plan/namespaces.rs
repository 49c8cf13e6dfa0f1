//! Namespaces and groups: which are made by clone, which are joined, in which order.

use std::os::unix::ffi::OsStrExt;

use bale_fault::Result;
use bale_spec::runtime::{NamespaceKind, TimeOffset};

use super::op::{Op, Point};
use super::{Builder, Source, c_string, invalid, kind_flag};
use crate::cgroup::Layout;

impl Builder<'_> {
    /// Namespaces that clone makes: none where init has to join others first, nor beside a user namespace that is joined
    /// and is to own them.
    pub(super) fn clone_flags(&self) -> u64 {
        if self.joins_first() || self.joins(NamespaceKind::User) { 0 } else { self.made() }
    }

    /// Tells whether init is born in the namespaces of its maker: from inside a user namespace of its own it would have
    /// no right to join one of the host's.
    pub(super) fn joins_first(&self) -> bool {
        use NamespaceKind::{Cgroup, Ipc, Network, Pid, Time, Uts};
        let others = [Pid, Network, Ipc, Uts, Cgroup, Time];
        self.makes(NamespaceKind::User) && others.into_iter().any(|kind| self.joins(kind))
    }

    /// Namespaces that are made all at once.
    pub(super) fn made(&self) -> u64 {
        let made = |n: &&bale_spec::runtime::Namespace| n.path.as_deref().is_none_or(str::is_empty);
        let kinds = self.linux.namespaces.iter().filter(made).map(|n| n.kind);
        // The time namespace is entered by its maker's children; on v1 the cgroup namespace is made by init itself,
        // once it is in its cgroups, as that is where it is rooted.
        let later = |kind: NamespaceKind| {
            kind == NamespaceKind::Time || kind == NamespaceKind::Cgroup && self.late_cgroup_namespace()
        };
        kinds.filter(|kind| !later(*kind)).fold(0, |flags, kind| flags | kind_flag(kind))
    }

    fn late_cgroup_namespace(&self) -> bool {
        self.choices.cgroup && (self.facts.layout != Layout::Unified || self.choices.systemd)
    }

    pub(super) fn time_offsets(&self) -> Result<Option<Vec<(String, TimeOffset)>>> {
        for clock in self.linux.time_offsets.keys() {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(invalid(
                    "linux.timeOffsets",
                    &format!("{clock:?} is no clock that can be offset"),
                ));
            }
        }
        let offsets =
            self.linux.time_offsets.iter().map(|(clock, offset)| (clock.clone(), *offset)).collect();
        Ok(self.makes(NamespaceKind::Time).then_some(offsets))
    }

    /// Cgroups first, then namespaces.
    pub(super) fn namespaces(&mut self) -> Result<()> {
        if self.choices.cgroup && self.choices.systemd {
            self.ops.push(Op::Sync(Point::Unit));
        }
        if self.choices.cgroup && self.facts.layout != Layout::Unified {
            self.ops.push(Op::JoinCgroups);
        }
        if let Some(rdt) = self.rdt()? {
            for path in rdt.group().tasks() {
                let shown = c_string("linux.intelRdt", path.as_os_str().as_bytes())?;
                let source = self.source(Source::Tasks { path });
                self.ops.push(Op::JoinGroup { source, path: shown });
            }
        }
        self.ops.push(Op::AllProcessors);
        let listed = self.linux.namespaces.iter().enumerate();
        let mut joined: Vec<_> = listed.filter(|(_, n)| self.joins(n.kind)).collect();
        // Namespaces that a joined user namespace does not own are joined from outside of it, by whoever has the right to
        // there. A joined mount namespace changes what every path means: it comes last.
        let admin = bale_sys::identity::capability("CAP_SYS_ADMIN");
        let outside = admin.is_some_and(|bit| self.facts.capabilities >> bit & 1 == 1);
        joined.sort_by_key(|(_, n)| match n.kind {
            NamespaceKind::Mount => 3,
            NamespaceKind::User => 1,
            _ if outside => 0,
            _ => 2,
        });
        for (index, namespace) in joined {
            let path = namespace.path.clone().unwrap_or_default();
            let place = format!("linux.namespaces[{index}].path");
            let source = self.source(Source::Namespace { place, path, kind: namespace.kind });
            if namespace.kind == NamespaceKind::Pid {
                self.late_pids = Some(source);
            }
            // What is joined by its children alone can be said at any time while there is a right to.
            if namespace.kind != NamespaceKind::Pid || self.joins_first() {
                self.ops.push(Op::Join { source, kind: namespace.kind });
            }
        }
        let (pid, joins_first) = (kind_flag(NamespaceKind::Pid), self.joins_first());
        if joins_first || self.joins(NamespaceKind::User) {
            // In a user namespace that was joined the rest follows once init is its root: files in them are their maker's.
            let flags = if joins_first { self.made() } else { self.made() & pid };
            if flags != 0 {
                self.ops.push(Op::NewNamespaces(flags));
            }
            if self.makes(NamespaceKind::Pid) {
                // Its maker's children alone are in it.
                self.ops.push(Op::EnterPids);
            }
        }
        if self.makes(NamespaceKind::Cgroup) && self.late_cgroup_namespace() {
            self.ops.push(Op::NewCgroupNamespace);
        }
        Ok(())
    }
}
