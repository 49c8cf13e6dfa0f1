//! Blobs and manifests on their way out.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use bale_fault::{Fault, Kind};
use bale_registry::Pushed;
use bale_spec::Digest;
use bale_spec::image::{Descriptor, media_type};
use bale_testkit::registry::{Guard, Registry, Trick};
use common::{BASIC, client, client_with_login, noise, reader_of, reference};

#[test]
fn a_blob_is_looked_for_mounted_or_uploaded() {
    let registry = Registry::start();
    let (client, reference, bytes) = (client(), reference(&registry, "a/b:1"), noise(1_500_000));
    let blob = Descriptor::of(media_type::LAYER_TAR, &bytes);
    let push = |from| client.push_blob(&reference, &blob, &|| reader_of(&bytes), from).unwrap();
    assert_eq!(push(None), Pushed::Uploaded);
    assert_eq!(push(None), Pushed::Existed);
    assert!(registry.blob("a/b", &blob.digest).unwrap() == bytes);
    let other = format!("{}/c:1", registry.host()).parse().unwrap();
    let mounted = client.push_blob(&other, &blob, &|| panic!("nothing is read"), Some("a/b")).unwrap();
    assert_eq!(mounted, Pushed::Mounted);
    // 202 to the wish for a mount: the upload is open already.
    let third = format!("{}/d:1", registry.host()).parse().unwrap();
    assert_eq!(
        client.push_blob(&third, &blob, &|| reader_of(&bytes), Some("nowhere")).unwrap(),
        Pushed::Uploaded
    );
    assert_eq!(registry.lines().iter().filter(|line| line.starts_with("POST /v2/d/")).count(), 1);
    registry.trick("POST", "/v2/e/", 1, Trick::Answer(403, vec![], vec![]));
    let fourth = format!("{}/e:1", registry.host()).parse().unwrap();
    assert_eq!(
        client.push_blob(&fourth, &blob, &|| reader_of(&bytes), Some("a/b")).unwrap(),
        Pushed::Uploaded
    );
    let empty = Descriptor::of(media_type::LAYER_TAR, b"");
    assert_eq!(client.push_blob(&reference, &empty, &|| reader_of(b""), None).unwrap(), Pushed::Uploaded);
}

#[test]
fn a_manifest_is_stored_and_its_digest_compared() {
    let registry = Registry::start();
    let (client, reference) = (client(), reference(&registry, "a/b:1"));
    let digest = client.push_manifest(&reference, media_type::MANIFEST, b"{}").unwrap();
    assert_eq!(
        (digest, registry.manifest("a/b", "1").as_deref()),
        (Digest::of(b"{}"), Some(b"{}".as_slice()))
    );
    let other = Trick::Header("docker-content-digest".to_owned(), Digest::of(b"x").to_string());
    registry.trick("PUT", "/manifests/", 1, other);
    assert_eq!(
        client.push_manifest(&reference, media_type::MANIFEST, b"{}").unwrap_err().kind(),
        Kind::Corrupt
    );
    registry.trick("PUT", "/manifests/", 2, Trick::Answer(503, vec![], vec![]));
    assert!(client.push_manifest(&reference, media_type::MANIFEST, b"{}").is_ok());
}

#[test]
fn an_upload_that_fails_begins_again_from_the_source() {
    let bytes = noise(1_000_000);
    let blob = Descriptor::of(media_type::LAYER_TAR, &bytes);
    for trick in [Trick::Answer(500, vec![], vec![]), Trick::Hang, Trick::Silence] {
        let registry = Registry::start();
        registry.trick("PUT", "/uploads/", 1, trick.clone());
        let opened = AtomicUsize::new(0);
        let open = || {
            opened.fetch_add(1, Ordering::Relaxed);
            reader_of(&bytes)
        };
        let pushed = client().push_blob(&reference(&registry, "x"), &blob, &open, None);
        assert!(matches!(pushed, Ok(Pushed::Uploaded)), "{trick:?}: {pushed:?}");
        assert_eq!(
            (opened.into_inner(), registry.blob("x", &blob.digest).map(|b| b.len())),
            (2, Some(1_000_000))
        );
    }
}

