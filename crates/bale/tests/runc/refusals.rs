//! What runc refuses is refused, with the field's JSON path, and the host is as it was. With `RUNTIME=runc` the same
//! table shows that runc refuses it (those that it lets through are marked).

use std::os::unix::fs::symlink;

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::{Stage, add_mount, add_namespace};

type Change = fn(&mut Value);

const CONTRADICTIONS: &[(&str, Change)] = &[
    ("root.path", |c| c["root"]["path"] = json!("")),
    ("process.cwd", |c| c["process"]["cwd"] = json!("relative")),
    ("process.cwd", |c| c["process"]["cwd"] = json!("")),
    ("process.args", |c| c["process"]["args"] = json!([])),
    ("process.env[1]", |c| c["process"]["env"] = json!(["PATH=/bin", "MALFORMED"])),
    ("process.rlimits[0].type", |c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]);
    }),
    ("process.rlimits[1]", |c| {
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1});
        c["process"]["rlimits"] = json!([limit, limit]);
    }),
    ("process.scheduler.policy", |c| c["process"]["scheduler"] = json!({"policy": "SCHED_NONE"})),
    ("process.scheduler.nice", |c| c["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 20})),
    ("process.scheduler.priority", |c| {
        c["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "priority": 5});
    }),
    ("process.scheduler.runtime", |c| {
        c["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 5, "runtime": 7});
    }),
    ("process.scheduler.flags", |c| {
        c["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"]});
    }),
    ("process.ioPriority.class", |c| c["process"]["ioPriority"] = json!({"class": "X", "priority": 1})),
    ("process.ioPriority.priority", |c| {
        c["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
    }),
    ("hostname", |c| no_namespace(c, "uts")),
    ("domainname", |c| {
        c["hostname"] = json!("");
        c["domainname"] = json!("x");
        no_namespace(c, "uts");
    }),
    ("linux.maskedPaths", |c| {
        c["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        no_namespace(c, "mount");
    }),
    ("linux.namespaces[5]", |c| add_namespace(c, "uts")),
    ("linux.namespaces[3].path", |c| c["linux"]["namespaces"][3]["path"] = json!("/proc/self/ns/net")),
    ("linux.namespaces[3].path", |c| c["linux"]["namespaces"][3]["path"] = json!("/no/such")),
    ("linux.uidMappings", |c| add_namespace(c, "user")),
    ("linux.uidMappings", |c| {
        crate::namespaces::with_users(c);
        let namespaces = c["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.last_mut().expect("user")["path"] = json!("/proc/self/ns/user");
    }),
    ("linux.timeOffsets", |c| c["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1}})),
    ("linux.timeOffsets", |c| {
        add_namespace(c, "time");
        c["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    }),
    ("linux.sysctl", |c| c["linux"]["sysctl"] = json!({"vm.swappiness": "1"})),
    ("linux.sysctl", |c| c["linux"]["sysctl"] = json!({"kernel.hostname": "x"})),
    ("linux.sysctl", |c| c["linux"]["sysctl"] = json!({"user.max_user_namespaces": "1"})),
    ("linux.sysctl", |c| {
        c["linux"]["sysctl"] = json!({"kernel.msgmax": "1"});
        no_namespace(c, "ipc");
    }),
    ("linux.sysctl", |c| {
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        no_namespace(c, "network");
    }),
    ("linux.sysctl", |c| {
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        c["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/net");
    }),
    ("linux.rootfsPropagation", |c| c["linux"]["rootfsPropagation"] = json!("strange")),
    ("linux.personality.domain", |c| c["linux"]["personality"] = json!({"domain": "LINUX64"})),
    ("linux.seccomp.defaultAction", |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NONE"})),
    ("linux.seccomp", |c| {
        c["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONE"]});
    }),
    ("linux.seccomp", |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONE"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
    }),
    ("linux.seccomp.syscalls[0]", |c| {
        c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/x"});
    }),
    ("mounts[5]", |c| add_mount(c, "/mnt", "no-such-fs", "none", &[])),
    ("mounts[5].source", |c| add_mount(c, "/mnt", "bind", "/no/such/source", &["bind"])),
    ("mounts[5]", |c| add_mount(c, "/mnt", "tmpfs", "t", &["size=strange"])),
    ("mounts[5].options", |c| add_mount(c, "/mnt", "bind", "/etc", &["bind", "size=1m"])),
    ("mounts[5]", |c| add_mount(c, "/mnt", "tmpfs", "t", &["idmap"])),
    ("mounts[5]", |c| add_mount(c, "/mnt", "bind", "/etc", &["bind", "idmap"])),
    ("linux.devices[0].type", |c| {
        c["linux"]["devices"] = json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}]);
    }),
    ("linux.resources.cpu.cpus", |c| c["linux"]["resources"] = json!({"cpu": {"cpus": "9999"}})),
    ("hooks", |c| c["hooks"] = json!({"createContainer": [{"path": "/no/such/hook"}]})),
];

/// What runc lets through and the specification does not, or what it does not know yet.
const ONLY_BALE: &[(&str, Change)] = &[
    ("ociVersion", |c| c["ociVersion"] = json!("2.0.0")),
    ("linux.uidMappings", |c| {
        c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    }),
    ("process.oomScoreAdj", |c| c["process"]["oomScoreAdj"] = json!(1001)),
    ("process.rlimits[0]", |c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]);
    }),
    ("linux.personality.flags[0]", |c| {
        c["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["NO_SUCH_FLAG"]});
    }),
    ("linux.memoryPolicy.mode", |c| c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_NONE"})),
    ("linux.memoryPolicy.flags", |c| {
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]});
    }),
    ("linux.memoryPolicy.nodes", |c| c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND"})),
    ("linux.memoryPolicy.nodes", |c| {
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL", "nodes": "0"});
    }),
    ("linux.memoryPolicy.nodes", |c| {
        c["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1-99999999999"});
    }),
    ("mounts[5]", |c| add_mount(c, "/mnt", "bind", "/etc", &["bind", "copy-symlink", "src-nofollow"])),
    ("hooks.createRuntime[0].timeout", |c| {
        c["hooks"] = json!({"createRuntime": [{"path": "/bin/true", "timeout": 0}]});
    }),
];

