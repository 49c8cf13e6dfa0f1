use std::os::unix::fs::PermissionsExt;

use bale_layer::pack::{self, PackOptions, pack};
use bale_spec::image::media_type;

use super::*;

/// Packs the directory `tree` as a gzip layer.
fn layer(tree: &Path) -> (Vec<u8>, Descriptor, Digest) {
    let (bytes, packed) = pack(
        &RootFd::open(tree).unwrap(),
        &PackOptions::new(pack::Source::Tree, bale_layer::Compression::Gzip),
        Vec::new(),
    )
    .unwrap();
    (bytes, Descriptor::new(media_type::LAYER_GZIP, packed.blob_digest, packed.blob_size), packed.diff_id)
}

struct Image {
    layers: Vec<(Vec<u8>, Descriptor, Digest)>,
}

impl Image {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/passwd", "redis:x:999:998::/:/bin/sh\n");
        write("bin/true", "");
        let second = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(second.path().join("data")).unwrap();
        Self { layers: vec![layer(tree.path()), layer(second.path())] }
    }

    fn source(&self) -> Source<'_> {
        let origin = Origin {
            reference: Some("docker.io/library/redis:7".to_owned()),
            manifest: Digest::of(b"m"),
            id: Digest::of(b"c"),
            platform: "linux/amd64".to_owned(),
            layers: self.layers.iter().map(|l| l.2).collect(),
        };
        let layers = self.layers.iter().map(|(bytes, blob, diff_id)| Layer {
            blob: blob.clone(),
            diff_id: *diff_id,
            open: Box::new(|| Ok(Box::new(std::io::Cursor::new(bytes.clone())))),
        });
        Source { origin, config_bytes: b"{\"as\": \"is\"}", layers: layers.collect() }
    }
}

fn make(path: &Path, image: &Image) -> Result<()> {
    let mut configure = |accounts: &AccountFiles| {
        assert!(accounts.passwd.as_deref().is_some_and(|p| p.starts_with("redis:")));
        assert_eq!(accounts.group, None);
        Ok(bale_spec::generate::spec(false))
    };
    create(path, image.source(), &mut configure, &mut |_, _| {})
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_bundle_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis");
    make(&path, &Image::new()).unwrap();
    assert_eq!(names(&path), [CONFIG, IMAGE_CONFIG, IMAGE, "rootfs"]);
    assert_eq!(names(dir.path()), ["redis"]);
    assert!(path.join("rootfs/bin/true").is_file() && path.join("rootfs/data").is_dir());
    assert_eq!(std::fs::read(path.join(IMAGE_CONFIG)).unwrap(), b"{\"as\": \"is\"}");
    let origin: Origin = serde_json::from_slice(&std::fs::read(path.join(IMAGE)).unwrap()).unwrap();
    assert_eq!(origin.layers.len(), 2);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(matches!(crate::Bundle::open(&path), Ok(crate::Bundle::Current(_))));
}

#[test]
fn nothing_is_replaced_and_an_empty_directory_may_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new();
    let path = dir.path().join("b");
    std::fs::create_dir(&path).unwrap();
    make(&path, &image).unwrap();
    let fault = make(&path, &image).unwrap_err();
    assert_eq!(fault.kind(), Kind::AlreadyExists);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(make(&file, &image).unwrap_err().kind(), Kind::AlreadyExists);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    assert_eq!(make(&dir.path().join("link"), &image).unwrap_err().kind(), Kind::AlreadyExists);
    let fault = make(&dir.path().join("no/parent"), &image).unwrap_err();
    assert!(fault.kind() == Kind::NotFound && fault.innermost_hint().is_some());
    assert_eq!(names(dir.path()), ["b", "file", "link"]);
}

#[test]
fn a_failure_leaves_nothing_and_dead_makers_are_cleaned_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut image = Image::new();
    let good = image.layers[1].0.clone();
    image.layers[1].0.truncate(good.len() / 2);
    let fault = make(&dir.path().join("b"), &image).unwrap_err();
    assert!(fault.chain().contains("unpack layer sha256:"), "{fault:?}");
    assert_eq!(names(dir.path()), Vec::<String>::new());
    image.layers[1].0 = good;
    let mut refuse = |_: &AccountFiles| Err(Fault::new(Kind::InvalidInput, "no"));
    assert!(create(&dir.path().join("b"), image.source(), &mut refuse, &mut |_, _| {}).is_err());
    assert_eq!(names(dir.path()), Vec::<String>::new());
    // What a killed maker leaves, and the draft of one that lives.
    std::fs::create_dir_all(dir.path().join(".b.bale-1-0/rootfs/x")).unwrap();
    std::fs::create_dir_all(dir.path().join(".b.bale-2-0")).unwrap();
    let alive = std::fs::File::open(dir.path().join(".b.bale-2-0")).unwrap();
    alive.lock().unwrap();
    make(&dir.path().join("b"), &image).unwrap();
    assert_eq!(names(dir.path()), [".b.bale-2-0", "b"]);
}
