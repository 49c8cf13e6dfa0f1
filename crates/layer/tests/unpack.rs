//! The pipeline: what is promised is verified, and whatever fails is told once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs::File;
use std::io::{self, Cursor, Read, Write};

use bale_fault::{Fault, Kind, Result};
use bale_layer::pack::{PackOptions, Source, pack};
use bale_layer::tar::{Entry, Timestamp};
use bale_layer::{Compression, LayerWriter, Limits, Table, UnpackOptions, Unpacked, unpack};
use bale_spec::Digest;
use bale_spec::image::{Descriptor, media_type};
use bale_sys::root::RootFd;
use bale_testkit::require_root;
use common::{
    Form, Jail, Member, archive, device, dir, fifo, file, hard_link, symlink, tree, whiteout, with, xattr,
};

/// Takes everything and keeps nothing but counts.
#[derive(Default)]
struct Counter {
    entries: u64,
    bytes: u64,
    is_finished: bool,
    fail_at: Option<u64>,
}

impl LayerWriter for Counter {
    fn entry(&mut self, _entry: Entry) -> Result<()> {
        self.entries += 1;
        if self.fail_at == Some(self.entries) { Err(Fault::new(Kind::Exhausted, "no space")) } else { Ok(()) }
    }

    fn data(&mut self, _offset: u64, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<Table> {
        self.is_finished = true;
        Ok(Table::default())
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An archive of a few megabytes, so that all buffers go around.
fn big() -> Vec<u8> {
    let mut seed = 1_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (seed >> 24) as u8 % 26)
    };
    let members: Vec<Member> = (0..60)
        .map(|i| file(&format!("f{i}"), &(0..i * 5000).map(|_| noise()).collect::<String>()))
        .collect();
    archive(&members)
}

fn run(blob: &[u8], options: UnpackOptions) -> (Result<Unpacked>, Counter) {
    let mut counter = Counter::default();
    (unpack(blob, options, &mut counter), counter)
}

fn promised(blob: &[u8], tar: &[u8]) -> UnpackOptions {
    UnpackOptions {
        expected_blob: Some(Descriptor::of(media_type::LAYER_GZIP, blob)),
        expected_diff_id: Some(Digest::of(tar)),
        ..UnpackOptions::default()
    }
}

#[test]
fn digests_and_sizes_are_those_of_the_streams() {
    let tar = [big(), b"bytes behind the end".to_vec()].concat();
    let scratch = bale_testkit::Scratch::new("unpack");
    for (blob, compression) in [
        (gzip(&tar), Compression::Gzip),
        (zstd::bulk::compress(&tar, 3).unwrap(), Compression::Zstd),
        (tar.clone(), Compression::None),
    ] {
        let tee = File::create(scratch.join("kept")).unwrap();
        let (unpacked, counter) = run(&blob, UnpackOptions { tee: Some(tee), ..promised(&blob, &tar) });
        let unpacked = unpacked.unwrap();
        assert_eq!((unpacked.blob_digest, unpacked.blob_size), (Digest::of(&blob), blob.len() as u64));
        assert_eq!((unpacked.diff_id, unpacked.tar_size), (Digest::of(&tar), tar.len() as u64));
        assert_eq!((unpacked.compression, unpacked.entries), (compression, 60));
        assert_eq!(unpacked.mislabelled, compression != Compression::Gzip);
        assert_eq!((counter.bytes, counter.is_finished), ((0..60).map(|i| i * 5000).sum(), true));
        assert_eq!(std::fs::read(scratch.join("kept")).unwrap(), blob);
    }
}

#[test]
fn other_digests_are_computed_when_they_are_promised() {
    let tar = archive(&[file("a", "x")]);
    let mut hasher = bale_spec::digest::Hasher::new(bale_spec::digest::Algorithm::Sha512);
    hasher.update(&tar);
    let digest = hasher.finish();
    let expected_blob = Some(Descriptor::new(media_type::LAYER_TAR, digest, tar.len() as u64));
    let options = UnpackOptions { expected_blob, expected_diff_id: Some(digest), ..UnpackOptions::default() };
    let unpacked = run(&tar, options).0.unwrap();
    assert_eq!((unpacked.blob_digest, unpacked.diff_id), (digest, digest));
}

#[test]
fn nothing_damaged_is_taken() {
    let tar = big();
    let blob = gzip(&tar);
    let check = |name: &str, blob: &[u8], options: UnpackOptions, words: &str| {
        let (result, counter) = run(blob, options);
        let fault = result.unwrap_err();
        assert!(fault.chain().contains(words), "{name}: {fault:?} does not say {words:?}");
        assert_eq!(fault.kind(), Kind::Corrupt, "{name}");
        assert!(!counter.is_finished, "{name}");
    };
    for at in [0, 11, blob.len() / 2, blob.len() - 9, blob.len() - 1] {
        let mut flipped = blob.clone();
        flipped[at] ^= 0x10;
        check(&format!("flipped {at}"), &flipped, promised(&blob, &tar), "");
    }
    for length in [0, 1, 100, blob.len() / 2, blob.len() - 1] {
        check(&format!("cut {length}"), &blob[..length], promised(&blob, &tar), "");
    }
    check("longer", &[&blob[..], b"x"].concat(), promised(&blob, &tar), "longer than the");
    check("shorter", &gzip(&tar[..1024]), promised(&blob, &tar), "");
    // The last block is part of no member: only the digest knows.
    let mut tail = tar.clone();
    *tail.last_mut().unwrap() = 1;
    check("diff id", &blob, promised(&blob, &tail), "the uncompressed layer is");
    let expected_blob =
        Some(Descriptor::new(media_type::LAYER_GZIP, Digest::of(b"other"), blob.len() as u64));
    check("blob digest", &blob, UnpackOptions { expected_blob, ..promised(&blob, &tar) }, "was promised");
    check("no archive", &gzip(&[b'x'; 5000]), UnpackOptions::default(), "checksum");
    check("no compression", b"<html>not found</html>", UnpackOptions::default(), "ends too early");
}

#[test]
fn bombs_and_floods_are_stopped() {
    let check = |blob: &[u8], limits: Limits, words: &str| {
        let fault = run(blob, UnpackOptions { limits, ..UnpackOptions::default() }).0.unwrap_err();
        assert_eq!(fault.kind(), Kind::Exhausted, "{fault:?}");
        assert!(fault.words().contains(words), "{fault:?}");
    };
    let zeros = file("zeros", &"\0".repeat(16 << 20));
    let bomb = zstd::bulk::compress(&archive(&[zeros]), 3).unwrap();
    check(&bomb, Limits { ratio_from_bytes: 4 << 20, ..Limits::default() }, "more than 1000 to 1");
    check(&bomb, Limits { tar_bytes: 8 << 20, ..Limits::default() }, "larger than 8388608 bytes");
    check(&gzip(&big()), Limits { blob_bytes: 1000, ..Limits::default() }, "longer than 1000");
    check(&gzip(&big()), Limits { entries: 10, ..Limits::default() }, "more than 10 entries");
    assert!(run(&bomb, UnpackOptions::default()).0.is_ok());
}

/// Gives its bytes in pieces and then fails.
struct Failing(Cursor<Vec<u8>>, Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1000);
        match self.0.read(&mut buffer[..length])? {
            0 => self.1.take().map_or(Ok(0), Err),
            count => Ok(count),
        }
    }
}

