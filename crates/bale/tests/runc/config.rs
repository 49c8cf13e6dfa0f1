//! What a config says about the process, as the process sees it.

use bale_testkit::require_root;
use serde_json::{Value, json};

use crate::stage::Stage;

/// A config, a script in the container, and what it prints.
type Case = (&'static str, fn(&mut Value), &'static str, &'static str);

const CASES: &[Case] = &[
    ("host name", |c| c["hostname"] = json!("web"), "hostname", "web"),
    (
        "domain name",
        |c| c["domainname"] = json!("example.org"),
        "cat /proc/sys/kernel/domainname",
        "example.org",
    ),
    (
        "ids and groups",
        |c| c["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}),
        "id -u; id -g; id -G",
        "1000\n1001\n1001 5 6",
    ),
    ("umask", |c| c["process"]["user"]["umask"] = json!(0o27), "umask", "0027"),
    ("umask as others have it", |_| {}, "umask", "0022"),
    (
        "the last of a name holds",
        |c| c["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2"]),
        "echo $A; env | grep -c '^A='",
        "2\n1",
    ),
    ("home is looked up", |c| c["process"]["user"]["uid"] = json!(0), "echo $HOME", "/root"),
    ("home that nobody has", |c| c["process"]["user"]["uid"] = json!(4321), "echo $HOME", "/"),
    ("a home that is given", |c| c["process"]["env"] = json!(["PATH=/bin", "HOME=/x"]), "echo $HOME", "/x"),
    ("a working directory is made", |c| c["process"]["cwd"] = json!("/made/here"), "pwd", "/made/here"),
    (
        "limits",
        |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]),
        "ulimit -Sn; ulimit -Hn",
        "100\n200",
    ),
    (
        "capabilities",
        |_| {},
        "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2",
        "0000000000000000\n0000000020000420\n0000000020000420\n0000000020000420\n0000000000000000",
    ),
    (
        "ambient capabilities reach a user without them",
        |c| {
            let set = json!(["CAP_NET_BIND_SERVICE"]);
            c["process"]["user"]["uid"] = json!(1000);
            c["process"]["capabilities"] = json!({
                "bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set,
            });
        },
        "grep -E 'Cap(Eff|Amb)' /proc/self/status | cut -f2",
        "0000000000000400\n0000000000000400",
    ),
    ("no new privileges", |_| {}, "grep NoNewPrivs /proc/self/status | cut -f2", "1"),
    (
        "new privileges",
        |c| c["process"]["noNewPrivileges"] = json!(false),
        "grep NoNewPrivs /proc/self/status | cut -f2",
        "0",
    ),
    (
        "score of the OOM killer",
        |c| c["process"]["oomScoreAdj"] = json!(700),
        "cat /proc/self/oom_score_adj",
        "700",
    ),
    (
        "kernel parameters",
        |c| c["linux"]["sysctl"] = json!({"kernel.msgmax": "12345", "net.ipv4.ip_forward": "1"}),
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward",
        "12345\n1",
    ),
    (
        "a domain of execution",
        |c| c["linux"]["personality"] = json!({"domain": "LINUX32"}),
        "uname -m",
        "i686",
    ),
    (
        "a scheduler",
        |c| c["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5}),
        "cut -d' ' -f19,41 /proc/self/stat",
        "5 3",
    ),
    (
        "a read-only root",
        |c| c["root"]["readonly"] = json!(true),
        "touch /x 2>/dev/null || echo refused",
        "refused",
    ),
    (
        "masked paths",
        |c| {
            c["linux"]["maskedPaths"] =
                json!(["/proc/timer_list", "/proc/acpi", "/sys/firmware", "/no/such"]);
        },
        "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; touch /sys/firmware/x 2>/dev/null || echo refused; \
         (echo x > /proc/timer_list) 2>/dev/null && echo swallowed",
        "0\n0\nrefused\nswallowed",
    ),
    (
        "read-only paths",
        |c| c["linux"]["readonlyPaths"] = json!(["/proc/sys", "/etc", "/no/such"]),
        "touch /etc/x 2>/dev/null || echo refused",
        "refused",
    ),
    (
        "default devices and links",
        |_| {},
        "for d in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done",
        "/dev/null 666 1:3\n/dev/zero 666 1:5\n/dev/full 666 1:7\n/dev/random 666 1:8\n/dev/urandom 666 1:9\n\
         /dev/tty 666 5:0\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx",
    ),
    (
        "devices of the config",
        |c| {
            c["linux"]["devices"] = json!([
                {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8},
                {"path": "/dev/deep/pipe", "type": "p", "fileMode": 0o640},
            ]);
        },
        "stat -c '%F %a %u %g' /dev/mine /dev/deep/pipe",
        "character special file 600 7 8\nfifo 640 0 0",
    ),
    (
        "a filter",
        |c| {
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
            });
        },
        "mkdir /tmp/x 2>&1 | grep -o 'not implemented'; grep Seccomp: /proc/self/status | cut -f2",
        "not implemented\n2",
    ),
    (
        "a filter without no_new_privs",
        |c| {
            c["process"]["noNewPrivileges"] = json!(false);
            c["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
            });
        },
        "mkdir /tmp/x 2>&1 | grep -o 'not permitted'",
        "not permitted",
    ),
    ("lo is up", |_| {}, "ip addr show lo | grep -o 'inet [0-9./]*'", "inet 127.0.0.1/8"),
    ("process 1 in a session of its own", |_| {}, "cut -d' ' -f1,5,6 /proc/1/stat", "1 1 1"),
    (
        "no signal is ignored or blocked",
        |c| c["process"]["args"] = json!(["/bin/grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]),
        "",
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000",
    ),
    ("no descriptor of the runtime", |_| {}, "ls /proc/self/fd | wc -l", "4"),
];

#[test]
fn the_process_is_as_the_config_says() {
    require_root!();
    let stage = Stage::new();
    for (name, change, script, expected) in CASES {
        if !stage.is_bale() && name.starts_with("no signal") {
            // runc leaves what its caller ignores.
            continue;
        }
        let ran = stage.run(script, change);
        assert_eq!((ran.code, ran.out.trim()), (0, *expected), "{name}: {ran:#?}");
    }
    stage.assert_clean();
}

/// A config that is refused, and words that name the field.
type Refusal = (fn(&mut Value), &'static str);

const REFUSED: &[Refusal] = &[
    (|c| c["process"]["cwd"] = json!("relative"), "cwd"),
    (|c| c["process"]["args"] = json!([]), "args"),
    (|c| c["process"]["user"]["uid"] = json!(4_294_967_296_u64), "4294967296"),
    (|c| c["process"]["user"]["uid"] = json!(-1), "-1"),
    (|c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]), "RLIMIT_NONE"),
    (|c| c["linux"]["sysctl"] = json!({"vm.swappiness": "1"}), "vm.swappiness"),
    (
        |c| c["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1", "kernel.core_pattern": "x"}),
        "core_pattern",
    ),
    (|c| c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "mount"}]), "namespace"),
    (
        |c| {
            c["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "uts", "path": "/proc/self/ns/net"}]);
        },
        "ns/net",
    ),
    (|c| c["linux"]["namespaces"] = json!([{"type": "nothing"}]), "nothing"),
    (|c| c["root"]["path"] = json!("no-such-rootfs"), "no such file or directory"),
    (|c| c["process"]["args"] = json!(["no-such-program"]), "executable file not found in $PATH"),
    (|c| c["process"]["args"] = json!(["/no/such/program"]), "no such file or directory"),
    (|c| c["process"]["args"] = json!(["/etc/passwd"]), "permission denied"),
    (|c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NONE"}), "SCMP_ACT_NONE"),
    (|c| crate::stage::add_mount(c, "/mnt", "no-such-fs", "none", &[]), "no such device"),
    (|c| crate::stage::add_mount(c, "/mnt", "bind", "/no/such/source", &["bind"]), "no such file"),
    (|c| crate::stage::add_mount(c, "/mnt", "tmpfs", "t", &["size=strange"]), "size"),
];

#[test]
fn what_is_wrong_is_refused_by_name_and_leaves_nothing() {
    require_root!();
    let stage = Stage::new();
    for (index, (change, words)) in REFUSED.iter().enumerate() {
        // A peer refuses most of it, in other words.
        if stage.is_bale() {
            let ran = stage.run("true", change);
            assert_eq!(ran.code, 1, "case {index}: {ran:#?}");
            ran.fails_with(words);
        }
    }
    stage.assert_clean();
}

#[test]
fn hostile_documents_are_refused() {
    require_root!();
    let stage = Stage::new();
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let long = format!("{{\"ociVersion\":\"1.0.0\",\"x\":\"{}\"}}", "y".repeat(17 << 20));
    for text in [deep.as_str(), long.as_str(), "", "{", "null", "[]", "{\"ociVersion\":\"2.0.0\"}"] {
        let id = Stage::id();
        let bundle = stage.bundle(&id, "true", |_| {});
        std::fs::write(bundle.join("config.json"), text).unwrap();
        let ran = stage.runtime(["run".as_ref(), "-b".as_ref(), bundle.as_os_str(), id.as_ref()]);
        assert_eq!(ran.code, 1, "{text:.40}: {ran:#?}");
    }
    stage.assert_clean();
}

#[test]
fn too_little_memory_is_said() {
    require_root!();
    let stage = Stage::new();
    if !stage.is_bale() {
        return;
    }
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        bale_testkit::note_skip("needs the memory controller on cgroup v1");
        return;
    }
    let floor = bale_runtime::cgroup::MEMORY_FLOOR_BYTES;
    let ran = stage.run("exec true", |c| c["linux"]["resources"] = json!({"memory": {"limit": 4096}}));
    assert_eq!(ran.code, 1, "{ran:#?}");
    // The kernel may refuse the limit while the container's first process is at work already.
    let killed = ran.err.contains("before its program ran") && ran.err.contains("the limit is 4096 bytes");
    assert!(killed || ran.err.contains("unable to set memory limit (current usage: "), "{ran:#?}");
    assert!(ran.err.contains(&floor.to_string()), "{ran:#?}");
    // A limit below what is in use already.
    let id = stage.create("read -r line", |_| {});
    let ran = stage.runtime(["update", "--memory", "4096", &id]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    for part in ["linux.resources.memory.limit", "current usage: ", "smallest limit that works now is "] {
        assert!(ran.err.contains(part), "{part:?} is not in {ran:#?}");
    }
    stage.ok(["delete", "--force", &id]);
    stage.assert_clean();
}

#[test]
fn a_container_with_little_memory_runs() {
    require_root!();
    let stage = Stage::new();
    if !stage.is_bale() {
        // runc needs 3 MiB.
        return;
    }
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        bale_testkit::note_skip("needs the memory controller on cgroup v1");
        return;
    }
    for _ in 0..20 {
        let ran = stage.run("exec true", |c| {
            c["process"]["args"] = json!(["/bin/true"]);
            c["linux"]["resources"] = json!({"memory": {"limit": bale_runtime::cgroup::MEMORY_FLOOR_BYTES}});
        });
        assert_eq!(ran.code, 0, "{ran:#?}");
    }
    stage.assert_clean();
}

