//! Save, load, import, tag and rmi.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::io::{Cursor, Write};
use std::path::Path;

use bale_engine::{Engine, ImportOptions, LoadOptions, Quiet};
use bale_fault::{Kind, Result};
use bale_layer::tar::{Entry, Kind as Type, Writer};
use bale_record::{Dir, Phase, Record};
use bale_spec::Digest;
use bale_testkit::registry::Registry;
use bale_testkit::{Scratch, require_root};
use common::{image, layer, nothing_left, pull, put};
use serde_json::json;

fn archive(members: &[(&str, Type, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, kind, content) in members {
        let mut entry = Entry::new(*path, *kind);
        if *kind == Type::File {
            entry.size = content.len() as u64;
            writer.append(&entry, &mut &content[..]).unwrap();
        } else {
            entry.link = content.to_vec();
            writer.append(&entry, &mut std::io::empty()).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn load(engine: &Engine, archive: &[u8]) -> Result<Vec<String>> {
    let loaded = engine.load(Cursor::new(archive.to_vec()), &LoadOptions::default(), &mut Quiet)?;
    Ok(loaded.iter().flat_map(|l| l.names.iter().map(ToString::to_string)).collect())
}

fn engine(scratch: &Scratch, name: &str) -> Engine {
    Engine::open(&scratch.join(name)).unwrap()
}

fn content(engine: &Engine, name: &str, path: &str) -> Option<String> {
    let store = engine.store().unwrap();
    let image = engine.image(name).unwrap();
    let lowers = engine.lowers(&store, &store.hold().unwrap(), &image).unwrap();
    lowers.iter().find_map(|lower| std::fs::read_to_string(lower.join(path)).ok())
}

/// The members of one layer image in docker's form, as `docker save` wrote it before version 25.
fn docker_members<'a>(
    config: &'a [u8],
    tar: &'a [u8],
    list: &'a [u8],
) -> Vec<(&'static str, Type, &'a [u8])> {
    vec![
        ("0a/", Type::Directory, b""),
        ("0a/layer.tar", Type::File, tar),
        ("0b/layer.tar", Type::Symlink, b"../0a/layer.tar"),
        ("config.json", Type::File, config),
        ("manifest.json", Type::File, list),
    ]
}

#[test]
fn what_is_saved_is_loaded_as_it_was() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("archives"));
    let (base, top) = (layer(&[("a", b"a")]), layer(&[("b", b"b")]));
    put(&registry, "app", "1", &[&base, &top], &image(&[&base, &top], json!({"Labels": {"x": "y"}})));
    let from = engine(&scratch, "from");
    let name = format!("{}/app:1", registry.host());
    let pulled = pull(&from, &name).unwrap().image;
    from.tag(&name, &"app:again".parse().unwrap()).unwrap();
    let names = [name.clone(), "app:again".to_owned()];
    let saved = from.save(&names, Vec::new()).unwrap();
    assert_eq!(saved, from.save(&names, Vec::new()).unwrap(), "the same images give the same bytes");

    let to = engine(&scratch, "to");
    let mut loaded = load(&to, &saved).unwrap();
    loaded.sort_unstable();
    assert_eq!(loaded, [name.clone(), "docker.io/library/app:again".to_owned()]);
    assert_eq!(to.image(&name).unwrap().manifest_digest, pulled.manifest_digest);
    assert_eq!(content(&to, "app:again", "b").as_deref(), Some("b"));
    nothing_left(to.root());

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&saved).unwrap();
    load(&engine(&scratch, "gzip"), &encoder.finish().unwrap()).unwrap();

    // By id the archive has no name.
    let by_id = from.save(&[pulled.config_digest.to_string()], Vec::new()).unwrap();
    let nameless = engine(&scratch, "nameless");
    assert!(load(&nameless, &by_id).unwrap().is_empty());
    assert_eq!(nameless.image(&pulled.config_digest.short()).unwrap().reference, None);
    assert_eq!(nameless.images().unwrap().0[0].reference, None);
    assert_eq!(nameless.remove_image(&pulled.config_digest.short(), false).unwrap().deleted.len(), 3);
}

#[test]
fn dockers_old_archives_are_loaded() {
    require_root!();
    let scratch = Scratch::new("archives");
    let base = layer(&[("a", b"a")]);
    let made = image(&[&base, &base], json!({"Cmd": ["x"]}));
    let list = json!([{"Config": "config.json", "RepoTags": ["old:1", "old:2"],
        "Layers": ["0a/layer.tar", "0b/layer.tar"]}]);
    let list = serde_json::to_vec(&list).unwrap();
    let engine = engine(&scratch, "root");
    let names = load(&engine, &archive(&docker_members(&made.config, &base.tar, &list))).unwrap();
    assert_eq!(names, ["docker.io/library/old:1", "docker.io/library/old:2"]);
    let image = engine.image("old:2").unwrap();
    assert_eq!((image.config_digest, image.config_bytes), (Digest::of(&made.config), made.config));
    assert_eq!(content(&engine, "old:1", "a").as_deref(), Some("a"));
}

