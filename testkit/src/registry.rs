//! A registry inside the test, which can be told to misbehave.
//!
//! It speaks HTTP by hand over blocking sockets, one thread per connection: what a server must never do (cut, lie
//! about lengths, drip, never end) takes one line here and a fight with any HTTP library.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bale_spec::Digest;

/// A stream that the registry can speak over: TCP, or what a test wraps around it (TLS).
pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// Wraps an accepted connection; `None` drops it.
pub type Wrap = Arc<dyn Fn(TcpStream) -> Option<Box<dyn Duplex>> + Send + Sync>;

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trick {
    /// The body ends after this many bytes, and the connection with it.
    CutAfter(usize),
    /// `Content-Length` is this, whatever the body is.
    ClaimLength(u64),
    /// A range is answered by the whole, with 200.
    IgnoreRange,
    /// A range is answered by another range.
    WrongRange,
    /// The body comes in pieces of so many bytes with a pause after each.
    Drip(usize, Duration),
    /// After this many bytes of the body nothing more comes, until the client leaves.
    StallAfter(usize),
    /// Nothing comes at all, until the client leaves.
    Silence,
    /// The connection is closed before an answer.
    Hang,
    /// This is the answer: status, headers, body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// One bit of the body is wrong.
    Corrupt,
    /// A header is replaced or added.
    Header(String, String),
    /// A header is left out.
    NoHeader(String),
    /// The body comes in chunks, without a length.
    Chunked,
    /// The body never ends (in chunks).
    EndlessBody,
    /// The head never ends.
    EndlessHeaders,
    /// These bytes are the whole answer.
    Raw(Vec<u8>),
}

/// When a trick is played: for requests of `method` whose target contains `part`, `times` times.
#[derive(Clone, Debug)]
struct Rule {
    method: &'static str,
    part: String,
    times: usize,
    trick: Trick,
}

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    /// Everybody.
    #[default]
    Open,
    /// Who sends this `Authorization`.
    Basic(String),
    /// Who has a token from `realm` (`None`: `/token` here). The token service wants this `Authorization`, or nothing
    /// when it is empty.
    Bearer {
        /// Where the challenge points; `None` for this registry's own token service.
        realm: Option<String>,
        /// What the token service here wants to see.
        authorization: String,
    },
}

/// A request that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// GET and so on.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, or its first 64 KiB.
    pub body: Vec<u8>,
}

impl Seen {
    /// Returns a header; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

#[derive(Default)]
struct State {
    blobs: HashMap<(String, String), Arc<Vec<u8>>>,
    manifests: HashMap<(String, String), (String, Vec<u8>)>,
    rules: Vec<Rule>,
    guard: Guard,
    seen: Vec<Seen>,
    uploads: usize,
    open: Vec<TcpStream>,
    connections: usize,
}

struct Shared {
    address: SocketAddr,
    scheme: &'static str,
    is_stopped: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registry on a port of loopback, until dropped.
pub struct Registry {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Starts one that speaks http.
    ///
    /// # Panics
    /// Without a free port.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0", "http", Arc::new(|stream| Some(Box::new(stream) as Box<dyn Duplex>)))
    }

