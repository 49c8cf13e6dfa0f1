//! What goes wrong for a user: the exit code, one chain of causes with the place, the next step, nothing half-made left,
//! and nothing that was there harmed.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bale_testkit::command::{Outcome, finish};
use bale_testkit::image::Layout;
use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::registry::{Guard, Registry, Trick};
use bale_testkit::{Bale, output_of, require_root};
use serde_json::{Value, json};

const NO_NETWORK: &str =
    "bale: the container has no network but loopback; for the host's network, give --net host\n";

/// A machine on which something works already: an image, a bundle `./good`, and a container `alive` that runs.
struct Field {
    bale: Bale,
    scope: Scope,
    machine: Snapshot,
    files: BTreeSet<PathBuf>,
}

impl Field {
    fn new() -> Self {
        let bale = bale_testkit::bale!();
        bale.load_busybox();
        bale.ok(["bundle", "-q", "busybox", "./good"]);
        bale.ok(["run", "-d", "--net", "none", "--name", "alive", "busybox", "sleep", "1000"]);
        let scope = Scope::below(bale.dir()).cgroups_of("bale");
        let (machine, files) = (settled(&scope), names(&bale.root()));
        Self { bale, scope, machine, files }
    }

    /// Makes a bundle `./NAME` with the busybox root file system beside a config that `change` has changed.
    fn bundle(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let (good, dir) = (self.bale.dir().join("good"), self.bale.dir().join(name));
        fs::create_dir(&dir).expect("a directory");
        output_of(Command::new("cp").arg("-a").arg(good.join("rootfs")).arg(&dir)).expect("cp");
        let text = fs::read(good.join("config.json")).expect("config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        change(&mut config);
        fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config).expect("JSON")).expect("write");
        dir
    }

    /// Wants a command to fail as it should.
    #[track_caller]
    fn refused(&self, arguments: &[&str], code: i32, words: &[&str], hint: &str) {
        self.judge(&self.bale.run(arguments), code, words, hint);
    }

    /// Wants one line of cause with `words`, one of hint that says `hint` (where the user can do something), and all else as it was.
    #[track_caller]
    fn judge(&self, outcome: &Outcome, code: i32, words: &[&str], hint: &str) {
        assert_eq!(outcome.code, code, "{outcome:#?}");
        let said = outcome.stderr.replace(NO_NETWORK, "");
        let mut lines = said.lines();
        let cause = lines.next().unwrap_or_default();
        assert!(cause.starts_with("bale: "), "{outcome:#?}");
        for word in words {
            assert_eq!(cause.matches(word).count(), 1, "{word:?} belongs there once: {outcome:#?}");
        }
        match hint {
            "" => {
                let shown = lines.next().unwrap_or("  hint: ");
                assert!(shown.starts_with("  hint: "), "{outcome:#?}");
            }
            hint => {
                let shown = lines.next().unwrap_or_default();
                assert!(shown.starts_with("  hint: ") && shown.contains(hint), "{hint:?}: {outcome:#?}");
            }
        }
        assert_eq!(lines.next(), None, "one chain and one hint: {outcome:#?}");
        self.unharmed(&outcome.line);
    }

    /// Wants everything to be there that was there, to work, and nothing else.
    #[track_caller]
    fn unharmed(&self, when: &str) {
        self.machine.assert_same(&self.scope);
        let now = names(&self.bale.root());
        let changed: Vec<_> = self.files.symmetric_difference(&now).collect();
        assert!(changed.is_empty(), "{when}: {changed:#?}");
        assert_eq!(self.bale.ok(["exec", "alive", "echo", "here"]), "here\n", "{when}");
        let run = ["run", "--rm", "--net", "none", "busybox", "echo", "again"];
        assert_eq!(self.bale.ok(run), "again\n", "{when}");
    }
}

/// The machine once there are two processes: the supervisor of `alive` and its program, no longer their maker.
fn settled(scope: &Scope) -> Snapshot {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let machine = Snapshot::take(scope);
        if machine.count("process") == 2 {
            return machine;
        }
        assert!(Instant::now() < deadline, "{machine:#?}");
        std::thread::yield_now();
    }
}

/// All names below the store but those of locks.
fn names(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name() != ".lock" && !dir.ends_with("locks") {
            found.insert(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(names(&entry.path()));
        }
    }
    found
}

