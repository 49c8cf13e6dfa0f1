//! `spec`.

use crate::exit::ExitCode;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::runtime::{IdMapping, Namespace, NamespaceKind, RuntimeConfig};

use super::absolute;
use super::args::{Flag, flag, parse, value};

/// What `runc spec` writes, in its own order.
const TEMPLATE: &str = include_str!("template.json");

/// The last is not one of runc's: it adds Docker's default filter.
pub const SPEC: &[Flag] = &[value("bundle", "b"), flag("rootless", ""), value("seccomp", "")];

/// `spec [--bundle DIR] [--rootless] [--seccomp docker]`.
pub fn spec(arguments: &[OsString]) -> Result<ExitCode> {
    let parsed = parse(SPEC, arguments, false)?.at_most(0)?;
    let bundle = absolute(&parsed.last("bundle").unwrap_or_else(|| ".".to_owned()))?;
    let path = bundle.join("config.json");
    let mut text = if parsed.has("rootless") { rootless()? } else { TEMPLATE.to_owned() };
    match parsed.last("seccomp").as_deref() {
        None => {}
        Some("docker") => text = filtered(&text)?,
        Some(other) => {
            let words = format!("unknown profile --seccomp {other:?}");
            return Err(Fault::new(Kind::InvalidInput, words).hint("there is one: docker"));
        }
    }
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    let mut file = match open {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let words = format!("file {path:?} exists; remove it first");
            return Err(Fault::new(Kind::AlreadyExists, words));
        }
        other => other.within(|| format!("make {path:?}"))?,
    };
    file.write_all(text.as_bytes()).within(|| format!("write {path:?}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Adds Docker's default filter for the capabilities of the config.
fn filtered(text: &str) -> Result<String> {
    let mut config = template(text)?;
    let capabilities =
        config.process.as_ref().and_then(|process| process.capabilities.clone()).unwrap_or_default();
    if let Some(linux) = &mut config.linux {
        linux.seccomp = Some(bale_runtime::seccomp::docker_default(&capabilities.bounding));
    }
    Ok(config.to_canonical())
}

fn template(text: &str) -> Result<RuntimeConfig> {
    RuntimeConfig::parse(text.as_bytes())
        .map_err(|error| Fault::new(Kind::Internal, "the template").caused_by(error))
}

/// The same for a user without root: ids mapped, the host's network and its sysfs, no cgroup limits.
fn rootless() -> Result<String> {
    let mut config = template(TEMPLATE)?;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if let Some(linux) = &mut config.linux {
        linux.namespaces.retain(|n| n.kind != NamespaceKind::Network);
        linux.namespaces.push(Namespace { kind: NamespaceKind::User, path: None });
        linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
        linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
        linux.resources = None;
    }
    for mount in &mut config.mounts {
        mount.options.retain(|o| !o.starts_with("gid=") && !o.starts_with("uid="));
        if mount.destination == "/sys" {
            mount.kind = Some("none".to_owned());
            mount.source = Some("/sys".to_owned());
            mount.options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(ToOwned::to_owned).to_vec();
        }
    }
    Ok(config.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_config() {
        let config = RuntimeConfig::parse(TEMPLATE.as_bytes()).unwrap();
        assert_eq!(config.mounts.len(), 7);
        assert!(rootless().unwrap().contains("\"hostID\""));
        assert!(filtered(TEMPLATE).unwrap().contains("SCMP_ACT_ERRNO"));
    }
}
