//! The verbs of images: effect, output and exit code, as docker's (28.5) were seen with the same input.

use std::path::Path;

use bale_testkit::registry::Registry;
use bale_testkit::{Bale, bale, require_root};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A store with `busybox:latest` that was pulled from a registry inside the test, and its name there.
struct Field {
    registry: Registry,
    bale: Bale,
    name: String,
}

fn field() -> Field {
    let (registry, bale) = (Registry::start(), bale!());
    let name = format!("{}/team/busybox:1", registry.host());
    bale.load_busybox();
    bale.ok(["tag", "busybox", &name]);
    bale.ok(["push", "-q", &name]);
    bale.ok(["rmi", "busybox", &name]);
    Field { registry, bale, name }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn pull_prints_what_docker_prints() {
    require_root!();
    let Field { registry, bale, name } = field();
    let digest = bale_digest(&registry);
    let said = bale.ok(["pull", &name]);
    let layer = lines(&said)[1].split_once(':').expect("a layer's line").0.to_owned();
    let host = registry.host();
    let all = [
        format!("1: Pulling from {host}/team/busybox"),
        format!("{layer}: Pulling fs layer"),
        format!("{layer}: Pull complete"),
        format!("Digest: {digest}"),
        format!("Status: Downloaded newer image for {name}"),
        name.clone(),
    ];
    assert_eq!(lines(&said), all);
    let again = bale.ok(["pull", &name]);
    assert!(again.contains(": Already exists\n"), "{again}");
    assert!(again.contains(&format!("Status: Image is up to date for {name}\n")), "{again}");
    assert_eq!(bale.ok(["pull", "-q", &name]), format!("{name}\n"));
    let manifest = registry.manifest("team/busybox", "1").expect("it was pushed");
    registry.put_manifest("team/busybox", "latest", MANIFEST, manifest);
    let untagged = bale.ok(["pull", &format!("{host}/team/busybox")]);
    assert!(untagged.starts_with("Using default tag: latest\n"), "{untagged}");
    let pinned = bale.ok(["pull", &format!("{host}/team/busybox@{digest}")]);
    assert!(pinned.starts_with(&format!("{digest}: Pulling from")), "{pinned}");
}

fn bale_digest(registry: &Registry) -> String {
    let manifest = registry.manifest("team/busybox", "1").expect("it was pushed");
    let digest = sha256(&manifest);
    format!("sha256:{digest}")
}

fn sha256(bytes: &[u8]) -> String {
    let scratch = bale_testkit::Scratch::new("sha256");
    std::fs::write(scratch.join("x"), bytes).expect("write");
    let digest = bale_testkit::image::sha256(&scratch.join("x")).expect("sha256sum");
    digest.trim_start_matches("sha256:").to_owned()
}

#[test]
fn failures_are_one_chain_a_hint_and_exit_code_1() {
    require_root!();
    let Field { registry, bale, name } = field();
    let host = registry.host();
    for (arguments, words) in [
        (vec!["pull", "Busybox"], "invalid image name"),
        (vec!["pull", "--platform", "a/b/c/d", &name], "invalid platform"),
        (vec!["pull", "--platform", "linux/s390x", &name], "not for linux/s390x"),
        (vec!["pull", &format!("{host}/nothing:1")], "404"),
        (vec!["push", "nothing"], "no such image: nothing:latest"),
        (vec!["tag", "nothing", "x"], "no such image: nothing:latest"),
        (vec!["rmi", "nothing"], "no such image: nothing:latest"),
        (vec!["save", "-o", "out.tar", "nothing"], "no such image: nothing:latest"),
        (vec!["save", "-o", "no/such/folder/x", &name], "no such file"),
        (vec!["load", "-i", "nothing.tar"], "no such file"),
        (vec!["load", "-i", "."], "is a directory"),
        (vec!["import", "nothing.tar"], "no such file"),
        (vec!["import", "https://example.com/x.tar"], "does not fetch URLs"),
        (vec!["images", "--format", "{{.Nothing}}"], "there is no \"Nothing\""),
        (vec!["images", "--filter", "x=y"], "invalid filter"),
        (vec!["login", "-u", "x", "a b"], "without a terminal"),
        (vec!["export", "nothing"], "nothing"),
    ] {
        let said = bale.fails(1, &arguments);
        assert!(said.starts_with("bale: ") && said.contains(words), "{arguments:?}: {said}");
        assert!(said.lines().count() <= 2, "{arguments:?}: {said}");
    }
    for arguments in [vec!["pull"], vec!["rmi"], vec!["tag", "x"]] {
        bale.fails(1, &arguments);
    }
    bale.fails(125, ["pull", "--nothing", "x"]);
    assert!(!bale.dir().join("out.tar").exists());
    let left = std::fs::read_dir(bale.root().join("ingest")).expect("ingest").count();
    assert_eq!(left, 0);
}

#[test]
fn images_lists_as_a_table_json_or_a_template() {
    require_root!();
    let Field { registry: _registry, bale, name } = field();
    assert_eq!(bale.ok(["images"]), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    bale.ok(["pull", "-q", &name]);
    bale.ok(["tag", &name, "busybox:old"]);
    let table = bale.ok(["images"]);
    let head: Vec<&str> = lines(&table)[0].split("   ").map(str::trim).filter(|w| !w.is_empty()).collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    assert_eq!(table.lines().count(), 3);
    let id = bale.ok(["images", "-q", "--no-trunc", "busybox"]);
    assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    let short = bale.ok(["images", "-q", "busybox:old"]);
    assert_eq!(short.trim(), &id[7..19]);
    for line in bale.ok(["images", "--format", "json"]).lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("one object per line");
        assert_eq!(value["ID"], short.trim());
    }
    let names = bale.ok(["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=busybox"]);
    assert_eq!(names, "busybox:old\n");
    assert_eq!(bale.ok(["images", "-q", "--filter", "dangling=true"]), "");
    let first = bale.command(["images"]).stdout(std::process::Stdio::piped()).spawn();
    let mut first = first.expect("start bale");
    // The reader goes away at once, and that is no failure.
    drop(first.stdout.take());
    assert!(first.wait().expect("wait").success());
}

#[test]
fn rmi_untags_then_deletes() {
    require_root!();
    let Field { registry: _registry, bale, name } = field();
    bale.ok(["pull", "-q", &name]);
    bale.ok(["tag", &name, "busybox:old"]);
    let id = bale.ok(["images", "-q", "--no-trunc", "busybox"]);
    assert_eq!(bale.ok(["rmi", "busybox:old"]), "Untagged: busybox:old\n");
    bale.ok(["tag", &name, "busybox:old"]);
    let said = bale.fails(1, ["rmi", id[7..19].trim()]);
    assert!(said.contains("several names"), "{said}");
    bale.fails(1, ["rmi", "nothing", "busybox:old"]);
    let said = bale.ok(["rmi", id[7..19].trim()]);
    let said = lines(&said);
    assert_eq!(said[..2], [format!("Untagged: {name}").as_str(), format!("Deleted: {}", id.trim()).as_str()]);
    assert!(said.len() == 3 && said[2].starts_with("Deleted: sha256:"), "{said:?}");
    assert!(empty(&bale.root().join("layers/sha256")) && empty(&bale.root().join("blobs/sha256")));
    bale.ok(["rmi", "-f", "nothing"]);
}

fn empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("read").count() == 0
}