#[test]
fn images_names_flags_and_programs() {
    require_root!();
    let field = Field::new();
    for (arguments, code, words, hint) in [
        (
            vec!["run", "--rm", "--pull", "never", "no/such:1"],
            125,
            vec!["no such image: no/such:1"],
            "bale pull no/such:1",
        ),
        (vec!["rmi", "no/such:1"], 1, vec!["no such image: no/such:1"], ""),
        (
            vec!["run", "--name", "alive", "busybox"],
            125,
            vec!["the name \"alive\" is in use by container"],
            "bale rm alive",
        ),
        (
            vec!["run", "--rm", "busybox", "nope"],
            127,
            vec!["exec: \"nope\": executable file not found in $PATH"],
            "",
        ),
        (
            vec!["run", "--rm", "busybox", "/bin/nope"],
            127,
            vec!["\"/bin/nope\"", "no such file or directory"],
            "",
        ),
        (
            vec!["run", "--rm", "busybox", "/etc/passwd"],
            126,
            vec!["\"/etc/passwd\"", "permission denied"],
            "",
        ),
        (vec!["run", "--rm", "busybox", "/etc"], 126, vec!["\"/etc\"", "is a directory"], ""),
        (
            vec!["run", "--rm", "-w", "/bin/sh", "busybox", "true"],
            125,
            vec!["/bin/sh", "not a directory"],
            "",
        ),
        (
            vec!["run", "--rm", "-u", "rot", "busybox", "true"],
            125,
            vec!["unable to find user rot"],
            "did you mean \"root\"?",
        ),
        (vec!["run", "--rm", "-u", "4294967296", "busybox", "true"], 125, vec!["4294967296"], ""),
        (vec!["run", "--rm", "--net", "hst", "busybox"], 125, vec!["\"hst\""], "--net host"),
        (vec!["run", "--rm", "-m", "1k", "busybox", "true"], 125, vec!["--memory is below 6 MiB"], ""),
        (vec!["exec", "alive", "nope"], 127, vec!["exec: \"nope\""], ""),
        (vec!["exec", "alvie", "true"], 1, vec!["no such container: alvie; did you mean \"alive\"?"], ""),
    ] {
        field.refused(&arguments, code, &words, hint);
    }
    for (arguments, wanted) in [
        (vec!["run", "--nmae", "x", "busybox"], "did you mean --name?"),
        (vec!["run", "--detahc", "busybox"], "did you mean --detach?"),
        (vec!["runn", "busybox"], "did you mean \"run\"?"),
        (vec!["rnu", "busybox"], "did you mean \"run\"?"),
        (vec!["volume", "craete"], "did you mean \"create\"?"),
        (vec!["pull", "--platfrom", "linux/amd64", "busybox"], "did you mean --platform?"),
        (vec!["ps", "--fromat", "json"], "did you mean --format?"),
    ] {
        let outcome = field.bale.run(&arguments);
        // Which of the two docker gives for which verb is for the tests of verbs.
        assert!(matches!(outcome.code, 1 | 125), "{outcome:#?}");
        let said = outcome.stderr;
        assert!(said.contains(wanted) && said.contains("  hint: bale "), "{said}");
    }
    field.unharmed("unknown flags");
}

