//! Layers that were unpacked alone and are stacked by overlayfs show the same tree as one unpacked onto the other.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bale_fault::{Kind, Result};
use bale_layer::tar::{Entry, Kind as Type, Timestamp, Writer, Xattr};
use bale_layer::{FlatWriter, OverlayWriter, UnpackOptions, unpack};
use bale_spec::Digest;
use bale_spec::image::{ImageConfig, RootFs};
use bale_store::{Layer, Store};
use bale_sys::mount::FsContext;
use bale_sys::root::RootFd;
use bale_testkit::{require_root, tree};

type Member = (Entry, &'static str);

fn entry(path: &str, kind: Type, seconds: i64) -> Entry {
    Entry { mtime: Timestamp { secs: seconds, nanos: 7 }, ..Entry::new(path, kind) }
}

fn file(path: &str, content: &'static str) -> Member {
    (Entry { size: content.len() as u64, ..entry(path, Type::File, 1000) }, content)
}

fn dir(path: &str, mode: u32) -> Member {
    (Entry { mode, ..entry(path, Type::Directory, 2000) }, "")
}

fn link(path: &str, target: &str) -> Member {
    (Entry { link: target.into(), ..entry(path, Type::HardLink, 1000) }, "")
}

fn symlink(path: &str, target: &str) -> Member {
    (Entry { link: target.into(), mode: 0o777, ..entry(path, Type::Symlink, 1000) }, "")
}

fn with(mut member: Member, change: impl FnOnce(&mut Entry)) -> Member {
    change(&mut member.0);
    member
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in members {
        writer.append(entry, &mut content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// Unpacks the layers, each alone, and returns the lower directories of the image.
fn stack(store: &Store, layers: &[Vec<Member>]) -> Result<Vec<PathBuf>> {
    let hold = store.hold()?;
    let ingest = store.ingest()?;
    let mut diff_ids = Vec::new();
    for members in layers {
        let tar = archive(members);
        let draft = ingest.layer()?;
        let unpacked =
            unpack(tar.as_slice(), UnpackOptions::default(), &mut OverlayWriter::new(draft.root()?)?)?;
        let lock = store.lock_layer(&hold, &unpacked.diff_id)?;
        draft.publish(&lock, &Layer::new(&unpacked))?;
        diff_ids.push(unpacked.diff_id);
    }
    store.prepare(&config(diff_ids))
}

fn config(diff_ids: Vec<Digest>) -> ImageConfig {
    ImageConfig {
        created: None,
        author: None,
        architecture: String::new(),
        variant: None,
        os: String::new(),
        config: None,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        history: Vec::new(),
    }
}

/// Mounts lower directories where nobody else sees it.
fn overlay(lowers: &[PathBuf], beside: &Path) -> OwnedFd {
    let context = FsContext::open(c"overlay").unwrap();
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    for lower in lowers {
        context.set(c"lowerdir+", Some(&text(lower))).unwrap();
    }
    let (upper, work) = (beside.join("upper"), beside.join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    bale_store::adopt_root(&RootFd::open(&lowers[0]).unwrap(), &RootFd::open(&upper).unwrap()).unwrap();
    context.set(c"upperdir", Some(&text(&upper))).unwrap();
    context.set(c"workdir", Some(&text(&work))).unwrap();
    context.create().unwrap();
    context.mount(0).unwrap()
}

fn flat(root: &Path, layers: &[Vec<Member>]) {
    std::fs::create_dir(root).unwrap();
    for members in layers {
        let mut writer = FlatWriter::new(RootFd::open(root).unwrap()).unwrap();
        unpack(archive(members).as_slice(), UnpackOptions::default(), &mut writer).unwrap();
    }
}

/// Attributes of what no layer gives attributes for are nobody's promise.
fn promised(mut entries: Vec<tree::Entry>, has_root: bool) -> Vec<tree::Entry> {
    if !has_root {
        entries.retain(|entry| entry.path != Path::new("."));
    }
    entries
}

fn has_root(layers: &[Vec<Member>]) -> bool {
    layers.iter().flatten().any(|(entry, _)| matches!(entry.path.as_slice(), b"./" | b"/"))
}

fn check(name: &str, layers: &[Vec<Member>]) {
    // A tmpfs may not take extended attributes; the scratch folder is wherever the machine's temporary files are.
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("store")).unwrap();
    let lowers = stack(&store, layers).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
    let mount = overlay(&lowers, scratch.path());
    flat(&scratch.path().join("flat"), layers);
    let stacked = tree::snapshot(format!("/proc/self/fd/{}/.", mount.as_raw_fd())).unwrap();
    let flat = tree::snapshot(scratch.path().join("flat")).unwrap();
    let root = has_root(layers);
    let difference = tree::difference(&promised(flat, root), &promised(stacked, root));
    assert!(difference.is_empty(), "{name}: - flat, + stacked\n{}", difference.join("\n"));
    // Asked again, and with a fresh store, the answer is the same.
    let again = Store::open(&scratch.path().join("store")).unwrap();
    assert_eq!(stack(&again, layers).unwrap(), lowers, "{name}");
}

#[test]
fn stacked_layers_equal_layers_unpacked_in_sequence() {
    require_root!();
    let user = |member: Member| with(member, |e| (e.uid, e.gid) = (1000, 1000));
    let base = || {
        vec![
            dir("./", 0o711),
            dir("tmp", 0o1777),
            user(dir("home", 0o750)),
            with(dir("home/u", 0o700), |e| {
                e.xattrs = vec![Xattr { name: b"user.note".to_vec(), value: b"x".to_vec() }];
            }),
            dir("usr", 0o755),
            dir("usr/lib", 0o755),
            file("usr/lib/a", "a"),
            with(file("usr/lib/b", "b"), |e| e.mode = 0o4755),
            symlink("lib", "usr/lib"),
            file("top", "top"),
        ]
    };
    check("one layer", &[base()]);
    check("implied parents", &[base(), vec![file("tmp/x", "x"), file("home/u/y/z", "z")]]);
    check(
        "implied in two layers",
        &[base(), vec![file("tmp/x", "x")], vec![file("tmp/y", "y"), file("home/f", "f")]],
    );
    check(
        "explicit above implied",
        &[base(), vec![file("tmp/x", "x")], vec![dir("tmp", 0o700), file("tmp/y", "y")]],
    );
    check("implied above explicit above base", &[base(), vec![dir("tmp", 0o711)], vec![file("tmp/y", "y")]]);
    check("whiteouts", &[base(), vec![file("usr/lib/.wh.a", ""), file(".wh.home", "")]]);
    check("implied over whited out", &[base(), vec![file(".wh.home", "")], vec![file("home/new", "n")]]);
    check("opaque", &[base(), vec![dir("home", 0o755), file("home/.wh..wh..opq", ""), file("home/n", "n")]]);
    check("implied opaque", &[base(), vec![file("home/.wh..wh..opq", "")], vec![file("home/n", "n")]]);
    check("directory to file and back", &[base(), vec![file("home", "f")], vec![file("home/again", "g")]]);
    check("a b a", &[base(), vec![file(".wh.top", ""), file("usr/lib/c", "c")], base()]);
    check("no layer has a root", &[vec![dir("a", 0o700)], vec![file("a/b", "b")], vec![file("c/d", "d")]]);
    check("root again", &[base(), vec![dir("./", 0o700)], vec![file("x", "x")]]);
}

#[test]
fn hard_links_to_lower_layers_are_the_same_file() {
    require_root!();
    let base = || {
        vec![
            dir("./", 0o755),
            dir("d", 0o700),
            with(file("d/a", "content"), |e| (e.uid, e.mode) = (7, 0o4711)),
            symlink("s", "d"),
            symlink("sym", "nowhere"),
            (entry("fifo", Type::Fifo, 1000), ""),
        ]
    };
    check("one link", &[base(), vec![link("b", "d/a")]]);
    check("two links", &[base(), vec![link("b", "d/a"), link("d/c", "d/a")]]);
    check("a link to a link", &[base(), vec![link("b", "d/a")], vec![link("c", "b")]]);
    check("through a symbolic link", &[base(), vec![link("b", "s/a")]]);
    check("a new folder", &[base(), vec![dir("n", 0o711), link("n/b", "/d/a")]]);
    check("replaced above", &[base(), vec![link("b", "d/a")], vec![file("b", "other")]]);
    check("whited out above", &[base(), vec![link("b", "d/a")], vec![file(".wh.b", "")]]);
    check("target replaced above", &[base(), vec![link("b", "d/a")], vec![file("d/a", "new")]]);
    check("target whited out above", &[base(), vec![link("b", "d/a")], vec![file("d/.wh.a", "")]]);
    check("a symbolic link and a fifo", &[base(), vec![link("sym2", "sym"), link("fifo2", "fifo")]]);
    check("a later file wins", &[base(), vec![link("b", "d/a"), file("b", "mine")]]);
}

#[test]
fn a_hard_link_to_nothing_is_told() {
    require_root!();
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("store")).unwrap();
    for (lower, upper) in [
        (vec![dir("d", 0o755)], vec![link("b", "a")]),
        (vec![dir("d", 0o755)], vec![link("b", "d")]),
        (vec![dir("d", 0o755)], vec![link("a", "b"), link("b", "a")]),
        // Nothing of these would be seen, and unpacked in sequence they fail.
        (vec![dir("d", 0o755)], vec![link("b", "a"), file("b", "mine")]),
        (vec![dir("d", 0o755)], vec![link("b", "a"), file("a", "too late")]),
        (vec![link("b", "a")], vec![file("b", "above")]),
        (vec![link("d/b", "a")], vec![file(".wh.d", "")]),
    ] {
        let fault = stack(&store, &[lower, upper]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Corrupt, "{fault:?}");
        assert!(fault.chain().contains("hard link"), "{}", fault.chain());
    }
    assert_eq!(std::fs::read_dir(scratch.path().join("store/ingest")).unwrap().count(), 0);
}

#[test]
fn an_image_without_layers_has_an_empty_lower_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(&scratch.path().join("store")).unwrap();
    let lowers = store.prepare(&config(Vec::new())).unwrap();
    assert_eq!(lowers.len(), 1);
    assert_eq!(std::fs::read_dir(&lowers[0]).unwrap().count(), 0);
    let fault = store.prepare(&config(vec![Digest::of(b"absent")])).unwrap_err();
    assert_eq!(fault.kind(), Kind::NotFound);
}