#[test]
fn archives_that_do_not_fit_are_refused_and_leave_nothing() {
    require_root!();
    let scratch = Scratch::new("archives");
    let base = layer(&[("a", b"a")]);
    let made = image(&[&base], json!({}));
    let list = |layer: &str, config: &str, tags: serde_json::Value| {
        serde_json::to_vec(&json!([{"Config": config, "RepoTags": tags, "Layers": [layer]}])).unwrap()
    };
    let good = list("0a/layer.tar", "config.json", json!(null));
    let cases: Vec<(&str, Vec<u8>, Kind)> = vec![
        ("no archive", b"hello".to_vec(), Kind::Corrupt),
        ("a root file system", archive(&[("etc/passwd", Type::File, b"root")]), Kind::InvalidInput),
        (
            "a layer out of the archive",
            {
                let list = list("../../../etc/passwd", "config.json", json!(null));
                archive(&docker_members(&made.config, &base.tar, &list))
            },
            Kind::Corrupt,
        ),
        (
            "a link out of the archive",
            {
                archive(&[
                    ("config.json", Type::File, &made.config),
                    ("0a/layer.tar", Type::Symlink, b"/etc/passwd"),
                    ("manifest.json", Type::File, &good),
                ])
            },
            Kind::Corrupt,
        ),
        (
            "links in a circle",
            {
                archive(&[
                    ("config.json", Type::File, &made.config),
                    ("0a/layer.tar", Type::Symlink, b"layer.tar"),
                    ("manifest.json", Type::File, &good),
                ])
            },
            Kind::Corrupt,
        ),
        (
            "another layer",
            archive(&docker_members(&made.config, &layer(&[("a", b"b")]).tar, &good)),
            Kind::Corrupt,
        ),
        (
            "a config out of the archive",
            {
                let list = list("0a/layer.tar", "/etc/passwd", json!(null));
                archive(&docker_members(&made.config, &base.tar, &list))
            },
            Kind::Corrupt,
        ),
        (
            "a name that is none",
            {
                let list = list("0a/layer.tar", "config.json", json!(["../x"]));
                archive(&docker_members(&made.config, &base.tar, &list))
            },
            Kind::InvalidInput,
        ),
        (
            "an index that lies",
            {
                let digest = Digest::of(b"x");
                let path = format!("blobs/sha256/{}", digest.hex());
                let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest, "size": 1}]});
                let index = serde_json::to_vec(&index).unwrap();
                archive(&[(&path, Type::File, b"y"), ("index.json", Type::File, &index)])
            },
            Kind::Corrupt,
        ),
    ];
    for (what, bytes, kind) in cases {
        let engine = engine(&scratch, "root");
        let fault = load(&engine, &bytes).unwrap_err();
        assert_eq!(fault.kind(), kind, "{what}: {fault:?}");
        nothing_left(engine.root());
        assert!(engine.images().unwrap().0.is_empty(), "{what}");
    }
}

#[test]
fn a_root_file_system_becomes_an_image() {
    require_root!();
    let scratch = Scratch::new("archives");
    let engine = engine(&scratch, "root");
    let options = ImportOptions {
        name: Some("mine:1".parse().unwrap()),
        changes: vec!["CMD [\"sh\"]".to_owned(), "ENV A=b".to_owned()],
        message: Some("by hand".to_owned()),
        platform: None,
        created: Some("2024-01-01T00:00:00Z".to_owned()),
    };
    let plain = layer(&[("etc/motd", b"hello")]);
    let id = engine.import(Cursor::new(plain.tar.clone()), &options).unwrap();
    let image = engine.image("mine:1").unwrap();
    assert_eq!(image.config_digest, id);
    let section = image.config.config.clone().unwrap();
    assert_eq!((section.cmd.unwrap(), section.env), (vec!["sh".to_owned()], vec!["A=b".to_owned()]));
    assert_eq!(image.config.history[0].comment.as_deref(), Some("by hand"));
    assert_eq!(content(&engine, "mine:1", "etc/motd").as_deref(), Some("hello"));
    assert_eq!(engine.import(Cursor::new(plain.tar), &options).unwrap(), id, "the same again is the same");
    // Compressed it is another blob of the same layer.
    let other = ImportOptions { name: None, ..options.clone() };
    engine.import(Cursor::new(plain.blob), &other).unwrap();
    assert_eq!(
        engine.images().unwrap().0.len(),
        1,
        "a nameless image with the id of a named one is not shown"
    );
    let bad = ImportOptions { changes: vec!["RUN ls".to_owned()], ..options };
    assert_eq!(engine.import(Cursor::new(Vec::new()), &bad).unwrap_err().kind(), Kind::InvalidInput);
    nothing_left(engine.root());
}

/// Writes the record of a container that was made from an image.
fn container(engine: &Engine, id: &str, manifest: &Digest) {
    let dir = Dir::reserve(&engine.containers(), id).unwrap();
    let mut record = Record::new(id, Phase::Stopped, "/b", "2024-01-01T00:00:00Z".to_owned());
    record.engine = json!({"image_manifest": manifest});
    dir.lock().unwrap().save(&record).unwrap();
}

