//! Who gets which credential: challenges, token services, redirects.
#![allow(clippy::unwrap_used)]

mod common;

use bale_fault::Kind;
use bale_registry::{Client, Credential, CredentialStore};
use bale_testkit::registry::{Guard, Registry, Trick};
use common::{
    BASIC, basic, client, client_with_login, noise, put_blob, put_image, read, reference, settings,
    settings_with,
};

fn bearer(realm: Option<String>, authorization: &str) -> Guard {
    Guard::Bearer { realm, authorization: authorization.to_owned() }
}

#[test]
fn basic_is_sent_when_asked_for_and_kept() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    registry.guard(Guard::Basic(BASIC.to_owned()));
    let fault = client().resolve(&reference(&registry, "x:1")).unwrap_err();
    assert_eq!(fault.kind(), Kind::PermissionDenied);
    assert!(fault.chain().ends_with("authentication required (UNAUTHORIZED)"), "{fault:?}");
    assert!(fault.innermost_hint().unwrap().contains(&format!("bale login {}", registry.host())));
    let client = client_with_login(&registry.host(), dir.path());
    client.resolve(&reference(&registry, "x:1")).unwrap();
    let before = registry.seen().len();
    client.resolve(&reference(&registry, "x:1")).unwrap();
    assert_eq!(registry.seen().len(), before + 1, "the second time it is known");
}

#[test]
fn a_token_is_fetched_once_for_many_threads() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    registry.guard(bearer(None, BASIC));
    let client = client_with_login(&registry.host(), dir.path());
    let reference = reference(&registry, "a/b:1");
    let descriptors: Vec<_> = (0..6).map(|n| put_blob(&registry, "a/b", &noise(1000 + n))).collect();
    std::thread::scope(|scope| {
        for descriptor in &descriptors {
            let (client, reference) = (&client, &reference);
            scope.spawn(move || read(client.blob(reference, descriptor, 0).unwrap()).unwrap());
        }
    });
    let tokens: Vec<_> = registry.lines().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(tokens, ["GET /token?service=test&scope=repository%3Aa%2Fb%3Apull&account=user"]);
}

#[test]
fn a_token_without_a_login_and_a_wrong_login() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    registry.guard(bearer(None, ""));
    client().resolve(&reference(&registry, "x:1")).unwrap();
    registry.guard(bearer(None, "Basic other"));
    let fault =
        client_with_login(&registry.host(), dir.path()).resolve(&reference(&registry, "x:1")).unwrap_err();
    assert!(
        fault.chain().contains("was not accepted")
            && fault.chain().contains("incorrect username or password"),
        "{fault:?}"
    );
    assert!(!fault.chain().contains("scope") && fault.kind() == Kind::PermissionDenied);
}

#[test]
fn a_refresh_token_goes_into_the_form() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    registry.guard(bearer(None, "refresh_token=r%2Ft"));
    let settings = settings_with(&registry.host(), dir.path(), &Credential::Identity("r/t".to_owned()));
    Client::new(settings).unwrap().resolve(&reference(&registry, "x:1")).unwrap();
    let form = registry.seen().into_iter().find(|seen| seen.target == "/token").unwrap();
    let text = String::from_utf8(form.body.clone()).unwrap();
    assert_eq!(
        text,
        "grant_type=refresh_token&client_id=bale&service=test&scope=repository%3Ax%3Apull&refresh_token=r%2Ft"
    );
    assert!(form.header("authorization").is_none());
}

#[test]
fn a_token_that_is_refused_is_renewed_once() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    registry.guard(bearer(None, BASIC));
    let client = client_with_login(&registry.host(), dir.path());
    client.resolve(&reference(&registry, "x:1")).unwrap();
    let challenge = format!("Bearer realm=\"http://{}/token\"", registry.host());
    let refuse = || Trick::Answer(401, vec![("www-authenticate".to_owned(), challenge.clone())], vec![]);
    registry.trick("GET", "/manifests/", 1, refuse());
    // The same text comes back as a token, so there is nothing new to offer.
    assert_eq!(client.resolve(&reference(&registry, "x:1")).unwrap_err().kind(), Kind::PermissionDenied);
    registry.trick("GET", "/manifests/", 99, refuse());
    let before = registry.seen().len();
    client.resolve(&reference(&registry, "x:1")).unwrap_err();
    assert!(registry.seen().len() <= before + 3, "{:?}", registry.lines());
}

