//! TLS, certificates and proxies.
//!
//! `tls/` has a test CA and a certificate of it for `registry.test`, `localhost` and 127.0.0.1, valid until 2126; the
//! CA's key was thrown away.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bale_registry::{Client, Proxies, Settings};
use bale_testkit::registry::{Duplex, Registry, Trick};
use common::{noise, put_blob, put_image, read, reference, settings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Starts a registry that speaks TLS with the certificate of the test CA.
fn secure_registry() -> Registry {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(file("server.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let wrap = move |stream: TcpStream| {
        let session = rustls::ServerConnection::new(config.clone()).ok()?;
        Some(Box::new(rustls::StreamOwned::new(session, stream)) as Box<dyn Duplex>)
    };
    Registry::start_at("127.0.0.1:0", "https", Arc::new(wrap))
}

fn trusting() -> Settings {
    Settings { ca_files: vec![file("ca.crt")], ..settings() }
}

#[test]
fn a_certificate_of_a_known_authority_is_believed() {
    let registry = secure_registry();
    put_image(&registry, "x", "1");
    let blob = noise(2_000_000);
    let descriptor = put_blob(&registry, "x", &blob);
    let client = Client::new(trusting()).unwrap();
    client.resolve(&reference(&registry, "x:1")).unwrap();
    assert!(read(client.blob(&reference(&registry, "x"), &descriptor, 0).unwrap()).unwrap() == blob);
}

#[test]
fn certs_d_is_read_by_host_and_port() {
    let (registry, dir) = (secure_registry(), tempfile::tempdir().unwrap());
    put_image(&registry, "x", "1");
    let own = dir.path().join(registry.host());
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(file("ca.crt"), own.join("ca.crt")).unwrap();
    let settings = Settings { certs_dirs: vec![dir.path().to_owned()], ..settings() };
    Client::new(settings.clone()).unwrap().resolve(&reference(&registry, "x:1")).unwrap();
    std::fs::write(own.join("ca.crt"), "no certificate").unwrap();
    assert!(Client::new(settings).unwrap().resolve(&reference(&registry, "x:1")).is_err());
}

#[test]
fn a_stranger_is_not_believed_unless_named_insecure() {
    let registry = secure_registry();
    put_image(&registry, "x", "1");
    let fault = Client::new(settings()).unwrap().resolve(&reference(&registry, "x:1")).unwrap_err();
    assert!(fault.chain().contains("the certificate is not trusted: UnknownIssuer"), "{fault:?}");
    assert!(fault.innermost_hint().unwrap().contains("--tls-verify=false"), "{fault:?}");
    assert!(fault.innermost_hint().unwrap().contains("certs.d"), "{fault:?}");
    for name in [registry.host(), "127.0.0.1".to_owned()] {
        let insecure = Settings { insecure: vec![name], ..settings() };
        Client::new(insecure).unwrap().resolve(&reference(&registry, "x:1")).unwrap();
    }
}

#[test]
fn https_is_not_left() {
    let (registry, plain) = (secure_registry(), Registry::start());
    put_image(&plain, "x", "1");
    let client = Client::new(trusting()).unwrap();
    let target = format!("http://{}/v2/x/manifests/1", plain.host());
    registry.trick(
        "GET",
        "/manifests/",
        1,
        Trick::Answer(307, vec![("location".to_owned(), target)], vec![]),
    );
    let fault = client.resolve(&reference(&registry, "x:1")).unwrap_err();
    assert!(fault.chain().contains("it leads from https to http"), "{fault:?}");
    let challenge = format!("Bearer realm=\"http://{}/token\"", plain.host());
    registry.trick(
        "GET",
        "/manifests/",
        1,
        Trick::Answer(401, vec![("www-authenticate".to_owned(), challenge)], vec![]),
    );
    let fault = client.resolve(&reference(&registry, "x:1")).unwrap_err();
    assert!(fault.chain().contains("a token over plain http"), "{fault:?}");
    let location = format!("http://{}/up", plain.host());
    registry.trick(
        "POST",
        "/uploads/",
        1,
        Trick::Answer(202, vec![("location".to_owned(), location)], vec![]),
    );
    let blob = bale_spec::image::Descriptor::of("x/y", b"12345");
    let fault = client
        .push_blob(&reference(&registry, "x"), &blob, &|| common::reader_of(b"12345"), None)
        .unwrap_err();
    assert!(fault.chain().contains("the place for the upload is plain http"), "{fault:?}");
    assert!(plain.seen().is_empty());
}

/// A proxy that tunnels every CONNECT, and answers other requests itself, noting the first line and authorization.
fn proxy(target: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, notes) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
    let own = notes.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (target, notes) = (target.clone(), own.clone());
            std::thread::spawn(move || tunnel(stream, &target, &notes));
        }
    });
    (address, notes)
}

