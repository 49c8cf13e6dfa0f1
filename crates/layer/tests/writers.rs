//! What layers may and may not do to the tree they are written to.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bale_fault::Kind as FaultKind;
use bale_layer::tar::{Kind, Timestamp};
use bale_testkit::require_root;
use common::{Form, Jail, Member, device, dir, fifo, file, hard_link, symlink, whiteout, with, xattr};

const BOTH: [Form; 2] = [Form::Overlay, Form::Flat];

/// What a layer ends in: a tree, or a failure whose words have this part.
enum Ends<'a> {
    Tree(&'a [&'a str]),
    Fails(&'a str),
}

use Ends::{Fails, Tree};

fn check(form: Form, name: &str, layers: &[&[Member]], ends: &Ends<'_>) {
    let jail = Jail::new();
    let outside = bale_testkit::tree::snapshot(jail.outside()).unwrap();
    match (jail.layers(form, layers), ends) {
        (Ok(_), Tree(tree)) => assert_eq!(jail.tree(), *tree, "{name} {form:?}"),
        (Err(fault), Fails(part)) => {
            assert_eq!(fault.kind(), FaultKind::Corrupt, "{name} {form:?}: {fault:?}");
            assert!(fault.chain().contains(part), "{name} {form:?}: {fault:?} does not say {part:?}");
        }
        (Ok(_), Fails(_)) => panic!("{name} {form:?}: nothing failed, {:?}", jail.tree()),
        (Err(fault), Tree(_)) => panic!("{name} {form:?}: {fault:?}"),
    }
    assert_eq!(bale_testkit::tree::snapshot(jail.outside()).unwrap(), outside, "{name} {form:?} has escaped");
}

fn mode(member: Member, mode: u32) -> Member {
    with(member, |e| e.mode = mode)
}