fn import(engine: &Engine, name: &str, content: &[u8]) -> Digest {
    let options = ImportOptions {
        name: Some(name.parse().unwrap()),
        created: Some("2024-01-01T00:00:00Z".to_owned()),
        ..ImportOptions::default()
    };
    engine.import(Cursor::new(layer(&[("a", content)]).tar), &options).unwrap()
}

fn blobs(root: &Path) -> usize {
    std::fs::read_dir(root.join("blobs/sha256")).unwrap().count()
}

#[test]
fn rmi_removes_names_then_content_and_never_what_containers_use() {
    require_root!();
    let scratch = Scratch::new("archives");
    let engine = engine(&scratch, "root");
    let id = import(&engine, "web:1", b"web");
    engine.tag("web:1", &"web:2".parse().unwrap()).unwrap();
    engine.tag("web:1", &"other".parse().unwrap()).unwrap();
    assert_eq!(engine.remove_image("nothing", false).unwrap_err().kind(), Kind::NotFound);
    let removed = engine.remove_image("web:1", false).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["web:1".to_owned()], vec![]));
    let fault = engine.remove_image(&id.short(), false).unwrap_err();
    assert!(fault.kind() == Kind::Conflict && fault.chain().contains("several names"), "{fault:?}");

    container(&engine, "c0ffee", &engine.image("web:2").unwrap().manifest_digest);
    engine.remove_image("other", false).unwrap();
    let fault = engine.remove_image("web:2", false).unwrap_err();
    assert!(fault.chain().contains("image is being used by stopped container c0ffee"), "{fault:?}");
    assert_eq!(engine.remove_image(&id.short(), false).unwrap_err().kind(), Kind::Conflict);
    let removed = engine.remove_image("web:2", true).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec!["web:2".to_owned()], vec![]));
    assert_eq!((engine.images().unwrap().0.len(), blobs(engine.root())), (0, 3));

    // With the container gone the next collection frees it.
    std::fs::remove_dir_all(engine.containers()).unwrap();
    import(&engine, "last", b"last");
    assert_eq!(blobs(engine.root()), 6);
    let removed = engine.remove_image("last", false).unwrap();
    assert_eq!(removed.deleted.len(), 3, "the id, and both layers: {removed:?}");
    assert_eq!(blobs(engine.root()), 0);
    assert_eq!(std::fs::read_dir(engine.root().join("layers/sha256")).unwrap().count(), 0);
    nothing_left(engine.root());
}

#[test]
fn images_are_found_by_name_id_and_digest() {
    require_root!();
    let scratch = Scratch::new("archives");
    let engine = engine(&scratch, "root");
    let id = import(&engine, "web:1", b"web");
    import(&engine, "db", b"db");
    let manifest = engine.image("web:1").unwrap().manifest_digest;
    for typed in [
        "docker.io/library/web:1".to_owned(),
        id.to_string(),
        id.hex(),
        id.short(),
        manifest.to_string(),
        format!("web@{manifest}"),
    ] {
        assert_eq!(engine.image(&typed).unwrap_or_else(|e| panic!("{typed}: {e:?}")).config_digest, id);
    }
    for (typed, kind) in [
        ("web", Kind::NotFound),
        ("Web", Kind::InvalidInput),
        ("", Kind::InvalidInput),
        ("sha256:", Kind::InvalidInput),
        ("0000000000000000", Kind::NotFound),
    ] {
        assert_eq!(engine.image(typed).unwrap_err().kind(), kind, "{typed:?}");
    }
    let fault = engine.tag("web:1", &format!("x@{manifest}").parse().unwrap()).unwrap_err();
    assert_eq!(fault.kind(), Kind::InvalidInput);
}

#[test]
fn a_pushed_image_is_pulled_by_others() {
    require_root!();
    let (registry, scratch) = (Registry::start(), Scratch::new("archives"));
    let from = engine(&scratch, "from");
    import(&from, "web:1", b"web");
    let name = format!("{}/web:1", registry.host()).parse().unwrap();
    let push = || {
        let options = bale_engine::PushOptions { registry: common::options().registry, ..Default::default() };
        from.push(&name, &options, &mut Quiet)
    };
    assert_eq!(push().unwrap_err().kind(), Kind::NotFound);
    from.tag("web:1", &name).unwrap();
    let pushed = push().unwrap();
    assert_eq!(push().unwrap(), pushed);
    let uploads =
        registry.lines().iter().filter(|line| line.starts_with("PUT") && line.contains("/blobs/")).count();
    assert_eq!(uploads, 2, "{:?}", registry.lines());
    let to = engine(&scratch, "to");
    assert_eq!(pull(&to, &name.to_string()).unwrap().digest, pushed.digest);
    assert_eq!(content(&to, &name.to_string(), "a").as_deref(), Some("web"));
}