#[test]
fn a_failing_side_stops_the_other_and_is_told_once() {
    let blob = gzip(&big());
    let half = blob[..blob.len() / 2].to_vec();
    let fault = Fault::new(Kind::Unavailable, "the registry went away").hint("try again");
    let mut counter = Counter::default();
    let reader = Failing(Cursor::new(half.clone()), Some(io::Error::other(fault)));
    let fault = unpack(reader, UnpackOptions::default(), &mut counter).unwrap_err();
    assert_eq!((fault.kind(), fault.chain().as_str()), (Kind::Unavailable, "the registry went away"));
    assert_eq!(fault.innermost_hint(), Some("try again"));
    let reader = Failing(Cursor::new(half), Some(io::ErrorKind::ConnectionReset.into()));
    let fault = unpack(reader, UnpackOptions::default(), &mut counter).unwrap_err();
    assert_eq!((fault.kind(), fault.words()), (Kind::Unavailable, "read the layer"));
    assert!(!counter.is_finished);
    // A reader that never ends: only the writer's failure can stop it.
    let two = archive(&[file("a", "x"), file("b", "x")]);
    let length = two.len() - 1024;
    let endless = two.into_iter().take(length).chain(std::iter::repeat(0));
    let mut counter = Counter { fail_at: Some(2), ..Counter::default() };
    let fault = unpack(Endless(Box::new(endless)), UnpackOptions::default(), &mut counter).unwrap_err();
    assert_eq!(fault.chain(), "no space");
}

struct Endless(Box<dyn Iterator<Item = u8> + Send>);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.0.next().unwrap_or(0);
        }
        Ok(buffer.len())
    }
}

fn everything() -> Vec<Member> {
    let capability =
        xattr("security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        with(dir("d"), |e| (e.mode, e.uid) = (0o1777, 5)),
        with(file("d/b", "content"), |e| (e.uid, e.gid, e.mode) = (3_000_000, 7, 0o4755)),
        with(file("d/caps", "x"), |e| {
            e.xattrs = vec![capability, xattr("user.b", b"=\n"), xattr("user.a", b"1")];
        }),
        hard_link("d/a", "d/b"),
        symlink("d/link", &"t".repeat(150)),
        fifo("d/fifo"),
        device("d/null", 1, 3),
        with(file(&format!("d/{}/{}", "n".repeat(200), "ö".repeat(100)), "long"), |e| {
            e.mtime = Timestamp { secs: -5, nanos: 1 }
        }),
        file("empty", ""),
    ]
}

