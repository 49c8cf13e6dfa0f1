//! Who may see a credential, and which addresses a server may send us to.
//!
//! Realm, redirect, upload `Location` and `Link` are URLs that the other side chose. Two questions are asked of each,
//! and only here: may the user's credential go there, and may the connected address be reached at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::url::{Origin, Scheme};

/// How far inside the user's network an address lies. A server may send us as far as it lies itself, not further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reach {
    Public,
    Private,
    Loopback,
}

/// Where a URL came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// The user named the host: every address is fine.
    Named,
    /// A server, which itself lies at `Reach`, named it.
    Served(Reach),
}

impl Trust {
    /// Tells whether a connection to `address` may be made.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Named => true,
            Self::Served(own) => reach(address).is_some_and(|reach| reach <= own),
        }
    }
}

/// Tells how far inside `address` lies; `None` for link-local (metadata services), unspecified and group addresses,
/// which no registry has a reason to name.
pub(crate) fn reach(address: IpAddr) -> Option<Reach> {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => embedded_v4(v6).map_or_else(|| reach_v6(v6), reach_v4),
    }
}

fn reach_v4(address: Ipv4Addr) -> Option<Reach> {
    match address.octets() {
        // This network, link-local with the clouds' metadata, Oracle's and Alibaba's metadata, multicast, reserved.
        [0, ..] | [169, 254, ..] | [192, 0, 0, _] | [100, 100, 100, 200] | [224..=255, ..] => None,
        [127, ..] => Some(Reach::Loopback),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => {
            Some(Reach::Private)
        }
        _ => Some(Reach::Public),
    }
}

fn reach_v6(address: Ipv6Addr) -> Option<Reach> {
    // The metadata services of AWS and Google have unique local addresses.
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    if address.is_loopback() {
        return Some(Reach::Loopback);
    }
    if address.is_unspecified() || METADATA.contains(&address) {
        return None;
    }
    match address.segments()[0] {
        0xfe80..=0xfebf | 0xff00.. => None,
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Some(Reach::Private),
        _ => Some(Reach::Public),
    }
}

/// Finds the IPv4 address in mapped, NAT64, 6to4 and compatible addresses: they end at that address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// Tells whether a credential of `registry` may be sent to the token service at `realm`.
pub(crate) fn realm_may_have_credentials(registry: &Origin, realm: &Origin, trusted: &[String]) -> bool {
    let weaker = registry.scheme == Scheme::Https && realm.scheme == Scheme::Http;
    !weaker && (same_site(&registry.host, &realm.host) || is_named(realm, trusted))
}

/// Tells whether the user named the token service, as `host` or `host:port`.
pub(crate) fn is_named(realm: &Origin, trusted: &[String]) -> bool {
    let same = |host: &String| {
        host.eq_ignore_ascii_case(&realm.host) || host.eq_ignore_ascii_case(&realm.authority())
    };
    trusted.iter().any(same)
}

/// Suffixes below which strangers live side by side, beyond the two-letter country rules of [`site`].
const SHARED: &[&str] = &[
    "amazonaws.com",
    "appspot.com",
    "azurecr.io",
    "azurewebsites.net",
    "cloudfront.net",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "googleusercontent.com",
    "herokuapp.com",
    "netlify.app",
    "ngrok.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "run.app",
    "vercel.app",
    "windows.net",
    "workers.dev",
];

/// Tells whether one organisation answers for both hosts.
///
/// There is no public suffix list in here (100 KiB that age); the rule errs on the side of "no", and the user can name
/// a token service in the settings.
fn same_site(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let is_name = |host: &str| host.parse::<IpAddr>().is_err();
    match (site(a), site(b)) {
        (Some(a_site), Some(b_site)) => is_name(a) && is_name(b) && a_site == b_site,
        _ => false,
    }
}