#[test]
fn bundles_with_mistakes() {
    require_root!();
    let field = Field::new();
    let empty = field.bale.dir().join("empty");
    fs::create_dir_all(empty.join("rootfs")).expect("a directory");
    fs::copy(field.bale.dir().join("good/config.json"), empty.join("config.json")).expect("copy");
    field.refused(
        &["run", "--rm", "./empty"],
        127,
        &["exec: \"sh\": executable file not found in $PATH"],
        "",
    );
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &[&str], &str); 14] = [
        (
            "uid",
            |c| c["process"]["user"]["uid"] = json!("root"),
            &["config.json:", "process.user.uid: is a string"],
            "bale check",
        ),
        (
            "uid32",
            |c| c["process"]["user"]["uid"] = json!(4_294_967_296_u64),
            &["config.json:", "process.user.uid: 4294967296"],
            "bale check",
        ),
        (
            "args",
            |c| c["process"]["args"] = json!("sh"),
            &["config.json:", "process.args: is a string"],
            "bale check",
        ),
        (
            "ns",
            |c| c["linux"]["namespaces"][0]["type"] = json!("pdi"),
            &["config.json:", "linux.namespaces[0].type", "did you mean \"pid\"?"],
            "known: pid",
        ),
        (
            "agrs",
            |c| {
                let a = c["process"]["args"].take();
                c["process"]["agrs"] = a;
            },
            &["config.json: process.args: is empty"],
            "bale check ./agrs",
        ),
        (
            "cwd",
            |c| c["process"]["cwd"] = json!("x"),
            &["config.json: process.cwd: \"x\""],
            "bale check ./cwd",
        ),
        (
            "limit",
            |c| c["process"]["rlimits"] = json!([{"type": "RLIMIT_X", "hard": 1, "soft": 1}]),
            &["process.rlimits[0].type: \"RLIMIT_X\""],
            "bale check ./limit",
        ),
        (
            "mem",
            |c| c["linux"]["resources"] = json!({"memory": {"limit": "64m"}}),
            &["linux.resources.memory.limit: is a string"],
            "bale check",
        ),
        ("path", |c| c["root"]["path"] = json!("rotfs"), &["/path/rotfs\" does not exist"], "root.path"),
        (
            "bind",
            |c| {
                c["mounts"] =
                    json!([{"destination": "/x", "type": "bind", "source": "/nosuch", "options": ["bind"]}]);
            },
            &["bind source \"/nosuch\": no such file"],
            "mounts[]",
        ),
        (
            "type",
            |c| c["mounts"] = json!([{"destination": "/x", "type": "nofs", "source": "x"}]),
            &["config.json: mounts[0]: mount nofs on /x: fsopen", "no such device"],
            "",
        ),
        (
            "action",
            |c| c["linux"]["seccomp"] = json!({"defaultAction": "X"}),
            &["config.json: linux.seccomp.defaultAction: unknown action \"X\""],
            "bale check ./action",
        ),
        (
            "sysctl",
            |c| c["linux"]["sysctl"] = json!({"kernel.nope": "1"}),
            &["linux.sysctl: \"kernel.nope\""],
            "bale check ./sysctl",
        ),
        ("version", |c| c["ociVersion"] = json!("9.0.0"), &["ociVersion: \"9.0.0\""], "bale upgrade"),
    ];
    for (name, change, words, hint) in cases {
        field.bundle(name, change);
        field.refused(&["run", "--rm", &format!("./{name}")], 125, words, hint);
    }
}

#[test]
fn what_is_not_there_is_named_with_the_next_step() {
    require_root!();
    let field = Field::new();
    for (arguments, words, hint) in [
        (&["check", "nowhere"][..], "open the bundle \"", "bale bundle IMAGE DIR"),
        (
            &["set", "nowhere", "process.cwd=/"],
            "open the bundle \"nowhere\": no such file",
            "bale bundle IMAGE DIR",
        ),
        (&["upgrade", "nowhere"], "open the bundle \"", "bale bundle IMAGE DIR"),
        (&["spec", "-b", "nowhere"], "write nowhere/config.json: no such file", "mkdir -p nowhere/rootfs"),
        (&["kill", "-s", "TREM", "alive"], "invalid signal \"TREM\"; did you mean \"TERM\"?", "1 to 64"),
        (&["build", "."], "docker's command \"build\" is not part of bale yet", "lists the commands"),
    ] {
        field.refused(arguments, 1, &[words], hint);
    }
    let (locks, away) = (field.bale.root().join("blobs"), field.bale.root().join("away"));
    fs::rename(&locks, &away).expect("rename");
    let said = field.bale.fails(1, ["images"]);
    fs::rename(&away, &locks).expect("rename");
    assert!(said.contains("open the store") && said.contains("  hint: the store is not whole"), "{said}");
    field.unharmed("a store that is not whole");
}