#[test]
fn a_tree_goes_there_and_back() {
    require_root!();
    let first = Jail::new();
    first.layers(Form::Flat, &[&everything()]).unwrap();
    let before = bale_testkit::tree::snapshot(first.root()).unwrap();
    let mut diff_ids = Vec::new();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let root = RootFd::open(first.root()).unwrap();
        let options = PackOptions { root_entry: true, ..PackOptions::new(Source::Tree, compression) };
        let (blob, packed) = pack(&root, &options, Vec::new()).unwrap();
        let (again, _) = pack(&root, &options, Vec::new()).unwrap();
        assert!(blob == again, "the same tree gave other bytes");
        let second = Jail::new();
        let mut writer = common::writer(Form::Flat, &second.root());
        let unpacked = unpack(blob.as_slice(), UnpackOptions::default(), writer.as_mut()).unwrap();
        assert_eq!((unpacked.blob_digest, unpacked.blob_size), (packed.blob_digest, packed.blob_size));
        assert_eq!(
            (unpacked.diff_id, unpacked.tar_size, unpacked.entries),
            (packed.diff_id, packed.tar_size, packed.entries)
        );
        assert_eq!(unpacked.compression, compression);
        let after = bale_testkit::tree::snapshot(second.root()).unwrap();
        assert_eq!(bale_testkit::tree::difference(&before, &after), [""; 0]);
        diff_ids.push(packed.diff_id);
    }
    diff_ids.dedup();
    assert_eq!(diff_ids.len(), 1);
    let clamp = PackOptions {
        clamp_mtime: Some(Timestamp { secs: 9, nanos: 0 }),
        ..PackOptions::new(Source::Tree, Compression::None)
    };
    let (blob, _) = pack(&RootFd::open(first.root()).unwrap(), &clamp, Vec::new()).unwrap();
    let third = Jail::new();
    let mut writer = common::writer(Form::Flat, &third.root());
    unpack(blob.as_slice(), UnpackOptions::default(), writer.as_mut()).unwrap();
    let after = bale_testkit::tree::snapshot(third.root()).unwrap();
    assert!(after.iter().filter(|e| e.path != std::path::Path::new(".")).all(|e| e.mtime <= 9));
}

#[test]
fn an_overlay_goes_there_and_back() {
    require_root!();
    let layer = [
        vec![
            dir("o"),
            whiteout("o/.wh..wh..opq"),
            file("o/f", "x"),
            whiteout(".wh.gone"),
            dir("p"),
            whiteout("p/.wh.gone"),
        ],
        everything(),
    ]
    .concat();
    let (first, second) = (Jail::new(), Jail::new());
    first.layers(Form::Overlay, &[&layer]).unwrap();
    let options = PackOptions::new(Source::OverlayUpper, Compression::Gzip);
    let (blob, _) = pack(&RootFd::open(first.root()).unwrap(), &options, Vec::new()).unwrap();
    let mut writer = common::writer(Form::Overlay, &second.root());
    unpack(blob.as_slice(), UnpackOptions::default(), writer.as_mut()).unwrap();
    assert_eq!(tree(&second.root()), tree(&first.root()));
    assert!(tree(&first.root()).contains(&"c p/gone 0:0".to_owned()));
    // A plain tree with such a name would hide something when it is unpacked.
    std::fs::write(second.root().join(".wh.x"), "").unwrap();
    let fault = pack(&RootFd::open(second.root()).unwrap(), &options, Vec::new()).unwrap_err();
    assert_eq!(fault.kind(), Kind::InvalidInput);
}

#[test]
fn the_kernel_reads_the_overlay_as_it_was_meant() {
    require_root!();
    let base = [dir("d"), file("d/low", "l"), dir("keep"), file("keep/low", "l"), file("gone", "l")];
    let upper = [
        dir("d"),
        whiteout("d/.wh..wh..opq"),
        file("d/own", "o"),
        whiteout(".wh.gone"),
        file("keep/own", "o"),
    ];
    let (lower_jail, upper_jail, flat) = (Jail::new(), Jail::new(), Jail::new());
    lower_jail.layers(Form::Overlay, &[&base]).unwrap();
    upper_jail.layers(Form::Overlay, &[&upper]).unwrap();
    flat.layers(Form::Flat, &[&base, &upper]).unwrap();
    let mount = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for dir in [upper_jail.root(), lower_jail.root()] {
        rustix::mount::fsconfig_set_string(&mount, "lowerdir+", dir).unwrap();
    }
    rustix::mount::fsconfig_create(&mount).unwrap();
    let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
    let attributes = rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mounted = rustix::mount::fsmount(&mount, flags, attributes).unwrap();
    let path = format!("/proc/self/fd/{}/.", std::os::fd::AsRawFd::as_raw_fd(&mounted));
    let mut merged = bale_testkit::tree::snapshot(path).unwrap();
    let mut flattened = bale_testkit::tree::snapshot(flat.root()).unwrap();
    for entry in merged.iter_mut().chain(&mut flattened) {
        // `keep` is implied in the upper layer, and roots have no entry here.
        if entry.kind == 'd' {
            (entry.mtime, entry.mtime_nanos) = (0, 0);
            entry.xattrs.clear();
        }
    }
    assert_eq!(bale_testkit::tree::difference(&merged, &flattened), [""; 0]);
}
