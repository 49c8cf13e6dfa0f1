//! Pulls from a registry inside the test: what is brought in, what is not brought in twice, and what failures leave.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bale_engine::{Engine, LayerState, Policy};
use bale_fault::Kind;
use bale_spec::Digest;
use bale_spec::image::media_type;
use bale_testkit::registry::{Registry, Trick};
use bale_testkit::{Scratch, require_root};
use common::{Heard, image, layer, noise, nothing_left, options, pull, put};
use serde_json::json;

/// Set in a child process to the name that it is to pull, and to its root.
const CHILD_NAME: &str = "BALE_TEST_PULL_NAME";
const CHILD_ROOT: &str = "BALE_TEST_PULL_ROOT";

/// No test: what the tests below run in processes of their own.
#[test]
fn child() {
    let (Ok(name), Ok(root)) = (std::env::var(CHILD_NAME), std::env::var(CHILD_ROOT)) else { return };
    pull(&Engine::open(root.as_ref()).unwrap(), &name).unwrap();
}

fn in_child(root: &std::path::Path, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD_NAME, name).env(CHILD_ROOT, root);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

#[test]
fn an_index_is_pulled_once_and_then_costs_one_request() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let (base, top) = (layer(&[("etc/a", b"a"), ("etc/b", b"b")]), layer(&[("etc/.wh.a", b""), ("c", b"c")]));
    let made = image(&[&base, &top], json!({"Cmd": ["sh"]}));
    let manifest = put(&registry, "app", "1", &[&base, &top], &made);
    let entry = |digest: &Digest, arch: &str| {
        json!({"mediaType": media_type::MANIFEST, "digest": digest, "size": manifest.size,
               "platform": {"os": "linux", "architecture": arch}})
    };
    let other = Digest::of(b"of another platform");
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests":
        [entry(&other, "s390x"), entry(&manifest.digest, "amd64"), entry(&other, "unknown")]});
    let index = registry.put_manifest("app", "multi", media_type::INDEX, serde_json::to_vec(&index).unwrap());

    let engine = Engine::open(&scratch.join("root")).unwrap();
    let name = format!("{}/app:multi", registry.host());
    let pulled = pull(&engine, &name).unwrap();
    assert_eq!((pulled.digest, pulled.changed), (index, true));
    assert_eq!(pulled.image.manifest_digest, manifest.digest);
    assert_eq!(pulled.image.config_bytes, made.config);
    nothing_left(engine.root());

    let store = engine.store().unwrap();
    let lowers = engine.lowers(&store, &store.hold().unwrap(), &pulled.image).unwrap();
    let found = |path: &str| lowers.iter().find_map(|lower| std::fs::read_to_string(lower.join(path)).ok());
    assert_eq!((found("etc/b").as_deref(), found("c").as_deref()), (Some("b"), Some("c")));

    let before = registry.lines().len();
    let begun = Instant::now();
    let again = pull(&engine, &name).unwrap();
    println!("a pull of what is there took {:?}", begun.elapsed());
    assert!(!again.changed && again.digest == index);
    let asked: Vec<String> = registry.lines().split_off(before);
    let manifests: Vec<&String> = asked.iter().filter(|line| !line.ends_with("/v2/")).collect();
    assert_eq!(manifests.len(), 1, "{asked:?}");

    // The single-platform tag shares everything: no blob is asked for again.
    let heard = Heard::default();
    let single = format!("{}/app:1", registry.host()).parse().unwrap();
    engine.pull(&single, &options(), &mut heard.clone()).unwrap();
    assert!(heard.states().iter().all(|(_, state)| *state == LayerState::Exists), "{:?}", heard.states());
    let blobs =
        registry.lines().iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).count();
    assert_eq!(blobs, 3, "{:?}", registry.lines());
}

#[test]
fn the_policy_decides_who_is_asked() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let base = layer(&[("a", b"a")]);
    put(&registry, "app", "1", &[&base], &image(&[&base], json!({})));
    let engine = Engine::open(&scratch.join("root")).unwrap();
    let name = format!("{}/app:1", registry.host()).parse().unwrap();
    let with = |policy| {
        engine.pull(&name, &bale_engine::PullOptions { policy, ..options() }, &mut bale_engine::Quiet)
    };
    assert_eq!(with(Policy::Never).unwrap_err().kind(), Kind::NotFound);
    assert!(registry.lines().is_empty());
    assert!(with(Policy::Missing).unwrap().changed);
    let before = registry.lines().len();
    assert!(!with(Policy::Missing).unwrap().changed && !with(Policy::Never).unwrap().changed);
    assert_eq!(registry.lines().len(), before);
    let platform = Some("linux/s390x".parse().unwrap());
    let fault =
        engine.pull(&name, &bale_engine::PullOptions { platform, ..options() }, &mut bale_engine::Quiet);
    assert_eq!(fault.unwrap_err().kind(), Kind::NotFound, "the image is for amd64");
}

