//! URLs that servers may have written: http and https only, no user info, queries never shown.

use std::fmt;
use std::net::IpAddr;

/// The longest URL that is followed, in bytes; signed URLs of object stores have about 2 KiB.
const LIMIT_BYTES: usize = 16 << 10;

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port: what decides who may see a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub scheme: Scheme,
    /// Lower case; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// Returns `host[:port]` as it stands in a Host header.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.port() { host } else { format!("{host}:{}", self.port) }
    }

    /// Returns `host:port`, the port always there.
    pub(crate) fn host_and_port(&self) -> String {
        let brackets = self.host.contains(':');
        if brackets {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Returns the address when the host is one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Tells whether the host is this machine by its name alone.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.ip().is_some_and(|ip| ip.is_loopback())
    }
}

/// An absolute URL.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    origin: Origin,
    /// Begins with `/`; with the query.
    target: String,
}

/// Why a URL is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidUrl(pub &'static str);

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidUrl> {
        if text.len() > LIMIT_BYTES {
            return Err(InvalidUrl("the URL is too long"));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((s, rest)) if s.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((s, rest)) if s.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err(InvalidUrl("the URL is neither http nor https")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let origin = parse_authority(scheme, &rest[..end])?;
        Ok(Self { origin, target: target(&rest[end..])? })
    }

    /// Makes `scheme://authority` + `target`; `authority` is `host[:port]`.
    pub(crate) fn at(scheme: Scheme, authority: &str, path: &str) -> Result<Self, InvalidUrl> {
        Ok(Self { origin: parse_authority(scheme, authority)?, target: target(path)? })
    }

    /// Resolves the `Location` that a server gave for this URL.
    pub(crate) fn join(&self, location: &str) -> Result<Self, InvalidUrl> {
        let path = self.target.split('?').next().unwrap_or("/");
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.origin.scheme.name()));
        }
        // A colon before any slash or query means an absolute URL, whatever the scheme.
        let head = &location[..location.find(['/', '?', '#']).unwrap_or(location.len())];
        if head.contains(':') {
            return Self::parse(location);
        }
        let joined = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            None => self.target.clone(),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(dir, _)| dir)),
        };
        Ok(Self { origin: self.origin.clone(), target: target(&joined)? })
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Adds `name=value` to the query, percent-encoded.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        encode(&mut self.target, name);
        self.target.push('=');
        encode(&mut self.target, value);
        self
    }
}

fn parse_authority(scheme: Scheme, authority: &str) -> Result<Origin, InvalidUrl> {
    if authority.contains('@') {
        return Err(InvalidUrl("the URL carries a user name"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(InvalidUrl("the host is malformed"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidUrl("the host is malformed"))?;
            (
                host,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':').ok_or(InvalidUrl("malformed"))?)
                },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return Err(InvalidUrl("the host is malformed"));
    }
    let port = match port {
        None => scheme.port(),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(InvalidUrl("the port is out of range")),
        },
        Some(_) => return Err(InvalidUrl("the port is malformed")),
    };
    Ok(Origin { scheme, host: host.to_ascii_lowercase(), port })
}

fn target(text: &str) -> Result<String, InvalidUrl> {
    let text = text.split('#').next().unwrap_or("");
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(InvalidUrl("the URL holds characters that must be percent-encoded"));
    }
    Ok(if text.starts_with('/') { text.to_owned() } else { format!("/{text}") })
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub(crate) fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

impl fmt::Display for Url {
    /// Shows the URL without its query: signed URLs carry their signature there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.target.split_once('?') {
            Some((path, _)) => (path, "?…"),
            None => (self.target.as_str(), ""),
        };
        write!(f, "{}://{}{path:.300}{query}", self.origin.scheme.name(), self.origin.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_urls_are_followed() {
        for (text, shown) in [
            ("https://Example.com", "https://example.com/"),
            ("HTTP://a:8080/x?sig=1", "http://a:8080/x?…"),
            ("https://a:443/x#f", "https://a/x"),
            ("http://[::1]:5000/", "http://[::1]:5000/"),
            ("https://a?x=1", "https://a/?…"),
        ] {
            assert_eq!(Url::parse(text).map(|u| u.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for bad in [
            "file:///etc/passwd",
            "ftp://a/",
            "https://",
            "https://u:p@a/",
            "https://a:0/",
            "https://a:65536/",
            "https://a:+1/",
            "https://a b/",
            "https://a/\u{1b}[2J",
            "https://[::1/",
            "https://[::1]x/",
            "https://é/",
            "//a",
            "a",
            "",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        assert!(Url::parse(&format!("https://a/{}", "x".repeat(20 << 10))).is_err());
    }

    #[test]
    fn locations_are_resolved_against_the_request() {
        let base = Url::parse("https://r:5000/v2/x/blobs/uploads/?a=1").unwrap();
        for (location, whole) in [
            ("/v2/y", "https://r:5000/v2/y"),
            ("up-1", "https://r:5000/v2/x/blobs/uploads/up-1"),
            ("?b=2", "https://r:5000/v2/x/blobs/uploads/?…"),
            ("//other/z", "https://other/z"),
            ("http://other/z", "http://other/z"),
            ("/v2/a:b/c", "https://r:5000/v2/a:b/c"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), whole, "{location}");
        }
        assert!(base.join("file:/etc/passwd").is_err() && base.join("javascript:x").is_err());
        assert_eq!(base.query("scope", "a:b c").target(), "/v2/x/blobs/uploads/?a=1&scope=a%3Ab%20c");
    }
}
