use super::*;

/// A small config without findings; `edit` is applied to it as JSON pointer and value.
fn findings(edits: &[(&str, Value)]) -> Vec<Finding> {
    let mut value: Value = serde_json::from_str(GOOD).unwrap();
    for (pointer, new) in edits {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match value.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
            Value::Object(map) => {
                map.insert(key.to_owned(), new.clone());
            }
            Value::Array(list) if key == "-" => list.push(new.clone()),
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = new.clone(),
            other => panic!("{other}"),
        }
    }
    let text = serde_json::to_string_pretty(&value).unwrap();
    validate(text.as_bytes()).findings.located(&text)
}

const GOOD: &str = r#"{"ociVersion":"1.3.0","process":{"terminal":false,"user":{"uid":0,"gid":0},"args":["/bin/true"],
  "env":["PATH=/bin"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},
  "rlimits":[{"type":"RLIMIT_NOFILE","hard":2048,"soft":2048}]},
  "root":{"path":"rootfs"},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc"},
  {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
  {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","gid=5"]},
  {"destination":"/b","type":"bind","source":"/tmp","options":["rbind","rro","rprivate"]}],
  "hooks":{"poststop":[{"path":"/bin/true"}]},"annotations":{"a.b":"c"},
  "linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":1048576},"unified":{"memory.high":"1"}},
  "namespaces":[{"type":"pid"},{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"network"}],
  "sysctl":{"net.ipv4.ip_forward":"1"},"maskedPaths":["/proc/kcore"]}}"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn good_configs_have_no_findings() {
    assert_eq!(findings(&[]), []);
    for config in [crate::generate::spec(true), crate::generate::rootless_spec(1000, 1000, false)] {
        let text = config.to_canonical();
        assert_eq!(validate(text.as_bytes()).findings.located(&text), []);
    }
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/generate");
    for entry in std::fs::read_dir(golden).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert_eq!(validate(text.as_bytes()).findings.located(&text), []);
    }
}

