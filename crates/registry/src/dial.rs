//! Connections: name, address, proxy, TLS. The only place that opens a socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bale_fault::Kind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dns::Resolver;
use crate::proxy::{Proxies, Proxy};
use crate::rules::{self, Trust};
use crate::tls::Tls;
use crate::trouble::{Retry, Trouble};
use crate::url::{Origin, Scheme};

/// The head start of each address before the next one is tried beside it (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// The longest answer of a proxy to CONNECT, in bytes.
const CONNECT_LIMIT_BYTES: usize = 16 << 10;

pub(crate) struct Dialer {
    pub resolver: Resolver,
    pub tls: Tls,
    pub proxies: Proxies,
    pub patience: Duration,
}

/// An open connection, ready for HTTP.
pub(crate) struct Line {
    pub stream: Counted,
    /// Who answered; unknown behind a proxy.
    pub peer: Option<IpAddr>,
    /// The proxy that wants whole URLs in requests.
    pub proxy: Option<Proxy>,
}

/// Bytes over TCP, or over TLS over such bytes (a https proxy has TLS in TLS).
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<Stream>>),
}

/// A stream that counts what passes, for who watches over progress.
pub(crate) struct Counted {
    inner: Stream,
    pub passed_bytes: Arc<AtomicU64>,
}

impl Dialer {
    /// Connects to `origin`, as far as `trust` allows, within the patience of the settings.
    pub(crate) async fn dial(
        &self,
        origin: &Origin,
        trust: Trust,
        is_insecure: bool,
    ) -> Result<Line, Trouble> {
        let proxy = self
            .proxies
            .choose(origin)
            .map_err(|e| Trouble::fatal(Kind::InvalidInput, format!("use the proxy: {e}")))?;
        let attempt = async {
            match proxy {
                Some(proxy) => self.through(proxy, origin, trust, is_insecure).await,
                None => self.straight(origin, trust, is_insecure).await,
            }
        };
        match timeout(self.patience, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let words = format!(
                    "connect to {}: no answer within {} s",
                    origin.host_and_port(),
                    self.patience.as_secs_f32()
                );
                Err(Trouble::new(Kind::Unavailable, words, Retry::IfReachedBefore))
            }
        }
    }

    async fn straight(&self, origin: &Origin, trust: Trust, is_insecure: bool) -> Result<Line, Trouble> {
        let (stream, peer) = self.tcp(origin, trust).await?;
        let stream = match origin.scheme {
            Scheme::Http => Stream::Tcp(stream),
            Scheme::Https => self.secure(Stream::Tcp(stream), origin, is_insecure).await?,
        };
        Ok(Line {
            stream: Counted { inner: stream, passed_bytes: Arc::default() },
            peer: Some(peer),
            proxy: None,
        })
    }

    async fn through(
        &self,
        proxy: Proxy,
        origin: &Origin,
        trust: Trust,
        is_insecure: bool,
    ) -> Result<Line, Trouble> {
        // The proxy resolves the name, so only an address in the URL itself can be judged here.
        if origin.ip().is_some_and(|ip| !trust.allows(ip)) {
            return Err(refused_address(origin));
        }
        let (tcp, _) = self.tcp(&proxy.origin, Trust::Named).await.map_err(|t| t.within("use the proxy"))?;
        let mut stream = match proxy.origin.scheme {
            Scheme::Http => Stream::Tcp(tcp),
            Scheme::Https => self.secure(Stream::Tcp(tcp), &proxy.origin, false).await?,
        };
        if origin.scheme == Scheme::Http {
            return Ok(Line {
                stream: Counted { inner: stream, passed_bytes: Arc::default() },
                peer: None,
                proxy: Some(proxy),
            });
        }
        tunnel(&mut stream, &proxy, origin).await?;
        let stream = self.secure(stream, origin, is_insecure).await?;
        Ok(Line { stream: Counted { inner: stream, passed_bytes: Arc::default() }, peer: None, proxy: None })
    }

    async fn tcp(&self, origin: &Origin, trust: Trust) -> Result<(TcpStream, IpAddr), Trouble> {
        let addresses = self.resolver.resolve(&origin.host).await.map_err(|e| cannot_resolve(origin, &e))?;
        let allowed: Vec<_> = addresses.into_iter().filter(|ip| trust.allows(*ip)).collect();
        if allowed.is_empty() {
            return Err(refused_address(origin));
        }
        let (stream, peer) =
            race(&allowed, origin.port).await.map_err(|e| cannot_connect(origin, &allowed, &e))?;
        // Requests are written whole; waiting for more would only delay the answer.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    async fn secure(&self, stream: Stream, origin: &Origin, is_insecure: bool) -> Result<Stream, Trouble> {
        let config = self.tls.config(&origin.authority(), is_insecure)?;
        let name = ServerName::try_from(origin.host.clone());
        let name = name.map_err(|_| {
            Trouble::fatal(Kind::InvalidInput, format!("{} cannot be a TLS name", origin.host))
        })?;
        let secured = TlsConnector::from(config).connect(name, stream).await;
        secured.map(|s| Stream::Tls(Box::new(s))).map_err(|error| cannot_secure(origin, &error))
    }
}

