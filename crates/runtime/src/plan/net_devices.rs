//! Network devices to move in.

use bale_fault::Result;
use bale_spec::runtime::{Linux, NamespaceKind};

use super::{NetDevice, invalid};

/// The longest name of a device in bytes (`IFNAMSIZ` holds its end too).
const NAME_MAX: usize = 15;

/// Reads the field `linux.netDevices`.
pub fn read(linux: &Linux) -> Result<Vec<NetDevice>> {
    if linux.net_devices.is_empty() {
        return Ok(Vec::new());
    }
    if !linux.namespaces.iter().any(|n| n.kind == NamespaceKind::Network) {
        let words = "unable to move network devices without a network namespace";
        return Err(invalid("linux.netDevices", words).hint("add {\"type\": \"network\"}"));
    }
    let mut devices: Vec<NetDevice> = Vec::with_capacity(linux.net_devices.len());
    for (name, device) in &linux.net_devices {
        let path = format!("linux.netDevices[{name:?}]");
        check_name(&path, name)?;
        let new_name = match device.name.as_deref().filter(|n| !n.is_empty()) {
            Some(new_name) => {
                check_name(&format!("{path}.name"), new_name)?;
                new_name
            }
            None => name,
        };
        if let Some(other) = devices.iter().find(|d| d.new_name == new_name) {
            let words = format!("{:?} becomes {new_name:?} too", other.name);
            return Err(invalid(&path, &words));
        }
        devices.push(NetDevice { name: name.clone(), new_name: new_name.to_owned() });
    }
    Ok(devices)
}

/// The kernel's rule (`dev_valid_name` of net/core/dev.c), and no `%`, by which it numbers names.
fn check_name(path: &str, name: &str) -> Result<()> {
    let bad = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '%' | '\0');
    if name.is_empty() || name.len() > NAME_MAX || matches!(name, "." | "..") || name.contains(bad) {
        return Err(invalid(path, &format!("invalid network device name {name:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel() {
        for good in ["eth0", "a.b-c_d", "123456789012345", "\u{e4}"] {
            check_name("x", good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "eth%d", "1234567890123456", "a\0"] {
            assert!(check_name("x", bad).is_err(), "{bad:?}");
        }
    }
}
