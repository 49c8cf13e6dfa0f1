//! The root file system: where it comes from, how it becomes the root, and which of its paths are restricted.

use std::os::unix::ffi::OsStrExt;

use bale_fault::Result;
use bale_spec::runtime::NamespaceKind;
use bale_sys::mount::{Attributes, attr, propagation};

use super::mounts::destination;
use super::op::Op;
use super::{Builder, Source, c_string, invalid};
use crate::options::RootSource;

impl Builder<'_> {
    pub(super) fn root(&mut self) -> Result<String> {
        let own = self.makes(NamespaceKind::Mount);
        if own {
            self.ops.push(Op::PrivateMounts);
        }
        let (source, rootfs) = match self.choices.root {
            RootSource::Overlay { lowers, upper, work } => {
                let (lowers, upper, work) = (lowers.clone(), upper.clone(), work.clone());
                (Source::Overlay { lowers, upper, work }, String::new())
            }
            RootSource::Config => {
                let root = self.config.root.as_ref().filter(|r| !r.path.is_empty());
                let root = root.ok_or_else(|| invalid("root.path", "is missing"))?;
                let path = self.choices.bundle.join(&root.path);
                let text = path.to_string_lossy().into_owned();
                let base = self.base_propagation();
                let propagation = if base == propagation::SHARED { 0 } else { base };
                // pivot_root takes no root that is shared; it becomes that again afterwards.
                let unsaid = self.linux.rootfs_propagation.as_deref().is_none_or(str::is_empty);
                let private_top = unsaid || base == propagation::SHARED;
                (Source::Root { path, propagation, private_top }, text)
            }
        };
        // Hooks find the root file system by its path on the host, also in init's mount namespace.
        let hooks = self.config.hooks.as_ref();
        let seen = hooks.is_some_and(|h| {
            !(h.prestart.is_empty() && h.create_runtime.is_empty() && h.create_container.is_empty())
        });
        // In a mount namespace of others it is mounted on itself, so that nobody's root changes.
        let at = match &source {
            Source::Root { path, .. } if seen || !own => {
                Some(c_string("root.path", path.as_os_str().as_bytes())?)
            }
            _ => None,
        };
        let source = self.source(source);
        self.ops.push(Op::AttachRoot { source, at });
        if !own {
            self.keep_to_itself();
            self.host_root = (!self.joins(NamespaceKind::Mount)).then_some(source);
        }
        if !self.linux.masked_paths.is_empty() {
            self.ops.push(Op::OpenNull);
        }
        Ok(rootfs)
    }

    /// On a shared mount the root has become shared as well: what is mounted in it now stays in this namespace.
    fn keep_to_itself(&mut self) {
        let base = self.base_propagation();
        if base == propagation::SHARED {
            return;
        }
        for (propagation, recursive) in [(base, true), (propagation::PRIVATE, false)] {
            let change = Attributes { propagation, ..Attributes::default() };
            self.ops.push(Op::SetRoot { change, recursive });
        }
    }

    /// Propagation of what comes from the host: slave as runc does it, unless the config says otherwise.
    pub(super) fn base_propagation(&self) -> u64 {
        match self.linux.rootfs_propagation.as_deref() {
            Some("private" | "rprivate" | "unbindable" | "runbindable") => propagation::PRIVATE,
            Some("shared" | "rshared") => propagation::SHARED,
            _ => propagation::SLAVE,
        }
    }

    pub(super) fn paths(&mut self) -> Result<()> {
        for (index, path) in self.linux.readonly_paths.iter().enumerate() {
            let target = destination(&format!("linux.readonlyPaths[{index}]"), path)?;
            self.ops.push(Op::ReadOnly(target));
        }
        for (index, path) in self.linux.masked_paths.iter().enumerate() {
            let target = destination(&format!("linux.maskedPaths[{index}]"), path)?;
            self.ops.push(Op::Mask(target));
        }
        Ok(())
    }

    pub(super) fn enter_root(&mut self) -> Result<()> {
        self.ops.append(&mut self.late);
        self.ops.push(Op::OpenCwd(destination("process.cwd", &self.process.cwd)?));
        // pivot_root would change the root of everybody in the mount namespace.
        let own = self.makes(NamespaceKind::Mount);
        if own && self.choices.no_pivot {
            self.leave_without_pivot()?;
        }
        let no_pivot = self.choices.no_pivot || !own;
        self.ops.push(Op::PivotRoot { no_pivot });
        if self.config.root.as_ref().is_some_and(|r| r.readonly) {
            let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
            self.ops.push(Op::SetRoot { change, recursive: false });
        }
        if let Some(name) = self.linux.rootfs_propagation.as_deref().filter(|n| !n.is_empty()) {
            let (bits, recursive) = root_propagation(name)?;
            if self.choices.no_pivot && bits == propagation::PRIVATE {
                let words = format!("rootfsPropagation of {name} is not safe without pivot_root");
                return Err(invalid("linux.rootfsPropagation", &words));
            }
            let change = Attributes { propagation: bits, ..Attributes::default() };
            self.ops.push(Op::SetRoot { change, recursive });
        }
        Ok(())
    }
}

impl Builder<'_> {
    /// Without pivot_root the host's mounts stay in the container's mount namespace, below its root. Nobody must get there:
    /// from a root that is not on top a process with CAP_SYS_CHROOT walks up. And with the host's procfs in sight the kernel
    /// lets a user namespace mount one of its own, without the masks of this container's.
    fn leave_without_pivot(&mut self) -> Result<()> {
        if self.ops.iter().any(|op| matches!(op, Op::AttachRoot { at: Some(_), .. })) {
            self.ops.push(Op::MoveRoot);
        }
        for path in &self.facts.kernel_mounts {
            self.ops.push(Op::HideMount(c_string("mounts", path.as_os_str().as_bytes())?));
        }
        Ok(())
    }
}

fn root_propagation(name: &str) -> Result<(u64, bool)> {
    let (bare, recursive) = match name {
        "rshared" | "rslave" | "rprivate" | "runbindable" => (&name[1..], true),
        other => (other, false),
    };
    let bits = match bare {
        "shared" => propagation::SHARED,
        "slave" => propagation::SLAVE,
        "private" => propagation::PRIVATE,
        "unbindable" => propagation::UNBINDABLE,
        _ => return Err(invalid("linux.rootfsPropagation", &format!("{name:?} is no propagation"))),
    };
    Ok((bits, recursive))
}
