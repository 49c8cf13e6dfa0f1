//! Kernel parameters that belong to the container: its names, and `linux.sysctl`.

use bale_fault::Result;
use bale_spec::options::device::SYSCTLS;
use bale_spec::runtime::NamespaceKind;

use super::op::Op;
use super::{Builder, c_string, invalid, kind_flag};

impl Builder<'_> {
    pub(super) fn kernel_parameters(&mut self) -> Result<()> {
        if let Some(name) = self.config.hostname.as_deref().filter(|n| !n.is_empty()) {
            self.ops.push(Op::HostName(name.as_bytes().to_vec()));
        }
        if let Some(name) = self.config.domainname.as_deref().filter(|n| !n.is_empty()) {
            self.ops.push(Op::DomainName(name.as_bytes().to_vec()));
        }
        for (name, value) in &self.linux.sysctl {
            self.check_sysctl(name)?;
            let file = file_of(name);
            let path = c_string("linux.sysctl", format!("sys/{file}"))?;
            self.ops.push(Op::Sysctl { path, name: name.clone(), value: value.clone().into_bytes() });
        }
        Ok(())
    }

    /// Only parameters that belong to a namespace of the container may be set.
    fn check_sysctl(&self, name: &str) -> Result<()> {
        let refuse = |reason: &str| Err(invalid("linux.sysctl", &format!("{name:?}: {reason}")));
        if name.split(['.', '/']).any(|part| part.is_empty() || part == "..") {
            return refuse("is no name of a parameter");
        }
        // To join the host's own namespace by its path does not make it the container's.
        let has =
            |kind| self.makes(kind) || self.joins(kind) && self.facts.own_namespaces & kind_flag(kind) == 0;
        let dotted = name.replace('/', ".");
        // runc knows one more than docker.
        let of_ipc = SYSCTLS.contains(&dotted.as_str()) || dotted == "kernel.msg_next_id";
        if of_ipc || dotted.starts_with("fs.mqueue.") {
            return if has(NamespaceKind::Ipc) {
                Ok(())
            } else {
                refuse("wants an IPC namespace of the container's own")
            };
        }
        if dotted.starts_with("net.") {
            return if has(NamespaceKind::Network) && !self.facts.own_network {
                Ok(())
            } else {
                refuse("wants a network namespace of its own")
            };
        }
        if dotted.starts_with("user.") {
            return if has(NamespaceKind::User) {
                Ok(())
            } else {
                refuse("wants a user namespace of its own")
            };
        }
        match dotted.as_str() {
            "kernel.domainname" if has(NamespaceKind::Uts) => Ok(()),
            "kernel.hostname" => refuse("is set by the field hostname"),
            _ => refuse("is not in a separate kernel namespace"),
        }
    }
}

/// Returns the path of a parameter below `/proc/sys`. `/` may stand for `.` and the other way round, as sysctl(8) has
/// it: the first separator decides.
fn file_of(name: &str) -> String {
    let dotted = name.find(['.', '/']).is_none_or(|at| name.as_bytes()[at] == b'.');
    if !dotted {
        return name.to_owned();
    }
    let swapped = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swapped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        for (name, file) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(file_of(name), file);
        }
    }
}
