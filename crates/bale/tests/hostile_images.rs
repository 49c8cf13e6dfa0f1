//! Images, archives and bundles that mean harm: nothing outside what is theirs changes, no command hangs or dies, and
//! what a container's own files say about users and directories is read inside it only.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bale_testkit::command::{Outcome, finish};
use bale_testkit::image::{Compression, Layout};
use bale_testkit::machine::{Scope, Snapshot};
use bale_testkit::tree::{difference, snapshot};
use bale_testkit::{Bale, output_of, require_root};
use serde_json::{Value, json};

/// One entry of a tar, as it comes.
struct Entry<'a> {
    name: &'a str,
    kind: u8,
    link: &'a str,
    content: &'a [u8],
}

const fn file<'a>(name: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry { name, kind: b'0', link: "", content }
}

const fn link<'a>(name: &'a str, kind: u8, link: &'a str) -> Entry<'a> {
    Entry { name, kind, link, content: b"" }
}

const HARD: u8 = b'1';
const SYMBOLIC: u8 = b'2';
const DIRECTORY: u8 = b'5';

/// Writes a tar by hand: no tool makes what these tests need.
fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        let mut head = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &entry.name.as_bytes()[..entry.name.len().min(100)]);
        put(100, b"0000755\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", entry.content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(156, &[entry.kind]);
        put(157, &entry.link.as_bytes()[..entry.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(148, b"        ");
        let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(head);
        archive.extend(entry.content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    archive
}

/// A store, and a folder of the host that nobody may touch.
struct Field {
    bale: Bale,
    host: PathBuf,
}

impl Field {
    fn new() -> Self {
        let bale = bale_testkit::bale!();
        bale.load_busybox();
        let host = bale.dir().join("host");
        fs::create_dir_all(host.join("folder")).expect("a directory");
        fs::write(host.join("victim"), "untouched").expect("write");
        fs::write(host.join("folder/inside"), "untouched").expect("write");
        Self { bale, host }
    }

    /// Loads an image of busybox below the given layers; tells how it went.
    fn load(&self, name: &str, config: Value, layers: &[&[Entry<'_>]]) -> Outcome {
        let layout = Layout::create(&self.bale.dir().join(format!("layout-{name}"))).expect("layout");
        let tree = self.bale.dir().join("busybox-tree");
        if !tree.exists() {
            bale_testkit::image::busybox_rootfs(&tree).expect("busybox");
        }
        let mut all = vec![layout.layer_of_tree(&tree).expect("layer")];
        all.extend(layers.iter().map(|l| layout.layer_of_tar(&tar(l), Compression::Gzip).expect("layer")));
        layout.image(&format!("docker.io/library/{name}:1"), config, &all).expect("image");
        let archive = self.bale.dir().join(format!("{name}.tar"));
        layout.archive(&archive).expect("archive");
        fs::remove_dir_all(layout.dir()).expect("remove");
        self.bale.run(["load", "-q", "-i", archive.to_str().expect("UTF-8")])
    }

    /// Runs a program in a container of the image `NAME:1`.
    fn run(&self, name: &str, flags: &[&str], program: &[&str]) -> Outcome {
        let image = &*format!("{name}:1");
        let head = ["run", "--rm", "--net", "none"];
        let words = head.iter().chain(flags).chain([&image]).chain(program);
        // What hangs is ended, and fails the test.
        let command = self.bale.command(words);
        let mut timed = Command::new("timeout");
        timed.args(["-k", "5", "30"]).arg(command.get_program()).args(command.get_args());
        timed
            .env("BALE_ROOT", self.bale.root())
            .current_dir(self.bale.dir())
            .stdin(std::process::Stdio::null());
        let outcome = finish(&mut timed);
        assert_ne!(outcome.code, 124, "it hangs: {outcome:#?}");
        outcome
    }
}

#[test]
fn layers_that_try_to_leave_their_root() {
    require_root!();
    let field = Field::new();
    let host = field.host.to_str().expect("UTF-8").to_owned();
    let deep = "../".repeat(30);
    let (up, up_victim) = (format!("{deep}{}", &host[1..]), format!("{deep}{}/victim", &host[1..]));
    let (absolute, victim) = (format!("{host}/new"), format!("{host}/victim"));
    let up_new = format!("{up}/new");
    let cases: Vec<(&str, Vec<Vec<Entry<'_>>>)> = vec![
        ("dots", vec![vec![file(&up_new, b"x")]]),
        ("dotsinside", vec![vec![file("a/b/../../../../../../../../../../../../tmp/x", b"x")]]),
        ("absolute", vec![vec![file(&absolute, b"x")]]),
        ("throughlink", vec![vec![link("out", SYMBOLIC, &host), file("out/new", b"x")]]),
        ("throughuplink", vec![vec![link("out", SYMBOLIC, &up), file("out/new", b"x")]]),
        (
            "throughdirectory",
            vec![vec![link("out", SYMBOLIC, &host), link("out/", DIRECTORY, ""), file("out/victim", b"x")]],
        ),
        (
            "nextlayer",
            vec![vec![link("out", SYMBOLIC, &host)], vec![file("out/new", b"x"), file("out/victim", b"x")]],
        ),
        ("overlink", vec![vec![link("out", SYMBOLIC, &victim)], vec![file("out", b"x")]]),
        ("hardlink", vec![vec![link("in", HARD, &victim), file("in", b"x")]]),
        ("hardlinkup", vec![vec![link("in", HARD, &up_victim), file("in", b"x")]]),
        (
            "hardlinklink",
            vec![vec![link("out", SYMBOLIC, &victim), link("in", HARD, "out"), file("in", b"x")]],
        ),
        (
            "hardlinkthrough",
            vec![vec![link("out", SYMBOLIC, &host), link("in", HARD, "out/victim"), file("in", b"x")]],
        ),
        (
            "whiteout",
            vec![
                vec![link("out", SYMBOLIC, &host)],
                vec![file("out/.wh.victim", b""), file("out/.wh..wh..opq", b"")],
            ],
        ),
        ("whiteoutdots", vec![vec![file(".wh...", b""), file("a/.wh..", b""), file(".wh.", b"")]]),
        ("whiteoutroot", vec![vec![file(".wh..", b"")]]),
        ("whiteoutslash", vec![vec![file(".wh.../../victim", b"")]]),
        ("device", vec![vec![link("null", b'3', ""), file("null", b"x")]]),
        ("procself", vec![vec![link("out", SYMBOLIC, "/proc/self/cwd/host"), file("out/new", b"x")]]),
        ("dot", vec![vec![file(".", b"x"), file("./", b""), file("/", b"")]]),
        ("loop", vec![vec![link("a", SYMBOLIC, "b"), link("b", SYMBOLIC, "a"), file("a/new", b"x")]]),
    ];
    let before = snapshot(&field.host).expect("the host's folder");
    let (scope, outside) = (Scope::below(field.bale.dir()).cgroups_of("bale"), names_around(&field));
    let machine = Snapshot::take(&scope);
    let mut loaded = Vec::new();
    for (name, layers) in &cases {
        let layers: Vec<&[Entry<'_>]> = layers.iter().map(Vec::as_slice).collect();
        let outcome = field.load(name, json!({"Cmd": ["true"]}), &layers);
        match outcome.code {
            // Taken, as something inside.
            0 => {
                loaded.push(*name);
                let ran = field.run(name, &[], &["sh", "-c", "cat /out/victim; true"]);
                assert!(matches!(ran.code, 0 | 125) && !ran.stdout.contains("untouched"), "{name}: {ran:#?}");
                let made = field.bale.run(["bundle", "-q", &format!("{name}:1"), "./bundle"]);
                // A hard link to nothing that is replaced later is nothing to overlayfs, and a mistake where the layers
                // are laid over each other one by one.
                assert!(matches!(made.code, 0 | 1) && made.stderr.lines().count() <= 2, "{name}: {made:#?}");
                if made.code == 0 {
                    fs::remove_dir_all(field.bale.dir().join("bundle")).expect("remove the bundle");
                }
                field.bale.ok(["rmi", &format!("{name}:1")]);
            }
            1 => {
                assert!(
                    outcome.stderr.starts_with("bale: load ") && outcome.stderr.lines().count() <= 2,
                    "{outcome:#?}"
                );
                assert!(outcome.stderr.contains(": layer "), "{outcome:#?}");
            }
            _ => panic!("{name}: {outcome:#?}"),
        }
        println!("{name}: {} {}", outcome.code, outcome.stderr.trim());
        let changes = difference(&before, &snapshot(&field.host).expect("the host's folder"));
        assert!(changes.is_empty(), "{name}: {changes:#?}");
        fs::remove_file(field.bale.dir().join(format!("{name}.tar"))).expect("remove");
    }
    fs::remove_dir_all(field.bale.dir().join("busybox-tree")).expect("remove");
    machine.assert_same(&scope);
    assert_eq!(names_around(&field), outside);
    assert!(!Path::new("/tmp/x").exists() && !loaded.is_empty(), "{loaded:?}");
    for kind in ["ingest", "images", "layers/sha256"] {
        let wanted = usize::from(kind != "ingest");
        assert_eq!(fs::read_dir(field.bale.root().join(kind)).expect(kind).count(), wanted, "{kind}");
    }
}

fn names_around(field: &Field) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        fs::read_dir(field.bale.dir()).expect("read").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    names
}

#[test]
fn archives_that_are_no_images() {
    require_root!();
    let field = Field::new();
    let index = |digest: &str, size: u64| {
        json!({"schemaVersion": 2, "manifests": [{"mediaType": bale_testkit::image::MANIFEST, "digest": digest, "size": size}]})
            .to_string()
    };
    let upwards = index("sha256:../../../../etc/passwd", 10);
    let absent = index(&format!("sha256:{}", "a".repeat(64)), 10);
    let huge = index(&format!("sha256:{}", "a".repeat(64)), u64::MAX);
    let (nested, long) = ("[".repeat(5000), "x".repeat(100));
    let docker =
        json!([{"Config": "../../etc/passwd", "RepoTags": ["x:1"], "Layers": ["/etc/shadow"]}]).to_string();
    let name = json!([{"Config": "c", "RepoTags": ["../../x:1"], "Layers": []}]).to_string();
    let cases: [(&str, Vec<Entry<'_>>); 9] = [
        ("upwards", vec![file("index.json", upwards.as_bytes())]),
        ("absent", vec![file("index.json", absent.as_bytes())]),
        ("huge", vec![file("index.json", huge.as_bytes())]),
        ("nested", vec![file("index.json", nested.as_bytes())]),
        ("docker", vec![file("manifest.json", docker.as_bytes())]),
        ("name", vec![file("manifest.json", name.as_bytes()), file("c", b"{}")]),
        ("link", vec![link("index.json", SYMBOLIC, "/etc/passwd")]),
        ("hard", vec![link("manifest.json", HARD, "../../../etc/passwd")]),
        ("names", vec![file("../../../index.json", upwards.as_bytes()), file(&long, b"")]),
    ];
    for (name, entries) in cases {
        fs::write(field.bale.dir().join("bad.tar"), tar(&entries)).expect("write");
        let outcome = field.bale.run(["load", "-i", "bad.tar"]);
        println!("{name}: {}", outcome.stderr.trim());
        assert_eq!(outcome.code, 1, "{name}: {outcome:#?}");
        assert!(outcome.stderr.starts_with("bale: load \"bad.tar\": "), "{name}: {outcome:#?}");
        assert!(
            outcome.stderr.lines().count() <= 2 && !outcome.stderr.contains("root:"),
            "{name}: {outcome:#?}"
        );
        assert_eq!(fs::read_dir(field.bale.root().join("ingest")).expect("ingest").count(), 0, "{name}");
        assert_eq!(field.bale.ok(["images", "-q"]).lines().count(), 1, "{name}");
    }
    // An import is a layer, and as careful.
    let host = field.host.to_str().expect("UTF-8").to_owned();
    let up = format!("{}{}/new", "../".repeat(30), &host[1..]);
    let before = snapshot(&field.host).expect("the host's folder");
    for entries in [vec![file(&up, b"x")], vec![link("out", SYMBOLIC, &host), file("out/new", b"x")]] {
        fs::write(field.bale.dir().join("bad.tar"), tar(&entries)).expect("write");
        let outcome = field.bale.run(["import", "bad.tar", "imported:1"]);
        assert!(matches!(outcome.code, 0 | 1), "{outcome:#?}");
        assert!(
            difference(&before, &snapshot(&field.host).expect("the host's folder")).is_empty(),
            "{outcome:#?}"
        );
    }
}

#[test]
fn accounts_of_the_image_are_read_inside_and_without_hanging() {
    require_root!();
    let field = Field::new();
    fs::write(field.host.join("passwd"), "evil:x:4242:4242::/:/bin/sh\n").expect("write");
    let outside = format!("{}/passwd", field.host.display());
    let many = "x".repeat(5 << 20);
    let huge = "user:x:4294967296:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\nlast:x:4294967295:0::/:/bin/sh\nfine:x:7:8::/:/bin/sh\n";
    let cases: [(&str, Vec<Entry<'_>>, &str, Option<&str>); 10] = [
        ("fifo", vec![link("etc/passwd", b'6', "")], "evil", None),
        (
            "fifonumber",
            vec![link("etc/passwd", b'6', ""), link("etc/group", b'6', "")],
            "12:13",
            Some("12 13"),
        ),
        ("outside", vec![link("etc/passwd", SYMBOLIC, &outside)], "evil", None),
        ("loop", vec![link("etc/passwd", SYMBOLIC, "passwd")], "evil", None),
        ("zero", vec![link("etc/passwd", b'3', "")], "evil", None),
        ("large", vec![file("etc/passwd", many.as_bytes())], "evil", None),
        ("over", vec![file("etc/passwd", huge.as_bytes())], "user", None),
        ("minus", vec![file("etc/passwd", huge.as_bytes())], "minus", None),
        ("last", vec![file("etc/passwd", huge.as_bytes())], "last", None),
        ("fine", vec![file("etc/passwd", huge.as_bytes())], "fine", Some("7 8")),
    ];
    for (name, entries, user, wanted) in cases {
        let loaded = field.load(
            name,
            json!({"Cmd": ["stat", "-L", "-c", "%u %g", "/proc/self"], "User": user}),
            &[&entries],
        );
        assert_eq!(loaded.code, 0, "{name}: {loaded:#?}");
        let outcome = field.run(name, &[], &[]);
        match wanted {
            Some(ids) => assert_eq!((outcome.code, outcome.stdout.trim()), (0, ids), "{name}: {outcome:#?}"),
            None => {
                assert_eq!((outcome.code, outcome.stdout.as_str()), (125, ""), "{name}: {outcome:#?}");
                println!("{name}: {}", outcome.stderr.trim());
                assert!(outcome.stderr.starts_with("bale: "), "{name}: {outcome:#?}");
            }
        }
        field.bale.ok(["rmi", &format!("{name}:1")]);
    }
    for user in
        ["4294967296", "4294967295", "-1", "0:4294967296", "18446744073709551616", "1:-1", "0x10", " 0", "+0"]
    {
        let loaded = field.load("user", json!({"Cmd": ["id"], "User": user}), &[]);
        assert_eq!(loaded.code, 0, "{user}: {loaded:#?}");
        let outcome = field.run("user", &[], &[]);
        assert_eq!(outcome.code, 125, "{user:?} is no user: {outcome:#?}");
        field.bale.ok(["rmi", "user:1"]);
    }
}

#[test]
fn directories_of_the_image_lead_nowhere() {
    require_root!();
    let field = Field::new();
    let host = field.host.to_str().expect("UTF-8").to_owned();
    let up = format!("{}{}", "../".repeat(30), &host[1..]);
    let before = snapshot(&field.host).expect("the host's folder");
    let entries = [
        link("abs", SYMBOLIC, &host),
        link("up", SYMBOLIC, &up),
        link("fd", SYMBOLIC, "/proc/self/fd/7"),
        link("root", SYMBOLIC, "/proc/1/root"),
    ];
    let loaded = field.load("links", json!({"Cmd": ["true"]}), &[&entries]);
    assert_eq!(loaded.code, 0, "{loaded:#?}");
    let mount = format!("{}:/abs/mounted", field.bale.dir().join("busybox-tree").display());
    let over = format!("{}:/abs", field.bale.dir().join("busybox-tree").display());
    for flags in [
        vec!["-w", "/abs/new"],
        vec!["-w", "/up/new"],
        vec!["-w", "/fd/new"],
        vec!["-v", "/abs/volume"],
        vec!["-v", "/up/volume"],
        vec!["-v", "/abs/folder"],
        vec!["-v", "named:/up/folder"],
        vec!["-v", &mount],
        vec!["-v", &over],
        vec!["--tmpfs", "/up/tmpfs"],
        vec!["--mount", "type=tmpfs,target=/abs/tmpfs"],
        vec!["-v", "/../../../../up/x"],
    ] {
        let outcome = field.run("links", &flags, &["sh", "-c", "touch ./made; find / -xdev -name inside"]);
        println!("{flags:?}: {} {}", outcome.code, outcome.stderr.trim());
        assert!(matches!(outcome.code, 0 | 125), "{outcome:#?}");
        assert_eq!(outcome.stdout, "", "the host's folder is seen: {outcome:#?}");
        let changes = difference(&before, &snapshot(&field.host).expect("the host's folder"));
        assert!(changes.is_empty(), "{flags:?}: {changes:#?}");
    }
    for name in ["abs", "up", "fd", "root"] {
        let path = format!("/{name}/inner");
        let config = json!({"Cmd": ["sh", "-c", "touch x; find / -xdev -name inside"], "WorkingDir": path, "Volumes": {path.clone(): {}, format!("/{name}/folder"): {}}});
        let loaded = field.load("config", config, &[&entries]);
        assert_eq!(loaded.code, 0, "{loaded:#?}");
        let outcome = field.run("config", &[], &[]);
        assert!(matches!(outcome.code, 0 | 125), "{outcome:#?}");
        assert_eq!(outcome.stdout, "", "{name}: {outcome:#?}");
        let changes = difference(&before, &snapshot(&field.host).expect("the host's folder"));
        assert!(changes.is_empty(), "{name}: {changes:#?}");
        field.bale.ok(["rmi", "config:1"]);
    }
    assert_eq!(field.bale.ok(["ps", "-aq"]), "");
}

#[test]
fn store_and_sockets_are_roots_alone() {
    require_root!();
    let field = Field::new();
    let bale = &field.bale;
    bale.ok([
        "run",
        "-d",
        "--net",
        "none",
        "-v",
        "data:/data",
        "--name",
        "alive",
        "busybox",
        "sleep",
        "1000",
    ]);
    let root = bale.root();
    let mode = |path: &Path| fs::symlink_metadata(path).expect("stat").permissions().mode() & 0o7777;
    let mut open = Vec::new();
    for entry in fs::read_dir(&root).expect("read").flatten() {
        let (path, wanted) = (entry.path(), if entry.path().is_dir() { 0o700 } else { 0o600 });
        if mode(&path) != wanted {
            open.push(format!("{} {:o}", path.display(), mode(&path)));
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let container =
        fs::read_dir(root.join("containers")).expect("read").flatten().next().expect("one").path();
    for (path, wanted) in [
        (root.clone(), 0o700),
        (container.clone(), 0o700),
        (container.join("control.sock"), 0o600),
        (container.join("record.json"), 0o600),
        (container.join("log"), 0o600),
        (container.join("lock"), 0o600),
        (root.join("volumes/data"), 0o700),
    ] {
        assert_eq!(mode(&path), wanted, "{}", path.display());
        assert_eq!(fs::symlink_metadata(&path).expect("stat").uid(), 0, "{}", path.display());
    }
    // Loosened by hand, the socket still serves root alone; here its own mode is what keeps others away.
    fs::set_permissions(bale.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).expect("chmod");
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"]).arg(root.join("containers"));
    assert_ne!(finish(&mut other).code, 0);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[test]
fn links_where_the_store_keeps_its_own_are_not_followed() {
    require_root!();
    let field = Field::new();
    let (bale, host) = (&field.bale, &field.host);
    let before = snapshot(host).expect("the host's folder");
    // A container that a hostile program has had its hands on: its directory is root's, so this takes root already;
    // but removing must not go through links in what the program itself can write.
    let id = bale.ok([
        "run",
        "-d",
        "--net",
        "none",
        "--name",
        "writer",
        "busybox",
        "sh",
        "-c",
        &format!(
            "ln -s {0} /l; ln -s {0}/victim /etc/v; mkdir -p /d/d/d; ln -s / /d/d/d/r; mkfifo /f",
            host.display()
        ),
    ]);
    bale.ok(["wait", "writer"]);
    let upper = bale.root().join("containers").join(id.trim()).join("upper");
    assert!(fs::symlink_metadata(upper.join("l")).expect("the link").is_symlink());
    bale.ok(["export", "-o", "out.tar", "writer"]);
    bale.ok(["rm", "writer"]);
    bale.ok([
        "run",
        "--rm",
        "--net",
        "none",
        "-v",
        "data:/data",
        "busybox",
        "ln",
        "-s",
        host.to_str().expect("UTF-8"),
        "/data/l",
    ]);
    bale.ok(["volume", "rm", "data"]);
    assert!(difference(&before, &snapshot(host).expect("the host's folder")).is_empty());
    // A volume's data directory replaced by a link.
    bale.ok(["volume", "create", "twisted"]);
    let data = bale.root().join("volumes/twisted/_data");
    fs::remove_dir(&data).expect("remove");
    symlink(host, &data).expect("a link");
    let outcome =
        bale.run(["run", "--rm", "--net", "none", "-v", "twisted:/x", "busybox", "touch", "/x/made"]);
    println!("{}", outcome.stderr);
    assert_eq!(outcome.code, 125, "{outcome:#?}");
    bale.ok(["volume", "rm", "twisted"]);
    assert!(difference(&before, &snapshot(host).expect("the host's folder")).is_empty());
    output_of(Command::new("tar").arg("-tf").arg(bale.dir().join("out.tar"))).expect("the export is a tar");
}