#[test]
fn a_moved_tag_leaves_a_dangling_image() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let (one, two) = (layer(&[("a", b"1")]), layer(&[("a", b"2")]));
    let old = put(&registry, "app", "1", &[&one], &image(&[&one], json!({})));
    let engine = Engine::open(&scratch.join("root")).unwrap();
    let name = format!("{}/app:1", registry.host());
    pull(&engine, &name).unwrap();
    put(&registry, "app", "1", &[&two], &image(&[&two], json!({})));
    assert!(pull(&engine, &name).unwrap().changed);
    let (list, damaged) = engine.images().unwrap();
    assert!(damaged.is_empty());
    let tags: Vec<Option<String>> =
        list.iter().map(|s| s.reference.as_ref().and_then(|r| r.tag().map(str::to_owned))).collect();
    assert_eq!(list.len(), 2);
    assert!(tags.contains(&None) && tags.contains(&Some("1".to_owned())), "{tags:?}");
    assert!(engine.image(&format!("{}/app@{}", registry.host(), old.digest)).is_ok());
}

#[test]
fn failures_leave_nothing_and_the_next_pull_succeeds() {
    require_root!();
    let (base, top) = (layer(&[("a", b"a")]), layer(&[("big", &noise(300_000, 1))]));
    let blob = Digest::of(&top.blob).hex();
    let cases: Vec<(&str, Trick, Kind)> = vec![
        ("a flipped bit", Trick::Corrupt, Kind::Corrupt),
        ("a blob that does not exist", Trick::Answer(404, vec![], b"{}".to_vec()), Kind::NotFound),
        ("a server that is out of order", Trick::Answer(500, vec![], b"".to_vec()), Kind::Unavailable),
        ("other content", Trick::Answer(200, vec![], base.blob.clone()), Kind::Corrupt),
    ];
    for (what, trick, kind) in cases {
        let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
        put(&registry, "app", "1", &[&base, &top], &image(&[&base, &top], json!({})));
        registry.trick("GET", &blob, 4, trick);
        let engine = Engine::open(&scratch.join("root")).unwrap();
        let name = format!("{}/app:1", registry.host());
        let fault = pull(&engine, &name).map(|_| ()).unwrap_err();
        assert_eq!(fault.kind(), kind, "{what}: {fault:?}");
        assert!(fault.chain().contains(&blob[..12]), "{what}: {}", fault.chain());
        nothing_left(engine.root());
        assert!(engine.images().unwrap().0.is_empty(), "{what}");
        let store = engine.store().unwrap();
        assert!(!store.has_blob(&Digest::of(&top.blob), None), "{what}");
        assert!(store.layer(&Digest::of(&top.tar)).unwrap().is_none(), "{what}");
        // The trick may have been meant for more attempts than were made.
        let fresh = Registry::start();
        put(&fresh, "app", "1", &[&base, &top], &image(&[&base, &top], json!({})));
        pull(&engine, &format!("{}/app:1", fresh.host())).unwrap();
    }
}

#[test]
fn documents_that_do_not_fit_are_refused() {
    require_root!();
    let base = layer(&[("a", b"a")]);
    let good = || image(&[&base], json!({}));
    let with = |change: &dyn Fn(&mut common::Image)| {
        let mut changed = good();
        change(&mut changed);
        changed
    };
    let other = image(&[&base, &base], json!({}));
    let lie = image(&[&layer(&[("a", b"b")])], json!({}));
    let cases = [
        (
            "an artifact",
            with(&|i| i.manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")),
        ),
        (
            "a layer of a strange type",
            with(&|i| i.manifest["layers"][0]["mediaType"] = json!("application/x")),
        ),
        ("more layers than diff ids", with(&|i| i.manifest["layers"] = other.manifest["layers"].clone())),
        (
            "another diff id",
            with(&|i| {
                i.config = lie.config.clone();
                i.manifest["config"] = lie.manifest["config"].clone();
            }),
        ),
        ("a negative size", with(&|i| i.manifest["layers"][0]["size"] = json!(-1))),
        ("schema 1", with(&|i| i.manifest = json!({"schemaVersion": 1, "fsLayers": []}))),
    ];
    for (what, made) in cases {
        let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
        put(&registry, "app", "1", &[&base], &made);
        let engine = Engine::open(&scratch.join("root")).unwrap();
        let fault = pull(&engine, &format!("{}/app:1", registry.host())).map(|_| ()).unwrap_err();
        assert!(
            matches!(fault.kind(), Kind::Corrupt | Kind::Unsupported | Kind::InvalidInput),
            "{what}: {fault:?}"
        );
        nothing_left(engine.root());
        assert!(engine.images().unwrap().0.is_empty(), "{what}");
        let removed = engine.store().unwrap().collect(&|| Ok(Vec::new())).unwrap().unwrap();
        assert!(removed.layers.is_empty(), "{what}: {removed:?}");
    }
}

#[test]
fn two_processes_bring_a_layer_in_once() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let layers: Vec<_> = (0..4).map(|i| layer(&[("f", &noise(400_000, i)[..])])).collect();
    let layers: Vec<&common::Layer> = layers.iter().collect();
    put(&registry, "app", "1", &layers, &image(&layers, json!({})));
    registry.trick("GET", "/blobs/", 3, Trick::Drip(40_000, Duration::from_millis(10)));
    let name = format!("{}/app:1", registry.host());
    let root = scratch.join("root");
    let mut children: Vec<_> = (0..3).map(|_| in_child(&root, &name).spawn().unwrap()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    for layer in &layers {
        let digest = Digest::of(&layer.blob).to_string();
        let count = registry.lines().iter().filter(|l| l.starts_with("GET") && l.contains(&digest)).count();
        assert_eq!(count, 1, "{digest}");
    }
    nothing_left(&root);
}

#[test]
fn a_killed_pull_leaves_nothing_that_the_next_does_not_remove() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let (base, top) = (layer(&[("a", b"a")]), layer(&[("big", &noise(3_000_000, 9))]));
    put(&registry, "app", "1", &[&base, &top], &image(&[&base, &top], json!({})));
    let blob = Digest::of(&top.blob).to_string();
    registry.trick("GET", &blob, 1, Trick::StallAfter(2_000_000));
    let (root, name) = (scratch.join("root"), format!("{}/app:1", registry.host()));
    let mut child = in_child(&root, &name).spawn().unwrap();
    // The kept copy in the ingest directory tells how far it is.
    let is_far = || walk(&root.join("ingest")).iter().any(|size| *size > 1_000_000);
    let begun = Instant::now();
    while !is_far() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the pull does not get on");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(root.join("ingest")).unwrap().count(), 1);
    let engine = Engine::open(&root).unwrap();
    assert!(engine.images().unwrap().0.is_empty());
    nothing_left(&root);
    assert!(engine.store().unwrap().layer(&Digest::of(&top.tar)).unwrap().is_none());
    pull(&engine, &name).unwrap();
    nothing_left(&root);
}