/// Wherever in the config a mistake is, and whoever finds it (the reader, the plan, the kernel in the parent or in init):
/// the file and the path in it are named, once.
#[test]
fn every_mistake_in_a_config_has_its_place() {
    require_root!();
    let field = Field::new();
    let dir = field.bundle("b", |_| ());
    let good: Value =
        serde_json::from_slice(&fs::read(dir.join("config.json")).expect("config.json")).expect("JSON");
    let mount = |more: Value| {
        let mut mount = json!({"destination": "/x", "type": "tmpfs", "source": "x"});
        mount.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        json!([mount])
    };
    let long = "n".repeat(70);
    let hook = |path: &str| json!([{"path": path}]);
    let cases = [
        ("mounts[0]", "/mounts", mount(json!({"options": ["size=x"]}))),
        ("mounts[0]", "/mounts", mount(json!({"options": ["nosuchoption=1"]}))),
        (
            "mounts[0]",
            "/mounts",
            mount(
                json!({"type": "bind", "source": "/etc/passwd", "options": ["bind"], "destination": "/etc"}),
            ),
        ),
        (
            "mounts[0].source",
            "/mounts",
            mount(json!({"type": "bind", "source": "/no/such", "options": ["bind"]})),
        ),
        ("mounts[0]", "/mounts", mount(json!({"options": ["remount"]}))),
        ("mounts[0].destination", "/mounts", mount(json!({"destination": ""}))),
        ("linux.namespaces[0].path", "/linux/namespaces/0", json!({"type": "pid", "path": "/no/such"})),
        (
            "linux.namespaces[0].path",
            "/linux/namespaces/0",
            json!({"type": "pid", "path": "/proc/self/ns/net"}),
        ),
        ("linux.namespaces[0].path", "/linux/namespaces/0", json!({"type": "pid", "path": "relative"})),
        ("linux.maskedPaths", "/linux/namespaces", json!([{"type": "pid"}])),
        ("hostname", "/hostname", json!(long)),
        ("domainname", "/domainname", json!(long)),
        ("linux.sysctl", "/linux/sysctl", json!({"kernel.shmmax": "x"})),
        ("linux.sysctl", "/linux/sysctl", json!({"kernel.shm_nope": "1"})),
        (
            "process.rlimits",
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "hard": 9_000_000_000_u64, "soft": 1}]),
        ),
        ("process.rlimits[0]", "/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}])),
        ("process.env[0]", "/process/env", json!(["A"])),
        ("process.cwd", "/process/cwd", json!("/bin/sh")),
        ("process.ioPriority.class", "/process/ioPriority", json!({"class": "X", "priority": 1})),
        ("process.scheduler.policy", "/process/scheduler", json!({"policy": "X"})),
        ("process.scheduler", "/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 100})),
        (
            "linux.devices[0].type",
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}]),
        ),
        (
            "linux.devices",
            "/linux/devices",
            json!([{"path": "/bin/x/y", "type": "c", "major": 1, "minor": 3}, {"path": "/bin/sh/x", "type": "c", "major": 1, "minor": 3}]),
        ),
        (
            "linux.resources.devices[1].access",
            "/linux/resources/devices",
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "access": "x"}]),
        ),
        (
            "linux.resources.hugepageLimits[0]",
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "3MB", "limit": 1}]),
        ),
        ("linux.resources.cpu.cpus", "/linux/resources/cpu", json!({"cpus": "9999"})),
        ("linux.cgroupsPath", "/linux/cgroupsPath", json!("/")),
        (
            "linux.seccomp.syscalls[0].args[0].op",
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "X"}]}]}),
        ),
        (
            "linux.seccomp.architectures[0]",
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X"]}),
        ),
        ("linux.personality.domain", "/linux/personality", json!({"domain": "X"})),
        ("linux.rootfsPropagation", "/linux/rootfsPropagation", json!("x")),
        ("linux.uidMappings", "/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])),
        ("hooks.createContainer[0].path", "/hooks", json!({"createContainer": hook("relative")})),
        ("hooks", "/hooks", json!({"startContainer": hook("/no/such")})),
        ("hooks", "/hooks", json!({"createContainer": hook("/no/such")})),
        ("hooks.createRuntime[0]", "/hooks", json!({"createRuntime": hook("/no/such")})),
        ("root.path", "/root/path", json!("nowhere")),
    ];
    for (place, pointer, value) in cases {
        let mut config = good.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = config.pointer_mut(parent).expect("it is there");
        match parent {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value.clone(),
            parent => parent[key] = value.clone(),
        }
        fs::write(dir.join("config.json"), config.to_string()).expect("write");
        let outcome = field.bale.run(["run", "--rm", "./b", "true"]);
        let said = outcome.stderr.replace(NO_NETWORK, "");
        println!("{place} {value}\n{said}");
        assert_eq!(outcome.code, 125, "{outcome:#?}");
        assert!(said.contains("config.json") && said.contains(place), "{place}: {outcome:#?}");
        assert!(said.lines().count() <= 2, "{place}: {outcome:#?}");
    }
    field.unharmed("mistakes in a config");
}

