//! Names to addresses: /etc/hosts, then the name servers of /etc/resolv.conf.
//!
//! A static binary has no name service switch to ask. This is a stub resolver (RFC 1035, 1123) of two record types; a
//! full resolver would bring 74 more crates (docs/decisions/0009-registry-client.md). It asks only servers that the
//! machine names, never a public default.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
/// The most answers of one message that are read, and the longest chain of aliases.
const RECORD_LIMIT: usize = 64;
/// How long A records wait for AAAA records that were asked for at the same time (RFC 8305 says 50 ms).
const AAAA_GRACE: Duration = Duration::from_millis(50);
/// Answers are kept this long at most: long enough for the blobs of one image.
const KEEP: Duration = Duration::from_secs(30);
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The resolver of one client.
pub(crate) struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    kept: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

/// What resolv.conf(5) says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

/// What one name server said about one name and type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    Truncated,
    /// The server failed or refused; another may know.
    Failed(u8),
}

impl Resolver {
    pub(crate) fn new(hosts: PathBuf, resolv_conf: PathBuf) -> Self {
        Self { hosts, resolv_conf, kept: Mutex::new(HashMap::new()) }
    }

    /// Resolves `host`, which may be an address; the order is the order to try.
    pub(crate) async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let listed = in_hosts(&read(&self.hosts).unwrap_or_default(), host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        // RFC 6761: never asked of a server.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Some(known) = self.kept(host) {
            return Ok(known);
        }
        let addresses = self.ask(host).await?;
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(host.to_owned(), (Instant::now(), addresses.clone()));
        }
        Ok(addresses)
    }

    fn kept(&self, host: &str) -> Option<Vec<IpAddr>> {
        let kept = self.kept.lock().ok()?;
        kept.get(host).filter(|(since, _)| since.elapsed() < KEEP).map(|(_, addresses)| addresses.clone())
    }

    async fn ask(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let config = parse_config(&read(&self.resolv_conf).unwrap_or_default());
        if config.servers.is_empty() {
            let words = format!("{} names no name server to ask for {host}", self.resolv_conf.display());
            return Err(io::Error::new(io::ErrorKind::HostUnreachable, words));
        }
        let mut last = io::Error::new(io::ErrorKind::HostUnreachable, "no such host");
        for name in candidates(host, &config) {
            match lookup(&name, &config).await {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn read(path: &PathBuf) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(FILE_LIMIT_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse) else { continue };
        if words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

pub(crate) fn parse_config(text: &str) -> Config {
    let second = Duration::from_secs(1);
    let mut config =
        Config { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: 5 * second, attempts: 2 };
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or("");
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // A zone (`fe80::1%eth0`) needs an interface index, which is not for here.
                let server = words.next().and_then(|w| w.parse::<IpAddr>().ok());
                config
                    .servers
                    .extend(server.filter(|_| config.servers.len() < 3).map(|ip| SocketAddr::new(ip, 53)));
            }
            Some("search" | "domain") => config.search = words.take(6).map(str::to_owned).collect(),
            Some("options") => words.for_each(|word| option(&mut config, word)),
            _ => {}
        }
    }
    config
}

fn option(config: &mut Config, word: &str) {
    let Some((name, Ok(value))) = word.split_once(':').map(|(n, v)| (n, v.parse::<u32>())) else { return };
    match name {
        "ndots" => config.ndots = value.min(15) as usize,
        "timeout" => config.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
        "attempts" => config.attempts = value.clamp(1, 5),
        _ => {}
    }
}

/// Returns the names to try, in order: the search list comes first for names with few dots.
pub(crate) fn candidates(host: &str, config: &Config) -> Vec<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let searched = config.search.iter().map(|domain| format!("{host}.{}", domain.trim_matches('.')));
    let searched: Vec<_> = searched.filter(|name| !name.ends_with('.')).collect();
    let plain = std::iter::once(host.to_owned());
    if host.matches('.').count() >= config.ndots {
        plain.chain(searched).collect()
    } else {
        searched.into_iter().chain(plain).collect()
    }
}