/// Lists the sizes of all files below a directory that others change meanwhile.
fn walk(dir: &std::path::Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let each = entries.flatten().flat_map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => walk(&entry.path()),
        Ok(meta) => vec![meta.len()],
        Err(_) => Vec::new(),
    });
    each.collect()
}

#[test]
fn an_interrupted_pull_cleans_up() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let top = layer(&[("big", &noise(3_000_000, 9))]);
    put(&registry, "app", "1", &[&top], &image(&[&top], json!({})));
    registry.trick("GET", "/blobs/", 9, Trick::Drip(50_000, Duration::from_millis(5)));
    let engine = Engine::open(&scratch.join("root")).unwrap();
    let options = options();
    let cancel = options.cancel.clone();
    /// Interrupts at the first bytes.
    struct AtFirstBytes(std::sync::Arc<std::sync::atomic::AtomicBool>);
    impl bale_engine::Progress for AtFirstBytes {
        fn event(&mut self, event: &bale_engine::Event) {
            if matches!(event, bale_engine::Event::Layer { state: LayerState::Bytes(_), .. }) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
    let name = format!("{}/app:1", registry.host()).parse().unwrap();
    let fault = engine.pull(&name, &options, &mut AtFirstBytes(cancel)).map(|_| ()).unwrap_err();
    assert_eq!(fault.kind(), Kind::Interrupted, "{fault:?}");
    nothing_left(engine.root());
}

#[test]
fn a_layer_that_a_power_cut_damaged_is_unpacked_again() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("pull"));
    let base = layer(&[("a", b"a")]);
    put(&registry, "app", "1", &[&base], &image(&[&base], json!({})));
    let engine = Engine::open(&scratch.join("root")).unwrap();
    let name = format!("{}/app:1", registry.host());
    let image = pull(&engine, &name).unwrap().image;
    let store = engine.store().unwrap();
    let json = store.layer_path(&Digest::of(&base.tar)).parent().unwrap().join("layer.json");
    let lost = || std::fs::write(&json, "").unwrap();
    lost();
    let fixups = engine.root().join("fixups/sha256");
    std::fs::remove_dir_all(&fixups).unwrap();
    std::fs::create_dir(&fixups).unwrap();
    let before = registry.lines().len();
    let lowers = engine.lowers(&store, &store.hold().unwrap(), &image).unwrap();
    assert_eq!(std::fs::read_to_string(lowers.last().unwrap().join("a")).unwrap(), "a");
    assert_eq!(registry.lines().len(), before, "the kept blob was there");
    // The blob is damaged too: the next pull fetches it.
    lost();
    let blob = engine.root().join("blobs/sha256").join(Digest::of(&base.blob).hex());
    let size = std::fs::metadata(&blob).unwrap().len();
    std::fs::write(&blob, vec![0; usize::try_from(size).unwrap()]).unwrap();
    pull(&engine, &name).unwrap();
    assert_eq!(std::fs::read(&blob).unwrap(), base.blob);
}