#[test]
fn configs_that_are_no_configs_and_bundles_that_are_links() {
    require_root!();
    let field = Field::new();
    let dir = field.bundle("b", |_| ());
    let good = fs::read(dir.join("config.json")).expect("config.json");
    let texts: [(Vec<u8>, &[&str], &str); 6] = [
        (b"{\"ociVersion\" 1}".to_vec(), &["config.json:1:15", "expected `:`"], "bale check"),
        (Vec::new(), &["config.json:1", "EOF while parsing a value"], "bale check"),
        (b"[]".to_vec(), &["config.json: is a list, not an object"], "bale check"),
        (b"\xff\xfe{}".to_vec(), &["config.json:1:1", "expected value"], "bale check"),
        (
            [b"{\"a\":".repeat(200), b"1".to_vec(), b"}".repeat(200)].concat(),
            &["config.json:1:", "recursion limit exceeded"],
            "bale check",
        ),
        ([good.clone(), vec![b' '; 17 << 20]].concat(), &["config.json", "larger than 16777216 bytes"], ""),
    ];
    for (text, words, hint) in texts {
        fs::write(dir.join("config.json"), text).expect("write");
        field.refused(&["run", "--rm", "./b", "true"], 125, words, hint);
    }
    fs::write(dir.join("config.json"), &good).expect("write");
    fs::set_permissions(dir.join("rootfs/bin/busybox"), fs::Permissions::from_mode(0o644)).expect("chmod");
    field.refused(&["run", "--rm", "./b", "true"], 126, &["exec: \"true\": permission denied"], "");

    let link = field.bale.dir().join("link");
    fs::create_dir(&link).expect("a directory");
    fs::write(link.join("config.json"), &good).expect("write");
    for target in ["../good/rootfs", "/", "/nosuch"] {
        symlink(target, link.join("rootfs")).expect("a link");
        field.refused(
            &["run", "--rm", "./link", "true"],
            125,
            &["/link/rootfs\" is a symbolic link"],
            "root.path",
        );
        fs::remove_file(link.join("rootfs")).expect("remove");
    }
    fs::remove_file(link.join("config.json")).expect("remove");
    symlink("/etc/shadow", link.join("config.json")).expect("a link");
    field.refused(
        &["run", "--rm", "./link", "true"],
        125,
        &["openat(\"config.json\")", "symbolic links"],
        "",
    );
    fs::remove_file(link.join("config.json")).expect("remove");
    output_of(Command::new("mkfifo").arg(link.join("config.json"))).expect("mkfifo");
    field.refused(
        &["run", "--rm", "./link", "true"],
        125,
        &["read(\"config.json\")", "not a regular file"],
        "",
    );
    field.refused(&["run", "--rm", "./nowhere"], 125, &["\"./nowhere\"", "no such file or directory"], "");
}

#[test]
fn registries_that_are_down_refuse_lie_or_stall() {
    require_root!();
    let field = Field::new();
    let registry = Registry::start();
    let name = format!("{}/box:1", registry.host());
    field.bale.ok(["tag", "busybox", &name]);
    field.bale.ok(["push", "-q", &name]);
    field.bale.ok(["rmi", &name]);
    let manifest = registry.manifest("box", "1").expect("it was pushed");
    // The image's layer is here; without it the blobs are fetched, which is what is to fail.
    let other = other_image(&registry);
    let pushed: Value =
        serde_json::from_slice(&registry.manifest("other", "1").expect("it was pushed")).expect("JSON");
    let layer = format!("/blobs/{}", pushed["layers"][0]["digest"].as_str().expect("a digest"));
    let url = format!("http://{}/v2/", registry.host());

    field.refused(
        &["pull", &format!("{}/nothing:1", registry.host())],
        1,
        &[&format!("GET {url}nothing/manifests/1"), "404 not found"],
        "",
    );
    for (method, part, trick, words) in [
        (
            "GET",
            "/manifests/",
            Trick::Answer(500, Vec::new(), b"no".to_vec()),
            vec!["other/manifests/1", "500"],
        ),
        (
            "GET",
            "/manifests/",
            Trick::Answer(200, vec![("content-type".to_owned(), "text/html".to_owned())], b"<html>".to_vec()),
            vec!["not a manifest that can be used"],
        ),
        (
            "GET",
            "/blobs/",
            Trick::Corrupt,
            vec!["GET http://", "/blobs/sha256:", "the content is sha256:", "  hint: try again"],
        ),
        ("GET", &layer, Trick::Corrupt, vec!["/blobs/sha256:", "the gzip stream", "  hint: try again"]),
        ("GET", "/blobs/", Trick::CutAfter(100), vec!["/blobs/sha256:", "BALE_REGISTRY_TIMEOUT"]),
        ("GET", "/blobs/", Trick::Hang, vec!["/blobs/sha256:"]),
        ("GET", "/blobs/", Trick::StallAfter(100), vec!["/blobs/sha256:", "came in 1 s"]),
        ("GET", "/manifests/", Trick::Silence, vec!["/manifests/1"]),
    ] {
        let times = 12;
        registry.trick(method, part, times, trick.clone());
        let mut command = field.bale.command(["pull", "-q", &other]);
        let outcome = finish(command.env("BALE_REGISTRY_TIMEOUT", "1"));
        println!("{trick:?}: {}", outcome.stderr);
        assert_eq!(outcome.code, 1, "{trick:?}: {outcome:#?}");
        assert!(
            outcome.stderr.starts_with("bale: pull ") && outcome.stderr.lines().count() <= 2,
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains(&registry.host()), "{outcome:#?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {outcome:#?}");
        }
        assert!(outcome.stderr.matches("/blobs/").count() <= 1, "the place is named once: {outcome:#?}");
        registry.forget_tricks();
        field.unharmed(&outcome.line);
    }

    // A digest that the user gave, and a manifest that is another.
    let pinned = format!("{}/box@sha256:{}", registry.host(), "a".repeat(64));
    registry.trick(
        "GET",
        "/manifests/sha256:aaaa",
        9,
        Trick::Answer(
            200,
            vec![("content-type".to_owned(), bale_testkit::image::MANIFEST.to_owned())],
            manifest,
        ),
    );
    field.refused(&["pull", &pinned], 1, &["/manifests/sha256:aaaa"], "");

    registry.guard(Guard::Basic("Basic eDp5".to_owned()));
    field.refused(&["pull", "-q", &other], 1, &["401"], "bale login");
    drop(registry);
    field.refused(&["pull", "-q", &other], 1, &["connection refused"], "nothing listens there");
    field.refused(&["run", "--rm", &other], 125, &["connection refused"], "nothing listens there");
    field.refused(&["pull", "-q", "registry.invalid/x:1"], 1, &["resolve registry.invalid"], "spelled right");
}

