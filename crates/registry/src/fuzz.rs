//! Fuzz targets; `testkit/src/fuzz.rs` says how they are run.

use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::credentials::file::AuthFile;
use crate::url::{Scheme, Url};
use crate::{auth, blob, challenge, dns, manifest, proxy, refusal, rules, text};

/// Headers of a registry: `WWW-Authenticate`, `Link`, `Content-Range`, `Retry-After`, and the URLs in them.
pub fn headers(data: &[u8]) {
    let header = String::from_utf8_lossy(data);
    for found in challenge::parse([header.as_ref()]) {
        if let challenge::Challenge::Bearer { realm, .. } = found {
            url(&realm);
        }
    }
    if let Some(target) = manifest::next_link(&header) {
        url(target);
    }
    if let Some((start, total)) = blob::parse_content_range(&header) {
        assert!(
            header.contains(&start.to_string()) || header.contains('0') || header.contains('+'),
            "{start} {total:?}"
        );
    }
    let _ = refusal::parse_retry_after(&header, UNIX_EPOCH);
    url(&header);
}

/// A URL that a server wrote: it is clean, its words show no query, and a credential never goes further down.
fn url(location: &str) {
    let base = Url::parse("https://registry.example.com:5000/v2/x/blobs/uploads/?a=1").expect("a URL");
    for found in [Url::parse(location), base.join(location)].into_iter().flatten() {
        assert!(found.target().starts_with('/') && found.target().bytes().all(|b| b.is_ascii_graphic()));
        let host = &found.origin().host;
        assert!(!host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)));
        let shown = found.to_string();
        assert_eq!(shown.contains('?'), found.target().contains('?'));
        assert!(!shown.contains('?') || shown.ends_with("?…"), "{shown}");
        let may = rules::realm_may_have_credentials(base.origin(), found.origin(), &[]);
        let name_of_ours = host.trim_end_matches('.').ends_with("example.com");
        assert!(!may || found.origin().scheme == Scheme::Https && name_of_ours, "{shown}");
    }
}

/// Bodies of a registry: error documents and tokens. What is shown holds nothing that moves a cursor.
pub fn bodies(data: &[u8]) {
    if let Some(words) = text::message_of(data) {
        assert!(words.chars().all(|c| !c.is_control()), "{words:?}");
        assert!(words.len() < 64 << 10);
    }
    if let Some(token) = auth::parse_token(data) {
        assert!(!token.text.is_empty());
    }
}

/// Answers of name servers, to a question that was asked.
pub fn dns_answer(data: &[u8]) {
    for (name, kind) in [("registry.example.com", 1), ("a", 28)] {
        let mut message = dns::encode(7, name, kind).expect("a question");
        // Anything after the question that was asked; then anything at all.
        message[2] |= 0x80;
        if let Some((counts, rest)) = data.split_at_checked(7) {
            message[3] = counts[0];
            message[6..12].copy_from_slice(&counts[1..7]);
            message.extend_from_slice(rest);
        }
        for message in [message.as_slice(), data] {
            if let Some(dns::Answer::Addresses(found)) = dns::decode(message, 7, name, kind) {
                assert!(found.len() <= 64 && found.iter().all(|ip| ip.is_ipv4() == (kind == 1)), "{found:?}");
            }
        }
    }
}

/// The machine's own texts: `resolv.conf`, `hosts`, the proxy variables, and docker's `config.json`.
pub fn machine(data: &[u8]) {
    let words = String::from_utf8_lossy(data);
    let config = dns::parse_config(&words);
    assert!(config.servers.len() <= 3, "{config:?}");
    assert!(!dns::candidates("registry.example.com", &config).is_empty());
    let _ = dns::in_hosts(&words, "registry");
    let target = Url::parse("https://10.1.2.3:8443/").expect("a URL");
    let _ = proxy::excludes(&words, target.origin());
    let _ = proxy::parse(&words);
    match AuthFile::parse(data, Path::new("/c/config.json")) {
        Ok(file) => {
            let keys = ["registry.example.com/a", "registry.example.com"].map(str::to_owned);
            if let Err(fault) = file.find(&keys) {
                told_without_secrets(data, &fault.chain());
            }
            let _ = (file.general_helper(), file.helper_for("registry.example.com"));
        }
        Err(fault) => told_without_secrets(data, &fault.chain()),
    }
}

/// Whatever is wrong with the file, no part of it that could be a secret is shown.
fn told_without_secrets(data: &[u8], words: &str) {
    let parts = data.split(|b| !(b.is_ascii_alphanumeric() || b"+/=".contains(b)));
    for part in parts.filter(|part| part.len() >= 12) {
        let part = String::from_utf8_lossy(part);
        assert!(
            !words.contains(part.as_ref()) || "registry.example.com/a".contains(part.as_ref()),
            "{words}"
        );
    }
}

#[cfg(test)]
bale_testkit::fuzz_targets! {
    headers: 20_000,
    bodies: 10_000,
    dns_answer: 20_000,
    machine: 5000,
}
