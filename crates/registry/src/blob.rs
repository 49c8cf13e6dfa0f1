//! Blobs on their way in: bounded memory, resumed by range, never longer than their descriptor.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bale_fault::{Fault, Kind, Result};
use bale_spec::Digest;
use hyper::Method;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::auth::Scope;
use crate::client::Inner;
use crate::patience::Patience;
use crate::refusal::Refusal;
use crate::session::{Ask, Session};
use crate::trouble::{Retry, Trouble};
use crate::wire::Answer;

/// Pieces (of at most 256 KiB) that wait for the reader; what comes next waits in the socket.
const PIECES: usize = 4;
/// So many bytes count as progress, after which earlier failures are forgotten.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The bytes of a blob, as they arrive.
///
/// They are not hashed here, since every reader hashes them in its own pipeline; their number is exactly what the
/// descriptor says, or reading fails. Dropping it ends the transfer.
pub struct Blob {
    pieces: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
    /// What is still to come, in bytes.
    left: u64,
    /// Keeps the thread alive.
    _client: Arc<Inner>,
}

impl BufRead for Blob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => {
                    self.left = self.left.saturating_sub(piece.len() as u64);
                    self.current = piece;
                }
                Some(Err(fault)) => return Err(into_io(fault)),
                None if self.left > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.current.split_to(amount.min(self.current.len()));
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// Takes the failure with its kind and hint out of what a [`Blob`] returned; other errors become one.
#[must_use]
pub fn fault_of(error: io::Error) -> Fault {
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => Fault::new(bale_fault::kind_of_io(&error), crate::dial::plain(&error)),
    }
}

/// Puts a failure into the type that readers speak.
fn into_io(fault: Fault) -> io::Error {
    let kind = match fault.kind() {
        Kind::Corrupt => io::ErrorKind::InvalidData,
        Kind::NotFound => io::ErrorKind::NotFound,
        Kind::PermissionDenied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, fault)
}

/// One blob being fetched.
pub(crate) struct Transfer {
    session: Arc<Session>,
    repository: String,
    digest: Digest,
    size: u64,
    /// How much of the blob the reader has.
    at: u64,
    /// How much of the current answer has to be passed over: it began before `at`.
    skip: u64,
    /// The entity tag of the first answer, when it is strong.
    tag: Option<String>,
    progress: u64,
    patience: Patience,
}

impl Transfer {
    pub(crate) fn new(session: Arc<Session>, repository: &str, digest: Digest, size: u64, at: u64) -> Self {
        let patience = session.patience();
        Self {
            session,
            repository: repository.to_owned(),
            digest,
            size,
            at,
            skip: 0,
            tag: None,
            progress: 0,
            patience,
        }
    }