async fn lookup(name: &str, config: &Config) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::new(io::ErrorKind::TimedOut, format!("no name server answered for {name}"));
    for _ in 0..config.attempts {
        for server in &config.servers {
            let (server, patience) = (*server, config.timeout);
            let (owned, started) = (name.to_owned(), Instant::now());
            let v6 = tokio::spawn(async move { query(server, &owned, AAAA, patience).await });
            let v4 = query(server, name, A, patience).await;
            // Both were asked at once; whoever has A records waits only a moment longer for the others.
            let rest =
                if matches!(&v4, Ok(Answer::Addresses(a)) if !a.is_empty()) { AAAA_GRACE } else { patience };
            let v6 = timeout(rest.saturating_sub(started.elapsed()).max(AAAA_GRACE), v6).await;
            let v6 = v6
                .map_err(io::Error::from)
                .and_then(|joined| joined.map_err(io::Error::other))
                .and_then(|r| r);
            last = match (v4, v6) {
                // A server that fails on AAAA alone must not hide the A records (many home routers).
                (Ok(Answer::Addresses(v4)), v6) => {
                    let v6 = if let Ok(Answer::Addresses(v6)) = v6 { v6 } else { Vec::new() };
                    return Ok(interleave(v4, v6));
                }
                (_, Ok(Answer::Addresses(v6))) if !v6.is_empty() => return Ok(v6),
                (Ok(Answer::NoSuchName), _) => return Ok(Vec::new()),
                (Ok(answer), _) => {
                    io::Error::other(format!("name server {}: {answer:?} for {name}", server.ip()))
                }
                (Err(error), _) => {
                    io::Error::new(error.kind(), format!("name server {}: {error}", server.ip()))
                }
            };
        }
    }
    Err(last)
}

/// Alternates the families, so that the second attempt of a connection takes the other road.
fn interleave(v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut out = Vec::with_capacity(v4.len() + v6.len());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    loop {
        let (a, b) = (v4.next(), v6.next());
        if a.is_none() && b.is_none() {
            return out;
        }
        out.extend(a);
        out.extend(b);
    }
}

async fn query(server: SocketAddr, name: &str, kind: u16, patience: Duration) -> io::Result<Answer> {
    let id = crate::random::number() as u16;
    let question = encode(id, name, kind)?;
    let answer = timeout(patience, query_udp(server, &question, id, name, kind)).await??;
    if answer == Answer::Truncated {
        return timeout(patience, query_tcp(server, &question, id, name, kind)).await?;
    }
    Ok(answer)
}

async fn query_udp(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
    kind: u16,
) -> io::Result<Answer> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // A new socket per question: its port is half of what a forger has to guess.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = decode(&buffer[..length], id, name, kind) {
            return Ok(answer);
        }
    }
}

async fn query_tcp(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
    kind: u16,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    decode(&message, id, name, kind)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed answer"))
}

pub(crate) fn encode(id: u16, name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n));
        message.push(length.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("not a host name: {name}"))
        })?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    Ok(message)
}

/// Reads the answer to our question; `None` for anything that is not that.
pub(crate) fn decode(message: &[u8], id: u16, name: &str, kind: u16) -> Option<Answer> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let flags = word(2)?;
    let is_response = flags & 0x8000 != 0;
    if word(0)? != id || !is_response || word(4)? != 1 {
        return None;
    }
    let (asked, at) = read_name(message, 12)?;
    if asked != name.to_ascii_lowercase() || word(at)? != kind || word(at + 2)? != 1 {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    match flags & 15 {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        code => return Some(Answer::Failed(code as u8)),
    }
    let count = usize::from(word(6)?).min(RECORD_LIMIT);
    Some(Answer::Addresses(addresses(&records(message, at + 4, count)?, &asked, kind)))
}