fn tunnel(stream: TcpStream, target: &str, notes: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, stream.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    notes.lock().unwrap().extend(head.clone());
    let mut client = stream;
    if !head.first()?.starts_with("CONNECT") {
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
        return None;
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").ok()?;
    let mut server = TcpStream::connect(target).ok()?;
    let (mut up_from, mut up_to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
    std::io::copy(&mut server, &mut client).ok().map(drop)
}

#[test]
fn a_proxy_makes_the_connection_and_resolves_the_name() {
    let registry = secure_registry();
    put_image(&registry, "x", "1");
    let (address, notes) = proxy(registry.host());
    let proxies = Proxies { https: Some(format!("http://me:pw@{address}")), ..Proxies::default() };
    let client = Client::new(Settings { proxies, ..trusting() }).unwrap();
    client.resolve(&"registry.test/x:1".parse().unwrap()).unwrap();
    let notes = notes.lock().unwrap();
    assert_eq!(notes[0], "CONNECT registry.test:443 HTTP/1.1");
    assert!(notes.contains(&"Proxy-Authorization: Basic bWU6cHc=".to_owned()));
    assert!(registry.seen().iter().all(|seen| seen.header("proxy-authorization").is_none()));
}

#[test]
fn a_proxy_that_fails_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxies = Proxies { https: Some(format!("http://{closed}")), ..Proxies::default() };
    let client = Client::new(Settings { proxies, ..trusting() }).unwrap();
    let fault = client.resolve(&"registry.test/x:1".parse().unwrap()).unwrap_err();
    assert!(fault.chain().contains("use the proxy: connect to 127.0.0.1:"), "{fault:?}");
    // A server's URL with an address inside is refused before the proxy is asked for it.
    let registry = secure_registry();
    let (address, notes) = proxy(registry.host());
    let location = vec![("location".to_owned(), "https://169.254.169.254/latest".to_owned())];
    registry.trick("GET", "/manifests/", 1, Trick::Answer(307, location, vec![]));
    let proxies = Proxies { https: Some(format!("http://{address}")), ..Proxies::default() };
    let fault = Client::new(Settings { proxies, ..trusting() })
        .unwrap()
        .resolve(&"registry.test/x:1".parse().unwrap())
        .unwrap_err();
    assert!(fault.chain().contains("inside the local network"), "{fault:?}");
    assert!(!notes.lock().unwrap().iter().any(|note| note.contains("169.254")));
}

#[test]
fn an_insecure_registry_over_http_goes_whole_to_the_http_proxy() {
    let (address, notes) = proxy(String::new());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // https is tried first, and its proxy refuses.
    let proxies = Proxies { http: Some(address), https: Some(format!("http://{closed}")), none: Vec::new() };
    let settings = Settings { proxies, insecure: vec!["registry.test".to_owned()], ..settings() };
    Client::new(settings).unwrap().resolve(&"registry.test/x:1".parse().unwrap()).unwrap_err();
    let notes = notes.lock().unwrap().clone();
    assert!(notes.contains(&"GET http://registry.test/v2/x/manifests/1 HTTP/1.1".to_owned()), "{notes:?}");
}