#[test]
fn a_token_service_elsewhere_is_named_before_it_gets_a_password() {
    let bale = bale_testkit::bale!();
    let (registry, other) = (Registry::start(), Registry::start());
    let service = format!("localhost:{}", other.host().rsplit(':').next().expect("a port"));
    let authorization = "Basic dTpw".to_owned();
    let token = |realm| Guard::Bearer { realm, authorization: authorization.clone() };
    registry.guard(token(Some(format!("http://{service}/token"))));
    other.guard(token(None));
    let password = bale.dir().join("password");
    fs::write(&password, "p").expect("write");
    let login = |extra: &[&str]| {
        let host = registry.host();
        let mut arguments = vec!["login", "-u", "u", "--password-stdin", &host];
        arguments.extend(extra);
        let mut command = bale.command(&arguments);
        command.env("DOCKER_CONFIG", bale.dir()).stdin(fs::File::open(&password).expect("open"));
        finish(&mut command)
    };
    let outcome = login(&[]);
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("is elsewhere; your credentials were not sent there"), "{outcome:#?}");
    assert!(outcome.stderr.contains(&format!("  hint: --trust-realm {service} sends them")), "{outcome:#?}");
    let outcome = login(&["--trust-realm", &service]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "Login Succeeded\n"), "{outcome:#?}");
    assert!(bale.dir().join("config.json").exists());
}

