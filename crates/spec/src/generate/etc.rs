//! The texts of `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, as docker gives them.

use std::net::IpAddr;

use crate::options::{Network, RunOptions};

const OWN_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Writes `/etc/hosts`: on the host's network the host's (`host_text`), else loopback; then `--add-host`.
#[must_use]
pub fn hosts_file(options: &RunOptions, host_text: &str) -> String {
    let mut text = if options.network == Network::Host { host_text } else { OWN_HOSTS }.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for host in &options.extra_hosts {
        text.push_str(&format!("{}\t{}\n", host.address, host.name));
    }
    text
}

/// Writes `/etc/hostname`.
#[must_use]
pub fn hostname_file(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// Writes `/etc/resolv.conf`: the host's (`host_text`) with what `--dns…` replace. A name server on the host's
/// loopback is left out unless the container is on the host's network, as it could not be reached.
#[must_use]
pub fn resolv_conf_file(options: &RunOptions, host_text: &str) -> String {
    let asked = !options.dns.is_empty() || !options.dns_search.is_empty() || !options.dns_options.is_empty();
    if options.network == Network::Host && !asked {
        return host_text.to_owned();
    }
    let host = Resolver::parse(host_text);
    let reachable = |server: &&str| options.network == Network::Host || !is_loopback(server);
    let own = |list: &[String]| list.to_vec();
    let servers = if options.dns.is_empty() {
        host.servers.iter().copied().filter(reachable).map(str::to_owned).collect()
    } else {
        own(&options.dns)
    };
    let or_host = |asked: &[String], host: &[&str]| {
        if asked.is_empty() { host.iter().map(|w| (*w).to_owned()).collect() } else { own(asked) }
    };
    // `--dns-search .` asks for none at all.
    let search: Vec<String> =
        or_host(&options.dns_search, &host.search).into_iter().filter(|w| w != ".").collect();
    let words = or_host(&options.dns_options, &host.options);
    let mut text = String::from(
        "# Made by bale from the host's /etc/resolv.conf and --dns, --dns-search, --dns-option.\n",
    );
    for server in &servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    for (key, list) in [("search", search), ("options", words)] {
        if !list.is_empty() {
            text.push_str(&format!("{key} {}\n", list.join(" ")));
        }
    }
    text
}

#[derive(Default)]
struct Resolver<'a> {
    servers: Vec<&'a str>,
    search: Vec<&'a str>,
    options: Vec<&'a str>,
}

impl<'a> Resolver<'a> {
    /// Reads resolv.conf(5): the last `search` or `domain` wins, `options` add up.
    fn parse(text: &'a str) -> Self {
        let mut found = Self::default();
        for line in text.lines().filter(|l| !l.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next()),
                Some("search" | "domain") => found.search = words.collect(),
                Some("options") => found.options.extend(words),
                _ => {}
            }
        }
        found
    }
}

fn is_loopback(server: &str) -> bool {
    let address = server.split('%').next().unwrap_or_default();
    address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ExtraHost;

    const HOST: &str = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a.b\ndomain c.d\noptions edns0\noptions ndots:1\n";

    #[test]
    fn hosts() {
        let extra_hosts = vec![ExtraHost { name: "foo".into(), address: "1.2.3.4".into() }];
        let own = RunOptions { extra_hosts: extra_hosts.clone(), ..RunOptions::default() };
        // As seen from docker run --net none --add-host foo:1.2.3.4.
        let wanted = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
            ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n1.2.3.4\tfoo\n";
        assert_eq!(hosts_file(&own, "host"), wanted);
        let host = RunOptions { extra_hosts, network: Network::Host, ..RunOptions::default() };
        assert_eq!(hosts_file(&host, "127.0.0.1 x"), "127.0.0.1 x\n1.2.3.4\tfoo\n");
    }

    #[test]
    fn resolvers() {
        let body = |options: &RunOptions| -> Vec<String> {
            resolv_conf_file(options, HOST)
                .lines()
                .filter(|l| !l.starts_with('#'))
                .map(str::to_owned)
                .collect()
        };
        let none = RunOptions::default();
        assert_eq!(body(&none), ["nameserver 10.0.0.1", "search c.d", "options edns0 ndots:1"]);
        let host = RunOptions { network: Network::Host, ..RunOptions::default() };
        assert_eq!(resolv_conf_file(&host, HOST), HOST);
        let asked = RunOptions { dns: vec!["9.9.9.9".into()], dns_search: vec![".".into()], ..host };
        assert_eq!(body(&asked), ["nameserver 9.9.9.9", "options edns0 ndots:1"]);
    }
}
