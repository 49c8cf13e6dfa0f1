//! What a power cut can leave of a store: files of a pulled image that are empty, cut or full of zeros although their
//! names are there. Another boot is what tells bale of it; here that is another text over the kernel's boot id. A real cut
//! is tried by hand in a virtual machine (docs/decisions/0010).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use bale_testkit::command::finish;
use bale_testkit::image::{self, Layout};
use bale_testkit::registry::Registry;
use bale_testkit::{Bale, Outcome, bale, require_root};
use serde_json::{Value, json};

/// Runs bale in another boot: its boot id is `boot`.
fn in_boot(bale: &Bale, boot: &str, arguments: &[&str]) -> Outcome {
    let id = bale.dir().join(format!("boot-{boot}"));
    fs::write(&id, format!("{boot}\n")).expect("write a boot id");
    let plain = bale.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc"]);
    command.arg("mount --bind \"$1\" /proc/sys/kernel/random/boot_id; shift; exec \"$@\"").arg("sh").arg(id);
    command.arg(plain.get_program()).args(plain.get_args());
    command.env_clear().current_dir(bale.dir()).stdin(std::process::Stdio::null());
    for (name, value) in plain.get_envs() {
        command.env(name, value.expect("a value"));
    }
    finish(&mut command)
}

/// Loads `NAME:1`: busybox below, a file `/greeting` above.
fn load(bale: &Bale, name: &str) {
    let dir = bale.dir().join(name);
    if !dir.exists() {
        make(&dir, name);
    }
    bale.ok(["load", "-q", "-i", &format!("{name}/image.tar")]);
}

fn make(dir: &Path, name: &str) {
    let (tree, above) = (dir.join("tree"), dir.join("above"));
    image::busybox_rootfs(&tree).expect("busybox");
    fs::create_dir_all(&above).expect("a directory");
    fs::write(above.join("greeting"), format!("hello from {name}\n")).expect("write");
    let layout = Layout::create(&dir.join("layout")).expect("layout");
    let layers = [&tree, &above].map(|tree| layout.layer_of_tree(tree).expect("layer"));
    layout
        .image(&format!("docker.io/library/{name}:1"), json!({"Cmd": ["cat", "/greeting"]}), &layers)
        .expect("image");
    layout.archive(&dir.join("image.tar")).expect("archive");
}

/// Finds files below the store by what their path ends with.
fn files(root: &Path, part: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.join(part)];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry")) {
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() && entry.path().ends_with(end) | end.is_empty() {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Keeps the length and loses the content, as a file system does that writes sizes before data.
fn zero(path: &Path) {
    let length = fs::metadata(path).expect("a file").len();
    fs::write(path, vec![0; usize::try_from(length).expect("a size")]).expect("write");
}

/// Damages every file of the unpacked layers as a power cut may.
fn damage_layers(root: &Path) {
    for (number, file) in files(root, "layers", "").into_iter().enumerate() {
        if !file.ends_with("layer.json") {
            if number % 2 == 0 { zero(&file) } else { fs::write(&file, b"").expect("truncate") }
        }
    }
}

#[track_caller]
fn greets(outcome: &Outcome) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "hello from first\n"), "{outcome:#?}");
}

#[test]
fn layers_that_were_not_synced_are_made_anew_in_the_next_boot() {
    require_root!();
    let bale = bale!();
    load(&bale, "first");
    let run = ["run", "--rm", "--net", "none", "first:1"];
    greets(&bale.run(run));
    bale.ok(["create", "--name", "made", "--net", "none", "first:1"]);

    // The files are damaged, the kept blobs are not.
    damage_layers(&bale.root());
    greets(&in_boot(&bale, "b", &run));
    greets(&in_boot(&bale, "b", &run));
    // A container made before looks at its layers again when it is started.
    damage_layers(&bale.root());
    greets(&in_boot(&bale, "c", &["start", "-a", "made"]));

    // The list of a layer's facts was cut short as well.
    damage_layers(&bale.root());
    for facts in files(&bale.root(), "layers", "layer.json") {
        fs::write(facts, b"{\"version\":1,\"diff").expect("write");
    }
    greets(&in_boot(&bale, "d", &run));
    bale.ok(["rm", "made"]);
}

