//! `bundle`, `spec`, `set` and `check`, as a user types them.

use std::fs;
use std::path::Path;

use bale_testkit::image::{self, Layout};
use bale_testkit::peers::Peers;
use bale_testkit::{Bale, bale, require_root};
use serde_json::{Value, json};

/// An image with everything that a config is made of: `box:1`, busybox in two layers.
fn load_box(bale: &Bale) {
    let tree = bale.dir().join("tree");
    image::busybox_rootfs(&tree).expect("busybox");
    let layout = Layout::create(&bale.dir().join("layout")).expect("layout");
    let first = layout.layer_of_tree(&tree).expect("layer");
    let second = bale.dir().join("second");
    fs::create_dir_all(second.join("data")).expect("data");
    std::os::unix::fs::chown(second.join("data"), Some(1000), Some(1000)).expect("chown");
    let second = layout.layer_of_tree(&second).expect("layer");
    let config = json!({
        "Env": ["PATH=/bin", "A=1"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id; pwd; touch x && echo wrote; echo $A $HOME"],
        "User": "user", "WorkingDir": "/data", "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGINT", "Labels": {"a": "b"},
    });
    layout.image("docker.io/library/box:1", config, &[first, second]).expect("image");
    layout.archive(&bale.dir().join("box.tar")).expect("archive");
    bale.ok(["load", "-i", "box.tar"]);
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("config.json")).expect("config.json")).expect("JSON")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn is_old_crun(peers: &Peers) -> bool {
    let said = peers.run("crun --version", [""; 0]).expect("crun");
    let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(1), Some(9))
}