#[test]
fn a_token_service_elsewhere_gets_no_credential() {
    let (registry, other, dir) = (Registry::start(), Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    other.guard(bearer(None, ""));
    let elsewhere = format!("http://localhost:{}/token", other.host().rsplit(':').next().unwrap());
    registry.guard(bearer(Some(elsewhere), ""));
    let client = client_with_login(&registry.host(), dir.path());
    client.resolve(&reference(&registry, "x:1")).unwrap();
    let asked = other.seen().pop().unwrap();
    assert!(asked.header("authorization").is_none() && !asked.target.contains("account"), "{asked:?}");
    // Checked on purpose, it must not look as if it had been accepted.
    let fault = client.login(&registry.host(), &basic()).unwrap_err();
    assert!(fault.chain().contains("is elsewhere; your credentials were not sent there"), "{fault:?}");
    assert!(fault.innermost_hint().unwrap().starts_with("--trust-realm localhost:"), "{fault:?}");
    // The user may know better.
    let mut settings = settings_with(&registry.host(), dir.path(), &basic());
    settings.trusted_realms.push("localhost".to_owned());
    Client::new(settings).unwrap().resolve(&reference(&registry, "x:1")).unwrap();
    assert_eq!(other.seen().pop().unwrap().header("authorization"), Some(BASIC));
}

#[test]
fn a_refusal_says_that_a_credential_was_held_back() {
    let (registry, other, dir) = (Registry::start(), Registry::start(), tempfile::tempdir().unwrap());
    other.guard(bearer(None, ""));
    registry.guard(bearer(
        Some(format!("http://localhost:{}/token", other.host().rsplit(':').next().unwrap())),
        "",
    ));
    other.trick("GET", "/token", 1, Trick::Answer(200, vec![], br#"{"token":"not-accepted"}"#.to_vec()));
    let client = client_with_login(&registry.host(), dir.path());
    let fault = client.resolve(&reference(&registry, "x:1")).unwrap_err();
    assert!(fault.innermost_hint().unwrap().contains("is elsewhere"), "{fault:?}");
}

#[test]
fn realms_that_are_no_place_for_a_request() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    for (realm, words) in [
        ("file:///etc/passwd", "neither http nor https"),
        ("http://user:pw@127.0.0.1/", "carries a user name"),
        ("http://169.254.169.254/latest", "inside the local network"),
        ("http://[fd00:ec2::254]/latest", "inside the local network"),
        ("http://0.0.0.0:80/", "inside the local network"),
    ] {
        registry.guard(bearer(Some(realm.to_owned()), ""));
        let fault = client_with_login(&registry.host(), dir.path())
            .resolve(&reference(&registry, "x:1"))
            .unwrap_err();
        assert!(
            fault.chain().contains(words) && fault.kind() == Kind::PermissionDenied,
            "{realm}: {fault:?}"
        );
    }
    for answer in ["", "[]", "{\"token\":\"\"}", "{\"token\":\"a\\nb\"}"] {
        registry.guard(bearer(None, ""));
        registry.trick("GET", "/token", 1, Trick::Answer(200, vec![], answer.as_bytes().to_vec()));
        let fault = client().resolve(&reference(&registry, "x:1")).unwrap_err();
        assert!(fault.chain().contains("token"), "{answer}: {fault:?}");
    }
    registry.trick("GET", "/token", 1, Trick::EndlessBody);
    assert!(
        client().resolve(&reference(&registry, "x:1")).unwrap_err().chain().contains("larger than 1 MiB")
    );
    registry.trick(
        "GET",
        "/token",
        1,
        Trick::Answer(302, vec![("location".to_owned(), "http://127.0.0.1:1/".to_owned())], vec![]),
    );
    assert!(
        client().resolve(&reference(&registry, "x:1")).unwrap_err().chain().contains("must not redirect")
    );
}

fn redirect(to: &str) -> Trick {
    Trick::Answer(307, vec![("location".to_owned(), to.to_owned())], vec![])
}

#[test]
fn a_redirect_to_another_host_loses_the_authorization() {
    let (registry, other, dir) = (Registry::start(), Registry::start(), tempfile::tempdir().unwrap());
    registry.guard(Guard::Basic(BASIC.to_owned()));
    let blob = noise(500_000);
    let descriptor = put_blob(&registry, "x", &blob);
    put_blob(&other, "cdn", &blob);
    let (client, reference) = (client_with_login(&registry.host(), dir.path()), reference(&registry, "x"));
    client.blob_exists(&reference, &descriptor.digest).unwrap();
    let target = format!("http://{}/v2/cdn/blobs/{}?signature=s3cret", other.host(), descriptor.digest);
    registry.trick("GET", "/v2/x/blobs/", 2, redirect(&target));
    // The transfer is resumed through the redirect as well.
    other.trick("GET", "/cdn/", 1, Trick::CutAfter(100_000));
    assert!(read(client.blob(&reference, &descriptor, 0).unwrap()).unwrap() == blob);
    let seen = other.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|s| s.header("authorization").is_none() && s.header("referer").is_none()));
    assert_eq!(seen[1].header("range"), Some("bytes=100000-499999"));
    // There and back again: still without.
    let back = format!("http://{}/v2/x/manifests/2", registry.host());
    registry.trick("GET", "/manifests/1", 1, redirect(&format!("http://{}/v2/back", other.host())));
    other.trick("GET", "/v2/back", 1, redirect(&back));
    client.resolve(&format!("{}/x:1", registry.host()).parse().unwrap()).unwrap_err();
    assert!(
        registry
            .seen()
            .iter()
            .rfind(|s| s.target == "/v2/x/manifests/2")
            .unwrap()
            .header("authorization")
            .is_none()
    );
    // The signature of a signed URL is in no error.
    registry.trick("GET", "/v2/x/blobs/", 1, redirect(&target));
    other.trick("GET", "/cdn/", 1, Trick::Answer(403, vec![], vec![]));
    let fault = client.blob(&reference, &descriptor, 0).map(drop).unwrap_err();
    assert!(fault.chain().contains("?…: 403") && !fault.chain().contains("s3cret"), "{fault:?}");
}

