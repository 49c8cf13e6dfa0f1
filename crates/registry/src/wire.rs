//! One request, one answer, over pooled connections; no redirects, no retries but for a connection gone stale.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bale_fault::Kind;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::dial::Dialer;
use crate::proxy::Proxy;
use crate::rules::{Reach, Trust};
use crate::trouble::{Retry, Trouble};
use crate::url::{Origin, Scheme, Url};

/// The read buffer of a connection: the largest piece of a blob that is handed on, in bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// The longest head of an answer, in bytes.
const HEAD_LIMIT_BYTES: usize = 64 << 10;
/// Connections that rest longer are not used again: many servers close them after a minute.
const REST: Duration = Duration::from_secs(30);
const REST_LIMIT: usize = 8;
/// Less than this within [`Wire::stall`] of waiting is no progress, in bytes.
const PROGRESS_BYTES: u64 = 1 << 10;
/// A registry moves a blob to its place after the last byte, which takes a while on object stores.
const COMMIT_FACTOR: u32 = 10;

pub(crate) struct Wire {
    pub dialer: Dialer,
    pub stall: Duration,
    resting: Mutex<HashMap<Key, Vec<Connection>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    origin: Origin,
    trust: Trust,
    is_insecure: bool,
}

struct Connection {
    sender: SendRequest<Body>,
    proxy: Option<Proxy>,
    reach: Reach,
    passed_bytes: Arc<AtomicU64>,
    resting_since: Instant,
}

/// A request before it is sent.
pub(crate) struct Outgoing {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub payload: Payload,
    pub trust: Trust,
    pub is_insecure: bool,
}

/// What a request carries.
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    /// Pieces from a thread, of this length in total.
    Stream(mpsc::Receiver<io::Result<Bytes>>, u64),
}

impl Payload {
    /// Takes the payload for one attempt; what can be sent again stays.
    fn take(&mut self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Self::Stream(..) => std::mem::replace(self, Self::Empty),
        }
    }

    /// Makes the same payload again, unless it is a stream.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(..) => None,
        }
    }
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub method: Method,
    pub url: Url,
    pub reach: Reach,
    body: Incoming,
    wire: Arc<Wire>,
    connection: Option<(Key, Connection)>,
    waited: Duration,
    got_bytes: u64,
}

impl Wire {
    pub(crate) fn new(dialer: Dialer, stall: Duration) -> Self {
        Self { dialer, stall, resting: Mutex::default() }
    }

    /// Sends one request and waits for the head of the answer.
    pub(crate) async fn send(self: &Arc<Self>, mut outgoing: Outgoing) -> Result<Answer, Trouble> {
        let key = Key {
            origin: outgoing.url.origin().clone(),
            trust: outgoing.trust,
            is_insecure: outgoing.is_insecure,
        };
        let is_stream = matches!(outgoing.payload, Payload::Stream(..));
        loop {
            let rested = self.take_rested(&key).await;
            let is_rested = rested.is_some();
            let mut connection = match rested {
                Some(connection) => connection,
                None => self
                    .open(&key)
                    .await
                    .map_err(|t| t.within(request_line(&outgoing.method, &outgoing.url)))?,
            };
            match self.exchange(&mut connection, &mut outgoing).await {
                Ok(response) => return Ok(self.answer(response, outgoing, key, connection)),
                // The server may have closed it in the meantime; that says nothing about the request.
                Err(SendError::Broken(_)) if is_rested && !is_stream => {}
                Err(error) => return Err(self.explain(&error, &outgoing)),
            }
        }
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        outgoing: &mut Outgoing,
    ) -> Result<hyper::Response<Incoming>, SendError> {
        let request = build(outgoing, connection.proxy.as_ref())?;
        let (request, fed) = request;
        let mut sending = pin!(connection.sender.send_request(request));
        let mut seen = connection.passed_bytes.load(Ordering::Relaxed);
        let mut silent = 0;
        loop {
            match timeout(self.stall, sending.as_mut()).await {
                Ok(outcome) => return outcome.map_err(SendError::Broken),
                Err(_) => {
                    let now = connection.passed_bytes.load(Ordering::Relaxed);
                    let waits_for_us = fed.is_hungry.load(Ordering::Relaxed);
                    silent = if now >= seen + PROGRESS_BYTES || waits_for_us { 0 } else { silent + 1 };
                    seen = now;
                    let patience = if fed.is_complete.load(Ordering::Relaxed) { COMMIT_FACTOR } else { 1 };
                    if silent >= patience {
                        return Err(SendError::Silent(self.stall * silent));
                    }
                }
            }
        }
    }