/// Numbers and types that are none: the file, the line and the field.
const SHAPES: &[(&str, Change)] = &[
    ("process.user.uid", |c| c["process"]["user"]["uid"] = json!(4_294_967_296_u64)),
    ("process.user.uid", |c| c["process"]["user"]["uid"] = json!(-1)),
    ("process.user.gid", |c| c["process"]["user"]["gid"] = json!(1.5)),
    ("process.user.additionalGids[1]", |c| c["process"]["user"]["additionalGids"] = json!([1, "2"])),
    ("process.args[1]", |c| c["process"]["args"][1] = json!(7)),
    ("process.rlimits[0].hard", |c| {
        c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": -1}]);
    }),
    ("process.consoleSize", |c| c["process"]["consoleSize"] = json!({"height": -1, "width": 1})),
    ("linux.resources.memory.limit", |c| c["linux"]["resources"] = json!({"memory": {"limit": 1e30}})),
    ("linux.resources.cpu.shares", |c| c["linux"]["resources"] = json!({"cpu": {"shares": -1}})),
    ("linux.resources.blockIO.weight", |c| c["linux"]["resources"] = json!({"blockIO": {"weight": 70_000}})),
    ("linux.uidMappings[0].size", |c| {
        c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 4_294_967_296_u64}]);
    }),
    ("linux.timeOffsets", |c| c["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1e40}})),
    ("mounts", |c| c["mounts"] = json!({"destination": "/x"})),
    ("root", |c| c["root"] = json!("rootfs")),
    ("linux.sysctl", |c| c["linux"]["sysctl"] = json!({"kernel.msgmax": 5})),
    ("linux.namespaces[4].type", |c| c["linux"]["namespaces"][4]["type"] = json!("nothing")),
];

fn no_namespace(c: &mut Value, kind: &str) {
    c["linux"]["namespaces"].as_array_mut().expect("namespaces").retain(|n| n["type"] != kind);
}

#[test]
fn contradictions_are_refused_with_their_place() {
    require_root!();
    let stage = Stage::new();
    for (index, (place, change)) in CONTRADICTIONS.iter().enumerate() {
        let ran = stage.run("true", change);
        assert_ne!(ran.code, 0, "case {index} {place}: {ran:#?}");
        if stage.is_bale() {
            assert_eq!(ran.code, 1, "case {index} {place}: {ran:#?}");
            assert!(ran.err.contains(&format!("config.json: {place}")), "case {index} {place}: {ran:#?}");
        }
    }
    stage.assert_clean();
}

#[test]
fn what_the_specification_forbids_is_refused_with_its_place() {
    require_root!();
    let stage = Stage::new();
    if stage.is_bale() {
        for (index, (place, change)) in ONLY_BALE.iter().enumerate() {
            let ran = stage.run("true", change);
            assert_eq!(ran.code, 1, "case {index} {place}: {ran:#?}");
            assert!(ran.err.contains(&format!("config.json: {place}")), "case {index} {place}: {ran:#?}");
        }
    }
    stage.assert_clean();
}

#[test]
fn numbers_out_of_range_are_refused_with_their_place() {
    require_root!();
    let stage = Stage::new();
    for (index, (place, change)) in SHAPES.iter().enumerate() {
        let ran = stage.run("true", change);
        assert_ne!(ran.code, 0, "case {index} {place}: {ran:#?}");
        if stage.is_bale() {
            assert!(
                ran.err.contains("config.json\":1: ") && ran.err.contains(place),
                "{index} {place}: {ran:#?}"
            );
        }
    }
    stage.assert_clean();
}

/// A root that is a link could be exchanged for another between two looks at it.
#[test]
fn a_root_that_is_a_link_is_refused() {
    require_root!();
    let stage = Stage::new();
    let rootfs = stage.scratch.join("rootfs");
    let link = stage.scratch.join("link");
    symlink(&rootfs, &link).unwrap();
    let ran = stage.run("true", |c| c["root"]["path"] = json!(link));
    assert_ne!(ran.code, 0, "{ran:#?}");
    for (name, target) in [("loop", "loop"), ("dangling", "/no/such")] {
        symlink(target, stage.scratch.join(name)).unwrap();
        let ran = stage.run("true", |c| c["root"]["path"] = json!(stage.scratch.join(name)));
        assert_ne!(ran.code, 0, "{ran:#?}");
    }
    let ran = stage.run("true", |c| c["root"]["path"] = json!(stage.scratch.join("rootfs/bin/sh")));
    assert_ne!(ran.code, 0, "{ran:#?}");
    stage.assert_clean();
}

/// Whatever a destination is, it is in the root: nothing is made or mounted beside it.
#[test]
fn a_target_outside_of_the_root_changes_nothing_there() {
    require_root!();
    let stage = Stage::new();
    let (rootfs, outside) = (stage.scratch.join("rootfs"), stage.scratch.join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "as it was").unwrap();
    symlink(&outside, rootfs.join("absolute")).unwrap();
    symlink("../outside", rootfs.join("relative")).unwrap();
    symlink("../outside/file", rootfs.join("file")).unwrap();
    symlink("/proc/1/root", rootfs.join("magic")).unwrap();
    let source = stage.scratch.join("source");
    std::fs::write(&source, "other").unwrap();
    for destination in
        ["/absolute/new", "/relative/new", "/../../../outside/new", "/magic/tmp/bale-escaped", "/file"]
    {
        // What is inside the root under such a name may be made; that is the container's own.
        stage.run("true", |c| add_mount(c, destination, "tmpfs", "t", &[]));
        stage.run("true", |c| add_mount(c, destination, "bind", source.to_str().unwrap(), &["bind"]));
    }
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["file"], "something was made outside");
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "as it was");
    assert!(!std::path::Path::new("/tmp/bale-escaped").exists());
    if stage.is_bale() {
        let ran = stage.run("true", |c| add_mount(c, "", "tmpfs", "t", &[]));
        ran.fails_with("mounts[5].destination");
    }
    stage.assert_clean();
}