#[test]
fn a_source_that_is_not_what_was_promised() {
    let registry = Registry::start();
    let (client, reference, bytes) = (client(), reference(&registry, "x"), noise(600_000));
    for promised in [599_999, 600_001, 0] {
        let blob = Descriptor::new(media_type::LAYER_TAR, Digest::of(&bytes), promised);
        let fault = client.push_blob(&reference, &blob, &|| reader_of(&bytes), None).unwrap_err();
        assert!(fault.chain().contains("bytes long any more"), "{promised}: {fault:?}");
    }
    let blob = Descriptor::new(media_type::LAYER_TAR, Digest::of(b"other"), 600_000);
    let fault = client.push_blob(&reference, &blob, &|| reader_of(&bytes), None).unwrap_err();
    assert!(fault.chain().contains("400") && fault.chain().contains("DIGEST_INVALID"), "{fault:?}");
    let open = || Err(Fault::new(Kind::NotFound, "the layer is gone"));
    assert_eq!(client.push_blob(&reference, &blob, &open, None).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn an_upload_elsewhere_gets_no_credential() {
    let (registry, other, dir) = (Registry::start(), Registry::start(), tempfile::tempdir().unwrap());
    registry.guard(Guard::Basic(BASIC.to_owned()));
    let client = client_with_login(&registry.host(), dir.path());
    let (reference, bytes) = (reference(&registry, "x"), noise(10_000));
    let blob = Descriptor::of(media_type::LAYER_TAR, &bytes);
    client.blob_exists(&reference, &blob.digest).unwrap();
    for (location, words) in [
        (format!("http://{}/v2/x/blobs/uploads/7", other.host()), None),
        ("http://169.254.169.254/up".to_owned(), Some("inside the local network")),
        ("ftp://127.0.0.1/".to_owned(), Some("neither http nor https")),
        ("relative-upload".to_owned(), None),
    ] {
        let answer = Trick::Answer(202, vec![("location".to_owned(), location.clone())], vec![]);
        registry.trick("POST", "/uploads/", 1, answer);
        let outcome = client.push_blob(&reference, &blob, &|| reader_of(&bytes), None);
        match words {
            None => assert!(outcome.is_ok(), "{location}: {outcome:?}"),
            Some(words) => {
                assert!(
                    outcome.as_ref().is_err_and(|f| f.chain().contains(words)),
                    "{location}: {outcome:?}"
                );
            }
        }
    }
    assert!(other.seen()[0].header("authorization").is_none() && other.blob("x", &blob.digest).is_some());
    assert!(registry.seen().iter().rfind(|s| s.method == "PUT").unwrap().header("authorization").is_some());
    let nowhere = Trick::Answer(202, vec![], vec![]);
    registry.trick("POST", "/uploads/", 1, nowhere);
    let blob = Descriptor::of(media_type::LAYER_TAR, b"second");
    let fault = client.push_blob(&reference, &blob, &|| reader_of(b"second"), None).unwrap_err();
    assert!(fault.chain().contains("names no place"), "{fault:?}");
}

#[test]
fn a_registry_that_refuses_an_upload_early_is_heard() {
    let registry = Registry::start();
    let bytes = noise(300_000);
    let blob = Descriptor::of(media_type::LAYER_TAR, &bytes);
    let body = br#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#.to_vec();
    registry.trick("PUT", "/uploads/", 1, Trick::Answer(413, vec![], body));
    let fault =
        client().push_blob(&reference(&registry, "x"), &blob, &|| reader_of(&bytes), None).unwrap_err();
    assert!(fault.chain().ends_with("quota exceeded (DENIED)"), "{fault:?}");
}
