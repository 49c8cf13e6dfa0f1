//! A flat root is what umoci makes, entry by entry.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use bale_layer::tar::Timestamp;
use bale_spec::Digest;
use bale_testkit::peers::Peers;
use bale_testkit::tree::{Entry, difference, snapshot};
use bale_testkit::{Scratch, require_root};
use common::{
    Form, Member, apply, archive, device, dir, fifo, file, hard_link, symlink, whiteout, with, xattr,
};

/// Tells whether umoci is 0.6 or newer: older ones differ in what they do with odd archives.
fn is_new_enough(peers: &Peers) -> bool {
    let said = peers.run("umoci --version", [""; 0]).unwrap();
    let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(0), Some(6))
}

fn blob(layout: &Path, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    std::fs::write(layout.join("blobs/sha256").join(digest.hex()), content).unwrap();
    digest
}

/// Writes an image layout of these layers.
fn layout(layout: &Path, layers: &[Vec<Member>]) {
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
    for layer in layers {
        let tar = archive(layer);
        let digest = blob(layout, &tar);
        diff_ids.push(format!("\"{digest}\""));
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        descriptors
            .push(format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, tar.len()));
    }
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{}]}}"#,
        blob(layout, config.as_bytes()),
        config.len(),
        descriptors.join(",")
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"t"}}}}]}}"#,
        blob(layout, manifest.as_bytes()),
        manifest.len()
    );
    std::fs::write(layout.join("index.json"), index).unwrap();
}

fn images() -> Vec<(&'static str, Vec<Vec<Member>>)> {
    let capability =
        xattr("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let base = vec![
        with(dir("./"), |e| e.mode = 0o711),
        dir("d"),
        file("d/low", "l"),
        dir("d/sub"),
        file("d/sub/low", "l"),
        with(dir("g"), |e| (e.mode, e.gid) = (0o2775, 50)),
        with(dir("x"), |e| e.xattrs = vec![xattr("user.old", b"1")]),
        file("f", "l"),
        dir("usr"),
        dir("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("out", "../../../usr"),
        with(file("cap", "c"), |e| {
            (e.mode, e.uid, e.xattrs) = (0o4755, 9, vec![capability.clone(), xattr("user.x", b"\0\n")]);
        }),
        fifo("fifo"),
        with(device("null", 1, 3), |e| e.mode = 0o666),
        with(file("old", ""), |e| e.mtime = Timestamp { secs: -3, nanos: 500_000_000 }),
        hard_link("hard", "/cap"),
    ];
    let upper = |layer: Vec<Member>| vec![base.clone(), layer];
    let own = || vec![dir("d"), file("d/own", "o"), dir("d/sub"), file("d/sub/own", "o")];
    let all_types = || {
        vec![
            vec![file("t", "f")],
            vec![dir("t"), file("t/x", "x")],
            vec![symlink("t", "f")],
            vec![fifo("t")],
            vec![hard_link("t", "f")],
        ]
    };
    let mut images = vec![
        ("base", vec![base.clone()]),
        ("opaque last", upper([own(), vec![whiteout("d/.wh..wh..opq")]].concat())),
        ("opaque first", upper([vec![dir("d"), whiteout("d/.wh..wh..opq")], own()].concat())),
        ("whiteout and own", upper([vec![whiteout(".wh.d")], own()].concat())),
        ("own and whiteout", upper([own(), vec![whiteout(".wh.d")]].concat())),
        (
            "whiteouts",
            upper(vec![whiteout(".wh.f"), whiteout("d/.wh.sub"), whiteout(".wh.lib"), whiteout("d/.wh.no")]),
        ),
        (
            "through links",
            upper(vec![file("lib/x", "x"), file("out/lib/y", "y"), hard_link("lib/h", "lib/x")]),
        ),
        ("link replaced by directory", upper(vec![dir("lib"), file("lib/x", "x")])),
        (
            "attributes replaced",
            upper(vec![
                with(dir("x"), |e| (e.mode, e.uid) = (0o700, 7)),
                with(dir("d"), |e| e.mtime.secs = 7),
            ]),
        ),
        ("below a group", upper(vec![file("g/f", "x"), dir("g/s"), symlink("g/l", "f")])),
        ("times of parents", upper(vec![file("d/new", "n"), whiteout("usr/.wh.lib")])),
        (
            "three",
            vec![
                base.clone(),
                vec![whiteout(".wh.d"), whiteout(".wh.f")],
                vec![dir("d"), file("d/back", "b"), file("f", "3")],
            ],
        ),
    ];
    for before in all_types() {
        for after in all_types() {
            images.push(("types, one layer", vec![base.clone(), [before.clone(), after.clone()].concat()]));
            images.push(("types, two layers", vec![base.clone(), before.clone(), after]));
        }
    }
    images
}

/// Where whiteouts have emptied a directory, umoci leaves the time at which it did so; here the archive's
/// stays.
fn leave_out_fresh_times(ours: &mut [Entry], theirs: &mut [Entry], start: i64) {
    for entry in theirs.iter_mut().filter(|e| e.kind == 'd' && e.mtime >= start - 1) {
        (entry.mtime, entry.mtime_nanos) = (0, 0);
        for own in ours.iter_mut().filter(|own| own.path == entry.path) {
            (own.mtime, own.mtime_nanos) = (0, 0);
        }
    }
}

#[test]
fn a_flat_root_is_what_umoci_makes() {
    require_root!();
    let Some(peers) = Peers::find() else { return };
    if !is_new_enough(&peers) {
        return bale_testkit::note_skip("needs umoci 0.6 or newer");
    }
    let scratch = Scratch::new("umoci");
    let mut all = Vec::new();
    let start = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
    let images = images();
    for (at, (_, layers)) in images.iter().enumerate() {
        layout(&scratch.join(format!("i{at}")), layers);
    }
    let unpack = "for at in $(seq 0 $2); do umoci unpack --image $1/i$at:t $1/t$at >&2; done";
    peers.run(unpack, [scratch.path().to_str().unwrap(), &(images.len() - 1).to_string()]).unwrap();
    for (at, (name, layers)) in images.iter().enumerate() {
        let (theirs, ours) = (scratch.join(format!("t{at}")), scratch.join(format!("o{at}")));
        std::fs::create_dir(&ours).unwrap();
        for layer in layers {
            apply(Form::Flat, &ours, layer).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
        }
        let (mut ours, mut theirs) = (snapshot(&ours).unwrap(), snapshot(theirs.join("rootfs")).unwrap());
        leave_out_fresh_times(&mut ours, &mut theirs, start);
        let lines = difference(&ours, &theirs);
        if !lines.is_empty() {
            all.push(format!("{at} {name}: {lines:#?}"));
        }
    }
    assert!(all.is_empty(), "- bale, + umoci: {}", all.join("\n"));
}