/// Each edit makes exactly one finding.
#[test]
fn each_mistake_is_found_alone() {
    use Severity::{Error, Note, Warning};
    let cases = [
        ("/ociVersion", r#""2.0.0""#, Error, "ociVersion", "\"2.0.0\" is not a version 1.x.y"),
        ("/ociVersion", r#""0.6.0""#, Error, "ociVersion", "\"0.6.0\" is a format from before 1.0"),
        (
            "/ociVersion",
            r#""1.9.0-rc1""#,
            Warning,
            "ociVersion",
            "\"1.9.0-rc1\" is newer than what bale knows, 1.3.0",
        ),
        ("/ociVersion", "1", Error, "ociVersion", "is a number, not a string"),
        (
            "/procces",
            "{}",
            Error,
            "procces",
            "unknown key: every runtime ignores it; did you mean \"process\"?",
        ),
        ("/com.example", "{}", Warning, "[\"com.example\"]", "unknown key: every runtime ignores it"),
        (
            "/process/nonewPrivileges",
            "true",
            Error,
            "process.nonewPrivileges",
            "unknown key: every runtime ignores it; did you mean \"noNewPrivileges\"?",
        ),
        ("/windows", "{}", Note, "windows", "belongs to another platform and is ignored here"),
        (
            "/process/user/uid",
            "-1",
            Error,
            "process.user.uid",
            "-1 is not a whole number from 0 to 4294967295",
        ),
        (
            "/process/user/uid",
            "4294967296",
            Error,
            "process.user.uid",
            "4294967296 is not a whole number from 0 to 4294967295",
        ),
        (
            "/process/user/uid",
            "1.5",
            Error,
            "process.user.uid",
            "1.5 is not a whole number from 0 to 4294967295",
        ),
        (
            "/process/user/uid",
            r#""0""#,
            Error,
            "process.user.uid",
            "is a string, not a whole number from 0 to 4294967295",
        ),
        ("/process/user/umask", "1024", Error, "process.user.umask", "is larger than 0777 (511)"),
        ("/process/args", "[]", Error, "process.args", "names no program to run"),
        ("/process/env", "null", Warning, "process.env", "is null where a list of \"KEY=value\" belongs"),
        ("/process/args", r#""sh""#, Error, "process.args", "is a string, not a list"),
        ("/process/cwd", r#""""#, Error, "process.cwd", "\"\" is not an absolute path"),
        ("/process/cwd", r#""data""#, Error, "process.cwd", "\"data\" is not an absolute path"),
        ("/process/env/-", r#""X""#, Error, "process.env[1]", "\"X\" is not KEY=value"),
        (
            "/process/env/-",
            r#""PATH=/x""#,
            Warning,
            "process.env[1]",
            "PATH is set a second time: the last one counts",
        ),
        (
            "/process/oomScoreAdj",
            "1001",
            Error,
            "process.oomScoreAdj",
            "1001 is not a whole number from -1000 to 1000",
        ),
        (
            "/process/capabilities/bounding/-",
            r#""CAP_NET_ADMN""#,
            Error,
            "process.capabilities.bounding[1]",
            "\"CAP_NET_ADMN\" is no capability; did you mean \"CAP_NET_ADMIN\"?",
        ),
        (
            "/process/capabilities/effective/-",
            r#""CAP_CHOWN""#,
            Error,
            "process.capabilities.effective",
            "CAP_CHOWN is not in the permitted set: the kernel refuses that",
        ),
        (
            "/process/rlimits/0/soft",
            "4096",
            Error,
            "process.rlimits[0].soft",
            "4096 is above the hard limit 2048",
        ),
        (
            "/process/rlimits/0/type",
            r#""RLIMIT_NOFIL""#,
            Error,
            "process.rlimits[0].type",
            "\"RLIMIT_NOFIL\" is no limit; did you mean \"RLIMIT_NOFILE\"?",
        ),
        (
            "/process/scheduler",
            r#"{"policy":"SCHED_FIFI"}"#,
            Error,
            "process.scheduler.policy",
            "\"SCHED_FIFI\" is unknown here; did you mean \"SCHED_FIFO\"?",
        ),
        (
            "/process/consoleSize",
            r#"{"height":1}"#,
            Error,
            "process.consoleSize.width",
            "is missing: it must be a whole number from 0 to 65535",
        ),
        ("/root/path", r#""""#, Error, "root.path", "is empty"),
        (
            "/hostname",
            r#""0123456789012345678901234567890123456789012345678901234567890123456789""#,
            Error,
            "hostname",
            "is longer than the 64 bytes that the kernel keeps",
        ),
        (
            "/mounts/0/destination",
            r#""proc""#,
            Warning,
            "mounts[0].destination",
            "\"proc\" is relative: older runtimes refuse it",
        ),
        ("/mounts/0/destination", r#""//.""#, Error, "mounts[0].destination", "cannot be the root itself"),
        (
            "/mounts/0/destination",
            r#""/dev/x""#,
            Warning,
            "mounts[0].destination",
            "comes before its parent \"/dev\", which then hides it",
        ),
        (
            "/mounts/0/destination",
            r#""/b""#,
            Warning,
            "mounts[0].destination",
            "\"/b\" is mounted on again later, which hides this one",
        ),
        (
            "/mounts/0/type",
            r#""prco""#,
            Warning,
            "mounts[0].type",
            "\"prco\" is not a usual file system; did you mean \"proc\"?",
        ),
        (
            "/mounts/1/options/0",
            r#""nosiud""#,
            Error,
            "mounts[1].options[0]",
            "\"nosiud\" is no mount option; did you mean \"nosuid\"?",
        ),
        (
            "/mounts/1/options/0",
            r#""nosuid,noexec""#,
            Error,
            "mounts[1].options[0]",
            "\"nosuid,noexec\" is several options in one string",
        ),
        ("/mounts/1/options", r#""nosuid""#, Error, "mounts[1].options", "is a string, not a list"),
        (
            "/mounts/3/options/0",
            r#""ro""#,
            Error,
            "mounts[3].options",
            "a bind mount needs the option bind or rbind",
        ),
        ("/mounts/3/options/1", r#""x=y""#, Error, "mounts[3].options[1]", "\"x=y\" is no mount option"),
        (
            "/mounts/3/source",
            r#""""#,
            Error,
            "mounts[3].source",
            "is missing: a bind mount shows a file or directory of the host",
        ),
        (
            "/hooks/poststop/0/path",
            r#""true""#,
            Error,
            "hooks.poststop[0].path",
            "\"true\" is not an absolute path",
        ),
        (
            "/hooks/poststop/0/timeout",
            "0",
            Error,
            "hooks.poststop[0].timeout",
            "0 is not a whole number from 1 to 2147483647",
        ),
        ("/annotations/x", "1", Error, "annotations.x", "is a number, not a string"),
        (
            "/linux/namespaces/0/type",
            r#""pdi""#,
            Error,
            "linux.namespaces[0].type",
            "\"pdi\" is unknown here; did you mean \"pid\"?",
        ),
        (
            "/linux/namespaces/-",
            r#"{"type":"pid"}"#,
            Error,
            "linux.namespaces[5].type",
            "this kind of namespace stands here a second time",
        ),
        (
            "/linux/namespaces/0/path",
            r#""proc/1""#,
            Error,
            "linux.namespaces[0].path",
            "is not an absolute path",
        ),
        (
            "/linux/namespaces/1/type",
            r#""cgroup""#,
            Error,
            "linux.namespaces",
            "has no mount namespace: the container's mounts would be the host's",
        ),
        (
            "/linux/namespaces/2/type",
            r#""cgroup""#,
            Error,
            "hostname",
            "is set, but the container shares the host's names",
        ),
        (
            "/linux/namespaces/4/type",
            r#""cgroup""#,
            Error,
            "linux.sysctl[\"net.ipv4.ip_forward\"]",
            "needs a network namespace: it would change the host",
        ),
        (
            "/linux/namespaces/-",
            r#"{"type":"user"}"#,
            Error,
            "linux.namespaces",
            "a new user namespace needs uidMappings and gidMappings",
        ),
        (
            "/linux/uidMappings",
            r#"[{"containerID":0,"hostID":0,"size":1}]"#,
            Error,
            "linux.uidMappings",
            "ids are mapped, but there is no user namespace",
        ),
        (
            "/linux/sysctl/vm.swappiness",
            r#""1""#,
            Error,
            "linux.sysctl[\"vm.swappiness\"]",
            "belongs to no namespace: it would change the host",
        ),
        (
            "/linux/timeOffsets",
            r#"{"boottime":{"secs":1}}"#,
            Error,
            "linux.timeOffsets.boottime",
            "needs a time namespace",
        ),
        (
            "/linux/maskedPaths/0",
            r#""proc/kcore""#,
            Error,
            "linux.maskedPaths[0]",
            "\"proc/kcore\" is not an absolute path",
        ),
        (
            "/linux/devices",
            r#"[{"path":"/dev/x","type":"x"}]"#,
            Error,
            "linux.devices[0].type",
            "\"x\" is unknown here; did you mean \"c\"?",
        ),
        (
            "/linux/devices",
            r#"[{"path":"/dev/x","type":"c","major":-1}]"#,
            Error,
            "linux.devices[0]",
            "a device node needs major and minor numbers that are not negative",
        ),
        (
            "/linux/resources/devices/0/access",
            r#""rwx""#,
            Error,
            "linux.resources.devices[0].access",
            "\"rwx\" is not some of r, w and m",
        ),
        (
            "/linux/resources/memory/limit",
            r#""64m""#,
            Error,
            "linux.resources.memory.limit",
            "is a string, not a number of bytes",
        ),
        (
            "/linux/resources/memory/swap",
            "1024",
            Error,
            "linux.resources.memory.swap",
            "is below the memory limit: it counts memory and swap together",
        ),
        (
            "/linux/resources/cpu",
            r#"{"cpus":"0-"}"#,
            Error,
            "linux.resources.cpu.cpus",
            "is not a list such as 0-3,7",
        ),
        (
            "/linux/resources/cpu",
            r#"{"period":10}"#,
            Error,
            "linux.resources.cpu.period",
            "is not 1000 to 1000000 microseconds",
        ),
        (
            "/linux/resources/unified/..~1x",
            r#""1""#,
            Error,
            "linux.resources.unified[\"../x\"]",
            "is not the name of a file in a cgroup",
        ),
        (
            "/linux/seccomp",
            r#"{"defaultAction":"SCMP_ACT_ERRNOO"}"#,
            Error,
            "linux.seccomp.defaultAction",
            "\"SCMP_ACT_ERRNOO\" is unknown here; did you mean \"SCMP_ACT_ERRNO\"?",
        ),
        (
            "/linux/seccomp",
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}"#,
            Error,
            "linux.seccomp.syscalls[0].names",
            "names no system call",
        ),
        (
            "/linux/rootfsPropagation",
            r#""rsalve""#,
            Error,
            "linux.rootfsPropagation",
            "\"rsalve\" is unknown here; did you mean \"rslave\"?",
        ),
        (
            "/linux/netDevices",
            r#"{"eth0":{"nmae":"x"}}"#,
            Error,
            "linux.netDevices.eth0.nmae",
            "unknown key: every runtime ignores it; did you mean \"name\"?",
        ),
    ];
    let mut wrong = Vec::new();
    for (pointer, value, severity, path, words) in cases {
        // JSON pointer escapes are only used where a key has a slash.
        let found = if pointer.contains('~') {
            findings_of_unified(value)
        } else {
            findings(&[(pointer, json(value))])
        };
        let found: Vec<_> = found.iter().map(|f| (f.severity, f.path.as_str(), f.words.as_str())).collect();
        if found != [(severity, path, words)] {
            wrong.push(format!("{pointer} = {value}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn findings_of_unified(value: &str) -> Vec<Finding> {
    findings(&[("/linux/resources/unified", json(&format!("{{\"../x\":{value}}}")))])
}

#[test]
fn mappings_may_not_overlap() {
    let with = |list: &str| {
        let user = json(r#"{"type":"user"}"#);
        let one = json(r#"[{"containerID":0,"hostID":0,"size":1}]"#);
        let edits =
            [("/linux/namespaces/-", user), ("/linux/gidMappings", one), ("/linux/uidMappings", json(list))];
        findings(&edits).into_iter().map(|f| f.words).collect::<Vec<_>>()
    };
    assert!(
        with(r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65535}]"#)
            .is_empty()
    );
    assert_eq!(
        with(r#"[{"containerID":0,"hostID":0,"size":2},{"containerID":1,"hostID":9,"size":1}]"#),
        ["overlaps with an earlier range"]
    );
    assert_eq!(
        with(r#"[{"containerID":0,"hostID":0,"size":0}]"#),
        ["is 0: the kernel refuses an empty range"]
    );
    assert_eq!(
        with(r#"[{"containerID":0,"hostID":4294967295,"size":2}]"#),
        ["reaches beyond the largest id"]
    );
}

#[test]
fn lines_syntax_and_doubles() {
    let of = |text: &str| validate(text.as_bytes()).findings.located(text);
    let syntax = of("{\n  \"ociVersion\": \"1.0.0\",\n}");
    assert_eq!(
        (syntax[0].line, syntax[0].column, syntax[0].words.as_str()),
        (Some(3), Some(1), "trailing comma")
    );
    let typo = of(
        "{\n  \"ociVersion\": \"1.0.0\",\n  \"process\": {\n    \"cwd\": 7,\n    \"args\": [\"a\"]}, \"root\": {\"path\":\"r\"}\n}",
    );
    assert_eq!((typo[0].line, typo[0].column, typo[0].path.as_str()), (Some(4), Some(5), "process.cwd"));
    let double = of("{\"ociVersion\": \"1.0.0\", \"root\": {\"path\":\"r\"},\n\"root\": {\"path\":\"q\"}}");
    assert!(double.iter().any(|f| f.code == "double-key" && f.line == Some(2)), "{double:?}");
    let missing =
        of("{\n\"ociVersion\": \"1.0.0\",\n\"root\":{\"path\":\"r\"},\n\"process\":{\"args\":[\"a\"]}}");
    assert_eq!((missing[0].path.as_str(), missing[0].line), ("process.cwd", Some(4)));
    let deep = format!("{{\"ociVersion\":{}{}}}", "[".repeat(200), "]".repeat(200));
    assert_eq!(of(&deep)[0].code, "syntax");
    assert_eq!(of("")[0].words, "EOF while parsing a value");
    let many = format!("{{\"ociVersion\":\"1.0.0\",\"mounts\":[{}1]}}", "1,".repeat(5000));
    assert!(of(&many).len() <= 200);
}

#[test]
fn the_seeds_traps_are_lints() {
    let mut config = crate::generate::spec(false);
    let linux = config.linux.as_mut().unwrap();
    linux.masked_paths.clear();
    linux.readonly_paths.clear();
    linux.namespaces.retain(|n| n.kind != crate::runtime::NamespaceKind::Network);
    linux.resources.as_mut().unwrap().pids = Some(crate::runtime::Pids { limit: Some(0) });
    let process = config.process.as_mut().unwrap();
    process.no_new_privileges = false;
    process.user.uid = 1000;
    process.capabilities.as_mut().unwrap().inheritable = vec!["CAP_KILL".to_owned()];
    config.domainname = Some("d".to_owned());
    let mut findings = Findings::default();
    lints(&mut findings, &config);
    let codes: Vec<_> = findings.without_places().iter().map(|f| f.code).collect();
    let wanted = [
        "newer-than-version",
        "pids-limit-zero",
        "few-files",
        "no-masked-paths",
        "no-seccomp",
        "host-network",
        "inheritable",
        "new-privileges",
    ];
    assert_eq!(codes, wanted);
}

/// A config of 16 MiB that was made to be slow is answered soon: pairs are not compared, findings not piled up.
#[test]
fn hostile_sizes_cost_little() {
    let with = |section: &str| format!("{{\"ociVersion\":\"1.0.0\",\"root\":{{\"path\":\"r\"}},{section}}}");
    let mount = "{\"destination\":\"/a\",\"type\":\"x\"},".repeat(60_000);
    let mapping = "{\"containerID\":0,\"hostID\":0,\"size\":1},".repeat(40_000);
    let capability = "\"CAP_X\",".repeat(200_000);
    let keys: String = (0..60_000).map(|n| format!("\"proces{n}\":0,")).collect();
    let texts = [
        with(&format!("\"mounts\":[{}]", mount.trim_end_matches(','))),
        with(&format!("\"linux\":{{\"uidMappings\":[{}]}}", mapping.trim_end_matches(','))),
        with(&format!(
            "\"process\":{{\"cwd\":\"/\",\"capabilities\":{{\"bounding\":[{}]}}}}",
            capability.trim_end_matches(',')
        )),
        with(keys.trim_end_matches(',')),
    ];
    for text in texts {
        let found = validate(text.as_bytes()).findings.located(&text);
        assert!(!found.is_empty() && found.len() <= 300);
    }
}