    fn explain(&self, error: &SendError, outgoing: &Outgoing) -> Trouble {
        let line = request_line(&outgoing.method, &outgoing.url);
        let (words, retry) = match error {
            SendError::Silent(time) => (format!("no answer for {} s", time.as_secs_f32()), Retry::Soon),
            SendError::Malformed(why) => ((*why).to_owned(), Retry::Never),
            SendError::Broken(error) if error.is_parse() => (
                format!(
                    "the answer is not HTTP that can be read ({})",
                    crate::text::escape(&error.to_string())
                ),
                Retry::OtherProtocol,
            ),
            SendError::Broken(error) => (broken(error), Retry::Soon),
        };
        Trouble::new(Kind::Unavailable, format!("{line}: {words}"), retry)
    }

    fn answer(
        self: &Arc<Self>,
        response: hyper::Response<Incoming>,
        outgoing: Outgoing,
        key: Key,
        connection: Connection,
    ) -> Answer {
        let (head, body) = response.into_parts();
        let reach = connection.reach;
        Answer {
            status: head.status,
            headers: head.headers,
            method: outgoing.method,
            url: outgoing.url,
            reach,
            body,
            wire: self.clone(),
            connection: Some((key, connection)),
            waited: Duration::ZERO,
            got_bytes: 0,
        }
    }

    async fn open(&self, key: &Key) -> Result<Connection, Trouble> {
        let line = self.dialer.dial(&key.origin, key.trust, key.is_insecure).await?;
        let (reach, passed_bytes) = (line.reach(), line.stream.passed_bytes.clone());
        let mut builder = Builder::new();
        builder.max_buf_size(BUFFER_BYTES).max_header_size(HEAD_LIMIT_BYTES).max_headers(256);
        let (sender, task) = builder
            .handshake(TokioIo::new(line.stream))
            .await
            .map_err(|e| Trouble::new(Kind::Unavailable, broken(&e), Retry::Soon))?;
        // How it ends is told to whoever waits for an answer on it.
        tokio::spawn(async { drop(task.await) });
        Ok(Connection { sender, proxy: line.proxy, reach, passed_bytes, resting_since: Instant::now() })
    }

