//! Mounts of the config: sources for the parent to open, operations for init.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::{Mount, NamespaceKind};
use bale_sys::mount::{Attributes, attr, propagation};
use bale_sys::root::RelPath;

use super::op::{Op, Target};
use super::options::MountOptions;
use super::{Builder, IdMap, Source, c_string, invalid};
use crate::cgroup::Layout;

/// File systems that take no SELinux context as mount option.
const NO_CONTEXT: [&str; 6] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "bpf"];

impl Builder<'_> {
    pub(super) fn mounts(&mut self) -> Result<()> {
        for (index, mount) in self.config.mounts.iter().enumerate() {
            let path = format!("mounts[{index}]");
            self.mount = u16::try_from(index).unwrap_or(u16::MAX);
            let options = MountOptions::read(mount.kind.as_deref(), &mount.options);
            let target = destination(&format!("{path}.destination"), &mount.destination)?;
            if options.copy_symlink && (options.source_no_follow || options.target_no_follow) {
                let words = "copy-symlink cannot be combined with src-nofollow and dest-nofollow";
                return Err(invalid(&format!("{path}.options"), words));
            }
            let link = self.facts.links.get(&index).filter(|_| options.copy_symlink);
            if options.remount {
                self.remount(&path, &options, target)?;
            } else if let Some(content) = link {
                self.copy_link(&path, content, &mount.destination)?;
            } else if options.bind {
                self.bind(&path, mount, &options, target)?;
            } else {
                self.new_mount(&path, mount, &options, target)?;
            }
        }
        Ok(())
    }

    fn bind(&mut self, path: &str, mount: &Mount, options: &MountOptions, target: Target) -> Result<()> {
        let source = mount.source.as_deref().filter(|s| !s.is_empty());
        let source = source.ok_or_else(|| invalid(&format!("{path}.source"), "a bind mount needs one"))?;
        let from = c_string(&format!("{path}.source"), absolute(self.choices.bundle, source))?;
        if let Some(option) = &options.of_file_system {
            let words =
                format!("bind mounts cannot have any filesystem-specific options applied: {option:?}");
            return Err(invalid(&format!("{path}.options"), &words));
        }
        let idmap = self.mount_id_map(path, mount, options)?;
        let changes = self.bind_changes(options);
        let source = self.source(Source::Bind {
            place: format!("{path}.source"),
            path: from.clone(),
            recursive: options.recursive,
            no_follow: options.source_no_follow,
            changes,
            idmap,
        });
        self.ops.push(Op::Bind {
            index: self.mount,
            source,
            from,
            target,
            no_follow: options.target_no_follow,
        });
        Ok(())
    }

    /// As mount(2) has it: attributes become exactly those that are given, but for access times if none is.
    fn remount(&mut self, path: &str, options: &MountOptions, target: Target) -> Result<()> {
        let set = options.top.set | options.below.set;
        let all = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        let clear = (all & !set) | options.top.clear | options.below.clear;
        let propagation = options.propagation.map_or(0, |p| p.0);
        let file_system = (!options.bind).then(|| {
            let access = if set & attr::RDONLY != 0 { c"ro" } else { c"rw" };
            let data = options.data.iter().map(|option| fs_option(path, option));
            std::iter::once(Ok((access.to_owned(), None))).chain(data).collect::<Result<Vec<_>>>()
        });
        let change = Attributes { set, clear, propagation };
        self.ops.push(Op::Remount { index: self.mount, options: file_system.transpose()?, change, target });
        Ok(())
    }

    fn copy_link(&mut self, path: &str, content: &Path, place: &str) -> Result<()> {
        let field = format!("{path}.destination");
        let place = RelPath::clamped(place).map_err(|e| invalid(&field, &e.to_string()))?;
        let (parent, name) = place.split_last().ok_or_else(|| invalid(&field, "names no file"))?;
        self.ops.push(Op::CopyLink {
            index: self.mount,
            parent: Target::new(&parent),
            name: name.clone(),
            to: c_string(&format!("{path}.source"), content.as_os_str().as_bytes())?,
        });
        Ok(())
    }

    /// Propagation first as the container's root has it, then as the options say, then attributes.
    fn bind_changes(&self, options: &MountOptions) -> Vec<(bool, Attributes)> {
        let base = self.base_propagation();
        let mut changes = Vec::new();
        let with = |propagation, change: Attributes| Attributes { propagation, ..change };
        let none = Attributes::default();
        match options.propagation {
            Some((bits, recursive)) if bits != propagation::SHARED && (recursive || !options.recursive) => {
                changes.push((true, with(bits, none)));
            }
            wanted => {
                if base != propagation::SHARED {
                    changes.push((true, with(base, none)));
                }
                if let Some((bits, recursive)) = wanted {
                    changes.push((recursive, with(bits, none)));
                }
            }
        }
        // One call for what can be one call.
        let mut add = |recursive: bool, change: Attributes| {
            if change.is_empty() {
                return;
            }
            match changes.last_mut() {
                Some((same, last)) if *same == recursive || !options.recursive => {
                    (last.set, last.clear) = (last.set | change.set, last.clear | change.clear);
                }
                _ => changes.push((recursive, change)),
            }
        };
        add(true, options.below);
        add(false, options.top);
        changes
    }

    fn mount_id_map(&self, path: &str, mount: &Mount, options: &MountOptions) -> Result<Option<IdMap>> {
        let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        let linux = self.config.linux.as_ref();
        if !own && options.idmap.is_none() {
            return Ok(None);
        }
        let recursive = options.idmap == Some(true);
        let (uids, gids) = if own {
            (mount.uid_mappings.clone(), mount.gid_mappings.clone())
        } else if self.joins(NamespaceKind::User) {
            let users = self.linux.namespaces.iter().find(|n| n.kind == NamespaceKind::User);
            let namespace = users.and_then(|n| n.path.clone());
            return Ok(Some(IdMap { namespace, recursive, ..IdMap::default() }));
        } else {
            linux.map(|l| (l.uid_mappings.clone(), l.gid_mappings.clone())).unwrap_or_default()
        };
        if uids.is_empty() || gids.is_empty() {
            let words =
                "an idmapped mount needs uidMappings and gidMappings, of its own or of a user namespace";
            return Err(invalid(path, words));
        }
        Ok(Some(IdMap { uids, gids, recursive, namespace: None }))
    }

    fn new_mount(&mut self, path: &str, mount: &Mount, options: &MountOptions, target: Target) -> Result<()> {
        let kind = mount.kind.as_deref().unwrap_or("none");
        if kind == "none" {
            return Err(invalid(&format!("{path}.type"), "needs a file system type, or the option bind"));
        }
        if !mount.uid_mappings.is_empty() || options.idmap.is_some() {
            return Err(unsupported(path, "an idmapped mount that is no bind mount"));
        }
        if kind == "cgroup" || kind == "cgroup2" {
            return self.cgroup_mount(mount, options, target);
        }
        let mut data = Vec::new();
        if let Some(source) = mount.source.as_deref().filter(|s| !s.is_empty()) {
            data.push((c"source".to_owned(), Some(c_string(&format!("{path}.source"), source)?)));
        }
        for option in &options.data {
            data.push(fs_option(path, option)?);
        }
        self.add_context(kind, &mut data)?;
        if kind == "tmpfs" && options.copy_up && !options.data.iter().any(|o| o.starts_with("mode=")) {
            // The copied directory's own mode is set afterwards.
            data.push((c"mode".to_owned(), Some(c"0755".to_owned())));
        }
        self.push_mount(kind, data, options, target)
    }

    fn add_context(&self, kind: &str, data: &mut Vec<(CString, Option<CString>)>) -> Result<()> {
        let label =
            self.config.linux.as_ref().and_then(|l| l.mount_label.as_deref()).filter(|l| !l.is_empty());
        if let Some(label) = label
            && self.facts.selinux
            && !NO_CONTEXT.contains(&kind)
        {
            data.push((c"context".to_owned(), Some(c_string("linux.mountLabel", label)?)));
        }
        Ok(())
    }

    fn push_mount(
        &mut self,
        kind: &str,
        options_of_fs: Vec<(CString, Option<CString>)>,
        options: &MountOptions,
        target: Target,
    ) -> Result<()> {
        let mut attributes = options.top.set | options.below.set;
        let is_dev = target.path.as_bytes() == b"dev";
        // /dev is filled first; a copied tree needs a writable mount as well.
        let late = attributes & attr::RDONLY != 0 && (is_dev || options.copy_up);
        if late {
            attributes &= !attr::RDONLY;
            let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
            self.late.push(Op::SetMount { target: target.clone(), change });
        }
        let is_tmpfs = kind == "tmpfs";
        let has_mode = options_of_fs.iter().any(|(key, _)| key.as_bytes() == b"mode");
        let after =
            Attributes { propagation: options.propagation.map_or(0, |p| p.0), ..Attributes::default() };
        self.ops.push(Op::Mount {
            index: self.mount,
            kind: c_string("mounts", kind)?,
            options: options_of_fs,
            attributes,
            after,
            target,
            no_links: matches!(kind, "proc" | "sysfs"),
            copy_up: options.copy_up && is_tmpfs,
            keep_mode: is_tmpfs && !has_mode,
            pids: self.late_pids.filter(|_| kind == "proc"),
        });
        Ok(())
    }

    fn cgroup_mount(&mut self, mount: &Mount, options: &MountOptions, target: Target) -> Result<()> {
        let source = mount.source.as_deref().filter(|s| !s.is_empty()).unwrap_or("cgroup");
        let source = (c"source".to_owned(), Some(c_string("mounts", source)?));
        if self.facts.layout == Layout::Unified {
            return self.push_mount("cgroup2", vec![source], options, target);
        }
        let own_view = self.makes(NamespaceKind::Cgroup);
        let outer = MountOptions {
            top: Attributes { set: options.top.set, ..Attributes::default() },
            ..MountOptions::default()
        };
        let base = target.path.clone();
        let tmpfs = (c"source".to_owned(), Some(c"tmpfs".to_owned()));
        let mode = vec![tmpfs, (c"mode".to_owned(), Some(c"755".to_owned()))];
        let writable = MountOptions {
            top: Attributes { set: outer.top.set & !attr::RDONLY, ..Attributes::default() },
            ..MountOptions::default()
        };
        self.push_mount("tmpfs", mode, &writable, target.clone())?;
        for hierarchy in self.facts.v1.clone() {
            let below = [base.as_bytes(), b"/", hierarchy.name.as_bytes()].concat();
            let place = Target::new(&RelPath::new(below).map_err(|e| invalid("mounts", &e.to_string()))?);
            if own_view {
                let mut data = v1_options(&hierarchy.controllers)?;
                // As runc: the hierarchy without controllers has a name of its own.
                let named = (c"source".to_owned(), Some(c"systemd".to_owned()));
                data.push(if hierarchy.name == "systemd" { named } else { source.clone() });
                self.push_mount("cgroup", data, &outer, place)?;
            } else {
                let mut change = Attributes { propagation: propagation::PRIVATE, ..outer.top };
                change.set |= options.top.set;
                let key = hierarchy.controllers.first().cloned().unwrap_or_default();
                let source = self.source(Source::Cgroup { controller: key, change });
                let from = c_string("mounts", hierarchy.name.as_str())?;
                self.ops.push(Op::Bind { index: self.mount, source, from, target: place, no_follow: false });
            }
            self.controller_links(&target, &hierarchy)?;
        }
        if outer.top.set & attr::RDONLY != 0 {
            let change = Attributes { set: attr::RDONLY, ..Attributes::default() };
            self.ops.push(Op::SetMount { target, change });
        }
        Ok(())
    }

    /// `cpu` points to `cpu,cpuacct` where one hierarchy has both.
    fn controller_links(&mut self, parent: &Target, hierarchy: &super::V1Hierarchy) -> Result<()> {
        if hierarchy.controllers.len() > 1 {
            for controller in hierarchy.controllers.iter().filter(|c| **c != hierarchy.name) {
                self.ops.push(Op::Link {
                    parent: parent.clone(),
                    name: c_string("mounts", controller.as_str())?,
                    to: c_string("mounts", hierarchy.name.as_str())?,
                });
            }
        }
        Ok(())
    }
}

