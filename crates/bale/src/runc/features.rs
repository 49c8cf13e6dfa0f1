//! `features`: what containerd, CRI-O and Docker ask before they use something (runtime-spec features.md).

use bale_runtime::seccomp::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS};
use serde_json::json;
const POLICIES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// Returns the document.
pub fn text() -> String {
    let mut capabilities = bale_sys::identity::CAPABILITIES.to_vec();
    capabilities.sort_unstable();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": bale_spec::runtime::SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": bale_runtime::plan::options::known(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {
                "modes": POLICIES,
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
            "org.opencontainers.runc.commit": concat!("bale-", env!("CARGO_PKG_VERSION")),
            "org.opencontainers.runc.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": [bale_runtime::cgroup::systemd::ANNOTATIONS],
    });
    // Plain data: it cannot fail.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}