/// Pushes an image whose layer is not in the store.
fn other_image(registry: &Registry) -> String {
    let bale = bale_testkit::bale!();
    let tree = bale.dir().join("tree");
    fs::create_dir(&tree).expect("a directory");
    fs::write(tree.join("data"), (0..400_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .expect("write");
    let layout = Layout::create(&bale.dir().join("layout")).expect("layout");
    let layer = layout.layer_of_tree(&tree).expect("layer");
    let name = format!("{}/other:1", registry.host());
    layout.image(&name, json!({"Cmd": ["sh"]}), &[layer]).expect("image");
    layout.archive(&bale.dir().join("image.tar")).expect("archive");
    bale.ok(["load", "-q", "-i", "image.tar"]);
    bale.ok(["push", "-q", &name]);
    name
}

#[test]
fn archives_that_are_damaged() {
    require_root!();
    let field = Field::new();
    let dir = field.bale.dir();
    let tree = dir.join("tree");
    fs::create_dir(&tree).expect("a directory");
    fs::write(tree.join("data"), (0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .expect("write");
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage, &str); 3] = [
        (
            "flipped",
            |blob| {
                let half = blob.len() / 2;
                blob[half] ^= 1;
            },
            "sha256",
        ),
        ("cut", |blob| blob.truncate(blob.len() / 2), "sha256"),
        ("empty", Vec::clear, "sha256"),
    ];
    for (name, damage, word) in damage {
        let layout = Layout::create(&dir.join(name)).expect("layout");
        let layer = layout.layer_of_tree(&tree).expect("layer");
        layout.image("docker.io/library/bad:1", json!({}), std::slice::from_ref(&layer)).expect("image");
        let path = layout.blob_path(&layer.digest);
        let mut blob = fs::read(&path).expect("blob");
        damage(&mut blob);
        fs::write(&path, blob).expect("write");
        layout.archive(&dir.join("bad.tar")).expect("archive");
        let outcome = field.bale.run(["load", "-i", "bad.tar"]);
        println!("{name}: {}", outcome.stderr);
        assert_eq!(outcome.code, 1, "{name}: {outcome:#?}");
        assert!(outcome.stderr.contains(word) && outcome.stderr.lines().count() <= 2, "{name}: {outcome:#?}");
        field.unharmed(name);
    }
    // The blob is what its digest says, and the tar in it is not what the config says; nor is it a tar at all.
    let layout = Layout::create(&dir.join("liar")).expect("layout");
    let layer = layout.layer_of_tree(&tree).expect("layer");
    let wrong = bale_testkit::image::Layer { diff_id: format!("sha256:{}", "b".repeat(64)), ..layer };
    layout.image("docker.io/library/bad:1", json!({}), &[wrong]).expect("image");
    layout.archive(&dir.join("bad.tar")).expect("archive");
    field.refused(&["load", "-i", "bad.tar"], 1, &["the uncompressed layer is sha256:", "was promised"], "");
    for (text, words) in
        [(&b"no tar at all"[..], "holds no images"), (&[0x1f, 0x8b, 8, 0, 1, 2, 3][..], "bad.tar")]
    {
        fs::write(dir.join("bad.tar"), text).expect("write");
        let said = field.bale.fails(1, ["load", "-i", "bad.tar"]);
        println!("{said}");
        assert!(said.lines().count() <= 2, "{words}: {said}");
        field.unharmed(words);
    }
}

#[test]
fn a_full_disk_is_told_and_room_is_enough_to_go_on() {
    require_root!();
    let field = Field::new();
    let disk = field.bale.dir().join("disk");
    fs::create_dir(&disk).expect("a directory");
    let mount = |options: &str| {
        output_of(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk))
            .expect("mount");
    };
    mount("size=1m");
    let root = disk.join("root");
    let small = |arguments: &[&str]| finish(field.bale.command(arguments).env("BALE_ROOT", &root));
    let archive = bale_testkit::image::busybox();
    let load = ["load", "-q", "-i", archive.to_str().expect("UTF-8")];
    let outcome = small(&load);
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    assert!(outcome.stderr.contains("no space left on device"), "{outcome:#?}");
    assert!(outcome.stderr.contains("  hint: ") && outcome.stderr.lines().count() == 2, "{outcome:#?}");
    for left in ["ingest", "images", "layers/sha256", "blobs/sha256"] {
        assert_eq!(fs::read_dir(root.join(left)).expect(left).count(), 0, "{left}");
    }
    mount("remount,size=32m");
    assert_eq!(small(&load).code, 0);
    assert_eq!(small(&["run", "--rm", "busybox", "true"]).code, 0);
    // Now the disk is full when a container is to be made.
    let filler = disk.join("filler");
    let full = Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", filler.display()))
        .args(["bs=4k"])
        .output();
    assert!(!full.expect("dd").status.success(), "the disk is full");
    let before = names(&root);
    let outcome = small(&["run", "--rm", "--net", "none", "busybox", "true"]);
    assert_eq!(outcome.code, 125, "{outcome:#?}");
    assert!(
        outcome.stderr.contains("no space left on device") && outcome.stderr.lines().count() <= 2,
        "{outcome:#?}"
    );
    let now = names(&root);
    let changed: Vec<_> = before.symmetric_difference(&now).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    assert_eq!(small(&["ps", "-a"]).code, 0);
    fs::remove_file(filler).expect("make room");
    assert_eq!(small(&["run", "--rm", "--net", "none", "busybox", "true"]).code, 0);
    output_of(Command::new("umount").arg(&disk)).expect("umount");
    field.unharmed("a full disk elsewhere");
}

#[test]
fn a_program_that_finds_its_port_taken_speaks_for_itself() {
    require_root!();
    let field = Field::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = holder.local_addr().expect("its address").to_string();
    let outcome = field.bale.run(["run", "--rm", "--net", "host", "busybox", "httpd", "-f", "-p", &address]);
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    assert_eq!(outcome.stderr, "httpd: bind: Address already in use\n");
    field.unharmed("a taken port");
    let id = field.bale.ok(["run", "-d", "--net", "host", "busybox", "httpd", "-f", "-p", &address]);
    assert_eq!(field.bale.ok(["wait", id.trim()]), "1\n");
    let logs = field.bale.run(["logs", id.trim()]);
    assert_eq!((logs.code, logs.stderr.as_str()), (0, "httpd: bind: Address already in use\n"));
    field.bale.ok(["rm", id.trim()]);
    field.unharmed("a taken port in the background");
}

#[test]
fn without_root() {
    require_root!();
    let field = Field::new();
    let exe = field.bale.dir().join("bale-for-all");
    fs::copy(field.bale.exe(), &exe).expect("copy");
    let home = field.bale.dir().join("home");
    fs::create_dir(&home).expect("a directory");
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).expect("chown");
    let as_nobody = |arguments: &[&str], root: &Path| {
        let mut command = Command::new(&exe);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("BALE_ROOT", root)
            .uid(65534)
            .gid(65534);
        command.current_dir(field.bale.dir());
        finish(&mut command)
    };
    assert_eq!(as_nobody(&["version"], &home).code, 0);
    for (arguments, code) in [
        (vec!["run", "--rm", "busybox"], 125),
        (vec!["ps"], 1),
        (vec!["images"], 1),
        (vec!["pull", "x"], 1),
        (vec!["rm", "-f", "alive"], 1),
    ] {
        let outcome = as_nobody(&arguments, &field.bale.root());
        field.judge(&outcome, code, &["permission denied"], "root");
    }
    // With a store of its own the user gets as far as the kernel lets it.
    let mine = home.join("store");
    let archive = field.bale.dir().join("busybox.tar");
    fs::copy(bale_testkit::image::busybox(), &archive).expect("copy");
    for arguments in [vec!["load", "-q", "-i", "busybox.tar"], vec!["run", "--rm", "./good", "true"]] {
        let outcome = as_nobody(&arguments, &mine);
        println!("{outcome:#?}");
        assert!(matches!(outcome.code, 1 | 125), "{outcome:#?}");
        let said = outcome.stderr.replace(NO_NETWORK, "");
        assert!(
            said.to_lowercase().contains("not permitted") || said.contains("permission denied"),
            "{outcome:#?}"
        );
        assert!(
            said.contains("  hint: ") && said.contains("root") && said.lines().count() == 2,
            "{outcome:#?}"
        );
    }
    for left in ["ingest", "containers"] {
        assert_eq!(fs::read_dir(mine.join(left)).map_or(0, Iterator::count), 0, "{left}");
    }
    field.unharmed("without root");
}

