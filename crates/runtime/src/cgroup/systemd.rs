//! The systemd driver: units by D-Bus. Not there yet.

use bale_fault::{Fault, Kind};

/// Says that the systemd driver is not there.
#[must_use]
pub fn unsupported() -> Fault {
    Fault::new(Kind::Unsupported, "the systemd cgroup driver is not supported yet")
        .hint("use the cgroupfs driver: leave out --systemd-cgroup, and give linux.cgroupsPath as a path")
}