fn v1_options(controllers: &[String]) -> Result<Vec<(CString, Option<CString>)>> {
    let mut data = Vec::new();
    for controller in controllers {
        match controller.strip_prefix("name=") {
            Some(name) => {
                data.push((c"none".to_owned(), None));
                data.push((c"name".to_owned(), Some(c_string("mounts", name)?)));
            }
            None => data.push((c_string("mounts", controller.as_str())?, None)),
        }
    }
    Ok(data)
}

fn fs_option(path: &str, option: &str) -> Result<(CString, Option<CString>)> {
    let path = format!("{path}.options");
    Ok(match option.split_once('=') {
        Some((key, value)) => (c_string(&path, key)?, Some(c_string(&path, value)?)),
        None => (c_string(&path, option)?, None),
    })
}

/// Reads a destination: below the root, `..` folded as the container's own `/` would.
pub(super) fn destination(path: &str, destination: &str) -> Result<Target> {
    if destination.is_empty() {
        return Err(invalid(path, "is empty"));
    }
    let below = RelPath::clamped(destination).map_err(|error| invalid(path, &error.to_string()))?;
    Ok(Target::new(&below))
}

/// A path of the config, relative ones to the bundle.
pub(super) fn absolute(bundle: &Path, path: &str) -> Vec<u8> {
    bundle.join(path).as_os_str().as_bytes().to_vec()
}

fn unsupported(path: &str, what: &str) -> Fault {
    Fault::new(Kind::Unsupported, format!("config.json: {path}: {what} is not supported"))
}
