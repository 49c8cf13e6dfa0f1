//! Manifests and blobs from a registry that misbehaves.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use bale_fault::Kind;
use bale_registry::{Client, Settings, Timeouts};
use bale_spec::image::{Descriptor, media_type};
use bale_testkit::registry::{Registry, Trick};
use common::{chain, client, noise, put_blob, put_image, read, reference, settings};

#[test]
fn a_tag_is_resolved_and_its_blobs_are_fetched() {
    let registry = Registry::start();
    let manifest = put_image(&registry, "a/b", "1");
    let (client, reference) = (client(), reference(&registry, "a/b:1"));
    let fetched = client.resolve(&reference).unwrap();
    assert_eq!((fetched.bytes, fetched.media_type.as_str()), (manifest.clone(), media_type::MANIFEST));
    let pinned = reference.with_digest(fetched.digest);
    assert_eq!(client.manifest(&pinned).unwrap().bytes, manifest);
    assert_eq!(client.head(&reference).unwrap(), Some(Descriptor::of(media_type::MANIFEST, &manifest)));
    assert_eq!(client.blob_bytes(&reference, &Descriptor::of(media_type::CONFIG, b"{}"), 10).unwrap(), b"{}");
    assert_eq!(client.tags(&reference).unwrap(), ["1"]);
    let blob = noise(3_000_000);
    let descriptor = put_blob(&registry, "a/b", &blob);
    assert!(read(client.blob(&reference, &descriptor, 0).unwrap()).unwrap() == blob);
    assert!(read(client.blob(&reference, &descriptor, 1_234_567).unwrap()).unwrap() == blob[1_234_567..]);
    assert!(read(client.blob(&reference, &descriptor, 3_000_000).unwrap()).unwrap().is_empty());
    assert!(client.blob_exists(&reference, &descriptor.digest).unwrap());
    assert_eq!(registry.connections(), 1, "{:?}", registry.lines());
}

#[test]
fn every_failure_of_a_transfer_is_mended_by_a_range() {
    let blob = noise(2_000_000);
    let n = 700_000;
    for tricks in [
        vec![Trick::CutAfter(n)],
        vec![Trick::CutAfter(0)],
        vec![Trick::CutAfter(n), Trick::IgnoreRange],
        vec![Trick::CutAfter(n), Trick::WrongRange],
        vec![Trick::CutAfter(n), Trick::CutAfter(n), Trick::CutAfter(n)],
        vec![Trick::StallAfter(n)],
        vec![Trick::StallAfter(n), Trick::Silence],
        vec![Trick::Drip(100, Duration::from_millis(50))],
        vec![Trick::Chunked],
        vec![Trick::Hang],
        vec![Trick::Answer(503, vec![], b"later".to_vec())],
        vec![Trick::Answer(429, vec![("retry-after".to_owned(), "0".to_owned())], vec![])],
    ] {
        let registry = Registry::start();
        let descriptor = put_blob(&registry, "x", &blob);
        let (client, reference) = (client(), reference(&registry, "x"));
        tricks.iter().for_each(|trick| registry.trick("GET", "/blobs/", 1, trick.clone()));
        let got = client.blob(&reference, &descriptor, 0).map(read);
        assert!(
            got.as_ref().is_ok_and(|r| r.as_ref().is_ok_and(|b| *b == blob)),
            "{tricks:?}: {:?}",
            got.map(|r| r.map(|b| b.len()))
        );
    }
}

#[test]
fn a_resumed_transfer_names_what_it_has() {
    let (registry, blob) = (Registry::start(), noise(500_000));
    let descriptor = put_blob(&registry, "x", &blob);
    registry.trick("GET", "/blobs/", 1, Trick::CutAfter(200_000));
    assert!(read(client().blob(&reference(&registry, "x"), &descriptor, 0).unwrap()).unwrap() == blob);
    let resumed = registry.seen().pop().unwrap();
    assert_eq!(resumed.header("range"), Some("bytes=200000-499999"));
    assert_eq!(resumed.header("if-range"), Some(format!("\"{}\"", descriptor.digest).as_str()));
}

#[test]
fn lengths_that_lie_are_told() {
    let blob = noise(100_000);
    for (trick, words) in [
        (Trick::ClaimLength(200_000), "longer than the 100000 bytes"),
        (Trick::EndlessBody, "longer than the 100000 bytes"),
        (Trick::CutAfter(10_000), "gave up after 4 attempts"),
        (Trick::StallAfter(10_000), "less than 1 KiB came in 0.3 s"),
        (Trick::Answer(200, vec![], blob[..9].to_vec()), "gave up after 4 attempts"),
        (Trick::EndlessHeaders, "the answer is not HTTP"),
        (Trick::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "the answer is not HTTP"),
        (Trick::Silence, "no answer for 0.3 s"),
    ] {
        let registry = Registry::start();
        let (client, reference) = (client(), reference(&registry, "x"));
        let descriptor = put_blob(&registry, "x", &blob);
        client.blob_exists(&reference, &descriptor.digest).unwrap();
        registry.trick("GET", "/blobs/", 99, trick.clone());
        let failed = match client.blob(&reference, &descriptor, 0) {
            Ok(blob) => chain(&read(blob).map(|b| b.len()).unwrap_err()),
            Err(fault) => fault.chain(),
        };
        assert!(failed.contains(words) && failed.contains("GET http://127.0.0.1"), "{trick:?}: {failed}");
    }
}

