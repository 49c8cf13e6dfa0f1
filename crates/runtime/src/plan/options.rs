//! The options of a mount, as runc, crun and fstab(5) spell them.

use bale_sys::mount::{Attributes, attr, propagation};

/// What the options of one mount mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// A bind mount.
    pub bind: bool,
    /// With all mounts below.
    pub recursive: bool,
    /// Changes of the mount itself.
    pub top: Attributes,
    /// Changes of it and all below.
    pub below: Attributes,
    /// `MS_…` of propagation, and whether it is recursive.
    pub propagation: Option<(u64, bool)>,
    /// Content of the target is copied into the new file system.
    pub copy_up: bool,
    /// Ids are mapped by the container's user namespace; recursively.
    pub idmap: Option<bool>,
    /// Links in the source are not followed.
    pub source_no_follow: bool,
    /// A link that is the target is mounted on, not followed.
    pub target_no_follow: bool,
    /// A symbolic link as source is made again instead of bound.
    pub copy_symlink: bool,
    /// Options of the file system: `key` or `key=value`.
    pub data: Vec<String>,
    /// One of them that is no flag of mount(2): a bind mount, which makes no file system, cannot have it.
    pub of_file_system: Option<String>,
    /// `remount` was asked for.
    pub remount: bool,
}

/// One attribute option: name, bits, and whether the name sets or clears them.
const ATTRIBUTES: [(&str, u64, bool); 15] = [
    ("ro", attr::RDONLY, true),
    ("rw", attr::RDONLY, false),
    ("nosuid", attr::NOSUID, true),
    ("suid", attr::NOSUID, false),
    ("nodev", attr::NODEV, true),
    ("dev", attr::NODEV, false),
    ("noexec", attr::NOEXEC, true),
    ("exec", attr::NOEXEC, false),
    ("nodiratime", attr::NODIRATIME, true),
    ("diratime", attr::NODIRATIME, false),
    ("nosymfollow", attr::NOSYMFOLLOW, true),
    ("symfollow", attr::NOSYMFOLLOW, false),
    ("noatime", attr::NOATIME, true),
    ("strictatime", attr::STRICTATIME, true),
    ("relatime", 0, true),
];
/// Flags of mount(2) that the file system takes as options.
const FLAGS: [&str; 8] = ["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "iversion"];
/// Names that return to relatime, the kernel's default.
const DEFAULT_ATIME: [&str; 3] = ["atime", "norelatime", "nostrictatime"];
const PROPAGATION: [(&str, u64, bool); 8] = [
    ("private", propagation::PRIVATE, false),
    ("rprivate", propagation::PRIVATE, true),
    ("slave", propagation::SLAVE, false),
    ("rslave", propagation::SLAVE, true),
    ("shared", propagation::SHARED, false),
    ("rshared", propagation::SHARED, true),
    ("unbindable", propagation::UNBINDABLE, false),
    ("runbindable", propagation::UNBINDABLE, true),
];

/// Every option that is not one of a file system, sorted: what `features` lists.
#[must_use]
pub fn known() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in ATTRIBUTES.iter().map(|a| a.0).chain(DEFAULT_ATIME) {
        names.push(name.to_owned());
        names.push(format!("r{name}"));
    }
    names.extend(PROPAGATION.iter().map(|p| p.0.to_owned()));
    let others = [
        "bind",
        "rbind",
        "defaults",
        "tmpcopyup",
        "idmap",
        "ridmap",
        "sync",
        "async",
        "dirsync",
        "mand",
        "nomand",
        "lazytime",
        "nolazytime",
        "iversion",
        "noiversion",
        "silent",
        "loud",
        "remount",
        "copy-symlink",
        "src-nofollow",
        "dest-nofollow",
    ];
    names.extend(others.map(ToOwned::to_owned));
    names.sort_unstable();
    names.dedup();
    names
}

impl MountOptions {
    /// Reads the options in order: of two that contradict each other the later one holds.
    #[must_use]
    pub fn read(kind: Option<&str>, options: &[String]) -> Self {
        let mut read = Self { bind: kind == Some("bind"), ..Self::default() };
        for option in options {
            read.one(option);
        }
        read
    }

    fn one(&mut self, option: &str) {
        if attribute(&mut self.top, option)
            || option.strip_prefix('r').is_some_and(|o| attribute(&mut self.below, o))
        {
            return;
        }
        if let Some((_, bits, recursive)) = PROPAGATION.iter().find(|(name, ..)| *name == option) {
            self.propagation = Some((*bits, *recursive));
            return;
        }
        match option {
            "defaults" | "silent" | "loud" | "noiversion" | "noacl" | "" => {}
            "dest-nofollow" => self.target_no_follow = true,
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "src-nofollow" => self.source_no_follow = true,
            "copy-symlink" => self.copy_symlink = true,
            "remount" => self.remount = true,
            other => {
                if !FLAGS.contains(&other) {
                    self.of_file_system = Some(other.to_owned());
                }
                self.data.push(other.to_owned());
            }
        }
    }
}

/// Applies an attribute option; tells whether it was one.
fn attribute(change: &mut Attributes, option: &str) -> bool {
    if DEFAULT_ATIME.contains(&option) {
        change.set &= !attr::ATIME;
        change.clear |= attr::ATIME;
        return true;
    }
    let Some((_, bits, sets)) = ATTRIBUTES.iter().find(|(name, ..)| *name == option) else { return false };
    if *bits & attr::ATIME != 0 || option == "relatime" {
        // The access time is a field, not bits: the kernel wants it cleared whole when it is set.
        change.set = change.set & !attr::ATIME | bits;
        change.clear |= attr::ATIME;
    } else if *sets {
        change.set |= bits;
        change.clear &= !bits;
    } else {
        change.clear |= bits;
        change.set &= !bits;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> MountOptions {
        MountOptions::read(None, &options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn later_options_win_and_recursive_ones_are_kept_apart() {
        let options =
            read(&["rbind", "ro", "rw", "nosuid", "rro", "noatime", "rprivate", "mode=755", "sync"]);
        assert!(options.bind && options.recursive);
        assert_eq!(options.top.set, attr::NOSUID | attr::NOATIME);
        assert_eq!(options.top.clear, attr::RDONLY | attr::ATIME);
        assert_eq!(options.below.set, attr::RDONLY);
        assert_eq!(options.propagation, Some((propagation::PRIVATE, true)));
        assert_eq!(options.data, ["mode=755", "sync"]);
    }

    #[test]
    fn relatime_is_not_a_recursive_elatime() {
        let options = read(&["relatime"]);
        assert_eq!((options.top.clear, options.below.clear), (attr::ATIME, 0));
        assert_eq!(read(&["rrelatime"]).below.clear, attr::ATIME);
        assert_eq!(read(&["rnoexec"]).below.set, attr::NOEXEC);
    }
}