#[test]
fn save_load_and_import_go_through_pipes_and_files() {
    require_root!();
    let Field { registry: _registry, bale, name } = field();
    bale.ok(["pull", "-q", &name]);
    bale.ok(["save", "-o", "out.tar", &name]);
    let file = bale.dir().join("out.tar");
    let archive = std::fs::read(&file).expect("the archive");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).expect("stat").permissions().mode() & 0o777, 0o600);
    let piped = bale.command(["save", &name]).output().expect("run bale").stdout;
    assert!(piped == archive, "a pipe gets the same bytes as a file");
    bale.ok(["save", "-o", "/dev/null", &name]);
    bale.ok(["rmi", &name]);
    let loaded = bale.run_with_input(["load"], &archive);
    assert_eq!((loaded.code, loaded.stdout), (0, format!("Loaded image: {name}\n")));
    let said = bale.fails(1, ["load"]);
    assert!(said.contains("holds no images"), "nothing on standard input: {said}");

    let id = bale.run_with_input(["import", "-c", "CMD [\"x\"]", "-m", "why", "-", "made:1"], &layer());
    assert_eq!(id.code, 0, "{id:#?}");
    let shown = bale.ok(["images", "--no-trunc", "--format", "{{.ID}}", "made"]);
    assert_eq!(shown, id.stdout);
}

