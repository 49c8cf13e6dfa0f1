//! How init becomes the container's process: what it needs from the host first, its settings, its identity, its end in exec.

use bale_fault::Result;
use bale_spec::runtime::{NamespaceKind, Status};

use super::op::{Op, Point};
use super::process::{self, label, open_label};
use super::{Builder, c_string, invalid, kind_flag};
use crate::kept::Listener;

impl Builder<'_> {
    /// What needs the host's procfs or the ids of the caller.
    pub(super) fn before_mounts(&mut self) -> Result<()> {
        if label(self.process)?.is_some() {
            self.ops.push(open_label(self.process)?);
        }
        if let Some(score) = self.process.oom_score_adj {
            if !(-1000..=1000).contains(&score) {
                return Err(invalid(
                    "process.oomScoreAdj",
                    &format!("{score} is not between -1000 and 1000"),
                ));
            }
            let path = c"self/oom_score_adj".to_owned();
            // Below what this process has it needs CAP_SYS_RESOURCE; then the score stays (as runc in containers).
            self.ops.push(Op::WriteSelf { path, value: score.to_string().into_bytes(), lenient: true });
        }
        if self.makes(NamespaceKind::User) {
            self.ops.push(Op::Sync(Point::IdMaps));
        }
        if self.makes(NamespaceKind::User) || self.joins(NamespaceKind::User) {
            self.ops.push(Op::BecomeRoot);
        }
        let rest = self.made() & !kind_flag(NamespaceKind::Pid);
        if self.joins(NamespaceKind::User) && rest != 0 {
            self.ops.push(Op::NewNamespaces(rest));
        }
        Ok(())
    }

    pub(super) fn terminal(&mut self) {
        if self.process.terminal {
            let size = self.process.console_size.map(|size| (size.height, size.width));
            self.ops.push(Op::Terminal { size, console: true, control: self.late_pids.is_none() });
        } else if self.choices.place_stdio {
            self.ops.push(Op::PlaceStdio);
        }
    }

    pub(super) fn process_settings(&mut self) -> Result<()> {
        if self.makes(NamespaceKind::Network) {
            self.ops.push(Op::LoopbackUp);
        }
        if !self.choices.no_new_keyring {
            self.ops.push(Op::Keyring(c_string("id", format!("_ses.{}", self.choices.id))?));
        }
        if !self.process.terminal && self.late_pids.is_none() {
            self.ops.push(Op::NewSession);
        }
        self.ops.extend(self.personality()?.map(Op::Personality));
        if let Some(policy) = &self.linux.memory_policy {
            self.ops.push(process::memory_policy(policy)?);
        }
        self.ops.append(&mut process::scheduling(self.process)?);
        let mut limits = process::limits(self.process)?;
        if (self.makes(NamespaceKind::User) || self.joins(NamespaceKind::User)) && !limits.is_empty() {
            self.ops.push(Op::Sync(Point::Limits));
        } else {
            self.ops.append(&mut limits);
        }
        self.ops.push(if self.choices.cgroup { Op::Sync(Point::Limited) } else { Op::Announce });
        Ok(())
    }

    pub(super) fn become_process(&mut self, listener: Option<bool>) -> Result<()> {
        if let Some(source) = self.late_pids.filter(|_| !self.joins_first()) {
            // For the process that this one goes on as.
            self.ops.push(Op::Join { source, kind: NamespaceKind::Pid });
        }
        // setgroups is denied only where the caller maps itself alone, which a root caller never does.
        self.ops.push(Op::OwnStdio { uid: self.process.user.uid });
        if let Some(value) = label(self.process)? {
            self.ops.push(Op::WriteLabel { value });
        }
        let mut identity = process::identity_ops(self.process, self.facts.capabilities, listener, true);
        if self.late_pids.is_some() {
            // Its processes may have power over whoever is in it: init goes there when it has nothing of the host any more,
            // neither descriptors nor capabilities (CVE-2016-9962).
            let later = Listener::of(self.linux.seccomp.as_ref()).is_some_and(|listener| listener.later);
            process::enter_pids(&mut identity, self.process.terminal, later);
        }
        self.ops.append(&mut identity);
        let late = listener.filter(|_| self.process.no_new_privileges);
        if late == Some(true) {
            // The parent takes the listener, so it is loaded while there is a parent.
            self.ops.push(Op::Seccomp { listener: true });
        }
        if self.choices.wait_for_start {
            self.ops.push(Op::WaitForStart);
        }
        // Hooks here are programs of the container: they are held by its filter (as with runc).
        if late == Some(false) {
            self.ops.push(Op::Seccomp { listener: false });
        }
        for (index, hook) in self.config.hooks.iter().flat_map(|h| &h.start_container).enumerate() {
            let hook = self.inner_hook(&format!("hooks.startContainer[{index}]"), hook, Status::Created)?;
            self.ops.push(Op::Hook(Box::new(hook)));
        }
        self.ops.push(Op::Exec);
        Ok(())
    }
}