#[test]
fn what_cannot_be_made_anew_is_told_and_never_run() {
    require_root!();
    let bale = bale!();
    load(&bale, "first");
    let run = ["run", "--rm", "--net", "none", "first:1"];
    damage_layers(&bale.root());
    for blob in files(&bale.root(), "blobs", "") {
        if fs::read(&blob).expect("a blob").starts_with(&[0x1f, 0x8b]) {
            zero(&blob);
        }
    }
    let outcome = in_boot(&bale, "b", &run);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (125, ""), "{outcome:#?}");
    assert!(outcome.stderr.contains("is not in the store"), "{outcome:#?}");
    assert!(outcome.stderr.contains("  hint: pull the image again"), "{outcome:#?}");
    // From where it came it comes again.
    let outcome = in_boot(&bale, "b", &["load", "-q", "-i", "first/image.tar"]);
    assert_eq!(outcome.code, 0, "{outcome:#?}");
    greets(&in_boot(&bale, "b", &run));
}

#[test]
fn a_name_or_document_that_was_lost_is_no_image_and_comes_back_with_a_load() {
    require_root!();
    let bale = bale!();
    let run = ["run", "--rm", "--pull", "never", "--net", "none", "first:1"];
    for lost in ["images", "blobs"] {
        load(&bale, "first");
        for file in files(&bale.root(), lost, "") {
            if lost == "images" || fs::read(&file).expect("a file").starts_with(b"{") {
                zero(&file);
            }
        }
        let outcome = in_boot(&bale, lost, &run);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (125, ""), "{lost}: {outcome:#?}");
        assert!(outcome.stderr.contains("  hint: "), "{lost}: {outcome:#?}");
        let outcome = in_boot(&bale, lost, &["load", "-q", "-i", "first/image.tar"]);
        assert_eq!(outcome.code, 0, "{lost}: {outcome:#?}");
        greets(&in_boot(&bale, lost, &run));
    }
}

/// What is found damaged is thrown away, so that the next load or pull brings it again.
#[test]
fn a_damaged_blob_is_not_passed_on_and_not_kept() {
    require_root!();
    let bale = bale!();
    let registry = Registry::start();
    let remote = format!("{}/first:1", registry.host());
    load(&bale, "first");
    bale.ok(["tag", "first:1", &remote]);
    for arguments in [
        &["save", "-o", "out.tar", "first:1"][..],
        &["bundle", "-q", "first:1", "./bundle"],
        &["push", "-q", &remote],
    ] {
        for blob in files(&bale.root(), "blobs", "") {
            if fs::read(&blob).expect("a blob").starts_with(&[0x1f, 0x8b]) {
                zero(&blob);
            }
        }
        let said = bale.fails(1, arguments);
        assert!(said.contains("damaged") && said.contains("  hint: pull the image again"), "{said}");
        assert!(!bale.dir().join("out.tar").exists() && !bale.dir().join("bundle").exists());
        load(&bale, "first");
        // Layers are pushed side by side: the first refusal ends it before the other may have been looked at.
        if arguments[0] == "push" && bale.run(arguments).code != 0 {
            load(&bale, "first");
        }
        bale.ok(arguments);
        let _ = fs::remove_file(bale.dir().join("out.tar"));
        let _ = fs::remove_dir_all(bale.dir().join("bundle"));
    }
}

/// The whole way of a layer that survives: a later load starts `@sync`, which marks it, and the next boot takes it as it is.
#[test]
fn a_later_load_makes_layers_durable_and_the_next_boot_uses_them_as_they_are() {
    require_root!();
    let bale = bale!();
    load(&bale, "first");
    let facts = files(&bale.root(), "layers", "layer.json");
    assert_eq!(facts.len(), 2);
    let durable = |facts: &PathBuf| {
        let facts: Value = serde_json::from_slice(&fs::read(facts).expect("layer.json")).expect("JSON");
        facts["durable"] == true
    };
    assert!(!facts.iter().any(durable), "nothing is synced while somebody waits");
    // Two minutes pass.
    let then = SystemTime::now() - Duration::from_secs(120);
    for facts in &facts {
        fs::File::options().write(true).open(facts).expect("open").set_modified(then).expect("utimensat");
    }
    load(&bale, "second");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !facts.iter().all(durable) {
        assert!(Instant::now() < deadline, "@sync did not mark them");
        std::thread::yield_now();
    }
    let inode = |facts: &PathBuf| fs::metadata(facts.with_file_name("diff")).expect("diff").ino();
    let before: Vec<u64> = facts.iter().map(inode).collect();
    greets(&in_boot(&bale, "b", &["run", "--rm", "--net", "none", "first:1"]));
    assert_eq!(facts.iter().map(inode).collect::<Vec<_>>(), before, "they were not unpacked again");
}