#[test]
fn a_shorter_file_is_an_error_in_the_end() {
    let (registry, blob) = (Registry::start(), noise(1000));
    registry.put_blob("x", blob.clone());
    let promised = Descriptor::new(media_type::LAYER_TAR, bale_spec::Digest::of(&blob), 2000);
    let error =
        read(client().blob(&reference(&registry, "x"), &promised, 0).unwrap()).map(|b| b.len()).unwrap_err();
    assert!(chain(&error).contains("416"), "{}", chain(&error));
}

#[test]
fn content_is_held_against_every_digest() {
    let registry = Registry::start();
    put_image(&registry, "x", "1");
    let (client, reference) = (client(), reference(&registry, "x:1"));
    let other = bale_spec::Digest::of(b"other").to_string();
    let header = |name: &str, value: &str| Trick::Header(name.to_owned(), value.to_owned());
    for (trick, kind, words) in [
        (Trick::Corrupt, Kind::Corrupt, "but the registry says sha256:"),
        (header("docker-content-digest", &other), Kind::Corrupt, "but the registry says sha256:"),
        (header("docker-content-digest", "md5:00"), Kind::Corrupt, "is not a digest"),
        (header("content-type", media_type::INDEX), Kind::InvalidInput, "not a manifest that can be used"),
        (header("content-type", media_type::DOCKER_MANIFEST), Kind::InvalidInput, "mediaType"),
        (Trick::ClaimLength(5 << 20), Kind::Corrupt, "larger than"),
        (Trick::EndlessBody, Kind::Corrupt, "larger than"),
    ] {
        registry.trick("GET", "/manifests/", 1, trick.clone());
        let fault = client.resolve(&reference).unwrap_err();
        assert!(fault.kind() == kind && fault.chain().contains(words), "{trick:?}: {fault:?}");
    }
    for (name, value) in [("content-type", "application/json"), ("content-type", ""), ("x", "y")] {
        registry.trick("GET", "/manifests/", 1, header(name, value));
        assert_eq!(client.resolve(&reference).unwrap().media_type, media_type::MANIFEST);
    }
    registry.trick("GET", "/manifests/", 1, Trick::NoHeader("docker-content-digest".to_owned()));
    assert!(client.resolve(&reference).is_ok());
    // By digest, the registry's own word does not count.
    let pinned = reference.with_digest(client.resolve(&reference).unwrap().digest);
    registry.trick("GET", "/manifests/", 1, Trick::Corrupt);
    registry.trick("GET", "/manifests/", 1, Trick::NoHeader("docker-content-digest".to_owned()));
    assert_eq!(client.manifest(&pinned).unwrap_err().kind(), Kind::Corrupt);
    let (config, bytes) = (Descriptor::of(media_type::CONFIG, b"{}"), 10);
    registry.trick("GET", "/blobs/", 1, Trick::Corrupt);
    assert_eq!(client.blob_bytes(&reference, &config, bytes).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn head_may_know_nothing_or_something_else() {
    let registry = Registry::start();
    let manifest = put_image(&registry, "x", "1");
    let (client, reference) = (client(), reference(&registry, "x:1"));
    registry.trick("HEAD", "/manifests/", 1, Trick::Answer(405, vec![], vec![]));
    assert_eq!(client.head(&reference).unwrap(), None);
    registry.trick("HEAD", "/manifests/", 1, Trick::NoHeader("docker-content-digest".to_owned()));
    assert_eq!(client.head(&reference).unwrap(), None);
    let other = bale_spec::Digest::of(b"other");
    registry.trick(
        "HEAD",
        "/manifests/",
        1,
        Trick::Header("docker-content-digest".to_owned(), other.to_string()),
    );
    let said = client.head(&reference).unwrap().unwrap();
    assert_eq!(client.manifest(&reference.with_digest(said.digest)).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(client.resolve(&reference).unwrap().bytes, manifest);
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let answer =
        |status| Trick::Answer(status, vec![], br#"{"errors":[{"code":"X","message":"y"}]}"#.to_vec());
    for (status, kind, requests) in [
        (408, Kind::Unavailable, 4),
        (425, Kind::Unavailable, 4),
        (429, Kind::Unavailable, 4),
        (500, Kind::Unavailable, 4),
        (503, Kind::Unavailable, 4),
        (400, Kind::InvalidInput, 1),
        (403, Kind::PermissionDenied, 1),
        (404, Kind::NotFound, 1),
        (418, Kind::Unavailable, 1),
    ] {
        let registry = Registry::start();
        registry.trick("GET", "/manifests/", 99, answer(status));
        let fault = client().resolve(&reference(&registry, "x:1")).unwrap_err();
        let words = format!("GET http://{}/v2/x/manifests/1: {status}", registry.host());
        assert!(
            fault.kind() == kind && fault.chain().contains(&words) && fault.chain().ends_with("y (X)"),
            "{fault:?}"
        );
        let made = registry.lines().iter().filter(|line| line.contains("/manifests/")).count();
        assert_eq!(made, requests, "{status}");
    }
}

#[test]
fn the_registry_says_when_to_come_back() {
    let registry = Registry::start();
    put_image(&registry, "x", "1");
    let wait = |text: &str| Trick::Answer(429, vec![("retry-after".to_owned(), text.to_owned())], vec![]);
    let (client, reference) = (client(), reference(&registry, "x:1"));
    registry.trick("GET", "/manifests/", 1, wait("1"));
    let start = Instant::now();
    assert!(client.resolve(&reference).is_ok() && start.elapsed() >= Duration::from_secs(1));
    registry.trick("GET", "/manifests/", 1, wait("86400"));
    let fault = client.resolve(&reference).unwrap_err();
    assert!(fault.innermost_hint().unwrap().contains("86400 s"), "{fault:?}");
}

#[test]
fn words_of_a_server_cannot_move_the_cursor() {
    let registry = Registry::start();
    let body = "{\"errors\":[{\"code\":\"X\",\"message\":\"\\u001b[2J\\u009b31m\\u202egone\"}]}";
    registry.trick("GET", "/manifests/", 1, Trick::Answer(404, vec![], body.as_bytes().to_vec()));
    let chain = client().resolve(&reference(&registry, "x:1")).unwrap_err().chain();
    assert!(
        chain.contains("\\u{1b}[2J") && !chain.chars().any(char::is_control) && !chain.contains('\u{202e}'),
        "{chain}"
    );
}

#[test]
fn a_connection_that_went_away_is_no_failure() {
    let registry = Registry::start();
    let manifest = put_image(&registry, "x", "1");
    let mut settings = settings();
    settings.timeouts.attempts = 1;
    let (client, reference) = (Client::new(settings).unwrap(), reference(&registry, "x:1"));
    for _ in 0..3 {
        registry.trick("GET", "/manifests/", 1, Trick::CutAfter(manifest.len()));
        assert!(client.resolve(&reference).is_ok());
    }
    assert!(registry.connections() >= 3);
}

#[test]
fn nobody_there_is_told_at_once() {
    let settings = Settings { timeouts: Timeouts::default(), ..Settings::bare() };
    let start = Instant::now();
    let host = Registry::start().host();
    let fault = Client::new(settings).unwrap().resolve(&format!("{host}/x:1").parse().unwrap()).unwrap_err();
    assert!(fault.chain().ends_with("connection refused") && fault.innermost_hint().is_some(), "{fault:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn many_blobs_at_once_from_many_threads() {
    let registry = Registry::start();
    let (client, reference) = (client(), reference(&registry, "x"));
    let blobs: Vec<_> = (1..9).map(|n| noise(n * 300_000 + n)).collect();
    let descriptors: Vec<_> = blobs.iter().map(|blob| put_blob(&registry, "x", blob)).collect();
    std::thread::scope(|scope| {
        for (blob, descriptor) in blobs.iter().zip(&descriptors) {
            let (client, reference) = (client.clone(), &reference);
            scope.spawn(move || {
                assert!(read(client.blob(reference, descriptor, 0).unwrap()).unwrap() == *blob);
            });
        }
    });
}

#[test]
fn a_slow_reader_is_not_a_stall_and_a_reader_that_leaves_ends_the_transfer() {
    let (registry, blob) = (Registry::start(), noise(8_000_000));
    let descriptor = put_blob(&registry, "x", &blob);
    let (client, reference) = (client(), reference(&registry, "x"));
    let slow = client.blob(&reference, &descriptor, 0).unwrap();
    // Longer than the stall limit: what waits is the server, in its socket.
    std::thread::sleep(Duration::from_millis(700));
    assert!(read(slow).unwrap() == blob);
    assert_eq!(registry.lines().iter().filter(|line| line.contains("/blobs/")).count(), 1);
    drop(client.blob(&reference, &descriptor, 0).unwrap());
    assert!(read(client.blob(&reference, &descriptor, 0).unwrap()).unwrap() == blob);
}