fn layer() -> Vec<u8> {
    let scratch = bale_testkit::Scratch::new("layer");
    std::fs::create_dir(scratch.join("etc")).expect("mkdir");
    std::fs::write(scratch.join("etc/motd"), "hello").expect("write");
    let mut tar = std::process::Command::new("tar");
    bale_testkit::output_of(tar.arg("-C").arg(scratch.path()).args(["-c", "."])).expect("tar")
}

#[test]
fn push_says_what_was_there() {
    require_root!();
    let Field { registry, bale, name } = field();
    bale.ok(["pull", "-q", &name]);
    let digest = bale_digest(&registry);
    let said = bale.ok(["push", &name]);
    let said = lines(&said);
    assert_eq!(said[0], format!("The push refers to repository [{}/team/busybox]", registry.host()));
    assert!(said[2].ends_with(": Layer already exists"), "{said:?}");
    assert!(said[3].starts_with(&format!("1: digest: {digest} size: ")), "{said:?}");
    let other = format!("{}/other/box:2", registry.host());
    bale.ok(["tag", &name, &other]);
    assert_eq!(bale.ok(["push", "-q", &other]), format!("{other}\n"));
    assert_eq!(registry.manifest("other/box", "2"), registry.manifest("team/busybox", "1"));
}

#[test]
fn interrupted_pulls_leave_nothing() {
    require_root!();
    let Field { registry, bale, name } = field();
    let pause = std::time::Duration::from_millis(20);
    registry.trick("GET", "/blobs/", 9, bale_testkit::registry::Trick::Drip(20_000, pause));
    let mut child = bale.command(["pull", &name]).stdout(std::process::Stdio::piped()).spawn().expect("bale");
    let ingest = bale.root().join("ingest");
    let begun = std::time::Instant::now();
    while std::fs::read_dir(&ingest).map_or(0, Iterator::count) == 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the pull does not begin");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(130));
    assert!(empty(&ingest) && bale.ok(["images", "-q"]).is_empty());
    bale.ok(["pull", "-q", &name]);
}

#[test]
fn export_writes_what_a_container_sees() {
    require_root!();
    let bale = bale!();
    bale.load_busybox();
    bale.ok(["run", "--name", "c1", "busybox", "sh", "-c", "echo mine >/etc/mine; rm /etc/group"]);
    bale.ok(["export", "-o", "c.tar", "c1"]);
    let mut tar = std::process::Command::new("tar");
    let listed = bale_testkit::output_of(tar.arg("-tf").arg(bale.dir().join("c.tar"))).expect("tar");
    let listed = String::from_utf8(listed).expect("names");
    assert!(listed.lines().any(|line| line.trim_start_matches("./") == "etc/mine"), "{listed}");
    assert!(listed.lines().any(|line| line.trim_start_matches("./") == "bin/busybox"), "{listed}");
    assert!(!listed.lines().any(|line| line.ends_with("etc/group")), "{listed}");
    bale.ok(["import", "c.tar", "again"]);
}
