//! Proxies, as curl and Go read them from the environment.

use std::net::IpAddr;

use base64::Engine as _;

use crate::url::{InvalidUrl, Origin, Scheme, Url};

/// Proxies by the scheme of the URL, and the hosts that need none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For https URLs.
    pub https: Option<String>,
    /// For http URLs.
    pub http: Option<String>,
    /// Hosts that are reached directly: `*`, `host`, `.domain`, `host:port`, an address, or `address/bits`.
    pub none: Vec<String>,
}

impl std::fmt::Debug for Proxies {
    /// A proxy's URL may carry a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxies(…)")
    }
}

/// A proxy that is spoken to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    pub origin: Origin,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` and their lower-case forms (those win, as with curl).
    #[must_use]
    pub fn from_env() -> Self {
        let read = |name: &str| {
            let values = [name.to_ascii_lowercase(), name.to_owned()];
            values.iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.trim().is_empty()))
        };
        let none = read("NO_PROXY").unwrap_or_default();
        let none = none
            .split([',', ' '])
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect();
        Self { https: read("HTTPS_PROXY"), http: read("HTTP_PROXY"), none }
    }

    /// Chooses the proxy for `target`. Loopback is always reached directly.
    pub(crate) fn choose(&self, target: &Origin) -> Result<Option<Proxy>, InvalidUrl> {
        let chosen = match target.scheme {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        match chosen {
            Some(text) if !target.is_loopback() && !self.none.iter().any(|entry| excludes(entry, target)) => {
                parse(text).map(Some)
            }
            _ => Ok(None),
        }
    }
}

pub(crate) fn parse(text: &str) -> Result<Proxy, InvalidUrl> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, authority) =
        rest[..end].rsplit_once('@').map_or((None, &rest[..end]), |(user, host)| (Some(user), host));
    if !matches!(scheme, "http" | "https") {
        return Err(InvalidUrl("only http and https proxies are supported"));
    }
    // A proxy without a port: curl takes 1080, Go 80 or 443; Go's way is the one registries' users meet.
    let origin = Url::parse(&format!("{scheme}://{authority}/"))?.origin().clone();
    let authorization = user.map(|user| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let plain = [decode(name).as_slice(), b":", decode(password).as_slice()].concat();
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
    });
    Ok(Proxy { origin, authorization })
}

/// Decodes `%XX`; anything else stays as it is.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex =
            bytes.get(at + 1..at + 3).filter(|h| bytes[at] == b'%' && h.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|h| std::str::from_utf8(h).ok()).and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    out
}

pub(crate) fn excludes(entry: &str, target: &Origin) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some((network, bits)), Some(ip)) = (entry.split_once('/'), target.ip()) {
        return in_network(ip, network, bits);
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, Some(port)),
        _ => (entry, None),
    };
    if port.is_some_and(|p| p.parse() != Ok(target.port)) {
        return false;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return target.ip() == Some(ip);
    }
    let domain = host.trim_start_matches('*').trim_start_matches('.');
    let below = target.host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    // A leading dot means "only below" to Go; curl takes the domain itself too, and so do most users.
    !domain.is_empty() && (target.host == domain || below)
}

fn in_network(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let ((a, a_len), (b, b_len)) = (wide(ip), wide(network));
    a_len == b_len && bits <= a_len && (bits == 0 || (a ^ b) >> (128 - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Url::parse(text).unwrap().origin().clone()
    }

    #[test]
    fn hosts_without_a_proxy() {
        for (entry, url, direct) in [
            ("*", "https://a/", true),
            ("example.com", "https://example.com/", true),
            ("example.com", "https://r.example.com/", true),
            (".example.com", "https://r.example.com/", true),
            ("*.example.com", "https://r.example.com/", true),
            ("example.com", "https://notexample.com/", false),
            ("example.com:5000", "https://example.com/", false),
            ("example.com:5000", "https://example.com:5000/", true),
            ("10.0.0.0/8", "https://10.9.8.7/", true),
            ("10.0.0.0/8", "https://11.9.8.7/", false),
            ("0.0.0.0/0", "https://11.9.8.7/", true),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("::1", "https://[::1]:5000/", true),
            ("10.0.0.1", "https://10.0.0.1:5000/", true),
            ("10.0.0.0/99", "https://10.0.0.1/", false),
            ("", "https://a/", false),
        ] {
            assert_eq!(excludes(entry, &origin(url)), direct, "{entry} {url}");
        }
    }

    #[test]
    fn a_proxy_is_chosen_by_scheme() {
        let proxies = Proxies {
            https: Some("http://us%40er:p%3Aw@proxy:3128".to_owned()),
            http: Some("proxy2:80/".to_owned()),
            none: vec!["direct".to_owned()],
        };
        let chosen =
            |url| proxies.choose(&origin(url)).unwrap().map(|p| (p.origin.host_and_port(), p.authorization));
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("us@er:p:w"));
        assert_eq!(chosen("https://a/"), Some(("proxy:3128".to_owned(), Some(basic))));
        assert_eq!(chosen("http://a/"), Some(("proxy2:80".to_owned(), None)));
        assert_eq!(
            (chosen("https://direct/"), chosen("http://127.0.0.1:1/"), chosen("https://localhost/")),
            (None, None, None)
        );
        assert!(!format!("{proxies:?}").contains("p%3Aw"));
        let socks = Proxies { https: Some("socks5://x".to_owned()), ..Proxies::default() };
        assert!(socks.choose(&origin("https://a/")).is_err());
    }
}