    /// Starts one on `address`, whose connections go through `wrap`.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start_at(address: &str, scheme: &'static str, wrap: Wrap) -> Self {
        let listener = TcpListener::bind(address).expect("a port of loopback");
        let address = listener.local_addr().expect("its address");
        let shared =
            Arc::new(Shared { address, scheme, is_stopped: AtomicBool::new(false), state: Mutex::default() });
        let own = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, &own, &wrap));
        Self { shared, thread: Some(thread) }
    }

    /// Returns `host:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// Stores a blob and returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.shared.state().blobs.insert((repository.to_owned(), digest.to_string()), Arc::new(bytes));
        digest
    }

    /// Stores a manifest under a tag and its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let mut state = self.shared.state();
        for name in [tag.to_owned(), digest.to_string()] {
            state.manifests.insert((repository.to_owned(), name), (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// Returns a blob.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        self.shared
            .state()
            .blobs
            .get(&(repository.to_owned(), digest.to_string()))
            .map(|bytes| bytes.to_vec())
    }

    /// Returns a manifest by tag or digest.
    #[must_use]
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        self.shared
            .state()
            .manifests
            .get(&(repository.to_owned(), name.to_owned()))
            .map(|(_, bytes)| bytes.clone())
    }

    /// Plays `trick` on the next `times` requests of `method` whose target contains `part`; earlier calls come first.
    pub fn trick(&self, method: &'static str, part: &str, times: usize, trick: Trick) {
        self.shared.state().rules.push(Rule { method, part: part.to_owned(), times, trick });
    }

    /// Plays none of the tricks that are left.
    pub fn forget_tricks(&self) {
        self.shared.state().rules.clear();
    }

    /// Sets who may come in.
    pub fn guard(&self, guard: Guard) {
        self.shared.state().guard = guard;
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Returns `METHOD target` of all requests so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.shared.state().seen.iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Returns how many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        for stream in &self.shared.state().open {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.shared.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, wrap: &Wrap) {
    for stream in listener.incoming() {
        if shared.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        {
            let mut state = shared.state();
            state.connections += 1;
            state.open.extend(stream.try_clone());
        }
        let (shared, wrap) = (shared.clone(), wrap.clone());
        std::thread::spawn(move || {
            let closer = stream.try_clone();
            if let Some(stream) = wrap(stream) {
                // An error is a client that left.
                let _ = serve(stream, &shared);
            }
            let _ = closer.map(|stream| stream.shutdown(Shutdown::Both));
        });
    }
}

/// Answers requests on one connection until it ends.
fn serve(stream: Box<dyn Duplex>, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    loop {
        let Some(request) = read_head(&mut stream)? else { return Ok(()) };
        let (seen, body) = read_body(&mut stream, request)?;
        let (answer, tricks) = decide(shared, &seen, body);
        if !send(&mut stream, answer, &tricks)? {
            return Ok(());
        }
    }
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some(Seen { method, target, headers, body: Vec::new() }))
}

fn read_body(stream: &mut impl BufRead, mut seen: Seen) -> io::Result<(Seen, Vec<u8>)> {
    let length = seen.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    if (body.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    seen.body = body[..body.len().min(64 << 10)].to_vec();
    Ok((seen, body))
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
    /// The part of the body that is sent.
    from: usize,
    is_head: bool,
}

impl Answer {
    fn new(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Self { status, headers, body: Arc::new(body.into()), from: 0, is_head: false }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
        Self::new(status, &[("content-type", "application/json")], body)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

fn decide(shared: &Shared, seen: &Seen, body: Vec<u8>) -> (Answer, Vec<Trick>) {
    let mut state = shared.state();
    let mut tricks = Vec::new();
    for rule in &mut state.rules {
        if rule.times > 0 && rule.method == seen.method && seen.target.contains(&rule.part) {
            rule.times -= 1;
            tricks.push(rule.trick.clone());
            break;
        }
    }
    state.seen.push(seen.clone());
    let ignores_range = tricks.iter().any(|t| matches!(t, Trick::IgnoreRange));
    let mut answer = match refuse(shared, &state.guard, seen) {
        Some(refusal) => refusal,
        None => route(shared, &mut state, seen, body, ignores_range),
    };
    answer.is_head = seen.method == "HEAD";
    (answer, tricks)
}

fn refuse(shared: &Shared, guard: &Guard, seen: &Seen) -> Option<Answer> {
    if seen.target.starts_with("/token") {
        return None;
    }
    let sent = seen.header("authorization").unwrap_or_default();
    let challenge = match guard {
        Guard::Open => return None,
        Guard::Basic(wanted) if sent == wanted => return None,
        Guard::Basic(_) => "Basic realm=\"test\"".to_owned(),
        Guard::Bearer { .. } if sent.starts_with("Bearer token-") => return None,
        Guard::Bearer { realm, .. } => {
            let own = || format!("{}://{}/token", shared.scheme, shared.address);
            format!("Bearer realm=\"{}\",service=\"test\"", realm.clone().unwrap_or_else(own))
        }
    };
    let mut answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
    answer.set("www-authenticate", &challenge);
    Some(answer)
}

fn route(shared: &Shared, state: &mut State, seen: &Seen, body: Vec<u8>, ignores_range: bool) -> Answer {
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    if path == "/token" {
        return token(&state.guard, seen);
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Answer::error(404, "NOT_FOUND", "no such page");
    };
    if rest.is_empty() {
        return Answer::new(200, &[], "{}");
    }
    if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
        return uploads(shared, state, seen, repository, upload, query, body);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        return blob(state, seen, repository, digest, ignores_range);
    }
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        return manifest(state, seen, repository, name, body);
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return tags(state, repository);
    }
    Answer::error(404, "NOT_FOUND", "no such page")
}

fn token(guard: &Guard, seen: &Seen) -> Answer {
    let Guard::Bearer { authorization, .. } = guard else {
        return Answer::error(404, "NOT_FOUND", "no tokens here");
    };
    let form = String::from_utf8_lossy(&seen.body);
    let is_refresh = seen.method == "POST" && form.contains(authorization.as_str());
    if authorization.is_empty() || seen.header("authorization") == Some(authorization) || is_refresh {
        return Answer::new(
            200,
            &[("content-type", "application/json")],
            r#"{"token":"token-1","expires_in":300}"#,
        );
    }
    Answer::new(401, &[], r#"{"details":"incorrect username or password"}"#)
}

fn blob(state: &State, seen: &Seen, repository: &str, digest: &str, ignores_range: bool) -> Answer {
    let Some(bytes) = state.blobs.get(&(repository.to_owned(), digest.to_owned())) else {
        return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let mut answer = Answer::new(
        200,
        &[("docker-content-digest", digest), ("content-type", "application/octet-stream")],
        [],
    );
    answer.body = bytes.clone();
    answer.set("etag", &format!("\"{digest}\""));
    let from =
        seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-')?.0.parse::<usize>().ok());
    if let Some(from) = from.filter(|_| !ignores_range) {
        if from >= bytes.len() {
            return Answer::error(416, "RANGE", "range not satisfiable");
        }
        (answer.status, answer.from) = (206, from);
        answer.set("content-range", &format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
    }
    answer
}

fn manifest(state: &mut State, seen: &Seen, repository: &str, name: &str, body: Vec<u8>) -> Answer {
    let key = (repository.to_owned(), name.to_owned());
    if seen.method == "PUT" {
        let media_type = seen.header("content-type").unwrap_or_default().to_owned();
        let digest = Digest::of(&body).to_string();
        state.manifests.insert((repository.to_owned(), digest.clone()), (media_type.clone(), body.clone()));
        state.manifests.insert(key, (media_type, body));
        return Answer::new(201, &[("docker-content-digest", &digest)], []);
    }
    match state.manifests.get(&key) {
        Some((media_type, bytes)) => {
            let digest = Digest::of(bytes).to_string();
            Answer::new(
                200,
                &[("content-type", media_type), ("docker-content-digest", &digest)],
                bytes.clone(),
            )
        }
        None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

fn tags(state: &State, repository: &str) -> Answer {
    let mut names: Vec<_> =
        state.manifests.keys().filter(|(r, n)| r == repository && !n.contains(':')).map(|(_, n)| n).collect();
    names.sort();
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    Answer::new(
        200,
        &[("content-type", "application/json")],
        format!(r#"{{"name":"{repository}","tags":[{list}]}}"#),
    )
}

fn uploads(
    shared: &Shared,
    state: &mut State,
    seen: &Seen,
    repository: &str,
    upload: &str,
    query: &str,
    body: Vec<u8>,
) -> Answer {
    let value = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name));
        pair.map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"))
    };
    match seen.method.as_str() {
        "POST" => {
            if let (Some(digest), Some(from)) = (value("mount"), value("from"))
                && let Some(bytes) = state.blobs.get(&(from, digest.clone())).cloned()
            {
                state.blobs.insert((repository.to_owned(), digest), bytes);
                return Answer::new(201, &[], []);
            }
            state.uploads += 1;
            let location = format!(
                "{}://{}/v2/{repository}/blobs/uploads/{}?state=x",
                shared.scheme, shared.address, state.uploads
            );
            Answer::new(202, &[("location", &location)], [])
        }
        "PUT" if !upload.is_empty() => {
            let digest = Digest::of(&body).to_string();
            if value("digest").as_deref() != Some(&digest) {
                return Answer::error(
                    400,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                );
            }
            state.blobs.insert((repository.to_owned(), digest), Arc::new(body));
            Answer::new(201, &[], [])
        }
        _ => Answer::error(405, "UNSUPPORTED", "unsupported"),
    }
}

/// Sends the answer with its tricks; tells whether the connection goes on.
fn send(stream: &mut BufReader<Box<dyn Duplex>>, mut answer: Answer, tricks: &[Trick]) -> io::Result<bool> {
    for trick in tricks {
        match trick {
            Trick::Hang => return Ok(false),
            Trick::Silence => return wait_for_leave(stream),
            Trick::Raw(bytes) => return stream.get_mut().write_all(bytes).map(|()| false),
            Trick::EndlessHeaders => return endless_headers(stream.get_mut()),
            Trick::Answer(status, headers, body) => {
                let is_head = answer.is_head;
                answer = Answer::new(*status, &[], body.clone());
                (answer.headers, answer.is_head) = (headers.clone(), is_head);
            }
            Trick::Corrupt => {
                let mut body = answer.body.to_vec();
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                answer.body = Arc::new(body);
            }
            Trick::Header(name, value) => answer.set(name, value),
            Trick::NoHeader(name) => answer.headers.retain(|(n, _)| n != name),
            Trick::WrongRange if answer.status == 206 => answer.set("content-range", "bytes 0-1/2"),
            _ => {}
        }
    }
    send_answer(stream, &answer, tricks)
}

fn send_answer(
    stream: &mut BufReader<Box<dyn Duplex>>,
    answer: &Answer,
    tricks: &[Trick],
) -> io::Result<bool> {
    let body = &answer.body[answer.from..];
    let is_chunked = tricks.iter().any(|t| matches!(t, Trick::Chunked | Trick::EndlessBody));
    let claimed = tricks.iter().find_map(|t| if let Trick::ClaimLength(n) = t { Some(*n) } else { None });
    let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if is_chunked {
        head.push_str("transfer-encoding: chunked\r\n\r\n");
    } else {
        let _ = write!(head, "content-length: {}\r\n\r\n", claimed.unwrap_or(body.len() as u64));
    }
    stream.get_mut().write_all(head.as_bytes())?;
    if answer.is_head {
        return stream.get_mut().flush().map(|()| true);
    }
    send_body(stream, body, tricks, is_chunked, claimed.is_some())
}

fn send_body(
    stream: &mut BufReader<Box<dyn Duplex>>,
    body: &[u8],
    tricks: &[Trick],
    is_chunked: bool,
    lies: bool,
) -> io::Result<bool> {
    let out = stream.get_mut();
    for trick in tricks {
        match trick {
            Trick::CutAfter(n) => {
                out.write_all(&body[..(*n).min(body.len())])?;
                return out.flush().map(|()| false);
            }
            Trick::StallAfter(n) => {
                out.write_all(&body[..(*n).min(body.len())])?;
                out.flush()?;
                return wait_for_leave(stream);
            }
            Trick::Drip(size, pause) => {
                for piece in body.chunks(*size) {
                    out.write_all(piece)?;
                    out.flush()?;
                    std::thread::sleep(*pause);
                }
                return Ok(true);
            }
            Trick::EndlessBody => loop {
                out.write_all(b"8\r\nabcdefgh\r\n")?;
            },
            _ => {}
        }
    }
    if is_chunked {
        for piece in body.chunks(10_000) {
            write!(out, "{:x}\r\n", piece.len())?;
            out.write_all(piece)?;
            out.write_all(b"\r\n")?;
        }
        out.write_all(b"0\r\n\r\n")?;
    } else {
        out.write_all(body)?;
    }
    out.flush()?;
    Ok(!lies)
}

fn endless_headers(out: &mut Box<dyn Duplex>) -> io::Result<bool> {
    out.write_all(b"HTTP/1.1 200 OK\r\n")?;
    loop {
        out.write_all(
            b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        )?;
    }
}

/// Keeps the connection open and silent until the client closes it.
fn wait_for_leave(stream: &mut impl Read) -> io::Result<bool> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest)? > 0 {}
    Ok(false)
}
