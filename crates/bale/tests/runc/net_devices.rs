//! Network devices that move into the container. Everything is in network namespaces of the test's own: the runtime is
//! started in one that `unshare` makes, with one end of a veth pair for each device (the other, `peer…`, stays).

use std::process::{Command, Stdio};

use bale_testkit::command::quoted;
use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Ran, Stage};

struct Net {
    stage: Stage,
}

impl Net {
    fn new() -> Option<Self> {
        let probe = "ip link add probe0 type veth peer name probe1";
        let made = Command::new("unshare").args(["-n", "sh", "-c", probe]).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            bale_testkit::note_skip("needs veth devices, and ip(8)");
            return None;
        }
        let stage = Stage::new();
        let features: Value = serde_json::from_str(&stage.ok(["features"])).expect("features");
        // runc moves devices since 1.4.
        (features["linux"]["netDevices"]["enabled"] == true).then_some(Self { stage })
    }

    /// Runs `before`, then a container, then `after`, in one network namespace.
    fn run(&self, before: &str, script: &str, after: &str, change: impl FnOnce(&mut Value)) -> Ran {
        let id = Stage::id();
        let bundle = self.stage.bundle(&id, script, change);
        let command = self.stage.command(["run", "-b", bundle.to_str().expect("path"), &id]);
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        let line = format!("{before}\n{}\ncode=$?\n{after}\nexit $code", words.join(" "));
        let shell = ["-n", "sh", "-c", line.as_str()];
        let output = Command::new("unshare").args(shell).stdin(Stdio::null()).output().expect("unshare");
        Ran::of(&output)
    }
}

const ONE: &str = "ip link add dev0 type veth peer name peer0; ip link set peer0 up";
const TWO: &str =
    "for n in 0 1; do ip link add dev$n type veth peer name peer$n; ip link set peer$n up; done";

fn devices(devices: Value) -> impl FnOnce(&mut Value) {
    move |c| c["linux"]["netDevices"] = devices
}

#[test]
fn a_device_moves_with_what_it_has() {
    require_root!();
    let Some(net) = Net::new() else { return };
    let before = format!(
        "{ONE}; ip link set dev0 mtu 1400 address 02:00:00:00:00:77; ip addr add 169.254.169.77/32 dev dev0
         ip addr add 10.9.0.2/24 brd 10.9.0.255 dev dev0; ip addr add 127.0.0.33 dev dev0"
    );
    let script = "ip addr show dev eth9; ip route; ip link | grep -c dev0";
    let ran = net.run(&before, script, "ip link show dev0 2>&1", devices(json!({"dev0": {"name": "eth9"}})));
    assert_eq!(ran.code, 1, "grep finds none: {ran:#?}");
    for part in [
        "eth9",
        "UP",
        "mtu 1400",
        "02:00:00:00:00:77",
        "inet 169.254.169.77/32 scope global",
        "inet 10.9.0.2/24",
        "10.9.0.0/24 dev eth9",
        "does not exist",
    ] {
        assert!(ran.out.contains(part), "{part:?} is not in {ran:#?}");
    }
    // Addresses that mean nothing elsewhere stay behind.
    assert!(!ran.out.contains("127.0.0.33"), "{ran:#?}");
    net.stage.assert_clean();
}

/// runc sets the device down first, which takes its IPv6 addresses away.
#[test]
fn addresses_of_both_families_are_kept() {
    require_root!();
    let Some(net) = Net::new() else { return };
    let before = format!("{ONE}; ip link set dev0 up; ip -6 addr add fd00::7/64 dev dev0 nodad");
    let ran = net.run(&before, "ip -6 addr show dev dev0", "", devices(json!({"dev0": {}})));
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        bale_testkit::note_skip("needs IPv6");
    } else if net.stage.is_bale() {
        assert!(ran.code == 0 && ran.out.contains("inet6 fd00::7/64 scope global"), "{ran:#?}");
    }
    net.stage.assert_clean();
}

#[test]
fn a_device_moves_into_a_namespace_that_is_there() {
    require_root!();
    let Some(net) = Net::new() else { return };
    let mut holder = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    while std::fs::read_link(&path).unwrap() == own {
        std::thread::yield_now();
    }
    // Looked at before the namespace of its peer goes, and the device with it.
    let look = format!("echo afterwards; nsenter -n -t {} ip link", holder.id());
    let ran = net.run(ONE, "ip link show dev0", &look, |c| {
        c["linux"]["netDevices"] = json!({"dev0": {}});
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.iter_mut().find(|n| n["type"] == "network").unwrap()["path"] = json!(path);
    });
    assert_eq!(ran.code, 0, "{ran:#?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let shown = ran.out.split("afterwards").nth(1).unwrap_or_default();
    // crun takes it back.
    assert!(shown.contains("dev0") || !net.stage.is_bale(), "the namespace's owner keeps it: {shown}");
    net.stage.assert_clean();
}

/// What fails leaves every device where it was.
#[test]
fn a_failure_leaves_the_devices_where_they_were() {
    require_root!();
    let Some(net) = Net::new() else { return };
    let after = "ip -o addr show dev dev0; ip -o link show dev dev1";
    let before = format!("{TWO}; ip addr add 10.9.0.2/24 dev dev0; ip link set dev0 up");
    for (asked, words) in [
        // The container has a device of this name already.
        (json!({"dev0": {"name": "eth0"}, "dev1": {"name": "lo"}}), "linux.netDevices[\"dev1\"]"),
        (json!({"dev0": {"name": "eth0"}, "dev9": {}}), "linux.netDevices[\"dev9\"]"),
    ] {
        let ran = net.run(&before, "true", after, devices(asked));
        assert_ne!(ran.code, 0, "{ran:#?}");
        if net.stage.is_bale() {
            ran.fails_with(words);
            for part in ["inet 10.9.0.2/24", "dev1@"] {
                assert!(ran.out.contains(part), "{part:?} is not in {ran:#?}");
            }
        }
    }
    net.stage.assert_clean();
}

#[test]
fn what_cannot_be_is_refused() {
    require_root!();
    let stage = Stage::new();
    for (asked, words) in [
        (json!({"a/b": {}}), "linux.netDevices[\"a/b\"]: invalid network device name"),
        (json!({"": {}}), "invalid network device name"),
        (json!({"..": {}}), "invalid network device name"),
        (
            json!({"dev0": {"name": "has space"}}),
            "linux.netDevices[\"dev0\"].name: invalid network device name",
        ),
        (json!({"dev0": {"name": "eth%d"}}), "invalid network device name"),
        (
            json!({"dev0": {"name": "x"}, "dev1": {"name": "x"}}),
            "linux.netDevices[\"dev1\"]: \"dev0\" becomes",
        ),
        (json!({"no-such-dev": {}}), "no such device"),
    ] {
        if stage.is_bale() {
            stage.run("true", devices(asked)).fails_with(words);
        }
    }
    let ran = stage.run("true", |c| {
        c["linux"]["netDevices"] = json!({"lo": {}});
        let namespaces = c["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "network");
    });
    if stage.is_bale() {
        ran.fails_with("unable to move network devices without a");
    }
    stage.assert_clean();
}