/// Returns the part of a name that one organisation registers; `None` when that cannot be told.
fn site(host: &str) -> Option<&str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let below = |suffix: &&&str| {
        host == **suffix || host.strip_suffix(**suffix).is_some_and(|rest| rest.ends_with('.'))
    };
    if SHARED.iter().find(below).is_some() {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let [.., second, top] = labels.as_slice() else { return None };
    // co.uk, com.au, gov.br, ac.jp: below a country, a short second label is a registry of its own.
    let wanted = if top.len() == 2 && second.len() <= 3 { 3 } else { 2 };
    if labels.len() < wanted {
        // `ghcr.io` and `quay.io` end here too when they are two labels: such a name is a site by itself only.
        return (labels.len() == 2).then_some(host);
    }
    let dots = labels[labels.len() - wanted..].iter().map(|l| l.len() + 1).sum::<usize>() - 1;
    Some(&host[host.len() - dots..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Url;

    #[test]
    fn credentials_stay_with_their_registry() {
        for (registry, realm, allowed) in [
            ("https://registry-1.docker.io/", "https://auth.docker.io/token", true),
            ("https://ghcr.io/", "https://ghcr.io/token", true),
            ("https://registry.gitlab.com/", "https://gitlab.com/jwt/auth", true),
            ("https://a.azurecr.io/", "https://a.azurecr.io/oauth2/token", true),
            ("https://a.azurecr.io/", "https://b.azurecr.io/oauth2/token", false),
            ("https://registry.corp.example/", "https://auth.corp.example/", true),
            ("https://registry.example.com/", "https://evil.com/", false),
            ("https://registry.example.com/", "https://example.com.evil.net/", false),
            ("https://registry.example.com/", "http://registry.example.com/token", false),
            ("http://registry.example.com/", "http://registry.example.com/token", true),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token", true),
            ("https://10.0.0.1/", "https://10.0.0.2/", false),
            ("https://1.2.3.4/", "https://5.2.3.4/", false),
            ("https://a.co.uk/", "https://b.co.uk/", false),
            ("https://r.a.co.uk/", "https://auth.a.co.uk/", true),
            ("https://a.github.io/", "https://b.github.io/", false),
            ("https://registry/", "https://auth/", false),
            ("https://lscr.io/", "https://ghcr.io/token", false),
        ] {
            let (r, t) = (Url::parse(registry).unwrap(), Url::parse(realm).unwrap());
            assert_eq!(
                realm_may_have_credentials(r.origin(), t.origin(), &[]),
                allowed,
                "{registry} {realm}"
            );
        }
        let (r, t) = (Url::parse("https://a.com/").unwrap(), Url::parse("https://b.net/").unwrap());
        assert!(realm_may_have_credentials(r.origin(), t.origin(), &["B.net".to_owned()]));
    }

    #[test]
    fn a_server_cannot_send_us_further_in_than_it_is() {
        use Reach::{Loopback, Private, Public};
        for (address, wanted) in [
            ("1.1.1.1", Some(Public)),
            ("10.1.2.3", Some(Private)),
            ("172.32.0.1", Some(Public)),
            ("172.31.0.1", Some(Private)),
            ("192.168.1.1", Some(Private)),
            ("100.64.0.1", Some(Private)),
            ("127.8.8.8", Some(Loopback)),
            ("169.254.169.254", None),
            ("100.100.100.200", None),
            ("0.0.0.0", None),
            ("224.0.0.1", None),
            ("255.255.255.255", None),
            ("::1", Some(Loopback)),
            ("::", None),
            ("fe80::1", None),
            ("fd00:ec2::254", None),
            ("fd12::1", Some(Private)),
            ("2606:4700::1", Some(Public)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:169.254.169.254", None),
            ("64:ff9b::a9fe:a9fe", None),
            ("64:ff9b::a00:1", Some(Private)),
            ("2002:7f00:1::", Some(Loopback)),
            ("ff02::1", None),
            ("::127.0.0.1", Some(Loopback)),
        ] {
            assert_eq!(reach(address.parse().unwrap()), wanted, "{address}");
        }
        assert!(Trust::Named.allows([169, 254, 169, 254].into()));
        assert!(
            !Trust::Served(Public).allows([10, 0, 0, 1].into())
                && Trust::Served(Private).allows([10, 0, 0, 1].into())
        );
    }
}