#[test]
fn a_bundle_of_an_image_runs_unchanged_under_runc_and_crun() {
    require_root!();
    let bale = bale!();
    load_box(&bale);
    let said = bale.ok(["bundle", "box:1", "./b", "--net", "host", "-e", "A=2"]);
    assert!(said.starts_with("./b: made of box:1 ("), "{said}");
    let dir = bale.dir().join("b");
    assert_eq!(names(&dir), ["config.json", "image-config.json", "image.json", "rootfs"]);
    let document = config(&dir);
    // Docker's filter states its errno, which is new in 1.1; crun 1.8 refuses whatever is newer than that.
    assert_eq!((&document["ociVersion"], &document["hostname"]), (&json!("1.1.0"), &json!("box")));
    assert_eq!(document["process"]["user"], json!({"uid": 1000, "gid": 1000, "additionalGids": [1000, 900]}));
    assert_eq!(document["annotations"]["org.opencontainers.image.exposedPorts"], "80/tcp");
    assert_eq!(document["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert!(!document.to_string().contains(bale.dir().to_str().expect("UTF-8")), "a path of this host");
    let checked = bale.ok(["check", "./b", "--strict"]);
    assert!(checked.ends_with("./b: 0 errors, 0 warnings, 2 notes\n"), "{checked}");

    let Some(peers) = Peers::find() else { return };
    for runtime in ["runc", "crun"] {
        // crun does not work with controllers on v1 beside v2; a mount of v2 alone is enough for it. Until 1.8 it needed
        // CAP_SYS_RESOURCE to make cgroups there.
        let manager = if runtime == "crun" && is_old_crun(&peers) { "--cgroup-manager=disabled" } else { "" };
        let script =
            "[ \"$1\" = runc ] || { umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; }
            cd \"$2\"; \"$1\" --root /run/x $3 run bundle-$$ < /dev/null";
        let arguments = [runtime, dir.to_str().expect("UTF-8"), manager];
        let said = peers.run(script, arguments).unwrap_or_else(|e| panic!("{e}"));
        let wanted = "uid=1000(user) gid=1000(user) groups=900(extra),1000(user)\n/data\nwrote\n2 /home\n";
        assert_eq!(said, wanted, "{runtime}");
        fs::remove_file(dir.join("rootfs/data/x")).expect("what the program wrote");
    }
}

#[test]
fn a_bundle_is_made_once_and_refusals_leave_nothing() {
    require_root!();
    let bale = bale!();
    load_box(&bale);
    let before = names(bale.dir());
    let cases: [(&[&str], &str, &str); 8] = [
        (&["bundle", "--pull", "never", "nope:1", "./n"], "no such image: nope:1", "bale pull nope:1"),
        (&["bundle", "./b", "box:1"], "\"./b\" is spelled like a directory", "bale bundle IMAGE DIR"),
        (&["bundle", "box:1", "./no/where"], "no such file or directory", "make "),
        (&["bundle", "--init", "box:1", "./n"], "--init: a bundle's config cannot say this", "bale run"),
        (
            &["bundle", "-v", "vol:/x", "box:1", "./n"],
            "the volume at /x cannot be part",
            "-v /host:/container",
        ),
        (&["bundle", "-u", "nobdy", "box:1", "./n"], "unable to find user nobdy", "did you mean \"nobody\"?"),
        (
            &["bundle", "--memory", "1q", "box:1", "./n"],
            "--memory \"1q\": unit \"q\" is unknown",
            "units are",
        ),
        (&["bundle", "box:1", "."], "is not empty", "an empty directory"),
    ];
    for (arguments, words, hint) in cases {
        let said = bale.fails(1, arguments);
        assert!(said.contains(words) && said.contains(hint), "{arguments:?}: {said}");
        assert_eq!(names(bale.dir()), before, "{arguments:?}");
    }
    fs::create_dir(bale.dir().join("b")).expect("an empty directory");
    bale.ok(["bundle", "-q", "box:1", "b", "--", "echo", "hi"]);
    assert_eq!(config(&bale.dir().join("b"))["process"]["args"], json!(["/bin/sh", "-c", "echo", "hi"]));
    assert!(bale.fails(1, ["bundle", "box:1", "b"]).contains("is not empty"));
}

#[test]
fn spec_set_and_check_by_hand() {
    let bale = bale!();
    let dir = bale.dir().join("b");
    fs::create_dir_all(dir.join("rootfs/bin")).expect("rootfs");
    fs::copy(bale.exe(), dir.join("rootfs/bin/redis-server")).expect("a program");
    bale.ok(["spec", "--bundle", "b"]);
    assert!(bale.fails(1, ["spec", "-b", "b"]).contains("config.json exists"));
    assert_eq!(
        bale.ok(["spec", "--print"]),
        fs::read_to_string(dir.join("config.json")).expect("config.json")
    );

    assert_eq!(config(&dir)["ociVersion"], "1.0.2");

    // The edits of the seed.
    let edits = [
        "set",
        "b",
        "process.args=[\"redis-server\",\"--bind\",\"0.0.0.0\"]",
        "process.user.uid=1000",
        "process.user.gid=1000",
    ];
    let said = bale.ok(edits);
    assert!(said.contains("process.user.uid: 0 -> 1000\n"), "{said}");
    assert_eq!(bale.ok(["set", "b", "linux.namespaces-=network", "-q"]), "");
    assert_eq!(bale.ok(["set", "b", "process.user.uid=1000"]), "nothing changed\n");
    let said = bale.ok(["check", "b"]);
    assert!(said.contains("redis cannot save dump.rdb"), "{said}");
    assert_eq!(bale.run(["check", "b", "--strict", "-q"]).code, 1);

    let said = bale.fails(1, ["set", "b", "process.usr.uid=1"]);
    assert!(said.contains("process has no key \"usr\"; did you mean \"user\"?"), "{said}");
    let said = bale.fails(1, ["set", "process.cwd=/", "b"]);
    assert!(said.contains("the bundle comes first"), "{said}");
    let history = bale.ok(["set", "b", "--history", "--format", "json"]);
    let entries: Vec<Value> = history.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(entries.iter().map(|e| e["number"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(1)]);
    let undone = bale.ok(["set", "b", "--undo"]);
    assert_eq!(undone, "linux.namespaces[1]: {\"type\":\"network\"} added\n");

    bale.ok(["set", "b", "process.cwd=rel", "--force"]);
    let outcome = bale.run(["check", "b", "--format", "json"]);
    let first: Value = serde_json::from_str(outcome.stdout.lines().next().expect("a finding")).expect("JSON");
    assert_eq!(
        (outcome.code, &first["path"], &first["severity"]),
        (1, &json!("process.cwd"), &json!("error"))
    );
    assert!(first["line"].as_u64().is_some_and(|line| line > 1));
    assert!(bale.fails(1, ["check", "nowhere"]).contains("no such file or directory"));
}
