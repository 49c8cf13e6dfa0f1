//! What is refused before anything is decided.

use bale_fault::{Fault, Kind, Result};
use bale_spec::runtime::NamespaceKind;

use super::{Builder, invalid};
use crate::options::RootSource;

impl Builder<'_> {
    /// Refuses what contradicts itself or is not done, before anything is decided.
    pub(super) fn check(&self) -> Result<()> {
        let linux = self.linux;
        if !self.config.oci_version.starts_with("1.") {
            return Err(invalid("ociVersion", &format!("{:?} is no 1.x version", self.config.oci_version))
                .hint("a bundle of an older dialect is converted by `bale upgrade`"));
        }
        if !self.process.cwd.starts_with('/') {
            return Err(invalid("process.cwd", &format!("{:?} is not an absolute path", self.process.cwd)));
        }
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            if linux.namespaces[..index].iter().any(|n| n.kind == namespace.kind) {
                let words = format!("{:?} is there twice", namespace.kind);
                return Err(invalid(&format!("linux.namespaces[{index}]"), &words));
            }
            if namespace.path.as_deref().is_some_and(|p| !p.is_empty() && !p.starts_with('/')) {
                return Err(invalid(&format!("linux.namespaces[{index}].path"), "is not an absolute path"));
            }
        }
        self.check_shared_mounts()?;
        for (name, text) in [("hostname", &self.config.hostname), ("domainname", &self.config.domainname)] {
            let wants_uts = text.as_deref().is_some_and(|t| !t.is_empty());
            if wants_uts && !self.makes(NamespaceKind::Uts) && !self.joins(NamespaceKind::Uts) {
                return Err(invalid(name, "unable to set it without a uts namespace"));
            }
        }
        self.check_user_namespace()
    }

    /// In a mount namespace that is not the container's own every mount is made for all who are in it.
    fn check_shared_mounts(&self) -> Result<()> {
        if self.makes(NamespaceKind::Mount) {
            return Ok(());
        }
        let unsupported = |words: &str| {
            let words =
                format!("config.json: linux.namespaces: {words} without a mount namespace of its own");
            Err(Fault::new(Kind::Unsupported, words).hint("add {\"type\": \"mount\"}"))
        };
        if self.makes(NamespaceKind::User) {
            return unsupported("a user namespace");
        }
        if !matches!(self.choices.root, RootSource::Config) {
            return unsupported("a root that bale makes");
        }
        let linux = self.linux;
        let restricts = !linux.masked_paths.is_empty() || !linux.readonly_paths.is_empty();
        if restricts && !self.joins(NamespaceKind::Mount) {
            let words = "unable to restrict sys entries without a private MNT namespace";
            return Err(invalid("linux.maskedPaths", words));
        }
        Ok(())
    }

    fn check_user_namespace(&self) -> Result<()> {
        let linux = self.linux;
        let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        if self.makes(NamespaceKind::User) && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty())
        {
            return Err(invalid("linux.uidMappings", "a user namespace needs uidMappings and gidMappings"));
        }
        if maps && self.joins(NamespaceKind::User) {
            let words =
                "user namespaces enabled, but both namespace path and mapping specified: one is enough";
            return Err(invalid("linux.uidMappings", words));
        }
        if maps && !self.makes(NamespaceKind::User) {
            return Err(invalid("linux.uidMappings", "there are mappings, and no user namespace"));
        }
        if !linux.time_offsets.is_empty() && !self.makes(NamespaceKind::Time) {
            return Err(invalid("linux.timeOffsets", "there are offsets, and no time namespace of its own"));
        }
        Ok(())
    }
}