#[test]
fn nothing_leaves_the_root() {
    require_root!();
    let cases: &[(&str, &[Member], Ends<'_>)] = &[
        ("parent component", &[file("../outside/victim", "x")], Fails("\"..\"")),
        ("parent component inside", &[dir("a"), file("a/../b", "x")], Fails("\"..\"")),
        ("absolute", &[file("/a", "x")], Tree(&["f a \"x\""])),
        ("root as link", &[symlink("/", "../outside")], Fails("replace the root")),
        ("root as link, dot", &[symlink("./", "../outside")], Fails("replace the root")),
        ("root as file", &[file(".", "x")], Fails("replace the root")),
        ("root as empty name", &[file("", "x")], Fails("replace the root")),
        ("whiteout of the root", &[whiteout(".wh..")], Fails("no whiteout")),
        ("whiteout of the parent", &[whiteout(".wh...")], Fails("no whiteout")),
        ("whiteout of nothing", &[whiteout("a/.wh.")], Fails("no whiteout")),
        (
            "file through a link up",
            &[symlink("a", "../outside"), file("a/victim", "x")],
            Tree(&["l a -> ../outside", "d outside", "f outside/victim \"x\""]),
        ),
        (
            "file through an absolute link",
            &[symlink("a", "/outside"), file("a/victim", "x")],
            Tree(&["l a -> /outside", "d outside", "f outside/victim \"x\""]),
        ),
        (
            "file through links of links",
            &[symlink("a", "b/../../.."), symlink("b", "/../../outside"), file("a/c", "x")],
            Tree(&["l a -> b/../../..", "l b -> /../../outside", "f c \"x\"", "d outside"]),
        ),
        (
            "links in a circle",
            &[symlink("a", "b"), symlink("b", "a"), file("a/c", "x")],
            Fails("too many symbolic links"),
        ),
        ("a link to itself", &[symlink("a", "a/a"), file("a/c", "x")], Fails("too many symbolic links")),
        ("file over a link", &[symlink("a", "../outside/victim"), file("a", "x")], Tree(&["f a \"x\""])),
        (
            "mode through a link",
            &[symlink("a", "../outside/victim"), mode(file("a", "x"), 0o777)],
            Tree(&["f a \"x\""]),
        ),
        (
            "directory over a link",
            &[symlink("a", "../outside"), mode(dir("a"), 0o777), file("a/b", "x")],
            Tree(&["d a opaque", "f a/b \"x\""]),
        ),
        (
            "hard link through a link",
            &[
                symlink("a", "../outside"),
                dir("outside"),
                file("outside/victim", "mine"),
                hard_link("b", "a/victim"),
            ],
            Tree(&["l a -> ../outside", "f b \"mine\"", "d outside", "h outside/victim = b"]),
        ),
        (
            "hard link to a link, then written",
            &[symlink("a", "../outside/victim"), hard_link("b", "a"), file("b", "x")],
            Tree(&["l a -> ../outside/victim", "f b \"x\""]),
        ),
        (
            "hard link to a link is the link",
            &[symlink("a", "../outside/victim"), mode(hard_link("b", "a"), 0o777)],
            Tree(&["l a -> ../outside/victim", "h b = a"]),
        ),
        ("hard link with parent components", &[hard_link("b", "../outside/victim")], Fails("\"..\"")),
        (
            "hard link, absolute target",
            &[dir("d"), file("d/a", "x"), hard_link("b", "/d/a")],
            Tree(&["f b \"x\"", "d d", "h d/a = b"]),
        ),
        ("hard link to a directory", &[dir("a"), hard_link("b", "a")], Fails("hard link to a directory")),
        ("hard link to the root", &[hard_link("b", "/")], Fails("hard link to the root")),
        ("hard link to itself", &[file("a", "x"), hard_link("a", "a")], Tree(&["f a \"x\""])),
        (
            "hard link twice",
            &[file("a", "x"), hard_link("b", "a"), hard_link("b", "a")],
            Tree(&["f a \"x\"", "h b = a"]),
        ),
        ("below a file", &[file("a", "x"), file("a/b", "y")], Fails("no directory")),
        ("symbolic link to nothing", &[symlink("a", "")], Fails("no target")),
        (
            "whiteout through a link",
            &[symlink("a", "../outside"), whiteout("a/.wh.victim")],
            Tree(&["l a -> ../outside", "d outside", "c outside/victim 0:0"]),
        ),
        ("reserved names", &[file(".wh..wh.aufs", ""), dir(".wh..wh.plnk"), file(".wh.x/y", "")], Tree(&[])),
    ];
    for (name, layer, ends) in cases {
        for form in BOTH {
            let flat: Vec<String>;
            let flat_refs: Vec<&str>;
            // A flat root has neither marks nor whiteouts, nor directories that only a whiteout named.
            let ends = match ends {
                Tree(tree) if form == Form::Flat => {
                    let whiteouts = tree.iter().any(|l| l.contains(" 0:0"));
                    let kept =
                        tree.iter().filter(|l| !(whiteouts && l.contains("outside") && !l.starts_with('l')));
                    flat = kept.map(|l| l.replace(" opaque", "")).collect();
                    flat_refs = flat.iter().map(String::as_str).collect();
                    &Tree(&flat_refs)
                }
                other => other,
            };
            check(form, name, &[layer], ends);
        }
    }
}

fn thing(kind: usize, path: &str, content: &str) -> Vec<Member> {
    match kind {
        0 => vec![file(path, content)],
        1 => vec![dir(path), file(&format!("{path}/{content}"), content)],
        2 => vec![symlink(path, content)],
        _ => vec![fifo(path)],
    }
}

fn shown(kind: usize, content: &str) -> Vec<String> {
    match kind {
        0 => vec![format!("f t {content:?}")],
        1 => vec!["d t".to_owned(), format!("f t/{content} {content:?}")],
        2 => vec![format!("l t -> {content}")],
        _ => vec!["p t".to_owned()],
    }
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_any_type() {
    require_root!();
    for before in 0..4 {
        for after in 0..4 {
            let (first, second) = (thing(before, "t", "one"), thing(after, "t", "two"));
            let mut expected = shown(after, "two");
            if (before, after) == (1, 1) {
                expected.insert(1, "f t/one \"one\"".to_owned());
            }
            let one_layer = [first.clone(), second.clone()].concat();
            for layers in [vec![one_layer.as_slice()], vec![first.as_slice(), second.as_slice()]] {
                let jail = Jail::new();
                jail.layers(Form::Flat, &layers).unwrap();
                assert_eq!(jail.tree(), expected, "{before} {after} flat, {} layers", layers.len());
            }
            let jail = Jail::new();
            jail.layers(Form::Overlay, &[&one_layer]).unwrap();
            if before != 1 && after == 1 {
                expected[0].push_str(" opaque");
            }
            assert_eq!(jail.tree(), expected, "{before} {after} overlay");
        }
    }
}

#[test]
fn whiteouts_hide_lower_layers_and_nothing_of_their_own() {
    require_root!();
    let base: &[Member] =
        &[dir("d"), file("d/low", "l"), dir("d/sub"), file("d/sub/low", "l"), file("f", "l")];
    let opaque = || whiteout("d/.wh..wh..opq");
    let own = || [dir("d"), file("d/own", "o"), dir("d/sub"), file("d/sub/own", "o")].to_vec();
    let kept = ["d d", "f d/own \"o\"", "d d/sub", "f d/sub/own \"o\"", "f f \"l\""];
    let orders: [Vec<Member>; 4] = [
        [vec![dir("d"), opaque()], own()[1..].to_vec()].concat(),
        [own()[..2].to_vec(), vec![opaque()], own()[2..].to_vec()].concat(),
        [own(), vec![opaque()]].concat(),
        // A whiteout of a directory that the same layer has is the same.
        [own(), vec![whiteout(".wh.d")]].concat(),
    ];
    for (at, order) in orders.iter().enumerate() {
        check(Form::Flat, &format!("order {at}"), &[base, order], &Tree(&kept));
        check(
            Form::Overlay,
            &format!("order {at}"),
            &[order],
            &Tree(&["d d opaque", kept[1], kept[2], kept[3]]),
        );
    }
    let before = [vec![whiteout(".wh.d")], own()].concat();
    check(Form::Flat, "whiteout first", &[base, &before], &Tree(&kept));
    check(Form::Overlay, "whiteout first", &[&before], &Tree(&["d d opaque", kept[1], kept[2], kept[3]]));
    for order in [[whiteout(".wh.f"), file("f", "o")], [file("f", "o"), whiteout(".wh.f")]] {
        check(Form::Overlay, "file and whiteout", &[&order], &Tree(&["f f \"o\""]));
        check(Form::Flat, "file and whiteout", &[&base[4..], &order], &Tree(&["f f \"o\""]));
    }
    check(
        Form::Flat,
        "below a whiteout",
        &[base, &[whiteout(".wh.d"), file("d/x", "o")]],
        &Tree(&["d d", "f d/x \"o\"", "f f \"l\""]),
    );
    check(
        Form::Overlay,
        "below a whiteout",
        &[&[whiteout(".wh.d"), file("d/x", "o")]],
        &Tree(&["d d opaque", "f d/x \"o\""]),
    );
    check(
        Form::Flat,
        "of a tree and of nothing",
        &[base, &[whiteout(".wh.d"), whiteout(".wh.no"), whiteout("no/.wh.no")]],
        &Tree(&["f f \"l\""]),
    );
    check(Form::Overlay, "of a file", &[&[whiteout("d/.wh.low")]], &Tree(&["d d", "c d/low 0:0"]));
    check(
        Form::Flat,
        "of a link to a directory",
        &[&[dir("d"), file("d/x", "x"), symlink("l", "d")], &[whiteout(".wh.l")]],
        &Tree(&["d d", "f d/x \"x\""]),
    );
    check(
        Form::Flat,
        "of everything",
        &[base, &[whiteout(".wh..wh..opq"), file("n", "n")]],
        &Tree(&["f n \"n\""]),
    );
    check(
        Form::Flat,
        "file over a lower tree, implied directory over a lower file",
        &[base, &[file("d", "o"), file("f/x", "o")]],
        &Tree(&["f d \"o\"", "d f", "f f/x \"o\""]),
    );
}

#[test]
fn lower_links_are_followed_in_a_flat_root_and_kept_apart_in_a_layer() {
    require_root!();
    let base: &[Member] = &[dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")];
    let upper: &[Member] = &[file("lib/x", "x")];
    check(
        Form::Flat,
        "flat",
        &[base, upper],
        &Tree(&["l lib -> usr/lib", "d usr", "d usr/lib", "f usr/lib/x \"x\""]),
    );
    let jail = Jail::new();
    let unpacked = jail.layers(Form::Overlay, &[upper]).unwrap().remove(0);
    assert_eq!(jail.tree(), ["d lib", "f lib/x \"x\""]);
    assert_eq!(unpacked.table.implied_parents, [b"lib".to_vec()]);
    check(
        Form::Flat,
        "a directory entry replaces the link",
        &[base, &[dir("lib"), file("lib/x", "x")]],
        &Tree(&["d lib", "f lib/x \"x\"", "d usr", "d usr/lib"]),
    );
}

#[test]
fn a_layer_alone_tells_what_it_cannot_know() {
    require_root!();
    let jail = Jail::new();
    let layer: &[Member] = &[
        file("a/b/c", "x"),
        mode(dir("a"), 0o700),
        hard_link("new/link", "/lower/file"),
        file("over", "gone"),
        hard_link("over", "lower/file"),
        device("fake", 0, 0),
        whiteout(".wh..wh..opq"),
        with(file("orders", ""), |e| {
            e.xattrs = vec![
                xattr("trusted.overlay.redirect", b"/"),
                xattr("user.overlay.opaque", b"y"),
                xattr("user.fine", b"1"),
                xattr("security.selinux", b"label"),
            ];
        }),
    ];
    let table = jail.layers(Form::Overlay, &[layer]).unwrap().remove(0).table;
    assert_eq!(table.implied_parents, [b"a/b".to_vec(), b"new".to_vec()]);
    let links: Vec<_> =
        table.deferred_links.iter().map(|l| (l.path.as_slice(), l.target.as_slice())).collect();
    assert_eq!(links, [(&b"new/link"[..], &b"/lower/file"[..]), (b"over", b"lower/file")]);
    assert!(table.opaque_root && !table.has_root_entry);
    assert_eq!(table.warnings.count, 3, "{:?}", table.warnings);
    assert_eq!(jail.tree(), ["d a", "d a/b", "f a/b/c \"x\"", "d new", "f orders \"\""]);
    let snapshot = bale_testkit::tree::snapshot(jail.root()).unwrap();
    let orders = snapshot.iter().find(|e| e.path == Path::new("orders")).unwrap();
    assert_eq!(orders.xattrs, [("user.fine".to_owned(), b"1".to_vec())]);
    let root = &snapshot[0];
    assert_eq!((root.mode, root.mtime), (0o755, 0));
    check(Form::Flat, "hard link to nothing", &[&[hard_link("a", "b")]], &Fails("does not exist"));
}

#[test]
fn attributes_are_those_of_the_archive() {
    require_root!();
    let owned = |member: Member, mode: u32| {
        with(member, |e| {
            (e.uid, e.gid, e.mode, e.mtime) = (1000, 50, mode, Timestamp { secs: -1, nanos: 999_999_999 });
        })
    };
    let capability =
        xattr("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let layer: &[Member] = &[
        owned(dir("d"), 0o3770),
        owned(file("d/suid", "x"), 0o6755),
        with(owned(file("d/cap", "x"), 0o700), |e| {
            e.xattrs = vec![capability.clone(), xattr("user.x", b"\0\xff")];
        }),
        owned(fifo("d/fifo"), 0o666),
        owned(device("d/null", 1, 3), 0o1666),
        owned(symlink("d/link", "nowhere"), 0o777),
        file("d/sub/root", "in a directory with a group"),
        mode(dir("."), 0o711),
        with(dir("far"), |e| e.mtime.secs = 1 << 40),
        with(file("future", ""), |e| e.mtime.secs = 1 << 60),
    ];
    for form in BOTH {
        let jail = Jail::new();
        assert!(jail.layers(form, &[layer]).unwrap()[0].table.has_root_entry);
        let snapshot = bale_testkit::tree::snapshot(jail.root()).unwrap();
        let of = |path: &str| snapshot.iter().find(|e| e.path == Path::new(path)).unwrap();
        for (path, mode) in [
            ("d", 0o3770),
            ("d/suid", 0o6755),
            ("d/cap", 0o700),
            ("d/fifo", 0o666),
            ("d/null", 0o1666),
            ("d/link", 0o777),
        ] {
            let e = of(path);
            assert_eq!(
                (e.mode, e.uid, e.gid, e.mtime, e.mtime_nanos),
                (mode, 1000, 50, -1, 999_999_999),
                "{path} {form:?}"
            );
        }
        assert_eq!(
            of("d/cap").xattrs,
            [
                ("security.capability".to_owned(), capability.value.clone()),
                ("user.x".to_owned(), b"\0\xff".to_vec())
            ]
        );
        assert_eq!((of("d/sub").uid, of("d/sub").gid, of("d/sub").mode), (0, 0, 0o755), "{form:?}");
        assert_eq!((of("d/sub/root").uid, of("d/sub/root").gid, of(".").mode), (0, 0, 0o711), "{form:?}");
        assert_eq!(of("d/sub/root").mtime, common::TIME);
    }
}

#[test]
fn a_second_layer_inherits_nothing_and_puts_times_back() {
    require_root!();
    let group = |member: Member| with(member, |e| (e.gid, e.mode) = (50, 0o2775));
    let base: &[Member] = &[
        group(dir("g")),
        with(dir("x"), |e| e.xattrs = vec![xattr("user.old", b"1")]),
        dir("y"),
        file("y/gone", ""),
    ];
    let upper: &[Member] = &[
        file("g/f", "x"),
        dir("g/sub"),
        symlink("g/l", "f"),
        with(dir("x"), |e| (e.mode, e.uid) = (0o700, 7)),
        whiteout("y/.wh.gone"),
    ];
    let jail = Jail::new();
    jail.layers(Form::Flat, &[base, upper]).unwrap();
    let snapshot = bale_testkit::tree::snapshot(jail.root()).unwrap();
    let of = |path: &str| snapshot.iter().find(|e| e.path == Path::new(path)).unwrap();
    assert_eq!((of("g").gid, of("g").mode, of("g").mtime), (50, 0o2775, common::TIME));
    for path in ["g/f", "g/sub", "g/l"] {
        assert_eq!((of(path).gid, of(path).mode & 0o7000), (0, 0), "{path}");
    }
    assert_eq!((of("x").mode, of("x").uid, of("x").xattrs.len()), (0o700, 7, 0));
    assert_eq!((of("y").mtime, of("y").mtime_nanos), (common::TIME, 5));
}

#[test]
fn deep_and_wide_trees_need_few_descriptors() {
    require_root!();
    let deep = "d/".repeat(1500);
    let layer: &[Member] =
        &[file(&format!("{deep}f"), "x"), file("d/g", "y"), file(&format!("{deep}h"), "z")];
    for form in BOTH {
        let jail = Jail::new();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        jail.layers(form, &[layer]).unwrap();
        // Other tests of this process open some too.
        assert!(open() < before + 60);
        assert_eq!(std::fs::metadata(jail.root().join("d/g")).unwrap().size(), 1);
        if form == Form::Flat {
            jail.layers(form, &[&[whiteout(".wh.d")]]).unwrap();
            assert!(jail.tree().is_empty());
        }
    }
    let long = with(file("x", ""), |e| e.path = [b"d/".repeat(2047), b"abc".to_vec()].concat());
    let fault = Jail::new().layers(Form::Overlay, &[&[long]]).unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Exhausted);
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    require_root!();
    // `tar` writes PAX 1.0: the map stands in front of the data.
    let scratch = bale_testkit::Scratch::new("sparse");
    let big = std::fs::File::create(scratch.join("big")).unwrap();
    big.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_at(&big, b"middle", 1 << 39).unwrap();
    for format in ["gnu", "pax"] {
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(scratch.path()).args(["-S", "--format", format, "-cf", "-", "big"]);
        let archive = bale_testkit::output_of(&mut tar).unwrap();
        let jail = Jail::new();
        let mut writer = common::writer(Form::Flat, &jail.root());
        bale_layer::unpack(archive.as_slice(), bale_layer::UnpackOptions::default(), writer.as_mut())
            .unwrap();
        let meta = std::fs::metadata(jail.root().join("big")).unwrap();
        assert_eq!((meta.size(), meta.blocks() <= 16), (1 << 40, true), "{format}");
        let (mut read, file) = ([0; 6], std::fs::File::open(jail.root().join("big")).unwrap());
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 1 << 39).unwrap();
        assert_eq!(&read, b"middle");
    }
}

#[test]
fn names_differ_by_case_and_bytes() {
    require_root!();
    let odd = with(file("x", "3"), |e| e.path = b"\xff\xfe\n".to_vec());
    let layer: &[Member] =
        &[file("a", "1"), file("A", "2"), odd, with(dir("e"), |e| e.kind = Kind::Directory)];
    for form in BOTH {
        let jail = Jail::new();
        jail.layers(form, &[layer]).unwrap();
        assert_eq!(std::fs::read_dir(jail.root()).unwrap().count(), 4);
    }
}