struct Record<'a> {
    owner: String,
    kind: u16,
    data: &'a [u8],
    alias: Option<String>,
}

fn records(message: &[u8], mut at: usize, count: usize) -> Option<Vec<Record<'_>>> {
    let mut list = Vec::new();
    for _ in 0..count {
        let (owner, next) = read_name(message, at)?;
        let head = message.get(next..next + 10)?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let data = message.get(next + 10..next + 10 + length)?;
        let alias = if kind == CNAME { Some(read_name(message, next + 10)?.0) } else { None };
        list.push(Record { owner, kind, data, alias });
        at = next + 10 + length;
    }
    Some(list)
}

/// Follows aliases from `name` and collects addresses of names on that way only.
fn addresses(records: &[Record<'_>], name: &str, kind: u16) -> Vec<IpAddr> {
    let mut current = name;
    for _ in 0..RECORD_LIMIT {
        let own = records.iter().filter(|r| r.owner == current);
        let found: Vec<IpAddr> =
            own.clone().filter(|r| r.kind == kind).filter_map(|r| address(r.data, kind)).collect();
        if !found.is_empty() {
            return found;
        }
        let Some(alias) = own.clone().find_map(|r| r.alias.as_deref()) else { break };
        current = alias;
    }
    Vec::new()
}

fn address(data: &[u8], kind: u16) -> Option<IpAddr> {
    match kind {
        A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Reads a name, lower case, following compression pointers backwards only: that ends by itself.
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut name, mut at, mut end, mut floor) = (String::new(), start, None, start);
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some((name, end.unwrap_or(at + 1))),
            length @ 1..=63 => {
                let label = message.get(at + 1..at + 1 + length)?;
                if name.len() + length > 254 {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
                at += 1 + length;
            }
            high @ 0xc0.. => {
                let target = (high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                end = end.or(Some(at + 2));
                if target >= floor {
                    return None;
                }
                (at, floor) = (target, target);
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(name: &str, kind: u16, flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut message = encode(7, name, kind).unwrap();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        records.iter().for_each(|r| message.extend(*r));
        message
    }

    #[test]
    fn answers_are_read_and_strangers_are_not() {
        // Owner `c00c` is the question's name; an alias to `b.a`, then its address.
        let alias: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x05\x01b\x01a\0";
        let address: &[u8] = b"\x01B\x01a\0\0\x01\0\x01\0\0\0\x09\0\x04\x01\x02\x03\x04";
        let stranger: &[u8] = b"\x01z\x01a\0\0\x01\0\x01\0\0\0\x09\0\x04\x09\x09\x09\x09";
        let ip = Answer::Addresses(vec![[1, 2, 3, 4].into()]);
        let whole = reply("x.a", A, 0x8180, &[alias, stranger, address]);
        assert_eq!(decode(&whole, 7, "X.a", A), Some(ip));
        assert_eq!(decode(&whole, 8, "x.a", A), None);
        assert_eq!(decode(&whole, 7, "y.a", A), None);
        assert_eq!(decode(&whole, 7, "x.a", AAAA), None);
        assert_eq!(decode(&reply("x.a", A, 0x8183, &[]), 7, "x.a", A), Some(Answer::NoSuchName));
        assert_eq!(decode(&reply("x.a", A, 0x8382, &[]), 7, "x.a", A), Some(Answer::Truncated));
        assert_eq!(decode(&reply("x.a", A, 0x8182, &[]), 7, "x.a", A), Some(Answer::Failed(2)));
        assert_eq!(decode(&reply("x.a", A, 0x8180, &[]), 7, "x.a", A), Some(Answer::Addresses(vec![])));
        assert_eq!(decode(&reply("x.a", A, 0x0100, &[]), 7, "x.a", A), None);
        for cut in 0..whole.len() {
            let _ = decode(&whole[..cut], 7, "x.a", A);
            let mut bent = whole.clone();
            bent[cut] = 0xff;
            let _ = decode(&bent, 7, "x.a", A);
        }
        // Aliases in a circle, and a pointer to itself.
        let circle: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x02\xc0\x0c";
        assert_eq!(decode(&reply("x.a", A, 0x8180, &[circle]), 7, "x.a", A), Some(Answer::Addresses(vec![])));
        assert_eq!(read_name(b"\xc0\x00", 0), None);
    }

    /// Answers questions on a port of loopback: UDP, and TCP on the same port for what was truncated.
    fn name_server() -> SocketAddr {
        let (udp, tcp) = loop {
            let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                // A forger who does not know the number comes first.
                let mut forged = answer_to(&buffer[..length], false);
                forged[1] ^= 1;
                let _ = udp.send_to(&forged, from);
                let _ = udp.send_to(&answer_to(&buffer[..length], false), from);
            }
        });
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let answer = answer_to(&question, true);
                stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        address
    }

    /// Knows `big.test` (over TCP only) and `small.test`; fails on `broken.test`.
    fn answer_to(question: &[u8], is_tcp: bool) -> Vec<u8> {
        let (name, at) = read_name(question, 12).unwrap();
        let kind = u16::from_be_bytes([question[at], question[at + 1]]);
        let record: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\x0a\x00\x00\x07";
        let (flags, records): (u16, &[&[u8]]) = match (name.as_str(), kind) {
            ("big.test", _) if !is_tcp => (0x8380, &[]),
            ("big.test" | "small.test", A) => (0x8180, &[record]),
            ("big.test" | "small.test", _) => (0x8180, &[]),
            ("broken.test", _) => (0x8182, &[]),
            _ => (0x8183, &[]),
        };
        let mut message = reply(&name, kind, flags, records);
        message[..2].copy_from_slice(&question[..2]);
        message
    }

    #[test]
    fn servers_are_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let second = Duration::from_secs(1);
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let servers = vec![closed, name_server()];
        let config = Config { servers, search: vec![], ndots: 1, timeout: second, attempts: 1 };
        for (name, wanted) in [("small.test", 1), ("big.test", 1), ("none.test", 0)] {
            assert_eq!(runtime.block_on(lookup(name, &config)).unwrap().len(), wanted, "{name}");
        }
        let error = runtime.block_on(lookup("broken.test", &config)).unwrap_err();
        assert!(error.to_string().contains("Failed(2)"), "{error}");
        let nobody = Resolver::new("/nonexistent".into(), "/nonexistent".into());
        let error = runtime.block_on(nobody.resolve("small.test")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent names no name server"), "{error}");
        assert_eq!(runtime.block_on(nobody.resolve("localhost")).unwrap().len(), 2);
    }

    #[test]
    fn files_are_read_as_the_manual_says() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1 Reg.example reg # x\n# 1.1.1.1 reg\nbad reg\n::1 reg\n";
        assert_eq!(in_hosts(hosts, "reg"), [IpAddr::from([10, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()]);
        let text = "nameserver 10.0.0.2\nnameserver bad\nsearch a.b c.\noptions ndots:2 timeout:1 attempts:9 edns0\n; nameserver 1.1.1.1";
        let config = parse_config(text);
        assert_eq!(config.servers, [SocketAddr::from(([10, 0, 0, 2], 53))]);
        assert_eq!((config.ndots, config.timeout.as_secs(), config.attempts), (2, 1, 5));
        assert_eq!(candidates("x", &config), ["x.a.b", "x.c", "x"]);
        assert_eq!(candidates("x.y.z", &config)[0], "x.y.z");
        assert_eq!(candidates("x.", &config), ["x"]);
        assert!(parse_config("").servers.is_empty());
        assert!(encode(1, "a..b", A).is_err() && encode(1, &"x".repeat(64), A).is_err());
    }
}