    async fn take_rested(&self, key: &Key) -> Option<Connection> {
        loop {
            let mut connection = self.resting.lock().ok()?.get_mut(key)?.pop()?;
            if connection.sender.is_closed() || connection.resting_since.elapsed() > REST {
                continue;
            }
            // It becomes ready as soon as its task has seen the end of the body before.
            if let Ok(Ok(())) = timeout(Duration::from_millis(100), connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }

    fn rest(&self, key: Key, mut connection: Connection) {
        connection.resting_since = Instant::now();
        if let Ok(mut resting) = self.resting.lock() {
            let list = resting.entry(key).or_default();
            list.retain(|c| !c.sender.is_closed() && c.resting_since.elapsed() < REST);
            if list.len() < REST_LIMIT && !connection.sender.is_closed() {
                list.push(connection);
            }
        }
    }
}

enum SendError {
    Silent(Duration),
    Malformed(&'static str),
    Broken(hyper::Error),
}

pub(crate) fn request_line(method: &Method, url: &Url) -> String {
    format!("{method} {url}")
}

fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed in the middle".to_owned();
    }
    let mut source: &dyn std::error::Error = error;
    while let Some(next) = source.source() {
        source = next;
    }
    source
        .downcast_ref::<io::Error>()
        .map_or_else(|| crate::text::escape(&source.to_string()), crate::dial::plain)
}

/// Makes hyper's request; a proxy of http wants the whole URL.
fn build(outgoing: &mut Outgoing, proxy: Option<&Proxy>) -> Result<(Request<Body>, Arc<Fed>), SendError> {
    let (origin, target) = (outgoing.url.origin(), outgoing.url.target());
    let uri = match proxy {
        Some(_) if origin.scheme == Scheme::Http => format!("http://{}{target}", origin.authority()),
        _ => target.to_owned(),
    };
    let mut request =
        Request::builder().method(outgoing.method.clone()).uri(uri).header("host", origin.authority());
    for (name, value) in &outgoing.headers {
        request = request.header(name, value);
    }
    if let Some(authorization) = proxy.and_then(|p| p.authorization.as_deref()) {
        request = request.header("proxy-authorization", authorization);
    }
    let fed = Arc::new(Fed::default());
    let body = Body { payload: outgoing.payload.take(), fed: fed.clone() };
    let request =
        request.body(body).map_err(|_| SendError::Malformed("the request cannot be expressed in HTTP"))?;
    Ok((request, fed))
}

/// What the watcher of an upload must know about its source.
#[derive(Default)]
struct Fed {
    /// The peer wants more than the reader has: not the peer's stall.
    is_hungry: AtomicBool,
    is_complete: AtomicBool,
}

struct Body {
    payload: Payload,
    fed: Arc<Fed>,
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let fed = self.fed.clone();
        match &mut self.payload {
            Payload::Empty => Poll::Ready(None),
            Payload::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.payload = Payload::Empty;
                fed.is_complete.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Payload::Stream(source, left) => {
                let next = source.poll_recv(cx);
                fed.is_hungry.store(next.is_pending(), Ordering::Relaxed);
                if let Poll::Ready(Some(Ok(bytes))) = &next {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                fed.is_complete.store(*left == 0, Ordering::Relaxed);
                next.map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.payload, Payload::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.payload {
            Payload::Empty => 0,
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::Stream(_, left) => *left,
        })
    }
}

impl Answer {
    /// Returns the header `name` when it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns what the answer says about its length.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    pub(crate) fn line(&self) -> String {
        request_line(&self.method, &self.url)
    }

    /// Returns the next piece of the body; at the end the connection goes back to rest.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let start = Instant::now();
            let left = self.wire.stall.saturating_sub(self.waited);
            let frame = timeout(left, poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx))).await;
            self.waited += start.elapsed();
            match frame {
                Err(_) => {
                    let words = format!(
                        "{}: less than 1 KiB came in {} s",
                        self.line(),
                        self.wire.stall.as_secs_f32()
                    );
                    return Err(Trouble::new(Kind::Unavailable, words, Retry::Soon));
                }
                Ok(None) => {
                    self.release();
                    return Ok(None);
                }
                Ok(Some(Err(error))) => {
                    let words = format!("{}: {}", self.line(), broken(&error));
                    return Err(Trouble::new(Kind::Unavailable, words, Retry::Soon));
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.progress(data.len() as u64);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.got_bytes += bytes;
        if self.got_bytes >= PROGRESS_BYTES {
            (self.got_bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Reads the body, at most `limit_bytes`; `None` when there is more.
    pub(crate) async fn read(&mut self, limit_bytes: usize) -> Result<Option<Vec<u8>>, Trouble> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > limit_bytes {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole))
    }

    /// Gives the connection back when the rest of the body is short enough to be read.
    pub(crate) async fn discard(mut self) {
        const SHORT: usize = 64 << 10;
        let _ = timeout(Duration::from_secs(1), self.read(SHORT)).await;
    }

    fn release(&mut self) {
        if let Some((key, connection)) = self.connection.take() {
            self.wire.rest(key, connection);
        }
    }
}