    /// Asks for what is missing, trying again as the settings allow.
    pub(crate) async fn open(&mut self) -> Result<Answer, Trouble> {
        loop {
            match self.open_once().await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => self.patience.pause(trouble, self.session.was_reached()).await?,
            }
        }
    }

    /// Feeds the reader from `answer` and what follows it, until all is there or the reader has gone.
    pub(crate) async fn pump(mut self, answer: Option<Answer>, sink: mpsc::Sender<Result<Bytes>>) {
        if let Err(trouble) = self.pump_all(answer, &sink).await {
            // The URL that it names has the digest.
            let _ = sink.send(Err(trouble.fault)).await;
        }
    }

    async fn pump_all(
        &mut self,
        mut answer: Option<Answer>,
        sink: &mpsc::Sender<Result<Bytes>>,
    ) -> Result<(), Trouble> {
        while self.at < self.size {
            let current = match answer.take() {
                Some(answer) => answer,
                None => self.open().await?,
            };
            match self.pump_one(current, sink).await {
                Ok(Outcome::ReaderLeft) => return Ok(()),
                Ok(Outcome::Ended) => {}
                Err(trouble) => self.patience.pause(trouble, true).await?,
            }
        }
        Ok(())
    }

    async fn pump_one(
        &mut self,
        mut answer: Answer,
        sink: &mpsc::Sender<Result<Bytes>>,
    ) -> Result<Outcome, Trouble> {
        while let Some(mut piece) = answer.piece().await? {
            let skipped = self.skip.min(piece.len() as u64);
            self.skip -= skipped;
            // Lossless: not more than the piece's own length.
            drop(piece.split_to(skipped as usize));
            if piece.len() as u64 > self.size - self.at {
                return Err(self.too_long(&answer));
            }
            if piece.is_empty() {
                continue;
            }
            self.advance(piece.len() as u64);
            if sink.send(Ok(piece)).await.is_err() {
                return Ok(Outcome::ReaderLeft);
            }
        }
        if self.at < self.size {
            let words = format!("{}: the answer ended at {} of {} bytes", answer.line(), self.at, self.size);
            return Err(Trouble::new(Kind::Corrupt, words, Retry::Soon));
        }
        Ok(Outcome::Ended)
    }

    fn advance(&mut self, bytes: u64) {
        self.at += bytes;
        self.progress += bytes;
        if self.progress >= PROGRESS_BYTES {
            self.progress = 0;
            self.patience.renew();
        }
    }

    async fn open_once(&mut self) -> Result<Answer, Trouble> {
        let url = self.session.url(&format!("/v2/{}/blobs/{}", self.repository, self.digest)).await?;
        let mut ask = Ask::new(Method::GET, url, Scope::pull(&self.repository));
        if self.at > 0 {
            ask = ask.header("range", &format!("bytes={}-{}", self.at, self.size - 1));
            if let Some(tag) = &self.tag {
                ask = ask.header("if-range", tag);
            }
        }
        let answer = self.session.ask(ask).await?;
        match answer.status.as_u16() {
            200 => self.accept_whole(answer),
            206 if self.at > 0 => self.accept_part(answer),
            _ => Err(self.session.refused(Refusal::of(answer).await)),
        }
    }

    fn accept_whole(&mut self, answer: Answer) -> Result<Answer, Trouble> {
        if answer.content_length().is_some_and(|length| length > self.size) {
            return Err(self.too_long(&answer));
        }
        self.tag = answer.header("etag").filter(|tag| tag.starts_with('"')).map(str::to_owned);
        self.skip = self.at;
        Ok(answer)
    }

    fn accept_part(&mut self, answer: Answer) -> Result<Answer, Trouble> {
        let range = answer.header("content-range").and_then(parse_content_range);
        match range {
            Some((start, total)) if start == self.at && total.is_none_or(|total| total == self.size) => {
                self.skip = 0;
                Ok(answer)
            }
            _ => {
                let shown = crate::text::escape(answer.header("content-range").unwrap_or("nothing"));
                let words = format!(
                    "{}: asked for bytes from {} of {}, got {shown}",
                    answer.line(),
                    self.at,
                    self.size
                );
                Err(Trouble::new(Kind::Corrupt, words, Retry::Soon))
            }
        }
    }

    fn too_long(&self, answer: &Answer) -> Trouble {
        let words =
            format!("{}: the answer is longer than the {} bytes of the descriptor", answer.line(), self.size);
        Trouble::fatal(Kind::Corrupt, words)
    }
}

enum Outcome {
    Ended,
    ReaderLeft,
}

/// Reads `bytes START-END/TOTAL`; the total may be `*`.
pub(crate) fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start, total))
}

/// Makes a reader of `left` bytes, and what feeds it.
pub(crate) fn reader(client: Arc<Inner>, left: u64) -> (Blob, mpsc::Sender<Result<Bytes>>) {
    let (sink, pieces) = mpsc::channel(PIECES);
    (Blob { pieces, current: Bytes::new(), left, _client: client }, sink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (text, wanted) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("bytes 5/10", None),
            ("items 5-9/10", None),
            ("bytes -5-9/10", None),
        ] {
            assert_eq!(parse_content_range(text), wanted, "{text}");
        }
    }
}