#[test]
fn damaged_records_and_newer_formats() {
    require_root!();
    let field = Field::new();
    let bale = &field.bale;
    for (text, words, hint) in [
        ("{", "record.json\" is damaged", ""),
        ("", "record.json\" is damaged", ""),
        ("{\"version\":1}", "record.json\" is damaged", ""),
        ("{\"version\":99}", "record.json\" has format 99, this bale knows 1", "the bale that wrote it"),
    ] {
        let id = bale.ok(["create", "--name", "hurt", "--net", "none", "busybox", "true"]);
        let record = bale.root().join("containers").join(id.trim()).join("record.json");
        let good = fs::read(&record).expect("record.json");
        fs::write(&record, text).expect("write");
        let said = bale.fails(1, ["start", "hurt"]);
        println!("{said}");
        assert!(said.contains(words) && said.contains(hint) && said.lines().count() <= 2, "{text:?}: {said}");
        assert!(bale.ok(["ps", "-a"]).contains("alive"), "one damaged record hides no other container");
        assert_eq!(bale.ok(["exec", "alive", "echo", "here"]), "here\n");
        if hint.is_empty() {
            bale.ok(["rm", "-f", id.trim()]);
        } else {
            fs::write(&record, good).expect("write");
            bale.ok(["rm", "hurt"]);
        }
        field.unharmed(text);
    }
    let format = bale.root().join("format");
    for (text, words, hint) in [
        ("2\n", "it has format 2, this bale knows 1", "newer one"),
        ("x\n", "its file \"format\" says \"x\\n\"", ""),
    ] {
        fs::write(&format, text).expect("write");
        for arguments in [["images", "-q"], ["pull", "x"], ["run", "busybox"]] {
            let outcome = bale.run(arguments);
            assert!(matches!(outcome.code, 1 | 125), "{outcome:#?}");
            assert!(outcome.stderr.contains(words) && outcome.stderr.contains(hint), "{outcome:#?}");
        }
        fs::write(&format, "1\n").expect("write");
        field.unharmed(text);
    }
}