/// This machine's processor has none; what is done with it is shown by unit tests on a plain directory.
#[test]
fn intel_rdt_without_the_hardware_is_refused() {
    require_root!();
    let stage = Stage::new();
    if std::path::Path::new("/sys/fs/resctrl/info").exists() {
        bale_testkit::note_skip("needs a host without resctrl");
        return;
    }
    let ran = stage.run("true", |c| c["linux"]["intelRdt"] = json!({"l3CacheSchema": "L3:0=f"}));
    ran.fails_with("intelRdt");
    let id = stage.create("true", |_| {});
    for flag in ["--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=20"] {
        assert_ne!(stage.runtime(["update", flag, &id]).code, 0, "{flag}");
    }
    stage.ok(["delete", "-f", &id]);
    stage.assert_clean();
}

#[test]
fn a_filter_that_knows_no_new_calls_does_not_stop_the_program() {
    require_root!();
    let stage = Stage::new();
    // Without no_new_privs the filter is loaded first, and what init still does runs under it.
    let ran = stage.run("echo started", |c| {
        c["process"]["noNewPrivileges"] = json!(false);
        c["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["faccessat2", "close_range"], "action": "SCMP_ACT_ERRNO"}],
        });
    });
    ran.prints("started");
    stage.assert_clean();
}