/// Connects to the first address that answers, each a moment after the one before.
async fn race(addresses: &[IpAddr], port: u16) -> io::Result<(TcpStream, IpAddr)> {
    if let [only] = addresses {
        return TcpStream::connect((*only, port)).await.map(|s| (s, *only));
    }
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        let is_last = match waiting.next() {
            Some(&ip) => {
                let address = SocketAddr::new(ip, port);
                attempts.spawn(async move { TcpStream::connect(address).await.map(|s| (s, ip)) });
                false
            }
            None => true,
        };
        let patience = if is_last { Duration::MAX } else { STAGGER };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(won)))) => return Ok(won),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(None) if is_last => return Err(last),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Asks the proxy for a tunnel (RFC 9110, 9.3.6).
async fn tunnel(stream: &mut Stream, proxy: &Proxy, origin: &Origin) -> Result<(), Trouble> {
    let target = origin.host_and_port();
    let failed = |words: String, retry| {
        Trouble::new(
            Kind::Unavailable,
            format!("proxy {}: CONNECT {target}: {words}", proxy.origin.host_and_port()),
            retry,
        )
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let io = |e: io::Error| failed(plain(&e), Retry::Soon);
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    // One byte at a time: what follows the head belongs to the tunnel.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > CONNECT_LIMIT_BYTES {
            return Err(failed("the answer is too long".to_owned(), Retry::Never));
        }
        head.push(stream.read_u8().await.map_err(io)?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    match line.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        Some("407") => Err(failed("it wants a user name and password".to_owned(), Retry::Never)
            .hint("put them into HTTPS_PROXY: http://user:password@proxy:port")),
        _ => Err(failed(crate::text::escape(&line), Retry::IfReachedBefore)),
    }
}

fn refused_address(origin: &Origin) -> Trouble {
    let words = format!(
        "{} is an address inside the local network, and a server named it: not followed",
        origin.host_and_port()
    );
    Trouble::fatal(Kind::PermissionDenied, words)
}

fn cannot_resolve(origin: &Origin, error: &io::Error) -> Trouble {
    Trouble::new(
        Kind::Unavailable,
        format!("resolve {}: {}", origin.host, plain(error)),
        Retry::IfReachedBefore,
    )
    .hint("is the registry's name spelled right, and does this machine reach its name server?")
}

fn cannot_connect(origin: &Origin, addresses: &[IpAddr], error: &io::Error) -> Trouble {
    let mut target = origin.host_and_port();
    if origin.ip().is_none() {
        let shown: Vec<_> = addresses.iter().take(3).map(ToString::to_string).collect();
        target.push_str(&format!(" ({})", shown.join(", ")));
    }
    let words = format!("connect to {target}: {}", plain(error));
    let trouble = Trouble::new(Kind::Unavailable, words, Retry::IfReachedBefore);
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return trouble.hint(format!(
            "nothing listens there: is the registry running, and is {} its port?",
            origin.port
        ));
    }
    trouble
}

fn cannot_secure(origin: &Origin, error: &io::Error) -> Trouble {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let name = origin.host_and_port();
    let failed =
        |words: &str, retry| Trouble::new(Kind::Unavailable, format!("TLS with {name}: {words}"), retry);
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => failed(
            &format!("the certificate is not trusted: {why:?}"),
            Retry::Never,
        )
        .hint(format!(
            "put the registry's CA into /etc/containers/certs.d/{}/ca.crt; --tls-verify=false believes any certificate",
            origin.authority()
        )),
        Some(rustls::Error::InvalidMessage(_)) => failed("the answer is not TLS", Retry::OtherProtocol)
            .hint("the registry seems to speak plain http: --tls-verify=false allows that".to_owned()),
        Some(other) => failed(&crate::text::escape(&other.to_string()), Retry::Never),
        None => failed(&plain(error), Retry::IfReachedBefore),
    }
}

/// Returns an I/O error's words without Rust's "(os error 111)".
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let cut = text.find(" (os error").map_or(text.as_str(), |at| &text[..at]);
    let mut letters = cut.chars();
    letters.next().map(|c| c.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

impl Line {
    /// Tells how far inside the network the peer is; unknown counts as public, which allows least.
    pub(crate) fn reach(&self) -> rules::Reach {
        self.peer.and_then(rules::reach).unwrap_or(rules::Reach::Public)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

impl Counted {
    fn count(&self, bytes: usize) {
        self.passed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.count(buf.filled().len() - before);
        outcome
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &outcome {
            self.count(*bytes);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(bytes)) = &outcome {
            self.count(*bytes);
        }
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
