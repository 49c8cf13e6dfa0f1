//! Blobs on their way out: look, mount, or upload whole.

use std::io::Read;
use std::sync::Arc;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::image::Descriptor;
use bale_spec::{Digest, Reference};
use hyper::Method;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::auth::Scope;
use crate::client::Inner;
use crate::patience::Patience;
use crate::refusal::Refusal;
use crate::session::{Ask, Session};
use crate::trouble::Trouble;
use crate::url::Url;
use crate::wire::Payload;

/// Pieces on the way between the reader and the socket.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 256 << 10;

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry took it from another repository of its own.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// Asks whether the registry has a blob.
pub(crate) async fn exists(
    session: &Session,
    repository: &str,
    digest: &Digest,
    scope: Scope,
) -> Result<bool, Trouble> {
    let mut patience = session.patience();
    loop {
        match exists_once(session, repository, digest, scope.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(trouble) => patience.pause(trouble, session.was_reached()).await?,
        }
    }
}

async fn exists_once(
    session: &Session,
    repository: &str,
    digest: &Digest,
    scope: Scope,
) -> Result<bool, Trouble> {
    let url = session.url(&format!("/v2/{repository}/blobs/{digest}")).await?;
    let answer = session.ask(Ask::new(Method::HEAD, url, scope)).await?;
    match answer.status.as_u16() {
        200 => {
            answer.discard().await;
            Ok(true)
        }
        404 => {
            answer.discard().await;
            Ok(false)
        }
        _ => Err(session.refused(Refusal::of(answer).await)),
    }
}

/// What the registry said to the wish to upload.
enum Start {
    Mounted,
    At(Url),
}

/// Opens an upload, or has the blob mounted from `mount_from`.
async fn start(
    session: &Session,
    repository: &str,
    digest: &Digest,
    mount_from: Option<&str>,
) -> Result<Start, Trouble> {
    let mut url = session.url(&format!("/v2/{repository}/blobs/uploads/")).await?;
    let mut scope = Scope::push(repository);
    if let Some(from) = mount_from {
        url = url.query("mount", &digest.to_string()).query("from", from);
        scope = scope.and_pull(from);
    }
    let answer =
        session.expect(Ask::new(Method::POST, url, scope).header("content-length", "0"), &[201, 202]).await?;
    if answer.status.as_u16() == 201 {
        answer.discard().await;
        return Ok(Start::Mounted);
    }
    let failed = |why: &str| Trouble::fatal(Kind::Unavailable, format!("{}: {why}", answer.line()));
    let location =
        answer.header("location").ok_or_else(|| failed("the answer names no place for the upload"))?;
    let location = answer.url.join(location).map_err(|e| failed(e.0))?;
    if answer.url.origin().scheme == crate::url::Scheme::Https
        && location.origin().scheme == crate::url::Scheme::Http
    {
        return Err(failed("the place for the upload is plain http"));
    }
    answer.discard().await;
    Ok(Start::At(location))
}

/// Puts the whole blob to `location`. Credentials go there only when it is the registry itself.
async fn put(
    session: &Session,
    repository: &str,
    blob: &Descriptor,
    location: Url,
    payload: Payload,
) -> Result<(), Trouble> {
    let ask =
        Ask::new(Method::PUT, location.query("digest", &blob.digest.to_string()), Scope::push(repository));
    let ask = ask.header("content-type", "application/octet-stream").payload(payload);
    let answer = session.expect(ask, &[200, 201, 202, 204]).await?;
    answer.discard().await;
    Ok(())
}

/// Pushes a blob; runs on the caller's thread, which is the one that reads.
pub(crate) fn push(
    client: &Arc<Inner>,
    reference: &Reference,
    blob: &Descriptor,
    open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
    mount_from: Option<&str>,
) -> Result<Pushed> {
    let session = client.session(reference.registry());
    let (repository, digest) = (reference.repository().to_owned(), blob.digest);
    let (own, name) = (session.clone(), repository.clone());
    if client.wait(async move { exists(&own, &name, &digest, Scope::push(&name)).await })? {
        return Ok(Pushed::Existed);
    }
    let mut mount_from = mount_from.filter(|from| *from != repository);
    let mut patience = Some(session.patience());
    loop {
        match push_once(client, &session, &repository, blob, open, mount_from) {
            Ok(pushed) => return Ok(pushed),
            // The wish for a mount alone can be refused: no right to the other repository, or no mounts at all.
            Err(_) if mount_from.is_some() => mount_from = None,
            Err(trouble) => patience = Some(pause(client, &session, patience.take(), trouble)?),
        }
    }
}

/// Waits on the client's thread, where the timers are.
fn pause(
    client: &Arc<Inner>,
    session: &Arc<Session>,
    patience: Option<Patience>,
    trouble: Trouble,
) -> Result<Patience> {
    let mut patience = patience.unwrap_or_else(|| session.patience());
    let session = session.clone();
    client.wait(async move {
        patience.pause(trouble, session.was_reached()).await?;
        Ok(patience)
    })
}

fn push_once(
    client: &Arc<Inner>,
    session: &Arc<Session>,
    repository: &str,
    blob: &Descriptor,
    open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
    mount_from: Option<&str>,
) -> Result<Pushed, Trouble> {
    let (own, name, digest, from) =
        (session.clone(), repository.to_owned(), blob.digest, mount_from.map(str::to_owned));
    let started = client.run(async move { start(&own, &name, &digest, from.as_deref()).await })?;
    let Start::At(location) = started else { return Ok(Pushed::Mounted) };
    let reader = open()?;
    let (feed, source) = mpsc::channel(PIECES);
    let (own, name, descriptor) = (session.clone(), repository.to_owned(), blob.clone());
    let payload = Payload::Stream(source, blob.size);
    let sending = client.begin(async move { put(&own, &name, &descriptor, location, payload).await })?;
    let fed = feed_all(reader, blob, &feed);
    drop(feed);
    let sent = sending
        .recv()
        .map_err(|_| Trouble::fatal(Kind::Internal, "the thread of the registry client ended"))?;
    // A source that failed is why the upload failed, not the other way round.
    fed?;
    sent.map(|()| Pushed::Uploaded)
}

/// Reads all of the blob and hands it on, piece by piece; ends early when the upload has ended.
fn feed_all(
    reader: Box<dyn Read + Send>,
    blob: &Descriptor,
    feed: &mpsc::Sender<std::io::Result<Bytes>>,
) -> Result<()> {
    // One byte more than promised tells a blob that grew.
    let mut reader = reader.take(blob.size.saturating_add(1));
    let mut left = blob.size;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let length = reader.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let length = length.within(|| format!("read blob {}", blob.digest))? as u64;
        if length > left || (length == 0 && left > 0) {
            // Dropping the sender before the end breaks the upload off.
            return Err(Fault::new(
                Kind::Corrupt,
                format!("blob {} is not {} bytes long any more", blob.digest, blob.size),
            ));
        }
        if length == 0 {
            return Ok(());
        }
        left -= length;
        if feed.blocking_send(Ok(Bytes::from(piece))).is_err() {
            return Ok(());
        }
    }
}