#[test]
fn a_redirect_on_the_same_host_keeps_it() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    registry.guard(Guard::Basic(BASIC.to_owned()));
    let descriptor = put_blob(&registry, "y", b"12345");
    let (client, reference) = (client_with_login(&registry.host(), dir.path()), reference(&registry, "x"));
    registry.trick("GET", "/v2/x/blobs/", 2, redirect(&format!("/v2/y/blobs/{}", descriptor.digest)));
    assert_eq!(read(client.blob(&reference, &descriptor, 0).unwrap()).unwrap(), b"12345");
}

#[test]
fn redirects_that_are_not_followed() {
    let registry = Registry::start();
    put_image(&registry, "x", "1");
    for (location, words) in [
        ("file:///etc/passwd", "redirect refused: the URL is neither http nor https"),
        ("http://a:b@127.0.0.1/", "redirect refused: the URL carries a user name"),
        ("http://169.254.169.254/latest/meta-data", "inside the local network"),
        ("http://127.0.0.1:0/", "redirect refused: the port is out of range"),
        ("/v2/x/manifests/1", "more than 5 redirects"),
    ] {
        let registry = Registry::start();
        registry.trick("GET", "/manifests/", 99, redirect(location));
        let fault = client().resolve(&reference(&registry, "x:1")).unwrap_err();
        assert!(fault.chain().contains(words), "{location}: {fault:?}");
        assert!(registry.lines().len() <= 7);
    }
}

#[test]
fn login_checks_what_it_is_given() {
    let registry = Registry::start();
    let wrong = Credential::Basic { username: "user".to_owned(), password: "wrong".to_owned() };
    for guard in [Guard::Basic(BASIC.to_owned()), bearer(None, BASIC)] {
        registry.guard(guard);
        client().login(&registry.host(), &basic()).unwrap();
        let fault = client().login(&registry.host(), &wrong).unwrap_err();
        assert_eq!(fault.kind(), Kind::PermissionDenied);
        assert!(fault.chain().starts_with("the user name or password for 127.0.0.1:"), "{fault:?}");
        assert!(!format!("{fault:?}").contains("wrong"));
    }
}

#[test]
fn a_damaged_file_of_credentials_matters_only_when_it_is_needed() {
    let (registry, dir) = (Registry::start(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    std::fs::write(dir.path().join("auth.json"), "{").unwrap();
    let settings = bale_registry::Settings {
        credentials: CredentialStore::file(dir.path().join("auth.json")),
        ..settings()
    };
    let client = Client::new(settings).unwrap();
    client.resolve(&reference(&registry, "x:1")).unwrap();
    registry.guard(Guard::Basic(BASIC.to_owned()));
    assert!(
        client.resolve(&reference(&registry, "x:1")).unwrap_err().chain().contains("auth.json: not JSON")
    );
}
